"""The verifier, and what it does: the verification of devices and of their platform as one numbered story.

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
    20  every device is trusted
    21  there is at least one device, and as many as expected
    22  no device appears twice, by certified identity
    23  all devices answered one nonce
    24  all GPUs run in one mode
    25  the PPCIE topology closes: all GPUs are in protected PCIe mode, all switches locked, and they name each other
        and no other device

Steps 1 to 19 are of one device, steps 20 to 25 of all devices of one guest. Nothing raises on bad evidence and nothing
stops at the first failure: a step that has nothing to look at is SKIPPED, and a skipped step never speaks for trust.
What a step uses was checked before it: golden values come only from a VerifiedRim, identities only from the report and
the chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from nvattest._registry import NO_PDI, PPCIE_ENABLED, SWITCH_LOCKED
from nvattest.appraisal.check import CHECKS, Check, absent, failed, not_made, of_switch, passed, rim_checks, skipped
from nvattest.appraisal.identity import (
    check_architecture,
    check_chain_format,
    check_debug,
    check_fwid,
    check_nonce,
    check_path,
    check_report,
    check_signature,
    check_validity,
    chip_of_device,
    identity_of,
)
from nvattest.appraisal.inputs import Collateral, EvidencePolicy, TopologyRule, Unavailable
from nvattest.appraisal.measurements import (
    check_conflicts,
    check_hints,
    check_measurements,
    check_minimum_svn,
    check_mode,
    check_versions,
    compare_measurements,
    compare_svn,
    signed_versions,
)
from nvattest.appraisal.memory import Basis, Memory, ReadEvidence
from nvattest.appraisal.results import Appraisal, ChainAppraisal, DeviceAppraisal, RimAppraisal
from nvattest.appraisal.revocation import check_revocation
from nvattest.errors import InputError, ParseError
from nvattest.evidence import Evidence
from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime, counted, require_type
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors
from nvattest.pki.chain import ChainProfile
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.ids import ROLES, RimRole, rim_ids
from nvattest.rim.verify import VerifiedRim, bind_rim
from nvattest.spdm.opaque import GpuFields, SwitchFields
from nvattest.spdm.report import FeatureMode, Report, feature_mode, feature_mode_name


class Verifier:
    """Appraise evidence against pinned anchors and an evidence policy (the Verifier of RFC 9334).

    Make one and keep it: RIMs, revocation answers and certificate signatures that it has seen cost almost nothing the
    second time. Threads may share it and need no lock; each ``appraise`` takes the policy that is set when it begins.

    Args:
        anchors: the trust anchors; NVIDIA's pinned roots by default.
        policy: what is demanded of a device; strict by default.
        backend: ``"cryptography"`` or ``"aws-lc"`` (extra ``fast``) for ECDSA; the answers are the same.

    Raises:
        InputError: an argument of another type, or a backend that is not installed.
    """

    def __init__(
        self,
        *,
        anchors: TrustAnchors = NVIDIA_ANCHORS,
        policy: EvidencePolicy | None = None,
        backend: str = "cryptography",
    ) -> None:
        require_type(anchors, TrustAnchors, "anchors")
        policy = EvidencePolicy() if policy is None else policy
        require_type(policy, EvidencePolicy, "policy")
        self.anchors = anchors
        self.policy = policy
        self._memory = Memory(EcdsaVerifier(backend=backend))

    def __repr__(self) -> str:
        return f"<Verifier under {self.anchors!r} with {self.policy!r}>"

    def read(self, evidence: Iterable[Evidence | ReadEvidence]) -> tuple[ReadEvidence, ...]:
        """Read the reports and chains once, for ``appraise`` and for the gathering of collateral before it."""
        return tuple(self._memory.read(item) for item in evidence)

    def appraise(
        self,
        evidence: Sequence[Evidence | ReadEvidence],
        *,
        nonce: Nonce | bytes | str | None,
        collateral: Collateral,
        at: VerificationTime | datetime,
    ) -> Appraisal:
        """Appraise the evidence of a whole platform. Bad evidence raises nothing: it fails its checks.

        ``nonce`` is the one that the caller sent, 32 bytes or 64 hexadecimal digits; None means that freshness cannot
        be shown, which the default policy refuses. ``at`` is the clock; ``nvattest.verify(verifier=…)`` reads it.

        Raises:
            InputError: no such nonce, or an instant without a time zone.
        """
        asked = None if nonce is None else Nonce.of(nonce)
        basis = Basis(asked, collateral, VerificationTime.of(at), self.policy, self.anchors, self._memory)
        devices: list[DeviceAppraisal] = []
        for device in self.read(evidence):
            index = sum(other.kind is device.evidence.kind for other in devices)
            devices.append(appraise_device(device, index, basis))
        return appraise_platform(tuple(devices), basis)


def memory_of(verifier: Verifier) -> Memory:
    """What a verifier has read and verified, for the rooms of this package that read with it. Not public."""
    return verifier._memory  # noqa: SLF001 - its maker's module


def appraise_device(device: ReadEvidence, index: int, basis: Basis) -> DeviceAppraisal:
    """Steps 1 to 19 on the evidence of one device. ``index`` counts devices of its kind from 0. Never raises."""
    evidence, kind, policy, memory = device.evidence, device.evidence.kind, basis.policy, basis.memory
    report, certificates = device.readable, device.chain
    chain = memory.validate_device_chain(certificates, basis.anchors, basis.at.device) if certificates else None
    identity = identity_of(certificates) if certificates else None

    # (1) the report reads as SPDM
    checks = check_report(device, policy)
    # (2) the certificate chain can be read
    checks.append(check_chain_format(device))
    # (3) the chain leads to the pinned device root
    checks.append(check_path("chain-path", chain))
    # (4) all its certificates are in their validity period
    checks.append(check_validity("chain-validity", chain))
    # (5) the report is signed by the leaf key
    checks.append(check_signature(device, basis))
    # (6) the report answers our nonce
    checks.append(check_nonce(device, basis))
    # (7) chain, report and evidence name one architecture
    check, architecture = check_architecture(device, identity, policy)
    checks.append(check)
    named = architecture or evidence.architecture
    # (8) the firmware id of the report is the certified one
    checks.append(check_fwid(device, named, policy))
    # (9) the device is not in a debug state
    checks.append(check_debug(device, named, policy))
    # (10) no certificate of the chain is revoked
    check, revocations = check_revocation("chain-revocation", chain, ChainProfile.DEVICE, basis)
    checks.append(check)
    # (11) to (13) each RIM is there and follows the profile, is signed, and describes this device
    ids, why, unpublished = name_rims(report, architecture)
    checks += unpublished
    chip = chip_of_device(report, identity)
    rims = {role: appraise_rim(role, ids.get(role), why, report, chip, basis) for role in ROLES[kind]}
    for rim in rims.values():
        checks += rim.checks
    # (14) to (16) compare with the golden values of the RIMs that are verified
    verified = {role: rim.verified for role, rim in rims.items() if rim.verified is not None}
    complete = len(verified) == len(ROLES[kind])
    comparison = compare_measurements(report, verified) if report is not None and verified else None
    svn = compare_svn(report.opaque, verified) if report is not None and verified else None
    # (14) no golden value is claimed by two RIMs
    checks.append(check_conflicts(comparison, svn, complete))
    # (15) the measurements match the golden values
    checks.append(check_measurements(comparison, complete))
    # (16) security version numbers are high enough
    checks.append(check_minimum_svn(svn, complete))
    # (17) the device runs in a known and allowed mode
    checks.append(check_mode(report, policy))
    # (18) its versions are allowed by the policy
    checks.append(check_versions(report, policy))
    # (19) what the driver said beside the report agrees with it
    checks.append(check_hints(report, evidence))

    return DeviceAppraisal(
        index=index, kind=kind, declared_architecture=evidence.architecture, origin=evidence.origin,
        report_sha256=hashlib.sha256(evidence.report).hexdigest(),
        chain_sha256=hashlib.sha256(evidence.certificate_chain).hexdigest(),
        checks=tuple(checks if kind is DeviceKind.GPU else map(of_switch, checks)),
        report=report, identity=identity,
        chain=ChainAppraisal(chain, revocations) if chain is not None else None,
        rims={role: rim.appraisal for role, rim in rims.items() if rim.appraisal is not None},
        comparison=comparison, svn=svn,
    )  # fmt: skip


# --- steps 11 to 13: each RIM, from its id to golden values -----------------------------------------------------------


class RimResult(NamedTuple):
    """What became of one RIM. ``verified`` is None unless signature, path and binding to the device hold."""

    checks: list[Check]
    appraisal: RimAppraisal | None = None
    verified: VerifiedRim | None = None


def name_rims(
    report: Report | None, architecture: Architecture | None
) -> tuple[Mapping[RimRole, str], str, list[Check]]:
    """The ids of the RIMs, made from what the report says; or none, why, and a check where none is published."""
    if report is None:
        return {}, "the report, which names it, could not be read", []
    if architecture is None:
        return {}, "the architecture, which names it, is not established", []
    try:
        return rim_ids(report, architecture), "", []
    except InputError as error:
        # The other error: fields of up to 64 characters each make an id that is too long.
        if error.code != "no-reference-values":
            return {}, error.message, []
        return {}, error.message, [absent("reference-values", error.message, hint=error.hint)]


def appraise_rim(
    role: RimRole, rim_id: str | None, why: str, report: Report | None, chip: str | None, basis: Basis
) -> RimResult:
    """Steps 11 to 13 for one RIM of a device with this ``chip``; ``why`` says why it has no id."""
    available, form, signature, path, validity, revocation, binding = ids = rim_checks(role.value)
    if report is None or rim_id is None:
        return RimResult([not_made(name, why) for name in ids])
    memory, nothing = basis.memory, RimAppraisal(role, rim_id)

    # (11) it is there
    answer = basis.collateral.rims.get(rim_id)
    if answer is None:
        given = Unavailable(
            CHECKS[available].gpu, f"{rim_id} is not among the RIMs that were given",
            "add it to the bundle or the RIM folder, or allow the network",
        )  # fmt: skip
        missing = basis.collateral.unavailable.get(f"rim:{rim_id}", given)
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
    version = signed_versions(report)[f"{role.value}_version"]
    findings = bind_rim(verified, role=role, version=version, chip=chip, kind=report.kind)
    if not findings:
        own = verified.document
        detail = f"{own.product} {own.edition} {own.version}, manufacturer {own.manufacturer_id}"
        return RimResult([*checks, passed(binding, detail)], appraisal, verified)
    first, detail = findings[0], "; ".join(finding.message for finding in findings)
    hint = f"this RIM describes something else; get {rim_id}"
    check = failed(binding, detail, expected=first.expected, found=first.found, hint=hint, code=first.result_code)
    return RimResult([*checks, check], appraisal)


# --- steps 20 to 25: what only all devices of one guest together allow ------------------------------------------------

_SWITCH = ("switch", "switches")
Devices = Sequence[DeviceAppraisal]


def appraise_platform(devices: tuple[DeviceAppraisal, ...], basis: Basis) -> Appraisal:
    """Put the appraisals of all devices together and make the checks of the platform. Never raises."""
    gpus = [device for device in devices if device.kind is DeviceKind.GPU]
    switches = [device for device in devices if device.kind is DeviceKind.NVSWITCH]
    checks = (
        _check_trusted(devices),  # (20)
        _check_counts(len(gpus), len(switches), basis.policy),  # (21)
        _check_distinct(devices),  # (22)
        _check_one_nonce(devices),  # (23)
        _check_one_mode(gpus),  # (24)
        _check_topology(gpus, switches, basis.policy),  # (25)
    )
    return Appraisal(
        devices=devices, checks=checks, nonce=basis.nonce, at=basis.at, policy=basis.policy,
        anchors=basis.anchors.label, simulated=basis.anchors.simulated,
    )  # fmt: skip


def _check_trusted(devices: Devices) -> Check:
    if not devices:
        return not_made("devices-trusted", "there is no device")
    bad = [device.label for device in devices if not device.trusted]
    if not bad:
        return passed("devices-trusted", f"{len(devices)} of {len(devices)}")
    names = ", ".join(bad)
    return failed("devices-trusted", f"{len(bad)} of {counted(len(devices), 'device')} failed: {names}", found=names)


def _both(gpus: int, switches: int) -> str:
    return f"{counted(gpus, 'GPU')} and {counted(switches, *_SWITCH)}"


def _check_counts(gpus: int, switches: int, policy: EvidencePolicy) -> Check:
    found = _both(gpus, switches)
    if gpus + switches == 0:
        hint = "check that the GPUs are passed through and the driver is loaded"
        return failed("devices-present", "no device was given: nothing was proven", found=found, hint=hint)
    kinds = ((("GPU",), gpus, policy.expected_gpus), (_SWITCH, switches, policy.expected_switches))
    for words, count, expected in kinds:
        if expected is not None and count != expected:
            detail, hint = f"the policy expects {expected}", "a device is missing, or was not passed through"
            seen, wanted = counted(count, *words), counted(expected, *words)
            return failed("devices-present", f"{seen}, {detail}", expected=wanted, found=seen, hint=hint)
    return passed("devices-present", found)


def _check_distinct(devices: Devices) -> Check:
    identities = [device.identity for device in devices if device.identity is not None]
    ueids = [identity.ueid for identity in identities]
    pdis = [identity.pdi for identity in identities if identity.pdi is not None]
    twice = [f"ueid {name}" for name in ueids if ueids.count(name) > 1]
    twice += [f"PDI {name}" for name in pdis if pdis.count(name) > 1]
    if twice:
        detail, word = f"one device appears more than once: {twice[0]}", "different device"
        hint = "the list repeats the evidence of one device in the place of another"
        expected, found = counted(len(devices), word), counted(len(set(ueids)), word)
        return failed("devices-distinct", detail, expected=expected, found=found, hint=hint)
    if devices and len(identities) == len(devices):
        return passed("devices-distinct", counted(len(devices), "certified identity", "certified identities"))
    return not_made("devices-distinct", "a chain could not be read")


def _check_one_nonce(devices: Devices) -> Check:
    nonces = {device.report.request.nonce for device in devices if device.report is not None}
    if len(nonces) > 1:
        detail = f"the devices answered {len(nonces)} different nonces"
        hint = "collect the evidence of all devices in one go"
        return failed("one-nonce", detail, expected="1", found=str(len(nonces)), hint=hint)
    if nonces and all(device.report is not None for device in devices):
        return passed("one-nonce", "all devices answered the same nonce")
    return not_made("one-nonce", "a report could not be read")


def _check_one_mode(gpus: Devices) -> Check:
    modes = {feature_mode_name(gpu.report) if gpu.report is not None else "none" for gpu in gpus}
    if len(modes) > 1:
        names = ", ".join(sorted(modes))
        return failed("one-mode", f"the GPUs run in different modes: {names}", expected="one mode", found=names)
    return passed("one-mode", "one mode" if gpus else "there are no GPUs")


# The topology is bound to certificates. A device's PDI is certified: it is the serial number in the subject of its BROM
# certificate, without the first byte. The topology closes when the switch PDIs that each GPU's report lists are those
# of the switches present, and the GPU PDIs that each switch's report lists are those of the GPUs present, none missing
# and none more. At the end of a disabled link a report lists the PDI 0, which names no device and is left out.
#
# Naming each other is not enough: links are protected only while every GPU is in protected PCIe mode, by its mode flag
# (field 36, where the report has one) and its protected PCIe status (field 21), and every switch is locked (field 25).
# What the driver says of both is compared with these signed values in step 19.


def _check_topology(gpus: Devices, switches: Devices, policy: EvidencePolicy) -> Check:
    ppcie = any(gpu.report is not None and feature_mode(gpu.report) is FeatureMode.PPCIE for gpu in gpus)
    required = policy.topology is TopologyRule.REQUIRED
    unprotected = list(_unprotected([*gpus, *switches])) if switches or required else []
    unlinked = list(_unlinked(gpus, switches)) if gpus and switches else []
    both = _both(len(gpus), len(switches))
    if unprotected:
        hint = (
            "set all GPUs and switches to protected PCIe mode on the host, and let the fabric manager lock its "
            "switches before the guest starts"
        )
        expected = "GPUs in protected PCIe mode and locked switches"
        return failed("topology", _first_of(unprotected + unlinked), expected=expected, hint=hint)
    if unlinked:
        hint = "a device of another node was put in, or one was left out"
        return failed("topology", _first_of(unlinked), expected=f"{both} that name each other", hint=hint)
    if gpus and switches:
        return passed("topology", f"{both} name each other, the GPUs in protected PCIe mode and the switches locked")
    if not (ppcie or switches or required):
        return passed("topology", "the devices are not linked by protected PCIe; each stands for itself")
    missing = "switches" if gpus else "GPUs"
    make = failed if required else partial(skipped, tolerated_by="topology")
    detail = f"the evidence has no {missing}: who is linked to whom was not checked"
    return make("topology", detail, hint=f"give the evidence of the {missing} too (--device all)")


def _first_of(problems: list[str]) -> str:
    return problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _unlinked(gpus: Devices, switches: Devices) -> Iterator[str]:
    """What keeps the topology from closing, one sentence each."""
    for device in (*gpus, *switches):
        if _certified_pdi(device) is None:
            yield f"{device.label}: its certificates name no PDI"
    for devices, word, others in ((gpus, "switches", switches), (switches, "GPUs", gpus)):
        certified = {pdi for other in others if (pdi := _certified_pdi(other)) is not None}
        for device in devices:
            if device.report is None:
                yield f"{device.label}: its report could not be read"
                continue
            fields = device.report.fields
            listed = set(fields.switch_pdis if isinstance(fields, GpuFields) else fields.gpu_pdis)
            if foreign := sorted(listed - certified - {NO_PDI}):
                yield f"{device.label}: its report lists {word} that are not here: {', '.join(foreign)}"
            if missing := sorted(certified - listed):
                yield f"{device.label}: its report does not list the {word} {', '.join(missing)}"
            own = device.identity.pdi if device.identity is not None else None
            if isinstance(fields, SwitchFields) and fields.pdi != own:
                yield f"{device.label}: its report says PDI {fields.pdi}, its certificate {own}"


def _certified_pdi(device: DeviceAppraisal) -> str | None:
    pdi = device.identity.pdi if device.identity is not None else None
    return None if pdi == NO_PDI else pdi


def _unprotected(devices: Devices) -> Iterator[str]:
    """Which devices are not protected, one sentence each. A report that cannot be read fails elsewhere."""
    for device in devices:
        if device.report is None:
            continue
        fields = device.report.fields
        if isinstance(fields, SwitchFields):
            if (lock := fields.lock_status) != SWITCH_LOCKED:
                said = "is missing" if lock is None else f"is {lock}"
                yield f"{device.label}: its lock status {said}; expected {SWITCH_LOCKED} (locked)"
        elif feature_mode(device.report) is not FeatureMode.PPCIE:
            mode = feature_mode_name(device.report)
            yield f"{device.label}: its report says mode {mode}; expected protected PCIe (ppcie)"
        elif (status := fields.ppcie_status) != PPCIE_ENABLED:
            said = "is missing" if status is None else f"is {status:#04x}"
            yield f"{device.label}: its protected PCIe status {said}; expected {PPCIE_ENABLED:#04x}"
