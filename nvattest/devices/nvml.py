"""NVML through NVIDIA's own binding: one object that opens it, asks it under a deadline, and closes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, final

from nvattest._text import clean
from nvattest.devices._deadline import DEFAULT_TIMEOUT, Deadline, Job, Trace
from nvattest.devices._library import load_library
from nvattest.devices._nvml_errors import FUNCTION_NOT_FOUND, nvml_error
from nvattest.errors import CollectionError, ResultCode

__all__ = ["NvmlCalls", "NvmlLibrary"]

T = TypeVar("T")

_NAME: Final = "libnvidia-ml.so.1"
_CLOSE_SECONDS: Final = 2.0
_TEXT_MAX: Final = 96


class NvmlCalls:
    """NVML's functions for one job; each failure becomes a CollectionError that says what to look at."""

    __slots__ = ("_binding", "_subject", "_trace")

    def __init__(self, binding: Any, trace: Trace, subject: str) -> None:
        self._binding = binding
        self._trace = trace
        self._subject = subject

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call one function of nvidia-ml-py by name.

        Raises:
            CollectionError: NVML returned an error, or the binding or the library lacks the function.
        """
        self._trace.begin(name)
        function = getattr(self._binding, name, None)
        if function is None:
            raise CollectionError(
                f"nvidia-ml-py has no {name}", code="nvml-binding", hint="install nvidia-ml-py 12.550 or newer"
            )
        try:
            return function(*arguments)
        except self._binding.NVMLError as error:
            raise nvml_error(name, int(error.value), subject=self._subject) from error
        except self._binding.NVMLLibraryMismatchError as error:
            raise nvml_error(name, FUNCTION_NOT_FOUND, subject=self._subject) from error

    def settings(self) -> Any:
        """nvmlSystemGetConfComputeSettings, version 1; the binding returns its code and raises nothing."""
        from ctypes import byref

        structure = getattr(self._binding, "c_nvmlSystemConfComputeSettings_v1_t", None)
        if structure is None:
            raise nvml_error("nvmlSystemGetConfComputeSettings", FUNCTION_NOT_FOUND, subject=self._subject)
        settings = structure()
        code = self.ask("nvmlSystemGetConfComputeSettings", byref(settings))
        if code:
            raise nvml_error("nvmlSystemGetConfComputeSettings", int(code), subject=self._subject)
        return settings

    def text(self, name: str, *arguments: Any) -> str:
        """A text that the driver gives, cleaned and cut: it is a hint, never an identity."""
        try:
            value = str(self.ask(name, *arguments))
        except UnicodeDecodeError:
            return "unreadable"
        return clean(value, _TEXT_MAX)


@final
class NvmlLibrary:
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
        """The result of a started job.

        Raises:
            CollectionError: it failed, or the deadline passed.
        """
        try:
            return job.wait(deadline)
        finally:
            self._given_up = self._given_up or not job.finished

    def run(
        self, subject: str, work: Callable[[NvmlCalls], T], *, timeout: float = DEFAULT_TIMEOUT, here: bool = False
    ) -> T:
        """Do ``work`` and wait for it; with ``here`` without a thread where none can be had.

        Raises:
            CollectionError: it failed, or did not return within ``timeout`` seconds.
        """
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

    def __enter__(self) -> NvmlLibrary:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
