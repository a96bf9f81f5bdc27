"""Verify tokens: detached EATs of nvattest and of NVIDIA's service, and EARs. Numbered steps, each with its refusals.

1. The shape: size, kinds of values, one compact JWT per name, ES384 and nothing else, no repeated member.
2. Digests: every submodule is the token that the overall token names, none is missing, surplus or there twice.
3. What each token claims of itself: exp, iat, iss and the nonce, required in every token (but see ``rules``), and nbf.
4. Keys and signatures: the overall token and every submodule.
5. Identities: as many devices as expected, no device twice.
6. Consistency: a good overall result needs good devices; what was weakened or simulated is told, and simulated results
   are refused unless the caller accepts them.

Steps 2 and 3 come before 4 so that an old token says that it is old even where its key is gone; only a token that
passes all steps is returned, so nothing is believed before its signature is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from nvattest.errors import InputError
from nvattest.model import Nonce
from nvattest.token.consistency import Expected
from nvattest.token.jws import refuse
from nvattest.token.keyring import Keyring
from nvattest.token.keys import PublicKey
from nvattest.token.rules import Rules
from nvattest.token.verified import TokenKind, VerifiedToken, read_document, unwrapped
from nvattest.token.verify_ear import verify_ear
from nvattest.token.verify_eat import verify_eat

__all__ = ["DEFAULT_LEEWAY", "TokenKind", "VerifiedToken", "verify_detached_eat", "verify_token"]

DEFAULT_LEEWAY: Final = timedelta(seconds=60)


def verify_token(
    token: object,
    *,
    issuer: str | None,
    nonce: Nonce,
    at: datetime,
    jwks: bytes | str | Mapping[str, object] | None = None,
    jwks_url: str | None = None,
    key: bytes | str | PublicKey | None = None,
    x5c_roots: bytes | str | None = None,
    leeway: timedelta = DEFAULT_LEEWAY,
    expected_devices: int | None = None,
    expected_gpus: int | None = None,
    expected_switches: int | None = None,
    kind: TokenKind | None = None,
    accept_simulated: bool = False,
    refuse_weakened: bool = False,
) -> VerifiedToken:
    """Verify a token; what is returned may be believed, including that its result is bad (``overall`` false).

    Args:
        token: text or bytes, a compact JWT (EAR) or the JSON of a detached EAT, or that JSON as an object. What
            ``get_token()`` of NVIDIA's Python SDK returns for its remote verifier is taken apart.
        issuer: the whole ``iss``. None compares it with nothing, and takes an EAR without one: then the key alone says
            who the issuer is.
        nonce: the nonce that was asked for; compared in every token.
        at: the clock, with its zone.
        jwks: keys of the issuer by ``kid``, as JSON or as its object.
        jwks_url: where you fetched them, if you did; the result names it. Nothing is fetched here.
        key: the one key of the issuer, PEM of a public key or a certificate. Stands alone.
        x5c_roots: PEM of the anchors for certificate chains: of the JWKS's entries or, without a JWKS, of the token.
        leeway: how far the clocks may differ, at most 10 minutes.
        expected_devices: how many GPUs and switches together the token has to be about.
        expected_gpus: how many GPUs.
        expected_switches: how many NVSwitches.
        kind: what the token has to be; None takes what it is.
        accept_simulated: also accept tokens about simulated devices, which prove nothing.
        refuse_weakened: refuse a token that says that its policy was weakened or that its anchors were not NVIDIA's,
            and one that says neither unless NVIDIA's own service issued it, by a key fetched there or given by you;
            otherwise look at ``weakened`` and ``foreign`` yourself.

    Raises:
        TokenError: the token must not be believed; ``code`` says which rule it broke.
        InputError: an argument cannot be used.
    """
    document, found = read_document(token)
    if kind is not None and found is not (TokenKind.DETACHED_EAT if kind is TokenKind.NRAS else kind):
        raise refuse(f"this is a token of kind {found.value}, expected {kind.value}", "kind")
    expected = _expected(expected_devices, expected_gpus, expected_switches)
    rules = Rules(issuer=issuer, nonce=nonce, at=at, leeway=leeway)
    keys = Keyring.make(jwks=jwks, key=key, x5c_roots=x5c_roots, url=jwks_url)
    document, wrapper = unwrapped(document)
    if isinstance(document, str):
        verified = verify_ear(document, rules=rules, keys=keys, expected=expected)
    else:
        verified = verify_eat(document, rules=rules, keys=keys, expected=expected, kind=kind or TokenKind.DETACHED_EAT)
    if wrapper is not None:
        verified = replace(verified, wrapper=wrapper)
    if verified.simulated and not accept_simulated:
        raise refuse(
            "the token is about simulated devices: it proves nothing",
            "simulated",
            hint="for tests only: --accept-simulated (accept_simulated=True)",
        )
    if refuse_weakened and (verified.weakened or verified.foreign):
        anchors = f"under the anchors {verified.anchors!r}" if verified.anchors is not None else "under unnamed anchors"
        made = f"by {verified.issuer!r} {anchors}, weakened: {', '.join(verified.weakened) or 'nothing'}"
        raise refuse(
            f"the token was made {made[:400]}",
            "weakened",
            hint="ask for one made with NVIDIA's anchors and the strict policy, or by NVIDIA's own service",
        )
    return verified


def _expected(devices: int | None, gpus: int | None, switches: int | None) -> Expected:
    expected = Expected(devices, gpus, switches)
    for count, least in zip(expected, (1, 0, 0), strict=True):
        if count is not None and (type(count) is not int or count < least):
            raise InputError("a token is about 1 or more devices, 0 or more of them GPUs", code="expected-devices")
    known = [count for count in (gpus, switches) if count is not None]
    if len(known) == 2 and (sum(known) == 0 or devices not in (None, sum(known))):
        together = "none" if devices is None else f"{devices}"
        raise InputError(
            f"{gpus} GPUs and {switches} switches are expected, and {together} together", code="expected-devices"
        )
    return expected


def verify_detached_eat(
    token: object,
    *,
    jwks: bytes | str | Mapping[str, object],
    jwks_url: str | None = None,
    issuer: str | None,
    nonce: Nonce,
    at: datetime,
    leeway_s: float = 60,
    expected_devices: int | None = None,
    expected_gpus: int | None = None,
    expected_switches: int | None = None,
    x5c_roots: bytes | None = None,
    accept_simulated: bool = False,
    refuse_weakened: bool = False,
) -> VerifiedToken:
    """Verify a detached EAT of NVIDIA's remote service, or of nvattest, with the issuer's JWKS.

    Raises:
        TokenError, InputError: as ``verify_token``.
    """
    try:
        leeway = timedelta(seconds=leeway_s)
    except (TypeError, ValueError, OverflowError):
        # Not a number, an infinite one, or more than a timedelta can say.
        raise InputError(f"a leeway is 0 to 600 seconds, not {leeway_s!r}"[:200], code="leeway") from None
    return verify_token(
        token,
        issuer=issuer,
        nonce=nonce,
        at=at,
        jwks=jwks,
        jwks_url=jwks_url,
        x5c_roots=x5c_roots,
        leeway=leeway,
        expected_devices=expected_devices,
        expected_gpus=expected_gpus,
        expected_switches=expected_switches,
        kind=TokenKind.NRAS,
        accept_simulated=accept_simulated,
        refuse_weakened=refuse_weakened,
    )
