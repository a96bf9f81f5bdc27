"""``nvattest gate -- COMMAND``: run a command only on attested devices, as the first word of an entry point.

It attests as the hook does, with the same configuration and outputs: only a good verdict sets the GPUs ready and lets
the command take this process's place. A current verdict of the hook is used; a container that sees another
``/run/nvattest`` asks the devices itself.
"""

from __future__ import annotations

import argparse

from nvattest.cli.arguments import REQUIRED, ArgumentError, add_command, command_of
from nvattest.cli.hook import add_guest_options, guest_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command, after ``--``."""
    parser.usage = "nvattest gate [options] -- COMMAND [ARGUMENT ...]"
    add_guest_options(parser)
    add_command(parser, "what to run on attested devices")


def run(options: argparse.Namespace) -> int:
    """Attest; then become the command, or return the hook's exit status (see ``nvattest.guest.record``)."""
    from nvattest._system import require_linux

    require_linux("a gate")
    from nvattest.guest.arguments import Termination
    from nvattest.guest.entry import run_on_attested

    command = command_of(options)
    if not any(command[:1]):
        raise ArgumentError("gate: a command is required, after --", REQUIRED)
    paths = guest_paths(options.root, options.config)
    with Termination() as termination:
        return run_on_attested(paths, command, termination=termination)
