"""Verify tokens: detached EATs of nvattest and of NVIDIA's service, and EARs. Numbered steps, each with its refusals.

1. The shape: size, kinds of values, one compact JWT per name, ES384 and nothing else, no repeated member.
2. Digests: every submodule is the token that the overall token names, none is missing, surplus or there twice.
3. What each token claims of itself: exp, iat, iss and the nonce, required in every token (see ``verified``), and nbf.
4. Keys and signatures: the overall token and every submodule.
5. Identities: as many devices as expected, no device twice.
6. Consistency: a good overall result needs good devices; the result names what was weakened or simulated, and simulated
   results are refused unless the caller accepts them.

Steps 2 and 3 come before 4 so that an old token is reported as old even where its key is gone. Only a token that passes
all steps is returned, so that nothing is believed before its signature is.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from nvattest._documents import JsonObject, kind_of, load_json
from nvattest._text import base64_bytes
from nvattest.appraisal.guest import DeviceSide, GuestAppraisal
from nvattest.errors import ParseError
from nvattest.evidence import MAXIMUM_DEVICES
from nvattest.model import Nonce, require_type
from nvattest.token.binding import derive_device_nonce
from nvattest.token.claims import DIGEST_LABELS, MEMBER, OVERALL, SUBJECT, read_provenance
from nvattest.token.ear import STATUSES, VECTOR_CLAIMS, Tier, tier_of
from nvattest.token.jose import (
    MAXIMUM_TOKEN,
    Jws,
    Keyring,
    instant,
    read_jws,
    refuse,
    seconds,
    text_member,
    verify_signature,
)
from nvattest.token.verified import (
    ANY_DEVICES,
    DEVICE_LABEL,
    EAR_DEVICE_LABEL,
    EAR_MEMBER,
    EAT_MEMBER,
    SHOWN_TWICE,
    Expected,
    Rules,
    TokenKind,
    VerifiedToken,
    alike,
    check_counts,
    check_good_device,
    check_identities,
    refusals_of,
    vouched_for,
)

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


# --- detached EATs ----------------------------------------------------------------------------------------------------

_BUNDLE = "the overall token"
_REGISTERED = frozenset({"iss", "iat", "nbf", "exp", "jti"})


def verify_eat(
    document: list[object], *, rules: Rules, keys: Keyring, expected: Expected, kind: TokenKind
) -> VerifiedToken:
    """Verify a detached EAT that was read as an array. Raises TokenError: it must not be believed."""
    # 1. The shape.
    overall, detached = _parts(document)
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


def _parts(document: list[object]) -> tuple[Jws, dict[str, Jws]]:
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
            case ["DIGEST", [str() as algorithm, str() as digest]] if algorithm in DIGEST_LABELS:
                pass
            case ["DIGEST", [*_]]:
                raise refuse(
                    f"{_BUNDLE}: the digest of {label} is not [{' or '.join(DIGEST_LABELS)}, hex]", "digest-algorithm"
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
    ids = [(token.what, text_member(token, "jti", "missing-jti")) for token in tokens]
    if same := alike(ids):
        raise refuse(f"{same[1]} has the id of another token in the bundle", "submods-duplicate")


# --- EARs -------------------------------------------------------------------------------------------------------------


def verify_ear(compact: str, *, rules: Rules, keys: Keyring, expected: Expected) -> VerifiedToken:
    """Verify an EAR. Raises TokenError: it must not be believed."""
    # 1. The shape.
    token = read_jws(compact, what="the EAR")
    text_member(token, "eat_profile", "malformed")
    submods = token.payload.get("submods")
    if not isinstance(submods, dict) or not submods:
        raise refuse("the EAR has no submodules", "submods-missing")
    if len(submods) > MAXIMUM_DEVICES + 8:
        raise refuse(f"{len(submods)} submodules, at most {MAXIMUM_DEVICES + 8} are read", "too-large")
    tiers = {label: _submodule_tier(label, value) for label, value in submods.items()}
    # 2. There are no detached parts; the devices are the submodules named like some.
    devices = tuple(label for label in submods if EAR_DEVICE_LABEL.fullmatch(label))
    check_counts(devices, expected)
    # 3. Times, issuer, nonce.
    rules.check(token, may_be_anonymous=True)
    # 4. Key and signature.
    key = keys.key_for(token, at=rules.at)
    verify_signature(token, key)
    # 5. Identities.
    claims = tuple(_nvidia_claims(submods[label]) for label in devices)
    check_identities(devices, claims)
    _check_keys(submods, devices)
    # 6. Consistency.
    made = read_provenance(token, key)
    overall = all(tier is Tier.AFFIRMING for tier in tiers.values())
    status = _status(token.payload, "the EAR", required=False)
    if status is not None:
        if status is not Tier.NONE and status < max(tiers.values()):
            raise refuse("the EAR as a whole is better than its worst submodule", "overall-inconsistent")
        overall = overall and status is Tier.AFFIRMING
    if overall and made.trusted is False:
        raise refuse("all submodules are affirming, but the platform was not trusted", "overall-inconsistent")
    # An affirming EAR about no GPU and no switch says nothing of those that were asked about.
    overall = overall and bool(devices)
    refusals = {label: refusals_of(label, submodule.get(EAR_MEMBER)) for label, submodule in submods.items()}
    for label, reasons in refusals.items():
        if reasons and tiers[label] is Tier.AFFIRMING:
            raise refuse(f"{label} is affirming, and refused: {reasons[0]}", "overall-inconsistent")
    for label, item in zip(devices, claims, strict=True):
        if tiers[label] is Tier.AFFIRMING:
            _check_nvat(label, submods[label], rules)
            if item:
                check_good_device(label, item, weakened=made.lenient)
    return VerifiedToken(
        kind=TokenKind.EAR,
        overall=overall,
        expires=instant(seconds(token, "exp")),
        labels=devices,
        claims=claims,
        statuses={label: tier.word for label, tier in tiers.items()},
        refusals=tuple(reason for reasons in refusals.values() for reason in reasons),
        **vouched_for(token, key, keys, made),
    )


def _status(members: JsonObject, what: str, *, required: bool) -> Tier | None:
    found = [members[name] for name in ("ear.status", "ear_status") if name in members]
    if not found and not required:
        return None
    word = found[0] if len(found) == 1 else None
    if not isinstance(word, str) or word not in STATUSES:
        raise refuse(f"{what} has no single ear.status out of {', '.join(STATUSES)}", "malformed")
    return STATUSES[word]


def _submodule_tier(label: str, value: object) -> Tier:
    if not isinstance(value, dict):
        raise refuse(f"{label} is {kind_of(value)}, expected an appraisal", "malformed")
    status = _status(value, label, required=True) or Tier.NONE
    for name in ("ear.trustworthiness-vector", "ear_trustworthiness_vector"):
        if name not in value:
            continue
        worst = _worst(label, value[name])
        if status is not Tier.NONE and status < worst:
            raise refuse(
                f"{label} calls itself {status.word}, its trustworthiness vector is {worst.word}",
                "overall-inconsistent",
            )
    return status


def _worst(label: str, vector: object) -> Tier:
    if not isinstance(vector, dict):
        raise refuse(f"{label}: the trustworthiness vector is {kind_of(vector)}", "malformed")
    worst = Tier.NONE
    for name, value in vector.items():
        if name.replace("_", "-") not in VECTOR_CLAIMS or type(value) is not int or not -128 <= value <= 127:
            raise refuse(f"{label}: {str(name)[:40]!r} is no claim of a trustworthiness vector", "malformed")
        worst = max(worst, tier_of(value))
    return worst


def _check_nvat(label: str, submodule: JsonObject, rules: Rules) -> None:
    """Refuse an affirming submodule that contradicts itself or answers another request.

    Without these facts NVAT affirms nothing. Its overall ``eat_nonce`` repeats the one beside the evidence, which an
    attacker with an old recording can write; the submodule has the nonce that the device answered.
    """
    facts = _nvat_facts(label, submodule)
    for name in ("signature_verified", "parsed", "nonce_match"):
        if facts is not None and facts.get(name, True) is not True:
            raise refuse(f"{label} is affirming, but its {name} is {str(facts[name])[:40]}", "overall-inconsistent")
    if "eat_nonce" in submodule or (facts is not None and "nonce_match" not in facts):
        rules.check_nonce(label, submodule.get("eat_nonce"))


def _check_keys(submods: Mapping[str, JsonObject], labels: Iterable[str]) -> None:
    """Refuse two devices with one attestation key: NVAT names no device, and its labels are those of the evidence."""
    keys = [(label, (_nvat_facts(label, submods[label]) or {}).get("akpub")) for label in labels]
    if same := alike((label, "".join(key.split())) for label, key in keys if isinstance(key, str)):
        raise refuse(f"{same[0]} and {same[1]} have one attestation key", "device-duplicate", hint=SHOWN_TWICE)


def _nvat_facts(label: str, submodule: JsonObject) -> JsonObject | None:
    """What NVAT found out about the evidence; None in EARs of others."""
    found: object = submodule
    for name in ("ear_verifier_claims", "ear_nvidia_evidence"):
        if not isinstance(found, dict):
            raise refuse(f"{label}: {name} is not in an object", "malformed")
        if name not in found:
            return None
        found = found[name]
    if not isinstance(found, dict):
        raise refuse(f"{label}: ear_nvidia_evidence is {kind_of(found)}, expected an object", "malformed")
    return found


def _nvidia_claims(submodule: JsonObject) -> JsonObject:
    evidence = submodule.get("ear.veraison.annotated-evidence")
    claims = evidence.get("nvidia") if isinstance(evidence, dict) else None
    return claims if isinstance(claims, dict) else {}
