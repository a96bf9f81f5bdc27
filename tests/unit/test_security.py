"""The threat model names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_of_the_threat_model_exists() -> None:
    text = (ROOT / "examples/threat-model.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 30
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"(?m)^def (test_\w+)\(", path.read_text(encoding="utf-8"))
    }
    assert sorted(named - defined) == []


def test_every_attacker_has_rows_with_what_stops_them() -> None:
    text = (ROOT / "examples/threat-model.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    assert len(sections) == 6
    for section in sections:
        rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
        assert rows
        # A row without a test says that nothing stops it, and where that is written down.
        for row in rows:
            _, _, stops, shown, _ = row.split("|")
            assert shown.strip() or stops.strip().startswith("nothing"), row
