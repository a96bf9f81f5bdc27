"""``nvattest bundle`` for a fleet: fetch, refresh, inspect and merge of folders, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.cli import main
from nvattest.collateral.bundle import Bundle
from nvattest.collateral.fleet import FetchJournal
from nvattest.model import VerificationTime
from nvattest.testing import SimulatedFleet
from nvattest.testing.services import Services

NODES = 12
AT = "2026-11-01T00:00:00Z"


@pytest.fixture(scope="module")
def fleet() -> SimulatedFleet:
    return SimulatedFleet(NODES)


@pytest.fixture
def files(fleet: SimulatedFleet, tmp_path: Path) -> Path:
    (tmp_path / "nodes.jsonl").write_bytes(b"".join(fleet.line(index) + b"\n" for index in range(NODES)))
    (tmp_path / "few.jsonl").write_bytes(b"".join(fleet.line(index) + b"\n" for index in range(4)))
    (tmp_path / "roots.pem").write_bytes(fleet.platform.anchors_pem)
    (tmp_path / "one.json").write_text(json.dumps(json.loads(fleet.line(0))["evidence"]))
    return tmp_path


@pytest.fixture
def services(fleet: SimulatedFleet) -> Iterator[Services]:
    with Services(fleet.platform) as running:
        yield running


@pytest.fixture
def run(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(files)
    monkeypatch.setenv("NVATTEST_TRUST_ANCHORS", "roots.pem")

    def call(*words: str, services: Services | None = None, at: str = AT) -> tuple[int, str, str]:
        urls = ["--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url] if services is not None else []
        status = main([*words, *urls, "--at", at])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_a_fleet_is_fetched_looked_into_and_refreshed(run, fleet, files, services) -> None:
    status, text, said = run("bundle", "fetch", "--input", "nodes.jsonl", "--output", "fleet", services=services)
    assert (status, text) == (0, "fleet: 2 RIMs and 18 revocation answers for 12 nodes\n")
    assert "SIMULATED" in said
    status, text, _ = run("bundle", "inspect", "fleet")
    assert status == 0
    assert "2 RIMs, 18 revocation answers" in text
    services.forget()
    status, text, _ = run(
        "-f", "json", "bundle", "refresh", "fleet", "--input", "nodes.jsonl", "--within", "3600", services=services
    )
    facts = json.loads(text)
    assert (status, facts["nodes"], facts["answers"], facts["not_ready"], services.log) == (0, NODES, 18, [], [])
    jsonschema.Draft202012Validator(json.loads(schema_bytes("fleet-fetch-1.json"))).validate(facts)
    # A bundle that is there is not fetched over.
    status, _, said = run("bundle", "fetch", "--input", "nodes.jsonl", "--output", "fleet", services=services)
    assert status != 0
    assert "bundle refresh" in said


def test_a_bundle_that_another_process_has_just_written_is_not_fetched_over(
    run, fleet, files, services, monkeypatch
) -> None:
    def late(folder: str) -> FetchJournal:
        fleet.write_bundle(folder)
        return FetchJournal(folder)

    monkeypatch.setattr("nvattest.collateral.fleet.FetchJournal", late)
    status, _, said = run("bundle", "fetch", "--input", "few.jsonl", "--output", "fleet", services=services)
    assert status != 0
    assert "there is a bundle in it" in said
    assert services.log == []
    assert not (files / "fleet" / "journal.jsonl").exists()


def test_a_platform_is_attested_with_the_bundle_of_its_fleet(run, fleet, services) -> None:
    run("bundle", "fetch", "--input", "nodes.jsonl", "--output", "fleet", services=services)
    attest = ("attest", "--gpu-evidence-file", "one.json", "--nonce", fleet.nonce(0).hex())
    assert run(*attest, "--bundle", "fleet")[0] == 0
    run(
        "bundle",
        "fetch",
        "--gpu-evidence-file",
        "one.json",
        "--output",
        "one-bundle.json",
        "--no-cache",
        services=services,
    )
    assert run(*attest, "--bundle", "fleet", "--bundle", "one-bundle.json")[0] == 0


def test_a_node_without_collateral_keeps_the_bundle_unwritten_unless_asked(run, files, services) -> None:
    with (files / "nodes.jsonl").open("ab") as file:
        file.write(b"no json\n")
    fetch = ("bundle", "fetch", "--input", "nodes.jsonl", "--output", "fleet")
    status, text, said = run(*fetch, services=services)
    assert (status != 0, text) == (True, "")
    assert "not ready: line 13: " in said
    assert "1 of 13 nodes could not be verified with it" in said
    assert not (files / "fleet" / "manifest.json").exists()
    services.forget()
    status, text, said = run(*fetch, "--keep-going", services=services)
    assert (status, services.log) == (0, [])
    assert text == "fleet: 2 RIMs and 18 revocation answers for 12 nodes\n"


def test_no_node_is_no_bundle(run, files, services) -> None:
    (files / "none.jsonl").write_text("\n")
    status, _, said = run(
        "bundle", "fetch", "--input", "none.jsonl", "--output", "f", "--keep-going", services=services
    )
    assert status != 0
    assert "0 of 0 nodes" in said


# Of older bundles what is current is kept too where it cannot be verified: about five GPUs, and twice about the two
# device certificates that all share.
@pytest.mark.parametrize(("hours", "older"), [(14, 9), (30, 0)])
def test_folders_and_files_are_merged_into_a_folder(run, fleet, files, services, hours: int, older: int) -> None:
    run("bundle", "fetch", "--input", "few.jsonl", "--output", "few", services=services)
    run(
        "bundle",
        "fetch",
        "--gpu-evidence-file",
        "one.json",
        "--output",
        "one-bundle.json",
        "--no-cache",
        services=services,
    )
    later = str(VerificationTime.at(fleet.platform.clock + timedelta(hours=hours)))
    with Services(fleet.platform, now=lambda: fleet.platform.clock + timedelta(hours=hours)) as running:
        run("bundle", "fetch", "--input", "nodes.jsonl", "--output", "all", services=running, at=later)
    status, _, said = run("bundle", "merge", "few", "all", "one-bundle.json", "--output", "merged/", at=later)
    assert (status, said) == (0, "")
    merged, newest = (
        {answer.content for part in Bundle(str(files / name)).parts() for answer in part.ocsp}
        for name in ("merged", "all")
    )
    assert merged >= newest
    assert len(merged - newest) == older
    # One file as input and a plain name as output: a file, as before.
    assert (
        run("bundle", "merge", "one-bundle.json", "--output", "again.json", "--gpu-evidence-file", "one.json")[0] == 0
    )
    assert (files / "again.json").is_file()


def test_a_merge_with_a_damaged_bundle_writes_nothing(run, files, services) -> None:
    run("bundle", "fetch", "--input", "few.jsonl", "--output", "few", services=services)
    (files / "bad.json").write_text("{}")
    status, _, said = run("bundle", "merge", "few", "bad.json", "--output", "merged")
    assert status != 0
    assert "not usable: bad.json" in said
    assert list((files / "merged").iterdir()) == []
    assert run("bundle", "merge", "few", "bad.json", "--output", "merged", "--keep-going")[0] == 0


def test_a_merge_that_ends_midway_leaves_nothing_in_the_way_of_the_next(run, files, services) -> None:
    run("bundle", "fetch", "--input", "few.jsonl", "--output", "few", services=services)
    run("bundle", "fetch", "--input", "nodes.jsonl", "--output", "all", services=services)
    (shard, *_) = (files / "all").glob("ocsp-*")
    whole = shard.read_bytes()
    shard.write_bytes(whole + b" ")
    status, _, said = run("bundle", "merge", "few", "all", "--output", "merged")
    assert status != 0
    assert "does not have its digest" in said
    assert list((files / "merged").iterdir()) == []
    shard.write_bytes(whole)
    assert run("bundle", "merge", "few", "all", "--output", "merged")[0] == 0


def test_a_fetch_that_was_interrupted_is_no_place_for_a_merge(run, files, services) -> None:
    run("bundle", "fetch", "--input", "few.jsonl", "--output", "few", services=services)
    with FetchJournal(str(files / "merged")) as journal:
        journal.arrived("key", b"content")
    left = (files / "merged" / "journal.jsonl").read_bytes()
    status, _, said = run("bundle", "merge", "few", "--output", "merged")
    assert status != 0
    assert "a fetch into it was interrupted" in said
    assert (files / "merged" / "journal.jsonl").read_bytes() == left


def test_a_file_is_refreshed_in_place_with_what_ends_soon(run, fleet, files, services) -> None:
    run(
        "bundle",
        "fetch",
        "--gpu-evidence-file",
        "one.json",
        "--output",
        "one-bundle.json",
        "--no-cache",
        services=services,
    )
    before = (files / "one-bundle.json").read_bytes()
    services.forget()
    refresh = ("bundle", "refresh", "one-bundle.json", "--gpu-evidence-file", "one.json", "--no-cache")
    assert run(*refresh, services=services)[0] == 0
    assert (services.log, (files / "one-bundle.json").read_bytes()) == ([], before)
    moment = fleet.platform.clock + timedelta(hours=14)
    with Services(fleet.platform, now=lambda: moment) as running:
        assert run(*refresh, services=running, at=str(VerificationTime.at(moment)))[0] == 0
        assert len(running.requests("ocsp")) == 7
        assert running.requests("rim") == []
    document = json.loads((files / "one-bundle.json").read_text())
    assert (len(document["ocsp"]), document["rims"]) == (7, json.loads(before)["rims"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fetch", "--output", "f", "--rate", "5"), "--rate: needs --input"),
        (("fetch", "--output", "f", "--keep-going"), "--keep-going: needs --input"),
        (("fetch", "--output", "f", "--input", "nodes.jsonl", "--rate", "0"), "--rate"),
        (
            ("fetch", "--output", "f", "--input", "nodes.jsonl", "--gpu-evidence-file", "one.json"),
            "--gpu-evidence-file",
        ),
        (("fetch", "--output", "f", "--input", "nodes.jsonl", "--cache-dir", "c"), "--cache-dir: has no effect"),
        (("fetch", "--output", "f", "--input", "nodes.jsonl", "--offline"), "--offline: cannot go with --input"),
        (("fetch", "--output", "f", "--input", "missing.jsonl"), "missing.jsonl"),
        (("refresh", "one.json", "--input", "nodes.jsonl"), "one.json: this is a file"),
        (("refresh", "missing"), "File does not exist"),
    ],
)
def test_options_without_effect_and_files_that_are_not_there_are_refused(run, files, words, said) -> None:
    status, text, errors = run("bundle", *words)
    assert (status != 0, text) == (True, "")
    assert said in errors
    assert not (files / "f").exists()


def test_a_folder_is_refreshed_for_nodes(run, files, services) -> None:
    run("bundle", "fetch", "--input", "few.jsonl", "--output", "few", services=services)
    status, _, said = run("bundle", "refresh", "few", services=services)
    assert status == 106
    assert "--input is required" in said
