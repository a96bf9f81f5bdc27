"""One simulated GPU or switch: it answers with its chain and signs reports over the nonce that it is asked with.

A report is GET_MEASUREMENTS, MEASUREMENTS and a signature (DSP0274 1.1). Opaque data comes in the legacy layout (type,
size, data) and in NVIDIA's versioned layout (``NVDAOD`` header, then type, value type, size, data). The order of fields
is that of real reports of the same driver generation.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from nvattest._registry import NVDEC0_DISABLED, NVDEC0_ENABLED, OPAQUE_MAGIC, GpuField, SwitchField
from nvattest.errors import InputError
from nvattest.evidence import Evidence
from nvattest.model import NONCE_SIZE, Architecture, DeviceKind
from nvattest.testing.certificates import Certificate, Key, pem
from nvattest.testing.lies import Told, must_find
from nvattest.testing.silicon import Silicon, generation, golden_value, measured

Entry = tuple[int, bytes]

_VERSION_1_1 = 0x11
# DMTF measurement value types of opaque entries in the versioned layout (DSP0274, table 48).
_VALUE_TYPES: dict[int, int] = {
    **dict.fromkeys((GpuField.VBIOS_VERSION, GpuField.DRIVER_VERSION, GpuField.OPAQUE_DATA_VERSION), 0x86),
    **dict.fromkeys((GpuField.PROTECTED_PCIE_STATUS, GpuField.FEATURE_FLAG), 0x85),
    GpuField.MSRSCNT: 0x84,
    GpuField.CPRINFO: 0x83,
    GpuField.FWID: 0x01,
    GpuField.FSP_UCODE_SVN: 0x87,
}
_HARDWARE = 0x82
_MANIFEST = 0xFD
_FEATURES = {"spt": 0, "mpt": 1, "ppcie": 2}
_DEBUG_INDEX = 9


class Body(NamedTuple):
    """What a device measures and says, all lies included; only the nonce is missing.

    ``measurements`` are (SPDM block index from 1, value).
    """

    measurements: tuple[tuple[int, bytes], ...]
    opaque: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDevice:
    """A device of a simulated platform.

    ``architecture`` is the number that NVML (GPU) or NSCQ (switch) gives, ``family`` our word for it. The versions are
    those that the driver gives beside the report. ``pdi`` is 16 hexadecimal digits, ``chain_pem`` PEM text, leaf first.
    """

    kind: DeviceKind
    index: int
    uuid: str
    name: str
    family: Architecture
    architecture: int
    driver_version: str
    vbios_version: str
    pdi: str
    board_id: int
    board_part_number: str
    chain_pem: bytes
    certificates: tuple[Certificate, ...]
    told: Told
    body: Body
    key: Key
    salt: bytes

    def __repr__(self) -> str:
        return f"<SimulatedDevice {self.kind.label}-{self.index} {self.name!r}>"

    @property
    def hints(self) -> dict[str, str]:
        """What the driver says beside the report, by the names that live collection uses."""
        hints = {"index": str(self.index), "uuid": self.uuid}
        if self.kind is DeviceKind.GPU:
            hints |= {
                "name": self.name,
                "driver_version": self.driver_version,
                "vbios_version": self.vbios_version,
                "board_part_number": self.board_part_number,
            }
        return hints

    def report(self, nonce: bytes) -> bytes:
        """A report over this nonce: request, response and signature; signed now, about a millisecond.

        Raises:
            InputError: the nonce does not have exactly 32 bytes.
        """
        if len(nonce) != NONCE_SIZE:
            raise InputError(f"a nonce has exactly {NONCE_SIZE} bytes; this one has {len(nonce)}", code="nonce-size")
        told = self.told
        if (other := told.get("other-nonce")) is not None:
            nonce = bytes.fromhex(other)[:NONCE_SIZE].rjust(NONCE_SIZE, b"\x00") if other else bytes(NONCE_SIZE)
        sign = (lambda _data: bytes(96)) if "signature-zero" in told else self.key.sign_raw
        data = write_report(
            nonce=nonce,
            responder_nonce=hashlib.sha256(self.salt + nonce).digest(),
            measurements=self.body.measurements,
            opaque=self.body.opaque,
            sign=sign,
            version=int(told.get("spdm-version") or "11", 16) & 0xFF,
        )
        return told.on_the_way(data, signature=range(len(data) - 96, len(data)))

    def evidence(self, nonce: bytes, hints: Mapping[str, str] = MappingProxyType({})) -> Evidence:
        """:meth:`report` with the chain, and with ``hints`` beside them."""
        return Evidence(
            architecture=self.family,
            nonce=nonce,
            report=self.report(nonce),
            certificate_chain=self.chain_pem,
            origin="simulated",
            hints=dict(hints),
        )

    def evidence_record(self, nonce: bytes) -> dict[str, str]:
        """The same as an item of NVIDIA's evidence JSON, with all bytes of the driver's buffer."""
        return {
            "arch": self.family.value,
            "nonce": nonce.hex(),
            "evidence": base64.b64encode(self.report(nonce)).decode(),
            "certificate": base64.b64encode(self.chain_pem).decode(),
        }


def chain_text(certificates: Sequence[Certificate], kind: DeviceKind, told: Told) -> bytes:
    """The PEM text of a chain with the lies about its make-up; a GPU's ends in a line break, a switch's does not."""
    if "chain-format" in told:
        return b"this is not PEM\n"
    ders = [certificate.der for certificate in certificates]
    for argument in told.all("chain-repeated"):
        position = min(int(argument), len(ders) - 1)
        ders.insert(position, ders[position])
    for argument in told.all("chain-swapped"):
        position = min(int(argument), len(ders) - 2)
        ders[position], ders[position + 1] = ders[position + 1], ders[position]
    for argument in told.all("chain-missing"):
        ders.pop(min(int(argument), len(ders) - 1))
    return pem(ders, final_newline=kind is DeviceKind.GPU) + bytes(int(told.get("chain-nuls", "5") or 0))


def gpu_body(
    silicon: Silicon, told: Told, *, driver: str, nvdec0: bool, feature: str, switch_pdis: Sequence[bytes]
) -> Body:
    """What a GPU says. ``switch_pdis`` are as printed, one per link; the report has them byte-reversed."""
    layout = generation(silicon.architecture, driver)
    driver = told.get("driver-version") or driver
    firmware = told.get("firmware-version") or silicon.firmware
    if re.fullmatch(r"[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){4}", firmware) is None:
        raise _unusable("firmware-version", firmware, "write it as 96.00.F0.00.01")
    usual, feature = feature, told.get("feature") or feature
    if feature not in _FEATURES and not feature.isdigit():
        raise _unusable("feature", feature, "write mpt, spt, ppcie or a number")
    if told.get("feature") and not layout.feature_flag and (feature == "ppcie") == (usual == "ppcie"):
        hint = "reports of this driver have no mode flag: take a platform with -r590, such as hopper-1-r590"
        raise _unusable("feature", feature, hint)
    field = GpuField
    entries: dict[int, bytes] = {
        field.VBIOS_VERSION: _vbios_bytes(firmware),
        field.BOARD_ID: struct.pack("<I", silicon.board_id),
        field.CHIP_SKU: _text(silicon.chip_sku, 9),
        field.CHIP_SKU_MOD: _text(silicon.chip_sku_mod, 5),
        field.PROJECT: _text(silicon.project, 5),
        field.PROJECT_SKU: _text(silicon.project_sku, 5),
        field.PROJECT_SKU_MOD: _text(silicon.project_sku_mod, 2),
        field.DRIVER_VERSION: driver.encode() + b"\x00",
        field.GPU_INFO: struct.pack("<Q", silicon.gpu_info),
        field.MSRSCNT: silicon.counts(),
        field.CPRINFO: struct.pack("<I", silicon.memory_info),
        field.NVDEC0_STATUS: bytes((_nvdec0(told, nvdec0),)),
    }
    if layout.versioned:
        entries[field.FSP_UCODE_SVN] = struct.pack("<H", int(told.get("svn") or "5") & 0xFFFF)
    if layout.firmware_id or "fwid" in told:
        entries[field.FWID] = _fwid(told, silicon.fwid)
    if layout.system_enable:
        entries[field.SYS_ENABLE_STATUS] = b"\x07\x07"
    elif layout.ppcie_status:
        entries[field.PROTECTED_PCIE_STATUS] = b"\xaa" if feature == "ppcie" else b"\x55"
    if neighbours := _topology(told, switch_pdis):
        entries[field.SWITCH_PDI] = b"".join(pdi[::-1] for pdi in neighbours)
    if layout.chip_info:
        entries[field.CHIP_INFO] = silicon.chip.encode() + b"\x00"
    if layout.version_entry is not None:
        entries[field.OPAQUE_DATA_VERSION] = struct.pack("<H", layout.version_entry)
    if layout.feature_flag:
        number = _FEATURES[feature] if feature in _FEATURES else int(feature) & 0xFFFF
        entries[field.FEATURE_FLAG] = struct.pack("<H", number)
    # An engine that is off measures something that no RIM names: the exemption of index 35 is at work by default.
    values = measured(silicon, driver=driver, firmware=firmware, nvdec0_matches=nvdec0)
    return Body(_measurements(values, silicon.architecture, told), _opaque(entries, told, versioned=layout.versioned))


def switch_body(
    silicon: Silicon, told: Told, *, pdi: bytes, gpu_pdis: Sequence[bytes], ports: bytes, position: int
) -> Body:
    """What an LS10 switch says. ``gpu_pdis`` are eight; ``ports`` 64 bytes, the GPU behind each port or FF."""
    firmware = told.get("firmware-version") or silicon.firmware
    neighbours = _topology(told, gpu_pdis)
    # The field has eight places; an unused one repeats the one before.
    neighbours += [neighbours[-1]] * (len(gpu_pdis) - len(neighbours))
    entries: dict[int, bytes] = {
        SwitchField.BIOS_VERSION: firmware.encode(),
        SwitchField.DEVICE_PDI: pdi,
        SwitchField.MSRSCNT: silicon.counts(),
        SwitchField.SWITCH_GPU_PDIS: b"".join(neighbours) + ports,
        SwitchField.DISABLED_PORTS: b"\xec\x00",
        SwitchField.SWITCH_POSITION_ID: struct.pack("<H", position),
        SwitchField.SWITCH_LOCK_STATUS: struct.pack("<H", int("unlocked" not in told)),
    }
    if "fwid" in told:
        entries[SwitchField.FWID] = _fwid(told, b"")
    values = measured(silicon, driver="", firmware=firmware, nvdec0_matches=True)
    return Body(_measurements(values, silicon.architecture, told), _opaque(entries, told, versioned=False))


def _measurements(values: Mapping[int, bytes], architecture: Architecture, told: Told) -> tuple[Entry, ...]:
    lies = told.indexed("measurement")
    if "debug" in told and architecture in (Architecture.HOPPER, Architecture.LS10):
        lies.setdefault(_DEBUG_INDEX, "")
    for name in ("measurement", "measurement-missing", "measurement-duplicate"):
        must_find(name, told.indexed(name), values, "measurement")
    missing, twice = told.indexed("measurement-missing"), told.indexed("measurement-duplicate")
    out = []
    for index, honest in values.items():
        lie = lies.get(index)
        value = honest if lie is None else bytes.fromhex(lie) or golden_value("lie", architecture.value, index)
        if index not in missing:
            out += [(index + 1, value)] * (2 if index in twice else 1)
    return tuple(out)


def _opaque(entries: dict[int, bytes], told: Told, *, versioned: bool) -> bytes:
    # With a value of its own a lie may add an entry; turned over, left out or doubled can only be one that is there.
    for name in ("field", "field-missing", "field-duplicate"):
        without = (number for number, given in told.indexed(name).items() if not given)
        must_find(name, without, entries, "opaque entry")
    for number, given in told.indexed("field").items():
        entries[number & 0xFFFF] = bytes.fromhex(given) or bytes(byte ^ 0xFF for byte in entries[number])
    major = told.get("opaque-version")
    if major is not None and not versioned:
        entries.pop(GpuField.OPAQUE_DATA_VERSION, None)
        entries[GpuField.OPAQUE_DATA_VERSION] = struct.pack("<H", int(major) & 0xFFFF)
    missing, twice = told.indexed("field-missing"), told.indexed("field-duplicate")
    kept = [entry for entry in entries.items() if entry[0] not in missing]
    kept += [entry for entry in kept if entry[0] in twice]
    if not versioned:
        return opaque_legacy(kept)
    return opaque_versioned(
        kept,
        profile=int(told.get("opaque-profile") or "0") & 0xFFFF,
        version=(2 if major is None else int(major) & 0xFF, 0, 0),
    )


def _topology(told: Told, neighbours: Sequence[bytes]) -> list[bytes]:
    lie = told.get("topology", "foreign")
    if lie is None or not neighbours:
        return list(neighbours)
    # A link that is disabled names no device, so a lie about it would change nothing.
    first = next(pdi for pdi in neighbours if any(pdi))
    if lie == "missing":
        return [pdi for pdi in neighbours if pdi != first]
    foreign = bytes.fromhex("f0f1f2f3f4f5f6f7")
    if lie == "extra":
        return [*neighbours[:-1], foreign]
    return [foreign if pdi == first else pdi for pdi in neighbours]


def _nvdec0(told: Told, enabled: bool) -> int:
    lie = told.get("nvdec0")
    words = {"on": NVDEC0_ENABLED, "off": NVDEC0_DISABLED, None: NVDEC0_ENABLED if enabled else NVDEC0_DISABLED}
    if lie in words:
        return words[lie]
    if lie is None or re.fullmatch("[0-9a-f]{2}", lie) is None:
        raise _unusable("nvdec0", lie or "", "write on, off or two hexadecimal digits")
    return int(lie, 16)


def _fwid(told: Told, fwid: bytes) -> bytes:
    lie = told.get("fwid")
    return fwid if lie is None else bytes.fromhex(lie) or golden_value("lie", "fwid", 0)


def _unusable(name: str, value: str, hint: str) -> InputError:
    return InputError(f"not a {name}: {value[:80]!r}", code="fault-argument", hint=hint)


# --- the bytes of a report --------------------------------------------------------------------------------------------


def opaque_legacy(entries: Sequence[Entry]) -> bytes:
    """Entries as u16 type, u16 size, data; little-endian."""
    return b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in entries)


def opaque_versioned(entries: Sequence[Entry], *, profile: int = 0, version: tuple[int, int, int] = (2, 0, 0)) -> bytes:
    """The 12-byte header, then entries as u16 type, u16 value type, u16 size, data; little-endian."""
    head = OPAQUE_MAGIC + struct.pack("<HBBBB", profile, *version, 0)
    return head + b"".join(
        struct.pack("<HHH", kind, _VALUE_TYPES.get(kind, _HARDWARE), len(data)) + data for kind, data in entries
    )


def write_report(
    *,
    nonce: bytes,
    responder_nonce: bytes,
    measurements: Sequence[Entry],
    opaque: bytes,
    sign: Callable[[bytes], bytes],
    version: int = _VERSION_1_1,
) -> bytes:
    """A whole report. ``sign`` gets request and response up to the end of the opaque data and returns 96 bytes.

    The request is GET_MEASUREMENTS for all blocks, signed, slot 0. The record has each of ``measurements`` (block index
    from 1, value) as a DMTF digest of mutable firmware (type 0x01); index 0xFD is a structured manifest (type 0x8A).
    """
    record = b"".join(
        struct.pack("<BBHBH", index & 0xFF, 1, len(value) + 3, 0x8A if index == _MANIFEST else 1, len(value)) + value
        for index, value in measurements
    )
    body = b"".join(
        (
            bytes((version, 0xE0, 0x01, 0xFF)) + nonce + b"\x00",
            bytes((version, 0x60, 0, 0, len(measurements))),
            len(record).to_bytes(3, "little") + record,
            responder_nonce,
            struct.pack("<H", len(opaque)) + opaque,
        )
    )
    return body + sign(body)


def _vbios_bytes(version: str) -> bytes:
    """A VBIOS version such as ``96.00.9F.00.01`` as the 8 bytes of entry 6: b3.b2.b1.b0.b4."""
    parts = bytes.fromhex(version.replace(".", ""))
    return bytes((parts[3], parts[2], parts[1], parts[0], parts[4], 0, 0, 0))


def _text(text: str, size: int) -> bytes:
    """ASCII with at least one NUL, padded to ``size``."""
    return text.encode()[: size - 1].ljust(size, b"\x00")
