"""The hook of the guest layer in a real virtual machine: verdicts, their order and the ready state, never seconds."""

from __future__ import annotations

import fcntl
import os

import pytest

from nvattest.testing.driver import DriverLibraries
from nvattest.testing.driver_answers import Fault
from nvattest.testing.services import Services

from ..guest_layer import HOOK, ROOT, shared_layer  # noqa: TID252
from .machine import Boot, Machine

pytestmark = pytest.mark.vm

HOOKS = HOOK.rpartition("/prestart/")[0]
READY = "nvmlSystemSetConfComputeGpusReadyState"
# Emulated and beside other tests a guest is slow; how slow is no subject here.
SLOW = "[budget]\nhook = 8.5\n"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory, libraries: DriverLibraries) -> Machine:
    home = tmp_path_factory.getbasetemp()
    folder = (home.parent if os.environ.get("PYTEST_XDIST_WORKER") else home) / "nvattest-vm"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Machine(folder, shared_layer(tmp_path_factory), libraries)


def outcome(boot: Boot) -> tuple[str, str | None, tuple[int, ...]]:
    """Verdict, cause and every value that the ready state was set to; the console in short for who runs this."""
    print(f"\n{boot.seconds:.1f} s from power on to power off")
    print(
        "\n".join(line for line in boot.text.splitlines() if line.startswith(("nvattest-hook", "T agent", "T kernel")))
    )
    state = boot.state
    assert (boot.file("token.json") is not None) == (state["verdict"] == "trusted")
    return state["verdict"], state["cause"], boot.ready_history


# --- images and agents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", ["3.0", "3.7", "3.32", "4.1"])
def test_a_good_gpu_becomes_ready_under_every_generation_of_the_agent(machine: Machine, generation: str) -> None:
    boot = machine.boot(f"agent {generation} {HOOKS} true\nresults\n", config=SLOW)
    assert outcome(boot) == ("trusted", "ok", (0, 1))
    assert boot.reports == 1, "the run for the workload's container uses the verdict that the pause container's made"
    dropped = "agent dropped the guest's hooks for workload" in boot.said
    assert dropped == (generation in ("3.32", "4.1"))
    # 4.x says so of every good hook whose status the reaper took.
    assert any("hook failed" in line and "no exit code" in line for line in boot.kernel) == (generation == "4.1")


def test_a_read_only_root_is_enough(machine: Machine) -> None:
    boot = machine.boot(f"agent 4.1 {HOOKS} true\nresults\n", squashfs=True, config=SLOW)
    assert outcome(boot) == ("trusted", "ok", (0, 1))


@pytest.mark.parametrize("generation", ["3.0", "4.1"])
def test_a_driver_that_never_answers_ends_the_hook_before_the_agent_does(machine: Machine, generation: str) -> None:
    case = f"agent {generation} {HOOKS} true\nresults\n"
    boot = machine.boot(case, faults={"nvmlDeviceGetConfComputeGpuAttestationReport": Fault(hang=True)})
    verdict, cause, _ = outcome(boot)
    assert (verdict, cause) == ("not-trusted", "deadline")
    assert boot.server.state.ready == 0
    assert not any("killed" in line or "abandoned" in line for line in boot.said)


def test_before_agents_of_3_0_a_bad_gpu_stops_the_container_where_the_image_says_so(machine: Machine) -> None:
    config = 'on_failure = "block"\n'
    boot = machine.boot(f"agent 3.0 {HOOKS} true\nresults\n", lies=["gpu0:measurement=9"], config=config)
    assert outcome(boot)[:2] == ("not-trusted", "not-trusted")
    assert boot.said[-1] == "case ends"
    assert "agent aborted pause" in boot.said
    assert not any(line.startswith("agent create workload") for line in boot.said)


# --- against the host -------------------------------------------------------------------------------------------------


def test_a_clock_of_2020_makes_nothing_ready(machine: Machine) -> None:
    boot = machine.boot(f"agent 4.1 {HOOKS} true\nresults\n", clock="2020-01-01T00:00:00")
    verdict, cause, _ = outcome(boot)
    assert (verdict, cause) == ("not-trusted", "clock")
    assert boot.server.state.ready == 0


def test_gpus_that_the_command_line_set_ready_are_taken_back_before_a_lie_is_seen(machine: Machine) -> None:
    case = f"agent 4.1 {HOOKS} true\nresults\n"
    boot = machine.boot(case, ready=1, lies=["gpu0:measurement=9"], words="nvrc.smi.srs=1", config=SLOW)
    verdict, cause, history = outcome(boot)
    assert (verdict, cause) == ("not-trusted", "not-trusted")
    assert history[0] == 0
    assert 1 not in history
    assert boot.state["ready_on_entry"] is True
    assert boot.server.state.ready == 0


def test_a_driver_that_refuses_to_take_the_ready_state_away_is_not_called_not_ready(machine: Machine) -> None:
    case = f"agent 4.1 {HOOKS} true\nresults\n"
    boot = machine.boot(case, ready=1, faults={READY: Fault(return_code=4)}, config=SLOW)
    verdict, cause, history = outcome(boot)
    assert (verdict, cause, history) == ("not-trusted", "ready-state", ())
    assert boot.server.state.ready == 1
    words = [line for line in (*boot.kernel, *boot.text.splitlines()) if "attestation failed" in line]
    assert words
    assert not any("GPUs not ready" in line for line in words)


def test_a_run_folder_that_a_neighbour_owns_opens_no_gate_though_its_record_is_good(machine: Machine) -> None:
    case = (
        "$hook prestart </dev/null\n"
        "chown -R 1000:1000 /run/nvattest; chmod 0777 /run/nvattest\n"
        "$hook gate -- echo T workload runs; echo T gate $?\n"
        "$hook prestart </dev/null; ls /run/nvattest | sed 's/^/T left /'\n"
    )
    boot = machine.boot(case, config=SLOW)
    print("\n".join(line for line in boot.text.splitlines() if line.startswith(("nvattest-hook", "T "))))
    assert boot.ready_history[:2] == (0, 1)
    assert boot.server.state.ready == 0
    assert "workload runs" not in boot.said
    assert any(line.startswith("gate ") and line != "gate 0" for line in boot.said)


# --- without a hook: init and watch -----------------------------------------------------------------------------------


def test_eight_gpus_and_four_switches_become_ready_as_a_step_of_init(machine: Machine) -> None:
    boot = machine.boot("$hook --stage init; echo T status $?\nresults\n", platform="hopper-8-ppcie", memory=512)
    assert outcome(boot) == ("trusted", "ok", (0, 1))
    assert "status 0" in boot.said
    assert (boot.state["gpus"], boot.state["switches"]) == (8, 4)


@pytest.mark.parametrize("native", [False, True], ids=["init-step.sh", "agent-step.c"])
def test_a_step_of_init_attests_before_the_agent_as_process_1(machine: Machine, native: bool) -> None:
    examples = ROOT / "examples/init"
    files = {"step.sh": (examples / "init-step.sh").read_text(), "work.sh": "#!/bin/sh\n. /lib/results.sh\nresults\n"}
    arguments = f"4.1 {HOOKS} /case/work.sh"
    # Without a shell the step has the agent's name in the image, and the agent another one.
    case = f"exec /usr/bin/kata-agent {arguments}\n" if native else f"exec sh /case/step.sh /bin/agent {arguments}\n"
    boot = machine.boot(case, files=files, step=examples / "agent-step.c" if native else None)
    assert outcome(boot) == ("trusted", "ok", (0, 1))
    assert "agent 4.1 runs as process 1" in boot.said
    assert boot.reports == 1, "the hook that the agent runs uses the verdict of the step"


def test_a_network_that_comes_after_twenty_seconds_still_gives_the_gpus(machine: Machine) -> None:
    case = "(sleep 20; ifconfig eth1 10.0.3.15 netmask 255.255.255.0 up) &\n$hook --stage init; echo T status $?\nresults\n"
    boot = machine.boot(case, services=Services, network=True, bundle=False)
    assert outcome(boot) == ("trusted", "ok", (0, 1))
    assert "status 0" in boot.said


def test_the_watch_attests_once_in_ten_seconds(machine: Machine) -> None:
    case = "$hook --stage watch & watch=$!\nsleep 10; results; kill -TERM $watch; wait $watch; echo T watch ended\nresults\n"
    boot = machine.boot(case)
    assert outcome(boot)[0] in ("trusted", "not-trusted")
    assert boot.reports == 1
    assert "watch ended" in boot.said
    assert boot.ready_history[:2] == (0, 1)


def test_a_driver_that_was_loaded_again_is_attested_again(machine: Machine) -> None:
    case = "$hook prestart </dev/null; $hook prestart </dev/null; load_driver; $hook prestart </dev/null\nresults\n"
    boot = machine.boot(case, config=SLOW)
    assert outcome(boot)[:2] == ("trusted", "ok")
    assert boot.reports == 2
    assert boot.ready_history == (0, 1, 0, 1)


# --- the commands of the layer ----------------------------------------------------------------------------------------


def test_the_layer_alone_shows_the_status_checks_the_guest_and_gates_a_command(machine: Machine) -> None:
    case = (
        f"agent 4.1 {HOOKS} true\n"
        "$hook status; echo T status $?; $hook check; echo T check $?\n"
        "$hook gate -- echo T workload runs; echo T gate $?\nresults\n"
    )
    boot = machine.boot(case, config=SLOW)
    print(boot.text[-6000:])
    assert outcome(boot) == ("trusted", "ok", (0, 1))
    assert {"status 0", "workload runs", "gate 0"} <= set(boot.said)
    assert any(line.startswith("check ") for line in boot.said)
