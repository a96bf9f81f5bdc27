"""CPU policies from files: every field, every mistake with its place, strict defaults, and the schema beside them."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.appraisal.guest import (
    GENERATIONS,
    MINIMUM_EVALUATION,
    TCB_STATUSES,
    CpuPolicy,
    SnpDemands,
    TcbFloor,
    TdxDemands,
)
from nvattest.appraisal.results import cpu_policy_to_json
from nvattest.cli import main
from nvattest.errors import ParseError, PolicyError
from nvattest.policy.cpu_policy import cpu_policy_schema, explain_cpu_policy, is_cpu_policy, load_cpu_policy
from nvattest.policy.evidence_policy import declared_fields

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "policies" / "cpu.toml"
A, B = "ab" * 48, "cd" * 48
FULL = {
    "format": "nvattest-cpu-policy", "version": 1, "kinds": ["tdx", "snp"],
    "tdx": {
        "measurements": "any", "mrtd": [A, B], "rtmr0": [A], "rtmr1": [A], "rtmr2": [A], "rtmr3": [A],
        "mr_config_id": [A], "mr_seam": [A], "tcb_status": ["UpToDate", "SWHardeningNeeded"],
        "advisories_allowed": ["INTEL-SA-01036"], "minimum_tcb_evaluation": 20, "minimum_tcb_date": "2025-05-14",
    },
    "snp": {
        "measurements": "any", "measurement": [A], "host_data": ["ab" * 32], "family_id": ["ab" * 16],
        "image_id": ["ab" * 16], "id_key_digest": [A], "author_key_digest": [A], "chip_id": ["ab" * 64],
        "maximum_vmpl": 1, "endorsement": ["vcek", "vlek"], "csp_id": ["CN=one"], "minimum_guest_svn": 3,
        "minimum_abi": "1.51", "smt": "forbidden", "migration": True, "crl": "if-present",
        "minimum_tcb": {name: {"boot_loader": 1, "tee": 2, "snp": 3, "microcode": 4} for name in GENERATIONS}
        | {"turin": {"fmc": 5}},
    },
}  # fmt: skip


def read(document: dict[str, Any]) -> CpuPolicy:
    return load_cpu_policy(json.dumps(document).encode(), source="cpu.json")


def test_every_field_is_read_from_a_file_and_written_back_as_it_was() -> None:
    policy = read(FULL)
    assert policy.tdx is not None
    assert policy.snp is not None
    assert policy.tdx.minimum_tcb_date == date(2025, 5, 14)
    assert policy.snp.minimum_tcb["turin"] == TcbFloor(fmc=5)
    said = cpu_policy_to_json(policy)
    for table in ("tdx", "snp"):
        for key, value in FULL[table].items():
            if key != "minimum_tcb":
                assert said[table][key] == value, key
    # Every field is in the file above, so that none is forgotten.
    assert FULL["tdx"].keys() == {field.name for field in fields(TdxDemands)}
    assert FULL["snp"].keys() == {field.name for field in fields(SnpDemands)}
    assert read(json.loads(json.dumps({key: value for key, value in said.items() if value}))) == policy


def test_toml_and_json_say_the_same() -> None:
    toml = f'[tdx]\nmrtd = ["{A}"]\nminimum_tcb_date = 2025-05-14\n[snp]\nmeasurement = ["{A}"]\n[snp.minimum_tcb.genoa]\nsnp = 3\n'
    same = {
        "tdx": {"mrtd": [A], "minimum_tcb_date": "2025-05-14"},
        "snp": {"measurement": [A], "minimum_tcb": {"genoa": {"snp": 3}}},
    }
    assert load_cpu_policy(toml.encode(), source="cpu.toml") == read(same)


def test_what_is_left_out_keeps_its_strict_default() -> None:
    policy = read({"tdx": {"mrtd": [A]}, "snp": {"measurement": [A]}})
    assert policy == CpuPolicy(tdx=TdxDemands(mrtd=(A,)), snp=SnpDemands(measurement=(A,)))
    assert policy.weakenings == ()
    tdx, snp = policy.tdx, policy.snp
    assert tdx is not None
    assert snp is not None
    assert (tdx.tcb_status, tdx.advisories_allowed, tdx.minimum_tcb_evaluation) == (
        ("UpToDate",),
        (),
        MINIMUM_EVALUATION,
    )
    assert (snp.maximum_vmpl, snp.endorsement, snp.migration, snp.crl) == (0, ("vcek",), False, "required")
    assert snp.minimum_tcb == {}, "a generation without a floor is refused"


def test_a_kind_without_a_table_is_refused_and_a_table_that_kinds_leaves_out_is_a_mistake() -> None:
    assert read({"tdx": {"mrtd": [A]}}).snp is None
    with pytest.raises(PolicyError, match="snp is not among kinds"):
        read({"kinds": ["tdx"], "tdx": {"mrtd": [A]}, "snp": {"measurement": [A]}})
    with pytest.raises(PolicyError) as caught:
        read({"kinds": ["tdx", "snp"], "tdx": {"mrtd": [A]}})
    assert caught.value.code == "policy-measurements"


@pytest.mark.parametrize(
    ("table", "enough"),
    [
        ({}, False),
        ({"mrtd": []}, False),
        ({"mrtd": [A]}, True),
        ({"rtmr1": [A]}, False),
        ({"rtmr2": [A]}, False),
        ({"rtmr0": [A], "rtmr3": [A]}, False),
        ({"rtmr1": [A], "rtmr2": [A]}, True),
        ({"measurements": "any"}, True),
    ],
)
def test_no_measurement_demanded_is_a_mistake_unless_it_is_written_out(table: dict[str, Any], enough: bool) -> None:
    valid = jsonschema.Draft202012Validator(cpu_policy_schema()).is_valid({"tdx": table})
    if enough:
        assert read({"tdx": table}).tdx is not None
    else:
        with pytest.raises(PolicyError) as caught:
            read({"tdx": table})
        assert caught.value.code == "policy-measurements"
        assert 'measurements = "any"' in caught.value.hint
    assert valid == enough, "the schema says the same"


@pytest.mark.parametrize(("table", "name"), [("tdx", "tcb_status"), ("snp", "endorsement")])
def test_a_list_that_would_let_no_guest_count_is_a_mistake(table: str, name: str) -> None:
    policy = {table: {"measurements": "any", name: []}}
    with pytest.raises(PolicyError, match=f"{name} is empty, so that no guest would count") as caught:
        read(policy)
    assert (caught.value.code, "leave it out" in caught.value.hint) == ("policy-value", True)
    assert not jsonschema.Draft202012Validator(cpu_policy_schema()).is_valid(policy)


MISTAKES = [
    (b'[tdx]\nmrtd = ["AB"]', "cpu, line 2, column 1: tdx.mrtd [0]", "policy-value"),
    (b'[tdx]\nmrtd = ["' + A.upper().encode() + b'"]', "tdx.mrtd [0]", "policy-value"),
    (b'[tdx]\nmeasurements = "all"', "tdx.measurements is 'all'", "policy-value"),
    (b'[tdx]\nmeasurements = "any"\ntcb_status = ["Revoked"]', "line 3, column 1: tdx.tcb_status [0]", "policy-value"),
    (b'[tdx]\nmeasurements = "any"\nadvisories_allowed = ["any"]', "tdx.advisories_allowed", "policy-value"),
    (b'[tdx]\nmeasurements = "any"\nminimum_tcb_evaluation = -1', "tdx.minimum_tcb_evaluation is -1", "policy-value"),
    (b'[tdx]\nmeasurements = "any"\nminimum_tcb_date = "May"', "tdx.minimum_tcb_date is no date", "policy-value"),
    (b'[tdx]\nmeasurements = "any"\nminimum_tcb_date = 2025-05-14T00:00:00Z', "is no date", "policy-value"),
    (b'[tdx]\nmeasurements = "any"\ndebug = true', "tdx.debug is not a key", "policy-key"),
    (b'[snp]\nmeasurements = "any"\nmaximum_vmpl = 4', "snp.maximum_vmpl is 4, expected 0 to 3", "policy-value"),
    (b'[snp]\nmeasurements = "any"\nminimum_abi = "1"', r"snp.minimum_abi is '1', which is not [0-9]{1,3}\.[0-9]{1,3}", "policy-value"),
    (b'[snp]\nmeasurements = "any"\nminimum_abi = 1', r"snp.minimum_abi is a number, expected [0-9]{1,3}\.[0-9]{1,3} as a text", "policy-value"),
    (b'[snp]\nmeasurements = "any"\nsmt = "off"', "snp.smt is 'off'", "policy-value"),
    (b'[snp]\nmeasurements = "any"\nmigration = "no"', "snp.migration is a text", "policy-value"),
    (b'[snp]\nmeasurements = "any"\nendorsement = ["vlek"]', "csp_id names no cloud provider", "policy-value"),
    (b'[snp]\nmeasurements = "any"\nminimum_tcb = 1', "snp.minimum_tcb is a number, expected a table", "policy-value"),
    (b'[snp]\nmeasurements = "any"\n[snp.minimum_tcb.rome]\nsnp = 1', "snp.minimum_tcb.rome is no generation", "policy-key"),
    (b'[snp]\nmeasurements = "any"\n[snp.minimum_tcb.milan]\nspl = 1', "snp.minimum_tcb.milan.spl is not a key", "policy-key"),
    (b'[snp]\nmeasurements = "any"\n[snp.minimum_tcb.milan]\nsnp = 256', "line 4, column 1: snp.minimum_tcb.milan.snp", "policy-value"),
    (b"tdx = 1", "tdx is a number, expected a table", "policy-value"),
    (b"[sgx]\n", "sgx is not a key", "policy-key"),
    (b"version = 2\n[tdx]\n", "version is 2, expected 1", "policy-value"),
    (b'format = "nvattest-evidence-policy"', "format is 'nvattest-evidence-policy'", "policy-value"),
    (b"kinds = []", "kinds is no list", "policy-value"),
    (b'kinds = [["tdx"]]', "kinds is no list", "policy-value"),
    (b"kinds = [{}]", "kinds is no list", "policy-value"),
    (b'kinds = ["sgx"]', "kinds is no list", "policy-value"),
    (b"", "kinds is no list", "policy-value"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says", "code"), MISTAKES)
def test_a_mistake_is_found_at_its_place(text: bytes, says: str, code: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_cpu_policy(text, source="cpu")
    assert says in caught.value.message
    assert caught.value.message.startswith("cpu")
    assert caught.value.code == code


@pytest.mark.parametrize("text", [b"{", b"[tdx\n", b"\xff\xfe\xff", b"[]", b"x" * 70000])
def test_what_is_neither_toml_nor_json_is_a_parse_error(text: bytes) -> None:
    with pytest.raises((ParseError, PolicyError)):
        load_cpu_policy(text, source="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"mrtd": ["list"]},
        {"mrtd": (A.upper(),)},
        {"mrtd": (bytes(48),)},
        {"tcb_status": ("Revoked",)},
        {"minimum_tcb_evaluation": True},
        {"minimum_tcb_evaluation": -1},
        {"minimum_tcb_date": "2025-05-14"},
        {"measurements": "ANY"},
    ],
)
def test_a_policy_made_in_python_is_checked_as_a_file_is(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        TdxDemands(**{"mrtd": (A,)} | change)


@pytest.mark.parametrize(
    "change",
    [
        {"migration": 1},
        {"endorsement": ("ark",)},
        {"minimum_tcb": {"rome": TcbFloor()}},
        {"minimum_tcb": {"milan": 1}},
    ],
)
def test_so_are_the_demands_on_snp(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        SnpDemands(**{"measurement": (A,)} | change)
    with pytest.raises(PolicyError):
        TcbFloor(snp=256)
    with pytest.raises(PolicyError):
        CpuPolicy()


def test_every_weakening_is_named() -> None:
    policy = read(FULL)
    assert policy.weakenings == (
        "any guest", "tdx.tcb_status", "tdx.advisories_allowed", "snp.maximum_vmpl", "snp.migration", "snp.crl"
    )  # fmt: skip
    lower = TdxDemands(mrtd=(A,), minimum_tcb_evaluation=MINIMUM_EVALUATION - 1)
    assert lower.weakenings == ("tdx.minimum_tcb_evaluation",)
    # AMD publishes no status of firmware: a floor of zeros counts every one.
    for floor, names in ((TcbFloor(), ("snp.minimum_tcb",)), (TcbFloor(snp=1), ())):
        assert SnpDemands(measurement=(A,), minimum_tcb={"genoa": floor}).weakenings == names


def test_the_schema_beside_the_loader_is_the_one_that_ships() -> None:
    schema = json.loads(schema_bytes("cpu-policy-1.json"))
    assert schema == json.loads(json.dumps(cpu_policy_schema())), "write schemas/cpu-policy-1.json again"
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    validator.validate(FULL)
    for table, key, value in (("tdx", "mrtd", ["zz"]), ("snp", "smt", "off"), ("snp", "maximum_vmpl", 9)):
        assert not validator.is_valid({table: {"measurements": "any", key: value}})
    assert not validator.is_valid({})


def test_every_field_says_its_meaning_in_the_explanation() -> None:
    lines = "\n".join(explain_cpu_policy(read(FULL)))
    for table, demands in (("tdx", TdxDemands), ("snp", SnpDemands)):
        for name, field in declared_fields(demands).items():
            assert f"{table}.{name} = " in lines
            assert field.metadata["meaning"] in lines
    assert lines.count("  WEAKER") == 7
    assert "tdx: quotes of this kind are refused" in explain_cpu_policy(read({"snp": {"measurement": [A]}}))


def test_the_statuses_are_intel_s() -> None:
    assert len(set(TCB_STATUSES)) == 8
    assert "Revoked" not in TCB_STATUSES


@pytest.mark.parametrize(
    ("text", "one"),
    [
        (b"[tdx]\n", True),
        (b"# a comment\n\n  [ snp ]\n", True),
        (b'{"snp": {}}', True),
        (b'format = "nvattest-cpu-policy"', True),
        (b"revocation = 'fresh'\n", False),
        (b'{"version": "4.0", "authorization-rules": {}}', False),
    ],
)
def test_a_cpu_policy_is_recognised(text: bytes, one: bool) -> None:
    assert is_cpu_policy(text) is one


def test_policy_check_explains_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(EXAMPLE)]) == 0
    said = capsys.readouterr().out
    assert "a CPU policy" in said
    assert "snp.minimum_tcb" in said


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (b'[snp]\nmeasurements = "any"\n[snp.minimum_tbc.genoa]\nsnp = 1\n', "did you mean 'minimum_tcb'?"),
        (b"[tdx]\nmrdt = []\n", "did you mean 'mrtd'?"),
        (b'[snp]\nmeasurements = "any"\ndebug = true\n', "no policy accepts debug"),
    ],
)
def test_an_unknown_key_leads_to_the_one_that_was_meant(text: bytes, hint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_cpu_policy(text, source="p")
    assert (caught.value.code, caught.value.hint) == ("policy-key", hint)


def test_a_policy_without_any_floor_says_that_it_refuses_every_snp_guest() -> None:
    without = load_cpu_policy(b'[snp]\nmeasurements = "any"\n', source="p")
    assert explain_cpu_policy(without)[-1] == "snp.minimum_tcb names no generation, so that every SNP guest is refused"
    floor = load_cpu_policy(b'[snp]\nmeasurements = "any"\n[snp.minimum_tcb.milan]\n', source="p")
    assert "every SNP guest is refused" not in "".join(explain_cpu_policy(floor))


def test_a_file_of_another_format_leads_to_inspect_and_another_version_to_the_version() -> None:
    with pytest.raises(PolicyError) as caught:
        load_cpu_policy(b'format = "nvattest-evidence-policy"\n[tdx]\nmeasurements = "any"\n', source="p")
    assert "nvattest inspect" in str(caught.value.hint)
    with pytest.raises(PolicyError) as caught:
        load_cpu_policy(b'version = 2\n[tdx]\nmeasurements = "any"\n', source="p")
    assert caught.value.hint == "this program reads version 1"


def test_policy_check_finds_a_mistake_and_refuses_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cpu.toml").write_text("[tdx]\n")
    assert main(["policy", "check", f"{tmp_path}/cpu.toml"]) != 0
    assert "demands no measurement" in capsys.readouterr().out
    (tmp_path / "cpu.toml").write_text('[tdx]\nmeasurements = "any"\n')
    (tmp_path / "claims.json").write_text("[]")
    assert main(["policy", "check", f"{tmp_path}/cpu.toml"]) == 0
    assert "WEAKER than the default: any guest" in capsys.readouterr().out
    assert main(["policy", "check", f"{tmp_path}/cpu.toml", "--claims", f"{tmp_path}/claims.json"]) != 0
