"""Claims 2.0, as NVIDIA's Python SDK writes them by default: flat, one boolean for each chain.

Differences from 3.0: the three chain objects are one boolean each (path, validity and revocation together); the
firmware id and the version matches have no names; a step that was not reached is ``false``, ``fail`` or an empty text,
never null; ``secboot``, ``dbgstat`` and the warning stand only where there is something to say. Registered claims
(``iss``, ``nbf``, ``exp``, ``iat``, ``jti``) come with the token.
"""

from __future__ import annotations

from nvattest._documents import JsonObject
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.claims.common import common_claims, oemid, warning
from nvattest.model import DeviceKind
from nvattest.rim.ids import RimRole
from nvattest.spdm.fields import GpuFields, SwitchFields

VERSION = "2.0"


def claims_v2(device: DeviceAppraisal, appraisal: Appraisal) -> JsonObject:
    """The 2.0 claims of one device, key for key and in the order of NVIDIA's."""
    gpu = device.kind is DeviceKind.GPU
    prefix = "x-nvidia-gpu" if gpu else "x-nvidia-switch"
    common = common_claims(device, appraisal)
    claims: JsonObject = {"measres": common["measres"], f"{prefix}-arch-check": device.passed("architecture")}
    fields = device.report.fields if device.report is not None else None
    if gpu:
        versions = (fields.driver_version, fields.vbios_version) if isinstance(fields, GpuFields) else ("", "")
        claims |= {f"{prefix}-driver-version": versions[0], f"{prefix}-vbios-version": versions[1]}
    else:
        claims[f"{prefix}-bios-version"] = fields.bios_version if isinstance(fields, SwitchFields) else ""
    claims |= {
        f"{prefix}-attestation-report-cert-chain-validated": _chain_good(device, "chain"),
        f"{prefix}-attestation-report-parsed": device.passed("report-format"),
        f"{prefix}-attestation-report-nonce-match": device.passed("nonce"),
        f"{prefix}-attestation-report-signature-verified": device.passed("report-signature"),
    }
    for role in (RimRole.DRIVER, RimRole.VBIOS) if gpu else (RimRole.BIOS,):
        claims |= _rim_claims(device, prefix, role)
    if gpu:
        claims[f"{prefix}-vbios-index-no-conflict"] = device.passed("rim-conflict")
    claims |= {"eat_nonce": common["eat_nonce"], "hwmodel": common["hwmodel"], "ueid": common["ueid"]}
    if gpu:
        claims["oemid"] = oemid(device) or ""
    claims |= {name: common[name] for name in ("secboot", "dbgstat") if common[name] is not None}
    said = warning(device)
    if said is not None:
        claims["x-nvidia-attestation-warning"] = said
    return claims


def _chain_good(device: DeviceAppraisal, stem: str) -> bool:
    checks = [device.check(f"{stem}-{part}") for part in ("path", "validity", "revocation")]
    if stem != "chain":
        checks[0] = device.check(f"{stem}-chain")
    return all(check is not None and check.acceptable for check in checks)


def _rim_claims(device: DeviceAppraisal, prefix: str, role: RimRole) -> JsonObject:
    stem = f"{role.value}-rim"
    return {
        f"{prefix}-{stem}-fetched": device.passed(f"{stem}-available"),
        f"{prefix}-{stem}-schema-validated": device.passed(f"{stem}-format"),
        f"{prefix}-{stem}-cert-validated": _chain_good(device, stem),
        f"{prefix}-{stem}-signature-verified": device.passed(f"{stem}-signature"),
        f"{prefix}-{stem}-measurements-available": device.passed(f"{stem}-binding"),
    }
