"""TOML from people and strangers: bounded in cost, with the place of the fault as ``_json`` gives an offset."""

from __future__ import annotations

import re
import sys
from typing import Final

from nvattest.errors import ParseError, ResultCode

# A list of 64 VBIOS versions on one line has 256 dots, and there are two such lists.
_MAXIMUM_DOTS: Final = 4 * 256**2
# The hook's configuration has ten tables, and a policy none.
_MAXIMUM_TABLES: Final = 256
_PLACE: Final = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


def load_toml(
    data: bytes,
    *,
    source: str,
    maximum: int,
    result_code: ResultCode = ResultCode.BAD_ARGUMENT,
) -> dict[str, object]:
    """Read one TOML document.

    Raises:
        ParseError: too large, not UTF-8, not TOML, nested too deeply, or keys whose reading would cost too much.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

    def fail(message: str, code: str, offset: int | None = None) -> ParseError:
        return ParseError(message, source=source, offset=offset, code=code, result_code=result_code)

    if len(data) > maximum:
        raise fail(f"{len(data)} bytes, at most {maximum} are read", "too-large")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fail("not UTF-8", "encoding", error.start) from None
    # Dotted keys cost the square of their length, and tables far more than their few bytes.
    lines = text.splitlines()
    if sum(line.count(".") ** 2 for line in lines) > _MAXIMUM_DOTS:
        raise fail("keys of far too many parts", "too-large")
    if sum(line.lstrip().startswith("[") for line in lines) > _MAXIMUM_TABLES:
        raise fail(f"more than {_MAXIMUM_TABLES} tables", "too-large")
    try:
        document: dict[str, object] = tomllib.loads(text)
    except RecursionError:
        raise fail("nested too deeply", "toml") from None
    except ValueError as error:
        # TOMLDecodeError is a ValueError; an integer of thousands of digits is another.
        match = _PLACE.match(str(error))
        where = "" if match is None or match[2] is None else f"line {match[2]}, column {match[3]}: "
        raise fail(f"{where}not TOML: {match[1] if match else error}"[:300], "toml") from None
    return document
