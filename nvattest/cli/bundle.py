"""``nvattest bundle``: RIMs and revocation answers in one file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nvattest._documents import dump_json
from nvattest._text import joined
from nvattest.appraisal.inputs import Collateral
from nvattest.cli import requests, sources
from nvattest.cli.arguments import REQUIRED, ArgumentError, existing_directory, existing_file
from nvattest.cli.output import say, write_file
from nvattest.cli.preflight import Targets, add_target_options, evidence_of_files, look_ahead, targets_of
from nvattest.cli.requests import Judgement
from nvattest.collateral.bundle import dump_bundle, merge_bundles
from nvattest.collateral.folders import RIM_SUFFIXES, Unused, other_files, read_ocsp_folder, read_rim_folder
from nvattest.errors import CollateralError, InputError, ResultCode
from nvattest.model import VerificationTime, counted

if TYPE_CHECKING:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.inspection import Inspection


class Output(NamedTuple):
    """The bundle to write, and whether inputs that cannot be used are left out of it."""

    output: str
    keep_going: bool
    as_json: bool


class Inspector(NamedTuple):
    """What a bundle is verified with; ``files`` are evidence of devices whose revocation answers are verified too."""

    verifier: Verifier
    at: VerificationTime
    files: tuple[str, ...]

    def look_into(self, collateral: Collateral) -> Inspection:
        """What the collateral holds, whether it verifies and until when."""
        from nvattest.collateral.inspection import inspect_bundle
        from nvattest.collateral.plan import needs_of

        needs = needs_of(evidence_of_files(self.files), self.verifier, self.at)
        return inspect_bundle(collateral, self.verifier, self.at, chains=needs.chains)


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
    add_target_options(fetch)
    requests.add_url_options(fetch.add_argument_group("services"))
    requests.add_network_options(fetch)
    fetch.add_argument("--output", required=True, metavar="FILE", help="where to write the bundle")
    inspect = actions.add_parser("inspect", help="say what a bundle holds, whether it verifies and until when")
    inspect.add_argument("file", type=existing_file, metavar="FILE")
    merge = actions.add_parser("merge", help="put several bundles into one")
    merge.add_argument("files", nargs="+", type=existing_file, metavar="FILE")
    _writes(merge)
    for action in (create, inspect, merge):
        requests.add_judgement_options(action)
        requests.add_evidence_files(action.add_argument_group("devices whose revocation answers are to be verified"))


def _writes(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--keep-going", action="store_true", help="leave out what cannot be used, and write the bundle all the same"
    )
    action.add_argument("--output", required=True, metavar="FILE", help="where to write the bundle")


def run(options: argparse.Namespace) -> int:
    """Run one action."""
    as_json = options.format == "json"
    if options.action == "fetch":
        return _fetch(targets_of(options), options.output, as_json=as_json)
    if options.action == "inspect":
        return _inspect(options.file, _inspector(options), as_json=as_json)
    if options.action == "create":
        collateral, unused = _from_folders(options.rim_dir, options.ocsp_dir)
    else:
        collateral, unused = _merged(options.files)
    return _write_verified(collateral, unused, _inspector(options), requests.read(Output, options, as_json=as_json))


def _inspector(options: argparse.Namespace) -> Inspector:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.session import now

    judgement = requests.read(Judgement, options)
    verifier = Verifier(anchors=sources.trust_anchors(judgement.trust_anchors))
    return Inspector(verifier, judgement.at or now(), requests.evidence_files(options))


def _from_folders(rim_dir: str | None, ocsp_dir: str | None) -> tuple[Collateral, list[Unused]]:
    if rim_dir is None and ocsp_dir is None:
        raise ArgumentError("at least one of --rim-dir and --ocsp-dir is required", REQUIRED)
    unused: list[Unused] = []
    collateral = Collateral()
    suffixes: dict[str, tuple[str, ...]] = {}
    if rim_dir is not None:
        collateral = collateral.merged(read_rim_folder(rim_dir, unused=unused.append))
        suffixes[os.path.realpath(rim_dir)] = RIM_SUFFIXES
    if ocsp_dir is not None:
        collateral = collateral.merged(read_ocsp_folder(ocsp_dir, unused=unused.append))
        folder = os.path.realpath(ocsp_dir)
        suffixes[folder] = (*suffixes.get(folder, ()), ".der")
    for folder, kinds in suffixes.items():
        unused += other_files(folder, kinds)
    return collateral, unused


def _merged(paths: Sequence[str]) -> tuple[Collateral, list[Unused]]:
    unused: list[Unused] = []
    parts = []
    for path in paths:
        try:
            part = sources.read_bundle(path)
        except InputError as error:
            unused.append(Unused(path, error.message))
            continue
        if not part.rims and not part.ocsp:
            unused.append(Unused(path, "a bundle with nothing in it"))
        parts.append(part)
    merged = merge_bundles(parts, conflict=lambda rim, error: unused.append(Unused(rim.origin, error.message)))
    return merged, unused


def _fetch(targets: Targets, output: str, *, as_json: bool) -> int:
    """Write a bundle with which everything asked for verifies, or none."""
    from nvattest.collateral.inspection import inspect_bundle
    from nvattest.collateral.preflight import foreign_anchors, render_preflight

    outlook = look_ahead(targets)
    facts, verifier = outlook.facts, outlook.verifier
    # In a bundle an answer has no nonce of ours that could stand in for a window.
    inspection = inspect_bundle(outlook.collateral, verifier, outlook.at, chains=outlook.needs.chains)
    if facts["ready"] is not True or inspection.bad:
        code = facts["result_code"] or ResultCode.OCSP_STATUS_NOT_GOOD
        bad = joined([f"  NOT VERIFIED {name}: {why}" for name, why in inspection.bad])
        say(render_preflight(facts), *filter(None, [bad]), error=True)
        raise CollateralError(
            f"{output} was not written: guests could not verify with it",
            code="bundle-incomplete",
            result_code=ResultCode(code) if isinstance(code, int) else None,
        )
    # The bundle does not name its anchors: whoever uses it verifies it again under their own.
    for line in foreign_anchors(verifier.anchors.label, simulated=verifier.anchors.simulated):
        say(line.strip(), error=True)
    return _write(inspection, output, as_json=as_json)


def _inspect(path: str, inspector: Inspector, *, as_json: bool) -> int:
    """List and verify; what does not verify makes the status that of an overall result that is false."""
    inspection = inspector.look_into(sources.read_bundle(path))
    _print(inspection, path, as_json=as_json)
    return ResultCode.OVERALL_RESULT_FALSE.exit_status if inspection.bad else 0


def _write_verified(collateral: Collateral, unused: Sequence[Unused], inspector: Inspector, output: Output) -> int:
    """Write what verifies; what does not, and inputs that gave nothing, are an error or left out.

    Raises:
        InputError: something would be left out, without ``--keep-going``; or all of it.
    """
    inspection = inspector.look_into(collateral)
    left = [(item.path, item.reason) for item in unused]
    left += [(name, f"NOT VERIFIED: {why}") for name, why in inspection.bad]
    if left:
        word = "left out" if output.keep_going else "not usable"
        say(joined([f"{word}: {name}: {why}" for name, why in left]), error=True)
    if left and not output.keep_going:
        raise InputError(
            f"{output.output} was not written: {counted(len(left), 'input')} cannot be used",
            code="unused-input",
            hint="take it away, or leave it out with --keep-going; RIMs of others need their own --trust-anchors",
        )
    if not inspection.usable.rims and not inspection.usable.ocsp:
        raise InputError(f"{output.output} was not written: there is nothing to write", code="unused-input")
    return _write(inspector.look_into(inspection.usable), output.output, as_json=output.as_json)


def _write(inspection: Inspection, path: str, *, as_json: bool) -> int:
    write_file(path, dump_json(dump_bundle(inspection.usable)) + "\n")
    _print(inspection, path, as_json=as_json)
    return 0


def _print(inspection: Inspection, path: str, *, as_json: bool) -> None:
    from nvattest.collateral.inspection import render_inspection

    if as_json:
        print(dump_json(inspection.facts))
    else:
        say(f"{path}: {render_inspection(inspection.facts)}")
