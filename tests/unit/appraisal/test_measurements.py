"""Runtime values against golden values: merge, conflict, alternatives, missing blocks, NVDEC0 and minimum SVNs."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from nvattest._registry import NVDEC0_DISABLED, NVDEC0_ENABLED
from nvattest.appraisal.check import Outcome
from nvattest.appraisal.measurements import CellState, Comparison, SvnComparison, compare_measurements, compare_svn
from nvattest.errors import ResultCode
from nvattest.rim.document import GoldenValue, MinSvn
from nvattest.rim.ids import RimRole
from nvattest.spdm.opaque import GpuFields, OpaqueData, OpaqueEntry, OpaqueLayout
from nvattest.spdm.report import MeasurementBlock

A, B, C = b"a" * 48, b"b" * 48, b"c" * 48


def compare(
    runtime: dict[int, bytes],
    driver: dict[int, tuple[bytes, ...]],
    vbios: dict[int, tuple[bytes, ...]] | None = None,
    nvdec0: int | None = NVDEC0_ENABLED,
) -> Comparison:
    """``runtime`` by SPDM block (from 1); ``driver`` and ``vbios`` by golden index (from 0)."""
    blocks = tuple(MeasurementBlock(index, 1, value) for index, value in runtime.items())
    rims = {
        role: SimpleNamespace(
            golden={i: GoldenValue(index=i, name=f"m{i}", values=values, size=48) for i, values in golden.items()}
        )
        for role, golden in ((RimRole.DRIVER, driver), (RimRole.VBIOS, vbios))
        if golden is not None
    }
    report = SimpleNamespace(response=SimpleNamespace(blocks=blocks), fields=Mock(spec=GpuFields, nvdec0_status=nvdec0))
    return compare_measurements(report, rims)  # type: ignore[arg-type]


def states(comparison: Comparison) -> dict[int, CellState]:
    return {cell.index: cell.state for cell in comparison.cells}


def test_golden_index_i_describes_block_i_plus_1() -> None:
    assert states(compare({1: A, 2: B}, {0: (A,), 1: (B,)})) == {0: CellState.MATCHED, 1: CellState.MATCHED}
    assert states(compare({1: A, 2: B}, {1: (A,), 2: (B,)}))[1] is CellState.MISMATCHED


def test_any_alternative_matches_and_a_prefix_does_not() -> None:
    assert states(compare({1: C}, {0: (A, B, C)})) == {0: CellState.MATCHED}
    for value in (A[:-1], A + b"\0", b"", A.upper()):
        assert states(compare({1: value}, {0: (A, B)})) == {0: CellState.MISMATCHED}


def test_a_missing_block_is_a_mismatch_and_an_uncovered_one_is_shown() -> None:
    comparison = compare({3: C}, {0: (A,)})
    assert states(comparison) == {0: CellState.MISSING, 2: CellState.NOT_COVERED}
    assert [cell.index for cell in comparison.mismatches] == [0]
    assert comparison.covered == 1


def test_an_index_in_both_rims_is_a_conflict_even_if_the_values_agree() -> None:
    comparison = compare({1: A}, {0: (A,)}, {0: (A,), 5: (B,)})
    assert comparison.conflicts == (0,)


def test_mismatches_come_in_nvidias_order_driver_first_then_vbios_by_index() -> None:
    comparison = compare({}, {40: (A,), 7: (A,)}, {3: (A,), 1: (A,)})
    assert [(cell.role, cell.index) for cell in comparison.mismatches] == [
        (RimRole.DRIVER, 7),
        (RimRole.DRIVER, 40),
        (RimRole.VBIOS, 1),
        (RimRole.VBIOS, 3),
    ]


@pytest.mark.parametrize("index", range(64))
def test_only_index_35_is_exempt_while_nvdec0_is_off(index: int) -> None:
    state = states(compare({index + 1: B}, {index: (A,)}, nvdec0=NVDEC0_DISABLED))[index]
    assert state is (CellState.EXEMPT if index == 35 else CellState.MISMATCHED)


@pytest.mark.parametrize("status", [NVDEC0_ENABLED, None, 0, 0xFF])
def test_index_35_is_not_exempt_under_any_other_nvdec0_status(status: int | None) -> None:
    assert states(compare({36: B}, {35: (A,)}, nvdec0=status))[35] is CellState.MISMATCHED
    assert states(compare({}, {35: (A,)}, nvdec0=status))[35] is CellState.MISSING


def test_index_35_that_matches_is_matched_and_not_exempt() -> None:
    assert states(compare({36: A}, {35: (A,)}, nvdec0=NVDEC0_DISABLED))[35] is CellState.MATCHED


# --- minimum SVN -------------------------------------------------------------------------------------------------------


def svn(entries: list[tuple[int, int | None, bytes]], *records: tuple[int, str, int]) -> SvnComparison:
    opaque = OpaqueData(
        layout=OpaqueLayout.VERSIONED,
        version=(2, 0, 0),
        entries=tuple(OpaqueEntry(id_, value_type, data, 0) for id_, value_type, data in entries),
    )
    floors = tuple(
        MinSvn(data_type=data_type, name=name, minimum=minimum, include_in_result=True)
        for data_type, name, minimum in records
    )
    return compare_svn(opaque, {RimRole.DRIVER: SimpleNamespace(document=SimpleNamespace(min_svn=floors))})  # type: ignore[dict-item]


@pytest.mark.parametrize(("runtime", "minimum", "good"), [(5, 5, True), (6, 5, True), (4, 5, False), (0, 0, True),
                                                         (256, 255, True), (0xFFFF, 0x10000, False)])  # fmt: skip
def test_a_security_version_must_be_at_least_the_minimum(runtime: int, minimum: int, good: bool) -> None:
    comparison = svn([(37, 0x87, runtime.to_bytes(2, "little"))], (37, "FSP", minimum))
    assert (comparison.mismatches == ()) is good
    assert comparison.cells[0].runtime == runtime


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [(38, 0x87, b"\xff\xff")],
        [(37, 0x86, b"\xff\xff")],
        [(37, None, b"\xff\xff")],
        [(37, 0x87, b"\xff")],
        [(37, 0x87, b"\xff\xff\xff")],
        [(37, 0x87, b"")],
    ],
    ids=["none", "another id", "another type", "no type", "one byte", "three bytes", "empty"],
)
def test_a_version_that_is_missing_or_ill_typed_does_not_satisfy_even_a_minimum_of_0(entries: list) -> None:
    comparison = svn(entries, (37, "FSP", 0))
    assert comparison.cells[0].runtime is None
    assert len(comparison.mismatches) == 1


def test_two_records_of_one_name_or_one_type_conflict() -> None:
    entry = [(37, 0x87, b"\1\0"), (38, 0x87, b"\1\0")]
    assert svn(entry, (37, "FSP", 1), (38, "FSP", 1)).conflicts == ("FSP",)
    assert svn(entry, (37, "FSP", 1), (37, "GSP", 1)).conflicts == ("GSP",)


# --- through the whole story -------------------------------------------------------------------------------------------


def test_hopper_1_is_trusted_by_the_exemption_and_says_so(node) -> None:
    appraisal = node("hopper-1", "gpu0:measurement=35").appraise()
    assert appraisal.trusted
    check = appraisal.devices[0].check("measurements")
    assert check is not None
    assert "index 35 differs and is exempt while NVDEC0 is off" in check.detail


@pytest.mark.parametrize("lies", [("gpu0:measurement=34",), ("gpu0:measurement=36",),
                                  ("gpu0:measurement=35", "gpu0:nvdec0=on")])  # fmt: skip
def test_no_other_measurement_and_no_other_engine_state_is_exempt(node, lies: tuple[str, ...]) -> None:
    appraisal = node("hopper-1", *lies).appraise()
    assert [check.id for check in appraisal.devices[0].failures] == ["measurements"]
    assert appraisal.result_code is ResultCode.OVERALL_RESULT_FALSE


def test_a_conflict_of_the_rims_is_code_108_and_comes_before_the_mismatch(node) -> None:
    appraisal = node("hopper-1", "vbios-rim:conflict=21", "gpu0:measurement=9").appraise()
    assert appraisal.result_code is ResultCode.RIM_MEASUREMENT_CONFLICT


@pytest.mark.parametrize(("demanded", "found", "trusted"), [("3", "3", True), ("3", "4", True), ("3", "2", False)])
def test_the_minimum_svn_of_a_signed_rim_is_enforced(node, demanded: str, found: str, trusted: bool) -> None:
    appraisal = node("blackwell-8-mpt", f"vbios-rim:min-svn={demanded}", f"gpu0:svn={found}").appraise()
    assert appraisal.devices[0].trusted is trusted
    check = appraisal.devices[0].check("minimum-svn")
    assert check is not None
    assert check.outcome is (Outcome.PASS if trusted else Outcome.FAIL)


def test_with_one_rim_missing_what_the_other_covers_is_still_compared(node) -> None:
    world = node("hopper-1", "gpu0:measurement=9")
    appraisal = world.appraise(collateral=world.without("DRIVER"))
    outcomes = {check.id: check.outcome for check in appraisal.devices[0].checks}
    assert outcomes["measurements"] is Outcome.FAIL
    clean = node("hopper-1").appraise(collateral=node("hopper-1").without("DRIVER"))
    outcomes = {check.id: check.outcome for check in clean.devices[0].checks}
    assert outcomes["measurements"] is Outcome.SKIPPED
    assert not clean.trusted
