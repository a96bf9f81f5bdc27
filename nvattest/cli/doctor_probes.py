"""The probes of ``nvattest doctor``: each looks at one thing and says ok, warning or fault, with the remedy.

A probe reports what the machine says of itself, which proves nothing. No probe raises, and each one that asks a driver
or a service has a deadline.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from nvattest._package import __version__
from nvattest._system import pci_devices
from nvattest.errors import CollectionError, InputError
from nvattest.guest.clock import EARLIEST
from nvattest.model import counted, format_time, parse_time

if TYPE_CHECKING:
    from nvattest.collateral.http import HttpSettings
    from nvattest.devices.nvml import NvmlCalls, NvmlLibrary
    from nvattest.devices.state import SystemState

OK, WARNING, FAULT = "ok", "warning", "fault"
# A clock before the day on which this was written is wrong.
EARLIEST_CLOCK: Final = parse_time(EARLIEST)
DRIVER_SECONDS: Final = 40.0
_SERVICE_SECONDS: Final = 8.0
_SKEW_SECONDS: Final = 120.0
_BUNDLE: Final = "without a network verify from a bundle (--bundle)"
_TSM: Final = "/sys/kernel/config/tsm/report"
_ENVIRONMENT: Final = re.compile(
    r"(NVAT|NVATTEST)_[A-Z0-9_]+|(https?|no)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE", re.IGNORECASE
)
# Module, distribution, and the extra that needs it.
_PACKAGES: Final = (
    ("cryptography", "cryptography", ""), ("lxml", "lxml", ""), ("jwt", "PyJWT", ""), ("requests", "requests", ""),
    ("pynvml", "nvidia-ml-py", ""), ("jinja2", "Jinja2", "report"), ("regopy", "regopy", "rego"),
    ("awscrt", "awscrt", "fast"),
)  # fmt: skip


class Item(NamedTuple):
    """One line: ``id`` for programs, ``status`` ok, warning or fault, what was seen, and the remedy."""

    id: str
    group: str
    status: str
    title: str
    detail: str
    remedy: str = ""


class _Group(NamedTuple):
    """The lines under one heading."""

    name: str

    def ok(self, id_: str, title: str, detail: str) -> Item:
        return Item(id_, self.name, OK, title, detail)

    def warning(self, id_: str, title: str, detail: str, remedy: str) -> Item:
        return Item(id_, self.name, WARNING, title, detail, remedy)

    def fault(self, id_: str, title: str, detail: str, remedy: str) -> Item:
        return Item(id_, self.name, FAULT, title, detail, remedy)


_PROGRAM, _MACHINE, _DEVICES = _Group("program"), _Group("machine"), _Group("devices")
_CC, _NETWORK = _Group("confidential computing"), _Group("network")


class Machine(NamedTuple):
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
    found = pci_devices(machine.root.rstrip("/"))
    gpus, switches = (len(found.gpus), len(found.switches)) if found is not None else (0, 0)
    driver = _kernel_driver(machine, needed=gpus > 0)
    nvml, state = _driver(machine, timeout, present=gpus > 0 or driver.status == OK)
    version = state.driver_version if state is not None else None
    return [
        *_program(),
        *_clock(machine),
        *_cpu(machine),
        _bus(gpus, switches),
        driver,
        *_simulation(),
        *nvml,
        _switch_library(machine, switches=switches, driver=version),
    ]


def _program() -> Iterator[Item]:
    system = f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield _PROGRAM.ok("program", "nvattest", system)
    for module, name, extra in _PACKAGES:
        id_ = f"package-{name.lower()}"
        if (version := _installed(module, name)) is not None:
            yield _PROGRAM.ok(id_, name, version)
        elif extra:
            yield _PROGRAM.ok(id_, name, f"not installed; only the extra '{extra}' needs it")
        else:
            yield _PROGRAM.fault(id_, name, "not installed", f"pip install {name}")
    names = sorted(name for name in os.environ if _ENVIRONMENT.fullmatch(name))
    detail = f"set: {', '.join(names)}" if names else "no variable changes the defaults"
    yield _PROGRAM.ok("environment", "environment", detail)


def _installed(module: str, name: str) -> str | None:
    from importlib import metadata, util

    try:
        return metadata.version(name) if util.find_spec(module) is not None else None
    except (metadata.PackageNotFoundError, ValueError):
        # Frozen programs have the module but no record of its distribution.
        return "version unknown"


def _clock(machine: Machine) -> Iterator[Item]:
    now = machine.clock()
    if now < EARLIEST_CLOCK:
        days = (EARLIEST_CLOCK - now).days
        yield _MACHINE.fault(
            "clock", "clock",
            f"{format_time(now)}: at least {days} days behind; certificates and revocation answers cannot be judged",
            "set the clock (chronyd, systemd-timesyncd), and order attestation after time-sync.target",
        )  # fmt: skip
        return
    synchronised = os.path.exists(machine.path("/run/systemd/timesync/synchronized"))
    note = "synchronised" if synchronised else "compare it with another clock (--online does)"
    yield _MACHINE.ok("clock", "clock", f"{format_time(now)}; {note}")


def _cpu(machine: Machine) -> Iterator[Item]:
    info = machine.read("/proc/cpuinfo", 65536) or ""
    flags = set(re.findall(r"[a-z0-9_]+", next((line for line in info.split("\n") if line.startswith("flags")), "")))
    found = []
    if "tdx_guest" in flags or os.path.exists(machine.path("/dev/tdx_guest")):
        found.append("Intel TDX guest")
    if "sev_snp" in flags or os.path.exists(machine.path("/dev/sev-guest")):
        found.append("AMD SEV-SNP guest")
    if found:
        yield _MACHINE.ok("cpu-tee", "CPU TEE", " and ".join(found))
    else:
        yield _MACHINE.warning(
            "cpu-tee", "CPU TEE", "this is no confidential guest",
            "fine on a laptop or a relying party; a guest whose memory the host reads protects no GPU work",
        )  # fmt: skip
    if os.path.isdir(machine.path(_TSM)):
        yield _MACHINE.ok("tsm", "configfs-tsm", _TSM)
    elif found:
        yield _MACHINE.warning(
            "tsm", "configfs-tsm", "not there: no CPU quote",
            "mount -t configfs none /sys/kernel/config; the kernel needs CONFIG_TSM_REPORTS (6.7 or newer)",
        )  # fmt: skip
    else:
        yield _MACHINE.ok("tsm", "configfs-tsm", "not there, and not needed here")


def _bus(gpus: int, switches: int) -> Item:
    if gpus:
        seen = f"{counted(gpus, 'GPU')} and {counted(switches, 'NVSwitch', 'NVSwitches')}"
        return _DEVICES.ok("pci", "PCI bus", seen)
    remedy = "fine where only recorded evidence is verified; in a guest, pass the GPU through"
    return _DEVICES.warning("pci", "PCI bus", "no NVIDIA GPU", remedy)


def _kernel_driver(machine: Machine, *, needed: bool) -> Item:
    text = machine.read("/proc/driver/nvidia/version")
    if text is not None:
        match = re.search(r"\s(\d{3}\.\d+(?:\.\d+)?)\s", text)
        return _DEVICES.ok("kernel-driver", "kernel driver", match.group(1) if match else "loaded")
    if needed:
        remedy = "modprobe nvidia; then look at: dmesg | grep -iE 'nvrm|libspdm'"
        return _DEVICES.fault(
            "kernel-driver", "kernel driver", "there are GPUs, and the driver is not loaded", remedy
        )  # fmt: skip
    return _DEVICES.warning("kernel-driver", "kernel driver", "not loaded", "fine without a GPU")


def _simulation() -> Iterator[Item]:
    """A warning within ``nvattest simulate``, whose driver library reads this variable: no device is real there."""
    if os.environ.get("NVATTEST_SIM_SOCKET"):
        yield _DEVICES.warning(
            "simulation", "simulation", "the GPUs and what the driver says of them are simulated: this proves nothing",
            "leave nvattest simulate, or unset NVATTEST_SIM_SOCKET, to examine this machine",
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
        line = _DEVICES.fault if present else _DEVICES.warning
        return [line("nvml", "NVML", f"{error} [{error.code}]", error.hint)], None


def _state(state: SystemState) -> Iterator[Item]:
    from nvattest.devices.state import CpuCapability, MultiGpuMode

    def word(value: object) -> str:
        if value is None:
            return "this driver cannot say"
        return str(getattr(value, "name", value)).lower().replace("_", "-")

    nvml = f", NVML {state.nvml_version}" if state.nvml_version else ""
    yield _DEVICES.ok("nvml", "NVML", f"driver {state.driver_version}{nvml}")
    if state.gpu_count:
        yield _DEVICES.ok("gpu-count", "GPUs", str(state.gpu_count))
    else:
        remedy = "compare with: lspci -d 10de: ; look at dmesg for RmInitAdapter"
        yield _DEVICES.fault("gpu-count", "GPUs", "the driver has none", remedy)
    if state.cc_on or state.protected_pcie:
        yield _CC.ok("cc-mode", "CC status", "ON" if state.cc_on else "OFF, with protected PCIe")
    else:
        incapable = "" if state.gpus_capable in (None, True) else "; the GPUs say that they cannot do it"
        remedy = "set CC mode 'on' on the host and reset the GPUs; until then they give no evidence"
        yield _CC.fault("cc-mode", "CC status", f"OFF{incapable}", remedy)
    if state.dev_tools:
        remedy = "set CC mode 'on' instead of 'devtools' on the host: debuggers can read what the GPUs compute"
        yield _CC.fault("devtools", "DevTools mode", "ON", remedy)
    else:
        yield _CC.ok("devtools", "DevTools mode", "OFF")
    mode = state.multi_gpu_mode
    if mode is None or isinstance(mode, MultiGpuMode):
        yield _CC.ok("multi-gpu-mode", "multi-GPU mode", word(mode))
    else:
        yield _CC.warning("multi-gpu-mode", "multi-GPU mode", word(mode), "update nvattest: the driver is newer")
    yield _ready(state)
    cpu = state.cpu_capability
    known = cpu is None or isinstance(cpu, CpuCapability)
    yield _CC.ok("cpu-capability", "CPU (by driver)", word(cpu) if known else str(cpu))


def _ready(state: SystemState) -> Item:
    id_, title = "ready-state", "GPUs ready state"
    if state.ready is None:
        return _CC.ok(id_, title, "this driver cannot say")
    detail = "ready" if state.ready else "not-ready"
    if not (state.cc_on or state.protected_pcie):
        # Without confidential computing the state means nothing.
        return _CC.ok(id_, title, detail)
    remedy = (
        "make sure that attestation set it, and nothing at boot (nvrc.smi.srs=1, nvidia-smi -srs 1)"
        if state.ready
        else "CUDA fails with 802 (system not yet initialized) until attestation succeeds"
    )
    return _CC.warning(id_, title, detail, remedy)


def _gpus(library: NvmlLibrary, timeout: float) -> Iterator[Item]:
    def work(calls: NvmlCalls) -> list[tuple[str, str, int | None]]:
        found = []
        for index in range(min(int(calls.ask("nvmlDeviceGetCount")), 64)):
            handle = calls.ask("nvmlDeviceGetHandleByIndex", index)
            persistence: int | None = None
            with suppress(CollectionError):
                persistence = int(calls.ask("nvmlDeviceGetPersistenceMode", handle))
            found.append(
                (calls.text("nvmlDeviceGetName", handle), calls.text("nvmlDeviceGetVbiosVersion", handle), persistence)
            )
        return found

    try:
        devices = library.run("GPUs", work, timeout=timeout)
    except CollectionError as error:
        yield _DEVICES.fault("gpus", "GPUs", f"{error} [{error.code}]", error.hint)
        return
    for index, (name, vbios, _) in enumerate(devices):
        yield _DEVICES.ok(f"gpu-{index}", f"GPU-{index}", f"{name}, VBIOS {vbios}")
    off = [str(index) for index, (_, _, persistence) in enumerate(devices) if persistence == 0]
    if off:
        yield _DEVICES.warning(
            "persistence", "persistence mode", f"off for {', '.join(off)}",
            "nvidia-smi -pm 1 (or nvidia-persistenced) before the first client: a confidential GPU that is torn down "
            "may not come back",
        )  # fmt: skip
    elif devices:
        unknown = any(persistence is None for *_, persistence in devices)
        yield _DEVICES.ok("persistence", "persistence mode", "this driver cannot say" if unknown else "on")


def _switch_library(machine: Machine, *, switches: int, driver: str | None) -> Item:
    from nvattest.devices._driver import LIBRARY_FOLDERS

    id_, title = "nscq", "NSCQ (switches)"
    remedy = "install libnvidia-nscq in exactly the version of the driver"
    paths = [machine.path(f"{folder}/libnvidia-nscq.so.2") for folder in LIBRARY_FOLDERS]
    paths = [machine.nscq_path] if machine.nscq_path else paths
    path = next((path for path in paths if os.path.exists(path)), None)
    if path is None:
        if switches:
            return _DEVICES.fault(id_, title, "not found", remedy)
        return _DEVICES.ok(id_, title, "not found, and no switch needs it")
    match = re.search(r"\.so\.(\d{3}\.[\d.]+)$", os.path.realpath(path))
    version = match.group(1) if match else None
    if version and driver and version != driver:
        line = _DEVICES.fault if switches else _DEVICES.warning
        return line(id_, title, f"{version}, and the driver is {driver}", f"{remedy} (else: RDT init failure)")
    return _DEVICES.ok(id_, title, version or "found")


# --- the network, only where --online asks for it ---------------------------------------------------------------------


def reach(
    services: Mapping[str, str], *, seconds: float = _SERVICE_SECONDS, http: HttpSettings | None = None
) -> list[Item]:
    """Ask each service for its front page, all at once. Any HTTP answer below 500 counts as reached.

    ``http`` has the roots of TLS. Neither a service key nor a password of ``~/.netrc`` is sent.
    """
    from email.utils import parsedate_to_datetime

    from nvattest._waiting import Deadline, Late, run_all
    from nvattest.collateral.http import HttpClient

    deadline = Deadline(seconds)
    with HttpClient(http) as client:
        results = run_all([partial(client.look, url, deadline=deadline) for url in services.values()], deadline)
    items: list[Item] = []
    apart: list[float] = []
    for (name, url), result in zip(services.items(), results, strict=True):
        fault = partial(_NETWORK.fault, _service_id(name), name)
        if isinstance(result, Late):
            remedy = f"a firewall that swallows packets? {_BUNDLE}"
            items.append(fault(f"{public(url)}: no answer in {seconds:g} s", remedy))
        elif isinstance(result, InputError):
            items.append(fault(f"{public(url)} was not asked: {result}", result.hint))
        elif isinstance(result, Exception):
            items.append(fault(f"{public(url)}: {_reason(result)}", f"check DNS, proxy and firewall; {_BUNDLE}"))
        else:
            items.append(_reached(name, url, result[0]))
            # Without a usable date there is nothing to compare with.
            with suppress(TypeError, ValueError):
                apart.append((parsedate_to_datetime(result[1]) - datetime.now(timezone.utc)).total_seconds())
    if apart:
        items.append(_skew(max(apart, key=abs)))
    return items


def public(url: str) -> str:
    """An address without the user, password, query and fragment that it may carry."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, (parts.hostname or "") + port, parts.path, "", ""))


def _service_id(name: str) -> str:
    return name.lower().replace(" ", "-")


def _skew(seconds: float) -> Item:
    id_, title = "clock-skew", "clock against theirs"
    if abs(seconds) <= _SKEW_SECONDS:
        return _NETWORK.ok(id_, title, f"{abs(seconds):.0f} s apart")
    detail = f"this clock is {abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead'}"
    remedy = "set the clock (chronyd, systemd-timesyncd): tokens and answers are judged by it"
    return _NETWORK.fault(id_, title, detail, remedy)


def _reached(name: str, url: str, status: int) -> Item:
    id_ = _service_id(name)
    if status == 407:
        remedy = "put user and password into https_proxy"
        return _NETWORK.fault(id_, name, "the proxy wants a password", remedy)
    if status >= 500:
        remedy = "the service has a fault of its own; try later, or verify from a bundle"
        return _NETWORK.warning(id_, name, f"{public(url)} answers {status}", remedy)
    return _NETWORK.ok(id_, name, f"{public(url)}, reached (HTTP {status})")


def _reason(error: Exception) -> str:
    """What went wrong, in words that hold no address: those of a proxy can hold a password."""
    from requests import exceptions

    for kind, words in (
        (exceptions.ProxyError, "the proxy cannot be reached or refuses"),
        (
            exceptions.SSLError,
            "its TLS certificate is not trusted here (a proxy that looks inside? name its CA with --tls-ca-cert)",
        ),
        (exceptions.Timeout, "no answer in time"),
        (exceptions.ConnectionError, "no connection (name, route or firewall)"),
    ):
        if isinstance(error, kind):
            return words
    return "the request could not be made"
