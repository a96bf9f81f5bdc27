"""From a document to golden values to rely on: ``verify_rim`` makes VerifiedRim, and nothing else does.

Steps, all of them taken even when one fails, so that a report names everything that is wrong:

1. the certificates of the document form a chain to a pinned RIM anchor (``pki.chain``);
2. the key of that chain's leaf made the signature over SignedInfo (ECDSA P-384 with SHA-384, r‖s);
3. the document has the digest that SignedInfo names.

Whether the chain was within its validity at ``at`` is judged by the caller through ``chain.in_validity``: a policy may
accept an expired signer, never a broken path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from nvattest.pki.anchors import TrustAnchor
from nvattest.pki.chain import ChainProfile, ValidatedChain, validate_chain
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.document import GoldenValue, MinSvn, RimDocument

__all__ = ["RimVerification", "VerifiedRim", "verify_rim"]

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
