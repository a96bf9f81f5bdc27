from __future__ import annotations

import struct

import pytest

from nvattest.errors import ParseError, ResultCode
from nvattest.spdm.report import parse_response

NONCE = b"\x22" * 32
OPAQUE = b"\x01\x00\x00\x00"
SIGNATURE = bytes(range(96))


def block(index: int, value: bytes = b"\xaa" * 48, *, spec: int = 1, outer: int = 0, inner: int = 0) -> bytes:
    size = len(value)
    return struct.pack("<BBHBH", index, spec, size + 3 + outer, 1, size + inner) + value


def response(
    *blocks: bytes, count: int | None = None, extra: int = 0, opaque: bytes = OPAQUE, tail: bytes = b""
) -> bytes:
    record = b"".join(blocks)
    head = bytes((0x11, 0x60, 0, 0, len(blocks) if count is None else count))
    length = (len(record) + extra).to_bytes(3, "little")
    return head + length + record + NONCE + len(opaque).to_bytes(2, "little") + opaque + SIGNATURE + tail


def test_a_response_gives_its_parts() -> None:
    data = response(block(1), block(7, b"\x01" * 32), tail=b"\n")
    parsed = parse_response(data)
    assert [(b.index, b.value_type, b.value) for b in parsed.blocks] == [(1, 1, b"\xaa" * 48), (7, 1, b"\x01" * 32)]
    assert (parsed.version, parsed.code, parsed.param1, parsed.param2) == (0x11, 0x60, 0, 0)
    assert len(parsed.record) == 55 + 39
    assert (parsed.nonce, parsed.opaque, parsed.signature) == (NONCE, OPAQUE, SIGNATURE)
    assert data[parsed.opaque_offset :].startswith(OPAQUE + SIGNATURE)
    assert data[parsed.signed_length :] == SIGNATURE + b"\n"
    assert parsed.trailing == b"\n"


def test_an_empty_value_is_a_value() -> None:
    assert parse_response(response(block(1, b""))).blocks[0].value == b""


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (response(block(1), block(1)), "duplicate-block", 8 + 55),
        (response(block(0)), "block-index", 8),
        (response(block(1, spec=2)), "block-spec", 9),
        (response(block(1, outer=1)), "block-length", 10),
        (response(block(1, outer=-1)), "block-length", 10),
        (response(block(1, inner=1)), "block-length", 10),
        (response(block(1), block(2, inner=-48, outer=-51)), "block-length", 8 + 55 + 2),
        (response(block(1, outer=1, inner=1)), "truncated", 8 + 7),
        (response(block(1), b"\0"), "truncated", 8 + 55),
        (response(block(1), b"\0", count=1), "stray-bytes", 8 + 55),
        (response(block(1), block(2), count=1), "stray-bytes", 8 + 55),
        (response(block(1), count=2), "truncated", 8 + 55),
    ],
)
def test_a_malformed_record_is_refused_at_its_byte(data: bytes, code: str, offset: int) -> None:
    with pytest.raises(ParseError) as caught:
        parse_response(data, origin=1000)
    assert (caught.value.code, caught.value.offset) == (code, 1000 + offset)
    assert caught.value.result_code is ResultCode.SPDM_MEASUREMENT_RECORD_PARSE_ERROR


def test_a_block_does_not_reach_beyond_its_record() -> None:
    # The bytes are there, in the nonce that follows, but they are not the record's.
    with pytest.raises(ParseError) as caught:
        parse_response(response(block(1, outer=32, inner=32)))
    assert (caught.value.code, caught.value.offset) == ("truncated", 15)


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (b"\x12" + response(block(1))[1:], "spdm-version", 0),
        (b"\x11\x7f" + response(block(1))[2:], "spdm-code", 1),
        (response(count=0), "no-blocks", 4),
        (response(block(1), opaque=b""), "no-opaque", 8 + 55 + 32),
        (response(block(1), extra=1 << 20), "truncated", 8),
    ],
)
def test_a_malformed_response_is_refused_at_its_byte(data: bytes, code: str, offset: int) -> None:
    with pytest.raises(ParseError) as caught:
        parse_response(data, origin=37)
    assert (caught.value.code, caught.value.offset) == (code, 37 + offset)
    assert caught.value.result_code is ResultCode.SPDM_PARSE_ERROR
