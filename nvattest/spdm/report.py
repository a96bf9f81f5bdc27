"""The report of one device: request, response and signature in one piece, as NVML and NSCQ give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from nvattest._registry import PPCIE_ENABLED
from nvattest.errors import ParseError, ResultCode
from nvattest.model import DeviceKind
from nvattest.spdm.messages import (
    REQUEST_SIZE,
    SOURCE,
    GetMeasurementsRequest,
    MeasurementBlock,
    MeasurementsResponse,
    Remember,
    parse_request,
    parse_response,
    read_anew,
)
from nvattest.spdm.opaque import GpuFields, OpaqueData, SwitchFields, gpu_fields, parse_opaque, switch_fields

__all__ = ["MAXIMUM_SIZE", "FeatureMode", "Report", "feature_mode", "feature_mode_name", "parse_report"]

MAXIMUM_SIZE: Final = 64 * 1024


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
        raise ParseError(
            f"{len(data)} bytes, at most {MAXIMUM_SIZE} are read",
            source=SOURCE,
            offset=MAXIMUM_SIZE,
            code="too-large",
            result_code=ResultCode.SPDM_PARSE_ERROR,
        )
    request = parse_request(data[:REQUEST_SIZE])
    response = parse_response(data[REQUEST_SIZE:], origin=REQUEST_SIZE, remember=remember)
    offset = REQUEST_SIZE + response.opaque_offset
    opaque, fields = remember(
        ("opaque", response.opaque, offset, kind.value), lambda: _opaque_and_fields(response.opaque, offset, kind)
    )
    return Report(raw=data, kind=kind, request=request, response=response, opaque=opaque, fields=fields)


def _opaque_and_fields(data: bytes, origin: int, kind: DeviceKind) -> tuple[OpaqueData, GpuFields | SwitchFields]:
    opaque = parse_opaque(data, origin=origin)
    return opaque, gpu_fields(opaque) if kind is DeviceKind.GPU else switch_fields(opaque)


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
