"""``nvattest-hook status``: the last verdict, and what the driver says now, in the words of nvidia-smi."""

from __future__ import annotations

from typing import Any

from nvattest._folder import TrustedFolder
from nvattest._text import joined
from nvattest.devices.nvml import NvmlLibrary
from nvattest.devices.state import SystemState, read_state
from nvattest.errors import NvattestError
from nvattest.guest.config import Paths, Settings, load_settings
from nvattest.guest.record import (
    MAXIMUM_RECORD,
    NO_GPU,
    TRUSTED,
    Identity,
    Record,
    belongs,
    boottime,
    identify,
    read_record,
    reusable,
    serves,
)
from nvattest.model import counted

_SECONDS = 5.0
_OF_THE_RECORD = ("verdict", "config", "time", "stage", "simulated", "gpus", "switches")
_OF_THE_DRIVER = ("ready", "cc_on", "dev_tools", "protected_pcie")


def hook_status(paths: Paths) -> dict[str, Any]:
    """The facts, as ``nvattest hook status --format json`` prints them."""
    settings = load_settings(paths)
    state, fault = _live(settings.nvml)
    identity = identify(paths, settings.inputs)
    record, current, unread = _record(paths, identity, settings)
    same_boot = record is not None and identity.boot_id != "" and record.boot_id == identity.boot_id
    # Only what the driver says now is the state; the record says what the last run left it in.
    return {
        "current": current,
        "this_boot": same_boot,
        "same_config": record is not None and record.config == identity.config,
        "same_devices": belongs(record, identity),
        "age_s": round(boottime() - record.finished_boottime, 1) if record is not None and same_boot else None,
        "reason": record.reason._asdict() if record is not None and record.reason is not None else None,
        "findings": [item._asdict() for item in record.findings] if record is not None else [],
        "weakened": list(record.weakened) if record is not None else [],
        **{name: getattr(record, name, None) for name in _OF_THE_RECORD},
        **{name: getattr(state, name, None) for name in _OF_THE_DRIVER},
        "driver_fault": fault,
        "record_fault": unread,
        "configuration_fault": str(settings.error) if settings.error is not None else None,
    }


def _record(paths: Paths, identity: Identity, settings: Settings) -> tuple[Record | None, bool, str | None]:
    """The record, whether its verdict stands, and what could not be read: that verdict is not taken for good."""
    try:
        folder = TrustedFolder(paths.run)
    except FileNotFoundError:
        return None, False, None
    except OSError as error:
        return None, False, f"{error.filename}: {error.strerror or error}"
    with folder:
        record = read_record(folder)
        if record is None:
            return None, False, _why_none(folder)
        current = reusable(record, identity, folder, seconds=settings.reuse_seconds)
        unread = None
        if record.verdict == TRUSTED and not current and serves(record, identity, seconds=settings.reuse_seconds):
            try:
                folder.read(Paths.TOKEN, 0)
            except PermissionError as error:
                # Only the owner may read the token, which is a bearer's.
                unread = f"{error.filename}: {error.strerror}"
            except OSError:
                pass
    return record, current, unread


def _why_none(folder: TrustedFolder) -> str | None:
    """Why a record that is there is not read; None where there is none."""
    try:
        folder.facts(Paths.STATE)
        folder.read(Paths.STATE, MAXIMUM_RECORD)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{error.filename or folder.at(Paths.STATE)}: {error.strerror or error}"
    return f"{folder.at(Paths.STATE)}: it is no record of this version of the program"


def stands(status: dict[str, Any]) -> bool | None:
    """Whether the last verdict stands; None where this user may not read its token."""
    return None if status["verdict"] == TRUSTED and status["record_fault"] else status["current"]


def is_good(status: dict[str, Any]) -> bool:
    """Whether the last verdict stands, and the GPUs accept work because of it (or there is none, as configured)."""
    if not status["current"]:
        return False
    return status["verdict"] == NO_GPU or (status["verdict"] == TRUSTED and status["ready"] is True)


def render_status(status: dict[str, Any]) -> str:
    """The facts as lines; the first three are those of ``nvidia-smi conf-compute`` with -grs, -f and -d."""
    lines = [
        f"Confidential Compute GPUs Ready state: {_word(status['ready'], 'ready', 'not-ready')}",
        f"CC status: {_word(status['cc_on'], 'ON', 'OFF')}",
        f"DevTools Mode: {_word(status['dev_tools'], 'ON', 'OFF')}",
    ]
    if status["protected_pcie"]:
        lines.append("Multi-GPU Mode: Protected PCIe")
    if status["driver_fault"]:
        lines.append(f"Driver: {status['driver_fault']}")
    if status["configuration_fault"]:
        lines.append(f"Configuration: {status['configuration_fault']}")
    if status["record_fault"]:
        lines.append(f"Run folder: {status['record_fault']}")
    verdict = status["verdict"]
    unattested = ["WARNING: the GPUs are ready without a verdict that stands"]
    if not status["ready"] or stands(status) is not False:
        unattested = []
    if verdict is None:
        none = "none; there is no record of a run in this boot"
        if status["record_fault"]:
            none = "unknown; what is there is not believed"
        return joined([*lines, f"Last verdict: {none}", *unattested])
    age = f"{status['age_s']:.0f} s ago" if status["age_s"] is not None else "in another boot"
    marks = " SIMULATED, proves nothing" if status["simulated"] else ""
    lines.append(f"Last verdict: {verdict}{marks} ({status['stage']}, {age}, {status['time']})")
    if status["gpus"] is not None:
        switches = counted(status["switches"] or 0, "switch", "switches")
        lines.append(f"Devices: {counted(status['gpus'], 'GPU')}, {switches}")
    if status["weakened"]:
        lines.append(f"Weakened by policy: {', '.join(status['weakened'])}")
    if isinstance(status["reason"], dict):
        lines.append(f"Reason: {status['reason'].get('code')}: {status['reason'].get('message')}")
        if status["reason"].get("hint"):
            lines.append(f"  next: {status['reason']['hint']}")
    lines += [f"Finding: {item.get('code')}: {item.get('message')}" for item in status["findings"]]
    if verdict in (TRUSTED, NO_GPU) and not status["current"]:
        why = "its time is over, or its token is not whole"
        if stands(status) is None:
            why = "its token cannot be read by this user"
        elif not status["same_config"]:
            why = f"it was made with another configuration (--config {status['config']})"
        elif not status["same_devices"]:
            why = "the devices, the driver or the settings are not those of the verdict"
        word = "The verdict does not stand" if stands(status) is False else "Whether the verdict stands is not known"
        lines.append(f"{word}: {why}")
    lines += unattested
    return joined(lines)


def _live(library: str | None) -> tuple[SystemState | None, str | None]:
    try:
        with NvmlLibrary.open(library, timeout=_SECONDS) as opened:
            return read_state(opened, timeout=_SECONDS), None
    except NvattestError as error:
        return None, error.message


def _word(value: bool | None, yes: str, no: str) -> str:
    return "unknown" if value is None else yes if value else no
