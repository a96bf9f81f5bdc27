"""``nvattest-hook status``: the last verdict, and what the driver says now, in the words of nvidia-smi."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from nvattest._documents import Metric, Samples, dump_metrics
from nvattest._system import TrustedFolder, replace_file
from nvattest._text import joined
from nvattest.devices.nvml import NvmlLibrary
from nvattest.devices.state import SystemState, read_state
from nvattest.errors import InputError, NvattestError
from nvattest.guest.config import Paths, Settings, load_settings
from nvattest.guest.record import (
    MAXIMUM_RECORD,
    NO_GPU,
    NOT_TRUSTED,
    TRUSTED,
    UNFINISHED,
    Identity,
    Record,
    belongs,
    boottime,
    identify,
    read_record,
    record_to_json,
    reusable,
    serves,
)
from nvattest.model import counted, parse_time

_SECONDS = 5.0
_OF_THE_RECORD = (
    "verdict", "reason", "config", "time", "stage", "simulated", "gpus", "switches", "collateral_expires", "tee",
)  # fmt: skip
_OF_THE_DRIVER = ("ready", "cc_on", "dev_tools", "protected_pcie")


def hook_status(paths: Paths) -> dict[str, Any]:
    """The facts, as ``nvattest hook status --format json`` prints them."""
    settings = load_settings(paths)
    state, fault = _live(settings.nvml)
    identity = identify(paths, settings.inputs)
    record, current, unread = _record(paths, identity, settings)
    written = record_to_json(record) if record is not None else {"findings": [], "weakened": ()}
    same_boot = record is not None and identity.boot_id != "" and record.boot_id == identity.boot_id
    # Only what the driver says now is the state; the record says what the last run left it in.
    return {
        "current": current,
        "this_boot": same_boot,
        "same_config": record is not None and record.config == identity.config,
        "same_devices": belongs(record, identity),
        "age_s": round(boottime() - record.finished_boottime, 1) if record is not None and same_boot else None,
        "findings": written["findings"],
        "weakened": list(written["weakened"]),
        "phases_s": record.phases if record is not None else {},
        **{name: written.get(name) for name in _OF_THE_RECORD},
        **{name: getattr(state, name, None) for name in _OF_THE_DRIVER},
        "driver_fault": fault,
        "record_fault": unread,
        "configuration_fault": str(settings.error) if settings.error is not None else None,
    }


def _record(paths: Paths, identity: Identity, settings: Settings) -> tuple[Record | None, bool, str | None]:
    """The record, whether its verdict stands, and what could not be read: that verdict is not taken for good."""
    unread = None
    try:
        with TrustedFolder(paths.run) as folder:
            record = read_record(folder)
            if record is None:
                folder.read(Paths.STATE, MAXIMUM_RECORD)
                return None, False, f"{folder.at(Paths.STATE)}: it is no record of this version of the program"
            current = reusable(record, identity, folder, seconds=settings.reuse_seconds)
            if record.verdict == TRUSTED and not current and serves(record, identity, seconds=settings.reuse_seconds):
                try:
                    folder.read(Paths.TOKEN, 0)
                except PermissionError as error:
                    # Only the owner may read the token, which is a bearer's.
                    unread = f"{error.filename}: {error.strerror}"
                except OSError:
                    pass
            return record, current, unread
    except FileNotFoundError:
        return None, False, None
    except OSError as error:
        return None, False, f"{error.filename or paths.run}: {error.strerror or error}"


def stands(status: dict[str, Any]) -> bool | None:
    """Whether the last verdict stands; None where this user may not read its token."""
    return None if status["verdict"] == TRUSTED and status["record_fault"] else status["current"]


def is_good(status: dict[str, Any]) -> bool:
    """Whether the last verdict stands, and the GPUs accept work because of it (or there is none, as configured)."""
    if not status["current"]:
        return False
    return status["verdict"] == NO_GPU or (status["verdict"] == TRUSTED and status["ready"] is True)


def status_metrics(status: dict[str, Any]) -> str:
    """The facts in Prometheus's text format. What is not known is absent, such as what a silent driver does not say."""
    words, current = (TRUSTED, NO_GPU, NOT_TRUSTED, UNFINISHED), status["verdict"]
    codes = sorted({item["code"] for item in status["findings"]})
    facts: tuple[tuple[str, str, Samples], ...] = (
        ("hook_verdict", "The verdict of the last run: 1 for the one that it is.",
         [(float(word == current), {"verdict": word}) for word in words]),
        ("hook_verdict_stands", "Whether the last verdict is good and stands.", _known(stands(status))),
        ("hook_verdict_simulated", "Whether the last run trusted simulated roots.", _known(status["simulated"])),
        ("hook_verdict_timestamp_seconds", "When the last run ended, by the guest's clock.", _instant(status["time"])),
        ("hook_verdict_age_seconds", "From the end of the last run to this file.", _known(status["age_s"])),
        ("hook_phase_seconds", "What the time of the last run went into.",
         [(seconds, {"phase": name}) for name, seconds in status["phases_s"].items()]),
        ("hook_devices", "The devices of the last run.",
         [(status[kind], {"kind": kind}) for kind in ("gpus", "switches") if status[kind] is not None]),
        ("hook_finding", "What the last run saw that does not decide by itself: 1 for each kind.",
         [(1.0, {"code": code}) for code in codes]),
        ("hook_gpus_ready", "Whether the driver says that the GPUs accept work.", _known(status["ready"])),
        ("hook_collateral_expiry_timestamp_seconds", "When the first of the last run's collateral ends.",
         _instant(status["collateral_expires"])),
    )  # fmt: skip
    return dump_metrics(Metric(f"nvattest_{name}", text, samples) for name, text, samples in facts)


def _known(value: float | None) -> Samples:
    return [] if value is None else [(value, {})]


def _instant(text: str | None) -> Samples:
    try:
        return [] if text is None else [(parse_time(text).timestamp(), {})]
    except InputError:
        # The record's writer had no such instant.
        return []


def write_metrics(path: str, status: dict[str, Any]) -> None:
    """Write the facts for the textfile collector of node exporter, whole or not at all.

    Nothing is read back, so the folder may be another user's; a link in the place of the file is replaced. Raises
    OSError: it could not be written.
    """
    folder, name = os.path.split(path)
    new = f".{name}-{os.urandom(8).hex()}"
    replace_file(folder or ".", name, status_metrics(status).encode(), new=new, mode=0o644, sync=False)


def render_status(status: dict[str, Any]) -> str:
    """The facts as lines; the first three are those of ``nvidia-smi conf-compute`` with -grs, -f and -d."""
    lines: list[tuple[str, str | None]] = [
        ("Confidential Compute GPUs Ready state", _word(status["ready"], "ready", "not-ready")),
        ("CC status", _word(status["cc_on"], "ON", "OFF")),
        ("DevTools Mode", _word(status["dev_tools"], "ON", "OFF")),
        ("Multi-GPU Mode", "Protected PCIe" if status["protected_pcie"] else None),
        ("Driver", status["driver_fault"]),
        ("Configuration", status["configuration_fault"]),
        ("Run folder", status["record_fault"]),
    ]
    if status["verdict"] is not None:
        lines += _verdict_lines(status)
    elif status["record_fault"]:
        lines.append(("Last verdict", "unknown; what is there is not believed"))
    else:
        lines.append(("Last verdict", "none; there is no record of a run in this boot"))
    if status["ready"] and stands(status) is False:
        lines.append(("WARNING", "the GPUs are ready without a verdict that stands"))
    return joined([f"{name}: {text}" for name, text in lines if text])


def _verdict_lines(status: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    age = f"{status['age_s']:.0f} s ago" if status["age_s"] is not None else "in another boot"
    marks = " SIMULATED, proves nothing" if status["simulated"] else ""
    yield "Last verdict", f"{status['verdict']}{marks} ({status['stage']}, {age}, {status['time']})"
    if status["gpus"] is not None:
        switches = counted(status["switches"] or 0, "switch", "switches")
        yield "Devices", f"{counted(status['gpus'], 'GPU')}, {switches}"
    yield "Collateral ends", status["collateral_expires"]
    if (said := status["tee"]) is not None:
        where = f"in {Paths.RUN}/{Paths.QUOTE}, challenge {said.get('challenge')}"
        yield "Binding", f"a quote of {said.get('provider')} over the token's key and the evidence, {where}"
    yield "Weakened by policy", ", ".join(status["weakened"])
    if (reason := status["reason"]) is not None:
        yield "Reason", f"{reason['code']}: {reason['message']}"
        yield "  next", reason["hint"]
    for item in status["findings"]:
        yield "Finding", f"{item['code']}: {item['message']}"
    if status["verdict"] in (TRUSTED, NO_GPU) and not status["current"]:
        why = "its time is over, or its token is not whole"
        if stands(status) is None:
            why = "its token cannot be read by this user"
        elif not status["same_config"]:
            why = f"it was made with another configuration (--config {status['config']})"
        elif not status["same_devices"]:
            why = "the devices, the driver or the settings are not those of the verdict"
        known = stands(status) is False
        yield "The verdict does not stand" if known else "Whether the verdict stands is not known", why


def _live(library: str | None) -> tuple[SystemState | None, str | None]:
    try:
        with NvmlLibrary.open(library, timeout=_SECONDS) as opened:
            return read_state(opened, timeout=_SECONDS), None
    except NvattestError as error:
        return None, error.message


def _word(value: bool | None, yes: str, no: str) -> str:
    if value is None:
        return "unknown"
    return yes if value else no
