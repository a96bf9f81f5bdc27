"""The OCSP issuer of the simulation: one delegated responder per issuing CA, as NVIDIA runs them (RFC 6960).

It answers about every certificate of a known issuer: unknown serials are good below the device root and unknown below
the RIM root. It has no clock: the instant of an answer is an argument. As NVIDIA's responders do, it stamps a live
answer with the instant of the request (thisUpdate = producedAt); recorded answers are a little older.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from nvattest.testing import _der
from nvattest.testing.certificates import (
    SIMULATION,
    Certificate,
    Template,
    aki,
    basic_constraints,
    extended_key_usage,
    issue,
    key_usage,
    name,
    no_check,
    ocsp_purposes,
    ski,
)
from nvattest.testing.keys import KeyRing, SigningKey
from nvattest.testing.lies import Told

__all__ = ["OcspIssuer", "Side", "Verdict"]

_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_RECORDED_BEFORE = timedelta(minutes=15)
_OID_BASIC = "1.3.6.1.5.5.7.48.1.1"
_OID_NONCE = "1.3.6.1.5.5.7.48.1.2"
_HASHES = {
    "sha1": "1.3.14.3.2.26",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
_STATUSES = {"malformedrequest": 1, "internalerror": 2, "trylater": 3, "sigrequired": 5, "unauthorized": 6}
_REASONS = {
    "unspecified": 0,
    "keycompromise": 1,
    "cacompromise": 2,
    "affiliationchanged": 3,
    "superseded": 4,
    "cessationofoperation": 5,
    "certificatehold": 6,
    "removefromcrl": 8,
    "privilegewithdrawn": 9,
    "aacompromise": 10,
}


class Side(Enum):
    """Which half of the PKI an issuer belongs to."""

    DEVICE = "device"
    RIM = "rim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one certificate is answered about; the default is an honest ``good``."""

    revoked: str | None = None
    unknown: bool = False
    shift: timedelta = timedelta(0)
    next_update: bool = True
    responder: str = "delegated"
    damage_signature: bool = False
    other_serial: bool = False
    failure: int | None = None
    garbage: bool = False
    nonce: str = "echo"

    @classmethod
    def from_told(cls, told: Told, position: int) -> Verdict:
        """The verdict about the certificate at ``position`` of a chain whose owner tells these lies."""
        reasons = told.indexed("revoked")
        failures = told.indexed("ocsp-status")

        def has(name: str) -> bool:
            return position in told.indexed(name)

        revoked = (reasons[position] or "keyCompromise") if position in reasons else None
        responder = next((name for name in _RESPONDER_LIES if has(name)), "delegated")
        return cls(
            revoked="certificateHold" if has("hold") else revoked,
            unknown=has("unknown"),
            shift=-(_DAY + _HOUR) if has("stale") else _HOUR if has("future") else timedelta(0),
            next_update=not has("no-next-update"),
            responder=responder,
            damage_signature=has("ocsp-signature"),
            other_serial=has("ocsp-serial"),
            failure=_STATUSES.get(failures[position].lower(), 2) if position in failures else None,
            garbage=has("ocsp-garbage"),
            nonce="other" if has("ocsp-nonce") else "none" if has("ocsp-no-nonce") else "echo",
        )


_RESPONDER_LIES = ("wrong-responder", "responder-purpose", "responder-expired", "ocsp-by-issuer")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Issuer:
    template: Template
    key: SigningKey
    side: Side
    top: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    """The CertID of a request, byte by byte, and the nonce extension (raw extnValue content)."""

    algorithm: str
    name_hash: bytes
    key_hash: bytes
    serial: int
    nonce: bytes | None = None


class OcspIssuer:
    """Answers OCSP requests about the certificates of one simulation."""

    def __init__(self, keys: KeyRing, clock: datetime) -> None:
        self._keys = keys
        self._clock = clock
        self._issuers: dict[tuple[bytes, bytes], _Issuer] = {}
        self._verdicts: dict[tuple[bytes, int], Verdict] = {}
        self._known: set[tuple[bytes, int]] = set()
        self._responders: dict[tuple[bytes, str], Certificate] = {}

    def register(self, certificate: Certificate, side: Side, verdict: Verdict) -> None:
        """Make a certificate and its issuer known. A verdict that lies stays when an honest one follows."""
        subject, point = certificate.issuer.subject.public_bytes(), certificate.issuer_key.point
        if (subject, point) not in self._issuers:
            self._issuers[subject, point] = _Issuer(
                template=certificate.issuer, key=certificate.issuer_key, side=side, top=_is_root(certificate)
            )
        key = (point, certificate.template.serial)
        self._known.add(key)
        if verdict != Verdict() or key not in self._verdicts:
            self._verdicts[key] = verdict

    def answer(self, request: bytes, at: datetime | None = None) -> bytes:
        """The DER response to a DER request that comes at ``at`` (the platform's clock by default).

        Never raises: what cannot be read is answered ``malformedRequest``.
        """
        query = _read_request(request)
        if query is None:
            return _failure(1)
        return self._answer(query, at or self._clock)

    def about(self, certificate: Certificate, *, algorithm: str = "sha384", at: datetime | None = None) -> bytes:
        """The response about one certificate, without a nonce, as caches and bundles keep it: made before ``at``."""
        query = _Query(
            algorithm=algorithm,
            name_hash=_digest(algorithm, certificate.issuer.subject.public_bytes()),
            key_hash=_digest(algorithm, certificate.issuer_key.point),
            serial=certificate.template.serial,
        )
        return self._answer(query, at or self._clock, age=_RECORDED_BEFORE)

    def _answer(self, query: _Query, at: datetime, *, age: timedelta = timedelta(0)) -> bytes:
        issuer = self._find(query)
        if issuer is None:
            return _failure(6)
        key = (issuer.key.point, query.serial)
        verdict = self._verdicts.get(key) or Verdict(unknown=issuer.side is Side.RIM and key not in self._known)
        if verdict.garbage:
            return b"\x30\x03\x0a\x01"
        if verdict.failure is not None:
            return _failure(verdict.failure)
        produced = at.replace(microsecond=0) + (verdict.shift or -age)
        signer = self._signer(issuer, verdict)
        data = _der.sequence(
            _der.explicit(2, _der.octet_string(signer.key.key_id)),
            _der.generalized_time(produced),
            _der.sequence(_single(query, verdict, produced)),
            *self._nonce(query, verdict),
        )
        signature = signer.key.sign_der(data + b"\x00" if verdict.damage_signature else data)
        algorithm = _der.sequence(_der.oid("1.2.840.10045.4.3.3"))
        embedded = () if signer.der == b"" else (_der.explicit(0, _der.sequence(signer.der)),)
        basic = _der.sequence(data, algorithm, _der.bit_string(signature), *embedded)
        body = _der.sequence(_der.oid(_OID_BASIC), _der.octet_string(basic))
        return _der.sequence(_der.enumerated(0), _der.explicit(0, body))

    def _find(self, query: _Query) -> _Issuer | None:
        wanted = (query.name_hash, query.key_hash)
        for parts, issuer in self._issuers.items():
            if tuple(_digest(query.algorithm, part) for part in parts) == wanted:
                return issuer
        return None

    def _nonce(self, query: _Query, verdict: Verdict) -> tuple[bytes, ...]:
        value = query.nonce
        if value is None or verdict.nonce == "none":
            return ()
        if verdict.nonce == "other":
            value = _der.octet_string(self._keys.bytes("another OCSP nonce", 32))
        extension = _der.sequence(_der.oid(_OID_NONCE), _der.octet_string(value))
        return (_der.explicit(1, _der.sequence(extension)),)

    def _signer(self, issuer: _Issuer, verdict: Verdict) -> Certificate:
        if verdict.responder == "ocsp-by-issuer":
            # No certificate is embedded: the empty DER says so.
            return Certificate(
                der=b"", template=issuer.template, key=issuer.key, issuer=issuer.template, issuer_key=issuer.key
            )
        slot = (issuer.key.point, verdict.responder)
        if slot not in self._responders:
            self._responders[slot] = self._responder(issuer, verdict.responder)
        return self._responders[slot]

    def _responder(self, issuer: _Issuer, manner: str) -> Certificate:
        common_name = issuer.template.common_name
        label = f"OCSP responder {manner} {issuer.side.value} {common_name}"
        key = self._keys.key(label)
        issuer_template, issuer_key = issuer.template, issuer.key
        if manner == "wrong-responder":
            issuer_key = self._keys.key("another CA")
            issuer_template = replace(issuer.template, subject=name(("CN", "Another CA"), ("O", SIMULATION)))
        device = issuer.side is Side.DEVICE
        plain = device and issuer.top  # the responder below the device root: no basicConstraints, nothing critical
        purposes = ocsp_purposes(no_check_as_purpose=device)
        if manner == "responder-purpose":
            purposes = (ExtendedKeyUsageOID.CLIENT_AUTH,)
        begin, end = self._clock - 360 * _DAY, self._clock + 60 * _DAY
        template = Template(
            subject=name(("CN", f"NVIDIA OCSP Responder {common_name}"[:64]), ("O", SIMULATION), ("C", "US")),
            serial=self._keys.serial(label, 16),
            not_before=begin,
            not_after=self._clock - _DAY if manner == "responder-expired" else end,
            extensions=(
                *(() if plain else (basic_constraints(ca=False, critical=False),)),
                key_usage("digitalSignature", critical=not plain),
                extended_key_usage(*purposes, critical=not plain),
                *(() if device else (no_check(),)),
                ski(key),
                aki(issuer_key),
            ),
            generalized=not device,
        )
        return issue(template, key, issuer_template, issuer_key)


def _is_root(certificate: Certificate) -> bool:
    """Whether the issuer of this certificate is self-signed: its authority key is its own."""
    return aki(certificate.issuer_key) in certificate.issuer.extensions


def _single(query: _Query, verdict: Verdict, produced: datetime) -> bytes:
    serial = query.serial + 1 if verdict.other_serial else query.serial
    cert_id = _der.sequence(
        _der.sequence(_der.oid(_HASHES[query.algorithm]), _der.null()),
        _der.octet_string(query.name_hash),
        _der.octet_string(query.key_hash),
        _der.integer(serial),
    )
    if verdict.revoked is not None:
        reason = _REASONS.get(verdict.revoked.lower(), 0)
        info = _der.generalized_time(produced - 7 * _DAY) + _der.explicit(0, _der.enumerated(reason))
        status = _der.explicit(1, info)
    else:
        status = _der.implicit(2 if verdict.unknown else 0, b"")
    end = (_der.explicit(0, _der.generalized_time(produced + _DAY)),) if verdict.next_update else ()
    return _der.sequence(cert_id, status, _der.generalized_time(produced), *end)


def _failure(status: int) -> bytes:
    return _der.sequence(_der.enumerated(status))


def _digest(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def _read_request(data: bytes) -> _Query | None:
    """The CertID and the nonce of a request for one certificate; None for anything else."""
    try:
        request = ocsp.load_der_ocsp_request(data)
        algorithm = request.hash_algorithm.name
        nonces = [item.value for item in request.extensions if isinstance(item.value, x509.OCSPNonce)]
        query = _Query(
            algorithm=algorithm,
            name_hash=request.issuer_name_hash,
            key_hash=request.issuer_key_hash,
            serial=request.serial_number,
            nonce=_der.octet_string(nonces[0].nonce) if nonces else None,
        )
    except (ValueError, NotImplementedError, TypeError, x509.DuplicateExtension):
        return None
    return query if algorithm in _HASHES else None
