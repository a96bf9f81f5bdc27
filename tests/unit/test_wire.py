"""The cursor over untrusted bytes."""

from __future__ import annotations

import pytest

from nvattest._wire import Cursor
from nvattest.errors import ParseError, ResultCode


def test_fields_are_read_front_to_back() -> None:
    cursor = Cursor(bytes(range(8)), source="report")
    assert cursor.take(2, "a") == b"\0\1"
    assert cursor.take(0, "nothing") == b""
    assert cursor.uint(1, "b") == 2
    assert (cursor.position, cursor.offset, cursor.remaining) == (3, 3, 5)
    assert cursor.take(5, "c") == bytes([3, 4, 5, 6, 7])
    assert cursor.remaining == 0
    cursor.finish("the report")


@pytest.mark.parametrize(
    ("data", "size", "value"),
    [(b"\x01\x02\x03", 3, 0x030201), (b"\xff\xff", 2, 0xFFFF), (b"", 0, 0), (b"\x80", 1, 128)],
)
def test_integers_are_little_endian_and_unsigned(data: bytes, size: int, value: int) -> None:
    assert Cursor(data, source="x").uint(size, "n") == value


@pytest.mark.parametrize("length", range(8))
def test_a_read_past_the_end_is_refused_with_offset_need_and_rest(length: int) -> None:
    cursor = Cursor(bytes(length), source="SPDM response", origin=37)
    with pytest.raises(ParseError) as caught:
        cursor.take(8, "responder nonce")
    error = caught.value
    assert (error.code, error.source, error.offset) == ("truncated", "SPDM response", 37)
    assert str(error) == f"SPDM response, byte 37: responder nonce needs 8 bytes, {length} are left"


def test_a_refused_read_moves_nothing() -> None:
    cursor = Cursor(b"abc", source="x")
    cursor.take(1, "a")
    with pytest.raises(ParseError):
        cursor.take(3, "b")
    assert (cursor.position, cursor.take(2, "c")) == (1, b"bc")


@pytest.mark.parametrize("size", [2**31, 2**64])
def test_an_enormous_size_is_refused_without_allocating(size: int) -> None:
    with pytest.raises(ParseError, match="needs"):
        Cursor(b"abc", source="x").take(size, "field")


@pytest.mark.parametrize("read", ["take", "uint"])
def test_a_negative_size_never_goes_backwards(read: str) -> None:
    cursor = Cursor(b"abcdef", source="record", origin=100)
    cursor.take(4, "head")
    with pytest.raises(ParseError, match="impossible size -2") as caught:
        getattr(cursor, read)(-2, "body")
    assert (caught.value.code, caught.value.offset, cursor.position) == ("length", 104, 4)


def test_an_integer_past_the_end_is_refused() -> None:
    with pytest.raises(ParseError) as caught:
        Cursor(b"\1", source="x").uint(2, "count")
    assert caught.value.code == "truncated"


def test_stray_bytes_are_refused_with_their_number_and_place() -> None:
    cursor = Cursor(b"abcde", source="opaque data", origin=10)
    cursor.take(2, "head")
    with pytest.raises(ParseError, match="3 stray bytes after the last entry") as caught:
        cursor.finish("the last entry")
    assert (caught.value.code, caught.value.offset) == ("stray-bytes", 12)


def test_an_error_can_point_back_at_the_field_just_read() -> None:
    cursor = Cursor(b"abcd", source="x", origin=5)
    cursor.uint(4, "size")
    error = cursor.error("wrong", code="length", back=4)
    assert (error.offset, error.code, str(error)) == (5, "length", "x, byte 5: wrong")


def test_errors_carry_the_result_code_of_their_format() -> None:
    cursor = Cursor(b"", source="x", result_code=ResultCode.SPDM_PARSE_ERROR)
    with pytest.raises(ParseError) as caught:
        cursor.take(1, "a")
    assert caught.value.result_code is ResultCode.SPDM_PARSE_ERROR
    assert Cursor(b"", source="x").error("m", code="c").result_code is ResultCode.EVIDENCE_MALFORMED
