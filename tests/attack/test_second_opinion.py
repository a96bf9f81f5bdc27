"""The same signatures and chains judged by others: signxml, OpenSSL's command line, and P-384 written out in integers.

Where we refuse what others accept, the reason is named here. That we accept what another refuses must not happen.
"""

from __future__ import annotations

import base64
import hashlib
import random
import shutil
import subprocess
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from lxml import etree

from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.errors import ParseError
from nvattest.evidence import load_evidence
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchor
from nvattest.pki.certificate import Certificate, parse_pem_chain
from nvattest.pki.chain import ChainProfile, validate_chain
from nvattest.pki.ecdsa import P384_ORDER, P384_SPKI_PREFIX, EcdsaVerifier
from nvattest.rim.document import parse_rim
from nvattest.rim.verify import verify_rim
from nvattest.testing import Platform
from nvattest.testing.certificates import pem

# When the archived answers of the RIM signers were good.
REAL_INSTANT = datetime(2025, 10, 24, 12, tzinfo=timezone.utc)

# --- RIM signatures by signxml ----------------------------------------------------------------------------------------


def signxml_says(data: bytes, leaf_der: bytes) -> bool:
    """Whether signxml verifies the enveloped signature with this leaf's key, and with nothing else."""
    signxml = pytest.importorskip("signxml")
    leaf = x509.load_der_x509_certificate(leaf_der)
    configuration = signxml.SignatureConfiguration(
        require_x509=True,
        signature_methods=frozenset([signxml.SignatureMethod.ECDSA_SHA384]),
        digest_algorithms=frozenset([signxml.DigestAlgorithm.SHA384]),
        # Whether the signer has expired is another question; without this it would be asked of the clock.
        verification_time=leaf.not_valid_before_utc,
    )
    try:
        signxml.XMLVerifier().verify(data, x509_cert=leaf, expect_config=configuration)
    except (signxml.exceptions.SignXMLException, etree.LxmlError, InvalidSignature, ValueError):
        return False
    return True


def we_say(data: bytes) -> bool | None:
    """Whether the signature holds; None for a document that does not follow the profile."""
    try:
        document = parse_rim(data)
    except ParseError:
        return None
    return verify_rim(
        document, anchors=NVIDIA_ANCHORS.rim, at=datetime(2026, 1, 1, tzinfo=timezone.utc), verifier=EcdsaVerifier()
    ).signature_valid


NODES = [("hopper-8-ppcie", None), ("blackwell-8-mpt", None), ("blackwell-1", None), ("hopper-1", "620.00.01")]
RIM_LIES = ["signature", "tampered=30", "wrong-key", "golden=9", "reissued", "conflict=0", "min-svn=9", "wrong-version",
            "wrong-product", "wrong-edition", "wrong-manufacturer", "expired=0", "chain-signature=1", "other-root"]  # fmt: skip


def test_signxml_agrees_on_every_rim_of_the_simulation() -> None:
    count = 0
    for name, driver in NODES:
        for data in Platform.build(name, driver_version=driver).rims().values():
            assert we_say(data) is True
            assert signxml_says(data, parse_rim(data).certificates[0].der)
            count += 1
    assert count == 9


@pytest.mark.parametrize("lie", RIM_LIES)
def test_signxml_agrees_on_every_lie_that_a_rim_can_tell(lie: str) -> None:
    """Of the signature: what a RIM describes and who its signer is are other questions, and other checks."""
    driver = next(
        data for name, data in Platform.build("hopper-1", lies=[f"driver-rim:{lie}"]).rims().items() if "DRIVER" in name
    )
    ours = we_say(driver)
    assert ours is (lie not in ("signature", "tampered=30", "wrong-key"))
    assert signxml_says(driver, parse_rim(driver).certificates[0].der) is ours


def test_signxml_agrees_on_nvidias_rims(real_rims: dict[str, Path]) -> None:
    for name, path in real_rims.items():
        data = path.read_bytes()
        assert we_say(data) is not name.startswith("rim-bad/"), name
        assert signxml_says(data, parse_rim(data).certificates[0].der) is we_say(data), name


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.fuzz)])
def test_signxml_agrees_on_rims_with_changed_bytes(count: int) -> None:
    """Letters and digits are changed into others, so that most documents still follow the profile."""
    data = next(iter(Platform.build("hopper-1").rims().values()))
    leaf = parse_rim(data).certificates[0].der
    chance = random.Random(8)  # noqa: S311 - the same changes each time
    places = [at for at, byte in enumerate(data) if chr(byte).isalnum()]
    judged = {True: 0, False: 0, None: 0}
    for _ in range(count):
        changed = bytearray(data)
        at = chance.choice(places)
        changed[at] = chance.choice(b"0123456789abcdefABCDEF")
        ours = we_say(bytes(changed))
        judged[ours] += 1
        if bytes(changed) == data:
            assert ours is True
            continue
        # Nothing that we believe is refused there. A certificate above the leaf is none of the signature's business.
        theirs = signxml_says(bytes(changed), leaf)
        assert ours is not True or theirs
        assert theirs is not True or ours is True or ours is None or b"X509Certificate" in data[: at + 1]
    assert judged[False] > 0


# --- chains by OpenSSL's command line ---------------------------------------------------------------------------------


def openssl_says(certificates: tuple[bytes, ...], root: bytes, at: datetime, folder: Path) -> bool:
    """Whether ``openssl verify`` finds a path from the first certificate to the root at this instant."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl on this machine")
    for name, ders in (("leaf", certificates[:1]), ("rest", certificates[1:]), ("root", (root,))):
        (folder / f"{name}.pem").write_bytes(pem(ders) if ders else b"")
    rest = ["-untrusted", str(folder / "rest.pem")] if len(certificates) > 1 else []
    command = [
        program, "verify", "-no-CApath", "-no-CAstore", "-CAfile", str(folder / "root.pem"), *rest,
        "-attime", str(int(at.timestamp())), "-check_ss_sig", "-ignore_critical", str(folder / "leaf.pem"),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def judged_by_us(
    certificates: tuple[Certificate, ...], anchors: tuple[TrustAnchor, ...], profile: ChainProfile, at: datetime
) -> tuple[bool, set[str]]:
    chain = validate_chain(certificates, anchors, profile=profile, at=at, verifier=EcdsaVerifier())
    return chain.path_ok and chain.in_validity, {
        finding.rule for finding in (*chain.path_findings, *chain.validity_findings)
    }


HONEST = Platform.build("hopper-1")
# What we refuse and OpenSSL does not: it makes a path of its own from what it is given, does not care for the leaf's
# usage when no purpose is asked for, and takes SHA-256 as well. Critical extensions are left to us (the leaves of
# devices have critical ones of NVIDIA's that OpenSSL does not know).
STRICTER = ("algorithm", "chain-repeated", "chain-swapped", "critical", "key-usage=0")
CHAIN_LIES = [
    *(
        f"{name}={position}"
        for name in ("chain-signature", "key-usage", "critical", "algorithm", "expired", "not-yet-valid")
        for position in range(5)
    ),
    *(f"not-a-ca={position}" for position in range(1, 5)),
    *(f"chain-missing={position}" for position in range(1, 4)),
    *(f"chain-repeated={position}" for position in range(5)),
    *(f"chain-swapped={position}" for position in range(1, 4)),
    "other-root",
]


@pytest.mark.parametrize("lie", ["", *CHAIN_LIES])
def test_openssl_agrees_on_device_chains_or_we_are_stricter_for_a_known_reason(lie: str, tmp_path: Path) -> None:
    node = Platform.build("hopper-1", lies=[f"gpu0:{lie}"] if lie else [])
    certificates = parse_pem_chain(node.gpus[0].chain_pem)
    root = parse_pem_chain(HONEST.gpus[0].chain_pem)[-1]
    ours, rules = judged_by_us(certificates, HONEST.trust_anchors().device, ChainProfile.DEVICE, HONEST.clock)
    theirs = openssl_says(tuple(c.der for c in certificates), root.der, HONEST.clock, tmp_path)
    assert ours is (lie == "")
    if theirs is not ours:
        # A root that came with the chain is not what OpenSSL looks at: it takes its own copy.
        about_the_root = lie.endswith("=4") or (lie == "other-root" and "anchor" in rules)
        assert theirs, "OpenSSL refuses what we accept"
        assert lie.startswith(STRICTER) or about_the_root, (lie, rules)


RIM_CHAIN_LIES = [
    f"{name}={position}"
    for name in ("chain-signature", "expired", "not-yet-valid", "key-usage", "not-a-ca")
    for position in range(name == "not-a-ca", 3)
]


@pytest.mark.parametrize("lie", ["", *RIM_CHAIN_LIES])
def test_openssl_agrees_on_the_chains_of_rims(lie: str, tmp_path: Path) -> None:
    node = Platform.build("hopper-1", lies=[f"driver-rim:{lie}"] if lie else [])
    data = next(data for name, data in node.rims().items() if "DRIVER" in name)
    certificates = parse_rim(data).certificates
    root = next(c for c in parse_pem_chain(HONEST.anchors_pem) if c.subject == certificates[-1].subject)
    ours, rules = judged_by_us(certificates, HONEST.trust_anchors().rim, ChainProfile.RIM, HONEST.clock)
    theirs = openssl_says(tuple(c.der for c in certificates), root.der, HONEST.clock, tmp_path)
    assert ours is (lie == "")
    assert theirs is ours or (theirs and lie == "key-usage=0"), rules


# One of each kind of capture: OpenSSL is a process for each chain.
REAL_EVIDENCE = (
    "blackwell-575.32-attsdk.json",
    "gb100-590.48.01-mpt8.json",
    "h100nvl-550.144.03.json",
    "hgx4-switch.json",
    "hgx8-gpu-590.12.json",
    "hopper-550.90.07-nvtrust.json",
    "hopper-560.00-invalidsig-attsdk.json",
    "hopper-580.159.03-attsdk.json",
    "hopper-590.12-single.json",
    "ls10-attsdk.json",
    "nras-body-h100.json",
    "nras-body-h200x8.json",
    "nul-chain-h200.json",
    "rubin-620.54.json",
)


@pytest.mark.parametrize("name", REAL_EVIDENCE)
def test_openssl_agrees_on_nvidias_device_chains(real_data: Path, tmp_path: Path, name: str) -> None:
    for item in load_evidence((real_data / "evidence" / name).read_bytes())[:2]:
        certificates = parse_pem_chain(item.certificate_chain)
        ours, rules = judged_by_us(certificates, NVIDIA_ANCHORS.device, ChainProfile.DEVICE, REAL_INSTANT)
        assert ours, rules
        # OpenSSL is given the chain's own root as anchor; ours are pinned.
        assert openssl_says(tuple(c.der for c in certificates), certificates[-1].der, REAL_INSTANT, tmp_path)


def test_openssl_agrees_on_the_chains_of_nvidias_rims(real_rims: dict[str, Path], tmp_path: Path) -> None:
    seen = set()
    for name, path in real_rims.items():
        certificates = parse_rim(path.read_bytes()).certificates
        ours, rules = judged_by_us(certificates, NVIDIA_ANCHORS.rim, ChainProfile.RIM, REAL_INSTANT)
        theirs = openssl_says(tuple(c.der for c in certificates), certificates[-1].der, REAL_INSTANT, tmp_path)
        assert theirs is ours, (name, rules)
        seen.add(ours)
    # Signers that had expired at this instant are among them.
    assert seen == {True, False}


# --- P-384 in integers ------------------------------------------------------------------------------------------------

P = 2**384 - 2**128 - 2**96 + 2**32 - 1
B = int("B3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF", 16)
G = (
    int("AA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7", 16),
    int("3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F", 16),
)
N = P384_ORDER
Point = tuple[int, int] | None  # None is the point at infinity


def add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def times(k: int, point: Point) -> Point:
    total: Point = None
    for bit in f"{k % N:b}":
        total = add(total, total)
        if bit == "1":
            total = add(total, point)
    return total


def negative(point: Point) -> Point:
    return None if point is None else (point[0], -point[1] % P)


def hashed(message: bytes) -> int:
    return int.from_bytes(hashlib.sha384(message).digest(), "big")


def verified(key: Point, r: int, s: int, message: bytes) -> bool:
    """FIPS 186-5, 6.4.2, in so many words."""
    if not (0 < r < N and 0 < s < N) or key is None:
        return False
    inverse = pow(s, -1, N)
    point = add(times(hashed(message) * inverse, G), times(r * inverse, key))
    return point is not None and point[0] % N == r


def key_for(point: Point, r: int, s: int, message: bytes) -> Point:
    """The public key under which (r, s) is a good signature whose point is ``point``: (s·R - e·G) / r."""
    return times(pow(r, -1, N), add(times(s, point), negative(times(hashed(message), G))))


def on_curve(x: int) -> Point:
    square = (x * x * x - 3 * x + B) % P
    y = pow(square, (P + 1) // 4, P)
    return (x, y) if y * y % P == square else None


MESSAGE = b"P-384 with SHA-384"
E = hashed(MESSAGE)


@cache
def edges() -> dict[str, tuple[Point, int, int]]:
    """Key, r and s: edges that no honest signer ever meets, most of them good signatures all the same."""
    made: dict[str, tuple[Point, int, int]] = {}
    for name, k in (("k = 1", 1), ("k = 2", 2), ("k = n - 1", N - 1), ("k = (n + 1) / 2", (N + 1) // 2)):
        point = times(k, G)
        assert point is not None
        r = point[0] % N
        for what, s in (("1", 1), ("2", 2), ("n - 1", N - 1), ("(n - 1) / 2", N // 2), ("(n + 1) / 2", N // 2 + 1), ("2**383", 2**383)):  # fmt: skip
            made[f"{name}, s = {what}"] = (key_for(point, r, s, MESSAGE), r, s)
    # The x of R is n or more, so that r is not x: one of 2**194 honest signatures.
    beyond = next(x for x in range(N, N + 1000) if on_curve(x) is not None and x % N)
    point = on_curve(beyond)
    made["x of R beyond n"] = (key_for(point, beyond % N, 12345, MESSAGE), beyond % N, 12345)
    # The smallest r there is.
    small = next(x for x in range(1, 1000) if on_curve(x) is not None)
    made["the smallest r"] = (key_for(on_curve(small), small, 7, MESSAGE), small, 7)
    last = next(x for x in range(N - 1, N - 1000, -1) if on_curve(x) is not None)
    made["the largest r"] = (key_for(on_curve(last), last, 7, MESSAGE), last, 7)
    # The two halves of the sum are the same point, or add up to infinity.
    made["u1·G equals u2·Q"] = _same_halves()
    for r in (1, 5, N - 1):
        made[f"R at infinity, r = {r}"] = (times(-E * pow(r, -1, N), G), r, 99)
    # Keys with a known or small logarithm.
    for name, d in (("G", 1), ("-G", N - 1), ("2G", 2)):
        point = times(0xC0FFEE, G)
        assert point is not None
        r = point[0] % N
        made[f"the key is {name}"] = (times(d, G), r, pow(0xC0FFEE, -1, N) * (E + r * d) % N)
    # The same signature under the negated key, and its twin.
    key, r, s = made["k = 2, s = 2"]
    made["the negated key"] = (negative(key), r, s)
    made["the other s"] = (key, r, N - s)
    made["r and s exchanged"] = (key, s, r)
    made["r + 1"] = (key, r + 1, s)
    for name, number in (("0", 0), ("n", N), ("n + 1", N + 1), ("p", P), ("p - n", P - N), ("2**384 - 1", 2**384 - 1)):
        made[f"r = {name}"] = (key, number, s)
        made[f"s = {name}"] = (key, r, number)
        made[f"r = s = {name}"] = (key, number, number)
    made["r beyond n that is right modulo n"] = (made["the smallest r"][0], small + N, 7)
    made["s beyond n that is right modulo n"] = (key, r, s + N)
    return made


def _same_halves() -> tuple[Point, int, int]:
    # Q = d·G with d = e / r makes u1 = u2·d; any R = k·G then needs s = (e + r·d) / k = 2e / k.
    k = 0xBEEF
    point = times(k, G)
    assert point is not None
    r = point[0] % N
    return times(E * pow(r, -1, N), G), r, 2 * E * pow(k, -1, N) % N


def spki(point: Point) -> bytes:
    assert point is not None
    return P384_SPKI_PREFIX + point[0].to_bytes(48, "big") + point[1].to_bytes(48, "big")


@pytest.fixture(params=["cryptography", "aws-lc"])
def backend(request: pytest.FixtureRequest) -> EcdsaVerifier:
    if request.param == "aws-lc":
        pytest.importorskip("awscrt")
    return EcdsaVerifier(backend=request.param)


@pytest.mark.parametrize("name", edges())
def test_both_backends_judge_the_edges_of_p384_as_the_integers_do(backend: EcdsaVerifier, name: str) -> None:
    key, r, s = edges()[name]
    right = verified(key, r, s, MESSAGE)
    raw = (r % 2**384).to_bytes(48, "big") + (s % 2**384).to_bytes(48, "big")
    if r < 2**384 and s < 2**384:
        assert backend.verify_raw(spki(key), raw, MESSAGE) is right
    der = b"\x02".join([b"", _integer(r), _integer(s)])
    assert backend.verify_der(spki(key), b"\x30" + bytes([len(der)]) + der, MESSAGE) is right
    assert not backend.verify_raw(spki(key), raw, MESSAGE + b"!")


def _integer(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([len(content)]) + content


def test_the_edges_are_good_and_bad_ones() -> None:
    """So that the test above cannot pass by refusing everything."""
    good = {name for name, (key, r, s) in edges().items() if verified(key, r, s, MESSAGE)}
    assert {"x of R beyond n", "the smallest r", "the largest r", "u1·G equals u2·Q", "the other s"} <= good
    assert sum(name.startswith("k = ") for name in good) == 24
    bad = set(edges()) - good
    assert {"R at infinity, r = 1", "r = 0", "s = n", "r beyond n that is right modulo n", "the negated key"} <= bad


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "sha3_384"])
def test_another_hash_is_refused_though_its_signature_is_good(backend: EcdsaVerifier, algorithm: str) -> None:
    """SHA-512 is longer than the order: truncated as the standard says, it still is another hash."""
    digest = hashlib.new(algorithm, MESSAGE).digest()[:48]
    e = int.from_bytes(digest, "big")
    d, k = 0x1234567, 0x7654321
    point = times(k, G)
    assert point is not None
    r = point[0] % N
    s = pow(k, -1, N) * (e + r * d) % N
    raw = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    assert not backend.verify_raw(spki(times(d, G)), raw, MESSAGE)
    honest = pow(k, -1, N) * (E + r * d) % N
    assert backend.verify_raw(spki(times(d, G)), raw[:48] + honest.to_bytes(48, "big"), MESSAGE)


def test_the_integers_agree_with_the_simulation() -> None:
    """A report of a simulated device, verified with nothing but integers."""
    device = HONEST.gpus[0]
    report = device.report(bytes(32))
    key = parse_pem_chain(device.chain_pem)[0].spki_der[len(P384_SPKI_PREFIX) :]
    point = (int.from_bytes(key[:48], "big"), int.from_bytes(key[48:], "big"))
    r, s = int.from_bytes(report[-96:-48], "big"), int.from_bytes(report[-48:], "big")
    assert verified(point, r, s, report[:-96])
    assert not verified(point, r, s, report[:-97])
    assert memory_of(Verifier()).ecdsa.verify_raw(spki(point), report[-96:], report[:-96])
    assert base64.b64encode(report[-96:])
