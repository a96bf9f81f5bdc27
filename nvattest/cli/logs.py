"""What the loggers ``nvattest.*`` say, on stderr: every line with ``-l debug``, else only what takes over a second."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType
from typing import Final

from nvattest._text import clean
from nvattest.cli.output import is_terminal, say

_LOGGER: Final = "nvattest"
_DELAY: Final = 1.0
_INTERVAL: Final = 0.25
# Without a terminal a line cannot be overwritten.
_LINE_INTERVAL: Final = 5.0
_CLEAR: Final = "\r\x1b[K"


class Logged(logging.Handler):
    """Show log records while a command runs: ``with Logged(debug=False): ...``.

    On a terminal the waits share one line, which is erased when they end. No line is written within the first second
    of a wait.
    """

    def __init__(self, *, debug: bool, delay: float = _DELAY) -> None:
        super().__init__(logging.DEBUG)
        self._debug = debug
        self._delay = delay
        self._level = logging.NOTSET
        self._waits: dict[object, tuple[float, str]] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._written = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, or note that a wait begins or ends."""
        message = record.getMessage()
        if self._debug:
            seconds = time.strftime("%H:%M:%S", time.localtime(record.created))
            say(f"{seconds}.{int(record.msecs):03d} {record.name}: {clean(message)}", error=True)
            return
        wait = getattr(record, "wait", None)
        if wait is None:
            return
        if getattr(record, "over", True):
            self._waits.pop(wait, None)
            return
        self._waits[wait] = (time.monotonic(), clean(message, 200))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="nvattest-progress", daemon=True)
            self._thread.start()

    def __enter__(self) -> Logged:
        logger = logging.getLogger(_LOGGER)
        self._level = logger.level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        logger = logging.getLogger(_LOGGER)
        logger.removeHandler(self)
        logger.setLevel(self._level)
        self._over.set()
        if self._thread is not None:
            self._thread.join(1.0)
        self._erase()

    def _run(self) -> None:
        terminal = is_terminal(sys.stderr)
        interval = _INTERVAL if terminal else min(_LINE_INTERVAL, max(self._delay, _INTERVAL))
        while not self._over.wait(interval):
            now = time.monotonic()
            slow = sorted(item for item in list(self._waits.values()) if now - item[0] >= self._delay)
            if not slow:
                self._erase()
                continue
            began, what = slow[0]
            more = f" and {len(slow) - 1} more" if len(slow) > 1 else ""
            line = f"waiting for {what[:56]}{more} ({now - began:.0f} s)"
            self._write(f"{_CLEAR}{line}" if terminal else f"{line}\n")
            self._written = terminal

    def _erase(self) -> None:
        if self._written:
            self._written = False
            self._write(_CLEAR)

    @staticmethod
    def _write(text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            # The terminal went away; the work goes on without it.
            return
