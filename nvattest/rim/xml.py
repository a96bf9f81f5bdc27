"""The XML of RIMs: the profile's names, its one error, and a byte gate before lxml with everything dangerous off.

Names are in lxml's ``{namespace}local`` form.

The gate refuses what the profile never uses (DTD, entities, comments, CDATA, processing instructions, ``xml:*``
attributes, other encodings) before a parser sees it. In well-formed UTF-8 text ``<!`` and ``<?`` are always markup and
``&`` always starts a reference, so searching bytes is exact; a false alarm can only refuse.

The published profile, ``schemas/rim-profile-1.xsd``, explains to people what ``parse_rim`` refused; ``parse_rim`` does
not use it and is faster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nvattest._package import schema_path
from nvattest._text import base64_bytes, clean
from nvattest.errors import ParseError, ResultCode

if TYPE_CHECKING:
    from lxml.etree import _Element

# ISO/IEC 19770-2:2015
SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
# TCG Reference Integrity Manifest Information Model 1.01
TCG: Final = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
# Hash<n> attributes; a name of an algorithm used as a namespace
SHA384: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}"
# NVIDIA's Opaque Data RIM Attributes; the namespace is the address of their page
OPAQUE: Final = "{https://docs.nvidia.com/attestation/specs/latest/opaque-data.html}"
# XML Signature Syntax and Processing 1.1
DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"

ROOT: Final = SWID + "SoftwareIdentity"
ENTITY: Final = SWID + "Entity"
META: Final = SWID + "Meta"
PAYLOAD: Final = SWID + "Payload"
RESOURCE: Final = SWID + "Resource"
SIGNATURE: Final = DS + "Signature"

FIRMWARE_MANUFACTURER_ID: Final = TCG + "FirmwareManufacturerId"
MIN_SVN: Final = OPAQUE + "minSvn"
INCLUDE_IN_RESULT: Final = OPAQUE + "includeInResult"

MAX_RIM_SIZE: Final = 1 << 20
# 256 Resources, written with end tags, and the rest of the document.
MAX_TAGS: Final = 1024
# 256 Resources with 16 alternatives each have some 6000 attributes.
MAX_EQUAL_SIGNS: Final = 8192
MAX_NAMESPACE_DECLARATIONS: Final = 64

_DECLARATION: Final = re.compile(
    rb"""<\?xml[ \t\r\n]+version[ \t\r\n]*=[ \t\r\n]*["']1\.0["']"""
    rb"""(?:[ \t\r\n]+encoding[ \t\r\n]*=[ \t\r\n]*["'](?i:utf-8)["'])?"""
    rb"""(?:[ \t\r\n]+standalone[ \t\r\n]*=[ \t\r\n]*["'](?:yes|no)["'])?[ \t\r\n]*\?>"""
)
_HINT: Final = "fetch the RIM again from its service; a document changed on its way no longer follows the profile"
_XML_ATTRIBUTES: Final = (b" xml:", b"\txml:", b"\rxml:", b"\nxml:")


def fault(message: str, code: str, *, offset: int | None = None, at: _Element | None = None) -> ParseError:
    """A ParseError about a RIM. ``offset`` counts bytes from its start; ``at`` is the element, named by its line."""
    line: object = None if at is None else at.sourceline
    where = f"line {line}: " if isinstance(line, int) else ""
    return ParseError(
        where + message, source="RIM", offset=offset, code=code, result_code=ResultCode.RIM_INVALID_SCHEMA, hint=_HINT
    )


def read_xml(data: bytes) -> _Element:
    """The root element of a small, plain UTF-8 document.

    Raises:
        ParseError: too large, not UTF-8, not well-formed, or with a construct that RIMs do not have; code ``rim-size``,
            ``rim-encoding``, ``rim-dtd``, ``rim-comment``, ``rim-cdata``, ``rim-processing-instruction``,
            ``rim-entity``, ``rim-xml-attribute``, ``rim-limits`` or ``rim-xml``.
    """
    _gate(data)
    from lxml import etree

    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False,
        attribute_defaults=False, huge_tree=False, recover=False,
        remove_comments=False, remove_pis=False, strip_cdata=False,
    )  # fmt: skip
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise fault(f"not well-formed XML: {error.msg}", "rim-xml", offset=_offset_of(data, error.position)) from None
    except (ValueError, etree.LxmlError) as error:
        raise fault(f"unreadable XML: {error}", "rim-xml") from None
    information: Any = root.getroottree().docinfo
    # The gate has refused these already; asking the parser too costs nothing.
    if information.doctype or information.internalDTD is not None or information.externalDTD is not None:
        raise fault("a document type is not allowed", "rim-dtd")
    return root


def _gate(data: bytes) -> None:
    if not data:
        raise fault("empty", "rim-size", offset=0)
    if len(data) > MAX_RIM_SIZE:
        raise fault(f"{len(data)} bytes; a RIM has at most {MAX_RIM_SIZE}", "rim-size", offset=MAX_RIM_SIZE)
    zero = data.find(b"\0")
    if zero >= 0:
        raise fault("a NUL byte; RIMs are UTF-8 text", "rim-encoding", offset=zero)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fault("not UTF-8", "rim-encoding", offset=error.start) from None
    if data.startswith(b"\xef\xbb\xbf"):
        raise fault("a byte order mark; RIMs are plain UTF-8", "rim-encoding", offset=0)
    body = 0
    if data.startswith((b"<?xml ", b"<?xml\t", b"<?xml\r", b"<?xml\n")):
        declaration = _DECLARATION.match(data)
        if declaration is None:
            raise fault("the XML declaration is not version 1.0 in UTF-8", "rim-encoding", offset=0)
        body = declaration.end()
    _refuse(data, data.find(b"<!--", body), "a comment", "rim-comment")
    _refuse(data, data.find(b"<![", body), "a CDATA or conditional section", "rim-cdata")
    _refuse(data, data.find(b"<!", body), "a document type or entity declaration", "rim-dtd")
    _refuse(data, data.find(b"<?", body), "a processing instruction", "rim-processing-instruction")
    _refuse(data, data.find(b"&", body), "an entity or character reference", "rim-entity")
    # With none of these, C14N 1.0 (which lxml has) and C14N 1.1 (which RIMs name) give the same bytes.
    attributes = [at for mark in _XML_ATTRIBUTES if (at := data.find(mark, body)) >= 0]
    _refuse(data, min(attributes, default=-1), "an xml:* attribute", "rim-xml-attribute")
    for mark, limit, name in (
        (b"<", MAX_TAGS, "tags"),
        (b"=", MAX_EQUAL_SIGNS, "attributes"),
        (b"xmlns", MAX_NAMESPACE_DECLARATIONS, "namespace declarations"),
    ):
        count = data.count(mark)
        if count > limit:
            raise fault(f"{count} {name}; a RIM has at most {limit}", "rim-limits")


def _refuse(data: bytes, offset: int, what: str, code: str) -> None:
    if offset >= 0:
        text = data[offset : offset + 40].decode("utf-8", "replace")
        raise fault(f"{what} is not allowed in a RIM: {text!r}", code, offset=offset)


def _offset_of(data: bytes, position: tuple[int, int] | None) -> int | None:
    if position is None or position[0] < 1:
        return None
    line, column = position
    start = 0
    for _ in range(line - 1):
        start = data.find(b"\n", start) + 1
        if start == 0:
            return None
    return min(start + max(column - 1, 0), len(data))


# --- the signature ----------------------------------------------------------------------------------------------------
#
# The XMLDSig profile of RIMs (XML Signature 1.1): one shape of Signature, read strictly, nothing negotiated.
#
#     Signature
#     ├── SignedInfo
#     │   ├── CanonicalizationMethod   C14N 1.1
#     │   ├── SignatureMethod          ECDSA with SHA-384
#     │   └── Reference URI=""         transforms: enveloped-signature, C14N 1.1; digest: SHA-384
#     ├── SignatureValue               96 bytes, r‖s
#     └── KeyInfo
#         └── X509Data                 1 to 8 X509Certificate, leaf first
#
# Algorithms are compared, never looked up. The certificates are only candidates: the key that counts is that of the
# leaf of the chain which ``verify_rim`` validates to a pinned anchor.

_C14N_11: Final = "http://www.w3.org/2006/12/xml-c14n11"
_ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_ECDSA_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_DIGEST_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#sha384"
_DIGEST_SIZE: Final = 48
_SIGNATURE_SIZE: Final = 96
_MAX_CERTIFICATES: Final = 8
_MAX_CERTIFICATE_SIZE: Final = 16 << 10
SPACE: Final = " \t\r\n"
_WITHOUT_SPACE: Final = dict.fromkeys(map(ord, SPACE))


class SignatureBlock(NamedTuple):
    """What a Signature says, unverified.

    ``signed_info`` is SignedInfo in canonical form, the bytes under ``signature_value`` (r‖s); ``digest`` the SHA-384
    that the document without this Signature should have; ``certificates`` are DER, in document order.
    """

    signed_info: bytes
    signature_value: bytes
    digest: bytes
    certificates: tuple[bytes, ...]


def canonical(element: _Element) -> bytes:
    """Inclusive canonical XML of this element, without comments.

    This is C14N 1.0. It equals C14N 1.1 where no ``xml:*`` attribute exists, and ``read_xml`` lets none in.

    Raises:
        ParseError: a document that has no canonical form (``rim-namespace``).
    """
    from lxml import etree

    try:
        return bytes(etree.tostring(element, method="c14n", exclusive=False, with_comments=False))
    except (etree.LxmlError, ValueError) as error:
        # A relative namespace name has no canonical form (C14N, section 1.3).
        raise fault(f"no canonical form: {error}", "rim-namespace") from None


def read_signature(signature: _Element) -> SignatureBlock:
    """Read a Signature that is still part of its document.

    Raises:
        ParseError: any departure from the profile; code ``rim-signature-profile``, ``rim-canonicalization``,
            ``rim-signature-algorithm``, ``rim-reference``, ``rim-transform``, ``rim-digest-algorithm``,
            ``rim-key-info`` or ``rim-base64``.
    """
    parts = ("SignedInfo", "SignatureValue", "KeyInfo")
    signed_info, value, key_info = _children(signature, parts, "rim-signature-profile")
    parts = ("CanonicalizationMethod", "SignatureMethod", "Reference")
    method_c14n, method_signature, reference = _children(signed_info, parts, "rim-reference")
    _algorithm(method_c14n, _C14N_11, "rim-canonicalization")
    _algorithm(method_signature, _ECDSA_SHA384, "rim-signature-algorithm")

    parts = ("Transforms", "DigestMethod", "DigestValue")
    transforms, method_digest, digest = _children(reference, parts, "rim-reference", {"URI": ""})
    enveloped, last = _children(transforms, ("Transform", "Transform"), "rim-transform")
    _algorithm(enveloped, _ENVELOPED, "rim-transform")
    _algorithm(last, _C14N_11, "rim-transform")
    _algorithm(method_digest, _DIGEST_SHA384, "rim-digest-algorithm")

    (x509_data,) = _children(key_info, ("X509Data",), "rim-key-info")
    if not 1 <= len(x509_data) <= _MAX_CERTIFICATES:
        raise fault(f"{len(x509_data)} certificates; expected 1 to {_MAX_CERTIFICATES}", "rim-key-info", at=x509_data)
    holders = _children(x509_data, ("X509Certificate",) * len(x509_data), "rim-key-info")
    return SignatureBlock(
        signed_info=canonical(signed_info),
        signature_value=_binary(value, _SIGNATURE_SIZE),
        digest=_binary(digest, _DIGEST_SIZE),
        certificates=tuple(_binary(holder) for holder in holders),
    )


def _children(
    parent: _Element, expected: tuple[str, ...], code: str, attributes: Mapping[str, str] | None = None
) -> list[_Element]:
    """The child elements of ``parent``, which has exactly these attributes, these children and no text."""
    _attributes(parent, attributes or {}, code)
    children = list(parent)
    found = tuple(str(child.tag) for child in children)
    if found != tuple(DS + name for name in expected):
        holds = f"{_local(parent)} holds {', '.join(_local(child) for child in children[:9]) or 'nothing'}"
        raise fault(f"{holds}; expected {', '.join(expected)}", code, at=parent)
    for text in (parent.text, *(child.tail for child in children)):
        if text is not None and text.strip(SPACE):
            raise fault(f"text inside {_local(parent)}: {text[:40]!r}", code, at=parent)
    return children


def _algorithm(element: _Element, expected: str, code: str) -> None:
    _attributes(element, {"Algorithm": expected}, code)
    if len(element) or element.text is not None:
        raise fault(f"{_local(element)} has content; expected none", code, at=element)


def _attributes(element: _Element, expected: Mapping[str, str], code: str) -> None:
    found = {str(name): str(value) for name, value in element.attrib.items()}
    if found != expected:
        raise fault(f"{_local(element)} has {_spelled(found)}; expected {_spelled(expected)}", code, at=element)


def _binary(element: _Element, size: int | None = None) -> bytes:
    name = _local(element)
    _attributes(element, {}, "rim-base64")
    if len(element):
        raise fault(f"{name} holds elements; expected base64 text", "rim-base64", at=element)
    text = (element.text or "").translate(_WITHOUT_SPACE)
    try:
        value = base64_bytes(text)
    except ValueError:
        value = b""
    if not value:
        raise fault(f"{name} is not base64", "rim-base64", at=element)
    if len(value) > _MAX_CERTIFICATE_SIZE if size is None else len(value) != size:
        expected = f"at most {_MAX_CERTIFICATE_SIZE}" if size is None else str(size)
        raise fault(f"{name} has {len(value)} bytes; expected {expected}", "rim-base64", at=element)
    return value


def _local(element: _Element) -> str:
    return str(element.tag).removeprefix(DS)[:120]


def _spelled(attributes: Mapping[str, str]) -> str:
    return ", ".join(f"{name[:80]}={value[:80]!r}" for name, value in list(attributes.items())[:4]) or "no attributes"


# --- why the published profile refuses a document ---------------------------------------------------------------------

PROFILE = "rim-profile-1.xsd"


def explained(error: ParseError, data: bytes) -> str:
    """The error of ``parse_rim`` and the first element, by path and line, that departs from the profile.

    Only this imports ``xmlschema``, and only for a document that was refused.
    """
    try:
        first = explain_schema_error(data)
    except (ParseError, ImportError):
        # What the gate refuses has no elements, and the guest layer has no xmlschema: the error is all.
        return str(error)
    return f"{error}; {first}" if first else str(error)


def explain_schema_error(data: bytes) -> str:
    """Where and why this document first departs from the XSD profile; empty when it does not.

    Raises:
        ParseError: as ``read_xml``.
    """
    root = read_xml(data)
    if root.tag != ROOT:
        # A schema would also accept its other global elements as roots.
        return f"the root is {str(root.tag)[:160]}; expected {ROOT}"
    import xmlschema

    schema = xmlschema.XMLSchema(schema_path(PROFILE), allow="local")
    try:
        # Without location hints nothing is fetched.
        error = next(schema.iter_errors(root, use_location_hints=False), None)
    except xmlschema.XMLSchemaException as failure:
        # The library gives up where xsi:type names a type that does not exist.
        return clean(f"/: {str(failure)[:300]}")
    if error is None:
        return ""
    line = getattr(error.elem, "sourceline", None)
    place = "" if line is None else f" (line {line})"
    return clean(f"{error.path or '/'}{place}: {str(error.reason or error.message)[:300]}")
