"""How a run ended: the words in its record and the exit status that a shell sees."""

from __future__ import annotations

from typing import Final

__all__ = ["EXIT", "NOT_TRUSTED", "NO_GPU", "TRUSTED", "UNFINISHED", "exit_status", "headline", "shown_status"]

# The verdicts. Only TRUSTED goes with GPUs that accept work.
TRUSTED: Final = "trusted"
NO_GPU: Final = "no-gpu"
NOT_TRUSTED: Final = "not-trusted"
UNFINISHED: Final = "unfinished"

_READY: Final = {
    True: "the GPUs are ready",
    False: "GPUs not ready",
    None: "the driver could not be asked: the GPUs may be ready",
}

EXIT: Final = {
    "ok": 0,
    "not-trusted": 1,
    "usage": 2,
    "configuration": 3,
    "collection": 4,
    "no-gpu": 5,
    "deadline": 6,
    "clock": 7,
    "output": 8,
    "ready-state": 9,
    "devices-changed": 10,
    "lock": 11,
    "internal": 70,
    "terminated": 143,
}
"""Exit statuses by cause. A cause that is not here counts as ``internal``."""


def headline(verdict: str, ready: bool | None, cause: str = "") -> str:
    """The first words of a run, in the log, on stderr and in the kernel's log.

    ``ready`` is what the driver answered last about the GPUs, None where it has not answered since it was asked to
    change it. After ``no-gpu`` there is none to be ready; a ``lock`` leaves the ready state to the run that has it.
    """
    if verdict == TRUSTED:
        return "attestation successful, GPUs set ready"
    if verdict == NO_GPU:
        return "no GPU in this guest, as configured"
    ended = "attestation did not end" if verdict == UNFINISHED else "attestation failed"
    if cause == "lock":
        return f"{ended}, the ready state is left to another attestation"
    if cause == "no-gpu" and ready is None:
        return f"{ended}, there is no GPU"
    return f"{ended}, {_READY[ready]}"


def exit_status(cause: str) -> int:
    """The exit status of a cause; never 0 but for ``ok``."""
    return EXIT.get(cause, EXIT["internal"])


def shown_status(cause: str, *, stage: str, on_failure: str) -> int:
    """What the caller of this stage sees: a hook may be told to let containers start, for the GPUs stay not ready."""
    return 0 if stage == "hook" and on_failure == "start" else exit_status(cause)
