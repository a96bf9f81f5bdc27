"""Waiting with a limit: one deadline, and work that is given up when it passes.

Neither a call into a C library nor a read from a socket that trickles can be interrupted. Such work runs in a daemon
thread: when it is late the thread is left behind, and the process can still end. Work returns a value; that of late
work is discarded.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# The first wave of an HGX node (8 GPUs, 4 switches) has 18 requests.
WORKERS: Final = 24

LONGEST: Final = threading.TIMEOUT_MAX / 2
"""Seconds. A thread cannot wait much longer."""


def debug(logger: str, message: str, *, wait: object = None, over: bool = True) -> None:
    """Log at level DEBUG to ``nvattest.LOGGER``. Where the program has not imported ``logging``, nothing listens."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger(f"nvattest.{logger}").debug("%s", message, extra={"wait": wait, "over": over})


@contextmanager
def waiting(logger: str, what: str) -> Iterator[None]:
    """Log that a wait begins, and how and when it ended. Both records have the same ``wait``, and ``over``."""
    wait, began = object(), time.monotonic()
    debug(logger, what, wait=wait, over=False)
    end = "done"
    try:
        yield
    except BaseException as error:
        end = f"failed ({error})"
        raise
    finally:
        debug(logger, f"{what}: {end} after {time.monotonic() - began:.3f} s", wait=wait)


class Late(Exception):  # noqa: N818 - an outcome, which each caller words in its own terms
    """The work had not ended at the deadline."""


class NoThread(RuntimeError):  # noqa: N818 - likewise
    """The system has no thread left for the work, which was not begun."""


class Deadline:
    """An instant on the monotonic clock: ``seconds`` from ``since``, or from now.

    Zero, a negative number and NaN are over at once; what is longer than ``LONGEST`` is cut to that.
    """

    __slots__ = ("_clock", "at", "seconds")

    def __init__(
        self, seconds: float, *, since: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # NaN fails the comparison and becomes "now".
        self.seconds: Final = min(seconds, LONGEST) if seconds > 0 else 0.0
        self._clock = clock
        self.at: Final = (clock() if since is None else since) + self.seconds

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - self._clock())

    @property
    def passed(self) -> bool:
        return self.remaining() <= 0.0


class Work(Generic[T]):
    """One piece of work in a daemon thread of its own, named for it; it starts at once.

    A system without a thread to spare fails it (``NoThread``). With ``here`` the work is then done in the caller's
    thread, without a limit: for what must be tried in any case, such as taking the ready state away.
    """

    def __init__(self, name: str, work: Callable[[], T], *, here: bool = False) -> None:
        self._work = work
        self._done = threading.Event()
        self._result: T
        self._error: BaseException | None = None
        try:
            threading.Thread(target=self._run, name=f"nvattest-{name}", daemon=True).start()
        except RuntimeError as error:
            if here:
                self._run()
            else:
                self._error = NoThread(str(error))
                self._done.set()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            self._error = error
        self._done.set()

    @property
    def finished(self) -> bool:
        return self._done.is_set()

    def ended(self, deadline: Deadline) -> bool:
        """Wait for the work; whether it has returned or failed by the deadline."""
        return self._done.wait(deadline.remaining())

    def result(self, deadline: Deadline) -> T:
        """What the work returns, or its exception.

        Raises:
            Late: the deadline passed first.
            NoThread: the work was not begun.
        """
        if not self.ended(deadline):
            raise Late
        if self._error is not None:
            raise self._error
        return self._result


def run_all(jobs: Sequence[Callable[[], T]], deadline: Deadline, *, workers: int = WORKERS) -> list[T | Exception]:
    """Run all jobs, at most ``workers`` at a time, and return their results or exceptions in order.

    A job that has not ended at the deadline gives ``Late``; one that has not begun never does. Where the system has no
    thread at all each gives ``NoThread``.
    """
    waiting = deque(enumerate(jobs))
    results: list[T | Exception] = [Late() for _ in jobs]

    def work() -> None:
        # Nothing is left where another thread was quicker, or the deadline passed.
        with suppress(IndexError):
            while True:
                index, job = waiting.popleft()
                try:
                    results[index] = job()
                except Exception as error:  # noqa: BLE001 - it is one of the results
                    results[index] = error

    threads = [Work(f"job-{number}", work) for number in range(min(workers, len(jobs)))]
    lacking: Exception = Late()
    for thread in threads:
        try:
            thread.result(deadline)
        except Late:
            break
        except NoThread as error:
            lacking = error
    else:
        # A thread that ends leaves nothing: what is left here had no thread.
        for index, _ in waiting:
            results[index] = lacking
    waiting.clear()
    return list(results)
