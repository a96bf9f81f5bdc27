"""The hook of the guest layer before real containers: success, every lie of a device, every failure of a driver.

A runtime obeys a hook's exit status, so ``on_failure`` decides here whether the container starts. Whether the GPUs are
ready it never decides.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nvattest.testing import LIES, Scope
from nvattest.testing.driver_answers import Fault

from ..guest_layer import ROOT, shared_layer  # noqa: TID252
from ..hook_world import HookWorld  # noqa: TID252
from .container import Ran, build_program, run_container, runtime_works

pytestmark = pytest.mark.oci

sys.path.insert(0, str(ROOT / "tests/unit/testing"))
from spellings import EXAMPLES, platform_for  # noqa: E402

NewGuest = Callable[..., HookWorld]
Run = Callable[..., Ran]
SPELLINGS = sorted(EXAMPLES.values())
# What is no reason to distrust a device: answers without or with another nonce where a bundle was asked, a responder that
# is the issuer itself, a video decoder that is off (the values cover that state), NUL bytes of the driver, a RIM issued anew.
HARMLESS = frozenset({"ocsp-nonce", "ocsp-no-nonce", "ocsp-by-issuer", "nvdec0", "chain-nuls", "renewed"})


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_layer(tmp_path_factory)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_program(tmp_path_factory.mktemp("workload"))


@pytest.fixture(scope="session", params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest, program: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not here (Debian: apt-get install {name}; make oci does it)")
    if os.geteuid() != 0:
        pytest.skip(f"{name} needs root here")
    reason = runtime_works(name, tmp_path_factory.mktemp("probe"), program)
    if reason:
        pytest.skip(f"containers cannot be run here: {reason}")
    return name


@pytest.fixture
def guest(world: NewGuest) -> NewGuest:
    return world


@pytest.fixture
def run(runtime: str, layer: Path, program: Path) -> Run:
    def once(world: HookWorld, name: str = "c1", **options: Any) -> Ran:
        return run_container(runtime, world, layer, program, f"{runtime}-{name}", **options)

    return once


def assert_gated(world: HookWorld, run: Run, *, cause: str | None = None) -> None:
    """Never ready; with ``start`` the container starts all the same, with ``block`` it does not."""
    world.configure(on_failure="start")
    ran = run(world, "start")
    assert (ran.status, ran.started) == (0, True), ran.said
    assert_not_ready(world, cause)
    world.configure(on_failure="block")
    ran = run(world, "block")
    assert ran.status != 0
    assert not ran.started
    assert "hook" in ran.said or "exit" in ran.said
    assert_not_ready(world, cause)


def assert_not_ready(world: HookWorld, cause: str | None) -> None:
    assert world.ready == 0
    assert 1 not in world.server.ready_history
    assert not world.token.exists()
    assert world.state["verdict"] == "not-trusted"
    assert world.state["reason"]["message"]
    if cause is not None:
        assert world.state["cause"] == cause


def test_a_trusted_gpu_is_ready_before_the_container_starts(guest: NewGuest, run: Run) -> None:
    world = guest()
    world.configure(on_failure="block")
    ran = run(world, "good")
    assert (ran.status, ran.started) == (0, True), ran.said
    assert world.server.ready_history == (0, 1)
    state = world.state
    assert state["verdict"] == "trusted"
    # The state came over stdin.
    assert state["container"].endswith("-good")
    assert json.loads(world.token.read_text())[0][0] == "JWT"


def test_a_protected_pcie_node_is_ready_before_the_container_starts(guest: NewGuest, run: Run) -> None:
    world = guest("hopper-8-ppcie")
    world.configure(on_failure="block")
    ran = run(world)
    assert ran.started, ran.said
    assert world.ready == 1
    assert (world.state["gpus"], world.state["switches"]) == (8, 4)


def test_every_lie_of_the_simulation_is_told_to_a_container() -> None:
    assert {(spec.name, scope) for spec in LIES for scope in spec.scopes} == set(EXAMPLES)
    assert {Scope.DEVICE, Scope.RIM, Scope.PLATFORM} == {scope for _, scope in EXAMPLES}


@pytest.mark.parametrize(
    "lie", [text for text in SPELLINGS if text.partition(":")[2].partition("=")[0] not in HARMLESS]
)
def test_no_lie_makes_gpus_ready(guest: NewGuest, run: Run, lie: str) -> None:
    assert_gated(guest(platform_for(lie), lies=[lie]), run)


@pytest.mark.parametrize("lie", [text for text in SPELLINGS if text.partition(":")[2].partition("=")[0] in HARMLESS])
def test_what_is_no_reason_to_distrust_stops_no_container(guest: NewGuest, run: Run, lie: str) -> None:
    world = guest(platform_for(lie), lies=[lie])
    world.configure(on_failure="block")
    ran = run(world)
    assert ran.started, ran.said
    assert world.ready == 1


FAULTS: dict[str, tuple[dict[str, Fault], str]] = {
    "no driver": ({"nvmlInit": Fault(return_code=9)}, "collection"),
    "init hangs": ({"nvmlInit": Fault(hang=True)}, "deadline"),
    "report error": ({"nvmlDeviceGetConfComputeGpuAttestationReport": Fault(return_code=999)}, "collection"),
    "report hangs": ({"nvmlDeviceGetConfComputeGpuAttestationReport": Fault(hang=True)}, "deadline"),
    "report oversized": ({"nvmlDeviceGetConfComputeGpuAttestationReport": Fault(size=70_000)}, "collection"),
    "GPU lost": ({"nvmlDeviceGetConfComputeGpuCertificate": Fault(return_code=15)}, "collection"),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_no_failure_of_the_driver_makes_gpus_ready(guest: NewGuest, run: Run, name: str) -> None:
    faults, cause = FAULTS[name]
    world = guest()
    world.configure(budget={"hook": 1.5})
    world.server.faults.update(faults)
    assert_gated(world, run, cause=cause)


def test_gpus_that_somebody_else_set_ready_are_taken_away_on_a_failure(guest: NewGuest, run: Run) -> None:
    world = guest(lies=["gpu0:signature"])
    world.server.change(ready=1)
    assert_gated(world, run)
    assert world.server.ready_history[0] == 0


def test_the_token_is_in_its_place_before_ready_and_ready_before_the_workload(
    guest: NewGuest, run: Run, tmp_path: Path
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not here")
    world = guest()
    record = tmp_path / "trace"
    ran = run(world, strace=record)
    if "ptrace" in ran.said:
        pytest.skip("strace may not trace here")
    assert ran.started, ran.said
    lines = record.read_text().splitlines()
    ready = [i for i, line in enumerate(lines) if "nvmlSystemSetConfComputeGpusReadyState" in line]
    token = [i for i, line in enumerate(lines) if re.search(r'rename\w*\(.*"token\.json"', line)]
    work = [i for i, line in enumerate(lines) if re.search(r'execve\(.*"/workload"', line)]
    assert (len(ready), len(token), len(work)) == (2, 1, 1)
    assert ready[0] < token[0] < ready[1] < work[0]
    assert any("fsync(" in line for line in lines[ready[0] : token[0]])


def test_eight_containers_at_once_are_one_attestation_and_eight_verdicts(guest: NewGuest, run: Run) -> None:
    world = guest()
    world.configure(on_failure="block")
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda number: run(world, f"n{number}"), range(8)))
    assert [ran.started for ran in ends] == [True] * 8
    assert len(world.server.calls("nvmlDeviceGetConfComputeGpuAttestationReport")) == 1
    assert world.server.ready_history == (0, 1)
    assert len(world.summaries) == 8
