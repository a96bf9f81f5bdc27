"""The compiled driver in processes of their own: building it, finding it, losing it."""

from __future__ import annotations

import json
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
from nvattest.testing.driver import (
    NSCQ_NAME,
    NVML_NAME,
    DriverLibraries,
    DriverServer,
    build_driver_libraries,
    place_driver_libraries,
)
from nvattest.testing.driver_answers import DriverState, Fault, board_answer, cuda_version, nvml_version, switch_uuid

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
from nvattest.devices.collect import collect_gpus, collect_switches
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


MONITOR = """
import ctypes, json, pynvml as N
N.nvmlInit()
said = {"driver": N.nvmlSystemGetDriverVersion(), "nvml": N.nvmlSystemGetNVMLVersion(),
        "cuda": N.nvmlSystemGetCudaDriverVersion()}
for index in range(N.nvmlDeviceGetCount()):
    h = N.nvmlDeviceGetHandleByIndex(index)
    pci, memory, rates = N.nvmlDeviceGetPciInfo(h), N.nvmlDeviceGetMemoryInfo(h), N.nvmlDeviceGetUtilizationRates(h)
    more = N.nvmlDeviceGetMemoryInfo(h, version=N.nvmlMemory_v2)
    for found in (N.nvmlDeviceGetHandleByPciBusId(pci.busId), N.nvmlDeviceGetHandleByUUID(N.nvmlDeviceGetUUID(h))):
        assert N.nvmlDeviceGetIndex(found) == index
    assert N.nvmlDeviceGetMinorNumber(h) == index and not N.nvmlDeviceIsMigDeviceHandle(h)
    assert memory.total == more.total == memory.free + memory.used == more.free + more.used + more.reserved
    for call in (N.nvmlDeviceGetFanSpeed, N.nvmlDeviceGetCurrentDriverModel):
        try:
            raise SystemExit(f"{call.__name__}: {call(h)}")
        except N.NVMLError_NotSupported:
            pass
    processes = [N.nvmlDeviceGetComputeRunningProcesses(h), N.nvmlDeviceGetGraphicsRunningProcesses(h),
                 N.nvmlDeviceGetMPSComputeRunningProcesses(h)]
    said[index] = {
        "name": N.nvmlDeviceGetName(h), "bus": pci.busId, "id": pci.pciDeviceId, "total": memory.total >> 20,
        "rates": [rates.gpu, rates.memory], "capability": N.nvmlDeviceGetCudaComputeCapability(h),
        "power": [N.nvmlDeviceGetPowerUsage(h) <= N.nvmlDeviceGetEnforcedPowerLimit(h),
                  N.nvmlDeviceGetPowerManagementLimit(h), N.nvmlDeviceGetPowerManagementDefaultLimit(h),
                  N.nvmlDeviceGetPowerManagementLimitConstraints(h)],
        "temperature": [N.nvmlDeviceGetTemperature(h, N.NVML_TEMPERATURE_GPU),
                        N.nvmlDeviceGetTemperatureThreshold(h, N.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)],
        "clocks": [[get(h, kind) for kind in range(4)] for get in (N.nvmlDeviceGetClockInfo, N.nvmlDeviceGetMaxClockInfo)],
        "engines": [get(h) for get in (N.nvmlDeviceGetEncoderUtilization, N.nvmlDeviceGetDecoderUtilization)],
        "ecc": [N.nvmlDeviceGetEccMode(h), N.nvmlDeviceGetTotalEccErrors(h, 1, 0)], "mig": N.nvmlDeviceGetMigMode(h),
        "link": [N.nvmlDeviceGetCurrPcieLinkGeneration(h), N.nvmlDeviceGetMaxPcieLinkWidth(h)],
        "bar1": N.nvmlDeviceGetBAR1MemoryInfo(h).bar1Total, "energy": N.nvmlDeviceGetTotalEnergyConsumption(h) > 0,
        "modes": [N.nvmlDeviceGetComputeMode(h), N.nvmlDeviceGetDisplayActive(h), N.nvmlDeviceGetPerformanceState(h),
                  N.nvmlDeviceGetPersistenceMode(h), N.nvmlDeviceGetBrand(h), N.nvmlDeviceGetCurrentClocksThrottleReasons(h)],
        "cores": N.nvmlDeviceGetNumGpuCores(h), "processes": processes,
    }
print(json.dumps(said))
"""


def test_a_monitor_reads_through_nvidias_binding_what_a_real_board_says(libraries: DriverLibraries) -> None:
    """The figures of one H100 80GB HBM3 under driver 580.159.04 are those of real hardware."""
    gpus = [
        SimpleNamespace(**{**vars(GPU), "uuid": f"GPU-{number}", "name": name, "driver_version": "580.159.04"})
        for number, name in enumerate(("NVIDIA H100 80GB HBM3", "NVIDIA B200", "NVIDIA H100 NVL", "something new"))
    ]
    with DriverServer(SimpleNamespace(gpus=gpus, switches=[])) as running:
        said = json.loads(python(MONITOR, environment=running.environment(libraries)))
    assert (said["driver"], said["nvml"], said["cuda"]) == ("580.159.04", "13.580.159.04", 13000)
    assert said["0"] == {
        "name": "NVIDIA H100 80GB HBM3", "bus": "00000000:01:00.0", "id": 0x233010DE, "total": 81559, "rates": [0, 0],
        "capability": [9, 0], "power": [True, 700000, 700000, [200000, 700000]], "temperature": [36, 95],
        "clocks": [[360, 360, 2619, 765], [1980, 1980, 2619, 1545]], "engines": [[0, 100000]] * 2, "ecc": [[1, 1], 0],
        "mig": [0, 0], "link": [5, 16], "bar1": 1 << 37, "energy": True, "modes": [0, 0, 0, 1, 14, 1], "cores": 16896,
        "processes": [[], [], []],
    }  # fmt: skip
    assert [said[index]["bus"] for index in "123"] == [f"00000000:0{number}:00.0" for number in (2, 3, 4)]
    assert [said[index]["total"] for index in "123"] == [183359, 95830, 81559]
    assert [said[index]["capability"] for index in "123"] == [[10, 0], [9, 0], [9, 0]]


@pytest.mark.parametrize(
    ("call", "which", "code"),
    [
        ("Temperature", 7, 2), ("ClockInfo", 77, 2), ("PcieThroughput", 2, 2), ("TemperatureThreshold", 8, 2),
        ("TemperatureThreshold", 5, 3), ("ApplicationsClock", 3, 3), ("TemperatureThreshold", 3, 0),
    ],
)  # fmt: skip
def test_a_kind_that_nvml_does_not_know_is_an_invalid_argument_and_one_that_the_board_lacks_is_not_supported(
    call: str, which: int, code: int
) -> None:
    data = which.to_bytes(4, "little")
    assert board_answer(f"nvmlDeviceGet{call}", 0, "NVIDIA H100 80GB HBM3", data).code == code


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [("535.104.05", 12020), ("550.90.07", 12040), ("570.86.15", 12080), ("590.12", 13010), ("620.12", 13020)],
)
def test_the_versions_of_driver_nvml_and_cuda_fit_one_another(driver: str, cuda: int) -> None:
    state = DriverState()
    assert (cuda_version(driver), nvml_version(driver)) == (cuda, f"{cuda // 1000}.{driver}")
    assert state.system(driver_version=driver, gpu_count=1).nvml_version == f"{cuda // 1000}.{driver}"


def test_libraries_are_found_by_the_names_without_a_version(libraries: DriverLibraries, tmp_path: Path) -> None:
    placed = place_driver_libraries(libraries, tmp_path, address="@nobody")
    place_driver_libraries(libraries, tmp_path, address="@nobody")
    for folder in (libraries.folder, placed.folder):
        for name, target in (("libnvidia-ml.so", NVML_NAME), ("libnvidia-nscq.so", NSCQ_NAME)):
            assert os.readlink(os.path.join(folder, name)) == target
    # As NVIDIA's verifier of protected PCIe searches, and as Google's Go library opens.
    code = "import ctypes, ctypes.util; print(ctypes.util.find_library('nvidia-nscq')); ctypes.CDLL('libnvidia-ml.so')"
    found = python(code, environment={"LD_LIBRARY_PATH": libraries.folder, "PATH": os.environ["PATH"]})
    assert found in (NSCQ_NAME, "None"), "without a linker the search finds nothing"


SWITCHES = """
import ctypes, json
class Uuid(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint8 * 16)]
class Version(ctypes.Structure):
    _fields_ = [("patch", ctypes.c_uint32, 12), ("minor", ctypes.c_uint32, 12), ("major", ctypes.c_uint32, 8)]
class Report(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("data", ctypes.c_uint8 * 0x2000)]
class Certificate(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint8 * 0x1400), ("size", ctypes.c_uint32)]
class Result(ctypes.Structure):
    _fields_ = [("rc", ctypes.c_int8), ("session", ctypes.c_void_p)]
N = ctypes.CDLL("libnvidia-nscq.so")
N.nscq_session_create.restype = Result
N.nscq_session_path_observe.restype = ctypes.c_int8
session = ctypes.c_void_p(N.nscq_session_create(1).session)
N.nscq_session_set_input(session, 0, bytes(range(32)), 32)
said = {}
def observe(path, kind, read):
    kept = said.setdefault(path, [])
    def observer(uuid, rc, value, _data):
        kept.append([bytes(uuid.contents.bytes).hex() if uuid else "", rc, read(value) if rc == 0 else None])
    made = ctypes.CFUNCTYPE(None, ctypes.POINTER(Uuid), ctypes.c_int8, kind, ctypes.c_void_p)(observer)
    said[path + " rc"] = N.nscq_session_path_observe(session, path.encode(), made, None, 0)
sized = lambda value: bytes(value.data)[:value.size].hex()
observe("/{nvswitch}/config/pcie_mode", ctypes.c_int8, int)
observe("/{nvswitch}/config/attestation_report", Report, sized)
observe("/{nvswitch}/config/certificate", Certificate, sized)
observe("/drv/nvswitch/version", Version, lambda value: [value.major, value.minor, value.patch])
observe("/{nvswitch}/config/nothing", ctypes.c_int8, int)
print(json.dumps(said))
"""


def test_the_paths_of_all_switches_and_of_the_driver_are_those_that_nvidias_verifier_reads(
    libraries: DriverLibraries,
) -> None:
    switches = [
        SimpleNamespace(uuid=f"SWX-{number}", chain_pem=b"chain %d" % number, report=lambda nonce: b"report" + nonce)
        for number in range(4)
    ]
    with DriverServer(SimpleNamespace(gpus=[GPU], switches=switches)) as running:
        said = json.loads(python(SWITCHES, environment=running.environment(libraries)))
        running.faults["nscq:certificate"] = Fault(return_code=-7)
        failed = json.loads(python(SWITCHES, environment=running.environment(libraries)))
    ids = [switch_uuid(switch.uuid).hex() for switch in switches]
    assert said["/{nvswitch}/config/pcie_mode"] == [[uuid, 0, 3] for uuid in ids]
    report = (b"report" + bytes(range(32))).hex()
    assert said["/{nvswitch}/config/attestation_report"] == [[uuid, 0, report] for uuid in ids]
    chains = [[uuid, 0, switch.chain_pem.hex()] for uuid, switch in zip(ids, switches, strict=True)]
    assert said["/{nvswitch}/config/certificate"] == chains
    assert said["/drv/nvswitch/version"] == [["00" * 16, 0, [550 & 0xFF, 90, 7]]]
    assert said["/{nvswitch}/config/nothing rc"] == -1
    assert [rc for _, rc, _ in failed["/{nvswitch}/config/certificate"]] == [-7] * 4
    assert failed["/{nvswitch}/config/certificate rc"] == -7


def test_collection_finds_the_library_on_the_library_path(libraries: DriverLibraries, server: DriverServer) -> None:
    answer = python(COLLECT, "gpus", "20", environment=server.environment(libraries))
    assert answer == repr([(b"report" + bytes(32)).hex()])


def test_a_library_in_a_placed_folder_needs_no_environment(
    libraries: DriverLibraries, server: DriverServer, tmp_path: Path
) -> None:
    placed = place_driver_libraries(libraries, tmp_path / "lib", address=server.address)
    code = f"""
from nvattest.devices.collect import collect_gpus
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
    from nvattest.testing.driver_answers import Fault

    server.faults["nvmlDeviceGetConfComputeGpuAttestationReport"] = Fault(hang=True)
    # The limit is also for opening the driver first; a process that does not end is killed by the helper's own.
    answer = python(COLLECT, "gpus", "3", environment=server.environment(libraries))
    assert answer.startswith("driver-timeout 501 GPU-0: the driver call nvmlDeviceGetConfComputeGpuAttestationReport")


def test_a_text_file_in_place_of_the_library_is_reported(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    answer = python(COLLECT, "gpus", "30", environment={"LD_LIBRARY_PATH": str(tmp_path)})
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a real driver")
    assert answer.startswith("nvml-missing 500")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux")
def test_a_killed_simulation_leaves_no_child_no_socket_and_no_file(tmp_path: Path) -> None:
    code = """
import subprocess, sys, time
from types import SimpleNamespace
from nvattest.testing.driver import DriverServer, end_with_parent
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


def test_code_is_loaded_from_no_folder_that_others_can_write_into(tmp_path: Path) -> None:
    made = build_driver_libraries(tmp_path / "cache")
    home = Path(made.folder)
    for path, mode in ((tmp_path / "cache", 0o777), (home, 0o777), (Path(made.nvml), 0o666)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(InputError, match="others may write") as caught:
            build_driver_libraries(tmp_path / "cache")
        assert caught.value.code == "cache-folder"
        path.chmod(before)
    assert build_driver_libraries(tmp_path / "cache") == made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["cache", "folder", "library"])
def test_code_of_another_user_is_not_loaded(tmp_path: Path, what: str) -> None:
    made = build_driver_libraries(tmp_path / "cache")
    path = {"cache": tmp_path / "cache", "folder": Path(made.folder), "library": Path(made.nvml)}[what]
    os.chown(path, 12345, 12345)
    with pytest.raises(InputError, match="belongs to user 12345"):
        build_driver_libraries(tmp_path / "cache")


def test_code_is_loaded_through_no_link(tmp_path: Path) -> None:
    made = build_driver_libraries(tmp_path / "cache")
    Path(made.folder).rename(tmp_path / "elsewhere")
    Path(made.folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="symbolic link"):
        build_driver_libraries(tmp_path / "cache")


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
