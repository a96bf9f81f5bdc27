"""Our claims satisfy what Trustee's default GPU and switch policies read (policies written by us from their tables)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nvattest.model import DeviceKind

from .trustee import allowed_of, claims_by_kind, policy

regopy = pytest.importorskip("regopy", reason="the extra rego is not installed")


def vector(claims: dict[str, Any], allowed: dict[str, list[str]]) -> dict[str, int]:
    engine = regopy.Interpreter()
    engine.log_level = regopy.LogLevel.NONE
    prefix = "x-nvidia-gpu" if claims["x-nvidia-device-type"] == "gpu" else "x-nvidia-switch"
    engine.add_module("policy", policy(prefix, allowed))
    engine.set_input({"nvidia": claims})
    result: dict[str, int] = json.loads(str(engine.query("data.policy.trust_claims")))["expressions"][0]
    return result


GOOD = {"hardware": 2, "configuration": 2, "executables": 3}


@pytest.mark.parametrize("version", ["3.0", "4.0"])
@pytest.mark.parametrize("platform", ["hopper-8-ppcie", "blackwell-1"])
def test_good_devices_are_affirmed_offline(platform: str, version: str) -> None:
    found = claims_by_kind(platform, version=version)
    if platform == "hopper-8-ppcie":
        found = [found[0], found[-1]]
        assert [item["x-nvidia-device-type"] for item in found] == ["gpu", DeviceKind.NVSWITCH.value]
    for claims in found:
        assert vector(claims, allowed_of(claims)) == GOOD


def test_versions_that_are_not_allowed_lower_the_configuration() -> None:
    (claims,) = claims_by_kind("hopper-1", version="3.0")
    assert vector(claims, {"vbios-version": [], "driver-version": []})["configuration"] == 3


@pytest.mark.parametrize(
    ("lie", "part", "value"),
    [
        ("gpu0:revoked=2", "hardware", 97),
        ("gpu0:signature", "hardware", 97),
        ("gpu0:fwid", "hardware", 97),
        ("gpu0:measurement=9", "executables", 33),
        ("gpu0:measurement=9", "configuration", 36),
        ("vbios-rim:revoked=0", "executables", 33),
        ("driver-rim:missing", "executables", 33),
        ("vbios-rim:signature", "executables", 33),
        ("driver-rim:wrong-version", "executables", 33),
    ],
)
def test_bad_devices_are_not_affirmed(lie: str, part: str, value: int) -> None:
    (claims,) = claims_by_kind("hopper-1", lie, version="3.0")
    assert vector(claims, allowed_of(claims))[part] == value
