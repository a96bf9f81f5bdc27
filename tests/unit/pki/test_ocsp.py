from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.pki.ocsp import (
    RESPONDER_AHEAD,
    CertIdHash,
    NonceOutcome,
    RevocationStatus,
    build_ocsp_request,
    cert_id_key,
    check_revocation,
    parse_ocsp_response,
)

from . import minting

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
NONCE = bytes(range(32))
CHAIN = minting.chain()
BROM, ISSUER, ABOVE = CHAIN[1], CHAIN[2], CHAIN[3]
RESPONDER_SPEC = minting.responder("Provisioner")
RESPONDER = RESPONDER_SPEC.parsed()
HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384()}  # noqa: S303 - a CertID may use it
REVOKED, UNKNOWN = ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN
HOLD = x509.ReasonFlags.certificate_hold
ODD = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def answer(**changes):
    given = {"responder": RESPONDER, "signer": RESPONDER_SPEC.key} | changes
    return minting.answer(given.pop("certificate", BROM), given.pop("issuer", ISSUER), **given)


def check(response, *, certificate=BROM, issuer=ISSUER, at=minting.NOW, nonce=None):
    return check_revocation(
        response, certificate=certificate, issuer=issuer, at=at, nonce=nonce, verifier=EcdsaVerifier()
    )


def responded_by(**changes):
    spec = minting.responder("Provisioner", **changes)
    return check(answer(responder=spec.parsed(), signer=spec.key))


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("cert_hash", HASHES.values(), ids=HASHES)
def test_a_good_answer_is_good_by_name_and_by_key_and_with_each_hash(by_name, cert_hash):
    result = check(answer(by_name=by_name, cert_hash=cert_hash))
    assert result.status is RevocationStatus.GOOD
    assert result.signature_valid
    assert result.in_window
    assert result.nonce is NonceOutcome.NOT_SENT
    assert result.responder == RESPONDER.subject
    assert result.certificate_serial == BROM.serial
    assert result.this_update == minting.NOW - HOUR
    assert result.next_update == minting.NOW + 23 * HOUR
    assert result.reason is None


@pytest.mark.parametrize("by_name", [True, False])
def test_the_issuer_may_answer_itself(by_name):
    for embed in ((), (ISSUER,), (RESPONDER,)):
        result = check(answer(responder=ISSUER, signer=minting.key("Provisioner"), embed=embed, by_name=by_name))
        assert result.status is RevocationStatus.GOOD


@pytest.mark.parametrize("critical", [True, False])
def test_ocsp_nocheck_may_come_as_an_extension_or_as_a_usage(critical):
    no_check = x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.5")
    usage = (ExtendedKeyUsageOID.OCSP_SIGNING, no_check)
    assert responded_by(eku=usage, eku_critical=critical).status is RevocationStatus.GOOD
    assert responded_by(extra=((x509.OCSPNoCheck(), False),)).status is RevocationStatus.GOOD


@pytest.mark.parametrize(
    "changes",
    [
        {"eku": ()},
        {"eku": (ExtendedKeyUsageOID.CODE_SIGNING,)},
        {"ca": True},
        {"digital_signature": False},
        {"extra": ((ODD, True),)},
        {"not_after": minting.NOW - SECOND},
        {"not_before": minting.NOW + SECOND},
        {"issuer_key": minting.key("Identity")},
        {"issuer_cn": "Identity"},
        {"issuer_cn": "Identity", "issuer_key": minting.key("Identity")},
        {"hash": hashes.SHA256()},
        {"key": minting.key("r", ec.SECP256R1())},
    ],
    ids="-".join,
)
def test_a_responder_that_may_not_answer_for_the_issuer_is_refused(changes):
    result = responded_by(**changes)
    assert result.status is RevocationStatus.BAD_RESPONDER
    assert not result.signature_valid


def test_the_responder_is_valid_on_both_ends_of_its_validity():
    assert responded_by(not_after=minting.NOW).status is RevocationStatus.GOOD
    assert responded_by(not_before=minting.NOW).status is RevocationStatus.GOOD


def test_a_responder_that_is_not_in_the_answer_is_refused():
    for embed in ((), (ABOVE,)):
        assert check(answer(embed=embed)).status is RevocationStatus.BAD_RESPONDER


def test_a_second_certificate_of_the_named_responder_is_tried():
    expired = minting.responder("Provisioner", not_after=minting.NOW - SECOND, serial=5).parsed()
    assert check(answer(embed=(expired, RESPONDER))).status is RevocationStatus.GOOD


def test_an_answer_signed_by_another_key_than_the_responders_is_refused():
    result = check(minting.resign(answer(), minting.key("stranger"), lambda tbs: tbs))
    assert result.status is RevocationStatus.BAD_SIGNATURE
    assert not result.signature_valid
    assert result.in_window is False


def test_an_answer_signed_with_sha256_is_refused():
    assert check(answer(signature_hash=hashes.SHA256())).status is RevocationStatus.BAD_SIGNATURE


def test_a_changed_answer_is_refused():
    der = answer()
    parts = parse_ocsp_response(der)
    changed = der.replace(parts.signature, parts.signature[:-1] + bytes([parts.signature[-1] ^ 1]))
    assert check(changed).status is RevocationStatus.BAD_SIGNATURE


def test_any_flipped_bit_is_not_good_unless_it_lies_outside_of_what_is_signed():
    der = answer()
    good = parse_ocsp_response(der)
    verifier = EcdsaVerifier()
    for position in range(0, len(der), 3):
        bad = bytearray(der)
        bad[position] ^= 1 << position % 8
        result = check_revocation(
            bytes(bad), certificate=BROM, issuer=ISSUER, at=minting.NOW, nonce=None, verifier=verifier
        )
        if result.status is RevocationStatus.GOOD:
            read = parse_ocsp_response(bytes(bad))
            assert (read.tbs, read.signature, read.certificates) == (good.tbs, good.signature, good.certificates)


@pytest.mark.parametrize(
    "other",
    [
        {"certificate": CHAIN[0], "issuer": CHAIN[1]},
        {"certificate": ISSUER, "issuer": ABOVE},
        {"certificate": minting.specs()[1].but(serial=99).parsed()},
        {"issuer": minting.specs()[2].but(key=minting.key("other")).parsed()},
    ],
    ids=["leaf", "issuer", "serial", "issuer-key"],
)
def test_an_answer_about_another_certificate_is_refused(other):
    result = check(answer(**other))
    assert result.status is RevocationStatus.WRONG_CERTIFICATE
    assert result.certificate_serial == BROM.serial


def test_an_issuer_that_is_not_the_certificates_is_refused():
    assert check(answer(), issuer=ABOVE).status is RevocationStatus.WRONG_CERTIFICATE


def test_a_cert_id_with_another_hash_is_refused():
    assert check(answer(cert_hash=hashes.SHA512())).status is RevocationStatus.WRONG_CERTIFICATE


def test_two_answers_in_one_response_are_refused():
    two = minting.resign(answer(), RESPONDER_SPEC.key, minting.double_answer)
    with pytest.raises(ParseError, match="2 answers") as raised:
        parse_ocsp_response(two)
    assert raised.value.result_code is ResultCode.OCSP_INVALID_RESPONSE
    assert check(two).status is RevocationStatus.MALFORMED


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (None, None),
        (x509.ReasonFlags.key_compromise, "keyCompromise"),
        (x509.ReasonFlags.ca_compromise, "cACompromise"),
        (x509.ReasonFlags.superseded, "superseded"),
    ],
)
def test_a_revoked_certificate_is_revoked_with_its_reason(reason, name):
    result = check(answer(status=REVOKED, reason=reason))
    assert result.status is RevocationStatus.REVOKED
    assert result.reason == name


def test_a_hold_is_told_from_a_revocation():
    result = check(answer(status=REVOKED, reason=HOLD))
    assert result.status is RevocationStatus.ON_HOLD
    assert result.reason == "certificateHold"


def test_a_hold_that_is_not_current_stays_a_hold_and_says_why_it_is_not_current():
    old = {"this_update": minting.NOW - 3 * HOUR, "next_update": minting.NOW - HOUR}
    cases = (
        (answer(status=REVOKED, reason=HOLD, **old), None, "the answer ended at"),
        (answer(status=REVOKED, reason=HOLD, nonce=bytes(32)), NONCE, "another nonce"),
        (answer(status=REVOKED, reason=HOLD, this_update=minting.NOW + HOUR), None, "3600 s after the clock"),
        (answer(status=REVOKED, reason=HOLD, next_update=None), None, "no nextUpdate"),
    )
    for der, nonce, why in cases:
        result = check(der, nonce=nonce)
        assert result.status is RevocationStatus.ON_HOLD
        assert not result.current
        assert result.detail.startswith(
            "revoked for the time being (certificateHold), by an answer that is not current"
        )
        assert why in result.detail
    current = check(answer(status=REVOKED, reason=HOLD))
    assert (current.status, current.current) == (RevocationStatus.ON_HOLD, True)
    assert "not current" not in current.detail


def test_an_unknown_certificate_is_unknown():
    assert check(answer(status=UNKNOWN)).status is RevocationStatus.UNKNOWN


def test_being_old_never_makes_an_answer_better():
    old = {"this_update": minting.NOW - 3 * HOUR, "next_update": minting.NOW - HOUR}
    revoked = check(answer(status=REVOKED, **old))
    assert revoked.status is RevocationStatus.REVOKED
    assert not revoked.in_window
    assert check(answer(status=UNKNOWN, **old)).status is RevocationStatus.UNKNOWN
    assert check(answer(status=REVOKED, nonce=bytes(32)), nonce=NONCE).status is RevocationStatus.REVOKED


def test_the_window_ends_at_next_update_to_the_second():
    der = answer()
    last = minting.NOW + 23 * HOUR
    assert check(der, at=last).status is RevocationStatus.GOOD
    late = check(der, at=last + SECOND)
    assert (late.status, late.signature_valid, late.in_window) == (RevocationStatus.STALE, True, False)
    # The tolerance for clocks is for those ahead; this answer would lie within it.
    assert check(answer(nonce=NONCE), at=last + SECOND, nonce=NONCE).status is RevocationStatus.STALE


@pytest.mark.parametrize("nonce", [None, NONCE], ids=["no nonce", "our nonce"])
@pytest.mark.parametrize("ahead", [SECOND, timedelta(seconds=299), timedelta(seconds=300)], ids=str)
def test_a_responder_clock_up_to_five_minutes_ahead_is_tolerated(ahead, nonce):
    result = check(answer(this_update=minting.NOW + ahead, nonce=nonce), nonce=nonce)
    assert (result.status, result.in_window) == (RevocationStatus.GOOD, True)


def test_the_tolerance_is_what_the_openssl_tools_allow():
    assert RESPONDER_AHEAD.total_seconds() == 300


def test_a_responder_clock_further_ahead_is_refused_in_words_that_name_the_clock():
    ahead = minting.NOW + timedelta(seconds=301)
    recorded = check(answer(this_update=ahead))
    asked = check(answer(this_update=ahead, nonce=NONCE), nonce=NONCE)
    for result in (recorded, asked):
        assert (result.status, result.signature_valid, result.in_window) == (
            RevocationStatus.NOT_YET_VALID,
            True,
            False,
        )
        assert "responder's clock" in result.detail
        assert "301 s after the clock of this verification" in result.detail
    # Only one of the two can be a recording of another time.
    assert "from the future" in recorded.detail
    assert "echoes our nonce, so it was made after our request" in asked.detail


@pytest.mark.parametrize("ahead", [300, 301])
def test_this_update_and_produced_at_are_both_held_against_the_clock(ahead):
    future = minting.NOW + timedelta(seconds=ahead)
    expected = RevocationStatus.GOOD if ahead == 300 else RevocationStatus.NOT_YET_VALID
    assert check(answer(produced=future)).status is expected
    assert check(answer(this_update=future, produced=minting.NOW)).status is expected


def test_an_expired_responder_is_refused_without_tolerance():
    spec = minting.responder("Provisioner", not_after=minting.NOW - SECOND)
    assert check(answer(responder=spec.parsed(), signer=spec.key)).status is RevocationStatus.BAD_RESPONDER


def test_an_answer_without_next_update_counts_where_it_echoes_our_nonce_and_only_there():
    assert check(answer(next_update=None)).status is RevocationStatus.STALE
    assert check(answer(next_update=None, nonce=NONCE)).status is RevocationStatus.STALE
    assert check(answer(next_update=None), nonce=NONCE).status is RevocationStatus.STALE
    assert check(answer(next_update=None, nonce=bytes(32)), nonce=NONCE).status is RevocationStatus.STALE
    ours = check(answer(next_update=None, nonce=NONCE), nonce=NONCE)
    assert (ours.status, ours.in_window, ours.next_update) == (RevocationStatus.GOOD, True, None)


def test_an_answer_without_next_update_counts_for_an_hour_after_it_was_made():
    # thisUpdate may be older: it says since when the responder has known.
    der = answer(next_update=None, nonce=NONCE, this_update=minting.NOW - 72 * HOUR, produced=minting.NOW)
    assert check(der, nonce=NONCE, at=minting.NOW + HOUR).status is RevocationStatus.GOOD
    late = check(der, nonce=NONCE, at=minting.NOW + HOUR + SECOND)
    assert (late.status, late.in_window) == (RevocationStatus.STALE, False)
    assert "no nextUpdate and was made at" in late.detail


def test_a_window_that_ends_before_it_starts_is_stale():
    def stamp(moment):
        return b"\x18\x0f" + moment.strftime("%Y%m%d%H%M%SZ").encode()

    end = stamp(minting.NOW + 23 * HOUR)
    der = minting.resign(
        answer(this_update=minting.NOW + 2 * SECOND),
        RESPONDER_SPEC.key,
        lambda tbs: tbs.replace(end, stamp(minting.NOW + SECOND)),
    )
    assert check(der).status is RevocationStatus.STALE


@pytest.mark.parametrize(
    ("sent", "received", "outcome", "status"),
    [
        (NONCE, NONCE, NonceOutcome.MATCH, RevocationStatus.GOOD),
        (NONCE, None, NonceOutcome.ABSENT, RevocationStatus.GOOD),
        (NONCE, NONCE[:-1], NonceOutcome.MISMATCH, RevocationStatus.NONCE_MISMATCH),
        (NONCE, bytes(32), NonceOutcome.MISMATCH, RevocationStatus.NONCE_MISMATCH),
        (None, NONCE, NonceOutcome.NOT_SENT, RevocationStatus.GOOD),
        (None, None, NonceOutcome.NOT_SENT, RevocationStatus.GOOD),
    ],
)
def test_a_nonce_must_be_the_one_that_was_sent(sent, received, outcome, status):
    result = check(answer(nonce=received), nonce=sent)
    assert result.nonce is outcome
    assert result.status is status


def test_an_unknown_critical_extension_is_refused():
    assert check(answer(extra=((ODD, True),))).status is RevocationStatus.MALFORMED
    assert check(answer(extra=((ODD, False),))).status is RevocationStatus.GOOD


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (ocsp.OCSPResponseStatus.TRY_LATER, "tryLater"),
        (ocsp.OCSPResponseStatus.UNAUTHORIZED, "unauthorized"),
        (ocsp.OCSPResponseStatus.INTERNAL_ERROR, "internalError"),
        (ocsp.OCSPResponseStatus.MALFORMED_REQUEST, "malformedRequest"),
        (ocsp.OCSPResponseStatus.SIG_REQUIRED, "sigRequired"),
    ],
)
def test_a_responder_that_does_not_answer_says_why(status, word):
    der = ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(minting.DER)
    response = parse_ocsp_response(der)
    assert response.responder_status == word
    assert response.key is None
    result = check(response, nonce=NONCE)
    assert result.status is RevocationStatus.RESPONDER_ERROR
    assert word in result.detail


@pytest.mark.parametrize("status", [4, 7, 127])
def test_a_responder_status_that_does_not_exist_is_malformed(status):
    assert check(bytes([0x30, 3, 0x0A, 1, status])).status is RevocationStatus.MALFORMED


def test_success_without_an_answer_is_malformed():
    assert check(bytes.fromhex("30030a0100")).status is RevocationStatus.MALFORMED


@pytest.mark.parametrize("spoil", [lambda d: b"", lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"<html>"])
def test_bytes_that_are_no_answer_are_malformed(spoil):
    der = spoil(answer())
    with pytest.raises(ParseError):
        parse_ocsp_response(der)
    result = check(der)
    assert result.status is RevocationStatus.MALFORMED
    assert result.nonce is NonceOutcome.NOT_SENT


def test_too_many_bytes_and_too_many_certificates_are_refused():
    with pytest.raises(ParseError, match="at most 65536"):
        parse_ocsp_response(bytes(65537))
    with pytest.raises(ParseError, match="9 certificates"):
        parse_ocsp_response(answer(embed=(RESPONDER,) * 9))


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_malformed(data):
    assert check(data).status is RevocationStatus.MALFORMED


@pytest.mark.parametrize("algorithm", CertIdHash)
@pytest.mark.parametrize("nonce", [None, NONCE])
def test_a_request_names_the_certificate_and_the_nonce(algorithm, nonce):
    der = build_ocsp_request(BROM, ISSUER, nonce=nonce, hash=algorithm)
    oracle = ocsp.OCSPRequestBuilder().add_certificate(
        x509.load_der_x509_certificate(BROM.der),
        x509.load_der_x509_certificate(ISSUER.der),
        HASHES[algorithm.value],
    )
    if nonce is not None:
        oracle = oracle.add_extension(x509.OCSPNonce(nonce), critical=False)
    assert der == oracle.build().public_bytes(minting.DER)


@pytest.mark.parametrize("size", [0, 129])
def test_a_nonce_of_another_size_is_refused(size):
    with pytest.raises(InputError) as raised:
        build_ocsp_request(BROM, ISSUER, nonce=bytes(size))
    assert raised.value.code == "ocsp-nonce"


def test_the_key_of_a_certificate_finds_its_answer():
    keys = {algorithm: cert_id_key(BROM, ISSUER, algorithm) for algorithm in CertIdHash}
    assert len(set(keys.values())) == 3
    assert parse_ocsp_response(answer()).key == keys[CertIdHash.SHA384] == cert_id_key(BROM, ISSUER)
    assert parse_ocsp_response(answer(cert_hash=HASHES["sha1"])).key == keys[CertIdHash.SHA1]
    assert cert_id_key(CHAIN[0], BROM) not in keys.values()


def test_a_clock_without_zone_is_refused():
    with pytest.raises(InputError):
        check(answer(), at=datetime(2026, 1, 1))  # noqa: DTZ001
