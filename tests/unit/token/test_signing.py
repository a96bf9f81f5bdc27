"""What our tokens say, in whose words, and that schemas and other JWT libraries agree."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt as jose_jwt
from joserfc.jwk import ECKey

from nvattest._package import schema_bytes
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.collateral.folders import read_ocsp_folder, read_rim_folder
from nvattest.errors import InputError, TokenError
from nvattest.evidence import load_evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.session import verify
from nvattest.token.binding import evidence_digest_of
from nvattest.token.claims import ANOTHER_TIME
from nvattest.token.jose import PublicKey, SigningKey

from . import minting

PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def schema(name: str, definition: str = "") -> jsonschema.Draft202012Validator:
    document = json.loads(schema_bytes(name))
    jsonschema.Draft202012Validator.check_schema(document)
    if definition:
        document = {"$defs": document["$defs"], "$ref": f"#/$defs/{definition}"}
    return jsonschema.Draft202012Validator(document)


def test_the_bundle_has_nvidias_shape_and_its_schema() -> None:
    token = minting.eat(minting.appraisal("hopper-8-ppcie"))
    schema("token-eat-1.json").validate(token)
    overall = minting.part(token[0][1], 1)
    schema("token-eat-1.json", "overall").validate(overall)
    assert list(token[1]) == [f"GPU-{i}" for i in range(8)] + [f"SWITCH-{i}" for i in range(4)]
    assert overall["sub"] == "NVIDIA-PLATFORM-ATTESTATION"
    assert overall["x-nvidia-overall-att-result"] is True
    assert overall["eat_nonce"] == minting.NONCE.hex()
    for label, compact in token[1].items():
        assert overall["submods"][label] == ["DIGEST", ["SHA-256", hashlib.sha256(compact.encode()).hexdigest()]]
        payload = minting.part(compact, 1)
        schema("token-eat-1.json", "submodule").validate(payload)
        assert payload["eat_nonce"] == minting.NONCE.hex()
        assert minting.part(compact, 0) == {"alg": "ES384", "kid": minting.KEY.public.thumbprint, "typ": "JWT"}


def test_all_ids_differ_and_times_are_those_that_were_given() -> None:
    token = minting.eat(minting.appraisal("hopper-8-ppcie"), lifetime=timedelta(minutes=5))
    payloads = [minting.part(compact, 1) for compact in (token[0][1], *token[1].values())]
    assert len({payload["jti"] for payload in payloads}) == 13
    assert {(p["iat"], p["nbf"], p["exp"]) for p in payloads} == {
        (int(minting.NOW.timestamp()), int(minting.NOW.timestamp()), int(minting.NOW.timestamp()) + 300)
    }


def test_the_overall_token_says_how_it_was_made() -> None:
    policy = EvidencePolicy(accept_stale_ocsp=True)
    made = minting.appraisal(policy=policy)
    overall = minting.part(minting.eat(made, relying_party={"overrides_appraisal": True})[0][1], 1)
    said = overall["nvattest"]
    assert said["policy"]["weakened"] == ["accept_stale_ocsp", "policy_overrides_appraisal"]
    assert said["simulated"] is True
    assert said["anchors"] == made.anchors
    assert said["evidence"] == {
        "algorithm": "SHA-384",
        "digest": evidence_digest_of(raw("hopper-1")).hex(),
        "devices": 1,
    }
    assert overall["cnf"]["jwk"] == minting.KEY.public.jwk()
    strict = minting.part(minting.eat()[0][1], 1)["nvattest"]
    assert strict["policy"]["weakened"] == []
    assert strict["policy"]["sha256"] != said["policy"]["sha256"]


def test_a_node_that_is_not_trusted_gets_a_token_that_says_so() -> None:
    bad = minting.appraisal("hopper-8-ppcie", ("gpu3:measurement=9",))
    verified = minting.check(minting.eat(bad))
    assert verified.overall is False
    assert [claims["measres"] for claims in verified.claims].count("fail") == 1


def test_a_token_without_a_nonce_of_the_callers_has_none() -> None:
    made = replace(minting.appraisal(), nonce=None)
    assert "eat_nonce" not in minting.part(minting.eat(made)[0][1], 1)
    assert "eat_nonce" not in minting.part(minting.ear(made), 1)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"issuer": ""}, "issuer"),
        ({"issuer": "two words"}, "issuer"),
        ({"lifetime": timedelta(0)}, "lifetime"),
        ({"lifetime": timedelta(days=8)}, "lifetime"),
        ({"now": datetime(2026, 11, 1)}, "time-zone"),  # noqa: DTZ001
        ({"new_id": lambda: "the same id for all"}, "token-id"),
        ({"new_id": lambda: "short"}, "token-id"),
        ({"claims_version": "9.0"}, "claims-version"),
        ({"claims": []}, "claims"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(changes: dict, code: str) -> None:
    with pytest.raises(InputError) as caught:
        minting.eat(minting.appraisal("hopper-8-ppcie"), **changes)
    assert caught.value.code == code


def test_no_devices_make_no_token() -> None:
    for make in (minting.eat, minting.ear):
        with pytest.raises(InputError, match="without devices"):
            make(replace(minting.appraisal(), devices=()))


def raw(name: str) -> list[tuple[bytes, bytes]]:
    from nvattest.testing.platform import Platform

    evidence = Platform.build(name).evidence(minting.NONCE.value)
    return [(item.report, item.certificate_chain) for item in evidence]


def test_the_digest_of_the_evidence_can_be_computed_before_and_depends_on_order() -> None:
    evidence = raw("hopper-8-ppcie")
    overall = minting.part(minting.eat(minting.appraisal("hopper-8-ppcie"))[0][1], 1)
    assert overall["nvattest"]["evidence"]["digest"] == evidence_digest_of(evidence).hex()
    assert evidence_digest_of(evidence[::-1]) != evidence_digest_of(evidence)
    by_hand = hashlib.sha384(b"nvattest evidence digest v1\0" + len(evidence).to_bytes(4, "big"))
    for report, chain in evidence:
        by_hand.update(hashlib.sha256(report).digest() + hashlib.sha256(chain).digest())
    assert evidence_digest_of(evidence) == by_hand.digest()


# Keys.


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    # The example of RFC 7638, 3.1 is RSA; joserfc computes it for any key.
    for signer in (minting.KEY, minting.OTHER):
        other = ECKey.import_key(signer.public.jwk())
        assert signer.public.thumbprint == other.thumbprint()


def test_keys_come_back_from_every_form() -> None:
    private = minting.KEY.private
    public = minting.KEY.public
    assert SigningKey.from_pem(private.private_bytes(*PEM)).public == public
    sec1 = private.private_bytes(PEM[0], serialization.PrivateFormat.TraditionalOpenSSL, PEM[2])
    assert SigningKey.from_pem(sec1).public == public
    spki = private.public_key().public_bytes(PEM[0], serialization.PublicFormat.SubjectPublicKeyInfo)
    assert PublicKey.from_pem(spki) == public
    assert PublicKey.from_jwk(public.jwk()) == public
    schema("jwks-1.json").validate(public.jwks())
    assert "private" not in repr(minting.KEY)


def test_other_keys_are_refused() -> None:
    small = minting.private("small", ec.SECP256R1())
    for pem, code in (
        (small.private_bytes(*PEM), "key-type"),
        (b"no key", "signing-key"),
        (b"x" * 20_000, "signing-key"),
        (
            minting.KEY.private.private_bytes(PEM[0], PEM[1], serialization.BestAvailableEncryption(b"word")),
            "signing-key",
        ),
    ):
        with pytest.raises(InputError) as caught:
            SigningKey.from_pem(pem)
        assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        SigningKey(small)
    assert caught.value.code == "key-type"
    with pytest.raises(InputError, match="private key"):
        PublicKey.from_pem(minting.KEY.private.private_bytes(*PEM))


# Other readers.


def test_pyjwt_and_joserfc_read_every_part() -> None:
    token = minting.eat(minting.appraisal("hopper-8-ppcie"))
    key = minting.KEY.public
    for compact in (token[0][1], *token[1].values(), minting.ear()):
        mine = jwt.decode(
            compact,
            key.native(),
            algorithms=["ES384"],
            options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        assert jose_jwt.decode(compact, ECKey.import_key(key.jwk()), algorithms=["ES384"]).claims == mine


# EAR.


def affirming():
    """A simulated appraisal that claims to be of real devices: what an EAR of a good real node looks like."""
    return replace(minting.appraisal("hopper-8-ppcie"), simulated=False)


def test_the_ear_of_a_good_node_is_affirming_and_follows_its_schema() -> None:
    payload = minting.part(minting.ear(affirming()), 1)
    schema("token-ear-1.json").validate(payload)
    assert {item["ear.status"] for item in payload["submods"].values()} == {"affirming"}
    assert payload["submods"]["gpu0"]["ear.trustworthiness-vector"] == {
        "instance-identity": 2,
        "hardware": 2,
        "executables": 3,
        "configuration": 2,
    }
    assert minting.check(minting.ear(affirming()), accept_simulated=False).overall is True


def test_an_ear_of_simulated_devices_is_never_affirming() -> None:
    verified = minting.check(minting.ear())
    assert verified.overall is False
    assert set(verified.statuses.values()) == {"warning"}


@pytest.mark.parametrize(
    ("lie", "claim", "value"),
    [
        ("blackwell-1/gpu0:debug", "configuration", 96),
        ("gpu0:measurement=9", "executables", 96),
        ("gpu0:revoked=1", "instance-identity", 96),
        ("gpu0:signature", "sourced-data", 99),
        ("gpu0:chain-signature=1", "instance-identity", 97),
    ],
)
def test_what_is_wrong_stands_in_the_vector(lie: str, claim: str, value: int) -> None:
    platform, _, fault = ("hopper-1/" + lie if "/" not in lie else lie).partition("/")
    bad = replace(minting.appraisal(platform, (fault,)), simulated=False)
    payload = minting.part(minting.ear(bad), 1)
    schema("token-ear-1.json").validate(payload)
    assert payload["submods"]["gpu0"]["ear.trustworthiness-vector"][claim] == value
    assert payload["submods"]["gpu0"]["ear.status"] == "contraindicated"
    assert payload["submods"]["platform0"]["ear.status"] == "contraindicated"
    assert minting.check(minting.ear(bad)).overall is False


def test_one_bad_device_leaves_the_others_affirming_and_the_platform_not() -> None:
    bad = replace(minting.appraisal("hopper-8-ppcie", ("gpu3:measurement=9",)), simulated=False)
    statuses = minting.check(minting.ear(bad)).statuses
    assert statuses["gpu3"] == statuses["platform0"] == "contraindicated"
    assert statuses["gpu0"] == statuses["switch0"] == "affirming"


def test_a_weakened_policy_makes_a_warning_of_the_platform() -> None:
    made = replace(minting.appraisal(policy=EvidencePolicy(accept_stale_ocsp=True)), simulated=False)
    assert made.trusted
    assert minting.check(minting.ear(made)).statuses == {"gpu0": "affirming", "platform0": "warning"}


def test_veraisons_reader_finds_what_it_demands() -> None:
    """The Go package: eat_profile is its own, iat, ear.verifier-id and submods there, eat_nonce of 10 to 74 characters;
    in an appraisal ear.status; in a vector only the eight names."""
    payload = minting.part(minting.ear(affirming()), 1)
    assert payload["eat_profile"] == "tag:github.com,2023:veraison/ear"
    assert isinstance(payload["iat"], int)
    assert set(payload["ear.verifier-id"]) == {"developer", "build"}
    assert 10 <= len(payload["eat_nonce"]) <= 74
    names = {
        "instance-identity", "configuration", "executables", "file-system",
        "hardware", "runtime-opaque", "storage-opaque", "sourced-data",
    }  # fmt: skip
    for item in payload["submods"].values():
        assert item["ear.status"] in ("none", "affirming", "warning", "contraindicated")
        assert set(item["ear.trustworthiness-vector"]) <= names
        assert isinstance(item["ear.appraisal-policy-id"], str)


def test_trustees_reader_finds_what_it_demands() -> None:
    """The Rust crate and the key broker: exp and nbf, an alg in the JWKS, submodules gpuN and switchN whose members are
    all known to it, NVIDIA's claims under ear.veraison.annotated-evidence."""
    payload = minting.part(minting.ear(affirming()), 1)
    known = {
        "ear.status", "ear.trustworthiness-vector", "ear.appraisal-policy-id", "ear.veraison.annotated-evidence",
    }  # fmt: skip
    assert {"exp", "nbf", "iss"} <= set(payload)
    assert all(set(item) <= known for item in payload["submods"].values())
    assert payload["submods"]["gpu7"]["ear.veraison.annotated-evidence"]["nvidia"]["measres"] == "success"
    assert (
        payload["submods"]["switch3"]["ear.veraison.annotated-evidence"]["nvidia"]["x-nvidia-device-type"] == "nvswitch"
    )
    assert minting.KEY.public.jwk()["alg"] == "ES384"


def test_a_real_hopper_gets_tokens_that_verify_for_real(real_data: Path) -> None:
    nonce = Nonce.from_hex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")
    collateral = read_rim_folder(str(real_data / "rim")).merged(read_ocsp_folder(str(real_data / "ocsp")))
    made = verify(
        load_evidence((real_data / "evidence" / "hopper-550.90.07-nvtrust.json").read_bytes()),
        collateral=collateral,
        nonce=nonce,
        at=VerificationTime.parse("device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"),
    )
    assert made.trusted, made.failures
    verified = minting.check(minting.eat(made), nonce=nonce, accept_simulated=False, expected_devices=1)
    assert (verified.overall, verified.simulated, verified.anchors) == (True, False, "NVIDIA")
    assert (verified.at, verified.weakened) == (made.at, (ANOTHER_TIME,))
    verified = minting.check(minting.ear(made), nonce=nonce, accept_simulated=False)
    # The recording is genuine; what it was good at is not now, and the token says so.
    assert verified.weakened == (ANOTHER_TIME,)
    assert verified.statuses == {"gpu0": "affirming", "platform0": "warning"}
    assert verified.overall is False


@pytest.mark.parametrize(
    ("device", "rim", "name"),
    [
        (0, 0, ()), (3600, -3600, ()), (3601, 0, (ANOTHER_TIME,)), (0, -3601, (ANOTHER_TIME,)),
        (-86400, -86400, (ANOTHER_TIME,)),
    ],
)  # fmt: skip
def test_a_judgement_at_another_time_than_that_of_issue_is_a_weakening_by_name(
    device: int, rim: int, name: tuple[str, ...]
) -> None:
    at = VerificationTime(device=minting.NOW + timedelta(seconds=device), rim=minting.NOW + timedelta(seconds=rim))
    made = replace(minting.appraisal(), at=at, simulated=False, anchors="NVIDIA")
    strict = {"accept_simulated": False, "refuse_weakened": True}
    for token, good in ((minting.eat(made), True), (minting.ear(made), not name)):
        verified = minting.check(token)
        assert (verified.overall, verified.at, verified.weakened) == (good, at, name)
        if not name:
            assert minting.check(token, **strict).at == at
            continue
        with pytest.raises(TokenError, match="judged-at-another-time") as caught:
            minting.check(token, **strict)
        assert caught.value.code == "weakened"


def test_an_issuer_that_keeps_silent_about_another_time_does_not_hide_it() -> None:
    """The tokens of 1.0.0 say when they were judged, and nothing of it among their weakenings."""
    at = VerificationTime.at(minting.NOW - timedelta(days=400))
    made = replace(minting.appraisal(), at=at, simulated=False, anchors="NVIDIA")

    def silent(payload: dict[str, Any]) -> None:
        payload["nvattest"]["policy"]["weakened"] = []

    for token in (minting.forged_eat(of=made, overall=silent), minting.forged_ear(silent, made)):
        assert minting.check(token).weakened == (ANOTHER_TIME,)


def test_another_time_does_not_loosen_what_a_good_device_has_to_show() -> None:
    made = replace(minting.appraisal(), at=VerificationTime.at(minting.NOW - timedelta(days=1)), simulated=False)

    def undo(_: str, payload: dict[str, Any]) -> None:
        payload["dbgstat"] = None

    with pytest.raises(TokenError, match="dbgstat"):
        minting.check(minting.forged_eat(of=made, device=undo))


@pytest.mark.parametrize(
    "at", [None, "2026-11-01T12:00:00Z", {"device": "2026-11-01T12:00:00Z"}, {"device": 1, "rim": 2}]
)
def test_a_member_of_ours_without_its_instant_is_refused(at: object) -> None:
    with pytest.raises(TokenError) as caught:
        minting.check(minting.forged_eat(overall=lambda payload: payload["nvattest"].update(at=at)))
    assert caught.value.code == "malformed"
