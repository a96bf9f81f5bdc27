"""NVIDIA's own chains, RIM signers and OCSP answers."""

from __future__ import annotations

import base64
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from nvattest.evidence import load_evidence
from nvattest.model import Architecture, parse_time
from nvattest.pki.anchors import NVIDIA_ANCHORS, trust_anchors_from_pem
from nvattest.pki.certificate import parse_certificate, parse_pem_chain
from nvattest.pki.chain import ChainProfile, validate_chain
from nvattest.pki.dice import architecture_of_chip, chip_of_chain, pdi_of_chain, read_fwid, tcb_infos
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.pki.ocsp import (
    RESPONDER_AHEAD,
    CertIdHash,
    NonceOutcome,
    RevocationStatus,
    cert_id_key,
    check_revocation,
    parse_ocsp_response,
)

DEVICE_TIME = parse_time("2025-08-21T07:00:00Z")
RIM_TIME = parse_time("2025-10-24T12:00:00Z")
V1_DRIVER = "NV_GPU_DRIVER_GH100_550.90.07.xml"
V1_VBIOS = "NV_GPU_VBIOS_1010_0200_882_96009F0001.xml"
V1_CHAIN = "hopper-550.90.07-nvtrust.chain.pem"


# Every file of evidence that is read here, with the number of its chains and the chip that they name.
CAPTURES = {
    "blackwell-575.32-attsdk.chain.pem": (1, "GB100"),
    "blackwell-575.32-attsdk.json": (1, "GB100"),
    "gb100-590.48.01-mpt8.json": (8, "GB100"),
    "h100nvl-550.144.03.json": (1, "GH100"),
    "hgx4-switch.json": (4, "LS_10"),
    "hgx8-gpu-590.12.json": (8, "GH100"),
    "hopper-550.90.07-nvtrust.chain.pem": (1, "GH100"),
    "hopper-550.90.07-nvtrust.json": (1, "GH100"),
    "hopper-560.00-invalidsig-attsdk.chain.pem": (1, "GH100"),
    "hopper-560.00-invalidsig-attsdk.json": (1, "GH100"),
    "hopper-580.159.03-attsdk.chain.pem": (1, "GH100"),
    "hopper-580.159.03-attsdk.json": (1, "GH100"),
    "hopper-590.12-multi4.json": (4, "GH100"),
    "hopper-590.12-single.json": (1, "GH100"),
    "ls10-attsdk.chain.pem": (1, "LS_10"),
    "ls10-attsdk.json": (1, "LS_10"),
    "ls10-multi4.json": (4, "LS_10"),
    "ls10-single.json": (1, "LS_10"),
    "nras-body-h100.json": (1, "GH100"),
    "nras-body-h200x8.json": (8, "GH100"),
    "rubin-620.54.json": (1, "GR100"),
}


def device_pems(real_data: Path, chips: tuple[str, ...] = ("GH100", "GB100", "LS_10", "GR100")) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, (count, chip) in CAPTURES.items():
        data = (real_data / "evidence" / name).read_bytes()
        pems = [data] if name.endswith(".pem") else [base64.b64decode(item["certificate"]) for item in items(data)]
        assert len(pems) == count, name
        if chip in chips:
            found |= {f"{name}[{number}]": pem for number, pem in enumerate(pems)}
    return found


def items(data: bytes) -> list[dict[str, str]]:
    document = json.loads(data)
    found: list[dict[str, str]] = document if isinstance(document, list) else document["evidence_list"]
    return found


def rim_chain(path: Path):
    texts = re.findall(rb"X509Certificate>([^<]+)<", path.read_bytes())
    return tuple(parse_certificate(base64.b64decode(text)) for text in texts)


def validate_device(certificates, verifier=None, at=DEVICE_TIME):
    return validate_chain(
        certificates,
        NVIDIA_ANCHORS.device,
        profile=ChainProfile.DEVICE,
        at=at,
        verifier=verifier or EcdsaVerifier(),
    )


@pytest.mark.parametrize("backend", ["cryptography", "aws-lc"])
def test_every_device_chain_ends_at_the_pin(real_data, backend):
    if backend == "aws-lc":
        pytest.importorskip("awscrt")
    verifier = EcdsaVerifier(backend=backend)
    pems = device_pems(real_data)
    for name, pem in pems.items():
        chain = parse_pem_chain(pem)
        result = validate_device(chain, verifier)
        assert result.path_ok, (name, result.path_findings)
        assert result.in_validity
        assert result.anchor is NVIDIA_ANCHORS.device[0]
        assert result.earliest_not_after.year == 9999
        assert len(chain) == 5
    # The upper certificates are shared: far fewer signatures than 5 per chain.
    assert (len(pems), verifier.verifications) == (51, 80)


def test_a_chain_with_nul_bytes_after_its_text_ends_at_the_pin(real_data):
    [item] = load_evidence((real_data / "evidence" / "nul-chain-h200.json").read_bytes())
    result = validate_device(parse_pem_chain(item.certificate_chain))
    assert result.path_ok, result.path_findings
    assert result.in_validity


def test_device_chains_are_no_rim_chains(real_data):
    chain = parse_pem_chain((real_data / "evidence" / V1_CHAIN).read_bytes())
    result = validate_chain(
        chain, NVIDIA_ANCHORS.rim, profile=ChainProfile.RIM, at=DEVICE_TIME, verifier=EcdsaVerifier()
    )
    assert [finding.rule for finding in result.path_findings] == ["anchor"]


def test_parts_and_names_are_those_of_the_library(real_data):
    for pem in device_pems(real_data).values():
        for certificate in parse_pem_chain(pem):
            oracle = x509.load_der_x509_certificate(certificate.der)
            assert certificate.subject == oracle.subject.rfc4514_string()
            assert certificate.issuer == oracle.issuer.rfc4514_string()
            assert certificate.tbs == oracle.tbs_certificate_bytes
            assert certificate.serial == oracle.serial_number
            assert certificate.not_after == oracle.not_valid_after_utc


def test_a_leaf_of_another_device_does_not_fit(real_data):
    chain = parse_pem_chain((real_data / "evidence" / V1_CHAIN).read_bytes())
    other = parse_pem_chain((real_data / "evidence" / "hopper-580.159.03-attsdk.chain.pem").read_bytes())
    result = validate_device([other[0], *chain[1:]])
    assert not result.path_ok
    assert "issuer-name" in {finding.rule for finding in result.path_findings}


@pytest.mark.parametrize("name", [V1_DRIVER, V1_VBIOS])
def test_the_rim_chains_end_at_the_pin(real_data, name):
    chain = rim_chain(real_data / "rim" / name)
    result = validate_chain(chain, NVIDIA_ANCHORS.rim, profile=ChainProfile.RIM, at=RIM_TIME, verifier=EcdsaVerifier())
    assert result.path_ok, result.path_findings
    assert result.in_validity
    assert [certificate.path_length for certificate in chain] == [None, 0, None, None]
    assert chain[0].common_name == "HCC RIM L4 Signer"


def test_every_rim_chain_has_a_good_path_and_its_own_validity(real_rims):
    verifier = EcdsaVerifier()
    for path in real_rims.values():
        chain = rim_chain(path)
        # Not always the leaf: the LS10 signer outlives the authority above it.
        at = min(certificate.not_after for certificate in chain)
        result = validate_chain(chain, NVIDIA_ANCHORS.rim, profile=ChainProfile.RIM, at=at, verifier=verifier)
        assert result.path_ok, (path.name, result.path_findings)
        assert result.in_validity
        assert result.earliest_not_after == at
        late = at + timedelta(seconds=1)
        result = validate_chain(chain, NVIDIA_ANCHORS.rim, profile=ChainProfile.RIM, at=late, verifier=verifier)
        assert [finding.rule for finding in result.validity_findings] == ["expired"]
        assert result.path_ok


def test_the_pins_are_the_published_roots(real_data):
    device = (real_data / "roots" / "nvidia-device-identity-ca.pem").read_bytes()
    rim = (real_data / "roots" / "nvidia-corim-signing-root.pem").read_bytes()
    anchors = trust_anchors_from_pem(device, rim=rim)
    assert anchors.device == NVIDIA_ANCHORS.device
    assert anchors.rim == NVIDIA_ANCHORS.rim
    assert anchors.is_default
    (root,) = parse_pem_chain(device)
    assert NVIDIA_ANCHORS.device[0].matches(root)
    assert not NVIDIA_ANCHORS.rim[0].matches(root)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("hopper-550.90.07-nvtrust", Architecture.HOPPER),
        ("hopper-580.159.03-attsdk", Architecture.HOPPER),
        ("blackwell-575.32-attsdk", Architecture.BLACKWELL),
    ],
)
def test_the_fwid_of_the_leaf_is_in_the_report_as_opaque_field_20(real_data, name, architecture):
    chain = parse_pem_chain((real_data / "evidence" / f"{name}.chain.pem").read_bytes())
    report = (real_data / "evidence" / f"{name}.report.hex").read_text()
    fwid = read_fwid(chain[0], architecture)
    assert fwid is not None
    # type 20, size 48, little-endian.
    assert report.count("14003000" + fwid.hex()) == 1


def test_the_fwid_of_the_wrong_chain_is_not_in_the_report(real_data):
    name = "hopper-560.00-invalidsig-attsdk"
    chain = parse_pem_chain((real_data / "evidence" / f"{name}.chain.pem").read_bytes())
    report = (real_data / "evidence" / f"{name}.report.hex").read_text()
    fwid = read_fwid(chain[0], Architecture.HOPPER)
    assert fwid is not None
    assert "14003000" in report
    assert fwid.hex() not in report


def test_a_switch_leaf_has_a_fwid_of_the_older_kind(real_data):
    chain = parse_pem_chain((real_data / "evidence" / "ls10-attsdk.chain.pem").read_bytes())
    fwid = read_fwid(chain[0], Architecture.LS10)
    assert fwid is not None
    assert fwid.hex().startswith("2ea9f30a")


def test_chips_and_pdis_of_the_real_chains(real_data):
    for name, pem in device_pems(real_data).items():
        chain = parse_pem_chain(pem)
        chip = chip_of_chain(chain)
        assert chip == CAPTURES[name.partition("[")[0]][1]
        pdi = pdi_of_chain(chain)
        assert pdi is not None
        assert re.fullmatch("[0-9A-F]{16}", pdi)
        assert chain[0].device_info.startswith(f"NVIDIA:{chip}:48B02D")


@pytest.mark.parametrize(
    ("chip", "architecture"),
    [
        ("GH100", "HOPPER"),
        ("GB100", "BLACKWELL"),
        ("LS_10", "LS10"),
        ("GR100", "RUBIN"),
    ],
)
def test_the_chip_of_a_real_chain_says_its_architecture(real_data, chip, architecture):
    for pem in device_pems(real_data, (chip,)).values():
        found = chip_of_chain(parse_pem_chain(pem))
        assert found is not None
        assert architecture_of_chip(found) is getattr(Architecture, architecture)


def test_the_tcb_info_of_a_blackwell_leaf(real_data):
    chain = parse_pem_chain((real_data / "evidence" / "blackwell-575.32-attsdk.chain.pem").read_bytes())
    info, *_ = tcb_infos(chain[0])
    assert (info.vendor, info.model, info.version) == ("NVIDIA", "GB100 A01 GSP", "01")
    assert (info.svn, info.layer, info.index) == (1, 0, 0)
    assert len(info.fwids) == 2
    assert info.fwids[1].digest == bytes(48)
    assert info.flags == ("notConfigured", "fixedWidth")


def test_where_the_certificates_say_that_revocation_answers_are(real_data):
    chain = parse_pem_chain((real_data / "evidence" / V1_CHAIN).read_bytes())
    assert [bool(certificate.ocsp_urls) for certificate in chain] == [False, False, True, True, False]
    assert chain[2].ocsp_urls == ("http://ocsp.ndis.nvidia.com",)


# File, chain, position of the certificate in it, clock.
ANSWERS = [
    ("device-brom.der", V1_CHAIN, 1, DEVICE_TIME),
    ("device-provisioner.der", V1_CHAIN, 2, DEVICE_TIME),
    ("device-identity.der", V1_CHAIN, 3, DEVICE_TIME),
    ("driver-rim-leaf.der", V1_DRIVER, 0, RIM_TIME),
    ("vbios-rim-leaf.der", V1_VBIOS, 0, RIM_TIME),
    ("rim-l3-signer-ca.der", V1_DRIVER, 1, RIM_TIME),
    ("rim-gh100-ca.der", V1_DRIVER, 2, RIM_TIME),
]
answers = pytest.mark.parametrize(("name", "chain", "position", "at"), ANSWERS, ids=[a[0] for a in ANSWERS])


def pair(real_data, chain, position):
    if chain == V1_CHAIN:
        certificates = parse_pem_chain((real_data / "evidence" / chain).read_bytes())
    else:
        certificates = rim_chain(real_data / "rim" / chain)
    return certificates[position], certificates[position + 1]


def judge(real_data, name, chain, position, at, *, nonce=None, verifier=None):
    certificate, issuer = pair(real_data, chain, position)
    der = name if isinstance(name, bytes) else (real_data / "ocsp" / name).read_bytes()
    return check_revocation(
        der, certificate=certificate, issuer=issuer, at=at, nonce=nonce, verifier=verifier or EcdsaVerifier()
    )


@answers
def test_a_real_answer_is_good_for_its_certificate(real_data, name, chain, position, at):
    result = judge(real_data, name, chain, position, at)
    assert result.status is RevocationStatus.GOOD, result.detail
    assert result.signature_valid
    assert result.in_window
    assert "OCSP Responder" in result.responder
    assert judge(real_data, name, chain, position, at, nonce=bytes(32)).nonce is NonceOutcome.ABSENT


@answers
def test_a_real_answer_says_nothing_about_another_certificate(real_data, name, chain, position, at):
    for other, other_chain, other_position, _ in ANSWERS:
        if other != name:
            result = judge(real_data, name, other_chain, other_position, at)
            assert result.status is RevocationStatus.WRONG_CERTIFICATE


@answers
def test_a_real_answer_holds_for_its_day_only(real_data, name, chain, position, at):
    response = parse_ocsp_response((real_data / "ocsp" / name).read_bytes())
    assert response.next_update - response.this_update == timedelta(days=1)
    for moment, status in (
        (response.this_update, RevocationStatus.GOOD),
        (response.next_update, RevocationStatus.GOOD),
        (response.this_update - RESPONDER_AHEAD, RevocationStatus.GOOD),
        (response.this_update - RESPONDER_AHEAD - timedelta(seconds=1), RevocationStatus.NOT_YET_VALID),
        (response.next_update + timedelta(seconds=1), RevocationStatus.STALE),
    ):
        assert judge(real_data, name, chain, position, moment).status is status


@answers
def test_a_real_answer_with_a_flipped_bit_is_never_good(real_data, name, chain, position, at):
    der = (real_data / "ocsp" / name).read_bytes()
    good = parse_ocsp_response(der)
    verifier = EcdsaVerifier()
    for part, status in ((good.tbs, None), (good.signature, RevocationStatus.BAD_SIGNATURE)):
        start = der.index(part)
        for where in range(start, start + len(part), 23):
            bad = bytearray(der)
            bad[where] ^= 0x01
            result = judge(real_data, bytes(bad), chain, position, at, verifier=verifier)
            assert result.status is not RevocationStatus.GOOD
            if status is not None:
                assert result.status in (status, RevocationStatus.MALFORMED)
            assert not result.signature_valid


@answers
def test_a_real_answer_is_found_by_the_key_of_its_certificate(real_data, name, chain, position, at):
    certificate, issuer = pair(real_data, chain, position)
    response = parse_ocsp_response((real_data / "ocsp" / name).read_bytes())
    assert response.hash_algorithm is CertIdHash.SHA384
    assert response.key == cert_id_key(certificate, issuer)


def test_an_answer_of_a_responder_that_has_expired_is_refused(real_data):
    response = parse_ocsp_response((real_data / "ocsp" / "device-identity.der").read_bytes())
    late = response.certificates[0].not_after + timedelta(seconds=1)
    result = judge(real_data, "device-identity.der", V1_CHAIN, 3, late)
    assert result.status is RevocationStatus.BAD_RESPONDER
