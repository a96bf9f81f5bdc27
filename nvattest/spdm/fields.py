"""Typed views of the opaque data of GPUs and of NVSwitches. Ids without a meaning here stay in ``OpaqueData``."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from struct import unpack
from typing import Final, NamedTuple, TypeVar

from nvattest._registry import FWID_SIZE, PDI_SIZE, SWITCH_GPU_COUNT, GpuField, SwitchField
from nvattest.errors import ParseError, ResultCode
from nvattest.spdm.opaque import OpaqueData, OpaqueEntry
from nvattest.spdm.request import SOURCE

__all__ = ["GpuFields", "SwitchFields", "gpu_fields", "switch_fields"]

# Texts of a report become RIM ids, file names and parts of URLs.
_TEXT: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_INTEGER_MAX: Final = 8
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
    """Read the fields of an NVSwitch.

    Raises:
        ParseError: the BIOS version is missing (405), or a field has another size or other characters.
    """
    fields = _Fields(opaque, SwitchField)
    gpu_pdis, ports = fields.optional(SwitchField.SWITCH_GPU_PDIS, fields.pdis_and_ports) or ((), b"")
    disabled = opaque.get(SwitchField.DISABLED_PORTS) or b""
    return SwitchFields(
        bios_version=fields.text(fields.need(SwitchField.BIOS_VERSION)),
        pdi=fields.optional(SwitchField.DEVICE_PDI, fields.pdi),
        gpu_pdis=gpu_pdis,
        ports=ports,
        disabled_ports=tuple(byte >> bit & 1 for byte in disabled for bit in range(7, -1, -1) for _ in range(4)),
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
            raise ParseError(
                f"opaque field {field.value} ({field.name}) is missing",
                source=SOURCE,
                code="field-missing",
                result_code=ResultCode.SPDM_FIELD_NOT_FOUND,
                hint="check that the evidence is labelled with the architecture of its device",
            )
        return entry

    def optional(self, field: IntEnum, read: Callable[[OpaqueEntry], _T]) -> _T | None:
        entry = self._by_id.get(field)
        return None if entry is None else read(entry)

    def text(self, entry: OpaqueEntry) -> str:
        value = entry.data.partition(b"\0")[0]
        if _TEXT.fullmatch(value) is None:
            raise self._malformed(entry, f"is not a text of 1 to 64 of A-Z a-z 0-9 . _ -: {value[:72]!r}")
        return value.decode("ascii")

    def sized(self, entry: OpaqueEntry, size: int) -> bytes:
        if len(entry.data) != size:
            raise self._malformed(entry, f"has {len(entry.data)} bytes, expected {size}")
        return entry.data

    def fwid(self, entry: OpaqueEntry) -> bytes:
        return self.sized(entry, FWID_SIZE)

    def byte(self, entry: OpaqueEntry) -> int:
        return self.sized(entry, 1)[0]

    def integer(self, entry: OpaqueEntry) -> int:
        if not 0 < len(entry.data) <= _INTEGER_MAX:
            raise self._malformed(entry, f"has {len(entry.data)} bytes, expected 1 to {_INTEGER_MAX}")
        return int.from_bytes(entry.data, "little")

    def counts(self, entry: OpaqueEntry) -> tuple[int, ...]:
        count, rest = divmod(len(entry.data), 4)
        if rest:
            raise self._malformed(entry, f"has {len(entry.data)} bytes, expected a multiple of 4")
        return unpack(f"<{count}I", entry.data)

    def pdi(self, entry: OpaqueEntry) -> str:
        return self.sized(entry, PDI_SIZE).hex().upper()

    def reversed_pdis(self, entry: OpaqueEntry) -> tuple[str, ...]:
        data = entry.data
        if len(data) % PDI_SIZE:
            raise self._malformed(entry, f"has {len(data)} bytes, expected a multiple of {PDI_SIZE}")
        # Reversed as a whole, each PDI is reversed; their order does not matter.
        return _pdis(data[::-1])

    def pdis_and_ports(self, entry: OpaqueEntry) -> tuple[tuple[str, ...], bytes]:
        size = SWITCH_GPU_COUNT * PDI_SIZE
        if len(entry.data) < size:
            raise self._malformed(entry, f"has {len(entry.data)} bytes, expected at least {size}")
        return _pdis(entry.data[:size]), entry.data[size:]

    def _malformed(self, entry: OpaqueEntry, message: str) -> ParseError:
        return ParseError(
            f"opaque field {entry.id} ({self._names(entry.id).name}) {message}",
            source=SOURCE,
            offset=entry.offset,
            code="field-malformed",
            result_code=ResultCode.SPDM_OPAQUE_DATA_PARSE_ERROR,
        )


def _pdis(data: bytes) -> tuple[str, ...]:
    return tuple(sorted({data[at : at + PDI_SIZE].hex().upper() for at in range(0, len(data), PDI_SIZE)}))
