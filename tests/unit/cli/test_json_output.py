"""Every JSON that a command prints names its schema and version, and follows it; so does every file that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.cli import main
from nvattest.cli.manual import all_commands, walk
from nvattest.model import DeviceKind, Nonce, parse_time
from nvattest.testing import Platform
from nvattest.testing.services import Services

ROOT = Path(__file__).resolve().parents[3]
NAMES = sorted(path.name for path in (ROOT / "schemas").glob("*-1.json"))
NONCE = Nonce(bytes(range(32)))
# What these print is no JSON: scripts, TOML, a child's protocol, the output of another program.
NO_JSON = {
    ("simulate",), ("hook", "drop-in"), ("hook", "manifest"), ("gate",), ("completion",),
    ("bundle",), ("policy",), ("hook",), ("migrate",),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_its_id_has_its_name_and_version(name: str) -> None:
    document = json.loads(schema_bytes(name))
    jsonschema.Draft202012Validator.check_schema(document)
    kind, _, version = name.removesuffix(".json").rpartition("-")
    assert document["$id"] == f"urn:nvattest:schema:{kind}:{version}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of a simulated node, whose services answer, and what commands made of them."""
    folder = tmp_path_factory.mktemp("node")
    platform = Platform.build("hopper-1")
    (folder / "rims").mkdir()
    (folder / "guest").mkdir()
    collateral = platform.collateral()
    for rim in collateral.rims.values():
        (folder / "rims" / f"{rim.id}.xml").write_bytes(rim.content)
    for number, answer in enumerate(collateral.ocsp):
        (folder / "rims" / f"{number}.der").write_bytes(answer.content)
    for name, text in {
        "gpu.json": platform.evidence_json(DeviceKind.GPU, NONCE.value),
        "bundle.json": json.dumps(platform.bundle()),
        "roots.pem": platform.anchors_pem.decode(),
        "clock": str(platform.time),
        "line.jsonl": json.dumps(
            {
                "id": 1,
                "nonce": NONCE.value.hex(),
                "evidence": json.loads(platform.evidence_json(DeviceKind.GPU, NONCE.value)),
            }
        ),
    }.items():
        (folder / name).write_text(text)
    with Services(platform) as services:
        (folder / "services").write_text(f"--rim-url {services.rim_url} --ocsp-url {services.ocsp_url}")
        yield folder


def arguments(place: Path, text: str) -> list[str]:
    """The words of a command line, in which ``@name`` is a file of the folder."""
    judged = f"--trust-anchors @roots.pem --at {(place / 'clock').read_text()}"
    found = f"--gpu-evidence-source file --gpu-evidence-file @gpu.json --nonce {NONCE.value.hex()}"
    text = text.replace("JUDGED", judged).replace("FOUND", found).replace("SERVICES", (place / "services").read_text())
    words = text.split()
    return [word.replace("@", f"{place}/").replace("ROOT", str(ROOT)) for word in words]


# Every command with JSON: what shows each of its members, good and bad.
CASES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("attest",): (
        "attest FOUND --offline --bundle @bundle.json JUDGED --token-out @token.json --jwks-out @jwks.json",
        "attest FOUND --offline --bundle @bundle.json JUDGED --token-format ear --token-out @ear.jwt --jwks-out @ear.json",
        "attest FOUND --offline",
        "attest FOUND --offline --bundle @roots.pem",
        "attest FOUND --offline --bundle @bundle.json JUDGED --relying-party-policy ROOT/examples/policies/gpu-4.0.json",
    ),
    ("collect-evidence",): ("collect-evidence --device gpu",),
    ("bundle", "create"): ("bundle create --output @made.json --rim-dir @rims --ocsp-dir @rims --keep-going JUDGED",),
    ("bundle", "inspect"): ("bundle inspect @bundle.json JUDGED", "bundle inspect @bundle.json"),
    ("bundle", "merge"): ("bundle merge @bundle.json @bundle.json --output @merged.json JUDGED",),
    ("bundle", "fetch"): (
        "bundle fetch --gpu-evidence-file @gpu.json --output @fetched.json SERVICES --no-cache JUDGED",
        "bundle fetch --input @line.jsonl --output @folder SERVICES JUDGED",
    ),
    ("bundle", "refresh"): ("bundle refresh @bundle.json --gpu-evidence-file @gpu.json SERVICES --no-cache JUDGED",),
    ("policy", "check"): (
        "policy check ROOT/examples/policies/evidence.toml",
        "policy check ROOT/examples/policies/gpu-4.0.json",
        "policy check ROOT/examples/policies/gpu-4.0.json --claims @result.json",
        "policy check @gpu.json",
    ),
    ("verify-token",): (
        f"verify-token --token-file @token.json --jwks @jwks.json --nonce {NONCE.value.hex()} --accept-simulated",
        f"verify-token --token-file @token.json --jwks @jwks.json --nonce {NONCE.value.hex()}",
        f"verify-token --token-file @ear.jwt --token-type ear --jwks @ear.json --nonce {NONCE.value.hex()} --accept-simulated",
    ),
    ("explain",): (
        "explain 12", "explain 244", "explain measurements", "explain nonce-missing", "explain @result.json", "explain @token.json",
        "explain @bundle.json", "explain @failed.json",
    ),
    ("inspect",): (
        "inspect @gpu.json", "inspect @bundle.json", "inspect @token.json", "inspect @jwks.json", "inspect @roots.pem",
        "inspect @result.json", "inspect ROOT/examples/policies/evidence.toml",
    ),
    ("doctor",): ("doctor",),
    ("preflight",): (
        "preflight --gpu-evidence-file @gpu.json SERVICES --no-cache JUDGED",
        "preflight --gpu-evidence-file @gpu.json --offline --no-cache JUDGED",
    ),
    ("hook", "status"): ("hook status --root @guest",),
    ("hook", "check"): ("hook check --root @guest",),
    ("hook", "lint"): ("hook lint ROOT/examples/kubernetes/pod.yaml ROOT/examples/init/components.toml",),
    ("migrate", "check"): ("migrate check ROOT/examples/import-names",),
    ("version",): ("version",),
}  # fmt: skip


def test_every_command_is_here_or_prints_no_json() -> None:
    # verify-batch prints lines: below.
    assert {command.path for command in walk(all_commands())} == {*CASES, ("verify-batch",)} | NO_JSON


Validate = Callable[[object], Any]


@pytest.mark.parametrize("path", CASES, ids=" ".join)
def test_what_a_command_prints_follows_the_schema_that_it_names(
    place: Path, validate: Validate, capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    made(place, capsys)
    forms = set()
    for line in CASES[path]:
        main(["-f", "json", *arguments(place, line)])
        said = capsys.readouterr()
        assert said.out, said.err
        forms.add(validate(json.loads(said.out))["format"])
    # One form for each command, in every case; a fleet's fetch counts nodes.
    assert len(forms - {"nvattest-fleet-fetch"}) == 1


@pytest.mark.parametrize(
    "line",
    [
        "preflight --gpu-evidence-file @roots.pem", "explain no-such-word", "inspect @clock", "bundle inspect @gpu.json",
        "bundle create --output @none.json --rim-dir @guest", "hook drop-in @clock",
    ],
)  # fmt: skip
def test_a_command_that_fails_before_it_has_a_result_prints_the_error_as_json(
    place: Path, validate: Validate, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    status = main(["-f", "json", *arguments(place, line)])
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert validate(document)["format"] == "nvattest-error"
    assert status == document["result_code"] % 256 != 0
    assert document["error"]["message"] in said.err


def made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What later commands read of earlier ones."""
    if (place / "result.json").exists():
        return
    for line in CASES[("attest",)][:2]:
        main(["-f", "json", *arguments(place, line)])
        (place / "result.json").write_text(capsys.readouterr().out)
    main(["-f", "json", *arguments(place, CASES[("attest",)][3])])
    (place / "failed.json").write_text(capsys.readouterr().out)


def test_the_files_of_commands_follow_their_schemas(
    place: Path, schemas: dict[str, jsonschema.Draft202012Validator], capsys: pytest.CaptureFixture[str]
) -> None:
    made(place, capsys)
    for name, kind in {
        "token.json": "token-eat", "jwks.json": "jwks", "ear.json": "jwks", "bundle.json": "bundle", "gpu.json": "evidence",
    }.items():  # fmt: skip
        schemas[f"urn:nvattest:schema:{kind}:1"].validate(json.loads((place / name).read_text()))


def test_a_batch_answers_each_line_by_its_schema_and_sums_up_for_programs_and_for_prometheus(
    place: Path, validate: Validate, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    (place / "lines.jsonl").write_text(
        (place / "line.jsonl").read_text() + "\n" + (place / "line.jsonl").read_text().replace(NONCE.value.hex(), 64 * "0")
        + "\nno JSON\n"
    )  # fmt: skip
    line = "verify-batch --input @lines.jsonl --bundle @bundle.json --workers 1 --summary @sums.json --metrics @a.prom JUDGED"
    assert main(arguments(place, line)) == 0
    answers = [validate(json.loads(answer)) for answer in capsysbinary.readouterr().out.splitlines()]
    assert [answer["trusted"] for answer in answers] == [True, False, False]
    validate(json.loads((place / "sums.json").read_text()))
    families = {family.name: family for family in parser.text_string_to_metric_families((place / "a.prom").read_text())}
    assert all(family.type == "gauge" and family.documentation for family in families.values())
    values = {
        name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for name, family in families.items()
    }
    assert values["nvattest_batch_lines"] == {("trusted",): 1, ("not-trusted",): 1, ("bad",): 1}
    assert values["nvattest_batch_failed_check_lines"] == {("nonce",): 1}
    assert values["nvattest_batch_error_lines"] == {(answers[2]["error"]["code"],): 1}
    assert values["nvattest_batch_simulated"] == {(): 1}
    assert set(values["nvattest_batch_phase_seconds"]) == {("open",), ("judge",)}
    ends = parse_time(answers[0]["collateral_expires"]).timestamp()
    assert values["nvattest_batch_collateral_expiry_timestamp_seconds"] == {(): ends}
    assert values["nvattest_batch_end_timestamp_seconds"][()] > 1.7e9


def test_metrics_go_into_no_file_that_the_batch_reads_or_writes(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (place / "line.jsonl").read_text()
    for target in ("line.jsonl", "out.jsonl"):
        line = f"verify-batch --input @line.jsonl --output @out.jsonl --bundle @bundle.json --metrics @{target} JUDGED"
        assert main(arguments(place, line)) != 0
        assert "are one file" in capsys.readouterr().err
    assert (place / "line.jsonl").read_text() == before
    assert not (place / "out.jsonl").exists()
