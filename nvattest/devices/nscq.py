"""NSCQ, NVIDIA's switch library, through a small ctypes binding: only what attestation evidence needs.

NSCQ answers by calling observers. An observer here only records; nothing is raised across the C frames.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar, final

from nvattest.devices.nvml import Trace, load_library
from nvattest.errors import CollectionError, ResultCode

T = TypeVar("T")

_NAME: Final = "libnvidia-nscq.so.2"
_MOUNT_DEVICES: Final = 1
REPORT_MAX: Final = 0x2000
CERTIFICATE_MAX: Final = 0x1400
_SWITCHES_MAX: Final = 64

_UNEXPECTED: Final = -5
# Return codes: what they mean, and what to do where something better is known than looking at dmesg.
_MEANINGS: Final = {
    1: (
        "warning: RDT initialisation failed",
        "libnvidia-nscq and the driver may have different versions; all GPUs and switches must be passed through",
    ),
    -1: ("not implemented", ""),
    -2: ("invalid uuid", ""),
    -3: ("resource not mountable", ""),
    -4: ("overflow", ""),
    _UNEXPECTED: ("unexpected value", ""),
    -6: ("unsupported driver", "install libnvidia-nscq in the version of the driver"),
    -7: ("driver error", "check that the NVSwitches are passed through and the driver is loaded; look at dmesg"),
    -8: ("timeout", "look for SXid messages in dmesg"),
    -127: ("external error", ""),
    -128: ("unspecified error", ""),
}
_ARCHITECTURES: Final = {0: "SV10", 1: "LR10", 2: "LS10"}


class _Uuid(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * 16),)


class _Label(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char * 64),)


class _Report(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint32), ("data", ctypes.c_uint8 * REPORT_MAX))


class _Certificate(ctypes.Structure):
    _fields_ = (("data", ctypes.c_uint8 * CERTIFICATE_MAX), ("size", ctypes.c_uint32))


class _SessionResult(ctypes.Structure):
    _fields_ = (("rc", ctypes.c_int8), ("session", ctypes.c_void_p))


_UuidPointer = ctypes.POINTER(_Uuid)
_UuidObserver = ctypes.CFUNCTYPE(None, _UuidPointer, ctypes.c_int8, _UuidPointer, ctypes.c_void_p)
_NumberObserver = ctypes.CFUNCTYPE(None, _UuidPointer, ctypes.c_int8, ctypes.c_int8, ctypes.c_void_p)
_ReportObserver = ctypes.CFUNCTYPE(None, _UuidPointer, ctypes.c_int8, _Report, ctypes.c_void_p)
_CertificateObserver = ctypes.CFUNCTYPE(None, _UuidPointer, ctypes.c_int8, _Certificate, ctypes.c_void_p)

# The functions that are called: what each returns, and its arguments.
_FUNCTIONS: Final[Mapping[str, tuple[Any, ...]]] = {
    "nscq_session_create": (_SessionResult, ctypes.c_uint32),
    "nscq_session_destroy": (None, ctypes.c_void_p),
    "nscq_session_path_observe": (
        *(ctypes.c_int8, ctypes.c_void_p, ctypes.c_char_p),
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32),
    ),
    "nscq_session_set_input": (ctypes.c_int8, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32),
    "nscq_uuid_to_label": (ctypes.c_int8, _UuidPointer, ctypes.POINTER(_Label), ctypes.c_uint32),
}


@final
class NscqSession(AbstractContextManager["NscqSession"]):
    """One NSCQ session. It belongs to the thread that works with it; use it as a context manager.

    Every question raises a CollectionError (601) where the library fails, or its answer is none that can be right.
    """

    def __init__(self, trace: Trace, path: str | os.PathLike[str] | None = None) -> None:
        """Load the library and open a session with all switches mounted.

        Raises:
            CollectionError: result code 600: ``nscq-missing``, ``nscq-function-missing`` or ``nscq-session``.
        """
        self._trace = trace
        self._session: int | None = None
        trace.begin("dlopen")
        self._library = load_library(
            _NAME,
            path,
            code="nscq-missing",
            result_code=ResultCode.NSCQ_INIT_FAILED,
            hint="install libnvidia-nscq in the version of the driver; only guests with NVSwitches need it",
        )
        for name, (result_type, *arguments) in _FUNCTIONS.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise _error(
                    f"{_NAME} has no function {name}",
                    "nscq-function-missing",
                    result_code=ResultCode.NSCQ_INIT_FAILED,
                    hint="install libnvidia-nscq in the version of the driver",
                )
            function.restype, function.argtypes = result_type, arguments
        trace.begin("nscq_session_create")
        result = self._library.nscq_session_create(_MOUNT_DEVICES)
        self._session = result.session
        if result.rc != 0 or not result.session:
            self.close()
            raise _failed(
                "nscq_session_create", result.rc, code="nscq-session", result_code=ResultCode.NSCQ_INIT_FAILED
            )

    def switches(self) -> tuple[str, ...]:
        """The labels of all switches, in the library's order."""
        uuids = self._ask(
            "/drv/nvswitch/{device}/uuid",
            _UuidObserver,
            lambda uuid: _Uuid.from_buffer_copy(uuid.contents) if uuid else None,
        )
        if len(uuids) > _SWITCHES_MAX:
            raise _error(f"NSCQ names more than {_SWITCHES_MAX} switches", "switch-count")
        labels = tuple(self._label(uuid) for uuid in uuids)
        if len(set(labels)) != len(labels):
            raise _error("NSCQ names a switch twice", "switch-duplicate")
        return labels

    def architecture(self) -> str:
        """The name of the architecture of the switches; NSCQ gives one for all."""
        values = set(self._ask("/{nvswitch}/id/arch", _NumberObserver, int))
        if len(values) != 1:
            raise _error(
                f"NSCQ gives {len(values)} architectures for the switches; expected one", "switch-architecture"
            )
        (number,) = values
        return _ARCHITECTURES.get(number, f"unknown ({number})")

    def pcie_mode(self, label: str) -> int:
        """The protected PCIe mode of one switch: -1 unknown, 0 disabled, 1 enabled, 2 failure, 3 locked."""
        values = set(self._ask(f"/{label}/config/pcie_mode", _NumberObserver, int))
        return values.pop() if len(values) == 1 else -1

    def report(self, label: str, nonce: bytes) -> bytes:
        """The attestation report of one switch over ``nonce`` (32 bytes), 1 to 8192 bytes."""
        self._trace.begin("nscq_session_set_input")
        buffer = ctypes.create_string_buffer(nonce, len(nonce))
        code = self._library.nscq_session_set_input(self._session, 0, buffer, len(nonce))
        if code != 0:
            raise _failed("nscq_session_set_input", code)
        return self._sized(f"/{label}/config/attestation_report", _ReportObserver, REPORT_MAX)

    def certificate(self, label: str) -> bytes:
        """The device certificate chain of one switch, PEM text, leaf first, 1 to 5120 bytes."""
        return self._sized(f"/{label}/config/certificate", _CertificateObserver, CERTIFICATE_MAX)

    def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session:
            self._trace.call = "nscq_session_destroy"
            self._library.nscq_session_destroy(session)

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, path: str, kind: Callable[[Any], Any], read: Callable[[Any], T | None]) -> list[T]:
        """What NSCQ hands to an observer of this kind, as ``read`` copies it, and of more than enough the first."""
        found: list[T] = []
        codes: list[int] = []

        def observe(_device: Any, code: int, value: Any, _data: Any) -> None:
            item = read(value) if code == 0 else None
            if item is None:
                codes.append(code or _UNEXPECTED)
            elif len(found) <= _SWITCHES_MAX:
                found.append(item)

        self._trace.begin(f"nscq_session_path_observe({path})")
        # The observer is referenced by this frame until the call returns; NSCQ does not keep it.
        observer = kind(observe)
        ask = self._library.nscq_session_path_observe
        code = ask(self._session, path.encode(), ctypes.cast(observer, ctypes.c_void_p), None, 0)
        if failed := code or next(iter(codes), 0):
            raise _failed(path, failed)
        return found

    def _sized(self, path: str, kind: Callable[[Any], Any], maximum: int) -> bytes:
        found = self._ask(path, kind, lambda value: (value.size, bytes(value.data)))
        if len(found) != 1:
            raise _error(f"{path}: NSCQ gave {len(found)} answers; expected one", "nscq-answer")
        size, data = found[0]
        if not 0 < size <= maximum:
            raise _error(
                f"{path}: NSCQ says that there are {size} bytes; expected 1 to {maximum}",
                "driver-size",
                hint="check that the library fits the driver",
            )
        return data[:size]

    def _label(self, uuid: _Uuid) -> str:
        self._trace.begin("nscq_uuid_to_label")
        label = _Label()
        code = self._library.nscq_uuid_to_label(ctypes.byref(uuid), ctypes.byref(label), 0)
        text = bytes(label.data)
        if code != 0:
            raise _failed("nscq_uuid_to_label", code)
        # The label becomes part of a path: a slash in it would name something else.
        if not text or not all(sign in b"-_" or bytes((sign,)).isalnum() for sign in text):
            raise _error(f"NSCQ gave an unusable switch label: {text!r}", "nscq-answer")
        return text.decode("ascii")


def _error(
    message: str, code: str, *, hint: str = "", result_code: ResultCode = ResultCode.NSCQ_ERROR
) -> CollectionError:
    return CollectionError(message, code=code, result_code=result_code, hint=hint)


def _failed(
    what: str, rc: int, *, code: str = "nscq-error", result_code: ResultCode = ResultCode.NSCQ_ERROR
) -> CollectionError:
    word, hint = _MEANINGS.get(rc, ("unknown code", ""))
    return _error(
        f"switches: {what} failed: {word} (NSCQ {rc})",
        code,
        result_code=result_code,
        hint=hint or "compare with: nvidia-smi nvlink -s; look at dmesg",
    )
