"""The command line. Each command is a module that is imported only when it runs; start-up is part of the product."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Final

from nvattest._streams import open_closed_streams

# Imports make many objects and no cycles, so that early collections find nothing; longer runs still collect.
_COLLECT_EVERY: Final = 50_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nvattest`` with these arguments and return its exit status.

    Without ``argv``, as in the installed program, the arguments are those of ``sys.argv``, and the process ends here
    unless something else runs in it: the interpreter's own shutdown costs a tenth of a short run.
    """
    if argv is None:
        gc.set_threshold(_COLLECT_EVERY)
        open_closed_streams()
        _escape_unprintable()
    from nvattest.cli.dispatch import run

    status = run(list(sys.argv[1:] if argv is None else argv))
    if argv is None:
        _leave(status)
    return status


def _escape_unprintable() -> None:
    """Print a verdict also where a file name is not UTF-8, or a terminal lacks a character."""
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

    atexit._run_exitfuncs()  # noqa: SLF001 - Python itself calls it at this point; it has no public name
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return
    os._exit(status)
