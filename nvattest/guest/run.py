"""What one run knows and has found out so far, how that becomes its record, and what its log says.

The log has the words and the order of NVIDIA's local verifier, so that searches made for that one still find them. Each
line of a success is written only if the checks behind it are acceptable; otherwise the failed checks are in its place
with what was expected and what was found, and the account goes on to the end.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nvattest._folder import TrustedFolder
from nvattest._text import clean
from nvattest.guest.arguments import Container
from nvattest.guest.clock import Budget
from nvattest.guest.config import Settings
from nvattest.guest.driver import Driver
from nvattest.guest.journal import Journal, stamp
from nvattest.guest.ready import ReadyGate
from nvattest.guest.record import Identity, Reason, Record, Remark, boottime, headline, record_to_json, shown_status
from nvattest.model import DeviceKind
from nvattest.spdm.opaque import GpuFields

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal, DeviceAppraisal
    from nvattest.evidence import Evidence

__all__ = ["Run", "account", "write_log"]

RULE: Final = "-----------------------------------"
_MAXIMUM: Final = 400
# What each mark ends.
_PHASES: Final = {
    "start": "for the start of the program",
    "lock": "waiting for another attestation",
    "driver": "for the driver to come up",
    "closed": "for setting the GPUs not ready",
    "verifier": "for loading the verifier",
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

    ``ready`` is what the driver said of the GPUs where there was no ``gate`` to ask it. ``id`` names the run in its
    record and in its log.
    """

    folder: TrustedFolder
    settings: Settings
    stage: str
    container: Container
    budget: Budget
    identity: Identity
    known: Record | None
    refresh: bool
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    findings: list[Remark] = field(default_factory=list)
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

    def forget_token(self) -> None:
        """The token of an earlier run is withdrawn."""
        self.token_sha256 = self.token_before_sha256 = None

    def record(self, verdict: str, cause: str, reason: Reason | None = None) -> Record:
        """The record of this run, were it to end now, like this."""
        settings, identity, appraisal = self.settings, self.identity, self.appraisal
        config, now = settings.config, boottime()
        self.mark("end")
        record = Record(
            verdict=verdict,
            cause=cause,
            reason=reason,
            findings=tuple(self.findings),
            run=self.id,
            stage=self.stage,
            time=stamp(),
            milliseconds=dict(self.times),
            boot_id=identity.boot,
            devices=identity.devices,
            config=identity.config,
            inputs=identity.inputs,
            finished_boottime=now,
            valid_until_boottime=now + settings.reuse_seconds,
            on_failure=settings.on_failure,
            exit_status=shown_status(cause, stage=self.stage, on_failure=settings.on_failure),
            token_sha256=self.token_sha256,
            token_before_sha256=self.token_before_sha256,
            ready=self.ready if self.gate is None else self.gate.ready,
            ready_on_entry=self.ready_on_entry,
            container=self.container.id,
            container_kind=self.container.kind,
            stdin=self.container.note,
            log={
                "file": settings.paths.at(config.log_file),
                "maximum": config.log_max_bytes,
                "keep": config.log_keep,
                "kmsg": config.log_kmsg,
            },
        )
        if self.driver is not None:
            state = self.driver.state
            driver = {
                "version": state.driver_version,
                "cc_on": state.cc_on,
                "dev_tools": state.dev_tools,
                "protected_pcie": state.protected_pcie,
                "environment": int(state.environment),
                "multi_gpu_mode": None if state.multi_gpu_mode is None else int(state.multi_gpu_mode),
            }
            record = record._replace(gpus=state.gpu_count, driver=driver)
        if appraisal is not None:
            record = record._replace(
                switches=sum(device.kind is DeviceKind.NVSWITCH for device in appraisal.devices),
                result_code=int(appraisal.result_code),
                anchors=appraisal.anchors,
                simulated=appraisal.simulated,
                weakened=tuple(appraisal.weakened),
            )
        return record


# --- the log ----------------------------------------------------------------------------------------------------------

# (depth, text, the ids of the checks behind it)
_Line = tuple[int, str, str]


def write_log(run: Run, record: Record, journal: Journal) -> None:
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


def account(appraisal: Appraisal, evidence: Sequence[Evidence]) -> list[str]:
    """All lines about this appraisal; ``evidence`` is what it was made from, in the same order."""
    gpus = [device for device in appraisal.devices if device.kind is DeviceKind.GPU]
    switches = [device for device in appraisal.devices if device.kind is DeviceKind.NVSWITCH]
    lines = [f"Number of GPUs available : {len(gpus)}"]
    if switches:
        lines.append(f"Number of NVSwitches available : {len(switches)}")
    if appraisal.simulated:
        lines.append("SIMULATED: the trust anchors are those of a simulation; this proves nothing")
    elif appraisal.anchors != "NVIDIA":
        lines.append(f"Trust anchors : {clean(appraisal.anchors, _MAXIMUM)}")
    if appraisal.weakened:
        lines.append(f"Weakened by policy : {', '.join(appraisal.weakened)}")
    for device, item in zip(appraisal.devices, evidence, strict=True):
        lines += _device(device, item)
    for check in appraisal.checks:
        if not check.acceptable:
            lines.append(f"\tPLATFORM: {check.spec.title}: FAILED: {clean(check.detail, _MAXIMUM)}")
    lines.append(f"\tattestation result: {appraisal.trusted}")
    return lines


def _device(device: DeviceAppraisal, item: Evidence) -> list[str]:
    word = "GPU" if device.kind is DeviceKind.GPU else "NVSwitch"
    name = f"{word} {device.index}"
    lines = [
        RULE,
        f"Fetching {name} information from {word} driver.",
        f"VERIFYING {word} : {device.index}",
    ]
    for hint, text in (("driver_version", "Driver version"), ("vbios_version", "VBIOS version")):
        if hint in item.hints:
            value = item.hints[hint].lower() if hint == "vbios_version" else item.hints[hint]
            lines.append(f"\t{text} fetched : {clean(value, _MAXIMUM)}")
    for depth, text, checks in _story(device, word):
        lines += _failed(device, checks.split()) or ["\t" * depth + text]
    said = "verified successfully." if device.trusted else "could not be verified."
    return [*lines, f"\t{name} {said}"]


def _failed(device: DeviceAppraisal, ids: Iterable[str]) -> list[str]:
    lines = []
    for id_ in ids:
        check = device.check(id_)
        if check is None:
            lines.append(f"\t\t{id_}: FAILED: the check was not made")
        elif not check.acceptable:
            values = [
                f"{name} {clean(value, _MAXIMUM)}"
                for name, value in (("expected", check.expected), ("found", check.found))
                if value
            ]
            tail = f" ({', '.join(values)})" if values else ""
            lines.append(f"\t\t{check.spec.title}: FAILED: {clean(check.detail, _MAXIMUM)}{tail}")
    return lines


def _story(device: DeviceAppraisal, word: str) -> list[_Line]:
    lines: list[_Line] = [
        (1, f"Validating {word} certificate chains.", ""),
        (
            2, f"{word} attestation report certificate chain validation successful.",
            "chain-format chain-path chain-validity",
        ),
        (2, "The certificate chain revocation status verification successful.", "chain-revocation"),
        (1, "Authenticating attestation report", "report-format report-trailing-bytes"),
        (2, "The nonce in the SPDM GET MEASUREMENT request message is matching with the generated nonce.", "nonce"),
        *_versions(device),
        (2, "Attestation report signature verification successful.", "report-signature"),
        (2, "Attestation report verification successful.", "architecture fwid debug mode versions hints"),
        (1, "Authenticating the RIMs.", ""),
    ]  # fmt: skip
    if device.check("reference-values") is not None:
        lines.append((2, "Reference values are published.", "reference-values"))
    if device.kind is DeviceKind.GPU:
        lines += _rim("driver", "Authenticating Driver RIM", "Schema validation passed.", "Driver")
        lines += _rim("vbios", "Authenticating VBIOS RIM.", "RIM Schema validation passed.", "VBIOS")
    else:
        lines += _rim("bios", "Authenticating BIOS RIM.", "RIM Schema validation passed.", "BIOS")
    lines += [
        (1, "Comparing measurements (runtime vs golden)", "rim-conflict"),
        (2, "The runtime measurements are matching with the golden measurements.", "measurements minimum-svn"),
    ]
    if device.trusted:
        lines.append((1, f"{word} is in the expected state.", ""))
    return lines


def _versions(device: DeviceAppraisal) -> list[_Line]:
    fields = device.report.fields if device.report is not None else None
    if fields is None:
        return []
    if isinstance(fields, GpuFields):
        found = {"Driver": fields.driver_version, "VBIOS": fields.vbios_version.lower()}
    else:
        found = {"BIOS": fields.bios_version.lower()}
    return [
        (2, f"{name} version fetched from the attestation report : {clean(version, _MAXIMUM)}", "")
        for name, version in found.items()
    ]


def _rim(role: str, heading: str, schema: str, name: str) -> list[_Line]:
    return [
        (2, heading, f"{role}-rim-available"),
        (3, schema, f"{role}-rim-format"),
        (3, f"{role} RIM certificate chain verification successful.", f"{role}-rim-chain {role}-rim-validity"),
        (3, "The certificate chain revocation status verification successful.", f"{role}-rim-revocation"),
        (3, f"{role} RIM signature verification successful.", f"{role}-rim-signature {role}-rim-binding"),
        (3, f"{name} RIM verification successful", ""),
    ]
