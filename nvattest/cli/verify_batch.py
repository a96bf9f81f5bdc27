"""``nvattest verify-batch``: the evidence of many platforms, one JSON line each, judged on all cores.

Everything that is read is opened and checked before the output is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from typing import BinaryIO

from nvattest._documents import dump_json
from nvattest._folder import read_bounded
from nvattest.cli import sources
from nvattest.cli.arguments import choice, existing_file, output_file, warns
from nvattest.cli.output import Progress, open_stream, say, write_file
from nvattest.cli.sources import add_bundle_option
from nvattest.errors import InputError, ResultCode
from nvattest.model import VerificationTime

# Answers of a compressed output that a kill may cost: they are judged again.
_FLUSHED = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where lines come from and go to, and what they are judged with."""
    parser.add_argument(
        "--input", default="-", metavar="FILE", help="JSON Lines, also .gz; - for standard input (the default)"
    )
    parser.add_argument(
        "--output", default="-", metavar="FILE", help="JSON Lines, also .gz; - for standard output (the default)"
    )
    parser.add_argument(
        "--resume", action="store_true",
        help="go on where the output ends; its answers must be those of the same lines and settings",
    )  # fmt: skip
    add_bundle_option(parser, "RIMs and answers, a file or a folder", required=True)
    parser.add_argument("--policy", type=existing_file, metavar="FILE", help="evidence policy, TOML or JSON")
    parser.add_argument("--trust-anchors", type=existing_file, metavar="PEM", help="trust these roots instead")
    parser.add_argument(
        "--at", type=VerificationTime.parse, metavar="TIME",
        help="judge at this time; each line when it is read by default",
    )  # fmt: skip
    parser.add_argument(
        "--allow-line-time", action="store_true",
        help="a line may say when it is judged ('at'): whoever writes the line chooses the clock",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="processes; one per core by default")
    parser.add_argument(
        "--backend", type=choice("cryptography", "aws-lc"), default="cryptography", metavar="NAME",
        help="cryptography (the default) or aws-lc (extra fast)",
    )  # fmt: skip
    parser.add_argument(
        "--summary", type=output_file, metavar="FILE", help="write the sums as JSON (schema batch-summary-1.json)"
    )
    parser.add_argument(
        "--metrics", type=output_file, metavar="FILE",
        help="write the sums for Prometheus: a .prom file in the folder of node exporter's textfile collector",
    )  # fmt: skip
    parser.add_argument(
        "--fail-on-untrusted", action="store_true",
        help="exit status 12 unless there are lines and all are trusted; without it 0 says that all were answered",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Judge all lines. Exit status 0: every line was answered; the answers say what is trusted."""
    from nvattest.fleet import BatchSettings, Judge, Resumed, Sums, open_lines, open_output, read_lines, verify_batch

    marks = [time.monotonic()]
    settings = BatchSettings(
        bundles=tuple(options.bundle),
        at=options.at,
        anchors=read_bounded(options.trust_anchors, 1 << 16) if options.trust_anchors else None,
        policy=sources.evidence_policy(options.policy),
        backend=options.backend,
        allow_line_time=options.allow_line_time,
    )
    with sources.naming_bundles(options.bundle):
        judge = Judge(settings, check=True)
    if options.resume and options.output == "-":
        raise InputError("--resume needs an --output file", code="resume")
    sums = Sums()
    with ExitStack() as stack:
        with sources.naming("--input"):
            source = stack.enter_context(open_lines(options.input))
        read = [
            ("--input", source), ("--policy", options.policy), ("--trust-anchors", options.trust_anchors),
            *(("--bundle", path) for bundle in options.bundle for path in _files(bundle)),
        ]  # fmt: skip
        for option, target in (
            ("--output", options.output), ("--summary", options.summary), ("--metrics", options.metrics),
        ):  # fmt: skip
            for name, path in read:
                _refuse_one_file(name, path, option, target)
            # What is written may not be one file either.
            read.append((option, target))
        lines = read_lines(source)
        before = Resumed(options.output, judge.digest) if options.resume and os.path.exists(options.output) else None
        if before is not None:
            before.compare(lines, sums)
        answers = verify_batch(lines, settings, workers=options.workers, judge=judge)
        output: BinaryIO = sys.stdout.buffer
        if options.output != "-":
            output = stack.enter_context(_closed(open_output(options.output, before, open_stream), options.output))
        progress = stack.enter_context(Progress("verifying"))
        marks.append(time.monotonic())
        for answer in answers:
            with _naming(options.output):
                output.write(answer.encode() + b"\n")
            sums.add(json.loads(answer))
            if not options.output.endswith(".gz") or sums.lines % _FLUSHED == 0:
                with _naming(options.output):
                    output.flush()
            progress.update(f"{sums.lines} platforms")
        with _naming(options.output):
            output.flush()
    if options.summary is not None:
        write_file(options.summary, dump_json(sums.document(judge.digest)) + "\n")
    if options.metrics is not None:
        seconds = {"open": marks[1] - marks[0], "judge": time.monotonic() - marks[1]}
        write_file(options.metrics, sums.metrics(datetime.now(timezone.utc), seconds))
    if warns(options):
        say(*sums.text(), error=True)
    if options.fail_on_untrusted and (sums.trusted < sums.lines or not sums.lines):
        return ResultCode.OVERALL_RESULT_FALSE.exit_status
    return 0


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """An output that cannot be written has its name in the error; standard output is named by who reports it."""
    try:
        yield
    except OSError as error:
        raise error if path == "-" else OSError(error.errno, error.strerror, path) from None


@contextmanager
def _closed(output: BinaryIO, path: str) -> Iterator[BinaryIO]:
    """The output, closed at the end. What a full disk left in its buffer fails again there, after the first error."""
    try:
        yield output
    except BaseException:
        with suppress(OSError):
            output.close()
        raise
    with _naming(path):
        output.close()


def _files(bundle: str) -> list[str]:
    return [os.path.join(bundle, name) for name in os.listdir(bundle)] if os.path.isdir(bundle) else [bundle]


def _refuse_one_file(name: str, source: str | BinaryIO | None, option: str, target: str | None) -> None:
    """Refuse to write over what is read: all of it would be lost with exit status 0."""
    if source is None or target is None:
        return
    try:
        read = os.stat(source) if isinstance(source, str) else os.fstat(source.fileno())
        written = os.fstat(sys.stdout.fileno()) if target == "-" else os.stat(target)
        same = stat.S_ISREG(read.st_mode) and os.path.samestat(read, written)
    except (OSError, ValueError):
        # One of them is not there yet.
        same = isinstance(source, str) and os.path.realpath(source) == os.path.realpath(target)
    if same:
        raise InputError(f"{name} and {option} are one file: {target}", code="file", hint="write somewhere else")
