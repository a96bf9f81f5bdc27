"""The fake kernel as a fixture."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_kernel import FakeKernel

from nvattest.tee import tsm


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeKernel]:
    """Make a kernel and put it under the code that is tested."""

    def make(**settings: object) -> FakeKernel:
        kernel = FakeKernel(**settings)  # type: ignore[arg-type]
        monkeypatch.setattr(tsm, "os", kernel)
        return kernel

    return make
