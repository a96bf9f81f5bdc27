"""Simulated reports are wire-exact with real ones: lengths, blocks, opaque fields in order; and their signatures verify."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from nvattest.errors import InputError
from nvattest.model import DeviceKind
from nvattest.testing import Platform

from .shapes import blocks_of, legacy_fields, opaque_of, pem_ders, versioned_fields

NONCE = bytes(range(32))


def verifies(report: bytes, chain_pem: bytes) -> bool:
    key = x509.load_der_x509_certificate(pem_ders(chain_pem)[0]).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(report[-96:-48], "big"), int.from_bytes(report[-48:], "big")
    try:
        key.verify(encode_dss_signature(r, s), report[:-96], ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize(
    ("file", "platform", "driver"),
    [
        ("hopper-550.90.07-nvtrust.json", "hopper-1", "550.90.07"),
        ("hopper-580.159.03-attsdk.json", "hopper-1", "580.159.03"),
        ("hopper-560.00-invalidsig-attsdk.json", "hopper-8-ppcie", "560.00"),
        ("hopper-590.12-single.json", "hopper-8-ppcie", "590.12"),
        ("hgx8-gpu-590.12.json", "hopper-8-ppcie", "590.12"),
        ("blackwell-575.32-attsdk.json", "blackwell-1", "575.32"),
        ("hgx4-switch.json", "hopper-8-ppcie", "590.12"),
    ],
)
def test_a_report_has_the_length_blocks_and_field_order_of_a_real_one(
    real_data: Path, file: str, platform: str, driver: str
) -> None:
    item = json.loads((real_data / "evidence" / file).read_text())[0]
    real = base64.b64decode(item["evidence"])
    node = Platform.build(platform, driver_version=driver)
    device = (node.switches if item["arch"] == "LS10" else node.gpus)[0]
    ours = device.report(bytes.fromhex(item["nonce"]) if file != "hopper-560.00-invalidsig-attsdk.json" else NONCE)
    assert device.family.value == item["arch"]
    assert len(ours) == len(real)
    assert ours[:4] == real[:4]
    assert ours[36:45] == real[36:45]
    assert [(n, len(v)) for n, v in blocks_of(ours)] == [(n, len(v)) for n, v in blocks_of(real)]
    mine, theirs = legacy_fields(opaque_of(ours)), legacy_fields(opaque_of(real))
    assert [(kind, len(data)) for kind, data in mine] == [(kind, len(data)) for kind, data in theirs]
    exact = {13, 16, 19, 21, 23, 25, 33, 34, 36}
    assert [f for f in mine if f[0] in exact] == [f for f in theirs if f[0] in exact]


def test_a_versioned_report_has_the_layout_of_nvidias_published_sample() -> None:
    report = Platform.build("hopper-1", driver_version="620.12", nvdec0=True).gpus[0].report(NONCE)
    opaque = opaque_of(report)
    assert (len(report), len(opaque)) == (4178, 483)
    assert opaque[:12].hex() == "4e5644414f44000002000000"
    assert [(kind, value, len(data)) for kind, value, data in versioned_fields(opaque)] == [
        (6, 0x86, 8), (14, 0x82, 4), (15, 0x82, 9), (16, 0x82, 5), (17, 0x82, 5), (18, 0x82, 5), (19, 0x82, 2),
        (3, 0x86, 7), (4, 0x82, 8), (12, 0x84, 256), (13, 0x83, 4), (11, 0x82, 1), (37, 0x87, 2), (20, 0x01, 48),
        (21, 0x85, 1), (34, 0x86, 2), (36, 0x85, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["hopper-1", "hopper-8-ppcie", "blackwell-1", "blackwell-8-mpt"])
def test_every_report_is_over_the_nonce_and_signed_by_its_leaf(name: str) -> None:
    node = Platform.build(name)
    for device in node.devices:
        report = device.report(NONCE)
        assert report[4:36] == NONCE
        assert verifies(report, device.chain_pem)


def test_the_ppcie_topology_closes_in_the_reports() -> None:
    node = Platform.build("hopper-8-ppcie")
    gpus, switches = {d.pdi for d in node.gpus}, {d.pdi for d in node.switches}
    assert (len(gpus), len(switches)) == (8, 4)
    for device in node.gpus:
        field = dict(legacy_fields(opaque_of(device.report(NONCE))))[22]
        assert len(field) == 144
        assert {field[i : i + 8][::-1].hex().upper() for i in range(0, 144, 8)} == switches
    for device in node.switches:
        fields = dict(legacy_fields(opaque_of(device.report(NONCE))))
        assert fields[22].hex().upper() == device.pdi
        assert {fields[26][i : i + 8].hex().upper() for i in range(0, 64, 8)} == gpus


def test_a_platform_is_the_same_byte_for_byte_and_another_seed_is_another_platform() -> None:
    one, same, other = (Platform.build("hopper-8-ppcie", seed=seed) for seed in (5, 5, 6))
    assert one.evidence_json(None, NONCE) == same.evidence_json(None, NONCE)
    assert one.bundle() == same.bundle()
    assert one.anchors_pem == same.anchors_pem
    assert one.anchors_pem != other.anchors_pem
    assert {d.pdi for d in one.devices}.isdisjoint({d.pdi for d in other.devices})


def test_a_nonce_of_another_length_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        Platform.build("hopper-1").gpus[0].report(b"short")
    assert caught.value.code == "nonce-size"


def test_the_measurements_match_the_last_alternative_and_nvdec0_is_exempt_on_hopper_1() -> None:
    from nvattest.testing.silicon import MODELS

    for name, exempt in [("hopper-1", {35}), ("hopper-8-ppcie", set()), ("blackwell-8-mpt", set())]:
        node = Platform.build(name)
        device = node.gpus[0]
        silicon = MODELS[device.family.value.lower()]
        blocks = {index - 1: value for index, value in blocks_of(device.report(NONCE))}
        driver, vbios = node.rim_ids[:2]
        differing = set()
        for role, rim in [("driver", driver), ("vbios", vbios)]:
            for index in silicon.golden[role]:
                values = silicon.values_of(role, rim, index)
                assert len(set(values)) == silicon.alternatives.get(index, 1)
                if blocks[index] not in values:
                    differing.add(index)
                else:
                    assert blocks[index] == values[-1]
        assert differing == exempt


def test_a_full_platform_starts_and_signs_in_time() -> None:
    begin = time.process_time()  # of this process: what else the machine does is not counted
    node = Platform.build("hopper-8-ppcie")
    built = time.process_time()
    evidence = node.evidence(NONCE)
    signed = time.process_time()
    assert len(evidence) == 12
    assert built - begin < 2.0
    assert signed - built < 1.0


def test_evidence_of_one_kind_is_an_array_of_that_kind() -> None:
    node = Platform.build("hopper-8-ppcie")
    loaded = json.loads(node.evidence_json(DeviceKind.NVSWITCH, NONCE))
    assert [set(item) for item in loaded] == [{"arch", "nonce", "evidence", "certificate"}] * 4
    assert {item["arch"] for item in loaded} == {"LS10"}
    assert {item["nonce"] for item in loaded} == {NONCE.hex()}


def test_reports_and_chains_fit_the_buffers_of_the_driver() -> None:
    for name in ("hopper-8-ppcie", "blackwell-8-mpt"):
        for device in Platform.build(name).devices:
            assert len(device.report(NONCE)) <= 0x2000
            assert len(device.chain_pem) <= 0x1400
