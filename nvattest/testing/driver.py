"""A driver at the C interface for machines without one: our own ``libnvidia-ml.so.1`` and ``libnvidia-nscq.so.2``.

``build_driver_libraries`` compiles the libraries, ``place_driver_libraries`` puts them where a program without an
environment finds both, and ``DriverServer`` answers their calls from a simulated platform.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any, Final, final

from nvattest._system import TrustedFolder
from nvattest.errors import InputError
from nvattest.testing.driver_answers import Answers, DriverState, Fault, Reply

NVML_NAME: Final = "libnvidia-ml.so.1"
NSCQ_NAME: Final = "libnvidia-nscq.so.2"
ADDRESS_FILE: Final = "nvattest-sim.socket-path"

# Programs that search by name, as NVIDIA's Python packages and Go programs do, open these.
_LINKS: Final = {"libnvidia-ml.so": NVML_NAME, "libnvidia-nscq.so": NSCQ_NAME}

_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native")
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


# --- the server -------------------------------------------------------------------------------------------------------

_PR_SET_PDEATHSIG: Final = 1

SOCKET_VARIABLE: Final = "NVATTEST_SIM_SOCKET"
_REQUEST_MAX: Final = 1024
_NO_DEVICE: Final = 0xFFFFFFFF
_UNKNOWN: Final = 999
_STALL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that a library made: its name without version suffix, the device, the input and the code returned."""

    name: str
    device: int | None
    input: bytes
    return_code: int


@final
class DriverServer:
    """Serves one platform to any number of processes that load the simulated libraries.

    ``source`` has ``gpus`` and ``switches`` (sequences; either may be missing). A GPU has ``uuid``, ``name``,
    ``architecture`` (NVML's number), ``driver_version``, ``vbios_version``, ``chain_pem`` and ``report(nonce)``;
    ``board_part_number``, ``board_id`` and ``serial`` are optional. A switch has ``uuid``, ``chain_pem`` and
    ``report(nonce)``. ``report`` is called from several threads at once.

    The socket lies in Linux's abstract namespace, so nothing is left on disk, however this process ends; it answers
    processes of the same user and root. With ``folder`` it is a file there instead, for programs in another network
    namespace; it is removed by ``close``, and a stale one of a killed process is replaced.

    ``faults`` maps call names, or ``name@device`` for one GPU or switch, to faults and may be changed while the server
    runs. ``before`` is called before each answer with the call's name and input, for a host that acts between two calls
    of the guest. ``state`` is what the driver says of the system now, ``ready_history`` has every value that the ready
    state was set to.
    """

    def __init__(
        self,
        source: Any,
        folder: str | os.PathLike[str] | None = None,
        *,
        state: DriverState | None = None,
        faults: Mapping[str, Fault] | None = None,
    ) -> None:
        self.faults: dict[str, Fault] = dict(faults or {})
        self.before: Callable[[str, bytes], None] | None = None
        self.errors: list[BaseException] = []
        self._answers = Answers(source)
        self.state = DriverState.of(source) if state is None else state
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self.ready_history: tuple[int, ...] = ()
        self._connections: set[socket.socket] = set()
        self._closed = threading.Event()
        self._path = None if folder is None else os.path.join(os.path.abspath(os.fspath(folder)), "driver.sock")
        self.address = f"@nvattest-sim-{os.getpid()}-{token_hex(8)}" if self._path is None else self._path
        self._listener = _listen(self.address)
        threading.Thread(target=self._accept, name="nvattest-driver", daemon=True).start()

    def __enter__(self) -> DriverServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def environment(self, libraries: DriverLibraries, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment in which a child finds these libraries and this server; ``base`` is kept and extended."""
        result = dict(base or {})
        before = result.get("LD_LIBRARY_PATH")
        result["LD_LIBRARY_PATH"] = f"{libraries.folder}:{before}" if before else libraries.folder
        result[SOCKET_VARIABLE] = self.address
        return result

    def change(self, **fields: Any) -> None:
        """Change fields of ``state`` while the server runs."""
        with self._lock:
            self.state = replace(self.state, **fields)

    def swap(self, source: Any) -> None:
        """Answer for other devices from now on, as after a hot swap."""
        self._answers = Answers(source)

    def calls(self, name: str | None = None) -> tuple[Call, ...]:
        """All calls so far in order of their answers, or those of one name."""
        return tuple(call for call in self._calls if name is None or call.name == name)

    def close(self) -> None:
        """Stop answering: open calls end with DRIVER_NOT_LOADED, and a socket file is removed."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            connections = tuple(self._connections)
        # shutdown wakes the thread in accept; close alone does not.
        for item in (self._listener, *connections):
            with suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._path is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed.is_set():
                    connection.close()
                    return
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="nvattest-driver-call", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                # A client that stalls in the middle of its request may not keep the thread for ever.
                connection.settimeout(_STALL_SECONDS)
                if not self._is_welcome(connection):
                    return
                reply = self._answer(_receive(connection))
                if reply is not None:
                    code = reply.code & 0xFFFFFFFF
                    connection.sendall(struct.pack("<II", 4 + len(reply.data), code) + reply.data)
        except (OSError, ValueError, struct.error):
            # The client went away, or is no library of ours: no answer is expected.
            return
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _is_welcome(self, connection: socket.socket) -> bool:
        if self._path is not None:
            return True  # the folder's permissions have decided
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("iII", raw)
        return uid in (0, os.getuid())

    def _answer(self, request: tuple[str, int | None, bytes]) -> Reply | None:
        name, device, data = request
        number = self._answers.switch_of(name, data) if device is None else device
        fault = self.faults.get(f"{name}@{number}") or self.faults.get(name) or Fault()
        if fault.hang:
            self._log(name, device, data, _UNKNOWN)
            self._closed.wait()
            return None
        if fault.delay and self._closed.wait(fault.delay):
            return None
        if fault.return_code is not None:
            reply = Reply(fault.return_code)
        else:
            try:
                if self.before is not None:
                    self.before(name, data)
                reply = self._answers.give(name, device, data, state=self.state, fault=fault)
            except Exception as error:  # noqa: BLE001 - a platform that cannot sign is a driver that answers 999
                self.errors.append(error)
                reply = Reply(_UNKNOWN)
        with self._lock:
            if reply.changes:
                self.state = replace(self.state, **reply.changes)
                if "ready" in reply.changes:
                    self.ready_history += (reply.changes["ready"],)
        self._log(name, device, data, reply.code)
        return reply

    def _log(self, name: str, device: int | None, data: bytes, code: int) -> None:
        self._calls.append(Call(name=name, device=device, input=data, return_code=code))


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if address.startswith("@"):
            listener.bind("\0" + address[1:])
        else:
            _bind_file(listener, address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(f"cannot listen on {address}: {error}", code="socket") from error
    return listener


def _bind_file(listener: socket.socket, path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Through the open folder a long path fits into the 107 bytes of a socket address.
        short = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(short)
            except ConnectionRefusedError:
                os.unlink(path)  # its process was killed
            except FileNotFoundError:
                pass
        listener.bind(short)
    finally:
        os.close(folder)


def _receive(connection: socket.socket) -> tuple[str, int | None, bytes]:
    (length,) = struct.unpack("<I", _receive_exactly(connection, 4))
    if not 5 <= length <= _REQUEST_MAX:
        raise ValueError(f"a request of {length} bytes")
    body = _receive_exactly(connection, length)
    name_end = 1 + body[0]
    (device,) = struct.unpack_from("<I", body, name_end)
    name = body[1:name_end].decode("ascii")
    return name, None if device == _NO_DEVICE else device, body[name_end + 4 :]


def _receive_exactly(connection: socket.socket, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise ValueError("the client closed the connection")
        parts += part
    return parts


def end_with_parent() -> Callable[[], None]:
    """A ``preexec_fn`` for ``subprocess.Popen``: the kernel sends the child SIGTERM when this process is gone.

    Linux only (prctl(2), PR_SET_PDEATHSIG); elsewhere it does nothing. The signal follows the thread that starts the
    child, so start children from the main thread.
    """
    parent = os.getpid()
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return lambda: None

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        # The parent may have ended between the fork and the call above.
        if os.getppid() != parent:
            os._exit(1)

    return prepare
