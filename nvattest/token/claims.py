"""Claims: the appraisal of one device in NVIDIA's words, by version.

3.0 and 4.0 have the keys that NVIDIA's verifier and its remote service write (NVAT 1.2.2 and 2.0.0). 4.0 adds the
records of opaque data and the attester claims, and keeps the 3.0 names that consumers still read
(``…-rim-schema-validated``, ``x-nvidia-attestation-warning``). Switches have 3.0 beside the GPUs' 3.0 and 4.0.

2.0 is the default of NVIDIA's Python SDK: flat, with one boolean for each chain (path, validity and revocation
together), without the firmware id and the version matches. A step that was not reached is ``false``, ``fail`` or an
empty text, never null; ``secboot``, ``dbgstat`` and the warning are left out where they say nothing.

Registered claims (``iss``, ``iat``, ``nbf``, ``exp``, ``jti``) come with the token.
"""

from __future__ import annotations

from nvattest._documents import JsonObject
from nvattest.appraisal.measurements import Cell
from nvattest.appraisal.results import Appraisal, ChainAppraisal, DeviceAppraisal
from nvattest.errors import InputError
from nvattest.model import DeviceKind, format_time
from nvattest.pki.ocsp import NonceOutcome, RevocationStatus
from nvattest.rim.ids import ROLES, RimRole
from nvattest.spdm.opaque import GpuFields, SwitchFields

GPU_VERSIONS = ("2.0", "3.0", "4.0")
DEFAULT_GPU_VERSION = "4.0"

# NVIDIA's claim knows good, revoked, unknown and undefined; our finer outcomes are one of these.
_OCSP_WORDS = {
    RevocationStatus.GOOD: "good",
    RevocationStatus.REVOKED: "revoked",
    RevocationStatus.ON_HOLD: "revoked",
    RevocationStatus.UNKNOWN: "unknown",
}


def claims_of(appraisal: Appraisal, *, version: str = DEFAULT_GPU_VERSION) -> list[JsonObject]:
    """The claims of all devices in order, as NVIDIA's ``claims`` array and the input of Rego policies have them.

    Raises:
        InputError: a version that does not exist.
    """
    return [device_claims(device, appraisal, version=version) for device in appraisal.devices]


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
        return _claims_2(device, appraisal)
    return _gpu(device, appraisal, version) if device.kind is DeviceKind.GPU else _switch(device, appraisal)


# --- 3.0 and 4.0


def _gpu(device: DeviceAppraisal, appraisal: Appraisal, version: str) -> JsonObject:
    fields = device.report.fields if device.report is not None else None
    gpu = fields if isinstance(fields, GpuFields) else None
    claims: JsonObject = {
        **_common(device, appraisal),
        "oemid": _oemid(device),
        "x-nvidia-gpu-driver-version": gpu.driver_version if gpu is not None else "",
        "x-nvidia-gpu-vbios-version": gpu.vbios_version if gpu is not None else "",
        **_report_and_rims(device, "x-nvidia-gpu"),
        "x-nvidia-gpu-vbios-index-no-conflict": device.passed("rim-conflict"),
        "x-nvidia-gpu-claims-version": version,
    }
    if gpu is not None and gpu.switch_pdis:
        claims["x-nvidia-gpu-switch-pdis"] = list(gpu.switch_pdis)
    if version == "4.0":
        claims["x-nvidia-mismatch-opaque-data-records"] = _opaque_mismatches(device)
        cells = device.svn.cells if device.svn is not None else ()
        claims["x-nvidia-attester-claims"] = {
            cell.name: cell.runtime for cell in cells if cell.include_in_result and cell.runtime is not None
        }
    return claims


def _switch(device: DeviceAppraisal, appraisal: Appraisal) -> JsonObject:
    fields = device.report.fields if device.report is not None else None
    switch = fields if isinstance(fields, SwitchFields) else None
    claims: JsonObject = {
        **_common(device, appraisal),
        "x-nvidia-switch-bios-version": switch.bios_version if switch is not None else "",
        **_report_and_rims(device, "x-nvidia-switch"),
        "x-nvidia-version": "3.0",
    }
    if switch is not None and switch.pdi is not None:
        claims["x-nvidia-switch-pdi"] = switch.pdi
    if switch is not None and switch.gpu_pdis:
        claims["x-nvidia-switch-gpu-pdis"] = list(switch.gpu_pdis)
    return claims


def _common(device: DeviceAppraisal, appraisal: Appraisal) -> JsonObject:
    matched = device.passed("measurements") and device.passed("rim-conflict")
    # A minimum SVN that is missed spoils the result, but not the debug and boot claims (NVAT 2.0.0).
    success = matched and device.passed("minimum-svn")
    answered = device.report.request.nonce.hex() if device.report is not None else ""
    mismatches = device.comparison.mismatches if device.comparison is not None else ()
    return {
        "eat_nonce": appraisal.nonce.hex() if appraisal.nonce is not None else answered,
        "measres": "success" if success else "fail",
        "secboot": True if matched else None,
        "dbgstat": "disabled" if matched and device.passed("debug") else None,
        "hwmodel": device.identity.hwmodel if device.identity is not None else "",
        "ueid": device.identity.ueid if device.identity is not None else "",
        "x-nvidia-device-type": device.kind.value,
        "x-nvidia-mismatch-measurement-records": [_record(cell) for cell in mismatches] or None,
        "x-nvidia-attestation-warning": _warning(device),
    }


def _report_and_rims(device: DeviceAppraisal, prefix: str) -> JsonObject:
    fwid = device.check("fwid")
    claims: JsonObject = {
        f"{prefix}-arch-check": device.passed("architecture"),
        f"{prefix}-attestation-report-cert-chain": _chain_object(device.chain),
        f"{prefix}-attestation-report-cert-chain-fwid-match": fwid is not None and fwid.acceptable,
        f"{prefix}-attestation-report-parsed": device.passed("report-format"),
        f"{prefix}-attestation-report-nonce-match": device.passed("nonce"),
        f"{prefix}-attestation-report-signature-verified": device.passed("report-signature"),
    }
    for role in ROLES[device.kind]:
        stem = f"{role.value}-rim"
        rim = device.rims.get(role)
        bound = device.passed(f"{stem}-binding")
        claims |= {
            f"{prefix}-{stem}-fetched": device.passed(f"{stem}-available"),
            f"{prefix}-{stem}-schema-validated": device.passed(f"{stem}-format"),
            f"{prefix}-{stem}-cert-chain": _chain_object(rim.chain if rim is not None else None),
            f"{prefix}-{stem}-signature-verified": device.passed(f"{stem}-signature"),
            f"{prefix}-{stem}-version-match": bound,
            f"{prefix}-{stem}-measurements-available": bound,
        }
    return claims


def _chain_object(chain: ChainAppraisal | None) -> JsonObject | None:
    """NVIDIA's chain object, or None for a chain that was never reached.

    The revocation status is that of the highest certificate that is not good, as NVIDIA aggregates it.
    """
    if chain is None:
        return None
    validated = chain.validated
    if not validated.path_ok:
        status = "invalid"
    elif not validated.in_validity:
        status = "expired" if any(f.rule == "expired" for f in validated.validity_findings) else "invalid"
    else:
        status = "valid"
    revocations = [item.revocation for item in chain.revocations]
    worst = next((item for item in revocations if item.status is not RevocationStatus.GOOD), None)
    word = "undefined" if not revocations else "good" if worst is None else _OCSP_WORDS.get(worst.status, "undefined")
    return {
        "x-nvidia-cert-expiration-date": format_time(validated.earliest_not_after),
        "x-nvidia-cert-status": status,
        "x-nvidia-cert-ocsp-status": word,
        "x-nvidia-cert-revocation-reason": worst.reason if worst is not None and word == "revoked" else None,
        "x-nvidia-cert-ocsp-nonce-matches": bool(revocations)
        and all(item.nonce is NonceOutcome.MATCH for item in revocations),
        "x-nvidia-cert-ocsp-response-valid": bool(revocations)
        and all(item.signature_valid and item.in_window for item in revocations),
    }


def _record(cell: Cell) -> JsonObject:
    golden = cell.golden
    return {
        "index": cell.index,
        "goldenSize": golden.size if golden is not None else 0,
        "goldenValue": golden.values[0].hex() if golden is not None else "",
        "runtimeSize": len(cell.runtime) if cell.runtime is not None else 0,
        "runtimeValue": cell.runtime.hex() if cell.runtime is not None else "NA",
        "measurementSource": "Driver" if cell.role is RimRole.DRIVER else "Firmware",
    }


def _opaque_mismatches(device: DeviceAppraisal) -> list[JsonObject] | None:
    records: list[JsonObject] = []
    for cell in device.svn.mismatches if device.svn is not None else ():
        record: JsonObject = {
            "id": cell.data_type,
            "name": cell.name,
            "goldenType": "MIN_SVN",
            "goldenValue": cell.minimum,
        }
        if cell.runtime is not None:
            record |= {"runtimeType": "MIN_SVN", "runtimeValue": cell.runtime}
        records.append(record)
    return records or None


def _warning(device: DeviceAppraisal) -> str | None:
    """Which options of the policy let a check pass that did not, or None."""
    names = sorted(
        {check.tolerated_by for check in device.checks if check.tolerated_by.startswith(("allow_", "accept_"))}
    )
    return f"accepted by policy: {', '.join(names)}" if names else None


def _oemid(device: DeviceAppraisal) -> str | None:
    """The manufacturer that the driver's RIM names, or None where that RIM is not verified."""
    driver = device.rims.get(RimRole.DRIVER)
    verified = device.passed("driver-rim-signature") and device.passed("driver-rim-chain")
    return driver.document.manufacturer_id if verified and driver is not None and driver.document is not None else None


# --- 2.0


def _claims_2(device: DeviceAppraisal, appraisal: Appraisal) -> JsonObject:
    gpu = device.kind is DeviceKind.GPU
    prefix = "x-nvidia-gpu" if gpu else "x-nvidia-switch"
    common = _common(device, appraisal)
    claims: JsonObject = {"measres": common["measres"], f"{prefix}-arch-check": device.passed("architecture")}
    fields = device.report.fields if device.report is not None else None
    if gpu:
        versions = (fields.driver_version, fields.vbios_version) if isinstance(fields, GpuFields) else ("", "")
        claims |= {f"{prefix}-driver-version": versions[0], f"{prefix}-vbios-version": versions[1]}
    else:
        claims[f"{prefix}-bios-version"] = fields.bios_version if isinstance(fields, SwitchFields) else ""
    claims |= {
        f"{prefix}-attestation-report-cert-chain-validated": _acceptable(
            device, "chain-path", "chain-validity", "chain-revocation"
        ),
        f"{prefix}-attestation-report-parsed": device.passed("report-format"),
        f"{prefix}-attestation-report-nonce-match": device.passed("nonce"),
        f"{prefix}-attestation-report-signature-verified": device.passed("report-signature"),
    }
    for role in ROLES[device.kind]:
        stem = f"{role.value}-rim"
        claims |= {
            f"{prefix}-{stem}-fetched": device.passed(f"{stem}-available"),
            f"{prefix}-{stem}-schema-validated": device.passed(f"{stem}-format"),
            f"{prefix}-{stem}-cert-validated": _acceptable(
                device, f"{stem}-chain", f"{stem}-validity", f"{stem}-revocation"
            ),
            f"{prefix}-{stem}-signature-verified": device.passed(f"{stem}-signature"),
            f"{prefix}-{stem}-measurements-available": device.passed(f"{stem}-binding"),
        }
    if gpu:
        claims[f"{prefix}-vbios-index-no-conflict"] = device.passed("rim-conflict")
    claims |= {name: common[name] for name in ("eat_nonce", "hwmodel", "ueid")}
    if gpu:
        claims["oemid"] = _oemid(device) or ""
    optional = ("secboot", "dbgstat", "x-nvidia-attestation-warning")
    return claims | {name: common[name] for name in optional if common[name] is not None}


def _acceptable(device: DeviceAppraisal, *names: str) -> bool:
    checks = [device.check(name) for name in names]
    return all(check is not None and check.acceptable for check in checks)
