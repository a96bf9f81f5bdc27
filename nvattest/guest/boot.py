"""What a Kata guest was booted with, as far as it decides what the hook is worth.

That is the kernel's command line, the extension images with coco's manifest, and the agent. Nothing here is about
attestation. The host wrote most of it, and what it wrote is in the guest's measurement.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from nvattest.errors import InputError
from nvattest.guest.agents import generation_of, version_of
from nvattest.guest.extension import parse_verity_params
from nvattest.guest.findings import Finding, note
from nvattest.guest.manifest import MANIFEST, manifest_findings, our_process, read_manifest
from nvattest.guest.paths import Paths

__all__ = ["READY_PARAMETER", "boot_findings", "is_set_ready_at_boot", "parameters_of"]

READY_PARAMETER: Final = "nvrc.smi.srs"
_SMALL: Final = 1024 * 1024
_LEVELS: Final = {"none": 0, "attestation-agent": 1, "confidential-data-hub": 2, "api-server-rest": 3}
_VERITY: Final = re.compile(r"kata\.extension\.([A-Za-z0-9_-]+)\.verity_params")
# What Kata's configurations for confidential NVIDIA guests have had since 3.23.
_WANTED: Final = ("cgroup_no_v1=all", "pci=realloc", "pci=nocrs", "pci=assign-busses")
# GPUs and switches that NVRC starts a guest with; it powers all others off.
_ANY_GPUS: Final = -1
_TOPOLOGIES: Final = ((_ANY_GPUS, 0), (8, 4), (0, 4))
_AGENT_SECONDS: Final = 5.0


def boot_findings(paths: Paths, *, gpus: int, switches: int) -> Iterator[Finding]:
    """Every check, good or bad; nothing is changed. ``gpus`` and ``switches`` are those on the bus."""
    words = parameters_of(paths)
    extensions = _folders(paths.at(Paths.EXTENSIONS))
    if extensions:
        # NVRC mounts these, and nothing else does.
        yield from _kernel_parameters(words, extensions)
        yield from _mounts(paths, extensions)
        if not any((gpus if wanted == _ANY_GPUS else wanted, few) == (gpus, switches) for wanted, few in _TOPOLOGIES):
            message = f"{gpus} GPUs and {switches} switches are none of the sets that NVRC starts a guest with"
            yield note("topology", "error", message, "1 to 16 GPUs without switches, or 8 GPUs and 4 switches")
    if "coco" in extensions:
        yield from _manifest(paths, words)
    yield from _agent(paths)


def parameters_of(paths: Paths) -> list[str]:
    """The words of the kernel's command line."""
    return _read(paths.command_line).decode("utf-8", "replace").split()


def is_set_ready_at_boot(words: list[str]) -> str:
    """The parameter by which NVRC sets GPUs ready unattested, or "". The last of several counts."""
    ready = [word for word in words if word.partition("=")[0] == READY_PARAMETER]
    if not ready or ready[-1].partition("=")[2].lower() in ("0", "disabled"):
        return ""
    return ready[-1]


def _kernel_parameters(words: list[str], extensions: list[str]) -> Iterator[Finding]:
    lost = [word for word in _WANTED if word not in words]
    if lost:
        message = f"the kernel's command line has not {' '.join(lost)}, which the shipped configurations have"
        hint = "a drop-in with kernel_params takes the place of all that the base has; nvattest hook lint compares"
        yield note("kernel-params", "warning", message, hint)
    else:
        yield note("kernel-params", "ok", "the kernel's command line has the parameters of the shipped configurations")
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        match = _VERITY.fullmatch(name)
        if match is not None:
            found[match[1]] = value.strip('"')
    for name in sorted({*found, *extensions}):
        if name not in found:
            message = f"extension {name} is mounted, and its hash is not on the kernel's command line: it is unmeasured"
            yield note("extension", "error", message)
            continue
        try:
            parse_verity_params(found[name])
        except InputError as error:
            yield note("extension", "error", f"extension {name}: {error.message}")
            continue
        if name not in extensions:
            yield note("extension", "error", f"extension {name} is on the kernel's command line and is not mounted")


def _mounts(paths: Paths, extensions: list[str]) -> Iterator[Finding]:
    mounted = {}
    for line in _read(paths.at("/proc/mounts")).decode("utf-8", "replace").splitlines():
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
            yield note("extension", "error", message, "what is read there is not covered by dm-verity")
        else:
            yield note("extension", "ok", f"{place} is read through dm-verity")


def _manifest(paths: Paths, words: list[str]) -> Iterator[Finding]:
    root = paths.at(f"{Paths.EXTENSIONS}/coco")
    data = _read(f"{root}/{MANIFEST}")
    source = f"{Paths.EXTENSIONS}/coco/{MANIFEST}"
    named = [word.partition("=")[2] for word in words if word.partition("=")[0] == "agent.guest_components_procs"]
    level = _LEVELS.get(named[-1], 3) if named else 3
    yield from manifest_findings(data, source=source, root=root, level=level or 3)
    try:
        ours = our_process(read_manifest(data).processes)
    except InputError:
        return
    if ours is not None and level == 0:
        message = (
            "agent.guest_components_procs=none on the kernel's command line: the agent does not start nvattest-hook"
        )
        yield note("manifest", "error", message, "the host wrote it; a relying party finds it in the measurement")


def _agent(paths: Paths) -> Iterator[Finding]:
    path = paths.at(Paths.AGENT)
    head = _read(path, 4)
    if not head:
        return
    if head != b"\x7fELF":
        text = _read(path)
        ours = b"--stage init" in text and Paths.AGENT.encode() in text
        message = f"{Paths.AGENT} is a script: NVIDIA's guest has no shell for it"
        if ours:
            message = f"{Paths.AGENT} is a step of init that starts {Paths.AGENT}: itself, for ever"
        yield note("agent", "error", message, "examples/init/agent-step.c is a native program for this place")
        return
    version = version_of(_printed(path))
    if version is None:
        message = f"{Paths.AGENT} does not say its version: what a hook can promise here is not known"
        yield note("agent", "warning", message, "examples/kata/README.md has it by version")
        return
    generation = generation_of(version)
    later = ", later than those that were looked at" if version > generation.last else ""
    yield note("agent", "ok", f"kata-agent {version[0]}.{version[1]}{later}: {generation.promise}")


def _printed(path: str) -> str:
    import subprocess

    try:
        done = subprocess.run(
            [path, "--version"],
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_AGENT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout[:4096].decode("utf-8", "replace")


def _folders(path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _read(path: str, size: int = _SMALL) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        with os.fdopen(descriptor, "rb") as file:
            return file.read(size) or b""
    except OSError:
        return b""
