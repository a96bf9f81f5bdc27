"""What the loopback services can be told to do wrong, and the log of what they were asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from nvattest.errors import InputError

__all__ = ["Exchange", "ServiceFault", "ServiceFaultKind"]

SERVICES = ("rim", "ocsp", "nras", "jwks")
_TEXT = re.compile(r"(?:(rim|ocsp|nras|jwks):)?([a-z0-9-]+)(?:=([^*@]+))?(?:@([^*]+))?(?:\*(\d+))?")


class ServiceFaultKind(Enum):
    """One way to be wrong. A comment says what the value is, if there is one."""

    SLOW = "slow"  # seconds before the answer
    STATUS = "status"  # the HTTP status instead of 200
    RATE_LIMITED = "rate-limited"  # 429 with this Retry-After
    CUT = "cut"  # half of the answer, then the connection ends
    DROP = "drop"  # the connection ends without an answer
    TRICKLE = "trickle"  # one byte of the answer at a time, this many seconds apart
    HUGE = "huge"  # an answer of this many MiB, without saying so beforehand
    HTML = "html"  # a page for people, with status 200
    REDIRECT = "redirect"  # to this URL
    GZIP = "gzip"  # a content coding that nobody asked for
    WRONG_ID = "wrong-id"  # a RIM under another id
    WRONG_SHA256 = "wrong-sha256"  # a RIM with another digest beside it
    OTHER_RIM = "other-rim"  # the RIM of this id, under the id that was asked for
    OTHER_CERTIFICATE = "other-certificate"  # the OCSP answer that the request before got; the first is honest
    WRONG_KEY = "wrong-key"  # NRAS signs with a key that is not in its JWKS
    OTHER_NONCE = "other-nonce"  # NRAS answers for another nonce
    ROTATED_KEY = "rotated-key"  # the JWKS has the signing key from its second answer on


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
_ONLY = {
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
        only = _ONLY.get(kind)
        if only is not None and match[1] not in (None, only):
            raise InputError(
                f"{match[1]} cannot have the fault {kind.value}", code="fault", hint=f"write {only}:{kind.value}"
            )
        form = _NEEDS_VALUE.get(kind)
        if form is not None and re.fullmatch(form, match[3] or "", re.ASCII) is None:
            raise InputError(f"the fault {kind.value} needs a value: {text[:80]!r}", code="fault")
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
    """How many times somebody waited for all answers before asking on: exchanges that overlap are one wave."""
    waves = 0
    end = float("-inf")
    for item in sorted(log, key=lambda exchange: exchange.started):
        if item.started >= end:
            waves += 1
        end = max(end, item.ended)
    return waves
