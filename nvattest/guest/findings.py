"""What a look at a guest or at its deployment files found, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Finding", "is_good", "note", "print_findings"]

_WORDS: Final = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``severity`` is ``ok``, ``warning`` (look at it) or ``error`` (it does not work, or it is no gate).

    ``file`` is the file it is about, where several were looked at.
    """

    id: str
    severity: str
    message: str
    hint: str = ""
    file: str = ""


def note(kind: str, severity: str, message: str, hint: str = "") -> Finding:
    """A finding, in short."""
    return Finding(id=kind, severity=severity, message=message, hint=hint)


def is_good(findings: Sequence[Finding]) -> bool:
    """Whether none is an error."""
    return all(item.severity != "error" for item in findings)


def print_findings(findings: Sequence[Finding], form: str) -> None:
    """Print them as ``text`` or ``json``."""
    if form == "json":
        from nvattest._documents import dump_json

        checks = []
        for item in findings:
            check = {"id": item.id, "severity": item.severity, "message": item.message, "hint": item.hint}
            checks.append(check | ({"file": item.file} if item.file else {}))
        print(dump_json({"good": is_good(findings), "checks": checks}))
        return
    from nvattest._text import joined

    lines = []
    for item in findings:
        where = f"{item.file}: " if item.file else ""
        lines.append(f"{_WORDS[item.severity]:8}{item.id}: {where}{item.message}")
        if item.hint and item.severity != "ok":
            lines.append(f"        next: {item.hint}")
    print(joined(lines))
