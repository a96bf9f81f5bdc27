"""Untrusted bytes and JSON: bounded, exact, and never anything but ParseError; and canonical JSON (RFC 8785)."""

from __future__ import annotations

import decimal
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvattest._documents import (
    MAXIMUM_DEPTH,
    Cursor,
    Metric,
    canonical_json,
    dump_json,
    dump_metrics,
    kind_of,
    load_json,
)
from nvattest.errors import InputError, ParseError, ResultCode


def load(data: bytes | str, maximum: int = 1 << 20) -> object:
    return load_json(data, source="test", maximum=maximum)


GOOD: list[object] = [{}, [], None, True, "ü€\U0001f600", 0, -1, 2**63, 1.5, {"a": {"b": [1, {"c": ""}]}}]


@pytest.mark.parametrize("value", GOOD)
def test_what_is_written_is_read_again(value: object) -> None:
    assert load(dump_json(value)) == value
    assert load(dump_json(value).encode()) == value


BAD: dict[str, tuple[bytes | str, str]] = {
    "nothing": (b"", "json"),
    "no JSON": (b"{", "json"),
    "more behind it": (b"{} {}", "json"),
    "a comment": (b"{} // x", "json"),
    "a comma too many": (b"[1,]", "json"),
    "single quotes": (b"{'a': 1}", "json"),
    "NaN": (b"[NaN]", "json"),
    "Infinity": (b"-Infinity", "json"),
    "a key twice": (b'{"a": 1, "a": 1}', "duplicate-key"),
    "a key twice, written differently": (b'{"a": 1, "\\u0061": 1}', "duplicate-key"),
    "a key twice, deep inside": (b'[{"x": {"a": 1, "a": 1}}]', "duplicate-key"),
    "a byte that is not UTF-8": (b'["\xff"]', "json"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "json"),
    "UTF-16": ("{}".encode("utf-16"), "json"),
    "a number of 21 digits": (b"1" * 21, "json"),
    "a number of a million digits": (b"1" * 1_000_000, "json"),
    "deep arrays": (b"[" * 100_000, "json"),
    "deep objects": (b'{"a":' * 100_000, "json"),
    "a control character in a text": (b'["\n"]', "json"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_json_is_a_parse_error_with_its_code(name: str) -> None:
    data, code = BAD[name]
    start = time.process_time()
    with pytest.raises(ParseError) as caught:
        load(data)
    assert caught.value.code == code
    assert caught.value.source == "test"
    assert caught.value.result_code is ResultCode.BAD_ARGUMENT
    assert len(str(caught.value)) < 300
    # Orders of magnitude: converting a million digits, or scanning twice, would be seen.
    assert time.process_time() - start < 2


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[0, {"a":', "}]")])
def test_how_deep_a_document_may_be_does_not_depend_on_the_python(opening: str, closing: str) -> None:
    # Some Pythons read 9000 levels and cannot write 1000.
    def nested(levels: int) -> str:
        count = levels // (opening.count("[") + opening.count("{"))
        return opening * count + "0" + closing * count

    assert dump_json(load(nested(MAXIMUM_DEPTH)))
    for levels in (MAXIMUM_DEPTH + 2, 500, 900):
        with pytest.raises(ParseError, match="nested too deeply"):
            load(nested(levels))


def test_deep_but_balanced_nesting_is_a_parse_error_too() -> None:
    with pytest.raises(ParseError):
        load(b"[" * 200_000 + b"]" * 200_000)


def test_the_limit_is_exact_and_comes_before_the_work() -> None:
    assert load(b'"' + b"a" * 8 + b'"', maximum=10) == "a" * 8
    with pytest.raises(ParseError) as caught:
        load(b'"' + b"a" * 9 + b'"', maximum=10)
    assert caught.value.code == "too-large"


def test_a_document_of_more_values_than_any_needs_is_refused_before_it_is_read() -> None:
    # An empty array takes two bytes of text and thirty times as much as a value.
    for text in ("[" + "[]," * 500_000 + "[]]", "[" + "{}," * 500_000 + "{}]", "[" + "0," * 500_000 + "0]"):
        with pytest.raises(ParseError) as caught:
            load(text, maximum=1 << 26)
        assert caught.value.code == "too-large"


def test_the_offset_is_that_of_the_fault_in_bytes() -> None:
    for text, offset in (('{"a": x}', 6), ('{"ü": x}', 7), ('["€", x]', 8)):
        with pytest.raises(ParseError) as caught:
            load(text.encode())
        assert caught.value.offset == offset


def test_a_text_with_a_lone_surrogate_does_no_harm() -> None:
    with pytest.raises(ParseError):
        load('["\udc80", x]')


def test_writing_is_nvidias_form() -> None:
    assert dump_json({"b": 1, "a": ["ü"]}) == '{\n    "a": [\n        "ü"\n    ],\n    "b": 1\n}'


def test_kinds_have_names() -> None:
    values = json.loads('[{}, [], "", true, 1, 1.5, null]')
    assert [kind_of(value) for value in values] == [
        "an object", "an array", "a text", "a boolean", "a number", "a number", "null",
    ]  # fmt: skip


def test_canonical_numbers_and_texts_are_those_of_the_rfc() -> None:
    # RFC 8785, 3.2.2: its example, written out.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\x0f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json(value) == expected.encode()


def test_canonical_keys_are_sorted_by_utf16_units() -> None:
    # RFC 8785, 3.2.3: U+FB33 comes after the surrogates of U+1F600.
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]
    found = json.loads(
        canonical_json(dict.fromkeys(keys, 0)), object_pairs_hook=lambda pairs: [key for key, _ in pairs]
    )
    assert found == ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.0, "0"), (100.0, "100"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"), (5e-324, "5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308"), (-0.05, "-0.05"),
    ],
)  # fmt: skip
def test_canonical_numbers_are_written_as_ecmascript_does(value: float, text: str) -> None:
    assert canonical_json(value).decode() == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_canonical_number_reads_back(value: float) -> None:
    assert float(json.loads(canonical_json(value))) == value


def test_a_program_s_own_decimal_context_changes_no_canonical_number() -> None:
    numbers = [0.123456789, 1234567.5, 1e22, 5e-324]
    expected = canonical_json(numbers)
    with decimal.localcontext() as context:
        context.prec = 3
        context.traps[decimal.Inexact] = context.traps[decimal.Rounded] = True
        assert canonical_json(numbers) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, b"x", {1: 2}, "\ud800", {"\ud800": 1}, object()])
def test_what_canonical_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        canonical_json(value)


def test_the_nesting_of_canonical_json_is_bounded() -> None:
    value: object = 0
    for _ in range(100):
        value = [value]
    with pytest.raises(InputError, match="levels"):
        canonical_json(value)


def test_metrics_are_read_again_by_prometheus() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    foreign = 'a "b"\\c}'
    text = dump_metrics(
        [
            Metric("nvattest_a", "What a is.", [(1, {}), (0.25, {"x": foreign, "y": "\x1b[2J\nz"})]),
            Metric("nvattest_not_known", "No sample.", []),
            Metric("nvattest_end_timestamp_seconds", "When.", [(1_764_361_234.0, {})]),
        ]
    )
    first, second = parser.text_string_to_metric_families(text)
    assert (first.name, first.documentation, first.type) == ("nvattest_a", "What a is.", "gauge")
    assert [(sample.labels, sample.value) for sample in first.samples] == [
        ({}, 1),
        ({"x": foreign, "y": r"\x1b[2J\x0az"}, 0.25),
    ]
    assert [sample.value for sample in second.samples] == [1_764_361_234.0]


# --- the cursor over bytes --------------------------------------------------------------------------------------------


def test_fields_are_read_front_to_back() -> None:
    cursor = Cursor(bytes(range(8)), source="report")
    assert cursor.take(2, "a") == b"\0\1"
    assert cursor.take(0, "nothing") == b""
    assert cursor.uint(1, "b") == 2
    assert (cursor.position, cursor.offset, cursor.remaining) == (3, 3, 5)
    assert cursor.take(5, "c") == bytes([3, 4, 5, 6, 7])
    assert cursor.remaining == 0
    cursor.finish("the report")


@pytest.mark.parametrize(
    ("data", "size", "value"),
    [(b"\x01\x02\x03", 3, 0x030201), (b"\xff\xff", 2, 0xFFFF), (b"", 0, 0), (b"\x80", 1, 128)],
)
def test_integers_are_little_endian_and_unsigned(data: bytes, size: int, value: int) -> None:
    assert Cursor(data, source="x").uint(size, "n") == value


@pytest.mark.parametrize("length", range(8))
def test_a_read_past_the_end_is_refused_with_offset_need_and_rest(length: int) -> None:
    cursor = Cursor(bytes(length), source="SPDM response", origin=37)
    with pytest.raises(ParseError) as caught:
        cursor.take(8, "responder nonce")
    error = caught.value
    assert (error.code, error.source, error.offset) == ("truncated", "SPDM response", 37)
    assert str(error) == f"SPDM response, byte 37: responder nonce needs 8 bytes, {length} are left"


def test_a_refused_read_moves_nothing() -> None:
    cursor = Cursor(b"abc", source="x")
    cursor.take(1, "a")
    with pytest.raises(ParseError):
        cursor.take(3, "b")
    assert (cursor.position, cursor.take(2, "c")) == (1, b"bc")


@pytest.mark.parametrize("size", [2**31, 2**64])
def test_an_enormous_size_is_refused_without_allocating(size: int) -> None:
    with pytest.raises(ParseError, match="needs"):
        Cursor(b"abc", source="x").take(size, "field")


@pytest.mark.parametrize("read", ["take", "uint"])
def test_a_negative_size_never_goes_backwards(read: str) -> None:
    cursor = Cursor(b"abcdef", source="record", origin=100)
    cursor.take(4, "head")
    with pytest.raises(ParseError, match="impossible size -2") as caught:
        getattr(cursor, read)(-2, "body")
    assert (caught.value.code, caught.value.offset, cursor.position) == ("length", 104, 4)


def test_an_integer_past_the_end_is_refused() -> None:
    with pytest.raises(ParseError) as caught:
        Cursor(b"\1", source="x").uint(2, "count")
    assert caught.value.code == "truncated"


def test_stray_bytes_are_refused_with_their_number_and_place() -> None:
    cursor = Cursor(b"abcde", source="opaque data", origin=10)
    cursor.take(2, "head")
    with pytest.raises(ParseError, match="3 stray bytes after the last entry") as caught:
        cursor.finish("the last entry")
    assert (caught.value.code, caught.value.offset) == ("stray-bytes", 12)


def test_an_error_can_point_back_at_the_field_just_read() -> None:
    cursor = Cursor(b"abcd", source="x", origin=5)
    cursor.uint(4, "size")
    error = cursor.error("wrong", code="length", back=4)
    assert (error.offset, error.code, str(error)) == (5, "length", "x, byte 5: wrong")


def test_errors_carry_the_result_code_of_their_format() -> None:
    cursor = Cursor(b"", source="x", result_code=ResultCode.SPDM_PARSE_ERROR)
    with pytest.raises(ParseError) as caught:
        cursor.take(1, "a")
    assert caught.value.result_code is ResultCode.SPDM_PARSE_ERROR
    assert Cursor(b"", source="x").error("m", code="c").result_code is ResultCode.EVIDENCE_MALFORMED
