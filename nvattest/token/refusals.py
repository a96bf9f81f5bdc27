"""Why an issuer refused a device, as NVIDIA's tokens say it.

Its service puts ``x-nvidia-error-details`` (``code``, ``httpStatus``, ``message``, ``description``) into the token of a
device that it refuses, often with no other claim; NVAT's EAR has a list ``ear_nvidia_error_details`` in the submodule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nvattest._text import clean
from nvattest.errors import ResultCode

__all__ = ["EAT_MEMBER", "Refusal", "ear_refusals", "eat_refusal", "result_code"]

EAT_MEMBER: Final = "x-nvidia-error-details"
EAR_MEMBER: Final = "ear_nvidia_error_details"
_MAXIMUM: Final = 16
_WIDTH: Final = 400

_NONCE = (ResultCode.GPU_EVIDENCE_NONCE_MISMATCH, ResultCode.SWITCH_NONCE_MISMATCH)
_CHAIN = (ResultCode.CERT_CHAIN_VERIFICATION_FAILURE,) * 2
_SIGNATURE = (ResultCode.GPU_INVALID_SIGNATURE, ResultCode.SWITCH_INVALID_SIGNATURE)
# The service's code, and what NVIDIA's tools make of it for a GPU and for a switch (NVAT 2.0.0).
SERVICE_CODES: Final[Mapping[str, tuple[ResultCode, ResultCode]]] = {
    "4003": _NONCE,
    "4010": _NONCE,
    "4007": _CHAIN,
    "4014": _CHAIN,
    "4015": _CHAIN,
    "4013": _SIGNATURE,
    "5013": (ResultCode.RIM_INVALID_SIGNATURE,) * 2,
    "4005": (ResultCode.OVERALL_RESULT_FALSE,) * 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason: the label of the device, the issuer's code (empty where it gives none) and its words.

    ``result_code`` is what NVIDIA's tools make of the code. The texts are the issuer's, made safe to show.
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
    return tuple(_refusal(label, item) for item in listed[:_MAXIMUM])


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
    gpu, switch = SERVICE_CODES.get(word, (ResultCode.OVERALL_RESULT_FALSE,) * 2)
    description = members.get("description") or members.get("details")
    return Refusal(
        label=clean(label, 40),
        code=clean(word, 40),
        message=_text(members.get("message")),
        description=_text(description),
        result_code=switch if "SWITCH" in label.upper() else gpu,
    )


def _text(value: object) -> str:
    return "" if value is None else clean(value if isinstance(value, str) else str(value), _WIDTH)
