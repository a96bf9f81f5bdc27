"""The policies of examples/policies, which are NVIDIA's examples in our words: what each decides on which node."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.errors import PolicyError
from nvattest.policy.relying_party import RelyingPartyPolicy, load_policy

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "policies"
Claims = list[dict[str, object]]

# Node: (platform, lies). The mismatch of index 7 alone, of others too, and trouble in chains.
NODES: dict[str, tuple[str, ...]] = {
    "good": ("hopper-1",),
    "good-hgx": ("hopper-8-ppcie",),
    "mismatch-7": ("hopper-1", "gpu0:measurement=7"),
    "mismatch-7-and-9": ("hopper-1", "gpu0:measurement=7", "gpu0:measurement=9"),
    "mismatch-9": ("hopper-1", "gpu0:measurement=9"),
    "driver-rim-revoked": ("hopper-1", "driver-rim:revoked=0"),
    "vbios-rim-revoked": ("hopper-1", "vbios-rim:revoked=0"),
    "device-revoked": ("hopper-1", "gpu0:revoked=1"),
    "driver-rim-expired": ("hopper-1", "driver-rim:expired=0"),
    "driver-rim-unknown": ("hopper-1", "driver-rim:unknown=0"),
    "cached": ("hopper-1",),
    "cached-hgx": ("hopper-8-ppcie",),
}

GOOD = {"good", "good-hgx"}

# Which nodes each policy accepts; it refuses all others.
ACCEPTED: dict[str, set[str]] = {
    "default.rego": GOOD,
    "allow_gpu_driver_rim_cert_expired.rego": GOOD | {"driver-rim-expired"},
    "allow_gpu_driver_rim_cert_revoked.rego": GOOD | {"driver-rim-revoked"},
    "allow_gpu_driver_rim_cert_unknown.rego": GOOD | {"driver-rim-unknown"},
    "allow_gpu_measurement_mismatch_index_7.rego": GOOD | {"mismatch-7"},
    "allow_trust_outpost_ocsp.rego": GOOD | {"cached", "cached-hgx"},
    "allow_opaque_data_mismatch_and_revocation.rego": GOOD | {"driver-rim-revoked", "vbios-rim-revoked"},
    # What holds of chains and freshness is no concern of this one.
    "gpu_secure_boot.rego": {
        "good",
        "cached",
        "driver-rim-revoked",
        "vbios-rim-revoked",
        "device-revoked",
        "driver-rim-expired",
        "driver-rim-unknown",
    },
    "switch_secure_boot.rego": set(),
    "accept_ear_affirming.rego": set(),
}


def policy(name: str) -> RelyingPartyPolicy:
    return load_policy((EXAMPLES / name).read_bytes(), name=name)


def test_every_rego_example_stands_in_the_table() -> None:
    assert {path.name for path in EXAMPLES.glob("*.rego")} == set(ACCEPTED)


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("which", NODES)
def test_an_example_decides_as_the_table_says(name: str, which: str, node: Callable[..., Claims]) -> None:
    claims = node(*NODES[which], cached=which.startswith("cached"))
    decision = policy(name).evaluate(claims)
    assert decision.matched == (which in ACCEPTED[name])
    assert bool(decision.reasons) != decision.matched


@pytest.mark.parametrize("name", ACCEPTED)
def test_no_example_accepts_no_device(name: str) -> None:
    assert not policy(name).evaluate([]).matched


# The EAR policy has no devices as its input.
@pytest.mark.parametrize("name", sorted(set(ACCEPTED) - {"accept_ear_affirming.rego"}))
def test_no_example_accepts_a_device_of_an_unknown_kind(name: str, node: Callable[..., Claims]) -> None:
    switches = name == "switch_secure_boot.rego"
    claims = copy.deepcopy(node("hopper-8-ppcie")[-2:] if switches else node("hopper-1"))
    assert policy(name).evaluate(claims).matched, "else the kind would not be what decides"
    claims[0]["x-nvidia-device-type"] = "dpu"
    assert not policy(name).evaluate(claims).matched


def test_one_bad_device_among_many_spoils_the_node(node: Callable[..., Claims]) -> None:
    claims = copy.deepcopy(node("hopper-8-ppcie"))
    claims[5]["measres"] = "fail"
    assert not policy("default.rego").evaluate(claims).matched


def test_a_measurement_failure_without_records_is_not_about_index_7(node: Callable[..., Claims]) -> None:
    for records in ([], None):
        claims = copy.deepcopy(node("hopper-1"))
        claims[0] |= {"measres": "fail", "x-nvidia-mismatch-measurement-records": records}
        assert not policy("allow_gpu_measurement_mismatch_index_7.rego").evaluate(claims).matched


def test_opaque_values_may_miss_only_where_the_policy_says_so(node: Callable[..., Claims]) -> None:
    claims = copy.deepcopy(node("hopper-1"))
    claims[0] |= {"measres": "fail", "x-nvidia-mismatch-opaque-data-records": [{"id": 1}]}
    assert policy("allow_opaque_data_mismatch_and_revocation.rego").evaluate(claims).matched
    assert not policy("default.rego").evaluate(claims).matched
    claims[0]["x-nvidia-mismatch-measurement-records"] = [{"index": 7}]
    assert not policy("allow_opaque_data_mismatch_and_revocation.rego").evaluate(claims).matched


def test_switches_alone_have_a_policy_of_their_own(node: Callable[..., Claims]) -> None:
    switches = [item for item in node("hopper-8-ppcie") if item["x-nvidia-device-type"] == "nvswitch"]
    assert len(switches) == 4
    assert policy("switch_secure_boot.rego").evaluate(switches).matched
    assert policy("default.rego").evaluate(switches).matched


@pytest.mark.parametrize(
    ("ear", "accepted"),
    [
        ({"ear.status": "affirming", "submods": {"gpu0": {"ear.status": "affirming"}}}, True),
        ({"submods": {"gpu0": {"ear.status": "affirming"}}}, True),
        ({"ear_status": "affirming", "submods": {"gpu0": {"ear_status": "affirming"}}}, True),
        ({"submods": {"gpu0": {"ear.status": "affirming"}, "gpu1": {}}}, False),
        ({"submods": {"gpu0": {"ear.status": "warning"}}}, False),
        ({"ear_status": "contraindicated", "submods": {"gpu0": {"ear_status": "affirming"}}}, False),
        ({"ear.status": None, "submods": {"gpu0": {"ear.status": "affirming"}}}, False),
        ({"ear.status": "affirming", "submods": {}}, False),
        ({"ear.status": "affirming"}, False),
        ({"ear.status": "warning", "submods": {"gpu0": {"ear.status": "affirming"}}}, False),
        (
            {
                "ear.status": "affirming",
                "submods": {"a": {"ear.status": "affirming"}, "b": {"ear.status": "contraindicated"}},
            },
            False,
        ),
    ],
)
def test_an_ear_is_accepted_if_all_of_it_affirms(ear: dict[str, object], accepted: bool) -> None:
    assert policy("accept_ear_affirming.rego").evaluate(ear).matched is accepted


def test_an_ear_with_two_statuses_is_an_error() -> None:
    two = {"ear.status": "affirming", "ear_status": "contraindicated"}
    with pytest.raises(PolicyError):
        policy("accept_ear_affirming.rego").evaluate({"submods": {"gpu0": two}})


# --- JSON ---------------------------------------------------------------------------------------------------------

OVERALL_3 = {"x-nvidia-overall-att-result": True, "x-nvidia-ver": "3.0", "iss": "anybody"}


def satisfying(name: str) -> tuple[dict[str, object], dict[str, object]]:
    rules = json.loads((EXAMPLES / name).read_bytes())["authorization-rules"]
    return rules["overall-claims"], rules["detached-claims"]


@pytest.mark.parametrize("name", ["gpu-2.0.json", "gpu-3.0.json", "gpu-4.0.json", "switch-4.0.json"])
def test_a_json_example_follows_the_schema_and_demands_each_of_its_rules(name: str) -> None:
    document = json.loads((EXAMPLES / name).read_bytes())
    jsonschema.validate(document, json.loads(schema_bytes("nvidia-json-policy.json")))
    overall, device = satisfying(name)
    assert policy(name).evaluate([device, device | {"extra": 1}], overall | {"extra": 1}).matched
    for key in device:
        without = {other: value for other, value in device.items() if other != key}
        assert not policy(name).evaluate([device, without], overall).matched
    for key in overall:
        assert not policy(name).evaluate([device], {**overall, key: None}).matched


@pytest.mark.parametrize(
    ("which", "accepted"),
    [("good", True), ("cached", True), ("mismatch-7", False), ("driver-rim-revoked", False),
     ("driver-rim-expired", False), ("driver-rim-unknown", False), ("device-revoked", False)],
)  # fmt: skip
def test_the_json_policy_of_claims_3_decides_on_real_claims(
    which: str, accepted: bool, node: Callable[..., Claims]
) -> None:
    claims = node(*NODES[which], version="3.0", cached=which == "cached")
    decision = policy("gpu-4.0.json").evaluate(claims, OVERALL_3)
    assert decision.matched is accepted
    assert bool(decision.reasons) != accepted


def test_the_json_policy_of_switches_decides_on_real_claims(node: Callable[..., Claims]) -> None:
    switches = [item for item in node("hopper-8-ppcie") if item["x-nvidia-device-type"] == "nvswitch"]
    assert policy("switch-4.0.json").evaluate(switches, OVERALL_3).matched
