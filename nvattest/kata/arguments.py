"""Which stage to run. Parsed by hand: argparse alone would cost a third of the time that the whole fast path has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["USAGE", "Arguments", "Stage", "UsageError", "parse_arguments"]

USAGE: Final = """\
usage: nvattest-hook prestart            as a Kata guest hook or an OCI prestart hook
       nvattest-hook --stage init        once, before the workload: from init or a service manager
       nvattest-hook --stage watch       as a service that attests again and again
       nvattest-hook --version | --help
options:
       --config FILE    the configuration, in the place of /etc/nvattest/hook.toml: an absolute path
                        of a file that is there; the bundle is looked for beside it
       --once           end the watch after one round
       --root DIR       put DIR before every path (for tests)"""


class Stage:
    """The names of the stages; they stand in records and logs."""

    HOOK: Final = "hook"
    INIT: Final = "init"
    WATCH: Final = "watch"
    GATE: Final = "gate"


class UsageError(Exception):
    """Arguments that name no stage."""


class Arguments(NamedTuple):
    """``stage`` is one of ``Stage``, or ``version`` or ``help``."""

    stage: str
    once: bool = False
    root: str = ""
    config: str = ""


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read the arguments without the program's name.

    A Kata agent gives ``prestart`` alone (4.x), or the hook's name and ``prestart`` (2.x and early 3.x), so the stage
    of a hook is the last argument.

    Raises:
        UsageError: anything that names no stage.
    """
    stage, once, root, config = "", False, "", ""
    rest: list[str] = []
    items = iter(argv)
    for item in items:
        if item in ("--stage", "--root", "--config"):
            value = next(items, None)
            if value is None:
                raise UsageError(f"{item} needs a value")
            if item == "--root":
                root = value
            elif item == "--config":
                # The current folder of a hook is the container's.
                if not value.startswith("/"):
                    raise UsageError(f"--config needs an absolute path, found {value!r}")
                config = value
            elif value in (Stage.INIT, Stage.WATCH, Stage.HOOK):
                stage = value
            else:
                raise UsageError(f"there is no stage {value!r}")
        elif item == "--once":
            once = True
        elif item in ("--version", "--help", "-h"):
            return Arguments("version" if item == "--version" else "help")
        elif item.startswith("-"):
            raise UsageError(f"unknown option {item!r}")
        else:
            rest.append(item)
    if rest:
        if rest[-1] != "prestart" or len(rest) > 2 or stage:
            raise UsageError(f"unexpected {rest[-1]!r}; as a hook this program belongs into the folder prestart")
        stage = Stage.HOOK
    if not stage:
        raise UsageError("no stage was named")
    return Arguments(stage, once, root, config)
