"""The transcript of the old packages: the lines of NVIDIA's sample run, printed on stdout in verbose mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nvattest.model import DeviceKind
from nvattest.rim.ids import RimRole
from nvattest.spdm.opaque import GpuFields

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal, DeviceAppraisal
    from nvattest.evidence import Evidence

RULE = "-----------------------------------"
_NOUNS = {DeviceKind.GPU: "GPU", DeviceKind.NVSWITCH: "Switch"}
_LIBRARIES = {DeviceKind.GPU: "GPU driver", DeviceKind.NVSWITCH: "NVSwitch library"}


def fetched(evidence: Sequence[Evidence]) -> Iterator[str]:
    """The lines of a collection."""
    kind = evidence[0].kind
    yield f"Number of {_NOUNS[kind]}s available : {len(evidence)}"
    for index in range(len(evidence)):
        yield RULE
        yield f"Fetching {_NOUNS[kind]} {index} information from {_LIBRARIES[kind]}."
    yield f"All {_NOUNS[kind]} Evidences fetched successfully"


def verified(appraisal: Appraisal, evidence: Sequence[Evidence], claims: Sequence[Mapping[str, object]]) -> list[str]:
    """The lines of a verification: each device as far as the old program would have gone, and further."""
    lines: list[str] = []
    for device, item, said in zip(appraisal.devices, evidence, claims, strict=True):
        name = f"{_NOUNS[device.kind]} {device.index}"
        lines += _device(device, item)
        if device.trusted:
            lines.append(f"\t{name} verified successfully.")
        else:
            lines.append(f"\tThe verification of {name} resulted in failure.")
            lines += [f"\t\t{check.id}: {check.detail}" for check in device.failures[:8]]
        lines += [f"\tattestation result: {device.trusted}", f"\tclaims list:: {dict(said)}"]
    noun = _NOUNS[appraisal.devices[0].kind]
    lines.append(f"{noun} Attestation is Successful." if appraisal.trusted else f"{noun} Attestation failed.")
    return lines


def _device(device: DeviceAppraisal, item: Evidence) -> Iterator[str]:
    noun, passed = _NOUNS[device.kind], device.passed
    gpu = device.kind is DeviceKind.GPU
    fields = device.report.fields if device.report is not None else None
    driver, vbios = (fields.driver_version, fields.vbios_version) if isinstance(fields, GpuFields) else ("", "")
    yield RULE
    yield f"VERIFYING {noun} : {device.index}"
    if gpu:
        yield f"\tDriver version fetched : {item.hints.get('driver_version', driver)}"
        yield f"\tVBIOS version fetched : {item.hints.get('vbios_version', vbios).lower()}"
    yield f"\tValidating {noun} certificate chains."
    chain = passed("chain-path") and passed("chain-validity")
    yield f"\t\t{noun} attestation report certificate chain validation {_word(chain)}."
    yield _revocation(device, "chain-revocation")
    yield "\tAuthenticating attestation report"
    matching = "is" if passed("nonce") else "is not"
    yield f"\t\tThe nonce in the SPDM GET MEASUREMENT request message {matching} matching with the generated nonce."
    if gpu:
        yield f"\t\tDriver version fetched from the attestation report : {driver}"
        yield f"\t\tVBIOS version fetched from the attestation report : {vbios.lower()}"
    signed = passed("report-signature")
    yield f"\t\tAttestation report signature verification {_word(signed)}."
    good = signed and all(map(passed, ("report-format", "nonce", "architecture", "hints")))
    yield f"\t\tAttestation report verification {_word(good)}."
    yield "\tAuthenticating the RIMs."
    if gpu:
        yield "\t\tAuthenticating Driver RIM"
        yield from _rim(device, RimRole.DRIVER, "Driver", "")
    firmware = RimRole.VBIOS if gpu else RimRole.BIOS
    yield f"\t\tAuthenticating {firmware.value.upper()} RIM."
    yield from _rim(device, firmware, firmware.value.upper(), "RIM ")
    yield "\tComparing measurements (runtime vs golden)"
    if passed("measurements") and passed("rim-conflict"):
        yield "\t\tThe runtime measurements are matching with the golden measurements."
        yield f"\t\t{noun} is in the expected state."
        return
    yield "\t\tThe runtime measurements are not matching with the golden measurements."
    for cell in device.comparison.mismatches if device.comparison is not None else ():
        yield f"\t\t\tindex {cell.index} ({'Driver' if cell.role is RimRole.DRIVER else 'Firmware'})"


def _rim(device: DeviceAppraisal, role: RimRole, title: str, prefix: str) -> Iterator[str]:
    stem, passed = f"{role.value}-rim", device.passed
    if not passed(f"{stem}-available"):
        rim = device.rims.get(role)
        yield f"\t\t\tUnable to fetch RIM {rim.id if rim is not None else ''}".rstrip()
        return
    schema, signed = passed(f"{stem}-format"), passed(f"{stem}-signature")
    chain = passed(f"{stem}-chain") and passed(f"{stem}-validity")
    yield f"\t\t\t{prefix}Schema validation {'passed' if schema else 'failed'}."
    yield f"\t\t\t{role.value} RIM certificate chain verification {_word(chain)}."
    yield _revocation(device, f"{stem}-revocation")
    yield f"\t\t\t{role.value} RIM signature verification {_word(signed)}."
    good = schema and chain and signed and passed(f"{stem}-binding")
    yield f"\t\t\t{title} RIM verification {_word(good)}"


def _revocation(device: DeviceAppraisal, name: str) -> str:
    check = device.check(name)
    good = check is not None and check.acceptable
    return f"\t\t\tThe certificate chain revocation status verification {_word(good)}."


def _word(good: bool) -> str:
    return "successful" if good else "failed"
