"""One deadline for everything that a gathering does: requests, retries, backoff and waiting for threads."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from nvattest.errors import InputError


class Deadline:
    """An instant on the monotonic clock, ``seconds`` from now.

    Raises:
        InputError: ``seconds`` is not a positive number.
    """

    __slots__ = ("_at", "_clock", "seconds")

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not (math.isfinite(seconds) and 0 < seconds <= threading.TIMEOUT_MAX / 2):
            raise InputError(f"not a time limit: {seconds!r}", code="timeout", hint="give a positive number of seconds")
        self.seconds = seconds
        self._clock = clock
        self._at = clock() + seconds

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._at - self._clock())

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() <= 0.0
