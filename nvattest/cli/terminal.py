"""What this process may write to its terminal: colour, signs and width, from the stream and the environment."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

from nvattest.cli.arguments import choice

if TYPE_CHECKING:
    import argparse

    from nvattest.report.terminal import Terminal

MINIMUM, MAXIMUM = 60, 120


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
    if width is None:
        width = shutil.get_terminal_size((80, 24)).columns if tty else 80
        width = min(width, MAXIMUM)
    return Terminal(width=max(MINIMUM, width), color=wants_color(stream, color), unicode=shows_unicode(stream))


def wants_color(stream: TextIO, choice: str = "auto") -> bool:
    """Whether to use colour: as asked, else on a terminal that has it. NO_COLOR (no-color.org) is respected."""
    if choice != "auto":
        return choice == "always"
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """Whether a person sits at the other end."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        # No stream at all, or a closed one.
        return False


def shows_unicode(stream: TextIO) -> bool:
    """Whether the locale of ``stream`` has the signs that we use."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower()
    if encoding.replace("-", "").replace("_", "") != "utf8":
        return False
    # Python writes UTF-8 even in the C locale (PEP 538, 540); the terminal behind it need not show it.
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    return not is_terminal(stream) or locale.split(".")[0] not in ("", "C", "POSIX") or "utf" in locale.lower()
