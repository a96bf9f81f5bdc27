"""``nvattest bundle``: RIMs and revocation answers in one file."""

from __future__ import annotations

import argparse

from nvattest.cli.arguments import existing_directory, existing_file
from nvattest.cli.output import write_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of the command and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a bundle from folders of RIMs (*.xml) and answers (*.der)")
    create.add_argument("--rim-dir", type=existing_directory, metavar="DIR", help="folder of <RIM id>.xml files")
    create.add_argument("--ocsp-dir", type=existing_directory, metavar="DIR", help="folder of OCSP responses (*.der)")
    create.add_argument("--output", required=True, metavar="FILE", help="where to write the bundle")
    inspect = actions.add_parser("inspect", help="say what a bundle holds and until when it is good")
    inspect.add_argument("file", type=existing_file, metavar="FILE")
    merge = actions.add_parser("merge", help="put several bundles into one")
    merge.add_argument("files", nargs="+", type=existing_file, metavar="FILE")
    merge.add_argument("--output", required=True, metavar="FILE", help="where to write the bundle")


def run(options: argparse.Namespace) -> int:
    """Run one action."""
    return {"create": _create, "inspect": _inspect, "merge": _merge}[options.action](options)


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
    from nvattest.collateral.inspection import inspect_bundle, render_inspection

    facts = inspect_bundle(collateral)
    write_file(options.output, dump_json(dump_bundle(collateral)) + "\n")
    print(dump_json(facts) if options.format == "json" else f"{options.output}: " + render_inspection(facts))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from nvattest._json import dump_json
    from nvattest.collateral.inspection import inspect_bundle, render_inspection

    facts = inspect_bundle(_load(options.file))
    print(dump_json(facts) if options.format == "json" else f"{options.file}: " + render_inspection(facts))
    return 0
