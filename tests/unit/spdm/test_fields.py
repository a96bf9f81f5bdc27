from __future__ import annotations

import pytest

from nvattest.errors import ParseError, ResultCode
from nvattest.spdm.opaque import OpaqueData, OpaqueEntry, OpaqueLayout, gpu_fields, switch_fields

GPU = {
    3: b"580.159.03\0",
    6: bytes.fromhex("009f009601000000"),
    11: b"\x55",
    15: b"882\0\0\0\0\0\0",
    17: b"1010\0",
    18: b"0200\0",
}
SWITCH = {6: b"96.10.55.00.01"}


def opaque(fields: dict[int, bytes], major: int = 0) -> OpaqueData:
    entries = tuple(OpaqueEntry(field, None, data, 1000 + field) for field, data in fields.items())
    return OpaqueData(layout=OpaqueLayout.LEGACY, version=(major, 0, 0), entries=entries)


def test_the_least_gpu_has_what_its_rims_are_named_by() -> None:
    fields = gpu_fields(opaque(GPU))
    assert fields.driver_version == "580.159.03"
    assert fields.vbios_version == "96.00.9F.00.01"
    assert (fields.project, fields.project_sku, fields.chip_sku) == ("1010", "0200", "882")
    assert fields.nvdec0_status == 0x55
    assert (fields.chip_info, fields.fwid, fields.ppcie_status, fields.feature_flag) == (None, None, None, None)
    assert (fields.switch_pdis, fields.measurement_counts) == ((), ())


@pytest.mark.parametrize("field", GPU)
def test_a_gpu_without_a_needed_field_is_refused(field: int) -> None:
    with pytest.raises(ParseError, match=f"opaque field {field} ") as caught:
        gpu_fields(opaque({key: value for key, value in GPU.items() if key != field}))
    assert caught.value.code == "field-missing"
    assert caught.value.result_code is ResultCode.SPDM_FIELD_NOT_FOUND


def test_the_feature_flag_is_read_and_needed_from_version_1_on() -> None:
    assert gpu_fields(opaque(GPU | {36: b"\2\0"})).feature_flag is None
    assert gpu_fields(opaque(GPU | {36: b"\2\0"}, 1)).feature_flag == 2
    assert gpu_fields(opaque(GPU | {36: b"\0\1"}, 2)).feature_flag == 256
    for major in (1, 2):
        with pytest.raises(ParseError) as caught:
            gpu_fields(opaque(GPU, major))
        assert caught.value.code == "field-missing"


def test_switch_pdis_are_reversed_sorted_and_each_once() -> None:
    one, two = bytes(range(8)), b"\xff" * 7 + b"\0"
    assert gpu_fields(opaque(GPU | {22: one + two + one})).switch_pdis == ("00FFFFFFFFFFFFFF", "0706050403020100")
    assert gpu_fields(opaque(GPU | {22: b""})).switch_pdis == ()


def test_other_gpu_fields_are_read() -> None:
    fields = gpu_fields(
        opaque(GPU | {12: b"\1\0\0\0\0\1\0\0", 20: b"\7" * 48, 21: b"\xaa", 35: b"GB100\0", 4711: b"?"})
    )
    assert fields.measurement_counts == (1, 256)
    assert fields.fwid == b"\7" * 48
    assert fields.ppcie_status == 0xAA
    assert fields.chip_info == "GB100"


@pytest.mark.parametrize(
    ("field", "data"),
    [
        (3, b""),
        (3, b"\x00550"),
        (3, b"5/../../x"),
        (3, b"550 \0"),
        (3, b"550\n\0"),
        (3, b"\xff550\0"),
        (3, b"5" * 65),
        (6, bytes(7)),
        (6, bytes(9)),
        (11, b""),
        (11, b"\x55\x55"),
        (12, b"\0\0\0"),
        (15, b"8%82"),
        (17, b"?"),
        (18, b"a&b"),
        (20, bytes(47)),
        (21, b""),
        (22, bytes(7)),
        (35, b"\0"),
        (36, b""),
        (36, bytes(9)),
    ],
)
def test_a_malformed_gpu_field_is_refused_where_it_lies(field: int, data: bytes) -> None:
    with pytest.raises(ParseError, match=f"opaque field {field} ") as caught:
        gpu_fields(opaque(GPU | {36: b"\0\0"} | {field: data}, 1))
    assert (caught.value.code, caught.value.offset) == ("field-malformed", 1000 + field)


def test_the_least_switch_has_only_its_bios_version() -> None:
    fields = switch_fields(opaque(SWITCH))
    assert fields.bios_version == "96.10.55.00.01"
    assert (fields.pdi, fields.gpu_pdis, fields.ports, fields.disabled_ports) == (None, (), b"", ())
    assert (fields.position_id, fields.lock_status, fields.fwid, fields.measurement_counts) == (None, None, None, ())


def test_switch_fields_are_read_as_they_stand() -> None:
    pdis = b"".join(bytes((number,)) * 8 for number in (9, 3, 3, 1, 2, 4, 5, 6))
    fields = switch_fields(
        opaque(
            SWITCH
            | {20: b"\1" * 48, 22: bytes(range(8)), 23: b"\x80\1", 24: b"\2\0", 25: b"\1\0", 26: pdis + b"\xff\0"}
        )
    )
    assert fields.pdi == "0001020304050607"
    assert fields.gpu_pdis == tuple(f"0{number}" * 8 for number in (1, 2, 3, 4, 5, 6, 9))
    assert fields.ports == b"\xff\0"
    assert fields.disabled_ports == (1,) * 4 + (0,) * 56 + (1,) * 4
    assert (fields.position_id, fields.lock_status, fields.fwid) == (2, 1, b"\1" * 48)


def test_a_switch_that_carries_its_gpus_under_another_id_keeps_them_there() -> None:
    parsed = opaque(SWITCH | {4: bytes(128)})
    assert switch_fields(parsed).gpu_pdis == ()
    assert parsed.get(4) == bytes(128)


@pytest.mark.parametrize(
    ("field", "data"), [(6, b""), (6, b"96 10"), (20, b"x"), (22, bytes(9)), (24, b""), (25, bytes(9)), (26, bytes(63))]
)
def test_a_malformed_switch_field_is_refused_where_it_lies(field: int, data: bytes) -> None:
    with pytest.raises(ParseError, match=f"opaque field {field} ") as caught:
        switch_fields(opaque(SWITCH | {field: data}))
    assert (caught.value.code, caught.value.offset) == ("field-malformed", 1000 + field)


def test_a_switch_without_a_bios_version_is_refused() -> None:
    with pytest.raises(ParseError) as caught:
        switch_fields(opaque({}))
    assert caught.value.result_code is ResultCode.SPDM_FIELD_NOT_FOUND
