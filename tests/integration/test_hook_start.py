"""The hook before its attestation begins: a configuration of its own, and signals that come early."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nvattest.testing.driver_answers import Fault

from .hook_world import HookWorld, NewWorld

IMAGE = "/run/kata-extensions/coco/etc/nvattest/hook.toml"


def move_configuration(guest: HookWorld, name: str = IMAGE) -> None:
    """Configuration and bundle are in an image that is mounted, and the guest itself has neither."""
    target = guest.file(name.lstrip("/"))
    target.parent.mkdir(parents=True)
    for path in ("hook.toml", "bundle.json"):
        guest.file(f"etc/nvattest/{path}").rename(target.parent / path)


# --- --config ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("prestart",), ("--stage", "init"), ("--stage", "watch", "--once")])
def test_a_configuration_that_is_named_decides_and_brings_its_bundle(world: NewWorld, words: tuple[str, ...]) -> None:
    guest = world()
    guest.configure(token={"issuer": "https://image.example"})
    move_configuration(guest)
    assert guest.run("--config", IMAGE, *words).status == 0
    assert guest.ready == 1
    assert guest.state["findings"] == []
    assert guest.state["config"] == str(guest.root) + IMAGE


def test_a_verdict_of_a_named_configuration_is_used_again_for_that_one_and_no_other(world: NewWorld) -> None:
    guest = world()
    usual = guest.file("etc/nvattest/hook.toml").read_text()
    move_configuration(guest)
    guest.run("--config", IMAGE, "prestart")
    first = guest.state["run"]
    calls = len(guest.server.calls())
    guest.run("--config", IMAGE, "prestart")
    assert (guest.summaries[-1]["reused"], guest.state["run"]) == (True, first)
    assert len(guest.server.calls()) == calls
    # The same bytes at another place are other settings: what is beside them differs.
    guest.file("etc/nvattest/hook.toml").write_text(usual)
    guest.run()
    assert guest.state["run"] != first
    assert guest.state["verdict"] == "not-trusted"
    assert guest.ready == 0


def test_a_named_configuration_that_is_not_there_is_no_reason_to_go_by_the_defaults(world: NewWorld) -> None:
    guest = world()
    guest.server.change(ready=1)
    guest.run()
    assert guest.ready == 1
    ended = guest.run("--config", "/etc/nvattest/none.toml", "prestart")
    assert ended.status == 3
    assert "/etc/nvattest/none.toml: No such file or directory, and --config names it" in ended.stderr
    assert not guest.token.exists()


def nvattest(guest: HookWorld, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nvattest", words[0], "--root", str(guest.root), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_status_check_and_gate_take_the_same_option(world: NewWorld) -> None:
    guest = world()
    move_configuration(guest)
    guest.run("--config", IMAGE, "prestart")
    run = guest.state["run"]
    done = nvattest(guest, "hook", "status", "--config", IMAGE)
    assert (done.returncode, "does not stand" in done.stdout) == (0, False)
    done = nvattest(guest, "hook", "status")
    assert done.returncode == 1
    assert f"made with another configuration (--config {guest.root}{IMAGE})" in done.stdout
    assert f"configuration: {IMAGE} can be read" in nvattest(guest, "hook", "check", "--config", IMAGE).stdout
    assert "configuration: /none.toml: No such" in nvattest(guest, "hook", "check", "--config", "/none.toml").stdout
    done = nvattest(guest, "gate", "--config", IMAGE, "--", "echo", "through")
    assert (done.returncode, done.stdout) == (0, "through\n")
    assert guest.state["run"] == run
    done = nvattest(guest, "gate", "--config", "none.toml", "--", "echo", "through")
    assert (done.returncode, done.stdout) == (105, "")
    assert "--config: expected an absolute path" in done.stderr


# --- signals before the first step ------------------------------------------------------------------------------------


def kill_in(guest: HookWorld, name: str, when: str, module: str = "entry") -> None:
    """Let the hook end itself with SIGTERM before or after it calls this function."""
    # Once: what the signal sets off may call it again.
    guest.around(module, name, **{when: "if calls == 1: os.kill(os.getpid(), signal.SIGTERM)"})


def assert_taken_away(guest: HookWorld) -> None:
    assert guest.ready == 0
    assert guest.server.ready_history[-1:] == (0,)
    assert not guest.token.exists()
    assert (guest.state["verdict"], guest.state["cause"]) == ("not-trusted", "terminated")
    assert guest.kernel_log[-1].startswith("<3>nvattest-hook: attestation failed, GPUs not ready")


EARLY = ["parse_arguments", "read_state", "load_settings", "TrustedFolder", "read_record", "Lock", "identify"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", EARLY)
def test_sigterm_before_the_first_step_takes_away_what_somebody_else_set(world: NewWorld, name: str, when: str) -> None:
    guest = world()
    guest.configure(on_failure="block")
    guest.server.change(ready=1)
    kill_in(guest, name, when)
    ended = guest.run()
    assert ended.status == 143
    assert guest.server.ready_history == (0,)
    assert_taken_away(guest)
    # Nobody was asked for evidence: the run was over.
    assert guest.server.calls("nvmlDeviceGetConfComputeGpuAttestationReport") == ()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_from_outside_while_stdin_is_open_ends_the_run_and_the_ready_state(
    world: NewWorld, number: signal.Signals
) -> None:
    guest = world()
    guest.server.change(ready=1)
    process = guest.start(stdin=None)
    wait_for_handler(process, number)
    process.send_signal(number)
    guest.end(process)
    assert_taken_away(guest)


def wait_for_handler(process: subprocess.Popen[bytes], number: int) -> None:
    """Until the kernel says that the process has its own answer to this signal."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        [mask] = [
            line.split()[1]
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("SigCgt:")
        ]
        if int(mask, 16) >> (signal.SIGTERM - 1) & 1 and int(mask, 16) >> (number - 1) & 1:
            return
        time.sleep(0.001)
    raise AssertionError("the hook handles no signal")


@pytest.mark.parametrize("name", ["parse_arguments", "read_state", "read_record"])
def test_a_verdict_that_stands_is_not_taken_away_by_a_run_that_was_ended(world: NewWorld, name: str) -> None:
    guest = world()
    guest.run()
    run = guest.state["run"]
    kill_in(guest, name, "before")
    guest.run()
    assert (guest.ready, guest.state["run"], guest.summaries[-1]["reused"]) == (1, run, True)
    assert guest.token.exists()


def test_whoever_is_ended_while_another_attests_leaves_the_ready_state_to_that_one(world: NewWorld) -> None:
    guest = world()
    guest.configure(on_failure="block")
    guest.server.change(ready=1)
    guest.file("run/nvattest").mkdir()
    kill_in(guest, "Lock", "after")
    with guest.file("run/nvattest/lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = guest.run()
    assert ended.status == 143
    assert "left to another attestation" in ended.stderr
    assert ended.seconds < 6
    assert guest.server.calls() == ()


@pytest.mark.parametrize("stage", ["init", "watch"])
def test_the_other_stages_end_before_their_first_step_in_the_same_way(world: NewWorld, stage: str) -> None:
    guest = world()
    guest.server.change(ready=1)
    kill_in(guest, "parse_arguments", "after")
    assert guest.run("--stage", stage).status == 143
    assert guest.server.ready_history == (0,)
    assert_taken_away(guest)


@pytest.mark.parametrize("step", ["read_record", "write_log"])
def test_a_gate_that_is_ended_runs_no_command(world: NewWorld, step: str) -> None:
    guest = world()
    guest.server.change(ready=1)
    module = "entry" if step == "read_record" else "attest"
    code = (
        f"import os, signal, sys\nfrom nvattest.guest import {module}\noriginal = {module}.{step}\n"
        f"def ended(*arguments, **named):\n    {module}.{step} = original\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        f"    return original(*arguments, **named)\n{module}.{step} = ended\n"
        "from nvattest.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    words = ["gate", "--root", str(guest.root), "--", "echo", "through"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (143, "")
    if step == "read_record":
        assert_taken_away(guest)
    else:
        # The verdict had been reached; it stands for whoever comes next.
        assert (guest.ready, guest.state["verdict"]) == (1, "trusted")


def test_a_watch_that_is_ended_before_a_round_leaves_a_verdict_that_stands(world: NewWorld) -> None:
    guest = world()
    guest.run()
    run = guest.state["run"]
    kill_in(guest, "parse_arguments", "after")
    assert guest.run("--stage", "watch").status == 0
    assert (guest.ready, guest.state["run"]) == (1, run)


def test_a_watch_that_is_ended_after_a_round_that_failed_says_so(world: NewWorld) -> None:
    guest = world(lies=["gpu0:measurement=9"])
    process = guest.start("--stage", "watch")
    until = time.monotonic() + 20
    while not guest.kernel_log and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert guest.end(process).status == 143
    assert guest.ready == 0


# --- the end of the budget --------------------------------------------------------------------------------------------


def test_a_driver_that_hangs_where_it_is_set_ready_is_given_up_with_a_verdict_in_time(world: NewWorld) -> None:
    guest = world()
    guest.configure(budget={"hook": 3}, on_failure="block")
    # The first call, which takes ready away, is answered; what comes after the token is not.
    published, hangs = (str(guest.file(f"tmp/{name}")) for name in ("published", "hangs"))
    wait = f"open({published!r}, 'w').close()\n    while not os.path.exists({hangs!r}): time.sleep(0.002)"
    guest.around("attest", "publish", before=wait)
    process = guest.start()
    started = time.monotonic()
    while not guest.file("tmp/published").exists() and time.monotonic() < started + 10:
        time.sleep(0.002)
    guest.server.faults["nvmlSystemSetConfComputeGpusReadyState"] = Fault(hang=True)
    guest.file("tmp/hangs").touch()
    guest.end(process)
    # The budget, a second for closing, and what a busy machine needs for a start.
    assert guest.state["milliseconds"]["end"] < 1000 * (3 + 1.0 + 3)
    assert (guest.state["verdict"], guest.state["reason"]["code"]) == ("not-trusted", "driver-timeout")
    assert "ready-state" in [item["code"] for item in guest.state["findings"]]
    assert guest.ready == 0
    assert not guest.token.exists()


def test_a_clock_is_not_waited_for_beyond_the_budget(world: NewWorld) -> None:
    guest = world()
    guest.configure(clock={"not_before": "2100-01-01T00:00:00Z", "wait_hook": 5}, budget={"hook": 1.5})
    guest.run()
    assert guest.state["cause"] == "clock"
    assert guest.state["milliseconds"]["end"] < 3000


def test_help_whose_reader_went_away_is_quiet(world: NewWorld) -> None:
    guest = world()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([guest.hook, "--help"], stdout=writer, stderr=subprocess.PIPE, env={}, timeout=30)
    os.close(writer)
    assert (done.returncode, done.stderr) == (8, b"")


# --- slow machines ----------------------------------------------------------------------------------------------------


def test_the_gpus_are_not_ready_before_the_verifier_is_imported(world: NewWorld) -> None:
    guest = world()
    guest.server.change(ready=1)
    place = guest.file("tmp/modules")
    guest.around(
        "ready", "ReadyGate.close", before=f"import sys; open({str(place)!r}, 'w').write(' '.join(sys.modules))"
    )
    guest.run()
    assert guest.server.ready_history == (0, 1)
    loaded = set(place.read_text().split())
    assert loaded & {"nvattest.appraisal.verifier", "cryptography.x509", "lxml", "requests", "jwt"} == set()
