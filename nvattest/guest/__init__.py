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

from nvattest._system import open_closed_streams

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage and end with its exit status (see ``nvattest.guest.record``). ``argv`` is without the name.

    Called without ``argv`` it ends the process itself and at once: a driver call that never returns must not keep it.
    """
    started = time.monotonic()
    open_closed_streams()
    if not sys.platform.startswith("linux"):
        from nvattest._text import clean
        from nvattest.guest.record import exit_status

        print(clean(f"nvattest-hook runs in a Linux guest; this is {sys.platform}"), file=sys.stderr)
        return exit_status("collection")
    from nvattest.guest.arguments import Termination

    # Before anything that takes time: a signal ends the run as a failure does, with GPUs that are not ready.
    with Termination() as termination:
        from nvattest.guest.entry import run

        status = run(list(sys.argv[1:] if argv is None else argv), started=started, termination=termination)
        if argv is None:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError, AttributeError):
                    continue
            os._exit(status)
    return status
