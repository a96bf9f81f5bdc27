"""The guest layer in tests: built once, unpacked into a guest, and called there as a Kata agent calls a hook.

``ChrootGuest`` is a root with nothing but the layer, glibc, the (simulated) driver library and what a kernel shows in
/proc and /sys. The agent of these tests enters it with chroot, so nothing of this machine can be reached from inside.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nvattest.testing.driver import DriverLibraries, place_driver_libraries

from .hook_world import HookWorld

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "examples" / "guest-layer" / "build.py"
HOOK = "/usr/share/oci/hooks/prestart/nvattest-hook"
HOME = "usr/lib/nvattest"
_GLIBC = re.compile(r"^(ld-linux[a-z0-9_-]*|libc|libm|libdl|libpthread|librt|libutil|libresolv)\.so[.0-9]*$")

# As the agent: another name in argv[0] than the path, an empty environment, the bundle as current folder.
_ENTER = """
import json, os, sys
root, folder, program, argv = json.loads(sys.argv[1])
os.chroot(root)
os.chdir(folder)
os.execve(program, argv, {})
"""


def build_layer(folder: Path, *options: str) -> Path:
    """Run build.py at the quickest compression; skips where it cannot be done."""
    for tool in ("cc", "strip", "readelf", "ldd", "zstd", "tar"):
        if shutil.which(tool) is None:
            pytest.skip(f"the guest layer needs {tool}, which is not here")
    command = [sys.executable, str(BUILD), "--output", str(folder), "--level", "1", *options]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1790000000"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    for missing in ("has no shared library", "Python.h is missing"):
        if missing in done.stderr:
            pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return folder


def build_module(name: str) -> Any:
    """One of the modules beside build.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BUILD.parent))
        return importlib.import_module(name)


def shared_layer(factory: pytest.TempPathFactory) -> Path:
    """The layer and its unpacked tree (``root``), built once for all workers of a run."""
    home = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        home = home.parent
    folder = home / "guest-layer"
    with (home / "guest-layer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "root").is_dir():
            build_layer(folder)
            (folder / "unpacked").mkdir()
            unpack(folder, folder / "unpacked")
            (folder / "unpacked").rename(folder / "root")
    return folder


def unpack(layer: Path, root: Path) -> None:
    """As the rootfs builder does with GUEST_HOOKS_TARBALL."""
    [tar] = layer.glob("*.tar.zst")
    subprocess.run(["tar", "--zstd", "-xf", str(tar), "-C", str(root)], check=True)


def elf_files(root: Path) -> list[Path]:
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF"
    ]


def place_glibc(root: Path, binaries: list[Path], other: Path | None = None) -> set[str]:
    """Copy glibc's own libraries that these need, and nothing else; their names.

    From this machine, or from ``other``: a folder with another glibc's package unpacked.
    """
    names: set[str] = set()
    for binary in binaries:
        listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=True).stdout
        for path in re.findall(r"(/\S+) \(0x", listed):
            name = os.path.basename(path)
            if not _GLIBC.match(name) or name in names:
                continue
            names.add(name)
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            found = next(other.rglob(f"x86_64-linux-gnu/{name}")) if other is not None else Path(path)
            shutil.copyfile(found.resolve(), target)
            target.chmod(0o755)
    return names


class ChrootGuest(HookWorld):
    """A guest made of the layer and glibc, entered with chroot."""

    def __init__(
        self,
        root: Path,
        libraries: DriverLibraries,
        layer: Path,
        platform: str = "hopper-1",
        *,
        glibc: Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, libraries, platform, **options)
        shutil.rmtree(root / "usr")
        own = (root / "etc/nvattest/hook.toml").read_bytes()
        unpack(layer, root)
        self.shipped_config = (root / "etc/nvattest/hook.toml").read_bytes()
        (root / "etc/nvattest/hook.toml").write_bytes(own)
        binaries = [*elf_files(root / HOME), root / HOOK.lstrip("/"), Path(libraries.nvml)]
        self.glibc = place_glibc(root, binaries, glibc)
        # Where Debian's driver packages put them; the configuration names no place.
        place_driver_libraries(libraries, root / "usr/lib/x86_64-linux-gnu", address=self.server.address)
        for name in ("nvml", "nscq"):
            del self.settings["driver"][name]
        self.configure()
        # Commands put in front of the agent's, such as strace.
        self.around: list[str] = []
        self.program = HOOK

    def start(
        self, *arguments: str, argv: list[str] | None = None, stdin: bytes | None = b""
    ) -> subprocess.Popen[bytes]:
        words = argv if argv is not None else ["nvattest-hook", *(arguments or ("prestart",))]
        order = json.dumps([str(self.root), "/tmp", self.program, words])
        process = subprocess.Popen(
            [*self.around, sys.executable, "-I", "-S", "-c", _ENTER, order],
            env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None
        return process


NewGuest = Callable[..., ChrootGuest]
