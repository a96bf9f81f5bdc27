"""``verifier``: NVIDIA's local GPU verifier as a library, for programs that import ``verifier.cc_admin``."""

from __future__ import annotations

from typing import Any

__all__ = ["cc_admin"]


def __getattr__(name: str) -> Any:
    # When it is asked for: python -m runs that module, and complains of one that is loaded already.
    if name == "cc_admin":
        import importlib

        return importlib.import_module("nvattest.compat.verifier.cc_admin")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
