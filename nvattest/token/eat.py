"""The detached EAT bundle in NVIDIA's shape, signed: ``[["JWT", overall], {"GPU-0": jwt, "SWITCH-0": jwt}]``.

It follows what NVIDIA's remote service issues rather than RFC 9711, 5: the detached parts are JWTs, the digest is the
lower-case hexadecimal SHA-256 of the compact JWT, ``eat_nonce`` is hexadecimal. Beside NVIDIA's claims the overall
token has ``cnf`` (RFC 7800, 3.2) with the key that signed it and the member ``nvattest`` (``provenance``).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from nvattest._documents import JsonObject, kind_of
from nvattest.appraisal.results import Appraisal
from nvattest.evidence import MAXIMUM_DEVICES
from nvattest.token.claims import (
    DEFAULT_ISSUER,
    DEFAULT_LIFETIME,
    MEMBER,
    claims_by_device,
    provenance,
    read_provenance,
    registered_claims,
    verdict,
)
from nvattest.token.jws import MAXIMUM_TOKEN, Jws, instant, read_jws, refuse, seconds, text_member
from nvattest.token.keys import SigningKey, verify_signature

if TYPE_CHECKING:
    from nvattest.token.keys import Keyring
    from nvattest.token.verified import Expected, Rules, TokenKind, VerifiedToken

SUBJECT: Final = "NVIDIA-PLATFORM-ATTESTATION"
OVERALL: Final = "x-nvidia-overall-att-result"
# NVIDIA's service writes the first, NVIDIA's local tools the second.
_DIGEST_LABELS = ("SHA-256", "SHA256")
_BUNDLE = "the overall token"
_REGISTERED = frozenset({"iss", "iat", "nbf", "exp", "jti"})


def sign_detached_eat(
    appraisal: Appraisal,
    *,
    claims: Sequence[JsonObject],
    claims_version: str,
    key: SigningKey,
    now: datetime,
    new_id: Callable[[], str],
    issuer: str = DEFAULT_ISSUER,
    lifetime: timedelta = DEFAULT_LIFETIME,
    relying_party: Mapping[str, object] | None = None,
) -> list[object]:
    """Sign an appraisal, good or bad; ``json.dumps`` of the result is the token.

    Args:
        appraisal: of 1 or more devices. ``x-nvidia-overall-att-result`` is its ``trusted``, and false where a relying
            party's policy was applied and did not match.
        claims: the claims objects of its devices in order, as ``nvattest.claims_of`` gives them.
        claims_version: their version, ``"3.0"`` or ``"4.0"``, for ``x-nvidia-ver``.
        key: the private key.
        now: the time of issue, with its zone.
        new_id: gives a new random text of 16 or more characters at each call, for ``jti``.
        issuer: ``iss``.
        lifetime: from ``iat`` to ``exp``, at most a week.
        relying_party: the relying party's policy that was applied, and its result, for ``provenance``.

    Raises:
        InputError: no device, claims of more or fewer devices, or an argument that cannot be used.
    """
    devices = claims_by_device(appraisal, claims)
    registered = registered_claims(issuer=issuer, now=now, lifetime=lifetime, new_id=new_id)
    detached = {device.label: key.sign(said | registered()) for device, said in devices}
    overall: JsonObject = {
        **registered(),
        "sub": SUBJECT,
        "x-nvidia-ver": claims_version,
        OVERALL: verdict(appraisal, relying_party),
        "submods": {
            label: ["DIGEST", [_DIGEST_LABELS[0], hashlib.sha256(token.encode("ascii")).hexdigest()]]
            for label, token in detached.items()
        },
        "cnf": {"jwk": key.public.jwk()},
        MEMBER: provenance(appraisal, issued=now, relying_party=relying_party),
    }
    # Without a nonce of the caller's there is none to echo: one read from the recording would prove nothing.
    if appraisal.nonce is not None:
        overall["eat_nonce"] = appraisal.nonce.hex()
    return [["JWT", key.sign(overall)], detached]


def verify_eat(
    document: list[object], *, rules: Rules, keys: Keyring, expected: Expected, kind: TokenKind
) -> VerifiedToken:
    """Verify a detached EAT that was read as an array. Raises TokenError: it must not be believed."""
    # Loaded here: the hook signs and does not verify.
    from nvattest.token.verified import (
        EAT_MEMBER,
        VerifiedToken,
        check_counts,
        check_good_device,
        check_identities,
        refusals_of,
        vouched_for,
    )

    # 1. The shape.
    overall, detached = _read(document)
    if overall.payload.get("sub") != SUBJECT:
        raise refuse(f"{_BUNDLE}: sub is {overall.payload.get('sub')!r}, expected {SUBJECT!r}", "subject")
    result = overall.payload.get(OVERALL)
    if type(result) is not bool:
        raise refuse(f"{_BUNDLE}: {OVERALL!r} is {kind_of(result)}, expected a boolean", "malformed")
    # 2. Digests.
    _check_digests(overall, detached)
    check_counts(tuple(detached), expected)
    # 3. Times, issuer, nonce.
    tokens = (overall, *detached.values())
    refused = {label: refusals_of(label, token.payload.get(EAT_MEMBER)) for label, token in detached.items()}
    for label, token in (("", overall), *detached.items()):
        # The token of a device that NVIDIA's service refuses need not repeat the nonce; the digest binds it.
        rules.check(token, needs_nonce=result or not refused.get(label))
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
    claims = tuple(
        {name: value for name, value in token.payload.items() if name not in _REGISTERED} for token in detached.values()
    )
    check_identities(labels, claims)
    # 6. Consistency.
    made = read_provenance(overall, key)
    if made.trusted is not None and made.trusted is not result:
        raise refuse(
            f"{_BUNDLE}: {OVERALL!r} is {result} and contradicts its member {MEMBER!r}", "overall-inconsistent"
        )
    if result:
        for label, item in zip(labels, claims, strict=True):
            check_good_device(label, item, weakened=made.lenient)
    return VerifiedToken(
        kind=kind,
        overall=result,
        expires=instant(min(seconds(token, "exp") for token in tokens)),
        labels=labels,
        claims=claims,
        statuses={},
        refusals=tuple(reason for reasons in refused.values() for reason in reasons),
        **vouched_for(overall, key, keys, made),
    )


def _read(document: list[object]) -> tuple[Jws, dict[str, Jws]]:
    from nvattest.token.verified import DEVICE_LABEL, alike

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
    for label, part in parts.items():
        if not isinstance(label, str) or not DEVICE_LABEL.fullmatch(label):
            raise refuse(f"a submodule is called {str(label)[:40]!r}, expected GPU-n or SWITCH-n", "malformed")
        if not isinstance(part, str):
            raise refuse(f"{label} is {kind_of(part)}, expected a compact JWT", "malformed")
    if same := alike(parts.items()):
        raise refuse(f"{same[0]} and {same[1]} are one token", "submods-duplicate")
    overall = read_jws(nested[1], what=_BUNDLE)
    return overall, {label: read_jws(part, what=label) for label, part in parts.items()}


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
        match submods[label]:
            case ["DIGEST", [str() as algorithm, str() as digest]] if algorithm in _DIGEST_LABELS:
                pass
            case ["DIGEST", [*_]]:
                raise refuse(
                    f"{_BUNDLE}: the digest of {label} is not [{' or '.join(_DIGEST_LABELS)}, hex]", "digest-algorithm"
                )
            case _:
                raise refuse(f"{_BUNDLE}: submods[{label!r}] is not a digest", "malformed")
        actual = hashlib.sha256(token.compact.encode("utf-8", "surrogatepass")).hexdigest()
        if not hmac.compare_digest(digest.encode("utf-8", "surrogatepass"), actual.encode()):
            raise refuse(
                f"{label} is not the token that {_BUNDLE} was made for",
                "digest",
                hint="the digest is over the compact JWT, signature included; a part was replaced or swapped",
            )


def _check_ids(tokens: tuple[Jws, ...]) -> None:
    from nvattest.token.verified import alike

    ids = [(token.what, text_member(token, "jti", "missing-jti")) for token in tokens]
    if same := alike(ids):
        raise refuse(f"{same[1]} has the id of another token in the bundle", "submods-duplicate")
