"""Simulated guests: their quotes and collateral are good under their own roots, in libraries of others, and no further."""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import urlopen

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from nvattest.errors import InputError
from nvattest.pki.anchors import CPU_ANCHORS, SIMULATION_ORGANIZATION
from nvattest.tee.collateral import SnpCollateral, TdxCollateral
from nvattest.tee.quote import QuoteKind, parse_quote
from nvattest.testing import GUEST_LIES, GUESTS, Platform, SimulatedGuest, parse_fault
from nvattest.testing.lies import LieSpec
from nvattest.testing.services import Services

REPORT_DATA = bytes(range(64))
TDX = [kind for kind in GUESTS if kind.startswith("tdx")]
SNP = [*(kind for kind in GUESTS if kind.startswith("snp")), "snp-genoa-vlek", "snp-siena-vlek", "snp-turin-vlek"]
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
# An argument for each lie that needs one.
ARGUMENTS = {
    "register": "=1", "chain-signature": "=1", "expired": "=0", "not-yet-valid": "=0", "revoked": "=1", "vmpl": "=1",
    "policy": "=030000", "version": "=5", "tamper": "=100", "truncate": "=10", "trailing": "=00ff", "evaluation": "=3",
    "tcb-status": "=ConfigurationNeeded",
}  # fmt: skip
# What the library takes for good; each of them is for our own policy to see.
JUDGED_BY_POLICY = {"measurement", "register", "report-data", "evaluation", "tcb-status", "out-of-date", "trailing"}


def told(spec: LieSpec) -> str:
    return f"guest:{spec.name}{ARGUMENTS.get(spec.name, '')}"


def lies_of(maker: str) -> list[Any]:
    return [pytest.param(told(spec), id=spec.name) for spec in GUEST_LIES if spec.only in ("", maker)]


def sides(guest: SimulatedGuest) -> tuple[bytes, TdxCollateral | SnpCollateral]:
    return guest.quote(REPORT_DATA), guest.collateral()


@pytest.fixture(scope="module")
def qvl() -> ModuleType:
    """Phala's verification library, which shares no line with ours."""
    return pytest.importorskip("dcap_qvl", reason="dcap-qvl (extra tdx) is not here")


def claims(qvl: ModuleType, guest: SimulatedGuest, root: bytes | None = None) -> dict[str, Any]:
    now = int(guest.clock.timestamp())
    quote, collateral = sides(guest)
    assert isinstance(collateral, TdxCollateral)
    verifier = qvl.QuoteVerifier(guest.root) if root is None else qvl.QuoteVerifier()
    read = qvl.QuoteCollateralV3.from_json(collateral.text)
    done = verifier.verify_with_policy(quote, read, now, qvl.QuotePolicy.claims_only(now))
    found: dict[str, Any] = json.loads(done.to_json())
    return found


# --- Intel ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "body"), list(zip(TDX, ["TD10", "TD15", "TD15Ex"], strict=True)))
def test_a_tdx_quote_is_up_to_date_under_its_own_root_and_refused_under_intels(
    qvl: ModuleType, kind: str, body: str
) -> None:
    guest = SimulatedGuest(kind)
    found = claims(qvl, guest)
    assert found["tcb"] == {"status": "UpToDate", "advisory_ids": [], "eval_data_number": 20}
    [(name, report)] = found["report"].items()
    while "base" in report:
        report = report["base"]
    assert (name, report["report_data"], report["mr_td"]) == (body, REPORT_DATA.hex(), guest.measurement.hex())
    with pytest.raises(ValueError, match="Verification failed"):
        claims(qvl, guest, root=CPU_ANCHORS.intel.spki_der)


@pytest.mark.parametrize("lie", lies_of("tdx"))
def test_the_library_refuses_what_intel_signs_against_and_leaves_the_rest_to_the_policy(
    qvl: ModuleType, lie: str
) -> None:
    guest, honest = SimulatedGuest("tdx", lies=[lie]), SimulatedGuest("tdx")
    if guest.lies[0].name not in JUDGED_BY_POLICY:
        with pytest.raises(ValueError, match="failed"):
            claims(qvl, guest)
    else:
        assert sides(guest) != sides(honest)
        assert claims(qvl, guest) != claims(qvl, honest) or lie.startswith("guest:trailing")


def test_a_tdx_quote_and_its_certificates_have_the_shape_of_genuine_ones(real_data: Path) -> None:
    ours = SimulatedGuest("tdx").quote(REPORT_DATA)
    theirs = (real_data / "tee/tdx/t1-v4-uptodate.quote.bin").read_bytes()
    assert ours[:28] == theirs[:28]  # the header up to the user data, which names no machine here
    assert ours[48 + 112 : 48 + 136] == theirs[48 + 112 : 48 + 136]  # SEAM attributes, TD attributes, XFAM
    document = json.loads((real_data / "tee/tdx/t1-v4-uptodate.collateral.json").read_bytes())
    collateral = SimulatedGuest("tdx").collateral()
    assert isinstance(collateral, TdxCollateral)
    assert list(collateral.members) == list(document)
    for name in ("tcb_info", "qe_identity"):
        assert list(json.loads(collateral.members[name])) == list(json.loads(document[name]))
    [pck, *_] = chain_of(ours)
    [genuine, *_] = chain_of(theirs)
    assert sorted(item.oid.dotted_string for item in pck.extensions) == sorted(
        item.oid.dotted_string for item in genuine.extensions
    )


def chain_of(quote: bytes) -> list[x509.Certificate]:
    start = quote.index(b"-----BEGIN CERTIFICATE-----")
    return x509.load_pem_x509_certificates(quote[start:].rstrip(b"\0"))


# --- AMD --------------------------------------------------------------------------------------------------------------


def loaded(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        # Endorsement keys have serial number 0, and the library says what it will do about that.
        warnings.simplefilter("ignore")
        return x509.load_der_x509_certificate(der)


def serial(der: bytes) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x509.load_der_x509_certificate(der).serial_number


def verify_snp(guest: SimulatedGuest) -> None:
    """Chain, revocation list and report, by the library alone.

    Raises:
        InvalidSignature: one of them is not signed by the one above.
    """
    report, collateral = sides(guest)
    assert isinstance(collateral, SnpCollateral)
    key, authority, root = map(loaded, collateral.certificates)
    for certificate, issuer in ((key, authority), (authority, root), (root, root)):
        issuer.public_key().verify(  # type: ignore[union-attr,call-arg]
            certificate.signature, certificate.tbs_certificate_bytes, PSS, hashes.SHA384()
        )
        assert certificate.issuer == issuer.subject
    [crl] = map(x509.load_der_x509_crl, collateral.crls)
    root.public_key().verify(crl.signature, crl.tbs_certlist_bytes, PSS, hashes.SHA384())  # type: ignore[union-attr,call-arg]
    r, s = (int.from_bytes(report[place : place + 72], "little") for place in (0x2A0, 0x2E8))
    public = key.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(encode_dss_signature(r, s), report[:0x2A0], ec.ECDSA(hashes.SHA384()))


@pytest.mark.parametrize("kind", SNP)
def test_an_snp_report_is_signed_by_its_chip_whose_chain_leads_to_the_root(kind: str) -> None:
    guest = SimulatedGuest(kind)
    verify_snp(guest)
    parsed = parse_quote(guest.quote(REPORT_DATA))
    assert (parsed.kind, parsed.report_data, parsed.measurement) == (QuoteKind.SNP, REPORT_DATA, guest.measurement)
    assert not parsed.debug


@pytest.mark.parametrize(
    "lie", ["signature", "wrong-key", "tamper=100", "other-root", "chain-signature=0", "crl-signature"]
)
def test_a_lie_about_a_signature_of_amd_s_breaks_it(lie: str) -> None:
    with pytest.raises(InvalidSignature):
        verify_snp(SimulatedGuest("snp-genoa", lies=[f"guest:{lie}"]))


@pytest.mark.parametrize("kind", ["snp-genoa", "snp-genoa-vlek", "snp-turin"])
@pytest.mark.parametrize("lie", lies_of("snp"))
def test_every_lie_of_an_snp_guest_changes_what_a_verifier_sees(kind: str, lie: str) -> None:
    if lie == "guest:wrong-chip" and kind.endswith("vlek"):
        with pytest.raises(InputError, match="would change nothing"):
            SimulatedGuest(kind, lies=[lie])
        return
    if lie == "guest:version=5" and kind == "snp-turin":
        lie = "guest:version=3"
    assert sides(SimulatedGuest(kind, lies=[lie])) != sides(SimulatedGuest(kind))


@pytest.mark.parametrize(
    ("kind", "files", "certificate"),
    [
        ("snp-genoa", "snp/s3-genoa-v3.report.bin", "snp/s3-genoa-v3.vcek.der"),
        ("snp-milan-vlek", "snp/s2-milan-v3-vlek.report.bin", "snp/s2-milan-v3-vlek.vlek.der"),
        ("snp-turin", None, "snp/turin-vcek-only.der"),
    ],
)
def test_a_report_and_its_certificate_have_the_shape_of_genuine_ones(
    real_data: Path, kind: str, files: str | None, certificate: str
) -> None:
    guest = SimulatedGuest(kind)
    collateral = guest.collateral()
    assert isinstance(collateral, SnpCollateral)
    genuine_der = (real_data / "tee" / certificate).read_bytes()
    ours, theirs = loaded(collateral.certificates[0]), loaded(genuine_der)
    assert serial(collateral.certificates[0]) == serial(genuine_der) == 0
    assert (ours.subject.rdns[-1], ours.issuer.rdns[-1]) == (theirs.subject.rdns[-1], theirs.issuer.rdns[-1])
    spare = {f"1.3.6.1.4.1.3704.1.3.{number}" for number in range(4, 8)}
    assert {item.oid.dotted_string for item in ours.extensions} - spare == {
        item.oid.dotted_string for item in theirs.extensions
    } - spare
    if files is not None:
        report, genuine = guest.quote(REPORT_DATA), (real_data / "tee" / files).read_bytes()
        assert len(report) == len(genuine)
        unused = [place for place in range(0x330, 0x4A0) if report[place] or genuine[place]]
        assert unused == []
        # Key info: which key signs.
        assert struct.unpack_from("<I", report, 0x48)[0] & 0x1C == struct.unpack_from("<I", genuine, 0x48)[0] & 0x1C


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*TDX, *SNP])
def test_a_guest_is_simulated_wherever_one_looks(kind: str) -> None:
    guest = SimulatedGuest(kind)
    anchors = guest.anchors()
    assert anchors.simulated
    assert anchors.label != CPU_ANCHORS.label
    collateral = guest.collateral()
    ders = collateral.certificates if isinstance(collateral, SnpCollateral) else [guest.root]
    for der in (*ders, guest.root):
        [name] = loaded(der).subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        assert name.value == SIMULATION_ORGANIZATION
    assert hashlib.sha256(guest.root).digest() not in {
        anchor.certificate_sha256 for anchor in (CPU_ANCHORS.intel, *CPU_ANCHORS.amd.values())
    }


@pytest.mark.parametrize("kind", ["tdx", "snp-genoa", "snp-turin-vlek"])
def test_the_same_arguments_give_the_same_bytes_and_every_clock_the_same_root(kind: str) -> None:
    guest, again, other = (SimulatedGuest(kind, seed=seed) for seed in (0, 0, 1))
    later = SimulatedGuest(kind, clock=guest.clock + timedelta(days=200))
    assert sides(guest) == sides(again)
    assert guest.quote(REPORT_DATA) != other.quote(REPORT_DATA)
    assert sides(guest) != sides(later)
    assert guest.root == later.root


@pytest.mark.parametrize(
    ("kind", "lie", "said"),
    [
        ("tdx", "guest:vmpl=1", "would change nothing"),
        ("snp-genoa", "guest:sept-ve", "would change nothing"),
        ("tdx", "gpu0:fwid", "would change nothing"),
        ("snp-genoa", "guest:revoked=0", "nothing would change at that certificate"),
        ("snp-genoa", "guest:expired=2", "nothing would change at that certificate"),
        ("tdx", "guest:revoked=2", "nothing would change at that certificate"),
        ("tdx", "guest:nothing", "cannot lie about"),
        ("tdx", "guest:register=x", "cannot have the argument"),
    ],
)
def test_a_lie_that_a_guest_cannot_tell_is_refused(kind: str, lie: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SimulatedGuest(kind, lies=[lie])


def test_a_platform_takes_no_lie_of_a_guest() -> None:
    with pytest.raises(InputError, match="no guest"):
        Platform.build("hopper-1", lies=[parse_fault("guest:debug")])


@pytest.mark.parametrize("kind", ["sgx", "tdx-v6", "snp", "snp-rome", "snp-genoa-pck", ""])
def test_no_other_guest_exists(kind: str) -> None:
    with pytest.raises(InputError, match="no such guest"):
        SimulatedGuest(kind)


def test_report_data_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="exactly 64 bytes"):
        SimulatedGuest("tdx").quote(bytes(63))


def test_a_folder_of_a_guest_has_what_a_relying_party_needs(tmp_path: Path) -> None:
    names = {Path(path).name for path in SimulatedGuest("snp-genoa").write(tmp_path)}
    assert names == {"cpu-collateral.pem", "cpu-root.pem", "cpu-policy.json"}
    assert (tmp_path / "cpu-collateral.pem").read_bytes().count(b"-----BEGIN") == 4
    assert {Path(path).name for path in SimulatedGuest("tdx").write(tmp_path)} >= {"cpu-collateral.json"}


# --- the makers' services ---------------------------------------------------------------------------------------------


def get(url: str) -> tuple[Any, bytes]:
    with urlopen(url, timeout=10) as answer:  # noqa: S310 - a loopback address
        return answer.headers, answer.read()


def refusal(url: str) -> tuple[int, Any]:
    with pytest.raises(HTTPError) as caught:
        get(url)
    with caught.value as error:
        return error.code, error.headers


def test_intels_service_gives_the_signed_texts_byte_by_byte_and_their_chains_in_headers() -> None:
    guest = SimulatedGuest("tdx")
    collateral = guest.collateral()
    assert isinstance(collateral, TdxCollateral)
    members = collateral.members
    with Services(Platform.build("hopper-1"), guest=guest) as services:
        base = services.maker_url
        headers, body = get(f"{base}/tdx/certification/v4/tcb?fmspc={collateral.fmspc}")
        assert unquote(headers["TCB-Info-Issuer-Chain"]) == members["tcb_info_issuer_chain"]
        assert body.decode() == f'{{"tcbInfo":{members["tcb_info"]},"signature":"{members["tcb_info_signature"]}"}}'
        headers, body = get(f"{base}/tdx/certification/v4/qe/identity")
        assert unquote(headers["SGX-Enclave-Identity-Issuer-Chain"]) == members["qe_identity_issuer_chain"]
        assert members["qe_identity"].encode() in body
        headers, body = get(f"{base}/sgx/certification/v4/pckcrl?ca=platform&encoding=der")
        assert unquote(headers["SGX-PCK-CRL-Issuer-Chain"]) == members["pck_crl_issuer_chain"]
        assert body.hex() == members["pck_crl"]
        assert get(f"{base}/sgx/certification/v4/pckcrl?ca=platform")[1].startswith(b"-----BEGIN X509 CRL-----")
        assert get(f"{base}/IntelSGXRootCA.der")[1].hex() == members["root_ca_crl"]
        assert get(f"{base}/sgx/certification/v4/rootcacrl")[1].decode() == members["root_ca_crl"]
        for unknown in ("tdx/certification/v4/tcb?fmspc=000000000000", "sgx/certification/v4/pckcrl?ca=processor"):
            assert refusal(f"{base}/{unknown}")[0] == 404
        assert len(services.requests("pcs")) == 8


def test_amds_service_has_a_certificate_for_each_level_of_one_chip_and_answers_429_when_asked_too_often() -> None:
    guest = SimulatedGuest("snp-genoa")
    collateral = guest.collateral()
    assert isinstance(collateral, SnpCollateral)
    report = guest.quote(REPORT_DATA)
    chip, level = report[0x1A0:0x1E0].hex(), "blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}"
    with Services(
        Platform.build("hopper-1"), guest=guest, faults=["kds:rate-limited=3@/vcek/v1/Genoa/crl*1"]
    ) as services:
        base = services.maker_url
        status, headers = refusal(f"{base}/vcek/v1/Genoa/crl")
        assert (status, headers["Retry-After"]) == (429, "3")
        assert get(f"{base}/vcek/v1/Genoa/crl")[1] == get(f"{base}/vcek/v1/Genoa/crl")[1] != b""
        assert get(f"{base}/vcek/v1/Genoa/{chip}?{level.format(10, 0, 23, 84)}")[1] == collateral.certificates[0]
        older = loaded(get(f"{base}/vcek/v1/Genoa/{chip}?{level.format(9, 0, 23, 84)}")[1])
        assert older.public_key() != loaded(collateral.certificates[0]).public_key()
        chain = x509.load_pem_x509_certificates(get(f"{base}/vcek/v1/Genoa/cert_chain")[1])
        assert [certificate.subject.rdns[-1] for certificate in chain] == [
            loaded(der).subject.rdns[-1] for der in collateral.certificates[1:]
        ]
        for unknown in (
            f"vcek/v1/Genoa/{'00' * 64}?{level.format(10, 0, 23, 84)}",
            f"vcek/v1/Milan/{chip}",
            "vlek/v1/Genoa/crl",
        ):
            assert refusal(f"{base}/{unknown}")[0] == 404


def test_without_a_guest_the_makers_have_nothing() -> None:
    with Services(Platform.build("hopper-1")) as services:
        assert refusal(f"{services.maker_url}/IntelSGXRootCA.der")[0] == 404


@pytest.mark.parametrize("microcode", ["\u00b2", "219.0", "-1", "9" * 5000, ""])
def test_amds_service_has_nothing_for_a_level_of_firmware_that_is_no_number(microcode: str) -> None:
    guest = SimulatedGuest("snp-milan")
    chip = guest.quote(bytes(64))[0x1A0:0x1E0].hex()
    level = {"blSPL": "04", "teeSPL": "00", "snpSPL": "24", "ucodeSPL": "219"}
    assert guest.serve(f"/vcek/v1/Milan/{chip}", level) is not None
    assert guest.serve(f"/vcek/v1/Milan/{chip}", {**level, "ucodeSPL": microcode}) is None
