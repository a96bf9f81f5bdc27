"""A simulated platform and its services for the tests of this folder; clients that do not sleep."""

from __future__ import annotations

import json

import pytest

from nvattest.evidence import load_evidence
from nvattest.testing import Platform

NONCE = bytes(range(32))


@pytest.fixture(scope="session")
def platform() -> Platform:
    return Platform.build("hopper-1")


@pytest.fixture(scope="session")
def evidence(platform):
    return load_evidence(json.dumps(platform.evidence(NONCE)))
