"""Directories that behave like configfs-tsm and like the runtime registers, as functions of ``os``.

As in the kernel: a directory appears with its attributes, what is written takes effect at close, ``generation``
counts writes, ``outblob`` is made when it is read, a register is extended by a write of 48 bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

ROOT = "/config/tsm/report"
MEASUREMENTS = "/measurements"


def failure(number: int, path: str = "") -> OSError:
    return OSError(number, os.strerror(number), path)


@dataclass
class Entry:
    generation: int = 0
    report_data: bytes = b""
    outblob_reads: int = 0


@dataclass
class Handle:
    path: str
    writing: bool
    content: bytes = b""
    written: bytes = b""


@dataclass
class FakeKernel:
    """What ``os`` is for the code under test. Hooks inject errors and other programs."""

    provider: str | None = "tdx_guest"
    auxiliary: bytes | int = b""
    quote: Callable[[bytes], bytes] = lambda data: b"QUOTE" + data
    on_mkdir: Callable[[int], None] = lambda count: None
    on_outblob: Callable[[Entry], None] = lambda entry: None
    on_open: Callable[[str], None] = lambda path: None
    on_rmdir: Callable[[str], None] = lambda path: None
    short_write: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)
    registers: dict[str, bytes] = field(default_factory=dict)
    after_extend: Callable[[FakeKernel, str], None] = lambda kernel, path: None
    made: int = 0
    removed: list[str] = field(default_factory=list)
    handles: dict[int, Handle] = field(default_factory=dict)
    opened: int = 0
    names: int = 0

    path = posixpath
    O_RDONLY = os.O_RDONLY
    O_WRONLY = os.O_WRONLY

    def getpid(self) -> int:
        return 1234

    def urandom(self, size: int) -> bytes:
        self.names += 1
        return self.names.to_bytes(size, "big")

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        assert posixpath.dirname(path) == ROOT
        assert mode == 0o700
        self.made += 1
        self.on_mkdir(self.made)
        if self.provider is None:
            raise failure(errno.ENXIO, path)
        if path in self.entries:
            raise failure(errno.EEXIST, path)
        self.entries[path] = Entry()

    def rmdir(self, path: str) -> None:
        self.on_rmdir(path)
        del self.entries[path]
        self.removed.append(path)

    def open(self, path: str, flags: int) -> int:
        self.on_open(path)
        writing = flags == os.O_WRONLY
        self.opened += 1
        self.handles[self.opened] = Handle(path, writing, b"" if writing else self._content(path))
        return self.opened

    def _content(self, path: str) -> bytes:
        folder, name = posixpath.split(path)
        if folder == MEASUREMENTS:
            if path not in self.registers:
                raise failure(errno.ENOENT, path)
            return self.registers[path]
        entry = self.entries[folder]
        if name == "generation":
            return b"%d\n" % entry.generation
        if name == "provider":
            assert self.provider is not None
            return self.provider.encode() + b"\n"
        if name == "auxblob":
            if isinstance(self.auxiliary, int):
                raise failure(self.auxiliary, path)
            return self.auxiliary
        assert name == "outblob"
        entry.outblob_reads += 1
        self.on_outblob(entry)
        if len(entry.report_data) != 64:
            raise failure(errno.EINVAL, path)
        return self.quote(entry.report_data)

    def read(self, handle: int, size: int) -> bytes:
        item = self.handles[handle]
        part, item.content = item.content[:size], item.content[size:]
        return part

    def write(self, handle: int, data: bytes) -> int:
        item = self.handles[handle]
        assert item.writing
        if posixpath.dirname(item.path) == MEASUREMENTS:
            if len(data) != 48:
                raise failure(errno.EINVAL, item.path)
            self.registers[item.path] = hashlib.sha384(self.registers[item.path] + data).digest()
            self.after_extend(self, item.path)
            return len(data)
        taken = data[:10] if self.short_write else data
        item.written += taken
        return len(taken)

    def close(self, handle: int) -> None:
        item = self.handles.pop(handle)
        folder, name = posixpath.split(item.path)
        if item.writing and folder != MEASUREMENTS:
            assert name == "inblob"
            self.entries[folder].report_data = item.written
            self.entries[folder].generation += 1
