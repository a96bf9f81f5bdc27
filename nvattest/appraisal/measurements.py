"""Runtime measurements against golden values: the merge of the RIMs, their conflicts, alternatives and the NVDEC0 rule.

Golden index i describes SPDM measurement block i + 1. Runtime blocks that no RIM covers are shown and not judged, as
NVIDIA's verifiers do. Sources: NVAT 1.2.2 comparison rules; NVAT 2.0.0 MIN_SVN records.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from nvattest._registry import GOLDEN_TO_BLOCK, NVDEC0_DISABLED, NVDEC0_GOLDEN_INDEX, VALUE_TYPE_RAW_SVN
from nvattest.rim.document import GoldenValue
from nvattest.rim.ids import RimRole
from nvattest.rim.verify import VerifiedRim
from nvattest.spdm.opaque import OpaqueData
from nvattest.spdm.report import Report


class CellState(Enum):
    """What became of one measurement."""

    MATCHED = "matched"
    MISMATCHED = "mismatched"
    MISSING = "missing"
    EXEMPT = "exempt"
    NOT_COVERED = "not-covered"


class Cell(NamedTuple):
    """One measurement: golden ``index`` (0-based), its RIM, the golden alternatives and the runtime value.

    ``role`` is None, ``golden`` None where no RIM covers the index; ``runtime`` is None where the report has no block.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    state: CellState
    role: RimRole | None
    golden: GoldenValue | None
    runtime: bytes | None


class Comparison(NamedTuple):
    """All measurements of a device against all golden values. ``conflicts`` are indices that two RIMs claim."""

    cells: tuple[Cell, ...]
    conflicts: tuple[int, ...]

    @property
    def covered(self) -> int:
        """How many golden values there were."""
        return sum(cell.golden is not None for cell in self.cells)

    @property
    def mismatches(self) -> tuple[Cell, ...]:
        """Cells whose runtime value differs or is missing, in NVIDIA's order: driver first, then VBIOS, by index."""
        bad = [cell for cell in self.cells if cell.state in (CellState.MISMATCHED, CellState.MISSING)]
        return tuple(sorted(bad, key=lambda cell: (cell.role is not RimRole.DRIVER, cell.index)))


def compare_measurements(report: Report, rims: Mapping[RimRole, VerifiedRim], nvdec0_status: int | None) -> Comparison:
    """Compare every runtime value with the golden values of all RIMs of the device.

    ``nvdec0_status`` is the GPU's NVDEC0 status byte: with the engine off, golden index 35 (block 36) may differ.
    """
    golden: dict[int, tuple[RimRole, GoldenValue]] = {}
    conflicts = []
    for role, rim in rims.items():
        for index, value in rim.golden.items():
            if index in golden:
                conflicts.append(index)
            golden.setdefault(index, (role, value))
    runtime = {block.index - GOLDEN_TO_BLOCK: block.value for block in report.response.blocks}
    cells = []
    for index in sorted(golden.keys() | runtime.keys()):
        measured = runtime.get(index)
        pair = golden.get(index)
        if pair is None:
            state = CellState.NOT_COVERED
        elif measured is not None and measured in pair[1].values:
            state = CellState.MATCHED
        elif index == NVDEC0_GOLDEN_INDEX and nvdec0_status == NVDEC0_DISABLED:
            state = CellState.EXEMPT
        else:
            state = CellState.MISSING if measured is None else CellState.MISMATCHED
        role_of, value_of = pair if pair is not None else (None, None)
        cells.append(Cell(index, state, role_of, value_of, measured))
    return Comparison(cells=tuple(cells), conflicts=tuple(sorted(conflicts)))


class SvnCell(NamedTuple):
    """One MIN_SVN record against the entry it names. ``runtime`` is None where that is missing or ill-typed."""

    data_type: int
    name: str
    minimum: int
    runtime: int | None
    include_in_result: bool

    @property
    def satisfied(self) -> bool:
        """Whether the runtime number is there and high enough."""
        return self.runtime is not None and self.runtime >= self.minimum


class SvnComparison(NamedTuple):
    """All MIN_SVN records of a device. ``conflicts`` are names or data types that two records claim."""

    cells: tuple[SvnCell, ...]
    conflicts: tuple[str, ...]

    @property
    def mismatches(self) -> tuple[SvnCell, ...]:
        """Records that are not satisfied."""
        return tuple(cell for cell in self.cells if not cell.satisfied)


def compare_svn(opaque: OpaqueData, rims: Mapping[RimRole, VerifiedRim]) -> SvnComparison:
    """Compare opaque security version numbers with the MIN_SVN records of all RIMs (NVAT 2.0.0).

    The runtime entry must be exactly two bytes, little-endian, of value type 0x87; anything else does not satisfy.
    """
    cells = []
    conflicts = []
    types: set[int] = set()
    names: set[str] = set()
    for rim in rims.values():
        for record in rim.min_svn:
            if record.data_type in types or record.name in names:
                conflicts.append(record.name)
            types.add(record.data_type)
            names.add(record.name)
            entry = opaque.entry(record.data_type)
            usable = entry is not None and entry.value_type == VALUE_TYPE_RAW_SVN and len(entry.data) == 2
            cells.append(
                SvnCell(
                    data_type=record.data_type,
                    name=record.name,
                    minimum=record.minimum,
                    runtime=int.from_bytes(entry.data, "little") if entry is not None and usable else None,
                    include_in_result=record.include_in_result,
                )
            )
    return SvnComparison(cells=tuple(cells), conflicts=tuple(conflicts))
