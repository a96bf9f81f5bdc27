"""Signals and hot swaps at random moments, hundreds of runs: whatever ends ready was attested.

A process that is killed between the ready call and the look after it cannot take anything back (LIMITATIONS.md), so the
state is judged when the next run has ended, as the next container's start or the watch would judge it.
"""

from __future__ import annotations

import json
import random
import signal
import struct
import subprocess
import threading
import time
from datetime import datetime, timezone
from hashlib import sha256

import pytest

from nvattest.testing import Platform

from .hook_world import HookWorld, NewWorld

STAGES = (("prestart",), ("--stage", "init"), ("--stage", "watch", "--once"), ("--stage", "watch"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
AT_ONCE = 5


class Storm:
    """A host that swaps the GPU of one guest for a bad one and back, and processes that are ended at any moment."""

    def __init__(self, guest: HookWorld, seed: int) -> None:
        self.guest = guest
        self.random = random.Random(seed)  # noqa: S311 - a choice that can be made again
        self.good = guest.platform
        self.bad = Platform.build("hopper-1", lies=["gpu0:measurement=9"], clock=datetime.now(timezone.utc))
        self.bad_is_in = False
        self.running: list[subprocess.Popen[bytes]] = []
        self.started = 0
        self.without_token = 0
        self.lock = threading.Lock()
        guest.server.before = self.watch_ready

    def watch_ready(self, name: str, data: bytes) -> None:
        if name == "nvmlSystemSetConfComputeGpusReadyState" and data == struct.pack("<I", 1):
            self.without_token += not self.guest.token.exists()
            if self.running and self.random.random() < 0.3:
                # The moment that hurts most: everything has been looked at.
                self.swap()

    def swap(self) -> None:
        with self.lock:
            self.bad_is_in = not self.bad_is_in
            self.guest.swap(self.bad if self.bad_is_in else self.good)

    def step(self) -> None:
        for process in [process for process in self.running if process.poll() is not None]:
            process.communicate()
            self.running.remove(process)
        number = self.random.random()
        if len(self.running) < AT_ONCE and number < 0.6:
            stage = self.random.choice(STAGES)
            process = self.guest.start(*stage, stdin=self.guest.oci_state())
            self.running.append(process)
            self.started += 1
        elif number < 0.85 and self.running:
            self.random.choice(self.running).send_signal(self.random.choice(SIGNALS))
        elif number < 0.9 and self.running:
            process = self.random.choice(self.running)
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.05)
            process.send_signal(signal.SIGCONT)
        elif number > 0.94:
            self.swap()
        time.sleep(self.random.random() * 0.1)

    def calm(self) -> None:
        """No process of the storm is left."""
        for process in self.running:
            process.send_signal(signal.SIGCONT)
            process.send_signal(self.random.choice((signal.SIGKILL, signal.SIGTERM)))
        for process in self.running:
            process.communicate(timeout=60)
        self.running = []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_a_storm_never_ends_ready_with_a_gpu_that_was_not_attested(world: NewWorld, seed: int) -> None:
    guest = world()
    guest.configure(reuse={"max_age": 1}, watch={"interval": 1, "retry": 1}, budget={"watch": 10, "init": 20})
    storm = Storm(guest, seed)
    bursts = 0
    while storm.started < 100:
        until = storm.started + 10
        while storm.started < until:
            storm.step()
        storm.calm()
        bursts += 1
        ended = guest.end(guest.start("--stage", "init"), seconds=60)
        if storm.bad_is_in:
            assert (ended.status, guest.ready, guest.token.exists()) == (1, 0, False), ended.stderr
        else:
            assert (ended.status, guest.ready) == (0, 1), ended.stderr
            assert sha256(guest.token.read_bytes()).hexdigest() == guest.state["token_sha256"]
            assert json.loads(guest.file("run/nvattest/appraisal.json").read_text())["trusted"] is True
        assert guest.state["ready"] is bool(guest.ready)
    # Nothing is left behind by those that were killed: one file of each name that is being written, at most.
    names = {path.name for path in guest.file("run/nvattest").iterdir()}
    assert names <= {"state.json", "token.json", "jwks.json", "appraisal.json", "lock"}
    assert storm.without_token == 0
    print(f"\nseed {seed}: {storm.started} runs, {bursts} bursts, {len(guest.server.ready_history)} changes of ready")
