"""What an outage costs: how often a host is asked that does not answer, how long that takes, and what is not given up."""

from __future__ import annotations

import threading

import pytest

from nvattest._waiting import Deadline, run_all
from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.gather import RIM_SERVICE, GatherOptions, gather, needs_of
from nvattest.collateral.http import OUTAGE_REQUESTS, OUTAGE_SECONDS, Failed, Host, HttpClient, HttpSettings
from nvattest.collateral.nras import NrasClient
from nvattest.errors import CollateralError, ResultCode
from nvattest.model import Nonce
from nvattest.testing import Platform
from nvattest.testing.services import Services

NONCE = bytes(range(32))


class Clock:
    """A monotonic clock that moves when somebody sleeps; sleeping side by side counts one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds

    def __call__(self) -> float:
        return self.now


def ask(services, paths, *, clock=None, client=None, deadline=None):
    """Ask for all paths at once, without real waiting; errors are results."""
    clock = clock or Clock()
    client = client or HttpClient(sleep=clock.sleep, jitter=lambda: 1.0)
    limit = deadline or Deadline(60, clock=clock)

    def job(path):
        return lambda: client.exchange(RIM_SERVICE, services.rim_url + path, limit).content

    return run_all([job(path) for path in paths], Deadline(60))


@pytest.fixture(scope="module")
def node() -> Platform:
    return Platform.build("hopper-8-ppcie")


@pytest.fixture
def impatient(monkeypatch):
    """Waiting takes no time."""
    monkeypatch.setattr(HttpClient, "_delay", lambda *_: 0.0)


@pytest.mark.parametrize("fault", ["status=500", "drop", "cut", "rate-limited=0"])
@pytest.mark.usefixtures("impatient")
def test_an_outage_of_everything_costs_each_host_few_requests(node, fault) -> None:
    evidence = node.evidence(NONCE)
    verifier = Verifier(anchors=node.trust_anchors())
    with Services(node, faults=[fault]) as services:
        options = GatherOptions(rim_url=services.rim_url, ocsp_url=services.ocsp_url)
        found = gather(evidence, options, at=node.time, verifier=verifier)
        asked = {name: len(services.requests(name)) for name in ("rim", "ocsp")}
    assert 0 < asked["rim"] <= OUTAGE_REQUESTS
    assert 0 < asked["ocsp"] <= OUTAGE_REQUESTS
    assert found.rims == {}
    assert found.ocsp == ()
    assert any("given up after" in reason.message for reason in found.unavailable.values())
    assert len(found.unavailable) >= 13, "each thing that is missing has its reason"


@pytest.mark.usefixtures("impatient")
def test_an_outage_of_one_host_is_none_of_the_other(node) -> None:
    evidence = node.evidence(NONCE)
    verifier = Verifier(anchors=node.trust_anchors())
    with Services(node, faults=["ocsp:status=500"]) as services:
        options = GatherOptions(rim_url=services.rim_url, ocsp_url=services.ocsp_url)
        found = gather(evidence, options, at=node.time, verifier=verifier)
        assert len(services.requests("rim")) == 3
        assert len(services.requests("ocsp")) <= OUTAGE_REQUESTS
    assert sorted(found.rims) == sorted(node.rim_ids)


@pytest.mark.usefixtures("impatient")
def test_an_outage_of_the_remote_service_costs_few_requests(node) -> None:
    evidence = node.evidence(NONCE)
    with (
        Services(node, faults=["nras:status=503", "jwks:status=503"]) as services,
        NrasClient(services.nras_url) as client,
    ):
        with pytest.raises(CollateralError) as caught:
            client.attest(evidence, nonce=Nonce(NONCE), at=node.clock)
        assert 0 < len(services.log) <= OUTAGE_REQUESTS
        # Another run asks anew.
        services.forget()
        with pytest.raises(CollateralError):
            client.attest(evidence, nonce=Nonce(NONCE), at=node.clock)
        assert services.log
    assert caught.value.result_code is ResultCode.NRAS_ATTESTATION_ERROR


def test_the_time_of_an_outage_is_bounded(platform) -> None:
    for paths in (["/v1/rim/NV_A"], [f"/v1/rim/NV_{number}" for number in range(20)]):
        clock = Clock()
        with Services(platform, faults=["status=503"]) as services:
            results = ask(services, paths, clock=clock)
            assert len(services.log) <= OUTAGE_REQUESTS
        assert all(isinstance(result, CollateralError) for result in results)
        assert clock.now - 1000 <= OUTAGE_SECONDS


def test_what_was_not_asked_says_so_with_the_cause_and_its_code(platform) -> None:
    clock = Clock()
    with Services(platform, faults=["status=429"]) as services:
        client = HttpClient(sleep=clock.sleep, jitter=lambda: 1.0)
        deadline = Deadline(60, clock=clock)
        ask(services, ["/v1/rim/NV_A"], client=client, deadline=deadline)
        services.forget()
        (error,) = ask(services, ["/v1/rim/NV_B"], client=client, deadline=deadline)
        assert services.log == []
    assert error.result_code is ResultCode.RATE_LIMITED
    assert (
        f"{services.rim_url}/v1/rim/NV_B: not asked: the host was given up after 6 failed attempts in a row"
        in error.message
    )
    assert "HTTP status 429" in error.message
    assert error.hint


def test_a_host_that_comes_back_is_asked_for_everything(node) -> None:
    paths = [f"/v1/rim/{node.rim_ids[0]}"] * 12
    with Services(node, faults=["status=502*5"]) as services:
        results = ask(services, paths)
    assert all(isinstance(result, bytes) for result in results)


def test_nothing_is_asked_before_the_time_that_the_service_named(node) -> None:
    clock = Clock()
    with Services(node, faults=["rim:rate-limited=7*4"]) as services:
        results = ask(services, [f"/v1/rim/{node.rim_ids[0]}"] * 6, clock=clock)
        assert [item.status for item in services.log] == [429] * 4 + [200] * 6
    assert all(isinstance(result, bytes) for result in results)
    assert clock.now >= 1007


def test_a_host_that_may_not_be_asked_before_the_deadline_is_not_waited_for(node) -> None:
    clock = Clock()
    with Services(node, faults=["rim:rate-limited=90"]) as services:
        results = ask(services, [f"/v1/rim/{node.rim_ids[0]}"] * 12, clock=clock)
        assert len(services.log) <= 4
    assert {result.code for result in results} == {"rate-limited"}
    assert clock.now == 1000.0


def test_one_thing_that_fails_among_others_that_do_not_takes_nothing_away(node) -> None:
    broken, *good = node.rim_ids
    with Services(node, faults=[f"rim:status=500@{broken}"]) as services:
        clock = Clock()
        client = HttpClient(sleep=clock.sleep, jitter=lambda: 1.0)
        deadline = Deadline(60, clock=clock)
        paths = [f"/v1/rim/{rim_id}" for rim_id in (broken, *good)]
        first, *others = ask(services, paths, client=client, deadline=deadline)
        assert isinstance(first, CollateralError)
        assert all(isinstance(result, bytes) for result in others)
        # The next wave of the same run.
        assert isinstance(ask(services, paths[1:], client=client, deadline=deadline)[0], bytes)
        assert len(services.requests("rim")) <= 6 + 2 * len(good)


def test_an_answer_that_says_no_is_an_answer(node) -> None:
    with Services(node) as services:
        results = ask(services, [f"/v1/rim/NV_NONE_{number}" for number in range(12)])
        assert len(services.log) == 12
    assert {result.code for result in results} == {"not-found"}


@pytest.mark.parametrize(("fault", "code"), [("status=404", 202), ("status=403", 205), ("html", 201)])
def test_a_responder_that_gives_nothing_but_foreign_answers_is_asked_a_few_times(node, fault, code) -> None:
    verifier = Verifier(anchors=node.trust_anchors())
    with Services(node, faults=[f"ocsp:{fault}"]) as services:
        options = GatherOptions(rim_url=services.rim_url, ocsp_url=services.ocsp_url)
        found = gather(node.evidence(NONCE), options, at=node.time, verifier=verifier)
        assert len(services.requests("ocsp")) == OUTAGE_REQUESTS
    assert not found.ocsp
    assert {int(missing.code) for missing in found.unavailable.values()} == {code}
    assert sum("not asked: the host was given up after 8" in item.message for item in found.unavailable.values()) > 4


def test_a_foreign_answer_about_one_certificate_stops_no_other(node) -> None:
    verifier = Verifier(anchors=node.trust_anchors())
    chains = needs_of(node.evidence(NONCE), verifier, node.time).chains
    serials = [f"{chain.certificates[1].serial:x}" for chain in chains[:6]]
    with Services(node, faults=[f"ocsp:status=404@{serial}" for serial in serials]) as services:
        options = GatherOptions(rim_url=services.rim_url, ocsp_url=services.ocsp_url)
        found = gather(node.evidence(NONCE), options, at=node.time, verifier=verifier)
    assert len(found.unavailable) == 6
    assert len(found.ocsp) > 6


def test_a_host_whose_first_answers_are_foreign_is_asked_on_and_one_with_no_other_is_given_up() -> None:
    deadline, foreign = Deadline(60), Failed("HTTP status 404", "http-status", again=False, status=404)
    host, silent = Host(5), Host(5)
    for _ in range(OUTAGE_REQUESTS - 1):
        for asked in (host, silent):
            asked.enter(object(), deadline)
            asked.refused(foreign)
    host.enter(object(), deadline)
    host.answered()
    for _ in range(OUTAGE_REQUESTS):
        host.enter(object(), deadline)
        host.refused(foreign)
    assert not host.given_up
    silent.enter(object(), deadline)
    silent.refused(foreign)
    assert silent.given_up


def test_a_certificate_that_is_not_believed_is_not_looked_at_twice_as_often_as_there_are_things_to_ask(node) -> None:
    with Services(node, tls=True) as services:
        results = ask(services, [f"/v1/rim/NV_{number}" for number in range(30)])
    assert {result.code for result in results} == {"tls"}
    assert sum("not asked" in result.message for result in results) >= 30 - 4


def test_a_host_that_stays_silent_is_given_up_after_two_limits(platform) -> None:
    """Nothing comes at all: each attempt costs a whole time limit, so that six would take half a minute."""
    clock = Clock()
    attempts = []

    class Silent(HttpClient):
        def _once(self, *_args, **_more):
            attempts.append(clock.now)
            clock.sleep(5.0)
            raise Failed("timed out", "connection", again=True)

    client = Silent(HttpSettings(), sleep=clock.sleep, jitter=lambda: 1.0)
    with Services(platform) as services:
        (error,) = ask(services, ["/v1/rim/NV_A"], clock=clock, client=client)
    assert len(attempts) == 2
    assert "2 attempts" in error.message
