"""``verify-token`` with a guest: one command from challenge to verdict, what it prints, and options that miss others."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import nvattest
from nvattest._package import schema_bytes
from nvattest.appraisal.inputs import Collateral, CpuAnswer, Source
from nvattest.cli import main
from nvattest.collateral.bundle import dump_bundle
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.tee import tsm
from nvattest.tee.collateral import SnpCollateral, TdxCollateral
from nvattest.testing.certificates import pem
from nvattest.testing.cpu import SimulatedGuest
from nvattest.token.verified import Rules
from nvattest.token.verify import _with_guest

pytest.importorskip("dcap_qvl")

CHALLENGE = "c0ffee" * 8
CLOCK = "quote=2026-11-01T00:00:00Z"


@pytest.fixture(params=["tdx", "snp-genoa"])
def cpu(request: pytest.FixtureRequest) -> SimulatedGuest:
    return SimulatedGuest(request.param)


@pytest.fixture
def folder(cpu: SimulatedGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What an attester in a simulated guest hands out, and what its relying party demands."""
    monkeypatch.setattr(tsm, "take_quote", lambda data, **_: cpu.take_quote(data))
    files = [
        "--tsm-root",
        str(tmp_path),
        "--bind-tee",
        f"{tmp_path}/quote.json",
        "--token-out",
        f"{tmp_path}/token.json",
    ]
    status = main(
        ["attest", "--simulate", "hopper-1", "--challenge", CHALLENGE, *files, "--jwks-out", f"{tmp_path}/jwks.json"]
    )
    assert status == 0
    collateral = cpu.collateral()
    if isinstance(collateral, TdxCollateral):
        (tmp_path / "intel.json").write_text(collateral.text)
        policy = f'[tdx]\nmrtd = ["{cpu.measurement.hex()}"]\n'
    else:
        assert isinstance(collateral, SnpCollateral)
        (tmp_path / "chain.pem").write_bytes(pem(collateral.certificates))
        (tmp_path / "list.der").write_bytes(collateral.crls[0])
        policy = f'[snp]\nmeasurement = ["{cpu.measurement.hex()}"]\n[snp.minimum_tcb.genoa]\nsnp = 23\n'
    (tmp_path / "cpu.toml").write_text(policy)
    (tmp_path / "roots.pem").write_bytes(pem([cpu.root]))
    return tmp_path


def collateral_files(folder: Path) -> list[str]:
    names = [name for name in ("intel.json", "chain.pem", "list.der") if (folder / name).exists()]
    return [part for name in names for part in ("--tee-collateral", f"{folder / name}")]


def verify(folder: Path, *more: str, challenge: str = CHALLENGE) -> int:
    return main(
        [
            "verify-token", "--token-file", f"{folder}/token.json", "--jwks", f"{folder}/jwks.json",
            "--challenge", challenge, "--tee-quote", f"{folder}/quote.json", "--accept-simulated", "--at", CLOCK, *more,
        ]
    )  # fmt: skip


def judged(folder: Path, *more: str, **named: Any) -> int:
    files = ["--cpu-policy", f"{folder}/cpu.toml", "--cpu-anchors", f"{folder}/roots.pem"]
    return verify(folder, *files, *collateral_files(folder), *more, **named)


def test_one_challenge_leads_to_one_verdict_for_guest_and_devices(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(folder) == 0
    said = capsys.readouterr()
    assert "Result: TRUSTED (simulated), code 0" in said.out
    assert "the quote ties to it: key and evidence (recipe nvattest)" in said.out
    assert "asked this device with your challenge, and it is trusted" in said.out
    assert "a key set from the attester itself may be believed" in said.out
    assert "not verified by nvattest" not in said.err, "the note of an unverified quote is for unverified quotes"
    for step in range(26, 39):
        assert f"  ok     {step}  " in said.out


def test_without_a_policy_the_binding_is_checked_as_before_and_says_what_is_not_verified(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(folder, "--format", "json") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["binding"]["quote_signature_verified"] is False
    assert "guest" not in document
    assert "signature is not verified" in said.err


def test_json_says_that_the_signature_was_verified_and_everything_that_was_judged(
    folder: Path, cpu: SimulatedGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(folder, "--format", "json") == 0
    said = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(json.loads(schema_bytes("verify-token-1.json"))).validate(said)
    assert said["binding"]["quote_signature_verified"] is True
    assert said["binding"]["measurement"] == cpu.measurement.hex()
    guest = said["guest"]
    assert (guest["trusted"], guest["strength"], guest["simulated"]) == (True, "key and evidence", True)
    assert guest["tcb"]
    assert guest["collateral"]["good_until"]
    assert guest["policy"]["tdx" if cpu.registers else "snp"]
    assert guest["at"] == "2026-11-01T00:00:00Z"


def test_the_attester_s_key_set_is_not_recommended_where_any_guest_counts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Anyone can start a guest that names its own key and signs what it likes.
    policy = (folder / "cpu.toml").read_text()
    (folder / "cpu.toml").write_text(re.sub(r"(mrtd|measurement) = .*", 'measurements = "any"', policy))
    assert judged(folder) == 0
    said = capsys.readouterr().out
    assert "weakened: any guest" in said
    assert "may be believed" not in said


def test_explain_shows_the_guest_of_a_saved_verdict_as_a_story_with_what_to_do(
    folder: Path, cpu: SimulatedGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = (folder / "cpu.toml").read_text()
    for good in (True, False):
        if not good:
            (folder / "cpu.toml").write_text(policy.replace(policy.split('"')[1], "0" * 96))
        capsys.readouterr()
        assert judged(folder, "--format", "json") == (0 if good else 3)
        (folder / "result.json").write_text(capsys.readouterr().out)
        assert main(["explain", f"{folder}/result.json"]) == 0
        said = capsys.readouterr().out
        assert "SIMULATED" in said
        assert "\nGUEST  " in said
        assert "ties to it  key and evidence (recipe nvattest)" in said
        assert '"quote-format"' not in said, "no check is shown as JSON"
        assert ("next: guest-measurements: this is another guest" in " ".join(said.split())) is not good
        assert max(map(len, said.splitlines())) <= 80


def test_a_guest_that_the_policy_refuses_is_exit_status_3(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = (folder / "cpu.toml").read_text()
    (folder / "cpu.toml").write_text(policy.replace(policy.split('"')[1], "0" * 96))
    assert judged(folder) == 3
    said = capsys.readouterr().out
    assert "FAIL   34" in said
    assert "Result: NOT TRUSTED" in said
    assert "may be believed" not in said


def test_a_simulated_guest_under_the_makers_roots_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(folder, "--cpu-policy", f"{folder}/cpu.toml", *collateral_files(folder)) == 3
    said = capsys.readouterr().out
    assert "under Intel and AMD" in said
    assert "Nothing is proven about the guest" in said
    # What one cause left unmade is one line.
    assert said.count("\n  skip ") <= 4
    assert "not checked: " in said


def test_without_its_collateral_a_quote_is_not_judged_good(
    folder: Path, cpu: SimulatedGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--cpu-policy", f"{folder}/cpu.toml", "--cpu-anchors", f"{folder}/roots.pem"]
    assert verify(folder, *files) == 3
    assert ("FAIL   27" if cpu.registers else "ABSENT 29") in capsys.readouterr().out


def test_collateral_of_two_makers_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = SimulatedGuest("tdx" if (folder / "list.der").exists() else "snp-genoa").collateral()
    if isinstance(other, TdxCollateral):
        (folder / "other").write_text(other.text)
    else:
        (folder / "other").write_bytes(other.crls[0])
    assert judged(folder, "--tee-collateral", f"{folder}/other") == 1
    assert "--tee-collateral" in capsys.readouterr().out


def test_a_challenge_of_another_request_is_not_believed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judged(folder, challenge="00" * 16) == 1
    assert "nonce" in capsys.readouterr().out


def test_a_weakened_cpu_policy_is_refused_where_weakened_ones_are(
    folder: Path, cpu: SimulatedGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = (folder / "cpu.toml").read_text()
    measured = policy.split("\n")[1]
    (folder / "cpu.toml").write_text(policy.replace(measured, 'measurements = "any"'))
    assert judged(folder) == 0
    assert "weakened: any guest" in capsys.readouterr().out
    # The simulated token is weakened itself, so that the guest is asked alone.
    verified = nvattest.verify_token(
        (folder / "token.json").read_text(),
        issuer="NVATTEST-LOCAL-VERIFIER",
        nonce=None,
        jwks=(folder / "jwks.json").read_text(),
        accept_simulated=True,
        guest=guest_of(folder, cpu),
    )
    assert verified.guest is not None
    assert verified.guest.trusted
    clean = replace(verified, weakened=(), anchors=NVIDIA_ANCHORS.label, guest=None)
    rules = Rules(issuer=None, nonce=nvattest.Nonce(bytes(32)), at=cpu.clock)
    with pytest.raises(nvattest.TokenError, match="any guest") as caught:
        _with_guest(clean, guest_of(folder, cpu), rules, accept_simulated=True, refuse_weakened=True)
    assert caught.value.code == "weakened"


def guest_of(folder: Path, cpu: SimulatedGuest) -> nvattest.Guest:
    return nvattest.Guest(
        quote=(folder / "quote.json").read_bytes(),
        policy=nvattest.load_cpu_policy((folder / "cpu.toml").read_bytes(), source="cpu.toml"),
        recipe=nvattest.Challenge(challenge=bytes.fromhex(CHALLENGE)),
        collateral=cpu.collateral(),
        anchors=cpu.anchors(),
        at=cpu.clock,
    )


def test_a_file_of_another_kind_is_named_where_a_guest_is_to_be_judged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, name, kind, wanted in (
        ("--tee-quote", "token.json", "a token", "a quote of the CPU"),
        ("--tee-collateral", "quote.json", "a quote of the CPU", "collateral of CPU quotes"),
        ("--tee-collateral", "cpu.toml", "a CPU policy", "collateral of CPU quotes"),
        ("--cpu-policy", "quote.json", "a quote of the CPU", "a CPU policy"),
    ):
        words = {"--tee-quote": f"{folder}/quote.json", "--cpu-policy": f"{folder}/cpu.toml"}
        words[option] = f"{folder}/{name}"
        files = ["--token-file", f"{folder}/token.json", "--jwks", f"{folder}/jwks.json", "--challenge", CHALLENGE]
        assert main(["verify-token", *files, *(part for pair in words.items() for part in pair)]) == 1
        said = capsys.readouterr().out
        assert f"{option}: {folder}/{name} is {kind}, expected {wanted}" in said
        assert "next: it is for:" in said


def test_an_input_of_a_recipe_is_given_once_and_with_a_value(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for inputs, wrong in ((["nonce"], "has no value"), (["nonce=00", "nonce=01"], "is given twice")):
        words = [word for name in inputs for word in ("--tee-input", name)]
        files = ["--token-file", f"{folder}/token.json", "--jwks", f"{folder}/jwks.json"]
        quote = ["--tee-quote", f"{folder}/quote.json", "--tee-recipe", "near"]
        assert main(["verify-token", *files, "--nonce", "00" * 32, *quote, *words]) == 1
        assert wrong in capsys.readouterr().out


def test_a_quote_that_cannot_be_read_is_a_verdict_beside_a_bundle_too(
    folder: Path, cpu: SimulatedGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    collateral = cpu.collateral()
    content = collateral.text.encode() if isinstance(collateral, TdxCollateral) else pem(collateral.certificates)
    bundle = dump_bundle(Collateral(cpu=(CpuAnswer(content, Source.FILE),)))
    (folder / "bundle.json").write_text(json.dumps(bundle))
    (folder / "quote.json").write_bytes(cpu.quote(bytes(64))[:-1])
    demands = ["--cpu-policy", f"{folder}/cpu.toml", "--tee-collateral", f"{folder}/bundle.json"]
    assert verify(folder, *demands) == 3
    assert "FAIL   26" in capsys.readouterr().out


def test_a_time_for_the_quote_of_a_guest_that_is_not_judged_is_no_silent_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(folder) == 0
    assert "warning: quote= of --at is ignored" in capsys.readouterr().err


QUOTE = ["--tee-quote", "pyproject.toml"]
DATA = "00" * 64


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nonce", "ab" * 32, *QUOTE], "--tee-quote is required to come with exactly one of"),
        (
            ["--challenge", CHALLENGE, "--expected-report-data", DATA, *QUOTE],
            "--tee-quote is required to come with exactly one of",
        ),
        (["--nonce", "ab" * 32, "--expected-report-data", DATA], "required to come with --tee-quote"),
        (["--nonce", "ab" * 32, "--tee-recipe", "near"], "required to come with --tee-quote"),
        (["--challenge", CHALLENGE, "--cpu-policy", "pyproject.toml"], "required to come with --tee-quote"),
        (
            ["--challenge", CHALLENGE, *QUOTE, "--tee-collateral", "pyproject.toml"],
            "required to come with --cpu-policy",
        ),
        (["--challenge", CHALLENGE, *QUOTE, "--cpu-anchors", "pyproject.toml"], "required to come with --cpu-policy"),
        (["--challenge", CHALLENGE, *QUOTE, "--tee-input", "a=b"], "required to come with --tee-recipe"),
        (["--nonce", "ab" * 32, "--expected-report-data", "00", *QUOTE], "not 64 bytes of report data"),
        (["--nonce", "ab" * 32, "--tee-recipe", "others", *QUOTE], "others"),
        (
            [
                "--nonce",
                "ab" * 32,
                "--tee-recipe",
                "near",
                "--tee-input",
                "nonce=00",
                "--tee-input",
                "nonce=11",
                *QUOTE,
            ],
            "--tee-input nonce is given twice",
        ),
        (["--nonce", "ab" * 32, "--at", "gpu=2026-11-01T00:00:00Z"], "not a time"),
        (["--nonce", "ab" * 32, "--at", "quote=2026-11-01T00:00:00Z,quote=2026-12-01T00:00:00Z"], "not a time"),
    ],
)
def test_options_that_miss_each_other_are_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    with pytest.raises(SystemExit) as caught:
        raise SystemExit(
            main(["verify-token", "--token-file", "pyproject.toml", "--key", "pyproject.toml", *arguments])
        )
    assert caught.value.code != 0
    said = capsys.readouterr()
    assert says in said.err + said.out


def test_a_bundle_gives_what_belongs_to_the_quote(
    folder: Path, cpu: SimulatedGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    def bundle(name: str, *guests: SimulatedGuest) -> list[str]:
        files = [next(path for path in guest.write(folder / guest.kind) if "cpu-coll" in path) for guest in guests]
        answers = tuple(CpuAnswer(Path(path).read_bytes(), Source.FILE) for path in files)
        (folder / name).write_text(json.dumps(dump_bundle(Collateral(cpu=answers))))
        return ["--tee-collateral", f"{folder / name}"]

    others = [SimulatedGuest("tdx" if cpu.kind != "tdx" else "snp-genoa"), SimulatedGuest("snp-turin")]
    files = ["--cpu-policy", f"{folder}/cpu.toml", "--cpu-anchors", f"{folder}/roots.pem"]
    assert verify(folder, *files, *bundle("all.json", *others, cpu)) == 0
    capsys.readouterr()
    assert verify(folder, *files, *bundle("others.json", *others)) != 0
    said = "".join(capsys.readouterr().out.split())
    assert "withoutcollateralfortheCPUofthisquote" in said
