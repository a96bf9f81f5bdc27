"""The plan of a gathering: exactly which RIMs and revocation answers the evidence needs, none of them twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nvattest.errors import InputError
from nvattest.evidence import Evidence
from nvattest.pki.certificate import Certificate
from nvattest.pki.chain import ChainProfile, ValidatedChain
from nvattest.rim.ids import rim_ids
from nvattest.spdm.report import parse_report


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


def rims_of_device(item: Evidence) -> tuple[str, ...]:
    """The ids of the RIMs that one device needs.

    Raises:
        InputError: its report cannot be read, or names no RIM.
    """
    return tuple(rim_ids(parse_report(item.report, item.kind), item.architecture).values())


def rim_ids_of(evidence: Iterable[Evidence]) -> tuple[str, ...]:
    """The ids of all RIMs that this evidence needs, each once. A report that cannot be read needs none."""
    found: dict[str, None] = {}
    for item in evidence:
        try:
            found |= dict.fromkeys(rims_of_device(item))
        except InputError:
            # The appraisal will say what is wrong with it.
            continue
    return tuple(found)


def certificates_to_ask(chains: Iterable[tuple[ValidatedChain, ChainProfile]]) -> tuple[Question, ...]:
    """The certificates of these chains whose revocation the core will look for, each once, topmost first.

    Of a device chain all but the leaf, which NVIDIA's responder does not serve, and the root; of a RIM chain all but
    the root. Of a chain that leads to no anchor none: no request is made on behalf of strangers.
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
