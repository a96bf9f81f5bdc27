"""Evidence from the devices of this machine: a report over the caller's nonce and the certificate chain of each."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import Any, Final

from nvattest._waiting import Deadline, waiting
from nvattest.devices.nscq import NscqSession
from nvattest.devices.nvml import DEFAULT_TIMEOUT, Job, NvmlCalls, NvmlLibrary, Trace
from nvattest.devices.state import SystemState, read_state, require_evidence_mode
from nvattest.errors import CollectionError, ResultCode
from nvattest.evidence import Evidence
from nvattest.model import Architecture, Nonce

GPUS_MAX: Final = 64
REPORT_MAX: Final = 0x2000
CHAIN_MAX: Final = 0x1400
# NVML's numbers; the signed report and the chain decide later which chip it really is.
NVML_ARCHITECTURES: Final = {9: Architecture.HOPPER, 10: Architecture.BLACKWELL, 13: Architecture.RUBIN}
_OTHER_NAMES: Final = {5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada"}


def collect_gpus(
    nonce: Nonce | bytes,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    allow_devtools: bool = False,
    library: NvmlLibrary | None = None,
    library_path: str | os.PathLike[str] | None = None,
) -> tuple[Evidence, ...]:
    """Ask every GPU of this machine for evidence, all at once, in the driver's order.

    Evidence of all GPUs or none: one GPU that fails fails the collection.

    Args:
        nonce: exactly 32 bytes, fresh for this collection.
        timeout: seconds for all of it.
        allow_devtools: also ask GPUs in DevTools mode. Never for production: the evidence says so, and an appraisal
            trusts it only where the policy has ``allow_debug``.
        library: an open NVML library; by default one is opened and closed.
        library_path: the library file for that, see ``NvmlLibrary.open``.

    Raises:
        InputError: a nonce of another length (``nonce-size``).
        CollectionError: ``nvml-missing`` or another cause of 500; ``cc-off`` or ``devtools-on`` (509); ``no-gpu``;
            ``gpu-architecture`` (502); ``driver-timeout``; ``driver-size``; or what NVML returned (501).
    """
    value = _nonce(nonce)
    deadline = Deadline(timeout)
    with waiting("driver", "evidence of the GPUs"):
        if library is not None:
            return _collect_gpus(library, value, deadline, allow_devtools)
        with NvmlLibrary.open(library_path, timeout=deadline.remaining()) as opened:
            return _collect_gpus(opened, value, deadline, allow_devtools)


def _collect_gpus(library: NvmlLibrary, nonce: bytes, deadline: Deadline, allow_devtools: bool) -> tuple[Evidence, ...]:
    state = read_state(library, timeout=deadline.remaining())
    require_evidence_mode(state, allow_devtools=allow_devtools)
    if state.gpu_count == 0:
        hint = "in a guest, check that the GPU was passed through"
        raise CollectionError("the driver knows no GPU", code="no-gpu", hint=hint)
    if not 0 < state.gpu_count <= GPUS_MAX:
        raise CollectionError(
            f"the driver says that there are {state.gpu_count} GPUs; expected 1 to {GPUS_MAX}",
            code="gpu-count",
            hint="check that the NVML library is NVIDIA's and fits the driver",
        )

    jobs = [
        library.start(f"GPU-{index}", partial(_one_gpu, index=index, nonce=nonce, state=state))
        for index in range(state.gpu_count)
    ]
    return tuple([library.wait(job, deadline) for job in jobs])


def _one_gpu(calls: NvmlCalls, index: int, nonce: bytes, state: SystemState) -> Evidence:
    handle = calls.ask("nvmlDeviceGetHandleByIndex", index)
    number = int(calls.ask("nvmlDeviceGetArchitecture", handle))
    architecture = NVML_ARCHITECTURES.get(number)
    if architecture is None:
        raise CollectionError(
            f"GPU-{index}: the architecture {_OTHER_NAMES.get(number, number)} cannot be attested; "
            "expected Hopper, Blackwell or Rubin",
            code="gpu-architecture",
            result_code=ResultCode.GPU_ARCHITECTURE_NOT_SUPPORTED,
            hint="attestation needs a GPU with confidential computing",
        )
    hints = {"index": str(index), "driver_version": state.driver_version}
    for key, name in (
        ("uuid", "nvmlDeviceGetUUID"),
        ("name", "nvmlDeviceGetName"),
        ("vbios_version", "nvmlDeviceGetVbiosVersion"),
        ("board_part_number", "nvmlDeviceGetBoardPartNumber"),
    ):
        # Hints are for people and for comparison; a GPU in trouble fails at the evidence below.
        with suppress(CollectionError):
            hints[key] = calls.text(name, handle)
    if state.dev_tools:
        hints["dev_tools"] = "on"
    hints |= state.hints
    chain = calls.ask("nvmlDeviceGetConfComputeGpuCertificate", handle)
    certificate = _cut(
        chain.attestationCertChain, chain.attestationCertChainSize, CHAIN_MAX, f"GPU-{index}: the certificate chain"
    )
    answer = calls.ask("nvmlDeviceGetConfComputeGpuAttestationReport", handle, nonce)
    report = _cut(
        answer.attestationReport, answer.attestationReportSize, REPORT_MAX, f"GPU-{index}: the attestation report"
    )
    return Evidence(
        architecture=architecture,
        nonce=nonce,
        report=report,
        certificate_chain=certificate,
        origin="nvml",
        hints=hints,
    )


def collect_switches(
    nonce: Nonce | bytes,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    library_path: str | os.PathLike[str] | None = None,
) -> tuple[Evidence, ...]:
    """Ask every NVSwitch of this machine for evidence, in the library's order.

    Arguments as in ``collect_gpus``; the library is by default ``libnvidia-nscq.so.2`` as the loader finds it.

    Raises:
        InputError: a nonce of another length (``nonce-size``).
        CollectionError: ``nscq-missing`` or another cause of 600; ``no-switch``; ``switch-architecture`` (602);
            ``driver-timeout``; ``driver-size``; or what NSCQ returned (601).
    """
    value = _nonce(nonce)

    def work(trace: Trace) -> tuple[Evidence, ...]:
        with NscqSession(trace, library_path) as session:
            labels = session.switches()
            if not labels:
                raise CollectionError(
                    "NSCQ knows no NVSwitch",
                    code="no-switch",
                    result_code=ResultCode.NSCQ_ERROR,
                    hint="in a guest, check that the switches were passed through; a single GPU has none",
                )
            architecture = session.architecture()
            if architecture != Architecture.LS10.value:
                raise CollectionError(
                    f"NVSwitches of architecture {architecture} cannot be attested; expected LS10",
                    code="switch-architecture",
                    result_code=ResultCode.SWITCH_ARCHITECTURE_NOT_SUPPORTED,
                    hint="attestation needs the switches of a Hopper HGX board",
                )
            return tuple([_one_switch(session, index, label, value) for index, label in enumerate(labels)])

    with waiting("driver", "evidence of the NVSwitches"):
        return Job("switches", work).wait(Deadline(timeout), result_code=ResultCode.NSCQ_ERROR)


def _one_switch(session: NscqSession, index: int, label: str, nonce: bytes) -> Evidence:
    hints = {"index": str(index), "uuid": label}
    with suppress(CollectionError):  # a hint, as above
        hints["pcie_mode"] = str(session.pcie_mode(label))
    return Evidence(
        architecture=Architecture.LS10,
        nonce=nonce,
        report=session.report(label, nonce),
        certificate_chain=session.certificate(label),
        origin="nscq",
        hints=hints,
    )


def _nonce(nonce: Nonce | bytes) -> bytes:
    return nonce.value if isinstance(nonce, Nonce) else Nonce(bytes(nonce)).value


def _cut(array: Any, size: int, maximum: int, what: str) -> bytes:
    # The size comes from the library; beyond the array it would reach into whatever lies behind.
    if not 0 < size <= maximum:
        raise CollectionError(
            f"{what}: the driver says that it has {size} bytes; expected 1 to {maximum}",
            code="driver-size",
            hint="check that the NVML library is NVIDIA's and fits the driver",
        )
    return bytes(array)[:size]
