"""What the simulated chips are: boards, firmware, which measurements they make, and which golden values belong to them.

Versions and board numbers are chosen so that no RIM id of the simulation is one of NVIDIA's: a cache that holds both
cannot mistake one for the other.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nvattest._registry import NVDEC0_GOLDEN_INDEX, RIM_BLACKWELL_DRIVER, RIM_HOPPER_DRIVER, RIM_SWITCH_BIOS, RIM_VBIOS
from nvattest.errors import InputError
from nvattest.model import Architecture

PLATFORMS: Mapping[str, str] = {
    "hopper-1": "one Hopper GPU (H100), NVDEC0 off, opaque data as before R570",
    "hopper-1-r535": "the same with a driver of R535: no firmware id and no mode in the report; also r545 to r575",
    "hopper-1-r590": "the same with a driver of R590, which states the mode (spt); also r580, r620",
    "hopper-8-ppcie": "eight Hopper GPUs and four LS10 switches in protected PCIe, the topology closed",
    "h100nvl-1": "one H100 NVL",
    "h200-8-ppcie": "eight H200 and four switches, a driver of R570",
    "h800-8-ppcie": "eight H800 and four switches; ten of eighteen NVLinks of each GPU are disabled (PDI 0)",
    "h20-8-ppcie": "eight H20 and four switches",
    "blackwell-1": "one Blackwell GPU (B200), legacy opaque data",
    "blackwell-8-mpt": "eight Blackwell GPUs in multi-GPU passthrough, versioned opaque data, a minimum SVN",
    "b300-8-mpt": "eight B300 (GB110) in multi-GPU passthrough",
    "rtxpro6000-1": "one RTX PRO 6000: certificates of the die family GB20X, a report of GB202; up to 16",
    "rubin-1": "one Rubin GPU (GR100), for which no reference values are published: never trusted",
}

LINKS = 18
BLOCK_SIZE = 48
# A block after the 64 measurements, of another kind: the manifest of a Rubin (CBOR tag 570).
MANIFEST_BLOCK = 0xFD
_MANIFEST = bytes.fromhex("d9023a") + b"\xa1\x00\x80"


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
class Silicon:
    """One kind of simulated device, and what it says about itself and the board it sits on.

    ``die`` is what its certificates call the chip, ``chip`` what its report calls it. ``golden`` maps the role of
    a RIM to the indices it makes active; no role means that no RIM is published. ``zeros`` are alternatives that a
    measurement which was never extended matches, by index. ``links`` of its 18 NVLinks are enabled. ``modes`` are those
    it can be in; several GPUs of a node are in the last but PPCIE by default.
    """

    architecture: Architecture
    nvml_architecture: int
    die: str
    chip: str
    name: str
    firmware: str
    project: str
    project_sku: str
    chip_sku: str
    golden: Mapping[str, tuple[int, ...]]
    alternatives: Mapping[int, int]
    project_sku_mod: str = ""
    chip_sku_mod: str = "0"
    board_id: int = 0
    gpu_info: int = 0
    memory_info: int = 0
    block_count: int = 64
    zeros: Mapping[int, int] = field(default_factory=dict)
    links: int = LINKS
    modes: tuple[str, ...] = ("spt", "mpt", "ppcie")

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of its RIMs: ``driver`` and ``vbios``, or ``bios``."""
        return tuple(self.golden)

    @property
    def fwid(self) -> bytes:
        """The digest of the firmware that the leaf certifies: 48 bytes."""
        return golden_value("fwid", self.die, 0)

    def counts(self) -> bytes:
        """How often each block was extended, u32 little-endian each (entry 12)."""
        active = {index for indices in self.golden.values() for index in indices}
        size = 64 if self.architecture is not Architecture.LS10 else 27
        return b"".join(struct.pack("<I", 1 if index in active else 0) for index in range(size))

    def values_of(self, role: str, rim: str, index: int, word: str = "") -> list[bytes]:
        """The alternatives that this RIM expects at this index; ``word`` makes those of another issue."""
        count, zero = self.alternatives.get(index, 1), self.zeros.get(index)
        return [
            bytes(BLOCK_SIZE) if number == zero else golden_value(word or role, rim, index, number)
            for number in range(count)
        ]


def _range(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


_HOPPER = Silicon(
    architecture=Architecture.HOPPER,
    nvml_architecture=9,
    die="GH100",
    chip="GH100",
    name="NVIDIA H100 80GB HBM3",
    firmware="96.00.F0.00.01",
    project="9010",
    project_sku="0200",
    chip_sku="882",
    board_id=0x3B1,
    gpu_info=0x180,
    memory_info=0x1C000,
    golden={"driver": (7, *_range(21, 40)), "vbios": (*_range(0, 6), *_range(8, 12))},
    alternatives={12: 4, 23: 2, 24: 2, 32: 2, 34: 2, 35: 4, 36: 2},
    zeros={12: 0, 24: 1},
)
_BLACKWELL = Silicon(
    architecture=Architecture.BLACKWELL,
    nvml_architecture=10,
    die="GB100",
    chip="GB100",
    name="NVIDIA B200",
    firmware="97.00.F0.00.0F",
    project="G925",
    project_sku="0220",
    project_sku_mod="0",
    chip_sku="886",
    board_id=0x66F,
    gpu_info=0x1A0,
    memory_info=0x40000,
    golden={"driver": (14, *_range(24, 41)), "vbios": (*_range(0, 13), *_range(15, 20))},
    alternatives={12: 4, 23: 2, 32: 2, 35: 4, 36: 2},
    zeros={12: 0},
    modes=("spt", "mpt"),
)
# fmt: off
_RUBIN = replace(
    _BLACKWELL, architecture=Architecture.RUBIN, nvml_architecture=13, die="GR100", chip="GR100", name="NVIDIA VR200",
    firmware="99.00.F0.00.00", project="G950", project_sku="0200", chip_sku="887", board_id=0x81D, gpu_info=0x1C0,
    memory_info=0, golden={},
)
LS10 = Silicon(
    architecture=Architecture.LS10, nvml_architecture=2,  # NSCQ's number for LS10; NVML knows no switches
    die="LS_10", chip="LS10", name="NVIDIA NVSwitch LS10", firmware="96.10.F0.00.01", project="5612",
    project_sku="0002", chip_sku="890", block_count=31, golden={"bios": _range(0, 30)},
    alternatives=dict.fromkeys(range(9, 26), 4),
)

# The GPUs of a platform's name. The first two words are older than the models: they are an H100 and a B200.
MODELS: dict[str, Silicon] = {
    "hopper": _HOPPER,
    "blackwell": _BLACKWELL,
    "h100nvl": replace(
        _HOPPER, name="NVIDIA H100 NVL", firmware="96.00.F1.00.02", project_sku="0210", chip_sku="886",
        modes=("spt", "mpt"),
    ),
    "h200": replace(
        _HOPPER, name="NVIDIA H200", firmware="96.00.F2.00.02", project="G920", project_sku="0280", chip_sku="895",
    ),
    # Export boards: of eighteen NVLinks an H800 has eight, an H20 all.
    "h800": replace(
        _HOPPER, name="NVIDIA H800", firmware="96.00.F3.00.0E", project="G920", project_sku="0205", chip_sku="865",
        links=8,
    ),
    "h20": replace(
        _HOPPER, name="NVIDIA H20", firmware="96.00.F4.00.06", project="G920", project_sku="0240", chip_sku="894",
    ),
    "b300": replace(
        _BLACKWELL, die="GB110", chip="GB110", name="NVIDIA B300 SXM6 AC", firmware="97.10.F0.00.0C",
        project_sku="0230", chip_sku="888",
    ),
    # Its certificates name the die family, its report the chip; it has no NVLink.
    "rtxpro6000": replace(
        _BLACKWELL, die="GB20X", chip="GB202", name="NVIDIA RTX PRO 6000 Blackwell Server Edition",
        firmware="98.02.F0.00.02", project="G953", project_sku="0200", chip_sku="889", modes=("spt",),
    ),
    "rubin": _RUBIN,
}
# fmt: on

# Drivers that the platforms have where no other is chosen: those of the first two words are one per layout of opaque
# data, the others the first that supports the GPU.
DRIVERS = {
    "hopper": "550.00.07", "hopper-ppcie": "590.00.12", "blackwell": "575.00.32", "blackwell-mpt": "620.00.12",
    "h200-ppcie": "570.00.17", "h800-ppcie": "590.00.12", "h20-ppcie": "580.00.65", "b300": "590.00.48",
    "rtxpro6000": "580.00.95", "rubin": "620.00.54",
}  # fmt: skip
# One driver of each branch in which reports changed, by the number that a platform's name may end in.
BRANCHES = {
    "535": "535.00.05", "545": "545.00.08", "550": "550.00.07", "570": "570.00.17", "575": "575.00.32",
    "580": "580.00.65", "590": "590.00.12", "620": "620.00.12",
}  # fmt: skip


def default_driver(model: str, mode: str) -> str:
    """The driver of a platform for which no other is chosen."""
    silicon = MODELS[model]
    family = silicon.architecture.value.lower()
    names = (f"{model}-{mode}", model, f"{family}-{mode}", family)
    return next(DRIVERS[name] for name in names if name in DRIVERS)


def generation(architecture: Architecture, driver: str) -> Generation:
    """Which opaque entries this driver sends.

    Before R550 neither firmware id nor protected PCIe status; from R580 on the mode flag, and the chip of a Blackwell;
    from R620 on the versioned layout.

    Raises:
        InputError: a driver version that does not begin with a number.
    """
    branch = driver.partition(".")[0]
    if not branch.isascii() or not branch.isdigit():
        raise InputError(f"not a driver version: {driver[:40]!r}", code="driver-version", hint="write it as 590.00.12")
    number = int(branch)
    later = architecture is not Architecture.HOPPER
    if number >= 620:
        # Rubin repeats the version of the header in the old entry, Hopper says 0 there.
        entry = 0x0200 if architecture is Architecture.RUBIN else 0
        return Generation(versioned=True, version_entry=entry, feature_flag=True, system_enable=later, chip_info=later)
    if number >= 580:
        return Generation(version_entry=1, feature_flag=True, system_enable=later, chip_info=later)
    return Generation(
        version_entry=0 if later else None, system_enable=later, firmware_id=number >= 550, ppcie_status=number >= 550
    )


def golden_value(role: str, rim: str, index: int, alternative: int = 0) -> bytes:
    """The value that this RIM expects at this index: 48 bytes, a digest of what it is."""
    text = f"nvattest simulation\0{role}\0{rim}\0{index}\0{alternative}"
    return hashlib.sha384(text.encode()).digest()


def rim_id(silicon: Silicon, role: str, *, driver: str, firmware: str) -> str:
    """The id under which the RIM of this role is published."""
    compact = firmware.replace(".", "").upper()
    if role == "driver":
        if silicon.architecture is Architecture.HOPPER:
            return RIM_HOPPER_DRIVER.format(driver=driver)
        return RIM_BLACKWELL_DRIVER.format(chip=silicon.chip, driver=driver)
    if role == "vbios":
        return RIM_VBIOS.format(
            project=silicon.project, project_sku=silicon.project_sku, chip_sku=silicon.chip_sku, vbios=compact
        )
    return RIM_SWITCH_BIOS.format(bios=compact)


def measured(silicon: Silicon, *, driver: str, firmware: str, nvdec0_matches: bool) -> dict[int, bytes]:
    """The measurements that an honest device makes, by golden index from 0; inactive ones are zero.

    Where the RIM has alternatives, the device matches the last: a verifier that only reads the first is found out.
    With ``nvdec0_matches`` false the value at index 35 matches nothing, which is right while NVDEC0 is off.
    """
    values = dict.fromkeys(range(silicon.block_count), bytes(BLOCK_SIZE))
    for role, indices in silicon.golden.items():
        name = rim_id(silicon, role, driver=driver, firmware=firmware)
        for index in indices:
            values[index] = silicon.values_of(role, name, index)[-1]
    if not nvdec0_matches and NVDEC0_GOLDEN_INDEX in values:
        values[NVDEC0_GOLDEN_INDEX] = golden_value("engine off", "", NVDEC0_GOLDEN_INDEX)
    if silicon.architecture is Architecture.RUBIN:
        values[MANIFEST_BLOCK - 1] = _MANIFEST
    return values
