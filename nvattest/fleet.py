"""Many platforms: JSON Lines in, JSON Lines out, one answer for each line and in the order of the lines.

A line in: ``{"id": any, "nonce": "64 hex digits", "evidence": <any evidence form>, "at"?: "TIME"}``.
A line out: ``{"id", "trusted", "result_code", "result_message", "at", "anchors", "simulated", "weakened", "devices",
"failures"}``, a device being ``{"label", "ueid", "trusted", "failures"}``; and ``"error"`` where the line could not be
judged at all. Schema: ``schemas/batch-1.json``.

The ``at`` of a line chooses the clock that the line is judged by, so it counts only where the caller allows it.

Each worker process keeps one Verifier: RIMs, upper certificates and revocation answers are verified once per process.
"""

from __future__ import annotations

import gc
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context

from nvattest._documents import JsonObject, load_json
from nvattest.appraisal.check import Check
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.bundle import load_bundle
from nvattest.errors import InputError, NvattestError, ParseError, ResultCode
from nvattest.evidence import read_evidence
from nvattest.model import Nonce, VerificationTime, format_time
from nvattest.pki.anchors import NVIDIA_ANCHORS, trust_anchors_from_pem
from nvattest.session import now
from nvattest.token.provenance import ANOTHER_TIME, judged_at_another_time

__all__ = ["BatchSettings", "Judge", "verify_batch"]

MAXIMUM_LINE = 16 * 1024 * 1024
_CHUNK_LINES = 16
_CHUNK_BYTES = 4 * 1024 * 1024
_CHUNKS_PER_WORKER = 3
_COLLECT_EVERY = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """What every line is judged with. ``bundle`` and ``anchors`` are file contents.

    Lines are judged at ``at``; where it is None, at the time they are read. ``allow_line_time`` lets a line bring an
    instant of its own; where that lies more than an hour away, the answer is weakened (``judged-at-another-time``).
    """

    bundle: bytes
    at: VerificationTime | None = None
    anchors: bytes | None = None
    policy: EvidencePolicy | None = None
    backend: str = "cryptography"
    allow_line_time: bool = False


class Judge:
    """Judges lines one by one; make one per process and keep it.

    Raises:
        InputError: the bundle or the anchors cannot be read.
    """

    def __init__(self, settings: BatchSettings) -> None:
        anchors = NVIDIA_ANCHORS if settings.anchors is None else trust_anchors_from_pem(settings.anchors)
        self._at = settings.at
        self._allow_line_time = settings.allow_line_time
        self._collateral = load_bundle(settings.bundle, origin="bundle")
        self._verifier = Verifier(anchors=anchors, policy=settings.policy, backend=settings.backend)

    def judge(self, line: bytes) -> str:
        """The answer to one line, as one line of JSON without its newline. It never raises on what the line says."""
        name: object = None
        try:
            document = load_json(line, source="line", maximum=MAXIMUM_LINE)
            if not isinstance(document, dict):
                raise _malformed("expected an object")
            name = document.get("id")
            return _line(name, self._answer(document))
        except NvattestError as error:
            return _error_line(name, error.result_code, error.code, str(error))

    def _answer(self, document: JsonObject) -> JsonObject:
        unknown = sorted(document.keys() - {"id", "nonce", "evidence", "at"})
        if unknown:
            raise _malformed(f"unknown keys: {', '.join(unknown)[:200]}")
        nonce, at = document.get("nonce"), document.get("at")
        if not isinstance(nonce, str):
            raise _malformed("'nonce' must be 64 hexadecimal digits")
        if at is not None and not isinstance(at, str):
            raise _malformed("'at' must be a time")
        if at is not None and not self._allow_line_time:
            raise _malformed("it brings a time of its own, which counts only with --allow-line-time", "line-time")
        if "evidence" not in document:
            raise _malformed("'evidence' is missing")
        usual = self._at or now()
        appraisal = self._verifier.appraise(
            read_evidence(document["evidence"]),
            nonce=Nonce.from_hex(nonce),
            collateral=self._collateral,
            at=VerificationTime.parse(at) if at is not None else usual,
        )
        return _answer(appraisal, usual)


def _malformed(message: str, code: str = "batch-line") -> ParseError:
    return ParseError(message, source="line", code=code)


def _line(name: object, answer: JsonObject) -> str:
    return json.dumps({"id": name, **answer}, separators=(",", ":"))


def _error_line(name: object, result: ResultCode, code: str, message: str) -> str:
    return _line(
        name,
        {
            "trusted": False,
            "result_code": int(result),
            "result_message": result.message,
            "devices": [],
            "error": {"code": code, "message": message},
        },
    )


def _answer(appraisal: Appraisal, reference: VerificationTime) -> JsonObject:
    code, at = appraisal.result_code, appraisal.at
    weakened = list(appraisal.weakened)
    if at != reference and (judged_at_another_time(at, reference.device) or judged_at_another_time(at, reference.rim)):
        weakened.append(ANOTHER_TIME)
    return {
        "trusted": appraisal.trusted,
        "result_code": int(code),
        "result_message": code.message,
        "at": {"device": format_time(at.device), "rim": format_time(at.rim)},
        "anchors": appraisal.anchors,
        "simulated": appraisal.simulated,
        "weakened": weakened,
        "devices": [_device(device) for device in appraisal.devices],
        "failures": [_failure(check) for check in appraisal.checks if not check.acceptable],
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
    return answer | {"failures": [_failure(check) for check in device.failures]}


def _failure(check: Check) -> JsonObject:
    return {"id": check.id, "detail": check.detail}


# One judge per worker process, made by the pool's initializer. The parent never has one.
_judges: list[Judge] = []


def _start_worker(settings: BatchSettings) -> None:
    _judges.append(Judge(settings))
    # What start-up made stays for good: leave it out of garbage collections, and collect less often.
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)


def _judge_chunk(lines: list[bytes]) -> list[str]:
    return [_judges[0].judge(line) for line in lines]


@dataclass(slots=True)
class _Chunk:
    """Some lines and their future answers. A ``suspect`` was in flight when a worker died, and is judged alone."""

    lines: list[bytes]
    future: Future[list[str]] | None = None
    suspect: bool = False
    deaths: int = 0

    @property
    def done(self) -> bool:
        return self.future is not None and self.future.done() and self.future.exception() is None


def verify_batch(lines: Iterable[bytes], settings: BatchSettings, *, workers: int | None = None) -> Iterator[str]:
    """Judge all lines, one worker process per core, and yield one answer per line in the order of the lines.

    Only a few chunks per worker are in memory at any time. After the death of a worker its lines are judged again, one
    by one; a line that kills a worker twice is answered as an error (code 2), never as trusted.

    Raises:
        InputError: the bundle or the anchors cannot be read, or ``workers`` is not positive.
    """
    count = workers if workers is not None else os.cpu_count() or 1
    if count < 1:
        raise InputError("there must be at least one worker", code="workers")
    # Report a fault in the settings once, here, instead of once per worker.
    Judge(settings)
    source = _chunks(lines)
    pool = _pool(count, settings)
    waiting: deque[_Chunk] = deque()
    try:
        while True:
            if not any(chunk.suspect for chunk in waiting):
                waiting.extend(islice(source, max(0, count * _CHUNKS_PER_WORKER - len(waiting))))
                if not waiting:
                    return
                for chunk in waiting:
                    _submit(chunk, pool)
            first = waiting[0]
            _submit(first, pool)
            try:
                yield from _answers(first)
                waiting.popleft()
            except BrokenProcessPool:
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _pool(count, settings)
                _after_a_death(waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(count: int, settings: BatchSettings) -> ProcessPoolExecutor:
    # spawn: a fork of a process with threads may inherit held locks.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(settings,))


def _submit(chunk: _Chunk, pool: ProcessPoolExecutor) -> None:
    if chunk.future is None:
        try:
            chunk.future = pool.submit(_judge_chunk, chunk.lines)
        except BrokenProcessPool as error:
            # A worker died between two submissions: handle it as one that died at work.
            chunk.future = Future()
            chunk.future.set_exception(error)


def _answers(chunk: _Chunk) -> list[str]:
    return chunk.future.result() if chunk.future is not None else []


def _after_a_death(waiting: deque[_Chunk]) -> None:
    """Find the line that kills: judge each chunk in flight alone, then each line of the chunk that dies alone."""
    first = waiting[0]
    if not first.suspect:
        for chunk in waiting:
            if not chunk.done:
                chunk.future, chunk.suspect = None, True
        return
    first.future = None
    first.deaths += 1
    if len(first.lines) > 1:
        waiting.popleft()
        waiting.extendleft(_Chunk([line], suspect=True) for line in reversed(first.lines))
    elif first.deaths > 1:
        first.future = Future()
        first.future.set_result([_died(first.lines[0])])


def _died(line: bytes) -> str:
    try:
        document = load_json(line, source="line", maximum=MAXIMUM_LINE)
    except ParseError:
        document = None
    name = document.get("id") if isinstance(document, dict) else None
    return _error_line(name, ResultCode.INTERNAL_ERROR, "worker-died", "the worker process died twice on this line")


def _chunks(lines: Iterable[bytes]) -> Iterator[_Chunk]:
    part: list[bytes] = []
    size = 0
    for line in lines:
        part.append(line)
        size += len(line)
        if len(part) == _CHUNK_LINES or size >= _CHUNK_BYTES:
            yield _Chunk(part)
            part, size = [], 0
    if part:
        yield _Chunk(part)
