"""The ready state: set in one place, read back, and never taken for granted."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import pytest

import nvattest
from nvattest import Appraisal, Nonce, Verifier
from nvattest.devices.state import TrustedPlatform, read_ready, set_not_ready, set_ready
from nvattest.errors import CollectionError, NotTrustedError
from nvattest.testing import Platform
from nvattest.testing.driver_answers import DriverState, Fault

GET = "nvmlSystemGetConfComputeGpusReadyState"
SET = "nvmlSystemSetConfComputeGpusReadyState"


def appraised(name: str, **lies: Any) -> Appraisal:
    platform = Platform.build(name, **lies)
    nonce = Nonce(bytes(range(32)))
    return Verifier(anchors=platform.trust_anchors()).appraise(
        platform.evidence(nonce.value),
        nonce=nonce,
        collateral=platform.collateral(),
        at=platform.time,
    )


@pytest.fixture(scope="module")
def one_gpu() -> TrustedPlatform:
    return TrustedPlatform(appraised("hopper-1"))


def test_the_ready_state_is_set_and_read_back(drive: Any, nvml: Any, one_gpu: TrustedPlatform) -> None:
    server = drive()
    library = nvml()
    assert read_ready(library) is False
    set_ready(library, one_gpu)
    assert read_ready(library) is True
    set_not_ready(library)
    assert read_ready(library) is False
    assert server.ready_history == (1, 0)
    names = [call.name for call in server.calls() if call.name in (GET, SET)]
    assert names == [GET, SET, GET, GET, SET, GET, GET]


def test_reading_never_sets(drive: Any, nvml: Any) -> None:
    server = drive(state=DriverState(ready=1))
    assert read_ready(nvml()) is True
    assert server.calls(SET) == ()


@pytest.mark.parametrize("truthy", [True, 1, "yes", object()])
def test_only_a_trusted_platform_makes_gpus_ready(drive: Any, nvml: Any, truthy: Any) -> None:
    server = drive()
    with pytest.raises(TypeError):
        set_ready(nvml(), truthy)
    assert server.calls(SET) == ()


def test_a_subclass_is_no_proof(drive: Any, nvml: Any) -> None:
    class Forged(TrustedPlatform):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

    server = drive()
    with pytest.raises(TypeError):
        set_ready(nvml(), Forged())
    assert server.calls(SET) == ()


@pytest.mark.parametrize("present", [0, 2, 8])
def test_gpus_that_were_not_attested_keep_all_of_them_not_ready(
    drive: Any, nvml: Any, one_gpu: TrustedPlatform, present: int
) -> None:
    server = drive(gpus=present)
    with pytest.raises(CollectionError) as caught:
        set_ready(nvml(), one_gpu)
    assert caught.value.code == "devices-changed"
    assert f"1 of this machine's {present} GPUs" in caught.value.message
    assert server.calls(SET) == ()


def test_an_appraisal_that_is_not_trusted_is_no_proof() -> None:
    appraisal = appraised("hopper-1", lies=["gpu0:measurement=9"])
    with pytest.raises(NotTrustedError):
        TrustedPlatform(appraisal)
    with pytest.raises(NotTrustedError):
        TrustedPlatform(dataclasses.replace(appraised("hopper-1"), devices=()))


def test_something_that_only_looks_like_an_appraisal_is_no_proof() -> None:
    class Lookalike:
        trusted = True
        devices = ()

        def require(self) -> Lookalike:
            return self

    for forged in (object(), Lookalike()):
        with pytest.raises(TypeError):
            TrustedPlatform(forged)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "code"), [(4, "nvml-permission"), (3, "nvml-not-supported"), (999, "nvml-unknown")])
def test_a_driver_that_refuses_is_reported(
    drive: Any, nvml: Any, one_gpu: TrustedPlatform, value: int, code: str
) -> None:
    server = drive(faults={SET: Fault(return_code=value)})
    with pytest.raises(CollectionError) as caught:
        set_ready(nvml(), one_gpu)
    assert caught.value.code == code
    assert server.state.ready == 0


def test_a_set_that_did_nothing_is_seen_when_it_is_read_back(drive: Any, nvml: Any, one_gpu: TrustedPlatform) -> None:
    drive(faults={SET: Fault(return_code=0)})
    with pytest.raises(CollectionError) as caught:
        set_ready(nvml(), one_gpu)
    assert caught.value.code == "ready-state"


def test_a_set_that_hangs_is_cut_off(drive: Any, nvml: Any, one_gpu: TrustedPlatform) -> None:
    drive(faults={SET: Fault(hang=True)})
    with pytest.raises(CollectionError) as caught:
        set_ready(nvml(), one_gpu, timeout=0.2)
    assert (caught.value.code, SET in caught.value.message) == ("driver-timeout", True)


def test_a_ready_state_beyond_0_and_1_is_not_ready(drive: Any, nvml: Any) -> None:
    drive(state=DriverState(ready=2))
    with pytest.raises(CollectionError) as caught:
        read_ready(nvml())
    assert caught.value.code == "ready-state"


def test_one_line_of_the_program_switches_the_gpus_on_and_it_stands_behind_the_proof() -> None:
    tree = ast.parse((Path(nvattest.__file__).parent / "devices" / "state.py").read_text())
    calls = {
        function.name: [ast.unparse(node.args[1]) for node in ast.walk(function) if is_call(node, "_switch")]
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
    }
    assert {name: found for name, found in calls.items() if found} == {"set_ready": ["1"], "set_not_ready": ["0"]}


def is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
