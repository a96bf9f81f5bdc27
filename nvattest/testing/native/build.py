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
from dataclasses import dataclass
from typing import Final

from nvattest.errors import InputError

__all__ = ["DriverLibraries", "build_driver_libraries", "find_compiler", "place_driver_libraries"]

NVML_NAME: Final = "libnvidia-ml.so.1"
NSCQ_NAME: Final = "libnvidia-nscq.so.2"
ADDRESS_FILE: Final = "nvattest-sim.socket-path"

_HERE = os.path.dirname(os.path.abspath(__file__))
_SOURCES: Final = {NVML_NAME: "nvml.c", NSCQ_NAME: "nscq.c"}
_SHARED: Final = ("sim_client.c", "sim_client.h")
_FLAGS: Final = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread")
_COMPILE_SECONDS: Final = 60


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
    processes may build at once. Takes about half a second the first time.

    Args:
        cache: a folder that may be kept between runs; created if missing.
        environ: where ``CC`` and ``PATH`` are looked up; the process environment by default.

    Raises:
        InputError: no compiler (``no-compiler``), or it failed (``compiler-failed``), or the folder cannot be written.
    """
    environment = dict(os.environ if environ is None else environ)
    compiler = find_compiler(environment)
    home = os.path.join(os.path.abspath(os.fspath(cache)), f"driver-{_fingerprint(compiler)}")
    result = DriverLibraries(folder=home, nvml=os.path.join(home, NVML_NAME), nscq=os.path.join(home, NSCQ_NAME))
    if os.path.isfile(result.nvml) and os.path.isfile(result.nscq):
        return result
    try:
        os.makedirs(os.fspath(cache), exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=os.fspath(cache)) as scratch:
            stage = os.path.join(scratch, "done")
            os.mkdir(stage)
            for name, source in _SOURCES.items():
                _compile(compiler, source, os.path.join(stage, name), soname=name, environ=environment)
            try:
                os.rename(stage, home)
            except OSError:
                # Another process was first; its result is the same by name.
                if not (os.path.isfile(result.nvml) and os.path.isfile(result.nscq)):
                    raise
    except OSError as error:
        raise InputError(
            f"cannot build the simulated driver library below {os.fspath(cache)}: {error}",
            code="cache-folder",
            hint="name a folder that can be written; nvattest simulate takes it from XDG_CACHE_HOME",
        ) from error
    return result


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
        with open(os.path.join(home, ADDRESS_FILE), "w", encoding="utf-8") as file:
            file.write(address + "\n")
    except OSError as error:
        raise InputError(f"cannot place the driver libraries in {home}: {error}", code="folder") from error
    return DriverLibraries(folder=home, nvml=os.path.join(home, NVML_NAME), nscq=os.path.join(home, NSCQ_NAME))


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
