"""How to reach the services: limits of one exchange, keys, roots, URLs; and what a gathering needs to know."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from nvattest._registry import OCSP_URL, RIM_URL
from nvattest._waiting import LONGEST, WORKERS
from nvattest.appraisal.policy import RevocationMode
from nvattest.errors import InputError
from nvattest.pki.ocsp import CertIdHash

if TYPE_CHECKING:
    from nvattest.collateral.cache import DiskCache

TIMEOUT: Final = 60.0
# NVAT 2.0.0, nv_http: these figures are NVIDIA's.
CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 30.0
RETRIES: Final = 5
_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How to reach the services.

    ``tls_ca_cert`` and ``tls_ca_path`` name a PEM file and an OpenSSL folder of roots, trusted besides the usual ones.
    ``key_hosts`` are the base URLs that may see ``service_key``.

    Raises:
        InputError: a key that a header cannot carry.
    """

    service_key: str = field(default="", repr=False)
    key_hosts: tuple[str, ...] = ()
    tls_ca_cert: str | None = None
    tls_ca_path: str | None = None
    connect_timeout: float = CONNECT_TIMEOUT
    read_timeout: float = READ_TIMEOUT
    retries: int = RETRIES

    def __post_init__(self) -> None:
        if self.service_key and not is_service_key(self.service_key):
            raise InputError(
                "the service key has characters that a header cannot carry", code="service-key",
                hint="give the key alone, without 'Bearer', quotes or line breaks",
            )  # fmt: skip


def is_service_key(text: str) -> bool:
    """Whether a header can carry this text as a bearer key."""
    return _KEY.fullmatch(text) is not None


def usual_roots() -> tuple[str, str | None]:
    """The variable that replaces the roots of TLS and the path in it, or two empty values: the roots of ``certifi``.

    Nothing of what a service says can be trusted further than these.
    """
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(name):
            return name, path
    return "", None


def check_url(url: str, option: str) -> SplitResult:
    """Read a configured base URL.

    Raises:
        InputError: not an http or https URL with a host, or one with a password, a query or a fragment in it.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it raises where the port is no number
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    clean = url.isascii() and url.isprintable() and " " not in url and len(url) <= 2048
    if not clean or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{option}: not an http or https URL: {url[:200]!r}", code="url")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(f"{option}: a base URL has no user name, query or fragment", code="url")
    return parts


def check_seconds(seconds: float) -> float:
    """Check a configured time limit.

    Raises:
        InputError: it is not a positive number (``timeout``).
    """
    if not 0 < seconds <= LONGEST:
        raise InputError(f"not a time limit: {seconds!r}", code="timeout", hint="give a positive number of seconds")
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherOptions:
    """Where to ask and how.

    Args:
        rim_url, ocsp_url: base URLs; where ``ocsp_url`` is None each certificate's own responder (AIA) is asked.
        http: keys, roots, limits of a single exchange.
        timeout: seconds for everything together, retries included.
        revocation: the evidence policy's mode; FRESH asks the network though the cache or a bundle has an answer.
        cert_id_hash: the hash of OCSP requests; NVIDIA documents SHA-256 as the default.
        cache: where to look first and what to fill; None for none.
        offline: ask no service; what is neither at hand nor in the cache is unavailable.

    Raises:
        InputError: a URL or a time limit that cannot be used.
    """

    rim_url: str = RIM_URL
    ocsp_url: str | None = OCSP_URL
    http: HttpSettings = field(default_factory=HttpSettings)
    timeout: float = TIMEOUT
    workers: int = WORKERS
    revocation: RevocationMode = RevocationMode.BUNDLE
    cert_id_hash: CertIdHash = CertIdHash.SHA256
    cache: DiskCache | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        check_seconds(self.timeout)
        check_url(self.rim_url, "--rim-url")
        if self.ocsp_url is not None:
            check_url(self.ocsp_url, "--ocsp-url")
