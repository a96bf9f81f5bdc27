"""Which stage or command to run. Parsed by hand: argparse alone would cost a third of the time of the fast path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

__all__ = ["AGENT_SECONDS", "COMMANDS", "USAGE", "Arguments", "Stage", "UsageError", "parse_arguments"]

AGENT_SECONDS: Final = 10
"""How long a Kata agent waits for a hook, in every generation (``nvattest.guest.agents``)."""

COMMANDS: Final = ("status", "check", "gate")
"""What an operator runs in the guest. ``nvattest hook status`` and the like do the same outside a guest layer."""

USAGE: Final = """\
usage: nvattest-hook prestart            as a Kata guest hook or an OCI prestart hook
       nvattest-hook --stage init        once, before the workload: from init or a service manager
       nvattest-hook --stage watch       as a service that attests again and again
       nvattest-hook status              print the last verdict and the ready state
       nvattest-hook check               find what silently keeps the hook from working
       nvattest-hook gate -- COMMAND ... run a command on attested devices only
       nvattest-hook --version | --help
options:
       --config FILE    the configuration, in the place of the usual one: an absolute path of a file
                        that is there; the bundle is looked for beside it. The usual one is
                        etc/nvattest/hook.toml below the image that this program lies in, then
                        /etc/nvattest/hook.toml
       --once           end the watch after one round
       --hook-path DIR  check: the guest_hook_path of the Kata configuration
       --format FORMAT  status and check: text or json
       --root DIR       put DIR before every path (for tests)"""


class Stage:
    """The names of the stages; they stand in records and logs."""

    HOOK: Final = "hook"
    INIT: Final = "init"
    WATCH: Final = "watch"
    GATE: Final = "gate"


class UsageError(Exception):
    """Arguments that name no stage and no command."""


class Arguments(NamedTuple):
    """``stage`` is one of ``Stage``, or ``status``, ``check``, ``version`` or ``help``; ``command`` is the gate's."""

    stage: str
    once: bool = False
    root: str = ""
    config: str = ""
    hook_path: str = ""
    format: str = "text"
    command: tuple[str, ...] = ()


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read the arguments without the program's name.

    A Kata agent gives ``prestart`` alone (3.1 and later), or the hook's name and ``prestart`` (2.x, 3.0), so the stage
    of a hook is the last argument. A command is the first word that is no option.

    Raises:
        UsageError: anything that names no stage and no command.
    """
    stage, once = "", False
    values = {"--root": "", "--config": "", "--hook-path": "", "--format": "text"}
    rest: list[str] = []
    command: list[str] = []
    items = iter(argv)
    for item in items:
        if item in values:
            values[item] = _value(item, items)
        elif item == "-f":
            values["--format"] = _value(item, items)
        elif item == "--stage":
            stage = _value(item, items)
            if stage not in (Stage.INIT, Stage.WATCH, Stage.HOOK):
                raise UsageError(f"there is no stage {stage!r}")
        elif item == "--once":
            once = True
        elif item in ("--version", "--help", "-h"):
            return Arguments("version" if item == "--version" else "help")
        elif item == "--" and rest == ["gate"]:
            command = list(items)
        elif item.startswith("-"):
            raise UsageError(f"unknown option {item!r}")
        else:
            rest.append(item)
    if rest and rest[0] in COMMANDS and rest[-1] != "prestart":
        if len(rest) > 1 or stage:
            surplus = (rest[1:] or [stage])[0]
            raise UsageError(f"unexpected {surplus!r} with {rest[0]}; a command of gate stands after --")
        stage = rest[0]
        if stage == Stage.GATE and not any(command[:1]):
            raise UsageError("gate needs a command, after --")
    elif rest:
        if rest[-1] != "prestart" or len(rest) > 2 or stage:
            raise UsageError(f"unexpected {rest[-1]!r}; as a hook this program belongs into the folder prestart")
        stage = Stage.HOOK
    if not stage:
        raise UsageError("no stage and no command was named")
    return Arguments(
        stage, once, values["--root"], values["--config"], values["--hook-path"], values["--format"], tuple(command)
    )


def _value(option: str, items: Iterator[str]) -> str:
    value = next(items, None)
    if value is None:
        raise UsageError(f"{option} needs a value")
    # The current folder of a hook is the container's.
    if option == "--config" and not value.startswith("/"):
        raise UsageError(f"--config needs an absolute path, found {value!r}")
    if option in ("--format", "-f") and value not in ("text", "json"):
        raise UsageError(f"{option} needs text or json, found {value!r}")
    return value
