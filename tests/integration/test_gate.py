"""A command behind ``gate`` or ``simulate`` finds the process as its caller made it: signals, descriptors, arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .hook_world import HookWorld, NewWorld

GATE = "{python} -m nvattest gate --root {root}"
VERDICT = "nvattest-hook: attestation successful"


@pytest.fixture
def guest(world: NewWorld) -> HookWorld:
    return world()


def shell(guest: HookWorld, line: str) -> subprocess.CompletedProcess[str]:
    gate = GATE.format(python=sys.executable, root=guest.root)
    return subprocess.run(
        ["sh", "-c", line.replace("GATE", gate)], capture_output=True, text=True, timeout=60, check=False
    )


def ignored(text: str) -> int:
    return int(text.split("SigIgn:")[1].split(maxsplit=1)[0], 16)


def test_a_command_ignores_no_signal_that_its_caller_does_not_ignore(guest: HookWorld) -> None:
    plain = shell(guest, "cat /proc/self/status")
    through = shell(guest, "GATE -- cat /proc/self/status")
    assert through.returncode == 0, through.stderr
    assert ignored(through.stdout) == ignored(plain.stdout)
    simulated = subprocess.run(
        [sys.executable, "-m", "nvattest", "simulate", "--platform", "hopper-1", "cat", "/proc/self/status"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ignored(simulated.stdout) == ignored(plain.stdout)
    asked = shell(guest, "trap '' HUP; GATE -- cat /proc/self/status")
    assert ignored(asked.stdout) == ignored(plain.stdout) | 1


def test_a_command_whose_reader_goes_away_ends(guest: HookWorld) -> None:
    gate = GATE.format(python=sys.executable, root=guest.root).split()
    with subprocess.Popen([*gate, "--", "yes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(2)
        process.stdout.close()
        assert process.wait(60) == -13
        assert "Broken pipe" not in process.stderr.read().decode()


def test_a_closed_stderr_does_not_send_the_verdict_into_the_output_of_the_command(guest: HookWorld) -> None:
    done = shell(guest, "GATE -- echo through 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "through\n", "")
    hook = f"'{guest.hook}'"
    assert shell(guest, f"{hook} --stage init 2>&-").stdout == ""
    assert shell(guest, f"{hook} gate -- echo through 2>&-").stdout == "through\n"


@pytest.mark.parametrize(("closed", "number"), [("<&-", 0), (">&-", 1), ("2>&-", 2)])
def test_a_descriptor_that_is_closed_is_closed_for_the_command_too(guest: HookWorld, closed: str, number: int) -> None:
    look = guest.root / "tmp" / "look"
    look.write_text(f"import os\ntry: os.fstat({number}); seen = 'open'\nexcept OSError: seen = 'closed'\n"
                    f"open({str(look)!r} + '.seen', 'w').write(seen)\n")  # fmt: skip
    done = shell(guest, f"GATE -- {sys.executable} -S {look} {closed}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert Path(f"{look}.seen").read_text() == "closed"
    assert done.stdout == ""


def test_an_empty_command_is_refused_before_anything_is_asked(guest: HookWorld) -> None:
    done = shell(guest, "GATE -- ''")
    assert done.returncode == 106
    assert "a command is required" in done.stderr
    layer = guest.run("gate", "--", "")
    assert layer.status == 2
    assert "gate needs a command" in layer.stderr
    assert guest.ready == 0
    assert not guest.file("run/nvattest/state.json").exists()


def test_options_of_the_command_are_its_own_without_the_two_hyphens_too(guest: HookWorld) -> None:
    assert shell(guest, "GATE echo ran -f json --root /x -h").stdout == "ran -f json --root /x -h\n"
    assert shell(guest, "GATE -- echo -- -f json").stdout == "-- -f json\n"
    assert shell(guest, "GATE -f json -- echo ran -l off").stdout == "ran -l off\n"
    simulated = subprocess.run(
        [sys.executable, "-m", "nvattest", "simulate", "--platform", "hopper-1", "echo", "ran", "-f", "json"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert simulated.stdout == "ran -f json\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_status_and_check_say_that_nobody_got_their_answer(guest: HookWorld) -> None:
    guest.run("--stage", "init")
    for command in ("status", "check"):
        done = shell(guest, f"'{guest.hook}' {command} > /dev/full")
        assert done.returncode == 8
        assert done.stderr == "nvattest-hook: the result could not be written: No space left on device\n"
