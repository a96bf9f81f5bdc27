"""Several jobs at once, given up together at a deadline.

A socket can trickle for ever, so a job cannot be trusted to end. The threads are daemons: those that are late are left
behind, and the process can still end. Closing the client ends their connections, and with that the threads; only one
that waits for a name to be resolved takes as long as the resolver does.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from nvattest.collateral.deadline import Deadline

T = TypeVar("T")

# The first wave of an HGX node (8 GPUs, 4 switches) has 18 requests.
WORKERS: Final = 24


class Late(Exception):  # noqa: N818 - it is an outcome; nobody raises it
    """A job that had not ended at the deadline."""


class _Batch(Generic[T]):
    def __init__(self, jobs: Sequence[Callable[[], T]]) -> None:
        self._jobs = jobs
        self._waiting = deque(range(len(jobs)))
        self._left = len(jobs)
        self._results: list[T | Exception] = [Late() for _ in jobs]
        self._changed = threading.Condition()

    def work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    return
                index = self._waiting.popleft()
            result: T | Exception
            try:
                result = self._jobs[index]()
            except Exception as error:  # noqa: BLE001 - it must reach the waiting thread, or that would wait for nothing
                result = error
            with self._changed:
                self._results[index] = result
                self._left -= 1
                self._changed.notify_all()

    def collect(self, deadline: Deadline) -> list[T | Exception]:
        with self._changed:
            while self._left:
                remaining = deadline.remaining()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            # What is late must neither start nor change what was returned.
            self._waiting.clear()
            return list(self._results)


def run_all(jobs: Sequence[Callable[[], T]], deadline: Deadline, *, workers: int = WORKERS) -> list[T | Exception]:
    """Run all jobs, at most ``workers`` at a time, and return their results or errors in order.

    What has not ended at the deadline is a ``Late``; its thread is left behind and its result is dropped.
    """
    if not jobs:
        return []
    batch = _Batch(jobs)
    for number in range(min(workers, len(jobs))):
        threading.Thread(target=batch.work, name=f"nvattest-net-{number}", daemon=True).start()
    return batch.collect(deadline)
