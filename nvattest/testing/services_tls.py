"""Certificates for the loopback services: a CA that nobody trusts unless told to, and a server certificate below it."""

from __future__ import annotations

import ssl
import tempfile
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["LoopbackTls"]


class LoopbackTls:
    """A fresh CA, and a TLS context for a server on 127.0.0.1. Made now, because TLS is judged by the real clock."""

    def __init__(self) -> None:
        now = datetime.now(timezone.utc)
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca = _certificate("nvattest simulation CA", ca_key, "nvattest simulation CA", ca_key, now)
        server = _certificate("localhost", key, "nvattest simulation CA", ca_key, now)
        self.ca_pem = ca.public_bytes(serialization.Encoding.PEM)
        """The CA in PEM form, for ``--tls-ca-cert``."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # OpenSSL reads a chain with its key from a file only.
        with tempfile.NamedTemporaryFile(prefix="nvattest-", suffix=".pem") as file:
            file.write(server.public_bytes(serialization.Encoding.PEM))
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
            file.flush()
            self.context.load_cert_chain(file.name)


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.Certificate:
    is_ca = subject == issuer
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=is_ca,
                crl_sign=is_ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not is_ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "nvattest simulation"),
        ]
    )
