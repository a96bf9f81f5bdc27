"""The GET_MEASUREMENTS request, the first 37 bytes of a report (DSP0274 1.1, 10.11)."""

from __future__ import annotations

from typing import Final, NamedTuple

from nvattest._wire import Cursor
from nvattest.errors import ResultCode
from nvattest.model import NONCE_SIZE, Nonce

__all__ = ["REQUEST_SIZE", "GetMeasurementsRequest", "build_request", "parse_request"]

# Every offset in spdm/ counts from the first byte of the report, so that one source name serves all parts.
SOURCE: Final = "SPDM report"
SPDM_VERSION: Final = 0x11
GET_MEASUREMENTS: Final = 0xE0
SIGNATURE_REQUESTED: Final = 0x01
ALL_MEASUREMENTS: Final = 0xFF
REQUEST_SIZE: Final = 37


class GetMeasurementsRequest(NamedTuple):
    """What the device was asked. ``nonce`` is the requester nonce (32 bytes), ``raw`` the 37 bytes themselves."""

    version: int
    code: int
    param1: int
    param2: int
    nonce: bytes
    slot_id: int
    raw: bytes


def parse_request(data: bytes) -> GetMeasurementsRequest:
    """Read a request of exactly 37 bytes: SPDM 1.1, signature requested, all measurements.

    Raises:
        ParseError: another length, version, code, or other parameters.
    """
    cursor = Cursor(data, source=SOURCE, result_code=ResultCode.SPDM_REQUEST_PARSE_ERROR)
    version = cursor.uint(1, "the version of the request")
    check_version(cursor, version)
    code = cursor.uint(1, "the request code")
    if code != GET_MEASUREMENTS:
        raise cursor.error(f"expected GET_MEASUREMENTS (0xe0), found code {code:#04x}", code="spdm-code", back=1)
    param1 = cursor.uint(1, "Param1 of the request")
    if not param1 & SIGNATURE_REQUESTED:
        raise cursor.error(f"Param1 is {param1:#04x}: no signature was requested", code="spdm-parameter", back=1)
    param2 = cursor.uint(1, "Param2 of the request")
    if param2 != ALL_MEASUREMENTS:
        raise cursor.error(
            f"Param2 is {param2:#04x}, expected 0xff: not all measurements were requested",
            code="spdm-parameter",
            back=1,
        )
    nonce = cursor.take(NONCE_SIZE, "the requester nonce")
    slot_id = cursor.uint(1, "the slot of the request")
    cursor.finish("the request")
    return GetMeasurementsRequest(
        version=version, code=code, param1=param1, param2=param2, nonce=nonce, slot_id=slot_id, raw=data
    )


def build_request(nonce: bytes, slot_id: int = 0) -> bytes:
    """The request for a signed report over all measurements.

    Raises:
        InputError: the nonce does not have 32 bytes.
        ValueError: the slot is not 0 to 15.
    """
    if not 0 <= slot_id <= 15:
        raise ValueError(f"a certificate slot is 0 to 15, not {slot_id}")
    head = bytes((SPDM_VERSION, GET_MEASUREMENTS, SIGNATURE_REQUESTED, ALL_MEASUREMENTS))
    return head + Nonce(nonce).value + bytes((slot_id,))


def check_version(cursor: Cursor, version: int) -> None:
    """Refuse messages of another SPDM version; the cursor is behind the version byte.

    From 1.2 on the signature also covers messages that a report does not hold, so that it cannot be verified.
    """
    if version != SPDM_VERSION:
        error = cursor.error(f"expected SPDM version 0x11, found {version:#04x}", code="spdm-version", back=1)
        error.hint = "only SPDM 1.1 reports can be verified: check that this is the whole report, request first"
        raise error
