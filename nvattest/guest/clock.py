"""Time in a run: the instant that the guest's clock shows, and the seconds that the run and its phases have.

The clock comes from the host. It may be late for a moment, and it is never before this program was made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Final, TypeVar

from nvattest._waiting import Deadline, Late, Work
from nvattest.errors import CollectionError, InputError
from nvattest.model import VerificationTime, format_time, parse_time

T = TypeVar("T")

EARLIEST: Final = "2026-11-01T00:00:00Z"
"""No clock that shows an earlier instant is right: the program is younger. An image may name a later one.

``nvattest doctor`` and the build of the guest layer take it from here.
"""

_POLL: Final = 0.05
_KEPT: Final = 0.2
_KEPT_MOST: Final = 2.0
_CALL_LEAST: Final = 0.05
_CLOSING_LEAST: Final = 0.2


def wait_for_clock(not_before: str | None, seconds: float) -> VerificationTime:
    """The time now, once the clock shows an instant that can be.

    Raises:
        InputError: it does not within this time (``clock``).
    """
    earliest = max(parse_time(EARLIEST), parse_time(not_before or EARLIEST))
    deadline = Deadline(seconds)
    while True:
        now = datetime.now(timezone.utc)
        if now >= earliest:
            return VerificationTime.at(now)
        if deadline.passed:
            behind = (earliest - now).total_seconds()
            raise InputError(
                f"the guest's clock shows {format_time(now)}, at least {behind:.0f} s behind: this program's image was "
                f"made at or after {format_time(earliest)}",
                code="clock",
                hint="let the guest set its clock first (order after time-sync.target), or look at the host's clock",
            )
        time.sleep(_POLL)


class Budget(Deadline):
    """``seconds`` from ``started`` (``time.monotonic``): the verdict has to be there by then.

    A phase may take what is left when it begins, less a fifth (two seconds at most) for those after it. After a failure
    ``closing`` seconds more may go into taking the ready state away (``Settings.closing``).
    """

    __slots__ = ("_closing", "_started")

    def __init__(self, seconds: float, *, started: float, closing: float = 0.0) -> None:
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

    def for_call(self) -> float:
        """Those of a phase that is one call of the driver, which is tried however late it is."""
        return max(_CALL_LEAST, self.for_phase())

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
