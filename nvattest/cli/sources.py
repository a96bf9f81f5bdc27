"""Where evidence and collateral come from: the options that say so, and the objects that they lead to."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from nvattest.cli import network
from nvattest.cli.arguments import (
    VALIDATION,
    ArgumentError,
    choice,
    existing_directory,
    existing_file,
    seconds,
)
from nvattest.errors import InputError, ResultCode
from nvattest.model import DeviceKind, Nonce

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.policy import RevocationMode
    from nvattest.appraisal.verifier import Verifier
    from nvattest.evidence import Evidence
    from nvattest.pki.anchors import TrustAnchors

_MAXIMUM_EVIDENCE = 16 * 1024 * 1024
_MAXIMUM_ANCHORS = 64 * 1024


def add_evidence_options(parser: argparse.ArgumentParser) -> None:
    """Which devices, and who tells about them."""
    group = parser.add_argument_group("evidence")
    group.add_argument("--nonce", default="", metavar="HEX", help="the 32 bytes that the report has to answer")
    group.add_argument(
        "-d", "--device", type=choice("gpu", "nvswitch", "all"), default="gpu", metavar="KIND",
        help="gpu (the default), nvswitch or all",
    )  # fmt: skip
    group.add_argument(
        "--gpu-evidence-source", type=choice("nvml", "corelib", "file"), default="nvml", metavar="SOURCE",
        help="nvml (the default), corelib, or file (the default with a file)",
    )  # fmt: skip
    group.add_argument("--gpu-architecture", default="", metavar="NAME", help="blackwell; needed with corelib")
    group.add_argument(
        "--gpu-evidence-file",
        default="",
        metavar="FILE",
        help="recorded evidence; a file of both kinds is named for both",
    )
    group.add_argument(
        "--nvswitch-evidence-source", type=choice("nscq", "file"), default="nscq", metavar="SOURCE",
        help="nscq (the default), or file (the default with a file)",
    )  # fmt: skip
    group.add_argument("--nvswitch-evidence-file", default="", metavar="FILE", help="recorded evidence")
    group.add_argument(
        "--allow-devtools", action="store_true",
        help="for development: also collect from GPUs in DevTools mode; only a --policy with allow_debug trusts them",
    )  # fmt: skip
    group.add_argument(
        "--driver-timeout", type=seconds, default=30.0, metavar="SECONDS", help="for all driver calls together (30)"
    )


def add_collateral_options(parser: argparse.ArgumentParser) -> None:
    """Where RIMs and revocation answers come from."""
    group = parser.add_argument_group("collateral")
    group.add_argument(
        "--bundle", type=existing_file, metavar="FILE",
        help="RIMs and revocation answers from this file, and nothing from the network",
    )  # fmt: skip
    group.add_argument(
        "--rim-store",
        type=choice("remote", "dir"),
        default="remote",
        metavar="STORE",
        help="remote (the default), or dir (the default with --rim-dir)",
    )
    group.add_argument("--rim-dir", type=existing_directory, default=".", metavar="DIR", help="folder of RIMs")
    network.add_url_options(group)
    network.add_network_options(parser)


def check_evidence_options(options: argparse.Namespace) -> None:
    """The checks that need more than one option, with NVIDIA's texts. Options of devices not asked for are ignored.

    A file that is named without a source is the source: otherwise the verdict on this machine's devices would pass for
    one on the file.

    Raises:
        ArgumentError: a file that is needed is not named or not there.
    """
    given: set[str] = getattr(options, "_given", set())
    for kind in ("gpu", "nvswitch"):
        if f"{kind}_evidence_file" in given and f"{kind}_evidence_source" not in given:
            setattr(options, f"{kind}_evidence_source", "file")
    if options.device in ("gpu", "all"):
        if options.gpu_evidence_source == "file":
            _needs_file(options.gpu_evidence_file, "--gpu-evidence-file")
        if options.gpu_architecture and options.gpu_architecture.upper() != "BLACKWELL":
            raise ArgumentError("--gpu-architecture: only blackwell can be named", VALIDATION)
        if options.gpu_evidence_source == "corelib" and not options.gpu_architecture:
            raise ArgumentError("--gpu-architecture: required when the source is corelib", VALIDATION)
    if options.device in ("nvswitch", "all") and options.nvswitch_evidence_source == "file":
        _needs_file(options.nvswitch_evidence_file, "--nvswitch-evidence-file")


def _needs_file(path: str, option: str) -> None:
    if not path:
        raise ArgumentError(f"{option}: must be provided when the evidence source is file", VALIDATION)
    try:
        existing_file(path)
    except argparse.ArgumentTypeError as error:
        raise ArgumentError(f"{option}: {error}", VALIDATION) from None


def load_evidence_of(options: argparse.Namespace, nonce: Nonce | None) -> tuple[Evidence, ...]:
    """The evidence of the devices asked for.

    Raises:
        InputError: a file cannot be read, or holds devices of the other kind.
        CollectionError: the driver did not give evidence.
    """
    found: list[Evidence] = []
    both = (
        options.device == "all"
        and options.gpu_evidence_source == options.nvswitch_evidence_source == "file"
        and options.gpu_evidence_file == options.nvswitch_evidence_file
    )
    if both:
        # What collect-evidence --device all writes.
        return _both_from_file(options.gpu_evidence_file)
    if options.device in ("gpu", "all"):
        if options.gpu_evidence_source == "file":
            found += _from_file(options.gpu_evidence_file, DeviceKind.GPU)
        elif options.gpu_evidence_source == "nvml":
            found += _from_driver(DeviceKind.GPU, nonce, options)
        else:
            raise InputError(
                "corelib is not supported: it reads Blackwell GPUs outside confidential computing",
                code="corelib",
                result_code=ResultCode.CORELIB_INIT_FAILED,
                hint="collect with NVIDIA's nvattest and give the result with --gpu-evidence-source file",
            )
    if options.device in ("nvswitch", "all"):
        if options.nvswitch_evidence_source == "file":
            found += _from_file(options.nvswitch_evidence_file, DeviceKind.NVSWITCH)
        else:
            found += _from_driver(DeviceKind.NVSWITCH, nonce, options)
    return tuple(found)


def requester_nonce(options: argparse.Namespace) -> Nonce | None:
    """The nonce of ``--nonce``; without one a new random nonce, where a live device will be asked; else None.

    Raises:
        InputError: not 64 hexadecimal digits.
    """
    if options.nonce:
        return Nonce.from_hex(options.nonce)
    live = (options.device in ("gpu", "all") and options.gpu_evidence_source != "file") or (
        options.device in ("nvswitch", "all") and options.nvswitch_evidence_source != "file"
    )
    if not live:
        # A nonce that is read from the recording itself would prove nothing, so there is none.
        return None
    return Nonce(os.urandom(32))


def nonce_and_evidence(options: argparse.Namespace) -> tuple[Nonce | None, tuple[Evidence, ...]]:
    """Nonce and evidence; as in NVIDIA's program a bad evidence file is reported before a bad nonce.

    Raises:
        InputError, CollectionError: as ``requester_nonce`` and ``load_evidence_of``.
    """
    try:
        nonce = requester_nonce(options)
    except InputError:
        gpu = options.device == "nvswitch" or options.gpu_evidence_source == "file"
        if gpu and (options.device == "gpu" or options.nvswitch_evidence_source == "file"):
            load_evidence_of(options, None)
        raise
    return nonce, load_evidence_of(options, nonce)


def _from_driver(kind: DeviceKind, nonce: Nonce | None, options: argparse.Namespace) -> tuple[Evidence, ...]:
    from nvattest.devices.collect import collect_gpus, collect_switches

    if nonce is None:
        raise InputError("a live device needs a nonce", code="nonce")
    if kind is DeviceKind.NVSWITCH:
        return collect_switches(nonce, timeout=options.driver_timeout)
    return collect_gpus(nonce, timeout=options.driver_timeout, allow_devtools=options.allow_devtools)


def _read_evidence(path: str) -> tuple[Evidence, ...]:
    from nvattest.collateral.folders import read_bounded
    from nvattest.evidence import load_evidence

    return load_evidence(read_bounded(path, _MAXIMUM_EVIDENCE))


def _both_from_file(path: str) -> tuple[Evidence, ...]:
    """GPUs, then switches: the order of two files."""
    items = _read_evidence(path)
    found = tuple(item for kind in (DeviceKind.GPU, DeviceKind.NVSWITCH) for item in items if item.kind is kind)
    for kind in (DeviceKind.GPU, DeviceKind.NVSWITCH):
        if not any(item.kind is kind for item in found):
            raise InputError(
                f"{path}: there is no {kind.value} in it, and --device all asks for both kinds",
                code="device-kind",
                hint="collect with --device all, or leave out --device and the other option",
            )
    return found


def _from_file(path: str, kind: DeviceKind) -> tuple[Evidence, ...]:
    items = _read_evidence(path)
    for index, item in enumerate(items):
        if item.kind is not kind:
            raise InputError(
                f"{path}: item {index} is of {item.architecture.value}, which is no {kind.value}",
                code="device-kind",
                hint="give GPUs with --gpu-evidence-file and switches with --nvswitch-evidence-file; a file that holds "
                "both is named in both, with --device all",
            )
    return items


def load_collateral(
    options: argparse.Namespace,
    evidence: tuple[Evidence, ...],
    *,
    verifier: Verifier | None = None,
) -> Collateral:
    """RIMs and revocation answers for this evidence, from where the options say; a bundle keeps the network out.

    ``verifier`` is the one that will appraise: its policy says how fresh revocation has to be, and it remembers work.
    Read the clock for the appraisal afterwards: live answers are stamped while this runs.

    Raises:
        InputError: a bundle, folder, cache or URL that cannot be used.
    """
    from nvattest.collateral.bundle import MAXIMUM_BUNDLE, load_bundle
    from nvattest.collateral.folders import read_bounded, rims_by_id

    if options.bundle is not None:
        return load_bundle(read_bounded(options.bundle, MAXIMUM_BUNDLE), origin=options.bundle)
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.gather import gather
    from nvattest.collateral.plan import rim_ids_of
    from nvattest.session import now

    given: set[str] = getattr(options, "_given", set())
    # A folder that is named is meant, as an evidence file is.
    from_folder = options.rim_store == "dir" or ("rim_dir" in given and "rim_store" not in given)
    known = rims_by_id(options.rim_dir, rim_ids_of(evidence)) if from_folder else None
    if verifier is None:
        verifier = Verifier(anchors=trust_anchors(options))
    collateral = gather(
        evidence,
        network.gather_options(options, _revocation_mode(options, verifier.policy.revocation)),
        anchors=verifier.anchors,
        at=getattr(options, "at", None) or now(),
        known=known,
        verifier=verifier,
    )
    network.say_what_was_not_asked(options, collateral)
    return collateral


def _revocation_mode(options: argparse.Namespace, mode: RevocationMode) -> RevocationMode:
    """Fresh answers for a relying party's policy, which may demand them: a kept one echoes no nonce."""
    from nvattest.appraisal.policy import RevocationMode

    kept = options.offline or getattr(options, "cached_revocation", False)
    return RevocationMode.FRESH if getattr(options, "relying_party_policy", None) and not kept else mode


def trust_anchors(options: argparse.Namespace) -> TrustAnchors:
    """NVIDIA's pinned roots, or those of ``--trust-anchors``.

    Raises:
        InputError: the file holds no usable root.
    """
    from nvattest.pki.anchors import NVIDIA_ANCHORS, trust_anchors_from_pem

    if options.trust_anchors is None:
        return NVIDIA_ANCHORS
    from nvattest.collateral.folders import read_bounded

    return trust_anchors_from_pem(read_bounded(options.trust_anchors, _MAXIMUM_ANCHORS))
