from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from nvattest.errors import ParseError, ResultCode
from nvattest.model import DeviceKind
from nvattest.spdm.opaque import GpuFields, OpaqueLayout, SwitchFields
from nvattest.spdm.report import FeatureMode, Report, feature_mode, feature_mode_name, parse_report

GPU, SWITCH = DeviceKind.GPU, DeviceKind.NVSWITCH
# name in NVIDIA's parse -> id, where the name is not the id's own in the kind's table
ORACLE_IDS = {
    "VBIOS_VERSION": 6, "BOARD_ID": 14, "CHIP_SKU": 15, "CHIP_SKU_MOD": 16, "PROJECT": 17, "PROJECT_SKU": 18,
    "PROJECT_SKU_MOD": 19, "DRIVER_VERSION": 3, "GPU_INFO": 4, "CPRINFO": 13, "NVDEC0_STATUS": 11, "FWID": 20,
    "PROTECTED_PCIE_STATUS": 21, "DEVICE_PDI": 22, "SWITCH_POSITION_ID": 24, "SWITCH_LOCK_STATUS": 25,
}  # fmt: skip


def single(real_data: Path, name: str) -> bytes:
    return bytes.fromhex((real_data / "evidence" / f"{name}.report.hex").read_text())


def items(real_data: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((real_data / "evidence" / f"{name}.json").read_text())


def reports(real_data: Path, name: str) -> list[Report]:
    return [
        parse_report(base64.b64decode(item["evidence"]), SWITCH if item["arch"] == "LS10" else GPU)
        for item in items(real_data, name)
    ]


def chain(item: dict[str, Any]) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(base64.b64decode(item["certificate"]))


def pdi(item: dict[str, Any]) -> str:
    """The second certificate's serialNumber without its first byte."""
    (attribute,) = chain(item)[1].subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    return str(attribute.value).removeprefix("0x")[2:].upper()


def hexed(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@pytest.mark.parametrize(
    ("name", "oracle", "kind"),
    [("hopper-580.159.03-attsdk", "hopper", GPU), ("ls10-attsdk", "switch", SWITCH)],
)
def test_a_real_response_reads_as_nvidia_reads_it(real_data: Path, name: str, oracle: str, kind: DeviceKind) -> None:
    expected = json.loads((real_data / "claims" / f"attsdk-spdm-parsed-{oracle}.json").read_text())
    report = parse_report(single(real_data, name), kind)
    response = report.response
    assert f"{response.version:#04x}" == expected["SPDMVersion"]
    assert f"{response.code:#04x}" == expected["RequestResponseCode"]
    assert f"0x{response.param1:02x}" == expected["Param1"]
    assert f"0x{response.param2:02x}" == expected["Param2"]
    assert len(response.blocks) == expected["NumberOfBlocks"] == expected["MeasurementRecord"]["NumberOfBlocks"]
    assert len(response.record) == expected["MeasurementRecordLength"]
    assert response.nonce == hexed(expected["Nonce"])
    assert len(response.opaque) == expected["OpaqueLength"]
    assert report.signature == hexed(expected["Signature"])
    assert {
        str(index): {
            "DMTFSpecMeasurementValueType": block.value_type,
            "DMTFSpecMeasurementValueSize": len(block.value),
            "DMTFSpecMeasurementValue": "0x" + block.value.hex(),
        }
        for index, block in report.measurements.items()
    } == expected["MeasurementRecord"]["MeasurementBlocks"]

    fields = {
        key.removeprefix("OPAQUE_FIELD_ID_"): value for key, value in expected["OpaqueData"]["OpaqueDataField"].items()
    }
    assert list(report.fields.measurement_counts) == fields.pop("MSRSCNT")
    if isinstance(report.fields, SwitchFields):
        assert report.fields.gpu_pdis == tuple(sorted({p[2:].upper() for p in fields.pop("SWITCH_GPU_PDIS")}))
        assert report.fields.ports == b"".join(hexed(port) for port in fields.pop("SWITCH_PORT"))
        assert list(report.fields.disabled_ports) == fields.pop("DISABLED_PORTS")
    assert fields
    for key, value in fields.items():
        if key == "DRIVER_VERSION":  # their parse ends the text with its NUL
            assert isinstance(report.fields, GpuFields)
            assert report.fields.driver_version.encode() == hexed(value).rstrip(b"\0")
        assert report.opaque.get(ORACLE_IDS[key]) == hexed(value), key


def test_a_real_request_reads_as_nvidia_reads_it(real_data: Path) -> None:
    expected = json.loads((real_data / "claims" / "attsdk-spdm-req-parsed.json").read_text())
    request = parse_report(single(real_data, "hopper-580.159.03-attsdk"), GPU).request
    assert expected == {
        "SPDMVersion": f"{request.version:#04x}",
        "RequestResponseCode": f"{request.code:#04x}",
        "Param1": f"0x{request.param1:02x}",
        "Param2": f"0x{request.param2:02x}",
        "Nonce": "0x" + request.nonce.hex(),
        "SlotIDParam": f"0x{request.slot_id:02x}",
    }


@pytest.mark.parametrize(
    ("name", "texts", "opaque_major", "mode", "ppcie"),
    [
        ("hopper-550.90.07-nvtrust", "550.90.07 96.00.9F.00.01 1010 0200 882", 0, None, 0x55),
        ("hopper-560.00-invalidsig-attsdk", "560.00 96.00.A5.00.01 G520 0200 885", 0, FeatureMode.PPCIE, 0xAA),
        ("hopper-580.159.03-attsdk", "580.159.03 96.00.74.00.20 1010 0205 862", 1, FeatureMode.SPT, 0x55),
        ("blackwell-575.32-attsdk", "575.32 97.00.88.00.0F G525 0220 886", 0, None, None),
        ("hopper-590.12-single", "590.12 96.00.A5.00.01 G520 0200 885", 1, FeatureMode.PPCIE, 0xAA),
        ("hopper-590.12-multi4", "590.12 96.00.A5.00.01 G520 0200 885", 1, FeatureMode.PPCIE, 0xAA),
        ("hgx8-gpu-590.12", "590.12 96.00.A5.00.01 G520 0200 885", 1, FeatureMode.PPCIE, 0xAA),
    ],
)
def test_real_gpus_say_what_they_are(
    real_data: Path, name: str, *, texts: str, opaque_major: int, mode: FeatureMode | None, ppcie: int | None
) -> None:
    for report, item in zip(reports(real_data, name), items(real_data, name), strict=True):
        fields = report.fields
        assert isinstance(fields, GpuFields)
        found = (fields.driver_version, fields.vbios_version, fields.project, fields.project_sku, fields.chip_sku)
        assert " ".join(found) == texts
        assert report.opaque.layout is OpaqueLayout.LEGACY
        assert report.opaque.version == (opaque_major, 0, 0)
        assert feature_mode(report) is mode
        assert (fields.ppcie_status, fields.nvdec0_status, fields.chip_info) == (ppcie, 0x55, None)
        assert fields.fwid is not None
        assert report.request.nonce.hex() == item["nonce"]
        assert list(report.measurements) == list(range(1, 65))
        assert report.trailing == b""


@pytest.mark.parametrize(
    ("name", "bios"),
    [
        ("ls10-single", "96.10.55.00.01"),
        ("ls10-attsdk", "96.10.55.00.01"),
        ("ls10-multi4", "96.10.55.00.01"),
        ("hgx4-switch", "96.10.73.00.01"),
    ],
)
def test_real_switches_say_what_they_are(real_data: Path, name: str, bios: str) -> None:
    for report, item in zip(reports(real_data, name), items(real_data, name), strict=True):
        fields = report.fields
        assert isinstance(fields, SwitchFields)
        assert fields.bios_version == bios
        assert fields.pdi == pdi(item)
        assert (fields.lock_status, fields.fwid, len(fields.ports)) == (1, None, 64)
        assert feature_mode(report) is None
        assert report.request.nonce.hex() == item["nonce"]
        assert list(report.measurements) == list(range(1, 32))


def test_the_pdis_of_a_real_node_close_its_topology(real_data: Path) -> None:
    gpus, switches = reports(real_data, "hgx8-gpu-590.12"), reports(real_data, "hgx4-switch")
    gpu_pdis = {pdi(item) for item in items(real_data, "hgx8-gpu-590.12")}
    switch_pdis = {pdi(item) for item in items(real_data, "hgx4-switch")}
    assert (len(gpu_pdis), len(switch_pdis)) == (8, 4)
    for gpu in gpus:
        assert isinstance(gpu.fields, GpuFields)
        assert gpu.fields.switch_pdis == tuple(sorted(switch_pdis))
    for switch in switches:
        assert isinstance(switch.fields, SwitchFields)
        assert switch.fields.gpu_pdis == tuple(sorted(gpu_pdis))


@pytest.mark.parametrize(
    "name", ["hopper-580.159.03-attsdk", "blackwell-575.32-attsdk", "ls10-attsdk", "hgx8-gpu-590.12", "hgx4-switch"]
)
def test_the_signature_covers_exactly_the_signed_span(real_data: Path, name: str) -> None:
    for report, item in zip(reports(real_data, name), items(real_data, name), strict=True):
        assert report.signed + report.signature + report.trailing == report.raw
        key = chain(item)[0].public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        r, s = (int.from_bytes(part, "big") for part in (report.signature[:48], report.signature[48:]))
        key.verify(utils.encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))


@pytest.mark.parametrize(
    ("name", "kind"), [("hopper-580.159.03-attsdk", GPU), ("blackwell-575.32-attsdk", GPU), ("ls10-attsdk", SWITCH)]
)
def test_every_truncation_of_a_real_report_is_refused_with_its_offset(
    real_data: Path, name: str, kind: DeviceKind
) -> None:
    data = single(real_data, name)
    for size in range(len(data)):
        with pytest.raises(ParseError) as caught:
            parse_report(data[:size], kind)
        assert caught.value.code == "truncated"
        assert caught.value.offset is not None
        assert 0 <= caught.value.offset <= size


@pytest.mark.parametrize(("name", "kind"), [("hopper-580.159.03-attsdk", GPU), ("ls10-attsdk", SWITCH)])
def test_an_altered_byte_gives_a_report_or_a_parse_error(real_data: Path, name: str, kind: DeviceKind) -> None:
    data = bytearray(single(real_data, name))
    for position in range(len(data)):
        data[position] ^= 0xFF
        try:
            report = parse_report(bytes(data), kind)
        except ParseError:
            pass
        else:
            assert report.signed + report.signature + report.trailing == data
        data[position] ^= 0xFF


def test_bytes_after_the_signature_are_kept_apart(real_data: Path) -> None:
    data = single(real_data, "hopper-550.90.07-nvtrust")
    plain, longer = parse_report(data, GPU), parse_report(data + b"\n\0", GPU)
    assert (plain.trailing, longer.trailing) == (b"", b"\n\0")
    assert longer.signed == plain.signed == data[:-96]
    assert longer.signature == plain.signature == data[-96:]


def test_a_report_read_as_the_other_kind_is_refused(real_data: Path) -> None:
    for name, kind in (("hopper-550.90.07-nvtrust", SWITCH), ("ls10-attsdk", GPU)):
        with pytest.raises(ParseError) as caught:
            parse_report(single(real_data, name), kind)
        assert caught.value.code in ("field-missing", "field-malformed")


def test_more_than_64_kib_are_not_read() -> None:
    with pytest.raises(ParseError) as caught:
        parse_report(bytes(64 * 1024 + 1), GPU)
    assert caught.value.code == "too-large"


# A report as a driver from CUDA 13.5 on writes it: entries, sizes and order of NVIDIA's published sample.
VERSIONED_ENTRIES = (
    (6, 0x86, bytes.fromhex("00d900960f000000")),
    (14, 0x82, bytes.fromhex("37040000")),
    (15, 0x82, b"884".ljust(9, b"\0")),
    (16, 0x82, b"0".ljust(5, b"\0")),
    (17, 0x82, b"G520\0"),
    (18, 0x82, b"0201\0"),
    (19, 0x82, b"\0\0"),
    (3, 0x86, b"620.12\0"),
    (4, 0x82, bytes.fromhex("8001000000000000")),
    (12, 0x84, struct.pack("<64I", *range(64))),
    (13, 0x83, bytes.fromhex("0000c001")),
    (11, 0x82, b"\xaa"),
    (37, 0x87, b"\0\0"),
    (20, 0x01, b"\x5a" * 48),
    (21, 0x85, b"\x55"),
    (34, 0x86, b"\0\0"),
    (36, 0x85, b"\0\0"),
)


def versioned_report(*, major: int = 2, profile: int = 0, feature: int = 0, more: bytes = b"") -> bytes:
    opaque = b"NVDAOD" + struct.pack("<HBBBB", profile, major, 0, 0, 0)
    for field, value_type, data in VERSIONED_ENTRIES:
        payload = feature.to_bytes(2, "little") if field == 36 else data
        opaque += struct.pack("<HHH", field, value_type, len(payload)) + payload
    opaque += more
    blocks = b"".join(struct.pack("<BBHBH", n, 1, 51, 1, 48) + bytes((n,)) * 48 for n in range(1, 65))
    head = bytes.fromhex("1160000040") + len(blocks).to_bytes(3, "little")
    tail = b"\x33" * 32 + len(opaque).to_bytes(2, "little") + opaque + b"\x44" * 96
    return bytes.fromhex("11e001ff") + bytes(33) + head + blocks + tail


def test_a_versioned_report_reads_like_nvidias_sample() -> None:
    data = versioned_report()
    report = parse_report(data, GPU)
    assert (len(data), len(report.response.opaque)) == (4178, 483)
    assert (report.opaque.layout, report.opaque.version) == (OpaqueLayout.VERSIONED, (2, 0, 0))
    assert [(entry.id, entry.value_type, entry.data) for entry in report.opaque.entries] == list(VERSIONED_ENTRIES)
    fields = report.fields
    assert isinstance(fields, GpuFields)
    assert (fields.driver_version, fields.vbios_version) == ("620.12", "96.00.D9.00.0F")
    assert (fields.project, fields.project_sku, fields.chip_sku) == ("G520", "0201", "884")
    assert (fields.nvdec0_status, fields.ppcie_status) == (0xAA, 0x55)
    assert fields.measurement_counts == tuple(range(64))
    assert feature_mode(report) is FeatureMode.SPT


def test_every_truncation_of_a_versioned_report_is_refused() -> None:
    data = versioned_report()
    for size in range(len(data)):
        with pytest.raises(ParseError) as caught:
            parse_report(data[:size], GPU)
        assert caught.value.offset is not None


def test_offsets_in_opaque_data_count_from_the_start_of_the_report() -> None:
    data = versioned_report()
    start = data.index(b"NVDAOD")
    with pytest.raises(ParseError) as caught:
        parse_report(versioned_report(profile=1), GPU)
    assert (caught.value.code, caught.value.offset) == ("opaque-profile", start + 6)
    with pytest.raises(ParseError) as caught:
        parse_report(versioned_report(major=3), GPU)
    assert (caught.value.offset, caught.value.result_code) == (start + 8, ResultCode.GPU_FW_NOT_SUPPORTED)
    with pytest.raises(ParseError) as caught:
        parse_report(versioned_report(more=struct.pack("<HHH", 6, 0x86, 0)), GPU)
    assert (caught.value.code, caught.value.offset) == ("duplicate-field", start + 483)
    with pytest.raises(ParseError) as caught:
        parse_report(versioned_report(more=b"\0\0"), GPU)
    assert (caught.value.code, caught.value.offset) == ("truncated", start + 483)


def test_an_unknown_entry_is_kept() -> None:
    report = parse_report(versioned_report(more=struct.pack("<HHH", 38, 0x85, 2) + b"\0\xaa"), GPU)
    assert report.opaque.get(38) == b"\0\xaa"


@pytest.mark.parametrize(("flag", "mode"), [(0, FeatureMode.SPT), (1, FeatureMode.MPT), (2, FeatureMode.PPCIE)])
def test_the_feature_flag_names_a_mode(flag: int, mode: FeatureMode) -> None:
    assert feature_mode(parse_report(versioned_report(feature=flag), GPU)) is mode


@pytest.mark.parametrize("flag", [3, 7, 0x0100, 0xFFFF])
def test_a_flag_without_a_meaning_is_unknown_and_keeps_its_number(flag: int) -> None:
    report = parse_report(versioned_report(feature=flag), GPU)
    assert feature_mode(report) is FeatureMode.UNKNOWN
    assert feature_mode_name(report) == f"unknown ({flag})"


def test_the_gpus_of_a_real_multi_gpu_node_say_mpt(real_data: Path) -> None:
    found = reports(real_data, "gb100-590.48.01-mpt8")
    assert [feature_mode_name(report) for report in found] == ["mpt"] * 8
    assert {report.opaque.get(36) for report in found} == {b"\1\0"}
