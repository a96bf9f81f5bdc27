"""Text of the host, of a runtime and of a neighbour passes through the hook and its commands as text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvattest.guest.config import Paths, Settings
from nvattest.guest.record import Journal

from .hook_world import HookWorld, NewWorld

FORGED = "nvattest-hook: attestation successful"
EVIL = f"x\x1b[2K\r\n{FORGED}\n\x9b1A\u202e\u200b\x07\x7f"
CONTROLS = set("\x1b\r\x9b\u202e\u200b\x07\x7f")


def assert_harmless(text: str) -> None:
    assert not CONTROLS & set(text), [line for line in text.split("\n") if CONTROLS & set(line)]
    assert not any(line.startswith(FORGED) for line in text.split("\n"))


def outputs(guest: HookWorld, *words: str) -> tuple[str, str]:
    """What ``nvattest hook`` and the layer's program print for a command."""
    command = [sys.executable, "-m", "nvattest", "hook", *words, "--root", str(guest.root)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    ended = guest.run(*words)
    return done.stdout.decode() + done.stderr.decode(), ended.stdout + ended.stderr


@pytest.fixture
def guest(world: NewWorld) -> HookWorld:
    made = world(lies=["gpu0:signature"])
    hooks = made.file("usr/share/oci/hooks/prestart")
    os.symlink("/x", hooks / EVIL.replace("/", ""))
    os.symlink("/x", os.fsencode(hooks) + b"/evil\xff\x1b[31m")
    made.file("proc/cmdline").write_bytes(f"console=hvc0 nvrc.smi.srs=1{EVIL}\n".encode())
    made.file("sys/module/nvidia/version").write_text(EVIL)
    return made


def test_texts_around_a_run_steer_no_terminal_and_forge_no_line(guest: HookWorld) -> None:
    state = guest.oci_state(EVIL, status=EVIL, bundle=f"/run/{EVIL}", annotations={EVIL: EVIL})
    ended = guest.run(stdin=state)
    assert_harmless(ended.stdout + ended.stderr)
    assert_harmless("\n".join(guest.kernel_log))
    assert_harmless(guest.file("var/log/nvattest/hook.log").read_text())
    assert guest.summaries, "each summary is still JSON"
    for words in (("status",), ("check",), ("status", "-f", "json"), ("check", "-f", "json")):
        for text in outputs(guest, *words):
            assert_harmless(text)
            if "json" in words:
                json.loads(text)


def test_a_record_and_a_configuration_of_others_steer_no_terminal(guest: HookWorld) -> None:
    guest.run()
    record = guest.state
    record["reason"] = {"code": EVIL, "message": EVIL, "hint": EVIL}
    record["findings"] = [{"code": EVIL, "severity": "warning", "message": EVIL, "hint": EVIL}]
    record["config"] = record["stage"] = EVIL
    guest.file("run/nvattest/state.json").write_text(json.dumps(record))
    for text in outputs(guest, "status"):
        assert_harmless(text)
    guest.file("etc/nvattest/hook.toml").write_text(f"[{json.dumps(EVIL)}]\nx = 1\n")
    for words in (("check",), ("status",)):
        for text in outputs(guest, *words):
            assert_harmless(text)
    ended = guest.run()
    assert_harmless(ended.stderr)
    assert_harmless("\n".join(guest.kernel_log))


def test_files_of_a_deployment_steer_no_terminal(tmp_path: Path) -> None:
    name = EVIL.replace("/", "")
    quoted = json.dumps(EVIL)
    contents = {
        f"{name}.toml": f"[hypervisor.qemu]\nkernel_params = {quoted}\n[{quoted}]\nx = {quoted}\n",
        f"{name}.yaml": f"kind: Pod\nmetadata: {{name: {quoted}}}\nspec: {{runtimeClassName: {quoted}}}\n",
        f"{name}.rego": f"package {EVIL}\n",
        f"components{name}.toml": f"[[process]]\nname = {quoted}\n",
    }
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content.encode())
        for extra in ([], ["-f", "json"]):
            done = subprocess.run(
                [sys.executable, "-m", "nvattest", "hook", "lint", str(tmp_path / file), *extra],
                capture_output=True, timeout=60,
            )  # fmt: skip
            assert_harmless(done.stdout.decode() + done.stderr.decode())
            assert b"Traceback" not in done.stderr


def test_a_summary_in_the_log_stays_one_line_of_json(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    Journal(Settings(paths)).summary({"reason": EVIL})
    [line] = Path(paths.at(paths.LOG)).read_text().splitlines()
    assert json.loads(line)["reason"] == EVIL
    assert_harmless(line)
