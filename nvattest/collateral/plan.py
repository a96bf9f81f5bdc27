"""What a gathering has to ask for: exactly the RIMs and revocation answers that the evidence needs, each once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nvattest.appraisal.inputs import Unavailable
from nvattest.appraisal.memory import ReadEvidence
from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.evidence import Evidence
from nvattest.model import VerificationTime
from nvattest.pki.certificate import Certificate
from nvattest.pki.chain import ChainProfile, ValidatedChain
from nvattest.rim.ids import rim_ids

__all__ = ["Needs", "Question", "certificates_to_ask", "needs_of", "rim_ids_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One certificate whose revocation is asked, its validated issuer, and whose chain it belongs to.

    ``responders`` are the URLs of its AIA extension. A Hopper's or LS10's boot ROM certificate has none; then they are
    those of the nearest certificate above it, which is of the same authority.
    """

    certificate: Certificate
    issuer: Certificate
    profile: ChainProfile
    responders: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The key of this question in ``Collateral.unavailable``."""
        return f"ocsp:{self.certificate.sha256.hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """RIMs by id, and the device chains whose revocation is asked; the chains of the RIMs follow from the RIMs.

    ``refused`` says what is not asked for, and why: ``rim:<id>``, and ``device:<number>`` for a whole device.
    """

    rim_ids: tuple[str, ...] = ()
    chains: tuple[ValidatedChain, ...] = ()
    refused: Mapping[str, Unavailable] = field(default_factory=dict)


def needs_of(evidence: Sequence[Evidence | ReadEvidence], verifier: Verifier, at: VerificationTime) -> Needs:
    """What this evidence needs. A device whose chain leads to no anchor cannot be trusted, so it needs nothing."""
    chains: list[ValidatedChain] = []
    wanted: dict[str, None] = {}
    unwanted: dict[str, None] = {}
    refused: dict[str, Unavailable] = {}
    for number, device in enumerate(verifier.read(evidence)):
        name = f"device {number} ({device.evidence.architecture.value})"
        try:
            if isinstance(device.certificates, ParseError):
                raise device.certificates
            chain = memory_of(verifier).validate_device_chain(device.certificates, verifier.anchors, at.device)
            if chain.path_ok:
                chains.append(chain)
            else:
                refused[f"device:{number}"] = Unavailable(
                    code=ResultCode.CERT_CHAIN_VERIFICATION_FAILURE,
                    message=f"{name}: its chain leads to no pinned root",
                    hint="it cannot be verified, whatever is published",
                )
            (wanted if chain.path_ok else unwanted).update(dict.fromkeys(_rims_of(device)))
        except InputError as error:
            unpublished = error.code == "no-reference-values"
            refused[f"device:{number}"] = Unavailable(
                code=error.result_code,
                message=f"{name}: {error}" if unpublished else f"{name} cannot be read: {error}",
                hint=error.hint,
            )
    refused |= {
        f"rim:{rim_id}": Unavailable(
            code=ResultCode.CERT_CHAIN_VERIFICATION_FAILURE,
            message=f"{rim_id} was not asked for: the device's chain leads to no pinned root",
            hint="nothing is asked of the network on behalf of a device that cannot be trusted",
        )
        for rim_id in unwanted
        if rim_id not in wanted
    }
    return Needs(rim_ids=tuple(wanted), chains=tuple(chains), refused=refused)


def rim_ids_of(devices: Iterable[ReadEvidence]) -> tuple[str, ...]:
    """The ids of all RIMs that these devices need, each once. A report that cannot be read needs none."""
    found: dict[str, None] = {}
    for device in devices:
        try:
            found |= dict.fromkeys(_rims_of(device))
        except InputError:
            # The appraisal says what is wrong with it.
            continue
    return tuple(found)


def _rims_of(device: ReadEvidence) -> Iterable[str]:
    if isinstance(device.report, ParseError):
        raise device.report
    return rim_ids(device.report, device.evidence.architecture).values()


def certificates_to_ask(chains: Iterable[tuple[ValidatedChain, ChainProfile]]) -> tuple[Question, ...]:
    """The certificates of these chains whose revocation the core looks for, each once, topmost first.

    Of a device chain all but the leaf, which NVIDIA's responder does not serve, and the root; of a RIM chain all but
    the root. Of a chain that leads to no anchor none: unverified certificates cause no request.
    """
    found: dict[bytes, Question] = {}
    for chain, profile in chains:
        if not chain.path_ok:
            continue
        certificates = chain.certificates
        first = 1 if profile is ChainProfile.DEVICE else 0
        responders: tuple[str, ...] = ()
        for index in range(len(certificates) - 2, first - 1, -1):
            certificate = certificates[index]
            responders = certificate.ocsp_urls or responders
            found.setdefault(
                certificate.sha256,
                Question(
                    certificate=certificate, issuer=certificates[index + 1], profile=profile, responders=responders
                ),
            )
    return tuple(found.values())
