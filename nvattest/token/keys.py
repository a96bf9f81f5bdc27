"""Keys of tokens: ECDSA on P-384, their JWK and its thumbprint (RFC 7517, RFC 7518, RFC 7638)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from nvattest._documents import JsonObject
from nvattest._text import base64_bytes, base64url
from nvattest.errors import InputError

ALGORITHM: Final = "ES384"
CURVE: Final = "P-384"
MAXIMUM_PEM: Final = 16 * 1024
_COORDINATE = 48


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public P-384 key. Two are equal if their coordinates (48 bytes each) are."""

    x: bytes
    y: bytes

    def __repr__(self) -> str:
        return f"<PublicKey {CURVE} {self.thumbprint}>"

    @classmethod
    def of(cls, key: object) -> PublicKey:
        """From a key of ``cryptography``.

        Raises:
            InputError: not an EC key on P-384 (code ``key-type``).
        """
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise InputError(
                "tokens are signed with ES384: the key has to be an EC key on P-384, this one is another",
                code="key-type",
            )
        numbers = key.public_numbers()
        return cls(numbers.x.to_bytes(_COORDINATE, "big"), numbers.y.to_bytes(_COORDINATE, "big"))

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """From PEM: a public key, or a certificate's.

        Raises:
            InputError: not such a text (code ``key``), or another kind of key (code ``key-type``).
        """
        if len(pem) > MAXIMUM_PEM:
            raise InputError(f"a key of {len(pem)} bytes, at most {MAXIMUM_PEM} are read", code="key")
        if b"PRIVATE KEY" in pem:
            raise InputError(
                "this is a private key; tokens are verified with the public one",
                code="key",
                hint="openssl pkey -in FILE -pubout",
            )
        try:
            if b"BEGIN CERTIFICATE" in pem:
                from cryptography import x509

                return cls.of(x509.load_pem_x509_certificate(pem).public_key())
            return cls.of(serialization.load_pem_public_key(pem))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(f"not a public key in PEM: {error}", code="key") from None

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> PublicKey:
        """From the members ``kty``, ``crv``, ``x`` and ``y`` of a JWK (RFC 7518, 6.2).

        Raises:
            InputError: another kind of key, or coordinates that are no point of the curve (code ``key-type``).
        """
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
        """The key as ``cryptography`` has it.

        Raises:
            InputError: the coordinates are no point of the curve (code ``key-type``).
        """
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(self.x, "big"), int.from_bytes(self.y, "big"), ec.SECP384R1()
        )
        try:
            return numbers.public_key()
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
            InputError: not such a text (code ``signing-key``), or another kind of key (code ``key-type``).
        """
        if len(pem) > MAXIMUM_PEM:
            raise InputError(f"a key of {len(pem)} bytes, at most {MAXIMUM_PEM} are read", code="signing-key")
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(
                f"not an unencrypted private key in PEM: {error}",
                code="signing-key",
                hint="openssl ecparam -name secp384r1 -genkey -noout -out key.pem",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InputError("tokens are signed with ES384: the key has to be an EC key on P-384", code="key-type")
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
