"""``nvattest bundle``: RIMs, revocation answers and CPU collateral in one file, or for a fleet in one folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from nvattest._documents import JsonObject, dump_json
from nvattest._text import joined
from nvattest.appraisal.inputs import Collateral, CpuAnswer, RevocationMode, Source
from nvattest.cli import collect, sources
from nvattest.cli.arguments import (
    REQUIRED,
    ArgumentError,
    add_options,
    existing_directory,
    existing_path,
    flag,
    given,
    input_file,
    input_path,
    option,
    read,
    read_input,
    seconds,
    updated_file,
)
from nvattest.cli.output import Progress, print_json, say, write_file
from nvattest.cli.preflight import OF_DEVICES, Outlook, add_target_options, evidence_of_files, look_ahead, targets_of
from nvattest.cli.sources import Judgement, Services
from nvattest.errors import CollateralError, InputError, NvattestError, ResultCode
from nvattest.evidence import read_evidence
from nvattest.model import VerificationTime, counted

if TYPE_CHECKING:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import Bundle
    from nvattest.collateral.fleet import Node, Tally
    from nvattest.collateral.folders import Unused
    from nvattest.collateral.inspection import Inspection
    from nvattest.pki.anchors import CpuAnchors
    from nvattest.pki.chain import ValidatedChain

# Nodes that cannot be verified with the bundle of a fleet, of which people see so many.
_SHOWN: Final = 10


class Output(NamedTuple):
    """The bundle to write, and whether inputs that cannot be used are left out of it."""

    output: str
    keep_going: bool
    as_json: bool


class Inspector(NamedTuple):
    """What a bundle is verified with; ``chains`` are those of devices whose revocation answers are verified too."""

    verifier: Verifier
    at: VerificationTime
    chains: tuple[ValidatedChain, ...]
    cpu_anchors: CpuAnchors | None


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of requests a second")
    return value


class FleetRequest(NamedTuple):
    """The nodes of a fleet, and the folder for what they need.

    ``input`` has lines as verify-batch reads them. ``renew``: seconds that an answer in the folder must still hold;
    None where no bundle is there yet.
    """

    folder: str
    services: Services
    judgement: Judgement
    renew: float | None
    quiet: bool
    as_json: bool
    input: str = option("FILE", "JSON Lines as verify-batch reads them, also .gz; the bundle is a folder")
    rate: float = option("N", "at most so many requests a second; unlimited without", _rate, 0.0)
    keep_going: bool = flag("write the bundle although some nodes cannot be verified with it")


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    fetch = actions.add_parser("fetch", help="make a bundle from NVIDIA's services, for guests without a network")
    fetch.add_argument(
        "--output", type=updated_file, required=True, metavar="FILE",
        help="where to write the bundle; with --input the name of a folder",
    )  # fmt: skip
    refresh = actions.add_parser("refresh", help="ask NVIDIA's services for what of a bundle ends soon")
    refresh.add_argument("file", type=existing_path, metavar="FILE")
    refresh.add_argument(
        "--within", type=seconds, default=43200.0, metavar="SECONDS",
        help="ask for answers that end so soon, but not within the first half of their time (43200, twelve hours)",
    )  # fmt: skip
    for action in (fetch, refresh):
        add_target_options(action)
        add_options(action.add_argument_group("a fleet"), FleetRequest)
        sources.add_service_options(action)
    inspect = actions.add_parser("inspect", help="say what a bundle holds, whether it verifies and until when")
    inspect.add_argument("file", type=input_path, metavar="FILE", help="the bundle; - is standard input")
    merge = actions.add_parser("merge", help="put several bundles into one; folders, or more than a file holds, in one")
    merge.add_argument("files", nargs="+", type=input_path, metavar="FILE")
    for action in (create, merge):
        action.add_argument(
            "--keep-going", action="store_true", help="leave out what cannot be used, and write the bundle all the same"
        )
        action.add_argument(
            "--output", type=updated_file, required=True, metavar="FILE", help="where to write the bundle"
        )
    for action in (create, inspect, merge):
        sources.add_judgement_options(action)
        collect.add_evidence_files(action.add_argument_group("devices whose revocation answers are to be verified"))
        add_options(action, sources.GuestSource, "cpu_anchors")


def run(options: argparse.Namespace) -> int:
    """Run one action."""
    as_json = options.format == "json"
    if options.action in ("fetch", "refresh"):
        return _fetch_or_refresh(options, as_json=as_json)
    if options.action == "inspect":
        return _inspect(options.file, _inspector(options), as_json=as_json)
    output = read(Output, options, as_json=as_json)
    if options.action == "create":
        collateral, unused = _from_folders(options.rim_dir, options.ocsp_dir, options.tee_collateral)
    elif os.path.isdir(options.output) or options.output.endswith("/") or any(map(os.path.isdir, options.files)):
        return _merge_into_folder(options.files, _inspector(options), output)
    else:
        collateral, unused = _merged(options.files)
    from nvattest.collateral.inspection import inspect_bundle

    inspector = _inspector(options)
    inspection = inspect_bundle(collateral, **inspector._asdict())
    _refuse_left(unused, inspection.bad, output)
    usable = inspection.usable
    if not usable.rims and not usable.ocsp and not usable.cpu:
        raise _nothing(output.output)
    return _write(inspect_bundle(usable, **inspector._asdict()), output.output, as_json=as_json)


def _fetch_or_refresh(options: argparse.Namespace, *, as_json: bool) -> int:
    refresh = options.action == "refresh"
    if options.input is None:
        _refuse(options, ("rate", "keep_going"), "needs --input, the nodes of a fleet")
        if not refresh:
            return _fetch(look_ahead(targets_of(options)), options.output, as_json=as_json)
        if os.path.isdir(options.file):
            raise ArgumentError("--input is required: the folder is refreshed for the nodes in it", REQUIRED)
        return _refresh(options, as_json=as_json)
    _refuse(options, (*OF_DEVICES, "tee_quote"), "cannot go with --input, whose lines say which devices there are")
    _refuse(options, ("cache_dir", "no_cache"), "has no effect with --input: the folder is the cache")
    _refuse(options, ("offline",), "cannot go with --input: nothing would come")
    if refresh and not os.path.isdir(options.file):
        raise ArgumentError(f"{options.file}: this is a file, and the bundle of a fleet is a folder")
    request = read(
        FleetRequest,
        options,
        folder=options.file if refresh else options.output,
        services=sources.services(options),
        judgement=read(Judgement, options),
        renew=options.within if refresh else None,
        quiet=options.log_level == "off",
        as_json=as_json,
    )
    return _fetch_fleet(request)


def _refuse(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Refuse options that would have no effect."""
    for name in given(options, *names):
        raise ArgumentError(f"{name}: {why}")


def _inspector(options: argparse.Namespace) -> Inspector:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.gather import needs_of
    from nvattest.session import now

    judgement = read(Judgement, options)
    verifier, at = Verifier(anchors=sources.trust_anchors(judgement.trust_anchors)), judgement.at or now()
    chains = needs_of(evidence_of_files(collect.evidence_files(options)), verifier, at).chains
    return Inspector(verifier, at, chains, sources.cpu_anchors(options.cpu_anchors))


def _from_folders(
    rim_dir: str | None, ocsp_dir: str | None, cpu_files: Sequence[str]
) -> tuple[Collateral, list[Unused]]:
    from nvattest.collateral.bundle import MAXIMUM_CPU
    from nvattest.collateral.folders import RIM_SUFFIXES, other_files, read_ocsp_folder, read_rim_folder

    if rim_dir is None and ocsp_dir is None and not cpu_files:
        raise ArgumentError("at least one of --rim-dir, --ocsp-dir and --tee-collateral is required", REQUIRED)
    unused: list[Unused] = []
    collateral = Collateral(
        cpu=tuple(CpuAnswer(read_input(path, MAXIMUM_CPU), Source.FILE, path) for path in cpu_files)
    )
    suffixes: dict[str, tuple[str, ...]] = {}
    kinds = ((rim_dir, read_rim_folder, RIM_SUFFIXES), (ocsp_dir, read_ocsp_folder, (".der",)))
    for folder, reader, of_kind in kinds:
        if folder is not None:
            collateral = collateral.merged(reader(folder, unused=unused.append))
            # One folder may hold both.
            place = os.path.realpath(folder)
            suffixes[place] = (*suffixes.get(place, ()), *of_kind)
    for place, of_kinds in suffixes.items():
        unused += other_files(place, of_kinds)
    return collateral, unused


def _merged(paths: Sequence[str]) -> tuple[Collateral, list[Unused]]:
    from nvattest.collateral.bundle import merge_bundles
    from nvattest.collateral.folders import Unused

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
    from nvattest.collateral.inspection import inspect_bundle, render_preflight

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
    _say_foreign_anchors(verifier)
    return _write(inspection, output, as_json=as_json)


def _say_foreign_anchors(verifier: Verifier) -> None:
    """The bundle does not name its anchors: whoever uses it verifies it again under their own."""
    from nvattest.collateral.inspection import foreign_anchors

    for line in foreign_anchors(verifier.anchors.label, simulated=verifier.anchors.simulated):
        say(line.strip(), error=True)


def _refresh(options: argparse.Namespace, *, as_json: bool) -> int:
    """Write the bundle again, with new answers in place of those that end soon."""
    from nvattest.collateral.bundle import serial_of

    path: str = options.file
    outlook = look_ahead(targets_of(options), known=sources.read_bundle(path), renew=options.within)
    collateral = outlook.collateral
    old = [answer for answer in collateral.ocsp if answer.source is Source.BUNDLE]
    new = [answer for answer in collateral.ocsp if answer.source is not Source.BUNDLE]
    renewed = {serial_of(answer.content) for answer in new}
    kept = [answer for answer in old if serial_of(answer.content) not in renewed]
    return _fetch(outlook._replace(collateral=replace(collateral, ocsp=(*kept, *new))), path, as_json=as_json)


def _inspect(path: str, inspector: Inspector, *, as_json: bool) -> int:
    """List and verify; what does not verify makes the status that of an overall result that is false."""
    from nvattest.collateral.bundle import Bundle
    from nvattest.collateral.inspection import inspect_parts

    parts = Bundle(path).parts() if os.path.isdir(path) else iter([sources.read_bundle(path, "FILE")])
    facts, bad = inspect_parts(parts, **inspector._asdict())
    _print(facts, path, as_json=as_json)
    return ResultCode.OVERALL_RESULT_FALSE.exit_status if bad else 0


def _nothing(output: str) -> InputError:
    return InputError(f"{output} was not written: there is nothing to write", code="unused-input")


def _refuse_left(unused: Sequence[Unused], bad: Sequence[tuple[str, str]], output: Output) -> None:
    """Say what does not verify and which inputs gave nothing; without ``--keep-going`` they are an error."""
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
    from nvattest.collateral.bundle import dump_bundle

    write_file(path, dump_json(dump_bundle(inspection.usable)) + "\n")
    _print(inspection.facts, path, as_json=as_json)
    return 0


def _print(facts: JsonObject, path: str, *, as_json: bool) -> None:
    from nvattest.collateral.inspection import render_inspection

    if as_json:
        print_json("bundle-inspection", facts)
    else:
        say(f"{path}: {render_inspection(facts)}")


# --- the bundle of a fleet, a folder ----------------------------------------------------------------------------------


def _fetch_fleet(request: FleetRequest) -> int:
    """Have the folder hold what all nodes need. Until then what has come stays in its journal.

    Raises:
        InputError: a file, folder or setting that cannot be used.
        CollateralError: a service cannot be reached, or a node could not be verified with the bundle.
    """
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import MANIFEST, Bundle
    from nvattest.collateral.fleet import FetchJournal, gather_fleet
    from nvattest.fleet import open_lines
    from nvattest.session import now

    judgement = request.judgement
    verifier = Verifier(anchors=sources.trust_anchors(judgement.trust_anchors))
    settings = sources.gather_options(request.services._replace(no_cache=True), RevocationMode.WITHIN_WINDOW)
    settings = replace(settings, http=replace(settings.http, rate=request.rate), renew=request.renew)
    with ExitStack() as stack:
        with sources.naming("--input"):
            source = stack.enter_context(open_lines(request.input))
        journal = stack.enter_context(FetchJournal(request.folder))
        # Looked at under the lock: a bundle that another process has just written counts.
        if os.path.exists(os.path.join(request.folder, MANIFEST)):
            if request.renew is None:
                if journal.empty:
                    journal.discard()
                raise InputError(
                    f"{request.folder}: there is a bundle in it", code="file",
                    hint="nvattest bundle refresh asks for what ends soon; or name another folder",
                )  # fmt: skip
            before = Bundle(request.folder)
            if not journal.seeded:
                journal.seed(before.parts())
        progress = stack.enter_context(Progress("fetching", quiet=request.quiet))
        tally = gather_fleet(
            _nodes(source), settings, journal, verifier, lambda: judgement.at or now(),
            progress=lambda count: progress.update(f"{count} nodes"),
        )  # fmt: skip
        _require_complete(tally, request)
        folder = journal.finish()
        answers = journal.used
    _say_foreign_anchors(verifier)
    if request.as_json:
        facts: JsonObject = {
            "folder": request.folder,
            "nodes": tally.nodes,
            "not_ready": [{"node": name, "reason": reason} for name, reason in tally.problems],
            "rims": len(folder.shared.rims),
            "answers": answers,
            "anchors": verifier.anchors.label,
            "simulated": verifier.anchors.simulated,
        }
        print_json("fleet-fetch", facts)
    else:
        held = f"{counted(len(folder.shared.rims), 'RIM')} and {counted(answers, 'revocation answer')}"
        say(f"{request.folder}: {held} for {counted(tally.nodes - len(tally.problems), 'node')}")
    return 0


def _nodes(source: BinaryIO) -> Iterator[Node]:
    from nvattest.collateral.fleet import Node
    from nvattest.fleet import read_line, read_lines

    for number, line in enumerate(read_lines(source), start=1):
        name = f"line {number}"
        try:
            document = read_line(line)
            name = str(document.get("id", name))
            yield Node(name, read_evidence(document["evidence"]))
        except NvattestError as error:
            yield Node(name, error)


def _require_complete(tally: Tally, request: FleetRequest) -> None:
    if tally.problems:
        said = [f"not ready: {name}: {reason}" for name, reason in tally.problems[:_SHOWN]]
        if len(tally.problems) > _SHOWN:
            said.append(f"and {counted(len(tally.problems) - _SHOWN, 'more node')}")
        say(joined(said), error=True)
    if len(tally.problems) == tally.nodes or (tally.problems and not request.keep_going):
        raise CollateralError(
            f"{request.folder} is not complete: {len(tally.problems)} of {counted(tally.nodes, 'node')} could not be "
            "verified with it",
            code="bundle-incomplete",
            result_code=tally.code or ResultCode.BAD_ARGUMENT,
            hint="what has come is kept: run the command again, or leave these nodes out with --keep-going",
        )


def _merge_into_folder(paths: Sequence[str], inspector: Inspector, output: Output) -> int:
    """Merge bundles of any size into a folder, one part in memory at a time."""
    from nvattest.collateral.bundle import Bundle, merge_bundles
    from nvattest.collateral.fleet import FetchJournal
    from nvattest.collateral.folders import Unused
    from nvattest.collateral.inspection import inspect_parts

    bundles: list[Bundle] = []
    unused: list[Unused] = []

    def parts() -> Iterator[Collateral]:
        yield merge_bundles(
            [replace(bundle.shared, ocsp=()) for bundle in bundles],
            conflict=lambda rim, error: unused.append(Unused(rim.origin, error.message)),
        )
        for bundle in bundles:
            yield from (Collateral(ocsp=part.ocsp) for part in bundle.parts())

    folder = output.output.rstrip("/")
    with FetchJournal(folder) as journal:
        interrupted = not journal.empty
        if interrupted:
            hint = "end it, name another folder, or remove the journal in this one"
            raise InputError(f"{folder}: a fetch into it was interrupted", code="journal", hint=hint)
        try:
            for path in paths:
                try:
                    bundles.append(Bundle(path))
                except InputError as error:
                    unused.append(Unused(path, error.message))
            facts, bad = inspect_parts(parts(), **inspector._asdict(), use=journal.merge)
            _refuse_left(unused, bad, output)
            if journal.empty:
                raise _nothing(folder)
            journal.finish()
        except BaseException:
            # No fetch goes on from half a merge.
            journal.discard()
            raise
    _print(facts, folder, as_json=output.as_json)
    return 0
