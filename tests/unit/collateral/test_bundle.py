"""Bundles: the schema, damage, and merging."""

from __future__ import annotations

import base64
import copy
import hashlib
import json

import jsonschema
import pytest

from nvattest._json import dump_json
from nvattest._schemas import schema_bytes
from nvattest.collateral.bundle import dump_bundle, load_bundle, merge_bundles
from nvattest.collateral.inspection import inspect_bundle, render_inspection
from nvattest.errors import InputError, ParseError


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


def test_inspection_names_signers_and_the_first_to_expire(platform) -> None:
    facts = inspect_bundle(load_bundle(json.dumps(platform.bundle())))
    assert facts["earliest_expiry"]["at"].startswith("2026-11-01")
    assert all(rim["signer"] and rim["version"] for rim in facts["rims"])
    text = render_inspection(facts)
    assert "first to expire" in text
    assert all(rim["signer"] in text for rim in facts["rims"])


def test_inspection_lists_what_cannot_be_read() -> None:
    document = {"format": "nvattest-bundle", "version": 1, "rims": [entry(b"x", id="NV_A")], "ocsp": [entry(b"y")]}
    facts = inspect_bundle(load_bundle(json.dumps(document)))
    assert "fault" in facts["rims"][0]
    assert "fault" in facts["ocsp"][0]
    assert render_inspection(facts).count("NOT READABLE") == 2
