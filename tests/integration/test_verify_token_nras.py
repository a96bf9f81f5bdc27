"""``verify-token --nras-url``: the keys are fetched from the service that the caller names, and from nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from nvattest.cli import run
from nvattest.collateral.http import HttpClient
from nvattest.collateral.nras import request_body
from nvattest.model import Nonce
from nvattest.testing.platform import Platform
from nvattest.testing.services import Services, wall_clock

NONCE = Nonce(bytes(range(32)))


@dataclass(frozen=True)
class Stage:
    """A simulated NRAS and a folder with its token, its CA for TLS and its JWKS."""

    services: Services
    folder: Path

    def verify(self, *options: str, token: str = "token.json", accept: bool = True) -> int:
        known = ["--nonce", NONCE.hex(), *["--accept-simulated"] * accept]
        return run(["verify-token", "--token-file", str(self.folder / token), *known, *options])

    def tls(self) -> tuple[str, str]:
        return "--tls-ca-cert", str(self.folder / "ca.pem")

    def fetched(self) -> list[str]:
        """What was sent as ``Authorization`` with each request for the key set."""
        return [exchange.authorization for exchange in self.services.log if exchange.service == "jwks"]


def stage_of(folder: Path, lies: tuple[str, ...] = (), faults: tuple[str, ...] = ()) -> Iterator[Stage]:
    platform = Platform.build("hopper-1", clock=datetime.now(timezone.utc), lies=lies)
    with Services(platform, tls=True, faults=faults, now=wall_clock) as services:
        evidence = platform.evidence(NONCE.value)
        (folder / "token.json").write_bytes(
            services.nras.attest(request_body(evidence, NONCE), services.nras_url, now=wall_clock())
        )
        (folder / "ca.pem").write_bytes(services.ca_pem)
        (folder / "jwks.json").write_bytes(services.nras.jwks())
        yield Stage(services, folder)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for name in ("NVAT_NRAS_BASE_URL", "NV_ATTESTATION_SERVICE_KEY", "NVAT_TLS_CA_CERT", "NVAT_TLS_CA_PATH"):
        monkeypatch.delenv(name, raising=False)
    yield from stage_of(tmp_path)


def test_a_named_service_gives_its_keys_and_alone_sees_the_service_key(stage: Stage) -> None:
    url = stage.services.nras_url
    assert stage.verify("--nras-url", url + "/", *stage.tls()) == 0
    assert stage.verify("--nras-url", url, *stage.tls(), "--service-key", "secret-1") == 0
    assert stage.fetched() == ["", "Bearer secret-1"]
    # A JWKS of somewhere else than the service: the key stays here.
    elsewhere = url.replace("127.0.0.1", "localhost") + "/.well-known/jwks.json"
    stage.services.forget()
    jwks = ("--jwks", url + "/.well-known/jwks.json", "--issuer", url)
    assert stage.verify(*jwks, *stage.tls(), "--service-key", "secret-1") == 0
    stage.verify("--jwks", elsewhere, "--nras-url", url, *stage.tls(), "--service-key", "secret-1")
    assert set(stage.fetched()) == {""}


def test_the_service_that_vouches_is_named_and_its_simulation_refused_unless_accepted(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stage.services.nras_url
    source = f"key set fetched from {url}/.well-known/jwks.json over TLS"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stage.folder / "ca.pem"))
    assert stage.verify("--nras-url", url) == 0
    text = capsys.readouterr().out
    assert f"key: {source}\nTLS roots: REQUESTS_CA_BUNDLE\n" in text
    assert "SIMULATED" in text
    assert "Result: TRUSTED (simulated)" in text
    assert stage.verify("-f", "json", "--nras-url", url) == 0
    said = json.loads(capsys.readouterr().out)["token"]
    assert {name: said[name] for name in ("issuer", "nvidia", "key_source", "simulated")} == {
        "issuer": url, "nvidia": False, "key_source": source, "simulated": True,
    }  # fmt: skip
    for more, accept, code in (((), False, "simulated"), (("--refuse-weakened",), True, "weakened")):
        assert stage.verify("-f", "json", "--nras-url", url, *more, accept=accept) == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_the_variables_are_nvidias_and_count_where_nothing_else_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NVAT_NRAS_BASE_URL", stage.services.nras_url)
    monkeypatch.setenv("NV_ATTESTATION_SERVICE_KEY", "secret-2")
    monkeypatch.setenv("NVAT_TLS_CA_CERT", str(stage.folder / "ca.pem"))
    assert stage.verify() == 0
    assert stage.fetched() == ["Bearer secret-2"]
    stage.services.forget()
    # A key or an issuer on the command line says whose token this is.
    assert stage.verify("--jwks", str(stage.folder / "jwks.json")) == 1
    assert "issuer" in capsys.readouterr().out
    assert stage.verify("--issuer", stage.services.nras_url) == 1
    assert "key-missing" in capsys.readouterr().out
    assert stage.fetched() == []


def test_nothing_is_fetched_where_nothing_is_named_or_a_key_is(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage.verify() == 1
    assert stage.verify("--jwks", str(stage.folder / "jwks.json"), "--nras-url", stage.services.nras_url) == 0
    assert stage.fetched() == []
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--nras-url", "http://verifier.example"), "url"),
        (("--nras-url", "verifier.example"), "url"),
        (("--nras-url", "https://127.0.0.1:1"), "connection"),
        ((), "tls"),
    ],
)
def test_a_service_that_cannot_be_asked_is_an_error_with_its_reason(
    stage: Stage,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: str,
) -> None:
    monkeypatch.setattr(HttpClient, "_delay", lambda *_: 0.0)
    assert stage.verify("--format", "json", *(options or ("--nras-url", stage.services.nras_url))) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["error"]["code"], said["claims"]) == (code, {})


@pytest.mark.parametrize(
    ("lies", "faults", "status"), [(("gpu0:measurement=9",), (), 3), ((), ("jwks:rotated-key",), 1)]
)
def test_a_bad_verdict_and_an_unknown_key_are_told_apart(
    tmp_path: Path, lies: tuple[str, ...], faults: tuple[str, ...], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in stage_of(tmp_path, lies, faults):
        assert stage.verify("--nras-url", stage.services.nras_url, *stage.tls()) == status
    assert ("kid-unknown" in capsys.readouterr().out) is (status == 1)


def test_keys_whose_own_chain_does_not_hold_together_are_refused(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(stage.services.nras.jwks())
    chain = document["keys"][0]["x5c"]
    stranger = stage.services.platform.anchors_pem.split(b"-----")[2]
    document["keys"][0]["x5c"] = [chain[0], stranger.decode().replace("\n", "")]
    monkeypatch.setattr(stage.services.nras, "jwks", lambda **_: json.dumps(document).encode())
    assert stage.verify("--nras-url", stage.services.nras_url, *stage.tls()) == 1
    assert "x5c-chain" in capsys.readouterr().out


@pytest.mark.parametrize(("content", "code"), [("{not_valid_json}", "malformed"), ("", "file"), (" \n", "file")])
def test_for_what_is_no_token_nobody_is_asked(
    stage: Stage, capsys: pytest.CaptureFixture[str], content: str, code: str
) -> None:
    (stage.folder / "bad.json").write_text(content)
    nras = ("--nras-url", stage.services.nras_url, *stage.tls())
    assert stage.verify("--format", "json", *nras, token="bad.json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert stage.fetched() == []


@pytest.mark.parametrize(
    ("lie", "code", "word"),
    [
        ("gpu0:other-nonce", 504, "4010 NONCE_NOT_MATCHING"),
        ("gpu0:signature", 508, "4013 INVALID_EVIDENCE_SIGNATURE"),
        ("gpu0:other-root", 802, "4007 INVALID_CERTIFICATE_CHAIN"),
        ("driver-rim:wrong-key", 105, "5013 INVALID_RIM_SIGNATURE"),
        ("gpu0:measurement=9", 12, ""),
    ],
)
def test_a_device_that_the_service_refuses_is_not_trusted_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lie: str, code: int, word: str
) -> None:
    for stage in stage_of(tmp_path, (lie,)):
        assert stage.verify("--nras-url", stage.services.nras_url, *stage.tls()) == 3
        out = capsys.readouterr().out
        assert f"Result: NOT TRUSTED (simulated), code {code} (" in out
        assert f"GPU-0: refused by the issuer: {word}" in out or not word
        evidence = tmp_path / "evidence.json"
        evidence.write_text(stage.services.platform.evidence_json(None, NONCE))
        remote = [
            "attest", "--verifier", "remote", "--accept-simulated", "--nras-url", stage.services.nras_url, *stage.tls(), "--nonce",
            NONCE.hex(), "--gpu-evidence-source", "file", "--gpu-evidence-file", str(evidence),
        ]  # fmt: skip
        assert run(remote) == code % 256
        out = capsys.readouterr().out
        assert f"Result: NOT TRUSTED (simulated), code {code} (" in out
        assert f"GPU-0: refused by the issuer: {word}" in out or not word
        assert run([*remote, "-f", "json"]) == code % 256
        said = json.loads(capsys.readouterr().out)
        assert said["result_code"] == code
        assert [refusal["code"] for refusal in said.get("refusals", [])] == (
            [word.split(maxsplit=1)[0]] if word else []
        )


def test_a_key_set_that_comes_byte_by_byte_ends_with_an_error_at_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nvattest import _waiting

    usual, limits = _waiting.Deadline, []

    def short(seconds: float) -> _waiting.Deadline:
        limits.append(seconds)
        return usual(0.5)

    monkeypatch.setattr(_waiting, "Deadline", short)
    for stage in stage_of(tmp_path, faults=("jwks:trickle=0.1",)):
        url = stage.services.nras_url
        for source in (("--nras-url", url), ("--jwks", f"{url}/.well-known/jwks.json", "--issuer", url)):
            assert stage.verify(*stage.tls(), *source) == 1
            assert "no whole answer within 0.5 s" in capsys.readouterr().out
    assert limits == [30, 30]
