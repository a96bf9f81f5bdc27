"""What an operator runs in the guest: ``status``, ``check`` and ``gate``, of ``nvattest-hook`` and of ``nvattest``.

Each returns the exit status that the shell sees. The guest layer has this module and no other command line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from nvattest._text import block, clean
from nvattest.guest.paths import Paths

if TYPE_CHECKING:
    from nvattest.guest.termination import Termination

__all__ = ["CANNOT_RUN", "NOT_FOUND", "print_check", "print_status", "run_on_attested"]

# What a shell says of a command that it cannot run, and of one that it does not find.
CANNOT_RUN: Final = 126
NOT_FOUND: Final = 127


def print_status(paths: Paths, form: str) -> int:
    """Print the last verdict and the ready state as ``text`` or ``json``; 0 if a good verdict stands."""
    from nvattest.guest.status import hook_status, is_good, render_status

    status = hook_status(paths)
    if form == "json":
        from nvattest._documents import dump_json

        print(dump_json(status))
    else:
        print(block(render_status(status)))
    return 0 if is_good(status) else 1


def print_check(paths: Paths, hook_folder: str, form: str) -> int:
    """Print what may keep the hook from working as ``text`` or ``json``; 0 if nothing does."""
    from nvattest.guest.doctor import check_guest
    from nvattest.guest.findings import is_good, print_findings

    findings = check_guest(paths, hook_folder=hook_folder)
    print_findings(findings, form)
    return 0 if is_good(findings) else 1


def run_on_attested(paths: Paths, command: Sequence[str], *, termination: Termination) -> int:
    """Attest as the hook does, with the same configuration and outputs; then become the command.

    A verdict of the hook that stands is used. Returns only where the command is not run: the hook's exit status (see
    ``nvattest.guest.outcome``), or a shell's for a command that cannot be run.
    """
    import signal

    from nvattest.guest.arguments import Arguments, Stage
    from nvattest.guest.entry import run_stage
    from nvattest.guest.outcome import exit_status

    status = run_stage(Arguments(Stage.GATE), paths, started=time.monotonic(), termination=termination)
    # A signal from here on ends this process or the command, as it would end any program.
    termination.leave()
    if termination.asked and not status:
        # Asked to end after the verdict: the command must not begin.
        return exit_status("terminated")
    if status:
        return status
    sys.stdout.flush()
    # Python ignores these two, and what is ignored stays so in the command: a writer whose reader has gone would go on.
    ignored = [(number, signal.signal(number, signal.SIG_DFL)) for number in (signal.SIGPIPE, signal.SIGXFSZ)]
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - the command is the caller's
    except OSError as error:
        for number, handler in ignored:
            signal.signal(number, handler)
        print(clean(f"gate: {command[0]}: {error.strerror}"), file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
