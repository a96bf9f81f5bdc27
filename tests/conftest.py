"""What all tests share: the real data by path, and no network beyond loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nvattest.errors import InputError
from nvattest.testing.driver import DriverLibraries, build_driver_libraries

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA = ROOT.parent / "shared" / "real-data"
# By name, so that a test says what it read whatever else the folder comes to hold.
REAL_RIMS = (
    "rim/NV_GPU_DRIVER_GH100_550.144.03.xml",
    "rim/NV_GPU_DRIVER_GH100_550.90.07.xml",
    "rim/NV_GPU_VBIOS_1010_0200_882_96009F0001.xml",
    "rim/NV_SWITCH_BIOS_5612_0002_890_9610550001.xml",
    "rim-bad/NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml",
    "rim-bad/NV_SWITCH_BIOS_5612_0002_890_9610550001_invalid_signature.xml",
    "rim-bad/incorrect_signature_driver_rim.xml",
    "rim-other/1010_0205_862_9600740020_PROD.swidtag.xml",
    "rim-other/NV_GPU_VBIOS_1010_0200_882_96009F0001.reissued.xml",
    "rim-other/g520_0200_885_9600740001_PROD.swidtag.xml",
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of evidence, RIMs and answers that NVIDIA signed; the test is skipped where it is missing."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"real data is not here: {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def real_rims(real_data: Path) -> dict[str, Path]:
    """The RIMs of the real data by folder and name; those below ``rim-bad/`` follow the profile and prove nothing."""
    return {name: real_data / name for name in REAL_RIMS}


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> DriverLibraries:
    """The simulated driver libraries, compiled once for all workers and modules of a run: a process binds NVML once."""
    try:
        return build_driver_libraries(tmp_path_factory.getbasetemp().parent / "nvattest-driver")
    except InputError as error:
        if error.code != "no-compiler":
            raise
        pytest.skip("no C compiler: the driver library cannot be tested here")


@pytest.fixture(scope="session")
def schemas() -> dict[str, Any]:
    """A validator for each JSON Schema by its id."""
    import jsonschema
    from referencing import Registry, Resource

    documents = [json.loads(path.read_bytes()) for path in sorted((ROOT / "schemas").glob("*-1.json"))]
    registry: Registry = Registry().with_resources(
        (document["$id"], Resource.from_contents(document)) for document in documents
    )
    return {document["$id"]: jsonschema.Draft202012Validator(document, registry=registry) for document in documents}


@pytest.fixture(scope="session")
def validate(schemas: dict[str, Any]) -> Callable[[object], Any]:
    """Validate a document against the schema that it names by ``format`` and ``version``."""

    def check(document: object) -> Any:
        assert isinstance(document, dict)
        kind = document["format"].removeprefix("nvattest-")
        schemas[f"urn:nvattest:schema:{kind}:{document['version']}"].validate(document)
        return document

    return check


@pytest.fixture(autouse=True)
def no_network_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])  # type: ignore[index]
            if not (host.startswith("127.") or host in ("::1", "localhost")):
                raise AssertionError(f"a test tried to reach {host}")
        return connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
