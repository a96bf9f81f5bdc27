"""A compiled driver, a server with stand-in devices, and the way between them, for tests in this process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from nvattest.devices.nvml import NvmlLibrary
from nvattest.testing.driver import DriverLibraries, DriverServer


@dataclass
class StandIn:
    """A device that signs nothing: its report is the nonce and a digest, in a size that is not round."""

    index: int
    uuid: str = ""
    name: str = "NVIDIA H100 80GB HBM3"
    architecture: int = 9
    driver_version: str = "580.159.04"
    vbios_version: str = "96.00.A5.00.1A"
    board_part_number: str = "692-2G520-0282-001"

    def __post_init__(self) -> None:
        self.uuid = self.uuid or f"GPU-00000000-0000-0000-0000-{self.index:012d}"

    @property
    def chain_pem(self) -> bytes:
        return f"-----BEGIN CERTIFICATE-----\nZGV2aWNl{self.index}\n-----END CERTIFICATE-----\n".encode() * 20

    def report(self, nonce: bytes) -> bytes:
        return bytes(4) + nonce + hashlib.sha384(nonce + self.uuid.encode()).digest() * 80 + b"end"


@dataclass
class Machine:
    gpus: list[Any] = field(default_factory=lambda: [StandIn(0)])
    switches: list[Any] = field(default_factory=list)


Drive = Callable[..., DriverServer]


@pytest.fixture
def drive(libraries: DriverLibraries, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    """Start a server and point this process at it: ``drive(gpus=[...], switches=[...], state=...)``."""
    servers: list[DriverServer] = []

    def start(*, gpus: int | list[Any] = 1, switches: int | list[Any] = 0, **options: Any) -> DriverServer:
        machine = Machine(
            gpus=[StandIn(index) for index in range(gpus)] if isinstance(gpus, int) else gpus,
            switches=[
                StandIn(index, uuid=f"SWX-0000000{index}-0000-0000-0000-000000000001") for index in range(switches)
            ]
            if isinstance(switches, int)
            else switches,
        )
        server = DriverServer(machine, **options)
        servers.append(server)
        monkeypatch.setenv("NVATTEST_SIM_SOCKET", server.address)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def nvml(libraries: DriverLibraries) -> Iterator[Callable[[], NvmlLibrary]]:
    """Open the compiled NVML once a server runs."""
    opened: list[NvmlLibrary] = []

    def start() -> NvmlLibrary:
        opened.append(NvmlLibrary.open(libraries.nvml, timeout=10))
        return opened[-1]

    yield start
    for library in opened:
        library.close()


@pytest.fixture
def subprocess_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("NVATTEST", "LD_"))}
