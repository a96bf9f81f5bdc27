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
from nvattest.rim.document import GoldenValue, MinSvn, RimDocument
from nvattest.rim.ids import RimRole

_SEAL: Final = object()


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedRim:
    """A RIM whose content is signed by the leaf of a chain to a pinned anchor. Only ``verify_rim`` makes one.

    ``version`` is the driver's or the VBIOS' version, ``product`` the chip, ``edition`` ``GPU`` or ``SWITCH``;
    ``golden`` are the active golden values by index, ``min_svn`` the active floors of security versions. ``chain`` is
    the validated chain of the signer; its period of validity is not judged here.
    """

    document: InitVar[RimDocument]
    chain: ValidatedChain = field(repr=False)
    seal: InitVar[object]
    name: str = field(init=False)
    product: str = field(init=False)
    version: str = field(init=False)
    edition: str = field(init=False)
    manufacturer_id: str = field(init=False)
    golden: Mapping[int, GoldenValue] = field(init=False, repr=False)
    min_svn: tuple[MinSvn, ...] = field(init=False, repr=False)

    def __post_init__(self, document: RimDocument, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("VerifiedRim is made by verify_rim only")
        for name in ("name", "product", "version", "edition", "manufacturer_id", "min_svn"):
            object.__setattr__(self, name, getattr(document, name))
        object.__setattr__(self, "golden", MappingProxyType({value.index: value for value in document.golden}))


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
    parts = []
    if not signed:
        parts.append("the signature over SignedInfo does not verify with the key of the leaf certificate")
    if not document.digest_ok:
        parts.append(
            "the content was altered: its SHA-384 is "
            f"{document.digest_found.hex()[:16]}…, signed is {document.digest_expected.hex()[:16]}…"
        )
    parts.extend(f"chain: {finding.message}" for finding in chain.path_findings)
    if not parts:
        parts.append(f"signed by {document.certificates[0].subject}, chained to a pinned anchor")
    return "; ".join(parts)


# --- is this RIM about this device? -----------------------------------------------------------------------------------
#
# A genuine signature says who wrote a RIM, not which part it describes. The RIM is compared with the device's signed
# report and certificate chain. NVIDIA's tools compare the version only, and accept a RIM of another chip with the same
# version string.


_EDITIONS: Final = {DeviceKind.GPU: "GPU", DeviceKind.NVSWITCH: "SWITCH"}
_ROLE_KINDS: Final = {RimRole.DRIVER: DeviceKind.GPU, RimRole.VBIOS: DeviceKind.GPU, RimRole.BIOS: DeviceKind.NVSWITCH}
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
    product = chip.replace("_", "")
    findings: list[BindingFinding] = []

    def compare(
        rule: str,
        what: str,
        found: str,
        expected: str,
        code: ResultCode,
        equal: Callable[[str, str], bool] = operator.eq,
    ) -> None:
        # The evidence does not say what is empty here; that matches nothing.
        if not expected or not equal(found, expected):
            findings.append(
                BindingFinding(
                    rule=rule,
                    message=f"the {role.value} RIM's {what} is {found!r}; expected {expected!r}",
                    expected=expected,
                    found=found,
                    result_code=code,
                )
            )

    if _ROLE_KINDS[role] is not kind:
        compare("role", "kind of device", _ROLE_KINDS[role].value, kind.value, ResultCode.RIM_INVALID_SCHEMA)
    compare("version", "version", rim.version, version, _VERSION_CODES[role])
    compare("product", "product", rim.product, product, ResultCode.RIM_INVALID_SCHEMA, same_chip)
    # Name and product may not be of two members of the family that the device names.
    named = most_specific(rim.product, product) if same_chip(rim.product, product) else product
    compare("name", "name", rim.name, named, ResultCode.RIM_INVALID_SCHEMA, same_chip)
    compare("edition", "edition", rim.edition, _EDITIONS[kind], ResultCode.RIM_INVALID_SCHEMA)
    compare(
        "manufacturer",
        "FirmwareManufacturerId",
        rim.manufacturer_id,
        RIM_MANUFACTURER_ID,
        ResultCode.RIM_INVALID_SCHEMA,
    )
    families = _signer_families(rim)
    # NVIDIA keeps one branch of authorities per family. Names are no contract: a branch that names no chip is accepted,
    # and one authority may serve several chips of its family (GB100, GB102). Another family is refused.
    if families:
        compare(
            "signer",
            "signer's chip family",
            "/".join(families),
            product.rstrip("0123456789X"),
            ResultCode.CERT_CHAIN_VERIFICATION_FAILURE,
        )
    return tuple(findings)


def _signer_families(rim: VerifiedRim) -> list[str]:
    # The root, last, serves all chips and names none.
    common_names = [certificate.common_name or "" for certificate in rim.chain.certificates[:-1]]
    return sorted({match.group(1) for name in common_names for match in _CHIP.finditer(name)})
