"""One device, from bytes to checks: the whole verification as one numbered story.

     1  the report reads as SPDM                          DSP0274 1.1, 10.11; NVIDIA opaque data
     2  the certificate chain can be read                 RFC 5280, RFC 7468
     3  the chain leads to the pinned device root         RFC 5280, 6.1
     4  all its certificates are in their validity period RFC 5280, 4.1.2.5
     5  the report is signed by the leaf key              DSP0274 1.1, 10.11 (L1/L2), ECDSA P-384 with SHA-384
     6  the report answers our nonce                      DSP0274 1.1, 10.11
     7  chain, report and evidence name one architecture
     8  the firmware id of the report is the certified one  TCG DICE (FWID)
     9  the device is not in a debug state                TCG DICE (OperationalFlags)
    10  no certificate of the chain is revoked            RFC 6960
    11  each RIM is there and follows the profile         TCG RIM IM, ISO/IEC 19770-2
    12  each RIM is signed under the pinned RIM root, in time and not revoked   XMLDSig, RFC 5280, RFC 6960
    13  each RIM describes this device                    versions, product, edition, manufacturer
    14  no golden value is claimed by two RIMs
    15  the measurements match the golden values
    16  security version numbers are high enough          NVIDIA MIN_SVN records
    17  the device runs in a known and allowed mode
    18  its versions are allowed by the policy
    19  what the driver said beside the report agrees with it

Nothing raises on bad evidence and nothing stops at the first failure: a step that has nothing to look at is SKIPPED,
and a skipped step never speaks for trust. What a step uses was checked before it: golden values come only from a
VerifiedRim, identities only from the report and the chain.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from nvattest.appraisal import identity as who
from nvattest.appraisal import measurements as values
from nvattest.appraisal.check import CHECKS, Check, absent, failed, not_made, passed, rim_checks
from nvattest.appraisal.identity import check_path, check_validity
from nvattest.appraisal.inputs import Unavailable
from nvattest.appraisal.memory import Basis, ReadEvidence
from nvattest.appraisal.results import ChainAppraisal, DeviceAppraisal, RimAppraisal
from nvattest.appraisal.revocation import check_revocation
from nvattest.errors import InputError, ParseError
from nvattest.model import Architecture
from nvattest.pki.chain import ChainProfile
from nvattest.rim.ids import ROLES, RimRole, rim_ids
from nvattest.rim.verify import VerifiedRim, bind_rim
from nvattest.spdm.opaque import SwitchFields
from nvattest.spdm.report import Report


def appraise_device(device: ReadEvidence, index: int, basis: Basis) -> DeviceAppraisal:
    """Run the story above on the evidence of one device. ``index`` counts devices of its kind from 0. Never raises."""
    evidence, kind = device.evidence, device.evidence.kind
    policy, memory = basis.policy, basis.memory
    report = None if isinstance(device.report, ParseError) else device.report
    certificates = () if isinstance(device.certificates, ParseError) else device.certificates
    chain = memory.validate_device_chain(certificates, basis.anchors, basis.at.device) if certificates else None
    identity = who.identity_of(certificates) if certificates else None

    # (1) the report reads as SPDM
    checks = who.check_report(device, policy)
    # (2) the certificate chain can be read
    checks.append(who.check_chain_format(device))
    # (3) the chain leads to the pinned device root
    checks.append(who.check_path("chain-path", chain))
    # (4) all its certificates are in their validity period
    checks.append(who.check_validity("chain-validity", chain))
    # (5) the report is signed by the leaf key
    checks.append(who.check_signature(report, certificates, kind, memory.ecdsa))
    # (6) the report answers our nonce
    checks.append(who.check_nonce(report, evidence, basis.nonce, policy))
    # (7) chain, report and evidence name one architecture
    check, architecture = who.check_architecture(evidence, report, identity, certificates, policy)
    checks.append(check)
    named = architecture or evidence.architecture
    # (8) the firmware id of the report is the certified one
    checks.append(who.check_fwid(report, certificates, named, policy))
    # (9) the device is not in a debug state
    checks.append(who.check_debug(evidence, certificates, named, policy))
    # (10) no certificate of the chain is revoked
    check, revocations = check_revocation("chain-revocation", chain, ChainProfile.DEVICE, basis)
    checks.append(check)
    # (11) to (13) each RIM is there and follows the profile, is signed, and describes this device
    names = name_rims(report, architecture)
    checks += names.checks
    chip = who.chip_of_device(report, identity)
    rims = {role: appraise_rim(role, names, report, chip, basis) for role in ROLES[kind]}
    for rim in rims.values():
        checks += rim.checks
    # (14) to (16) compare with the golden values of the RIMs that are verified
    verified = {role: rim.verified for role, rim in rims.items() if rim.verified is not None}
    complete = len(verified) == len(ROLES[kind])
    comparison = values.compare_measurements(report, verified) if report is not None and verified else None
    svn = values.compare_svn(report.opaque, verified) if report is not None and verified else None
    # (14) no golden value is claimed by two RIMs
    checks.append(values.check_conflicts(comparison, svn, complete))
    # (15) the measurements match the golden values
    checks.append(values.check_measurements(comparison, complete))
    # (16) security version numbers are high enough
    checks.append(values.check_minimum_svn(svn, complete))
    # (17) the device runs in a known and allowed mode
    checks.append(values.check_mode(report, policy))
    # (18) its versions are allowed by the policy
    checks.append(values.check_versions(report, policy))
    # (19) what the driver said beside the report agrees with it
    checks.append(values.check_hints(report, evidence))

    return DeviceAppraisal(
        index=index,
        kind=kind,
        declared_architecture=evidence.architecture,
        origin=evidence.origin,
        report_sha256=hashlib.sha256(evidence.report).hexdigest(),
        chain_sha256=hashlib.sha256(evidence.certificate_chain).hexdigest(),
        checks=tuple(checks),
        report=report,
        identity=identity,
        chain=ChainAppraisal(chain, revocations) if chain is not None else None,
        rims={role: rim.appraisal for role, rim in rims.items() if rim.appraisal is not None},
        comparison=comparison,
        svn=svn,
    )


# --- steps 11 to 13: each RIM, from its id to golden values -----------------------------------------------------------


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
        # The other error: fields of up to 64 characters each make an id that is too long.
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
