"""The faults that loopback services can have, and the log of their requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from nvattest._text import with_suggestion
from nvattest.errors import InputError

__all__ = ["Exchange", "ServiceFault", "ServiceFaultKind"]

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


def count_waves(log: list[Exchange]) -> int:
    """How many times a client waited for all answers before it asked on: exchanges that overlap are one wave."""
    waves = 0
    end = float("-inf")
    for item in sorted(log, key=lambda exchange: exchange.started):
        if item.started >= end:
            waves += 1
        end = max(end, item.ended)
    return waves
