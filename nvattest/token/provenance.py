"""How a token was made: the member ``nvattest`` of our tokens, and the digest of the evidence behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from nvattest._documents import JsonObject
from nvattest._version import __version__
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.serialize import policy_to_json
from nvattest.evidence import Evidence
from nvattest.model import VerificationTime, format_time

MEMBER: Final = "nvattest"
FORMAT_VERSION: Final = 1
OVERRIDE: Final = "policy_overrides_appraisal"
# The weakening of a token whose issuer judged validity and revocation at another time than that of issue.
ANOTHER_TIME: Final = "judged-at-another-time"
_SAME_TIME: Final = timedelta(hours=1)
_DOMAIN: Final = b"nvattest evidence digest v1\0"


def evidence_digest(appraisal: Appraisal) -> bytes:
    """The digest of all raw evidence of an appraisal, in its order: 48 bytes.

    SHA-384 of the ASCII text ``nvattest evidence digest v1`` with a zero byte after it, the number of devices (4 bytes,
    big-endian), and for each device SHA-256 of its report and SHA-256 of its certificate chain, both as they came.
    """
    return _digest(
        (bytes.fromhex(device.report_sha256), bytes.fromhex(device.chain_sha256)) for device in appraisal.devices
    )


def raw_evidence_digest(evidence: Sequence[Evidence]) -> bytes:
    """The same digest from the evidence itself, before or without an appraisal."""
    return _digest(
        (hashlib.sha256(item.report).digest(), hashlib.sha256(item.certificate_chain).digest()) for item in evidence
    )


def _digest(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    parts = [report + chain for report, chain in pairs]
    return hashlib.sha384(_DOMAIN + len(parts).to_bytes(4, "big") + b"".join(parts)).digest()


def policy_digest(policy: EvidencePolicy) -> str:
    """SHA-256 (hex) of the evidence policy as JSON: all fields, sorted, without white space."""
    text = json.dumps(policy_to_json(policy), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def verdict(appraisal: Appraisal, relying_party: Mapping[str, object] | None) -> bool:
    """What the token says overall: the appraisal, and a relying party's policy that was applied has to agree.

    A policy that overrides can make a run good, never a token: what the devices showed stays what it is.
    """
    return appraisal.trusted and (relying_party is None or relying_party.get("matched") is True)


def judged_at_another_time(at: VerificationTime, reference: datetime) -> bool:
    """Whether an instant of judgement lies more than an hour from ``reference``, the token's ``iat``.

    A chain that has expired, or that was revoked, since that instant was still good at it.
    """
    return any(abs(instant - reference) > _SAME_TIME for instant in (at.device, at.rim))


def weakenings(appraisal: Appraisal, *, issued: datetime, relying_party: Mapping[str, object] | None) -> list[str]:
    """What a token that is issued now has to say it accepts: the policy's weakenings, an override, another time."""
    names = list(appraisal.weakened)
    if relying_party is not None and relying_party.get("overrides_appraisal") is True:
        names.append(OVERRIDE)
    if judged_at_another_time(appraisal.at, issued):
        names.append(ANOTHER_TIME)
    return names


def provenance(
    appraisal: Appraisal, *, issued: datetime, relying_party: Mapping[str, object] | None = None
) -> JsonObject:
    """Policy, anchors, clock and evidence digest of an appraisal; what was weakened or simulated stands in it.

    ``issued`` is the token's ``iat``. ``relying_party`` says which relying party's policy was applied and what it said;
    with ``overrides_appraisal: true`` in it, the token counts as weakened.
    """
    weakened = weakenings(appraisal, issued=issued, relying_party=relying_party)
    made: JsonObject = {
        "format": FORMAT_VERSION,
        "version": __version__,
        "trusted": verdict(appraisal, relying_party),
        "policy": {"sha256": policy_digest(appraisal.policy), "weakened": weakened},
        "anchors": appraisal.anchors,
        "simulated": appraisal.simulated,
        "at": {"device": format_time(appraisal.at.device), "rim": format_time(appraisal.at.rim)},
        "evidence": {
            "algorithm": "SHA-384",
            "digest": evidence_digest(appraisal).hex(),
            "devices": len(appraisal.devices),
        },
    }
    if relying_party is not None:
        made["relying_party_policy"] = dict(relying_party)
    return made
