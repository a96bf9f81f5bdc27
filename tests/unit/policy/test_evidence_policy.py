"""Evidence policies from files: every field, every mistake with its place, and the schema beside the loader."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.appraisal.inputs import EvidencePolicy, RevocationMode, TopologyRule
from nvattest.appraisal.results import policy_to_json
from nvattest.errors import NvattestError, ParseError, PolicyError, ResultCode
from nvattest.model import Architecture
from nvattest.policy.evidence_policy import (
    FIELDS,
    dump_evidence_policy,
    evidence_policy_schema,
    explain_evidence_policy,
    load_evidence_policy,
)

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "policies"

# Every field differs from its default.
OTHER = EvidencePolicy(
    revocation=RevocationMode.FRESH,
    allowed_architectures=(Architecture.HOPPER,),
    allowed_modes=("ppcie", "spt"),
    minimum_driver_version="570.86.15",
    minimum_vbios_version="96.00.9F.00.01",
    denied_driver_versions=("550.1", "535.2"),
    denied_vbios_versions=("96.00.5E.00.01",),
    expected_gpus=8,
    expected_switches=4,
    topology=TopologyRule.REQUIRED,
    max_trailing_bytes=0,
    require_fwid_in_report=True,
    fwid_optional_for=(),
    accept_unverified_nonce=True,
    accept_unchecked_revocation=True,
    accept_live_ocsp_without_nonce=True,
    accept_stale_ocsp=True,
    accept_expired_rim_certificates=True,
    allow_certificate_hold_for_rims=True,
    allow_certificate_hold_for_devices=True,
    allow_debug=True,
)


def load(text: str) -> EvidencePolicy:
    return load_evidence_policy(text.encode(), source="p")


def test_the_other_policy_of_these_tests_differs_in_every_field() -> None:
    assert all(getattr(OTHER, field.name) != getattr(EvidencePolicy(), field.name) for field in fields(OTHER))


@pytest.mark.parametrize("form", ["toml", "json"])
@pytest.mark.parametrize("policy", [EvidencePolicy(), OTHER, *(
    replace(EvidencePolicy(), **{field.name: getattr(OTHER, field.name)}) for field in fields(OTHER)
)])  # fmt: skip
def test_what_is_written_is_read_again(policy: EvidencePolicy, form: str) -> None:
    assert load(dump_evidence_policy(policy, form=form)) == policy


def test_what_an_appraisal_says_of_its_policy_is_a_policy_file() -> None:
    assert load(json.dumps(policy_to_json(OTHER))) == OTHER


@pytest.mark.parametrize("text", ["", "# only a comment\n", "{}", "  \n{}"])
def test_what_is_left_out_keeps_its_strict_default(text: str) -> None:
    assert load(text) == EvidencePolicy()


def test_the_published_schema_is_the_one_that_the_loader_has() -> None:
    schema = json.loads(schema_bytes("evidence-policy-1.json"))
    assert schema == evidence_policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_policy_inside_an_appraisal_has_the_members_that_are_declared() -> None:
    said = json.loads(schema_bytes("appraisal-1.json"))["$defs"]["policy"]
    assert list(said["properties"]) == list(FIELDS)
    # Appraisals of 1.0.0 have no such member.
    assert said["required"] == [name for name in FIELDS if name != "require_fwid_in_report"]
    declared = evidence_policy_schema()["properties"]
    for name, member in said["properties"].items():
        assert (member.get("type"), member.get("enum")) == (declared[name].get("type"), declared[name].get("enum")), (
            name
        )
    for policy in (EvidencePolicy(), OTHER):
        jsonschema.Draft202012Validator(said).validate(policy_to_json(policy))


def test_a_field_is_a_weakening_if_its_name_says_so() -> None:
    for name in FIELDS:
        if name.startswith(("accept_", "allow_")):
            assert EvidencePolicy(**{name: True}).weakenings == (name,)
            assert FIELDS[name].metadata["meaning"].startswith("Weakening: ")
    assert len(OTHER.weakenings) == sum(name.startswith(("accept_", "allow_")) for name in FIELDS)


@pytest.mark.parametrize(
    ("text", "where", "says", "hint"),
    [
        ('a = 1\nrevocaton = "fresh"', "line 1, column 1", "a is not a key", "one of"),
        ('\n\n  revocaton = "fresh"', "line 3, column 3", "revocaton is not a key", "did you mean 'revocation'?"),
        ('{\n  "revocaton": "fresh"}', "line 2, column 3", "revocaton is not a key", "did you mean 'revocation'?"),
        ('{"expected_gpus": 8,\n "revocation": "fres"}', "line 2, column 2", "'fres', which", "mean 'fresh'?"),
        ('revocation = "Fresh"', "line 1, column 1", "'Fresh', which is not known", "did you mean 'fresh'?"),
        ("revocation = true", "line 1, column 1", "is a boolean, expected a text", "fresh, within-window, bundle"),
        ('topology = "always"', "line 1", "not known", "when-present, required"),
        ('allowed_architectures = ["HOPPER", "hoper"]', "line 1", "[1] is 'hoper'", "did you mean 'HOPPER'?"),
        ('allowed_architectures = "HOPPER"', "line 1", "is a text, expected an array", ""),
        ('allowed_modes = ["spt", "spt"]', "line 1", "[1] is 'spt' once more", ""),
        ("expected_gpus = -1", "line 1", "is -1, expected 0 to 64", ""),
        ("expected_gpus = 8.0", "line 1", "a number, expected a whole number", ""),
        ("expected_gpus = true", "line 1", "is a boolean, expected a whole number", ""),
        ('expected_gpus = "8"', "line 1", "is a text, expected a whole number", ""),
        ("expected_gpus = 2026-11-24", "line 1", "a date or a time", ""),
        ("max_trailing_bytes = 5000", "line 1", "expected 0 to 4096", ""),
        ('{"max_trailing_bytes": null}', "line 1", "is null", ""),
        ("allow_debug = 1", "line 1", "is a number, expected true or false", ""),
        ('allow_debug = "no"', "line 1", "expected true or false", ""),
        ('minimum_driver_version = "570.x"', "line 1", "not a version", "570.86.15"),
        ("minimum_driver_version = 570", "line 1", "expected a version as a text", "570.86.15"),
        ('minimum_driver_version = "570.86.15\\n"', "line 1", "not a version", ""),
        ('minimum_vbios_version = "96.00.9G"', "line 1", "not a version", "96.00.9F.00.01"),
        ('denied_driver_versions = ["1", ""]', "line 1", "[1] is ''", ""),
        ("version = 2", "line 1", "is 2, expected 1", ""),
        ("version = true", "line 1", "is True, expected 1", ""),
        ('format = "other"', "line 1", "is 'other', expected 'nvattest-evidence-policy'", ""),
        ("[policy]\nallow_debug = false", "line 1, column 1", "policy is not a key", ""),
    ],
)
def test_a_mistake_is_refused_with_its_place_and_a_suggestion(text: str, where: str, says: str, hint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(text)
    assert where in str(caught.value)
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.code in ("policy-key", "policy-value")


@pytest.mark.parametrize(
    ("data", "says", "code"),
    [
        (b"allow_debug = \n", "line 1, column", "toml"),
        (b"allow_debug = false\nallow_debug = true\n", "line 2, column", "toml"),
        (b"x = " + b"[" * 30000, "", "toml"),
        (b"expected_gpus = " + b"9" * 5000, "not TOML", "toml"),
        (b'{"a": 1,\n "b" 2}', "line 2, column 6: not JSON", "json"),
        (b'{"a": 1, "a": 1}', "twice", "duplicate-key"),
        (b'{"a":' * 5000, "", "json"),
        (b"\xff", "not UTF-8", "encoding"),
        (b"#" * 70000, "at most", "too-large"),
        ('{"é": 1,\n"ü" 2}'.encode(), "line 2, column 5", "json"),
    ],
)
def test_what_is_neither_toml_nor_json_is_a_parse_error_with_its_place(data: bytes, says: str, code: str) -> None:
    with pytest.raises(ParseError) as caught:
        load_evidence_policy(data, source="p")
    assert says in str(caught.value)
    assert caught.value.code == code
    assert caught.value.result_code is ResultCode.POLICY_EVALUATION_ERROR


@pytest.mark.parametrize("form", ["toml", "json"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_policy_that_an_editor_saved_with_a_byte_order_mark_is_read(form: str, encoding: str) -> None:
    assert load_evidence_policy(dump_evidence_policy(OTHER, form=form).encode(encoding), source="p") == OTHER
    with pytest.raises(ParseError) as caught:
        load_evidence_policy(dump_evidence_policy(OTHER, form=form).encode(encoding) + b"\xff", source="p")
    assert caught.value.code == "encoding"


def test_schema_and_loader_agree_on_what_a_field_may_hold() -> None:
    validator = jsonschema.Draft202012Validator(evidence_policy_schema())
    values = [None, True, 0, 8, 65, -1, 5000, 1.5, "", "x", "fresh", "required", "96.00.9F", "570.86.15", {}, []]
    values += [[item] for item in ("HOPPER", "hopper", "spt", "1.2", "9F", "", 1, None)] + [["spt", "spt"]]
    for name in [*FIELDS, "version", "format", "$schema", "unknown"]:
        for value in values:
            document = {name: value}
            try:
                load(json.dumps(document))
            except NvattestError:
                read = False
            else:
                read = True
            # The schema says that $schema is a text; the loader does not look at it.
            if name != "$schema":
                assert read == validator.is_valid(document), document


def test_an_explanation_marks_what_is_weaker_than_the_default() -> None:
    lines = explain_evidence_policy(OTHER)
    assert sum("WEAKER" in line for line in lines) == len(OTHER.weakenings) == 8
    assert not any("WEAKER" in line or "changed" in line for line in explain_evidence_policy(EvidencePolicy()))


def test_the_policy_in_the_documents_is_one() -> None:
    page = (EXAMPLES.parent / "operator.md").read_text(encoding="utf-8")
    [text] = [block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "evidence-policy" in block]
    assert load(text) == EvidencePolicy(
        minimum_driver_version="570.86.15", expected_gpus=8, expected_switches=4, topology=TopologyRule.REQUIRED
    )


def test_the_example_is_a_policy_without_weakenings() -> None:
    policy = load_evidence_policy((EXAMPLES / "evidence.toml").read_bytes(), source="evidence.toml")
    assert policy.expected_gpus == 8
    assert policy.weakenings == ()
