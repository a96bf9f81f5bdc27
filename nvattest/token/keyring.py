"""The keys that a relying party trusts for tokens: a JWKS, one public key, or anchors for certificate chains.

Chains of token keys (``x5c``, RFC 7515, 4.1.6) are not those of devices: NVIDIA's service signs with short-lived P-384
leaves under an RSA or ECDSA intermediate. Checked are signatures, order, names, validity, CA flags, path lengths and
unknown critical extensions (RFC 5280, 6.1); revocation is not.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from nvattest._documents import kind_of, load_json
from nvattest._text import base64_bytes
from nvattest.errors import InputError, ParseError, ResultCode, TokenError
from nvattest.model import format_time
from nvattest.pki.certificate import Certificate, parse_certificate, parse_pem_chain
from nvattest.token.jws import Jws, refuse
from nvattest.token.keys import ALGORITHM, PublicKey

MAXIMUM_JWKS: Final = 1024 * 1024
MAXIMUM_KEYS: Final = 256
MAXIMUM_CHAIN: Final = 8
MAXIMUM_ANCHORS: Final = 16
_MAXIMUM_TEXT = 32 * 1024
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_RSA_BITS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Who may have signed a token: a JWKS, or one key, or anchors; anchors can also go with a JWKS.

    ``jwks``: the key is found by ``kid``; an entry's ``x5c`` is validated if there are anchors. ``key``: this one, the
    ``kid`` does not matter. ``anchors`` alone: the token's own ``x5c`` header, validated to them. ``url`` is where the
    caller fetched the JWKS, if it did.
    """

    jwks: Mapping[str, Mapping[str, object]] | None = None
    key: PublicKey | None = None
    anchors: tuple[Certificate, ...] = ()
    url: str | None = None

    @classmethod
    def make(
        cls,
        *,
        jwks: bytes | str | Mapping[str, object] | None = None,
        key: bytes | str | PublicKey | None = None,
        x5c_roots: bytes | str | None = None,
        url: str | None = None,
    ) -> Keyring:
        """From what a caller has: a JWKS (JSON text or object) and its URL, a public key in PEM, anchors in PEM.

        Raises:
            InputError: unreadable, or a key beside one of the others.
        """
        if key is not None and (jwks is not None or x5c_roots is not None):
            raise InputError(
                "a bare key excludes a JWKS and anchors: it has no kid and no certificate chain", code="keys"
            )
        return cls(
            jwks=parse_jwks(jwks) if jwks is not None else None,
            key=key if key is None or isinstance(key, PublicKey) else PublicKey.from_pem(_pem(key)),
            anchors=parse_pem_chain(_pem(x5c_roots), maximum=MAXIMUM_ANCHORS) if x5c_roots is not None else (),
            url=url if jwks is not None else None,
        )

    @property
    def source(self) -> str:
        """How the keys were got, in words."""
        if self.key is not None:
            return "public key that the caller named"
        if self.jwks is None:
            return "certificates in the token, validated to roots that the caller named"
        validated = ", its certificates validated to roots that the caller named" * bool(self.anchors)
        if self.url is None:
            return f"key set that the caller gave{validated}"
        transport = "over TLS" if self.url.startswith("https://") else "without TLS"
        return f"key set fetched from {self.url} {transport}{validated}"

    def key_for(self, token: Jws, *, at: datetime) -> PublicKey:
        """The key that has to have signed this token.

        Raises:
            TokenError: ``key-missing``, ``kid-missing``, ``kid-unknown``, ``key-mismatch``, ``key-type``, ``x5c``,
                ``x5c-chain``.
        """
        if self.key is not None:
            return self.key
        if self.jwks is not None:
            return self._from_jwks(token, self.jwks, at)
        if not self.anchors:
            raise refuse(
                "there is no key to verify the token with",
                "key-missing",
                hint="give the issuer's JWKS, its public key, or anchors for its certificates; --nras-url fetches the "
                "JWKS of an attestation service",
                result_code=ResultCode.CERT_NOT_FOUND,
            )
        if "x5c" not in token.header:
            raise refuse(
                f"{token.what} has no x5c header, and only anchors were given",
                "key-missing",
                result_code=ResultCode.CERT_NOT_FOUND,
            )
        chain = parse_x5c(token.header["x5c"], what=token.what)
        validate_x5c(chain, self.anchors, at=at, what=token.what)
        return leaf_key(chain, what=token.what)

    def _from_jwks(self, token: Jws, jwks: Mapping[str, Mapping[str, object]], at: datetime) -> PublicKey:
        if token.kid is None:
            raise refuse(f"{token.what} does not say which key signed it (kid)", "kid-missing")
        entry = jwks.get(token.kid)
        if entry is None:
            raise refuse(
                f"{token.what} is signed by the key {token.kid!r}, which the JWKS does not have",
                "kid-unknown",
                hint="fetch the JWKS again: the key is of another issuer, or was rotated",
                result_code=ResultCode.CERT_NOT_FOUND,
            )
        return _key_of(entry, self.anchors, at, f"JWKS key {token.kid!r}")


def _pem(value: object) -> bytes:
    if isinstance(value, str):
        # Text that is not ASCII is not PEM; the reader refuses it.
        value = value.encode("utf-8", "replace")
    if not isinstance(value, bytes):
        raise InputError(f"a key or a certificate is PEM text, not {type(value).__name__}", code="keys")
    return value


def parse_jwks(value: bytes | str | Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """The entries of a JWKS by ``kid``; an entry is judged when a token names it.

    Raises:
        InputError: more than 1 MiB or 256 keys, not a JWKS, an entry without ``kid``, or one ``kid`` twice.
    """
    document: object = value
    if isinstance(value, (bytes, str)):
        document = load_json(value, source="JWKS", maximum=MAXIMUM_JWKS, result_code=ResultCode.VERIFIER_JWKS_ERROR)
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list):
        raise _bad(f"expected an object with an array 'keys', found {kind_of(document)}")
    if not 0 < len(keys) <= MAXIMUM_KEYS:
        raise _bad(f"{len(keys)} keys, expected 1 to {MAXIMUM_KEYS}")
    found: dict[str, Mapping[str, object]] = {}
    for position, entry in enumerate(keys):
        kid = entry.get("kid") if isinstance(entry, Mapping) else None
        if not isinstance(kid, str) or not kid:
            raise _bad(f"key {position} has no kid")
        if kid in found:
            raise _bad(f"two keys have the kid {kid[:80]!r}")
        found[kid] = entry
    return found


def _bad(message: str) -> ParseError:
    return ParseError(message, source="JWKS", code="jwks", result_code=ResultCode.VERIFIER_JWKS_ERROR)


def _key_of(entry: Mapping[str, object], anchors: tuple[Certificate, ...], at: datetime, what: str) -> PublicKey:
    refused = functools.partial(refuse, result_code=ResultCode.VERIFIER_JWKS_ERROR)
    if entry.get("alg", ALGORITHM) != ALGORITHM or entry.get("use", "sig") != "sig":
        raise refused(
            f"{what} is for {entry.get('alg')!r}, {entry.get('use')!r}; expected {ALGORITHM}, 'sig'", "key-type"
        )
    key: PublicKey | None = None
    if "x" in entry or "x5c" not in entry:
        try:
            key = PublicKey.from_jwk(entry)
        except InputError as error:
            raise refused(f"{what}: {error.message}", "key-type") from None
    if "x5c" in entry:
        chain = parse_x5c(entry["x5c"], what=what)
        certified = leaf_key(chain, what=what)
        if key is not None and key != certified:
            raise refused(f"{what} is not the key that its own x5c certifies", "key-mismatch")
        if anchors:
            validate_x5c(chain, anchors, at=at, what=what)
        return certified
    if anchors:
        raise refused(f"{what} has no x5c, and anchors for it were given", "x5c")
    if key is None:
        raise refused(f"{what} holds no key", "key-type")
    return key


# --- Certificate chains


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
            found.append(parse_certificate(base64_bytes(text)))
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
    # NVIDIA's service has leaves for TLS. The key of an OCSP responder below the same root must not pass.
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
