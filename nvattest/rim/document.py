"""A reference manifest as NVIDIA issues it: a signed SWID tag (ISO/IEC 19770-2:2015) after the TCG RIM model 1.01.

``parse_rim`` reads one strict profile and nothing else; the profile is published as ``schemas/rim-profile-1.xsd`` and
tests compare the two. Walking the tree costs less than compiling a schema, and can check what a schema cannot (that the
number of hashes equals an attribute).

The values and the digest come from one tree, parsed once: the digest is computed after the Signature is taken out. So
no second reading can see other values. Only ``verify_rim`` makes a RimDocument a document to rely on.

Golden value ``i`` describes SPDM measurement block ``i + 1``. Records with an index of 4096 and more describe an entry
of the opaque data, whose type is the index minus 4096 (NVIDIA's Opaque Data RIM Attributes). Every Resource must be
well-formed, also one that is not active; only active ones are returned.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._registry import OPAQUE_RECORD_BASE
from nvattest.errors import ParseError
from nvattest.pki.certificate import Certificate, parse_certificate
from nvattest.rim import xml
from nvattest.rim.xml import SignatureBlock, canonical, fault, read_signature, read_xml

if TYPE_CHECKING:
    from lxml.etree import _Element

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
        holds = f"{root.tag} holds {', '.join(str(tag)[:120] for tag in found[:6]) or 'nothing'}"
        code = "rim-signature-profile" if odd else "rim-schema"
        raise fault(f"{holds}; expected Entity, Meta, Payload, Signature", code, at=root)
    entity, meta, payload, signature = children
    for element in (entity, meta):
        if len(element) or element.text is not None:
            raise fault(f"{element.tag} is not empty", "rim-schema", at=element)
    texts = [(root, root.text), (payload, payload.text)]
    texts += [(element, element.tail) for element in (*children, *payload)]
    for element, text in texts:
        if text is not None and text.strip(xml.SPACE):
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
    for name in required:
        if name not in element.attrib:
            raise fault(f"{element.tag} has no {name}", "rim-schema", at=element)
    for key, raw in element.attrib.items():
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


# --- the payload: golden values (hashes) and floors of security versions ----------------------------------------------

MAX_RESOURCES: Final = 256
MAX_ALTERNATIVES: Final = 16
# Block indices are one byte and 0xFF is not a block (DSP0274, GET_MEASUREMENTS); golden indices are one less.
MAX_GOLDEN_INDEX: Final = 253
MAX_DATA_TYPE: Final = 0xFFFF
MAX_U64: Final = (1 << 64) - 1
HASH_SIZE: Final = 48

# ASCII only: \d would admit the digits of every script, int() would admit signs, spaces and underscores.
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HASH: Final = re.compile(r"[0-9a-f]{96}")
_HASH_NAMES: Final = tuple(f"{xml.SHA384}Hash{index}" for index in range(MAX_ALTERNATIVES))
_PLAIN: Final = frozenset(("type", "index", "active", "alternatives", "name", "size"))
_BOOLEAN: Final = {"True": True, "False": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenValue:
    """The value that one measurement should have.

    ``index`` counts from 0 and describes SPDM block ``index + 1``; ``values`` are alternatives of ``size`` bytes, any
    of which is right.
    """

    index: int
    name: str
    values: tuple[bytes, ...]
    size: int


class MinSvn(NamedTuple):
    """The lowest security version that one entry of the opaque data may have.

    ``data_type`` is the id of the entry, ``minimum`` the floor, ``include_in_result`` whether the
    claims show the version found, under ``name``.
    """

    data_type: int
    name: str
    minimum: int
    include_in_result: bool


def read_payload(payload: _Element) -> tuple[tuple[GoldenValue, ...], tuple[MinSvn, ...]]:
    """The active golden values and version floors of a Payload, each sorted by index.

    Raises:
        ParseError: ``rim-schema`` for another shape, ``rim-number`` for a number that is not plain decimal or out of
            range, ``rim-hash`` for hashes, ``rim-duplicate`` for an index (or the name of a floor) given twice,
            ``rim-limits`` for too many, ``rim-empty`` when no golden value is active.
    """
    if len(payload) > MAX_RESOURCES:
        raise fault(f"{len(payload)} Resources; at most {MAX_RESOURCES}", "rim-limits", at=payload)
    golden: list[GoldenValue] = []
    floors: list[MinSvn] = []
    seen: set[int] = set()
    floor_names: set[str] = set()
    for resource in payload:
        if resource.tag != xml.RESOURCE or len(resource) or resource.text is not None:
            code = "rim-signature-profile" if resource.tag == xml.SIGNATURE else "rim-schema"
            raise fault(f"{str(resource.tag)[:160]} in Payload; expected empty Resource elements", code, at=resource)
        attributes = {str(name): str(value) for name, value in resource.attrib.items()}
        if missing := _PLAIN.difference(attributes):
            raise fault(f"a Resource without {', '.join(sorted(missing))}", "rim-schema", at=resource)
        index = _number(attributes["index"], "index", OPAQUE_RECORD_BASE + MAX_DATA_TYPE, resource)
        if index in seen:
            raise fault(f"index {index} is given twice", "rim-duplicate", at=resource)
        seen.add(index)
        active = _BOOLEAN.get(attributes["active"])
        wrong = ""
        if active is None:
            wrong = f"active is {attributes['active'][:40]!r}; expected 'True' or 'False'"
        elif attributes["type"] != "Measurement":
            wrong = f"type is {attributes['type'][:40]!r}; expected 'Measurement'"
        elif _NAME.fullmatch(attributes["name"]) is None:
            wrong = f"the name {attributes['name'][:40]!r} has other than letters, digits, '.', '_', '-'"
        if wrong:
            raise fault(f"index {index}: {wrong}", "rim-schema", at=resource)
        if index >= OPAQUE_RECORD_BASE:
            floor = _floor(index, attributes, resource)
            if floor.name in floor_names:
                raise fault(f"the name {floor.name!r} is given twice", "rim-duplicate", at=resource)
            floor_names.add(floor.name)
            if active:
                floors.append(floor)
        else:
            value = _golden(index, attributes, resource)
            if active:
                golden.append(value)
    if not golden:
        raise fault("no golden value is active; such a document vouches for nothing", "rim-empty", at=payload)
    golden.sort(key=lambda value: value.index)
    return tuple(golden), tuple(sorted(floors))


def _golden(index: int, attributes: Mapping[str, str], at: _Element) -> GoldenValue:
    if index > MAX_GOLDEN_INDEX:
        kinds = f"a measurement (0 to {MAX_GOLDEN_INDEX}) nor an opaque record ({OPAQUE_RECORD_BASE} and more)"
        raise fault(f"index {index} is neither {kinds}", "rim-number", at=at)
    if attributes["size"] != "48":
        raise fault(f"index {index}: size is {attributes['size'][:40]!r}; expected '48'", "rim-number", at=at)
    count = _number(attributes["alternatives"], f"index {index}: alternatives", MAX_ALTERNATIVES, at)
    hashes = _hashes(index, count, attributes, at)
    if not hashes:
        raise fault(f"index {index} has no Hash0", "rim-hash", at=at)
    if len(attributes) != len(_PLAIN) + len(hashes):
        _refuse_stray(index, attributes, _HASH_NAMES[:count], at)
    return GoldenValue(index=index, name=attributes["name"], values=hashes, size=HASH_SIZE)


def _floor(index: int, attributes: Mapping[str, str], at: _Element) -> MinSvn:
    where = f"index {index}: "
    if _number(attributes["size"], where + "size", 0xFFFF, at) == 0:
        raise fault(where + "size is 0", "rim-number", at=at)
    count = _number(attributes["alternatives"], where + "alternatives", MAX_ALTERNATIVES, at)
    text = attributes.get(xml.MIN_SVN)
    if text is None:
        raise fault(where + "an opaque record without minSvn", "rim-schema", at=at)
    minimum = _number(text, where + "minSvn", MAX_U64, at)
    include = _BOOLEAN.get(attributes.get(xml.INCLUDE_IN_RESULT, "False"))
    if include is None:
        raise fault(where + "includeInResult is neither 'True' nor 'False'", "rim-schema", at=at)
    # A floor may carry hashes for readers that know only hashes; they must be well-formed and do not count.
    hashes = _hashes(index, count, attributes, at) if _HASH_NAMES[0] in attributes else ()
    _refuse_stray(index, attributes, (xml.MIN_SVN, xml.INCLUDE_IN_RESULT, *_HASH_NAMES[: len(hashes)]), at)
    return MinSvn(index - OPAQUE_RECORD_BASE, attributes["name"], minimum, include)


def _hashes(index: int, count: int, attributes: Mapping[str, str], at: _Element) -> tuple[bytes, ...]:
    values = []
    for name in _HASH_NAMES[:count]:
        text = attributes.get(name)
        if text is None or _HASH.fullmatch(text) is None:
            found = "absent" if text is None else repr(text[:100])
            which = f"index {index}: {name.removeprefix(xml.SHA384)} of {count}"
            raise fault(f"{which} is {found}; expected 96 lower-case hexadecimal digits", "rim-hash", at=at)
        values.append(bytes.fromhex(text))
    return tuple(values)


def _refuse_stray(index: int, attributes: Mapping[str, str], more: tuple[str, ...], at: _Element) -> None:
    """Refuse attributes other than the plain ones and these."""
    if stray := sorted(set(attributes).difference(_PLAIN, more)):
        code = "rim-hash" if any(name.startswith(xml.SHA384) for name in stray) else "rim-schema"
        raise fault(f"index {index}: unexpected {', '.join(name[:120] for name in stray[:4])}", code, at=at)


def _number(text: str, name: str, maximum: int, at: _Element) -> int:
    if _NUMBER.fullmatch(text) is not None:
        value = int(text)
        if value <= maximum:
            return value
    raise fault(f"{name} is {text[:40]!r}; expected a plain decimal number up to {maximum}", "rim-number", at=at)
