"""What the program finds on its system: its standard streams, and NVIDIA's devices on the PCI bus.

Streams. Python has None in the place of a closed stream, so that text for stderr would go to stdout, and the free
number goes to the next file that is opened, which then receives what a driver library prints. Every program calls
``open_closed_streams`` first.

Devices. sysfs gives every object an inode number of its own for as long as it lives. A GPU that is unplugged and
plugged in again, a driver that is unloaded and loaded again, or a GPU that is unbound and bound again, comes back with
another number, so equal digests mean the same devices and the same driver load. A reset that leaves all of these alone
is not seen here. It serves to recognise devices that were attested; trust comes from the appraisal alone. Paths are
those of Linux below ``root``: "" but in tests.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from nvattest.errors import CollectionError

MODULE: Final = "/sys/module/nvidia"
"""The loaded driver."""
_BUS: Final = "/sys/bus/pci/devices"
_DRIVER_VERSION: Final = "/proc/driver/nvidia/version"
_NVIDIA: Final = "0x10de"
_SWITCH_CLASS: Final = "0x0680"


def require_linux(what: str) -> None:
    """Say on another system that it cannot do this (``linux-only``), before something less clear does."""
    if not sys.platform.startswith("linux"):
        raise CollectionError(
            f"{what} needs Linux; this is {sys.platform}",
            code="linux-only",
            hint="collect evidence in the guest (nvattest collect-evidence) and verify the file here",
        )


# --- standard streams -------------------------------------------------------------------------------------------------


def open_closed_streams() -> None:
    """Put the null device in the place of each standard stream that is closed; a command that is run has it closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                # The lowest free number: that of the closed stream.
                stream = open(os.devnull, "w" if number else "r", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            except OSError:
                # A guest whose /dev is not there yet.
                stream = io.StringIO()  # type: ignore[assignment]
            setattr(sys, name, stream)


def write_utf_8() -> None:
    """Let stdout be UTF-8 where it is a file or a pipe, as JSON has to be.

    On Windows it would have an encoding of its own, in which no JSON can be read back. ``PYTHONIOENCODING`` stands.
    """
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and not sys.stdout.isatty() and not os.environ.get("PYTHONIOENCODING"):
        reconfigure(encoding="utf-8")


def give_up_stdout() -> None:
    """After a failed write: let the interpreter not try again to write what is left, and complain at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- devices on the PCI bus -------------------------------------------------------------------------------------------


class PciDevices(NamedTuple):
    """NVIDIA's devices by their addresses on the bus."""

    gpus: tuple[str, ...]
    switches: tuple[str, ...]


def pci_devices(root: str = "") -> PciDevices | None:
    """The GPUs and NVSwitches that the PCI bus shows, or None where sysfs is not there."""
    try:
        kinds = {name: read_small(f"{folder}/class") for name, folder in _nvidia(root)}
    except OSError:
        return None
    return PciDevices(
        tuple(name for name, kind in kinds.items() if kind.startswith("0x03")),
        tuple(name for name, kind in kinds.items() if kind.startswith(_SWITCH_CLASS)),
    )


def device_digest(root: str = "") -> str:
    """A digest of the devices on the bus, of what drives each, and of the driver that is loaded."""
    from hashlib import sha256

    facts: list[tuple[object, ...]] = []
    with suppress(OSError):
        for name, folder in _nvidia(root):
            read = [read_small(f"{folder}/{item}").strip() for item in ("device", "class", "subsystem_device")]
            facts.append(("device", name, *read, _inode(folder), _link(f"{folder}/driver")))
    module = root + MODULE
    facts.append(
        ("module", _inode(module), read_small(f"{module}/version").strip(), read_small(root + _DRIVER_VERSION))
    )
    lines = ["\0".join(map(str, parts)) + "\n" for parts in facts]
    return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _nvidia(root: str) -> Iterator[tuple[str, str]]:
    """NVIDIA's devices on the bus: address and folder of each."""
    for name in sorted(os.listdir(root + _BUS)):
        folder = f"{root}{_BUS}/{name}"
        if read_small(f"{folder}/vendor").strip() == _NVIDIA:
            yield name, folder


def read_small(path: str) -> str:
    """The first 4096 bytes of a file of the kernel, or "" where there is none to read."""
    # Loaded here: a command that reads no such file has the streams of this module alone.
    from nvattest._folder import read_start

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
