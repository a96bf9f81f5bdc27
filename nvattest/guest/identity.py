"""What a verdict belongs to: this boot, these devices, this driver load, these settings. Read in a millisecond.

All of this serves to recognise our own verdict; trust comes from the appraisal alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NamedTuple

from nvattest._pci import device_digest, read_small
from nvattest.guest.paths import Paths

__all__ = ["LOOK_SECONDS", "Identity", "boottime", "digest_file", "identify", "seconds_since_fork"]

LOOK_SECONDS: Final = 2.0
"""How often the watch looks whether the devices are still those of the verdict, also while it attests them again."""

_SMALL_FILE: Final = 1024 * 1024


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


def seconds_since_fork() -> float:
    """The age of this process; 0.0 where the kernel does not say.

    An agent counts from here, and on a slow machine an interpreter needs a good part of its patience to start.
    """
    # Its name, in parentheses, may hold anything.
    fields = read_small("/proc/self/stat").rpartition(")")[2].split()
    try:
        # Field 22 of proc(5), in ticks since boot.
        return max(0.0, boottime() - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (IndexError, ValueError):
        return 0.0


def identify(paths: Paths, inputs: Iterable[str]) -> Identity:
    """What a verdict made now would belong to; ``inputs`` are the files that decide what is demanded."""
    return Identity(
        boot=read_small(paths.boot_id).strip(),
        devices=device_digest(paths.root),
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
            first: bytes | None = file.read(_SMALL_FILE)
            if first is None:
                return None
            digest = sha256(first)
            if file.read(1):
                facts = os.fstat(file.fileno())
                numbers = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
                digest.update(repr(numbers).encode())
    except OSError:
        return None
    return digest.hexdigest()
