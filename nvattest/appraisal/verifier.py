"""The verifier: trust anchors and policy, and a memory of what was already verified.

Verification itself has no state; the memory only saves work. It is bounded and keyed by everything that a result
depends on: content for what was parsed; content, instant, policy, anchors and collateral for what was judged. Nonces
are compared anew each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar, cast

from nvattest.appraisal.device import appraise_device
from nvattest.appraisal.inputs import Collateral, OcspAnswer
from nvattest.appraisal.memory import Memory, Passes
from nvattest.appraisal.platform import appraise_platform
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.appraisal.results import Appraisal, CertificateRevocation, DeviceAppraisal
from nvattest.appraisal.revocation import find_revocation
from nvattest.errors import ParseError
from nvattest.evidence import Evidence
from nvattest.model import DeviceKind, Nonce, VerificationTime
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors
from nvattest.pki.certificate import Certificate, parse_certificate, parse_pem_chain, read_pem_block
from nvattest.pki.chain import ChainProfile, ValidatedChain, validate_chain
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.pki.ocsp import OcspResponse, Revocation, check_revocation, parse_ocsp_response
from nvattest.rim.document import RimDocument, parse_rim
from nvattest.rim.verify import RimVerification, verify_rim
from nvattest.spdm.report import Report, parse_report

T = TypeVar("T")
_Index = Mapping[int, Sequence[tuple[OcspAnswer, OcspResponse]]]

# How many devices are known again when they come back. What is kept of one takes some 20 kB.
_DEVICES = 512


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
        self._rims: Memory[RimDocument] = Memory(32)
        self._explanations: Memory[str] = Memory(32)
        self._certificates: Memory[Certificate] = Memory(256)
        self._report_parts: Memory[object] = Memory(_DEVICES)
        self._verifications: Memory[RimVerification] = Memory(64)
        self._judgements: Memory[Revocation] = Memory(1024)
        self._indexed: tuple[Collateral, tuple[_Index, str]] | None = None
        self._passed: tuple[Collateral, EvidencePolicy, TrustAnchors, Passes] | None = None

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
        return parse_pem_chain(pem, read=self._read_pem_block)

    def _read_pem_block(self, text: bytes) -> Certificate:
        return self._certificates.recall(text, lambda: read_pem_block(text))

    def _parse_certificate(self, der: bytes) -> Certificate:
        return self._certificates.recall(der, lambda: parse_certificate(der))

    def parse_report(self, data: bytes, kind: DeviceKind) -> Report:
        """Parse a report; measurements and opaque data that were seen before are remembered.

        Raises:
            ParseError: the report cannot be read.
        """
        return parse_report(data, kind, remember=self._recall_part)

    def _recall_part(self, key: Hashable, read: Callable[[], T], /) -> T:
        return cast("T", self._report_parts.recall(key, read))

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
        return self._rims.recall(key, lambda: parse_rim(content))

    def explain_rim(self, error: ParseError, content: bytes) -> str:
        """What ``parse_rim`` refused this document for, with line and element; remembered, for all devices need it."""
        from nvattest.rim.schema import explained

        return self._explanations.recall(hashlib.sha256(content).digest(), lambda: explained(error, content))

    def verify_rim(self, document: RimDocument, at: datetime) -> RimVerification:
        """Verify a RIM's signature and chain against the RIM anchors."""
        return self._verifications.recall(
            (document.raw_sha256, at, self.anchors.rim),
            lambda: verify_rim(document, anchors=self.anchors.rim, at=at, verifier=self.ecdsa),
        )

    def passes(self, collateral: Collateral) -> Passes:
        """The steps that passed with this collateral, policy and anchors; another one of these forgets them."""
        known = self._passed
        if known is None or known[0] is not collateral or known[1] is not self.policy or known[2] is not self.anchors:
            known = self._passed = (collateral, self.policy, self.anchors, Passes(3 * _DEVICES))
        return known[3]

    def find_revocation(
        self, certificate: Certificate, issuer: Certificate, collateral: Collateral, at: datetime
    ) -> CertificateRevocation:
        """Judge the answers about one certificate and choose the one that counts."""
        index, unusable = self._index(collateral)
        return find_revocation(
            certificate,
            issuer,
            index.get(certificate.serial, ()),
            collateral.unavailable.get(f"ocsp:{certificate.sha256.hex()}"),
            at,
            self._judge,
            unusable,
        )

    def _index(self, collateral: Collateral) -> tuple[_Index, str]:
        """The answers of a collateral by the serial number that they are about, and what is to say of the others."""
        if self._indexed is None or self._indexed[0] is not collateral:
            index: dict[int, list[tuple[OcspAnswer, OcspResponse]]] = {}
            reasons: list[str] = []
            for answer in collateral.ocsp:
                try:
                    response = parse_ocsp_response(answer.content, parse=self._parse_certificate)
                except ParseError as error:
                    reasons.append(error.message)
                    continue
                if response.serial is not None:
                    index.setdefault(response.serial, []).append((answer, response))
                else:
                    reasons.append(f"the responder says {response.responder_status}")
            unusable = ""
            if reasons:
                # They name no certificate, so they are told where an answer is missing.
                count = f"{len(reasons)} of {len(collateral.ocsp)} answers"
                unusable = f"{count} could not be used, the first: {reasons[0][:200]}"
            self._indexed = (collateral, (index, unusable))
        return self._indexed[1]

    def _judge(
        self,
        answer: OcspAnswer,
        response: OcspResponse,
        certificate: Certificate,
        issuer: Certificate,
        at: datetime,
    ) -> Revocation:
        return self._judgements.recall(
            (response.sha256, certificate.sha256, issuer.sha256, at, answer.nonce),
            lambda: check_revocation(
                response, certificate=certificate, issuer=issuer, at=at, nonce=answer.nonce, verifier=self.ecdsa
            ),
        )
