"""Certificates as NVIDIA's, Intel's and AMD's look (RFC 5280): their keys, their parts, and the lies about them.

``cryptography`` builds them. Names, validity and extensions have the order and form of the real ones. The chains of all
makers share the lies: expired, no CA, wrong usage, bad signature. Bytes are patched only where no library writes them:
a signature that does not verify, GeneralizedTime before 2050, which NVIDIA's RIM authorities have, and AMD's serial
number 0.

Keys follow from a seed and a label, and signatures are deterministic (RFC 6979): a platform is the same byte for byte.
These keys protect nothing; the default seed is 0.
"""

from __future__ import annotations

import base64
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from nvattest._registry import OID_DICE_MULTI_TCB_INFO
from nvattest.errors import InputError
from nvattest.pki.ecdsa import P384_ORDER
from nvattest.testing.lies import Told

# The organization in every simulated subject: trust anchors that carry it are reported as simulated.
SIMULATION = "nvattest simulation"
# "No expiry" of RFC 5280, 4.1.2.5, as on all of NVIDIA's device certificates.
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
HONEST = Told(())

_DAY = timedelta(days=1)
_P256 = 32
# The order of the group of P-256 (FIPS 186-5, SP 800-186).
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ATTRIBUTES = {
    "CN": NameOID.COMMON_NAME, "serialNumber": NameOID.SERIAL_NUMBER, "C": NameOID.COUNTRY_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME, "L": NameOID.LOCALITY_NAME, "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "O": NameOID.ORGANIZATION_NAME,
}  # fmt: skip
# These hosts do not exist: a client that follows an address inside a certificate must reach no machine.
_OCSP_URL = "http://ocsp.nvattest.invalid"
_CRL_URL = "http://crl.nvattest.invalid/crl/"

Extension = x509.Extension[x509.ExtensionType]


class KeyId(Enum):
    """The place of a key identifier among the extensions of a template."""

    SUBJECT = "subject"
    ISSUER = "issuer"


# --- keys -------------------------------------------------------------------------------------------------------------


class Key(ABC):
    """What signs in the simulation; ``point`` is the public key as the bits in a certificate have it."""

    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    point: bytes

    @cached_property
    def key_id(self) -> bytes:
        """SHA-1 of the public key (20 bytes), as in subject and authority key identifiers (RFC 5280, 4.2.1.2)."""
        return hashlib.sha1(self.point, usedforsecurity=False).digest()

    @abstractmethod
    def sign(self, message: bytes, *, sha256: bool = False) -> bytes:
        """The signature as certificates have it. ``sha256`` is the lie of a weaker hash."""

    @abstractmethod
    def sign_raw(self, message: bytes) -> bytes:
        """The signature as plain numbers, big-endian: for ECDSA r and s (SPDM, XMLDSig, quotes)."""

    @abstractmethod
    def signed(self, builder: Any, *, sha256: bool = False) -> Any:
        """What the builder of a certificate or of a revocation list makes under this key."""


class SigningKey(Key):
    """A pair of P-384, with SHA-384, or of P-256, with SHA-256, where ``size`` is 32."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self.private = private
        self.public = private.public_key()
        self.size = private.key_size // 8
        self.point = self.public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def _hash(self, *, sha256: bool) -> hashes.HashAlgorithm:
        return hashes.SHA256() if sha256 or self.size == _P256 else hashes.SHA384()

    def sign(self, message: bytes, *, sha256: bool = False) -> bytes:
        algorithm = self._hash(sha256=sha256)
        try:
            return self.private.sign(message, ec.ECDSA(algorithm, deterministic_signing=True))
        except UnsupportedAlgorithm:  # OpenSSL before 3.2: still a valid signature, no longer a reproducible one
            return self.private.sign(message, ec.ECDSA(algorithm))

    def sign_raw(self, message: bytes) -> bytes:
        return b"".join(number.to_bytes(self.size, "big") for number in decode_dss_signature(self.sign(message)))

    def signed(self, builder: Any, *, sha256: bool = False) -> Any:
        algorithm = self._hash(sha256=sha256)
        try:
            return builder.sign(self.private, algorithm, ecdsa_deterministic=True)
        except UnsupportedAlgorithm:  # as above
            return builder.sign(self.private, algorithm)


class KeyRing:
    """The keys of one platform, by label. The same seed and label always give the same key."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._keys: dict[str, SigningKey] = {}

    def key(self, label: str, *, p256: bool = False) -> SigningKey:
        """The key with this label, made at its first use; its curve is P-384 unless ``p256``."""
        key = self._keys.get(label)
        if key is None:
            curve, order = (ec.SECP256R1(), _P256_ORDER) if p256 else (ec.SECP384R1(), P384_ORDER)
            scalar = int.from_bytes(self.bytes(f"key/{label}", 64), "big") % (order - 1) + 1
            key = self._keys.setdefault(label, SigningKey(ec.derive_private_key(scalar, curve)))
        return key

    def bytes(self, label: str, size: int) -> bytes:
        """``size`` bytes that depend on the seed and the label alone (SHAKE-256)."""
        return hashlib.shake_256(f"nvattest simulation\0{self.seed}\0{label}".encode()).digest(size)

    def serial(self, label: str, size: int = 16) -> int:
        """A certificate serial number of exactly ``size`` bytes, positive."""
        return positive(self.bytes(f"serial/{label}", size))


def positive(value: bytes) -> int:
    """The number of these bytes with the two highest bits set to 01, so that DER needs no more bytes for it."""
    return int.from_bytes(bytes((value[0] & 0x3F | 0x40,)) + value[1:], "big")


# --- DER (X.690): what revocation answers and the makers' own extensions need -----------------------------------------
#
# It is separate from every parser of this package on purpose: what it writes is an independent opinion of the format.


def tlv(tag: int, *contents: bytes) -> bytes:
    """One element: tag, definite length, content."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*items: bytes) -> bytes:
    """SEQUENCE of elements that are already encoded."""
    return tlv(0x30, *items)


def explicit(number: int, *contents: bytes) -> bytes:
    """Context tag ``[number]`` around encoded elements."""
    return tlv(0xA0 | number, *contents)


def implicit(number: int, content: bytes) -> bytes:
    """Context tag ``[number]`` in place of a primitive element's own tag."""
    return tlv(0x80 | number, content)


def integer(value: int) -> bytes:
    """INTEGER, shortest form."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def enumerated(value: int) -> bytes:
    return tlv(0x0A, bytes((value,)))


def octet_string(content: bytes) -> bytes:
    return tlv(0x04, content)


def bit_string(content: bytes) -> bytes:
    """BIT STRING of whole bytes."""
    return tlv(0x03, b"\0", content)


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


def generalized_time(value: datetime) -> bytes:
    return tlv(0x18, value.astimezone(timezone.utc).strftime("%Y%m%d%H%M%SZ").encode())


NULL = tlv(0x05)


# --- what a certificate says ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a certificate says, before its issuer signs it. ``generalized`` writes both times as GeneralizedTime."""

    subject: x509.Name
    key: Key
    serial: int
    not_before: datetime
    not_after: datetime
    extensions: tuple[Extension, ...]
    generalized: bool = False

    @property
    def common_name(self) -> str:
        return str(self.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    def having(self, extension: Extension) -> Template:
        """The same with an extension in the place of the one with its OID, or at the end."""
        items = {item.oid: item for item in self.extensions} | {extension.oid: extension}
        return replace(self, extensions=tuple(items.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An issued certificate: what it says, and the issuer that it names and whose key signed it."""

    der: bytes
    template: Template
    issuer: Template


def name(*attributes: tuple[str, str]) -> x509.Name:
    """A distinguished name, one attribute per RDN, in the order given; ``CN``, ``O``, ``C`` and the like."""
    try:
        return x509.Name([x509.NameAttribute(_ATTRIBUTES[kind], text) for kind, text in attributes])
    except ValueError as error:
        raise _unsayable(error) from None


def _unsayable(error: ValueError) -> InputError:
    """A lie gives a certificate a name, serial number or validity that X.509 has no place for."""
    return InputError(f"no certificate can say this: {error}", code="fault-argument", hint="give a shorter value")


def extension(value: x509.ExtensionType, *, critical: bool = False) -> Extension:
    """An extension with its own OID."""
    return x509.Extension(value.oid, critical, value)


def basic_constraints(*, ca: bool, path_length: int | None = None, critical: bool = True) -> Extension:
    """BasicConstraints; ``ca`` false is the empty sequence."""
    return extension(x509.BasicConstraints(ca, path_length), critical=critical)


def key_usage(usage: str, *, critical: bool = True) -> Extension:
    """KeyUsage: ``digitalSignature``, ``keyCertSign`` or ``keyCertSign,cRLSign``."""
    names = ("digitalSignature", "", "", "", "", "keyCertSign", "cRLSign", "", "")
    return extension(x509.KeyUsage(*(word in usage.split(",") for word in names)), critical=critical)


def ocsp_url() -> Extension:
    """AuthorityInfoAccess with one OCSP address."""
    address = x509.UniformResourceIdentifier(_OCSP_URL)
    access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, address)
    return extension(x509.AuthorityInformationAccess([access]))


def crl_url(file: str) -> Extension:
    """CRLDistributionPoints with one address."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(_CRL_URL + file)], None, None, None)
    return extension(x509.CRLDistributionPoints([point]))


def other(dotted: str, value: bytes, *, critical: bool = False) -> Extension:
    """An extension that no library knows; ``value`` is the DER inside its OCTET STRING."""
    return extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(dotted), value), critical=critical)


# --- issuing ----------------------------------------------------------------------------------------------------------


def issue(template: Template, issuer: Template, *, damage_signature: bool = False, sha256: bool = False) -> Certificate:
    """Sign a certificate. The two flags are lies: a signature that does not verify, and a weaker hash."""
    try:
        builder = (
            x509.CertificateBuilder()
            .subject_name(template.subject)
            .issuer_name(issuer.subject)
            .public_key(template.key.public)
            .serial_number(template.serial or 1)
            .not_valid_before(template.not_before)
            .not_valid_after(template.not_after)
        )
        for item in template.extensions:
            builder = builder.add_extension(item.value, critical=item.critical)
    except ValueError as error:
        raise _unsayable(error) from None
    made = issuer.key.signed(builder, sha256=sha256)
    der, tbs = made.public_bytes(Encoding.DER), made.tbs_certificate_bytes
    content = tbs
    if template.serial == 0:
        content = content.replace(_SERIAL + integer(1), _SERIAL + integer(0), 1)
    if template.generalized:
        content = _with_generalized_times(content, template)
    if content != tbs or damage_signature:
        # A damaged signature is a good one over other bytes: it stays well formed.
        signature = issuer.key.sign(content + b"\0" if damage_signature else content, sha256=sha256)
        der = resigned(der, tbs, content, signature)
    return Certificate(der=der, template=template, issuer=issuer)


# Version 3, which stands before a serial number.
_SERIAL = explicit(0, integer(2))


def _with_generalized_times(tbs: bytes, template: Template) -> bytes:
    times = [generalized_time(at) for at in (template.not_before, template.not_after)]
    # As the library writes them: UTCTime before 2050.
    usual = [time if time[2:6] >= b"2050" else tlv(0x17, time[4:]) for time in times]
    return sequence(tbs[4:].replace(sequence(*usual), sequence(*times), 1))


def resigned(der: bytes, tbs: bytes, content: bytes, signature: bytes) -> bytes:
    """A certificate or list with ``content`` in the place of ``tbs``, and this signature in that of its own."""
    at = der.index(tbs) + len(tbs)
    algorithm = der[at : at + 2 + der[at + 1]]
    return sequence(content, algorithm, bit_string(signature))


def revocation_list(
    issuer: x509.Name, key: Key, told: Told, clock: datetime, *, days: int, revoked: Iterable[int], rogue: Key
) -> bytes:
    """The list of an issuer with these serial numbers; the lie ``crl-signature`` signs it with the rogue key."""
    begin, end = window(told, clock, days=days)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(begin).next_update(end)
    for value in (x509.CRLNumber(1), x509.AuthorityKeyIdentifier(key.key_id, None, None)):
        builder = builder.add_extension(value, critical=False)
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin - _DAY)
        builder = builder.add_revoked_certificate(entry.build())
    made = (rogue if "crl-signature" in told else key).signed(builder)
    return bytes(made.public_bytes(Encoding.DER))


def window(told: Told, clock: datetime, *, days: int) -> tuple[datetime, datetime]:
    """When lists and signed texts are good: from yesterday on for so many days, unless a lie says otherwise."""
    if "stale" in told:
        return clock - days * _DAY, clock - timedelta(hours=1)
    begin = clock + timedelta(hours=1) if "future" in told else clock - _DAY
    return begin, begin + days * _DAY


def pem(certificates: Iterable[bytes], *, final_newline: bool = True) -> bytes:
    """PEM text of DER certificates, one block after the other."""
    blocks = []
    for der in certificates:
        text = base64.b64encode(der)
        lines = b"\n".join(text[i : i + 64] for i in range(0, len(text), 64))
        blocks.append(b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n")
    joined = b"".join(blocks)
    return joined if final_newline else joined[:-1]


# --- chains, and the lies about their certificates --------------------------------------------------------------------

_LIES = (
    *("chain-signature", "not-a-ca", "key-usage", "critical", "algorithm", "expired", "not-yet-valid"),
    "multi-tcb-info",
)
# Bits of the operational flags of a DICE TCB info, from the left; genuine ones set the first and the last of 32.
_FLAG_BITS = {"notSecure": 1, "recovery": 2, "debug": 3}
# An extension that no verifier knows, under the enterprise number for examples (RFC 5612).
_UNKNOWN = other("1.3.6.1.4.1.32473.1", NULL, critical=True)


class Authorities:
    """The authorities of one simulation: their keys, their clock, and what they have issued."""

    def __init__(self, keys: KeyRing, clock: datetime) -> None:
        self.keys, self.clock = keys, clock
        self._issued: dict[tuple[Template, Template, bool, bool], Certificate] = {}

    def template(
        self,
        label: str,
        subject: x509.Name,
        validity: tuple[datetime, datetime],
        *extensions: Extension | KeyId,
        issuer: Key | None = None,
        key: Key | None = None,
        serial: int | None = None,
        generalized: bool = False,
    ) -> Template:
        """A certificate to be. ``label`` names its key and serial number; without ``issuer`` it signs itself."""
        key = key or self.keys.key(label)
        identifiers = {
            KeyId.SUBJECT: extension(x509.SubjectKeyIdentifier(key.key_id)),
            KeyId.ISSUER: extension(x509.AuthorityKeyIdentifier((issuer or key).key_id, None, None)),
        }
        return Template(
            subject=subject,
            key=key,
            serial=self.keys.serial(label) if serial is None else serial,
            not_before=validity[0],
            not_after=validity[1],
            extensions=tuple(identifiers[item] if isinstance(item, KeyId) else item for item in extensions),
            generalized=generalized,
        )

    def chain(
        self, templates: Sequence[Template], told: Told = HONEST, *, rogue: Key | None = None
    ) -> tuple[Certificate, ...]:
        """The certificates of these templates, leaf first, root last, with the lies told about them.

        Names stay what they are, so that one lie breaks one thing. ``other-root`` puts the ``rogue`` key behind the
        root and what it signs; the key identifiers are the right ones.
        """
        lies = {name: told.indexed(name) for name in _LIES}
        last = len(templates) - 1
        made = []
        for position, template in enumerate(templates):
            issuer = templates[min(position + 1, last)]
            if "other-root" in told and position >= last - 1:
                key = rogue or self.keys.key("rogue root")
                issuer = replace(issuer, key=key)
                template = replace(template, key=key) if position == last else template  # noqa: PLW2901
            damaged, weak = position in lies["chain-signature"], position in lies["algorithm"]
            wanted = (self._changed(template, position, lies), issuer, damaged, weak)
            if wanted not in self._issued:
                self._issued[wanted] = issue(wanted[0], issuer, damage_signature=damaged, sha256=weak)
            made.append(self._issued[wanted])
        return tuple(made)

    def _changed(self, template: Template, position: int, lies: Mapping[str, Mapping[int, str]]) -> Template:
        if position in lies["not-a-ca"]:
            template = template.having(basic_constraints(ca=False))
        if position in lies["key-usage"]:
            template = template.having(key_usage("keyCertSign" if position == 0 else "digitalSignature"))
        if position in lies["critical"]:
            template = template.having(_UNKNOWN)
        if position in lies["multi-tcb-info"]:
            template = template.having(_multi_tcb_info(lies["multi-tcb-info"][position] or "debug"))
        if position in lies["expired"]:
            template = replace(template, not_after=self.clock - _DAY)
        if position in lies["not-yet-valid"]:
            template = replace(template, not_before=self.clock + _DAY)
        return template


def tcb_flags(flag: str | None) -> bytes:
    """The content of the flags of a DICE TCB info: as on genuine devices, and with this flag set."""
    bits = 0x80000001
    if flag is not None:
        if flag not in _FLAG_BITS:
            raise InputError(f"not a flag: {flag[:40]!r}", code="fault-argument", hint=f"write {', '.join(_FLAG_BITS)}")
        bits |= 1 << (31 - _FLAG_BITS[flag])
    return bytes(1) + bits.to_bytes(4, "big")


def _multi_tcb_info(flag: str) -> Extension:
    """Two TCB infos, of which the second states the flag."""
    infos = [sequence(implicit(0, b"NVIDIA"), implicit(7, tcb_flags(given))) for given in (None, flag)]
    return other(OID_DICE_MULTI_TCB_INFO, sequence(*infos))
