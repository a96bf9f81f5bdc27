"""The server of the simulated driver: its socket, what it does with strangers, and how faults are spelled."""

from __future__ import annotations

import os
import re
import socket
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nvattest.errors import InputError
from nvattest.testing import driver
from nvattest.testing.driver import DriverServer
from nvattest.testing.driver_answers import CALLS, DriverState, Fault

NOBODY = SimpleNamespace(gpus=(), switches=())


def call(server: DriverServer, raw: bytes) -> bytes:
    address = server.address
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect("\0" + address[1:] if address.startswith("@") else address)
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        try:
            return client.recv(65536)
        except ConnectionResetError:  # closed with some of the request unread
            return b""


def request(name: bytes, device: int = 0xFFFFFFFF, data: bytes = b"") -> bytes:
    body = bytes([len(name)]) + name + struct.pack("<I", device) + data
    return struct.pack("<I", len(body)) + body


def test_the_socket_is_nowhere_on_disk_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with DriverServer(NOBODY) as server:
        assert server.address.startswith("@nvattest-sim-")
        assert call(server, request(b"nvmlInit")) == struct.pack("<II", 4, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_socket_file_is_removed_on_close(tmp_path: Path) -> None:
    with DriverServer(NOBODY, tmp_path) as server:
        assert call(server, request(b"nvmlInit")) == struct.pack("<II", 4, 0)
        assert [path.name for path in tmp_path.iterdir()] == ["driver.sock"]
    server.close()
    assert list(tmp_path.iterdir()) == []


def test_a_socket_file_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "driver.sock"))
    with DriverServer(NOBODY, tmp_path) as server:
        assert call(server, request(b"nvmlInit"))


def test_a_socket_file_in_use_is_not_taken_over(tmp_path: Path) -> None:
    with DriverServer(NOBODY, tmp_path) as server, pytest.raises(InputError) as caught:
        DriverServer(NOBODY, tmp_path)
    assert caught.value.code == "socket"
    server.close()


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        DriverServer(NOBODY, tmp_path / "missing")


def test_a_path_longer_than_a_socket_address_works(
    tmp_path: Path, libraries: Any, nvml: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with DriverServer(NOBODY, folder) as server:
        assert len(server.address) > 108
        monkeypatch.setenv("NVATTEST_SIM_SOCKET", server.address)
        nvml().close()
        assert [item.name for item in server.calls()] == ["nvmlInit", "nvmlShutdown"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x05",
        struct.pack("<I", 0),
        struct.pack("<I", 0xFFFFFFFF) + b"x" * 100,
        struct.pack("<I", 100) + b"short",
        struct.pack("<I", 5) + b"\xffabcd",
        struct.pack("<I", 6) + b"\x01\xff\x00\x00\x00\x00",
    ],
)
def test_a_broken_request_is_dropped_and_the_server_goes_on(raw: bytes) -> None:
    with DriverServer(NOBODY) as server:
        assert call(server, raw) == b""
        assert call(server, request(b"nvmlInit")) == struct.pack("<II", 4, 0)
        assert server.errors == []


@pytest.mark.parametrize(
    ("name", "device", "code"),
    [
        (b"nvmlNoSuchCall", 0xFFFFFFFF, 13),
        (b"nvmlDeviceGetName", 3, 2),
        (b"nvmlSystemSetConfComputeGpusReadyState", 0xFFFFFFFF, 999),
    ],
)
def test_a_call_that_makes_no_sense_gets_an_error_code(name: bytes, device: int, code: int) -> None:
    with DriverServer(NOBODY) as server:
        assert call(server, request(name, device)) == struct.pack("<II", 4, code)


def test_the_state_fits_the_platform() -> None:
    assert DriverState.of(SimpleNamespace(mode="spt")) == DriverState()
    assert DriverState.of(SimpleNamespace(mode="mpt")).multi_gpu_mode == 2
    ppcie = DriverState.of(SimpleNamespace(mode="ppcie", switches=[object()] * 4))
    assert (ppcie.cc_feature, ppcie.multi_gpu_mode, ppcie.gives_evidence) == (0, 1, True)
    assert not DriverState.cc_off().gives_evidence


@pytest.mark.parametrize(
    ("text", "key", "fault"),
    [
        ("nvmlDeviceGetName=999", "nvmlDeviceGetName", Fault(return_code=999)),
        ("nvmlDeviceGetName@2=hang", "nvmlDeviceGetName@2", Fault(hang=True)),
        ("nvmlInit=delay:1.5", "nvmlInit", Fault(delay=1.5)),
        ("nvmlDeviceGetCount=size:0xffffffff", "nvmlDeviceGetCount", Fault(size=0xFFFFFFFF)),
        ("nscq:uuid=-7", "nscq:uuid", Fault(return_code=-7)),
    ],
)
def test_faults_can_be_spelled(text: str, key: str, fault: Fault) -> None:
    assert Fault.parse(text) == (key, fault)


@pytest.mark.parametrize(
    "text",
    ["", "nvmlInit", "=hang", "nvmlInit=", "nvmlInit=often", "nvmlInit=delay:x", "nvmlInit=delay:nan",
     "nvmlInit=delay:-1", "nvmlInit=delay:1e9", "nvmlInit=size:", "nvmlInit@=hang", "nvmlInit@x=hang", "@2=hang"],
)  # fmt: skip
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Fault.parse(text)
    assert caught.value.code == "driver-fault"


def test_a_fault_of_a_call_that_nobody_makes_is_refused_with_the_right_name() -> None:
    with pytest.raises(InputError) as caught:
        Fault.parse("nvmlDeviceGetNam=999")
    assert caught.value.code == "driver-fault"
    assert "nvmlDeviceGetName" in caught.value.hint


def test_the_calls_that_faults_may_name_are_those_that_the_libraries_make() -> None:
    native = Path(driver.__file__).parent / "native"
    source = (native / "nvml.c").read_text() + (native / "nscq.c").read_text()
    asked = set(re.findall(r'(?:ask|ask_device|sim_call)\(\s*"([\w:]+)"', source))
    asked |= set(re.findall(r"^(?:SYSTEM_|DEVICE_|FINDER)\w*\((?:\w+, )?\"?(\w+)", source, re.MULTILINE))
    asked |= {f"nscq:{item}" for item in re.findall(r'strcmp\(item, "(\w+)"', source)}
    assert asked == CALLS


def test_the_environment_for_a_child_names_library_and_socket(libraries: Any) -> None:
    with DriverServer(NOBODY) as server:
        environment = server.environment(libraries, {"LD_LIBRARY_PATH": "/opt/lib", "HOME": "/root"})
    assert environment == {
        "LD_LIBRARY_PATH": f"{libraries.folder}:/opt/lib",
        "HOME": "/root",
        "NVATTEST_SIM_SOCKET": server.address,
    }
    assert os.path.basename(libraries.nvml) == "libnvidia-ml.so.1"
