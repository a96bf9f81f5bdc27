"""Tokens of NVIDIA's issuers that say no, or say little: NVAT's EARs, refused devices, the Python SDK's wrapper."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nvattest.cli import main
from nvattest.errors import ResultCode, TokenError
from nvattest.token.claims import SUBJECT
from nvattest.token.verified import Refusal, TokenKind

from . import minting
from .minting import KEY, NONCE, NOW

ISSUED = int(NOW.timestamp())
SERVICE = "https://nras.attestation.nvidia.com"
AT = "2026-11-01T12:05:00Z"


def nvat_ear(*labels: str, **changes: Any) -> dict[str, Any]:
    """The EAR that NVAT 2.0 writes by default: no issuer, labels with an underscore, the labels of draft -04."""
    return {
        "eat_profile": "tag:nvidia.com,2026:ear/profiles/composite/generic/pre-1.0.0",
        "iat": ISSUED,
        "nbf": ISSUED,
        "exp": ISSUED + 3600,
        "jti": "ab" * 32,
        "ear_verifier_id": {"developer": "https://developer.nvidia.com/attestation", "build": "corim-verifier/2.0.0"},
        "eat_nonce": minting.b64(NONCE.value),
        "ear_status": "affirming",
        "submods": {
            label: {
                "eat_profile": "tag:nvidia.com,2026-05:ear/profiles/gpu/1.0.0",
                "ear_status": "affirming",
                "ear_verifier_claims": {
                    "ear_nvidia_evidence": {"signature_verified": True, "parsed": True, "nonce_match": True}
                },
                "ear_attester_claims": {"hwmodel": "GB100 A01 FSP BROM"},
            }
            for label in labels
        },
        **changes,
    }


def refused_ear(**changes: Any) -> dict[str, Any]:
    payload = nvat_ear("gpu_0", "gpu_1", ear_status="contraindicated")
    payload["submods"]["gpu_1"] |= {
        "ear_status": "contraindicated",
        "ear_nvidia_error_details": [{"code": 1002, "message": "no-root-environment", "details": "x\x1b[2Jy"}],
        **changes,
    }
    return payload


@pytest.mark.parametrize("labels", [("gpu_0",), ("device_0",), ("gpu_0", "gpu_1"), ("GPU_0", "Switch-0"), ("DEVICE0",)])
@pytest.mark.parametrize("absent", ["iss", "nbf"])
def test_an_ear_of_nvat_is_believed_by_its_key(labels: tuple[str, ...], absent: str) -> None:
    payload = nvat_ear(*labels, iss="somebody")
    del payload[absent]
    verified = minting.check(minting.jws(payload), issuer=None, expected_devices=len(labels))
    assert (verified.kind, verified.overall, verified.labels) == (TokenKind.EAR, True, labels)
    assert verified.issuer == payload.get("iss", "")


@pytest.mark.parametrize("place", ["overall", "device"])
def test_a_detached_eat_names_its_issuer_whatever_is_expected(place: str) -> None:
    (_, top), parts = service_token()
    overall, device = minting.part(top, 1), minting.part(parts["GPU-0"], 1)
    del (overall if place == "overall" else device)["iss"]
    part = minting.jws(device, typ=None)
    overall["submods"] = {"GPU-0": minting.digest(part)}
    with pytest.raises(TokenError) as caught:
        minting.check([["JWT", minting.jws(overall, typ=None)], {"GPU-0": part}], issuer=None)
    assert caught.value.code == "missing-iss"


@pytest.mark.parametrize(
    ("nbf", "code"), [(ISSUED + 600, "not-yet-valid"), (ISSUED + 3600, "times"), ("x", "malformed"), (-1, "malformed")]
)
def test_a_token_that_says_when_it_begins_is_held_to_it(nbf: object, code: str) -> None:
    for token, issuer in (
        (minting.jws(nvat_ear("gpu_0", nbf=nbf)), None),
        (service_token(device={"nbf": nbf}), SERVICE),
        (service_token(overall={"nbf": nbf}), SERVICE),
    ):
        with pytest.raises(TokenError) as caught:
            minting.check(token, issuer=issuer)
        assert caught.value.code == code


def test_an_ear_without_an_issuer_is_refused_where_one_is_expected() -> None:
    with pytest.raises(TokenError) as caught:
        minting.check(minting.jws(nvat_ear("gpu_0")), issuer="somebody")
    assert caught.value.code == "missing-iss"


@pytest.mark.parametrize("issuer", ["", None, 7, ["me"]])
@pytest.mark.parametrize("expected", [None, ""])
def test_an_issuer_that_is_no_text_is_refused_whatever_is_expected(issuer: object, expected: str | None) -> None:
    with pytest.raises(TokenError) as caught:
        minting.check(minting.jws(nvat_ear("gpu_0", iss=issuer)), issuer=expected)
    assert caught.value.code == "missing-iss"
    token = minting.forged_eat(
        overall=lambda payload: payload.update(iss=issuer), device=lambda _, payload: payload.update(iss=issuer)
    )
    with pytest.raises(TokenError) as caught:
        minting.check(token, issuer=expected)
    assert caught.value.code == "missing-iss"


@pytest.mark.parametrize(
    ("code", "message", "description", "words"),
    [
        ("4010", "NONCE_NOT_MATCHING", "", "4010 NONCE_NOT_MATCHING"),
        ("4010", "NONCE_NOT_MATCHING", "NONCE_NOT_MATCHING", "4010 NONCE_NOT_MATCHING"),
        ("4010", "NONCE_NOT_MATCHING", "another nonce", "4010 NONCE_NOT_MATCHING: another nonce"),
        ("", "", "another nonce", "no reason given: another nonce"),
        ("4010", "", "", "4010"),
    ],
)
def test_a_reason_is_said_once(code: str, message: str, description: str, words: str) -> None:
    reason = Refusal(
        label="GPU-0", code=code, message=message, description=description, result_code=ResultCode.OVERALL_RESULT_FALSE
    )
    assert str(reason) == f"GPU-0: refused by the issuer: {words}"


def test_the_reasons_of_an_ear_that_says_no_are_kept() -> None:
    verified = minting.check(minting.jws(refused_ear()), issuer=None)
    assert verified.overall is False
    assert verified.result_code is ResultCode.OVERALL_RESULT_FALSE
    (refusal,) = verified.refusals
    assert str(refusal) == "gpu_1: refused by the issuer: 1002 no-root-environment: x\\x1b[2Jy"


@pytest.mark.parametrize(
    "change",
    [
        {"ear_nvidia_error_details": [{"code": 1, "message": "m"}]},
        {"ear_nvidia_error_details": "no reason"},
        {"ear_verifier_claims": {"ear_nvidia_evidence": {"signature_verified": False}}},
        {"ear_verifier_claims": {"ear_nvidia_evidence": {"signature_verified": None}}},
        {"ear_verifier_claims": {"ear_nvidia_evidence": {"signature_verified": True, "nonce_match": False}}},
        {"ear_trustworthiness_vector": {"executables": 96}},
        {"ear_trustworthiness_vector": {"instance_identity": 2, "executables": 33}},
        {"ear_trustworthiness_vector": {"hardware": -40}},
        {"ear.trustworthiness-vector": {"executables": 2}, "ear_trustworthiness_vector": {"executables": 99}},
    ],
)
def test_an_affirming_submodule_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    payload = nvat_ear("gpu_0")
    payload["submods"]["gpu_0"] |= change
    with pytest.raises(TokenError) as caught:
        minting.check(minting.jws(payload), issuer=None)
    assert caught.value.code == "overall-inconsistent"


OLD_NONCE = bytes(32)


@pytest.mark.parametrize(
    ("device", "code"),
    [
        ({"eat_nonce": minting.b64(OLD_NONCE)}, "nonce-mismatch"),
        ({"eat_nonce": OLD_NONCE.hex()}, "nonce-mismatch"),
        ({"eat_nonce": [minting.b64(NONCE.value)]}, "nonce-mismatch"),
        ({"eat_nonce": None}, "nonce-missing"),
        ({"ear_verifier_claims": {"ear_nvidia_evidence": {"signature_verified": True}}}, "nonce-missing"),
        ({"eat_nonce": minting.b64(NONCE.value)}, None),
        ({"eat_nonce": NONCE.hex(), "ear_verifier_claims": {"ear_nvidia_evidence": {"parsed": True}}}, None),
    ],
)
def test_an_affirming_device_of_an_ear_answers_this_request_itself(device: dict[str, Any], code: str | None) -> None:
    # The overall eat_nonce of NVAT echoes what stands beside the evidence: it is right for a recording too.
    payload = nvat_ear("gpu_0", "gpu_1")
    payload["submods"]["gpu_1"] |= device
    if code is None:
        assert minting.check(minting.jws(payload), issuer=None).overall is True
        return
    with pytest.raises(TokenError) as caught:
        minting.check(minting.jws(payload), issuer=None)
    assert caught.value.code == code
    assert "gpu_1" in str(caught.value)
    # A device that is refused for it makes a bad token, not one that must not be believed.
    payload["submods"]["gpu_1"] |= {"ear_status": "contraindicated"}
    payload["ear_status"] = "contraindicated"
    assert minting.check(minting.jws(payload), issuer=None).overall is False


@pytest.mark.parametrize(
    "claims", [[], "x", None, {"ear_nvidia_evidence": [{"signature_verified": False}]}, {"ear_nvidia_evidence": None}]
)
def test_an_affirming_device_whose_facts_cannot_be_read_is_refused(claims: object) -> None:
    payload = nvat_ear("gpu_0")
    payload["submods"]["gpu_0"]["ear_verifier_claims"] = claims
    with pytest.raises(TokenError) as caught:
        minting.check(minting.jws(payload), issuer=None)
    assert caught.value.code == "malformed"


def test_one_attestation_key_under_two_labels_of_an_ear_is_one_device() -> None:
    payload = nvat_ear("gpu_0", "gpu_1")
    for label, key in (
        ("gpu_0", "-----BEGIN PUBLIC KEY-----\nAAAA\n"),
        ("gpu_1", "-----BEGIN PUBLIC KEY-----\r\nAAAA"),
    ):
        payload["submods"][label]["ear_verifier_claims"]["ear_nvidia_evidence"]["akpub"] = key
    with pytest.raises(TokenError) as caught:
        minting.check(minting.jws(payload), issuer=None, expected_gpus=2)
    assert caught.value.code == "device-duplicate"
    payload["submods"]["gpu_1"]["ear_verifier_claims"]["ear_nvidia_evidence"]["akpub"] = "another"
    assert minting.check(minting.jws(payload), issuer=None, expected_gpus=2).overall is True


@pytest.mark.parametrize(
    ("label", "code"), [("gpu_0", 504), ("switch_0", 603), ("nvswitch0", 603), ("SWITCH-0", 603), ("device_0", 504)]
)
def test_the_code_of_a_refused_submodule_follows_its_kind_in_every_spelling(label: str, code: int) -> None:
    payload = nvat_ear(label, ear_status="contraindicated")
    payload["submods"][label] |= {"ear_status": "contraindicated", "ear_nvidia_error_details": [{"code": 4003}]}
    assert int(minting.check(minting.jws(payload), issuer=None).result_code) == code


# --- what the service says of a device that it refuses ---------------------------------------------------------------


def common(**changes: Any) -> dict[str, Any]:
    return {"iss": SERVICE, "iat": ISSUED, "nbf": ISSUED, "exp": ISSUED + 3600, **changes}


def service_token(
    label: str = "GPU-0", *, device: dict[str, Any] | None = None, overall: dict[str, Any] | None = None, **details: Any
) -> Any:
    """A detached EAT of NVIDIA's service that refuses a device, as it was seen in 2026: nothing beside the error."""
    said = {"code": 4010, "httpStatus": "400 BAD_REQUEST", "message": "NONCE_NOT_MATCHING", "description": "a b"}
    part = minting.jws(
        {**common(jti="device"), "x-nvidia-error-details": {**said, **details}, **(device or {})}, typ=None
    )
    payload = {
        **common(jti="overall"),
        "sub": SUBJECT,
        "x-nvidia-ver": "2.0",
        "x-nvidia-overall-att-result": False,
        "eat_nonce": NONCE.hex(),
        "submods": {label: minting.digest(part)},
        **(overall or {}),
    }
    return [["JWT", minting.jws(payload, typ=None)], {label: part}]


@pytest.mark.parametrize(
    ("code", "gpu", "switch"),
    [
        (4003, 504, 603), (4010, 504, 603), (4007, 802, 802), (4014, 802, 802), (4015, 802, 802), (4013, 508, 606),
        (5013, 105, 105), (4005, 12, 12), (9999, 12, 12), ("4010", 504, 603), (None, 12, 12), (True, 12, 12),
    ],
)  # fmt: skip
def test_a_refused_device_has_the_code_that_nvidias_tools_give_it(code: object, gpu: int, switch: int) -> None:
    for label, expected in (("GPU-0", gpu), ("SWITCH-0", switch), ("NVSWITCH-3", switch)):
        verified = minting.check(service_token(label, code=code), issuer=SERVICE, expected_devices=1)
        assert verified.overall is False
        assert int(verified.result_code) == expected
        (refusal,) = verified.refusals
        assert (refusal.label, refusal.message, refusal.description) == (label, "NONCE_NOT_MATCHING", "a b")
        assert refusal.code == ("" if code in (None, True) else str(code))


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (lambda: service_token(overall={"x-nvidia-overall-att-result": True}), "nonce-missing"),
        (
            lambda: service_token(device={"eat_nonce": NONCE.hex()}, overall={"x-nvidia-overall-att-result": True}),
            "overall-inconsistent",
        ),
        (lambda: service_token(device={"eat_nonce": "00" * 32}), "nonce-mismatch"),
        (lambda: service_token(device={"eat_nonce": ""}), "nonce-missing"),
        (lambda: service_token(device={"x-nvidia-error-details": None}), "nonce-missing"),
        (lambda: service_token(overall={"eat_nonce": None}), "nonce-missing"),
        (lambda: service_token(overall={"eat_nonce": "00" * 32}), "nonce-mismatch"),
        (lambda: service_token(device={"exp": ISSUED + 10}), "expired"),
        (lambda: service_token(device={"iss": "somebody"}), "issuer"),
    ],
)
def test_only_the_nonce_of_a_refused_device_may_be_missing(token: Callable[[], Any], code: str) -> None:
    with pytest.raises(TokenError) as caught:
        minting.check(token(), issuer=SERVICE, at=NOW.replace(minute=20))
    assert caught.value.code == code


def test_good_claims_beside_an_error_do_not_make_a_device_good() -> None:
    """The claims of a trusted device, an overall result of true, and an error: a contradiction, not a yes."""

    def add(_: str, payload: dict[str, Any]) -> None:
        payload["x-nvidia-error-details"] = {"code": 4013, "message": "INVALID_EVIDENCE_SIGNATURE"}

    real = replace(minting.appraisal(), simulated=False)
    assert minting.check(minting.forged_eat(of=real)).overall is True
    with pytest.raises(TokenError) as caught:
        minting.check(minting.forged_eat(of=real, device=add))
    assert caught.value.code == "overall-inconsistent"


def test_a_bundle_is_good_until_its_first_part_ends() -> None:
    for position in (0, 1):
        parts = [{}, {}]
        parts[position] = {"exp": ISSUED + 900}
        token = service_token(device=parts[0], overall=parts[1])
        verified = minting.check(token, issuer=SERVICE)
        assert (verified.expires - NOW).total_seconds() == 900


# --- the command ----------------------------------------------------------------------------------------------------


def command(folder: Path, token: object, *options: str) -> int:
    path, jwks = folder / "token", folder / "jwks.json"
    path.write_text(token if isinstance(token, str) else json.dumps(token))
    jwks.write_text(json.dumps(KEY.public.jwks()))
    named = ["--token-file", str(path), "--jwks", str(jwks), "--nonce", NONCE.hex(), "--at", AT]
    return main(["verify-token", *named, *options])


def test_the_command_ends_a_genuine_refusal_as_not_trusted_with_the_issuers_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issuer = ("--issuer", SERVICE)
    assert command(tmp_path, service_token(description="sent 1\x1b[2J\nResult: TRUSTED"), *issuer) == 3
    out, err = capsys.readouterr()
    assert "GPU-0: refused by the issuer: 4010 NONCE_NOT_MATCHING: sent 1\\x1b[2J\\x0aResult: TRUSTED" in out
    assert out.endswith("Result: NOT TRUSTED, code 504 (GPU Evidence Nonce Mismatch)\n")
    assert err == ""
    assert command(tmp_path, service_token(), *issuer, "-f", "json") == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["result_code"], said["token"]["overall"]) == (504, False)
    assert said["refusals"] == [
        {"label": "GPU-0", "code": "4010", "message": "NONCE_NOT_MATCHING", "description": "a b"}
    ]


def test_the_command_takes_an_ear_of_nvat_with_its_key_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = minting.jws(nvat_ear("gpu_0")), minting.jws(refused_ear())
    assert command(tmp_path, good, "--expected-devices", "1") == 0
    assert "ear of an issuer without a name" in capsys.readouterr().out
    assert command(tmp_path, bad, "--expected-devices", "2") == 3
    assert "gpu_1: refused by the issuer: 1002 no-root-environment" in capsys.readouterr().out
    # Who names an issuer gets it, and our own stays the expected one for tokens that name another.
    assert command(tmp_path, good, "--issuer", "somebody") == 1
    assert command(tmp_path, minting.jws(nvat_ear("gpu_0", iss="somebody"))) == 1
    assert "somebody" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["4003", "4010", "NONCE_NOT_MATCHING", "4014", "invalid_rim_signature", "4005"])
def test_the_words_of_the_service_are_explained(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", word]) == 0
    assert "NVIDIA's service: " in capsys.readouterr().out


# --- the wrapper of the Python SDK ----------------------------------------------------------------------------------


def wrapper(**parts: object) -> list[object]:
    return [["JWT", minting.jws(common(), alg="HS256")], parts]


def test_the_token_inside_of_a_python_sdks_list_is_verified_and_the_rest_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = minting.eat(replace(minting.appraisal(), simulated=False))
    verified = minting.check(wrapper(REMOTE_GPU_CLAIMS=real))
    assert (verified.overall, verified.wrapper, verified.labels) == (True, "REMOTE_GPU_CLAIMS", ("GPU-0",))
    assert minting.check(real).wrapper is None
    assert command(tmp_path, wrapper(REMOTE_GPU_CLAIMS=real)) == 0
    assert (
        "taken out of REMOTE_GPU_CLAIMS of a Python SDK's token, whose own signature proves" in capsys.readouterr().out
    )
    assert command(tmp_path, wrapper(REMOTE_GPU_CLAIMS=real), "-f", "json") == 0
    assert json.loads(capsys.readouterr().out)["token"]["wrapper"] == "REMOTE_GPU_CLAIMS"


def test_a_token_beside_the_members_of_the_sdk_is_not_passed_over() -> None:
    real = minting.eat(replace(minting.appraisal(), simulated=False))
    with pytest.raises(TokenError):
        minting.check(wrapper(**{"REMOTE_GPU_CLAIMS": real, "GPU-0": "a.b.c"}))


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ({"REMOTE_GPU_CLAIMS": [], "REMOTE_SWITCH_CLAIMS": []}, "wrapper", "REMOTE_GPU_CLAIMS, REMOTE_SWITCH_CLAIMS"),
        ({"LOCAL_GPU_CLAIMS": [["JWT", "a.b.c"], {}]}, "wrapper", "no token of the remote service"),
        ({"REMOTE_GPU_CLAIMS": {"GPU-0": "a.b.c"}}, "malformed", "REMOTE_GPU_CLAIMS is an object"),
        ({"REMOTE_GPU_CLAIMS": "a.b.c"}, "malformed", "REMOTE_GPU_CLAIMS is a text"),
        ({"REMOTE_GPU_CLAIMS": [["JWT", "a.b.c"], {"REMOTE_GPU_CLAIMS": []}]}, "malformed", None),
        ({"REMOTE_GPU_CLAIMS": [], "GPU-0": []}, "malformed", None),
    ],
)
def test_a_wrapper_that_cannot_be_taken_apart_says_what_to_hand_over(
    parts: dict[str, object], code: str, words: str | None
) -> None:
    with pytest.raises(TokenError, match=words) as caught:
        minting.check(wrapper(**parts))
    assert caught.value.code == code
    assert code != "wrapper" or caught.value.hint


@pytest.mark.parametrize("name", ["attestation-report-cert-chain-validated", "driver-rim-cert-validated"])
def test_a_chain_that_is_false_in_claims_2_contradicts_a_good_result(name: str) -> None:
    of = replace(minting.appraisal(), simulated=False)

    def forged(change: dict[str, Any]) -> Any:
        parts = {
            label: minting.jws(minting.part(token, 1) | change)
            for label, token in minting.eat(of, claims_version="2.0")[1].items()
        }
        top = minting.part(minting.eat(of, claims_version="2.0")[0][1], 1)
        top["submods"] = {label: minting.digest(token) for label, token in parts.items()}
        return [["JWT", minting.jws(top | {"jti": "another"})], parts]

    assert minting.check(forged({})).overall is True
    with pytest.raises(TokenError, match=name) as caught:
        minting.check(forged({f"x-nvidia-gpu-{name}": False}))
    assert caught.value.code == "overall-inconsistent"
