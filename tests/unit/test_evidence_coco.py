"""Canonical JSON (RFC 8785) and the digests of the RCAR handshake."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvattest._documents import canonical_json
from nvattest.errors import InputError
from nvattest.evidence import (
    additional_evidence,
    attester_json,
    cpu_report_data,
    device_nonce,
    device_report_data,
    load_evidence,
)
from nvattest.testing import Platform

KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "x", "y": "y"}


def test_numbers_and_texts_are_those_of_the_rfc() -> None:
    # RFC 8785, 3.2.2: its example, written out.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\x0f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json(value) == expected.encode()


def test_keys_are_sorted_by_utf16_units() -> None:
    # RFC 8785, 3.2.3: U+FB33 comes after the surrogates of U+1F600.
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]
    found = json.loads(
        canonical_json(dict.fromkeys(keys, 0)), object_pairs_hook=lambda pairs: [key for key, _ in pairs]
    )
    assert found == ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.0, "0"), (100.0, "100"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"), (5e-324, "5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308"), (-0.05, "-0.05"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_ecmascript_does(value: float, text: str) -> None:
    assert canonical_json(value).decode() == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_reads_back(value: float) -> None:
    assert float(json.loads(canonical_json(value))) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, b"x", {1: 2}, "\ud800", {"\ud800": 1}, object()])
def test_what_canonical_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        canonical_json(value)


def test_nesting_is_bounded() -> None:
    value: object = 0
    for _ in range(100):
        value = [value]
    with pytest.raises(InputError, match="levels"):
        canonical_json(value)


def test_the_nonce_is_cut_or_padded_as_guest_components_does() -> None:
    assert device_nonce(bytes(range(64))).value == bytes(range(32))
    assert device_nonce(b"\x01\x02").value == b"\x01\x02" + bytes(30)
    for wrong in (b"", bytes(65)):
        with pytest.raises(InputError):
            device_nonce(wrong)


def test_the_cpu_quote_covers_the_exact_text_of_the_device_evidence() -> None:
    platform = Platform.build("hopper-1")
    data = device_report_data("kbs-nonce", KEY)
    assert (
        data
        == hashlib.sha384(
            b'{"nonce":"kbs-nonce","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"x","y":"y"}}'
        ).digest()
    )
    evidence = load_evidence(json.dumps(platform.evidence(device_nonce(data).value)))
    text = additional_evidence(evidence)
    assert text == '{"nvidia":' + attester_json(evidence) + "}"
    (item,) = json.loads(text)["nvidia"]["device_evidence_list"]
    assert (item["arch"], item["uuid"]) == ("HOPPER", "unknown")
    quoted = cpu_report_data("kbs-nonce", KEY, text)
    expected = (
        b'{"additional-evidence":' + json.dumps(text).encode() + b',"nonce":"kbs-nonce","tee-pubkey":'
        + canonical_json(KEY) + b"}"
    )  # fmt: skip
    assert quoted == hashlib.sha384(expected).digest()
    assert cpu_report_data("kbs-nonce", KEY, text + " ") != quoted


def test_without_a_device_the_additional_evidence_is_empty() -> None:
    assert additional_evidence(()) == ""
