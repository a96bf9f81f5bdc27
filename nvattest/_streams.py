"""Standard streams that the caller closed, and a stdout whose reader has gone.

Python has None in the place of a closed stream, so that text for stderr would go to stdout, and the free number goes to
the next file that is opened, which then receives what a driver library prints. Every program calls
``open_closed_streams`` first.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

__all__ = ["give_up_stdout", "open_closed_streams", "write_utf_8"]


def open_closed_streams() -> None:
    """Put the null device in the place of each standard stream that is closed; a command that is run has it closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                # The lowest free number: that of the closed stream.
                stream = open(os.devnull, "w" if number else "r", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            except OSError:
                # A guest whose /dev is not there yet.
                stream = io.StringIO()  # type: ignore[assignment]
            setattr(sys, name, stream)


def write_utf_8() -> None:
    """Let stdout be UTF-8 where it is a file or a pipe, as JSON has to be.

    On Windows it would have an encoding of its own, in which no JSON can be read back. ``PYTHONIOENCODING`` stands.
    """
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and not sys.stdout.isatty() and not os.environ.get("PYTHONIOENCODING"):
        reconfigure(encoding="utf-8")


def give_up_stdout() -> None:
    """After a failed write: let the interpreter not try again to write what is left, and complain at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
