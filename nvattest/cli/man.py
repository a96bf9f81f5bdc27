"""Man pages from the parsers: ``python -m nvattest.cli.man FOLDER`` writes ``nvattest.1`` and one page per command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from nvattest._version import __version__
from nvattest.cli.output import say, write_file
from nvattest.cli.parsers import Argument, Command, all_commands, walk

_TOP = (
    "nvattest verifies the evidence of NVIDIA GPUs and NVSwitches with confidential computing: signatures, certificate "
    "chains, revocation, and measurements against NVIDIA's signed golden values."
)


def pages() -> dict[str, str]:
    """All pages by file name."""
    commands = all_commands()
    found = {"nvattest.1": _main(commands)}
    for command in commands:
        found[f"nvattest-{command.path[0]}.1"] = _page(command)
    return found


def escape(text: str) -> str:
    """Text for roff: no line of it may begin a request, no sign of it be one."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in lines)


def _head(name: str, what: str) -> list[str]:
    return [
        f'.TH {escape(name.upper())} 1 "" "nvattest {__version__}" "User Commands"',
        ".SH NAME",
        f"{escape(name)} \\- {escape(what)}",
        ".SH SYNOPSIS",
    ]


def _main(commands: tuple[Command, ...]) -> str:
    lines = [*_head("nvattest", "verify NVIDIA confidential GPUs and NVSwitches")]
    lines += [".B nvattest", "[\\fIoptions\\fR] \\fICOMMAND\\fR ...", ".SH DESCRIPTION", escape(_TOP), ".SH COMMANDS"]
    for command in commands:
        lines += [".TP", f".BR nvattest\\-{escape(command.path[0])} (1)", escape(command.help)]
    lines += [
        ".SH EXIT STATUS",
        (
            "NVIDIA's result code modulo 256: 0 for trusted, 12 for not trusted. 104 to 114 also stand for wrong "
            "arguments."
        ),
        "\\fBnvattest explain\\fR \\fICODE\\fR says what a code means.",
    ]
    return "\n".join(lines) + "\n"


def _page(command: Command) -> str:
    lines = _head(f"nvattest-{command.path[0]}", command.help)
    lines += [f".B nvattest {escape(command.path[0])}"]
    if command.actions:
        lines.append("\\fIACTION\\fR")
    lines += ["[\\fIoptions\\fR]", *(f"[\\fI{escape(a.metavar)}\\fR]" for a in command.arguments if not a.names)]
    lines += [".SH DESCRIPTION", escape(command.help[:1].upper() + command.help[1:] + ".")]
    lines += [".SH OPTIONS", *_arguments(command)]
    if command.actions:
        lines.append(".SH ACTIONS")
        for action in walk(command.actions):
            lines += [f".SS {escape(' '.join(action.path[1:]))}", escape(action.help), *_arguments(action)]
    if command.path == ("hook",):
        lines += _program()
    lines += [".SH SEE ALSO", ".BR nvattest (1)"]
    return "\n".join(lines) + "\n"


def _program() -> list[str]:
    """The program whose name the page of ``nvattest hook`` has; it has none of its own."""
    from nvattest.kata.arguments import USAGE
    from nvattest.kata.outcome import EXIT

    statuses = ", ".join(f"{status} {cause}" for cause, status in EXIT.items())
    lines = [".SH THE PROGRAM NVATTEST\\-HOOK", ".nf", *(escape(line) for line in USAGE.splitlines()), ".fi", ".PP"]
    return [
        *lines,
        escape(f"Exit status: {statuses}. A hook whose attestation failed ends with 0 unless on_failure is block."),
    ]


def _arguments(command: Command) -> list[str]:
    lines = []
    for argument in command.arguments:
        lines += [".TP", _term(argument), escape(argument.help) or "\\&"]
    return lines


def _term(argument: Argument) -> str:
    metavar = f" \\fI{escape(argument.metavar)}\\fR" if argument.metavar else ""
    if not argument.names:
        return metavar.strip()
    return ", ".join(f"\\fB{escape(name)}\\fR" for name in argument.names) + metavar


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages into the folder that is named."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        say("usage: python -m nvattest.cli.man FOLDER", error=True)
        return 106
    os.makedirs(arguments[0], exist_ok=True)
    for name, page in pages().items():
        write_file(os.path.join(arguments[0], name), page)
        say(os.path.join(arguments[0], name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
