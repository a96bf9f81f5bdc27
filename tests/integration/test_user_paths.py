"""What each of six users does, from a transcript: the commands run, and print what it says."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

PATHS = Path(__file__).resolve().parents[2] / "examples/paths"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("replay", PATHS / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REPLAY = load()


@pytest.mark.parametrize("path", sorted(PATHS.glob("*.txt")), ids=lambda path: path.stem)
def test_the_path_of_a_user_is_as_the_transcript_says(path: Path) -> None:
    if shutil.which("bash") is None or not (Path(sys.executable).parent / "nvattest").exists():
        pytest.skip("there is no bash, or nvattest is not installed beside this Python")
    if "nvattest simulate" in path.read_text(encoding="utf-8") and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler for the simulated driver library")
    wrong = REPLAY.replay(path)
    assert not wrong, "\n\n".join(wrong)


def test_there_is_one_for_each_of_the_six() -> None:
    assert {path.stem for path in PATHS.glob("*.txt")} == {
        "operator", "relying-party", "platform-engineer", "developer", "fleet-owner", "migrant",
    }  # fmt: skip


def test_lines_are_compared_whole_and_dots_take_any() -> None:
    assert REPLAY.fits(["a", "...", "b"], ["a", "b"])
    assert REPLAY.fits(["a", "...", "b"], ["a", "x", "y", "b"])
    assert not REPLAY.fits(["a", "b"], ["a", "x", "b"])
    assert not REPLAY.fits(["a"], ["a", ""])
    assert REPLAY.settled(["at 2026-11-01T00:00:00Z, 0123456789abcdef… in 1.5 s"]) == ["at <time>, <hex> in <seconds>"]


def test_another_output_another_status_and_a_fault_of_the_shell_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "path.txt"
    path.write_text("A path.\n\n$ echo one\n> echo two\none\ntwo\n\n$ false\n[status 1]\n")
    wrong = REPLAY.replay(path)
    assert not wrong, "\n\n".join(wrong)
    path.write_text("$ echo two\none\n\n$ false\n")
    assert REPLAY.replay(path) == ["path.txt: $ echo two\ntwo", "path.txt: $ false\n[status 1]"]
    assert REPLAY.replay(path, record=True) == []
    assert path.read_text() == "$ echo two\ntwo\n\n$ false\n[status 1]\n"
