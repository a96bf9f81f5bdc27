from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from nvattest.errors import InputError
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.pki.chain import ChainProfile, validate_chain
from nvattest.pki.ecdsa import EcdsaVerifier

from . import minting

SECOND = timedelta(seconds=1)
ODD = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")


def validate(certificates, *, profile=ChainProfile.DEVICE, at=minting.NOW, anchors=None, verifier=None):
    return validate_chain(
        certificates,
        minting.anchors().device if anchors is None else anchors,
        profile=profile,
        at=at,
        verifier=verifier or EcdsaVerifier(),
    )


def rules(result):
    return {(finding.rule, finding.position) for finding in result.path_findings}


@pytest.mark.parametrize("profile", ChainProfile)
def test_a_good_chain_ends_at_its_anchor(profile):
    chain = minting.chain()
    result = validate(chain, profile=profile)
    assert result.path_ok
    assert result.in_validity
    assert result.anchor == minting.anchors().device[0]
    assert (result.leaf, result.certificates) == (chain[0], tuple(chain))
    assert result.earliest_not_after == minting.END


def test_a_chain_seen_before_costs_no_signature():
    verifier = EcdsaVerifier()
    for _ in range(3):
        assert validate(minting.chain(), verifier=verifier).path_ok
    assert verifier.verifications == 5


@pytest.mark.parametrize("position", range(5))
def test_a_broken_link_is_found_where_it_is(position):
    stranger = minting.key("stranger")
    result = validate(minting.chain(**{f"c{position}": {"issuer_key": stranger}}))
    assert ("signature", position) in rules(result)
    assert not result.path_ok


def test_a_findings_text_names_the_certificate_and_its_issuer():
    result = validate(minting.chain(c1={"issuer_key": minting.key("stranger")}))
    (finding,) = result.path_findings
    assert finding.message == "certificate 1 (GH100 A01 GSP BROM) is not signed by certificate 2 (Provisioner)"
    assert finding.subject.startswith("CN=GH100 A01 GSP BROM")


@pytest.mark.parametrize(("ca", "found"), [(False, "CA:FALSE"), (None, "no basicConstraints")])
@pytest.mark.parametrize("position", [1, 2, 3])
def test_an_issuer_that_is_no_ca_is_found(ca, found, position):
    result = validate(minting.chain(**{f"c{position}": {"ca": ca}}))
    assert rules(result) == {("ca-flag", position)}
    assert result.path_findings[0].found == found


def test_a_leaf_that_is_a_ca_is_found():
    assert rules(validate(minting.chain(c0={"ca": True}))) == {("ca-flag", 0)}


def test_a_leaf_that_says_it_is_no_ca_is_fine():
    assert validate(minting.chain(c0={"ca": False})).path_ok


@pytest.mark.parametrize(("position", "length", "good"), [(1, 0, True), (2, 0, False), (2, 1, True), (3, 1, False)])
def test_path_lengths_are_kept(position, length, good):
    result = validate(minting.chain(**{f"c{position}": {"path_length": length}}))
    assert rules(result) == (set() if good else {("path-length", position)})


@pytest.mark.parametrize("position", [1, 2, 3])
def test_an_issuer_without_key_cert_sign_is_found(position):
    assert rules(validate(minting.chain(**{f"c{position}": {"cert_sign": False}}))) == {("key-usage", position)}


@pytest.mark.parametrize("position", range(4))
def test_a_certificate_without_key_usage_is_found(position):
    assert rules(validate(minting.chain(**{f"c{position}": {"key_usage": False}}))) == {("key-usage", position)}


def test_a_leaf_that_may_not_sign_is_found():
    result = validate(minting.chain(c0={"digital_signature": False}))
    assert rules(result) == {("key-usage", 0)}
    assert result.path_findings[0].expected == "digitalSignature"


@pytest.mark.parametrize("profile", ChainProfile)
@pytest.mark.parametrize("critical", [True, False])
def test_the_key_of_an_ocsp_responder_passes_neither_as_a_device_nor_as_a_rim_signer(profile, critical):
    chain = minting.chain(c0={"eku": (ExtendedKeyUsageOID.OCSP_SIGNING,), "eku_critical": critical})
    assert rules(validate(chain, profile=profile)) == {("key-usage", 0)}


def test_a_dice_purpose_is_fine_for_a_device_only():
    chain = minting.chain(c0={"eku": (x509.ObjectIdentifier("2.23.133.5.4.100.8"),)})
    assert validate(chain).path_ok
    assert not validate(chain, profile=ChainProfile.RIM).path_ok


@pytest.mark.parametrize("made", ["rsa", "p256"])
def test_a_key_of_another_kind_is_found(made):
    key = minting.rsa_key() if made == "rsa" else minting.key("Provisioner", ec.SECP256R1())
    result = validate(minting.chain(c1={"issuer_key": key}, c2={"key": key}))
    assert ("curve", 2) in rules(result)
    assert ("signature", 1) in rules(result)
    result = validate(minting.chain(c0={"key": key}))
    assert rules(result) == {("curve", 0)}


def test_a_chain_signed_with_rsa_says_which_algorithm_it_found():
    result = validate(minting.chain(c1={"issuer_key": minting.rsa_key()}))
    assert rules(result) == {("algorithm", 1), ("signature", 1)}
    assert result.path_findings[1].found == "1.2.840.113549.1.1.12"


@pytest.mark.parametrize("position", range(5))
def test_sha256_is_found(position):
    chain = minting.chain(**{f"c{position}": {"hash": hashes.SHA256()}})
    assert {("algorithm", position), ("signature", position)} <= rules(validate(chain))


@pytest.mark.parametrize("position", range(4))
def test_an_unknown_critical_extension_is_found(position):
    chain = minting.chain(**{f"c{position}": {"extra": ((ODD, True),)}})
    result = validate(chain)
    assert rules(result) == {("critical-extension", position)}
    assert result.path_findings[0].found == "1.2.3.4.5"
    assert validate(minting.chain(**{f"c{position}": {"extra": ((ODD, False),)}})).path_ok


def test_name_constraints_are_not_understood_and_so_refuse():
    constraint = x509.NameConstraints([x509.DNSName("example.org")], None)
    assert rules(validate(minting.chain(c2={"extra": ((constraint, True),)}))) == {("critical-extension", 2)}


@pytest.mark.parametrize("position", range(5))
def test_validity_includes_both_ends(position):
    first, last = minting.NOW - SECOND, minting.NOW + SECOND
    chain = minting.chain(**{f"c{position}": {"not_before": first, "not_after": last}})
    anchors = ()
    for at in (first, last, last + timedelta(microseconds=999_999)):
        assert validate(chain, at=at, anchors=anchors).in_validity
    early = validate(chain, at=first - timedelta(microseconds=1), anchors=anchors)
    assert [(f.rule, f.position) for f in early.validity_findings] == [("not-yet-valid", position)]
    late = validate(chain, at=last + SECOND, anchors=anchors)
    assert [(f.rule, f.position) for f in late.validity_findings] == [("expired", position)]
    assert late.earliest_not_after == last


def test_validity_and_path_are_separate_answers():
    result = validate(minting.chain(c0={"not_after": minting.NOW - SECOND}))
    assert result.path_ok
    assert not result.in_validity
    assert result.validity_findings[0].expected == "until 2026-11-01T11:59:59Z"


def test_another_time_zone_is_the_same_instant():
    east = timezone(timedelta(hours=14))
    assert validate(minting.chain(), at=minting.END.astimezone(east)).in_validity


def test_a_certificate_without_end_has_the_last_second_of_the_calendar():
    forever = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    result = validate(minting.chain(c0={"not_after": forever}), at=minting.NOW)
    assert result.path_ok
    assert result.leaf.not_after == forever


def test_a_root_with_the_right_name_and_another_key_is_no_anchor():
    fake = minting.key("fake root")
    result = validate(minting.chain(c3={"issuer_key": fake}, c4={"key": fake, "issuer_key": fake}))
    assert rules(result) == {("anchor", 4)}
    assert result.anchor is None
    assert "has the name of a trust anchor but is another certificate" in result.path_findings[0].message


def test_the_anchors_key_in_another_certificate_is_no_anchor():
    result = validate(minting.chain(c4={"serial": 77}))
    assert rules(result) == {("anchor", 4)}


def test_no_anchors_trust_nothing():
    assert rules(validate(minting.chain(), anchors=())) == {("anchor", 4)}
    assert rules(validate(minting.chain(), anchors=NVIDIA_ANCHORS.device)) == {("anchor", 4)}


def test_an_issuer_with_the_same_name_and_another_key_is_found():
    other = minting.specs()[2].but(key=minting.key("other")).parsed()
    chain = minting.chain()
    assert rules(validate([chain[0], chain[1], other, *chain[3:]])) == {("signature", 1)}
    both = validate([chain[0], chain[1], other, *chain[2:]])
    assert {("signature", 1), ("issuer-name", 2)} <= rules(both)


def test_an_unrelated_certificate_in_the_middle_is_called_extra():
    stranger = minting.specs()[2].but(cn="Stranger", issuer_cn="Elsewhere").parsed()
    chain = minting.chain()
    result = validate([*chain[:2], stranger, *chain[2:]])
    assert ("extra-certificate", 2) in rules(result)
    assert ("issuer-name", 1) in rules(result)
    assert not result.path_ok


def test_certificates_after_the_anchor_are_refused():
    chain = minting.chain()
    stranger = minting.specs()[4].but(cn="Other", issuer_cn="Other", key=minting.key("o"), issuer_key=minting.key("o"))
    result = validate([*chain, stranger.parsed()])
    assert {("extra-certificate", 5), ("anchor", 5)} <= rules(result)
    result = validate([*chain, chain[-1]])
    assert {("duplicate", 5), ("extra-certificate", 5)} <= rules(result)
    assert not result.path_ok


@pytest.mark.parametrize("order", [(4, 3, 2, 1, 0), (0, 2, 1, 3, 4), (1, 0, 2, 3, 4), (0, 1, 2, 4, 3)])
def test_another_order_is_found(order):
    chain = minting.chain()
    result = validate([chain[i] for i in order])
    assert "order" in {finding.rule for finding in result.path_findings}
    assert not result.path_ok


@pytest.mark.parametrize("missing", range(5))
def test_a_missing_certificate_is_found(missing):
    chain = minting.chain()
    del chain[missing]
    result = validate(chain)
    # Without its leaf the chain starts with a CA.
    assert rules(result) & {("ca-flag", 0), ("issuer-name", missing - 1), ("anchor", 3)}
    assert not result.path_ok


def test_a_root_alone_is_no_device():
    result = validate(minting.chain()[4:])
    assert result.anchor is not None
    assert {("ca-flag", 0), ("key-usage", 0)} <= rules(result)
    assert not result.path_ok


def test_a_leaf_that_its_own_key_signed_is_no_device():
    key = minting.key("self")
    result = validate([minting.specs()[0].but(issuer_cn=minting.specs()[0].cn, key=key, issuer_key=key).parsed()])
    assert rules(result) == {("anchor", 0)}


def test_too_long_and_empty_chains_are_refused_without_work():
    verifier = EcdsaVerifier()
    chain = minting.chain()
    for bad in ([chain[0]] * 9, []):
        result = validate(bad, verifier=verifier)
        assert rules(result) == {("length", 0)}
        assert not result.path_ok
    assert verifier.verifications == 0
    empty = validate([])
    assert not empty.in_validity
    for word in ("leaf", "earliest_not_after"):
        with pytest.raises(InputError):
            getattr(empty, word)


def test_a_time_without_zone_is_refused():
    with pytest.raises(InputError) as raised:
        validate(minting.chain(), at=datetime(2026, 1, 1))  # noqa: DTZ001
    assert raised.value.code == "time-zone"


def test_every_flipped_bit_of_a_leaf_breaks_its_path():
    from nvattest.errors import ParseError
    from nvattest.pki.certificate import parse_certificate

    chain = minting.chain()
    verifier = EcdsaVerifier()
    assert validate(chain, verifier=verifier).path_ok
    anchors = minting.anchors().device
    for position in range(0, len(chain[0].der), 3):
        bad = bytearray(chain[0].der)
        bad[position] ^= 1 << position % 8
        try:
            leaf = parse_certificate(bytes(bad))
        except ParseError:
            continue
        assert not validate([leaf, *chain[1:]], verifier=verifier, anchors=anchors).path_ok
