"""A guest in a folder: what the hook finds at absolute paths in a real one, and an agent that calls it as Kata's does.

The hook is a regular file in ``prestart``, with an empty environment, the state on stdin, pipes for its output and ten
seconds to live. It loads the compiled driver library, which finds the simulation without an environment.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nvattest.testing import Platform
from nvattest.testing.native import DriverLibraries, DriverServer, place_driver_libraries

AGENT_SECONDS = 10
KEY = "io.katacontainers.pkg.oci.container_type"


@dataclass(frozen=True)
class Ended:
    """How the agent saw a hook end."""

    status: int
    stdout: str
    stderr: str
    seconds: float


class HookWorld:
    """One guest. Change ``settings`` and call ``configure`` again; ``run`` is the agent."""

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
        self.platform = Platform.build(platform, clock=datetime.now(timezone.utc), lies=lies)
        self.server = server or DriverServer(self.platform, state=self.platform.driver_state)
        for folder in ("etc/nvattest", "run", "var/log", "dev", "proc/sys/kernel/random", "proc/driver/nvidia", "tmp"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "dev/kmsg").touch()
        (root / "proc/cmdline").write_text("console=hvc0 agent.log=info\n")
        self.boot("1c4b3f0e-4b0a-4f5c-9a39-3c4d0a1f7b11")
        (root / "proc/driver/nvidia/version").write_text("NVRM version: simulated\n")
        (root / "sys/bus/pci/devices").mkdir(parents=True)
        for index in range(len(self.platform.gpus)):
            self.plug(f"0000:{index + 1:02x}:00.0", "0x030200")
        for index in range(len(self.platform.switches)):
            self.plug(f"0000:{index + 0x41:02x}:00.0", "0x068000")
        self.load_driver()
        place_driver_libraries(libraries, root / "usr/lib/simulated", address=self.server.address)
        (root / "etc/nvattest/anchors.pem").write_bytes(self.platform.anchors_pem)
        if bundle:
            self.write_bundle()
        self.hook = root / "usr/share/oci/hooks/prestart/nvattest-hook"
        self.hook.parent.mkdir(parents=True)
        self.hook.write_text(
            f"#!{sys.executable} -I\nimport sys\nsys.argv[1:1] = ['--root', {str(root)!r}]\n"
            "from nvattest.kata import main\nmain()\n"
        )
        self.hook.chmod(0o755)
        self.settings: dict[str, Any] = {
            "trust_anchors": "/etc/nvattest/anchors.pem",
            "collateral": {"network": False},
            "driver": {
                "nvml": "/usr/lib/simulated/libnvidia-ml.so.1",
                "nscq": "/usr/lib/simulated/libnvidia-nscq.so.2",
                "wait_hook": 0.2,
                "wait_init": 0.2,
            },
        }
        self.configure()

    def close(self) -> None:
        self.server.close()

    # --- the guest --------------------------------------------------------------------------------------------------

    def configure(self, **settings: Any) -> None:
        for key, value in settings.items():
            if isinstance(value, dict):
                self.settings[key] = {**self.settings.get(key, {}), **value}
            else:
                self.settings[key] = value
        plain = {key: value for key, value in self.settings.items() if not isinstance(value, dict)}
        tables = {key: value for key, value in self.settings.items() if isinstance(value, dict)}
        lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        (self.root / "etc/nvattest/hook.toml").write_text("\n".join(lines) + "\n")

    def boot(self, boot_id: str) -> None:
        (self.root / "proc/sys/kernel/random/boot_id").write_text(boot_id + "\n")

    def plug(self, address: str, kind: str) -> None:
        folder = self.root / "sys/bus/pci/devices" / address
        folder.mkdir()
        for name, value in (("vendor", "0x10de"), ("device", "0x2331"), ("class", kind)):
            (folder / name).write_text(value + "\n")

    def load_driver(self) -> None:
        module = self.root / "sys/module/nvidia"
        if module.is_dir():
            # A folder of the same name that takes the inode of the old one would be none of the kernel's.
            os.rename(module, self.root / "tmp" / f"unloaded-{time.monotonic_ns()}")
        module.mkdir(parents=True)
        (module / "version").write_text("580.95.05\n")

    def write_bundle(self) -> None:
        (self.root / "etc/nvattest/bundle.json").write_text(json.dumps(self.platform.bundle()))

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
        shutil.rmtree(self.root / "run/nvattest", ignore_errors=True)
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
