"""The hook under each generation of kata-agent: what is a gate there, and what is none."""

from __future__ import annotations

import pytest

from nvattest.guest.check import GENERATIONS, Generation

from .agents import CDI_HOOKS, CONTAINER, PAUSE, POD, Agent, Container
from .hook_world import NewWorld

each_generation = pytest.mark.parametrize("generation", GENERATIONS, ids=lambda generation: generation.name)


@each_generation
def test_a_pod_with_a_good_gpu_is_attested_once_and_first_for_its_pause_container(
    world: NewWorld, generation: Generation
) -> None:
    guest = world()
    pause, cuda = Agent(generation, guest).create_pod()
    assert not pause.aborted
    assert not cuda.aborted
    assert guest.ready == 1
    assert guest.server.ready_history == (0, 1)
    assert guest.state["container_kind"] == PAUSE
    assert guest.state["container"] == "pause"
    # From 3.8 on CDI's hooks of the container with the GPU take the place of ours.
    assert len(cuda.hooks) == (1 if generation.appends else 0)
    assert [summary.get("reused", False) for summary in guest.summaries] == [False, True][: 1 + len(cuda.hooks)]


@each_generation
@pytest.mark.parametrize("on_failure", ["start", "block"])
def test_a_pod_with_a_bad_gpu_is_never_ready_and_only_the_oldest_agent_obeys_a_status(
    world: NewWorld, generation: Generation, on_failure: str
) -> None:
    guest = world(lies=["gpu0:measurement=9"])
    guest.configure(on_failure=on_failure)
    made = Agent(generation, guest).create_pod()
    blocked = on_failure == "block" and generation.obeys_status
    assert [item.aborted for item in made] == ([True] if blocked else [False, False])
    assert guest.ready == 0
    assert 1 not in guest.server.ready_history
    assert not guest.token.exists()


@each_generation
def test_a_container_with_hooks_and_no_pause_run_before_it_is_a_container_without_ready_gpus(
    world: NewWorld, generation: Generation
) -> None:
    guest = world()
    [made] = Agent(generation, guest).create_pod([Container("cuda", CONTAINER, CDI_HOOKS)])
    assert not made.aborted
    # Dropped is not attested, and not attested is not ready.
    assert guest.ready == (1 if generation.appends else 0)


@each_generation
def test_a_hook_that_an_agent_gives_up_is_killed_or_runs_on_and_either_is_safe(
    world: NewWorld, generation: Generation
) -> None:
    guest = world()
    made = Agent(generation, guest, seconds=0).create_pod()
    hooks = [hook for item in made for hook in item.hooks]
    assert made[0].aborted == generation.obeys_status
    for hook in hooks:
        hook.communicate()
    if generation.kills:
        assert [hook.returncode for hook in hooks] == [-9]
        assert guest.ready == 0
        # Whatever it left, the next run is whole.
        Agent(generation, guest).create(POD[0])
    # A hook that runs on ends as it would have: the agent only did not wait for it.
    assert guest.ready == 1
    assert guest.state["verdict"] == "trusted"


def test_the_environment_of_the_oldest_agent_decides_nothing(
    world: NewWorld, tmp_path_factory: pytest.TempPathFactory
) -> None:
    guest = world()
    anchors = str(guest.root / "etc/nvattest/anchors.pem")
    del guest.settings["trust_anchors"]
    guest.configure()
    stranger = tmp_path_factory.mktemp("stranger")
    (stranger / "sitecustomize.py").write_text("raise SystemExit('not ours')\n")
    (stranger / "libnvidia-ml.so.1").write_bytes(b"not a library")
    environment = {
        "NVATTEST_TRUST_ANCHORS": anchors, "NVAT_RIM_SERVICE_BASE_URL": "http://127.0.0.1:9", "NV_ALLOW_HOLD_CERT": "true",
        "PYTHONPATH": str(stranger), "PYTHONSTARTUP": str(stranger / "sitecustomize.py"), "PYTHONINSPECT": "1",
        "LD_LIBRARY_PATH": str(stranger), "HTTPS_PROXY": "http://127.0.0.1:9", "LC_ALL": "xx_YY.nowhere", "TZ": "Mars/Base",
        "HOME": str(stranger), "TMPDIR": str(stranger),
    }  # fmt: skip
    [oldest] = [generation for generation in GENERATIONS if generation.keeps_environment]
    Agent(oldest, guest, environment=environment).create_pod()
    assert guest.ready == 0
    # Simulated devices under NVIDIA's anchors: the variable that names others is for people's commands.
    assert guest.state["anchors"] == "NVIDIA"
    guest.configure(trust_anchors="/etc/nvattest/anchors.pem")
    guest.forget()
    Agent(oldest, guest, environment=environment).create_pod()
    assert guest.state["reason"] is None
    assert guest.ready == 1


def test_check_says_that_the_line_of_a_good_hook_is_harmless_and_that_of_a_killed_one_is_not(world: NewWorld) -> None:
    newest = GENERATIONS[-1]
    assert newest.logs_failures
    guest = world()
    Agent(newest, guest).create_pod()
    assert any("kata-agent: hook failed" in line for line in guest.kernel_log)
    severity, message = guest.finding("hook-log")
    assert (severity, "its own reaper took the status" in message) == ("ok", True)
    guest.forget()
    Agent(newest, guest, seconds=0).create(POD[0])
    severity, message = guest.finding("hook-log")
    assert (severity, "killed" in message) == ("error", True)


def test_a_folder_that_is_missing_and_files_that_are_no_hooks_run_nothing(world: NewWorld) -> None:
    for change in ("missing", "link", "mode"):
        guest = world()
        if change == "missing":
            agent = Agent(GENERATIONS[-1], guest, folder="opt/hooks")
        elif change == "link":
            guest.hook.rename(guest.hook.parent.parent / "real")
            guest.hook.symlink_to("../real")
            agent = Agent(GENERATIONS[-1], guest)
        else:
            guest.hook.chmod(0o644)
            agent = Agent(GENERATIONS[-1], guest)
        made = agent.create_pod()
        assert [item.hooks for item in made] == [[], []]
        assert guest.server.calls() == ()
