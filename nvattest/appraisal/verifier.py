"""The verifier: trust anchors, an evidence policy, and a memory that saves work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from nvattest.appraisal.device import appraise_device
from nvattest.appraisal.inputs import Collateral, EvidencePolicy
from nvattest.appraisal.memory import Basis, Memory, ReadEvidence
from nvattest.appraisal.platform import appraise_platform
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.evidence import Evidence
from nvattest.model import DeviceKind, Nonce, VerificationTime, require_type
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors
from nvattest.pki.ecdsa import EcdsaVerifier


class Verifier:
    """Appraise evidence against pinned anchors and an evidence policy (the Verifier of RFC 9334).

    Make one and keep it: RIMs, revocation answers and certificate signatures that it has seen cost almost nothing the
    second time. Threads may share it and need no lock; each ``appraise`` takes the policy that is set when it begins.

    Args:
        anchors: the trust anchors; NVIDIA's pinned roots by default.
        policy: what is demanded of a device; strict by default.
        backend: ``"cryptography"`` or ``"aws-lc"`` (extra ``fast``) for ECDSA; the answers are the same.

    Raises:
        InputError: an argument of another type, or a backend that is not installed.
    """

    def __init__(
        self,
        *,
        anchors: TrustAnchors = NVIDIA_ANCHORS,
        policy: EvidencePolicy | None = None,
        backend: str = "cryptography",
    ) -> None:
        require_type(anchors, TrustAnchors, "anchors")
        policy = EvidencePolicy() if policy is None else policy
        require_type(policy, EvidencePolicy, "policy")
        self.anchors = anchors
        self.policy = policy
        self._memory = Memory(EcdsaVerifier(backend=backend))

    def __repr__(self) -> str:
        return f"<Verifier under {self.anchors!r} with {self.policy!r}>"

    def read(self, evidence: Iterable[Evidence | ReadEvidence]) -> tuple[ReadEvidence, ...]:
        """Read the reports and chains once, for ``appraise`` and for the gathering of collateral before it."""
        return tuple(self._memory.read(item) for item in evidence)

    def appraise(
        self,
        evidence: Sequence[Evidence | ReadEvidence],
        *,
        nonce: Nonce | bytes | str | None,
        collateral: Collateral,
        at: VerificationTime | datetime,
    ) -> Appraisal:
        """Appraise the evidence of a whole platform. Bad evidence raises nothing: it fails its checks.

        ``nonce`` is the one that the caller sent, 32 bytes or 64 hexadecimal digits; None means that freshness cannot
        be shown, which the default policy refuses. ``at`` is the clock; ``nvattest.verify(verifier=…)`` reads it.

        Raises:
            InputError: no such nonce, or an instant without a time zone.
        """
        asked = None if nonce is None else Nonce.of(nonce)
        basis = Basis(asked, collateral, VerificationTime.of(at), self.policy, self.anchors, self._memory)
        counts = dict.fromkeys(DeviceKind, 0)
        devices: list[DeviceAppraisal] = []
        for device in self.read(evidence):
            kind = device.evidence.kind
            devices.append(appraise_device(device, counts[kind], basis))
            counts[kind] += 1
        return appraise_platform(tuple(devices), basis)


def memory_of(verifier: Verifier) -> Memory:
    """What a verifier has read and verified, for the rooms of this package that read with it. Not public."""
    return verifier._memory  # noqa: SLF001 - its maker's module
