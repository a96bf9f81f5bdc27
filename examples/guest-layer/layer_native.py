"""The compiled part of the layer: the launcher, the interpreter's library, and the libraries that modules need."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from typing import Final

__all__ = [
    "LayerError",
    "build_launcher",
    "forget_places",
    "libraries_of",
    "library_of_interpreter",
    "needed_glibc",
    "strip",
]

RPATH: Final = "$ORIGIN/../../../../lib/nvattest:/usr/lib/nvattest"
_PT_DYNAMIC: Final = 2
_DT_RPATH: Final = 15
_DT_RUNPATH: Final = 29
# What glibc itself brings; everything else that a module links to goes into the layer.
_GLIBC: Final = re.compile(
    r"^(linux-vdso|ld-linux[a-z0-9_-]*|ld64|libc|libm|libdl|libpthread|librt|libutil|libresolv|libmvec|libanl)\.so[.0-9]*$"
)


class LayerError(Exception):
    """The layer cannot be built here; the message says what is missing."""


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except OSError as error:
        raise LayerError(
            f"{command[0]}: {error.strerror}; on Debian the packages are gcc, binutils and libc6-dev"
        ) from None
    if done.returncode != 0:
        raise LayerError(f"{' '.join(command)}\n{done.stderr.strip()[-1500:]}")
    return done.stdout


def library_of_interpreter() -> str:
    """The shared library of the interpreter that runs this.

    Raises:
        LayerError: it has none; its modules could not be loaded by another program then.
    """
    name = str(sysconfig.get_config_var("INSTSONAME") or "")
    for folder in (
        sysconfig.get_config_var("LIBDIR"),
        sysconfig.get_config_var("LIBPL"),
        os.path.join(sys.base_prefix, "lib"),
    ):
        path = os.path.join(str(folder), name)
        if ".so" in name and os.path.isfile(path):
            return os.path.realpath(path)
    multiarch = os.path.join("/usr/lib", str(sysconfig.get_config_var("MULTIARCH")), name)
    if ".so" in name and os.path.isfile(multiarch):
        return os.path.realpath(multiarch)
    raise LayerError(
        f"{sys.executable} has no shared library. Use a Python built with --enable-shared (pyenv: "
        "PYTHON_CONFIGURE_OPTS=--enable-shared; Debian: the package libpython3-dev)"
    )


def build_launcher(source: str, target: str, library: str) -> None:
    """Compile the launcher against the interpreter that runs this."""
    include = sysconfig.get_path("include")
    if not os.path.isfile(os.path.join(include, "Python.h")):
        raise LayerError(f"{include}/Python.h is missing; on Debian it is in the package python3-dev")
    _run(
        os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIE", "-pie", "-s",
        "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-I", include, "-I", sysconfig.get_path("platinclude"),
        "-Wl,-z,relro,-z,now,--build-id=none,--as-needed,--disable-new-dtags", f"-Wl,-rpath,{RPATH}",
        "-o", target, source, library,
    )  # fmt: skip


def libraries_of(paths: Iterable[str]) -> dict[str, str]:
    """The shared libraries outside glibc that these files need, by the name that they are asked for."""
    found: dict[str, str] = {}
    for path in paths:
        for line in _run("ldd", path).splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            if not arrow or _GLIBC.match(os.path.basename(name)):
                continue
            place = rest.split(" (")[0].strip()
            if not os.path.isfile(place):
                raise LayerError(f"{path} needs {name}, which is not here")
            found[name] = os.path.realpath(place)
    return found


def strip(path: str) -> None:
    """Remove what only debuggers read."""
    _run(os.environ.get("STRIP", "strip"), "--strip-unneeded", "--remove-section=.comment", path)


def forget_places(path: str) -> None:
    """Remove DT_RPATH and DT_RUNPATH: they name folders of this machine, and the second disables the launcher's.

    Raises:
        LayerError: not a little-endian ELF file of 64 bits.
    """
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        if data[:6] != b"\x7fELF\x02\x01":
            raise LayerError(f"{path} is not a little-endian ELF file of 64 bits")
        (table,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        for index in range(count):
            kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, table + index * size)
            if kind != _PT_DYNAMIC:
                continue
            entries = [bytes(data[at : at + 16]) for at in range(offset, offset + length, 16)]
            kept = [entry for entry in entries if struct.unpack_from("<Q", entry)[0] not in (_DT_RPATH, _DT_RUNPATH)]
            # DT_NULL ends the table, so what is left over at its end is never read.
            data[offset : offset + length] = b"".join(kept).ljust(length, b"\0")
        file.seek(0)
        file.write(data)


def needed_glibc(paths: Iterable[str], *, most: str | None = None) -> str:
    """The oldest glibc that has every symbol version that these files ask for.

    Raises:
        LayerError: that is newer than ``most``, or ``most`` is no version.
    """
    limit = _version(most) if most is not None else None
    asked: dict[tuple[int, int], str] = {}
    for path in paths:
        text = _run("readelf", "--version-info", "--wide", path)
        for major, minor in re.findall(r"Name: GLIBC_(\d+)\.(\d+)", text):
            asked.setdefault((int(major), int(minor)), os.path.basename(path))
    highest = max(asked, default=(0, 0))
    if limit is not None and highest > limit:
        above = ", ".join(f"{asked[version]} needs {_text(version)}" for version in sorted(asked) if version > limit)
        raise LayerError(
            f"this layer needs glibc {_text(highest)}, above --max-glibc {most}: {above}. Build it on a system and "
            f"with a Python whose glibc is {most} or older"
        )
    return _text(highest)


def _version(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", text)
    if found is None:
        raise LayerError(f"--max-glibc {text!r} is no version such as 2.35")
    return int(found[1]), int(found[2])


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
