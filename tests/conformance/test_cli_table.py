"""NVIDIA's own tests of its command line (nvattest-cli-1.2, 9.1), row by row, against our program.

NVIDIA's rows use genuine evidence with staging services; ours use simulated devices with the same nonces and services on
loopback, and go the same way through the program. Where the wanted behaviour is ours (a relying party's policy adds to
the appraisal), the row says so in its comment.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from .world import GPU_POLICY, INDEX_7, N2, SWITCH_POLICY, TRUST_OUTPOST, Outcome, Stage, status_policy, without_nvat

pytest.importorskip("regopy", reason="the extra rego is not installed: NVIDIA's rows use Rego policies")

Make = Callable[..., Stage]
HGX = "hopper-8-ppcie"
OVERRIDE = "--policy-overrides-appraisal"
# A remote service's answer about simulated devices is refused by default; every row here is about such devices.
VERIFIERS = {"local": ["--verifier", "local"], "remote": ["--verifier", "remote", "--accept-simulated"]}


def local(stage: Stage, *more: str) -> Outcome:
    return stage.run(*stage.gpu(), "--verifier", "local", *more)


def good(outcome: Outcome, kind: str = "gpu") -> None:
    assert (outcome.status, outcome.code) == (0, 0), outcome.document
    assert outcome.document["result_message"] == "Ok"
    assert {claims["x-nvidia-device-type"] for claims in outcome.claims} == {kind}
    assert len(outcome.document["detached_eat"]) == 2


@pytest.mark.parametrize("verifier", ["local", "remote"])
@pytest.mark.parametrize("extra", ["", "WithRelyingPartyPolicy", "WithServiceKey"])
@pytest.mark.parametrize("device", ["GPU", "Switch"])
def test_clitest(stage: Make, device: str, verifier: str, extra: str) -> None:
    """CliTest.{GPU,Switch}{Local,Remote}{,WithRelyingPartyPolicy,WithServiceKey}; foreign options are ignored."""
    here = stage(HGX if device == "Switch" else "hopper-1")
    arguments = here.switch() if device == "Switch" else here.gpu()
    arguments += VERIFIERS[verifier]
    if verifier == "remote":
        other = "gpu" if device == "Switch" else "nvswitch"
        arguments += [f"--{other}-evidence-source", "file", f"--{other}-evidence-file", "invalid"]
    if extra:
        policy = here.file("policy.rego", SWITCH_POLICY if device == "Switch" else GPU_POLICY)
        arguments += ["--relying-party-policy", policy]
    if extra == "WithServiceKey":
        arguments += ["--service-key", "key"]
    good(here.run(*arguments), "nvswitch" if device == "Switch" else "gpu")


@pytest.mark.parametrize("verifier", ["local", "remote"])
@pytest.mark.parametrize("device", ["GPU", "Switch"])
def test_clitest_with_incorrect_service_key(stage: Make, device: str, verifier: str) -> None:
    """CliTest.*WithIncorrectServiceKey. NVIDIA's GPU rows fail for their nonce; here the services refuse the key too."""
    here = stage(HGX if device == "Switch" else "hopper-1", faults=("status=403",))
    nonce_rows = {"GPU": here.gpu(nonce=N2), "Switch": here.switch()}
    outcome = here.run(*nonce_rows[device], *VERIFIERS[verifier], "--service-key", "wrong")
    assert outcome.status != 0
    assert outcome.code != 0
    right = here.run(*(here.gpu() if device == "GPU" else here.switch()), *VERIFIERS[verifier], "--service-key", "x")
    assert right.code == (702 if verifier == "remote" else right.code)
    assert right.code in (702, 101, 205)


@pytest.mark.parametrize("device", ["GPU", "Switch"])
def test_claims_parity(stage: Make, device: str) -> None:
    """ClaimsParity.{GPU,Switch}LocalVsRemote: equal codes, and claims equal by ueid."""
    here = stage(HGX if device == "Switch" else "hopper-1")
    arguments = here.switch() if device == "Switch" else here.gpu()
    outcomes = [here.run(*arguments, *more) for more in VERIFIERS.values()]
    assert outcomes[0].status == outcomes[1].status == outcomes[0].code == outcomes[1].code == 0
    by_ueid = [{claims["ueid"]: _comparable(claims) for claims in outcome.claims} for outcome in outcomes]
    assert by_ueid[0] == by_ueid[1]
    assert len(by_ueid[0]) == (4 if device == "Switch" else 1)


def _comparable(claims: dict[str, Any]) -> dict[str, Any]:
    cleared = dict(claims)
    if claims["x-nvidia-device-type"] == "nvswitch":
        # NVIDIA's service has null here, its local verifier the number of the RIM.
        cleared["oemid"] = None
    for name, value in cleared.items():
        if name.endswith("-pdis"):
            cleared[name] = sorted(value)
    return cleared


def test_gpu_expired_driver_rim_cert(stage: Make) -> None:
    """CliTestRequiresFaultyDriver.GPUExpiredDriverRIMCert: the switch against RIM signatures changes nothing here."""
    outcome = local(stage(lies=("driver-rim:expired=0",)), "--no-verify-rim-signatures")
    assert (outcome.status, outcome.code) == (12, 12)
    assert outcome.claims[0]["x-nvidia-gpu-driver-rim-cert-chain"]["x-nvidia-cert-status"] == "expired"
    assert "--no-verify-rim-signatures has no effect" in outcome.stderr


@pytest.mark.parametrize(("lie", "status"), [("revoked", "revoked"), ("unknown", "unknown")])
def test_gpu_driver_rim_cert_status(stage: Make, lie: str, status: str) -> None:
    """GPURevokedDriverRIMCert, GPUUnknownDriverRIMCert and their WithRPP rows, which need our override by name."""
    here = stage(lies=(f"driver-rim:{lie}=0",))
    outcome = local(here)
    assert (outcome.status, outcome.code) == (12, 12)
    assert outcome.claims[0]["x-nvidia-gpu-driver-rim-cert-chain"]["x-nvidia-cert-ocsp-status"] == status
    policy = ["--relying-party-policy", here.file("allow.rego", status_policy("good", status))]
    assert local(here, *policy).code == 12, "a policy adds to the appraisal"
    assert local(here, *policy, OVERRIDE).code == 0
    refusing = ["--relying-party-policy", here.file("strict.rego", status_policy("good"))]
    assert local(here, *refusing, OVERRIDE).code == 11


def test_gpu_measurement_mismatch(stage: Make) -> None:
    """GPUMeasurementMismatchWithoutRPP and WithRPP."""
    runtime = "ab" * 48
    here = stage(lies=(f"gpu0:measurement=7,{runtime}",))
    outcome = local(here)
    assert (outcome.status, outcome.code) == (12, 12)
    (claims,) = outcome.claims
    assert claims["measres"] == "fail"
    (record,) = claims["x-nvidia-mismatch-measurement-records"]
    assert (record["index"], record["goldenSize"], record["runtimeSize"]) == (7, 48, 48)
    assert (record["runtimeValue"], record["measurementSource"]) == (runtime, "Driver")
    assert len(record["goldenValue"]) == 96
    policy = ["--relying-party-policy", here.file("index7.rego", INDEX_7)]
    assert local(here, *policy, OVERRIDE).code == 0


def test_gpu_trust_outpost(stage: Make) -> None:
    """CliTestRequiresTrustOutpost.GPUTrustOutpostWithoutRPP and WithRPP: answers of a cache, without our nonce."""
    here = stage(lies=("gpu0:ocsp-no-nonce=1", "gpu0:ocsp-no-nonce=2", "gpu0:ocsp-no-nonce=3"))
    outcome = local(here, "--no-cache")
    assert (outcome.status, outcome.code) == (12, 12)
    chain = outcome.claims[0]["x-nvidia-gpu-attestation-report-cert-chain"]
    assert chain["x-nvidia-cert-ocsp-nonce-matches"] is False
    policy = ["--relying-party-policy", here.file("outpost.rego", TRUST_OUTPOST)]
    assert local(here, "--no-cache", *policy, OVERRIDE).code == 0


@pytest.mark.parametrize(("device", "count"), [("gpu", 8), ("nvswitch", 4)])
def test_collect_evidence(device: str, count: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """CliTest.CollectEvidenceGPU and .CollectEvidenceNVSwitch, through the driver bindings and a simulated driver."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: there is no simulated driver here, and no real one")
    program = [sys.executable, "-m", "nvattest"]
    command = [*program, "collect-evidence", "--device", device, "--nonce", "0x" + N2, "--format", "json"]
    environment = {**without_nvat(), "XDG_CACHE_HOME": str(tmp_path_factory.getbasetemp().parent / "cache")}
    done = subprocess.run(
        [*program, "simulate", "--platform", HGX, "--", *command], capture_output=True, text=True, timeout=60,
        env=environment,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert (done.returncode, document["result_code"]) == (0, 0), done.stderr
    assert [item["nonce"] for item in document["evidences"]] == [N2] * count
    assert all({"arch", "nonce", "evidence", "certificate"} <= set(item) for item in document["evidences"])


@pytest.mark.parametrize("device", ["GPU", "Switch"])
def test_the_version_of_the_claims_is_the_same_wherever_they_are_verified(stage: Make, device: str) -> None:
    here = stage(HGX if device == "Switch" else "hopper-1")
    arguments = here.switch() if device == "Switch" else here.gpu()
    for version in ("2.0", "3.0"):
        local, remote = (
            here.run(*arguments, *more, "--claims-version", version, "--no-cache") for more in VERIFIERS.values()
        )
        assert local.status == remote.status == 0
        assert set(local.claims[0]) <= set(remote.claims[0])
        flat = f"x-nvidia-{'gpu' if device == 'GPU' else 'switch'}-attestation-report-cert-chain-validated"
        assert (flat in remote.claims[0]) is (version == "2.0")


@pytest.mark.parametrize("version", ["2.0", "3.0", "4.0"])
@pytest.mark.parametrize(
    ("lie", "code", "word"),
    [
        ("gpu0:other-nonce", 504, "NONCE_NOT_MATCHING"),
        ("gpu0:signature", 508, "INVALID_EVIDENCE_SIGNATURE"),
        ("gpu0:measurement=9", 12, ""),
    ],
)
def test_error_claims_of_the_service_are_read_in_every_version(
    stage: Make, lie: str, code: int, word: str, version: str
) -> None:
    here = stage(lies=(lie,))
    outcome = here.run(*here.gpu(), *VERIFIERS["remote"], "--claims-version", version)
    assert (outcome.status, outcome.code) == (code % 256, code)
    assert [refusal["message"] for refusal in outcome.document.get("refusals", [])] == [word] * bool(word)
    assert bool(outcome.claims) is (code == 12)
