"""Collection of GPU evidence through nvidia-ml-py and the compiled library."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from nvattest.devices.collect import collect_gpus, collect_switches
from nvattest.devices.nvml import NvmlLibrary
from nvattest.devices.state import read_state
from nvattest.errors import CollectionError, InputError, ResultCode
from nvattest.evidence import dump_evidence, load_evidence
from nvattest.model import Architecture, DeviceKind, Nonce
from nvattest.testing import Platform
from nvattest.testing.driver_answers import DriverState, Fault

NONCE = bytes(range(32))
REPORT = "nvmlDeviceGetConfComputeGpuAttestationReport"
CERTIFICATE = "nvmlDeviceGetConfComputeGpuCertificate"


def refuse(library: NvmlLibrary, **options: Any) -> CollectionError:
    with pytest.raises(CollectionError) as caught:
        collect_gpus(NONCE, library=library, **options)
    assert caught.value.hint
    return caught.value


def test_evidence_of_one_gpu_is_what_the_device_signed(drive: Any, nvml: Any) -> None:
    server = drive()
    (evidence,) = collect_gpus(Nonce(NONCE), library=nvml())
    gpu = server._answers._gpus[0]
    assert evidence.report == gpu.report(NONCE)
    assert evidence.certificate_chain == gpu.chain_pem
    assert (evidence.nonce, evidence.architecture, evidence.kind, evidence.origin) == (
        NONCE,
        Architecture.HOPPER,
        DeviceKind.GPU,
        "nvml",
    )
    assert evidence.hints == {
        "index": "0",
        "uuid": gpu.uuid,
        "name": "NVIDIA H100 80GB HBM3",
        "driver_version": "580.159.04",
        "vbios_version": "96.00.A5.00.1A",
        "board_part_number": "692-2G520-0282-001",
        "multi_gpu_mode": "none",
    }


def test_collected_evidence_can_be_written_and_read_back(drive: Any, nvml: Any) -> None:
    drive(gpus=2)
    collected = collect_gpus(NONCE, library=nvml())
    import json

    again = load_evidence(json.dumps(dump_evidence(collected)))
    assert [item.report for item in again] == [item.report for item in collected]
    assert [item.nonce for item in again] == [NONCE, NONCE]


def test_a_library_is_opened_and_closed_where_none_is_given(drive: Any, libraries: Any) -> None:
    server = drive()
    assert len(collect_gpus(NONCE, library_path=libraries.nvml)) == 1
    names = [call.name for call in server.calls()]
    assert (names[0], names[-1]) == ("nvmlInit", "nvmlShutdown")


def test_the_state_is_read_before_any_gpu_is_asked(drive: Any, nvml: Any) -> None:
    server = drive()
    collect_gpus(NONCE, library=nvml())
    names = [call.name for call in server.calls()]
    assert names.index("nvmlSystemGetConfComputeState") < names.index("nvmlDeviceGetHandleByIndex")
    assert names.index("nvmlSystemGetConfComputeSettings") < names.index("nvmlDeviceGetHandleByIndex")
    (report,) = server.calls(REPORT)
    assert (report.device, report.input, report.return_code) == (0, NONCE, 0)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_nonce_that_is_not_32_bytes_is_refused_before_the_driver_is_touched(length: int) -> None:
    with pytest.raises(InputError) as caught:
        collect_gpus(bytes(length), library_path="/nonexistent/libnvidia-ml.so.1")
    assert caught.value.code == "nonce-size"


def test_eight_gpus_are_asked_at_the_same_time_and_come_in_order(drive: Any, nvml: Any) -> None:
    meeting = threading.Barrier(8, timeout=10)

    def device(index: int) -> SimpleNamespace:
        def report(nonce: bytes) -> bytes:
            meeting.wait()  # passes only when all eight are here together
            return b"report of %d" % index + nonce

        return SimpleNamespace(
            uuid=f"GPU-{index}",
            name="B200",
            architecture=10,
            driver_version="590.1",
            vbios_version="97.0",
            chain_pem=b"x",
            report=report,
        )

    drive(gpus=[device(index) for index in range(8)])
    collected = collect_gpus(NONCE, library=nvml(), timeout=10)
    assert [item.report for item in collected] == [b"report of %d" % index + NONCE for index in range(8)]
    assert {item.architecture for item in collected} == {Architecture.BLACKWELL}


def test_confidential_computing_off_is_said_with_code_509_and_no_gpu_is_asked(drive: Any, nvml: Any) -> None:
    server = drive(state=DriverState.cc_off())
    error = refuse(nvml())
    assert (error.code, error.result_code) == ("cc-off", ResultCode.GPU_MODE_NOT_SUPPORTED)
    assert "580.159.04" in error.message
    assert not server.calls(REPORT)


def test_gpus_in_protected_pcie_mode_attest_with_the_cc_feature_off(drive: Any, nvml: Any) -> None:
    drive(gpus=8, state=DriverState(cc_feature=0, multi_gpu_mode=1))
    assert len(collect_gpus(NONCE, library=nvml())) == 8


@pytest.mark.parametrize("multi_gpu_mode", [0, 2, 3, 0xFFFFFFFF])
def test_no_other_multi_gpu_mode_replaces_the_cc_feature(drive: Any, nvml: Any, multi_gpu_mode: int) -> None:
    drive(state=DriverState(cc_feature=0, multi_gpu_mode=multi_gpu_mode))
    assert refuse(nvml()).code == "cc-off"


def test_an_unknown_cc_feature_is_not_on(drive: Any, nvml: Any) -> None:
    drive(state=DriverState(cc_feature=2))
    assert refuse(nvml()).code == "cc-off"


@pytest.mark.parametrize("dev_tools", [1, 2])
def test_devtools_mode_is_refused_by_default(drive: Any, nvml: Any, dev_tools: int) -> None:
    server = drive(state=DriverState(dev_tools=dev_tools))
    error = refuse(nvml())
    assert (error.code, error.result_code) == ("devtools-on", ResultCode.GPU_MODE_NOT_SUPPORTED)
    assert not server.calls(REPORT)


def test_devtools_mode_can_be_allowed_and_is_marked(drive: Any, nvml: Any) -> None:
    drive(state=DriverState(dev_tools=1))
    (evidence,) = collect_gpus(NONCE, library=nvml(), allow_devtools=True)
    assert evidence.hints["dev_tools"] == "on"


def test_no_gpu_is_an_error(drive: Any, nvml: Any) -> None:
    drive(gpus=0)
    assert refuse(nvml()).code == "no-gpu"


@pytest.mark.parametrize("count", [65, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_absurd_number_of_gpus_is_refused(drive: Any, nvml: Any, count: int) -> None:
    server = drive(faults={"nvmlDeviceGetCount": Fault(size=count)})
    assert refuse(nvml()).code == "gpu-count"
    assert not server.calls("nvmlDeviceGetHandleByIndex")


def test_a_count_above_the_real_one_fails_at_the_missing_gpu(drive: Any, nvml: Any) -> None:
    drive(faults={"nvmlDeviceGetCount": Fault(size=2)})
    error = refuse(nvml())
    assert error.message.startswith("GPU-1: nvmlDeviceGetHandleByIndex")


@pytest.mark.parametrize(("number", "name"), [(7, "Ampere"), (8, "Ada"), (0xFFFFFFFF, "4294967295")])
def test_an_architecture_without_attestation_is_refused_by_name(drive: Any, nvml: Any, number: int, name: str) -> None:
    drive(faults={"nvmlDeviceGetArchitecture": Fault(size=number)})
    error = refuse(nvml())
    assert (error.code, error.result_code) == ("gpu-architecture", ResultCode.GPU_ARCHITECTURE_NOT_SUPPORTED)
    assert name in error.message


@pytest.mark.parametrize(
    ("value", "code", "word"),
    [
        (3, "nvml-not-supported", "Hopper"),
        (4, "nvml-permission", "root"),
        (10, "nvml-timeout", "Xid"),
        (13, "nvml-function-missing", "driver"),
        (15, "gpu-lost", "Xid 79"),
        (16, "gpu-reset-required", "reset"),
        (999, "nvml-unknown", "CC status"),
        (12345, "nvml-error", "dmesg"),
    ],
)
@pytest.mark.parametrize("call", [REPORT, CERTIFICATE])
def test_an_nvml_error_names_gpu_call_and_what_to_look_at(
    drive: Any, nvml: Any, call: str, value: int, code: str, word: str
) -> None:
    drive(gpus=2, faults={f"{call}@1": Fault(return_code=value)})
    error = refuse(nvml())
    assert (error.code, error.result_code) == (code, ResultCode.NVML_ERROR)
    assert error.message.startswith(f"GPU-1: {call} failed")
    assert f"NVML {value}" in error.message
    assert word in error.hint


@pytest.mark.parametrize("size", [0, 0x2001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_report_size_outside_its_array_is_refused(drive: Any, nvml: Any, size: int) -> None:
    drive(faults={REPORT: Fault(size=size)})
    error = refuse(nvml())
    assert error.code == "driver-size"
    assert str(size) in error.message


@pytest.mark.parametrize("size", [0, 0x1401, 0xFFFFFFFF])
def test_a_chain_size_outside_its_array_is_refused(drive: Any, nvml: Any, size: int) -> None:
    drive(faults={CERTIFICATE: Fault(size=size)})
    assert refuse(nvml()).code == "driver-size"


def test_nul_bytes_that_the_driver_counts_after_a_chain_are_dropped_and_told(drive: Any, nvml: Any) -> None:
    chain = Platform.build("hopper-1").devices[0].chain_pem
    drive(faults={CERTIFICATE: Fault(content=chain + bytes(5))})
    (evidence,) = collect_gpus(NONCE, library=nvml())
    assert evidence.certificate_chain == chain
    assert evidence.origin == "nvml, 5 NUL bytes after the chain dropped"


def test_the_largest_report_and_chain_are_taken_whole(drive: Any, nvml: Any) -> None:
    report, chain = bytes(range(256)) * 32, b"c" * 0x1400
    drive(faults={REPORT: Fault(content=report), CERTIFICATE: Fault(content=chain)})
    (evidence,) = collect_gpus(NONCE, library=nvml())
    assert (evidence.report, evidence.certificate_chain) == (report, chain)


def test_a_call_that_hangs_is_cut_off_and_named(drive: Any, nvml: Any) -> None:
    drive(gpus=3, faults={f"{REPORT}@2": Fault(hang=True)})
    library = nvml()
    started = time.monotonic()
    error = refuse(library, timeout=0.3)
    library.close()
    assert time.monotonic() - started < 2
    assert error.code == "driver-timeout"
    assert f"GPU-2: the driver call {REPORT} did not return within 0.3 s" in error.message


def test_a_hang_while_the_state_is_read_is_cut_off_too(drive: Any, nvml: Any) -> None:
    drive(faults={"nvmlSystemGetConfComputeSettings": Fault(hang=True)})
    error = refuse(nvml(), timeout=0.2)
    assert (error.code, "nvmlSystemGetConfComputeSettings" in error.message) == ("driver-timeout", True)


def test_a_hang_while_nvml_initialises_is_a_failed_initialisation(drive: Any, libraries: Any) -> None:
    drive(faults={"nvmlInit": Fault(hang=True)})
    with pytest.raises(CollectionError) as caught:
        collect_gpus(NONCE, library_path=libraries.nvml, timeout=0.2)
    assert (caught.value.code, caught.value.result_code) == ("driver-timeout", ResultCode.NVML_INIT_FAILED)


def test_a_slow_driver_within_the_deadline_is_no_failure(drive: Any, nvml: Any) -> None:
    drive(faults={REPORT: Fault(delay=0.05)})
    assert len(collect_gpus(NONCE, library=nvml(), timeout=10)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetVbiosVersion",
        "nvmlSystemGetConfComputeSettings",
    ],
)
def test_a_hint_that_the_driver_does_not_give_is_left_out(drive: Any, nvml: Any, name: str) -> None:
    drive(faults={name: Fault(return_code=3)})
    (evidence,) = collect_gpus(NONCE, library=nvml())
    assert len(evidence.hints) == 6


@pytest.mark.parametrize(
    ("given", "hint"),
    [(b"\xff\xfe", "unreadable"), (b"a\x1b[31mb", "a\\x1b[31mb"), (b"n" * 95, "n" * 95), ("ä".encode(), "ä")],
)
def test_a_text_of_the_driver_cannot_reach_a_terminal_unfiltered(
    drive: Any, nvml: Any, given: bytes, hint: str
) -> None:
    drive(faults={"nvmlDeviceGetName": Fault(content=given)})
    (evidence,) = collect_gpus(NONCE, library=nvml())
    assert evidence.hints["name"] == hint


def test_a_driver_that_is_not_there_is_a_failed_initialisation(libraries: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVATTEST_SIM_SOCKET", "@nvattest-nobody-listens-here")
    with pytest.raises(CollectionError) as caught:
        collect_gpus(NONCE, library_path=libraries.nvml)
    assert (caught.value.code, caught.value.result_code) == ("driver-not-loaded", ResultCode.NVML_INIT_FAILED)
    assert "modprobe" in caught.value.hint


def test_a_driver_that_goes_away_is_reported(drive: Any, nvml: Any) -> None:
    server = drive()
    library = nvml()
    server.close()
    assert refuse(library).code == "driver-not-loaded"


def test_a_device_that_cannot_sign_fails_the_collection_and_the_server_keeps_the_reason(drive: Any, nvml: Any) -> None:
    def report(nonce: bytes) -> bytes:
        raise RuntimeError("no key")

    gpu = SimpleNamespace(
        uuid="GPU-0", name="x", architecture=9, driver_version="1", vbios_version="1", chain_pem=b"x", report=report
    )
    server = drive(gpus=[gpu])
    assert refuse(nvml()).code == "nvml-unknown"
    assert [str(error) for error in server.errors] == ["no key"]


def test_a_library_that_does_not_exist_is_named(tmp_path: Any) -> None:
    started = time.monotonic()
    with pytest.raises(CollectionError) as caught:
        collect_gpus(NONCE, library_path=tmp_path / "libnvidia-ml.so.1")
    assert time.monotonic() - started < 2
    assert (caught.value.code, caught.value.result_code) == ("nvml-missing", ResultCode.NVML_INIT_FAILED)
    assert str(tmp_path) in caught.value.message


def test_another_library_than_the_one_this_process_uses_is_refused(
    drive: Any, nvml: Any, libraries: Any, tmp_path: Any
) -> None:
    import shutil

    drive()
    nvml()
    shutil.copy(libraries.nvml, tmp_path)
    with pytest.raises(CollectionError) as caught:
        NvmlLibrary.open(tmp_path / "libnvidia-ml.so.1")
    assert caught.value.code == "nvml-other-library"


def test_the_state_is_told_in_words(drive: Any, nvml: Any) -> None:
    drive(gpus=2, state=DriverState(multi_gpu_mode=2, cpu_caps=2, ready=1))
    state = read_state(nvml())
    assert (state.cc_on, state.dev_tools, state.ready, state.gpu_count) == (True, False, True, 2)
    assert (state.driver_version, state.nvml_version) == ("580.159.04", "13.580.159.04")
    assert [str(item).rpartition(".")[2] for item in (state.environment, state.multi_gpu_mode, state.cpu_capability)]
    assert state.environment.name == "PRODUCTION"  # type: ignore[union-attr]
    assert state.multi_gpu_mode.name == "NVLINK_ENCRYPTION"  # type: ignore[union-attr]
    assert state.cpu_capability.name == "INTEL_TDX"  # type: ignore[union-attr]


def test_what_an_older_driver_does_not_know_is_none(drive: Any, nvml: Any) -> None:
    drive(
        faults={
            "nvmlSystemGetConfComputeSettings": Fault(return_code=13),
            "nvmlSystemGetConfComputeGpusReadyState": Fault(return_code=3),
            "nvmlSystemGetConfComputeCapabilities": Fault(return_code=25),
        }
    )
    state = read_state(nvml())
    assert (state.multi_gpu_mode, state.ready, state.cpu_capability, state.gpus_capable) == (None, None, None, None)
    assert state.cc_on


def test_settings_that_fail_are_not_taken_for_settings(drive: Any, nvml: Any) -> None:
    # The binding returns the code of this one call instead of raising it.
    drive(faults={"nvmlSystemGetConfComputeSettings": Fault(return_code=999)})
    assert refuse(nvml()).code == "nvml-unknown"


def test_numbers_without_a_name_are_kept(drive: Any, nvml: Any) -> None:
    drive(state=DriverState(environment=7, multi_gpu_mode=9, cpu_caps=11))
    state = read_state(nvml())
    assert (state.environment, state.multi_gpu_mode, state.cpu_capability) == (7, 9, 11)


@pytest.mark.parametrize(("mode", "word"), [(0, "none"), (1, "protected-pcie"), (2, "nvlink-encryption"), (9, "9")])
def test_the_multi_gpu_mode_is_a_hint(drive: Any, nvml: Any, mode: int, word: str) -> None:
    drive(state=DriverState(multi_gpu_mode=mode))
    (evidence,) = collect_gpus(NONCE, library=nvml())
    assert evidence.hints["multi_gpu_mode"] == word


@pytest.mark.parametrize("name", ["hopper-8-ppcie", "blackwell-2"])
def test_a_platform_gives_in_process_what_it_gives_through_the_driver(
    drive: Any, nvml: Any, libraries: Any, name: str
) -> None:
    platform = Platform.build(name)
    drive(gpus=list(platform.gpus), switches=list(platform.switches), state=platform.driver_state)
    live = collect_gpus(NONCE, library=nvml())
    if platform.switches:
        live += collect_switches(NONCE, library_path=libraries.nscq)
    here = platform.collect(NONCE)
    # Signatures are made anew.
    assert [(a.architecture, a.nonce, a.certificate_chain, a.report[:-96]) for a in live] == [
        (a.architecture, a.nonce, a.certificate_chain, a.report[:-96]) for a in here
    ]
    assert [a.hints for a in live] == [a.hints for a in here]
