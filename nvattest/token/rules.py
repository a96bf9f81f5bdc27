"""The rules that every token has to keep, whoever issued it: times, issuer, nonce (RFC 7519, 4.1; RFC 9711, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from nvattest._documents import kind_of
from nvattest._text import base64url
from nvattest.errors import InputError, ResultCode
from nvattest.model import Nonce, format_time
from nvattest.token.jws import Jws, refuse, text_member

MAXIMUM_LEEWAY: Final = timedelta(minutes=10)
# The last second of the year 9999: what a datetime can say.
_LAST_SECOND = 253_402_300_799


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the relying party expects of every token in a bundle."""

    issuer: str | None
    nonce: Nonce
    at: datetime
    leeway: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.nonce, Nonce):
            raise InputError("a token is verified against the nonce that was asked for", code="nonce-type")
        at: object = self.at
        if not isinstance(at, datetime) or at.utcoffset() is None:
            raise InputError("the time of verification is not a datetime with a time zone", code="time-zone")
        leeway: object = self.leeway
        if not isinstance(leeway, timedelta) or not timedelta(0) <= leeway <= MAXIMUM_LEEWAY:
            raise InputError(f"a leeway is a timedelta of 0 seconds to 10 minutes, not {self.leeway}", code="leeway")

    def check(self, token: Jws, *, may_be_anonymous: bool = False, needs_nonce: bool = True) -> None:
        """Times, issuer and nonce of one token.

        ``may_be_anonymous``: a token without ``iss`` passes where no issuer is expected: then the key says whose it is.
        ``needs_nonce`` is false for a part that the overall token binds by digest; a nonce that is there has to match.

        Raises:
            TokenError: ``missing-exp``, ``missing-iat``, ``missing-iss``, ``malformed``, ``times``, ``expired``,
                ``not-yet-valid``, ``issuer``, ``nonce-missing``, ``nonce-mismatch``.
        """
        self._check_times(token)
        if self.issuer is not None or not may_be_anonymous or "iss" in token.payload:
            issuer = text_member(token, "iss", "missing-iss")
            if self.issuer is not None and issuer != self.issuer:
                raise refuse(
                    f"{token.what} is issued by {issuer[:200]!r}, expected {self.issuer!r}",
                    "issuer",
                    hint="name the issuer that you expect (--issuer); for NVIDIA's service it is the base URL without "
                    "a final slash, which --nras-url names too",
                )
        if needs_nonce or token.payload.get("eat_nonce") is not None:
            self.check_nonce(token.what, token.payload.get("eat_nonce"))

    def _check_times(self, token: Jws) -> None:
        # A token without an end is good for ever. NVIDIA's local tools write no nbf: iat says the same.
        expires, issued = seconds(token, "exp"), seconds(token, "iat")
        starts = issued if token.payload.get("nbf") is None else seconds(token, "nbf")
        if not (starts < expires and issued < expires):
            raise refuse(f"{token.what} ends before it begins", "times")
        at, leeway = self.at.timestamp(), self.leeway.total_seconds()
        if at >= expires + leeway:
            raise refuse(
                f"{token.what} expired {format_time(instant(expires))}; it is {format_time(self.at)}",
                "expired",
                hint="ask for a new token, or check the clock",
            )
        for name, value in (("nbf", starts), ("iat", issued)):
            if at < value - leeway:
                raise refuse(
                    f"{token.what} is not valid before {format_time(instant(value))} ({name}); "
                    f"it is {format_time(self.at)}",
                    "not-yet-valid",
                    hint=f"the clock of one side is {int(value - at)} s off",
                )

    def check_nonce(self, what: str, value: object) -> None:
        """The ``eat_nonce`` of a token or of one device in it; ``what`` names it.

        Raises:
            TokenError: ``nonce-missing``, ``nonce-mismatch``.
        """
        if value is None or value == "":
            raise refuse(
                f"{what} has no eat_nonce: nothing shows that it answers this request",
                "nonce-missing",
                result_code=ResultCode.NONCE_MISMATCH,
            )
        if not isinstance(value, str):
            raise refuse(
                f"{what}: eat_nonce is {kind_of(value)}, expected one text",
                "nonce-mismatch",
                result_code=ResultCode.NONCE_MISMATCH,
            )
        # Hexadecimal as NVIDIA writes it in EATs, base64url as EARs have it.
        if value.lower() != self.nonce.hex() and value != base64url(self.nonce.value):
            raise refuse(
                f"{what} answers the nonce {value[:88]!r}, expected {self.nonce.hex()}",
                "nonce-mismatch",
                hint="a token for another request, or a recording",
                result_code=ResultCode.NONCE_MISMATCH,
            )


def seconds(token: Jws, name: str) -> int:
    """A NumericDate of the payload, whole seconds.

    Raises:
        TokenError: it is missing (``missing-`` and its name) or no such number (``malformed``).
    """
    value = token.payload.get(name)
    if value is None:
        raise refuse(f"{token.what} has no {name!r}, which is required", f"missing-{name}")
    if type(value) is not int or not 0 <= value <= _LAST_SECOND:
        raise refuse(f"{token.what}: {name!r} is not a number of seconds", "malformed")
    return value


def instant(value: int) -> datetime:
    """Seconds of the epoch, already bounded, as an aware datetime."""
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=value)
