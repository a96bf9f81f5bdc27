"""Policies with the input and the names of Trustee's default ones for GPUs and switches, written by us from their tables."""

from __future__ import annotations

import json
from typing import Any

from nvattest.model import Nonce
from nvattest.session import verify
from nvattest.testing import Platform
from nvattest.token.claims import claims_of

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


def claims_by_kind(name: str, *lies: str, version: str) -> list[dict[str, Any]]:
    platform = Platform.build(name, lies=lies)
    appraisal = verify(
        platform.evidence(bytes(range(32))), collateral=platform.collateral(),
        nonce=Nonce(bytes(range(32))), at=platform.time, anchors=platform.trust_anchors(),
    )  # fmt: skip
    return claims_of(appraisal, version=version)


def allowed_of(claims: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [str(claims.get(f"x-nvidia-gpu-{name}", claims.get(f"x-nvidia-switch-{name}", "")))]
        for name in ("vbios-version", "driver-version", "bios-version")
    }
