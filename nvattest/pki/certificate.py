"""X.509 certificates as frozen values (RFC 5280). The library parses; exact bytes, bounds and names are ours.

The library's own name objects warn about odd attributes (a country of three letters); a verifier that only says a name
must neither print nor raise. A value that is no text appears as ``#`` and hexadecimal digits (RFC 4514, 2.4).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import AuthorityInformationAccessOID

from nvattest._registry import OID_DMTF_DEVICE_INFO, OID_ECDSA_SHA384, OID_OCSP_SIGNING
from nvattest._text import clean
from nvattest.errors import ParseError, ResultCode
from nvattest.pki.ecdsa import P384_SPKI_PREFIX, is_p384

E = TypeVar("E", bound=x509.ExtensionType)

MAX_CERTIFICATE_SIZE: Final = 16 * 1024
MAX_CHAIN_SIZE: Final = 64 * 1024
MAX_EXTENSIONS: Final = 32

# What the library raises for certificates that it refuses. About some it only warns, and a program may turn warnings
# into errors.
LIBRARY_ERRORS: Final = (
    ValueError, TypeError, OverflowError, UserWarning, UnsupportedAlgorithm,
    x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType,
)  # fmt: skip

_OID_BASIC_CONSTRAINTS = "2.5.29.19"
_OID_KEY_USAGE = "2.5.29.15"
_OID_EXTENDED_KEY_USAGE = "2.5.29.37"
# What the three say, by the names of Certificate.
_SAID = ("is_ca", "path_length", "key_cert_sign", "digital_signature", "extended_key_usage")

_ECDSA_SHA384_DER = bytes.fromhex("300a06082a8648ce3d040303")
_PKCS1_ARC = bytes.fromhex("2a864886f70d0101")
_EXPLICIT_VERSION = 0xA0
_MAX_SERIAL_BYTES = 20
_SOURCE = "certificate"
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----[ \t\r\n]*")

COMMON_NAME = "2.5.4.3"
SERIAL_NUMBER = "2.5.4.5"
_SHORT_NAMES = {
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
# Those of 2.5.4 have three octets; nearly every name has no others.
_KNOWN_TYPES = {
    bytes((0x55, 4, int(oid[6:]))): oid for oid in (*_SHORT_NAMES, SERIAL_NUMBER) if oid.startswith("2.5.4.")
}
# X.520 allows 64 characters in most attributes.
_MAXIMUM_NAME = 256
_EMPTY_NAME = b"\x30\x00"
_STRING_TYPES = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x12: "ascii", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
_ESCAPED = str.maketrans({c: "\\" + c for c in '\\"+,;<>'} | {"\0": "\\00"})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Certificate:
    """One certificate; two are equal if their DER is. Nothing here says that it may be trusted.

    Times are aware datetimes in UTC. ``is_ca`` and ``path_length`` are None without basicConstraints (``path_length``
    also without a limit), ``key_cert_sign`` and ``digital_signature`` None without keyUsage, ``extended_key_usage``
    None without that extension. ``unknown_critical`` lists the critical extensions that nothing here checks.
    """

    der: bytes
    sha256: bytes = field(compare=False)
    serial: int = field(compare=False)
    subject_der: bytes = field(compare=False)
    issuer_der: bytes = field(compare=False)
    not_before: datetime = field(compare=False)
    not_after: datetime = field(compare=False)
    spki_der: bytes = field(compare=False)
    tbs: bytes = field(compare=False)
    signature: bytes = field(compare=False)
    is_p384: bool = field(compare=False)
    is_ecdsa_sha384: bool = field(compare=False)
    is_ca: bool | None = field(compare=False)
    path_length: int | None = field(compare=False)
    key_cert_sign: bool | None = field(compare=False)
    digital_signature: bool | None = field(compare=False)
    extended_key_usage: tuple[str, ...] | None = field(compare=False)
    unknown_critical: tuple[str, ...] = field(compare=False)
    _x509: x509.Certificate = field(compare=False)
    _extensions: Mapping[str, x509.ExtensionType] = field(compare=False)
    _subject: Name = field(compare=False)

    def __repr__(self) -> str:
        return f"<Certificate {self.subject!r} serial {self.serial:x}>"

    @property
    def subject(self) -> str:
        """The subject as RFC 4514 text."""
        return self._subject.rfc4514()

    @property
    def issuer(self) -> str:
        """The issuer as RFC 4514 text."""
        return Name(self.issuer_der).rfc4514()

    @property
    def common_name(self) -> str | None:
        """The first CN of the subject."""
        return self._subject.first(COMMON_NAME)

    @property
    def subject_serial(self) -> str | None:
        """The serialNumber attribute of the subject, which is not the certificate's serial number."""
        return self._subject.first(SERIAL_NUMBER)

    @property
    def label(self) -> str:
        """The name of this certificate in messages: its common name, else its subject."""
        return self.common_name or self.subject or f"serial {self.serial:x}"

    @property
    def signature_algorithm_oid(self) -> str:
        """The signature algorithm, the same inside and outside of the signed part."""
        return OID_ECDSA_SHA384 if self.is_ecdsa_sha384 else self._x509.signature_algorithm_oid.dotted_string

    @property
    def ocsp_signing(self) -> bool:
        """Whether extendedKeyUsage has id-kp-OCSPSigning (RFC 6960, 4.2.2.2)."""
        return self.extended_key_usage is not None and OID_OCSP_SIGNING in self.extended_key_usage

    @property
    def key_bits(self) -> bytes:
        """The content of the subjectPublicKey BIT STRING, which OCSP and key identifiers digest (RFC 6960, 4.1.1)."""
        if self.is_p384:
            return self.spki_der[len(P384_SPKI_PREFIX) - 1 :]
        outer = DerReader(self.spki_der, source=_SOURCE).inner(SEQUENCE, "SubjectPublicKeyInfo")
        outer.element(SEQUENCE, "AlgorithmIdentifier")
        return outer.content(BIT_STRING, "subjectPublicKey")[1:]

    @property
    def ocsp_urls(self) -> tuple[str, ...]:
        """The responders that the certificate names (RFC 5280, 4.2.2.1)."""
        access = self._extension(x509.AuthorityInformationAccess)
        return tuple(
            item.access_location.value
            for item in access or ()
            if item.access_method == AuthorityInformationAccessOID.OCSP
            and isinstance(item.access_location, x509.UniformResourceIdentifier)
        )

    @property
    def device_info(self) -> str | None:
        """DMTF device information ``vendor:product:serial`` from the subject alternative name (DSP0274, 10.8)."""
        for name in self._extension(x509.SubjectAlternativeName) or ():
            if isinstance(name, x509.OtherName) and name.type_id.dotted_string == OID_DMTF_DEVICE_INFO:
                reader = DerReader(name.value, source=_SOURCE)
                try:
                    text = reader.content(0x0C, "device information").decode()
                    reader.finish("device information")
                except (ParseError, UnicodeDecodeError):
                    return None
                return clean(text, 256)
        return None

    def _extension(self, kind: type[E]) -> E | None:
        return next((value for value in self._extensions.values() if isinstance(value, kind)), None)

    def extension(self, oid: str) -> bytes | None:
        """The DER inside the extension with this OID, None if there is none."""
        value = self._extensions.get(oid)
        return None if value is None else value.public_bytes()


def parse_certificate(der: bytes) -> Certificate:
    """Read one DER certificate.

    Raises:
        ParseError: not exactly one certificate, more than 16 KiB or 32 extensions, a serial number that is not positive
            or longer than 20 octets, signature algorithms that differ, or an extension that cannot be read.
    """
    if len(der) > MAX_CERTIFICATE_SIZE:
        raise _malformed(f"{len(der)} bytes, at most {MAX_CERTIFICATE_SIZE} are allowed", code="certificate-size")
    # Cut first, to refuse what the library would only warn about.
    parts = _cut(der)
    try:
        parsed = x509.load_der_x509_certificate(der)
        extensions = parsed.extensions
        not_before, not_after = parsed.not_valid_before_utc, parsed.not_valid_after_utc
    except LIBRARY_ERRORS as error:
        raise _malformed(f"not a readable certificate: {error}") from error
    if len(extensions) > MAX_EXTENSIONS:
        raise _malformed(f"{len(extensions)} extensions, at most {MAX_EXTENSIONS} are allowed")
    said: dict[str, Any] = dict.fromkeys(_SAID)
    critical: list[str] = []
    values: dict[str, x509.ExtensionType] = {}
    for extension in extensions:
        # The object identifiers first: asking the library's abstract classes costs more than parsing does.
        oid, value = extension.oid.dotted_string, extension.value
        values[oid] = value
        if oid == _OID_BASIC_CONSTRAINTS and isinstance(value, x509.BasicConstraints):
            said["is_ca"], said["path_length"] = value.ca, value.path_length
        elif oid == _OID_KEY_USAGE and isinstance(value, x509.KeyUsage):
            said["key_cert_sign"], said["digital_signature"] = value.key_cert_sign, value.digital_signature
        elif oid == _OID_EXTENDED_KEY_USAGE and isinstance(value, x509.ExtendedKeyUsage):
            said["extended_key_usage"] = tuple(usage.dotted_string for usage in value)
        elif extension.critical:
            # Its meaning is not checked here, and that refuses the certificate (RFC 5280, 4.2).
            critical.append(oid)
    return Certificate(
        der=der,
        sha256=hashlib.sha256(der).digest(),
        not_before=not_before,
        not_after=not_after,
        is_p384=is_p384(parts.spki_der),
        unknown_critical=tuple(critical),
        _x509=parsed,
        _subject=Name(parts.subject_der),
        _extensions=values,
        **parts._asdict(),
        **said,
    )


def parse_pem_chain(
    pem: bytes, *, maximum: int = 16, read: Callable[[bytes], Certificate] | None = None
) -> tuple[Certificate, ...]:
    """Read a text that holds PEM certificates and white space, nothing else, in its order (RFC 7468).

    ``read`` is for callers that cache certificates; it must give what ``read_pem_block`` gives.

    Raises:
        ParseError: more than 64 KiB, no certificate or more than ``maximum``, other text, or a certificate that
            ``parse_certificate`` refuses; the offset is that of the certificate in the text.
    """
    if len(pem) > MAX_CHAIN_SIZE:
        raise _not_pem(f"{len(pem)} bytes, at most {MAX_CHAIN_SIZE} are allowed", None, "chain-size")
    read = read if read is not None else read_pem_block
    found: list[Certificate] = []
    position = len(pem) - len(pem.lstrip(b" \t\r\n"))
    while position < len(pem):
        match = _BLOCK.match(pem, position)
        if match is None:
            raise _not_pem("only CERTIFICATE blocks of PEM are allowed here", position)
        if len(found) == maximum:
            raise _not_pem(f"more than {maximum} certificates", position, "chain-size")
        try:
            found.append(read(match[1]))
        except ParseError as error:
            message = error.message if error.code == "pem" else f"certificate {len(found)}: {error.message}"
            raise _not_pem(message, position, error.code) from error
        position = match.end()
    if not found:
        raise _not_pem("no certificate", 0)
    return tuple(found)


def read_pem_block(text: bytes) -> Certificate:
    """Read the text between the two lines of a PEM certificate.

    Raises:
        ParseError: not base64 (code ``pem``), or a certificate that ``parse_certificate`` refuses.
    """
    try:
        der = base64.b64decode(text.translate(None, b"\r\n"), validate=True)
    except ValueError as error:
        raise _not_pem(f"not base64: {error}", 0) from error
    return parse_certificate(der)


class _Parts(NamedTuple):
    """The exact bytes of what is signed, hashed or compared, by the names of Certificate."""

    tbs: bytes
    signature: bytes
    serial: int
    issuer_der: bytes
    subject_der: bytes
    spki_der: bytes
    is_ecdsa_sha384: bool


def _cut(der: bytes) -> _Parts:
    """Take a certificate apart (RFC 5280, 4.1)."""
    outer = DerReader(der, source=_SOURCE, result_code=ResultCode.CERT_NOT_FOUND)
    certificate = outer.inner(SEQUENCE, "Certificate")
    outer.finish("Certificate")
    tbs = certificate.element(SEQUENCE, "TBSCertificate")
    algorithm = certificate.element(SEQUENCE, "signatureAlgorithm")
    signature = certificate.content(BIT_STRING, "signatureValue")
    certificate.finish("signatureValue")
    if signature[:1] != b"\0":
        raise certificate.error("signatureValue does not hold whole bytes")

    fields = DerReader(der, tbs.body, tbs.end, source=_SOURCE, result_code=ResultCode.CERT_NOT_FOUND)
    if fields.peek() == _EXPLICIT_VERSION:
        fields.element(_EXPLICIT_VERSION, "version")
    serial_at = fields.position
    serial = fields.unsigned("serialNumber", max_bytes=_MAX_SERIAL_BYTES)
    if serial == 0:
        raise fields.error("serialNumber is zero", at=serial_at)
    inner_at, inner = fields.position, fields.whole(SEQUENCE, "signature")
    issuer = fields.whole(SEQUENCE, "issuer")
    fields.element(SEQUENCE, "validity")
    subject, spki = fields.whole(SEQUENCE, "subject"), fields.whole(SEQUENCE, "subjectPublicKeyInfo")

    if inner != der[algorithm.start : algorithm.end]:
        raise fields.error("the signature algorithms inside and outside of the signed part differ", at=inner_at)
    if inner != _ECDSA_SHA384_DER:
        identifier = DerReader(der, algorithm.body, algorithm.end, source=_SOURCE)
        if not identifier.content(OID, "algorithm").startswith(_PKCS1_ARC) and not identifier.at_end:
            raise fields.error("the signature algorithm has parameters where none belong", at=algorithm.start)
    signed = der[tbs.start : tbs.end]
    return _Parts(signed, signature[1:], serial, issuer, subject, spki, is_ecdsa_sha384=inner == _ECDSA_SHA384_DER)


def _not_pem(message: str, offset: int | None, code: str = "pem") -> ParseError:
    return _malformed(message, code=code, source="certificate chain", offset=offset)


def _malformed(
    message: str, *, code: str = "certificate", source: str = _SOURCE, offset: int | None = None
) -> ParseError:
    return ParseError(message, source=source, offset=offset, code=code, result_code=ResultCode.CERT_NOT_FOUND)


# --- distinguished names ----------------------------------------------------------------------------------------------


class Attribute(NamedTuple):
    """One attribute: its OID, its text (None where it is no text), and its value's DER."""

    oid: str
    text: str | None
    der: bytes


def parse_name(name: bytes) -> tuple[tuple[Attribute, ...], ...]:
    """The relative distinguished names of a Name in its order of encoding; ParseError where it is no such DER."""
    reader = DerReader(name, source="distinguished name")
    names = reader.inner(SEQUENCE, "Name")
    reader.finish("Name")
    found: list[tuple[Attribute, ...]] = []
    while not names.at_end:
        attributes = names.inner(SET, "RelativeDistinguishedName")
        together: list[Attribute] = []
        while not attributes.at_end:
            pair = attributes.inner(SEQUENCE, "AttributeTypeAndValue")
            content = pair.content(OID, "attribute type")
            oid = _KNOWN_TYPES.get(content) or dotted(content) or "?"
            value = pair.element(None, "attribute value")
            pair.finish("AttributeTypeAndValue")
            try:
                text = name[value.body : value.end].decode(_STRING_TYPES[value.tag])
            except (KeyError, UnicodeDecodeError):
                text = None
            together.append(Attribute(oid, text, name[value.start : value.end]))
        found.append(tuple(together))
    return tuple(found)


class Name:
    """A Name, read at its first use and then kept: most certificates are parsed and never named."""

    def __init__(self, der: bytes) -> None:
        self.der = der

    @cached_property
    def _parts(self) -> tuple[tuple[Attribute, ...], ...]:
        try:
            return parse_name(self.der)
        except ParseError:
            return ()

    def rfc4514(self) -> str:
        """The name as RFC 4514 writes it, last attribute first; ``#`` and hexadecimal digits where it is no Name."""
        if not self._parts and self.der != _EMPTY_NAME:
            return clean(f"#{self.der.hex()}")
        return clean(",".join("+".join(map(_shown, together)) for together in reversed(self._parts)))

    def first(self, oid: str) -> str | None:
        """The text of the first attribute with this OID, safe to show; None if there is none or it is no text."""
        for together in self._parts:
            for attribute in together:
                if attribute.oid == oid:
                    return None if attribute.text is None else clean(attribute.text, _MAXIMUM_NAME)
        return None


def _shown(attribute: Attribute) -> str:
    key = _SHORT_NAMES.get(attribute.oid, attribute.oid)
    text = attribute.text
    if text is None or not text.isprintable():
        return f"{key}=#{attribute.der.hex()}"
    shown = text.translate(_ESCAPED)
    if shown[:1] in ("#", " "):
        shown = "\\" + shown
    if len(shown) > 1 and shown[-1] == " ":
        shown = shown[:-1] + "\\ "
    return f"{key}={shown}"


# --- DER --------------------------------------------------------------------------------------------------------------
#
# A small strict reader for the few structures that the X.509 library does not take apart (X.690, 8.1 and 10.1):
# single-byte tags, definite lengths in their shortest form, nothing past the end. Everything else is a ParseError.

INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OID = 0x06
SEQUENCE = 0x30
SET = 0x31

# No certificate or extension that is read here comes near this length.
_MAX_LENGTH_BYTES = 3
# Python writes no number of more than 4300 digits, and the X.509 library reads no longer identifier.
_MAX_OID_BYTES = 63


class Element(NamedTuple):
    """One tag-length-value. ``start`` and ``end`` bound all of it, ``body`` is where its content starts."""

    tag: int
    start: int
    body: int
    end: int


class DerReader:
    """Read elements of ``data`` from ``start`` to ``end``, front to back; offsets in errors count from ``data[0]``."""

    __slots__ = ("_end", "_result_code", "_source", "data", "position")

    def __init__(
        self,
        data: bytes,
        start: int = 0,
        end: int | None = None,
        *,
        source: str,
        result_code: ResultCode = ResultCode.EVIDENCE_MALFORMED,
    ) -> None:
        self.data = data
        self.position = start
        self._end = len(data) if end is None else end
        self._source = source
        self._result_code = result_code

    @property
    def at_end(self) -> bool:
        return self.position == self._end

    def element(self, tag: int | None, name: str) -> Element:
        """The next element, which must have this tag, if one is given; ``name`` is what errors call it."""
        start = self.position
        body, end = self._enter(tag, name)
        return Element(self.data[start], start, body, end)

    def whole(self, tag: int, name: str) -> bytes:
        """All bytes of the next element, which must have this tag."""
        start = self.position
        return self.data[start : self._enter(tag, name)[1]]

    def _enter(self, tag: int | None, name: str) -> tuple[int, int]:
        """Where the content of the next element starts and ends; the position moves to its end."""
        data, start, end = self.data, self.position, self._end
        body = start + 2
        if body > end:
            raise self.error(f"{name} is missing or truncated")
        found, length = data[start], data[start + 1]
        if found & 0x1F == 0x1F:
            raise self.error(f"{name} has a tag of several bytes")
        if tag is not None and found != tag:
            raise self.error(f"{name} needs tag 0x{tag:02X}, found 0x{found:02X}")
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= _MAX_LENGTH_BYTES or body + size > end:
                raise self.error(f"{name} has an indefinite or oversized length")
            length = int.from_bytes(data[body : body + size], "big")
            if length < 0x80 or length >> (8 * (size - 1)) == 0:
                raise self.error(f"the length of {name} is not in its shortest form")
            body += size
        if body + length > end:
            raise self.error(f"{name} needs {length} bytes, {end - body} are left")
        self.position = body + length
        return body, self.position

    def content(self, tag: int, name: str) -> bytes:
        """The content of the next element, which must have this tag."""
        body, end = self._enter(tag, name)
        return self.data[body:end]

    def inner(self, tag: int, name: str) -> DerReader:
        """A reader over the content of the next element, which must have this tag."""
        body, end = self._enter(tag, name)
        return DerReader(self.data, body, end, source=self._source, result_code=self._result_code)

    def peek(self) -> int | None:
        """The tag of the next element, None at the end."""
        return self.data[self.position] if self.position < self._end else None

    def unsigned(self, name: str, *, tag: int = INTEGER, max_bytes: int = 8) -> int:
        """The next element as a non-negative INTEGER of at most ``max_bytes`` octets, a leading zero not counted."""
        start = self.position
        content = self.content(tag, name)
        if not content or content[0] & 0x80 or (len(content) > 1 and content[0] == 0 and not content[1] & 0x80):
            raise self.error(f"{name} is negative or not in its shortest form", at=start)
        if len(content) - (content[0] == 0) > max_bytes:
            raise self.error(f"{name} has {len(content)} bytes, at most {max_bytes} are allowed", at=start)
        return int.from_bytes(content, "big")

    def finish(self, name: str) -> None:
        """Refuse bytes that nothing has read."""
        if self.position != self._end:
            raise self.error(f"{self._end - self.position} stray bytes after {name}")

    def error(self, message: str, *, at: int | None = None) -> ParseError:
        """A ParseError at the present offset, or at ``at``."""
        offset = self.position if at is None else at
        return ParseError(message, source=self._source, offset=offset, code="der", result_code=self._result_code)


def dotted(content: bytes) -> str | None:
    """The content of an OBJECT IDENTIFIER as ``1.2.840…``, or None if it is not one (X.690, 8.19), or too long."""
    if not 0 < len(content) <= _MAX_OID_BYTES or content[-1] & 0x80:
        return None
    arcs: list[int] = []
    value, fresh = 0, True
    for octet in content:
        if fresh and octet == 0x80:
            return None
        value, fresh = value << 7 | octet & 0x7F, False
        if not octet & 0x80:
            arcs.append(value)
            value, fresh = 0, True
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))
