"""Quotes built byte by byte here; only the binding is looked at, and it says so."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvattest.errors import InputError, ParseError
from nvattest.tee.quote import NOT_VERIFIED, QuoteKind, SnpReport, check_binding, parse_quote

DATA = bytes(range(64))
RTMRS = tuple(bytes([0x10 + number]) * 48 for number in range(4))
MRTD = b"\x77" * 48


def td_body(*, attributes: int = 0, later: bool = False, data: bytes = DATA) -> bytes:
    body = (
        bytes([1]) * 16 + bytes([2]) * 48 + bytes([3]) * 48 + bytes(8) + attributes.to_bytes(8, "little") + bytes([4]) * 8
        + MRTD + bytes([5]) * 48 + bytes([6]) * 48 + bytes([7]) * 48 + b"".join(RTMRS) + data
    )  # fmt: skip
    assert len(body) == 584
    assert body.index(data) == 520
    return body + (bytes([8]) * 16 + bytes([9]) * 48 if later else b"")


def tdx(
    version: int = 4, *, key: int = 2, tee: int = 0x81, body: bytes | None = None, kind: int = 2, signature: int = 100
) -> bytes:
    body = td_body() if body is None else body
    header = struct.pack("<HHI", version, key, tee) + bytes(40)
    assert len(header) == 48
    middle = struct.pack("<HI", kind, len(body)) if version == 5 else b""
    return header + middle + body + struct.pack("<I", signature) + b"\xaa" * signature


def snp(version: int = 2, *, policy: int = 0x30000, data: bytes = DATA) -> bytes:
    report = bytearray(0x4A0)
    struct.pack_into("<IIQ", report, 0, version, 1, policy)
    report[0x50:0x90] = data
    report[0x90:0xC0] = MRTD
    return bytes(report)


GOOD = [
    pytest.param(tdx(), QuoteKind.TDX, 4, id="tdx-4"),
    pytest.param(tdx(5), QuoteKind.TDX, 5, id="tdx-5"),
    pytest.param(tdx(5, kind=3, body=td_body(later=True)), QuoteKind.TDX, 5, id="tdx-5-td-1.5"),
    pytest.param(tdx(key=3), QuoteKind.TDX, 4, id="tdx-p384"),
    pytest.param(tdx() + bytes(3000), QuoteKind.TDX, 4, id="tdx-padded"),
    *(pytest.param(snp(version), QuoteKind.SNP, version, id=f"snp-{version}") for version in (2, 3, 4, 5)),
]


@pytest.mark.parametrize(("quote", "kind", "version"), GOOD)
def test_the_binding_of_every_layout_is_found(quote: bytes, kind: QuoteKind, version: int) -> None:
    check = check_binding(quote, DATA)
    assert check.ok
    assert check.matches
    assert check.note == NOT_VERIFIED
    assert "signature is not verified" in check.note
    assert (check.quote.kind, check.quote.version, check.quote.measurement) == (kind, version, MRTD)
    assert check.quote.registers == (RTMRS if kind is QuoteKind.TDX else ())
    assert not check.quote.debug


@pytest.mark.parametrize(("quote", "kind", "version"), GOOD)
@pytest.mark.parametrize("bit", [0, 255, 511])
def test_one_bit_of_other_report_data_is_no_match(quote: bytes, kind: QuoteKind, version: int, bit: int) -> None:
    other = bytearray(DATA)
    other[bit // 8] ^= 1 << bit % 8
    check = check_binding(quote, bytes(other))
    assert not check.ok
    assert "something else" in check.detail


@pytest.mark.parametrize(
    "quote", [tdx(body=td_body(attributes=1)), tdx(body=td_body(attributes=1 << 6)), snp(policy=0x30000 | 1 << 19)]
)
def test_the_quote_of_a_debug_guest_binds_nothing(quote: bytes) -> None:
    check = check_binding(quote, DATA)
    assert check.matches
    assert not check.ok
    assert "debug" in check.detail


@pytest.mark.parametrize(
    ("quote", "code"),
    [
        (b"", "truncated"),
        (tdx(3), "quote-version"),
        (tdx(6), "quote-version"),
        (tdx(key=0), "quote-key"),
        (tdx(key=9), "quote-key"),
        (tdx(tee=0), "quote-tee"),
        (tdx(5, kind=1), "quote-body"),
        (tdx(5, kind=3), "quote-body"),
        (tdx(5, kind=2, body=td_body(later=True)), "quote-body"),
        (tdx(signature=0), "quote-signature"),
        (tdx() + b"\0\1", "stray-bytes"),
        (snp(1), "quote-version"),
        (snp(6), "quote-version"),
        (snp() + b"\0", "quote-version"),
        (snp()[:-1], "quote-version"),
        (bytes(17 * 2**20), "too-large"),
    ],
)
def test_another_layout_is_refused_with_its_reason(quote: bytes, code: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_quote(quote)
    assert caught.value.code == code


@pytest.mark.parametrize("quote", [tdx(), tdx(5), tdx(5, kind=3, body=td_body(later=True))])
def test_every_truncation_is_refused(quote: bytes) -> None:
    for size in range(len(quote)):
        with pytest.raises(ParseError):
            parse_quote(quote[:size])


def test_a_signature_longer_than_the_file_is_refused() -> None:
    quote = bytearray(tdx())
    quote[48 + 584 : 48 + 588] = b"\xff" * 4
    with pytest.raises(ParseError):
        parse_quote(bytes(quote))


@given(st.binary(max_size=1300))
def test_nothing_but_a_parse_error_comes_from_any_bytes(data: bytes) -> None:
    for quote in (data, tdx()[:60] + data, snp()[: 0x4A0 - len(data)] + data[:0x4A0]):
        with contextlib.suppress(ParseError):
            assert len(parse_quote(quote).report_data) == 64


@pytest.mark.parametrize("expected", [b"", bytes(32), bytes(65)])
def test_the_expected_report_data_has_64_bytes(expected: bytes) -> None:
    with pytest.raises(InputError):
        check_binding(tdx(), expected)


def test_each_field_of_a_report_is_read_at_its_offset() -> None:
    # AMD 56860, table ATTESTATION_REPORT, by hand.
    places = {
        "guest_svn": (0x04, 4), "policy": (0x08, 8), "family_id": (0x10, 16), "image_id": (0x20, 16), "vmpl": (0x30, 4),
        "algorithm": (0x34, 4), "current_tcb": (0x38, 8), "key_info": (0x48, 4), "report_data": (0x50, 64),
        "measurement": (0x90, 48), "host_data": (0xC0, 32), "id_key_digest": (0xE0, 48),
        "author_key_digest": (0x110, 48), "reported_tcb": (0x180, 8), "chip_id": (0x1A0, 64),
        "committed_tcb": (0x1E0, 8), "launch_tcb": (0x1F0, 8), "signed": (0, 0x2A0), "signature": (0x2A0, 0x200),
    }  # fmt: skip
    data = struct.pack("<I", 3) + bytes((7 * place + place // 251) % 256 for place in range(4, 0x4A0))
    report = parse_quote(data).body
    assert isinstance(report, SnpReport)
    for name, (start, size) in places.items():
        expected, value = data[start : start + size], getattr(report, name)
        assert value == (int.from_bytes(expected, "little") if isinstance(value, int) else expected), name
    assert report.cpuid == tuple(data[0x188:0x18B])
    assert set(places) | {"version", "cpuid"} == set(SnpReport._fields)
