"""The service: attest, wait, attest again; and at once when a device or the driver is no longer the one attested.

GPUs that stand by an earlier verdict of ours keep working while they are attested again. Anything that is not a trusted
result takes the ready state away and withdraws the token; the next round tries again. A signal ends a round that has
begun as a failure; between rounds, and before one has the lock, a verdict that stands is left as it is.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

from nvattest._folder import Lock, TrustedFolder
from nvattest.guest.arguments import Stage
from nvattest.guest.config import Settings, load_settings
from nvattest.guest.container import Container
from nvattest.guest.identity import LOOK_SECONDS, identify
from nvattest.guest.journal import Journal
from nvattest.guest.outcome import NOT_TRUSTED, exit_status, headline
from nvattest.guest.paths import Paths
from nvattest.guest.record import Record, belongs, read_record, refreshable, reusable
from nvattest.guest.termination import Termination

__all__ = ["watch"]

_LOOK: float = LOOK_SECONDS


def watch(paths: Paths, *, once: bool, termination: Termination) -> int:
    """Attest until told to end; the status is that of the last round. ``once`` ends after one round."""
    while True:
        cause, record = attest_round(paths, termination)
        good = record is not None and record.good
        if once:
            return exit_status(cause)
        settings = load_settings(paths)
        termination.wait(partial(_wait, settings, record if good else None))
        if termination.asked:
            # The last verdict stands: it has been reached, and nothing has been found against it.
            return 0 if good else exit_status("terminated")


def attest_round(paths: Paths, termination: Termination) -> tuple[str, Record | None]:
    """One round under the lock: its cause, and its record where it could begin."""
    from nvattest.guest.attest import attest_and_record

    started = time.monotonic()
    settings = load_settings(paths)
    journal = Journal(paths)
    settings.apply(journal)
    folder: TrustedFolder | None = None
    try:
        folder = TrustedFolder(paths.run, make=True, mode=0o755)
        lock = Lock(folder)
    except OSError as error:
        from nvattest.guest.ready import take_away

        line = headline(NOT_TRUSTED, take_away(settings.nvml, seconds=settings.closing(Stage.WATCH)))
        journal.verdict(f"{line}; {error.filename}: {error.strerror or error}", good=False)
        if folder is not None:
            with suppress(OSError):
                # The ready state is gone, and so is what the token speaks of.
                folder.remove(Paths.TOKEN)
        return "output", None
    asked = time.monotonic()
    try:
        until = started + settings.budget(Stage.WATCH)
        if not (termination.wait(lambda: lock.take(until)) or lock.take(started)):
            why = "ended by a signal" if termination.asked else "it does not end, and this round is left out"
            journal.verdict(f"{headline(NOT_TRUSTED, None, 'lock')}; {why}", good=False)
            return "terminated" if termination.asked else "lock", None
        waited = time.monotonic() - asked
        known, identity = read_record(folder), identify(paths, settings.inputs)
        if (
            termination.asked
            and known is not None
            and reusable(known, identity, folder, seconds=settings.reuse_seconds)
        ):
            return known.cause, known
        record = attest_and_record(
            folder, settings, journal, stage=Stage.WATCH, container=Container(), known=known, started=started,
            waited=waited, termination=termination, refresh=refreshable(known, identity),
        )  # fmt: skip
        return record.cause, record
    finally:
        lock.close()


def _wait(settings: Settings, record: Record | None) -> None:
    """Wait for the next round: of a good ``record`` only while it is still that of these devices and settings."""
    seconds = settings.config.watch_retry if record is None else settings.config.watch_interval
    until = time.monotonic() + seconds
    while True:
        time.sleep(max(0.0, min(_LOOK, until - time.monotonic())))
        if time.monotonic() >= until:
            return
        if record is not None and not belongs(record, identify(settings.paths, settings.inputs)):
            return
