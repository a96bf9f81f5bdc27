"""The platform: the checks that only all devices of one guest together allow. Steps 20 to 25 of the story.

20  every device is trusted
21  there is at least one device, and as many as expected
22  no device appears twice, by certified identity
23  all devices answered one nonce
24  all GPUs run in one mode
25  the PPCIE topology closes: all GPUs are in protected PCIe mode, all switches locked, and they name each other and no
    other device

The topology is bound to certificates. A device's PDI is certified: it is the serial number in the subject of its BROM
certificate, without the first byte. The topology closes when the switch PDIs that each GPU's report lists are those of
the switches present, and the GPU PDIs that each switch's report lists are those of the GPUs present, none missing and
none more. At the end of a disabled link a report lists the PDI 0, which names no device and is left out.

Naming each other is not enough: links are protected only while every GPU is in protected PCIe mode, by its mode flag
(field 36, where the report has one) and its protected PCIe status (field 21), and every switch is locked (field 25).
What the driver says of both is compared with these signed values in step 19.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nvattest._registry import NO_PDI, PPCIE_ENABLED, SWITCH_LOCKED
from nvattest.appraisal.check import Check, failed, not_made, passed, skipped
from nvattest.appraisal.inputs import EvidencePolicy, TopologyRule
from nvattest.appraisal.memory import Basis
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.model import DeviceKind, counted
from nvattest.spdm.opaque import GpuFields, SwitchFields
from nvattest.spdm.report import FeatureMode, feature_mode, feature_mode_name

_GPUS = ("GPU", "GPUs")
_SWITCHES = ("switch", "switches")
Devices = Sequence[DeviceAppraisal]


def appraise_platform(devices: tuple[DeviceAppraisal, ...], basis: Basis) -> Appraisal:
    """Put the appraisals of all devices together and make the checks of the platform. Never raises."""
    gpus = [device for device in devices if device.kind is DeviceKind.GPU]
    switches = [device for device in devices if device.kind is DeviceKind.NVSWITCH]
    return Appraisal(
        devices=devices,
        checks=(
            _check_trusted(devices),  # (20)
            _check_counts(len(gpus), len(switches), basis.policy),  # (21)
            _check_distinct(devices),  # (22)
            _check_nonce(devices),  # (23)
            _check_mode(gpus),  # (24)
            _check_topology(gpus, switches, basis.policy),  # (25)
        ),
        nonce=basis.nonce,
        at=basis.at,
        policy=basis.policy,
        anchors=basis.anchors.label,
        simulated=basis.anchors.simulated,
    )


def _check_trusted(devices: Devices) -> Check:
    if not devices:
        return not_made("devices-trusted", "there is no device")
    bad = [device.label for device in devices if not device.trusted]
    if not bad:
        return passed("devices-trusted", f"{len(devices)} of {len(devices)}")
    names = ", ".join(bad)
    return failed("devices-trusted", f"{len(bad)} of {counted(len(devices), 'device')} failed: {names}", found=names)


def _both(gpus: int, switches: int) -> str:
    return f"{counted(gpus, *_GPUS)} and {counted(switches, *_SWITCHES)}"


def _check_counts(gpus: int, switches: int, policy: EvidencePolicy) -> Check:
    found = _both(gpus, switches)
    if gpus + switches == 0:
        hint = "check that the GPUs are passed through and the driver is loaded"
        return failed("devices-present", "no device was given: nothing was proven", found=found, hint=hint)
    for words, count, expected in (
        (_GPUS, gpus, policy.expected_gpus),
        (_SWITCHES, switches, policy.expected_switches),
    ):
        if expected is not None and count != expected:
            seen = counted(count, *words)
            return failed(
                "devices-present", f"{seen}, the policy expects {expected}", expected=counted(expected, *words),
                found=seen, hint="a device is missing, or was not passed through",
            )  # fmt: skip
    return passed("devices-present", found)


def _check_distinct(devices: Devices) -> Check:
    identities = [device.identity for device in devices if device.identity is not None]
    ueids = [identity.ueid for identity in identities]
    pdis = [identity.pdi for identity in identities if identity.pdi is not None]
    twice = [f"ueid {name}" for name in ueids if ueids.count(name) > 1]
    twice += [f"PDI {name}" for name in pdis if pdis.count(name) > 1]
    if twice:
        return failed(
            "devices-distinct", f"one device appears more than once: {twice[0]}",
            expected=counted(len(devices), "different device"), found=counted(len(set(ueids)), "different device"),
            hint="the list repeats the evidence of one device in the place of another",
        )  # fmt: skip
    if devices and len(identities) == len(devices):
        return passed("devices-distinct", counted(len(devices), "certified identity", "certified identities"))
    return not_made("devices-distinct", "a chain could not be read")


def _check_nonce(devices: Devices) -> Check:
    nonces = {device.report.request.nonce for device in devices if device.report is not None}
    if len(nonces) > 1:
        return failed(
            "one-nonce", f"the devices answered {len(nonces)} different nonces", expected="1", found=str(len(nonces)),
            hint="collect the evidence of all devices in one go",
        )  # fmt: skip
    if nonces and all(device.report is not None for device in devices):
        return passed("one-nonce", "all devices answered the same nonce")
    return not_made("one-nonce", "a report could not be read")


def _check_mode(gpus: Devices) -> Check:
    modes = {feature_mode_name(gpu.report) if gpu.report is not None else "none" for gpu in gpus}
    if len(modes) > 1:
        names = ", ".join(sorted(modes))
        return failed("one-mode", f"the GPUs run in different modes: {names}", expected="one mode", found=names)
    return passed("one-mode", "one mode" if gpus else "there are no GPUs")


def _check_topology(gpus: Devices, switches: Devices, policy: EvidencePolicy) -> Check:
    ppcie = any(gpu.report is not None and feature_mode(gpu.report) is FeatureMode.PPCIE for gpu in gpus)
    required = policy.topology is TopologyRule.REQUIRED
    unprotected = list(_unprotected(gpus, switches)) if switches or required else []
    unlinked = list(_unlinked(gpus, switches)) if gpus and switches else []
    both = _both(len(gpus), len(switches))
    if unprotected:
        hint = (
            "set all GPUs and switches to protected PCIe mode on the host, and let the fabric manager lock its "
            "switches before the guest starts"
        )
        expected = "GPUs in protected PCIe mode and locked switches"
        return failed("topology", _first_of(unprotected + unlinked), expected=expected, hint=hint)
    if unlinked:
        hint = "a device of another node was put in, or one was left out"
        return failed("topology", _first_of(unlinked), expected=f"{both} that name each other", hint=hint)
    if gpus and switches:
        return passed("topology", f"{both} name each other, the GPUs in protected PCIe mode and the switches locked")
    if ppcie or switches or required:
        missing = "switches" if gpus else "GPUs"
        detail = f"the evidence has no {missing}: who is linked to whom was not checked"
        hint = f"give the evidence of the {missing} too (--device all)"
        if required:
            return failed("topology", detail, hint=hint)
        return skipped("topology", detail, hint=hint, tolerated_by="topology")
    return passed("topology", "the devices are not linked by protected PCIe; each stands for itself")


def _first_of(problems: list[str]) -> str:
    return problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _unlinked(gpus: Devices, switches: Devices) -> Iterator[str]:
    """What keeps the topology from closing, one sentence each."""
    for device in (*gpus, *switches):
        if _certified_pdi(device) is None:
            yield f"{device.label}: its certificates name no PDI"
    gpu_pdis, switch_pdis = ({_certified_pdi(device) or "" for device in group} - {""} for group in (gpus, switches))
    for gpu in gpus:
        if gpu.report is None or not isinstance(gpu.report.fields, GpuFields):
            yield f"{gpu.label}: its report could not be read"
        else:
            yield from _unlisted(gpu.label, "switches", set(gpu.report.fields.switch_pdis), switch_pdis)
    for switch in switches:
        if switch.report is None or not isinstance(switch.report.fields, SwitchFields):
            yield f"{switch.label}: its report could not be read"
            continue
        yield from _unlisted(switch.label, "GPUs", set(switch.report.fields.gpu_pdis), gpu_pdis)
        own = switch.report.fields.pdi
        certified = switch.identity.pdi if switch.identity is not None else None
        if own != certified:
            yield f"{switch.label}: its report says PDI {own}, its certificate {certified}"


def _certified_pdi(device: DeviceAppraisal) -> str | None:
    pdi = device.identity.pdi if device.identity is not None else None
    return None if pdi == NO_PDI else pdi


def _unlisted(label: str, word: str, reported: set[str], certified: set[str]) -> Iterator[str]:
    foreign, missing = sorted(reported - certified - {NO_PDI}), sorted(certified - reported)
    if foreign:
        yield f"{label}: its report lists {word} that are not here: {', '.join(foreign)}"
    if missing:
        yield f"{label}: its report does not list the {word} {', '.join(missing)}"


def _unprotected(gpus: Devices, switches: Devices) -> Iterator[str]:
    """Which devices are not protected, one sentence each. A report that cannot be read fails elsewhere."""
    for gpu in gpus:
        if gpu.report is None or not isinstance(gpu.report.fields, GpuFields):
            continue
        status = gpu.report.fields.ppcie_status
        if feature_mode(gpu.report) is not FeatureMode.PPCIE:
            mode = feature_mode_name(gpu.report)
            yield f"{gpu.label}: its report says mode {mode}; expected protected PCIe (ppcie)"
        elif status != PPCIE_ENABLED:
            said = "is missing" if status is None else f"is {status:#04x}"
            yield f"{gpu.label}: its protected PCIe status {said}; expected {PPCIE_ENABLED:#04x}"
    for switch in switches:
        if switch.report is None or not isinstance(switch.report.fields, SwitchFields):
            continue
        lock = switch.report.fields.lock_status
        if lock != SWITCH_LOCKED:
            said = "is missing" if lock is None else f"is {lock}"
            yield f"{switch.label}: its lock status {said}; expected {SWITCH_LOCKED} (locked)"
