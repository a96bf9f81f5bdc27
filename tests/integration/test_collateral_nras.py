"""Remote verification: what is sent, what is believed, and each way in which the service can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from nvattest.collateral.http import HttpSettings
from nvattest.collateral.nras import NrasClient, key_ids, request_body
from nvattest.errors import CollateralError, InputError, NvattestError, TokenError
from nvattest.model import Architecture, DeviceKind, Nonce
from nvattest.testing import Platform
from nvattest.testing.services import Services
from nvattest.token.binding import evidence_digest_of

NONCE = Nonce(bytes(range(32)))


@pytest.fixture(scope="module")
def one() -> Platform:
    return Platform.build("hopper-1")


def load(platform: Platform):
    return platform.evidence(NONCE.value)


def attest(platform, services, *, client=None, nonce=NONCE, timeout=20.0, retries=1, evidence=None):
    own = client or NrasClient(
        services.nras_url, http=HttpSettings(retries=retries), timeout=timeout, x5c_roots=services.nras_ca_pem
    )
    try:
        return own.attest(
            load(platform) if evidence is None else evidence, nonce=nonce, at=platform.clock, accept_simulated=True
        )
    finally:
        if client is None:
            own.close()


def test_a_node_is_verified_in_one_request_for_each_architecture() -> None:
    node = Platform.build("hopper-8-ppcie")
    with Services(node) as services:
        answers = attest(node, services)
        assert sorted(services.requests("nras")) == ["gpu", "switch"]
        assert len(services.requests("jwks")) == 1
    assert [(answer.architecture, answer.devices) for answer in answers] == [
        (Architecture.HOPPER, 8),
        (Architecture.LS10, 4),
    ]
    assert all(answer.verified.overall for answer in answers)
    assert all(len(answer.verified.claims) == answer.devices for answer in answers)


def test_a_simulated_service_says_so_and_is_refused_where_that_is_not_accepted(one) -> None:
    with Services(one) as services, NrasClient(services.nras_url, x5c_roots=services.nras_ca_pem) as client:
        with pytest.raises(TokenError) as caught:
            client.attest(load(one), nonce=NONCE, at=one.clock)
        (answer,) = client.attest(load(one), nonce=NONCE, at=one.clock, accept_simulated=True)
        with pytest.raises(TokenError) as weakened:
            client.attest(load(one), nonce=NONCE, at=one.clock, accept_simulated=True, refuse_weakened=True)
    assert (caught.value.code, weakened.value.code) == ("simulated", "weakened")
    verified = answer.verified
    assert (verified.simulated, verified.anchors, verified.of_nvidia) == (True, one.trust_anchors().label, False)
    assert verified.issuer == services.nras_url
    assert verified.key_url == f"{services.nras_url}/.well-known/jwks.json"
    assert verified.evidence_digest == evidence_digest_of([(item.report, item.certificate_chain) for item in load(one)])


def test_bad_evidence_is_a_good_token_with_a_bad_verdict() -> None:
    liar = Platform.build("hopper-1", lies=["gpu0:measurement=9"])
    with Services(liar) as services:
        (answer,) = attest(liar, services)
    assert answer.verified.overall is False


def test_the_key_set_is_kept_for_a_quarter_of_an_hour(one) -> None:
    now = [0.0]
    with (
        Services(one) as services,
        NrasClient(services.nras_url, x5c_roots=services.nras_ca_pem, clock=lambda: now[0]) as client,
    ):
        attest(one, services, client=client)
        now[0] = 899
        attest(one, services, client=client)
        assert len(services.requests("jwks")) == 1
        now[0] = 901
        attest(one, services, client=client)
        assert len(services.requests("jwks")) == 2


def test_an_unknown_key_id_makes_us_look_once_more(one) -> None:
    with Services(one, faults=["jwks:rotated-key"]) as services:
        (answer,) = attest(one, services)
        assert len(services.requests("jwks")) == 2
    assert answer.verified.overall


FAULTS = [
    ("nras:wrong-key", 701, TokenError),
    ("nras:other-nonce", 19, TokenError),
    ("nras:status=401", 702, CollateralError),
    ("nras:status=403", 702, CollateralError),
    ("nras:status=500", 700, CollateralError),
    ("nras:status=404", 700, CollateralError),
    ("nras:rate-limited=100", 15, CollateralError),
    ("nras:slow=60", 700, CollateralError),
    ("nras:cut", 700, CollateralError),
    ("nras:drop", 700, CollateralError),
    ("nras:huge=8", 700, CollateralError),
    ("nras:html", 700, CollateralError),
    ("nras:redirect=https://example.invalid/", 700, CollateralError),
    ("jwks:html", 700, CollateralError),
    ("jwks:huge=2", 700, CollateralError),
    ("jwks:status=500", 700, CollateralError),
    ("jwks:slow=60", 700, CollateralError),
]


@pytest.mark.parametrize(("fault", "code", "kind"), FAULTS)
def test_a_fault_of_the_service_is_an_error_with_its_code(one, fault, code, kind) -> None:
    with Services(one, faults=[fault]) as services, pytest.raises(NvattestError) as caught:
        attest(one, services, timeout=0.8 if "60" in fault else 20)
    assert caught.value.result_code == code
    assert isinstance(caught.value, kind)
    assert caught.value.hint


def test_a_passing_fault_does_no_harm(one) -> None:
    with Services(one, faults=["nras:status=500*2"]) as services:
        assert attest(one, services, retries=5)[0].verified.overall


def test_the_wrong_root_is_refused(one) -> None:
    with Services(one) as services:
        client = NrasClient(services.nras_url, x5c_roots=one.anchors_pem)
        with client, pytest.raises(NvattestError):
            attest(one, services, client=client)


def change_jwks(services, monkeypatch, change) -> None:
    issuer = services.nras
    document = json.loads(issuer.jwks())
    change(document["keys"][0])
    monkeypatch.setattr(issuer, "jwks", lambda with_key=True: json.dumps(document).encode())


def test_without_roots_the_chain_of_the_key_has_to_hold_together(one, monkeypatch) -> None:
    from nvattest.testing.services_nras import NrasIssuer

    with Services(one) as services:
        with NrasClient(services.nras_url) as client:
            assert attest(one, services, client=client)[0].verified.overall
        other = json.loads(NrasIssuer(Platform.build("hopper-1", seed=2)).jwks())["keys"][0]["x5c"]
        for chain in (lambda own: [own[0], other[1]], lambda own: own[::-1], lambda own: [], lambda own: ["x"]):
            with monkeypatch.context() as patch, NrasClient(services.nras_url) as client:
                change_jwks(services, patch, lambda key, chain=chain: key.update(x5c=chain(key["x5c"])))
                with pytest.raises(TokenError) as caught:
                    attest(one, services, client=client)
            assert caught.value.code in ("x5c", "x5c-chain")
        later = one.clock + timedelta(days=366)
        with NrasClient(services.nras_url) as client, pytest.raises(TokenError, match="is valid from"):
            client.attest(load(one), nonce=NONCE, at=later)


def test_an_answer_about_switches_is_none_about_gpus(monkeypatch) -> None:
    node = Platform.build("hopper-8-ppcie")
    gpus = [item for item in load(node) if item.kind is DeviceKind.GPU][:4]
    switches = [item for item in load(node) if item.kind is DeviceKind.NVSWITCH][:4]
    with Services(node) as services, NrasClient(services.nras_url, x5c_roots=services.nras_ca_pem) as client:
        issuer = services.nras
        genuine = issuer.attest
        swapped = request_body(switches, NONCE)
        monkeypatch.setattr(issuer, "attest", lambda body, url, **lie: genuine(swapped, url, **{**lie, "kind": None}))
        with pytest.raises(TokenError) as caught:
            client.attest(gpus, nonce=NONCE, at=node.clock, accept_simulated=True)
    assert caught.value.code == "device-kind"
    assert caught.value.result_code == 701


def test_another_issuer_is_refused(one) -> None:
    with Services(one) as services:
        client = NrasClient(services.nras_url.replace("127.0.0.1", "localhost"), x5c_roots=services.nras_ca_pem)
        with client, pytest.raises(TokenError):
            attest(one, services, client=client)


def test_evidence_for_another_nonce_is_not_sent(one) -> None:
    with Services(one) as services:
        with pytest.raises(InputError) as caught:
            attest(one, services, nonce=Nonce(bytes(32)))
        assert services.log == []
    assert caught.value.result_code == 19


def test_evidence_that_declares_no_nonce_is_sent_with_ours(one) -> None:
    with Services(one) as services:
        assert attest(one, services, evidence=[replace(load(one)[0], nonce=None)])[0].verified.overall


def test_no_evidence_is_refused(one) -> None:
    with Services(one) as services, pytest.raises(InputError):
        attest(one, services, evidence=[])


def test_plain_http_to_another_machine_is_refused() -> None:
    with pytest.raises(InputError):
        NrasClient("http://nras.example")


@pytest.mark.parametrize("token", [None, 1, "", "..", "a.b.c", [[["x"] * 1000] * 3], {"a": "!!.b.c"}])
def test_key_ids_are_found_in_nothing_and_break_nothing(token) -> None:
    assert key_ids(token) == frozenset()


@pytest.mark.parametrize(
    ("asked", "gpus", "switches"),
    [(None, "4.0", "3.0"), ("4.0", "4.0", "3.0"), ("3.0", "3.0", "3.0"), ("2.0", "2.0", "2.0")],
)
def test_the_claims_have_the_version_that_was_asked_for_and_switches_none_above_theirs(asked, gpus, switches) -> None:
    node = Platform.build("hopper-8-ppcie")
    with Services(node) as services, NrasClient(services.nras_url, claims_version=asked) as client:
        answers = attest(node, services, client=client)
    assert [answer.verified.payload["x-nvidia-ver"] for answer in answers] == [gpus, switches]
