"""A verifier remembers RIMs that passed; nothing that a pass depends on may change behind that memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from nvattest.appraisal.inputs import Collateral, EvidencePolicy, RevocationMode
from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.verifier import Verifier
from nvattest.model import Nonce, VerificationTime
from nvattest.testing import DEFAULT_NONCE, Platform


def collateral_of(platform: Platform) -> Collateral:
    return platform.collateral()


class Scene:
    """One verifier that has trusted the platform once."""

    def __init__(self) -> None:
        self.platform = Platform.build("hopper-1")
        self.collateral = collateral_of(self.platform)
        self.verifier = Verifier(anchors=self.platform.trust_anchors())
        assert self.judge().trusted

    def judge(self, *, collateral: Collateral | None = None, at: VerificationTime | None = None) -> Appraisal:
        return self.verifier.appraise(
            self.platform.evidence(DEFAULT_NONCE),
            nonce=Nonce(DEFAULT_NONCE),
            collateral=self.collateral if collateral is None else collateral,
            at=self.platform.time if at is None else at,
        )


@pytest.fixture
def scene() -> Scene:
    return Scene()


def failed(appraisal: Appraisal) -> set[str]:
    assert not appraisal.trusted
    return {check.id for check in appraisal.devices[0].failures}


def test_the_second_appraisal_says_what_the_first_did(scene: Scene) -> None:
    first, fresh = scene.judge(), Scene().judge()
    assert first.devices[0].checks == fresh.devices[0].checks
    assert first.devices[0].rims.keys() == fresh.devices[0].rims.keys()


def test_a_rim_that_is_revoked_in_newer_collateral_is_refused(scene: Scene) -> None:
    revoked = collateral_of(Platform.build("hopper-1", lies=["driver-rim:revoked=0"]))
    assert failed(scene.judge(collateral=revoked)) == {"driver-rim-revocation"}
    assert scene.judge().trusted


def test_a_rim_without_revocation_answers_is_refused(scene: Scene) -> None:
    assert "vbios-rim-revocation" in failed(scene.judge(collateral=replace(scene.collateral, ocsp=())))


def test_answers_that_a_caller_takes_out_of_its_list_do_not_change_what_was_given(scene: Scene) -> None:
    answers = list(scene.collateral.ocsp)
    given = replace(scene.collateral, ocsp=answers)
    answers.clear()
    # What is judged, indexed and remembered is the one state that was given: neither more nor less later.
    assert given.ocsp == scene.collateral.ocsp
    assert scene.judge(collateral=given).trusted
    assert failed(scene.judge(collateral=replace(given, ocsp=answers))) >= {"driver-rim-revocation"}


def test_a_rim_that_is_gone_is_missed(scene: Scene) -> None:
    rims = dict(list(scene.collateral.rims.items())[:1])
    assert "vbios-rim-available" in failed(scene.judge(collateral=replace(scene.collateral, rims=rims)))


def test_another_policy_judges_anew(scene: Scene) -> None:
    scene.verifier.policy = EvidencePolicy(revocation=RevocationMode.FRESH)
    assert "driver-rim-revocation" in failed(scene.judge())


def test_another_time_judges_anew(scene: Scene) -> None:
    late = VerificationTime(device=scene.platform.clock, rim=scene.platform.clock + timedelta(days=3650))
    assert "driver-rim-validity" in failed(scene.judge(at=late))


def test_other_anchors_judge_anew(scene: Scene) -> None:
    scene.verifier.anchors = Platform.build("hopper-1", seed=1).trust_anchors()
    assert "driver-rim-signature" not in failed(scene.judge())
    assert {"chain-path", "driver-rim-chain"} <= failed(scene.judge())


def test_what_failed_is_not_remembered(scene: Scene) -> None:
    scene.verifier.policy = EvidencePolicy(revocation=RevocationMode.FRESH)
    assert failed(scene.judge()) == failed(scene.judge())
    scene.verifier.policy = EvidencePolicy()
    assert scene.judge().trusted
