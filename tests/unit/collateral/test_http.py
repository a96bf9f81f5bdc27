"""One exchange over HTTP: what is tried again, what is refused, how long it may take, and who sees the key."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import replace

import pytest
import requests

from nvattest._waiting import Deadline, Late, run_all
from nvattest.collateral.gather import RIM_SERVICE, GatherOptions
from nvattest.collateral.http import HttpClient, HttpSettings, check_url
from nvattest.collateral.nras import NrasClient
from nvattest.errors import CollateralError, InputError, ResultCode
from nvattest.testing.services import Services


class Clock:
    """A monotonic clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def get(services, *, client=None, seconds=60.0, clock=None, path=None, maximum=2**21):
    clock = clock or Clock()
    client = client or HttpClient(sleep=clock.sleep, jitter=lambda: 1.0)
    with client:
        service = replace(RIM_SERVICE, maximum=maximum)
        url = services.rim_url + (path or f"/v1/rim/{services.platform.rim_ids[0]}")
        return client.exchange(service, url, Deadline(seconds, clock=clock)).content


def failure(*args, **settings) -> CollateralError:
    with pytest.raises(CollateralError) as caught:
        get(*args, **settings)
    return caught.value


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b" "),
    ],
)
def test_a_fetch_ends_at_its_deadline_though_the_answer_goes_on_coming(begin: bytes, more: bytes) -> None:
    gone = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(begin)
            while True:
                connection.sendall(more)
                time.sleep(0.02)
        gone.set()

    with socket.create_server(("127.0.0.1", 0)) as server, HttpClient() as client:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/jwks"
        with pytest.raises(CollateralError, match=r"no whole answer within 0\.3 s") as caught:
            client.fetch(RIM_SERVICE, url, Deadline(0.3))
        assert (caught.value.code, caught.value.result_code) == ("deadline", 103)
        # The connection is ended, not left to a thread.
        assert gone.wait(30)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again_until_it_passes(platform, status) -> None:
    clock = Clock()
    with Services(platform, faults=[f"rim:status={status}*2"]) as services:
        assert get(services, clock=clock).startswith(b"{")
        assert [item.status for item in services.log] == [status, status, 200]
    assert clock.sleeps == [0.1, 0.2]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 501, 302])
def test_other_statuses_are_final(platform, status) -> None:
    with Services(platform, faults=[f"rim:status={status}"]) as services:
        error = failure(services)
        assert len(services.log) == 1
    expected = {401: 101, 403: 101, 404: 104}.get(status, 102)
    assert error.result_code == expected
    assert str(status) in str(error)


def test_a_connection_that_drops_is_tried_again(platform) -> None:
    with Services(platform, faults=["rim:drop*2"]) as services:
        assert get(services).startswith(b"{")
        assert len(services.log) == 3


def test_after_six_attempts_the_error_names_url_attempts_and_cause(platform) -> None:
    clock = Clock()
    with Services(platform, faults=["rim:status=503"]) as services:
        error = failure(services, clock=clock)
        assert len(services.log) == 6
        assert services.rim_url in str(error)
    assert "503" in str(error)
    assert "6 attempts" in str(error)
    assert error.result_code is ResultCode.RIM_INTERNAL_ERROR
    assert clock.sleeps == [0.1, 0.2, 0.4, 0.8, 1.0]


def test_backoff_is_full_jitter(platform) -> None:
    clock, jitter = Clock(), iter([0.0, 0.5, 1.0, 0.25, 0.5, 1.0])
    with Services(platform, faults=["rim:status=503"]) as services:
        failure(services, client=HttpClient(sleep=clock.sleep, jitter=lambda: next(jitter)), clock=clock)
    assert clock.sleeps == pytest.approx([0.0, 0.1, 0.4, 0.2, 0.5])


def test_retry_after_is_obeyed(platform) -> None:
    clock = Clock()
    with Services(platform, faults=["rim:rate-limited=7*1"]) as services:
        assert get(services, clock=clock)
    assert clock.sleeps == [7.0]


def test_retry_after_beyond_the_deadline_ends_at_once_as_rate_limited(platform) -> None:
    clock = Clock()
    with Services(platform, faults=["rim:rate-limited=61"]) as services:
        error = failure(services, clock=clock)
        assert len(services.log) == 1
    assert clock.sleeps == []
    assert error.result_code is ResultCode.RATE_LIMITED
    assert "61 s" in str(error)
    assert error.hint


def test_a_final_429_is_rate_limited(platform) -> None:
    with Services(platform, faults=["rim:status=429"]) as services:
        assert failure(services).result_code is ResultCode.RATE_LIMITED


def test_no_retry_goes_beyond_the_deadline(platform) -> None:
    clock = Clock()
    with Services(platform, faults=["rim:status=500"]) as services:
        error = failure(services, clock=clock, seconds=0.5)
    assert clock.sleeps == [0.1, 0.2]
    assert "leaves no time" in str(error)


def test_nothing_is_asked_after_the_deadline(platform) -> None:
    clock = Clock()
    deadline = Deadline(1.0, clock=clock)
    clock.now += 2
    with Services(platform) as services, HttpClient() as client:
        with pytest.raises(CollateralError) as caught:
            client.exchange(RIM_SERVICE, services.rim_url, deadline)
        assert services.log == []
    assert caught.value.code == "deadline"
    assert caught.value.result_code is ResultCode.RIM_CONNECTION_ERROR


def test_nobody_listening_is_a_connection_error(platform) -> None:
    with Services(platform) as services:
        pass
    error = failure(services)
    assert error.result_code is ResultCode.RIM_CONNECTION_ERROR
    assert "refused" in str(error)
    assert "host=" not in str(error)
    assert "6 attempts" in str(error)


def test_an_answer_that_is_cut_off_is_not_an_answer(platform) -> None:
    with Services(platform, faults=["rim:cut"]) as services:
        error = failure(services)
    assert error.result_code is ResultCode.RIM_CONNECTION_ERROR


def test_an_answer_that_says_it_is_huge_is_not_read(platform) -> None:
    with Services(platform) as services:
        error = failure(services, maximum=100)
        assert len(services.log) == 1
    assert error.code == "too-large"


def test_an_answer_that_turns_out_huge_is_given_up(platform) -> None:
    with Services(platform, faults=["rim:huge=8"]) as services:
        error = failure(services)
    assert error.code == "too-large"
    assert error.result_code is ResultCode.RIM_INTERNAL_ERROR


def test_a_content_coding_is_refused(platform) -> None:
    with Services(platform, faults=["rim:gzip"]) as services:
        assert failure(services).code == "coding"


def test_no_redirect_is_followed(platform) -> None:
    with Services(platform) as other, Services(platform, faults=[f"rim:redirect={other.rim_url}/x"]) as services:
        error = failure(services)
        assert other.log == []
    assert other.rim_url in str(error)
    assert error.result_code is ResultCode.RIM_INTERNAL_ERROR


# --- TLS and the key -------------------------------------------------------------------------------------------------


def test_an_unknown_ca_is_refused_at_once(platform) -> None:
    clock = Clock()
    with Services(platform, tls=True) as services:
        error = failure(services, clock=clock)
        assert services.log == []
    assert clock.sleeps == []
    assert error.code == "tls"
    assert error.result_code is ResultCode.RIM_CONNECTION_ERROR
    assert "--tls-ca-cert" in error.hint


def test_a_ca_file_makes_its_servers_known(platform, tmp_path) -> None:
    with Services(platform, tls=True) as services:
        (tmp_path / "ca.pem").write_bytes(services.ca_pem)
        assert get(services, client=HttpClient(HttpSettings(tls_ca_cert=str(tmp_path / "ca.pem"))))


def test_tls_is_verified_whatever_the_environment_says(platform, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    with Services(platform, tls=True) as services:
        assert failure(services).code == "tls"


def test_the_roots_are_ours_under_every_version_of_requests(platform, tmp_path, monkeypatch) -> None:
    # As before 2.32: by the URL alone.
    monkeypatch.setattr(
        requests.adapters.HTTPAdapter,
        "get_connection_with_tls_context",
        lambda adapter, request, *_, **__: adapter.poolmanager.connection_from_url(request.url),
        raising=False,
    )
    test_a_ca_file_makes_its_servers_known(platform, tmp_path)


def test_a_ca_file_without_certificates_is_the_callers_mistake(platform, tmp_path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with Services(platform) as services, pytest.raises(InputError, match="--tls-ca-cert"):
        get(services, client=HttpClient(HttpSettings(tls_ca_cert=str(tmp_path / "ca.pem"))))


def test_the_key_goes_to_the_configured_host_over_https(platform, tmp_path) -> None:
    with Services(platform, tls=True) as services:
        (tmp_path / "ca.pem").write_bytes(services.ca_pem)
        settings = HttpSettings(
            service_key="secret", key_hosts=(services.rim_url,), tls_ca_cert=str(tmp_path / "ca.pem")
        )
        get(services, client=HttpClient(settings))
        assert [item.authorization for item in services.log] == ["Bearer secret"]


def test_the_key_does_not_go_over_http_nor_to_other_hosts(platform, tmp_path, monkeypatch) -> None:
    # Nor does a password that happens to lie around for this host.
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Services(platform) as plain, Services(platform, tls=True) as services:
        (tmp_path / "ca.pem").write_bytes(services.ca_pem)
        settings = HttpSettings(
            service_key="secret",
            key_hosts=(plain.rim_url, "https://rim.example"),
            tls_ca_cert=str(tmp_path / "ca.pem"),
        )
        get(plain, client=HttpClient(settings))
        get(services, client=HttpClient(settings))
        assert [item.authorization for item in plain.log + services.log] == ["", ""]


def test_a_refusal_says_that_the_key_was_not_sent(platform) -> None:
    with Services(platform, faults=["rim:status=401"]) as services:
        settings = HttpSettings(service_key="secret", key_hosts=(services.rim_url,))
        error = failure(services, client=HttpClient(settings))
        assert "secret" not in f"{error} {error.hint}"
        assert "was not sent" in error.hint
        assert "--service-key" in failure(services).hint


def test_the_key_is_in_no_log(platform, tmp_path, caplog, capfd) -> None:
    caplog.set_level(0)
    with Services(platform, tls=True, faults=["rim:status=500*1"]) as services:
        (tmp_path / "ca.pem").write_bytes(services.ca_pem)
        settings = HttpSettings(
            service_key="s3cr3t", key_hosts=(services.rim_url,), tls_ca_cert=str(tmp_path / "ca.pem")
        )
        get(services, client=HttpClient(settings))
        assert [item.authorization for item in services.log] == ["Bearer s3cr3t"] * 2
    assert caplog.records
    assert "s3cr3t" not in caplog.text + "".join(capfd.readouterr())


def test_the_key_does_not_show_in_the_settings() -> None:
    assert "secret" not in repr(HttpSettings(service_key="secret"))


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ", "a\x00b"])
def test_a_key_that_no_header_can_carry_is_refused(key) -> None:
    with pytest.raises(InputError):
        HttpSettings(service_key=key)


def test_the_program_says_who_it_is(platform) -> None:
    from nvattest import __version__

    with Services(platform) as services:
        get(services)
        assert services.log[0].user_agent == f"nvattest/{__version__}"


@pytest.mark.parametrize(
    "url",
    ["", "rim.example", "ftp://rim.example", "https://", "https://a b", "https://u:p@rim.example", "https://r/?q=1",
     "https://r/#f", "https://r:notaport", "https://r\n.example", "file:///etc/passwd"],
)  # fmt: skip
def test_a_base_url_that_cannot_be_used_is_refused(url) -> None:
    with pytest.raises(InputError):
        check_url(url, "--rim-url")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e300])
def test_a_time_limit_is_a_positive_number(seconds) -> None:
    for make in (GatherOptions, NrasClient):
        with pytest.raises(InputError) as caught:
            make(timeout=seconds)
        assert caught.value.code == "timeout"


def test_an_http_date_is_measured_by_the_servers_own_clock() -> None:
    from nvattest.collateral.http import _retry_after

    headers = {"Date": "Tue, 24 Nov 2026 10:00:00 GMT", "Retry-After": "Tue, 24 Nov 2026 10:00:09 GMT"}
    assert _retry_after(headers) == 9.0
    for text in ("", "soon", "-5", "Tue, 24 Nov 2026 09:00:00 GMT", "٣"):
        assert _retry_after({**headers, "Retry-After": text}) == 0.0


def test_proxies_come_from_the_environment(platform, monkeypatch) -> None:
    with Services(platform) as proxy, HttpClient() as client:
        monkeypatch.setenv("HTTP_PROXY", proxy.rim_url)
        monkeypatch.setenv("http_proxy", proxy.rim_url)
        with pytest.raises(CollateralError):
            client.exchange(RIM_SERVICE, "http://rim.invalid/v1/rim/NV_A", Deadline(5))
        assert [item.key for item in proxy.log] == ["http://rim.invalid/v1/rim/NV_A"]


# --- servers that do not speak HTTP, or never stop -------------------------------------------------------------------


@contextlib.contextmanager
def raw_server(answer: bytes):
    """A server that reads a request, writes ``answer`` and closes."""

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(answer)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("answer", "proxied", "told"),
    [
        (b"Result: TRUSTED\x1b[31m\r\n\r\n", False, "not an answer in HTTP: it begins with 'Result: TRUSTED"),
        (b"HTTP/1.1 407 \x1b[31mTRUSTED\r\n\r\n", True, "407 \\x1b[31mTRUSTED"),
    ],
)
def test_what_a_server_wrote_is_marked_and_cannot_steer_a_terminal(answer, proxied, told, monkeypatch) -> None:
    with raw_server(answer) as url, HttpClient(HttpSettings(retries=0)) as client:
        monkeypatch.setenv("https_proxy", url)
        asked = "https://rim.invalid" if proxied else url
        with pytest.raises(CollateralError) as caught:
            client.exchange(RIM_SERVICE, asked, Deadline(5))
    assert str(caught.value).isprintable()
    assert told in str(caught.value)
    assert caught.value.result_code is ResultCode.RIM_CONNECTION_ERROR


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n", b""),
    ],
    ids=["continue", "headers", "body"],
)
def test_closing_the_client_ends_the_threads_that_are_late(answer, again) -> None:
    before = set(threading.enumerate())
    hold = threading.Event()

    def wait_for_ever(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(answer)
            while again:
                connection.sendall(again)
            hold.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=lambda: wait_for_ever(listener.accept()[0]), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        deadline = Deadline(0.3)
        with HttpClient() as client:
            # A limit of its own, so that no timeout of the socket ends it.
            own = Deadline(3600)
            (result,) = run_all([lambda: client.exchange(RIM_SERVICE, url, own)], deadline)
            assert isinstance(result, Late)
            late = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("nvattest-job")]
            assert late
        # It would try again otherwise.
        listener.close()
        for thread in late:
            thread.join(20)
            assert not thread.is_alive()
        hold.set()
        server.join()


def test_what_came_too_late_says_what_to_do_next() -> None:
    error = RIM_SERVICE.failure("https://rim.example", Late(), Deadline(2.0))
    assert (error.code, error.result_code) == ("deadline", ResultCode.RIM_CONNECTION_ERROR)
    assert "--timeout" in error.hint
    assert "nvattest bundle fetch" in error.hint
