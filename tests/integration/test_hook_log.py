"""A log that cannot be written where it should be goes into the run folder, and the verdict's line says so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from .hook_world import NewWorld

SPARE = "run/nvattest/hook.log"


def test_on_a_read_only_var_log_the_log_goes_to_the_run_folder_with_a_word(world: NewWorld) -> None:
    guest = world()
    mount = f"mount -t tmpfs -o ro none '{guest.file('var/log')}'"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, timeout=30).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec '{guest.hook}' prestart"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, guest.ready) == (0, 1)
    [line] = done.stderr.splitlines()
    assert f"(log: {guest.root}/{SPARE}, since {guest.root}/var/log/nvattest: Read-only file system)" in line
    assert '"verdict": "trusted"' in guest.file(SPARE).read_text()
    assert guest.state["log"]["file"] == f"{guest.root}/{SPARE}"


def test_the_log_in_the_run_folder_is_bounded_as_the_other_is(world: NewWorld) -> None:
    guest = world()
    guest.configure(log={"max_bytes": 4096, "keep": 1}, reuse={"max_age": 0})
    guest.file("var/log/nvattest").write_text("a file where the folder should be")
    for _ in range(4):
        assert f"(log: {guest.root}/{SPARE}, since " in guest.run().stderr
    names = sorted(path.name for path in guest.file("run/nvattest").iterdir() if "log" in path.name)
    assert names == ["hook.log", "hook.log.1"]
    # Where the usual place can be written again, nothing more goes to the other.
    guest.file("var/log/nvattest").unlink()
    before = guest.file(SPARE).read_text()
    assert "(log: " not in guest.run().stderr
    assert guest.file(SPARE).read_text() == before
    assert guest.log
    assert guest.state["log"]["file"] == f"{guest.root}/var/log/nvattest/hook.log"


def test_the_record_names_the_log_that_was_written_whether_the_run_succeeds_or_fails(world: NewWorld) -> None:
    guest = world(lies=["gpu0:signature"])
    guest.file("var/log/nvattest").write_text("a file where the folder should be")
    guest.run()
    assert (guest.state["cause"], guest.state["log"]["file"]) == ("not-trusted", f"{guest.root}/{SPARE}")
    # Neither can be written: the record names none.
    guest.file(SPARE).unlink()
    guest.file(SPARE).mkdir()
    guest.run()
    assert (guest.state["cause"], guest.state["log"]["file"]) == ("not-trusted", None)


def test_a_run_folder_that_is_not_believed_takes_no_log_either(world: NewWorld) -> None:
    guest = world()
    guest.file("var/log/nvattest").write_text("a file where the folder should be")
    guest.file("run/nvattest").mkdir()
    guest.file("run/nvattest").chmod(0o777)
    ended = guest.run()
    assert "others may write into it" in ended.stderr
    assert list(guest.file("run/nvattest").iterdir()) == []
    assert guest.ready == 0


def test_all_json_of_the_hook_follows_its_schema(
    world: NewWorld, schemas: dict[str, Any], validate: Callable[[object], Any]
) -> None:
    guest = world("hopper-8-ppcie")
    # A run that attests, one that uses its verdict, one that fails, and one that finds no place to begin.
    guest.run()
    guest.run()
    for name in ("state", "appraisal"):
        validate(json.loads(guest.file(f"run/nvattest/{name}.json").read_text()))
    schemas["urn:nvattest:schema:token-eat:1"].validate(json.loads(guest.token.read_text()))
    schemas["urn:nvattest:schema:jwks:1"].validate(json.loads(guest.file("run/nvattest/jwks.json").read_text()))
    validate(json.loads(guest.run("status", "-f", "json").stdout))
    validate(json.loads(guest.run("check", "-f", "json").stdout))
    guest.file("etc/nvattest/bundle.json").unlink()
    guest.run()
    validate(guest.state)
    validate(json.loads(guest.run("status", "-f", "json").stdout))
    guest.file("run/nvattest").chmod(0o777)
    guest.run()
    lines = [validate(line) for line in guest.summaries]
    assert [(line["verdict"], line.get("reused")) for line in lines] == [
        ("trusted", False), ("trusted", True), ("not-trusted", False), ("not-trusted", None),
    ]  # fmt: skip
