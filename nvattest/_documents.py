"""Untrusted bytes, JSON and TOML, read within bounds and with the place of a fault; JSON and metrics as output.

Bytes are read by a cursor. JSON has no repeated keys, no NaN and no deep nesting here; TOML no keys whose reading would
cost too much.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import inf, isfinite
from typing import Final, NamedTuple

from nvattest._text import clean, escaped
from nvattest.errors import InputError, ParseError, ResultCode

JsonObject = dict[str, object]
JsonPath = tuple[str | int, ...]

# An empty array takes two bytes of text and thirty times as much memory. The largest useful document, a full bundle,
# has some 50,000 values.
MAXIMUM_VALUES: Final = 131_072

# A list of 64 VBIOS versions on one line has 256 dots, and there are two such lists.
_MAXIMUM_DOTS: Final = 4 * 256**2
# The hook's configuration has ten tables, and a policy none.
_MAXIMUM_TABLES: Final = 256
_CANONICAL_DEPTH: Final = 32
_SAFE_INTEGER: Final = 2**53 - 1
# How the TOML reader names a place in its messages.
_PLACE: Final = r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$"
# The signs of a JSON text, and a TOML key at the start of its line.
_JSON_SIGNS: Final = r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+'
_TOML_KEY: Final = r"^[ \t]*(?:\[+[ \t]*)?(?:\"{0}\"|'{0}'|{0})(?=[ \t]*[=.\]])"
_LONGEST_KEY: Final = 256

# Versions of Python differ in how deep their reader goes, some beyond what their writer can follow. The deepest useful
# document, a token in a service's answer, has some 10 levels.
MAXIMUM_DEPTH: Final = 100

# The byte order marks of files, and what follows them.
_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


class Cursor:
    """Read fields from bytes, front to back; every read past the end is a ParseError with its offset.

    Integers are little-endian, as in SPDM (DSP0274).

    ``origin`` is added to offsets, so that a cursor over a part still reports positions in the whole.
    """

    __slots__ = ("_data", "_origin", "_result_code", "_source", "position")

    def __init__(
        self, data: bytes, *, source: str, origin: int = 0, result_code: ResultCode = ResultCode.EVIDENCE_MALFORMED
    ) -> None:
        self._data = data
        self._origin = origin
        self._source = source
        self._result_code = result_code
        self.position = 0

    @property
    def offset(self) -> int:
        """The position in the whole source."""
        return self._origin + self.position

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self.position

    def take(self, size: int, name: str) -> bytes:
        """The next ``size`` bytes, which are called ``name`` in the error."""
        if size < 0:
            # A length computed from untrusted lengths; going backwards would read bytes twice.
            raise self.error(f"{name} has the impossible size {size}", code="length")
        end = self.position + size
        if end > len(self._data):
            raise self.error(f"{name} needs {size} bytes, {self.remaining} are left", code="truncated")
        value = self._data[self.position : end]
        self.position = end
        return value

    def uint(self, size: int, name: str) -> int:
        """An unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size, name), "little")

    def finish(self, name: str) -> None:
        """Refuse bytes that nothing has read."""
        if self.remaining:
            raise self.error(f"{self.remaining} stray bytes after {name}", code="stray-bytes")

    def error(self, message: str, *, code: str, back: int = 0) -> ParseError:
        """A ParseError at the present offset, or ``back`` bytes before it."""
        return ParseError(
            message, source=self._source, offset=self.offset - back, code=code, result_code=self._result_code
        )


def load_json(
    data: bytes | str,
    *,
    source: str,
    maximum: int,
    result_code: ResultCode = ResultCode.BAD_ARGUMENT,
    file: bool = False,
    repeated: list[str] | None = None,
) -> object:
    """Read one JSON document. Integers stay integers up to 19 digits; longer ones are refused.

    ``file``: the bytes are those of a file that a person made, which may begin with a byte order mark and then be
    UTF-8 or UTF-16 (what PowerShell's ``>`` writes). Services and signed documents use UTF-8 (RFC 8259, 8.1).

    ``repeated``: a list for a document that nothing signs. It gets the keys that an object has twice with one value, a
    text, a number, a boolean or null, which are then no error.

    Raises:
        ParseError: too large, too many values, another encoding, not JSON, a key twice in one object, NaN or Infinity,
            nested too deeply.
    """
    fail = partial(ParseError, source=source, result_code=result_code)

    def unique(pairs: list[tuple[str, object]]) -> JsonObject:
        members: JsonObject = {}
        for key, value in pairs:
            if key in members and repeated is not None and _is_repeated(members[key], value):
                repeated.append(key)
            elif key in members:
                raise fail(f"the key {key[:80]!r} appears twice in one object", code="duplicate-key")
            members[key] = value
        return members

    def integer(text: str) -> int:
        if len(text) > 20:
            raise fail(f"a number of {len(text)} digits", code="json")
        return int(text)

    def fraction(text: str) -> float:
        value = float(text)
        if value in (inf, -inf):
            raise fail(f"a number that is too large: {text[:40]}", code="json")
        return value

    def no_constant(text: str) -> object:
        raise fail(f"not JSON: {text}", code="json")

    if len(data) > maximum:
        raise fail(f"{len(data)} bytes, at most {maximum} are read", code="too-large")
    encoding, start = _encoding(data) if file and isinstance(data, bytes) else ("utf-8", 0)
    # A program, and no command, hands over the text of a person's file; it may be the file's name by mistake.
    hint = "give the text itself, not the name of its file" if file and isinstance(data, str) else ""
    if isinstance(data, bytes):
        try:
            data = data[start:].decode(encoding)
        except UnicodeDecodeError as error:
            raise fail(f"not {encoding.upper()}", code="json", offset=start + error.start) from None
    # Count separators, in texts too, before the reader builds anything; a short document cannot have too many.
    if len(data) > MAXIMUM_VALUES and data.count(",") + data.count("[") + data.count("{") > MAXIMUM_VALUES:
        raise fail(f"more than {MAXIMUM_VALUES} values", code="too-large")
    try:
        document: object = json.loads(
            data, object_pairs_hook=unique, parse_int=integer, parse_float=fraction, parse_constant=no_constant
        )
    except json.JSONDecodeError as error:
        offset = start + len(data[: error.pos].encode(encoding, "surrogatepass"))
        raise fail(f"not JSON: {error.msg}", code="json", offset=offset, hint="" if offset else hint) from None
    except RecursionError:
        raise fail("nested too deeply", code="json") from None
    if _is_deep(document):
        raise fail("nested too deeply", code="json")
    return document


def _is_repeated(first: object, second: object) -> bool:
    return type(first) is type(second) and not isinstance(first, dict | list) and first == second


def _is_deep(document: object) -> bool:
    level = [document]
    for _ in range(MAXIMUM_DEPTH + 1):
        inner = [
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        ]
        if not inner:
            return False
        level = [value for values in inner for value in values]
    return True


def file_text(data: bytes) -> bytes | str:
    """The text of a file that begins with a byte order mark, as ``load_json`` reads files; other bytes as they are."""
    encoding, start = _encoding(data)
    try:
        return data[start:].decode(encoding) if start else data
    except UnicodeDecodeError:
        return data


def _encoding(data: bytes) -> tuple[str, int]:
    """The encoding that a file's byte order mark names, UTF-8 without one, and the length of the mark."""
    return next(((name, len(mark)) for mark, name in _MARKS if data.startswith(mark)), ("utf-8", 0))


def load_toml(
    data: bytes, *, source: str, maximum: int, result_code: ResultCode = ResultCode.BAD_ARGUMENT
) -> dict[str, object]:
    """Read one TOML document: not too large or deep, UTF-8, and without keys whose reading would cost too much."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

    fail = partial(ParseError, source=source, result_code=result_code)
    if len(data) > maximum:
        raise fail(f"{len(data)} bytes, at most {maximum} are read", code="too-large")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fail("not UTF-8", code="encoding", offset=error.start) from None
    # Dotted keys cost the square of their length, and tables far more than their few bytes.
    lines = text.splitlines()
    if sum(line.count(".") ** 2 for line in lines) > _MAXIMUM_DOTS:
        raise fail("keys of far too many parts", code="too-large")
    if sum(line.lstrip().startswith("[") for line in lines) > _MAXIMUM_TABLES:
        raise fail(f"more than {_MAXIMUM_TABLES} tables", code="too-large")
    try:
        document: dict[str, object] = tomllib.loads(text)
    except RecursionError:
        raise fail("nested too deeply", code="toml") from None
    except ValueError as error:
        # TOMLDecodeError is a ValueError; an integer of thousands of digits is another.
        match = re.match(_PLACE, str(error), re.DOTALL)
        where = "" if match is None or match[2] is None else f"line {match[2]}, column {match[3]}: "
        raise fail(f"{where}not TOML: {match[1] if match else error}"[:300], code="toml") from None
    return document


def dump_json(value: object) -> str:
    """JSON for people and for comparison: four spaces, sorted keys, as NVIDIA's tools print it; safe on a terminal."""
    return escaped(json.dumps(value, indent=4, sort_keys=True, ensure_ascii=False))


Samples = Sequence[tuple[float, Mapping[str, str]]]


class Metric(NamedTuple):
    """A gauge with its samples, each a value and its labels. By convention a name ends in its unit."""

    name: str
    help: str
    samples: Samples


def dump_metrics(metrics: Iterable[Metric]) -> str:
    """Gauges in Prometheus's text format; one without samples is left out, since its value is not known."""

    def quoted(text: str) -> str:
        return clean(text).replace("\\", r"\\").replace('"', r"\"")

    lines = []
    for name, text, samples in metrics:
        if samples:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for value, labels in samples:
            pairs = ",".join(f'{key}="{quoted(label)}"' for key, label in labels.items())
            lines.append(f"{name}{{{pairs}}} {value:.15g}" if pairs else f"{name} {value:.15g}")
    return "".join(f"{line}\n" for line in lines)


def kind_of(value: object) -> str:
    """What a value of JSON or TOML is, in words for error messages."""
    if type(value).__module__ == "datetime":
        return "a date or a time"
    names: dict[type, str] = dict.fromkeys((int, float), "a number")
    names |= {dict: "an object", list: "an array", str: "a text", bool: "a boolean"}
    # A program may hand over what no JSON holds.
    if hasattr(value, "__fspath__"):
        return f"the name of a file ({type(value).__name__}) and not what is in it"
    return "null" if value is None else names.get(type(value), f"a value of type {type(value).__name__}")


# --- JSON in the canonical form of RFC 8785 ---------------------------------------------------------------------------


def canonical_json(value: object) -> bytes:
    """JSON in the canonical form of RFC 8785 (JCS), UTF-8.

    Raises:
        InputError: a value that JSON does not have, a key that is no text, a number that is not finite or, as an
            integer, beyond 2^53 - 1, a lone surrogate, or more than 32 levels.
    """
    try:
        return "".join(_canonical(value, 0)).encode("utf-8")
    except UnicodeEncodeError:
        raise _not_canonical("a lone surrogate") from None


def _canonical(value: object, depth: int) -> Iterator[str]:
    if depth > _CANONICAL_DEPTH:
        raise _not_canonical(f"more than {_CANONICAL_DEPTH} levels")
    if value is None or isinstance(value, bool | str):
        # json escapes what RFC 8785, 3.2.2.2 escapes, in the same way, once ensure_ascii is off.
        yield json.dumps(value, ensure_ascii=False)
    elif isinstance(value, int):
        if abs(value) > _SAFE_INTEGER:
            raise _not_canonical(f"the integer {value}" if abs(value) < 10**40 else "a huge integer")
        yield str(value)
    elif isinstance(value, float):
        yield _number(value)
    elif isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _not_canonical("a key that is no text")
        yield "{"
        # RFC 8785, 3.2.3: keys in the order of their UTF-16 code units.
        for position, key in enumerate(sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))):
            yield ("," if position else "") + json.dumps(key, ensure_ascii=False) + ":"
            yield from _canonical(value[key], depth + 1)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for position, item in enumerate(value):
            yield "," if position else ""
            yield from _canonical(item, depth + 1)
        yield "]"
    else:
        raise _not_canonical(f"a {type(value).__name__}")


def _number(value: float) -> str:
    """ECMAScript's Number::toString (RFC 8785, 3.2.2.3); Python finds the same shortest digits."""
    if not isfinite(value):
        raise _not_canonical(f"the number {value}")
    if value == 0:
        return "0"
    from decimal import Decimal

    # No arithmetic of decimal: that rounds by a context that is the caller's.
    negative, parts, exponent = Decimal(repr(value)).as_tuple()
    # The number is 0.DIGITS times ten to the power of point.
    point = len(parts) + int(exponent)
    digits = "".join(map(str, parts)).rstrip("0")
    sign = "-" * negative
    if len(digits) <= point <= 21:
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _not_canonical(what: str) -> InputError:
    return InputError(f"canonical JSON cannot hold {what}", code="jcs")


# --- the place of a key in a text that was read -----------------------------------------------------------------------


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """The place of a character, both counted from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def located(source: str, text: str, offset: int | None) -> str:
    """``source``, with line and column where the offset is known."""
    return source if offset is None else "{}, line {}, column {}".format(source, *line_and_column(text, offset))


def json_positions(text: str) -> dict[JsonPath, int]:
    """The offset of each key and each array element of a JSON text that ``load_json`` has accepted."""
    found: dict[JsonPath, int] = {}
    # One entry for each open container: the key or index that the scanner is at; None where a key comes next.
    stack: list[str | int | None] = []
    for match in re.finditer(_JSON_SIGNS, text):
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


def _path(stack: list[str | int | None]) -> JsonPath:
    return tuple(item for item in stack if item is not None)


def toml_position(text: str, key: str) -> int | None:
    """The offset of a key at the start of a line of a TOML text, or None; a very long key is not looked for."""
    if len(key) > _LONGEST_KEY:
        return None
    match = re.search(_TOML_KEY.format(re.escape(key)), text, re.MULTILINE)
    if match is None:
        return None
    start = match.start()
    return start + len(match.group()) - len(match.group().lstrip())
