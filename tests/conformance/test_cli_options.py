"""The option tables of NVIDIA's 1.2.2 and 2.0.0: every option, variable and choice is accepted, with their statuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nvattest._package import __version__
from nvattest.cli import command_parser, main

from .world import Stage, without_nvat

GLOBAL = {
    ("-l", "--log-level"): ("info", ("trace", "debug", "info", "warn", "error", "off"), "NVAT_LOG_LEVEL"),
    ("-f", "--format"): ("text", ("text", "json"), "NVAT_FORMAT"),
}
EVIDENCE = {
    ("--nonce",): ("", (), ""),
    ("-d", "--device"): ("gpu", ("gpu", "nvswitch"), ""),
    ("--gpu-evidence-source",): ("nvml", ("nvml", "corelib", "file"), ""),
    ("--gpu-architecture",): ("", ("blackwell", "Blackwell", "BLACKWELL"), ""),
    ("--gpu-evidence-file",): ("", (), ""),
    ("--nvswitch-evidence-source",): ("nscq", ("nscq", "file"), ""),
    ("--nvswitch-evidence-file",): ("", (), ""),
}
VERIFICATION = {
    ("--verifier",): ("local", ("local", "remote"), ""),
    ("--relying-party-policy",): (None, (), ""),
    ("--rim-store",): ("remote", ("remote", "dir"), ""),
    ("--rim-url",): ("https://rim.attestation.nvidia.com", ("https://rim.example",), "NVAT_RIM_SERVICE_BASE_URL"),
    ("--rim-dir",): (".", (), ""),
    ("--ocsp-url",): ("https://ocsp.ndis.nvidia.com", ("https://ocsp.example",), "NVAT_OCSP_BASE_URL"),
    ("--nras-url",): ("https://nras.attestation.nvidia.com", ("https://nras.example",), "NVAT_NRAS_BASE_URL"),
    ("--service-key",): ("", ("key",), "NV_ATTESTATION_SERVICE_KEY"),
    # 2.0.0
    ("--ocsp-cert-id-hash",): ("sha-256", ("sha-1", "sha-256", "sha-384"), "NVAT_OCSP_CERT_ID_HASH_ALGORITHM"),
    ("--tls-ca-cert",): (None, (), "NVAT_TLS_CA_CERT"),
    ("--tls-ca-path",): (None, (), "NVAT_TLS_CA_PATH"),
}
NRAS = ("--nras-url", "http://localhost:1")
NONCE = ("--nonce", "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")
SWITCHES = (
    "--verify-rim-signatures", "--no-verify-rim-signatures", "--verify-rim-cert-chain", "--no-verify-rim-cert-chain",
)  # fmt: skip
# verify-token of 2.0.0 has the group VERIFICATION too. What it cannot use has no default here, and no variable. That of
# --nras-url counts only where no key is named: tests/integration/test_verify_token_nras.py.
UNUSED = ("--verifier", "--rim-store", "--rim-url", "--rim-dir", "--ocsp-url", "--ocsp-cert-id-hash")
TOKEN = {
    ("--token-file",): ("-", ("token.json", ""), ""),
    ("--token-type",): (None, ("detached-eat", "ear"), ""),
    ("--clock-skew-leeway-seconds",): (60, (), ""),
    ("--nonce",): ("", ("00" * 32,), ""),
    **VERIFICATION,
    **{(name,): (None, VERIFICATION[name,][1], "") for name in UNUSED},
    ("--nras-url",): ("", ("https://nras.example",), ""),
}
COMMON = {**GLOBAL, **EVIDENCE}
TABLE = {
    "attest": {**COMMON, **VERIFICATION},
    "collect-evidence": COMMON,
    "verify-token": {**GLOBAL, **TOKEN},
    "version": GLOBAL,
}
CASES = [(command, names) for command, options in TABLE.items() for names in options]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(without_nvat()):
        monkeypatch.delenv(name)


def parse(command: str, *arguments: str) -> object:
    return command_parser(command).parse_args(list(arguments))


@pytest.mark.parametrize(("command", "names"), CASES, ids=lambda value: value if isinstance(value, str) else value[-1])
def test_an_option_of_theirs_has_its_names_default_and_choices(command: str, names: tuple[str, ...]) -> None:
    default, words, _ = TABLE[command][names]
    field = names[-1].lstrip("-").replace("-", "_")
    assert getattr(parse(command), field) == default
    for name in names:
        for word in words:
            assert getattr(parse(command, name, word), field) == word
            if name.startswith("--"):
                assert getattr(parse(command, f"{name}={word}"), field) == word


@pytest.mark.parametrize(("command", "names"), [(c, n) for c, n in CASES if TABLE[c][n][2] and TABLE[c][n][1]], ids=str)
def test_a_variable_of_theirs_gives_the_default(
    command: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, words, variable = TABLE[command][names]
    field = names[-1].lstrip("-").replace("-", "_")
    monkeypatch.setenv(variable, words[-1])
    assert getattr(parse(command), field) == words[-1]
    assert getattr(parse(command, names[-1], words[0]), field) == words[0], "the option goes before the variable"


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_switches_for_rims_are_accepted(switch: str, capsys: pytest.CaptureFixture[str]) -> None:
    parse("attest", switch)
    warned = "has no effect" in capsys.readouterr().err
    assert warned is switch.startswith("--no-")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--format", "yaml", "attest"], 105),
        (["attest", "-l", "loud"], 105),
        (["attest", "--device", "tpu"], 105),
        (["attest", "--rim-dir", "/no/such"], 105),
        (["attest", "--relying-party-policy", "/no/such"], 105),
        (["attest", "--gpu-evidence-source", "file"], 105),
        (["attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", "/no/such"], 105),
        (["attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", "/tmp"], 105),
        (["collect-evidence", "--gpu-evidence-source", "corelib"], 105),
        (["collect-evidence", "--gpu-architecture", "hopper"], 105),
        (["attest", "-d", "nvswitch", "--nvswitch-evidence-source", "file"], 105),
        (["attest", "--no-such-option"], 109),
        (["attest", "surplus"], 109),
        (["nonsense"], 109),
        (["attest", "--nonce"], 114),
        (["attest", "-d", "gpu", "--device", "nvswitch"], 114),
        (["-f", "json", "version", "--format", "json"], 114),
        (["attest", "--verify-rim-cert-chains"], 109),
        (["attest", "--gpu-evidence-source", "corelib", "--gpu-architecture", "blackwell"], 4),
        # NVIDIA's own cases for verify-token. Without a nonce theirs would go on; see the table in the README.
        (["verify-token", *NRAS], 106),
        (["verify-token", *NRAS, *NONCE, "--token-file", "/no/such"], 1),
        (["verify-token", *NRAS, *NONCE, "--token-file", "/dev/null"], 1),
        (["verify-token", *NRAS, *NONCE, "--token-file", "/dev/null", "--tls-ca-cert", __file__], 1),
        (["verify-token", *NRAS, "--nonce", "ZZZZ", "--token-file", "/dev/null"], 1),
        (["verify-token", *NRAS, *NONCE, "--token-type", "ear", "--clock-skew-leeway-seconds", "not-a-number"], 104),
        (["verify-token", *NRAS, *NONCE, "--token-type", "jwt"], 105),
        (["verify-token", *NRAS, *NONCE, "--relying-party-policy", "/no/such"], 105),
        (["verify-token", *NRAS, *NONCE, "--tls-ca-cert", "/no/such"], 105),
        (["verify-token", *NRAS, *NONCE, "--tls-ca-path", "/no/such"], 105),
        (["verify-token", *NRAS, *NONCE, "--rim-dir", "/no/such"], 105),
        (["verify-token", *NRAS, *NONCE, "--verifier", "nobody"], 105),
        (["verify-token", *NRAS, *NONCE, "--device", "gpu"], 109),
        ([], 0),
        (["--help"], 0),
        (["version"], 0),
        # Theirs refuses it with 109.
        (["--version"], 0),
    ],
)
def test_argument_errors_have_their_statuses_and_leave_stdout_alone(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    printed = capsys.readouterr()
    if status >= 104:
        assert printed.out == ""
        assert "Run with --help for more information." in printed.err


@pytest.mark.parametrize("before", [True, False])
def test_global_options_stand_before_or_after_the_command(before: bool, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-f", "json", "version"] if before else ["version", "--format", "json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == {"format": "nvattest-version", "version": 1, "nvattest": __version__}


def test_a_bad_evidence_file_is_reported_before_a_bad_nonce(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text("[")
    arguments = ["-f", "json", "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file"]
    status = main([*arguments, str(tmp_path / "bad.json"), "--nonce", "xyz"])
    document = json.loads(capsys.readouterr().out)
    assert status != 0
    assert "nonce" not in document["error"]["message"]
    assert document["claims"] == {} == document["detached_eat"]


SCRIPT = """
set -u
result=$("$@"); status=$?
code=$(printf %s "$result" | jq .result_code)
message=$(printf %s "$result" | jq -r .result_message)
kinds=$(printf %s "$result" | jq -r '.claims[]."x-nvidia-device-type"')
measres=$(printf %s "$result" | jq -r '.claims[0].measres')
tokens=$(printf %s "$result" | jq -r '.detached_eat[1] | keys | join(",")')
echo "$status|$code|$message|$kinds|$measres|$tokens"
"""


@pytest.mark.parametrize(
    ("lies", "expected"),
    [
        ((), "0|0|Ok|gpu|success|GPU-0"),
        (("gpu0:measurement=9",), "12|12|Overall Attestation Result is False|gpu|fail|GPU-0"),
    ],
)
def test_a_shell_script_for_nvidias_program_runs_unchanged(
    stage: Callable[..., Stage], tmp_path: Path, lies: tuple[str, ...], expected: str
) -> None:
    if shutil.which("jq") is None:
        (tmp_path / "jq").write_text(f"#!{sys.executable}\n{JQ}")
        (tmp_path / "jq").chmod(0o755)
    here = stage(lies=lies)
    (tmp_path / "nvattest").write_text(f'#!/bin/sh\nexec {sys.executable} -m nvattest "$@"\n')
    (tmp_path / "nvattest").chmod(0o755)
    arguments = here.gpu()
    environment = {
        **without_nvat(), "PATH": f"{tmp_path}:{os.environ['PATH']}", "NVAT_FORMAT": "json", "HOME": str(tmp_path),
        "NVAT_RIM_SERVICE_BASE_URL": here.services.rim_url, "NVAT_OCSP_BASE_URL": here.services.ocsp_url,
        "NVATTEST_TRUST_ANCHORS": here.file("roots.pem", here.platform.anchors_pem.decode()),
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", SCRIPT, "script", "nvattest", "attest", "--device", "gpu", *arguments], env=environment,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == expected, done.stderr


# The five jq programs of the script, for machines without jq.
JQ = r"""
import json, sys
value = json.load(sys.stdin)
programs = {
    ".result_code": lambda v: v["result_code"],
    ".result_message": lambda v: v["result_message"],
    '.claims[]."x-nvidia-device-type"': lambda v: "\n".join(c["x-nvidia-device-type"] for c in v["claims"]),
    ".claims[0].measres": lambda v: v["claims"][0]["measres"],
    '.detached_eat[1] | keys | join(",")': lambda v: ",".join(sorted(v["detached_eat"][1])),
}
print(programs[sys.argv[-1]](value))
"""
