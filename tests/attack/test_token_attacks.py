"""Attacks on tokens, one line each: what is done, and the reason for which it is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from joserfc import jwt as jose_jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from nvattest.errors import InputError, NvattestError, ResultCode, TokenError
from nvattest.model import Nonce
from nvattest.token.verified import TokenKind

from ..unit.token import minting  # noqa: TID252 - one writer of forged tokens for both folders
from ..unit.token.minting import (  # noqa: TID252
    KEY,
    NOW,
    OTHER,
    b64,
    digest,
    eat,
    forged_ear,
    forged_eat,
    jws,
    part,
    raw_jws,
)

Edit = Callable[[dict[str, Any]], None]


def put(**members: Any) -> Edit:
    return lambda payload: payload.update(members)


def drop(name: str) -> Edit:
    return lambda payload: payload.pop(name)


def everywhere(edit: Edit) -> Any:
    return forged_eat(overall=edit, device=lambda _label, payload: edit(payload))


def only_device(edit: Edit) -> Any:
    return forged_eat(device=lambda _label, payload: edit(payload))


def node() -> Any:
    return eat(minting.appraisal("hopper-8-ppcie"))


def with_overall(token: Any, change: Callable[[str], str]) -> Any:
    return [["JWT", change(token[0][1])], token[1]]


def hs256(secret: bytes) -> Callable[[str], str]:
    def make(compact: str) -> str:
        payload = compact.split(".")[1]
        signed = f"{b64(json.dumps({'alg': 'HS256', 'kid': KEY.public.thumbprint}).encode())}.{payload}"
        return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"

    return make


def unsigned(alg: str) -> Callable[[str], str]:
    return lambda compact: f"{b64(json.dumps({'alg': alg}).encode())}.{compact.split('.')[1]}."


def jwk_text() -> bytes:
    return json.dumps(KEY.public.jwk()).encode()


def flip(text: str, position: int) -> str:
    position %= len(text)
    return text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]


def swapped() -> Any:
    token = node()
    parts = dict(token[1])
    parts["GPU-0"], parts["GPU-1"] = parts["GPU-1"], parts["GPU-0"]
    return [token[0], parts]


def repeated() -> Any:
    token = node()
    return [token[0], {**token[1], "GPU-1": token[1]["GPU-0"]}]


def one_device_shown_twice() -> Any:
    """By a dishonest issuer: two good tokens about one device, ids and digests right."""
    (_, top), parts = eat()
    payload = part(parts["GPU-0"], 1)
    made = {"GPU-0": parts["GPU-0"], "GPU-1": jws({**payload, "jti": "another id that is new"})}
    overall = part(top, 1) | {"submods": {label: digest(token) for label, token in made.items()}}
    return [["JWT", jws(overall)], made]


def payload_digest() -> Any:
    token = eat()
    payload = token[1]["GPU-0"].split(".")[1]
    wrong = hashlib.sha256(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))).hexdigest()
    overall = part(token[0][1], 1) | {"submods": {"GPU-0": ["DIGEST", ["SHA-256", wrong]]}}
    return [["JWT", jws(overall)], token[1]]


def digest_as(value: Any) -> Any:
    token = eat()
    return [["JWT", jws(part(token[0][1], 1) | {"submods": {"GPU-0": value}})], token[1]]


def part_of_another_bundle() -> Any:
    """A good device token of a node that was good yesterday, under today's overall token."""
    return [eat()[0], eat(now=NOW + timedelta(seconds=1))[1]]


def repeated_member() -> Any:
    token = eat()
    payload = json.dumps(part(token[0][1], 1))
    text = payload[:-1] + ', "x-nvidia-overall-att-result": true}'
    header = json.dumps(part(token[0][1], 0)).encode()
    return [["JWT", raw_jws(header, text.encode())], token[1]]


def repeated_header() -> Any:
    token = eat()
    header = f'{{"alg": "HS256", "alg": "ES384", "kid": "{KEY.public.thumbprint}"}}'
    return [["JWT", raw_jws(header.encode(), json.dumps(part(token[0][1], 1)).encode())], token[1]]


def kind_lie() -> Any:
    (_, top), parts = eat()
    made = {"SWITCH-0": parts["GPU-0"]}
    return [["JWT", jws(part(top, 1) | {"submods": {"SWITCH-0": digest(parts["GPU-0"])}})], made]


def json_serialization() -> str:
    header, payload, signature = eat()[0][1].split(".")
    one = {"protected": header, "signature": signature}
    return json.dumps({"payload": payload, "signatures": [one, one]})


def with_header(**header: Any) -> Any:
    return forged_eat(header=header)


ATTACKS: dict[str, tuple[Callable[[], Any], str]] = {
    # Algorithms and headers.
    "alg none": (lambda: with_overall(eat(), unsigned("none")), "alg-none"),
    "alg NoNe": (lambda: with_overall(eat(), unsigned("NoNe")), "alg-none"),
    "a device with alg none": (
        lambda: [eat()[0], {"GPU-0": unsigned("none")(eat()[1]["GPU-0"])}],
        "alg-none",
    ),
    "HS256": (lambda: with_overall(eat(), hs256(b"notasecret")), "alg-not-allowed"),
    "HS256 with the public key as the secret": (lambda: with_overall(eat(), hs256(jwk_text())), "alg-not-allowed"),
    "ES256": (lambda: with_header(alg="ES256"), "alg-not-allowed"),
    "RS384": (lambda: with_header(alg="RS384"), "alg-not-allowed"),
    "no alg": (lambda: with_header(alg=None), "alg-not-allowed"),
    "an array as alg": (lambda: with_header(alg=["ES384"]), "alg-not-allowed"),
    "crit": (lambda: with_header(crit=["exp"]), "crit"),
    "an empty crit": (lambda: with_header(crit=[]), "crit"),
    "unencoded payload": (lambda: with_header(b64=False), "header-key"),
    "the attacker's key in the header": (
        lambda: forged_eat(key=OTHER, header={"jwk": OTHER.public.jwk(), "kid": KEY.public.thumbprint}),
        "header-key",
    ),
    "the attacker's URL in the header": (lambda: with_header(jku="https://example.com/jwks.json"), "header-key"),
    "x5u": (lambda: with_header(x5u="https://example.com/chain.pem"), "header-key"),
    "another type of token": (lambda: with_header(typ="at+jwt"), "typ"),
    "a kid that is no text": (lambda: with_header(kid=7), "malformed"),
    "no kid": (lambda: with_header(kid=None), "kid-missing"),
    "a kid of another issuer": (lambda: forged_eat(key=OTHER), "kid-unknown"),
    "a kid that climbs folders": (lambda: with_header(kid="../../dev/null"), "kid-unknown"),
    "our kid over another's signature": (
        lambda: forged_eat(
            key=OTHER, header={"kid": KEY.public.thumbprint}, device_header={"kid": KEY.public.thumbprint}
        ),
        "signature",
    ),
    "a device signed by somebody else": (
        lambda: forged_eat_device_by(OTHER),
        "signature",
    ),
    # Signatures and encodings.
    "a changed signature": (lambda: with_overall(eat(), lambda text: flip(text, -20)), "signature"),
    "a changed payload": (lambda: with_overall(eat(), change_payload), "signature"),
    "a signature of zeros": (
        lambda: with_overall(eat(), lambda text: text.rpartition(".")[0] + "." + b64(bytes(96))),
        "signature",
    ),
    "a DER signature": (
        lambda: with_overall(eat(), lambda text: text.rpartition(".")[0] + "." + b64(b"0" * 104)),
        "signature",
    ),
    "no signature": (lambda: with_overall(eat(), lambda text: text.rpartition(".")[0] + "."), "signature"),
    "two signatures": (json_serialization, "json-serialization"),
    "two signatures in a bundle": (
        lambda: with_overall(eat(), lambda _text: json_serialization()),
        "json-serialization",
    ),
    "two parts": (lambda: with_overall(eat(), lambda text: text.rpartition(".")[0]), "malformed"),
    "four parts": (lambda: with_overall(eat(), lambda text: text + ".AAAA"), "malformed"),
    "padding": (lambda: with_overall(eat(), lambda text: text.replace(".", "=.", 1)), "malformed"),
    "loose last bits": (lambda: with_overall(eat(), lambda text: "eyJh." + text.split(".", 1)[1]), "malformed"),
    "a header that is an array": (
        lambda: with_overall(eat(), lambda t: b64(b"[]") + "." + t.split(".", 1)[1]),
        "malformed",
    ),
    "a payload that is a text": (lambda: with_overall(eat(), lambda _t: raw_jws(HEADER, b'"x"')), "malformed"),
    "a payload that is not UTF-8": (
        lambda: with_overall(eat(), lambda _t: raw_jws(HEADER, b'{"\xff": 1}')),
        "malformed",
    ),
    "a lone surrogate": (lambda: with_overall(eat(), lambda _t: raw_jws(HEADER, b'{"a": "\\ud800"}')), "malformed"),
    "a nesting bomb": (lambda: with_overall(eat(), lambda _t: raw_jws(HEADER, b"[" * 100_000)), "malformed"),
    "a number bomb": (
        lambda: with_overall(eat(), lambda _t: raw_jws(HEADER, b'{"exp": ' + b"9" * 100_000 + b"}")),
        "malformed",
    ),
    "a claim twice": (repeated_member, "duplicate-key"),
    "a header member twice": (repeated_header, "duplicate-key"),
    "10 MB of claims": (lambda: json.dumps(only_device(put(padding="A" * 10_000_000))).encode(), "too-large"),
    "10 MB of claims as an object": (lambda: only_device(put(padding="A" * 10_000_000)), "too-large"),
    "10 MB of nothing": (lambda: "A" * 10_000_000, "too-large"),
    "not UTF-8": (lambda: b"\xff", "malformed"),
    "nothing": (lambda: b"", "malformed"),
    "a number": (lambda: 7, "malformed"),
    "the output of attest": (lambda: json.dumps({"detached_eat": eat()}), "malformed"),
    # Times.
    "no exp": (lambda: everywhere(drop("exp")), "missing-exp"),
    "no exp in a device": (lambda: only_device(drop("exp")), "missing-exp"),
    "no iat": (lambda: everywhere(drop("iat")), "missing-iat"),
    "no iss": (lambda: everywhere(drop("iss")), "missing-iss"),
    "no jti": (lambda: everywhere(drop("jti")), "missing-jti"),
    "exp as a text": (lambda: everywhere(put(exp="9999999999")), "malformed"),
    "exp as true": (lambda: everywhere(put(exp=True)), "malformed"),
    "exp as a fraction": (lambda: everywhere(put(exp=1e12)), "malformed"),
    "exp beyond the calendar": (lambda: everywhere(put(exp=10**15)), "malformed"),
    "exp infinite": (lambda: with_overall(eat(), lambda _t: raw_jws(HEADER, b'{"exp": Infinity}')), "malformed"),
    "expired": (lambda: eat(now=NOW - timedelta(hours=2)), "expired"),
    "a device expired": (lambda: only_device(put(iat=1, nbf=1, exp=1000)), "expired"),
    "not yet valid": (lambda: eat(now=NOW + timedelta(hours=1)), "not-yet-valid"),
    "issued in the future": (lambda: everywhere(put(iat=int(NOW.timestamp()) + 3000)), "not-yet-valid"),
    "ends before it begins": (lambda: everywhere(put(exp=1)), "times"),
    "ends as it begins": (lambda: everywhere(lambda payload: payload.update(nbf=payload["exp"])), "times"),
    "ends as it is issued": (lambda: everywhere(lambda payload: payload.update(iat=payload["exp"])), "times"),
    # Issuer, subject, nonce.
    "another issuer": (lambda: eat(issuer="NVAT-LOCAL-VERIFIER"), "issuer"),
    "an issuer with a slash": (lambda: eat(issuer="NVATTEST-LOCAL-VERIFIER/"), "issuer"),
    "a device of another issuer": (lambda: only_device(put(iss="https://example.com")), "issuer"),
    "another subject": (lambda: forged_eat(overall=put(sub="me")), "subject"),
    "no nonce": (lambda: everywhere(drop("eat_nonce")), "nonce-missing"),
    "an empty nonce": (lambda: everywhere(put(eat_nonce="")), "nonce-missing"),
    "a nonce only in the outer token": (lambda: only_device(drop("eat_nonce")), "nonce-missing"),
    "a nonce only in the devices": (lambda: forged_eat(overall=drop("eat_nonce")), "nonce-missing"),
    "another nonce": (lambda: everywhere(put(eat_nonce="00" * 32)), "nonce-mismatch"),
    "another nonce in a device": (lambda: only_device(put(eat_nonce="00" * 32)), "nonce-mismatch"),
    "several nonces": (lambda: everywhere(put(eat_nonce=[minting.NONCE.hex(), "00" * 32])), "nonce-mismatch"),
    # Submodules.
    "submodules swapped": (swapped, "digest"),
    "a submodule repeated": (repeated, "submods-duplicate"),
    "one id for all": (lambda: everywhere(put(jti="the one and only id")), "submods-duplicate"),
    "a submodule twice in the JSON": (
        lambda: json.dumps(eat())[:-2] + ', "GPU-0": "x"}]',
        "duplicate-key",
    ),
    "a submodule of another bundle": (part_of_another_bundle, "digest"),
    "a digest of the payload": (payload_digest, "digest"),
    "a digest in capitals": (
        lambda: digest_as(["DIGEST", ["SHA-256", digest(eat()[1]["GPU-0"])[1][1].upper()]]),
        "digest",
    ),
    "an MD5 digest": (lambda: digest_as(["DIGEST", ["MD5", "00" * 16]]), "digest-algorithm"),
    "a digest without a label": (lambda: digest_as(["DIGEST", ["00" * 32]]), "digest-algorithm"),
    "a nested token for a digest": (lambda: digest_as(["JWT", eat()[1]["GPU-0"]]), "malformed"),
    "a missing submodule": (
        lambda: [node()[0], {k: v for k, v in node()[1].items() if k != "GPU-5"}],
        "submods-missing",
    ),
    "a surplus submodule": (lambda: [eat()[0], {**eat()[1], "GPU-1": jws({"a": 1})}], "submods-extra"),
    "no submodules": (lambda: [eat()[0], {}], "submods-missing"),
    "no submods claim": (lambda: forged_eat(overall=drop("submods")), "submods-missing"),
    "65 submodules": (lambda: [eat()[0], {f"GPU-{i}": str(i) for i in range(65)}], "too-large"),
    "a submodule with a strange name": (lambda: [eat()[0], {"GPU-0\n": eat()[1]["GPU-0"]}], "malformed"),
    "a submodule that is no text": (lambda: [eat()[0], {"GPU-0": 1}], "malformed"),
    "one member only": (lambda: [eat()[0]], "malformed"),
    "CBOR for JWT": (lambda: [["CBOR", eat()[0][1]], eat()[1]], "malformed"),
    # Devices.
    "one device under two names": (one_device_shown_twice, "device-duplicate"),
    "a GPU called a switch": (kind_lie, "device-kind"),
    # A verdict that its own parts contradict.
    "overall not a boolean": (lambda: forged_eat(overall=put(**{"x-nvidia-overall-att-result": "true"})), "malformed"),
    "good beside a measurement that failed": (lambda: only_device(put(measres="fail")), "overall-inconsistent"),
    "good beside a bad signature": (
        lambda: only_device(put(**{"x-nvidia-gpu-attestation-report-signature-verified": False})),
        "overall-inconsistent",
    ),
    "good beside a signature that nobody looked at": (
        lambda: only_device(drop("x-nvidia-gpu-attestation-report-signature-verified")),
        "overall-inconsistent",
    ),
    "good beside 1 for true": (
        lambda: only_device(put(**{"x-nvidia-gpu-attestation-report-signature-verified": 1})),
        "overall-inconsistent",
    ),
    "good beside another nonce in the report": (
        lambda: only_device(put(**{"x-nvidia-gpu-attestation-report-nonce-match": False})),
        "overall-inconsistent",
    ),
    "good beside mismatch records": (
        lambda: only_device(put(**{"x-nvidia-mismatch-measurement-records": []})),
        "overall-inconsistent",
    ),
    "good beside debug": (lambda: only_device(put(dbgstat="enabled")), "overall-inconsistent"),
    "good beside no device identity": (lambda: only_device(put(ueid="")), "overall-inconsistent"),
    "good beside a revoked RIM": (
        lambda: only_device(
            put(
                **{
                    "x-nvidia-gpu-driver-rim-cert-chain": {
                        "x-nvidia-cert-status": "valid",
                        "x-nvidia-cert-ocsp-status": "revoked",
                    }
                }
            )
        ),
        "overall-inconsistent",
    ),
    "good beside an unsigned RIM": (
        lambda: only_device(put(**{"x-nvidia-gpu-driver-rim-signature-verified": False})),
        "overall-inconsistent",
    ),
    "good made of bad": (
        lambda: forged_eat(
            of=minting.appraisal("hopper-8-ppcie", ("gpu3:measurement=9",)),
            overall=put(**{"x-nvidia-overall-att-result": True}),
        ),
        "overall-inconsistent",
    ),
    # What nvattest says of its own tokens.
    "another key confirmed": (lambda: forged_eat(overall=put(cnf={"jwk": OTHER.public.jwk()})), "cnf"),
    "no key confirmed": (lambda: forged_eat(overall=drop("cnf")), "malformed"),
    "provenance that cannot be read": (lambda: forged_eat(overall=put(nvattest={"simulated": "no"})), "malformed"),
    # EARs.
    "an EAR without nonce": (lambda: forged_ear(drop("eat_nonce")), "nonce-missing"),
    "an EAR without exp": (lambda: forged_ear(drop("exp")), "missing-exp"),
    "an EAR without profile": (lambda: forged_ear(drop("eat_profile")), "malformed"),
    "an EAR without submodules": (lambda: forged_ear(put(submods={})), "submods-missing"),
    "an EAR with a status of its own": (
        lambda: forged_ear(lambda p: p["submods"]["gpu0"].update({"ear.status": "fine"})),
        "malformed",
    ),
    "an EAR with two statuses": (
        lambda: forged_ear(lambda p: p["submods"]["gpu0"].update({"ear_status": "affirming"})),
        "malformed",
    ),
    "an EAR better than its vector": (
        lambda: forged_ear(lambda p: p["submods"]["gpu0"].update({"ear.status": "affirming"})),
        "overall-inconsistent",
    ),
    "an EAR better than its claims": (lambda: forged_ear(better_than_claims), "overall-inconsistent"),
    "an EAR better than its submodules": (lambda: forged_ear(put(ear_status="affirming")), "overall-inconsistent"),
    "an EAR with a vector of texts": (
        lambda: forged_ear(lambda p: p["submods"]["gpu0"].update({"ear.trustworthiness-vector": {"hardware": "2"}})),
        "malformed",
    ),
    "an EAR about one device twice": (
        lambda: forged_ear(lambda p: p["submods"].update({"gpu1": p["submods"]["gpu0"]})),
        "device-duplicate",
    ),
    "an EAR with alg none": (lambda: unsigned("none")(minting.ear()), "alg-none"),
    "an EAR of somebody else": (lambda: minting.ear(key=OTHER), "kid-unknown"),
    "a device's token as an EAR": (lambda: eat()[1]["GPU-0"], "malformed"),
    "the overall token as an EAR": (lambda: eat()[0][1], "malformed"),
    "an EAR as a device": (lambda: [eat()[0], {"GPU-0": minting.ear()}], "digest"),
}

HEADER = json.dumps({"alg": "ES384", "kid": KEY.public.thumbprint}).encode()


def better_than_claims(payload: dict[str, Any]) -> None:
    for item in payload["submods"].values():
        item["ear.status"] = "affirming"
        item.pop("ear.trustworthiness-vector")
    payload["submods"]["gpu0"]["ear.veraison.annotated-evidence"]["nvidia"]["measres"] = "fail"


def change_payload(text: str) -> str:
    header, payload, signature = text.split(".")
    members = part(text, 1) | {"x-nvidia-ver": "9.9"}
    assert payload != b64(json.dumps(members).encode())
    return f"{header}.{b64(json.dumps(members).encode())}.{signature}"


def forged_eat_device_by(key: Any) -> Any:
    (_, top), parts = eat()
    made = {"GPU-0": jws(part(parts["GPU-0"], 1), key, kid=KEY.public.thumbprint)}
    return [["JWT", jws(part(top, 1) | {"submods": {"GPU-0": digest(made["GPU-0"])}})], made]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_with_its_own_reason(name: str) -> None:
    make, code = ATTACKS[name]
    token = make()
    started = time.perf_counter()
    with pytest.raises(TokenError) as caught:
        minting.check(token)
    assert time.perf_counter() - started < 2, "it took long"
    assert caught.value.code == code, caught.value
    assert caught.value.result_code is not ResultCode.OK
    assert str(caught.value)
    if code.startswith("nonce-"):
        assert caught.value.result_code is ResultCode.NONCE_MISMATCH


def test_a_token_given_as_objects_that_json_cannot_hold_is_refused() -> None:
    for parts in ({1: "a.b.c"}, {None: "a.b.c"}, {"GPU-0": b"a.b.c"}, {1: "a.b.c", "REMOTE_GPU_CLAIMS": []}):
        with pytest.raises(TokenError) as caught:
            minting.check([["JWT", "a.b.c"], parts])
        assert caught.value.code == "malformed"


def test_what_the_attacks_start_from_is_good() -> None:
    for token in (eat(), json.dumps(eat()), json.dumps(eat()).encode(), forged_eat(), node()):
        assert minting.check(token).overall is True


def test_simulated_devices_are_refused_unless_they_are_asked_for() -> None:
    for token in (eat(), minting.ear()):
        with pytest.raises(TokenError) as caught:
            minting.check(token, accept_simulated=False)
        assert caught.value.code == "simulated"


def test_what_is_expected_has_to_be_there() -> None:
    good = node()
    assert minting.check(good, expected_devices=12).overall
    assert minting.check(minting.ear(minting.appraisal("hopper-8-ppcie")), expected_devices=12).labels
    for changes, code in (
        ({"expected_devices": 11}, "device-count"),
        ({"expected_devices": 13}, "device-count"),
        ({"nonce": Nonce(bytes(32))}, "nonce-mismatch"),
        ({"issuer": "nvattest-local-verifier"}, "issuer"),
        ({"kind": TokenKind.EAR}, "kind"),
        ({"jwks": None}, "key-missing"),
        ({"jwks": OTHER.public.jwks()}, "kid-unknown"),
        ({"at": NOW + timedelta(seconds=3661), "leeway": timedelta(seconds=60)}, "expired"),
        ({"at": NOW - timedelta(seconds=61)}, "not-yet-valid"),
        ({"at": NOW + timedelta(hours=1), "leeway": timedelta(0)}, "expired"),
    ):
        with pytest.raises(TokenError) as caught:
            minting.check(good, **changes)
        assert caught.value.code == code
    with pytest.raises(TokenError) as caught:
        minting.check(minting.ear(), kind=TokenKind.DETACHED_EAT)
    assert caught.value.code == "kind"


@pytest.mark.parametrize("form", ["detached-eat", "ear"])
def test_gpus_and_switches_are_counted_apart(form: str) -> None:
    token = node() if form == "detached-eat" else minting.ear(minting.appraisal("hopper-8-ppcie"))
    assert minting.check(token, expected_gpus=8, expected_switches=4, expected_devices=12).labels
    assert minting.check(token, expected_gpus=8).labels
    assert minting.check(token, expected_switches=4).labels
    for changes in (
        {"expected_gpus": 7},
        {"expected_gpus": 12},
        {"expected_gpus": 4, "expected_switches": 8},
        {"expected_switches": 0},
        {"expected_gpus": 8, "expected_switches": 5},
    ):
        with pytest.raises(TokenError, match="expected") as caught:
            minting.check(token, **changes)
        assert caught.value.code == "device-count"


def test_four_gpus_and_four_switches_are_not_eight_gpus() -> None:
    world = minting.appraisal("hopper-8-ppcie")
    some = replace(world, devices=world.devices[4:])
    token = minting.ear(some)
    assert minting.check(token, expected_devices=8).labels
    with pytest.raises(TokenError, match="about 4 GPUs, expected 8") as caught:
        minting.check(token, expected_gpus=8)
    assert caught.value.code == "device-count"


def test_a_name_that_tells_no_kind_is_counted_as_neither() -> None:
    def rename(payload: dict[str, Any]) -> None:
        payload["submods"]["device_0"] = payload["submods"].pop("gpu0")

    token = minting.forged_ear(rename)
    assert minting.check(token, expected_devices=1).labels
    for changes in ({"expected_gpus": 1}, {"expected_switches": 0}):
        with pytest.raises(TokenError, match="device_0") as caught:
            minting.check(token, **changes)
        assert caught.value.code == "device-count"


def test_the_leeway_is_kept_to_the_second() -> None:
    assert minting.check(eat(), at=NOW - timedelta(seconds=60)).labels
    assert minting.check(eat(), at=NOW + timedelta(seconds=3659)).labels
    assert minting.check(eat(), at=NOW, leeway=timedelta(0)).labels
    assert minting.check(eat(), issuer=None).issuer == "NVATTEST-LOCAL-VERIFIER"


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": None},
        {"nonce": minting.NONCE.hex()},
        {"at": datetime(2026, 11, 1)},  # noqa: DTZ001
        {"leeway": timedelta(days=1)},
        {"leeway": timedelta(seconds=-1)},
        {"expected_devices": 0},
        {"jwks": b"{}"},
        {"jwks": None, "key": b"no key"},
        {"jwks": None, "key": "no key"},
        {"jwks": None, "key": 7},
        {"jwks": None, "x5c_roots": "no certificate"},
        {"jwks": None, "x5c_roots": Path("roots.pem")},
        {"at": None},
        {"leeway": 60},
        {"expected_devices": "1"},
        {"expected_devices": True},
        {"expected_gpus": -1},
        {"expected_gpus": "8"},
        {"expected_switches": True},
        {"expected_gpus": 0, "expected_switches": 0},
        {"expected_gpus": 8, "expected_switches": 4, "expected_devices": 8},
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        minting.check(eat(), **changes)


@pytest.mark.parametrize("weakened", [None, "allow_debug", {"allow_debug": True}, [1], ["allow_debug", None], [[]]])
def test_weakenings_that_are_no_list_of_names_are_refused(weakened: object) -> None:
    def weak(payload: dict[str, Any]) -> None:
        if "nvattest" in payload:
            payload["nvattest"]["policy"]["weakened"] = weakened

    with pytest.raises(TokenError) as caught:
        minting.check(forged_eat(overall=weak))
    assert caught.value.code == "malformed"


def test_a_weakened_token_may_say_what_was_weakened_and_no_more() -> None:
    def weak(payload: dict[str, Any]) -> None:
        if "nvattest" in payload:
            payload["nvattest"]["policy"]["weakened"] = ["allow_debug"]

    soft = forged_eat(overall=weak, device=lambda _label, payload: payload.update(dbgstat=None))
    assert minting.check(soft).weakened == ("allow_debug",)
    hard = forged_eat(overall=weak, device=lambda _label, payload: payload.update(measres="fail"))
    with pytest.raises(TokenError) as caught:
        minting.check(hard)
    assert caught.value.code == "overall-inconsistent"


def test_an_override_has_to_stand_among_the_weakenings() -> None:
    def hidden(payload: dict[str, Any]) -> None:
        payload["nvattest"]["relying_party_policy"] = {"overrides_appraisal": True}

    with pytest.raises(TokenError) as caught:
        minting.check(forged_eat(overall=hidden))
    assert caught.value.code == "malformed"


def test_a_token_never_says_yes_where_the_policy_applied_to_it_said_no() -> None:
    said = {"matched": False, "overrides_appraisal": False}
    assert minting.check(eat(relying_party=said)).overall is False
    real = replace(minting.appraisal(), simulated=False)
    verified = minting.check(minting.ear(real, relying_party=said))
    assert (verified.overall, verified.statuses) == (False, {"gpu0": "affirming", "platform0": "contraindicated"})
    assert minting.check(minting.ear(real, relying_party={**said, "matched": True})).overall is True

    def lie(payload: dict[str, Any]) -> None:
        payload["nvattest"]["relying_party_policy"] = said

    with pytest.raises(TokenError) as caught:
        minting.check(forged_eat(overall=lie))
    assert caught.value.code == "malformed"


def test_weakened_policies_and_other_anchors_are_refused_where_that_is_asked_for() -> None:
    def made(anchors: str, *weakened: str) -> Any:
        def change(payload: dict[str, Any]) -> None:
            payload["nvattest"]["anchors"] = anchors
            payload["nvattest"]["policy"]["weakened"] = list(weakened)

        return forged_eat(overall=change)

    assert minting.check(made("NVIDIA"), refuse_weakened=True).overall
    for token in (made("custom"), made("NVIDIA", "accept_stale_ocsp")):
        assert minting.check(token).overall
        with pytest.raises(TokenError) as caught:
            minting.check(token, refuse_weakened=True)
        assert caught.value.code == "weakened"


NVIDIA_JWKS = "https://nras.attestation.nvidia.com/.well-known/jwks.json"


@pytest.mark.parametrize(
    ("issuer", "url", "kind", "anchors", "refused"),
    [
        ("https://nras.attestation.nvidia.com", NVIDIA_JWKS, "nras", None, False),
        ("https://nras.attestation.nvidia.com", None, "nras", None, False),
        ("https://nras.attestation.nvidia.com", None, "detached-eat", None, False),
        # Under NVIDIA's name, and the key from somewhere else.
        ("https://nras.attestation.nvidia.com", "https://nras.attestation.nvidia.com.example/jwks.json", "nras", None, True),
        ("https://nras.example", "https://nras.example/.well-known/jwks.json", "nras", None, True),
        ("https://nras.attestation.nvidia.com.example", None, "detached-eat", None, True),
        # What a remote service says of its anchors does not make it NVIDIA's; a local nvattest's word is its own.
        ("https://nras.example", "https://nras.example/.well-known/jwks.json", "nras", "NVIDIA", True),
        ("https://nras.attestation.nvidia.com", NVIDIA_JWKS, "nras", "custom", True),
        ("guest-7", "https://keys.example/jwks.json", "detached-eat", "NVIDIA", False),
    ],
)  # fmt: skip
def test_a_service_that_is_not_nvidias_counts_like_other_anchors(
    issuer: str, url: str | None, kind: str, anchors: str | None, refused: bool
) -> None:
    def change(payload: dict[str, Any]) -> None:
        if anchors is None:
            del payload["nvattest"], payload["cnf"]
        else:
            payload["nvattest"] |= {"anchors": anchors, "simulated": False}
        payload["iss"] = issuer

    token = forged_eat(overall=change, device=lambda _, payload: payload.update(iss=issuer))
    arguments = {"issuer": issuer, "jwks_url": url, "kind": TokenKind(kind), "accept_simulated": False}
    verified = minting.check(token, **arguments)
    assert (verified.foreign, verified.of_nvidia) == (
        refused,
        # A key set that the caller gave can be anybody's.
        issuer == NVIDIA_JWKS[:35] and url == NVIDIA_JWKS,
    )
    assert (verified.key_url, (url or "caller") in verified.key_source) == (url, True)
    if refused:
        with pytest.raises(TokenError) as caught:
            minting.check(token, **arguments, refuse_weakened=True)
        assert caught.value.code == "weakened"
        assert issuer in caught.value.message
    else:
        assert minting.check(token, **arguments, refuse_weakened=True).overall


def test_how_the_key_was_got_is_named() -> None:
    said = {
        minting.check(eat(), **keys).key_source
        for keys in ({}, {"jwks": None, "key": KEY.public}, {"jwks_url": "http://127.0.0.1:1/jwks"})
    }
    assert said == {
        "key set that the caller gave", "public key that the caller named",
        "key set fetched from http://127.0.0.1:1/jwks without TLS",
    }  # fmt: skip


def test_the_labels_of_draft_4_are_read_too() -> None:
    def rename(payload: dict[str, Any]) -> None:
        for item in payload["submods"].values():
            item["ear_status"] = item.pop("ear.status")
            item["ear_trustworthiness_vector"] = {
                name.replace("-", "_"): value for name, value in item.pop("ear.trustworthiness-vector").items()
            }
        payload["ear_status"] = "affirming"

    real = replace(minting.appraisal(), simulated=False)
    assert minting.check(forged_ear(rename, real), accept_simulated=False).overall is True


def agree(compact: str) -> tuple[bool, bool, bool]:
    """What joserfc, PyJWT and we say of one signed EAR."""
    options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    try:
        jose_jwt.decode(compact, ECKey.import_key(KEY.public.jwk()), algorithms=["ES384"])
        jose = True
    except (JoseError, ValueError):
        jose = False
    try:
        jwt.decode(compact, KEY.public.native(), algorithms=["ES384"], options=options)
        py = True
    except jwt.PyJWTError:
        py = False
    try:
        minting.check(compact)
        ours = True
    except NvattestError:
        ours = False
    return jose, py, ours


def test_three_libraries_agree_on_what_verifies() -> None:
    good = minting.ear()
    assert agree(good) == (True, True, True)
    header, payload, signature = good.split(".")
    for bad in (
        minting.ear(key=OTHER),
        unsigned("none")(good),
        hs256(jwk_text())(good),
        f"{header}.{payload}.",
        f"{header}.{payload}.{b64(bytes(96))}",
        f"{header}.{b64(b'{}')}.{signature}",
        f"{header}.{payload}.{signature}.{signature}",
        jws({"a": 1}, crit=["x"], x=1),
        *(
            flip(good, position)
            for position in range(0, len(good) - 1, max(1, len(good) // 60))
            if good[position] != "."
        ),
    ):
        assert agree(bad) == (False, False, False), bad[:80]


def test_a_token_with_changed_bytes_is_refused_in_an_orderly_way() -> None:
    chance = random.Random(5)  # noqa: S311 - the same mutations each time
    for good in (json.dumps(eat()).encode(), minting.ear().encode()):
        for _ in range(400):
            bad = bytearray(good)
            for _ in range(chance.randrange(1, 4)):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            if json_equal(bytes(bad), good):
                continue
            with pytest.raises(TokenError):
                minting.check(bytes(bad))


TOKENS: dict[str, Callable[[], bytes]] = {
    "detached EAT": lambda: json.dumps(eat(), separators=(",", ":")).encode(),
    "EAR": lambda: minting.ear().encode(),
}


def accepted_flips(data: bytes, bits: Iterable[int]) -> tuple[list[int], Counter[str]]:
    """The bits that can be turned over, each alone, without a refusal; and what refused the others."""
    accepted, reasons = [], Counter[str]()
    for bit in bits:
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        try:
            minting.check(bytes(changed))
        except TokenError as error:
            reasons[error.code] += 1
        else:
            accepted.append(bit)
    return accepted, reasons


@pytest.mark.parametrize("name", TOKENS)
def test_a_sampled_flipped_bit_of_a_token_is_refused(name: str) -> None:
    data = TOKENS[name]()
    bits = random.Random(f"flip {name}").sample(range(len(data) * 8), 120)  # noqa: S311 - a seed, not a secret
    assert accepted_flips(data, bits)[0] == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TOKENS)
def test_every_flipped_bit_of_a_token_is_refused(name: str) -> None:
    data = TOKENS[name]()
    accepted, reasons = accepted_flips(data, range(len(data) * 8))
    print(f"\ntoken:{name}: {len(data) * 8} flips, {len(accepted)} accepted")
    print("  refused by " + ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()))
    assert accepted == []


def json_equal(one: bytes, other: bytes) -> bool:
    """Whether the change was of white space only, or none."""
    try:
        return one.strip() == other.strip() or bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False
