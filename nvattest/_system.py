"""What the program asks of its system: folders that it trusts and other files, standard streams, the PCI bus.

Folders. The run folder of the guest's hook, the collateral cache and the compiled driver of the simulation are trusted
folders: opened here and nowhere else, once, and only where root and the caller alone can change them. The path is
walked folder by folder, each opened relative to the one before, so that what was checked is what is used. Files are
opened relative to the folder, never through a link, and without waiting for the other end of a FIFO. A POSIX ACL that
lets others write shows in the group's bits of the mode (acl(5)), and so counts as such. Windows opens no folders and
has neither owners nor permissions in this sense: there is no trusted folder there, and so no cache; all else works.

Streams. Python has None in the place of a closed stream, so that text for stderr would go to stdout, and the free
number goes to the next file that is opened, which then receives what a driver library prints. Every program calls
``open_closed_streams`` first.

Devices. sysfs gives every object an inode number of its own for as long as it lives. A GPU that is unplugged and
plugged in again, a driver that is unloaded and loaded again, or a GPU that is unbound and bound again, comes back with
another number, so equal digests mean the same devices and the same driver load. A reset that leaves all of these alone
is not seen here. It serves to recognise devices that were attested; trust comes from the appraisal alone. Paths are
those of Linux below ``root``: "" but in tests.

This module is on the hook's fast path: beside ``errors`` it imports nothing that the interpreter has not loaded.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import Final, NoReturn, final

from nvattest.errors import CollectionError, InputError

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


# --- folders and files ------------------------------------------------------------------------------------------------


def flags(*names: str) -> int:
    """These flags of ``os.open``, as far as this system has them."""
    found = 0
    for name in names:
        found |= getattr(os, name, 0)
    return found


HAS_FOLDERS: Final = os.open in os.supports_dir_fd and all(
    hasattr(os, name) for name in ("O_NOFOLLOW", "O_DIRECTORY", "geteuid", "fchmod")
)
"""Whether this system can hold a folder open, and say whose it is."""
_OPEN: Final = flags("O_NOFOLLOW", "O_CLOEXEC")
# Searching a folder needs less than reading it: /home may be 0711.
_SEARCH: Final = _OPEN | flags("O_DIRECTORY") | getattr(os, "O_PATH", os.O_RDONLY)
_FILE: Final = _OPEN | flags("O_NONBLOCK", "O_BINARY")
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_MAXIMUM_LINKS: Final = 40
_POLL: Final = 0.02


@final
class TrustedFolder:
    """An open folder that belongs to the caller or to root, into which no one else may write.

    Its parents may be neither another user's nor writable for all, unless the sticky bit keeps others from renaming
    what is in them: a user that can rename the folder can put an older one in its place.

    Args:
        path: the folder. The last component is no symbolic link; links before it are root's or the caller's.
        make: make the folder, and those above it, where they are missing, with ``mode``.
        mode: of new folders.
        log: nothing is read back from it, so that a group may write too, as syslog's may into Ubuntu's /var/log.
        inside: an open folder that ``path``, a plain name then, is looked up in.

    Raises:
        OSError: it is not there or cannot be made; PermissionError with the reason where others may change it.
    """

    __slots__ = ("_descriptor", "path")

    def __init__(
        self,
        path: str,
        *,
        make: bool = False,
        mode: int = 0o700,
        log: bool = False,
        inside: TrustedFolder | None = None,
    ) -> None:
        self._descriptor = -1
        self.path: Final = os.path.abspath(path) if inside is None else inside.at(_plain(path))
        if not HAS_FOLDERS:
            raise _refusal(self.path, "this system cannot keep a folder from being exchanged or changed by others")
        above, name = os.path.split(self.path)
        if not name:
            raise _refusal(self.path, "the root folder holds more than this program's files")
        way = _walk(above, make=make, mode=mode) if inside is None else os.dup(inside._descriptor)  # noqa: SLF001
        try:
            facts = _look(name, way, self.path, make=make, mode=mode)
            if stat.S_ISLNK(facts.st_mode):
                raise _refusal(self.path, "it is a symbolic link; name the folder that it leads to")
            with _naming(self.path):
                self._descriptor = os.open(name, os.O_RDONLY | flags("O_DIRECTORY") | _OPEN, dir_fd=way)
        finally:
            os.close(way)
        try:
            facts = os.fstat(self._descriptor)
            _require_owner(facts, self.path)
            if log:
                _require_parent(facts, self.path)
            elif facts.st_mode & _OTHERS_MAY_WRITE:
                raise _refusal(self.path, f"others may write into it (mode {_mode(facts)}); chmod go-w, or remove it")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TrustedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        # A copy would close the descriptor a second time, by then perhaps that of another file.
        raise TypeError("an open folder can be neither copied nor pickled; open it again")

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def at(self, name: str) -> str:
        """The path of a file, for messages and for programs that take nothing else."""
        return f"{self.path}/{name}"

    def take(self, until: float) -> bool:
        """Lock the folder itself until it is closed; wait until this instant of ``time.monotonic``. Whether it did."""
        return _take(self._descriptor, until)

    def names(self) -> list[str]:
        """What is in the folder; OSError where it cannot be read."""
        return os.listdir(self._descriptor)

    def facts(self, name: str) -> os.stat_result:
        """Size and times of a file, itself and not what it links to; OSError where it is not there."""
        return os.stat(_plain(name), dir_fd=self._descriptor, follow_symlinks=False)

    def read(self, name: str, maximum: int) -> bytes:
        """The content of a regular file of at most ``maximum`` bytes, into which only the caller and root may write.

        Raises:
            OSError: there is no such file, others may change it, or it is larger.
        """
        with os.fdopen(self._open(name, os.O_RDONLY), "rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_mode & _OTHERS_MAY_WRITE:
                raise _refusal(self.at(name), f"others may write into it (mode {_mode(facts)})")
            data: bytes | None = file.read(maximum + 1)
        if data is None:
            raise _refusal(self.at(name), "it gives nothing now, and is not waited for")
        if len(data) > maximum:
            raise OSError(errno.EFBIG, f"larger than {maximum} bytes", self.at(name))
        return data

    def write(self, name: str, data: bytes, *, mode: int = 0o644, sync: bool = True) -> None:
        """Replace a file, so that a reader, and a later run, find the old content or all of the new.

        One writer at a time: hold the folder's lock. What a writer that was killed left behind is removed here.
        ``mode`` counts whatever the umask. With ``sync`` content and name are on the disk when this returns.

        Raises:
            OSError: it could not be written; the old content stays.
        """
        with _naming(self.at(name)):
            replace_file(self._descriptor, name, data, mode=mode, settle=lambda made: os.fchmod(made, mode), sync=sync)
            if sync:
                os.fsync(self._descriptor)

    def append(self, name: str, data: bytes) -> None:
        """Append to a file, or write to a character device, in one write. It need not be the caller's alone.

        A FIFO without a reader is not waited for (OSError).
        """
        descriptor = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644, device=True)
        try:
            with _naming(self.at(name)):
                os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in the place of what has it; OSError where it cannot be done."""
        here = self._descriptor
        os.replace(_plain(old), _plain(new), src_dir_fd=here, dst_dir_fd=here)

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already, and what a writer of it that was killed left behind."""
        self._unlink(_plain(name))
        self._unlink(_beside(name))

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError), _naming(self.at(name)):
            os.unlink(_plain(name), dir_fd=self._descriptor)

    def _open(self, name: str, how: int, mode: int = 0o600, *, device: bool = False) -> int:
        with _naming(self.at(name)):
            descriptor = os.open(_plain(name), how | _FILE, mode, dir_fd=self._descriptor)
        try:
            facts = os.fstat(descriptor)
            if not (stat.S_ISREG(facts.st_mode) or (device and stat.S_ISCHR(facts.st_mode))):
                raise _refusal(self.at(name), "not a regular file")
            _require_owner(facts, self.at(name))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


@final
class Lock:
    """An exclusive lock on a file of a folder, made where it is missing. The kernel drops it when the process ends."""

    __slots__ = ("_descriptor",)

    def __init__(self, folder: TrustedFolder, name: str = "lock") -> None:
        self._descriptor = folder._open(name, os.O_RDWR | os.O_CREAT)  # noqa: SLF001 - of one module

    def take(self, until: float) -> bool:
        """Wait for the lock until this instant of ``time.monotonic``; whether it was taken."""
        return _take(self._descriptor, until)

    def close(self) -> None:
        os.close(self._descriptor)


def lock_now(descriptor: int) -> bool:
    """Lock an open file; whether no other process has it locked. OSError where files have no locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take(descriptor: int, until: float) -> bool:
    while not lock_now(descriptor):
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL)
    return True


def replace_file(
    folder: int | str,
    name: str,
    data: bytes,
    *,
    mode: int,
    new: str = "",
    settle: Callable[[int], None] | None = None,
    sync: bool = True,
) -> None:
    """Write a file whole or not at all: into the new file ``new`` of the same folder, then renamed over it.

    ``folder`` is a descriptor; a path on a system that opens no folders. The umask is taken from ``mode``. ``new`` is a
    name that is free; without one it is made of ``name``, and what a writer that was killed left there is removed.
    ``settle`` is called with the descriptor of the complete file, before it has its name; with ``sync`` the content is
    on the disk by then.

    Raises:
        OSError: it could not be written; the old content stays.
    """
    here = folder if isinstance(folder, int) else None
    left, new = not new, new or _beside(name)
    if isinstance(folder, str):
        new, name = os.path.join(folder, new), os.path.join(folder, _plain(name))
    if left:
        with suppress(FileNotFoundError):
            os.unlink(new, dir_fd=here)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, mode, dir_fd=here)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if settle is not None:
                settle(file.fileno())
            if sync:
                os.fsync(file.fileno())
        os.replace(new, name, src_dir_fd=here, dst_dir_fd=here)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(new, dir_fd=here)
        raise


def open_now(path: str) -> BufferedReader:
    """Open a file for reading. A FIFO is not waited for, nor is a file of the kernel: its ``read`` may return None."""
    return open(path, "rb", opener=lambda path, given: os.open(path, given | flags("O_NONBLOCK")))


def read_start(path: str, size: int = 4096) -> bytes:
    """The first bytes of a file of any kind; empty where there is none to read."""
    with suppress(OSError), open_now(path) as file:
        return file.read(size) or b""
    return b""


def read_bounded(path: str, maximum: int) -> bytes:
    """Read a regular file of at most ``maximum`` bytes; InputError where it is none, not readable, or larger."""
    try:
        with open_now(path) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{path} is not a regular file", code="file")
            # None: a file of the kernel has nothing to give now, which is not the same as an empty file.
            data: bytes | None = file.read(maximum + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None
    except ValueError:
        raise InputError(f"not a file name: {path!r}", code="file") from None
    if data is None:
        raise InputError(f"{path} gives nothing now, and is not waited for", code="file")
    if len(data) > maximum:
        raise InputError(f"{path} is larger than {maximum} bytes", code="file")
    return data


def _beside(name: str) -> str:
    return f".{_plain(name)}.new"


def _plain(name: str) -> str:
    if not name or "/" in name or name in (".", ".."):
        raise ValueError(f"not the name of a file in a folder: {name!r}")
    return name


def _walk(path: str, *, make: bool, mode: int) -> int:
    """A descriptor of this absolute path, which can be searched and not read."""
    todo = path.split("/")[::-1]
    here, shown, links = os.open("/", _SEARCH), "", 0
    try:
        _require_parent(os.fstat(here), "/")
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            place = f"{shown}/{name}"
            facts = _look(name, here, place, make=make, mode=mode)
            if stat.S_ISLNK(facts.st_mode):
                links += 1
                if links > _MAXIMUM_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                _require_owner(facts, place)
                target = os.readlink(name, dir_fd=here)
                todo += target.split("/")[::-1]
                if not target.startswith("/"):
                    continue
                below, place = os.open("/", _SEARCH), ""
            else:
                with _naming(place):
                    below = os.open(name, _SEARCH, dir_fd=here)
            os.close(here)
            here, shown = below, place
            _require_parent(os.fstat(here), place or "/")
    except BaseException:
        os.close(here)
        raise
    return here


def _look(name: str, folder: int, shown: str, *, make: bool, mode: int) -> os.stat_result:
    with _naming(shown):
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            if not make:
                raise
        # Where another process was first, what it made is checked like all else.
        with suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=folder)
        return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _require_owner(facts: os.stat_result, shown: str) -> None:
    caller = os.geteuid()
    if facts.st_uid not in (0, caller):
        wanted = "root" if caller == 0 else f"user {caller} or root"
        raise _refusal(shown, f"it belongs to user {facts.st_uid}; expected {wanted}")


def _require_parent(facts: os.stat_result, shown: str) -> None:
    _require_owner(facts, shown)
    if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
        raise _refusal(shown, f"all users may write into it (mode {_mode(facts)}) and rename what is there; chmod o-w")


def _mode(facts: os.stat_result) -> str:
    return f"{stat.S_IMODE(facts.st_mode):04o}"


def _refusal(path: str, why: str) -> PermissionError:
    return PermissionError(errno.EPERM, why, path)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Calls relative to a folder know a part of the name only. A reason of ours already has all of it."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and error.filename.startswith("/"):
            raise
        raise OSError(error.errno, error.strerror, path) from None


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


class PciDevices:
    """NVIDIA's devices by their addresses on the bus."""

    # No named tuple: every command loads this module, and making one costs its start a millisecond.
    __slots__ = ("gpus", "switches")

    def __init__(self, gpus: tuple[str, ...], switches: tuple[str, ...]) -> None:
        self.gpus, self.switches = gpus, switches


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
