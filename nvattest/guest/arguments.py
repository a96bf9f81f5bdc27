"""What the caller gives a run: signals, the arguments, and as a hook the container's OCI state on stdin.

Parsed by hand: argparse alone would cost a third of the time of the fast path. The state serves logs only, since the
host wrote most of it.

A signal becomes an exception: one more way out, which leaves the GPUs not ready like the others. The handlers are there
from the program's first lines on, so this module imports next to nothing. A signal raises where the run waits and where
it attests. It is only noted elsewhere: an import that is broken off may not succeed a second time, and a run near its
end comes to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, final

if TYPE_CHECKING:
    import signal as _signal
    from types import FrameType, TracebackType
else:
    # The C module below ``signal``, whose enums cost the fast path a millisecond.
    import _signal

T = TypeVar("T")

AGENT_SECONDS: Final = 10
"""How long a Kata agent waits for a hook, in every generation (``nvattest.guest.check``)."""

COMMANDS: Final = ("status", "check", "gate")
"""What an operator runs in the guest. ``nvattest hook status`` and the like do the same outside a guest layer."""
READING: Final = ("status", "check")
"""The commands that change no ready state."""

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
       --metrics FILE   status and watch: also write the state for Prometheus, in the format of node
                        exporter's textfile collector; an absolute path that ends in .prom
       --hook-path DIR  check: the guest_hook_path of the Kata configuration
       --format FORMAT  status and check: text or json
       --root DIR       put DIR before every path (for tests)"""

MAXIMUM: Final = 1024 * 1024
"""Bytes of an OCI state."""
_TEXT: Final = 128
_KIND: Final = "io.katacontainers.pkg.oci.container_type"


# Options with a value, and their members of ``Arguments``.
_VALUES: Final = {
    "--stage": "stage", "--root": "root", "--config": "config", "--hook-path": "hook_path", "--metrics": "metrics",
    "--format": "format", "-f": "format",
}  # fmt: skip


class Stage:
    """The names of the stages, as records and logs have them."""

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
    metrics: str = ""
    command: tuple[str, ...] = ()


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read the arguments without the program's name.

    A Kata agent gives ``prestart`` alone (3.1 and later), or the hook's name and ``prestart`` (2.x, 3.0), so the stage
    of a hook is the last argument. A command is the first word that is no option. Raises UsageError: anything that
    names no stage and no command.
    """
    given: dict[str, Any] = {}
    rest: list[str] = []
    items = iter(argv)
    for item in items:
        if item in _VALUES:
            given[_VALUES[item]] = _value(item, next(items, None))
        elif item == "--once":
            given["once"] = True
        elif item in ("--version", "--help", "-h"):
            return Arguments("version" if item == "--version" else "help")
        elif item == "--" and rest == [Stage.GATE]:
            given["command"] = tuple(items)
        elif item.startswith("-"):
            raise UsageError(f"unknown option {item!r}")
        else:
            rest.append(item)
    stage = given.pop("stage", "")
    if rest and rest[0] in COMMANDS and rest[-1] != "prestart":
        if len(rest) > 1 or stage:
            surplus = (rest[1:] or [stage])[0]
            raise UsageError(f"unexpected {surplus!r} with {rest[0]}; a command of gate stands after --")
        stage = rest[0]
        if stage == Stage.GATE and not any(given.get("command", ())[:1]):
            raise UsageError("gate needs a command, after --")
    elif rest:
        if rest[-1] != "prestart" or len(rest) > 2 or stage:
            raise UsageError(f"unexpected {rest[-1]!r}; as a hook this program belongs into the folder prestart")
        stage = Stage.HOOK
    if not stage:
        raise UsageError("no stage and no command was named")
    if given.get("metrics") and stage not in ("status", Stage.WATCH):
        raise UsageError("--metrics goes with status and with --stage watch")
    return Arguments(stage, **given)


def _value(option: str, value: str | None) -> str:
    if value is None:
        raise UsageError(f"{option} needs a value")
    if option == "--stage" and value not in (Stage.INIT, Stage.WATCH, Stage.HOOK):
        raise UsageError(f"there is no stage {value!r}")
    # The current folder of a hook is the container's.
    if option in ("--config", "--metrics") and not value.startswith("/"):
        raise UsageError(f"{option} needs an absolute path, found {value!r}")
    if option in ("--format", "-f") and value not in ("text", "json"):
        raise UsageError(f"{option} needs text or json, found {value!r}")
    return value


class Container(NamedTuple):
    """``kind`` is ``pod_sandbox`` or ``pod_container`` in a Kata guest; ``note`` says what could not be read."""

    id: str = ""
    kind: str = ""
    note: str = ""


def read_state(descriptor: int = 0, *, seconds: float = 2.0) -> Container:
    """Read all of stdin, since a writer whose pipe closes early may call that a failure of the hook. Never raises."""
    import select

    until = time.monotonic() + seconds
    parts: list[bytes] = []
    size = 0
    try:
        if os.isatty(descriptor):
            return Container(note="stdin is a terminal")
        while True:
            readable, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            if not readable:
                return Container(note=f"stdin did not end within {seconds:g} s")
            part = os.read(descriptor, 65536)
            if not part:
                break
            size += len(part)
            if size <= MAXIMUM:
                parts.append(part)
    except (OSError, ValueError) as error:
        return Container(note=f"stdin could not be read: {error}"[:_TEXT])
    return parse_state(b"".join(parts)) if size <= MAXIMUM else Container(note=f"stdin has more than {MAXIMUM} bytes")


def parse_state(data: bytes) -> Container:
    """Take from the state what a log can use; other members are ignored. Never raises."""
    if not data.strip():
        return Container()
    import json

    try:
        state = json.loads(data)
    except (ValueError, RecursionError):
        return Container(note="stdin is not JSON")
    if not isinstance(state, dict):
        return Container(note="stdin is not a JSON object")
    from nvattest._text import clean

    annotations = state.get("annotations")
    kind = annotations.get(_KIND) if isinstance(annotations, dict) else None
    return Container(*[clean(text, _TEXT) if isinstance(text, str) else "" for text in (state.get("id"), kind)])


# --- signals ----------------------------------------------------------------------------------------------------------


class TerminatedError(BaseException):
    """A signal asked the process to end. Not an Exception, so that no handler below swallows it."""


@final
class Termination:
    """The signals of a process, inside ``with``. Only the main thread gets any; elsewhere none is ever seen.

    ``asked`` says whether one came, whatever was done about it.
    """

    __slots__ = ("_armed", "_before", "asked")

    def __init__(self) -> None:
        self.asked = False
        self._armed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Termination:
        try:
            signals = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)
            self._before = {number: _signal.signal(number, self._handle) for number in signals}
        except ValueError:
            # Not the main thread.
            self._before = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Put the earlier handlers back: from here on a signal does what it does to any program."""
        self._armed = False
        before, self._before = self._before, {}
        for number, handler in before.items():
            # None: a handler that Python did not set and cannot put back.
            _signal.signal(number, _signal.SIG_DFL if handler is None else handler)

    def arm(self) -> None:
        """From here on a signal raises, once; at once if one came already. Raises TerminatedError: a signal came."""
        self._armed = True
        if self.asked:
            self._armed = False
            raise TerminatedError

    def over(self) -> None:
        """From here on a signal is only noted."""
        self._armed = False

    def wait(self, work: Callable[[], T]) -> T | None:
        """The result of work that waits for something; None, without waiting on, once a signal came."""
        try:
            self.arm()
            result = work()
            self.over()
        except TerminatedError:
            return None
        return result

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's arguments
        self.asked = True
        if self._armed:
            self._armed = False
            raise TerminatedError
