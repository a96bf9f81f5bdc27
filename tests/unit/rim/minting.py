"""Mint signed RIMs for tests. The writer emits canonical XML by itself, so its digests do not lean on lxml."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
TCG = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"
OPAQUE = "https://docs.nvidia.com/attestation/specs/latest/opaque-data.html"
DS = "http://www.w3.org/2000/09/xmldsig#"
C14N = "http://www.w3.org/2006/12/xml-c14n11"
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
MARK = "@SIGNATURE@"
CLOCK = datetime(2026, 11, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Resource:
    index: int
    values: Sequence[bytes] = (b"\x11" * 48,)
    active: bool = True
    name: str = ""
    min_svn: int | None = None
    include: bool = False

    def xml(self) -> str:
        name = self.name or f"Measurement_{self.index}"
        if self.min_svn is not None:
            return (
                f'<ns0:Resource active="{self.active}" alternatives="1" index="{self.index}" name="{name}" size="2" '
                f'type="Measurement" ns3:includeInResult="{self.include}" ns3:minSvn="{self.min_svn}"></ns0:Resource>'
            )
        values = "".join(f' ns2:Hash{position}="{value.hex()}"' for position, value in enumerate(self.values))
        return (
            f'<ns0:Resource active="{self.active}" alternatives="{len(self.values)}" index="{self.index}" '
            f'name="{name}" size="48" type="Measurement"{values}></ns0:Resource>'
        )


@dataclass(frozen=True)
class Rim:
    product: str = "GH100"
    name: str = ""
    version: str = "550.90.07"
    edition: str = "GPU"
    manufacturer: str = "5703"
    resources: Sequence[Resource] = field(default_factory=lambda: tuple(Resource(index) for index in range(4)))

    def canonical(self) -> str:
        """The document in canonical form with a mark where the signature goes."""
        resources = "".join(f"\n        {resource.xml()}" for resource in self.resources)
        return (
            f'<SoftwareIdentity xmlns="{SWID}" xmlns:ns0="{SWID}" xmlns:ns2="{SHA384}" xmlns:ns3="{OPAQUE}" '
            f'corpus="false" name="{self.name or self.product}" patch="false" supplemental="false" tagId="{"ab" * 48}" '
            'tagVersion="0" version="1.0">\n'
            '    <ns0:Entity name="NVIDIA Corporation" role="softwareCreator tagCreator"></ns0:Entity>\n'
            f'    <ns0:Meta xmlns:ns1="{TCG}" PayloadType="direct" colloquialVersion="{self.version}" '
            f'edition="{self.edition}" product="{self.product}" revision="r1" ns1:BindingSpec="RIMIM" '
            f'ns1:BindingSpecVersion="1.01" ns1:FirmwareManufacturer="NVIDIA Corporation" '
            f'ns1:FirmwareManufacturerId="{self.manufacturer}" ns1:PlatformManufacturerId="5703" '
            f'ns1:PlatformManufacturerStr="NVIDIA Corporation" ns1:PlatformModel="{self.product}"></ns0:Meta>\n'
            f"    <ns0:Payload>{resources}\n    </ns0:Payload>\n{MARK}\n</SoftwareIdentity>"
        )


class Signer:
    """Root, branch authority, L3 and L4 signer as NVIDIA's, under names of our own; NVIDIA's state no ``purposes``."""

    def __init__(self, family: str = "GH100", purposes: Sequence[str] = ()) -> None:
        self.purposes = [x509.ObjectIdentifier(purpose) for purpose in purposes]
        names = [
            f"nvattest test Reference Value L4 {family}",
            f"nvattest test Reference Value L3 {family} 001",
            f"nvattest test Reference Value {family} CA",
            "nvattest test RIM Root CA",
        ]
        self.keys = [ec.generate_private_key(ec.SECP384R1()) for _ in names]
        certificates = [self._certificate(names, position) for position in range(len(names))]
        self.chain = [c.public_bytes(serialization.Encoding.DER) for c in certificates]
        self.root_pem = certificates[-1].public_bytes(serialization.Encoding.PEM)

    def _certificate(self, names: list[str], position: int) -> x509.Certificate:
        issuer = min(position + 1, len(names) - 1)
        key, issuer_key = self.keys[position].public_key(), self.keys[issuer].public_key()
        ca = position > 0

        def name(text: str) -> x509.Name:
            return x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nvattest simulation"),
                    x509.NameAttribute(NameOID.COMMON_NAME, text),
                ]
            )

        unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = dict.fromkeys((*unused, "encipher_only", "decipher_only"), False)
        made = (
            x509.CertificateBuilder()
            .subject_name(name(names[position]))
            .issuer_name(name(names[issuer]))
            .public_key(key)
            .serial_number(1000 + position)
            .not_valid_before(datetime(2026, 1, 1, tzinfo=timezone.utc))
            .not_valid_after(datetime(2028 + position, 1, 1, tzinfo=timezone.utc))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        )
        if self.purposes and not ca:
            made = made.add_extension(x509.ExtendedKeyUsage(self.purposes), critical=False)
        return made.sign(self.keys[issuer], hashes.SHA384())

    def raw_signature(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self.keys[0].sign(message, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")

    def sign(self, canonical: str) -> bytes:
        """The signed document for a canonical text with a mark."""
        digest = hashlib.sha384(canonical.replace(MARK, "").encode()).digest()
        body = (
            f'<ds:CanonicalizationMethod Algorithm="{C14N}"></ds:CanonicalizationMethod>'
            f'<ds:SignatureMethod Algorithm="{MORE}ecdsa-sha384"></ds:SignatureMethod>'
            '<ds:Reference URI=""><ds:Transforms>'
            f'<ds:Transform Algorithm="{DS}enveloped-signature"></ds:Transform>'
            f'<ds:Transform Algorithm="{C14N}"></ds:Transform></ds:Transforms>'
            f'<ds:DigestMethod Algorithm="{MORE}sha384"></ds:DigestMethod>'
            f"<ds:DigestValue>{base64.b64encode(digest).decode()}</ds:DigestValue></ds:Reference>"
        )
        in_scope = f'xmlns="{SWID}" xmlns:ds="{DS}" xmlns:ns0="{SWID}" xmlns:ns2="{SHA384}" xmlns:ns3="{OPAQUE}"'
        value = self.raw_signature(f"<ds:SignedInfo {in_scope}>{body}</ds:SignedInfo>".encode())
        certificates = "".join(
            f"<ds:X509Certificate>{base64.encodebytes(der).decode()}</ds:X509Certificate>" for der in self.chain
        )
        signature = (
            f'<ds:Signature xmlns:ds="{DS}"><ds:SignedInfo>{body}</ds:SignedInfo>'
            f"<ds:SignatureValue>{base64.b64encode(value).decode()}</ds:SignatureValue>"
            f"<ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
        )
        return canonical.replace(MARK, signature).encode()


@functools.cache
def signer(family: str) -> Signer:
    """One signer for each family and test run."""
    return Signer(family)


def mint(rim: Rim | None = None, *, family: str = "GH100") -> bytes:
    """A signed RIM, good in every respect unless ``rim`` says otherwise."""
    return signer(family).sign((rim or Rim()).canonical())
