"""Certificates as NVIDIA's look (RFC 5280), built by ``cryptography``, and the lies about them.

Names, validity and extensions have the order and form of the real ones. Device chains and RIM chains share the lies:
expired, no CA, wrong usage, bad signature. Bytes are patched only where no library writes them: a signature that does
not verify, and GeneralizedTime before 2050, which NVIDIA's RIM authorities have.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from nvattest._registry import OID_DICE_MULTI_TCB_INFO
from nvattest.errors import InputError
from nvattest.testing import _der
from nvattest.testing.keys import KeyRing, SigningKey
from nvattest.testing.lies import Told

__all__ = [
    "FOREVER",
    "SIMULATION",
    "Certificate",
    "Extension",
    "Link",
    "Template",
    "aki",
    "basic_constraints",
    "certificate_builder",
    "crl_builder",
    "crl_url",
    "extended_key_usage",
    "issue",
    "issue_chain",
    "key_usage",
    "name",
    "no_check",
    "ocsp_url",
    "other",
    "pem",
    "signed",
    "ski",
    "tcb_flags",
    "window",
]

# The organization in every simulated subject: trust anchors that carry it are reported as simulated.
SIMULATION = "nvattest simulation"
# "No expiry" of RFC 5280, 4.1.2.5, as on all of NVIDIA's device certificates.
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)

_DAY = timedelta(days=1)
_ATTRIBUTES = {
    "CN": NameOID.COMMON_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "C": NameOID.COUNTRY_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "O": NameOID.ORGANIZATION_NAME,
}
# These hosts do not exist: a client that follows an address inside a certificate must reach no machine.
_OCSP_URL = "http://ocsp.nvattest.invalid"
_CRL_URL = "http://crl.nvattest.invalid/crl/"
_OCSP_NO_CHECK = x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.5")

Extension = x509.Extension[x509.ExtensionType]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a certificate says, before its issuer signs it. ``generalized`` writes both times as GeneralizedTime."""

    subject: x509.Name
    serial: int
    not_before: datetime
    not_after: datetime
    extensions: tuple[Extension, ...]
    generalized: bool = False

    @property
    def common_name(self) -> str:
        """The common name in the subject."""
        return str(self.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    def having(self, extension: Extension) -> Template:
        """The same with an extension in the place of the one with its OID, or at the end."""
        known = [item.oid for item in self.extensions]
        if extension.oid not in known:
            return replace(self, extensions=(*self.extensions, extension))
        items = tuple(extension if item.oid == extension.oid else item for item in self.extensions)
        return replace(self, extensions=items)

    def lacking(self, oid: x509.ObjectIdentifier) -> Template:
        """The same less one extension."""
        return replace(self, extensions=tuple(item for item in self.extensions if item.oid != oid))


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An issued certificate with the key that it certifies."""

    der: bytes
    template: Template
    key: SigningKey
    issuer: Template
    issuer_key: SigningKey

    @property
    def common_name(self) -> str:
        """The common name in the subject."""
        return self.template.common_name


def name(*attributes: tuple[str, str]) -> x509.Name:
    """A distinguished name, one attribute per RDN, in the order given; ``CN``, ``O``, ``C`` and the like.

    Raises:
        InputError: a lie makes a text longer than X.509 allows.
    """
    try:
        return x509.Name([x509.NameAttribute(_ATTRIBUTES[kind], text) for kind, text in attributes])
    except ValueError as error:
        raise _unsayable(error) from None


def _unsayable(error: ValueError) -> InputError:
    return InputError(f"no certificate can say this: {error}", code="fault-argument", hint="give a shorter value")


# --- extensions -------------------------------------------------------------------------------------------------------


def _extension(value: x509.ExtensionType, *, critical: bool = False) -> Extension:
    return x509.Extension(value.oid, critical, value)


def basic_constraints(*, ca: bool, path_length: int | None = None, critical: bool = True) -> Extension:
    """BasicConstraints; ``ca`` false is the empty sequence."""
    return _extension(x509.BasicConstraints(ca, path_length), critical=critical)


def key_usage(usage: str, *, critical: bool = True) -> Extension:
    """KeyUsage: ``digitalSignature``, ``keyCertSign`` or ``keyCertSign,cRLSign``."""
    value = x509.KeyUsage(
        digital_signature="digitalSignature" in usage,
        key_cert_sign="keyCertSign" in usage,
        crl_sign="cRLSign" in usage,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return _extension(value, critical=critical)


def extended_key_usage(*purposes: x509.ObjectIdentifier, critical: bool = True) -> Extension:
    """ExtendedKeyUsage."""
    return _extension(x509.ExtendedKeyUsage(purposes), critical=critical)


def ski(key: SigningKey) -> Extension:
    """SubjectKeyIdentifier."""
    return _extension(x509.SubjectKeyIdentifier(key.key_id))


def aki(issuer_key: SigningKey) -> Extension:
    """AuthorityKeyIdentifier by key id."""
    return _extension(x509.AuthorityKeyIdentifier(issuer_key.key_id, None, None))


def ocsp_url() -> Extension:
    """AuthorityInfoAccess with one OCSP address."""
    address = x509.UniformResourceIdentifier(_OCSP_URL)
    access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, address)
    return _extension(x509.AuthorityInformationAccess([access]))


def crl_url(file: str) -> Extension:
    """CRLDistributionPoints with one address."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(_CRL_URL + file)], None, None, None)
    return _extension(x509.CRLDistributionPoints([point]))


def no_check() -> Extension:
    """id-pkix-ocsp-nocheck as an extension (RFC 6960, 4.2.2.2.1)."""
    return _extension(x509.OCSPNoCheck())


def other(oid: str, value: bytes, *, critical: bool = False) -> Extension:
    """An extension that no library knows; ``value`` is the DER inside its OCTET STRING."""
    return _extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=critical)


def ocsp_purposes(*, no_check_as_purpose: bool) -> tuple[x509.ObjectIdentifier, ...]:
    """Key purposes of a delegated responder; NVIDIA's device side lists nocheck among them."""
    signing = ExtendedKeyUsageOID.OCSP_SIGNING
    return (signing, _OCSP_NO_CHECK) if no_check_as_purpose else (signing,)


# --- issuing ----------------------------------------------------------------------------------------------------------


def certificate_builder(
    template: Template, public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, issuer: x509.Name
) -> x509.CertificateBuilder:
    """What the template says about this key, to be signed.

    Raises:
        InputError: a lie gives the certificate a serial number or a validity that X.509 has no place for.
    """
    try:
        builder = (
            x509.CertificateBuilder()
            .subject_name(template.subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(template.serial)
            .not_valid_before(template.not_before)
            .not_valid_after(template.not_after)
        )
        for item in template.extensions:
            builder = builder.add_extension(item.value, critical=item.critical)
    except ValueError as error:
        raise _unsayable(error) from None
    return builder


def issue(
    template: Template,
    key: SigningKey,
    issuer: Template,
    issuer_key: SigningKey,
    *,
    damage_signature: bool = False,
    sha256: bool = False,
) -> Certificate:
    """Sign a certificate. The two flags are lies: a signature that does not verify, and a weaker hash.

    Raises:
        InputError: a lie gives the certificate a serial number or a validity that X.509 has no place for.
    """
    builder = certificate_builder(template, key.public, issuer.subject)
    made = signed(builder, issuer_key, sha256=sha256)
    der = made.public_bytes(Encoding.DER)
    if template.generalized or damage_signature:
        tbs = made.tbs_certificate_bytes
        if template.generalized:
            tbs = _with_generalized_times(tbs, template)
        # A damaged signature is a good one over other bytes: it stays well formed.
        signature = issuer_key.sign_der(tbs + b"\x00" if damage_signature else tbs, sha256=sha256)
        oid = _der.oid(made.signature_algorithm_oid.dotted_string)
        der = _der.sequence(tbs, _der.sequence(oid), _der.bit_string(signature))
    return Certificate(der=der, template=template, key=key, issuer=issuer, issuer_key=issuer_key)


def _with_generalized_times(tbs: bytes, template: Template) -> bytes:
    times = (template.not_before, template.not_after)
    usual = _der.sequence(*(_der.generalized_time(at) if at.year >= 2050 else _der.utc_time(at) for at in times))
    changed = tbs[4:].replace(usual, _der.sequence(*map(_der.generalized_time, times)), 1)
    return _der.sequence(changed)


def signed(builder: Any, key: SigningKey, *, sha256: bool = False) -> Any:
    """What the builder of a certificate or of a revocation list makes under this key."""
    algorithm = key.algorithm(sha256=sha256)
    try:
        return builder.sign(key.private, algorithm, ecdsa_deterministic=True)
    except UnsupportedAlgorithm:  # OpenSSL before 3.2: still a valid signature, no longer a reproducible one
        return builder.sign(key.private, algorithm)


def crl_builder(
    issuer: x509.Name, authority: x509.ExtensionType, begin: datetime, end: datetime, revoked: Iterable[int]
) -> x509.CertificateRevocationListBuilder:
    """A revocation list with these serial numbers, to be signed; ``authority`` identifies the issuer's key."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(begin).next_update(end)
    builder = builder.add_extension(x509.CRLNumber(1), critical=False).add_extension(authority, critical=False)
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin - _DAY)
        builder = builder.add_revoked_certificate(entry.build())
    return builder


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


# --- lies about the certificates of a chain ---------------------------------------------------------------------------

_NAMES = (
    *("chain-signature", "not-a-ca", "key-usage", "critical", "algorithm", "expired", "not-yet-valid"),
    "multi-tcb-info",
)
# Bits of the operational flags of a DICE TCB info, from the left; genuine ones set the first and the last of 32.
_FLAG_BITS = {"notSecure": 1, "recovery": 2, "debug": 3}
# An extension that no verifier knows, under the enterprise number for examples (RFC 5612).
_UNKNOWN = other("1.3.6.1.4.1.32473.1", _der.null(), critical=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A certificate to be: its template and its key."""

    template: Template
    key: SigningKey


def issue_chain(
    links: Sequence[Link], told: Told, clock: datetime, keys: KeyRing, cache: dict[Link, Certificate]
) -> tuple[Certificate, ...]:
    """Issue a chain from its links, leaf first, root last, with the lies told about its certificates.

    Keys and names stay what they are, so that one lie breaks one thing. Certificates without a lie come from ``cache``.
    """
    lies = {name: told.indexed(name) for name in _NAMES}
    other_root = "other-root" in told
    made: list[Certificate] = []
    last = len(links) - 1
    for position in range(last, -1, -1):
        link = links[position]
        issuer = links[min(position + 1, last)]
        changed = any(position in positions for positions in lies.values())
        # Both the root and what it signs have the rogue key behind them; names and key identifiers are the right ones.
        rogue_issuer = other_root and position >= last - 1
        if not changed and not rogue_issuer:
            certificate = cache.get(link)
            if certificate is None:
                certificate = issue(link.template, link.key, issuer.template, issuer.key)
                cache[link] = certificate
            made.append(certificate)
            continue
        rogue = keys.key("rogue root")
        made.append(
            issue(
                _changed(link.template, position, lies, clock),
                rogue if other_root and position == last else link.key,
                issuer.template,
                rogue if rogue_issuer else issuer.key,
                damage_signature=position in lies["chain-signature"],
                sha256=position in lies["algorithm"],
            )
        )
    return tuple(reversed(made))


def tcb_flags(flag: str | None) -> bytes:
    """The content of the flags of a DICE TCB info: as on genuine devices, and with this flag set.

    Raises:
        InputError: no flag that makes a device untrusted.
    """
    bits = 0x80000001
    if flag is not None:
        if flag not in _FLAG_BITS:
            raise InputError(f"not a flag: {flag[:40]!r}", code="fault-argument", hint=f"write {', '.join(_FLAG_BITS)}")
        bits |= 1 << (31 - _FLAG_BITS[flag])
    return bytes(1) + bits.to_bytes(4, "big")


def _multi_tcb_info(flag: str) -> Extension:
    """Two TCB infos, of which the second states the flag."""
    infos = [_der.sequence(_der.implicit(0, b"NVIDIA"), _der.implicit(7, tcb_flags(given))) for given in (None, flag)]
    return other(OID_DICE_MULTI_TCB_INFO, _der.sequence(*infos))


def _changed(template: Template, position: int, lies: dict[str, dict[int, str]], clock: datetime) -> Template:
    if position in lies["not-a-ca"]:
        template = template.having(basic_constraints(ca=False))
    if position in lies["key-usage"]:
        template = template.having(key_usage("keyCertSign" if position == 0 else "digitalSignature"))
    if position in lies["critical"]:
        template = template.having(_UNKNOWN)
    if position in lies["multi-tcb-info"]:
        template = template.having(_multi_tcb_info(lies["multi-tcb-info"][position] or "debug"))
    if position in lies["expired"]:
        template = replace(template, not_after=clock - _DAY)
    if position in lies["not-yet-valid"]:
        template = replace(template, not_before=clock + _DAY)
    return template
