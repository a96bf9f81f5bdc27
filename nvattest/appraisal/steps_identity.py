"""Steps 1 to 9 of the story in ``device.py``: the report, its chain, and what ties them to our nonce."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from nvattest.appraisal.check import CheckList, Outcome
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.appraisal.results import DeviceIdentity
from nvattest.errors import ParseError, ResultCode
from nvattest.evidence import Evidence
from nvattest.model import Architecture, DeviceKind, Nonce, format_time
from nvattest.pki.certificate import Certificate
from nvattest.pki.chain import ChainFinding, ValidatedChain
from nvattest.pki.dice import (
    architecture_of_chip,
    chip_of_chain,
    most_specific,
    pdi_of_chain,
    read_fwid,
    same_chip,
    tcb_infos,
)
from nvattest.spdm.fields import GpuFields
from nvattest.spdm.report import Report

if TYPE_CHECKING:
    from nvattest.appraisal.verifier import Verifier

_DEBUG_FLAGS = ("notSecure", "recovery", "debug")


def read_report(evidence: Evidence, verifier: Verifier, checks: CheckList) -> Report | None:
    policy = verifier.policy
    try:
        report = verifier.parse_report(evidence.report, evidence.kind)
    except ParseError as error:
        newer = error.result_code is ResultCode.GPU_FW_NOT_SUPPORTED
        code = error.result_code if newer or error.result_code is ResultCode.SPDM_FIELD_NOT_FOUND else None
        hint = "update nvattest: this driver is newer" if newer else "collect the evidence again"
        checks.fail("report-format", str(error), hint=hint, code=code)
        checks.skip(("report-trailing-bytes",), "the report could not be read")
        return None
    blocks = len(report.response.blocks)
    checks.ok("report-format", f"{len(report.raw)} bytes: request, {blocks} measurement blocks, opaque data, signature")
    extra = len(report.trailing)
    if extra == 0:
        checks.ok("report-trailing-bytes", "the report ends with its signature")
    elif extra <= policy.max_trailing_bytes:
        checks.ok("report-trailing-bytes", f"{extra} bytes after the signature; nothing reads them")
    else:
        checks.fail(
            "report-trailing-bytes",
            f"{extra} bytes after the signature",
            expected=f"at most {policy.max_trailing_bytes}",
            found=str(extra),
            hint="the collector returned more than the report; check the size that the driver gave",
        )
    return report


class DeviceChain(NamedTuple):
    """What the chain alone says about a device. Without a readable chain it has no certificates and nothing else."""

    certificates: tuple[Certificate, ...] = ()
    validated: ValidatedChain | None = None
    chip: str | None = None
    identity: DeviceIdentity | None = None


def read_chain(evidence: Evidence, at: datetime, verifier: Verifier, checks: CheckList) -> DeviceChain:
    """Steps 2 to 4."""
    try:
        certificates = verifier.parse_chain(evidence.certificate_chain)
    except ParseError as error:
        checks.fail("chain-format", str(error), hint="collect the evidence again")
        certificates = ()
    else:
        checks.ok("chain-format", f"{len(certificates)} certificates, leaf first")
    validated = verifier.validate_device_chain(certificates, at) if certificates else None
    check_path(checks, "chain-path", validated)
    check_validity(checks, "chain-validity", validated)
    if not certificates:
        return DeviceChain()
    chip = chip_of_chain(certificates)
    above = certificates[1] if len(certificates) > 1 else certificates[0]
    identity = DeviceIdentity(
        ueid=str(certificates[0].serial), hwmodel=above.common_name or "", pdi=pdi_of_chain(certificates), chip=chip
    )
    return DeviceChain(certificates, validated, chip, identity)


def check_path(checks: CheckList, id: str, chain: ValidatedChain | None) -> None:  # noqa: A002
    if chain is None:
        checks.skip((id,), "there is no readable chain")
    elif chain.path_ok and chain.anchor is not None:
        checks.ok(id, f"{len(chain.certificates)} certificates up to {chain.anchor.name}")
    else:
        _fail_with_finding(checks, id, chain.path_findings, "the chain does not end at a pinned root")


def check_validity(
    checks: CheckList,
    id: str,  # noqa: A002
    chain: ValidatedChain | None,
    tolerated_by: str = "",
) -> None:
    if chain is None:
        checks.skip((id,), "there is no readable chain")
    elif chain.in_validity:
        checks.ok(
            id, f"at {format_time(chain.at)}; the first to expire does so {format_time(chain.earliest_not_after)}"
        )
    elif tolerated_by and all(finding.rule == "expired" for finding in chain.validity_findings):
        first = chain.validity_findings[0]
        checks.add(id, Outcome.SKIPPED, first.message, found=first.found, tolerated_by=tolerated_by)
    else:
        _fail_with_finding(checks, id, chain.validity_findings, "a certificate is not valid at this time")


def _fail_with_finding(
    checks: CheckList,
    id: str,  # noqa: A002
    findings: tuple[ChainFinding, ...],
    otherwise: str,
) -> None:
    if not findings:
        checks.fail(id, otherwise)
        return
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    hints = {
        "anchor": "simulated or foreign devices need their own --trust-anchors",
        "expired": "check the clock, or give --at the time for which the collateral was made",
        "not-yet-valid": "check the clock",
    }
    checks.fail(
        id,
        f"{first.message}{more}",
        expected=first.expected,
        found=first.found,
        hint=hints.get(first.rule, "the chain was altered or belongs to another device"),
    )


def check_report_signature(
    report: Report | None, certificates: tuple[Certificate, ...], verifier: Verifier, checks: CheckList
) -> None:
    if report is None or not certificates:
        checks.skip(("report-signature",), "the report or the chain could not be read")
    elif verifier.ecdsa.verify_raw(certificates[0].spki_der, report.signature, report.signed):
        checks.ok("report-signature", f"ECDSA P-384 over {len(report.signed)} bytes by {certificates[0].common_name}")
    else:
        checks.fail(
            "report-signature",
            f"the signature over {len(report.signed)} bytes does not verify with the key of the leaf certificate",
            hint="the report was altered, or it belongs to another device than the chain",
        )


def check_nonce(
    report: Report | None, evidence: Evidence, nonce: Nonce | None, policy: EvidencePolicy, checks: CheckList
) -> None:
    if report is None:
        checks.skip(("nonce",), "the report could not be read")
        return
    found = report.request.nonce
    if nonce is not None and found != nonce.value:
        checks.fail(
            "nonce",
            "the report answers another nonce",
            expected=nonce.hex(),
            found=found.hex(),
            hint="this evidence was made for somebody else or at another time; collect it again with your nonce",
        )
    elif evidence.nonce is not None and evidence.nonce != found:
        checks.fail(
            "nonce",
            "the evidence declares another nonce than the report contains",
            expected=found.hex(),
            found=evidence.nonce.hex(),
            hint="the file was put together from two collections",
        )
    elif nonce is None:
        checks.add(
            "nonce",
            Outcome.ABSENT,
            "no nonce was given to compare with: this may be a recording",
            found=found.hex(),
            hint="give the nonce that you sent (--nonce); a nonce read from the evidence itself proves nothing",
            tolerated_by="accept_unverified_nonce" if policy.accept_unverified_nonce else "",
        )
    else:
        checks.ok("nonce", f"{nonce.hex()[:16]}… as sent", expected=nonce.hex(), found=found.hex())


def check_architecture(
    evidence: Evidence,
    report: Report | None,
    chain: DeviceChain,
    policy: EvidencePolicy,
    checks: CheckList,
) -> Architecture | None:
    """Step 7. Returns the architecture that chain, report and evidence agree on."""
    declared, certificates, chip = evidence.architecture, chain.certificates, chain.chip
    if not certificates:
        checks.skip(("architecture",), "there is no readable chain")
        return None
    if chip is None:
        names = " and ".join(repr(certificate.common_name) for certificate in certificates[:2])
        checks.fail(
            "architecture",
            f"leaf and boot ROM certificate do not name one chip: {names}",
            expected=declared.value,
            found=names,
            hint="the chain was put together from several devices, or is no device chain",
        )
        return None
    found = architecture_of_chip(chip)
    reported = _reported_chip(report)
    if found is not declared:
        checks.fail(
            "architecture",
            f"the certificates are of a {chip}, the evidence says {declared.value}",
            expected=declared.value,
            found=found.value if found is not None else chip,
            hint="the evidence was labelled wrongly, or it is of a device that this version does not know",
        )
        return None
    if reported is not None and not same_chip(reported, chip):
        checks.fail(
            "architecture", f"the report says {reported}, its certificates {chip}", expected=chip, found=reported,
            hint="the report belongs to another device than the chain",
        )  # fmt: skip
        return None
    if policy.allowed_architectures and found not in policy.allowed_architectures:
        allowed = ", ".join(item.value for item in policy.allowed_architectures)
        checks.fail("architecture", f"{found.value} is not allowed by the policy", expected=allowed, found=found.value)
        return found
    family = f", one of the {chip} that the certificates name" if reported is not None and reported != chip else ""
    checks.ok("architecture", f"{found.value} ({reported or chip}{family})")
    return found


def chip_of_device(report: Report | None, chain: DeviceChain) -> str | None:
    """The chip that step 7 found: what the report says where the certificates only name its die family.

    Where the two contradict each other, step 7 establishes no architecture, and no RIM is looked for.
    """
    reported = _reported_chip(report)
    return chain.chip if chain.chip is None or reported is None else most_specific(chain.chip, reported)


def _reported_chip(report: Report | None) -> str | None:
    return report.fields.chip_info if report is not None and isinstance(report.fields, GpuFields) else None


def check_certified(
    evidence: Evidence, report: Report | None, chain: DeviceChain, policy: EvidencePolicy, checks: CheckList
) -> Architecture | None:
    """Steps 7 to 9: what the certificates say about the device. Returns the architecture, if that is established."""
    architecture = check_architecture(evidence, report, chain, policy, checks)
    check_fwid(report, chain.certificates, architecture or evidence.architecture, policy, checks)
    check_debug(evidence, chain.certificates, architecture or evidence.architecture, policy, checks)
    return architecture


def check_fwid(
    report: Report | None,
    certificates: tuple[Certificate, ...],
    architecture: Architecture,
    policy: EvidencePolicy,
    checks: CheckList,
) -> None:
    if report is None or not certificates:
        checks.skip(("fwid",), "the report or the chain could not be read")
        return
    reported = report.fields.fwid
    try:
        certified = read_fwid(certificates[0], architecture)
    except ParseError as error:
        checks.fail("fwid", str(error), hint="the leaf certificate's DICE extension is malformed")
        return
    demanded = architecture not in policy.fwid_optional_for or (
        policy.require_fwid_in_report and report.kind is DeviceKind.GPU
    )
    if certified is None:
        checks.fail(
            "fwid", "the leaf certificate has no DICE extension for the firmware id",
            found=reported.hex() if reported is not None else "", code=ResultCode.CERT_FWID_NOT_FOUND,
            hint="the chain belongs to another kind of device",
        )  # fmt: skip
    elif reported is None and demanded:
        checks.add(
            "fwid",
            Outcome.ABSENT,
            "the report names no firmware id, and the policy demands one",
            expected=certified.hex(),
            hint="drivers before R550 leave it out: update the driver, or see require_fwid_in_report and "
            "fwid_optional_for in the policy",
        )
    elif reported is None:
        # The leaf is issued for the firmware that the boot ROM measured; the report only repeats its id.
        checks.ok(
            "fwid", f"{certified.hex()[:16]}… is named by the certificate alone: the report names no firmware id",
            expected=certified.hex(),
        )  # fmt: skip
    elif certified != reported:
        checks.fail(
            "fwid", "the firmware that runs is not the certified one", expected=certified.hex(), found=reported.hex(),
            hint="the report belongs to another device than the chain, or its firmware was replaced",
        )  # fmt: skip
    else:
        checks.ok("fwid", f"{reported.hex()[:16]}… is certified", expected=certified.hex(), found=reported.hex())


def check_debug(
    evidence: Evidence,
    certificates: tuple[Certificate, ...],
    architecture: Architecture,
    policy: EvidencePolicy,
    checks: CheckList,
) -> None:
    if not certificates:
        checks.skip(("debug",), "there is no readable chain")
        return
    stated = 0
    found: list[str] = []
    # Nothing signs what the driver says: it counts where it speaks against the device.
    if evidence.hints.get("dev_tools", "off") != "off":
        found.append("the driver says that DevTools mode is on")
    for position, certificate in enumerate(certificates):
        try:
            infos = tcb_infos(certificate)
        except ParseError as error:
            name = f"certificate {position} ({certificate.label})"
            checks.fail("debug", f"{name}: {error}", hint="the DICE extension of this certificate is malformed")
            return
        stated += sum(info.flags is not None for info in infos)
        # Genuine Blackwell certificates also say notConfigured and fixedWidth; those do not weaken the device.
        flags = [flag for flag in _DEBUG_FLAGS if any(flag in (info.flags or ()) for info in infos)]
        if flags:
            found.append(f"certificate {position} ({certificate.label}) says {', '.join(flags)}")
    if found:
        tolerated = "allow_debug" if policy.allow_debug else ""
        checks.add(
            "debug",
            Outcome.SKIPPED if tolerated else Outcome.FAIL,
            "; ".join(found),
            expected="no flag, and DevTools mode off",
            found="; ".join(found),
            tolerated_by=tolerated,
            hint="take the device out of its development state",
        )
    elif stated:
        checks.ok("debug", "no debug, recovery or not-secure flag is set in any certificate of the chain")
    else:
        checks.ok("debug", f"certificates of {architecture.value} carry no debug flag; none is set")
