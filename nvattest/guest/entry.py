"""One run from its arguments to its exit status: the fast path, the lock, and what comes after only where it must.

1  read the arguments, as a hook all of stdin, and the configuration; open the run folder
2  a good verdict of this boot, these devices and these settings that is still fresh: done. Who starts a workload by our
   status (init, gate) wants to know that the GPUs are still ready too; a hook has no time to ask the driver
3  take the lock; whoever attested while we waited did it for us too
4  attest (``attest.py``)

Where the run folder must not be believed, nothing in it is read and nothing is published: the GPUs are set not ready.

After a signal nothing is waited for any more. A verdict that stands is used, whoever holds the lock answers for the
ready state, and otherwise the attestation ends before its first step, as one that is ended later does: GPUs not ready.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TextIO

from nvattest._folder import Lock, TrustedFolder
from nvattest._pci import pci_devices
from nvattest._text import block
from nvattest._version import __version__
from nvattest.guest.arguments import AGENT_SECONDS, COMMANDS, USAGE, Arguments, Stage, UsageError, parse_arguments
from nvattest.guest.config import Settings, load_settings
from nvattest.guest.container import Container, read_state
from nvattest.guest.identity import Identity, boottime, identify, seconds_since_fork
from nvattest.guest.journal import Journal
from nvattest.guest.outcome import NO_GPU, NOT_TRUSTED, TRUSTED, exit_status, headline, shown_status
from nvattest.guest.paths import Paths, own_configuration
from nvattest.guest.record import Record, finished_since, read_record, reusable
from nvattest.guest.termination import Termination

__all__ = ["run", "run_stage"]


def run(argv: list[str], *, started: float, termination: Termination) -> int:
    """Run the stage that the arguments name and return its exit status.

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
            from nvattest.guest.watch import watch

            return watch(paths, once=arguments.once, termination=termination)
        if arguments.stage == Stage.HOOK:
            age = seconds_since_fork()
            # An older one waited before it became this program, and no agent of today waits for it.
            started = min(started, time.monotonic() - age) if age < AGENT_SECONDS else started
        return run_stage(arguments, paths, started=started, termination=termination)
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a line and a status that is not 0
        _last_resort(error, paths)
        return exit_status("internal")


def _last_resort(error: Exception, paths: Paths) -> None:
    """A fault of ours outside of an attestation: no GPU may stay ready by it, and the line says what is known."""
    ready = None
    with suppress(Exception):
        from nvattest.guest.ready import take_away

        ready = take_away(load_settings(paths).nvml, seconds=1.0)
    line = f"{headline(NOT_TRUSTED, ready)}: {error!r}"
    try:
        Journal(paths).verdict(line, good=False)
    except Exception:  # noqa: BLE001 - the journal may be what is at fault
        _say(f"nvattest-hook: {line}"[:480], sys.stderr)


def _command(arguments: Arguments, paths: Paths, termination: Termination) -> int:
    from nvattest.guest.commands import print_check, print_status, run_on_attested

    if arguments.stage == Stage.GATE:
        return run_on_attested(paths, arguments.command, termination=termination)
    try:
        if arguments.stage == "check":
            status = print_check(paths, arguments.hook_path, arguments.format)
        else:
            status = print_status(paths, arguments.format)
        sys.stdout.flush()
    except OSError as error:
        # Its reader went away, or its disk is full.
        _say(f"nvattest-hook: the result could not be written: {error.strerror or error}", sys.stderr)
        return exit_status("output")
    return status


def _say(text: str, stream: TextIO) -> bool:
    try:
        print(block(text), file=stream, flush=True)
    except (OSError, ValueError):
        # Its reader went away.
        return False
    return True


def run_stage(arguments: Arguments, paths: Paths, *, started: float, termination: Termination) -> int:
    """One attestation, or the use of one that stands; returns the exit status."""
    stage = arguments.stage
    journal = Journal(paths)
    since = boottime() - (time.monotonic() - started)
    container = (termination.wait(read_state) if stage == Stage.HOOK else None) or Container()
    settings = load_settings(paths)
    settings.apply(journal)
    try:
        folder = TrustedFolder(paths.run, make=True, mode=0o755)
    except OSError as error:
        return _no_place(error, settings, stage, journal)
    # (2) a verdict that stands
    known = read_record(folder)
    if known is not None and _stands(known, identify(paths, settings.inputs), folder, settings, stage):
        return _use(known, stage, container, settings, journal, started)
    # (3) one attests, the others wait for it
    budget = settings.budget(stage)
    try:
        lock = Lock(folder)
    except OSError as error:
        status = _no_place(error, settings, stage, journal)
        with suppress(OSError):
            # The ready state is gone, and so is what the token speaks of.
            folder.remove(paths.TOKEN)
        return status
    asked = time.monotonic()
    try:
        if not (termination.wait(lambda: lock.take(started + budget)) or lock.take(started)):
            line = headline(NOT_TRUSTED, None, "lock")
            if termination.asked:
                return _fail(line, "ended by a signal", "terminated", settings, stage, journal)
            message = f"another attestation did not end within {budget:g} s"
            return _fail(line, message, "lock", settings, stage, journal)
        waited = time.monotonic() - asked
        # What was read before may have been replaced while we waited.
        settings = load_settings(paths)
        settings.apply(journal)
        known = read_record(folder)
        identity = identify(paths, settings.inputs)
        if known is not None and (
            _stands(known, identity, folder, settings, stage)
            or (finished_since(known, identity, since, folder) and _may_be(known, settings))
        ):
            return _use(known, stage, container, settings, journal, started)
        # (4) attest: from here on a signal ends the attestation
        from nvattest.guest.attest import attest_and_record

        record = attest_and_record(
            folder, settings, journal, stage=stage, container=container, known=known, started=started,
            waited=waited, termination=termination,
        )  # fmt: skip
        return _status(record, stage, settings)
    finally:
        lock.close()


def _stands(known: Record, identity: Identity, folder: TrustedFolder, settings: Settings, stage: str) -> bool:
    return (
        reusable(known, identity, folder, seconds=settings.reuse_seconds)
        and _may_be(known, settings)
        and (stage == Stage.HOOK or _is_still_ready(known, settings))
    )


def _may_be(known: Record, settings: Settings) -> bool:
    # That there is no GPU is for the configuration and the bus to say, each time.
    return known.verdict != NO_GPU or settings.no_gpu_is_right(pci_devices(settings.paths.root))


def _is_still_ready(known: Record, settings: Settings) -> bool:
    if known.verdict == NO_GPU:
        return True
    from nvattest.guest.ready import are_ready

    return are_ready(settings.nvml)


def _use(known: Record, stage: str, container: Container, settings: Settings, journal: Journal, started: float) -> int:
    verdict = known.verdict
    age = boottime() - known.finished_boottime
    milliseconds = round(1000 * (time.monotonic() - started), 1)
    journal.summary(
        {
            "stage": stage,
            "verdict": verdict,
            "reused": True,
            # A hook has no time to ask the driver; the other stages come here only if it said so.
            "ready": True if verdict == TRUSTED and stage != Stage.HOOK else None,
            "run": known.run,
            "age_s": round(age, 1),
            "container": container.id,
            "container_kind": container.kind,
            "stdin": container.note,
            "milliseconds": milliseconds,
        }
    )
    why = f": {known.reason.message}" if known.reason is not None and not known.good else ""
    simulated = " (SIMULATED)" if known.simulated else ""
    unasked = "; whether they still are was not asked" if verdict == TRUSTED and stage == Stage.HOOK else ""
    line = f"{headline(verdict, known.ready, known.cause)}{simulated}{why}"
    journal.verdict(f"{line}; verdict of {age:.1f} s ago used again{unasked}", good=known.good)
    return _status(known, stage, settings)


def _status(record: Record, stage: str, settings: Settings) -> int:
    return shown_status(record.cause, stage=stage, on_failure=settings.on_failure)


def _no_place(error: OSError, settings: Settings, stage: str, journal: Journal) -> int:
    """Nothing can be published, so nothing may be ready: another attestation could not be seen either."""
    from nvattest.guest.ready import take_away

    line = headline(NOT_TRUSTED, take_away(settings.nvml, seconds=settings.closing(stage)))
    return _fail(line, f"{error.filename}: {error.strerror or error}", "output", settings, stage, journal)


def _fail(line: str, message: str, cause: str, settings: Settings, stage: str, journal: Journal) -> int:
    journal.summary({"stage": stage, "verdict": NOT_TRUSTED, "reason": {"code": cause, "message": message}})
    journal.verdict(f"{line}; {message}", good=False)
    return shown_status(cause, stage=stage, on_failure=settings.on_failure)
