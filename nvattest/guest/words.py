"""The log of a run, in the words and the order of NVIDIA's local verifier, so that old greps still find it.

Each line of a success is written only if the checks behind it are acceptable; otherwise the failed checks stand in its
place with what was expected and what was found, and the account goes on to the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from nvattest._text import clean
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.evidence import Evidence
from nvattest.model import DeviceKind
from nvattest.spdm.fields import GpuFields

__all__ = ["account"]

RULE: Final = "-----------------------------------"
_MAXIMUM: Final = 400

# (depth, text, the checks that it stands for)
_Line = tuple[int, str, tuple[str, ...]]


def account(appraisal: Appraisal, evidence: Sequence[Evidence]) -> list[str]:
    """All lines about this appraisal; ``evidence`` is what it was made from, in the same order."""
    gpus = [device for device in appraisal.devices if device.kind is DeviceKind.GPU]
    switches = [device for device in appraisal.devices if device.kind is DeviceKind.NVSWITCH]
    lines = [f"Number of GPUs available : {len(gpus)}"]
    if switches:
        lines.append(f"Number of NVSwitches available : {len(switches)}")
    if appraisal.simulated:
        lines.append("SIMULATED: the trust anchors are those of a simulation; this proves nothing")
    elif appraisal.anchors != "NVIDIA":
        lines.append(f"Trust anchors : {clean(appraisal.anchors, _MAXIMUM)}")
    if appraisal.weakened:
        lines.append(f"Weakened by policy : {', '.join(appraisal.weakened)}")
    for device, item in zip(appraisal.devices, evidence, strict=True):
        lines += _device(device, item)
    for check in appraisal.checks:
        if not check.acceptable:
            lines.append(f"\tPLATFORM: {check.spec.title}: FAILED: {clean(check.detail, _MAXIMUM)}")
    lines.append(f"\tattestation result: {appraisal.trusted}")
    return lines


def _device(device: DeviceAppraisal, item: Evidence) -> list[str]:
    word = "GPU" if device.kind is DeviceKind.GPU else "NVSwitch"
    name = f"{word} {device.index}"
    lines = [
        RULE,
        f"Fetching {name} information from {word} driver.",
        f"VERIFYING {word} : {device.index}",
    ]
    for hint, text in (("driver_version", "Driver version"), ("vbios_version", "VBIOS version")):
        if hint in item.hints:
            value = item.hints[hint].lower() if hint == "vbios_version" else item.hints[hint]
            lines.append(f"\t{text} fetched : {clean(value, _MAXIMUM)}")
    for depth, text, checks in _story(device, word):
        lines += _failed(device, checks) or ["\t" * depth + text]
    said = "verified successfully." if device.trusted else "could not be verified."
    return [*lines, f"\t{name} {said}"]


def _failed(device: DeviceAppraisal, ids: Iterable[str]) -> list[str]:
    lines = []
    for id_ in ids:
        check = device.check(id_)
        if check is None:
            lines.append(f"\t\t{id_}: FAILED: the check was not made")
        elif not check.acceptable:
            values = [
                f"{name} {clean(value, _MAXIMUM)}"
                for name, value in (("expected", check.expected), ("found", check.found))
                if value
            ]
            tail = f" ({', '.join(values)})" if values else ""
            lines.append(f"\t\t{check.spec.title}: FAILED: {clean(check.detail, _MAXIMUM)}{tail}")
    return lines


def _story(device: DeviceAppraisal, word: str) -> list[_Line]:
    lines: list[_Line] = [
        (1, f"Validating {word} certificate chains.", ()),
        (
            2, f"{word} attestation report certificate chain validation successful.",
            ("chain-format", "chain-path", "chain-validity"),
        ),
        (2, "The certificate chain revocation status verification successful.", ("chain-revocation",)),
        (1, "Authenticating attestation report", ("report-format", "report-trailing-bytes")),
        (
            2,
            "The nonce in the SPDM GET MEASUREMENT request message is matching with the generated nonce.",
            ("nonce",),
        ),
        *_versions(device),
        (2, "Attestation report signature verification successful.", ("report-signature",)),
        (
            2, "Attestation report verification successful.",
            ("architecture", "fwid", "debug", "mode", "versions", "hints"),
        ),
        (1, "Authenticating the RIMs.", ()),
    ]  # fmt: skip
    if device.check("reference-values") is not None:
        lines.append((2, "Reference values are published.", ("reference-values",)))
    if device.kind is DeviceKind.GPU:
        lines += _rim("driver", "Authenticating Driver RIM", "Schema validation passed.", "Driver")
        lines += _rim("vbios", "Authenticating VBIOS RIM.", "RIM Schema validation passed.", "VBIOS")
    else:
        lines += _rim("bios", "Authenticating BIOS RIM.", "RIM Schema validation passed.", "BIOS")
    lines += [
        (1, "Comparing measurements (runtime vs golden)", ("rim-conflict",)),
        (2, "The runtime measurements are matching with the golden measurements.", ("measurements", "minimum-svn")),
    ]
    if device.trusted:
        lines.append((1, f"{word} is in the expected state.", ()))
    return lines


def _versions(device: DeviceAppraisal) -> list[_Line]:
    fields = device.report.fields if device.report is not None else None
    if fields is None:
        return []
    source = "fetched from the attestation report"
    if isinstance(fields, GpuFields):
        return [
            (2, f"Driver version {source} : {clean(fields.driver_version, _MAXIMUM)}", ()),
            (2, f"VBIOS version {source} : {clean(fields.vbios_version.lower(), _MAXIMUM)}", ()),
        ]
    return [(2, f"BIOS version {source} : {clean(fields.bios_version.lower(), _MAXIMUM)}", ())]


def _rim(role: str, heading: str, schema: str, name: str) -> list[_Line]:
    return [
        (2, heading, (f"{role}-rim-available",)),
        (3, schema, (f"{role}-rim-format",)),
        (3, f"{role} RIM certificate chain verification successful.", (f"{role}-rim-chain", f"{role}-rim-validity")),
        (3, "The certificate chain revocation status verification successful.", (f"{role}-rim-revocation",)),
        (3, f"{role} RIM signature verification successful.", (f"{role}-rim-signature", f"{role}-rim-binding")),
        (3, f"{name} RIM verification successful", ()),
    ]
