"""Calls into a driver library: finding it, giving up work at a deadline, and naming the call that hangs.

A C call cannot be interrupted. Work that is given up begins no other call: a decision about the devices of then must
not be carried out on those of later.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from nvattest._waiting import Deadline, Late, NoThread, Work
from nvattest.errors import CollectionError, NvattestError, ResultCode

__all__ = ["DEFAULT_TIMEOUT", "LIBRARY_FOLDERS", "Job", "Trace", "load_library"]

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
        """Note the call that comes next.

        Raises:
            CollectionError: the job was given up (``driver-timeout``).
        """
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
        """The result of the work.

        Raises:
            CollectionError: the deadline passed (``driver-timeout``), there was no thread (``driver-thread``), or the
                work failed.
        """
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
