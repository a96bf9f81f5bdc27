"""What the hook says of the ready state is what the driver answered last, and what it blames is what took the time."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import threading
import time

import pytest

from nvattest.testing.driver_answers import Fault

from .hook_world import HookWorld, NewWorld

SET_READY = "nvmlSystemSetConfComputeGpusReadyState"
UNKNOWN = "the driver could not be asked: the GPUs may be ready"
STAGES = [("prestart",), ("--stage", "init"), ("--stage", "watch", "--once")]


def everywhere(guest: HookWorld, stderr: str) -> list[str]:
    """The first words of the run in each place that people read."""
    return [guest.kernel_log[-1].removeprefix("<3>"), stderr.strip()]


def in_the_log(guest: HookWorld) -> str:
    return [line for line in guest.log if line.startswith("Confidential Compute GPUs Ready state")][-1].split(": ")[1]


# --- ready by others, and a driver that does not take it away ---------------------------------------------------------

FALSE = {
    "setting it is refused": ({SET_READY: Fault(return_code=4)}, "the GPUs are ready", True, "ready"),
    "setting it fails": ({SET_READY: Fault(return_code=999)}, "the GPUs are ready", True, "ready"),
    "setting it hangs": ({SET_READY: Fault(hang=True)}, UNKNOWN, None, "unknown"),
    "nvmlInit hangs": ({"nvmlInit": Fault(hang=True)}, UNKNOWN, None, "unknown"),
    "there is no driver": ({"nvmlInit": Fault(return_code=9)}, UNKNOWN, None, "unknown"),
    "nvmlInit fails": ({"nvmlInit": Fault(return_code=999)}, UNKNOWN, None, "unknown"),
}


# Each takes a second, so that the suite has each fault once and each stage twice; make exhaustive has all.
PAIRS = [
    pytest.param(name, words, marks=() if number % 3 == at else pytest.mark.exhaustive)
    for number, name in enumerate(FALSE)
    for at, words in enumerate(STAGES)
]


@pytest.mark.parametrize(("name", "words"), PAIRS)
def test_gpus_that_are_ready_are_never_called_not_ready(world: NewWorld, name: str, words: tuple[str, ...]) -> None:
    faults, said, ready, logged = FALSE[name]
    guest = world()
    guest.configure(budget={"hook": 1.5, "init": 1.5, "watch": 1.5})
    guest.server.change(ready=1)
    guest.server.faults.update(faults)
    ended = guest.run(*words)
    assert guest.ready == 1
    assert (guest.state["verdict"], guest.state["ready"]) == ("not-trusted", ready)
    for line in everywhere(guest, ended.stderr):
        assert line.startswith(f"nvattest-hook: attestation failed, {said}")
        assert "not ready" not in line.partition(";")[0]
    assert in_the_log(guest) == logged
    assert not guest.token.exists()


@pytest.mark.parametrize("words", STAGES)
def test_a_run_that_finds_no_place_says_what_the_driver_answers(world: NewWorld, words: tuple[str, ...]) -> None:
    guest = world()
    guest.configure(on_failure="block")
    guest.server.change(ready=1)
    guest.file("run/nvattest").write_text("a file")
    guest.server.faults[SET_READY] = Fault(return_code=999)
    ended = guest.run(*words)
    assert ended.status == 8
    for line in everywhere(guest, ended.stderr):
        assert line.startswith("nvattest-hook: attestation failed, the GPUs are ready; ")
    guest.server.faults.clear()
    ended = guest.run(*words)
    assert guest.ready == 0
    for line in everywhere(guest, ended.stderr):
        assert line.startswith("nvattest-hook: attestation failed, GPUs not ready; ")


def break_in(guest: HookWorld, module: str, name: str) -> None:
    """A fault of ours: this function raises what nobody expects."""
    guest.around(module, name, before="raise ZeroDivisionError('ours')")


# Before the gate exists, beside it, and outside of the attestation.
OURS = [("attest", "pci_devices"), ("attest", "_open"), ("inputs", "load_demands"), ("entry", "identify"),
        ("entry", "load_settings"), ("entry", "TrustedFolder")]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), OURS)
def test_a_fault_of_ours_takes_ready_away_wherever_it_is(world: NewWorld, module: str, name: str) -> None:
    guest = world()
    guest.configure(on_failure="block")
    guest.server.change(ready=1)
    break_in(guest, module, name)
    ended = guest.run()
    assert ended.status == 70
    assert "ZeroDivisionError" in ended.stderr
    if name == "load_settings":
        # Which library is the driver's is what could not be read.
        assert ended.stderr.startswith(f"nvattest-hook: attestation failed, {UNKNOWN}")
        return
    assert guest.ready == 0
    assert ended.stderr.startswith("nvattest-hook: attestation failed, GPUs not ready")


def test_the_watch_says_what_is_known_where_a_fault_of_ours_ends_it(world: NewWorld) -> None:
    guest = world()
    guest.server.change(ready=1)
    break_in(guest, "entry", "identify")
    ended = guest.run("--stage", "watch")
    assert (ended.status, guest.ready) == (70, 0)
    assert ended.stderr.startswith("nvattest-hook: attestation failed, GPUs not ready: ZeroDivisionError")


# --- decisions that no test noticed -----------------------------------------------------------------------------------


def test_a_driver_that_refuses_only_the_first_not_ready_ends_with_that_cause_and_no_token(world: NewWorld) -> None:
    guest = world()
    guest.server.change(ready=1)
    asked: list[bytes] = []

    def refuse_once(name: str, data: bytes) -> None:
        if name == SET_READY:
            asked.append(data)
            if len(asked) == 1:
                raise OSError("refused")  # the driver answers 999

    guest.server.before = refuse_once
    guest.run()
    state = guest.state
    assert (state["verdict"], state["cause"]) == ("not-trusted", "ready-state")
    assert asked == [struct.pack("<I", 0)] * 2
    assert guest.ready == 0
    assert state["ready"] is False
    assert not guest.token.exists()


def test_a_run_that_fails_at_the_evidence_withdraws_the_earlier_appraisal(world: NewWorld) -> None:
    guest = world()
    guest.run()
    assert guest.file("run/nvattest/appraisal.json").exists()
    guest.server.faults["nvmlDeviceGetConfComputeGpuAttestationReport"] = Fault(return_code=999)
    guest.run("--stage", "watch", "--once")
    guest.load_driver()
    guest.run()
    assert guest.state["cause"] == "collection"
    assert not guest.file("run/nvattest/appraisal.json").exists()


# --- what took the time -----------------------------------------------------------------------------------------------


def test_a_wait_for_the_lock_takes_nothing_from_the_driver_but_time(world: NewWorld) -> None:
    guest = world()
    guest.configure(budget={"hook": 8.0})
    # As long as real ones take; the old share was over after 4.4 s.
    guest.server.faults["nvmlInit"] = Fault(delay=0.3)
    folder = guest.file("run/nvattest")
    folder.mkdir(mode=0o755)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        release = threading.Timer(4.6, lambda: fcntl.flock(held, fcntl.LOCK_UN))
        release.start()
        ended = guest.run()
        release.join()
    assert guest.ready == 1, ended.stderr
    assert guest.state["milliseconds"]["lock"] - guest.state["milliseconds"]["start"] > 4000


def test_what_is_blamed_for_a_budget_that_is_over_is_what_took_the_time(world: NewWorld) -> None:
    guest = world()
    guest.configure(budget={"hook": 3.0}, on_failure="block")
    guest.server.faults["nvmlInit"] = Fault(hang=True)
    folder = guest.file("run/nvattest")
    folder.mkdir(mode=0o755)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        release = threading.Timer(2.4, lambda: fcntl.flock(held, fcntl.LOCK_UN))
        release.start()
        ended = guest.run()
        release.join()
    reason = guest.state["reason"]
    assert ended.status == 6
    assert "of the 3 s of this run" in reason["message"]
    assert " s waiting for another attestation" in reason["message"]
    assert "give more time under [budget]" in reason["hint"]
    assert "reset" not in reason["hint"]


def test_a_driver_that_took_the_time_is_what_is_blamed(world: NewWorld) -> None:
    guest = world()
    guest.configure(budget={"hook": 4.0})
    guest.server.faults["nvmlDeviceGetConfComputeGpuAttestationReport"] = Fault(hang=True)
    guest.run()
    reason = guest.state["reason"]
    assert reason["code"] == "driver-timeout"
    assert " s for the evidence" in reason["message"]
    assert "reset" in reason["hint"]


@pytest.mark.parametrize("stage", ["init", "watch"])
def test_a_driver_that_takes_longer_than_a_second_to_set_the_state_is_waited_for(world: NewWorld, stage: str) -> None:
    guest = world()
    guest.server.faults[SET_READY] = Fault(delay=1.5)
    ended = guest.end(guest.start("--stage", stage, "--once"), seconds=60)
    assert ended.status == 0, ended.stderr
    assert guest.ready == 1
    assert guest.server.ready_history == (0, 1)


# --- a watch that is killed -------------------------------------------------------------------------------------------


def test_a_record_of_other_devices_keeps_nothing_ready(world: NewWorld) -> None:
    """Killed after its first record, a run has named these devices without having attested them."""
    guest = world()
    guest.run()
    guest.load_driver()
    hook = guest.around("attest", "_open", before="os.kill(os.getpid(), signal.SIGKILL)")
    assert guest.run("--stage", "init").status == -signal.SIGKILL
    assert guest.state["verdict"] == "unfinished"
    guest.hook.write_text(hook)
    assert os.path.exists(guest.token)
    assert guest.run("--stage", "watch", "--once").status == 0
    # It was attested before it was ready again.
    assert guest.server.ready_history == (0, 1, 0, 1)


def test_ready_is_not_begun_where_the_driver_would_not_end_in_time(world: NewWorld) -> None:
    """A call that is given up may still be done, after the token is gone."""
    guest = world()
    guest.configure(budget={"hook": 4.0})
    guest.server.faults[SET_READY] = Fault(delay=2.2)
    guest.run()
    assert guest.state["cause"] == "deadline"
    time.sleep(2.5)  # a call that was begun would be done by now
    assert 1 not in guest.server.ready_history
    assert guest.ready == 0


def test_a_ready_state_that_stays_for_gpus_to_come_is_no_success_without_a_gpu(world: NewWorld) -> None:
    guest = world()
    guest.configure(allow_no_gpu=True, on_failure="block")
    for device in guest.file("sys/bus/pci/devices").iterdir():
        os.rename(device, guest.file("tmp") / device.name)
    guest.server.change(ready=1)
    guest.server.faults[SET_READY] = Fault(return_code=4)
    ended = guest.run()
    assert ended.status == 9
    assert (guest.state["verdict"], guest.state["ready"]) == ("not-trusted", True)
    assert "attestation failed, the GPUs are ready" in ended.stderr
    guest.server.faults.clear()
    assert guest.run().status == 0
    assert (guest.state["verdict"], guest.ready) == ("no-gpu", 0)


def test_what_others_set_while_it_was_refused_is_what_is_said(world: NewWorld) -> None:
    guest = world()

    def set_by_others(name: str, data: bytes) -> None:
        if name == SET_READY:
            guest.server.change(ready=1)
            raise OSError("refused")

    guest.server.before = set_by_others
    ended = guest.run()
    assert (guest.ready, guest.state["ready"], guest.state["ready_on_entry"]) == (1, True, False)
    assert "attestation failed, the GPUs are ready" in ended.stderr


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion"])
def test_gpus_found_ready_are_taken_back_though_a_call_before_that_failed_once(world: NewWorld, call: str) -> None:
    guest = world()
    guest.server.change(ready=1)
    calls = []

    def fail_once(name: str, _: bytes) -> None:
        if name == call and not calls:
            calls.append(name)
            raise OSError("a bad moment")

    guest.server.before = fail_once
    ended = guest.run()
    assert (guest.ready, guest.state["cause"], guest.state["ready"]) == (0, "collection", False)
    assert "attestation failed, GPUs not ready" in ended.stderr


def status_of(guest: HookWorld) -> str:
    return guest.run("status").stdout


def test_status_warns_of_ready_gpus_though_no_run_left_a_record(world: NewWorld) -> None:
    guest = world()
    guest.server.change(ready=1)
    text = status_of(guest)
    assert "Last verdict: none; there is no record of a run in this boot" in text
    assert "WARNING: the GPUs are ready without a verdict that stands" in text


@pytest.mark.parametrize("content", ["{", '{"format": "nvattest-hook-state", "version": 2}', None])
def test_status_does_not_say_that_no_run_was_where_its_record_cannot_be_read(
    world: NewWorld, content: str | None
) -> None:
    guest = world()
    guest.run()
    state = guest.file("run/nvattest/state.json")
    state.unlink()
    if content is None:
        os.mkfifo(state)
    else:
        state.write_text(content)
    text = status_of(guest)
    assert "Last verdict: unknown" in text
    assert "state.json: " in text
    assert "none" not in text


def test_a_token_that_this_user_may_not_read_is_no_alarm(world: NewWorld) -> None:
    guest = world()
    guest.run()
    guest.before_main(
        "from nvattest._system import TrustedFolder\nread = TrustedFolder.read\n"
        "def refused(folder, name, maximum):\n    if name == 'token.json':\n"
        "        raise PermissionError(13, 'Permission denied', folder.at(name))\n"
        "    return read(folder, name, maximum)\nTrustedFolder.read = refused\n"
    )
    text = status_of(guest)
    assert "Whether the verdict stands is not known: its token cannot be read by this user" in text
    assert "WARNING" not in text
    assert guest.finding("ready-by-others")[0] == "warning"
    # What does not stand in any case is said, whoever looks.
    guest.load_driver()
    text = status_of(guest)
    assert "The verdict does not stand: the devices" in text
    assert "WARNING: the GPUs are ready without a verdict that stands" in text


def test_check_says_what_it_could_not_look_at(world: NewWorld) -> None:
    guest = world()
    guest.run()
    guest.file("dev/kmsg").unlink()
    guest.file("run/kata-containers").write_text("no folder")
    found = {item["id"]: (item["severity"], item["message"]) for item in guest.checked()}
    assert found["hook-log"][0] == "warning"
    assert "the kernel log cannot be read" in found["hook-log"][1]
    assert found["hook-dropped"][0] == "warning"
    assert "is not known" in found["hook-dropped"][1]


def test_check_knows_nothing_of_the_ready_state_where_the_driver_does_not_answer(world: NewWorld) -> None:
    guest = world()
    guest.server.faults["nvmlInit"] = Fault(return_code=999)
    severity, message = guest.finding("ready-by-others")
    assert severity == "warning"
    assert "not known" in message
