"""Collateral of a fleet: each thing asked for once, whatever ends the run, and only what ends asked for again."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from nvattest.appraisal.inputs import Collateral, OcspAnswer
from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.bundle import Bundle
from nvattest.collateral.fleet import FetchJournal, Node, Tally, gather_fleet
from nvattest.collateral.gather import RIM_SERVICE, GatherOptions
from nvattest.collateral.http import HttpClient, HttpSettings
from nvattest.collateral.inspection import inspect_parts
from nvattest.errors import CollateralError, InputError, ParseError, ResultCode
from nvattest.fleet import BatchSettings, Judge
from nvattest.model import VerificationTime
from nvattest.pki.ocsp import parse_ocsp_response
from nvattest.testing import DEFAULT_NONCE, Platform, SimulatedFleet
from nvattest.testing.services import Services

NODES = 40
# Of one GPU and of what all share: the answers about the boot ROM, and about three device and three RIM certificates.
SHARED = 6


@pytest.fixture(scope="module")
def fleet() -> SimulatedFleet:
    return SimulatedFleet(NODES)


@pytest.fixture
def services(fleet: SimulatedFleet) -> Iterator[Services]:
    with Services(fleet.platform) as running:
        yield running


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvattest.collateral.fleet._DEVICES_IN_GROUP", 8)


def nodes(fleet: SimulatedFleet, first: int = 0, end: int = NODES) -> Iterator[Node]:
    for index in range(first, end):
        yield Node(f"node-{index}", fleet.evidence(index))


def gather(fleet: SimulatedFleet, services: Services, journal: FetchJournal, chosen: Iterator[Node], **more) -> Tally:
    progress = more.pop("progress", lambda _: None)
    at = more.pop("at", fleet.platform.time)
    options = GatherOptions(rim_url=services.rim_url, ocsp_url=services.ocsp_url, **more)
    verifier = Verifier(anchors=fleet.platform.trust_anchors())
    return gather_fleet(chosen, options, journal, verifier, lambda: at, progress=progress)


def trusted(fleet: SimulatedFleet, folder: Path, at: VerificationTime | None = None) -> int:
    judge = Judge(
        BatchSettings(bundles=(str(folder),), anchors=fleet.platform.anchors_pem, at=at or fleet.platform.time)
    )
    return sum(json.loads(judge.judge(fleet.line(index)))["trusted"] for index in range(NODES))


def test_each_thing_is_asked_for_once_and_every_node_verifies(fleet, services, tmp_path) -> None:
    with FetchJournal(str(tmp_path)) as journal:
        tally = gather(fleet, services, journal, nodes(fleet))
        journal.finish()
    assert (tally.nodes, tally.problems) == (NODES, [])
    assert len(services.requests("ocsp")) == len(set(services.requests("ocsp"))) == NODES + SHARED
    assert sorted(services.requests("rim")) == sorted(fleet.platform.rim_ids)
    assert not (tmp_path / "journal.jsonl").exists()
    assert trusted(fleet, tmp_path) == NODES


def test_a_run_that_is_killed_goes_on_and_asks_nothing_twice(fleet, services, tmp_path) -> None:
    class Killed(BaseException):
        pass

    def kill(count: int) -> None:
        if count == 24:
            raise Killed

    with FetchJournal(str(tmp_path)) as journal, pytest.raises(Killed):
        gather(fleet, services, journal, nodes(fleet), progress=kill)
    assert not (tmp_path / "manifest.json").exists()
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'{"ocsp": "half a li')
    with FetchJournal(str(tmp_path)) as journal:
        assert gather(fleet, services, journal, nodes(fleet)).problems == []
        journal.finish()
    asked = Counter(item.key for item in services.log)
    assert set(asked.values()) == {1}
    assert len(asked) == NODES + SHARED + len(fleet.platform.rim_ids)
    assert trusted(fleet, tmp_path) == NODES


def test_an_answer_is_kept_before_its_group_is_complete(fleet, services, tmp_path) -> None:
    with FetchJournal(str(tmp_path)) as journal:
        journal.arrived("ab" * 32, b"0 an answer")
    with FetchJournal(str(tmp_path)) as journal:
        assert journal.answer("ab" * 32) == b"0 an answer"
        # It is judged like any other, which it does not survive.
        gather(fleet, services, journal, nodes(fleet, 0, 1))
        assert len(journal.finish().names) == 3  # the manifest, the RIMs, one shard
    assert journal.used == 1 + SHARED


def test_an_outage_ends_the_run_and_what_has_come_stays(fleet, tmp_path) -> None:
    with Services(fleet.platform) as services:
        with FetchJournal(str(tmp_path)) as journal:
            gather(fleet, services, journal, nodes(fleet, 0, 16))
        asked = len(services.log)
    with Services(fleet.platform, faults=["status=503"]) as down:
        with (
            FetchJournal(str(tmp_path)) as journal,
            pytest.raises(CollateralError, match="stopped after 40 nodes") as caught,
        ):
            gather(fleet, down, journal, nodes(fleet), http=HttpSettings(retries=0))
        assert len(down.log) <= 8
    assert caught.value.result_code is ResultCode.OCSP_SERVER_ERROR
    assert str(tmp_path) in caught.value.hint
    with Services(fleet.platform) as services, FetchJournal(str(tmp_path)) as journal:
        gather(fleet, services, journal, nodes(fleet))
        assert asked + len(services.log) == NODES + SHARED + len(fleet.platform.rim_ids)


def test_a_certificate_that_is_unavailable_by_itself_stops_no_run(fleet, tmp_path) -> None:
    with Services(fleet.platform) as services, FetchJournal(str(tmp_path)) as journal:
        gather(fleet, services, journal, nodes(fleet))
        broken = services.requests("ocsp")[20]
    (tmp_path / "journal.jsonl").unlink()
    with Services(fleet.platform, faults=[f"ocsp:status=500@{broken}"]) as services:
        for _ in range(2):
            with FetchJournal(str(tmp_path)) as journal:
                tally = gather(fleet, services, journal, nodes(fleet), http=HttpSettings(retries=0))
            assert (tally.nodes, len(tally.problems)) == (NODES, 1)
        assert len(services.log) == NODES + SHARED + len(fleet.platform.rim_ids) + 1


def test_a_node_that_cannot_be_verified_is_named_and_takes_nothing_from_the_others(fleet, services, tmp_path) -> None:
    stranger = Platform.build("hopper-1", seed=7)
    chosen = [
        *nodes(fleet, 0, 3),
        Node("stranger", stranger.evidence(bytes(32))),
        Node("broken", ParseError("no evidence", source="evidence")),
        *nodes(fleet, 3, 6),
    ]
    with FetchJournal(str(tmp_path)) as journal:
        tally = gather(fleet, services, journal, iter(chosen))
        journal.finish()
    assert tally.nodes == 8
    assert [name for name, _ in tally.problems] == ["broken", "stranger"]
    assert "no pinned root" in dict(tally.problems)["stranger"]
    # Nothing is asked on behalf of a device without a path to a root.
    assert len(services.requests("ocsp")) == 6 + SHARED
    assert trusted(fleet, tmp_path) == 6


def test_a_refresh_asks_for_what_ends_soon_and_for_new_nodes(fleet, tmp_path) -> None:
    clock = fleet.platform.time.device
    with Services(fleet.platform) as services, FetchJournal(str(tmp_path)) as journal:
        gather(fleet, services, journal, nodes(fleet, 0, 30))
        journal.finish()
    for hours, end, asked in ((1, 30, 0), (1, 32, 2), (14, 32, 32 + SHARED)):
        later = VerificationTime.at(clock + timedelta(hours=hours))
        with Services(fleet.platform, now=lambda later=later: later.device) as services:
            with FetchJournal(str(tmp_path)) as journal:
                journal.seed(Bundle(str(tmp_path)).parts())
                tally = gather(fleet, services, journal, nodes(fleet, 0, end), renew=12 * 3600.0, at=later)
                journal.finish()
            assert (tally.problems, len(services.log)) == ([], asked)
    assert trusted(fleet, tmp_path, VerificationTime.at(clock + timedelta(hours=36))) == 32


def test_answers_of_a_short_life_are_not_asked_for_all_the_time(fleet, services, tmp_path) -> None:
    with FetchJournal(str(tmp_path)) as journal:
        gather(fleet, services, journal, nodes(fleet), renew=30 * 86400.0)
    assert len(services.requests("ocsp")) == NODES + SHARED


def test_a_bad_answer_does_not_take_the_place_of_a_good_one(fleet, tmp_path) -> None:
    with Services(fleet.platform) as services, FetchJournal(str(tmp_path)) as journal:
        gather(fleet, services, journal, nodes(fleet, 0, 4))
        journal.finish()
    later = VerificationTime.at(fleet.platform.time.device + timedelta(hours=13))
    with Services(fleet.platform, faults=["ocsp:other-certificate"], now=lambda: later.device) as services:
        with FetchJournal(str(tmp_path)) as journal:
            journal.seed(Bundle(str(tmp_path)).parts())
            gather(fleet, services, journal, nodes(fleet, 0, 4), renew=12 * 3600.0, at=later)
            journal.finish()
        assert services.requests("ocsp")
    assert trusted(fleet, tmp_path, later) == 4


def test_one_process_at_a_time_works_in_a_folder(tmp_path) -> None:
    with FetchJournal(str(tmp_path)), pytest.raises(InputError, match="another process"):
        FetchJournal(str(tmp_path))
    FetchJournal(str(tmp_path)).__exit__()


def test_a_journal_that_its_owner_has_just_taken_away_is_not_written_to(tmp_path, monkeypatch) -> None:
    real = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        # Between open and lock another process ends its work, and a third begins.
        (tmp_path / "journal.jsonl").unlink()
        (tmp_path / "journal.jsonl").write_bytes(b"")
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InputError, match="another process"):
        FetchJournal(str(tmp_path))
    assert (tmp_path / "journal.jsonl").read_bytes() == b""


def test_a_journal_that_the_system_keeps_is_a_new_one(tmp_path, monkeypatch) -> None:
    def kept(path: str) -> None:
        raise PermissionError(13, "in use", path)

    monkeypatch.setattr(os, "unlink", kept)
    with FetchJournal(str(tmp_path)) as journal:
        journal.arrived("key", b"content")
        journal.discard()
    with FetchJournal(str(tmp_path)) as journal:
        assert journal.empty


def test_a_link_and_a_pipe_are_no_journal(tmp_path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "journal.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"journal\.jsonl"):
        FetchJournal(str(tmp_path / "linked"))
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "journal.jsonl")
    with pytest.raises(InputError, match="not a journal"):
        FetchJournal(str(tmp_path / "piped"))


@pytest.mark.parametrize("content", [b"something else\n", b"{}\n", b"x" * 3_000_000])
def test_a_file_of_another_program_is_no_journal_and_stays(tmp_path, content) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a journal"):
        FetchJournal(str(tmp_path))
    assert path.read_bytes() == content


def test_a_damaged_entry_is_an_error(tmp_path) -> None:
    with FetchJournal(str(tmp_path)) as journal:
        journal.arrived("key", b"content")
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Y29udGVudA==", b"Y29udGVuZA=="))
    with FetchJournal(str(tmp_path)) as journal, pytest.raises(InputError, match="damaged"):
        journal.answer("key")


def test_merged_bundles_keep_the_answer_that_counts(tmp_path) -> None:
    old, new = (Platform.build("hopper-1", lies=lies).collateral() for lies in (["gpu0:revoked=1"], []))
    with FetchJournal(str(tmp_path)) as journal:
        for part in (new, old, new):
            journal.merge(Collateral(rims=part.rims, ocsp=part.ocsp))
        folder = journal.finish()
    held = {answer.content for part in folder.parts() for answer in part.ocsp}
    assert held == {answer.content for answer in old.ocsp}


def test_a_forged_answer_that_is_newer_takes_no_genuine_one_out_of_a_merge(tmp_path) -> None:
    platform = Platform.build("hopper-1")
    later = Platform.build("hopper-1", clock=platform.clock + timedelta(hours=1))

    def forged(answer: OcspAnswer) -> OcspAnswer:
        signature = parse_ocsp_response(answer.content).signature
        return replace(answer, content=answer.content.replace(signature, bytes(len(signature))))

    genuine, verifier = platform.collateral(), Verifier(anchors=platform.trust_anchors())
    others = Collateral(ocsp=tuple(forged(answer) for answer in later.collateral().ocsp))
    with FetchJournal(str(tmp_path)) as journal:
        # Without the evidence of the device: only the answers about the RIMs' certificates can be verified.
        _, bad = inspect_parts([genuine, others], verifier, later.time, use=journal.merge)
        folder = journal.finish()
    assert 0 < len(bad) < len(others.ocsp)
    held = tuple(answer for part in folder.parts() for answer in part.ocsp)
    assert verifier.appraise(
        platform.evidence(DEFAULT_NONCE), nonce=DEFAULT_NONCE, collateral=Collateral(rims=folder.shared.rims, ocsp=held),
        at=later.time,
    ).trusted  # fmt: skip


def test_requests_keep_to_the_rate(fleet, services) -> None:
    from nvattest._waiting import Deadline

    class Clock:
        now = 1000.0

        def __call__(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    url = f"{services.rim_url}/v1/rim/{fleet.platform.rim_ids[0]}"
    with HttpClient(HttpSettings(rate=4.0), sleep=clock.sleep, clock=clock) as client:
        deadline = Deadline(60, clock=clock)
        for _ in range(5):
            client.exchange(RIM_SERVICE, url, deadline)
    assert clock.now == pytest.approx(1001.0)


def test_a_group_fits_into_its_time_limit_at_the_rate_that_is_allowed(fleet, services, tmp_path) -> None:
    seen: list[int] = []
    with FetchJournal(str(tmp_path)) as journal:
        gather(
            fleet, services, journal, nodes(fleet, 0, 6), progress=seen.append, timeout=2.0,
            http=HttpSettings(rate=4.0 * 100), renew=None,
        )  # fmt: skip
        assert seen == [6]
        seen.clear()
        gather(
            fleet,
            services,
            journal,
            nodes(fleet, 0, 6),
            progress=seen.append,
            timeout=0.02,
            http=HttpSettings(rate=400),
        )
    assert seen == [2, 4, 6]
