"""From a document to golden values to rely on: ``verify_rim`` makes VerifiedRim, and ``bind_rim`` finds its device.

Steps, all of them taken even when one fails, so that a report names everything that is wrong:

1. the certificates of the document form a chain to a pinned RIM anchor (``pki.chain``);
2. the key of that chain's leaf made the signature over SignedInfo (ECDSA P-384 with SHA-384, r‖s);
3. the document has the digest that SignedInfo names.

Whether the chain was within its validity at ``at`` is judged by the caller through ``chain.in_validity``: a policy may
accept an expired signer, never a broken path.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from nvattest._registry import RIM_MANUFACTURER_ID
from nvattest.errors import ResultCode
from nvattest.model import DeviceKind
from nvattest.pki.anchors import TrustAnchor
from nvattest.pki.chain import ChainProfile, ValidatedChain, validate_chain
from nvattest.pki.dice import most_specific, same_chip
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.document import GoldenValue, RimDocument
from nvattest.rim.ids import ROLES, RimRole

_SEAL: Final = object()


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedRim:
    """A RIM whose content is signed by the leaf of a chain to a pinned anchor. Only ``verify_rim`` makes one.

    ``golden`` are the document's active golden values by index. ``chain`` is the validated chain of the signer; its
    period of validity is not judged here.
    """

    document: RimDocument
    chain: ValidatedChain = field(repr=False)
    seal: InitVar[object]
    golden: Mapping[int, GoldenValue] = field(init=False, repr=False)

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("VerifiedRim is made by verify_rim only")
        object.__setattr__(self, "golden", MappingProxyType({value.index: value for value in self.document.golden}))


@dataclass(frozen=True, slots=True, kw_only=True)
class RimVerification:
    """The outcome of ``verify_rim``.

    ``signature_valid`` covers SignedInfo and the digest it names; ``verified`` is the content when the signature and
    the path to a pinned anchor hold, else None; ``detail`` says in words what held and what did not.
    """

    document: RimDocument = field(repr=False)
    signature_valid: bool
    chain: ValidatedChain = field(repr=False)
    verified: VerifiedRim | None
    detail: str

    def judged_at(self, at: datetime) -> RimVerification:
        """The same signature and path, and the validity of the signers at another instant."""
        return self if at == self.chain.at else replace(self, chain=self.chain.judged_at(at))


def verify_rim(
    document: RimDocument, *, anchors: tuple[TrustAnchor, ...], at: datetime, verifier: EcdsaVerifier
) -> RimVerification:
    """Check the chain, the signature and the digest of a RIM at the instant ``at``. Never raises on a bad document."""
    chain = validate_chain(document.certificates, anchors, profile=ChainProfile.RIM, at=at, verifier=verifier)
    # One key for one signature: the leaf of that very chain, never a key found elsewhere in the document.
    signed = bool(document.certificates) and verifier.verify_raw(
        document.certificates[0].spki_der, document.signature_value, document.signed_info
    )
    valid = signed and document.digest_ok
    return RimVerification(
        document=document,
        signature_valid=valid,
        chain=chain,
        verified=VerifiedRim(document, chain, _SEAL) if valid and chain.path_ok else None,
        detail=_detail(document, signed, chain),
    )


def _detail(document: RimDocument, signed: bool, chain: ValidatedChain) -> str:
    parts = [f"chain: {finding.message}" for finding in chain.path_findings]
    if not document.digest_ok:
        found, expected = document.digest_found.hex()[:16], document.digest_expected.hex()[:16]
        parts.insert(0, f"the content was altered: its SHA-384 is {found}…, signed is {expected}…")
    if not signed:
        parts.insert(0, "the signature over SignedInfo does not verify with the key of the leaf certificate")
    return "; ".join(parts) or f"signed by {document.certificates[0].subject}, chained to a pinned anchor"


# --- is this RIM about this device? -----------------------------------------------------------------------------------
#
# A genuine signature says who wrote a RIM, not which part it describes. The RIM is compared with the device's signed
# report and certificate chain. NVIDIA's tools compare the version only, and accept a RIM of another chip with the same
# version string.


_EDITIONS: Final = {DeviceKind.GPU: "GPU", DeviceKind.NVSWITCH: "SWITCH"}
_VERSION_CODES: Final = {
    RimRole.DRIVER: ResultCode.GPU_DRIVER_RIM_VERSION_MISMATCH,
    RimRole.VBIOS: ResultCode.GPU_VBIOS_RIM_VERSION_MISMATCH,
    RimRole.BIOS: ResultCode.SWITCH_VBIOS_RIM_VERSION_MISMATCH,
}
# "NVIDIA Reference Value L3 GH100 002", "… LS10 CA", "… GB100-CC …": letters of the family, digits of the chip.
_CHIP: Final = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2})_?(?:[0-9]{2,3}|[0-9]{1,2}X{1,2})(?![A-Za-z0-9])")


class BindingFinding(NamedTuple):
    """One way in which a RIM is not about the device.

    ``rule`` is a stable word: ``role``, ``version``, ``product``, ``name``, ``edition``, ``manufacturer``, ``signer``.
    """

    rule: str
    message: str
    expected: str
    found: str
    result_code: ResultCode


def bind_rim(
    rim: VerifiedRim, *, role: RimRole, version: str, chip: str, kind: DeviceKind
) -> tuple[BindingFinding, ...]:
    """Compare a RIM with a device; an empty tuple means that it describes the device.

    Args:
        rim: a verified RIM.
        role: what it was fetched for.
        version: the driver's, VBIOS' or switch BIOS' version in the signed report, exact in every character.
        chip: the chip that report and chain of the device name (``GH100``, ``GB202``, ``LS_10``). Where only its die
            family is known (``GB20X``), a RIM of each member of it fits.
        kind: GPU or NVSwitch.
    """
    document, product = rim.document, chip.replace("_", "")
    findings: list[BindingFinding] = []

    def compare(
        rule: str,
        what: str,
        found: str,
        expected: str,
        code: ResultCode = ResultCode.RIM_INVALID_SCHEMA,
        *,
        equal: Callable[[str, str], bool] = operator.eq,
    ) -> None:
        # The evidence does not say what is empty here; that matches nothing.
        if not expected or not equal(found, expected):
            message = f"the {role.value} RIM's {what} is {found!r}; expected {expected!r}"
            findings.append(BindingFinding(rule, message, expected, found, code))

    if role not in ROLES[kind]:
        other = next(other for other, roles in ROLES.items() if role in roles)
        compare("role", "kind of device", other.value, kind.value)
    compare("version", "version", document.version, version, _VERSION_CODES[role])
    compare("product", "product", document.product, product, equal=same_chip)
    # Name and product may not be of two members of the family that the device names.
    named = most_specific(document.product, product) if same_chip(document.product, product) else product
    compare("name", "name", document.name, named, equal=same_chip)
    compare("edition", "edition", document.edition, _EDITIONS[kind])
    compare("manufacturer", "FirmwareManufacturerId", document.manufacturer_id, RIM_MANUFACTURER_ID)
    # NVIDIA keeps one branch of authorities per family. Names are no contract: a branch that names no chip is accepted,
    # and one authority may serve several chips of its family (GB100, GB102). Another family is refused. The root, last,
    # serves all chips and names none.
    names = [certificate.common_name or "" for certificate in rim.chain.certificates[:-1]]
    if families := sorted({match[1] for name in names for match in _CHIP.finditer(name)}):
        own, code = product.rstrip("0123456789X"), ResultCode.CERT_CHAIN_VERIFICATION_FAILURE
        compare("signer", "signer's chip family", "/".join(families), own, code)
    return tuple(findings)
