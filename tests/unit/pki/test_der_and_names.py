from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from nvattest.errors import ParseError
from nvattest.pki.certificate import (
    COMMON_NAME,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    SERIAL_NUMBER,
    DerReader,
    Name,
    dotted,
)


def reader(text: str) -> DerReader:
    return DerReader(bytes.fromhex(text), source="test")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "3001",
        "3080",  # indefinite
        "308101",  # not the shortest length
        "30820001",
        "3084000000010203",  # too many length bytes
        "1f8101",  # tag of several bytes
        "0403aabb",
    ],
)
def test_what_is_not_der_is_refused_with_its_offset(text):
    with pytest.raises(ParseError) as raised:
        reader(text).element(None, "thing")
    assert raised.value.offset == 0


def test_another_tag_is_refused():
    with pytest.raises(ParseError, match="needs tag 0x30, found 0x04"):
        reader("0400").element(SEQUENCE, "thing")


def test_long_lengths_are_read():
    assert len(reader("048180" + "00" * 128).content(OCTET_STRING, "thing")) == 128


@pytest.mark.parametrize("text", ["0200", "0201ff", "02020001", "0209010000000000000000"])
def test_integers_that_are_negative_long_or_padded_are_refused(text):
    with pytest.raises(ParseError):
        reader(text).unsigned("number")


@pytest.mark.parametrize(("text", "number"), [("020100", 0), ("02020080", 128), ("020900ffffffffffffffff", 2**64 - 1)])
def test_integers_are_read(text, number):
    assert reader(text).unsigned("number", tag=INTEGER) == number


def test_stray_bytes_are_refused():
    whole = reader("040000")
    whole.content(OCTET_STRING, "thing")
    with pytest.raises(ParseError, match="1 stray bytes after thing"):
        whole.finish("thing")


@given(st.binary(max_size=40))
def test_any_bytes_give_an_element_or_a_parse_error(data):
    whole = DerReader(data, source="test")
    try:
        while not whole.at_end:
            whole.element(None, "thing")
    except ParseError:
        pass


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("6086480165030402 02", "2.16.840.1.101.3.4.2.2"),
        ("2b", "1.3"),
        ("678105050401", "2.23.133.5.4.1"),
        ("883703", "2.999.3"),
        ("", None),
        ("8037", None),
        ("2b80", None),
        ("2b" + "81" * 61 + "01", f"1.3.{int('1' + '0000001' * 61, 2)}"),
        # Python refuses to write this number.
        ("81" * 4000 + "01", None),
    ],
    ids=range(9),
)
def test_object_identifiers_are_written_dotted(content, text):
    assert dotted(bytes.fromhex(content)) == text


def test_names_are_written_as_the_library_writes_them():
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ' a+b, "c"; <d>\\ '),
            x509.NameAttribute(NameOID.COMMON_NAME, "#é"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "41AA"),
        ]
    )
    der = name.public_bytes()
    assert Name(der).rfc4514() == name.rfc4514_string()
    assert Name(der).first(SERIAL_NUMBER) == "41AA"
    assert Name(der).first(COMMON_NAME) == "#é"
    assert Name(der).first("2.5.4.4") is None


def test_control_characters_and_what_is_no_text_are_shown_as_digits():
    control = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a\x1b[2Jb")]).public_bytes()
    assert Name(control).rfc4514() == "CN=#0c06611b5b324a62"
    no_text = bytes.fromhex("300c310a300806035504030401ff")
    assert Name(no_text).rfc4514() == "CN=#0401ff"
    assert Name(no_text).first(COMMON_NAME) is None
    assert Name(b"\x30\x01").rfc4514() == "#3001"
    assert Name(b"\x30\x01").first(COMMON_NAME) is None
