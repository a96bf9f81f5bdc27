"""Version numbers of drivers and firmware: what the signed report says, and whether a policy allows it."""

from __future__ import annotations

from nvattest.appraisal.policy import EvidencePolicy
from nvattest.errors import InputError
from nvattest.spdm.fields import GpuFields
from nvattest.spdm.report import Report


def signed_versions(report: Report) -> dict[str, str]:
    """The versions that the signed report names: ``driver_version`` and ``vbios_version``, or ``bios_version``."""
    fields = report.fields
    if isinstance(fields, GpuFields):
        return {"driver_version": fields.driver_version, "vbios_version": fields.vbios_version}
    return {"bios_version": fields.bios_version}


def describe(report: Report) -> str:
    """The versions in words."""
    return ", ".join(f"{name.removesuffix('_version')} {value}" for name, value in signed_versions(report).items())


def version_key(text: str, *, base: int) -> tuple[int, ...]:
    """A dotted version as numbers: base 10 for drivers, 16 for VBIOS.

    Raises:
        InputError: a part that is not a number.
    """
    try:
        return tuple(int(part, base) for part in text.split("."))
    except ValueError:
        raise InputError(f"not a version: {text[:40]!r}", code="version") from None


def problems(report: Report, policy: EvidencePolicy) -> list[tuple[str, str, str]]:
    """What the policy has against the versions of a device: message, expected, found. Empty when nothing."""
    found = []
    limits = {
        "driver_version": (policy.minimum_driver_version, policy.denied_driver_versions, 10),
        "vbios_version": (policy.minimum_vbios_version, policy.denied_vbios_versions, 16),
    }
    for name, version in signed_versions(report).items():
        minimum, denied, base = limits.get(name, (None, (), 10))
        word = name.removesuffix("_version")
        if version.upper() in {item.upper() for item in denied}:
            found.append((f"{word} {version} is denied by the policy", f"not {version}", version))
        if minimum is not None and _below(version, minimum, base):
            found.append((f"{word} {version} is older than the policy's minimum", f">= {minimum}", version))
    return found


def _below(version: str, minimum: str, base: int) -> bool:
    try:
        return version_key(version, base=base) < version_key(minimum, base=base)
    except InputError:
        # A version that cannot be compared cannot be shown to be new enough.
        return True
