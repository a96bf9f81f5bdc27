"""What ``validate_token`` and ``decode_token`` do: a token, a policy of the old SDK, and a verdict with its reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from nvattest.compat._engine import LOCAL_ISSUERS
from nvattest.compat._errors import PolicyFormatError, PolicyJsonError
from nvattest.compat._settings import Settings, nras_base
from nvattest.compat.nv_attestation_sdk._words import Environment, VerifierFields, kind_of
from nvattest.errors import CollateralError, NvattestError, ParseError, PolicyError, TokenError
from nvattest.model import Nonce

if TYPE_CHECKING:
    from nvattest.compat._token_error import TokenRefusedError
    from nvattest.compat._tokens import Trust
    from nvattest.policy.json_policy import JsonPolicy
    from nvattest.token.keys import PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a client knows about the tokens that it may believe. ``at`` is the clock for NRAS's tokens.

    ``counts`` is how many devices each verifier was given, where this client attested them.
    """

    nonce: Nonce
    key: PublicKey
    at: datetime
    verifiers: Sequence[list[Any]]
    counts: Mapping[str, int]
    settings: Settings


def validate(token: str, rules: JsonPolicy, expected: Expected) -> tuple[bool, list[str]]:
    """Whether the token is genuine, of configured verifiers, and meets the policy; and why not.

    Raises:
        TokenRefusedError: it must not be believed.
    """
    from nvattest.compat import _tokens

    # Local tokens are made by the clock of this machine, whatever clock the evidence is judged by.
    now = datetime.now(timezone.utc)
    good, reasons = True, []
    try:
        parts = _tokens.read_token(token, nonce=expected.nonce, key=expected.key, at=now)
        for name, inner in parts.items():
            entry = next((known for known in expected.verifiers if known[VerifierFields.NAME] == name), None)
            if entry is None:
                reasons.append(f"{name} is not among the configured verifiers")
                good = False
                continue
            try:
                trust = _trust(entry, expected)
            except CollateralError as error:
                reasons.append(f"{name}: {error}")
                good = False
                continue
            moment = expected.at if trust.jwks is not None else now
            verified = _tokens.verify_part(name, inner, nonce=expected.nonce, at=moment, trust=trust)
            claims, overall = _tokens.policy_claims(verified)
            decision = rules.evaluate(claims, overall)
            reasons += [f"{name}: {reason}" for reason in decision.reasons]
            good = good and decision.matched
    except TokenError as error:
        raise refused(error) from None
    return good, reasons


def _trust(entry: list[Any], expected: Expected) -> Trust:
    from nvattest.collateral.nras import JWKS_PATH
    from nvattest.compat._remote import fetch_keys
    from nvattest.compat._tokens import Trust

    url = entry[VerifierFields.URL]
    count = expected.counts.get(entry[VerifierFields.NAME])
    # Whoever names simulated roots wants simulated devices; the token says what they are.
    simulated = expected.settings.trust_anchors().simulated
    if entry[VerifierFields.ENVIRONMENT] == Environment.REMOTE:
        return Trust(
            issuer=nras_base(url),
            devices=count,
            jwks=fetch_keys(url, settings=expected.settings),
            jwks_url=nras_base(url) + JWKS_PATH,
            accept_simulated=simulated,
        )
    return Trust(
        issuer=LOCAL_ISSUERS[kind_of(entry[VerifierFields.DEVICE])],
        devices=count,
        key=expected.key,
        accept_simulated=simulated,
    )


def decoded(token: str) -> Any:
    """What a token says, unverified.

    Raises:
        TokenRefusedError: it is no token.
    """
    import jwt

    from nvattest._documents import load_json

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
        raise refused(TokenError(f"a token is a text, not {type(token).__name__}", code="malformed"))
    try:
        return said(load_json(token, source="token", maximum=4 * 1024 * 1024))
    except (NvattestError, RecursionError) as error:
        raise refused(TokenError(f"not a token of the SDK: {error}", code="malformed")) from None


def read_policy(text: object) -> JsonPolicy:
    """A policy of the old SDK, from its text.

    Raises:
        PolicyJsonError, PolicyFormatError: it cannot be used.
    """
    from nvattest.policy.json_policy import load_json_policy

    if not isinstance(text, str | bytes):
        raise PolicyFormatError(f"a policy is JSON text, not {type(text).__name__}")
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        return load_json_policy(data, name="policy")
    except ParseError as error:
        try:
            json.loads(data)
        except json.JSONDecodeError as cause:
            raise PolicyJsonError(cause) from None
        except (ValueError, RecursionError):
            pass
        raise PolicyFormatError(error.message, code=error.code, hint=error.hint) from None
    except PolicyError as error:
        raise PolicyFormatError(error.message, code=error.code, hint=error.hint) from None


def refused(error: TokenError) -> TokenRefusedError:
    """The same refusal, in the type that old code catches."""
    from nvattest.compat._token_error import TokenRefusedError

    return TokenRefusedError.of(error)
