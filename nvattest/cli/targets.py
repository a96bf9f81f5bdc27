"""What ``bundle fetch`` and ``preflight`` are about: devices, evidence files, RIM ids, or versions given by hand."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from nvattest.cli.arguments import REQUIRED, VALIDATION, ArgumentError, choice, converted, existing_file
from nvattest.cli.output import say_how_read
from nvattest.errors import InputError
from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime

if TYPE_CHECKING:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.gather import Needs
    from nvattest.evidence import Evidence

_BOARD = ("project", "project_sku", "chip_sku")


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Which devices; without any of these options the devices of this machine."""
    group = parser.add_argument_group("what for")
    add_evidence_files(group)
    group.add_argument("--rim-id", action="append", default=[], metavar="ID", help="this RIM; may be repeated")
    group.add_argument(
        "-d", "--device", type=choice("gpu", "nvswitch", "all"), default="gpu", metavar="KIND",
        help="the live devices of this machine: gpu (the default), nvswitch or all",
    )  # fmt: skip
    group = parser.add_argument_group("versions by hand, or instead of those in the evidence")
    group.add_argument("--architecture", type=choice("hopper", "blackwell"), metavar="NAME", help="hopper or blackwell")
    group.add_argument("--driver", metavar="VERSION", help="driver version, such as 590.48.01")
    group.add_argument("--chip-info", metavar="CHIP", help="Blackwell: the chip in driver RIM ids, such as GB100")
    group.add_argument("--vbios", metavar="VERSION", help="VBIOS version, such as 96.00.9F.00.01")
    group.add_argument("--project", metavar="TEXT", help="board project, such as 1010")
    group.add_argument("--project-sku", metavar="TEXT", help="board project SKU, such as 0200")
    group.add_argument("--chip-sku", metavar="TEXT", help="chip SKU, such as 882")
    group.add_argument("--bios", metavar="VERSION", help="NVSwitch BIOS version, such as 96.10.55.00.01")
    add_verification_options(parser)


def add_evidence_files(group: argparse._ArgumentGroup) -> None:
    """Recorded evidence of devices."""
    group.add_argument("--gpu-evidence-file", type=existing_file, metavar="FILE", help="JSON of collect-evidence")
    group.add_argument("--nvswitch-evidence-file", type=existing_file, metavar="FILE", help="JSON of collect-evidence")


def add_verification_options(parser: argparse.ArgumentParser) -> None:
    """When, and under whose roots."""
    group = parser.add_argument_group("verification")
    group.add_argument(
        "--at",
        type=converted(VerificationTime.parse),
        metavar="TIME",
        help="judge validity at this time; now by default",
    )
    group.add_argument(
        "--trust-anchors", type=existing_file, default=os.environ.get("NVATTEST_TRUST_ANCHORS") or None, metavar="PEM",
        help="trust these roots instead of NVIDIA's; every output says so (NVATTEST_TRUST_ANCHORS)",
    )  # fmt: skip


def needs_of_options(options: argparse.Namespace, verifier: Verifier, at: VerificationTime) -> Needs:
    """What the options ask for.

    Raises:
        ArgumentError: versions by hand from which no RIM id can be made, or for devices that are not in the evidence.
        InputError: a file or a version that cannot be used.
        CollectionError: the driver did not give evidence.
    """
    from nvattest.collateral.gather import Needs, needs_of
    from nvattest.rim.ids import is_rim_id

    for rim_id in options.rim_id:
        if not is_rim_id(rim_id):
            raise InputError(f"--rim-id: not a RIM id: {rim_id[:160]!r}", code="rim-id")
    by_hand = any((options.driver, options.vbios, options.bios))
    if not by_hand and any(getattr(options, name) for name in ("architecture", "chip_info", *_BOARD)):
        raise ArgumentError("at least one of --driver, --vbios and --bios is required with versions by hand", REQUIRED)
    files = options.gpu_evidence_file or options.nvswitch_evidence_file
    if by_hand and not files:
        return Needs(rim_ids=tuple(dict.fromkeys([*options.rim_id, *_ids_by_hand(options)])))
    evidence = _evidence(options, live=not files and not options.rim_id)
    needs = needs_of(evidence, verifier, at)
    rim_ids = _replaced_ids(options, evidence, needs) if by_hand else needs.rim_ids
    return replace(needs, rim_ids=tuple(dict.fromkeys([*options.rim_id, *rim_ids])))


def evidence_of_files(options: argparse.Namespace) -> tuple[Evidence, ...]:
    """The evidence in the files that the options name.

    Raises:
        InputError: a file that cannot be used.
    """
    from nvattest.collateral.folders import read_bounded
    from nvattest.evidence import MAXIMUM_TEXT, load_evidence

    found: list[Evidence] = []
    for path in (options.gpu_evidence_file, options.nvswitch_evidence_file):
        if path is not None:
            found += load_evidence(read_bounded(path, MAXIMUM_TEXT))
    say_how_read(found)
    return tuple(found)


def _evidence(options: argparse.Namespace, *, live: bool) -> tuple[Evidence, ...]:
    found = list(evidence_of_files(options))
    if live:
        from nvattest.devices.collect import collect_gpus, collect_switches

        nonce = Nonce(os.urandom(32))
        if options.device in ("gpu", "all"):
            found += collect_gpus(nonce)
        if options.device in ("nvswitch", "all"):
            found += collect_switches(nonce)
    return tuple(found)


def _ids_by_hand(options: argparse.Namespace) -> list[str]:
    from nvattest.rim.ids import gpu_driver_rim_id, gpu_vbios_rim_id, switch_bios_rim_id

    found = []
    if options.driver:
        if not options.architecture:
            raise ArgumentError("--architecture is required with --driver", REQUIRED)
        architecture = Architecture(options.architecture.upper())
        found.append(gpu_driver_rim_id(architecture, options.driver, options.chip_info))
    if options.vbios:
        if not all(getattr(options, name) for name in _BOARD):
            raise ArgumentError("--project, --project-sku and --chip-sku are required with --vbios", REQUIRED)
        found.append(gpu_vbios_rim_id(options.project, options.project_sku, options.chip_sku, options.vbios))
    if options.bios:
        found.append(switch_bios_rim_id(options.bios))
    return found


def _replaced_ids(options: argparse.Namespace, evidence: tuple[Evidence, ...], needs: Needs) -> list[str]:
    """The ids that these devices will need with the versions given by hand: what a rollout is about to change."""
    from nvattest.collateral.plan import rim_ids_of
    from nvattest.errors import ParseError
    from nvattest.rim.ids import gpu_driver_rim_id, gpu_vbios_rim_id, switch_bios_rim_id
    from nvattest.spdm.fields import GpuFields
    from nvattest.spdm.report import parse_report

    kinds = {item.kind for item in evidence}
    if options.bios and DeviceKind.NVSWITCH not in kinds:
        raise ArgumentError("--bios: there is no switch in the evidence", VALIDATION)
    if (options.driver or options.vbios) and DeviceKind.GPU not in kinds:
        raise ArgumentError("--driver and --vbios: there is no GPU in the evidence", VALIDATION)
    found: list[str] = []
    for item in evidence:
        if not set(rim_ids_of([item])) <= set(needs.rim_ids):
            continue
        try:
            fields = parse_report(item.report, item.kind).fields
        except ParseError:
            continue
        if item.kind is DeviceKind.NVSWITCH:
            found += [switch_bios_rim_id(options.bios)] if options.bios else rim_ids_of([item])
        elif isinstance(fields, GpuFields):
            driver, vbios = options.driver or fields.driver_version, options.vbios or fields.vbios_version
            found.append(gpu_driver_rim_id(item.architecture, driver, options.chip_info or fields.chip_info))
            found.append(gpu_vbios_rim_id(fields.project, fields.project_sku, fields.chip_sku, vbios))
    return found
