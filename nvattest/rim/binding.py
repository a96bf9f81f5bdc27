"""Is this RIM about this device? A genuine signature says who wrote a RIM, not which part it describes.

The RIM is compared with the device's signed report and certificate chain. NVIDIA's tools compare the version only, and
accept a RIM of another chip with the same version string.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from nvattest._registry import RIM_MANUFACTURER_ID
from nvattest.errors import ResultCode
from nvattest.model import DeviceKind
from nvattest.pki.dice import most_specific, same_chip
from nvattest.rim.ids import RimRole
from nvattest.rim.verify import VerifiedRim

__all__ = ["BindingFinding", "bind_rim"]

_EDITIONS: Final = {DeviceKind.GPU: "GPU", DeviceKind.NVSWITCH: "SWITCH"}
_ROLE_KINDS: Final = {RimRole.DRIVER: DeviceKind.GPU, RimRole.VBIOS: DeviceKind.GPU, RimRole.BIOS: DeviceKind.NVSWITCH}
_VERSION_CODES: Final = {
    RimRole.DRIVER: ResultCode.GPU_DRIVER_RIM_VERSION_MISMATCH,
    RimRole.VBIOS: ResultCode.GPU_VBIOS_RIM_VERSION_MISMATCH,
    RimRole.BIOS: ResultCode.SWITCH_VBIOS_RIM_VERSION_MISMATCH,
}
# "NVIDIA Reference Value L3 GH100 002", "… LS10 CA", "… GB100-CC …": letters of the family, digits of the chip.
_CHIP: Final = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2})_?(?:[0-9]{2,3}|[0-9]{1,2}X{1,2})(?![A-Za-z0-9])")


class BindingFinding(NamedTuple):
    """One way in which a RIM is not about the device.

    ``rule`` is a stable word: ``role``, ``version``, ``product``, ``name``, ``edition``, ``manufacturer``, ``signer``.
    """

    rule: str
    message: str
    expected: str
    found: str
    result_code: ResultCode


def bind_rim(
    rim: VerifiedRim, *, role: RimRole, version: str, chip: str, kind: DeviceKind
) -> tuple[BindingFinding, ...]:
    """Compare a RIM with a device; an empty tuple means that it describes the device.

    Args:
        rim: a verified RIM.
        role: what it was fetched for.
        version: the driver's, VBIOS' or switch BIOS' version in the signed report, exact in every character.
        chip: the chip that report and chain of the device name (``GH100``, ``GB202``, ``LS_10``). Where only its die
            family is known (``GB20X``), a RIM of each member of it fits.
        kind: GPU or NVSwitch.
    """
    product = chip.replace("_", "")
    findings: list[BindingFinding] = []

    def compare(
        rule: str,
        what: str,
        found: str,
        expected: str,
        code: ResultCode,
        equal: Callable[[str, str], bool] = operator.eq,
    ) -> None:
        # The evidence does not say what is empty here; that matches nothing.
        if not expected or not equal(found, expected):
            findings.append(
                BindingFinding(
                    rule=rule,
                    message=f"the {role.value} RIM's {what} is {found!r}; expected {expected!r}",
                    expected=expected,
                    found=found,
                    result_code=code,
                )
            )

    if _ROLE_KINDS[role] is not kind:
        compare("role", "kind of device", _ROLE_KINDS[role].value, kind.value, ResultCode.RIM_INVALID_SCHEMA)
    compare("version", "version", rim.version, version, _VERSION_CODES[role])
    compare("product", "product", rim.product, product, ResultCode.RIM_INVALID_SCHEMA, same_chip)
    # Name and product may not be of two members of the family that the device names.
    named = most_specific(rim.product, product) if same_chip(rim.product, product) else product
    compare("name", "name", rim.name, named, ResultCode.RIM_INVALID_SCHEMA, same_chip)
    compare("edition", "edition", rim.edition, _EDITIONS[kind], ResultCode.RIM_INVALID_SCHEMA)
    compare(
        "manufacturer",
        "FirmwareManufacturerId",
        rim.manufacturer_id,
        RIM_MANUFACTURER_ID,
        ResultCode.RIM_INVALID_SCHEMA,
    )
    families = _signer_families(rim)
    # NVIDIA keeps one branch of authorities per family. Names are no contract: a branch that names no chip is accepted,
    # and one authority may serve several chips of its family (GB100, GB102). Another family is refused.
    if families:
        compare(
            "signer",
            "signer's chip family",
            "/".join(families),
            product.rstrip("0123456789X"),
            ResultCode.CERT_CHAIN_VERIFICATION_FAILURE,
        )
    return tuple(findings)


def _signer_families(rim: VerifiedRim) -> list[str]:
    # The root, last, serves all chips and names none.
    common_names = [certificate.common_name or "" for certificate in rim.chain.certificates[:-1]]
    return sorted({match.group(1) for name in common_names for match in _CHIP.finditer(name)})
