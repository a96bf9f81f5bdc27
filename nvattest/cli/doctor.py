"""``nvattest doctor``: what this machine is, line by line, what is wrong with it, and what to do about it."""

from __future__ import annotations

import argparse
import io
import os
import platform
from collections.abc import Sequence
from typing import Final

from nvattest._documents import dump_json
from nvattest._package import __version__
from nvattest._registry import KDS_URL, NRAS_URL, OCSP_URL, PCS_URL, RIM_URL
from nvattest._text import clean
from nvattest.cli.arguments import VALIDATION, ArgumentError, add_terminal_options
from nvattest.cli.doctor_probes import FAULT, OK, WARNING, Item, Machine, examine, reach
from nvattest.cli.output import Progress, say, terminal_for, write_file
from nvattest.cli.requests import add_tls_options
from nvattest.model import counted, format_time
from nvattest.report.terminal import Terminal

FORMAT = "nvattest-doctor"
VERSION = 1
_SERVICES = {
    "RIM service": ("NVAT_RIM_SERVICE_BASE_URL", RIM_URL),
    "OCSP service": ("NVAT_OCSP_BASE_URL", OCSP_URL),
    "NRAS": ("NVAT_NRAS_BASE_URL", NRAS_URL),
}
# Of the makers of CPUs: only verifying a guest needs them.
_CPU_SERVICES = {
    "Intel PCS": ("NVATTEST_PCS_URL", PCS_URL),
    "AMD KDS": ("NVATTEST_KDS_URL", KDS_URL),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How far to look, and where to write."""
    parser.add_argument("--online", action="store_true", help="also ask whether NVIDIA's services can be reached")
    parser.add_argument(
        "--cpu-services", action="store_true", help="with --online, also those of Intel and AMD, for quotes of guests"
    )
    parser.add_argument("--json", action="store_true", help="the same as -f json (schema doctor-1.json)")
    parser.add_argument(
        "--bundle", metavar="FILE", help="also write everything into a .tar.gz or .zip for a support ticket; no secrets"
    )
    add_tls_options(parser.add_argument_group("with --online"), checked=False)
    add_terminal_options(parser)


def run(options: argparse.Namespace) -> int:
    """Examine and print; the exit status is 1 if there is a fault."""
    as_json = options.json or options.format == "json"
    if options.bundle is not None and not options.bundle.endswith((".tar.gz", ".tgz", ".zip")):
        raise ArgumentError(f"--bundle: {options.bundle!r} does not end in .tar.gz or .zip", VALIDATION)
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
        "format": FORMAT,
        "version": VERSION,
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
    lines += ["", terminal.paint(total, "bold", "bad" if faults else "warn" if warnings else "good")]
    return terminal.finish(lines)


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
_PACKAGES: Final = (
    "nvattest", "cryptography", "lxml", "PyJWT", "requests", "urllib3", "nvidia-ml-py", "xmlschema", "Jinja2", "regopy",
    "awscrt",
)  # fmt: skip


def contents(report: dict[str, object], items: Sequence[Item], machine: Machine) -> dict[str, str]:
    """The files of the bundle by name."""
    from importlib import metadata

    packages = []
    for name in _PACKAGES:
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
    seconds = max(315532800, int(machine.clock().timestamp()))  # a ZIP knows no time before 1980
    data = _zip(files) if path.endswith(".zip") else _tar(files, seconds)
    write_file(path, data, mode=0o600)
    return tuple(files)


def _tar(files: dict[str, str], seconds: int) -> bytes:
    import gzip
    import tarfile

    buffer = io.BytesIO()
    # mtime=0 and plain owners: the archive holds no name of a user.
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            data = text.encode("utf-8")
            entry = tarfile.TarInfo(f"nvattest-support/{name}")
            entry.size, entry.mtime, entry.mode = len(data), seconds, 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _zip(files: dict[str, str]) -> bytes:
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"nvattest-support/{name}"), text)
    return buffer.getvalue()
