"""The detached EAT: steps 1 to 6 of ``verify`` for the overall token and its submodules."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from nvattest._documents import kind_of
from nvattest.token.consistency import Expected, check_counts, check_good_device, check_identities, is_device_label
from nvattest.token.eat import SUBJECT
from nvattest.token.jws import MAXIMUM_TOKEN, Jws, read_jws, refuse, verify_signature
from nvattest.token.keyring import Keyring
from nvattest.token.refusals import eat_refusal
from nvattest.token.rules import Rules, instant, seconds
from nvattest.token.verified import MAXIMUM_DEVICES, TokenKind, VerifiedToken, read_provenance

OVERALL: Final = "x-nvidia-overall-att-result"
# NVIDIA's service writes the first, NVIDIA's local tools the second.
_DIGEST_LABELS = ("SHA-256", "SHA256")
_BUNDLE = "the overall token"
_REGISTERED = frozenset({"iss", "iat", "nbf", "exp", "jti"})


def verify_eat(
    document: list[object], *, rules: Rules, keys: Keyring, expected: Expected, kind: TokenKind
) -> VerifiedToken:
    """Verify a detached EAT that was read as an array.

    Raises:
        TokenError: it must not be believed.
    """
    # 1. The shape.
    overall, detached = _read(document)
    if overall.payload.get("sub") != SUBJECT:
        raise refuse(f"{_BUNDLE}: sub is {overall.payload.get('sub')!r}, expected {SUBJECT!r}", "subject")
    verdict = overall.payload.get(OVERALL)
    if type(verdict) is not bool:
        raise refuse(f"{_BUNDLE}: {OVERALL!r} is {kind_of(verdict)}, expected a boolean", "malformed")
    # 2. Digests.
    _check_digests(overall, detached)
    check_counts(tuple(detached), expected)
    # 3. Times, issuer, nonce.
    tokens = (overall, *detached.values())
    refused = {label: eat_refusal(label, token.payload) for label, token in detached.items()}
    for label, token in (("", overall), *detached.items()):
        # The token of a device that NVIDIA's service refuses need not repeat the nonce; the digest binds it.
        rules.check(token, needs_nonce=verdict or refused.get(label) is None)
        if token.payload["iss"] != overall.payload["iss"]:
            raise refuse(f"{token.what} is issued by {token.payload['iss']!r}, {_BUNDLE} is not", "issuer")
    _check_ids(tokens)
    # 4. Keys and signatures.
    key = keys.key_for(overall, at=rules.at)
    verify_signature(overall, key)
    for token in detached.values():
        verify_signature(token, keys.key_for(token, at=rules.at))
    # 5. Identities.
    labels = tuple(detached)
    claims = tuple(_claims_of(token) for token in detached.values())
    check_identities(labels, claims)
    # 6. Consistency.
    made = read_provenance(overall, key)
    if made.trusted is not None and made.trusted is not verdict:
        raise refuse(f"{_BUNDLE} says {verdict} and {made.trusted} in one breath", "overall-inconsistent")
    if verdict:
        for label, item in zip(labels, claims, strict=True):
            check_good_device(label, item, weakened=made.lenient)
    issuer = overall.payload["iss"]
    return VerifiedToken(
        kind=kind,
        overall=verdict,
        issuer=str(issuer),
        issued=instant(seconds(overall, "iat")),
        expires=instant(min(seconds(token, "exp") for token in tokens)),
        labels=labels,
        claims=claims,
        payload=overall.payload,
        key=key,
        simulated=made.simulated,
        anchors=made.anchors,
        weakened=made.weakened,
        evidence_digest=made.evidence_digest,
        at=made.at,
        statuses={},
        key_source=keys.source,
        key_url=keys.url,
        refusals=tuple(refusal for refusal in refused.values() if refusal is not None),
    )


def _claims_of(token: Jws) -> dict[str, object]:
    """The claims of a device without those that every token has."""
    return {name: value for name, value in token.payload.items() if name not in _REGISTERED}


def _read(document: list[object]) -> tuple[Jws, dict[str, Jws]]:
    if len(document) != 2:
        raise refuse(f"a detached EAT has two members, this array has {len(document)}", "malformed")
    nested, parts = document
    if not isinstance(nested, list) or len(nested) != 2 or nested[0] != "JWT" or not isinstance(nested[1], str):
        raise refuse('the first member is not ["JWT", token]', "malformed")
    if not isinstance(parts, dict):
        raise refuse(f"the second member is {kind_of(parts)}, expected an object of tokens", "malformed")
    if not parts:
        raise refuse("the token is about no device", "submods-missing")
    if len(parts) > MAXIMUM_DEVICES:
        raise refuse(f"{len(parts)} submodules, at most {MAXIMUM_DEVICES} are read", "too-large")
    if sum(len(part) for part in parts.values() if isinstance(part, str)) + len(nested[1]) > MAXIMUM_TOKEN:
        raise refuse(f"the token has more than {MAXIMUM_TOKEN} characters", "too-large")
    detached: dict[str, Jws] = {}
    seen: dict[str, str] = {}
    for label, part in parts.items():
        if not isinstance(label, str) or not is_device_label(label):
            raise refuse(f"a submodule is called {str(label)[:40]!r}, expected GPU-n or SWITCH-n", "malformed")
        if not isinstance(part, str):
            raise refuse(f"{label} is {kind_of(part)}, expected a compact JWT", "malformed")
        if part in seen:
            raise refuse(f"{seen[part]} and {label} are one token", "submods-duplicate")
        seen[part] = label
    overall = read_jws(nested[1], what=_BUNDLE)
    for label, part in parts.items():
        detached[label] = read_jws(part, what=label)
    return overall, detached


def _check_digests(overall: Jws, detached: dict[str, Jws]) -> None:
    submods = overall.payload.get("submods")
    if not isinstance(submods, dict) or not submods:
        raise refuse(f"{_BUNDLE} names no submodule", "submods-missing")
    missing = sorted(set(submods) - set(detached))
    if missing:
        raise refuse(f"{_BUNDLE} names {', '.join(missing)[:200]}, and no such token came with it", "submods-missing")
    extra = sorted(set(detached) - set(submods))
    if extra:
        raise refuse(f"{', '.join(extra)[:200]} came along, and {_BUNDLE} does not name it", "submods-extra")
    for label, token in detached.items():
        entry = submods[label]
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == "DIGEST" and isinstance(entry[1], list)):
            raise refuse(f"{_BUNDLE}: submods[{label!r}] is not a digest", "malformed")
        match entry[1]:
            case [str() as algorithm, str() as digest] if algorithm in _DIGEST_LABELS:
                pass
            case _:
                raise refuse(
                    f"{_BUNDLE}: the digest of {label} is not [{' or '.join(_DIGEST_LABELS)}, hex]",
                    "digest-algorithm",
                )
        actual = hashlib.sha256(token.compact.encode("utf-8", "surrogatepass")).hexdigest()
        if not hmac.compare_digest(digest.encode("utf-8", "surrogatepass"), actual.encode()):
            raise refuse(
                f"{label} is not the token that {_BUNDLE} was made for",
                "digest",
                hint="the digest is over the compact JWT, signature included; a part was replaced or swapped",
            )


def _check_ids(tokens: tuple[Jws, ...]) -> None:
    seen: set[object] = set()
    for token in tokens:
        jti = token.payload.get("jti")
        if not isinstance(jti, str) or not jti:
            raise refuse(f"{token.what} has no 'jti', which is required", "missing-jti")
        if jti in seen:
            raise refuse(f"{token.what} has the id of another token in the bundle", "submods-duplicate")
        seen.add(jti)
