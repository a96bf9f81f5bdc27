"""Driver calls that are given up at a deadline.

A call into a C library cannot be interrupted. It runs in a daemon thread instead: when it does not return in time the
thread is left behind, and since it is a daemon the process can still end. It begins no other call: what was decided for
the devices of then must not be done to those of later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from nvattest.errors import CollectionError, NvattestError, ResultCode

__all__ = ["DEFAULT_TIMEOUT", "Deadline", "Job", "Trace"]

T = TypeVar("T")

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds for one collection. A driver without persistence mode needs a few seconds per GPU to initialise."""


class Deadline:
    """An instant on the monotonic clock, ``seconds`` from now."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float) -> None:
        # min() also tames inf, which Event.wait does not take; NaN fails the comparison and becomes "now".
        self.seconds = min(seconds, threading.TIMEOUT_MAX / 2) if seconds > 0 else 0.0
        self._at = time.monotonic() + self.seconds

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._at - time.monotonic())


class Trace:
    """Which driver call a job is in: written by its thread, read by whoever gives up on it."""

    __slots__ = ("_given_up", "_lock", "call")

    def __init__(self) -> None:
        self._given_up = False
        self._lock = threading.Lock()
        self.call = "start"

    def begin(self, call: str) -> None:
        """Note the call that comes next.

        Raises:
            CollectionError: the job was given up, and nothing more is to be done for it (``driver-timeout``).
        """
        with self._lock:
            if self._given_up:
                raise CollectionError(f"{call} was not begun: its job was given up", code="driver-timeout")
            self.call = call

    def give_up(self) -> str:
        """Let no other call begin; returns the one that may still be done."""
        with self._lock:
            self._given_up = True
            return self.call


class Job(Generic[T]):
    """One piece of driver work in a daemon thread of its own; it starts at once.

    A system that has used up its threads fails it (``driver-thread``). With ``here`` the work is done without one then,
    and without a limit: for what must be tried in any case, such as taking the ready state away.
    """

    def __init__(self, subject: str, work: Callable[[Trace], T], *, here: bool = False) -> None:
        self._subject = subject
        self._work = work
        self._trace = Trace()
        self._done = threading.Event()
        self._result: T
        self._error: Exception | None = None
        try:
            threading.Thread(target=self._run, name=f"nvattest-{subject}", daemon=True).start()
        except RuntimeError as error:
            if here:
                self._run()
                return
            self._error = CollectionError(
                f"{subject}: the driver was not asked: {error}",
                code="driver-thread",
                hint="look for a limit on processes (pids.max of the cgroup, ulimit -u) and for what uses them up",
            )
            self._done.set()

    def _run(self) -> None:
        try:
            self._result = self._work(self._trace)
        except Exception as error:  # noqa: BLE001 - it must reach the waiting thread, or that would wait for nothing
            self._error = error
        self._done.set()

    @property
    def finished(self) -> bool:
        """Whether the work has returned or failed."""
        return self._done.is_set()

    def ended(self, deadline: Deadline) -> bool:
        """Whether the work has ended by the deadline, in whatever way."""
        return self._done.wait(deadline.remaining())

    def wait(self, deadline: Deadline, *, result_code: ResultCode = ResultCode.NVML_ERROR) -> T:
        """The result of the work.

        Raises:
            CollectionError: the deadline passed (``driver-timeout``), or the work failed.
        """
        if not self._done.wait(deadline.remaining()):
            call = self._trace.give_up()
            raise CollectionError(
                f"{self._subject}: the driver call {call} did not return within {deadline.seconds:.3g} s",
                code="driver-timeout",
                result_code=result_code,
                hint="look for Xid messages in dmesg; the GPU or the driver may need a reset",
            )
        if self._error is None:
            return self._result
        if isinstance(self._error, NvattestError):
            raise self._error
        raise CollectionError(
            f"{self._subject}: the answer of {self._trace.call} could not be used: {self._error!r}"[:400],
            code="driver-answer",
            result_code=result_code,
            hint="check that the driver library is NVIDIA's and fits the driver",
        ) from self._error
