"""NVIDIA's services on the loopback, over a simulated platform: RIM service, OCSP responder, NRAS with its JWKS; for a
simulated guest also the service of its CPU's maker: Intel's PCS (or a PCCS), or AMD's KDS.

    with Services(platform, faults=("rim:status=500*2",)) as services:
        ...  # services.rim_url, services.ocsp_url, services.nras_url
        print(services.log)

Each service has a port of its own, as NVIDIA's have hosts of their own: an outage of one leaves the others up. All
answer in threads and log every request. ``ServiceFault`` says what can go wrong. Nothing waits on a clock: a slow
answer ends at once when the services are closed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import secrets
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from enum import Enum
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp

from nvattest._text import with_suggestion
from nvattest.errors import InputError
from nvattest.model import DeviceKind
from nvattest.testing import certificates
from nvattest.testing.platform import Platform

if TYPE_CHECKING:
    from nvattest.testing.cpu import SimulatedGuest
    from nvattest.testing.services_nras import NrasIssuer

_JSON, _OCSP = "application/json", "application/ocsp-response"
# Method, path and service; the group is what the service is asked for.
_ROUTES = (
    ("GET", r"/v1/rim/(.*)", "rim"),
    ("GET", r"/\.well-known/jwks\.json()", "jwks"),
    ("GET", r"(/|/health)", "health"),
    ("GET", r"(/(?:tdx|sgx)/certification/.+|/IntelSGXRootCA\.der.*)", "pcs"),
    ("GET", r"(/(?:vcek|vlek)/v1/.+)", "kds"),
    ("POST", r"/v[34]/attest/(gpu|switch)", "nras"),
    ("POST", r"/ocsp/*", "ocsp"),
)
_KINDS = {"gpu": DeviceKind.GPU, "switch": DeviceKind.NVSWITCH}
_NEEDS_KEY = frozenset({"rim", "ocsp", "nras"})
_MAXIMUM_BODY = 16 * 1024 * 1024
_TOO_LARGE = "the body is too large"


_SECONDS = r"[0-9]+(\.[0-9]+)?"
SERVICES = ("rim", "ocsp", "nras", "jwks", "pcs", "kds")
_TEXT = re.compile(r"(?:(rim|ocsp|nras|jwks|pcs|kds):)?([a-z0-9-]+)(?:=([^*@]+))?(?:@([^*]+))?(?:\*(\d+))?")


class ServiceFaultKind(Enum):
    """One way to be wrong: its word, the value that it takes ([…]: it may be left out), and what the service does.

    ``form`` is the form of a value that is needed. ``only`` is the one service whose answers can have the fault: for
    another it would change nothing, and a test with it would prove nothing.
    """

    argument: str
    meaning: str
    form: str
    only: str

    SLOW = "slow", "SECONDS", "waits before the answer", _SECONDS
    STATUS = "status", "NUMBER", "answers with this HTTP status instead of 200", r"[1-5][0-9]{2}"
    RATE_LIMITED = "rate-limited", "[SECONDS]", "answers 429 with this Retry-After (1)"
    CUT = "cut", "", "sends half of the answer, then the connection ends"
    DROP = "drop", "", "ends the connection without an answer"
    TRICKLE = "trickle", "SECONDS", "sends one byte at a time, so far apart", _SECONDS
    HUGE = "huge", "[MIB]", "sends so many MiB without saying so beforehand", r"[0-9]{0,4}"
    HTML = "html", "", "sends a page for people, with status 200"
    REDIRECT = "redirect", "URL", "leads to this URL", r".+"
    GZIP = "gzip", "", "uses a content coding that was not asked for"
    WRONG_ID = "wrong-id", "", "gives a RIM under another id", "", "rim"
    WRONG_SHA256 = "wrong-sha256", "", "gives a RIM with another digest beside it", "", "rim"
    OTHER_RIM = "other-rim", "ID", "gives this RIM under the id that was asked for", r".+", "rim"
    OTHER_CERTIFICATE = (
        "other-certificate", "", "gives the answer of the request before; the first one is honest", "", "ocsp",
    )  # fmt: skip
    WRONG_KEY = "wrong-key", "", "signs with a key that is not in its key set", "", "nras"
    OTHER_NONCE = "other-nonce", "", "answers for another nonce", "", "nras"
    ROTATED_KEY = "rotated-key", "", "has the signing key from its second answer on", "", "jwks"

    def __new__(cls, word: str, argument: str, meaning: str, form: str = "", only: str = "") -> ServiceFaultKind:
        kind = object.__new__(cls)
        kind._value_ = word
        kind.argument, kind.meaning, kind.form, kind.only = argument, meaning, form, only
        return kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFault:
    """A fault: of one service or of all, for requests with ``key`` in them, the first ``times`` such requests or all.

    ``key`` is a RIM id, the serial number of a certificate in lower-case hexadecimal, or a path of PCS or KDS.
    """

    kind: ServiceFaultKind
    service: str = ""
    value: str = ""
    key: str = ""
    times: int | None = None

    @classmethod
    def parse(cls, text: str) -> ServiceFault:
        """Read ``[SERVICE:]FAULT[=VALUE][@KEY][*TIMES]``, such as ``rim:status=500*2``.

        Raises:
            InputError: not such a text, no such fault, one that this service cannot have, or a value of another form.
        """
        match = _TEXT.fullmatch(text)
        known = {kind.value: kind for kind in ServiceFaultKind}
        if match is None or match[2] not in known:
            rule = (
                f"write [SERVICE:]FAULT[=VALUE][@KEY][*TIMES]; services are {', '.join(SERVICES)}, "
                f"faults are {', '.join(known)}"
            )
            raise InputError(
                f"not a fault of a service: {text[:80]!r}",
                code="fault",
                hint=with_suggestion(match[2] if match is not None else "", known, rule),
            )
        kind = known[match[2]]
        if kind.only and match[1] not in (None, kind.only):
            raise InputError(
                f"{match[1]} cannot have the fault {kind.value}", code="fault", hint=f"write {kind.only}:{kind.value}"
            )
        if kind.form and re.fullmatch(kind.form, match[3] or "", re.ASCII) is None:
            raise InputError(
                f"the fault {kind.value} needs a value: {text[:80]!r}",
                code="fault",
                hint=f"write {kind.value}={kind.argument}: the service {kind.meaning}",
            )
        return cls(
            kind=kind,
            service=match[1] or "",
            value=match[3] or "",
            key=match[4] or "",
            times=int(match[5]) if match[5] else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and what became of it; ``started`` and ``ended`` are seconds on the monotonic clock."""

    service: str
    key: str
    status: int
    started: float
    ended: float
    authorization: str
    user_agent: str
    fault: str


Faults = Mapping[ServiceFaultKind, str]


class _Answer(NamedTuple):
    status: int
    kind: str
    content: bytes
    headers: Mapping[str, str] = MappingProxyType({})


def wall_clock() -> datetime:
    """The clock of NVIDIA's services: each answer is stamped with the time of its request."""
    return datetime.now(timezone.utc)


class Services:
    """The services of one platform, running from construction to ``close``.

    Args:
        platform: whose RIMs, answers and verdicts they give; its lies are theirs.
        guest: whose CPU the maker's service answers about; without one it answers 404.
        faults: what goes wrong on the wire, as objects or as text.
        delay: seconds before every answer, or those of each service by its name.
        service_key: what every request has to carry as a bearer token; an empty text demands none.
        tls: speak https, under a CA of its own (``ca_pem``).
        now: the services' clock, which stamps answers and tokens. By default it stands still at the platform's; give
            ``wall_clock`` where a live client asks.

    Attributes:
        rim_url, ocsp_url, nras_url: for the options of these names; ``nras_url`` is the issuer of its tokens.
        maker_url: the base URL of Intel's or AMD's service: of PCS, of the host with the root's list, and of KDS.
        url: a base URL for all: every port answers for every service, as one mirror of NVIDIA's would.
        log: all requests so far, in the order of their answers.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        guest: SimulatedGuest | None = None,
        faults: Iterable[ServiceFault | str] = (),
        delay: float | Mapping[str, float] = 0.0,
        service_key: str = "",
        tls: bool = False,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.platform, self.guest, self.delay = platform, guest, delay
        self.log: list[Exchange] = []
        self.now = now if now is not None else lambda: platform.clock
        self._service_key = service_key
        self._faults = [fault if isinstance(fault, ServiceFault) else ServiceFault.parse(fault) for fault in faults]
        self._used = [0] * len(self._faults)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._last_answer = b""
        self._jwks_answers = 0
        self.ca_pem, context = _loopback_tls() if tls else (b"", None)
        self._servers = [_Server(self, context) for _ in range(4)]
        scheme = "https" if tls else "http"
        bases = [f"{scheme}://127.0.0.1:{server.server_address[1]}" for server in self._servers]
        self.rim_url, ocsp_base, self.nras_url, self.maker_url = bases
        self.url, self.ocsp_url = self.rim_url, f"{ocsp_base}/ocsp"

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and end all connections."""
        self._closing.set()
        for server in self._servers:
            server.stop()

    @cached_property
    def nras(self) -> NrasIssuer:
        """The NRAS issuer, made when it is first needed."""
        from nvattest.testing.services_nras import NrasIssuer

        return NrasIssuer(self.platform)

    @property
    def nras_ca_pem(self) -> bytes:
        """The root of the certificates in the JWKS."""
        return self.nras.ca_pem

    def requests(self, service: str) -> list[str]:
        """The keys that one service was asked for: RIM ids, or serial numbers in hexadecimal."""
        return [item.key for item in self.log if item.service == service]

    @property
    def waves(self) -> int:
        """How many times the client waited for all its answers before it asked on: overlapping exchanges are one."""
        waves, end = 0, float("-inf")
        for item in sorted(self.log, key=lambda exchange: exchange.started):
            waves += item.started >= end
            end = max(end, item.ended)
        return waves

    def forget(self) -> None:
        """Empty the log."""
        self.log.clear()

    def delay_of(self, service: str) -> float:
        """Seconds before an answer of this service."""
        return self.delay.get(service, 0.0) if isinstance(self.delay, Mapping) else self.delay

    def date(self) -> str:
        """The clock of the services as the header ``Date`` has it."""
        return format_datetime(self.now().astimezone(timezone.utc), usegmt=True)

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than the services are up."""
        if seconds > 0:
            self._closing.wait(seconds)

    def faults_for(self, service: str, key: str) -> Faults:
        """The faults of this request; it counts against those that end after some requests."""
        found = {}
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.service not in ("", service) or fault.key not in key:
                    continue
                if fault.times is None or self._used[index] < fault.times:
                    self._used[index] += 1
                    found[fault.kind] = fault.value
        return found

    def answer(self, service: str, key: str, body: bytes, authorization: str, faults: Faults) -> _Answer:
        """What the service answers, faults on the wire aside."""
        if service == "rim":
            answer = self._rim(key, faults)
        elif service == "ocsp":
            answer = self._ocsp(body, faults)
        elif service == "nras":
            answer = self._attest(key, body, faults)
        elif service == "jwks":
            answer = self._jwks(faults)
        elif service in ("pcs", "kds"):
            answer = self._of_maker(key)
        elif service == "health":
            answer = _Answer(
                200, _JSON, b'"https://docs.attestation.nvidia.com"' if key == "/" else b'{"status": "UP"}'
            )
        else:
            answer = _Answer(404, "text/plain", b"no such service")
        if self._service_key and service in _NEEDS_KEY and authorization != f"Bearer {self._service_key}":
            answer = _Answer(403 if authorization else 401, _JSON, b'{"message": "Unauthorized"}')
        return answer

    def _rim(self, rim_id: str, faults: Faults) -> _Answer:
        content = self.platform.rim(faults.get(ServiceFaultKind.OTHER_RIM, rim_id))
        if content is None:
            error = {"error": "RIM_NOT_FOUND", "message": f"no RIM {rim_id}"}
            return _Answer(404, _JSON, json.dumps(error).encode())
        digest = hashlib.sha256(content).hexdigest()
        answer = {
            "id": rim_id + "X" if ServiceFaultKind.WRONG_ID in faults else rim_id,
            "rim": base64.b64encode(content).decode(),
            "sha256": digest[::-1] if ServiceFaultKind.WRONG_SHA256 in faults else digest,
            "last_updated": "2026-10-01T00:00:00.000000",
            "rim_format": "TCG",
            "request_id": "00000000-0000-0000-0000-000000000000",
        }
        return _Answer(200, _JSON, json.dumps(answer).encode())

    def _ocsp(self, request: bytes, faults: Faults) -> _Answer:
        answer = self.platform.ocsp(request, self.now())
        with self._lock:
            other, self._last_answer = self._last_answer, answer
        return _Answer(200, _OCSP, other or answer if ServiceFaultKind.OTHER_CERTIFICATE in faults else answer)

    def _attest(self, kind: str, body: bytes, faults: Faults) -> _Answer:
        try:
            token = self.nras.attest(
                body,
                self.nras_url,
                kind=_KINDS[kind],
                now=self.now(),
                signer="wrong" if ServiceFaultKind.WRONG_KEY in faults else "right",
                nonce="ab" * 32 if ServiceFaultKind.OTHER_NONCE in faults else "",
            )
        except InputError as error:
            return _Answer(400, _JSON, json.dumps({"error": str(error)[:200]}).encode())
        return _Answer(200, _JSON, token)

    def _of_maker(self, target: str) -> _Answer:
        url = urlsplit(target)
        found = None if self.guest is None else self.guest.serve(url.path, dict(parse_qsl(url.query)))
        if found is None:
            return _Answer(404, "text/plain", b"")
        kind, headers, content = found
        return _Answer(200, kind, content, {"Request-ID": "simulated", **headers})

    def _jwks(self, faults: Faults) -> _Answer:
        with self._lock:
            self._jwks_answers += 1
            first = self._jwks_answers == 1
        with_key = not (first and ServiceFaultKind.ROTATED_KEY in faults)
        return _Answer(200, _JSON, self.nras.jwks(with_key=with_key))


def _loopback_tls() -> tuple[bytes, ssl.SSLContext]:
    """A CA that no client trusts by default, in PEM, and a TLS context for a server on 127.0.0.1 below it."""
    now = wall_clock()  # TLS is judged by the real clock
    authorities = certificates.Authorities(certificates.KeyRing(secrets.randbits(64)), now)

    validity = (now - timedelta(days=1), now + timedelta(days=30))
    subjects = [certificates.name(("CN", word), ("O", certificates.SIMULATION)) for word in ("CA", "localhost")]
    usage = certificates.basic_constraints(ca=True), certificates.key_usage("keyCertSign,cRLSign")
    ca = authorities.template("CA", subjects[0], validity, *usage, *certificates.KeyId)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    usage = certificates.basic_constraints(ca=False), certificates.key_usage("digitalSignature")
    extensions = (*usage, certificates.extension(names), *certificates.KeyId)
    leaf = authorities.template("localhost", subjects[1], validity, *extensions, issuer=ca.key)
    server, root = authorities.chain([leaf, ca])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # OpenSSL reads a chain with its key from a file only.
    with tempfile.NamedTemporaryFile(prefix="nvattest-", suffix=".pem") as file:
        file.write(certificates.pem([server.der]))
        private = authorities.keys.key("localhost").private
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        context.load_cert_chain(file.name)
    return certificates.pem([root.der]), context


class _Server(ThreadingHTTPServer):
    """One port, served from construction to ``stop``."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, services: Services, context: ssl.SSLContext | None) -> None:
        self.services = services
        self._context = context
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="nvattest-services", daemon=True)
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._context is not None:
            # The handshake runs in the thread of the connection.
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._guard:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is printed where a client went away or did not trust our certificate."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Head and body are written at once; a delayed acknowledgement would cost 40 ms otherwise.
    disable_nagle_algorithm = True
    timeout = 30

    def do_GET(self) -> None:
        self._serve(b"")

    do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

    def do_POST(self) -> None:
        try:
            body = self._body()
        except ValueError as error:
            self.send_error(413 if str(error) == _TOO_LARGE else 400, str(error))
        else:
            self._serve(body)

    def _body(self) -> bytes:
        """The whole body, of a length that is named or in chunks, as some clients send it.

        Raises:
            ValueError: it is too large, cut off, or has no length that can be read.
        """
        coding = self.headers.get("Transfer-Encoding")
        if coding is None:
            return self._read(_number(self.headers.get("Content-Length", "0"), 10), 0)
        if coding.lower() != "chunked":
            raise ValueError("unknown transfer coding")
        parts: list[bytes] = []
        size = 0
        while length := _number(self.rfile.readline(256).split(b";")[0].strip().decode("latin-1"), 16):
            parts.append(self._read(length, size))
            size += length
            if self.rfile.readline(3) != b"\r\n":
                raise ValueError("a chunk does not end where it says")
        while self.rfile.readline(4096).strip():
            pass
        return b"".join(parts)

    def _read(self, length: int, before: int) -> bytes:
        if before + length > _MAXIMUM_BODY:
            raise ValueError(_TOO_LARGE)
        data = self.rfile.read(length)
        if len(data) != length:
            raise ValueError("the body was cut off")
        return data

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - its signature
        """Answer a malformed request in JSON, as NVIDIA's services do; an unknown method is 405, not 501."""
        self.close_connection = True
        content = json.dumps({"error": message or HTTPStatus(code).phrase}).encode()
        headers = {"Content-Type": _JSON, "x-request-id": "simulated", "Connection": "close"}
        with contextlib.suppress(OSError):
            self._write(405 if code == HTTPStatus.NOT_IMPLEMENTED else code, headers, content, {})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is printed; the services keep a log."""

    def _serve(self, body: bytes) -> None:
        started = time.monotonic()
        services = self.server.services
        service, key = self._route(body)
        faults = services.faults_for(service, key)
        services.wait(services.delay_of(service) + float(faults.get(ServiceFaultKind.SLOW) or 0))
        authorization = self.headers.get("Authorization", "")
        status, kind, content, more = services.answer(service, key, body, authorization, faults)
        headers = {"Content-Type": kind, "x-request-id": "simulated", **more}
        if ServiceFaultKind.RATE_LIMITED in faults:
            status, content = 429, b"slow down"
            headers["Retry-After"] = faults[ServiceFaultKind.RATE_LIMITED] or "1"
        if ServiceFaultKind.REDIRECT in faults:
            status, content, headers["Location"] = 302, b"", faults[ServiceFaultKind.REDIRECT]
        if ServiceFaultKind.STATUS in faults:
            status, content = int(faults[ServiceFaultKind.STATUS]), b"simulated"
        if ServiceFaultKind.HTML in faults:
            headers["Content-Type"], content = "text/html", b"<!DOCTYPE html><html><body>Sign in</body></html>"
        if ServiceFaultKind.GZIP in faults:
            import gzip

            headers["Content-Encoding"], content = "gzip", gzip.compress(content)
        services.log.append(
            Exchange(
                service=service,
                key=key,
                status=status,
                started=started,
                ended=time.monotonic(),
                authorization=authorization,
                user_agent=self.headers.get("User-Agent", ""),
                fault=",".join(sorted(fault.value for fault in faults)),
            )
        )
        # A client that gives up is no error of ours.
        with contextlib.suppress(OSError):
            self._write(status, headers, content, faults)

    def _route(self, body: bytes) -> tuple[str, str]:
        """The service that is asked, and for what."""
        for method, form, service in _ROUTES:
            match = re.fullmatch(form, self.path)
            if match is not None and method == self.command.replace("HEAD", "GET"):
                return service, _serial(body) if service == "ocsp" else match[1]
        return "", self.path

    def _write(self, status: int, headers: dict[str, str], content: bytes, faults: Faults) -> None:
        if ServiceFaultKind.DROP in faults:
            self.close_connection = True
            return
        services, huge = self.server.services, faults.get(ServiceFaultKind.HUGE)
        if huge is None:
            headers["Content-Length"] = str(len(content))
        else:
            headers["Connection"] = "close"
        headers["Date"] = services.date()
        if self.command == "HEAD":
            content = b""
        lines = [f"HTTP/1.1 {status} Simulated", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        if huge is not None:
            self.close_connection = True
            self.wfile.write(head)
            for _ in range(int(huge or "8") * 16):
                self.wfile.write(b" " * 65536)
        elif ServiceFaultKind.CUT in faults:
            self.close_connection = True
            self.wfile.write(head + content[: len(content) // 2])
        elif ServiceFaultKind.TRICKLE in faults:
            self.wfile.write(head)
            for byte in content:
                self.wfile.write(bytes([byte]))
                services.wait(float(faults[ServiceFaultKind.TRICKLE]))
        else:
            self.wfile.write(head + content)


def _number(text: str, base: int) -> int:
    if not re.fullmatch(r"[0-9]{1,16}" if base == 10 else r"[0-9a-fA-F]{1,16}", text):
        raise ValueError("the length of the body is no number")
    return int(text, base)


def _serial(request: bytes) -> str:
    try:
        return f"{ocsp.load_der_ocsp_request(request).serial_number:x}"
    except ValueError:
        return re.sub(rb"[^\x21-\x7e]", b"?", request[:16]).decode()
