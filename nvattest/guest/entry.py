"""The program from its arguments to its exit status: stages, commands, the fast path and the lock.

A stage attests once (``prestart``, ``--stage init``, ``gate``) or again and again (``--stage watch``):

1  read the arguments, as a hook all of stdin, and the configuration; open the run folder
2  a good verdict of this boot, these devices and these settings that is still fresh: done. A caller that starts a
   workload by our status (init, gate) needs GPUs that are still ready, so the driver is asked; a hook has no time for
   that. The watch exists to attest again, and skips this step
3  take the lock; a run that attested while we waited did it for us too
4  attest (``attest.py``)

Where the run folder must not be believed, nothing in it is read and nothing is published: the GPUs are set not ready.

After a signal nothing is waited for any more. A verdict that stands is used, the run that holds the lock answers for
the ready state, and otherwise the attestation ends before its first step, as one that is ended later does: GPUs not
ready.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TextIO

from nvattest._package import __version__
from nvattest._system import Lock, TrustedFolder, pci_devices
from nvattest._text import block, clean
from nvattest.guest.arguments import (
    AGENT_SECONDS,
    COMMANDS,
    READING,
    USAGE,
    Arguments,
    Container,
    Stage,
    Termination,
    UsageError,
    parse_arguments,
    read_state,
)
from nvattest.guest.config import LOOK_SECONDS, Paths, Settings, load_settings, own_configuration
from nvattest.guest.record import (
    NO_GPU,
    NOT_TRUSTED,
    TRUSTED,
    Identity,
    Journal,
    Record,
    belongs,
    boottime,
    exit_status,
    finished_since,
    headline,
    identify,
    read_record,
    refreshable,
    reusable,
    seconds_since_fork,
    shown_status,
)

# What a shell says of a command that it cannot run, and of one that it does not find.
CANNOT_RUN: Final = 126
NOT_FOUND: Final = 127


def run(argv: list[str], *, started: float, termination: Termination) -> int:
    """Run the stage or command that the arguments name and return its exit status.

    ``started`` is the program's first instant (``time.monotonic``); a hook's time counts from that of its process.
    """
    try:
        arguments = parse_arguments(argv)
    except UsageError as error:
        _say(f"nvattest-hook: {error}\n{USAGE}", sys.stderr)
        return exit_status("usage")
    if arguments.stage in ("version", "help"):
        text = USAGE if arguments.stage == "help" else f"nvattest-hook {__version__}"
        return exit_status("ok" if _say(text, sys.stdout) else "output")
    paths = Paths(arguments.root, arguments.config or own_configuration(arguments.root, sys.executable))
    try:
        if arguments.stage in COMMANDS:
            return _command(arguments, paths, termination)
        if arguments.stage == Stage.WATCH:
            return watch(paths, once=arguments.once, metrics=arguments.metrics, termination=termination)
        if arguments.stage == Stage.HOOK:
            age = seconds_since_fork()
            # An older one waited before it became this program, and no agent of today waits for it.
            started = min(started, time.monotonic() - age) if age < AGENT_SECONDS else started
        return run_stage(arguments.stage, paths, started=started, termination=termination)
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a line and a status that is not 0
        if arguments.stage in READING:
            # It found nothing against a verdict, and changes no ready state.
            _say(f"nvattest-hook: {arguments.stage} failed: {error!r}"[:480], sys.stderr)
        else:
            _last_resort(error, paths)
        return exit_status("internal")


def _last_resort(error: Exception, paths: Paths) -> None:
    """A fault of ours outside of an attestation: no GPU may stay ready by it; the line says what is known."""
    ready = None
    with suppress(Exception):
        from nvattest.guest.ready import take_away

        ready = take_away(load_settings(paths).nvml, seconds=1.0)
    line = f"{headline(NOT_TRUSTED, ready)}: {error!r}"
    try:
        Journal(Settings(paths)).verdict(line, good=False)
    except Exception:  # noqa: BLE001 - the journal may be what is at fault
        _say(f"nvattest-hook: {line}"[:480], sys.stderr)


def _say(text: str, stream: TextIO) -> bool:
    try:
        print(block(text), file=stream, flush=True)
    except (OSError, ValueError):
        # Its reader went away.
        return False
    return True


# How an attestation ended: the cause, and the record, which is None where none could begin.
_Ended = tuple[str, Record | None]


def run_stage(stage: str, paths: Paths, *, started: float, termination: Termination) -> int:
    """One attestation, or the use of one that stands; returns the exit status."""
    journal = Journal(load_settings(paths))
    cause, _ = _attest(stage, journal, started=started, termination=termination)
    return shown_status(cause, stage=stage, on_failure=journal.settings.on_failure)


def watch(paths: Paths, *, once: bool, metrics: str = "", termination: Termination) -> int:
    """Attest, wait, attest again; at once when a device or the driver is no longer the one that was attested.

    GPUs that are ready by an earlier verdict of ours keep working while they are attested again. A result that is not
    trusted takes the ready state away and withdraws the token; the next round tries again. A signal ends a round that
    has begun as a failure; between rounds, and before one has the lock, a verdict that stands is left as it is.

    The status is that of the last round. ``once`` ends after one round. ``metrics`` is a file that is written after
    each round; one that cannot be written is a line on stderr and decides nothing.
    """
    while True:
        journal = Journal(load_settings(paths))
        cause, record = _attest(Stage.WATCH, journal, started=time.monotonic(), termination=termination)
        good = record is not None and record.good
        if metrics:
            _wrote_metrics(metrics, paths)
        if once:
            return exit_status(cause)
        termination.wait(partial(_wait, load_settings(paths), record if good else None))
        if termination.asked:
            # The last verdict stands: nothing has been found against it.
            return 0 if good else exit_status("terminated")


def _wrote_metrics(path: str, paths: Paths, status: dict[str, Any] | None = None) -> bool:
    try:
        from nvattest.guest.status import hook_status, write_metrics

        write_metrics(path, hook_status(paths) if status is None else status)
    except Exception as error:  # noqa: BLE001 - no fault of it may end a watch and take the ready state away
        why = error.strerror if isinstance(error, OSError) else None
        _say(f"nvattest-hook: the metrics could not be written: {path}: {why or error}", sys.stderr)
        return False
    return True


def _wait(settings: Settings, record: Record | None) -> None:
    """Wait for the next round: of a good ``record`` only while it is still that of these devices and settings."""
    from nvattest._waiting import Deadline

    deadline = Deadline(settings.config.watch_retry if record is None else settings.config.watch_interval)
    while True:
        time.sleep(min(LOOK_SECONDS, deadline.remaining()))
        if deadline.passed:
            return
        if record is not None and not belongs(record, identify(settings.paths, settings.inputs)):
            return


def _attest(stage: str, journal: Journal, *, started: float, termination: Termination) -> _Ended:
    # (1) stdin and the run folder
    # Not since the fork: the kernel gives that instant to a hundredth of a second, in which another run may have ended.
    since, settings = boottime(), journal.settings
    container = (termination.wait(read_state) if stage == Stage.HOOK else None) or Container()
    try:
        folder = TrustedFolder(settings.paths.run, make=True, mode=0o755)
    except OSError as error:
        return _no_place(error, stage, journal)
    # (2) a verdict that stands
    if stage != Stage.WATCH:
        known = read_record(folder)
        if known is not None and _stands(known, identify(settings.paths, settings.inputs), folder, settings, stage):
            return _use(known, stage, container, journal, started)
    # (3) one attests, the others wait for it
    try:
        lock = Lock(folder)
    except OSError as error:
        ended = _no_place(error, stage, journal)
        with suppress(OSError):
            # The ready state is gone, and so is what the token speaks of.
            folder.remove(Paths.TOKEN)
        return ended
    asked = time.monotonic()
    try:
        budget = settings.budget(stage)
        if not (termination.wait(lambda: lock.take(started + budget)) or lock.take(started)):
            cause, why = "lock", f"another attestation did not end within {budget:g} s"
            if termination.asked:
                cause, why = "terminated", "ended by a signal"
            return _fail(headline(NOT_TRUSTED, None, "lock"), why, cause, stage, journal)
        waited = time.monotonic() - asked
        # What was read before may have been replaced while we waited.
        settings = journal.settings = load_settings(settings.paths)
        known, identity = read_record(folder), identify(settings.paths, settings.inputs)
        if known is not None:
            if stage == Stage.WATCH:
                if termination.asked and reusable(known, identity, folder, seconds=settings.reuse_seconds):
                    return known.cause, known
            elif _stands(known, identity, folder, settings, stage) or (
                finished_since(known, identity, since, folder) and _may_be(known, settings)
            ):
                return _use(known, stage, container, journal, started)
        # (4) attest: from here on a signal ends the attestation
        from nvattest.guest.attest import Run, attest_and_record

        run = Run(
            folder, settings, stage=stage, container=container, known=known, started=started, waited=waited,
            refresh=stage == Stage.WATCH and refreshable(known, identity),
        )  # fmt: skip
        record = attest_and_record(run, journal, termination)
        return record.cause, record
    finally:
        lock.close()


def _stands(known: Record, identity: Identity, folder: TrustedFolder, settings: Settings, stage: str) -> bool:
    if not (reusable(known, identity, folder, seconds=settings.reuse_seconds) and _may_be(known, settings)):
        return False
    if stage == Stage.HOOK or known.verdict == NO_GPU:
        return True
    from nvattest.guest.ready import are_ready

    return are_ready(settings.nvml)


def _may_be(known: Record, settings: Settings) -> bool:
    # That there is no GPU is for the configuration and the bus to say, each time.
    return known.verdict != NO_GPU or settings.no_gpu_is_right(pci_devices(settings.paths.root))


def _use(known: Record, stage: str, container: Container, journal: Journal, started: float) -> _Ended:
    """Use a verdict again, with a line that says so."""
    age = boottime() - known.finished_boottime
    # A hook has no time to ask the driver; the other stages come here only if it said that the GPUs are ready.
    unasked = known.verdict == TRUSTED and stage == Stage.HOOK
    journal.summary(
        {
            "stage": stage,
            "verdict": known.verdict,
            "reused": True,
            "ready": True if known.verdict == TRUSTED and not unasked else None,
            "run": known.run,
            "age_s": round(age, 1),
            "container": container.id,
            "container_kind": container.kind,
            "stdin": container.note,
            "milliseconds": round(1000 * (time.monotonic() - started), 1),
        }
    )
    line = headline(known.verdict, known.ready, known.cause)
    if known.simulated:
        line += " (SIMULATED)"
    if known.reason is not None and not known.good:
        line += f": {known.reason.message}"
    line += f"; verdict of {age:.1f} s ago used again"
    if unasked:
        line += "; whether they still are was not asked"
    journal.verdict(line, good=known.good)
    return known.cause, known


def _no_place(error: OSError, stage: str, journal: Journal) -> _Ended:
    """Nothing can be published, so nothing may be ready: another attestation could not be seen either."""
    from nvattest.guest.ready import take_away

    ready = take_away(journal.settings.nvml, seconds=journal.settings.closing(stage))
    return _fail(headline(NOT_TRUSTED, ready), f"{error.filename}: {error.strerror or error}", "output", stage, journal)


def _fail(line: str, message: str, cause: str, stage: str, journal: Journal) -> _Ended:
    journal.summary({"stage": stage, "verdict": NOT_TRUSTED, "reason": {"code": cause, "message": message}})
    journal.verdict(f"{line}; {message}", good=False)
    return cause, None


# --- the commands: of nvattest-hook, and of nvattest outside a guest layer --------------------------------------------


def _command(arguments: Arguments, paths: Paths, termination: Termination) -> int:
    if arguments.stage == Stage.GATE:
        return run_on_attested(paths, arguments.command, termination=termination)
    try:
        if arguments.stage == "check":
            from nvattest.guest.check import check_guest, print_findings

            status = print_findings(check_guest(paths, hook_folder=arguments.hook_path), arguments.format)
        else:
            status = print_status(paths, arguments.format, arguments.metrics)
        sys.stdout.flush()
    except OSError as error:
        # Its reader went away, or its disk is full.
        _say(f"nvattest-hook: the result could not be written: {error.strerror or error}", sys.stderr)
        return exit_status("output")
    return status


def print_status(paths: Paths, form: str, metrics: str = "") -> int:
    """Print the last verdict and the ready state as ``text`` or ``json``, and write them to the file ``metrics``.

    The status is 0 if a good verdict stands, and that of ``output`` where the file cannot be written.
    """
    from nvattest.guest.status import hook_status, is_good, render_status

    status = hook_status(paths)
    if form == "json":
        from nvattest._documents import dump_json

        print(dump_json({"format": "nvattest-hook-status", "version": 1, **status}))
    else:
        print(block(render_status(status)))
    if metrics and not _wrote_metrics(metrics, paths, status):
        return exit_status("output")
    return 0 if is_good(status) else 1


def run_on_attested(paths: Paths, command: Sequence[str], *, termination: Termination) -> int:
    """Attest as the hook does, with the same configuration and outputs; then become the command.

    A verdict of the hook that stands is used. Returns only where the command is not run: the hook's exit status
    (``record.EXIT``), or a shell's for a command that cannot be run.
    """
    import signal

    status = run_stage(Stage.GATE, paths, started=time.monotonic(), termination=termination)
    # A signal from here on ends this process or the command, as it would end any program.
    termination.leave()
    if status or termination.asked:
        # A signal that came after the verdict: the command must not begin.
        return status or exit_status("terminated")
    sys.stdout.flush()
    # Python ignores these two, and what is ignored stays so in the command: a writer whose reader has gone would go on.
    ignored = [(number, signal.signal(number, signal.SIG_DFL)) for number in (signal.SIGPIPE, signal.SIGXFSZ)]
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - the command is the caller's
    except OSError as error:
        for number, handler in ignored:
            signal.signal(number, handler)
        # The verdict stands, also where its reader went away.
        _say(clean(f"gate: {command[0]}: {error.strerror}"), sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
