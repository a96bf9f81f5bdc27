"""The makers' collateral for CPU quotes: what Intel and AMD sign about their platforms. Pure values, nothing verified.

For TDX it is the JSON document that Intel's quote verification library names ``QuoteCollateralV3``: ten members, of
which ``tcb_info`` and ``qe_identity`` are texts that Intel signed byte by byte. The document is kept as its text, so
that nothing is ever serialised anew. For SEV-SNP it is a set of DER certificates and revocation lists.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final, NamedTuple

from nvattest._documents import JsonObject, file_text, kind_of, load_json
from nvattest.errors import InputError, ParseError
from nvattest.model import parse_time
from nvattest.pki.certificate import SEQUENCE, DerReader

SOURCE: Final = "CPU collateral"
MAXIMUM_TDX: Final = 1024 * 1024
MAXIMUM_DER: Final = 64 * 1024
MAXIMUM_ITEMS: Final = 16

TDX_MEMBERS: Final = (
    "pck_crl_issuer_chain",
    "root_ca_crl",
    "pck_crl",
    "tcb_info_issuer_chain",
    "tcb_info",
    "tcb_info_signature",
    "qe_identity_issuer_chain",
    "qe_identity",
    "qe_identity_signature",
)
TDX_PCK_CHAIN: Final = "pck_certificate_chain"
_HEX_MEMBERS: Final = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")

_BLOCK: Final = re.compile(
    rb"\s*-----BEGIN (CERTIFICATE|X509 CRL)-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1-----\s*"
)
_EXPLICIT_VERSION: Final = 0xA0


class Window(NamedTuple):
    """When a part of the collateral is current, as its signer says. ``until`` is None where it names no end."""

    name: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, kw_only=True)
class TdxCollateral:
    """Intel's collateral for one platform type (FMSPC) and certificate authority.

    ``text`` is the JSON document as it came, read once. Make it with ``parse_tdx_collateral`` or ``tdx_collateral``.
    """

    text: str

    @cached_property
    def members(self) -> dict[str, str]:
        """The nine texts of the document, and the tenth where it is there; members of other names are left out."""
        document = json.loads(self.text)
        return {name: document[name] for name in (*TDX_MEMBERS, TDX_PCK_CHAIN) if document.get(name) is not None}

    @cached_property
    def tcb_info(self) -> JsonObject:
        """Intel's TCB info as an object. Its signature was not verified."""
        return _inner(self.members["tcb_info"], "tcb_info")

    @cached_property
    def qe_identity(self) -> JsonObject:
        """Intel's identity of the quoting enclave as an object. Its signature was not verified."""
        return _inner(self.members["qe_identity"], "qe_identity")

    @property
    def fmspc(self) -> str:
        """The platform type that the TCB info is about, in upper-case hexadecimal digits."""
        return str(self.tcb_info.get("fmspc")).upper()

    @property
    def evaluation(self) -> int:
        """The TCB evaluation data number of the TCB info: a higher one is newer."""
        number = self.tcb_info.get("tcbEvaluationDataNumber")
        return number if type(number) is int else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpCollateral:
    """AMD's collateral for one chip: DER certificates (VCEK or VLEK, ASK or ASVK, ARK) and revocation lists.

    The order means nothing. An ARK among them is only compared with the pinned one.
    """

    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()

    def __add__(self, other: SnpCollateral) -> SnpCollateral:
        """Both together, each part once."""
        return SnpCollateral(
            certificates=tuple(dict.fromkeys(self.certificates + other.certificates)),
            crls=tuple(dict.fromkeys(self.crls + other.crls)),
        )


CpuCollateral = TdxCollateral | SnpCollateral


def parse_collateral(data: bytes) -> CpuCollateral:
    """Read a file of collateral: Intel's JSON document, or AMD's certificates and lists as PEM or DER.

    Raises:
        ParseError: neither of them.
    """
    text = file_text(data)
    start = text.lstrip()[:1] if isinstance(text, str) else data.lstrip(b" \t\r\n")[:1].decode("latin-1")
    return parse_tdx_collateral(data) if start == "{" else parse_snp_collateral(data)


def parse_tdx_collateral(data: bytes) -> TdxCollateral:
    """Read Intel's JSON document. Its texts are kept byte by byte.

    Raises:
        ParseError: too large, not such a document, a member missing or of another form, or an inner text that has no
            dates (code ``collateral-format``).
    """
    document = load_json(data, source=SOURCE, maximum=MAXIMUM_TDX, file=True)
    if not isinstance(document, dict):
        raise _wrong(f"{kind_of(document)}, expected an object")
    for name in TDX_MEMBERS:
        value = document.get(name)
        if not isinstance(value, str):
            raise _wrong(f"{name} is {kind_of(value) if name in document else 'missing'}, expected a text")
        if name in _HEX_MEMBERS and re.fullmatch("(?:[0-9A-Fa-f]{2})+", value) is None:
            raise _wrong(f"{name} is not hexadecimal")
    if not isinstance(document.get(TDX_PCK_CHAIN), str | None):
        raise _wrong(f"{TDX_PCK_CHAIN} is {kind_of(document[TDX_PCK_CHAIN])}, expected a text")
    text = file_text(data)
    collateral = TdxCollateral(text=text if isinstance(text, str) else text.decode("utf-8"))
    for inner, number in ((collateral.tcb_info, "tcbEvaluationDataNumber"), (collateral.qe_identity, None)):
        _dates(inner)
        if number is not None and type(inner.get(number)) is not int:
            raise _wrong(f"tcb_info has no {number}")
    if not re.fullmatch("[0-9A-F]{12}", collateral.fmspc):
        raise _wrong("tcb_info names no platform type (fmspc)")
    return collateral


def tdx_collateral(members: dict[str, str]) -> TdxCollateral:
    """The document of these members, as ``parse_tdx_collateral`` reads it: texts, and bytes as hexadecimal digits.

    Raises:
        ParseError: as ``parse_tdx_collateral``.
    """
    return parse_tdx_collateral(json.dumps(members, indent=1).encode())


def parse_snp_collateral(data: bytes) -> SnpCollateral:
    """Read AMD's certificates and revocation lists: PEM blocks with nothing between them, or one DER object.

    Raises:
        ParseError: too large, neither of them, or too many (code ``collateral-format``).
    """
    if len(data) > MAXIMUM_DER * MAXIMUM_ITEMS:
        raise ParseError(f"{len(data)} bytes, too many to read", source=SOURCE, code="too-large")
    blocks = [data]
    if data.lstrip()[:5] == b"-----":
        blocks, position = [], 0
        while position < len(data):
            match = _BLOCK.match(data, position)
            if match is None:
                raise _wrong("only blocks CERTIFICATE and X509 CRL of PEM are read", position)
            try:
                blocks.append(base64.b64decode(match[2].translate(None, b"\r\n"), validate=True))
            except (ValueError, binascii.Error):
                raise _wrong("a PEM block is not base64", position) from None
            position = match.end()
    return snp_collateral(blocks)


def snp_collateral(items: Iterable[bytes]) -> SnpCollateral:
    """DER certificates and revocation lists in any order, each as what it is.

    Raises:
        ParseError: one that is neither, too large, or too many of them (code ``collateral-format``).
    """
    certificates: list[bytes] = []
    crls: list[bytes] = []
    for item in items:
        if len(item) > MAXIMUM_DER:
            raise _wrong(f"{len(item)} bytes, at most {MAXIMUM_DER} are read")
        (certificates if _is_certificate(item) else crls).append(item)
    if len(certificates) + len(crls) > MAXIMUM_ITEMS:
        raise _wrong(f"{len(certificates) + len(crls)} certificates and lists, at most {MAXIMUM_ITEMS} are read")
    return SnpCollateral(certificates=tuple(dict.fromkeys(certificates)), crls=tuple(dict.fromkeys(crls)))


def collateral_windows(collateral: CpuCollateral) -> tuple[Window, ...]:
    """When each dated part is current, as the parts themselves say: TCB info, QE identity, revocation lists.

    Certificates are left out: they outlive all of these, and their chain is judged with the quote.

    Raises:
        ParseError: a revocation list cannot be read (code ``collateral-format``).
    """
    if isinstance(collateral, SnpCollateral):
        return tuple(_crl_window(f"revocation list {index}", der) for index, der in enumerate(collateral.crls))
    members = collateral.members
    return (
        Window("tcb_info", *_dates(collateral.tcb_info)),
        Window("qe_identity", *_dates(collateral.qe_identity)),
        *(_crl_window(name, bytes.fromhex(members[name])) for name in ("pck_crl", "root_ca_crl")),
    )


def _crl_window(name: str, der: bytes) -> Window:
    from cryptography import x509

    from nvattest.pki.certificate import LIBRARY_ERRORS

    try:
        crl = x509.load_der_x509_crl(der)
        return Window(name, crl.last_update_utc, crl.next_update_utc)
    except LIBRARY_ERRORS as error:
        raise _wrong(f"{name} is no readable revocation list: {error}") from None


def _is_certificate(der: bytes) -> bool:
    """Whether this is a certificate, and not a revocation list, by its first element (RFC 5280, 4.1 and 5.1)."""
    try:
        reader = DerReader(der, source=SOURCE)
        outer = reader.inner(SEQUENCE, "certificate or revocation list")
        reader.finish("certificate or revocation list")
        return outer.inner(SEQUENCE, "signed part").peek() == _EXPLICIT_VERSION
    except ParseError as error:
        raise _wrong(f"neither a certificate nor a revocation list: {error.message}") from None


def _inner(text: str, name: str) -> JsonObject:
    document = load_json(text, source=f"{SOURCE}, {name}", maximum=MAXIMUM_TDX)
    if not isinstance(document, dict):
        raise _wrong(f"{name} is {kind_of(document)}, expected an object")
    return document


def _dates(inner: JsonObject) -> tuple[datetime, datetime]:
    since, until = inner.get("issueDate"), inner.get("nextUpdate")
    try:
        return parse_time(str(since)), parse_time(str(until))
    except InputError:
        raise _wrong("a signed text has no issueDate and nextUpdate") from None


def _wrong(message: str, offset: int | None = None) -> ParseError:
    return ParseError(message, source=SOURCE, offset=offset, code="collateral-format")
