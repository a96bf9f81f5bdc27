"""Collateral of CPU quotes judged without a quote: whether the makers issued it, what it is about, and until when.

What is fetched is judged so before it is kept, and what a bundle holds before a guest is relied on. The judgement of a
quote does not rest on it: it verifies the collateral again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from nvattest.errors import ParseError
from nvattest.model import format_time
from nvattest.pki.anchors import CpuAnchors
from nvattest.pki.certificate import LIBRARY_ERRORS, Certificate, parse_certificate, parse_pem_chain
from nvattest.tee import snp, tdx
from nvattest.tee.collateral import CpuCollateral, SnpCollateral, TdxCollateral, Window, collateral_windows

# The issuers of Intel's collateral stand directly below the root.
_CHAIN: Final = 2
_P256_NUMBER: Final = 32
_SIGNED: Final = ("tcb_info", "qe_identity", "pck_crl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What is known of collateral without a quote.

    ``about`` says of which platforms or chips it is. ``problem`` is empty where the maker signed all of it, and
    ``windows`` say when each part is current; whether that is now is for ``current``.
    """

    about: str
    windows: tuple[Window, ...]
    problem: str

    def current(self, at: datetime) -> str:
        """What is not current at this instant, in words; empty where everything is."""
        for window in self.windows:
            if window.until is None:
                return f"{window.name} names no end"
            if not window.since <= at <= window.until:
                return f"{window.name} is good from {format_time(window.since)} to {format_time(window.until)}"
        return ""

    @property
    def until(self) -> datetime | None:
        """When the first part ends; None where no part names an end."""
        return min((window.until for window in self.windows if window.until is not None), default=None)


def judge(collateral: CpuCollateral, anchors: CpuAnchors) -> Issued:
    """Judge a maker's collateral under these roots. What is wrong with it raises nothing: it is the ``problem``."""
    try:
        if isinstance(collateral, TdxCollateral):
            return _judge_tdx(collateral, anchors)
        return _judge_snp(collateral, anchors)
    except ParseError as error:
        return Issued(about="", windows=(), problem=error.message)
    except LIBRARY_ERRORS as error:
        return Issued(about="", windows=(), problem=f"it cannot be read: {error}")


def authority_of(collateral: TdxCollateral) -> str:
    """The certificate authority of the PCK certificates that it is about: ``platform`` or ``processor``.

    Raises:
        ParseError: the chain of their revocation list cannot be read.
    """
    leaf = parse_pem_chain(collateral.members["pck_crl_issuer_chain"].encode())[0]
    return "platform" if "Platform" in leaf.subject else "processor"


def endorsement_keys(collateral: SnpCollateral) -> list[snp.EndorsementKey]:
    """The VCEKs and VLEKs in it.

    Raises:
        ParseError: a certificate cannot be read.
    """
    found = (snp.read_endorsement_key(der) for der in collateral.certificates)
    return [key for key in found if key is not None]


# --- Intel ------------------------------------------------------------------------------------------------------------


def _judge_tdx(collateral: TdxCollateral, anchors: CpuAnchors) -> Issued:
    members = collateral.members
    platform = f"platform type {collateral.fmspc}, {authority_of(collateral)} CA"
    about = f"Intel TDX, {platform}, evaluation {collateral.evaluation}"
    issuers = {name: parse_pem_chain(members[f"{name}_issuer_chain"].encode()) for name in _SIGNED}
    windows = [*collateral_windows(collateral)]
    windows += [Window(chain[0].label, chain[0].not_before, chain[0].not_after) for chain in issuers.values()]
    problem = next(_problems_tdx(members, issuers, anchors), "")
    if not problem and (collateral.tcb_info.get("id"), collateral.qe_identity.get("id")) != ("TDX", "TD_QE"):
        problem = "the signed texts are not about TDX"
    return Issued(about=about, windows=tuple(dict.fromkeys(windows)), problem=problem)


def _problems_tdx(
    members: dict[str, str], issuers: dict[str, tuple[Certificate, ...]], anchors: CpuAnchors
) -> Iterator[str]:
    lists = {name: x509.load_der_x509_crl(bytes.fromhex(members[name])) for name in ("root_ca_crl", "pck_crl")}
    for name, chain in issuers.items():
        if len(chain) != _CHAIN or not anchors.intel.matches(chain[1]):
            yield f"the issuer chain of {name} does not end at {anchors.intel.name}"
            continue
        leaf, root = chain
        if leaf.issuer_der != root.subject_der or not tdx.signed_by(root, leaf.signature, leaf.tbs):
            yield f"{leaf.label} is not signed by {root.label}"
        if not tdx.signed_by(root, lists["root_ca_crl"].signature, lists["root_ca_crl"].tbs_certlist_bytes):
            yield f"the revocation list of the root is not signed by {root.label}"
        if lists["root_ca_crl"].get_revoked_certificate_by_serial_number(leaf.serial) is not None:
            yield f"Intel revoked {leaf.label} (serial {leaf.serial:x})"
        if name == "pck_crl":
            crl = lists["pck_crl"]
            issued = crl.issuer.public_bytes() == leaf.subject_der
            if not issued or not tdx.signed_by(leaf, crl.signature, crl.tbs_certlist_bytes):
                yield f"the revocation list of PCK certificates is not signed by {leaf.label}"
        else:
            raw = bytes.fromhex(members[f"{name}_signature"])
            halves = (int.from_bytes(half, "big") for half in (raw[:_P256_NUMBER], raw[_P256_NUMBER:]))
            signature = encode_dss_signature(*halves) if len(raw) == 2 * _P256_NUMBER else b""
            if not tdx.signed_by(leaf, signature, members[name].encode()):
                yield f"{name} is not signed by {leaf.label}: Intel signs its text byte by byte"


# --- AMD --------------------------------------------------------------------------------------------------------------


def _judge_snp(collateral: SnpCollateral, anchors: CpuAnchors) -> Issued:
    keys = endorsement_keys(collateral)
    others = [parse_certificate(der) for der in collateral.certificates if snp.read_endorsement_key(der) is None]
    windows = [Window(key.kind.upper(), key.not_before, key.not_after) for key in keys]
    windows += [
        Window(certificate.label, certificate.not_before, certificate.not_after)
        for certificate in others
        if certificate.subject_der != certificate.issuer_der
    ]
    windows += collateral_windows(collateral)
    names = ", ".join(
        f"{key.kind.upper()} of {f'chip {key.hwid.hex()[:16]}…' if key.hwid else key.csp} ({key.product})"
        for key in keys
    )
    problem = next(_problems_snp(keys, others, collateral.crls, anchors), "")
    return Issued(about=f"AMD SEV-SNP, {names or 'no endorsement key'}", windows=tuple(windows), problem=problem)


def _problems_snp(
    keys: list[snp.EndorsementKey], others: Iterable[Certificate], crls: Iterable[bytes], anchors: CpuAnchors
) -> Iterator[str]:
    roots = {anchor.subject: anchor for anchor in anchors.amd.values()}
    issuers: dict[bytes, Certificate] = {}
    for certificate in others:
        # A root among them is only compared with the pinned one, when a quote is judged.
        if certificate.subject_der == certificate.issuer_der:
            continue
        root = roots.get(certificate.issuer)
        if root is None or not snp.signed_by(root.spki_der, certificate.signature, certificate.tbs):
            yield f"{certificate.label} is not signed by a root of AMD's"
        issuers[certificate.subject_der] = certificate
    for key in keys:
        issuer = issuers.get(key.issuer_der)
        if issuer is None:
            yield f"there is no certificate of the issuer of the {key.kind.upper()}"
        elif not snp.signed_by(issuer.spki_der, key.signature, key.tbs):
            yield f"the {key.kind.upper()} is not signed by {issuer.label}"
    if not keys:
        yield "there is no VCEK and no VLEK"
    for der in crls:
        crl = snp.read_crl(der)
        certified = [item for item in issuers.values() if item.issuer_der == crl.issuer_der]
        if not certified:
            yield "a revocation list is of no root that issued a certificate here"
            continue
        root = roots[certified[0].issuer]
        if not snp.signed_by(root.spki_der, crl.signature, crl.tbs):
            yield f"a revocation list is not signed by {root.name}"
        for item in certified:
            if item.serial in crl.serials:
                yield f"AMD revoked {item.label} (serial {item.serial:x})"
