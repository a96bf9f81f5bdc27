"""The shared words: devices, the nonce, the clock of a verification."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone, tzinfo

import pytest

from nvattest._text import version_key
from nvattest.errors import InputError
from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime, format_time, parse_time

HEX = "0123456789abcdef" * 4
UTC = timezone.utc
NOON = datetime(2025, 8, 21, 12, 0, 0, tzinfo=UTC)


class ZoneWithoutOffset(tzinfo):
    """A zone that does not know its offset, which Python counts as naive."""

    def utcoffset(self, _when: datetime | None) -> None:
        return None

    def dst(self, _when: datetime | None) -> None:
        return None

    def tzname(self, _when: datetime | None) -> str:
        return "?"


@pytest.mark.parametrize(
    ("architecture", "kind", "label"),
    [
        (Architecture.HOPPER, DeviceKind.GPU, "GPU"),
        (Architecture.BLACKWELL, DeviceKind.GPU, "GPU"),
        (Architecture.RUBIN, DeviceKind.GPU, "GPU"),
        (Architecture.LS10, DeviceKind.NVSWITCH, "SWITCH"),
    ],
)
def test_an_architecture_belongs_to_a_kind_of_device(architecture: Architecture, kind: DeviceKind, label: str) -> None:
    assert (architecture.kind, architecture.kind.label) == (kind, label)


def test_every_architecture_is_in_the_test_above() -> None:
    assert len(Architecture) == 4


@pytest.mark.parametrize("text", [HEX, HEX.upper(), "0x" + HEX, "0X" + HEX.upper()])
def test_a_nonce_is_read_from_64_digits_in_either_case_with_or_without_prefix(text: str) -> None:
    nonce = Nonce.from_hex(text)
    assert nonce.value == bytes.fromhex(HEX)
    assert nonce.hex() == str(nonce) == HEX


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "0x0x" + HEX[4:],
        HEX[:-1],
        HEX[:-2],
        HEX + "00",
        HEX[:-1] + "g",
        " " + HEX,
        HEX + "\n",
        HEX[:32] + " " + HEX[32:],
        HEX[:-2] + " 0",
        HEX[:-1] + "\0",
        HEX[:-1] + "-",
        "+" + HEX[1:],
        HEX[:30] + "__" + HEX[32:],
        "٠" * 64,  # Arabic-Indic digits
        "٠" * 32,  # two bytes each in UTF-8
        "０" * 64,  # full-width digits
        HEX[:-1] + "１",
        HEX[:-1] + "²",
        "\ud800" * 64,
        "00" * 1_000_000,
    ],
)
def test_what_is_not_64_ascii_hexadecimal_digits_is_no_nonce(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Nonce.from_hex(text)
    assert caught.value.code in ("nonce-hex", "nonce-size")
    assert "64 hexadecimal digits" in caught.value.hint
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_a_nonce_of_another_size_is_refused_with_its_size(size: int) -> None:
    with pytest.raises(InputError, match=f"has {size}$") as caught:
        Nonce(bytes(size))
    assert caught.value.code == "nonce-size"


@pytest.mark.parametrize("value", ["a" * 32, bytearray(32), list(range(32)), None, 32])
def test_a_nonce_that_is_not_bytes_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="a nonce is bytes") as caught:
        Nonce(value)  # type: ignore[arg-type]
    assert caught.value.code == "nonce-type"


def test_a_nonce_cannot_be_changed_and_compares_by_value() -> None:
    nonce = Nonce(bytes(32))
    assert {nonce} == {Nonce(bytes(32))}
    assert nonce != Nonce(bytes(31) + b"\1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        nonce.value = bytes(32)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-08-21T07:00:00Z", datetime(2025, 8, 21, 7, tzinfo=UTC)),
        ("2025-08-21t07:00:00z", datetime(2025, 8, 21, 7, tzinfo=UTC)),
        ("2025-08-21T07:00:00+00:00", datetime(2025, 8, 21, 7, tzinfo=UTC)),
        ("2025-08-21T07:00:00-00:00", datetime(2025, 8, 21, 7, tzinfo=UTC)),
        ("2025-08-21T09:30:00+02:30", datetime(2025, 8, 21, 7, tzinfo=UTC)),
        ("2025-08-20T23:00:00-08:00", datetime(2025, 8, 21, 7, tzinfo=UTC)),
        ("2025-08-21T07:00:00.5Z", datetime(2025, 8, 21, 7, 0, 0, 500_000, tzinfo=UTC)),
        ("2025-08-21T07:00:00.123456789Z", datetime(2025, 8, 21, 7, 0, 0, 123_456, tzinfo=UTC)),
        ("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_an_rfc_3339_instant_is_read_into_utc(text: str, expected: datetime) -> None:
    value = parse_time(text)
    assert value == expected
    assert value.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "Z",
        "2025-08-21",
        "2025-08-21Z",
        "2025-08-21T07:00:00",  # no zone
        "2025-08-21 07:00:00Z",
        "2025-08-21T07Z",
        "2025-08-21T07:00Z",
        "20250821T070000Z",
        "2025-W34-4T07:00:00Z",
        "2025-02-29T00:00:00Z",
        "2025-08-21T24:00:00Z",
        "2025-08-21T23:59:60Z",
        "2025-08-21T07:00:00ZZ",
        "2025-08-21T07:00:00Z\n",
        " 2025-08-21T07:00:00Z",
        "2025-08-21T07:00:00.Z",
        "2025-08-21T07:00:00,5Z",
        "2025-08-21T07:00:00+02",
        "2025-08-21T07:00:00+0200",
        "2025-08-21T07:00:00+25:00",
        "2025-08-21T07:00:00+00:60",
        "2025-08-21T07:00:00+00:00:01",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "-001-01-01T00:00:00Z",
        "٢٠٢٥-08-21T07:00:00Z",
        "２025-08-21T07:00:00Z",
        "2025-08-21T07:00:00Z" * 100_000,
        "\ud800025-08-21T07:00:00Z",
    ],
)
def test_what_is_not_an_instant_with_a_zone_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not an instant") as caught:
        parse_time(text)
    assert caught.value.code == "time"
    assert "2025-08-21T07:00:00Z" in caught.value.hint
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_an_instant_that_utc_cannot_express_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="out of range"):
        parse_time(text)


@pytest.mark.parametrize(
    "text", ["2025-08-21T07:00:00Z", "0001-01-01T00:00:00Z", "0999-06-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
def test_an_instant_is_written_as_it_was_read(text: str) -> None:
    assert format_time(parse_time(text)) == text


def test_an_instant_is_written_in_utc_without_fraction() -> None:
    value = datetime(2025, 8, 21, 9, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(value) == "2025-08-21T07:00:00Z"


def test_one_instant_stands_for_both() -> None:
    time = VerificationTime.parse("2025-08-21T12:00:00Z")
    assert time == VerificationTime.at(NOON) == VerificationTime(device=NOON, rim=NOON)
    assert str(time) == "2025-08-21T12:00:00Z"


@pytest.mark.parametrize("order", ["device={device},rim={rim}", "rim={rim},device={device}"])
def test_two_instants_are_read_in_either_order(order: str) -> None:
    time = VerificationTime.parse(order.format(device="2025-08-21T07:00:00Z", rim="2025-10-24T12:00:00Z"))
    assert time.device == datetime(2025, 8, 21, 7, tzinfo=UTC)
    assert time.rim == datetime(2025, 10, 24, 12, tzinfo=UTC)
    assert str(time) == "device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"
    assert VerificationTime.parse(str(time)) == time


T = "2025-08-21T07:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        f"device={T}",
        f"rim={T}",
        f"device={T},device={T}",
        f"device={T},rim={T},rim={T}",
        f"device={T},rim={T},device={T}",
        f"device={T},rim={T},",
        f",device={T},rim={T}",
        f"device={T},rim={T},ocsp={T}",
        f"device={T};rim={T}",
        f"device={T}, rim={T}",
        f"Device={T},rim={T}",
        f"device=,rim={T}",
        f"device={T},rim=",
        f"device=={T},rim={T}",
        f"device={T},rim",
        f"{T},rim={T}",
        "=",
        "=,=",
        f"device=2025-08-21T07:00:00,rim={T}",
        "," * 1_000_000 + "=",
    ],
)
def test_another_text_is_no_verification_time(text: str) -> None:
    with pytest.raises(InputError) as caught:
        VerificationTime.parse(text)
    assert caught.value.code == "time"
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("naive", [NOON.replace(tzinfo=None), NOON.replace(tzinfo=ZoneWithoutOffset())])
@pytest.mark.parametrize("name", ["device", "rim"])
def test_a_time_without_a_zone_is_refused_by_name(name: str, naive: datetime) -> None:
    with pytest.raises(InputError, match=f"the {name} time has no time zone") as caught:
        VerificationTime(**{"device": NOON, "rim": NOON, name: naive})
    assert caught.value.code == "time-zone"


def test_a_time_in_another_zone_becomes_utc() -> None:
    time = VerificationTime.at(NOON.astimezone(timezone(timedelta(hours=-8))))
    assert time.device == NOON
    assert time.device.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_a_time_at_the_end_of_the_calendar_is_refused_when_utc_cannot_express_it(value: datetime) -> None:
    with pytest.raises(InputError, match="out of range"):
        VerificationTime.at(value)


def test_the_year_9999_of_device_certificates_is_a_time_like_any_other() -> None:
    end = VerificationTime.parse("9999-12-31T23:59:59Z")
    assert end.device > NOON
    assert str(end) == "9999-12-31T23:59:59Z"


@pytest.mark.parametrize(
    ("text", "base", "key"),
    [
        ("550.00.07", 10, (550, 0, 7)),
        ("550.0.7.0.00", 10, (550, 0, 7)),
        ("0", 10, ()),
        ("96.00.9F.00.01", 16, (0x96, 0, 0x9F, 0, 1)),
        ("96.00.9f.00.01", 16, (0x96, 0, 0x9F, 0, 1)),
        ("12345678", 10, (12345678,)),
    ],
)
def test_a_version_is_its_numbers_without_zeros_at_the_end(text: str, base: int, key: tuple[int, ...]) -> None:
    assert version_key(text, base=base) == key


@pytest.mark.parametrize(
    "text", ["", ".", "550.", ".550", "5_0", " 1", "+1", "1A", "1.x", "123456789", "\u0661", "0x1"]
)
def test_what_is_no_version_has_no_numbers(text: str) -> None:
    assert version_key(text, base=10) is None
