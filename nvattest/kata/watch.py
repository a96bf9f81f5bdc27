"""The service: attest, wait, attest again; and at once when a device or the driver is no longer the one attested.

GPUs that stand by an earlier verdict of ours keep working while they are attested again. Anything that is not a trusted
result takes the ready state away and withdraws the token; the next round tries again.
"""

from __future__ import annotations

import signal
import threading
import time

from nvattest.kata.arguments import Stage
from nvattest.kata.config import load_settings
from nvattest.kata.container import Container
from nvattest.kata.files import Lock, make_folder
from nvattest.kata.identity import identify
from nvattest.kata.journal import Journal
from nvattest.kata.outcome import NO_GPU, TRUSTED, exit_status, shown_status
from nvattest.kata.paths import Paths
from nvattest.kata.record import Record, belongs, read_record

__all__ = ["watch"]

_LOOK: float = 2.0


def watch(paths: Paths, *, once: bool) -> int:
    """Attest until told to end; the status is that of the last round. ``once`` ends after one round."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    while True:
        record = attest_round(paths)
        good = record is not None and record["verdict"] in (TRUSTED, NO_GPU)
        if once or ended.is_set() or (record is not None and record["cause"] == "terminated"):
            if record is None:
                return exit_status("lock")
            return shown_status(str(record["cause"]), stage=Stage.WATCH, on_failure="block")
        config = load_settings(paths).config
        _wait(paths, record if good else None, config.watch_interval if good else config.watch_retry, ended)
        if ended.is_set():
            # The last verdict stands: it has been reached, and nothing has been found against it.
            return 0 if good else exit_status("terminated")


def attest_round(paths: Paths) -> Record | None:
    """One round under the lock; None where another attestation holds it for longer than this one may last."""
    from nvattest.kata.attest import attest_and_record

    started = time.monotonic()
    settings = load_settings(paths)
    journal = Journal(paths)
    settings.apply(journal)
    try:
        make_folder(paths.run)
        lock = Lock(paths.lock)
    except OSError as error:
        from nvattest.kata.ready import take_away

        take_away(settings.nvml)
        journal.verdict(f"{paths.lock}: {error.strerror or error}; GPUs not ready", good=False)
        return None
    try:
        if not lock.take(started + settings.budget(Stage.WATCH)):
            journal.verdict("another attestation does not end; this round is left out", good=False)
            return None
        known = read_record(paths)
        refresh = known is not None and belongs(known, identify(paths, settings.inputs)) and known["verdict"] == TRUSTED
        return attest_and_record(
            paths, settings, journal, stage=Stage.WATCH, container=Container(), known=known, started=started,
            refresh=refresh,
        )  # fmt: skip
    finally:
        lock.close()


def _wait(paths: Paths, record: Record | None, seconds: float, ended: threading.Event) -> None:
    until = time.monotonic() + seconds
    while not ended.wait(max(0.0, min(_LOOK, until - time.monotonic()))):
        if time.monotonic() >= until:
            return
        inputs = record["inputs"] if record is not None else [paths.config]
        if record is not None and not belongs(record, identify(paths, inputs)):
            return
