"""Interoperability: NVIDIA's own Python verifier runs on our driver library up to the point where it meets the test root.

Optional, since that package pins old libraries. Make a virtual environment of its own with ``nv-local-gpu-verifier`` and
name its interpreter in NVATTEST_PEER_PYTHON.
"""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from nvattest.testing import Platform
from nvattest.testing.native import DriverServer, build_driver_libraries

_PROGRAM = """
from verifier import cc_admin
nonce = "ab" * 32
evidence = cc_admin.collect_gpu_evidence(nonce)
print("collected", len(evidence))
options = dict.fromkeys(("driver_rim", "vbios_rim", "rim_service_url", "ocsp_url", "service_key"))
flags = dict.fromkeys(("test_no_gpu", "allow_hold_cert", "ocsp_nonce_disabled"), False)
print("result", cc_admin.attest({**options, **flags, "verbose": False, "user_mode": True}, nonce, evidence)[0])
"""


def test_nvidias_python_verifier_works_on_our_driver_up_to_the_unknown_root(tmp_path: Path) -> None:
    python = os.environ.get("NVATTEST_PEER_PYTHON")
    if not python:
        pytest.skip("NVATTEST_PEER_PYTHON names no interpreter with nv-local-gpu-verifier")
    libraries = build_driver_libraries(tmp_path / "cache")
    platform = Platform.build("hopper-1", clock=datetime.now(timezone.utc))
    with DriverServer(platform) as driver:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", _PROGRAM],
            env=driver.environment(libraries),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert "collected 1" in done.stdout
    assert "The firmware ID in the device certificate chain is matching" in done.stdout
    assert "certificate chain validation failed" in done.stdout
    assert done.stdout.rstrip().endswith("result False")
