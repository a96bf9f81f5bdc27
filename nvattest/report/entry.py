"""What an entry of the catalogue is: a code, a check or an error word, with its meaning, causes and remedies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KINDS: Final = ("check", "code", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One page of the catalogue.

    ``key`` is what people type, ``name`` what programs compare, ``covers`` further words that lead here. ``phrases``
    are parts of other programs' messages: a line that has one of them leads here. An action that begins with ``$ `` is
    a command.
    """

    kind: str
    key: str
    name: str
    title: str
    meaning: str
    causes: tuple[str, ...]
    actions: tuple[str, ...]
    see: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
