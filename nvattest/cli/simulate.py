"""``nvattest simulate``: a confidential platform without the hardware, for one command or until it is stopped."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

from nvattest._text import decimal
from nvattest.cli.arguments import (
    ArgumentError,
    add_command,
    add_options,
    choice,
    command_of,
    fault_names,
    flag,
    option,
    platform_names,
    read,
    suggested,
)
from nvattest.cli.output import say
from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.testing import SimulatedGuest
    from nvattest.testing.world import World

_SECONDS_TO_END = 5.0


def _seed(text: str) -> int:
    if (seed := decimal(text, 9)) is None:
        raise InputError("a seed is a number of up to nine digits", code="seed")
    return seed


def _latency(text: str) -> tuple[str, float]:
    from nvattest.testing.services import SERVICES

    service, _, seconds = text.partition("=")
    try:
        value = float(seconds)
    except ValueError:
        value = -1.0
    if service not in SERVICES or not 0 <= value <= 3600:
        raise InputError(f"write SERVICE=SECONDS; services are {', '.join(SERVICES)}", code="latency")
    return service, value


class Simulation(NamedTuple):
    """What is simulated, what is wrong with it, and the command that runs in it."""

    command: Sequence[str]
    platform: str = option("NAME", "see --list", suggested(platform_names), "hopper-8-ppcie")
    driver_version: str | None = option("VERSION", "the driver's version, such as 620.12")
    nvdec0: str | None = option(
        "{on,off}", "the NVDEC0 engine of all GPUs; off on a single Hopper by default", choice("on", "off")
    )
    seed: int = option("N", "other devices, other keys", _seed, 0)
    fault: Sequence[str] = option(
        "TARGET:LIE", "a lie, such as gpu0:measurement=9", suggested(fault_names), [], many=True
    )
    driver_fault: Sequence[str] = option(
        "CALL=FAULT", "a fault of a driver call, such as nvmlInit=9 or nvmlDeviceGetName@2=hang; see --list",
        default=[], many=True,
    )  # fmt: skip
    service_fault: Sequence[str] = option("SERVICE:FAULT", "a fault of a service", default=[], many=True)
    latency: Sequence[tuple[str, float]] = option(
        "SERVICE=SECONDS", "how long a service takes to answer, such as ocsp=0.2", _latency, [], many=True
    )
    service_key: str = option("KEY", "refuse requests without this service key, as a bearer token", default="")
    hook: bool = flag("run nvattest-hook in a simulated guest; COMMAND is its arguments (--stage init, then status)")
    root: str | None = option("DIR", "with --hook: an empty folder for the guest's files, which then stay")
    guest: str | None = option("GUEST", "Intel's or AMD's service knows the CPU of this guest, such as snp-genoa")
    guest_files: str | None = option(
        "DIR", "with --guest: write its maker's root and collateral, and a policy that counts this guest alone, here"
    )
    list: bool = flag("list the platforms and faults, and end")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "nvattest simulate [options] [-- COMMAND ...]"
    add_options(parser, Simulation)
    add_command(parser, "the command to run in the simulated world")


def run(options: argparse.Namespace) -> int:
    """Run the command in the world and return its exit status, or stay up until interrupted."""
    request = read(Simulation, options, command=command_of(options))
    command = request.command
    if request.list:
        if command:
            raise ArgumentError(f"--list runs no command: {' '.join(command)}")
        say(_catalogue())
        return 0
    if request.root is not None and not request.hook:
        raise ArgumentError("--root is the folder of the guest of --hook")
    lies = [text for text in request.fault if text.startswith("guest:")]
    for name, value in (("--guest-files", request.guest_files), ("--fault", lies[0] if lies else None)):
        if value is not None and request.guest is None:
            raise ArgumentError(f"{name}: {value} is about a guest: it needs --guest")
    from nvattest._system import require_linux

    require_linux("a simulated world")
    from nvattest.testing.platform import Platform
    from nvattest.testing.world import World

    clock = datetime.now(timezone.utc)
    guest = _guest(request, lies, clock)
    platform = Platform.build(
        request.platform,
        seed=request.seed,
        clock=clock,
        driver_version=request.driver_version,
        nvdec0=None if request.nvdec0 is None else request.nvdec0 == "on",
        lies=[text for text in request.fault if text not in lies],
    )
    # SIGTERM ends the world as an interrupt does, so that its files and processes are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with World(
        platform,
        driver_faults=request.driver_fault,
        service_faults=request.service_fault,
        delay=dict(request.latency),
        service_key=request.service_key,
        guest=guest,
    ) as world:
        if request.hook:
            return _run_hook(world, command, request.root)
        if command:
            return _run_command(command, world.environment())
        for name in world.foreign_variables(os.environ):
            print(f"unset {name}")
        for name, value in sorted(world.variables().items()):
            print(f"export {name}={shlex.quote(value)}")
        sys.stdout.flush()
        devices = " --device all" if platform.switches else ""
        say(
            f"# {platform.name} ({len(platform.gpus)} GPU, {len(platform.switches)} NVSwitch) is simulated until you "
            f"press Ctrl-C; paste the lines above into another shell and run: nvattest attest{devices}",
            error=True,
        )
        while True:
            signal.pause()


def _guest(request: Simulation, lies: Sequence[str], clock: datetime) -> SimulatedGuest | None:
    """The guest that ``attest --simulate --bind-tee`` has, and its files."""
    if request.guest is None:
        return None
    from nvattest.testing import SimulatedGuest

    guest = SimulatedGuest(request.guest, clock=clock, lies=lies)
    if request.guest_files is not None:
        try:
            guest.write(request.guest_files)
        except OSError as error:
            raise InputError(f"--guest-files: {error.strerror or error}", code="file") from None
    return guest


def _run_hook(world: World, words: Sequence[str], root: str | None) -> int:
    import tempfile

    from nvattest.testing.world import GuestFolder

    with nullcontext(root) if root else tempfile.TemporaryDirectory(prefix="nvattest-guest-") as folder:
        guest = GuestFolder(folder, world.platform, world.libraries, address=world.driver.address)
        # As a Kata agent starts it, with an empty environment; the folder may be mounted without the right to execute.
        program = [sys.executable, "-I", guest.hook_path]
        if words:
            return _run_command([*program, *words], {})
        status = _run_command([*program, "--stage", "init"], {})
        _run_command([*program, "status"], {})
        return status


def _run_command(command: Sequence[str], environment: dict[str, str]) -> int:
    from nvattest.testing.driver import end_with_parent

    try:
        if os.isatty(0) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # The terminal gives Ctrl-C to the command too, which may use it to stop a calculation only. A handler that
            # does nothing, set before the start, is not inherited as SIG_IGN would be.
            signal.signal(signal.SIGINT, lambda _number, _frame: None)
        # The child ends with this process, even if this process is killed.
        with subprocess.Popen(command, env=environment, preexec_fn=end_with_parent()) as process:  # noqa: PLW1509
            try:
                return _status(process.wait())
            except KeyboardInterrupt:
                process.terminate()
                try:
                    return _status(process.wait(_SECONDS_TO_END))
                except (KeyboardInterrupt, subprocess.TimeoutExpired):
                    # It ignores the request, or the user interrupts again: no process may be left behind.
                    process.kill()
                    return _status(process.wait())
    except OSError as error:
        raise InputError(
            f"{command[0][:200]}: {error.strerror or error}", code="command", hint=_meant(command)
        ) from None


def _meant(command: Sequence[str]) -> str:
    """What to write where the command is the name of a platform, or nearly."""
    from nvattest._text import suggestion

    near = suggestion(command[0], tuple(platform_names()), several=False) if len(command) == 1 else ""
    return f"a platform is named with --platform; {near}" if near else ""


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code


def _catalogue() -> str:
    import textwrap

    from nvattest.testing import GUEST_LIES, GUESTS, LIES, PLATFORMS
    from nvattest.testing.driver_answers import CALLS
    from nvattest.testing.services import SERVICES, ServiceFaultKind
    from nvattest.testing.silicon import BRANCHES, MODELS

    lines = ["platforms (MODEL-COUNT[-(spt|mpt|ppcie)][-rBRANCH]), such as:"]
    lines += [f"  {name:16} {text}" for name, text in PLATFORMS.items()]
    lines.append(f"  models {', '.join(MODELS)}; driver branches {', '.join(BRANCHES)}")
    lines.append("faults (TARGET:LIE; targets gpu0, switch1, gpu*, driver-rim, vbios-rim, bios-rim, platform):")
    for spec in LIES:
        targets = "/".join(sorted(scope.value for scope in spec.scopes))
        lines.append(_fault(spec.name, spec.argument, spec.meaning, targets))
    lines.append("guests (nvattest attest --simulate --bind-tee FILE --simulate-guest GUEST; simulate --guest GUEST):")
    lines += [f"  {name:16} {text}" for name, text in GUESTS.items()]
    lines.append("faults of a guest (guest:LIE):")
    lines += [_fault(spec.name, spec.argument, spec.meaning, spec.only or "tdx/snp") for spec in GUEST_LIES]
    lines.append(
        "driver faults (CALL=CODE of NVML, CALL=hang, CALL=delay:SECONDS, CALL=size:N; CALL@2 is that of GPU 2):"
    )
    lines += textwrap.wrap(", ".join(sorted(CALLS)), 100, initial_indent="  ", subsequent_indent="  ")
    services = ", ".join(SERVICES)
    lines.append(
        f"service faults ([SERVICE:]FAULT[=VALUE][@KEY][*TIMES], such as rim:status=500*2; services {services};"
    )
    lines.append("  KEY is a RIM id or the serial number of a certificate in hexadecimal):")
    lines += [_fault(kind.value, kind.argument, kind.meaning, kind.only or "any") for kind in ServiceFaultKind]
    return "\n".join(lines)


def _fault(name: str, argument: str, meaning: str, of: str) -> str:
    # An argument that may be left out stands in brackets.
    if argument.startswith("["):
        name += argument.replace("[", "[=", 1)
    elif argument:
        name += f"={argument}"
    return f"  {name:34} {meaning} ({of})"
