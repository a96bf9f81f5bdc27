"""AMD SEV-SNP: verify a report under AMD's pinned roots. Steps 27 to 33 of the story, pure functions.

The chain is ARK (self-signed, RSA 4096), ASK or ASVK, and the endorsement key: VCEK of a chip, or VLEK of a cloud
provider (P-384). The links are verified one by one.

Sources: AMD 56860 (firmware ABI) for the report, 57230 for certificates, extensions and the key distribution service.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from nvattest.appraisal.check import Check, absent, failed, passed
from nvattest.appraisal.guest import GuestFacts, SnpDemands
from nvattest.errors import ParseError
from nvattest.model import format_time
from nvattest.pki.anchors import CpuAnchors, TrustAnchor
from nvattest.pki.certificate import COMMON_NAME, Certificate, Name, parse_certificate
from nvattest.pki.ecdsa import EcdsaVerifier, is_p384
from nvattest.tee.collateral import (
    EndorsementKey,
    RevocationList,
    SnpCollateral,
    Tcb,
    Window,
    read_crl,
    read_endorsement_key,
    signed_by_amd,
    validity,
)
from nvattest.tee.quote import SnpReport

# Bits 2 to 4 of KEY_INFO.
_SIGNING_KEYS: Final = {0: "vcek", 1: "vlek"}
_CHIP_KEY_MASKED: Final = 1 << 1
_ECDSA_P384_SHA384: Final = 1
_HOST_ASKED: Final = 0xFFFFFFFF
_SMT, _MUST_BE_ONE, _MIGRATION, _DEBUG = 1 << 16, 1 << 17, 1 << 18, 1 << 19
_NUMBER: Final = 72
_P384: Final = 48
_FETCH: Final = "get it from AMD's key distribution service (nvattest bundle fetch --tee-quote)"
# AMD's service gives no VLEK: the provider's host puts it beside the quote.
_UNSIGNED: Final = "no firmware key signs reports on this host: ask its provider"
_VLEK: Final = "take a new quote: the provider's host puts its VLEK beside it"


class Path(NamedTuple):
    """An endorsement key, its issuer, the pinned root, and the root's revocation list where there is one.

    ``revoked`` says that any list of the root names the issuer, the newest or another.
    """

    key: EndorsementKey
    issuer: Certificate
    root_name: str
    root: TrustAnchor
    crl: RevocationList | None
    revoked: bool


def appraise_snp(
    report: SnpReport, collateral: SnpCollateral, demands: SnpDemands, anchors: CpuAnchors, at: datetime
) -> tuple[list[Check], GuestFacts | str]:
    """Steps 27 to 33 for an SNP report, and what it says, or why that is not known.

    Bad input raises nothing: it fails its checks.
    """
    try:
        path = _find_path(report, collateral, anchors, at)
    except ParseError as error:
        path = failed("quote-collateral", f"the collateral cannot be read: {error.message}", hint=_FETCH)
    if isinstance(path, Check):
        return [path], "there is no usable collateral"
    generation = _generation(report, path)
    checks = [
        _check_collateral(path, at),  # (27)
        _check_chain(path, demands, at),  # (28)
        _check_revocation(path, demands),  # (29)
        _check_signature(report, path.key),  # (30)
        _check_chip(report, path, generation),  # (32)
    ]
    if not all(check.acceptable for check in checks[:4]):
        return checks, "the report is not verified"
    checks += [
        _check_tcb(report, path, generation, demands),  # (31)
        _check_state(report, demands),  # (33)
    ]
    key, until = path.key, None if path.crl is None else path.crl.until
    raw = {"reported": report.reported_tcb, "current": report.current_tcb,
           "committed": report.committed_tcb, "launch": report.launch_tcb}  # fmt: skip
    tcbs = {name: read_tcb(value, path.root_name) for name, value in raw.items()}
    return checks, GuestFacts(
        measurement=report.measurement,
        registers=(),
        report_data=report.report_data,
        level=f"{generation or path.root_name} at {tcbs['reported']}",
        tcb={
            "generation": generation,
            **{name: dict(tcb._asdict()) for name, tcb in tcbs.items()},
            "guest_svn": report.guest_svn,
            "vmpl": report.vmpl,
        },
        endorsement={
            "kind": key.kind,
            "product": key.product,
            "chip_id": report.chip_id.hex(),
            "csp_id": key.csp or None,
            "not_after": format_time(key.not_after),
            "root": path.root.name,
        },
        collateral={
            "good_until": format_time(min(key.not_after, path.issuer.not_after, until or key.not_after)),
            "revocation_list": path.crl is not None,
        },
    )


def read_tcb(raw: bytes, root: str) -> Tcb:
    """The eight bytes of a TCB version; Turin's have another order."""
    if root == "turin":
        return Tcb(raw[0], raw[1], raw[2], raw[3], raw[7])
    return Tcb(0, raw[0], raw[1], raw[6], raw[7])


def signing_key_of(report: SnpReport) -> str | None:
    """The kind of the endorsement key, ``vcek`` or ``vlek``; None where the report is not signed."""
    return _SIGNING_KEYS.get(report.key_info >> 2 & 0b111)


def _find_path(report: SnpReport, collateral: SnpCollateral, anchors: CpuAnchors, at: datetime) -> Path | Check:
    """The certificates for this report, by name and not yet verified; or the check that says what is missing."""
    kind = signing_key_of(report)
    if kind is None:
        detail = "the report names no signing key: it is not signed"
        return failed("quote-collateral", detail, hint=_UNSIGNED)
    read = [(der, read_endorsement_key(der)) for der in collateral.certificates]
    keys = [key for _, key in read if key is not None and key.kind == kind]
    if not keys:
        detail = f"it holds no {kind.upper()}, which has to sign this report"
        return failed("quote-collateral", detail, hint=_VLEK if kind == "vlek" else _FETCH)

    def fit(key: EndorsementKey) -> tuple[bool, bool]:
        same = any(read_tcb(report.reported_tcb, root) == key.tcb for root in ("milan", "turin"))
        return not report.chip_id.startswith(key.hwid), not same

    # Of several those for this chip and firmware; where there is none, any shows what differs.
    best = min(keys, key=fit)
    others = [parse_certificate(der) for der, key in read if key is None]
    authorities = [certificate for certificate in others if certificate.subject_der != certificate.issuer_der]
    pairs = []
    for key in keys:
        if fit(key) == fit(best):
            pairs += [(key, issuer) for issuer in authorities if issuer.subject_der == key.issuer_der]
    if not pairs:
        name = Name(best.issuer_der).first(COMMON_NAME) or "its issuer"
        detail = f"it holds no certificate of {name}, which issued the {kind.upper()}"
        return failed("quote-collateral", detail, hint=_FETCH)
    roots = {anchor.subject: name for name, anchor in anchors.amd.items()}
    lists = [read_crl(der) for der in collateral.crls]
    paths = [_path(*pair, roots[pair[1].issuer], lists, anchors, at) for pair in pairs if pair[1].issuer in roots]
    if not paths:
        detail = f"{pairs[0][1].label} was issued by {pairs[0][1].issuer}, which is no root of AMD's"
        return failed("quote-collateral", detail, hint="the certificates are not AMD's")
    # What anyone can add, or what is old, does not hide the path that is good.
    return paths[0] if len(paths) == 1 else min(paths, key=lambda path: _flaws(report, path, at))


def _path(
    key: EndorsementKey, issuer: Certificate, root: str, lists: list[RevocationList], anchors: CpuAnchors, at: datetime
) -> Path:
    anchor = anchors.amd[root]
    ranked = [
        (signed_by_amd(anchor.spki_der, crl.signature, crl.tbs), crl.since <= at, crl.since, crl)
        for crl in lists
        if crl.issuer_der == issuer.issuer_der
    ]
    # The newest of those that the root signed until then; one for VLEKs may not name what one for VCEKs does.
    crl = max(ranked, key=lambda item: item[:3])[3] if ranked else None
    revoked = any(signed and issuer.serial in crl.serials for signed, _, _, crl in ranked)
    return Path(key, issuer, root, anchor, crl, revoked)


def _flaws(report: SnpReport, path: Path, at: datetime) -> tuple[bool, ...]:
    """What is wrong with a path, gravest first: signatures, validity, revocation."""
    key, issuer = path.key, path.issuer
    return (
        not signed_by_amd(path.root.spki_der, issuer.signature, issuer.tbs),
        not signed_by_amd(issuer.spki_der, key.signature, key.tbs),
        not _check_signature(report, key).acceptable,
        not (validity(key).holds(at) and validity(issuer).holds(at)),
        path.revoked,
    )


def _check_collateral(path: Path, at: datetime) -> Check:
    held = f"{path.key.label} and {path.issuer.label}"
    if path.crl is None:
        return passed("quote-collateral", f"{held}; no revocation list")
    window = Window(f"the revocation list of {path.root.name}", path.crl.since, path.crl.until)
    if window.until is None or not window.holds(at):
        detail, found = f"{window.name} is not current", format_time(at)
        return failed("quote-collateral", detail, expected=str(window), found=found, hint=_FETCH)
    return passed("quote-collateral", f"{held}; the revocation list is good until {format_time(window.until)}")


def _check_chain(path: Path, demands: SnpDemands, at: datetime) -> Check:
    key, issuer = path.key, path.issuer
    problem = ""
    if not signed_by_amd(path.root.spki_der, issuer.signature, issuer.tbs):
        problem = f"{issuer.label} is not signed by {path.root.name}"
    elif issuer.is_ca is not True or issuer.key_cert_sign is not True or issuer.path_length != 0:
        problem = f"{issuer.label} is no authority for end certificates alone"
    elif ("VLEK" in issuer.label.upper()) != (key.kind == "vlek"):
        problem = f"{issuer.label} does not issue a {key.label}"
    elif not signed_by_amd(issuer.spki_der, key.signature, key.tbs):
        problem = f"the {key.label} is not signed by {issuer.label}"
    elif not is_p384(key.spki_der):
        problem = f"the key of the {key.label} is not P-384"
    if problem:
        return failed("quote-chain", problem, hint="the certificates are not AMD's, or not intact")
    for window in (validity(issuer), validity(key)):
        if not window.holds(at):
            detail = f"{window.name} is {'not yet valid' if at < window.since else 'expired'}"
            hint = _VLEK if window.name == "VLEK" else _FETCH
            return failed("quote-chain", detail, expected=str(window), found=format_time(at), hint=hint)
    if key.kind not in demands.endorsement or (key.kind == "vlek" and key.csp not in demands.csp_id):
        return failed(
            "quote-chain", "the policy does not accept this endorsement key",
            expected=" or ".join((*demands.endorsement, *demands.csp_id)), found=f"{key.kind} {key.csp}".strip(),
            hint="accept it in the CPU policy (snp.endorsement, and snp.csp_id for a VLEK), or use another host",
        )  # fmt: skip
    return passed("quote-chain", f"{key.label}, {issuer.label}, {path.root.name}")


def _check_revocation(path: Path, demands: SnpDemands) -> Check:
    # AMD lists intermediates only. The serial number of every endorsement key is 0.
    if path.crl is None:
        tolerated = "snp.crl" if demands.crl == "if-present" else ""
        detail = f"no revocation list of {path.root.name}"
        return absent("quote-revocation", detail, hint=_FETCH, tolerated_by=tolerated)
    if not signed_by_amd(path.root.spki_der, path.crl.signature, path.crl.tbs):
        return failed("quote-revocation", f"the revocation list is not signed by {path.root.name}", hint=_FETCH)
    if path.revoked:
        return failed(
            "quote-revocation", f"AMD revoked {path.issuer.label} (serial {path.issuer.serial:x})",
            hint="get certificates of its successor from AMD's key distribution service",
        )  # fmt: skip
    return passed("quote-revocation", f"{path.issuer.label} (serial {path.issuer.serial:x}) is not listed")


def _check_signature(report: SnpReport, key: EndorsementKey) -> Check:
    raw = report.signature
    # R and S are little-endian numbers in fields of 72 bytes; zeros fill the rest.
    filled = raw[_P384:_NUMBER] + raw[_NUMBER + _P384 :]
    r, s = raw[:_P384][::-1], raw[_NUMBER : _NUMBER + _P384][::-1]
    if report.algorithm != _ECDSA_P384_SHA384:
        return failed(
            "quote-signature", f"signature algorithm {report.algorithm} is not known", expected="1",
            found=str(report.algorithm), hint="a newer nvattest may know it",
        )  # fmt: skip
    if report.key_info & _CHIP_KEY_MASKED:
        return failed("quote-signature", "the chip's key is masked: the report is not signed", hint=_UNSIGNED)
    if any(filled) or not EcdsaVerifier(remember=0).verify_raw(key.spki_der, r + s, report.signed):
        return failed(
            "quote-signature", f"the report is not signed by this {key.label}",
            hint="the report was changed, or the certificate belongs to another chip or another firmware level",
        )  # fmt: skip
    return passed("quote-signature", f"ECDSA P-384 by the {key.label}")


def generation_of(cpuid: tuple[int, int, int]) -> str | None:
    """The name of the CPU's generation, None where family and model are of none that is known."""
    family, model, _ = cpuid
    for name, known, first, last in (
        ("milan", 0x19, 0x00, 0x0F),
        ("genoa", 0x19, 0x10, 0x1F),
        ("siena", 0x19, 0xA0, 0xAF),
        ("turin", 0x1A, 0x00, 0x11),
    ):
        if family == known and first <= model <= last:
            return name
    return None


def _generation(report: SnpReport, path: Path) -> str | None:
    """The name of the CPU's generation, None where CPUID is unknown or contradicts the chain."""
    if report.cpuid is None:
        return path.root_name
    found = generation_of(report.cpuid)
    return found if path.root_name == ("genoa" if found == "siena" else found) else None


def _check_chip(report: SnpReport, path: Path, generation: str | None) -> Check:
    key = path.key
    product = key.product.partition("-")[0].lower()
    family = "none" if report.cpuid is None else "family {:#x}, model {:#x}, stepping {:#x}".format(*report.cpuid)
    reported = read_tcb(report.reported_tcb, path.root_name)
    named = any(report.chip_id)
    other = key.kind == "vcek" and report.chip_id != key.hwid.ljust(64, b"\0")
    problems = [
        problem
        for wrong, *problem in (
            (generation is None or product not in {path.root_name, generation},
             "CPUID, certificate and root do not name one known generation",
             path.root.name, f"CPUID {family}, product {key.product}"),
            (reported != key.tcb, f"the {key.label} was made for another firmware level",
             str(key.tcb), str(reported)),
            (named and key.kind == "vlek", "a report signed by a VLEK names a chip", "zeros", report.chip_id.hex()),
            (named and other, "the VCEK is of another chip", f"chip {key.hwid.hex()}", f"chip {report.chip_id.hex()}"),
        )
        if wrong
    ]  # fmt: skip
    if problems:
        detail, expected, found = ("; ".join(parts) for parts in zip(*problems, strict=True))
        hint = "get the certificate for this chip and its reported firmware level"
        return failed("quote-chip", detail, expected=expected, found=found, hint=hint)
    chip = report.chip_id.hex()[:16] + "…" if named else "not named"
    return passed("quote-chip", f"{generation}, {key.tcb}; chip {chip}")


def _check_tcb(report: SnpReport, path: Path, generation: str | None, demands: SnpDemands) -> Check:
    if generation is None:
        hint = "a newer nvattest may know this CPU"
        return failed("quote-tcb", "no floor can be chosen: the generation is not known", hint=hint)
    floor = demands.minimum_tcb.get(generation)
    if floor is None:
        names = ", ".join(demands.minimum_tcb) or "none"
        return failed(
            "quote-tcb", f"the policy has no floor for {generation}", expected=names, found=generation,
            hint=f"write a table [snp.minimum_tcb.{generation}]",
        )  # fmt: skip
    least = Tcb(floor.fmc, floor.boot_loader, floor.tee, floor.snp, floor.microcode)
    reported, launch = (read_tcb(raw, path.root_name) for raw in (report.reported_tcb, report.launch_tcb))
    if _below(reported, least):
        return failed(
            "quote-tcb", f"the firmware is older than the policy's floor for {generation}", expected=str(least),
            found=str(reported), hint="let the provider update the host's firmware and microcode",
        )  # fmt: skip
    warning = f"; warning: it was launched at {launch}" if _below(launch, least) else ""
    return passed("quote-tcb", f"{generation}: {reported}{warning}", expected=f"at least {least}")


def _below(found: Tcb, least: Tcb) -> bool:
    return any(have < need for have, need in zip(found, least, strict=True))


def _check_state(report: SnpReport, demands: SnpDemands) -> Check:
    policy = report.policy
    abi = (policy >> 8 & 0xFF, policy & 0xFF)
    major, _, minor = (demands.minimum_abi or "0.0").partition(".")
    for wrong, detail, expected, found, hint in (
        (policy & _DEBUG, "its policy allows debugging: the host can read and write it", "no debug", "debug",
         "start the guest with a policy without debug (bit 19)"),
        (not policy & _MUST_BE_ONE, "bit 17 of its policy is 0, which no guest's is", "1", "0",
         "start the guest with bit 17 set in its policy"),
        (policy & _MIGRATION and not demands.migration, "its policy allows a migration agent", "none", "allowed",
         "start the guest with a policy without migration (bit 18)"),
        (report.vmpl == _HOST_ASKED, "the host asked for this report, not the guest", "a guest", "the host",
         "ask from inside the guest (attest --bind-tee)"),
        (report.vmpl > demands.maximum_vmpl, "it asked from a level with fewer privileges",
         f"VMPL {demands.maximum_vmpl} at most", f"VMPL {report.vmpl}",
         "ask from the guest's most privileged level, or accept this one in the CPU policy (snp.maximum_vmpl)"),
        (policy & _SMT and demands.smt == "forbidden", "its policy allows SMT", "forbidden", "allowed",
         "start the guest with a policy without SMT (bit 16)"),
        (abi < (int(major), int(minor)), "its policy allows an older firmware ABI",
         f"{demands.minimum_abi} or later", f"{abi[0]}.{abi[1]}", "start the guest with a policy that demands it"),
        (report.guest_svn < demands.minimum_guest_svn, "its security version number is too low",
         f"at least {demands.minimum_guest_svn}", str(report.guest_svn), "start a newer build of the guest"),
    ):  # fmt: skip
        if wrong:
            return failed("guest-state", detail, expected=expected, found=found, hint=hint)
    return passed("guest-state", f"no debug, VMPL {report.vmpl}, policy {policy:#x}")
