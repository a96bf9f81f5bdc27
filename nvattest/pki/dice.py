"""What a device's certificates say about it: firmware id, chip, and physical device identifier.

The firmware id (FWID) of the leaf is the digest of the firmware that the boot ROM measured. Hopper and LS10 leaves
carry the older composite device id, later leaves a DiceTcbInfo (TCG DICE Attestation Architecture 1.1, 6.1.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from nvattest._registry import (
    FWID_SIZE,
    OID_DICE_FWID_HOPPER,
    OID_DICE_MULTI_TCB_INFO,
    OID_DICE_TCB_INFO,
    OID_SHA384,
    PDI_SIZE,
)
from nvattest.errors import ParseError, ResultCode
from nvattest.model import Architecture
from nvattest.pki.certificate import INTEGER, OCTET_STRING, OID, SEQUENCE, Certificate, DerReader, dotted

# TCG DICE Attestation Architecture 1.1, 6.1.1.1 (OperationalFlags). The last says that the string has 32 bits.
FLAG_NAMES: Final = {
    **dict(enumerate(("notConfigured", "notSecure", "recovery", "debug", "notReplayProtected", "notIntegrityProtected",
                      "notRuntimeMeasured", "notImmutable", "notTcb"))),
    31: "fixedWidth",
}  # fmt: skip

# Architectures whose leaves carry the firmware id in a DiceTcbInfo; the others in a composite device id.
_WITH_TCB_INFO = (Architecture.BLACKWELL, Architecture.RUBIN)
_MAX_FWIDS = 16
_MAX_TCB_INFOS = 16
_MAX_FLAG_BYTES = 8
_CONTEXT = 0x80
_CONSTRUCTED = 0x20
# The fields by their tags.
_FIELDS = ("vendor", "model", "version", "svn", "layer", "index", "fwids", "flags", "vendor_info", "type")
_VERSION, _INDEX, _FWIDS, _FLAGS = 2, 5, 6, 7
_CHIP = re.compile(r"([A-Z]{2}_?(?:[0-9]{2,3}[A-Z]?|[0-9]XX))(?: |\Z)")
# GB20X is any of GB202 and its siblings, GR1XX any of GR100 and its siblings: each final X is one digit.
_FAMILY = re.compile(r"([A-Z]{2}_?[0-9]{1,2})(X{1,2})")
_PDI = re.compile(f"[0-9A-Fa-f]{{{2 + 2 * PDI_SIZE}}}")


class Fwid(NamedTuple):
    """One firmware id: the OID of its hash, and the digest."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """DiceTcbInfo; an absent field is None. ``flags`` are the names of the bits that are set, ``bit-N`` if unnamed."""

    vendor: str | None = None
    model: str | None = None
    version: str | None = None
    svn: int | None = None
    layer: int | None = None
    index: int | None = None
    fwids: tuple[Fwid, ...] = ()
    flags: tuple[str, ...] | None = None
    vendor_info: bytes | None = None
    type: bytes | None = None


def read_fwid(leaf: Certificate, architecture: Architecture) -> bytes | None:
    """The 48-byte SHA-384 firmware id in the leaf of a device of this architecture; None without the extension.

    Raises:
        ParseError: the extension is there but malformed, or its first FWID is not a SHA-384 digest (code ``fwid``).
    """
    oid = OID_DICE_TCB_INFO if architecture in _WITH_TCB_INFO else OID_DICE_FWID_HOPPER
    value = leaf.extension(oid)
    if value is None:
        return None
    fwids = parse_tcb_info(value).fwids if oid == OID_DICE_TCB_INFO else (_composite_device_id(value),)
    if not fwids:
        raise _malformed("DiceTcbInfo has no FWID")
    algorithm, digest = fwids[0]
    if algorithm != OID_SHA384 or len(digest) != FWID_SIZE:
        raise _malformed(f"needs a SHA-384 digest, found {len(digest)} bytes of algorithm {algorithm}")
    return digest


def tcb_infos(certificate: Certificate) -> tuple[TcbInfo, ...]:
    """Every DiceTcbInfo that a certificate carries, alone or in a MultiTcbInfo (TCG DICE 1.1, 6.1.1 and 6.1.2).

    The object identifier of the older composite device id is TCG's own for a DiceTcbInfo, and read as one where the
    content is one.

    Raises:
        ParseError: one of the extensions is there but malformed (code ``der`` or ``fwid``).
    """
    found: list[TcbInfo] = []
    value = certificate.extension(OID_DICE_TCB_INFO)
    if value is not None:
        found.append(parse_tcb_info(value))
    value = certificate.extension(OID_DICE_FWID_HOPPER)
    # A composite device id begins with its version.
    if value is not None and _reader(value).inner(SEQUENCE, "composite device id").peek() != INTEGER:
        found.append(parse_tcb_info(value))
    value = certificate.extension(OID_DICE_MULTI_TCB_INFO)
    if value is not None:
        infos = _sequence(value, "MultiTcbInfo")
        while not infos.at_end:
            if len(found) == _MAX_TCB_INFOS:
                raise infos.error(f"more than {_MAX_TCB_INFOS} TCB infos")
            found.append(_tcb_info(infos.inner(SEQUENCE, "DiceTcbInfo")))
    return tuple(found)


def parse_tcb_info(value: bytes) -> TcbInfo:
    """Read the DER of a DiceTcbInfo. Fields of later revisions (tags above 9) are passed over.

    Raises:
        ParseError: malformed, fields out of order or twice, more than 16 FWIDs.
    """
    return _tcb_info(_sequence(value, "DiceTcbInfo"))


def _tcb_info(fields: DerReader) -> TcbInfo:
    found: dict[str, Any] = {}
    last = -1
    while (tag := fields.peek()) is not None:
        number = tag & 0x1F
        if tag & 0xC0 != _CONTEXT or number <= last:
            raise fields.error(f"a field with tag 0x{tag:02X} is out of order in DiceTcbInfo")
        last = number
        if number >= len(_FIELDS):
            fields.element(None, f"field {number}")
        elif number <= _VERSION:
            found[_FIELDS[number]] = _text(fields, number)
        elif number <= _INDEX:
            found[_FIELDS[number]] = fields.unsigned(f"field {number}", tag=_CONTEXT | number)
        elif number == _FWIDS:
            found["fwids"] = _fwids(fields.inner(_CONTEXT | _CONSTRUCTED | number, "fwids"))
        else:
            name = "flags" if number == _FLAGS else f"field {number}"
            content = fields.content(_CONTEXT | number, name)
            found[_FIELDS[number]] = _flags(content) if number == _FLAGS else content
    return TcbInfo(**found)


def chip_of_chain(certificates: Sequence[Certificate]) -> str | None:
    """The chip that the common names of leaf and boot ROM agree on (``GH100``, ``GB20X``, ``LS_10``), else None.

    The device information of the leaf (DMTF), where it is there, must name the same chip. Where one of the three names
    a die family and another a member of it, the member counts.
    """
    if len(certificates) < 2:
        return None
    matches = [_CHIP.match(certificate.common_name or "") for certificate in certificates[:2]]
    names = [match[1] if match else "" for match in matches]
    information = certificates[0].device_info
    if information is not None:
        names += information.split(":")[1:2] or [""]
    chip = most_specific(*names)
    return chip if chip and all(same_chip(name, chip) for name in names) else None


def same_chip(one: str, other: str) -> bool:
    """Whether two names may be of one chip: they are equal, or one is the die family of the other.

    ``GB20X`` is the same chip as ``GB202`` and as ``GB203``, which are not the same chip as each other.
    """
    return one == other or _is_member(one, other) or _is_member(other, one)


def most_specific(*chips: str) -> str:
    """The most specific name: a member rather than its family; the first of several."""

    def letters(chip: str) -> int:
        """How many letters of the name stand for any digit."""
        family = _FAMILY.fullmatch(chip)
        return len(family[2]) if family is not None else 0

    return min(chips, key=letters)


def _is_member(chip: str, family: str) -> bool:
    match = _FAMILY.fullmatch(family)
    if match is None or len(chip) != len(family) or not chip.startswith(match[1]):
        return False
    rest = chip[len(match[1]) :]
    return rest.isascii() and (rest.isdigit() or _FAMILY.fullmatch(chip) is not None)


def architecture_of_chip(chip: str) -> Architecture | None:
    """The architecture of a chip or die family, None for one that is not known here."""
    if chip == "LS_10":
        return Architecture.LS10
    return next((architecture for pattern, architecture in _ARCHITECTURES if pattern.fullmatch(chip)), None)


_ARCHITECTURES = (
    (re.compile(r"GH1(?:[0-9]{2}|[0-9]X|XX)"), Architecture.HOPPER),
    (re.compile(r"GB[0-9](?:[0-9]{2}|[0-9]X|XX)"), Architecture.BLACKWELL),
    (re.compile(r"GR1(?:[0-9]{2}|[0-9]X|XX)"), Architecture.RUBIN),
)


def pdi_of_chain(certificates: Sequence[Certificate]) -> str | None:
    """The physical device identifier, 16 upper-case digits: the boot ROM's subject serialNumber less its first byte."""
    serial = certificates[1].subject_serial if len(certificates) > 1 else None
    return serial[2:].upper() if serial is not None and _PDI.fullmatch(serial) else None


def _composite_device_id(value: bytes) -> Fwid:
    """SEQUENCE { INTEGER 1, SubjectPublicKeyInfo, FWID }."""
    fields = _sequence(value, "composite device id")
    version = fields.unsigned("version")
    if version != 1:
        raise _malformed(f"composite device id has version {version}, only 1 is known")
    fields.element(SEQUENCE, "device key")
    fwid = _fwid(fields)
    fields.finish("FWID")
    return fwid


def _fwids(reader: DerReader) -> tuple[Fwid, ...]:
    found: list[Fwid] = []
    while not reader.at_end:
        if len(found) == _MAX_FWIDS:
            raise reader.error(f"more than {_MAX_FWIDS} FWIDs")
        found.append(_fwid(reader))
    return tuple(found)


def _fwid(reader: DerReader) -> Fwid:
    fields = reader.inner(SEQUENCE, "FWID")
    algorithm = dotted(fields.content(OID, "hash algorithm"))
    digest = fields.content(OCTET_STRING, "digest")
    fields.finish("digest")
    if algorithm is None:
        raise fields.error("the hash algorithm is no object identifier")
    return Fwid(algorithm=algorithm, digest=digest)


def _flags(content: bytes) -> tuple[str, ...]:
    if not 1 <= len(content) <= 1 + _MAX_FLAG_BYTES or content[0] > 7 or (len(content) == 1 and content[0]):
        raise _malformed("the flags of DiceTcbInfo are no short BIT STRING")
    if len(content) > 1 and content[-1] & ((1 << content[0]) - 1):
        raise _malformed("unused bits of the flags are set")
    width = 8 * (len(content) - 1)
    bits = int.from_bytes(content[1:], "big")
    return tuple(FLAG_NAMES.get(n, f"bit-{n}") for n in range(width) if bits >> (width - 1 - n) & 1)


def _text(fields: DerReader, number: int) -> str:
    content = fields.content(_CONTEXT | number, f"field {number}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise fields.error(f"field {number} is not UTF-8") from error


def _sequence(value: bytes, name: str) -> DerReader:
    """A reader over the one SEQUENCE that this value is."""
    reader = _reader(value)
    fields = reader.inner(SEQUENCE, name)
    reader.finish(name)
    return fields


def _reader(value: bytes) -> DerReader:
    return DerReader(value, source="DICE extension", result_code=ResultCode.CERT_FWID_NOT_FOUND)


def _malformed(message: str) -> ParseError:
    return ParseError(message, source="DICE extension", code="fwid", result_code=ResultCode.CERT_FWID_NOT_FOUND)
