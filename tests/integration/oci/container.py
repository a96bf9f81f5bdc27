"""One container of one static program under a real OCI runtime, with the hook of the guest layer before it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..guest_layer import HOOK  # noqa: TID252
from ..hook_world import HookWorld  # noqa: TID252

STARTED = "the workload runs"
_PROGRAM = f"""
#include <unistd.h>
int main(void) {{ static const char text[] = "{STARTED}\\n"; return write(1, text, sizeof text - 1) < 0; }}
"""


@dataclass(frozen=True)
class Ran:
    """How the runtime ended, and whether the container's program ran."""

    status: int
    started: bool
    said: str


def build_program(folder: Path) -> Path:
    """The workload: a static program that says that it runs."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: there is no program to run in the container")
    folder.mkdir(parents=True, exist_ok=True)
    source, program = folder / "workload.c", folder / "workload"
    source.write_text(_PROGRAM)
    done = subprocess.run(
        [compiler, "-static", "-Os", "-s", "-o", str(program), str(source)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"no static C library here: {done.stderr.strip()[-200:]}")
    return program


def bundle_of(folder: Path, program: Path, *, hook: dict[str, Any]) -> Path:
    """An OCI bundle with nothing but the program in its root, and ``hook`` before it."""
    for place in ("proc", "dev"):
        (folder / "rootfs" / place).mkdir(parents=True)
    shutil.copy2(program, folder / "rootfs/workload")
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/workload"],
            "env": [],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "guest",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "hooks": {"prestart": [hook]},
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _runtime(name: str, state: Path) -> list[str]:
    command = [name, "--root", str(state)]
    if name != "crun":
        return command
    # A hook has nothing to do with cgroups.
    command.append("--cgroup-manager=disabled")
    if os.path.isdir("/sys/fs/cgroup/unified"):
        # crun refuses both cgroup versions side by side, so it is shown the newer one only, in a mount namespace.
        show = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", show, "sh", *command]
    return command


def run_container(
    runtime: str, guest: HookWorld, layer: Path, program: Path, name: str, *, strace: Path | None = None
) -> Ran:
    """Run one container to its end. The hook sees the guest in its folder; the runtime gives it no environment."""
    hook = {
        "path": str(layer / "root" / HOOK.lstrip("/")),
        "args": ["nvattest-hook", "--root", str(guest.root), "prestart"],
    }
    bundle = bundle_of(guest.root.parent / f"bundle-{name}", program, hook=hook)
    program_and_options = _runtime(runtime, guest.root.parent / "runtime")
    command = [*program_and_options, "run", "--bundle", str(bundle), name]
    if strace is not None:
        command = [
            "strace",
            "-f",
            "-s",
            "256",
            "-e",
            "trace=rename,renameat,renameat2,fsync,sendto,write,execve",
            "-o",
            str(strace),
            *command,
        ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    finally:
        subprocess.run([*program_and_options, "delete", "--force", name], capture_output=True, timeout=30)
        shutil.rmtree(bundle)
    return Ran(done.returncode, STARTED in done.stdout, done.stderr)


def runtime_works(runtime: str, folder: Path, program: Path) -> str:
    """Why a runtime cannot run even an empty hook here; "" where it can."""
    hook = {"path": shutil.which("true") or "/bin/true", "args": ["true"]}
    bundle = bundle_of(folder / f"probe-{runtime}", program, hook=hook)
    command = [*_runtime(runtime, folder / f"probe-state-{runtime}"), "run", "--bundle", str(bundle), "probe"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    return "" if done.returncode == 0 and STARTED in done.stdout else f"{runtime}: {done.stderr.strip()[-400:]}"
