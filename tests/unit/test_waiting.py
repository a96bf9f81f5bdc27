"""One deadline; work that is given up at it; jobs at once, bounded in number and time."""

from __future__ import annotations

import math
import threading

import pytest

from nvattest._waiting import Deadline, Late, NoThread, Work, run_all


def test_results_and_errors_come_in_order() -> None:
    def fail() -> int:
        raise ValueError("no")

    results = run_all([lambda: 1, fail, lambda: 3], Deadline(10))
    assert results[0] == 1
    assert isinstance(results[1], ValueError)
    assert results[2] == 3


def test_no_jobs_need_no_thread() -> None:
    before = threading.active_count()
    assert run_all([], Deadline(10)) == []
    assert threading.active_count() == before


def test_what_hangs_is_left_behind_at_the_deadline() -> None:
    forever = threading.Event()
    quick = threading.Event()

    def hang() -> int:
        forever.wait()
        return 1

    def work() -> int:
        quick.set()
        return 2

    try:
        results = run_all([hang, work], Deadline(0.2))
        assert isinstance(results[0], Late)
        assert results[1] == 2
    finally:
        forever.set()


def test_what_has_not_begun_at_the_deadline_never_begins() -> None:
    forever = threading.Event()
    begun = []

    def hang() -> None:
        begun.append(1)
        forever.wait()

    run_all([hang, hang, hang], Deadline(0.1), workers=1)
    forever.set()
    for thread in threading.enumerate():
        if thread.name.startswith("nvattest-job"):
            thread.join(5)
    assert len(begun) <= 1


def test_no_more_than_the_allowed_number_runs_at_once() -> None:
    lock, running, most = threading.Lock(), 0, 0
    gate = threading.Barrier(3)

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(5)
        with lock:
            running -= 1

    run_all([job] * 9, Deadline(20), workers=3)
    assert most == 3


def test_a_deadline_that_is_no_time_is_over_and_one_without_end_can_be_waited_for() -> None:
    for seconds in (0.0, -1.0, math.nan):
        assert Deadline(seconds).passed
    endless = Deadline(math.inf)
    assert threading.Event().wait(0) is False
    assert 0 < endless.remaining() <= threading.TIMEOUT_MAX
    now = [100.0]
    counted = Deadline(8.0, since=95.0, clock=lambda: now[0])
    assert counted.remaining() == 3.0
    now[0] = 104.0
    assert (counted.remaining(), counted.passed) == (0.0, True)


def no_threads(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_thread_work_fails_or_is_done_here_and_each_job_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_threads)
    with pytest.raises(NoThread, match="can't start"):
        Work("work", lambda: 1).result(Deadline(10))
    assert Work("work", lambda: 1, here=True).result(Deadline(10)) == 1
    results = run_all([lambda: 1, lambda: 2], Deadline(10))
    assert [type(result) for result in results] == [NoThread, NoThread]


def test_jobs_share_the_threads_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, begun = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        begun.append(thread)
        if len(begun) != 2:
            no_threads(thread)
        usual(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert run_all([lambda: 1, lambda: 2, lambda: 3], Deadline(10)) == [1, 2, 3]
    assert len(begun) == 3
