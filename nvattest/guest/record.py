"""The record of the last run, ``/run/nvattest/state.json``: what ``status`` shows, and what later containers rely on.

A verdict is used again only by the same version of this program, in the same boot, with the same devices, driver load
and settings, until its time is over, and only with its token whole on disk. Nothing else is taken from a record: which
files decide, where the log is and how long a verdict serves stand in the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, NamedTuple

from nvattest._folder import TrustedFolder
from nvattest._version import __version__
from nvattest.guest.identity import Identity, boottime
from nvattest.guest.outcome import NO_GPU, NOT_TRUSTED, TRUSTED, UNFINISHED
from nvattest.guest.paths import Paths

__all__ = [
    "MAXIMUM_RECORD",
    "Finding",
    "Reason",
    "Record",
    "belongs",
    "finished_since",
    "read_record",
    "recognised",
    "record_to_json",
    "refreshable",
    "reusable",
    "serves",
    "token_is_whole",
    "write_record",
]

FORMAT: Final = "nvattest-hook-state"
VERSION: Final = 1
MAXIMUM_RECORD: Final = 256 * 1024
"""Bytes of a record."""
_MAXIMUM_TOKEN: Final = 4 * 1024 * 1024
_VERDICTS: Final = frozenset({TRUSTED, NO_GPU, NOT_TRUSTED, UNFINISHED})


class Reason(NamedTuple):
    """Why a run did not end with a good verdict, and what to do next."""

    code: str
    message: str
    hint: str = ""


class Finding(NamedTuple):
    """What a run saw that does not decide by itself."""

    code: str
    message: str


class Record(NamedTuple):
    """How a run ended, in memory and on disk; the members are explained in ``schemas/hook-state-1.json``.

    A named tuple and no dataclass: it is on the fast path. ``log`` is written for people and never read back.
    """

    verdict: str
    cause: str
    boot_id: str
    devices: str
    config: str
    inputs: dict[str, str | None]
    finished_boottime: float
    valid_until_boottime: float
    program: str = __version__
    run: str = ""
    stage: str = ""
    on_failure: str = "start"
    exit_status: int = 0
    reason: Reason | None = None
    findings: tuple[Finding, ...] = ()
    time: str = ""
    token_sha256: str | None = None
    token_before_sha256: str | None = None
    ready: bool | None = None
    ready_on_entry: bool | None = None
    milliseconds: dict[str, float] = {}  # noqa: RUF012 - a default of a tuple that nothing changes
    container: str = ""
    container_kind: str = ""
    stdin: str = ""
    gpus: int | None = None
    switches: int | None = None
    driver: dict[str, Any] | None = None
    result_code: int | None = None
    anchors: str | None = None
    simulated: bool | None = None
    weakened: tuple[str, ...] = ()
    log: dict[str, Any] = {}  # noqa: RUF012 - as above

    @property
    def good(self) -> bool:
        """The verdict lets a workload start."""
        return self.verdict in (TRUSTED, NO_GPU)


def read_record(folder: TrustedFolder) -> Record | None:
    """The last record, or None where there is none that this version wrote."""
    try:
        document = json.loads(folder.read(Paths.STATE, MAXIMUM_RECORD))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or (document.get("format"), document.get("version")) != (FORMAT, VERSION):
        return None
    try:
        record = Record(**{name: read(document[name]) for name, read in _READERS.items()})
    except (KeyError, TypeError, ValueError):
        return None
    # A verdict and a cause that contradict each other were not written by this program.
    if record.verdict not in _VERDICTS or record.good is not (record.cause == "ok"):
        return None
    return record


def write_record(folder: TrustedFolder, record: Record) -> None:
    """Put a record in the place of the last.

    Raises:
        OSError: it could not be written.
    """
    data = {"format": FORMAT, "version": VERSION, **record_to_json(record)}
    folder.write(Paths.STATE, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def record_to_json(record: Record) -> dict[str, Any]:
    """The members of a record as JSON has them."""
    return {
        **record._asdict(),
        "reason": None if record.reason is None else record.reason._asdict(),
        "findings": [item._asdict() for item in record.findings],
    }


def belongs(record: Record | None, identity: Identity) -> bool:
    """Whether the record is of this boot, these devices, this driver load, these settings and this program."""
    return (
        record is not None
        and identity.boot != ""
        and record.program == __version__
        and record.boot_id == identity.boot
        and record.devices == identity.devices
        and record.config == identity.config
        and record.inputs == identity.inputs
    )


def reusable(record: Record | None, identity: Identity, folder: TrustedFolder, *, seconds: float) -> bool:
    """Whether this good verdict may be used again now; it serves for ``seconds`` at most."""
    if record is None or not serves(record, identity, seconds=seconds):
        return False
    return record.verdict == NO_GPU or token_is_whole(record, folder)


def serves(record: Record | None, identity: Identity, *, seconds: float) -> bool:
    """Whether this is a good verdict on what is there now and its time is not over, whatever became of its token."""
    if record is None or not belongs(record, identity) or not record.good:
        return False
    ends = min(record.valid_until_boottime, record.finished_boottime + seconds)
    return record.finished_boottime <= boottime() < ends


def refreshable(record: Record | None, identity: Identity) -> bool:
    """Whether these devices, and no others, were found trusted by a run that ended, or was killed at its last step.

    They may stay ready while they are attested again, if the token on disk is that run's too (``recognised``).
    """
    if record is None or not belongs(record, identity):
        return False
    return record.verdict == TRUSTED or (record.verdict == UNFINISHED and record.result_code == 0)


def recognised(record: Record | None, boot: str, folder: TrustedFolder) -> bool:
    """Whether the token on disk is of a run of ours in this boot, and so the ready state that goes with it.

    A run that was killed while it replaced the token may have left the one before.
    """
    if record is None or not boot or record.boot_id != boot or record.verdict not in (TRUSTED, UNFINISHED):
        return False
    return _token_digest(folder) in {record.token_sha256, record.token_before_sha256} - {None}


def token_is_whole(record: Record, folder: TrustedFolder) -> bool:
    """Whether the token on disk is the one that the record speaks of."""
    found = _token_digest(folder)
    return found is not None and found == record.token_sha256


def _token_digest(folder: TrustedFolder) -> str | None:
    try:
        return sha256(folder.read(Paths.TOKEN, _MAXIMUM_TOKEN)).hexdigest()
    except OSError:
        return None


def finished_since(record: Record | None, identity: Identity, since: float, folder: TrustedFolder) -> bool:
    """Whether this verdict, good or bad, was made while we waited for it (``since`` in seconds since boot)."""
    if record is None or not belongs(record, identity) or record.verdict == UNFINISHED:
        return False
    if record.cause == "terminated":
        # A run that a signal ended says nothing about the devices.
        return False
    if not since <= record.finished_boottime <= boottime():
        return False
    return record.verdict != TRUSTED or token_is_whole(record, folder)


# --- what each member may be ------------------------------------------------------------------------------------------

_Read = Callable[[Any], Any]


def _of(*types: type) -> _Read:
    def read(value: Any) -> Any:
        # JSON's true is an int for isinstance.
        if type(value) not in types:
            raise TypeError
        return value

    return read


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


def _inputs(value: Any) -> dict[str, str | None]:
    if type(value) is not dict or not all(type(item) in (str, type(None)) for item in value.values()):
        raise TypeError
    return value


def _reason(value: Any) -> Reason | None:
    return None if value is None else Reason(**{name: _text(value[name]) for name in Reason._fields})


def _findings(value: Any) -> tuple[Finding, ...]:
    return tuple([Finding(**{name: _text(item[name]) for name in Finding._fields}) for item in _list(value)])


def _texts(value: Any) -> tuple[str, ...]:
    return tuple([_text(item) for item in _list(value)])


_NULL: Final = type(None)
_text: Final = _of(str)
_list: Final = _of(list)
_READERS: Final[dict[str, _Read]] = {
    "verdict": _text,
    "cause": _text,
    "boot_id": _text,
    "devices": _text,
    "config": _text,
    "inputs": _inputs,
    "finished_boottime": _number,
    "valid_until_boottime": _number,
    "program": _text,
    "run": _text,
    "stage": _text,
    "on_failure": _text,
    "exit_status": _of(int),
    "reason": _reason,
    "findings": _findings,
    "time": _text,
    "token_sha256": _of(str, _NULL),
    "token_before_sha256": _of(str, _NULL),
    "ready": _of(bool, _NULL),
    "ready_on_entry": _of(bool, _NULL),
    "milliseconds": _of(dict),
    "container": _text,
    "container_kind": _text,
    "stdin": _text,
    "gpus": _of(int, _NULL),
    "switches": _of(int, _NULL),
    "driver": _of(dict, _NULL),
    "result_code": _of(int, _NULL),
    "anchors": _of(str, _NULL),
    "simulated": _of(bool, _NULL),
    "weakened": _texts,
}
"""Every member but ``log``. A record of an older version lacks some, and is none then."""
