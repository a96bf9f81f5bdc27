"""Fixtures for pytest: a simulated platform in one line.

    from nvattest.testing import BuildPlatform

    def test_my_gate(nvattest_platform: BuildPlatform) -> None:
        platform = nvattest_platform("hopper-1", lies=["gpu0:measurement=9"])

Installed with the package; nothing heavy is imported before a test asks for a platform.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from nvattest.testing.lies import Lie
    from nvattest.testing.platform import Platform

__all__ = ["BuildPlatform", "nvattest_platform"]


class BuildPlatform(Protocol):
    """What the fixture gives: ``Platform.build``."""

    def __call__(
        self,
        name: str = "hopper-1",
        *,
        seed: int = 0,
        clock: datetime | None = None,
        driver_version: str | None = None,
        nvdec0: bool | None = None,
        lies: Iterable[Lie | str] = (),
    ) -> Platform:
        """Build a simulated platform, as ``Platform.build`` does."""
        ...


@pytest.fixture
def nvattest_platform() -> BuildPlatform:
    """Build a simulated platform by name: ``nvattest_platform("hopper-1", lies=("gpu0:measurement=9",))``."""
    from nvattest.testing.platform import Platform

    return Platform.build
