"""The compiled driver in processes of their own: building it, finding it, losing it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nvattest.errors import InputError
from nvattest.testing.native import DriverLibraries, DriverServer, build_driver_libraries, place_driver_libraries

ROOT = Path(__file__).resolve().parents[2]
GPU = SimpleNamespace(
    uuid="GPU-1",
    name="NVIDIA H100",
    architecture=9,
    driver_version="550.90.07",
    vbios_version="96.00",
    chain_pem=b"chain",
    report=lambda nonce: b"report" + nonce,
)
MACHINE = SimpleNamespace(gpus=[GPU], switches=[])
COLLECT = """
import sys
from nvattest.devices import collect_gpus, collect_switches
from nvattest.errors import NvattestError
collect = collect_switches if sys.argv[1] == "switches" else collect_gpus
try:
    print([item.report.hex() for item in collect(bytes(32), timeout=float(sys.argv[2]))])
except NvattestError as error:
    print(error.code, int(error.result_code), error.message)
"""


@pytest.fixture
def server() -> Iterator[DriverServer]:
    with DriverServer(MACHINE) as running:
        yield running


def python(code: str, *arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_nvidias_binding_works_unchanged_on_the_library_path(libraries: DriverLibraries, server: DriverServer) -> None:
    code = """
import pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
report = pynvml.nvmlDeviceGetConfComputeGpuAttestationReport(handle, bytes(range(32)))
print(pynvml.nvmlDeviceGetName(handle), bytes(report.attestationReport[:report.attestationReportSize]).hex())
pynvml.nvmlShutdown()
try:
    pynvml.nvmlDeviceGetCount()
except pynvml.NVMLError_Uninitialized:
    print("uninitialized")
"""
    assert python(code, environment=server.environment(libraries)).splitlines() == [
        "NVIDIA H100 " + (b"report" + bytes(range(32))).hex(),
        "uninitialized",
    ]


def test_collection_finds_the_library_on_the_library_path(libraries: DriverLibraries, server: DriverServer) -> None:
    answer = python(COLLECT, "gpus", "20", environment=server.environment(libraries))
    assert answer == repr([(b"report" + bytes(32)).hex()])


def test_a_library_in_a_placed_folder_needs_no_environment(
    libraries: DriverLibraries, server: DriverServer, tmp_path: Path
) -> None:
    placed = place_driver_libraries(libraries, tmp_path / "lib", address=server.address)
    code = f"""
from nvattest.devices import collect_gpus
print(len(collect_gpus(bytes(32), library_path={placed.nvml!r})))
"""
    assert python(code, environment={}) == "1"
    assert server.calls("nvmlInit")


def test_without_any_library_collection_fails_at_once() -> None:
    started = time.monotonic()
    gpus = python(COLLECT, "gpus", "30", environment={})
    assert time.monotonic() - started < 5
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a real driver")
    assert gpus.startswith("nvml-missing 500 libnvidia-ml.so.1 could not be loaded")


def test_without_the_switch_library_collection_fails_at_once() -> None:
    answer = python(COLLECT, "switches", "30", environment={})
    if not answer.startswith("nscq-missing 600") and os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a real driver")
    assert answer.startswith("nscq-missing 600 libnvidia-nscq.so.2 could not be loaded")


def test_a_library_without_an_address_says_that_no_driver_is_loaded(libraries: DriverLibraries) -> None:
    answer = python(COLLECT, "gpus", "30", environment={"LD_LIBRARY_PATH": libraries.folder})
    assert answer.startswith("driver-not-loaded 500")


def test_a_process_with_a_hanging_call_still_ends(libraries: DriverLibraries, server: DriverServer) -> None:
    from nvattest.testing.native import Fault

    server.faults["nvmlDeviceGetConfComputeGpuAttestationReport"] = Fault(hang=True)
    started = time.monotonic()
    answer = python(COLLECT, "gpus", "0.2", environment=server.environment(libraries))
    assert time.monotonic() - started < 5
    assert answer.startswith("driver-timeout 501 GPU-0: the driver call nvmlDeviceGetConfComputeGpuAttestationReport")


def test_a_text_file_in_place_of_the_library_is_reported(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    answer = python(COLLECT, "gpus", "30", environment={"LD_LIBRARY_PATH": str(tmp_path)})
    assert answer.startswith("nvml-missing 500")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux")
def test_a_killed_simulation_leaves_no_child_no_socket_and_no_file(tmp_path: Path) -> None:
    code = """
import subprocess, sys, time
from types import SimpleNamespace
from nvattest.testing.native import DriverServer, end_with_parent
server = DriverServer(SimpleNamespace(gpus=(), switches=()))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=end_with_parent())
print(child.pid, server.address, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as simulation:
        assert simulation.stdout is not None
        pid, address = simulation.stdout.readline().split()
        with open("/proc/net/unix", encoding="utf-8") as table:
            assert address in table.read()
        simulation.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _is_running(int(pid)):
        time.sleep(0.01)
    assert not _is_running(int(pid))
    with open("/proc/net/unix", encoding="utf-8") as table:
        assert address not in table.read()
    assert list(tmp_path.iterdir()) == []


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_missing_compiler_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build_driver_libraries(tmp_path, environ={"PATH": ""})
    assert caught.value.code == "no-compiler"
    assert "install gcc or clang" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_cc_names_and_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build_driver_libraries(tmp_path, environ={"PATH": os.environ["PATH"], "CC": "no-such-cc -O3"})
    assert "no-such-cc" in caught.value.message


def test_a_compiler_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build_driver_libraries(tmp_path, environ={"PATH": os.environ["PATH"], "CC": "false"})
    assert caught.value.code == "compiler-failed"
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(InputError) as caught:
        build_driver_libraries(blocker / "cache", environ={"PATH": os.environ["PATH"], "CC": "true"})
    assert caught.value.code == "cache-folder"


def test_the_source_compiles_without_a_warning_and_is_built_once(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    environ = {"PATH": os.environ["PATH"], "CC": "gcc -Werror"}
    first = build_driver_libraries(tmp_path, environ=environ)
    written = os.stat(first.nvml).st_mtime_ns
    assert build_driver_libraries(tmp_path, environ=environ) == first
    assert os.stat(first.nvml).st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [os.path.basename(first.folder)]
