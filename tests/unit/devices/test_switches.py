"""Collection of switch evidence through the ctypes binding and the compiled library."""

from __future__ import annotations

from typing import Any

import pytest

from nvattest.devices.collect import collect_switches
from nvattest.errors import CollectionError, InputError, ResultCode
from nvattest.model import Architecture, DeviceKind
from nvattest.testing.driver_answers import DriverState, Fault

NONCE = bytes(range(32, 64))


def refuse(libraries: Any, **options: Any) -> CollectionError:
    with pytest.raises(CollectionError) as caught:
        collect_switches(NONCE, library_path=libraries.nscq, **options)
    return caught.value


def test_evidence_of_four_switches_is_what_they_signed(drive: Any, libraries: Any) -> None:
    server = drive(switches=4)
    collected = collect_switches(NONCE, library_path=libraries.nscq)
    for index, (evidence, switch) in enumerate(zip(collected, server._answers._switches.values(), strict=True)):
        assert evidence.report == switch.report(NONCE)
        assert evidence.certificate_chain == switch.chain_pem
        assert (evidence.architecture, evidence.kind) == (Architecture.LS10, DeviceKind.NVSWITCH)
        assert (evidence.nonce, evidence.origin) == (NONCE, "nscq")
        assert evidence.hints == {"index": str(index), "uuid": switch.uuid, "pcie_mode": "3"}


def test_the_session_gets_the_nonce_before_each_report_and_is_ended(drive: Any, libraries: Any) -> None:
    server = drive(switches=2)
    collect_switches(NONCE, library_path=libraries.nscq)
    one = ["nscq:pcie_mode", "nscq_session_set_input", "nscq:attestation_report", "nscq:certificate"]
    assert [call.name for call in server.calls()] == [
        "nscq_session_create",
        "nscq:uuid",
        "nscq:arch",
        *one,
        *one,
        "nscq_session_destroy",
    ]
    assert {call.input for call in server.calls("nscq_session_set_input")} == {NONCE}


def test_a_uuid_that_is_no_label_gets_one(drive: Any, libraries: Any) -> None:
    from types import SimpleNamespace

    drive(switches=[SimpleNamespace(uuid="switch one", chain_pem=b"chain", report=lambda nonce: nonce)])
    (evidence,) = collect_switches(NONCE, library_path=libraries.nscq)
    assert evidence.hints["uuid"].startswith("SWX-")
    assert evidence.report == NONCE


def test_a_nonce_that_is_not_32_bytes_is_refused(libraries: Any) -> None:
    with pytest.raises(InputError):
        collect_switches(bytes(31), library_path=libraries.nscq)


def test_no_switch_is_an_error(drive: Any, libraries: Any) -> None:
    drive(switches=0)
    error = refuse(libraries)
    assert (error.code, error.result_code) == ("no-switch", ResultCode.NSCQ_ERROR)


@pytest.mark.parametrize(("number", "name"), [(0, "SV10"), (1, "LR10"), (7, "unknown")])
def test_other_switches_are_refused_by_name(drive: Any, libraries: Any, number: int, name: str) -> None:
    drive(switches=1, faults={"nscq:arch": Fault(size=number)})
    error = refuse(libraries)
    assert (error.code, error.result_code) == (
        "switch-architecture",
        ResultCode.SWITCH_ARCHITECTURE_NOT_SUPPORTED,
    )
    assert name in error.message


@pytest.mark.parametrize("path", ["nscq:uuid", "nscq:arch", "nscq:attestation_report", "nscq:certificate"])
@pytest.mark.parametrize(("rc", "word"), [(1, "RDT"), (-7, "driver error"), (-8, "timeout"), (-128, "unspecified")])
def test_a_code_of_the_library_is_explained(drive: Any, libraries: Any, path: str, rc: int, word: str) -> None:
    server = drive(switches=1, faults={path: Fault(return_code=rc)})
    error = refuse(libraries)
    assert (error.code, error.result_code) == ("nscq-error", ResultCode.NSCQ_ERROR)
    assert word in error.message
    assert error.hint
    assert server.calls()[-1].name == "nscq_session_destroy"


def test_a_session_that_only_warns_is_not_used(drive: Any, libraries: Any) -> None:
    drive(switches=1, faults={"nscq_session_create": Fault(return_code=1)})
    error = refuse(libraries)
    assert (error.code, error.result_code) == ("nscq-session", ResultCode.NSCQ_INIT_FAILED)


@pytest.mark.parametrize("size", [0, 0x2001, 0xFFFFFFFF])
def test_a_report_size_outside_its_array_is_refused(drive: Any, libraries: Any, size: int) -> None:
    drive(switches=1, faults={"nscq:attestation_report": Fault(size=size)})
    assert refuse(libraries).code == "driver-size"


@pytest.mark.parametrize("size", [0, 0x1401, 0xFFFFFFFF])
def test_a_chain_size_outside_its_array_is_refused(drive: Any, libraries: Any, size: int) -> None:
    drive(switches=1, faults={"nscq:certificate": Fault(size=size)})
    assert refuse(libraries).code == "driver-size"


def test_nul_bytes_that_the_library_counts_after_a_chain_are_dropped_and_told(drive: Any, libraries: Any) -> None:
    server = drive(switches=1)
    (switch,) = server._answers._switches.values()
    drive(switches=1, faults={"nscq:certificate": Fault(content=switch.chain_pem + bytes(1))})
    (evidence,) = collect_switches(NONCE, library_path=libraries.nscq)
    assert evidence.certificate_chain == switch.chain_pem
    assert evidence.origin == "nscq, 1 NUL byte after the chain dropped"


@pytest.mark.parametrize(("count", "code"), [(1000, "switch-count"), (2, "switch-duplicate")])
def test_absurd_lists_of_switches_are_refused(drive: Any, libraries: Any, count: int, code: str) -> None:
    drive(switches=1, faults={"nscq:uuid": Fault(size=count)})
    assert refuse(libraries).code == code


def test_a_hang_is_cut_off_and_named(drive: Any, libraries: Any) -> None:
    drive(switches=1, faults={"nscq:attestation_report": Fault(hang=True)})
    error = refuse(libraries, timeout=0.2)
    assert (error.code, error.result_code) == ("driver-timeout", ResultCode.NSCQ_ERROR)
    assert "attestation_report" in error.message


def test_the_protected_pcie_mode_is_a_hint(drive: Any, libraries: Any) -> None:
    drive(switches=1, state=DriverState(pcie_mode=0))
    assert collect_switches(NONCE, library_path=libraries.nscq)[0].hints["pcie_mode"] == "0"
    drive(switches=1, faults={"nscq:pcie_mode": Fault(return_code=-7)})
    assert "pcie_mode" not in collect_switches(NONCE, library_path=libraries.nscq)[0].hints


def test_a_driver_that_is_not_there_is_reported(libraries: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVATTEST_SIM_SOCKET", "@nvattest-nobody-listens-here")
    error = refuse(libraries)
    assert (error.code, error.result_code) == ("nscq-session", ResultCode.NSCQ_INIT_FAILED)


def test_a_library_that_is_missing_is_named(tmp_path: Any) -> None:
    with pytest.raises(CollectionError) as caught:
        collect_switches(NONCE, library_path=tmp_path / "libnvidia-nscq.so.2")
    assert (caught.value.code, caught.value.result_code) == ("nscq-missing", ResultCode.NSCQ_INIT_FAILED)


def test_a_library_without_the_functions_is_named(libraries: Any) -> None:
    with pytest.raises(CollectionError) as caught:
        collect_switches(NONCE, library_path=libraries.nvml)
    assert (caught.value.code, caught.value.result_code) == ("nscq-function-missing", ResultCode.NSCQ_INIT_FAILED)
