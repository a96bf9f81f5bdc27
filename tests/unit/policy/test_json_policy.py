"""NVIDIA's JSON policies: strict where the SDK is not, and never more than a comparison."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.errors import NvattestError, ParseError, PolicyError, ResultCode
from nvattest.policy.relying_party import PolicyLanguage, load_policy

POLICY: dict[str, Any] = {
    "version": "4.0",
    "authorization-rules": {
        "type": "JWT",
        "overall-claims": {"x-nvidia-overall-att-result": True},
        "detached-claims": {
            "measres": "success",
            "chain": {"status": "valid", "deep": {"x": 1}},
            "list": [1, {"a": 2}],
        },
    },
}
OVERALL = {"x-nvidia-overall-att-result": True}
DEVICE = {
    "measres": "success",
    "chain": {"status": "valid", "deep": {"x": 1, "y": 2}, "more": 0},
    "list": [1, {"a": 2}],
}


def load(document: object) -> Any:
    return load_policy(json.dumps(document, indent=1).encode(), name="p.json")


def changed(path: tuple[str, ...], value: object) -> dict[str, Any]:
    document = copy.deepcopy(POLICY)
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def test_rules_hold_and_claims_without_a_rule_are_free() -> None:
    policy = load(POLICY)
    assert policy.language is PolicyLanguage.NVIDIA_JSON
    decision = policy.evaluate([DEVICE, DEVICE | {"more": 1}], OVERALL | {"iss": "x"})
    assert decision.matched
    assert decision.reasons == ()


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ({**DEVICE, "measres": "fail"}, 'device 0: measres is "fail", expected "success"'),
        ({"chain": DEVICE["chain"], "list": DEVICE["list"]}, "device 0: measres is not among the claims"),
        ({**DEVICE, "chain": {"status": "valid", "deep": {"x": True}}}, "device 0: chain: deep: x is true, expected 1"),
        ({**DEVICE, "chain": {"status": "valid", "deep": {"x": 1.0}}}, "x is 1.0, expected 1"),
        ({**DEVICE, "chain": {"status": "valid"}}, "chain: deep is not among the claims"),
        ({**DEVICE, "chain": None}, "chain is null"),
        ({**DEVICE, "list": [1]}, "list is [1]"),
        ({**DEVICE, "list": [True, {"a": 2}]}, "list is [true"),
        ({**DEVICE, "list": [1, {"a": 2, "b": 3}]}, "list is"),
        ({**DEVICE, "measres": {1, 2}}, "measres is set"),
    ],
)
def test_a_claim_that_differs_is_a_mismatch_with_its_reason(device: dict[str, object], reason: str) -> None:
    decision = load(POLICY).evaluate([device], OVERALL)
    assert not decision.matched
    assert any(reason in item for item in decision.reasons)


def test_true_is_not_one() -> None:
    assert not load(POLICY).evaluate([DEVICE], {"x-nvidia-overall-att-result": 1}).matched


def test_no_device_and_no_overall_claims_are_a_mismatch() -> None:
    assert load(POLICY).evaluate([], OVERALL).reasons == ("there is no device",)
    assert load(POLICY).evaluate([DEVICE], None).reasons == ("there are no overall claims to compare with",)


def test_reasons_are_bounded() -> None:
    assert len(load(POLICY).evaluate([{}] * 5000, OVERALL).reasons) == 65


RULES = "authorization-rules"
MALFORMED = [
    (("version",), "1.0", "policy-value", "line 2, column 2"),
    (("version",), 4.0, "policy-value", "line 2"),
    (("version",), ..., "policy-key", "has no 'version'"),
    (("verison",), "4.0", "policy-key", "verison is not a key"),
    ((RULES,), ..., "policy-key", "has no"),
    ((RULES,), [], "policy-value", "expected an object"),
    ((RULES, "type"), "jwt", "policy-value", "expected 'JWT'"),
    ((RULES, "type"), ..., "policy-key", "has no 'type'"),
    ((RULES, "extra"), 1, "policy-key", "extra is not a key"),
    ((RULES, "overall-claims"), ..., "policy-key", "has no"),
    ((RULES, "overall-claims"), {}, "policy-empty", "demand nothing"),
    ((RULES, "detached-claims"), {}, "policy-empty", "demand nothing"),
    ((RULES, "detached-claims"), [], "policy-value", "an array, expected an object"),
    ((RULES, "detached-claims", "chain"), {}, "policy-empty", "chain is empty"),
]


@pytest.mark.parametrize(("path", "value", "code", "says"), MALFORMED)
def test_a_policy_that_is_not_nvidias_is_refused(path: tuple[str, ...], value: object, code: str, says: str) -> None:
    document = changed(path, value)
    with pytest.raises(PolicyError) as caught:
        load(document)
    assert caught.value.code == code
    assert caught.value.result_code is ResultCode.POLICY_EVALUATION_ERROR
    assert says in str(caught.value)
    assert not jsonschema.Draft202012Validator(json.loads(schema_bytes("nvidia-json-policy.json"))).is_valid(document)


def test_the_schema_accepts_what_the_loader_accepts() -> None:
    jsonschema.validate(POLICY, json.loads(schema_bytes("nvidia-json-policy.json")))


def test_the_flat_policies_of_version_1_are_refused_by_name() -> None:
    with pytest.raises(PolicyError) as caught:
        load({"version": "1.0", "measres": "success"})
    assert "measres is not a key" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"{", b'{"version": "4.0", "version": "4.0"}', b'{"a": NaN}', b'{"a":' * 20000, b" " * 300000 + b"{}", b"{\xff}"],
)
def test_what_is_not_json_is_a_parse_error(data: bytes) -> None:
    with pytest.raises(ParseError):
        load_policy(data, name="p.json")


def test_rules_of_great_depth_are_refused() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = {"a": deep}
    lists: Any = 1
    for _ in range(40):
        lists = [lists]
    for value in (deep, lists):
        with pytest.raises(NvattestError, match="deep"):
            load(changed((RULES, "detached-claims", "x"), value))


def test_json_policies_know_no_ear() -> None:
    with pytest.raises(PolicyError, match="EAR"):
        load(POLICY).evaluate({})


def test_what_the_token_will_say_of_a_policy() -> None:
    policy = load(POLICY)
    decision = policy.evaluate([DEVICE], OVERALL)
    assert policy.provenance(decision, overrides=True) == {
        "name": "p.json",
        "language": "nvidia-json",
        "sha256": policy.sha256,
        "matched": True,
        "overrides_appraisal": True,
    }
    assert len(policy.sha256) == 64
    assert policy.explain()[0].startswith("NVIDIA's JSON policy, version 4.0")
    assert "every device: chain.deep.x = 1" in policy.explain()
