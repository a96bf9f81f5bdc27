"""A small strict DER reader for the few structures that the X.509 library does not take apart (X.690, 8.1 and 10.1).

Single-byte tags, definite lengths in their shortest form, nothing past the end. Everything else is a ParseError.
"""

from __future__ import annotations

from typing import NamedTuple

from nvattest.errors import ParseError, ResultCode

INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OID = 0x06
SEQUENCE = 0x30
SET = 0x31

# No certificate or extension that is read here comes near this length.
_MAX_LENGTH_BYTES = 3
# Python writes no number of more than 4300 digits, and the X.509 library reads no longer identifier.
_MAX_OID_BYTES = 63


class Element(NamedTuple):
    """One tag-length-value. ``start`` and ``end`` bound all of it, ``body`` is where its content starts."""

    tag: int
    start: int
    body: int
    end: int


class DerReader:
    """Read elements of ``data`` from ``start`` to ``end``, front to back; offsets in errors count from ``data[0]``."""

    __slots__ = ("_end", "_result_code", "_source", "data", "position")

    def __init__(
        self,
        data: bytes,
        start: int = 0,
        end: int | None = None,
        *,
        source: str,
        result_code: ResultCode = ResultCode.EVIDENCE_MALFORMED,
    ) -> None:
        self.data = data
        self.position = start
        self._end = len(data) if end is None else end
        self._source = source
        self._result_code = result_code

    @property
    def at_end(self) -> bool:
        return self.position == self._end

    def element(self, tag: int | None, name: str) -> Element:
        """The next element; with ``tag`` it must have that tag. ``name`` is what errors call it.

        Raises:
            ParseError: no such element, or one that is not DER.
        """
        start = self.position
        body, end = self._enter(tag, name)
        return Element(self.data[start], start, body, end)

    def _enter(self, tag: int | None, name: str) -> tuple[int, int]:
        """Where the content of the next element starts and ends; the position moves to its end."""
        data, start, end = self.data, self.position, self._end
        body = start + 2
        if body > end:
            raise self.error(f"{name} is missing or truncated")
        found, length = data[start], data[start + 1]
        if found & 0x1F == 0x1F:
            raise self.error(f"{name} has a tag of several bytes")
        if tag is not None and found != tag:
            raise self.error(f"{name} needs tag 0x{tag:02X}, found 0x{found:02X}")
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= _MAX_LENGTH_BYTES or body + size > end:
                raise self.error(f"{name} has an indefinite or oversized length")
            length = int.from_bytes(data[body : body + size], "big")
            if length < 0x80 or length >> (8 * (size - 1)) == 0:
                raise self.error(f"the length of {name} is not in its shortest form")
            body += size
        if body + length > end:
            raise self.error(f"{name} needs {length} bytes, {end - body} are left")
        self.position = body + length
        return body, self.position

    def content(self, tag: int, name: str) -> bytes:
        """The content of the next element, which must have this tag."""
        body, end = self._enter(tag, name)
        return self.data[body:end]

    def inner(self, tag: int, name: str) -> DerReader:
        """A reader over the content of the next element, which must have this tag."""
        body, end = self._enter(tag, name)
        return DerReader(self.data, body, end, source=self._source, result_code=self._result_code)

    def peek(self) -> int | None:
        """The tag of the next element, None at the end."""
        return self.data[self.position] if self.position < self._end else None

    def unsigned(self, name: str, *, tag: int = INTEGER, max_bytes: int = 8) -> int:
        """The next element as a non-negative INTEGER of at most ``max_bytes`` octets, a leading zero not counted."""
        start = self.position
        content = self.content(tag, name)
        if not content or content[0] & 0x80 or (len(content) > 1 and content[0] == 0 and not content[1] & 0x80):
            raise self.error(f"{name} is negative or not in its shortest form", at=start)
        if len(content) - (content[0] == 0) > max_bytes:
            raise self.error(f"{name} has {len(content)} bytes, at most {max_bytes} are allowed", at=start)
        return int.from_bytes(content, "big")

    def finish(self, name: str) -> None:
        """Refuse bytes that nothing has read."""
        if self.position != self._end:
            raise self.error(f"{self._end - self.position} stray bytes after {name}")

    def error(self, message: str, *, at: int | None = None) -> ParseError:
        """A ParseError at the present offset, or at ``at``."""
        offset = self.position if at is None else at
        return ParseError(message, source=self._source, offset=offset, code="der", result_code=self._result_code)


def dotted(content: bytes) -> str | None:
    """The content of an OBJECT IDENTIFIER as ``1.2.840…``, or None if it is not one (X.690, 8.19), or too long."""
    if not 0 < len(content) <= _MAX_OID_BYTES or content[-1] & 0x80:
        return None
    arcs: list[int] = []
    value, fresh = 0, True
    for octet in content:
        if fresh and octet == 0x80:
            return None
        value, fresh = value << 7 | octet & 0x7F, False
        if not octet & 0x80:
            arcs.append(value)
            value, fresh = 0, True
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))
