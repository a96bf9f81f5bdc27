"""One attestation, from GPUs that do not accept work to GPUs that do, or to the reason why they still do not.

 1  the driver is there, and says what state the machine is in
 2  the GPUs are not ready: if they were, another program set them, and that is reported
 3  what an earlier run left is withdrawn
 4  the driver keeps the GPUs up when we end; the configuration can be read; the clock shows an instant that can be
 5  evidence of all devices over one new nonce; the CPU's quote over it and the token's key, where that is required
 6  RIMs and revocation answers: bundle, cache, network
 7  the appraisal of the whole platform, every check on disk
 8  the devices on the bus are still those that were there at the start, and all of them were attested
 9  the token of a trusted platform, on disk
10  the GPUs are ready
11  the devices are still the same; a GPU that was swapped before step 10 is not ready for longer than this look takes

Every other way out of here, be it an exception, SIGTERM or the end of the budget, leaves or puts the GPUs not ready.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from typing import Any, Final

from nvattest._system import MODULE, PciDevices, TrustedFolder, pci_devices
from nvattest._waiting import Deadline, Work
from nvattest.devices.state import TrustedPlatform, require_evidence_mode
from nvattest.errors import CollectionError, NotTrustedError, NvattestError
from nvattest.guest import inputs
from nvattest.guest.arguments import Container, Stage, TerminatedError, Termination
from nvattest.guest.config import LOOK_SECONDS, Paths, Settings
from nvattest.guest.ready import ReadyGate, bind, publish, quote_over, sign, take_away, write_appraisal
from nvattest.guest.record import (
    NO_GPU,
    NOT_TRUSTED,
    TRUSTED,
    UNFINISHED,
    Identity,
    Journal,
    Reason,
    Record,
    Remark,
    account,
    belongs,
    boottime,
    identify,
    recognised,
    refreshable,
    shown_status,
    stamp,
    write_log,
    write_record,
)
from nvattest.model import DeviceKind, Nonce, format_time

# The kernel's interface for quotes (configfs-tsm), below the root of the guest.
TSM_ROOT: Final = "/sys/kernel/config/tsm/report"
_READY_ON_ENTRY = (
    "the GPUs were ready before anything was attested: another program set them (look for nvrc.smi.srs on the kernel's "
    "command line, or nvidia-smi conf-compute -srs)"
)
_SHUTDOWN_SECONDS = 2.0
_PERSISTENCE_SECONDS = 2.0
# Setting the GPUs ready is not begun with less time, or with less than it took to set them not ready and a half more: a
# call that is given up may still be done.
_OPEN_LEAST = 0.2
_OPEN_MARGIN = 1.5
# Phases with a smaller share of the budget are not named where it is over.
_WORTH_NAMING = 0.05
# The causes of a failure by its code; others are of the collection or of the configuration.
_CAUSES = {"driver-timeout": "deadline", "hook-config": "configuration"} | {
    code: code for code in ("deadline", "clock", "output", "ready-state", "no-gpu", "devices-changed")
}
# What each mark ends.
_PHASES: Final = {
    "start": "for the start of the program",
    "lock": "waiting for another attestation",
    "driver": "for the driver to come up",
    "closed": "for setting the GPUs not ready",
    "verifier": "for loading the verifier",
    "clock": "for configuration and clock",
    "evidence": "for the evidence",
    "quote": "for the CPU's quote",
    "collateral": "for RIMs and revocation answers",
    "appraisal": "for the verification",
    "token": "for the token",
    "ready": "for setting the GPUs ready",
    "end": "for the end",
}


class Run:
    """What one run knows and has found out so far; ``facts`` are members of its record.

    ``waited`` are the seconds since ``started`` that the caller spent on getting the lock.

    With ``refresh`` GPUs that are ready by an earlier verdict of ours, for these devices, stay ready meanwhile and keep
    their token until the new one takes its place; any failure takes both away.
    """

    def __init__(
        self,
        folder: TrustedFolder,
        settings: Settings,
        *,
        stage: str,
        container: Container,
        known: Record | None,
        started: float,
        waited: float,
        refresh: bool = False,
    ) -> None:
        config = settings.config
        self.folder, self.settings, self.stage, self.known, self.refresh = folder, settings, stage, known, refresh
        self.budget: Final = inputs.Budget(settings.budget(stage), started=started, closing=settings.closing(stage))
        self.identity = _identity(settings)
        self.findings: list[Remark] = []
        self.lines: list[str] = []
        self.times: dict[str, float] = {}
        self.driver: inputs.Driver | None = None
        self.gate: ReadyGate | None = None
        # What the driver said of the GPUs where there was no gate to ask it.
        self.ready: bool | None = None
        self.facts: dict[str, Any] = {
            "run": secrets.token_hex(8),
            "stage": stage,
            "on_failure": settings.on_failure,
            "container": container.id,
            "container_kind": container.kind,
            "stdin": container.note,
            # Until it is withdrawn, the token of the earlier verdict is ours, and the ready state that went with it.
            "token_sha256": known.token_sha256 if known is not None else None,
            "token_before_sha256": known.token_before_sha256 if known is not None else None,
            "log": {
                "file": settings.paths.at(config.log_file),
                "maximum": config.log_max_bytes,
                "keep": config.log_keep,
                "kmsg": config.log_kmsg,
            },
        }
        self.mark("lock")
        self.times["start"] = max(0.0, self.times["lock"] - round(1000 * waited, 1))

    def find(self, code: str, message: str) -> None:
        """Note what does not decide by itself."""
        self.findings.append(Remark(code, message[:400]))

    def mark(self, name: str) -> None:
        """Note how long it took to get here."""
        self.times[name] = round(1000 * self.budget.spent(), 1)

    def spans(self) -> list[tuple[str, float]]:
        """What the time went into, in seconds, phase by phase; the last one is not over."""
        found, before = [], 0.0
        for name, what in _PHASES.items():
            until = self.times.get(name, 1000 * self.budget.spent())
            found.append((what, (until - before) / 1000))
            before = until
            if name not in self.times:
                break
        return found

    def withdraw(self) -> None:
        """Remove what an earlier run published. Raises OSError: a file is there and cannot be removed."""
        for name in (Paths.TOKEN, Paths.JWKS, Paths.QUOTE, Paths.APPRAISAL):
            self.folder.remove(name)
        self.forget_token()

    def forget_token(self) -> None:
        """No token of ours is on disk."""
        self.facts |= {"token_sha256": None, "token_before_sha256": None, "tee": None}

    def record(self, verdict: str, cause: str, reason: Reason | None = None) -> Record:
        """The record of this run, were it to end now, like this."""
        self.mark("end")
        now, settings = boottime(), self.settings
        return Record(
            verdict=verdict,
            cause=cause,
            reason=reason,
            findings=tuple(self.findings),
            time=stamp(),
            milliseconds=dict(self.times),
            **self.identity._asdict(),
            finished_boottime=now,
            valid_until_boottime=now + settings.reuse_seconds,
            exit_status=shown_status(cause, stage=self.stage, on_failure=settings.on_failure),
            ready=self.ready if self.gate is None else self.gate.ready,
            **self.facts,
        )


def attest_and_record(run: Run, journal: Journal, termination: Termination) -> Record:
    """Attest, under the lock that the caller holds, and return the record of how it went. Never raises.

    After a signal it ends before step 1, in the way it would end after it.
    """
    try:
        try:
            termination.arm()
            with _guarded(run):
                verdict = _story(run, termination)
            record = run.record(verdict, "ok")
            write_record(run.folder, record)
        finally:
            termination.over()
    except TerminatedError:
        record = _fail(run, "terminated", Reason("terminated", "ended by a signal"))
    except Exception as error:  # noqa: BLE001 - a fault of ours must leave the GPUs not ready too
        record = _fail(run, *_why(run, error))
    write_log(record, run.lines, journal)
    if journal.file != record.log["file"]:
        # Known only after the lines are written, and the record has to be there before.
        record = record._replace(log={**record.log, "file": journal.file})
        with suppress(OSError):
            write_record(run.folder, record)
    # Everything is on disk. Where time is short the end of the process closes the library as well.
    seconds = _SHUTDOWN_SECONDS if run.stage == Stage.WATCH else min(_SHUTDOWN_SECONDS, run.budget.remaining())
    if run.driver is not None and seconds > 0.0:
        run.driver.library.close(timeout=seconds)
    return record


def _story(run: Run, termination: Termination) -> str:
    settings, folder, budget, stage = run.settings, run.folder, run.budget, run.stage
    config, paths = settings.config, settings.paths
    if not run.refresh:
        _record_start(run)
    pci = pci_devices(paths.root)
    if settings.no_gpu_is_right(pci):
        return _without_gpu(run)
    # (1) the driver
    run.driver = _open(run, pci)
    gate = run.gate = ReadyGate(run.driver.library, ready=run.driver.state.ready)
    state = run.driver.state
    run.facts |= {
        "gpus": state.gpu_count,
        "driver": {
            "version": state.driver_version,
            "cc_on": state.cc_on,
            "dev_tools": state.dev_tools,
            "protected_pcie": state.protected_pcie,
            "environment": int(state.environment),
            "multi_gpu_mode": None if state.multi_gpu_mode is None else int(state.multi_gpu_mode),
        },
    }
    # Devices may have come up meanwhile: what is attested from here on is what is there now.
    run.identity, pci = _identity(settings), pci_devices(paths.root)
    run.mark("driver")
    # (2) not ready
    found_ready = run.facts["ready_on_entry"] = run.driver.state.ready
    ours = recognised(run.known, run.identity.boot_id, folder)
    if found_ready and not ours:
        run.find("ready-on-entry", _READY_ON_ENTRY)
    if run.refresh and ours and found_ready and refreshable(run.known, run.identity):
        gate.closed = False
    else:
        _close(gate, run.driver, seconds=budget.for_phase())
        # (3) withdrawn, after the GPUs: they are never ready without a token
        run.withdraw()
        _record_start(run)
    run.mark("closed")
    # Imported only now: on a slow machine the verifier takes longer than all above. A signal is noted meanwhile and
    # raises after it, since an import that is broken off may not succeed a second time.
    termination.over()
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral import bundle, cache, gather  # noqa: F401 - for the functions of inputs

    termination.arm()
    run.mark("verifier")
    # (4) persistence, configuration and clock. The first before what can fail: we may be the driver's first client, and
    # a GPU that comes down when that ends does not come back for the next run.
    finding = inputs.keep_initialised(
        run.driver, config.driver_persistence, seconds=min(_PERSISTENCE_SECONDS, budget.for_call())
    )
    if finding:
        run.find("persistence", finding)
    if settings.error is not None:
        raise settings.error
    anchors, policy = inputs.load_demands(settings)
    patience = config.clock_wait_hook if stage == Stage.HOOK else config.clock_wait_init
    started = inputs.wait_for_clock(config.clock_not_before, min(patience, budget.remaining()))
    run.mark("clock")
    # (5) evidence
    bound, quote = bind() if config.tee_required else None, None
    nonce = Nonce(secrets.token_bytes(32)) if bound is None else bound.nonce
    protected = run.driver.state.protected_pcie or bool(config.expected_switches)
    verifier = Verifier(anchors=anchors, policy=policy)
    devices = inputs.collect_all(run.driver, settings, nonce, switches=protected, verifier=verifier, budget=budget)
    protected = protected or inputs.says_protected(devices)
    run.mark("evidence")
    if bound is not None:
        evidence = [device.evidence for device in devices]
        quote = quote_over(bound, evidence, root=paths.at(TSM_ROOT), seconds=budget.for_phase())
    run.mark("quote")
    # (6) collateral
    verifier.policy = inputs.with_expectations(policy, config, pci, protected_pcie=protected)
    collateral = inputs.gather_collateral(
        devices,
        inputs.load_known(devices, settings, verifier, budget, run.find),
        settings,
        verifier=verifier,
        at=started,
        budget=budget,
        find=run.find,
        # At boot the network may come later than the GPUs; a hook has no time to wait for it.
        patient=stage in (Stage.INIT, Stage.WATCH),
    )
    run.mark("collateral")
    # (7) the appraisal, by the clock as it is now: it may have been set meanwhile, and live answers are stamped "now"
    at = inputs.wait_for_clock(config.clock_not_before, 0.0)
    appraisal = inputs.give_up_after(
        budget.remaining(),
        "verification",
        partial(verifier.appraise, devices, nonce=nonce, collateral=collateral, at=at),
    )
    run.lines = list(account(appraisal, [device.evidence for device in devices]))
    end = appraisal.collateral_expires
    run.facts |= {
        "switches": sum(device.kind is DeviceKind.NVSWITCH for device in appraisal.devices),
        "result_code": int(appraisal.result_code),
        "anchors": appraisal.anchors,
        "simulated": appraisal.simulated,
        "weakened": tuple(appraisal.weakened),
        "collateral_expires": format_time(end) if end is not None else None,
    }
    run.mark("appraisal")
    write_appraisal(appraisal, folder)
    platform = TrustedPlatform(appraisal)
    # (8) the same devices, and all of them
    _require_same(run)
    inputs.require_all_attested(config, pci_devices(paths.root), run.driver.state.gpu_count, devices)
    budget.require("the attestation")
    # (9) the token
    token = sign(platform, config, None if bound is None else bound.key)
    run.facts |= {
        "token_before_sha256": run.facts["token_sha256"],
        "token_sha256": sha256(token.data).hexdigest(),
        "tee": None if quote is None else quote.said,
    }
    # Killed from here on, the next run recognises whichever token is there, and with it the ready state, as ours.
    _record_start(run)
    published = publish(platform, token, folder, keep_old_key=gate.closed is False, quote=quote)
    run.facts["token_before_sha256"] = None
    run.mark("token")
    # (10) ready
    budget.require("the attestation", max(_OPEN_LEAST, _OPEN_MARGIN * gate.seconds))
    gate.open(published, seconds=budget.remaining())
    run.mark("ready")
    # (11) the same devices: the driver sets ready whatever is there when it is asked
    _require_same(run)
    return TRUSTED


@contextmanager
def _guarded(run: Run) -> Iterator[None]:
    """While GPUs stay ready during a round, take that away as soon as they are no longer those of the verdict.

    A host can make a round as long as its budget, and the round itself looks only near its end. Raises CollectionError:
    it was taken away (``devices-changed``).
    """
    if not run.refresh:
        yield
        return
    over, changed = threading.Event(), threading.Event()
    seconds = run.settings.closing(run.stage)

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if not belongs(run.known, identify(run.settings.paths, run.settings.inputs)):
                changed.set()
                take_away(run.settings.nvml, seconds=seconds)
                return

    looking = Work("look", look)
    try:
        yield
    finally:
        over.set()
    looking.ended(Deadline(2 * seconds))
    if changed.is_set():
        raise _changed()


def _require_same(run: Run) -> None:
    if identify(run.settings.paths, run.settings.inputs) != run.identity:
        raise _changed()


def _changed() -> CollectionError:
    return CollectionError(
        "the devices, the driver or the settings changed during the attestation",
        code="devices-changed",
        hint="the next run attests what is there then",
    )


def _identity(settings: Settings) -> Identity:
    """What the verdict will belong to: the configuration as it was read, though the file may be another by now."""
    found = identify(settings.paths, settings.inputs)
    return found._replace(inputs={**found.inputs, settings.paths.config: settings.digest})


def _close(gate: ReadyGate, driver: inputs.Driver, *, seconds: float) -> None:
    try:
        gate.close(seconds=seconds)
    except CollectionError:
        # With confidential computing off there is no ready state to set; that is the reason to report.
        if gate.ready is None and driver.state.ready is False:
            # Done or not, a call that makes them not ready leaves an earlier "not ready" true.
            gate.ready = False
        gate.closed = True if gate.ready is False else None
        require_evidence_mode(driver.state)
        raise


def _open(run: Run, pci: PciDevices | None) -> inputs.Driver:
    config = run.settings.config
    patience = config.driver_wait_hook if run.stage == Stage.HOOK else config.driver_wait_init
    try:
        driver = inputs.open_driver(run.settings, pci, patience=patience, budget=run.budget)
    except CollectionError as error:
        if run.settings.error is not None:
            raise run.settings.error from error
        if pci is not None and not pci.gpus and error.code != "driver-timeout":
            raise _no_gpu(f"none is on the PCI bus, and NVML says: {error.message}") from error
        raise
    if driver.state.gpu_count == 0 and pci is not None and not pci.gpus:
        driver.library.close()
        raise _no_gpu("none is on the PCI bus, and the driver knows none")
    return driver


def _no_gpu(why: str) -> CollectionError:
    return CollectionError(
        f"there is no GPU in this guest: {why}",
        code="no-gpu",
        hint="pass one through, or say allow_no_gpu = true in the configuration of guests that have none",
    )


def _without_gpu(run: Run) -> str:
    """The verdict of a guest that has no GPU, as its configuration says."""
    if os.path.isdir(run.settings.paths.at(MODULE)):
        # GPUs may have been ready when they went; those that come next must not find it so.
        run.ready = take_away(run.settings.nvml, seconds=run.budget.for_closing())
        if run.ready:
            raise CollectionError(
                "no GPU is on the bus, and the driver keeps the ready state for those that come",
                code="ready-state",
                hint="look at nvidia-smi conf-compute -grs; load the driver again",
            )
    run.withdraw()
    return NO_GPU


def _record_start(run: Run) -> None:
    """From here on, until the end says better, the record says that a run did not end."""
    reason = Reason("unfinished", "an attestation was begun; its end is not recorded")
    write_record(run.folder, run.record(UNFINISHED, "terminated", reason))


def _why(run: Run, error: Exception) -> tuple[str, Reason]:
    """The cause of a failure, and the reason in words."""
    if isinstance(error, OSError):
        return "output", Reason("output", f"{error.filename}: {error.strerror or error}"[:2000])
    if not isinstance(error, NvattestError):
        return "internal", Reason("internal", repr(error)[:2000])
    cause = _CAUSES.get(error.code, "collection" if isinstance(error, CollectionError) else "configuration")
    if isinstance(error, NotTrustedError):
        cause = "not-trusted"
    message, hint = error.message, error.hint
    if cause == "deadline":
        spans = run.spans()
        large = [f"{seconds:.1f} s {what}" for what, seconds in spans if seconds >= _WORTH_NAMING * run.budget.seconds]
        message += f"; of the {run.budget.seconds:g} s of this run: {', '.join(large)}"
        if max(spans, key=lambda span: span[1]) is not spans[-1]:
            # What hit the end is not what took the time: a driver that was given the rest may be as it should be.
            hint = "give more time under [budget]; --stage init has no limit of 10 s"
    return cause, Reason(error.code, message[:2000], hint)


def _fail(run: Run, cause: str, reason: Reason) -> Record:
    """Put the GPUs not ready if they are not known to be, withdraw the token, and write the reason down."""
    if run.gate is not None and run.gate.closed is not True:
        try:
            run.gate.close(seconds=run.budget.for_closing())
        except Exception as error:  # noqa: BLE001 - whatever it is, the token has to go too
            message = error.message if isinstance(error, NvattestError) else repr(error)
            run.find("ready-state", f"the GPUs could not be set not ready: {message}")
    elif run.gate is None:
        # Nothing could be asked, and they may be ready: a driver that failed once may do it now.
        run.ready = take_away(run.settings.nvml, seconds=run.budget.for_closing())
    run.forget_token()
    try:
        # The appraisal stays: it says why there is no token.
        run.folder.remove(Paths.TOKEN)
        run.folder.remove(Paths.JWKS)
    except OSError as error:
        run.find("output", f"{error.filename}: {error.strerror}")
    record = run.record(NOT_TRUSTED, cause, reason)
    try:
        write_record(run.folder, record)
    except OSError as error:
        run.find("output", f"{error.filename}: {error.strerror or error}")
    return record
