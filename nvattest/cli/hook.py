"""``nvattest hook status`` and ``nvattest hook check``: what the guest hook did, and what keeps it from doing it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nvattest.cli.arguments import VALIDATION, ArgumentError, choice

if TYPE_CHECKING:
    from nvattest.kata.paths import Paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The action and where to look."""
    parser.usage = "nvattest hook status|check [options]"
    parser.add_argument(
        "action", type=choice("status", "check"), metavar="ACTION",
        help="status: the last verdict and the ready state; check: what silently keeps the hook from working",
    )  # fmt: skip
    parser.add_argument(
        "--hook-path",
        default="/usr/share/oci/hooks",
        metavar="DIR",
        help="the guest_hook_path of the Kata configuration",
    )
    add_guest_options(parser)


def add_guest_options(parser: argparse.ArgumentParser) -> None:
    """Where the guest and its configuration are; ``guest_paths`` reads them."""
    parser.add_argument(
        "--config", default="", metavar="FILE",
        help="the configuration in the place of /etc/nvattest/hook.toml, as nvattest-hook is given it",
    )  # fmt: skip
    parser.add_argument("--root", default="", metavar="DIR", help="put DIR before every path of the guest")


def guest_paths(options: argparse.Namespace) -> Paths:
    """The places that the options name."""
    from nvattest.kata.paths import Paths

    if options.config and not options.config.startswith("/"):
        raise ArgumentError(f"--config: expected an absolute path, found {options.config!r}", VALIDATION)
    return Paths(options.root, options.config)


def run(options: argparse.Namespace) -> int:
    """Print the facts; 0 if all is well: a verdict that stands, or no check with an error."""
    from nvattest.kata.commands import print_check, print_status

    paths = guest_paths(options)
    if options.action == "check":
        return print_check(paths, options.hook_path, options.format)
    return print_status(paths, options.format)
