"""An option that has no effect is said on stderr, and options of ours that contradict each other are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nvattest.cli import attest as command
from nvattest.cli import main
from nvattest.cli import verify_token as token_command

HERE = str(Path(__file__).parent)


def warnings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    """What attest, or verify-token, warns of; nothing is collected, asked or verified."""
    from nvattest.cli.attest import Result
    from nvattest.errors import ResultCode

    monkeypatch.setattr(command, "_local", lambda _request: Result(ResultCode.OK, []))
    monkeypatch.setattr(command, "_remote", lambda _request, _remote: Result(ResultCode.OK, []))
    monkeypatch.setattr(token_command, "_read_token", lambda _path: b"none")
    capsys.readouterr()
    main(list(argv))
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("warning: ").split(" is ignored: ")[0] for line in lines if "is ignored" in line]


FILE = ("--gpu-evidence-file", __file__)
IGNORED: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "switch files without --device all": (
        (*FILE, "--nvswitch-evidence-file", __file__), ["--nvswitch-evidence-file"],
    ),
    "GPU files for switches alone": (
        ("-d", "nvswitch", "--nvswitch-evidence-file", __file__, *FILE), ["--gpu-evidence-file"],
    ),
    "a file beside another source": (("--gpu-evidence-source", "nvml", *FILE), ["--gpu-evidence-file"]),
    "an architecture without corelib": (("--gpu-architecture", "blackwell"), ["--gpu-architecture"]),
    "driver options with files": (
        (*FILE, "--allow-devtools", "--driver-timeout", "3"), ["--allow-devtools", "--driver-timeout"],
    ),
    "services beside a bundle": (
        (*FILE, "--bundle", __file__, "--rim-url", "https://a.example", "--timeout", "3", "--cache-dir", "/c"),
        ["--rim-url", "--timeout", "--cache-dir"],
    ),
    "services offline": ((*FILE, "--offline", "--ocsp-url", "https://a.example"), ["--ocsp-url"]),
    "a folder of RIMs with the remote store": (("--rim-store", "remote", "--rim-dir", HERE), ["--rim-dir"]),
    "a service that does not verify": (("--nras-url", "https://a.example", "--accept-simulated"),
                                       ["--nras-url", "--accept-simulated"]),
    "collateral for a service": (
        ("--verifier", "remote", *FILE, "--rim-url", "https://a.example", "--no-cache"), ["--rim-url", "--no-cache"],
    ),
    "revocation for no policy": (("--cached-revocation",), ["--cached-revocation"]),
    "a token that is not made": (("--issuer", "me", "--token-lifetime", "60"), ["--issuer", "--token-lifetime"]),
    "a quote that is not made": (("--tsm-root", "/t"), ["--tsm-root"]),
    "text options of JSON": (("-f", "json", "--explain", "--verbose"), ["--explain", "--verbose"]),
    "limits of a simulation": (("--simulate", "--driver-timeout", "3"), ["--driver-timeout"]),
    "modes of a device in a simulation": (("--simulate", "--allow-devtools"), ["--allow-devtools"]),
    "nothing": ((*FILE, "--bundle", __file__, "--offline", "--no-cache", "--verbose"), []),
    "a flag taken back": (("--cached-revocation", "--cached-revocation=false"), []),
}  # fmt: skip


@pytest.mark.parametrize("name", IGNORED)
def test_attest_says_which_option_has_no_effect(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, expected = IGNORED[name]
    assert sorted(warnings(monkeypatch, capsys, "attest", *argv)) == sorted(expected)
    assert warnings(monkeypatch, capsys, "-l", "error", "attest", *argv) == []


def test_a_key_set_without_its_token_is_said_to_be_of_no_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, said = ["attest", "--simulate", "hopper-1", "--jwks-out", str(tmp_path / "jwks")], "no token goes out"
    assert main(words) == 0
    assert said in capsys.readouterr().err
    for more in (["--token-out", str(tmp_path / "token")], ["-f", "json"]):
        assert main([*words, *more]) == 0
        assert said not in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["completion", "fish"], ["gate"]])
def test_a_format_that_an_output_cannot_have_is_said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["-f", "json", *argv])
    assert "warning: --format is ignored: " in capsys.readouterr().err


def test_verify_token_says_which_option_has_no_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("verify-token", "--nonce", "00" * 32)
    assert warnings(monkeypatch, capsys, *common, "--rim-url", "https://a.example", "--verifier", "local") == [
        "--verifier", "--rim-url",
    ]  # fmt: skip
    assert warnings(monkeypatch, capsys, *common, "--jwks", "keys.json", "--service-key", "k") == ["--service-key"]
    assert warnings(monkeypatch, capsys, *common, "--jwks", "https://a.example/k", "--service-key", "k") == []


def test_preflight_says_that_no_driver_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    main(["preflight", "--rim-id", "NV_GPU_DRIVER_GH100_590.12", "-d", "all", "--offline", "--no-cache"])
    assert "warning: --device is ignored: " in capsys.readouterr().err


def test_explain_says_which_option_has_no_effect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = tmp_path / "result"
    result.write_text('{"result_code": 12, "result_message": "no"}')
    for words in (["104"], [str(result)]):
        assert main(["explain", *words, "--all", "--device", "GPU-0"]) == 0
        err = capsys.readouterr().err
        assert "warning: --all is ignored: " in err
        assert "warning: --device is ignored: " in err


@pytest.mark.parametrize(
    "argv",
    [
        ["attest", "--bundle", __file__, "--rim-dir", HERE],
        ["attest", "--no-cache", "--cache-dir", "/c"],
        ["attest", "--no-cache", "--cached-revocation"],
        ["preflight", "--no-cache", "--cache-dir", "/c"],
        ["attest", "--refuse-weakened"],
        ["attest", "--fault", "gpu0:wrong-key"],
    ],
)
def test_options_of_ours_that_contradict_each_other_are_refused(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 105
    assert "--" in capsys.readouterr().err


def test_a_warning_leaves_the_output_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-f", "json", "attest", "--simulate", "hopper-1", "--explain"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["result_code"] == 0
    assert said.err.splitlines()[0].startswith("warning: --explain is ignored: ")


def test_the_simulation_lists_without_a_command_and_in_one_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--list", "hopper"]) == 105
    assert "--list runs no command: hopper" in capsys.readouterr().err
    assert main(["-f", "json", "simulate", "--list"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("platforms ")
    assert "warning: --format is ignored" in said.err


@pytest.mark.parametrize("read", ["--gpu-evidence-file", "--bundle", "--signing-key", "--trust-anchors"])
@pytest.mark.parametrize("written", ["--token-out", "--jwks-out"])
def test_no_output_is_written_over_a_file_that_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], read: str, written: str
) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("file")
    os.link(tmp_path / "file", tmp_path / "name")
    for name in ("file", "link", "name"):
        assert main(["attest", read, str(tmp_path / "file"), written, str(tmp_path / name)]) == 105
        assert f"{written} and {read} are one file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "words",
    [
        ("attest", "--token-out", "@file", "--bind-tee", "@file"),
        ("attest", "--nvswitch-evidence-file", "@file", "--bind-tee", "@file"),
        ("collect-evidence", "--runtime-data", "@file", "--additional-evidence", "@file"),
        ("explain", "@file", "--html", "@file"),
        ("verify-batch", "--bundle", "@file", "--summary", "@file"),
    ],
)
def test_no_command_writes_over_what_another_of_its_options_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("kept")
    assert main([word.replace("@", f"{tmp_path}/") for word in words]) == 105
    assert f"are one file: {tmp_path}/file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


def test_where_the_working_folder_is_gone_an_output_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-f", "json", "attest", "--simulate", "hopper-1"]) == 0
    (tmp_path / "result.json").write_text(capsys.readouterr().out)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["explain", f"{tmp_path}/result.json", "--html", "page.html"]) == 4
    assert "page.html: No such file or directory" in capsys.readouterr().err


def test_a_token_and_its_key_go_into_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "--token-out", str(tmp_path / "new"), "--jwks-out", f"{tmp_path}/./new"]) == 105
    assert "--jwks-out and --token-out are one file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
