"""Steps 14 to 19 of the story in ``verifier.py``: the signed report against golden values, policy and driver.

Sources: NVAT 1.2.2 for the comparison and the NVDEC0 rule; NVAT 2.0.0 for MIN_SVN records.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from nvattest._registry import (
    GOLDEN_TO_BLOCK,
    MULTI_GPU_PROTECTED,
    NVDEC0_DISABLED,
    NVDEC0_ENABLED,
    NVDEC0_GOLDEN_INDEX,
    SWITCH_LOCKED,
    SWITCH_MODE_LOCKED,
    SWITCH_MODE_UNKNOWN,
    VALUE_TYPE_RAW_SVN,
)  # fmt: skip
from nvattest._text import version_key
from nvattest.appraisal.check import Check, failed, not_made, passed
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.errors import ResultCode
from nvattest.evidence import Evidence
from nvattest.rim.document import GoldenValue, MinSvn
from nvattest.rim.ids import RimRole
from nvattest.rim.verify import VerifiedRim
from nvattest.spdm.opaque import GpuFields, OpaqueData
from nvattest.spdm.report import FeatureMode, Report, feature_mode, feature_mode_name

_BASES = {"driver_version": 10, "vbios_version": 16, "bios_version": 16}
_NO_REPORT = "the report could not be read"
_NO_RIM = "there is no verified RIM to compare with"
_ONE_MISSING = "the golden values of one RIM are missing"


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

    index: int  # type: ignore[assignment]  # hides tuple.index, which has no use here
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
        return len([cell for cell in self.cells if cell.golden is not None])

    @property
    def mismatches(self) -> tuple[Cell, ...]:
        """Cells whose runtime value differs or is missing, in NVIDIA's order: driver first, then VBIOS, by index."""
        matched, wrong = CellState.MATCHED, (CellState.MISMATCHED, CellState.MISSING)
        bad = [cell for cell in self.cells if cell.state is not matched and cell.state in wrong]
        return tuple(sorted(bad, key=lambda cell: (cell.role is not RimRole.DRIVER, cell.index)))


def compare_measurements(report: Report, rims: Mapping[RimRole, VerifiedRim]) -> Comparison:
    """Compare every runtime value with the golden values of all RIMs of the device.

    Golden index i describes SPDM measurement block i + 1. While the NVDEC0 engine of a GPU is off, golden index 35
    (block 36) may differ. Runtime blocks that no RIM covers are shown and not judged, as NVIDIA's verifiers do.
    """
    nvdec0_status = report.fields.nvdec0_status if isinstance(report.fields, GpuFields) else None
    golden: dict[int, tuple[RimRole, GoldenValue]] = {}
    conflicts = []
    for role, rim in rims.items():
        conflicts += [index for index in rim.golden if index in golden]
        golden = {index: (role, value) for index, value in rim.golden.items()} | golden
    runtime = {block.index - GOLDEN_TO_BLOCK: block.value for block in report.response.blocks}
    cells = []
    for index in sorted(golden.keys() | runtime.keys()):
        measured = runtime.get(index)
        role_of, value_of = golden.get(index, (None, None))
        if value_of is None:
            state = CellState.NOT_COVERED
        elif measured is not None and measured in value_of.values:
            state = CellState.MATCHED
        elif index == NVDEC0_GOLDEN_INDEX and nvdec0_status == NVDEC0_DISABLED:
            state = CellState.EXEMPT
        else:
            state = CellState.MISSING if measured is None else CellState.MISMATCHED
        cells.append(Cell(index, state, role_of, value_of, measured))
    return Comparison(tuple(cells), tuple(sorted(conflicts)))


class SvnCell(NamedTuple):
    """One MIN_SVN record against the entry it names. ``runtime`` is None where that is missing or ill-typed."""

    record: MinSvn
    runtime: int | None

    @property
    def satisfied(self) -> bool:
        return self.runtime is not None and self.runtime >= self.record.minimum


class SvnComparison(NamedTuple):
    """All MIN_SVN records of a device. ``conflicts`` are names or data types that two records claim."""

    cells: tuple[SvnCell, ...]
    conflicts: tuple[str, ...]

    @property
    def mismatches(self) -> tuple[SvnCell, ...]:
        return tuple(cell for cell in self.cells if not cell.satisfied)


def compare_svn(opaque: OpaqueData, rims: Mapping[RimRole, VerifiedRim]) -> SvnComparison:
    """Compare opaque security version numbers with the MIN_SVN records of all RIMs (NVAT 2.0.0).

    The runtime entry must be exactly two bytes, little-endian, of value type 0x87; anything else does not satisfy.
    """
    cells: list[SvnCell] = []
    conflicts = []
    for record in (record for rim in rims.values() for record in rim.document.min_svn):
        earlier = (cell.record for cell in cells)
        if any(record.data_type == other.data_type or record.name == other.name for other in earlier):
            conflicts.append(record.name)
        entry = opaque.entry(record.data_type)
        usable = entry is not None and entry.value_type == VALUE_TYPE_RAW_SVN and len(entry.data) == 2
        cells.append(SvnCell(record, int.from_bytes(entry.data, "little") if entry is not None and usable else None))
    return SvnComparison(tuple(cells), tuple(conflicts))


def check_conflicts(comparison: Comparison | None, svn: SvnComparison | None, complete: bool) -> Check:
    """Step 14. Of this step and the next two: ``complete`` says that every RIM of the device is verified.

    The comparisons are None where no RIM is.
    """
    if comparison is None or svn is None:
        return not_made("rim-conflict", _NO_RIM)
    conflicts = ", ".join([*map(str, comparison.conflicts), *svn.conflicts])
    if conflicts:
        hint = "the RIMs do not belong together"
        return failed("rim-conflict", f"both RIMs have golden values for {conflicts}", found=conflicts, hint=hint)
    if not complete:
        return not_made("rim-conflict", "only one of the RIMs is verified")
    return passed("rim-conflict", "each golden value has one source")


def check_measurements(comparison: Comparison | None, complete: bool) -> Check:
    """Step 15."""
    if comparison is None:
        return not_made("measurements", _NO_RIM)
    mismatches, covered = comparison.mismatches, comparison.covered
    if mismatches:
        places = ", ".join(f"{cell.index} ({cell.role.value if cell.role is not None else '?'})" for cell in mismatches)
        golden, runtime = mismatches[0].golden, mismatches[0].runtime
        return failed(
            "measurements", f"{len(mismatches)} of {covered} golden values differ: index {places}",
            expected=golden.values[0].hex() if golden is not None else "",
            found=runtime.hex() if runtime is not None else "no such measurement block",
            hint="nvattest explain shows each value; known causes: DevTools mode, a re-issued RIM, a GPU that needs a "
            "full power cycle",
        )  # fmt: skip
    if not complete:
        return not_made("measurements", _ONE_MISSING)
    if covered == 0:
        return failed("measurements", "the RIMs have no active golden value", hint="get the right RIMs")
    exempt = CellState.EXEMPT in [cell.state for cell in comparison.cells]
    note = "; index 35 differs and is exempt while NVDEC0 is off" if exempt else ""
    return passed("measurements", f"{covered} of {covered} golden values are accounted for{note}")


def check_minimum_svn(svn: SvnComparison | None, complete: bool) -> Check:
    """Step 16."""
    if svn is None:
        return not_made("minimum-svn", _NO_RIM)
    if low := svn.mismatches:
        names, (first, runtime) = ", ".join(cell.record.name for cell in low), low[0]
        return failed(
            "minimum-svn", f"{names} below the minimum or not reported", expected=f"{first.name} >= {first.minimum}",
            found="not reported" if runtime is None else str(runtime), hint="update the firmware of the device",
        )  # fmt: skip
    if not complete:
        return not_made("minimum-svn", _ONE_MISSING)
    count = len(svn.cells)
    return passed("minimum-svn", f"{count} numbers are high enough" if count else "the RIMs set no minimum")


def check_mode(report: Report | None, policy: EvidencePolicy) -> Check:
    """Step 17."""
    if report is None:
        return not_made("mode", _NO_REPORT)
    fields = report.fields
    if not isinstance(fields, GpuFields):
        return passed("mode", "switches have no mode of their own")
    if fields.nvdec0_status not in (NVDEC0_ENABLED, NVDEC0_DISABLED):
        return failed(
            "mode", "the NVDEC0 status is neither on nor off",
            expected=f"{NVDEC0_ENABLED:#x} or {NVDEC0_DISABLED:#x}", found=f"{fields.nvdec0_status:#x}",
            hint="update nvattest: the driver reports a state that this version does not know",
            code=ResultCode.GPU_EVIDENCE_INVALID,
        )  # fmt: skip
    mode = feature_mode(report)
    unknown = mode is FeatureMode.UNKNOWN
    # Reports before opaque version 1 name no mode; NVIDIA's drivers of that time knew single pass-through only.
    name = feature_mode_name(report) if mode is not None else FeatureMode.SPT.value
    if policy.allowed_modes and name not in policy.allowed_modes:
        return failed(
            "mode", f"mode {name} is not allowed by the policy", expected=", ".join(policy.allowed_modes), found=name,
            code=ResultCode.OVERALL_RESULT_FALSE,
            hint="update nvattest: the driver reports a mode that this version does not know" if unknown else "",
        )  # fmt: skip
    if unknown:
        return passed("mode", f"{name}: this version does not know that mode, and the policy demands none", found=name)
    return passed("mode", name if mode is not None else "the report is older than the mode flag")


def check_versions(report: Report | None, policy: EvidencePolicy) -> Check:
    """Step 18."""
    if report is None:
        return not_made("versions", _NO_REPORT)
    problems = version_problems(report, policy)
    if not problems:
        said = (f"{name.removesuffix('_version')} {value}" for name, value in signed_versions(report).items())
        return passed("versions", ", ".join(said))
    message, expected, found = problems[0]
    return failed("versions", message, expected=expected, found=found, hint="update the driver or the VBIOS")


def signed_versions(report: Report) -> dict[str, str]:
    """The versions that the signed report names: ``driver_version`` and ``vbios_version``, or ``bios_version``."""
    fields = report.fields
    if isinstance(fields, GpuFields):
        return {"driver_version": fields.driver_version, "vbios_version": fields.vbios_version}
    return {"bios_version": fields.bios_version}


def _same_version(one: str, other: str, *, name: str) -> bool:
    """Whether two texts are one version of what ``signed_versions`` calls ``name``; other texts must be equal."""
    key = version_key(one, base=_BASES[name])
    return one == other if key is None else key == version_key(other, base=_BASES[name])


def version_problems(report: Report, policy: EvidencePolicy) -> list[tuple[str, str, str]]:
    """What the policy has against the versions of a device: message, expected and found of each."""
    found = []
    limits = {
        "driver_version": (policy.minimum_driver_version, policy.denied_driver_versions),
        "vbios_version": (policy.minimum_vbios_version, policy.denied_vbios_versions),
    }
    for name, version in signed_versions(report).items():
        minimum, denied = limits.get(name, (None, ()))
        base, word = _BASES[name], name.removesuffix("_version")
        key = version_key(version, base=base)
        if key is None:
            # What cannot be compared can be shown neither to be new enough nor to be missing from a list.
            limit = [f"not {item}" for item in denied]
            if minimum is not None:
                limit.insert(0, f">= {minimum}")
            if limit:
                found.append((f"{word} {version} cannot be compared with the policy's", ", ".join(limit), version))
            continue
        for item in denied:
            if version_key(item, base=base) == key:
                found.append((f"{word} {version} is denied by the policy", f"not {item}", version))
                break
        if minimum is not None:
            least = version_key(minimum, base=base)
            if least is None or key < least:
                found.append((f"{word} {version} is older than the policy's minimum", f">= {minimum}", version))
    return found


def check_hints(report: Report | None, evidence: Evidence) -> Check:
    """Step 19."""
    if report is None:
        return not_made("hints", _NO_REPORT)
    signed = signed_versions(report)
    compared = sorted(name for name in evidence.hints if name in signed)
    for name in compared:
        said = evidence.hints[name]
        if not _same_version(signed[name], said, name=name):
            hint = "the evidence was put together from two devices, or the driver was replaced while it ran"
            return _contradicted(name, said, signed[name], hint)
    # A switch that is not ``3`` (locked), or a GPU that is not ``protected-pcie``, is unprotected to the driver, except
    # for a switch that the driver cannot ask (``-1``).
    if isinstance(report.fields, GpuFields):
        name, protected, signs = "multi_gpu_mode", MULTI_GPU_PROTECTED, feature_mode(report) is FeatureMode.PPCIE
        expected = "protected PCIe" if signs else "no protected PCIe"
    else:
        name, protected, signs = "pcie_mode", SWITCH_MODE_LOCKED, report.fields.lock_status == SWITCH_LOCKED
        expected = "locked" if signs else "not locked"
    mode = evidence.hints.get(name)
    if mode is not None and not (name == "pcie_mode" and mode == SWITCH_MODE_UNKNOWN):
        if (mode == protected) is not signs:
            hint = "the mode was changed after the report, or the driver does not speak for this device"
            return _contradicted(name, mode, expected, hint)
        compared.append(name)
    return passed("hints", f"{', '.join(compared)} agree" if compared else "nothing was said beside the report")


def _contradicted(name: str, said: str, signed: str, hint: str) -> Check:
    detail = f"the driver said {name} {said}, the signed report says {signed}"
    return failed("hints", detail, expected=signed, found=said, hint=hint)
