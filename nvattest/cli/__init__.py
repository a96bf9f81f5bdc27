"""The command line. Each command is a module that is imported only when it runs; start-up is part of the product."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Final

from nvattest._streams import open_closed_streams

# Collections look for cycles while everything is still being imported and find none. What runs longer has its turn.
_COLLECT_EVERY: Final = 50_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nvattest`` with these arguments and return its exit status.

    Called without ``argv``, as the installed program is, it takes them from ``sys.argv`` and ends the process itself
    when nothing else runs in it: taking the interpreter apart, module by module, costs a tenth of a short run.
    """
    if argv is None:
        gc.set_threshold(_COLLECT_EVERY)
        open_closed_streams()
        _escape_what_cannot_be_written()
    from nvattest.cli.dispatch import run

    status = run(list(sys.argv[1:] if argv is None else argv))
    if argv is None:
        _leave(status)
    return status


def _escape_what_cannot_be_written() -> None:
    """File names need not be UTF-8, and a terminal need not know every character: a verdict is printed all the same."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _leave(status: int) -> None:
    """End the process at once, unless a thread, a child process or unwritten output needs the long way."""
    threading = sys.modules.get("threading")
    if "multiprocessing" in sys.modules or (threading is not None and threading.active_count() > 1):
        return
    import atexit

    atexit._run_exitfuncs()  # noqa: SLF001 - what Python itself calls at this point, under its only name
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return
    os._exit(status)
