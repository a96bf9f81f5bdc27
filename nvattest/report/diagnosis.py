"""From one failed check of one device to its likely causes and the next command: the field's knowledge, applied.

The catalogue says what can be wrong in general; this looks at the values of the case.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvattest.report.catalogue import find_entry
from nvattest.report.reading import AppraisalView, CellView, CheckView, DeviceView, listed

_MAXIMUM_CAUSES: Final = 4
_MAXIMUM_ACTIONS: Final = 3
_MAXIMUM_NODES: Final = 16
_SOURCES: Final = {"driver": "driver", "vbios": "VBIOS", "bios": "switch BIOS"}


class Diagnosis(NamedTuple):
    """What is likely wrong. ``facts`` are read from the case; ``causes`` are likely, likeliest first."""

    facts: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


class Failure(NamedTuple):
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
    facts, causes, actions = _of_the_case(check, appraisal)
    entry = find_entry(check.id)
    if entry is not None:
        causes = causes or entry.causes
        # A fresh answer does not bring a withdrawn certificate back.
        if not (check.id.endswith("-revocation") and ": revoked" in check.detail):
            # The reader is in an explanation already.
            commands = (action for action in entry.actions if action.startswith("$ "))
            actions += tuple(command for command in commands if "nvattest explain" not in command)
    # The verifier's hint is about the case, so it comes first; one that repeats a cause or this program is left out.
    repeated = any(cause.lower().rstrip(".") == check.hint.lower() for cause in causes)
    if check.hint and not repeated and not check.hint.startswith("nvattest explain shows"):
        actions = (check.hint[0].upper() + check.hint[1:].rstrip(".") + ".", *actions)
    return Diagnosis(
        facts=facts,
        causes=tuple(dict.fromkeys(causes))[:_MAXIMUM_CAUSES],
        actions=tuple(dict.fromkeys(actions))[:_MAXIMUM_ACTIONS],
    )


def _of_the_case(check: CheckView, appraisal: AppraisalView) -> Diagnosis:
    if check.id == "topology":
        problems = disagreements(appraisal)
        more = (f"And {len(problems) - 4} more such links.",) if len(problems) > 4 else ()
        return Diagnosis(facts=(*(f"{line}." for line in problems[:4]), *more))
    device = appraisal.device(check.device)
    if device is None:
        return Diagnosis()
    if check.id == "measurements" and device.measurements is not None:
        return _measurements(device, appraisal)
    if check.id.endswith("-revocation"):
        return _revocation(check, device)
    if check.id.endswith("-rim-available"):
        role = check.id.partition("-")[0]
        version = device.report.driver_version if role == "driver" else device.report.firmware_version
        return Diagnosis(facts=(f"{device.label} runs {_SOURCES.get(role, role)} {version}.",))
    return Diagnosis()


# -- measurements -----------------------------------------------------------------------------------------------------

# What is known of a GPU on which one index alone differs: the causes, and what helped.
_REISSUED: Final = (
    "Only index 9 differs: NVIDIA re-issued some VBIOS RIMs under their old id, and yours is the other issue."
)
_REBOOTED: Final = (
    "Only index 9 differs on H100 in a TDX cloud guest after a reboot (nvtrust 90 and 132): a full stop and start of "
    "the guest helped at first."
)
_SWITCHED: Final = (
    "Only index 52 differs on RTX PRO 6000 after CC mode went on, off and on (attestation-sdk 31): only a full reboot "
    "of the host cleared it."
)
_ALONE: Final = {
    9: (_REBOOTED, "Stop the guest, start it again, and attest again; a reboot from inside is not enough."),
    52: (_SWITCHED, "Reboot the host, then attest again."),
}


def _measurements(device: DeviceView, appraisal: AppraisalView) -> Diagnosis:
    bad, covered = device.bad_cells, len(device.covered)
    if not bad:
        return Diagnosis()
    indices = sorted({cell.index for cell in bad})
    places, verb = listed([str(index) for index in indices]), "does" if len(indices) == 1 else "do"
    facts = [f"{covered - len(bad)} of {covered} covered measurements match; index {places} {verb} not."]
    for source in dict.fromkeys(cell.source for cell in bad):
        rim = device.rim(source)
        if rim is not None:
            facts.append(f"The golden value comes from the {_SOURCES.get(source, source)} RIM {rim.id}.")
    others = [other for other in appraisal.devices if other.label != device.label and other.kind == device.kind]
    same = [other.label for other in others if sorted({cell.index for cell in other.bad_cells}) == indices]
    cleared = "" if same else _cleared(device, others)
    if same:
        facts.append(f"{listed(same)} differ at the same index: a cause that they share, such as the RIM, is likelier.")
    if cleared:
        facts.append(cleared)
    cause, action = _ALONE.get(indices[0], ("", "")) if len(indices) == 1 and not device.is_switch else ("", "")
    causes = []
    if len(bad) * 2 > covered > 0:
        causes.append(
            "Most values differ: the GPU is in DevTools mode, or the RIMs are of another release (nvtrust 35)."
        )
    if cause:
        causes += [_REISSUED, cause] if indices == [9] and not cleared else [cause]
    causes += _causes(bad, known=bool(causes))
    return Diagnosis(facts=tuple(facts), causes=tuple(causes), actions=(action,) if action else ())


def _causes(bad: tuple[CellView, ...], *, known: bool) -> list[str]:
    causes = []
    if any(cell.index == 35 for cell in bad):
        causes.append("Index 35 belongs to NVDEC0: it is exempt only while that engine is off, and here it is on.")
    if any(cell.state == "missing" for cell in bad):
        causes.append("The report leaves a measurement out: the driver is older or newer than the RIM.")
    sources = {cell.source for cell in bad}
    if not causes and not known and sources == {"driver"}:
        causes.append("Only driver values differ: the driver that runs is not the released one, or was patched.")
    elif not causes and not known and "driver" not in sources:
        causes.append("Only firmware values differ: the VBIOS or its state is not the released one.")
    return [
        *causes,
        "DevTools or a debug mode was on when the GPU started.",
        "Something runs that NVIDIA did not release.",
    ]


def _cleared(device: DeviceView, others: list[DeviceView]) -> str:
    """What clears the RIM: all other devices with the same versions match it."""
    fellows = [other for other in others if other.measurements and other.report.versions == device.report.versions]
    if not fellows or any(other.bad_cells for other in fellows):
        return ""
    who = f"All {len(fellows)} other devices" if len(fellows) > 1 else "The other device"
    verb = "match" if len(fellows) > 1 else "matches"
    return f"{who} with the same versions {verb}: the RIM is not the cause, this device is."


# -- revocation -------------------------------------------------------------------------------------------------------

_OF_STATUS: Final = {
    "revoked": ("NVIDIA withdrew this certificate: the release or device under it must no longer be trusted.",),
    "on-hold": ("The certificate is on hold: usual for a release that is not final.",),
    "stale": ("The answer is past its signed end; answers live about a day.", "The clock is ahead."),
    "not-yet-valid": ("This machine's clock is behind.", "The responder's clock is ahead."),
    "no-answer": ("The bundle has no answer for this certificate.",),
    "unreachable": ("The OCSP service could not be reached.",),
    "nonce-mismatch": ("A cache between here and the responder gave an answer to another client's question.",),
}


def _revocation(check: CheckView, device: DeviceView) -> Diagnosis:
    rim = device.rim(check.id.partition("-")[0])
    chain = device.chain if check.id == "chain-revocation" else rim.chain if rim is not None else None
    facts: list[str] = []
    causes: tuple[str, ...] = ()
    for certificate in chain.certificates if chain is not None else ():
        answer = certificate.revocation
        if answer is None or answer.good:
            continue
        if certificate.name not in check.detail or answer.status not in check.detail:
            facts.append(f"{certificate.name}: {answer.status}.")
        if answer.responder:
            facts.append(f"The answer was signed by {answer.signer}.")
        causes = causes or _OF_STATUS.get(answer.status, ())
    return Diagnosis(facts=tuple(facts), causes=causes)


# -- topology ---------------------------------------------------------------------------------------------------------


def disagreements(view: AppraisalView) -> tuple[str, ...]:
    """What does not fit in who names whom, in words; nothing where there are not both GPUs and switches."""
    gpus = [device for device in view.devices if not device.is_switch][:_MAXIMUM_NODES]
    switches = [device for device in view.devices if device.is_switch][:_MAXIMUM_NODES]
    if not gpus or not switches:
        return ()
    present = {device.identity.pdi for device in view.devices if device.identity.pdi}
    problems: list[str] = []
    for gpu in gpus:
        for switch in switches:
            if not gpu.names(switch) and not switch.names(gpu):
                problems.append(f"{gpu.label} and {switch.label} do not name each other")
            elif not (gpu.names(switch) and switch.names(gpu)):
                silent, other = (switch, gpu) if gpu.names(switch) else (gpu, switch)
                problems.append(f"{silent.label} does not name {other.label}, which names it")
    for device in (*gpus, *switches):
        word = "GPU" if device.is_switch else "switch"
        problems += [
            f"{device.label} names the {word} {pdi}, which is not here"
            for pdi in dict.fromkeys(device.report.neighbours)
            if pdi not in present
        ]
    return tuple(problems)
