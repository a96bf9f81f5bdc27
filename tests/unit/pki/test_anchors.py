from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from nvattest.errors import InputError
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors, trust_anchors_from_pem

from . import minting


def root(cn="Root", **changes):
    key = minting.key(cn)
    return minting.Spec(cn=cn, issuer_cn=cn, key=key, issuer_key=key).but(**changes).parsed()


def test_nvidias_anchors_are_the_default_and_not_simulated():
    assert NVIDIA_ANCHORS.is_default
    assert not NVIDIA_ANCHORS.simulated
    assert NVIDIA_ANCHORS.label == "NVIDIA"
    # Another label does not make them other anchors.
    assert TrustAnchors(device=NVIDIA_ANCHORS.device, rim=NVIDIA_ANCHORS.rim, label="x").is_default
    assert not TrustAnchors(device=NVIDIA_ANCHORS.rim, rim=NVIDIA_ANCHORS.rim, label="x").is_default


def test_other_roots_cannot_be_called_nvidia():
    pem = minting.pem(root("A"))
    mine = trust_anchors_from_pem(pem)
    pairs = ((NVIDIA_ANCHORS.rim, NVIDIA_ANCHORS.rim), (NVIDIA_ANCHORS.device, mine.rim), (mine.device, ()))
    for device, rim in pairs:
        with pytest.raises(InputError) as caught:
            TrustAnchors(device=device, rim=rim, label="NVIDIA")
        assert caught.value.code == "anchor"
    with pytest.raises(InputError, match="only NVIDIA's pinned roots"):
        trust_anchors_from_pem(pem, rim=pem, label="NVIDIA")
    added = (*NVIDIA_ANCHORS.rim, *mine.rim)
    with pytest.raises(InputError, match="only NVIDIA's pinned roots"):
        TrustAnchors(device=NVIDIA_ANCHORS.device, rim=added, label="NVIDIA")


def test_custom_anchors_are_told_from_nvidias():
    anchors = trust_anchors_from_pem(minting.pem(root("A")), rim=minting.pem(root("B"), root("C")))
    assert [anchor.name for anchor in anchors.device] == ["A"]
    assert [anchor.name for anchor in anchors.rim] == ["B", "C"]
    assert anchors.label == "custom"
    assert not anchors.is_default
    assert anchors.simulated
    assert anchors.device[0].matches(root("A"))
    assert not anchors.device[0].matches(root("B"))


def test_one_file_serves_both_purposes():
    anchors = trust_anchors_from_pem(minting.pem(root("A"), root("B")), label="mine")
    assert anchors.device == anchors.rim
    assert anchors.label == "mine"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (minting.specs()[3].parsed, "its issuer is"),
        (lambda: root(issuer_key=minting.key("stranger")), "its own key did not sign it"),
        (lambda: root(ca=False), "not marked as a CA"),
        (lambda: root(ca=None), "not marked as a CA"),
        (lambda: root(cert_sign=False), "not marked as a CA"),
        (lambda: root(key_usage=False), "not marked as a CA"),
        (lambda: root(hash=hashes.SHA256()), "not P-384 with ECDSA and SHA-384"),
        (
            lambda: root(key=minting.key("p", ec.SECP256R1()), issuer_key=minting.key("p", ec.SECP256R1())),
            "not P-384 with ECDSA and SHA-384",
        ),
    ],
    ids=["intermediate", "signature", "no-ca", "no-constraints", "no-cert-sign", "no-key-usage", "sha256", "p256"],
)
def test_what_is_no_self_signed_root_cannot_be_an_anchor_and_is_told_why(bad, why):
    with pytest.raises(InputError, match=why) as raised:
        trust_anchors_from_pem(minting.pem(root("Good"), bad()))
    assert raised.value.code == "anchor"


@pytest.mark.parametrize("pem", [b"", b"nothing"])
def test_no_certificate_is_no_anchor(pem):
    with pytest.raises(InputError):
        trust_anchors_from_pem(pem)
