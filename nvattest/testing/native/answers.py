"""The right answer to each driver call, as the bytes that the C side converts."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nvattest.testing.native.state import NUMBERS, DriverState, Fault, board_answer, bus_of

__all__ = ["Answers", "Reply", "switch_uuid"]

_INVALID_ARGUMENT: Final = 2
_NOT_SUPPORTED: Final = 3
_NOT_FOUND: Final = 6
_FUNCTION_NOT_FOUND: Final = 13
_INVALID_STATE: Final = 29
_UNKNOWN: Final = 999
_NSCQ_NOT_IMPLEMENTED: Final = -1
_NSCQ_INVALID_UUID: Final = -2
_NSCQ_LS10: Final = 2
_UUIDS_MAX: Final = 1000  # what fits into one reply
_NONCE_SIZE: Final = 32
_FINDERS: Final = frozenset(f"nvmlDeviceGetHandleBy{what}" for what in ("UUID", "Serial", "PciBusId"))
_KEY_ROTATION_RANGE: Final = range(50, 66)
_LABEL: Final = re.compile(r"SWX-([0-9A-F]{8})-([0-9A-F]{4})-([0-9A-F]{4})-([0-9A-F]{4})-([0-9A-F]{12})")


@dataclass(frozen=True, slots=True)
class Reply:
    """A return code, the data that goes with success, and what the call changes in the driver's state."""

    code: int
    data: bytes = b""
    changes: Mapping[str, Any] = field(default_factory=dict)


def switch_uuid(text: str) -> bytes:
    """The 16 bytes of a switch's uuid: those of a label ``SWX-…``, else the start of the text's SHA-256."""
    found = _LABEL.fullmatch(text)
    return bytes.fromhex("".join(found.groups())) if found else hashlib.sha256(text.encode()).digest()[:16]


def _switch_label(uuid: bytes) -> str:
    digits = uuid.hex().upper()
    return f"SWX-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *(value & 0xFFFFFFFF for value in values))


def _text(value: str, fault: Fault) -> Reply:
    return Reply(0, value.encode() if fault.content is None else fault.content)


def _sized(content: bytes, fault: Fault) -> bytes:
    given = content if fault.content is None else fault.content
    return _u32(len(given) if fault.size is None else fault.size) + given


def _is_found(call: str, wanted: str, index: int, gpu: Any) -> bool:
    if call == "nvmlDeviceGetHandleByPciBusId":
        bus = f"{bus_of(index):02X}:00.0"
        return wanted.upper() in (bus, f"0000:{bus}", f"00000000:{bus}")
    return bool(getattr(gpu, "uuid" if call == "nvmlDeviceGetHandleByUUID" else "serial", None) == wanted)


def _packed_version(driver: str) -> int:
    """NSCQ's version of the driver: 8 bits of the major number, 12 each of minor number and patch."""
    numbers = [int(part) for part in driver.split(".") if part.isdigit()]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return (major & 0xFF) << 24 | (minor & 0xFFF) << 12 | patch & 0xFFF


class Answers:
    """Answers calls for one platform; holds no state of its own."""

    def __init__(self, source: Any) -> None:
        self._gpus: tuple[Any, ...] = tuple(getattr(source, "gpus", ()))
        switches = tuple(getattr(source, "switches", ()))
        self._switches: dict[str, Any] = {_switch_label(switch_uuid(item.uuid)): item for item in switches}

    def switch_of(self, name: str, data: bytes) -> int | None:
        """The number of the switch that a call of NSCQ is about; None where it is about none or all."""
        label = data[_NONCE_SIZE:].decode("ascii", "replace") if name.startswith("nscq:") else ""
        return list(self._switches).index(label) if label in self._switches else None

    def give(self, name: str, device: int | None, data: bytes, *, state: DriverState, fault: Fault) -> Reply:
        """The answer to the call ``name``; unknown calls get FUNCTION_NOT_FOUND."""
        if name.startswith("nscq"):
            return self._nscq(name, data, state, fault)
        if device is not None:
            if device >= len(self._gpus):
                return Reply(_INVALID_ARGUMENT)
            return self._gpu(name, device, data, state, fault)
        return self._system(name, data, state, fault)

    def _system(self, name: str, data: bytes, state: DriverState, fault: Fault) -> Reply:
        if name in ("nvmlInit", "nvmlShutdown"):
            return Reply(0)
        if name == "nvmlSystemGetDriverVersion":
            return _text(self._driver(state), fault)
        if name == "nvmlSystemGetNVMLVersion":
            return _text(state.nvml_of(self._driver(state)), fault)
        if name in _FINDERS:
            wanted = data.decode("ascii", "replace")
            found = [index for index, gpu in enumerate(self._gpus) if _is_found(name, wanted, index, gpu)]
            return Reply(0, _u32(found[0])) if found else Reply(_NOT_FOUND)
        if name == "nvmlSystemSetConfComputeGpusReadyState":
            (value,) = struct.unpack("<I", data)
            if value not in (0, 1):
                return Reply(_INVALID_ARGUMENT)
            return Reply(0, changes={"ready": value}) if state.gives_evidence else Reply(_NOT_SUPPORTED)
        if name == "nvmlSystemSetConfComputeKeyRotationThresholdInfo":
            (value,) = struct.unpack("<Q", data)
            if value not in _KEY_ROTATION_RANGE:
                return Reply(_INVALID_ARGUMENT)
            # NVML documents that the threshold is fixed once the GPUs accept work.
            return Reply(_INVALID_STATE) if state.ready else Reply(0, changes={"key_rotation": value})
        if name == "nvmlSystemGetConfComputeKeyRotationThresholdInfo":
            return Reply(0, struct.pack("<Q", state.key_rotation))
        numbers = {
            "nvmlSystemGetCudaDriverVersion": (state.cuda_of(self._driver(state)),),
            "nvmlDeviceGetCount": (len(self._gpus) if fault.size is None else fault.size,),
            "nvmlSystemGetConfComputeGpusReadyState": (state.ready,),
            "nvmlSystemGetConfComputeState": (state.environment, state.cc_feature, state.dev_tools),
            "nvmlSystemGetConfComputeSettings": (
                state.environment,
                state.cc_feature,
                state.dev_tools,
                state.multi_gpu_mode,
            ),
            "nvmlSystemGetConfComputeCapabilities": (state.cpu_caps, state.gpus_caps),
        }.get(name)
        return Reply(_FUNCTION_NOT_FOUND) if numbers is None else Reply(0, _u32(*numbers))

    def _driver(self, state: DriverState) -> str:
        return state.driver_version or (str(self._gpus[0].driver_version) if self._gpus else "0.0")

    def _gpu(self, name: str, index: int, data: bytes, state: DriverState, fault: Fault) -> Reply:
        gpu = self._gpus[index]
        if name == "nvmlDeviceGetHandleByIndex":
            return Reply(0)
        if name == "nvmlDeviceGetConfComputeGpuAttestationReport":
            if not state.gives_evidence:
                return Reply(_UNKNOWN)  # what a real driver says with CC off
            return Reply(0, _sized(gpu.report(data), fault))
        if name == "nvmlDeviceGetConfComputeGpuCertificate":
            return Reply(0, _sized(gpu.chain_pem, fault)) if state.gives_evidence else Reply(_UNKNOWN)
        if name == "nvmlDeviceSetConfComputeUnprotectedMemSize":
            (kib,) = struct.unpack("<Q", data)
            if state.ready:
                return Reply(_INVALID_STATE)
            total = state.protected_kib + state.unprotected_kib
            if kib > total:
                return Reply(_INVALID_ARGUMENT)
            return Reply(0, changes={"unprotected_kib": kib, "protected_kib": total - kib})
        if name == "nvmlDeviceGetConfComputeMemSizeInfo":
            return Reply(0, struct.pack("<QQ", state.protected_kib, state.unprotected_kib))
        if name == "nvmlDeviceGetConfComputeProtectedMemoryUsage":
            return Reply(0, struct.pack("<QQQ", state.protected_kib << 10, state.protected_kib << 10, 0))
        if name == "nvmlDeviceSetPersistenceMode":
            (mode,) = struct.unpack("<I", data)
            return Reply(0, changes={"persistence": mode}) if mode in (0, 1) else Reply(_INVALID_ARGUMENT)
        texts = {
            "nvmlDeviceGetName": "name",
            "nvmlDeviceGetUUID": "uuid",
            "nvmlDeviceGetVbiosVersion": "vbios_version",
            "nvmlDeviceGetBoardPartNumber": "board_part_number",
            "nvmlDeviceGetSerial": "serial",
            "nvmlDeviceGetInforomImageVersion": "inforom_version",
        }
        if name in texts:
            value = getattr(gpu, texts[name], None)
            return Reply(_NOT_SUPPORTED) if value is None else _text(value, fault)
        if name == "nvmlDeviceGetArchitecture":
            return Reply(0, _u32(gpu.architecture if fault.size is None else fault.size))
        if name == "nvmlDeviceGetBoardId":
            return Reply(0, _u32(getattr(gpu, "board_id", 0x100 * (index + 1))))
        if name == "nvmlDeviceGetPersistenceMode":
            return Reply(0, _u32(state.persistence))
        if name in NUMBERS:
            return Reply(*board_answer(name, index, gpu.name, data))
        return Reply(_FUNCTION_NOT_FOUND)

    def _nscq(self, name: str, data: bytes, state: DriverState, fault: Fault) -> Reply:
        if name in ("nscq_session_create", "nscq_session_destroy", "nscq_session_set_input"):
            return Reply(0)
        uuids = {label: switch_uuid(switch.uuid) for label, switch in self._switches.items()}
        if name == "nscq:uuid":
            listed = list(uuids.values())
            count = len(listed) if fault.size is None else min(fault.size, _UUIDS_MAX)
            return Reply(0, b"".join((listed * (count + 1))[:count]))
        if name == "nscq:arch":
            number = _NSCQ_LS10 if fault.size is None else fault.size
            return Reply(0, b"".join(uuid + struct.pack("b", number) for uuid in uuids.values()))
        if name == "nscq:version":
            return Reply(0, _u32(_packed_version(self._driver(state))))
        nonce, label = data[:_NONCE_SIZE], data[_NONCE_SIZE:].decode("ascii", "replace")
        switch = self._switches.get(label)
        if switch is None:
            return Reply(_NSCQ_INVALID_UUID)
        if name == "nscq:pcie_mode":
            return Reply(0, uuids[label] + struct.pack("b", state.pcie_mode))
        if name == "nscq:attestation_report":
            return Reply(0, uuids[label] + _sized(switch.report(nonce), fault))
        if name == "nscq:certificate":
            return Reply(0, uuids[label] + _sized(switch.chain_pem, fault))
        return Reply(_NSCQ_NOT_IMPLEMENTED)
