"""OCSP answers, parsed and not believed (RFC 6960, 4.2). ``ocsp.check_revocation`` judges them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp

from nvattest.errors import ParseError, ResultCode
from nvattest.pki.certificate import LIBRARY_ERRORS, Certificate, parse_certificate

MAX_RESPONSE_SIZE: Final = 64 * 1024
MAX_EMBEDDED_CERTIFICATES: Final = 8
# RFC 9654, 2.1.
MAX_NONCE_SIZE: Final = 128


class CertIdHash(Enum):
    """The hash that a CertID names its issuer with."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"

    def digest(self, data: bytes) -> bytes:
        """The digest of ``data``."""
        # SHA-1 is an index here; the answer is bound to the issuer by its signature.
        return hashlib.new(self.value, data, usedforsecurity=False).digest()


class RevocationStatus(Enum):
    """What is known about the revocation of one certificate. Only GOOD is good."""

    # Members are singletons; Enum's own hash would ask Python code for each look-up.
    __hash__ = object.__hash__

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
    """One parsed answer, not believed. Unless ``responder_status`` is ``successful``, the fields below it are empty.

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


def parse_response(der: bytes, *, parse: Callable[[bytes], Certificate] = parse_certificate) -> OcspResponse:
    """Read an OCSPResponse with exactly one SingleResponse: one certificate is asked about, so one answer is read.

    ``parse`` is for callers that remember the certificates of responders; it is ``parse_certificate`` in all but speed.

    Raises:
        ParseError: over 64 KiB, malformed, another number of answers, or more than 8 certificates (result code 201).
    """
    if len(der) > MAX_RESPONSE_SIZE:
        raise _malformed(f"{len(der)} bytes, at most {MAX_RESPONSE_SIZE} are allowed")
    try:
        return _read(der, parse)
    except LIBRARY_ERRORS as error:
        raise _malformed(f"not a readable answer: {error}") from error


def cert_id_digest(algorithm: CertIdHash, name_hash: bytes, key_hash: bytes, serial: int) -> str:
    """One stable text for the parts of a CertID."""
    # The hash name fixes the lengths of the two digests, so that the parts cannot be shifted.
    text = f"{algorithm.value}:{name_hash.hex()}:{key_hash.hex()}:{serial:x}"
    return hashlib.sha256(text.encode()).hexdigest()


_CERT_ID_HASHES: Final = {member.value: member for member in CertIdHash}
_RESPONDER_STATUS: Final = {
    ocsp.OCSPResponseStatus.SUCCESSFUL: "successful",
    ocsp.OCSPResponseStatus.MALFORMED_REQUEST: "malformedRequest",
    ocsp.OCSPResponseStatus.INTERNAL_ERROR: "internalError",
    ocsp.OCSPResponseStatus.TRY_LATER: "tryLater",
    ocsp.OCSPResponseStatus.SIG_REQUIRED: "sigRequired",
    ocsp.OCSPResponseStatus.UNAUTHORIZED: "unauthorized",
}


def _read(der: bytes, parse: Callable[[bytes], Certificate]) -> OcspResponse:
    parsed = ocsp.load_der_ocsp_response(der)
    sha256 = hashlib.sha256(der).digest()
    responder_status = _RESPONDER_STATUS[parsed.response_status]
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
        hash_algorithm=_CERT_ID_HASHES.get(answer.hash_algorithm.name),
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
