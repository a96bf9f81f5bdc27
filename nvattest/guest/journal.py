"""What a run writes for people: the log file, one line in the kernel's log, one on stderr. The host reads all three."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from nvattest._folder import TrustedFolder
from nvattest._text import clean, escaped, joined
from nvattest.guest.config import Paths, Settings
from nvattest.guest.record import Record, headline, record_to_json

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal, DeviceAppraisal
    from nvattest.evidence import Evidence

_RULE: Final = "-----------------------------------"
_MAXIMUM: Final = 400

_LINE: Final = 480
_PREFIX: Final = "nvattest-hook"
# A reader of stderr that has stopped must not hold up a run that has the lock.
_STDERR_SECONDS: Final = 0.2


class Journal:
    """Writes lines to the log file, and the verdict to the kernel's log and stderr.

    A log that cannot be written never decides anything. Its lines go into the run folder, ``fault`` says why, the
    verdict's line on stderr has that, and the run goes on. ``file`` is the one that took the last lines, if any did.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._file = paths.at(paths.LOG)
        self._maximum = 1024 * 1024
        self._keep = 2
        self._kmsg = True
        self.fault = ""
        self.file: str | None = None

    def configure(self, settings: Settings) -> None:
        """Write from here on where the configuration says."""
        config = settings.config
        self._file = settings.paths.at(config.log_file)
        self._maximum, self._keep, self._kmsg = config.log_max_bytes, config.log_keep, config.log_kmsg

    def lines(self, lines: list[str]) -> None:
        """Append lines to the log file; one write, so that runs at the same time do not mix."""
        data = (joined(lines) + "\n" if lines else "").encode("utf-8", "replace")
        fault = self._append(self._file, data, log=True)
        if fault:
            # Often a guest's root is read-only and its /run is not.
            spare = self._paths.at(f"{Paths.RUN}/{os.path.basename(Paths.LOG)}")
            also = self._append(spare, data, log=False)
            self.fault = f"{fault}; {also}" if also else f"{spare}, since {fault}"
            self.file = None if also else spare
        else:
            self.file = self._file

    def summary(self, facts: dict[str, object]) -> None:
        """The one JSON line of a run."""
        document = {"format": "nvattest-hook-log", "version": 1, "time": stamp(), **facts}
        self.lines([escaped(json.dumps(document, sort_keys=True))])

    def verdict(self, text: str, *, good: bool) -> None:
        """The one line that the host's journal shows."""
        line = clean(f"{_PREFIX}: {text}")[:_LINE]
        if self._kmsg:
            try:
                descriptor = os.open(self._paths.kmsg, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    # 5 is notice, 3 is error; the kernel makes one record of one write.
                    os.write(descriptor, f"<{5 if good else 3}>{line}\n".encode())
                finally:
                    os.close(descriptor)
            except OSError as error:
                self.fault = self.fault or f"{self._paths.kmsg}: {error.strerror or error}"
        if self.fault:
            line = f"{line} (log: {clean(self.fault, 400)})"
        try:
            _print(line)
        except (OSError, ValueError, AttributeError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            self.fault = self.fault or f"stderr: {why or 'it is closed'}"

    def _append(self, path: str, data: bytes, *, log: bool) -> str:
        """Append to a log file; "", or why it could not be done."""
        home, name = os.path.split(path)
        try:
            with TrustedFolder(home, make=True, mode=0o755, log=log) as folder:
                self._rotate(folder, name, len(data))
                folder.append(name, data)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            return f"{getattr(error, 'filename', None) or path}: {why or error}"
        return ""

    def _rotate(self, folder: TrustedFolder, name: str, more: int) -> None:
        try:
            size = folder.facts(name).st_size
        except FileNotFoundError:
            return
        if size + more <= self._maximum:
            return
        for number in range(self._keep, 0, -1):
            older = name if number == 1 else f"{name}.{number - 1}"
            try:
                folder.rename(older, f"{name}.{number}")
            except FileNotFoundError:
                continue
        if self._keep == 0:
            folder.remove(name)


def _print(line: str) -> None:
    """Write a line to stderr where it can be written now; a pipe takes one of this length whole or not at all.

    Raises:
        OSError, ValueError, AttributeError: it cannot, or the stream is closed.
    """
    import select

    try:
        descriptor = sys.stderr.fileno()
    except OSError:
        # Not a file: a program keeps the text.
        print(line, file=sys.stderr, flush=True)
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(1000 * _STDERR_SECONDS):
        raise BlockingIOError(errno.EAGAIN, "nothing reads it")
    os.write(descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))


def stamp() -> str:
    """Now, as the guest's clock has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- the account of a run ---------------------------------------------------------------------------------------------

# (depth, text, the ids of the checks behind it)
_Line = tuple[int, str, str]


def write_log(record: Record, account: Sequence[str], journal: Journal) -> None:
    """Write the account into the log, the summary after it, and the verdict where the host sees it."""
    lines = [f"{stamp()} nvattest-hook {record.stage} run {record.run}", *account]
    lines += [f"finding: {code}: {message}" for code, message in record.findings]
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
    parts += [f"finding: {code}" for code, _ in record.findings]
    seconds = record.milliseconds.get("end", 0.0) / 1000
    journal.verdict(f"{'; '.join(parts)} ({record.stage}, {seconds:.2f} s)", good=record.good)


def account(appraisal: Appraisal, evidence: Sequence[Evidence]) -> list[str]:
    """All lines about this appraisal; ``evidence`` is what it was made from, in the same order.

    They have the words and the order of NVIDIA's local verifier, so that searches made for that one still find them.
    Each line of a success is written only if the checks behind it are acceptable; otherwise the failed checks are in
    its place with what was expected and found, and the account goes on to the end.
    """
    from nvattest.model import DeviceKind

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
        lines += _device(device, item, "GPU" if device.kind is DeviceKind.GPU else "NVSwitch")
    for check in appraisal.checks:
        if not check.acceptable:
            lines.append(f"\tPLATFORM: {check.spec.title}: FAILED: {clean(check.detail, _MAXIMUM)}")
    lines.append(f"\tattestation result: {appraisal.trusted}")
    return lines


def _device(device: DeviceAppraisal, item: Evidence, word: str) -> list[str]:
    name = f"{word} {device.index}"
    lines = [
        _RULE,
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
    if word == "GPU":
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
    from nvattest.spdm.opaque import GpuFields

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
