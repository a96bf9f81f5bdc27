"""A little PKI for tests: keys from labels, certificates with chosen faults, OCSP answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nvattest.pki.anchors import TrustAnchors, trust_anchors_from_pem
from nvattest.pki.certificate import Certificate, DerReader, parse_certificate
from nvattest.pki.ecdsa import P384_ORDER

NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=timezone.utc)
START = datetime(2025, 1, 1, tzinfo=timezone.utc)
END = datetime(2027, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
DER = serialization.Encoding.DER


def key(label: str, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    order = P384_ORDER if curve is None else 2**250
    number = int.from_bytes(hashlib.sha512(label.encode()).digest(), "big") % (order - 1) + 1
    return ec.derive_private_key(number, curve or ec.SECP384R1())


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nvattest simulation"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@dataclass(frozen=True)
class Spec:
    """What a certificate shall say; tests change one thing with ``replace``."""

    cn: str
    issuer_cn: str
    key: Any
    issuer_key: Any
    ca: bool | None = True
    path_length: int | None = None
    cert_sign: bool = True
    digital_signature: bool = False
    key_usage: bool = True
    eku: tuple[x509.ObjectIdentifier, ...] = ()
    eku_critical: bool = True
    hash: Any = field(default_factory=hashes.SHA384)
    not_before: datetime = START
    not_after: datetime = END
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    serial: int | None = None

    def but(self, **changes: Any) -> Spec:
        return replace(self, **changes)

    def build(self) -> x509.Certificate:
        serial = self.serial
        if serial is None:
            serial = int.from_bytes(hashlib.sha256((self.cn + self.issuer_cn).encode()).digest()[:16], "big") >> 1
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.cn))
            .issuer_name(name(self.issuer_cn))
            .public_key(self.key.public_key())
            .serial_number(serial)
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
        )
        if self.ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(self.ca, self.path_length if self.ca else None), True)
        if self.key_usage:
            usage = x509.KeyUsage(
                digital_signature=self.digital_signature,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=not (self.digital_signature or self.cert_sign),
                key_cert_sign=self.cert_sign,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, True)
        if self.eku:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.eku), self.eku_critical)
        for value, critical in self.extra:
            builder = builder.add_extension(value, critical)
        # Deterministic signatures: minted twice, a certificate is the same bytes, and so the same anchor.
        deterministic = True if isinstance(self.issuer_key, ec.EllipticCurvePrivateKey) else None
        return builder.sign(self.issuer_key, self.hash, ecdsa_deterministic=deterministic)

    def parsed(self) -> Certificate:
        return parse_certificate(self.build().public_bytes(DER))


def specs() -> list[Spec]:
    """Leaf, boot ROM, provisioner, identity, root."""
    names = ["GH100 A01 GSP FMC LF", "GH100 A01 GSP BROM", "Provisioner", "Identity", "Root"]
    chain = [
        Spec(cn=cn, issuer_cn=issuer, key=key(cn), issuer_key=key(issuer))
        for cn, issuer in zip(names, [*names[1:], names[-1]], strict=True)
    ]
    chain[0] = chain[0].but(ca=None, cert_sign=False, digital_signature=True)
    return chain


def chain(**changes: Any) -> list[Certificate]:
    """The good chain; ``c1={"ca": False}`` changes certificate 1."""
    made = specs()
    for where, change in changes.items():
        position = int(where[1:])
        made[position] = made[position].but(**change)
    return [spec.parsed() for spec in made]


def pem(*certificates: Certificate) -> bytes:
    return b"".join(
        x509.load_der_x509_certificate(c.der).public_bytes(serialization.Encoding.PEM) for c in certificates
    )


def anchors() -> TrustAnchors:
    return trust_anchors_from_pem(pem(specs()[-1].parsed()))


def responder(issuer: str, **changes: Any) -> Spec:
    return Spec(
        cn="Responder",
        issuer_cn=issuer,
        key=key("Responder"),
        issuer_key=key(issuer),
        ca=False,
        cert_sign=False,
        digital_signature=True,
        eku=(ExtendedKeyUsageOID.OCSP_SIGNING,),
    ).but(**changes)


def answer(
    certificate: Certificate,
    issuer: Certificate,
    *,
    responder: Certificate,
    signer: ec.EllipticCurvePrivateKey,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    reason: x509.ReasonFlags | None = None,
    this_update: datetime = NOW - timedelta(hours=1),
    next_update: datetime | None = NOW + timedelta(hours=23),
    produced: datetime | None = None,
    nonce: bytes | None = None,
    cert_hash: hashes.HashAlgorithm | None = None,
    signature_hash: hashes.HashAlgorithm | None = None,
    by_name: bool = False,
    embed: tuple[Certificate, ...] | None = None,
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> bytes:
    def load(c: Certificate) -> x509.Certificate:
        return x509.load_der_x509_certificate(c.der)

    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            load(certificate),
            load(issuer),
            cert_hash or hashes.SHA384(),
            status,
            this_update,
            next_update,
            NOW - timedelta(days=3) if revoked else None,
            reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH, load(responder))
    )
    if embed is None:
        embed = (responder,)
    if embed:
        builder = builder.certificates([load(c) for c in embed])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), False)
    for value, critical in extra:
        builder = builder.add_extension(value, critical)
    made = builder.sign(signer, signature_hash or hashes.SHA384()).public_bytes(DER)
    # The builder stamps producedAt with the clock of the machine; tests need their own.
    stamp = b"\x18\x0f" + (produced or this_update).strftime("%Y%m%d%H%M%SZ").encode()
    return resign(made, signer, lambda tbs: _with_produced_at(tbs, stamp), signature_hash=signature_hash)


def _with_produced_at(tbs: bytes, stamp: bytes) -> bytes:
    parts = elements(tbs)
    return tlv(0x30, b"".join(stamp if part[0] == 0x18 else part for part in parts))


def resign(
    response: bytes,
    signer: ec.EllipticCurvePrivateKey,
    edit: Any,
    *,
    signature_hash: hashes.HashAlgorithm | None = None,
) -> bytes:
    """The answer with ``edit`` applied to its tbsResponseData and signed again."""
    status, wrapped = elements(response)
    oid, octets = elements(elements(wrapped)[0])
    tbs, algorithm, _, *rest = elements(elements(octets)[0])
    tbs = edit(tbs)
    signature = tlv(0x03, b"\0" + signer.sign(tbs, ec.ECDSA(signature_hash or hashes.SHA384())))
    basic = tlv(0x30, tbs + algorithm + signature + b"".join(rest))
    return tlv(0x30, status + tlv(0xA0, tlv(0x30, oid + tlv(0x04, basic))))


def double_answer(tbs: bytes) -> bytes:
    """An edit for ``resign``: the single response twice."""
    parts = elements(tbs)
    return tlv(0x30, b"".join(tlv(0x30, 2 * elements(part)[0]) if part[0] == 0x30 else part for part in parts))


def elements(der: bytes) -> list[bytes]:
    """The elements inside of one element."""
    reader = DerReader(der, source="test")
    top = reader.element(None, "outer")
    inside = DerReader(der, top.body, top.end, source="test")
    found = []
    while not inside.at_end:
        element = inside.element(None, "inner")
        found.append(der[element.start : element.end])
    return found


def tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content
