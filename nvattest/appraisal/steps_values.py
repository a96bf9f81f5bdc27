"""Steps 14 to 19 of the story in ``device.py``: golden values, security versions, mode, versions, hints."""

from __future__ import annotations

from collections.abc import Mapping

from nvattest._registry import (
    MULTI_GPU_PROTECTED,
    NVDEC0_DISABLED,
    NVDEC0_ENABLED,
    SWITCH_LOCKED,
    SWITCH_MODE_LOCKED,
    SWITCH_MODE_UNKNOWN,
)
from nvattest.appraisal import versions
from nvattest.appraisal.check import CheckList
from nvattest.appraisal.measurements import (
    CellState,
    Comparison,
    SvnComparison,
    compare_measurements,
    compare_svn,
)
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.errors import ResultCode
from nvattest.evidence import Evidence
from nvattest.rim.ids import RimRole
from nvattest.rim.verify import VerifiedRim
from nvattest.spdm.fields import GpuFields
from nvattest.spdm.report import FeatureMode, Report, feature_mode, feature_mode_name


def opaque_values(report: Report, verified: Mapping[RimRole, VerifiedRim]) -> tuple[object, ...]:
    """What of the opaque data decides steps 14 to 16: the state of NVDEC0, and the numbers that have a minimum."""
    return (
        _nvdec0(report),
        *[report.opaque.entry(floor.data_type) for rim in verified.values() for floor in rim.min_svn],
    )


def _nvdec0(report: Report) -> int | None:
    return report.fields.nvdec0_status if isinstance(report.fields, GpuFields) else None


def compare(
    report: Report, verified: Mapping[RimRole, VerifiedRim], complete: bool, checks: CheckList
) -> tuple[Comparison, SvnComparison]:
    """Steps 14 to 16. ``complete`` says that every RIM of the device is verified."""
    comparison = compare_measurements(report, verified, _nvdec0(report))
    svn = compare_svn(report.opaque, verified)
    check_values(comparison, svn, complete, checks)
    return comparison, svn


def check_values(comparison: Comparison, svn: SvnComparison, complete: bool, checks: CheckList) -> None:
    # (14) no golden value is claimed by two RIMs
    conflicts = [str(index) for index in comparison.conflicts] + list(svn.conflicts)
    if conflicts:
        checks.fail(
            "rim-conflict", f"both RIMs have golden values for {', '.join(conflicts)}", found=", ".join(conflicts),
            hint="the RIMs do not belong together",
        )  # fmt: skip
    elif complete:
        checks.ok("rim-conflict", "each golden value has one source")
    else:
        checks.skip(("rim-conflict",), "only one of the RIMs is verified")
    # (15) the measurements match the golden values
    mismatches = comparison.mismatches
    covered = comparison.covered
    if mismatches:
        places = ", ".join(f"{cell.index} ({cell.role.value if cell.role is not None else '?'})" for cell in mismatches)
        first = mismatches[0]
        checks.fail(
            "measurements",
            f"{len(mismatches)} of {covered} golden values differ: index {places}",
            expected=first.golden.values[0].hex() if first.golden is not None else "",
            found=first.runtime.hex() if first.runtime is not None else "no such measurement block",
            hint="nvattest explain shows each value; known causes: DevTools mode, a re-issued RIM, a GPU that needs a "
            "full power cycle",
        )
    elif not complete:
        checks.skip(("measurements",), "the golden values of one RIM are missing")
    elif covered == 0:
        checks.fail("measurements", "the RIMs have no active golden value", hint="get the right RIMs")
    else:
        exempt = sum(cell.state is CellState.EXEMPT for cell in comparison.cells)
        note = "; index 35 differs and is exempt while NVDEC0 is off" if exempt else ""
        checks.ok("measurements", f"{covered} of {covered} golden values are accounted for{note}")
    # (16) security version numbers are high enough
    low = svn.mismatches
    if low:
        first_low = low[0]
        checks.fail(
            "minimum-svn",
            f"{', '.join(cell.name for cell in low)} below the minimum or not reported",
            expected=f"{first_low.name} >= {first_low.minimum}",
            found="not reported" if first_low.runtime is None else str(first_low.runtime),
            hint="update the firmware of the device",
        )
    elif not complete:
        checks.skip(("minimum-svn",), "the golden values of one RIM are missing")
    else:
        count = len(svn.cells)
        checks.ok("minimum-svn", f"{count} numbers are high enough" if count else "the RIMs set no minimum")


def check_mode(report: Report | None, policy: EvidencePolicy, checks: CheckList) -> None:
    if report is None:
        checks.skip(("mode",), "the report could not be read")
        return
    if not isinstance(report.fields, GpuFields):
        checks.ok("mode", "switches have no mode of their own")
        return
    if report.fields.nvdec0_status not in (NVDEC0_ENABLED, NVDEC0_DISABLED):
        checks.fail(
            "mode",
            "the NVDEC0 status is neither on nor off",
            expected=f"{NVDEC0_ENABLED:#x} or {NVDEC0_DISABLED:#x}",
            found=f"{report.fields.nvdec0_status:#x}",
            hint="update nvattest: the driver reports a state that this version does not know",
            code=ResultCode.GPU_EVIDENCE_INVALID,
        )
        return
    mode = feature_mode(report)
    unknown = mode is FeatureMode.UNKNOWN
    # Reports before opaque version 1 name no mode; NVIDIA's drivers of that time knew single pass-through only.
    name = feature_mode_name(report) if mode is not None else FeatureMode.SPT.value
    if policy.allowed_modes and name not in policy.allowed_modes:
        checks.fail(
            "mode", f"mode {name} is not allowed by the policy", expected=", ".join(policy.allowed_modes), found=name,
            code=ResultCode.OVERALL_RESULT_FALSE,
            hint="update nvattest: the driver reports a mode that this version does not know" if unknown else "",
        )  # fmt: skip
    elif unknown:
        checks.ok("mode", f"{name}: this version does not know that mode, and the policy demands none", found=name)
    else:
        checks.ok("mode", name if mode is not None else "the report is older than the mode flag")


def check_versions(report: Report | None, policy: EvidencePolicy, checks: CheckList) -> None:
    if report is None:
        checks.skip(("versions",), "the report could not be read")
        return
    problems = versions.problems(report, policy)
    if problems:
        message, expected, found = problems[0]
        checks.fail("versions", message, expected=expected, found=found, hint="update the driver or the VBIOS")
    else:
        checks.ok("versions", versions.describe(report))


def check_hints(report: Report | None, evidence: Evidence, checks: CheckList) -> None:
    if report is None:
        checks.skip(("hints",), "the report could not be read")
        return
    signed = versions.signed_versions(report)
    compared = sorted(name for name in evidence.hints if name in signed)
    for name in compared:
        value = evidence.hints[name]
        if not versions.same_version(signed[name], value, name=name):
            checks.fail(
                "hints",
                f"the driver said {name} {value}, the signed report says {signed[name]}",
                expected=signed[name],
                found=value,
                hint="the evidence was put together from two devices, or the driver was replaced while it ran",
            )
            return
    protection = _said_protection(report, evidence)
    if protection is not None:
        name, value, agrees, expected = protection
        if not agrees:
            checks.fail(
                "hints", f"the driver said {name} {value}, the signed report says {expected}", expected=expected,
                found=value, hint="the mode was changed after the report, or the driver does not speak for this device",
            )  # fmt: skip
            return
        compared.append(name)
    checks.ok("hints", f"{', '.join(compared)} agree" if compared else "nothing was said beside the report")


def _said_protection(report: Report, evidence: Evidence) -> tuple[str, str, bool, str] | None:
    """What the driver says of protected PCIe: the hint, its value, whether the report agrees, and what that says.

    A switch that is not ``3`` (locked), or a GPU that is not ``protected-pcie``, is unprotected to the driver, except
    for a switch that the driver cannot ask (``-1``).
    """
    if isinstance(report.fields, GpuFields):
        name, said, signed = "multi_gpu_mode", MULTI_GPU_PROTECTED, feature_mode(report) is FeatureMode.PPCIE
        expected = "protected PCIe" if signed else "no protected PCIe"
    else:
        name, said, signed = "pcie_mode", SWITCH_MODE_LOCKED, report.fields.lock_status == SWITCH_LOCKED
        expected = "locked" if signed else "not locked"
    value = evidence.hints.get(name)
    if value is None or (name == "pcie_mode" and value == SWITCH_MODE_UNKNOWN):
        return None
    return name, value, (value == said) is signed, expected
