"""``nvattest bundle``: RIMs, revocation answers and CPU collateral in one file, or for a fleet in one folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._documents import JsonObject, dump_json
from nvattest._text import joined
from nvattest.appraisal.inputs import Collateral, CpuAnswer, Source
from nvattest.cli import collect, sources
from nvattest.cli.arguments import (
    REQUIRED,
    VALIDATION,
    ArgumentError,
    existing_directory,
    existing_path,
    given,
    input_file,
    input_path,
    output_file,
    read,
    read_input,
    seconds,
)
from nvattest.cli.output import print_json, say, write_file
from nvattest.cli.preflight import (
    OF_DEVICES,
    Outlook,
    Targets,
    add_target_options,
    evidence_of_files,
    look_ahead,
    targets_of,
)
from nvattest.cli.sources import Judgement
from nvattest.collateral.bundle import MAXIMUM_CPU, dump_bundle, merge_bundles
from nvattest.collateral.folders import RIM_SUFFIXES, Unused, other_files, read_ocsp_folder, read_rim_folder
from nvattest.errors import CollateralError, InputError, ResultCode
from nvattest.model import VerificationTime, counted

if TYPE_CHECKING:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.inspection import Inspection
    from nvattest.pki.anchors import CpuAnchors
    from nvattest.pki.chain import ValidatedChain

_OF_ONE_PLATFORM: Final = (*OF_DEVICES, "tee_quote")


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
    cpu_anchors: CpuAnchors

    def chains(self) -> tuple[ValidatedChain, ...]:
        """The chains of the devices in the evidence."""
        from nvattest.collateral.gather import needs_of

        return needs_of(evidence_of_files(self.files), self.verifier, self.at).chains

    def look_into(self, collateral: Collateral) -> Inspection:
        """What the collateral holds, whether it verifies and until when."""
        from nvattest.collateral.inspection import inspect_bundle

        return inspect_bundle(collateral, self.verifier, self.at, chains=self.chains(), cpu_anchors=self.cpu_anchors)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of the command and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a bundle from folders of RIMs and answers")
    create.add_argument(
        "--rim-dir", type=existing_directory, metavar="DIR",
        help="folder of RIMs: *.xml, *.swidtag, or the RIM service's *.json",
    )  # fmt: skip
    create.add_argument("--ocsp-dir", type=existing_directory, metavar="DIR", help="folder of OCSP responses (*.der)")
    create.add_argument(
        "--tee-collateral", type=input_file, action="append", default=[], metavar="FILE",
        help="a CPU maker's collateral: Intel's JSON document, or AMD's certificates and list; may be repeated",
    )  # fmt: skip
    _writes(create)
    fetch = actions.add_parser("fetch", help="make a bundle from NVIDIA's services, for guests without a network")
    fetch.add_argument(
        "--output",
        type=output_file,
        required=True,
        metavar="FILE",
        help="where to write the bundle; with --input the name of a folder",
    )
    refresh = actions.add_parser("refresh", help="ask NVIDIA's services for what of a bundle ends soon")
    refresh.add_argument("file", type=existing_path, metavar="FILE")
    refresh.add_argument(
        "--within", type=seconds, default=43200.0, metavar="SECONDS",
        help="ask for answers that end so soon, but not within the first half of their time (43200, twelve hours)",
    )  # fmt: skip
    for action in (fetch, refresh):
        add_target_options(action)
        group = action.add_argument_group("a fleet")
        group.add_argument(
            "--input", metavar="FILE", help="JSON Lines as verify-batch reads them, also .gz; the bundle is a folder"
        )
        group.add_argument(
            "--rate", type=_rate, default=0.0, metavar="N", help="at most so many requests a second; unlimited without"
        )
        group.add_argument(
            "--keep-going", action="store_true", help="write the bundle although some nodes cannot be verified with it"
        )
        sources.add_url_options(action.add_argument_group("services"))
        sources.add_network_options(action)
    inspect = actions.add_parser("inspect", help="say what a bundle holds, whether it verifies and until when")
    inspect.add_argument("file", type=input_path, metavar="FILE", help="the bundle; - is standard input")
    merge = actions.add_parser("merge", help="put several bundles into one; folders, or more than a file holds, in one")
    merge.add_argument("files", nargs="+", type=input_path, metavar="FILE")
    _writes(merge)
    for action in (create, inspect, merge):
        sources.add_judgement_options(action)
        collect.add_evidence_files(action.add_argument_group("devices whose revocation answers are to be verified"))
        sources.add_cpu_anchors(action)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of requests a second")
    return value


def _writes(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--keep-going", action="store_true", help="leave out what cannot be used, and write the bundle all the same"
    )
    action.add_argument("--output", type=output_file, required=True, metavar="FILE", help="where to write the bundle")


def run(options: argparse.Namespace) -> int:
    """Run one action."""
    as_json = options.format == "json"
    if options.action in ("fetch", "refresh"):
        if options.input is not None:
            return _fetch_fleet(options, as_json=as_json)
        _refuse(options, ("rate", "keep_going"), "needs --input, the nodes of a fleet")
        if options.action == "fetch":
            return _fetch(look_ahead(targets_of(options)), options.output, as_json=as_json)
        if os.path.isdir(options.file):
            raise ArgumentError("--input is required: the folder is refreshed for the nodes in it", REQUIRED)
        return _refresh(options.file, targets_of(options), options.within, as_json=as_json)
    if options.action == "inspect":
        return _inspect(options.file, _inspector(options), as_json=as_json)
    output = read(Output, options, as_json=as_json)
    if options.action == "create":
        collateral, unused = _from_folders(options.rim_dir, options.ocsp_dir, options.tee_collateral)
    elif os.path.isdir(options.output) or options.output.endswith("/") or any(map(os.path.isdir, options.files)):
        return _merge_into_folder(options.files, _inspector(options), output)
    else:
        collateral, unused = _merged(options.files)
    return _write_verified(collateral, unused, _inspector(options), output)


def _refuse(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Refuse options that would have no effect.

    Raises:
        ArgumentError: one of them is given.
    """
    for name in names:
        if name in given(options) or getattr(options, name) is True:
            raise ArgumentError(f"--{name.replace('_', '-')}: {why}", VALIDATION)


def _fetch_fleet(options: argparse.Namespace, *, as_json: bool) -> int:
    from nvattest.cli.fleet_bundle import FleetRequest, fetch_fleet

    _refuse(options, _OF_ONE_PLATFORM, "cannot go with --input, whose lines say which devices there are")
    _refuse(options, ("cache_dir", "no_cache"), "has no effect with --input: the folder is the cache")
    _refuse(options, ("offline",), "cannot go with --input: nothing would come")
    refresh = options.action == "refresh"
    if refresh and not os.path.isdir(options.file):
        raise ArgumentError(f"{options.file}: this is a file, and the bundle of a fleet is a folder", VALIDATION)
    return fetch_fleet(
        read(
            FleetRequest,
            options,
            folder=options.file if refresh else options.output,
            services=sources.services(options),
            judgement=read(Judgement, options),
            renew=options.within if refresh else None,
            quiet=options.log_level == "off",
            as_json=as_json,
        )
    )


def _inspector(options: argparse.Namespace) -> Inspector:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.session import now

    judgement = read(Judgement, options)
    verifier = Verifier(anchors=sources.trust_anchors(judgement.trust_anchors))
    anchors = sources.cpu_anchors(options.cpu_anchors)
    return Inspector(verifier, judgement.at or now(), collect.evidence_files(options), anchors)


def _from_folders(
    rim_dir: str | None, ocsp_dir: str | None, cpu_files: Sequence[str]
) -> tuple[Collateral, list[Unused]]:
    if rim_dir is None and ocsp_dir is None and not cpu_files:
        raise ArgumentError("at least one of --rim-dir, --ocsp-dir and --tee-collateral is required", REQUIRED)
    unused: list[Unused] = []
    collateral = Collateral(
        cpu=tuple(CpuAnswer(read_input(path, MAXIMUM_CPU), Source.FILE, path) for path in cpu_files)
    )
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
            part = sources.read_bundle(path, "")
        except InputError as error:
            unused.append(Unused(path, error.message.removeprefix(f"{path}: ")))
            continue
        if not part.rims and not part.ocsp and not part.cpu:
            unused.append(Unused(path, "a bundle with nothing in it"))
        parts.append(part)
    merged = merge_bundles(parts, conflict=lambda rim, error: unused.append(Unused(rim.origin, error.message)))
    return merged, unused


def _fetch(outlook: Outlook, output: str, *, as_json: bool) -> int:
    """Write a bundle with which everything asked for verifies, or none."""
    from nvattest.collateral.inspection import foreign_anchors, inspect_bundle, render_preflight

    facts, verifier = outlook.facts, outlook.verifier
    # In a bundle an answer has no nonce of ours that could stand in for a window.
    inspection = inspect_bundle(
        outlook.collateral, verifier, outlook.at, chains=outlook.needs.chains, cpu_anchors=outlook.cpu_anchors
    )
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


def _refresh(path: str, targets: Targets, within: float, *, as_json: bool) -> int:
    """Write the bundle again, with new answers in place of those that end soon."""
    from nvattest.collateral.bundle import serial_of

    outlook = look_ahead(targets, known=sources.read_bundle(path), renew=within)
    collateral = outlook.collateral
    old = [answer for answer in collateral.ocsp if answer.source is Source.BUNDLE]
    new = [answer for answer in collateral.ocsp if answer.source is not Source.BUNDLE]
    renewed = {serial_of(answer.content) for answer in new}
    kept = [answer for answer in old if serial_of(answer.content) not in renewed]
    return _fetch(outlook._replace(collateral=replace(collateral, ocsp=(*kept, *new))), path, as_json=as_json)


def _inspect(path: str, inspector: Inspector, *, as_json: bool) -> int:
    """List and verify; what does not verify makes the status that of an overall result that is false."""
    from nvattest.collateral.bundle import open_bundle
    from nvattest.collateral.inspection import inspect_parts

    parts = open_bundle(path).parts() if os.path.isdir(path) else iter([sources.read_bundle(path, "FILE")])
    facts, bad = inspect_parts(
        parts, inspector.verifier, inspector.at, chains=inspector.chains(), cpu_anchors=inspector.cpu_anchors
    )
    _print(facts, path, as_json=as_json)
    return ResultCode.OVERALL_RESULT_FALSE.exit_status if bad else 0


def _merge_into_folder(paths: Sequence[str], inspector: Inspector, output: Output) -> int:
    from nvattest.cli.fleet_bundle import merge_into
    from nvattest.collateral.fleet import FetchJournal

    folder, chains = output.output.rstrip("/"), inspector.chains()
    with FetchJournal(folder) as journal:
        interrupted = not journal.empty
        if interrupted:
            hint = "end it, name another folder, or remove the journal in this one"
            raise InputError(f"{folder}: a fetch into it was interrupted", code="journal", hint=hint)
        try:
            merged = merge_into(journal, paths, inspector.verifier, inspector.at, chains, inspector.cpu_anchors)
            _refuse_left(merged.unused, merged.bad, output)
            if journal.empty:
                raise _nothing(folder)
            journal.finish()
        except BaseException:
            # No fetch goes on from half a merge.
            journal.discard()
            raise
    _print(merged.facts, folder, as_json=output.as_json)
    return 0


def _write_verified(collateral: Collateral, unused: Sequence[Unused], inspector: Inspector, output: Output) -> int:
    """Write what verifies; what does not, and inputs that gave nothing, are an error or left out.

    Raises:
        InputError: something would be left out, without ``--keep-going``; or all of it.
    """
    inspection = inspector.look_into(collateral)
    _refuse_left(unused, inspection.bad, output)
    usable = inspection.usable
    if not usable.rims and not usable.ocsp and not usable.cpu:
        raise _nothing(output.output)
    return _write(inspector.look_into(usable), output.output, as_json=output.as_json)


def _nothing(output: str) -> InputError:
    return InputError(f"{output} was not written: there is nothing to write", code="unused-input")


def _refuse_left(unused: Sequence[Unused], bad: Sequence[tuple[str, str]], output: Output) -> None:
    left = [(item.path, item.reason) for item in unused]
    left += [(name, f"NOT VERIFIED: {why}") for name, why in bad]
    if left:
        word = "left out" if output.keep_going else "not usable"
        say(joined([f"{word}: {name}: {why}" for name, why in left]), error=True)
    if left and not output.keep_going:
        raise InputError(
            f"{output.output} was not written: {counted(len(left), 'input')} cannot be used",
            code="unused-input",
            hint="take it away, or leave it out with --keep-going; RIMs of others need their own --trust-anchors",
        )


def _write(inspection: Inspection, path: str, *, as_json: bool) -> int:
    write_file(path, dump_json(dump_bundle(inspection.usable)) + "\n")
    _print(inspection.facts, path, as_json=as_json)
    return 0


def _print(facts: JsonObject, path: str, *, as_json: bool) -> None:
    from nvattest.collateral.inspection import render_inspection

    if as_json:
        print_json("bundle-inspection", facts)
    else:
        say(f"{path}: {render_inspection(facts)}")
