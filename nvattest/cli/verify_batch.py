"""``nvattest verify-batch``: the evidence of many platforms, one JSON line each, judged on all cores."""

from __future__ import annotations

import argparse
import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

from nvattest._folder import read_bounded
from nvattest.cli import sources
from nvattest.cli.arguments import choice, converted, existing_file
from nvattest.cli.output import Progress, open_stream
from nvattest.collateral.bundle import MAXIMUM_BUNDLE
from nvattest.errors import InputError
from nvattest.model import VerificationTime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where lines come from and go to, and what they are judged with."""
    parser.add_argument("--input", default="-", metavar="FILE", help="JSON Lines, - for standard input (the default)")
    parser.add_argument("--output", default="-", metavar="FILE", help="JSON Lines, - for standard output (the default)")
    parser.add_argument("--resume", action="store_true", help="go on where the output file ends")
    parser.add_argument("--bundle", required=True, type=existing_file, metavar="FILE", help="RIMs and answers")
    parser.add_argument("--policy", type=existing_file, metavar="FILE", help="evidence policy, TOML or JSON")
    parser.add_argument("--trust-anchors", type=existing_file, metavar="PEM", help="trust these roots instead")
    parser.add_argument(
        "--at", type=converted(VerificationTime.parse), metavar="TIME",
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


def run(options: argparse.Namespace) -> int:
    """Judge all lines. Exit status 0: every line was answered; the answers say what is trusted."""
    from nvattest.fleet import BatchSettings, verify_batch

    settings = BatchSettings(
        bundle=read_bounded(options.bundle, MAXIMUM_BUNDLE),
        at=options.at,
        anchors=read_bounded(options.trust_anchors, 1 << 16) if options.trust_anchors else None,
        policy=sources.evidence_policy(options.policy),
        backend=options.backend,
        allow_line_time=options.allow_line_time,
    )
    with ExitStack() as stack:
        done = 0
        source: BinaryIO = sys.stdin.buffer
        if options.input != "-":
            source = stack.enter_context(_open_input(options.input))
            _refuse_one_file(options.input, options.output)
        output: BinaryIO = sys.stdout.buffer
        if options.output != "-":
            output = stack.enter_context(_open(options.output, resume=options.resume))
            # An existing file is open for reading too; a new file has no answers.
            done = _answered(output) if options.resume and output.readable() else 0
        elif options.resume:
            raise InputError("--resume needs an --output file", code="resume")
        progress = stack.enter_context(Progress("verifying"))
        answers = verify_batch(_lines(source, skip=done), settings, workers=options.workers)
        for count, answer in enumerate(answers, start=done + 1):
            output.write(answer.encode() + b"\n")
            output.flush()
            progress.update(f"{count} platforms")
    return 0


def _refuse_one_file(source: str, target: str) -> None:
    """Refuse to write answers over the lines: all input would be lost with exit status 0."""
    if os.path.isfile(source) and os.path.isfile(target) and os.path.samefile(source, target):
        raise InputError(
            f"--input and --output are one file: {target}", code="file", hint="write the answers elsewhere"
        )


def _open(path: str, *, resume: bool) -> BinaryIO:
    if not resume or not os.path.exists(path):
        return open_stream(path)
    if not os.path.isfile(path):
        raise InputError(f"{path}: not a regular file, so that --resume finds no answers in it", code="resume")
    try:
        return open(path, "r+b")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None


def _open_input(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None


def _answered(output: BinaryIO) -> int:
    """How many whole lines the output has; half a line at its end is cut off."""
    count = end = 0
    for line in output:
        if not line.endswith(b"\n"):
            break
        count += 1
        end += len(line)
    output.seek(end)
    output.truncate()
    return count


def _lines(source: BinaryIO, *, skip: int) -> Iterator[bytes]:
    """The lines of the input, without empty ones and without the first ``skip``; a line is bounded in size.

    Editors put a byte order mark before the first one.
    """
    from nvattest.fleet import MAXIMUM_LINE

    mark = codecs.BOM_UTF8
    while line := source.readline(MAXIMUM_LINE + 2):
        if len(line) > MAXIMUM_LINE + 1:
            # The rest of an endless line is skipped; the beginning is refused as too large.
            while not line.endswith(b"\n") and (more := source.readline(MAXIMUM_LINE)):
                line = line[: MAXIMUM_LINE + 1] + (b"\n" if more.endswith(b"\n") else b"")
        line, mark = line.removeprefix(mark), b""
        if not line.strip():
            continue
        if skip:
            skip -= 1
            continue
        yield line.strip()
