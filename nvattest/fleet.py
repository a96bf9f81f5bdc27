"""Many platforms: JSON Lines in, JSON Lines out, one answer for each line and in the order of the lines.

A line in: ``{"id": any, "nonce": "64 hex digits", "evidence": <any evidence form>, "at"?: "TIME"}``.
A line out (``schemas/batch-1.json``) has the verdict on each device, or ``"error"`` where the line could not be judged
at all. Its ``line`` and ``settings`` are digests of what was judged and by what: with them an interrupted run finds its
place again.

The ``at`` of a line chooses the clock that the line is judged by, so it counts only where the caller allows it.

Each worker process keeps one Verifier: RIMs, upper certificates and revocation answers are verified once per process.
"""

from __future__ import annotations

import codecs
import gc
import hashlib
import json
import os
import sys
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from multiprocessing import get_context
from typing import BinaryIO, Literal, TypeGuard, cast

from nvattest._documents import JsonObject, Metric, Samples, dump_metrics, load_json
from nvattest._system import lock_now
from nvattest.appraisal.check import Check
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.collateral.bundle import Bundles
from nvattest.collateral.fleet import grouped
from nvattest.collateral.gather import rim_ids_of
from nvattest.errors import InputError, NvattestError, ParseError, ResultCode
from nvattest.evidence import read_evidence
from nvattest.model import SIMULATED, Nonce, VerificationTime, counted, format_time, parse_time
from nvattest.pki.anchors import NVIDIA_ANCHORS, trust_anchors_from_pem
from nvattest.session import now
from nvattest.token.claims import ANOTHER_TIME, judged_at_another_time, policy_digest

MAXIMUM_LINE = 16 * 1024 * 1024
# As JSON. An answer repeats it, and stays so short that --resume can read it.
_MAXIMUM_ID = 4096
_CHUNK_LINES = 16
_CHUNK_BYTES = 4 * 1024 * 1024
_CHUNKS_PER_WORKER = 3
_COLLECT_EVERY = 50_000
_MAXIMUM_ANSWER = 16 * 1024 * 1024
_BEGINNING = b'{"id":'
_UNREADABLE = (OSError, EOFError, zlib.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """What every line is judged with. ``bundles`` are paths of files or folders, ``anchors`` the content of a file.

    Lines are judged at ``at``; where it is None, at the time they are read. ``allow_line_time`` lets a line bring an
    instant of its own; where that lies more than an hour away, the answer is weakened (``judged-at-another-time``).
    """

    bundles: tuple[str, ...]
    at: VerificationTime | None = None
    anchors: bytes | None = None
    policy: EvidencePolicy | None = None
    backend: str = "cryptography"
    allow_line_time: bool = False


class Judge:
    """Judges lines one by one; make one per process and keep it.

    With ``check`` all files of the bundles are read once. ``contents`` are those of another judge's bundles: both have
    the same ones, however files change meanwhile.

    Raises:
        InputError: a bundle or the anchors cannot be read.
    """

    def __init__(self, settings: BatchSettings, *, check: bool = False, contents: Sequence[bytes] = ()) -> None:
        anchors = NVIDIA_ANCHORS if settings.anchors is None else trust_anchors_from_pem(settings.anchors)
        self._at = settings.at
        self._allow_line_time = settings.allow_line_time
        self._verifier = Verifier(anchors=anchors, policy=settings.policy, backend=settings.backend)
        self._policy = policy_digest(self._verifier.policy)
        self._bundles = Bundles(settings.bundles, contents)
        if check:
            self._bundles.check()
        self.contents = self._bundles.contents
        facts = {
            "bundles": [hashlib.sha256(content).hexdigest() for content in self.contents],
            "anchors": hashlib.sha256(settings.anchors).hexdigest() if settings.anchors is not None else None,
            "policy": self._policy,
            "at": str(settings.at) if settings.at is not None else None,
            "allow_line_time": settings.allow_line_time,
        }
        self.digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        """SHA-256 of everything by which lines are judged, but for the clock where that is not a setting."""

    def judge(self, line: bytes) -> str:
        """The answer to one line, as one line of JSON without its newline. It never raises on what the line says."""
        name: object = None
        try:
            document = _object(line)
            name = document.get("id")
            answer = self._answer(_question(document))
        except NvattestError as error:
            answer = _error_answer(error.result_code, error.code, str(error))
        return _dump(name, answer, line, self.digest)

    def _answer(self, document: JsonObject) -> JsonObject:
        nonce, at = document.get("nonce"), document.get("at")
        if not isinstance(nonce, str):
            raise _malformed("'nonce' must be 64 hexadecimal digits")
        if at is not None and not isinstance(at, str):
            raise _malformed("'at' must be a time")
        if at is not None and not self._allow_line_time:
            raise _malformed("it brings a time of its own, which counts only with --allow-line-time", "line-time")
        usual = self._at or now()
        devices = self._verifier.read(read_evidence(document["evidence"]))
        appraisal = self._verifier.appraise(
            devices,
            nonce=Nonce.from_hex(nonce),
            collateral=self._bundles.collateral(devices, rim_ids_of(devices), memory_of(self._verifier)),
            at=VerificationTime.parse(at) if at is not None else usual,
        )
        return {**_answer(appraisal, usual), "policy": self._policy}


# --- lines ------------------------------------------------------------------------------------------------------------


def read_line(line: bytes) -> JsonObject:
    """The members of one line; ParseError: not an object, unknown members, a long id, or no ``evidence``."""
    return _question(_object(line))


def _object(line: bytes) -> JsonObject:
    document = load_json(line, source="line", maximum=MAXIMUM_LINE)
    if not isinstance(document, dict):
        raise _malformed("expected an object")
    if len(json.dumps(document.get("id"))) > _MAXIMUM_ID:
        raise _malformed(f"its 'id' has more than {_MAXIMUM_ID} characters")
    return document


def _question(document: JsonObject) -> JsonObject:
    if unknown := sorted(document.keys() - {"id", "nonce", "evidence", "at"}):
        raise _malformed(f"unknown keys: {', '.join(unknown)[:200]}")
    if "evidence" not in document:
        raise _malformed("'evidence' is missing")
    return document


def _name(line: bytes) -> object:
    with suppress(ParseError):
        return _object(line).get("id")
    return None


def read_lines(source: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream, without empty ones. Of an endless line only so much is kept that it is too long.

    Editors put a byte order mark before the first one. InputError where the stream cannot be read to its end.
    """

    def read(size: int) -> bytes:
        try:
            return source.readline(size)
        except _UNREADABLE as error:
            raise InputError(f"the input cannot be read to its end: {error}", code="file") from None

    mark = codecs.BOM_UTF8
    while line := read(MAXIMUM_LINE + 2):
        if len(line) > MAXIMUM_LINE + 1:
            while not line.endswith(b"\n") and (more := read(MAXIMUM_LINE)):
                line = line[: MAXIMUM_LINE + 1] + (b"\n" if more.endswith(b"\n") else b"")
        line, mark = line.removeprefix(mark), b""
        if line.strip():
            yield line.strip()


def open_lines(path: str) -> BinaryIO:
    """A file of lines, compressed where its name ends in .gz (InputError where it is not); - for standard input."""
    if path == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None
    if not path.endswith(".gz"):
        return file
    # An output that was killed at its start is empty.
    if not b"\x1f\x8b".startswith(file.peek(2)[:2]):
        file.close()
        raise InputError(f"{path}: not a gzip file", code="file")
    return _gzip(file, "rb")


def _gzip(file: BinaryIO, mode: Literal["rb", "wb"]) -> BinaryIO:
    import gzip

    # Without a name and a time equal answers are equal bytes.
    packed = gzip.GzipFile(filename="", fileobj=file, mode=mode, mtime=0)
    packed.myfileobj = file  # type: ignore[assignment] # it closes the file with itself
    return cast("BinaryIO", packed)


def line_digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _malformed(message: str, code: str = "batch-line") -> ParseError:
    return ParseError(message, source="line", code=code)


# --- answers ----------------------------------------------------------------------------------------------------------


def _dump(name: object, answer: JsonObject, line: bytes, settings: str) -> str:
    last = {"line": line_digest(line), "settings": settings, "format": "nvattest-batch", "version": 1}
    return json.dumps({"id": name, **answer, **last}, separators=(",", ":"))


def _error_answer(result: ResultCode, code: str, message: str) -> JsonObject:
    return {**_verdict(result, trusted=False), "devices": [], "error": {"code": code, "message": message}}


def _verdict(code: ResultCode, *, trusted: bool) -> JsonObject:
    return {"trusted": trusted, "result_code": int(code), "result_message": code.message}


def _answer(appraisal: Appraisal, reference: VerificationTime) -> JsonObject:
    at, expires = appraisal.at, appraisal.collateral_expires
    weakened = list(appraisal.weakened)
    if at != reference and (judged_at_another_time(at, reference.device) or judged_at_another_time(at, reference.rim)):
        weakened.append(ANOTHER_TIME)
    return {
        **_verdict(appraisal.result_code, trusted=appraisal.trusted),
        "at": {"device": format_time(at.device), "rim": format_time(at.rim)},
        "anchors": appraisal.anchors,
        "simulated": appraisal.simulated,
        "collateral_expires": format_time(expires) if expires is not None else None,
        "weakened": weakened,
        "devices": [_device(device) for device in appraisal.devices],
        "failures": _failures(check for check in appraisal.checks if not check.acceptable),
    }


def _device(device: DeviceAppraisal) -> JsonObject:
    answer: JsonObject = {
        "label": device.label,
        "ueid": device.identity.ueid if device.identity is not None else None,
        "trusted": device.trusted,
    }
    if " " in device.origin:
        # Where in the line the evidence stood and what was dropped to read it.
        answer["origin"] = device.origin
    return answer | {"failures": _failures(device.failures)}


def _failures(checks: Iterable[Check]) -> list[JsonObject]:
    return [{"id": check.id, "detail": check.detail} for check in checks]


# --- on all cores -----------------------------------------------------------------------------------------------------

# One judge per worker process, made by the pool's initializer. The parent never has one.
_judges: list[Judge] = []


def _start_worker(settings: BatchSettings, contents: Sequence[bytes]) -> None:
    _judges.append(Judge(settings, contents=contents))
    # What start-up made stays for good: leave it out of garbage collections, and collect less often.
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)


def _judge_chunk(lines: list[bytes]) -> list[str]:
    return [_judges[0].judge(line) for line in lines]


@dataclass(slots=True)
class _Chunk:
    """Some lines and their future answers. A ``suspect`` is one line that was in flight when a worker died."""

    lines: list[bytes]
    future: Future[list[str]] | None = None
    suspect: bool = False
    deaths: int = 0

    def submit(self, pool: ProcessPoolExecutor) -> Future[list[str]]:
        if self.future is None:
            try:
                self.future = pool.submit(_judge_chunk, self.lines)
            except BrokenProcessPool as error:
                # A worker died between two submissions: handle it as one that died at work.
                self.future = Future()
                self.future.set_exception(error)
        return self.future


def verify_batch(
    lines: Iterable[bytes], settings: BatchSettings, *, workers: int | None = None, judge: Judge | None = None
) -> Iterator[str]:
    """Judge all lines, one worker process per core, and yield one answer per line in the order of the lines.

    Only a few chunks per worker are in memory at any time. After the death of a worker its lines are judged again, one
    by one; a line that kills a worker twice is answered as an error (code 2), never as trusted. ``judge`` is one of
    these settings that the caller has made.

    Raises:
        InputError: the bundle or the anchors cannot be read, or ``workers`` is not positive.
    """
    count = workers if workers is not None else os.cpu_count() or 1
    if count < 1:
        raise InputError("there must be at least one worker", code="workers")
    # Report a fault in the settings once and before any line is read, instead of once per worker.
    return _judged(lines, settings, count, judge or Judge(settings, check=True))


def _judged(lines: Iterable[bytes], settings: BatchSettings, count: int, judge: Judge) -> Iterator[str]:
    # A chunk has so many lines or so many bytes.
    source = grouped(lines, lambda line: max(_CHUNK_BYTES / _CHUNK_LINES, len(line)), _CHUNK_BYTES)
    pool = _pool(count, settings, judge.contents)
    waiting: deque[_Chunk] = deque()
    try:
        while True:
            if not any(chunk.suspect for chunk in waiting):
                waiting.extend(map(_Chunk, islice(source, max(0, count * _CHUNKS_PER_WORKER - len(waiting)))))
                if not waiting:
                    return
                for chunk in waiting:
                    chunk.submit(pool)
            try:
                yield from waiting[0].submit(pool).result()
                waiting.popleft()
            except BrokenProcessPool:
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _pool(count, settings, judge.contents)
                waiting = _after_a_death(waiting, judge.digest)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(count: int, settings: BatchSettings, contents: Sequence[bytes]) -> ProcessPoolExecutor:
    # spawn: a fork of a process with threads may inherit held locks.
    return ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(settings, contents)
    )


def _after_a_death(waiting: deque[_Chunk], digest: str) -> deque[_Chunk]:
    """Find the line that kills: judge each line that was in flight alone, and again where a worker died of it alone."""
    first = waiting[0]
    if first.suspect:
        first.future = None
        first.deaths += 1
        if first.deaths > 1:
            [line] = first.lines
            answer = _error_answer(
                ResultCode.INTERNAL_ERROR, "worker-died", "the worker process died twice on this line"
            )
            first.future = Future()
            first.future.set_result([_dump(_name(line), answer, line, digest)])
        return waiting
    found: deque[_Chunk] = deque()
    for chunk in waiting:
        if chunk.future is not None and chunk.future.done() and chunk.future.exception() is None:
            found.append(chunk)
        else:
            found.extend(_Chunk([line], suspect=True) for line in chunk.lines)
    return found


# --- the sums of a run ------------------------------------------------------------------------------------------------


class Sums:
    """How many lines are trusted, are not, or could not be judged, and for which reasons."""

    def __init__(self) -> None:
        self.lines = self.trusted = self.bad = 0
        self.failures: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.simulated = False
        self.collateral_expires = ""

    def add(self, answer: JsonObject) -> None:
        """Count one answer: once under each check that failed anywhere in it."""
        self.lines += 1
        self.trusted += answer["trusted"] is True
        self.simulated = self.simulated or answer.get("simulated") is True
        ends = answer.get("collateral_expires")
        if isinstance(ends, str):
            # Instants of one form and zone sort as texts.
            self.collateral_expires = min(self.collateral_expires or ends, ends)
        error = answer.get("error")
        if isinstance(error, dict):
            self.bad += 1
            self.errors[str(error.get("code"))] += 1
        parts = [answer, *cast("list[JsonObject]", answer.get("devices", []))]
        checks = (check for part in parts for check in cast("list[JsonObject]", part.get("failures", [])))
        # In the order of the checks, so that the same answers have the same summary.
        failed = list(dict.fromkeys(str(check["id"]) for check in checks))
        # That a device is not trusted follows from its own checks.
        self.failures.update([name for name in failed if name != "devices-trusted"] or failed)

    def text(self) -> list[str]:
        refused = self.lines - self.trusted - self.bad
        mark = f"   {SIMULATED}" if self.simulated else ""
        first = f"{counted(self.lines, 'line')}: {self.trusted} trusted, {refused} not trusted"
        lines = [f"{first}, {counted(self.bad, 'bad line')}{mark}"]
        for what, counts in (("not trusted", self.failures), ("bad line", self.errors)):
            lines += [f"  {what}: {name}: {count}" for name, count in counts.most_common(20)]
        return lines

    def metrics(self, ended: datetime, seconds: Mapping[str, float]) -> str:
        """The sums for Prometheus; ``seconds`` is what the time went into."""
        results = {"trusted": self.trusted, "not-trusted": self.lines - self.trusted - self.bad, "bad": self.bad}
        expires: Samples = [(parse_time(self.collateral_expires).timestamp(), {})] if self.collateral_expires else []

        def counts(label: str, found: Mapping[str, float]) -> Samples:
            return [(count, {label: name}) for name, count in sorted(found.items())]

        facts: Mapping[str, tuple[str, Samples]] = {
            "lines": ("Lines of the output by result.", counts("result", results)),
            "failed_check_lines": ("Lines by failed check.", counts("check", self.failures)),
            "error_lines": ("Lines that could not be judged, by code.", counts("code", self.errors)),
            "simulated": ("Whether simulated roots were trusted in any line.", [(float(self.simulated), {})]),
            "phase_seconds": ("What the time of the run went into.", counts("phase", seconds)),
            "end_timestamp_seconds": ("When the run ended.", [(ended.timestamp(), {})]),
            "collateral_expiry_timestamp_seconds": ("When the first of the collateral of all lines ends.", expires),
        }
        return dump_metrics(Metric(f"nvattest_batch_{name}", *fact) for name, fact in facts.items())

    def document(self, settings: str) -> JsonObject:
        return {
            "format": "nvattest-batch-summary",
            "version": 1,
            "lines": self.lines,
            "trusted": self.trusted,
            "not_trusted": self.lines - self.trusted - self.bad,
            "bad_lines": self.bad,
            "simulated": self.simulated,
            "failures": dict(self.failures.most_common()),
            "errors": dict(self.errors.most_common()),
            "settings": settings,
        }


# --- a run that goes on where another ended ---------------------------------------------------------------------------


class Resumed:
    """The output of an interrupted run: whole answers, and perhaps half of one."""

    def __init__(self, path: str, settings: str) -> None:
        if not os.path.isfile(path):
            raise InputError(f"{path}: not a regular file, so that --resume finds no answers in it", code="resume")
        self.path = path
        self.end = 0
        self._settings = settings

    def answers(self) -> Iterator[bytes]:
        """The whole lines; InputError where the file ends in something else than the beginning of an answer."""
        with open_lines(self.path) as file:
            while True:
                try:
                    line = file.readline(_MAXIMUM_ANSWER)
                except EOFError:
                    # A compressed file that was not finished.
                    return
                except _UNREADABLE as error:
                    raise InputError(f"{self.path}: {error}", code="resume") from None
                if not line.endswith(b"\n"):
                    if not _is_beginning(line):
                        raise InputError(f"{self.path}: no output of verify-batch; it was left as it is", code="resume")
                    return
                yield line

    def compare(self, lines: Iterator[bytes], sums: Sums) -> None:
        """Match each answer to its line, which is taken from ``lines``. The file stays as it is.

        InputError (``resume``): an answer is not that of its line under these settings.
        """
        for number, text in enumerate(self.answers(), start=1):
            answer = _loaded(text)
            if not _is_answer(answer):
                raise self._refusal(number, "no answer of verify-batch")
            if answer.get("settings") != self._settings:
                raise self._refusal(number, "made with another bundle, policy, time or other roots")
            line = next(lines, None)
            if line is None:
                raise self._refusal(number, "beyond the last line of the input")
            if answer.get("line") != line_digest(line) or answer.get("id") != _name(line):
                raise self._refusal(number, f"not that of line {number} of the input")
            sums.add(answer)
            self.end += len(text)

    def _refusal(self, number: int, why: str) -> InputError:
        return InputError(
            f"{self.path}: answer {number} is {why}; the file was left as it is", code="resume",
            hint="resume with the same input and settings, or name another --output",
        )  # fmt: skip


def _loaded(text: bytes) -> object:
    with suppress(ParseError):
        return load_json(text, source="answer", maximum=_MAXIMUM_ANSWER)
    return None


def _is_beginning(text: bytes) -> bool:
    """Whether it can be what a killed run left of an answer. A whole document is none, unless it is an answer."""
    if len(text) == _MAXIMUM_ANSWER or not (text.startswith(_BEGINNING) or _BEGINNING.startswith(text)):
        return False
    document = _loaded(text)
    return document is None or _is_answer(document)


def _is_answer(value: object) -> TypeGuard[JsonObject]:
    """Whether it has what ``Sums`` reads, for a file is input, and says "trusted" only where nothing is against it."""
    if not isinstance(value, dict) or (value.get("format"), value.get("version")) != ("nvattest-batch", 1):
        return False
    devices, ends, error = value.get("devices"), value.get("collateral_expires"), value.get("error", {})
    if type(value.get("trusted")) is not bool or not isinstance(devices, list) or not isinstance(error, dict):
        return False
    failed = "error" in value
    for part in (value, *devices):
        failures = part.get("failures", []) if isinstance(part, dict) else None
        if not isinstance(failures, list) or not all(isinstance(item, dict) and "id" in item for item in failures):
            return False
        failed = failed or bool(failures) or part.get("trusted") is not True
    if value["trusted"] and failed:
        return False
    try:
        return ends is None or (isinstance(ends, str) and format_time(parse_time(ends)) == ends)
    except InputError:
        return False


# --- the output -------------------------------------------------------------------------------------------------------


def open_output(path: str, before: Resumed | None, new_file: Callable[[str], BinaryIO]) -> BinaryIO:
    """The output, after the answers that stay; InputError where it cannot be opened or another process writes it."""
    if os.path.isfile(path):
        with suppress(OSError), open(path, "rb") as known:
            _claim(known, path)
    if before is None:
        new = new_file(path)
        _claim(new, path)
        return _gzip(new, "wb") if path.endswith(".gz") else new
    try:
        if not path.endswith(".gz"):
            file = open(path, "r+b")  # noqa: SIM115 - likewise
            _claim(file, path)
            file.truncate(before.end)
            file.seek(before.end)
            return file
        return _rewritten(os.path.realpath(path), before)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None


def _claim(file: BinaryIO, path: str) -> None:
    """Be the one process that writes this file, until it is closed. Of two, one would write holes into the other's."""
    # A file system or a device may have no locks.
    with suppress(OSError):
        if not lock_now(file.fileno()):
            raise InputError(f"{path}: another process writes this output", code="output")


def _rewritten(path: str, before: Resumed) -> BinaryIO:
    """A new file in the place of a compressed one, where what follows a break is lost; for the same readers."""
    new = os.path.join(os.path.dirname(path), f".nvattest-{os.urandom(8).hex()}")
    output = _gzip(open(new, "xb", opener=lambda name, given: os.open(name, given, 0o600)), "wb")  # noqa: SIM115
    try:
        _claim(output, new)
        old, made = os.stat(path), os.fstat(output.fileno())
        if old.st_uid == made.st_uid:
            os.chmod(new, old.st_mode & (0o777 if old.st_gid == made.st_gid else 0o707))
        left = before.end
        for line in before.answers():
            if left <= 0:
                break
            output.write(line)
            left -= len(line)
        output.flush()
        os.replace(new, path)
    except BaseException:
        output.close()
        with suppress(OSError):
            os.unlink(new)
        raise
    return output
