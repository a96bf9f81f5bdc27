"""Children that do not outlive the simulation, also when it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Final

__all__ = ["end_with_parent"]

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> Callable[[], None]:
    """A ``preexec_fn`` for ``subprocess.Popen``: the kernel sends the child SIGTERM when this process is gone.

    Linux only (prctl(2), PR_SET_PDEATHSIG); elsewhere it does nothing. The signal follows the thread that starts the
    child, so start children from the main thread.
    """
    parent = os.getpid()
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return lambda: None

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        # The parent may have ended between the fork and the call above.
        if os.getppid() != parent:
            os._exit(1)

    return prepare
