"""What each generation of kata-agent does with a guest hook, and so what a hook can promise under it.

Read from kata-containers 3.0.0 to 4.1.0. From 3.1 on the agent's own reaper takes a hook's exit status first, so under
every agent of today the ready state of the GPUs is the gate, and the exit status is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from nvattest.guest.arguments import AGENT_SECONDS

__all__ = ["AGENT_SECONDS", "GENERATIONS", "Generation", "generation_of", "kernel_log_failure", "version_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One way of running hooks.

    Attributes:
        name: the versions, for people.
        first: the first version of it.
        last: the last one that was read, so that a later one is known as later.
        keeps_environment: a hook gets the agent's environment; otherwise an empty one.
        obeys_status: a status other than 0, or a timeout, fails the creation of the container.
        appends: a container whose spec has hooks gets the guest hooks too; otherwise it gets none of them.
        kills: a hook that has not ended after ten seconds is killed; otherwise it runs on beside the container.
        logs_failures: a failure is a line in the kernel log, and so is a good hook whose status the reaper took.
    """

    name: str
    first: tuple[int, int]
    last: tuple[int, int]
    keeps_environment: bool
    obeys_status: bool
    appends: bool
    kills: bool
    logs_failures: bool

    @property
    def promise(self) -> str:
        """What a hook is worth under it, in a sentence."""
        if self.obeys_status:
            return "the exit status fails the container where on_failure is block, and the ready state is a gate too"
        dropped = (
            "" if self.appends else "; a container whose spec has hooks gets none of ours, so the pause run counts"
        )
        return f"the exit status is lost, so only the ready state is a gate{dropped}"


GENERATIONS: Final = (
    Generation(
        name="3.0", first=(0, 0), last=(3, 0),
        keeps_environment=True, obeys_status=True, appends=True, kills=False, logs_failures=False,
    ),
    Generation(
        name="3.1 to 3.7", first=(3, 1), last=(3, 7),
        keeps_environment=False, obeys_status=False, appends=True, kills=False, logs_failures=False,
    ),
    Generation(
        name="3.8 to 3.32", first=(3, 8), last=(3, 32),
        keeps_environment=False, obeys_status=False, appends=False, kills=False, logs_failures=False,
    ),
    Generation(
        name="4.0 and 4.1", first=(4, 0), last=(4, 1),
        keeps_environment=False, obeys_status=False, appends=False, kills=True, logs_failures=True,
    ),
)  # fmt: skip
"""From the oldest to the newest."""

_VERSION: Final = re.compile(r"\bkata-agent(?: version)?[ :]+v?(\d{1,4})\.(\d{1,4})\.")
_HARMLESS: Final = (
    'the agent logged "hook failed" and "no exit code": its own reaper took the status first, and it says so of hooks '
    "that did their work too. The verdict is in /run/nvattest/state.json"
)
_LINE: Final = re.compile(r"kata-agent: hook failed: (.*)")


def version_of(text: str) -> tuple[int, int] | None:
    """The version in what ``kata-agent --version`` prints, or None."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found is not None else None


def generation_of(version: tuple[int, int]) -> Generation:
    """How an agent of this version runs hooks; one newer than all that were read counts as the newest."""
    return next(generation for generation in reversed(GENERATIONS) if version >= generation.first)


def kernel_log_failure(line: str) -> tuple[str, str] | None:
    """What a line of the kernel log says of our hook: a severity and a sentence, or None if it is not about it."""
    found = _LINE.search(line)
    if found is None or "nvattest-hook" not in found[1]:
        return None
    said = found[1].lower()
    # "no exit code" is what the agent says where its reaper took the status first, whatever the hook did.
    if "no exit code for hook" in said:
        return "ok", _HARMLESS
    if "timed out" in said or "timedout" in said or "communicate" in said:
        return "error", f"the agent gave the hook up after {AGENT_SECONDS} s and killed it"
    if "exit status with" in said:
        return "warning", "the hook ended with a status other than 0, which the agent logs and ignores"
    return "error", "the agent could not run the hook"
