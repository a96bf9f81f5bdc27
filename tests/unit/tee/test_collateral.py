"""Collateral as values: byte-exact texts, PEM and DER, windows, the host's table of certificates, and hostile ones."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvattest.errors import ParseError
from nvattest.pki.anchors import CPU_ANCHORS, NVIDIA_ANCHORS
from nvattest.tee.collateral import (
    MAXIMUM_ITEMS,
    TDX_MEMBERS,
    SnpCollateral,
    TdxCollateral,
    collateral_windows,
    parse_collateral,
    parse_snp_collateral,
    parse_tdx_collateral,
    read_auxiliary,
    read_crl,
    read_endorsement_key,
    signed_by_amd,
    signed_by_intel,
    snp_collateral,
    tdx_collateral,
)
from nvattest.testing.certificates import pem
from nvattest.testing.cpu import SimulatedGuest

VCEK = bytes.fromhex("63da758de6644564adc5f4b93be8accd")
ASK = bytes.fromhex("4ab7b379bbac4fe4a02f05aef327c782")
CRL = bytes.fromhex("92f81bc358114d3d97ffd19f88dc67ea")
UNKNOWN = bytes(range(16))


@pytest.fixture(scope="module")
def intel() -> TdxCollateral:
    collateral = SimulatedGuest("tdx").collateral()
    assert isinstance(collateral, TdxCollateral)
    return collateral


@pytest.fixture(scope="module")
def amd() -> SnpCollateral:
    collateral = SimulatedGuest("snp-genoa").collateral()
    assert isinstance(collateral, SnpCollateral)
    return collateral


def test_intel_s_texts_are_kept_byte_by_byte(intel: TdxCollateral) -> None:
    spaced = json.dumps(intel.members, indent=3)
    again = parse_collateral(spaced.encode())
    assert isinstance(again, TdxCollateral)
    assert again.text == spaced
    assert again.members == intel.members
    assert tdx_collateral(intel.members).members == intel.members
    assert again.fmspc == intel.fmspc
    assert again.evaluation == intel.evaluation > 0


def test_members_that_the_library_does_not_know_are_left_out(intel: TdxCollateral) -> None:
    document = {**intel.members, "pck_certificate_chain": None, "made_by": "somebody's service"}
    assert parse_tdx_collateral(json.dumps(document).encode()).members == intel.members


@pytest.mark.parametrize("name", TDX_MEMBERS)
@pytest.mark.parametrize("value", [None, 1, ["00"], {}])
def test_a_member_that_is_missing_or_of_another_kind_is_named(intel: TdxCollateral, name: str, value: Any) -> None:
    for document in ({**intel.members, name: value}, {key: text for key, text in intel.members.items() if key != name}):
        with pytest.raises(ParseError, match=name) as caught:
            parse_tdx_collateral(json.dumps(document).encode())
        assert caught.value.code == "collateral-format"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pck_crl", "0x00"),
        ("root_ca_crl", "0"),
        ("tcb_info_signature", ""),
        ("qe_identity_signature", "zz"),
        ("pck_certificate_chain", 1),
        ("tcb_info", "[]"),
        ("tcb_info", "{}"),
        ("tcb_info", '{"issueDate":"2026-01-01T00:00:00Z","nextUpdate":"2026-02-01T00:00:00Z"}'),
        ("qe_identity", '{"issueDate":"yesterday","nextUpdate":"2026-02-01T00:00:00Z"}'),
    ],
)
def test_a_text_of_another_form_is_refused(intel: TdxCollateral, name: str, value: Any) -> None:
    with pytest.raises(ParseError):
        parse_tdx_collateral(json.dumps({**intel.members, name: value}).encode())


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"a":1,"a":2}', b" \n{}", b"{" + b" " * 2**20 + b"}"])
def test_what_is_no_such_document_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse_collateral(data)


def test_a_document_that_is_built_directly_is_read_as_a_file_is(intel: TdxCollateral) -> None:
    assert TdxCollateral(text=intel.text) == intel
    for text in ("x", "[]", "{}", json.dumps({**intel.members, "tcb_info": "{}"})):
        with pytest.raises(ParseError):
            TdxCollateral(text=text)


def test_pem_and_der_say_the_same(amd: SnpCollateral) -> None:
    text = pem(amd.certificates)
    assert parse_snp_collateral(text).certificates == amd.certificates
    assert parse_collateral(b"\n" + text + b"\n") == SnpCollateral(certificates=amd.certificates)
    assert parse_collateral(amd.crls[0]) == SnpCollateral(crls=amd.crls)
    both = parse_collateral(amd.certificates[0]) + parse_collateral(amd.crls[0])  # type: ignore[operator]
    assert both + both == both


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x03\x02\x01\x00",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n",
        b"-----BEGIN CERTIFICATE-----\nA===\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"text\n",
    ],
)
def test_what_is_neither_certificate_nor_list_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse_snp_collateral(data)


def test_text_between_pem_blocks_and_too_many_of_them_are_refused(amd: SnpCollateral) -> None:
    with pytest.raises(ParseError):
        parse_snp_collateral(pem(amd.certificates[:1]) + b"text\n" + pem(amd.certificates[1:]))
    with pytest.raises(ParseError, match="at most"):
        snp_collateral([amd.certificates[0]] * (MAXIMUM_ITEMS + 1))
    with pytest.raises(ParseError):
        snp_collateral([amd.certificates[0] + b"\0"])


@pytest.mark.parametrize("kind", ["endorsement key", "revocation list"])
def test_an_algorithm_outside_of_the_signed_part_that_differs_from_the_one_inside_is_refused(
    amd: SnpCollateral, kind: str
) -> None:
    # Nothing signs the one outside. The last INTEGER 0x30 before the signature of 4096 bits is its length of the salt.
    der = bytearray(amd.certificates[0] if kind == "endorsement key" else amd.crls[0])
    der[der.rindex(b"\x02\x01\x30", 0, der.rindex(b"\x03\x82\x02\x01\x00")) + 2] = 0x20
    with pytest.raises(ParseError, match="inside and outside"):
        (read_endorsement_key if kind == "endorsement key" else read_crl)(bytes(der))


def test_each_dated_part_says_when_it_is_current(intel: TdxCollateral, amd: SnpCollateral) -> None:
    assert [window.name for window in collateral_windows(intel)] == [
        "tcb_info",
        "qe_identity",
        "pck_crl",
        "root_ca_crl",
    ]
    for window in (*collateral_windows(intel), *collateral_windows(amd)):
        assert window.until is not None
        assert window.since < window.until


# --- the host's table -------------------------------------------------------------------------------------------------


def table(*entries: tuple[bytes, int, int], rest: bytes = b"", end: bool = True) -> bytes:
    listed = b"".join(guid + struct.pack("<II", offset, length) for guid, offset, length in entries)
    return listed + bytes(24) * end + rest


def filled(*items: tuple[bytes, bytes]) -> bytes:
    offset = 24 * (len(items) + 1)
    entries, blob = [], b""
    for guid, data in items:
        entries.append((guid, offset + len(blob), len(data)))
        blob += data
    return table(*entries, rest=blob)


def test_the_host_s_table_gives_what_it_holds_and_leaves_what_it_does_not_know(amd: SnpCollateral) -> None:
    vcek, ask, *_ = amd.certificates
    blob = filled((VCEK, vcek), (UNKNOWN, b"anything"), (ASK, pem([ask])), (CRL, amd.crls[0]))
    assert read_auxiliary(blob) == SnpCollateral(certificates=(vcek, ask), crls=amd.crls)


@pytest.mark.parametrize("blob", [b"", bytes(24), bytes(4096)])
def test_an_empty_table_holds_nothing(blob: bytes) -> None:
    assert read_auxiliary(blob) == SnpCollateral()


@pytest.mark.parametrize(
    "blob",
    [
        table((VCEK, 48, 1), end=False),
        table((VCEK, 48, 1))[:-1],
        table((VCEK, 48, 100), rest=bytes(99)),
        table((VCEK, 0, 10), rest=bytes(10)),
        table((VCEK, 47, 10), rest=bytes(10)),
        table((VCEK, 0xFFFFFFFF, 0xFFFFFFFF), rest=bytes(10)),
        table((VCEK, 72, 10), (ASK, 81, 10), rest=bytes(40)),
        table((VCEK, 72, 10), (ASK, 72, 10), rest=bytes(40)),
        b"".join(bytes([1]) * 24 for _ in range(1000)),
    ],
)
def test_a_hostile_table_is_refused(blob: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        read_auxiliary(blob)
    assert caught.value.code == "auxblob"


def test_contents_that_are_no_certificate_are_refused() -> None:
    with pytest.raises(ParseError):
        read_auxiliary(filled((VCEK, b"no certificate")))


@given(st.binary(max_size=300))
def test_any_table_is_read_or_refused(blob: bytes) -> None:
    with contextlib.suppress(ParseError):
        assert isinstance(read_auxiliary(blob), SnpCollateral)


@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        parse_collateral(data)


def test_each_maker_signs_with_its_own_kind_of_key_alone() -> None:
    intel, milan = CPU_ANCHORS.intel.spki_der, CPU_ANCHORS.amd["milan"].spki_der
    for spki_der in (intel, milan, NVIDIA_ANCHORS.device[0].spki_der, b"", b"0"):
        assert signed_by_intel(spki_der, bytes(512), b"") is False
        assert signed_by_amd(spki_der, bytes(512), b"") is False
