"""The seed document's sample run, line for line, in a simulated world; and the remote verifier in the same world."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from nvattest.errors import InputError
from nvattest.testing import Platform
from nvattest.testing.world import World

SCRIPT = """
import json
from nvattest.compat.nv_attestation_sdk import attestation

NONCE = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
client = attestation.Attestation()
client.set_name("thisNode1")
client.set_nonce(NONCE)
print("[SmallGPUTest] node name :", client.get_name())
client.add_verifier(attestation.Devices.GPU, attestation.Environment.{environment}, "", "")
print(client.get_verifiers())
print("[SmallGPUTest] call attest() - expecting True")
print(client.attest({evidence}))
print("[SmallGPUTest] token : " + str(client.get_token()))
print("[SmallGPUTest] call validate_token() - expecting True")
rules = {{"overall-claims": {{"x-nvidia-overall-att-result": True, "x-nvidia-ver": "2.0"}},
         "detached-claims": {{"measres": "success", "x-nvidia-gpu-driver-rim-cert-validated": True}}}}
print(client.validate_token(json.dumps({{"version": "3.0", "authorization-rules": {{"type": "JWT", **rules}}}})))
"""

# The lines of the sample run. Versions and identities are those of the simulated GPU.
EXPECTED = r"""
\[SmallGPUTest\] node name : thisNode1
\[\['LOCAL_GPU_CLAIMS', <Devices\.GPU: 2>, <Environment\.LOCAL: 2>, '', '', ''\]\]
\[SmallGPUTest\] call attest\(\) - expecting True
Number of GPUs available : 1
-{35}
Fetching GPU 0 information from GPU driver\.
VERIFYING GPU : 0
\tDriver version fetched : 550\.\d+\.\d+
\tVBIOS version fetched : 96\.00\.[0-9a-f]{2}\.00\.01
\tValidating GPU certificate chains\.
\t\tGPU attestation report certificate chain validation successful\.
\t\t\tThe certificate chain revocation status verification successful\.
\tAuthenticating attestation report
\t\tThe nonce in the SPDM GET MEASUREMENT request message is matching with the generated nonce\.
\t\tDriver version fetched from the attestation report : 550\.\d+\.\d+
\t\tVBIOS version fetched from the attestation report : 96\.00\.[0-9a-f]{2}\.00\.01
\t\tAttestation report signature verification successful\.
\t\tAttestation report verification successful\.
\tAuthenticating the RIMs\.
\t\tAuthenticating Driver RIM
\t\t\tSchema validation passed\.
\t\t\tdriver RIM certificate chain verification successful\.
\t\t\tThe certificate chain revocation status verification successful\.
\t\t\tdriver RIM signature verification successful\.
\t\t\tDriver RIM verification successful
\t\tAuthenticating VBIOS RIM\.
\t\t\tRIM Schema validation passed\.
\t\t\tvbios RIM certificate chain verification successful\.
\t\t\tThe certificate chain revocation status verification successful\.
\t\t\tvbios RIM signature verification successful\.
\t\t\tVBIOS RIM verification successful
\tComparing measurements \(runtime vs golden\)
\t\tThe runtime measurements are matching with the golden measurements\.
\t\tGPU is in the expected state\.
\tGPU 0 verified successfully\.
\tattestation result: True
\tclaims list:: \{'measres': 'success', .*\}
True
\[SmallGPUTest\] token : \[\["JWT", "eyJ[^"]+"\], \{"LOCAL_GPU_CLAIMS": \[\["JWT", "eyJ[^"]+"\], \{"GPU-0": "eyJ[^"]+"\}\]\}\]
\[SmallGPUTest\] call validate_token\(\) - expecting True
True
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    cache = tmp_path_factory.getbasetemp().parent / "cache" / "nvattest" / "simulated-driver"
    made = World(Platform.build("hopper-1", clock=datetime.now(timezone.utc)), cache=str(cache))
    try:
        made.__enter__()
    except InputError as error:
        if error.code != "no-compiler":
            raise
        pytest.skip("no C compiler: there is no simulated driver here")
    with made:
        yield made


def run(
    world: World, tmp_path: Path, environment: str, evidence: str = "", warn: str = "ignore"
) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "SmallGPUTest.py"
    script.write_text(SCRIPT.format(environment=environment, evidence=evidence))
    return subprocess.run(
        [sys.executable, "-W", warn, str(script)], capture_output=True, text=True, timeout=60,
        env=world.environment({name: value for name, value in os.environ.items() if not name.startswith("NV_")}),
        cwd=tmp_path,
    )  # fmt: skip


def test_the_sample_run_of_the_seed_works_line_for_line(world: World, tmp_path: Path) -> None:
    done = run(world, tmp_path, "LOCAL")
    assert done.returncode == 0, done.stderr
    lines = iter(done.stdout.splitlines())
    for expected in EXPECTED.strip("\n").splitlines():
        assert any(re.fullmatch(expected, line) for line in lines), f"missing or out of order: {expected}"
    assert "GPU Attestation is Successful" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SmallGPUTest.py"], "nothing is written"


def test_evidence_may_be_collected_first_as_the_last_versions_had_it(world: World, tmp_path: Path) -> None:
    done = run(world, tmp_path, "LOCAL", 'client.get_evidence(options={"ppcie_mode": False})')
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("True")


def test_the_remote_verifier_gives_a_token_that_validates(world: World, tmp_path: Path) -> None:
    done = run(world, tmp_path, "REMOTE", "client.get_evidence()", warn="default")
    assert done.returncode == 0, done.stderr
    assert "http://127.0.0.1:" in done.stderr
    assert "which is not NVIDIA's remote service and is simulated, which proves nothing" in done.stderr
    assert "'REMOTE_GPU_CLAIMS', <Devices.GPU: 2>, <Environment.REMOTE: 5>, 'http://127.0.0.1" in done.stdout
    assert re.search(r"expecting True\nTrue\n", done.stdout)
    assert done.stdout.rstrip().endswith("True")


def test_the_old_verifier_makes_a_simulated_machine_ready_and_says_whose_anchors_it_had(world: World) -> None:
    command = [sys.executable, "-m", "nvattest.compat.verifier.cc_admin"]
    before = len(world.driver.ready_history)
    done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert world.driver.ready_history[before:] == (1,)
    assert "NVATTEST_TRUST_ANCHORS names other trust anchors than NVIDIA's" in done.stderr
