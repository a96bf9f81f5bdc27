"""What one run knows and has found out so far; how that becomes a record, and what is told of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

from nvattest._folder import TrustedFolder
from nvattest.appraisal.results import Appraisal
from nvattest.guest.budget import Budget
from nvattest.guest.config import Settings
from nvattest.guest.container import Container
from nvattest.guest.driver import Driver
from nvattest.guest.identity import Identity, boottime
from nvattest.guest.journal import Journal, stamp
from nvattest.guest.outcome import headline, shown_status
from nvattest.guest.paths import Paths
from nvattest.guest.ready import ReadyGate
from nvattest.guest.record import Finding, Reason, Record, record_to_json
from nvattest.model import DeviceKind

__all__ = ["Run", "facts_of", "tell"]


# What each mark ends.
_PHASES: Final = {
    "start": "for the start of the program",
    "lock": "waiting for another attestation",
    "driver": "for the driver to come up",
    "closed": "for setting the GPUs not ready",
    "clock": "for configuration and clock",
    "evidence": "for the evidence",
    "collateral": "for RIMs and revocation answers",
    "appraisal": "for the verification",
    "token": "for the token",
    "ready": "for setting the GPUs ready",
    "end": "for the end",
}


@dataclass(slots=True, kw_only=True)
class Run:
    """What one run knows and has found out so far.

    ``ready`` is what the driver said of the GPUs where there was no ``gate`` to ask it.
    """

    paths: Paths
    folder: TrustedFolder
    settings: Settings
    stage: str
    budget: Budget
    identity: Identity
    known: Record | None
    refresh: bool
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    findings: list[Finding] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    gate: ReadyGate | None = None
    driver: Driver | None = None
    appraisal: Appraisal | None = None
    ready: bool | None = None
    ready_on_entry: bool | None = None
    token_sha256: str | None = None
    token_before_sha256: str | None = None
    times: dict[str, float] = field(default_factory=dict)

    def find(self, code: str, message: str) -> None:
        """Note what does not decide by itself."""
        self.findings.append(Finding(code, message[:400]))

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


def facts_of(run: Run, verdict: str, cause: str, reason: Reason | None, container: Container) -> Record:
    """The record of a run that ended like this."""
    config, appraisal = run.settings.config, run.appraisal
    state = run.driver.state if run.driver is not None else None
    now = boottime()
    run.mark("end")
    return Record(
        verdict=verdict,
        cause=cause,
        boot_id=run.identity.boot,
        devices=run.identity.devices,
        config=run.identity.config,
        inputs=run.identity.inputs,
        finished_boottime=now,
        valid_until_boottime=now + run.settings.reuse_seconds,
        run=run.id,
        stage=run.stage,
        on_failure=run.settings.on_failure,
        exit_status=shown_status(cause, stage=run.stage, on_failure=run.settings.on_failure),
        reason=reason,
        findings=tuple(run.findings),
        time=stamp(),
        token_sha256=run.token_sha256,
        token_before_sha256=run.token_before_sha256,
        ready=run.ready if run.gate is None else run.gate.ready,
        ready_on_entry=run.ready_on_entry,
        milliseconds=dict(run.times),
        container=container.id,
        container_kind=container.kind,
        stdin=container.note,
        gpus=None if state is None else state.gpu_count,
        switches=None if appraisal is None else sum(device.kind is DeviceKind.NVSWITCH for device in appraisal.devices),
        driver=None
        if state is None
        else {
            "version": state.driver_version,
            "cc_on": state.cc_on,
            "dev_tools": state.dev_tools,
            "protected_pcie": state.protected_pcie,
            "environment": int(state.environment),
            "multi_gpu_mode": None if state.multi_gpu_mode is None else int(state.multi_gpu_mode),
        },
        result_code=None if appraisal is None else int(appraisal.result_code),
        anchors=None if appraisal is None else appraisal.anchors,
        simulated=None if appraisal is None else appraisal.simulated,
        weakened=() if appraisal is None else tuple(appraisal.weakened),
        log={
            "file": run.paths.at(config.log_file),
            "maximum": config.log_max_bytes,
            "keep": config.log_keep,
            "kmsg": config.log_kmsg,
        },
    )


def tell(run: Run, record: Record, journal: Journal) -> None:
    """Write the account into the log, the summary after it, and the verdict where the host sees it."""
    lines = [f"{stamp()} nvattest-hook {run.stage} run {run.id}", *run.lines]
    lines += [f"finding: {code}: {message}" for code, message in run.findings]
    reason = record.reason
    if reason is not None:
        lines.append(f"failed: {reason.code}: {reason.message}")
        if reason.hint:
            lines.append(f"next: {reason.hint}")
    ready = {True: "ready", False: "not-ready", None: "unknown"}[record.ready]
    lines.append(f"Confidential Compute GPUs Ready state: {ready}")
    journal.lines(lines)
    summary = {key: value for key, value in record_to_json(record).items() if key not in ("inputs", "log")}
    journal.summary(summary | {"reused": False})
    parts = [headline(record.verdict, record.ready, record.cause)]
    if record.simulated:
        parts.append("SIMULATED, proves nothing")
    if reason is not None:
        parts.append(reason.message)
    parts += [f"finding: {code}" for code, _ in run.findings]
    seconds = record.milliseconds.get("end", 0.0) / 1000
    journal.verdict(f"{'; '.join(parts)} ({run.stage}, {seconds:.2f} s)", good=record.good)
