"""``nvattest doctor``: what this machine is, line by line, what is wrong with it, and what to do about it.

Each probe looks at one thing and says ok, warning or fault, with the remedy. It reports what the machine says of
itself, which proves nothing. No probe raises, and each one that asks a driver or a service has a deadline.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from nvattest._documents import dump_json
from nvattest._package import __version__
from nvattest._registry import KDS_URL, NRAS_URL, OCSP_URL, PCS_URL, RIM_URL
from nvattest._system import pci_devices
from nvattest._text import clean
from nvattest.cli.arguments import ArgumentError, add_options, add_terminal_options
from nvattest.cli.output import Progress, say, terminal_for, write_file
from nvattest.cli.sources import Access
from nvattest.errors import CollectionError, InputError
from nvattest.guest.config import EARLIEST
from nvattest.model import counted, format_time, parse_time
from nvattest.report.terminal import Terminal

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
_SERVICES: Final = {
    "RIM service": ("NVAT_RIM_SERVICE_BASE_URL", RIM_URL),
    "OCSP service": ("NVAT_OCSP_BASE_URL", OCSP_URL),
    "NRAS": ("NVAT_NRAS_BASE_URL", NRAS_URL),
}
# Of the makers of CPUs: only verifying a guest needs them.
_CPU_SERVICES: Final = {"Intel PCS": ("NVATTEST_PCS_URL", PCS_URL), "AMD KDS": ("NVATTEST_KDS_URL", KDS_URL)}
# Module, distribution, and the extra that needs it.
_PACKAGES: Final = (
    ("cryptography", "cryptography", ""), ("lxml", "lxml", ""), ("jwt", "PyJWT", ""), ("requests", "requests", ""),
    ("pynvml", "nvidia-ml-py", ""), ("jinja2", "Jinja2", "report"), ("regopy", "regopy", "rego"),
    ("awscrt", "awscrt", "fast"),
)  # fmt: skip
# The group and the title of each line by its id; packages, GPUs and services have theirs from what they are about.
_LINES: Final = {
    "program": ("program", "nvattest"),
    "environment": ("program", "environment"),
    "clock": ("machine", "clock"),
    "cpu-tee": ("machine", "CPU TEE"),
    "tsm": ("machine", "configfs-tsm"),
    "pci": ("devices", "PCI bus"),
    "kernel-driver": ("devices", "kernel driver"),
    "simulation": ("devices", "simulation"),
    "nvml": ("devices", "NVML"),
    "gpu-count": ("devices", "GPUs"),
    "gpus": ("devices", "GPUs"),
    "persistence": ("devices", "persistence mode"),
    "nscq": ("devices", "NSCQ (switches)"),
    "cc-mode": ("confidential computing", "CC status"),
    "devtools": ("confidential computing", "DevTools mode"),
    "multi-gpu-mode": ("confidential computing", "multi-GPU mode"),
    "ready-state": ("confidential computing", "GPUs ready state"),
    "cpu-capability": ("confidential computing", "CPU (by driver)"),
    "clock-skew": ("network", "clock against theirs"),
}


class Item(NamedTuple):
    """One line: ``id`` for programs, ``status`` ok, warning or fault, what was seen, and the remedy."""

    id: str
    group: str
    status: str
    title: str
    detail: str
    remedy: str = ""


def _line(status: str, id_: str, detail: str, remedy: str = "", *, of: tuple[str, str] | None = None) -> Item:
    group, title = of or _LINES[id_]
    return Item(id_, group, status, title, detail, remedy)


def _unless(status: str, good: object, id_: str, detail: str, bad: str, remedy: str) -> Item:
    """The line of a question with two answers: ok with ``detail``, or ``status`` with ``bad`` and what to do."""
    return _line(OK, id_, detail) if good else _line(status, id_, bad, remedy)


_ok, _warning, _fault = partial(_line, OK), partial(_line, WARNING), partial(_line, FAULT)
_warning_unless, _fault_unless = partial(_unless, WARNING), partial(_unless, FAULT)


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--online", action="store_true", help="also ask whether NVIDIA's services can be reached")
    parser.add_argument(
        "--cpu-services", action="store_true", help="with --online, also those of Intel and AMD, for quotes of guests"
    )
    parser.add_argument("--json", action="store_true", help="the same as -f json (schema doctor-1.json)")
    parser.add_argument(
        "--bundle", metavar="FILE", help="also write everything into a .tar.gz or .zip for a support ticket; no secrets"
    )
    # Paths that do not exist are among what this command reports.
    add_options(parser.add_argument_group("with --online"), Access, "tls_ca_cert", "tls_ca_path", type=None)
    add_terminal_options(parser)


def run(options: argparse.Namespace) -> int:
    """Examine and print; the exit status is 1 if there is a fault."""
    as_json = options.json or options.format == "json"
    if options.bundle is not None and not options.bundle.endswith((".tar.gz", ".tgz", ".zip")):
        raise ArgumentError(f"--bundle: {options.bundle!r} does not end in .tar.gz or .zip")
    machine = Machine()
    with Progress("looking at this machine", quiet=options.log_level == "off") as progress:
        items = examine(machine)
        if options.online:
            from nvattest.collateral.http import HttpSettings

            progress.update("asking NVIDIA's services")
            services = {**_SERVICES, **(_CPU_SERVICES if options.cpu_services else {})}
            addresses = {name: os.environ.get(variable) or url for name, (variable, url) in services.items()}
            http = HttpSettings(tls_ca_cert=options.tls_ca_cert, tls_ca_path=options.tls_ca_path)
            items += reach(addresses, http=http)
    report = report_json(items, at=format_time(machine.clock()))
    if as_json:
        print(dump_json(report))
    else:
        terminal = terminal_for(color=options.color, width=options.width)
        say(render(items, terminal), colour=terminal.color)
    if options.bundle is not None:
        names = write_bundle(options.bundle, report, items, machine)
        if not as_json:
            say(f"\n{options.bundle}: {', '.join(names)}. Nothing in it is secret; look before you send it.")
    return 1 if any(item.status == FAULT for item in items) else 0


def report_json(items: Sequence[Item], *, at: str) -> dict[str, object]:
    """The findings as JSON values: the form of ``schemas/doctor-1.json``."""
    found = {item.status for item in items}
    return {
        "format": "nvattest-doctor",
        "version": 1,
        "nvattest": __version__,
        "at": at,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "worst": next((status for status in (FAULT, WARNING) if status in found), OK),
        "items": [
            {name: value for name, value in item._asdict().items() if value or name != "remedy"} for item in items
        ],
    }


def render(items: Sequence[Item], terminal: Terminal) -> str:
    """The findings as text: a line each, remedies below, and the sum at the end."""
    signs = {OK: ("✓", "+", "good"), WARNING: ("▲", "!", "warn"), FAULT: ("✗", "X", "bad")}
    lines: list[str] = []
    for group in dict.fromkeys(item.group for item in items):
        lines += [*([""] if lines else []), terminal.paint(group[0].upper() + group[1:], "bold")]
        for item in (item for item in items if item.group == group):
            sign, plain, style = signs[item.status]
            mark = terminal.sign(sign, plain)
            lead = f"  {mark} {clean(item.title, 30):<17} "
            word = "" if item.status == OK else f"{item.status}: "
            first, *rest = terminal.wrap(word + clean(item.detail), first=lead, rest=" " * 22)
            body = terminal.paint(word, style) + first[len(lead) + len(word) :]
            lines += [f"  {terminal.paint(mark, style)} {lead[4:]}{body}", *rest]
            if item.remedy and item.status != OK:
                lines += terminal.wrap(clean(item.remedy), first=" " * 22 + "-> ", style="dim")
    faults = sum(item.status == FAULT for item in items)
    warnings = sum(item.status == WARNING for item in items)
    total = f"{counted(faults, 'fault')}, {counted(warnings, 'warning')}"
    style = "good"
    if faults:
        style = "bad"
    elif warnings:
        style = "warn"
    lines += ["", terminal.paint(total, "bold", style)]
    return terminal.finish(lines)


# --- the probes that need no network ----------------------------------------------------------------------------------


def examine(machine: Machine, *, timeout: float = DRIVER_SECONDS) -> list[Item]:
    """All of them, in the order in which people look."""
    found = pci_devices(machine.root.rstrip("/"))
    gpus, switches = (len(found.gpus), len(found.switches)) if found is not None else (0, 0)
    driver = _kernel_driver(machine, needed=gpus > 0)
    nvml, state = _driver(machine, timeout, present=gpus > 0 or driver.status == OK)
    version = state.driver_version if state is not None else None
    return [
        *_program(),
        _clock(machine),
        *_cpu(machine),
        _bus(gpus, switches),
        driver,
        *_simulation(),
        *nvml,
        _switch_library(machine, switches=switches, driver=version),
    ]


def _program() -> Iterator[Item]:
    yield _ok("program", f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for module, name, extra in _PACKAGES:
        line, of = f"package-{name.lower()}", ("program", name)
        if (version := _installed(module, name)) is not None:
            yield _ok(line, version, of=of)
        elif extra:
            yield _ok(line, f"not installed; only the extra '{extra}' needs it", of=of)
        else:
            yield _fault(line, "not installed", f"pip install {name}", of=of)
    names = sorted(name for name in os.environ if _ENVIRONMENT.fullmatch(name))
    yield _ok("environment", f"set: {', '.join(names)}" if names else "no variable changes the defaults")


def _installed(module: str, name: str) -> str | None:
    from importlib import metadata, util

    try:
        return metadata.version(name) if util.find_spec(module) is not None else None
    except (metadata.PackageNotFoundError, ValueError):
        # Frozen programs have the module but no record of its distribution.
        return "version unknown"


def _clock(machine: Machine) -> Item:
    now = machine.clock()
    if now < EARLIEST_CLOCK:
        days = (EARLIEST_CLOCK - now).days
        return _fault(
            "clock",
            f"{format_time(now)}: at least {days} days behind; certificates and revocation answers cannot be judged",
            "set the clock (chronyd, systemd-timesyncd), and order attestation after time-sync.target",
        )
    synchronised = os.path.exists(machine.path("/run/systemd/timesync/synchronized"))
    note = "synchronised" if synchronised else "compare it with another clock (--online does)"
    return _ok("clock", f"{format_time(now)}; {note}")


def _cpu(machine: Machine) -> Iterator[Item]:
    info = machine.read("/proc/cpuinfo", 65536) or ""
    flags = set(re.findall(r"[a-z0-9_]+", next((line for line in info.split("\n") if line.startswith("flags")), "")))
    tees = (("tdx_guest", "/dev/tdx_guest", "Intel TDX guest"), ("sev_snp", "/dev/sev-guest", "AMD SEV-SNP guest"))
    found = [name for flag, path, name in tees if flag in flags or os.path.exists(machine.path(path))]
    remedy = "fine on a laptop or a relying party; a guest whose memory the host reads protects no GPU work"
    yield _warning_unless(found, "cpu-tee", " and ".join(found), "this is no confidential guest", remedy)
    there = os.path.isdir(machine.path(_TSM))
    seen = _TSM if there else "not there, and not needed here"
    remedy = "mount -t configfs none /sys/kernel/config; the kernel needs CONFIG_TSM_REPORTS (6.7 or newer)"
    yield _warning_unless(there or not found, "tsm", seen, "not there: no CPU quote", remedy)


def _bus(gpus: int, switches: int) -> Item:
    seen = f"{counted(gpus, 'GPU')} and {counted(switches, 'NVSwitch', 'NVSwitches')}"
    remedy = "fine where only recorded evidence is verified; in a guest, pass the GPU through"
    return _warning_unless(gpus, "pci", seen, "no NVIDIA GPU", remedy)


def _kernel_driver(machine: Machine, *, needed: bool) -> Item:
    text = machine.read("/proc/driver/nvidia/version")
    if text is not None:
        match = re.search(r"\s(\d{3}\.\d+(?:\.\d+)?)\s", text)
        return _ok("kernel-driver", match.group(1) if match else "loaded")
    if needed:
        remedy = "modprobe nvidia; then look at: dmesg | grep -iE 'nvrm|libspdm'"
        return _fault("kernel-driver", "there are GPUs, and the driver is not loaded", remedy)
    return _warning("kernel-driver", "not loaded", "fine without a GPU")


def _simulation() -> Iterator[Item]:
    """A warning within ``nvattest simulate``, whose driver library reads this variable: no device is real there."""
    if os.environ.get("NVATTEST_SIM_SOCKET"):
        remedy = "leave nvattest simulate, or unset NVATTEST_SIM_SOCKET, to examine this machine"
        said = "the GPUs and what the driver says of them are simulated: this proves nothing"
        yield _warning("simulation", said, remedy)


def _driver(machine: Machine, timeout: float, *, present: bool) -> tuple[list[Item], SystemState | None]:
    from nvattest.devices.nvml import NvmlLibrary
    from nvattest.devices.state import read_state

    try:
        with NvmlLibrary.open(machine.nvml_path, timeout=timeout) as library:
            state = read_state(library, timeout=timeout)
            return [*_state(state), *_gpus(library, timeout)], state
    except CollectionError as error:
        # Without a GPU a missing library is no fault: verification of files needs none.
        line = _fault if present else _warning
        return [line("nvml", f"{error} [{error.code}]", error.hint)], None


def _state(state: SystemState) -> Iterator[Item]:
    from nvattest.devices.state import CpuCapability, MultiGpuMode

    def word(value: object) -> str:
        if value is None:
            return "this driver cannot say"
        return str(getattr(value, "name", value)).lower().replace("_", "-")

    nvml = f", NVML {state.nvml_version}" if state.nvml_version else ""
    yield _ok("nvml", f"driver {state.driver_version}{nvml}")
    remedy = "compare with: lspci -d 10de: ; look at dmesg for RmInitAdapter"
    yield _fault_unless(state.gpu_count, "gpu-count", str(state.gpu_count), "the driver has none", remedy)
    incapable = "" if state.gpus_capable in (None, True) else "; the GPUs say that they cannot do it"
    remedy = "set CC mode 'on' on the host and reset the GPUs; until then they give no evidence"
    protected = "ON" if state.cc_on else "OFF, with protected PCIe"
    yield _fault_unless(state.cc_on or state.protected_pcie, "cc-mode", protected, f"OFF{incapable}", remedy)
    remedy = "set CC mode 'on' instead of 'devtools' on the host: debuggers can read what the GPUs compute"
    yield _fault_unless(not state.dev_tools, "devtools", "OFF", "ON", remedy)
    mode = word(state.multi_gpu_mode)
    known = state.multi_gpu_mode is None or isinstance(state.multi_gpu_mode, MultiGpuMode)
    yield _warning_unless(known, "multi-gpu-mode", mode, mode, "update nvattest: the driver is newer")
    yield _ready(state)
    cpu = state.cpu_capability
    known = cpu is None or isinstance(cpu, CpuCapability)
    yield _ok("cpu-capability", word(cpu) if known else str(cpu))


def _ready(state: SystemState) -> Item:
    if state.ready is None:
        return _ok("ready-state", "this driver cannot say")
    detail = "ready" if state.ready else "not-ready"
    if not (state.cc_on or state.protected_pcie):
        # Without confidential computing the state means nothing.
        return _ok("ready-state", detail)
    remedy = (
        "make sure that attestation set it, and nothing at boot (nvrc.smi.srs=1, nvidia-smi -srs 1)"
        if state.ready
        else "CUDA fails with 802 (system not yet initialized) until attestation succeeds"
    )
    return _warning("ready-state", detail, remedy)


def _gpus(library: NvmlLibrary, timeout: float) -> Iterator[Item]:
    def work(calls: NvmlCalls) -> list[tuple[str, str, int | None]]:
        found = []
        for index in range(min(int(calls.ask("nvmlDeviceGetCount")), 64)):
            handle = calls.ask("nvmlDeviceGetHandleByIndex", index)
            persistence: int | None = None
            with suppress(CollectionError):
                persistence = int(calls.ask("nvmlDeviceGetPersistenceMode", handle))
            name, vbios = (calls.text(call, handle) for call in ("nvmlDeviceGetName", "nvmlDeviceGetVbiosVersion"))
            found.append((name, vbios, persistence))
        return found

    try:
        devices = library.run("GPUs", work, timeout=timeout)
    except CollectionError as error:
        yield _fault("gpus", f"{error} [{error.code}]", error.hint)
        return
    for index, (name, vbios, _) in enumerate(devices):
        yield _ok(f"gpu-{index}", f"{name}, VBIOS {vbios}", of=("devices", f"GPU-{index}"))
    modes = [persistence for *_, persistence in devices]
    if 0 in modes:
        off = ", ".join(str(index) for index, mode in enumerate(modes) if mode == 0)
        yield _warning(
            "persistence",
            f"off for {off}",
            "nvidia-smi -pm 1 (or nvidia-persistenced) before the first client: a confidential GPU that is torn down "
            "may not come back",
        )
    elif devices:
        yield _ok("persistence", "this driver cannot say" if None in modes else "on")


def _switch_library(machine: Machine, *, switches: int, driver: str | None) -> Item:
    from nvattest.devices.nvml import LIBRARY_FOLDERS

    remedy = "install libnvidia-nscq in exactly the version of the driver"
    paths = [machine.path(f"{folder}/libnvidia-nscq.so.2") for folder in LIBRARY_FOLDERS]
    paths = [machine.nscq_path] if machine.nscq_path else paths
    path = next((path for path in paths if os.path.exists(path)), None)
    if path is None:
        return _fault("nscq", "not found", remedy) if switches else _ok("nscq", "not found, and no switch needs it")
    match = re.search(r"\.so\.(\d{3}\.[\d.]+)$", os.path.realpath(path))
    version = match.group(1) if match else None
    if version and driver and version != driver:
        line = _fault if switches else _warning
        return line("nscq", f"{version}, and the driver is {driver}", f"{remedy} (else: RDT init failure)")
    return _ok("nscq", version or "found")


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
        status, remedy = FAULT, f"check DNS, proxy and firewall; {_BUNDLE}"
        if isinstance(result, Late):
            detail = f"{public(url)}: no answer in {seconds:g} s"
            remedy = f"a firewall that swallows packets? {_BUNDLE}"
        elif isinstance(result, InputError):
            detail, remedy = f"{public(url)} was not asked: {result}", result.hint
        elif isinstance(result, Exception):
            detail = f"{public(url)}: {_reason(result)}"
        else:
            code, date = result
            if code == 407:
                detail, remedy = "the proxy wants a password", "put user and password into https_proxy"
            elif code >= 500:
                status, detail = WARNING, f"{public(url)} answers {code}"
                remedy = "the service has a fault of its own; try later, or verify from a bundle"
            else:
                status, detail, remedy = OK, f"{public(url)}, reached (HTTP {code})", ""
            # Without a usable date there is nothing to compare with.
            with suppress(TypeError, ValueError):
                apart.append((parsedate_to_datetime(date) - datetime.now(timezone.utc)).total_seconds())
        items.append(_line(status, name.lower().replace(" ", "-"), detail, remedy, of=("network", name)))
    return [*items, *([_skew(max(apart, key=abs))] if apart else [])]


def public(url: str) -> str:
    """An address without the user, password, query and fragment that it may carry."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, (parts.hostname or "") + port, parts.path, "", ""))


def _skew(seconds: float) -> Item:
    bad = f"this clock is {abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead'}"
    remedy = "set the clock (chronyd, systemd-timesyncd): tokens and answers are judged by it"
    return _fault_unless(abs(seconds) <= _SKEW_SECONDS, "clock-skew", f"{abs(seconds):.0f} s apart", bad, remedy)


def _reason(error: Exception) -> str:
    """What went wrong, in words that hold no address: those of a proxy can hold a password."""
    from requests import exceptions

    if isinstance(error, exceptions.ProxyError):
        return "the proxy cannot be reached or refuses"
    if isinstance(error, exceptions.SSLError):
        return "its TLS certificate is not trusted here (a proxy that looks inside? name its CA with --tls-ca-cert)"
    if isinstance(error, exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, exceptions.ConnectionError):
        return "no connection (name, route or firewall)"
    return "the request could not be made"


# --- the bundle for a support ticket ----------------------------------------------------------------------------------
# No evidence, nonce, token, key, log, host name, address, serial number or value of an environment variable goes in.

# Files of the system that say versions and settings, and hold no identity.
_FILES: Final = (
    "/etc/os-release",
    "/proc/version",
    "/proc/driver/nvidia/version",
    "/proc/driver/nvidia/params",
    "/proc/sys/kernel/modules_disabled",
)
_NOTE: Final = """What is in this bundle
  doctor.json, doctor.txt   what nvattest doctor found
  packages.txt              versions of the Python packages that nvattest uses
  system/                   versions of the system, its kernel and the NVIDIA driver

What is not: evidence, nonces, tokens, keys, logs, host names, addresses, serial numbers, values of variables.
"""


def contents(report: dict[str, object], items: Sequence[Item], machine: Machine) -> dict[str, str]:
    """The files of the bundle by name."""
    from importlib import metadata

    packages = []
    for name in ("nvattest", "urllib3", "xmlschema", *(name for _, name, _ in _PACKAGES)):
        try:
            packages.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            packages.append(f"{name} not installed")
    found = {
        "README.txt": _NOTE,
        "doctor.json": dump_json(report) + "\n",
        "doctor.txt": render(items, Terminal(unicode=False)) + "\n",
        "packages.txt": "\n".join(packages) + "\n",
    }
    for path in _FILES:
        text = machine.read(path)
        if text is not None:
            found[f"system{path.replace('/', '-').replace('-', '/', 1)}.txt"] = text
    return found


def write_bundle(path: str, report: dict[str, object], items: Sequence[Item], machine: Machine) -> tuple[str, ...]:
    """Write the bundle whole or not at all, readable by this user only; returns the names in it.

    Raises:
        InputError: it cannot be written.
    """
    files = contents(report, items, machine)
    entries = {f"nvattest-support/{name}": text.encode("utf-8") for name, text in files.items()}
    buffer = io.BytesIO()
    if path.endswith(".zip"):
        import zipfile

        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in entries.items():
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    else:
        import gzip
        import tarfile

        seconds = max(0, int(machine.clock().timestamp()))
        # mtime=0 and plain owners: the archive holds no name of a user.
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
            for name, data in entries.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime, entry.mode = len(data), seconds, 0o644
                tar.addfile(entry, io.BytesIO(data))
    write_file(path, buffer.getvalue(), mode=0o600)
    return tuple(files)
