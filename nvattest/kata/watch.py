"""The service: attest, wait, attest again; and at once when a device or the driver is no longer the one attested.

GPUs that stand by an earlier verdict of ours keep working while they are attested again. Anything that is not a trusted
result takes the ready state away and withdraws the token; the next round tries again. A signal ends a round that has
begun as a failure; between rounds, and before one has the lock, a verdict that stands is left as it is.
"""

from __future__ import annotations

import time
from functools import partial

from nvattest.kata.arguments import Stage
from nvattest.kata.config import load_settings
from nvattest.kata.container import Container
from nvattest.kata.files import Lock, make_folder
from nvattest.kata.identity import identify
from nvattest.kata.journal import Journal
from nvattest.kata.outcome import NO_GPU, TRUSTED, exit_status, shown_status
from nvattest.kata.paths import Paths
from nvattest.kata.record import Record, belongs, read_record, reusable
from nvattest.kata.termination import Termination

__all__ = ["watch"]

_LOOK: float = 2.0


def watch(paths: Paths, *, once: bool, termination: Termination) -> int:
    """Attest until told to end; the status is that of the last round. ``once`` ends after one round."""
    while True:
        record = attest_round(paths, termination)
        good = record is not None and record["verdict"] in (TRUSTED, NO_GPU)
        if once:
            if record is None:
                return exit_status("terminated" if termination.asked else "lock")
            return shown_status(str(record["cause"]), stage=Stage.WATCH, on_failure="block")
        config = load_settings(paths).config
        seconds = config.watch_interval if good else config.watch_retry
        termination.wait(partial(_wait, paths, record if good else None, seconds))
        if termination.asked:
            # The last verdict stands: it has been reached, and nothing has been found against it.
            return 0 if good else exit_status("terminated")


def attest_round(paths: Paths, termination: Termination) -> Record | None:
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
        until = started + settings.budget(Stage.WATCH)
        if not (termination.wait(lambda: lock.take(until)) or lock.take(started)):
            journal.verdict("another attestation does not end; this round is left out", good=False)
            return None
        known, identity = read_record(paths), identify(paths, settings.inputs)
        if termination.asked and known is not None and reusable(known, identity, paths):
            return known
        refresh = known is not None and belongs(known, identity) and known["verdict"] == TRUSTED
        return attest_and_record(
            paths, settings, journal, stage=Stage.WATCH, container=Container(), known=known, started=started,
            termination=termination, refresh=refresh,
        )  # fmt: skip
    finally:
        lock.close()


def _wait(paths: Paths, record: Record | None, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        time.sleep(max(0.0, min(_LOOK, until - time.monotonic())))
        if time.monotonic() >= until:
            return
        inputs = record["inputs"] if record is not None else [paths.config]
        if record is not None and not belongs(record, identify(paths, inputs)):
            return
