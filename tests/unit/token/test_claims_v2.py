"""Claims 2.0 against NVIDIA's own, name by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nvattest.errors import InputError
from nvattest.model import DeviceKind, Nonce
from nvattest.session import verify
from nvattest.testing import Platform
from nvattest.token.claims import claims_of

REGISTERED = {"iss", "nbf", "exp", "iat", "jti"}


def claims(name: str, kind: DeviceKind, *lies: str, version: str = "2.0") -> dict[str, Any]:
    platform = Platform.build(name, lies=lies)
    nonce = bytes(range(32))
    appraisal = verify(
        platform.evidence(nonce, kind), collateral=platform.collateral(),
        nonce=Nonce(nonce), at=platform.time, anchors=platform.trust_anchors(),
    )  # fmt: skip
    return claims_of(appraisal, version=version)[0]


@pytest.mark.parametrize(
    ("file", "platform", "kind"),
    [
        ("gpu-detached_claims_local.json", "hopper-1", DeviceKind.GPU),
        ("switch-detached_claims_local.json", "hopper-8-ppcie", DeviceKind.NVSWITCH),
    ],
)
def test_names_and_types_are_those_of_nvidias_verifier(
    real_data: Path, file: str, platform: str, kind: DeviceKind
) -> None:
    theirs = json.loads((real_data / "claims" / "nvtrust" / file).read_text())
    ours = claims(platform, kind)
    assert set(ours) == set(theirs) - REGISTERED
    assert {name: type(value) for name, value in ours.items()} == {
        name: type(value) for name, value in theirs.items() if name not in REGISTERED
    }
    assert {name: value for name, value in ours.items() if value is True or value == "success"} == {
        name: value for name, value in theirs.items() if value is True or value == "success"
    }


def test_what_was_not_reached_is_false_and_never_null() -> None:
    said = claims("hopper-1", DeviceKind.GPU, "gpu0:truncate=100")
    assert None not in said.values()
    assert said["measres"] == "fail"
    assert said["x-nvidia-gpu-driver-rim-fetched"] is False
    assert (said["oemid"], said["x-nvidia-gpu-driver-version"]) == ("", "")
    assert "secboot" not in said
    assert "dbgstat" not in said


@pytest.mark.parametrize(
    ("lie", "name"),
    [
        ("gpu0:revoked=2", "x-nvidia-gpu-attestation-report-cert-chain-validated"),
        ("driver-rim:expired=0", "x-nvidia-gpu-driver-rim-cert-validated"),
        ("vbios-rim:revoked=0", "x-nvidia-gpu-vbios-rim-cert-validated"),
        ("driver-rim:signature", "x-nvidia-gpu-driver-rim-signature-verified"),
        ("gpu0:other-nonce", "x-nvidia-gpu-attestation-report-nonce-match"),
    ],
)
def test_one_boolean_tells_of_path_validity_and_revocation(lie: str, name: str) -> None:
    assert claims("hopper-1", DeviceKind.GPU)[name] is True
    assert claims("hopper-1", DeviceKind.GPU, lie)[name] is False


def test_another_version_does_not_exist() -> None:
    with pytest.raises(InputError, match="claims of version"):
        claims("hopper-1", DeviceKind.GPU, version="1.0")
