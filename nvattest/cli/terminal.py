"""The terminal of this process: its colours, signs and width, and one line of progress on stderr."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, TextIO

from nvattest.cli.arguments import choice

if TYPE_CHECKING:
    import argparse

    from nvattest.report.terminal import Terminal

_MINIMUM: Final = 60
_MAXIMUM: Final = 120
_DELAY: Final = 1.0
_INTERVAL: Final = 0.25
_CLEAR: Final = "\r\x1b[K"


def add_terminal_options(parser: argparse.ArgumentParser) -> None:
    """``--color`` and ``--width``."""
    group = parser.add_argument_group("terminal")
    group.add_argument(
        "--color", type=choice("auto", "always", "never"), default="auto", metavar="WHEN",
        help="auto (the default: on a terminal, unless NO_COLOR is set), always or never",
    )  # fmt: skip
    group.add_argument(
        "--width", type=int, default=None, metavar="COLUMNS", help="columns; 80 where there is no terminal"
    )


def terminal_for(stream: TextIO | None = None, *, color: str = "auto", width: int | None = None) -> Terminal:
    """How to write to ``stream`` (stdout by default): 80 columns, plain and without colour where it is no terminal."""
    from nvattest.report.terminal import Terminal

    stream = sys.stdout if stream is None else stream
    tty = is_terminal(stream)
    if width is None and tty:
        import shutil

        width = min(shutil.get_terminal_size((80, 24)).columns, _MAXIMUM)
    elif width is None:
        width = 80
    return Terminal(width=max(_MINIMUM, width), color=wants_color(stream, color), unicode=shows_unicode(stream))


def wants_color(stream: TextIO, choice: str = "auto") -> bool:
    """Whether to use colour: as asked, else on a terminal that has it. NO_COLOR (no-color.org) is respected."""
    if choice != "auto":
        return choice == "always"
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal; a missing or closed one is none."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def shows_unicode(stream: TextIO) -> bool:
    """Whether the locale of ``stream`` has the signs that we use."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower()
    if encoding.replace("-", "").replace("_", "") != "utf8":
        return False
    # Python writes UTF-8 even in the C locale (PEP 538, 540); the terminal behind it need not show it.
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    return not is_terminal(stream) or locale.split(".")[0] not in ("", "C", "POSIX") or "utf" in locale.lower()


class Progress:
    """Show what the program waits for: ``with Progress("asking the service") as progress: progress.update("3 of 7")``.

    It writes nothing within the first second and nothing where stderr is no terminal, and erases its line at the end.
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
        """Show the current step, in a few words."""
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
