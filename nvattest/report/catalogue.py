"""What codes, checks and errors mean (``catalogue.toml``), and what a failed check of one case likely means.

The catalogue says what can be wrong in general; ``diagnose`` looks at the values of the case.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._documents import load_toml
from nvattest._text import decimal
from nvattest.appraisal.check import CHECKS
from nvattest.errors import ResultCode
from nvattest.report.terminal import Terminal, listed

if TYPE_CHECKING:
    from nvattest.report.reading import AppraisalView, CellView, CheckView, DeviceView

DOCUMENT: Final = "examples/CATALOGUE.md"
_DATA: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "catalogue.toml")
_MAXIMUM: Final = 1024 * 1024
# The statuses of wrong arguments in NVIDIA's tools, which ours have too.
_ARGUMENTS: Final = (104, 105, 106, 109, 114)
# What the placeholders of the entries for RIMs stand for.
_RIMS: Final = (
    {"{role}": "driver", "{word}": "driver", "{version}": "driver version"},
    {"{role}": "vbios", "{word}": "VBIOS", "{version}": "VBIOS version and board"},
    {"{role}": "bios", "{word}": "switch BIOS", "{version}": "BIOS version and board"},
)


class CatalogueEntry(NamedTuple):
    """One entry. ``kind`` is code, check or error, ``key`` what people type, ``name`` what programs compare.

    ``covers`` are further words that lead here, ``phrases`` parts of other programs' messages that do. An action that
    begins with ``$ `` is a command.
    """

    kind: str
    key: str
    name: str
    title: str
    meaning: str
    causes: tuple[str, ...]
    actions: tuple[str, ...]
    see: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """What ``explain -f json`` prints of it."""
        shown = self._asdict()
        del shown["covers"], shown["phrases"]
        return shown


@functools.cache
def entries() -> tuple[CatalogueEntry, ...]:
    """All entries: codes by number, checks in the order of the story, errors."""
    with open(_DATA, "rb") as file:
        document = load_toml(file.read(), source=_DATA, maximum=_MAXIMUM)
    found: dict[str, list[CatalogueEntry]] = {}
    for kind, tables in document.items():
        if isinstance(tables, dict):
            found[kind] = []
            for key, table in tables.items():
                for words in _RIMS if "{role}" in key else ({},):
                    found[kind].append(_entry(kind, key, table, words))
    # The entries for RIMs stand check by check in the file, and RIM by RIM here.
    checks = list(CHECKS)
    found["check"].sort(key=lambda entry: checks.index(entry.key))
    return (*found["code"], *found["check"], *found["error"])


def _of_kind(kind: str) -> list[CatalogueEntry]:
    return [entry for entry in entries() if entry.kind == kind]


def _entry(kind: str, key: str, table: Mapping[str, object], words: Mapping[str, str]) -> CatalogueEntry:
    def fill(text: str) -> str:
        for placeholder, word in words.items():
            text = text.replace(placeholder, word)
        return " ".join(text.split())

    members = {
        name: fill(value) if isinstance(value, str) else tuple(fill(str(text)) for text in value)
        for name, value in table.items()
        if isinstance(value, str | list)
    }
    key = fill(key)
    if kind == "code":
        code = ResultCode[key]
        members |= {"key": str(int(code)), "name": key, "title": code.message}
    elif kind == "check":
        spec = CHECKS[key]
        members |= {"key": key, "name": key, "title": spec.title}
        members.setdefault("see", tuple(dict.fromkeys(str(int(code)) for code in (spec.gpu, spec.switch))))
    else:
        members["key"] = key
    return CatalogueEntry(kind=kind, **members)  # type: ignore[arg-type]  # a test reads every entry


@functools.cache
def _names() -> dict[str, CatalogueEntry]:
    # A check and an error word may share a name (nonce, fwid): the check, of which people see more, wins.
    words = [(word, entry) for entry in sorted(entries(), key=lambda entry: entry.kind) for word in entry[1:3]]
    words += [(word, entry) for entry in entries() for word in entry.covers]
    found: dict[str, CatalogueEntry] = {}
    for word, entry in words:
        found.setdefault(word.lower(), entry)
    return found


def find_entry(word: str) -> CatalogueEntry | None:
    """The entry for ``104``, ``RIM_NOT_FOUND``, ``measurements``, ``cc-off``, ``ParseError`` or a known log line."""
    asked = word.strip().lower()
    if (number := decimal(asked)) is not None:
        asked = str(number)
    quoted = (entry for entry in entries() if any(phrase in asked for phrase in entry.phrases))
    return _names().get(asked) or _names().get(asked.replace("_", "-")) or next(quoted, None)


def similar(word: str) -> tuple[str, ...]:
    """Words of the catalogue that look like this one."""
    import difflib

    return tuple(difflib.get_close_matches(word.strip().lower()[:80], list(_names()), n=3, cutoff=0.6))


def codes_of_status(status: int) -> tuple[ResultCode, ...]:
    """Result codes that end a process with this exit status: codes above 255 come round again."""
    return tuple(code for code in ResultCode if code.exit_status == status and int(code) != status)


# --- of one case ------------------------------------------------------------------------------------------------------

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
    merged: dict[tuple[tuple[str, ...], object], list[CheckView]] = {}
    for own, (first, *others) in found.items():
        devices = (first.device, *(check.device for check in others))
        # One signer's certificate serves several RIMs: the same words about the same devices are one failure.
        shared = (first.outcome, first.detail, first.expected, first.found)
        merged.setdefault((devices, shared if first.id.endswith("-rim-revocation") else own), []).append(first)
    return tuple(Failure(tuple(checks), devices) for (devices, _), checks in merged.items())


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
    if check.id == "measurements" and device.bad_cells:
        return _measurements(device, appraisal)
    if check.id.endswith("-revocation"):
        return _revocation(check, device)
    if check.id.endswith("-rim-available"):
        role = check.id.partition("-")[0]
        version = device.report.driver_version if role == "driver" else device.report.firmware_version
        return Diagnosis((f"{device.label} runs {_SOURCES.get(role, role)} {version}.",))
    return Diagnosis()


# --- measurements -----------------------------------------------------------------------------------------------------

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
    indices = sorted({cell.index for cell in bad})
    places, verb = listed([str(index) for index in indices]), "does" if len(indices) == 1 else "do"
    facts = [f"{covered - len(bad)} of {covered} covered measurements match; index {places} {verb} not."]
    sources = {source: device.rim(source) for source in dict.fromkeys(cell.source for cell in bad)}
    words = ((_SOURCES.get(source, source), rim.id) for source, rim in sources.items() if rim is not None)
    facts += [f"The golden value comes from the {word} RIM {name}." for word, name in words]
    others = [other for other in appraisal.devices if other.label != device.label and other.kind == device.kind]
    same = [other.label for other in others if sorted({cell.index for cell in other.bad_cells}) == indices]
    cleared = "" if same else _cleared(device, others)
    if same:
        facts.append(f"{listed(same)} differ at the same index: a cause that they share, such as the RIM, is likelier.")
    facts += [cleared] if cleared else []
    cause, action = _ALONE.get(indices[0], ("", "")) if len(indices) == 1 and not device.is_switch else ("", "")
    causes = []
    if len(bad) * 2 > covered > 0:
        causes.append(
            "Most values differ: the GPU is in DevTools mode, or the RIMs are of another release (nvtrust 35)."
        )
    if cause:
        causes += [_REISSUED, cause] if indices == [9] and not cleared else [cause]
    causes += _causes(bad, known=bool(causes))
    return Diagnosis(tuple(facts), tuple(causes), (action,) if action else ())


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
    causes.append("DevTools or a debug mode was on when the GPU started.")
    return [*causes, "Something runs that NVIDIA did not release."]


def _cleared(device: DeviceView, others: list[DeviceView]) -> str:
    """What clears the RIM: all other devices with the same versions match it."""
    fellows = [other for other in others if other.measurements and other.report.versions == device.report.versions]
    if not fellows or any(other.bad_cells for other in fellows):
        return ""
    who, verb = (f"All {len(fellows)} other devices", "match") if len(fellows) > 1 else ("The other device", "matches")
    return f"{who} with the same versions {verb}: the RIM is not the cause, this device is."


# --- revocation -------------------------------------------------------------------------------------------------------

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
    chain = rim.chain if rim is not None else None
    if check.id == "chain-revocation":
        chain = device.chain
    if chain is None:
        return Diagnosis()
    facts: list[str] = []
    causes: tuple[str, ...] = ()
    for certificate in chain.certificates:
        answer = certificate.revocation
        if answer is None or answer.good:
            continue
        if certificate.name not in check.detail or answer.status not in check.detail:
            facts.append(f"{certificate.name}: {answer.status}.")
        if answer.responder:
            facts.append(f"The answer was signed by {answer.signer}.")
        causes = causes or _OF_STATUS.get(answer.status, ())
    return Diagnosis(facts=tuple(facts), causes=causes)


# --- topology ---------------------------------------------------------------------------------------------------------


def disagreements(view: AppraisalView) -> tuple[str, ...]:
    """What does not fit in who names whom, in words; nothing where there are not both GPUs and switches."""
    gpus = [device for device in view.devices if not device.is_switch][:_MAXIMUM_NODES]
    switches = [device for device in view.devices if device.is_switch][:_MAXIMUM_NODES]
    if not gpus or not switches:
        return ()
    present = {device.identity.pdi for device in view.devices if device.identity.pdi}
    problems = []
    for gpu, switch in product(gpus, switches):
        if not gpu.names(switch) and not switch.names(gpu):
            problems.append(f"{gpu.label} and {switch.label} do not name each other")
        elif not (gpu.names(switch) and switch.names(gpu)):
            silent, other = (switch, gpu) if gpu.names(switch) else (gpu, switch)
            problems.append(f"{silent.label} does not name {other.label}, which names it")
    for device in (*gpus, *switches):
        word = "GPU" if device.is_switch else "switch"
        strange = (pdi for pdi in dict.fromkeys(device.report.neighbours) if pdi not in present)
        problems += [f"{device.label} names the {word} {pdi}, which is not here" for pdi in strange]
    return tuple(problems)


# --- for people -------------------------------------------------------------------------------------------------------


def render_entry(entry: CatalogueEntry, terminal: Terminal) -> str:
    return terminal.finish(entry_lines(entry, terminal))


def entry_lines(entry: CatalogueEntry, terminal: Terminal) -> list[str]:
    """The same as lines, for a larger text."""
    kinds = {"code": "result code", "check": "check", "error": "error"}
    name = f" {entry.name}" if entry.name != entry.key else ""
    lines = [*terminal.heading(f"{entry.key}{name}", kinds[entry.kind]), *terminal.wrap(f"{entry.title}."), ""]
    lines += [*terminal.wrap(entry.meaning), "", terminal.paint("Causes", "bold")]
    lines += [*terminal.points(entry.causes, indent="  "), "", terminal.paint("What to do", "bold")]
    lines += terminal.points(entry.actions, indent="  ")
    if entry.kind == "code":
        number, notes = int(entry.key), []
        if number > 255:
            notes.append(f"A shell sees the exit status {number % 256}: the code modulo 256.")
        if number in _ARGUMENTS:
            notes.append(f"As an exit status {number} can also be that of a wrong argument, which stderr names.")
        if others := codes_of_status(number):
            same = ", ".join(f"{int(code)} ({code.message})" for code in others)
            notes.append(f"As an exit status {number} can also stand for: {same}.")
        for note in notes:
            lines += ["", *terminal.wrap(note)]
    if entry.see:
        lines += ["", *terminal.wrap("See also: nvattest explain " + ", ".join(entry.see), style="dim")]
    return lines


def render_status(status: int, terminal: Terminal) -> str:
    """The result codes that an exit status may stand for."""
    said = terminal.wrap("A shell sees a result code modulo 256. This status may stand for:")
    lines = [*terminal.heading(f"{status}", "exit status"), *said, ""]
    for code in codes_of_status(status):
        lines += terminal.wrap(f"{code.message} ({code.name})", first=f"  {int(code)}  ")
    lines += ["", *terminal.wrap("The command's output says which; nvattest explain CODE says what to do.")]
    return terminal.finish(lines)


def render_index(terminal: Terminal) -> str:
    """All words of the catalogue, short."""
    lines = ["Give a file (a saved appraisal, a token or a bundle) or one of these words.", ""]
    for kind, title in (("check", "Checks"), ("error", "Errors"), ("code", "Result codes")):
        lines.append(terminal.paint(title, "bold"))
        lines += terminal.wrap("  ".join(entry.key for entry in _of_kind(kind)), first="  ")
    lines += ["", "nvattest explain measurements    nvattest explain 104    nvattest explain appraisal.json"]
    return terminal.finish(lines)


def markdown() -> str:
    """The catalogue as the document of ``examples/``, with the fields of the evidence policy."""
    import json

    from nvattest.appraisal.inputs import EvidencePolicy
    from nvattest.policy.evidence_policy import FIELDS, dump_evidence_policy

    rows = [
        "# Codes, checks, errors and the evidence policy\n",
        "Generated from `nvattest/report`; a test compares the two. `nvattest explain WORD` prints one entry.\n",
        "## Result codes\n",
        "The exit status of a command is the code modulo 256.\n",
        "| Code | Name | What it says | First thing to do |",
        "| ---: | --- | --- | --- |",
    ]
    for entry in _of_kind("code"):
        first = entry.meaning.split(". ", maxsplit=1)[0].rstrip(".")
        rows.append(f"| {entry.key} | `{entry.name}` | {_cell(entry.title)}. {_cell(first)}. | {_action(entry)} |")
    rows += ["\n## Checks\n", "| Step | Check | What is asked | Most likely cause of a failure |"]
    rows += ["| ---: | --- | --- | --- |"]
    for entry in sorted(_of_kind("check"), key=lambda entry: CHECKS[entry.key].step):
        rows.append(f"| {CHECKS[entry.key].step} | `{entry.key}` | {_cell(entry.title)} | {_cell(entry.causes[0])} |")
    rows += ["\n## Errors\n", "| Word | Error | What it says | First thing to do |", "| --- | --- | --- | --- |"]
    for entry in _of_kind("error"):
        rows.append(f"| `{entry.key}` | `{entry.name}` | {_cell(entry.title)} | {_action(entry)} |")
    rows += [
        "\n## Evidence policy\n",
        "`nvattest attest --policy FILE` reads it as TOML or JSON. A key that is left out keeps its default.\n",
        "| Key | Default | What it demands |",
        "| --- | --- | --- |",
    ]
    defaults = json.loads(dump_evidence_policy(EvidencePolicy(), form="json"))
    for name, field in FIELDS.items():
        rows.append(f"| `{name}` | `{json.dumps(defaults[name])}` | {_cell(field.metadata['meaning'])} |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _action(entry: CatalogueEntry) -> str:
    action = entry.actions[0]
    return f"`{_cell(action[2:])}`" if action.startswith("$ ") else _cell(action)
