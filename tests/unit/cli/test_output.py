"""The account of ``attest`` on a terminal: colour where there is some, and the same words."""

from __future__ import annotations

import re
import sys
from io import StringIO

import pytest

from nvattest.cli import main
from nvattest.report.reading import AppraisalView, CheckView
from nvattest.report.terminal import Terminal
from nvattest.report.text import account


class Tty(StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def attest(monkeypatch: pytest.MonkeyPatch, stream: StringIO, *options: str) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    main(["attest", "--simulate", "hopper-1", *options])
    return stream.getvalue()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_gets_colour_and_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    nonce = ("--nonce", "11" * 32, "--fault", "gpu0:measurement=9")
    coloured, plain = attest(monkeypatch, Tty(), *nonce), attest(monkeypatch, StringIO(), *nonce)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert "  \x1b[31mFAIL\x1b[0m   15  the measurements match" in coloured
    assert "Result: \x1b[1;31mNOT TRUSTED\x1b[0m (simulated)" in coloured
    assert "\x1b[33m*** SIMULATED: this proves nothing ***\x1b[0m" in coloured


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_can_be_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert "\x1b" not in attest(monkeypatch, Tty())


def test_words_of_a_detail_stay_plain() -> None:
    check = CheckView(
        id="report-format", step=1, title="the report reads", outcome="pass", detail="ok FAIL Result: TRUSTED",
        acceptable=True,
    )  # fmt: skip
    lines = account(AppraisalView(checks=(check,)), Terminal(color=True)).split("\n")
    assert "  \x1b[32mok\x1b[0m      1  the report reads: ok FAIL Result: TRUSTED" in lines
