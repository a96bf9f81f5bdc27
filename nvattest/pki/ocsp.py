"""OCSP: ask about one certificate, and judge one answer (RFC 6960; nonce: RFC 9654). No network here.

Only an answer that is signed by the right responder, about the right certificate, within its window and with the nonce
that was sent (where it has one) is GOOD. Everything else has a status of its own.

A live answer is stamped by the responder's clock and judged by this machine's. A responder whose clock is up to
``RESPONDER_AHEAD`` ahead is tolerated, on that side only. Beyond that, one of the clocks is wrong. The answer is then
refused also where it echoes our nonce and so cannot be old: this machine's clock judges the certificates too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from nvattest._registry import OID_ECDSA_SHA384
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.model import Word, format_time
from nvattest.pki.certificate import LIBRARY_ERRORS, Certificate, parse_certificate
from nvattest.pki.ecdsa import EcdsaVerifier

MAX_RESPONSE_SIZE: Final = 64 * 1024
MAX_EMBEDDED_CERTIFICATES: Final = 8
# RFC 9654, 2.1.
MAX_NONCE_SIZE: Final = 128

RESPONDER_AHEAD: Final = timedelta(seconds=300)
"""How far a responder's clock may be ahead of the instant of judgement; OpenSSL's tools allow as much."""
# An answer without nextUpdate that echoes our nonce describes the moment of our question. Nothing signed says how long
# it holds, so that collateral which is kept in memory must be asked for again after this time.
_WITHOUT_END: Final = timedelta(hours=1)


class CertIdHash(Enum):
    """The hash that a CertID names its issuer with."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"

    def digest(self, data: bytes) -> bytes:
        # SHA-1 is an index here; the answer is bound to the issuer by its signature.
        return hashlib.new(self.value, data, usedforsecurity=False).digest()


_HASHES: Final = {member.value: member for member in CertIdHash}


class RevocationStatus(Word):
    """The revocation status of one certificate, or why it is not known. Only GOOD is good."""

    GOOD = "good"
    REVOKED = "revoked"
    ON_HOLD = "on-hold"
    UNKNOWN = "unknown"
    STALE = "stale"
    NOT_YET_VALID = "not-yet-valid"
    BAD_SIGNATURE = "bad-signature"
    BAD_RESPONDER = "bad-responder"
    WRONG_CERTIFICATE = "wrong-certificate"
    NONCE_MISMATCH = "nonce-mismatch"
    MALFORMED = "malformed"
    RESPONDER_ERROR = "responder-error"
    UNREACHABLE = "unreachable"
    NO_ANSWER = "no-answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspResponse:
    """One parsed answer; ``check_revocation`` judges it.

    Unless ``responder_status`` is ``successful``, the fields below it are empty.
    ``status`` is GOOD, REVOKED, ON_HOLD or UNKNOWN; ``reason`` an RFC 5280 name. ``hash_algorithm`` is None where the
    CertID uses a hash that is not supported.
    """

    der: bytes
    sha256: bytes = field(compare=False)
    responder_status: str
    hash_algorithm: CertIdHash | None = None
    issuer_name_hash: bytes = b""
    issuer_key_hash: bytes = b""
    serial: int | None = None
    status: RevocationStatus | None = None
    reason: str | None = None
    revoked_at: datetime | None = None
    produced_at: datetime | None = None
    this_update: datetime | None = None
    next_update: datetime | None = None
    nonce: bytes | None = None
    responder_name_der: bytes | None = None
    responder_key_hash: bytes | None = None
    unknown_critical: tuple[str, ...] = ()
    signature_algorithm_oid: str = ""
    tbs: bytes = b""
    signature: bytes = b""
    certificates: tuple[Certificate, ...] = ()

    @property
    def successful(self) -> bool:
        """Whether the responder answered at all."""
        return self.responder_status == "successful"

    @property
    def key(self) -> str | None:
        """The key of the CertID, the same as ``cert_id_key`` makes for the certificate; None if it has none."""
        if self.hash_algorithm is None or self.serial is None:
            return None
        return cert_id_digest(self.hash_algorithm, self.issuer_name_hash, self.issuer_key_hash, self.serial)


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


def build_ocsp_request(
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
    name, key, algorithm = hash.digest(certificate.issuer_der), hash.digest(issuer.key_bits), getattr(hashes, hash.name)
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name, key, certificate.serial, algorithm())
    if nonce is not None:
        if not 1 <= len(nonce) <= MAX_NONCE_SIZE:
            wrong = f"an OCSP nonce has 1 to {MAX_NONCE_SIZE} bytes; this one has {len(nonce)}"
            raise InputError(wrong, code="ocsp-nonce")
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(serialization.Encoding.DER)


def cert_id_key(
    certificate: Certificate,
    issuer: Certificate,
    hash: CertIdHash = CertIdHash.SHA384,  # noqa: A002 - the word of the standard
) -> str:
    """A stable key for caches: 64 hexadecimal digits made from the CertID (hash, issuer name and key, serial)."""
    return cert_id_digest(hash, hash.digest(certificate.issuer_der), hash.digest(issuer.key_bits), certificate.serial)


def cert_id_digest(algorithm: CertIdHash, name_hash: bytes, key_hash: bytes, serial: int) -> str:
    """A digest that names the parts of a CertID."""
    # The hash fixes the lengths of the two digests, so that bytes cannot move from one part to the next.
    text = f"{algorithm.value}:{name_hash.hex()}:{key_hash.hex()}:{serial:x}"
    return hashlib.sha256(text.encode()).hexdigest()


def parse_ocsp_response(der: bytes, *, parse: Callable[[bytes], Certificate] = parse_certificate) -> OcspResponse:
    """Read an OCSPResponse with exactly one SingleResponse: each request asks about one certificate.

    ``parse`` is for callers that cache certificates; it must give what ``parse_certificate`` gives.

    Raises:
        ParseError: over 64 KiB, malformed, another number of answers, or more than 8 certificates (result code 201).
    """
    if len(der) > MAX_RESPONSE_SIZE:
        raise _malformed(f"{len(der)} bytes, at most {MAX_RESPONSE_SIZE} are allowed")
    try:
        return _read(der, parse)
    except LIBRARY_ERRORS as error:
        raise _malformed(f"not a readable answer: {error}") from error


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
            response = parse_ocsp_response(response)
        except ParseError as error:
            return Revocation(status=RevocationStatus.MALFORMED, detail=error.message, certificate_serial=serial)
    outcome = NonceOutcome.MATCH if nonce == response.nonce else NonceOutcome.MISMATCH
    if nonce is None or response.nonce is None:
        outcome = NonceOutcome.NOT_SENT if nonce is None else NonceOutcome.ABSENT
    judged = Revocation(
        RevocationStatus.MALFORMED,
        "",
        serial,
        this_update=response.this_update,
        next_update=response.next_update,
        produced_at=response.produced_at,
        nonce=outcome,
        response_sha256=response.sha256,
    )
    # 2. The responder answered.
    if not response.successful:
        said = f"the responder says {response.responder_status}"
        return judged._replace(status=RevocationStatus.RESPONDER_ERROR, detail=said)
    if response.unknown_critical:
        unknown = ", ".join(response.unknown_critical)
        return judged._replace(detail=f"critical extension not understood: {unknown}")
    # 3. It is about this certificate of this issuer.
    if wrong := _why_wrong_certificate(response, certificate, issuer):
        return judged._replace(status=RevocationStatus.WRONG_CERTIFICATE, detail=wrong)
    # 4. The signer may speak for this issuer.
    signer, fault = _signer(response, issuer, at, verifier)
    if signer is None:
        return judged._replace(status=RevocationStatus.BAD_RESPONDER, detail=fault)
    # 5. The signer signed it.
    judged = judged._replace(status=RevocationStatus.BAD_SIGNATURE, responder=signer.subject)
    if response.signature_algorithm_oid != OID_ECDSA_SHA384:
        return judged._replace(detail=f"signed with {response.signature_algorithm_oid}, expected {OID_ECDSA_SHA384}")
    if not verifier.verify_der(signer.spki_der, response.signature, response.tbs):
        return judged._replace(detail=f"not signed by the responder {signer.label}")
    # 6. The window, 7. the nonce, 8. what it says.
    timing, why = _window(response, at, outcome)
    status, detail = _conclude(response, timing, why, outcome)
    return judged._replace(
        status=status, detail=detail, reason=response.reason, signature_valid=True, in_window=timing is None
    )


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
            made = f"made at {format_time(produced)}, checked at {format_time(at)}"
            return RevocationStatus.STALE, f"the answer has no nextUpdate and was {made}"
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
        if timing is not None:
            held += f", by an answer that is not current: {why}"
        elif outcome is NonceOutcome.MISMATCH:
            held += f", by an answer that is not current: {other_nonce}"
        return RevocationStatus.ON_HOLD, held
    if response.status is not RevocationStatus.GOOD:
        return RevocationStatus.UNKNOWN, "the responder does not know the certificate"
    if timing is not None:
        return timing, why
    if outcome is NonceOutcome.MISMATCH:
        return RevocationStatus.NONCE_MISMATCH, other_nonce
    return RevocationStatus.GOOD, "good"


# --- reading an answer ------------------------------------------------------------------------------------------------


def _read(der: bytes, parse: Callable[[bytes], Certificate]) -> OcspResponse:
    parsed = ocsp.load_der_ocsp_response(der)
    sha256 = hashlib.sha256(der).digest()
    # As RFC 6960, 4.2.1 writes it: tryLater.
    first, *others = parsed.response_status.name.lower().split("_")
    responder_status = first + "".join(map(str.title, others))
    if parsed.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return OcspResponse(der=der, sha256=sha256, responder_status=responder_status)
    answers = list(parsed.responses)
    if len(answers) != 1:
        raise _malformed(f"{len(answers)} answers, exactly one is expected")
    embedded = parsed.certificates
    if len(embedded) > MAX_EMBEDDED_CERTIFICATES:
        raise _malformed(f"{len(embedded)} certificates, at most {MAX_EMBEDDED_CERTIFICATES} are allowed")
    answer = answers[0]
    nonce: bytes | None = None
    unknown_critical = [e.oid.dotted_string for e in parsed.single_extensions if e.critical]
    for extension in parsed.extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            nonce = extension.value.nonce
        elif extension.critical:
            unknown_critical.append(extension.oid.dotted_string)
    if nonce is not None and len(nonce) > MAX_NONCE_SIZE:
        raise _malformed(f"a nonce of {len(nonce)} bytes, at most {MAX_NONCE_SIZE} are allowed")
    # DER has no spare bits after an ECDSA signature; the library reads past them, and no signature covers the octet.
    if len(parsed.signature) < 127 and bytes((0x03, len(parsed.signature) + 1, 0)) + parsed.signature not in der:
        raise _malformed("the signature is not a whole number of octets")
    status, reason = _status(answer)
    return OcspResponse(
        der=der,
        sha256=sha256,
        responder_status=responder_status,
        hash_algorithm=_HASHES.get(answer.hash_algorithm.name),
        issuer_name_hash=answer.issuer_name_hash,
        issuer_key_hash=answer.issuer_key_hash,
        serial=answer.serial_number,
        status=status,
        reason=reason,
        revoked_at=answer.revocation_time_utc,
        produced_at=parsed.produced_at_utc,
        this_update=answer.this_update_utc,
        next_update=answer.next_update_utc,
        nonce=nonce,
        responder_name_der=None if parsed.responder_name is None else parsed.responder_name.public_bytes(),
        responder_key_hash=parsed.responder_key_hash,
        unknown_critical=tuple(unknown_critical),
        signature_algorithm_oid=parsed.signature_algorithm_oid.dotted_string,
        tbs=parsed.tbs_response_bytes,
        signature=parsed.signature,
        certificates=tuple(parse(c.public_bytes(serialization.Encoding.DER)) for c in embedded),
    )


def _status(answer: ocsp.OCSPSingleResponse) -> tuple[RevocationStatus, str | None]:
    if answer.certificate_status is ocsp.OCSPCertStatus.GOOD:
        return RevocationStatus.GOOD, None
    if answer.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        reason = answer.revocation_reason
        if reason is x509.ReasonFlags.certificate_hold:
            return RevocationStatus.ON_HOLD, reason.value
        return RevocationStatus.REVOKED, None if reason is None else reason.value
    return RevocationStatus.UNKNOWN, None


def _malformed(message: str) -> ParseError:
    return ParseError(message, source="OCSP response", code="ocsp", result_code=ResultCode.OCSP_INVALID_RESPONSE)
