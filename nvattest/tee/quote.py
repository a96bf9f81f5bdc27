"""Quotes: their file, and TDX quotes (versions 4 and 5) and SNP reports, read. Nothing here is verified.

A file is JSON with the kernel's blobs in base64, or the raw quote alone.

**The signature of the quote is not verified here**, and neither are TCB status, measurements or policies of the guest:
``nvattest.tee.guest`` does that. Until it has, or another tool, a binding that matches proves nothing.

Layouts: Intel TDX DCAP Quoting Library API, appendix A.3 (version 4) and A.4 (version 5); AMD SEV-SNP Firmware ABI
(56860), table ATTESTATION_REPORT. All integers are little-endian.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field
from enum import Enum
from struct import Struct
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from nvattest._documents import Cursor, JsonObject, kind_of, load_json
from nvattest.errors import InputError, ParseError
from nvattest.model import NoTruthValue

if TYPE_CHECKING:
    from nvattest.tee.tsm import TeeQuote

NOT_VERIFIED: Final = (
    "the quote's own signature is not verified: judge the guest by a CPU policy, too (--cpu-policy, nvattest.Guest), "
    "before believing this"
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
# 1.5 with identity and device information of the trust domain, and fields of its service domain.
_TD_BODY_1_5_EX: Final = 885
# Version 5 names the kind of its body: 1 is an SGX enclave, the others are trust domains.
_TD_BODIES: Final = {2: _TD_BODY_1_0, 3: _TD_BODY_1_5, 4: _TD_BODY_1_5_EX}
_REGISTER: Final = 48
_SNP_SIZE: Final = 0x4A0
_SNP_VERSIONS: Final = (2, 3, 4, 5)
_SNP_CPUID: Final = 3
_SNP_SIGNED: Final = 0x2A0
_SNP_DEBUG: Final = 1 << 19
# The whole group "TD under debug": DEBUG itself and the profiling bits; with any of them the host sees into the guest.
_TD_DEBUG: Final = 0xFF
# What Azure's vTPM gives in the place of a quote begins so.
_HCL: Final = b"HCLA"
# Certification data of the quote's signature: a report of the quoting enclave, and in it a PEM chain.
_QE_REPORT_DATA: Final = 6
_PCK_CHAIN_DATA: Final = 5


class QuoteKind(Enum):
    """Whose quote it is; the value is the kernel's name of the provider."""

    TDX = "tdx_guest"
    SNP = "sev_guest"


class TdBody(NamedTuple):
    """The fields of a trust domain's report (TDX 1.0) that a policy can demand."""

    mr_seam: bytes
    attributes: int
    mrtd: bytes
    mr_config_id: bytes
    rtmrs: tuple[bytes, ...]
    report_data: bytes


# Of the layouts, what has a name in TdBody and SnpReport, in their order; "x" passes over the rest.
_TD_BODY: Final = Struct("<16x 48s 56x Q 8x 48s 48s 96x 192s 64s")
_SNP_REPORT: Final = Struct("<I I Q 16s 16s I I 8s 8x I 4x 64s 48s 32s 48s 48s 64x 8s 3s 21x 64s 8s 8x 8s")


class SnpReport(NamedTuple):
    """The fields of an ATTESTATION_REPORT that are used. A TCB is its eight bytes, which each generation reads its way.

    ``cpuid`` is family, model and stepping, None before report version 3. ``signature`` is all that follows the signed
    part.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    algorithm: int
    current_tcb: bytes
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    reported_tcb: bytes
    cpuid: tuple[int, int, int] | None
    chip_id: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    signed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedQuote:
    """A quote, read. Nothing of it is verified.

    ``measurement`` is MRTD of a trust domain or MEASUREMENT of an SNP guest; ``registers`` are RTMR 0 to 3 (TDX only);
    ``debug`` says that the host may read and write the guest. ``data`` is the quote without padding, ``signature`` the
    signature data of a TDX quote.
    """

    kind: QuoteKind
    version: int
    report_data: bytes
    measurement: bytes
    registers: tuple[bytes, ...]
    debug: bool
    body: TdBody | SnpReport = field(repr=False)
    data: bytes = field(repr=False)
    signature: bytes = field(repr=False)


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
        kind, found, expected = self.quote.kind.value, self.quote.report_data.hex(), self.expected.hex()
        if not self.matches:
            data = f"report data {found[:16]}…, expected {expected[:16]}…"
            return f"the {kind} quote is bound to something else: {data}"
        if self.quote.debug:
            return "the quote carries the expected report data, but of a debug guest, which its host can rewrite"
        return f"the {kind} quote carries the expected report data"


def parse_quote(data: bytes) -> ParsedQuote:
    """Read a TDX quote or an SNP report.

    Raises:
        ParseError: neither, truncated, an unknown version or kind, or stray bytes that are not zero.
    """
    if len(data) > _MAXIMUM:
        raise ParseError(f"{len(data)} bytes, at most {_MAXIMUM} are read", source=_SOURCE, code="too-large")
    if data.startswith(_HCL):
        raise ParseError(
            "a report of Azure's paravisor (HCLA), which is not supported: its MEASUREMENT is the paravisor's, and the "
            "guest's own state is in a vTPM whose quote is another format", source=_SOURCE, offset=0, code="quote-hcl",
            hint="Azure's guests have no quote of their own; use Azure's attestation service for the CPU",
        )  # fmt: skip
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
    matches = hmac.compare_digest(parsed.report_data, expected_report_data)
    return BindingCheck(quote=parsed, expected=expected_report_data, matches=matches)


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


class QuoteFile(NamedTuple):
    """The blobs of a quote's file: the raw quote, and the certificates that the host put beside it, or nothing."""

    quote: bytes
    auxiliary: bytes


def read_quote_file(data: bytes) -> QuoteFile:
    """The blobs of a file of either form. What else the JSON says is not returned: only the quote itself is signed.

    Raises:
        ParseError: too large, or JSON that is not such a file.
    """
    if len(data) > MAXIMUM_FILE:
        raise ParseError(f"{len(data)} bytes, at most {MAXIMUM_FILE} are read", source=_FILE, code="too-large")
    # No quote begins like this: it would be version 0x0a7b or so.
    if data.lstrip(b" \t\r\n")[:1] != b"{":
        return QuoteFile(data, b"")
    document = load_json(data, source=_FILE, maximum=MAXIMUM_FILE)
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise ParseError(f"not a file of format {FORMAT}, version {VERSION}", source=_FILE, code="format")
    auxiliary = b"" if document.get("auxblob") is None else _blob(document, "auxblob")
    return QuoteFile(_blob(document, "outblob"), auxiliary)


def _blob(document: JsonObject, name: str) -> bytes:
    value = document.get(name)
    if not isinstance(value, str):
        raise ParseError(f"{name} is {kind_of(value)}, expected a text", source=_FILE, code="format")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise ParseError(f"{name} is not base64", source=_FILE, code="base64") from None


def pck_chain(quote: ParsedQuote) -> bytes:
    """The PEM certificates of a TDX quote's signature, leaf first: PCK, its CA, Intel's root. Nothing is verified.

    Raises:
        ParseError: the signature data is truncated, or carries no chain (code ``quote-certification``).
    """
    cursor = Cursor(quote.signature, source="TEE quote, signature")
    cursor.take(64 + 64, "signature and attestation key")
    if cursor.uint(2, "kind of certification data") != _QE_REPORT_DATA:
        raise cursor.error("certification data without a report of the quoting enclave", code="quote-certification")
    inner = Cursor(cursor.take(cursor.uint(4, "size"), "certification data"), source="TEE quote, certification data")
    inner.take(384 + 64, "report of the quoting enclave and its signature")
    inner.take(inner.uint(2, "size"), "authentication data")
    if inner.uint(2, "kind of certification data") != _PCK_CHAIN_DATA:
        raise inner.error("the quote carries no certificate chain", code="quote-certification")
    return inner.take(inner.uint(4, "size"), "certificate chain").rstrip(b"\0")


def _snp(data: bytes) -> ParsedQuote:
    cursor = Cursor(data, source=_SOURCE)
    version = cursor.uint(4, "version")
    if version not in _SNP_VERSIONS:
        raise cursor.error(f"SNP report version {version} is not known", code="quote-version", back=4)
    *first, cpuid, chip, committed, launch = _SNP_REPORT.unpack_from(data)
    processor = tuple(cpuid) if version >= _SNP_CPUID else None
    report = SnpReport._make((*first, processor, chip, committed, launch, data[:_SNP_SIGNED], data[_SNP_SIGNED:]))
    return ParsedQuote(
        kind=QuoteKind.SNP,
        version=version,
        report_data=report.report_data,
        measurement=report.measurement,
        registers=(),
        debug=bool(report.policy & _SNP_DEBUG),
        body=report,
        data=data,
        signature=b"",
    )


def _tdx(data: bytes) -> ParsedQuote:
    cursor = Cursor(data, source=_SOURCE)
    version = cursor.uint(2, "version")
    if version not in (4, 5):
        neither = f"neither an SNP report of {_SNP_SIZE} bytes nor a TDX quote of version 4 or 5 (version {version})"
        raise cursor.error(neither, code="quote-version", back=2)
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
    *first, rtmrs, report_data = _TD_BODY.unpack_from(cursor.take(size, "body"))
    registers = tuple(rtmrs[at : at + _REGISTER] for at in range(0, len(rtmrs), _REGISTER))
    body = TdBody._make((*first, registers, report_data))
    length = cursor.uint(4, "size of the signature")
    if not length:
        raise cursor.error("a quote without a signature", code="quote-signature", back=4)
    signature = cursor.take(length, "signature")
    end = cursor.position
    # Some guests get their quote in a larger buffer, filled up with zeros.
    rest = cursor.take(cursor.remaining, "padding")
    if rest.count(0) != len(rest):
        raise cursor.error(f"{len(rest)} stray bytes after the signature", code="stray-bytes", back=len(rest))
    return ParsedQuote(
        kind=QuoteKind.TDX,
        version=version,
        report_data=body.report_data,
        measurement=body.mrtd,
        registers=body.rtmrs,
        debug=bool(body.attributes & _TD_DEBUG),
        body=body,
        data=data[:end],
        signature=signature,
    )
