"""Find the command, build its parser alone, run it, and turn every documented error into a message and a status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from nvattest.cli.arguments import ArgumentError, Parser, add_global_options
from nvattest.errors import NvattestError, ResultCode

# name: (module, what the help says). The three that are used most come first.
COMMANDS: dict[str, tuple[str, str]] = {
    "attest": ("nvattest.cli.attest", "collect or load evidence, verify it, print the result"),
    "collect-evidence": ("nvattest.cli.collect", "collect evidence and print it"),
    "bundle": ("nvattest.cli.bundle", "put RIMs and revocation answers into one file, or look into it"),
    "simulate": ("nvattest.cli.simulate", "a simulated platform, driver and services, for one command or until stopped"),
    "version": ("nvattest.cli.version", "print the version"),
}

_GLOBAL_WITH_VALUE = ("-l", "--log-level", "-f", "--format")


def split_command(argv: list[str]) -> tuple[str | None, list[str]]:
    """The command and all other arguments; global options may stand before it or after it."""
    index = 0
    while index < len(argv):
        token = argv[index]
        if token == "--":
            break
        if token in _GLOBAL_WITH_VALUE:
            index += 2
        elif token.startswith("-"):
            index += 1
        else:
            return token, argv[:index] + argv[index + 1 :]
    return None, argv


def run(argv: list[str]) -> int:
    """Run one command; the exit status is NVIDIA's result code modulo 256, or CLI11's code for a wrong argument."""
    name, rest = split_command(argv)
    try:
        if name is None:
            return _help(rest)
        if name not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise ArgumentError(f"there is no command {name!r}; there are {known}", 109)
        module = importlib.import_module(COMMANDS[name][0])
        parser = Parser(prog=f"nvattest {name}", description=COMMANDS[name][1])
        module.add_arguments(parser)
        add_global_options(parser)
        options = parser.parse_args(rest)
        status: int = module.run(options)
        sys.stdout.flush()
        return status
    except ArgumentError as error:
        print(error, file=sys.stderr)
        print("Run with --help for more information.", file=sys.stderr)
        return error.status
    except NvattestError as error:
        # Commands report their own failures in their own format; this is for what fails before they can.
        print(f"Error {int(error.result_code):03d}: {error.result_code.message}: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.result_code.exit_status or ResultCode.UNKNOWN.exit_status
    except BrokenPipeError:
        # The reader of our output went away; nobody is left to tell, and the verdict was not delivered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ResultCode.UNKNOWN.exit_status
    except KeyboardInterrupt:
        return 130


def _help(rest: list[str]) -> int:
    parser = Parser(prog="nvattest", add_help=True, usage="nvattest [options] COMMAND ...")
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    parser.description = "Verify NVIDIA confidential GPUs and NVSwitches."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "commands:\n" + "\n".join(lines) + "\n\nnvattest COMMAND --help says more."
    add_global_options(parser)
    parser.parse_args(rest)
    parser.print_help()
    return 0
