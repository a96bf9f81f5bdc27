"""The time that a run has, and what of it each phase may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from nvattest._waiting import Deadline, Late, Work
from nvattest.errors import CollectionError

__all__ = ["Budget", "closing_seconds", "give_up_after"]

T = TypeVar("T")

_KEPT: Final = 0.2
_KEPT_MOST: Final = 2.0
_CLOSING: Final = 1.0
_CLOSING_SHARE: Final = 0.1
_CLOSING_LEAST: Final = 0.2


class Budget(Deadline):
    """``seconds`` from ``started`` (``time.monotonic``): the verdict has to be there by then.

    Each phase may take what is left but for a fifth, two seconds at most, which is kept for those that come after it. A
    wait that ended before a phase began takes nothing from it but time.
    After a failure a second more may go into taking the ready state away, since a hook ends before the agent gives it
    up; without an agent (``closing``) a tenth of the budget, for drivers that are slow.
    """

    __slots__ = ("_closing", "_started")

    def __init__(self, seconds: float, *, started: float, closing: float = _CLOSING) -> None:
        super().__init__(seconds, since=started)
        self._started = started
        self._closing = closing

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def for_phase(self) -> float:
        """Seconds that a phase which begins now may take."""
        left = self.remaining()
        return left - min(_KEPT * left, _KEPT_MOST)

    def for_closing(self) -> float:
        """Seconds that are left for taking the ready state away, which is tried however late it is."""
        return max(_CLOSING_LEAST, self.at + self._closing - time.monotonic())

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
    try:
        return Work(what, work).result(Deadline(seconds))
    except Late:
        raise _late(what, seconds) from None


def _late(what: str, seconds: float) -> CollectionError:
    return CollectionError(
        f"{what} did not end within {seconds:.3g} s",
        code="deadline",
        hint="give more time under [budget], or put the collateral into a bundle; --stage init has no limit of 10 s",
    )


def closing_seconds(budget: float, *, agent: bool) -> float:
    """How long taking the ready state away may take, of a run with this budget, under an ``agent`` or without one."""
    return _CLOSING if agent else max(_CLOSING, _CLOSING_SHARE * budget)
