"""Steps 10 to 13 of the story in ``device.py``: revocation of the device chain, and the reference manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvattest.appraisal.check import CheckList, Outcome, rim_checks
from nvattest.appraisal.inputs import Collateral, RimAnswer
from nvattest.appraisal.results import CertificateRevocation, ChainAppraisal, RimAppraisal
from nvattest.appraisal.revocation import check_chain_revocation
from nvattest.appraisal.steps_identity import check_path, check_validity
from nvattest.errors import InputError, ParseError
from nvattest.model import Architecture, VerificationTime
from nvattest.pki.chain import ValidatedChain
from nvattest.rim.binding import bind_rim
from nvattest.rim.ids import RimRole
from nvattest.rim.ids import rim_ids as ids_of_report
from nvattest.rim.verify import VerifiedRim
from nvattest.spdm.fields import SwitchFields
from nvattest.spdm.report import Report

if TYPE_CHECKING:
    from nvattest.appraisal.verifier import Verifier


def check_device_revocation(
    chain: ValidatedChain | None, collateral: Collateral, at: VerificationTime, verifier: Verifier, checks: CheckList
) -> ChainAppraisal | None:
    if chain is None:
        checks.skip(("chain-revocation",), "there is no readable chain")
        return None
    revocations = _revocations(chain, 1, collateral, at, verifier) if chain.path_ok else ()
    if not chain.path_ok:
        checks.skip(("chain-revocation",), "the chain leads to no pinned root")
    else:
        check_chain_revocation(checks, "chain-revocation", revocations, verifier.policy, collateral, of_device=True)
    return ChainAppraisal(validated=chain, revocations=revocations)


def _revocations(
    chain: ValidatedChain, first: int, collateral: Collateral, at: VerificationTime, verifier: Verifier
) -> tuple[CertificateRevocation, ...]:
    """The answers for certificates ``first`` to the one below the root, topmost first."""
    instant = at.device if first == 1 else at.rim
    certificates = chain.certificates
    return tuple(
        verifier.find_revocation(certificates[i], certificates[i + 1], collateral, instant)
        for i in range(len(certificates) - 2, first - 1, -1)
    )


def rim_ids(
    report: Report | None, architecture: Architecture | None, checks: CheckList
) -> tuple[dict[RimRole, str], str]:
    """The ids of the device's RIMs; or none, and why. That none is published is a finding of its own."""
    if report is None:
        return {}, "the report, which names it, could not be read"
    if architecture is None:
        return {}, "the architecture, which names it, is not established"
    try:
        return dict(ids_of_report(report, architecture)), ""
    except InputError as error:
        # Beside that: each field may have 64 characters, and together they may be too long for an id.
        if error.code == "no-reference-values":
            checks.add("reference-values", Outcome.ABSENT, error.message, hint=error.hint)
        return {}, error.message


def appraise_rim(
    role: RimRole,
    rim_id: str,
    report: Report,
    chip: str | None,
    collateral: Collateral,
    at: VerificationTime,
    verifier: Verifier,
    checks: CheckList,
) -> tuple[VerifiedRim | None, RimAppraisal]:
    """Steps 11 to 13 for one RIM. It is returned as verified only if its signature and its chain's path are good.

    A RIM that passed is remembered together with all that this depends on; one that did not is judged anew.
    """
    # The answer itself is part of the key: the mapping that the caller gave may have changed since.
    answer = collateral.rims.get(rim_id)
    version, kind = _version_for(role, report), report.kind.value
    return verifier.passes(collateral).tell(
        (role.value, rim_id, answer, kind, version, chip, at.rim),
        checks,
        lambda: _appraise_rim(role, rim_id, answer, version, report, chip, collateral, at, verifier, checks),
    )


def _appraise_rim(
    role: RimRole,
    rim_id: str,
    answer: RimAnswer | None,
    version: str,
    report: Report,
    chip: str | None,
    collateral: Collateral,
    at: VerificationTime,
    verifier: Verifier,
    checks: CheckList,
) -> tuple[VerifiedRim | None, RimAppraisal]:
    available, form, signature, path, validity, revocation, binding = rim_checks(role.value)
    nothing = RimAppraisal(role=role, id=rim_id, source=None, origin="", document=None, chain=None)
    # (11) it is there
    if answer is None:
        missing = collateral.unavailable.get(f"rim:{rim_id}")
        checks.add(
            available,
            Outcome.ABSENT,
            missing.message if missing is not None else f"{rim_id} is not among the RIMs that were given",
            expected=rim_id,
            hint=missing.hint
            if missing is not None
            else "add it to the bundle or the RIM folder, or allow the network",
            code=missing.code if missing is not None else None,
        )
        checks.skip((form, signature, path, validity, revocation, binding), "the RIM is not there")
        return None, nothing
    origin = f" ({answer.origin})" if answer.origin else ""
    checks.ok(available, f"{rim_id} from the {answer.source.value}{origin}")
    # (11) and follows the profile
    try:
        document = verifier.parse_rim(answer.content)
    except ParseError as error:
        detail = verifier.explain_rim(error, answer.content)
        checks.fail(form, detail, hint="fetch the RIM again; NVIDIA's service gives documents of this profile")
        checks.skip((signature, path, validity, revocation, binding), "the RIM could not be read")
        return None, RimAppraisal(
            role=role, id=rim_id, source=answer.source, origin=answer.origin, document=None, chain=None
        )
    checks.ok(form, f"version {document.version}, {len(document.golden)} active golden values")
    # (12) it is signed under the pinned RIM root, in time and not revoked
    verification = verifier.verify_rim(document, at.rim)
    if verification.signature_valid:
        checks.ok(signature, "ECDSA P-384 with the key of the first certificate; digest SHA-384")
    else:
        checks.fail(signature, verification.detail, hint="the RIM was altered; fetch it again")
    chain = verification.chain
    check_path(checks, path, chain)
    tolerated = "accept_expired_rim_certificates" if verifier.policy.accept_expired_rim_certificates else ""
    check_validity(checks, validity, chain, tolerated)
    revocations = _revocations(chain, 0, collateral, at, verifier) if chain.path_ok else ()
    if chain.path_ok:
        check_chain_revocation(checks, revocation, revocations, verifier.policy, collateral, of_device=False)
    else:
        checks.skip((revocation,), "the chain leads to no pinned root")
    # (13) it describes this device
    rim = verification.verified
    if rim is None or chip is None:
        checks.skip((binding,), "nothing is read from a RIM that is not verified")
    else:
        findings = bind_rim(rim, role=role, version=version, chip=chip, kind=report.kind)
        if findings:
            first = findings[0]
            checks.fail(
                binding,
                "; ".join(finding.message for finding in findings),
                expected=first.expected,
                found=first.found,
                hint=f"this RIM describes something else; get {rim_id}",
                code=first.result_code,
            )
            # A RIM of something else is no reference for this device.
            rim = None
        else:
            checks.ok(binding, f"{rim.product} {rim.edition} {rim.version}, manufacturer {rim.manufacturer_id}")
    return rim, RimAppraisal(
        role=role,
        id=rim_id,
        source=answer.source,
        origin=answer.origin,
        document=document,
        chain=ChainAppraisal(validated=chain, revocations=revocations),
    )


def _version_for(role: RimRole, report: Report) -> str:
    fields = report.fields
    if isinstance(fields, SwitchFields):
        return fields.bios_version
    return fields.driver_version if role is RimRole.DRIVER else fields.vbios_version
