"""Every exported call of the compiled library through nvidia-ml-py, and its structures byte by byte."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from typing import Any

import pynvml
import pytest

from nvattest.devices.nvml import NvmlLibrary
from nvattest.testing.driver_answers import DriverState, Fault

NONCE = bytes(range(32))


@pytest.fixture
def handle(drive: Any, nvml: Any) -> Iterator[Any]:
    drive(gpus=2)
    nvml()
    return pynvml.nvmlDeviceGetHandleByIndex(1)


def test_device_calls_answer(handle: Any) -> None:
    assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA H100 80GB HBM3"
    assert pynvml.nvmlDeviceGetUUID(handle) == "GPU-00000000-0000-0000-0000-000000000001"
    assert pynvml.nvmlDeviceGetArchitecture(handle) == pynvml.NVML_DEVICE_ARCH_HOPPER
    assert pynvml.nvmlDeviceGetVbiosVersion(handle) == "96.00.A5.00.1A"
    assert pynvml.nvmlDeviceGetBoardPartNumber(handle) == "692-2G520-0282-001"
    assert pynvml.nvmlDeviceGetBoardId(handle) == 0x200
    assert pynvml.nvmlDeviceGetIndex(handle) == 1
    assert pynvml.nvmlDeviceGetPersistenceMode(handle) == 1
    pynvml.nvmlDeviceSetPersistenceMode(handle, 0)
    assert pynvml.nvmlDeviceGetPersistenceMode(handle) == 0
    by_uuid = pynvml.nvmlDeviceGetHandleByUUID("GPU-00000000-0000-0000-0000-000000000001")
    assert pynvml.nvmlDeviceGetIndex(by_uuid) == 1


def test_what_the_device_does_not_have_is_not_supported(handle: Any) -> None:
    for call in (pynvml.nvmlDeviceGetSerial, pynvml.nvmlDeviceGetInforomImageVersion):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            call(handle)


def test_system_calls_answer(handle: Any) -> None:
    assert pynvml.nvmlSystemGetDriverVersion() == "580.159.04"
    assert pynvml.nvmlSystemGetNVMLVersion() == "13.580.159.04"
    assert pynvml.nvmlSystemGetCudaDriverVersion() == pynvml.nvmlSystemGetCudaDriverVersion_v2() == 13000
    assert pynvml.nvmlDeviceGetCount() == 2
    state = pynvml.nvmlSystemGetConfComputeState()
    assert (state.environment, state.ccFeature, state.devToolsMode) == (2, 1, 0)
    caps = pynvml.nvmlSystemGetConfComputeCapabilities()
    assert (caps.cpuCaps, caps.gpusCaps) == (3, 1)


def test_key_rotation_keeps_its_range_and_is_fixed_once_gpus_are_ready(handle: Any) -> None:
    assert pynvml.nvmlSystemGetConfComputeKeyRotationThresholdInfo().attackerAdvantage == 60
    pynvml.nvmlSystemSetConfComputeKeyRotationThresholdInfo(65)
    assert pynvml.nvmlSystemGetConfComputeKeyRotationThresholdInfo().attackerAdvantage == 65
    for value in (49, 66):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlSystemSetConfComputeKeyRotationThresholdInfo(value)
    pynvml.nvmlSystemSetConfComputeGpusReadyState(1)
    with pytest.raises(pynvml.NVMLError) as caught:
        pynvml.nvmlSystemSetConfComputeKeyRotationThresholdInfo(60)
    assert caught.value.value == 29


def test_the_ready_state_takes_only_0_and_1(handle: Any) -> None:
    assert pynvml.nvmlSystemGetConfComputeGpusReadyState() == 0
    pynvml.nvmlSystemSetConfComputeGpusReadyState(1)
    assert pynvml.nvmlSystemGetConfComputeGpusReadyState() == 1
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlSystemSetConfComputeGpusReadyState(2)


def test_memory_is_split_until_gpus_are_ready(handle: Any) -> None:
    sizes = pynvml.nvmlDeviceGetConfComputeMemSizeInfo(handle)
    assert (sizes.protectedMemSizeKib, sizes.unprotectedMemSizeKib) == (83886080, 0)
    pynvml.nvmlDeviceSetConfComputeUnprotectedMemSize(handle, ctypes.c_ulonglong(1 << 20))
    assert pynvml.nvmlDeviceGetConfComputeMemSizeInfo(handle).unprotectedMemSizeKib == 1 << 20
    assert pynvml.nvmlDeviceGetConfComputeProtectedMemoryUsage(handle).total == (83886080 - (1 << 20)) << 10
    pynvml.nvmlSystemSetConfComputeGpusReadyState(1)
    with pytest.raises(pynvml.NVMLError):
        pynvml.nvmlDeviceSetConfComputeUnprotectedMemSize(handle, ctypes.c_ulonglong(0))


def test_confidential_computing_off_answers_like_a_real_h200(drive: Any, nvml: Any) -> None:
    # Seen on an H200 with driver 580.159.04.
    drive(state=DriverState.cc_off())
    nvml()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    state, caps = pynvml.nvmlSystemGetConfComputeState(), pynvml.nvmlSystemGetConfComputeCapabilities()
    settings = pynvml.c_nvmlSystemConfComputeSettings_v1_t()
    assert pynvml.nvmlSystemGetConfComputeSettings(ctypes.byref(settings)) == 0
    sizes = pynvml.nvmlDeviceGetConfComputeMemSizeInfo(device)
    usage = pynvml.nvmlDeviceGetConfComputeProtectedMemoryUsage(device)
    rotation = pynvml.nvmlSystemGetConfComputeKeyRotationThresholdInfo()
    assert (state.environment, state.ccFeature, state.devToolsMode) == (0, 0, 0)
    assert (caps.cpuCaps, caps.gpusCaps) == (0, 1)
    assert bytes(settings) == bytes.fromhex("14000001") + bytes(16)
    assert pynvml.nvmlSystemGetConfComputeGpusReadyState() == 0
    assert (rotation.version, rotation.attackerAdvantage) == (16777232, 60)
    assert (sizes.protectedMemSizeKib, sizes.unprotectedMemSizeKib) == (0, 146591680)
    assert (usage.total, usage.free, usage.used) == (0, 0, 0)
    for call in (
        lambda: pynvml.nvmlDeviceGetConfComputeGpuCertificate(device),
        lambda: pynvml.nvmlDeviceGetConfComputeGpuAttestationReport(device, NONCE),
    ):
        with pytest.raises(pynvml.NVMLError_Unknown):
            call()


def test_structures_have_their_fields_at_the_documented_offsets(handle: Any, libraries: Any) -> None:
    library = ctypes.CDLL(libraries.nvml)
    state = (ctypes.c_uint32 * 4)(*[0xEEEEEEEE] * 4)
    assert library.nvmlSystemGetConfComputeState(state) == 0
    assert list(state) == [2, 1, 0, 0xEEEEEEEE]
    settings = (ctypes.c_uint32 * 6)(0x1000014, *[0xEEEEEEEE] * 5)
    assert library.nvmlSystemGetConfComputeSettings(settings) == 0
    assert list(settings) == [0x1000014, 2, 1, 0, 0, 0xEEEEEEEE]
    for version in (0, 20, 0x1000018, 0x2000018):
        settings[0] = version
        assert library.nvmlSystemGetConfComputeSettings(settings) == 25
    caps = (ctypes.c_uint32 * 3)(*[0xEEEEEEEE] * 3)
    assert library.nvmlSystemGetConfComputeCapabilities(caps) == 0
    assert list(caps) == [3, 1, 0xEEEEEEEE]
    rotation = ctypes.create_string_buffer(bytes.fromhex("10000001") + b"\xee" * 20, 24)
    assert library.nvmlSystemGetConfComputeKeyRotationThresholdInfo(rotation) == 0
    assert rotation.raw[8:] == (60).to_bytes(8, "little") + b"\xee" * 8

    report = ctypes.create_string_buffer(b"\xee" * 12 + NONCE, 12332 + 8)
    assert library.nvmlDeviceGetConfComputeGpuAttestationReport(handle, report) == 0
    size = int.from_bytes(report.raw[4:8], "little")
    assert report.raw[0:4] == report.raw[8:12] == bytes(4)
    assert report.raw[12:44] == NONCE
    assert report.raw[44 + 4 : 44 + 36] == NONCE
    assert report.raw[44 + size - 3 : 44 + size + 1] == b"end\0"

    chain = ctypes.create_string_buffer(b"\xee" * 9224, 9224 + 8)
    assert library.nvmlDeviceGetConfComputeGpuCertificate(handle, chain) == 0
    size = int.from_bytes(chain.raw[4:8], "little")
    assert chain.raw[4104:4115] == b"-----BEGIN "
    assert chain.raw[4104 + size : 9224] == bytes(5120 - size)


@pytest.mark.parametrize("name", ["nvmlInit", "nvmlInit_v2", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_names_with_and_without_suffix_are_exported(libraries: Any, name: str) -> None:
    assert hasattr(ctypes.CDLL(libraries.nvml), name)


def test_calls_without_memory_for_the_answer_are_invalid_and_do_not_crash(handle: Any, libraries: Any) -> None:
    library = ctypes.CDLL(libraries.nvml)
    for name in (
        "nvmlDeviceGetCount_v2",
        "nvmlSystemGetConfComputeState",
        "nvmlSystemGetConfComputeSettings",
        "nvmlSystemGetConfComputeCapabilities",
        "nvmlSystemGetConfComputeGpusReadyState",
        "nvmlSystemGetConfComputeKeyRotationThresholdInfo",
    ):
        assert getattr(library, name)(None) == 2, name
    for name in (
        "nvmlDeviceGetArchitecture",
        "nvmlDeviceGetConfComputeMemSizeInfo",
        "nvmlDeviceGetConfComputeProtectedMemoryUsage",
        "nvmlDeviceGetConfComputeGpuCertificate",
        "nvmlDeviceGetConfComputeGpuAttestationReport",
        "nvmlDeviceGetIndex",
    ):
        assert getattr(library, name)(handle, None) == 2, name
    assert library.nvmlDeviceGetName(handle, None, 96) == 2
    assert library.nvmlDeviceGetHandleByIndex_v2(0, None) == 2


@pytest.mark.parametrize("value", [0, 1, 0xDEADBEEF])
def test_a_handle_that_nvml_did_not_give_is_invalid(handle: Any, libraries: Any, value: int) -> None:
    library = ctypes.CDLL(libraries.nvml)
    number = ctypes.c_uint()
    assert library.nvmlDeviceGetArchitecture(ctypes.c_void_p(value), ctypes.byref(number)) == 2


def test_a_text_needs_room_for_its_end(handle: Any, libraries: Any) -> None:
    library = ctypes.CDLL(libraries.nvml)
    text = ctypes.create_string_buffer(b"\xee" * 32, 32)
    assert library.nvmlDeviceGetVbiosVersion(handle, text, 14) == 7
    assert text.raw == b"\xee" * 32
    assert library.nvmlDeviceGetVbiosVersion(handle, text, 15) == 0
    assert text.raw[:16] == b"96.00.A5.00.1A\0\xee"


def test_an_index_without_a_gpu_is_invalid(handle: Any) -> None:
    for index in (2, 1023, 1024, 0xFFFFFFFF):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlDeviceGetHandleByIndex(index)


@pytest.mark.parametrize(("value", "text"), [(0, b"successful"), (15, b"lost"), (999, b"Unknown"), (-5, b"Unknown")])
def test_errors_have_texts(libraries: Any, value: int, text: bytes) -> None:
    library = ctypes.CDLL(libraries.nvml)
    library.nvmlErrorString.restype = ctypes.c_char_p
    assert text in library.nvmlErrorString(value)


def test_a_fault_of_one_call_leaves_the_others_alone_and_can_be_lifted(drive: Any, nvml: Any) -> None:
    server = drive(faults={"nvmlDeviceGetName": Fault(return_code=15)})
    nvml()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        pynvml.nvmlDeviceGetName(device)
    assert pynvml.nvmlDeviceGetUUID(device)
    del server.faults["nvmlDeviceGetName"]
    assert pynvml.nvmlDeviceGetName(device)
    server.change(cc_feature=0)
    assert pynvml.nvmlSystemGetConfComputeState().ccFeature == 0


def test_a_call_that_hangs_ends_with_the_server(drive: Any, nvml: Any) -> None:
    server = drive(faults={"nvmlDeviceGetCount": Fault(hang=True)})
    library: NvmlLibrary = nvml()
    job = library.start("count", lambda calls: calls.ask("nvmlDeviceGetCount"))
    arrived = time.monotonic() + 5
    while not server.calls("nvmlDeviceGetCount") and time.monotonic() < arrived:
        pass
    assert not job.finished
    server.close()
    with pytest.raises(Exception, match="driver is not loaded"):
        library.run("count", lambda calls: calls.ask("nvmlDeviceGetCount"), timeout=5)


def test_many_threads_may_call_at_once(drive: Any, nvml: Any) -> None:
    drive(gpus=4)
    nvml()
    wrong: list[int] = []

    def work(index: int) -> None:
        device = pynvml.nvmlDeviceGetHandleByIndex(index % 4)
        for round_ in range(10):
            nonce = bytes([index, round_]) * 16
            report = pynvml.nvmlDeviceGetConfComputeGpuAttestationReport(device, nonce)
            if bytes(report.attestationReport[4:36]) != nonce:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []
