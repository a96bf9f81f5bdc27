"""The fleet: one answer per line, in order, whatever a line says and whatever happens to a worker."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from nvattest import fleet
from nvattest.errors import InputError, ParseError
from nvattest.fleet import BatchSettings, Judge, Resumed, Sums, verify_batch
from nvattest.model import VerificationTime
from nvattest.testing import DEFAULT_NONCE, Platform


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform.build("hopper-1")


@pytest.fixture(scope="module")
def settings(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> BatchSettings:
    bundle = tmp_path_factory.mktemp("fleet") / "bundle.json"
    bundle.write_text(json.dumps(platform.bundle()), encoding="utf-8")
    return BatchSettings(bundles=(str(bundle),), anchors=platform.anchors_pem, at=platform.time)


def line(platform: Platform, name: object, **changes: object) -> bytes:
    document = {
        "id": name,
        "nonce": DEFAULT_NONCE.hex(),
        "evidence": json.loads(platform.evidence_json(None, DEFAULT_NONCE)),
    } | changes
    return json.dumps(document).encode()


def test_every_line_has_one_answer_in_the_order_of_the_lines(platform: Platform, settings: BatchSettings) -> None:
    good = [line(platform, index) for index in range(40)]
    answers = [json.loads(text) for text in verify_batch(good, settings, workers=2)]
    assert [answer["id"] for answer in answers] == list(range(40))
    assert all(answer["trusted"] and answer["result_code"] == 0 for answer in answers)
    assert all(answer["simulated"] for answer in answers)


def test_bad_lines_are_answered_and_stop_nothing(platform: Platform, settings: BatchSettings) -> None:
    lines = [
        b"no json",
        b"[]",
        line(platform, "extra", surplus=1),
        line(platform, "nonce", nonce="zz"),
        line(platform, "other", nonce="00" * 32),
        line(platform, "time", at="yesterday"),
        line(platform, "empty", evidence=[]),
        line(platform, "good"),
    ]
    answers = [json.loads(text) for text in verify_batch(lines, settings, workers=1)]
    assert [answer["trusted"] for answer in answers] == [False] * 7 + [True]
    assert [answer["id"] for answer in answers][2:] == ["extra", "nonce", "other", "time", "empty", "good"]
    assert answers[4]["result_code"] == 504
    assert answers[4]["devices"][0]["failures"][0]["id"] == "nonce"


@pytest.mark.parametrize("name", ["é" * (5 << 20), list(range(20_000)), {"a": "b" * 5000}])
def test_a_long_id_makes_no_answer_that_an_interrupted_run_cannot_read(
    platform: Platform, settings: BatchSettings, name: object, tmp_path: Path
) -> None:
    spelled_out = json.dumps({"id": name, "nonce": "", "evidence": []}, ensure_ascii=False).encode()
    judge, lines = Judge(settings), [spelled_out, line(platform, "x" * 4000), b"[]"]
    answers = [judge.judge(text).encode() + b"\n" for text in lines]
    assert len(answers[0]) < 1000
    assert json.loads(answers[0])["error"]["code"] == "batch-line"
    output = tmp_path / "out.jsonl"
    output.write_bytes(b"".join(answers))
    sums = Sums()
    Resumed(str(output), judge.digest).compare(iter(lines), sums)
    assert (sums.lines, sums.trusted, sums.bad) == (3, 1, 2)


def test_a_line_chooses_its_clock_only_where_that_is_allowed(platform: Platform, settings: BatchSettings) -> None:
    stale = replace(settings, at=VerificationTime.at(datetime(2026, 12, 1, tzinfo=timezone.utc)))
    then = line(platform, "past", at=str(platform.time))
    refused = json.loads(Judge(stale).judge(then))
    assert (refused["trusted"], refused["error"]["code"]) == (False, "line-time")
    assert "--allow-line-time" in refused["error"]["message"]
    lenient = Judge(replace(stale, allow_line_time=True))
    answer = json.loads(lenient.judge(then))
    assert (answer["trusted"], answer["weakened"]) == (True, ["judged-at-another-time"])
    assert answer["at"] == {"device": str(platform.time), "rim": str(platform.time)}
    # Without a clock of its own the line is judged by the batch's.
    answer = json.loads(lenient.judge(line(platform, "now")))
    assert (answer["trusted"], answer["weakened"], answer["at"]["device"]) == (False, [], "2026-12-01T00:00:00Z")


@pytest.mark.parametrize(("minutes", "weakened"), [(60, []), (-60, []), (61, ["judged-at-another-time"])])
def test_an_instant_within_an_hour_of_the_batchs_is_the_same_time(
    platform: Platform, settings: BatchSettings, minutes: int, weakened: list[str]
) -> None:
    usual = platform.time.device + timedelta(minutes=minutes)
    judge = Judge(replace(settings, at=VerificationTime.at(usual), allow_line_time=True))
    answer = json.loads(judge.judge(line(platform, 1, at=str(platform.time))))
    assert (answer["weakened"], answer["anchors"]) == (weakened, platform.trust_anchors().label)


def test_the_batchs_own_clock_may_have_two_instants(platform: Platform, settings: BatchSettings) -> None:
    at = VerificationTime(device=platform.time.device, rim=platform.time.rim - timedelta(hours=2))
    answer = json.loads(Judge(replace(settings, at=at)).judge(line(platform, 1)))
    assert (answer["weakened"], answer["at"]["rim"]) == ([], "2026-10-31T22:00:00Z")


def test_unreadable_settings_are_told_before_any_line(settings: BatchSettings, tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_bytes(b"{}")
    with pytest.raises(ParseError):
        list(verify_batch([b"{}"], replace(settings, bundles=(str(tmp_path / "empty.json"),))))
    with pytest.raises(InputError):
        list(verify_batch([b"{}"], settings, workers=0))


class _Deadly(Judge):
    """A judge that dies on one id, as a worker that is out of memory would."""

    def judge(self, line: bytes) -> str:
        if b'"deadly"' in line:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().judge(line)


def _start_deadly(settings: BatchSettings, _contents: object) -> None:
    fleet._judges.append(_Deadly(settings))


@pytest.fixture
def deadly_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(count: int, settings: BatchSettings, contents: object) -> fleet.ProcessPoolExecutor:
        context = fleet.get_context("fork")
        return fleet.ProcessPoolExecutor(
            count, mp_context=context, initializer=_start_deadly, initargs=(settings, contents)
        )

    monkeypatch.setattr(fleet, "_pool", pool)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.usefixtures("deadly_workers")
def test_a_line_that_kills_its_worker_is_an_error_and_all_others_are_answered(
    platform: Platform, settings: BatchSettings
) -> None:
    names: list[object] = [*range(20), "deadly", *range(20, 50)]
    answers = [json.loads(text) for text in verify_batch([line(platform, name) for name in names], settings, workers=2)]
    assert [answer["id"] for answer in answers] == names
    dead = answers[20]
    assert not dead["trusted"]
    assert dead["error"]["code"] == "worker-died"
    assert all(answer["trusted"] for answer in answers if answer["id"] != "deadly")


def test_checks_that_fail_equally_often_are_counted_in_the_order_of_the_story() -> None:
    names = ["nonce", "mode", "chain-path", "topology", "measurements", "fwid", "debug", "versions"]
    sums = Sums()
    sums.add({"trusted": False, "devices": [{"failures": [{"id": name} for name in names]}]})
    sums.add({"trusted": False, "failures": [{"id": "devices-trusted"}]})
    assert list(sums.document("")["failures"]) == [*names, "devices-trusted"]
    assert [text.split(": ")[1] for text in sums.text()[1:]] == [*names, "devices-trusted"]
