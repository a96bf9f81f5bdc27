"""SIGTERM, SIGINT and SIGHUP as an exception: one more way out, which leaves the GPUs not ready like the others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, final

__all__ = ["TerminatedError", "Termination", "termination_raises"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class TerminatedError(BaseException):
    """A signal asked the process to end. Not an Exception: nobody below may swallow it."""


@final
class Termination:
    """Says when a signal no longer counts: once the verdict is on disk, or once it is being cleaned up."""

    __slots__ = ("_over",)

    def __init__(self) -> None:
        self._over = False

    def over(self) -> None:
        """From here on the run comes to its own end, which is near."""
        self._over = True

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's arguments
        """Raise, once."""
        if not self._over:
            self._over = True
            raise TerminatedError


@contextmanager
def termination_raises() -> Iterator[Termination]:
    """Turn the signals into ``TerminatedError`` in the main thread; elsewhere they stay what they are."""
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return
    before = {number: signal.signal(number, termination.handle) for number in _SIGNALS}
    try:
        yield termination
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
