"""``nvattest preflight``: before a driver or VBIOS rollout, say what attestation will find afterwards.

``bundle fetch`` looks ahead in the same way, and writes what it found.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._documents import JsonObject
from nvattest.appraisal.inputs import RevocationMode
from nvattest.cli import collect, sources
from nvattest.cli.arguments import (
    REQUIRED,
    ArgumentError,
    add_options,
    choice,
    given,
    ignored,
    option,
    read,
)
from nvattest.cli.collect import EvidenceSource
from nvattest.cli.output import print_json, say, say_how_read
from nvattest.cli.sources import GuestSource, Judgement, Services
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.evidence import Evidence
from nvattest.model import Architecture, DeviceKind, VerificationTime
from nvattest.rim.ids import gpu_driver_rim_id, gpu_vbios_rim_id, is_rim_id, switch_bios_rim_id

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.memory import ReadEvidence
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.gather import Needs
    from nvattest.pki.anchors import CpuAnchors


class Targets(NamedTuple):
    """What is looked for: devices, evidence files, RIM ids, or versions given by hand; and where."""

    files: tuple[str, ...]
    live: EvidenceSource
    services: Services
    judgement: Judgement
    guest: GuestSource
    devices_named: bool
    rim_id: Sequence[str] = option("ID", "this RIM; may be repeated", default=[], many=True)
    architecture: str | None = option("NAME", "hopper or blackwell", choice("hopper", "blackwell"))
    driver: str | None = option("VERSION", "driver version, such as 590.48.01")
    chip_info: str | None = option("CHIP", "Blackwell: the chip in driver RIM ids, such as GB100")
    vbios: str | None = option("VERSION", "VBIOS version, such as 96.00.9F.00.01")
    project: str | None = option("TEXT", "board project, such as 1010")
    project_sku: str | None = option("TEXT", "board project SKU, such as 0200")
    chip_sku: str | None = option("TEXT", "chip SKU, such as 882")
    bios: str | None = option("VERSION", "NVSwitch BIOS version, such as 96.10.55.00.01")


_BY_HAND: Final = ("architecture", "driver", "chip_info", "vbios", "project", "project_sku", "chip_sku", "bios")
# The options that name devices.
OF_DEVICES: Final = ("gpu_evidence_file", "nvswitch_evidence_file", "device", "rim_id", *_BY_HAND)


class Outlook(NamedTuple):
    """What there is for the targets, and what it is worth."""

    needs: Needs
    collateral: Collateral
    verifier: Verifier
    at: VerificationTime
    facts: JsonObject
    cpu_anchors: CpuAnchors | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target_options(parser)
    sources.add_service_options(parser)


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Which devices, and which guest; without any of these options the devices of this machine."""
    group = parser.add_argument_group("what for")
    collect.add_evidence_files(group)
    add_options(group, Targets, "rim_id")
    group.add_argument(
        "-d", "--device", type=choice("gpu", "nvswitch", "all"), default="gpu", metavar="KIND",
        help="the live devices of this machine: gpu (the default), nvswitch or all",
    )  # fmt: skip
    add_options(parser.add_argument_group("versions by hand, or instead of those in the evidence"), Targets, *_BY_HAND)
    add_options(parser.add_argument_group("the CPU of a guest"), GuestSource)
    sources.add_judgement_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print what there is; the exit status is 0, or the code of the first thing that is missing or bad."""
    from nvattest.collateral.inspection import render_preflight

    facts = look_ahead(targets_of(options)).facts
    if options.format == "json":
        print_json("preflight", facts)
    else:
        say(render_preflight(facts))
    code = facts["result_code"]
    if facts["ready"] is True:
        return 0
    return (ResultCode(code) if isinstance(code, int) else ResultCode.UNKNOWN).exit_status or 1


def targets_of(options: argparse.Namespace) -> Targets:
    """The request of ``add_target_options`` and of the options of the services."""
    if collect.evidence_files(options) or options.rim_id or options.driver or options.vbios or options.bios:
        ignored(options, ["device"], "the devices are named by files, ids or versions, and no driver is asked")
    return read(
        Targets,
        options,
        files=collect.evidence_files(options),
        live=EvidenceSource(collect.KINDS[options.device], {}),
        services=sources.services(options),
        judgement=read(Judgement, options),
        guest=read(GuestSource, options),
        devices_named=bool(given(options, *OF_DEVICES)),
    )


def look_ahead(targets: Targets, *, known: Collateral | None = None, renew: float | None = None) -> Outlook:
    """Gather what the targets need, and say what it is worth.

    Everything is asked for anew; with ``known`` only what it does not have, or what ends within ``renew`` seconds.

    Raises:
        ArgumentError, InputError, CollectionError: as ``needs_of_targets``; or a URL, key or cache that cannot be used.
    """
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.gather import Needs, gather_needs
    from nvattest.collateral.inspection import preflight
    from nvattest.session import now

    services, judgement = targets.services, targets.judgement
    verifier = Verifier(anchors=sources.trust_anchors(judgement.trust_anchors))
    guest_alone = targets.guest.tee_quote is not None or (known is not None and not known.rims and not known.ocsp)
    needs = Needs()
    if targets.devices_named or not guest_alone:
        needs = needs_of_targets(targets, verifier, judgement.at or now())
    # What the responders say now is the question, and answers of now have the longest window before them.
    mode = RevocationMode.WITHIN_WINDOW if services.offline else RevocationMode.FRESH
    if known is not None:
        mode = RevocationMode.BUNDLE
    settings = replace(sources.gather_options(services, mode), renew=renew)
    collateral = gather_needs(needs, settings, at=judgement.at or now(), known=known, verifier=verifier)
    sources.warn_of_services_not_asked(services, collateral)
    began = (judgement.at or now()).device
    guest, cpu_anchors = targets.guest, None
    if guest.tee_quote is not None or collateral.cpu:
        cpu_anchors = sources.cpu_anchors(guest.cpu_anchors)
        collateral = sources.cpu_collateral(guest, services, collateral, cpu_anchors, at=began, renew=renew or 0.0)
    at = judgement.at or now()
    facts = preflight(needs, collateral, verifier, at, cpu_anchors=cpu_anchors)
    return Outlook(needs, collateral, verifier, at, facts, cpu_anchors)


def needs_of_targets(targets: Targets, verifier: Verifier, at: VerificationTime) -> Needs:
    """What the targets need.

    Raises:
        ArgumentError: versions by hand from which no RIM id can be made, or for devices that are not in the evidence.
        InputError: a file or a version that cannot be used.
        CollectionError: the driver did not give evidence.
    """
    from nvattest.collateral.gather import Needs, needs_of

    for rim_id in targets.rim_id:
        if not is_rim_id(rim_id):
            raise InputError(f"--rim-id: not a RIM id: {rim_id[:160]!r}", code="rim-id")
    by_hand = any((targets.driver, targets.vbios, targets.bios))
    board = (targets.project, targets.project_sku, targets.chip_sku)
    if not by_hand and any((targets.architecture, targets.chip_info, *board)):
        raise ArgumentError("at least one of --driver, --vbios and --bios is required with versions by hand", REQUIRED)
    if by_hand and not targets.files:
        return Needs(rim_ids=tuple(dict.fromkeys([*targets.rim_id, *_ids_by_hand(targets)])))
    evidence = evidence_of_files(targets.files)
    if not targets.files and not targets.rim_id:
        evidence = collect.collect(targets.live, collect.requester_nonce(targets.live))
    devices = verifier.read(evidence)
    needs = needs_of(devices, verifier, at)
    rim_ids = _replaced_ids(targets, devices, needs) if by_hand else needs.rim_ids
    return replace(needs, rim_ids=tuple(dict.fromkeys([*targets.rim_id, *rim_ids])))


def evidence_of_files(paths: tuple[str, ...]) -> tuple[Evidence, ...]:
    """The evidence in these files; says on stderr where it was inside of another document.

    Raises:
        InputError: a file that cannot be used.
    """
    found = tuple(item for path in paths for item in collect.read_evidence(path))
    say_how_read(found)
    return found


def _ids_by_hand(targets: Targets) -> list[str]:
    found = []
    if targets.driver:
        if not targets.architecture:
            raise ArgumentError("--architecture is required with --driver", REQUIRED)
        architecture = Architecture(targets.architecture.upper())
        found.append(gpu_driver_rim_id(architecture, targets.driver, targets.chip_info))
    if targets.vbios:
        if not (targets.project and targets.project_sku and targets.chip_sku):
            raise ArgumentError("--project, --project-sku and --chip-sku are required with --vbios", REQUIRED)
        found.append(gpu_vbios_rim_id(targets.project, targets.project_sku, targets.chip_sku, targets.vbios))
    if targets.bios:
        found.append(switch_bios_rim_id(targets.bios))
    return found


def _replaced_ids(targets: Targets, devices: tuple[ReadEvidence, ...], needs: Needs) -> list[str]:
    """The ids that these devices will need with the versions given by hand: what a rollout is about to change."""
    from nvattest.collateral.gather import rim_ids_of
    from nvattest.spdm.opaque import GpuFields

    kinds = {device.evidence.kind for device in devices}
    if targets.bios and DeviceKind.NVSWITCH not in kinds:
        raise ArgumentError("--bios: there is no switch in the evidence")
    if (targets.driver or targets.vbios) and DeviceKind.GPU not in kinds:
        raise ArgumentError("--driver and --vbios: there is no GPU in the evidence")
    found: list[str] = []
    for device in devices:
        if isinstance(device.report, ParseError) or not set(rim_ids_of([device])) <= set(needs.rim_ids):
            continue
        item, fields = device.evidence, device.report.fields
        if item.kind is DeviceKind.NVSWITCH:
            found += [switch_bios_rim_id(targets.bios)] if targets.bios else rim_ids_of([device])
        elif isinstance(fields, GpuFields):
            driver, vbios = targets.driver or fields.driver_version, targets.vbios or fields.vbios_version
            found.append(gpu_driver_rim_id(item.architecture, driver, targets.chip_info or fields.chip_info))
            found.append(gpu_vbios_rim_id(fields.project, fields.project_sku, fields.chip_sku, vbios))
    return found
