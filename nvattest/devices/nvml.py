"""Calls into driver libraries, under a deadline; and NVML through NVIDIA's own binding.

A C call cannot be interrupted. Each job runs in a daemon thread, and one that does not return in time is reported by
the name of its call and left behind. A job that is given up begins no other call: a decision about the devices of then
must not be carried out on those of later.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, TypeVar, final

from nvattest._text import clean
from nvattest._waiting import Deadline, Late, NoThread, Work
from nvattest.errors import CollectionError, NvattestError, ResultCode

T = TypeVar("T")

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds for one collection. A driver without persistence mode needs a few seconds per GPU to initialise."""

LIBRARY_FOLDERS: Final = (
    # Kata mounts the driver here in guests that get it as an extension image.
    "/run/kata-extensions/gpu/usr/lib/x86_64-linux-gnu",
    "/run/kata-extensions/gpu/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/run/opengl-driver/lib",
)


def load_library(
    name: str, path: str | os.PathLike[str] | None, *, code: str, result_code: ResultCode, hint: str
) -> ctypes.CDLL:
    """Load ``path``, or else ``name`` as the loader finds it, or else ``name`` in one of ``LIBRARY_FOLDERS``.

    It is loaded with global visibility: a later dlopen of the same soname, such as that of nvidia-ml-py, gets this one.

    Raises:
        CollectionError: with ``code``; the message says what the loader said.
    """
    if path is not None:
        places = [os.path.abspath(os.fspath(path))]
    else:
        places = [
            name,
            *(place for place in (f"{folder}/{name}" for folder in LIBRARY_FOLDERS) if os.path.exists(place)),
        ]
    said = ""
    for place in places:
        try:
            return ctypes.CDLL(place, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            said = str(error)
    # The last one tried exists, so its message says more than that of a missing one.
    raise CollectionError(f"{name} could not be loaded: {said}"[:500], code=code, result_code=result_code, hint=hint)


class Trace:
    """Which driver call a job is in: its thread writes it, and the thread that gives the job up reads it."""

    __slots__ = ("_given_up", "_lock", "call")

    def __init__(self) -> None:
        self._given_up = False
        self._lock = threading.Lock()
        self.call = "start"

    def begin(self, call: str) -> None:
        """Note the call that comes next. Raises CollectionError: the job was given up (``driver-timeout``)."""
        with self._lock:
            if self._given_up:
                raise CollectionError(f"{call} was not begun: its job was given up", code="driver-timeout")
            self.call = call

    def give_up(self) -> str:
        """Let no other call begin; returns the one that may still be under way."""
        with self._lock:
            self._given_up = True
            return self.call


class Job(Work[T]):
    """One piece of driver work in a thread of its own; ``subject`` ("GPU-0") begins its error messages."""

    def __init__(self, subject: str, work: Callable[[Trace], T], *, here: bool = False) -> None:
        self._subject = subject
        self._trace = trace = Trace()
        super().__init__(subject, lambda: work(trace), here=here)

    def wait(self, deadline: Deadline, *, result_code: ResultCode = ResultCode.NVML_ERROR) -> T:
        """The result of the work, or a CollectionError: it came too late, there was no thread, or the work failed."""
        try:
            return self.result(deadline)
        except NvattestError:
            raise
        except Late:
            call = self._trace.give_up()
            raise CollectionError(
                f"{self._subject}: the driver call {call} did not return within {deadline.seconds:.3g} s",
                code="driver-timeout",
                result_code=result_code,
                hint="look for Xid messages in dmesg; the GPU or the driver may need a reset",
            ) from None
        except NoThread as error:
            raise CollectionError(
                f"{self._subject}: the driver was not asked: {error}",
                code="driver-thread",
                hint="look for a limit on processes (pids.max of the cgroup, ulimit -u) and for what uses them up",
            ) from None
        except Exception as error:
            raise CollectionError(
                f"{self._subject}: the answer of {self._trace.call} could not be used: {error!r}"[:400],
                code="driver-answer",
                result_code=result_code,
                hint="check that the driver library is NVIDIA's and fits the driver",
            ) from error


# --- NVML -------------------------------------------------------------------------------------------------------------


_NAME: Final = "libnvidia-ml.so.1"
_CLOSE_SECONDS: Final = 2.0
_TEXT_MAX: Final = 96

_FUNCTION_NOT_FOUND: Final = 13
# NOT_SUPPORTED, FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH: codes of the errors that mean "this driver lacks it".
UNSUPPORTED_CODES: Final = frozenset({"nvml-not-supported", "nvml-function-missing", "nvml-version-mismatch"})
# What a return code means: our word for it, in a sentence, and what to do.
_MEANINGS: Final[Mapping[int, tuple[str, str, str]]] = {
    1: ("nvml-uninitialized", "NVML is not initialised", "another part of this process shut NVML down"),
    2: ("nvml-argument", "NVML refused an argument", "the driver may be older than this call"),
    3: ("nvml-not-supported", "the GPU or the driver does not support this",
        "attestation needs a Hopper or Blackwell GPU with confidential computing, and driver 535 or newer"),
    4: ("nvml-permission", "no permission", "run as root, or give this user access to /dev/nvidiactl and /dev/nvidia*"),
    6: ("nvml-not-found", "the driver did not find the GPU", "compare with: nvidia-smi -L"),
    7: ("nvml-buffer", "an answer was larger than its buffer", "the driver library and its driver may not match"),
    9: ("driver-not-loaded", "the NVIDIA driver is not loaded",
        "load it (modprobe nvidia) and look at dmesg; in a guest, check that the GPU was passed through"),
    10: ("nvml-timeout", "the driver gave up waiting for the GPU",
        "look for Xid messages in dmesg; the GPU may need a reset"),
    12: ("nvml-missing", "the NVML library was not found", "install the NVIDIA driver"),
    13: ("nvml-function-missing", "the NVML library does not have this function",
        "the driver is too old for confidential computing; 535 or newer is needed"),
    15: ("gpu-lost", "the GPU is lost: it fell off the bus or is inaccessible",
        "look for Xid 79 in dmesg; the machine or the guest must be restarted"),
    16: ("gpu-reset-required", "the GPU must be reset", "reset it: nvidia-smi --gpu-reset, or restart the guest"),
    17: ("nvml-blocked", "the operating system blocked the request",
        "check cgroups, seccomp and the container's devices"),
    18: ("driver-mismatch", "the NVML library and the kernel driver have different versions",
        "reload the kernel modules or restart after a driver update"),
    19: ("nvml-in-use", "the GPU is in use by another client", "stop programs that hold the GPU and try again"),
    20: ("nvml-memory", "the driver had not enough memory", "give the guest more memory"),
    21: ("nvml-no-data", "the driver has no data for this", "try again; then look at dmesg"),
    23: ("nvml-resources", "the driver lacks resources for this", "look at dmesg"),
    25: ("nvml-version-mismatch", "the driver does not know this version of the structure", "update the driver"),
    27: ("nvml-not-ready", "the system is not ready for this request",
        "wait for the driver to initialise and try again"),
    28: ("nvml-gpu-not-found", "no GPU was found", "in a guest, check that the GPU was passed through"),
    29: ("nvml-invalid-state", "the driver is not in a state that allows this",
        "some settings must precede the ready state"),
    999: ("nvml-unknown", "the driver reports an unknown error",
        ("look at the CC status first (nvidia-smi conf-compute -f): "
         "evidence calls answer so with CC off; then at dmesg")),
}  # fmt: skip

# Failing with these while NVML initialises means that there is no usable driver.
_INIT_CALLS: Final = frozenset({"nvmlInit", "nvmlInitWithFlags"})
_NO_DRIVER: Final = frozenset({9, 12, 18})


def _nvml_error(call: str, value: int, *, subject: str) -> CollectionError:
    """The error for ``call`` having returned ``value``; result code 500 where there is no driver, else 501."""
    unknown = ("nvml-error", "the driver reports an error that this program does not know", "look at dmesg")
    code, meaning, hint = _MEANINGS.get(value, unknown)
    no_driver = value in _NO_DRIVER or call in _INIT_CALLS
    return CollectionError(
        f"{subject}: {call} failed: {meaning} (NVML {value})",
        code=code,
        result_code=ResultCode.NVML_INIT_FAILED if no_driver else ResultCode.NVML_ERROR,
        hint=hint,
    )


class NvmlCalls:
    """NVML's functions for one job; each failure becomes a CollectionError that says what to look at."""

    __slots__ = ("_binding", "_subject", "_trace")

    def __init__(self, binding: Any, trace: Trace, subject: str) -> None:
        self._binding = binding
        self._trace = trace
        self._subject = subject

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call one function of nvidia-ml-py by name. What NVML returns, or that it is missing, is a CollectionError."""
        self._trace.begin(name)
        function = getattr(self._binding, name, None)
        if function is None:
            raise CollectionError(
                f"nvidia-ml-py has no {name}", code="nvml-binding", hint="install nvidia-ml-py 12.550 or newer"
            )
        try:
            return function(*arguments)
        except self._binding.NVMLError as error:
            raise _nvml_error(name, int(error.value), subject=self._subject) from error
        except self._binding.NVMLLibraryMismatchError as error:
            raise _nvml_error(name, _FUNCTION_NOT_FOUND, subject=self._subject) from error

    def settings(self) -> Any:
        """nvmlSystemGetConfComputeSettings, version 1; the binding returns its code and raises nothing."""
        structure = getattr(self._binding, "c_nvmlSystemConfComputeSettings_v1_t", None)
        if structure is None:
            raise _nvml_error("nvmlSystemGetConfComputeSettings", _FUNCTION_NOT_FOUND, subject=self._subject)
        settings = structure()
        code = self.ask("nvmlSystemGetConfComputeSettings", ctypes.byref(settings))
        if code:
            raise _nvml_error("nvmlSystemGetConfComputeSettings", int(code), subject=self._subject)
        return settings

    def text(self, name: str, *arguments: Any) -> str:
        """A text that the driver gives, cleaned and cut: it is a hint, never an identity."""
        try:
            value = str(self.ask(name, *arguments))
        except UnicodeDecodeError:
            return "unreadable"
        return clean(value, _TEXT_MAX)


@final
class NvmlLibrary(AbstractContextManager["NvmlLibrary"]):
    """The NVML library, initialised. Use as a context manager, or ``close`` it.

    NVML is one per process: several of these share it, and NVML itself counts them.
    """

    def __init__(self, binding: Any, library: Any) -> None:
        """Use ``open``."""
        self._binding = binding
        self._library = library  # kept, so that the loader keeps it
        self._jobs: list[Job[Any]] = []
        self._given_up = False
        self._open = True

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] | None = None, *, timeout: float = DEFAULT_TIMEOUT, here: bool = False
    ) -> NvmlLibrary:
        """Load and initialise NVML.

        Args:
            path: the library file; by default ``libnvidia-ml.so.1`` as the loader finds it, then in well-known folders.
            timeout: seconds after which initialisation is given up.
            here: do it without a thread, and without that limit, where none can be had.

        Raises:
            CollectionError: result code 500, with a ``code`` that names the cause: ``nvml-missing``,
                ``nvml-binding``, ``driver-not-loaded``, ``driver-timeout`` and others.
        """
        try:
            import pynvml
        except ImportError as error:
            raise CollectionError(
                "nvidia-ml-py is not installed",
                code="nvml-binding",
                result_code=ResultCode.NVML_INIT_FAILED,
                hint="pip install nvidia-ml-py",
            ) from error

        def start(trace: Trace) -> Any:
            trace.begin("dlopen")
            library = load_library(
                _NAME,
                path,
                code="nvml-missing",
                result_code=ResultCode.NVML_INIT_FAILED,
                hint="install the NVIDIA driver, or run this where the GPU is; evidence in a file needs no driver",
            )
            NvmlCalls(pynvml, trace, "NVML").ask("nvmlInit")
            return library

        library = Job("NVML", start, here=here).wait(Deadline(timeout), result_code=ResultCode.NVML_INIT_FAILED)
        result = cls(pynvml, library)
        bound = getattr(getattr(pynvml, "nvmlLib", None), "_handle", None)
        if path is not None and bound != library._handle:  # noqa: SLF001 - ctypes has no public name for it
            result.close()
            raise CollectionError(
                f"this process uses another NVML library than {os.fspath(path)}",
                code="nvml-other-library",
                result_code=ResultCode.NVML_INIT_FAILED,
                hint=f"use one library per process; the file must have the soname {_NAME}",
            )
        return result

    def start(self, subject: str, work: Callable[[NvmlCalls], T], *, here: bool = False) -> Job[T]:
        """Begin ``work`` in a thread (``here``: or without one); ``subject`` ("GPU-0") begins its error messages."""
        job = Job(subject, lambda trace: work(NvmlCalls(self._binding, trace, subject)), here=here)
        self._jobs = [*(item for item in self._jobs if not item.finished), job]
        return job

    def wait(self, job: Job[T], deadline: Deadline) -> T:
        """The result of a started job. Raises CollectionError: it failed, or the deadline passed."""
        try:
            return job.wait(deadline)
        finally:
            self._given_up = self._given_up or not job.finished

    def run(
        self, subject: str, work: Callable[[NvmlCalls], T], *, timeout: float = DEFAULT_TIMEOUT, here: bool = False
    ) -> T:
        """Start ``work`` and wait for it, ``timeout`` seconds at most."""
        return self.wait(self.start(subject, work, here=here), Deadline(timeout))

    def close(self, *, timeout: float = _CLOSE_SECONDS) -> None:
        """Shut NVML down, within this time. Nothing is raised: there is nothing left to protect."""
        if not self._open:
            return
        self._open = False
        deadline = Deadline(0.0 if self._given_up else timeout)
        # With a call still inside the driver a shutdown could wait for it, or pull the library from under it.
        if all(job.ended(deadline) for job in self._jobs):
            with suppress(CollectionError):
                self.run("NVML", lambda calls: calls.ask("nvmlShutdown"), timeout=timeout)

    def __exit__(self, *exception: object) -> None:
        self.close()
