"""The bundle of a fleet: fetched and refreshed for the nodes of a file, and merged from bundles of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import BinaryIO, Final, NamedTuple

from nvattest._documents import JsonObject
from nvattest._text import joined
from nvattest.appraisal.inputs import Collateral, RevocationMode
from nvattest.appraisal.verifier import Verifier
from nvattest.cli import sources
from nvattest.cli.output import Progress, print_json, say
from nvattest.cli.sources import Judgement, Services
from nvattest.collateral.bundle import MANIFEST, BundleFile, BundleFolder, merge_bundles, open_bundle
from nvattest.collateral.fleet import FetchJournal, Node, Tally, gather_fleet
from nvattest.collateral.folders import Unused
from nvattest.collateral.inspection import foreign_anchors, inspect_parts
from nvattest.errors import CollateralError, InputError, NvattestError, ResultCode
from nvattest.evidence import read_evidence
from nvattest.fleet import open_lines, read_line, read_lines
from nvattest.model import VerificationTime, counted
from nvattest.pki.anchors import CpuAnchors
from nvattest.pki.chain import ValidatedChain
from nvattest.session import now

_SHOWN: Final = 10


class FleetRequest(NamedTuple):
    """The nodes of a fleet, and the folder for what they need.

    ``input`` has lines as verify-batch reads them. ``renew``: seconds that an answer in the folder must still hold;
    None where no bundle is there yet.
    """

    input: str
    folder: str
    keep_going: bool
    services: Services
    judgement: Judgement
    rate: float
    renew: float | None
    quiet: bool
    as_json: bool


def fetch_fleet(request: FleetRequest) -> int:
    """Have the folder hold what all nodes need. Until then what has come stays in its journal.

    Raises:
        InputError: a file, folder or setting that cannot be used.
        CollateralError: a service cannot be reached, or a node could not be verified with the bundle.
    """
    judgement = request.judgement
    verifier = Verifier(anchors=sources.trust_anchors(judgement.trust_anchors))
    settings = sources.gather_options(request.services._replace(no_cache=True), RevocationMode.WITHIN_WINDOW)
    settings = replace(settings, http=replace(settings.http, rate=request.rate), renew=request.renew)
    with ExitStack() as stack:
        with sources.naming("--input"):
            source = stack.enter_context(open_lines(request.input))
        journal = stack.enter_context(FetchJournal(request.folder))
        # Looked at under the lock: a bundle that another process has just written counts.
        before = None
        if os.path.exists(os.path.join(request.folder, MANIFEST)):
            if request.renew is None:
                if journal.empty:
                    journal.discard()
                raise InputError(
                    f"{request.folder}: there is a bundle in it", code="file",
                    hint="nvattest bundle refresh asks for what ends soon; or name another folder",
                )  # fmt: skip
            before = BundleFolder(request.folder)
        if before is not None and not journal.seeded:
            journal.seed(before.parts())
        progress = stack.enter_context(Progress("fetching", quiet=request.quiet))
        tally = gather_fleet(
            _nodes(source), settings, journal, verifier, lambda: judgement.at or now(),
            progress=lambda count: progress.update(f"{count} nodes"),
        )  # fmt: skip
        _require_complete(tally, request)
        folder = journal.finish()
        answers = journal.used
    for line in foreign_anchors(verifier.anchors.label, simulated=verifier.anchors.simulated):
        say(line.strip(), error=True)
    if request.as_json:
        facts: JsonObject = {
            "folder": request.folder,
            "nodes": tally.nodes,
            "not_ready": [{"node": name, "reason": reason} for name, reason in tally.problems],
            "rims": len(folder.rims),
            "answers": answers,
            "anchors": verifier.anchors.label,
            "simulated": verifier.anchors.simulated,
        }
        print_json("fleet-fetch", facts)
    else:
        held = f"{counted(len(folder.rims), 'RIM')} and {counted(answers, 'revocation answer')}"
        say(f"{request.folder}: {held} for {counted(tally.nodes - len(tally.problems), 'node')}")
    return 0


def _nodes(source: BinaryIO) -> Iterator[Node]:
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


class Merged(NamedTuple):
    """A merge that is not written yet: its facts, the entries that cannot be used, and the inputs that gave nothing."""

    facts: JsonObject
    bad: Sequence[tuple[str, str]]
    unused: Sequence[Unused]


def merge_into(
    journal: FetchJournal,
    paths: Sequence[str],
    verifier: Verifier,
    at: VerificationTime,
    chains: Sequence[ValidatedChain],
    cpu_anchors: CpuAnchors,
) -> Merged:
    """Merge bundles of any size into the journal of a folder, one part in memory at a time.

    Raises:
        InputError: a shard is damaged, or the journal cannot be written.
    """
    bundles: list[BundleFile | BundleFolder] = []
    unused: list[Unused] = []
    for path in paths:
        try:
            bundles.append(open_bundle(path))
        except InputError as error:
            unused.append(Unused(path, error.message))
    rims = merge_bundles(
        [Collateral(rims=bundle.rims, cpu=bundle.cpu) for bundle in bundles],
        conflict=lambda rim, error: unused.append(Unused(rim.origin, error.message)),
    )

    def parts() -> Iterator[Collateral]:
        yield rims
        for bundle in bundles:
            yield from (Collateral(ocsp=part.ocsp) for part in bundle.parts())

    facts, bad = inspect_parts(parts(), verifier, at, chains=chains, cpu_anchors=cpu_anchors, use=journal.merge)
    return Merged(facts, bad, unused)
