"""Text for a terminal: colour only where it is wanted, signs that the locale can show, lines that fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from nvattest._text import joined

_COLOURS: Final = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1", "accent": "36"}
_ASCII: Final = {
    "…": "~", "–": "-", "—": "-", "·": "-", "✓": "+", "✗": "X", "○": "o", "└": "`", "├": "|", "─": "-",
    "│": "|", "━": "=", "→": "->", "‖": "|", "●": "+", "▲": "!", "§": "S", "‘": "'", "’": "'",
    "“": '"', "”": '"',
}  # fmt: skip


class Terminal(NamedTuple):
    """How to write: columns, colour or not, Unicode or plain ASCII."""

    width: int = 80
    color: bool = False
    unicode: bool = True

    def paint(self, text: str, *styles: str) -> str:
        """``text`` in these styles, where there is colour."""
        if not self.color or not text:
            return text
        codes = ";".join(_COLOURS[style] for style in styles if style in _COLOURS)
        return f"\x1b[{codes}m{text}\x1b[0m" if codes else text

    def sign(self, unicode: str, plain: str) -> str:
        return unicode if self.unicode else plain

    def rule(self) -> str:
        return self.paint(self.sign("─", "-") * self.width, "dim")

    def wrap(self, text: str, *, first: str = "", rest: str | None = None, style: str = "") -> list[str]:
        """``text`` in lines that fit, with these indents (which hold no colour), each line in ``style``."""
        import textwrap

        indent = " " * len(first) if rest is None else rest
        lines = textwrap.wrap(
            text, max(24, self.width), initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
        ) or [first.rstrip()]
        return [self.paint(line, *style.split()) for line in lines] if style else lines

    def heading(self, title: str, note: str = "") -> list[str]:
        """A title with a rule below it."""
        head = self.paint(title, "bold") + (f"  {self.paint(note, 'dim')}" if note else "")
        return [head, self.rule()]

    def points(self, texts: Iterable[str], *, indent: str) -> list[str]:
        """Texts one below the other. Commands, which begin with ``$ ``, stay one line, to be copied."""
        found = []
        for text in texts:
            command = text.startswith("$ ")
            found += [indent + self.paint(text, "accent")] if command else self.wrap(text, first=f"{indent}- ")
        return found

    def hex(self, name: str, value: str, *, indent: str, lines: int) -> list[str]:
        """A long value in rows of whole groups of 16 digits, at most ``lines`` of them."""
        lead = indent + name
        size = max(16, (self.width - len(lead)) // 16 * 16)
        parts = [value[start : start + size] for start in range(0, len(value), size)][:lines] or [""]
        return [lead + parts[0], *(" " * len(lead) + part for part in parts[1:])]

    def finish(self, lines: list[str]) -> str:
        """The lines as one text that the locale can show and that holds no control but our colours."""
        text = joined([line.rstrip() for line in lines], colour=self.color)
        if self.unicode:
            return text
        for sign, plain in _ASCII.items():
            text = text.replace(sign, plain)
        return "".join(sign if ord(sign) < 128 else "?" for sign in text)


def columns(text: str) -> int:
    """How many columns a text takes, colour codes not counted."""
    import unicodedata

    count, escape = 0, False
    for sign in text:
        if escape:
            escape = sign != "m"
        elif sign == "\x1b":
            escape = True
        elif not unicodedata.combining(sign):
            count += 2 if unicodedata.east_asian_width(sign) in "WF" else 1
    return count


def fit(text: str, width: int) -> str:
    """``text`` in exactly ``width`` columns: padded, or cut in the middle, where names differ least."""
    if len(text) > width:
        head = (width - 1) // 2 + 3
        text = text[: max(0, width - 1)] + "…" if width < 12 else f"{text[:head]}…{text[-(width - 1 - head) :]}"
    return text + " " * (width - len(text))


def listed(words: Sequence[str], *, maximum: int = 6) -> str:
    """``a, b and c``; more than ``maximum`` are counted."""
    if len(words) > maximum:
        return f"{', '.join(words[:maximum])} and {len(words) - maximum} more"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))
