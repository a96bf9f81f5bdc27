"""The account of ``attest`` on a terminal: colour where there is some, and the same words."""

from __future__ import annotations

import re
import sys
from io import StringIO

import pytest

from nvattest.cli import main
from nvattest.report.reading import AppraisalView, Checks, CheckView
from nvattest.report.terminal import Terminal
from nvattest.report.text import account, ranges


class Tty(StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


class Pipe(StringIO):
    encoding = "utf-8"  # type: ignore[assignment]


def attest(monkeypatch: pytest.MonkeyPatch, stream: StringIO, *options: str) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    main(["attest", "--simulate", "hopper-1", *options])
    return stream.getvalue()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def test_a_terminal_gets_colour_and_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    nonce = ("--nonce", "11" * 32, "--fault", "gpu0:measurement=9")
    coloured, plain = attest(monkeypatch, Tty(), *nonce), attest(monkeypatch, Pipe(), *nonce)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert "1. GPU-0  \x1b[0m\x1b[31;1mfailed check: the measurements match" in coloured
    every = attest(monkeypatch, Tty(), *nonce, "--verbose")
    assert "  \x1b[31mFAIL\x1b[0m   15  the measurements match" in every
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
    lines = account(AppraisalView(checks=Checks([check])), Terminal(color=True)).split("\n")
    assert "  \x1b[32mok\x1b[0m      1  the report reads: ok FAIL Result: TRUSTED" in lines


HGX = {
    "a revoked GPU": ["gpu3:revoked=1"],
    "a measurement that differs": ["gpu3:measurement=9"],
    "another nonce everywhere": ["gpu*:other-nonce", "switch*:other-nonce"],
    "a revoked signer of RIMs": ["driver-rim:revoked=1"],
}


@pytest.mark.parametrize("name", list(HGX))
def test_one_cause_on_twelve_devices_fits_a_screen_and_names_devices_check_reason_and_step(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = [word for fault in HGX[name] for word in ("--fault", fault)]
    assert main(["attest", "--simulate", "hopper-8-ppcie", "--nonce", "11" * 32, *faults]) != 0
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert len(lines) <= 23, "one line is left for the prompt"
    assert max(map(len, lines)) <= 80
    text = " ".join(line.strip() for line in lines)
    (cause,) = (line for line in lines if line.startswith("1. "))
    assert "failed check: " in cause
    assert ("GPU-3" if name == "a measurement that differs" else "GPU-") in cause
    for word in ("likely: ", "next: ", "All checks: --verbose", "nvattest explain ", "Result: NOT TRUSTED (simulated)"):
        assert word in text
    assert not any(line.startswith("2. ") for line in lines)


def test_every_cause_is_named_and_those_beyond_the_screen_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    lies = ("gpu0:measurement=9", "gpu1:measurement=11", "gpu2:other-nonce", "gpu3:measurement=4", "gpu4:measurement=3")
    faults = [word for lie in lies for word in ("--fault", lie)]
    assert main(["attest", "--simulate", "hopper-8-ppcie", *faults]) != 0
    out = capsys.readouterr().out
    assert [f"{number}. " in out for number in (1, 4, 5)] == [True, True, False]
    assert "more: " in out
    for label in ("GPU-0", "GPU-1", "GPU-2", "GPU-3"):
        assert label in out


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], []),
        (["GPU-0"], ["GPU-0"]),
        (["GPU-0", "GPU-1"], ["GPU-0", "GPU-1"]),
        (["GPU-0", "GPU-1", "GPU-2", "GPU-4", "SWITCH-5", "SWITCH-6", "SWITCH-7"], ["GPU-0 to GPU-2", "GPU-4", "SWITCH-5 to SWITCH-7"]),
        (["PLATFORM", "device 0", "device 1"], ["PLATFORM", "device 0", "device 1"]),
        (["GPU-9", "GPU-10", "GPU-11"], ["GPU-9 to GPU-11"]),
    ],
)  # fmt: skip
def test_labels_that_follow_each_other_are_joined(labels: list[str], said: list[str]) -> None:
    assert ranges(labels) == said
