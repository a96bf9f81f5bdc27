"""The ready state: whether the GPUs of this machine accept work (nvmlSystemSetConfComputeGpusReadyState).

It is one switch for all GPUs. ``set_ready`` is the only function of this program that moves it.
"""

from __future__ import annotations

from typing import Final

from nvattest.devices._deadline import DEFAULT_TIMEOUT
from nvattest.devices.nvml import NvmlCalls, NvmlLibrary
from nvattest.errors import CollectionError

__all__ = ["read_ready", "set_ready"]

_WORDS: Final = {0: "not-ready", 1: "ready"}


def read_ready(library: NvmlLibrary, *, timeout: float = DEFAULT_TIMEOUT) -> bool:
    """Whether the GPUs accept work.

    Raises:
        CollectionError: the driver did not say, or said something other than 0 or 1 (``ready-state``).
    """
    return library.run("ready state", _read, timeout=timeout)


def set_ready(library: NvmlLibrary, ready: bool, *, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Let all GPUs accept work, or no longer, and read back that it is so.

    Call it with True only for a trusted appraisal of all devices of the machine.

    Raises:
        CollectionError: the driver refused, did not answer in time, or does not say afterwards what was set
            (``ready-state``). The state must then be taken as unknown.
    """
    wanted = 1 if ready is True else 0

    def work(calls: NvmlCalls) -> None:
        calls.ask("nvmlSystemSetConfComputeGpusReadyState", wanted)
        found = _read(calls)
        if found is not bool(wanted):
            raise CollectionError(
                f"the GPUs were set {_WORDS[wanted]} but the driver says {_WORDS[int(found)]}",
                code="ready-state",
                hint="another program may set the state too; check with: nvidia-smi conf-compute -grs",
            )

    library.run("ready state", work, timeout=timeout)


def _read(calls: NvmlCalls) -> bool:
    value = int(calls.ask("nvmlSystemGetConfComputeGpusReadyState"))
    if value not in _WORDS:
        raise CollectionError(
            f"the driver gives the ready state {value}; expected 0 (not ready) or 1 (ready)",
            code="ready-state",
            hint="the driver may be newer than this program",
        )
    return value == 1
