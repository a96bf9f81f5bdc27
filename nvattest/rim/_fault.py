"""The one way in which this room refuses a document: a ParseError with a code of its own and NVIDIA's number 106."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvattest.errors import ParseError, ResultCode

if TYPE_CHECKING:
    from lxml.etree import _Element

SOURCE = "RIM"

_HINT = "fetch the RIM again from its service; a document changed on its way no longer follows the profile"


def fault(message: str, code: str, *, offset: int | None = None, at: _Element | None = None) -> ParseError:
    """A ParseError about a RIM. ``offset`` counts bytes from its start; ``at`` is the element, told by its line."""
    line: object = None if at is None else at.sourceline
    where = f"line {line}: " if isinstance(line, int) else ""
    return ParseError(
        where + message,
        source=SOURCE,
        offset=offset,
        code=code,
        result_code=ResultCode.RIM_INVALID_SCHEMA,
        hint=_HINT,
    )
