"""Compiling the simulated driver libraries with the machine's own compiler."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from nvattest._folder import TrustedFolder
from nvattest.errors import InputError

__all__ = ["DriverLibraries", "build_driver_libraries", "find_compiler", "place_driver_libraries"]

NVML_NAME: Final = "libnvidia-ml.so.1"
NSCQ_NAME: Final = "libnvidia-nscq.so.2"
ADDRESS_FILE: Final = "nvattest-sim.socket-path"

# Programs that search by name, as NVIDIA's Python packages and Go programs do, open these.
_LINKS: Final = {"libnvidia-ml.so": NVML_NAME, "libnvidia-nscq.so": NSCQ_NAME}

_HERE = os.path.dirname(os.path.abspath(__file__))
_SOURCES: Final = {NVML_NAME: "nvml.c", NSCQ_NAME: "nscq.c"}
_SHARED: Final = ("sim_client.c", "sim_client.h")
_FLAGS: Final = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread")
_COMPILE_SECONDS: Final = 60
_MAXIMUM_LIBRARY: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverLibraries:
    """Where the compiled libraries lie; ``folder`` is what goes into ``LD_LIBRARY_PATH``."""

    folder: str
    nvml: str
    nscq: str


def find_compiler(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The C compiler as command words: ``CC`` where it is set, else the first of cc, gcc and clang on ``PATH``.

    Raises:
        InputError: there is none (code ``no-compiler``).
    """
    path = environ.get("PATH", "")
    named = environ.get("CC", "").strip()
    candidates = [shlex.split(named)] if named else [["cc"], ["gcc"], ["clang"]]
    for words in candidates:
        found = shutil.which(words[0], path=path)
        if found:
            return (found, *words[1:])
    wanted = f"CC names {named!r}, which was not found" if named else "none of cc, gcc and clang is on PATH"
    raise InputError(
        f"the simulated driver library needs a C compiler: {wanted}",
        code="no-compiler",
        hint="install gcc or clang, or use the simulation in the process (nvattest.testing), which needs none",
    )


def build_driver_libraries(
    cache: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None
) -> DriverLibraries:
    """Compile both libraries below the folder ``cache``, or find there what an earlier call compiled.

    The folder of the result is named after the sources, the compiler and the machine, and appears in one step: several
    processes may build at once. Takes about half a second the first time. What is loaded from there is code, so that
    only the caller and root may be able to write into the folders and files (``TrustedFolder``).

    Args:
        cache: a folder that may be kept between runs; created if missing.
        environ: where ``CC`` and ``PATH`` are looked up; the process environment by default.

    Raises:
        InputError: no compiler (``no-compiler``), or it failed (``compiler-failed``); the folder cannot be written, or
            must not be believed (``cache-folder``).
    """
    environment = dict(os.environ if environ is None else environ)
    compiler = find_compiler(environment)
    name = f"driver-{_fingerprint(compiler)}"
    try:
        with TrustedFolder(os.fspath(cache), make=True) as above:
            with suppress(FileNotFoundError):
                return _find(above, name)
            scratch = tempfile.mkdtemp(prefix="build-", dir=above.path)
            try:
                for library, source in _SOURCES.items():
                    target = os.path.join(scratch, library)
                    _compile(compiler, source, target, soname=library, environ=environment)
                    os.chmod(target, 0o700)
                _link(scratch)
                # Where another process was first, its result is the same by name.
                with suppress(OSError):
                    above.rename(os.path.basename(scratch), name)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            return _find(above, name)
    except OSError as error:
        raise InputError(
            f"cannot use {os.fspath(cache)} for the simulated driver library: {error.filename}: "
            f"{error.strerror or error}",
            code="cache-folder",
            hint="name a folder that is yours alone; nvattest simulate takes it from XDG_CACHE_HOME",
        ) from error


def _find(above: TrustedFolder, name: str) -> DriverLibraries:
    """The libraries that an earlier call left.

    Raises:
        OSError: they are not there, or must not be believed.
    """
    with TrustedFolder(name, inside=above) as home:
        for library in _SOURCES:
            home.read(library, _MAXIMUM_LIBRARY)
        return DriverLibraries(folder=home.path, nvml=home.at(NVML_NAME), nscq=home.at(NSCQ_NAME))


def place_driver_libraries(
    libraries: DriverLibraries, folder: str | os.PathLike[str], *, address: str
) -> DriverLibraries:
    """Copy the libraries into ``folder`` with the simulation's address beside them.

    For programs that run with an empty environment, such as a Kata guest hook: a library that finds no
    ``NVATTEST_SIM_SOCKET`` reads the file ``nvattest-sim.socket-path`` in its own folder.

    Raises:
        InputError: the folder cannot be written.
    """
    home = os.path.abspath(os.fspath(folder))
    try:
        os.makedirs(home, exist_ok=True)
        for source in (libraries.nvml, libraries.nscq):
            shutil.copy2(source, home)
        _link(home)
        with open(os.path.join(home, ADDRESS_FILE), "w", encoding="utf-8") as file:
            file.write(address + "\n")
    except OSError as error:
        raise InputError(f"cannot place the driver libraries in {home}: {error}", code="folder") from error
    return DriverLibraries(folder=home, nvml=os.path.join(home, NVML_NAME), nscq=os.path.join(home, NSCQ_NAME))


def _link(folder: str) -> None:
    for name, target in _LINKS.items():
        with suppress(FileExistsError):
            os.symlink(target, os.path.join(folder, name))


def _fingerprint(compiler: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in (*_SOURCES.values(), *_SHARED):
        with open(os.path.join(_HERE, name), "rb") as file:
            digest.update(file.read() + b"\0")
    words = (*compiler, *_FLAGS, platform.machine(), platform.libc_ver()[0])
    digest.update("\0".join(words).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:20]


def _compile(compiler: tuple[str, ...], source: str, target: str, *, soname: str, environ: Mapping[str, str]) -> None:
    command = [*compiler, *_FLAGS, f"-Wl,-soname,{soname}", "-o", target]
    command += [os.path.join(_HERE, source), os.path.join(_HERE, "sim_client.c"), "-ldl"]
    try:
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"the compiler {compiler[0]} did not run: {error}", code="compiler-failed") from error
    if done.returncode != 0:
        raise InputError(
            f"{compiler[0]} could not compile {source}: {done.stderr.strip()[-600:] or 'no message'}",
            code="compiler-failed",
            hint="the compiler needs the C library's headers (package libc6-dev or glibc-devel)",
        )
