"""Certificate chains of token keys (``x5c``, RFC 7515, 4.1.6), validated to anchors that the caller gives.

These chains are not those of devices: NVIDIA's service signs with short-lived P-384 leaves under an RSA or ECDSA
intermediate. Checked are signatures, order, names, validity, CA flags, path lengths and unknown critical extensions
(RFC 5280, 6.1); revocation is not.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from nvattest._documents import kind_of
from nvattest.errors import InputError, ParseError, ResultCode, TokenError
from nvattest.model import format_time
from nvattest.pki.certificate import Certificate, parse_certificate, parse_pem_chain
from nvattest.token.jws import refuse
from nvattest.token.keys import PublicKey

MAXIMUM_CHAIN: Final = 8
_MAXIMUM_TEXT = 32 * 1024
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_RSA_BITS = 2048


def parse_anchors(pem: bytes) -> tuple[Certificate, ...]:
    """The anchors for ``x5c`` chains: 1 to 16 certificates, roots or pinned intermediates.

    Raises:
        InputError: not such a text (ParseError).
    """
    return parse_pem_chain(pem, maximum=16)


def parse_x5c(value: object, *, what: str) -> tuple[Certificate, ...]:
    """Read an ``x5c`` member: an array of 1 to 8 certificates, standard base64 of DER, leaf first.

    Raises:
        TokenError: it is not such an array (code ``x5c``).
    """
    if not isinstance(value, list) or not 0 < len(value) <= MAXIMUM_CHAIN:
        raise _broken(f"{what}: x5c is {kind_of(value)}, expected an array of 1 to {MAXIMUM_CHAIN} certificates")
    found: list[Certificate] = []
    for position, text in enumerate(value):
        if not isinstance(text, str) or len(text) > _MAXIMUM_TEXT:
            raise _broken(f"{what}: x5c[{position}] is not a text of at most {_MAXIMUM_TEXT} characters")
        try:
            found.append(parse_certificate(base64.b64decode(text, validate=True)))
        except ParseError as error:
            raise _broken(f"{what}: x5c[{position}]: {error.message}") from None
        except ValueError:
            raise _broken(f"{what}: x5c[{position}] is not base64") from None
    return tuple(found)


def leaf_key(chain: tuple[Certificate, ...], *, what: str) -> PublicKey:
    """The public key of the chain's leaf.

    Raises:
        TokenError: it is not on P-384 (code ``key-type``).
    """
    try:
        return PublicKey.of(_native(chain[0]).public_key())
    except (InputError, ValueError, UnsupportedAlgorithm) as error:
        raise refuse(f"{what}: x5c[0]: {error}", "key-type", result_code=ResultCode.VERIFIER_JWKS_ERROR) from None


def validate_x5c(chain: tuple[Certificate, ...], anchors: tuple[Certificate, ...], *, at: datetime, what: str) -> None:
    """Validate a chain up to one of the anchors.

    Raises:
        TokenError: it does not lead there, or a certificate on the way must not be used (code ``x5c-chain``).
    """
    leaf = chain[0]
    # NVIDIA's service has leaves for TLS; what must not pass is the key of an OCSP responder below the same root.
    if leaf.is_ca or leaf.digital_signature is False or leaf.ocsp_signing:
        raise _broken(f"{what}: {leaf.label} is not a certificate for signing tokens", code="x5c-chain")
    for position, certificate in enumerate(chain):
        _check_certificate(certificate, at, what)
        if position:
            _check_issuer(certificate, position - 1, what)
        if certificate in anchors:
            return
        if position + 1 < len(chain) and not _issued(certificate, chain[position + 1]):
            raise _broken(
                f"{what}: {certificate.label} was not issued by {chain[position + 1].label}", code="x5c-chain"
            )
    last = chain[-1]
    for anchor in anchors:
        if _issued(last, anchor):
            _check_certificate(anchor, at, what)
            _check_issuer(anchor, len(chain) - 1, what)
            return
    raise _broken(
        f"{what}: the chain ends at {last.label}, issued by {last.issuer}, which is none of the anchors",
        code="x5c-chain",
        hint="give the root that the issuer of the token publishes",
    )


def _check_certificate(certificate: Certificate, at: datetime, what: str) -> None:
    if not certificate.not_before <= at <= certificate.not_after:
        raise _broken(
            f"{what}: {certificate.label} is valid from {format_time(certificate.not_before)} to "
            f"{format_time(certificate.not_after)}, not at {format_time(at)}",
            code="x5c-chain",
        )
    if certificate.unknown_critical:
        raise _broken(
            f"{what}: {certificate.label} has unknown critical extensions {certificate.unknown_critical}",
            code="x5c-chain",
        )


def _check_issuer(certificate: Certificate, intermediates_below: int, what: str) -> None:
    if not certificate.is_ca or certificate.key_cert_sign is False:
        raise _broken(f"{what}: {certificate.label} is not a CA", code="x5c-chain")
    if certificate.path_length is not None and intermediates_below > certificate.path_length:
        raise _broken(f"{what}: the chain is longer than {certificate.label} allows", code="x5c-chain")


def _issued(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        child, parent = _native(certificate), _native(issuer)
        key = parent.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA_BITS:
            return False
        if not isinstance(child.signature_hash_algorithm, _HASHES):
            return False
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _native(certificate: Certificate) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate.der)


def _broken(message: str, *, code: str = "x5c", hint: str = "") -> TokenError:
    return refuse(message, code, hint=hint, result_code=ResultCode.CERT_CHAIN_VERIFICATION_FAILURE)
