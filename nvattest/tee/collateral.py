"""Collateral of CPU quotes: what Intel and AMD sign about their platforms, read, and judged without a quote.

For TDX it is the JSON document that Intel's quote verification library names ``QuoteCollateralV3``: ten members, of
which ``tcb_info`` and ``qe_identity`` are texts that Intel signed byte by byte. The document is kept as its text, so
that nothing is ever serialised anew. For SEV-SNP it is a set of DER certificates and revocation lists.

``judge`` says whether the maker issued it, what it is about, and until when: before what is fetched is kept, and before
a guest is relied on. The judgement of a quote does not rest on it and verifies the collateral again.

AMD's endorsement keys have serial number 0 and no key usage, so no X.509 path validator takes them: a small reader
takes their certificates apart. AMD signs with RSASSA-PSS, SHA-384, MGF1 with SHA-384 and a salt of 48 bytes, Intel with
ECDSA and SHA-256; these are fixed here and never read from a certificate (AMD 57230).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from nvattest._documents import JsonObject, file_text, kind_of, load_json
from nvattest.errors import InputError, ParseError
from nvattest.model import format_time, parse_time
from nvattest.pki.anchors import CpuAnchors
from nvattest.pki.certificate import (
    BIT_STRING,
    COMMON_NAME,
    LIBRARY_ERRORS,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Certificate,
    DerReader,
    Name,
    dotted,
    parse_certificate,
    parse_pem_chain,
)

SOURCE: Final = "CPU collateral"
MAXIMUM_TDX: Final = 1024 * 1024
MAXIMUM_DER: Final = 64 * 1024
MAXIMUM_ITEMS: Final = 16

TDX_MEMBERS: Final = (
    "pck_crl_issuer_chain", "root_ca_crl", "pck_crl",
    "tcb_info_issuer_chain", "tcb_info", "tcb_info_signature",
    "qe_identity_issuer_chain", "qe_identity", "qe_identity_signature",
)  # fmt: skip
TDX_PCK_CHAIN: Final = "pck_certificate_chain"
_HEX_MEMBERS: Final = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
# The issuers of Intel's collateral stand directly below the root.
_TDX_CHAIN: Final = 2
_P256_NUMBER: Final = 32

_BLOCK: Final = re.compile(
    rb"\s*-----BEGIN (CERTIFICATE|X509 CRL)-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1-----\s*"
)
_EXPLICIT_VERSION: Final = 0xA0


class Window(NamedTuple):
    """When a part of the collateral is current, as its signer says. ``until`` is None where it names no end."""

    name: str
    since: datetime
    until: datetime | None

    def __str__(self) -> str:
        return f"{format_time(self.since)} to {format_time(self.until) if self.until is not None else 'no end'}"

    def holds(self, at: datetime) -> bool:
        """Whether it is current at this instant, both ends included; never where it names no end."""
        return self.until is not None and self.since <= at <= self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxCollateral:
    """Intel's collateral for one platform type (FMSPC) and certificate authority.

    ``text`` is the JSON document as it came. ``members`` are its nine texts, and the tenth where it is there; members
    of other names are left out. ``tcb_info`` and ``qe_identity`` are two of them as objects. No signature is verified.

    Raises:
        ParseError: too large, not such a document, a member missing or of another form, or an inner text that has no
            dates (code ``collateral-format``).
    """

    text: str
    members: Mapping[str, str] = field(init=False, repr=False, compare=False)
    tcb_info: JsonObject = field(init=False, repr=False, compare=False)
    qe_identity: JsonObject = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        document = _object(self.text)
        for name in TDX_MEMBERS:
            value = document.get(name)
            if not isinstance(value, str):
                raise _wrong(f"{name} is {kind_of(value) if name in document else 'missing'}, expected a text")
            if name in _HEX_MEMBERS and re.fullmatch("(?:[0-9A-Fa-f]{2})+", value) is None:
                raise _wrong(f"{name} is not hexadecimal")
        if not isinstance(document.get(TDX_PCK_CHAIN), str | None):
            raise _wrong(f"{TDX_PCK_CHAIN} is {kind_of(document[TDX_PCK_CHAIN])}, expected a text")
        members = {name: document[name] for name in (*TDX_MEMBERS, TDX_PCK_CHAIN) if document.get(name) is not None}
        object.__setattr__(self, "members", members)
        for name in ("tcb_info", "qe_identity"):
            object.__setattr__(self, name, _object(self.members[name], name))
        _dates(self.tcb_info)
        if type(self.tcb_info.get("tcbEvaluationDataNumber")) is not int:
            raise _wrong("tcb_info has no tcbEvaluationDataNumber")
        _dates(self.qe_identity)
        if not re.fullmatch("[0-9A-F]{12}", self.fmspc):
            raise _wrong("tcb_info names no platform type (fmspc)")

    @property
    def fmspc(self) -> str:
        """The platform type that the TCB info is about, in upper-case hexadecimal digits."""
        return str(self.tcb_info.get("fmspc")).upper()

    @property
    def evaluation(self) -> int:
        """The TCB evaluation data number of the TCB info: a higher one is newer."""
        number = self.tcb_info["tcbEvaluationDataNumber"]
        return number if isinstance(number, int) else -1

    @property
    def authority(self) -> str:
        """The authority of the PCK certificates that it is about; ParseError where the chain of their list is none."""
        return authority_of(parse_pem_chain(self.members["pck_crl_issuer_chain"].encode())[0].subject)


def authority_of(name: str) -> str:
    """Which of Intel's authorities has this name, as its service calls them: ``platform`` or ``processor``."""
    return "platform" if "Platform" in name else "processor"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpCollateral:
    """AMD's collateral for one chip: DER certificates (VCEK or VLEK, ASK or ASVK, ARK) and revocation lists.

    The order means nothing. An ARK among them is only compared with the pinned one.
    """

    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()

    def __add__(self, other: SnpCollateral) -> SnpCollateral:
        """Both together, each part once."""
        return SnpCollateral(
            certificates=tuple(dict.fromkeys(self.certificates + other.certificates)),
            crls=tuple(dict.fromkeys(self.crls + other.crls)),
        )

    def endorsement_keys(self) -> list[EndorsementKey]:
        """The VCEKs and VLEKs in it; ParseError where a certificate cannot be read."""
        found = map(read_endorsement_key, self.certificates)
        return [key for key in found if key is not None]


CpuCollateral = TdxCollateral | SnpCollateral


def parse_collateral(data: bytes) -> CpuCollateral:
    """Read a file of collateral, or ParseError: Intel's JSON document, or AMD's certificates and lists (PEM or DER)."""
    text = file_text(data)
    start = text.lstrip()[:1] if isinstance(text, str) else data.lstrip(b" \t\r\n")[:1].decode("latin-1")
    return parse_tdx_collateral(data) if start == "{" else parse_snp_collateral(data)


def parse_tdx_collateral(data: bytes) -> TdxCollateral:
    """Read Intel's JSON document, or ParseError. Its texts are kept byte by byte."""
    # Here offsets are those in the file.
    _object(data, file=True)
    text = file_text(data)
    return TdxCollateral(text=text if isinstance(text, str) else text.decode("utf-8"))


def tdx_collateral(members: Mapping[str, str]) -> TdxCollateral:
    """The document of these members, or ParseError: texts, and bytes as hexadecimal digits."""
    return TdxCollateral(text=json.dumps(dict(members), indent=1))


def parse_snp_collateral(data: bytes) -> SnpCollateral:
    """Read AMD's certificates and revocation lists: PEM blocks with nothing between them, or one DER object.

    Raises:
        ParseError: too large, neither of them, or too many (code ``collateral-format``).
    """
    if len(data) > MAXIMUM_DER * MAXIMUM_ITEMS:
        raise ParseError(f"{len(data)} bytes, too many to read", source=SOURCE, code="too-large")
    blocks = [data]
    if data.lstrip()[:5] == b"-----":
        blocks, position = [], 0
        while position < len(data):
            match = _BLOCK.match(data, position)
            if match is None:
                raise _wrong("only blocks CERTIFICATE and X509 CRL of PEM are read", position)
            try:
                blocks.append(base64.b64decode(match[2].translate(None, b"\r\n"), validate=True))
            except (ValueError, binascii.Error):
                raise _wrong("a PEM block is not base64", position) from None
            position = match.end()
    return snp_collateral(blocks)


def snp_collateral(items: Iterable[bytes]) -> SnpCollateral:
    """DER certificates and revocation lists in any order, each as what it is.

    Raises:
        ParseError: one that is neither, too large, or too many of them (code ``collateral-format``).
    """
    certificates: list[bytes] = []
    crls: list[bytes] = []
    for item in items:
        if len(item) > MAXIMUM_DER:
            raise _wrong(f"{len(item)} bytes, at most {MAXIMUM_DER} are read")
        (certificates if _is_certificate(item) else crls).append(item)
    if len(certificates) + len(crls) > MAXIMUM_ITEMS:
        raise _wrong(f"{len(certificates) + len(crls)} certificates and lists, at most {MAXIMUM_ITEMS} are read")
    return SnpCollateral(certificates=tuple(dict.fromkeys(certificates)), crls=tuple(dict.fromkeys(crls)))


def collateral_windows(collateral: CpuCollateral) -> tuple[Window, ...]:
    """When each dated part is current, as the parts themselves say: TCB info, QE identity, revocation lists.

    Certificates are left out: they outlive all of these, and their chain is judged with the quote. A list that cannot
    be read is a ParseError.
    """
    if isinstance(collateral, SnpCollateral):
        return tuple(_crl_window(f"revocation list {index}", der) for index, der in enumerate(collateral.crls))
    members = collateral.members
    return (
        Window("tcb_info", *_dates(collateral.tcb_info)),
        Window("qe_identity", *_dates(collateral.qe_identity)),
        *(_crl_window(name, bytes.fromhex(members[name])) for name in ("pck_crl", "root_ca_crl")),
    )


def validity(certificate: Certificate | EndorsementKey) -> Window:
    """When a certificate is valid."""
    return Window(certificate.label, certificate.not_before, certificate.not_after)


def _crl_window(name: str, der: bytes) -> Window:
    try:
        crl = x509.load_der_x509_crl(der)
        return Window(name, crl.last_update_utc, crl.next_update_utc)
    except LIBRARY_ERRORS as error:
        raise _wrong(f"{name} is no readable revocation list: {error}") from None


def _is_certificate(der: bytes) -> bool:
    """Whether this is a certificate, and not a revocation list, by its first element (RFC 5280, 4.1 and 5.1)."""
    try:
        reader = DerReader(der, source=SOURCE)
        outer = reader.inner(SEQUENCE, "certificate or revocation list")
        reader.finish("certificate or revocation list")
        return outer.inner(SEQUENCE, "signed part").peek() == _EXPLICIT_VERSION
    except ParseError as error:
        raise _wrong(f"neither a certificate nor a revocation list: {error.message}") from None


def _object(text: bytes | str, name: str = "", *, file: bool = False) -> JsonObject:
    source = f"{SOURCE}, {name}" if name else SOURCE
    document = load_json(text, source=source, maximum=MAXIMUM_TDX, file=file)
    if not isinstance(document, dict):
        raise _wrong(f"{name and name + ' is '}{kind_of(document)}, expected an object")
    return document


def _dates(inner: JsonObject) -> tuple[datetime, datetime]:
    since, until = inner.get("issueDate"), inner.get("nextUpdate")
    try:
        return parse_time(str(since)), parse_time(str(until))
    except InputError:
        raise _wrong("a signed text has no issueDate and nextUpdate") from None


def _wrong(message: str, offset: int | None = None) -> ParseError:
    return ParseError(message, source=SOURCE, offset=offset, code="collateral-format")


def signed_by_intel(spki_der: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this EC key signed these bytes, the signature in DER, as Intel's keys do."""
    return _signed(ec.EllipticCurvePublicKey, spki_der, signature, message, ec.ECDSA(hashes.SHA256()))


def signed_by_amd(spki_der: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this RSA key signed these bytes as AMD signs certificates and lists."""
    return _signed(rsa.RSAPublicKey, spki_der, signature, message, _PSS, hashes.SHA384())


_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


def _signed(kind: type[ec.EllipticCurvePublicKey | rsa.RSAPublicKey], spki_der: bytes, *signed: object) -> bool:
    try:
        key = serialization.load_der_public_key(spki_der)
        if not isinstance(key, kind):
            return False
        key.verify(*signed)  # type: ignore[arg-type]
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


# --- AMD's certificates and lists -------------------------------------------------------------------------------------

_AMD_SOURCE: Final = "AMD certificate"
_PSS_OID: Final = "1.2.840.113549.1.1.10"
_AMD: Final = "1.3.6.1.4.1.3704.1."
_PRODUCT, _HWID, _CSP = _AMD + "2", _AMD + "4", _AMD + "5"
# The extensions of a TCB's parts; FMC is Turin's.
_PARTS: Final = {"boot_loader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}
_FMC: Final = "3.9"
_EXTENSIONS, _IA5, _BOOLEAN, _UTC_TIME, _GENERALIZED_TIME = 0xA3, 0x16, 0x01, 0x17, 0x18
_MAXIMUM_EXTENSIONS: Final = 32
# Bytes of a chip id that Turin uses.
TURIN_CHIP: Final = 8

# The auxiliary blob beside a report (AMD 56421, certificate table): GUIDs in the order of their text.
_ENTRY: Final = 24
_GUIDS: Final = {
    bytes.fromhex(text.replace("-", ""))
    for text in (
        "63da758d-e664-4564-adc5-f4b93be8accd",  # VCEK
        "a8074bc2-a25a-483e-aae6-39c045a0b8a1",  # VLEK
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",  # ASK or ASVK
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",  # ARK
        "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",  # CRL
    )
}


class Tcb(NamedTuple):
    """Security version numbers. ``fmc`` is 0 before Turin, which has none."""

    fmc: int
    boot_loader: int
    tee: int
    snp: int
    microcode: int

    def __str__(self) -> str:
        fmc = f"FMC {self.fmc}, " if self.fmc else ""
        return f"{fmc}boot loader {self.boot_loader}, TEE {self.tee}, SNP {self.snp}, microcode {self.microcode}"


class EndorsementKey(NamedTuple):
    """A VCEK or VLEK. ``tcb`` is that of its extensions; ``hwid`` is empty in a VLEK, ``csp`` in a VCEK."""

    der: bytes
    kind: str
    issuer_der: bytes
    not_before: datetime
    not_after: datetime
    spki_der: bytes
    tbs: bytes
    signature: bytes
    product: str
    tcb: Tcb
    hwid: bytes
    csp: str

    @property
    def label(self) -> str:
        """``VCEK`` or ``VLEK``."""
        return self.kind.upper()


class RevocationList(NamedTuple):
    """A revocation list: when it is current, and the serial numbers that it names."""

    issuer_der: bytes
    since: datetime
    until: datetime | None
    serials: frozenset[int]
    tbs: bytes
    signature: bytes


def read_auxiliary(blob: bytes) -> SnpCollateral:
    """The certificates and lists of a report's auxiliary blob, which the host writes; entries of other kinds are left.

    Raises:
        ParseError: an endless table, or an entry that lies outside of the blob, in the table, or over another one
            (code ``auxblob``); contents that are neither certificate nor list.
    """
    if not blob.strip(b"\0"):
        return SnpCollateral()
    entries: list[tuple[int, int, bytes]] = []
    while True:
        start = len(entries) * _ENTRY
        entry = blob[start : start + _ENTRY]
        if len(entry) < _ENTRY or len(entries) > MAXIMUM_ITEMS:
            raise _bad_table("the table of certificates has no end", start)
        if not any(entry):
            break
        entries.append((int.from_bytes(entry[16:20], "little"), int.from_bytes(entry[20:], "little"), entry[:16]))
    end = (len(entries) + 1) * _ENTRY
    for offset, length, _ in sorted(entries):
        if offset < end or offset + length > len(blob):
            raise _bad_table(f"an entry of {length} bytes at {offset} lies outside of its place", offset)
        end = offset + length
    items = (blob[offset : offset + length] for offset, length, guid in entries if guid in _GUIDS and length)
    found = (parse_snp_collateral(item) if item[:5] == b"-----" else snp_collateral([item]) for item in items)
    return sum(found, SnpCollateral())


def _bad_table(message: str, offset: int) -> ParseError:
    return ParseError(message, source="auxiliary blob", offset=offset, code="auxblob")


def read_endorsement_key(der: bytes) -> EndorsementKey | None:
    """A VCEK or VLEK; None for a certificate of another name.

    The X.509 library warns about their serial number 0 and will refuse it one day, so they are read here.

    Raises:
        ParseError: not DER, a part or an extension missing, twice or malformed.
    """
    tbs, signature, body = _cut(der, "TBSCertificate")
    issuer, validity = body.whole(SEQUENCE, "issuer"), body.inner(SEQUENCE, "validity")
    subject, spki = body.whole(SEQUENCE, "subject"), body.whole(SEQUENCE, "subjectPublicKeyInfo")
    kind = {"SEV-VCEK": "vcek", "SEV-VLEK": "vlek"}.get(Name(subject).first(COMMON_NAME) or "")
    if kind is None:
        return None
    extensions = _extensions(body)
    hwid = extensions.get(_HWID, b"")
    if len(hwid) in (64 + 2, TURIN_CHIP + 2) and hwid[:2] == bytes((OCTET_STRING, len(hwid) - 2)):
        # Newer certificates wrap the identifier.
        hwid = hwid[2:]
    if len(hwid) not in ((0,) if kind == "vlek" else (64, TURIN_CHIP)):
        raise body.error(f"a hwID of {len(hwid)} bytes in a {kind.upper()}")
    parts = {part: _svn(extensions, oid) for part, oid in _PARTS.items()}
    fmc = _svn(extensions, _FMC) if _AMD + _FMC in extensions else 0
    return EndorsementKey(
        der=der,
        kind=kind,
        issuer_der=issuer,
        not_before=_time(validity),
        not_after=_time(validity),
        spki_der=spki,
        tbs=tbs,
        signature=signature,
        product=_ia5(extensions, _PRODUCT),
        tcb=Tcb(fmc=fmc, **parts),
        hwid=hwid,
        csp=_ia5(extensions, _CSP) if kind == "vlek" else "",
    )


def read_crl(der: bytes) -> RevocationList:
    """A revocation list of AMD's.

    Raises:
        ParseError: not DER, or a list that the X.509 library does not read, or of a part alone (code ``crl``).
    """
    tbs, signature, body = _cut(der, "TBSCertList")
    issuer = body.whole(SEQUENCE, "issuer")
    try:
        crl = x509.load_der_x509_crl(der)
        serials = frozenset(entry.serial_number for entry in crl)
        since, until = crl.last_update_utc, crl.next_update_utc
        critical = any(extension.critical for extension in crl.extensions)
    except LIBRARY_ERRORS as error:
        raise ParseError(f"not a readable revocation list: {error}", source=_AMD_SOURCE, code="crl") from None
    if critical:
        # A list of a part, or of changes alone.
        raise ParseError("a revocation list with a critical extension", source=_AMD_SOURCE, code="crl")
    return RevocationList(issuer, since, until, serials, tbs, signature)


def _cut(der: bytes, kind: str) -> tuple[bytes, bytes, DerReader]:
    """The signed part of a certificate or a list, its signature, and a reader of that part behind the algorithm in it.

    The algorithm inside and the one outside are the same, RSASSA-PSS (RFC 5280, 4.1.1.2); its parameters are not read.
    """
    whole = DerReader(der, source=_AMD_SOURCE)
    outer = whole.inner(SEQUENCE, "certificate or list")
    whole.finish("certificate or list")
    tbs, algorithm = outer.whole(SEQUENCE, "signed part"), outer.element(SEQUENCE, "signatureAlgorithm")
    signature = outer.content(BIT_STRING, "signatureValue")
    outer.finish("signatureValue")
    oid = DerReader(der, algorithm.body, algorithm.end, source=_AMD_SOURCE).content(OID, "algorithm")
    if dotted(oid) != _PSS_OID or signature[:1] != b"\0":
        raise outer.error("not signed with RSASSA-PSS")
    body = DerReader(tbs, source=_AMD_SOURCE).inner(SEQUENCE, kind)
    if kind == "TBSCertificate":
        body.element(_EXPLICIT_VERSION, "version")
        body.unsigned("serialNumber", max_bytes=20)
    else:
        body.unsigned("version")
    if body.whole(SEQUENCE, "signature") != der[algorithm.start : algorithm.end]:
        raise body.error("the signature algorithms inside and outside of the signed part differ")
    return tbs, signature[1:], body


def _extensions(body: DerReader) -> dict[str, bytes]:
    listed = body.inner(_EXTENSIONS, "extensions").inner(SEQUENCE, "extensions")
    found: dict[str, bytes] = {}
    while not listed.at_end:
        item = listed.inner(SEQUENCE, "extension")
        oid = dotted(item.content(OID, "extension")) or "?"
        critical = item.peek() == _BOOLEAN and item.content(_BOOLEAN, "critical") != b"\0"
        if oid in found or len(found) == _MAXIMUM_EXTENSIONS or (critical and not oid.startswith(_AMD)):
            raise item.error(f"the extension {oid} is there twice, or critical and unknown")
        found[oid] = item.content(OCTET_STRING, "extension value")
        item.finish("extension")
    return found


def _svn(extensions: dict[str, bytes], oid: str) -> int:
    reader = DerReader(extensions.get(_AMD + oid, b""), source=f"{_AMD_SOURCE}, extension {oid}")
    value = reader.unsigned("security version number", max_bytes=1)
    reader.finish("security version number")
    return value


def _ia5(extensions: dict[str, bytes], oid: str) -> str:
    reader = DerReader(extensions.get(oid, b""), source=f"{_AMD_SOURCE}, extension {oid}")
    text = reader.content(_IA5, "text")
    reader.finish("text")
    return text.decode("ascii", "backslashreplace")


def _time(validity: DerReader) -> datetime:
    tag = _GENERALIZED_TIME if validity.peek() == _GENERALIZED_TIME else _UTC_TIME
    text = validity.content(tag, "time")
    if tag == _UTC_TIME:
        # RFC 5280, 4.1.2.5.1.
        text = (b"19" if text[:2] >= b"50" else b"20") + text
    match = re.fullmatch(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z", text)
    try:
        if match is not None:
            return datetime(*map(int, match.groups()), tzinfo=timezone.utc)  # type: ignore[arg-type,misc]
    except ValueError:
        pass
    raise validity.error("a time that is none")


# --- judged without a quote -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What is known of collateral without a quote.

    ``about`` says of which platforms or chips it is. ``problem`` is empty where the maker signed all of it, and
    ``windows`` say when each part is current; whether that is now is for ``current``.
    """

    about: str
    windows: tuple[Window, ...]
    problem: str

    def current(self, at: datetime) -> str:
        """What is not current at this instant, in words; empty where everything is."""
        late = next((window for window in self.windows if not window.holds(at)), None)
        if late is None:
            return ""
        return f"{late.name} names no end" if late.until is None else f"{late.name} is good from {late}"

    @property
    def until(self) -> datetime | None:
        """When the first part ends; None where no part names an end."""
        return min((window.until for window in self.windows if window.until is not None), default=None)


def judge(collateral: CpuCollateral, anchors: CpuAnchors) -> Issued:
    """Judge a maker's collateral under these roots. What is wrong with it raises nothing: it is the ``problem``."""
    try:
        if isinstance(collateral, TdxCollateral):
            return _judge_tdx(collateral, anchors)
        return _judge_snp(collateral, anchors)
    except ParseError as error:
        return Issued(about="", windows=(), problem=error.message)
    except LIBRARY_ERRORS as error:
        return Issued(about="", windows=(), problem=f"it cannot be read: {error}")


def _judge_tdx(collateral: TdxCollateral, anchors: CpuAnchors) -> Issued:
    members = collateral.members
    platform = f"platform type {collateral.fmspc}, {collateral.authority} CA"
    about = f"Intel TDX, {platform}, evaluation {collateral.evaluation}"
    signed = ("tcb_info", "qe_identity", "pck_crl")
    issuers = {name: parse_pem_chain(members[f"{name}_issuer_chain"].encode()) for name in signed}
    windows = [*collateral_windows(collateral), *(validity(chain[0]) for chain in issuers.values())]
    problem = next(_problems_tdx(members, issuers, anchors), "")
    if not problem and (collateral.tcb_info.get("id"), collateral.qe_identity.get("id")) != ("TDX", "TD_QE"):
        problem = "the signed texts are not about TDX"
    return Issued(about=about, windows=tuple(dict.fromkeys(windows)), problem=problem)


def _problems_tdx(
    members: Mapping[str, str], issuers: Mapping[str, tuple[Certificate, ...]], anchors: CpuAnchors
) -> Iterator[str]:
    lists = {name: x509.load_der_x509_crl(bytes.fromhex(members[name])) for name in ("root_ca_crl", "pck_crl")}
    for name, chain in issuers.items():
        if len(chain) != _TDX_CHAIN or not anchors.intel.matches(chain[1]):
            yield f"the issuer chain of {name} does not end at {anchors.intel.name}"
            continue
        leaf, root = chain
        if leaf.issuer_der != root.subject_der or not signed_by_intel(root.spki_der, leaf.signature, leaf.tbs):
            yield f"{leaf.label} is not signed by {root.label}"
        crl = lists["root_ca_crl"]
        if not signed_by_intel(root.spki_der, crl.signature, crl.tbs_certlist_bytes):
            yield f"the revocation list of the root is not signed by {root.label}"
        if crl.get_revoked_certificate_by_serial_number(leaf.serial) is not None:
            yield f"Intel revoked {leaf.label} (serial {leaf.serial:x})"
        if name == "pck_crl":
            crl = lists[name]
            issued = crl.issuer.public_bytes() == leaf.subject_der
            if not issued or not signed_by_intel(leaf.spki_der, crl.signature, crl.tbs_certlist_bytes):
                yield f"the revocation list of PCK certificates is not signed by {leaf.label}"
        else:
            raw = bytes.fromhex(members[f"{name}_signature"])
            halves = (int.from_bytes(half, "big") for half in (raw[:_P256_NUMBER], raw[_P256_NUMBER:]))
            signature = encode_dss_signature(*halves) if len(raw) == 2 * _P256_NUMBER else b""
            if not signed_by_intel(leaf.spki_der, signature, members[name].encode()):
                yield f"{name} is not signed by {leaf.label}: Intel signs its text byte by byte"


def _judge_snp(collateral: SnpCollateral, anchors: CpuAnchors) -> Issued:
    keys = collateral.endorsement_keys()
    own = {key.der for key in keys}
    others = [parse_certificate(der) for der in collateral.certificates if der not in own]
    # A root among them is only compared with the pinned one, when a quote is judged.
    issuers = [certificate for certificate in others if certificate.subject_der != certificate.issuer_der]
    windows = (*map(validity, keys), *map(validity, issuers), *collateral_windows(collateral))
    names = ", ".join(
        f"{key.label} of {f'chip {key.hwid.hex()[:16]}…' if key.hwid else key.csp} ({key.product})" for key in keys
    )
    problem = next(_problems_snp(keys, issuers, collateral.crls, anchors), "")
    return Issued(about=f"AMD SEV-SNP, {names or 'no endorsement key'}", windows=windows, problem=problem)


def _problems_snp(
    keys: list[EndorsementKey], others: list[Certificate], crls: Iterable[bytes], anchors: CpuAnchors
) -> Iterator[str]:
    roots = {anchor.subject: anchor for anchor in anchors.amd.values()}
    for certificate in others:
        root = roots.get(certificate.issuer)
        if root is None or not signed_by_amd(root.spki_der, certificate.signature, certificate.tbs):
            yield f"{certificate.label} is not signed by a root of AMD's"
    issuers = {certificate.subject_der: certificate for certificate in others}
    for key in keys:
        issuer = issuers.get(key.issuer_der)
        if issuer is None:
            yield f"there is no certificate of the issuer of the {key.label}"
        elif not signed_by_amd(issuer.spki_der, key.signature, key.tbs):
            yield f"the {key.label} is not signed by {issuer.label}"
    if not keys:
        yield "there is no VCEK and no VLEK"
    for der in crls:
        crl = read_crl(der)
        certified = [item for item in issuers.values() if item.issuer_der == crl.issuer_der]
        if not certified:
            yield "a revocation list is of no root that issued a certificate here"
            continue
        root = roots[certified[0].issuer]
        if not signed_by_amd(root.spki_der, crl.signature, crl.tbs):
            yield f"a revocation list is not signed by {root.name}"
        for item in certified:
            if item.serial in crl.serials:
                yield f"AMD revoked {item.label} (serial {item.serial:x})"
