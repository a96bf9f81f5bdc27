from __future__ import annotations

import pytest

from nvattest.errors import ParseError, ResultCode
from nvattest.spdm.report import parse_request

NONCE = bytes(range(32))
REQUEST = bytes.fromhex("11e001ff") + NONCE + b"\3"


def test_a_request_is_read() -> None:
    request = parse_request(REQUEST)
    assert (request.version, request.code, request.param1, request.param2) == (0x11, 0xE0, 0x01, 0xFF)
    assert (request.nonce, request.slot_id) == (NONCE, 3)


@pytest.mark.parametrize("size", range(37))
def test_a_short_request_is_refused_within_its_bytes(size: int) -> None:
    with pytest.raises(ParseError) as caught:
        parse_request(REQUEST[:size])
    assert caught.value.code == "truncated"
    assert caught.value.offset is not None
    assert caught.value.offset <= size


def test_a_long_request_is_refused_where_the_extra_byte_lies() -> None:
    with pytest.raises(ParseError) as caught:
        parse_request(REQUEST + b"\0")
    assert (caught.value.code, caught.value.offset) == ("stray-bytes", 37)


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (0, 0x10, "spdm-version"),
        (0, 0x12, "spdm-version"),
        (1, 0x60, "spdm-code"),
        (2, 0x00, "spdm-parameter"),
        (2, 0x02, "spdm-parameter"),
        (3, 0x00, "spdm-parameter"),
        (3, 0x01, "spdm-parameter"),
    ],
)
def test_another_header_is_refused_at_its_byte(offset: int, value: int, code: str) -> None:
    raw = bytearray(REQUEST)
    raw[offset] = value
    with pytest.raises(ParseError) as caught:
        parse_request(bytes(raw))
    assert (caught.value.code, caught.value.offset) == (code, offset)
    assert caught.value.result_code is ResultCode.SPDM_REQUEST_PARSE_ERROR
