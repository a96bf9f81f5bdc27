"""Keys from a seed and a label, with deterministic signatures (RFC 6979): a platform is the same byte for byte.

These keys protect nothing: they follow from the seed, and the default seed is 0.
"""

from __future__ import annotations

import functools
import hashlib
from functools import cached_property

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nvattest.pki.ecdsa import P384_ORDER

__all__ = ["KeyRing", "SigningKey", "derive_bytes", "rsa_key", "sign_pss"]

_P256 = 32
# The order of the group of P-256 (FIPS 186-5, SP 800-186).
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def derive_bytes(seed: int, label: str, size: int) -> bytes:
    """``size`` bytes that depend on the seed and the label alone (SHAKE-256)."""
    return hashlib.shake_256(f"nvattest simulation\0{seed}\0{label}".encode()).digest(size)


def _ecdsa(algorithm: hashes.HashAlgorithm) -> ec.ECDSA:
    try:
        return ec.ECDSA(algorithm, deterministic_signing=True)
    except UnsupportedAlgorithm:  # OpenSSL before 3.2: still a valid signature, no longer a reproducible one
        return ec.ECDSA(algorithm)


class SigningKey:
    """A key pair of the simulation: P-384 with SHA-384, or P-256 with SHA-256 where ``size`` is 32."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self.private = private
        self.public = private.public_key()
        self.size = private.key_size // 8
        self.point: bytes = self.public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @cached_property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo (120 bytes)."""
        return self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @cached_property
    def key_id(self) -> bytes:
        """SHA-1 of the public point (20 bytes), as in subject and authority key identifiers (RFC 5280, 4.2.1.2)."""
        return hashlib.sha1(self.point, usedforsecurity=False).digest()

    def algorithm(self, *, sha256: bool = False) -> hashes.HashAlgorithm:
        """The hash that goes with the curve. ``sha256`` is for the lie of a weaker one."""
        return hashes.SHA256() if sha256 or self.size == _P256 else hashes.SHA384()

    def sign_der(self, message: bytes, *, sha256: bool = False) -> bytes:
        """ECDSA over ``message``, as DER; ``sha256`` as for ``algorithm``."""
        return self.private.sign(message, _ecdsa(self.algorithm(sha256=sha256)))

    def sign_raw(self, message: bytes) -> bytes:
        """ECDSA over ``message``: r then s, big-endian, ``size`` bytes each (SPDM, XMLDSig, quotes)."""
        r, s = decode_dss_signature(self.sign_der(message))
        return r.to_bytes(self.size, "big") + s.to_bytes(self.size, "big")


class KeyRing:
    """The keys of one platform, by label. The same seed and label always give the same key."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._keys: dict[str, SigningKey] = {}

    def key(self, label: str, *, p256: bool = False) -> SigningKey:
        """The key with this label, made at its first use; its curve is P-384 unless ``p256``."""
        key = self._keys.get(label)
        if key is None:
            curve, order = (ec.SECP256R1(), _P256_ORDER) if p256 else (ec.SECP384R1(), P384_ORDER)
            scalar = int.from_bytes(derive_bytes(self.seed, f"key/{label}", 64), "big") % (order - 1) + 1
            key = self._keys.setdefault(label, SigningKey(ec.derive_private_key(scalar, curve)))
        return key

    def bytes(self, label: str, size: int) -> bytes:
        """Bytes that belong to this ring's seed."""
        return derive_bytes(self.seed, label, size)

    def serial(self, label: str, size: int) -> int:
        """A certificate serial number of exactly ``size`` bytes, positive."""
        value = bytearray(self.bytes(f"serial/{label}", size))
        value[0] = value[0] & 0x3F | 0x40
        return int.from_bytes(value, "big")


# RSA keys of 4096 bits belong to a name and to no seed: drawing one takes seconds. Each prime is the first after the
# digest of its name that is this far away.
_RSA = {
    "ARK-Milan": (1080, 1974),
    "SEV-Milan": (548, 474),
    "SEV-VLEK-Milan": (188, 48),
    "ARK-Genoa": (788, 48),
    "SEV-Genoa": (246, 1112),
    "SEV-VLEK-Genoa": (488, 1048),
    "ARK-Turin": (1258, 376),
    "SEV-Turin": (4146, 3682),
    "SEV-VLEK-Turin": (74, 400),
}
_EXPONENT = 65537


@functools.cache
def rsa_key(label: str) -> rsa.RSAPrivateKey:
    """The RSA key of one of AMD's simulated authorities."""

    def prime(which: str, distance: int) -> int:
        text = f"nvattest simulation\0rsa\0{label} {which}"
        return (int.from_bytes(hashlib.shake_256(text.encode()).digest(256), "big") | 3 << 2046 | 1) + distance

    p, q = (prime(which, distance) for which, distance in zip("pq", _RSA[label], strict=True))
    d = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p, q=q, d=d, dmp1=d % (p - 1), dmq1=d % (q - 1), iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(e=_EXPONENT, n=p * q),
    )  # fmt: skip
    # Checking the primes again takes half a second.
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@functools.lru_cache(maxsize=256)
def sign_pss(label: str, message: bytes) -> bytes:
    """RSASSA-PSS with SHA-384 (RFC 8017, 8.1.1 and 9.1.1) by ``rsa_key(label)``.

    The salt follows from the message, as the nonces of ECDSA do here: the library draws one, and a root would be
    another certificate in each process.
    """
    digest = hashlib.sha384(message).digest()
    salt = hashlib.sha384(b"salt" + digest).digest()
    last = hashlib.sha384(bytes(8) + digest + salt).digest()
    size = 512 - len(last) - 1
    mask = b"".join(hashlib.sha384(last + number.to_bytes(4, "big")).digest() for number in range(size // 48 + 1))
    block = bytearray(x ^ y for x, y in zip((b"\x01" + salt).rjust(size, b"\0"), mask, strict=False))
    block[0] &= 0x7F
    numbers = rsa_key(label).private_numbers()
    value = int.from_bytes(bytes(block) + last + b"\xbc", "big")
    modulo_p, modulo_q = pow(value, numbers.dmp1, numbers.p), pow(value, numbers.dmq1, numbers.q)
    signed = modulo_q + (modulo_p - modulo_q) * numbers.iqmp % numbers.p * numbers.q
    return signed.to_bytes(512, "big")
