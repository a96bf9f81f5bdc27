"""Simulated certificates and revocation answers have the DER shape of NVIDIA's, and their signatures verify."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from nvattest.testing import Platform

from .shapes import items, pem_ders, skeleton

BASIC = bytes.fromhex("06092b0601050507300101")


def chain_of(node: Platform, switch: bool = False) -> list[bytes]:
    return pem_ders((node.switches if switch else node.gpus)[0].chain_pem)


def rim_chain(xml: bytes) -> list[bytes]:
    return [base64.b64decode(text) for text in re.findall(rb"<ds:X509Certificate>([^<]*)<", xml)]


@pytest.mark.parametrize(
    ("file", "platform", "switch"),
    [
        ("hopper-550.90.07-nvtrust", "hopper-1", False),
        ("hopper-580.159.03-attsdk", "hopper-1", False),
        ("blackwell-575.32-attsdk", "blackwell-1", False),
        ("ls10-attsdk", "hopper-8-ppcie", True),
    ],
)
def test_a_device_chain_has_the_der_shape_of_a_real_one(
    real_data: Path, file: str, platform: str, switch: bool
) -> None:
    real = pem_ders((real_data / "evidence" / f"{file}.chain.pem").read_bytes())
    ours = chain_of(Platform.build(platform), switch)
    assert len(ours) == len(real) == 5
    for position in range(5):
        assert skeleton(ours[position]) == skeleton(real[position]), position
        mine, theirs = (x509.load_der_x509_certificate(chain[position]) for chain in (ours, real))
        assert names(mine.subject) == names(theirs.subject)
        assert common_name(mine) == common_name(theirs)
        assert mine.serial_number.bit_length() // 8 == theirs.serial_number.bit_length() // 8
        assert mine.not_valid_before_utc == theirs.not_valid_before_utc
        assert mine.not_valid_after_utc == theirs.not_valid_after_utc


@pytest.mark.parametrize(
    ("file", "platform", "role"),
    [
        ("NV_GPU_DRIVER_GH100_550.144.03", "hopper-1", "DRIVER"),
        ("NV_GPU_VBIOS_1010_0200_882_96009F0001", "hopper-1", "VBIOS"),
        ("NV_SWITCH_BIOS_5612_0002_890_9610550001", "hopper-8-ppcie", "SWITCH"),
    ],
)
def test_a_rim_chain_has_the_der_shape_of_a_real_one(real_data: Path, file: str, platform: str, role: str) -> None:
    node = Platform.build(platform)
    rim = next(xml for name, xml in node.rims().items() if role in name)
    real, ours = rim_chain((real_data / "rim" / f"{file}.xml").read_bytes()), rim_chain(rim)
    for position in range(4):
        assert skeleton(ours[position]) == skeleton(real[position]), position
        mine, theirs = (x509.load_der_x509_certificate(chain[position]) for chain in (ours, real))
        assert names(mine.subject) == names(theirs.subject)
        assert common_name(mine) == common_name(theirs)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("device-brom", "BROM"),
        ("device-provisioner", "Provisioner"),
        ("device-identity", "Identity"),
        ("driver-rim-leaf", "HCC-RIM-L4"),
        ("vbios-rim-leaf", "HCC-RIM-L4"),
        ("rim-l3-signer-ca", "L3-GH100"),
        ("rim-gh100-ca", "Value-GH100-CA"),
    ],
)
def test_a_revocation_answer_has_the_der_shape_of_a_real_one(real_data: Path, file: str, part: str) -> None:
    real = (real_data / "ocsp" / f"{file}.der").read_bytes()
    ours = next(der for name, der in Platform.build("hopper-1").ocsp_answers().items() if part in name)
    assert skeleton(ours) == skeleton(real)


@pytest.mark.parametrize("name", ["hopper-8-ppcie", "blackwell-1"])
def test_every_certificate_is_signed_by_the_next_and_says_that_it_is_simulated(name: str) -> None:
    node = Platform.build(name)
    chains = [pem_ders(device.chain_pem) for device in node.devices] + [rim_chain(xml) for xml in node.rims().values()]
    roots = pem_ders(node.anchors_pem)
    for chain in chains:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        assert chain[-1] in roots
        for child, parent in zip(certificates, [*certificates[1:], certificates[-1]], strict=True):
            child.verify_directly_issued_by(parent)
            organization = child.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
            assert [item.value for item in organization] == ["nvattest simulation"]
            assert child.not_valid_before_utc <= node.at <= child.not_valid_after_utc


def test_the_brom_carries_the_pdi_and_the_leaf_the_firmware_id_of_the_report() -> None:
    from .shapes import legacy_fields, opaque_of

    node = Platform.build("hopper-8-ppcie")
    for device in node.gpus[:2]:
        leaf, brom = chain_of_device = [x509.load_der_x509_certificate(der) for der in pem_ders(device.chain_pem)][:2]
        assert len(chain_of_device) == 2
        serial = brom.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)[0].value
        assert serial[2:] == device.pdi
        extension = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier("2.23.133.5.4.1")).value
        assert isinstance(extension, x509.UnrecognizedExtension)
        fwid = dict(legacy_fields(opaque_of(device.report(bytes(32)))))[20]
        assert extension.value[-48:] == fwid
        assert len(extension.value) == 189


def ask(node: Platform, certificate: bytes, issuer: bytes, nonce: bytes | None, algorithm=hashes.SHA384) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        x509.load_der_x509_certificate(certificate), x509.load_der_x509_certificate(issuer), algorithm()
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return node.ocsp(builder.build().public_bytes(Encoding.DER))


@pytest.mark.parametrize("algorithm", [hashes.SHA1, hashes.SHA256, hashes.SHA384])
def test_a_request_is_answered_with_its_own_certid_and_nonce_by_a_delegated_responder(algorithm: type) -> None:
    node = Platform.build("hopper-1")
    chain = chain_of(node)
    for position in (1, 2, 3):
        answer = ocsp.load_der_ocsp_response(ask(node, chain[position], chain[position + 1], b"n" * 32, algorithm))
        assert answer.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
        assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
        assert answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 32
        assert answer.next_update_utc is not None
        assert answer.this_update_utc <= node.at <= answer.next_update_utc
        assert (answer.next_update_utc - answer.this_update_utc).total_seconds() == 86400
        responder = answer.certificates[0]
        responder.verify_directly_issued_by(x509.load_der_x509_certificate(chain[position + 1]))
        key = responder.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(hashes.SHA384()))


def test_an_unknown_serial_is_good_below_the_device_root_and_unknown_below_the_rim_root() -> None:
    node, other = Platform.build("hopper-1"), Platform.build("hopper-8-ppcie")
    mine, theirs = chain_of(node), pem_ders(other.gpus[5].chain_pem)
    answer = ocsp.load_der_ocsp_response(ask(node, theirs[1], mine[2], None))
    assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
    reissued = Platform.build("hopper-1", lies=["driver-rim:reissued"])
    chain = rim_chain(next(iter(reissued.rims().values())))
    answer = ocsp.load_der_ocsp_response(ask(node, chain[0], chain[1], None))
    assert answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN


def test_an_unknown_issuer_is_unauthorized_and_garbage_is_malformed() -> None:
    node = Platform.build("hopper-1")
    chain = chain_of(node)
    answer = ocsp.load_der_ocsp_response(ask(node, chain[0], chain[1], None))
    assert answer.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED
    for data in (b"", b"\x30", b"garbage" * 9):
        answer = ocsp.load_der_ocsp_response(node.ocsp(data))
        assert answer.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def names(name: x509.Name) -> list[str]:
    return [attribute.oid.dotted_string for attribute in name]


def common_name(certificate: x509.Certificate) -> object:
    return certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value


def test_the_skeleton_tells_shapes_apart() -> None:
    assert items(bytes.fromhex("0201050101ff")) == [(2, b"\x05"), (1, b"\xff")]
    assert skeleton(bytes.fromhex("30060101ff020105")) != skeleton(bytes.fromhex("300601010002010 5".replace(" ", "")))
