"""The failures of a guest hook that nobody is told about: a wrong path, a symlink, a hook that the agent dropped.

A Kata agent scans ``<guest_hook_path>/prestart`` once per sandbox. It says nothing when the folder is missing, passes
over what is not a regular executable file, and from 3.8 on drops guest hooks for containers that have OCI hooks.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from typing import Any, Final

from nvattest._pci import PciDevices, pci_devices
from nvattest.errors import NvattestError
from nvattest.guest.agents import kernel_log_failure
from nvattest.guest.boot import boot_findings, is_set_ready_at_boot, parameters_of
from nvattest.guest.config import Settings, load_settings
from nvattest.guest.findings import Finding
from nvattest.guest.paths import Paths, own_configuration
from nvattest.guest.status import hook_status, stands
from nvattest.model import counted

__all__ = ["check_guest"]

_CONTAINERS: Final = "/run/kata-containers"
_STAGES: Final = ("prestart", "poststart", "poststop")
_SMALL: Final = 4 * 1024 * 1024
_MOST_RECORDS: Final = 65536
_SEVERITIES: Final = ("ok", "warning", "error")


def check_guest(paths: Paths, *, hook_folder: str = "") -> list[Finding]:
    """Every check, good or bad; nothing is changed.

    ``hook_folder`` is the ``guest_hook_path``; "" looks where hooks are usually put, in extension images too.
    """
    settings = load_settings(paths)
    status = hook_status(paths)
    pci = pci_devices(paths.root)
    return [
        *(item for folder in _hook_folders(paths, hook_folder) for item in _hook_files(paths, folder)),
        *_configuration(settings),
        _library(status),
        *_devices(pci, settings, status),
        *boot_findings(paths, gpus=len(pci.gpus) if pci else 0, switches=len(pci.switches) if pci else 0),
        _others(paths, status),
        _dropped(paths),
        _kernel_log(paths),
        _bundle(settings),
        _ran(status),
    ]


def _hook_folders(paths: Paths, named: str) -> list[str]:
    """Where to look: the agent's own path is not visible in a guest."""
    if named:
        return [named]
    images = [f"{Paths.EXTENSIONS}/{name}{Paths.HOOKS}" for name in _names(paths.at(Paths.EXTENSIONS))]
    found = [folder for folder in (Paths.HOOKS, *images) if os.path.isdir(paths.at(f"{folder}/prestart"))]
    return found or [Paths.HOOKS]


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _interpreter(paths: Paths, place: str) -> str:
    """The interpreter that a script names and that is not there, or ""."""
    first = _text(paths.at(place), 256).split("\n", 1)[0]
    words = first[2:].split()
    return words[0] if first.startswith("#!") and words and not os.path.exists(paths.at(words[0])) else ""


def _hook_files(paths: Paths, folder: str) -> list[Finding]:
    home = paths.at(folder)
    hint = "guest_hook_path in the Kata configuration names the folder above prestart"
    try:
        names = sorted(os.listdir(f"{home}/prestart"))
    except OSError as error:
        message = f"{folder}/prestart: {error.strerror}; the agent says nothing about it and runs no hook"
        return [Finding(id="hook-path", severity="error", message=message, hint=hint)]
    found: list[Finding] = []
    for name in names:
        place = f"{folder}/prestart/{name}"
        try:
            mode = os.lstat(f"{home}/prestart/{name}").st_mode
        except OSError as error:
            found.append(Finding(id="hook-file", severity="error", message=f"{place}: {error.strerror}"))
            continue
        if stat.S_ISLNK(mode):
            found.append(
                Finding(
                    id="hook-symlink",
                    severity="error",
                    message=f"{place} is a symbolic link; the agent passes over it",
                    hint="put a regular file there",
                )
            )
        elif not stat.S_ISREG(mode):
            found.append(Finding(id="hook-file", severity="error", message=f"{place} is not a regular file"))
        elif not mode & 0o111:
            found.append(
                Finding(
                    id="hook-mode",
                    severity="error",
                    message=f"{place} is not executable; the agent passes over it",
                    hint=f"chmod 755 {place}",
                )
            )
        elif _interpreter(paths, place):
            message = f"{place} is a script for {_interpreter(paths, place)}, which this guest has not"
            found.append(Finding(id="hook-interpreter", severity="error", message=message, hint="make guest-layer"))
        else:
            found.append(Finding(id="hook-file", severity="ok", message=f"{place} is a hook"))
            own = own_configuration(paths.root, place)
            if own and name == "nvattest-hook" and own != paths.configuration:
                message = f"{place} reads {own}, and this check reads {paths.configuration}"
                hint = f"{place} check, or --config {own}"
                found.append(Finding(id="hook-configuration", severity="warning", message=message, hint=hint))
    for stage in _STAGES[1:]:
        if os.path.lexists(f"{home}/{stage}/nvattest-hook"):
            message = f"{folder}/{stage}/nvattest-hook comes too late to gate anything"
            found.append(Finding(id="hook-stage", severity="error", message=message, hint="move it to prestart"))
    if not any(item.severity == "ok" for item in found):
        message = f"{folder}/prestart has no file that the agent would run"
        found.append(Finding(id="hook-missing", severity="error", message=message, hint=hint))
    return found


def _configuration(settings: Settings) -> list[Finding]:
    if settings.error is None:
        message = f"{settings.paths.configuration} can be read"
        if settings.digest is None:
            message = f"there is no {settings.paths.configuration}: every default holds"
        return [Finding(id="configuration", severity="ok", message=message)]
    hint = "nothing is attested like this"
    return [Finding(id="configuration", severity="error", message=settings.error.message, hint=hint)]


def _library(status: dict[str, Any]) -> Finding:
    if status["driver_fault"] is None:
        return Finding(id="library", severity="ok", message="NVML answers")
    return Finding(
        id="library",
        severity="error",
        message=status["driver_fault"],
        hint="the guest needs the driver and libnvidia-ml.so.1 of the same version; [driver] nvml names another place",
    )


def _devices(pci: PciDevices | None, settings: Settings, status: dict[str, Any]) -> list[Finding]:
    if pci is None:
        return [Finding(id="devices", severity="warning", message="sysfs is not there: the bus cannot be looked at")]
    seen = f"{counted(len(pci.gpus), 'GPU')} and {counted(len(pci.switches), 'switch', 'switches')} on the PCI bus"
    expected = (
        (settings.config.expected_gpus, len(pci.gpus), "expected_gpus"),
        (settings.config.expected_switches, len(pci.switches), "expected_switches"),
    )
    wrong = [f"{name} is {wanted}" for wanted, found, name in expected if wanted is not None and wanted != found]
    if wrong:
        message = f"{seen}, and in the configuration {' and '.join(wrong)}"
        return [Finding(id="devices", severity="error", message=message, hint="the attestation fails like this")]
    if not pci.gpus:
        return [Finding(id="devices", severity="warning", message=seen, hint="was a GPU passed through?")]
    if status["cc_on"] is False and not status["protected_pcie"]:
        message = f"{seen}, with confidential computing off"
        return [Finding(id="devices", severity="error", message=message, hint="set the mode on the host: on or ppcie")]
    if status["dev_tools"]:
        return [Finding(id="devices", severity="error", message=f"{seen}, in DevTools mode: this is refused")]
    return [Finding(id="devices", severity="ok", message=seen)]


def _others(paths: Paths, status: dict[str, Any]) -> Finding:
    parameter = is_set_ready_at_boot(parameters_of(paths))
    if parameter:
        return Finding(
            id="ready-by-others",
            severity="error",
            message=f"the kernel's command line has {parameter}: init sets the GPUs ready unattested",
            hint="take it out of kernel_params in the Kata configuration, and keep the other parameters",
        )
    if status["ready"] is None:
        message = "the driver does not say whether the GPUs are ready: whether others set them so is not known"
        return Finding(id="ready-by-others", severity="warning", message=message, hint="see library above")
    if status["ready"] and stands(status) is None:
        message = f"the GPUs are ready, and whether a verdict stands is not known: {status['record_fault']}"
        return Finding(id="ready-by-others", severity="warning", message=message, hint="look as root")
    if status["ready"] and not status["current"]:
        return Finding(
            id="ready-by-others",
            severity="error",
            message="the GPUs are ready without a verdict of ours that stands",
            hint="look for nvidia-smi conf-compute -srs in the guest's init",
        )
    return Finding(id="ready-by-others", severity="ok", message="nobody else set the GPUs ready, as far as can be seen")


def _dropped(paths: Paths) -> Finding:
    home = paths.at(_CONTAINERS)
    try:
        names = sorted(os.listdir(home))
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.close(os.open(f"{home}/{name}/config.json", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except FileNotFoundError:
        names = []
    except OSError as error:
        message = f"{error.filename}: {error.strerror}: whether the agent dropped ours for a container is not known"
        return Finding(id="hook-dropped", severity="warning", message=message, hint="look as root")
    dropped = []
    for name in names:
        text = _text(f"{home}/{name}/config.json")
        try:
            document = json.loads(text) if text else None
        except (ValueError, RecursionError):
            continue
        hooks = document.get("hooks") if isinstance(document, dict) else None
        if isinstance(hooks, dict) and any(hooks.values()) and "nvattest-hook" not in json.dumps(hooks):
            dropped.append(name)
    if not dropped:
        return Finding(id="hook-dropped", severity="ok", message="no container has hooks that take the place of ours")
    return Finding(
        id="hook-dropped",
        severity="warning",
        message=f"{len(dropped)} containers have OCI hooks, so that the agent dropped ours: {dropped[0][:64]}",
        hint="the run for the pause container counts; where it is missing, run --stage init before the agent",
    )


def _kernel_log(paths: Paths) -> Finding:
    worst = ("ok", "the kernel log has no line of the agent about this hook")
    try:
        lines = _records(paths.kmsg)
    except OSError as error:
        message = f"the kernel log cannot be read: {paths.kmsg}: {error.strerror}"
        return Finding(id="hook-log", severity="warning", message=message, hint="look as root")
    for line in lines:
        found = kernel_log_failure(line)
        if found is not None and _SEVERITIES.index(found[0]) >= _SEVERITIES.index(worst[0]):
            worst = found
    hint = "nvattest-hook status says what the last run found and how long it took; [budget] hook limits it"
    return Finding(id="hook-log", severity=worst[0], message=worst[1], hint=hint)


def _records(path: str) -> list[str]:
    """The kernel log: one record for each read of the device, up to where it would wait for the next.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    parts: list[bytes] = []
    try:
        for _ in range(_MOST_RECORDS):
            try:
                part = os.read(descriptor, 16384)
            except BrokenPipeError:
                # Records were overwritten before they were read; the next read goes on behind them.
                continue
            except BlockingIOError:
                break
            if not part:
                break
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "replace").split("\n")


def _bundle(settings: Settings) -> Finding:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import MAXIMUM_BUNDLE, load_bundle
    from nvattest.collateral.folders import read_bounded
    from nvattest.collateral.inspection import inspect_bundle
    from nvattest.guest.appraise import load_demands
    from nvattest.session import now

    path = settings.place(settings.config.collateral_bundle) or settings.paths.bundle
    if settings.config.collateral_bundle is None and not os.path.lexists(path):
        network = "the network is asked each time" if settings.config.collateral_network else "and the network is off"
        return Finding(id="bundle", severity="warning", message=f"there is no bundle; {network}")
    try:
        bundle = load_bundle(read_bounded(path, MAXIMUM_BUNDLE))
        demands = load_demands(settings)
    except NvattestError as error:
        return Finding(id="bundle", severity="error", message=error.message)
    facts, bad, _ = inspect_bundle(bundle, Verifier(anchors=demands.anchors), now())
    if bad:
        name, reason = bad[0]
        message = f"{counted(len(bad), 'entry', 'entries')} of the bundle NOT VERIFIED, the first: {name}: {reason}"
        return Finding(id="bundle", severity="error", message=message[:300], hint="nvattest bundle fetch makes another")
    first = facts["earliest_expiry"]
    ends = f"; first to expire: {first['of']} at {first['at']}" if isinstance(first, dict) else ""
    return Finding(id="bundle", severity="ok", message=f"the bundle can be read{ends}"[:300])


def _ran(status: dict[str, Any]) -> Finding:
    if status["verdict"] is None and status["record_fault"]:
        return Finding(
            id="ran",
            severity="error",
            message=f"what the hook wrote is not believed: {status['record_fault']}",
            hint="nobody but root may be able to write into /run/nvattest, and it is no volume that containers share",
        )
    if status["this_boot"]:
        return Finding(id="ran", severity="ok", message=f"the last run of this boot said: {status['verdict']}")
    return Finding(
        id="ran",
        severity="error",
        message="there is no record of a run in this boot",
        hint="guest_hook_path may be empty or forbidden by the agent's policy: the host can leave it out, so a relying "
        "party has to ask for the token",
    )


def _text(path: str, size: int = _SMALL) -> str:
    try:
        # A FIFO in the place of the file is not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return (file.read(size) or b"").decode("utf-8", "replace")
    except OSError:
        return ""
