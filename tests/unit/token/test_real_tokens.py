"""The tokens that NVIDIA's service really issued: they read, their digests hold, and each refusal has its own reason."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from nvattest.errors import ResultCode, TokenError
from nvattest.model import Nonce
from nvattest.token.jws import read_jws
from nvattest.token.keyring import leaf_key, parse_x5c, validate_x5c
from nvattest.token.verified import TokenKind
from nvattest.token.verify import verify_token

from . import minting

NONCE = Nonce.from_hex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")
TODAY = datetime(2026, 11, 24, tzinfo=timezone.utc)
TOKENS = [
    (
        "attsdk-hopper-claims-v3-detached-eat.json",
        "https://nras.attestation.nvidia.com",
        "2025-06-11T00:31:00",
        "GPU-0",
    ),
    ("attsdk-switch-detached-eat.json", "https://nras.attestation-stg.nvidia.com", "2025-06-28T23:58:00", "SWITCH-0"),
]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(("name", "issuer", "when", "label"), TOKENS)
def test_a_real_token_is_refused_for_its_age_and_then_for_its_key(
    real_data: Path, name: str, issuer: str, when: str, label: str
) -> None:
    token = (real_data / "tokens" / name).read_bytes()
    # A JWKS that has other keys only: NVIDIA's of that day was not archived.
    jwks = minting.OTHER.public.jwks()
    with pytest.raises(TokenError, match="expired 2025-06") as caught:
        verify_token(token, kind=TokenKind.NRAS, jwks=jwks, issuer=issuer, nonce=NONCE, at=TODAY)
    assert caught.value.code == "expired"
    # Everything but the key is right: shape, digests, times, issuer, nonce.
    with pytest.raises(TokenError, match="nv-eat-kid-") as caught:
        verify_token(token, kind=TokenKind.NRAS, jwks=jwks, issuer=issuer, nonce=NONCE, at=at(when), expected_devices=1)
    assert (caught.value.code, caught.value.result_code) == ("kid-unknown", ResultCode.CERT_NOT_FOUND)
    with pytest.raises(TokenError) as caught:
        verify_token(token, issuer=issuer, nonce=NONCE, at=at(when))
    assert caught.value.code == "key-missing"
    with pytest.raises(TokenError) as caught:
        verify_token(token, issuer=issuer, nonce=NONCE, at=at(when), key=minting.OTHER.public)
    assert caught.value.code == "signature"
    assert label in json.loads(token)[1]


@pytest.mark.parametrize(("name", "issuer", "when", "label"), TOKENS)
def test_a_real_token_is_refused_for_everything_else_that_is_wrong(
    real_data: Path, name: str, issuer: str, when: str, label: str
) -> None:
    token = json.loads((real_data / "tokens" / name).read_bytes())
    arguments = {"jwks": minting.OTHER.public.jwks(), "issuer": issuer, "nonce": NONCE, "at": at(when)}
    # One character of the signature of the submodule: the digest is over all of the compact token.
    part = token[1][label]
    changed = part[:-10] + ("A" if part[-10] != "A" else "B") + part[-9:]
    for value, change, code in (
        ([token[0], {label: changed}], {}, "digest"),
        (token, {"issuer": issuer + "/"}, "issuer"),
        (token, {"nonce": Nonce(bytes(32))}, "nonce-mismatch"),
        (token, {"expected_devices": 2}, "device-count"),
        (token, {"at": at("2025-01-01T00:00:00")}, "not-yet-valid"),
    ):
        with pytest.raises(TokenError) as caught:
            verify_token(value, kind=TokenKind.NRAS, **{**arguments, **change})
        assert caught.value.code == code


@pytest.mark.parametrize(("name", "issuer", "when", "label"), TOKENS)
def test_what_nvidia_signs_would_pass_if_the_key_were_there(
    real_data: Path, name: str, issuer: str, when: str, label: str
) -> None:
    """The same payloads under a key that we have: nothing in NVIDIA's claims trips the consistency rules."""
    overall, parts = json.loads((real_data / "tokens" / name).read_bytes())
    device = minting.jws(read_jws(parts[label], what=label).payload, typ=None)
    payload = read_jws(overall[1], what="overall").payload | {"submods": {label: minting.digest(device)}}
    verified = verify_token(
        [["JWT", minting.jws(payload, typ=None)], {label: device}],
        jwks=minting.KEY.public.jwks(),
        issuer=issuer,
        nonce=NONCE,
        at=at(when),
        expected_devices=1,
        kind=TokenKind.NRAS,
    )
    assert verified.overall is True
    assert verified.labels == (label,)
    assert (verified.simulated, verified.anchors, verified.evidence_digest) == (False, None, None)
    assert verified.expires - verified.issued == timedelta(hours=1)


def test_the_real_chain_of_a_token_key_leads_to_its_intermediate(real_data: Path) -> None:
    entry = json.loads((real_data / "tokens" / "nras-gpu-x5c-chain.json").read_bytes())
    chain = parse_x5c(entry["x5c"], what="NRAS")
    leaf_key(chain, what="NRAS")
    good = at("2026-06-09T12:00:00")
    validate_x5c(chain, (chain[1],), at=good, what="NRAS")
    validate_x5c(chain[:1], (chain[1],), at=good, what="NRAS")
    for changed, anchors, when in (
        (chain, (chain[1],), TODAY),  # the leaf lived two days
        (chain, (chain[0],) * 0, good),
        (chain[::-1], (chain[0],), good),
    ):
        with pytest.raises(TokenError) as caught:
            validate_x5c(changed, anchors, at=when, what="NRAS")
        assert caught.value.code == "x5c-chain"
