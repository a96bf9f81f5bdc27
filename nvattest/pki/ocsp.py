"""OCSP: ask about one certificate, and judge one answer (RFC 6960; nonce: RFC 9654). No network here.

Only an answer that is signed by the right responder, about the right certificate, within its window and with the nonce
that was sent (where it has one) is GOOD. Everything else has a status of its own.

A live answer is stamped by the responder's clock and judged by this machine's. A responder whose clock is up to
``RESPONDER_AHEAD`` ahead is tolerated, on that side only. Beyond that, one of the clocks is wrong. The answer is then
refused also where it echoes our nonce and so cannot be old: this machine's clock judges the certificates too.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from nvattest._registry import OID_ECDSA_SHA384
from nvattest.errors import InputError, ParseError
from nvattest.model import format_time
from nvattest.pki._ocsp_response import (
    MAX_NONCE_SIZE,
    CertIdHash,
    OcspResponse,
    RevocationStatus,
    cert_id_digest,
    parse_response,
)
from nvattest.pki.certificate import Certificate
from nvattest.pki.ecdsa import EcdsaVerifier

__all__ = [
    "RESPONDER_AHEAD",
    "CertIdHash",
    "NonceOutcome",
    "OcspResponse",
    "Revocation",
    "RevocationStatus",
    "build_request",
    "cert_id_key",
    "check_revocation",
    "parse_response",
]

RESPONDER_AHEAD: Final = timedelta(seconds=300)
"""How far a responder's clock may be ahead of the instant of judgement; OpenSSL's tools allow as much."""
# An answer without nextUpdate that echoes our nonce describes the moment of our question. Nothing signed says how long
# it holds, so that collateral which is kept in memory must be asked for again after this time.
_WITHOUT_END: Final = timedelta(hours=1)


class NonceOutcome(Enum):
    """How the nonce of the answer relates to the one of the request. Many responders answer without one."""

    MATCH = "match"
    MISMATCH = "mismatch"
    ABSENT = "absent"
    NOT_SENT = "not-sent"


class Revocation(NamedTuple):
    """The judgement on one answer about one certificate; ``detail`` says it in words.

    ``signature_valid`` and ``in_window`` are False wherever they could not be established. ``response_sha256`` names
    the answer, None if there was none.
    """

    status: RevocationStatus
    detail: str
    certificate_serial: int
    reason: str | None = None
    this_update: datetime | None = None
    next_update: datetime | None = None
    produced_at: datetime | None = None
    responder: str | None = None
    nonce: NonceOutcome = NonceOutcome.NOT_SENT
    signature_valid: bool = False
    in_window: bool = False
    response_sha256: bytes | None = None

    @property
    def current(self) -> bool:
        """Whether it is signed, in its window and not for another nonce: whether it can be relied on now."""
        return self.in_window and self.nonce is not NonceOutcome.MISMATCH


def build_request(
    certificate: Certificate,
    issuer: Certificate,
    *,
    nonce: bytes | None,
    hash: CertIdHash = CertIdHash.SHA384,  # noqa: A002 - the word of the standard
) -> bytes:
    """The DER of an OCSPRequest for one certificate (RFC 6960, 4.1).

    Raises:
        InputError: a nonce that does not have 1 to 128 bytes (RFC 9654, 2.1).
    """
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        hash.digest(certificate.issuer_der), hash.digest(issuer.key_bits), certificate.serial, _LIBRARY_HASHES[hash]
    )
    if nonce is not None:
        if not 1 <= len(nonce) <= MAX_NONCE_SIZE:
            raise InputError(
                f"an OCSP nonce has 1 to {MAX_NONCE_SIZE} bytes; this one has {len(nonce)}", code="ocsp-nonce"
            )
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(serialization.Encoding.DER)


def cert_id_key(
    certificate: Certificate,
    issuer: Certificate,
    hash: CertIdHash = CertIdHash.SHA384,  # noqa: A002 - the word of the standard
) -> str:
    """A stable key for caches: 64 hexadecimal digits made from the CertID (hash, issuer name and key, serial)."""
    return cert_id_digest(hash, hash.digest(certificate.issuer_der), hash.digest(issuer.key_bits), certificate.serial)


def check_revocation(
    response: OcspResponse | bytes,
    *,
    certificate: Certificate,
    issuer: Certificate,
    at: datetime,
    nonce: bytes | None,
    verifier: EcdsaVerifier,
) -> Revocation:
    """Judge an answer about ``certificate`` at the instant ``at`` (aware). ``issuer`` must be validated by the caller.

    ``at`` has to be read after the answer came, ``nonce`` is that of the request. An answer that says revoked, on hold
    or unknown keeps that status though it be stale or carry another nonce: being old never makes a certificate better.
    So STALE, NOT_YET_VALID and NONCE_MISMATCH always mean a properly signed "good" that cannot be relied on now;
    ``current`` says the same of the others.

    Raises:
        InputError: ``at`` has no time zone. A bad answer raises nothing.
    """
    if at.tzinfo is None:
        raise InputError("the time of a revocation check has no time zone", code="time-zone")
    serial = certificate.serial
    # 1. It can be read.
    if isinstance(response, bytes):
        try:
            response = parse_response(response)
        except ParseError as error:
            return Revocation(status=RevocationStatus.MALFORMED, detail=error.message, certificate_serial=serial)
    outcome = _nonce_outcome(nonce, response.nonce)

    def judge(
        status: RevocationStatus,
        detail: str,
        *,
        responder: str | None = None,
        signature_valid: bool = False,
        in_window: bool = False,
    ) -> Revocation:
        return Revocation(
            status=status,
            detail=detail,
            certificate_serial=serial,
            reason=response.reason if signature_valid else None,
            this_update=response.this_update,
            next_update=response.next_update,
            produced_at=response.produced_at,
            responder=responder,
            nonce=outcome,
            signature_valid=signature_valid,
            in_window=in_window,
            response_sha256=response.sha256,
        )

    # 2. The responder answered.
    if not response.successful:
        return judge(RevocationStatus.RESPONDER_ERROR, f"the responder says {response.responder_status}")
    if response.unknown_critical:
        return judge(
            RevocationStatus.MALFORMED, f"critical extension not understood: {', '.join(response.unknown_critical)}"
        )
    # 3. It is about this certificate of this issuer.
    wrong = _why_wrong_certificate(response, certificate, issuer)
    if wrong:
        return judge(RevocationStatus.WRONG_CERTIFICATE, wrong)
    # 4. The signer may speak for this issuer.
    signer, fault = _signer(response, issuer, at, verifier)
    if signer is None:
        return judge(RevocationStatus.BAD_RESPONDER, fault)
    # 5. The signer signed it.
    if response.signature_algorithm_oid != OID_ECDSA_SHA384:
        return judge(
            RevocationStatus.BAD_SIGNATURE,
            f"signed with {response.signature_algorithm_oid}, expected {OID_ECDSA_SHA384}",
            responder=signer.subject,
        )
    if not verifier.verify_der(signer.spki_der, response.signature, response.tbs):
        return judge(
            RevocationStatus.BAD_SIGNATURE, f"not signed by the responder {signer.label}", responder=signer.subject
        )
    # 6. The window, 7. the nonce, 8. what it says.
    timing, why = _window(response, at, outcome)
    status, detail = _conclude(response, timing, why, outcome)
    return judge(status, detail, responder=signer.subject, signature_valid=True, in_window=timing is None)


_LIBRARY_HASHES: Final[dict[CertIdHash, hashes.SHA1 | hashes.SHA256 | hashes.SHA384]] = {
    CertIdHash.SHA1: hashes.SHA1(),  # noqa: S303 - see CertIdHash.digest
    CertIdHash.SHA256: hashes.SHA256(),
    CertIdHash.SHA384: hashes.SHA384(),
}


def _why_wrong_certificate(response: OcspResponse, certificate: Certificate, issuer: Certificate) -> str:
    algorithm = response.hash_algorithm
    if algorithm is None:
        return "the CertID uses a hash that is not supported"
    if certificate.issuer_der != issuer.subject_der:
        return f"{issuer.label} is not the issuer of {certificate.label}"
    if response.issuer_name_hash != algorithm.digest(issuer.subject_der):
        return f"the answer is about another issuer than {issuer.label} (name hash)"
    if response.issuer_key_hash != algorithm.digest(issuer.key_bits):
        return f"the answer is about another issuer than {issuer.label} (key hash)"
    if response.serial != certificate.serial:
        return f"the answer is about serial {response.serial:x}, asked was {certificate.serial:x}"
    return ""


def _names(response: OcspResponse, candidate: Certificate) -> bool:
    """Whether the ResponderID of the answer names this certificate (RFC 6960, 4.2.1: SHA-1 of the key, or the name)."""
    if response.responder_key_hash is not None:
        return response.responder_key_hash == CertIdHash.SHA1.digest(candidate.key_bits)
    return response.responder_name_der == candidate.subject_der


def _signer(
    response: OcspResponse, issuer: Certificate, at: datetime, verifier: EcdsaVerifier
) -> tuple[Certificate | None, str]:
    """The issuer itself, or a certificate it issued directly for signing answers (RFC 6960, 4.2.2.2); else why not."""
    if _names(response, issuer):
        return issuer, ""
    fault = "the responder that the answer names is neither the issuer nor among the certificates in the answer"
    for candidate in response.certificates:
        if _names(response, candidate):
            reason = _why_no_responder(candidate, issuer, at, verifier)
            if not reason:
                return candidate, ""
            fault = f"the responder {candidate.label} {reason}"
    return None, fault


def _why_no_responder(candidate: Certificate, issuer: Certificate, at: datetime, verifier: EcdsaVerifier) -> str:
    if not candidate.is_p384 or not candidate.is_ecdsa_sha384:
        return "does not use P-384 with ECDSA and SHA-384"
    if candidate.issuer_der != issuer.subject_der:
        return f"was not issued by {issuer.label} but by {candidate.issuer}"
    if not verifier.verify_der(issuer.spki_der, candidate.signature, candidate.tbs, sha256=candidate.sha256):
        return f"was not signed by {issuer.label}"
    # NVIDIA's responders have extendedKeyUsage critical or not, and id-pkix-ocsp-nocheck as an extension or as a usage.
    if not candidate.ocsp_signing:
        return "is not allowed to sign OCSP answers"
    if candidate.is_ca:
        return "is a CA"
    if candidate.digital_signature is False:
        return "may not sign data"
    if candidate.unknown_critical:
        return f"has critical extensions that are not understood: {', '.join(candidate.unknown_critical)}"
    instant = at.replace(microsecond=0)
    if instant < candidate.not_before:
        return f"is not valid before {format_time(candidate.not_before)}, checked at {format_time(at)}"
    if instant > candidate.not_after:
        return f"expired at {format_time(candidate.not_after)}, checked at {format_time(at)}"
    return ""


def _window(response: OcspResponse, at: datetime, nonce: NonceOutcome) -> tuple[RevocationStatus | None, str]:
    """None where ``at`` lies within the window of the answer, both ends included."""
    this, following, produced = response.this_update, response.next_update, response.produced_at
    if this is None or produced is None:
        return RevocationStatus.STALE, "the answer does not say when it was made"
    instant = at.replace(microsecond=0)
    latest = max(this, produced)
    # Differences cannot overflow where sums at the ends of the calendar would.
    ahead = latest - instant
    if ahead > RESPONDER_AHEAD:
        return RevocationStatus.NOT_YET_VALID, _clocks_differ(latest, at, ahead, nonce)
    if following is None:
        if nonce is not NonceOutcome.MATCH:
            return RevocationStatus.STALE, "the answer has no nextUpdate and no nonce of ours: it may be of any age"
        if instant - produced > _WITHOUT_END:
            return (
                RevocationStatus.STALE,
                f"the answer has no nextUpdate and was made at {format_time(produced)}, checked at {format_time(at)}",
            )
        return None, ""
    if following < this or instant > following:
        return RevocationStatus.STALE, f"the answer ended at {format_time(following)}, checked at {format_time(at)}"
    return None, ""


def _clocks_differ(latest: datetime, at: datetime, ahead: timedelta, nonce: NonceOutcome) -> str:
    seconds = int(ahead.total_seconds())
    made = (
        "the answer echoes our nonce, so it was made after our request; the responder's clock says"
        if nonce is NonceOutcome.MATCH
        else "the answer is from the future: the responder's clock said"
    )
    return (
        f"{made} {format_time(latest)}, {seconds} s after the clock of this verification ({format_time(at)}); "
        f"at most {RESPONDER_AHEAD.total_seconds():.0f} s are tolerated"
    )


def _conclude(
    response: OcspResponse, timing: RevocationStatus | None, why: str, outcome: NonceOutcome
) -> tuple[RevocationStatus, str]:
    other_nonce = "the answer carries another nonce than the request"
    if response.status is RevocationStatus.REVOKED:
        when = "" if response.revoked_at is None else f" at {format_time(response.revoked_at)}"
        return RevocationStatus.REVOKED, f"revoked{when}, reason {response.reason or 'not given'}"
    if response.status is RevocationStatus.ON_HOLD:
        held = "revoked for the time being (certificateHold)"
        doubt = why if timing is not None else other_nonce if outcome is NonceOutcome.MISMATCH else ""
        return RevocationStatus.ON_HOLD, f"{held}, by an answer that is not current: {doubt}" if doubt else held
    if response.status is not RevocationStatus.GOOD:
        return RevocationStatus.UNKNOWN, "the responder does not know the certificate"
    if timing is not None:
        return timing, why
    if outcome is NonceOutcome.MISMATCH:
        return RevocationStatus.NONCE_MISMATCH, other_nonce
    return RevocationStatus.GOOD, "good"


def _nonce_outcome(sent: bytes | None, received: bytes | None) -> NonceOutcome:
    if sent is None:
        return NonceOutcome.NOT_SENT
    if received is None:
        return NonceOutcome.ABSENT
    return NonceOutcome.MATCH if sent == received else NonceOutcome.MISMATCH
