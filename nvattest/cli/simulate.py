"""``nvattest simulate``: a confidential platform without the hardware, for one command or until it is stopped."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from nvattest._text import decimal
from nvattest.cli.arguments import (
    ArgumentError,
    add_command,
    command_of,
    fault_names,
    platform_names,
    suggested,
)
from nvattest.cli.output import say
from nvattest.errors import InputError

if TYPE_CHECKING:
    from datetime import datetime

    from nvattest.testing import SimulatedGuest
    from nvattest.testing.world import World

_SECONDS_TO_END = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is simulated, what is wrong with it, and the command that runs in it."""
    parser.usage = "nvattest simulate [options] [-- COMMAND ...]"
    add_platform_options(parser)
    parser.add_argument(
        "--driver-fault", action="append", default=[], metavar="CALL=FAULT",
        help="a fault of a driver call, such as nvmlInit=9 or nvmlDeviceGetName@2=hang; see --list",
    )  # fmt: skip
    parser.add_argument(
        "--service-fault", action="append", default=[], metavar="SERVICE:FAULT", help="a fault of a service"
    )
    parser.add_argument(
        "--latency", action="append", default=[], type=_latency, metavar="SERVICE=SECONDS",
        help="how long a service takes to answer, such as ocsp=0.2",
    )  # fmt: skip
    parser.add_argument(
        "--service-key", default="", metavar="KEY", help="refuse requests without this service key, as a bearer token"
    )
    parser.add_argument(
        "--hook", action="store_true",
        help="run nvattest-hook in a simulated guest; COMMAND is its arguments (--stage init, then status)",
    )  # fmt: skip
    parser.add_argument(
        "--root", metavar="DIR", help="with --hook: an empty folder for the guest's files, which then stay"
    )
    parser.add_argument(
        "--guest", metavar="GUEST", help="Intel's or AMD's service knows the CPU of this guest, such as snp-genoa"
    )
    parser.add_argument(
        "--guest-files", metavar="DIR",
        help="with --guest: write its maker's root and collateral, and a policy that counts this guest alone, here",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the platforms and faults, and end")
    add_command(parser, "the command to run in the simulated world")


def add_platform_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose a platform and its lies."""
    parser.add_argument(
        "--platform", type=suggested(platform_names), default="hopper-8-ppcie", metavar="NAME", help="see --list"
    )
    parser.add_argument("--driver-version", metavar="VERSION", help="the driver's version, such as 620.12")
    parser.add_argument(
        "--nvdec0", choices=("on", "off"), help="the NVDEC0 engine of all GPUs; off on a single Hopper by default"
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="other devices, other keys")
    parser.add_argument(
        "--fault", action="append", type=suggested(fault_names), default=[], metavar="TARGET:LIE",
        help="a lie, such as gpu0:measurement=9",
    )  # fmt: skip


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


def run(options: argparse.Namespace) -> int:
    """Run the command in the world and return its exit status, or stay up until interrupted."""
    if options.list:
        if words := command_of(options):
            raise ArgumentError(f"--list runs no command: {' '.join(words)}")
        say(_catalogue())
        return 0
    if options.root is not None and not options.hook:
        raise ArgumentError("--root is the folder of the guest of --hook")
    lies = [text for text in options.fault if text.startswith("guest:")]
    for option, given in (("--guest-files", options.guest_files), ("--fault", lies[0] if lies else None)):
        if given is not None and options.guest is None:
            raise ArgumentError(f"{option}: {given} is about a guest: it needs --guest")
    from nvattest._system import require_linux

    require_linux("a simulated world")
    command = command_of(options)
    from datetime import datetime, timezone

    from nvattest.testing.platform import Platform
    from nvattest.testing.world import World

    clock = datetime.now(timezone.utc)
    guest = _guest(options, lies, clock)
    platform = Platform.build(
        options.platform,
        seed=options.seed,
        clock=clock,
        driver_version=options.driver_version,
        nvdec0=None if options.nvdec0 is None else options.nvdec0 == "on",
        lies=[text for text in options.fault if text not in lies],
    )
    # SIGTERM ends the world as an interrupt does, so that its files and processes are removed.
    signal.signal(signal.SIGTERM, _interrupt)
    with World(
        platform,
        driver_faults=options.driver_fault,
        service_faults=options.service_fault,
        delay=dict(options.latency),
        service_key=options.service_key,
        guest=guest,
    ) as world:
        if options.hook:
            return _run_hook(world, command, options.root)
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


def _guest(options: argparse.Namespace, lies: list[str], clock: datetime) -> SimulatedGuest | None:
    """The guest that ``attest --simulate --bind-tee`` has, and its files."""
    if options.guest is None:
        return None
    from nvattest.testing import SimulatedGuest

    guest = SimulatedGuest(options.guest, clock=clock, lies=lies)
    if options.guest_files is not None:
        try:
            guest.write(options.guest_files)
        except OSError as error:
            raise InputError(f"--guest-files: {error.strerror or error}", code="file") from None
    return guest


def _run_hook(world: World, words: list[str], root: str | None) -> int:
    import tempfile
    from contextlib import ExitStack

    from nvattest.testing.world import GuestFolder

    with ExitStack() as stack:
        folder = root or stack.enter_context(tempfile.TemporaryDirectory(prefix="nvattest-guest-"))
        guest = GuestFolder(folder, world.platform, world.libraries, address=world.driver.address)
        # As a Kata agent starts it, with an empty environment; the folder may be mounted without the right to execute.
        program = [sys.executable, "-I", guest.hook_path]
        if words:
            return _run_command([*program, *words], {})
        status = _run_command([*program, "--stage", "init"], {})
        _run_command([*program, "status"], {})
        return status


def _run_command(command: list[str], environment: dict[str, str]) -> int:
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


def _meant(command: list[str]) -> str:
    """What to write where the command is the name of a platform, or nearly."""
    from nvattest._text import suggestion

    near = suggestion(command[0], tuple(platform_names()), several=False) if len(command) == 1 else ""
    return f"a platform is named with --platform; {near}" if near else ""


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


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
        spelled = f"{spec.name}={spec.argument}" if spec.argument else spec.name
        targets = "/".join(sorted(scope.value for scope in spec.scopes))
        lines.append(f"  {spelled:34} {spec.meaning} ({targets})")
    lines.append("guests (nvattest attest --simulate --bind-tee FILE --simulate-guest GUEST; simulate --guest GUEST):")
    lines += [f"  {name:16} {text}" for name, text in GUESTS.items()]
    lines.append("faults of a guest (guest:LIE):")
    for spec in GUEST_LIES:
        spelled = f"{spec.name}={spec.argument}" if spec.argument else spec.name
        lines.append(f"  {spelled:34} {spec.meaning} ({spec.only or 'tdx/snp'})")
    lines.append(
        "driver faults (CALL=CODE of NVML, CALL=hang, CALL=delay:SECONDS, CALL=size:N; CALL@2 is that of GPU 2):"
    )
    lines += textwrap.wrap(", ".join(sorted(CALLS)), 100, initial_indent="  ", subsequent_indent="  ")
    services = ", ".join(SERVICES)
    lines.append(
        f"service faults ([SERVICE:]FAULT[=VALUE][@KEY][*TIMES], such as rim:status=500*2; services {services};"
    )
    lines.append("  KEY is a RIM id or the serial number of a certificate in hexadecimal):")
    for kind in ServiceFaultKind:
        value = kind.argument
        spelled = f"{kind.value}[={value[1:]}" if value.startswith("[") else kind.value + f"={value}" * bool(value)
        lines.append(f"  {spelled:34} {kind.meaning} ({kind.only or 'any'})")
    return "\n".join(lines)
