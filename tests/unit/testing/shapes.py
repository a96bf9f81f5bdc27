"""Helpers of these tests: the skeleton of DER, the fields of a report; written apart from the package's own parsers."""

from __future__ import annotations

import base64
import struct

# Extensions whose whole content has to be the same: basicConstraints, keyUsage, extendedKeyUsage, nocheck.
_EXACT = {"551d13", "551d0f", "551d25", "2b0601050507300105"}


def read_tlv(data: bytes, at: int) -> tuple[int, bytes, int]:
    tag, size = data[at], data[at + 1]
    at += 2
    if size & 0x80:
        count = size & 0x7F
        size = int.from_bytes(data[at : at + count], "big")
        at += count
    return tag, data[at : at + size], at + size


def items(data: bytes) -> list[tuple[int, bytes]]:
    out, at = [], 0
    while at < len(data):
        tag, content, at = read_tlv(data, at)
        out.append((tag, content))
    return out


def skeleton(data: bytes) -> list:
    """Tags, object identifiers and flags of DER, without the names, numbers, times, keys and digests in it."""
    out: list = []
    parts = items(data)
    if parts and parts[0][0] == 0x06 and parts[0][1].hex() in _EXACT:
        return [(tag, content.hex()) for tag, content in parts]
    for tag, content in parts:
        if tag in (0x06, 0x01, 0x0A):
            out.append((tag, content.hex()))
        elif tag & 0x20 or (tag == 0x04 and content[:1] in (b"\x30", b"\x04") and read_whole(content)):
            out.append((tag, skeleton(content)))
        else:
            out.append(tag)
    return out


def read_whole(content: bytes) -> bool:
    try:
        return read_tlv(content, 0)[2] == len(content) and len(content) > 2
    except IndexError:
        return False


def pem_ders(text: bytes) -> list[bytes]:
    blocks = text.decode().split("-----BEGIN CERTIFICATE-----")[1:]
    return [base64.b64decode(block.split("-----END")[0]) for block in blocks]


def opaque_of(report: bytes) -> bytes:
    length = int.from_bytes(report[42:45], "little")
    at = 37 + 8 + length + 32
    size = struct.unpack_from("<H", report, at)[0]
    return report[at + 2 : at + 2 + size]


def legacy_fields(opaque: bytes) -> list[tuple[int, bytes]]:
    out, at = [], 0
    while at < len(opaque):
        kind, size = struct.unpack_from("<HH", opaque, at)
        out.append((kind, opaque[at + 4 : at + 4 + size]))
        at += 4 + size
    return out


def versioned_fields(opaque: bytes) -> list[tuple[int, int, bytes]]:
    out, at = [], 12
    while at < len(opaque):
        kind, value, size = struct.unpack_from("<HHH", opaque, at)
        out.append((kind, value, opaque[at + 6 : at + 6 + size]))
        at += 6 + size
    return out


def blocks_of(report: bytes) -> list[tuple[int, bytes]]:
    out, at = [], 45
    for _ in range(report[41]):
        size = struct.unpack_from("<H", report, at + 2)[0]
        out.append((report[at], report[at + 7 : at + 4 + size]))
        at += 4 + size
    return out
