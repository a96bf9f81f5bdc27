"""The report of one device: request, response and signature in one piece, as NVML and NSCQ give it.

The request is GET_MEASUREMENTS, the first 37 bytes; the response is MEASUREMENTS (DSP0274 1.1, 10.11).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Final, NamedTuple, Protocol, TypeVar

from nvattest._documents import Cursor
from nvattest._registry import PPCIE_ENABLED
from nvattest.errors import ParseError, ResultCode
from nvattest.model import NONCE_SIZE, DeviceKind
from nvattest.spdm.opaque import SOURCE, GpuFields, OpaqueData, SwitchFields, gpu_fields, parse_opaque, switch_fields

MAXIMUM_SIZE: Final = 64 * 1024
SPDM_VERSION: Final = 0x11
GET_MEASUREMENTS: Final = 0xE0
SIGNATURE_REQUESTED: Final = 0x01
ALL_MEASUREMENTS: Final = 0xFF
REQUEST_SIZE: Final = 37

T = TypeVar("T")


class Remember(Protocol):
    """A cache of parsed values. ``key`` holds all that ``read`` depends on."""

    def __call__(self, key: Hashable, read: Callable[[], T], /) -> T:
        """The value of ``read()``, computed now or before for the same key."""


def read_anew(_: Hashable, read: Callable[[], T], /) -> T:
    """Remember nothing."""
    return read()


class GetMeasurementsRequest(NamedTuple):
    """What the device was asked. ``nonce`` is the requester nonce (32 bytes)."""

    version: int
    code: int
    param1: int
    param2: int
    nonce: bytes
    slot_id: int


def parse_request(data: bytes) -> GetMeasurementsRequest:
    """Read a request of exactly 37 bytes: SPDM 1.1, signature requested, all measurements.

    Raises:
        ParseError: another length, version, code, or other parameters.
    """
    cursor = Cursor(data, source=SOURCE, result_code=ResultCode.SPDM_REQUEST_PARSE_ERROR)
    version, code = _read_head(cursor, "request", GET_MEASUREMENTS, "GET_MEASUREMENTS")
    param1 = cursor.uint(1, "Param1 of the request")
    if not param1 & SIGNATURE_REQUESTED:
        raise cursor.error(f"Param1 is {param1:#04x}: no signature was requested", code="spdm-parameter", back=1)
    param2 = cursor.uint(1, "Param2 of the request")
    if param2 != ALL_MEASUREMENTS:
        wrong = f"Param2 is {param2:#04x}, expected 0xff: not all measurements were requested"
        raise cursor.error(wrong, code="spdm-parameter", back=1)
    nonce = cursor.take(NONCE_SIZE, "the requester nonce")
    slot_id = cursor.uint(1, "the slot of the request")
    cursor.finish("the request")
    return GetMeasurementsRequest(version, code, param1, param2, nonce, slot_id)


def _read_head(cursor: Cursor, message: str, code: int, name: str) -> tuple[int, int]:
    """The SPDM version and the code of a message.

    From 1.2 on the signature also covers messages that a report does not hold, so that it cannot be verified.
    """
    version = cursor.uint(1, f"the version of the {message}")
    if version != SPDM_VERSION:
        error = cursor.error(f"expected SPDM version 0x11, found {version:#04x}", code="spdm-version", back=1)
        error.hint = "only SPDM 1.1 reports can be verified: check that this is the whole report, request first"
        raise error
    found = cursor.uint(1, f"the {message} code")
    if found != code:
        raise cursor.error(f"expected {name} ({code:#04x}), found code {found:#04x}", code="spdm-code", back=1)
    return version, found


# --- the response -----------------------------------------------------------------------------------------------------


MEASUREMENTS: Final = 0x60
SIGNATURE_SIZE: Final = 96
_DMTF: Final = 1
# index, specification, size of the measurement | type, size of the value
_BLOCK: Final = Struct("<BBHBH")
_OUTER: Final = 4
_INNER: Final = 3


class MeasurementBlock(NamedTuple):
    """One measurement: ``index`` counts from 1, ``value_type`` is the DMTF code (bit 7: raw), ``value`` its bytes."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which has no use here
    value_type: int
    value: bytes


class MeasurementsResponse(NamedTuple):
    """What the device answered, in its order.

    ``nonce`` is the responder's; ``opaque_offset`` and ``signed_length`` count from the start of the response, of which
    the first ``signed_length`` bytes are signed; ``signature`` is r‖s (96 bytes); ``trailing`` is what follows it.
    """

    version: int
    code: int
    param1: int
    param2: int
    blocks: tuple[MeasurementBlock, ...]
    record: bytes
    nonce: bytes
    opaque: bytes
    opaque_offset: int
    signature: bytes
    signed_length: int
    trailing: bytes


def parse_response(data: bytes, *, origin: int = 0, remember: Remember = read_anew) -> MeasurementsResponse:
    """Read a response; ``origin`` is its offset in the report and is added to the offsets of errors.

    ``remember`` may return what was read from the same measurement record before. Bytes after the signature are not
    signed; they are kept for a check of their own.

    Raises:
        ParseError: truncation, another version or code, no or repeated or malformed blocks, no opaque data.
    """
    cursor = Cursor(data, source=SOURCE, origin=origin, result_code=ResultCode.SPDM_PARSE_ERROR)
    version, code = _read_head(cursor, "response", MEASUREMENTS, "MEASUREMENTS")
    param1 = cursor.uint(1, "Param1 of the response")
    param2 = cursor.uint(1, "Param2 of the response")
    count = cursor.uint(1, "the number of blocks")
    if not count:
        raise cursor.error("the response has no measurements", code="no-blocks", back=1)
    record_length = cursor.uint(3, "the length of the measurement record")
    record_offset = cursor.offset
    record = cursor.take(record_length, "the measurement record")
    blocks = remember(
        ("record", record, count, record_offset), lambda: _parse_record(record, count=count, origin=record_offset)
    )
    nonce = cursor.take(32, "the responder nonce")
    opaque_length = cursor.uint(2, "the length of the opaque data")
    if not opaque_length:
        raise cursor.error("the response has no opaque data", code="no-opaque", back=2)
    opaque_offset = cursor.position
    opaque = cursor.take(opaque_length, "the opaque data")
    signed_length = cursor.position
    signature = cursor.take(SIGNATURE_SIZE, "the signature")
    return MeasurementsResponse(
        version, code, param1, param2, blocks, record, nonce, opaque, opaque_offset, signature, signed_length,
        trailing=data[cursor.position :],
    )  # fmt: skip


def _parse_record(data: bytes, *, count: int, origin: int) -> tuple[MeasurementBlock, ...]:
    """Read a measurement record that has to hold ``count`` blocks; ``origin`` is its offset in the report."""

    # Reports have 31 or 64 blocks; one unpack each keeps this at a fraction of what a Cursor would cost.
    def malformed(message: str, code: str, offset: int) -> ParseError:
        return ParseError(
            f"measurement {len(blocks) + 1} of {count}: {message}",
            source=SOURCE,
            offset=origin + offset,
            code=code,
            result_code=ResultCode.SPDM_MEASUREMENT_RECORD_PARSE_ERROR,
        )

    unpack = _BLOCK.unpack_from
    blocks: list[MeasurementBlock] = []
    seen: set[int] = set()
    position, end = 0, len(data)
    for _ in range(count):
        if end - position < _OUTER + _INNER:
            raise malformed(f"a block needs at least 7 bytes, {end - position} are left", "truncated", position)
        index, specification, size, value_type, value_size = unpack(data, position)
        if specification != _DMTF:
            raise malformed(f"its specification is {specification}, expected DMTF (1)", "block-spec", position + 1)
        if not index:
            raise malformed("index 0 does not name a block", "block-index", position)
        if index in seen:
            raise malformed(f"index {index} appears twice", "duplicate-block", position)
        if size != value_size + _INNER:
            sizes = f"it has {size} bytes outside and {value_size} + {_INNER} inside"
            raise malformed(sizes, "block-length", position + 2)
        value = position + _OUTER + _INNER
        stop = value + value_size
        if stop > end:
            raise malformed(f"its value needs {value_size} bytes, {end - value} are left", "truncated", value)
        seen.add(index)
        blocks.append(MeasurementBlock(index, value_type, data[value:stop]))
        position = stop
    if position != end:
        blocks.pop()
        raise malformed(f"{end - position} stray bytes after this last block", "stray-bytes", position)
    return tuple(blocks)


# --- the report -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A parsed report. Nothing in it counts before ``signature`` over ``signed`` is verified."""

    raw: bytes
    kind: DeviceKind
    request: GetMeasurementsRequest
    response: MeasurementsResponse
    opaque: OpaqueData
    fields: GpuFields | SwitchFields

    def __repr__(self) -> str:
        return f"<Report of a {self.kind.value}, {len(self.raw)} bytes>"

    @property
    def signed(self) -> bytes:
        """What the device signed: the request, and the response up to its signature (DSP0274 1.1, 10.11.2: L2)."""
        return self.raw[: REQUEST_SIZE + self.response.signed_length]

    @property
    def signature(self) -> bytes:
        """ECDSA P-384 over SHA-384, r‖s, 96 bytes."""
        return self.response.signature

    @property
    def trailing(self) -> bytes:
        """Bytes after the signature, which nothing protects."""
        return self.response.trailing

    @property
    def measurements(self) -> Mapping[int, MeasurementBlock]:
        """The blocks by their index, which counts from 1."""
        return {block.index: block for block in self.response.blocks}


def parse_report(data: bytes, kind: DeviceKind, *, remember: Remember = read_anew) -> Report:
    """Read the report of a GPU or an NVSwitch.

    Most of a report equals the last one of the device, and devices with the same firmware have the same measurements:
    ``remember`` may return what was read from the same bytes before.

    Raises:
        ParseError: more than 64 KiB, or not such a report; ``offset`` counts from its first byte.
    """
    if len(data) > MAXIMUM_SIZE:
        cursor = Cursor(b"", source=SOURCE, origin=MAXIMUM_SIZE, result_code=ResultCode.SPDM_PARSE_ERROR)
        raise cursor.error(f"{len(data)} bytes, at most {MAXIMUM_SIZE} are read", code="too-large")
    request = parse_request(data[:REQUEST_SIZE])
    response = parse_response(data[REQUEST_SIZE:], origin=REQUEST_SIZE, remember=remember)
    offset = REQUEST_SIZE + response.opaque_offset

    def read() -> tuple[OpaqueData, GpuFields | SwitchFields]:
        found = parse_opaque(response.opaque, origin=offset)
        return found, gpu_fields(found) if kind is DeviceKind.GPU else switch_fields(found)

    opaque, fields = remember(("opaque", response.opaque, offset, kind.value), read)
    return Report(raw=data, kind=kind, request=request, response=response, opaque=opaque, fields=fields)


class FeatureMode(Enum):
    """How a GPU is used: alone, with encrypted links to others, or in protected PCIe; UNKNOWN: a new flag."""

    SPT = "spt"
    MPT = "mpt"
    PPCIE = "ppcie"
    UNKNOWN = "unknown"


_MODES: Final = {0: FeatureMode.SPT, 1: FeatureMode.MPT, 2: FeatureMode.PPCIE}


def feature_mode(report: Report) -> FeatureMode | None:
    """The mode that the report states; None for an NVSwitch.

    Opaque data older than version 1 has no flag. There the protected PCIe status (field 21) means PPCIE; otherwise the
    mode is unknown (None).

    The numbers are those that devices sign: single GPUs state 0, the GPUs of multi-GPU nodes 1, and the signed manifest
    of a report with flag 1 names its purpose "CC MPT". One enumeration of NVIDIA's C++ verifier has 0 and 1 the other
    way round.
    """
    if not isinstance(report.fields, GpuFields):
        return None
    flag = report.fields.feature_flag
    if flag is None:
        return FeatureMode.PPCIE if report.fields.ppcie_status == PPCIE_ENABLED else None
    return _MODES.get(flag, FeatureMode.UNKNOWN)


def feature_mode_name(report: Report) -> str:
    """The mode in words: ``spt``, ``mpt``, ``ppcie``, ``unknown (7)`` with the flag's number, or ``none``."""
    mode = feature_mode(report)
    if mode is FeatureMode.UNKNOWN and isinstance(report.fields, GpuFields):
        return f"{mode.value} ({report.fields.feature_flag})"
    return "none" if mode is None else mode.value
