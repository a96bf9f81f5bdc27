"""Fixtures for pytest: a simulated platform in one line.

    def test_my_gate(nvattest_platform):
        platform = nvattest_platform("hopper-1")

Installed with the package; nothing heavy is imported before a test asks for a platform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nvattest.testing.platform import Platform


@pytest.fixture
def nvattest_platform() -> Callable[..., Platform]:
    """Build a simulated platform by name: ``nvattest_platform("hopper-1", lies=("gpu0:measurement=9",))``."""
    from nvattest.testing.platform import Platform

    return Platform.build
