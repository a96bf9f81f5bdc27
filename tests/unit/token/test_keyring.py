"""Where keys of tokens come from: JWKS, one key, certificate chains."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from nvattest.errors import InputError, ParseError, ResultCode, TokenError
from nvattest.token.jose import PublicKey, parse_jwks

from ..pki import minting as pki  # noqa: TID252 - the little PKI is there
from . import minting

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
AT = minting.NOW


def certificates(**changes: Any) -> list[x509.Certificate]:
    """Leaf with the key of the tokens, intermediate, root."""
    root, middle = pki.key("root"), pki.key("middle")
    specs = [
        pki.Spec(
            cn="Token signer", issuer_cn="Middle", key=minting.KEY.private, issuer_key=middle,
            ca=False, cert_sign=False, digital_signature=True,
        ),
        pki.Spec(cn="Middle", issuer_cn="Root", key=middle, issuer_key=root),
        pki.Spec(cn="Root", issuer_cn="Root", key=root, issuer_key=root),
    ]  # fmt: skip
    for where, change in changes.items():
        position = int(where[1:])
        specs[position] = specs[position].but(**change)
    return [spec.build() for spec in specs]


def x5c(*chain: x509.Certificate) -> list[str]:
    return [base64.b64encode(item.public_bytes(DER)).decode() for item in chain]


def pem(*chain: x509.Certificate) -> bytes:
    return b"".join(item.public_bytes(PEM) for item in chain)


def entry(*chain: x509.Certificate, **changes: Any) -> dict[str, Any]:
    return {"keys": [{**minting.KEY.public.jwk(), "x5c": x5c(*chain), **changes}]}


def refused(token: object, **arguments: Any) -> TokenError:
    with pytest.raises(TokenError) as caught:
        minting.check(token, **arguments)
    return caught.value


def test_a_jwks_works_as_object_text_and_bytes() -> None:
    jwks = minting.KEY.public.jwks()
    for form in (jwks, json.dumps(jwks), json.dumps(jwks).encode()):
        assert minting.check(minting.eat(), jwks=form).key == minting.KEY.public


def test_entries_of_other_kinds_in_a_jwks_do_no_harm() -> None:
    keys = [
        {"kty": "oct", "kid": "a", "k": "AAAA"},
        {"kty": "RSA", "kid": "b"},
        minting.OTHER.public.jwk(),
        minting.KEY.public.jwk(),
    ]
    assert minting.check(minting.eat(), jwks={"keys": keys}).overall


@pytest.mark.parametrize(
    "value",
    [
        b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": {}}', b'{"keys": [1]}', b'{"keys": [{"kty": "EC"}]}',
        b'{"keys": [], "keys": []}', b'{"keys": [{"kid": "a"}, {"kid": "a"}]}',
        json.dumps({"keys": [{"kid": str(i)} for i in range(257)]}).encode(), b" " * (1024 * 1024 + 1),
    ],
)  # fmt: skip
def test_a_broken_jwks_is_refused(value: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse_jwks(value)
    assert caught.value.result_code is ResultCode.VERIFIER_JWKS_ERROR


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kty": "RSA"}, "key-type"),
        ({"crv": "P-256"}, "key-type"),
        ({"alg": "HS256"}, "key-type"),
        ({"use": "enc"}, "key-type"),
        ({"x": "AAAA"}, "key-type"),
        ({"x": "A" * 64}, "key-type"),
        ({"y": None}, "key-type"),
        ({"x5c": []}, "x5c"),
        ({"x5c": "text"}, "x5c"),
        ({"x5c": [1]}, "x5c"),
        ({"x5c": ["!"]}, "x5c"),
        ({"x5c": ["AAAA"]}, "x5c"),
    ],
)
def test_the_entry_that_a_token_names_has_to_be_a_key_for_it(changes: dict, code: str) -> None:
    assert refused(minting.eat(), jwks={"keys": [{**minting.KEY.public.jwk(), **changes}]}).code == code


def test_one_key_has_one_pair_of_coordinates() -> None:
    public = minting.KEY.public
    shifted = PublicKey(public.x[:-1], public.x[-1:] + public.y)
    assert refused(minting.eat(), jwks=None, key=shifted).code == "key-type"


def test_an_entry_may_have_a_certificate_instead_of_coordinates() -> None:
    chain = certificates()
    only = {"kid": minting.KEY.public.thumbprint, "x5c": x5c(*chain)}
    assert minting.check(minting.eat(), jwks={"keys": [only]}).overall


def test_an_entry_whose_certificate_is_for_another_key_is_refused() -> None:
    chain = certificates(c0={"key": minting.OTHER.private})
    assert refused(minting.eat(), jwks=entry(*chain)).code == "key-mismatch"


def test_a_chain_leads_to_a_root_to_an_intermediate_or_is_refused() -> None:
    leaf, middle, root = certificates()
    for chain, anchors in (
        ((leaf, middle, root), (root,)),
        ((leaf, middle), (root,)),
        ((leaf, middle), (middle,)),
        ((leaf,), (middle,)),
    ):
        assert minting.check(minting.eat(), jwks=entry(*chain), x5c_roots=pem(*anchors)).overall
    stranger = pki.Spec(cn="Root", issuer_cn="Root", key=pki.key("x"), issuer_key=pki.key("x")).build()
    for chain in ((leaf, middle, root), (leaf, root), (leaf,), (leaf, root, middle)):
        assert refused(minting.eat(), jwks=entry(*chain), x5c_roots=pem(stranger)).code == "x5c-chain"
    assert refused(minting.eat(), x5c_roots=pem(root)).code == "x5c"  # the entry has no chain


@pytest.mark.parametrize(
    "changes",
    [
        {"c0": {"not_after": AT.replace(year=2025, month=6)}},
        {"c1": {"not_after": AT.replace(year=2025, month=6)}},
        {"c2": {"not_before": AT.replace(year=2027, month=6)}},
        {"c0": {"ca": True, "cert_sign": True}},
        {"c0": {"digital_signature": False}},
        {"c0": {"eku": (ExtendedKeyUsageOID.OCSP_SIGNING,)}},
        {"c1": {"ca": False}},
        {"c1": {"cert_sign": False}},
        {"c1": {"issuer_key": pki.key("another")}},
        {"c2": {"path_length": 0}},
    ],
)
def test_a_chain_with_a_certificate_that_must_not_be_there_is_refused(changes: dict) -> None:
    leaf, middle, root = certificates(**changes)
    for chain in ((leaf, middle), (leaf, middle, root)):
        assert refused(minting.eat(), jwks=entry(*chain), x5c_roots=pem(root)).code == "x5c-chain"


def test_the_chain_in_a_token_serves_where_there_is_no_jwks() -> None:
    leaf, middle, root = certificates()
    header = {"x5c": x5c(leaf, middle)}
    token = minting.forged_eat(header=header, device_header=header)
    assert minting.check(token, jwks=None, x5c_roots=pem(root)).overall
    assert refused(minting.eat(), jwks=None, x5c_roots=pem(root)).code == "key-missing"
    # With a JWKS the chain in the token says nothing.
    assert refused(token, jwks=minting.OTHER.public.jwks()).code == "kid-unknown"
    foreign = minting.forged_eat(header=header, device_header=header, key=minting.OTHER)
    assert refused(foreign, jwks=None, x5c_roots=pem(root)).code == "signature"


def test_one_key_in_pem_needs_no_kid() -> None:
    spki = minting.KEY.private.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert minting.check(minting.eat(), jwks=None, key=spki).overall
    other_kids = minting.forged_eat(header={"kid": "k1"}, device_header={"kid": None})
    assert minting.check(other_kids, jwks=None, key=spki).overall
    assert minting.check(minting.eat(), jwks=None, key=pem(certificates()[0])).overall
    assert refused(minting.eat(), jwks=None, key=minting.OTHER.public).code == "signature"
    for more in ({"jwks": minting.KEY.public.jwks()}, {"jwks": None, "x5c_roots": pem(certificates()[2])}):
        with pytest.raises(InputError, match="excludes a JWKS"):
            minting.check(minting.eat(), key=spki, **more)
