"""Steps 11 to 13 of the story in ``device.py``: each reference manifest of a device, from its id to golden values."""

from __future__ import annotations

from typing import NamedTuple

from nvattest.appraisal.check import CHECKS, Check, absent, failed, not_made, passed, rim_checks
from nvattest.appraisal.identity import check_path, check_validity
from nvattest.appraisal.inputs import Unavailable
from nvattest.appraisal.memory import Basis
from nvattest.appraisal.results import ChainAppraisal, RimAppraisal
from nvattest.appraisal.revocation import check_revocation
from nvattest.errors import InputError, ParseError
from nvattest.model import Architecture, DeviceKind
from nvattest.pki.chain import ChainProfile
from nvattest.rim.ids import RimRole, rim_ids
from nvattest.rim.verify import VerifiedRim, bind_rim
from nvattest.spdm.opaque import SwitchFields
from nvattest.spdm.report import Report

# The RIMs that a device of each kind needs.
ROLES = {DeviceKind.GPU: (RimRole.DRIVER, RimRole.VBIOS), DeviceKind.NVSWITCH: (RimRole.BIOS,)}


class RimNames(NamedTuple):
    """The ids of the RIMs of a device, or none and why. That none is published is a check of its own."""

    ids: dict[RimRole, str]
    why: str = ""
    checks: tuple[Check, ...] = ()


class RimResult(NamedTuple):
    """What became of one RIM. ``verified`` is None unless signature, path and binding to the device hold."""

    checks: list[Check]
    appraisal: RimAppraisal | None = None
    verified: VerifiedRim | None = None


def name_rims(report: Report | None, architecture: Architecture | None) -> RimNames:
    """The ids of the RIMs, made from what the report says."""
    if report is None:
        return RimNames({}, "the report, which names it, could not be read")
    if architecture is None:
        return RimNames({}, "the architecture, which names it, is not established")
    try:
        return RimNames(dict(rim_ids(report, architecture)))
    except InputError as error:
        # Beside that: each field may have 64 characters, and together they may be too long for an id.
        unpublished = error.code == "no-reference-values"
        checks = (absent("reference-values", error.message, hint=error.hint),) if unpublished else ()
        return RimNames({}, error.message, checks)


def appraise_rim(role: RimRole, names: RimNames, report: Report | None, chip: str | None, basis: Basis) -> RimResult:
    """Steps 11 to 13 for one RIM of a device with this ``chip``."""
    available, form, signature, path, validity, revocation, binding = ids = rim_checks(role.value)
    if report is None or role not in names.ids:
        return RimResult([not_made(name, names.why) for name in ids])
    rim_id, memory = names.ids[role], basis.memory
    nothing = RimAppraisal(role=role, id=rim_id, source=None, origin="", document=None, chain=None)

    # (11) it is there
    answer = basis.collateral.rims.get(rim_id)
    if answer is None:
        missing = basis.collateral.unavailable.get(
            f"rim:{rim_id}",
            Unavailable(
                CHECKS[available].gpu,
                f"{rim_id} is not among the RIMs that were given",
                "add it to the bundle or the RIM folder, or allow the network",
            ),
        )
        check = absent(available, missing.message, expected=rim_id, hint=missing.hint, code=missing.code)
        return RimResult([check, *(not_made(name, "the RIM is not there") for name in ids[1:])], nothing)
    origin = f" ({answer.origin})" if answer.origin else ""
    checks = [passed(available, f"{rim_id} from the {answer.source.value}{origin}")]
    appraisal = nothing._replace(source=answer.source, origin=answer.origin)

    # (11) and follows the profile
    try:
        document = memory.parse_rim(answer.content)
    except ParseError as error:
        detail = memory.explain_rim(error, answer.content)
        hint = "fetch the RIM again; NVIDIA's service gives documents of this profile"
        checks += [failed(form, detail, hint=hint), *(not_made(name, "the RIM could not be read") for name in ids[2:])]
        return RimResult(checks, appraisal)
    checks.append(passed(form, f"version {document.version}, {len(document.golden)} active golden values"))

    # (12) it is signed under the pinned RIM root, in time and not revoked
    verification = memory.verify_rim(document, basis.anchors, basis.at.rim)
    chain = verification.chain
    if verification.signature_valid:
        checks.append(passed(signature, "ECDSA P-384 with the key of the first certificate; digest SHA-384"))
    else:
        checks.append(failed(signature, verification.detail, hint="the RIM was altered; fetch it again"))
    checks.append(check_path(path, chain))
    tolerated = "accept_expired_rim_certificates" if basis.policy.accept_expired_rim_certificates else ""
    checks.append(check_validity(validity, chain, tolerated))
    check, revocations = check_revocation(revocation, chain, ChainProfile.RIM, basis)
    checks.append(check)
    appraisal = appraisal._replace(document=document, chain=ChainAppraisal(chain, revocations))

    # (13) it describes this device; a RIM of something else is no reference for it
    verified = verification.verified
    if verified is None or chip is None:
        check = not_made(binding, "nothing is read from a RIM that is not verified")
        return RimResult([*checks, check], appraisal)
    findings = bind_rim(verified, role=role, version=_version_for(role, report), chip=chip, kind=report.kind)
    if not findings:
        detail = f"{verified.product} {verified.edition} {verified.version}, manufacturer {verified.manufacturer_id}"
        return RimResult([*checks, passed(binding, detail)], appraisal, verified)
    first = findings[0]
    check = failed(
        binding, "; ".join(finding.message for finding in findings), expected=first.expected, found=first.found,
        hint=f"this RIM describes something else; get {rim_id}", code=first.result_code,
    )  # fmt: skip
    return RimResult([*checks, check], appraisal)


def _version_for(role: RimRole, report: Report) -> str:
    fields = report.fields
    if isinstance(fields, SwitchFields):
        return fields.bios_version
    return fields.driver_version if role is RimRole.DRIVER else fields.vbios_version
