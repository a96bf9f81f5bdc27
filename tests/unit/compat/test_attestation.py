"""The class of the old SDK over simulated devices: what works as before, and what does not any more."""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jwt
import pytest

from nvattest.compat import MigrationWarning
from nvattest.compat.nv_attestation_sdk import attestation
from nvattest.compat.nv_attestation_sdk.attestation import Attestation, Devices, Environment, VerifierFields
from nvattest.compat.verifier import cc_admin
from nvattest.errors import CollectionError, NvattestError
from nvattest.model import DeviceKind, Nonce
from nvattest.testing import Platform

from .clients import NONCE, client_of, evidence_of, key, policy

# --- names and values -------------------------------------------------------------------------------------------------


def test_the_enumerations_have_the_old_names_and_values() -> None:
    assert {item.name: int(item) for item in Devices} == {"CPU": 1, "GPU": 2, "SWITCH": 4, "OS": 8, "DPU": 16}
    assert {item.name: int(item) for item in Environment} == {
        "TEST": 1, "LOCAL": 2, "AZURE": 3, "GCP": 4, "REMOTE": 5,
    }  # fmt: skip
    assert [item.name for item in VerifierFields] == [
        "NAME", "DEVICE", "ENVIRONMENT", "URL", "POLICY", "JWT_TOKEN", "OCSP_URL", "RIM_URL",
    ]  # fmt: skip


def test_the_verifier_list_prints_as_in_the_sample_run() -> None:
    client = Attestation()
    client.add_verifier(Devices.GPU, Environment.LOCAL, "", "")
    expected = "[['LOCAL_GPU_CLAIMS', <Devices.GPU: 2>, <Environment.LOCAL: 2>, '', '', '']]"
    assert str(client.get_verifiers()) == expected


def test_urls_of_a_verifier_stand_at_their_old_places() -> None:
    client = Attestation()
    client.add_verifier(Devices.SWITCH, Environment.REMOTE, "", "p", "https://ocsp.example/", "https://rim.example/")
    (entry,) = client.get_verifiers()
    assert entry[VerifierFields.OCSP_URL] == "https://ocsp.example/"
    assert entry[VerifierFields.RIM_URL] == "https://rim.example/"
    assert entry[VerifierFields.URL] == "https://nras.attestation.nvidia.com/v3/attest/switch"
    assert client.get_verifier_by_name("REMOTE_SWITCH_CLAIMS") is entry
    assert client.get_verifier_by_name("LOCAL_GPU_CLAIMS") is None


@pytest.mark.parametrize(
    ("device", "environment"),
    [
        (Devices.CPU, Environment.TEST),
        (Devices.GPU, Environment.AZURE),
        (Devices.GPU | Devices.SWITCH, Environment.LOCAL),
    ],
)
def test_a_pair_that_nobody_verifies_is_refused_in_the_types_that_old_code_catches(
    device: Any, environment: Any
) -> None:
    for kind in (TypeError, ValueError, NvattestError):
        with pytest.raises(kind, match="nothing can verify"):
            Attestation().add_verifier(device, environment, "", "")


def test_setters_refuse_what_they_cannot_use() -> None:
    client = Attestation()
    for wrong in ("", "00", "zz" * 32, None, 5, " " + "0" * 63):
        with pytest.raises(ValueError, match="nonce"):
            client.set_nonce(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="claims of version"):
        client.set_claims_version("4.0")
    with pytest.raises(ValueError, match="True or False"):
        client.set_ocsp_nonce_disabled("yes")  # type: ignore[arg-type]


def test_each_instance_has_a_state_of_its_own() -> None:
    first, second = Attestation("a"), Attestation("b")
    first.set_nonce(NONCE)
    first.add_verifier(Devices.GPU, Environment.LOCAL, "", "")
    assert (second.get_name(), second.get_nonce(), second.get_verifiers()) == ("b", "", [])


def test_calls_on_the_class_work_on_the_first_instance() -> None:
    client = Attestation("thisNode1")
    Attestation.set_nonce(NONCE)
    Attestation.add_verifier(Devices.GPU, Environment.LOCAL, "", "")
    assert (Attestation.get_name(), client.get_nonce(), len(client.get_verifiers())) == ("thisNode1", NONCE, 1)


def test_calls_on_the_class_work_without_any_instance() -> None:
    Attestation.set_name("alone")
    assert Attestation.get_name() == "alone"
    assert Attestation.get_token() == ""
    assert Attestation.default() is Attestation.default()


def test_reset_keeps_what_the_old_one_kept(attested: Any) -> None:
    client = attested()
    client.set_service_key("key")
    client.set_claims_version("3.0")
    client.reset()
    assert (client.get_nonce(), client.get_verifiers(), client.get_token()) == ("", [], "")
    assert (client.get_name(), client.get_service_key(), client.get_claims_version()) == ("node", "key", "3.0")


def test_importing_touches_nothing(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import logging, sys, os; os.chdir('/proc'); before = set(sys.modules)\n"
        "import nvattest.compat.nv_attestation_sdk.attestation, nvattest.compat.verifier.cc_admin\n"
        "assert not logging.getLogger().handlers and not logging.root.manager.loggerDict, logging.root.manager.loggerDict\n"
        "heavy = {'pynvml', 'requests', 'lxml', 'jwt', 'cryptography', 'regopy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- evidence and verification ----------------------------------------------------------------------------------------


def test_good_devices_give_true_and_a_token_in_the_old_shape(attested: Any) -> None:
    token = json.loads(attested().get_token())
    assert token[0][0] == "JWT"
    assert list(token[1]) == ["LOCAL_GPU_CLAIMS"]
    (word, overall), devices = token[1]["LOCAL_GPU_CLAIMS"]
    assert word == "JWT"
    assert list(devices) == ["GPU-0"]
    said = jwt.decode(overall, options={"verify_signature": False})
    assert (said["iss"], said["x-nvidia-ver"], said["sub"], said["x-nvidia-overall-att-result"]) == (
        "LOCAL_GPU_VERIFIER", "2.0", "NVIDIA-PLATFORM-ATTESTATION", True,
    )  # fmt: skip
    assert said["eat_nonce"] == NONCE
    for compact in (token[0][1], overall, devices["GPU-0"]):
        assert jwt.get_unverified_header(compact)["alg"] == "ES384"


def test_a_key_of_this_process_is_announced_with_the_reason(platform: Platform) -> None:
    client = client_of(platform, token_key=None)
    with pytest.warns(MigrationWarning, match="notasecret") as caught:
        client.attest(evidence_of(platform))
    assert caught[0].filename == __file__, "the warning names the line of the caller"


def test_the_token_verifies_with_the_public_key_alone(attested: Any) -> None:
    client = attested()
    token = json.loads(client.get_token())
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    public = load_pem_public_key(client.public_key_pem())
    for compact in (token[0][1], token[1]["LOCAL_GPU_CLAIMS"][0][1]):
        jwt.decode(compact, public, algorithms=["ES384"])  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_both_claims_versions_can_be_had(platform: Platform, version: str) -> None:
    client = client_of(platform)
    client.set_claims_version(version)
    assert client.attest(evidence_of(platform))
    said = client.decode_token(client.get_token())[1]["LOCAL_GPU_CLAIMS"]
    assert said[0][1]["x-nvidia-ver"] == version
    assert ("x-nvidia-gpu-driver-rim-cert-validated" in said[1]["GPU-0"]) is (version == "2.0")
    assert ("x-nvidia-gpu-driver-rim-cert-chain" in said[1]["GPU-0"]) is (version == "3.0")


def test_without_a_verifier_nothing_is_true() -> None:
    client = Attestation()
    for call in (client.get_evidence, client.attest, lambda: client.attest([1])):
        with pytest.raises(ValueError, match="no verifier"):
            call()


@pytest.mark.parametrize(
    "evidence", [[], "text", [5], [{"arch": "HOPPER"}], [{"arch": "x", "evidence": "", "certificate": ""}]]
)
def test_what_is_no_evidence_is_refused(platform: Platform, evidence: Any) -> None:
    client = client_of(platform)
    with pytest.raises(ValueError):
        client.attest(evidence)
    assert client.get_token() == ""


def test_evidence_without_a_nonce_of_the_client_is_refused(platform: Platform) -> None:
    client = client_of(platform)
    client.reset()
    client.add_verifier(Devices.GPU, Environment.LOCAL, "", "")
    with pytest.raises(attestation.InvalidNonceError, match="fresh"):
        client.attest(evidence_of(platform))


def test_a_broken_round_leaves_no_older_token(attested: Any) -> None:
    client = attested()
    assert client.get_token()
    with pytest.raises(attestation.NoEvidenceError):
        client.attest([])
    assert client.get_token() == ""


def test_evidence_of_the_remote_form_is_verified_too(platform: Platform) -> None:
    client = client_of(platform)
    items = [
        {"arch": i["arch"], "evidence": i["evidence"], "certificate": i["certificate"]}
        for i in json.loads(platform.evidence_json(DeviceKind.GPU, bytes.fromhex(NONCE)))
    ]
    assert client.attest(items) is True


def test_switches_are_a_round_of_their_own() -> None:
    platform = Platform.build("hopper-8-ppcie")
    client = client_of(platform)
    with pytest.raises(attestation.NoEvidenceError, match="no gpu"):
        client.attest(evidence_of(platform, DeviceKind.NVSWITCH))
    client.clear_verifiers()
    client.add_verifier(Devices.SWITCH, Environment.LOCAL, "", "")
    assert client.attest(evidence_of(platform, DeviceKind.NVSWITCH)) is True
    (_, devices) = json.loads(client.get_token())[1]["LOCAL_SWITCH_CLAIMS"]
    assert list(devices) == ["SWITCH-0", "SWITCH-1", "SWITCH-2", "SWITCH-3"]
    rules = policy(overall={"iss": "LOCAL_SWITCH_VERIFIER"}, **{"x-nvidia-switch-bios-rim-cert-validated": True})
    assert client.validate_token(rules) is True


def test_a_good_device_after_a_bad_one_makes_nothing_true() -> None:
    platform = Platform.build("hopper-2", lies=["gpu0:measurement=9"])
    client = client_of(platform)
    with pytest.warns(MigrationWarning, match="GPU-0 failed.*could make it True"):
        assert client.attest(evidence_of(platform)) is False
    assert client.validate_token(policy()) is False
    assert any("x-nvidia-overall-att-result" in reason for reason in client.get_reasons())


def test_a_revocation_answer_outside_its_window_does_not_count() -> None:
    platform = Platform.build("hopper-1", lies=["gpu0:stale=2"])
    client = client_of(platform)
    with pytest.warns(MigrationWarning, match="neither the validity window"):
        assert client.attest(evidence_of(platform)) is False


def test_answers_without_a_nonce_are_allowed_only_inside_their_window() -> None:
    client = Attestation()
    with pytest.warns(MigrationWarning, match="only inside their signed validity window"):
        client.set_ocsp_nonce_disabled(True)
    assert client.get_ocsp_nonce_disabled() is True
    assert client._settings.evidence_policy().weakenings == ("accept_live_ocsp_without_nonce",)


@pytest.mark.parametrize(("value", "trusted"), [("true", True), ("True", False), ("1", False), ("", False)])
def test_certificates_on_hold_count_only_with_exactly_true(
    monkeypatch: pytest.MonkeyPatch, value: str, trusted: bool
) -> None:
    monkeypatch.setenv("NV_ALLOW_HOLD_CERT", value)
    platform = Platform.build("hopper-1", lies=["driver-rim:hold=0"])
    client = client_of(platform)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert client.attest(evidence_of(platform)) is trusted
    said_so = any("GPU-0: a certificate is on hold" in f"{item.message}" for item in caught)
    assert said_so is trusted
    if trusted:
        assert any("because of NV_ALLOW_HOLD_CERT in the environment" in f"{item.message}" for item in caught)
        said = client.decode_token(client.get_token())[1]["LOCAL_GPU_CLAIMS"]
        assert "allow_certificate_hold_for_rims" in str(said[0][1]["nvattest"]["policy"]["weakened"])
        assert "allow_certificate_hold" in said[1]["GPU-0"]["x-nvidia-attestation-warning"]


def test_simulated_evidence_is_refused_by_the_default_anchors(platform: Platform) -> None:
    client = client_of(platform)
    client._settings.anchors = None
    assert client.attest(evidence_of(platform)) is False


def test_a_failure_to_collect_is_raised_at_once_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from nvattest.devices import nvml

    def missing(*_: Any, **__: Any) -> None:
        raise CollectionError("there is no NVML here", code="nvml-missing")

    monkeypatch.setattr(nvml.NvmlLibrary, "open", missing)
    client = Attestation()
    client.add_verifier(Devices.GPU, Environment.LOCAL, "", "")
    with pytest.raises(Exception, match="no NVML") as caught:
        client.get_evidence()
    assert isinstance(caught.value, CollectionError)


def test_no_gpu_mode_says_that_it_proves_nothing() -> None:
    client = Attestation(verbose=False)
    client.add_verifier(Devices.GPU, Environment.LOCAL, "", "")
    with pytest.warns(MigrationWarning, match="proves nothing"):
        (handle,) = client.get_evidence(options={"no_gpu_mode": True, "ppcie_mode": False})
    assert len(client.get_nonce()) == 64
    assert handle.get_gpu_architecture() == "HOPPER"
    assert len(handle.get_attestation_cert_chain()) == 5
    assert handle.get_attestation_report()[4:36].hex() == client.get_nonce()


# --- validate_token ---------------------------------------------------------------------------------------------------


def test_policies_of_the_old_sdk_accept_and_refuse(platform: Platform) -> None:
    """File version 3.0 speaks of claims 2.0, 4.0 of claims 3.0, 2.0 of names that only old services wrote."""
    flat = {
        "measres": "success",
        "x-nvidia-gpu-arch-check": True,
        "x-nvidia-gpu-attestation-report-cert-chain-validated": True,
        "x-nvidia-gpu-attestation-report-nonce-match": True,
        "x-nvidia-gpu-driver-rim-cert-validated": True,
        "x-nvidia-gpu-vbios-rim-cert-validated": True,
        "x-nvidia-gpu-vbios-index-no-conflict": True,
        "secboot": True,
        "dbgstat": "disabled",
    }
    good = {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}
    nested = {
        "measres": "success",
        "x-nvidia-gpu-attestation-report-cert-chain": good,
        "x-nvidia-gpu-attestation-report-cert-chain-fwid-match": True,
        "x-nvidia-gpu-driver-rim-cert-chain": good,
        "x-nvidia-gpu-driver-rim-version-match": True,
        "x-nvidia-gpu-vbios-rim-cert-chain": good,
    }
    policies = {
        "3.0": policy("3.0", overall={"iss": "LOCAL_GPU_VERIFIER", "x-nvidia-ver": "2.0"}, **flat),
        "4.0": policy("4.0", overall={"iss": "LOCAL_GPU_VERIFIER", "x-nvidia-ver": "3.0"}, **nested),
        "2.0": policy("2.0", **{"x-nvidia-gpu-driver-rim-schema-fetched": True}),
    }
    accepted = {}
    for claims in ("2.0", "3.0"):
        client = client_of(platform)
        client.set_claims_version(claims)
        client.attest(evidence_of(platform))
        accepted[claims] = {version: client.validate_token(text) for version, text in policies.items()}
    assert accepted == {
        "2.0": {"3.0": True, "4.0": False, "2.0": False},
        "3.0": {"3.0": False, "4.0": True, "2.0": False},
    }


def test_a_bad_device_fails_every_good_policy() -> None:
    platform = Platform.build("hopper-1", lies=["driver-rim:revoked=0"])
    client = client_of(platform)
    assert client.attest(evidence_of(platform)) is False
    assert client.validate_token(policy(**{"x-nvidia-gpu-driver-rim-cert-validated": True})) is False
    assert client.validate_token(policy(overall={"x-nvidia-overall-att-result": False}, measres="success")) is True


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("not json", (json.JSONDecodeError, ValueError)),
        ("{}", (KeyError,)),
        ('{"version": "1.0", "x": 1}', (KeyError,)),
        ("[]", (TypeError, KeyError)),
        (policy().replace("3.0", "9.9"), (KeyError,)),
        (
            '{"version":"3.0","authorization-rules":{"type":"JWT","overall-claims":{},"detached-claims":{"a":1}}}',
            (KeyError,),
        ),
        ("/etc/policy.json", (json.JSONDecodeError,)),
        (5, (TypeError,)),
    ],
)
def test_a_wrong_policy_is_an_error_of_the_type_that_old_code_catches(attested: Any, text: Any, kinds: Any) -> None:
    client = attested()
    for kind in (*kinds, NvattestError):
        with pytest.raises(kind):
            client.validate_token(text)


def test_an_error_of_a_policy_reads_as_a_sentence(attested: Any) -> None:
    with pytest.raises(KeyError) as caught:
        attested().validate_token("{}")
    assert not str(caught.value).startswith(("'", '"'))


def test_without_a_token_nothing_validates(platform: Platform) -> None:
    client = client_of(platform)
    assert client.validate_token(policy()) is False
    assert client.validate_token(policy(), 5) is False
    assert "no token" in " ".join(client.get_reasons()) or "text" in " ".join(client.get_reasons())


def test_a_verifier_that_is_not_configured_validates_nothing(attested: Any) -> None:
    client = attested()
    client.clear_verifiers()
    client.add_verifier(Devices.SWITCH, Environment.LOCAL, "", "")
    assert client.validate_token(policy()) is False
    client.clear_verifiers()
    with pytest.raises(ValueError, match="no verifier"):
        client.validate_token(policy())


def test_tokens_by_name_give_verdicts_by_name(attested: Any) -> None:
    client = attested()
    token = client.get_token()
    broken = token.replace("GPU-0", "GPU-1")
    assert client.validate_token(policy(), {"a": token, "b": broken, "c": ""}) == {"a": True, "b": False, "c": False}
    assert any(reason.startswith("b:") for reason in client.get_reasons())


def refused(client: Attestation, token: str) -> str:
    for kind in (jwt.InvalidTokenError, NvattestError):
        with pytest.raises(kind) as caught:
            client.validate_token(policy(), token)
    error = caught.value
    assert isinstance(error, NvattestError)
    return error.code


def test_a_token_of_the_old_sdk_proves_nothing(attested: Any) -> None:
    client = attested()
    token = json.loads(client.get_token())
    token[0][1] = jwt.encode({"iss": "NV-Attestation-SDK"}, "notasecret" * 4, algorithm="HS256")
    assert refused(client, json.dumps(token)) == "alg-not-allowed"


def test_a_token_of_somebody_else_is_refused(attested: Any, platform: Platform) -> None:
    stranger = client_of(platform, token_key=key(8))
    stranger.attest(evidence_of(platform))
    assert refused(attested(), stranger.get_token()) == "signature"


def test_parts_cannot_be_swapped(attested: Any, platform: Platform) -> None:
    client = attested()
    first = json.loads(client.get_token())
    client.attest(evidence_of(platform))
    second = json.loads(client.get_token())
    assert refused(client, json.dumps([first[0], second[1]])) == "digest"
    assert refused(client, json.dumps([first[0], {}])) == "malformed"
    assert refused(client, "[]") == "malformed"
    assert refused(client, "nonsense") == "malformed"


def test_a_token_for_another_nonce_is_refused(attested: Any) -> None:
    client = attested()
    token = client.get_token()
    client.set_nonce("11" * 32)
    assert refused(client, token) == "nonce-mismatch"


def test_fewer_devices_than_were_attested_are_refused() -> None:
    platform = Platform.build("hopper-2")
    client = client_of(platform)
    one = evidence_of(platform)[:1]
    client.attest(one)
    token = client.get_token()
    client.attest(evidence_of(platform))
    assert client.validate_token(policy()) is True
    assert refused(client, token) == "device-count"


def test_an_expired_token_is_refused(attested: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = attested()
    from nvattest.compat import _tokens

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(timezone.utc) + timedelta(hours=2)

    monkeypatch.setattr(_tokens, "datetime", Later)
    assert refused(client, client.get_token()) == "expired"


def test_a_wrong_result_is_no_exception_and_no_true(attested: Any) -> None:
    client = attested()
    assert client.validate_token(policy(**{"x-nvidia-gpu-driver-version": "1.0"})) is False
    assert client.get_reasons()


def test_decode_token_gives_what_is_said_and_refuses_nonsense(attested: Any) -> None:
    client = attested()
    said = client.decode_token(client.get_token())
    assert said[0][1]["iss"] == "NV-Attestation-SDK"
    with pytest.raises(jwt.InvalidTokenError):
        client.decode_token("{")


def test_progress_lines_are_printed_in_verbose_mode_only(
    platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client_of(platform, verbose=False).attest(evidence_of(platform))
    monkeypatch.setenv("NVATTEST_COMPAT_VERBOSE", "0")
    client = client_of(platform, verbose=None)
    client.attest(evidence_of(platform))
    assert capsys.readouterr().out == ""
    client.set_verbose(True)
    client.attest(evidence_of(platform))
    assert "GPU 0 verified successfully." in capsys.readouterr().out


def test_progress_lines_of_a_failure_say_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    platform = Platform.build("hopper-1", lies=["gpu0:measurement=9"])
    client = client_of(platform, verbose=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client.attest(evidence_of(platform))
    out = capsys.readouterr().out
    assert "The runtime measurements are not matching with the golden measurements." in out
    assert "index 9 (Firmware)" in out
    assert out.rstrip().endswith("GPU Attestation failed.")


def test_of_two_verifiers_of_one_name_the_token_has_the_one_that_says_no(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(platform)
    client.add_verifier(Devices.GPU, Environment.LOCAL, "", "")
    real, rounds = client._verify, []

    def verify(entry: Any, evidence: Any, nonce: Any) -> Any:
        rounds.append(entry)
        if len(rounds) == 1:
            return client_of(Platform.build("hopper-1"))._verify(entry, evidence, Nonce(bytes(32)))
        return real(entry, evidence, nonce)

    monkeypatch.setattr(client, "_verify", verify)
    assert client.attest(evidence_of(platform)) is False
    assert len(rounds) == 2
    with pytest.raises(attestation.TokenRefusedError):
        client.validate_token(policy())


def test_an_entry_that_somebody_wrote_himself_validates_nothing(platform: Platform) -> None:
    client = client_of(platform)
    client.clear_verifiers()
    client.get_verifiers().append(["MY_CLAIMS", Devices.GPU, Environment.LOCAL, "", "", ""])
    assert client.attest(evidence_of(platform)) is True
    with pytest.raises(attestation.TokenRefusedError, match="MY_CLAIMS"):
        client.validate_token(policy())


# Names and parameters of NVIDIA's 2.7.3, as programs give them by keyword.
SIGNATURES = {
    "set_name": ["name"], "get_name": [], "set_nonce": ["nonce"], "get_nonce": [], "set_service_key": ["service_key"],
    "get_service_key": [], "set_nonce_server": ["url"], "get_nonce_server": [],
    "set_ocsp_nonce_disabled": ["ocsp_nonce_disabled"], "get_ocsp_nonce_disabled": [],
    "set_claims_version": ["claims_version"], "get_claims_version": [],
    "add_verifier": ["dev", "env", "url", "evidence", "ocsp_url", "rim_url"], "get_verifiers": [],
    "clear_verifiers": [], "get_verifier_by_name": ["verifier_name"], "get_evidence": ["options"],
    "attest": ["evidence_list"], "set_token": ["name", "eat_token"], "get_token": ["x"], "decode_token": ["token"],
    "validate_token": ["policy", "x"], "reset": [],
}  # fmt: skip


@pytest.mark.parametrize("method", SIGNATURES)
def test_every_public_method_takes_the_old_parameters_by_name(method: str) -> None:
    for owner in (attestation.Attestation, attestation.Attestation()):
        assert list(inspect.signature(getattr(owner, method)).parameters) == SIGNATURES[method]


@pytest.mark.parametrize(
    ("function", "names"),
    [
        ("collect_gpu_evidence", ["nonce", "no_gpu_mode", "ppcie_mode"]),
        ("collect_gpu_evidence_local", ["nonce", "ppcie_mode", "no_gpu_mode"]),
        ("collect_gpu_evidence_remote", ["nonce", "no_gpu_mode", "ppcie_mode"]),
        ("attest", ["arguments_as_dictionary", "nonce", "gpu_evidence_list"]),
        ("main", []),
    ],
)
def test_the_functions_of_cc_admin_take_the_old_parameters_by_name(function: str, names: list[str]) -> None:
    assert list(inspect.signature(getattr(cc_admin, function)).parameters) == names


def test_wrong_types_are_documented_errors(platform: Platform) -> None:
    client = client_of(platform)
    with pytest.raises(attestation.TokenRefusedError):
        client.decode_token(5)
    with pytest.raises(attestation.CompatValueError):
        client.get_evidence("ppcie_mode")
