"""Shell completion and man pages: written from the parsers, accepted by the shells that are here."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from nvattest.cli import COMMANDS, main
from nvattest.cli.manual import SHELLS, all_commands, escape, pages, script, walk
from nvattest.cli.manual import main as write_pages


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_every_command_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for command in walk(all_commands()):
        assert command.path[-1] in text
        for option in (argument for argument in command.arguments if argument.names):
            for name in option.names:
                assert (name if shell != "fish" else name.lstrip("-")) in text, (command.path, name)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_good_syntax(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    result = subprocess.run(
        [program, "-n"], input=script(shell), text=True, capture_output=True, timeout=30, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@cache
def bash_script() -> str:
    return script("bash")


def bash_completes(*words: str) -> list[str]:
    program = shutil.which("bash")
    if program is None:
        pytest.skip("there is no bash here")
    quoted = " ".join(f"'{word}'" for word in words)
    code = f"{bash_script()}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _nvattest; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    result = subprocess.run([program, "-c", code], text=True, capture_output=True, timeout=30, check=True)
    return result.stdout.split()


def test_bash_completes_commands_options_actions_and_values() -> None:
    assert bash_completes("nvattest", "att") == ["attest"]
    assert "--bundle" in bash_completes("nvattest", "attest", "--b")
    assert set(bash_completes("nvattest", "bundle", "")) >= {"create", "inspect", "merge"}
    assert "--rim-dir" in bash_completes("nvattest", "bundle", "create", "--rim")
    assert bash_completes("nvattest", "attest", "--device", "") == ["gpu", "nvswitch", "all"]
    assert bash_completes("nvattest", "-f", "json", "explain", "meas") == ["measurements"]
    assert bash_completes("nvattest", "completion", "")[:3] == ["bash", "zsh", "fish"] or "bash" in bash_completes(
        "nvattest", "completion", "b"
    )


def test_bash_completes_simulated_platforms_and_faults() -> None:
    assert "hopper-8-ppcie" in bash_completes("nvattest", "simulate", "--platform", "hopper-8")
    assert "hopper-1" in bash_completes("nvattest", "attest", "--simulate", "hopper")
    assert "gpu0:measurement" in bash_completes("nvattest", "attest", "--fault", "gpu0:meas")
    assert "driver-rim:wrong-product" in bash_completes("nvattest", "simulate", "--fault", "driver-rim:wrong-p")


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 105
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_there_is_a_man_page_for_the_program_and_each_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_pages([str(tmp_path / "man")]) == 0
    written = {path.name for path in (tmp_path / "man").iterdir()}
    assert written == {"nvattest.1", *(f"nvattest-{name}.1" for name in COMMANDS)}
    assert "nvattest.1" in capsys.readouterr().out
    assert write_pages([]) == 106


def test_a_man_page_names_every_option_and_no_text_becomes_a_request() -> None:
    text = pages()["nvattest-attest.1"]
    for command in all_commands():
        if command.path == ("attest",):
            for option in (argument for argument in command.arguments if argument.names):
                assert escape(option.names[-1]) in text
    assert escape(".TH evil\n'x \\fB") == "\\&.TH evil\n\\&'x \\efB"


def test_what_the_program_starts_for_itself_is_in_no_page_and_no_completion() -> None:
    from nvattest.cli.manual import all_commands, pages, walk

    assert ("policy", "worker") not in {command.path for command in walk(all_commands())}
    assert "worker" not in pages()["nvattest-policy.1"]


def test_the_page_that_man_finds_for_the_hook_has_its_options_too() -> None:
    text = pages()["nvattest-hook.1"]
    for words in ("nvattest-hook --stage watch", "--config FILE    the configuration", "143 terminated"):
        assert escape(words) in text


def test_man_reads_the_pages_without_warnings(tmp_path: Path) -> None:
    program = shutil.which("groff") or shutil.which("mandoc")
    if program is None:
        pytest.skip("there is neither groff nor mandoc here")
    arguments = ["-man", "-Tascii", "-ww"] if program.endswith("groff") else ["-Tlint"]
    for name, text in pages().items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        result = subprocess.run(
            [program, *arguments, str(path)], capture_output=True, text=True, timeout=30, check=False
        )
        assert result.stderr == "", name
