"""NSCQ, NVIDIA's switch library, through a small ctypes binding: only what attestation evidence needs.

NSCQ answers by calling observers. An observer here only records; nothing is raised across the C frames.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, Final, final

from nvattest.devices._driver import Trace, load_library
from nvattest.errors import CollectionError, ResultCode

__all__ = ["CERTIFICATE_MAX", "REPORT_MAX", "NscqSession"]

_NAME: Final = "libnvidia-nscq.so.2"
_MOUNT_DEVICES: Final = 1
REPORT_MAX: Final = 0x2000
CERTIFICATE_MAX: Final = 0x1400
_SWITCHES_MAX: Final = 64

_RC_WORDS: Final = {
    1: "warning: RDT initialisation failed",
    -1: "not implemented",
    -2: "invalid uuid",
    -3: "resource not mountable",
    -4: "overflow",
    -5: "unexpected value",
    -6: "unsupported driver",
    -7: "driver error",
    -8: "timeout",
    -127: "external error",
    -128: "unspecified error",
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


@final
class NscqSession:
    """One NSCQ session. It belongs to the thread that works with it; use it as a context manager."""

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
        create = self._function("nscq_session_create", _SessionResult, ctypes.c_uint32)
        self._destroy = self._function("nscq_session_destroy", None, ctypes.c_void_p)
        self._observe = self._function(
            "nscq_session_path_observe",
            ctypes.c_int8,
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_uint32,
        )
        self._set_input = self._function(
            "nscq_session_set_input", ctypes.c_int8, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32
        )
        self._to_label = self._function(
            "nscq_uuid_to_label", ctypes.c_int8, _UuidPointer, ctypes.POINTER(_Label), ctypes.c_uint32
        )
        trace.begin("nscq_session_create")
        result = create(_MOUNT_DEVICES)
        self._session = result.session
        if result.rc != 0 or not result.session:
            self.close()
            raise _error("nscq_session_create", result.rc, code="nscq-session", result_code=ResultCode.NSCQ_INIT_FAILED)

    def switches(self) -> tuple[str, ...]:
        """The labels of all switches, in the library's order.

        Raises:
            CollectionError: the library failed, or names an absurd number of switches or one switch twice.
        """
        uuids: list[_Uuid] = []
        codes: list[int] = []
        too_many = False

        def observe(_device: Any, code: int, uuid: Any, _data: Any) -> None:
            nonlocal too_many
            if code != 0 or not uuid:
                codes.append(code or -5)
            elif len(uuids) < _SWITCHES_MAX:
                uuids.append(_Uuid.from_buffer_copy(uuid.contents))
            else:
                too_many = True

        self._observe_path("/drv/nvswitch/{device}/uuid", _UuidObserver(observe), codes)
        if too_many:
            raise CollectionError(
                f"NSCQ names more than {_SWITCHES_MAX} switches", code="switch-count", result_code=ResultCode.NSCQ_ERROR
            )
        labels = tuple(self._label(uuid) for uuid in uuids)
        if len(set(labels)) != len(labels):
            raise CollectionError(
                "NSCQ names a switch twice", code="switch-duplicate", result_code=ResultCode.NSCQ_ERROR
            )
        return labels

    def architecture(self) -> str:
        """The name of the architecture of the switches; NSCQ gives one for all.

        Raises:
            CollectionError: the library failed, gave none, or gave different ones.
        """
        values = self._numbers("/{nvswitch}/id/arch")
        if len(values) != 1:
            raise CollectionError(
                f"NSCQ gives {len(values)} architectures for the switches; expected one",
                code="switch-architecture",
                result_code=ResultCode.NSCQ_ERROR,
            )
        (number,) = values
        return _ARCHITECTURES.get(number, f"unknown ({number})")

    def pcie_mode(self, label: str) -> int:
        """The protected PCIe mode of one switch: -1 unknown, 0 disabled, 1 enabled, 2 failure, 3 locked.

        Raises:
            CollectionError: the library failed.
        """
        values = self._numbers(f"/{label}/config/pcie_mode")
        return values.pop() if len(values) == 1 else -1

    def report(self, label: str, nonce: bytes) -> bytes:
        """The attestation report of one switch over ``nonce`` (32 bytes).

        Raises:
            CollectionError: the library failed, or gave a size outside 1 to 8192.
        """
        self._trace.begin("nscq_session_set_input")
        buffer = ctypes.create_string_buffer(nonce, len(nonce))
        code = self._set_input(self._session, 0, buffer, len(nonce))
        if code != 0:
            raise _error("nscq_session_set_input", code)
        return self._sized(f"/{label}/config/attestation_report", _ReportObserver, REPORT_MAX)

    def certificate(self, label: str) -> bytes:
        """The device certificate chain of one switch, PEM text, leaf first.

        Raises:
            CollectionError: the library failed, or gave a size outside 1 to 5120.
        """
        return self._sized(f"/{label}/config/certificate", _CertificateObserver, CERTIFICATE_MAX)

    def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session:
            self._trace.call = "nscq_session_destroy"
            self._destroy(session)

    def __enter__(self) -> NscqSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise CollectionError(
                f"{_NAME} has no function {name}",
                code="nscq-function-missing",
                result_code=ResultCode.NSCQ_INIT_FAILED,
                hint="install libnvidia-nscq in the version of the driver",
            ) from error
        function.restype = result
        function.argtypes = arguments
        return function

    def _observe_path(self, path: str, observer: Any, codes: list[int]) -> None:
        self._trace.begin(f"nscq_session_path_observe({path})")
        # The observer is referenced by this frame until the call returns; NSCQ does not keep it.
        code = self._observe(self._session, path.encode(), ctypes.cast(observer, ctypes.c_void_p), None, 0)
        failed = code or next(iter(codes), 0)
        if failed:
            raise _error(path, failed)

    def _numbers(self, path: str) -> set[int]:
        values: set[int] = set()
        codes: list[int] = []

        def observe(_device: Any, code: int, value: int, _data: Any) -> None:
            if code != 0:
                codes.append(code)
            else:
                values.add(value)

        self._observe_path(path, _NumberObserver(observe), codes)
        return values

    def _sized(self, path: str, kind: Callable[[Any], Any], maximum: int) -> bytes:
        found: list[tuple[int, bytes]] = []
        codes: list[int] = []

        def observe(_device: Any, code: int, value: Any, _data: Any) -> None:
            if code != 0:
                codes.append(code)
            else:
                found.append((value.size, bytes(value.data)))

        self._observe_path(path, kind(observe), codes)
        if len(found) != 1:
            raise CollectionError(
                f"{path}: NSCQ gave {len(found)} answers; expected one",
                code="nscq-answer",
                result_code=ResultCode.NSCQ_ERROR,
            )
        size, data = found[0]
        if not 0 < size <= maximum:
            raise CollectionError(
                f"{path}: NSCQ says that there are {size} bytes; expected 1 to {maximum}",
                code="driver-size",
                result_code=ResultCode.NSCQ_ERROR,
                hint="check that the library fits the driver",
            )
        return data[:size]

    def _label(self, uuid: _Uuid) -> str:
        self._trace.begin("nscq_uuid_to_label")
        label = _Label()
        code = self._to_label(ctypes.byref(uuid), ctypes.byref(label), 0)
        text = bytes(label.data)
        if code != 0:
            raise _error("nscq_uuid_to_label", code)
        # The label becomes part of a path: a slash in it would name something else.
        if not text or not all(sign in b"-_" or bytes((sign,)).isalnum() for sign in text):
            raise CollectionError(
                f"NSCQ gave an unusable switch label: {text!r}", code="nscq-answer", result_code=ResultCode.NSCQ_ERROR
            )
        return text.decode("ascii")


def _error(
    what: str, rc: int, *, code: str = "nscq-error", result_code: ResultCode = ResultCode.NSCQ_ERROR
) -> CollectionError:
    hints = {
        1: "libnvidia-nscq and the driver may have different versions; all GPUs and switches must be passed through",
        -6: "install libnvidia-nscq in the version of the driver",
        -7: "check that the NVSwitches are passed through and the driver is loaded; look at dmesg",
        -8: "look for SXid messages in dmesg",
    }
    return CollectionError(
        f"switches: {what} failed: {_RC_WORDS.get(rc, 'unknown code')} (NSCQ {rc})",
        code=code,
        result_code=result_code,
        hint=hints.get(rc, "compare with: nvidia-smi nvlink -s; look at dmesg"),
    )
