"""What is written from the parsers: completion scripts (``nvattest completion``) and man pages.

``python -m nvattest.cli.manual FOLDER`` writes ``nvattest.1`` and one page per command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nvattest._package import __version__
from nvattest.cli import ANY_STATUS, COMMANDS, STATUSES, command_parser
from nvattest.cli.arguments import TAKES, choice
from nvattest.cli.output import say, write_file
from nvattest.guest.arguments import USAGE
from nvattest.guest.record import EXIT


class Argument(NamedTuple):
    """One option or positional argument. ``takes`` is ``""`` (no value), ``word``, ``file`` or ``folder``."""

    names: tuple[str, ...]
    metavar: str
    takes: str
    words: tuple[str, ...]
    help: str
    repeats: bool


class Command(NamedTuple):
    """One command, or one action of a command (``bundle create``)."""

    path: tuple[str, ...]
    help: str
    arguments: tuple[Argument, ...]
    actions: tuple[Command, ...]


def all_commands() -> tuple[Command, ...]:
    """Every command with its options and actions."""
    return tuple(_command((name,), text, command_parser(name)) for name, (_, text) in COMMANDS.items())


def _command(path: tuple[str, ...], text: str, parser: argparse.ArgumentParser) -> Command:
    arguments: list[Argument] = []
    actions: list[Command] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            # An action without a help is one that the program starts for itself.
            shown = action._choices_actions  # noqa: SLF001
            actions += [_command((*path, item.dest), item.help or "", action.choices[item.dest]) for item in shown]
        elif action.help != argparse.SUPPRESS:
            arguments.append(_argument(action))
    return Command(path, text, tuple(arguments), tuple(actions))


def _argument(action: argparse.Action) -> Argument:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    words = tuple(getattr(action.type, "words", ())) or tuple(str(word) for word in action.choices or ())
    text = " ".join((action.help or "").replace("%%", "%").split())
    repeats = isinstance(action, argparse._AppendAction)  # noqa: SLF001
    if action.nargs == 0:
        return Argument(tuple(action.option_strings), "", "", words, text, repeats)
    return Argument(tuple(action.option_strings), metavar, TAKES.get(metavar, "word"), words, text, repeats)


def walk(commands: tuple[Command, ...]) -> Iterator[Command]:
    """Each command, followed by its actions."""
    for command in commands:
        yield command
        yield from walk(command.actions)


# --- completion -------------------------------------------------------------------------------------------------------

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell; the epilog says how to load the script."""
    parser.add_argument("shell", type=choice(*SHELLS), metavar="SHELL", help="bash, zsh or fish")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "bash:  source <(nvattest completion bash)\n"
        'zsh:   nvattest completion zsh > "${fpath[1]}/_nvattest"\n'
        "fish:  nvattest completion fish > ~/.config/fish/completions/nvattest.fish"
    )


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    print(script(options.shell))
    return 0


def script(shell: str) -> str:
    """The completion script for one shell."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](all_commands())


def _bash(commands: tuple[Command, ...]) -> str:
    cases: list[str] = []
    values: dict[str, str] = {}
    for command in walk(commands):
        words = [action.path[-1] for action in command.actions]
        for argument in command.arguments:
            words += argument.names or argument.words
            if argument.takes:
                for name in argument.names:
                    values.setdefault(name, _bash_value(argument))
        cases.append(f'        "{" ".join(command.path)}") words="{" ".join(words)}" ;;')
    grouped = "|".join(command.path[0] for command in commands if command.actions) or "-"
    return "\n".join(
        [
            "# bash completion for nvattest",
            "_nvattest() {",
            '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"',
            '    local path="" words="" index',
            "    COMPREPLY=()",
            '    case "$previous" in',
            *(f"        {name}) {action}; return ;;" for name, action in values.items()),
            "    esac",
            "    for ((index = 1; index < COMP_CWORD; index++)); do",
            '        case "${COMP_WORDS[index]}" in',
            "            -f|--format|-l|--log-level) ((index++)) ;;",
            "            -*) ;;",
            '            *) if [ -z "$path" ]; then path="${COMP_WORDS[index]}"',
            f'               else case "$path" in {grouped}) path="$path ${{COMP_WORDS[index]}}" ;; esac; break; fi ;;',
            "        esac",
            "    done",
            '    case "$path" in',
            f'        "") words="{" ".join(command.path[0] for command in commands)} --format --log-level --help" ;;',
            *cases,
            "    esac",
            '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
            '    if [ -z "${COMPREPLY[*]}" ] && [ "${current#-}" = "$current" ]; then',
            '        COMPREPLY=($(compgen -f -- "$current"))',
            "    fi",
            "}",
            "# Faults have a colon in their names.",
            "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}",
            "complete -o filenames -F _nvattest nvattest",
        ]
    )


def _bash_value(option: Argument) -> str:
    if option.words:
        return f'COMPREPLY=($(compgen -W "{" ".join(option.words)}" -- "$current"))'
    kind = {"file": "-f", "folder": "-d"}.get(option.takes, '-W ""')
    return f'COMPREPLY=($(compgen {kind} -- "$current"))'


def _quoted(text: str) -> str:
    return text.replace("'", "").replace("[", "(").replace("]", ")").replace(":", " -")


def _zsh(commands: tuple[Command, ...]) -> str:
    names = " ".join(f"'{command.path[0]}:{_quoted(command.help)}'" for command in commands)
    lines = [
        "#compdef nvattest",
        "_nvattest() {",
        "    local state",
        "    _arguments -C '1: :->command' '*:: :->rest'",
        "    case $state in",
        f"        command) local -a commands=({names}); _describe 'command' commands ;;",
        "        rest) case $words[1] in",
    ]
    for command in commands:
        if command.actions:
            inner = " ".join(f"'{action.path[-1]}:{_quoted(action.help)}'" for action in command.actions)
            first = f"if (( CURRENT == 2 )); then local -a actions=({inner}); _describe 'action' actions"
            lines += [
                f"            {command.path[0]}) {first}",
                "                else case $words[2] in",
                *(f"                    {action.path[-1]}) {_zsh_arguments(action)} ;;" for action in command.actions),
                "                esac; fi ;;",
            ]
        else:
            lines.append(f"            {command.path[0]}) {_zsh_arguments(command)} ;;")
    return "\n".join([*lines, "        esac ;;", "    esac", "}", '_nvattest "$@"'])


def _zsh_arguments(command: Command) -> str:
    parts = []
    for argument in command.arguments:
        words, metavar = " ".join(argument.words), _quoted(argument.metavar.lower())
        value = f"({words})" if words else {"file": "_files", "folder": "_files -/"}.get(argument.takes, " ")
        if words and argument.takes == "file":
            value = f'_alternative "files\\:file\\:_files" "words\\:word\\:({words})"'
        tail = f":{metavar}:{value}" if argument.takes else ""
        repeat = "*" if argument.repeats else ""
        parts += [f"'{repeat}{name}[{_quoted(argument.help)}]{tail}'" for name in argument.names] or [f"'*{tail}'"]
    return "_arguments " + " ".join(parts) if parts else ":"


def _fish(commands: tuple[Command, ...]) -> str:
    lines = ["# fish completion for nvattest", "complete -c nvattest -f"]
    known = " ".join(command.path[0] for command in commands)
    none = f"not __fish_seen_subcommand_from {known}"
    lines += [
        f"complete -c nvattest -n '{none}' -a {command.path[0]} -d '{_quoted(command.help)}'" for command in commands
    ]
    for command in walk(commands):
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.path)
        inner = [action.path[-1] for action in command.actions]
        lines += [
            f"complete -c nvattest -n '{condition}; and not __fish_seen_subcommand_from {' '.join(inner)}' "
            f"-a {action.path[-1]} -d '{_quoted(action.help)}'"
            for action in command.actions
        ]
        for argument in command.arguments:
            lines += _fish_argument(argument, condition)
    return "\n".join(lines)


def _fish_argument(argument: Argument, condition: str) -> list[str]:
    value = f" -a '{' '.join(argument.words)}'" if argument.words else ""
    value += {"file": " -F", "folder": " -a '(__fish_complete_directories)'"}.get(argument.takes, "")
    if not argument.names:
        return [f"complete -c nvattest -n '{condition}'{value}"] if value else []
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in argument.names]
    requires = {"": "", "word": " -x"}.get(argument.takes, " -r")
    line = f"complete -c nvattest -n '{condition}' {' '.join(sorted(names))}{requires}{value}"
    return [f"{line} -d '{_quoted(argument.help)}'"]


# --- man pages --------------------------------------------------------------------------------------------------------

_TOP = (
    "nvattest verifies the evidence of NVIDIA GPUs and NVSwitches with confidential computing: signatures, certificate "
    "chains, revocation, and measurements against NVIDIA's signed golden values."
)


def pages() -> dict[str, str]:
    """All pages by file name."""
    commands = all_commands()
    return {"nvattest.1": _main(commands)} | {f"nvattest-{item.path[0]}.1": _page(item) for item in commands}


def escape(text: str) -> str:
    """Text for roff, in which no line begins a request and no character is an escape."""
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
        "NVIDIA's result code modulo 256: 0 for trusted, 12 for not trusted. 104 to 114 also mean wrong arguments.",
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
    lines += [".SH EXIT STATUS"]
    for status, meaning in (*STATUSES[command.path[0]], *ANY_STATUS):
        lines += [".TP", f"\\fB{escape(status or 'others')}\\fR", escape(meaning)]
    lines += [".SH SEE ALSO", ".BR nvattest (1)"]
    return "\n".join(lines) + "\n"


def _program() -> list[str]:
    """``nvattest-hook`` has no page of its own: it stands in that of ``nvattest hook``, whose name man looks for."""
    statuses = ", ".join(f"{status} {cause}" for cause, status in EXIT.items())
    lines = [".SH THE PROGRAM NVATTEST\\-HOOK", ".nf", *(escape(line) for line in USAGE.splitlines()), ".fi", ".PP"]
    end = "A hook whose attestation failed ends with 0 unless on_failure is block."
    return [*lines, escape(f"Exit status: {statuses}. {end}")]


def _arguments(command: Command) -> list[str]:
    lines = []
    for argument in command.arguments:
        metavar = f"\\fI{escape(argument.metavar)}\\fR" if argument.metavar else ""
        names = ", ".join(f"\\fB{escape(name)}\\fR" for name in argument.names)
        lines += [".TP", f"{names} {metavar}".strip(), escape(argument.help) or "\\&"]
    return lines


def share() -> dict[str, str]:
    """The man pages and completion scripts by their places below a prefix such as ``/usr``."""
    return {f"share/man/man1/{name}": page for name, page in pages().items()} | {
        "share/bash-completion/completions/nvattest": script("bash"),
        "share/zsh/site-functions/_nvattest": script("zsh"),
        "share/fish/vendor_completions.d/nvattest.fish": script("fish"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages into the folder of the only argument."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        say("usage: python -m nvattest.cli.manual FOLDER", error=True)
        return 106
    os.makedirs(arguments[0], exist_ok=True)
    for name, page in pages().items():
        write_file(os.path.join(arguments[0], name), page)
        say(os.path.join(arguments[0], name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
