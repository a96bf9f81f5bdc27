"""What the simulated driver says of the system, and how a call of it is made to fail."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from nvattest.errors import InputError
from nvattest.testing.native.board import NUMBERS, cuda_version

if TYPE_CHECKING:
    from nvattest.devices.state import SystemState

__all__ = ["CALLS", "DriverState", "Fault"]

_DELAY_MAX: Final = 3600.0

CALLS: Final = frozenset(
    [
        *("nvmlInit", "nvmlShutdown", "nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion"),
        *("nvmlSystemGetCudaDriverVersion", "nvmlDeviceGetCount"),
        *(f"nvmlDeviceGetHandleBy{what}" for what in ("UUID", "Serial", "PciBusId")),
        *NUMBERS,
        *(
            f"nvmlSystemGetConfCompute{what}"
            for what in ("State", "Settings", "Capabilities", "GpusReadyState", "KeyRotationThresholdInfo")
        ),
        *(f"nvmlSystemSetConfCompute{what}" for what in ("GpusReadyState", "KeyRotationThresholdInfo")),
        *(
            f"nvmlDeviceGet{what}"
            for what in (
                *("HandleByIndex", "Name", "UUID", "VbiosVersion", "BoardPartNumber", "Serial", "InforomImageVersion"),
                *("Architecture", "BoardId", "PersistenceMode"),
            )
        ),
        *(
            f"nvmlDeviceGetConfCompute{what}"
            for what in ("GpuAttestationReport", "GpuCertificate", "MemSizeInfo", "ProtectedMemoryUsage")
        ),
        *("nvmlDeviceSetConfComputeUnprotectedMemSize", "nvmlDeviceSetPersistenceMode"),
        *("nscq_session_create", "nscq_session_destroy", "nscq_session_set_input"),
        *(f"nscq:{what}" for what in ("uuid", "arch", "version", "pcie_mode", "attestation_report", "certificate")),
    ]
)
"""All calls that the simulated libraries ask about, by the names that faults have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverState:
    """System-wide answers of NVML and NSCQ; the numbers are those of the C interface.

    The default is a machine with confidential computing on and GPUs that do not yet accept work.
    """

    cc_feature: int = 1
    dev_tools: int = 0
    environment: int = 2
    """0 unavailable, 1 simulation, 2 production."""
    multi_gpu_mode: int = 0
    """0 none, 1 protected PCIe, 2 NVLink encryption."""
    ready: int = 0
    cpu_caps: int = 3
    gpus_caps: int = 1
    driver_version: str | None = None
    """None: that of the first GPU."""
    nvml_version: str | None = None
    cuda_version: int | None = None
    """None: those that fit the driver's version."""
    key_rotation: int = 60
    protected_kib: int = 83886080
    unprotected_kib: int = 0
    persistence: int = 1
    pcie_mode: int = 3
    """NSCQ: -1 unknown, 0 disabled, 1 enabled, 2 failure, 3 locked."""

    @classmethod
    def cc_off(cls) -> DriverState:
        """Confidential computing off, as a real H200 with driver 580.159.04 answers."""
        return cls(cc_feature=0, environment=0, cpu_caps=0, protected_kib=0, unprotected_kib=146591680)

    @classmethod
    def of(cls, source: Any) -> DriverState:
        """The state that fits a platform: PPCIE with switches, NVLink encryption in multi-GPU passthrough."""
        if getattr(source, "switches", ()):
            return cls(cc_feature=0, multi_gpu_mode=1)
        return cls(multi_gpu_mode=2 if getattr(source, "mode", "") == "mpt" else 0)

    def cuda_of(self, driver: str) -> int:
        """CUDA's version of this driver, as NVML says it."""
        return self.cuda_version if self.cuda_version is not None else cuda_version(driver)

    def nvml_of(self, driver: str) -> str:
        """NVML's version of this driver: the major number of CUDA before the driver's own."""
        return self.nvml_version if self.nvml_version is not None else f"{self.cuda_of(driver) // 1000}.{driver}"

    @property
    def gives_evidence(self) -> bool:
        """Whether GPUs answer for evidence at all: with CC on, or in protected PCIe mode."""
        return self.cc_feature == 1 or self.multi_gpu_mode == 1

    def system(self, *, driver_version: str, gpu_count: int) -> SystemState:
        """The same as ``devices.read_state`` reads it through the library, for simulations within a process."""
        from nvattest.devices.state import SystemState

        return SystemState(
            driver_version=self.driver_version or driver_version,
            nvml_version=self.nvml_of(self.driver_version or driver_version),
            gpu_count=gpu_count,
            cc_feature=self.cc_feature,
            dev_tools=bool(self.dev_tools),
            environment=self.environment,
            multi_gpu_mode=self.multi_gpu_mode,
            ready=self.ready == 1,
            cpu_capability=self.cpu_caps,
            gpus_capable=bool(self.gpus_caps),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a call does instead of, or before, its right answer.

    Attributes:
        return_code: returned instead of the answer (999 unknown, 3 not supported, 15 GPU lost, 10 timeout ...).
        delay: seconds to wait first.
        hang: never answer while the server lives.
        size: the size or count that the driver claims, whatever it gives.
        content: bytes or text given instead of the right ones.
    """

    return_code: int | None = None
    delay: float = 0.0
    hang: bool = False
    size: int | None = None
    content: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> tuple[str, Fault]:
        """Read ``CALL=999``, ``CALL=hang``, ``CALL=delay:SECONDS`` or ``CALL=size:N``; CALL may end in ``@DEVICE``.

        Returns:
            The key for ``DriverServer.faults`` and the fault.

        Raises:
            InputError: another form.
        """
        name, _, what = text.partition("=")
        call = name.partition("@")[0]
        if call and what and call not in CALLS:
            # A fault of a call that no program makes would let its test pass.
            near = get_close_matches(call, CALLS, n=3)
            raise InputError(
                f"no driver call is named {call[:80]!r}",
                code="driver-fault",
                hint=f"did you mean {' or '.join(near)}?" if near else "nvattest simulate --list names them",
            )
        kind, _, value = what.partition(":")
        try:
            if what == "hang":
                fault = cls(hang=True)
            elif kind == "delay" and 0 <= float(value) <= _DELAY_MAX:
                fault = cls(delay=float(value))
            elif kind == "size":
                fault = cls(size=int(value, 0) & 0xFFFFFFFF)
            else:
                fault = cls(return_code=int(what))
            if call and (name == call or int(name[len(call) + 1 :]) >= 0):
                return name, fault
        except ValueError:
            pass
        raise InputError(
            f"not a driver fault: {text[:120]!r}",
            code="driver-fault",
            hint="write nvmlDeviceGetName=999, nvmlDeviceGetName@2=hang, ...=delay:1.5 or ...=size:65536",
        )
