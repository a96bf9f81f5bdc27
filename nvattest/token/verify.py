"""Verify tokens: detached EATs of nvattest and of NVIDIA's service, and EARs. Numbered steps, each with its refusals.

1. The shape: size, kinds of values, one compact JWT per name, ES384 and nothing else, no repeated member.
2. Digests: every submodule is the token that the overall token names, none is missing, surplus or there twice.
3. What each token claims of itself: exp, iat, iss and the nonce, required in every token (but see ``rules``), and nbf.
4. Keys and signatures: the overall token and every submodule.
5. Identities: as many devices as expected, no device twice.
6. Consistency: a good overall result needs good devices; the result names what was weakened or simulated, and simulated
   results are refused unless the caller accepts them.

Steps 2 and 3 come before 4 so that an old token is reported as old even where its key is gone. Only a token that passes
all steps is returned, so that nothing is believed before its signature is.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from nvattest._documents import kind_of, load_json
from nvattest._text import base64_bytes
from nvattest.appraisal.guest import DeviceSide, GuestAppraisal
from nvattest.errors import ParseError
from nvattest.model import Nonce, require_type
from nvattest.token.binding import derive_device_nonce
from nvattest.token.ear import verify_ear
from nvattest.token.eat import verify_eat
from nvattest.token.jws import MAXIMUM_TOKEN, Jws, read_jws, refuse
from nvattest.token.keys import Keyring
from nvattest.token.verified import ANY_DEVICES, Expected, Rules, TokenKind, VerifiedToken

_SDK_MEMBER: Final = re.compile(r"(LOCAL|REMOTE)_(GPU|SWITCH)_CLAIMS")


class GuestJudge(Protocol):
    """A guest that is judged with the token's devices: ``nvattest.tee.guest.Guest``."""

    def appraise(self, devices: DeviceSide, at: datetime, /) -> GuestAppraisal:
        """All checks of the guest."""


def verify_token(
    token: object,
    *,
    rules: Rules,
    keys: Keyring,
    expected: Expected = ANY_DEVICES,
    kind: TokenKind | None = None,
    accept_simulated: bool = False,
    refuse_weakened: bool = False,
    guest: GuestJudge | None = None,
) -> VerifiedToken:
    """Verify a token at an instant. Errors and the other arguments are as in ``nvattest.verify_token``."""
    require_type(accept_simulated, bool, "accept_simulated")
    require_type(refuse_weakened, bool, "refuse_weakened")
    if kind is not None:
        require_type(kind, TokenKind, "kind")
    document, found = read_document(token)
    if kind is not None and found is not (TokenKind.DETACHED_EAT if kind is TokenKind.NRAS else kind):
        raise refuse(f"this is a token of kind {found.value}, expected {kind.value}", "kind")
    document, wrapper = unwrapped(document)
    if isinstance(document, str):
        verified = verify_ear(document, rules=rules, keys=keys, expected=expected)
    else:
        verified = verify_eat(document, rules=rules, keys=keys, expected=expected, kind=kind or TokenKind.DETACHED_EAT)
    verified = replace(verified, wrapper=wrapper)
    if verified.simulated and not accept_simulated:
        raise refuse(
            "the token is about simulated devices: it proves nothing",
            "simulated",
            hint="for tests only, the caller may accept tokens about simulated devices (--accept-simulated)",
        )
    if refuse_weakened and (verified.weakened or verified.foreign):
        anchors = f"under the anchors {verified.anchors!r}" if verified.anchors is not None else "under unnamed anchors"
        made = f"by {verified.issuer!r} {anchors}, weakened: {', '.join(verified.weakened) or 'nothing'}"
        raise refuse(
            f"the token was made {made[:400]}",
            "weakened",
            hint="ask for one made with NVIDIA's anchors and the strict policy, or by NVIDIA's own service",
        )
    if guest is None:
        return verified
    return _with_guest(verified, guest, rules, accept_simulated=accept_simulated, refuse_weakened=refuse_weakened)


def device_side(verified: VerifiedToken, nonce: Nonce) -> DeviceSide:
    """What a verified token says of its devices, for the judgement of their guest; ``nonce`` is the token's."""
    return DeviceSide(
        trusted=verified.overall,
        number=len(verified.labels),
        nonce=nonce.value,
        digest=verified.evidence_digest,
        key=verified.key.thumbprint_bytes,
        identities=tuple(str(claims.get("ueid")) for claims in verified.claims),
    )


def _with_guest(
    verified: VerifiedToken, guest: GuestJudge, rules: Rules, *, accept_simulated: bool, refuse_weakened: bool
) -> VerifiedToken:
    judged = guest.appraise(device_side(verified, rules.nonce), rules.at)
    if judged.simulated and not accept_simulated:
        raise refuse(
            "the guest is judged by other roots than its maker's, as simulated CPUs are: that proves nothing",
            "simulated",
            hint="for tests only: --accept-simulated (accept_simulated=True)",
        )
    if refuse_weakened and judged.weakened:
        raise refuse(
            f"the guest was judged by a weakened CPU policy: {', '.join(judged.weakened)}",
            "weakened",
            hint="demand it in the CPU policy; nvattest policy check shows what weakens it",
        )
    return replace(verified, guest=judged, simulated=verified.simulated or judged.simulated)


def read_document(token: object) -> tuple[str | list[object], TokenKind]:
    """A compact JWT as text, or the array of a detached EAT, or a TokenError; nothing in it is believed."""
    if isinstance(token, bytes | str):
        if len(token) > MAXIMUM_TOKEN:
            raise refuse(f"the token has {len(token)} bytes, at most {MAXIMUM_TOKEN} are read", "too-large")
        try:
            token = token if isinstance(token, str) else token.decode("utf-8")
        except UnicodeDecodeError:
            raise refuse("the token is not UTF-8", "malformed") from None
        text = token.strip(" \t\r\n")
        if text[:1] not in ("[", "{"):
            return text, TokenKind.EAR
        try:
            token = load_json(text, source="token", maximum=MAXIMUM_TOKEN)
        except ParseError as error:
            raise refuse(error.message, error.code if error.code == "duplicate-key" else "malformed") from None
    if isinstance(token, dict):
        if "signatures" in token or "payload" in token:
            raise refuse(
                "the token is in the JSON serialization of RFC 7515, which may carry several signatures",
                "json-serialization",
                hint="give the compact form",
            )
        raise refuse(
            "the token is an object, expected an array or a compact JWT",
            "malformed",
            hint="give the member 'detached_eat' of nvattest's output",
        )
    if not isinstance(token, list):
        raise refuse(f"the token is {kind_of(token)}, expected an array or a compact JWT", "malformed")
    return token, TokenKind.DETACHED_EAT


def unwrapped(document: str | list[object]) -> tuple[str | list[object], str | None]:
    """The detached EAT inside of what ``get_token()`` of NVIDIA's Python SDK returns, and the member that holds it.

    The SDK writes ``[["JWT", wrapper], {"REMOTE_GPU_CLAIMS": detached EAT}]``. The wrapper is signed with HS256 under a
    secret that everyone knows, so it proves nothing and is not looked at. Any other document comes back as it is. One
    token that can be verified has to be inside (``wrapper``).
    """
    parts = document[1] if isinstance(document, list) and len(document) == 2 else None
    if not isinstance(parts, dict) or not parts or not all(_SDK_MEMBER.fullmatch(str(name)) for name in parts):
        return document, None
    remote = [name for name in parts if name.startswith("REMOTE_")]
    if len(remote) != 1:
        raise refuse(
            f"this is a token of NVIDIA's Python SDK with the members {', '.join(parts)}; its wrapper proves nothing, "
            f"and {'several tokens' if remote else 'no token of the remote service'} can be verified in it",
            "wrapper",
            hint="hand over one of them, such as the value of REMOTE_GPU_CLAIMS, alone"
            if remote
            else "local results of the SDK are signed with a secret that everyone knows; attest again with nvattest",
        )
    inner = parts[remote[0]]
    if not isinstance(inner, list):
        raise refuse(f"{remote[0]} is {kind_of(inner)}, expected a detached EAT", "malformed")
    return inner, remote[0]


def unverified(token: object) -> Jws:
    """The overall token or the EAR as it reads. Nothing vouches for it before a signature is verified."""
    document, kind = read_document(token)
    document, _ = unwrapped(document)
    compact: object = document
    if kind is TokenKind.DETACHED_EAT:
        first = document[0] if isinstance(document, list) and document else None
        compact = first[1] if isinstance(first, list) and len(first) == 2 else None
    if not isinstance(compact, str):
        raise refuse("the token holds no compact JWT", "malformed")
    return read_jws(compact, what="the token")


def nonce_of_token(token: object, challenge: bytes) -> tuple[Nonce, bytes]:
    """The nonce that a token has to carry if its header names its key truly, and that key's thumbprint.

    The header is not believed: the caller compares the thumbprint with the key that verified the token.
    """
    kid = unverified(token).kid
    if kid is None:
        raise refuse("the token's header has no kid", "kid-missing")
    try:
        thumbprint = base64_bytes(kid, url=True)
    except ValueError:
        thumbprint = b""
    if len(thumbprint) != 32:
        raise refuse("the token's kid is no key thumbprint (RFC 7638)", "binding-key")
    return derive_device_nonce(challenge, thumbprint), thumbprint
