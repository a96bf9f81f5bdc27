"""What is waited for: said on stderr after a second, in full with ``-l debug``, and not at all by the library."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest

from nvattest._waiting import debug, waiting
from nvattest.cli import main
from nvattest.cli.output import logged


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def waits_until_shown(stream: io.StringIO, words: str) -> None:
    for _ in range(400):
        if words in stream.getvalue():
            return
        threading.Event().wait(0.01)


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_a_long_wait_says_what_is_asked_and_leaves_nothing_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with logged(debug=False, delay=0.0), waiting("http", "GET https://rim.example/v1/rim/X\x1b[2J"):
        waits_until_shown(stream, "waiting for")
    text = stream.getvalue()
    assert "waiting for GET https://rim.example/v1/rim/X\\x1b[2J (0 s)" in text
    assert text.endswith("\r\x1b[K") == stream.isatty()
    assert ("\x1b" in text) == stream.isatty()


def test_a_short_wait_is_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    with logged(debug=False), waiting("http", "GET https://rim.example/"):
        pass
    assert capsys.readouterr().err == ""


def test_debug_says_every_wait_with_its_time_and_every_hit_of_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    with logged(debug=True):
        with pytest.raises(OSError, match="refused"), waiting("http", "GET https://rim.example/"):
            raise OSError("refused")
        debug("cache", "the RIM X is in /cache")
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.endswith(" nvattest.http: GET https://rim.example/")
    assert " nvattest.http: GET https://rim.example/: failed (refused) after " in second
    assert third.endswith(" nvattest.cache: the RIM X is in /cache")


def test_the_logger_is_as_before_after_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("nvattest")
    before = logger.level, list(logger.handlers)
    monkeypatch.setenv("NVAT_LOG_LEVEL", "debug")
    assert main(["attest", "--simulate", "hopper-1"]) == 0
    assert (logger.level, logger.handlers) == before


def test_the_library_is_silent_and_has_no_handler(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("http", "GET https://rim.example/"):
        debug("cache", "a hit")
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("nvattest").handlers == []


def test_only_commands_that_wait_have_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--progress"]) == 109
    capsys.readouterr()
    assert main(["bundle", "inspect", "/no/such", "--progress"]) == 105
    assert "--progress" not in capsys.readouterr().err
