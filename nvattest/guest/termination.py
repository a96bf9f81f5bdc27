"""SIGTERM, SIGINT and SIGHUP as an exception: one more way out, which leaves the GPUs not ready like the others.

The handlers are there from the program's first lines on. A signal raises where the run waits and where it attests. It
is only noted elsewhere: an import that is broken off may not succeed a second time, and a run near its end comes to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, final

if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import FrameType, TracebackType
else:
    # The C module below ``signal``, whose enums cost the fast path a millisecond.
    import _signal

T = TypeVar("T")

_SIGNALS: Final = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)


class TerminatedError(BaseException):
    """A signal asked the process to end. Not an Exception, so that no handler below swallows it."""


@final
class Termination:
    """The signals of a process, inside ``with``. Only the main thread gets any; elsewhere none is ever seen.

    ``asked`` says whether one came, whatever was done about it.
    """

    __slots__ = ("_armed", "_before", "asked")

    def __init__(self) -> None:
        self.asked = False
        self._armed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Termination:
        try:
            self._before = {number: _signal.signal(number, self._handle) for number in _SIGNALS}
        except ValueError:
            # Not the main thread.
            self._before = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Put the earlier handlers back: from here on a signal does what it does to any program."""
        self._armed = False
        before, self._before = self._before, {}
        for number, handler in before.items():
            # None: a handler that Python did not set and cannot put back.
            _signal.signal(number, _signal.SIG_DFL if handler is None else handler)

    def arm(self) -> None:
        """From here on a signal raises, once; at once if one came already.

        Raises:
            TerminatedError: a signal came.
        """
        self._armed = True
        if self.asked:
            self._armed = False
            raise TerminatedError

    def over(self) -> None:
        """From here on a signal is only noted."""
        self._armed = False

    def wait(self, work: Callable[[], T]) -> T | None:
        """The result of work that waits for something; None, without waiting on, once a signal came."""
        try:
            self.arm()
            result = work()
            self.over()
        except TerminatedError:
            return None
        return result

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's arguments
        self.asked = True
        if self._armed:
            self._armed = False
            raise TerminatedError
