"""The parsers of all commands as plain data, for shell completion and man pages."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nvattest.cli.arguments import Parser, add_global_options

# What follows from the word that stands for a value in the help.
_FILES: Final = frozenset({"FILE", "PEM", "JWKS", "POLICY", "PATH", "KEY", "FILE|CODE|CHECK"})
_FOLDERS: Final = frozenset({"DIR", "FOLDER"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One option or positional argument. ``takes`` is ``""`` (no value), ``word``, ``file`` or ``folder``."""

    names: tuple[str, ...]
    metavar: str
    takes: str
    words: tuple[str, ...]
    help: str
    repeats: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command, or one action of a command (``bundle create``)."""

    path: tuple[str, ...]
    help: str
    arguments: tuple[Argument, ...]
    actions: tuple[Command, ...]

    @property
    def options(self) -> tuple[Argument, ...]:
        """The arguments that have a name."""
        return tuple(argument for argument in self.arguments if argument.names)


def command_parser(name: str, module: str, text: str) -> Parser:
    """The parser of one command, as ``nvattest NAME`` uses it."""
    parser = Parser(prog=f"nvattest {name}", description=text)
    importlib.import_module(module).add_arguments(parser)
    add_global_options(parser)
    return parser


def all_commands() -> tuple[Command, ...]:
    """Every command with its options and actions."""
    from nvattest.cli.dispatch import COMMANDS

    return tuple(
        _command((name,), text, command_parser(name, module, text)) for name, (module, text) in COMMANDS.items()
    )


def _command(path: tuple[str, ...], text: str, parser: argparse.ArgumentParser) -> Command:
    arguments = []
    actions: list[Command] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            actions += [_command((*path, name), helps.get(name, ""), sub) for name, sub in action.choices.items()]
        elif action.help != argparse.SUPPRESS:
            arguments.append(_argument(action))
    return Command(path=path, help=text, arguments=tuple(arguments), actions=tuple(actions))


def _argument(action: argparse.Action) -> Argument:
    flag = action.nargs == 0
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    words = tuple(getattr(action.type, "words", ())) or tuple(str(word) for word in action.choices or ())
    takes = "" if flag else "file" if metavar in _FILES else "folder" if metavar in _FOLDERS else "word"
    return Argument(
        names=tuple(action.option_strings),
        metavar="" if flag else metavar,
        takes=takes,
        words=words,
        help=" ".join((action.help or "").replace("%%", "%").split()),
        repeats=isinstance(action, argparse._AppendAction),  # noqa: SLF001
    )


def walk(commands: tuple[Command, ...]) -> Iterator[Command]:
    """Commands and, behind each, its actions."""
    for command in commands:
        yield command
        yield from walk(command.actions)
