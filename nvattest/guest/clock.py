"""The guest's clock comes from the host. It may be late for a moment, and it is never before this program was made."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Final

from nvattest.errors import InputError
from nvattest.model import VerificationTime, format_time, parse_time

__all__ = ["EARLIEST", "wait_for_clock"]

EARLIEST: Final = "2026-11-01T00:00:00Z"
"""No clock that shows an earlier instant is right: the program is younger. An image may name a later one.

``nvattest doctor`` and the build of the guest layer take it from here.
"""

_POLL: Final = 0.05


def wait_for_clock(not_before: str | None, seconds: float) -> VerificationTime:
    """The time now, once the clock shows an instant that can be; nonces and signatures need no clock, validity does.

    Raises:
        InputError: it does not within this time (``clock``).
    """
    earliest = max(parse_time(EARLIEST), parse_time(not_before or EARLIEST))
    until = time.monotonic() + seconds
    while True:
        now = datetime.now(timezone.utc)
        if now >= earliest:
            return VerificationTime.at(now)
        if time.monotonic() >= until:
            behind = (earliest - now).total_seconds()
            raise InputError(
                f"the guest's clock shows {format_time(now)}, at least {behind:.0f} s behind: this program's image was "
                f"made at or after {format_time(earliest)}",
                code="clock",
                hint="let the guest set its clock first (order after time-sync.target), or look at the host's clock",
            )
        time.sleep(_POLL)
