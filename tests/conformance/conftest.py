"""Stages: a simulated platform, its services and a folder, made for the lies that a row needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nvattest.testing import Platform
from nvattest.testing.services import Services, wall_clock

from .world import Stage, clock


@pytest.fixture
def stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Stage]]:
    for name in ("NVAT_RIM_SERVICE_BASE_URL", "NVAT_OCSP_BASE_URL", "NVAT_NRAS_BASE_URL", "NV_ATTESTATION_SERVICE_KEY"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:

        def make(name: str = "hopper-1", *, lies: tuple[str, ...] = (), faults: tuple[str, ...] = ()) -> Stage:
            platform = Platform.build(name, clock=clock(), lies=lies)
            services = stack.enter_context(Services(platform, faults=faults, now=wall_clock))
            return Stage(platform=platform, services=services, folder=tmp_path, capsys=capsys, monkeypatch=monkeypatch)

        yield make
