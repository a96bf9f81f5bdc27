"""``nvattest verify-token`` and the function that ``attest`` issues tokens with."""

from __future__ import annotations

import argparse
import io
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from nvattest.cli import run, verify_token
from nvattest.cli.arguments import add_options, read
from nvattest.cli.attest import TokenRequest, make_token, signing_key
from nvattest.collateral.http import Answer, HttpClient
from nvattest.errors import CollateralError, InputError, ResultCode

from ..token import minting  # noqa: TID252 - one writer of forged tokens for all folders

AT = "2026-11-01T12:05:00Z"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the keys and tokens of a good node."""
    (tmp_path / "jwks.json").write_text(json.dumps(minting.KEY.public.jwks()))
    (tmp_path / "other.json").write_text(json.dumps(minting.OTHER.public.jwks()))
    (tmp_path / "key.pem").write_bytes(
        minting.KEY.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "public.pem").write_bytes(
        minting.KEY.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    real = replace(minting.appraisal("hopper-8-ppcie"), simulated=False)
    bad = replace(minting.appraisal("hopper-8-ppcie", ("gpu3:measurement=9",)), simulated=False)
    (tmp_path / "good.json").write_text(json.dumps(minting.eat(real)))
    (tmp_path / "bad.json").write_text(json.dumps(minting.eat(bad)))
    (tmp_path / "simulated.json").write_text(json.dumps(minting.eat()))
    (tmp_path / "good.ear").write_text(minting.ear(real) + "\n")
    (tmp_path / "bad.ear").write_text(minting.ear(bad) + "\n")
    return tmp_path


def verify(folder: Path, name: str, *more: str, keys: tuple[str, ...] = ("--jwks", "jwks.json")) -> int:
    option, file = keys or ("", "")
    given = [option, str(folder / file)] if option else []
    path = name if name == "-" else str(folder / name)
    at = () if "--at" in more else ("--at", AT)
    return run(["verify-token", "--token-file", path, "--nonce", minting.NONCE.hex(), *at, *given, *more])


def test_the_clock_is_read_when_the_token_has_come(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The other end of the pipe attests first, which takes longer than clocks may differ.
    clock = [minting.NOW - timedelta(minutes=10)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return clock[0].astimezone(tz)

    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            clock[0] = minting.NOW + timedelta(seconds=1)
            return super().read(size)

    monkeypatch.setattr(verify_token, "datetime", Clock)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pipe((folder / "good.json").read_bytes())))
    argv = ["verify-token", "--nonce", minting.NONCE.hex(), "--jwks", str(folder / "jwks.json")]
    assert run(argv) == 0
    assert "checked at 2026-11-01T12:00:01Z" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["good.json", "good.ear"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tokens_and_keys_that_powershell_saved_are_read(folder: Path, name: str, encoding: str) -> None:
    for file in (name, "jwks.json"):
        (folder / file).write_bytes((folder / file).read_text().encode(encoding))
    assert verify(folder, name) == 0
    (folder / name).write_bytes((folder / name).read_bytes() + b"\xff")
    assert verify(folder, name) == 1


@pytest.mark.parametrize(
    ("name", "more", "status"),
    [
        ("good.json", (), 0),
        ("good.ear", (), 0),
        ("good.json", ("--token-type", "detached-eat", "--expected-devices", "12"), 0),
        ("bad.json", (), 3),
        ("bad.ear", (), 3),
        ("simulated.json", (), 1),
        ("simulated.json", ("--accept-simulated",), 0),
        ("good.json", ("--refuse-weakened",), 1),
        ("good.json", ("--token-type", "ear"), 1),
        ("good.json", ("--expected-devices", "8"), 1),
        ("good.json", ("--expected-gpus", "8", "--expected-switches", "4"), 0),
        ("good.json", ("--expected-gpus", "12"), 1),
        ("good.json", ("--expected-switches", "0"), 1),
        ("good.json", ("--issuer", "somebody"), 1),
        ("good.json", ("--nras-url", "https://nras.attestation.nvidia.com"), 1),
        ("good.json", ("--at", "2026-11-24T00:00:00Z"), 1),
        ("good.json", ("--at", "2026-11-01T13:00:59Z"), 0),
        ("good.json", ("--at", "2026-11-01T13:00:59Z", "--clock-skew-leeway-seconds", "0"), 1),
        ("good.json", ("--clock-skew-leeway-seconds", "-5"), 1),
        ("jwks.json", (), 1),
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_exit_status_is_nvidias(
    folder: Path, capsys: pytest.CaptureFixture[str], form: str, name: str, more: tuple[str, ...], status: int
) -> None:
    assert verify(folder, name, *more, "--format", form) == status
    out = capsys.readouterr().out
    if form == "json":
        said = json.loads(out)
        assert {"result_code", "result_message"} <= set(said)
        assert (said["result_code"] == 0) is (status == 0)
        assert ("error" in said) is (status == 1)
    else:
        verdict = {0: "Result: TRUSTED", 1: "Result: NOT BELIEVED", 3: "Result: NOT TRUSTED"}[status]
        assert verdict in out
        assert ("SIMULATED" in out) is (status == 0 and name.startswith("sim"))


def test_the_instant_of_the_check_is_in_every_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A token that expired long ago is believed with --at: whoever reads the output has to see that.
    verify(folder, "good.json")
    assert f"checked at {AT}\n" in capsys.readouterr().out
    verify(folder, "good.json", "--format", "json")
    assert json.loads(capsys.readouterr().out)["token"]["checked_at"] == AT


def test_json_has_the_claims_or_the_ear(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(folder, "good.json", "--format", "json")
    said = json.loads(capsys.readouterr().out)
    assert [claims["measres"] for claims in said["claims"]] == ["success"] * 12
    assert "iss" not in said["claims"][0]
    assert said["token"]["key_thumbprint"] == minting.KEY.public.thumbprint
    verify(folder, "good.ear", "--format", "json")
    assert json.loads(capsys.readouterr().out)["ear"]["submods"]["gpu0"]["ear.status"] == "affirming"


def test_keys_come_from_a_jwks_or_a_pem_and_never_from_nowhere(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(folder, "good.json", keys=("--key", "public.pem")) == 0
    assert verify(folder, "good.json", keys=("--jwks", "other.json")) == 1
    assert "kid-unknown" in capsys.readouterr().out
    assert verify(folder, "good.json", keys=()) == 1
    assert "key-missing" in capsys.readouterr().out
    assert verify(folder, "good.json", "--jwks", "http://127.0.0.1/jwks.json", keys=()) == 1
    assert "https only" in capsys.readouterr().out


def test_the_token_may_come_from_standard_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stdin:
        buffer = io.BytesIO((folder / "good.json").read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert verify(folder, "-") == 0
    Stdin.buffer = io.BytesIO(b"A" * 2_000_000)
    assert verify(folder, "-") == 1
    assert "too-large" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--token-file", "x"], 106),
        (["--nonce", "zz"], 1),
        (["--nonce", ""], 106),
        (["--nonce", "00" * 32, "--issuer", "a", "--nras-url", "b"], 105),
        (["--nonce", "00" * 32, "--token-type", "jwt"], 105),
        (["--nonce", "00" * 32, "--clock-skew-leeway-seconds", "many"], 104),
        (["--nonce", "00" * 32, "--key", "/there/is/no/such/file"], 105),
    ],
)
def test_a_wrong_argument_has_nvidias_status(arguments: list[str], status: int) -> None:
    assert run(["verify-token", *arguments]) == status


def test_a_token_is_verified_in_another_process(folder: Path) -> None:
    result = subprocess.run(
        [
            sys.executable, "-m", "nvattest", "verify-token", "--token-file", str(folder / "good.json"),
            "--jwks", str(folder / "jwks.json"), "--nonce", minting.NONCE.hex(), "--at", AT, "-f", "json",
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["token"]["labels"][-1] == "SWITCH-3"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (json.dumps(minting.KEY.public.jwks()).encode(), 0),
        (json.dumps(minting.OTHER.public.jwks()).encode(), 1),
        (b"<html>", 1),
        (CollateralError("JWKS: no route", code="connection", result_code=ResultCode.VERIFIER_JWKS_ERROR), 1),
    ],
)
def test_a_jwks_is_fetched_only_where_a_url_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, status: int
) -> None:
    asked: list[str] = []

    def exchange(_client: object, service: Any, url: str, deadline: Any) -> Answer:
        assert deadline.seconds == 30, "a server that drips is left in the end"
        assert service.maximum == 1024 * 1024
        asked.append(url)
        if isinstance(answer, Exception):
            raise answer
        return Answer(bytes(answer), {})

    monkeypatch.setattr(HttpClient, "exchange", exchange)
    url = "https://verifier.example/jwks.json"
    assert verify(folder, "good.json", "--jwks", url, keys=()) == status
    assert asked == [url]
    asked.clear()
    assert verify(folder, "good.json", "--nras-url", "https://verifier.example") == 1
    assert asked == []


@pytest.mark.parametrize(
    ("name", "answer", "status"),
    [
        ("good.json", True, 0),
        ("good.json", False, 2),
        ("good.json", None, 2),
        ("good.json", "true", 2),
        ("good.ear", True, 0),
        ("good.ear", False, 2),
        ("bad.json", True, 3),
        ("bad.json", False, 2),
        ("bad.ear", True, 3),
        ("bad.ear", False, 2),
        ("simulated.json", True, 1),
    ],
)
def test_a_policy_adds_to_the_result_and_never_mends_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, answer: object, status: int
) -> None:
    seen: list[object] = []

    def agrees(_path: str, verified: Any) -> bool:
        seen.append(verified.labels)
        return answer is True

    monkeypatch.setattr("nvattest.cli.verify_token._policy_agrees", agrees)
    (folder / "policy.rego").write_text("package policy")
    assert verify(folder, name, "--relying-party-policy", str(folder / "policy.rego")) == status
    assert bool(seen) is (status != 1)


EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "policies"
JSON_POLICY = {
    "version": "4.0",
    "authorization-rules": {
        "type": "JWT",
        "overall-claims": {"x-nvidia-overall-att-result": True, "iss": "NVATTEST-LOCAL-VERIFIER"},
        "detached-claims": {"measres": "success"},
    },
}
EVERY_DEVICE = "package policy\nimport future.keywords.every\n"
EVERY_DEVICE += 'nv_match { count(input) == 12; every c in input { c.measres == "success" } }'


@pytest.mark.parametrize(
    ("name", "policy", "status", "code"),
    [
        ("good.json", JSON_POLICY, 0, 0),
        ("bad.json", JSON_POLICY, 2, 11),
        ("good.ear", JSON_POLICY, 1, 301),
        ("good.json", EVERY_DEVICE, 0, 0),
        ("bad.json", EVERY_DEVICE, 2, 11),
        ("bad.json", "package policy\nnv_match { true }", 3, 12),
        ("good.json", "package policy\nnv_match { false }", 2, 11),
        ("good.json", "package policy\nnv_match = 1", 2, 11),
        ("good.json", "package policy\nnv_match { tru", 1, 301),
        ("good.json", "package other", 1, 301),
        ("good.ear", EXAMPLES / "accept_ear_affirming.rego", 0, 0),
        ("bad.ear", EXAMPLES / "accept_ear_affirming.rego", 2, 11),
        ("good.json", EXAMPLES / "accept_ear_affirming.rego", 2, 11),
    ],
)
def test_policies_as_people_have_them_decide_on_tokens(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, policy: Any, status: int, code: int
) -> None:
    path = policy
    if not isinstance(policy, Path):
        path = folder / "policy"
        path.write_text(policy if isinstance(policy, str) else json.dumps(policy))
    if not isinstance(policy, dict):
        pytest.importorskip("regopy")
    assert verify(folder, name, "--relying-party-policy", str(path), "--format", "json") == status
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert said["result_code"] == code
    assert ("policy: " in printed.err) is (status == 2), "a no has its reason"
    # What was verified is shown though the policy says no.
    assert bool(said.get("claims") or said.get("ear")) is (status != 1)


# Issuing.


def requested(*arguments: str) -> TokenRequest:
    parser = argparse.ArgumentParser()
    add_options(parser, TokenRequest)
    return read(TokenRequest, parser.parse_args(arguments), claims_version="4.0")


def issue(*arguments: str) -> list[object] | str:
    request = requested(*arguments)
    return make_token(minting.appraisal(), request, signing_key(request.signing_key))


@pytest.mark.parametrize("form", ["detached-eat", "ear"])
def test_a_key_is_made_for_the_run_and_its_public_half_goes_out(tmp_path: Path, form: str) -> None:
    token, jwks = tmp_path / "token", tmp_path / "jwks"
    made = issue("--token-format", form, "--token-out", str(token), "--jwks-out", str(jwks))
    assert stat.S_IMODE(os.stat(token).st_mode) == 0o600
    now: dict[str, Any] = {"at": datetime.now(timezone.utc), "jwks": jwks.read_bytes()}
    verified = minting.check(token.read_bytes(), **now)
    assert verified.payload == minting.check(made, **now).payload
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jwks", "token"]


def test_two_runs_have_two_keys_and_a_named_key_stays(folder: Path) -> None:
    assert signing_key(None).public != signing_key(None).public
    made = issue("--signing-key", str(folder / "key.pem"), "--issuer", "https://verifier.example")
    verified = minting.check(made, issuer="https://verifier.example", at=datetime.now(timezone.utc))
    assert verified.key == minting.KEY.public


def test_a_token_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        issue("--token-out", str(tmp_path / "no" / "token"))
    with pytest.raises(InputError):
        issue("--token-lifetime", "0", "--token-out", str(tmp_path / "token"))
    assert list(tmp_path.iterdir()) == []


def test_a_key_file_that_is_no_key_is_refused(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        issue("--signing-key", str(folder / "public.pem"))
    assert caught.value.code == "signing-key"


def test_a_token_of_a_refused_device_names_the_claims_that_are_false(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # NVIDIA's measres says nothing of the signature, so that a list of good words would stand above the refusal.
    refused = replace(minting.appraisal("hopper-1", ("gpu0:wrong-key",)), simulated=False)
    (folder / "refused.json").write_text(json.dumps(minting.eat(refused)))
    assert verify(folder, "refused.json") == 3
    said = capsys.readouterr().out
    assert "    false: x-nvidia-gpu-attestation-report-signature-verified\n" in said
    assert "next: the attester's own result has every check: nvattest explain" in said
