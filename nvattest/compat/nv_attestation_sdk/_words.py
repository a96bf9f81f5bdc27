"""The enumerations of the old SDK, names and values unchanged."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from nvattest.compat._errors import UnsupportedVerifierError
from nvattest.model import DeviceKind


class Devices(IntFlag):
    """Kinds of devices; GPU and SWITCH can be verified."""

    CPU = 1
    GPU = 2
    SWITCH = 4
    OS = 8
    DPU = 16


class Environment(IntEnum):
    """Where is verified; LOCAL and REMOTE do something."""

    TEST = 1
    LOCAL = 2
    AZURE = 3
    GCP = 4
    REMOTE = 5


class VerifierFields(IntEnum):
    """Places in an entry of ``get_verifiers()``. The last two are there only where a URL was given."""

    NAME = 0
    DEVICE = 1
    ENVIRONMENT = 2
    URL = 3
    POLICY = 4
    JWT_TOKEN = 5
    OCSP_URL = 6
    RIM_URL = 7


_NAMES = {
    (Devices.GPU, Environment.LOCAL): "LOCAL_GPU_CLAIMS",
    (Devices.GPU, Environment.REMOTE): "REMOTE_GPU_CLAIMS",
    (Devices.SWITCH, Environment.LOCAL): "LOCAL_SWITCH_CLAIMS",
    (Devices.SWITCH, Environment.REMOTE): "REMOTE_SWITCH_CLAIMS",
}


def verifier_name(device: object, environment: object) -> str:
    """The name of a verifier.

    Raises:
        UnsupportedVerifierError: nobody verifies this pair.
    """
    for (known, place), name in _NAMES.items():
        if device == known and environment == place:
            return name
    raise UnsupportedVerifierError(
        f"nothing can verify {device!r} in {environment!r}",
        hint="Devices.GPU or Devices.SWITCH with Environment.LOCAL or Environment.REMOTE; the old SDK took other pairs "
        "and verified nothing (TEST was always true)",
    )


def kind_of(device: Devices) -> DeviceKind:
    """Our word for a device that has a verifier."""
    return DeviceKind.GPU if device == Devices.GPU else DeviceKind.NVSWITCH
