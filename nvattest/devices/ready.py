"""The ready state: whether the GPUs of this machine accept work (nvmlSystemSetConfComputeGpusReadyState).

It is one switch for all GPUs. ``set_ready`` is the only function of this program that switches it on, and what it
takes is no boolean but the proof: a ``TrustedPlatform``, which can be made of a trusted appraisal and of nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from nvattest.devices._driver import DEFAULT_TIMEOUT
from nvattest.devices.nvml import NvmlCalls, NvmlLibrary
from nvattest.errors import CollectionError, NotTrustedError
from nvattest.model import DeviceKind

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal

__all__ = ["TrustedPlatform", "read_ready", "set_not_ready", "set_ready"]

_WORDS: Final = {0: "not-ready", 1: "ready"}


@final
class TrustedPlatform:
    """Proof that an appraisal of this whole platform is trusted.

    Raises:
        TypeError: what is given is no appraisal.
        NotTrustedError: it is not; the message names each device and check that failed.
    """

    __slots__ = ("appraisal",)

    def __init__(self, appraisal: Appraisal) -> None:
        from nvattest.appraisal.results import Appraisal

        # Something that only looks like an appraisal could say of itself that it is trusted.
        if type(appraisal) is not Appraisal:
            raise TypeError("only an appraisal can prove that a platform is trusted")
        if appraisal.require().trusted is not True:
            raise NotTrustedError("not trusted")
        self.appraisal: Final = appraisal


def read_ready(library: NvmlLibrary, *, timeout: float = DEFAULT_TIMEOUT) -> bool:
    """Whether the GPUs accept work.

    Raises:
        CollectionError: the driver did not say, or said something other than 0 or 1 (``ready-state``).
    """
    return library.run("ready state", _read, timeout=timeout)


def set_ready(library: NvmlLibrary, platform: TrustedPlatform, *, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Let all GPUs of this machine accept work, and read back that it is so.

    Raises:
        TypeError: what is given is no proof.
        CollectionError: the machine has other than the attested GPUs (``devices-changed``); the driver refused, did not
            answer in time, or does not say afterwards what was set (``ready-state``). Take the state as unknown then.
    """
    if type(platform) is not TrustedPlatform:
        raise TypeError("the GPUs are set ready for a trusted platform and for nothing else")
    attested = sum(device.kind is DeviceKind.GPU for device in platform.appraisal.devices)

    def work(calls: NvmlCalls) -> None:
        present = int(calls.ask("nvmlDeviceGetCount"))
        if present != attested:
            raise CollectionError(
                f"{attested} of this machine's {present} GPUs were attested, and the ready state is one switch for all",
                code="devices-changed",
                hint="attest all GPUs of the machine together",
            )
        _switch(calls, 1)

    library.run("ready state", work, timeout=timeout)


def set_not_ready(library: NvmlLibrary, *, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Let no GPU accept work, and read back that it is so. Where no thread can be had, the driver has no time limit.

    Raises:
        CollectionError: as ``set_ready``, for a driver that does not do it.
    """
    library.run("ready state", lambda calls: _switch(calls, 0), timeout=timeout, here=True)


def _switch(calls: NvmlCalls, wanted: int) -> None:
    calls.ask("nvmlSystemSetConfComputeGpusReadyState", wanted)
    found = int(_read(calls))
    if found != wanted:
        raise CollectionError(
            f"the GPUs were set {_WORDS[wanted]} but the driver says {_WORDS[found]}",
            code="ready-state",
            hint="another program may set the state too; check with: nvidia-smi conf-compute -grs",
        )


def _read(calls: NvmlCalls) -> bool:
    value = int(calls.ask("nvmlSystemGetConfComputeGpusReadyState"))
    if value not in _WORDS:
        raise CollectionError(
            f"the driver gives the ready state {value}; expected 0 (not ready) or 1 (ready)",
            code="ready-state",
            hint="the driver may be newer than this program",
        )
    return value == 1
