"""A ``requests`` session that verifies TLS with one context, made once, where TLS is: loading the roots is slow.

Its connections can be ended: no timeout ends a server that trickles, or that says "100 Continue" for ever. Only this
module knows the insides of ``requests``; the first exchange imports it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import certifi
import requests
import requests.adapters
import urllib3.connection
import urllib3.connectionpool

from nvattest._waiting import WORKERS
from nvattest.errors import InputError


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections and proxied connections with our TLS context, whatever the environment says.

    It has a second handle on each connection's socket: shutting it down wakes a thread that waits, in a handshake too.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._twins: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._ended = False
        self._pools = self._watched_pools()
        super().__init__(pool_connections=8, pool_maxsize=WORKERS, max_retries=0)

    def _watch(self, connection: object, sock: socket.socket) -> None:
        twin = sock.dup()
        # Not in the connection's close(): that is called while the last answer is still being read.
        weakref.finalize(connection, twin.close)
        with self._lock:
            self._twins.add(twin)
            ended = self._ended
        if ended:
            _shut(twin)

    def close(self) -> None:
        """End all connections, those in use too."""
        with self._lock:
            self._ended = True
            twins = list(self._twins)
        for twin in twins:
            _shut(twin)
        super().close()

    def _watched_pools(self) -> dict[str, Any]:
        """The classes of connections that are watched, as urllib3 wants them; TLS is that of the context.

        It is set here, where every version of ``requests`` has to pass: before 2.32 it names a pool by its URL alone.
        """
        watch, context = self._watch, self._context

        def watched(base: Any) -> Any:
            def new_connection(connection: Any) -> socket.socket:
                sock: socket.socket = base._new_conn(connection)  # noqa: SLF001
                watch(connection, sock)
                return sock

            return type("Watched", (base,), {"_new_conn": new_connection})

        class Plain(urllib3.connectionpool.HTTPConnectionPool):
            ConnectionCls = watched(urllib3.connection.HTTPConnection)

        class Tls(urllib3.connectionpool.HTTPSConnectionPool):
            ConnectionCls = watched(urllib3.connection.HTTPSConnection)

            def __init__(self, *place: Any, **settings: Any) -> None:
                super().__init__(*place, **settings | {"ssl_context": context()})

        return {"http": Plain, "https": Tls}

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **settings: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **settings)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **settings: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self._context(), **settings)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:  # noqa: ARG002 - its signature
        host, _ = super().build_connection_pool_key_attributes(request, True, None)  # type: ignore[misc, unused-ignore]
        return host, {"cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002 - its signature
        # The roots are in the context already.
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = conn.ca_cert_dir = None


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def make_session(usual: str | None, ca_cert: str | None, ca_path: str | None) -> requests.Session:
    """A session without cookies, for the ``usual`` roots (None: those of ``requests``) and the caller's.

    InputError where roots cannot be read.
    """
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    context = functools.cache(lambda: _context(usual or certifi.where(), ca_cert, ca_path))
    if usual or ca_cert or ca_path:
        # Roots that a caller names and that cannot be read are an error without TLS too.
        context()
    adapter = _Adapter(context)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _context(usual: str, ca_cert: str | None, ca_path: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificates and host names
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name, path, folder in (
        ("the usual roots", usual, os.path.isdir(usual)),
        ("--tls-ca-cert", ca_cert, False),
        ("--tls-ca-path", ca_path, True),
    ):
        if path is None:
            continue
        try:
            context.load_verify_locations(capath=path) if folder else context.load_verify_locations(cafile=path)
        except (OSError, ValueError) as error:
            raise InputError(f"{name}: {path}: {error}", code="tls-ca", hint="give certificates in PEM form") from None
    return context
