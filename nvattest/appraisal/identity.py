"""Steps 1 to 9 of the story in ``verifier.py``: the report, its certificate chain, and what ties both to our nonce."""

from __future__ import annotations

from functools import partial

from nvattest.appraisal.check import Check, absent, failed, not_made, passed, skipped
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.appraisal.memory import Basis, ReadEvidence
from nvattest.appraisal.results import DeviceIdentity
from nvattest.errors import ParseError, ResultCode
from nvattest.model import Architecture, DeviceKind, format_time
from nvattest.pki import dice
from nvattest.pki.certificate import Certificate
from nvattest.pki.chain import ChainFinding, ValidatedChain
from nvattest.spdm.opaque import GpuFields
from nvattest.spdm.report import Report

_DEBUG_FLAGS = ("notSecure", "recovery", "debug")
_NO_REPORT = "the report could not be read"
_NO_CHAIN = "there is no readable chain"
_NEITHER = "the report or the chain could not be read"
_AGAIN = "collect the evidence again"
_HINTS = {
    "anchor": "simulated or foreign devices need their own --trust-anchors",
    "expired": "check the clock, or give --at the time for which the collateral was made",
    "not-yet-valid": "check the clock",
}


def check_report(device: ReadEvidence, policy: EvidencePolicy) -> list[Check]:
    """Step 1: the report can be read, and nothing follows it."""
    report = device.report
    if isinstance(report, ParseError):
        newer = report.result_code is ResultCode.GPU_FW_NOT_SUPPORTED
        own = newer or report.result_code is ResultCode.SPDM_FIELD_NOT_FOUND
        hint = "update nvattest: this driver is newer" if newer else _AGAIN
        check = failed("report-format", str(report), hint=hint, code=report.result_code if own else None)
        return [check, not_made("report-trailing-bytes", _NO_REPORT)]
    size, blocks, extra = len(report.raw), len(report.response.blocks), len(report.trailing)
    read = passed("report-format", f"{size} bytes: request, {blocks} measurement blocks, opaque data, signature")
    if extra == 0:
        return [read, passed("report-trailing-bytes", "the report ends with its signature")]
    if extra <= policy.max_trailing_bytes:
        return [read, passed("report-trailing-bytes", f"{extra} bytes after the signature; nothing reads them")]
    trailing = failed(
        "report-trailing-bytes", f"{extra} bytes after the signature", found=str(extra),
        expected=f"at most {policy.max_trailing_bytes}",
        hint="the collector returned more than the report; check the size that the driver gave",
    )  # fmt: skip
    return [read, trailing]


def check_chain_format(device: ReadEvidence) -> Check:
    """Step 2."""
    certificates = device.certificates
    if isinstance(certificates, ParseError):
        return failed("chain-format", str(certificates), hint=_AGAIN)
    return passed("chain-format", f"{len(certificates)} certificates, leaf first")


def check_path(name: str, chain: ValidatedChain | None) -> Check:
    """Step 3, and part of step 12."""
    if chain is None:
        return not_made(name, _NO_CHAIN)
    if chain.path_ok and chain.anchor is not None:
        return passed(name, f"{len(chain.certificates)} certificates up to {chain.anchor.name}")
    return _first_finding(name, chain.path_findings, "the chain does not end at a pinned root")


def check_validity(name: str, chain: ValidatedChain | None, tolerated_by: str = "") -> Check:
    """Step 4, and part of step 12. ``tolerated_by`` names the policy option that accepts expired certificates."""
    if chain is None:
        return not_made(name, _NO_CHAIN)
    if chain.in_validity:
        end = format_time(chain.earliest_not_after)
        return passed(name, f"at {format_time(chain.at)}; the first to expire does so {end}")
    if tolerated_by and all(finding.rule == "expired" for finding in chain.validity_findings):
        first = chain.validity_findings[0]
        return skipped(name, first.message, found=first.found, tolerated_by=tolerated_by)
    return _first_finding(name, chain.validity_findings, "a certificate is not valid at this time")


def _first_finding(name: str, findings: tuple[ChainFinding, ...], otherwise: str) -> Check:
    if not findings:
        return failed(name, otherwise)
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    hint = _HINTS.get(first.rule, "the chain was altered or belongs to another device")
    return failed(name, f"{first.message}{more}", expected=first.expected, found=first.found, hint=hint)


def identity_of(certificates: tuple[Certificate, ...]) -> DeviceIdentity:
    """Who the device is, by its certificates (leaf first, at least one)."""
    leaf, above = certificates[0], certificates[1] if len(certificates) > 1 else certificates[0]
    pdi, chip = dice.pdi_of_chain(certificates), dice.chip_of_chain(certificates)
    return DeviceIdentity(ueid=str(leaf.serial), hwmodel=above.common_name or "", pdi=pdi, chip=chip)


def check_signature(device: ReadEvidence, basis: Basis) -> Check:
    """Step 5."""
    report, certificates = device.readable, device.chain
    if report is None or not certificates:
        return not_made("report-signature", _NEITHER)
    leaf, size = certificates[0], len(report.signed)
    if basis.memory.ecdsa.verify_raw(leaf.spki_der, report.signature, report.signed):
        return passed("report-signature", f"ECDSA P-384 over {size} bytes by {leaf.common_name}")
    return failed(
        "report-signature", f"the signature over {size} bytes does not verify with the key of the leaf certificate",
        hint="the report was altered, or it belongs to another device than the chain",
    )  # fmt: skip


def check_nonce(device: ReadEvidence, basis: Basis) -> Check:
    """Step 6."""
    report, nonce, declared = device.readable, basis.nonce, device.evidence.nonce
    if report is None:
        return not_made("nonce", _NO_REPORT)
    found = report.request.nonce
    if nonce is not None and found != nonce.value:
        hint = "this evidence was made for another verifier or at another time; collect it again with your nonce"
        return failed("nonce", "the report answers another nonce", expected=nonce.hex(), found=found.hex(), hint=hint)
    if declared is not None and declared != found:
        detail = "the evidence declares another nonce than the report contains"
        hint = "the file was put together from two collections"
        return failed("nonce", detail, expected=found.hex(), found=declared.hex(), hint=hint)
    if nonce is None:
        return absent(
            "nonce", "no nonce was given to compare with: this may be a recording", found=found.hex(),
            hint="give the nonce that you sent (--nonce); a nonce read from the evidence itself proves nothing",
            tolerated_by="accept_unverified_nonce" if basis.policy.accept_unverified_nonce else "",
        )  # fmt: skip
    return passed("nonce", f"{nonce.hex()[:16]}… as sent", expected=nonce.hex(), found=found.hex())


def check_architecture(
    device: ReadEvidence, identity: DeviceIdentity | None, policy: EvidencePolicy
) -> tuple[Check, Architecture | None]:
    """Step 7, and the architecture that chain, report and evidence agree on."""
    if identity is None:
        return not_made("architecture", _NO_CHAIN), None

    def differ(detail: str, expected: str, found: str, hint: str = "") -> Check:
        return failed("architecture", detail, expected=expected, found=found, hint=hint)

    declared, reported = device.evidence.architecture, _reported_chip(device.readable)
    chip = identity.chip
    if chip is None:
        names = " and ".join(repr(certificate.common_name) for certificate in device.chain[:2])
        detail = f"leaf and boot ROM certificate do not name one chip: {names}"
        hint = "the chain was put together from several devices, or is no device chain"
        return differ(detail, declared.value, names, hint), None
    found = dice.architecture_of_chip(chip)
    if found is not declared:
        detail = f"the certificates are of a {chip}, the evidence says {declared.value}"
        hint = "the evidence was labelled wrongly, or it is of a device that this version does not know"
        return differ(detail, declared.value, found.value if found is not None else chip, hint), None
    if reported is not None and not dice.same_chip(reported, chip):
        hint = "the report belongs to another device than the chain"
        return differ(f"the report says {reported}, its certificates {chip}", chip, reported, hint), None
    if policy.allowed_architectures and found not in policy.allowed_architectures:
        allowed = ", ".join(item.value for item in policy.allowed_architectures)
        return differ(f"{found.value} is not allowed by the policy", allowed, found.value), found
    family = f", one of the {chip} that the certificates name" if reported is not None and reported != chip else ""
    return passed("architecture", f"{found.value} ({reported or chip}{family})"), found


def chip_of_device(report: Report | None, identity: DeviceIdentity | None) -> str | None:
    """The chip that step 7 found: what the report says where the certificates only name its die family.

    Where the two contradict each other, step 7 establishes no architecture, and no RIM is looked for.
    """
    chip, reported = identity.chip if identity is not None else None, _reported_chip(report)
    return chip if chip is None or reported is None else dice.most_specific(chip, reported)


def _reported_chip(report: Report | None) -> str | None:
    return report.fields.chip_info if report is not None and isinstance(report.fields, GpuFields) else None


def check_fwid(device: ReadEvidence, architecture: Architecture, policy: EvidencePolicy) -> Check:
    """Step 8."""
    report, certificates = device.readable, device.chain
    if report is None or not certificates:
        return not_made("fwid", _NEITHER)
    reported = report.fields.fwid
    try:
        certified = dice.read_fwid(certificates[0], architecture)
    except ParseError as error:
        return failed("fwid", str(error), hint="the leaf certificate's DICE extension is malformed")
    if certified is None:
        return failed(
            "fwid", "the leaf certificate has no DICE extension for the firmware id",
            found=reported.hex() if reported is not None else "", code=ResultCode.CERT_FWID_NOT_FOUND,
            hint="the chain belongs to another kind of device",
        )  # fmt: skip
    if reported is None:
        demanded = policy.require_fwid_in_report and architecture.kind is DeviceKind.GPU
        if demanded or architecture not in policy.fwid_optional_for:
            return absent(
                "fwid", "the report names no firmware id, and the policy demands one", expected=certified.hex(),
                hint="drivers before R550 leave it out: update the driver, or see require_fwid_in_report and "
                "fwid_optional_for in the policy",
            )  # fmt: skip
        # The leaf is issued for the firmware that the boot ROM measured; the report only repeats its id.
        detail = f"{certified.hex()[:16]}… is named by the certificate alone: the report names no firmware id"
        return passed("fwid", detail, expected=certified.hex())
    if certified != reported:
        return failed(
            "fwid", "the firmware that runs is not the certified one", expected=certified.hex(), found=reported.hex(),
            hint="the report belongs to another device than the chain, or its firmware was replaced",
        )  # fmt: skip
    return passed("fwid", f"{reported.hex()[:16]}… is certified", expected=certified.hex(), found=reported.hex())


def check_debug(device: ReadEvidence, architecture: Architecture, policy: EvidencePolicy) -> Check:
    """Step 9."""
    if not device.chain:
        return not_made("debug", _NO_CHAIN)
    stated = 0
    # Nothing signs what the driver says: it counts where it speaks against the device.
    developing = device.evidence.hints.get("dev_tools", "off") != "off"
    found = ["the driver says that DevTools mode is on"] if developing else []
    for position, certificate in enumerate(device.chain):
        try:
            infos = dice.tcb_infos(certificate)
        except ParseError as error:
            detail = f"certificate {position} ({certificate.label}): {error}"
            return failed("debug", detail, hint="the DICE extension of this certificate is malformed")
        stated += sum(info.flags is not None for info in infos)
        # Genuine Blackwell certificates also say notConfigured and fixedWidth; those do not weaken the device.
        flags = [flag for flag in _DEBUG_FLAGS if any(flag in (info.flags or ()) for info in infos)]
        if flags:
            found.append(f"certificate {position} ({certificate.label}) says {', '.join(flags)}")
    if found:
        make = partial(skipped, tolerated_by="allow_debug") if policy.allow_debug else failed
        text, hint = "; ".join(found), "take the device out of its development state"
        return make("debug", text, expected="no flag, and DevTools mode off", found=text, hint=hint)
    if stated:
        return passed("debug", "no debug, recovery or not-secure flag is set in any certificate of the chain")
    return passed("debug", f"certificates of {architecture.value} carry no debug flag; none is set")
