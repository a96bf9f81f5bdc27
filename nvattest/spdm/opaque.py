"""NVIDIA's opaque data in the MEASUREMENTS response: the legacy layout and the versioned one (``NVDAOD``).

Legacy entries are id, size, data; versioned data has a header of 12 bytes, and its entries are id, value type, size,
data. Integers have two bytes and are little-endian. Drivers from CUDA 13.5 on write the versioned layout.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import Final, NamedTuple

from nvattest._registry import OPAQUE_MAGIC, OPAQUE_MAJOR_MAX, OPAQUE_PROFILE, GpuField
from nvattest.errors import ParseError, ResultCode
from nvattest.spdm.request import SOURCE

__all__ = ["OpaqueData", "OpaqueEntry", "OpaqueLayout", "parse_opaque"]

_VERSION_ID: Final = int(GpuField.OPAQUE_DATA_VERSION)
_INTEGER_MAX: Final = 8
_LEGACY_HEAD: Final = Struct("<HH")
_VERSIONED_HEAD: Final = Struct("<HHH")
# magic, profile, major, minor, patch, padding
_HEADER: Final = Struct("<6sHBBBB")


class OpaqueLayout(Enum):
    """How entries are laid out."""

    LEGACY = "legacy"
    VERSIONED = "versioned"


class OpaqueEntry(NamedTuple):
    """One entry. ``value_type`` is None in the legacy layout; ``offset`` is where the entry begins in the report."""

    id: int
    value_type: int | None
    data: bytes
    offset: int


class OpaqueData(NamedTuple):
    """All entries in their order. ``version`` is (major, minor, patch); legacy data has entry 34 as its major."""

    layout: OpaqueLayout
    version: tuple[int, int, int]
    entries: tuple[OpaqueEntry, ...]

    def entry(self, field: int) -> OpaqueEntry | None:
        """The entry with this id."""
        return next((entry for entry in self.entries if entry.id == field), None)

    def get(self, field: int) -> bytes | None:
        """The data of the entry with this id."""
        entry = self.entry(field)
        return None if entry is None else entry.data


def parse_opaque(data: bytes, *, origin: int = 0) -> OpaqueData:
    """Read opaque data of either layout; ``origin`` is its offset in the report. Unknown ids are kept.

    The version of versioned data is that of its header, whatever an entry 34 in it says.

    Raises:
        ParseError: no data, truncation, stray bytes, a repeated id, another profile; result code 510 for a version
            above 2.
    """
    if not data:
        raise _malformed("there is no opaque data", "no-opaque", origin)
    if not data.startswith(OPAQUE_MAGIC):
        entries = _parse_entries(data, 0, _LEGACY_HEAD, origin)
        return OpaqueData(layout=OpaqueLayout.LEGACY, version=(_legacy_version(entries), 0, 0), entries=entries)
    if len(data) < _HEADER.size:
        raise _malformed(f"the opaque header needs {_HEADER.size} bytes, {len(data)} are left", "truncated", origin)
    _, profile, major, minor, patch, _ = _HEADER.unpack_from(data)
    if profile != OPAQUE_PROFILE:
        raise _malformed(f"opaque data of profile {profile}, expected {OPAQUE_PROFILE}", "opaque-profile", origin + 6)
    _check_major(major, origin + 8)
    entries = _parse_entries(data, _HEADER.size, _VERSIONED_HEAD, origin)
    return OpaqueData(layout=OpaqueLayout.VERSIONED, version=(major, minor, patch), entries=entries)


def _parse_entries(data: bytes, position: int, head: Struct, origin: int) -> tuple[OpaqueEntry, ...]:
    entries: dict[int, OpaqueEntry] = {}
    end = len(data)
    while position < end:
        start = position + head.size
        if start > end:
            raise _malformed(
                f"an opaque entry begins with {head.size} bytes, {end - position} are left",
                "truncated",
                origin + position,
            )
        words = head.unpack_from(data, position)
        field, size = words[0], words[-1]
        if field in entries:
            raise _malformed(f"opaque field {field} appears twice", "duplicate-field", origin + position)
        if start + size > end:
            raise _malformed(
                f"opaque field {field} needs {size} bytes, {end - start} are left", "truncated", origin + start
            )
        value_type = words[1] if head is _VERSIONED_HEAD else None
        entries[field] = OpaqueEntry(field, value_type, data[start : start + size], origin + position)
        position = start + size
    return tuple(entries.values())


def _legacy_version(entries: tuple[OpaqueEntry, ...]) -> int:
    for entry in entries:
        if entry.id == _VERSION_ID:
            if not 0 < len(entry.data) <= _INTEGER_MAX:
                raise _malformed(
                    f"the opaque data version has {len(entry.data)} bytes, expected 1 to {_INTEGER_MAX}",
                    "field-malformed",
                    entry.offset,
                )
            major = int.from_bytes(entry.data, "little")
            _check_major(major, entry.offset)
            return major
    return 0


def _check_major(major: int, offset: int) -> None:
    if major > OPAQUE_MAJOR_MAX:
        raise ParseError(
            f"opaque data of version {major}, at most {OPAQUE_MAJOR_MAX} is known",
            source=SOURCE,
            offset=offset,
            code="opaque-version",
            result_code=ResultCode.GPU_FW_NOT_SUPPORTED,
            hint="the driver is newer than this verifier: update nvattest",
        )


def _malformed(message: str, code: str, offset: int) -> ParseError:
    return ParseError(
        message, source=SOURCE, offset=offset, code=code, result_code=ResultCode.SPDM_OPAQUE_DATA_PARSE_ERROR
    )
