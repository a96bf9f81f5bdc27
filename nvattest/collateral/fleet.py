"""The collateral of many platforms: asked for group by group, kept in a journal as it comes, written as a folder.

A run that is killed leaves the journal. The next run into the same folder asks only for what is not in it, and for what
is about to end. Nothing in the journal is believed: each answer is judged again before it counts.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeVar

from nvattest._documents import JsonObject, load_json
from nvattest._system import flags, lock_now
from nvattest.appraisal.inputs import Collateral, CpuAnswer, RimAnswer, Source, Unavailable
from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.collateral.bundle import MAXIMUM_ANSWER, MAXIMUM_CPU, MAXIMUM_RIM, Bundle, decoded, encoded, write_folder
from nvattest.collateral.gather import GatherOptions, Needs, certificates_to_ask, gather_needs, needs_of, verified_rims
from nvattest.collateral.http import HttpClient
from nvattest.collateral.inspection import preflight, weight
from nvattest.errors import CollateralError, InputError, NvattestError, ParseError, ResultCode
from nvattest.evidence import Evidence
from nvattest.model import VerificationTime
from nvattest.pki.chain import ChainProfile
from nvattest.pki.ocsp import RevocationStatus, cert_id_key, parse_ocsp_response

T = TypeVar("T")
JOURNAL: Final = "journal.jsonl"
_HEADER: Final = b'{"format": "nvattest-bundle-journal", "version": 1}\n'
_MAXIMUM_LINE: Final = max(MAXIMUM_RIM, MAXIMUM_CPU) * 4 // 3 + 4096
# All of a group is asked at once and judged when it is there.
_DEVICES_IN_GROUP: Final = 64
# One certificate can be unavailable by itself; so many groups in a row to which nothing came are an outage.
_SILENT_GROUPS: Final = 3
_UNREACHED: Final = frozenset(
    {
        ResultCode.RIM_CONNECTION_ERROR,
        ResultCode.OCSP_SERVER_ERROR,
        ResultCode.RATE_LIMITED,
        ResultCode.RIM_FORBIDDEN,
        ResultCode.OCSP_FORBIDDEN,
    }
)


class FetchJournal:
    """What has come so far, in ``journal.jsonl`` of the folder that becomes a bundle; a ``Store`` for ``gather``.

    One process at a time works in a folder. Memory holds the places of the answers and not the answers.

    Raises:
        InputError: the folder or the journal cannot be used, is damaged, or belongs to another process now.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._path = os.path.join(folder, JOURNAL)
        self._lock = threading.Lock()
        # Places of answers that were judged good or are of an earlier run, and of those that have just come.
        self._places: dict[str, tuple[int, int]] = {}
        self._arrived: dict[str, tuple[int, int]] = {}
        self._rims: dict[str, bytes] = {}
        self._cpu: list[bytes] = []
        self._used: dict[str, int] = {}
        self._used_rims: set[str] = set()
        self._outdone: set[str] = set()
        self.seeded = False
        """Whether ``seed`` has put the whole of an older bundle into it."""
        try:
            os.makedirs(folder, exist_ok=True)
            with ExitStack() as undo:
                # A link would let the folder's maker choose the file that is appended to and cut.
                how = flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC")
                # Unbuffered: a process that is killed loses nothing that it has written.
                self._file = undo.enter_context(
                    open(self._path, "a+b", buffering=0, opener=lambda path, given: os.open(path, given | how, 0o666))
                )
                if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                    raise self._damaged()
                self._claim()
                self._load()
                undo.pop_all()
        except OSError as error:
            raise InputError(f"{self._path}: {error.strerror or error}", code="file") from None

    def __enter__(self) -> FetchJournal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def empty(self) -> bool:
        return not (self._places or self._arrived or self._rims or self._cpu)

    @property
    def used(self) -> int:
        """How many answers the bundle has."""
        return len(self._used)

    def rims(self, rim_id: str) -> tuple[bytes, ...]:
        return (self._rims[rim_id],) if rim_id in self._rims else ()

    def answer(self, key: str) -> bytes | None:
        """The last answer for this CertID key."""
        place = self._places.get(key) or self._arrived.get(key)
        if place is None:
            return None
        with self._lock:
            self._file.seek(place[0])
            line = self._file.read(place[1])
        return self._content(self._entry(line), MAXIMUM_ANSWER)

    def store_rim(self, rim_id: str, content: bytes) -> bool:
        self._rims[rim_id] = content
        self._append({"rim": rim_id, **encoded(content)})
        return True

    def store_answers(self, answers: Iterable[str]) -> bool:
        """Prefer the answers with these keys, which ``arrived`` has kept, to older ones."""
        for key in answers:
            if (place := self._arrived.pop(key, None)) is not None:
                self._places[key] = place
        return True

    def arrived(self, key: str, content: bytes) -> None:
        """Keep an answer as it comes; any thread may call it."""
        if 0 < len(content) <= MAXIMUM_ANSWER:
            self._arrived[key] = self._append({"ocsp": key, **encoded(content)})

    def seed(self, bundle: Iterable[Collateral]) -> None:
        """Begin with what a bundle holds, for a run that asks only for what ends."""
        for part in bundle:
            self._store_shared(part)
            for answer in part.ocsp:
                with suppress(ParseError):
                    if (key := parse_ocsp_response(answer.content).key) is not None:
                        self._store_answer(key, answer.content)
        self._append({"seeded": True})
        self.seeded = True

    def merge(self, part: Collateral, unverified: Collection[bytes] = ()) -> None:
        """Add what a bundle holds to the bundle that is made; of two answers about one certificate the one that counts.

        A revocation outweighs every other answer, and a newer answer an older one. The ``unverified`` take the place of
        all others and of none among them: a forged one may be newer than the genuine one.
        """
        self._store_shared(part)
        self._used_rims.update(part.rims)
        for answer in part.ocsp:
            response = parse_ocsp_response(answer.content)
            key = response.key
            if key is None or response.serial is None:
                continue
            if answer.content in unverified:
                self._outdone.add(key)
                key += f"/{response.sha256.hex()}"
            known = self.answer(key)
            if known is None or weight(parse_ocsp_response(known)) < weight(response):
                self._store_answer(key, answer.content)
            self._used[key] = response.serial

    def use(self, rim_ids: Iterable[str], answers: Mapping[str, int]) -> None:
        """Put these into the bundle: RIMs by id, and answers by key with the serial number that they are about."""
        self._used_rims.update(rim_ids)
        self._used.update(answers)

    def finish(self) -> Bundle:
        """Write what is used as a folder bundle, and remove the journal, which stays where that fails (InputError)."""
        for key in self._outdone:
            self._used.pop(key, None)
        rims = {name: RimAnswer(id=name, content=self._rims[name], source=Source.BUNDLE) for name in self._used_rims}
        cpu = tuple(CpuAnswer(content=content, source=Source.BUNDLE) for content in self._cpu)
        written = write_folder(self.folder, Collateral(rims=rims, cpu=cpu), self._used, self.answer)
        self.discard()
        return written

    def discard(self) -> None:
        with suppress(OSError):
            # Windows removes no open file; an empty one is a new one.
            self._file.truncate(0)
            os.unlink(self._path)

    def _store_shared(self, part: Collateral) -> None:
        for rim in part.rims.values():
            self.store_rim(rim.id, rim.content)
        for answer in part.cpu:
            if answer.content not in self._cpu:
                self._cpu.append(answer.content)
                self._append({"cpu": True, **encoded(answer.content)})

    def _store_answer(self, key: str, content: bytes) -> None:
        self.arrived(key, content)
        self.store_answers([key])

    def _append(self, entry: JsonObject) -> tuple[int, int]:
        line = json.dumps(entry).encode() + b"\n"
        with self._lock:
            place = (self._end, len(line))
            try:
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                # No half entry may stand before another one.
                with suppress(OSError):
                    self._file.truncate(self._end)
                raise InputError(f"{self._path}: {error.strerror or error}", code="file") from None
            self._end += len(line)
        return place

    def _claim(self) -> None:
        with suppress(FileNotFoundError):
            # A process that has just ended its work took the file away, and with it its lock.
            if lock_now(self._file.fileno()) and os.path.samestat(os.fstat(self._file.fileno()), os.lstat(self._path)):
                return
        raise InputError(f"{self._path}: another process fetches into this folder", code="journal")

    def _load(self) -> None:
        self._end = 0
        # The file that is locked, whatever has its name now.
        with open(os.dup(self._file.fileno()), "rb") as file:
            file.seek(0)
            for line in iter(lambda: file.readline(_MAXIMUM_LINE + 1), b""):
                if not line.endswith(b"\n"):
                    if len(line) > _MAXIMUM_LINE or not (self._end or _HEADER.startswith(line)):
                        raise self._damaged()
                    break
                if self._end:
                    self._remember(self._entry(line), (self._end, len(line)))
                elif line != _HEADER:
                    raise self._damaged()
                self._end += len(line)
        # Half a line is what a killed writer leaves.
        self._file.truncate(self._end)
        if self._end == 0:
            self._end = self._file.write(_HEADER) or 0

    def _remember(self, entry: JsonObject, place: tuple[int, int]) -> None:
        rim_id, key = entry.get("rim"), entry.get("ocsp")
        if isinstance(rim_id, str):
            self._rims[rim_id] = self._content(entry, MAXIMUM_RIM)
        elif isinstance(key, str):
            self._places[key] = place
        elif entry.get("cpu") is True:
            self._cpu.append(self._content(entry, MAXIMUM_CPU))
        self.seeded = self.seeded or entry.get("seeded") is True

    def _entry(self, line: bytes) -> JsonObject:
        with suppress(ParseError):
            entry = load_json(line, source="journal", maximum=_MAXIMUM_LINE)
            if isinstance(entry, dict):
                return entry
        raise self._damaged()

    def _content(self, entry: JsonObject, maximum: int) -> bytes:
        try:
            return decoded(str(entry.get("content")), str(entry.get("sha256")), maximum)
        except ValueError:
            raise self._damaged() from None

    def _damaged(self) -> InputError:
        return InputError(f"{self._path}: not a journal of this program, or damaged", code="journal", hint="remove it")


class Node(NamedTuple):
    """One platform: its name for people, and its evidence, or why that cannot be read."""

    name: str
    evidence: tuple[Evidence, ...] | NvattestError

    def devices(self) -> int:
        """How many devices it counts as."""
        return 1 if isinstance(self.evidence, NvattestError) else len(self.evidence)


@dataclass(slots=True)
class Tally:
    """What came of a fleet: how many nodes it has, and which of them could not be verified with the bundle, and why."""

    nodes: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    code: ResultCode | None = None

    def add(self, name: str, reason: str, code: ResultCode) -> None:
        self.problems.append((name, reason))
        self.code = self.code or code


def gather_fleet(
    nodes: Iterable[Node],
    options: GatherOptions,
    journal: FetchJournal,
    verifier: Verifier,
    now: Callable[[], VerificationTime],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Have in ``journal`` what all nodes need, each thing asked for once; it marks what goes into the bundle.

    ``options.timeout`` is the limit of each group of nodes; its cache is replaced by the journal.

    Raises:
        InputError: options that cannot be used.
        CollateralError: a service cannot be reached (``fleet-stopped``); the journal has all that came.
    """
    options = replace(options, cache=journal, arrived=journal.arrived)
    rate = options.http.rate
    # A group must fit into its time limit; a device has two certificates of its own.
    largest = min(_DEVICES_IN_GROUP, int(rate * options.timeout / 4)) if rate else _DEVICES_IN_GROUP
    tally = Tally()
    silent = 0
    with HttpClient(options.http) as client:
        for group in grouped(nodes, Node.devices, max(1, largest)):
            outage = _gather_group(group, options, journal, verifier, now, client, tally)
            tally.nodes += len(group)
            silent = silent + 1 if outage is not None else 0
            if outage is not None and silent == _SILENT_GROUPS:
                raise CollateralError(
                    f"stopped after {tally.nodes} nodes: {outage.message}", code="fleet-stopped",
                    result_code=outage.code,
                    hint=f"what has come is kept in {journal.folder}; run the command again to go on: {outage.hint}",
                )  # fmt: skip
            progress(tally.nodes)
    return tally


def grouped(items: Iterable[T], weight: Callable[[T], float], least: float) -> Iterator[list[T]]:
    """The items in groups, each of which ends as soon as it has at least this weight."""
    group: list[T] = []
    total = 0.0
    for item in items:
        group.append(item)
        total += weight(item)
        if total >= least:
            yield group
            group, total = [], 0.0
    if group:
        yield group


def _gather_group(
    group: list[Node],
    options: GatherOptions,
    journal: FetchJournal,
    verifier: Verifier,
    now: Callable[[], VerificationTime],
    client: HttpClient,
    tally: Tally,
) -> Unavailable | None:
    """Gather and judge one group. Returns why nothing came, where a service could not be reached."""
    at = now()
    needs: list[tuple[str, Needs]] = []
    for node in group:
        if isinstance(node.evidence, NvattestError):
            tally.add(node.name, str(node.evidence), node.evidence.result_code)
        else:
            needs.append((node.name, needs_of(node.evidence, verifier, at)))
    union = Needs(
        rim_ids=tuple(dict.fromkeys(rim_id for _, need in needs for rim_id in need.rim_ids)),
        chains=tuple(chain for _, need in needs for chain in need.chains),
    )
    found = gather_needs(union, options, at=at, verifier=verifier, client=client)
    at = now()
    for name, need in needs:
        problems = preflight(need, found, verifier, at)["problems"]
        if isinstance(problems, list) and problems:
            tally.add(name, problems[0]["message"], ResultCode(problems[0]["result_code"]))
    # What goes into the bundle: the RIMs that verify, and the answers that say "good".
    verified = [(rim.id, one.chain) for rim, one in verified_rims(found.rims.values(), verifier, at) if one.verified]
    questions = certificates_to_ask(union.chains, ChainProfile.DEVICE)
    questions += certificates_to_ask((chain for _, chain in verified), ChainProfile.RIM)
    good: dict[str, int] = {}
    for question in questions:
        judged = question.judged(found, at, memory_of(verifier)).revocation
        if judged.status is RevocationStatus.GOOD and judged.next_update is not None:
            key = cert_id_key(question.certificate, question.issuer, options.cert_id_hash)
            good[key] = question.certificate.serial
    journal.use([rim_id for rim_id, _ in verified], good)
    came = {answer.source for answer in found.ocsp} | {rim.source for rim in found.rims.values()}
    missing = (item for item in found.unavailable.values() if item.passing or item.code in _UNREACHED)
    return None if Source.LIVE in came else next(missing, None)
