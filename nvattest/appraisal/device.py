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

Steps of which every check passed may be told again from the verifier's memory (``memory.py``) for the next report that
gives them the same to look at; the keys below name all of that. Signature, nonce, mode, versions and hints are not.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from nvattest.appraisal import steps_identity, steps_rim, steps_values
from nvattest.appraisal.check import CheckList, rim_checks
from nvattest.appraisal.inputs import Collateral
from nvattest.appraisal.measurements import Comparison, SvnComparison
from nvattest.appraisal.results import DeviceAppraisal, RimAppraisal
from nvattest.evidence import Evidence
from nvattest.model import DeviceKind, Nonce, VerificationTime
from nvattest.rim.ids import RimRole
from nvattest.rim.verify import VerifiedRim
from nvattest.spdm.fields import GpuFields
from nvattest.spdm.report import Report

if TYPE_CHECKING:
    from nvattest.appraisal.verifier import Verifier


def appraise_device(
    evidence: Evidence,
    index: int,
    *,
    nonce: Nonce | None,
    collateral: Collateral,
    at: VerificationTime,
    verifier: Verifier,
) -> DeviceAppraisal:
    """Run the story above on the evidence of one device. ``index`` counts devices of its kind from 0. Never raises."""
    kind, policy = evidence.kind, verifier.policy
    checks = CheckList(kind)
    passes = verifier.passes(collateral)
    chain_sha256 = hashlib.sha256(evidence.certificate_chain)
    of_chain = (chain_sha256.digest(), at.device)
    comparison: Comparison | None = None
    svn: SvnComparison | None = None

    # (1) the report reads as SPDM
    report = steps_identity.read_report(evidence, verifier, checks)
    # (2) the certificate chain can be read, (3) leads to the pinned device root, (4) and is in its validity period
    chain = passes.tell(
        ("chain", *of_chain), checks, lambda: steps_identity.read_chain(evidence, at.device, verifier, checks)
    )
    # (5) the report is signed by the leaf key
    steps_identity.check_report_signature(report, chain.certificates, verifier, checks)
    # (6) the report answers our nonce
    steps_identity.check_nonce(report, evidence, nonce, policy, checks)
    # (7) chain, report and evidence name one architecture, (8) the firmware id of the report is the certified one, and
    # (9) the device is not in a debug state
    architecture = passes.tell(
        (
            "certified",
            *of_chain,
            evidence.architecture.value,
            evidence.hints.get("dev_tools", "off"),
            *_certified_fields(report),
        ),
        checks,
        lambda: steps_identity.check_certified(evidence, report, chain, policy, checks),
    )
    # (10) no certificate of the chain is revoked
    device_chain = passes.tell(
        ("revocation", *of_chain),
        checks,
        lambda: steps_rim.check_device_revocation(chain.validated, collateral, at, verifier, checks),
    )

    # (11) to (13) the reference manifests
    rims: dict[RimRole, RimAppraisal] = {}
    verified: dict[RimRole, VerifiedRim] = {}
    chip = steps_identity.chip_of_device(report, chain)
    ids, why = steps_rim.rim_ids(report, architecture, checks)
    for role in (RimRole.DRIVER, RimRole.VBIOS) if kind is DeviceKind.GPU else (RimRole.BIOS,):
        if report is None or role not in ids:
            checks.skip(rim_checks(role.value), why)
            continue
        rim, appraised = steps_rim.appraise_rim(role, ids[role], report, chip, collateral, at, verifier, checks)
        rims[role] = appraised
        if rim is not None:
            verified[role] = rim

    # (14) to (16) the values
    wanted = 2 if kind is DeviceKind.GPU else 1
    if report is None or not verified:
        checks.skip(("rim-conflict", "measurements", "minimum-svn"), "there is no verified RIM to compare with")
    else:
        comparison, svn = passes.tell(
            (
                "values",
                kind.value,
                report.response.record,
                steps_values.opaque_values(report, verified),
                *verified.values(),
            ),
            checks,
            lambda: steps_values.compare(report, verified, len(verified) == wanted, checks),
        )
    # (17) the device runs in a known and allowed mode
    steps_values.check_mode(report, policy, checks)
    # (18) its versions are allowed by the policy
    steps_values.check_versions(report, policy, checks)
    # (19) what the driver said beside the report agrees with it
    steps_values.check_hints(report, evidence, checks)

    return DeviceAppraisal(
        index=index,
        kind=kind,
        declared_architecture=evidence.architecture,
        origin=evidence.origin,
        report_sha256=hashlib.sha256(evidence.report).hexdigest(),
        chain_sha256=chain_sha256.hexdigest(),
        checks=tuple(checks.checks),
        report=report,
        identity=chain.identity,
        chain=device_chain,
        rims=rims,
        comparison=comparison,
        svn=svn,
    )


def _certified_fields(report: Report | None) -> tuple[object, ...]:
    """What steps 7 to 9 compare with the certificates."""
    if report is None:
        return ()
    fields = report.fields
    return (fields.fwid, fields.chip_info if isinstance(fields, GpuFields) else None)
