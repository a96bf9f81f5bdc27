"""How a run ended: the words in its record and the exit status that a shell sees."""

from __future__ import annotations

from typing import Final

__all__ = ["EXIT", "NOT_TRUSTED", "NO_GPU", "TRUSTED", "UNFINISHED", "WORDS", "exit_status", "shown_status"]

# The verdicts. Only TRUSTED goes with GPUs that accept work.
TRUSTED: Final = "trusted"
NO_GPU: Final = "no-gpu"
NOT_TRUSTED: Final = "not-trusted"
UNFINISHED: Final = "unfinished"

WORDS: Final = {
    TRUSTED: "attestation successful, GPUs set ready",
    NO_GPU: "no GPU in this guest, as configured",
    NOT_TRUSTED: "attestation failed, GPUs not ready",
    UNFINISHED: "attestation did not end, GPUs not ready",
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


def exit_status(cause: str) -> int:
    """The exit status of a cause; never 0 but for ``ok``."""
    return EXIT.get(cause, EXIT["internal"])


def shown_status(cause: str, *, stage: str, on_failure: str) -> int:
    """What the caller of this stage sees: a hook may be told to let containers start, for the GPUs stay not ready."""
    return 0 if stage == "hook" and on_failure == "start" else exit_status(cause)
