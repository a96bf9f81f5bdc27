"""What the simulated driver answers to each call, as the bytes that the C side converts, and how a call fails.

What a board says beside attestation is what a real H100 80GB HBM3 with driver 580.159.04 says, and for other boards the
same with sizes of their own. Nothing runs on a simulated GPU, so that nothing changes.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.devices.state import SystemState

_DELAY_MAX: Final = 3600.0

# Return codes of NVML, then of NSCQ.
_INVALID_ARGUMENT, _NOT_SUPPORTED, _NOT_FOUND, _FUNCTION_NOT_FOUND, _INVALID_STATE, _UNKNOWN = 2, 3, 6, 13, 29, 999
_NSCQ_NOT_IMPLEMENTED, _NSCQ_INVALID_UUID = -1, -2
_NSCQ_LS10: Final = 2
_UUIDS_MAX: Final = 1000  # what fits into one reply
_NONCE_SIZE: Final = 32
_KEY_ROTATION_RANGE: Final = range(50, 66)
_LABEL: Final = re.compile(r"SWX-([0-9A-F]{8})-([0-9A-F]{4})-([0-9A-F]{4})-([0-9A-F]{4})-([0-9A-F]{12})")
_MIB: Final = 1 << 20
_RESERVED: Final = 480 * _MIB
# CUDA of each driver branch; a later driver than the last has the last one's.
_CUDA: Final = (
    (525, 12000), (530, 12010), (535, 12020), (545, 12030), (550, 12040), (555, 12050), (560, 12060), (565, 12070),
    (570, 12080), (575, 12090), (580, 13000), (590, 13010), (595, 13020),
)  # fmt: skip


class _Board(NamedTuple):
    memory_mib: int
    watts: int
    cores: int
    bus_width: int
    device_id: int
    capability: tuple[int, int] = (9, 0)


# By a part of the name; the first that fits.
_BOARDS: Final = {
    "H100 NVL": _Board(95830, 400, 16896, 6144, 0x2321),
    "H100": _Board(81559, 700, 16896, 5120, 0x2330),
    "H200": _Board(143771, 700, 16896, 6144, 0x2335),
    "H800": _Board(81559, 700, 16896, 5120, 0x2324),
    "H20": _Board(97871, 500, 9984, 6144, 0x2329),
    "B300": _Board(275040, 1100, 18944, 8192, 0x3182, (10, 3)),
    "B200": _Board(183359, 1000, 18944, 8192, 0x2901, (10, 0)),
    "RTX PRO 6000": _Board(97887, 600, 24064, 512, 0x2BB5, (12, 0)),
}

_FIXED: Final[dict[str, tuple[int, ...]]] = {
    **dict.fromkeys(("ComputeMode", "DisplayActive", "PerformanceState", "NumFans", "MultiGpuBoard"), (0,)),
    **dict.fromkeys(("MaxMigDeviceCount", "RunningProcesses"), (0,)),
    **dict.fromkeys(("MigMode", "UtilizationRates"), (0, 0)),
    **dict.fromkeys(("CurrPcieLinkGeneration", "MaxPcieLinkGeneration"), (5,)),
    **dict.fromkeys(("CurrPcieLinkWidth", "MaxPcieLinkWidth"), (16,)),
    **{f"{engine}Utilization": (0, 100000) for engine in ("Encoder", "Decoder", "Jpg", "Ofa")},
    "Brand": (14,),
    "DisplayMode": (1,),
    "EccMode": (1, 1),
    "PowerUsage": (111444,),
}
# Of the kind that the input names: NVML's sensors, thresholds, clock types, counters.
_CHOSEN: Final[dict[str, tuple[int, ...]]] = {
    "Temperature": (36,),
    "TemperatureThreshold": (95, 89, 95, 87),
    "ClockInfo": (360, 360, 2619, 765),
    "MaxClockInfo": (1980, 1980, 2619, 1545),
    "ApplicationsClock": (1980, 1980, 2619),
    "PcieThroughput": (0, 0),
}
# How many kinds NVML knows where the board has fewer: acoustic and GPS thresholds, the clock of the video engine.
_KINDS: Final = {"TemperatureThreshold": 8, "ApplicationsClock": 4}
_LONG: Final = {
    "TotalEnergyConsumption": 2497004, "CurrentClocksThrottleReasons": 1, "CurrentClocksEventReasons": 1,
    "TotalEccErrors": 0,
}  # fmt: skip
_OF_BOARD: Final = (
    "MinorNumber", "NumGpuCores", "MemoryBusWidth", "CudaComputeCapability", "PowerManagementLimit",
    "PowerManagementDefaultLimit", "EnforcedPowerLimit", "PowerManagementLimitConstraints", "MemoryInfo",
    "BAR1MemoryInfo", "PciInfo",
)  # fmt: skip
# A board without fans of its own, and no Windows.
_UNSUPPORTED: Final = ("FanSpeed", "DriverModel", "DriverModel_v2")
_BOARD_CALLS: Final = frozenset(
    {f"nvmlDeviceGet{name}" for names in (_FIXED, _CHOSEN, _LONG, _OF_BOARD, _UNSUPPORTED) for name in names}
    | {"nvmlDeviceIsMigDeviceHandle"}
)
# Texts of a GPU by the name of its attribute.
_TEXTS: Final = {
    "nvmlDeviceGetName": "name",
    "nvmlDeviceGetUUID": "uuid",
    "nvmlDeviceGetVbiosVersion": "vbios_version",
    "nvmlDeviceGetBoardPartNumber": "board_part_number",
    "nvmlDeviceGetSerial": "serial",
    "nvmlDeviceGetInforomImageVersion": "inforom_version",
}
_FINDERS: Final = tuple(f"nvmlDeviceGetHandleBy{what}" for what in ("UUID", "Serial", "PciBusId"))
CALLS: Final = frozenset((
    *_BOARD_CALLS, *_TEXTS, *_FINDERS, "nvmlInit", "nvmlShutdown", "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion", "nvmlSystemGetCudaDriverVersion", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetArchitecture", "nvmlDeviceGetBoardId", "nvmlDeviceGetPersistenceMode", "nvmlDeviceSetPersistenceMode",
    "nvmlSystemGetConfComputeState", "nvmlSystemGetConfComputeSettings", "nvmlSystemGetConfComputeCapabilities",
    "nvmlSystemGetConfComputeGpusReadyState", "nvmlSystemSetConfComputeGpusReadyState",
    "nvmlSystemGetConfComputeKeyRotationThresholdInfo", "nvmlSystemSetConfComputeKeyRotationThresholdInfo",
    "nvmlDeviceGetConfComputeGpuAttestationReport", "nvmlDeviceGetConfComputeGpuCertificate",
    "nvmlDeviceGetConfComputeMemSizeInfo", "nvmlDeviceGetConfComputeProtectedMemoryUsage",
    "nvmlDeviceSetConfComputeUnprotectedMemSize", "nscq_session_create", "nscq_session_destroy",
    "nscq_session_set_input", "nscq:uuid", "nscq:arch", "nscq:version", "nscq:pcie_mode", "nscq:attestation_report",
    "nscq:certificate",
))  # fmt: skip
"""All calls that the simulated libraries ask about, by the names that faults have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverState:
    """System-wide answers of NVML and NSCQ; the numbers are those of the C interface.

    The default is a machine with confidential computing on and GPUs that do not yet accept work.
    """

    cc_feature: int = 1
    dev_tools: int = 0
    environment: int = 2
    """0 unavailable, 1 simulation, 2 production."""
    multi_gpu_mode: int = 0
    """0 none, 1 protected PCIe, 2 NVLink encryption."""
    ready: int = 0
    cpu_caps: int = 3
    gpus_caps: int = 1
    driver_version: str | None = None
    """None: that of the first GPU."""
    key_rotation: int = 60
    protected_kib: int = 83886080
    unprotected_kib: int = 0
    persistence: int = 1
    pcie_mode: int = 3
    """NSCQ: -1 unknown, 0 disabled, 1 enabled, 2 failure, 3 locked."""

    @classmethod
    def cc_off(cls) -> DriverState:
        """Confidential computing off, as a real H200 with driver 580.159.04 answers."""
        return cls(cc_feature=0, environment=0, cpu_caps=0, protected_kib=0, unprotected_kib=146591680)

    @classmethod
    def of(cls, source: Any) -> DriverState:
        """The state that fits a platform: PPCIE with switches, NVLink encryption in multi-GPU passthrough."""
        if getattr(source, "switches", ()):
            return cls(cc_feature=0, multi_gpu_mode=1)
        return cls(multi_gpu_mode=2 if getattr(source, "mode", "") == "mpt" else 0)

    @property
    def gives_evidence(self) -> bool:
        """Whether GPUs answer for evidence at all: with CC on, or in protected PCIe mode."""
        return self.cc_feature == 1 or self.multi_gpu_mode == 1

    def system(self, *, driver_version: str, gpu_count: int) -> SystemState:
        """The same as ``devices.read_state`` reads it through the library, for simulations within a process."""
        from nvattest.devices.state import SystemState

        driver_version = self.driver_version or driver_version
        return SystemState(
            driver_version=driver_version,
            nvml_version=nvml_version(driver_version),
            gpu_count=gpu_count,
            cc_feature=self.cc_feature,
            dev_tools=bool(self.dev_tools),
            environment=self.environment,
            multi_gpu_mode=self.multi_gpu_mode,
            ready=self.ready == 1,
            cpu_capability=self.cpu_caps,
            gpus_capable=bool(self.gpus_caps),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a call does instead of, or before, its right answer.

    Attributes:
        return_code: returned instead of the answer (999 unknown, 3 not supported, 15 GPU lost, 10 timeout ...).
        delay: seconds to wait first.
        hang: never answer while the server lives.
        size: the size or count that the driver claims, whatever it gives.
        content: bytes or text given instead of the right ones.
    """

    return_code: int | None = None
    delay: float = 0.0
    hang: bool = False
    size: int | None = None
    content: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> tuple[str, Fault]:
        """Read ``CALL=999``, ``CALL=hang``, ``CALL=delay:SECONDS`` or ``CALL=size:N``; CALL may end in ``@DEVICE``.

        Returns:
            The key for ``DriverServer.faults`` and the fault.

        Raises:
            InputError: another form.
        """
        name, _, what = text.partition("=")
        call = name.partition("@")[0]
        if call and what and call not in CALLS:
            # A fault of a call that no program makes would let its test pass.
            near = get_close_matches(call, CALLS, n=3)
            raise InputError(
                f"no driver call is named {call[:80]!r}",
                code="driver-fault",
                hint=f"did you mean {' or '.join(near)}?" if near else "nvattest simulate --list names them",
            )
        kind, _, value = what.partition(":")
        try:
            if what == "hang":
                fault = cls(hang=True)
            elif kind == "delay" and 0 <= float(value) <= _DELAY_MAX:
                fault = cls(delay=float(value))
            elif kind == "size":
                fault = cls(size=int(value, 0) & 0xFFFFFFFF)
            else:
                fault = cls(return_code=int(what))
            if call and (name == call or int(name[len(call) + 1 :]) >= 0):
                return name, fault
        except ValueError:
            pass
        raise InputError(
            f"not a driver fault: {text[:120]!r}",
            code="driver-fault",
            hint="write nvmlDeviceGetName=999, nvmlDeviceGetName@2=hang, ...=delay:1.5 or ...=size:65536",
        )


def cuda_version(driver: str) -> int:
    """CUDA's version as NVML says it, 1000 for each major and 10 for each minor number, of a driver."""
    branch = int(driver.partition(".")[0] or 0)
    return next((cuda for first, cuda in reversed(_CUDA) if branch >= first), _CUDA[0][1])


def nvml_version(driver: str) -> str:
    """NVML's version with this driver: the major number of CUDA before the driver's own."""
    return f"{cuda_version(driver) // 1000}.{driver}"


# --- the answers ------------------------------------------------------------------------------------------------------


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


def _u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *(value & 0xFFFFFFFF for value in values))


def _u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def _switch_label(uuid: bytes) -> str:
    digits = uuid.hex().upper()
    return f"SWX-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _text(value: str, fault: Fault) -> Reply:
    return Reply(0, value.encode() if fault.content is None else fault.content)


def _sized(content: bytes, fault: Fault) -> bytes:
    given = content if fault.content is None else fault.content
    return _u32(len(given) if fault.size is None else fault.size) + given


def _is_found(call: str, wanted: str, index: int, gpu: Any) -> bool:
    if call == "nvmlDeviceGetHandleByPciBusId":
        # Each GPU has a bus of its own.
        bus = f"{index + 1:02X}:00.0"
        return wanted.upper() in (bus, f"0000:{bus}", f"00000000:{bus}")
    return bool(getattr(gpu, "uuid" if call == "nvmlDeviceGetHandleByUUID" else "serial", None) == wanted)


def _packed_version(driver: str) -> int:
    """NSCQ's version of the driver: 8 bits of the major number, 12 each of minor number and patch."""
    numbers = [int(part) for part in driver.split(".") if part.isdecimal()]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return (major & 0xFF) << 24 | (minor & 0xFFF) << 12 | patch & 0xFFF


def board_answer(call: str, index: int, name: str, data: bytes) -> Reply:
    """The answer about the board at rest, for the GPU of this index and name."""
    what = call.removeprefix("nvmlDeviceGet")
    if what in _UNSUPPORTED:
        return Reply(_NOT_SUPPORTED)
    if what in _CHOSEN:
        (which,) = struct.unpack("<I", data)
        if which < len(_CHOSEN[what]):
            return Reply(0, _u32(_CHOSEN[what][which]))
        return Reply(_NOT_SUPPORTED if which < _KINDS.get(what, 0) else _INVALID_ARGUMENT)
    if what in _LONG:
        return Reply(0, _u64(_LONG[what]))
    if what in _FIXED:
        return Reply(0, _u32(*_FIXED[what]))
    board = next((known for part, known in _BOARDS.items() if part in name), _BOARDS["H100"])
    total, milliwatts = board.memory_mib * _MIB, board.watts * 1000
    answers = {
        "nvmlDeviceIsMigDeviceHandle": _u32(0),
        "MinorNumber": _u32(index),
        "NumGpuCores": _u32(board.cores),
        "MemoryBusWidth": _u32(board.bus_width),
        "CudaComputeCapability": _u32(*board.capability),
        "PowerManagementLimitConstraints": _u32(200000, milliwatts),
        "MemoryInfo": _u64(total, _RESERVED, total - _RESERVED, 0),
        "BAR1MemoryInfo": _u64(1 << 37, (1 << 37) - _MIB, _MIB),
        "PciInfo": _u32(0, index + 1, 0, board.device_id << 16 | 0x10DE, 0x16C110DE),
    }
    return Reply(0, answers.get(what, _u32(milliwatts)))


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
            return _text(nvml_version(self._driver(state)), fault)
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
        mode = (state.environment, state.cc_feature, state.dev_tools)
        answers = {
            "nvmlSystemGetConfComputeKeyRotationThresholdInfo": _u64(state.key_rotation),
            "nvmlSystemGetCudaDriverVersion": _u32(cuda_version(self._driver(state))),
            "nvmlDeviceGetCount": _u32(len(self._gpus) if fault.size is None else fault.size),
            "nvmlSystemGetConfComputeGpusReadyState": _u32(state.ready),
            "nvmlSystemGetConfComputeState": _u32(*mode),
            "nvmlSystemGetConfComputeSettings": _u32(*mode, state.multi_gpu_mode),
            "nvmlSystemGetConfComputeCapabilities": _u32(state.cpu_caps, state.gpus_caps),
        }
        return Reply(0, answers[name]) if name in answers else Reply(_FUNCTION_NOT_FOUND)

    def _driver(self, state: DriverState) -> str:
        return state.driver_version or (str(self._gpus[0].driver_version) if self._gpus else "0.0")

    def _gpu(self, name: str, index: int, data: bytes, state: DriverState, fault: Fault) -> Reply:
        gpu = self._gpus[index]
        if name in ("nvmlDeviceGetConfComputeGpuAttestationReport", "nvmlDeviceGetConfComputeGpuCertificate"):
            if not state.gives_evidence:
                return Reply(_UNKNOWN)  # what a real driver says with CC off
            return Reply(0, _sized(gpu.report(data) if name.endswith("Report") else gpu.chain_pem, fault))
        if name == "nvmlDeviceSetConfComputeUnprotectedMemSize":
            (kib,) = struct.unpack("<Q", data)
            if state.ready:
                return Reply(_INVALID_STATE)
            total = state.protected_kib + state.unprotected_kib
            if kib > total:
                return Reply(_INVALID_ARGUMENT)
            return Reply(0, changes={"unprotected_kib": kib, "protected_kib": total - kib})
        if name == "nvmlDeviceSetPersistenceMode":
            (mode,) = struct.unpack("<I", data)
            return Reply(0, changes={"persistence": mode}) if mode in (0, 1) else Reply(_INVALID_ARGUMENT)
        if name in _TEXTS:
            value = getattr(gpu, _TEXTS[name], None)
            return Reply(_NOT_SUPPORTED) if value is None else _text(value, fault)
        if name in _BOARD_CALLS:
            return board_answer(name, index, gpu.name, data)
        protected = state.protected_kib
        answers = {
            "nvmlDeviceGetHandleByIndex": b"",
            "nvmlDeviceGetConfComputeMemSizeInfo": _u64(protected, state.unprotected_kib),
            "nvmlDeviceGetConfComputeProtectedMemoryUsage": _u64(protected << 10, protected << 10, 0),
            "nvmlDeviceGetArchitecture": _u32(gpu.architecture if fault.size is None else fault.size),
            "nvmlDeviceGetBoardId": _u32(getattr(gpu, "board_id", 0x100 * (index + 1))),
            "nvmlDeviceGetPersistenceMode": _u32(state.persistence),
        }
        return Reply(0, answers[name]) if name in answers else Reply(_FUNCTION_NOT_FOUND)

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
            answer = struct.pack("b", state.pcie_mode)
        elif name == "nscq:attestation_report":
            answer = _sized(switch.report(nonce), fault)
        elif name == "nscq:certificate":
            answer = _sized(switch.chain_pem, fault)
        else:
            return Reply(_NSCQ_NOT_IMPLEMENTED)
        return Reply(0, uuids[label] + answer)
