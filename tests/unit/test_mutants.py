"""The list of ``make mutants``: the modules that decide, and the tests that look at each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TESTS / "mutation")
    spec = importlib.util.spec_from_file_location("mutants", TESTS / "mutation/mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_and_every_test_that_the_mutants_meet_exists(mutants: ModuleType) -> None:
    for room in mutants.ROOMS.values():
        for module in room.modules:
            assert (TESTS.parent / "nvattest" / module).is_file(), module
        for name in " ".join((*room.modules.values(), room.wide)).split():
            path = TESTS / name
            # A folder that a move has emptied holds compiled files only.
            assert path.is_file() or list(path.rglob("test_*.py")), name
