"""Tokens that NVIDIA's service really issued, through the library and the command line: see INDEX.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from nvattest import Nonce, verify_token
from nvattest.cli import main
from nvattest.errors import TokenError
from nvattest.model import parse_time

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
