"""A verified token, and the reasons that its issuer gives for the devices that it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from nvattest._documents import JsonObject
from nvattest._registry import NRAS_URL
from nvattest._text import clean
from nvattest.appraisal.guest import GuestAppraisal
from nvattest.errors import NotTrustedError, ResultCode
from nvattest.model import NoTruthValue, VerificationTime, counted, format_time
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.token.keys import PublicKey

# The base URL of NVIDIA's remote service is the issuer of its tokens.
NVIDIA_ISSUER: Final = NRAS_URL
# NVIDIA's service puts an object (``code``, ``httpStatus``, ``message``, ``description``) into the token of a device
# that it refuses, often with no other claim; NVAT's EAR has a list in the submodule.
EAT_MEMBER: Final = "x-nvidia-error-details"
EAR_MEMBER: Final = "ear_nvidia_error_details"
_MAXIMUM_REFUSALS: Final = 16
_WIDTH: Final = 400

_NONCE = (ResultCode.GPU_EVIDENCE_NONCE_MISMATCH, ResultCode.SWITCH_NONCE_MISMATCH)
_CHAIN = (ResultCode.CERT_CHAIN_VERIFICATION_FAILURE,) * 2
_SIGNATURE = (ResultCode.GPU_INVALID_SIGNATURE, ResultCode.SWITCH_INVALID_SIGNATURE)
# The service's code, and the result code of NVIDIA's tools for a GPU and for a switch (NVAT 2.0.0).
_SERVICE_CODES: Final[Mapping[str, tuple[ResultCode, ResultCode]]] = {
    "4003": _NONCE,
    "4010": _NONCE,
    "4007": _CHAIN,
    "4014": _CHAIN,
    "4015": _CHAIN,
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
        marked = ", simulated" * self.simulated
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
        return not (self.of_nvidia or given) and (self.anchors is None or self.kind is TokenKind.NRAS)

    @property
    def result_code(self) -> ResultCode:
        """The result as NVIDIA's number: 0, 12, that of the first reason for a refusal, or the guest's."""
        if self.overall and self.guest is not None:
            return self.guest.result_code
        return result_code(self.overall, self.refusals)


def eat_refusal(label: str, claims: Mapping[str, object]) -> Refusal | None:
    """The refusal in the claims of one device of a detached EAT, or None. A null refuses nothing."""
    details = claims.get(EAT_MEMBER)
    return None if details is None else _refusal(label, details)


def ear_refusals(label: str, submodule: Mapping[str, object]) -> tuple[Refusal, ...]:
    """The refusals in one submodule of an EAR."""
    details = submodule.get(EAR_MEMBER)
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
