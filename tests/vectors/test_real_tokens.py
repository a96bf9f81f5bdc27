"""Tokens that NVIDIA's service really issued, through the library and the command line: see INDEX.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from nvattest import Nonce, verify_token
from nvattest.cli import main
from nvattest.errors import ResultCode, TokenError
from nvattest.model import parse_time
from nvattest.token.jose import leaf_key, parse_x5c, read_jws, validate_x5c
from nvattest.token.verified import TokenKind

from ..unit.token import minting  # noqa: TID252 - one writer of forged tokens for all folders

SERVICE = "https://nras.attestation.nvidia.com"
STAGING = "https://nras.attestation-stg.nvidia.com"
JUNE = "a8c5455663ef4951c4a6fef8de2a079934c8e93c67626e7311bf385ba6724c9e"
SAMPLE = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
CAPTURED = "2026-06-22T23:55:00Z"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A file of ``tokens/``, what a relying party expects of it, and the outcome: None for trusted, else the word."""

    file: str = "nras-2026-06.json"
    nonce: str = JUNE
    at: str = CAPTURED
    issuer: str = SERVICE
    devices: int = 1
    outcome: str | None = None
    wrapper: str | None = None
    options: tuple[str, ...] = field(default=())

    @property
    def instant(self) -> datetime:
        return parse_time(self.at)


SDK = "python-sdk-remote-get_token.json"
ROWS = {
    "the first token whose signatures can be checked": Row(),
    "the same, an hour later": Row(at="2026-06-23T00:56:00Z", outcome="expired"),
    "the same, before it was issued": Row(at="2026-06-22T23:00:00Z", outcome="not-yet-valid"),
    "the same, for another request": Row(nonce=SAMPLE, outcome="nonce-mismatch"),
    "the same, of another issuer": Row(issuer=STAGING, outcome="issuer"),
    "the same, about two devices": Row(devices=2, outcome="device-count"),
    "what get_token() of the Python SDK returns": Row(file=SDK, wrapper="REMOTE_GPU_CLAIMS"),
    "the same list, today": Row(file=SDK, at="2026-11-28T00:00:00Z", outcome="expired"),
    "a token of 2025, whose keys were not archived": Row(
        file="attsdk-hopper-claims-v3-detached-eat.json", nonce=SAMPLE, at="2025-06-11T00:31:00Z", outcome="kid-unknown"
    ),
    "the same, today": Row(file="attsdk-hopper-claims-v3-detached-eat.json", nonce=SAMPLE, outcome="expired"),
    "a token about a switch, of the staging service": Row(
        file="attsdk-switch-detached-eat.json",
        nonce=SAMPLE,
        at="2025-06-28T23:58:00Z",
        issuer=STAGING,
        outcome="kid-unknown",
    ),
    "a chain of keys is no token": Row(file="nras-gpu-x5c-chain.json", outcome="malformed"),
    "a key set is no token": Row(file="nras-2026-06.jwks.json", outcome="malformed"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_real_token_has_its_expected_outcome_in_the_library(real_data: Path, name: str) -> None:
    row = ROWS[name]

    def verify() -> object:
        return verify_token(
            (real_data / "tokens" / row.file).read_bytes(),
            issuer=row.issuer,
            nonce=Nonce.from_hex(row.nonce),
            at=row.instant,
            jwks=(real_data / "tokens" / "nras-2026-06.jwks.json").read_bytes(),
            expected_devices=row.devices,
            refuse_weakened=True,
        )

    if row.outcome is not None:
        with pytest.raises(TokenError) as caught:
            verify()
        assert caught.value.code == row.outcome
        return
    verified = verify()
    assert (verified.overall, verified.labels, verified.wrapper) == (True, ("GPU-0",), row.wrapper)
    (claims,) = verified.claims
    assert (claims["hwmodel"], claims["measres"], claims["x-nvidia-gpu-driver-version"]) == (
        "GH100",
        "success",
        "595.71.05",
    )
    assert (verified.simulated, verified.weakened, verified.refusals) == (False, (), ())
    # The key set is a file, and nothing in it shows whose it is.
    assert (verified.of_nvidia, verified.foreign) == (False, False)


@pytest.mark.parametrize("name", ROWS)
def test_a_real_token_has_its_expected_outcome_at_the_command_line(
    real_data: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ROWS[name]
    tokens = real_data / "tokens"
    command = [
        "verify-token", "--token-file", str(tokens / row.file), "--jwks", str(tokens / "nras-2026-06.jwks.json"),
        "--nonce", row.nonce, "--at", row.at, "--issuer", row.issuer, "--expected-devices", str(row.devices),
        "--refuse-weakened",
    ]  # fmt: skip
    assert main([*command, "-f", "json"]) == (0 if row.outcome is None else 1)
    said = json.loads(capsys.readouterr().out)
    assert said["error"]["code"] == row.outcome if row.outcome is not None else said["token"]["overall"] is True
    main(command)
    out = capsys.readouterr().out
    assert ("Result: TRUSTED, code 0 (Ok)" in out) is (row.outcome is None)
    assert ("is the caller's word" in out) is (row.outcome is None)
    assert "NVIDIA's own service" not in out
    assert ("Result: NOT BELIEVED" in out) is (row.outcome is not None)
    assert ("whose own signature proves nothing" in out) is (row.wrapper is not None)


def test_every_flipped_character_of_the_checkable_token_is_noticed(real_data: Path) -> None:
    """A sample over both JWTs: header, payload and signature of each."""
    tokens = real_data / "tokens"
    text = (tokens / "nras-2026-06.json").read_text()
    jwks = (tokens / "nras-2026-06.jwks.json").read_bytes()
    places = [place for place, sign in enumerate(text) if sign.isalnum()][::7]
    assert len(places) > 300
    for place in places:
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(TokenError):
            verify_token(changed, issuer=SERVICE, nonce=Nonce.from_hex(JUNE), at=parse_time(CAPTURED), jwks=jwks)


def test_the_chain_of_the_real_key_leads_to_nvidias_intermediate(real_data: Path) -> None:
    """Anchored in the intermediate of an earlier capture, not in the key set that came beside the token."""
    import base64
    import textwrap

    tokens = real_data / "tokens"
    chain = json.loads((tokens / "nras-gpu-x5c-chain.json").read_bytes())["x5c"]
    text = "\n".join(textwrap.wrap(chain[1], 64))
    anchor = f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n".encode()
    assert base64.b64decode(chain[1])
    verified = verify_token(
        (tokens / "nras-2026-06.json").read_bytes(),
        issuer=SERVICE,
        nonce=Nonce.from_hex(JUNE),
        at=parse_time(CAPTURED),
        jwks=(tokens / "nras-2026-06.jwks.json").read_bytes(),
        x5c_roots=anchor,
        expected_devices=1,
    )
    assert verified.overall is True


TODAY = datetime(2026, 11, 24, tzinfo=timezone.utc)
# Tokens whose keys were not archived.
OLD = [
    (
        "attsdk-hopper-claims-v3-detached-eat.json",
        SERVICE,
        "2025-06-11T00:31:00",
        "GPU-0",
    ),
    ("attsdk-switch-detached-eat.json", STAGING, "2025-06-28T23:58:00", "SWITCH-0"),
]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(("name", "issuer", "when", "label"), OLD)
def test_a_real_token_is_refused_for_its_age_and_then_for_its_key(
    real_data: Path, name: str, issuer: str, when: str, label: str
) -> None:
    token = (real_data / "tokens" / name).read_bytes()
    # A JWKS that has other keys only: NVIDIA's of that day was not archived.
    jwks = minting.OTHER.public.jwks()
    with pytest.raises(TokenError, match="expired 2025-06") as caught:
        verify_token(token, kind=TokenKind.NRAS, jwks=jwks, issuer=issuer, nonce=Nonce.from_hex(SAMPLE), at=TODAY)
    assert caught.value.code == "expired"
    # Everything but the key is right: shape, digests, times, issuer, nonce.
    with pytest.raises(TokenError, match="nv-eat-kid-") as caught:
        verify_token(
            token,
            kind=TokenKind.NRAS,
            jwks=jwks,
            issuer=issuer,
            nonce=Nonce.from_hex(SAMPLE),
            at=at(when),
            expected_devices=1,
        )
    assert (caught.value.code, caught.value.result_code) == ("kid-unknown", ResultCode.CERT_NOT_FOUND)
    with pytest.raises(TokenError) as caught:
        verify_token(token, issuer=issuer, nonce=Nonce.from_hex(SAMPLE), at=at(when))
    assert caught.value.code == "key-missing"
    with pytest.raises(TokenError) as caught:
        verify_token(token, issuer=issuer, nonce=Nonce.from_hex(SAMPLE), at=at(when), key=minting.OTHER.public)
    assert caught.value.code == "signature"
    assert label in json.loads(token)[1]


@pytest.mark.parametrize(("name", "issuer", "when", "label"), OLD)
def test_a_real_token_is_refused_for_everything_else_that_is_wrong(
    real_data: Path, name: str, issuer: str, when: str, label: str
) -> None:
    token = json.loads((real_data / "tokens" / name).read_bytes())
    arguments = {"jwks": minting.OTHER.public.jwks(), "issuer": issuer, "nonce": Nonce.from_hex(SAMPLE), "at": at(when)}
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


@pytest.mark.parametrize(("name", "issuer", "when", "label"), OLD)
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
        nonce=Nonce.from_hex(SAMPLE),
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
