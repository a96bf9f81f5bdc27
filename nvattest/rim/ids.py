"""Names of reference manifests: which RIM describes which part of which device.

A RIM id is made from signed fields of the report only. It becomes a file name and a part of a URL, so its alphabet is
small (``is_rim_id``). The same id is sometimes issued again with other content: an id names a place, not a document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from nvattest import _registry
from nvattest.errors import InputError, ResultCode
from nvattest.model import Architecture, DeviceKind, Word

if TYPE_CHECKING:
    from nvattest.rim.document import RimDocument
    from nvattest.spdm.report import Report

_RIM_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_FIRMWARE: Final = re.compile(r"[0-9A-Fa-f]{2}(?:\.[0-9A-Fa-f]{2}){4}")
# "1010_0205_862_9600740020_PROD.swidtag.xml" and ids themselves: board project, its SKU, chip SKU, VBIOS.
_BOARD: Final = re.compile(
    r"(?<![A-Za-z0-9])([A-Za-z0-9]{1,16})_([A-Za-z0-9]{1,16})_([A-Za-z0-9]{1,16})_([0-9A-Fa-f]{10})(?![A-Za-z0-9])"
)
_VBIOS_PREFIX: Final = _registry.RIM_VBIOS.partition("{")[0]


class RimRole(Word):
    """What a RIM describes: the GPU's driver, the GPU's VBIOS, or the switch's BIOS."""

    DRIVER = "driver"
    VBIOS = "vbios"
    BIOS = "bios"


ROLES: Final = {DeviceKind.GPU: (RimRole.DRIVER, RimRole.VBIOS), DeviceKind.NVSWITCH: (RimRole.BIOS,)}
"""The RIMs that a device of each kind needs."""


def is_rim_id(text: str) -> bool:
    """Whether this text may name a RIM: 1 to 128 of ``A-Z a-z 0-9 . _ -``, without a leading dot."""
    return _RIM_ID.fullmatch(text) is not None


def gpu_driver_rim_id(architecture: Architecture, driver_version: str, chip_info: str | None = None) -> str:
    """The id of a driver RIM. ``chip_info`` is opaque field 35 of a Blackwell report; Hopper ids do not use it.

    Raises:
        InputError: a switch has no driver RIM; none is published (``no-reference-values``); or a part with characters
            that an id may not have.
    """
    if architecture is Architecture.HOPPER:
        return _checked(_registry.RIM_HOPPER_DRIVER.format(driver=driver_version))
    if architecture is Architecture.BLACKWELL:
        chip = _registry.RIM_BLACKWELL_DEFAULT_CHIP if chip_info is None else chip_info
        return _checked(_registry.RIM_BLACKWELL_DRIVER.format(chip=chip, driver=driver_version))
    if architecture is not Architecture.RUBIN:
        raise InputError(f"{architecture.value} has no driver RIM", code="rim-id", hint="a switch has a BIOS RIM only")
    raise InputError(
        f"no reference values are published for this device ({architecture.value})",
        code="no-reference-values",
        result_code=ResultCode.RIM_NOT_FOUND,
        hint="its certificates, signature, nonce and firmware id are verified, its measurements cannot be: it is not "
        "to be trusted before NVIDIA publishes reference manifests for it",
    )


def gpu_vbios_rim_id(project: str, project_sku: str, chip_sku: str, vbios: str) -> str:
    """The id of a VBIOS RIM: ``vbios`` as ``96.00.9F.00.01``, in either case; the others are opaque fields 17, 18, 15.

    InputError as ``gpu_driver_rim_id``.
    """
    parts = {"project": project, "project_sku": project_sku, "chip_sku": chip_sku, "vbios": _compact(vbios)}
    return _checked(_registry.RIM_VBIOS.format(**parts))


def switch_bios_rim_id(bios: str) -> str:
    """The id of an LS10 BIOS RIM: ``bios`` as ``96.10.55.00.01``, in either case; InputError for other characters."""
    return _checked(_registry.RIM_SWITCH_BIOS.format(bios=_compact(bios)))


def rim_ids(report: Report, architecture: Architecture) -> Mapping[RimRole, str]:
    """Which RIMs describe the device of this report: driver and VBIOS for a GPU, the BIOS for a switch.

    Raises:
        InputError: the report is not of this architecture's kind of device, its fields do not make an id, or NVIDIA
            publishes no reference values for the architecture (code ``no-reference-values``).
    """
    from nvattest.spdm.opaque import GpuFields, SwitchFields

    fields = report.fields
    if architecture is Architecture.LS10 and isinstance(fields, SwitchFields):
        return {RimRole.BIOS: switch_bios_rim_id(fields.bios_version)}
    if architecture is not Architecture.LS10 and isinstance(fields, GpuFields):
        return {
            RimRole.DRIVER: gpu_driver_rim_id(architecture, fields.driver_version, fields.chip_info),
            RimRole.VBIOS: gpu_vbios_rim_id(fields.project, fields.project_sku, fields.chip_sku, fields.vbios_version),
        }
    other = f"a report of a {report.kind.value} cannot be of architecture {architecture.value}"
    hint = "give the architecture that the device's certificate chain names"
    raise InputError(other, code="architecture", hint=hint)


def rim_id_of(document: RimDocument, file_name: str = "") -> str | None:
    """The id of this document, or None where nothing says it.

    The document of a VBIOS names the version and no board, so that its id needs a file name that does.
    """
    # Imported here, so that reading ids alone does not load the X.509 library.
    from nvattest.pki.dice import architecture_of_chip

    version = document.version
    try:
        if document.edition == "SWITCH":
            return switch_bios_rim_id(version)
        if _FIRMWARE.fullmatch(version) is not None:
            boards = (match.groups() for match in _BOARD.finditer(file_name))
            board = next((item for item in boards if item[3].upper() == _compact(version)), None)
            return None if board is None else gpu_vbios_rim_id(board[0].upper(), board[1], board[2], version)
        architecture = architecture_of_chip(document.product)
        return None if architecture is None else gpu_driver_rim_id(architecture, version, document.product)
    except InputError:
        return None


def fits_rim_id(document: RimDocument, rim_id: str) -> bool:
    """Whether a document may have this id, by its own statements."""
    if (own := rim_id_of(document)) is not None:
        return own == rim_id
    return rim_id.startswith(_VBIOS_PREFIX) and rim_id.endswith("_" + _compact(document.version))


def _compact(version: str) -> str:
    return version.replace(".", "").upper()


def _checked(rim_id: str) -> str:
    if not is_rim_id(rim_id):
        hint = "a RIM id has 1 to 128 letters, digits, dots, dashes and underscores"
        raise InputError(f"not a RIM id: {rim_id[:60]!r}, {len(rim_id)} characters", code="rim-id", hint=hint)
    return rim_id
