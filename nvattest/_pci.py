"""NVIDIA's devices on the PCI bus, and a digest that recognises them. Read in a millisecond.

sysfs gives every object an inode number of its own for as long as it lives. A GPU that is unplugged and plugged in
again, a driver that is unloaded and loaded again, or a GPU that is unbound and bound again, comes back with another
number, so equal digests mean the same devices and the same driver load. A reset that leaves all of these alone is not
seen here. It serves to recognise devices that were attested; trust comes from the appraisal alone.

Paths are those of Linux below ``root``: "" but in tests.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from typing import Final, NamedTuple

from nvattest._folder import read_start
from nvattest.errors import CollectionError

__all__ = ["MODULE", "PciDevices", "device_digest", "pci_devices", "read_small", "require_linux"]

MODULE: Final = "/sys/module/nvidia"
"""The loaded driver."""
_BUS: Final = "/sys/bus/pci/devices"
_DRIVER_VERSION: Final = "/proc/driver/nvidia/version"
_NVIDIA: Final = "0x10de"
_SWITCH_CLASS: Final = "0x0680"


def require_linux(what: str) -> None:
    """Say what this system cannot do, before something less clear does.

    Raises:
        CollectionError: this is not Linux (``linux-only``).
    """
    if not sys.platform.startswith("linux"):
        raise CollectionError(
            f"{what} needs Linux; this is {sys.platform}",
            code="linux-only",
            hint="collect evidence in the guest (nvattest collect-evidence) and verify the file here",
        )


class PciDevices(NamedTuple):
    """NVIDIA's devices by their addresses on the bus."""

    gpus: tuple[str, ...]
    switches: tuple[str, ...]


def pci_devices(root: str = "") -> PciDevices | None:
    """The GPUs and NVSwitches that the PCI bus shows, or None where sysfs is not there."""
    try:
        names = sorted(os.listdir(root + _BUS))
    except OSError:
        return None
    gpus, switches = [], []
    for name in names:
        folder = f"{root}{_BUS}/{name}"
        if read_small(f"{folder}/vendor").strip() != _NVIDIA:
            continue
        kind = read_small(f"{folder}/class").strip()
        if kind.startswith("0x03"):
            gpus.append(name)
        elif kind.startswith(_SWITCH_CLASS):
            switches.append(name)
    return PciDevices(tuple(gpus), tuple(switches))


def device_digest(root: str = "") -> str:
    """A digest of the devices on the bus, of what drives each, and of the driver that is loaded."""
    digest = sha256()

    def add(*parts: object) -> None:
        digest.update("\0".join(str(part) for part in parts).encode("utf-8", "surrogateescape") + b"\n")

    try:
        names = sorted(os.listdir(root + _BUS))
    except OSError:
        names = []
    for name in names:
        folder = f"{root}{_BUS}/{name}"
        if read_small(f"{folder}/vendor").strip() == _NVIDIA:
            facts = [read_small(f"{folder}/{item}").strip() for item in ("device", "class", "subsystem_device")]
            add("device", name, *facts, _inode(folder), _link(f"{folder}/driver"))
    module = root + MODULE
    add("module", _inode(module), read_small(f"{module}/version").strip(), read_small(root + _DRIVER_VERSION))
    return digest.hexdigest()


def read_small(path: str) -> str:
    """The first 4096 bytes of a file of the kernel, or "" where there is none to read."""
    return read_start(path).decode("utf-8", "replace")


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
