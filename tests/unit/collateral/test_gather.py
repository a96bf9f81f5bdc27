"""One gathering: what is preferred, what is kept, and what is noted. The network is a loopback service."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest

from nvattest.appraisal.inputs import Collateral, EvidencePolicy, RevocationMode, Source
from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.cache import DiskCache
from nvattest.collateral.gather import GatherOptions, Needs, gather, gather_needs, needs_of
from nvattest.collateral.inspection import preflight, render_preflight
from nvattest.errors import CollateralError, InputError, ResultCode
from nvattest.evidence import load_evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.pki.ocsp import CertIdHash, RevocationStatus, parse_ocsp_response
from nvattest.testing import Platform
from nvattest.testing.services import Services


@pytest.fixture
def services(platform):
    with Services(platform) as running:
        yield running


@pytest.fixture
def cache(platform, tmp_path) -> DiskCache:
    return DiskCache(str(tmp_path / "cache"), now=lambda: platform.clock)


def options(services, **settings) -> GatherOptions:
    return GatherOptions(rim_url=services.rim_url, ocsp_url=services.ocsp_url, **settings)


def run(platform, evidence, given, known=None) -> Collateral:
    return gather(evidence, given, verifier=Verifier(anchors=platform.trust_anchors()), at=platform.time, known=known)


def test_what_is_at_hand_is_not_asked_for(platform, evidence, services) -> None:
    known = platform.collateral()
    assert run(platform, evidence, options(services), known) == known
    assert services.log == []


def test_only_what_is_missing_is_asked_for(platform, evidence, services) -> None:
    known = platform.collateral()
    first = platform.rim_ids[0]
    partial = Collateral(rims={k: v for k, v in known.rims.items() if k != first}, ocsp=known.ocsp[1:])
    run(platform, evidence, options(services), partial)
    assert services.requests("rim") == [first]
    assert len(services.requests("ocsp")) == 1


@pytest.mark.parametrize("mode", [RevocationMode.FRESH, RevocationMode.WITHIN_WINDOW])
def test_a_bundles_answers_are_not_enough_for_a_stricter_policy(platform, evidence, services, mode) -> None:
    run(platform, evidence, options(services, revocation=mode), platform.collateral())
    assert services.requests("rim") == []
    assert len(services.requests("ocsp")) == 7


def test_every_request_has_a_nonce_of_its_own(platform, evidence, services) -> None:
    answers = run(platform, evidence, options(services)).ocsp
    assert all(answer.source is Source.LIVE and len(answer.nonce) == 32 for answer in answers)
    assert len({answer.nonce for answer in answers}) == len(answers)


def test_no_more_requests_than_workers_run_at_a_time(platform, evidence, services, monkeypatch) -> None:
    running, most = [], []

    def ask(client, url, question, *rest):
        running.append(question)
        time.sleep(0.01)
        most.append(len(running))
        running.remove(question)
        raise CollateralError("not asked in a test", code="test", result_code=ResultCode.OCSP_SERVER_ERROR)

    monkeypatch.setattr("nvattest.collateral.gather.ask_responder", ask)
    for workers in (1, 2):
        most.clear()
        run(platform, evidence, options(services, workers=workers), replace(platform.collateral(), ocsp=()))
        assert len(most) == 7
        assert max(most) <= workers


@pytest.mark.parametrize("algorithm", list(CertIdHash))
def test_each_hash_for_cert_ids_works(platform, evidence, services, algorithm) -> None:
    found = run(platform, evidence, options(services, cert_id_hash=algorithm))
    assert len(found.ocsp) == 7
    assert not found.unavailable


def test_fresh_mode_asks_although_the_cache_knows(platform, evidence, services, cache) -> None:
    run(platform, evidence, options(services, cache=cache))
    services.forget()
    found = run(platform, evidence, options(services, cache=cache, revocation=RevocationMode.FRESH))
    assert services.requests("rim") == []
    assert len(services.requests("ocsp")) == 7
    assert {answer.source for answer in found.ocsp} == {Source.LIVE}


def test_offline_nobody_is_asked_and_what_is_missing_is_noted(platform, evidence, services, cache) -> None:
    found = run(platform, evidence, options(services, cache=cache, offline=True))
    assert services.log == []
    # The certificates of RIMs that are not there are not known.
    assert len(found.unavailable) == 2 + 3
    assert all("--offline" in item.message for item in found.unavailable.values())


def test_strangers_cause_no_request(platform, evidence, services) -> None:
    found = gather(evidence, options(services), verifier=Verifier(anchors=NVIDIA_ANCHORS), at=platform.time)
    assert services.log == []
    assert {item.code for item in found.unavailable.values()} == {ResultCode.CERT_CHAIN_VERIFICATION_FAILURE}


def test_without_a_url_each_certificate_names_its_responder(platform, evidence, services, monkeypatch) -> None:
    asked = []

    def ask(client, url, question, *rest):
        asked.append((url, question.certificate.ocsp_urls, question.certificate.common_name))
        raise CollateralError("not asked in a test", code="test", result_code=ResultCode.OCSP_SERVER_ERROR)

    monkeypatch.setattr("nvattest.collateral.gather.ask_responder", ask)
    found = run(platform, evidence, GatherOptions(rim_url=services.rim_url, ocsp_url=None))
    assert len(asked) == len(found.unavailable) == 7
    # As with real Hoppers the boot ROM's certificate names none: the one above it does.
    assert [name for _, urls, name in asked if not urls] == ["GH100 A01 GSP BROM"]
    assert {url for url, _, _ in asked} == {url for _, urls, _ in asked for url in urls}


def test_a_chain_that_names_no_responder_at_all_is_told(platform, evidence, services, monkeypatch) -> None:
    from nvattest.collateral import gather as module
    from nvattest.collateral.gather import certificates_to_ask

    def silent(*chains):
        return tuple(replace(question, responders=()) for question in certificates_to_ask(*chains))

    monkeypatch.setattr(module, "certificates_to_ask", silent)
    found = run(platform, evidence, GatherOptions(rim_url=services.rim_url, ocsp_url=None))
    assert services.requests("ocsp") == []
    assert {item.code for item in found.unavailable.values()} == {ResultCode.OCSP_INVALID_REQUEST}
    assert all("--ocsp-url" in item.hint for item in found.unavailable.values())


def test_an_answer_is_taken_from_the_cache_while_it_outlasts_the_gathering_and_no_longer(
    platform, evidence, services, cache
) -> None:
    found = run(platform, evidence, options(services, cache=cache))
    [end] = {parse_ocsp_response(answer.content).next_update for answer in found.ocsp}
    second = timedelta(seconds=1)
    for instant, asked, sources in (
        (end - 60 * second, 0, [Source.CACHE] * 7),
        # The appraisal may come after its end: ask, and use it where nobody answers in time.
        (end - 59 * second, 7, [Source.CACHE] * 7 + [Source.LIVE] * 7),
        (end, 7, [Source.CACHE] * 7 + [Source.LIVE] * 7),
        (end + second, 7, [Source.LIVE] * 7),
    ):
        services.forget()
        # Each of these gatherings would fill the cache with newer answers.
        given = options(services, cache=cache, timeout=60.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache, "store_answers", lambda answers: True)
            at = VerificationTime.at(instant)
            found = gather(evidence, given, verifier=Verifier(anchors=platform.trust_anchors()), at=at)
        assert len(services.requests("ocsp")) == asked
        assert sorted((answer.source for answer in found.ocsp), key=lambda s: s.value) == sources


def test_offline_an_answer_is_taken_from_the_cache_until_its_next_update(platform, evidence, services, cache) -> None:
    found = run(platform, evidence, options(services, cache=cache))
    [end] = {parse_ocsp_response(answer.content).next_update for answer in found.ocsp}
    given = options(services, cache=cache, offline=True)
    found = gather(evidence, given, verifier=Verifier(anchors=platform.trust_anchors()), at=VerificationTime.at(end))
    assert [answer.source for answer in found.ocsp] == [Source.CACHE] * 7
    assert not any(key.startswith("ocsp:") for key in found.unavailable)


def test_a_bundle_that_ends_during_the_gathering_is_renewed_in_time(platform, evidence, services) -> None:
    known = platform.collateral()
    [end] = {parse_ocsp_response(answer.content).next_update for answer in known.ocsp}
    verifier = Verifier(anchors=platform.trust_anchors())
    begin, after = end - timedelta(seconds=1), end + timedelta(seconds=1)
    with Services(platform, now=lambda: begin) as running:
        found = gather(
            evidence, options(running), at=VerificationTime.at(begin), known=known,
            verifier=verifier,
        )  # fmt: skip
    nonce = Nonce(bytes(range(32)))
    assert verifier.appraise(evidence, nonce=nonce, collateral=found, at=VerificationTime.at(after)).trusted
    assert not verifier.appraise(evidence, nonce=nonce, collateral=known, at=VerificationTime.at(after)).trusted


def test_an_answer_without_next_update_is_used_and_not_kept(tmp_path) -> None:
    lies = [f"gpu0:no-next-update={position}" for position in (1, 2, 3)]
    platform = Platform.build("hopper-1", lies=lies)
    cache = DiskCache(str(tmp_path / "cache"), now=lambda: platform.clock)
    verifier = Verifier(anchors=platform.trust_anchors())
    evidence = platform.evidence(bytes(range(32)))
    with Services(platform) as services:
        for asked in (7, 3):
            services.forget()
            found = gather(evidence, options(services, cache=cache), at=platform.time, verifier=verifier)
            assert len(services.requests("ocsp")) == asked
            assert len(list((tmp_path / "cache" / "ocsp").iterdir())) == 4
            appraisal = verifier.appraise(evidence, nonce=Nonce(bytes(range(32))), collateral=found, at=platform.time)
            assert appraisal.trusted


def test_a_lifted_hold_in_a_bundle_is_asked_about_again(platform, evidence, services) -> None:
    held = Platform.build("hopper-1", lies=["driver-rim:hold=0"])
    recorded = held.collateral()
    verifier = Verifier(anchors=platform.trust_anchors())
    for hours, asked in ((1, 1), (72, 7)):
        services.forget()
        at = platform.clock + timedelta(hours=hours)
        with Services(platform, now=lambda at=at: at) as running:
            found = gather(
                evidence, options(running), at=VerificationTime.at(at), known=recorded,
                verifier=verifier,
            )  # fmt: skip
            assert len(running.requests("ocsp")) == asked
        appraisal = verifier.appraise(
            evidence, nonce=Nonce(bytes(range(32))), collateral=found, at=VerificationTime.at(at)
        )
        assert appraisal.trusted, appraisal.failures
        appraisal = verifier.appraise(
            evidence, nonce=Nonce(bytes(range(32))), collateral=recorded, at=VerificationTime.at(at)
        )
        assert not appraisal.trusted


def test_a_hold_in_a_bundle_that_is_newer_than_what_the_cache_says_is_asked_about(
    platform, evidence, services, cache
) -> None:
    held = Platform.build("hopper-1", clock=platform.clock + timedelta(hours=2), lies=["driver-rim:hold=0"])
    leaf = next(answer for answer in held.collateral().ocsp if _is_hold(answer.content))
    run(platform, evidence, options(services, cache=cache))
    verifier = Verifier(anchors=platform.trust_anchors())
    at = platform.clock + timedelta(hours=3)
    nonce, moment = Nonce(bytes(range(32))), VerificationTime.at(at)
    with Services(platform, now=lambda: at) as running:
        found = gather(
            evidence, options(running, cache=cache), at=moment,
            known=Collateral(ocsp=(leaf,)), verifier=verifier,
        )  # fmt: skip
        assert len(running.requests("ocsp")) == 1
    assert verifier.appraise(evidence, nonce=nonce, collateral=found, at=moment).trusted
    recorded = replace(found, ocsp=tuple(answer for answer in found.ocsp if answer.source is not Source.LIVE))
    assert not verifier.appraise(evidence, nonce=nonce, collateral=recorded, at=moment).trusted


def _is_hold(content: bytes) -> bool:
    return parse_ocsp_response(content).status is RevocationStatus.ON_HOLD


def test_fresh_answers_count_beside_those_of_a_bundle_that_are_as_new(platform, evidence, services) -> None:
    verifier = Verifier(anchors=platform.trust_anchors(), policy=EvidencePolicy(revocation=RevocationMode.FRESH))
    known = platform.collateral()
    given = options(services, revocation=RevocationMode.FRESH)
    found = gather(evidence, given, at=platform.time, known=known, verifier=verifier)
    assert verifier.appraise(evidence, nonce=Nonce(bytes(range(32))), collateral=found, at=platform.time).trusted


def test_a_ca_file_that_is_none_is_told_to_the_caller(platform, evidence, services, tmp_path) -> None:
    given = options(services)
    given = replace(given, http=replace(given.http, tls_ca_cert=str(tmp_path / "missing.pem")))
    with pytest.raises(InputError):
        run(platform, evidence, given)


def test_a_rim_of_another_version_is_not_kept_under_this_id(platform, evidence, cache) -> None:
    driver, vbios = (next(i for i in platform.rim_ids if kind in i) for kind in ("DRIVER", "VBIOS"))
    with Services(platform, faults=[f"rim:other-rim={vbios}@DRIVER"]) as services:
        run(platform, evidence, options(services, cache=cache))
    assert cache.rims(driver) == ()
    assert cache.rims(vbios) != ()


def test_a_genuine_file_of_another_id_in_the_cache_is_passed_over(platform, evidence, services, cache) -> None:
    driver, vbios = (next(i for i in platform.rim_ids if kind in i) for kind in ("DRIVER", "VBIOS"))
    cache.store_rim(driver, platform.rim(vbios))
    found = run(platform, evidence, options(services, cache=cache))
    assert found.rims[driver].source is Source.LIVE


def test_preflight_says_what_is_missing_and_what_to_do(platform, services) -> None:
    from nvattest.collateral.gather import gather_needs

    verifier = Verifier(anchors=platform.trust_anchors())
    needs = Needs(rim_ids=(platform.rim_ids[0], "NV_GPU_DRIVER_GH100_999.1"))
    found = gather_needs(needs, options(services), at=platform.time, verifier=verifier)
    facts = preflight(needs, found, verifier, platform.time)
    assert facts["ready"] is False
    assert facts["result_code"] == 104
    assert [rim["available"] for rim in facts["rims"]] == [True, False]
    assert facts["problems"][0]["of"] == "NV_GPU_DRIVER_GH100_999.1"
    assert "not published" in facts["problems"][0]["hint"]
    text = render_preflight(facts)
    assert "MISSING NV_GPU_DRIVER_GH100_999.1" in text
    assert text.endswith("Ready: NO")


def test_preflight_offline_says_that_nothing_was_asked_and_not_that_it_is_missing(real_data, platform) -> None:
    evidence = load_evidence((real_data / "evidence" / "hopper-590.12-single.json").read_bytes())
    verifier = Verifier()
    needs = needs_of(evidence, verifier, platform.time)
    found = gather_needs(needs, GatherOptions(offline=True), at=platform.time, verifier=verifier)
    facts = preflight(needs, found, verifier, platform.time)
    assert {(rim["available"], rim["asked"]) for rim in facts["rims"]} == {(False, False)}
    text = render_preflight(facts)
    assert "MISSING" not in text
    assert f"not asked for {needs.rim_ids[0]}" in text
    assert "NVIDIA GH100 Identity: not asked" in text


def test_preflight_of_a_device_without_published_reference_values_is_not_ready(real_data, platform) -> None:
    evidence = load_evidence((real_data / "evidence" / "rubin-620.54.json").read_bytes())
    verifier = Verifier()
    needs = needs_of(evidence, verifier, platform.time)
    assert (needs.rim_ids, len(needs.chains)) == ((), 1)
    facts = preflight(needs, Collateral(), verifier, platform.time)
    assert facts["ready"] is False
    [problem] = [problem for problem in facts["problems"] if problem["of"] == "device:0"]
    assert problem["result_code"] == 104
    assert problem["message"].startswith("device 0 (RUBIN): no reference values are published")


def test_preflight_of_nothing_is_not_ready(platform) -> None:
    facts = preflight(Needs(), Collateral(), Verifier(anchors=platform.trust_anchors()), platform.time)
    assert facts["ready"] is False
