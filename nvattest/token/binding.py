"""The recipe that ties the devices, the token's key and the CPU's quote together. Everything here is a pure function.

A relying party chooses a *challenge* and knows the *thumbprint* of the key that signs the token: the 32 bytes of the
SHA-256 thumbprint of RFC 7638 (base64url text in the token's ``kid``).

1. The nonce for all devices, 32 bytes::

       SHA-256( "nvattest/device-nonce/v1" || u32be(len(challenge)) || challenge || thumbprint )

2. The digest of all raw device evidence in its order, 48 bytes; each device is a report and a certificate chain::

       SHA-384( "nvattest evidence digest v1" || 0x00 || u32be(number of devices)
                || for each device: SHA-256(report) || SHA-256(chain) )

3. The report data of the CPU's quote, 64 bytes, requested after the devices have answered::

       SHA-512( "nvattest/report-data/v1" || u32be(len(challenge)) || challenge || thumbprint || evidence digest )

Texts are ASCII without a terminator; ``u32be`` is an unsigned integer of 4 bytes, big-endian. What it proves once the
quote's own signature is verified: software in the measured guest made this key's thumbprint and this very evidence
part of its quote, for this challenge, and the devices answered after challenge and key were chosen. What it does not
prove: that the devices are attached to this guest. Evidence can be relayed until TEE-IO (TDISP) is there.

An argument of another type or size is an InputError (code ``binding``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from nvattest.errors import InputError
from nvattest.model import Nonce

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal

NONCE_DOMAIN: Final = b"nvattest/device-nonce/v1"
EVIDENCE_DOMAIN: Final = b"nvattest evidence digest v1\0"
REPORT_DATA_DOMAIN: Final = b"nvattest/report-data/v1"

# A shorter challenge can be guessed and repeated.
MINIMUM_CHALLENGE: Final = 8
MAXIMUM_CHALLENGE: Final = 1024


def derive_device_nonce(challenge: bytes, key_thumbprint: bytes) -> Nonce:
    """The nonce that all devices shall answer (recipe 1), from 8 to 1024 bytes and the 32 of a key's thumbprint."""
    return Nonce(
        hashlib.sha256(NONCE_DOMAIN + _prefixed(challenge) + _sized(key_thumbprint, 32, "thumbprint")).digest()
    )


def digest_of_hashes(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The digest of all device evidence, 48 bytes (recipe 2), from each device's (report SHA-256, chain SHA-256)."""
    if not pairs:
        raise InputError("there is no evidence to make a digest of", code="binding")
    parts = [_sized(report, 32, "report digest") + _sized(chain, 32, "chain digest") for report, chain in pairs]
    return hashlib.sha384(EVIDENCE_DOMAIN + len(parts).to_bytes(4, "big") + b"".join(parts)).digest()


def evidence_digest_of(evidence: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The same digest from each device's raw report and raw certificate chain."""
    return digest_of_hashes(
        [(hashlib.sha256(report).digest(), hashlib.sha256(chain).digest()) for report, chain in evidence]
    )


def appraised_digest(appraisal: Appraisal) -> bytes:
    """The same digest of the evidence of an appraisal's devices."""
    devices = appraisal.devices
    return digest_of_hashes(
        [(bytes.fromhex(device.report_sha256), bytes.fromhex(device.chain_sha256)) for device in devices]
    )


def report_data(challenge: bytes, key_thumbprint: bytes, digest: bytes) -> bytes:
    """The 64 bytes that the CPU's quote shall carry (recipe 3); ``digest`` is that of the evidence."""
    return hashlib.sha512(
        REPORT_DATA_DOMAIN
        + _prefixed(challenge)
        + _sized(key_thumbprint, 32, "thumbprint")
        + _sized(digest, 48, "evidence digest")
    ).digest()


def _prefixed(challenge: bytes) -> bytes:
    if type(challenge) is not bytes or not MINIMUM_CHALLENGE <= len(challenge) <= MAXIMUM_CHALLENGE:
        found = f"{type(challenge).__name__} of {len(challenge)}"
        raise InputError(
            f"a challenge is bytes of {MINIMUM_CHALLENGE} to {MAXIMUM_CHALLENGE}, not {found}",
            code="binding",
            hint="use 32 random bytes, new for each request",
        )
    return len(challenge).to_bytes(4, "big") + challenge


def _sized(value: bytes, size: int, name: str) -> bytes:
    if type(value) is not bytes or len(value) != size:
        found = f"{type(value).__name__} of {len(value)}"
        raise InputError(f"the {name} is {found}, expected bytes of {size}", code="binding")
    return value
