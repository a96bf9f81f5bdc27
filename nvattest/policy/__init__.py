"""Policies: what the verifier demands of evidence (from a file), and what a relying party demands of the claims."""

from __future__ import annotations

from nvattest.policy.decision import PolicyDecision, combine
from nvattest.policy.evidence_policy import dump_evidence_policy, load_evidence_policy
from nvattest.policy.relying_party import PolicyLanguage, RelyingPartyPolicy, load_policy

__all__ = [
    "PolicyDecision",
    "PolicyLanguage",
    "RelyingPartyPolicy",
    "combine",
    "dump_evidence_policy",
    "load_evidence_policy",
    "load_policy",
]
