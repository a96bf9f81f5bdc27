"""Live answers are stamped with the time of the request: every front reads its clock after they have come.

The clock is virtual: each answer of the responder takes some seconds of it, so that nothing here waits.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import nvattest.fleet
import nvattest.session
from nvattest.cli import main
from nvattest.collateral import nras
from nvattest.collateral.nras import NrasClient
from nvattest.compat._engine import Settings, verify_locally
from nvattest.errors import TokenError
from nvattest.fleet import BatchSettings, Judge
from nvattest.model import DeviceKind, Nonce, VerificationTime
from nvattest.testing import Platform
from nvattest.testing.services import Services
from nvattest.token.jose import SigningKey

NONCE = bytes(range(32))
PLATFORM = Platform.build("hopper-1")


class Clock:
    """True time. It goes on by ``latency`` seconds while the responder makes an answer."""

    def __init__(self) -> None:
        self._now = PLATFORM.clock
        self._lock = threading.Lock()

    def read(self) -> datetime:
        with self._lock:
            return self._now

    def responder(self, *, latency: float, ahead: float) -> Callable[[], datetime]:
        """The clock of a responder: wrong by ``ahead`` seconds, and read when the answer is made."""

        def read() -> datetime:
            with self._lock:
                self._now += timedelta(seconds=latency)
                return self._now + timedelta(seconds=ahead)

        return read


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    genuine = nvattest.session.now
    # Some modules read the name when they are imported, and which of them are depends on the tests before.
    for name, module in list(sys.modules.items()):
        if name.startswith("nvattest") and getattr(module, "now", None) is genuine:
            monkeypatch.setattr(module, "now", lambda: VerificationTime.at(made.read()))
    # The header Date reads the services' clock too; only an answer takes time here.
    monkeypatch.setattr(Services, "date", lambda _: format_datetime(made.read(), usegmt=True))
    return made


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "gpu.json").write_text(PLATFORM.evidence_json(DeviceKind.GPU, NONCE))
    (tmp_path / "roots.pem").write_bytes(PLATFORM.anchors_pem)
    return ["--gpu-evidence-file", str(tmp_path / "gpu.json"), "--trust-anchors", str(tmp_path / "roots.pem")]


def attest(services: Services, arguments: list[str], *more: str) -> int:
    urls = ["--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url]
    evidence = ["--gpu-evidence-source", "file", "--nonce", NONCE.hex()]
    return main(["attest", *evidence, *urls, *arguments, *(more or ("--no-cache",))])


@pytest.mark.parametrize("latency", [0.0, 0.25, 0.6, 2.0])
@pytest.mark.parametrize("ahead", [-5.0, 0.0, 1.0, 299.0])
def test_an_honest_responder_is_trusted_at_any_latency_with_a_clock_from_5_s_behind_to_299_s_ahead(
    clock: Clock, arguments: list[str], latency: float, ahead: float, capsys: pytest.CaptureFixture[str]
) -> None:
    with Services(PLATFORM, now=clock.responder(latency=latency, ahead=ahead)) as services:
        assert attest(services, arguments) == 0
    assert "Result: TRUSTED" in capsys.readouterr().out


@pytest.mark.parametrize("latency", [0.0, 2.0])
def test_a_responder_clock_301_s_ahead_is_refused_in_words_that_name_the_clock(
    clock: Clock, arguments: list[str], latency: float, capsys: pytest.CaptureFixture[str]
) -> None:
    with Services(PLATFORM, now=clock.responder(latency=latency, ahead=301)) as services:
        assert attest(services, arguments, "--no-cache", "--verbose") != 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Result: NOT TRUSTED" in said
    assert "the responder's clock says" in said
    assert "301 s after the clock of this verification" in said
    assert "check this machine's clock" in said


def test_what_the_cache_keeps_of_such_a_run_serves_the_next_one(
    clock: Clock, arguments: list[str], tmp_path: Path
) -> None:
    cache = ("--cache-dir", str(tmp_path / "cache"))
    with Services(PLATFORM, now=clock.responder(latency=0.6, ahead=200)) as services:
        assert attest(services, arguments, *cache) == 0
        services.forget()
        assert attest(services, arguments, *cache) == 0
        assert services.requests("ocsp") == []


@pytest.mark.parametrize("command", ["preflight", "fetch"])
def test_preflight_and_bundle_fetch_read_the_clock_after_the_answers(
    clock: Clock, arguments: list[str], tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # A minute for each answer: by a clock read before, the last ones would be too far ahead.
    with Services(PLATFORM, now=clock.responder(latency=60, ahead=0)) as services:
        words = [command] if command == "preflight" else ["bundle", command, "--output", str(tmp_path / "bundle.json")]
        urls = ["--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url]
        assert main([*words, *urls, *arguments, "--no-cache"]) == 0, capsys.readouterr()


def test_the_compat_front_reads_the_clock_after_the_answers(clock: Clock) -> None:
    with Services(PLATFORM, now=clock.responder(latency=60, ahead=0)) as services:
        result, _, _ = verify_locally(
            PLATFORM.evidence(NONCE),
            nonce=Nonce(NONCE),
            settings=Settings(rim_url=services.rim_url, ocsp_url=services.ocsp_url, anchors=PLATFORM.trust_anchors()),
            key=SigningKey(ec.generate_private_key(ec.SECP384R1())),
        )
    assert result.trusted


def test_a_token_of_the_remote_service_is_judged_when_it_has_come(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Now(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return clock.read()

    monkeypatch.setattr(nras, "datetime", Now)
    evidence = PLATFORM.evidence(NONCE)
    # More than the leeway of a token.
    with (
        Services(PLATFORM, now=clock.responder(latency=90, ahead=0)) as services,
        NrasClient(services.nras_url, x5c_roots=services.nras_ca_pem) as client,
    ):
        before = clock.read()
        [answer] = client.attest(evidence, nonce=Nonce(NONCE), accept_simulated=True)
        assert answer.verified.issued - before == timedelta(seconds=90)
        with pytest.raises(TokenError) as caught:
            client.attest(evidence, nonce=Nonce(NONCE), at=before, accept_simulated=True)
    assert caught.value.code == "not-yet-valid"


def test_a_batch_without_a_time_judges_each_line_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = BatchSettings(bundles=("bundle.json",), anchors=PLATFORM.anchors_pem)
    judge = Judge(settings, contents=[json.dumps(PLATFORM.bundle()).encode()])
    line = json.dumps(
        {"id": 1, "nonce": NONCE.hex(), "evidence": json.loads(PLATFORM.evidence_json(None, NONCE))}
    ).encode()
    verdicts = []
    # The answers of the bundle end within a day: a stream of lines may be open for longer.
    for hours in (0, 48, 0):
        monkeypatch.setattr(
            nvattest.fleet, "now", lambda hours=hours: VerificationTime.at(PLATFORM.clock + timedelta(hours=hours))
        )
        verdicts.append(json.loads(judge.judge(line))["trusted"])
    assert verdicts == [True, False, True]
