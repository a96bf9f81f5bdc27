"""Distinguished names as text (RFC 4514) and their attributes, read from DER that the X.509 library has accepted.

The library's own name objects warn about odd attributes (a country of three letters), and a verifier must not print or
raise while it only says a name. What cannot be shown as text appears as ``#`` and hexadecimal digits (RFC 4514, 2.4).
"""

from __future__ import annotations

from typing import NamedTuple

from nvattest._text import clean
from nvattest.errors import ParseError
from nvattest.pki._der import OID, SEQUENCE, DerReader, dotted

COMMON_NAME = "2.5.4.3"
SERIAL_NUMBER = "2.5.4.5"

_SHORT = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}
# Those of 2.5.4 have three octets, which is the content of nearly every name.
_KNOWN = {bytes((0x55, 4, int(oid[6:]))): oid for oid in (*_SHORT, SERIAL_NUMBER) if oid.startswith("2.5.4.")}
_SET = 0x31
# X.520 allows 64 characters in most attributes.
_MAXIMUM_VALUE = 256
_EMPTY = b"\x30\x00"
_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x12: "ascii", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
_ESCAPED = str.maketrans({c: "\\" + c for c in '\\"+,;<>'} | {"\0": "\\00"})


class Attribute(NamedTuple):
    """One attribute: its OID, its text (None where it is no text), and its value's DER."""

    oid: str
    text: str | None
    der: bytes


def parse_name(name: bytes) -> tuple[tuple[Attribute, ...], ...]:
    """The relative distinguished names of a Name in its order of encoding.

    Raises:
        ParseError: not the DER of a Name.
    """
    reader = DerReader(name, source="distinguished name")
    names = reader.inner(SEQUENCE, "Name")
    reader.finish("Name")
    found: list[tuple[Attribute, ...]] = []
    while not names.at_end:
        attributes = names.inner(_SET, "RelativeDistinguishedName")
        together: list[Attribute] = []
        while not attributes.at_end:
            pair = attributes.inner(SEQUENCE, "AttributeTypeAndValue")
            content = pair.content(OID, "attribute type")
            oid = _KNOWN.get(content) or dotted(content) or "?"
            value = pair.element(None, "attribute value")
            pair.finish("AttributeTypeAndValue")
            text = _text(value.tag, name[value.body : value.end])
            together.append(Attribute(oid, text, name[value.start : value.end]))
        found.append(tuple(together))
    return tuple(found)


class Name:
    """A Name that is read when somebody asks, and then kept: chains are described far more often than parsed."""

    __slots__ = ("_parsed", "der")

    def __init__(self, der: bytes) -> None:
        self.der = der
        self._parsed: tuple[tuple[Attribute, ...], ...] | None = None

    def _read(self) -> tuple[tuple[Attribute, ...], ...]:
        if self._parsed is None:
            try:
                self._parsed = parse_name(self.der)
            except ParseError:
                self._parsed = ()
        return self._parsed

    def rfc4514(self) -> str:
        """The name as text, last attribute first, as RFC 4514 writes it; what is no Name, as ``#`` and its digits."""
        if not self._read() and self.der != _EMPTY:
            return clean(f"#{self.der.hex()}")
        return clean(",".join("+".join(map(_show, together)) for together in reversed(self._read())))

    def first(self, oid: str) -> str | None:
        """The text of the first attribute with this OID, safe to show; None if there is none or it is no text."""
        for together in self._read():
            for attribute in together:
                if attribute.oid == oid:
                    return None if attribute.text is None else clean(attribute.text, _MAXIMUM_VALUE)
        return None


def _text(tag: int, content: bytes) -> str | None:
    encoding = _ENCODINGS.get(tag)
    try:
        return None if encoding is None else content.decode(encoding)
    except UnicodeDecodeError:
        return None


def _show(attribute: Attribute) -> str:
    key = _SHORT.get(attribute.oid, attribute.oid)
    text = attribute.text
    if text is None or not text.isprintable():
        return f"{key}=#{attribute.der.hex()}"
    shown = text.translate(_ESCAPED)
    if shown[:1] in ("#", " "):
        shown = "\\" + shown
    if len(shown) > 1 and shown[-1] == " ":
        shown = shown[:-1] + "\\ "
    return f"{key}={shown}"
