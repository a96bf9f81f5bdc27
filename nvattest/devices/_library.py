"""Finding a driver library: by name, then at absolute places, for guests without a loader cache or an environment."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from nvattest.errors import CollectionError, ResultCode

__all__ = ["LIBRARY_FOLDERS", "load_library"]

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
    # A library that is there but does not load is the more telling message than the one that is not.
    raise CollectionError(f"{name} could not be loaded: {said}"[:500], code=code, result_code=result_code, hint=hint)
