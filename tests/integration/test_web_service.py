"""The service of the tutorial: whom it lets in, whom it refuses and in which words, and that nothing breaks it."""

from __future__ import annotations

import importlib.util
import io
import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import nvattest
from nvattest.testing import Platform

FILE = Path(__file__).resolve().parents[2] / "examples/web-service/service.py"
NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)


def load() -> Any:
    spec = importlib.util.spec_from_file_location("web_service", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SERVICE = load()
KEY = nvattest.SigningKey.generate()
GOOD, BAD, ONE = (
    Platform.build("hopper-8-ppcie"),
    Platform.build("hopper-8-ppcie", lies=["gpu3:measurement=9"]),
    Platform.build("hopper-1"),
)


class Clock:
    now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock) -> Any:
    return SERVICE.Service(json.dumps(KEY.public.jwks()), expected_gpus=8, accept_simulated=True, clock=clock)


def call(service: Any, path: str, body: bytes = b"", method: str = "POST", **more: str) -> tuple[int, dict[str, Any]]:
    answered: list[str] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **more,
    }
    [answer] = service(environ, lambda status, _: answered.append(status))
    return int(answered[0].split()[0]), json.loads(answer)


def nonce_of(service: Any) -> str:
    status, answer = call(service, "/nonce")
    assert status == 200
    return str(answer["nonce"])


def token(platform: Platform, nonce: str, *, key: nvattest.SigningKey = KEY, **more: Any) -> object:
    appraisal = platform.appraise(bytes.fromhex(nonce))
    return nvattest.sign_detached_eat(
        appraisal,
        claims=nvattest.claims_of(appraisal, version="4.0"),
        key=key,
        claims_version="4.0",
        now=NOW,
        new_id=lambda: uuid.uuid4().hex,
        **more,
    )


def send(service: Any, nonce: object, token: object) -> tuple[int, dict[str, Any]]:
    return call(service, "/token", json.dumps({"nonce": nonce, "token": token}).encode())


def test_a_good_node_is_let_in(service: Any) -> None:
    nonce = nonce_of(service)
    status, answer = send(service, nonce, token(GOOD, nonce))
    assert (status, answer["trusted"], answer["simulated"]) == (200, True, True)
    assert len(answer["devices"]) == 12
    assert answer["key"] == KEY.public.thumbprint


REFUSALS: dict[str, tuple[Callable[[str], object], str]] = {
    "a node with a bad GPU": (lambda nonce: token(BAD, nonce), "not-trusted"),
    "a node of another size": (lambda nonce: token(ONE, nonce), "device-count"),
    "another nonce": (lambda _: token(GOOD, "07" * 32), "nonce-mismatch"),
    "another key": (lambda nonce: token(GOOD, nonce, key=nvattest.SigningKey.generate()), "kid-unknown"),
    "another issuer": (lambda nonce: token(GOOD, nonce, issuer="https://other.example"), "issuer"),
    "no token": (lambda _: None, "malformed"),
    "text": (lambda _: "a.b.c", "kind"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused_has_its_reason(service: Any, case: str) -> None:
    make, code = REFUSALS[case]
    nonce = nonce_of(service)
    status, answer = send(service, nonce, make(nonce))
    assert (status, answer["error"]) == (403, code), answer


def test_a_nonce_counts_once_and_for_a_while(service: Any, clock: Clock) -> None:
    nonce = nonce_of(service)
    assert send(service, nonce, token(BAD, nonce))[0] == 403
    assert send(service, nonce, token(GOOD, nonce)) == (
        403,
        {"error": "nonce", "message": "this nonce was not given out, is used or too old"},
    )
    late = nonce_of(service)
    clock.now = NOW + timedelta(minutes=2, seconds=1)
    assert send(service, late, token(GOOD, late))[1]["error"] == "nonce"
    assert send(service, "00" * 32, token(GOOD, "00" * 32))[1]["error"] == "nonce"


def test_open_nonces_are_bounded(clock: Clock) -> None:
    nonces = SERVICE.Nonces(clock)
    first = nonces.give()
    for _ in range(SERVICE.MOST_NONCES):
        last = nonces.give()
    assert not nonces.take(first)
    assert nonces.take(last)


def test_simulated_devices_are_refused_by_default() -> None:
    service = SERVICE.Service(json.dumps(KEY.public.jwks()), expected_gpus=8, clock=lambda: NOW)
    nonce = nonce_of(service)
    assert send(service, nonce, token(GOOD, nonce))[1]["error"] == "simulated"


BODIES = (b"", b"[]", b"{}", b"\xff", b'{"nonce": 7, "token": {}}', b'{"nonce": "xx", "token": {}}', b"[" * 100_000)


@pytest.mark.parametrize("body", BODIES, ids=[str(body[:12]) for body in BODIES])
def test_a_body_of_another_form_is_a_bad_request(service: Any, body: bytes) -> None:
    assert call(service, "/token", body)[0] == 400


def test_other_requests_have_their_status(service: Any) -> None:
    assert call(service, "/nonce", method="GET")[0] == 404
    assert call(service, "/other")[0] == 404
    assert call(service, "/token", CONTENT_LENGTH="")[0] == 411
    assert call(service, "/token", CONTENT_LENGTH="-1")[0] == 411
    assert call(service, "/token", CONTENT_LENGTH=str(5 * 1024 * 1024))[0] == 413
