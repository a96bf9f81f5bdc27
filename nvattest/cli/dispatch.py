"""Find the command, build its parser alone, run it, and turn every documented error into a message and a status."""

from __future__ import annotations

import importlib
import sys

from nvattest._streams import give_up_stdout
from nvattest.cli.arguments import ArgumentError, Parser, add_global_options
from nvattest.errors import NvattestError, ResultCode

# name: (module, what the help says), in the order of the help.
COMMANDS: dict[str, tuple[str, str]] = {
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
    "doctor": ("nvattest.cli.doctor", "say what this machine is, what is wrong with it and what to do"),
    "preflight": ("nvattest.cli.preflight", "before a rollout: which RIMs exist, and which revocation answers"),
    "hook": ("nvattest.cli.hook", "what the guest hook did, and what silently keeps it from working"),
    "gate": ("nvattest.cli.gate", "run a command on attested devices only"),
    "migrate": ("nvattest.cli.migrate", "what of a program for NVIDIA's Python SDK changes with nvattest.compat"),
    "completion": ("nvattest.cli.completion", "print the completion script of a shell"),
    "version": ("nvattest.cli.version", "print the version"),
}

_GLOBAL_WITH_VALUE = ("-l", "--log-level", "-f", "--format")


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
        # A caller that closed stdout wants the status alone.
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except ArgumentError as error:
        from nvattest.cli.output import say

        say(str(error), "Run with --help for more information.", error=True)
        return error.status
    except NvattestError as error:
        # Commands report their own failures in their own format; this is for what fails before they can.
        from nvattest.cli.output import say

        say(f"Error {int(error.result_code):03d}: {error.result_code.message}: {error}", error=True)
        if error.hint:
            say(f"  {error.hint}", error=True)
        return error.result_code.exit_status or ResultCode.UNKNOWN.exit_status
    except OSError as error:
        # Commands turn the errors of their files into their own messages, so this is stdout: its reader went away, or
        # its disk is full. The verdict was not delivered.
        give_up_stdout()
        if not isinstance(error, BrokenPipeError):
            from nvattest.cli.output import say

            say(f"the result could not be written: {error.strerror or error}", error=True)
        return ResultCode.UNKNOWN.exit_status
    except KeyboardInterrupt:
        return 130


def _help(rest: list[str]) -> int:
    from nvattest.cli.overview import overview

    parser = Parser(prog="nvattest", add_help=False)
    add_global_options(parser)
    parser.add_argument("-h", "--help", action="store_true")
    parser.parse_args(rest)
    from nvattest.cli.output import say

    say(overview(COMMANDS))
    return 0
