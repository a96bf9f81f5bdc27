"""A simulated platform and its services for the tests of this folder; clients that do not sleep."""

from __future__ import annotations

import pytest

from nvattest.testing import Platform

NONCE = bytes(range(32))


@pytest.fixture(scope="session")
def platform() -> Platform:
    return Platform.build("hopper-1")


@pytest.fixture(scope="session")
def evidence(platform):
    return platform.evidence(NONCE)
