"""The one bounds-checked cursor over untrusted bytes. All integers here are little-endian, as in SPDM (DSP0274)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

from nvattest.errors import ParseError, ResultCode

T = TypeVar("T")


class Remember(Protocol):
    """A cache of parsed values. ``key`` holds all that ``read`` depends on."""

    def __call__(self, key: Hashable, read: Callable[[], T], /) -> T:
        """The value of ``read()``, computed now or before for the same key."""


def read_anew(_: Hashable, read: Callable[[], T], /) -> T:
    """Remember nothing."""
    return read()


class Cursor:
    """Read fields from bytes, front to back; every read past the end is a ParseError with its offset.

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
