"""A writer of DER (X.690), of just what revocation answers and NVIDIA's extensions need.

It is separate from every parser of this package on purpose: what it writes is an independent opinion of the format.
"""

from __future__ import annotations

from datetime import datetime, timezone

__all__ = [
    "bit_string",
    "enumerated",
    "explicit",
    "generalized_time",
    "implicit",
    "integer",
    "null",
    "octet_string",
    "oid",
    "sequence",
    "tlv",
    "utc_time",
    "utf8",
]


def tlv(tag: int, content: bytes) -> bytes:
    """One element: tag, definite length, content."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*items: bytes) -> bytes:
    """SEQUENCE of elements that are already encoded."""
    return tlv(0x30, b"".join(items))


def explicit(number: int, content: bytes) -> bytes:
    """Context tag ``[number]`` around an encoded element."""
    return tlv(0xA0 | number, content)


def implicit(number: int, content: bytes) -> bytes:
    """Context tag ``[number]`` in place of a primitive element's own tag."""
    return tlv(0x80 | number, content)


def integer(value: int) -> bytes:
    """INTEGER, shortest form."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def enumerated(value: int) -> bytes:
    """ENUMERATED, one byte."""
    return tlv(0x0A, bytes((value,)))


def null() -> bytes:
    """NULL."""
    return b"\x05\x00"


def octet_string(content: bytes) -> bytes:
    """OCTET STRING."""
    return tlv(0x04, content)


def bit_string(content: bytes, unused: int = 0) -> bytes:
    """BIT STRING with ``unused`` bits at its end."""
    return tlv(0x03, bytes((unused,)) + content)


def utf8(text: str) -> bytes:
    """UTF8String."""
    return tlv(0x0C, text.encode())


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER from its dotted text."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    out = bytearray()
    for arc in (first * 40 + second, *rest):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(0x80 | (arc & 0x7F))
        out += bytes(reversed(septets))
    return tlv(0x06, bytes(out))


def utc_time(value: datetime) -> bytes:
    """UTCTime, for years before 2050."""
    return tlv(0x17, value.astimezone(timezone.utc).strftime("%y%m%d%H%M%SZ").encode())


def generalized_time(value: datetime) -> bytes:
    """GeneralizedTime."""
    return tlv(0x18, value.astimezone(timezone.utc).strftime("%Y%m%d%H%M%SZ").encode())
