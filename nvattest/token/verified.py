"""A verified token, the rules that every token of any issuer has to keep, and the reasons that issuers give.

Each JWT by itself: times, issuer, nonce (RFC 7519, 4.1; RFC 9711, 4.1). Its devices together: as many as expected, none
twice, none under the name of another kind. And both together: a true overall result beside a device that failed is a
contradiction. A false one is always allowed: only the platform as a whole may have failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from nvattest._documents import JsonObject, kind_of
from nvattest._registry import NRAS_URL
from nvattest._text import base64url, clean
from nvattest.appraisal.guest import GuestAppraisal
from nvattest.errors import InputError, NotTrustedError, ResultCode
from nvattest.model import Nonce, NoTruthValue, VerificationTime, counted, format_time
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.token.jose import Jws, PublicKey, instant, refuse, seconds, text_member

if TYPE_CHECKING:
    from nvattest.token.claims import Provenance
    from nvattest.token.jose import Keyring

# The base URL of NVIDIA's remote service is the issuer of its tokens.
NVIDIA_ISSUER: Final = NRAS_URL
# NVIDIA's service puts an object (``code``, ``httpStatus``, ``message``, ``description``) into the token of a device
# that it refuses, often with no other claim; NVAT's EAR has a list in the submodule.
EAT_MEMBER: Final = "x-nvidia-error-details"
EAR_MEMBER: Final = "ear_nvidia_error_details"
_MAXIMUM_REFUSALS: Final = 16
_WIDTH: Final = 400

_NONCE = (ResultCode.GPU_EVIDENCE_NONCE_MISMATCH, ResultCode.SWITCH_NONCE_MISMATCH)
_BAD_CHAIN = (ResultCode.CERT_CHAIN_VERIFICATION_FAILURE,) * 2
_SIGNATURE = (ResultCode.GPU_INVALID_SIGNATURE, ResultCode.SWITCH_INVALID_SIGNATURE)
# The service's code, and the result code of NVIDIA's tools for a GPU and for a switch (NVAT 2.0.0).
_SERVICE_CODES: Final[Mapping[str, tuple[ResultCode, ResultCode]]] = {
    "4003": _NONCE,
    "4010": _NONCE,
    "4007": _BAD_CHAIN,
    "4014": _BAD_CHAIN,
    "4015": _BAD_CHAIN,
    "4013": _SIGNATURE,
    "5013": (ResultCode.RIM_INVALID_SIGNATURE,) * 2,
    "4005": (ResultCode.OVERALL_RESULT_FALSE,) * 2,
}


class TokenKind(Enum):
    """Kinds of tokens. NRAS is the detached EAT of NVIDIA's remote service; its shape is that of ours."""

    DETACHED_EAT = "detached-eat"
    EAR = "ear"
    NRAS = "nras"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason: the label of the device, the issuer's code (empty where it gives none) and its words.

    ``result_code`` is NVIDIA's tools' number for the code. The texts are the issuer's, made safe to show.
    """

    label: str
    code: str
    message: str
    description: str
    result_code: ResultCode

    def __str__(self) -> str:
        head = " ".join(filter(None, (self.code, self.message))) or "no reason given"
        tail = f": {self.description}" if self.description not in ("", self.message) else ""
        return f"{self.label}: refused by the issuer: {head}{tail}"

    def to_json(self) -> dict[str, object]:
        """As the outputs for programs have it."""
        return {"label": self.label, "code": self.code, "message": self.message, "description": self.description}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken(NoTruthValue):
    """A token that passed every rule.

    ``overall`` is the issuer's verdict: for an EAR, that every submodule is affirming. ``labels`` and ``claims`` go
    together, one per device, in the order of the token; ``payload`` is the overall token's, or the EAR's. ``issuer`` is
    empty for an EAR that names none. ``statuses`` are an EAR's by submodule.

    ``anchors``, ``weakened``, ``simulated``, ``evidence_digest`` (48 bytes) and ``at`` (the instant of judgement) are
    what nvattest says of its own tokens; None, empty and false in tokens of others. Where ``at`` lies more than an hour
    from ``issued``, ``judged-at-another-time`` is among ``weakened``.

    ``key`` is the key that signed, ``key_source`` says how it was got, and ``key_url`` where its key set was fetched,
    or None. ``refusals`` are the reasons that NVIDIA's issuers give for devices that they refuse, and ``result_code``
    is NVIDIA's number for the result. ``wrapper`` names the member of a Python SDK's token that holds this one; nothing
    around it was verified, or proves anything. ``guest`` is the appraisal of the guest whose quote was given with the
    token: ``overall`` is the token's own result, ``trusted`` that of both.
    """

    kind: TokenKind
    overall: bool
    issuer: str
    issued: datetime
    expires: datetime
    labels: tuple[str, ...]
    claims: tuple[JsonObject, ...]
    payload: JsonObject
    key: PublicKey
    simulated: bool
    anchors: str | None
    weakened: tuple[str, ...]
    evidence_digest: bytes | None
    statuses: Mapping[str, str]
    key_source: str
    key_url: str | None
    refusals: tuple[Refusal, ...] = ()
    wrapper: str | None = None
    at: VerificationTime | None = None
    guest: GuestAppraisal | None = None

    def __repr__(self) -> str:
        verdict = "trusted" if self.trusted else "not trusted"
        marked = ", simulated" if self.simulated else ""
        return (
            f"<VerifiedToken {self.kind.value} of {self.issuer[:80]!r} about {counted(len(self.labels), 'device')}, "
            f"until {format_time(self.expires)}: {verdict}{marked}>"
        )

    @property
    def trusted(self) -> bool:
        """The issuer's verdict (``overall``), and that on the guest where its quote was given.

        Whose word the issuer's is, ``foreign`` and ``weakened`` say.
        """
        return self.overall and (self.guest is None or self.guest.trusted)

    def require(self) -> VerifiedToken:
        """Return this token if its issuer trusts every device, and if its guest is trusted where one was judged.

        Raises:
            NotTrustedError: it does not; the message has the issuer's reasons where the token has some.
        """
        if self.trusted:
            return self
        reasons = "; ".join(map(str, self.refusals)) or "the issuer says that the result is bad"
        if self.overall and self.guest is not None:
            reasons = "; ".join(f"{check.spec.title}: {check.detail}" for check in self.guest.failures)
        raise NotTrustedError(f"not trusted; {reasons}", result_code=self.result_code)

    @property
    def of_nvidia(self) -> bool:
        """Whether NVIDIA's own service issued it: under its name, by a key that was fetched there.

        Any issuer can write a key set for a token under that name. Whether one that the caller gave is NVIDIA's is the
        caller's word, which ``foreign`` takes.
        """
        return self.issuer == NVIDIA_ISSUER and (self.key_url or "").startswith(f"{NVIDIA_ISSUER}/")

    @property
    def foreign(self) -> bool:
        """Whether neither NVIDIA's own service vouches for the result, nor nvattest by NVIDIA's anchors.

        A token under the service's name by a key that the caller gave counts as the service's.
        What a remote service says of its own anchors counts for nothing here: it is the service that is believed.
        """
        if self.anchors not in (None, NVIDIA_ANCHORS.label):
            return True
        given = self.issuer == NVIDIA_ISSUER and self.key_url is None
        if self.of_nvidia or given:
            return False
        return self.anchors is None or self.kind is TokenKind.NRAS

    @property
    def result_code(self) -> ResultCode:
        """The result as NVIDIA's number: 0, 12, that of the first reason for a refusal, or the guest's."""
        if self.overall and self.guest is not None:
            return self.guest.result_code
        return result_code(self.overall, self.refusals)


def refusals_of(label: str, details: object) -> tuple[Refusal, ...]:
    """The refusals in ``EAT_MEMBER`` of a device's claims, or ``EAR_MEMBER`` of a submodule. A null refuses nothing."""
    if details is None:
        return ()
    listed = details if isinstance(details, list) else [details]
    return tuple(_refusal(label, item) for item in listed[:_MAXIMUM_REFUSALS])


def result_code(overall: bool, refusals: tuple[Refusal, ...]) -> ResultCode:
    """The result code of a token: OK, that of the first refusal with one of its own, or "overall result false"."""
    if overall:
        return ResultCode.OK
    codes = (refusal.result_code for refusal in refusals)
    plain = ResultCode.OVERALL_RESULT_FALSE
    return next((code for code in codes if code is not plain), plain)


def _refusal(label: str, details: object) -> Refusal:
    members = details if isinstance(details, dict) else {"message": details}
    code = members.get("code")
    word = str(code) if isinstance(code, int | str) and not isinstance(code, bool) else ""
    gpu, switch = _SERVICE_CODES.get(word, (ResultCode.OVERALL_RESULT_FALSE,) * 2)
    return Refusal(
        label=clean(label, 40),
        code=clean(word, 40),
        message=_text(members.get("message")),
        description=_text(members.get("description") or members.get("details")),
        result_code=switch if "SWITCH" in label.upper() else gpu,
    )


def _text(value: object) -> str:
    return "" if value is None else clean(str(value), _WIDTH)


# --- the rules --------------------------------------------------------------------------------------------------------

MAXIMUM_LEEWAY: Final = timedelta(minutes=10)
# How the submodule of a device is called: in a detached EAT, and in an EAR.
DEVICE_LABEL: Final = re.compile(r"(GPU|SWITCH|NVSWITCH)-(0|[1-9][0-9]{0,2})", re.ASCII)
# gpu0 as Trustee writes it, gpu_0 and device_0 (evidence from files) as NVAT does.
EAR_DEVICE_LABEL: Final = re.compile(r"(gpu|switch|nvswitch|device)[-_]?(0|[1-9][0-9]{0,2})", re.ASCII | re.IGNORECASE)
SHOWN_TWICE: Final = "one good device was shown several times"
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
    leeway: timedelta = timedelta(seconds=60)

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
        """Compare the ``eat_nonce`` of a token, or of one device in it (``nonce-missing``, ``nonce-mismatch``)."""
        # Hexadecimal as NVIDIA writes it in EATs, base64url as EARs have it.
        if isinstance(value, str) and (value.lower() == self.nonce.hex() or value == base64url(self.nonce.value)):
            return
        code, hint = "nonce-mismatch", ""
        if value is None or value == "":
            code, message = "nonce-missing", f"{what} has no eat_nonce: nothing shows that it answers this request"
        elif isinstance(value, str):
            message = f"{what} answers the nonce {value[:88]!r}, expected {self.nonce.hex()}"
            hint = "a token for another request, or a recording"
        else:
            message = f"{what}: eat_nonce is {kind_of(value)}, expected one text"
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
        **{name: value for name, value in made._asdict().items() if name != "trusted"},
    }


# --- the devices of a token -------------------------------------------------------------------------------------------


def check_identities(labels: Sequence[str], claims: Sequence[Claims]) -> None:
    """Refuse one device under two names (``device-duplicate``), or under that of another kind (``device-kind``)."""
    for label, item in zip(labels, claims, strict=True):
        kind = item.get("x-nvidia-device-type")
        prefix = _prefix(label)
        if kind is not None and prefix in _KINDS and kind != _KINDS[prefix]:
            raise refuse(f"{label} is the token of a device of kind {kind!r}", "device-kind")
    if same := alike((label, item.get("ueid")) for label, item in zip(labels, claims, strict=True)):
        first, second, identity = same
        raise refuse(
            f"{first} and {second} are one device (ueid {identity[:80]})", "device-duplicate", hint=SHOWN_TWICE
        )


def alike(values: Iterable[tuple[str, object]]) -> tuple[str, str, str] | None:
    """The labels of the first two with one text, which is not empty, and this text; labels are different."""
    seen: dict[str, str] = {}
    for label, value in values:
        if isinstance(value, str) and value and (other := seen.setdefault(value, label)) != label:
            return other, label, value
    return None


@dataclass(frozen=True, slots=True)
class Expected:
    """How many devices a token has to be about: of both kinds together, and of each; None for any number."""

    devices: int | None = None
    gpus: int | None = None
    switches: int | None = None

    def __post_init__(self) -> None:
        for count, least in ((self.devices, 1), (self.gpus, 0), (self.switches, 0)):
            if count is not None and (type(count) is not int or count < least):
                raise InputError("a token is about 1 or more devices, 0 or more of them GPUs", code="expected-devices")
        if self.gpus is None or self.switches is None:
            return
        both = self.gpus + self.switches
        if not both or self.devices not in (None, both):
            together = "none" if self.devices is None else f"{self.devices}"
            message = f"{self.gpus} GPUs and {self.switches} switches are expected, and {together} together"
            raise InputError(message, code="expected-devices")


ANY_DEVICES: Final = Expected()


def check_counts(labels: Sequence[str], expected: Expected) -> None:
    """Refuse another number of devices than expected (``device-count``).

    Kinds are counted by the names of the submodules; where they are expected, a name that says none is refused.
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
    """Refuse a device with a claim that contradicts a good overall result (``overall-inconsistent``)."""
    for name, found, good in _demanded(claims, weakened=weakened):
        if found != good or type(found) is not type(good):
            raise refuse(
                f"the overall result is true, but {label} says {name} = {str(found)[:120]!r}",
                "overall-inconsistent",
                hint="do not believe this issuer",
            )


def _demanded(claims: Claims, *, weakened: bool) -> Iterator[tuple[str, object, object]]:
    """Each claim that a good device has to have: its name, what it says, and what it has to say."""
    prefix = "x-nvidia-switch" if any(name.startswith("x-nvidia-switch-") for name in claims) else "x-nvidia-gpu"
    wanted: dict[str, object] = {"measres": "success", f"{prefix}-attestation-report-signature-verified": True}
    records = ("x-nvidia-mismatch-measurement-records", "x-nvidia-mismatch-opaque-data-records")
    wanted |= dict.fromkeys((*records, EAT_MEMBER))
    wanted |= {name: True for name in claims if _HARD.fullmatch(name)}
    if not weakened:
        wanted |= {"secboot": True, "dbgstat": "disabled", f"{prefix}-attestation-report-nonce-match": True}
        wanted |= {name: True for name in claims if _SOFT.fullmatch(name)}
    for name, good in wanted.items():
        yield name, claims.get(name), good
    ueid = claims.get("ueid")
    yield "ueid", ueid, ueid if isinstance(ueid, str) and ueid else "a text"
    for name, value in claims.items():
        if not weakened and _CHAIN.fullmatch(name):
            chain = value if isinstance(value, dict) else {}
            yield f"{name}.x-nvidia-cert-status", chain.get("x-nvidia-cert-status"), "valid"
            yield f"{name}.x-nvidia-cert-ocsp-status", chain.get("x-nvidia-cert-ocsp-status"), "good"
