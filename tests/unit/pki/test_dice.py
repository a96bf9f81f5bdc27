from __future__ import annotations

import contextlib

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from nvattest.appraisal.check import Outcome
from nvattest.appraisal.inputs import Collateral
from nvattest.appraisal.verifier import Verifier
from nvattest.errors import ParseError, ResultCode
from nvattest.evidence import Evidence
from nvattest.model import Architecture, VerificationTime
from nvattest.pki.dice import (
    architecture_of_chip,
    chip_of_chain,
    most_specific,
    parse_tcb_info,
    pdi_of_chain,
    read_fwid,
    same_chip,
    tcb_infos,
)

from . import minting

HOPPER_OID, TCB_OID = "2.23.133.5.4.1", "2.23.133.5.4.1.1"
SHA384 = bytes.fromhex("0609608648016503040202")
SHA256 = bytes.fromhex("0609608648016503040201")
DIGEST = bytes(range(48))
tlv = minting.tlv


def fwid(digest=DIGEST, algorithm=SHA384):
    return tlv(0x30, algorithm + tlv(0x04, digest))


def composite(version=b"\x02\x01\x01", key=None, last=None, more=b""):
    device_key = minting.specs()[0].parsed().spki_der if key is None else key
    return tlv(0x30, version + device_key + (fwid() if last is None else last) + more)


def tcb(*fields):
    return tlv(0x30, b"".join(fields))


def leaf(oid, value):
    extra = ((x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False),)
    return minting.specs()[0].but(extra=extra).parsed()


@pytest.mark.parametrize("architecture", [Architecture.HOPPER, Architecture.LS10])
def test_the_composite_device_id_gives_its_fwid(architecture):
    assert read_fwid(leaf(HOPPER_OID, composite()), architecture) == DIGEST


def test_the_first_fwid_of_tcb_info_is_the_firmware():
    value = tcb(tlv(0x80, b"NVIDIA"), tlv(0xA6, fwid() + fwid(bytes(48))))
    certificate = leaf(TCB_OID, value)
    assert read_fwid(certificate, Architecture.BLACKWELL) == DIGEST
    assert tcb_infos(certificate)[0].fwids[1].digest == bytes(48)


@pytest.mark.parametrize("architecture", Architecture)
def test_without_the_extension_there_is_no_fwid(architecture):
    assert read_fwid(minting.specs()[0].parsed(), architecture) is None


def test_the_extension_of_another_architecture_is_not_taken():
    assert read_fwid(leaf(HOPPER_OID, composite()), Architecture.BLACKWELL) is None
    assert read_fwid(leaf(TCB_OID, tcb(tlv(0xA6, fwid()))), Architecture.HOPPER) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        DIGEST,
        composite()[:-1],
        composite() + b"\0",
        composite(more=b"\x05\x00"),
        composite(version=b"\x02\x01\x02"),
        composite(version=b"\x02\x01\xff"),
        composite(version=b""),
        composite(key=b"\x04\x00"),
        composite(last=fwid(DIGEST[:-1])),
        composite(last=fwid(DIGEST + b"\0")),
        composite(last=fwid(DIGEST[:32], SHA256)),
        composite(last=fwid(DIGEST, SHA256)),
        composite(last=tlv(0x30, SHA384 + tlv(0x04, DIGEST) + b"\x05\x00")),
        composite(last=tlv(0x30, b"\x06\x01\x80" + tlv(0x04, DIGEST))),
    ],
    ids=range(15),
)
def test_a_malformed_composite_device_id_is_refused(value):
    with pytest.raises(ParseError) as raised:
        read_fwid(leaf(HOPPER_OID, value), Architecture.HOPPER)
    assert raised.value.result_code is ResultCode.CERT_FWID_NOT_FOUND


def test_tcb_info_is_read_whole():
    info = parse_tcb_info(
        tcb(
            tlv(0x80, b"V"),
            tlv(0x81, b"M"),
            tlv(0x82, b"1"),
            tlv(0x83, b"\x07"),
            tlv(0x84, b"\x00"),
            tlv(0x85, b"\x02"),
            tlv(0xA6, fwid()),
            tlv(0x87, b"\x04\x50"),
            tlv(0x88, b"\xc0"),
            tlv(0x89, b"\x01"),
            tlv(0x8A, b"later revision"),
        )
    )
    assert (info.vendor, info.model, info.version) == ("V", "M", "1")
    assert (info.svn, info.layer, info.index) == (7, 0, 2)
    assert info.flags == ("notSecure", "debug")
    assert (info.vendor_info, info.type) == (b"\xc0", b"\x01")


def test_flags_are_counted_from_the_most_significant_bit():
    assert parse_tcb_info(tcb(tlv(0x87, b"\0\x80\0\0\x01"))).flags == ("notConfigured", "fixedWidth")
    assert parse_tcb_info(tcb(tlv(0x87, b"\0\0\x40"))).flags == ("bit-9",)
    assert parse_tcb_info(tcb(tlv(0x87, b"\0"))).flags == ()
    assert parse_tcb_info(tcb()).flags is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        tcb() + b"\0",
        tcb(tlv(0x81, b"M"), tlv(0x80, b"V")),
        tcb(tlv(0x80, b"V"), tlv(0x80, b"V")),
        tcb(tlv(0x04, b"V")),
        tcb(tlv(0x80, b"\xff")),
        tcb(tlv(0x83, b"\xff")),
        tcb(tlv(0x83, bytes([1, *bytes(8)]))),
        tcb(tlv(0x86, fwid())),
        tcb(tlv(0xA6, fwid()[:-1])),
        tcb(tlv(0xA6, fwid() * 17)),
        tcb(tlv(0x87, b"")),
        tcb(tlv(0x87, b"\x08\x00")),
        tcb(tlv(0x87, b"\x01")),
        tcb(tlv(0x87, b"\x04\x58")),
        tcb(tlv(0x87, b"\0" + bytes(9))),
    ],
    ids=range(16),
)
def test_a_malformed_tcb_info_is_refused(value):
    with pytest.raises(ParseError):
        parse_tcb_info(value)


MULTI_OID = "2.23.133.5.4.5"
DEBUG = tlv(0x87, b"\0\x10\0\0\x01")


def certificate_with(*extensions, **changes):
    extra = tuple((x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False) for oid, value in extensions)
    return minting.specs()[0].but(extra=extra, **changes).parsed()


def flags_of(*extensions):
    return [info.flags for info in tcb_infos(certificate_with(*extensions))]


def test_every_tcb_info_of_a_certificate_is_read():
    assert flags_of() == []
    assert flags_of((TCB_OID, tcb(DEBUG))) == [("debug", "fixedWidth")]
    assert flags_of((MULTI_OID, tlv(0x30, tcb() + tcb(DEBUG)))) == [None, ("debug", "fixedWidth")]
    assert flags_of((MULTI_OID, tlv(0x30, b""))) == []
    assert flags_of((MULTI_OID, tlv(0x30, tcb(DEBUG))), (TCB_OID, tcb())) == [None, ("debug", "fixedWidth")]


def test_the_identifier_of_the_composite_device_id_may_hold_a_tcb_info_as_tcg_has_it():
    assert flags_of((HOPPER_OID, composite())) == []
    assert flags_of((HOPPER_OID, tcb(DEBUG))) == [("debug", "fixedWidth")]


@pytest.mark.parametrize(
    "extension",
    [
        (TCB_OID, b""),
        (TCB_OID, tcb(tlv(0x87, b""))),
        (HOPPER_OID, b""),
        (HOPPER_OID, tcb(tlv(0x87, b""))),
        (MULTI_OID, b""),
        (MULTI_OID, tcb(DEBUG)),
        (MULTI_OID, tlv(0x30, tcb()) + b"\0"),
        (MULTI_OID, tlv(0x30, tcb(tlv(0x87, b"")))),
        (MULTI_OID, tlv(0x30, tcb() * 17)),
        (TCB_OID, tcb(tlv(0xA6, fwid(algorithm=tlv(0x06, b"\x81" * 4000 + b"\x01"))))),
    ],
    ids=range(10),
)
def test_a_tcb_info_that_cannot_be_read_is_no_tcb_info_without_flags(extension):
    with pytest.raises(ParseError):
        tcb_infos(certificate_with(extension))


def test_a_certificate_that_no_one_certified_fails_its_check_and_raises_nothing():
    endless = tlv(0x06, b"\x81" * 4000 + b"\x01")
    chain = minting.pem(certificate_with((TCB_OID, tcb(tlv(0xA6, fwid(algorithm=endless))))), *minting.chain()[1:])
    evidence = Evidence(architecture=Architecture.BLACKWELL, nonce=None, report=b"", certificate_chain=chain)
    at = VerificationTime.at(minting.NOW)
    [device] = Verifier().appraise((evidence,), nonce=None, collateral=Collateral(), at=at).devices
    debug = device.check("debug")
    assert debug.outcome is Outcome.FAIL
    assert "no object identifier" in debug.detail


def test_sixteen_tcb_infos_are_read():
    assert len(flags_of((MULTI_OID, tlv(0x30, tcb() * 16)))) == 16


ORDINARY = ("1.3.6.1.4.1.32473.1", b"\x05\x00")


@pytest.mark.parametrize("place", range(3))
def test_dice_extensions_are_found_wherever_they_stand(place):
    others = [ORDINARY, ("1.3.6.1.4.1.32473.2", b"\x05\x00")]
    for oid, value, architecture in (
        (HOPPER_OID, composite(), Architecture.HOPPER),
        (TCB_OID, tcb(tlv(0xA6, fwid()), DEBUG), Architecture.BLACKWELL),
    ):
        # No key usage: the certificate has these extensions and no other, so that one of them is the first and the last.
        extensions = [*others[:place], (oid, value), *others[place:]]
        certificate = certificate_with(*extensions, key_usage=False)
        assert read_fwid(certificate, architecture) == DIGEST
        assert len(tcb_infos(certificate)) == (oid == TCB_OID)


def test_tcb_info_without_a_fwid_is_refused():
    with pytest.raises(ParseError, match="no FWID"):
        read_fwid(leaf(TCB_OID, tcb()), Architecture.BLACKWELL)


@given(st.binary(max_size=80))
def test_any_bytes_give_tcb_info_or_a_parse_error(data):
    with contextlib.suppress(ParseError):
        parse_tcb_info(data)


def chain_named(leaf_cn, brom_cn):
    specs = minting.specs()
    return [specs[0].but(cn=leaf_cn).parsed(), specs[1].but(cn=brom_cn).parsed()]


@pytest.mark.parametrize(
    ("leaf_cn", "brom_cn", "chip"),
    [
        ("GH100 A01 GSP FMC LF", "GH100 A01 GSP BROM", "GH100"),
        ("LS_10 A01 FSP FMC LF", "LS_10 A01 FSP BROM", "LS_10"),
        ("GH100 A01 GSP FMC LF", "GB100 A01 GSP BROM", None),
        ("GB20X A01 GSP FMC LF", "GB20X A01 GSP BROM", "GB20X"),
        ("GB202 A01 GSP FMC LF", "GB20X A01 GSP BROM", "GB202"),
        ("GR1XX A01 GSP FMC LF", "GR1XX A01 GSP BROM", "GR1XX"),
        ("GB20X A01 GSP FMC LF", "GB100 A01 GSP BROM", None),
        ("GB20X A01 GSP FMC LF", "GB21X A01 GSP BROM", None),
        ("GBXXX A01 GSP FMC LF", "GBXXX A01 GSP BROM", None),
        ("GH1000 A01", "GH1000 A01", None),
        ("something", "something", None),
    ],
)
def test_the_chip_is_what_leaf_and_boot_rom_agree_on(leaf_cn, brom_cn, chip):
    assert chip_of_chain(chain_named(leaf_cn, brom_cn)) == chip


def test_a_chain_of_one_names_neither_chip_nor_pdi():
    assert chip_of_chain(minting.chain()[:1]) is None
    assert pdi_of_chain(minting.chain()[:1]) is None
    assert pdi_of_chain(minting.chain()) is None


@pytest.mark.parametrize(
    ("chip", "said", "found"),
    [
        ("GH100", "NVIDIA:GH100:48B0", "GH100"),
        ("GH100", "NVIDIA:GB100:48B0", None),
        ("GH100", "NVIDIA", None),
        ("GH100", "x", None),
        ("GB20X", "NVIDIA:GB20X:48B0", "GB20X"),
        ("GB20X", "NVIDIA:GB202:48B0", "GB202"),
        ("GB202", "NVIDIA:GB20X:48B0", "GB202"),
        ("GB20X", "NVIDIA:GB100:48B0", None),
        ("GB20X", "NVIDIA::48B0", None),
    ],
)
def test_device_information_must_name_the_same_chip(chip, said, found):
    value = tlv(0x0C, said.encode())
    other = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1"), value)
    specs = [spec.but(cn=spec.cn.replace("GH100", chip)) for spec in minting.specs()]
    first = specs[0].but(extra=((x509.SubjectAlternativeName([other]), False),)).parsed()
    assert first.device_info == said
    assert chip_of_chain([first, specs[1].parsed()]) == found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("GB202", "GB202", True),
        ("GB20X", "GB202", True),
        ("GB20X", "GB20X", True),
        ("GB2XX", "GB202", True),
        ("GB2XX", "GB20X", True),
        ("GB202", "GB203", False),
        ("GB20X", "GB100", False),
        ("GB20X", "GB212", False),
        ("GB20X", "GH202", False),
        ("GB20X", "GB20", False),
        ("GB20X", "GB2022", False),
        ("GB20X", "GB20A", False),
        ("GB20X", "GB20\u0662", False),
        ("GB2X2", "GB202", False),
        ("GBXXX", "GB202", False),
        ("XXXXX", "GB202", False),
        ("GB20X", "gb202", False),
        ("GB20X", "", False),
    ],
)
def test_a_die_family_is_the_same_chip_as_its_members_only(one, other, same):
    assert same_chip(one, other) is same
    assert same_chip(other, one) is same


def test_the_member_says_more_than_its_family():
    assert most_specific("GB2XX", "GB202", "GB20X") == "GB202"
    assert most_specific("GB2XX", "GB20X") == "GB20X"
    assert most_specific("GH100") == "GH100"


@pytest.mark.parametrize(
    ("chip", "architecture"),
    [
        ("GH100", Architecture.HOPPER),
        ("GB100", Architecture.BLACKWELL),
        ("GB202", Architecture.BLACKWELL),
        ("LS_10", Architecture.LS10),
        ("GB110", Architecture.BLACKWELL),
        ("GB20X", Architecture.BLACKWELL),
        ("GR100", Architecture.RUBIN),
        ("GR1XX", Architecture.RUBIN),
        ("GBXXX", None),
        ("GB2X2", None),
        ("LS10", None),
        ("GA100", None),
        ("", None),
    ],
)
def test_chips_belong_to_architectures(chip, architecture):
    assert architecture_of_chip(chip) is architecture
