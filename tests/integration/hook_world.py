"""A guest in a folder: what the hook finds at absolute paths in a real one, and an agent that calls it as Kata's does.

The hook is a regular file in ``prestart``, with an empty environment, the state on stdin, pipes for its output and ten
seconds to live. It loads the compiled driver library, which finds the simulation without an environment.
"""

from __future__ import annotations

import functools
import json
import stat
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nvattest.testing import Platform
from nvattest.testing.driver import DriverLibraries, DriverServer
from nvattest.testing.world import GuestFolder

AGENT_SECONDS = 10
KEY = "io.katacontainers.pkg.oci.container_type"


@functools.cache
def _platform(name: str, lies: tuple[str, ...]) -> Platform:
    """A platform of this run of the tests; it does not change, and its answers are good for a day."""
    return Platform.build(name, clock=datetime.now(timezone.utc), lies=lies)


@dataclass(frozen=True)
class Ended:
    """How the agent saw a hook end."""

    status: int
    stdout: str
    stderr: str
    seconds: float


class HookWorld(GuestFolder):
    """One guest with its driver. Change ``settings`` and call ``configure`` again; ``run`` is the agent."""

    def __init__(
        self,
        root: Path,
        libraries: DriverLibraries,
        platform: str = "hopper-1",
        *,
        lies: Iterable[str] = (),
        bundle: bool = True,
        server: DriverServer | None = None,
    ) -> None:
        self.root = root
        made = _platform(platform, tuple(lies))
        self.server = server or DriverServer(made, state=made.driver_state)
        super().__init__(root, made, libraries, address=self.server.address, bundle=bundle)
        self.hook = Path(self.hook_path)

    def close(self) -> None:
        self.server.close()

    def swap(self, platform: Platform) -> None:
        """The host takes the GPUs out and puts those of another platform in, at the same addresses."""
        folder = self.root / "sys/bus/pci/devices"
        for device in sorted(folder.iterdir()):
            kind = (device / "class").read_text().strip()
            # Kept, so that its inode is not given out again.
            device.rename(self.root / "tmp" / f"{device.name}-{time.monotonic_ns()}")
            self.plug(device.name, kind)
        self.server.swap(platform)

    def before_main(self, code: str) -> str:
        """Let the hook run ``code`` before the program; returns its text without that."""
        text = self.hook.read_text()
        self.hook.write_text(
            text.replace("from nvattest.guest import main\n", f"{code}from nvattest.guest import main\n")
        )
        return text

    def around(self, module: str, name: str, *, before: str = "pass", after: str = "pass") -> str:
        """Let the hook run a statement before and after each call of ``module.name``; returns its text without that.

        The statements see ``arguments`` and ``calls``, the number of calls.
        """
        return self.before_main(
            f"import os, signal, time\nfrom nvattest.guest import {module}\noriginal, calls = {module}.{name}, 0\n"
            "def around(*arguments, **named):\n    global calls\n    calls += 1\n"
            f"    {before}\n    result = original(*arguments, **named)\n    {after}\n    return result\n"
            f"{module}.{name} = around\n"
        )

    def checked(self, *words: str) -> list[dict[str, str]]:
        """What ``check`` finds."""
        found: list[dict[str, str]] = json.loads(self.run("check", "-f", "json", *words).stdout)["checks"]
        return found

    def finding(self, name: str) -> tuple[str, str]:
        """Severity and message of the one finding of ``check`` of this kind."""
        [item] = [item for item in self.checked() if item["id"] == name]
        return item["severity"], item["message"]

    # --- what it left -----------------------------------------------------------------------------------------------

    @property
    def ready(self) -> int:
        return self.server.state.ready

    def file(self, path: str) -> Path:
        return self.root / path

    @property
    def state(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.root / "run/nvattest/state.json").read_text())
        return value

    @property
    def token(self) -> Path:
        return self.root / "run/nvattest/token.json"

    @property
    def log(self) -> list[str]:
        return (self.root / "var/log/nvattest/hook.log").read_text().splitlines()

    @property
    def summaries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log if line.startswith("{")]

    @property
    def kernel_log(self) -> list[str]:
        return (self.root / "dev/kmsg").read_text().splitlines()

    def forget(self) -> None:
        """As after a boot: outputs gone, GPUs not ready."""
        self.forget_outputs()
        self.server.change(ready=0)

    # --- the agent --------------------------------------------------------------------------------------------------

    def start(
        self, *arguments: str, argv: list[str] | None = None, stdin: bytes | None = b""
    ) -> subprocess.Popen[bytes]:
        """Start a hook; with ``stdin`` it is written and closed here, so several hooks can start at once."""
        words = argv if argv is not None else [self.hook.name, *(arguments or ("prestart",))]
        process = subprocess.Popen(
            words,
            executable=str(self.hook),
            env={},
            cwd=self.root / "tmp",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None
        return process

    def end(
        self, process: subprocess.Popen[bytes], stdin: bytes | None = None, *, seconds: float = AGENT_SECONDS
    ) -> Ended:
        started = time.monotonic()
        try:
            out, err = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise AssertionError("the agent had to kill the hook") from None
        return Ended(process.returncode, out.decode(), err.decode(), time.monotonic() - started)

    def run(self, *arguments: str, argv: list[str] | None = None, stdin: bytes | None = None) -> Ended:
        assert stat.S_ISREG(self.hook.lstat().st_mode)
        return self.end(self.start(*arguments, argv=argv, stdin=None), self.oci_state() if stdin is None else stdin)

    @staticmethod
    def oci_state(container: str = "c0ffee", **more: Any) -> bytes:
        state = {
            "ociVersion": "1.2.0",
            "id": container,
            "status": "created",
            "pid": 42,
            "bundle": f"/run/kata-containers/{container}",
            "annotations": {KEY: "pod_container", "cdi.k8s.io/vfio0": "nvidia.com/gpu=0"},
            **more,
        }
        return json.dumps(state).encode()


NewWorld = Callable[..., HookWorld]
