"""Writes attestation reports as the devices do: GET_MEASUREMENTS, MEASUREMENTS, signature (DSP0274 1.1).

Opaque data comes in the legacy layout (type, size, data) and in NVIDIA's versioned layout (``NVDAOD`` header, then
type, value type, size, data). The order of fields is that of real reports of the same driver generation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nvattest._registry import OPAQUE_MAGIC, GpuField, SwitchField

__all__ = [
    "Board",
    "Entry",
    "Generation",
    "OpaqueHeader",
    "gpu_fields",
    "opaque_legacy",
    "opaque_versioned",
    "report",
    "switch_fields",
    "vbios_bytes",
]

BLOCK_SIZE = 48
_VERSION_1_1 = 0x11
# DMTF measurement value types that stand beside opaque entries in the versioned layout (DSP0274, table 48).
_VALUE_TYPES: dict[int, int] = {
    GpuField.VBIOS_VERSION: 0x86,
    GpuField.DRIVER_VERSION: 0x86,
    GpuField.MSRSCNT: 0x84,
    GpuField.CPRINFO: 0x83,
    GpuField.FWID: 0x01,
    GpuField.PROTECTED_PCIE_STATUS: 0x85,
    GpuField.OPAQUE_DATA_VERSION: 0x86,
    GpuField.FEATURE_FLAG: 0x85,
    GpuField.FSP_UCODE_SVN: 0x87,
}
_HARDWARE = 0x82
_MANIFEST = 0xFD

Entry = tuple[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What a GPU says about itself and the board it sits on."""

    chip: str
    name: str
    board_id: int
    chip_sku: str
    project: str
    project_sku: str
    gpu_info: int
    memory_info: int
    chip_sku_mod: str = "0"
    project_sku_mod: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Which opaque entries a driver sends, and in which layout."""

    versioned: bool = False
    version_entry: int | None = None
    feature_flag: bool = False
    system_enable: bool = False
    chip_info: bool = False
    firmware_id: bool = True
    ppcie_status: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaqueHeader:
    """The header of the versioned layout."""

    profile: int = 0
    version: tuple[int, int, int] = (2, 0, 0)


def request(nonce: bytes, *, version: int = _VERSION_1_1) -> bytes:
    """GET_MEASUREMENTS for all blocks, signed, slot 0: 37 bytes with a nonce of 32."""
    return bytes((version, 0xE0, 0x01, 0xFF)) + nonce + b"\x00"


def blocks(values: Sequence[tuple[int, bytes]]) -> bytes:
    """The measurement record: (block index from 1, value) each as a DMTF digest of mutable firmware (type 0x01).

    Index 0xFD is a structured manifest (type 0x8A).
    """
    return b"".join(
        struct.pack("<BBHBH", index & 0xFF, 1, len(value) + 3, 0x8A if index == _MANIFEST else 1, len(value)) + value
        for index, value in values
    )


def opaque_legacy(entries: Sequence[Entry]) -> bytes:
    """Entries as u16 type, u16 size, data; little-endian."""
    return b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in entries)


def opaque_versioned(entries: Sequence[Entry], header: OpaqueHeader) -> bytes:
    """The 12-byte header, then entries as u16 type, u16 value type, u16 size, data; little-endian."""
    head = OPAQUE_MAGIC + struct.pack("<HBBBB", header.profile, *header.version, 0)
    return head + b"".join(
        struct.pack("<HHH", kind, _VALUE_TYPES.get(kind, _HARDWARE), len(data)) + data for kind, data in entries
    )


def report(
    *,
    nonce: bytes,
    responder_nonce: bytes,
    measurements: Sequence[tuple[int, bytes]],
    opaque: bytes,
    sign: Callable[[bytes], bytes],
    version: int = _VERSION_1_1,
) -> bytes:
    """A whole report. ``sign`` gets request and response up to the end of the opaque data and returns 96 bytes."""
    record = blocks(measurements)
    body = b"".join(
        (
            request(nonce, version=version),
            bytes((version, 0x60, 0, 0, len(measurements))),
            len(record).to_bytes(3, "little"),
            record,
            responder_nonce,
            struct.pack("<H", len(opaque)),
            opaque,
        )
    )
    return body + sign(body)


def vbios_bytes(version: str) -> bytes:
    """A VBIOS version such as ``96.00.9F.00.01`` as the 8 bytes of entry 6: b3.b2.b1.b0.b4."""
    parts = bytes.fromhex(version.replace(".", ""))
    return bytes((parts[3], parts[2], parts[1], parts[0], parts[4], 0, 0, 0))


def gpu_fields(
    *,
    generation: Generation,
    vbios: str,
    driver: str,
    board: Board,
    counts: bytes,
    nvdec0: int,
    fwid: bytes | None,
    ppcie: bool,
    feature: int,
    switch_pdis: Sequence[bytes] = (),
    svn: int = 0,
) -> list[Entry]:
    """The opaque entries of a GPU, in the order in which its driver generation sends them.

    ``switch_pdis`` has one PDI per link, already byte-reversed; ``counts`` one u32 per measurement block. ``fwid`` is
    None where the driver names none.
    """
    field = GpuField
    entries: list[Entry] = [
        (field.VBIOS_VERSION, vbios_bytes(vbios)),
        (field.BOARD_ID, struct.pack("<I", board.board_id)),
        (field.CHIP_SKU, _text(board.chip_sku, 9)),
        (field.CHIP_SKU_MOD, _text(board.chip_sku_mod, 5)),
        (field.PROJECT, _text(board.project, 5)),
        (field.PROJECT_SKU, _text(board.project_sku, 5)),
        (field.PROJECT_SKU_MOD, _text(board.project_sku_mod, 2)),
        (field.DRIVER_VERSION, driver.encode() + b"\x00"),
        (field.GPU_INFO, struct.pack("<Q", board.gpu_info)),
        (field.MSRSCNT, counts),
        (field.CPRINFO, struct.pack("<I", board.memory_info)),
        (field.NVDEC0_STATUS, bytes((nvdec0,))),
    ]
    if generation.versioned:
        entries.append((field.FSP_UCODE_SVN, struct.pack("<H", svn)))
    if fwid is not None:
        entries.append((field.FWID, fwid))
    if generation.system_enable:
        entries.append((field.SYS_ENABLE_STATUS, b"\x07\x07"))
    elif generation.ppcie_status:
        entries.append((field.PROTECTED_PCIE_STATUS, b"\xaa" if ppcie else b"\x55"))
    if switch_pdis:
        entries.append((field.SWITCH_PDI, b"".join(switch_pdis)))
    if generation.chip_info:
        entries.append((field.CHIP_INFO, board.chip.encode() + b"\x00"))
    if generation.version_entry is not None:
        entries.append((field.OPAQUE_DATA_VERSION, struct.pack("<H", generation.version_entry)))
    if generation.feature_flag:
        entries.append((field.FEATURE_FLAG, struct.pack("<H", feature)))
    return entries


def switch_fields(
    *, bios: str, pdi: bytes, counts: bytes, gpu_pdis: Sequence[bytes], ports: bytes, position: int, locked: bool
) -> list[Entry]:
    """The opaque entries of an LS10 switch, in their order. ``ports`` are the 64 bytes after the eight GPU PDIs."""
    field = SwitchField
    return [
        (field.BIOS_VERSION, bios.encode()),
        (field.DEVICE_PDI, pdi),
        (field.MSRSCNT, counts),
        (field.SWITCH_GPU_PDIS, b"".join(gpu_pdis) + ports),
        (field.DISABLED_PORTS, b"\xec\x00"),
        (field.SWITCH_POSITION_ID, struct.pack("<H", position)),
        (field.SWITCH_LOCK_STATUS, struct.pack("<H", int(locked))),
    ]


def _text(text: str, size: int) -> bytes:
    """ASCII with at least one NUL, padded to ``size``."""
    return text.encode()[: size - 1].ljust(size, b"\x00")
