"""Options for everything that goes over the network or into the cache, and the objects that they lead to."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from nvattest._registry import NRAS_URL, OCSP_URL, RIM_URL
from nvattest._text import clean
from nvattest.cli.arguments import choice, existing_directory, existing_file, from_environment, seconds
from nvattest.cli.output import say
from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.policy import RevocationMode
    from nvattest.collateral.cache import DiskCache
    from nvattest.collateral.nras import RemoteAnswer
    from nvattest.collateral.settings import GatherOptions, HttpSettings
    from nvattest.evidence import Evidence
    from nvattest.model import Nonce

HASHES = ("sha-1", "sha-256", "sha-384")


def add_url_options(group: argparse._ArgumentGroup) -> None:
    """The URLs of the RIM service and of the OCSP responder."""
    group.add_argument(
        "--rim-url", default=from_environment("NVAT_RIM_SERVICE_BASE_URL", RIM_URL), metavar="URL",
        help="RIM service (NVAT_RIM_SERVICE_BASE_URL)",
    )  # fmt: skip
    group.add_argument(
        "--ocsp-url", default=from_environment("NVAT_OCSP_BASE_URL", OCSP_URL), metavar="URL",
        help="OCSP service (NVAT_OCSP_BASE_URL); aia for the responder that each certificate names",
    )  # fmt: skip


def add_access_options(group: argparse._ArgumentGroup) -> None:
    """What a service may want to see, and whom TLS trusts."""
    group.add_argument(
        "--service-key", default=from_environment("NV_ATTESTATION_SERVICE_KEY", "", _service_key), metavar="KEY",
        help="sent to the configured hosts over https (better in NV_ATTESTATION_SERVICE_KEY than here)",
    )  # fmt: skip
    add_tls_options(group)


def _service_key(text: str) -> str:
    from nvattest.collateral.settings import is_service_key

    if not is_service_key(text):
        # Not the value: a warning must not publish a key.
        raise argparse.ArgumentTypeError("it has characters that a header cannot carry")
    return text


def add_tls_options(group: argparse._ArgumentGroup, *, checked: bool = True) -> None:
    """Whom TLS trusts; not ``checked``: paths that do not exist are for the command to report."""
    file, folder = (existing_file, existing_directory) if checked else (str, str)
    group.add_argument(
        "--tls-ca-cert", type=file, default=from_environment("NVAT_TLS_CA_CERT", "", file) or None, metavar="PEM",
        help="trust these roots for TLS besides the usual ones (NVAT_TLS_CA_CERT)",
    )  # fmt: skip
    group.add_argument(
        "--tls-ca-path", type=folder, default=from_environment("NVAT_TLS_CA_PATH", "", folder) or None,
        metavar="DIR", help="the same, a folder that c_rehash has prepared (NVAT_TLS_CA_PATH)",
    )  # fmt: skip


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """How the network is used, and the cache before it."""
    group = parser.add_argument_group("network and cache")
    add_access_options(group)
    group.add_argument(
        "--ocsp-cert-id-hash", type=choice(*HASHES),
        default=from_environment("NVAT_OCSP_CERT_ID_HASH_ALGORITHM", "sha-256", choice(*HASHES)), metavar="HASH",
        help="sha-1, sha-256 (the default) or sha-384 (NVAT_OCSP_CERT_ID_HASH_ALGORITHM)",
    )  # fmt: skip
    group.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="SECONDS",
        help="limit for everything over the network together, retries included (60)",
    )  # fmt: skip
    group.add_argument(
        "--cache-dir", default=from_environment("NVATTEST_CACHE_DIR", "") or None, metavar="DIR",
        help="where RIMs and revocation answers are kept (NVATTEST_CACHE_DIR, else ~/.cache/nvattest)",
    )  # fmt: skip
    group.add_argument("--no-cache", action="store_true", help="keep nothing and use nothing that was kept")
    group.add_argument("--offline", action="store_true", help="ask nobody: the cache is all there is")


def add_remote_options(parser: argparse.ArgumentParser) -> None:
    """Who verifies."""
    group = parser.add_argument_group("verifier")
    group.add_argument(
        "--verifier", type=choice("local", "remote"), default="local", metavar="WHERE",
        help="local (the default), or remote: NVIDIA's attestation service verifies, its signed answer is checked here",
    )  # fmt: skip
    group.add_argument(
        "--nras-url", default=from_environment("NVAT_NRAS_BASE_URL", NRAS_URL), metavar="URL",
        help="NVIDIA's remote attestation service (NVAT_NRAS_BASE_URL); every output names another one",
    )  # fmt: skip
    group.add_argument(
        "--refuse-weakened", action="store_true", help="refuse the answer of another remote service than NVIDIA's own"
    )
    group.add_argument(
        "--accept-simulated",
        action="store_true",
        help="for tests: accept a remote service's answer about simulated devices",
    )


def http_settings(options: argparse.Namespace, *base_urls: str) -> HttpSettings:
    """Keys and roots; the key is for these URLs.

    Raises:
        InputError: a key that cannot stand in a header.
    """
    from nvattest.collateral.settings import HttpSettings

    return HttpSettings(
        service_key=options.service_key,
        key_hosts=base_urls,
        tls_ca_cert=options.tls_ca_cert,
        tls_ca_path=options.tls_ca_path,
    )


def gather_options(options: argparse.Namespace, revocation: RevocationMode) -> GatherOptions:
    """What ``gather`` needs to know.

    Raises:
        InputError: a URL, key, time limit or cache folder that cannot be used.
    """
    from nvattest.collateral.settings import GatherOptions
    from nvattest.pki.ocsp import CertIdHash

    ocsp_url = None if options.ocsp_url == "aia" else options.ocsp_url
    urls = [options.rim_url] if ocsp_url is None else [options.rim_url, ocsp_url]
    return GatherOptions(
        rim_url=options.rim_url,
        ocsp_url=ocsp_url,
        http=http_settings(options, *urls),
        timeout=options.timeout,
        revocation=revocation,
        cert_id_hash=CertIdHash(options.ocsp_cert_id_hash.replace("-", "")),
        cache=_cache(options),
        offline=options.offline,
    )


def say_what_was_not_asked(options: argparse.Namespace, collateral: Collateral) -> None:
    """Warn of a service named on the command line that was not asked, since the cache had everything it could give."""
    from nvattest.appraisal.inputs import Source

    given: set[str] = getattr(options, "_given", set())
    if options.offline or options.log_level in ("error", "off"):
        return
    for name, answers in (("rim_url", tuple(collateral.rims.values())), ("ocsp_url", collateral.ocsp)):
        kept = [answer.origin for answer in answers if answer.source is Source.CACHE]
        if name in given and kept and not any(answer.source is Source.LIVE for answer in answers):
            what = "RIMs" if name == "rim_url" else "revocation answers"
            say(
                f"warning: {getattr(options, name)} was not asked: all {what} are in the cache {clean(kept[0], 256)}; "
                "--no-cache asks",
                error=True,
            )


def _cache(options: argparse.Namespace) -> DiskCache | None:
    from nvattest.collateral.cache import DiskCache, default_cache_folder

    if options.no_cache:
        return None
    folder = default_cache_folder() if options.cache_dir is None else os.path.abspath(options.cache_dir)
    if folder is None:
        return None
    try:
        return DiskCache(folder)
    except InputError as error:
        if "cache_dir" in getattr(options, "_given", ()):
            raise
        # The command does not name this folder: read-only homes and the like must not stop a verification.
        if options.log_level in ("trace", "debug", "info", "warn"):
            say(f"warning: {error}; going on without a cache", error=True)
        return None


def attest_remotely(
    options: argparse.Namespace, evidence: tuple[Evidence, ...], nonce: Nonce
) -> tuple[RemoteAnswer, ...]:
    """Have NRAS verify, and verify its answer, at ``--at`` or when it has come.

    Raises:
        InputError: no evidence, or options that cannot be used.
        CollateralError: NRAS gave no answer (700, 702, 15).
        TokenError: its answer must not be believed (701, 19).
    """
    from nvattest.collateral.nras import NrasClient

    settings = http_settings(options, options.nras_url)
    with NrasClient(
        options.nras_url, http=settings, timeout=options.timeout, claims_version=options.claims_version
    ) as client:
        return client.attest(
            evidence,
            nonce=nonce,
            at=options.at.device if options.at is not None else None,
            accept_simulated=options.accept_simulated,
            refuse_weakened=options.refuse_weakened,
        )


def tls_roots(options: argparse.Namespace, url: str | None) -> str | None:
    """What vouches for the keys fetched from ``url``, in words; None where that was not over TLS."""
    from nvattest.collateral.settings import usual_roots

    if url is None or not url.startswith("https://"):
        return None

    named = [name for name in ("tls_ca_cert", "tls_ca_path") if getattr(options, name) is not None]
    return " and ".join([usual_roots()[0] or "the usual roots", *(f"--{name.replace('_', '-')}" for name in named)])
