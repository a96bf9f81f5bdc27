"""What silently keeps a hook from working, looked for inside the guest: ``nvattest-hook check``.

A Kata agent scans ``<guest_hook_path>/prestart`` once per sandbox. It says nothing when the folder is missing, passes
over what is not a regular executable file, and from 3.8 on drops guest hooks for containers that have OCI hooks. What
the guest was booted with (kernel parameters, extension images, the agent) decides what a hook is worth; the host wrote
most of it, and what it wrote is in the guest's measurement.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from nvattest._system import PciDevices, open_now, pci_devices, read_start
from nvattest.errors import InputError, NvattestError
from nvattest.guest.arguments import AGENT_SECONDS, Stage, UsageError, parse_arguments
from nvattest.guest.config import Paths, Settings, load_settings, own_configuration
from nvattest.guest.extension import (
    MANIFEST,
    VARIABLES,
    Process,
    launch_plan,
    our_process,
    parse_verity_params,
    read_manifest,
)
from nvattest.guest.status import hook_status, stands
from nvattest.model import counted

# It exists only while a verdict stands.
_GATE: Final = f"{Paths.RUN}/{Paths.TOKEN}"
_CONTAINERS: Final = "/run/kata-containers"
_SMALL: Final = 4 * 1024 * 1024
_MOST_RECORDS: Final = 65536
_LEVELS: Final = {"none": 0, "attestation-agent": 1, "confidential-data-hub": 2, "api-server-rest": 3}
_VERITY: Final = re.compile(r"kata\.extension\.([A-Za-z0-9_-]+)\.verity_params(?:=(.*))?")
# What Kata's configurations for confidential NVIDIA guests have had since 3.23.
_WANTED: Final = ("cgroup_no_v1=all", "pci=realloc", "pci=nocrs", "pci=assign-busses")
# GPUs and switches that NVRC starts a guest with; it powers all others off. Without switches any number is right.
_WITH_SWITCHES: Final = ((8, 4), (0, 4))
_AGENT_SECONDS: Final = 5.0
_NVML: Final = "the guest needs the driver and libnvidia-ml.so.1 of the same version; [driver] nvml names another place"
READY_PARAMETER: Final = "nvrc.smi.srs"
"""NVRC, the init of NVIDIA's guest image, sets the GPUs ready unattested where the kernel's command line has this."""


SEVERITIES: Final = ("ok", "warning", "error")
"""From the least to the worst."""

_WORDS: Final = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}


class Finding(NamedTuple):
    """``severity`` is ``ok``, ``warning`` (look at it) or ``error`` (it does not work, or it is no gate).

    ``file`` is the file it is about, where several were looked at.
    """

    id: str
    severity: str
    message: str
    hint: str = ""
    file: str = ""


def ok(name: str, message: str) -> Finding:
    """It works."""
    return Finding(name, "ok", message)


def warn(name: str, message: str, hint: str = "") -> Finding:
    """Look at it."""
    return Finding(name, "warning", message, hint)


def bad(name: str, message: str, hint: str = "", file: str = "") -> Finding:
    """It does not work, or it is no gate."""
    return Finding(name, "error", message, hint, file)


def print_findings(findings: Sequence[Finding], form: str) -> int:
    """Print them as ``text`` or ``json``; 0 if none is an error, else 1."""
    good = all(item.severity != "error" for item in findings)
    if form == "json":
        from nvattest._documents import dump_json

        # Where one guest was looked at, no finding has a file.
        checks = [{key: value for key, value in item._asdict().items() if key != "file" or value} for item in findings]
        print(dump_json({"format": "nvattest-hook-findings", "version": 1, "good": good, "checks": checks}))
    else:
        from nvattest._text import joined

        lines = []
        for item in findings:
            where = f"{item.file}: " if item.file else ""
            lines.append(f"{_WORDS[item.severity]:8}{item.id}: {where}{item.message}")
            if item.hint and item.severity != "ok":
                lines.append(f"        next: {item.hint}")
        print(joined(lines))
    return 0 if good else 1


def check_guest(paths: Paths, *, hook_folder: str = "") -> list[Finding]:
    """Every check, good or bad; nothing is changed.

    ``hook_folder`` is the ``guest_hook_path``; "" looks where hooks are usually put, in extension images too.
    """
    settings = load_settings(paths)
    status = hook_status(paths)
    pci, fault = pci_devices(paths.root), status["driver_fault"]
    return [
        *(item for folder in _hook_folders(paths, hook_folder) for item in _hook_files(paths, folder)),
        _configuration(settings),
        ok("library", "NVML answers") if fault is None else bad("library", fault, _NVML),
        _devices(pci, settings, status),
        *_boot(paths, gpus=len(pci.gpus) if pci else 0, switches=len(pci.switches) if pci else 0),
        _others(paths, status),
        _dropped(paths),
        _kernel_log(paths),
        _bundle(settings),
        _ran(status),
    ]


# --- the hook's files -------------------------------------------------------------------------------------------------


def _hook_folders(paths: Paths, named: str) -> list[str]:
    """Where to look: the agent's own path is not visible in a guest."""
    if named:
        return [named]
    images = [f"{Paths.EXTENSIONS}/{name}{Paths.HOOKS}" for name in _folders(paths.at(Paths.EXTENSIONS))]
    found = [folder for folder in (Paths.HOOKS, *images) if os.path.isdir(paths.at(f"{folder}/prestart"))]
    return found or [Paths.HOOKS]


def _hook_files(paths: Paths, folder: str) -> Iterator[Finding]:
    home = paths.at(folder)
    hint = "guest_hook_path in the Kata configuration names the folder above prestart"
    try:
        names = sorted(os.listdir(f"{home}/prestart"))
    except OSError as error:
        message = f"{folder}/prestart: {error.strerror}; the agent says nothing about it and runs no hook"
        yield bad("hook-path", message, hint)
        return
    found = [item for name in names for item in _hook_file(paths, f"{folder}/prestart/{name}")]
    yield from found
    for stage in ("poststart", "poststop"):
        if os.path.lexists(f"{home}/{stage}/nvattest-hook"):
            message = f"{folder}/{stage}/nvattest-hook comes too late to gate anything"
            yield bad("hook-stage", message, "move it to prestart")
    if not any(item.severity == "ok" for item in found):
        yield bad("hook-missing", f"{folder}/prestart has no file that the agent would run", hint)


def _hook_file(paths: Paths, place: str) -> Iterator[Finding]:
    try:
        mode = os.lstat(paths.at(place)).st_mode
    except OSError as error:
        yield bad("hook-file", f"{place}: {error.strerror}")
        return
    if stat.S_ISLNK(mode):
        yield bad("hook-symlink", f"{place} is a symbolic link; the agent passes over it", "put a regular file there")
    elif not stat.S_ISREG(mode):
        yield bad("hook-file", f"{place} is not a regular file")
    elif not mode & 0o111:
        yield bad("hook-mode", f"{place} is not executable; the agent passes over it", f"chmod 755 {place}")
    elif interpreter := _missing_interpreter(paths, place):
        message = f"{place} is a script for {interpreter}, which this guest has not"
        yield bad("hook-interpreter", message, "make guest-layer")
    else:
        yield ok("hook-file", f"{place} is a hook")
        own = own_configuration(paths.root, place)
        if own and place.endswith("/nvattest-hook") and own != paths.configuration:
            message = f"{place} reads {own}, and this check reads {paths.configuration}"
            yield warn("hook-configuration", message, f"{place} check, or --config {own}")


def _missing_interpreter(paths: Paths, place: str) -> str:
    """The interpreter that a script names and that is not there, or ""."""
    first = _text(paths.at(place), 256).split("\n", 1)[0]
    words = first[2:].split()
    return words[0] if first.startswith("#!") and words and not os.path.exists(paths.at(words[0])) else ""


# --- configuration, driver and devices --------------------------------------------------------------------------------


def _configuration(settings: Settings) -> Finding:
    if settings.error is not None:
        return bad("configuration", settings.error.message, "nothing is attested like this")
    if settings.digest is None:
        return ok("configuration", f"there is no {settings.paths.configuration}: every default holds")
    return ok("configuration", f"{settings.paths.configuration} can be read")


def _devices(pci: PciDevices | None, settings: Settings, status: dict[str, Any]) -> Finding:
    if pci is None:
        return warn("devices", "sysfs is not there: the bus cannot be looked at")
    seen = f"{counted(len(pci.gpus), 'GPU')} and {counted(len(pci.switches), 'switch', 'switches')} on the PCI bus"
    expected = (
        (settings.config.expected_gpus, len(pci.gpus), "expected_gpus"),
        (settings.config.expected_switches, len(pci.switches), "expected_switches"),
    )
    wrong = [f"{name} is {wanted}" for wanted, found, name in expected if wanted is not None and wanted != found]
    if wrong:
        message = f"{seen}, and in the configuration {' and '.join(wrong)}"
        return bad("devices", message, "the attestation fails like this")
    if not pci.gpus:
        return warn("devices", seen, "was a GPU passed through?")
    if status["cc_on"] is False and not status["protected_pcie"]:
        return bad("devices", f"{seen}, with confidential computing off", "set the mode on the host: on or ppcie")
    if status["dev_tools"]:
        return bad("devices", f"{seen}, in DevTools mode: this is refused")
    return ok("devices", seen)


def _others(paths: Paths, status: dict[str, Any]) -> Finding:
    """Whether another program sets the GPUs ready."""
    severity, message, hint = "ok", "no other program set the GPUs ready, as far as can be seen", ""
    parameter = is_set_ready_at_boot(_parameters(paths))
    if parameter:
        severity = "error"
        message = f"the kernel's command line has {parameter}: init sets the GPUs ready unattested"
        hint = "take it out of kernel_params in the Kata configuration, and keep the other parameters"
    elif status["ready"] is None:
        severity, hint = "warning", "see library above"
        message = "the driver does not say whether the GPUs are ready: whether others set them so is not known"
    elif status["ready"] and stands(status) is None:
        severity, hint = "warning", "look as root"
        message = f"the GPUs are ready, and whether a verdict stands is not known: {status['record_fault']}"
    elif status["ready"] and not status["current"]:
        severity, message = "error", "the GPUs are ready without a verdict of ours that stands"
        hint = "look for nvidia-smi conf-compute -srs in the guest's init"
    return Finding("ready-by-others", severity, message, hint)


def _bundle(settings: Settings) -> Finding:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import Bundle
    from nvattest.collateral.inspection import inspect_parts
    from nvattest.guest.inputs import load_demands
    from nvattest.session import now

    if settings.config.collateral_bundle is None and not os.path.lexists(settings.bundle):
        network = "the network is asked each time" if settings.config.collateral_network else "and the network is off"
        return warn("bundle", f"there is no bundle; {network}")
    try:
        parts = Bundle(settings.bundle, trusted=True).parts()
        anchors, _ = load_demands(settings)
        facts, refused = inspect_parts(parts, Verifier(anchors=anchors), now())
    except NvattestError as error:
        return bad("bundle", error.message)
    if refused:
        name, reason = refused[0]
        entries = counted(len(refused), "entry", "entries")
        message = f"{entries} of the bundle NOT VERIFIED, the first: {name}: {reason}"
        return bad("bundle", message[:300], "nvattest bundle fetch makes another")
    first = facts["earliest_expiry"]
    ends = f"; first to expire: {first['of']} at {first['at']}" if isinstance(first, dict) else ""
    return ok("bundle", f"the bundle can be read{ends}"[:300])


# --- what the agent and the hook did ----------------------------------------------------------------------------------


def _dropped(paths: Paths) -> Finding:
    home, dropped = paths.at(_CONTAINERS), []
    try:
        for name in sorted(os.listdir(home)):
            with suppress(FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
                with open_now(f"{home}/{name}/config.json") as file:
                    document = json.loads(file.read(_SMALL) or b"null")
                hooks = document.get("hooks") if isinstance(document, dict) else None
                if isinstance(hooks, dict) and any(hooks.values()) and "nvattest-hook" not in json.dumps(hooks):
                    dropped.append(name)
    except FileNotFoundError:
        dropped = []
    except OSError as error:
        message = f"{error.filename}: {error.strerror}: whether the agent dropped ours for a container is not known"
        return warn("hook-dropped", message, "look as root")
    if not dropped:
        return ok("hook-dropped", "no container has hooks that take the place of ours")
    message = f"{len(dropped)} containers have OCI hooks, so that the agent dropped ours: {dropped[0][:64]}"
    hint = "the run for the pause container counts; where it is missing, run --stage init before the agent"
    return warn("hook-dropped", message, hint)


def _kernel_log(paths: Paths) -> Finding:
    worst = ("ok", "the kernel log has no line of the agent about this hook")
    try:
        lines = _records(paths.kmsg)
    except OSError as error:
        return warn("hook-log", f"the kernel log cannot be read: {paths.kmsg}: {error.strerror}", "look as root")
    for line in lines:
        found = kernel_log_failure(line)
        if found is not None and SEVERITIES.index(found[0]) >= SEVERITIES.index(worst[0]):
            worst = found
    hint = "nvattest-hook status says what the last run found and how long it took; [budget] hook limits it"
    return Finding("hook-log", *worst, hint)


def _records(path: str) -> list[str]:
    """The kernel log: one record for each read of the device, up to where it would wait for the next."""
    parts: list[bytes] = []
    with open_now(path) as file:
        for _ in range(_MOST_RECORDS):
            # Records were overwritten before they were read; the next read goes on behind them.
            with suppress(BrokenPipeError):
                part = file.raw.read(16384)
                if not part:
                    break
                parts.append(part)
    return b"".join(parts).decode("utf-8", "replace").split("\n")


def _ran(status: dict[str, Any]) -> Finding:
    if status["verdict"] is None and status["record_fault"]:
        message = f"what the hook wrote is not believed: {status['record_fault']}"
        hint = "only root may be able to write into /run/nvattest, and it must be no volume that containers share"
        return bad("ran", message, hint)
    if status["this_boot"]:
        return ok("ran", f"the last run of this boot said: {status['verdict']}")
    hint = (
        "guest_hook_path may be empty or forbidden by the agent's policy: the host can leave it out, so a relying "
        "party has to ask for the token"
    )
    return bad("ran", "there is no record of a run in this boot", hint)


# --- what the guest was booted with -----------------------------------------------------------------------------------


def _boot(paths: Paths, *, gpus: int, switches: int) -> Iterator[Finding]:
    """``gpus`` and ``switches`` are those on the bus."""
    words = _parameters(paths)
    extensions = _folders(paths.at(Paths.EXTENSIONS))
    if extensions:
        # NVRC mounts these, and nothing else does.
        yield from _kernel_parameters(words, extensions)
        yield from _mounts(paths, extensions)
        if switches and (gpus, switches) not in _WITH_SWITCHES:
            message = f"{gpus} GPUs and {switches} switches are none of the sets that NVRC starts a guest with"
            yield bad("topology", message, "1 to 16 GPUs without switches, or 8 GPUs and 4 switches")
    if "coco" in extensions:
        yield from _manifest(paths, words)
    yield from _agent(paths)


def _parameters(paths: Paths) -> list[str]:
    """The words of the kernel's command line."""
    return _text(paths.command_line).split()


def _kernel_parameters(words: list[str], extensions: list[str]) -> Iterator[Finding]:
    lost = [word for word in _WANTED if word not in words]
    if lost:
        message = f"the kernel's command line has not {' '.join(lost)}, which the shipped configurations have"
        hint = "a drop-in with kernel_params takes the place of all that the base has; nvattest hook lint compares"
        yield warn("kernel-params", message, hint)
    else:
        yield ok("kernel-params", "the kernel's command line has the parameters of the shipped configurations")
    found = {match[1]: (match[2] or "").strip('"') for match in map(_VERITY.fullmatch, words) if match is not None}
    for name in sorted({*found, *extensions}):
        if name not in found:
            message = f"extension {name} is mounted, and its hash is not on the kernel's command line: it is unmeasured"
            yield bad("extension", message)
            continue
        try:
            parse_verity_params(found[name])
        except InputError as error:
            yield bad("extension", f"extension {name}: {error.message}")
            continue
        if name not in extensions:
            yield bad("extension", f"extension {name} is on the kernel's command line and is not mounted")


def _mounts(paths: Paths, extensions: list[str]) -> Iterator[Finding]:
    mounted = {}
    for line in _text(paths.at("/proc/mounts")).splitlines():
        fields = line.split()
        if len(fields) >= 4:
            mounted[fields[1]] = (fields[0], fields[2], fields[3].split(","))
    for name in extensions:
        place = f"{Paths.EXTENSIONS}/{name}"
        device, kind, options = mounted.get(place, ("", "", []))
        wanted = f"/dev/mapper/extension-{name}"
        if (device, kind) != (wanted, "erofs") or "ro" not in options:
            found = f"{device}, {kind}, {','.join(options[:1])}" if device else "no mount of its own"
            message = f"{place} is not {wanted}, erofs, read-only, but {found}"
            yield bad("extension", message, "what is read there is not covered by dm-verity")
        else:
            yield ok("extension", f"{place} is read through dm-verity")


def _manifest(paths: Paths, words: list[str]) -> Iterator[Finding]:
    root = paths.at(f"{Paths.EXTENSIONS}/coco")
    data = read_start(f"{root}/{MANIFEST}", _SMALL)
    source = f"{Paths.EXTENSIONS}/coco/{MANIFEST}"
    named = [word.partition("=")[2] for word in words if word.partition("=")[0] == "agent.guest_components_procs"]
    level = _LEVELS.get(named[-1], 3) if named else 3
    yield from manifest_findings(data, source=source, root=root, level=level)


def _agent(paths: Paths) -> Iterator[Finding]:
    path = paths.at(Paths.AGENT)
    head = read_start(path, 4)
    if not head:
        return
    if head != b"\x7fELF":
        text, message = read_start(path, _SMALL), f"{Paths.AGENT} is a script: NVIDIA's guest has no shell for it"
        if b"--stage init" in text and Paths.AGENT.encode() in text:
            message = f"{Paths.AGENT} is a step of init that starts {Paths.AGENT}: itself, for ever"
        yield bad("agent", message, "examples/init/agent-step.c is a native program for this place")
        return
    version = version_of(_printed(path))
    if version is None:
        message = f"{Paths.AGENT} does not say its version: what a hook can promise here is not known"
        yield warn("agent", message, "examples/kata/README.md has it by version")
        return
    generation = generation_of(version)
    later = ", later than those that were looked at" if version > generation.last else ""
    yield ok("agent", f"kata-agent {version[0]}.{version[1]}{later}: {generation.promise}")


def _printed(path: str) -> str:
    import subprocess

    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [path, "--version"], env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=_AGENT_SECONDS,
            check=False,
        )  # fmt: skip
        return done.stdout[:4096].decode("utf-8", "replace")
    return ""


# --- an extension's manifest ------------------------------------------------------------------------------------------


def image_tree(path: str) -> str:
    """The unpacked image in which this manifest lies in its place, or "" where there is only the file."""
    path = os.path.abspath(path)
    root = path.removesuffix(f"/{MANIFEST}")
    return root if root != path and os.path.isdir(f"{root}/usr") else ""


def manifest_findings(data: bytes, *, source: str = MANIFEST, root: str = "", level: int = 3) -> Iterator[Finding]:
    """What an agent makes of a manifest. ``root`` is where the image is mounted, or "" where only the file is there.

    Of level 0 the agent starts no process at all.
    """
    highest, place = level or 3, root or "/x"
    try:
        manifest = read_manifest(data, source=source)
        named = {"attester_variant": "nvidia", "launch_process_timeout": "120", "extension_root": place}
        plan = launch_plan(manifest, dict.fromkeys(VARIABLES, "x") | named, most=highest, root=place)
    except NvattestError as error:
        yield bad("manifest", error.message, error.hint or "")
        return
    ours = our_process(manifest.processes)
    missing = [item.path for item in plan if root and not os.access(item.path, os.X_OK)]
    if missing:
        message = f"{missing[0]} is not there or not executable: the agent then starts none of the processes"
        yield bad("manifest", message)
    for process in manifest.processes:
        if process.unknown:
            yield warn("manifest", f"process {process.id!r}: the agent passes over {', '.join(process.unknown)}")
        if not 1 <= process.level <= highest:
            message = f"process {process.id!r} of level {process.level} is never started: levels are 1 to {highest}"
            yield bad("manifest", message) if process is ours else warn("manifest", message)
    if ours is None:
        yield ok("manifest", "the agent accepts the manifest, which does not start nvattest-hook")
        return
    yield from _gate(ours, [item.id for item in manifest.processes], root)
    if level == 0:
        message = "agent.guest_components_procs=none on the kernel's command line: the agent does not start"
        hint = "the host wrote it; a relying party finds it in the measurement"
        yield bad("manifest", f"{message} nvattest-hook", hint)


def _gate(ours: Process, names: list[str], root: str) -> Iterator[Finding]:
    """What our entry does; ``names`` are the processes in their order."""
    before = names[: names.index(ours.id)]
    try:
        stage = parse_arguments([word.replace("${extension_root}", root or "/x") for word in ours.args]).stage
    except UsageError as error:
        yield bad("manifest", f"process {ours.id!r}: {error}")
        return
    if stage not in (Stage.WATCH, Stage.INIT):
        yield bad("manifest", f"process {ours.id!r} runs no stage: it needs --stage watch")
    elif ours.wait_socket is None:
        yield ok("manifest", "the agent starts nvattest-hook and serves meanwhile: the ready state is the gate")
    elif ours.wait_socket != _GATE:
        message = f"wait_socket {ours.wait_socket} is not {_GATE}, which exists only while a verdict stands"
        yield bad("manifest", message)
    else:
        if before:
            yield warn("manifest", f"{', '.join(before)} is started before the gate", "put the entry of nvattest first")
        if not (ours.timeout_secs or "").isdecimal() or ours.timeout_secs == "0":
            yield warn("manifest", "wait_socket without timeout_secs: how long the agent waits is its default")
        if root and not os.path.exists(f"{root}/etc/nvattest/bundle.json"):
            message = "the gate waits before there is a network, and the image has no bundle: no guest will ever start"
            yield bad("manifest", message, "build the layer with --bundle")
        else:
            yield ok("manifest", "the agent serves nothing before a verdict stands; it needs a bundle in the image")


def _folders(path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _text(path: str, size: int = _SMALL) -> str:
    return read_start(path, size).decode("utf-8", "replace")


# --- the agent --------------------------------------------------------------------------------------------------------


class Generation(NamedTuple):
    """One way of running hooks.

    Attributes:
        name: the versions, in words.
        first: the first version of it.
        last: the last one that was read, so that a later one is known as later.
        keeps_environment: a hook gets the agent's environment; otherwise an empty one.
        obeys_status: a status other than 0, or a timeout, fails the creation of the container.
        appends: a container whose spec has hooks gets the guest hooks too; otherwise it gets none of them.
        kills: a hook that has not ended after ten seconds is killed; otherwise it runs on beside the container.
        logs_failures: a failure is a line in the kernel log, and so is a good hook whose status the reaper took.
    """

    name: str
    first: tuple[int, int]
    last: tuple[int, int]
    keeps_environment: bool = False
    obeys_status: bool = False
    appends: bool = False
    kills: bool = False
    logs_failures: bool = False

    @property
    def promise(self) -> str:
        """What a hook guarantees under it, in a sentence."""
        if self.obeys_status:
            return "the exit status fails the container where on_failure is block, and the ready state is a gate too"
        dropped = "; a container whose spec has hooks gets none of ours, so the pause run counts"
        return "the exit status is lost, so only the ready state is a gate" + dropped * (not self.appends)


GENERATIONS: Final = (
    Generation("3.0", (0, 0), (3, 0), keeps_environment=True, obeys_status=True, appends=True),
    Generation("3.1 to 3.7", (3, 1), (3, 7), appends=True),
    Generation("3.8 to 3.32", (3, 8), (3, 32)),
    Generation("4.0 and 4.1", (4, 0), (4, 1), kills=True, logs_failures=True),
)
"""From the oldest to the newest."""

_VERSION: Final = re.compile(r"\bkata-agent(?: version)?[ :]+v?(\d{1,4})\.(\d{1,4})\.")
_HARMLESS: Final = (
    'the agent logged "hook failed" and "no exit code": its own reaper took the status first, and it says so of hooks '
    "that did their work too. The verdict is in /run/nvattest/state.json"
)
_LINE: Final = re.compile(r"kata-agent: hook failed: (.*)")


def version_of(text: str) -> tuple[int, int] | None:
    """The version in what ``kata-agent --version`` prints, or None."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found is not None else None


def generation_of(version: tuple[int, int]) -> Generation:
    """How an agent of this version runs hooks; one newer than all that were read counts as the newest."""
    return next(generation for generation in reversed(GENERATIONS) if version >= generation.first)


def kernel_log_failure(line: str) -> tuple[str, str] | None:
    """What a line of the kernel log says of our hook: a severity and a sentence, or None if it is not about it."""
    found = _LINE.search(line)
    if found is None or "nvattest-hook" not in found[1]:
        return None
    said = found[1].lower()
    # "no exit code" is what the agent says where its reaper took the status first, whatever the hook did.
    if "no exit code for hook" in said:
        return "ok", _HARMLESS
    if "timed out" in said or "timedout" in said or "communicate" in said:
        return "error", f"the agent gave the hook up after {AGENT_SECONDS} s and killed it"
    if "exit status with" in said:
        return "warning", "the hook ended with a status other than 0, which the agent logs and ignores"
    return "error", "the agent could not run the hook"


def is_set_ready_at_boot(words: Iterable[str]) -> str:
    """The kernel parameter by which NVRC sets GPUs ready unattested, or "". The last of several counts."""
    ready = [word for word in words if word.partition("=")[0] == READY_PARAMETER]
    if not ready or ready[-1].partition("=")[2].lower() in ("0", "disabled"):
        return ""
    return ready[-1]
