"""A reference manifest as NVIDIA issues it: a signed SWID tag (ISO/IEC 19770-2:2015) after the TCG RIM model 1.01.

``parse_rim`` reads one strict profile and nothing else; the profile is published as ``schemas/rim-profile-1.xsd`` and
tests compare the two. Walking the tree costs less than compiling a schema, and can check what a schema cannot (that the
number of hashes equals an attribute).

The values and the digest come from one tree, parsed once: the digest is computed after the Signature is taken out. So
no second reading can see other values. Only ``verify_rim`` makes a RimDocument a document to rely on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nvattest.errors import ParseError
from nvattest.pki.certificate import Certificate, parse_certificate
from nvattest.rim import xml
from nvattest.rim.golden import GoldenValue, MinSvn, read_payload
from nvattest.rim.signature import SignatureBlock, canonical, read_signature
from nvattest.rim.xml import fault, read_xml

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = ["GoldenValue", "MinSvn", "RimDocument", "parse_rim"]

_SPACE: Final = " \t\r\n"
_WORD: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._:-]{0,127}")
_TEXT: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{0,256}")
_MANUFACTURER: Final = re.compile(r"[0-9]{1,10}")

# What the standards define for each element; the value is its pattern, or the one text that it may have.
_ROOT_REQUIRED: Final = ("name", "tagId", "version", "tagVersion")
_ROOT_ATTRIBUTES: Final[Mapping[str, re.Pattern[str] | str]] = {
    "name": _WORD,
    "tagId": _WORD,
    "version": _WORD,
    "tagVersion": _WORD,
    "versionScheme": _WORD,
    # A patch, a supplement or a corpus tag describes something else than a whole device.
    "corpus": "false",
    "patch": "false",
    "supplemental": "false",
}
_ENTITY_ATTRIBUTES: Final[Mapping[str, re.Pattern[str] | str]] = {"name": _TEXT, "role": _TEXT, "regid": _TEXT}
_META_REQUIRED: Final = ("colloquialVersion", "edition", "product", "revision", xml.FIRMWARE_MANUFACTURER_ID)
_META_ATTRIBUTES: Final[Mapping[str, re.Pattern[str] | str]] = {
    "colloquialVersion": _WORD,
    "edition": _WORD,
    "product": _WORD,
    "revision": _WORD,
    "PayloadType": "direct",
    xml.FIRMWARE_MANUFACTURER_ID: _MANUFACTURER,
    xml.TCG + "BindingSpec": "RIMIM",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RimDocument:
    """What one RIM says, unverified; ``verify_rim`` makes a VerifiedRim of it.

    ``product`` and ``name`` name the chip (``GH100``), ``version`` is the driver's or the VBIOS' version
    (``colloquialVersion``), ``golden`` and ``min_svn`` hold active records only, sorted by index. ``signed_info`` are
    the bytes under ``signature_value`` (r‖s); ``digest_found`` is the SHA-384 of this document, ``digest_expected`` the
    one in SignedInfo.
    """

    raw_sha256: bytes
    name: str
    product: str
    version: str
    edition: str
    manufacturer_id: str
    certificates: tuple[Certificate, ...] = field(repr=False)
    signature_value: bytes = field(repr=False)
    signed_info: bytes = field(repr=False)
    digest_found: bytes = field(repr=False)
    digest_expected: bytes = field(repr=False)
    golden: tuple[GoldenValue, ...] = field(repr=False)
    min_svn: tuple[MinSvn, ...] = field(repr=False)

    @property
    def digest_ok(self) -> bool:
        """Whether the document has the digest that its SignedInfo names (of no worth before SignedInfo is verified)."""
        return self.digest_found == self.digest_expected


def parse_rim(data: bytes) -> RimDocument:
    """Read a RIM of at most 1 MiB.

    Raises:
        ParseError: whatever departs from the profile, with result code 106. ``code`` says what: those of ``read_xml``,
            ``read_signature`` and ``read_payload``, ``rim-schema`` for another structure, ``rim-namespace`` for a
            document without canonical form, ``rim-certificate`` for a certificate that cannot be read.
    """
    root = read_xml(data)
    meta, payload, signature = _structure(root)
    _attributes(root, _ROOT_ATTRIBUTES, _ROOT_REQUIRED)
    _attributes(root[0], _ENTITY_ATTRIBUTES, ("name", "role"))
    _attributes(meta, _META_ATTRIBUTES, _META_REQUIRED, open_namespace=xml.TCG)
    if payload.attrib:
        raise fault("Payload has attributes; expected none", "rim-schema", at=payload)

    block = read_signature(signature)
    digest = _digest_without(root, signature)
    golden, min_svn = read_payload(payload)
    return RimDocument(
        raw_sha256=hashlib.sha256(data).digest(),
        name=str(root.attrib["name"]),
        product=str(meta.attrib["product"]),
        version=str(meta.attrib["colloquialVersion"]),
        edition=str(meta.attrib["edition"]),
        manufacturer_id=str(meta.attrib[xml.FIRMWARE_MANUFACTURER_ID]),
        certificates=_certificates(block),
        signature_value=block.signature_value,
        signed_info=block.signed_info,
        digest_found=digest,
        digest_expected=block.digest,
        golden=golden,
        min_svn=min_svn,
    )


def _structure(root: _Element) -> tuple[_Element, _Element, _Element]:
    """Meta, Payload and Signature of a root that holds Entity, these three in this order, and no text."""
    if root.tag != xml.ROOT:
        raise fault(f"the root is {str(root.tag)[:160]}; expected {xml.ROOT}", "rim-schema", at=root)
    children = list(root)
    found = [child.tag for child in children]
    expected = [xml.ENTITY, xml.META, xml.PAYLOAD, xml.SIGNATURE]
    if found != expected:
        # A Signature that is missing, doubled or elsewhere is the mark of a wrapping attack and has a code of its own.
        odd = found.count(xml.SIGNATURE) != 1 or found[-1] != xml.SIGNATURE
        raise fault(
            f"{root.tag} holds {', '.join(str(tag)[:120] for tag in found[:6]) or 'nothing'}; "
            "expected Entity, Meta, Payload, Signature",
            "rim-signature-profile" if odd else "rim-schema",
            at=root,
        )
    entity, meta, payload, signature = children
    for element in (entity, meta):
        if len(element) or element.text is not None:
            raise fault(f"{element.tag} is not empty", "rim-schema", at=element)
    texts = [(root, root.text), (payload, payload.text)]
    texts += [(element, element.tail) for element in (*children, *payload)]
    for element, text in texts:
        if text is not None and text.strip(_SPACE):
            raise fault(f"text between elements: {text.strip()[:40]!r}", "rim-schema", at=element)
    return meta, payload, signature


def _attributes(
    element: _Element,
    allowed: Mapping[str, re.Pattern[str] | str],
    required: tuple[str, ...],
    *,
    open_namespace: str | None = None,
) -> None:
    """Check an element's attributes. Those of ``open_namespace`` may be more than the profile knows; they are text."""
    attributes = element.attrib
    for name in required:
        if name not in attributes:
            raise fault(f"{element.tag} has no {name}", "rim-schema", at=element)
    for key, raw in attributes.items():
        name, value = str(key), str(raw)
        rule = allowed.get(name)
        if rule is None and open_namespace is not None and name.startswith(open_namespace):
            rule = _TEXT
        if rule is None:
            raise fault(f"{element.tag} has an unknown attribute {name[:160]}", "rim-schema", at=element)
        if value != rule if isinstance(rule, str) else rule.fullmatch(value) is None:
            raise fault(f"{element.tag} has {name} = {value[:80]!r}", "rim-schema", at=element)


def _digest_without(root: _Element, signature: _Element) -> bytes:
    """SHA-384 of the document after the enveloped-signature transform; takes ``signature`` out of ``root``."""
    # lxml removes an element together with the text after it, which stays signed content.
    tail = signature.tail
    if tail:
        before = signature.getprevious()
        if before is not None:
            before.tail = (before.tail or "") + tail
    signature.tail = None
    root.remove(signature)
    return hashlib.sha384(canonical(root)).digest()


def _certificates(block: SignatureBlock) -> tuple[Certificate, ...]:
    certificates = []
    for position, der in enumerate(block.certificates):
        try:
            certificates.append(parse_certificate(der))
        except ParseError as error:
            raise fault(f"certificate {position} of {len(block.certificates)}: {error}", "rim-certificate") from error
    return tuple(certificates)
