"""NVIDIA's opaque data in the MEASUREMENTS response: the legacy layout and the versioned one (``NVDAOD``).

Legacy entries are id, size, data; versioned data has a header of 12 bytes, and its entries are id, value type, size,
data. Integers have two bytes and are little-endian. Drivers from CUDA 13.5 on write the versioned layout.

``GpuFields`` and ``SwitchFields`` are typed views of it; ids without a meaning there stay in ``OpaqueData``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, IntEnum
from struct import Struct, unpack
from typing import Final, NamedTuple, TypeVar

from nvattest._registry import (
    FWID_SIZE,
    OPAQUE_MAGIC,
    OPAQUE_MAJOR_MAX,
    OPAQUE_PROFILE,
    PDI_SIZE,
    SWITCH_GPU_COUNT,
    GpuField,
    SwitchField,
)
from nvattest.errors import ParseError, ResultCode

# Every offset in spdm/ counts from the first byte of the report, so that one source name serves all parts.
SOURCE: Final = "SPDM report"
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
        return next((entry for entry in self.entries if entry.id == field), None)

    def get(self, field: int) -> bytes | None:
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
            left = f"an opaque entry begins with {head.size} bytes, {end - position} are left"
            raise _malformed(left, "truncated", origin + position)
        words = head.unpack_from(data, position)
        field, size = words[0], words[-1]
        if field in entries:
            raise _malformed(f"opaque field {field} appears twice", "duplicate-field", origin + position)
        if start + size > end:
            left = f"opaque field {field} needs {size} bytes, {end - start} are left"
            raise _malformed(left, "truncated", origin + start)
        value_type = words[1] if head is _VERSIONED_HEAD else None
        entries[field] = OpaqueEntry(field, value_type, data[start : start + size], origin + position)
        position = start + size
    return tuple(entries.values())


def _legacy_version(entries: tuple[OpaqueEntry, ...]) -> int:
    entry = next((entry for entry in entries if entry.id == GpuField.OPAQUE_DATA_VERSION), None)
    if entry is None:
        return 0
    size = len(entry.data)
    if not 0 < size <= _INTEGER_MAX:
        wrong = f"the opaque data version has {size} bytes, expected 1 to {_INTEGER_MAX}"
        raise _malformed(wrong, "field-malformed", entry.offset)
    major = int.from_bytes(entry.data, "little")
    _check_major(major, entry.offset)
    return major


def _check_major(major: int, offset: int) -> None:
    if major > OPAQUE_MAJOR_MAX:
        newer = f"opaque data of version {major}, at most {OPAQUE_MAJOR_MAX} is known"
        hint = "the driver is newer than this verifier: update nvattest"
        raise _malformed(newer, "opaque-version", offset, ResultCode.GPU_FW_NOT_SUPPORTED, hint)


def _malformed(
    message: str,
    code: str,
    offset: int | None,
    result_code: ResultCode = ResultCode.SPDM_OPAQUE_DATA_PARSE_ERROR,
    hint: str = "",
) -> ParseError:
    return ParseError(message, source=SOURCE, offset=offset, code=code, result_code=result_code, hint=hint)


# --- what the entries of a GPU and of an NVSwitch mean ----------------------------------------------------------------

# Texts of a report become RIM ids, file names and parts of URLs.
_TEXT: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_VBIOS_SIZE: Final = 8

_T = TypeVar("_T")


class GpuFields(NamedTuple):
    """What a GPU says about itself.

    ``vbios_version`` is ``96.00.9F.00.01``. ``nvdec0_status`` and ``ppcie_status`` are 0xAA (on) or 0x55 (off), other
    values are kept. ``feature_flag`` is there from opaque version 1 on; ``report.feature_mode`` reads it.
    ``switch_pdis`` are the switches that this GPU sees: 16 upper-case digits each, sorted, each once, in the byte order
    of the switches' certificates; sixteen zeros are a disabled link. ``fwid`` has 48 bytes.
    """

    driver_version: str
    vbios_version: str
    project: str
    project_sku: str
    chip_sku: str
    chip_info: str | None
    fwid: bytes | None
    nvdec0_status: int
    ppcie_status: int | None
    feature_flag: int | None
    switch_pdis: tuple[str, ...]
    measurement_counts: tuple[int, ...]


class SwitchFields(NamedTuple):
    """What an NVSwitch says about itself.

    ``pdi`` is its own, ``gpu_pdis`` those of the GPUs it sees: 16 upper-case digits each, sorted, each once, in the
    byte order of the certificates. ``ports`` has one byte a port. ``disabled_ports`` has one 0 or 1 a port: each bit of
    the field, most significant first, means four ports, as NVIDIA's tools expand it.
    """

    bios_version: str
    pdi: str | None
    gpu_pdis: tuple[str, ...]
    ports: bytes
    disabled_ports: tuple[int, ...]
    position_id: int | None
    lock_status: int | None
    fwid: bytes | None
    measurement_counts: tuple[int, ...]


def gpu_fields(opaque: OpaqueData) -> GpuFields:
    """Read the fields of a GPU.

    Raises:
        ParseError: a field that a verification needs is missing (405), or a field has another size or other characters.
    """
    fields = _Fields(opaque, GpuField)
    vbios = fields.sized(fields.need(GpuField.VBIOS_VERSION), _VBIOS_SIZE)
    return GpuFields(
        driver_version=fields.text(fields.need(GpuField.DRIVER_VERSION)),
        vbios_version=bytes((vbios[3], vbios[2], vbios[1], vbios[0], vbios[4])).hex(".").upper(),
        project=fields.text(fields.need(GpuField.PROJECT)),
        project_sku=fields.text(fields.need(GpuField.PROJECT_SKU)),
        chip_sku=fields.text(fields.need(GpuField.CHIP_SKU)),
        chip_info=fields.optional(GpuField.CHIP_INFO, fields.text),
        fwid=fields.optional(GpuField.FWID, fields.fwid),
        nvdec0_status=fields.byte(fields.need(GpuField.NVDEC0_STATUS)),
        ppcie_status=fields.optional(GpuField.PROTECTED_PCIE_STATUS, fields.byte),
        feature_flag=fields.integer(fields.need(GpuField.FEATURE_FLAG)) if opaque.version[0] else None,
        switch_pdis=fields.optional(GpuField.SWITCH_PDI, fields.reversed_pdis) or (),
        measurement_counts=fields.optional(GpuField.MSRSCNT, fields.counts) or (),
    )


def switch_fields(opaque: OpaqueData) -> SwitchFields:
    """Read the fields of an NVSwitch; ParseError as ``gpu_fields``. It needs the BIOS version alone."""
    fields = _Fields(opaque, SwitchField)
    gpu_pdis, ports = fields.optional(SwitchField.SWITCH_GPU_PDIS, fields.pdis_and_ports) or ((), b"")
    disabled: list[int] = []
    for byte in opaque.get(SwitchField.DISABLED_PORTS) or b"":
        for bit in range(7, -1, -1):
            # Each bit, the highest first, stands for four ports.
            disabled += [byte >> bit & 1] * 4
    return SwitchFields(
        bios_version=fields.text(fields.need(SwitchField.BIOS_VERSION)),
        pdi=fields.optional(SwitchField.DEVICE_PDI, fields.pdi),
        gpu_pdis=gpu_pdis,
        ports=ports,
        disabled_ports=tuple(disabled),
        position_id=fields.optional(SwitchField.SWITCH_POSITION_ID, fields.integer),
        lock_status=fields.optional(SwitchField.SWITCH_LOCK_STATUS, fields.integer),
        fwid=fields.optional(SwitchField.FWID, fields.fwid),
        measurement_counts=fields.optional(SwitchField.MSRSCNT, fields.counts) or (),
    )


class _Fields:
    """The entries by id, and the ways to read one."""

    __slots__ = ("_by_id", "_names")

    def __init__(self, opaque: OpaqueData, names: type[IntEnum]) -> None:
        self._by_id = {entry.id: entry for entry in opaque.entries}
        self._names = names

    def need(self, field: IntEnum) -> OpaqueEntry:
        entry = self._by_id.get(field)
        if entry is None:
            missing = f"opaque field {field.value} ({field.name}) is missing"
            hint = "check that the evidence is labelled with the architecture of its device"
            raise _malformed(missing, "field-missing", None, ResultCode.SPDM_FIELD_NOT_FOUND, hint)
        return entry

    def optional(self, field: IntEnum, read: Callable[[OpaqueEntry], _T]) -> _T | None:
        entry = self._by_id.get(field)
        return None if entry is None else read(entry)

    def text(self, entry: OpaqueEntry) -> str:
        value = entry.data.partition(b"\0")[0]
        if _TEXT.fullmatch(value) is None:
            raise self._wrong(entry, f"is not a text of 1 to 64 of A-Z a-z 0-9 . _ -: {value[:72]!r}")
        return value.decode("ascii")

    def sized(self, entry: OpaqueEntry, size: int) -> bytes:
        if len(entry.data) != size:
            raise self._wrong(entry, f"has {len(entry.data)} bytes, expected {size}")
        return entry.data

    def fwid(self, entry: OpaqueEntry) -> bytes:
        return self.sized(entry, FWID_SIZE)

    def byte(self, entry: OpaqueEntry) -> int:
        return self.sized(entry, 1)[0]

    def integer(self, entry: OpaqueEntry) -> int:
        if not 0 < len(entry.data) <= _INTEGER_MAX:
            raise self._wrong(entry, f"has {len(entry.data)} bytes, expected 1 to {_INTEGER_MAX}")
        return int.from_bytes(entry.data, "little")

    def counts(self, entry: OpaqueEntry) -> tuple[int, ...]:
        count, rest = divmod(len(entry.data), 4)
        if rest:
            raise self._wrong(entry, f"has {len(entry.data)} bytes, expected a multiple of 4")
        return unpack(f"<{count}I", entry.data)

    def pdi(self, entry: OpaqueEntry) -> str:
        return self.sized(entry, PDI_SIZE).hex().upper()

    def reversed_pdis(self, entry: OpaqueEntry) -> tuple[str, ...]:
        data = entry.data
        if len(data) % PDI_SIZE:
            raise self._wrong(entry, f"has {len(data)} bytes, expected a multiple of {PDI_SIZE}")
        # Reversed as a whole, each PDI is reversed; their order does not matter.
        return _pdis(data[::-1])

    def pdis_and_ports(self, entry: OpaqueEntry) -> tuple[tuple[str, ...], bytes]:
        size = SWITCH_GPU_COUNT * PDI_SIZE
        if len(entry.data) < size:
            raise self._wrong(entry, f"has {len(entry.data)} bytes, expected at least {size}")
        return _pdis(entry.data[:size]), entry.data[size:]

    def _wrong(self, entry: OpaqueEntry, message: str) -> ParseError:
        name = f"opaque field {entry.id} ({self._names(entry.id).name})"
        return _malformed(f"{name} {message}", "field-malformed", entry.offset)


def _pdis(data: bytes) -> tuple[str, ...]:
    return tuple(sorted({data[at : at + PDI_SIZE].hex().upper() for at in range(0, len(data), PDI_SIZE)}))
