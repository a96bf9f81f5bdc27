"""The topology of a protected PCIe node, bound to certificates.

A device's PDI is certified: it is the serial number in the subject of its BROM certificate, without the first byte. The
topology closes when the switch PDIs that each GPU's report lists are those of the switches present, and the GPU PDIs
that each switch's report lists are those of the GPUs present, none missing and none more. At the end of a disabled link
a report lists the PDI 0, which names no device and is left out of the comparison.

Naming each other is not enough: links are protected only while every GPU is in protected PCIe mode, by its mode flag
(field 36, where the report has one) and its protected PCIe status (field 21), and every switch is locked (field 25).
What the driver says of both is compared with these signed values in step 19.
"""

from __future__ import annotations

from collections.abc import Sequence

from nvattest._registry import NO_PDI, PPCIE_ENABLED, SWITCH_LOCKED
from nvattest.appraisal.results import DeviceAppraisal
from nvattest.spdm.fields import GpuFields, SwitchFields
from nvattest.spdm.report import FeatureMode, feature_mode, feature_mode_name


def topology_problems(gpus: Sequence[DeviceAppraisal], switches: Sequence[DeviceAppraisal]) -> list[str]:
    """What keeps the topology from closing, one sentence each; empty when it closes."""
    problems: list[str] = []
    gpu_pdis = _certified(gpus, problems)
    switch_pdis = _certified(switches, problems)
    for gpu in gpus:
        if gpu.report is None or not isinstance(gpu.report.fields, GpuFields):
            problems.append(f"{gpu.label}: its report could not be read")
            continue
        _compare(gpu.label, "switches", set(gpu.report.fields.switch_pdis), switch_pdis, problems)
    for switch in switches:
        if switch.report is None or not isinstance(switch.report.fields, SwitchFields):
            problems.append(f"{switch.label}: its report could not be read")
            continue
        _compare(switch.label, "GPUs", set(switch.report.fields.gpu_pdis), gpu_pdis, problems)
        own = switch.report.fields.pdi
        certified = switch.identity.pdi if switch.identity is not None else None
        if own != certified:
            problems.append(f"{switch.label}: its report says PDI {own}, its certificate {certified}")
    return problems


def protection_problems(gpus: Sequence[DeviceAppraisal], switches: Sequence[DeviceAppraisal]) -> list[str]:
    """Which devices are not protected, one sentence each; empty when all are. What cannot be read fails elsewhere."""
    problems: list[str] = []
    for gpu in gpus:
        if gpu.report is None or not isinstance(gpu.report.fields, GpuFields):
            continue
        status = gpu.report.fields.ppcie_status
        if feature_mode(gpu.report) is not FeatureMode.PPCIE:
            mode = feature_mode_name(gpu.report)
            problems.append(f"{gpu.label}: its report says mode {mode}; expected protected PCIe (ppcie)")
        elif status != PPCIE_ENABLED:
            said = "is missing" if status is None else f"is {status:#04x}"
            problems.append(f"{gpu.label}: its protected PCIe status {said}; expected {PPCIE_ENABLED:#04x}")
    for switch in switches:
        if switch.report is None or not isinstance(switch.report.fields, SwitchFields):
            continue
        lock = switch.report.fields.lock_status
        if lock != SWITCH_LOCKED:
            said = "is missing" if lock is None else f"is {lock}"
            problems.append(f"{switch.label}: its lock status {said}; expected {SWITCH_LOCKED} (locked)")
    return problems


def _certified(devices: Sequence[DeviceAppraisal], problems: list[str]) -> set[str]:
    found: set[str] = set()
    for device in devices:
        pdi = device.identity.pdi if device.identity is not None else None
        if pdi is None or pdi == NO_PDI:
            problems.append(f"{device.label}: its certificates name no PDI")
        else:
            found.add(pdi)
    return found


def _compare(label: str, word: str, reported: set[str], certified: set[str], problems: list[str]) -> None:
    strangers = sorted(reported - certified - {NO_PDI})
    missing = sorted(certified - reported)
    if strangers:
        problems.append(f"{label}: its report lists {word} that are not here: {', '.join(strangers)}")
    if missing:
        problems.append(f"{label}: its report does not list the {word} {', '.join(missing)}")
