"""The old SDK's REMOTE verifier while the service is away or must not be believed: False, a reason, and no token."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from nvattest.compat import MigrationWarning
from nvattest.compat.nv_attestation_sdk.attestation import Attestation, Devices, Environment
from nvattest.testing import Platform
from nvattest.testing.services import Services

NONCE = "cd" * 32
POLICY = json.dumps(
    {
        "version": "3.0",
        "authorization-rules": {
            "type": "JWT",
            "overall-claims": {"x-nvidia-overall-att-result": True},
            "detached-claims": {"measres": "success"},
        },
    }
)
pytestmark = pytest.mark.filterwarnings("ignore::nvattest.compat.MigrationWarning")


@pytest.fixture(scope="module")
def one() -> Platform:
    # Keys of its own: the services of a test beside this one may get the port that a closed service had here.
    return Platform.build("hopper-1", seed=4711)


def client_of(platform: Platform, *urls: str) -> Attestation:
    client = Attestation("node", anchors=platform.trust_anchors(), at=platform.time, verbose=False)
    client.set_nonce(NONCE)
    for url in urls:
        client.add_verifier(Devices.GPU, Environment.REMOTE, url, "")
    return client


def evidence_of(platform: Platform) -> list[Any]:
    return list(platform.evidence(bytes.fromhex(NONCE)))


def closed_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("nras:status=404", "404"),
        ("nras:status=403", "403"),
        ("nras:status=400", "400"),
        ("nras:html", "begins with"),
        ("nras:wrong-key", "did not sign it"),
        ("nras:other-nonce", "nonce"),
        ("jwks:status=404", "404"),
    ],
)
def test_a_service_that_gives_no_answer_to_believe_is_false_and_says_why(one: Platform, fault: str, said: str) -> None:
    with Services(one, faults=[fault]) as services:
        client = client_of(one, f"{services.nras_url}/v3/attest/gpu")
        assert client.attest(evidence_of(one)) is False
    (reason,) = client.get_reasons()
    assert reason.startswith("REMOTE_GPU_CLAIMS: ")
    assert said in reason
    assert client.get_token() == ""
    assert client.validate_token(POLICY) is False
    assert "there is no token" in " ".join(client.get_reasons())


def test_a_service_that_is_down_is_false(one: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    client = client_of(one, f"{closed_port()}/v3/attest/gpu")
    client.set_verbose(True)
    assert client.attest(evidence_of(one)) is False
    assert client.get_reasons()
    assert client.get_reasons()[0] in capsys.readouterr().out


def test_no_token_stands_for_a_round_in_which_one_of_two_verifiers_was_not_reached(one: Platform) -> None:
    with Services(one) as services:
        for urls in ((services.nras_url, closed_port()), (closed_port(), services.nras_url)):
            client = client_of(one, *urls)
            assert client.attest(evidence_of(one)) is False
            assert client.get_token() == ""
        good = client_of(one, services.nras_url)
        assert good.attest(evidence_of(one)) is True
        assert good.get_reasons() == []


def test_a_token_whose_keys_cannot_be_had_does_not_validate(one: Platform) -> None:
    with Services(one) as services:
        client = client_of(one, services.nras_url)
        assert client.attest(evidence_of(one)) is True
        assert client.validate_token(POLICY) is True
    token = client.get_token()
    assert client.validate_token(POLICY) is False
    assert client.get_reasons()[0].startswith("REMOTE_GPU_CLAIMS: ")
    assert client.validate_token(POLICY, {"a": token}) == {"a": False}


def test_a_service_that_is_not_nvidias_is_named_as_before(one: Platform) -> None:
    with Services(one) as services, pytest.warns(MigrationWarning, match="not NVIDIA's remote service"):
        assert client_of(one, services.nras_url).attest(evidence_of(one)) is True
