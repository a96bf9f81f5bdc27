"""``nvattest verify-batch``: the evidence of many platforms, one JSON line each, judged on all cores.

Everything that is read is opened and checked before the output is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from typing import BinaryIO, NamedTuple

from nvattest._documents import dump_json
from nvattest._system import read_bounded
from nvattest.cli import sources
from nvattest.cli.arguments import (
    add_options,
    choice,
    existing_file,
    flag,
    is_one_file,
    option,
    output_file,
    read,
    warns,
)
from nvattest.cli.output import Progress, open_stream, say, write_file
from nvattest.cli.sources import add_bundle_option
from nvattest.errors import InputError, ResultCode
from nvattest.model import VerificationTime

# Answers of a compressed output that a kill may cost: they are judged again.
_FLUSHED = 64


class Request(NamedTuple):
    """Where lines come from and go to, and what they are judged with."""

    bundle: list[str]
    input: str = option("FILE", "JSON Lines, also .gz; - for standard input (the default)", default="-")
    output: str = option("FILE", "JSON Lines, also .gz; - for standard output (the default)", default="-")
    resume: bool = flag("go on where the output ends; its answers must be those of the same lines and settings")
    policy: str | None = option("FILE", "evidence policy, TOML or JSON", existing_file)
    trust_anchors: str | None = option("PEM", "trust these roots instead", existing_file)
    at: VerificationTime | None = option(
        "TIME", "judge at this time; each line when it is read by default", VerificationTime.parse
    )
    allow_line_time: bool = flag("a line may say when it is judged ('at'): whoever writes the line chooses the clock")
    workers: int | None = option("N", "processes; one per core by default", int)
    backend: str = option(
        "NAME", "cryptography (the default) or aws-lc (extra fast)", choice("cryptography", "aws-lc"), "cryptography"
    )
    summary: str | None = option("FILE", "write the sums as JSON (schema batch-summary-1.json)", output_file)
    metrics: str | None = option(
        "FILE", "write the sums for Prometheus: a .prom file in the folder of node exporter's textfile collector",
        output_file,
    )  # fmt: skip
    fail_on_untrusted: bool = flag(
        "exit status 12 unless there are lines and all are trusted; without it 0 says that all were answered"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``Request``."""
    add_bundle_option(parser, "RIMs and answers, a file or a folder", required=True)
    add_options(parser, Request)


def run(options: argparse.Namespace) -> int:
    """Judge all lines. Exit status 0: every line was answered; the answers say what is trusted."""
    from nvattest.fleet import BatchSettings, Judge, Resumed, Sums, open_lines, open_output, read_lines, verify_batch

    request = read(Request, options)
    marks = [time.monotonic()]
    settings = BatchSettings(
        bundles=tuple(request.bundle),
        at=request.at,
        anchors=read_bounded(request.trust_anchors, 1 << 16) if request.trust_anchors else None,
        policy=sources.evidence_policy(request.policy),
        backend=request.backend,
        allow_line_time=request.allow_line_time,
    )
    with sources.naming_bundles(request.bundle):
        judge = Judge(settings, check=True)
    if request.resume and request.output == "-":
        raise InputError("--resume needs an --output file", code="resume")
    sums = Sums()
    with ExitStack() as stack:
        with sources.naming("--input"):
            source = stack.enter_context(open_lines(request.input))
        used = [
            ("--input", source), ("--policy", request.policy), ("--trust-anchors", request.trust_anchors),
            *(("--bundle", path) for bundle in request.bundle for path in _files(bundle)),
        ]  # fmt: skip
        for name in ("output", "summary", "metrics"):
            target = getattr(request, name)
            if target is None:
                continue
            for other, path in used:
                if path is not None:
                    _refuse_one_file(other, path, f"--{name}", target)
            # What is written may not be one file either.
            used.append((f"--{name}", target))
        lines = read_lines(source)
        before = Resumed(request.output, judge.digest) if request.resume and os.path.exists(request.output) else None
        if before is not None:
            before.compare(lines, sums)
        answers = verify_batch(lines, settings, workers=request.workers, judge=judge)
        output: BinaryIO = sys.stdout.buffer
        if request.output != "-":
            output = stack.enter_context(_closed(open_output(request.output, before, open_stream), request.output))
        progress = stack.enter_context(Progress("verifying"))
        marks.append(time.monotonic())
        for answer in answers:
            sums.add(json.loads(answer))
            with _naming(request.output):
                output.write(answer.encode() + b"\n")
                if not request.output.endswith(".gz") or sums.lines % _FLUSHED == 0:
                    output.flush()
            progress.update(f"{sums.lines} platforms")
        with _naming(request.output):
            output.flush()
    if request.summary is not None:
        write_file(request.summary, dump_json(sums.document(judge.digest)) + "\n")
    if request.metrics is not None:
        seconds = {"open": marks[1] - marks[0], "judge": time.monotonic() - marks[1]}
        write_file(request.metrics, sums.metrics(datetime.now(timezone.utc), seconds))
    if warns(options):
        say(*sums.text(), error=True)
    if request.fail_on_untrusted and (sums.trusted < sums.lines or not sums.lines):
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


def _refuse_one_file(name: str, source: str | BinaryIO, option: str, target: str) -> None:
    """Refuse to write over what is read: all of it would be lost with exit status 0."""
    # A stream of a caller in this process may have no descriptor.
    with suppress(OSError, ValueError):
        read = source if isinstance(source, str) else source.fileno()
        if is_one_file(read, sys.stdout.fileno() if target == "-" else target):
            raise InputError(f"{name} and {option} are one file: {target}", code="file", hint="write somewhere else")
