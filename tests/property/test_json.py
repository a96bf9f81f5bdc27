"""Everything that travels as JSON or TOML: written and read back, and changed in any place."""

# ruff: noqa: PT017 - what is refused and what is read are two ends of one property

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from nvattest.appraisal.inputs import (
    Collateral,
    EvidencePolicy,
    OcspAnswer,
    RevocationMode,
    RimAnswer,
    Source,
    TopologyRule,
)
from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.bundle import dump_bundle, load_bundle
from nvattest.errors import InputError, NvattestError, ParseError, PolicyError, TokenError
from nvattest.evidence import Evidence, EvidenceForm, dump_evidence, load_evidence
from nvattest.guest.config import parse_config
from nvattest.model import Architecture, Nonce
from nvattest.policy.evidence_policy import dump_evidence_policy, load_evidence_policy
from nvattest.policy.relying_party import load_json_policy
from nvattest.testing import DEFAULT_NONCE, Platform

from ..unit.token import minting  # noqa: TID252 - one writer of forged tokens for all folders
from .tools import as_json, bytes_changed, for_all, json_changed, sizes

NODE = Platform.build("hopper-1")
NONCE = Nonce(DEFAULT_NONCE)

# --- evidence ---------------------------------------------------------------------------------------------------------

HINTS = st.dictionaries(
    st.sampled_from(("uuid", "driver_version", "vbios_version", "name")),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60).filter(lambda text: text != "unknown"),
    max_size=4,
)
ITEMS = st.builds(
    Evidence,
    architecture=st.sampled_from(Architecture),
    nonce=st.none() | st.binary(min_size=32, max_size=32),
    report=st.binary(min_size=1, max_size=400),
    # NUL bytes after the text are dropped where evidence is made, so that none can be written.
    certificate_chain=st.binary(max_size=399).map(lambda data: data + b"\n"),
    hints=HINTS,
)


@sizes(100)
def test_evidence_of_any_content_is_read_as_it_was_written_in_every_form(examples: int) -> None:
    def check(items: list[Evidence]) -> None:
        for form in (EvidenceForm.ARRAY, EvidenceForm.ENVELOPE):
            assert load_evidence(json.dumps(dump_evidence(items, form=form))) == tuple(items)
        coco = load_evidence(json.dumps(dump_evidence(items, form=EvidenceForm.COCO)))
        assert [(i.architecture, i.report, i.certificate_chain) for i in coco] == [
            (i.architecture, i.report, i.certificate_chain) for i in items
        ]
        alike = [replace(item, architecture=items[0].architecture, nonce=bytes(32), hints={}) for item in items]
        assert load_evidence(json.dumps(dump_evidence(alike, form=EvidenceForm.NRAS))) == tuple(alike)

    for_all(st.lists(ITEMS, min_size=1, max_size=6), examples, check)


def _forms() -> tuple[Any, ...]:
    array = json.loads(NODE.evidence_json(None, DEFAULT_NONCE))
    both = [*array, dict(array[0], arch="LS10")]
    return (array, {"evidences": both}, {"device_evidence_list": [dict(array[0], uuid="GPU-1")]}, both)


@sizes(150, 20_000)
def test_changed_evidence_is_a_parse_error_or_trusted_only_with_the_genuine_report(examples: int) -> None:
    verifier = Verifier(anchors=NODE.trust_anchors())
    collateral = NODE.collateral()
    genuine = NODE.gpus[0].report(DEFAULT_NONCE)

    def check(value: Any) -> None:
        try:
            evidence = load_evidence(value if isinstance(value, bytes) else as_json(value))
        except ParseError as error:
            assert error.source == "evidence"
            return
        appraisal = verifier.appraise(evidence, nonce=NONCE, collateral=collateral, at=NODE.time)
        if appraisal.trusted:
            assert [item.report.startswith(genuine) for item in evidence] == [True]
        else:
            assert appraisal.failures
            assert appraisal.result_code != 0

    for_all(json_changed(_forms()) | bytes_changed(tuple(map(as_json, _forms()))), examples, check)


# --- bundles ----------------------------------------------------------------------------------------------------------


@sizes(60)
def test_a_bundle_of_any_content_is_read_as_it_was_written(examples: int) -> None:
    ids = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,60}", fullmatch=True)

    def check(case: tuple[dict[str, bytes], list[bytes]]) -> None:
        rims, answers = case
        collateral = Collateral(
            rims={
                name: RimAnswer(id=name, content=data, source=Source.BUNDLE, origin="x") for name, data in rims.items()
            },
            ocsp=tuple(OcspAnswer(content=data, source=Source.BUNDLE, origin="x") for data in answers),
        )
        read = load_bundle(json.dumps(dump_bundle(collateral)), origin="x")
        assert dict(read.rims) == dict(collateral.rims)
        assert {answer.content for answer in read.ocsp} == set(answers)
        assert dump_bundle(read) == dump_bundle(collateral)

    some = st.binary(min_size=1, max_size=200)
    for_all(st.tuples(st.dictionaries(ids, some, max_size=5), st.lists(some, max_size=5)), examples, check)


@sizes(120, 15_000)
def test_a_changed_bundle_is_a_parse_error_or_gives_trust_only_with_genuine_documents(examples: int) -> None:
    bundle = NODE.bundle()
    verifier = Verifier(anchors=NODE.trust_anchors())
    evidence = NODE.evidence(DEFAULT_NONCE)
    genuine = NODE.rims()

    def check(value: Any) -> None:
        try:
            collateral = load_bundle(value if isinstance(value, bytes) else as_json(value))
        except ParseError as error:
            assert error.source == "bundle"
            return
        appraisal = verifier.appraise(evidence, nonce=NONCE, collateral=collateral, at=NODE.time)
        if appraisal.trusted:
            assert all(collateral.rims[name].content == content for name, content in genuine.items())

    for_all(json_changed((bundle,)) | bytes_changed((as_json(bundle),)), examples, check)


# --- policies ---------------------------------------------------------------------------------------------------------

VERSIONS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){1,3}", fullmatch=True)
VBIOS = st.from_regex(r"[0-9A-F]{2}(\.[0-9A-F]{2}){4}", fullmatch=True)
POLICIES = st.builds(
    EvidencePolicy,
    revocation=st.sampled_from(RevocationMode),
    topology=st.sampled_from(TopologyRule),
    allowed_architectures=st.lists(st.sampled_from(Architecture), unique=True).map(tuple),
    allowed_modes=st.lists(st.sampled_from(("mpt", "spt", "ppcie")), unique=True).map(tuple),
    minimum_driver_version=st.none() | VERSIONS,
    minimum_vbios_version=st.none() | VBIOS,
    denied_driver_versions=st.lists(VERSIONS, unique=True, max_size=4).map(tuple),
    denied_vbios_versions=st.lists(VBIOS, unique=True, max_size=4).map(tuple),
    expected_gpus=st.none() | st.integers(0, 64),
    expected_switches=st.none() | st.integers(0, 64),
    max_trailing_bytes=st.integers(0, 4096),
    accept_stale_ocsp=st.booleans(),
    accept_unverified_nonce=st.booleans(),
    allow_debug=st.booleans(),
)


@sizes(100)
def test_an_evidence_policy_is_read_as_it_was_written_in_both_forms(examples: int) -> None:
    def check(policy: EvidencePolicy) -> None:
        for form in ("toml", "json"):
            assert load_evidence_policy(dump_evidence_policy(policy, form=form).encode(), source="x") == policy

    for_all(POLICIES, examples, check)


@sizes(200, 20_000)
def test_a_changed_policy_is_refused_or_never_weaker_than_it_reads(examples: int) -> None:
    policy = EvidencePolicy(allowed_modes=("spt",), expected_gpus=8, minimum_driver_version="550.90.07")
    texts = tuple(dump_evidence_policy(policy, form=form).encode() for form in ("toml", "json"))

    def check(data: bytes) -> None:
        try:
            read = load_evidence_policy(data, source="x")
        except (ParseError, PolicyError) as error:
            assert error.code
            return
        for name in read.weakenings:
            assert name.encode() in data
            assert b"true" in data

    for_all(bytes_changed(texts) | json_changed((json.loads(texts[1]),)).map(as_json), examples, check)


@sizes(200, 20_000)
def test_a_changed_json_policy_is_refused_or_still_demands_something(examples: int) -> None:
    policies = tuple(
        {
            "version": version,
            "authorization-rules": {
                "type": "JWT",
                "overall-claims": {"x-nvidia-overall-att-result": True, "iss": "x"},
                "detached-claims": {"measres": "success", "hwmodel": {"a": [1, 2, {"b": None}]}},
            },
        }
        for version in ("2.0", "3.0", "4.0")
    )

    def check(data: bytes) -> None:
        try:
            policy = load_json_policy(data, name="x")
        except (ParseError, PolicyError) as error:
            assert error.code
            return
        assert policy.overall
        assert policy.detached
        assert not policy.evaluate([], {}).matched
        assert not policy.evaluate([{}], {}).matched

    for_all(json_changed(policies).map(as_json) | bytes_changed(tuple(map(as_json, policies))), examples, check)


@sizes(200, 20_000)
def test_a_changed_hook_configuration_is_refused_or_read(examples: int) -> None:
    example = (
        b'on_failure = "block"\nexpected_gpus = 8\nallow_no_gpu = false\n[budget]\nhook = 5.0\n[log]\nfile = "/run/x"\n'
    )

    def check(data: bytes) -> None:
        try:
            parse_config(data)
        except InputError as error:
            assert error.code == "hook-config"

    for_all(bytes_changed((example, b"[driver]\nnvml = '/lib/libnvidia-ml.so.1'\n")), examples, check)


# --- tokens -----------------------------------------------------------------------------------------------------------


@sizes(120, 15_000)
def test_a_token_whose_json_was_changed_is_refused(examples: int) -> None:
    eat = minting.eat(minting.appraisal("hopper-8-ppcie"))

    def check(token: Any) -> None:
        if token == eat:
            return
        try:
            minting.check(as_json(token))
        except TokenError as error:
            assert error.code
            return
        raise AssertionError("a changed token is believed")

    for_all(json_changed((eat,)), examples, check)


@sizes(60, 6_000)
def test_a_dishonest_issuer_can_say_good_only_of_devices_that_it_calls_good(examples: int) -> None:
    (_, top), parts = minting.eat()
    overall, device = minting.part(top, 1), minting.part(parts["GPU-0"], 1)

    def check(case: tuple[Any, Any]) -> None:
        changed_overall, changed_device = case
        made = {"GPU-0": minting.jws(changed_device)}
        if isinstance(changed_overall, dict):
            changed_overall = {**changed_overall, "submods": {"GPU-0": minting.digest(made["GPU-0"])}}
        try:
            verified = minting.check([["JWT", minting.jws(changed_overall)], made])
        except TokenError:
            return
        if verified.overall:
            assert changed_overall["x-nvidia-overall-att-result"] is True
            assert changed_device["measres"] == "success"
            assert changed_device["x-nvidia-gpu-attestation-report-signature-verified"] is True
            assert changed_device["x-nvidia-gpu-attestation-report-nonce-match"] is True
            assert changed_device["eat_nonce"] == changed_overall["eat_nonce"] == minting.NONCE.hex()
            assert changed_overall["exp"] + 60 >= (minting.NOW + timedelta(minutes=5)).timestamp()

    either = st.tuples(json_changed((overall,)), st.just(device)) | st.tuples(st.just(overall), json_changed((device,)))
    for_all(either | st.tuples(json_changed((overall,)), json_changed((device,))), examples, check)


@sizes(100, 10_000)
def test_a_changed_ear_is_refused_or_no_better_than_its_parts(examples: int) -> None:
    payload = minting.part(minting.ear(), 1)

    def check(changed: Any) -> None:
        try:
            verified = minting.check(minting.jws(changed))
        except NvattestError as error:
            assert isinstance(error, TokenError)
            return
        if verified.overall:
            for item in changed["submods"].values():
                assert item["ear.status"] in ("affirming", 2)

    for_all(json_changed((payload,)), examples, check)
