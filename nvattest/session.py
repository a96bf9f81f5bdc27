"""The wiring: evidence and collateral in, an appraisal out. Only this module reads the clock for a verification."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from nvattest.appraisal.inputs import Collateral
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.verifier import Verifier
from nvattest.evidence import Evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors


def verify(
    evidence: Sequence[Evidence],
    *,
    collateral: Collateral,
    nonce: Nonce | None,
    at: VerificationTime | None = None,
    policy: EvidencePolicy | None = None,
    anchors: TrustAnchors = NVIDIA_ANCHORS,
) -> Appraisal:
    """Verify evidence with collateral at hand, without a network or a driver.

    Args:
        evidence: of all devices of one platform, as ``load_evidence`` gives it.
        collateral: RIMs and revocation answers, as ``load_bundle`` gives them.
        nonce: the 32 bytes that the caller sent; None cannot be trusted under the default policy.
        at: the clock; now by default.
        policy: what is demanded; strict by default.
        anchors: the trust anchors; NVIDIA's pinned roots by default.

    Bad evidence raises nothing: the appraisal says what failed. For many verifications keep one ``Verifier``.
    """
    if at is None:
        at = now()
    return Verifier(anchors=anchors, policy=policy).appraise(evidence, nonce=nonce, collateral=collateral, at=at)


def now() -> VerificationTime:
    """This machine's clock, for everything; read it after evidence and collateral are there.

    Whole seconds, as in certificates and answers: within one of them a verifier recognises what it has judged.
    """
    return VerificationTime.at(datetime.now(timezone.utc).replace(microsecond=0))
