"""``nvattest-hook``: attest the GPUs and switches of this guest, and then and only then let them work.

One program for three places: a Kata guest hook (``prestart``), a step of init (``--stage init``) and a service
(``--stage watch``). It runs before every container, so what most runs need (reading the last verdict) imports nothing
heavy: this module and those named in its first lines use only the smallest parts of the standard library.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage and end with its exit status (see ``nvattest.kata.outcome``). ``argv`` is without the name.

    Called without ``argv`` it ends the process itself and at once: a driver call that never returns must not keep it.
    """
    started = time.monotonic()
    _open_standard_descriptors()
    from nvattest.kata.termination import Termination

    # Before anything that takes time: a signal ends the run as a failure does, with GPUs that are not ready.
    with Termination() as termination:
        from nvattest.kata.entry import run

        status = run(list(sys.argv[1:] if argv is None else argv), started=started, termination=termination)
        if argv is None:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError, AttributeError):
                    continue
            os._exit(status)
    return status


def _open_standard_descriptors() -> None:
    # Whoever starts a program with descriptor 1 or 2 closed would find messages in the first file that it opens.
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
