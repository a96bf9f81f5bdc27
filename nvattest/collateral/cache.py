"""Collateral on disk: RIMs by id and digest, OCSP answers by CertID, a CPU maker's files by platform or chip.

A convenience, never an authority.

Everything read here is verified like something from the network. A file that is damaged, foreign, too old or from the
future counts as missing. Files are written beside and renamed, under one lock, into a ``TrustedFolder``; they are not
synced to the disk, because the digest shows a file that a crash tore.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Final

from nvattest._documents import load_json
from nvattest._system import HAS_FOLDERS, Lock, TrustedFolder
from nvattest.collateral.bundle import MAXIMUM_ANSWER, MAXIMUM_CPU, MAXIMUM_RIM, decoded, encoded
from nvattest.errors import InputError
from nvattest.model import format_time, parse_time
from nvattest.rim.ids import is_rim_id

FORMAT: Final = "nvattest-cache"
VERSION: Final = 1
RIM_AGE: Final = timedelta(hours=24)
MAXIMUM_FILES: Final = 4096
MAXIMUM_BYTES: Final = 128 * 1024 * 1024
_MAXIMUM_ENTRY: Final = max(MAXIMUM_RIM, MAXIMUM_CPU) * 4 // 3 + 4096
_PARTS: Final = ("rims", "ocsp", "cpu")
_CLOCK_SKEW: Final = timedelta(minutes=5)
_LOCK_PATIENCE: Final = 1.0


def default_cache_folder() -> str | None:
    """``$XDG_CACHE_HOME/nvattest``, else ``~/.cache/nvattest``.

    None for a user without a home, and on a system that cannot keep a folder from being changed by others (Windows).
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "nvattest") if HAS_FOLDERS and os.path.isabs(base) else None


class DiskCache:
    """A cache in one folder, which is made where it is missing.

    Args:
        folder: where.
        rim_age: how long a RIM counts after it was fetched; an id is sometimes issued again with other content.
        now: the wall clock, for ages.

    Raises:
        InputError: the folder cannot be made, or others may change it (``TrustedFolder``).
    """

    def __init__(
        self,
        folder: str,
        *,
        rim_age: timedelta = RIM_AGE,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.folder, self._rim_age, self._now = folder, rim_age, now
        self._patience = _LOCK_PATIENCE
        try:
            self._home = TrustedFolder(folder, make=True)
            self._parts = {name: TrustedFolder(name, make=True, inside=self._home) for name in _PARTS}
        except (OSError, ValueError) as error:
            why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else f"{error}"
            raise InputError(
                f"the cache {folder} cannot be used: {why}", code="cache", hint="name another with --cache-dir"
            ) from None

    def rims(self, rim_id: str) -> tuple[bytes, ...]:
        """The documents kept for this id that are not too old, the newest first."""
        found = []
        for name in self._names("rims"):
            # An id has no "@".
            if name.startswith(f"{rim_id}@"):
                entry = self._read("rims", name, rim_id, MAXIMUM_RIM)
                if entry is not None and entry[0] + self._rim_age > self._now():
                    found.append(entry)
        return tuple(content for _, content in sorted(found, reverse=True))

    def answer(self, key: str) -> bytes | None:
        """The OCSP answer kept for this CertID key (``pki.ocsp.cert_id_key``). Its signed window is for the caller."""
        entry = self._read("ocsp", f"{key}.json", key, MAXIMUM_ANSWER)
        return entry[1] if entry is not None else None

    def cpu(self, key: str, *, aged: bool) -> bytes | None:
        """The file of a CPU maker kept under this key; with ``aged`` one that was fetched as long ago as a RIM may."""
        entry = self._read("cpu", f"{key}.json", key, MAXIMUM_CPU)
        if entry is None or (aged and entry[0] + self._rim_age <= self._now()):
            return None
        return entry[1]

    def store_cpu(self, key: str, content: bytes) -> bool:
        """Keep a verified file of a CPU maker; whether it was kept. A failure raises nothing."""
        with self._locked() as locked:
            return locked and len(content) <= MAXIMUM_CPU and self._write("cpu", f"{key}.json", key, content)

    def store_rim(self, rim_id: str, content: bytes) -> bool:
        """Keep a verified RIM in place of what this id had; whether it was kept. A failure raises nothing."""
        if not is_rim_id(rim_id) or len(content) > MAXIMUM_RIM:
            return False
        name = f"{rim_id}@{hashlib.sha256(content).hexdigest()}.json"
        with self._locked() as locked:
            if not locked or not self._write("rims", name, rim_id, content):
                return False
            for other in self._names("rims"):
                if other.startswith(f"{rim_id}@") and other != name:
                    self._remove("rims", other)
            return True

    def store_answers(self, answers: dict[str, bytes]) -> bool:
        """Keep verified good OCSP answers by their CertID keys; whether all were kept. A failure raises nothing."""
        if not answers:
            return True
        with self._locked() as locked:
            # One that cannot be kept does not stop the others.
            kept = [
                locked and len(content) <= MAXIMUM_ANSWER and self._write("ocsp", f"{key}.json", key, content)
                for key, content in answers.items()
            ]
            return all(kept)

    def _read(self, part: str, name: str, key: str, maximum: int) -> tuple[datetime, bytes] | None:
        try:
            data = self._parts[part].read(name, _MAXIMUM_ENTRY)
            entry = load_json(data, source="cache", maximum=_MAXIMUM_ENTRY)
            if not isinstance(entry, dict) or (entry.get("format"), entry.get("version")) != (FORMAT, VERSION):
                return None
            content = decoded(str(entry.get("content")), str(entry.get("sha256")), maximum)
            stored = parse_time(str(entry.get("stored")))
        except (OSError, InputError, ValueError):
            return None
        if entry.get("key") != key or stored > self._now() + _CLOCK_SKEW:
            return None
        return stored, content

    def _write(self, part: str, name: str, key: str, content: bytes) -> bool:
        text = json.dumps(
            {"format": FORMAT, "version": VERSION, "key": key, "stored": format_time(self._now()), **encoded(content)}
        )
        with contextlib.suppress(OSError):
            self._parts[part].write(name, text.encode("ascii"), mode=0o600, sync=False)
            return True
        return False

    def _names(self, part: str) -> list[str]:
        with contextlib.suppress(OSError):
            return self._parts[part].names()
        return []

    def _remove(self, part: str, name: str) -> None:
        with contextlib.suppress(OSError):
            self._parts[part].remove(name)

    def _prune(self) -> None:
        """Keep the folder small: the files that were written longest ago go first."""
        files = []
        for part in _PARTS:
            for name in self._names(part):
                with contextlib.suppress(OSError):
                    facts = self._parts[part].facts(name)
                    files.append((facts.st_mtime, facts.st_size, part, name))
        files.sort(reverse=True)
        total = 0
        for count, (_, size, part, name) in enumerate(files, start=1):
            total += size
            if count > MAXIMUM_FILES or total > MAXIMUM_BYTES:
                self._remove(part, name)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock for writing, and then keep the folder small.

        False where another process keeps the lock for too long, or it cannot be opened.
        """
        try:
            lock = Lock(self._home)
        except OSError:
            yield False
            return
        try:
            # A process that was stopped while it wrote must not stop this one: what is not kept is fetched again.
            locked = lock.take(time.monotonic() + self._patience)
            # Waiting is not repeated: a verification stores many things, and has a deadline.
            self._patience = _LOCK_PATIENCE if locked else 0.0
            yield locked
            if locked:
                self._prune()
        finally:
            lock.close()
