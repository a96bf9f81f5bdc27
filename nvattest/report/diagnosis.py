"""From one failed check of one device to its likely causes and the next command: the field's knowledge, applied.

The catalogue says what can be wrong in general; this looks at the values of the case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nvattest.report.catalogue import find_entry
from nvattest.report.model import AppraisalView, CellView, CheckView, DeviceView
from nvattest.report.topology import disagreements
from nvattest.report.values import listed

# A hint of the verifier is short and about the case, so it comes first; what it repeats of the catalogue is left out.
_MAXIMUM_CAUSES = 4
_MAXIMUM_ACTIONS = 3
_SOURCES = {"driver": "driver", "vbios": "VBIOS", "bios": "switch BIOS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is likely wrong. ``facts`` are read from the case; ``causes`` are likely, likeliest first."""

    facts: tuple[str, ...]
    causes: tuple[str, ...]
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What failed, and the labels of all devices where it failed in the same way.

    ``checks`` is more than one where checks failed by one cause: ``check``, the first, stands for all.
    """

    checks: tuple[CheckView, ...]
    devices: tuple[str, ...]

    @property
    def check(self) -> CheckView:
        """The check whose values and diagnosis are shown."""
        return self.checks[0]

    @property
    def title(self) -> str:
        """What was asked, of all checks."""
        return "; ".join(dict.fromkeys(check.title for check in self.checks))

    @property
    def ids(self) -> str:
        """The ids of all checks."""
        return listed([check.id for check in self.checks])


def failures(view: AppraisalView) -> tuple[Failure, ...]:
    """What failed, each thing once: a revoked certificate that eight GPUs share is one failure of eight devices."""
    found: dict[tuple[object, ...], list[CheckView]] = {}
    for check in view.causes:
        key: tuple[object, ...] = (check.id, check.outcome, check.detail)
        if check.id == "measurements":
            device = view.device(check.device)
            key = (check.id, tuple(cell.index for cell in device.bad_cells) if device is not None else ())
        found.setdefault(key, []).append(check)
    merged: dict[tuple[object, ...], tuple[tuple[str, ...], list[CheckView]]] = {}
    for own, group in found.items():
        first, devices = group[0], tuple(check.device for check in group)
        # One signer's certificate serves several RIMs: the same words about the same devices are one failure.
        shared = (first.outcome, first.detail, first.expected, first.found)
        key = shared if first.id.endswith("-rim-revocation") else own
        merged.setdefault((key, devices), (devices, []))[1].append(first)
    return tuple(Failure(checks=tuple(checks), devices=devices) for devices, checks in merged.values())


def telling(view: AppraisalView) -> frozenset[str]:
    """The labels of the failed devices that show everything that failed: of those that fail alike, the first."""
    found = failures(view)
    alike = {label for failure in found for label in failure.devices[1:]} - {failure.devices[0] for failure in found}
    return frozenset(device.label for device in view.devices if not device.trusted and device.label not in alike)


def diagnose(check: CheckView, appraisal: AppraisalView) -> Diagnosis:
    """The diagnosis of one failed check."""
    device = appraisal.device(check.device)
    entry = find_entry(check.id)
    facts, causes, actions = _special(check, device, appraisal)
    # A fresh answer does not bring a withdrawn certificate back.
    final = check.id.endswith("-revocation") and ": revoked" in check.detail
    if entry is not None:
        causes = causes or entry.causes
        # Whoever reads this is in an explanation already.
        general = (action for action in entry.actions if action.startswith("$ ") and "nvattest explain" not in action)
        actions = actions if final else (*actions, *general)
    # A hint may say a cause; causes stand in their own list.
    told = any(cause.lower().rstrip(".") == check.hint.lower() for cause in causes)
    if check.hint and not told and not check.hint.startswith("nvattest explain shows"):
        actions = (check.hint[0].upper() + check.hint[1:].rstrip(".") + ".", *actions)
    return Diagnosis(
        facts=facts,
        causes=tuple(dict.fromkeys(causes))[:_MAXIMUM_CAUSES],
        actions=tuple(dict.fromkeys(actions))[:_MAXIMUM_ACTIONS],
    )


_Parts = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def _special(check: CheckView, device: DeviceView | None, appraisal: AppraisalView) -> _Parts:
    if check.id == "measurements" and device is not None and device.cells is not None:
        return _measurements(device, appraisal)
    if check.id.endswith("-revocation") and device is not None:
        return _revocation(check, device)
    if check.id.endswith("-rim-available") and device is not None:
        role = check.id.partition("-")[0]
        version = device.driver_version if role == "driver" else device.firmware_version
        return (f"{device.label} runs {_SOURCES.get(role, role)} {version}.",), (), ()
    if check.id == "topology":
        return _topology(appraisal)
    return (), (), ()


def _measurements(device: DeviceView, appraisal: AppraisalView) -> _Parts:
    cells = device.cells or ()
    bad = device.bad_cells
    covered = [cell for cell in cells if cell.state != "not-covered"]
    indices = {cell.index for cell in bad}
    others = len(covered) - len(bad)
    places, verb = listed([str(index) for index in sorted(indices)]), "does" if len(indices) == 1 else "do"
    facts = [f"{others} of {len(covered)} covered measurements match; index {places} {verb} not."]
    for source in dict.fromkeys(cell.source for cell in bad):
        rim = device.rim(source)
        if rim is not None:
            facts.append(f"The golden value comes from the {_SOURCES.get(source, source)} RIM {rim.id}.")
    same = [
        other.label
        for other in appraisal.devices
        if other.label != device.label
        and other.kind == device.kind
        and {cell.index for cell in other.bad_cells} == indices
    ]
    alone = "" if same else _twin(device, bad, appraisal)
    if same:
        facts.append(f"{listed(same)} differ at the same index: a cause that they share, such as the RIM, is likelier.")
    if alone:
        facts.append(alone)
    return (
        tuple(facts),
        _measurement_causes(device, bad, len(covered), rim_cleared=bool(alone)),
        _restart(device, indices),
    )


def _restart(device: DeviceView, indices: set[int]) -> tuple[str, ...]:
    if device.is_switch:
        return ()
    if indices == {9}:
        return ("Stop the guest, start it again, and attest again; a reboot from inside is not enough.",)
    if indices == {52}:
        return ("Reboot the host, then attest again.",)
    return ()


def _twin(device: DeviceView, bad: tuple[CellView, ...], appraisal: AppraisalView) -> str:
    fellows = [
        other
        for other in appraisal.devices
        if other.label != device.label
        and other.kind == device.kind
        and other.cells
        and (other.driver_version, other.firmware_version) == (device.driver_version, device.firmware_version)
    ]
    clean = [other for other in fellows if not other.bad_cells]
    if not bad or not fellows or len(clean) != len(fellows):
        return ""
    count = f"All {len(fellows)} other devices" if len(fellows) > 1 else "The other device"
    verb = "match" if len(fellows) > 1 else "matches"
    return f"{count} with the same versions {verb}: the RIM is not the cause, this device is."


def _measurement_causes(
    device: DeviceView, bad: tuple[CellView, ...], covered: int, *, rim_cleared: bool
) -> tuple[str, ...]:
    indices = {cell.index for cell in bad}
    causes: list[str] = []
    if covered and len(bad) * 2 > covered:
        causes += [
            "Most values differ: the GPU is in DevTools mode, or the RIMs are of another release (nvtrust 35).",
        ]
    if indices == {9} and not device.is_switch:
        if not rim_cleared:
            causes += [
                (
                    "Only index 9 differs: NVIDIA re-issued some VBIOS RIMs under their old id, and yours is the "
                    "other issue."
                ),
            ]
        causes += [
            (
                "Only index 9 differs on H100 in a TDX cloud guest after a reboot (nvtrust 90 and 132): a full stop "
                "and start of the guest helped at first."
            ),
        ]
    if indices == {52} and not device.is_switch:
        causes += [
            (
                "Only index 52 differs on RTX PRO 6000 after CC mode went on, off and on (attestation-sdk 31): only a "
                "full reboot of the host cleared it."
            ),
        ]
    if 35 in indices:
        causes += ["Index 35 belongs to NVDEC0: it is exempt only while that engine is off, and here it is on."]
    if any(cell.state == "missing" for cell in bad):
        causes += ["The report leaves a measurement out: the driver is older or newer than the RIM."]
    sources = {cell.source for cell in bad}
    if sources == {"driver"} and not causes:
        causes += ["Only driver values differ: the driver that runs is not the released one, or was patched."]
    elif not causes:
        causes += ["Only firmware values differ: the VBIOS or its state is not the released one."]
    return (
        *causes,
        "DevTools or a debug mode was on when the GPU started.",
        "Something runs that NVIDIA did not release.",
    )


def _revocation(check: CheckView, device: DeviceView) -> _Parts:
    if check.id == "chain-revocation":
        chain = device.chain
    else:
        rim = device.rim(check.id.partition("-")[0])
        chain = rim.chain if rim is not None else None
    facts = []
    causes: tuple[str, ...] = ()
    for certificate in chain.certificates if chain is not None else ():
        answer = certificate.revocation
        if answer is None or answer.good:
            continue
        if certificate.name not in check.detail or answer.status not in check.detail:
            facts.append(f"{certificate.name}: {answer.status}.")
        if answer.responder:
            facts.append(f"The answer was signed by {answer.responder}.")
        causes = causes or {
            "revoked": ("NVIDIA withdrew this certificate: the release or device under it must no longer be trusted.",),
            "on-hold": ("The certificate is on hold: usual for a release that is not final.",),
            "stale": ("The answer is past its signed end; answers live about a day.", "The clock is ahead."),
            "not-yet-valid": ("This machine's clock is behind.", "The responder's clock is ahead."),
            "no-answer": ("The bundle has no answer for this certificate.",),
            "unreachable": ("The OCSP service could not be reached.",),
            "nonce-mismatch": ("A cache between here and the responder gave an answer to somebody else's question.",),
        }.get(answer.status, ())
    return tuple(facts), causes, ()


def _topology(appraisal: AppraisalView) -> _Parts:
    problems = disagreements(appraisal)
    facts = [f"{line}." for line in problems[:4]]
    if len(problems) > len(facts):
        facts.append(f"And {len(problems) - len(facts)} more such links.")
    return tuple(facts), (), ()


def short_hex(value: str, keep: int = 16) -> str:
    """The beginning of a long hexadecimal value."""
    return value if len(value) <= keep + 1 or not re.fullmatch(r"[0-9a-fA-F]+", value) else f"{value[:keep]}…"
