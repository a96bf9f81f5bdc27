"""The SDK's token: ``[["JWT", outer], {"LOCAL_GPU_CLAIMS": inner}]``, made and verified.

The shape is the old one. The signature is ES384 under the instance's key, where the old SDK had HS256 under the words
``secret`` and ``notasecret``; the outer token names the digest of each inner part, so that no part can be swapped.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from nvattest._documents import load_json
from nvattest.errors import ParseError
from nvattest.model import DeviceKind, Nonce
from nvattest.token.jws import MAXIMUM_TOKEN, read_jws, refuse, verify_signature
from nvattest.token.keys import PublicKey, SigningKey
from nvattest.token.rules import Rules
from nvattest.token.verified import TokenKind, VerifiedToken
from nvattest.token.verify import verify_token

OUTER_ISSUER: Final = "NV-Attestation-SDK"
_LIFETIME: Final = timedelta(hours=1)
_LEEWAY: Final = timedelta(seconds=60)
_OUTER: Final = "the SDK's outer token"
_NAMES: Final = {
    "LOCAL_GPU_CLAIMS": DeviceKind.GPU,
    "REMOTE_GPU_CLAIMS": DeviceKind.GPU,
    "LOCAL_SWITCH_CLAIMS": DeviceKind.NVSWITCH,
    "REMOTE_SWITCH_CLAIMS": DeviceKind.NVSWITCH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a token is verified with: key and issuer of local ones, key set and issuer of NRAS's."""

    issuer: str
    devices: int | None
    key: PublicKey | None = None
    jwks: Mapping[str, object] | None = None
    jwks_url: str | None = None
    accept_simulated: bool = False


def digest_of(inner: object) -> str:
    """SHA-256 (hex) of an inner part: JSON, keys sorted, without white space."""
    return hashlib.sha256(json.dumps(inner, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make_token(parts: Mapping[str, object], *, nonce: Nonce, key: SigningKey) -> str:
    """The SDK's token around the results of the verifiers, as JSON text."""
    now = int(datetime.now(timezone.utc).timestamp())
    outer = key.sign(
        {
            "iss": OUTER_ISSUER,
            "iat": now,
            "nbf": now,
            "exp": now + int(_LIFETIME.total_seconds()),
            "jti": str(uuid.uuid4()),
            "eat_nonce": nonce.hex(),
            "submods": {name: ["DIGEST", ["SHA-256", digest_of(inner)]] for name, inner in parts.items()},
        }
    )
    return json.dumps([["JWT", outer], dict(parts)])


def read_token(text: str, *, nonce: Nonce, key: PublicKey, at: datetime) -> dict[str, object]:
    """The inner parts of a token whose outer part this key signed.

    Raises:
        TokenError: it must not be believed.
    """
    try:
        document = load_json(text, source="token", maximum=4 * MAXIMUM_TOKEN)
    except ParseError as error:
        raise refuse(error.message, "malformed") from None
    match document:
        case [["JWT", str() as compact], dict() as parts] if parts:
            pass
        case _:
            raise refuse(
                'the token is not [["JWT", outer], {verifier: result}]',
                "malformed",
                hint="give what get_token() returned",
            )
    _refuse_secrets(compact)
    outer = read_jws(compact, what=_OUTER)
    Rules(issuer=OUTER_ISSUER, nonce=nonce, at=at, leeway=_LEEWAY).check(outer)
    verify_signature(outer, key)
    expected = {name: ["DIGEST", ["SHA-256", digest_of(inner)]] for name, inner in parts.items()}
    if outer.payload.get("submods") != expected:
        raise refuse("the parts of the token are not those that were signed", "digest", hint="a part was swapped")
    return parts


def verify_part(name: str, inner: object, *, nonce: Nonce, at: datetime, trust: Trust) -> VerifiedToken:
    """The verified claims of one verifier's part.

    Raises:
        TokenError: it must not be believed, or it is about devices of another kind (``device-kind``).
    """
    kind = _NAMES.get(name)
    if kind is None:
        raise refuse(f"{name[:40]!r} is no verifier of the SDK", "device-kind")
    verified = verify_token(
        inner,
        issuer=trust.issuer,
        nonce=nonce,
        at=at,
        key=trust.key,
        jwks=trust.jwks,
        jwks_url=trust.jwks_url,
        leeway=_LEEWAY,
        expected_devices=trust.devices,
        kind=TokenKind.DETACHED_EAT if trust.jwks is None else TokenKind.NRAS,
        accept_simulated=trust.accept_simulated,
    )
    words = (kind.label, "NVSWITCH") if kind is DeviceKind.NVSWITCH else (kind.label,)
    for label in verified.labels:
        if label.rpartition("-")[0] not in words:
            raise refuse(f"{name} holds the token of {label}", "device-kind")
    return verified


def policy_claims(verified: VerifiedToken) -> tuple[Sequence[dict[str, Any]], dict[str, Any]]:
    """The claims that a policy sees: of each device and overall, each with its issuer."""
    return [{**claims, "iss": verified.issuer} for claims in verified.claims], dict(verified.payload)


def _refuse_secrets(compact: str) -> None:
    """A reason of its own for tokens of the old SDK, which everybody can write."""
    import jwt

    try:
        algorithm = jwt.get_unverified_header(compact).get("alg")
    except jwt.PyJWTError:
        return
    if isinstance(algorithm, str) and algorithm.upper().startswith("HS"):
        raise refuse(
            f"{_OUTER} is signed with {algorithm} under a secret that everybody knows: it proves nothing",
            "alg-not-allowed",
            hint="attest again with nvattest.compat; tokens of the old SDK cannot be believed",
        )
