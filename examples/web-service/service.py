"""A web service that lets in only callers whose GPUs it believes: a WSGI application.

    python service.py jwks.json --expected-gpus 8 [--accept-simulated]

POST /nonce gives a nonce; POST /token takes ``{"nonce": ..., "token": ...}`` and answers 200 with what was verified, or
403 with the reason. Put it behind a server of your own: TLS, limits on requests and threads are not its business.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from pathlib import Path
from typing import Any
from wsgiref.simple_server import make_server

import nvattest

LARGEST_REQUEST = 4 * 1024 * 1024
NONCE_LIFE = timedelta(minutes=2)
MOST_NONCES = 10_000


class RefusedError(Exception):
    """The request is not served: its status and the reason."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Nonces:
    """Nonces that were given out: each counts once, and for a while. Threads may share it."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._ends: dict[bytes, datetime] = {}
        self._lock = threading.Lock()

    def give(self) -> bytes:
        """A new one; where too many are open, the oldest is forgotten."""
        nonce = os.urandom(32)
        with self._lock:
            self._ends[nonce] = self._clock() + NONCE_LIFE
            while len(self._ends) > MOST_NONCES:
                del self._ends[next(iter(self._ends))]
        return nonce

    def take(self, nonce: bytes) -> bool:
        """Whether it is one of ours and in time. It is not a second time, whatever the token turns out to be."""
        with self._lock:
            end = self._ends.pop(nonce, None)
        return end is not None and self._clock() <= end


class Service:
    """The application. ``jwks`` are the keys of the attester's tokens, got over a way that you trust."""

    def __init__(
        self,
        jwks: str,
        *,
        issuer: str = "NVATTEST-LOCAL-VERIFIER",
        expected_gpus: int,
        accept_simulated: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._jwks, self._issuer, self._gpus, self._clock = jwks, issuer, expected_gpus, clock
        # Under the test roots of a simulation every token is of other anchors than NVIDIA's.
        self._simulated = accept_simulated
        self._nonces = Nonces(clock)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            status, answer = HTTPStatus.OK, self._answer(environ)
        except RefusedError as refused:
            status, answer = refused.status, {"error": refused.code, "message": str(refused)}
        body = json.dumps(answer).encode("ascii")
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    def _answer(self, environ: dict[str, Any]) -> dict[str, object]:
        request = (environ["REQUEST_METHOD"], environ.get("PATH_INFO"))
        if request == ("POST", "/nonce"):
            return {"nonce": self._nonces.give().hex()}
        if request == ("POST", "/token"):
            return self._verified(*_request(environ))
        raise RefusedError(HTTPStatus.NOT_FOUND, "request", "POST /nonce, then POST /token")

    def _verified(self, nonce: bytes, token: object) -> dict[str, object]:
        """What is known of the caller.

        Raises:
            RefusedError: the nonce, the token, or its verdict.
        """
        if not self._nonces.take(nonce):
            raise RefusedError(HTTPStatus.FORBIDDEN, "nonce", "this nonce was not given out, is used or too old")
        try:
            verified = nvattest.verify_token(
                token,
                issuer=self._issuer,
                nonce=nvattest.Nonce(nonce),
                at=self._clock(),
                jwks=self._jwks,
                kind=nvattest.TokenKind.DETACHED_EAT,
                expected_gpus=self._gpus,
                accept_simulated=self._simulated,
                refuse_weakened=not self._simulated,
            )
        except nvattest.TokenError as error:
            raise RefusedError(HTTPStatus.FORBIDDEN, error.code, str(error)) from None
        # A genuine token may say that its devices are bad.
        if verified.overall is not True:
            raise RefusedError(HTTPStatus.FORBIDDEN, "not-trusted", "the token is genuine; its devices are not trusted")
        return {
            "trusted": True,
            "devices": list(verified.labels),
            "key": verified.key.thumbprint,
            "simulated": verified.simulated,
        }


def _request(environ: dict[str, Any]) -> tuple[bytes, object]:
    """Nonce and token of a request.

    Raises:
        RefusedError: it is too large, or has another form.
    """
    length = str(environ.get("CONTENT_LENGTH") or "")
    if not (length.isascii() and length.isdigit()):
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "request", "a request says its length")
    if int(length) > LARGEST_REQUEST:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request", f"at most {LARGEST_REQUEST} bytes are read")
    try:
        document = json.loads(environ["wsgi.input"].read(int(length)))
        return bytes.fromhex(document["nonce"]), document["token"]
    except (ValueError, TypeError, KeyError, RecursionError):
        message = 'the body is {"nonce": "64 hexadecimal digits", "token": ...}'
        raise RefusedError(HTTPStatus.BAD_REQUEST, "request", message) from None


def main() -> None:
    parser = argparse.ArgumentParser(description="Let in only callers whose GPUs are believed.")
    parser.add_argument("jwks", type=Path, help="the keys of the attester's tokens")
    parser.add_argument("--expected-gpus", type=int, required=True)
    parser.add_argument("--accept-simulated", action="store_true", help="for tests: simulated devices prove nothing")
    parser.add_argument("--port", type=int, default=8443)
    options = parser.parse_args()
    service = Service(
        options.jwks.read_text(encoding="utf-8"),
        expected_gpus=options.expected_gpus,
        accept_simulated=options.accept_simulated,
    )
    with make_server("127.0.0.1", options.port, service) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
