"""The platform: the checks that only all devices of one guest together allow. Steps 20 to 25 of the story.

20  every device is trusted
21  there is at least one device, and as many as expected
22  no device appears twice, by certified identity
23  all devices answered one nonce
24  all GPUs run in one mode
25  the PPCIE topology closes: all GPUs are in protected PCIe mode, all switches locked, and they name each other and
    nobody else
"""

from __future__ import annotations

from nvattest.appraisal.check import CheckList, Outcome
from nvattest.appraisal.policy import EvidencePolicy, TopologyRule
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.appraisal.topology import protection_problems, topology_problems
from nvattest.model import DeviceKind, Nonce, VerificationTime, counted
from nvattest.pki.anchors import TrustAnchors
from nvattest.spdm.report import FeatureMode, feature_mode, feature_mode_name

_GPUS = ("GPU", "GPUs")
_SWITCHES = ("switch", "switches")


def appraise_platform(
    devices: tuple[DeviceAppraisal, ...],
    *,
    nonce: Nonce | None,
    at: VerificationTime,
    policy: EvidencePolicy,
    anchors: TrustAnchors,
) -> Appraisal:
    """Put the appraisals of all devices together and make the checks of the platform. Never raises."""
    checks = CheckList(DeviceKind.GPU)
    gpus = [device for device in devices if device.kind is DeviceKind.GPU]
    switches = [device for device in devices if device.kind is DeviceKind.NVSWITCH]

    # (20) every device is trusted
    bad = [device.label for device in devices if not device.trusted]
    if bad:
        checks.fail(
            "devices-trusted",
            f"{len(bad)} of {counted(len(devices), 'device')} failed: {', '.join(bad)}",
            found=", ".join(bad),
        )
    elif devices:
        checks.ok("devices-trusted", f"{len(devices)} of {len(devices)}")
    else:
        checks.skip(("devices-trusted",), "there is no device")
    # (21) there is at least one device, and as many as expected
    _check_counts(len(gpus), len(switches), policy, checks)
    # (22) no device appears twice
    _check_distinct(devices, checks)
    # (23) all devices answered one nonce
    nonces = {device.report.request.nonce for device in devices if device.report is not None}
    if len(nonces) > 1:
        checks.fail(
            "one-nonce",
            f"the devices answered {len(nonces)} different nonces",
            expected="1",
            found=str(len(nonces)),
            hint="collect the evidence of all devices in one go",
        )
    elif nonces and all(device.report is not None for device in devices):
        checks.ok("one-nonce", "all devices answered the same nonce")
    else:
        checks.skip(("one-nonce",), "a report could not be read")
    # (24) all GPUs run in one mode
    modes = {feature_mode_name(device.report) if device.report is not None else "none" for device in gpus}
    if len(modes) > 1:
        names = ", ".join(sorted(modes))
        checks.fail("one-mode", f"the GPUs run in different modes: {names}", expected="one mode", found=names)
    else:
        checks.ok("one-mode", "one mode" if gpus else "there are no GPUs")
    # (25) the topology closes
    _check_topology(gpus, switches, policy, checks)

    return Appraisal(
        devices=devices,
        checks=tuple(checks.checks),
        nonce=nonce,
        at=at,
        policy=policy,
        anchors=anchors.label,
        simulated=anchors.simulated,
    )


def _both(gpus: int, switches: int) -> str:
    return f"{counted(gpus, *_GPUS)} and {counted(switches, *_SWITCHES)}"


def _check_counts(gpus: int, switches: int, policy: EvidencePolicy, checks: CheckList) -> None:
    found = _both(gpus, switches)
    if gpus + switches == 0:
        checks.fail("devices-present", "no device was given: nothing was proven", found=found,
                    hint="check that the GPUs are passed through and the driver is loaded")  # fmt: skip
        return
    for one, many, count, expected in (
        (*_GPUS, gpus, policy.expected_gpus),
        (*_SWITCHES, switches, policy.expected_switches),
    ):
        if expected is not None and count != expected:
            seen = counted(count, one, many)
            checks.fail(
                "devices-present", f"{seen}, the policy expects {expected}", expected=counted(expected, one, many),
                found=seen, hint="a device is missing, or was not passed through",
            )  # fmt: skip
            return
    checks.ok("devices-present", found)


def _check_distinct(devices: tuple[DeviceAppraisal, ...], checks: CheckList) -> None:
    identities = [device.identity for device in devices if device.identity is not None]
    ueids = [identity.ueid for identity in identities]
    pdis = [identity.pdi for identity in identities if identity.pdi is not None]
    twice = [
        f"{word} {name}"
        for word, names in (("ueid", ueids), ("PDI", pdis))
        if len(set(names)) < len(names)
        for name in names
        if names.count(name) > 1
    ]
    if twice:
        checks.fail(
            "devices-distinct",
            f"one device appears more than once: {twice[0]}",
            expected=counted(len(devices), "different device"),
            found=counted(len(set(ueids)), "different device"),
            hint="the list repeats the evidence of one device in the place of another",
        )
    elif devices and len(identities) == len(devices):
        checks.ok("devices-distinct", counted(len(devices), "certified identity", "certified identities"))
    else:
        checks.skip(("devices-distinct",), "a chain could not be read")


def _mode(device: DeviceAppraisal) -> FeatureMode | None:
    return None if device.report is None else feature_mode(device.report)


def _check_topology(
    gpus: list[DeviceAppraisal], switches: list[DeviceAppraisal], policy: EvidencePolicy, checks: CheckList
) -> None:
    ppcie = any(_mode(gpu) is FeatureMode.PPCIE for gpu in gpus)
    required = policy.topology is TopologyRule.REQUIRED
    unprotected = protection_problems(gpus, switches) if switches or required else []
    strangers = topology_problems(gpus, switches) if gpus and switches else []
    both = _both(len(gpus), len(switches))
    if unprotected:
        checks.fail(
            "topology", _first_of(unprotected + strangers), expected="GPUs in protected PCIe mode and locked switches",
            hint="set all GPUs and switches to protected PCIe mode on the host, and "
            "let the fabric manager lock its switches before the guest starts",
        )  # fmt: skip
    elif strangers:
        checks.fail(
            "topology", _first_of(strangers), expected=f"{both} that name each other",
            hint="a device of another node was put in, or one was left out",
        )  # fmt: skip
    elif gpus and switches:
        checks.ok("topology", f"{both} name each other, the GPUs in protected PCIe mode and the switches locked")
    elif ppcie or switches or required:
        missing = "switches" if gpus else "GPUs"
        checks.add(
            "topology",
            Outcome.FAIL if required else Outcome.SKIPPED,
            f"the evidence has no {missing}: who is linked to whom was not checked",
            tolerated_by="" if required else "topology",
            hint=f"give the evidence of the {missing} too (--device all)",
        )
    else:
        checks.ok("topology", "the devices are not linked by protected PCIe; each stands for itself")


def _first_of(problems: list[str]) -> str:
    return problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
