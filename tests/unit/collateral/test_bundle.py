"""Bundles: the schema, damage, and merging."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from datetime import timedelta

import jsonschema
import pytest

from nvattest._documents import dump_json
from nvattest._package import schema_bytes
from nvattest.appraisal.check import Outcome
from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.bundle import dump_bundle, load_bundle, merge_bundles
from nvattest.collateral.gather import needs_of
from nvattest.collateral.inspection import Inspection, inspect_bundle, render_inspection
from nvattest.errors import InputError, ParseError
from nvattest.model import Nonce, VerificationTime
from nvattest.testing import pki
from nvattest.testing.platform import Platform

TWO_HOURS = timedelta(hours=2)


@pytest.fixture(scope="module")
def schema() -> dict:
    document = json.loads(schema_bytes("bundle-1.json"))
    jsonschema.Draft202012Validator.check_schema(document)
    return document


def entry(content: bytes, **more: str) -> dict:
    return {"sha256": hashlib.sha256(content).hexdigest(), "content": base64.b64encode(content).decode(), **more}


def test_what_the_simulation_and_we_write_follows_the_schema(platform, schema) -> None:
    for document in (platform.bundle(), dump_bundle(load_bundle(json.dumps(platform.bundle())))):
        jsonschema.validate(document, schema)


def test_reading_and_writing_changes_nothing(platform) -> None:
    first = dump_bundle(load_bundle(json.dumps(platform.bundle())))
    assert dump_bundle(load_bundle(dump_json(first))) == first


BREAK = {
    "another format": lambda b: b.update(format="x"),
    "no format": lambda b: b.pop("format"),
    "another version": lambda b: b.update(version=2),
    "true is not version 1": lambda b: b.update(version=True),
    "rims is an object": lambda b: b.update(rims={}),
    "a RIM without id": lambda b: b["rims"][0].pop("id"),
    "a path as id": lambda b: b["rims"][0].update(id="../x"),
    "no digest": lambda b: b["rims"][0].pop("sha256"),
    "no content": lambda b: b["ocsp"][0].pop("content"),
    "empty content": lambda b: b["ocsp"].append(entry(b"")),
    "not base64": lambda b: b["ocsp"][0].update(content="§§§§"),
    "an answer is a text": lambda b: b["ocsp"].append("x"),
}


@pytest.mark.parametrize("name", BREAK)
def test_what_the_schema_refuses_the_parser_refuses(platform, schema, name) -> None:
    document = copy.deepcopy(platform.bundle())
    BREAK[name](document)
    with pytest.raises(ParseError):
        load_bundle(json.dumps(document))
    if name != "true is not version 1":  # to a JSON Schema true is not 1 either, but Python's equality says it is
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, schema)


def test_another_digest_is_refused(platform) -> None:
    document = copy.deepcopy(platform.bundle())
    document["rims"][0]["sha256"] = "00" * 32
    with pytest.raises(ParseError, match="digest"):
        load_bundle(json.dumps(document))


def test_one_id_twice_is_refused(platform) -> None:
    document = copy.deepcopy(platform.bundle())
    document["rims"].append(document["rims"][0])
    with pytest.raises(ParseError, match="twice"):
        load_bundle(json.dumps(document))


def test_merging_keeps_each_thing_once(platform) -> None:
    one = load_bundle(json.dumps(platform.bundle()))
    merged = merge_bundles([one, one])
    assert len(merged.rims) == len(one.rims)
    assert len(merged.ocsp) == len(one.ocsp)


def test_two_documents_under_one_id_do_not_merge() -> None:
    def bundle(content: bytes) -> str:
        return json.dumps({"format": "nvattest-bundle", "version": 1, "rims": [entry(content, id="NV_A")]})

    with pytest.raises(InputError) as caught:
        merge_bundles([load_bundle(bundle(b"<a/>"), origin="one"), load_bundle(bundle(b"<b/>"), origin="two")])
    assert "one" in str(caught.value)
    assert "two" in str(caught.value)


def inspected(platform, document: dict, *, anchors=None, chains=()) -> Inspection:
    verifier = Verifier(anchors=anchors or platform.trust_anchors())
    return inspect_bundle(load_bundle(json.dumps(document)), verifier, platform.time, chains=chains)


def test_inspection_names_signers_states_and_the_first_to_expire(platform) -> None:
    evidence = platform.evidence(bytes(32))
    verifier = Verifier(anchors=platform.trust_anchors())
    chains = needs_of(evidence, verifier, platform.time).chains
    facts, bad, usable = inspected(platform, platform.bundle(), chains=chains)
    assert bad == ()
    assert facts["earliest_expiry"]["at"].startswith("2026-11-01")
    assert all(rim["signer"] and rim["version"] for rim in facts["rims"])
    assert {entry["state"] for entry in (*facts["rims"], *facts["ocsp"])} == {"verified"}
    assert (len(usable.rims), len(usable.ocsp)) == (len(facts["rims"]), len(facts["ocsp"]))
    text = render_inspection(facts)
    assert "first to expire" in text
    assert all(f"signed by {rim['signer']}" in text for rim in facts["rims"])
    assert "*** SIMULATED" in text


@pytest.mark.parametrize(
    ("lies", "state", "reason"),
    [
        (("driver-rim:signature",), "not verified", "the signature over SignedInfo does not verify"),
        (("driver-rim:tampered=30",), "not verified", "the content was altered"),
        (("driver-rim:wrong-version=1.2.3",), "not verified", "which its id is not"),
        (("driver-rim:wrong-product=GB100",), "not verified", "which its id is not"),
        (("driver-rim:other-root",), "not verified", "chain"),
        (("driver-rim:chain-signature=1",), "not verified", "chain"),
        (("driver-rim:xml=dtd",), "not verified", "document type"),
        (("driver-rim:not-yet-valid=0",), "not verified", "not valid yet"),
        (("driver-rim:expired=0",), "expired", ""),
    ],
)
def test_a_rim_that_nobody_should_use_is_never_said_to_be_signed(
    lies: tuple[str, ...], state: str, reason: str
) -> None:
    platform = Platform.build("hopper-1", lies=lies)
    facts, bad, usable = inspected(platform, platform.bundle())
    driver, vbios = sorted(facts["rims"], key=lambda rim: rim["id"])
    assert (driver["state"], vbios["state"]) == (state, "verified")
    assert reason in driver.get("reason", "")
    refused = state == "not verified"
    assert [reason in said for name, said in bad if name.startswith(driver["id"])] == [True] * refused
    assert (driver["id"] in usable.rims) is not refused
    [line] = [
        line for line in render_inspection(facts).split("\n") if driver["id"] + ":" in line and "OCSP" not in line
    ]
    assert (", signed by CN=" in line) is not refused


@pytest.mark.parametrize(
    ("lie", "state"),
    [
        ("driver-rim:ocsp-signature=0", "not verified"),
        ("driver-rim:wrong-responder=0", "not verified"),
        ("driver-rim:responder-purpose=0", "not verified"),
        ("driver-rim:future=0", "not verified"),
        ("driver-rim:ocsp-status=0,tryLater", "not verified"),
        ("driver-rim:ocsp-garbage=0", "not verified"),
        ("driver-rim:stale=0", "expired"),
        ("driver-rim:revoked=0", "verified"),
        ("driver-rim:unknown=0", "verified"),
    ],
)
def test_an_answer_has_the_state_of_its_signature_and_window_whatever_it_says(lie: str, state: str) -> None:
    honest, lying = (Platform.build("hopper-1", lies=lies) for lies in ((), (lie,)))
    kept = {answer["sha256"] for answer in honest.bundle()["ocsp"]}
    facts, bad, _ = inspected(lying, lying.bundle())
    [entry] = [entry for entry in facts["ocsp"] if entry["sha256"] not in kept]
    assert entry["state"] == state
    assert len(bad) == (state == "not verified")


def test_an_old_answer_that_was_signed_some_time_after_its_this_update_is_expired_not_from_the_future(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # RFC 6960, 2.4 and 4.2.2.1: a responder may sign later what it knew at thisUpdate.
    single = pki._single
    monkeypatch.setattr(pki, "_single", lambda query, lies, at: single(query, lies, at - TWO_HOURS))
    platform = Platform.build("hopper-1")
    later = VerificationTime.at(platform.time.device + timedelta(days=2))
    inspection = inspect_bundle(platform.collateral(), Verifier(anchors=platform.trust_anchors()), later)
    assert inspection.bad == ()
    assert {entry["state"] for entry in inspection.facts["ocsp"] if "certificate" in entry} == {"expired"}


def test_more_answers_about_a_certificate_than_an_appraisal_reads_are_not_said_to_be_usable() -> None:
    platform = Platform.build("hopper-1")
    evidence = platform.evidence(bytes(32))
    certificate = next(iter(platform._certificates.values()))
    document = platform.bundle()
    document["ocsp"] += [
        entry(platform._ocsp.about(certificate, at=platform.clock - timedelta(minutes=number)))
        for number in range(1, 70)
    ]

    def revocation_of_devices(collateral) -> Outcome:
        appraisal = Verifier(anchors=platform.trust_anchors()).appraise(
            evidence, nonce=Nonce(bytes(32)), collateral=collateral, at=platform.time
        )
        return appraisal.devices[0].check("chain-revocation").outcome

    assert revocation_of_devices(load_bundle(json.dumps(document))) is Outcome.FAIL
    facts, bad, usable = inspected(platform, document)
    assert len(bad) == 6
    assert all("70 answers are about this one certificate, at most 64 are read" in why for _, why in bad)
    refused = [entry["this_update"] for entry in facts["ocsp"] if entry.get("reason", "").startswith("70 ")]
    kept = [entry["this_update"] for entry in facts["ocsp"] if not entry.get("reason", "").startswith("70 ")]
    assert len(refused) == 6
    assert max(refused) < min(kept)
    assert revocation_of_devices(usable) is Outcome.PASS


def test_answers_about_devices_are_not_verified_and_not_bad_without_the_devices(platform) -> None:
    facts, bad, usable = inspected(platform, platform.bundle())
    states = [entry["state"] for entry in facts["ocsp"]]
    assert set(states) == {"verified", "not verified"}
    assert (bad, len(usable.ocsp)) == ((), len(states))
    lines = render_inspection(facts).split("\n")
    [line] = [line for line in lines if "certificates that no RIM here has" in line]
    assert f"  {states.count('not verified')} revocation answers about" in line
    assert f": {states.count('not verified')} good, the first until 2026-" in line
    assert not [line for line in lines if "NOT VERIFIED" in line]
    assert sum("--gpu-evidence-file" in line for line in lines) == 1


def test_a_revocation_stands_in_the_sums_of_what_is_not_verified(platform) -> None:
    facts, _, _ = inspected(platform, platform.bundle())
    next(answer for answer in facts["ocsp"] if answer["state"] == "not verified")["status"] = "revoked"
    assert "1 revoked" in render_inspection(facts)


def test_inspection_lists_what_cannot_be_read(platform) -> None:
    document = {"format": "nvattest-bundle", "version": 1, "rims": [entry(b"x", id="NV_A")], "ocsp": [entry(b"y")]}
    facts, bad, usable = inspected(platform, document)
    assert len(bad) == 2
    assert (usable.rims, usable.ocsp) == ({}, ())
    assert render_inspection(facts).count(": NOT VERIFIED: ") == 2
