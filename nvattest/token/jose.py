"""JOSE, signed JSON: one JWT is read strictly; keys of ECDSA on P-384 sign tokens, are trusted, and verify them.

A JWT (RFC 7515, 7519, 8725) is refused, whatever its signature, for any algorithm but ES384, critical extensions, keys
that the token brings along, another type, members that appear twice, and base64url that is not canonical.

A key is known by its JWK and its thumbprint (RFC 7517, 7518, 7638). A relying party has a JWKS, one public key, or
anchors for certificate chains. Those chains (``x5c``, RFC 7515, 4.1.6) are not the ones of devices: NVIDIA's service
signs with short-lived P-384 leaves under an RSA or ECDSA intermediate. Checked are signatures, order, names, validity,
CA flags, path lengths and unknown critical extensions (RFC 5280, 6.1); revocation is not.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from nvattest._documents import JsonObject, kind_of, load_json
from nvattest._text import base64_bytes, base64url
from nvattest.errors import InputError, ParseError, ResultCode, TokenError
from nvattest.model import format_time
from nvattest.pki.certificate import Certificate, parse_certificate, parse_pem_chain

ALGORITHM: Final = "ES384"
MAXIMUM_TOKEN: Final = 1024 * 1024
_MAXIMUM_HEADER = 32 * 1024
_SIGNATURE_SIZE = 96
# The last second of the year 9999, the last year of a datetime.
_LAST_SECOND = 253_402_300_799
_TYPES = frozenset({"jwt", "eat+jwt", "ear+jwt", "application/eat+jwt"})
# The key comes from the caller. A header that brings or points to one, or changes what is signed, is an attack.
_FORBIDDEN_HEADERS = ("jwk", "jku", "x5u", "b64", "enc", "zip")
CURVE: Final = "P-384"
MAXIMUM_PEM: Final = 16 * 1024
MAXIMUM_JWKS: Final = 1024 * 1024
MAXIMUM_KEYS: Final = 256
MAXIMUM_CHAIN: Final = 8
MAXIMUM_ANCHORS: Final = 16
_MAXIMUM_TEXT = 32 * 1024
_COORDINATE = 48
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_RSA_BITS = 2048
_ANOTHER_KIND = "tokens are signed with ES384: the key has to be an EC key on P-384, this one is another"


# --- one JWT ----------------------------------------------------------------------------------------------------------


class Jws(NamedTuple):
    """One compact JWT, read and not yet verified. ``what`` names it in messages."""

    what: str
    compact: str
    header: JsonObject
    payload: JsonObject

    @property
    def kid(self) -> str | None:
        value = self.header.get("kid")
        return value if isinstance(value, str) else None


def refuse(
    message: str, code: str, *, hint: str = "", result_code: ResultCode = ResultCode.NRAS_TOKEN_INVALID
) -> TokenError:
    """The error for a token that breaks the rule ``code``."""
    return TokenError(message, code=code, hint=hint, result_code=result_code)


def read_jws(compact: str, *, what: str) -> Jws:
    """Read one compact JWT, or raise a TokenError; its signature is not verified."""
    if len(compact) > MAXIMUM_TOKEN:
        raise refuse(f"{what} has {len(compact)} characters, at most {MAXIMUM_TOKEN} are read", "too-large")
    if compact[:1] == "{":
        raise refuse(
            f"{what} is in the JSON serialization of RFC 7515, which may carry several signatures",
            "json-serialization",
            hint="give the compact form: header.payload.signature",
        )
    parts = compact.split(".")
    if len(parts) != 3:
        raise refuse(f"{what} has {len(parts)} parts, expected header.payload.signature", "malformed")
    header = jwt_part(parts[0], f"{what}: header", _MAXIMUM_HEADER)
    _check_header(header, what)
    payload = jwt_part(parts[1], f"{what}: payload")
    signature = _decode(parts[2], f"{what}: signature")
    if len(signature) != _SIGNATURE_SIZE:
        raise refuse(f"{what}: a signature of {len(signature)} bytes, ES384 has {_SIGNATURE_SIZE}", "signature")
    return Jws(what=what, compact=compact, header=header, payload=payload)


def text_member(token: Jws, name: str, code: str) -> str:
    """A member of the payload that has to be a text that is not empty; any other is refused with this code."""
    value = token.payload.get(name)
    if not isinstance(value, str) or not value:
        raise refuse(f"{token.what} has no {name!r}, which is required", code)
    return value


def seconds(token: Jws, name: str) -> int:
    """A NumericDate of the payload, whole seconds (``missing-`` and its name, ``malformed``)."""
    value = token.payload.get(name)
    if value is None:
        raise refuse(f"{token.what} has no {name!r}, which is required", f"missing-{name}")
    if type(value) is not int or not 0 <= value <= _LAST_SECOND:
        raise refuse(f"{token.what}: {name!r} is not a number of seconds", "malformed")
    return value


def instant(value: int) -> datetime:
    """Seconds of the epoch, already bounded, as an aware datetime."""
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=value)


def _check_header(header: JsonObject, what: str) -> None:
    algorithm = header.get("alg")
    if isinstance(algorithm, str) and algorithm.lower() == "none":
        raise refuse(
            f"{what} is not signed (alg none)",
            "alg-none",
            hint="anyone can write such a token; NVIDIA's tools make them unless they are given a key",
        )
    if algorithm != ALGORITHM:
        raise refuse(f"{what}: alg is {algorithm!r}, only {ALGORITHM} is accepted", "alg-not-allowed")
    if "crit" in header:
        raise refuse(f"{what} demands critical extensions, and none is known here", "crit")
    for name in _FORBIDDEN_HEADERS:
        if name in header:
            raise refuse(f"{what}: the header brings {name!r}; keys come from the verifier's side only", "header-key")
    if "typ" in header:
        kind = header["typ"]
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise refuse(f"{what}: typ is {kind!r}, which is no attestation token", "typ")
    if "kid" in header and (not isinstance(header["kid"], str) or not 0 < len(header["kid"]) <= 512):
        raise refuse(f"{what}: kid is not a text of 1 to 512 characters", "malformed")


def _decode(text: str, what: str) -> bytes:
    try:
        return base64_bytes(text, url=True)
    except ValueError:
        raise refuse(f"{what} is not canonical base64url", "malformed") from None


def jwt_part(text: str, what: str, maximum: int = MAXIMUM_TOKEN) -> JsonObject:
    """The header or the payload of a compact JWT: canonical base64url of a JSON object. Nothing vouches for it."""
    data = _decode(text, what)
    try:
        value = load_json(data, source=what, maximum=maximum)
    except ParseError as error:
        code = error.code if error.code in ("duplicate-key", "too-large") else "malformed"
        raise refuse(error.message, code) from None
    if not isinstance(value, dict):
        raise refuse(f"{what} is {kind_of(value)}, expected an object", "malformed")
    # An escaped lone surrogate reads as JSON and cannot be written again.
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise refuse(f"{what} holds a lone surrogate or is nested too deeply", "malformed") from None
    return value


# --- keys -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public P-384 key. Two are equal if their coordinates (48 bytes each) are.

    What is none is an InputError: another kind of key, or coordinates that are no point of the curve (``key-type``), or
    a text that cannot be read (``key``).
    """

    x: bytes
    y: bytes

    def __repr__(self) -> str:
        return f"<PublicKey {CURVE} {self.thumbprint}>"

    @classmethod
    def of(cls, key: object) -> PublicKey:
        """From a key of ``cryptography``."""
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise InputError(_ANOTHER_KIND, code="key-type")
        numbers = key.public_numbers()
        return cls(numbers.x.to_bytes(_COORDINATE, "big"), numbers.y.to_bytes(_COORDINATE, "big"))

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """From PEM: a public key, or a certificate's."""
        _check_size(pem, "key")
        if b"PRIVATE KEY" in pem:
            raise InputError(
                "this is a private key; tokens are verified with the public one",
                code="key",
                hint="openssl pkey -in FILE -pubout",
            )
        try:
            if b"BEGIN CERTIFICATE" in pem:
                return cls.of(x509.load_pem_x509_certificate(pem).public_key())
            return cls.of(serialization.load_pem_public_key(pem))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(f"not a public key in PEM: {error}", code="key") from None

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> PublicKey:
        """From the members ``kty``, ``crv``, ``x`` and ``y`` of a JWK (RFC 7518, 6.2)."""
        kind = (jwk.get("kty"), jwk.get("crv"))
        if kind != ("EC", CURVE):
            raise InputError(f"the JWK is of kind {kind!r}, expected EC on {CURVE}", code="key-type")
        values: list[bytes] = []
        for name in ("x", "y"):
            text = jwk.get(name)
            try:
                value = base64_bytes(text, url=True) if isinstance(text, str) and len(text) == 64 else b""
            except ValueError:
                value = b""
            if len(value) != _COORDINATE:
                raise InputError(f"the JWK's {name!r} is not {_COORDINATE} bytes of base64url", code="key-type")
            values.append(value)
        key = cls(*values)
        key.native()
        return key

    def native(self) -> ec.EllipticCurvePublicKey:
        """The key as ``cryptography`` has it."""
        try:
            if (len(self.x), len(self.y)) != (_COORDINATE, _COORDINATE):
                # Other lengths with the same sum would be a second name of one key.
                raise ValueError
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), b"\x04" + self.x + self.y)
        except ValueError:
            raise InputError("the coordinates are not a point on P-384", code="key-type") from None

    @property
    def thumbprint_bytes(self) -> bytes:
        """The SHA-256 JWK thumbprint, 32 bytes (RFC 7638, 3)."""
        canonical = f'{{"crv":"{CURVE}","kty":"EC","x":"{base64url(self.x)}","y":"{base64url(self.y)}"}}'
        return hashlib.sha256(canonical.encode("ascii")).digest()

    @property
    def thumbprint(self) -> str:
        """The thumbprint as base64url: the ``kid`` of our tokens."""
        return base64url(self.thumbprint_bytes)

    def jwk(self) -> JsonObject:
        """The key as a JWK with its use, algorithm and thumbprint, as consumers want them."""
        return {
            "kty": "EC",
            "crv": CURVE,
            "x": base64url(self.x),
            "y": base64url(self.y),
            "alg": ALGORITHM,
            "use": "sig",
            "kid": self.thumbprint,
        }

    def jwks(self) -> JsonObject:
        """A JWK Set that holds this key alone (RFC 7517, 5)."""
        return {"keys": [self.jwk()]}


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """A private P-384 key that signs tokens. Its ``repr`` shows nothing of it."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        PublicKey.of(self.private.public_key())

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(ec.generate_private_key(ec.SECP384R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """From an unencrypted PEM, PKCS #8 or SEC 1.

        Raises:
            InputError: any other text (code ``signing-key``), or another kind of key (code ``key-type``).
        """
        _check_size(pem, "signing-key")
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(
                f"not an unencrypted private key in PEM: {error}",
                code="signing-key",
                hint="openssl ecparam -name secp384r1 -genkey -noout -out key.pem",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InputError(_ANOTHER_KIND, code="key-type")
        return cls(key)

    @property
    def public(self) -> PublicKey:
        return PublicKey.of(self.private.public_key())

    def sign(self, payload: Mapping[str, object]) -> str:
        """The payload as a compact JWT: ``alg`` ES384, ``kid`` the thumbprint, ``typ`` JWT, members sorted.

        Raises:
            InputError: the payload holds what JSON does not have, or too many levels.
        """
        # Not with PyJWT: it imports an HTTP client, which would be a tenth of a run that asks no service.
        header = {"alg": ALGORITHM, "kid": self.public.thumbprint, "typ": "JWT"}
        parts = (header, dict(sorted(payload.items())))
        try:
            texts = [json.dumps(part, separators=(",", ":"), allow_nan=False) for part in parts]
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"a token cannot hold this: {str(error)[:200]}", code="payload") from None
        signed = ".".join(base64url(text.encode()) for text in texts)
        numbers = decode_dss_signature(self.private.sign(signed.encode(), ec.ECDSA(hashes.SHA384())))
        return f"{signed}.{base64url(b''.join(number.to_bytes(_COORDINATE, 'big') for number in numbers))}"


def verify_signature(token: Jws, key: PublicKey) -> None:
    """Verify the ES384 signature with this key and no other algorithm (``signature``, ``key-type``)."""
    import jwt

    try:
        native = key.native()
    except InputError as error:
        raise refuse(f"{token.what}: {error.message}", "key-type", result_code=ResultCode.VERIFIER_JWKS_ERROR) from None
    try:
        jwt.PyJWS(algorithms=[ALGORITHM]).decode(token.compact, native, algorithms=[ALGORITHM])
    except (jwt.PyJWTError, ValueError) as error:
        raise refuse(
            f"{token.what}: the key {key.thumbprint} did not sign it ({error})",
            "signature",
            hint="the token was altered, or the key is not its issuer's",
        ) from None


# --- whose signature counts -------------------------------------------------------------------------------------------


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
        """From what a caller has: a JWKS (JSON text or object) and its URL, or a public key, and anchors, in PEM."""
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
        validated = ", its certificates validated to roots that the caller named" if self.anchors else ""
        if self.url is None:
            return f"key set that the caller gave{validated}"
        transport = "over TLS" if self.url.startswith("https://") else "without TLS"
        return f"key set fetched from {self.url} {transport}{validated}"

    def key_for(self, token: Jws, *, at: datetime) -> PublicKey:
        """The key that has to have signed this token, or the TokenError that says why there is none."""
        if self.key is not None:
            return self.key
        if self.jwks is not None:
            return self._from_jwks(token, self.jwks, at)
        if not self.anchors or "x5c" not in token.header:
            nothing = "there is no key to verify the token with"
            raise refuse(
                f"{token.what} has no x5c header, and only anchors were given" if self.anchors else nothing,
                "key-missing",
                hint="give the issuer's JWKS, its public key, or anchors for its certificates; --nras-url fetches the "
                "JWKS of an attestation service",
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
    """The entries of a JWKS of at most 1 MiB and 256 keys, by ``kid``; an entry is judged when a token names it."""
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


def _check_size(pem: bytes, code: str) -> None:
    if len(pem) > MAXIMUM_PEM:
        raise InputError(f"a key of {len(pem)} bytes, at most {MAXIMUM_PEM} are read", code=code)


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
    if anchors or key is None:
        raise refused(f"{what} has no x5c, and anchors for it were given", "x5c")
    return key


# --- certificate chains (x5c) -----------------------------------------------------------------------------------------


def parse_x5c(value: object, *, what: str) -> tuple[Certificate, ...]:
    """Read an ``x5c`` member: an array of 1 to 8 certificates, standard base64 of DER, leaf first (``x5c``)."""
    if not isinstance(value, list) or not 0 < len(value) <= MAXIMUM_CHAIN:
        raise _broken(f"{what}: x5c is {kind_of(value)}, expected an array of 1 to {MAXIMUM_CHAIN} certificates")
    found: list[Certificate] = []
    for position, text in enumerate(value):
        where = f"{what}: x5c[{position}]"
        if not isinstance(text, str) or len(text) > _MAXIMUM_TEXT:
            raise _broken(f"{where} is not a text of at most {_MAXIMUM_TEXT} characters")
        try:
            found.append(parse_certificate(base64_bytes(text)))
        except ParseError as error:
            raise _broken(f"{where}: {error.message}") from None
        except ValueError:
            raise _broken(f"{where} is not base64") from None
    return tuple(found)


def leaf_key(chain: tuple[Certificate, ...], *, what: str) -> PublicKey:
    """The public key of the chain's leaf. Raises TokenError: it is not on P-384 (code ``key-type``)."""
    try:
        return PublicKey.of(_native(chain[0]).public_key())
    except (InputError, ValueError, UnsupportedAlgorithm) as error:
        raise refuse(f"{what}: x5c[0]: {error}", "key-type", result_code=ResultCode.VERIFIER_JWKS_ERROR) from None


def validate_x5c(chain: tuple[Certificate, ...], anchors: tuple[Certificate, ...], *, at: datetime, what: str) -> None:
    """Refuse a chain that leads to none of the anchors, or by a certificate that must not be used (``x5c-chain``)."""
    broken = functools.partial(_broken, code="x5c-chain")
    leaf = chain[0]
    # NVIDIA's service has leaves for TLS. The key of an OCSP responder below the same root must not pass.
    if leaf.is_ca or leaf.digital_signature is False or leaf.ocsp_signing:
        raise broken(f"{what}: {leaf.label} is not a certificate for signing tokens")
    # Up to the first anchor that the chain itself has, or to the anchor that issued its last certificate.
    path: list[Certificate] = []
    for certificate in chain:
        path.append(certificate)
        if certificate in anchors:
            break
    else:
        issuer = next((anchor for anchor in anchors if _issued(path[-1], anchor)), None)
        if issuer is not None:
            path.append(issuer)
    for position, certificate in enumerate(path):
        if fault := _fault(certificate, position, at):
            raise broken(f"{what}: {certificate.label} {fault}")
        if position and position < len(chain) and not _issued(path[position - 1], certificate):
            raise broken(f"{what}: {path[position - 1].label} was not issued by {certificate.label}")
    last = path[-1]
    if last not in anchors:
        raise broken(
            f"{what}: the chain ends at {last.label}, issued by {last.issuer}, which is none of the anchors",
            hint="give the root that the issuer of the token publishes",
        )


def _fault(certificate: Certificate, position: int, at: datetime) -> str:
    """What keeps a certificate from its place in a chain, the leaf's being 0; or an empty text."""
    if not certificate.not_before <= at <= certificate.not_after:
        first, last = format_time(certificate.not_before), format_time(certificate.not_after)
        return f"is valid from {first} to {last}, not at {format_time(at)}"
    if certificate.unknown_critical:
        return f"has unknown critical extensions {certificate.unknown_critical}"
    if position and (not certificate.is_ca or certificate.key_cert_sign is False):
        return "is not a CA"
    if position and certificate.path_length is not None and position - 1 > certificate.path_length:
        return "allows no chain of this length"
    return ""


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
