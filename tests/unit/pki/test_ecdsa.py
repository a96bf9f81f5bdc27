from __future__ import annotations

import itertools
import sys

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from nvattest.errors import InputError
from nvattest.pki import ecdsa
from nvattest.pki.ecdsa import P384_ORDER, P384_SPKI_PREFIX, EcdsaVerifier

from . import minting

MESSAGE = b"what was signed"
N = P384_ORDER


def spki(key, form=serialization.PublicFormat.SubjectPublicKeyInfo):
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


KEY = minting.key("signer")
SPKI = spki(KEY)
SIGNATURE = KEY.sign(MESSAGE, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
R, S = decode_dss_signature(SIGNATURE)


def raw(r, s, size=48):
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@pytest.fixture(params=["cryptography", "aws-lc"])
def verifier(request):
    if request.param == "aws-lc":
        pytest.importorskip("awscrt")
    return EcdsaVerifier(backend=request.param)


def test_a_good_signature_verifies_in_both_forms(verifier):
    assert verifier.verify_raw(SPKI, raw(R, S), MESSAGE)
    assert verifier.verify_der(SPKI, SIGNATURE, MESSAGE)


def test_the_other_s_of_the_same_signature_verifies_as_plain_ecdsa_has_it(verifier):
    assert verifier.verify_raw(SPKI, raw(R, N - S), MESSAGE)
    assert verifier.verify_der(SPKI, encode_dss_signature(R, N - S), MESSAGE)


@pytest.mark.parametrize("bad", [0, N, N - 1, N + 1, 2**384 - 1, 1])
def test_r_and_s_outside_of_the_group_or_forged_are_refused(verifier, bad):
    for r, s in ((bad, S), (R, bad), (bad, bad)):
        assert not verifier.verify_raw(SPKI, raw(r, s), MESSAGE)
        assert not verifier.verify_der(SPKI, encode_dss_signature(r, s), MESSAGE)


def test_numbers_out_of_range_never_reach_the_curve(verifier):
    for r, s in ((0, S), (R, N), (R + N if R + N < 2**384 else N, S)):
        verifier.verify_raw(SPKI, raw(r, s), MESSAGE)
    assert verifier.verifications == 0


@pytest.mark.parametrize("size", [0, 1, 95, 97, 192])
def test_raw_signatures_of_another_length_are_refused(verifier, size):
    assert not verifier.verify_raw(SPKI, (raw(R, S) * 2)[:size], MESSAGE)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\x30",
        SIGNATURE + b"\0",
        SIGNATURE[:-1],
        b"\x31" + SIGNATURE[1:],
        b"\x30\x81" + SIGNATURE[1:],  # the length in a longer form
        raw(R, S),
        bytes.fromhex("3006020101020101"),
        bytes.fromhex("30060201ff020101"),
        b"\x30\x80" + SIGNATURE[2:] + b"\0\0",
        b"\xff" * 5000,
    ],
    ids=range(11),
)
def test_der_signatures_that_are_not_canonical_are_refused(verifier, signature):
    assert not verifier.verify_der(SPKI, signature, MESSAGE)


def test_an_integer_padded_with_a_zero_is_refused(verifier):
    r, s = (minting.tlv(2, b"\0" + minting.elements(SIGNATURE)[0][2:]), minting.elements(SIGNATURE)[1])
    assert not verifier.verify_der(SPKI, minting.tlv(0x30, r + s), MESSAGE)


def test_another_message_or_key_is_refused(verifier):
    assert not verifier.verify_der(SPKI, SIGNATURE, MESSAGE + b".")
    assert not verifier.verify_der(spki(minting.key("other")), SIGNATURE, MESSAGE)


def test_sha256_over_p384_is_refused(verifier):
    assert not verifier.verify_der(SPKI, KEY.sign(MESSAGE, ec.ECDSA(hashes.SHA256())), MESSAGE)


POINT = SPKI[len(P384_SPKI_PREFIX) :]
P256 = minting.key("signer", ec.SECP256R1())
P521 = minting.key("signer", ec.SECP521R1())
COMPRESSED = KEY.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"garbage",
        SPKI[:-1],
        SPKI + b"\0",
        P384_SPKI_PREFIX + POINT[:-1] + bytes([POINT[-1] ^ 1]),  # not on the curve
        P384_SPKI_PREFIX + bytes(96),
        P384_SPKI_PREFIX + b"\xff" * 96,
        spki(P256),
        spki(P521),
        bytes.fromhex("3046301006072a8648ce3d020106052b81040022033200") + COMPRESSED,
        KEY.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    ],
    ids=range(11),
)
def test_keys_that_are_not_a_point_on_p384_are_refused(verifier, key):
    assert not verifier.verify_der(key, SIGNATURE, MESSAGE)
    assert not verifier.verify_raw(key, raw(R, S), MESSAGE)


def test_a_key_is_p384_by_every_byte_before_its_point():
    assert ecdsa.is_p384(SPKI)
    assert not ecdsa.is_p384(SPKI + b"\0")
    assert not ecdsa.is_p384(SPKI[:-1])
    for place in range(len(P384_SPKI_PREFIX)):
        other = bytearray(SPKI)
        other[place] ^= 1
        assert not ecdsa.is_p384(bytes(other)), place


def test_every_flipped_bit_of_the_signature_is_refused_by_both_backends_alike(verifier):
    good = raw(R, S)
    for bit in range(0, 768, 37):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert not verifier.verify_raw(SPKI, bytes(bad), MESSAGE)


def test_good_results_are_remembered_and_bad_ones_are_not():
    verifier = EcdsaVerifier()
    for _ in range(3):
        assert verifier.verify_raw(SPKI, raw(R, S), MESSAGE)
        assert verifier.verify_der(SPKI, SIGNATURE, MESSAGE)
    assert verifier.verifications == 1
    for _ in range(3):
        assert not verifier.verify_der(SPKI, SIGNATURE, b"another message")
    assert verifier.verifications == 4


def test_the_memory_is_bounded_and_forgets_the_least_recently_used():
    verifier = EcdsaVerifier(remember=2)
    signed = {m: KEY.sign(m, ec.ECDSA(hashes.SHA384())) for m in (b"a", b"b", b"c")}
    for message in (b"a", b"b", b"a", b"c"):
        assert verifier.verify_der(SPKI, signed[message], message)
    assert verifier.verifications == 3
    assert verifier.verify_der(SPKI, signed[b"a"], b"a")
    assert verifier.verifications == 3
    assert verifier.verify_der(SPKI, signed[b"b"], b"b")
    assert verifier.verifications == 4


def test_a_good_result_is_known_again_under_a_name_only_for_that_name_and_that_key(verifier):
    name, other = bytes(32), bytes(range(32))
    assert verifier.verify_der(SPKI, SIGNATURE, MESSAGE, sha256=name)
    assert verifier.verify_der(SPKI, SIGNATURE, MESSAGE, sha256=name)
    assert verifier.verifications == 1
    # Another name, another key, a name of another size, no name: each is computed.
    assert not verifier.verify_der(SPKI, SIGNATURE, b"another message", sha256=other)
    assert not verifier.verify_der(spki(minting.key("other")), SIGNATURE, MESSAGE, sha256=name)
    assert not verifier.verify_der(SPKI, SIGNATURE, b"another message", sha256=name[:-1])
    assert not verifier.verify_der(SPKI, SIGNATURE, b"another message", sha256=b"")
    assert not verifier.verify_der(SPKI, SIGNATURE, b"another message")


def test_what_was_bad_under_a_name_is_computed_again(verifier):
    for _ in range(2):
        assert not verifier.verify_der(SPKI, SIGNATURE, b"another message", sha256=bytes(32))
    assert verifier.verifications == 2


def test_many_keys_are_verified_with_each_its_own(verifier):
    keys = [minting.key(f"many {index}") for index in range(3)]
    signed = [key.sign(MESSAGE, ec.ECDSA(hashes.SHA384())) for key in keys]
    for _ in range(2):
        for one in range(3):
            for two in range(3):
                assert verifier.verify_der(spki(keys[one]), signed[two], MESSAGE) is (one == two)


def test_remembering_can_be_turned_off():
    verifier = EcdsaVerifier(remember=0)
    assert verifier.verify_der(SPKI, SIGNATURE, MESSAGE)
    assert verifier.verify_der(SPKI, SIGNATURE, MESSAGE)
    assert verifier.verifications == 2


def test_a_missing_backend_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "awscrt", None)
    monkeypatch.setitem(sys.modules, "awscrt.crypto", None)
    with pytest.raises(InputError) as raised:
        EcdsaVerifier(backend="aws-lc")
    assert raised.value.code == "backend-missing"
    assert "pip install awscrt" in raised.value.hint


def test_an_unknown_backend_is_refused():
    with pytest.raises(InputError) as raised:
        EcdsaVerifier(backend="openssl")
    assert raised.value.code == "backend"


def other_thread_at(place, verifier, signed, others):
    """Verify ``signed`` while another thread verifies ``others`` at one place; how many places there are.

    A place is a bytecode: at each of them the interpreter may go on with another thread.
    """
    places = 0

    def step(frame, event, argument):
        nonlocal places
        frame.f_trace_opcodes = True
        if event == "opcode":
            places += 1
            if places == place:
                for message, signature in others:
                    assert verifier.verify_der(SPKI, signature, message)
        return step

    def trace(frame, event, argument):
        return step(frame, event, argument) if frame.f_code.co_filename == ecdsa.__file__ else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        message, signature = signed
        assert verifier.verify_der(SPKI, signature, message)
    finally:
        sys.settrace(before)
    return places


@pytest.mark.parametrize(("remember", "known"), [(0, 0), (1, 0), (2, 2)])
def test_another_thread_may_verify_between_any_two_steps(remember, known):
    signed = [(m, KEY.sign(m, ec.ECDSA(hashes.SHA384()))) for m in (b"a", b"b", b"c", b"d")]
    # Python 3.12 traces bytecode from the second call of a function on.
    other_thread_at(0, EcdsaVerifier(remember=remember), signed[0], ())
    for place in itertools.count(1):
        verifier = EcdsaVerifier(remember=remember)
        for message, signature in signed[:known]:
            assert verifier.verify_der(SPKI, signature, message)
        places = other_thread_at(place, verifier, signed[0], signed[1:])
        assert len(verifier._good) <= remember
        if place > places:
            break
    assert place > 20
