"""SPDM and opaque data: what the writer writes is read back whole, and no change gives anything but a clean answer."""

# ruff: noqa: PT017 - what is refused and what is read are two ends of one property

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from nvattest._registry import OPAQUE_MAGIC, GpuField
from nvattest.appraisal.verifier import Verifier
from nvattest.errors import ParseError
from nvattest.evidence import Evidence
from nvattest.model import Architecture, DeviceKind, Nonce
from nvattest.pki.dice import parse_tcb_info
from nvattest.spdm.opaque import OpaqueLayout, parse_opaque
from nvattest.spdm.report import feature_mode, feature_mode_name, parse_report
from nvattest.testing import DEFAULT_NONCE, Platform
from nvattest.testing.device import opaque_legacy, opaque_versioned, write_report

from .tools import bytes_changed, der_changed, for_all, pick, sizes

HOPPER, BLACKWELL, PPCIE = (Platform.build(name) for name in ("hopper-1", "blackwell-2", "hopper-8-ppcie"))
REPORTS = tuple(node.gpus[0].report(DEFAULT_NONCE) for node in (HOPPER, BLACKWELL, PPCIE))
SWITCH = PPCIE.switches[0].report(DEFAULT_NONCE)

ENTRIES = st.lists(
    st.tuples(st.integers(0, 65535), st.binary(max_size=80)), unique_by=lambda entry: entry[0], max_size=40
)
BLOCKS = st.lists(
    st.tuples(st.integers(1, 255), st.binary(max_size=64)), unique_by=lambda block: block[0], min_size=1, max_size=80
)


@sizes(100)
def test_opaque_data_in_both_layouts_is_read_as_it_was_written(examples: int) -> None:
    def check(case: tuple[Any, bool, tuple[int, int]]) -> None:
        entries, versioned, (minor, patch) = case
        entries = [entry for entry in entries if entry[0] != GpuField.OPAQUE_DATA_VERSION]
        data = opaque_versioned(entries, version=(2, minor, patch)) if versioned else opaque_legacy(entries)
        if not data:
            return
        if not versioned and data.startswith(OPAQUE_MAGIC):
            return  # an entry whose id and size spell the magic number of the other layout
        read = parse_opaque(data)
        assert [(entry.id, entry.data) for entry in read.entries] == entries
        assert read.layout is (OpaqueLayout.VERSIONED if versioned else OpaqueLayout.LEGACY)
        assert read.version == ((2, minor, patch) if versioned else (0, 0, 0))
        for entry in read.entries:
            assert data[entry.offset + (6 if versioned else 4) :].startswith(entry.data)

    for_all(st.tuples(ENTRIES, st.booleans(), st.tuples(st.integers(0, 255), st.integers(0, 255))), examples, check)


@sizes(60)
def test_a_report_of_any_content_is_read_as_it_was_written(examples: int) -> None:
    needed = [(entry.id, entry.data) for entry in parse_report(REPORTS[0], DeviceKind.GPU).opaque.entries]
    known = {number for number, _ in needed} | {int(field) for field in GpuField}

    def check(case: tuple[Any, Any, bytes, bytes, bytes, bytes]) -> None:
        blocks, extra, nonce, responder, signature, trailing = case
        entries = needed + [entry for entry in extra if entry[0] not in known]
        data = write_report(
            nonce=nonce,
            responder_nonce=responder,
            measurements=blocks,
            opaque=opaque_legacy(entries),
            sign=lambda _body: signature,
        )
        report = parse_report(data + trailing, DeviceKind.GPU)
        assert report.request.nonce == nonce
        assert report.response.nonce == responder
        assert [(block.index, block.value) for block in report.response.blocks] == blocks
        assert [(entry.id, entry.data) for entry in report.opaque.entries] == entries
        assert (report.signature, report.trailing) == (signature, trailing)
        assert report.signed + report.signature + report.trailing == data + trailing

    fixed = [st.binary(min_size=size, max_size=size) for size in (32, 32, 96)]
    for_all(st.tuples(BLOCKS, ENTRIES, *fixed, st.binary(max_size=8)), examples, check)


@sizes(300, 60_000)
def test_a_changed_report_is_a_parse_error_or_accounts_for_every_byte(examples: int) -> None:
    def check(case: tuple[bytes, DeviceKind]) -> None:
        data, kind = case
        try:
            report = parse_report(data, kind)
        except ParseError as error:
            assert error.offset is None or 0 <= error.offset <= len(data)
            assert error.source
            assert error.code
            return
        assert report.signed + report.signature + report.trailing == data
        assert len(report.signature) == 96
        indices = [block.index for block in report.response.blocks]
        assert len(set(indices)) == len(indices) > 0
        assert (feature_mode(report) is None) is (feature_mode_name(report) == "none")

    for_all(st.tuples(bytes_changed((*REPORTS, SWITCH)), st.sampled_from(DeviceKind)), examples, check)


@st.composite
def dishonest_bodies(draw: st.DrawFn) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """The blocks and entries of a good report with some left out, exchanged, altered, doubled or moved."""
    report = parse_report(REPORTS[0], DeviceKind.GPU)
    blocks = [(block.index, block.value) for block in report.response.blocks]
    entries = [(entry.id, entry.data) for entry in report.opaque.entries]
    for _ in range(draw(st.integers(1, 4))):
        items = pick(draw, (blocks, entries))
        at = draw(st.integers(0, len(items) - 1))
        to = draw(st.integers(0, len(items) - 1))
        kind = draw(st.sampled_from(("drop", "value", "flip", "number", "exchange", "double", "reorder", "size")))
        number, value = items[at]
        if kind == "drop":
            del items[at]
        elif kind == "value":
            items[at] = (number, draw(st.binary(max_size=64)))
        elif kind == "flip" and value:
            place = draw(st.integers(0, len(value) - 1))
            items[at] = (number, value[:place] + bytes((value[place] ^ 1,)) + value[place + 1 :])
        elif kind == "number":
            items[at] = (draw(st.integers(1, 255)), value)
        elif kind == "exchange":
            items[at], items[to] = (number, items[to][1]), (items[to][0], value)
        elif kind == "double":
            items.insert(to, items[at])
        elif kind == "reorder":
            items.insert(to, items.pop(at))
        else:
            items[at] = (number, value[: draw(st.integers(0, 48))])
        if not items:
            items.append((1, bytes(48)))
    return blocks, entries


@sizes(80, 6_000)
def test_a_device_that_signs_anything_is_trusted_only_with_the_values_of_the_rims(examples: int) -> None:
    device = HOPPER.gpus[0]
    verifier = Verifier(anchors=HOPPER.trust_anchors())
    collateral = HOPPER.collateral()
    honest = parse_report(REPORTS[0], DeviceKind.GPU)
    trusted = verifier.appraise(
        [_evidence(REPORTS[0])], nonce=Nonce(DEFAULT_NONCE), collateral=collateral, at=HOPPER.time
    )
    assert trusted.trusted
    comparison = trusted.devices[0].comparison
    assert comparison is not None
    allowed = {cell.index: cell.golden.values for cell in comparison.cells if cell.golden is not None}

    def check(case: tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]) -> None:
        blocks, entries = case
        try:
            data = write_report(
                nonce=DEFAULT_NONCE,
                responder_nonce=bytes(32),
                measurements=blocks,
                opaque=opaque_legacy(entries),
                sign=device.key.sign_raw,
            )
        except (struct.error, OverflowError):
            return
        appraisal = verifier.appraise(
            [_evidence(data)], nonce=Nonce(DEFAULT_NONCE), collateral=collateral, at=HOPPER.time
        )
        if not appraisal.trusted:
            assert appraisal.failures
            assert appraisal.result_code != 0
            return
        # Said again without the package: every golden value is measured, or it is number 35 with the engine off.
        measured = dict(blocks)
        said = dict(entries)
        for index, values in allowed.items():
            assert measured.get(index + 1) in values or (index == 35 and said[GpuField.NVDEC0_STATUS] == b"\x55")
        assert said[GpuField.FWID] == honest.fields.fwid
        assert len(blocks) == len(measured)
        assert len(entries) == len(said)

    for_all(dishonest_bodies(), examples, check)


def _evidence(report: bytes) -> Evidence:
    return Evidence(
        architecture=Architecture.HOPPER, nonce=None, report=report, certificate_chain=HOPPER.gpus[0].chain_pem
    )


@sizes(150, 20_000)
def test_changed_dice_information_is_a_parse_error_or_an_answer(examples: int) -> None:
    from nvattest._registry import OID_DICE_TCB_INFO
    from nvattest.pki.certificate import parse_certificate

    value = parse_certificate(BLACKWELL.gpus[0].certificates[0].der).extension(OID_DICE_TCB_INFO)
    assert value is not None
    assert parse_tcb_info(value).fwids

    def check(data: bytes) -> None:
        try:
            info = parse_tcb_info(data)
        except ParseError as error:
            assert error.code in ("der", "fwid")
            return
        assert len(info.fwids) <= 16

    for_all(der_changed((value,)) | bytes_changed((value,)), examples, check)
