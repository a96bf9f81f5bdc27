"""The record of the last run, ``/run/nvattest/state.json``: what ``status`` shows, and what later containers rely on.

A verdict is used again only by the same version of this program, in the same boot, with the same devices, driver load
and settings, until its time is over, and only with its token whole on disk.
"""

from __future__ import annotations

import json
from typing import Any, Final

from nvattest._version import __version__
from nvattest.kata.files import write_whole
from nvattest.kata.identity import Identity, boottime, digest_file
from nvattest.kata.outcome import NO_GPU, NOT_TRUSTED, TRUSTED
from nvattest.kata.paths import Paths

__all__ = ["Record", "belongs", "finished_since", "read_record", "reusable", "write_record"]

FORMAT: Final = "nvattest-hook-state"
VERSION: Final = 1
_MAXIMUM: Final = 256 * 1024

Record = dict[str, Any]


def read_record(paths: Paths) -> Record | None:
    """The last record, or None where there is none that this version can read."""
    try:
        with open(paths.state, "rb") as file:
            data = file.read(_MAXIMUM + 1)
        record = json.loads(data) if len(data) <= _MAXIMUM else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        return None
    return record


def write_record(paths: Paths, record: Record) -> None:
    """Put a record in the place of the last.

    Raises:
        OSError: it could not be written.
    """
    data = {"format": FORMAT, "version": VERSION, "program": __version__, **record}
    write_whole(paths.state, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def belongs(record: Record | None, identity: Identity) -> bool:
    """Whether the record is of this boot, these devices, this driver load, these settings and this program."""
    return (
        record is not None
        and identity.boot != ""
        and record.get("program") == __version__
        and record.get("boot_id") == identity.boot
        and record.get("devices") == identity.devices
        and record.get("config") == identity.config
        and record.get("inputs") == identity.inputs
    )


def reusable(record: Record | None, identity: Identity, paths: Paths) -> bool:
    """Whether this good verdict may be used again now."""
    if record is None or not belongs(record, identity) or record.get("verdict") not in (TRUSTED, NO_GPU):
        return False
    made, ends = record.get("finished_boottime"), record.get("valid_until_boottime")
    if not isinstance(made, (int, float)) or not isinstance(ends, (int, float)) or not made <= boottime() < ends:
        return False
    return record["verdict"] == NO_GPU or token_is_whole(record, paths)


def token_is_whole(record: Record, paths: Paths) -> bool:
    """Whether the token on disk is the one that the record speaks of."""
    expected = record.get("token_sha256")
    return isinstance(expected, str) and digest_file(paths.token) == expected


def finished_since(record: Record | None, identity: Identity, since: float, paths: Paths) -> bool:
    """Whether this verdict, good or bad, was made while we waited for it (``since`` in seconds since boot)."""
    if record is None or not belongs(record, identity) or record.get("verdict") not in (TRUSTED, NO_GPU, NOT_TRUSTED):
        return False
    if record.get("cause") == "terminated":
        # Somebody ended that run; it says nothing about the devices.
        return False
    made = record.get("finished_boottime")
    if not isinstance(made, (int, float)) or not since <= made <= boottime():
        return False
    return record["verdict"] != TRUSTED or token_is_whole(record, paths)
