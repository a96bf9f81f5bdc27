"""A guest in a folder: what ``nvattest-hook --root FOLDER`` finds at the absolute paths of a real one.

The hook loads the compiled driver library from the folder; the library finds the simulation without an environment.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.testing.driver import DriverLibraries
    from nvattest.testing.platform import Platform

__all__ = ["GuestFolder"]

_FOLDERS: Final = ("etc/nvattest", "run", "var/log", "dev", "proc/sys/kernel/random", "proc/driver/nvidia", "tmp")
_GPU, _SWITCH = "0x030200", "0x068000"


class GuestFolder:
    """Files of a guest with the devices of ``platform``, whose driver answers at ``address``.

    Args:
        root: the folder; it may be there, and must be empty then.
        bundle: put a bundle with all collateral beside the configuration.

    ``hook_path`` is the program in its hook folder; it runs the package of this interpreter on this folder.

    Raises:
        InputError: the folder is not empty, or cannot be written (``folder``).
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        platform: Platform,
        libraries: DriverLibraries,
        *,
        address: str,
        bundle: bool = True,
    ) -> None:
        from nvattest.testing.driver import place_driver_libraries

        self.folder = os.path.abspath(os.fspath(root))
        self.platform = platform
        try:
            if os.path.isdir(self.folder) and os.listdir(self.folder):
                raise InputError(f"{self.folder} is not empty", code="folder")
            for name in _FOLDERS:
                os.makedirs(self._at(name), exist_ok=True)
            self._write("dev/kmsg", "")
            self._write("proc/cmdline", "console=hvc0 agent.log=info\n")
            self.boot("1c4b3f0e-4b0a-4f5c-9a39-3c4d0a1f7b11")
            self._write("proc/driver/nvidia/version", "NVRM version: simulated\n")
            os.makedirs(self._at("sys/bus/pci/devices"))
            for index in range(len(platform.gpus)):
                self.plug(f"0000:{index + 1:02x}:00.0", _GPU)
            for index in range(len(platform.switches)):
                self.plug(f"0000:{index + 0x41:02x}:00.0", _SWITCH)
            self.load_driver()
            place_driver_libraries(libraries, self._at("usr/lib/simulated"), address=address)
            self.hook_path = self._place_hook()
            with open(self._at("etc/nvattest/anchors.pem"), "wb") as file:
                file.write(platform.anchors_pem)
            if bundle:
                self.write_bundle()
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
        except OSError as error:
            raise InputError(f"{self.folder}: {error.strerror or error}", code="folder") from None

    def configure(self, **settings: Any) -> None:
        """Write the configuration again with these settings; a table is a mapping, and keeps its other keys."""
        for key, value in settings.items():
            known = self.settings.get(key)
            self.settings[key] = {**(known or {}), **value} if isinstance(value, Mapping) else value
        plain = {key: value for key, value in self.settings.items() if not isinstance(value, dict)}
        tables = {key: value for key, value in self.settings.items() if isinstance(value, dict)}
        lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        self._write("etc/nvattest/hook.toml", "\n".join(lines) + "\n")

    def boot(self, boot_id: str) -> None:
        """Another boot: its number."""
        self._write("proc/sys/kernel/random/boot_id", boot_id + "\n")

    def plug(self, address: str, kind: str) -> None:
        """One more device of NVIDIA's on the PCI bus, of this class."""
        folder = self._at(f"sys/bus/pci/devices/{address}")
        os.mkdir(folder)
        for name, value in (("vendor", "0x10de"), ("device", "0x2331"), ("class", kind)):
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                file.write(value + "\n")

    def load_driver(self) -> None:
        """Load the driver, again where it is loaded."""
        module = self._at("sys/module/nvidia")
        if os.path.isdir(module):
            # Kept, for a new folder with the inode of the old one would look like the same driver.
            os.rename(module, self._at(f"tmp/unloaded-{time.monotonic_ns()}"))
        os.makedirs(module)
        self._write("sys/module/nvidia/version", "580.95.05\n")

    def write_bundle(self) -> None:
        """All collateral of the platform, as it is now."""
        self._write("etc/nvattest/bundle.json", json.dumps(self.platform.bundle()))

    def forget_outputs(self) -> None:
        """Remove what the hook wrote to ``/run/nvattest``, as a boot does."""
        shutil.rmtree(self._at("run/nvattest"), ignore_errors=True)

    def _place_hook(self) -> str:
        # A regular file with a mode that an agent looks for, which runs the package of this interpreter.
        path = self._at("usr/share/oci/hooks/prestart/nvattest-hook")
        os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f"#!{sys.executable} -I\nimport sys\nsys.argv[1:1] = ['--root', {self.folder!r}]\n"
                "from nvattest.guest import main\nmain()\n"
            )
        os.chmod(path, 0o755)  # noqa: S103 - a program that everyone may run
        # As in the guest of a script: its interpreter is there.
        interpreter = self._at(sys.executable.lstrip("/"))
        os.makedirs(os.path.dirname(interpreter))
        os.symlink(sys.executable, interpreter)
        return path

    def _at(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _write(self, name: str, text: str) -> None:
        with open(self._at(name), "w", encoding="utf-8") as file:
            file.write(text)
