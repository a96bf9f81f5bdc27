"""The collateral of a guest's quote, from the maker of its CPU: Intel's certification service or any PCCS, AMD's KDS.

What the caller has is preferred, then the cache, then the network. Nothing is kept that its maker did not sign
(``nvattest.tee.collateral.judge``). Intel's texts are cut out of the answers as they are: their signatures cover the
bytes.

Intel: ``GET <base>/tdx/certification/v4/tcb?fmspc=``, ``/tdx/certification/v4/qe/identity`` and
``/sgx/certification/v4/pckcrl?ca=``, each with its issuer chain in a header; the root's list is published elsewhere,
and a PCCS hands it on. AMD: ``GET <base>/vcek/v1/<product>/<chip>?blSPL=…``, and ``cert_chain`` and ``crl`` of
``/{vcek,vlek}/v1/<product>`` (AMD 57230). A VLEK is not public: it comes with the quote or not at all.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from nvattest._documents import load_json
from nvattest._registry import INTEL_ROOT_CRL_URL, KDS_URL, PCS_URL
from nvattest._waiting import Deadline, run_all
from nvattest.appraisal.inputs import CpuAnswer, Source
from nvattest.collateral.http import Answer, HttpClient, HttpSettings, Service, check_seconds, check_url
from nvattest.errors import CollateralError, ParseError, ResultCode
from nvattest.model import require_type
from nvattest.pki.anchors import CPU_ANCHORS, CpuAnchors
from nvattest.tee.collateral import (
    TURIN_CHIP,
    CpuCollateral,
    EndorsementKey,
    Issued,
    SnpCollateral,
    TdxCollateral,
    judge,
    parse_collateral,
    parse_snp_collateral,
    read_auxiliary,
    snp_collateral,
    tdx_collateral,
)
from nvattest.tee.quote import SnpReport, parse_quote, read_quote_file
from nvattest.tee.snp import generation_of, read_tcb, signing_key_of
from nvattest.tee.tdx import Platform, platform_of

if TYPE_CHECKING:
    from nvattest.collateral.cache import DiskCache

INTEL_SERVICE: Final = Service(
    name="Intel's certification service",
    option="--pcs-url",
    maximum=512 * 1024,
    accept="*/*",
    failed=ResultCode.RIM_INTERNAL_ERROR,
    unreachable=ResultCode.RIM_CONNECTION_ERROR,
    forbidden=ResultCode.RIM_FORBIDDEN,
    missing=ResultCode.RIM_NOT_FOUND,
    keyed=False,
)
# NVIDIA has no codes for other makers' services.
AMD_SERVICE: Final = replace(INTEL_SERVICE, name="AMD's key distribution service", option="--kds-url")

# Two certificates, percent-encoded.
_MAXIMUM_CHAIN: Final = 32 * 1024
_PRODUCTS: Final = {"milan": "Milan", "genoa": "Genoa", "turin": "Turin"}
_PCCS_BASE: Final = re.compile(r"(?:/(?:sgx|tdx)/certification/v4)?/*$")
_KDS_BASE: Final = re.compile(r"(?:/v[cl]ek)?(?:/v1)?/*$")
_FMSPC: Final = re.compile("[0-9A-F]{12}")
_HEX: Final = re.compile(rb"\s*((?:[0-9A-Fa-f]{2})+)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuOptions:
    """Where to ask and how. The service key of ``http`` is NVIDIA's: none of these services may see it.

    Args:
        pcs_url, kds_url: base URLs; they may end as others write them, in ``/sgx/certification/v4`` or ``/vcek/v1``.
        http: roots and limits of a single exchange.
        timeout: seconds for everything together, retries included.
        cache: where to look first and what to fill; None for none.
        offline: ask no service.

    Raises:
        InputError: a URL, a time limit or a flag that cannot be used.
    """

    pcs_url: str = PCS_URL
    kds_url: str = KDS_URL
    http: HttpSettings = field(default_factory=HttpSettings)
    timeout: float = 60.0
    cache: DiskCache | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        require_type(self.offline, bool, "offline")
        check_seconds(self.timeout)
        check_url(self.pcs_url, INTEL_SERVICE.option)
        check_url(self.kds_url, AMD_SERVICE.option)


class Chip(NamedTuple):
    """An AMD chip at one firmware level, with the roots that its generation may have, and what its quote brought along.

    ``kind`` is that of the key that signs its reports: ``vcek``, or ``vlek`` of a cloud provider.
    """

    kind: str
    chip_id: bytes
    tcb: bytes
    roots: tuple[str, ...]
    held: SnpCollateral


Wanted = Platform | Chip
"""What collateral is wanted for: an Intel platform type, or an AMD chip."""


def wanted_of(quote: bytes) -> Wanted:
    """What the quote in this file (of ``--bind-tee``, or a raw one) needs collateral for.

    ParseError where it cannot be read, or names no platform and no known generation.
    """
    file = read_quote_file(quote)
    parsed = parse_quote(file.quote)
    report = parsed.body
    if not isinstance(report, SnpReport):
        platform = platform_of(parsed)
        if _FMSPC.fullmatch(platform.fmspc) is None:
            said = "the platform type (FMSPC) has not 6 bytes"
            raise ParseError(said, source="TEE quote", code="quote-certification")
        return platform
    kind, generation = signing_key_of(report), generation_of(report.cpuid) if report.cpuid is not None else "any"
    if kind is None:
        raise ParseError("the report names no signing key: it is not signed", source="TEE quote", code="quote-key")
    if generation is None:
        raise ParseError("the CPUID of the report is of no known generation", source="TEE quote", code="quote-key")
    # A report before version 3 has no CPUID, and Turin's have one.
    roots = {"any": ("milan", "genoa"), "siena": ("genoa",)}.get(generation, (generation,))
    return Chip(kind, report.chip_id, report.reported_tcb, roots, read_auxiliary(file.auxiliary))


def fetch_cpu(wanted: Wanted, options: CpuOptions, *, at: datetime, anchors: CpuAnchors = CPU_ANCHORS) -> CpuAnswer:
    """The maker's collateral from quote, cache and service. It is verified that the maker issued it for now (``at``).

    Raises:
        CollateralError: it cannot be had, or what came is not the maker's, not current or of another platform.
        InputError: a certificate beside the quote that cannot be read, or roots of TLS.
    """
    with HttpClient(options.http) as client:
        fetching = _Fetching(options, client, at, anchors)
        return fetching.intel(wanted) if isinstance(wanted, Platform) else fetching.amd(wanted)


def renew_cpu(
    answer: CpuAnswer, options: CpuOptions, *, at: datetime, within: timedelta, anchors: CpuAnchors = CPU_ANCHORS
) -> CpuAnswer:
    """The same, or collateral asked for anew where a part of it ends ``within`` this time and in its second half."""
    collateral = parse_collateral(answer.content)
    issued = judge(collateral, anchors)
    soon = [
        window.until is not None and window.until - at < min(within, (window.until - window.since) / 2)
        for window in issued.windows
    ]
    if not issued.problem and not any(soon):
        return answer
    with HttpClient(options.http) as client:
        fetching = _Fetching(replace(options, cache=None), client, at, anchors)
        if isinstance(collateral, TdxCollateral):
            return fetching.intel(Platform(collateral.fmspc, collateral.authority))
        # The certificates stay: a VCEK is good for years, and a VLEK cannot be asked for. What ends is the list.
        for key in collateral.endorsement_keys():
            return fetching.complete(key, collateral)
    raise AMD_SERVICE.error("there is no VCEK and no VLEK in it", code="answer")


def choose(answers: Iterable[CpuAnswer], quote: bytes) -> CpuCollateral | None:
    """Of all this collateral what belongs to the quote in this file; None where nothing does.

    Of several documents of Intel's the newest, of AMD's all together. Nothing is verified. ParseError: not readable.
    """
    wanted = wanted_of(quote)
    found = [parse_collateral(answer.content) for answer in answers]
    if isinstance(wanted, Platform):
        documents = [
            item
            for item in found
            if isinstance(item, TdxCollateral) and (item.fmspc, item.authority) == (wanted.fmspc, wanted.ca)
        ]
        return max(documents, key=lambda item: (item.evaluation, str(item.tcb_info["issueDate"])), default=None)
    both: SnpCollateral | None = None
    for item in found:
        if isinstance(item, SnpCollateral) and any(_signs(key, wanted) for key in item.endorsement_keys()):
            both = item if both is None else both + item
    return both


def issued_cpu(answer: CpuAnswer, anchors: CpuAnchors = CPU_ANCHORS) -> Issued:
    """The judgement of one file (``nvattest.tee.collateral.judge``); that it cannot be read is a problem of it."""
    try:
        return judge(parse_collateral(answer.content), anchors)
    except ParseError as error:
        return Issued(about="", windows=(), problem=error.message)


def _signs(key: EndorsementKey, chip: Chip) -> bool:
    """Whether this key may sign the reports of this chip at this level. A VLEK names no chip, and neither does a report
    whose chip id is masked: its signature says whose it is.
    """
    named = key.kind == "vcek" and any(chip.chip_id)
    if key.kind != chip.kind or (named and key.hwid.ljust(64, b"\0") != chip.chip_id):
        return False
    return any(read_tcb(chip.tcb, root) == key.tcb for root in chip.roots)


class _Fetching:
    def __init__(self, options: CpuOptions, client: HttpClient, at: datetime, anchors: CpuAnchors) -> None:
        self._options = options
        self._client = client
        self._at = at
        self._anchors = anchors
        self._deadline = Deadline(options.timeout)
        self._kds = _KDS_BASE.sub("", options.kds_url)
        self._asked = False

    def intel(self, platform: Platform) -> CpuAnswer:
        key = f"tdx-{platform.fmspc}-{platform.ca}"
        kept = self._kept(key, aged=True)
        if kept is not None and not self._refused(kept, platform):
            return self._answer(kept, "")
        base = _PCCS_BASE.sub("", self._options.pcs_url)
        urls = (
            f"{base}/tdx/certification/v4/tcb?fmspc={platform.fmspc}",
            f"{base}/tdx/certification/v4/qe/identity",
            f"{base}/sgx/certification/v4/pckcrl?ca={platform.ca}&encoding=der",
            INTEL_ROOT_CRL_URL if base == PCS_URL else f"{base}/sgx/certification/v4/rootcacrl",
        )
        tcb, identity, pck, root = self._ask(INTEL_SERVICE, *urls)
        members = {
            **_signed_text(tcb, urls[0], "tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain"),
            **_signed_text(identity, urls[1], "enclaveIdentity", "qe_identity", "SGX-Enclave-Identity-Issuer-Chain"),
            "pck_crl_issuer_chain": _chain(pck, urls[2], "SGX-PCK-CRL-Issuer-Chain"),
            "pck_crl": _revocation_list(pck.content, INTEL_SERVICE, urls[2]).hex(),
            "root_ca_crl": _revocation_list(root.content, INTEL_SERVICE, urls[3]).hex(),
        }
        try:
            content = tdx_collateral(members).text.encode()
        except ParseError as error:
            raise INTEL_SERVICE.unusable(base, error.message) from None
        self._require(content, platform, INTEL_SERVICE, base)
        self._keep({key: content})
        return self._answer(content, base)

    def amd(self, chip: Chip) -> CpuAnswer:
        for key in chip.held.endorsement_keys():
            if _signs(key, chip):
                return self.complete(key, chip.held)
        if chip.kind == "vlek" or not any(chip.chip_id):
            vlek = "a VLEK, which AMD gives to the provider alone"
            signer = vlek if chip.kind == "vlek" else "a chip that is not named"
            raise AMD_SERVICE.error(
                f"the report is signed by {signer}", code="not-found", result_code=ResultCode.CERT_NOT_FOUND,
                hint="the host has to put the certificate beside the quote (auxblob); ask its operator",
            )  # fmt: skip
        missing: CollateralError | None = None
        for root in chip.roots:
            name = f"vcek-{root}-{chip.chip_id.hex()}-{chip.tcb.hex()}"
            url = f"{self._kds}/vcek/v1/{_vcek_path(chip, root)}"
            try:
                der = self._kept(name) or self._ask(AMD_SERVICE, url)[0].content
            except CollateralError as error:
                # Without CPUID the generation shows in which of them AMD knows the chip.
                if error.code != "not-found":
                    raise
                missing = missing or error
                continue
            with AMD_SERVICE.reading(url, der):
                found = [key for key in snp_collateral([der]).endorsement_keys() if _signs(key, chip)]
            if not found:
                raise AMD_SERVICE.unusable(url, "the VCEK is of another chip or firmware level")
            return self.complete(found[0], chip.held, {name: der})
        assert missing is not None  # noqa: S101 - each root ends otherwise
        raise missing

    def complete(self, key: EndorsementKey, held: SnpCollateral, new: dict[str, bytes] | None = None) -> CpuAnswer:
        """The key with its issuer and the root's revocation list. ``held`` comes with the quote, ``new`` from AMD."""
        root = key.product.partition("-")[0].lower()
        # Siena has Genoa's root.
        root = "genoa" if root == "siena" else root
        product = _PRODUCTS.get(root)
        if product is None:
            what = f"the {key.kind.upper()} is of the unknown product {key.product}"
            raise AMD_SERVICE.unusable(self._options.kds_url, what)
        new = dict(new or {})
        service = f"{key.kind}/v1/{product}"
        of_chain, of_list = f"{key.kind}-{root}-chain", f"{key.kind}-{root}-crl"
        keys = {key.der for key in held.endorsement_keys()}
        theirs = SnpCollateral(certificates=tuple(der for der in held.certificates if der not in keys))
        issuers = [theirs, self._kept_snp(of_chain)]
        lists = [*self._kept_snp(of_list, aged=True).crls, *(held.crls if self._options.offline else ())]
        content = self._together(key, issuers, lists)
        if content is None:
            url = f"{self._kds}/{service}/crl"
            new[of_list] = _revocation_list(self._ask(AMD_SERVICE, url)[0].content, AMD_SERVICE, url)
            content = self._together(key, issuers, [new[of_list]])
        if content is None:
            # What the host put beside the quote is missing, not AMD's, or revoked and has a successor.
            url = f"{self._kds}/{service}/cert_chain"
            new[of_chain] = self._ask(AMD_SERVICE, url)[0].content
            with AMD_SERVICE.reading(url, new[of_chain]):
                content = _pem(snp_collateral([key.der, new[of_list]]) + parse_snp_collateral(new[of_chain]))
            self._require(content, None, AMD_SERVICE, self._options.kds_url)
        self._keep(new)
        return self._answer(content, self._options.kds_url)

    def _together(self, key: EndorsementKey, issuers: Iterable[SnpCollateral], lists: Iterable[bytes]) -> bytes | None:
        """The first of these issuers and lists that make usable collateral with the key."""
        for crl in lists:
            for item in issuers:
                content = _pem(SnpCollateral(certificates=(key.der, *item.certificates), crls=(crl,)))
                if not self._refused(content, None):
                    return content
        return None

    def _kept_snp(self, name: str, *, aged: bool = False) -> SnpCollateral:
        content = self._kept(name, aged=aged)
        with suppress(ParseError):
            if content is not None:
                return parse_snp_collateral(content)
        return SnpCollateral()

    def _ask(self, service: Service, *urls: str) -> list[Answer]:
        if self._options.offline:
            raise service.error(
                "collateral of the CPU is not at hand, and --offline asks no service", code="not-found",
                hint="leave out --offline, or fill the cache while there is a network",
            )  # fmt: skip
        self._asked = True
        jobs = [partial(self._client.exchange, service, url, self._deadline) for url in urls]
        answers: list[Answer] = []
        for url, result in zip(urls, run_all(jobs, self._deadline), strict=True):
            if not isinstance(result, Answer):
                raise service.failure(url, result, self._deadline)
            answers.append(result)
        return answers

    def _refused(self, content: bytes, platform: Platform | None) -> str:
        try:
            collateral = parse_collateral(content)
            if isinstance(collateral, TdxCollateral) and platform is not None:
                found = (collateral.fmspc, collateral.authority)
                if found != (platform.fmspc, platform.ca):
                    return f"it is about {' '.join(found)}, asked was {platform.fmspc} {platform.ca}"
        except ParseError as error:
            return error.message
        issued = judge(collateral, self._anchors)
        return issued.problem or issued.current(self._at)

    def _require(self, content: bytes, platform: Platform | None, service: Service, where: str) -> None:
        if problem := self._refused(content, platform):
            raise service.error(
                f"{where}: the collateral cannot be used: {problem}", code="answer",
                hint=f"check the clock (--at), and {service.option}: a mirror may hand on what is old or another's",
            )  # fmt: skip

    def _kept(self, key: str, *, aged: bool = False) -> bytes | None:
        cache = self._options.cache
        return None if cache is None else cache.cpu(key, aged=aged and not self._options.offline)

    def _keep(self, new: dict[str, bytes]) -> None:
        if self._options.cache is not None and self._asked:
            for key, content in new.items():
                self._options.cache.store_cpu(key, content)

    def _answer(self, content: bytes, url: str) -> CpuAnswer:
        if self._asked:
            return CpuAnswer(content=content, source=Source.LIVE, origin=url)
        folder = self._options.cache.folder if self._options.cache is not None else ""
        return CpuAnswer(content=content, source=Source.CACHE, origin=folder)


def _vcek_path(chip: Chip, root: str) -> str:
    tcb = read_tcb(chip.tcb, root)
    levels = {"blSPL": tcb.boot_loader, "teeSPL": tcb.tee, "snpSPL": tcb.snp, "ucodeSPL": tcb.microcode}
    if root == "turin":
        levels = {"fmcSPL": tcb.fmc, **levels}
    chip_id = chip.chip_id[:TURIN_CHIP] if root == "turin" else chip.chip_id
    return f"{_PRODUCTS[root]}/{chip_id.hex()}?" + "&".join(f"{name}={value:02}" for name, value in levels.items())


def _signed_text(answer: Answer, url: str, member: str, name: str, header: str) -> dict[str, str]:
    """A text of Intel's with its signature and issuer chain, under the names of the collateral document."""
    with INTEL_SERVICE.reading(url, answer.content):
        document = load_json(answer.content, source=INTEL_SERVICE.name, maximum=INTEL_SERVICE.maximum)
        text = answer.content.decode()
    signature = document.get("signature") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(document.get(member), dict) or not isinstance(signature, str):
        raise INTEL_SERVICE.unusable(url, f"{member!r} and 'signature' are not an object and a text")
    return {
        name: _cut(text, member),
        f"{name}_signature": signature,
        f"{name}_issuer_chain": _chain(answer, url, header, f"SGX-{header}"),
    }


def _cut(text: str, member: str) -> str:
    """The text of a member of a JSON object, which was read before, as it is: its signature covers the bytes."""
    decoder, end = json.JSONDecoder(), 0
    while True:
        name, end = decoder.raw_decode(text, text.index('"', end))
        value = text[text.index(":", end) + 1 :].lstrip()
        _, size = decoder.raw_decode(value)
        if name == member:
            return value[:size]
        end = len(text) - len(value) + size


def _chain(answer: Answer, url: str, *headers: str) -> str:
    """A chain of certificates in a header, which is percent-encoded PEM."""
    value = next((answer.headers[name] for name in headers if name in answer.headers), None)
    if value is None:
        raise INTEL_SERVICE.unusable(url, f"there is no header {headers[0]}")
    if len(value) > _MAXIMUM_CHAIN:
        said = f"{headers[0]} has {len(value)} characters, at most {_MAXIMUM_CHAIN} are read"
        raise INTEL_SERVICE.unusable(url, said)
    return unquote(value)


def _revocation_list(body: bytes, service: Service, url: str) -> bytes:
    """The DER of a revocation list: as it is, as PEM, or in hexadecimal digits, as some PCCS give it."""
    if body[:1] == b"\x30":
        return body
    if (digits := _HEX.fullmatch(body)) is not None:
        return bytes.fromhex(digits[1].decode())
    try:
        [der] = parse_snp_collateral(body).crls
    except (ParseError, ValueError):
        raise service.unusable(url, f"no revocation list; it begins with {body[:40]!r}") from None
    return der


def _pem(collateral: SnpCollateral) -> bytes:
    blocks = [("CERTIFICATE", der) for der in collateral.certificates] + [("X509 CRL", der) for der in collateral.crls]
    return "".join(
        f"-----BEGIN {label}-----\n{fill(base64.b64encode(der).decode(), 64)}\n-----END {label}-----\n"
        for label, der in blocks
    ).encode()
