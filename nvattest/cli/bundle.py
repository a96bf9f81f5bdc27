"""``nvattest bundle``: RIMs and revocation answers in one file."""

from __future__ import annotations

import argparse

from nvattest.cli import network, targets
from nvattest.cli.arguments import existing_directory, existing_file
from nvattest.cli.output import say, write_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of the command and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a bundle from folders of RIMs (*.xml) and answers (*.der)")
    create.add_argument("--rim-dir", type=existing_directory, metavar="DIR", help="folder of <RIM id>.xml files")
    create.add_argument("--ocsp-dir", type=existing_directory, metavar="DIR", help="folder of OCSP responses (*.der)")
    create.add_argument("--output", required=True, metavar="FILE", help="where to write the bundle")
    fetch = actions.add_parser("fetch", help="make a bundle from NVIDIA's services, for guests without a network")
    targets.add_target_options(fetch)
    network.add_url_options(fetch.add_argument_group("services"))
    network.add_network_options(fetch)
    fetch.add_argument("--output", required=True, metavar="FILE", help="where to write the bundle")
    inspect = actions.add_parser("inspect", help="say what a bundle holds and until when it is good")
    inspect.add_argument("file", type=existing_file, metavar="FILE")
    merge = actions.add_parser("merge", help="put several bundles into one")
    merge.add_argument("files", nargs="+", type=existing_file, metavar="FILE")
    merge.add_argument("--output", required=True, metavar="FILE", help="where to write the bundle")


def run(options: argparse.Namespace) -> int:
    """Run one action."""
    return {"create": _create, "fetch": _fetch, "inspect": _inspect, "merge": _merge}[options.action](options)


def _create(options: argparse.Namespace) -> int:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.cli.arguments import REQUIRED, ArgumentError
    from nvattest.collateral.folders import read_ocsp_folder, read_rim_folder

    if options.rim_dir is None and options.ocsp_dir is None:
        raise ArgumentError("at least one of --rim-dir and --ocsp-dir is required", REQUIRED)
    collateral = Collateral()
    if options.rim_dir is not None:
        collateral = collateral.merged(read_rim_folder(options.rim_dir))
    if options.ocsp_dir is not None:
        collateral = collateral.merged(read_ocsp_folder(options.ocsp_dir))
    return _write(collateral, options)


def _fetch(options: argparse.Namespace) -> int:
    """Write a bundle with which everything asked for verifies, or none."""
    from nvattest.appraisal.policy import RevocationMode
    from nvattest.appraisal.verifier import Verifier
    from nvattest.cli.sources import trust_anchors
    from nvattest.collateral.gather import gather_needs
    from nvattest.collateral.preflight import foreign_anchors, preflight, render_preflight
    from nvattest.errors import CollateralError, ResultCode
    from nvattest.session import now

    verifier = Verifier(anchors=trust_anchors(options))
    needs = targets.needs_of_options(options, verifier, options.at or now())
    # Answers of now have the longest window before them.
    mode = RevocationMode.WITHIN_WINDOW if options.offline else RevocationMode.FRESH
    collateral = gather_needs(needs, network.gather_options(options, mode), at=options.at or now(), verifier=verifier)
    network.say_what_was_not_asked(options, collateral)
    facts = preflight(needs, collateral, verifier, options.at or now())
    if facts["ready"] is not True:
        code = facts["result_code"]
        say(render_preflight(facts), error=True)
        raise CollateralError(
            f"{options.output} was not written: guests could not verify with it",
            code="bundle-incomplete",
            result_code=ResultCode(code) if isinstance(code, int) else None,
        )
    # Not in the bundle: it is verified again, under the anchors of whoever uses it.
    for line in foreign_anchors(verifier.anchors.label, simulated=verifier.anchors.simulated):
        say(line.strip(), error=True)
    return _write(collateral, options)


def _merge(options: argparse.Namespace) -> int:
    from nvattest.collateral.bundle import merge_bundles

    return _write(merge_bundles(_load(path) for path in options.files), options)


def _load(path: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from nvattest.collateral.bundle import MAXIMUM_BUNDLE, load_bundle
    from nvattest.collateral.folders import read_bounded

    return load_bundle(read_bounded(path, MAXIMUM_BUNDLE), origin=path)


def _write(collateral, options: argparse.Namespace) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
    from nvattest._json import dump_json
    from nvattest.collateral.bundle import dump_bundle
    from nvattest.collateral.inspection import inspect_bundle

    facts = inspect_bundle(collateral)
    write_file(options.output, dump_json(dump_bundle(collateral)) + "\n")
    _print(facts, options.output, options)
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from nvattest.collateral.inspection import inspect_bundle

    facts = inspect_bundle(_load(options.file))
    _print(facts, options.file, options)
    return 0


def _print(facts: dict[str, object], path: str, options: argparse.Namespace) -> None:
    from nvattest._json import dump_json
    from nvattest.collateral.inspection import render_inspection

    if options.format == "json":
        print(dump_json(facts))
    else:
        say(f"{path}: {render_inspection(facts)}")
