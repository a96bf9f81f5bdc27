"""A relying party's decision, and the appraisal together with it (RFC 9334, 8.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from nvattest.appraisal.check import REQUIRED, REQUIRED_PLATFORM, Outcome
from nvattest.appraisal.inputs import Source
from nvattest.appraisal.results import Appraisal
from nvattest.errors import ResultCode
from nvattest.model import NoTruthValue
from nvattest.pki.ocsp import NonceOutcome

# These platform checks bind the claims to this platform and this moment; no policy on claims can replace them.
_NEVER_OVERRIDDEN = frozenset({"devices-distinct", "one-nonce"})
_NONCE = "x-nvidia-cert-ocsp-nonce-matches"


# What a policy decides on: the claims of each device, or the payload of an EAR.
PolicyInput = Sequence[Mapping[str, object]] | Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecision(NoTruthValue):
    """A relying party's answer: ``matched``, and why, one sentence each (empty for a Rego policy that matched)."""

    matched: bool
    reasons: tuple[str, ...] = ()

    _ask: ClassVar[str] = ".matched"


def kept_answers(appraisal: Appraisal) -> frozenset[Source]:
    """The sources of revocation answers that were not made for this request: these echo no nonce."""
    chains = [
        chain for device in appraisal.devices for chain in (device.chain, *(rim.chain for rim in device.rims.values()))
    ]
    return frozenset(
        item.source
        for chain in chains
        if chain is not None
        for item in chain.revocations
        if item.source not in (None, Source.LIVE) and item.revocation.nonce is not NonceOutcome.MATCH
    )


def as_if_fresh(claims: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """The claims as if every revocation answer echoed a nonce: to find why a policy failed."""
    return [
        {
            name: {**value, _NONCE: True} if isinstance(value, Mapping) and value.get(_NONCE) is False else value
            for name, value in device.items()
        }
        for device in claims
    ]


def combine(appraisal: Appraisal, decision: PolicyDecision, *, overrides: bool = False) -> tuple[bool, ResultCode]:
    """Whether the platform is trusted with the relying party's policy, and the result code that says so.

    The policy adds to the appraisal: both have to agree. A good appraisal that the policy refuses is code 11. With
    ``overrides`` the policy decides alone, but only over an appraisal that is good, or whose failures are all of the
    kind that NVIDIA's tools report as an overall result of false (code 12): values, validity, revocation, debug,
    versions. Signatures, nonces, chains, firmware ids, reference manifests that are missing or not signed, a check
    that was never made, and a device that appears twice are beyond every policy.
    """
    if not overrides:
        if not appraisal.trusted:
            return False, _failure(appraisal.result_code)
    else:
        hard = _not_overridable(appraisal)
        if hard is not None:
            return False, hard
    return (True, ResultCode.OK) if decision.matched is True else (False, ResultCode.RP_POLICY_MISMATCH)


def _failure(code: ResultCode) -> ResultCode:
    return ResultCode.OVERALL_RESULT_FALSE if code is ResultCode.OK else code


def _not_overridable(appraisal: Appraisal) -> ResultCode | None:
    """The code of a failure that no policy may override, or None.

    All failures are looked at: the appraisal's own code is that of its first bad device, and another may be worse.
    """
    if not appraisal.devices:
        return ResultCode.OVERALL_RESULT_FALSE
    lists = [(device.checks, REQUIRED[device.kind]) for device in appraisal.devices]
    lists.append((appraisal.checks, REQUIRED_PLATFORM))
    for checks, required in lists:
        bad = [check for check in checks if not check.acceptable]
        hard = [check for check in bad if check.code is not ResultCode.OVERALL_RESULT_FALSE]
        if hard:
            # As in the appraisal, a skipped check gives its code only where no other failed.
            failed = [check for check in hard if check.outcome is not Outcome.SKIPPED] or hard
            return _failure(min(failed, key=lambda check: check.rank).code)
        if any(check.id in _NEVER_OVERRIDDEN for check in bad):
            return ResultCode.OVERALL_RESULT_FALSE
        present = {check.id for check in checks}
        if any(name not in present for name in required):
            return ResultCode.OVERALL_RESULT_FALSE
    return None
