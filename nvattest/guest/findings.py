"""What a look at a guest or at its deployment files found, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

SEVERITIES: Final = ("ok", "warning", "error")
"""From the least to the worst."""

_WORDS: Final = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}


class Finding(NamedTuple):
    """``severity`` is ``ok``, ``warning`` (look at it) or ``error`` (it does not work, or it is no gate).

    ``file`` is the file it is about, where several were looked at.
    """

    id: str
    severity: str
    message: str
    hint: str = ""
    file: str = ""


def is_good(findings: Sequence[Finding]) -> bool:
    """Whether none is an error."""
    return all(item.severity != "error" for item in findings)


def print_findings(findings: Sequence[Finding], form: str) -> None:
    """Print them as ``text`` or ``json``."""
    if form == "json":
        from nvattest._documents import dump_json

        checks = []
        for item in findings:
            members = item._asdict()
            checks.append(members if item.file else {key: value for key, value in members.items() if key != "file"})
        print(
            dump_json({"format": "nvattest-hook-findings", "version": 1, "good": is_good(findings), "checks": checks})
        )
        return
    from nvattest._text import joined

    lines = []
    for item in findings:
        where = f"{item.file}: " if item.file else ""
        lines.append(f"{_WORDS[item.severity]:8}{item.id}: {where}{item.message}")
        if item.hint and item.severity != "ok":
            lines.append(f"        next: {item.hint}")
    print(joined(lines))
