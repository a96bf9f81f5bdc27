"""The progress lines of the old SDK's sample run, printed on stdout in verbose mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nvattest.model import DeviceKind
from nvattest.rim.ids import RimRole

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal, DeviceAppraisal
    from nvattest.evidence import Evidence

RULE = "-----------------------------------"
_ONE, _TWO, _THREE = "\t", "\t\t", "\t\t\t"


def fetched(evidence: Sequence[Evidence]) -> Iterator[str]:
    """The lines of a collection."""
    kind = evidence[0].kind
    noun = _noun(kind)
    yield f"Number of {noun}s available : {len(evidence)}"
    for index in range(len(evidence)):
        yield RULE
        source = "GPU driver" if kind is DeviceKind.GPU else "NVSwitch library"
        yield f"Fetching {noun} {index} information from {source}."
    yield f"All {noun} Evidences fetched successfully"


def verified(appraisal: Appraisal, evidence: Sequence[Evidence], claims: Sequence[Mapping[str, object]]) -> list[str]:
    """The lines of a verification: each device as far as the old program would have gone, and further."""
    lines: list[str] = []
    for device, item, said in zip(appraisal.devices, evidence, claims, strict=True):
        lines += _device(device, item)
        if device.trusted:
            lines.append(f"{_ONE}{_noun(device.kind)} {device.index} verified successfully.")
        else:
            lines += [f"{_ONE}The verification of {_noun(device.kind)} {device.index} resulted in failure."]
            lines += [f"{_TWO}{check.id}: {check.detail}" for check in device.failures[:8]]
        lines.append(f"{_ONE}attestation result: {device.trusted}")
        lines.append(f"{_ONE}claims list:: {dict(said)}")
    noun = _noun(appraisal.devices[0].kind)
    lines.append(f"{noun} Attestation is Successful." if appraisal.trusted else f"{noun} Attestation failed.")
    return lines


def _noun(kind: DeviceKind) -> str:
    return "GPU" if kind is DeviceKind.GPU else "Switch"


def _device(device: DeviceAppraisal, item: Evidence) -> Iterator[str]:
    noun = _noun(device.kind)
    yield RULE
    yield f"VERIFYING {noun} : {device.index}"
    if device.kind is DeviceKind.GPU:
        driver, vbios = _signed_versions(device)
        yield f"{_ONE}Driver version fetched : {item.hints.get('driver_version', driver)}"
        yield f"{_ONE}VBIOS version fetched : {item.hints.get('vbios_version', vbios).lower()}"
    yield f"{_ONE}Validating {noun} certificate chains."
    good = device.passed("chain-path") and device.passed("chain-validity")
    yield f"{_TWO}{noun} attestation report certificate chain validation {'successful' if good else 'failed'}."
    yield _revocation(device, "chain-revocation")
    yield from _report(device)
    yield f"{_ONE}Authenticating the RIMs."
    if device.kind is DeviceKind.GPU:
        yield f"{_TWO}Authenticating Driver RIM"
        yield from _rim(device, "driver", "driver", "Driver", "")
    name = "vbios" if device.kind is DeviceKind.GPU else "bios"
    yield f"{_TWO}Authenticating {name.upper()} RIM."
    yield from _rim(device, name, name, name.upper(), "RIM ")
    yield f"{_ONE}Comparing measurements (runtime vs golden)"
    if device.passed("measurements") and device.passed("rim-conflict"):
        yield f"{_TWO}The runtime measurements are matching with the golden measurements."
        yield f"{_TWO}{noun} is in the expected state."
    else:
        yield f"{_TWO}The runtime measurements are not matching with the golden measurements."
        if device.comparison is not None:
            for cell in device.comparison.mismatches:
                source = "Driver" if cell.role is RimRole.DRIVER else "Firmware"
                yield f"{_THREE}index {cell.index} ({source})"


def _report(device: DeviceAppraisal) -> Iterator[str]:
    yield f"{_ONE}Authenticating attestation report"
    matching = "is" if device.passed("nonce") else "is not"
    yield (f"{_TWO}The nonce in the SPDM GET MEASUREMENT request message {matching} matching with the generated nonce.")
    if device.kind is DeviceKind.GPU:
        driver, vbios = _signed_versions(device)
        yield f"{_TWO}Driver version fetched from the attestation report : {driver}"
        yield f"{_TWO}VBIOS version fetched from the attestation report : {vbios.lower()}"
    signed = device.passed("report-signature")
    yield f"{_TWO}Attestation report signature verification {'successful' if signed else 'failed'}."
    good = signed and all(device.passed(name) for name in ("report-format", "nonce", "architecture", "hints"))
    yield f"{_TWO}Attestation report verification {'successful' if good else 'failed'}."


def _rim(device: DeviceAppraisal, role: str, word: str, title: str, prefix: str) -> Iterator[str]:
    if not device.passed(f"{role}-rim-available"):
        rim = next((rim for known, rim in device.rims.items() if known.value == role), None)
        yield f"{_THREE}Unable to fetch RIM {rim.id if rim is not None else ''}".rstrip()
        return
    schema = device.passed(f"{role}-rim-format")
    yield f"{_THREE}{prefix}Schema validation {'passed' if schema else 'failed'}."
    chain = device.passed(f"{role}-rim-chain") and device.passed(f"{role}-rim-validity")
    yield f"{_THREE}{word} RIM certificate chain verification {'successful' if chain else 'failed'}."
    yield _revocation(device, f"{role}-rim-revocation")
    signed = device.passed(f"{role}-rim-signature")
    yield f"{_THREE}{word} RIM signature verification {'successful' if signed else 'failed'}."
    good = schema and chain and signed and device.passed(f"{role}-rim-binding")
    yield f"{_THREE}{title} RIM verification {'successful' if good else 'failed'}"


def _revocation(device: DeviceAppraisal, id_: str) -> str:
    check = device.check(id_)
    good = check is not None and check.acceptable
    return f"{_THREE}The certificate chain revocation status verification {'successful' if good else 'failed'}."


def _signed_versions(device: DeviceAppraisal) -> tuple[str, str]:
    from nvattest.spdm.fields import GpuFields

    fields = device.report.fields if device.report is not None else None
    return (fields.driver_version, fields.vbios_version) if isinstance(fields, GpuFields) else ("", "")
