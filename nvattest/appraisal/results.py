"""What an appraisal holds: every check, and beside the checks the parsed and verified things that they were made on.

As JSON it has the form of ``schemas/appraisal-1.json``; everything that an explanation needs is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from nvattest._documents import JsonObject
from nvattest.appraisal import FORMAT, VERSION
from nvattest.appraisal.check import (
    REQUIRED,
    REQUIRED_PLATFORM,
    Check,
    Judged,
    Outcome,
    decide,
    result_code,
    unacceptable,
    verdict,
)
from nvattest.appraisal.inputs import EvidencePolicy, Source
from nvattest.appraisal.measurements import Cell, Comparison, SvnCell, SvnComparison, signed_versions
from nvattest.errors import NotTrustedError, ResultCode
from nvattest.model import Architecture, DeviceKind, Nonce, NoTruthValue, VerificationTime, counted, format_time
from nvattest.pki.certificate import Certificate
from nvattest.pki.chain import ValidatedChain
from nvattest.pki.ocsp import Revocation
from nvattest.rim.document import RimDocument
from nvattest.rim.ids import RimRole
from nvattest.spdm.opaque import GpuFields
from nvattest.spdm.report import Report, feature_mode

if TYPE_CHECKING:
    from nvattest.appraisal.guest import CpuPolicy, GuestAppraisal


class CertificateRevocation(NamedTuple):
    """The revocation answer for one certificate. ``source`` is None where there was no answer."""

    certificate: Certificate
    revocation: Revocation
    source: Source | None


class ChainAppraisal(NamedTuple):
    """A chain, validated, with the revocation answers for the certificates that have a responder, topmost first."""

    validated: ValidatedChain
    revocations: tuple[CertificateRevocation, ...]


class RimAppraisal(NamedTuple):
    """One RIM of a device: its id, where it came from and what became of it."""

    role: RimRole
    id: str
    source: Source | None = None
    origin: str = ""
    document: RimDocument | None = None
    chain: ChainAppraisal | None = None


class DeviceIdentity(NamedTuple):
    """Who a device is, by its certificates: nothing here comes from the driver.

    ``ueid`` is the leaf's serial number in decimal, ``hwmodel`` the common name of the certificate above the leaf,
    ``pdi`` the 16 hexadecimal digits of the BROM subject's serial number without its first byte, ``chip`` the chip in
    the names.
    """

    ueid: str
    hwmodel: str
    pdi: str | None
    chip: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAppraisal(Judged):
    """All checks of one device. ``trusted`` is true only if every required check is there and acceptable."""

    index: int
    kind: DeviceKind
    declared_architecture: Architecture
    origin: str
    report_sha256: str
    chain_sha256: str
    checks: tuple[Check, ...]
    report: Report | None
    identity: DeviceIdentity | None
    chain: ChainAppraisal | None
    rims: Mapping[RimRole, RimAppraisal]
    comparison: Comparison | None
    svn: SvnComparison | None

    def __repr__(self) -> str:
        judged = verdict(self.trusted, self.failures)
        return f"<DeviceAppraisal {self.label} {self.declared_architecture.value}: {judged}>"

    @property
    def label(self) -> str:
        """``GPU-0`` or ``SWITCH-0``: the device's name in text and tokens."""
        return f"{self.kind.label}-{self.index}"

    @property
    def _required(self) -> tuple[str, ...]:
        return REQUIRED[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal(NoTruthValue):
    """The appraisal of a platform: all devices of one guest, and the checks that only all of them together allow.

    ``anchors`` is the label of the trust anchors; ``simulated`` says that a chain led to a simulated root. ``guest`` is
    there where the quote of the guest's CPU was judged, too: then the platform is trusted only together with it.
    """

    devices: tuple[DeviceAppraisal, ...]
    checks: tuple[Check, ...]
    nonce: Nonce | None
    at: VerificationTime
    policy: EvidencePolicy
    anchors: str
    simulated: bool
    guest: GuestAppraisal | None = None

    def __repr__(self) -> str:
        judged = verdict(self.trusted, self.failures) + (", simulated" if self.simulated else "")
        return f"<Appraisal {counted(len(self.devices), 'device')} at {self.at}: {judged}>"

    @property
    def trusted(self) -> bool:
        """Whether the platform may be believed: every device, every check of the platform, and the guest."""
        if self.guest is not None and not self.guest.trusted:
            return False
        return decide(self.checks, REQUIRED_PLATFORM, devices=[device.trusted for device in self.devices])

    @property
    def result_code(self) -> ResultCode:
        """OK, or the code of the first device that failed, or of the first platform check that did."""
        if self.trusted:
            return ResultCode.OK
        for device in self.devices:
            if not device.trusted:
                return device.result_code
        code = result_code(self.checks)
        code = self.guest.result_code if code is ResultCode.OK and self.guest is not None else code
        return ResultCode.OVERALL_RESULT_FALSE if code is ResultCode.OK else code

    @property
    def failures(self) -> tuple[tuple[str, Check], ...]:
        """All checks that prevent trust, each with the label of its device (``PLATFORM`` for the whole, ``GUEST``)."""
        found = [(device.label, check) for device in self.devices for check in device.failures]
        found += [("PLATFORM", check) for check in unacceptable(self.checks)]
        if self.guest is not None:
            found += [("GUEST", check) for check in self.guest.failures]
        return tuple(found)

    @property
    def collateral_expires(self) -> datetime | None:
        """When the first of what this rests on ends: the window of an answer, or a certificate above a RIM."""
        rims = [rim.chain for device in self.devices for rim in device.rims.values() if rim.chain is not None]
        chains = [*rims, *(device.chain for device in self.devices if device.chain is not None)]
        answers = [item.revocation.next_update for chain in chains for item in chain.revocations]
        ends = [*(chain.validated.earliest_not_after for chain in rims), *answers]
        return min((end for end in ends if end is not None), default=None)

    @property
    def weakened(self) -> tuple[str, ...]:
        """The names of the policies' weakenings that were on, whether or not they were needed."""
        return (*self.policy.weakenings, *(self.guest.weakened if self.guest is not None else ()))

    def require(self) -> Appraisal:
        """Return this appraisal if it is trusted.

        Raises:
            NotTrustedError: it is not; the message names each device and check that failed, and the number of those
                that could not be made because of it.
        """
        if self.trusted:
            return self
        made = [item for item in self.failures if item[1].outcome is not Outcome.SKIPPED] or self.failures
        lines = [f"{label}: {check.spec.title}: {check.detail}" for label, check in made]
        if more := len(self.failures) - len(made):
            lines.append(f"{more} more {'check' if more == 1 else 'checks'} could not be made")
        first = next((check.hint for _, check in self.failures if check.hint), "")
        message = "not trusted; " + "; ".join(lines or ["no device"])
        raise NotTrustedError(message, result_code=self.result_code, hint=first)


# --- as JSON ----------------------------------------------------------------------------------------------------------


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
        **_members(appraisal, "anchors", "simulated", "weakened"),
        "policy": policy_to_json(appraisal.policy),
        "checks": [_check(check) for check in appraisal.checks],
        "devices": [_device(device) for device in appraisal.devices],
        **({} if appraisal.guest is None else {"guest": guest_to_json(appraisal.guest)}),
    }


def guest_to_json(guest: GuestAppraisal) -> JsonObject:
    """The appraisal of a guest as JSON values. What a quote says is there only where its signature was verified."""
    said = ("measurement", "registers", "report_data", "level", "tcb", "endorsement", "collateral")
    return {
        "kind": guest.kind or None,
        "trusted": guest.trusted,
        "quote_signature_verified": guest.quote_verified,
        **_members(guest, "sentence", "recipe", "strength", "key", "at", "anchors", "simulated", "weakened"),
        "policy": cpu_policy_to_json(guest.policy),
        **_members(guest.facts, *said),
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
    if value is None or type(value) in (str, bool, int):
        return value
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
    spec = check.spec
    result: JsonObject = {
        "step": spec.step,
        "id": check.id,
        "title": spec.title,
        "outcome": check.outcome.value,
        "acceptable": check.acceptable,
        "detail": check.detail,
    }
    for name in ("expected", "found", "hint", "tolerated_by"):
        if value := getattr(check, name):
            result[name] = value
    return result | {"code": int(check.code)} if check.code else result


def _device(device: DeviceAppraisal) -> JsonObject:
    comparison, svn = device.comparison, device.svn
    return {
        **_members(device, "label", "kind", "index"),
        "architecture": device.declared_architecture.value,
        "trusted": device.trusted,
        "result_code": int(device.result_code),
        **_members(device, "origin", "report_sha256", "chain_sha256"),
        "identity": device.identity and device.identity._asdict(),
        "report": device.report and _report(device.report),
        "chain": device.chain and _chain(device.chain),
        "rims": [_rim(rim) for rim in device.rims.values()],
        "measurements": comparison and [_cell(cell) for cell in comparison.cells],
        "minimum_svn": svn and [_svn(cell) for cell in svn.cells],
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
        if item := answers.get(certificate.sha256):
            entry["revocation"] = {
                **_members(item.revocation, "status", "reason"),
                "source": _plain(item.source),
                **_members(item.revocation, "nonce", "this_update", "next_update", "responder", "detail"),
            }
        certificates.append(entry)
    findings = (*validated.path_findings, *validated.validity_findings)
    return {
        "anchor": validated.anchor.name if validated.anchor is not None else None,
        **_members(validated, "path_ok", "in_validity"),
        "findings": [_members(finding, "rule", "position", "message") for finding in findings],
        "certificates": certificates,
    }


def _rim(rim: RimAppraisal) -> JsonObject:
    return {
        **_members(rim, "role", "id", "source", "origin"),
        "sha256": rim.document.raw_sha256.hex() if rim.document is not None else None,
        **_members(rim.document, "version", "product", "edition"),
        "chain": rim.chain and _chain(rim.chain),
    }


def _cell(cell: Cell) -> JsonObject:
    return {
        "index": cell.index,
        "state": cell.state.value,
        "source": _plain(cell.role),
        "name": cell.golden and cell.golden.name,
        "golden": _plain(cell.golden.values) if cell.golden is not None else [],
        "runtime": _plain(cell.runtime),
    }


def _svn(cell: SvnCell) -> JsonObject:
    return _members(cell.record, "data_type", "name", "minimum") | _members(cell, "runtime", "satisfied")
