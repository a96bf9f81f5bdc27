"""Simulated equivalents of NVIDIA's test data: the same nonces, devices of the same kinds, services on loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from nvattest.cli import main
from nvattest.model import DeviceKind
from nvattest.testing import Platform
from nvattest.testing.services import Services

N1 = "e97b23a1718095a0e9e35edca810768c70a6a5a389b705e753b197912bc11576"
N2 = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"

# NVIDIA's policies in our words; the first two are the permissive ones of its test data.
GPU_POLICY = """
package policy
import rego.v1
default nv_match := false
nv_match if { every c in input { c["x-nvidia-device-type"] == "gpu"; c.secboot == true; c.dbgstat == "disabled" } }
"""
SWITCH_POLICY = GPU_POLICY.replace('"gpu"', '"nvswitch"')


def status_policy(*statuses: str) -> str:
    """The built-in policy with these revocation statuses of the driver RIM allowed."""
    words = ", ".join(f'"{status}"' for status in statuses)
    return f"""
package policy
import rego.v1
default nv_match := false
nv_match if {{
    count(input) > 0
    every c in input {{
        c.measres == "success"
        c["x-nvidia-gpu-attestation-report-cert-chain"]["x-nvidia-cert-ocsp-status"] == "good"
        c["x-nvidia-gpu-vbios-rim-cert-chain"]["x-nvidia-cert-ocsp-status"] == "good"
        c["x-nvidia-gpu-driver-rim-cert-chain"]["x-nvidia-cert-ocsp-status"] in {{{words}}}
    }}
}}
"""


INDEX_7 = """
package policy
import rego.v1
default nv_match := false
nv_match if {
    count(input) > 0
    every c in input {
        count(c["x-nvidia-mismatch-measurement-records"]) > 0
        every r in c["x-nvidia-mismatch-measurement-records"] { r.index == 7 }
    }
}
"""

TRUST_OUTPOST = """
package policy
import rego.v1
default nv_match := false
nv_match if {
    count(input) > 0
    every c in input {
        c.measres == "success"
        c["x-nvidia-gpu-attestation-report-cert-chain"]["x-nvidia-cert-ocsp-status"] == "good"
    }
}
"""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a run of the program gave: exit status, the JSON on stdout, stderr."""

    status: int
    document: dict[str, Any]
    stderr: str

    @property
    def code(self) -> int:
        return int(self.document["result_code"])

    @property
    def claims(self) -> list[dict[str, Any]]:
        claims: list[dict[str, Any]] = self.document["claims"]
        return claims


@dataclass(slots=True, kw_only=True)
class Stage:
    """One platform with its services and files; ``run`` is NVIDIA's harness: NVAT_FORMAT=json, last JSON counts."""

    platform: Platform
    services: Services
    folder: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    files: dict[str, str] = field(default_factory=dict)

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def gpu(self, nonce: str = N1) -> list[str]:
        text = self.platform.evidence_json(DeviceKind.GPU, bytes.fromhex(N1))
        return ["--gpu-evidence-source", "file", "--gpu-evidence-file", self.file("gpu.json", text), "--nonce", nonce]

    def switch(self, nonce: str = "0x" + N2) -> list[str]:
        text = self.platform.evidence_json(DeviceKind.NVSWITCH, bytes.fromhex(N2))
        path = self.file("switch.json", text)
        return [
            "--device", "nvswitch", "--nvswitch-evidence-source", "file", "--nvswitch-evidence-file", path,
            "--nonce", nonce,
        ]  # fmt: skip

    def run(self, *arguments: str) -> Outcome:
        urls = [
            "--rim-url", self.services.rim_url, "--ocsp-url", self.services.ocsp_url,
            "--nras-url", self.services.nras_url,
        ]  # fmt: skip
        self.monkeypatch.setenv("NVAT_FORMAT", "json")
        self.monkeypatch.setenv("NVATTEST_TRUST_ANCHORS", self.file("roots.pem", self.platform.anchors_pem.decode()))
        self.monkeypatch.setenv("XDG_CACHE_HOME", str(self.folder / "cache"))
        status = main(["attest", *urls, *arguments])
        printed = self.capsys.readouterr()
        return Outcome(status=status, document=json.loads(printed.out), stderr=printed.err)


def clock() -> datetime:
    return datetime.now(timezone.utc)


def without_nvat(environment: Sequence[str] = ("NVAT_", "NV_", "NVATTEST_")) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(tuple(environment))}
