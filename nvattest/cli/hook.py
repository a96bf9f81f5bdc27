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
    paths = guest_paths(options)
    return _check(paths, options) if options.action == "check" else _status(paths, options)


def _status(paths: Paths, options: argparse.Namespace) -> int:
    from nvattest.kata.status import hook_status, is_good, render_status

    status = hook_status(paths)
    if options.format == "json":
        from nvattest._json import dump_json

        print(dump_json(status))
    else:
        print(render_status(status))
    return 0 if is_good(status) else 1


def _check(paths: Paths, options: argparse.Namespace) -> int:
    from nvattest.kata.doctor import check_guest

    findings = check_guest(paths, hook_folder=options.hook_path)
    good = all(item.severity != "error" for item in findings)
    if options.format == "json":
        from nvattest._json import dump_json

        checks = [
            {"id": item.id, "severity": item.severity, "message": item.message, "hint": item.hint} for item in findings
        ]
        print(dump_json({"good": good, "checks": checks}))
    else:
        words = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}
        for item in findings:
            print(f"{words[item.severity]:8}{item.id}: {item.message}")
            if item.hint and item.severity != "ok":
                print(f"        next: {item.hint}")
    return 0 if good else 1
