"""The verifier: trust anchors and policy, and a memory of what was already verified.

Verification itself has no state; the memory only saves work. It is bounded and keyed by everything that a result
depends on: content for what was parsed, content and instant for what was judged. Nonces and measurements are compared
anew each time.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from nvattest.appraisal.device import appraise_device
from nvattest.appraisal.inputs import Collateral, OcspAnswer
from nvattest.appraisal.platform import appraise_platform
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.appraisal.results import Appraisal, CertificateRevocation, DeviceAppraisal
from nvattest.appraisal.revocation import find_revocation
from nvattest.appraisal.steps_rim import RimPass
from nvattest.errors import ParseError
from nvattest.evidence import Evidence
from nvattest.model import DeviceKind, Nonce, VerificationTime
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors
from nvattest.pki.certificate import Certificate, parse_certificate, parse_pem_chain
from nvattest.pki.chain import ChainProfile, ValidatedChain, validate_chain
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.pki.ocsp import OcspResponse, Revocation, check_revocation, parse_response
from nvattest.rim.document import RimDocument, parse_rim
from nvattest.rim.verify import RimVerification, verify_rim

T = TypeVar("T")
_Index = Mapping[int, Sequence[tuple[OcspAnswer, OcspResponse]]]


class _Memory(Generic[T]):
    """A bounded map from what a result depends on to the result; the least recently used entry goes first."""

    __slots__ = ("_entries", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._entries[key] = value
        return value

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: Hashable, value: T) -> T:
        self._entries[key] = value
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return value


class Verifier:
    """Appraise evidence against pinned anchors and an evidence policy (the Verifier of RFC 9334).

    Make one and keep it: RIMs, revocation answers and certificate signatures that it has seen cost almost nothing the
    second time. One verifier is meant for one thread.

    Args:
        anchors: the trust anchors; NVIDIA's pinned roots unless told otherwise.
        policy: what is demanded of a device; strict unless told otherwise.
        backend: ``"cryptography"`` or ``"aws-lc"`` (extra ``fast``) for ECDSA; the answers are the same.
    """

    def __init__(
        self,
        *,
        anchors: TrustAnchors = NVIDIA_ANCHORS,
        policy: EvidencePolicy | None = None,
        backend: str = "cryptography",
    ) -> None:
        self.anchors = anchors
        self.policy = policy if policy is not None else EvidencePolicy()
        self.ecdsa = EcdsaVerifier(backend=backend)
        self._rims: _Memory[RimDocument] = _Memory(32)
        self._certificates: _Memory[Certificate] = _Memory(256)
        self._verifications: _Memory[RimVerification] = _Memory(64)
        self._judgements: _Memory[Revocation] = _Memory(1024)
        self._indexed: tuple[Collateral, _Index] | None = None
        self._passed: tuple[Collateral, EvidencePolicy, TrustAnchors, _Memory[RimPass]] | None = None

    def appraise(
        self,
        evidence: Sequence[Evidence],
        *,
        nonce: Nonce | None,
        collateral: Collateral,
        at: VerificationTime,
    ) -> Appraisal:
        """Appraise the evidence of a whole platform. Bad evidence raises nothing: it fails its checks.

        ``nonce`` is the one that the caller sent; None means that freshness cannot be shown, which the default policy
        refuses. ``at`` is the clock.
        """
        counts = dict.fromkeys(DeviceKind, 0)
        devices: list[DeviceAppraisal] = []
        for item in evidence:
            index = counts[item.kind]
            counts[item.kind] = index + 1
            devices.append(appraise_device(item, index, nonce=nonce, collateral=collateral, at=at, verifier=self))
        return appraise_platform(tuple(devices), nonce=nonce, at=at, policy=self.policy, anchors=self.anchors)

    # What the story in device.py asks of the verifier.

    def parse_chain(self, pem: bytes) -> tuple[Certificate, ...]:
        """Parse a PEM chain; certificates that were seen before are remembered.

        Raises:
            ParseError: the chain cannot be read.
        """
        return parse_pem_chain(pem, parse=self._parse_certificate)

    def _parse_certificate(self, der: bytes) -> Certificate:
        known = self._certificates.get(der)
        return known if known is not None else self._certificates.put(der, parse_certificate(der))

    def validate_device_chain(self, certificates: tuple[Certificate, ...], at: datetime) -> ValidatedChain:
        """Validate a device chain against the device anchors."""
        return validate_chain(
            certificates, self.anchors.device, profile=ChainProfile.DEVICE, at=at, verifier=self.ecdsa
        )

    def parse_rim(self, content: bytes) -> RimDocument:
        """Parse a RIM, or remember its parse.

        Raises:
            ParseError: the document does not follow the profile.
        """
        key = hashlib.sha256(content).digest()
        known = self._rims.get(key)
        return known if known is not None else self._rims.put(key, parse_rim(content))

    def verify_rim(self, document: RimDocument, at: datetime) -> RimVerification:
        """Verify a RIM's signature and chain against the RIM anchors."""
        key = (document.raw_sha256, at, self.anchors.rim)
        known = self._verifications.get(key)
        if known is None:
            result = verify_rim(document, anchors=self.anchors.rim, at=at, verifier=self.ecdsa)
            known = self._verifications.put(key, result)
        return known

    def rim_passes(self, collateral: Collateral) -> _Memory[RimPass]:
        """The RIMs of this collateral that passed under this policy and these anchors; another one forgets them."""
        known = self._passed
        if known is None or known[0] is not collateral or known[1] is not self.policy or known[2] is not self.anchors:
            known = self._passed = (collateral, self.policy, self.anchors, _Memory(64))
        return known[3]

    def find_revocation(
        self, certificate: Certificate, issuer: Certificate, collateral: Collateral, at: datetime
    ) -> CertificateRevocation:
        """Judge the answers about one certificate and choose the one that counts."""
        return find_revocation(
            certificate,
            issuer,
            self._index(collateral).get(certificate.serial, ()),
            collateral.unavailable.get(f"ocsp:{certificate.sha256.hex()}"),
            at,
            self._judge,
        )

    def _index(self, collateral: Collateral) -> _Index:
        """The answers of a collateral by the serial number that they are about; what cannot be read is left out."""
        if self._indexed is None or self._indexed[0] is not collateral:
            index: dict[int, list[tuple[OcspAnswer, OcspResponse]]] = {}
            for answer in collateral.ocsp:
                try:
                    response = parse_response(answer.content)
                except ParseError:
                    continue
                if response.serial is not None:
                    index.setdefault(response.serial, []).append((answer, response))
            self._indexed = (collateral, index)
        return self._indexed[1]

    def _judge(
        self,
        answer: OcspAnswer,
        response: OcspResponse,
        certificate: Certificate,
        issuer: Certificate,
        at: datetime,
    ) -> Revocation:
        key = (response.sha256, certificate.sha256, issuer.sha256, at, answer.nonce)
        known = self._judgements.get(key)
        if known is None:
            result = check_revocation(
                response, certificate=certificate, issuer=issuer, at=at, nonce=answer.nonce, verifier=self.ecdsa
            )
            known = self._judgements.put(key, result)
        return known
