"""Device evidence for Confidential Containers: the attester's JSON, its nonce, and what the CPU's quote covers.

In the RCAR handshake of KBS the guest computes two digests over canonical JSON (JCS, RFC 8785):

1. ``device_report_data`` = SHA-384 of ``{"nonce", "tee-pubkey"}``: the report data of the devices. A GPU answers its
   first 32 bytes (``device_nonce``).
2. ``cpu_report_data`` = SHA-384 of ``{"additional-evidence", "nonce", "tee-pubkey"}``: the report data of the CPU. So
   the CPU's quote covers the exact text of the device evidence (``additional_evidence``), which is sent unchanged.

``tee-pubkey`` is the JWK that the guest made for this handshake, ``nonce`` the text that KBS sent.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from nvattest.errors import InputError
from nvattest.evidence import Evidence, EvidenceForm, dump_evidence
from nvattest.model import NONCE_SIZE, Nonce

__all__ = [
    "TEE",
    "additional_evidence",
    "attester_json",
    "canonical_json",
    "cpu_report_data",
    "device_nonce",
    "device_report_data",
]

TEE: Final = "nvidia"
_MAXIMUM_REPORT_DATA: Final = 64
_MAXIMUM_DEPTH: Final = 32
_SAFE_INTEGER: Final = 2**53 - 1


def device_nonce(report_data: bytes) -> Nonce:
    """The nonce that guest-components ask a GPU to answer: the first 32 bytes, zeros behind what is shorter.

    Raises:
        InputError: no byte at all, or more than 64 (the report data of a CPU).
    """
    if not 0 < len(report_data) <= _MAXIMUM_REPORT_DATA:
        raise InputError(
            f"report data of {len(report_data)} bytes, expected 1 to {_MAXIMUM_REPORT_DATA}",
            code="report-data",
            hint="give the digest over the runtime data, 48 bytes for SHA-384",
        )
    return Nonce(report_data[:NONCE_SIZE].ljust(NONCE_SIZE, b"\0"))


def attester_json(evidence: Sequence[Evidence]) -> str:
    """The JSON text of the attester: ``{"device_evidence_list": [...]}``, keys sorted, no white space."""
    return _compact(dump_evidence(evidence, form=EvidenceForm.COCO))


def additional_evidence(evidence: Sequence[Evidence]) -> str:
    """The additional evidence of the handshake, byte for byte as it is hashed and sent; empty without a device."""
    return f'{{"{TEE}":{attester_json(evidence)}}}' if evidence else ""


def device_report_data(nonce: str, tee_pubkey: Mapping[str, object]) -> bytes:
    """The 48 bytes that the devices' evidence is bound to: SHA-384 over the runtime data.

    Raises:
        InputError: a key that JCS cannot express.
    """
    return hashlib.sha384(canonical_json({"nonce": nonce, "tee-pubkey": tee_pubkey})).digest()


def cpu_report_data(nonce: str, tee_pubkey: Mapping[str, object], additional: str) -> bytes:
    """The 48 bytes that the CPU's quote is bound to; ``additional`` is the text of ``additional_evidence``.

    Raises:
        InputError: a key that JCS cannot express.
    """
    document = {"additional-evidence": additional, "nonce": nonce, "tee-pubkey": tee_pubkey}
    return hashlib.sha384(canonical_json(document)).digest()


def canonical_json(value: object) -> bytes:
    """JSON in the canonical form of RFC 8785 (JCS), UTF-8.

    Raises:
        InputError: a value that JSON does not have, a key that is no text, a number that is not finite or, as an
            integer, beyond 2^53 - 1, a lone surrogate, or more than 32 levels.
    """
    try:
        return "".join(_canonical(value, 0)).encode("utf-8")
    except UnicodeEncodeError:
        raise _not_canonical("a lone surrogate") from None


def _canonical(value: object, depth: int) -> Iterator[str]:
    if depth > _MAXIMUM_DEPTH:
        raise _not_canonical(f"more than {_MAXIMUM_DEPTH} levels")
    if value is None or isinstance(value, bool | str):
        # json escapes what RFC 8785, 3.2.2.2 escapes, in the same way, once ensure_ascii is off.
        yield json.dumps(value, ensure_ascii=False)
    elif isinstance(value, int):
        if abs(value) > _SAFE_INTEGER:
            raise _not_canonical(f"the integer {value}" if abs(value) < 10**40 else "a huge integer")
        yield str(value)
    elif isinstance(value, float):
        yield _number(value)
    elif isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _not_canonical("a key that is no text")
        yield "{"
        # RFC 8785, 3.2.3: keys in the order of their UTF-16 code units.
        for position, key in enumerate(sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))):
            yield ("," if position else "") + json.dumps(key, ensure_ascii=False) + ":"
            yield from _canonical(value[key], depth + 1)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for position, item in enumerate(value):
            yield "," if position else ""
            yield from _canonical(item, depth + 1)
        yield "]"
    else:
        raise _not_canonical(f"a {type(value).__name__}")


def _number(value: float) -> str:
    """ECMAScript's Number::toString (RFC 8785, 3.2.2.3); Python finds the same shortest digits."""
    if not math.isfinite(value):
        raise _not_canonical(f"the number {value}")
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value!r}".lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # The number is 0.DIGITS times ten to the power of point.
    point = len(whole.lstrip("0")) + int(exponent or 0)
    if not whole.lstrip("0"):
        point -= len(fraction) - len(fraction.lstrip("0"))
    digits = digits.rstrip("0")
    sign = "-" if value < 0 else ""
    if len(digits) <= point <= 21:
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _compact(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _not_canonical(what: str) -> InputError:
    return InputError(f"canonical JSON cannot hold {what}", code="jcs")
