"""The plan: exactly what is needed, once, and nothing for strangers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.gather import certificates_to_ask, needs_of, rim_ids_of
from nvattest.model import Architecture
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.pki.chain import ChainProfile
from nvattest.testing import Platform

NONCE = bytes(range(32))


def load(platform: Platform):
    return platform.evidence(NONCE)


@pytest.fixture(scope="module")
def node() -> Platform:
    return Platform.build("hopper-8-ppcie")


def test_devices_that_share_rims_need_them_once(node) -> None:
    ids = rim_ids_of(Verifier().read(load(node)))
    assert sorted(ids) == sorted(node.rim_ids)
    assert len(ids) == 3


def test_upper_certificates_are_asked_about_once(node) -> None:
    needs = needs_of(load(node), Verifier(anchors=node.trust_anchors()), node.time)
    questions = certificates_to_ask(needs.chains, ChainProfile.DEVICE)
    assert len(needs.chains) == 12
    # One BROM each; above them two certificates for GH100 and one for LS10.
    assert len(questions) == 12 + 2 + 1
    assert len({question.key for question in questions}) == len(questions)


def test_device_leaves_and_roots_are_not_asked_about(node) -> None:
    needs = needs_of(load(node), Verifier(anchors=node.trust_anchors()), node.time)
    asked = {q.certificate.sha256 for q in certificates_to_ask(needs.chains, ChainProfile.DEVICE)}
    for chain in needs.chains:
        assert chain.leaf.sha256 not in asked
        assert chain.certificates[-1].sha256 not in asked


def test_every_question_names_the_issuer_of_its_certificate(node) -> None:
    needs = needs_of(load(node), Verifier(anchors=node.trust_anchors()), node.time)
    for question in certificates_to_ask(needs.chains, ChainProfile.DEVICE):
        assert question.certificate.issuer_der == question.issuer.subject_der


def test_devices_under_no_anchor_need_nothing_and_say_why(node) -> None:
    needs = needs_of(load(node), Verifier(anchors=NVIDIA_ANCHORS), node.time)
    assert needs.rim_ids == ()
    assert needs.chains == ()
    assert set(needs.refused) == {f"rim:{rim_id}" for rim_id in node.rim_ids} | {f"device:{n}" for n in range(12)}


def test_evidence_that_cannot_be_read_needs_nothing(node) -> None:
    verifier = Verifier(anchors=node.trust_anchors())
    gpu = load(node)[0]
    for broken in (replace(gpu, certificate_chain=b"nothing"), replace(gpu, report=b"nothing")):
        needs = needs_of([gpu, broken], verifier, node.time)
        assert needs.rim_ids == rim_ids_of(Verifier().read([gpu]))
        assert set(needs.refused) == {"device:1"}
    assert needs_of([replace(gpu, certificate_chain=b"nothing")], verifier, node.time).chains == ()
    assert rim_ids_of(Verifier().read([replace(gpu, report=b"nothing")])) == ()
    assert rim_ids_of(Verifier().read([replace(gpu, architecture=Architecture.LS10)])) == ()


def test_no_evidence_needs_nothing(node) -> None:
    needs = needs_of([], Verifier(anchors=node.trust_anchors()), node.time)
    assert (needs.rim_ids, needs.chains, dict(needs.refused)) == ((), (), {})
