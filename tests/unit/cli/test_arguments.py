"""Arguments as NVIDIA's program takes them: one exit status for each kind of mistake, and nothing on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvattest.cli import main
from nvattest.errors import InputError
from nvattest.testing import Platform, SimulatedGuest

CONVERSION, VALIDATION, REQUIRED, UNEXPECTED, VALUES = 104, 105, 106, 109, 114


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def call(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(list(argv))
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


MISTAKES: dict[str, tuple[list[str], int]] = {
    "an unknown command": (["attset"], UNEXPECTED),
    "an unknown option": (["attest", "--nonse", "00"], UNEXPECTED),
    "a surplus word": (["version", "now"], UNEXPECTED),
    "an abbreviation": (["attest", "--dev", "gpu"], UNEXPECTED),
    "an option without its value": (["attest", "--nonce"], VALUES),
    "a flag with a value that is neither true nor false": (["attest", "--offline=maybe"], CONVERSION),
    "a device that does not exist": (["attest", "--device", "cpu"], VALIDATION),
    "a device in capitals": (["attest", "--device", "GPU"], VALIDATION),
    "a source that does not exist": (["attest", "--gpu-evidence-source", "disk"], VALIDATION),
    "a log level that does not exist": (["attest", "-l", "loud"], VALIDATION),
    "a format that does not exist": (["-f", "xml", "version"], VALIDATION),
    "source file without a file": (["attest", "--gpu-evidence-source", "file"], VALIDATION),
    "a file that is not there": (
        ["attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", "/no/such"],
        VALIDATION,
    ),
    "a folder as a file": (["attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", "/"], VALIDATION),
    "switches from a file that is not named": (
        ["attest", "-d", "nvswitch", "--nvswitch-evidence-source", "file"],
        VALIDATION,
    ),
    "all devices, and the switches' file is missing": (
        ["attest", "-d", "all", "--gpu-evidence-source", "file", "--gpu-evidence-file", __file__,
         "--nvswitch-evidence-source", "file"],
        VALIDATION,
    ),
    "corelib without an architecture": (["attest", "--gpu-evidence-source", "corelib"], VALIDATION),
    "an architecture that cannot be named": (["attest", "--gpu-architecture", "hopper"], VALIDATION),
    "a RIM folder that is not there": (["attest", "--rim-store", "dir", "--rim-dir", "/no/such"], VALIDATION),
    "a RIM folder that is a file": (["attest", "--rim-dir", __file__], VALIDATION),
    "a bundle that is not there": (["attest", "--bundle", "/no/such"], VALIDATION),
    "a time without a zone": (["attest", "--at", "2025-08-21T07:00:00"], VALIDATION),
    "half a time": (["attest", "--at", "device=2025-08-21T07:00:00Z"], VALIDATION),
    "claims of a version that does not exist": (["attest", "--claims-version", "1.0"], VALIDATION),
    "no output for a bundle": (["bundle", "create", "--rim-dir", "."], REQUIRED),
    "no input for a bundle": (["bundle", "create", "--output", "/tmp/never-written"], REQUIRED),
    "bundle without an action": (["bundle"], REQUIRED),
    "bundle with an unknown action": (["bundle", "burn"], VALIDATION),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_argument_has_nvidias_exit_status_and_says_so_on_stderr_only(run, name: str) -> None:
    argv, expected = MISTAKES[name]
    status, out, err = run(*argv)
    assert (status, out) == (expected, "")
    assert err.rstrip().endswith("Run with --help for more information.")
    # Even in JSON: as NVIDIA's program, which has parsed no format yet.
    if argv[0] != "-f":
        assert run("-f", "json", *argv)[:2] == (expected, "")


def test_the_message_names_the_option(run) -> None:
    assert "--gpu-evidence-file" in run("attest", "--gpu-evidence-source", "file")[2]
    assert "--device" in run("attest", "--device", "cpu")[2]


@pytest.mark.parametrize(
    "argv",
    [
        ["-f", "json", "-l", "error", "version"],
        ["version", "-f", "json", "-l", "error"],
        ["--format", "json", "version", "--log-level", "error"],
        ["--format=json", "version"],
        ["version", "--format=json"],
    ],
)
def test_global_options_stand_before_or_after_the_command(run, argv: list[str]) -> None:
    status, out, _ = run(*argv)
    assert status == 0
    assert "nvattest" in json.loads(out)


def test_the_environment_gives_the_defaults_and_options_win(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVAT_FORMAT", "json")
    assert json.loads(run("version")[1])
    assert run("-f", "text", "version")[1].startswith("nvattest ")
    monkeypatch.setenv("NVAT_FORMAT", "")
    assert run("version")[1].startswith("nvattest ")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NVAT_FORMAT", "JSON"),
        ("NVAT_LOG_LEVEL", "INFO"),
        ("NVAT_OCSP_CERT_ID_HASH_ALGORITHM", "sha256"),
        ("NVAT_TLS_CA_CERT", "/no/such.pem"),
        ("NVAT_TLS_CA_PATH", __file__),
        ("NVATTEST_CACHE_DIR", "/dev/null/cache"),
    ],
)
def test_a_bad_value_in_the_environment_is_ignored_with_a_warning(
    run, monkeypatch: pytest.MonkeyPatch, real_data: Path, variable: str, value: str
) -> None:
    evidence = str(real_data / "evidence/hopper-590.12-single.json")
    command = [
        "attest", "--offline", "--rim-store", "dir", "--rim-dir", str(real_data / "rim"), "--gpu-evidence-source",
        "file", "--gpu-evidence-file", evidence, "--nonce", "00" * 32,
    ]  # fmt: skip
    expected = run(*command)
    assert expected[0] == 504 % 256
    monkeypatch.setenv(variable, value)
    status, out, err = run(*command)
    assert status == expected[0]
    assert out.startswith("nvattest ")
    (warning,) = (line for line in err.splitlines() if line not in expected[2].splitlines())
    assert warning.startswith("warning: ")
    assert value.partition("/cache")[0] in warning


def test_a_key_in_the_environment_that_no_header_can_carry_is_ignored_and_not_shown(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvattest.cli import attest

    seen = []
    monkeypatch.setattr(attest, "run", lambda options: seen.append(options.service_key) or 0)
    monkeypatch.setenv("NV_ATTESTATION_SERVICE_KEY", "secret\nkey")
    status, _, err = run("attest")
    assert (status, seen) == (0, [""])
    assert err.startswith("warning: NV_ATTESTATION_SERVICE_KEY: ")
    assert "secret" not in err
    monkeypatch.setenv("NV_ATTESTATION_SERVICE_KEY", "secret")
    assert run("attest") == (0, "", "")
    assert seen == ["", "secret"]


def test_what_the_command_names_itself_is_never_ignored(run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("attest", "--tls-ca-cert", "/no/such.pem")[0] == VALIDATION
    # An anchor that a variable names says whom to trust: there is no default for it.
    monkeypatch.setenv("NVATTEST_TRUST_ANCHORS", "/no/such.pem")
    assert run("attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", __file__)[0] == VALIDATION


@pytest.mark.parametrize(
    ("words", "offline"),
    [
        ([], False),
        (["--offline"], True),
        (["--offline=true"], True),
        (["--offline=ON"], True),
        (["--offline=1"], True),
        (["--offline=false"], False),
        (["--offline=0"], False),
        (["--offline", "--offline=no"], False),
        (["--offline=no", "--offline"], True),
        (["--offline", "--"], True),
    ],
)
def test_a_flag_may_have_a_value_as_in_cli11(words: list[str], offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from nvattest.cli import attest, run

    seen = []
    monkeypatch.setattr(attest, "run", lambda options: seen.append(options.offline) or 0)
    assert run(["attest", *words]) == 0
    assert seen == [offline]


@pytest.mark.parametrize(
    ("word", "warned"),
    [
        ("--verify-rim-signatures=true", ""),
        ("--verify-rim-signatures=false", "--no-verify-rim-signatures has no effect"),
        ("--no-verify-rim-cert-chain=true", "--no-verify-rim-cert-chain has no effect"),
        ("--no-verify-rim-cert-chain=false", ""),
    ],
)
def test_a_pair_of_flags_is_read_either_way(run, monkeypatch: pytest.MonkeyPatch, word: str, warned: str) -> None:
    from nvattest.cli import attest

    monkeypatch.setattr(attest, "run", lambda _options: 0)
    status, _, err = run("attest", word)
    assert status == 0
    assert (warned in err) if warned else (err == "")


def test_words_for_another_program_are_left_alone(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from nvattest.cli import simulate

    seen = []
    monkeypatch.setattr(simulate, "run", lambda options: seen.append(options.command) or 0)
    for words in (["--", "prog", "--list=false", "--"], ["prog", "--list=maybe", "--"]):
        assert run("simulate", *words)[0] == 0
    assert [[word for word in words if word != "--"] for words in seen] == [
        ["prog", "--list=false"], ["prog", "--list=maybe"],
    ]  # fmt: skip
    assert all(words[-1] == "--" for words in seen)


def test_two_dashes_with_nothing_behind_them_end_the_options(run) -> None:
    assert run("version", "--")[0] == 0
    assert run("--")[0] == 0
    assert run("policy", "check", __file__, "--")[0] != UNEXPECTED
    assert run("version", "--", "now")[0] == UNEXPECTED


@pytest.mark.parametrize(
    "argv",
    [
        ["bundle", "inspect", "FILE"],
        ["policy", "check", "FILE"],
        ["migrate", "check", "FILE"],
        ["hook", "lint", "FILE"],
    ],
)
@pytest.mark.parametrize("words", [["-f", "json"], ["--format=json", "--log-level", "error"]])
def test_global_options_stand_behind_an_action_too(run, tmp_path: Path, argv: list[str], words: list[str]) -> None:
    path = tmp_path / "some.toml"
    path.write_text(json.dumps(Platform.build("hopper-1").bundle()) if argv[0] == "bundle" else "")
    command = [str(path) if word == "FILE" else word for word in argv]
    status, out, err = run(*words, *command)
    after = run(*command, *words)
    assert (after[0], after[2]) == (status, err)
    # Not the values: some are of the clock.
    assert json.loads(after[1]).keys() == json.loads(out).keys()


def test_version_goes_to_stdout_at_every_log_level(run) -> None:
    for level in ("trace", "info", "error", "off"):
        status, out, err = run("-l", level, "version")
        assert (status, err) == (0, "")
        assert out.startswith("nvattest ")
        assert out.count("\n") == 1


def test_help_goes_to_stdout_with_status_0(run) -> None:
    for argv in ([], ["--help"]):
        status, out, _ = run(*argv)
        assert status == 0
        assert "attest" in out
    with pytest.raises(SystemExit) as caught:
        main(["attest", "--help"])
    assert caught.value.code == 0


def test_options_of_the_device_that_is_not_asked_for_are_ignored(run, real_data: Path) -> None:
    # Two of NVIDIA's own tests depend on it.
    evidence, rims = real_data / "evidence", str(real_data / "rim")
    bundle = ["--at", "2026-11-01T00:00:00Z", "--rim-store", "dir", "--rim-dir", rims, "--offline", "--no-cache"]
    status, out, _ = run(
        "attest", "--device", "gpu", "--gpu-evidence-source", "file",
        "--gpu-evidence-file", str(evidence / "hopper-590.12-single.json"),
        "--nvswitch-evidence-source", "file", "--nvswitch-evidence-file", "/no/such", *bundle,
    )  # fmt: skip
    assert status == 504 % 256
    assert "GPU-0" in out
    status, out, _ = run(
        "attest", "--device", "nvswitch", "--nvswitch-evidence-source", "file",
        "--nvswitch-evidence-file", str(evidence / "ls10-single.json"),
        "--gpu-evidence-source", "file", "--gpu-evidence-file", "/no/such", *bundle,
    )  # fmt: skip
    assert status == 603 % 256
    assert "SWITCH-0" in out


def test_a_file_without_a_source_is_the_evidence_and_no_driver_is_asked(
    run, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvattest.cli.collect._from_driver", lambda *_: pytest.fail("the driver was asked"))
    evidence = real_data / "evidence"
    files = {
        "gpu": ("--gpu-evidence-file", str(evidence / "hgx8-gpu-590.12.json")),
        "nvswitch": ("--nvswitch-evidence-file", str(evidence / "hgx4-switch.json")),
    }
    for kind, counts in (("gpu", "8 GPUs and 0"), ("nvswitch", "0 GPUs and 4"), ("all", "8 GPUs and 4")):
        named = [word for of, words in files.items() if kind in (of, "all") for word in words]
        _, out, _ = run("attest", "-v", "-d", kind, *named, "--offline", "--no-cache")
        assert f"{counts} switches" in out
    assert run("attest", "--gpu-evidence-file", "/no/such")[0] == VALIDATION


def test_a_rim_folder_without_a_store_is_the_store(run, real_data: Path) -> None:
    evidence = str(real_data / "evidence/hopper-550.90.07-nvtrust.json")
    command = [
        "attest",
        "--verbose",
        "--gpu-evidence-file",
        evidence,
        "--offline",
        "--no-cache",
        "--rim-dir",
        str(real_data / "rim"),
    ]
    _, out, _ = run(*command)
    assert "33 of 33 golden values are accounted for" in out
    _, out, _ = run(*command, "--rim-store", "remote")
    assert "is not at hand" in out


def test_one_file_of_both_kinds_is_named_for_both(run, real_data: Path, tmp_path: Path) -> None:
    # What collect-evidence --device all writes. A kind that is missing is not passed over.
    evidence, path = real_data / "evidence", str(tmp_path / "all.json")
    gpus, switches = (
        json.loads((evidence / f"{name}.json").read_bytes()) for name in ("hgx8-gpu-590.12", "hgx4-switch")
    )
    named = ["--gpu-evidence-file", path, "--nvswitch-evidence-file", path, "--offline", "--no-cache"]
    for items, said in ((switches + gpus, "8 GPUs and 4 switches"), (gpus, "no nvswitch in it"), (switches, "no gpu")):
        Path(path).write_text(json.dumps(items))
        status, out, _ = run("attest", "-v", "-d", "all", *named)
        assert said in out
        assert status != 0


def test_a_source_that_is_named_counts_whatever_file_is_named(run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("nvattest.cli.collect._from_driver", lambda kind, *_: asked.append(kind) or ())
    run("attest", "--gpu-evidence-source", "nvml", "--gpu-evidence-file", "/no/such", "--offline", "--no-cache")
    assert len(asked) == 1


def test_attest_with_corelib_is_a_bad_argument_in_the_chosen_format(run) -> None:
    status, out, _ = run(
        "-f", "json", "attest", "--gpu-evidence-source", "corelib", "--gpu-architecture", "blackwell"
    )  # fmt: skip
    assert status == 4
    assert json.loads(out)["result_code"] == 4


def test_a_bad_nonce_is_a_bad_argument_at_run_time(run, real_data: Path) -> None:
    path = str(real_data / "evidence/hopper-590.12-single.json")
    for nonce in ("xyz", "00" * 31, "00" * 33, " " + "00" * 32, "0x"):
        status, out, _ = run(
            "-f", "json", "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", path, "--nonce", nonce
        )
        assert (status, json.loads(out)["result_code"]) == (4, 4), nonce
        assert json.loads(out)["claims"] == {}


def test_a_nonce_with_0x_is_read(run, real_data: Path) -> None:
    path = str(real_data / "evidence/hopper-590.12-single.json")
    _, out, _ = run(
        "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", path, "--nonce", "0x" + "00" * 32,
        "--offline", "--no-cache",
    )  # fmt: skip
    assert "expected  " + "00" * 24 in out


def test_an_argument_that_is_not_utf_8_is_a_clear_mistake(tmp_path: Path) -> None:
    odd = b"caf\xe9"
    for argv, expected in (
        ([b"attest", b"--device", odd], VALIDATION),
        (
            [b"attest", b"--gpu-evidence-source", b"file", b"--gpu-evidence-file", os.fsencode(tmp_path / "no")],
            VALIDATION,
        ),
        ([odd], UNEXPECTED),
        ([b"attest", b"--" + odd], UNEXPECTED),
        ([b"attest", b"--at", odd], VALIDATION),
    ):
        done = subprocess.run([sys.executable, "-m", "nvattest", *argv], capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (expected, b"")
        assert b"Traceback" not in done.stderr


def test_a_nul_in_a_path_is_a_clear_mistake(run) -> None:
    status, out, _ = run("attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", "a\0b")
    assert (status, out) == (VALIDATION, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["gate", "--root", "R", "echo", "ran", "-f", "json", "-h"],
            (["echo", "ran", "-f", "json", "-h"], "R", "text"),
        ),
        (["gate", "--", "echo", "--", "-f", "json"], (["echo", "--", "-f", "json"], "", "text")),
        (["gate", "-f", "json", "--root", "R", "--", "sh", "-c", "x"], (["sh", "-c", "x"], "R", "json")),
        (["-f", "json", "gate", "--", "--", "y"], (["--", "y"], "", "json")),
        (["gate", "--root", "R"], ([], "R", "text")),
        (["gate", "--"], ([], "", "text")),
        (["gate", "--", ""], ([""], "", "text")),
    ],
)
def test_a_command_to_run_begins_at_the_first_word_that_is_no_option(
    words: list[str], expected: tuple[list[str], str, str]
) -> None:
    from nvattest.cli import split_command
    from nvattest.cli.arguments import Parser, add_global_options, command_of
    from nvattest.cli.hook import add_arguments_gate

    parser = Parser(prog="nvattest gate")
    add_arguments_gate(parser)
    add_global_options(parser)
    options = parser.parse_args(split_command(words)[1])
    assert (command_of(options), options.root, options.format) == expected


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["attset"], "did you mean 'attest'?"),
        (["help", "attset"], "did you mean 'attest'?"),
        (["attest", "--polcy", "x"], "did you mean '--policy'?"),
        (["attest", "--polcy=x"], "did you mean '--policy'?"),
        (["bundle", "fetch", "--outptu", "x"], "did you mean '--output'?"),
        (["bundle", "inspct", "x"], "did you mean 'inspect'?"),
        (["attest", "--device", "gpus"], "did you mean 'gpu'?"),
        (["-f", "jsn", "version"], "did you mean 'json'?"),
    ],
)
def test_what_there_is_not_gets_the_word_that_it_may_be_meant_for(run, argv: list[str], said: str) -> None:
    status, out, err = run(*argv)
    assert status in (UNEXPECTED, VALIDATION, REQUIRED)
    assert out == ""
    assert said in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["attest", "--simulate", "hoper-1"], "did you mean 'hopper-1'?"),
        (["simulate", "--platform", "hoper-1", "--", "true"], "did you mean 'hopper-1'?"),
        (["simulate", "hoper-1"], "a platform is named with --platform; did you mean 'hopper-1'?"),
        (["attest", "--simulate", "hopper-1", "--fault", "mesurement"], "did you mean 'measurement'?"),
        (["attest", "--simulate", "hopper-1", "--fault", "gpu0:mesurement"], "did you mean 'measurement'?"),
        (["simulate", "--service-fault", "rim:statu=500", "--", "true"], "did you mean 'status'?"),
    ],
)
def test_simulated_things_get_the_word_that_they_may_be_meant_for(run, argv: list[str], said: str) -> None:
    status, out, err = run(*argv)
    assert status == 4
    assert said in out + err


def test_a_guest_gets_the_word_that_it_may_be_meant_for() -> None:
    with pytest.raises(InputError) as caught:
        SimulatedGuest("spn-milan")
    assert caught.value.hint.startswith("did you mean 'snp-milan'? guests are ")


@pytest.mark.parametrize(("argv", "said"), [(["attest", "help"], "help attest"), (["bundle", "help"], "help bundle")])
def test_help_behind_a_command_names_the_way_to_it(run, argv: list[str], said: str) -> None:
    assert f"nvattest {said}" in run(*argv)[2]


@pytest.mark.parametrize(
    "argv",
    [["{}"], ["help", "{}"], ["attest", "--{}"], ["attest", "-d", "{}"], ["attest", "--policy", "{}"], ["inspect", "{}"],
     ["attest", "--explain={}"], ["attest", "--timeout", "{}"], ["explain", "{}"], ["attest", *["{}"] * 40]],
)  # fmt: skip
def test_a_word_that_is_a_whole_file_is_cut_where_it_is_echoed(run, argv: list[str]) -> None:
    status, out, err = run(*[word.format("x" * 50_000) for word in argv])
    assert status in (4, CONVERSION, VALIDATION, UNEXPECTED, VALUES)
    assert len(out + err) < 1200


@pytest.mark.parametrize("words", [
    ["verify-batch", "--bundle", __file__, "--summary"], ["verify-batch", "--bundle", __file__, "--metrics"],
    ["attest", "--token-out"], ["attest", "--jwks-out"], ["attest", "--bind-tee"], ["explain", "--html"],
    ["bundle", "create", "--output"], ["bundle", "fetch", "--output"], ["bundle", "merge", __file__, "--output"],
    ["hook", "manifest", "--output"], ["hook", "status", "--metrics"], ["collect-evidence", "--additional-evidence"],
])  # fmt: skip
def test_a_dash_names_no_output_file(run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*words, "-")
    assert status == VALIDATION
    assert f"{words[-1]}: - is no name of a file here; write /dev/stdout" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "argv",
    [["attest", "--simulate", "hopper-1"], ["attest"], ["collect-evidence"], ["verify-token", "a.b.c"]],
)
def test_a_nonce_that_cannot_be_read_is_named_with_its_option(run, argv: list[str], tmp_path: Path) -> None:
    words = [str(tmp_path / "token") if word == "a.b.c" else word for word in argv]
    (tmp_path / "token").write_text("e30.e30.AA")
    for nonce in ("12", "zz"):
        _, out, err = run(*words, "--nonce", nonce)
        assert "--nonce: " in out + err


def test_lines_that_are_not_there_are_named_with_their_option(run, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text(json.dumps(Platform.build("hopper-1").bundle()))
    missing = str(tmp_path / "none")
    for argv in (
        ("verify-batch", "--input", missing, "--bundle", str(tmp_path / "bundle")),
        ("bundle", "fetch", "--input", missing, "--output", str(tmp_path / "folder")),
    ):
        assert f"--input: {missing}: No such file" in run(*argv)[2]


def test_a_word_that_is_near_nothing_gets_no_guess(run) -> None:
    assert "did you mean" not in run("attest", "--xyzzy")[2]
    assert "did you mean" not in run("xyzzy")[2]


@pytest.mark.parametrize("argv", [["--version"], ["-V"], ["-f", "text", "--version"], ["-l", "error", "--version"]])
def test_the_version_is_an_option_too(run, argv: list[str]) -> None:
    assert run(*argv) == run("version")
    assert json.loads(run("--version", "-f", "json")[1]) == json.loads(run("version", "-f", "json")[1])


def test_help_is_a_command_too(run) -> None:
    assert run("help") == run("--help")
    for words in (["attest"], ["bundle", "create"]):
        with pytest.raises(SystemExit) as caught:
            main(["help", *words])
        assert caught.value.code == 0


def test_a_time_that_cannot_be_read_shows_how_to_write_it(run) -> None:
    assert "2025-08-21T07:00:00Z" in run("attest", "--at", "yesterday")[2]
    assert "device=TIME,rim=TIME" in run("attest", "--at", "device=2025-08-21T07:00:00Z")[2]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device without room here")
@pytest.mark.parametrize(
    "words", [["attest", "--help"], ["help", "bundle"], ["--help"], [], ["--version"], ["completion", "fish"]]
)
def test_an_output_that_cannot_be_written_is_a_failure(words: list[str]) -> None:
    code = "import sys; from nvattest.cli import main; sys.argv[1:] = sys.argv[1:]; main()"
    with open("/dev/full", "w") as full:
        # Each print would write at once, and fail there, with PYTHONUNBUFFERED.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(
            [sys.executable, "-c", code, *words], stdout=full, stderr=subprocess.PIPE, timeout=60, env=environment
        )
    assert done.returncode == 1
    assert b"could not be written" in done.stderr


@pytest.mark.parametrize(("command", "actions"), [("bundle", "create, fetch, refresh"), ("policy", "check")])
def test_a_missing_action_names_those_that_there_are(run, command: str, actions: str) -> None:
    status, out, err = run(command)
    assert (status, out) == (106, "")
    assert f"ACTION, one of {actions}" in err
    assert "worker" not in err


def test_global_options_beside_help_are_no_command(run) -> None:
    status, out, _ = run("help", "-f", "json")
    assert status == 0
    assert out.startswith("usage: nvattest ")
    with pytest.raises(SystemExit) as ended:
        main(["-f", "json", "help", "attest"])
    assert ended.value.code == 0


def test_evidence_without_its_option_is_refused_with_the_option(run) -> None:
    status, _, err = run("attest", __file__)
    assert status == UNEXPECTED
    assert "--gpu-evidence-file" in err
    assert "--gpu-evidence-file" not in run("attest", "no-such-file")[2]
