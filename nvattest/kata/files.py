"""Files that are whole or not there, the lock, and folders that only we write to."""

from __future__ import annotations

import os
import time
from typing import Final

__all__ = ["Lock", "make_folder", "remove", "write_whole"]

_POLL: Final = 0.02


def make_folder(path: str, mode: int = 0o755) -> None:
    """Make a folder and those above it.

    Raises:
        OSError: it cannot be made.
    """
    os.makedirs(path, mode=mode, exist_ok=True)


def write_whole(path: str, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that any reader, and any later run, finds the old content or all of the new.

    Raises:
        OSError: it could not be written; the old content stays.
    """
    folder = os.path.dirname(path)
    temporary = f"{path}.{os.getpid()}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    # The name too has to be on disk before anything is done that relies on the file.
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def remove(path: str) -> None:
    """Remove a file that may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


class Lock:
    """An exclusive lock on a file. The kernel drops it when the process ends, however it ends."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: str) -> None:
        """Open the lock file.

        Raises:
            OSError: it cannot be opened.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def take(self, until: float) -> bool:
        """Wait for the lock until this instant of ``time.monotonic``; whether it was taken."""
        import fcntl

        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    return False
                time.sleep(_POLL)
            else:
                return True

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)
