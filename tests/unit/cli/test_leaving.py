"""The installed program ends its process at once, and loses nothing by it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_START = "import sys; sys.argv = ['nvattest', 'version']; from nvattest.cli import main; "


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _START + code], capture_output=True, text=True, timeout=60)


def test_output_and_status_survive_a_pipe() -> None:
    done = run("main(); print('not reached')")
    assert done.returncode == 0
    assert "nvattest" in done.stdout
    assert "not reached" not in done.stdout


def test_a_failure_keeps_its_status() -> None:
    done = run("sys.argv[1] = 'no-such-command'; main()")
    assert done.returncode == 109
    assert "no-such-command" in done.stderr


def test_what_was_to_run_at_the_end_runs_once() -> None:
    done = run("import atexit; atexit.register(print, 'the end'); sys.exit(main())")
    assert done.stdout.count("the end") == 1


@pytest.mark.parametrize(
    "busy",
    ["import threading; threading.Thread(target=lambda: (started.wait(), print('thread done'))).start()"],
)
def test_a_thread_that_still_works_is_waited_for(busy: str) -> None:
    done = run(
        f"import threading; started = threading.Event(); {busy}; status = main(); started.set(); sys.exit(status)"
    )
    assert done.returncode == 0
    assert "thread done" in done.stdout


def test_called_with_arguments_it_returns() -> None:
    done = run("status = main(['version']); print('back with', status)")
    assert "back with 0" in done.stdout
