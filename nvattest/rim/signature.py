"""The XMLDSig profile of RIMs (XML Signature 1.1): one shape of Signature, read strictly, nothing negotiated.

    Signature
    ├── SignedInfo
    │   ├── CanonicalizationMethod   C14N 1.1
    │   ├── SignatureMethod          ECDSA with SHA-384
    │   └── Reference URI=""         transforms: enveloped-signature, C14N 1.1; digest: SHA-384
    ├── SignatureValue               96 bytes, r‖s
    └── KeyInfo
        └── X509Data                 1 to 8 X509Certificate, leaf first

Algorithms are compared, never looked up. The certificates are only candidates: the key that counts is that of the leaf
of the chain which ``verify_rim`` validates to a pinned anchor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._text import base64_bytes
from nvattest.rim import xml
from nvattest.rim.xml import fault

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = ["SignatureBlock", "canonical", "read_signature"]

C14N_11: Final = "http://www.w3.org/2006/12/xml-c14n11"
ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
ECDSA_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#sha384"

DIGEST_SIZE: Final = 48
SIGNATURE_SIZE: Final = 96
MAX_CERTIFICATES: Final = 8
MAX_CERTIFICATE_SIZE: Final = 16 << 10

_SPACE: Final = " \t\r\n"
_WITHOUT_SPACE: Final = dict.fromkeys(map(ord, _SPACE))


class SignatureBlock(NamedTuple):
    """What a Signature says, unverified."""

    signed_info: bytes
    """SignedInfo in canonical form: the bytes under the signature."""
    signature_value: bytes
    """r‖s, 96 bytes."""
    digest: bytes
    """SHA-384 that the document without this Signature should have."""
    certificates: tuple[bytes, ...]
    """DER, in document order."""


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
    signed_info, value, key_info = _children(
        signature, ("SignedInfo", "SignatureValue", "KeyInfo"), "rim-signature-profile"
    )
    method_c14n, method_signature, reference = _children(
        signed_info, ("CanonicalizationMethod", "SignatureMethod", "Reference"), "rim-reference"
    )
    _algorithm(method_c14n, C14N_11, "rim-canonicalization")
    _algorithm(method_signature, ECDSA_SHA384, "rim-signature-algorithm")

    transforms, method_digest, digest = _children(
        reference, ("Transforms", "DigestMethod", "DigestValue"), "rim-reference", {"URI": ""}
    )
    enveloped, last = _children(transforms, ("Transform", "Transform"), "rim-transform")
    _algorithm(enveloped, ENVELOPED, "rim-transform")
    _algorithm(last, C14N_11, "rim-transform")
    _algorithm(method_digest, SHA384, "rim-digest-algorithm")

    (x509_data,) = _children(key_info, ("X509Data",), "rim-key-info")
    if not 1 <= len(x509_data) <= MAX_CERTIFICATES:
        raise fault(f"{len(x509_data)} certificates; expected 1 to {MAX_CERTIFICATES}", "rim-key-info", at=x509_data)
    holders = _children(x509_data, ("X509Certificate",) * len(x509_data), "rim-key-info")
    return SignatureBlock(
        signed_info=canonical(signed_info),
        signature_value=_binary(value, SIGNATURE_SIZE),
        digest=_binary(digest, DIGEST_SIZE),
        certificates=tuple(_binary(holder) for holder in holders),
    )


def _children(
    parent: _Element, expected: tuple[str, ...], code: str, attributes: Mapping[str, str] | None = None
) -> list[_Element]:
    """The child elements of ``parent``, which has exactly these attributes, these children and no text."""
    _attributes(parent, attributes or {}, code)
    children = list(parent)
    found = tuple(str(child.tag) for child in children)
    if found != tuple(xml.DS + name for name in expected):
        raise fault(
            f"{_local(parent)} holds {', '.join(_local(child) for child in children[:9]) or 'nothing'}; "
            f"expected {', '.join(expected)}",
            code,
            at=parent,
        )
    for text in (parent.text, *(child.tail for child in children)):
        if text is not None and text.strip(_SPACE):
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
    if size is not None and len(value) != size:
        raise fault(f"{name} has {len(value)} bytes; expected {size}", "rim-base64", at=element)
    if len(value) > MAX_CERTIFICATE_SIZE:
        raise fault(f"{name} has {len(value)} bytes; expected at most {MAX_CERTIFICATE_SIZE}", "rim-base64", at=element)
    return value


def _local(element: _Element) -> str:
    tag = str(element.tag)
    return tag.removeprefix(xml.DS)[:120]


def _spelled(attributes: Mapping[str, str]) -> str:
    return ", ".join(f"{name[:80]}={value[:80]!r}" for name, value in list(attributes.items())[:4]) or "no attributes"
