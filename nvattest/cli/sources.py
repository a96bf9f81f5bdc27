"""Services, collateral, policies and roots at the shell: the options, their frozen requests, and the values.

What reads the file of an option raises as ``read_file`` does.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from nvattest._registry import KDS_URL, OCSP_URL, PCS_URL, RIM_URL
from nvattest._text import clean, hex_bytes
from nvattest.cli.arguments import (
    ArgumentError,
    add_options,
    choice,
    existing_directory,
    existing_file,
    flag,
    from_environment,
    given,
    ignored,
    input_file,
    input_path,
    option,
    read,
    read_input,
    seconds,
    warns,
)
from nvattest.cli.output import say
from nvattest.errors import CollateralError, InputError, NvattestError
from nvattest.model import VerificationTime

if TYPE_CHECKING:
    from datetime import datetime

    from nvattest.appraisal.inputs import Collateral, EvidencePolicy, RevocationMode
    from nvattest.appraisal.memory import ReadEvidence
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.cache import DiskCache
    from nvattest.collateral.gather import GatherOptions
    from nvattest.collateral.http import HttpSettings
    from nvattest.pki.anchors import CpuAnchors, TrustAnchors
    from nvattest.policy.relying_party import RelyingPartyPolicy

HASHES = ("sha-1", "sha-256", "sha-384")
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


# --- options and requests ---------------------------------------------------------------------------------------------


class Access(NamedTuple):
    """What a service wants to see, and whom TLS trusts."""

    service_key: str
    tls_ca_cert: str | None = option(
        "PEM", "trust these roots for TLS besides the usual ones", existing_file, variable="NVAT_TLS_CA_CERT"
    )
    tls_ca_path: str | None = option(
        "DIR", "the same, a folder that c_rehash has prepared", existing_directory, variable="NVAT_TLS_CA_PATH"
    )

    def __repr__(self) -> str:
        # A key must not appear in a log.
        return "Access(...)"

    def http(self, *base_urls: str) -> HttpSettings:
        """Settings with which the services of ``base_urls``, and no others, see the key.

        Raises:
            InputError: a key that cannot stand in a header.
        """
        from nvattest.collateral.http import HttpSettings

        return HttpSettings(key_hosts=base_urls, **self._asdict())

    def roots(self, url: str | None) -> str | None:
        """What vouches for the keys fetched from ``url``, in words; None where that was not over TLS."""
        from nvattest.collateral.http import usual_roots

        if url is None or not url.startswith("https://"):
            return None
        named = [("--tls-ca-cert", self.tls_ca_cert), ("--tls-ca-path", self.tls_ca_path)]
        return " and ".join([usual_roots()[0] or "the usual roots", *(name for name, path in named if path)])


def add_access_options(group: argparse._ArgumentGroup) -> None:
    """The options of ``Access``."""
    group.add_argument(
        "--service-key", default=from_environment("NV_ATTESTATION_SERVICE_KEY", "", _service_key), metavar="KEY",
        help="sent to the configured hosts over https (better in NV_ATTESTATION_SERVICE_KEY than here)",
    )  # fmt: skip
    add_options(group, Access)


def _service_key(text: str) -> str:
    from nvattest.collateral.http import is_service_key

    if not is_service_key(text):
        # Not the value: a warning must not publish a key.
        raise argparse.ArgumentTypeError("it has characters that a header cannot carry")
    return text


class GuestSource(NamedTuple):
    """The quote of a guest whose CPU's collateral is wanted, where the makers of CPUs are asked, and their roots."""

    tee_quote: str | None = option(
        "FILE", "the quote of a guest (of --bind-tee, or a raw one), for its CPU's collateral; where no device is "
        "named, for that alone", input_file,
    )  # fmt: skip
    cpu_anchors: str | None = option(
        "PEM", "for tests: judge CPU collateral by these roots, not by the makers'", input_file
    )
    pcs_url: str = option(
        "URL", "Intel's certification service, or a PCCS", default=PCS_URL, variable="NVATTEST_PCS_URL"
    )
    kds_url: str = option("URL", "AMD's key distribution service", default=KDS_URL, variable="NVATTEST_KDS_URL")


class Services(NamedTuple):
    """How RIMs and revocation answers are asked for, and the cache that is asked first.

    ``named`` are the options on the command line, as against defaults and variables; ``warn`` lets warnings through.
    """

    access: Access
    named: Sequence[str]
    warn: bool
    rim_url: str = option("URL", "RIM service", default=RIM_URL, variable="NVAT_RIM_SERVICE_BASE_URL")
    ocsp_url: str = option(
        "URL", "OCSP service; aia for the responder that each certificate names", default=OCSP_URL,
        variable="NVAT_OCSP_BASE_URL",
    )  # fmt: skip
    ocsp_cert_id_hash: str = option(
        "HASH", "sha-1, sha-256 (the default) or sha-384", choice(*HASHES), "sha-256",
        variable="NVAT_OCSP_CERT_ID_HASH_ALGORITHM",
    )  # fmt: skip
    timeout: float = option(
        "SECONDS", "limit for everything over the network together, retries included (60)", seconds, 60.0
    )
    cache_dir: str | None = option(
        "DIR", "keeps RIMs and revocation answers, ~/.cache/nvattest by default", variable="NVATTEST_CACHE_DIR"
    )
    no_cache: bool = flag("keep nothing and use nothing that was kept")
    offline: bool = flag("make no request: the cache is all there is")


def add_service_options(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup | None = None) -> None:
    """The options of ``Services``: the URLs in this group, how the network is used in its own."""
    add_options(group or parser.add_argument_group("services"), Services, "rim_url", "ocsp_url")
    group = parser.add_argument_group("network and cache")
    add_access_options(group)
    add_options(group, Services, "ocsp_cert_id_hash", "timeout", "cache_dir", "no_cache", "offline")


def services(options: argparse.Namespace) -> Services:
    """The services of ``add_service_options``."""
    if options.no_cache and given(options, "cache_dir"):
        raise ArgumentError("--cache-dir: cannot go with --no-cache, which uses none")
    named = given(options, "rim_url", "ocsp_url", "cache_dir")
    return read(Services, options, access=read(Access, options), named=named, warn=warns(options))


_SERVICE_OPTIONS = ("rim_url", "ocsp_url", "ocsp_cert_id_hash", "timeout", "service_key", "tls_ca_cert", "tls_ca_path")


def add_bundle_option(group: argparse._ActionsContainer, text: str, *, required: bool = False) -> None:
    """``--bundle``, a file or a folder; several together are one bundle."""
    group.add_argument(
        "--bundle", action="append", default=[], required=required, type=input_path, metavar="FILE",
        help=f"{text}; may be repeated",
    )  # fmt: skip


class CollateralSource(NamedTuple):
    """Where RIMs and revocation answers come from: bundles alone, or the services, with RIMs of a folder first."""

    bundles: tuple[str, ...]
    rim_dir: str | None
    services: Services


def add_collateral_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``CollateralSource``."""
    group = parser.add_argument_group("collateral")
    add_bundle_option(group, "RIMs and revocation answers from this file or folder, and nothing from the network")
    group.add_argument(
        "--rim-store", type=choice("remote", "dir"), default="remote", metavar="STORE",
        help="remote (the default), or dir (the default with --rim-dir)",
    )  # fmt: skip
    group.add_argument("--rim-dir", type=existing_directory, default=".", metavar="DIR", help="folder of RIMs")
    add_service_options(parser, group)


def collateral_source(options: argparse.Namespace) -> CollateralSource:
    """The source that the options name. A folder named without a store is the store, as with an evidence file."""
    folder = options.rim_store == "dir" or given(options, "rim_dir", "rim_store") == ["--rim-dir"]
    if options.bundle:
        if folder:
            raise ArgumentError("--rim-dir: cannot go with --bundle, which has the RIMs")
        ignored(options, (*_SERVICE_OPTIONS, "cache_dir"), "--bundle has all collateral, and no service is asked")
    else:
        if not folder:
            ignored(options, ["rim_dir"], "the store is remote, which is named too")
        if options.offline:
            ignored(options, _SERVICE_OPTIONS, "--offline asks no service")
    return CollateralSource(tuple(options.bundle), options.rim_dir if folder else None, services(options))


class Judgement(NamedTuple):
    """When validity is judged (None: now), and under whose roots (None: NVIDIA's)."""

    at: VerificationTime | None
    trust_anchors: str | None


def add_judgement_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The options of ``Judgement``; returns their group."""
    group = parser.add_argument_group("verification")
    group.add_argument(
        "--at", type=VerificationTime.parse, metavar="TIME",
        help="judge validity at this time, or device=TIME,rim=TIME; now by default",
    )  # fmt: skip
    group.add_argument(
        "--trust-anchors", type=input_file, default=os.environ.get("NVATTEST_TRUST_ANCHORS") or None, metavar="PEM",
        help="trust these roots instead of NVIDIA's; every output says so (NVATTEST_TRUST_ANCHORS)",
    )  # fmt: skip
    return group


class Demands(NamedTuple):
    """What the caller demands of the evidence and of the claims, when, and under whose roots (as ``Judgement``)."""

    at: VerificationTime | None
    trust_anchors: str | None
    policy: str | None = option("FILE", "evidence policy, TOML or JSON", input_file)
    relying_party_policy: str | None = option("FILE", "what you demand of the claims: Rego or JSON", input_file)
    cached_revocation: bool = flag(
        "with a relying party's policy too, take revocation answers from the cache; by default they are asked for "
        "anew, since policies may demand x-nvidia-cert-ocsp-nonce-matches"
    )
    policy_overrides_appraisal: bool = flag(
        "the relying party's policy alone decides on values, validity and revocation; the token says so"
    )
    claims_version: str = option(
        "VERSION", "version of the GPU claims: 2.0, 3.0 or 4.0 (the default); switches have 3.0 beside 4.0",
        choice("2.0", "3.0", "4.0"), "4.0",
    )  # fmt: skip


def challenge(text: str) -> bytes:
    """A type for argparse: a challenge, in hexadecimal."""
    value = hex_bytes(text)
    if not value:
        raise argparse.ArgumentTypeError(f"not a hexadecimal challenge: {text[:80]!r}")
    return value


# --- values -----------------------------------------------------------------------------------------------------------


def cpu_anchors(path: str | None) -> CpuAnchors:
    """The roots of CPUs in a file, or the makers' pinned ones."""
    from nvattest.pki.anchors import CPU_ANCHORS, cpu_anchors_from_pem

    if path is None:
        return CPU_ANCHORS
    return read_file("--cpu-anchors", path, _MAXIMUM_ANCHORS, cpu_anchors_from_pem, "certificates")


def cpu_collateral(
    source: GuestSource, services: Services, known: Collateral, anchors: CpuAnchors, *, at: datetime, renew: float
) -> Collateral:
    """``known``, with the collateral of the quote's CPU, and with what ends within ``renew`` seconds asked for anew.

    What cannot be had is in ``unavailable`` under ``cpu``.
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


def trust_anchors(path: str | None) -> TrustAnchors:
    """The roots in a file, or NVIDIA's pinned ones."""
    from nvattest.pki.anchors import NVIDIA_ANCHORS, trust_anchors_from_pem

    if path is None:
        return NVIDIA_ANCHORS
    return read_file("--trust-anchors", path, _MAXIMUM_ANCHORS, trust_anchors_from_pem, "certificates")


def evidence_policy(path: str | None) -> EvidencePolicy | None:
    """The evidence policy in a file; None for the strict one."""
    if path is None:
        return None
    from nvattest.policy.evidence_policy import load_evidence_policy

    load = partial(load_evidence_policy, source=path)
    return read_file("--policy", path, _MAXIMUM_POLICY, load, "evidence-policy")


def relying_party_policy(demands: Demands) -> RelyingPartyPolicy | None:
    """What the relying party demands of the claims."""
    path = demands.relying_party_policy
    if path is None:
        if demands.policy_overrides_appraisal:
            raise InputError("--policy-overrides-appraisal needs a --relying-party-policy", code="policy")
        return None
    return read_policy(path)


def read_policy(path: str) -> RelyingPartyPolicy:
    """The relying party's policy in a file."""
    from nvattest.policy.relying_party import load_policy

    load = partial(load_policy, name=os.path.basename(path))
    return read_file("--relying-party-policy", path, _MAXIMUM_POLICY, load, "policy")


def read_bundle(path: str, option: str = "--bundle") -> Collateral:
    """The collateral in a bundle file."""
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
    """
    if len(source.bundles) == 1 and not os.path.isdir(source.bundles[0]):
        return read_bundle(source.bundles[0])
    from nvattest import session
    from nvattest.appraisal.inputs import RevocationMode
    from nvattest.appraisal.verifier import memory_of
    from nvattest.collateral.bundle import Bundles
    from nvattest.collateral.folders import rims_by_id
    from nvattest.collateral.gather import rim_ids_of

    memory, rim_ids = memory_of(verifier), rim_ids_of(devices)
    if source.bundles:
        with naming_bundles(source.bundles):
            bundles = Bundles(source.bundles)
        return bundles.collateral(devices, rim_ids, memory)
    mode = verifier.policy.revocation
    if demands.relying_party_policy is not None and not (source.services.offline or demands.cached_revocation):
        # The policy may demand answers made for this request; a kept one echoes no nonce.
        mode = RevocationMode.FRESH
    known = rims_by_id(source.rim_dir, rim_ids, parse=memory.parse_rim) if source.rim_dir is not None else None
    collateral = session.fetch_collateral(
        devices, options=gather_options(source.services, mode), known=known, at=demands.at, verifier=verifier
    )
    warn_of_services_not_asked(source.services, collateral)
    return collateral


def gather_options(services: Services, revocation: RevocationMode) -> GatherOptions:
    """What ``gather`` needs to know."""
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
    try:
        return DiskCache(folder) if folder is not None else None
    except InputError as error:
        if "--cache-dir" in services.named:
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
        ("--rim-url", services.rim_url, "RIMs", tuple(collateral.rims.values())),
        ("--ocsp-url", services.ocsp_url, "revocation answers", collateral.ocsp),
    ):
        kept = [answer.origin for answer in answers if answer.source is Source.CACHE]
        if name in services.named and kept and not any(answer.source is Source.LIVE for answer in answers):
            cache = clean(kept[0], 256)
            say(f"warning: {url} was not asked: all {what} are in the cache {cache}; --no-cache asks", error=True)
