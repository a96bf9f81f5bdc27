"""A ``requests`` session that verifies TLS with one context, made once: loading the roots for every connection is slow.

Only this module knows the insides of ``requests``; it is imported by the first exchange.
"""

from __future__ import annotations

import os
import ssl
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import certifi
import requests
import requests.adapters

from nvattest.collateral.pool import WORKERS
from nvattest.errors import InputError


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections and proxied connections with our TLS context, whatever the environment says."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_connections=8, pool_maxsize=WORKERS, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **settings: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **settings)

    def proxy_manager_for(self, proxy: str, **settings: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **settings)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:  # noqa: ARG002 - its signature
        host, _ = super().build_connection_pool_key_attributes(request, True, None)  # type: ignore[misc, unused-ignore]
        return host, {"cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002 - its signature
        # The roots are in the context already.
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = conn.ca_cert_dir = None


def make_session(ca_cert: str | None, ca_path: str | None) -> requests.Session:
    """A session without cookies, for the roots of ``requests`` (or of ``REQUESTS_CA_BUNDLE``) and the caller's.

    Raises:
        InputError: roots that cannot be read.
    """
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    adapter = _Adapter(_context(ca_cert, ca_path))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _context(ca_cert: str | None, ca_path: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificates and host names
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    usual = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
    folder = os.path.isdir(usual)
    for name, path, is_folder in (
        ("the usual roots", usual, folder),
        ("--tls-ca-cert", ca_cert, False),
        ("--tls-ca-path", ca_path, True),
    ):
        if path is None:
            continue
        try:
            context.load_verify_locations(capath=path) if is_folder else context.load_verify_locations(cafile=path)
        except (OSError, ValueError) as error:
            raise InputError(f"{name}: {path}: {error}", code="tls-ca", hint="give certificates in PEM form") from None
    return context
