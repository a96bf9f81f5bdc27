from __future__ import annotations

import struct

import pytest

from nvattest.errors import ParseError, ResultCode
from nvattest.spdm.opaque import OpaqueLayout, parse_opaque


def legacy(*entries: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HH", field, len(data)) + data for field, data in entries)


def versioned(*entries: tuple[int, int, bytes], profile: int = 0, version: tuple[int, ...] = (2, 0, 0, 0)) -> bytes:
    body = b"".join(struct.pack("<HHH", field, kind, len(data)) + data for field, kind, data in entries)
    return b"NVDAOD" + struct.pack("<H", profile) + bytes(version) + body


def test_legacy_entries_keep_order_unknown_ids_and_offsets() -> None:
    opaque = parse_opaque(legacy((65535, b"x"), (3, b"550\0"), (0, b"")), origin=100)
    assert opaque.layout is OpaqueLayout.LEGACY
    assert opaque.version == (0, 0, 0)
    assert opaque.entries == ((65535, None, b"x", 100), (3, None, b"550\0", 105), (0, None, b"", 113))
    assert opaque.get(65535) == b"x"
    assert opaque.get(0) == b""
    assert opaque.get(4) is None
    assert opaque.entry(4) is None


def test_versioned_entries_have_value_types() -> None:
    opaque = parse_opaque(versioned((3, 0x86, b"620\0"), (38, 0x85, b"\x00\xaa"), version=(2, 7, 9, 1)), origin=100)
    assert opaque.layout is OpaqueLayout.VERSIONED
    assert opaque.version == (2, 7, 9)
    assert opaque.entries == ((3, 0x86, b"620\0", 112), (38, 0x85, b"\x00\xaa", 122))


def test_the_header_gives_the_version_whatever_entry_34_says() -> None:
    assert parse_opaque(versioned((34, 0x86, b"\xff\xff"))).version == (2, 0, 0)
    assert parse_opaque(versioned((34, 0x86, b""), version=(1, 0, 0, 0))).version == (1, 0, 0)


@pytest.mark.parametrize(("data", "major"), [(b"\0\0", 0), (b"\1\0", 1), (b"\2", 2), (b"\1" + b"\0" * 7, 1)])
def test_entry_34_gives_the_version_of_legacy_data(data: bytes, major: int) -> None:
    assert parse_opaque(legacy((34, data))).version == (major, 0, 0)


@pytest.mark.parametrize(
    "data", [legacy((34, b"\3\0")), legacy((34, b"\0" * 7 + b"\1")), versioned(version=(3, 0, 0, 0))]
)
def test_a_later_version_is_unsupported_firmware(data: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse_opaque(data)
    assert caught.value.code == "opaque-version"
    assert caught.value.result_code is ResultCode.GPU_FW_NOT_SUPPORTED
    assert caught.value.result_code.value == 510
    assert "update" in caught.value.hint


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (b"", "no-opaque", 0),
        (b"NVDAOD", "truncated", 0),
        (versioned()[:11], "truncated", 0),
        (versioned(profile=1), "opaque-profile", 6),
        (versioned(profile=256), "opaque-profile", 6),
        (versioned((3, 0, b"x"), (3, 0, b"x")), "duplicate-field", 19),
        (versioned((3, 0, b"x")) + b"\0", "truncated", 19),
        (versioned((3, 0, b"x")) + b"\0" * 5, "truncated", 19),
        (versioned((3, 0, b"xyz"))[:-1], "truncated", 18),
        (legacy((3, b"x"), (3, b"y")), "duplicate-field", 5),
        (legacy((3, b"x")) + b"\0", "truncated", 5),
        (legacy((3, b"x")) + b"\0" * 3, "truncated", 5),
        (legacy((3, b"xyz"))[:-1], "truncated", 4),
        (legacy((34, b"")), "field-malformed", 0),
        (legacy((34, b"\0" * 9)), "field-malformed", 0),
    ],
)
def test_malformed_opaque_data_is_refused_at_its_byte(data: bytes, code: str, offset: int) -> None:
    with pytest.raises(ParseError) as caught:
        parse_opaque(data, origin=3599)
    assert (caught.value.code, caught.value.offset) == (code, 3599 + offset)
    assert caught.value.result_code is ResultCode.SPDM_OPAQUE_DATA_PARSE_ERROR


def test_a_header_without_entries_is_opaque_data_without_fields() -> None:
    assert parse_opaque(versioned()).entries == ()
