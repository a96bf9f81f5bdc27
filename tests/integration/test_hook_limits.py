"""What a slow machine and a neighbour that uses everything up do to the hook: time, threads and readers that stop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import pytest

from nvattest.testing import Platform

from .hook_world import NewWorld

COUNT = "nvmlDeviceGetCount"


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that has to come."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def test_a_job_that_was_given_up_sets_no_gpu_ready_that_came_later(world: NewWorld) -> None:
    guest = world()
    guest.configure(budget={"watch": 4.0})
    answer = threading.Event()
    asked = []

    def hold(name: str, _: bytes) -> None:
        # The look at the number of GPUs that comes right before the ready call.
        if name == COUNT and guest.token.exists() and not asked:
            asked.append(name)
            answer.wait(60)

    guest.server.before = hold
    watch = guest.start("--stage", "watch")
    until(lambda: asked)
    until(lambda: guest.state["cause"] == "deadline")
    guest.swap(Platform.build("hopper-1", lies=["gpu0:measurement=9"], clock=datetime.now(timezone.utc)))
    answers = len(guest.server.calls(COUNT))
    answer.set()
    until(lambda: len(guest.server.calls(COUNT)) > answers)
    time.sleep(0.3)  # for a call that must not come
    watch.send_signal(signal.SIGTERM)
    watch.communicate()
    assert 1 not in guest.server.ready_history
    assert guest.ready == 0


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The end to write to of a pipe that nobody reads, with no room in it."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, bytes(4096))
    except BlockingIOError:
        os.set_blocking(write, True)
    yield write
    os.close(read)
    os.close(write)


def test_a_reader_of_stderr_that_stopped_holds_up_no_hook_and_no_lock(world: NewWorld, full_pipe: int) -> None:
    guest = world()
    words = [guest.hook.name, "prestart"]
    done = subprocess.run(
        words, executable=guest.hook, env={}, stdin=subprocess.DEVNULL, stdout=full_pipe, stderr=full_pipe, timeout=30
    )
    assert done.returncode == 0
    assert (guest.state["verdict"], guest.ready) == ("trusted", 1)
    assert "attestation successful" in guest.kernel_log[-1]


def test_without_a_thread_the_gpus_are_still_set_not_ready_and_the_token_goes(world: NewWorld) -> None:
    guest = world()
    guest.before_main(
        "import threading\nfrom nvattest.guest import attest\nlooks, look = [], attest._require_same\n"
        'def refuse(thread):\n    raise RuntimeError("can\'t start new thread")\n'
        "def last_look(run):\n    look(run)\n    looks.append(run)\n    if len(looks) == 2:\n"
        "        threading.Thread.start = refuse\n        raise attest.CollectionError('x', code='devices-changed')\n"
        "attest._require_same = last_look\n",
    )
    ended = guest.run()
    assert guest.server.ready_history == (0, 1, 0)
    assert (guest.state["verdict"], guest.state["cause"]) == ("not-trusted", "devices-changed")
    assert not guest.token.exists()
    assert "GPUs not ready" in ended.stderr


def test_without_any_thread_nothing_is_attested_and_a_ready_state_that_was_found_is_taken_away(world: NewWorld) -> None:
    guest = world()
    guest.server.change(ready=1)
    guest.before_main(
        'import threading\ndef refuse(thread):\n    raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = refuse\n",
    )
    ended = guest.run()
    assert guest.ready == 0
    assert guest.state["reason"]["code"] == "driver-thread"
    assert "attestation failed, GPUs not ready" in ended.stderr


def test_a_failure_while_the_gpus_are_closed_takes_the_token_away_and_says_what_is_known(world: NewWorld) -> None:
    guest = world()
    guest.before_main(
        "from nvattest.guest import attest, ready\n"
        "def broken(gate, seconds):\n    raise MemoryError\n"
        "def changed(run):\n    ready.ReadyGate.close = broken\n    if run.gate.ready:\n"
        "        raise attest.CollectionError('x', code='devices-changed')\nattest._require_same = changed\n",
    )
    ended = guest.run()
    assert not guest.token.exists()
    assert guest.state["verdict"] == "not-trusted"
    assert "GPUs not ready" not in ended.stderr


def test_the_time_before_the_first_line_of_the_program_is_the_hook_s_too(world: NewWorld) -> None:
    """An agent counts from the start of the process; an interpreter on a slow machine takes its time."""
    guest = world()
    guest.before_main("import time\ntime.sleep(1.5)\n")
    guest.run()
    assert guest.state["milliseconds"]["start"] >= 1500
    guest.load_driver()
    guest.run("--stage", "init")
    assert guest.state["milliseconds"]["start"] < 1500, "no agent waits for init"


def test_a_process_that_waited_before_it_became_the_hook_has_its_whole_budget(
    world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvattest.guest import entry
    from nvattest.guest.arguments import Termination

    starts = []
    monkeypatch.setattr(entry, "run_stage", lambda *_, started, termination: starts.append(started) or 0)
    for age in (3.0, 3600.0):
        monkeypatch.setattr(entry, "seconds_since_fork", lambda age=age: age)
        entry.run(["--root", world().folder, "prestart"], started=time.monotonic(), termination=Termination())
    young, old = starts
    assert old - young > 2.9
