"""P-384 keys from a seed and a label, with deterministic signatures (RFC 6979): a platform is the same byte for byte.

These keys protect nothing: they follow from the seed, and the default seed is 0.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nvattest.pki.ecdsa import P384_ORDER

__all__ = ["KeyRing", "SigningKey", "derive_bytes"]


def derive_bytes(seed: int, label: str, size: int) -> bytes:
    """``size`` bytes that depend on the seed and the label alone (SHAKE-256)."""
    return hashlib.shake_256(f"nvattest simulation\0{seed}\0{label}".encode()).digest(size)


def _ecdsa(algorithm: hashes.HashAlgorithm) -> ec.ECDSA:
    try:
        return ec.ECDSA(algorithm, deterministic_signing=True)
    except UnsupportedAlgorithm:  # OpenSSL before 3.2: still a valid signature, no longer a reproducible one
        return ec.ECDSA(algorithm)


class SigningKey:
    """A P-384 key pair of the simulation."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self.private = private
        self.public = private.public_key()
        self.point: bytes = self.public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @cached_property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo (120 bytes)."""
        return self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @cached_property
    def key_id(self) -> bytes:
        """SHA-1 of the public point (20 bytes), as in subject and authority key identifiers (RFC 5280, 4.2.1.2)."""
        return hashlib.sha1(self.point, usedforsecurity=False).digest()

    def sign_der(self, message: bytes, *, sha256: bool = False) -> bytes:
        """ECDSA with SHA-384 over ``message``, as DER. ``sha256`` is for the lie of a weaker hash."""
        return self.private.sign(message, _ecdsa(hashes.SHA256() if sha256 else hashes.SHA384()))

    def sign_raw(self, message: bytes) -> bytes:
        """ECDSA with SHA-384 over ``message``: 96 bytes, r then s, big-endian (SPDM, XMLDSig)."""
        r, s = decode_dss_signature(self.sign_der(message))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")


class KeyRing:
    """The keys of one platform, by label. The same seed and label always give the same key."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._keys: dict[str, SigningKey] = {}

    def key(self, label: str) -> SigningKey:
        """The key with this label, made at its first use."""
        key = self._keys.get(label)
        if key is None:
            scalar = int.from_bytes(derive_bytes(self.seed, f"key/{label}", 64), "big") % (P384_ORDER - 1) + 1
            key = self._keys.setdefault(label, SigningKey(ec.derive_private_key(scalar, ec.SECP384R1())))
        return key

    def bytes(self, label: str, size: int) -> bytes:
        """Bytes that belong to this ring's seed."""
        return derive_bytes(self.seed, label, size)

    def serial(self, label: str, size: int) -> int:
        """A certificate serial number of exactly ``size`` bytes, positive."""
        value = bytearray(self.bytes(f"serial/{label}", size))
        value[0] = value[0] & 0x3F | 0x40
        return int.from_bytes(value, "big")
