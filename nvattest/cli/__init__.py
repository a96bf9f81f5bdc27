"""The command line: find the command, build its parser alone, run it, and turn each documented error into a message and
a status. A command is a module that is imported only when it runs; start-up is part of the product.

In this room ``ArgumentError`` says what is wrong about the options, and ``InputError`` or another error of the package
what is wrong about the files, services and devices that they name; each is said by ``run``, or by the command itself.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from nvattest._package import __version__
from nvattest._system import give_up_stdout, open_closed_streams, write_utf_8
from nvattest._text import suggestion
from nvattest.cli.arguments import UNEXPECTED, ArgumentError, Parser, add_global_options, ignored
from nvattest.cli.output import is_terminal, logged, print_json, say
from nvattest.errors import NvattestError, ResultCode

# Imports make many objects and no cycles, so that early collections find nothing; longer runs still collect.
_COLLECT_EVERY: Final = 50_000
# name: (module, what the help says), in the order of the help.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "attest": ("nvattest.cli.attest", "collect or load evidence, verify it, print the result"),
    "collect-evidence": ("nvattest.cli.collect", "collect evidence and print it"),
    "bundle": ("nvattest.cli.bundle", "put RIMs and revocation answers into one file, or look into it"),
    "policy": ("nvattest.cli.policy", "explain a policy, find its mistakes, try it on saved claims"),
    "verify-token": ("nvattest.cli.verify_token", "verify a token: of nvattest, of NVIDIA's service, or an EAR"),
    "verify-batch": ("nvattest.cli.verify_batch", "judge the evidence of many platforms, one JSON line each"),
    "simulate": (
        "nvattest.cli.simulate",
        "a simulated platform, driver and services, for one command or until stopped",
    ),
    "explain": ("nvattest.cli.explain", "say what a result, a token, a bundle, a code or a check means"),
    "inspect": ("nvattest.cli.explain", "say what kind of file this is, and what is in it"),
    "doctor": ("nvattest.cli.doctor", "say what this machine is, what is wrong with it and what to do"),
    "preflight": ("nvattest.cli.preflight", "before a rollout: which RIMs exist, and which revocation answers"),
    "hook": ("nvattest.cli.hook", "what the guest hook did, and what silently keeps it from working"),
    "gate": ("nvattest.cli.hook", "run a command on attested devices only"),
    "migrate": ("nvattest.cli.migrate", "what of a program for NVIDIA's Python SDK changes with nvattest.compat"),
    "completion": ("nvattest.cli.manual", "print the completion script of a shell"),
    # A line that is printed here: loading a module for it would take longer.
    "version": ("", "print the version"),
}
# What the overview shows first, with an example of each.
MOST_USED = {
    "attest": ("verify this machine's GPUs, or evidence in a file", "nvattest attest --device all"),
    "explain": ("say what a result, token, code or check means", "nvattest explain result.json"),
    "doctor": ("say what this machine is and what is wrong with it", "nvattest doctor --online"),
}
_CODE = "another number: the result code modulo 256 (nvattest explain NUMBER)"
# What the exit status of each command says: in its help, its man page and the README.
STATUSES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "attest": (
        ("0", "trusted"),
        ("11", "the relying party's policy refuses"),
        ("12", "not trusted"),
        ("", _CODE),
    ),
    "collect-evidence": (("0", "collected"), ("", _CODE)),
    "bundle": (("0", "written, or all of it verifies"), ("12", "inspect: an entry does not verify"), ("", _CODE)),
    "policy": (("0", "usable, and matches"), ("11", "does not match"), ("45", "cannot be used"), ("", _CODE)),
    "verify-token": (
        ("0", "genuine, and the result is good"),
        ("1", "must not be believed, or cannot be read"),
        ("2", "the relying party's policy refuses"),
        ("3", "genuine, and the result is bad"),
    ),
    "verify-batch": (
        ("0", "every line has its answer, which says what is trusted"),
        ("12", "--fail-on-untrusted: a line is not trusted, or there is none"),
        ("", _CODE),
    ),
    "simulate": (("0", "stopped, or listed"), ("", "that of COMMAND")),
    "explain": (("0", "explained, whatever the verdict"), ("4", "there is nothing to explain")),
    "inspect": (("0", "a file that nvattest reads or writes"), ("4", "another file")),
    "doctor": (("0", "no fault"), ("1", "a fault")),
    "preflight": (("0", "ready"), ("", "the result code, modulo 256, of the first thing that is missing or bad")),
    "hook": (("0", "a current verdict of trusted, or no finding is an error"), ("1", "anything else")),
    "gate": (("", "that of COMMAND, which takes this process's place, or that of nvattest-hook"),),
    "migrate": (("0", "nothing needs a decision"), ("1", "something does, or a file cannot be read")),
    "completion": (("0", "printed"),),
    "version": (("0", "printed"),),
}
# The commands that ask a driver or a service.
WAITING = ("attest", "collect-evidence", "bundle", "preflight", "verify-token")
# They come before any command does its work, or in the place of its own status.
ANY_STATUS = (
    ("104, 105, 106, 109, 114", "a wrong argument"),
    ("1", "the output could not be written"),
    ("130", "interrupted"),
)
# What these print is no JSON document: lines, or the output of another program.
NO_DOCUMENT = ("verify-batch", "simulate", "gate", "completion")
# Those of them whose output is no JSON at all, and what it is.
ONE_FORM: Mapping[str, str] = {
    "simulate": "the command prints, or lines for a shell and a list have one form",
    "gate": "the command prints, or the hook says why it does not run",
    "completion": "a script has one form",
}
_LONGEST_WORD = 1000
_GLOBAL_WITH_VALUE = ("-l", "--log-level", "-f", "--format")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nvattest`` with these arguments and return its exit status.

    Without ``argv``, as in the installed program, the arguments are those of ``sys.argv``, and the process ends here
    unless something else runs in it: the interpreter's own shutdown costs a tenth of a short run.
    """
    if argv is None:
        gc.set_threshold(_COLLECT_EVERY)
        open_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            # A verdict is printed also where a file name is not UTF-8, or a terminal lacks a character.
            if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
                reconfigure(errors="backslashreplace")
    status = run(list(sys.argv[1:] if argv is None else argv))
    if argv is None:
        _leave(status)
    return status


def _leave(status: int) -> None:
    """End the process at once, unless a thread, a child process or unwritten output needs the long way."""
    threading = sys.modules.get("threading")
    if "multiprocessing" in sys.modules or (threading is not None and threading.active_count() > 1):
        return
    import atexit

    atexit._run_exitfuncs()  # noqa: SLF001 - Python itself calls it at this point; it has no public name
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return
    os._exit(status)


def command_parser(name: str) -> Parser:
    """The parser of one command."""
    module, text = COMMANDS[name]
    parser = Parser(prog=f"nvattest {name}", description=text)
    if module:
        _of(name, "add_arguments")(parser)
    add_global_options(parser, waits=name in WAITING)
    parser.epilog = "\n".join(filter(None, (parser.epilog, statuses_of(name))))
    return parser


def _of(name: str, function: str) -> Callable[..., Any]:
    """``add_arguments`` or ``run`` of a command; in a module of two commands those of the second end in its name."""
    module = importlib.import_module(COMMANDS[name][0])
    found: Callable[..., Any] = getattr(module, f"{function}_{name}", None) or getattr(module, function)
    return found


def statuses_of(name: str) -> str:
    """The exit statuses of a command in words, for its help and its man page."""
    said = [f"{status} {meaning}".strip() for status, meaning in (*STATUSES[name], *ANY_STATUS)]
    return f"Exit status: {'; '.join(said)}."


def split_command(argv: list[str]) -> tuple[str | None, list[str]]:
    """The command and all other arguments; global options may stand before it or after it."""
    index = 0
    while index < len(argv):
        word = argv[index]
        if word == "--":
            break
        if word in _GLOBAL_WITH_VALUE:
            index += 2
        elif word.startswith("-"):
            index += 1
        else:
            return word, argv[:index] + argv[index + 1 :]
    return None, argv


def run(argv: list[str]) -> int:
    """Run one command; the exit status is NVIDIA's result code modulo 256, or CLI11's code for a wrong argument."""
    name, rest = split_command(argv)
    as_json = False
    try:
        if name == "help":
            # As "nvattest COMMAND --help", and without a command the overview.
            name, rest = split_command(rest)
            rest = [*rest, "--help"]
        if name is None:
            return _delivered(_help(rest))
        if name not in COMMANDS:
            near = suggestion(name, tuple(COMMANDS), several=False)
            raise ArgumentError(
                f"there is no command {name[:80]!r}; {near or 'there are ' + ', '.join(COMMANDS)}", UNEXPECTED
            )
        options = command_parser(name).parse_args(rest)
        if options.format != "text":
            write_utf_8()
        as_json = options.format == "json" and name not in NO_DOCUMENT
        if options.format == "json" and name in ONE_FORM:
            ignored(options, ["format"], ONE_FORM[name])
        with _watched(name, options):
            status: int = _of(name, "run")(options) if COMMANDS[name][0] else _version(options)
        return _delivered(status)
    except ArgumentError as error:
        # What was typed may be a whole file by mistake; no path has words as long.
        words = [word if len(word) < _LONGEST_WORD else f"{word[:100]}…" for word in str(error).split(" ")]
        say(" ".join(words), "Run with --help for more information.", error=True)
        return error.status
    except NvattestError as error:
        # Commands report their own failures in their own format; this is for what fails before they can.
        if as_json:
            # Where it cannot be written, the status and stderr say it too.
            try:
                print_json("error", {}, error=error)
                sys.stdout.flush()
            except OSError:
                give_up_stdout()
        hint = [f"  {error.hint}"] if error.hint else []
        say(f"Error {int(error.result_code):03d}: {error.result_code.message}: {error}", *hint, error=True)
        return error.result_code.exit_status or ResultCode.UNKNOWN.exit_status
    except OSError as error:
        # Commands turn the errors of their files into their own messages or name the file, so this is an output: its
        # reader went away, or its disk is full. The verdict was not delivered.
        if error.filename is None:
            give_up_stdout()
        if error.filename is not None or not isinstance(error, BrokenPipeError):
            where = f" to {error.filename}" if error.filename is not None else ""
            say(f"the result could not be written{where}: {error.strerror or error}", error=True)
        return ResultCode.UNKNOWN.exit_status
    except KeyboardInterrupt:
        return 130


def _delivered(status: int) -> int:
    """The status, once all output is written; a caller that closed stdout wants the status alone."""
    if sys.stdout is not None:
        sys.stdout.flush()
    return status


def _watched(name: str, options: argparse.Namespace) -> AbstractContextManager[object]:
    """What the command waits for, shown as it waits; with ``-l debug`` every request, with its time, and cache hits."""
    debug = options.log_level in ("debug", "trace")
    waits = name in WAITING and options.log_level not in ("error", "off")
    if debug or (waits and (options.progress or is_terminal(sys.stderr))):
        return logged(debug=debug)
    return nullcontext()


def overview(commands: Mapping[str, tuple[str, str]] = COMMANDS) -> str:
    """The help of the whole program: one screen of 24 lines and 80 columns."""
    import textwrap

    lines = [
        "usage: nvattest [-f text|json] [-l LEVEL] COMMAND [options]",
        "",
        "Verify NVIDIA confidential GPUs and NVSwitches.",
        "",
    ]
    for name, (text, example) in MOST_USED.items():
        lines += [f"  {name:<10}{text}", f"  {'':<10}  $ {example}"]
    others = "also: " + ", ".join(name for name in commands if name not in MOST_USED)
    lines += ["", *textwrap.wrap(others, 78, initial_indent="  ", subsequent_indent="        ")]
    lines += [
        "",
        "  $ nvattest attest --simulate         a whole node without a GPU, to try it",
        "  $ nvattest COMMAND --help             the options of one command",
        "",
        "  -f, --format text|json   -l, --log-level trace|debug|info|warn|error|off",
        "  Exit status: NVIDIA's result code modulo 256; 0 is trusted, 12 is not trusted.",
    ]
    return "\n".join(lines)


def _help(rest: list[str]) -> int:
    parser = Parser(prog="nvattest", add_help=False)
    add_global_options(parser)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-V", "--version", action="store_true")
    options = parser.parse_args(rest)
    if options.version:
        return _version(options)
    say(overview())
    return 0


def _version(options: argparse.Namespace) -> int:
    """``nvattest version``, as a line or as JSON."""
    import platform

    if options.format == "json":
        say(f'{{"format": "nvattest-version", "version": 1, "nvattest": "{__version__}"}}')
    else:
        say(f"nvattest {__version__} ({platform.system()}/{platform.machine()})")
    return 0
