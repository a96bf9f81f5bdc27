"""Quotes: their file, and TDX quotes (versions 4 and 5) and SNP reports read as far as their binding needs.

A file is JSON with the kernel's blobs in base64, or the raw quote alone.

**The signature of the quote is not verified here**, and neither are TCB status, measurements or policies of the guest.
Until a tool made for that has verified the quote (Intel's DCAP libraries, go-tdx-guest, snpguest, Trustee), a binding
that matches proves nothing.

Layouts: Intel TDX DCAP Quoting Library API, appendix A.3 (version 4) and A.4 (version 5); AMD SEV-SNP Firmware ABI
(56860), table ATTESTATION_REPORT. All integers are little-endian.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

from nvattest._documents import JsonObject, kind_of, load_json
from nvattest._wire import Cursor
from nvattest.errors import InputError, ParseError
from nvattest.model import NoTruthValue

if TYPE_CHECKING:
    from nvattest.tee.tsm import TeeQuote

NOT_VERIFIED: Final = (
    "the quote's own signature is not verified by nvattest; verify it with a tool made for that before believing this"
)

FORMAT: Final = "nvattest-tee-quote"
VERSION: Final = 1
MAXIMUM_FILE: Final = 24 * 1024 * 1024
_FILE: Final = "TEE quote file"
_SOURCE: Final = "TEE quote"
_MAXIMUM: Final = 16 * 1024 * 1024
_TDX: Final = 0x81
_ATTESTATION_KEYS: Final = (2, 3)  # ECDSA P-256 and P-384
_TD_BODY_1_0: Final = 584
_TD_BODY_1_5: Final = 648
# Version 5 names the kind of its body: 1 is an SGX enclave, 2 and 3 are trust domains.
_TD_BODIES: Final = {2: _TD_BODY_1_0, 3: _TD_BODY_1_5}
_SNP_SIZE: Final = 0x4A0
_SNP_VERSIONS: Final = (2, 3, 4, 5)
_SNP_DEBUG: Final = 1 << 19
# The whole group "TD under debug": DEBUG itself and the profiling bits; with any of them the host sees into the guest.
_TD_DEBUG: Final = 0xFF


class QuoteKind(Enum):
    """Whose quote it is; the value is the kernel's name of the provider."""

    TDX = "tdx_guest"
    SNP = "sev_guest"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedQuote:
    """The fields of a quote that a binding needs. Nothing of it is verified.

    ``measurement`` is MRTD of a trust domain or MEASUREMENT of an SNP guest; ``registers`` are RTMR 0 to 3 (TDX only);
    ``debug`` says that the host may read and write the guest.
    """

    kind: QuoteKind
    version: int
    report_data: bytes
    measurement: bytes
    registers: tuple[bytes, ...]
    debug: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingCheck(NoTruthValue):
    """Whether a quote carries the expected report data.

    ``ok`` is true only if it does and the guest is no debug guest, whose host can make it say anything. ``note`` says
    what was not looked at.
    """

    quote: ParsedQuote
    expected: bytes
    matches: bool
    note: str = NOT_VERIFIED

    _ask: ClassVar[str] = ".ok"

    @property
    def ok(self) -> bool:
        """Whether the binding holds, given that the quote's signature does."""
        return self.matches and not self.quote.debug

    @property
    def detail(self) -> str:
        """The result in one sentence."""
        if not self.matches:
            return (
                f"the {self.quote.kind.value} quote is bound to something else: report data "
                f"{self.quote.report_data.hex()[:16]}…, expected {self.expected.hex()[:16]}…"
            )
        if self.quote.debug:
            return "the quote carries the expected report data, but of a debug guest, which its host can rewrite"
        return f"the {self.quote.kind.value} quote carries the expected report data"


def parse_quote(data: bytes) -> ParsedQuote:
    """Read a TDX quote or an SNP report.

    Raises:
        ParseError: neither, truncated, an unknown version or kind, or stray bytes that are not zero.
    """
    if len(data) > _MAXIMUM:
        raise ParseError(f"{len(data)} bytes, at most {_MAXIMUM} are read", source=_SOURCE, code="too-large")
    # A TDX header has the kind of the attestation key where an SNP report has the upper half of its version, 0.
    if len(data) == _SNP_SIZE and data[2:4] == b"\0\0":
        return _snp(data)
    return _tdx(data)


def check_binding(quote: bytes, expected_report_data: bytes) -> BindingCheck:
    """Compare a quote's report data with the expected 64 bytes (``nvattest.token.binding.report_data``).

    Raises:
        ParseError: the quote cannot be read.
        InputError: the expected report data does not have 64 bytes.
    """
    if type(expected_report_data) is not bytes or len(expected_report_data) != 64:
        raise InputError("report data has exactly 64 bytes", code="report-data")
    parsed = parse_quote(quote)
    return BindingCheck(
        quote=parsed,
        expected=expected_report_data,
        matches=hmac.compare_digest(parsed.report_data, expected_report_data),
    )


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
    if len(data) > MAXIMUM_FILE:
        raise ParseError(f"{len(data)} bytes, at most {MAXIMUM_FILE} are read", source=_FILE, code="too-large")
    # No quote begins like this: it would be version 0x0a7b or so.
    if data.lstrip(b" \t\r\n")[:1] != b"{":
        return data
    document = load_json(data, source=_FILE, maximum=MAXIMUM_FILE)
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise ParseError(f"not a file of format {FORMAT}, version {VERSION}", source=_FILE, code="format")
    blob = document.get("outblob")
    if not isinstance(blob, str):
        raise ParseError(f"outblob is {kind_of(blob)}, expected a text", source=_FILE, code="format")
    try:
        return base64.b64decode(blob, validate=True)
    except (ValueError, binascii.Error):
        raise ParseError("outblob is not base64", source=_FILE, code="base64") from None


def _snp(data: bytes) -> ParsedQuote:
    cursor = Cursor(data, source=_SOURCE)
    version = cursor.uint(4, "version")
    if version not in _SNP_VERSIONS:
        raise cursor.error(f"SNP report version {version} is not known", code="quote-version", back=4)
    cursor.take(4, "guest SVN")
    policy = cursor.uint(8, "policy")
    cursor.take(0x50 - 0x10, "fields up to the report data")
    report_data = cursor.take(64, "report data")
    measurement = cursor.take(48, "measurement")
    return ParsedQuote(
        kind=QuoteKind.SNP,
        version=version,
        report_data=report_data,
        measurement=measurement,
        registers=(),
        debug=bool(policy & _SNP_DEBUG),
    )


def _tdx(data: bytes) -> ParsedQuote:
    cursor = Cursor(data, source=_SOURCE)
    version = cursor.uint(2, "version")
    if version not in (4, 5):
        raise cursor.error(
            f"neither an SNP report of {_SNP_SIZE} bytes nor a TDX quote of version 4 or 5 (version {version})",
            code="quote-version",
            back=2,
        )
    key = cursor.uint(2, "kind of attestation key")
    if key not in _ATTESTATION_KEYS:
        raise cursor.error(f"attestation key of kind {key} is not known", code="quote-key", back=2)
    tee = cursor.uint(4, "kind of TEE")
    if tee != _TDX:
        raise cursor.error(f"TEE of kind {tee:#x}, expected TDX ({_TDX:#x})", code="quote-tee", back=4)
    cursor.take(40, "rest of the header")
    size = _TD_BODY_1_0
    if version == 5:
        body_kind = cursor.uint(2, "kind of body")
        if body_kind not in _TD_BODIES:
            raise cursor.error(f"body of kind {body_kind}, expected a trust domain's", code="quote-body", back=2)
        size = cursor.uint(4, "size of the body")
        if size != _TD_BODIES[body_kind]:
            raise cursor.error(f"body of {size} bytes, expected {_TD_BODIES[body_kind]}", code="quote-body", back=4)
    body = Cursor(cursor.take(size, "body"), source=_SOURCE, origin=cursor.offset - size)
    parsed = _td_body(body, version)
    signature = cursor.uint(4, "size of the signature")
    if not signature:
        raise cursor.error("a quote without a signature", code="quote-signature", back=4)
    cursor.take(signature, "signature")
    # Some guests get their quote in a larger buffer, filled up with zeros.
    rest = cursor.take(cursor.remaining, "padding")
    if rest.count(0) != len(rest):
        raise cursor.error(f"{len(rest)} stray bytes after the signature", code="stray-bytes", back=len(rest))
    return parsed


def _td_body(body: Cursor, version: int) -> ParsedQuote:
    body.take(16 + 48 + 48 + 8, "TCB and SEAM fields")
    attributes = body.uint(8, "TD attributes")
    body.take(8, "XFAM")
    measurement = body.take(48, "MRTD")
    body.take(3 * 48, "configuration and owner")
    registers = tuple(body.take(48, f"RTMR {number}") for number in range(4))
    report_data = body.take(64, "report data")
    return ParsedQuote(
        kind=QuoteKind.TDX,
        version=version,
        report_data=report_data,
        measurement=measurement,
        registers=registers,
        debug=bool(attributes & _TD_DEBUG),
    )
