"""Certificates as NVIDIA's look: names, validity and extensions in the order and form of the real ones (RFC 5280)."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from nvattest._registry import OID_ECDSA_SHA384, OID_OCSP_SIGNING
from nvattest.testing import _der
from nvattest.testing.keys import SigningKey

__all__ = [
    "FOREVER",
    "SIMULATION",
    "Certificate",
    "Extension",
    "Name",
    "Template",
    "aki",
    "basic_constraints",
    "crl_url",
    "extended_key_usage",
    "issue",
    "key_usage",
    "no_check",
    "ocsp_url",
    "pem",
    "ski",
]

# The organization in every simulated subject: trust anchors that carry it are reported as simulated.
SIMULATION = "nvattest simulation"
# "No expiry" of RFC 5280, 4.1.2.5, as on all of NVIDIA's device certificates.
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)

OID_OCSP_NO_CHECK = "1.3.6.1.5.5.7.48.1.5"
_OID_ECDSA_SHA256 = "1.2.840.10045.4.3.2"
_ATTRIBUTES = {
    "CN": "2.5.4.3",
    "serialNumber": "2.5.4.5",
    "C": "2.5.4.6",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "O": "2.5.4.10",
}
_PRINTABLE = ("C", "serialNumber")
# These hosts do not exist: a client that follows an address inside a certificate must not reach anybody.
_OCSP_URL = "http://ocsp.nvattest.invalid"
_CRL_URL = "http://crl.nvattest.invalid/crl/"

Name = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """One extension; ``value`` is the DER inside its OCTET STRING."""

    oid: str
    value: bytes
    critical: bool = False

    def encode(self) -> bytes:
        """The DER of the whole extension."""
        flag = (_der.boolean(True),) if self.critical else ()
        return _der.sequence(_der.oid(self.oid), *flag, _der.octet_string(self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a certificate says, before its issuer signs it. ``generalized`` writes both times as GeneralizedTime."""

    subject: Name
    serial: int
    not_before: datetime
    not_after: datetime
    extensions: tuple[Extension, ...]
    generalized: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An issued certificate with the key that it certifies."""

    der: bytes
    template: Template
    key: SigningKey
    issuer: Template
    issuer_key: SigningKey

    @property
    def subject_der(self) -> bytes:
        """The encoded subject."""
        return encode_name(self.template.subject)

    @property
    def common_name(self) -> str:
        """The common name in the subject."""
        return dict(self.template.subject)["CN"]


def encode_name(name: Name) -> bytes:
    """A distinguished name, one attribute per RDN, in the order given."""
    rdns = []
    for attribute, text in name:
        value = _der.printable(text) if attribute in _PRINTABLE else _der.utf8(text)
        rdns.append(_der.set_of(_der.sequence(_der.oid(_ATTRIBUTES[attribute]), value)))
    return _der.sequence(*rdns)


def basic_constraints(*, ca: bool, path_length: int | None = None, critical: bool = True) -> Extension:
    """BasicConstraints; ``ca`` false is the empty sequence."""
    items = [_der.boolean(True)] if ca else []
    if path_length is not None:
        items.append(_der.integer(path_length))
    return Extension(oid="2.5.29.19", value=_der.sequence(*items), critical=critical)


_USAGES = {"digitalSignature": (0x80, 7), "keyCertSign": (0x04, 2), "keyCertSign,cRLSign": (0x06, 1)}


def key_usage(usage: str, *, critical: bool = True) -> Extension:
    """KeyUsage: ``digitalSignature``, ``keyCertSign`` or ``keyCertSign,cRLSign``."""
    bits, unused = _USAGES[usage]
    return Extension(oid="2.5.29.15", value=_der.bit_string(bytes((bits,)), unused), critical=critical)


def extended_key_usage(*purposes: str, critical: bool = True) -> Extension:
    """ExtendedKeyUsage from dotted purposes."""
    return Extension(oid="2.5.29.37", value=_der.sequence(*map(_der.oid, purposes)), critical=critical)


def ski(key: SigningKey) -> Extension:
    """SubjectKeyIdentifier."""
    return Extension(oid="2.5.29.14", value=_der.octet_string(key.key_id))


def aki(issuer_key: SigningKey) -> Extension:
    """AuthorityKeyIdentifier by key id."""
    return Extension(oid="2.5.29.35", value=_der.sequence(_der.implicit(0, issuer_key.key_id)))


def ocsp_url() -> Extension:
    """AuthorityInfoAccess with one OCSP address."""
    access = _der.sequence(_der.oid("1.3.6.1.5.5.7.48.1"), _der.implicit(6, _OCSP_URL.encode()))
    return Extension(oid="1.3.6.1.5.5.7.1.1", value=_der.sequence(access))


def crl_url(name: str) -> Extension:
    """CRLDistributionPoints with one address."""
    full_name = _der.explicit(0, _der.implicit(6, (_CRL_URL + name).encode()))
    return Extension(oid="2.5.29.31", value=_der.sequence(_der.sequence(_der.explicit(0, full_name))))


def no_check() -> Extension:
    """id-pkix-ocsp-nocheck as an extension (RFC 6960, 4.2.2.2.1)."""
    return Extension(oid=OID_OCSP_NO_CHECK, value=_der.null())


def ocsp_purposes(*, no_check_as_purpose: bool) -> tuple[str, ...]:
    """Key purposes of a delegated responder; NVIDIA's device side lists nocheck among them."""
    return (OID_OCSP_SIGNING, OID_OCSP_NO_CHECK) if no_check_as_purpose else (OID_OCSP_SIGNING,)


def issue(
    template: Template,
    key: SigningKey,
    issuer: Template,
    issuer_key: SigningKey,
    *,
    damage_signature: bool = False,
    sha256: bool = False,
) -> Certificate:
    """Sign a certificate. The two flags are lies: a signature that does not verify, and a weaker hash."""
    algorithm = _der.sequence(_der.oid(_OID_ECDSA_SHA256 if sha256 else OID_ECDSA_SHA384))
    tbs = _der.sequence(
        _der.explicit(0, _der.integer(2)),
        _der.integer(template.serial),
        algorithm,
        encode_name(issuer.subject),
        _der.sequence(
            _time(template.not_before, template.generalized), _time(template.not_after, template.generalized)
        ),
        encode_name(template.subject),
        key.spki,
        _der.explicit(3, _der.sequence(*(extension.encode() for extension in template.extensions))),
    )
    # A damaged signature is a good one over other bytes: it stays well formed.
    signature = issuer_key.sign_der(tbs + b"\x00" if damage_signature else tbs, sha256=sha256)
    der = _der.sequence(tbs, algorithm, _der.bit_string(signature))
    return Certificate(der=der, template=template, key=key, issuer=issuer, issuer_key=issuer_key)


def without(template: Template, oid: str) -> Template:
    """The template less one extension."""
    return replace(template, extensions=tuple(item for item in template.extensions if item.oid != oid))


def with_extension(template: Template, extension: Extension) -> Template:
    """The template with an extension in the place of the one with its OID, or at the end."""
    if any(item.oid == extension.oid for item in template.extensions):
        items = tuple(extension if item.oid == extension.oid else item for item in template.extensions)
        return replace(template, extensions=items)
    return replace(template, extensions=(*template.extensions, extension))


def pem(certificates: Iterable[bytes], *, final_newline: bool = True) -> bytes:
    """PEM text of DER certificates, one block after the other."""
    blocks = []
    for der in certificates:
        text = base64.b64encode(der)
        lines = b"\n".join(text[i : i + 64] for i in range(0, len(text), 64))
        blocks.append(b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n")
    joined = b"".join(blocks)
    return joined if final_newline else joined[:-1]


def _time(value: datetime, generalized: bool) -> bytes:
    return _der.generalized_time(value) if generalized or value.year >= 2050 else _der.utc_time(value)
