"""Where a run writes: the log file, one line in the kernel's log, one on stderr. The host can read all three."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from typing import Final

from nvattest._folder import TrustedFolder
from nvattest._text import clean, escaped, joined
from nvattest.guest.paths import Paths

__all__ = ["Journal"]

_LINE: Final = 480
_PREFIX: Final = "nvattest-hook"
# A reader of stderr that has stopped must not hold up a run that has the lock.
_STDERR_SECONDS: Final = 0.2


class Journal:
    """Writes lines to the log file, and the verdict to the kernel's log and stderr.

    A log that cannot be written never decides anything. Its lines go into the run folder, ``fault`` says why, the
    verdict's line on stderr has that, and the run goes on. ``file`` is the one that took the last lines, if any did.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._file = paths.at(paths.LOG)
        self._maximum = 1024 * 1024
        self._keep = 2
        self._kmsg = True
        self.fault = ""
        self.file: str | None = None

    def configure(self, *, file: str, maximum: int, keep: int, kmsg: bool) -> None:
        """Use other settings than the defaults from here on."""
        self._file, self._maximum, self._keep, self._kmsg = file, maximum, keep, kmsg

    def lines(self, lines: list[str]) -> None:
        """Append lines to the log file; one write, so that runs at the same time do not mix."""
        data = (joined(lines) + "\n" if lines else "").encode("utf-8", "replace")
        fault = self._append(self._file, data, log=True)
        if fault:
            # Often a guest's root is read-only and its /run is not.
            spare = self._paths.at(f"{Paths.RUN}/{os.path.basename(Paths.LOG)}")
            also = self._append(spare, data, log=False)
            self.fault = f"{fault}; {also}" if also else f"{spare}, since {fault}"
            self.file = None if also else spare
        else:
            self.file = self._file

    def summary(self, facts: dict[str, object]) -> None:
        """The one JSON line of a run."""
        self.lines([escaped(json.dumps({"time": stamp(), **facts}, sort_keys=True))])

    def verdict(self, text: str, *, good: bool) -> None:
        """The one line that the host's journal shows."""
        line = clean(f"{_PREFIX}: {text}")[:_LINE]
        if self._kmsg:
            try:
                descriptor = os.open(self._paths.kmsg, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    # 5 is notice, 3 is error; the kernel makes one record of one write.
                    os.write(descriptor, f"<{5 if good else 3}>{line}\n".encode())
                finally:
                    os.close(descriptor)
            except OSError as error:
                self.fault = self.fault or f"{self._paths.kmsg}: {error.strerror or error}"
        if self.fault:
            line = f"{line} (log: {clean(self.fault, 400)})"
        try:
            _print(line)
        except (OSError, ValueError, AttributeError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            self.fault = self.fault or f"stderr: {why or 'it is closed'}"

    def _append(self, path: str, data: bytes, *, log: bool) -> str:
        """Append to a log file; "", or why it could not be done."""
        home, name = os.path.split(path)
        try:
            with TrustedFolder(home, make=True, mode=0o755, log=log) as folder:
                self._rotate(folder, name, len(data))
                folder.append(name, data)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            return f"{getattr(error, 'filename', None) or path}: {why or error}"
        return ""

    def _rotate(self, folder: TrustedFolder, name: str, more: int) -> None:
        try:
            size = folder.facts(name).st_size
        except FileNotFoundError:
            return
        if size + more <= self._maximum:
            return
        for number in range(self._keep, 0, -1):
            older = name if number == 1 else f"{name}.{number - 1}"
            try:
                folder.rename(older, f"{name}.{number}")
            except FileNotFoundError:
                continue
        if self._keep == 0:
            folder.remove(name)


def _print(line: str) -> None:
    """Write a line to stderr where it can be written now; a pipe takes one of this length whole or not at all.

    Raises:
        OSError, ValueError, AttributeError: it cannot, or the stream is closed.
    """
    import select

    try:
        descriptor = sys.stderr.fileno()
    except OSError:
        # Not a file: a program keeps the text.
        print(line, file=sys.stderr, flush=True)
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(1000 * _STDERR_SECONDS):
        raise BlockingIOError(errno.EAGAIN, "nothing reads it")
    os.write(descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))


def stamp() -> str:
    """Now, as the guest's clock has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
