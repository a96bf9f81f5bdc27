"""From requests to values: evidence, collateral, policies and roots, from files, drivers and services."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from nvattest._text import clean
from nvattest.cli.arguments import read_input
from nvattest.cli.output import say
from nvattest.errors import CollateralError, InputError, NvattestError, ResultCode
from nvattest.evidence import MAXIMUM_TEXT, load_evidence
from nvattest.model import DeviceKind, Nonce

if TYPE_CHECKING:
    from datetime import datetime

    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.memory import ReadEvidence
    from nvattest.appraisal.policy import EvidencePolicy, RevocationMode
    from nvattest.appraisal.verifier import Verifier
    from nvattest.cli.requests import CollateralSource, Demands, EvidenceSource, GuestSource, Services
    from nvattest.collateral.cache import DiskCache
    from nvattest.collateral.gather import GatherOptions
    from nvattest.evidence import Evidence
    from nvattest.pki.anchors import CpuAnchors, TrustAnchors
    from nvattest.policy.relying_party import RelyingPartyPolicy

_MAXIMUM_ANCHORS = 64 * 1024
_MAXIMUM_POLICY = 1024 * 1024
_MAXIMUM_KNOWN = 8 * 1024 * 1024


T = TypeVar("T")


def read_file(option: str, path: str, maximum: int, parse: Callable[[bytes], T], *wanted: str) -> T:
    """What ``parse`` makes of the file of an option. ``wanted`` are the kinds of file (``KINDS``) that belong there.

    Raises:
        InputError, PolicyError, TokenError: as ``parse``; the message names option and file, and what kind of file it
            is where that is another one.
    """
    try:
        data = read_input(path, maximum)
    except InputError as error:
        # A file of another kind may be larger than one that belongs here.
        known = os.path.isfile(path) and maximum < os.path.getsize(path) <= _MAXIMUM_KNOWN
        whole = read_input(path, _MAXIMUM_KNOWN) if known else b""
        raise wrong_kind(error, whole, option, path, *wanted) or named(error, option) from None
    try:
        return parse(data)
    except NvattestError as error:
        raise wrong_kind(error, data, option, path, *wanted) or named(error, option, path) from None


def named(error: NvattestError, option: str, path: str = "") -> NvattestError:
    """The error with option and file in its message."""
    where = " ".join(filter(None, (option, "" if path in error.message else path)))
    error.message = f"{where}: {error.message}" if where else error.message
    error.args = (error.message,)
    return error


@contextmanager
def naming(option: str) -> Iterator[None]:
    """An error within has the option in its message."""
    try:
        yield
    except InputError as error:
        raise named(error, option) from None


def wrong_kind(error: NvattestError, data: bytes, option: str, path: str, *wanted: str) -> InputError | None:
    """The error for a file of another kind than the option wants, with the code of ``error``; None for other files."""
    from nvattest.report.subjects import KINDS, kind_of_file

    found = kind_of_file(data) if wanted else None
    if found is None or found in wanted:
        return None
    kind = KINDS[found]
    name = "standard input" if path == "-" else path
    return InputError(
        f"{option or 'FILE'}: {name} is {kind.words}, expected {KINDS[wanted[0]].words}",
        code=error.code,
        result_code=error.result_code,
        hint=f"it is for: {kind.use.replace('FILE', name)}",
    )


def collect(source: EvidenceSource, nonce: Nonce | None) -> tuple[Evidence, ...]:
    """The evidence of the devices asked for.

    Raises:
        InputError: a file cannot be read, or holds devices of the other kind.
        CollectionError: the driver did not give evidence.
    """
    if len(source.kinds) == 2 and not source.live and len(set(source.files.values())) == 1:
        # The file that collect-evidence --device all writes.
        return _both_from_file(source.files[DeviceKind.GPU], "--gpu-evidence-file")
    found: list[Evidence] = []
    for kind in source.kinds:
        if kind in source.files:
            found += _from_file(source.files[kind], kind)
        elif kind is DeviceKind.GPU and source.corelib:
            raise InputError(
                "corelib is not supported: it reads Blackwell GPUs outside confidential computing",
                code="corelib",
                result_code=ResultCode.CORELIB_INIT_FAILED,
                hint="collect with NVIDIA's nvattest and give the result with --gpu-evidence-source file",
            )
        else:
            found += _from_driver(kind, nonce, source)
    return tuple(found)


def requester_nonce(source: EvidenceSource) -> Nonce | None:
    """The nonce of ``--nonce``; without one a new random nonce, where a live device will be asked; else None.

    A nonce that is read from the recording itself would prove nothing.

    Raises:
        InputError: not 64 hexadecimal digits.
    """
    if source.nonce:
        with naming("--nonce"):
            return Nonce.from_hex(source.nonce)
    return Nonce(os.urandom(32)) if source.live else None


def nonce_and_evidence(source: EvidenceSource) -> tuple[Nonce | None, tuple[Evidence, ...]]:
    """Nonce and evidence; as in NVIDIA's program a bad evidence file is reported before a bad nonce.

    Raises:
        InputError, CollectionError: as ``requester_nonce`` and ``collect``.
    """
    try:
        nonce = requester_nonce(source)
    except InputError:
        if not source.live:
            collect(source, None)
        raise
    return nonce, collect(source, nonce)


def _from_driver(kind: DeviceKind, nonce: Nonce | None, source: EvidenceSource) -> tuple[Evidence, ...]:
    from nvattest import session

    if nonce is None:
        raise InputError("a live device needs a nonce", code="nonce")
    return session.collect(nonce, kinds=(kind,), timeout=source.timeout, allow_devtools=source.allow_devtools)


def read_evidence(path: str, option: str = "--gpu-evidence-file") -> tuple[Evidence, ...]:
    """The evidence in a file, of devices of any kind.

    Raises:
        InputError: a file that cannot be used.
    """
    return read_file(option, path, MAXIMUM_TEXT, load_evidence, "evidence")


def _both_from_file(path: str, option: str) -> tuple[Evidence, ...]:
    """GPUs, then switches: the order of two files."""
    items = read_evidence(path, option)
    found: list[Evidence] = []
    for kind in (DeviceKind.GPU, DeviceKind.NVSWITCH):
        of_kind = [item for item in items if item.kind is kind]
        if not of_kind:
            raise InputError(
                f"{path}: there is no {kind.value} in it, and --device all asks for both kinds",
                code="device-kind",
                hint="collect with --device all, or leave out --device and the other option",
            )
        found += of_kind
    return tuple(found)


def _from_file(path: str, kind: DeviceKind) -> tuple[Evidence, ...]:
    items = read_evidence(path, f"--{kind.value}-evidence-file")
    for index, item in enumerate(items):
        if item.kind is not kind:
            raise InputError(
                f"{path}: item {index} is of {item.architecture.value}, which is no {kind.value}",
                code="device-kind",
                hint="give GPUs with --gpu-evidence-file and switches with --nvswitch-evidence-file; a file that holds "
                "both is named in both, with --device all",
            )
    return items


# --- the CPU of a guest -----------------------------------------------------------------------------------------------


def cpu_anchors(path: str | None) -> CpuAnchors:
    """The roots of CPUs in a file, or the makers' pinned ones.

    Raises:
        InputError: the file holds no usable root.
    """
    from nvattest.pki.anchors import CPU_ANCHORS, cpu_anchors_from_pem

    if path is None:
        return CPU_ANCHORS
    return read_file("--cpu-anchors", path, _MAXIMUM_ANCHORS, cpu_anchors_from_pem, "certificates")


def cpu_collateral(
    source: GuestSource, services: Services, known: Collateral, anchors: CpuAnchors, *, at: datetime, renew: float
) -> Collateral:
    """``known``, with the collateral of the quote's CPU, and with what ends within ``renew`` seconds asked for anew.

    What cannot be had is in ``unavailable`` under ``cpu``.

    Raises:
        InputError: a quote, a URL or a cache that cannot be used.
    """
    from nvattest.appraisal.inputs import Unavailable
    from nvattest.collateral.cpu import CpuOptions, choose, fetch_cpu, renew_cpu, wanted_of
    from nvattest.tee.quote import MAXIMUM_FILE

    options = CpuOptions(
        pcs_url=source.pcs_url,
        kds_url=source.kds_url,
        http=services.access._replace(service_key="").http(),
        timeout=services.timeout,
        cache=_cache(services),
        offline=services.offline,
    )
    answers, unavailable = list(known.cpu), dict(known.unavailable)
    quote = read_input(source.tee_quote, MAXIMUM_FILE) if source.tee_quote is not None else None
    try:
        for index, answer in enumerate(known.cpu):
            answers[index] = renew_cpu(answer, options, at=at, within=timedelta(seconds=renew), anchors=anchors)
        if quote is not None and choose(answers, quote) is None:
            answers.append(fetch_cpu(wanted_of(quote), options, at=at, anchors=anchors))
    except CollateralError as error:
        unavailable["cpu"] = Unavailable(code=error.result_code, message=error.message, hint=error.hint)
    return replace(known, cpu=tuple(answers), unavailable=unavailable)


# --- what evidence is judged with -------------------------------------------------------------------------------------


def trust_anchors(path: str | None) -> TrustAnchors:
    """The roots in a file, or NVIDIA's pinned ones.

    Raises:
        InputError: the file holds no usable root.
    """
    from nvattest.pki.anchors import NVIDIA_ANCHORS, trust_anchors_from_pem

    if path is None:
        return NVIDIA_ANCHORS
    return read_file("--trust-anchors", path, _MAXIMUM_ANCHORS, trust_anchors_from_pem, "certificates")


def evidence_policy(path: str | None) -> EvidencePolicy | None:
    """The evidence policy in a file; None for the strict one.

    Raises:
        InputError, PolicyError: it cannot be used.
    """
    if path is None:
        return None
    from nvattest.policy.evidence_policy import load_evidence_policy

    load = partial(load_evidence_policy, source=path)
    return read_file("--policy", path, _MAXIMUM_POLICY, load, "evidence-policy")


def relying_party_policy(demands: Demands) -> RelyingPartyPolicy | None:
    """What the relying party demands of the claims.

    Raises:
        InputError, PolicyError: it cannot be used.
    """
    path = demands.relying_party_policy
    if path is None:
        if demands.policy_overrides_appraisal:
            raise InputError("--policy-overrides-appraisal needs a --relying-party-policy", code="policy")
        return None
    return read_policy(path)


def read_policy(path: str) -> RelyingPartyPolicy:
    """The relying party's policy in a file.

    Raises:
        InputError, PolicyError: it cannot be used.
    """
    from nvattest.policy.relying_party import load_policy

    load = partial(load_policy, name=os.path.basename(path))
    return read_file("--relying-party-policy", path, _MAXIMUM_POLICY, load, "policy")


# --- collateral -------------------------------------------------------------------------------------------------------


def read_bundle(path: str, option: str = "--bundle") -> Collateral:
    """The collateral in a bundle file.

    Raises:
        InputError: the file cannot be used.
    """
    from nvattest.collateral.bundle import MAXIMUM_BUNDLE, load_bundle

    return read_file(option, path, MAXIMUM_BUNDLE, partial(load_bundle, origin=path), "bundle")


@contextmanager
def naming_bundles(paths: Sequence[str]) -> Iterator[None]:
    """Where several bundles cannot be opened: the error of the file that is to blame, with option and file."""
    try:
        yield
    except NvattestError:
        for path in paths:
            if not os.path.isdir(path):
                read_bundle(path)
        raise


def fetch_collateral(
    source: CollateralSource, devices: tuple[ReadEvidence, ...], verifier: Verifier, demands: Demands
) -> Collateral:
    """RIMs and revocation answers for these devices; a bundle keeps the network out.

    ``verifier`` has read them and appraises them later: its policy says how fresh revocation has to be.
    Read the clock for the appraisal afterwards: live answers are stamped while this runs.

    Raises:
        InputError: a bundle, folder, cache or URL that cannot be used.
    """
    if len(source.bundles) == 1 and not os.path.isdir(source.bundles[0]):
        return read_bundle(source.bundles[0])
    from nvattest.appraisal.verifier import memory_of

    if source.bundles:
        from nvattest.collateral.bundle import Bundles
        from nvattest.collateral.gather import rim_ids_of

        with naming_bundles(source.bundles):
            bundles = Bundles(source.bundles)
        return bundles.collateral(devices, rim_ids_of(devices), memory_of(verifier))
    from nvattest import session
    from nvattest.appraisal.policy import RevocationMode

    mode = verifier.policy.revocation
    if demands.relying_party_policy is not None and not (source.services.offline or demands.cached_revocation):
        # The policy may demand answers made for this request; a kept one echoes no nonce.
        mode = RevocationMode.FRESH
    known = None
    if source.rim_dir is not None:
        from nvattest.collateral.folders import rims_by_id
        from nvattest.collateral.gather import rim_ids_of

        known = rims_by_id(source.rim_dir, rim_ids_of(devices), parse=memory_of(verifier).parse_rim)
    collateral = session.fetch_collateral(
        devices, options=gather_options(source.services, mode), known=known, at=demands.at, verifier=verifier
    )
    warn_of_services_not_asked(source.services, collateral)
    return collateral


def gather_options(services: Services, revocation: RevocationMode) -> GatherOptions:
    """What ``gather`` needs to know.

    Raises:
        InputError: a URL, key, time limit or cache folder that cannot be used.
    """
    from nvattest.collateral.gather import GatherOptions
    from nvattest.pki.ocsp import CertIdHash

    ocsp_url = None if services.ocsp_url == "aia" else services.ocsp_url
    return GatherOptions(
        rim_url=services.rim_url,
        ocsp_url=ocsp_url,
        http=services.access.http(services.rim_url, *([] if ocsp_url is None else [ocsp_url])),
        timeout=services.timeout,
        revocation=revocation,
        cert_id_hash=CertIdHash(services.ocsp_cert_id_hash.replace("-", "")),
        cache=_cache(services),
        offline=services.offline,
    )


def _cache(services: Services) -> DiskCache | None:
    from nvattest.collateral.cache import DiskCache, default_cache_folder

    if services.no_cache:
        return None
    folder = default_cache_folder() if services.cache_dir is None else os.path.abspath(services.cache_dir)
    if folder is None:
        return None
    try:
        return DiskCache(folder)
    except InputError as error:
        if "cache_dir" in services.named:
            raise
        # The command does not name this folder: read-only homes and the like must not stop a verification.
        if services.warn:
            say(f"warning: {error}; going on without a cache", error=True)
        return None


def warn_of_services_not_asked(services: Services, collateral: Collateral) -> None:
    """Warn of a service named on the command line that was not asked because the cache had everything."""
    from nvattest.appraisal.inputs import Source

    if services.offline or not services.warn:
        return
    for name, url, what, answers in (
        ("rim_url", services.rim_url, "RIMs", tuple(collateral.rims.values())),
        ("ocsp_url", services.ocsp_url, "revocation answers", collateral.ocsp),
    ):
        kept = [answer.origin for answer in answers if answer.source is Source.CACHE]
        if name in services.named and kept and not any(answer.source is Source.LIVE for answer in answers):
            cache = clean(kept[0], 256)
            say(f"warning: {url} was not asked: all {what} are in the cache {cache}; --no-cache asks", error=True)
