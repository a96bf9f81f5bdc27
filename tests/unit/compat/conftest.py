"""Every test has a default instance of its own and no variables of the old SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nvattest.compat.nv_attestation_sdk.attestation import Attestation
from nvattest.testing import Platform

from .clients import client_of, evidence_of


@pytest.fixture(autouse=True)
def a_default_instance_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attestation, "_default", None)
    for name in ("NVATTEST_TRUST_ANCHORS", "NV_ALLOW_HOLD_CERT", "NV_RIM_URL", "NV_OCSP_URL", "NV_NRAS_GPU_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def platform() -> Platform:
    return Platform.build("hopper-1")


@pytest.fixture
def attested(platform: Platform) -> Callable[..., Attestation]:
    def make(**settings: Any) -> Attestation:
        client = client_of(platform, **settings)
        assert client.attest(evidence_of(platform)) is True
        return client

    return make
