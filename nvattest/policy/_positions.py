"""Where in a policy's text a key stands, so that an error can name its line and column.

The text was read by a strict parser before; these scanners only find places in it and decide nothing.
"""

from __future__ import annotations

import re
from typing import Final

Path = tuple[str | int, ...]

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_LONGEST: Final = 256
_KEY: Final = r"^[ \t]*(?:\[+[ \t]*)?(?:\"{0}\"|'{0}'|{0})(?=[ \t]*[=.\]])"


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """The place of a character, both counted from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def json_positions(text: str) -> dict[Path, int]:
    """The offset of each key and each array element of a JSON text that is known to be well formed."""
    import json

    found: dict[Path, int] = {}
    # One entry for each open container: the key or index that the scanner is at; None where a key comes next.
    stack: list[str | int | None] = []
    for match in _TOKEN.finditer(text):
        sign = match.group()
        if sign in "}]":
            stack.pop()
        elif sign == ",":
            top = stack[-1]
            stack[-1] = top + 1 if isinstance(top, int) else None
        elif sign != ":":
            if stack and stack[-1] is None and sign[0] == '"':
                stack[-1] = json.loads(sign)
                found[_path(stack)] = match.start()
                continue
            if stack and isinstance(stack[-1], int):
                found[_path(stack)] = match.start()
            if sign == "{":
                stack.append(None)
            elif sign == "[":
                stack.append(0)
    return found


def _path(stack: list[str | int | None]) -> Path:
    return tuple(item for item in stack if item is not None)


def toml_position(text: str, key: str) -> int | None:
    """The offset of a key at the start of a line of a TOML text, or None; nobody looks for a very long one."""
    if len(key) > _LONGEST:
        return None
    match = re.search(_KEY.format(re.escape(key)), text, re.MULTILINE)
    if match is None:
        return None
    start = match.start()
    return start + len(match.group()) - len(match.group().lstrip())
