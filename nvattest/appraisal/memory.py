"""What a verifier has read and verified, kept for the next device; and what the devices of one platform are judged by.

Every map is bounded. A key is the content itself, with anchors, instant and the nonce of an OCSP request where a result
depends on them. No result depends on the policy or on the requester nonce. Paths are kept without an instant: whether
all certificates of a chain are valid is judged anew at each instant.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from datetime import datetime
from typing import Final, Generic, NamedTuple, TypeVar, cast

from nvattest.appraisal.inputs import Collateral, EvidencePolicy, OcspAnswer
from nvattest.errors import ParseError
from nvattest.evidence import Evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.pki.anchors import TrustAnchors
from nvattest.pki.certificate import Certificate, parse_certificate, parse_pem_chain, read_pem_block
from nvattest.pki.chain import ChainProfile, ValidatedChain, validate_chain
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.pki.ocsp import OcspResponse, Revocation, check_revocation, parse_ocsp_response
from nvattest.rim.document import RimDocument, parse_rim
from nvattest.rim.verify import RimVerification, verify_rim
from nvattest.spdm.report import Report, parse_report

T = TypeVar("T")
Answers = Mapping[int, Sequence[tuple[OcspAnswer, OcspResponse]]]

# How many devices are known again when they come back. What is kept of one takes some 20 kB.
_DEVICES = 512
_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class ReadEvidence:
    """The evidence of one device with what its bytes say. Only ``Memory.read`` makes one; nothing in it is verified.

    ``report`` and ``certificates`` (leaf first) are the errors where the bytes cannot be read.
    """

    evidence: Evidence
    report: Report | ParseError
    certificates: tuple[Certificate, ...] | ParseError
    seal: InitVar[object]

    @property
    def readable(self) -> Report | None:
        return None if isinstance(self.report, ParseError) else self.report

    @property
    def chain(self) -> tuple[Certificate, ...]:
        """The certificates, none where they cannot be read."""
        return () if isinstance(self.certificates, ParseError) else self.certificates

    def __repr__(self) -> str:
        unread = [name for name in ("report", "certificates") if isinstance(getattr(self, name), ParseError)]
        said = f", cannot read: {' and '.join(unread)}" if unread else ""
        return f"<ReadEvidence {self.evidence!r}{said}>"

    def __post_init__(self, seal: object) -> None:
        # A report beside the evidence of another device would be judged in its place.
        if seal is not _SEAL:
            raise TypeError("ReadEvidence is made by Memory.read only")


class BoundedMap(Generic[T]):
    """A map of limited size; the least recently used entry goes first. A call that raises leaves no entry.

    Threads may share one. Each step is one call of a plain dictionary, whose state is whole at any moment; a value that
    another thread has just taken out to put it last is made again.
    """

    __slots__ = ("_entries", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        # No OrderedDict: a key whose comparison is Python lets other threads in while its list is being changed.
        self._entries: dict[Hashable, T] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> T | None:
        value = self._entries.pop(key, None)
        return None if value is None else self.put(key, value)

    def put(self, key: Hashable, value: T) -> T:
        """Keep a value, which must not be None; returns it."""
        self._entries[key] = value
        while len(self._entries) > self._size:
            try:
                self._entries.pop(next(iter(self._entries)), None)
            except (RuntimeError, StopIteration):
                # Another thread changed it in between, or emptied it.
                continue
        return value

    def recall(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of this key, made now if it is not there. ``key`` has to hold all that ``make`` depends on."""
        known = self.get(key)
        return known if known is not None else self.put(key, make())


class Memory:
    """Reads bytes and verifies what was read, each of them once while it is kept.

    Threads may share one: at worst two of them do the same work.
    """

    def __init__(self, ecdsa: EcdsaVerifier) -> None:
        self.ecdsa = ecdsa
        # Two certificates of a chain are of the device alone.
        self._certificates: BoundedMap[Certificate] = BoundedMap(3 * _DEVICES)
        self._report_parts: BoundedMap[object] = BoundedMap(_DEVICES)
        self._rims: BoundedMap[RimDocument] = BoundedMap(32)
        self._explanations: BoundedMap[str] = BoundedMap(32)
        self._responses: BoundedMap[OcspResponse] = BoundedMap(256)
        self._chains: BoundedMap[ValidatedChain] = BoundedMap(_DEVICES)
        self._verifications: BoundedMap[RimVerification] = BoundedMap(64)
        self._judgements: BoundedMap[Revocation] = BoundedMap(1024)
        self._indexed: tuple[Collateral, tuple[Answers, str]] | None = None

    def read(self, evidence: Evidence | ReadEvidence) -> ReadEvidence:
        """Read the report and the certificates of one device. What cannot be read is the error beside it."""
        if isinstance(evidence, ReadEvidence):
            return evidence
        report: Report | ParseError
        certificates: tuple[Certificate, ...] | ParseError
        try:
            # Measurements are those of all devices with the same firmware, opaque data mostly that of the last report.
            report = parse_report(evidence.report, evidence.kind, remember=self._report_part)
        except ParseError as error:
            report = error
        try:
            certificates = parse_pem_chain(evidence.certificate_chain, read=self._read_pem_block)
        except ParseError as error:
            certificates = error
        return ReadEvidence(evidence, report, certificates, _SEAL)

    def _report_part(self, key: Hashable, read: Callable[[], T], /) -> T:
        return cast("T", self._report_parts.recall(key, read))

    def _read_pem_block(self, text: bytes) -> Certificate:
        return self._certificates.recall(text, lambda: read_pem_block(text))

    def _parse_certificate(self, der: bytes) -> Certificate:
        return self._certificates.recall(der, lambda: parse_certificate(der))

    def parse_rim(self, content: bytes) -> RimDocument:
        """The RIM of these bytes, or a ParseError where it does not follow the profile."""
        return self._rims.recall(content, lambda: parse_rim(content))

    def explain_rim(self, error: ParseError, content: bytes) -> str:
        """Why ``parse_rim`` refused this document, with line and element."""
        from nvattest.rim.xml import explained

        return self._explanations.recall(content, lambda: explained(error, content))

    def parse_answer(self, content: bytes) -> OcspResponse:
        """The OCSP answer of these bytes, or a ParseError; also where it is about more than one certificate."""
        return self._responses.recall(content, lambda: parse_ocsp_response(content, parse=self._parse_certificate))

    def validate_device_chain(
        self, certificates: tuple[Certificate, ...], anchors: TrustAnchors, at: datetime
    ) -> ValidatedChain:
        """Validate a device chain against the device anchors. Only good paths are kept."""
        key = (certificates, anchors.device)
        chain = self._chains.get(key)
        if chain is None:
            chain = validate_chain(
                certificates, anchors.device, profile=ChainProfile.DEVICE, at=at, verifier=self.ecdsa
            )
            if chain.path_ok:
                self._chains.put(key, chain)
        return chain.judged_at(at)

    def verify_rim(self, document: RimDocument, anchors: TrustAnchors, at: datetime) -> RimVerification:
        return self._verifications.recall(
            (document.raw_sha256, anchors.rim),
            lambda: verify_rim(document, anchors=anchors.rim, at=at, verifier=self.ecdsa),
        ).judged_at(at)

    def answers(self, collateral: Collateral) -> tuple[Answers, str]:
        """The answers of a collateral by the serial number that they are about, and what to say of the others."""
        indexed = self._indexed
        if indexed is None or indexed[0] is not collateral:
            indexed = self._indexed = (collateral, self._index(collateral))
        # Not the attribute: a call that was given up may still run in its thread and set it.
        return indexed[1]

    def _index(self, collateral: Collateral) -> tuple[Answers, str]:
        index: dict[int, list[tuple[OcspAnswer, OcspResponse]]] = {}
        reasons: list[str] = []
        for answer in collateral.ocsp:
            try:
                response = self.parse_answer(answer.content)
            except ParseError as error:
                reasons.append(error.message)
                continue
            if response.serial is not None:
                index.setdefault(response.serial, []).append((answer, response))
            else:
                reasons.append(f"the responder says {response.responder_status}")
        count = f"{len(reasons)} of {len(collateral.ocsp)} answers"
        return index, f"{count} could not be used, the first: {reasons[0][:200]}" if reasons else ""

    def judge(
        self, answer: OcspAnswer, response: OcspResponse, certificate: Certificate, issuer: Certificate, at: datetime
    ) -> Revocation:
        return self._judgements.recall(
            (response.sha256, certificate.sha256, issuer.sha256, at, answer.nonce),
            lambda: check_revocation(
                response, certificate=certificate, issuer=issuer, at=at, nonce=answer.nonce, verifier=self.ecdsa
            ),
        )


class Basis(NamedTuple):
    """What all devices of one platform are judged by. ``nonce`` is None where the caller sent none."""

    nonce: Nonce | None
    collateral: Collateral
    at: VerificationTime
    policy: EvidencePolicy
    anchors: TrustAnchors
    memory: Memory
