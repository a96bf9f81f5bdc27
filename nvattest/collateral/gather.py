"""Gather the collateral of evidence: the RIMs and revocation answers that it needs, each asked for once.

The network is asked in two waves: RIMs and device certificates together, then the certificates of the RIMs. What the
caller has is preferred, then the cache, then the network. What could not be had is noted with its reason; the appraisal
turns that into a failed check. Nothing here decides about trust: chains are validated so that no unverified certificate
causes a request, and answers are judged so that nothing bad stays in the cache.

The RIM service: ``GET <base>/v1/rim/<id>`` gives a JSON object with the RIM in it. ``sha256`` is the digest of the
document (seen in an answer that the IETF RATS wiki prints); it only distinguishes a damaged answer from a refused one.
A responder gets a POST of a request (RFC 6960, appendix A).
"""

from __future__ import annotations

import binascii
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol

from nvattest._documents import kind_of, load_json
from nvattest._registry import OCSP_URL, RIM_URL
from nvattest._waiting import WORKERS, Deadline, debug, run_all
from nvattest.appraisal.inputs import Collateral, OcspAnswer, RevocationMode, RimAnswer, Source, Unavailable
from nvattest.appraisal.memory import Memory, ReadEvidence
from nvattest.appraisal.results import CertificateRevocation
from nvattest.appraisal.revocation import find_revocation
from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.collateral.bundle import MAXIMUM_ANSWER, MAXIMUM_RIM, decoded
from nvattest.collateral.http import HttpClient, HttpSettings, Service, check_seconds, check_url
from nvattest.errors import CollateralError, InputError, ParseError, ResultCode
from nvattest.evidence import Evidence
from nvattest.model import VerificationTime, require_type
from nvattest.pki.certificate import Certificate
from nvattest.pki.chain import ChainProfile, ValidatedChain
from nvattest.pki.ocsp import (
    CertIdHash,
    NonceOutcome,
    OcspResponse,
    Revocation,
    RevocationStatus,
    build_ocsp_request,
    cert_id_key,
    parse_ocsp_response,
)
from nvattest.rim.ids import is_rim_id, rim_ids
from nvattest.rim.verify import RimVerification


@dataclass(frozen=True, slots=True)
class Question:
    """One certificate whose revocation is asked, its validated issuer, and whose chain it belongs to.

    ``responders`` are the URLs of its AIA extension. A Hopper's or LS10's boot ROM certificate has none; then they are
    those of the nearest certificate above it, which is of the same authority.
    """

    certificate: Certificate
    issuer: Certificate
    profile: ChainProfile
    responders: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The key of this question in ``Collateral.unavailable``."""
        return f"ocsp:{self.certificate.sha256.hex()}"

    def instant(self, at: VerificationTime) -> datetime:
        return at.device if self.profile is ChainProfile.DEVICE else at.rim

    def judged(self, collateral: Collateral, at: VerificationTime, memory: Memory) -> CertificateRevocation:
        """What the answers of this collateral say, as an appraisal judges them."""
        return find_revocation(self.certificate, self.issuer, collateral, self.instant(at), memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """RIMs by id, and the device chains whose revocation is asked; the chains of the RIMs follow from the RIMs.

    ``refused`` says what is not asked for, and why: ``rim:<id>``, and ``device:<number>`` for a whole device.
    """

    rim_ids: tuple[str, ...] = ()
    chains: tuple[ValidatedChain, ...] = ()
    refused: Mapping[str, Unavailable] = field(default_factory=dict)


def needs_of(evidence: Sequence[Evidence | ReadEvidence], verifier: Verifier, at: VerificationTime) -> Needs:
    """What this evidence needs. A device whose chain leads to no anchor cannot be trusted, so it needs nothing."""
    chains: list[ValidatedChain] = []
    wanted: dict[str, None] = {}
    unwanted: dict[str, None] = {}
    refused: dict[str, Unavailable] = {}
    for number, device in enumerate(verifier.read(evidence)):
        name = f"device {number} ({device.evidence.architecture.value})"
        try:
            if isinstance(device.certificates, ParseError):
                raise device.certificates
            chain = memory_of(verifier).validate_device_chain(device.certificates, verifier.anchors, at.device)
            if chain.path_ok:
                chains.append(chain)
            else:
                refused[f"device:{number}"] = Unavailable(
                    ResultCode.CERT_CHAIN_VERIFICATION_FAILURE,
                    f"{name}: its chain leads to no pinned root",
                    "it cannot be verified, whatever is published",
                )
            (wanted if chain.path_ok else unwanted).update(dict.fromkeys(_rims_of(device)))
        except InputError as error:
            cannot = "" if error.code == "no-reference-values" else " cannot be read"
            refused[f"device:{number}"] = Unavailable(error.result_code, f"{name}{cannot}: {error}", error.hint)
    refused |= {
        f"rim:{rim_id}": Unavailable(
            ResultCode.CERT_CHAIN_VERIFICATION_FAILURE,
            f"{rim_id} was not asked for: the device's chain leads to no pinned root",
            "nothing is asked of the network on behalf of a device that cannot be trusted",
        )
        for rim_id in unwanted
        if rim_id not in wanted
    }
    return Needs(rim_ids=tuple(wanted), chains=tuple(chains), refused=refused)


def rim_ids_of(devices: Iterable[ReadEvidence]) -> tuple[str, ...]:
    """The ids of all RIMs that these devices need, each once. A report that cannot be read needs none."""
    found: dict[str, None] = {}
    for device in devices:
        # The appraisal says what is wrong with one that cannot be read.
        with suppress(InputError):
            found |= dict.fromkeys(_rims_of(device))
    return tuple(found)


def _rims_of(device: ReadEvidence) -> Iterable[str]:
    if isinstance(device.report, ParseError):
        raise device.report
    return rim_ids(device.report, device.evidence.architecture).values()


def certificates_to_ask(chains: Iterable[ValidatedChain], profile: ChainProfile) -> tuple[Question, ...]:
    """The certificates of these chains whose revocation the core looks for, each once, topmost first.

    Of a device chain all but the leaf, which NVIDIA's responder does not serve, and the root; of a RIM chain all but
    the root. Of a chain that leads to no anchor none: unverified certificates cause no request.
    """
    found: dict[bytes, Question] = {}
    first = 1 if profile is ChainProfile.DEVICE else 0
    for chain in chains:
        certificates = chain.certificates if chain.path_ok else ()
        responders: tuple[str, ...] = ()
        for index in range(len(certificates) - 2, first - 1, -1):
            certificate = certificates[index]
            responders = certificate.ocsp_urls or responders
            question = Question(certificate, certificates[index + 1], profile, responders)
            found.setdefault(certificate.sha256, question)
    return tuple(found.values())


def verified_rims(
    rims: Iterable[RimAnswer], verifier: Verifier, at: VerificationTime
) -> Iterator[tuple[RimAnswer, RimVerification]]:
    """The RIMs that can be read, verified; the appraisal says what is wrong with the others."""
    memory = memory_of(verifier)
    for rim in rims:
        with suppress(ParseError):
            yield rim, memory.verify_rim(memory.parse_rim(rim.content), verifier.anchors, at.rim)


# Base64 of the largest RIM, and space for the other members.
MAXIMUM_RIM_ANSWER: Final = MAXIMUM_RIM * 4 // 3 + 64 * 1024
RIM_SERVICE: Final = Service(
    name="RIM service",
    option="--rim-url",
    maximum=MAXIMUM_RIM_ANSWER,
    failed=ResultCode.RIM_INTERNAL_ERROR,
    unreachable=ResultCode.RIM_CONNECTION_ERROR,
    forbidden=ResultCode.RIM_FORBIDDEN,
    missing=ResultCode.RIM_NOT_FOUND,
)
OCSP_RESPONDER: Final = Service(
    name="OCSP responder",
    option="--ocsp-url",
    maximum=MAXIMUM_ANSWER,
    accept="application/ocsp-response",
    sends="application/ocsp-request",
    # NVIDIA has one code for "not reached" and "failed".
    failed=ResultCode.OCSP_SERVER_ERROR,
    forbidden=ResultCode.OCSP_FORBIDDEN,
    invalid=ResultCode.OCSP_INVALID_RESPONSE,
    # The DER tag of a SEQUENCE.
    begins=b"\x30",
)
NONCE_SIZE: Final = 32
_TRY_AGAIN: Final = frozenset({"tryLater", "internalError"})


def rim_url(base: str, rim_id: str) -> str:
    """The URL of one RIM. ``base`` may end in ``/v1/rim/``, as the base that NVIDIA's Python packages read does."""
    return f"{base.rstrip('/').removesuffix('/v1/rim').rstrip('/')}/v1/rim/{rim_id}"


def fetch_rim(client: HttpClient, base: str, rim_id: str, deadline: Deadline) -> bytes:
    """The XML of one RIM, as the service gives it, not verified.

    Raises:
        InputError: not a RIM id.
        CollateralError: 101 forbidden, 102 an unusable answer, 103 not reached, 104 no such RIM, 15 too many requests.
    """
    if not is_rim_id(rim_id):
        raise InputError(f"not a RIM id: {rim_id[:160]!r}", code="rim-id")
    url = rim_url(base, rim_id)
    try:
        body = client.exchange(RIM_SERVICE, url, deadline).content
    except CollateralError as error:
        if error.code != "not-found":
            raise
        raise RIM_SERVICE.error(
            f"there is no {rim_id}: {url}: HTTP status 404", code="not-found",
            hint="NVIDIA has not published a RIM for this version: run nvattest preflight before you change driver or "
            "VBIOS, and use versions that are published",
        ) from None  # fmt: skip
    with RIM_SERVICE.reading(url, body):
        found, content = read_rim_answer(body, "RIM service answer")
    if found != rim_id:
        raise RIM_SERVICE.unusable(url, f"asked for {rim_id}, the answer is {repr(found)[:160]}")
    return content


def read_rim_answer(data: bytes, source: str, *, file: bool = False) -> tuple[str, bytes]:
    """The id and the document of an answer of the service; ``file``: it was saved to a file.

    ParseError: not such an answer, or a document that does not have the digest beside it.
    """
    answer = load_json(
        data, source=source, maximum=MAXIMUM_RIM_ANSWER, result_code=ResultCode.RIM_INTERNAL_ERROR, file=file
    )
    if not isinstance(answer, dict):
        raise _malformed(source, f"expected a JSON object, found {kind_of(answer)}")
    rim_id, text, digest = (answer.get(key) for key in ("id", "rim", "sha256"))
    if not isinstance(rim_id, str) or not isinstance(text, str) or not isinstance(digest, str):
        raise _malformed(source, "'id', 'rim' and 'sha256' are not all texts")
    if str(answer.get("rim_format")).upper() == "CORIM":
        raise _malformed(source, f"{rim_id[:160]!r} is a CoRIM; this program reads RIMs that are SWID tags")
    try:
        # Some encoders break lines.
        return rim_id, decoded("".join(text.split()), digest, MAXIMUM_RIM)
    except binascii.Error:
        raise _malformed(source, "'rim' is not base64") from None
    except ValueError as error:
        raise _malformed(source, f"'rim': {error}") from None


def _malformed(source: str, message: str) -> ParseError:
    return ParseError(message, source=source, code="answer", result_code=ResultCode.RIM_INTERNAL_ERROR)


def ask_responder(
    client: HttpClient,
    url: str,
    question: Question,
    deadline: Deadline,
    hash: CertIdHash = CertIdHash.SHA256,  # noqa: A002
) -> tuple[bytes, bytes]:
    """Ask about one certificate; returns the answer as it came (``check_answer``) and the nonce of the request."""
    nonce = secrets.token_bytes(NONCE_SIZE)
    request = build_ocsp_request(question.certificate, question.issuer, nonce=nonce, hash=hash)
    return client.exchange(OCSP_RESPONDER, url, deadline, body=request).content, nonce


def check_answer(
    content: bytes, url: str, certificate: Certificate, parse: Callable[[bytes], OcspResponse] = parse_ocsp_response
) -> None:
    """Check that an answer is a successful one about this certificate's serial number; the core judges the rest.

    Raises:
        CollateralError: 201 no such answer, 202 the responder asks to try later, 203 it refuses.
    """
    of = certificate.label
    with OCSP_RESPONDER.reading(f"{url}: {of}", content):
        response = parse(content)
    if not response.successful:
        result_code = ResultCode.OCSP_INVALID_REQUEST
        hint = "try another --ocsp-cert-id-hash; the responder may not know this issuer"
        if response.responder_status in _TRY_AGAIN:
            result_code, hint = ResultCode.OCSP_SERVER_ERROR, "try again later, or use a bundle"
        said = f"{url}: {of}: the responder says {response.responder_status}"
        raise OCSP_RESPONDER.error(said, code="answer", result_code=result_code, hint=hint)
    if response.serial != certificate.serial:
        message = f"{of}: the answer is about serial {response.serial:x}, asked was {certificate.serial:x}"
        raise OCSP_RESPONDER.unusable(url, message)


_SOURCES: Final[Mapping[RevocationMode, frozenset[Source]]] = {
    RevocationMode.FRESH: frozenset({Source.LIVE}),
    RevocationMode.WITHIN_WINDOW: frozenset({Source.LIVE, Source.CACHE}),
    RevocationMode.BUNDLE: frozenset(Source),
}


class Store(Protocol):
    """Where RIMs and answers by CertID key are looked for before the network, and kept after it, as in ``DiskCache``.

    What it gives is judged like anything; only what was verified is stored.
    """

    folder: str

    def rims(self, rim_id: str) -> tuple[bytes, ...]: ...
    def answer(self, key: str) -> bytes | None: ...
    def store_rim(self, rim_id: str, content: bytes) -> bool: ...
    def store_answers(self, answers: dict[str, bytes]) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherOptions:
    """Where to ask and how.

    Args:
        rim_url, ocsp_url: base URLs; where ``ocsp_url`` is None each certificate's own responder (AIA) is asked.
        http: keys, roots, limits of a single exchange.
        timeout: seconds for everything together, retries included.
        workers: how many requests run at a time at most.
        revocation: the evidence policy's mode; FRESH asks the network though the cache or a bundle has an answer.
        cert_id_hash: the hash of OCSP requests; NVIDIA documents SHA-256 as the default.
        cache: where to look first and what to fill; None for none.
        renew: seconds: revocation answers at hand that end sooner are asked for anew, at the earliest after half of
            their window; None: the time that the gathering may take.
        arrived: called with the CertID key and the bytes of each revocation answer as it comes, in the thread that
            asked. Nothing about it is checked yet.
        offline: ask no service; what is neither at hand nor in the cache is unavailable.

    Raises:
        InputError: a URL, a time limit or a flag that cannot be used.
    """

    rim_url: str = RIM_URL
    ocsp_url: str | None = OCSP_URL
    http: HttpSettings = field(default_factory=HttpSettings)
    timeout: float = 60.0
    workers: int = WORKERS
    revocation: RevocationMode = RevocationMode.BUNDLE
    cert_id_hash: CertIdHash = CertIdHash.SHA256
    cache: Store | None = None
    renew: float | None = None
    arrived: Callable[[str, bytes], None] | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        require_type(self.offline, bool, "offline")
        check_seconds(self.timeout)
        check_url(self.rim_url, "--rim-url")
        if self.ocsp_url is not None:
            check_url(self.ocsp_url, "--ocsp-url")


def gather(
    evidence: Sequence[Evidence | ReadEvidence],
    options: GatherOptions,
    *,
    at: VerificationTime,
    verifier: Verifier,
    known: Collateral | None = None,
) -> Collateral:
    """All collateral for this evidence: ``known``, and what the cache and the network have beyond it.

    ``at`` is the instant at which the gathering begins: it says which answers at hand are still good. Those that end
    before the gathering may end (``options.timeout``) are asked for anew. Read the clock again for the appraisal: live
    answers are stamped meanwhile. What cannot be had raises nothing; it is in ``unavailable``.

    ``verifier`` keeps what is read and validated here for the appraisal. Give both calls the devices as it has read
    them (``Verifier.read``).

    Raises:
        InputError: options that cannot be used, such as a CA file without certificates.
    """
    return gather_needs(needs_of(evidence, verifier, at), options, at=at, known=known, verifier=verifier)


def gather_needs(
    needs: Needs,
    options: GatherOptions,
    *,
    at: VerificationTime,
    verifier: Verifier,
    known: Collateral | None = None,
    client: HttpClient | None = None,
) -> Collateral:
    """The same for needs that are known (``needs_of``). The certificates of the RIMs are asked about too.

    ``client`` is one that the caller keeps for several gatherings.
    """
    with nullcontext(client) if client is not None else HttpClient(options.http) as shared:
        known = known if known is not None else Collateral()
        gathering = _Gathering(options, at, verifier, shared, known)
        gathering.unavailable.update(needs.refused)
        gathering.wave(needs.rim_ids, certificates_to_ask(needs.chains, ChainProfile.DEVICE))
        rims = [gathering.rims[rim_id] for rim_id in needs.rim_ids if rim_id in gathering.rims]
        signers = (verification.chain for _, verification in verified_rims(rims, verifier, at))
        gathering.wave((), certificates_to_ask(signers, ChainProfile.RIM))
        return replace(known, rims=gathering.rims, ocsp=tuple(gathering.answers), unavailable=gathering.unavailable)


class _Gathering:
    def __init__(
        self, options: GatherOptions, at: VerificationTime, verifier: Verifier, client: HttpClient, known: Collateral
    ) -> None:
        self._options = options
        self._at = at
        self._memory = memory_of(verifier)
        self._anchors = verifier.anchors
        self._client = client
        self._deadline = Deadline(options.timeout)
        self.rims: dict[str, RimAnswer] = dict(known.rims)
        self._cache = options.cache
        self._given = Collateral(ocsp=known.ocsp)
        self.answers = list(known.ocsp)
        self.unavailable: dict[str, Unavailable] = dict(known.unavailable)

    def wave(self, rim_ids: Iterable[str], questions: Sequence[Question]) -> None:
        """Get these RIMs and answers: from what is at hand, from the cache, the rest from the network all at once."""
        missing = [rim_id for rim_id in rim_ids if not self._has_rim(rim_id)]
        open_questions = [question for question in questions if not self._has_answer(question)]
        if self._options.offline:
            for rim_id in missing:
                self._note_offline(f"rim:{rim_id}", ResultCode.RIM_NOT_FOUND, rim_id)
            for question in open_questions:
                self._note_offline(question.key, ResultCode.OCSP_SERVER_ERROR, "the revocation answer")
            return
        asked = [(question, url) for question in open_questions if (url := self._responder(question)) is not None]
        jobs: list[Callable[[], bytes | tuple[bytes, bytes]]] = [
            partial(fetch_rim, self._client, self._options.rim_url, rim_id, self._deadline) for rim_id in missing
        ]
        jobs += [partial(self._ask, question, url) for question, url in asked]
        results = run_all(jobs, self._deadline, workers=self._options.workers)
        for rim_id, got in zip(missing, results[: len(missing)], strict=True):
            self._take_rim(rim_id, got)
        good: dict[str, bytes] = {}
        for (question, url), got in zip(asked, results[len(missing) :], strict=True):
            if self._take_answer(question, url, got):
                good[self._cache_key(question)] = self.answers[-1].content
        if self._cache is not None:
            self._cache.store_answers(good)

    def _has_rim(self, rim_id: str) -> bool:
        if rim_id in self.rims or f"rim:{rim_id}" in self.unavailable:
            return True
        if self._cache is None:
            return False
        # A renewal asks for what has ended; otherwise the policy decides on signers that have.
        valid = self._options.renew is not None
        for content in self._cache.rims(rim_id):
            if self._is_worth_keeping(rim_id, content, valid=valid):
                where = self._cache.folder
                debug("cache", f"the RIM {rim_id} is in {where}")
                self.rims[rim_id] = RimAnswer(id=rim_id, content=content, source=Source.CACHE, origin=where)
                return True
        return False

    def _take_rim(self, rim_id: str, got: object) -> None:
        url = rim_url(self._options.rim_url, rim_id)
        if not isinstance(got, bytes):
            self._note(f"rim:{rim_id}", RIM_SERVICE.failure(url, got, self._deadline))
            return
        self.rims[rim_id] = RimAnswer(id=rim_id, content=got, source=Source.LIVE, origin=url)
        if self._cache is not None and self._is_worth_keeping(rim_id, got):
            self._cache.store_rim(rim_id, got)

    def _is_worth_keeping(self, rim_id: str, content: bytes, *, valid: bool = False) -> bool:
        """Whether it is signed under the RIM anchors, with ``valid`` by signers of now, and of the id's version."""
        try:
            document = self._memory.parse_rim(content)
        except ParseError:
            return False
        verification = self._memory.verify_rim(document, self._anchors, self._at.rim)
        if verification.verified is None or (valid and not verification.chain.in_validity):
            return False
        # Ids end in the version, that of a VBIOS in capitals without its dots.
        return _compact(rim_id).endswith("_" + _compact(document.version))

    def _has_answer(self, question: Question) -> bool:
        if question.key in self.unavailable or self._outlasts(question, self._settled(question, self._given)):
            return True
        kept = self._kept_answer(question)
        if kept is None:
            return False
        self.answers.append(kept)
        # A newer answer that the caller gave may speak against the certificate.
        return self._outlasts(question, self._settled(question, Collateral(ocsp=(*self._given.ocsp, kept))))

    def _outlasts(self, question: Question, settled: Revocation | None) -> bool:
        """Whether an answer at hand is still good when all others have come; an appraisal judges them together."""
        if settled is None or self._options.offline or settled.status is RevocationStatus.REVOKED:
            return settled is not None
        if (end := settled.next_update) is None:
            return True
        least = timedelta(seconds=self._options.timeout)
        if self._options.renew is not None and settled.this_update is not None:
            least = max(least, min(timedelta(seconds=self._options.renew), (end - settled.this_update) / 2))
        return end - question.instant(self._at) >= least

    def _take_answer(self, question: Question, url: str, got: object) -> bool:
        """Whether it is good and answers our nonce, so that it may be kept."""
        if isinstance(got, tuple):
            try:
                check_answer(got[0], url, question.certificate, self._memory.parse_answer)
            except CollateralError as error:
                got = error
        if not isinstance(got, tuple):
            what = f"{url}: {question.certificate.label}"
            self._note(question.key, OCSP_RESPONDER.failure(what, got, self._deadline))
            return False
        answer = OcspAnswer(content=got[0], nonce=got[1], source=Source.LIVE, origin=url)
        self.answers.append(answer)
        # Without nextUpdate an answer counts by its nonce alone, which the cache does not keep.
        settled = self._settled(question, Collateral(ocsp=(answer,)))
        return settled is not None and self._memory.parse_answer(answer.content).next_update is not None

    def _kept_answer(self, question: Question) -> OcspAnswer | None:
        if self._cache is None or Source.CACHE not in _SOURCES[self._options.revocation]:
            return None
        content = self._cache.answer(self._cache_key(question))
        if content is None:
            return None
        debug("cache", f"an answer about {question.certificate.label} is in {self._cache.folder}")
        answer = OcspAnswer(content=content, source=Source.CACHE, origin=self._cache.folder)
        return answer if self._settled(question, Collateral(ocsp=(answer,))) is not None else None

    def _settled(self, question: Question, answers: Collateral) -> Revocation | None:
        """What these answers say, if it makes a request needless; else None.

        That is a "good" from a source that the policy's mode accepts, or a revocation that the caller gave.
        """
        found = question.judged(answers, self._at, self._memory)
        if found.revocation.status is RevocationStatus.REVOKED:
            # No other answer can outweigh one that the caller gave. The cache keeps only what is good.
            return found.revocation if found.source in (Source.BUNDLE, Source.FILE) else None
        if found.revocation.status is not RevocationStatus.GOOD or found.source is None:
            return None
        if found.source is Source.LIVE:
            accepted = found.revocation.nonce is NonceOutcome.MATCH
        else:
            accepted = found.source in _SOURCES[self._options.revocation]
        return found.revocation if accepted else None

    def _responder(self, question: Question) -> str | None:
        if self._options.ocsp_url is not None:
            return self._options.ocsp_url
        for url in question.responders:
            with suppress(InputError):
                check_url(url, "AIA")
                return url
        self.unavailable[question.key] = Unavailable(
            ResultCode.OCSP_INVALID_REQUEST,
            f"neither {question.certificate.label} nor what is above it names an OCSP responder",
            "give one with --ocsp-url",
        )
        return None

    def _ask(self, question: Question, url: str) -> tuple[bytes, bytes]:
        content, nonce = ask_responder(self._client, url, question, self._deadline, self._options.cert_id_hash)
        if self._options.arrived is not None:
            self._options.arrived(self._cache_key(question), content)
        return content, nonce

    def _cache_key(self, question: Question) -> str:
        return cert_id_key(question.certificate, question.issuer, self._options.cert_id_hash)

    def _note(self, key: str, error: CollateralError) -> None:
        self.unavailable[key] = Unavailable(error.result_code, error.message, error.hint, error.passing)

    def _note_offline(self, key: str, code: ResultCode, what: str) -> None:
        hint = "give a bundle with --bundle, fill the cache while there is a network, or leave out --offline"
        message = f"{what} is not at hand, and --offline asks no service"
        self.unavailable[key] = Unavailable(code, message, hint, asked=False)


def _compact(text: str) -> str:
    return text.replace(".", "").upper()
