r"""Untrusted text: made safe to show, and read as hexadecimal digits, base64 or a version.

This is the one place that decides what a terminal, a log and a page may receive. A device's certificate, a manifest, a
token, a file name or a kernel command line is written by someone else. A control character in it can move the cursor, a
line end can forge a line of ours, and a direction mark can make a name read as another one. All of these are spelled
out (``\x1b``, ``\u202e``); printable characters of every script stay as they are.

Text is cleaned twice: with ``clean`` where it is parsed, and with ``joined`` or ``block`` where it leaves the program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MAXIMUM_TEXT: Final = 2000

# Printable to Python, but drawn as nothing or as a blank: fillers, variation selectors, the blank Braille pattern.
_BLANK: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# No script puts more marks on one letter; a tall stack of them covers the lines above.
_MAXIMUM_MARKS: Final = 4
# What may need an escape: a large document is searched, not walked, since most of it is plain.
_NOT_PLAIN: Final = re.compile(r"[^\n -~]")
_VERSION_PART: Final = re.compile(r"[0-9A-Fa-f]{1,8}")
# Colour and weight in our own output (``Terminal.paint``); every other sequence is spelled out.
_COLOUR: Final = re.compile("(\x1b\\[[0-9;]{0,12}m)")


# --- shown ------------------------------------------------------------------------------------------------------------


def clean(value: str, maximum: int = MAXIMUM_TEXT) -> str:
    """``value`` as part of one line: at most ``maximum`` characters, none of which acts or hides."""
    if len(value) <= maximum:
        # Fast path: nearly every text is plain but for our own ellipsis, and each check of each device has several.
        plain = value.isprintable() and (value.isascii() or value.replace("…", "").isascii())
        return value if plain else _spell_out(value)
    return f"{_spell_out(value[:maximum])} [{len(value) - maximum} more characters]"


def joined(lines: Iterable[str], *, colour: bool = False) -> str:
    """The lines as one text. Line ends inside a line are spelled out; tabs stay, and with ``colour`` our colours do."""
    return "\n".join([_line(line, colour=colour) for line in lines])


def block(text: str, *, colour: bool = False) -> str:
    """A text of several lines, whose line ends are ours, as ``joined`` makes them."""
    return joined(text.split("\n"), colour=colour)


def escaped(json_text: str) -> str:
    """JSON with the same meaning in which every character that acts or hides is one of JSON's escapes."""
    if json_text.isascii() and "\x7f" not in json_text:
        # The encoder has escaped the control characters below 32.
        return json_text
    # Outside of strings JSON has ASCII only, so every character that is spelled out is inside a string.
    return _NOT_PLAIN.sub(lambda found: found[0] if _shows(found[0]) else _in_json(found[0]), json_text)


def _line(line: str, *, colour: bool) -> str:
    if line.isascii() and line.isprintable():
        return line
    if colour and "\x1b" in line:
        # Colours have the odd places.
        parts = _COLOUR.split(line)
        return "".join([part if place % 2 else _line(part, colour=False) for place, part in enumerate(parts)])
    return "\t".join(map(_spell_out, line.split("\t"))) if "\t" in line else _spell_out(line)


def _spell_out(text: str) -> str:
    """The text with each sign that acts or hides spelled out."""
    if text.isascii():
        return "".join([sign if sign.isprintable() else _spelled(sign) for sign in text])
    from unicodedata import category

    marks, found = 0, []
    for sign in text:
        marks = marks + 1 if category(sign) in ("Mn", "Me") else 0
        found.append(sign if _shows(sign) and marks <= _MAXIMUM_MARKS else _spelled(sign))
    return "".join(found)


def _shows(sign: str) -> bool:
    # Not printable to Python: control and format characters (direction and zero-width among them), surrogates, private
    # and unassigned ones, and separators other than the space.
    return sign.isprintable() and _BLANK.match(sign) is None


def _spelled(sign: str) -> str:
    number = ord(sign)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _in_json(sign: str) -> str:
    number = ord(sign)
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


# --- read -------------------------------------------------------------------------------------------------------------


def base64_bytes(text: str, *, url: bool = False) -> bytes:
    """The bytes of canonical base64, or with ``url`` of base64url without padding (RFC 4648, 4 and 5).

    A ValueError is raised for other characters, white space, other padding, and loose bits after the last byte.
    """
    from base64 import b64decode, b64encode

    padding = "=" * (-len(text) % 4) if url else ""
    value = b64decode(text + padding, altchars=b"-_" if url else None, validate=True)
    # Encoding again refuses what decoders let pass.
    if (base64url(value) if url else b64encode(value).decode("ascii")) != text:
        raise ValueError("not canonical base64")
    return value


def base64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515, 2)."""
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def hex_bytes(text: str) -> bytes | None:
    """The bytes of hexadecimal digits, with or without a leading ``0x``; None for other text and for no digits."""
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    # fromhex skips white space.
    if not digits.isascii() or not digits.isalnum():
        return None
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None


def decimal(text: str, digits: int = 15) -> int | None:
    """A number of one to ``digits`` ASCII digits and nothing else; None for other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def version_key(text: str, *, base: int) -> tuple[int, ...] | None:
    """A dotted version as numbers that compare: base 10 for drivers, 16 for VBIOS and switch BIOS; None for other text.

    Zeros at the front of a part and parts of zero at the end change nothing: 550.00.07, 550.0.7 and 550.0.7.0 are one
    version.
    """
    parts = text.split(".")
    try:
        numbers = [int(part, base) for part in parts if _VERSION_PART.fullmatch(part) is not None]
    except ValueError:
        return None
    if len(numbers) != len(parts):
        return None
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


# --- the nearest word -------------------------------------------------------------------------------------------------


def suggestion(word: str, known: tuple[str, ...], *, several: bool = True) -> str:
    """``did you mean …?``; where no word is near, all of them, or nothing without ``several``."""
    from difflib import get_close_matches

    near = get_close_matches(word[:80].lower(), [item.lower() for item in known], n=1, cutoff=0.6)
    if near:
        return f"did you mean {next(item for item in known if item.lower() == near[0])!r}?"
    return f"one of {', '.join(known)}" if several else ""


def with_suggestion(word: str, known: Iterable[str], rule: str) -> str:
    """The rule for a word, behind ``did you mean …?`` where one of the known words is near."""
    return f"{suggestion(word, tuple(known), several=False)} {rule}".lstrip()
