"""The catalogue of codes, checks and errors (``catalogue.toml``): look up a word, show its entry, write the page."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from nvattest._documents import load_toml
from nvattest.appraisal.check import CHECKS
from nvattest.errors import ResultCode
from nvattest.report.terminal import Terminal

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
    found = []
    for kind, tables in document.items():
        if not isinstance(tables, dict):
            continue
        for key, table in tables.items():
            variants: tuple[Mapping[str, str], ...] = _RIMS if "{role}" in key else ({},)
            found += [_entry(kind, key, table, words) for words in variants]
    # The entries for RIMs stand check by check in the file, and RIM by RIM here.
    checks = [entry for entry in found if entry.kind == "check"]
    checks.sort(key=lambda entry: list(CHECKS).index(entry.key))
    codes, errors = ([entry for entry in found if entry.kind == kind] for kind in ("code", "error"))
    return (*codes, *checks, *errors)


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
    found: dict[str, CatalogueEntry] = {}
    for entry in sorted(entries(), key=lambda entry: entry.kind):
        for word in (entry.key, entry.name):
            found.setdefault(word.lower(), entry)
    for entry in entries():
        for word in entry.covers:
            found.setdefault(word.lower(), entry)
    return found


def find_entry(word: str) -> CatalogueEntry | None:
    """The entry for ``104``, ``RIM_NOT_FOUND``, ``measurements``, ``cc-off``, ``ParseError`` or a known log line."""
    asked = word.strip().lower()
    if asked.isdecimal():
        asked = str(int(asked))
    quoted = (entry for entry in entries() if any(phrase in asked for phrase in entry.phrases))
    return _names().get(asked) or _names().get(asked.replace("_", "-")) or next(quoted, None)


def similar(word: str) -> tuple[str, ...]:
    """Words of the catalogue that look like this one."""
    import difflib

    return tuple(difflib.get_close_matches(word.strip().lower()[:80], list(_names()), n=3, cutoff=0.6))


def codes_of_status(status: int) -> tuple[ResultCode, ...]:
    """Result codes that end a process with this exit status: codes above 255 come round again."""
    return tuple(code for code in ResultCode if code.exit_status == status and int(code) != status)


# -- for people ---------------------------------------------------------------------------------------------------


def render_entry(entry: CatalogueEntry, terminal: Terminal) -> str:
    return terminal.finish(entry_lines(entry, terminal))


def entry_lines(entry: CatalogueEntry, terminal: Terminal) -> list[str]:
    """The same as lines, for a larger text."""
    kinds = {"code": "result code", "check": "check", "error": "error"}
    name = f" {entry.name}" if entry.name != entry.key else ""
    lines = [
        terminal.paint(f"{entry.key}{name}", "bold") + terminal.paint(f"  {kinds[entry.kind]}", "dim"),
        terminal.rule(),
        *terminal.wrap(f"{entry.title}."),
        "",
        *terminal.wrap(entry.meaning),
        "",
        terminal.paint("Causes", "bold"),
    ]
    for cause in entry.causes:
        lines += terminal.wrap(cause, first="  - ")
    lines += ["", terminal.paint("What to do", "bold")]
    for action in entry.actions:
        lines += terminal.action(action, indent="  ")
    if entry.kind == "code":
        number = int(entry.key)
        if number > 255:
            lines += ["", *terminal.wrap(f"A shell sees the exit status {number % 256}: the code modulo 256.")]
        if number in _ARGUMENTS:
            said = f"As an exit status {number} can also be that of a wrong argument, which stderr names."
            lines += ["", *terminal.wrap(said)]
        if others := codes_of_status(number):
            same = ", ".join(f"{int(code)} ({code.message})" for code in others)
            lines += ["", *terminal.wrap(f"As an exit status {number} can also stand for: {same}.")]
    if entry.see:
        lines += ["", *terminal.wrap("See also: nvattest explain " + ", ".join(entry.see), style="dim")]
    return lines


def render_status(status: int, terminal: Terminal) -> str:
    """The result codes that an exit status may stand for."""
    lines = [
        terminal.paint(f"{status}", "bold") + terminal.paint("  exit status", "dim"),
        terminal.rule(),
        *terminal.wrap("A shell sees a result code modulo 256. This status may stand for:"),
        "",
    ]
    for code in codes_of_status(status):
        lines += terminal.wrap(f"{code.message} ({code.name})", first=f"  {int(code)}  ")
    lines += ["", *terminal.wrap("The command's output says which; nvattest explain CODE says what to do.")]
    return terminal.finish(lines)


def render_index(terminal: Terminal) -> str:
    """All words of the catalogue, short."""
    lines = ["Give a file (a saved appraisal, a token or a bundle) or one of these words.", ""]
    for kind, title in (("check", "Checks"), ("error", "Errors"), ("code", "Result codes")):
        lines.append(terminal.paint(title, "bold"))
        lines += terminal.wrap("  ".join(entry.key for entry in entries() if entry.kind == kind), first="  ")
    lines += ["", "nvattest explain measurements    nvattest explain 104    nvattest explain appraisal.json"]
    return terminal.finish(lines)


def markdown() -> str:
    """The catalogue as the document of ``examples/``, with the fields of the evidence policy."""
    import json

    from nvattest.appraisal.policy import EvidencePolicy
    from nvattest.policy.evidence_policy import FIELDS, dump_evidence_policy

    codes, checks, errors = (
        [entry for entry in entries() if entry.kind == kind] for kind in ("code", "check", "error")
    )
    rows = [
        "# Codes, checks, errors and the evidence policy",
        "",
        "Generated from `nvattest/report`; a test compares the two. `nvattest explain WORD` prints one entry.",
        "",
        "## Result codes",
        "",
        "The exit status of a command is the code modulo 256.",
        "",
        "| Code | Name | What it says | First thing to do |",
        "| ---: | --- | --- | --- |",
    ]
    for entry in codes:
        first = entry.meaning.split(". ", maxsplit=1)[0].rstrip(".")
        rows.append(f"| {entry.key} | `{entry.name}` | {_cell(entry.title)}. {_cell(first)}. | {_action(entry)} |")
    rows += [
        "",
        "## Checks",
        "",
        "| Step | Check | What is asked | Most likely cause of a failure |",
        "| ---: | --- | --- | --- |",
    ]
    for entry in sorted(checks, key=lambda entry: CHECKS[entry.key].step):
        rows.append(f"| {CHECKS[entry.key].step} | `{entry.key}` | {_cell(entry.title)} | {_cell(entry.causes[0])} |")
    rows += ["", "## Errors", "", "| Word | Error | What it says | First thing to do |", "| --- | --- | --- | --- |"]
    rows += [f"| `{entry.key}` | `{entry.name}` | {_cell(entry.title)} | {_action(entry)} |" for entry in errors]
    rows += [
        "",
        "## Evidence policy",
        "",
        "`nvattest attest --policy FILE` reads it as TOML or JSON. A key that is left out keeps its default.",
        "",
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
