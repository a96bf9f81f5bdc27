"""What all tokens that we sign have in common: issuer, times and ids (RFC 7519, 4.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from nvattest._documents import JsonObject
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.errors import InputError

# Not NVIDIA's "NVAT-LOCAL-VERIFIER": tokens of that issuer are unsigned by default, and nobody shall mix the two up.
DEFAULT_ISSUER: Final = "NVATTEST-LOCAL-VERIFIER"
DEFAULT_LIFETIME: Final = timedelta(hours=1)
MAXIMUM_LIFETIME: Final = timedelta(days=7)
_ISSUER = re.compile(r"[!-~]{1,256}")
_ID = re.compile(r"[!-~]{16,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imprint:
    """Makes the registered claims of one bundle; every token in it gets an id of its own."""

    issuer: str
    issued: int
    expires: int
    new_id: Callable[[], str]
    used: set[str]

    @classmethod
    def make(cls, *, issuer: str, now: datetime, lifetime: timedelta, new_id: Callable[[], str]) -> Imprint:
        """Check the arguments.

        Raises:
            InputError: an issuer that is empty, long or not printable ASCII; a time without a zone; a lifetime that is
                not positive or longer than a week.
        """
        if not _ISSUER.fullmatch(issuer):
            raise InputError(
                f"not an issuer: {issuer[:80]!r}",
                code="issuer",
                hint="give 1 to 256 printable ASCII characters without spaces",
            )
        if now.utcoffset() is None:
            raise InputError("the time of issue has no time zone", code="time-zone")
        seconds = int(lifetime.total_seconds())
        if not 0 < seconds <= MAXIMUM_LIFETIME.total_seconds():
            raise InputError(f"a token lives 1 second to 7 days, not {lifetime}", code="lifetime")
        issued = int(now.timestamp())
        return cls(issuer=issuer, issued=issued, expires=issued + seconds, new_id=new_id, used=set())

    def claims(self) -> JsonObject:
        """``iss``, ``iat``, ``nbf``, ``exp`` and a new ``jti``.

        Raises:
            InputError: the source of ids gave one twice, or something that cannot be an id (code ``token-id``).
        """
        jti = self.new_id()
        if jti in self.used or not _ID.fullmatch(jti):
            raise InputError("the source of token ids gave an id twice or a poor one", code="token-id")
        self.used.add(jti)
        return {"iss": self.issuer, "iat": self.issued, "nbf": self.issued, "exp": self.expires, "jti": jti}


def claims_by_device(
    appraisal: Appraisal, claims: Sequence[JsonObject]
) -> tuple[tuple[DeviceAppraisal, JsonObject], ...]:
    """Each device with its claims object.

    Raises:
        InputError: the appraisal has no device (code ``no-devices``), or there are more or fewer claims than devices
            (code ``claims``).
    """
    if not appraisal.devices:
        raise InputError("an appraisal without devices makes no token", code="no-devices")
    if len(claims) != len(appraisal.devices):
        raise InputError(f"{len(claims)} claims objects for {len(appraisal.devices)} devices", code="claims")
    return tuple(zip(appraisal.devices, claims, strict=True))
