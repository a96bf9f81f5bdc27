"""The bundle for a support ticket: what doctor found and a few facts of the system, and nothing secret.

No evidence, nonce, token, key, log, host name, address, serial number or value of an environment variable goes in.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Sequence
from typing import Final

from nvattest._documents import dump_json
from nvattest.cli.doctor_probes import Item, Machine
from nvattest.cli.output import write_file

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

    from nvattest.cli.doctor import render
    from nvattest.report.terminal import Terminal

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
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"nvattest-support/{name}"), text)
    return buffer.getvalue()
