"""The state of confidential computing on this machine, as the driver reports it, and the ready state of its GPUs.

What the driver says is a hint of what to expect, and the reason for clear messages. It proves nothing: a host can make
a driver say anything, and only signed evidence counts.

The ready state (nvmlSystemSetConfComputeGpusReadyState) says whether the GPUs accept work. It is one switch for all of
them. ``set_ready`` is the only function of this program that switches it on, and what it takes is no boolean but the
proof: a ``TrustedPlatform``, which can be made of a trusted appraisal and of nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeVar, final

from nvattest._registry import MULTI_GPU_PROTECTED
from nvattest.devices.nvml import DEFAULT_TIMEOUT, UNSUPPORTED_CODES, NvmlCalls, NvmlLibrary
from nvattest.errors import CollectionError, NotTrustedError, ResultCode
from nvattest.model import DeviceKind

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal


class Environment(IntEnum):
    """``environment`` of nvmlConfComputeSystemState_t."""

    UNAVAILABLE = 0
    SIMULATION = 1
    PRODUCTION = 2


class MultiGpuMode(IntEnum):
    """``multiGpuMode`` of nvmlSystemConfComputeSettings_t."""

    NONE = 0
    PROTECTED_PCIE = 1
    NVLINK_ENCRYPTION = 2


_MODE_WORDS: dict[int, str] = dict(zip(MultiGpuMode, ("none", MULTI_GPU_PROTECTED, "nvlink-encryption"), strict=True))


class CpuCapability(IntEnum):
    """``cpuCaps`` of nvmlConfComputeSystemCaps_t."""

    NONE = 0
    AMD_SEV = 1
    INTEL_TDX = 2
    AMD_SEV_SNP = 3
    AMD_SNP_VTOM = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemState:
    """What the driver says of the system. Numbers that are not known stay numbers; None is what the driver cannot say.

    Attributes:
        cc_feature: 1 with confidential computing on.
        dev_tools: True in DevTools mode, where debuggers may read the GPU's memory.
        ready: whether the GPUs accept work.
        gpus_capable: whether the GPUs can do confidential computing.
    """

    driver_version: str
    nvml_version: str | None
    gpu_count: int
    cc_feature: int
    dev_tools: bool
    environment: Environment | int
    multi_gpu_mode: MultiGpuMode | int | None
    ready: bool | None
    cpu_capability: CpuCapability | int | None
    gpus_capable: bool | None

    @property
    def cc_on(self) -> bool:
        """Confidential computing is on."""
        return self.cc_feature == 1

    @property
    def protected_pcie(self) -> bool:
        """The machine is in protected PCIe mode, where GPUs attest with CC off."""
        return self.multi_gpu_mode == MultiGpuMode.PROTECTED_PCIE

    @property
    def hints(self) -> dict[str, str]:
        """What of this is compared with each GPU's signed report: ``multi_gpu_mode``, in words where they are known."""
        if self.multi_gpu_mode is None:
            return {}
        return {"multi_gpu_mode": _MODE_WORDS.get(self.multi_gpu_mode, str(int(self.multi_gpu_mode)))}


E = TypeVar("E", bound=IntEnum)
T = TypeVar("T")


def _word(kind: type[E], value: int) -> E | int:
    try:
        return kind(value)
    except ValueError:
        return value


def read_state(library: NvmlLibrary, *, timeout: float = DEFAULT_TIMEOUT) -> SystemState:
    """Ask the driver for the state of the system.

    Raises:
        CollectionError: the driver did not answer, or not in time. What a driver is too old to know becomes None; one
            that cannot say whether CC is on is an error.
    """
    return library.run("system", _read, timeout=timeout)


def _read(calls: NvmlCalls) -> SystemState:
    driver_version = calls.text("nvmlSystemGetDriverVersion")
    state = calls.ask("nvmlSystemGetConfComputeState")
    settings = _if_known(calls.settings)
    ready = _if_known(lambda: calls.ask("nvmlSystemGetConfComputeGpusReadyState"))
    caps = _if_known(lambda: calls.ask("nvmlSystemGetConfComputeCapabilities"))
    return SystemState(
        driver_version=driver_version,
        nvml_version=_if_known(lambda: calls.text("nvmlSystemGetNVMLVersion")),
        gpu_count=int(calls.ask("nvmlDeviceGetCount")),
        cc_feature=int(state.ccFeature),
        # Where two calls differ the more careful answer counts.
        dev_tools=bool(state.devToolsMode) or (settings is not None and bool(settings.devToolsMode)),
        environment=_word(Environment, state.environment),
        multi_gpu_mode=None if settings is None else _word(MultiGpuMode, settings.multiGpuMode),
        ready=None if ready is None else int(ready) == 1,
        cpu_capability=None if caps is None else _word(CpuCapability, caps.cpuCaps),
        gpus_capable=None if caps is None else bool(caps.gpusCaps),
    )


def _if_known(ask: Callable[[], T]) -> T | None:
    """The driver's answer, or None where it is too old for the question."""
    try:
        return ask()
    except CollectionError as error:
        if error.code not in UNSUPPORTED_CODES:
            raise
        return None


def require_evidence_mode(state: SystemState, *, allow_devtools: bool = False) -> None:
    """Check that GPUs in this state give evidence worth asking for.

    Args:
        state: what the driver says.
        allow_devtools: accept DevTools mode. It gives the host's debuggers access to the GPU: never for production.

    Raises:
        CollectionError: confidential computing and protected PCIe are both off (``cc-off``, 509), or DevTools mode is
            on (``devtools-on``, 509).
    """
    if not (state.cc_on or state.protected_pcie):
        capable = "" if state.gpus_capable in (None, True) else "; the GPUs say that they are not capable of it"
        raise CollectionError(
            f"confidential computing is off on this machine (driver {state.driver_version}): neither CC mode nor "
            f"protected PCIe mode is on, so its GPUs give no evidence{capable}",
            code="cc-off",
            result_code=ResultCode.GPU_MODE_NOT_SUPPORTED,
            hint="set the GPUs to CC mode on the host before the guest starts; check with: nvidia-smi conf-compute -f",
        )
    if state.dev_tools and not allow_devtools:
        raise CollectionError(
            "the GPUs are in DevTools mode: debuggers can read what they compute",
            code="devtools-on",
            result_code=ResultCode.GPU_MODE_NOT_SUPPORTED,
            hint="set the CC mode to 'on' on the host instead of 'devtools'; for development: --allow-devtools, "
            "and in Python allow_devtools=True",
        )


# --- the ready state --------------------------------------------------------------------------------------------------


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
    return library.run("ready state", _read_ready, timeout=timeout)


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
    found = int(_read_ready(calls))
    if found != wanted:
        raise CollectionError(
            f"the GPUs were set {_WORDS[wanted]} but the driver says {_WORDS[found]}",
            code="ready-state",
            hint="another program may set the state too; check with: nvidia-smi conf-compute -grs",
        )


def _read_ready(calls: NvmlCalls) -> bool:
    value = int(calls.ask("nvmlSystemGetConfComputeGpusReadyState"))
    if value not in _WORDS:
        raise CollectionError(
            f"the driver gives the ready state {value}; expected 0 (not ready) or 1 (ready)",
            code="ready-state",
            hint="the driver may be newer than this program",
        )
    return value == 1
