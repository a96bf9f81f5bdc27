"""Text of others on its way to a terminal, a log or a page: what is spelled out, what stays, and that nothing passes by."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvattest._documents import dump_json, load_json
from nvattest._text import base64_bytes, base64url, block, clean, escaped, hex_bytes, joined
from nvattest.errors import InputError, ParseError

# A separator, a control of the 8-bit kind, a title, a direction, nothing to see, a surrogate, a line end of Unicode.
ACTING = (
    "\x00\x07\x08\t\n\r\x1b\x7f\x80\x9b\x9d\x9f\u00ad\u061c\u200b\u200e\u202e\u2028\u2029\u2066\u2069\ufeff\udcff\ud800"
)
HIDING = "\u00a0\u034f\u115f\u1160\u17b4\u180e\u2000\u200d\u202f\u2060\u2800\u3000\u3164\ufe0f\uffa0\ue000\U000e0041\U000e0101"
GENUINE = (
    "Bericht für Zürich, Łódź, Αθήνα, Москва, תל אביב, القاهرة, 東京, 서울, ไทย, हिन्दी, ½ ≤ ∞, 🙂, Việt (NFD: Việt)"
)


@pytest.mark.parametrize("sign", ACTING + HIDING)
def test_a_sign_that_acts_or_hides_is_spelled_out(sign: str) -> None:
    for text in (clean(f"a{sign}b"), clean(f"Zürich{sign}b")):
        assert sign not in text
        assert text.endswith((f"\\x{ord(sign):02x}b", f"\\u{ord(sign):04x}b", f"\\U{ord(sign):08x}b"))


def test_letters_and_signs_of_every_script_stay() -> None:
    assert clean(GENUINE) == GENUINE
    assert clean(unicodedata.normalize("NFD", "Việt Nam Ǟ")) == unicodedata.normalize("NFD", "Việt Nam Ǟ")


def test_a_stack_of_marks_does_not_cover_other_lines() -> None:
    text = clean("a" + "\u0301" * 40)
    assert text.count("\u0301") == 4
    assert text.count("\\u0301") == 36


def test_a_long_text_is_cut_and_says_so() -> None:
    assert clean("x" * 30, 10) == "xxxxxxxxxx [20 more characters]"
    assert clean("x" * 10, 10) == "x" * 10
    assert clean("\u202e" * 5, 3) == "\\u202e\\u202e\\u202e [2 more characters]"


def test_a_line_stays_one_line_and_keeps_its_tabs() -> None:
    assert joined(["\t\tone\nResult: TRUSTED", "two"]) == "\t\tone\\x0aResult: TRUSTED\ntwo"
    assert block("one\ntwo\r\nthree") == "one\ntwo\\x0d\nthree"


def test_colours_pass_where_they_are_ours_and_nothing_else_does() -> None:
    painted = "\x1b[1;32mTRUSTED\x1b[0m"
    assert joined([painted], colour=True) == painted
    assert joined([painted]) == "\\x1b[1;32mTRUSTED\\x1b[0m"
    for sequence in ("\x1b[2J", "\x1b]0;x\x07", "\x1b[1;32", "\x1b[?25l", "\x9b2J", "\x1b[31;m\x1bc"):
        assert "\x1b" not in joined([sequence], colour=True).replace("\x1b[31;m", "")
        assert "\x9b" not in joined([sequence], colour=True)


@given(st.text())
def test_whatever_comes_one_harmless_line_leaves(text: str) -> None:
    for shown in (clean(text, 10_000), joined([text.replace("\t", " ")])):
        assert shown.isprintable()
        assert clean(shown, 100_000) == shown


@given(st.recursive(st.text() | st.integers(-9, 9), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_for_a_terminal_means_the_same(value: object) -> None:
    text = dump_json(value)
    assert json.loads(text) == value
    assert all(line.isprintable() for line in text.split("\n"))


def test_json_writes_controls_of_every_kind_as_escapes() -> None:
    text = dump_json({"name": f"Zürich 🙂{ACTING}{HIDING}"})
    assert "Zürich 🙂" in text
    assert text.replace("\n", "").isprintable()
    assert "\\u009b" in text
    assert "\\udb40\\udc41" in text
    assert load_json(text, source="x", maximum=10_000) == {"name": f"Zürich 🙂{ACTING}{HIDING}"}
    assert escaped('"\x7f"') == '"\\u007f"'


def test_the_message_and_the_hint_of_an_error_are_clean() -> None:
    error = ParseError("found \x1b[2J\nResult: TRUSTED", source="a\u202eb", hint="see \x9bc\n")
    assert str(error) == error.message == "a\\u202eb: found \\x1b[2J\\x0aResult: TRUSTED"
    assert error.hint == "see \\x9bc\\x0a"
    assert len(str(InputError("x" * 1_000_000))) < 5000


def test_every_sign_of_the_first_planes_is_either_shown_or_spelled() -> None:
    for number in (*range(0x10000), *range(0xE0000, 0xE0200)):
        sign = chr(number)
        if not sign.isprintable():
            assert clean(sign) != sign


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("00fF", b"\x00\xff"),
        ("0x00ff", b"\x00\xff"),
        ("0XFF", b"\xff"),
        ("", None),
        ("0x", None),
        ("f", None),
        ("0 0f", None),
        ("00 ff", None),
        ("00ff\n", None),
        ("0x0x00", None),
        ("\uff10\uff10", None),
        ("zz", None),
    ],
)
def test_hexadecimal_digits_are_read_strictly(text: str, value: bytes | None) -> None:
    assert hex_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "url", "value"),
    [
        ("AP8=", False, b"\x00\xff"),
        ("AP8", True, b"\x00\xff"),
        ("-_8", True, b"\xfb\xff"),
        ("", False, b""),
        ("AP8", False, None),
        ("AP8=", True, None),
        ("AP9=", False, None),
        ("AP9", True, None),
        ("+/8", True, None),
        ("-_8=", False, None),
        ("AP8=\n", False, None),
        ("AP 8=", False, None),
        ("AP8==", False, None),
        ("\ud800AAA", False, None),
        ("\xe9AAA", True, None),
        ("A", True, None),
    ],
)
def test_only_canonical_base64_is_read(text: str, url: bool, value: bytes | None) -> None:
    try:
        found: bytes | None = base64_bytes(text, url=url)
    except ValueError:
        found = None
    assert found == value
    if url and value is not None:
        assert base64url(value) == text
