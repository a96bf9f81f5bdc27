"""The keys that a relying party trusts for tokens: a JWKS, one public key, or anchors for certificate chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from nvattest._documents import kind_of, load_json
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.pki.certificate import Certificate
from nvattest.token.jws import Jws, refuse
from nvattest.token.keys import ALGORITHM, PublicKey
from nvattest.token.x5c import leaf_key, parse_anchors, parse_x5c, validate_x5c

MAXIMUM_JWKS: Final = 1024 * 1024
MAXIMUM_KEYS: Final = 256


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
                "a bare key stands alone: it needs no JWKS and has no certificate chain to judge", code="keys"
            )
        return cls(
            jwks=parse_jwks(jwks) if jwks is not None else None,
            key=key if key is None or isinstance(key, PublicKey) else PublicKey.from_pem(_pem(key)),
            anchors=parse_anchors(_pem(x5c_roots)) if x5c_roots is not None else (),
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
        # What is not ASCII is not PEM; the reader says so.
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
    jwks_error = ResultCode.VERIFIER_JWKS_ERROR
    if entry.get("alg", ALGORITHM) != ALGORITHM or entry.get("use", "sig") != "sig":
        raise refuse(
            f"{what} is for {entry.get('alg')!r}, {entry.get('use')!r}; expected {ALGORITHM}, 'sig'",
            "key-type",
            result_code=jwks_error,
        )
    key: PublicKey | None = None
    if "x" in entry or "x5c" not in entry:
        try:
            key = PublicKey.from_jwk(entry)
        except InputError as error:
            raise refuse(f"{what}: {error.message}", "key-type", result_code=jwks_error) from None
    if "x5c" not in entry:
        if anchors:
            raise refuse(f"{what} has no x5c, and anchors for it were given", "x5c", result_code=jwks_error)
    else:
        chain = parse_x5c(entry["x5c"], what=what)
        certified = leaf_key(chain, what=what)
        if key is not None and key != certified:
            raise refuse(f"{what} is not the key that its own x5c certifies", "key-mismatch", result_code=jwks_error)
        if anchors:
            validate_x5c(chain, anchors, at=at, what=what)
        key = certified
    if key is None:
        raise refuse(f"{what} holds no key", "key-type", result_code=jwks_error)
    return key
