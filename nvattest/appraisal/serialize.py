"""An appraisal as JSON: the form of ``schemas/appraisal-1.json``. Everything that an explanation needs is in it."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING

from nvattest._documents import JsonObject
from nvattest.appraisal import FORMAT, VERSION
from nvattest.appraisal.check import Check
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.appraisal.measurements import Cell, signed_versions
from nvattest.appraisal.results import Appraisal, ChainAppraisal, DeviceAppraisal, RimAppraisal
from nvattest.model import format_time
from nvattest.spdm.opaque import GpuFields
from nvattest.spdm.report import Report, feature_mode

if TYPE_CHECKING:
    from nvattest.appraisal.guest import CpuPolicy, GuestAppraisal

_SVN = ("data_type", "name", "minimum", "runtime", "satisfied")


def appraisal_to_json(appraisal: Appraisal) -> JsonObject:
    """The appraisal as JSON values: device by device, check by check."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "trusted": appraisal.trusted,
        "result_code": int(appraisal.result_code),
        "result_message": appraisal.result_code.message,
        "nonce": appraisal.nonce.hex() if appraisal.nonce is not None else None,
        "at": {"device": format_time(appraisal.at.device), "rim": format_time(appraisal.at.rim)},
        "anchors": appraisal.anchors,
        "simulated": appraisal.simulated,
        "weakened": list(appraisal.weakened),
        "policy": policy_to_json(appraisal.policy),
        "checks": [_check(check) for check in appraisal.checks],
        "devices": [_device(device) for device in appraisal.devices],
        **({} if appraisal.guest is None else {"guest": guest_to_json(appraisal.guest)}),
    }


def guest_to_json(guest: GuestAppraisal) -> JsonObject:
    """The appraisal of a guest as JSON values. What a quote says is there only where its signature was verified."""
    facts = guest.facts
    said = ("measurement", "registers", "report_data", "level", "tcb", "endorsement", "collateral")
    return {
        "kind": guest.kind or None,
        "trusted": guest.trusted,
        "quote_signature_verified": guest.quote_verified,
        "sentence": guest.sentence,
        "recipe": guest.recipe,
        "strength": guest.strength.value,
        "key": guest.key,
        "at": format_time(guest.at),
        "anchors": guest.anchors,
        "simulated": guest.simulated,
        "weakened": list(guest.weakened),
        "policy": cpu_policy_to_json(guest.policy),
        **_members(facts, *said),
        "checks": [_check(check) for check in guest.checks],
    }


def cpu_policy_to_json(policy: CpuPolicy) -> JsonObject:
    """The CPU policy as JSON values, every field named; a kind of quote that it refuses is null."""
    tdx, snp = policy.tdx, policy.snp
    return {"tdx": tdx and _plain(asdict(tdx)), "snp": snp and _plain(asdict(snp))}


def policy_to_json(policy: EvidencePolicy) -> JsonObject:
    """The evidence policy as JSON values, every field named."""
    return {field.name: _plain(getattr(policy, field.name)) for field in fields(policy)}


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if type(value) is date:
        return value.isoformat()
    return format_time(value) if isinstance(value, datetime) else value


def _members(value: object, *names: str) -> JsonObject:
    """These attributes as members of the same names; all null where there is no value."""
    return {name: _plain(getattr(value, name)) if value is not None else None for name in names}


def _check(check: Check) -> JsonObject:
    result: JsonObject = {
        "step": check.spec.step,
        "id": check.id,
        "title": check.spec.title,
        "outcome": check.outcome.value,
        "acceptable": check.acceptable,
        "detail": check.detail,
    }
    for name in ("expected", "found", "hint", "tolerated_by"):
        value = getattr(check, name)
        if value:
            result[name] = value
    if check.code:
        result["code"] = int(check.code)
    return result


def _device(device: DeviceAppraisal) -> JsonObject:
    identity = device.identity
    return {
        "label": device.label,
        "kind": device.kind.value,
        "index": device.index,
        "architecture": device.declared_architecture.value,
        "trusted": device.trusted,
        "result_code": int(device.result_code),
        "origin": device.origin,
        "report_sha256": device.report_sha256,
        "chain_sha256": device.chain_sha256,
        "identity": _members(identity, "ueid", "hwmodel", "pdi", "chip") if identity is not None else None,
        "report": _report(device.report) if device.report is not None else None,
        "chain": _chain(device.chain) if device.chain is not None else None,
        "rims": [_rim(rim) for rim in device.rims.values()],
        "measurements": [_cell(cell) for cell in device.comparison.cells] if device.comparison is not None else None,
        "minimum_svn": [_members(cell, *_SVN) for cell in device.svn.cells] if device.svn is not None else None,
        "checks": [_check(check) for check in device.checks],
    }


def _report(report: Report) -> JsonObject:
    values: JsonObject = {
        **signed_versions(report),
        "nonce": report.request.nonce.hex(),
        "opaque_layout": report.opaque.layout.name.lower(),
        "opaque_version": ".".join(str(part) for part in report.opaque.version),
        "blocks": len(report.response.blocks),
    }
    view = report.fields
    if isinstance(view, GpuFields):
        values |= _members(view, "project", "project_sku", "chip_sku", "chip_info")
        values |= {"mode": _plain(feature_mode(report)), "switch_pdis": list(view.switch_pdis)}
    else:
        values |= {"pdi": view.pdi, "gpu_pdis": list(view.gpu_pdis)}
    return values


def _chain(chain: ChainAppraisal) -> JsonObject:
    validated = chain.validated
    answers = {item.certificate.sha256: item for item in chain.revocations}
    certificates = []
    for certificate in validated.certificates:
        entry = _members(certificate, "subject", "serial", "sha256", "not_before", "not_after")
        entry["serial"] = f"{certificate.serial:x}"
        item = answers.get(certificate.sha256)
        if item is not None:
            entry["revocation"] = {
                **_members(item.revocation, "status", "reason"),
                "source": _plain(item.source),
                **_members(item.revocation, "nonce", "this_update", "next_update", "responder", "detail"),
            }
        certificates.append(entry)
    return {
        "anchor": validated.anchor.name if validated.anchor is not None else None,
        "path_ok": validated.path_ok,
        "in_validity": validated.in_validity,
        "findings": [
            _members(finding, "rule", "position", "message")
            for finding in (*validated.path_findings, *validated.validity_findings)
        ],
        "certificates": certificates,
    }


def _rim(rim: RimAppraisal) -> JsonObject:
    return {
        **_members(rim, "role", "id", "source", "origin"),
        "sha256": rim.document.raw_sha256.hex() if rim.document is not None else None,
        **_members(rim.document, "version", "product", "edition"),
        "chain": _chain(rim.chain) if rim.chain is not None else None,
    }


def _cell(cell: Cell) -> JsonObject:
    return {
        "index": cell.index,
        "state": cell.state.value,
        "source": _plain(cell.role),
        "name": cell.golden.name if cell.golden is not None else None,
        "golden": _plain(cell.golden.values) if cell.golden is not None else [],
        "runtime": _plain(cell.runtime),
    }
