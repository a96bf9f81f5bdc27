"""How a run ends: the record for programs, the log for people, and the rules by which a later run uses what it finds.

The record is ``/run/nvattest/state.json`` (``schemas/hook-state-1.json``). ``status`` shows it, and later containers
rely on it. Every rule about that is in this module:

    verdict       token on disk           GPUs         what a later run does with it
    trusted       the record's            ready        uses it, or keeps the GPUs ready while it attests them again
    no-gpu        none                    none         uses it while the bus shows none
    not-trusted   none                    not ready    takes it as its own if it waited for it, and else attests
    unfinished    this run's, the one     not known    attests; a token that the record names is ours, and so is the
                  before, or none                      ready state that goes with it

A verdict *stands* for the same version of this program, in the same boot, with the same devices, driver load and
settings, until its time is over, and only with its token whole on disk. Nothing else is taken from a record: which
files decide, where the log is and how long a verdict serves are in the configuration.

All of this serves to recognise our own verdict; trust comes from the appraisal alone.

The log file, one line in the kernel's log and one on stderr are for people. The host reads all three.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from nvattest._package import __version__
from nvattest._system import TrustedFolder, device_digest, open_now, read_small
from nvattest._text import clean, escaped, joined
from nvattest.guest.config import Paths, Settings

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal, DeviceAppraisal
    from nvattest.evidence import Evidence

# --- how a run ends ---------------------------------------------------------------------------------------------------

# The verdicts. Only TRUSTED goes with GPUs that accept work.
TRUSTED: Final = "trusted"
NO_GPU: Final = "no-gpu"
NOT_TRUSTED: Final = "not-trusted"
UNFINISHED: Final = "unfinished"

EXIT: Final = {
    "ok": 0,
    "not-trusted": 1,
    "usage": 2,
    "configuration": 3,
    "collection": 4,
    "no-gpu": 5,
    "deadline": 6,
    "clock": 7,
    "output": 8,
    "ready-state": 9,
    "devices-changed": 10,
    "lock": 11,
    "internal": 70,
    "terminated": 143,
}
"""Exit statuses by cause. A cause that is not here counts as ``internal``."""

_READY: Final = {
    True: "the GPUs are ready",
    False: "GPUs not ready",
    None: "the driver could not be asked: the GPUs may be ready",
}


def exit_status(cause: str) -> int:
    """The exit status of a cause; 0 for ``ok`` alone."""
    return EXIT.get(cause, EXIT["internal"])


def shown_status(cause: str, *, stage: str, on_failure: str) -> int:
    """What the caller of this stage sees. A hook may let containers start, for the GPUs stay not ready."""
    return 0 if stage == "hook" and on_failure == "start" else exit_status(cause)


def headline(verdict: str, ready: bool | None, cause: str = "") -> str:
    """The first words about a run, in the log, on stderr and in the kernel's log.

    ``ready`` is what the driver answered last about the GPUs, None where it has not answered since it was asked to
    change it. After ``no-gpu`` there is none to be ready; a ``lock`` leaves the ready state to the run that has it.
    """
    if verdict == TRUSTED:
        return "attestation successful, GPUs set ready"
    if verdict == NO_GPU:
        return "no GPU in this guest, as configured"
    ended = "attestation did not end" if verdict == UNFINISHED else "attestation failed"
    if cause == "lock":
        return f"{ended}, the ready state is left to another attestation"
    if cause == "no-gpu" and ready is None:
        return f"{ended}, there is no GPU"
    return f"{ended}, {_READY[ready]}"


# --- what a verdict belongs to ----------------------------------------------------------------------------------------

_SMALL_FILE: Final = 1024 * 1024


class Identity(NamedTuple):
    """``boot_id`` is empty where the kernel did not say; then no verdict stands.

    ``config`` says which of the ``inputs`` is the configuration.
    """

    boot_id: str
    devices: str
    config: str
    inputs: dict[str, str | None]


def boottime() -> float:
    """Seconds since boot, asleep or awake. It is the one clock that the host cannot set."""
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
        boot_id=read_small(paths.boot_id).strip(),
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
        with open_now(path) as file:
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


# --- the record -------------------------------------------------------------------------------------------------------

_FORMAT: Final = ("nvattest-hook-state", 1)
MAXIMUM_RECORD: Final = 256 * 1024
"""Bytes of a record."""
_MAXIMUM_TOKEN: Final = 4 * 1024 * 1024
_KINDS: Final = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a table",
}  # fmt: skip
_VERDICTS: Final = frozenset({TRUSTED, NO_GPU, NOT_TRUSTED, UNFINISHED})


class Reason(NamedTuple):
    """Why a run did not end with a good verdict, and what to do next."""

    code: str
    message: str
    hint: str = ""


class Remark(NamedTuple):
    """What a run saw that does not decide by itself."""

    code: str
    message: str


class Record(NamedTuple):
    """How a run ended, in memory and on disk; the members are explained in ``schemas/hook-state-1.json``.

    A named tuple and no dataclass: it is on the fast path. ``log`` is never read back.
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
    findings: tuple[Remark, ...] = ()
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
    collateral_expires: str | None = None
    tee: dict[str, Any] | None = None
    log: dict[str, Any] = {}  # noqa: RUF012 - as above

    @property
    def good(self) -> bool:
        """The verdict lets a workload start."""
        return self.verdict in (TRUSTED, NO_GPU)

    @property
    def phases(self) -> dict[str, float]:
        """The seconds that each phase took; a mark in ``milliseconds`` is the end of one."""
        found, before = {}, 0.0
        for name, end in sorted(self.milliseconds.items(), key=lambda mark: mark[1]):
            found[name], before = round((end - before) / 1000, 4), end
        return found

    @property
    def identity(self) -> Identity:
        """What the verdict is about."""
        return Identity(self.boot_id, self.devices, self.config, self.inputs)


def read_record(folder: TrustedFolder) -> Record | None:
    """The last record, or None where there is none that this version wrote."""
    try:
        document = json.loads(folder.read(Paths.STATE, MAXIMUM_RECORD))
        if (document["format"], document["version"]) != _FORMAT:
            return None
        kinds = get_type_hints(Record).items()
        # A record of an older version lacks some members, and is none then.
        record = Record(**{name: read_as(kind, document[name]) for name, kind in kinds if name != "log"})
    except (OSError, ValueError, RecursionError, KeyError, TypeError, OverflowError):
        return None
    # This program writes no verdict and cause that contradict each other.
    if record.verdict not in _VERDICTS or record.good is not (record.cause == "ok"):
        return None
    return record


def read_as(kind: Any, value: Any, where: str = "") -> Any:
    """A value of JSON or TOML as this type: one of its own, ``X | None``, a tuple or dict of such, or a named tuple.

    ``where`` names the value in messages. A member that is not there has its default. Raises TypeError: it has another
    type, or lacks a member without a default.
    """
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if NoneType in inner:
        return None if value is None else read_as(inner[0], value, where)
    if origin is tuple:
        return tuple([read_as(inner[0], item, where) for item in read_as(list, value, where)])
    if origin is dict and inner:
        return {name: read_as(inner[1], item, where) for name, item in read_as(dict, value, where).items()}
    if hasattr(kind, "_fields"):
        members, hints = read_as(dict, value, where), get_type_hints(kind)
        for name in hints.keys() - kind._field_defaults.keys() - members.keys():
            raise TypeError(f"{where} without {name}")
        place = f"{where}: " if where else ""
        # Other members are passed over.
        return kind(**{name: read_as(hints[name], members[name], place + name) for name in hints if name in members})
    if kind is float and type(value) is int:
        return float(value)
    # JSON's true is an int for isinstance.
    if kind is not Any and type(value) is not kind:
        raise TypeError(f"{where}: expected {_KINDS[kind]}, found {value!r}"[:300])
    return value


def write_record(folder: TrustedFolder, record: Record) -> None:
    """Put a record in the place of the last."""
    data = {"format": _FORMAT[0], "version": _FORMAT[1], **record_to_json(record)}
    folder.write(Paths.STATE, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def record_to_json(record: Record) -> dict[str, Any]:
    """The members of a record as JSON has them."""
    return {
        **record._asdict(),
        "reason": None if record.reason is None else record.reason._asdict(),
        "findings": [item._asdict() for item in record.findings],
    }


# --- the rules --------------------------------------------------------------------------------------------------------


def belongs(record: Record | None, identity: Identity) -> bool:
    """Whether the record is of this boot, these devices, this driver load, these settings and this program."""
    return (
        record is not None and identity.boot_id != "" and record.program == __version__ and record.identity == identity
    )


def reusable(record: Record | None, identity: Identity, folder: TrustedFolder, *, seconds: float) -> bool:
    """Whether this verdict is good and stands now; it serves for ``seconds`` at most."""
    if record is None or not serves(record, identity, seconds=seconds):
        return False
    return record.verdict == NO_GPU or token_is_whole(record, folder)


def serves(record: Record | None, identity: Identity, *, seconds: float) -> bool:
    """Whether this verdict is good, about what is there now, and in time; its token is not looked at."""
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
    """Whether this verdict, good or bad, was reached after ``since`` (seconds since boot), as the caller waited."""
    if record is None or not belongs(record, identity) or record.verdict == UNFINISHED:
        return False
    if record.cause == "terminated":
        # A run that a signal ended says nothing about the devices.
        return False
    if not since <= record.finished_boottime <= boottime():
        return False
    return record.verdict != TRUSTED or token_is_whole(record, folder)


# --- the log ----------------------------------------------------------------------------------------------------------

# Characters of a foreign text in a line, and of the line that the host's journal shows.
_MAXIMUM: Final = 400
_LINE: Final = 480
# A reader of stderr that has stopped must not hold up a run that has the lock.
_STDERR_SECONDS: Final = 0.2


class Journal:
    """Writes lines to the log file, and the verdict to the kernel's log and stderr, as ``settings`` say.

    A log that cannot be written never decides anything. Its lines go into the run folder, ``fault`` says why, the
    verdict's line on stderr has that, and the run goes on. ``file`` is the one that took the last lines, if any did.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.fault = ""
        self.file: str | None = None

    def lines(self, lines: list[str]) -> None:
        """Append lines to the log file; one write, so that runs at the same time do not mix."""
        data = (joined(lines) + "\n" if lines else "").encode("utf-8", "replace")
        self.file = self.settings.paths.at(self.settings.config.log_file)
        fault = self._append(self.file, data, log=True)
        if fault:
            # Often a guest's root is read-only and its /run is not.
            spare = self.settings.paths.at(f"{Paths.RUN}/{os.path.basename(Paths.LOG)}")
            also = self._append(spare, data, log=False)
            self.fault = f"{fault}; {also}" if also else f"{spare}, since {fault}"
            self.file = None if also else spare

    def summary(self, facts: dict[str, object]) -> None:
        """The one JSON line of a run."""
        document = {"format": "nvattest-hook-log", "version": 1, "time": stamp(), **facts}
        self.lines([escaped(json.dumps(document, sort_keys=True))])

    def verdict(self, text: str, *, good: bool) -> None:
        """The one line that the host's journal shows."""
        line, kmsg = clean(f"nvattest-hook: {text}")[:_LINE], self.settings.paths.kmsg
        if self.settings.config.log_kmsg:
            try:
                descriptor = os.open(kmsg, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    # 5 is notice, 3 is error; the kernel makes one record of one write.
                    os.write(descriptor, f"<{5 if good else 3}>{line}\n".encode())
                finally:
                    os.close(descriptor)
            except OSError as error:
                self.fault = self.fault or f"{kmsg}: {error.strerror or error}"
        if self.fault:
            line = f"{line} (log: {clean(self.fault, _MAXIMUM)})"
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
            if folder.facts(name).st_size + more <= self.settings.config.log_max_bytes:
                return
        except FileNotFoundError:
            return
        for number in range(self.settings.config.log_keep, 0, -1):
            with suppress(FileNotFoundError):
                folder.rename(name if number == 1 else f"{name}.{number - 1}", f"{name}.{number}")
        if self.settings.config.log_keep == 0:
            folder.remove(name)


def _print(line: str) -> None:
    """Write a line to stderr where it can be written now; a pipe takes one of this length whole or not at all."""
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


def write_log(record: Record, account: Sequence[str], journal: Journal) -> None:
    """Write the account into the log, the summary after it, and the verdict where the host sees it."""
    reason = record.reason
    lines = [f"{stamp()} nvattest-hook {record.stage} run {record.run}", *account]
    lines += [f"finding: {code}: {message}" for code, message in record.findings]
    if reason is not None:
        lines += [f"failed: {reason.code}: {reason.message}", *([f"next: {reason.hint}"] if reason.hint else [])]
    ready = {True: "ready", False: "not-ready", None: "unknown"}[record.ready]
    journal.lines([*lines, f"Confidential Compute GPUs Ready state: {ready}"])
    summary = {key: value for key, value in record_to_json(record).items() if key not in ("inputs", "log")}
    journal.summary(summary | {"reused": False})
    parts = [headline(record.verdict, record.ready, record.cause)]
    parts += ["SIMULATED, proves nothing"] if record.simulated else []
    parts += [reason.message] if reason is not None else []
    parts += [f"finding: {code}" for code, _ in record.findings]
    seconds = record.milliseconds.get("end", 0.0) / 1000
    journal.verdict(f"{'; '.join(parts)} ({record.stage}, {seconds:.2f} s)", good=record.good)


# --- the account of an appraisal --------------------------------------------------------------------------------------

# (depth, text, the ids of the checks behind it)
_Line = tuple[int, str, str]


def account(appraisal: Appraisal, evidence: Sequence[Evidence]) -> Iterator[str]:
    """All lines about this appraisal; ``evidence`` is what it was made from, in the same order.

    They have the words and the order of NVIDIA's local verifier, so that searches made for that one still find them.
    Each line of a success is written only if the checks behind it are acceptable; otherwise the failed checks are in
    its place with what was expected and found, and the account goes on to the end.
    """
    from nvattest.model import DeviceKind

    gpus = sum(device.kind is DeviceKind.GPU for device in appraisal.devices)
    yield f"Number of GPUs available : {gpus}"
    if switches := len(appraisal.devices) - gpus:
        yield f"Number of NVSwitches available : {switches}"
    if appraisal.simulated:
        yield "SIMULATED: the trust anchors are those of a simulation; this proves nothing"
    elif appraisal.anchors != "NVIDIA":
        yield f"Trust anchors : {clean(appraisal.anchors, _MAXIMUM)}"
    if appraisal.weakened:
        yield f"Weakened by policy : {', '.join(appraisal.weakened)}"
    for device, item in zip(appraisal.devices, evidence, strict=True):
        yield from _device(device, item, "GPU" if device.kind is DeviceKind.GPU else "NVSwitch")
    for check in appraisal.checks:
        if not check.acceptable:
            yield f"\tPLATFORM: {check.spec.title}: FAILED: {clean(check.detail, _MAXIMUM)}"
    yield f"\tattestation result: {appraisal.trusted}"


def _device(device: DeviceAppraisal, item: Evidence, word: str) -> Iterator[str]:
    name = f"{word} {device.index}"
    yield "-" * 35
    yield f"Fetching {name} information from {word} driver."
    yield f"VERIFYING {word} : {device.index}"
    if "driver_version" in item.hints:
        yield f"\tDriver version fetched : {clean(item.hints['driver_version'], _MAXIMUM)}"
    if "vbios_version" in item.hints:
        yield f"\tVBIOS version fetched : {clean(item.hints['vbios_version'].lower(), _MAXIMUM)}"
    for depth, text, checks in _story(device, word):
        failures = list(_failed(device, checks.split()))
        yield from failures or ["\t" * depth + text]
    yield f"\t{name} {'verified successfully.' if device.trusted else 'could not be verified.'}"


def _failed(device: DeviceAppraisal, ids: Iterable[str]) -> Iterator[str]:
    for id_ in ids:
        check = device.check(id_)
        if check is None:
            yield f"\t\t{id_}: FAILED: the check was not made"
        elif not check.acceptable:
            values = (("expected", check.expected), ("found", check.found))
            said = ", ".join([f"{name} {clean(value, _MAXIMUM)}" for name, value in values if value])
            tail = f" ({said})" if said else ""
            yield f"\t\t{check.spec.title}: FAILED: {clean(check.detail, _MAXIMUM)}{tail}"


def _story(device: DeviceAppraisal, word: str) -> Iterator[_Line]:
    yield 1, f"Validating {word} certificate chains.", ""
    chain = f"{word} attestation report certificate chain validation successful."
    yield 2, chain, "chain-format chain-path chain-validity"
    yield 2, "The certificate chain revocation status verification successful.", "chain-revocation"
    yield 1, "Authenticating attestation report", "report-format report-trailing-bytes"
    yield 2, "The nonce in the SPDM GET MEASUREMENT request message is matching with the generated nonce.", "nonce"
    fields = device.report.fields if device.report is not None else None
    for name in ("Driver", "VBIOS", "BIOS"):
        version = getattr(fields, f"{name.lower()}_version", None)
        if version is not None:
            version = version if name == "Driver" else version.lower()
            yield 2, f"{name} version fetched from the attestation report : {clean(version, _MAXIMUM)}", ""
    yield 2, "Attestation report signature verification successful.", "report-signature"
    yield 2, "Attestation report verification successful.", "architecture fwid debug mode versions hints"
    yield 1, "Authenticating the RIMs.", ""
    if device.check("reference-values") is not None:
        yield 2, "Reference values are published.", "reference-values"
    if word == "GPU":
        yield from _rim("driver", "Authenticating Driver RIM", "Schema validation passed.", "Driver")
        yield from _rim("vbios", "Authenticating VBIOS RIM.", "RIM Schema validation passed.", "VBIOS")
    else:
        yield from _rim("bios", "Authenticating BIOS RIM.", "RIM Schema validation passed.", "BIOS")
    yield 1, "Comparing measurements (runtime vs golden)", "rim-conflict"
    yield 2, "The runtime measurements are matching with the golden measurements.", "measurements minimum-svn"
    if device.trusted:
        yield 1, f"{word} is in the expected state.", ""


def _rim(role: str, heading: str, schema: str, name: str) -> Iterator[_Line]:
    yield 2, heading, f"{role}-rim-available"
    yield 3, schema, f"{role}-rim-format"
    yield 3, f"{role} RIM certificate chain verification successful.", f"{role}-rim-chain {role}-rim-validity"
    yield 3, "The certificate chain revocation status verification successful.", f"{role}-rim-revocation"
    yield 3, f"{role} RIM signature verification successful.", f"{role}-rim-signature {role}-rim-binding"
    yield 3, f"{name} RIM verification successful", ""
