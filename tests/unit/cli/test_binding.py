"""``attest --challenge --bind-tee`` and ``verify-token --challenge --tee-quote``: one challenge ties all together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nvattest.cli import collect, main, sources
from nvattest.tee import tsm
from nvattest.testing import Platform

CHALLENGE = "c0ffee" * 8
OTHER = "00" * 16


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A guest with one simulated GPU whose CPU quotes whatever it is asked; the list notes what happened in order."""
    platform = Platform.build("hopper-1")
    events: list[str] = []

    def evidence(source: object, nonce: Any) -> object:
        events.append("evidence")
        return platform.evidence(nonce)

    def quote(data: bytes, **settings: object) -> tsm.TeeQuote:
        events.append("quote")
        report = bytearray(1184)
        report[0:4] = (2).to_bytes(4, "little")
        report[8:16] = (0x30000).to_bytes(8, "little")
        report[52:56] = (1).to_bytes(4, "little")
        report[0x50:0x90] = data
        return tsm.TeeQuote(provider="sev_guest", quote=bytes(report), auxiliary=None, report_data=data, generation=1)

    monkeypatch.setattr(collect, "collect", evidence)
    monkeypatch.setattr(sources, "fetch_collateral", lambda *a, **k: platform.collateral())
    monkeypatch.setattr(tsm, "take_quote", quote)
    monkeypatch.setattr(tsm, "extend_register", lambda digest, *, register: events.append(f"rtmr{register}"))
    (tmp_path / "anchors.pem").write_bytes(platform.anchors_pem)
    return events


def attest(folder: Path, *more: str) -> int:
    return main(
        [
            "attest", "--trust-anchors", f"{folder}/anchors.pem", "--at", "2026-11-01T00:00:00Z",
            "--challenge", CHALLENGE, "--bind-tee", f"{folder}/quote.json", "--token-out", f"{folder}/token.json",
            "--jwks-out", f"{folder}/jwks.json", *more,
        ]
    )  # fmt: skip


def verify(
    folder: Path, *more: str, challenge: str = CHALLENGE, quote: str = "quote.json", token: str = "token.json"
) -> int:
    return main(
        [
            "verify-token", "--token-file", f"{folder}/{token}", "--jwks", f"{folder}/jwks.json",
            "--challenge", challenge, "--tee-quote", f"{folder}/{quote}", "--accept-simulated", *more,
        ]
    )  # fmt: skip


def test_one_challenge_ties_devices_key_and_quote(
    guest: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attest(tmp_path, "--extend-rtmr", "3") == 0
    assert guest == ["evidence", "rtmr3", "quote"], "the evidence is measured before the quote is taken"
    assert (tmp_path / "quote.json").stat().st_mode & 0o777 == 0o600
    assert verify(tmp_path) == 0
    assert "signature" in capsys.readouterr().err, "the output says that the quote's own signature is not verified here"


@pytest.mark.usefixtures("guest")
def test_json_says_what_the_quote_is_and_that_nobody_verified_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attest(tmp_path)
    capsys.readouterr()
    assert verify(tmp_path, "--format", "json") == 0
    said = json.loads(capsys.readouterr().out)["binding"]
    assert (said["holds"], said["quote_signature_verified"], said["kind"]) == (True, False, "sev_guest")
    assert said["measurement"] == "00" * 48


def simulate(folder: Path, *more: str) -> int:
    return main(
        [
            "attest", "--simulate", "hopper-1", "--challenge", CHALLENGE, "--bind-tee", f"{folder}/quote.json",
            "--token-out", f"{folder}/token.json", "--jwks-out", f"{folder}/jwks.json", *more,
        ]
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["tdx", "tdx-v5-ex", "snp-genoa", "snp-turin-vlek"])
def test_a_simulated_guest_binds_on_any_machine(tmp_path: Path, kind: str) -> None:
    assert simulate(tmp_path, "--simulate-guest", kind) == 0
    assert verify(tmp_path) == 0
    file = json.loads((tmp_path / "quote.json").read_text())
    assert (file["provider"] == "tdx_guest", file["auxblob"] is None) == (
        (True,) * 2 if "tdx" in kind else (False,) * 2
    )


@pytest.mark.usefixtures("guest")
def test_a_named_kernel_gives_the_quote_for_simulated_devices(guest: list[str], tmp_path: Path) -> None:
    assert simulate(tmp_path, "--tsm-root", str(tmp_path)) == 0
    assert guest == ["quote"]
    assert verify(tmp_path) == 0


@pytest.mark.parametrize(("lie", "said"), [("report-data", "bound to something else"), ("debug", "debug guest")])
def test_a_simulated_guest_that_lies_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lie: str, said: str
) -> None:
    assert simulate(tmp_path, "--fault", f"guest:{lie}") == 0
    assert verify(tmp_path) == 1
    assert said in capsys.readouterr().out


def test_a_guest_that_gives_no_quote_cannot_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "--simulate", "hopper-1", "--fault", "guest:debug"]) == 105
    assert "it needs --bind-tee" in capsys.readouterr().err
    assert simulate(tmp_path, "--tsm-root", str(tmp_path), "--fault", "guest:debug") == 105


@pytest.mark.usefixtures("guest")
def test_another_challenge_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attest(tmp_path)
    assert verify(tmp_path, challenge=OTHER) == 1
    assert "nonce" in capsys.readouterr().out


@pytest.mark.usefixtures("guest")
def test_the_quote_of_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attest(tmp_path)
    (tmp_path / "quote.json").rename(tmp_path / "old.json")
    attest(tmp_path)
    assert verify(tmp_path, quote="old.json") == 1
    assert "bound to something else" in capsys.readouterr().out


@pytest.mark.usefixtures("guest")
def test_a_token_under_another_key_is_refused_even_if_its_header_names_the_first(tmp_path: Path) -> None:
    attest(tmp_path)
    (tmp_path / "token.json").rename(tmp_path / "first.json")
    attest(tmp_path)
    # The keys are the second run's, the token the first's.
    assert verify(tmp_path, token="first.json") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bind-tee", "quote.json", "--token-out", "token.json"],
        ["--challenge", CHALLENGE],
        ["--challenge", CHALLENGE, "--nonce", "ab" * 32, "--token-out", "token.json"],
        ["--challenge", "abcd", "--token-out", "token.json"],
    ],
)
@pytest.mark.usefixtures("guest")
def test_options_that_bind_nothing_are_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["attest", *arguments]) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anchors.pem"]


@pytest.mark.parametrize("options", [[], ["--nonce", "ab" * 32, "--challenge", CHALLENGE], ["--tee-quote", __file__]])
def test_verify_token_wants_exactly_one_source_of_the_nonce(options: list[str]) -> None:
    assert main(["verify-token", "--token-file", __file__, "--jwks", __file__, *options]) == 106
