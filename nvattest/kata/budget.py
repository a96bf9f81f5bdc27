"""The time that a run has, and work that is given up when it is over.

A call that hangs cannot be interrupted. It runs in a daemon thread, and when its time is over the run goes on without
it; the process ends with ``os._exit``, which waits for nobody. Such work only ever gives back values: what it may
still do later is done to nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from nvattest.errors import CollectionError

__all__ = ["Budget", "give_up_after"]

T = TypeVar("T")

_FOR_COLLECTION: Final = 0.55
_FOR_VERIFICATION: Final = 0.2
_VERIFICATION_MOST: Final = 2.0
_CLOSING: Final = 1.0
_CLOSING_LEAST: Final = 0.2


class Budget:
    """``seconds`` from ``started`` (``time.monotonic``): the verdict has to be there by then.

    Collection may take a good half, collateral what is left but for the last fifth, which is kept for verification.
    After a failure a second more may go into taking the ready state away: a hook ends before the agent gives it up.
    """

    __slots__ = ("_at", "_started", "seconds")

    def __init__(self, seconds: float, *, started: float) -> None:
        self.seconds = seconds
        self._started = started
        self._at = started + seconds

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._at - time.monotonic())

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def for_collection(self) -> float:
        """Seconds that are left for asking the devices."""
        return max(0.0, self._started + _FOR_COLLECTION * self.seconds - time.monotonic())

    def for_collateral(self) -> float:
        """Seconds that are left for RIMs and revocation answers."""
        return max(0.0, self.remaining() - min(_FOR_VERIFICATION * self.seconds, _VERIFICATION_MOST))

    def for_closing(self) -> float:
        """Seconds that are left for taking the ready state away, which is tried however late it is."""
        return max(_CLOSING_LEAST, self._at + _CLOSING - time.monotonic())

    def require(self, what: str, seconds: float = 0.0) -> None:
        """Go on only while there is more time than this.

        Raises:
            CollectionError: there is not (``deadline``).
        """
        if self.remaining() <= seconds:
            raise _late(what, self.seconds)


def give_up_after(seconds: float, what: str, work: Callable[[], T]) -> T:
    """The result of ``work``, or its exception, within this time.

    Raises:
        CollectionError: it did not end in time (``deadline``).
    """
    result: list[T] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the thread that waits
            failure.append(error)
        done.set()

    threading.Thread(target=run, name=f"nvattest-{what}", daemon=True).start()
    if not done.wait(max(0.0, seconds)):
        raise _late(what, seconds)
    if failure:
        raise failure[0]
    return result[0]


def _late(what: str, seconds: float) -> CollectionError:
    return CollectionError(
        f"{what} did not end within {seconds:.3g} s",
        code="deadline",
        hint="give more time under [budget], or put the collateral into a bundle; --stage init has no limit of 10 s",
    )
