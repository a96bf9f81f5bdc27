"""Our claims satisfy what Trustee's default GPU and switch policies read (policies written by us from their tables)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nvattest.claims import claims_of
from nvattest.collateral.bundle import load_bundle
from nvattest.evidence import load_evidence
from nvattest.model import DeviceKind, Nonce
from nvattest.session import verify
from nvattest.testing import Platform

regopy = pytest.importorskip("regopy", reason="the extra rego is not installed")

PACKAGE = """
package policy

import rego.v1

default hardware := 97
hardware := 2 if {
@HARDWARE@
}

locked if {
    input.nvidia.secboot == true
    input.nvidia.dbgstat == "disabled"
}

versions_allowed if {
@VERSIONS@
}

default configuration := 36
configuration := 2 if {
    locked
    versions_allowed
}
configuration := 3 if {
    locked
    not versions_allowed
}

default executables := 33
executables := 3 if {
@EXECUTABLES@
}

trust_claims := {"hardware": hardware, "configuration": configuration, "executables": executables}
"""


def equals(name: str, value: str) -> str:
    return f'    input.nvidia["{name}"] == {value}'


def chain_good(name: str) -> list[str]:
    chain = f'    input.nvidia["{name}"]'
    return [f'{chain}["x-nvidia-cert-ocsp-status"] == "good"', f'{chain}["x-nvidia-cert-status"] == "valid"']


def policy(prefix: str, allowed: dict[str, list[str]]) -> str:
    """The policy for one kind of device, written out from the table."""
    gpu = prefix == "x-nvidia-gpu"
    report = f"{prefix}-attestation-report"
    hardware = chain_good(f"{report}-cert-chain") + [
        equals(name, "true")
        for name in (f"{report}-cert-chain-fwid-match", f"{report}-parsed", f"{report}-signature-verified",
                     f"{prefix}-arch-check")
    ]  # fmt: skip
    executables = chain_good(f"{prefix}-{'vbios' if gpu else 'bios'}-rim-cert-chain")
    executables += [
        equals(f"{prefix}-{rim}-rim-{word}", "true")
        for rim in (("driver", "vbios") if gpu else ("bios",))
        for word in ("fetched", "measurements-available", "schema-validated", "signature-verified", "version-match")
    ]
    executables.append(equals("measres", '"success"'))
    versions = [
        f'    input.nvidia["{prefix}-{name}"] in {json.dumps(allowed[name])}'
        for name in (("vbios-version", "driver-version") if gpu else ("bios-version",))
    ]
    text = PACKAGE
    for mark, lines in (("@HARDWARE@", hardware), ("@EXECUTABLES@", executables), ("@VERSIONS@", versions)):
        text = text.replace(mark, "\n".join(lines))
    return text


def vector(claims: dict[str, Any], allowed: dict[str, list[str]]) -> dict[str, int]:
    engine = regopy.Interpreter()
    engine.log_level = regopy.LogLevel.NONE
    prefix = "x-nvidia-gpu" if claims["x-nvidia-device-type"] == "gpu" else "x-nvidia-switch"
    engine.add_module("policy", policy(prefix, allowed))
    engine.set_input({"nvidia": claims})
    result: dict[str, int] = json.loads(str(engine.query("data.policy.trust_claims")))["expressions"][0]
    return result


def claims_by_kind(name: str, *lies: str, version: str) -> list[dict[str, Any]]:
    platform = Platform.build(name, lies=lies)
    appraisal = verify(
        load_evidence(json.dumps(platform.evidence(bytes(range(32))))), collateral=load_bundle(json.dumps(platform.bundle())),
        nonce=Nonce(bytes(range(32))), at=platform.time, anchors=platform.trust_anchors(),
    )  # fmt: skip
    return claims_of(appraisal, version=version)


def allowed_of(claims: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [str(claims.get(f"x-nvidia-gpu-{name}", claims.get(f"x-nvidia-switch-{name}", "")))]
        for name in ("vbios-version", "driver-version", "bios-version")
    }


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
