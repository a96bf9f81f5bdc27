"""DER, PEM and OCSP: what is written is read back, and a changed certificate or answer is never believed."""

# ruff: noqa: PT017 - what is refused and what is read are two ends of one property

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from nvattest.errors import ParseError
from nvattest.model import Architecture
from nvattest.pki.certificate import Certificate, DerReader, dotted, parse_certificate, parse_pem_chain
from nvattest.pki.chain import ChainProfile, validate_chain
from nvattest.pki.dice import chip_of_chain, pdi_of_chain, read_fwid
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.pki.ocsp import RevocationStatus, check_revocation, parse_ocsp_response
from nvattest.testing import Platform, certificates
from nvattest.testing.certificates import pem

from .tools import bytes_changed, der_bytes, der_changed, der_tree, for_all, sizes

HOPPER, BLACKWELL = Platform.build("hopper-2"), Platform.build("blackwell-1")
REVOKED = Platform.build("hopper-1", lies=["gpu0:revoked=1", "gpu0:hold=2", "gpu0:unknown=3"])
ANCHORS = HOPPER.trust_anchors()
CHAIN = tuple(certificate.der for certificate in HOPPER.gpus[0].certificates)
OTHERS = tuple(c.der for d in (HOPPER.gpus[1], BLACKWELL.gpus[0]) for c in d.certificates)
ANSWERS = tuple(HOPPER.ocsp_answers().values())
VERIFIER = EcdsaVerifier()


def judge(certificates: tuple[Certificate, ...]) -> bool:
    chain = validate_chain(
        certificates, ANCHORS.device, profile=ChainProfile.DEVICE, at=HOPPER.clock, verifier=VERIFIER
    )
    return chain.path_ok and chain.in_validity


def read_everything(certificate: Certificate) -> None:
    """What is parsed late must not raise late."""
    assert certificate.subject is not None
    assert certificate.label
    assert certificate.issuer is not None
    assert repr(certificate)
    for name in ("common_name", "subject_serial", "key_bits", "ocsp_urls", "device_info", "ocsp_signing"):
        getattr(certificate, name)
    for architecture in Architecture:
        try:
            read_fwid(certificate, architecture)
        except ParseError as error:
            assert error.code in ("der", "fwid")


ELEMENTS = st.recursive(
    st.tuples(st.sampled_from((1, 2, 3, 4, 5, 6, 12, 0x80, 0x9E)), st.binary(max_size=300)),
    lambda inner: st.tuples(st.sampled_from((0x30, 0x31, 0xA0, 0xA3)), st.lists(inner, max_size=5)),
    max_leaves=12,
)


def written(node: tuple[int, object]) -> bytes:
    tag, inside = node
    return certificates.tlv(tag, inside if isinstance(inside, bytes) else b"".join(map(written, inside)))  # type: ignore[call-overload]


def read(reader: DerReader, data: bytes) -> list[tuple[int, object]]:
    found: list[tuple[int, object]] = []
    while not reader.at_end:
        element = reader.element(None, "element")
        inside = DerReader(data, element.body, element.end, source="test")
        content = data[element.body : element.end]
        found.append((element.tag, read(inside, data) if element.tag & 0x20 else content))
    return found


@sizes(100)
def test_the_reader_reads_what_another_writer_wrote(examples: int) -> None:
    def check(node: tuple[int, object]) -> None:
        data = written(node)
        assert read(DerReader(data, source="test"), data) == [node]
        assert der_bytes(der_tree(data)) == data

    for_all(ELEMENTS, examples, check)


@sizes(200, 20_000)
def test_bytes_that_are_no_der_are_a_parse_error_and_what_is_read_is_the_shortest_form(examples: int) -> None:
    def check(data: bytes) -> None:
        try:
            nodes = read(DerReader(data, source="test"), data)
        except ParseError as error:
            assert error.code == "der"
            return
        assert b"".join(map(written, nodes)) == data

    for_all(st.binary(max_size=64) | bytes_changed(CHAIN[:1]), examples, check)


@sizes(150)
def test_object_identifiers_are_read_as_they_were_written(examples: int) -> None:
    arcs = st.tuples(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**64), max_size=8)).map(
        lambda parts: ".".join(map(str, (parts[0], parts[1], *parts[2])))
    )

    def check(text: str) -> None:
        data = certificates.oid(text)
        assert dotted(DerReader(data, source="test").content(6, "oid")) == text

    for_all(arcs, examples, check)


@sizes(250, 40_000)
def test_a_changed_certificate_is_a_parse_error_or_breaks_its_chain(examples: int) -> None:
    def check(case: tuple[int, bytes]) -> None:
        position, der = case
        try:
            certificate = parse_certificate(der)
        except ParseError as error:
            assert error.code
            return
        assert certificate.der == der
        read_everything(certificate)
        chain = [parse_certificate(item) for item in CHAIN]
        chain[position] = certificate
        chip_of_chain(chain), pdi_of_chain(chain)
        assert judge(tuple(chain)) is (der == CHAIN[position])

    changed = der_changed((*CHAIN, *OTHERS)) | bytes_changed((*CHAIN, *OTHERS))
    for_all(st.tuples(st.integers(0, len(CHAIN) - 1), changed), examples, check)


@sizes(150, 20_000)
def test_certificates_put_together_in_any_way_are_a_path_only_as_they_were_issued(examples: int) -> None:
    parsed = {der: parse_certificate(der) for der in (*CHAIN, *OTHERS)}
    good = {
        CHAIN,
        tuple(c.der for c in HOPPER.gpus[1].certificates),
        tuple(c.der for c in BLACKWELL.gpus[0].certificates),
    }

    def check(ders: list[bytes]) -> None:
        assert judge(tuple(parsed[der] for der in ders)) is (tuple(ders) in good)

    every, whole = tuple(parsed), sorted(good)
    mixed = st.lists(st.integers(0, len(every) - 1).map(every.__getitem__), min_size=1, max_size=9)
    place = st.integers(0, len(whole) - 1).map(whole.__getitem__)
    spliced = st.tuples(place, place, st.integers(0, 5)).map(
        lambda parts: [*parts[0][: parts[2]], *parts[1][parts[2] :]]
    )
    for_all(mixed | spliced, examples, check)


@sizes(100)
def test_pem_is_read_as_it_was_written(examples: int) -> None:
    def check(case: tuple[list[bytes], bool]) -> None:
        ders, final = case
        assert [c.der for c in parse_pem_chain(pem(ders, final_newline=final))] == ders

    for_all(
        st.tuples(
            st.lists(st.integers(0, 14).map((*CHAIN, *OTHERS).__getitem__), min_size=1, max_size=8, unique=True),
            st.booleans(),
        ),
        examples,
        check,
    )


@sizes(250, 40_000)
def test_changed_pem_is_a_parse_error_or_the_same_certificates_or_no_path(examples: int) -> None:
    text = pem(CHAIN)
    lines = text.splitlines(keepends=True)

    def check(data: bytes) -> None:
        try:
            certificates = parse_pem_chain(data)
        except ParseError as error:
            assert error.code
            return
        assert judge(certificates) is (tuple(c.der for c in certificates) == CHAIN)

    shuffled = st.lists(st.integers(0, len(lines) - 1).map(lines.__getitem__), max_size=120).map(b"".join)
    dropped = st.sets(st.integers(0, len(lines) - 1), max_size=5).map(
        lambda out: b"".join(line for number, line in enumerate(lines) if number not in out)
    )
    added = st.tuples(
        st.integers(0, len(lines)),
        st.sampled_from(
            (b"\n", b" \t\n", b"# x\n", b"-----BEGIN PRIVATE KEY-----\n", b"Proc-Type: 4\n", b"\r\n", b"====\n")
        ),
    ).map(lambda place: b"".join([*lines[: place[0]], place[1], *lines[place[0] :]]))
    for_all(bytes_changed((text,)) | shuffled | dropped | added, examples, check)


@sizes(250, 40_000)
def test_a_changed_ocsp_answer_is_a_parse_error_or_not_good(examples: int) -> None:
    chain = [parse_certificate(der) for der in CHAIN]
    genuine = {parse_ocsp_response(answer).tbs for answer in ANSWERS}

    def check(der: bytes) -> None:
        try:
            response = parse_ocsp_response(der)
        except ParseError as error:
            assert error.code == "ocsp" or error.source == "certificate"
            return
        for certificate, issuer in itertools.pairwise(chain):
            judged = check_revocation(
                response, certificate=certificate, issuer=issuer, at=HOPPER.clock, nonce=None, verifier=VERIFIER
            )
            assert judged.detail
            if judged.status is RevocationStatus.GOOD:
                assert response.tbs in genuine
                assert response.serial == certificate.serial

    seeds = (*ANSWERS, *REVOKED.ocsp_answers().values())
    for_all(der_changed(seeds) | bytes_changed(seeds), examples, check)
