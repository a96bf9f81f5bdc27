"""Trust anchors: the two roots of NVIDIA, pinned as facts, and roots that a caller brings instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nvattest.errors import InputError
from nvattest.model import counted
from nvattest.pki.certificate import Certificate, Name, parse_pem_chain
from nvattest.pki.ecdsa import P384_SPKI_PREFIX, EcdsaVerifier

# Roots made by nvattest.testing carry this organisation; results under them are marked as simulated.
SIMULATION_ORGANIZATION: Final = "nvattest simulation"
_MAX_ROOTS = 8
_PINNED_LABEL: Final = "NVIDIA"
_PINNED_DEVICE: Final = bytes.fromhex("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48")
_PINNED_RIM: Final = bytes.fromhex("12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchor:
    """One root: its subject (RFC 4514), its whole public key and the SHA-256 of its certificate."""

    name: str
    subject: str
    serial: int
    spki_der: bytes
    certificate_sha256: bytes

    def matches(self, certificate: Certificate) -> bool:
        """Whether this certificate is the anchor itself: same bytes, and so the same key and subject."""
        return (
            certificate.sha256 == self.certificate_sha256
            and certificate.spki_der == self.spki_der
            and certificate.subject == self.subject
        )

    @property
    def simulated(self) -> bool:
        """Whether this is a root of simulated devices."""
        return f"O={SIMULATION_ORGANIZATION}" in self.subject.split(",")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchors:
    """The roots for device chains and for RIM chains, and what to call them in results.

    Raises:
        InputError: other roots than NVIDIA's pinned ones under the label ``NVIDIA`` (code ``anchor``).
    """

    device: tuple[TrustAnchor, ...]
    rim: tuple[TrustAnchor, ...]
    label: str

    def __post_init__(self) -> None:
        # Results under other roots must say so, and the label is where they say it.
        pinned = [{anchor.certificate_sha256 for anchor in roots} for roots in (self.device, self.rim)]
        if self.label == _PINNED_LABEL and pinned != [{_PINNED_DEVICE}, {_PINNED_RIM}]:
            raise InputError(
                f"only NVIDIA's pinned roots may be called {_PINNED_LABEL!r}",
                code="anchor",
                hint="give these anchors another label",
            )

    def __repr__(self) -> str:
        return f"<TrustAnchors {self.label[:80]!r}: {counted(len(self.device) + len(self.rim), 'root')}>"

    @property
    def is_default(self) -> bool:
        """Whether exactly NVIDIA's pinned roots are used."""
        return (self.device, self.rim) == (NVIDIA_ANCHORS.device, NVIDIA_ANCHORS.rim)

    @property
    def simulated(self) -> bool:
        """Whether any root belongs to simulated devices: then no result says anything about real ones."""
        return any(anchor.simulated for anchor in (*self.device, *self.rim))


NVIDIA_ANCHORS: Final = TrustAnchors(
    device=(
        TrustAnchor(
            name="NVIDIA Device Identity CA",
            subject="O=NVIDIA,CN=NVIDIA Device Identity CA",
            serial=0x2D3670B1CA100411C1FEC0E82A065B54,
            spki_der=P384_SPKI_PREFIX
            + bytes.fromhex(
                "0e4c14a33bf8a5626658db4129607e4cbf4519c4412716f4d0d917c4978005bdeabeaefd57bc66082d718a4f8b6052e1"
                "516ee8a7c422b84de857071bb58fd395bea0cfa1c63ee7c80d6bd63901d91cbbd187d3857dc16b5cceaf238ff8c27dbd"
            ),
            certificate_sha256=_PINNED_DEVICE,
        ),
    ),
    rim=(
        TrustAnchor(
            name="NVIDIA CoRIM signing Root CA",
            subject="CN=NVIDIA CoRIM signing Root CA,O=NVIDIA,C=US",
            serial=0x45DAE3A00E5037BDDF875375ECB5E270,
            spki_der=P384_SPKI_PREFIX
            + bytes.fromhex(
                "b840b28bdbcd33e230da57d4cf2065747030682d4717b4c2829d7641c1325139b74da831c2be3c779e7e2b6548956608"
                "0e4ecd94021075c57f15fedeb862c8f906ae8fddc7b12238597dbdf0fa56e78453833f6d0be43af3871a47f057584799"
            ),
            certificate_sha256=_PINNED_RIM,
        ),
    ),
    label=_PINNED_LABEL,
)


def anchors_from_pem(device: bytes, rim: bytes, *, label: str = "custom") -> TrustAnchors:
    """Anchors from PEM texts: one or more self-signed roots for devices, and for RIMs.

    Raises:
        InputError: unreadable PEM (ParseError), or a certificate that is no self-signed P-384 root (code ``anchor``).
    """
    return TrustAnchors(device=_roots(device), rim=_roots(rim), label=label)


def trust_anchors_from_pem(pem: bytes, *, label: str = "custom") -> TrustAnchors:
    """Anchors from one PEM text whose self-signed roots serve devices and RIMs alike.

    Raises:
        InputError: as ``anchors_from_pem``.
    """
    roots = _roots(pem)
    return TrustAnchors(device=roots, rim=roots, label=label)


def _roots(pem: bytes) -> tuple[TrustAnchor, ...]:
    certificates = parse_pem_chain(pem, maximum=_MAX_ROOTS)
    verifier = EcdsaVerifier(remember=0)
    for certificate in certificates:
        fault = _why_no_root(certificate, verifier)
        if fault:
            raise InputError(
                f"{certificate.label} cannot be a trust anchor: {fault}",
                code="anchor",
                hint="give self-signed root certificates with P-384 keys",
            )
    return tuple(
        TrustAnchor(
            name=certificate.label,
            subject=Name(certificate.subject_der).rfc4514(),
            serial=certificate.serial,
            spki_der=certificate.spki_der,
            certificate_sha256=certificate.sha256,
        )
        for certificate in certificates
    )


def _why_no_root(certificate: Certificate, verifier: EcdsaVerifier) -> str:
    if certificate.subject_der != certificate.issuer_der:
        return f"its issuer is {certificate.issuer}"
    if not certificate.is_p384 or not certificate.is_ecdsa_sha384:
        return "it is not P-384 with ECDSA and SHA-384"
    if certificate.is_ca is not True or certificate.key_cert_sign is not True:
        return "it is not marked as a CA that signs certificates"
    if not verifier.verify_der(certificate.spki_der, certificate.signature, certificate.tbs):
        return "its own key did not sign it"
    return ""
