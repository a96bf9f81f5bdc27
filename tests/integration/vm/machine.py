"""A virtual machine with the guest layer and nothing else, under QEMU; the simulated driver stays on the host.

The guest has a Debian kernel (extracted, never installed), a static busybox, the layer, glibc and the driver's library.
The library calls the simulation through a relay in the guest and QEMU's user network; a second network leads to the
services on the host's loopback and is down until a case brings it up. Everything runs in software (TCG), so a result
never depends on what /dev/kvm does here. What a case prints reaches the test through the serial console.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from nvattest.testing import Platform
from nvattest.testing.driver import DriverLibraries, DriverServer, place_driver_libraries
from nvattest.testing.driver_answers import Fault

from ..guest_layer import HOME, HOOK, ROOT, elf_files, place_glibc  # noqa: TID252

HERE = Path(__file__).resolve().parent
KERNEL = ROOT / "build" / "vm"
ANCHORS, SOCKET = "/etc/nvattest/anchors.pem", "nvattest-vm"
SERVICES_HOST = "10.0.3.2"
_MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "squashfs")
_TOOLS = ("qemu-system-x86_64", "cpio", "zstd", "mksquashfs", "busybox", "cc")
_SECONDS = 240
_FOLDERS = "bin case dev etc/nvattest lib/modules lib64 newroot proc run sys tmp usr var/log"


@dataclass(frozen=True)
class Boot:
    """What came over the console of one run, in order, and what the simulated driver saw."""

    text: str
    seconds: float
    server: DriverServer = field(repr=False)

    @property
    def said(self) -> list[str]:
        """The lines that case and agent printed for the test, without their mark."""
        return [line[2:] for line in self.text.splitlines() if line.startswith("T ")]

    @property
    def kernel(self) -> list[str]:
        """The hook's and the agent's lines in the kernel's log."""
        return [line.removeprefix("kernel ") for line in self.said if line.startswith("kernel ")]

    @property
    def ready_history(self) -> tuple[int, ...]:
        return self.server.ready_history

    @property
    def reports(self) -> int:
        """How many reports the driver was asked for."""
        return len(self.server.calls("nvmlDeviceGetConfComputeGpuAttestationReport"))

    def file(self, name: str, number: int = -1) -> bytes | None:
        """A file of the guest's run folder as a case showed it; the last showing unless told otherwise."""
        path = re.escape(f"/run/nvattest/{name}")
        shown = re.findall(
            rf"^T file {path} (?:absent|begins\n(.*?)^T file {path} ends)$", self.text, re.MULTILINE | re.DOTALL
        )
        assert shown, f"the case did not show {name}:\n{self.text[-3000:]}"
        return base64.b64decode(shown[number]) if shown[number] else None

    @property
    def state(self) -> dict[str, Any]:
        content = self.file("state.json")
        assert content is not None, self.text[-3000:]
        value: dict[str, Any] = json.loads(content)
        return value


class Machine:
    """Boots guests. ``folder`` keeps the images that all cases share."""

    def __init__(self, folder: Path, layer: Path, libraries: DriverLibraries) -> None:
        missing = [name for name in _TOOLS if shutil.which(name) is None]
        kernels = sorted(KERNEL.glob("root/boot/vmlinuz-*"))
        if missing or not kernels:
            pytest.skip(f"no virtual machine here: {', '.join(missing) or 'no kernel below build/vm'} (make vm)")
        self.folder = folder
        self.kernel = kernels[-1]
        self.tree = folder / "tree"
        self.base = folder / "base.cpio.zst"
        self.image = folder / "root.squashfs"
        if not self.base.is_file():
            self._build(layer, libraries)

    def _build(self, layer: Path, libraries: DriverLibraries) -> None:
        tree = self.tree
        for name in _FOLDERS.split():
            (tree / name).mkdir(parents=True, exist_ok=True)
        shutil.copytree(layer / "root", tree, dirs_exist_ok=True)
        busybox = tree / "bin/busybox"
        shutil.copy2(os.path.realpath(shutil.which("busybox") or ""), busybox)
        listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
        for name in set(listed.split()) - {"busybox"}:
            (tree / "bin" / name).symlink_to("busybox")
        for name in ("relay", "agent"):
            _compile(HERE / f"{name}.c", tree / "bin" / name)
        modules = _with_needed(self.kernel, _MODULES)
        for path in modules:
            shutil.copy2(path, tree / "lib/modules")
        (tree / "lib/modules.list").write_text(" ".join(path.stem for path in modules))
        place_driver_libraries(libraries, tree / "usr/lib/x86_64-linux-gnu", address=f"@{SOCKET}")
        place_glibc(tree, [*elf_files(tree / HOME), tree / HOOK.lstrip("/"), Path(libraries.nvml)])
        shutil.copy2(HERE / "results.sh", tree / "lib")
        shutil.copy2(HERE / "init.sh", tree / "init")
        (tree / "init").chmod(0o755)
        _pack(tree, self.base)
        (tree / "image").touch()
        command = [
            "mksquashfs",
            tree,
            self.image,
            "-noappend",
            "-all-root",
            "-comp",
            "zstd",
            "-Xcompression-level",
            "1",
        ]
        subprocess.run([*command, "-quiet", "-no-progress"], check=True)

    def boot(
        self,
        case: str,
        *,
        platform: str = "hopper-1",
        lies: Iterable[str] = (),
        faults: dict[str, Fault] | None = None,
        ready: int = 0,
        config: str = "",
        network: bool = False,
        bundle: bool = True,
        services: Any = None,
        squashfs: bool = False,
        memory: int = 256,
        clock: str | None = None,
        words: str = "",
        files: dict[str, str] | None = None,
        step: Path | None = None,
    ) -> Boot:
        """Run the shell text ``case`` as the guest's init and return when the machine is off.

        ``config`` is added to the hook's configuration, ``files`` are put beside the case, ``words`` go onto the
        kernel's command line. With ``services`` (a callable that takes the platform and gives running services) the
        configuration names them. ``step`` is compiled as the program that the image calls kata-agent.
        """
        made = Platform.build(platform, clock=datetime.now(timezone.utc), lies=lies)
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(DriverServer(made, state=made.driver_state, faults=faults))
            if ready:
                server.change(ready=ready)
            collateral = [f"network = {str(network).lower()}"]
            if services is not None:
                running = stack.enter_context(services(made))
                port = running.url.rpartition(":")[2]
                collateral += [
                    f'rim_url = "http://{SERVICES_HOST}:{port}"',
                    f'ocsp_url = "http://{SERVICES_HOST}:{port}/ocsp"',
                ]
            line = stack.enter_context(_Line(server.address))
            scratch = Path(stack.enter_context(_scratch(self.folder)))
            etc = scratch / "tree/case/etc"
            etc.mkdir(parents=True)
            (etc / "hook.toml").write_text(
                "\n".join([f'trust_anchors = "{ANCHORS}"', config, "[collateral]", *collateral, ""])
            )
            (etc / "anchors.pem").write_bytes(made.anchors_pem)
            if bundle:
                (etc / "bundle.json").write_text(json.dumps(made.bundle()))
            (scratch / "tree/case/run.sh").write_text(case)
            (scratch / "tree/case/driver-version").write_text(f"{made.driver_version}\n")
            for name, text in (files or {}).items():
                (scratch / "tree/case" / name).write_text(text)
                (scratch / "tree/case" / name).chmod(0o755)
            if step is not None:
                (scratch / "tree/usr/bin").mkdir(parents=True)
                _compile(step, scratch / "tree/usr/bin/kata-agent", '-DAGENT="/bin/agent"')
            _pack(scratch / "tree", scratch / "case.cpio.zst")
            initrd = scratch / "initrd"
            initrd.write_bytes(self._first_stage().read_bytes() if squashfs else self.base.read_bytes())
            with initrd.open("ab") as file:
                file.write((scratch / "case.cpio.zst").read_bytes())
            kernel_words = (
                f"console=ttyS0 panic=-1 no_timer_check quiet loglevel=1 t.driver={line.port} t.gpus={len(made.gpus)} "
                f"t.switches={len(made.switches)} {'t.root=squashfs' if squashfs else ''} {words}"
            )
            command = self._command(
                initrd, kernel_words, memory=memory, clock=clock, disk=self.image if squashfs else None
            )
            started = time.monotonic()
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS)
            text = done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")
            assert "T case begins" in text, text[-3000:] + done.stderr.decode("utf-8", "replace")
            return Boot(text=text, seconds=time.monotonic() - started, server=server)

    def _first_stage(self) -> Path:
        """An initial file system that does nothing but mount the image."""
        path = self.folder / "first.cpio.zst"
        if not path.is_file():
            tree = self.folder / "first"
            for name in _FOLDERS.split():
                (tree / name).mkdir(parents=True, exist_ok=True)
            for name in ("bin", "lib/modules"):
                for item in (self.tree / name).iterdir():
                    if item.name not in ("agent", "relay"):
                        shutil.copy2(item, tree / name / item.name, follow_symlinks=False)
            for name in ("init", "lib/modules.list"):
                shutil.copy2(self.tree / name, tree / name)
            _pack(tree, path)
        return path

    def _command(self, initrd: Path, words: str, *, memory: int, clock: str | None, disk: Path | None) -> list[str]:
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "1", "-m", str(memory), "-serial", "stdio",
            "-kernel", str(self.kernel), "-initrd", str(initrd), "-append", words,
            "-netdev", "user,id=driver,net=10.0.2.0/24,restrict=off", "-device", "virtio-net-pci,netdev=driver,romfile=",
            "-netdev", "user,id=services,net=10.0.3.0/24", "-device", "virtio-net-pci,netdev=services,romfile=",
        ]  # fmt: skip
        if clock is not None:
            command += ["-rtc", f"base={clock}"]
        if disk is not None:
            command += ["-drive", f"file={disk},format=raw,if=none,id=root,readonly=on"]
            command += ["-device", "virtio-blk-pci,drive=root"]
        return command


class _Line:
    """A TCP port of the loopback that leads to the driver server's socket, one connection per call."""

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}"
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                call, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(call,), daemon=True).start()

    def _carry(self, call: socket.socket) -> None:
        with call, socket.socket(socket.AF_UNIX) as driver, contextlib.suppress(OSError):
            driver.connect(self._address)
            back = threading.Thread(target=_copy, args=(driver, call), daemon=True)
            back.start()
            _copy(call, driver)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _compile(source: Path, target: Path, *options: str) -> None:
    command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-static", "-s", *options]
    subprocess.run([*command, "-o", target, source], check=True)


@contextlib.contextmanager
def _scratch(folder: Path) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory(dir=folder, prefix="case-") as name:
        yield name


def _pack(tree: Path, target: Path) -> None:
    """A compressed archive of ``tree`` as the kernel unpacks it; several of them may follow each other."""
    pipeline = "find . -print0 | sort -z | cpio --null --create --format=newc --quiet --owner=0:0 | zstd -3 -q"
    partial = target.with_name(f"{target.name}.part")
    with partial.open("wb") as file:
        subprocess.run(["sh", "-c", pipeline], cwd=tree, stdout=file, check=True)
    partial.rename(target)


def _with_needed(kernel: Path, names: Iterable[str]) -> list[Path]:
    """The kernel modules of these names after those that they need, each once."""
    version = kernel.name.removeprefix("vmlinuz-")
    found = {path.stem.replace("-", "_"): path for path in (KERNEL / f"root/lib/modules/{version}").rglob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = found.get(name.replace("-", "_"))
        if path is None or path in order:
            return  # built into the kernel, or there already
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for needed in depends[1].decode().split(",") if depends else ():
            if needed:
                add(needed)
        order.append(path)

    for name in names:
        add(name)
    return order
