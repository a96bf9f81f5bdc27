"""The faults that loopback services can have, and the log of their requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from nvattest.errors import InputError

__all__ = ["Exchange", "ServiceFault", "ServiceFaultKind"]

SERVICES = ("rim", "ocsp", "nras", "jwks")
_TEXT = re.compile(r"(?:(rim|ocsp|nras|jwks):)?([a-z0-9-]+)(?:=([^*@]+))?(?:@([^*]+))?(?:\*(\d+))?")


class ServiceFaultKind(Enum):
    """One way to be wrong; ``MEANINGS`` says what each does."""

    SLOW = "slow"
    STATUS = "status"
    RATE_LIMITED = "rate-limited"
    CUT = "cut"
    DROP = "drop"
    TRICKLE = "trickle"
    HUGE = "huge"
    HTML = "html"
    REDIRECT = "redirect"
    GZIP = "gzip"
    WRONG_ID = "wrong-id"
    WRONG_SHA256 = "wrong-sha256"
    OTHER_RIM = "other-rim"
    OTHER_CERTIFICATE = "other-certificate"
    WRONG_KEY = "wrong-key"
    OTHER_NONCE = "other-nonce"
    ROTATED_KEY = "rotated-key"


# What the value is, if there is one ([…]: it may be left out), and what the service does.
MEANINGS = {
    ServiceFaultKind.SLOW: ("SECONDS", "waits before the answer"),
    ServiceFaultKind.STATUS: ("NUMBER", "answers with this HTTP status instead of 200"),
    ServiceFaultKind.RATE_LIMITED: ("[SECONDS]", "answers 429 with this Retry-After (1)"),
    ServiceFaultKind.CUT: ("", "sends half of the answer, then the connection ends"),
    ServiceFaultKind.DROP: ("", "ends the connection without an answer"),
    ServiceFaultKind.TRICKLE: ("SECONDS", "sends one byte at a time, so far apart"),
    ServiceFaultKind.HUGE: ("[MIB]", "sends so many MiB without saying so beforehand"),
    ServiceFaultKind.HTML: ("", "sends a page for people, with status 200"),
    ServiceFaultKind.REDIRECT: ("URL", "leads to this URL"),
    ServiceFaultKind.GZIP: ("", "uses a content coding that was not asked for"),
    ServiceFaultKind.WRONG_ID: ("", "gives a RIM under another id"),
    ServiceFaultKind.WRONG_SHA256: ("", "gives a RIM with another digest beside it"),
    ServiceFaultKind.OTHER_RIM: ("ID", "gives this RIM under the id that was asked for"),
    ServiceFaultKind.OTHER_CERTIFICATE: ("", "gives the answer of the request before; the first one is honest"),
    ServiceFaultKind.WRONG_KEY: ("", "signs with a key that is not in its key set"),
    ServiceFaultKind.OTHER_NONCE: ("", "answers for another nonce"),
    ServiceFaultKind.ROTATED_KEY: ("", "has the signing key from its second answer on"),
}
# The form of the value of those that need one.
_NEEDS_VALUE = {
    ServiceFaultKind.SLOW: r"[0-9]+(\.[0-9]+)?",
    ServiceFaultKind.STATUS: r"[1-5][0-9]{2}",
    ServiceFaultKind.TRICKLE: r"[0-9]+(\.[0-9]+)?",
    ServiceFaultKind.HUGE: r"[0-9]{0,4}",
    ServiceFaultKind.REDIRECT: r".+",
    ServiceFaultKind.OTHER_RIM: r".+",
}
# Faults of the answers of one service. Another one cannot have them, and a test with such a fault would prove nothing.
ONLY = {
    ServiceFaultKind.WRONG_ID: "rim",
    ServiceFaultKind.WRONG_SHA256: "rim",
    ServiceFaultKind.OTHER_RIM: "rim",
    ServiceFaultKind.OTHER_CERTIFICATE: "ocsp",
    ServiceFaultKind.WRONG_KEY: "nras",
    ServiceFaultKind.OTHER_NONCE: "nras",
    ServiceFaultKind.ROTATED_KEY: "jwks",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFault:
    """A fault: of one service or of all, for requests with ``key`` in them, the first ``times`` such requests or all.

    ``key`` is a RIM id or the serial number of a certificate in lower-case hexadecimal.
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
            InputError: not such a text, no such fault, one that this service cannot have, or a value that is none.
        """
        match = _TEXT.fullmatch(text)
        known = {kind.value: kind for kind in ServiceFaultKind}
        if match is None or match[2] not in known:
            raise InputError(
                f"not a fault of a service: {text[:80]!r}",
                code="fault",
                hint=f"write [SERVICE:]FAULT[=VALUE][@KEY][*TIMES]; services are {', '.join(SERVICES)}, "
                f"faults are {', '.join(known)}",
            )
        kind = known[match[2]]
        only = ONLY.get(kind)
        if only is not None and match[1] not in (None, only):
            raise InputError(
                f"{match[1]} cannot have the fault {kind.value}", code="fault", hint=f"write {only}:{kind.value}"
            )
        form = _NEEDS_VALUE.get(kind)
        if form is not None and re.fullmatch(form, match[3] or "", re.ASCII) is None:
            value, meaning = MEANINGS[kind]
            raise InputError(
                f"the fault {kind.value} needs a value: {text[:80]!r}",
                code="fault",
                hint=f"write {kind.value}={value}: the service {meaning}",
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


def count_waves(log: list[Exchange]) -> int:
    """How many times a client waited for all answers before it asked on: exchanges that overlap are one wave."""
    waves = 0
    end = float("-inf")
    for item in sorted(log, key=lambda exchange: exchange.started):
        if item.started >= end:
            waves += 1
        end = max(end, item.ended)
    return waves
