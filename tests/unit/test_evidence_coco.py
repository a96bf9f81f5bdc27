"""The evidence of Confidential Containers: the digests of the RCAR handshake."""

from __future__ import annotations

import hashlib
import json

import pytest

from nvattest._documents import canonical_json
from nvattest.errors import InputError
from nvattest.evidence import (
    additional_evidence,
    attester_json,
    cpu_report_data,
    device_nonce,
    device_report_data,
)
from nvattest.testing import Platform

KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "x", "y": "y"}


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
    evidence = platform.evidence(device_nonce(data).value)
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
