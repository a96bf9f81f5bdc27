"""GPU claims 3.0 and 4.0, key for key as NVIDIA's verifier and its remote service write them.

4.0 (NVAT 2.0.0) adds the opaque-data records and the attester claims, and here also carries the 3.0 names that
consumers still read (``…-rim-schema-validated``, ``x-nvidia-attestation-warning``).
"""

from __future__ import annotations

from nvattest._documents import JsonObject
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.claims.common import common_claims, oemid, report_claims, rim_claims
from nvattest.rim.ids import RimRole
from nvattest.spdm.fields import GpuFields


def gpu_claims(device: DeviceAppraisal, appraisal: Appraisal, *, version: str) -> JsonObject:
    """The claims of one GPU; ``version`` is ``"3.0"`` or ``"4.0"``."""
    fields = device.report.fields if device.report is not None else None
    gpu = fields if isinstance(fields, GpuFields) else None
    claims: JsonObject = {
        **common_claims(device, appraisal),
        "oemid": oemid(device),
        "x-nvidia-gpu-driver-version": gpu.driver_version if gpu is not None else "",
        "x-nvidia-gpu-vbios-version": gpu.vbios_version if gpu is not None else "",
        **report_claims(device, "x-nvidia-gpu"),
        **rim_claims(device, "x-nvidia-gpu", RimRole.DRIVER),
        **rim_claims(device, "x-nvidia-gpu", RimRole.VBIOS),
        "x-nvidia-gpu-vbios-index-no-conflict": device.passed("rim-conflict"),
        "x-nvidia-gpu-claims-version": version,
    }
    if gpu is not None and gpu.switch_pdis:
        claims["x-nvidia-gpu-switch-pdis"] = list(gpu.switch_pdis)
    if version == "4.0":
        claims["x-nvidia-mismatch-opaque-data-records"] = _opaque_mismatches(device)
        claims["x-nvidia-attester-claims"] = _attester_claims(device)
    return claims


def _opaque_mismatches(device: DeviceAppraisal) -> list[JsonObject] | None:
    if device.svn is None or not device.svn.mismatches:
        return None
    records: list[JsonObject] = []
    for cell in device.svn.mismatches:
        record: JsonObject = {
            "id": cell.data_type,
            "name": cell.name,
            "goldenType": "MIN_SVN",
            "goldenValue": cell.minimum,
        }
        if cell.runtime is not None:
            record |= {"runtimeType": "MIN_SVN", "runtimeValue": cell.runtime}
        records.append(record)
    return records


def _attester_claims(device: DeviceAppraisal) -> JsonObject:
    if device.svn is None:
        return {}
    return {cell.name: cell.runtime for cell in device.svn.cells if cell.include_in_result and cell.runtime is not None}
