"""Step 10 of the story in ``verifier.py``, and part of step 12: the revocation of one chain.

Find the answers about each certificate, judge each answer, choose the one that counts, and turn those of a chain into
one check under the evidence policy. Of a device chain all certificates but the leaf (NVIDIA's responder does not serve
it) and the root have answers; of a RIM chain all but the root. Sources: RFC 6960; NVAT 1.2.2 for the choice of
certificates.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from nvattest.appraisal.check import Check, Outcome, absent, failed, not_made, passed, skipped
from nvattest.appraisal.inputs import Collateral, EvidencePolicy, OcspAnswer, RevocationMode, Source
from nvattest.appraisal.memory import Basis, Memory
from nvattest.appraisal.results import CertificateRevocation
from nvattest.model import format_time
from nvattest.pki.certificate import Certificate
from nvattest.pki.chain import ChainProfile, ValidatedChain
from nvattest.pki.ocsp import NonceOutcome, Revocation
from nvattest.pki.ocsp import RevocationStatus as Status

# Statuses of an answer without authority about this certificate: it says nothing, for or against.
_NOT_AN_ANSWER = (
    Status.WRONG_CERTIFICATE, Status.MALFORMED, Status.BAD_SIGNATURE, Status.BAD_RESPONDER, Status.RESPONDER_ERROR,
    Status.NO_ANSWER, Status.UNREACHABLE,
)  # fmt: skip
# What a responder says against a certificate, short of a revocation. Age does not lift it, a newer "good" does.
_AGAINST = (Status.ON_HOLD, Status.UNKNOWN)
_STRENGTH = {Source.LIVE: 0, Source.CACHE: 1, Source.BUNDLE: 2, Source.FILE: 2}
_MODE_STRENGTH = {RevocationMode.FRESH: 0, RevocationMode.WITHIN_WINDOW: 1, RevocationMode.BUNDLE: 2}
_NEWER = "get newer answers (nvattest bundle fetch), and check the clock"
_ENDLESS = "ask the responder live: without nextUpdate only an answer to a request of ours counts, and for an hour"
# Each answer costs a signature. Two months of daily answers in one bundle are fewer; thousands are there to waste time.
MAXIMUM_ANSWERS = 64


def find_revocation(
    certificate: Certificate, issuer: Certificate, collateral: Collateral, at: datetime, memory: Memory
) -> CertificateRevocation:
    """Judge all answers about one certificate and choose the one that counts.

    A signed revocation outweighs everything, whatever its age. Otherwise the newest statement counts: a hold or an
    "unknown" counts unless a current "good" is newer, by thisUpdate and then producedAt; in the same second it counts.
    Among current good answers one to our own question comes before the others, which may be as new and are less fresh,
    then the newest. Where none of these is there, the answer that came closest is given.
    """
    index, unusable = memory.answers(collateral)
    # The serial number finds candidates; an answer about another certificate of that number is passed over.
    candidates = index.get(certificate.serial, ())
    if len(candidates) > MAXIMUM_ANSWERS:
        # Refused, not cut: a cut would let the sender choose which of them count.
        detail = f"{len(candidates)} answers are about this one certificate, at most {MAXIMUM_ANSWERS} are read"
        return _unanswered(certificate, Status.MALFORMED, detail)
    judged = [(memory.judge(answer, response, certificate, issuer, at), answer) for answer, response in candidates]
    judged = [pair for pair in judged if pair[0].status is not Status.WRONG_CERTIFICATE]
    if not judged:
        missing = collateral.unavailable.get(f"ocsp:{certificate.sha256.hex()}")
        status, detail = Status.NO_ANSWER, "no revocation answer was given"
        if missing is not None:
            status, detail = Status.UNREACHABLE, missing.message
        # Answers that name no certificate may have been about this one.
        return _unanswered(certificate, status, f"{detail}; {unusable}" if unusable else detail)

    against = max((_made(item) for item, _ in judged if item.status in _AGAINST), default=None)

    def order(pair: tuple[Revocation, OcspAnswer]) -> tuple[int, bool, float, float, bool]:
        revocation, answer = pair
        status, made = revocation.status, _made(revocation)
        if status is Status.REVOKED:
            place = 0
        elif status is Status.GOOD and (against is None or made > against):
            place = 1
        elif status in _AGAINST:
            place = 2
        else:
            place = 4 if status in _NOT_AN_ANSWER else 3
        ours = answer.source is Source.LIVE and revocation.nonce is NonceOutcome.MATCH
        # Of a hold and an "unknown" in the same second the one counts that no policy tolerates.
        return place, place == 1 and not ours, -made[0], -made[1], status is Status.ON_HOLD

    revocation, answer = min(judged, key=order)
    return CertificateRevocation(certificate=certificate, revocation=revocation, source=answer.source)


def _unanswered(certificate: Certificate, status: Status, detail: str) -> CertificateRevocation:
    revocation = Revocation(status=status, detail=detail, certificate_serial=certificate.serial)
    return CertificateRevocation(certificate=certificate, revocation=revocation, source=None)


def _made(revocation: Revocation) -> tuple[float, float]:
    """How new a statement is: the instant that it describes, then the instant at which it was signed."""
    this, produced = revocation.this_update, revocation.produced_at
    return this.timestamp() if this is not None else 0.0, produced.timestamp() if produced is not None else 0.0


def check_revocation(
    name: str, chain: ValidatedChain | None, profile: ChainProfile, basis: Basis
) -> tuple[Check, tuple[CertificateRevocation, ...]]:
    """The check of a chain, and the answer for each of its certificates, topmost first."""
    if chain is None or not chain.path_ok:
        why = "there is no readable chain" if chain is None else "the chain leads to no pinned root"
        return not_made(name, why), ()
    first, at = (1, basis.at.device) if profile is ChainProfile.DEVICE else (0, basis.at.rim)
    certificates = chain.certificates
    found = tuple(
        find_revocation(certificates[i], certificates[i + 1], basis.collateral, at, basis.memory)
        for i in range(len(certificates) - 2, first - 1, -1)
    )
    return judge_revocations(name, found, profile, basis.policy, basis.collateral), found


_SEVERITY = {Outcome.FAIL: 0, Outcome.ABSENT: 1, Outcome.SKIPPED: 2}


def judge_revocations(
    name: str,
    revocations: Sequence[CertificateRevocation],
    profile: ChainProfile,
    policy: EvidencePolicy,
    collateral: Collateral,
) -> Check:
    """One check for the answers of a chain: the worst of its certificates decides."""
    hold = "allow_certificate_hold_for_devices" if profile is ChainProfile.DEVICE else "allow_certificate_hold_for_rims"
    if not revocations:
        return absent(name, "the chain has no certificate whose revocation could be asked")
    checks = [_not_good(name, item, policy, collateral, hold) for item in revocations]
    bad = [check for check in checks if check is not None]
    expected, found = f"{len(checks)} of {len(checks)} good", f"{len(checks) - len(bad)} of {len(checks)} good"
    if not bad:
        return passed(name, _summary(revocations), expected=expected, found=found)
    # A tolerated certificate must not carry another one that is not tolerated.
    worst = min(bad, key=lambda check: (check.acceptable, _SEVERITY[check.outcome]))
    return worst._replace(expected=expected, found=found)


def _summary(revocations: Sequence[CertificateRevocation]) -> str:
    nonces = sum(item.revocation.nonce is NonceOutcome.MATCH for item in revocations)
    ends = [item.revocation.next_update for item in revocations if item.revocation.next_update is not None]
    until = f", until {format_time(min(ends))}" if ends else ""
    count = f"{len(revocations)} answers, all good"
    if nonces == len(revocations):
        return f"{count}, each with our nonce{until}"
    sources = sorted({item.source.value for item in revocations if item.source is not None})
    return f"{count}, from {' and '.join(sources)}: the signed window stands in for the nonce{until}"


def _not_good(
    name: str, item: CertificateRevocation, policy: EvidencePolicy, collateral: Collateral, hold: str
) -> Check | None:
    """The check of a certificate whose answer is not good, or not fresh enough; None where it is both.

    ``hold`` names the policy option that accepts certificateHold.
    """
    revocation, status = item.revocation, item.revocation.status
    if status is Status.GOOD and item.source is not None:
        return _not_fresh(name, item, policy)
    detail = f"{item.certificate.label}: {revocation.detail}"
    if status is Status.STALE:
        hint = _NEWER if revocation.next_update is not None else _ENDLESS
        if policy.accept_stale_ocsp:
            return skipped(name, detail, hint=hint, tolerated_by="accept_stale_ocsp")
        return failed(name, detail, hint=hint)
    if status is Status.ON_HOLD:
        # An older answer may say "hold" of what is revoked for good by now, so it has to be as fresh as a good one.
        if not revocation.current:
            return failed(name, detail, hint=_NEWER)
        if not getattr(policy, hold):
            return failed(name, detail, hint=f"NVIDIA has suspended it; {hold} accepts that")
        stale = _not_fresh(name, item, policy)
        return stale if stale is not None and not stale.tolerated_by else skipped(name, detail, tolerated_by=hold)
    if status in (Status.NO_ANSWER, Status.UNREACHABLE):
        tolerated = "accept_unchecked_revocation" if policy.accept_unchecked_revocation else ""
        missing = collateral.unavailable.get(f"ocsp:{item.certificate.sha256.hex()}")
        hint, code = "give OCSP answers in the bundle, or allow the network", None
        if missing is not None:
            hint, code = missing.hint, missing.code
        return absent(name, detail, hint=hint, tolerated_by=tolerated, code=code)
    hints = {
        Status.NOT_YET_VALID: _clock_hint(revocation),
        Status.REVOKED: "do not use this device or driver version; ask NVIDIA why it was revoked",
        Status.UNKNOWN: "the responder does not know this certificate; update the RIM or ask NVIDIA",
        Status.BAD_RESPONDER: "its signer does not, or no longer, speak for the issuer: get newer answers "
        "(nvattest bundle fetch), and check the clock",
    }
    hint = hints.get(status, "get the answer again; it was altered, is not for us, or is one of too many")
    return failed(name, detail, hint=hint)


def _clock_hint(revocation: Revocation) -> str:
    if revocation.nonce is NonceOutcome.MATCH:
        return (
            "check this machine's clock (and --at), which is probably behind; where it is right, the responder's is "
            "ahead, or a mirror's or proxy's that answers in its place"
        )
    return "check this machine's clock (and --at); where it is right, get the answer again (nvattest bundle fetch)"


def _not_fresh(name: str, item: CertificateRevocation, policy: EvidencePolicy) -> Check | None:
    """The check of an answer inside its window that is not fresh enough for the policy; None where it is."""
    revocation, source = item.revocation, item.source
    if source is Source.LIVE and revocation.nonce is not NonceOutcome.MATCH:
        return skipped(
            name, f"{item.certificate.label}: the responder's answer does not carry our nonce",
            tolerated_by="accept_live_ocsp_without_nonce" if policy.accept_live_ocsp_without_nonce else "",
            hint="a caching proxy in between? accept_live_ocsp_without_nonce accepts its signed window instead",
        )  # fmt: skip
    if source is None or _STRENGTH[source] > _MODE_STRENGTH[policy.revocation]:
        origin, mode = "nowhere" if source is None else f"the {source.value}", policy.revocation.value
        detail = f"{item.certificate.label}: {revocation.status.value}, but from {origin}, and the policy wants {mode}"
        return skipped(name, detail, hint="allow the network, or choose another revocation mode in the policy")
    return None
