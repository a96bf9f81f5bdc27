"""``nvattest gate -- COMMAND``: run a command only on attested devices, as the first word of an entry point.

The same attestation as the hook's, with the same configuration and outputs: the GPUs are set ready and the command
takes this process's place only where the verdict is good. A verdict of the hook that stands is used; in a container
that sees another ``/run/nvattest`` the devices are asked here.
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
    from nvattest.guest.entry import run_on_attested
    from nvattest.guest.termination import Termination

    command = command_of(options)
    if not any(command[:1]):
        raise ArgumentError("gate: a command is required, after --", REQUIRED)
    paths = guest_paths(options.root, options.config)
    with Termination() as termination:
        return run_on_attested(paths, command, termination=termination)
