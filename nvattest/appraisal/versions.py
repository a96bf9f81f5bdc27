"""Version numbers of drivers and firmware: what the signed report says, and whether a policy allows it."""

from __future__ import annotations

from nvattest._text import version_key
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.spdm.fields import GpuFields
from nvattest.spdm.report import Report

_BASES = {"driver_version": 10, "vbios_version": 16, "bios_version": 16}


def signed_versions(report: Report) -> dict[str, str]:
    """The versions that the signed report names: ``driver_version`` and ``vbios_version``, or ``bios_version``."""
    fields = report.fields
    if isinstance(fields, GpuFields):
        return {"driver_version": fields.driver_version, "vbios_version": fields.vbios_version}
    return {"bios_version": fields.bios_version}


def describe(report: Report) -> str:
    """The versions in words."""
    return ", ".join(f"{name.removesuffix('_version')} {value}" for name, value in signed_versions(report).items())


def same_version(one: str, other: str, *, name: str) -> bool:
    """Whether two texts are one version of what ``signed_versions`` calls ``name``; other texts must be equal."""
    key = version_key(one, base=_BASES[name])
    return one == other if key is None else key == version_key(other, base=_BASES[name])


def problems(report: Report, policy: EvidencePolicy) -> list[tuple[str, str, str]]:
    """What the policy has against the versions of a device: message, expected, found. Empty when nothing."""
    found = []
    limits = {
        "driver_version": (policy.minimum_driver_version, policy.denied_driver_versions),
        "vbios_version": (policy.minimum_vbios_version, policy.denied_vbios_versions),
    }
    for name, version in signed_versions(report).items():
        minimum, denied = limits.get(name, (None, ()))
        base, word = _BASES[name], name.removesuffix("_version")
        key = version_key(version, base=base)
        if key is None:
            # What cannot be compared can be shown neither to be new enough nor to be missing from a list.
            if limit := [f">= {minimum}"] * (minimum is not None) + [f"not {item}" for item in denied]:
                found.append((f"{word} {version} cannot be compared with the policy's", ", ".join(limit), version))
            continue
        for item in denied:
            if version_key(item, base=base) == key:
                found.append((f"{word} {version} is denied by the policy", f"not {item}", version))
                break
        if minimum is not None:
            least = version_key(minimum, base=base)
            if least is None or key < least:
                found.append((f"{word} {version} is older than the policy's minimum", f">= {minimum}", version))
    return found
