"""What the simulated chips are: boards, firmware, which measurements they make, and which golden values belong to them.

Versions and board numbers are chosen so that no RIM id of the simulation is one of NVIDIA's: a cache that holds both
cannot mistake one for the other.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from nvattest._registry import NVDEC0_GOLDEN_INDEX, RIM_BLACKWELL_DRIVER, RIM_HOPPER_DRIVER, RIM_SWITCH_BIOS, RIM_VBIOS
from nvattest.errors import InputError
from nvattest.model import Architecture
from nvattest.testing.spdm_writer import BLOCK_SIZE, Board, Generation

__all__ = ["SILICON", "Silicon", "generation", "golden_value", "rim_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Silicon:
    """One kind of simulated device. ``golden`` maps the role of a RIM to the indices it makes active."""

    architecture: Architecture
    board: Board
    firmware: str
    block_count: int
    golden: Mapping[str, tuple[int, ...]]
    alternatives: Mapping[int, int]
    nvml_architecture: int

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of its RIMs: ``driver`` and ``vbios``, or ``bios``."""
        return tuple(self.golden)

    def counts(self) -> bytes:
        """How often each block was extended, u32 little-endian each (entry 12)."""
        active = {index for indices in self.golden.values() for index in indices}
        size = 64 if self.architecture is not Architecture.LS10 else 27
        return b"".join(struct.pack("<I", 1 if index in active else 0) for index in range(size))


def _range(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


SILICON: dict[Architecture, Silicon] = {
    Architecture.HOPPER: Silicon(
        architecture=Architecture.HOPPER,
        board=Board(
            chip="GH100",
            name="NVIDIA H100 80GB HBM3",
            board_id=0x3B1,
            chip_sku="882",
            project="9010",
            project_sku="0200",
            gpu_info=0x180,
            memory_info=0x1C000,
        ),
        firmware="96.00.F0.00.01",
        block_count=64,
        golden={"driver": (7, *_range(21, 40)), "vbios": (*_range(0, 6), *_range(8, 12))},
        alternatives={12: 4, 23: 2, 24: 2, 32: 2, 34: 2, 35: 4, 36: 2},
        nvml_architecture=9,
    ),
    Architecture.BLACKWELL: Silicon(
        architecture=Architecture.BLACKWELL,
        board=Board(
            chip="GB100",
            name="NVIDIA B200",
            board_id=0x66F,
            chip_sku="886",
            project="G925",
            project_sku="0220",
            gpu_info=0x1A0,
            memory_info=0x40000,
            project_sku_mod="0",
        ),
        firmware="97.00.F0.00.0F",
        block_count=64,
        golden={"driver": (14, *_range(24, 41)), "vbios": (*_range(0, 13), *_range(15, 20))},
        alternatives={12: 4, 23: 2, 32: 2, 35: 4, 36: 2},
        nvml_architecture=10,
    ),
    Architecture.LS10: Silicon(
        architecture=Architecture.LS10,
        board=Board(
            chip="LS10",
            name="NVIDIA NVSwitch LS10",
            board_id=0,
            chip_sku="890",
            project="5612",
            project_sku="0002",
            gpu_info=0,
            memory_info=0,
        ),
        firmware="96.10.F0.00.01",
        block_count=31,
        golden={"bios": _range(0, 30)},
        alternatives=dict.fromkeys(range(9, 26), 4),
        nvml_architecture=2,  # NSCQ's number for LS10; NVML knows no switches
    ),
}

# Drivers that the platforms have where nobody chose one: one per layout of opaque data.
DRIVERS = {"hopper": "550.00.07", "hopper-ppcie": "590.00.12", "blackwell": "575.00.32", "blackwell-mpt": "620.00.12"}


def generation(architecture: Architecture, driver: str) -> Generation:
    """Which opaque entries this driver sends: R620 and later versioned, R580 and later with a feature flag.

    Raises:
        InputError: a driver version that does not begin with a number.
    """
    branch = driver.partition(".")[0]
    if not branch.isascii() or not branch.isdigit():
        raise InputError(f"not a driver version: {driver[:40]!r}", code="driver-version", hint="write it as 590.00.12")
    number = int(branch)
    blackwell = architecture is Architecture.BLACKWELL
    if number >= 620:
        return Generation(
            versioned=True, version_entry=0, feature_flag=True, system_enable=blackwell, chip_info=blackwell
        )
    if number >= 580:
        return Generation(version_entry=1, feature_flag=True, system_enable=blackwell, chip_info=blackwell)
    return Generation(version_entry=0 if blackwell else None, system_enable=blackwell)


def golden_value(role: str, rim: str, index: int, alternative: int = 0) -> bytes:
    """The value that this RIM expects at this index: 48 bytes, a digest of what it is."""
    text = f"nvattest simulation\0{role}\0{rim}\0{index}\0{alternative}"
    return hashlib.sha384(text.encode()).digest()


def rim_id(silicon: Silicon, role: str, *, driver: str, firmware: str) -> str:
    """The id under which the RIM of this role is published."""
    board = silicon.board
    compact = firmware.replace(".", "").upper()
    if role == "driver":
        if silicon.architecture is Architecture.HOPPER:
            return RIM_HOPPER_DRIVER.format(driver=driver)
        return RIM_BLACKWELL_DRIVER.format(chip=board.chip, driver=driver)
    if role == "vbios":
        return RIM_VBIOS.format(
            project=board.project, project_sku=board.project_sku, chip_sku=board.chip_sku, vbios=compact
        )
    return RIM_SWITCH_BIOS.format(bios=compact)


def measured(silicon: Silicon, *, driver: str, firmware: str, nvdec0_matches: bool) -> list[tuple[int, bytes]]:
    """The measurements that an honest device makes, by golden index from 0; inactive ones are zero.

    Where the RIM has alternatives, the device matches the last: a verifier that only reads the first is found out.
    With ``nvdec0_matches`` false the value at index 35 matches nothing, which is right while NVDEC0 is off.
    """
    values = dict.fromkeys(range(silicon.block_count), bytes(BLOCK_SIZE))
    for role, indices in silicon.golden.items():
        name = rim_id(silicon, role, driver=driver, firmware=firmware)
        for index in indices:
            values[index] = golden_value(role, name, index, silicon.alternatives.get(index, 1) - 1)
    if not nvdec0_matches and NVDEC0_GOLDEN_INDEX in values:
        values[NVDEC0_GOLDEN_INDEX] = golden_value("engine off", "", NVDEC0_GOLDEN_INDEX)
    return sorted(values.items())
