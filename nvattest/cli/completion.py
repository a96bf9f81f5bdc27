"""``nvattest completion bash|zsh|fish``: a script for the shell, written from the parsers."""

from __future__ import annotations

import argparse

from nvattest.cli.arguments import choice
from nvattest.cli.parsers import Argument, Command, all_commands, walk

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell, and how to use what is printed."""
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
    commands = all_commands()
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)


def _topics() -> list[str]:
    from nvattest.report.catalogue import entries

    return [entry.key for entry in entries()]


def _bash(commands: tuple[Command, ...]) -> str:
    cases, values = [], []
    for command in walk(commands):
        words = [action.path[-1] for action in command.actions]
        words += [name for option in command.options for name in option.names]
        words += _topics() if command.path == ("explain",) else []
        words += [word for argument in command.arguments if not argument.names for word in argument.words]
        cases.append(f'        "{" ".join(command.path)}") words="{" ".join(words)}" ;;')
    seen: dict[str, str] = {}
    for command in walk(commands):
        for option in command.options:
            for name in option.names:
                if option.takes and name not in seen:
                    seen[name] = _bash_value(option)
    values = [f"        {name}) {action}; return ;;" for name, action in seen.items()]
    grouped = "|".join(command.path[0] for command in commands if command.actions) or "-"
    return "\n".join(
        [
            "# bash completion for nvattest",
            "_nvattest() {",
            '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"',
            '    local path="" words="" index',
            "    COMPREPLY=()",
            '    case "$previous" in',
            *values,
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
            lines += [
                (
                    f"            {command.path[0]}) if (( CURRENT == 2 )); then local -a actions=({inner}); "
                    "_describe 'action' actions"
                ),
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
        words = " ".join(argument.words) or (" ".join(_topics()) if argument.metavar == "FILE|CODE|CHECK" else "")
        value = f"({words})" if words else {"file": "_files", "folder": "_files -/"}.get(argument.takes, " ")
        if argument.metavar == "FILE|CODE|CHECK":
            value = f'_alternative "files\\:file\\:_files" "words\\:word\\:({words})"'
        if not argument.names:
            parts.append(f"'*:{_quoted(argument.metavar.lower())}:{value}'")
            continue
        for name in argument.names:
            tail = f":{_quoted(argument.metavar.lower())}:{value}" if argument.takes else ""
            repeat = "*" if argument.repeats else ""
            parts.append(f"'{repeat}{name}[{_quoted(argument.help)}]{tail}'")
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
    words = argument.words or (tuple(_topics()) if argument.metavar == "FILE|CODE|CHECK" else ())
    value = f" -a '{' '.join(words)}'" if words else ""
    files = (
        " -F"
        if argument.takes == "file"
        else " -a '(__fish_complete_directories)'"
        if argument.takes == "folder"
        else ""
    )
    if not argument.names:
        return [f"complete -c nvattest -n '{condition}'{value}{files}"] if value or files else []
    long = [f"-l {name[2:]}" for name in argument.names if name.startswith("--")]
    short = [f"-s {name[1:]}" for name in argument.names if not name.startswith("--")]
    requires = " -x" if argument.takes == "word" else " -r" if argument.takes else ""
    return [
        (
            f"complete -c nvattest -n '{condition}' {' '.join([*long, *short])}{requires}{value}{files} "
            f"-d '{_quoted(argument.help)}'"
        )
    ]
