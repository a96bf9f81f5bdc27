"""The probes of ``nvattest doctor``: each looks at one thing and says ok, warning or fault, with the remedy.

Nothing here proves anything; it is what the machine says about itself. No probe raises, and none takes long: what talks
to the driver has a deadline.
"""

from __future__ import annotations

import glob
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from nvattest._version import __version__
from nvattest.errors import CollectionError
from nvattest.guest.clock import EARLIEST
from nvattest.model import counted, format_time, parse_time

if TYPE_CHECKING:
    from nvattest.devices.nvml import NvmlCalls, NvmlLibrary
    from nvattest.devices.state import SystemState

OK, WARNING, FAULT = "ok", "warning", "fault"
# No clock that is right is before the day on which this was written.
EARLIEST_CLOCK: Final = parse_time(EARLIEST)
DRIVER_SECONDS: Final = 40.0
_NVIDIA: Final = "0x10de"
_ENVIRONMENT: Final = re.compile(
    r"(NVAT|NVATTEST)_[A-Z0-9_]+|(https?|no)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line: ``id`` for programs, ``status`` ok, warning or fault, what was seen, and the remedy."""

    id: str
    group: str
    status: str
    title: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the probes look; tests point it elsewhere."""

    root: str = "/"
    nvml_path: str | None = None
    nscq_path: str | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)

    def path(self, path: str) -> str:
        """A path of this machine."""
        return os.path.join(self.root, path.lstrip("/"))

    def read(self, path: str, maximum: int = 4096) -> str | None:
        """The beginning of a small file, or None."""
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read(maximum)
        except OSError:
            return None


def examine(machine: Machine, *, timeout: float = DRIVER_SECONDS) -> list[Item]:
    """All probes that need no network, in the order in which people look."""
    items = [*_program(), *_clock(machine), *_cpu(machine)]
    buses = pci_devices(machine)
    items += _bus(buses)
    state: SystemState | None = None
    driver = _kernel_driver(machine, needed=buses[0] > 0)
    items.append(driver)
    items += _simulation()
    nvml, state = _driver(machine, timeout, present=buses[0] > 0 or driver.status == OK)
    items += nvml
    items += _switch_library(machine, switches=buses[1], driver=state.driver_version if state is not None else None)
    return items


def _program() -> Iterator[Item]:
    yield Item(
        id="program", group="program", status=OK, title="nvattest",
        detail=f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    )  # fmt: skip
    for module, name, extra, needed in (
        ("cryptography", "cryptography", "", True),
        ("lxml", "lxml", "", True),
        ("jwt", "PyJWT", "", True),
        ("requests", "requests", "", True),
        ("pynvml", "nvidia-ml-py", "", True),
        ("jinja2", "Jinja2", "report", False),
        ("regopy", "regopy", "rego", False),
        ("awscrt", "awscrt", "fast", False),
    ):
        version = _installed(module, name)
        if version is not None:
            yield Item(id=f"package-{name.lower()}", group="program", status=OK, title=name, detail=version)
        elif needed:
            yield Item(
                id=f"package-{name.lower()}", group="program", status=FAULT, title=name, detail="not installed",
                remedy=f"pip install {name}",
            )  # fmt: skip
        else:
            yield Item(
                id=f"package-{name.lower()}", group="program", status=OK, title=name,
                detail=f"not installed; only the extra '{extra}' needs it",
            )  # fmt: skip
    names = sorted(name for name in os.environ if _ENVIRONMENT.fullmatch(name))
    yield Item(
        id="environment", group="program", status=OK, title="environment",
        detail=f"set: {', '.join(names)}" if names else "no variable changes the defaults",
    )  # fmt: skip


def _installed(module: str, name: str) -> str | None:
    from importlib import metadata, util

    try:
        if util.find_spec(module) is None:
            return None
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        # Frozen programs have the module but no record of its distribution.
        return "version unknown"


def _clock(machine: Machine) -> Iterator[Item]:
    now = machine.clock()
    said = format_time(now)
    if now < EARLIEST_CLOCK:
        days = (EARLIEST_CLOCK - now).days
        yield Item(
            id="clock", group="machine", status=FAULT, title="clock",
            detail=f"{said}: at least {days} days behind; certificates and revocation answers cannot be judged",
            remedy="set the clock (chronyd, systemd-timesyncd), and order attestation after time-sync.target",
        )  # fmt: skip
        return
    synchronised = os.path.exists(machine.path("/run/systemd/timesync/synchronized"))
    note = "; synchronised" if synchronised else "; compare it with another clock (--online does)"
    yield Item(id="clock", group="machine", status=OK, title="clock", detail=said + note)


def _cpu(machine: Machine) -> Iterator[Item]:
    info = machine.read("/proc/cpuinfo", 65536) or ""
    flags = set(re.findall(r"[a-z0-9_]+", next((line for line in info.split("\n") if line.startswith("flags")), "")))
    tsm = os.path.isdir(machine.path("/sys/kernel/config/tsm/report"))
    found = []
    if "tdx_guest" in flags or os.path.exists(machine.path("/dev/tdx_guest")):
        found.append("Intel TDX guest")
    if "sev_snp" in flags or os.path.exists(machine.path("/dev/sev-guest")):
        found.append("AMD SEV-SNP guest")
    if found:
        yield Item(id="cpu-tee", group="machine", status=OK, title="CPU TEE", detail=" and ".join(found))
    else:
        yield Item(
            id="cpu-tee", group="machine", status=WARNING, title="CPU TEE", detail="this is no confidential guest",
            remedy="fine on a laptop or a relying party; a guest whose memory the host reads protects no GPU work",
        )  # fmt: skip
    if tsm:
        yield Item(id="tsm", group="machine", status=OK, title="configfs-tsm", detail="/sys/kernel/config/tsm/report")
    elif found:
        yield Item(
            id="tsm", group="machine", status=WARNING, title="configfs-tsm", detail="not there: no CPU quote",
            remedy="mount -t configfs none /sys/kernel/config; the kernel needs CONFIG_TSM_REPORTS (6.7 or newer)",
        )  # fmt: skip
    else:
        yield Item(id="tsm", group="machine", status=OK, title="configfs-tsm", detail="not there, and not needed here")


def pci_devices(machine: Machine) -> tuple[int, int]:
    """How many NVIDIA GPUs and NVSwitches the PCI bus has."""
    gpus = switches = 0
    for vendor in glob.glob(machine.path("/sys/bus/pci/devices/*/vendor")):
        try:
            with open(vendor, encoding="ascii", errors="replace") as file:
                if file.read(16).strip() != _NVIDIA:
                    continue
            with open(os.path.join(os.path.dirname(vendor), "class"), encoding="ascii", errors="replace") as file:
                kind = file.read(16).strip()
        except OSError:
            continue
        gpus += kind.startswith("0x03")
        switches += kind.startswith("0x0680")
    return gpus, switches


def _bus(found: tuple[int, int]) -> Iterator[Item]:
    gpus, switches = found
    if gpus:
        seen = f"{counted(gpus, 'GPU')} and {counted(switches, 'NVSwitch', 'NVSwitches')}"
        yield Item(id="pci", group="devices", status=OK, title="PCI bus", detail=seen)
    else:
        yield Item(
            id="pci", group="devices", status=WARNING, title="PCI bus", detail="no NVIDIA GPU",
            remedy="fine where only recorded evidence is verified; in a guest, pass the GPU through",
        )  # fmt: skip


def _kernel_driver(machine: Machine, *, needed: bool) -> Item:
    text = machine.read("/proc/driver/nvidia/version")
    if text is not None:
        match = re.search(r"\s(\d{3}\.\d+(?:\.\d+)?)\s", text)
        return Item(
            id="kernel-driver", group="devices", status=OK, title="kernel driver",
            detail=match.group(1) if match else "loaded",
        )  # fmt: skip
    if needed:
        return Item(
            id="kernel-driver", group="devices", status=FAULT, title="kernel driver",
            detail="there are GPUs, and the driver is not loaded",
            remedy="modprobe nvidia; then look at: dmesg | grep -iE 'nvrm|libspdm'",
        )  # fmt: skip
    return Item(
        id="kernel-driver", group="devices", status=WARNING, title="kernel driver", detail="not loaded",
        remedy="fine without a GPU",
    )  # fmt: skip


def _simulation() -> Iterator[Item]:
    """Inside of ``nvattest simulate``, whose driver library reads this variable, no device is real."""
    if os.environ.get("NVATTEST_SIM_SOCKET"):
        yield Item(
            id="simulation", group="devices", status=WARNING, title="simulation",
            detail="the GPUs and what the driver says of them are simulated: this proves nothing",
            remedy="leave nvattest simulate, or unset NVATTEST_SIM_SOCKET, to examine this machine",
        )  # fmt: skip


def _driver(machine: Machine, timeout: float, *, present: bool) -> tuple[list[Item], SystemState | None]:
    from nvattest.devices.nvml import NvmlLibrary
    from nvattest.devices.state import read_state

    try:
        with NvmlLibrary.open(machine.nvml_path, timeout=timeout) as library:
            state = read_state(library, timeout=timeout)
            return [*_state(state), *_gpus(library, timeout)], state
    except CollectionError as error:
        # Without a GPU a missing library is no fault: verification of files needs none.
        status = FAULT if present else WARNING
        return [
            Item(
                id="nvml", group="devices", status=status, title="NVML", detail=f"{error} [{error.code}]",
                remedy=error.hint,
            )
        ], None  # fmt: skip


def _state(state: SystemState) -> Iterator[Item]:
    from nvattest.devices.state import CpuCapability, MultiGpuMode

    def word(value: object) -> str:
        return str(getattr(value, "name", value)).lower().replace("_", "-")

    nvml = f", NVML {state.nvml_version}" if state.nvml_version else ""
    yield Item(id="nvml", group="devices", status=OK, title="NVML", detail=f"driver {state.driver_version}{nvml}")
    if state.gpu_count == 0:
        yield Item(
            id="gpu-count", group="devices", status=FAULT, title="GPUs", detail="the driver has none",
            remedy="compare with: lspci -d 10de: ; look at dmesg for RmInitAdapter",
        )  # fmt: skip
    else:
        yield Item(id="gpu-count", group="devices", status=OK, title="GPUs", detail=str(state.gpu_count))
    if state.cc_on:
        yield Item(id="cc-mode", group="confidential computing", status=OK, title="CC status", detail="ON")
    elif state.protected_pcie:
        yield Item(
            id="cc-mode",
            group="confidential computing",
            status=OK,
            title="CC status",
            detail="OFF, with protected PCIe",
        )
    else:
        yield Item(
            id="cc-mode", group="confidential computing", status=FAULT, title="CC status",
            detail="OFF" + ("" if state.gpus_capable in (None, True) else "; the GPUs say that they cannot do it"),
            remedy="set CC mode 'on' on the host and reset the GPUs; until then they give no evidence",
        )  # fmt: skip
    if state.dev_tools:
        yield Item(
            id="devtools", group="confidential computing", status=FAULT, title="DevTools mode", detail="ON",
            remedy="set CC mode 'on' instead of 'devtools' on the host: debuggers can read what the GPUs compute",
        )  # fmt: skip
    else:
        yield Item(id="devtools", group="confidential computing", status=OK, title="DevTools mode", detail="OFF")
    mode = state.multi_gpu_mode
    known = mode is None or isinstance(mode, MultiGpuMode)
    yield Item(
        id="multi-gpu-mode", group="confidential computing", status=OK if known else WARNING, title="multi-GPU mode",
        detail="this driver cannot say" if mode is None else word(mode),
        remedy="" if known else "update nvattest: the driver is newer",
    )  # fmt: skip
    yield from _ready(state)
    cpu = state.cpu_capability
    yield Item(
        id="cpu-capability", group="confidential computing", status=OK, title="CPU (by driver)",
        detail="this driver cannot say" if cpu is None else word(cpu) if isinstance(cpu, CpuCapability) else str(cpu),
    )  # fmt: skip


def _ready(state: SystemState) -> Iterator[Item]:
    group, title = "confidential computing", "GPUs ready state"
    # Without confidential computing the state means nothing.
    matters = state.cc_on or state.protected_pcie
    if state.ready is None:
        yield Item(id="ready-state", group=group, status=OK, title=title, detail="this driver cannot say")
        return
    remedy = (
        "make sure that attestation set it, and nothing at boot (nvrc.smi.srs=1, nvidia-smi -srs 1)"
        if state.ready
        else "CUDA fails with 802 (system not yet initialized) until attestation succeeds"
    )
    yield Item(
        id="ready-state", group=group, status=WARNING if matters else OK, title=title,
        detail="ready" if state.ready else "not-ready", remedy=remedy if matters else "",
    )  # fmt: skip


def _gpus(library: NvmlLibrary, timeout: float) -> Iterator[Item]:
    def work(calls: NvmlCalls) -> list[tuple[str, str, int | None]]:
        found = []
        for index in range(min(int(calls.ask("nvmlDeviceGetCount")), 64)):
            handle = calls.ask("nvmlDeviceGetHandleByIndex", index)
            try:
                persistence: int | None = int(calls.ask("nvmlDeviceGetPersistenceMode", handle))
            except CollectionError:
                persistence = None
            found.append(
                (calls.text("nvmlDeviceGetName", handle), calls.text("nvmlDeviceGetVbiosVersion", handle), persistence)
            )
        return found

    try:
        devices = library.run("GPUs", work, timeout=timeout)
    except CollectionError as error:
        yield Item(
            id="gpus", group="devices", status=FAULT, title="GPUs", detail=f"{error} [{error.code}]", remedy=error.hint
        )
        return
    for index, (name, vbios, _) in enumerate(devices):
        yield Item(id=f"gpu-{index}", group="devices", status=OK, title=f"GPU-{index}", detail=f"{name}, VBIOS {vbios}")
    off = [str(index) for index, (_, _, persistence) in enumerate(devices) if persistence == 0]
    if off:
        yield Item(
            id="persistence", group="devices", status=WARNING, title="persistence mode",
            detail=f"off for {', '.join(off)}",
            remedy="nvidia-smi -pm 1 (or nvidia-persistenced) before the first client: a confidential GPU that is torn "
            "down may not come back",
        )  # fmt: skip
    elif devices:
        unknown = any(persistence is None for *_, persistence in devices)
        yield Item(
            id="persistence", group="devices", status=OK, title="persistence mode",
            detail="this driver cannot say" if unknown else "on",
        )  # fmt: skip


def _switch_library(machine: Machine, *, switches: int, driver: str | None) -> Iterator[Item]:
    from nvattest.devices._driver import LIBRARY_FOLDERS

    name = "libnvidia-nscq.so.2"
    candidates = (
        [machine.nscq_path] if machine.nscq_path else [machine.path(f"{folder}/{name}") for folder in LIBRARY_FOLDERS]
    )
    path = next((candidate for candidate in candidates if os.path.exists(candidate)), None)
    if path is None:
        yield Item(
            id="nscq", group="devices", status=FAULT if switches else OK, title="NSCQ (switches)",
            detail="not found" + ("" if switches else ", and no switch needs it"),
            remedy="install libnvidia-nscq in exactly the version of the driver" if switches else "",
        )  # fmt: skip
        return
    match = re.search(r"\.so\.(\d{3}\.[\d.]+)$", os.path.realpath(path))
    version = match.group(1) if match else None
    if version and driver and version != driver:
        yield Item(
            id="nscq", group="devices", status=FAULT if switches else WARNING, title="NSCQ (switches)",
            detail=f"{version}, and the driver is {driver}",
            remedy="install libnvidia-nscq in exactly the version of the driver (else: RDT init failure)",
        )  # fmt: skip
    else:
        yield Item(id="nscq", group="devices", status=OK, title="NSCQ (switches)", detail=version or "found")
