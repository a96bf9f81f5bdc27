"""The SDK's token, ``[["JWT", outer], {"LOCAL_GPU_CLAIMS": inner}]``: made, decoded, and validated against a policy.

The shape is the old one. The signature is ES384 under the instance's key, where the old SDK had HS256 under the words
``secret`` and ``notasecret``; the outer token names the digest of each inner part, so that no part can be swapped.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import jwt

from nvattest._documents import load_json
from nvattest.compat import PolicyFormatError, PolicyJsonError
from nvattest.compat._engine import LOCAL_ISSUERS, Settings, Verifier, nras_base, nras_keys
from nvattest.errors import CollateralError, NvattestError, ParseError, PolicyError, TokenError
from nvattest.model import Nonce
from nvattest.policy.relying_party import JsonPolicy, load_json_policy
from nvattest.session import verify_token
from nvattest.token.jose import MAXIMUM_TOKEN, PublicKey, SigningKey, read_jws, refuse, verify_signature
from nvattest.token.verified import Rules, TokenKind

OUTER_ISSUER: Final = "NV-Attestation-SDK"
_LIFETIME: Final = timedelta(hours=1)
_LEEWAY: Final = timedelta(seconds=60)
_OUTER: Final = "the SDK's outer token"
# The names of verifiers, and the words that the names of their devices begin with.
_DEVICES: Final = {
    "LOCAL_GPU_CLAIMS": ("GPU",),
    "REMOTE_GPU_CLAIMS": ("GPU",),
    "LOCAL_SWITCH_CLAIMS": ("SWITCH", "NVSWITCH"),
    "REMOTE_SWITCH_CLAIMS": ("SWITCH", "NVSWITCH"),
}


class TokenRefusedError(TokenError, jwt.InvalidTokenError, IndexError):
    """A token that must not be believed; also what PyJWT raised in the old SDK, and the IndexError for ``[]``."""

    @classmethod
    def of(cls, error: TokenError) -> TokenRefusedError:
        """The same refusal, in the type that old code catches."""
        return cls(error.message, code=error.code, result_code=error.result_code, hint=error.hint)


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
            "submods": _digests(parts),
        }
    )
    return json.dumps([["JWT", outer], dict(parts)])


def validate(
    token: str,
    rules: JsonPolicy,
    *,
    nonce: Nonce,
    key: PublicKey,
    verifiers: Mapping[str, Verifier],
    counts: Mapping[str, int],
    settings: Settings,
) -> tuple[bool, list[str]]:
    """Whether the token is genuine, of configured verifiers, and meets the policy; and why not.

    ``counts`` has how many devices each verifier was given.

    Raises:
        TokenRefusedError: it must not be believed.
    """
    # The clock of this machine makes local tokens, whatever clock the evidence and NRAS's tokens are judged by.
    now = datetime.now(timezone.utc)
    # A caller that names simulated roots wants simulated devices; the token marks them as simulated.
    simulated = settings.trust_anchors().simulated
    good = True
    reasons: list[str] = []
    try:
        for name, inner in _read(token, nonce=nonce, key=key, at=now).items():
            verifier = verifiers.get(name)
            if verifier is None:
                reasons.append(f"{name} is not among the configured verifiers")
                good = False
                continue
            trust: dict[str, Any] = {"issuer": LOCAL_ISSUERS[verifier.kind], "key": key, "at": now}
            if verifier.url is not None:
                try:
                    trust = _trust_in_nras(verifier.url)
                except CollateralError as error:
                    reasons.append(f"{name}: {error}")
                    good = False
                    continue
                trust["at"] = settings.at.device if settings.at is not None else now
            verified = verify_token(
                inner,
                nonce=nonce,
                leeway=_LEEWAY,
                expected_devices=counts.get(name),
                accept_simulated=simulated,
                kind=TokenKind.DETACHED_EAT if verifier.url is None else TokenKind.NRAS,
                **trust,
            )
            if name not in _DEVICES:
                raise refuse(f"{name[:40]!r} is no verifier of the SDK", "device-kind")
            for label in verified.labels:
                if label.rpartition("-")[0] not in _DEVICES[name]:
                    raise refuse(f"{name} holds the token of {label}", "device-kind")
            claims = [{**device, "iss": verified.issuer} for device in verified.claims]
            decision = rules.evaluate(claims, dict(verified.payload))
            reasons += [f"{name}: {reason}" for reason in decision.reasons]
            good = good and decision.matched
    except TokenError as error:
        raise TokenRefusedError.of(error) from None
    return good, reasons


def decoded(token: object) -> Any:
    """What a token says, unverified.

    Raises:
        TokenRefusedError: it is no token.
    """

    def said(item: Any) -> Any:
        if isinstance(item, str) and item.count(".") == 2:
            try:
                return jwt.decode(item, options={"verify_signature": False})
            except jwt.PyJWTError:
                return item
        if isinstance(item, list):
            return [said(member) for member in item]
        return {key: said(value) for key, value in item.items()} if isinstance(item, dict) else item

    if not isinstance(token, str | bytes):
        raise TokenRefusedError(f"a token is a text, not {type(token).__name__}", code="malformed")
    try:
        return said(load_json(token, source="token", maximum=4 * MAXIMUM_TOKEN))
    except (NvattestError, RecursionError) as error:
        raise TokenRefusedError(f"not a token of the SDK: {error}", code="malformed") from None


def read_policy(text: object) -> JsonPolicy:
    """A policy of the old SDK, from its text.

    Raises:
        PolicyJsonError, PolicyFormatError: it cannot be used.
    """
    if not isinstance(text, str | bytes):
        raise PolicyFormatError(f"a policy is JSON text, not {type(text).__name__}")
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        return load_json_policy(data, name="policy")
    except (ParseError, PolicyError) as error:
        if isinstance(error, ParseError):
            try:
                json.loads(data)
            except json.JSONDecodeError as cause:
                raise PolicyJsonError(cause) from None
            except (ValueError, RecursionError):
                pass
        raise PolicyFormatError(error.message, code=error.code, hint=error.hint) from None


def _digests(parts: Mapping[str, object]) -> dict[str, object]:
    """SHA-256 (hex) of each inner part: JSON, keys sorted, without white space."""
    texts = {name: json.dumps(inner, sort_keys=True, separators=(",", ":")) for name, inner in parts.items()}
    return {name: ["DIGEST", ["SHA-256", hashlib.sha256(text.encode()).hexdigest()]] for name, text in texts.items()}


def _read(text: str, *, nonce: Nonce, key: PublicKey, at: datetime) -> dict[str, object]:
    """The inner parts of a token whose outer part this key signed."""
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
    _refuse_shared_secret(compact)
    outer = read_jws(compact, what=_OUTER)
    Rules(issuer=OUTER_ISSUER, nonce=nonce, at=at, leeway=_LEEWAY).check(outer)
    verify_signature(outer, key)
    if outer.payload.get("submods") != _digests(parts):
        raise refuse("the parts of the token are not those that were signed", "digest", hint="a part was swapped")
    return parts


def _refuse_shared_secret(compact: str) -> None:
    """Give tokens of the old SDK, whose secret is public, a reason of their own."""
    try:
        algorithm = jwt.get_unverified_header(compact).get("alg")
    except jwt.PyJWTError:
        return
    if isinstance(algorithm, str) and algorithm.upper().startswith("HS"):
        raise refuse(
            f"{_OUTER} is signed with {algorithm} under a public secret: it proves nothing",
            "alg-not-allowed",
            hint="attest again with nvattest.compat; tokens of the old SDK cannot be believed",
        )


def _trust_in_nras(url: str) -> dict[str, Any]:
    """Issuer and keys of NRAS's tokens; CollateralError where the keys cannot be had."""
    from nvattest.collateral.nras import JWKS_PATH

    base = nras_base(url)
    return {"issuer": base, "jwks": nras_keys(base), "jwks_url": base + JWKS_PATH}
