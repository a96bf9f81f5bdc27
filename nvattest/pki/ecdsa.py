"""ECDSA on P-384 with SHA-384, the only signature of the devices, their certificates, the RIMs and the OCSP answers."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature

from nvattest.errors import InputError

# SubjectPublicKeyInfo of an uncompressed point on P-384 (RFC 5480, 2): everything before X and Y.
P384_SPKI_PREFIX: Final = bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004")
P384_SPKI_SIZE: Final = len(P384_SPKI_PREFIX) + 96
RAW_SIGNATURE_SIZE: Final = 96
# The order of the group (FIPS 186-5 by way of SP 800-186, 3.2.1.4).
P384_ORDER: Final = int(
    "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
)
# The longest DER of two 384-bit integers: 2 + 2 * (2 + 49).
_MAX_DER_SIZE = 104

# Loaded keys that are kept: those of issuers and responders come again with every device.
_KEYS = 128

_Check = Callable[[bytes, bytes, bytes], bool]


def is_p384(spki_der: bytes) -> bool:
    """Whether this SubjectPublicKeyInfo says P-384 with an uncompressed point; the point itself is not checked."""
    return len(spki_der) == P384_SPKI_SIZE and spki_der.startswith(P384_SPKI_PREFIX)


class EcdsaVerifier:
    """Verify ECDSA P-384/SHA-384 signatures and remember the good ones.

    One verifier serves a whole run: the upper certificates of many devices are the same, so that each of their
    signatures is computed once. It keeps positive results only, under a digest of key, signature and message. It keeps
    at most ``remember`` of them and drops the least recently used first; ``remember=0`` keeps none. Threads may share
    one verifier; at worst two of them compute the same signature, and ``verifications`` misses one.

    Args:
        backend: ``"cryptography"`` (OpenSSL) or ``"aws-lc"`` (AWS-LC through awscrt, about three times faster).
        remember: how many good results to keep.

    Raises:
        InputError: an unknown backend (code ``backend``) or one that is not installed (code ``backend-missing``).
    """

    __slots__ = ("_check", "_good", "_remember", "_verifications", "backend")

    def __init__(self, *, backend: str = "cryptography", remember: int = 256) -> None:
        if backend == "cryptography":
            self._check: _Check = _openssl()
        elif backend == "aws-lc":
            self._check = _aws_lc()
        else:
            raise InputError(
                f"no such signature backend: {backend!r}", code="backend", hint="use cryptography or aws-lc"
            )
        self.backend = backend
        self._remember = max(remember, 0)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._verifications = 0

    @property
    def verifications(self) -> int:
        """How many signatures were computed rather than remembered."""
        return self._verifications

    def verify_raw(self, spki_der: bytes, r_s: bytes, message: bytes) -> bool:
        """Whether the 96 bytes r‖s (big-endian, 48 each) sign ``message``. False for anything else; never raises."""
        if len(r_s) != RAW_SIGNATURE_SIZE:
            return False
        r, s = int.from_bytes(r_s[:48], "big"), int.from_bytes(r_s[48:], "big")
        if not (0 < r < P384_ORDER and 0 < s < P384_ORDER):
            return False
        return self._verify(spki_der, encode_dss_signature(r, s), message)

    def verify_der(self, spki_der: bytes, der_sig: bytes, message: bytes, *, sha256: bytes | None = None) -> bool:
        """Whether ``der_sig`` (Ecdsa-Sig-Value, RFC 3279, 2.2.3) signs ``message``. False otherwise; never raises.

        ``sha256`` is the SHA-256 of something that holds signature and message both, such as a certificate, where the
        caller has it already: the result is then remembered under it, and known again without more hashing.
        """
        name = None if sha256 is None or len(sha256) != 32 else spki_der + sha256
        if name is not None and self._is_good(name):
            return True
        if len(der_sig) > _MAX_DER_SIZE:
            return False
        try:
            r, s = decode_dss_signature(der_sig)
        except ValueError:
            return False
        if not (0 < r < P384_ORDER and 0 < s < P384_ORDER) or encode_dss_signature(r, s) != der_sig:
            return False
        return self._verify(spki_der, der_sig, message, name)

    def _verify(self, spki_der: bytes, signature: bytes, message: bytes, name: bytes | None = None) -> bool:
        if not is_p384(spki_der):
            return False
        digest = hashlib.sha384(message).digest()
        if name is None:
            # The key has one length and the signature states its own, so that bytes cannot move between the parts.
            name = hashlib.sha256(spki_der + signature + digest).digest()
            if self._is_good(name):
                return True
        self._verifications += 1
        if not self._check(spki_der, signature, digest):
            return False
        # Each step is one call of the dictionary, which no other thread can interrupt. Iterating would fail where
        # another thread keeps a result meanwhile, and others may have emptied it.
        self._good[name] = None
        while len(self._good) > self._remember:
            with suppress(KeyError):
                self._good.popitem(last=False)
        return True

    def _is_good(self, name: bytes) -> bool:
        try:
            self._good.move_to_end(name)
        except KeyError:
            return False
        return True


_ECDSA_SHA384 = ec.ECDSA(Prehashed(hashes.SHA384()))


def _openssl() -> _Check:
    load = lru_cache(_KEYS)(serialization.load_der_public_key)

    def check(spki_der: bytes, signature: bytes, digest: bytes) -> bool:
        try:
            key = load(spki_der)
            if not isinstance(key, ec.EllipticCurvePublicKey):
                return False
            key.verify(signature, digest, _ECDSA_SHA384)
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return False
        return True

    return check


def _aws_lc() -> _Check:
    try:
        from awscrt.crypto import EC
    except (ImportError, OSError) as error:
        needed = f"the signature backend aws-lc needs the package awscrt: {error}"
        hint = "pip install awscrt (the extra fast), or use the backend cryptography"
        raise InputError(needed, code="backend-missing", hint=hint) from error
    load = lru_cache(_KEYS)(EC.new_key_from_der_data)

    def check(spki_der: bytes, signature: bytes, digest: bytes) -> bool:
        try:
            return load(spki_der).verify(digest, signature) is True
        except (RuntimeError, ValueError):
            return False

    return check
