"""A quote as a file beside the token: JSON with the kernel's blobs in base64, or the raw quote alone."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from nvattest._documents import JsonObject, kind_of, load_json
from nvattest.errors import ParseError
from nvattest.tee.tsm import TeeQuote

FORMAT: Final = "nvattest-tee-quote"
VERSION: Final = 1
MAXIMUM: Final = 24 * 1024 * 1024
_SOURCE: Final = "TEE quote file"


def dump_quote(quote: TeeQuote) -> JsonObject:
    """The JSON values of a quote's file."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "provider": quote.provider,
        "generation": quote.generation,
        "report_data": quote.report_data.hex(),
        "outblob": base64.b64encode(quote.quote).decode(),
        "auxblob": base64.b64encode(quote.auxiliary).decode() if quote.auxiliary is not None else None,
    }


def read_quote(data: bytes) -> bytes:
    """The raw quote of a file, whichever of the two forms it has.

    What the JSON says beside the quote is not returned: only the quote itself is signed.

    Raises:
        ParseError: too large, or JSON that is not such a file.
    """
    if len(data) > MAXIMUM:
        raise ParseError(f"{len(data)} bytes, at most {MAXIMUM} are read", source=_SOURCE, code="too-large")
    # No quote begins like this: it would be version 0x0a7b or so.
    if data.lstrip(b" \t\r\n")[:1] != b"{":
        return data
    document = load_json(data, source=_SOURCE, maximum=MAXIMUM)
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise ParseError(f"not a file of format {FORMAT}, version {VERSION}", source=_SOURCE, code="format")
    blob = document.get("outblob")
    if not isinstance(blob, str):
        raise ParseError(f"outblob is {kind_of(blob)}, expected a text", source=_SOURCE, code="format")
    try:
        return base64.b64decode(blob, validate=True)
    except (ValueError, binascii.Error):
        raise ParseError("outblob is not base64", source=_SOURCE, code="base64") from None
