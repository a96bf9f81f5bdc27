"""Simulated RIMs have the structure and the signature profile of NVIDIA's; lxml canonicalises them to the same bytes."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from lxml import etree

from nvattest.testing import Platform

DS = "{http://www.w3.org/2000/09/xmldsig#}"
OPAQUE = "{https://docs.nvidia.com/attestation/specs/latest/opaque-data.html}"


def digest_and_signature_hold(xml: bytes) -> tuple[bool, bool]:
    root = etree.fromstring(xml)
    signature = root.find(f"{DS}Signature")
    assert signature is not None
    signed_info = signature.find(f"{DS}SignedInfo")
    assert signed_info is not None
    info = etree.tostring(signed_info, method="c14n")
    certificate = base64.b64decode(signature.findtext(f".//{DS}X509Certificate") or "")
    value = base64.b64decode(signature.findtext(f"{DS}SignatureValue") or "")
    expected = base64.b64decode(signature.findtext(f".//{DS}DigestValue") or "")
    tail = signature.tail
    root.remove(signature)
    assert tail is None
    found = hashlib.sha384(etree.tostring(root, method="c14n", with_comments=False)).digest()
    key = x509.load_der_x509_certificate(certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    der = encode_dss_signature(int.from_bytes(value[:48], "big"), int.from_bytes(value[48:], "big"))
    try:
        key.verify(der, info, ec.ECDSA(hashes.SHA384()))
        good = True
    except InvalidSignature:
        good = False
    return found == expected, good


def shape(xml: bytes) -> list[tuple]:
    """Names, attributes in order, namespaces and white space of a RIM; the hashes of a Resource count as one."""
    out = []
    for element in etree.fromstring(xml).iter():
        attributes = [re.sub(r"Hash\d+", "Hash", str(name)) for name in element.attrib]
        folded = [name for at, name in enumerate(attributes) if at == 0 or attributes[at - 1] != name]
        text = None if element.tag.startswith(DS) else element.text
        # Two older writers ended the document differently; the tail before the signature is the same everywhere.
        out.append((element.tag, tuple(folded), tuple(sorted(map(str, element.nsmap.items()))), text, element.tail))
    return out


@pytest.mark.parametrize(
    ("file", "platform", "role"),
    [
        ("NV_GPU_DRIVER_GH100_550.90.07", "hopper-1", "DRIVER"),
        ("NV_GPU_VBIOS_1010_0200_882_96009F0001", "hopper-1", "VBIOS"),
        ("NV_SWITCH_BIOS_5612_0002_890_9610550001", "hopper-8-ppcie", "SWITCH"),
    ],
)
def test_a_rim_has_the_structure_of_a_real_one(real_data: Path, file: str, platform: str, role: str) -> None:
    real = (real_data / "rim" / f"{file}.xml").read_bytes()
    ours = next(xml for name, xml in Platform.build(platform).rims().items() if role in name)
    assert shape(ours) == shape(real)
    # The text between the values is the same too: quotes, order, spacing, short empty elements.
    pattern = rb'"[^"]*"|>[^<]*<'
    assert re.sub(pattern, b"", ours)[:400] == re.sub(pattern, b"", real)[:400]
    head = re.compile(rb"<ds:Signature .*?</ds:SignedInfo>", re.DOTALL)
    mine, theirs = head.search(ours), head.search(real)
    assert mine is not None
    assert theirs is not None
    value = rb"<ds:DigestValue>[^<]*<"
    assert re.sub(value, b"", mine[0]) == re.sub(value, b"", theirs[0])


@pytest.mark.parametrize("name", ["hopper-8-ppcie", "blackwell-1", "blackwell-8-mpt"])
def test_every_rim_is_signed_over_what_lxml_canonicalises(name: str) -> None:
    rims = Platform.build(name).rims()
    assert rims
    for xml in rims.values():
        assert digest_and_signature_hold(xml) == (True, True)


def test_a_real_rim_passes_the_same_check(real_data: Path) -> None:
    for file in ("NV_GPU_DRIVER_GH100_550.90.07", "NV_SWITCH_BIOS_5612_0002_890_9610550001"):
        assert digest_and_signature_hold((real_data / "rim" / f"{file}.xml").read_bytes()) == (True, True)


def test_versioned_firmware_has_a_minimum_svn_record() -> None:
    node = Platform.build("blackwell-8-mpt")
    root = etree.fromstring(next(xml for name, xml in node.rims().items() if "VBIOS" in name))
    records = [dict(item.attrib) for item in root.iter() if item.get(f"{OPAQUE}minSvn")]
    assert len(records) == 1
    assert {name: records[0][name] for name in ("index", "active", "name", "size", f"{OPAQUE}minSvn")} == {
        "index": "4133",
        "active": "True",
        "name": "FSP_UCODE_MIN_SVN",
        "size": "2",
        f"{OPAQUE}minSvn": "3",
    }


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        ("driver-rim:signature", (True, False)),
        ("driver-rim:wrong-key", (True, False)),
        ("driver-rim:tampered=30", (False, True)),
        ("driver-rim:golden=30", (True, True)),
        ("vbios-rim:reissued", (True, True)),
        ("driver-rim:xml=comment", (True, True)),
        ("driver-rim:xml=instruction", (True, True)),
        ("driver-rim:min-svn=9", (True, True)),
    ],
)
def test_a_lie_about_a_rim_breaks_what_it_says_and_no_more(lie: str, expected: tuple[bool, bool]) -> None:
    honest = Platform.build("hopper-1")
    lying = Platform.build("hopper-1", lies=[lie])
    role = lie.partition("-")[0].upper()
    (name,) = (name for name in honest.rim_ids if role in name)
    xml = lying.rim(name)
    assert xml is not None
    assert xml != honest.rim(name)
    assert digest_and_signature_hold(xml) == expected


def test_ids_of_the_simulation_are_none_of_nvidias(real_data: Path) -> None:
    published = {path.stem for folder in ("rim", "rim-bad") for path in (real_data / folder).glob("*.xml")}
    for name in ("hopper-8-ppcie", "hopper-1", "blackwell-1", "blackwell-8-mpt"):
        assert published.isdisjoint(Platform.build(name).rim_ids)


def test_a_rim_that_nobody_has_is_none() -> None:
    node = Platform.build("hopper-1", lies=["vbios-rim:missing"])
    assert node.rim("NV_GPU_DRIVER_GH100_1.2.3") is None
    assert [name for name in node.rim_ids if "VBIOS" in name] == []
