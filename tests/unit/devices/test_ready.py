"""The ready state: set in one place, read back, and never taken for granted."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import nvattest
from nvattest.devices import read_ready, set_ready
from nvattest.errors import CollectionError
from nvattest.testing.native import DriverState, Fault

GET = "nvmlSystemGetConfComputeGpusReadyState"
SET = "nvmlSystemSetConfComputeGpusReadyState"


def test_the_ready_state_is_set_and_read_back(drive: Any, nvml: Any) -> None:
    server = drive()
    library = nvml()
    assert read_ready(library) is False
    set_ready(library, True)
    assert read_ready(library) is True
    set_ready(library, False)
    assert read_ready(library) is False
    assert server.ready_history == (1, 0)
    names = [call.name for call in server.calls() if call.name in (GET, SET)]
    assert names == [GET, SET, GET, GET, SET, GET, GET]


def test_reading_never_sets(drive: Any, nvml: Any) -> None:
    server = drive(state=DriverState(ready=1))
    assert read_ready(nvml()) is True
    assert server.calls(SET) == ()


@pytest.mark.parametrize("truthy", [1, "yes", [0], object()])
def test_only_true_itself_makes_gpus_ready(drive: Any, nvml: Any, truthy: Any) -> None:
    server = drive()
    set_ready(nvml(), truthy)
    assert server.ready_history == (0,)


@pytest.mark.parametrize(("value", "code"), [(4, "nvml-permission"), (3, "nvml-not-supported"), (999, "nvml-unknown")])
def test_a_driver_that_refuses_is_reported(drive: Any, nvml: Any, value: int, code: str) -> None:
    server = drive(faults={SET: Fault(return_code=value)})
    with pytest.raises(CollectionError) as caught:
        set_ready(nvml(), True)
    assert caught.value.code == code
    assert server.state.ready == 0


def test_a_set_that_did_nothing_is_seen_when_it_is_read_back(drive: Any, nvml: Any) -> None:
    drive(faults={SET: Fault(return_code=0)})
    with pytest.raises(CollectionError) as caught:
        set_ready(nvml(), True)
    assert caught.value.code == "ready-state"


def test_a_set_that_hangs_is_cut_off(drive: Any, nvml: Any) -> None:
    drive(faults={SET: Fault(hang=True)})
    with pytest.raises(CollectionError) as caught:
        set_ready(nvml(), True, timeout=0.2)
    assert (caught.value.code, SET in caught.value.message) == ("driver-timeout", True)


def test_a_ready_state_beyond_0_and_1_is_not_ready(drive: Any, nvml: Any) -> None:
    drive(state=DriverState(ready=2))
    with pytest.raises(CollectionError) as caught:
        read_ready(nvml())
    assert caught.value.code == "ready-state"


def test_only_one_function_of_the_program_can_set_the_ready_state() -> None:
    package = Path(nvattest.__file__).parent
    found: list[str] = []
    for path in package.rglob("*.py"):
        if "testing" in path.relative_to(package).parts:
            continue
        found += [
            f"{path.relative_to(package)}:{node.name}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)
            and any(isinstance(item, ast.Constant) and item.value == SET for item in ast.walk(node))
        ]
    # `work` is the closure inside it.
    assert found == ["devices/ready.py:set_ready", "devices/ready.py:work"]
