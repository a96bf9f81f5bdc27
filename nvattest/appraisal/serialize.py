"""An appraisal as JSON: the form of ``schemas/appraisal-1.json``. Everything that an explanation needs is in it."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum

from nvattest._documents import JsonObject
from nvattest.appraisal import FORMAT, VERSION
from nvattest.appraisal.check import Check
from nvattest.appraisal.measurements import Cell, SvnCell, signed_versions
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.appraisal.results import Appraisal, ChainAppraisal, DeviceAppraisal, RimAppraisal
from nvattest.model import format_time
from nvattest.pki.certificate import Certificate
from nvattest.spdm.fields import GpuFields, SwitchFields
from nvattest.spdm.report import Report, feature_mode


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
    }


def policy_to_json(policy: EvidencePolicy) -> JsonObject:
    """The evidence policy as JSON values, every field named."""
    return {field.name: _plain(getattr(policy, field.name)) for field in fields(policy)}


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


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
        "identity": None
        if identity is None
        else {"ueid": identity.ueid, "hwmodel": identity.hwmodel, "pdi": identity.pdi, "chip": identity.chip},
        "report": _report(device.report) if device.report is not None else None,
        "chain": _chain(device.chain) if device.chain is not None else None,
        "rims": [_rim(rim) for rim in device.rims.values()],
        "measurements": [_cell(cell) for cell in device.comparison.cells] if device.comparison is not None else None,
        "minimum_svn": [_svn(cell) for cell in device.svn.cells] if device.svn is not None else None,
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
        values |= {
            "project": view.project,
            "project_sku": view.project_sku,
            "chip_sku": view.chip_sku,
            "chip_info": view.chip_info,
            "mode": _mode(report),
            "switch_pdis": list(view.switch_pdis),
        }
    elif isinstance(view, SwitchFields):
        values |= {"pdi": view.pdi, "gpu_pdis": list(view.gpu_pdis)}
    return values


def _mode(report: Report) -> str | None:
    mode = feature_mode(report)
    return mode.value if mode is not None else None


def _chain(chain: ChainAppraisal) -> JsonObject:
    validated = chain.validated
    answers = {item.certificate.sha256: item for item in chain.revocations}
    certificates = []
    for certificate in validated.certificates:
        entry = _certificate(certificate)
        item = answers.get(certificate.sha256)
        if item is not None:
            revocation = item.revocation
            entry["revocation"] = {
                "status": revocation.status.value,
                "reason": revocation.reason,
                "source": item.source.value if item.source is not None else None,
                "nonce": revocation.nonce.value,
                "this_update": format_time(revocation.this_update) if revocation.this_update is not None else None,
                "next_update": format_time(revocation.next_update) if revocation.next_update is not None else None,
                "responder": revocation.responder,
                "detail": revocation.detail,
            }
        certificates.append(entry)
    return {
        "anchor": validated.anchor.name if validated.anchor is not None else None,
        "path_ok": validated.path_ok,
        "in_validity": validated.in_validity,
        "findings": [
            {"rule": finding.rule, "position": finding.position, "message": finding.message}
            for finding in (*validated.path_findings, *validated.validity_findings)
        ],
        "certificates": certificates,
    }


def _certificate(certificate: Certificate) -> JsonObject:
    return {
        "subject": certificate.subject,
        "serial": f"{certificate.serial:x}",
        "sha256": certificate.sha256.hex(),
        "not_before": format_time(certificate.not_before),
        "not_after": format_time(certificate.not_after),
    }


def _rim(rim: RimAppraisal) -> JsonObject:
    document = rim.document
    return {
        "role": rim.role.value,
        "id": rim.id,
        "source": rim.source.value if rim.source is not None else None,
        "origin": rim.origin,
        "sha256": document.raw_sha256.hex() if document is not None else None,
        "version": document.version if document is not None else None,
        "product": document.product if document is not None else None,
        "edition": document.edition if document is not None else None,
        "chain": _chain(rim.chain) if rim.chain is not None else None,
    }


def _cell(cell: Cell) -> JsonObject:
    return {
        "index": cell.index,
        "state": cell.state.value,
        "source": cell.role.value if cell.role is not None else None,
        "name": cell.golden.name if cell.golden is not None else None,
        "golden": [value.hex() for value in cell.golden.values] if cell.golden is not None else [],
        "runtime": cell.runtime.hex() if cell.runtime is not None else None,
    }


def _svn(cell: SvnCell) -> JsonObject:
    return {
        "data_type": cell.data_type,
        "name": cell.name,
        "minimum": cell.minimum,
        "runtime": cell.runtime,
        "satisfied": cell.satisfied,
    }
