"""The help: one screen for the whole program, and a working one for each command."""

from __future__ import annotations

import pytest

from nvattest.cli import COMMANDS, MOST_USED, STATUSES, command_parser, main, overview
from nvattest.cli.manual import escape, pages


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["-f", "json", "--help"]])
def test_the_help_fits_a_screen_and_shows_the_most_used_commands_first(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    lines = text.rstrip("\n").split("\n")
    assert len(lines) <= 23, "one line is left for the prompt"
    assert max(len(line) for line in lines) <= 80
    places = [text.index(f"\n  {name}") for name in MOST_USED]
    assert places == sorted(places)
    assert places[-1] < text.index("also:")
    for name in COMMANDS:
        assert name in text


def test_the_help_still_fits_with_twice_as_many_commands() -> None:
    many = {**COMMANDS, **{f"command-{index}": ("m", "t") for index in range(len(COMMANDS))}}
    assert len(overview(many).split("\n")) <= 24


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"nvattest {name}" in text


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_help_and_man_page_says_what_the_exit_status_means(name: str) -> None:
    help_text, page = command_parser(name).format_help(), pages()[f"nvattest-{name}.1"]
    assert "Exit status: " in help_text
    assert ".SH EXIT STATUS" in page
    for status, meaning in STATUSES[name]:
        assert f"{status} {meaning}".strip() in " ".join(help_text.split())
        assert escape(meaning) in page
    assert STATUSES.keys() == COMMANDS.keys()


def test_a_wrong_global_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nonsense"]) == 109
    assert main(["-f", "xml"]) == 105
    assert "xml" in capsys.readouterr().err
