"""Progress for people: one line on stderr for work that takes more than a second, gone when it is done."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Final, TextIO

from nvattest.cli.terminal import is_terminal

_DELAY: Final = 1.0
_INTERVAL: Final = 0.25
_CLEAR: Final = "\r\x1b[K"


class Progress:
    """Say what is being waited for: ``with Progress("asking the RIM service") as progress: progress.update("3 of 7")``.

    Nothing is written before a second has passed, nothing where stderr is no terminal, and nothing stays behind.
    """

    def __init__(self, what: str, *, stream: TextIO | None = None, quiet: bool = False, delay: float = _DELAY) -> None:
        self._what = what
        self._detail = ""
        self._stream = sys.stderr if stream is None else stream
        self._shown = not quiet and is_terminal(self._stream)
        self._delay = delay
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._written = False

    def update(self, detail: str) -> None:
        """What is being done now, in a few words."""
        self._detail = detail

    def __enter__(self) -> Progress:
        if self._shown:
            self._thread = threading.Thread(target=self._run, name="nvattest-progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(1.0)
        if self._written:
            self._write(_CLEAR)

    def _run(self) -> None:
        start = time.monotonic()
        wait = self._delay
        while not self._done.wait(wait):
            wait = _INTERVAL
            seconds = time.monotonic() - start
            detail = f": {self._detail}" if self._detail else ""
            self._written = True
            self._write(f"{_CLEAR}{f'{self._what}{detail}'[:66]} ({seconds:.0f} s)")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # The terminal went away; the work goes on without it.
            self._shown = False
