"""The binding recipe: vectors computed by hand here, and what must differ if any input differs."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import pytest

from nvattest.errors import InputError
from nvattest.token.binding import derive_device_nonce, digest_of_hashes, evidence_digest_of, report_data

CHALLENGE = bytes(range(32))
KEY = bytes(range(100, 132))
DEVICES = [(b"report 0", b"chain 0"), (b"report 1", b"chain 1")]
DIGEST = evidence_digest_of(DEVICES)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_vectors_of_the_recipe() -> None:
    """Fixed for ever: a change of any of these is a new version of the recipe."""
    assert derive_device_nonce(CHALLENGE, KEY).hex() == NONCE_VECTOR
    assert DIGEST.hex() == DIGEST_VECTOR
    assert report_data(CHALLENGE, KEY, DIGEST).hex() == REPORT_DATA_VECTOR


def test_the_recipe_is_what_the_docstring_says() -> None:
    prefixed = b"\x00\x00\x00\x20" + CHALLENGE
    assert derive_device_nonce(CHALLENGE, KEY).value == sha256(b"nvattest/device-nonce/v1" + prefixed + KEY)
    devices = b"".join(sha256(report) + sha256(chain) for report, chain in DEVICES)
    digest = hashlib.sha384(b"nvattest evidence digest v1\x00" + b"\x00\x00\x00\x02" + devices).digest()
    assert digest == DIGEST
    expected = hashlib.sha512(b"nvattest/report-data/v1" + prefixed + KEY + digest).digest()
    assert report_data(CHALLENGE, KEY, digest) == expected
    assert len(expected) == 64


def test_every_input_changes_the_result() -> None:
    other_key, longer = KEY[::-1], CHALLENGE + b"\0"
    nonces = [derive_device_nonce(c, k).value for c, k in itertools.product((CHALLENGE, longer), (KEY, other_key))]
    assert len(set(nonces)) == 4
    digests = [
        evidence_digest_of(devices)
        for devices in (DEVICES, DEVICES[::-1], DEVICES[:1], DEVICES * 2, [(b"chain 0", b"report 0"), DEVICES[1]])
    ]
    assert len(set(digests)) == 5
    data = [
        report_data(c, k, d)
        for c, k, d in itertools.product((CHALLENGE, longer), (KEY, other_key), (DIGEST, digests[1]))
    ]
    assert len(set(data)) == 8


@pytest.mark.parametrize("challenge", [b"", bytes(7), bytes(1025), "text of 16 chars", bytearray(32), None])
def test_a_challenge_of_another_size_is_refused(challenge: Any) -> None:
    for ask in (lambda: derive_device_nonce(challenge, KEY), lambda: report_data(challenge, KEY, DIGEST)):
        with pytest.raises((InputError, TypeError)):
            ask()


@pytest.mark.parametrize("size", [0, 31, 33, 48])
def test_a_thumbprint_and_digests_have_their_sizes(size: int) -> None:
    with pytest.raises(InputError):
        derive_device_nonce(CHALLENGE, bytes(size))
    with pytest.raises(InputError):
        report_data(CHALLENGE, bytes(size), DIGEST)
    with pytest.raises(InputError):
        digest_of_hashes([(bytes(size), bytes(32))])
    with pytest.raises(InputError):
        digest_of_hashes([(bytes(32), bytes(size))])
    with pytest.raises(InputError):
        report_data(CHALLENGE, KEY, bytes(size + 1))


def test_no_evidence_has_no_digest() -> None:
    with pytest.raises(InputError):
        digest_of_hashes([])


NONCE_VECTOR = "ba3a17a0118199c8902edfd08ef8d4c4bb39bcc3274159ab8e8b969b33121936"
DIGEST_VECTOR = "9704e321187f4f598baff77c614d892026fcf075b980fec18846941bdb1b7d6e8739ff3b14ef2bd89a7f4e96c0d9648a"
REPORT_DATA_VECTOR = (
    "498cc5e28e8ecc13bdee1cf6fc1c17f471b21246de3668538c7816f288073ba1"
    "814f93ab2458ec5df83b4d7784bc84abfbf4a6c5a70afebf6e93c3a5286046f2"
)
