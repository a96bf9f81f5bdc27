"""The rules that every token of any issuer has to keep.

Each JWT by itself: times, issuer, nonce (RFC 7519, 4.1; RFC 9711, 4.1). Its devices together: as many as expected, none
twice, none under the name of another kind. And both together: a true overall result beside a device that failed is a
contradiction. A false one is always allowed: only the platform as a whole may have failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nvattest._documents import kind_of
from nvattest._text import base64url
from nvattest.errors import InputError, ResultCode
from nvattest.model import Nonce, counted, format_time
from nvattest.token.jws import Jws, instant, refuse, seconds, text_member
from nvattest.token.verified import EAT_MEMBER

if TYPE_CHECKING:
    from nvattest.token.keyring import Keyring
    from nvattest.token.keys import PublicKey
    from nvattest.token.provenance import Provenance

MAXIMUM_LEEWAY: Final = timedelta(minutes=10)
# How the submodule of a device is called: in a detached EAT, and in an EAR.
DEVICE_LABEL: Final = re.compile(r"(GPU|SWITCH|NVSWITCH)-(0|[1-9][0-9]{0,2})", re.ASCII)
# gpu0 as Trustee writes it, gpu_0 and device_0 (evidence from files) as NVAT does.
EAR_DEVICE_LABEL: Final = re.compile(r"(gpu|switch|nvswitch|device)[-_]?(0|[1-9][0-9]{0,2})", re.ASCII | re.IGNORECASE)
_KINDS = {"GPU": "gpu", "SWITCH": "nvswitch", "NVSWITCH": "nvswitch"}

# Facts of the evidence and of the RIMs: no policy can make a good result without them.
_HARD = re.compile(
    r"x-nvidia-(gpu|switch)-("
    r"arch-check|attestation-report-parsed|attestation-report-signature-verified|vbios-index-no-conflict"
    r"|(driver|vbios|bios)-rim-(fetched|schema-validated|signature-verified|version-match|measurements-available))"
)
# A named weakening may leave these false in an honest token. Claims 2.0 have one boolean for each chain.
_SOFT = re.compile(
    r"x-nvidia-(gpu|switch)-("
    r"attestation-report-(nonce-match|cert-chain-fwid-match|cert-chain-validated)"
    r"|(driver|vbios|bios)-rim-cert-validated)"
)
_CHAIN = re.compile(r"x-nvidia-(gpu|switch)-(attestation-report|(driver|vbios|bios)-rim)-cert-chain")

Claims = Mapping[str, object]


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
        code, hint = "nonce-mismatch", ""
        if value is None or value == "":
            code, message = "nonce-missing", f"{what} has no eat_nonce: nothing shows that it answers this request"
        elif not isinstance(value, str):
            message = f"{what}: eat_nonce is {kind_of(value)}, expected one text"
        # Hexadecimal as NVIDIA writes it in EATs, base64url as EARs have it.
        elif value.lower() == self.nonce.hex() or value == base64url(self.nonce.value):
            return
        else:
            message = f"{what} answers the nonce {value[:88]!r}, expected {self.nonce.hex()}"
            hint = "a token for another request, or a recording"
        raise refuse(message, code, hint=hint, result_code=ResultCode.NONCE_MISMATCH)


def vouched_for(token: Jws, key: PublicKey, keys: Keyring, made: Provenance) -> dict[str, Any]:
    """The members of a ``VerifiedToken`` that say who issued it, and by which key; after ``Rules.check`` only."""
    return {
        "issuer": token.payload.get("iss", ""),
        "issued": instant(seconds(token, "iat")),
        "payload": token.payload,
        "key": key,
        "key_source": keys.source,
        "key_url": keys.url,
        "simulated": made.simulated,
        "anchors": made.anchors,
        "weakened": made.weakened,
        "evidence_digest": made.evidence_digest,
        "at": made.at,
    }


# --- The devices of a token


def check_identities(labels: Sequence[str], claims: Sequence[Claims]) -> None:
    """Refuse a device under two names, and a device under the name of another kind.

    Raises:
        TokenError: ``device-duplicate``, ``device-kind``.
    """
    seen: dict[object, str] = {}
    for label, item in zip(labels, claims, strict=True):
        kind = item.get("x-nvidia-device-type")
        prefix = _prefix(label)
        if kind is not None and prefix in _KINDS and kind != _KINDS[prefix]:
            raise refuse(f"{label} is the token of a device of kind {kind!r}", "device-kind")
        identity = item.get("ueid")
        if not isinstance(identity, str) or not identity:
            continue
        if identity in seen:
            raise refuse(
                f"{seen[identity]} and {label} are one device (ueid {identity[:80]})",
                "device-duplicate",
                hint="one good device was shown several times",
            )
        seen[identity] = label


class Expected(NamedTuple):
    """How many devices a token has to be about: of both kinds together, and of each; None for any number."""

    devices: int | None = None
    gpus: int | None = None
    switches: int | None = None


def check_counts(labels: Sequence[str], expected: Expected) -> None:
    """Refuse another number of devices than expected. Kinds are counted by the names of the submodules.

    Raises:
        TokenError: ``device-count``; also where kinds are expected and a name (``device_0``) says none.
    """
    kinds = [_KINDS.get(_prefix(label)) for label in labels]
    if None in kinds and (expected.gpus, expected.switches) != (None, None):
        raise refuse(
            f"the token does not say of {labels[kinds.index(None)]} whether it is a GPU or a switch",
            "device-count",
            hint="expect a number of devices (--expected-devices) instead of GPUs and switches",
        )
    for word, found, wanted in (
        ("device", len(labels), expected.devices),
        ("GPU", kinds.count("gpu"), expected.gpus),
        ("NVSwitch", kinds.count("nvswitch"), expected.switches),
    ):
        if wanted is not None and found != wanted:
            many = "NVSwitches" if word == "NVSwitch" else ""
            raise refuse(f"the token is about {counted(found, word, many)}, expected {wanted}", "device-count")


def _prefix(label: str) -> str:
    return re.split(r"[-_0-9]", label, maxsplit=1)[0].upper()


def check_good_device(label: str, claims: Claims, *, weakened: bool) -> None:
    """Refuse a device that contradicts a good overall result.

    Raises:
        TokenError: ``overall-inconsistent``, with the claim that contradicts.
    """
    for name, good in _expected(claims, weakened=weakened):
        if claims.get(name) != good or type(claims.get(name)) is not type(good):
            raise _contradiction(label, name, claims.get(name))
    if not isinstance(claims.get("ueid"), str) or not claims["ueid"]:
        raise _contradiction(label, "ueid", claims.get("ueid"))
    if weakened:
        return
    for name, value in claims.items():
        if not _CHAIN.fullmatch(name):
            continue
        chain = value if isinstance(value, dict) else {}
        for member, good in (("x-nvidia-cert-status", "valid"), ("x-nvidia-cert-ocsp-status", "good")):
            if chain.get(member) != good:
                raise _contradiction(label, f"{name}.{member}", chain.get(member))


def _expected(claims: Claims, *, weakened: bool) -> list[tuple[str, object]]:
    prefix = "x-nvidia-switch" if any(name.startswith("x-nvidia-switch-") for name in claims) else "x-nvidia-gpu"
    wanted: list[tuple[str, object]] = [
        ("measres", "success"),
        ("x-nvidia-mismatch-measurement-records", None),
        ("x-nvidia-mismatch-opaque-data-records", None),
        (EAT_MEMBER, None),
        (f"{prefix}-attestation-report-signature-verified", True),
    ]
    wanted += [(name, True) for name in claims if _HARD.fullmatch(name)]
    if not weakened:
        wanted += [("secboot", True), ("dbgstat", "disabled"), (f"{prefix}-attestation-report-nonce-match", True)]
        wanted += [(name, True) for name in claims if _SOFT.fullmatch(name)]
    return wanted


def _contradiction(label: str, name: str, value: object) -> Exception:
    return refuse(
        f"the overall result is true, but {label} says {name} = {str(value)[:120]!r}",
        "overall-inconsistent",
        hint="do not believe this issuer",
    )
