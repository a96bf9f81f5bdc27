"""The error catalogue: look up a code, a check or an error word, and write the table of the docs."""

from __future__ import annotations

import difflib
from typing import Final

from nvattest.appraisal.catalogue import CHECKS
from nvattest.errors import ResultCode
from nvattest.report.entries_checks import CHECK_ENTRIES
from nvattest.report.entries_codes import CODE_ENTRIES
from nvattest.report.entries_errors import ERROR_ENTRIES
from nvattest.report.entry import Entry

ENTRIES: Final[tuple[Entry, ...]] = (*CODE_ENTRIES, *CHECK_ENTRIES, *ERROR_ENTRIES)
DOCUMENT: Final = "examples/CATALOGUE.md"


def _names() -> dict[str, Entry]:
    # A check and an error word may share a name (nonce, fwid): the check, of which people see more, wins.
    found: dict[str, Entry] = {}
    for entry in (*CHECK_ENTRIES, *CODE_ENTRIES, *ERROR_ENTRIES):
        for word in (entry.key, entry.name):
            found.setdefault(word.lower(), entry)
    for entry in ENTRIES:
        for word in entry.covers:
            found.setdefault(word.lower(), entry)
    return found


def find_entry(word: str) -> Entry | None:
    """The entry for ``104``, ``RIM_NOT_FOUND``, ``measurements``, ``cc-off``, ``ParseError`` or a known log line."""
    asked = word.strip().lower()
    if asked.isdecimal():
        asked = str(int(asked))
    return _names().get(asked) or _names().get(asked.replace("_", "-")) or _quoted(asked)


def _quoted(asked: str) -> Entry | None:
    return next((entry for entry in ENTRIES if any(phrase in asked for phrase in entry.phrases)), None)


def similar(word: str) -> tuple[str, ...]:
    """Words of the catalogue that look like this one."""
    return tuple(difflib.get_close_matches(word.strip().lower()[:80], list(_names()), n=3, cutoff=0.6))


def codes_of_status(status: int) -> tuple[ResultCode, ...]:
    """Result codes that end a process with this exit status: codes above 255 come round again."""
    return tuple(code for code in ResultCode if code.exit_status == status and int(code) != status)


def markdown() -> str:
    """The catalogue as the document of ``examples/``."""
    lines = [
        "# Codes, checks and errors",
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
    lines += [
        f"| {entry.key} | `{entry.name}` | {_cell(entry.title)}. {_cell(_first(entry.meaning))} | {_action(entry)} |"
        for entry in CODE_ENTRIES
    ]
    lines += [
        "",
        "## Checks",
        "",
        "| Step | Check | What is asked | Most likely cause of a failure |",
        "| ---: | --- | --- | --- |",
    ]
    lines += [
        f"| {CHECKS[entry.key].step} | `{entry.key}` | {_cell(entry.title)} | {_cell(entry.causes[0])} |"
        for entry in sorted(CHECK_ENTRIES, key=lambda entry: CHECKS[entry.key].step)
    ]
    lines += ["", "## Errors", "", "| Word | Error | What it says | First thing to do |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{entry.key}` | `{entry.name}` | {_cell(entry.title)} | {_action(entry)} |" for entry in ERROR_ENTRIES
    ]
    return "\n".join(lines) + "\n"


def _first(text: str) -> str:
    return text.split(". ", maxsplit=1)[0].rstrip(".") + "."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _action(entry: Entry) -> str:
    action = entry.actions[0]
    return f"`{_cell(action[2:])}`" if action.startswith("$ ") else _cell(action)
