"""``nvattest doctor``: what this machine is, line by line, what is wrong with it, and what to do about it."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence

from nvattest._version import __version__
from nvattest.cli.arguments import ArgumentError
from nvattest.cli.doctor_probes import FAULT, OK, WARNING, Item, Machine, examine
from nvattest.cli.network import add_tls_options
from nvattest.cli.output import say
from nvattest.cli.terminal import Progress, add_terminal_options, terminal_for

FORMAT = "nvattest-doctor"
VERSION = 1
_WORST = {OK: 0, WARNING: 1, FAULT: 2}
_SUFFIXES = (".tar.gz", ".tgz", ".zip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How far to look, and where to write."""
    parser.add_argument("--online", action="store_true", help="also ask whether NVIDIA's services can be reached")
    parser.add_argument("--json", action="store_true", help="the same as -f json (schema doctor-1.json)")
    parser.add_argument(
        "--bundle", metavar="FILE", help="also write everything into a .tar.gz or .zip for a support ticket; no secrets"
    )
    add_tls_options(parser.add_argument_group("with --online"), checked=False)
    add_terminal_options(parser)


def run(options: argparse.Namespace) -> int:
    """Examine and print; the exit status is 1 if there is a fault."""
    if options.bundle is not None and not options.bundle.endswith(_SUFFIXES):
        raise ArgumentError(f"--bundle: {options.bundle!r} does not end in .tar.gz or .zip", 105)
    machine = Machine()
    with Progress("looking at this machine", quiet=options.log_level == "off") as progress:
        items = examine(machine)
        if options.online:
            from nvattest.cli.doctor_online import SERVICES, reach
            from nvattest.collateral.settings import HttpSettings

            progress.update("asking NVIDIA's services")
            addresses = {
                "RIM service": os.environ.get("NVAT_RIM_SERVICE_BASE_URL") or SERVICES["RIM service"],
                "OCSP service": os.environ.get("NVAT_OCSP_BASE_URL") or SERVICES["OCSP service"],
                "NRAS": os.environ.get("NVAT_NRAS_BASE_URL") or SERVICES["NRAS"],
            }
            items += reach(
                addresses, http=HttpSettings(tls_ca_cert=options.tls_ca_cert, tls_ca_path=options.tls_ca_path)
            )
    from nvattest.model import format_time

    report = report_json(items, at=format_time(machine.clock()))
    if options.json or options.format == "json":
        from nvattest._documents import dump_json

        print(dump_json(report))
    else:
        terminal = terminal_for(color=options.color, width=options.width)
        say(render(items, terminal), colour=terminal.color)
    if options.bundle is not None:
        from nvattest.cli.doctor_bundle import write_bundle

        names = write_bundle(options.bundle, report, items, machine)
        if not (options.json or options.format == "json"):
            say(f"\n{options.bundle}: {', '.join(names)}. Nothing in it is secret; look before you send it.")
    return 1 if any(item.status == FAULT for item in items) else 0


def report_json(items: Sequence[Item], *, at: str) -> dict[str, object]:
    """The findings as JSON values: the form of ``schemas/doctor-1.json``."""
    worst = max((item.status for item in items), key=_WORST.__getitem__, default=OK)
    return {
        "format": FORMAT,
        "version": VERSION,
        "nvattest": __version__,
        "at": at,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "worst": worst,
        "items": [
            {
                "id": item.id,
                "group": item.group,
                "status": item.status,
                "title": item.title,
                "detail": item.detail,
                **({"remedy": item.remedy} if item.remedy else {}),
            }
            for item in items
        ],
    }


def render(items: Sequence[Item], terminal: object) -> str:
    """The findings as text: a line each, remedies below, and the sum at the end."""
    from nvattest._text import clean
    from nvattest.report.terminal import Terminal

    assert isinstance(terminal, Terminal)  # noqa: S101 - only this command calls it
    signs = {OK: ("✓", "+", "good"), WARNING: ("▲", "!", "warn"), FAULT: ("✗", "X", "bad")}
    lines: list[str] = []
    groups = list(dict.fromkeys(item.group for item in items))
    for group in groups:
        lines += [*([""] if lines else []), terminal.paint(group[0].upper() + group[1:], "bold")]
        for item in (item for item in items if item.group == group):
            sign, plain, style = signs[item.status]
            lead = f"  {terminal.sign(sign, plain)} {clean(item.title, 30):<17} "
            first, *rest = terminal.wrap(clean(item.detail), first=lead, rest=" " * 22)
            body = first[len(lead) :]
            mark = terminal.paint(terminal.sign(sign, plain), style)
            word = "" if item.status == OK else terminal.paint(f"{item.status}: ", style)
            if word:
                first, *rest = terminal.wrap(f"{item.status}: {clean(item.detail)}", first=lead, rest=" " * 22)
                body = word + first[len(lead) + len(item.status) + 2 :]
            lines += [f"  {mark} {lead[4:]}{body}", *rest]
            if item.remedy and item.status != OK:
                lines += [
                    terminal.paint(line, "dim") for line in terminal.wrap(clean(item.remedy), first=" " * 22 + "-> ")
                ]
    faults = sum(item.status == FAULT for item in items)
    warnings = sum(item.status == WARNING for item in items)
    total = f"{faults} {'fault' if faults == 1 else 'faults'}, {warnings} {'warning' if warnings == 1 else 'warnings'}"
    lines += ["", terminal.paint(total, "bold", "bad" if faults else "warn" if warnings else "good")]
    return terminal.finish(lines)
