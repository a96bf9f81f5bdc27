"""``bundle fetch --tee-quote`` and what follows: the collateral of a guest's CPU in bundles, from simulated services."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import nvattest
from nvattest._package import schema_bytes
from nvattest.appraisal.inputs import Collateral, CpuAnswer, Source
from nvattest.cli import main
from nvattest.collateral import cpu
from nvattest.collateral.bundle import dump_bundle, load_bundle
from nvattest.collateral.cpu import CpuOptions, choose, fetch_cpu, wanted_of
from nvattest.collateral.http import HttpClient
from nvattest.errors import CollateralError
from nvattest.session import fetch_cpu_collateral
from nvattest.tee.collateral import SnpCollateral, TdxCollateral, parse_collateral
from nvattest.tee.quote import dump_quote
from nvattest.testing import GUESTS, Platform, SimulatedGuest
from nvattest.testing.certificates import pem
from nvattest.testing.services import Services

REPORT_DATA = bytes(range(64))


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform.build("hopper-1")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def call(*argv: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def world(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Writes a guest's quote and root to files and serves its maker; gives the services."""
    open_services: list[Services] = []

    def serve(kind: str, *, faults: tuple[str, ...] = (), lies: tuple[str, ...] = ()) -> Services:
        guest = SimulatedGuest(kind, lies=lies)
        (tmp_path / "quote.json").write_text(json.dumps(dump_quote(guest.take_quote(REPORT_DATA))))
        (tmp_path / "root.pem").write_bytes(pem([guest.root]))
        services = Services(platform, guest=guest, faults=faults)
        open_services.append(services)
        for name in ("PCS", "KDS"):
            monkeypatch.setenv(f"NVATTEST_{name}_URL", services.maker_url)
        return services

    yield serve
    for services in open_services:
        services.close()


def following(schema: str, text: str) -> dict[str, Any]:
    """The JSON object that was printed, which follows its schema."""
    document: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(json.loads(schema_bytes(schema))).validate(document)
    return document


def at(platform: Platform, **later: float) -> str:
    return (platform.clock + timedelta(**later)).strftime("%Y-%m-%dT%H:%M:%SZ")


def fetch(tmp_path: Path, when: str, *more: str) -> list[str]:
    return [
        "bundle", "fetch", "--tee-quote", f"{tmp_path}/quote.json", "--cpu-anchors", f"{tmp_path}/root.pem", "--at", when,
        "--output", f"{tmp_path}/bundle.json", "--cache-dir", f"{tmp_path}/cache", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", GUESTS)
def test_a_bundle_is_fetched_for_every_kind_of_guest(run, world, platform: Platform, tmp_path: Path, kind: str) -> None:
    services = world(kind)
    status, text, _ = run(*fetch(tmp_path, at(platform), "--service-key", "secret"))
    assert status == 0
    assert {item.authorization for item in services.log} == {""}
    assert "0 RIMs, 0 revocation answers, 1 file of CPU collateral" in text
    assert "verified, under the roots of custom" in text
    assert {item.service for item in services.log} <= {"pcs", "kds"}
    document = json.loads((tmp_path / "bundle.json").read_bytes())
    assert document["version"] == 1
    quote = (tmp_path / "quote.json").read_bytes()
    found = choose(load_bundle(document).cpu, quote)
    expected = services.guest.collateral()
    if isinstance(expected, TdxCollateral):
        assert isinstance(found, TdxCollateral)
        assert found.members == expected.members
    else:
        assert isinstance(found, SnpCollateral)
        assert found.certificates[0] == expected.certificates[0]
        assert found.crls == expected.crls
    # The second time all is in the cache.
    asked = len(services.log)
    assert run(*fetch(tmp_path, at(platform)))[0] == 0
    assert len(services.log) == asked


def test_devices_that_are_named_come_into_the_same_bundle(run, world, platform: Platform, tmp_path: Path) -> None:
    services = world("tdx")
    platform.write(str(tmp_path))
    status, text, _ = run(
        *fetch(tmp_path, at(platform)), "--gpu-evidence-file", f"{tmp_path}/gpu-evidence.json",
        "--trust-anchors", f"{tmp_path}/anchors.pem", "--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url,
    )  # fmt: skip
    assert (status, "2 RIMs, 7 revocation answers, 1 file of CPU collateral" in text) == (0, True)
    # What devices are judged with needs none of it.
    assert len(load_bundle((tmp_path / "bundle.json").read_bytes()).cpu) == 1


def test_without_the_simulated_roots_nothing_is_written_or_kept(run, world, platform: Platform, tmp_path: Path) -> None:
    services = world("tdx")
    argv = fetch(tmp_path, at(platform))
    del argv[argv.index("--cpu-anchors") : argv.index("--cpu-anchors") + 2]
    status, _, error = run(*argv)
    assert status != 0
    assert "the issuer chain of tcb_info does not end at" in error
    assert "bundle.json was not written" in error
    assert not (tmp_path / "bundle.json").exists()
    assert list((tmp_path / "cache" / "cpu").iterdir()) == []
    # What was kept under these roots is not believed under the makers', and is asked for.
    assert run(*fetch(tmp_path, at(platform)))[0] == 0
    asked = len(services.log)
    assert run(*argv)[0] != 0
    assert len(services.log) > asked


@pytest.mark.parametrize(
    ("kind", "lie", "message"),
    [
        ("tdx", "stale", "is good from"),
        ("tdx", "future", "is good from"),
        ("tdx", "crl-signature", "the revocation list of the root is not signed"),
        ("tdx", "tcb-info-tampered", "tcb_info is not signed by"),
        ("tdx", "other-platform", "it is about 5EED"),
        ("snp-genoa", "stale", "is good from"),
        ("snp-milan", "revoked=1", "AMD revoked"),
        ("snp-siena", "crl-signature", "a revocation list is not signed by"),
        ("snp-turin", "chain-signature=0", "the VCEK is not signed by"),
        ("snp-genoa-vlek", "chain-signature=0", "the VLEK is not signed by"),
    ],
)
def test_collateral_with_a_lie_is_not_written(
    run, world, platform, tmp_path, kind: str, lie: str, message: str
) -> None:
    world(kind, lies=(f"guest:{lie}",))
    status, _, error = run(*fetch(tmp_path, at(platform)))
    assert status != 0
    assert message in error
    assert not (tmp_path / "bundle.json").exists()
    assert list((tmp_path / "cache" / "cpu").iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("kds:status=503", 102, "HTTP status 503"),
        ("kds:rate-limited=120", 15, "the service asks to wait 120 s"),
        ("kds:redirect=/x", 102, "which is not followed"),
        ("kds:cut", 103, "cut off"),
        ("kds:html", 102, "no revocation list"),
    ],
)
def test_a_service_with_a_fault_is_named_with_what_to_do(
    run, world, platform, tmp_path, monkeypatch, fault: str, status: int, message: str
) -> None:
    monkeypatch.setattr(cpu, "HttpClient", partial(HttpClient, sleep=lambda _: None, jitter=lambda: 0.0))
    world("snp-genoa-vlek", faults=(fault,))
    found, _, error = run(*fetch(tmp_path, at(platform)))
    assert f"problem {status}: AMD's key distribution service: " in error
    assert message in error
    assert "service key" not in error
    assert found == status


def test_refresh_asks_for_what_ends_soon_and_keeps_the_rest(run, world, platform: Platform, tmp_path: Path) -> None:
    services = world("snp-genoa")
    assert run(*fetch(tmp_path, at(platform)))[0] == 0
    asked = len(services.log)
    refresh = [
        "bundle", "refresh", tmp_path / "bundle.json", "--cpu-anchors", tmp_path / "root.pem", "--no-cache", "--at"
    ]  # fmt: skip
    before = (tmp_path / "bundle.json").read_bytes()
    assert run(*refresh, at(platform))[0] == 0
    assert len(services.log) == asked
    # The list ends in half a day; the certificates stay.
    assert run(*refresh, at(platform, days=44, hours=18))[0] == 0
    assert [item.key.rpartition("/")[2] for item in services.log[asked:]] == ["crl"]
    # The service has no newer one yet.
    assert (tmp_path / "bundle.json").read_bytes() == before
    status, _, error = run(*refresh, at(platform, days=46))
    assert (status, "is good from" in error) == (102, True)


def test_inspect_says_what_of_a_bundle_has_expired_and_what_is_no_makers(run, world, platform, tmp_path: Path) -> None:
    world("tdx")
    assert run(*fetch(tmp_path, at(platform)))[0] == 0
    inspect = ["bundle", "inspect", tmp_path / "bundle.json"]
    status, text, _ = run(
        "-f", "json", *inspect, "--cpu-anchors", tmp_path / "root.pem", "--at", at(platform, days=400)
    )
    facts = following("bundle-inspection-1.json", text)
    [entry] = facts["cpu"]
    assert (status, entry["state"], facts["earliest_expiry"]["of"]) == (0, "expired", entry["about"])
    status, text, _ = run("-f", "json", *inspect, "--at", at(platform))
    [entry] = following("bundle-inspection-1.json", text)["cpu"]
    assert (status, entry["state"]) == (12, "not verified")
    assert "does not end at" in entry["reason"]


def test_files_of_collateral_become_a_bundle_and_bundles_a_folder(
    run, world, platform: Platform, tmp_path: Path
) -> None:
    services = world("snp-turin")
    names = services.guest.write(str(tmp_path / "maker"))
    file = next(name for name in names if "cpu-collateral" in name)
    judged = ["--cpu-anchors", tmp_path / "root.pem", "--at", at(platform)]
    first, second, folder = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "folder"
    assert run("bundle", "create", "--tee-collateral", file, "--output", first, *judged)[0] == 0
    assert load_bundle(first.read_bytes()).cpu[0].content == Path(file).read_bytes()
    assert run("bundle", "merge", first, first, "--output", second, *judged)[0] == 0
    assert second.read_bytes() == first.read_bytes()
    assert run("bundle", "merge", first, "--output", f"{folder}/", *judged)[0] == 0
    status, text, _ = run("-f", "json", "bundle", "inspect", folder, *judged)
    assert (status, [entry["state"] for entry in json.loads(text)["cpu"]]) == (0, ["verified"])
    assert run("bundle", "merge", folder, "--output", tmp_path / "again/", *judged)[0] == 0
    assert run("bundle", "create", "--output", first)[0] != 0


def test_preflight_says_whether_the_collateral_can_be_had(run, world, platform: Platform, tmp_path: Path) -> None:
    world("tdx-v5")
    ask = ["--tee-quote", tmp_path / "quote.json", "--cpu-anchors", tmp_path / "root.pem", "--at", at(platform)]
    status, text, _ = run("preflight", *ask, "--no-cache")
    assert (status, text.rstrip().endswith("Ready: yes")) == (0, True)
    assert "roots: custom, not the makers'" in text
    status, text, _ = run("-f", "json", "preflight", *ask, "--no-cache", "--offline")
    facts = following("preflight-1.json", text)
    assert (status, facts["ready"], facts["problems"][0]["of"]) == (104, False, "cpu")
    [entry] = following("preflight-1.json", run("-f", "json", "preflight", *ask, "--no-cache")[1])["cpu"]
    assert (entry["source"], entry["anchors"]) == ("live", "custom")


def test_the_library_gives_what_belongs_to_a_quote(world, platform: Platform, tmp_path: Path) -> None:
    services = world("tdx")
    quote = (tmp_path / "quote.json").read_bytes()
    options = CpuOptions(pcs_url=services.maker_url, kds_url=services.maker_url)
    anchors = services.guest.anchors()
    found = fetch_cpu_collateral(quote, options=options, anchors=anchors, at=platform.clock)
    assert found == parse_collateral(found.text.encode())
    other = SimulatedGuest("snp-milan")
    assert choose([CpuAnswer(found.text.encode(), Source.FILE)], other.quote(REPORT_DATA)) is None
    bundle = json.dumps(dump_bundle(Collateral(cpu=(CpuAnswer(found.text.encode(), Source.FILE),)))).encode()
    assert nvattest.parse_collateral(bundle, quote=quote) == found
    for others in (None, other.quote(REPORT_DATA)):
        with pytest.raises(nvattest.InputError) as caught:
            nvattest.parse_collateral(bundle, quote=others)
        assert caught.value.code == "collateral-format"
    late = datetime(2040, 1, 1, tzinfo=timezone.utc)
    with pytest.raises(CollateralError, match="is good from"):
        fetch_cpu(wanted_of(quote), options, at=late, anchors=anchors)
