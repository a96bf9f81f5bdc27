"""The simulation's side of the driver: answers the calls of the compiled libraries from a platform object."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any, Final, final

from nvattest.errors import InputError
from nvattest.testing.native.answers import Answers, Reply
from nvattest.testing.native.build import DriverLibraries
from nvattest.testing.native.state import DriverState, Fault

__all__ = ["SOCKET_VARIABLE", "Call", "DriverServer", "end_with_parent"]

_PR_SET_PDEATHSIG: Final = 1

SOCKET_VARIABLE: Final = "NVATTEST_SIM_SOCKET"
_REQUEST_MAX: Final = 1024
_NO_DEVICE: Final = 0xFFFFFFFF
_UNKNOWN: Final = 999
_STALL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that a library made: its name without version suffix, the device, the input and the code returned.

    NSCQ paths are named ``nscq:uuid``, ``nscq:arch``, ``nscq:attestation_report``, ``nscq:certificate`` and
    ``nscq:pcie_mode``.
    """

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
    of the guest.
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
        self._state = DriverState.of(source) if state is None else state
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._ready_history: list[int] = []
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

    @property
    def state(self) -> DriverState:
        """What the driver says of the system now."""
        return self._state

    def change(self, **fields: Any) -> None:
        """Change fields of ``state`` while the server runs."""
        with self._lock:
            self._state = replace(self._state, **fields)

    def swap(self, source: Any) -> None:
        """Answer for other devices from now on, as after a hot swap."""
        self._answers = Answers(source)

    def calls(self, name: str | None = None) -> tuple[Call, ...]:
        """All calls so far in order of their answers, or those of one name."""
        with self._lock:
            return tuple(call for call in self._calls if name is None or call.name == name)

    @property
    def ready_history(self) -> tuple[int, ...]:
        """Every value that the ready state was set to, in order."""
        with self._lock:
            return tuple(self._ready_history)

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
                reply = self._answers.give(name, device, data, state=self._state, fault=fault)
            except Exception as error:  # noqa: BLE001 - a platform that cannot sign is a driver that answers 999
                self.errors.append(error)
                reply = Reply(_UNKNOWN)
        with self._lock:
            if reply.changes:
                self._state = replace(self._state, **reply.changes)
                if "ready" in reply.changes:
                    self._ready_history.append(reply.changes["ready"])
        self._log(name, device, data, reply.code)
        return reply

    def _log(self, name: str, device: int | None, data: bytes, code: int) -> None:
        with self._lock:
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
