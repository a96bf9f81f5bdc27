"""Which answer about a certificate counts, how fresh it has to be by its source, and what becomes of each status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from nvattest.appraisal.check import Outcome
from nvattest.appraisal.inputs import Collateral, EvidencePolicy, OcspAnswer, RevocationMode, Source, Unavailable
from nvattest.appraisal.results import CertificateRevocation
from nvattest.appraisal.revocation import MAXIMUM_ANSWERS, find_revocation, judge_revocations
from nvattest.errors import ResultCode
from nvattest.pki.chain import ChainProfile
from nvattest.pki.ocsp import NonceOutcome, Revocation, RevocationStatus

NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)
CERTIFICATE = SimpleNamespace(label="BROM", serial=7, sha256=b"\1" * 32)


def item(
    status: RevocationStatus,
    source: Source | None = Source.BUNDLE,
    nonce: NonceOutcome = NonceOutcome.NOT_SENT,
    *,
    in_window: bool = True,
) -> CertificateRevocation:
    revocation = Revocation(
        status=status, detail=status.value, certificate_serial=7, nonce=nonce, this_update=NOW, in_window=in_window
    )
    return CertificateRevocation(certificate=CERTIFICATE, revocation=revocation, source=source)  # type: ignore[arg-type]


def judge(policy: EvidencePolicy, *items: CertificateRevocation, of_device: bool = True, **more) -> tuple[Outcome, str]:
    profile = ChainProfile.DEVICE if of_device else ChainProfile.RIM
    check = judge_revocations("chain-revocation", items, profile, policy, Collateral(**more))
    return check.outcome, check.tolerated_by


GOOD = RevocationStatus.GOOD
STRICT = EvidencePolicy()


@pytest.mark.parametrize(
    ("mode", "source", "nonce", "outcome"),
    [
        (RevocationMode.FRESH, Source.LIVE, NonceOutcome.MATCH, Outcome.PASS),
        (RevocationMode.FRESH, Source.CACHE, NonceOutcome.NOT_SENT, Outcome.SKIPPED),
        (RevocationMode.FRESH, Source.BUNDLE, NonceOutcome.NOT_SENT, Outcome.SKIPPED),
        (RevocationMode.WITHIN_WINDOW, Source.LIVE, NonceOutcome.MATCH, Outcome.PASS),
        (RevocationMode.WITHIN_WINDOW, Source.CACHE, NonceOutcome.NOT_SENT, Outcome.PASS),
        (RevocationMode.WITHIN_WINDOW, Source.BUNDLE, NonceOutcome.NOT_SENT, Outcome.SKIPPED),
        (RevocationMode.BUNDLE, Source.LIVE, NonceOutcome.MATCH, Outcome.PASS),
        (RevocationMode.BUNDLE, Source.CACHE, NonceOutcome.NOT_SENT, Outcome.PASS),
        (RevocationMode.BUNDLE, Source.BUNDLE, NonceOutcome.NOT_SENT, Outcome.PASS),
    ],
)
def test_each_mode_accepts_what_is_at_least_as_fresh(
    mode: RevocationMode, source: Source, nonce: NonceOutcome, outcome: Outcome
) -> None:
    policy = EvidencePolicy(revocation=mode)
    assert judge(policy, item(GOOD, source, nonce)) == (outcome, "")


@pytest.mark.parametrize("mode", RevocationMode)
@pytest.mark.parametrize("nonce", [NonceOutcome.ABSENT, NonceOutcome.NOT_SENT, NonceOutcome.MISMATCH])
def test_an_answer_over_the_network_must_carry_our_nonce_in_every_mode(
    mode: RevocationMode, nonce: NonceOutcome
) -> None:
    policy = EvidencePolicy(revocation=mode)
    assert judge(policy, item(GOOD, Source.LIVE, nonce)) == (Outcome.SKIPPED, "")
    weak = replace(policy, accept_live_ocsp_without_nonce=True)
    assert judge(weak, item(GOOD, Source.LIVE, nonce)) == (Outcome.SKIPPED, "accept_live_ocsp_without_nonce")


def test_a_good_answer_from_nowhere_does_not_count() -> None:
    assert judge(ALL_ON, item(GOOD, None)) == (Outcome.FAIL, "")


@pytest.mark.parametrize("status", [status for status in RevocationStatus if status is not GOOD])
@pytest.mark.parametrize("source", Source)
def test_no_other_status_is_acceptable_under_the_strict_policy(status: RevocationStatus, source: Source) -> None:
    outcome, tolerated_by = judge(STRICT, item(status, source, NonceOutcome.MATCH))
    assert outcome in (Outcome.FAIL, Outcome.ABSENT)
    assert tolerated_by == ""


TOLERABLE = {
    RevocationStatus.STALE: "accept_stale_ocsp",
    RevocationStatus.ON_HOLD: "allow_certificate_hold_for_devices",
    RevocationStatus.NO_ANSWER: "accept_unchecked_revocation",
    RevocationStatus.UNREACHABLE: "accept_unchecked_revocation",
}
ALL_ON = EvidencePolicy(
    accept_stale_ocsp=True,
    allow_certificate_hold_for_devices=True,
    allow_certificate_hold_for_rims=True,
    accept_unchecked_revocation=True,
    accept_live_ocsp_without_nonce=True,
)


@pytest.mark.parametrize("status", [status for status in RevocationStatus if status is not GOOD])
def test_only_four_statuses_can_be_tolerated_each_by_its_own_option(status: RevocationStatus) -> None:
    outcome, tolerated_by = judge(ALL_ON, item(status))
    assert tolerated_by == TOLERABLE.get(status, "")
    if status in TOLERABLE:
        assert outcome in (Outcome.SKIPPED, Outcome.ABSENT)
        off = replace(ALL_ON, **{tolerated_by: False})
        assert judge(off, item(status))[1] == ""
    else:
        assert outcome is Outcome.FAIL


def test_a_hold_has_to_be_as_fresh_as_a_good_answer() -> None:
    # By now the hold may have become a revocation for good.
    policy = EvidencePolicy(revocation=RevocationMode.FRESH, allow_certificate_hold_for_devices=True)
    hold = RevocationStatus.ON_HOLD
    tolerated = (Outcome.SKIPPED, "allow_certificate_hold_for_devices")
    assert judge(policy, item(hold, Source.LIVE, NonceOutcome.MATCH)) == tolerated
    assert judge(policy, item(hold, Source.BUNDLE)) == (Outcome.SKIPPED, "")
    assert judge(policy, item(hold, Source.LIVE, NonceOutcome.ABSENT)) == (Outcome.SKIPPED, "")
    bundle = replace(policy, revocation=RevocationMode.BUNDLE)
    assert judge(bundle, item(hold, Source.BUNDLE)) == tolerated


def test_a_hold_that_is_not_current_is_tolerated_by_no_option() -> None:
    hold = RevocationStatus.ON_HOLD
    for old in (item(hold, in_window=False), item(hold, Source.LIVE, NonceOutcome.MISMATCH)):
        assert judge(ALL_ON, old) == (Outcome.FAIL, "")


def test_one_bad_certificate_decides_for_the_chain() -> None:
    good = item(GOOD)
    for status in RevocationStatus:
        if status is not GOOD:
            for chain in ((good, item(status)), (item(status), good), (good, item(status), good)):
                assert judge(STRICT, *chain)[0] is not Outcome.PASS
    # What is tolerated must not hide what is not, whichever is graver.
    weak = EvidencePolicy(allow_certificate_hold_for_devices=True)
    missing = item(RevocationStatus.NO_ANSWER, None)
    assert judge(weak, item(RevocationStatus.ON_HOLD), missing) == (Outcome.ABSENT, "")


def test_a_chain_without_a_certificate_to_ask_about_is_absent() -> None:
    assert judge(ALL_ON) == (Outcome.ABSENT, "")


def test_why_an_answer_could_not_be_had_gives_its_code() -> None:
    why = Unavailable(code=ResultCode.OCSP_SERVER_ERROR, message="no route", hint="look at the proxy")
    collateral = Collateral(unavailable={f"ocsp:{CERTIFICATE.sha256.hex()}": why})
    found = find([], lambda *_: pytest.fail("there is nothing to judge"), collateral)
    assert found.revocation.status is RevocationStatus.UNREACHABLE
    check = judge_revocations("chain-revocation", [found], ChainProfile.DEVICE, STRICT, collateral)
    assert (check.outcome, check.code, check.hint) == (
        Outcome.ABSENT,
        ResultCode.OCSP_SERVER_ERROR,
        "look at the proxy",
    )


# --- which answer counts -----------------------------------------------------------------------------------------------


def find(
    answers: Sequence[OcspAnswer], judge_one: Callable[..., Revocation], collateral: Collateral | None = None
) -> CertificateRevocation:
    """The answer that counts among these about the certificate, as ``judge_one`` judges them."""
    pairs = [(answer, SimpleNamespace(serial=7)) for answer in answers]
    memory = SimpleNamespace(answers=lambda _: ({7: pairs}, ""), judge=judge_one)
    return find_revocation(CERTIFICATE, CERTIFICATE, collateral or Collateral(), NOW, memory)  # type: ignore[arg-type]


def choose(*statuses: tuple[RevocationStatus, int]) -> RevocationStatus:
    """The status that counts among answers with these statuses, each so many hours old."""
    told = {}
    answers = []
    for number, (status, hours) in enumerate(statuses):
        answer = OcspAnswer(content=bytes([number]), source=Source.BUNDLE)
        told[answer.content] = Revocation(
            status=status, detail="", certificate_serial=7, this_update=NOW - timedelta(hours=hours)
        )
        answers.append(answer)
    return find(answers, lambda answer, *_: told[answer.content]).revocation.status


REVOKED, HOLD, STALE = RevocationStatus.REVOKED, RevocationStatus.ON_HOLD, RevocationStatus.STALE
UNKNOWN = RevocationStatus.UNKNOWN


def test_a_revocation_outweighs_everything_however_old_it_is() -> None:
    for other in (GOOD, HOLD, UNKNOWN):
        assert choose((other, 0), (REVOKED, 100)) is REVOKED
        assert choose((REVOKED, 100), (other, 0)) is REVOKED


@pytest.mark.parametrize("against", [HOLD, UNKNOWN])
def test_of_a_good_answer_and_one_against_the_certificate_the_newer_counts(against: RevocationStatus) -> None:
    for newer, older in ((GOOD, against), (against, GOOD)):
        assert choose((newer, 0), (older, 1)) is newer
        assert choose((older, 1), (newer, 0)) is newer
    # In the same second nothing shows that it was lifted.
    assert choose((GOOD, 1), (against, 1)) is against
    assert choose((against, 1), (GOOD, 1)) is against


def test_a_hold_that_came_back_counts_and_one_that_was_lifted_twice_does_not() -> None:
    assert choose((GOOD, 3), (HOLD, 2), (GOOD, 1), (HOLD, 0)) is HOLD
    assert choose((HOLD, 3), (GOOD, 2), (HOLD, 1), (GOOD, 0)) is GOOD


def test_only_a_current_good_answer_lifts_a_hold() -> None:
    for status in (STALE, RevocationStatus.NOT_YET_VALID, RevocationStatus.NONCE_MISMATCH):
        assert choose((status, 0), (HOLD, 1)) is HOLD
        assert choose((status, 0), (UNKNOWN, 1)) is UNKNOWN


def test_of_a_hold_and_an_unknown_the_newer_counts_and_in_one_second_the_unknown() -> None:
    assert choose((HOLD, 0), (UNKNOWN, 1)) is HOLD
    assert choose((UNKNOWN, 0), (HOLD, 1)) is UNKNOWN
    assert choose((HOLD, 1), (UNKNOWN, 1)) is UNKNOWN


def test_of_two_statements_about_one_instant_the_one_signed_later_counts() -> None:
    def chosen(*said: tuple[RevocationStatus, int]) -> RevocationStatus:
        answers = [OcspAnswer(content=b"", source=Source.BUNDLE)] * len(said)
        judged = iter(
            Revocation(
                status=status,
                detail="",
                certificate_serial=7,
                this_update=NOW,
                produced_at=NOW + timedelta(seconds=seconds),
            )
            for status, seconds in said
        )
        return find(answers, lambda *_: next(judged)).revocation.status

    assert chosen((GOOD, 2), (HOLD, 1)) is GOOD
    assert chosen((HOLD, 1), (GOOD, 2)) is GOOD
    assert chosen((GOOD, 1), (HOLD, 2)) is HOLD
    assert chosen((UNKNOWN, 2), (GOOD, 1)) is UNKNOWN
    assert chosen((UNKNOWN, 1), (HOLD, 2)) is HOLD
    assert chosen((HOLD, 1), (UNKNOWN, 2)) is UNKNOWN


def test_an_answer_to_our_question_that_is_older_than_a_hold_does_not_lift_it() -> None:
    def statement(status: RevocationStatus, hours: int, nonce: NonceOutcome) -> Revocation:
        made = NOW - timedelta(hours=hours)
        return Revocation(status=status, detail="", certificate_serial=7, this_update=made, in_window=True, nonce=nonce)

    ours = OcspAnswer(content=b"ours", source=Source.LIVE, nonce=b"1")
    held = OcspAnswer(content=b"held", source=Source.BUNDLE)
    newer = OcspAnswer(content=b"newer", source=Source.BUNDLE)
    said = {
        b"ours": statement(GOOD, 5, NonceOutcome.MATCH),
        b"held": statement(HOLD, 4, NonceOutcome.NOT_SENT),
        b"newer": statement(GOOD, 3, NonceOutcome.NOT_SENT),
        b"our hold": statement(HOLD, 5, NonceOutcome.MATCH),
        b"unknown": statement(UNKNOWN, 4, NonceOutcome.NOT_SENT),
    }

    def chosen(*answers: OcspAnswer) -> tuple[RevocationStatus, Source | None]:
        found = find(answers, lambda answer, *_: said[answer.content])
        return found.revocation.status, found.source

    assert chosen(ours, held) == (HOLD, Source.BUNDLE)
    assert chosen(ours, held, newer) == (GOOD, Source.BUNDLE)
    assert chosen(ours, newer) == (GOOD, Source.LIVE)
    # Nor is a hold that we asked about preferred to a newer statement that no option tolerates.
    our_hold = OcspAnswer(content=b"our hold", source=Source.LIVE, nonce=b"1")
    unknown = OcspAnswer(content=b"unknown", source=Source.BUNDLE)
    assert chosen(our_hold, unknown) == (UNKNOWN, Source.BUNDLE)


def test_a_good_answer_outweighs_what_says_nothing() -> None:
    nothing = [status for status in RevocationStatus if status not in (GOOD, REVOKED, HOLD, UNKNOWN)]
    for status in nothing:
        assert choose((status, 0), (GOOD, 5)) is GOOD


def test_answers_about_other_certificates_are_no_answers() -> None:
    assert choose((RevocationStatus.WRONG_CERTIFICATE, 0)) is RevocationStatus.NO_ANSWER


def test_among_what_is_not_good_what_came_closest_is_told() -> None:
    assert choose((RevocationStatus.BAD_SIGNATURE, 0), (STALE, 9)) is STALE


def test_more_answers_about_one_certificate_than_are_worth_a_signature_are_refused_unread() -> None:
    most = [(GOOD, hours) for hours in range(MAXIMUM_ANSWERS)]
    assert choose(*most) is GOOD
    # One more, good or not, and none is judged: nobody can hide a revocation in a crowd.
    assert choose(*most, (REVOKED, 0)) is RevocationStatus.MALFORMED
    answers = [OcspAnswer(content=b"x", source=Source.BUNDLE)] * (MAXIMUM_ANSWERS + 1)
    found = find(answers, lambda *_: pytest.fail("judged"))
    assert "65 answers are about this one certificate, at most 64" in found.revocation.detail
    assert judge(EvidencePolicy(accept_stale_ocsp=True, accept_unchecked_revocation=True), found) == (Outcome.FAIL, "")


def test_a_bundle_of_thousands_of_answers_about_others_costs_each_answer_once(node, monkeypatch) -> None:
    from nvattest.appraisal import memory
    from nvattest.pki.ocsp import parse_ocsp_response

    world = node("hopper-8-ppcie")
    first = world.collateral.ocsp[0].content
    serial = parse_ocsp_response(first).serial
    assert serial is not None
    old = serial.to_bytes((serial.bit_length() + 7) // 8, "big")
    many = tuple(
        OcspAnswer(content=first.replace(old, old[:-3] + number.to_bytes(3, "big")), source=Source.BUNDLE)
        for number in range(8000)
    )
    parsed = []

    def counted(content: bytes, **more: object):
        parsed.append(content)
        return parse_ocsp_response(content, **more)

    monkeypatch.setattr(memory, "parse_ocsp_response", counted)
    answers = world.collateral.ocsp + many
    assert world.appraise(collateral=replace(world.collateral, ocsp=answers)).trusted
    assert len(parsed) == len(answers)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>", "OCSP response: not a readable answer"),
        (ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER), "the responder says tryLater"),
    ],
    ids=["malformed", "responder error"],
)
def test_what_is_no_answer_is_told_where_an_answer_is_missing_and_nowhere_else(
    node, content: bytes | ocsp.OCSPResponse, reason: str
) -> None:
    world = node("hopper-1")
    der = content if isinstance(content, bytes) else content.public_bytes(Encoding.DER)
    rest = world.collateral.ocsp[1:]
    spoilt = (*rest, OcspAnswer(content=der, source=Source.BUNDLE), OcspAnswer(content=b"?", source=Source.BUNDLE))
    missing = world.appraise(collateral=replace(world.collateral, ocsp=spoilt)).devices[0].failures
    assert {check.outcome for check in missing} == {Outcome.ABSENT}
    for check in missing:
        told = f"no revocation answer was given; 2 of {len(spoilt)} answers could not be used, the first: {reason}"
        assert told in check.detail
    whole = world.appraise(collateral=replace(world.collateral, ocsp=(*spoilt, world.collateral.ocsp[0])))
    assert whole.trusted
    assert not any("could not be used" in check.detail for check in whole.devices[0].checks)


@pytest.mark.parametrize(("lie", "says"), [("gpu0:no-next-update=2", "live"), ("gpu0:stale=2", "bundle fetch")])
def test_what_to_do_about_an_answer_that_is_too_old_can_help(node, lie: str, says: str) -> None:
    # A newer recording has no end either where the responder names none.
    check = node("hopper-1", lie).appraise().devices[0].check("chain-revocation")
    assert check.outcome is Outcome.FAIL
    assert says in check.hint
    assert ("bundle fetch" in check.hint) is (says == "bundle fetch")
