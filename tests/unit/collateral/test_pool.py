"""Jobs at once, bounded in number and time."""

from __future__ import annotations

import threading

from nvattest.collateral.deadline import Deadline
from nvattest.collateral.pool import Late, run_all


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
        if thread.name.startswith("nvattest-net"):
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
