"""Reading JSON of strangers for display: every value has the type that is asked for, or is not there.

An explanation must come out of any file, so nothing here raises. Text is cleaned as it is read (``nvattest._text``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from nvattest._text import clean

JsonObject = Mapping[str, object]

MAXIMUM_ITEMS: Final = 4096
_EMPTY: Final[Mapping[str, object]] = {}


def text(source: JsonObject, key: str, default: str = "") -> str:
    """A text; numbers become text, anything else is ``default``."""
    value = source.get(key)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(value)
    return default


def number_text(value: float) -> str:
    """A number of JSON as text. A float that is endless or absurd is only named."""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else "a very long number"
    return f"{value:g}"


def flag(source: JsonObject, key: str) -> bool | None:
    """A boolean, or None where it is missing or something else: never a guess."""
    value = source.get(key)
    return value if isinstance(value, bool) else None


def number(source: JsonObject, key: str) -> int | None:
    """An integer, or None."""
    value = source.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def item(source: JsonObject, key: str) -> JsonObject:
    """An object; empty where it is missing or something else."""
    value = source.get(key)
    return value if isinstance(value, dict) else _EMPTY


def items(source: JsonObject, key: str) -> tuple[JsonObject, ...]:
    """The objects of an array, others left out."""
    value = source.get(key)
    if not isinstance(value, list):
        return ()
    return tuple(member for member in value[:MAXIMUM_ITEMS] if isinstance(member, dict))


def texts(source: JsonObject, key: str) -> tuple[str, ...]:
    """The texts of an array, others left out."""
    value = source.get(key)
    if not isinstance(value, list):
        return ()
    return tuple(clean(member) for member in value[:MAXIMUM_ITEMS] if isinstance(member, str))


def common_name(name: str) -> str:
    """The CN of an RFC 4514 name, or the whole name. For display only: escapes are kept as they are."""
    part = ""
    parts: list[str] = []
    escaped = False
    for sign in name:
        if sign == "," and not escaped:
            parts.append(part)
            part = ""
            continue
        escaped = sign == "\\" and not escaped
        part += sign
    parts.append(part)
    return next((entry[3:] for entry in parts if entry.startswith("CN=")), name)


def listed(words: Sequence[str], *, maximum: int = 6) -> str:
    """``a, b and c``; more than ``maximum`` are counted."""
    if len(words) > maximum:
        return f"{', '.join(words[:maximum])} and {len(words) - maximum} more"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))
