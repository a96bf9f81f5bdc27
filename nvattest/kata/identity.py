"""What a verdict belongs to: this boot, these devices, this driver load, these settings. Read in a millisecond.

sysfs gives every object an inode number of its own for as long as it lives. A GPU that is unplugged and plugged in
again, a driver that is unloaded and loaded again, or a GPU that is unbound and bound again, comes back with another
number, so equal numbers mean the same devices and the same driver load. A reset that leaves all of these alone is not
seen here. All of this serves to recognise our own verdict; trust comes from the appraisal alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NamedTuple

from nvattest.kata.paths import Paths

__all__ = ["Identity", "PciDevices", "boottime", "digest_file", "identify", "pci_devices"]

_NVIDIA: Final = "0x10de"
_SMALL_FILE: Final = 1024 * 1024
_SWITCH_CLASS: Final = "0x0680"


class PciDevices(NamedTuple):
    """NVIDIA's devices on the PCI bus by address; None where the bus could not be read."""

    gpus: tuple[str, ...]
    switches: tuple[str, ...]


class Identity(NamedTuple):
    """``boot`` is empty where the kernel did not say; then nothing is ever recognised.

    ``config`` says which of the ``inputs`` is the configuration.
    """

    boot: str
    devices: str
    config: str
    inputs: dict[str, str | None]


def boottime() -> float:
    """Seconds since boot, asleep or awake. Nobody can set this clock, the host least of all."""
    import time

    return time.clock_gettime(time.CLOCK_BOOTTIME)


def identify(paths: Paths, inputs: Iterable[str]) -> Identity:
    """What a verdict made now would belong to; ``inputs`` are the files that decide what is demanded."""
    return Identity(
        boot=_read(paths.boot_id).strip(),
        devices=_device_digest(paths),
        config=paths.config,
        inputs={path: digest_file(path) for path in inputs},
    )


def digest_file(path: str) -> str | None:
    """The SHA-256 of a file, or None where there is none to read.

    Of one that is larger than a mebibyte, as only bundles are, it is that of the first mebibyte with inode, size and
    times: a verdict that stands is to be used within milliseconds.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with os.fdopen(descriptor, "rb") as file:
            digest = sha256(file.read(_SMALL_FILE))
            if file.read(1):
                facts = os.fstat(file.fileno())
                numbers = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
                digest.update(repr(numbers).encode())
    except OSError:
        return None
    return digest.hexdigest()


def pci_devices(paths: Paths) -> PciDevices | None:
    """The GPUs and NVSwitches that the PCI bus shows, or None where sysfs is not there."""
    try:
        names = sorted(os.listdir(paths.pci))
    except OSError:
        return None
    gpus, switches = [], []
    for name in names:
        folder = f"{paths.pci}/{name}"
        if _read(f"{folder}/vendor").strip() != _NVIDIA:
            continue
        kind = _read(f"{folder}/class").strip()
        if kind.startswith("0x03"):
            gpus.append(name)
        elif kind.startswith(_SWITCH_CLASS):
            switches.append(name)
    return PciDevices(tuple(gpus), tuple(switches))


def _device_digest(paths: Paths) -> str:
    digest = sha256()

    def add(*parts: object) -> None:
        digest.update("\0".join(str(part) for part in parts).encode("utf-8", "surrogateescape") + b"\n")

    try:
        names = sorted(os.listdir(paths.pci))
    except OSError:
        names = []
    for name in names:
        folder = f"{paths.pci}/{name}"
        if _read(f"{folder}/vendor").strip() == _NVIDIA:
            facts = [_read(f"{folder}/{item}").strip() for item in ("device", "class", "subsystem_device")]
            add("device", name, *facts, _inode(folder), _link(f"{folder}/driver"))
    add("module", _inode(paths.module), _read(f"{paths.module}/version").strip(), _read(paths.driver_version))
    return digest.hexdigest()


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 4096).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _link(path: str) -> str:
    # A device that is bound again, to the same driver, gets a new link.
    try:
        return f"{os.path.basename(os.readlink(path))} {os.lstat(path).st_ino}"
    except OSError:
        return ""
