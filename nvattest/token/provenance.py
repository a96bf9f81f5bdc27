"""How a token of ours was made: issuer, times and ids (RFC 7519, 4.1); and the member ``nvattest``, made and read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from nvattest._documents import JsonObject
from nvattest._package import __version__
from nvattest._registry import CPU_MAKERS
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.appraisal.results import Appraisal, DeviceAppraisal, policy_to_json
from nvattest.errors import InputError
from nvattest.model import VerificationTime, format_time, parse_time
from nvattest.token.binding import evidence_digest
from nvattest.token.jws import Jws, instant, refuse
from nvattest.token.keys import PublicKey

# Not NVIDIA's "NVAT-LOCAL-VERIFIER": tokens of that issuer are unsigned by default and must not be confused with ours.
DEFAULT_ISSUER: Final = "NVATTEST-LOCAL-VERIFIER"
DEFAULT_LIFETIME: Final = timedelta(hours=1)
MAXIMUM_LIFETIME: Final = timedelta(days=7)
MEMBER: Final = "nvattest"
FORMAT_VERSION: Final = 1
OVERRIDE: Final = "policy_overrides_appraisal"
# The weakening of a token whose issuer judged validity and revocation at another time than that of issue.
ANOTHER_TIME: Final = "judged-at-another-time"
# That of a token about a guest whose quote was judged by other roots than the makers'.
GUEST_ANCHORS: Final = "guest-anchors"
_OF_GUESTS: Final = ("any guest", "tdx.", "snp.", GUEST_ANCHORS)
_SAME_TIME: Final = timedelta(hours=1)
_ISSUER = re.compile(r"[!-~]{1,256}")
_ID = re.compile(r"[!-~]{16,128}")


def registered_claims(
    *, issuer: str, now: datetime, lifetime: timedelta, new_id: Callable[[], str]
) -> Callable[[], JsonObject]:
    """A maker of ``iss``, ``iat``, ``nbf``, ``exp`` and a new ``jti``, for each token of one bundle.

    Raises:
        InputError: an issuer that is empty, long or not printable ASCII; a time without a zone; a lifetime that is not
            positive or longer than a week. The maker: a source of ids that gives one twice, or a text that cannot be an
            id (code ``token-id``).
    """
    if not _ISSUER.fullmatch(issuer):
        raise InputError(
            f"not an issuer: {issuer[:80]!r}",
            code="issuer",
            hint="give 1 to 256 printable ASCII characters without spaces",
        )
    if now.utcoffset() is None:
        raise InputError("the time of issue has no time zone", code="time-zone")
    seconds = int(lifetime.total_seconds())
    if not 0 < seconds <= MAXIMUM_LIFETIME.total_seconds():
        raise InputError(f"a token lives 1 second to 7 days, not {lifetime}", code="lifetime")
    issued = int(now.timestamp())
    used: set[str] = set()

    def claims() -> JsonObject:
        jti = new_id()
        if jti in used or not _ID.fullmatch(jti):
            raise InputError("the source of token ids gave an id twice or a poor one", code="token-id")
        used.add(jti)
        return {"iss": issuer, "iat": issued, "nbf": issued, "exp": issued + seconds, "jti": jti}

    return claims


def claims_by_device(
    appraisal: Appraisal, claims: Sequence[JsonObject]
) -> tuple[tuple[DeviceAppraisal, JsonObject], ...]:
    """Each device with its claims object.

    Raises:
        InputError: the appraisal has no device (code ``no-devices``), or there are more or fewer claims than devices
            (code ``claims``).
    """
    if not appraisal.devices:
        raise InputError("an appraisal without devices makes no token", code="no-devices")
    if len(claims) != len(appraisal.devices):
        raise InputError(f"{len(claims)} claims objects for {len(appraisal.devices)} devices", code="claims")
    return tuple(zip(appraisal.devices, claims, strict=True))


def policy_digest(policy: EvidencePolicy) -> str:
    """SHA-256 (hex) of the evidence policy as JSON: all fields, sorted, without white space."""
    return json_digest(policy_to_json(policy))


def json_digest(value: JsonObject) -> str:
    """SHA-256 (hex) of a JSON object: members sorted, without white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def verdict(appraisal: Appraisal, relying_party: Mapping[str, object] | None) -> bool:
    """The overall result: the appraisal is trusted, and a relying party's policy that was applied matched.

    A policy that overrides can make a run good, never a token: it does not change what the devices showed.
    """
    return appraisal.trusted and (relying_party is None or relying_party.get("matched") is True)


def judged_at_another_time(at: VerificationTime, reference: datetime) -> bool:
    """Whether an instant of judgement lies more than an hour from ``reference``, the token's ``iat``.

    A chain that has expired, or that was revoked, since that instant was still good at it.
    """
    return any(abs(judged - reference) > _SAME_TIME for judged in (at.device, at.rim))


def weakenings(appraisal: Appraisal, *, issued: datetime, relying_party: Mapping[str, object] | None) -> list[str]:
    """What a token that is issued now has to say it accepts: the policy's weakenings, an override, another time."""
    names = list(appraisal.weakened)
    if relying_party is not None and relying_party.get("overrides_appraisal") is True:
        names.append(OVERRIDE)
    guest = appraisal.guest
    if guest is not None and guest.anchors != CPU_MAKERS:
        names.append(GUEST_ANCHORS)
    instants = (appraisal.at, *([VerificationTime.at(guest.at)] if guest is not None else []))
    if any(judged_at_another_time(at, issued) for at in instants):
        names.append(ANOTHER_TIME)
    return names


def provenance(
    appraisal: Appraisal, *, issued: datetime, relying_party: Mapping[str, object] | None = None
) -> JsonObject:
    """The member ``nvattest``: policy, anchors, clock and evidence digest; whether it was weakened or simulated.

    ``issued`` is the token's ``iat``. ``relying_party`` says which relying party's policy was applied, and its result;
    with ``overrides_appraisal: true`` in it, the token counts as weakened.
    """
    digests = [
        (bytes.fromhex(device.report_sha256), bytes.fromhex(device.chain_sha256)) for device in appraisal.devices
    ]
    made: JsonObject = {
        "format": FORMAT_VERSION,
        "version": __version__,
        "trusted": verdict(appraisal, relying_party),
        "policy": {
            "sha256": policy_digest(appraisal.policy),
            "weakened": weakenings(appraisal, issued=issued, relying_party=relying_party),
        },
        "anchors": appraisal.anchors,
        "simulated": appraisal.simulated,
        "at": {"device": format_time(appraisal.at.device), "rim": format_time(appraisal.at.rim)},
        "evidence": {"algorithm": "SHA-384", "digest": evidence_digest(digests).hex(), "devices": len(digests)},
    }
    if appraisal.guest is not None:
        guest = appraisal.guest
        made["guest"] = {"trusted": guest.trusted, "anchors": guest.anchors, "strength": guest.strength.value}
    if relying_party is not None:
        made["relying_party_policy"] = dict(relying_party)
    return made


class Provenance(NamedTuple):
    """The member ``nvattest`` of a verified token; empty for tokens of others.

    ``weakened`` has all names, also the one of another time where the token itself omits it.
    """

    simulated: bool = False
    anchors: str | None = None
    weakened: tuple[str, ...] = ()
    evidence_digest: bytes | None = None
    trusted: bool | None = None
    at: VerificationTime | None = None

    @property
    def lenient(self) -> bool:
        """Whether a policy let checks pass that the claims of a device show as failed: what is said of the instant and
        of the guest changes no such claim.
        """
        return any(name != ANOTHER_TIME and not name.startswith(_OF_GUESTS) for name in self.weakened)


def read_provenance(token: Jws, key: PublicKey) -> Provenance:
    """The member ``nvattest`` of a token whose signature was verified with ``key``.

    Raises:
        TokenError: it is there and not as we write it (``malformed``), or ``cnf`` names another key (``cnf``).
    """
    member = token.payload.get(MEMBER)
    if member is None:
        return Provenance()
    try:
        made = _read(member, token.payload.get("iat"))
        confirmed = PublicKey.from_jwk(token.payload["cnf"]["jwk"])  # type: ignore[index]
    except (KeyError, TypeError, AttributeError, ValueError, InputError):
        raise refuse(f"{token.what}: the member {MEMBER!r} or cnf is not as nvattest writes it", "malformed") from None
    if confirmed != key:
        raise refuse(f"{token.what} confirms the key {confirmed.thumbprint}, but {key.thumbprint} signed it", "cnf")
    return made


def _read(member: object, issued: object) -> Provenance:
    if not isinstance(member, dict) or not isinstance(issued, int):
        raise TypeError
    at = VerificationTime(device=parse_time(member["at"]["device"]), rim=parse_time(member["at"]["rim"]))
    simulated, trusted, anchors = member["simulated"], member["trusted"], member["anchors"]
    weakened = member["policy"]["weakened"]
    if type(simulated) is not bool or type(trusted) is not bool or not isinstance(anchors, str):
        raise TypeError
    if not isinstance(weakened, list) or not all(isinstance(name, str) for name in weakened):
        raise TypeError
    if ANOTHER_TIME not in weakened and judged_at_another_time(at, instant(issued)):
        weakened = [*weakened, ANOTHER_TIME]
    guest = member.get("guest")
    if guest is not None and guest["anchors"] != CPU_MAKERS and GUEST_ANCHORS not in weakened:
        weakened = [*weakened, GUEST_ANCHORS]
    digest = bytes.fromhex(member["evidence"]["digest"])
    if len(digest) != 48:
        raise ValueError
    policy = member.get("relying_party_policy")
    if policy is not None:
        if policy["overrides_appraisal"] is True and OVERRIDE not in weakened:
            raise ValueError
        if policy["matched"] is not True and trusted:
            raise ValueError
    return Provenance(
        simulated=simulated, anchors=anchors, weakened=tuple(weakened), evidence_digest=digest, trusted=trusted, at=at
    )
