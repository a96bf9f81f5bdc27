"""``nvattest explain``: files of every kind, words, terminals that are none, and mistakes."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nvattest.cli import main
from nvattest.cli.output import shows_unicode, terminal_for, wants_color


@pytest.fixture(scope="module")
def envelope() -> dict[str, Any]:
    """What ``nvattest -f json attest --simulate`` prints for a node with a fault."""
    stdout = sys.stdout
    sys.stdout = io.StringIO()
    try:
        main(["-f", "json", "attest", "--simulate", "hopper-1", "--fault", "gpu0:measurement=9"])
        document: dict[str, Any] = json.loads(sys.stdout.getvalue())
    finally:
        sys.stdout = stdout
    return document


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["explain", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def save(folder: Path, value: object) -> str:
    path = folder / "saved"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def jwt(claims: object, **header: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'ES384', **header})}.{part(claims)}.c2ln"


def test_the_output_of_attest_and_the_appraisal_in_it_tell_one_story(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, envelope: dict[str, Any]
) -> None:
    whole = explain(capsys, save(tmp_path, envelope))
    inner = explain(capsys, save(tmp_path, envelope["appraisal"]))
    assert whole == inner
    assert whole[0] == 0
    assert "failed check: the measurements match the golden values" in whole[1]


def test_stdin_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, envelope: dict[str, Any]
) -> None:
    data = json.dumps(envelope).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    status, out, _ = explain(capsys, "-")
    assert status == 0
    assert "NOT TRUSTED" in out


def test_json_lists_failures_with_causes_and_actions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, envelope: dict[str, Any]
) -> None:
    _, out, _ = explain(capsys, "-f", "json", save(tmp_path, envelope))
    document = json.loads(out)
    assert document["kind"] == "appraisal"
    assert document["trusted"] is False
    assert document["failures"][0]["check"] == "measurements"
    assert document["failures"][0]["causes"]
    assert document["failures"][0]["actions"]


@pytest.mark.parametrize("word", ["104", "RIM_NOT_FOUND", "measurements", "cc-off", "ParseError", "driver-rim-chain"])
def test_a_word_is_explained(capsys: pytest.CaptureFixture[str], word: str) -> None:
    status, out, _ = explain(capsys, word)
    assert status == 0
    assert "What to do" in out
    status, out, _ = explain(capsys, "-f", "json", word)
    assert json.loads(out)["actions"]


def test_an_unknown_word_is_refused_with_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = explain(capsys, "measurments")
    assert status == 4
    assert out == ""
    assert "did you mean measurements" in err


def test_a_token_is_shown_under_a_banner(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    eat = [
        ["JWT", jwt({"iss": "someone", "exp": 1800000000, "x-nvidia-overall-att-result": False})],
        {"GPU-0": jwt({"measres": "fail", "iat": 1700000000, "ueid": "\x1b[2J" + "9" * 40})},
    ]
    status, out, _ = explain(capsys, save(tmp_path, eat))
    assert status == 0
    assert out.startswith("▲ NOT VERIFIED")
    assert "2 tokens" in out
    assert "exp 2027-01-15T08:00:00Z" in out
    assert "GPU-0" in out
    assert "It never expires" in out
    assert "\x1b" not in out
    _, out, _ = explain(capsys, "-f", "json", save(tmp_path, eat))
    assert json.loads(out)["verified"] is False


def test_a_lone_token_from_elsewhere_is_decoded_and_judged_by_its_algorithm(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, out, _ = explain(
        capsys, save(tmp_path, jwt({"iss": "NV-Attestation-SDK", "submods": {"gpu": {"a": 1}}}, alg="HS256"))
    )
    assert "shared secret" in out
    assert "submodule gpu" in out
    _, out, _ = explain(capsys, save(tmp_path, jwt({"exp": 10**18}, alg="none")))
    assert "no signature at all" in out
    assert "out of range" in out


@pytest.mark.parametrize("claims", [[1], "x", None])
def test_a_token_that_cannot_be_read_is_said_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, claims: object
) -> None:
    status, out, _ = explain(capsys, save(tmp_path, jwt(claims)))
    assert status == 0
    assert "cannot be read" in out


def test_an_exit_status_is_explained_by_the_codes_that_it_may_stand_for(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = explain(capsys, "244")
    assert status == 0
    assert "NVML_INIT_FAILED" in out
    assert "modulo 256" in out
    _, out, _ = explain(capsys, "-f", "json", "244")
    assert json.loads(out)["codes"] == [
        {"code": 500, "name": "NVML_INIT_FAILED", "message": "NVML Initialization Failed"}
    ]
    assert "wrong argument" in explain(capsys, "104")[1]
    assert explain(capsys, "99")[0] == 4


def test_a_part_that_is_not_canonical_base64url_is_not_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # {"a": 1} with loose bits behind its last byte.
    _, out, _ = explain(capsys, save(tmp_path, "eyJhbGciOiJFUzM4NCJ9.eyJhIjogMX1.AA"))
    assert "cannot be read" in out


def test_claims_of_another_program_are_shown_as_claims(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    foreign = {"result_code": 12, "claims": [{"measres": "fail", "x-nvidia-device-type": "gpu"}], "detached_eat": None}
    _, out, _ = explain(capsys, save(tmp_path, foreign))
    assert "NOT VERIFIED" in out
    assert "measres  fail" in out


def test_a_bundle_is_inspected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from nvattest.testing import Platform

    status, out, _ = explain(capsys, save(tmp_path, Platform.build("hopper-1").bundle()))
    assert status == 0
    assert "2 RIMs" in out
    assert "NV_GPU_DRIVER_" in out


def test_an_error_result_leads_to_its_entry(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = {
        "result_code": 500,
        "result_message": "x",
        "error": {"code": "nvml-missing", "message": "m", "hint": "h"},
    }
    _, out, _ = explain(capsys, save(tmp_path, document))
    assert "Nothing was judged" in out
    assert "the NVML library was not found" in out
    assert "\\x0a" not in out


@pytest.mark.parametrize(
    "document",
    [
        # verify-token of a detached EAT, and of an EAR.
        {"result_code": 0, "result_message": "Ok", "claims": [{"measres": "success"}], "token": {"simulated": True}},
        {"result_code": 0, "result_message": "Ok", "ear": {"eat_profile": "p"}, "token": {"simulated": True}},
        # attest --verifier remote where the token is not there, and a line of verify-batch.
        {
            "result_code": 0,
            "result_message": "Ok",
            "claims": [{"measres": "success"}],
            "verified_by": {"simulated": True},
        },
        {"id": "a", "trusted": True, "result_code": 0, "result_message": "Ok", "simulated": True, "devices": []},
        # preflight, with a RIM's id that has as many dots as a token.
        {
            "result_code": 0,
            "result_message": "Ok",
            "simulated": True,
            "rims": [{"id": "NV_GPU_DRIVER_GH100_550.00.07"}],
        },
    ],
)
def test_a_result_that_is_no_appraisal_says_that_it_was_simulated_and_is_no_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, document: dict[str, Any]
) -> None:
    path = save(tmp_path, document)
    status, out, _ = explain(capsys, path)
    assert status == 0
    assert "NOT VERIFIED" in out
    assert "SIMULATED: this proves nothing" in out
    assert "result code 0: Ok" in out
    assert "Nothing was judged" not in out
    assert '"simulated": true' in explain(capsys, path, "-f", "json")[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("{", "not JSON"),
        ("[]", "no result"),
        ("{}", "no result"),
        ("3", "no result"),
        ('{"format": "something-else"}', "something-else"),
        ('[{"arch": "HOPPER", "evidence": "AA==", "certificate": "AA=="}]', "verify it first"),
        ('{"evidences": []}', "verify it first"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_cannot_be_explained_is_refused_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, said: str
) -> None:
    status, out, err = explain(capsys, save(tmp_path, content))
    assert status != 0
    assert out == ""
    assert said in err


def test_a_page_is_written_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path, envelope: dict[str, Any]) -> None:
    pytest.importorskip("jinja2", reason="the extra 'report' is not installed")
    target = tmp_path / "out.html"
    status, _, _ = explain(capsys, save(tmp_path, envelope), "--html", str(target))
    assert status == 0
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    status, _, err = explain(capsys, save(tmp_path, jwt({})), "--html", str(target))
    assert status == 4
    assert "saved appraisal only" in err


# -- the terminal


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_color_needs_a_terminal_and_respects_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(Tty())
    assert not wants_color(io.StringIO())
    assert wants_color(io.StringIO(), "always")
    assert not wants_color(Tty(), "never")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Tty())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_color(Tty())


def test_signs_follow_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert not shows_unicode(Tty())
    monkeypatch.setenv("LC_ALL", "C")
    assert not shows_unicode(Tty())
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert shows_unicode(Tty())
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert shows_unicode(Tty())
    assert terminal_for(Tty(), width=10_000).width == 10_000
    assert terminal_for(io.StringIO()).width == 80


@pytest.mark.parametrize("arguments", [["104"], ["measurements"], ["SAVED", "--all"], ["SAVED", "--color", "always"]])
def test_without_a_locale_everything_is_ascii(tmp_path: Path, envelope: dict[str, Any], arguments: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    environment |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    path = save(tmp_path, envelope)
    result = subprocess.run(
        [sys.executable, "-m", "nvattest", "explain", *(path if word == "SAVED" else word for word in arguments)],
        capture_output=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()


def test_a_file_name_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[2J\u202e.json"
    path.write_text('{"some": "thing"}', encoding="utf-8")
    status, _, error = explain(capsys, str(path))
    assert status == 4
    assert not set(error) & set("\x1b\u202e")
    assert "evil\\x1b[2J\\u202e.json is JSON" in error


def test_the_page_opens_what_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, envelope: dict[str, Any]
) -> None:
    pytest.importorskip("jinja2", reason="the extra 'report' is not installed")
    out, saved = tmp_path / "page.html", save(tmp_path, envelope)
    devices = len(envelope["appraisal"]["devices"])
    assert explain(capsys, saved, "--html", str(out), "--all")[0] == 0
    assert out.read_text(encoding="utf-8").count("<details open") == devices
    status, _, error = explain(capsys, saved, "--html", str(out), "--device", "GPU-99")
    assert status == 4
    assert "GPU-99" in error


def test_the_text_of_a_result_is_refused_with_how_to_save_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.txt").write_text("Result: NOT TRUSTED\n")
    assert main(["explain", str(tmp_path / "result.txt")]) == 4
    assert "nvattest -f json attest > result.json" in capsys.readouterr().err


def test_an_empty_standard_input_says_what_to_give(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(["explain"]) == 4
    said = capsys.readouterr().err
    assert "standard input is empty" in said
    assert "give a saved result (nvattest -f json attest > result.json), or the word of a code or check" in said
