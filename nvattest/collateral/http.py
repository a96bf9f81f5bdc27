"""HTTP exchanges with NVIDIA's services, or with a proxy or mirror in their place: bounded in time, size and retries.

TLS is always verified. No redirect is followed. The service key goes to configured hosts over https and nowhere else.
Proxies come from the environment (``HTTPS_PROXY``, ``NO_PROXY``). The first exchange imports ``requests``.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from nvattest._package import __version__
from nvattest._text import clean, decimal
from nvattest._waiting import LONGEST, Deadline, Late, Work, waiting
from nvattest.errors import CollateralError, InputError, ParseError, ResultCode
from nvattest.model import counted

if TYPE_CHECKING:
    from requests import Response, Session

# At most so many requests go to a host that is down. NVIDIA's program sends it 6, one after the other.
OUTAGE_REQUESTS: Final = 8
OUTAGE_SECONDS: Final = 3.0
# Half of the requests of an outage are left for later, and the chain of one GPU is asked about at once.
_UNPROVEN: Final = 4
_FEWEST_ROUNDS: Final = 3


@dataclass(eq=False)
class Failed(Exception):  # noqa: N818 - each error of a service is made from one
    """One attempt without a usable answer. ``again``: another attempt may have one."""

    cause: str
    code: str
    again: bool = False
    status: int = 0
    retry_after: float = 0.0
    request_id: str = ""


@dataclass(eq=False)
class GivenUp(Exception):  # noqa: N818 - an outcome, which becomes an error of the service
    """The host is not asked any more: ``attempts`` failed in a row, the last with ``cause``.

    Or it named a time after the deadline, before which nothing may be asked.
    """

    cause: Failed
    attempts: int


class Host:
    """When a host counts as down, in one run: its requests run in parallel, and each would find out by itself.

    Until a host has answered, few requests wait for it; after a failure one at a time asks again, the longest waiting
    first; after a whole round of failures the host is not asked any more. ``retries`` is that of a single request.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._in_flight = 0
        self._answered = False
        self._refusals = 0
        # Since the last answer: failed attempts, rounds of attempts that were under way together, and their requests.
        self._failures = 0
        self._rounds = 0
        self._round = 0
        self._failed: set[object] = set()
        # Instants are seconds left to the deadline.
        self._since = 0.0
        self._not_before = float("inf")
        self._last: Failed | None = None
        self.given_up: GivenUp | None = None

    def enter(self, request: object, deadline: Deadline) -> tuple[int, float]:
        """Wait until ``request`` may be sent. Returns what ``failed`` wants to know, and the seconds to wait before.

        Raises:
            GivenUp: the host has been given up, or may not be asked again before the deadline.
            TimeoutError: the deadline passed before its turn came.
        """
        if deadline.passed:
            raise TimeoutError
        with self._changed:
            self._waiting.append(request)
            try:
                while self.given_up is None and not (self._waiting[0] is request and self._in_flight < self._limit()):
                    if deadline.passed:
                        raise TimeoutError
                    self._changed.wait(deadline.remaining())
            finally:
                self._waiting.remove(request)
                self._changed.notify_all()
            if self.given_up is not None:
                raise self.given_up
            if self._last is not None and self._not_before <= 0:
                # The requests that were under way have ended, and none has lifted the pause.
                raise GivenUp(self._last, self._failures)
            self._in_flight += 1
            if not self._failures:
                self._since = deadline.remaining()
            return self._round, deadline.remaining() - self._not_before if self._rounds else 0.0

    def _limit(self) -> float:
        if self._rounds:
            return 1
        if self._answered:
            return float("inf")
        # Without retries the first failure is the last, so one request finds out for all.
        return min(_UNPROVEN, OUTAGE_REQUESTS - self._refusals) if self._retries else 1

    def answered(self) -> None:
        """The request got an answer, good or bad: the host is there."""
        with self._changed:
            self._in_flight -= 1
            self._answered = True
            self._failures = self._rounds = 0
            self._round += 1
            self._failed.clear()
            self._not_before = float("inf")
            self._changed.notify_all()

    def refused(self, cause: Failed) -> None:
        """The request got an answer that the service never gives.

        A responder may not know a few certificates and all others. After as many requests as an outage costs, and no
        answer of the service among them, nothing more is asked.
        """
        with self._changed:
            self._in_flight -= 1
            self._refusals += 1
            if not self._answered and self._refusals >= OUTAGE_REQUESTS:
                self.give_up(cause, self._refusals)
            self._changed.notify_all()

    def failed(
        self, request: object, entered: int, cause: Failed, deadline: Deadline, delay: Callable[[int], float]
    ) -> float:
        """The request got no answer that counts. Returns the seconds until the host may be asked again.

        ``entered`` is what ``enter`` returned. ``delay`` gives the seconds for the number of rounds that failed since
        the last answer; of several failures the longest counts.
        """
        with self._changed:
            self._in_flight -= 1
            self._failures += 1
            self._last = cause
            self._failed.add(request)
            if entered == self._round:
                # Requests that were under way together fail for one reason.
                self._rounds += 1
                self._round += 1
            # One request that fails alone, where others had answers, says nothing of the host.
            exhausted = self._rounds > self._retries and not (self._answered and len(self._failed) == 1)
            too_many = self._failures >= OUTAGE_REQUESTS and self._rounds >= min(_FEWEST_ROUNDS, self._retries + 1)
            too_long = not cause.status and self._rounds > 1 and self._since - deadline.remaining() >= OUTAGE_SECONDS
            # What another attempt does not change, its certificate, is the same for every request.
            if exhausted or too_many or too_long or not cause.again:
                self.give_up(cause, self._failures)
            seconds = delay(self._rounds)
            self._not_before = min(self._not_before, deadline.remaining() - seconds)
            self._changed.notify_all()
            return seconds

    def give_up(self, cause: Failed, attempts: int = 0) -> None:
        """Ask the host nothing more, since no other request can fare better. Requests that wait end."""
        with self._changed:
            self.given_up = self.given_up or GivenUp(cause, attempts)
            self._changed.notify_all()


# These three are NVIDIA's (NVAT 2.0.0, nv_http).
CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 30.0
RETRIES: Final = 5
_MORE_TIME: Final = "give more time with --timeout, or use a bundle (nvattest bundle fetch)"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")
# NVAT begins with 0.1 s too; its cap is 30 s. With this one a whole round waits 2.5 s at most.
BACKOFF_FIRST: Final = 0.1
BACKOFF_CAP: Final = 1.0
RETRYABLE: Final = frozenset({408, 429, 500, 502, 503, 504})
_STATUSES: Final = {401: "forbidden", 403: "forbidden", 404: "not-found", 429: "rate-limited"}
_CHUNK: Final = 64 * 1024
# A request waits by itself before it asks again; what is then left of the host's pause is rounding.
_SHORTEST_PAUSE: Final = 0.001


# --- settings and services --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How to reach the services.

    ``tls_ca_cert`` and ``tls_ca_path`` name a PEM file and an OpenSSL folder of roots, trusted besides the usual ones.
    ``key_hosts`` are the base URLs that may see ``service_key``. ``rate`` bounds the requests a second (0: unbounded).

    Raises:
        InputError: a key that a header cannot carry.
    """

    service_key: str = field(default="", repr=False)
    key_hosts: tuple[str, ...] = ()
    tls_ca_cert: str | None = None
    tls_ca_path: str | None = None
    connect_timeout: float = CONNECT_TIMEOUT
    read_timeout: float = READ_TIMEOUT
    retries: int = RETRIES
    rate: float = 0.0

    def __post_init__(self) -> None:
        if self.service_key and not is_service_key(self.service_key):
            raise InputError(
                "the service key has characters that a header cannot carry", code="service-key",
                hint="give the key alone, without 'Bearer', quotes or line breaks",
            )  # fmt: skip


def is_service_key(text: str) -> bool:
    """Whether a header can carry this text as a bearer key."""
    return _KEY.fullmatch(text) is not None


def usual_roots() -> tuple[str, str | None]:
    """The variable that replaces the roots of TLS and the path in it, or two empty values: the roots of ``certifi``.

    Nothing of what a service says can be trusted further than these.
    """
    named = ((name, os.environ.get(name)) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
    return next((pair for pair in named if pair[1]), ("", None))


def check_url(url: str, option: str) -> SplitResult:
    """Read a configured base URL.

    InputError: not an http or https URL with a host, or one with a password, a query or a fragment in it.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it raises where the port is no number
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    clean = url.isascii() and url.isprintable() and " " not in url and len(url) <= 2048
    if not clean or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{option}: not an http or https URL: {url[:200]!r}", code="url")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(f"{option}: a base URL has no user name, query or fragment", code="url")
    return parts


def check_seconds(seconds: float) -> float:
    """Check a configured time limit; InputError (``timeout``) where it is not a positive number."""
    if not 0 < seconds <= LONGEST:
        raise InputError(f"not a time limit: {seconds!r}", code="timeout", hint="give a positive number of seconds")
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a service is called, the ``option`` that sets its URL, and the result code for each way in which it fails.

    Its answers have at most ``maximum`` bytes and the media type ``accept``; ``sends`` is that of a request's body.

    ``failed`` is the code where no other is given. ``unreachable``: no connection or no whole answer in time.
    ``forbidden``: 401 and 403. ``missing``: 404. ``invalid``: an answer that does not follow the protocol.

    ``keyed`` says that NVIDIA's service key opens it.

    ``begins`` is set for a service that gives each request an answer that begins so, whatever it is asked. Another
    program is there where a few requests have had other answers only; then the rest is not asked.
    """

    name: str
    option: str
    maximum: int
    accept: str = "application/json"
    sends: str = ""
    failed: ResultCode
    unreachable: ResultCode | None = None
    forbidden: ResultCode | None = None
    missing: ResultCode | None = None
    invalid: ResultCode | None = None
    begins: bytes = b""
    keyed: bool = True

    def error(
        self, message: str, *, code: str, hint: str = "", result_code: ResultCode | None = None, passing: bool = False
    ) -> CollateralError:
        """An error of this service. What failed, the ``code``, decides the result code where none is given."""
        results = {
            "rate-limited": ResultCode.RATE_LIMITED,
            "forbidden": self.forbidden,
            "not-found": self.missing,
            "http-status": self.failed,
            **dict.fromkeys(("too-large", "coding", "answer"), self.invalid),
        }
        result_code = result_code or results.get(code, self.unreachable) or self.failed
        error = CollateralError(f"{self.name}: {message}", code=code, result_code=result_code, hint=hint)
        error.passing = passing
        return error

    def unusable(self, url: str, message: str) -> CollateralError:
        """The error for an answer that does not follow the protocol."""
        hint = (
            f"another program than the {self.name} answered, or the answer is damaged; check {self.option} and proxies"
        )
        return self.error(f"{url}: {message}", code="answer", hint=hint)

    @contextmanager
    def reading(self, url: str, body: bytes) -> Iterator[None]:
        """Make the error for an unusable answer of what is wrong with the form of this one."""
        try:
            yield
        except (ParseError, UnicodeDecodeError) as error:
            raise self.unusable(url, f"{error}; it begins with {body[:40]!r}") from None

    def late(self, what: str, deadline: Deadline, hint: str = _MORE_TIME) -> CollateralError:
        """The error for an answer that has not come, or not whole, at the deadline."""
        return self.error(f"{what}: no whole answer within {deadline.seconds:g} s", code="deadline", hint=hint)

    def failure(self, what: str, got: object, deadline: Deadline) -> CollateralError:
        """The error for what a job of ``run_all`` gave in the place of an answer.

        A setting that cannot be used (InputError) is the caller's mistake, not a failure of the network: it is raised.
        """
        if isinstance(got, InputError):
            raise got
        if isinstance(got, CollateralError):
            return got
        if isinstance(got, Late):
            return self.late(what, deadline)
        # A mistake of this program must neither become trust nor hide.
        return self.error(f"{what}: {got!r}"[:500], code="collateral", result_code=ResultCode.INTERNAL_ERROR)


# --- the client -------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A body with status 200, and the headers that came with it, whose names have no case."""

    content: bytes
    headers: Mapping[str, str]


class HttpClient:
    """Exchanges with retries. One client may be used by several threads; ``close`` it when done.

    ``sleep``, ``jitter`` (a number from 0 to 1) and ``clock`` are arguments for tests.
    """

    def __init__(
        self,
        settings: HttpSettings | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings if settings is not None else HttpSettings()
        self._sleep = sleep
        self._jitter = jitter
        self._clock = clock
        self._next_slot = clock()
        self._origins = frozenset(_origin(check_url(url, "service URL")) for url in self.settings.key_hosts)
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._run: Deadline | None = None
        self._hosts: dict[tuple[str, str, int], Host] = {}

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections, also those whose answers are late, so that no thread waits for them any more."""
        with self._lock:
            session, self._session = self._session, None
            hosts, self._hosts = self._hosts, {}
        for host in hosts.values():
            host.give_up(Failed("the client was closed", "closed"))
        if session is not None:
            session.close()

    def exchange(self, service: Service, url: str, deadline: Deadline, body: bytes | None = None) -> Answer:
        """The answer with status 200 to a GET, or to a POST of the ``body``.

        No time limit of a socket ends an answer that comes byte by byte: callers give it up (``fetch``, ``run_all``).

        Connection errors and the statuses 408, 429, 500, 502, 503 and 504 are tried again up to five times, with
        full-jitter backoff from 100 ms to 1 s and never before ``Retry-After``; never beyond the deadline. Exchanges
        with one deadline are a run: a host that fails for a whole round of it is not asked again (``Host``).

        Raises:
            CollateralError: there is no such answer; it names the URL, the attempts and the cause.
        """
        attempts = 0
        request, host = object(), self._host(url, deadline)
        while True:
            try:
                entered, pause = host.enter(request, deadline)
            except GivenUp as error:
                times = counted(error.attempts, "failed attempt", "failed attempts in a row")
                again = " again" if attempts else ""
                said = f"not asked{again}: the host was given up after {times}, the last with: {error.cause.cause}"
                raise _error(service, url, error.cause, said) from None
            except TimeoutError:
                raise service.error(
                    f"{url}: the time limit of {deadline.seconds:g} s had passed; {attempts} attempts", code="deadline",
                    hint=_MORE_TIME,
                ) from None  # fmt: skip
            attempts += 1
            try:
                pause = max(pause, self._until_slot())
                if pause >= _SHORTEST_PAUSE:
                    self._sleep(min(pause, deadline.remaining()))
                answer = self._once(service, url, deadline, body)
            except Failed as error:
                failed = error
            except BaseException:
                host.answered()
                raise
            else:
                if answer.content.startswith(service.begins):
                    host.answered()
                    return answer
                failed = Failed(f"not an answer: it begins with {answer.content[:40]!r}", "answer")
            delay = 0.0
            if failed.again or failed.code == "tls":
                delay = host.failed(request, entered, failed, deadline, partial(self._delay, failed, attempts))
            elif service.begins:
                host.refused(failed)
            else:
                host.answered()
            no_more = attempts > self.settings.retries or host.given_up is not None
            if not failed.again or no_more or delay >= deadline.remaining():
                said = f"{failed.cause}; {counted(attempts, 'attempt')}"
                if failed.request_id:
                    said += f", request {failed.request_id}"
                if failed.again and not no_more:
                    said += f", and the time limit of {deadline.seconds:g} s leaves no time for another"
                    if failed.retry_after:
                        said += f" (the service asks to wait {failed.retry_after:.0f} s)"
                withheld = bool(self.settings.service_key) and not self._may_see_key(url)
                raise _error(service, url, failed, said, withheld=withheld)
            self._sleep(delay)

    def fetch(self, service: Service, url: str, deadline: Deadline) -> bytes:
        """The body that ``exchange`` gets for a URL, or its error; at the deadline, whatever the server does."""
        try:
            return Work("fetch", lambda: self.exchange(service, url, deadline).content).result(deadline)
        except Late:
            # Without its connection the late thread ends.
            self.close()
            raise service.late(url, deadline, "check the URL and what answers there") from None

    def look(self, url: str, *, deadline: Deadline) -> tuple[int, str]:
        """The status of one answer, whatever it is, and its ``Date``. A job of ``run_all`` calls it.

        Without an answer it raises what ``requests`` does; InputError for roots that cannot be read.
        """
        with self._request(url, deadline) as response:
            return response.status_code, response.headers.get("Date", "")

    def _until_slot(self) -> float:
        """Seconds until the settings' rate allows one more request, which is then taken."""
        if not self.settings.rate:
            return 0.0
        with self._lock:
            slot = max(self._clock(), self._next_slot)
            self._next_slot = slot + 1.0 / self.settings.rate
        return slot - self._clock()

    def _host(self, url: str, deadline: Deadline) -> Host:
        with self._lock:
            if deadline is not self._run:
                self._run, self._hosts = deadline, {}
            return self._hosts.setdefault(_origin(urlsplit(url)), Host(self.settings.retries))

    def _delay(self, failed: Failed, attempts: int, rounds: int) -> float:
        ceiling = min(BACKOFF_CAP, BACKOFF_FIRST * 2.0 ** (max(attempts, rounds) - 1))
        return max(ceiling * self._jitter(), failed.retry_after)

    def _once(self, service: Service, url: str, deadline: Deadline, body: bytes | None) -> Answer:
        """One attempt; ``Failed`` where it has no answer with status 200 that is whole and small enough."""
        import http.client

        import requests
        import urllib3

        try:
            what = f"{'GET' if body is None else 'POST'} {url}"
            with waiting("http", what), self._request(url, deadline, service, body) as response:
                return Answer(_read(response, service.maximum, deadline), response.headers)
        except requests.exceptions.SSLError as error:
            raise Failed(f"TLS: {_cause(error)}", "tls", again="certificate verify failed" not in str(error)) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise Failed(_cause(error), "url") from None
        except (
            requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError,
        ) as error:  # fmt: skip
            raise Failed(_cause(error), "connection", again=True) from None

    def _request(
        self, url: str, deadline: Deadline, service: Service | None = None, body: bytes | None = None
    ) -> Response:
        left, connect, read = deadline.remaining(), self.settings.connect_timeout, self.settings.read_timeout
        # No content coding: an answer is as large as it says, and cannot be inflated here.
        headers = {"User-Agent": f"nvattest/{__version__}", "Accept-Encoding": "identity"}
        if service is not None:
            headers["Accept"] = service.accept
            if body is not None:
                headers["Content-Type"] = service.sends
        return self._open().request(
            "GET" if body is None else "POST",
            url,
            data=body,
            headers=headers,
            # Any auth of ours keeps requests from looking for one in ~/.netrc.
            auth=self._authorize,
            allow_redirects=False,
            stream=True,
            timeout=(max(0.001, min(connect, left)), max(0.001, min(read, left))),
        )

    def _may_see_key(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme == "https" and _origin(parts) in self._origins

    def _authorize(self, request: Any) -> Any:
        if self.settings.service_key and self._may_see_key(request.url):
            request.headers["Authorization"] = f"Bearer {self.settings.service_key}"
        return request

    def _open(self) -> Session:
        with self._lock:
            if self._session is None:
                from nvattest.collateral._requests import make_session

                self._session = make_session(usual_roots()[1], self.settings.tls_ca_cert, self.settings.tls_ca_path)
            return self._session


def _read(response: Any, maximum: int, deadline: Deadline) -> bytes:
    status: int = response.status_code
    if status != 200:
        cause = f"HTTP status {status}"
        if 300 <= status < 400:
            cause += f", a redirect to {response.headers.get('Location', 'nowhere')[:200]!r}, which is not followed"
        request_id = re.sub(r"[^\x21-\x7e]", "", response.headers.get("x-request-id", ""))[:80]
        code = _STATUSES.get(status, "http-status")
        raise Failed(cause, code, status in RETRYABLE, status, _retry_after(response.headers), request_id)
    coding = response.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise Failed(f"the answer has the content coding {coding[:40]!r}, which was not asked for", "coding")
    expected = decimal(response.headers.get("Content-Length", ""))
    if expected is not None and expected > maximum:
        raise Failed(f"an answer of {expected} bytes; at most {maximum} are read", "too-large")
    body = bytearray()
    while chunk := response.raw.read(_CHUNK, decode_content=False):
        body += chunk
        if len(body) > maximum:
            raise Failed(f"an answer of more than {maximum} bytes", "too-large")
        if deadline.passed:
            raise Failed(f"the answer was still coming after {deadline.seconds:g} s", "deadline")
    if expected is not None and len(body) != expected:
        raise Failed(f"the answer was cut off after {len(body)} of {expected} bytes", "connection", again=True)
    return bytes(body)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from a number or from a date that is compared with the server's own clock (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    from email.utils import parsedate_to_datetime

    with suppress(TypeError, ValueError, IndexError, OverflowError):
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds())
    return 0.0


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def _cause(error: BaseException) -> str:
    """The innermost reason in one line; the layers of requests and urllib3 say the same thing three times."""
    reason: BaseException = error
    for _ in range(8):
        inner = getattr(reason, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((item for item in reason.args if isinstance(item, BaseException)), None)
        if inner is None:
            break
        reason = inner
    if type(reason).__name__ == "BadStatusLine":
        # Its text is what came, which says nothing about the cause.
        return f"not an answer in HTTP: it begins with {str(reason)[:40]!r}"
    text = re.sub(r"^(<[^<>]*object at 0x[0-9a-f]+>|\w+\(host=[^()]*\)):? ?", "", str(reason)) or type(reason).__name__
    # It may quote what a server wrote.
    text = clean(" ".join(text.split()), 300)
    return re.sub(r"^IncompleteRead\((.*)\)$", r"the answer was cut off: \1", text)


def _error(service: Service, url: str, failed: Failed, said: str, *, withheld: bool = False) -> CollateralError:
    """The error for a failed attempt. ``withheld``: the key was not sent."""
    foreign = f"another program than the {service.name} answered; check {service.option} and proxies"
    hints = {
        "rate-limited": "wait, use a service key, or keep a cache or bundle",
        "forbidden": "check --service-key (NV_ATTESTATION_SERVICE_KEY)",
        "not-found": "check the URL",
        "http-status": "try again later, or use a bundle",
        "tls": "name the CA of your proxy or mirror with --tls-ca-cert",
        "url": "check the URL and the proxy variables (HTTPS_PROXY)",
        **dict.fromkeys(("too-large", "coding", "answer"), foreign),
    }
    if not service.keyed:
        hints["rate-limited"] = "wait, or keep a cache or bundle"
        hints["forbidden"] = f"check {service.option} and proxies"
    elif withheld:
        hints["forbidden"] = "the service key was not sent: it goes to the configured hosts only, and only over https"
    hint = hints.get(failed.code, "check the network and proxies, or use a bundle (nvattest bundle fetch)")
    passing = failed.code == "connection" or failed.status >= 500
    return service.error(f"{url}: {said}", code=failed.code, hint=hint, passing=passing)
