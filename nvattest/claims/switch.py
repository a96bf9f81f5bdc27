"""Switch claims 3.0, key for key as NVIDIA's (unchanged in NVAT 2.0.0)."""

from __future__ import annotations

from nvattest._documents import JsonObject
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.claims.common import common_claims, report_claims, rim_claims
from nvattest.rim.ids import RimRole
from nvattest.spdm.fields import SwitchFields


def switch_claims(device: DeviceAppraisal, appraisal: Appraisal) -> JsonObject:
    """The claims of one NVSwitch."""
    fields = device.report.fields if device.report is not None else None
    switch = fields if isinstance(fields, SwitchFields) else None
    claims: JsonObject = {
        **common_claims(device, appraisal),
        "x-nvidia-switch-bios-version": switch.bios_version if switch is not None else "",
        **report_claims(device, "x-nvidia-switch"),
        **rim_claims(device, "x-nvidia-switch", RimRole.BIOS),
        "x-nvidia-version": "3.0",
    }
    if switch is not None and switch.pdi is not None:
        claims["x-nvidia-switch-pdi"] = switch.pdi
    if switch is not None and switch.gpu_pdis:
        claims["x-nvidia-switch-gpu-pdis"] = list(switch.gpu_pdis)
    return claims
