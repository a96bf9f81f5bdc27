"""What a simulated board says of itself beside attestation: what monitors show of a GPU at rest.

The answers are those of a real H100 80GB HBM3 with driver 580.159.04, and for other boards the same with sizes of their
own. Nothing runs on a simulated GPU, so that nothing changes.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["NUMBERS", "board_answer", "cuda_version"]

_INVALID_ARGUMENT: Final = 2
_NOT_SUPPORTED: Final = 3
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
    "Brand": (14,),
    "ComputeMode": (0,),
    "DisplayActive": (0,),
    "DisplayMode": (1,),
    "PerformanceState": (0,),
    "PowerUsage": (111444,),
    "NumFans": (0,),
    "CurrPcieLinkGeneration": (5,),
    "MaxPcieLinkGeneration": (5,),
    "CurrPcieLinkWidth": (16,),
    "MaxPcieLinkWidth": (16,),
    "MultiGpuBoard": (0,),
    "MaxMigDeviceCount": (0,),
    "MigMode": (0, 0),
    "EccMode": (1, 1),
    "UtilizationRates": (0, 0),
    "RunningProcesses": (0,),
    **{f"{engine}Utilization": (0, 100000) for engine in ("Encoder", "Decoder", "Jpg", "Ofa")},
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

NUMBERS: Final = frozenset(
    {f"nvmlDeviceGet{name}" for names in (_FIXED, _CHOSEN, _LONG, _OF_BOARD, _UNSUPPORTED) for name in names}
    | {"nvmlDeviceIsMigDeviceHandle"}
)
"""The calls that ``board_answer`` answers."""


def cuda_version(driver: str) -> int:
    """CUDA's version as NVML says it, 1000 for each major and 10 for each minor number, of a driver."""
    branch = int(driver.partition(".")[0] or 0)
    return next((cuda for first, cuda in reversed(_CUDA) if branch >= first), _CUDA[0][1])


def bus_of(index: int) -> int:
    """The PCI bus of a GPU; each has one of its own."""
    return index + 1


def board_answer(call: str, index: int, name: str, data: bytes) -> tuple[int, bytes]:
    """Return code and data of one of ``NUMBERS`` for the GPU of this index and name."""
    what = call.removeprefix("nvmlDeviceGet")
    if what in _UNSUPPORTED:
        return _NOT_SUPPORTED, b""
    if call == "nvmlDeviceIsMigDeviceHandle":
        return 0, _u32(0)
    if what in _CHOSEN:
        (which,) = struct.unpack("<I", data)
        if which < len(_CHOSEN[what]):
            return 0, _u32(_CHOSEN[what][which])
        return (_NOT_SUPPORTED if which < _KINDS.get(what, 0) else _INVALID_ARGUMENT), b""
    if what in _LONG:
        return 0, struct.pack("<Q", _LONG[what])
    if what in _FIXED:
        return 0, _u32(*_FIXED[what])
    board = next((known for part, known in _BOARDS.items() if part in name), _BOARDS["H100"])
    total, milliwatts = board.memory_mib * _MIB, board.watts * 1000
    return 0, {
        "MinorNumber": _u32(index),
        "NumGpuCores": _u32(board.cores),
        "MemoryBusWidth": _u32(board.bus_width),
        "CudaComputeCapability": _u32(*board.capability),
        "PowerManagementLimitConstraints": _u32(200000, milliwatts),
        "MemoryInfo": struct.pack("<4Q", total, _RESERVED, total - _RESERVED, 0),
        "BAR1MemoryInfo": struct.pack("<3Q", 1 << 37, (1 << 37) - _MIB, _MIB),
        "PciInfo": _u32(0, bus_of(index), 0, board.device_id << 16 | 0x10DE, 0x16C110DE),
    }.get(what, _u32(milliwatts))


def _u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)
