"""``verifier``: NVIDIA's local GPU verifier as a library, for programs that import ``verifier.cc_admin``."""

from __future__ import annotations

from nvattest.compat.verifier import cc_admin

__all__ = ["cc_admin"]
