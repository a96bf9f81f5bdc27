"""The verifier: trust anchors and policy, and a memory of what was already verified.

Verification itself has no state; the memory only saves work. It is bounded, keyed by content, and never keeps a
verdict: validity periods, nonces, revocation windows and comparisons are judged anew each time.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Generic, TypeVar

from nvattest.appraisal.device import appraise_device
from nvattest.appraisal.inputs import Collateral, OcspAnswer
from nvattest.appraisal.platform import appraise_platform
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.appraisal.results import Appraisal, CertificateRevocation, DeviceAppraisal
from nvattest.appraisal.revocation import find_revocation
from nvattest.errors import ParseError
from nvattest.evidence import Evidence
from nvattest.model import DeviceKind, Nonce, VerificationTime
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors
from nvattest.pki.certificate import Certificate
from nvattest.pki.chain import ChainProfile, ValidatedChain, validate_chain
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.pki.ocsp import OcspResponse, Revocation, RevocationStatus, check_revocation, parse_response
from nvattest.rim.document import RimDocument, parse_rim
from nvattest.rim.verify import RimVerification, verify_rim

T = TypeVar("T")


class _Memory(Generic[T]):
    """A bounded map from content to what was parsed from it; the least recently used entry goes first."""

    __slots__ = ("_entries", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, T] = OrderedDict()

    def get(self, key: bytes) -> T | None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._entries[key] = value
        return value

    def put(self, key: bytes, value: T) -> T:
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
        self._answers: _Memory[OcspResponse] = _Memory(512)

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
        return verify_rim(document, anchors=self.anchors.rim, at=at, verifier=self.ecdsa)

    def find_revocation(
        self, certificate: Certificate, issuer: Certificate, collateral: Collateral, at: datetime
    ) -> CertificateRevocation:
        """Judge the answers about one certificate and choose the one that counts."""
        candidates = [answer for answer in collateral.ocsp if self._serial_of(answer) in (certificate.serial, None)]
        readable = [answer for answer in candidates if self._serial_of(answer) is not None]
        return find_revocation(
            certificate,
            issuer,
            readable,
            collateral.unavailable.get(f"ocsp:{certificate.sha256.hex()}"),
            at,
            self._judge,
        )

    def _parse_answer(self, answer: OcspAnswer) -> OcspResponse | None:
        key = hashlib.sha256(answer.content).digest()
        known = self._answers.get(key)
        if known is not None:
            return known
        try:
            return self._answers.put(key, parse_response(answer.content))
        except ParseError:
            return None

    def _serial_of(self, answer: OcspAnswer) -> int | None:
        parsed = self._parse_answer(answer)
        return parsed.serial if parsed is not None else None

    def _judge(self, answer: OcspAnswer, certificate: Certificate, issuer: Certificate, at: datetime) -> Revocation:
        parsed = self._parse_answer(answer)
        if parsed is None:
            return Revocation(
                status=RevocationStatus.MALFORMED,
                detail="the answer is not an OCSP response",
                certificate_serial=certificate.serial,
            )
        return check_revocation(
            parsed, certificate=certificate, issuer=issuer, at=at, nonce=answer.nonce, verifier=self.ecdsa
        )
