"""What is said to others about an appraisal, in NVIDIA's words: one claims object per device, by version."""

from __future__ import annotations

from nvattest._documents import JsonObject
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.claims.gpu import gpu_claims
from nvattest.claims.switch import switch_claims
from nvattest.claims.v2 import claims_v2
from nvattest.errors import InputError
from nvattest.model import DeviceKind

GPU_VERSIONS = ("2.0", "3.0", "4.0")
SWITCH_VERSION = "3.0"
DEFAULT_GPU_VERSION = "4.0"


def device_claims(device: DeviceAppraisal, appraisal: Appraisal, *, version: str = DEFAULT_GPU_VERSION) -> JsonObject:
    """The claims of one device. ``version`` is the GPUs'; switches have 2.0, and 3.0 beside the GPUs' 3.0 and 4.0.

    Raises:
        InputError: a version that does not exist.
    """
    if version not in GPU_VERSIONS:
        raise InputError(
            f"there are no claims of version {version!r}",
            code="claims-version",
            hint=f"one of {', '.join(GPU_VERSIONS)}",
        )
    if version == "2.0":
        return claims_v2(device, appraisal)
    if device.kind is DeviceKind.NVSWITCH:
        return switch_claims(device, appraisal)
    return gpu_claims(device, appraisal, version=version)


def claims_of(appraisal: Appraisal, *, version: str = DEFAULT_GPU_VERSION) -> list[JsonObject]:
    """The claims of all devices in order, as NVIDIA's ``claims`` array and the input of Rego policies have them.

    Raises:
        InputError: a version that does not exist.
    """
    return [device_claims(device, appraisal, version=version) for device in appraisal.devices]
