"""Recipes as data: each computed here once more by hand, with the strength that it really has."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, fields
from typing import Any

import pytest

from nvattest.appraisal.guest import DeviceSide, Strength
from nvattest.cli.verify_token import RECIPES as NAMES_AT_THE_SHELL
from nvattest.errors import InputError
from nvattest.evidence import cpu_report_data, device_report_data
from nvattest.tee.recipes import (
    NAMED,
    RECIPES,
    AddressNonce,
    Challenge,
    Chutes,
    CocoRcar,
    ExpectedReportData,
    Near,
    TinfoilV3,
    recipe_from_inputs,
)
from nvattest.token.binding import derive_device_nonce, report_data

NONCE, KEY, OTHER = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
DEVICES = DeviceSide(trusted=True, number=1, nonce=NONCE, digest=bytes(48), key=KEY, identities=("1",))


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_ours_covers_challenge_key_and_evidence() -> None:
    demand = Challenge(challenge=OTHER).demand(DEVICES)
    assert demand.report_data == report_data(OTHER, KEY, bytes(48))
    assert demand.nonce == derive_device_nonce(OTHER, KEY).value
    assert (demand.strength, demand.thumbprint) == (Strength.KEY_AND_EVIDENCE, KEY)
    expected = Challenge(challenge=OTHER, key_thumbprint=OTHER).demand(DEVICES)
    assert expected.report_data == report_data(OTHER, OTHER, bytes(48))


def test_rcar_is_the_handshake_s_own_digest() -> None:
    key = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
    text = '{"nvidia":{"device_evidence_list":[]}}'
    demand = CocoRcar(nonce="bm9uY2U", tee_pubkey=json.dumps(key), additional_evidence=text).demand(DEVICES)
    assert demand.report_data == cpu_report_data("bm9uY2U", key, text) + bytes(16)
    assert demand.nonce == device_report_data("bm9uY2U", key)[:32]
    assert (demand.strength, demand.evidence) == (Strength.KEY_AND_EVIDENCE, (text.encode(),))


def test_tinfoil_covers_evidence_only_where_it_is_given() -> None:
    both = TinfoilV3(nonce=NONCE, tls_key_fp=KEY, hpke_key=OTHER, gpu=b"gpu", nvswitch=b"switch").demand(DEVICES)
    assert both.report_data == sha256(KEY, OTHER, NONCE, sha256(b"gpu"), sha256(b"switch")) + bytes(32)
    assert (both.strength, both.evidence) == (Strength.KEY_AND_EVIDENCE, (b"gpu", b"switch"))
    none = TinfoilV3(nonce=NONCE, tls_key_fp=KEY, hpke_key=OTHER).demand(DEVICES)
    assert none.report_data == sha256(KEY, OTHER, NONCE) + bytes(32)
    assert none.strength is Strength.NONCE_ONLY


@pytest.mark.parametrize(
    ("recipe", "covered", "nonce"),
    [
        (AddressNonce(nonce=NONCE, signing_address=KEY[:20]), KEY[:20] + bytes(12) + NONCE, NONCE),
        (
            Near(nonce=NONCE, signing_address=KEY, tls_cert_fingerprint=OTHER),
            sha256(KEY, OTHER) + NONCE,
            NONCE,
        ),
        (
            Near(nonce=NONCE, signing_address=KEY[:20], tls_cert_fingerprint=OTHER),
            sha256(KEY[:20], OTHER) + NONCE,
            NONCE,
        ),
        (
            Chutes(nonce=NONCE, e2e_pubkey="a2V5", tls_spki=b"spki"),
            sha256(NONCE.hex().encode(), b"a2V5") + sha256(b"spki"),
            sha256(NONCE.hex().encode(), b"a2V5"),
        ),
    ],
)
def test_what_covers_no_evidence_is_no_stronger_than_its_nonce(recipe: Any, covered: bytes, nonce: bytes) -> None:
    demand = recipe.demand(DEVICES)
    assert (demand.report_data, demand.nonce) == (covered, nonce)
    assert demand.strength is Strength.NONCE_ONLY
    assert demand.evidence == ()


@pytest.mark.parametrize(
    ("value", "strength"),
    [
        (NONCE + bytes(32), Strength.NONCE_ONLY),
        (bytes(32) + NONCE, Strength.NONCE_ONLY),
        (bytes(1) + NONCE + bytes(31), Strength.NOTHING),
        (bytes(64), Strength.NOTHING),
    ],
)
def test_the_caller_s_own_recipe_proves_what_can_be_seen_in_its_result(value: bytes, strength: Strength) -> None:
    demand = ExpectedReportData(report_data=value).demand(DEVICES)
    assert (demand.report_data, demand.nonce, demand.strength) == (value, None, strength)


@pytest.mark.parametrize(
    "recipe",
    [
        Challenge(challenge=b"short"),
        ExpectedReportData(report_data=bytes(63)),
        TinfoilV3(nonce=NONCE, tls_key_fp=KEY[:31], hpke_key=OTHER),
        AddressNonce(nonce=NONCE, signing_address=KEY),
        AddressNonce(nonce=NONCE[:31], signing_address=KEY[:20]),
        Near(nonce=NONCE, signing_address=KEY[:21], tls_cert_fingerprint=OTHER),
        Chutes(nonce=NONCE[:1], e2e_pubkey="", tls_spki=b""),
        CocoRcar(nonce="", tee_pubkey="[]", additional_evidence=""),
        CocoRcar(nonce="", tee_pubkey="{", additional_evidence=""),
    ],
)
def test_inputs_of_another_size_or_form_are_refused(recipe: Any) -> None:
    with pytest.raises(InputError):
        recipe.demand(DEVICES)


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (Challenge, {"challenge": None}),
        (Challenge, {"challenge": NONCE, "key_thumbprint": bytearray(KEY)}),
        (ExpectedReportData, {"report_data": None}),
        (ExpectedReportData, {"report_data": [0] * 64}),
        (TinfoilV3, {"nonce": NONCE, "tls_key_fp": KEY, "hpke_key": OTHER, "gpu": "text"}),
        (Chutes, {"nonce": NONCE, "e2e_pubkey": "\udc80", "tls_spki": b""}),
        (CocoRcar, {"nonce": "\udc80", "tee_pubkey": "{}", "additional_evidence": ""}),
    ],
)
def test_a_recipe_is_made_of_bytes_and_texts_alone(kind: Any, inputs: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        kind(**inputs)
    assert caught.value.code == "recipe-input"


def test_named_inputs_are_bytes_from_files_and_hexadecimal_or_plain_text() -> None:
    made = recipe_from_inputs(
        "tinfoil-v3", {"nonce": NONCE.hex(), "tls_key_fp": "0x" + KEY.hex(), "hpke_key": OTHER, "gpu": b"raw"}
    )
    assert made == TinfoilV3(nonce=NONCE, tls_key_fp=KEY, hpke_key=OTHER, gpu=b"raw")
    text = recipe_from_inputs("chutes", {"nonce": NONCE, "e2e_pubkey": b"a2V5", "tls_spki": "00"})
    assert text == Chutes(nonce=NONCE, e2e_pubkey="a2V5", tls_spki=b"\0")


@pytest.mark.parametrize(
    ("name", "inputs", "says"),
    [
        ("near-ai", {}, "no recipe"),
        ("nvattest", {"challenge": "00" * 8}, "no recipe"),
        ("near", {}, "needs the input nonce"),
        ("near", {"color": "red"}, "no input 'color'"),
        ("near", {"nonce": "zz", "signing_address": "00", "tls_cert_fingerprint": "00"}, "not hexadecimal"),
        ("chutes", {"nonce": NONCE, "e2e_pubkey": b"\xff", "tls_spki": b""}, "not UTF-8"),
    ],
)
def test_named_inputs_that_do_not_fit_say_what_does(name: str, inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        recipe_from_inputs(name, inputs)
    assert caught.value.code == "recipe-input"


def test_the_shell_names_every_recipe_that_has_named_inputs() -> None:
    assert NAMES_AT_THE_SHELL == NAMED
    assert [recipe.name for recipe in RECIPES.values()] == list(RECIPES)
    for name in NAMED:
        for field in fields(RECIPES[name]):
            assert field.type in ("str", "bytes")
            assert field.default is MISSING or field.default == b""
