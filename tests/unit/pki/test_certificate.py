from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from nvattest.errors import ParseError, ResultCode
from nvattest.pki.certificate import MAX_CERTIFICATE_SIZE, parse_certificate, parse_pem_chain

from . import minting


def rebuilt(der: bytes, edit) -> bytes:
    """The certificate with ``edit`` applied to the elements of its signed part; the signature is left as it was."""
    tbs, algorithm, signature = minting.elements(der)
    return minting.tlv(0x30, minting.tlv(0x30, b"".join(edit(minting.elements(tbs)))) + algorithm + signature)


@pytest.fixture(scope="module")
def leaf():
    return minting.specs()[0].parsed()


def test_the_exact_parts_are_those_of_the_library(leaf):
    oracle = x509.load_der_x509_certificate(leaf.der)
    assert leaf.tbs == oracle.tbs_certificate_bytes
    assert leaf.signature == oracle.signature
    assert leaf.serial == oracle.serial_number
    assert leaf.subject_der == oracle.subject.public_bytes()
    assert leaf.issuer_der == oracle.issuer.public_bytes()
    assert leaf.subject == oracle.subject.rfc4514_string()
    assert leaf.sha256 == oracle.fingerprint(hashes.SHA256())
    assert leaf.signature_algorithm_oid == "1.2.840.10045.4.3.3"
    assert (leaf.is_ca, leaf.path_length, leaf.key_cert_sign, leaf.digital_signature) == (None, None, False, True)
    assert leaf.common_name == "GH100 A01 GSP FMC LF"
    assert repr(leaf).startswith("<Certificate 'CN=GH100 A01 GSP FMC LF,O=nvattest simulation' serial ")


def test_key_bits_are_the_same_for_any_kind_of_key():
    p256 = minting.specs()[0].but(key=minting.key("p256", ec.SECP256R1())).parsed()
    assert not p256.is_p384
    assert p256.key_bits == p256.spki_der[-65:]
    p384 = minting.specs()[0].parsed()
    assert p384.key_bits == p384.spki_der[-97:]


@pytest.mark.parametrize(
    "serial",
    [b"\x02\x01\xff", b"\x02\x01\x00", b"\x02\x00", b"\x02\x15\x01" + bytes(20), b"\x02\x02\x00\x01"],
    ids=["negative", "zero", "empty", "21 octets", "padded"],
)
def test_a_serial_number_that_rfc_5280_forbids_is_refused(leaf, serial):
    bad = rebuilt(leaf.der, lambda parts: [parts[0], serial, *parts[2:]])
    with pytest.raises(ParseError) as raised:
        parse_certificate(bad)
    assert raised.value.result_code is ResultCode.CERT_NOT_FOUND


def test_algorithms_that_differ_inside_and_outside_are_refused(leaf):
    sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    bad = rebuilt(leaf.der, lambda parts: [*parts[:2], sha256, *parts[3:]])
    with pytest.raises(ParseError, match="inside and outside"):
        parse_certificate(bad)


def test_parameters_of_an_ecdsa_signature_are_refused(leaf):
    with_null = bytes.fromhex("300c06082a8648ce3d0403030500")
    tbs, algorithm, signature = minting.elements(leaf.der)
    assert tbs.count(algorithm) == 1
    parts = [with_null if part == algorithm else part for part in minting.elements(tbs)]
    bad = minting.tlv(0x30, minting.tlv(0x30, b"".join(parts)) + with_null + signature)
    with pytest.raises(ParseError, match="parameters"):
        parse_certificate(bad)


def test_a_repeated_extension_is_refused():
    usage = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.5"), b"\x05\x00")
    der = minting.specs()[0].but(extra=((usage, False), (other, False))).parsed().der
    bad = der.replace(bytes.fromhex("06032a0305"), bytes.fromhex("06032a0304"))
    assert bad != der
    with pytest.raises(ParseError, match="not a readable certificate"):
        parse_certificate(bad)


def test_a_malformed_extension_is_refused(leaf):
    bad = leaf.der.replace(bytes.fromhex("0404030207 80".replace(" ", "")), bytes.fromhex("040403020f80"))
    assert bad != leaf.der
    with pytest.raises(ParseError):
        parse_certificate(bad)


def test_too_many_extensions_are_refused():
    extra = tuple(
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{n}"), b"\x05\x00"), False) for n in range(1, 40)
    )
    with pytest.raises(ParseError, match="extensions"):
        minting.specs()[0].but(extra=extra).parsed()


def test_a_certificate_too_large_is_refused_before_it_is_read():
    with pytest.raises(ParseError) as raised:
        parse_certificate(b"\x30" * (MAX_CERTIFICATE_SIZE + 1))
    assert raised.value.code == "certificate-size"


def test_a_country_of_three_letters_is_no_accident():
    """The library warns about such a name when it is read; here nothing is printed or raised."""
    odd = minting.specs()[0].parsed().der.replace(bytes.fromhex("060355040a"), bytes.fromhex("0603550406"))
    certificate = parse_certificate(odd)
    assert certificate.subject == "CN=GH100 A01 GSP FMC LF,C=nvattest simulation"


@pytest.mark.parametrize("cut", [0, 1, 3, 10, 100, 300, -1])
def test_a_truncated_certificate_is_refused(leaf, cut):
    with pytest.raises(ParseError):
        parse_certificate(leaf.der[:cut])


def test_bytes_after_a_certificate_are_refused(leaf):
    with pytest.raises(ParseError, match="stray"):
        parse_certificate(leaf.der + b"\0")


def test_any_flipped_bit_gives_a_certificate_or_a_parse_error(leaf):
    """Those that parse say their parts without raising."""
    for position in range(len(leaf.der)):
        for bit in (0, 3, 7):
            bad = bytearray(leaf.der)
            bad[position] ^= 1 << bit
            try:
                read = parse_certificate(bytes(bad))
            except ParseError:
                continue
            assert read.der != leaf.der
            _ = (read.subject, read.issuer, read.label, read.key_bits, read.ocsp_urls)
            _ = (read.device_info, read.signature_algorithm_oid, read.subject_serial, repr(read))


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_parse_error(data):
    with pytest.raises(ParseError):
        parse_certificate(data)
    with pytest.raises(ParseError):
        parse_pem_chain(data)


def test_a_pem_chain_is_read_in_its_order():
    chain = minting.chain()
    assert list(parse_pem_chain(minting.pem(*chain))) == chain
    assert list(parse_pem_chain(b"\r\n " + minting.pem(*chain).replace(b"\n", b"\r\n") + b" \n")) == chain


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pem: b"",
        lambda pem: b" \n",
        lambda pem: b"subject=CN\n" + pem,
        lambda pem: pem + b"more",
        lambda pem: pem + b"\0",
        lambda pem: pem.replace(b"BEGIN CERTIFICATE", b"BEGIN TRUSTED CERTIFICATE"),
        lambda pem: pem.replace(b"CERTIFICATE", b"PRIVATE KEY"),
        lambda pem: pem.replace(b"-----END CERTIFICATE-----", b""),
        lambda pem: pem.replace(b"MII", b"M!I", 1),
        lambda pem: pem.replace(b"MII", b"MI", 1),
        lambda pem: pem.replace(b"\n", b"\nProc-Type: 4\n", 1),
    ],
    ids=range(11),
)
def test_text_that_is_not_only_certificates_is_refused(leaf, spoil):
    with pytest.raises(ParseError):
        parse_pem_chain(spoil(minting.pem(leaf)))


def test_the_offset_is_that_of_the_bad_certificate(leaf):
    good = minting.pem(leaf)
    bad = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
    with pytest.raises(ParseError, match="certificate 1") as raised:
        parse_pem_chain(good + bad)
    assert raised.value.offset == len(good)


def test_too_many_certificates_and_too_much_text_are_refused(leaf):
    with pytest.raises(ParseError) as raised:
        parse_pem_chain(minting.pem(leaf, leaf, leaf), maximum=2)
    assert raised.value.code == "chain-size"
    with pytest.raises(ParseError) as raised:
        parse_pem_chain(b" " * (64 * 1024 + 1))
    assert raised.value.code == "chain-size"


def test_certificates_are_equal_by_their_bytes(leaf):
    again = parse_certificate(leaf.der)
    assert again == leaf
    assert len({again, leaf}) == 1
    assert leaf != minting.specs()[1].parsed()


def test_a_name_of_the_subject_is_used_when_there_is_no_common_name():
    builder = minting.specs()[0]
    certificate = parse_certificate(
        builder.parsed().der.replace(
            x509.NameAttribute(NameOID.COMMON_NAME, "x").oid.dotted_string.encode(), b"2.5.4.3"
        )
    )
    assert certificate.label == "GH100 A01 GSP FMC LF"
    no_cn = parse_certificate(builder.parsed().der.replace(bytes.fromhex("0603550403"), bytes.fromhex("060355040b")))
    assert no_cn.label == "OU=GH100 A01 GSP FMC LF,O=nvattest simulation"
