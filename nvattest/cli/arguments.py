"""Arguments: the parser, which answers mistakes as NVIDIA's tools do, and the requests that commands make of them.

A command declares its request as a named tuple whose fields are options (``option``, ``flag``). ``add_options`` makes
the parser's options from the fields, and ``read`` the request from what was parsed.

The exit codes are those of CLI11, which NVIDIA's ``nvattest`` uses: 104 conversion, 105 validation (a wrong choice, a
file that is not there), 106 something required is missing, 109 an unexpected argument, 114 a missing or surplus value.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from nvattest._text import suggestion
from nvattest.cli.output import say
from nvattest.errors import InputError

CONVERSION, VALIDATION, REQUIRED, UNEXPECTED, VALUES = 104, 105, 106, 109, 114

# The seconds within which a program that writes into a named pipe has to open it.
_WRITER = 2.0

LOG_LEVELS = ("trace", "debug", "info", "warn", "error", "off")
FORMATS = ("text", "json")
# What arguments take, by their metavars.
TAKES: Final = {
    **dict.fromkeys(("FILE", "PEM", "PATH", "FILE|URL", "FILE|CODE|CHECK"), "file"),
    **dict.fromkeys(("DIR", "FOLDER"), "folder"),
}
# The words that CLI11 reads behind the equals sign of a flag, in any case.
_ON, _OFF = ("true", "on", "yes", "enable", "t", "y", "1", "+"), ("false", "off", "no", "disable", "f", "n", "0", "-")

T = TypeVar("T")
Request = TypeVar("Request", bound=NamedTuple)


class ArgumentError(Exception):
    """A wrong argument: its message and the exit status that NVIDIA's tools give it."""

    def __init__(self, message: str, status: int = VALIDATION) -> None:
        super().__init__(message)
        self.status = status


def _columns() -> int:
    try:
        return max(40, int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(1).columns)
    except (ValueError, OSError):
        return 80


class _Noted(argparse.Action):
    """An option that notes that the command line gives it."""

    once = False

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        noted: set[str] = namespace.__dict__.setdefault("_given", set())
        if self.once and option is not None and self.dest in noted:
            raise argparse.ArgumentError(self, "expected one argument, given more than once")
        noted.add(self.dest)
        super().__call__(parser, namespace, values, option)


class _Once(_Noted, argparse._StoreAction):  # noqa: SLF001 - the action of options with a value; it has no public name
    """An option that may be given once, as in CLI11: of ``-d gpu -d nvswitch`` one would silently go unverified."""

    once = True


class _Each(_Noted, argparse._AppendAction):  # noqa: SLF001 - likewise
    """An option that may be repeated."""


class _Flag(_Noted, argparse._StoreTrueAction):  # noqa: SLF001 - likewise
    """A flag."""


class _Unset(argparse.Action):
    """A flag that is given as false: the last word about a flag counts, as in CLI11."""

    def __call__(
        self, _parser: object, namespace: argparse.Namespace, _values: object, _option: str | None = None
    ) -> None:
        namespace.__dict__.setdefault("_given", set()).discard(self.dest)
        setattr(namespace, self.dest, self.default)


# --- the parser -------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that never guesses abbreviations and raises ArgumentError with the right status."""

    def __init__(self, **settings: object) -> None:
        settings.setdefault("allow_abbrev", False)
        # As wide as the terminal; argparse would import shutil at every start to learn the width.
        settings.setdefault("formatter_class", partial(argparse.HelpFormatter, width=_columns() - 2))
        super().__init__(**settings)  # type: ignore[arg-type]
        for name, action in ((None, _Once), ("store", _Once), ("append", _Each), ("store_true", _Flag)):
            self.register("action", name, action)
        # Formats of one command beside the common ones; its add_arguments sets them.
        self.more_formats: tuple[str, ...] = ()
        self._words: list[str] = []

    def parse_known_args(self, *given: Any, **named: Any) -> Any:
        """As argparse does, except that a ``--`` with nothing behind it ends the options and is no argument."""
        self._words = list(given[0]) if given and given[0] is not None else []
        namespace, surplus = super().parse_known_args(*given, **named)
        _require_own_files(self, namespace)
        return namespace, [] if surplus == ["--"] else surplus

    def _parse_optional(self, arg_string: str) -> Any:
        """Read ``--flag=true`` and ``--flag=false`` as CLI11 does; argparse refuses a flag with a value."""
        name, equals, word = arg_string.partition("=")
        action = self._option_string_actions.get(name) if equals and name.startswith("--") else None
        if action is None or action.nargs != 0 or isinstance(action, argparse._HelpAction):  # noqa: SLF001 - no other name
            return super()._parse_optional(arg_string)
        if word.lower() in _ON:
            return super()._parse_optional(name)
        if word.lower() not in _OFF:
            return super()._parse_optional(arg_string)
        opposite = f"--{name[5:]}" if name.startswith("--no-") else f"--no-{name[2:]}"
        if opposite in action.option_strings:
            return super()._parse_optional(opposite)
        unset = _Unset(action.option_strings, action.dest, nargs=0, default=action.default)
        found: Any = super()._parse_optional(name)
        # Since Python 3.12.8 a list of tuples, before that a tuple; the action stands first in each.
        return [(unset, *item[1:]) for item in found] if isinstance(found, list) else (unset, *found[1:])

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; an option that there is not gets the one that it may be meant for."""
        namespace, surplus = self.parse_known_args(args, namespace)
        if surplus:
            evidence = "--gpu-evidence-file" in self._option_string_actions and os.path.isfile(surplus[0])
            near = self._meant(surplus)
            if surplus == ["help"]:
                near = f"; nvattest help{self.prog.removeprefix('nvattest')}, or --help, prints the help"
            elif evidence and not near:
                near = "; evidence is given with --gpu-evidence-file or --nvswitch-evidence-file"
            shown = " ".join(word[:80] for word in surplus[:10])
            if len(surplus) > 10:
                shown += " …"
            self.error(f"unrecognized arguments: {shown}{near}")
        return namespace

    def _meant(self, words: list[str]) -> str:
        """The option that the first unknown one of these words may be meant for."""
        known = tuple(_options(self))
        names = [word.partition("=")[0] for word in words if word.startswith("--")]
        name = next((name for name in names if name not in known), "")
        near = suggestion(name, known, several=False) if name.strip("-") else ""
        return f"; {near}" if near else ""

    def _choices_of(self, message: str) -> str:
        """The words of the required argument, where it is one of a few: the actions of a command, say."""
        for action in self._actions:
            if action.choices and isinstance(action.metavar, str) and message.endswith(f": {action.metavar}"):
                # Actions for the program itself have no help.
                shown = [str(item.dest) for item in getattr(action, "_choices_actions", ())] or map(str, action.choices)
                return f", one of {', '.join(shown)}"
        return ""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Let the functions that convert an argument be any of ours, which raise InputError."""
        try:
            return super()._get_value(action, arg_string)
        except InputError as error:
            hint = f"; {error.hint}" if error.hint else ""
            raise argparse.ArgumentError(action, f"{error}{hint}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the actions of a command, and the nearest, in the same words for every version of Python."""
        if action.choices is not None and value not in action.choices:
            message = _not_one_of(str(value), tuple(map(str, action.choices)))
            if value == "help":
                message += f"; nvattest help{self.prog.removeprefix('nvattest')} prints the help"
            raise argparse.ArgumentError(action, message)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print, and let an error be one: argparse passes over a help that could not be written."""
        if message:
            (file or sys.stderr).write(message)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End with everything written."""
        if sys.stdout is not None:
            sys.stdout.flush()
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        """Turn argparse's message into the status of its kind."""
        if "unrecognized arguments" in message:
            status = UNEXPECTED
        elif "required" in message:
            status = REQUIRED
            message += self._meant(self._words) or self._choices_of(message)
        elif "expected" in message and "argument" in message:
            status = VALUES
        elif re.search(r"invalid (int|float|\w*integer\w*) value|ignored explicit argument", message):
            status = CONVERSION
        else:
            status = VALIDATION
        raise ArgumentError(message, status)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The long options of a parser and of its actions that its help shows."""
    for _, inner in _actions_of(parser):
        yield from _options(inner)
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        if action.help != argparse.SUPPRESS:
            yield from (name for name in action.option_strings if name.startswith("--"))


def _require_own_files(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Require that no ``output_file`` is named by another argument too: one content would be lost."""
    named: list[tuple[str, str]] = []
    for action in sorted(parser._actions, key=lambda action: action.type is output_file):  # noqa: SLF001 - as above
        if TAKES.get(str(action.metavar)) != "file":
            continue
        name = action.option_strings[-1] if action.option_strings else str(action.metavar)
        value = getattr(options, action.dest, None)
        for path in value if isinstance(value, list) else [value]:
            if not path or path == "-":
                continue
            if action.type is output_file:
                for other, used in named:
                    if is_one_file(used, path):
                        raise ArgumentError(f"{name} and {other} are one file: {path}")
            named.append((name, path))


def is_one_file(read: str | int, written: str | int) -> bool:
    """Whether two paths or descriptors are one regular file, or will be."""
    try:
        facts = os.stat(read)
        return stat.S_ISREG(facts.st_mode) and os.path.samestat(facts, os.stat(written))
    except OSError:
        # One of them is not there yet. Where the working folder is gone, writing the file fails, and says its name.
        with suppress(OSError):
            return (
                isinstance(read, str)
                and isinstance(written, str)
                and os.path.realpath(read) == os.path.realpath(written)
            )
        return False


# --- options that several commands have -------------------------------------------------------------------------------


def add_global_options(parser: argparse.ArgumentParser, *, waits: bool = False) -> None:
    """``--log-level`` and ``--format``, which every command has, with NVIDIA's variables for their defaults.

    They may stand behind an action of a command too, so that they are added after its actions.
    """
    formats = FORMATS + (parser.more_formats if isinstance(parser, Parser) else ())
    declared: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("-l", "--log-level"), {
            "type": choice(*LOG_LEVELS), "metavar": "LEVEL",
            "default": from_environment("NVAT_LOG_LEVEL", "info", choice(*LOG_LEVELS)),
            "help": "trace, debug, info, warn, error or off (NVAT_LOG_LEVEL)",
        }),
        (("-f", "--format"), {
            "type": choice(*formats), "metavar": "FORMAT",
            "default": from_environment("NVAT_FORMAT", "text", choice(*FORMATS)),
            "help": f"{', '.join(formats[:-1])} or {formats[-1]} (NVAT_FORMAT)",
        }),
    ]  # fmt: skip
    if waits:
        said = "say what is waited for, also where stderr is no terminal"
        declared.insert(0, (("--progress",), {"action": "store_true", "help": said}))
    actions = [action for _, action in _actions_of(parser)]
    group = parser.add_argument_group("global options")
    for names, settings in declared:
        group.add_argument(*names, **settings)
        for action in actions:
            action.add_argument(*names, **{**settings, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS})


def _actions_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The actions of a command (``bundle create``) by name."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            yield from action.choices.items()


def add_terminal_options(parser: argparse.ArgumentParser) -> None:
    """``--color`` and ``--width``."""
    group = parser.add_argument_group("terminal")
    group.add_argument(
        "--color", type=choice("auto", "always", "never"), default="auto", metavar="WHEN",
        help="auto (the default: on a terminal, unless NO_COLOR is set), always or never",
    )  # fmt: skip
    group.add_argument(
        "--width", type=int, default=None, metavar="COLUMNS", help="columns; 80 where there is no terminal"
    )


def add_command(parser: argparse.ArgumentParser, text: str) -> None:
    """A command to run, as the last argument: it begins at the first word that is no option, usually after ``--``."""
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help=text)


def command_of(options: argparse.Namespace) -> list[str]:
    """The words of the command that ``add_command`` read, or none."""
    words: list[str] = options.command
    return words[1:] if words[:1] == ["--"] else words


# --- types: what an argument may be -----------------------------------------------------------------------------------


def choice(*words: str) -> Callable[[str], str]:
    """A type for argparse: one of these words, which shell completion reads back from its ``words``."""
    return _Words(lambda: words, closed=True)


def suggested(words: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    """A type for argparse: any text. Shell completion offers ``words``, which are asked for when it is written."""
    return _Words(words, closed=False)


class _Words:
    def __init__(self, words: Callable[[], Iterable[str]], *, closed: bool) -> None:
        self._words, self._closed = words, closed

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self._words())

    def __call__(self, text: str) -> str:
        if self._closed and text not in self.words:
            raise argparse.ArgumentTypeError(_not_one_of(text, self.words))
        return text


def _not_one_of(text: str, words: tuple[str, ...]) -> str:
    message = f"{text[:80]!r} is not one of {', '.join(words)}"
    near = suggestion(text, words, several=False)
    return f"{message}; {near}" if near else message


def platform_names() -> Iterable[str]:
    """The simulated platforms, for completion."""
    from nvattest.testing.silicon import PLATFORMS

    return PLATFORMS


def fault_names() -> Iterable[str]:
    """Each lie with one of its targets, for completion."""
    from nvattest.testing.lies import LIES

    targets = {"device": "gpu0", "rim": "driver-rim"}
    for spec in LIES:
        scopes = sorted(scope.value for scope in spec.scopes)
        target = next((targets[scope] for scope in scopes if scope in targets), scopes[0])
        yield f"{target}:{spec.name}"


def seconds(text: str) -> float:
    """A type for argparse: a time span in seconds, above zero, at most a day."""
    with suppress(ValueError):
        if 0 < float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and 86400")


def input_file(text: str) -> str:
    """A type for argparse: the path of an existing file or pipe, or ``-`` for standard input; see ``read_input``."""
    return text if text == "-" else existing_file(text)


def input_path(text: str) -> str:
    """A type for argparse: as ``input_file``, or the path of an existing folder."""
    return text if text == "-" else existing_path(text)


def read_input(path: str, maximum: int) -> bytes:
    """The bytes of a file that the command line names: ``-`` is standard input, and a pipe is read to its end.

    Raises:
        InputError: it cannot be read, or is larger than ``maximum`` bytes.
    """
    from nvattest._system import read_bounded

    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            data = b"" if sys.stdin is None else sys.stdin.buffer.read(maximum + 1)
        elif stat.S_ISFIFO(os.stat(path).st_mode):
            data = _read_pipe(path, maximum + 1)
        else:
            return read_bounded(path, maximum)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}", code="file") from None
    if len(data) > maximum:
        raise InputError(f"{name} is larger than {maximum} bytes", code="file")
    if not data.strip():
        what = "standard input is empty" if path == "-" else f"{path} is not a regular file but an empty pipe"
        raise InputError(what, code="file", hint="a pipe, and standard input too, can be read once")
    return data


def _read_pipe(path: str, maximum: int) -> bytes:
    """The bytes of a pipe to its end; nothing where no program has it open for writing within ``_WRITER`` seconds."""
    import time

    end, parts, size = time.monotonic() + _WRITER, [], 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while size < maximum:
            try:
                part = os.read(descriptor, maximum - size)
            except BlockingIOError:
                # A writer is there, and takes its time.
                os.set_blocking(descriptor, True)
                continue
            if part:
                parts.append(part)
                size += len(part)
            elif parts or os.get_blocking(descriptor) or time.monotonic() > end:
                break
            else:
                time.sleep(0.01)
    finally:
        os.close(descriptor)
    return b"".join(parts)


def output_file(text: str) -> str:
    """A type for argparse: where a file is written whole, which no other option names.

    ``-`` is none: a file of that name would be a surprise.
    """
    if text == "-":
        raise argparse.ArgumentTypeError(
            "- is no name of a file here; write /dev/stdout for standard output, ./- for a file of that name"
        )
    return text


def updated_file(text: str) -> str:
    """A type for argparse: as ``output_file``, also over a file that is read before."""
    return output_file(text)


def existing_file(text: str) -> str:
    """A type for argparse: the path of an existing file."""
    if os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"File is actually a directory: {text}")
    return existing_path(text)


def existing_path(text: str) -> str:
    """A type for argparse: the path of an existing file or directory."""
    if not os.path.exists(text):
        raise argparse.ArgumentTypeError(f"File does not exist: {text}")
    return text


def existing_directory(text: str) -> str:
    """A type for argparse: the path of an existing directory."""
    if not os.path.isdir(text):
        wrong = "Directory is actually a file" if os.path.exists(text) else "Directory does not exist"
        raise argparse.ArgumentTypeError(f"{wrong}: {text}")
    return text


# --- requests: their fields declare options ---------------------------------------------------------------------------


def from_environment(variable: str, default: T, kind: Callable[[str], T] | None = None) -> T | str:
    """The value of a variable, or the default where it is unset or empty.

    A value that ``kind``, a type for argparse, refuses is ignored with a warning, as NVIDIA's program ignores it: the
    caller of this command has not typed it, a shell's profile may have set it.
    """
    value = os.environ.get(variable)
    if not value:
        return default
    try:
        return value if kind is None else kind(value)
    except argparse.ArgumentTypeError as error:
        say(f"warning: {variable}: {error}; it is ignored", error=True)
        return default


class Option(dict[str, Any]):
    """The default of a field of a request that the command line fills: the settings for ``add_argument``.

    ``variable`` among them is the variable of the environment that comes before their default; the help names it.
    """


def option(
    metavar: str, text: str, kind: Callable[[str], object] | None = None, default: object = None, *,
    variable: str = "", many: bool = False,
) -> Any:  # fmt: skip
    """A field that the option of its name fills; ``kind`` is a type for argparse; with ``many`` it may be repeated."""
    action = "append" if many else None
    return Option(metavar=metavar, help=text, type=kind, default=default, action=action, variable=variable)


def flag(text: str) -> Any:
    """A field that the flag of its name sets."""
    return Option(help=text, action="store_true")


def add_options(group: argparse._ActionsContainer, request: type[NamedTuple], *only: str, **changed: object) -> None:
    """The options that the fields of a request declare, or only those of some fields; ``changed`` are settings."""
    for name, declared in request._field_defaults.items():
        if isinstance(declared, Option) and (not only or name in only):
            settings = {**declared, **changed}
            if variable := settings.pop("variable", ""):
                settings["default"] = from_environment(variable, settings["default"], settings["type"])
                settings["help"] += f" ({variable})"
            group.add_argument(_flag_of(name), **settings)


def _flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def read(kind: type[Request], options: argparse.Namespace, **more: object) -> Request:
    """A request whose fields have the names of options; ``more`` has those that have not."""
    named = {name: getattr(options, name) for name in kind._fields if name not in more}
    return kind(**named, **more)  # type: ignore[call-overload,no-any-return]


def given(options: argparse.Namespace, *names: str) -> list[str]:
    """Those of these options that the command line names, as it names them; the others have their defaults."""
    return [_flag_of(name) for name in names if name in getattr(options, "_given", ())]


def ignored(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Warn of each of these options that the command line names: it has no effect."""
    if warns(options):
        for name in given(options, *names):
            say(f"warning: {name} is ignored: {why}", error=True)


def warns(options: argparse.Namespace) -> bool:
    """Whether the log level lets warnings through."""
    return options.log_level not in ("error", "off")
