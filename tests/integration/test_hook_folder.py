"""The run folder in the hands of a neighbour: what is in it is believed from nobody but the hook itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nvattest.guest.record import boottime
from nvattest.testing.driver import DriverLibraries

from .hook_world import HookWorld, NewWorld

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
STAGES = [("prestart",), ("--stage", "init"), ("--stage", "watch", "--once")]
STRANGER = 12345


def run_folder(guest: HookWorld, mode: int = 0o755) -> Path:
    folder = guest.file("run/nvattest")
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)
    return folder


def assert_nothing_is_believed(guest: HookWorld, stderr: str, why: str) -> None:
    assert why in stderr
    assert guest.ready == 0
    assert 1 not in guest.server.ready_history
    assert guest.server.calls("nvmlDeviceGetConfComputeGpuAttestationReport") == ()
    assert not guest.token.exists()


def open_to_all(guest: HookWorld) -> str:
    run_folder(guest, 0o777)
    return "run/nvattest: others may write into it (mode 0777)"


def of_another_user(guest: HookWorld) -> str:
    os.chown(run_folder(guest), STRANGER, STRANGER)
    return f"run/nvattest: it belongs to user {STRANGER}"


def a_link(guest: HookWorld) -> str:
    guest.file("tmp/elsewhere").mkdir()
    guest.file("run/nvattest").symlink_to("../tmp/elsewhere")
    return "run/nvattest: it is a symbolic link"


def below_an_open_folder(guest: HookWorld) -> str:
    run_folder(guest)
    guest.file("run").chmod(0o777)
    return "run: all users may write into it (mode 0777)"


@pytest.mark.parametrize("words", STAGES)
@pytest.mark.parametrize(
    "make", [open_to_all, pytest.param(of_another_user, marks=as_root), a_link, below_an_open_folder]
)
def test_a_run_folder_of_others_is_neither_read_nor_written(
    world: NewWorld, make: Callable[[HookWorld], str], words: tuple[str, ...]
) -> None:
    guest = world()
    guest.configure(on_failure="block")
    guest.server.change(ready=1)
    why = make(guest)
    ended = guest.run(*words)
    assert ended.status == 8
    assert_nothing_is_believed(guest, ended.stderr, why)
    assert list(guest.file("run/nvattest").iterdir()) == []


def forge(guest: HookWorld, verdict: str, mode: int) -> None:
    """A good verdict of this boot, these devices and these settings, in a folder that anybody may write into.

    It is taken from a twin of this guest that was attested: an attacker can compute all of it.
    """
    whole = json.loads(guest.file("run/nvattest/state.json").read_text())
    whole |= {
        "verdict": verdict, "cause": "ok", "reason": None, "finished_boottime": boottime() - 1,
        "valid_until_boottime": 1e12, "log": {"file": str(guest.file("victim")), "maximum": 4096, "keep": 0, "kmsg": False},
    }  # fmt: skip
    guest.file("run/nvattest/state.json").write_text(json.dumps(whole))
    run_folder(guest, mode)
    guest.server.change(ready=0)


@pytest.mark.parametrize("verdict", ["trusted", "no-gpu"])
def test_a_forged_verdict_starts_no_workload(world: NewWorld, verdict: str) -> None:
    guest = world()
    guest.run()
    forge(guest, verdict, 0o777)
    done = subprocess.run(
        [sys.executable, "-m", "nvattest", "gate", "--root", str(guest.root), "--", "echo", "through"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (8, "")
    assert "others may write into it" in done.stderr
    assert guest.ready == 0
    assert not guest.file("victim").exists()


def test_no_gpu_is_never_believed_from_a_record(world: NewWorld) -> None:
    guest = world()
    guest.run()
    # In a folder that is ours: the configuration does not allow it, and there is one on the bus.
    forge(guest, "no-gpu", 0o755)
    assert guest.run("--stage", "init").status == 0
    assert guest.state["verdict"] == "trusted"
    assert guest.ready == 1
    guest.configure(allow_no_gpu=True)
    guest.run()
    forge(guest, "no-gpu", 0o755)
    guest.run("--stage", "init")
    assert guest.state["verdict"] == "trusted"


def test_no_log_setting_is_taken_from_a_record(world: NewWorld) -> None:
    guest = world()
    guest.run()
    first = guest.state["run"]
    forge(guest, "trusted", 0o755)
    guest.run()
    assert (guest.state["run"], guest.summaries[-1]["reused"]) == (first, True)
    assert not guest.file("victim").exists()
    assert guest.kernel_log[-1].startswith("<5>nvattest-hook: attestation successful")


def test_a_configured_log_is_used_by_a_verdict_that_is_used_again_too(world: NewWorld) -> None:
    guest = world()
    guest.configure(log={"file": "/var/log/other.log", "kmsg": False})
    guest.run()
    guest.run()
    lines = [json.loads(line) for line in guest.file("var/log/other.log").read_text().splitlines() if line[0] == "{"]
    assert [item["reused"] for item in lines] == [False, True]
    assert guest.kernel_log == []
    assert not guest.file("var/log/nvattest").exists()


@pytest.mark.parametrize("name", ["state.json", "lock", "token.json", "jwks.json", "appraisal.json"])
def test_a_pipe_in_the_place_of_a_file_holds_nothing_up(world: NewWorld, name: str) -> None:
    guest = world()
    guest.configure(on_failure="block")
    os.mkfifo(run_folder(guest) / name)
    ended = guest.run()
    if name == "lock":
        assert ended.status == 8
        assert "lock: not a regular file" in ended.stderr
        assert guest.ready == 0
        return
    assert ended.status == 0
    assert guest.ready == 1
    assert guest.file(f"run/nvattest/{name}").is_file()


def test_a_pipe_in_the_place_of_the_log_holds_nothing_up(world: NewWorld) -> None:
    guest = world()
    guest.file("var/log/nvattest").mkdir()
    os.mkfifo(guest.file("var/log/nvattest/hook.log"))
    ended = guest.run()
    assert ended.status == 0
    assert "(log: " in ended.stderr
    assert guest.ready == 1


def test_a_log_folder_that_leads_elsewhere_is_not_followed(world: NewWorld) -> None:
    guest = world()
    guest.file("tmp/elsewhere").mkdir()
    guest.file("tmp/elsewhere/hook.log").write_text("precious\n")
    guest.file("var/log/nvattest").symlink_to("../../tmp/elsewhere")
    ended = guest.run()
    assert "it is a symbolic link" in ended.stderr
    assert guest.file("tmp/elsewhere/hook.log").read_text() == "precious\n"
    assert guest.ready == 1


def test_hook_status_neither_believes_nor_waits_for_what_others_wrote(world: NewWorld) -> None:
    guest = world()
    guest.run()
    forge(guest, "trusted", 0o777)
    done = status(guest)
    assert done.returncode == 1
    assert "others may write into it" in done.stdout
    assert "Last verdict: unknown" in done.stdout
    command = [sys.executable, "-m", "nvattest", "hook", "check", "--root", str(guest.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "ERROR   ran: what the hook wrote is not believed" in done.stdout
    guest.file("run/nvattest/state.json").unlink()
    os.mkfifo(guest.file("run/nvattest/state.json"))
    run_folder(guest)
    started = time.monotonic()
    assert "Last verdict: unknown" in status(guest).stdout
    assert time.monotonic() - started < 30


AS_ANOTHER_USER = """
import os, sys
from nvattest.guest.config import Paths
from nvattest.guest.status import hook_status, render_status
paths = Paths(sys.argv[1])
hook_status(paths)  # imports what it needs
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
print(render_status(hook_status(paths)))
"""


@as_root
def test_another_user_sees_the_verdict_and_what_that_user_may_not_read(libraries: DriverLibraries) -> None:
    with tempfile.TemporaryDirectory() as place:  # where another user can come; tmp_path is the caller's alone
        Path(place).chmod(0o755)
        guest = HookWorld(Path(place), libraries)
        try:
            guest.run()
            done = subprocess.run(
                [sys.executable, "-c", AS_ANOTHER_USER, place], capture_output=True, text=True, timeout=60
            )
        finally:
            guest.close()
    assert "Last verdict: trusted" in done.stdout, done.stderr
    assert "Whether the verdict stands is not known: its token cannot be read by this user" in done.stdout
    assert "The verdict does not stand" not in done.stdout


def status(guest: HookWorld) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nvattest", "hook", "status", "--root", str(guest.root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("lies", [[], ["gpu0:signature"]])
def test_what_a_killed_run_left_beside_its_files_goes_with_the_next_run(world: NewWorld, lies: list[str]) -> None:
    guest = world(lies=lies)
    for name in ("state.json", "token.json", "jwks.json", "appraisal.json"):
        (run_folder(guest) / f".{name}.new").write_text("half of a file, such as a token")
    guest.run()
    left = {path.name for path in run_folder(guest).iterdir()}
    assert left <= {"state.json", "token.json", "jwks.json", "appraisal.json", "lock"}
    assert ("token.json" in left) is (not lies)


@pytest.mark.parametrize("words", [("--stage", "init"), ("--stage", "watch", "--once")])
def test_a_lock_that_cannot_be_opened_leaves_no_token_of_gpus_that_are_not_ready_any_more(
    world: NewWorld, words: tuple[str, ...]
) -> None:
    guest = world()
    guest.run()
    assert guest.token.exists()
    lock = guest.file("run/nvattest/lock")
    lock.unlink()
    lock.symlink_to("/dev/null")
    guest.load_driver()
    assert guest.run(*words).status == 8
    assert guest.ready == 0
    assert not guest.token.exists()
