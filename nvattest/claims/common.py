"""Claims that GPUs and switches share: identity, result, mismatch records, chain objects (NVAT 1.2.2)."""

from __future__ import annotations

from nvattest._documents import JsonObject
from nvattest.appraisal.check import Outcome
from nvattest.appraisal.measurements import Cell
from nvattest.appraisal.results import Appraisal, ChainAppraisal, DeviceAppraisal
from nvattest.model import format_time
from nvattest.pki.ocsp import NonceOutcome, RevocationStatus
from nvattest.rim.ids import RimRole

# What our finer outcomes are called in NVIDIA's claim, which knows good, revoked, unknown and undefined.
_OCSP_WORDS = {
    RevocationStatus.GOOD: "good",
    RevocationStatus.REVOKED: "revoked",
    RevocationStatus.ON_HOLD: "revoked",
    RevocationStatus.UNKNOWN: "unknown",
}


def chain_object(chain: ChainAppraisal | None) -> JsonObject | None:
    """NVIDIA's chain object, or None for a chain that was never reached.

    The status is the highest one in the chain that is not good, as NVIDIA's aggregation has it.
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


def warning(device: DeviceAppraisal) -> str | None:
    """The attestation warning of the 3.0 claims: which tolerated checks lie behind a good result, or None."""
    names = sorted(
        {check.tolerated_by for check in device.checks if check.tolerated_by.startswith(("allow_", "accept_"))}
    )
    return f"accepted by policy: {', '.join(names)}" if names else None


def common_claims(device: DeviceAppraisal, appraisal: Appraisal) -> JsonObject:
    """The claims that do not depend on the kind of device."""
    matched = device.passed("measurements") and device.passed("rim-conflict")
    # A minimum SVN that is missed spoils the result, but not the debug and boot claims (NVAT 2.0.0).
    success = matched and device.passed("minimum-svn")
    nonce = device.report.request.nonce.hex() if device.report is not None else ""
    return {
        "eat_nonce": appraisal.nonce.hex() if appraisal.nonce is not None else nonce,
        "measres": "success" if success else "fail",
        "secboot": True if matched else None,
        "dbgstat": "disabled" if matched and device.passed("debug") else None,
        "hwmodel": device.identity.hwmodel if device.identity is not None else "",
        "ueid": device.identity.ueid if device.identity is not None else "",
        "x-nvidia-device-type": device.kind.value,
        "x-nvidia-mismatch-measurement-records": mismatch_records(device),
        "x-nvidia-attestation-warning": warning(device),
    }


def mismatch_records(device: DeviceAppraisal) -> list[JsonObject] | None:
    """NVIDIA's mismatch records in its order, or None when nothing differs."""
    if device.comparison is None or not device.comparison.mismatches:
        return None
    return [_record(cell) for cell in device.comparison.mismatches]


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


def oemid(device: DeviceAppraisal) -> str | None:
    """The manufacturer that the driver's RIM names, or None: what is not verified names nobody."""
    driver = device.rims.get(RimRole.DRIVER)
    verified = device.passed("driver-rim-signature") and device.passed("driver-rim-chain")
    return driver.document.manufacturer_id if verified and driver is not None and driver.document is not None else None


def report_claims(device: DeviceAppraisal, prefix: str) -> JsonObject:
    """The claims about the report and its chain; ``prefix`` is ``x-nvidia-gpu`` or ``x-nvidia-switch``."""
    fwid = device.check("fwid")
    return {
        f"{prefix}-arch-check": device.passed("architecture"),
        f"{prefix}-attestation-report-cert-chain": chain_object(device.chain),
        f"{prefix}-attestation-report-cert-chain-fwid-match": fwid is not None and fwid.acceptable,
        f"{prefix}-attestation-report-parsed": device.passed("report-format"),
        f"{prefix}-attestation-report-nonce-match": device.passed("nonce"),
        f"{prefix}-attestation-report-signature-verified": device.passed("report-signature"),
    }


def rim_claims(device: DeviceAppraisal, prefix: str, role: RimRole) -> JsonObject:
    """The claims about one RIM; ``prefix`` as above."""
    word = role.value
    rim = device.rims.get(role)
    binding = device.check(f"{word}-rim-binding")
    version_match = binding is not None and binding.outcome is Outcome.PASS
    return {
        f"{prefix}-{word}-rim-fetched": device.passed(f"{word}-rim-available"),
        f"{prefix}-{word}-rim-schema-validated": device.passed(f"{word}-rim-format"),
        f"{prefix}-{word}-rim-cert-chain": chain_object(rim.chain if rim is not None else None),
        f"{prefix}-{word}-rim-signature-verified": device.passed(f"{word}-rim-signature"),
        f"{prefix}-{word}-rim-version-match": version_match,
        f"{prefix}-{word}-rim-measurements-available": version_match,
    }
