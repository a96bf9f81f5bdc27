"""Standard streams that the caller closed.

Python has None in the place of such a stream, so that text for stderr would go to stdout, and the free number goes to
the next file that is opened, which then receives what a driver library prints. Both programs call this first.
"""

from __future__ import annotations

import io
import os
import sys

__all__ = ["open_closed_streams"]


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
