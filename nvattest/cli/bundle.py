"""``nvattest bundle``: RIMs and revocation answers in one file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nvattest._text import joined
from nvattest.cli import network, targets
from nvattest.cli.arguments import existing_directory, existing_file
from nvattest.cli.output import say, write_file

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.folders import Unused
    from nvattest.collateral.inspection import Inspection
    from nvattest.model import VerificationTime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of the command and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a bundle from folders of RIMs and answers")
    create.add_argument(
        "--rim-dir", type=existing_directory, metavar="DIR",
        help="folder of RIMs: *.xml, *.swidtag, or the RIM service's *.json",
    )  # fmt: skip
    create.add_argument("--ocsp-dir", type=existing_directory, metavar="DIR", help="folder of OCSP responses (*.der)")
    _writes(create)
    fetch = actions.add_parser("fetch", help="make a bundle from NVIDIA's services, for guests without a network")
    targets.add_target_options(fetch)
    network.add_url_options(fetch.add_argument_group("services"))
    network.add_network_options(fetch)
    fetch.add_argument("--output", required=True, metavar="FILE", help="where to write the bundle")
    inspect = actions.add_parser("inspect", help="say what a bundle holds, whether it verifies and until when")
    inspect.add_argument("file", type=existing_file, metavar="FILE")
    merge = actions.add_parser("merge", help="put several bundles into one")
    merge.add_argument("files", nargs="+", type=existing_file, metavar="FILE")
    _writes(merge)
    for action in (create, inspect, merge):
        targets.add_verification_options(action)
        group = action.add_argument_group("devices whose revocation answers are to be verified")
        targets.add_evidence_files(group)


def _writes(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--keep-going", action="store_true", help="leave out what cannot be used, and write the bundle all the same"
    )
    action.add_argument("--output", required=True, metavar="FILE", help="where to write the bundle")


def run(options: argparse.Namespace) -> int:
    """Run one action."""
    return {"create": _create, "fetch": _fetch, "inspect": _inspect, "merge": _merge}[options.action](options)


def _create(options: argparse.Namespace) -> int:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.cli.arguments import REQUIRED, ArgumentError
    from nvattest.collateral.folders import RIM_SUFFIXES, other_files, read_ocsp_folder, read_rim_folder

    if options.rim_dir is None and options.ocsp_dir is None:
        raise ArgumentError("at least one of --rim-dir and --ocsp-dir is required", REQUIRED)
    unused: list[Unused] = []
    collateral = Collateral()
    suffixes: dict[str, tuple[str, ...]] = {}
    if options.rim_dir is not None:
        collateral = collateral.merged(read_rim_folder(options.rim_dir, unused=unused.append))
        suffixes[os.path.realpath(options.rim_dir)] = RIM_SUFFIXES
    if options.ocsp_dir is not None:
        collateral = collateral.merged(read_ocsp_folder(options.ocsp_dir, unused=unused.append))
        folder = os.path.realpath(options.ocsp_dir)
        suffixes[folder] = (*suffixes.get(folder, ()), ".der")
    for folder, kinds in suffixes.items():
        unused += other_files(folder, kinds)
    return _write_verified(collateral, unused, options)


def _fetch(options: argparse.Namespace) -> int:
    """Write a bundle with which everything asked for verifies, or none."""
    from nvattest.appraisal.policy import RevocationMode
    from nvattest.appraisal.verifier import Verifier
    from nvattest.cli.sources import trust_anchors
    from nvattest.collateral.gather import gather_needs
    from nvattest.collateral.inspection import inspect_bundle
    from nvattest.collateral.preflight import foreign_anchors, preflight, render_preflight
    from nvattest.errors import CollateralError, ResultCode
    from nvattest.session import now

    verifier = Verifier(anchors=trust_anchors(options))
    needs = targets.needs_of_options(options, verifier, options.at or now())
    # Answers of now have the longest window before them.
    mode = RevocationMode.WITHIN_WINDOW if options.offline else RevocationMode.FRESH
    collateral = gather_needs(needs, network.gather_options(options, mode), at=options.at or now(), verifier=verifier)
    network.say_what_was_not_asked(options, collateral)
    at = options.at or now()
    facts = preflight(needs, collateral, verifier, at)
    # In a bundle an answer has no nonce of ours that could stand in for a window.
    inspection = inspect_bundle(collateral, verifier, at, chains=needs.chains)
    if facts["ready"] is not True or inspection.bad:
        code = facts["result_code"] or ResultCode.OCSP_STATUS_NOT_GOOD
        bad = joined([f"  NOT VERIFIED {name}: {why}" for name, why in inspection.bad])
        say(render_preflight(facts), *filter(None, [bad]), error=True)
        raise CollateralError(
            f"{options.output} was not written: guests could not verify with it",
            code="bundle-incomplete",
            result_code=ResultCode(code) if isinstance(code, int) else None,
        )
    # Not in the bundle: it is verified again, under the anchors of whoever uses it.
    for line in foreign_anchors(verifier.anchors.label, simulated=verifier.anchors.simulated):
        say(line.strip(), error=True)
    return _write(inspection, options)


def _merge(options: argparse.Namespace) -> int:
    from nvattest.collateral.bundle import merge_bundles
    from nvattest.collateral.folders import Unused
    from nvattest.errors import InputError

    unused: list[Unused] = []
    parts = []
    for path in options.files:
        try:
            part = _load(path)
        except InputError as error:
            unused.append(Unused(path, error.message))
            continue
        if not part.rims and not part.ocsp:
            unused.append(Unused(path, "a bundle with nothing in it"))
        parts.append(part)
    merged = merge_bundles(parts, conflict=lambda rim, error: unused.append(Unused(rim.origin, error.message)))
    return _write_verified(merged, unused, options)


def _load(path: str) -> Collateral:
    from nvattest.collateral.bundle import MAXIMUM_BUNDLE, load_bundle
    from nvattest.collateral.folders import read_bounded

    return load_bundle(read_bounded(path, MAXIMUM_BUNDLE), origin=path)


def _verification(options: argparse.Namespace) -> tuple[Verifier, VerificationTime]:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.cli.sources import trust_anchors
    from nvattest.session import now

    return Verifier(anchors=trust_anchors(options)), options.at or now()


def _inspected(
    collateral: Collateral, verifier: Verifier, at: VerificationTime, options: argparse.Namespace
) -> Inspection:
    from nvattest.collateral.gather import needs_of
    from nvattest.collateral.inspection import inspect_bundle

    needs = needs_of(targets.evidence_of_files(options), verifier, at)
    return inspect_bundle(collateral, verifier, at, chains=needs.chains)


def _write_verified(collateral: Collateral, unused: Sequence[Unused], options: argparse.Namespace) -> int:
    """Write what verifies; what does not, and inputs that gave nothing, are an error or left out.

    Raises:
        InputError: something would be left out, without ``--keep-going``; or all of it.
    """
    from nvattest.errors import InputError
    from nvattest.model import counted

    verifier, at = _verification(options)
    inspection = _inspected(collateral, verifier, at, options)
    left = [(item.path, item.reason) for item in unused] + [
        (name, f"NOT VERIFIED: {why}") for name, why in inspection.bad
    ]
    if left:
        word = "left out" if options.keep_going else "not usable"
        say(joined([f"{word}: {name}: {why}" for name, why in left]), error=True)
    if left and not options.keep_going:
        raise InputError(
            f"{options.output} was not written: {counted(len(left), 'input')} cannot be used",
            code="unused-input",
            hint="take it away, or leave it out with --keep-going; RIMs of others need their own --trust-anchors",
        )
    if not inspection.usable.rims and not inspection.usable.ocsp:
        raise InputError(f"{options.output} was not written: there is nothing to write", code="unused-input")
    return _write(_inspected(inspection.usable, verifier, at, options), options)


def _write(inspection: Inspection, options: argparse.Namespace) -> int:
    from nvattest._documents import dump_json
    from nvattest.collateral.bundle import dump_bundle

    write_file(options.output, dump_json(dump_bundle(inspection.usable)) + "\n")
    _print(inspection.facts, options.output, options)
    return 0


def _inspect(options: argparse.Namespace) -> int:
    """List and verify; what is not verified makes the status that of an overall result that is false."""
    from nvattest.errors import ResultCode

    inspection = _inspected(_load(options.file), *_verification(options), options)
    _print(inspection.facts, options.file, options)
    return ResultCode.OVERALL_RESULT_FALSE.exit_status if inspection.bad else 0


def _print(facts: dict[str, object], path: str, options: argparse.Namespace) -> None:
    from nvattest._documents import dump_json
    from nvattest.collateral.inspection import render_inspection

    if options.format == "json":
        print(dump_json(facts))
    else:
        say(f"{path}: {render_inspection(facts)}")
