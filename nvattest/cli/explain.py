"""``nvattest explain``: what was checked, what failed, what it means and what to do, from a file or a single word."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from nvattest.cli.arguments import add_terminal_options, ignored, output_file, read_input
from nvattest.cli.output import is_terminal, print_json, say, terminal_for, write_file
from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.report.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to explain, and how much of it."""
    parser.add_argument(
        "subject", nargs="?", metavar="FILE|CODE|CHECK",
        help="a saved result (attest -f json), a token, a bundle, '-' for stdin; or a result code, the name of a check "
        "or of an error. Nothing: all names",
    )  # fmt: skip
    parser.add_argument(
        "--all",
        action="store_true",
        help="the whole story of every device, not only of those that failed",
    )
    parser.add_argument("--device", metavar="LABEL", help="only this device, as GPU-3")
    parser.add_argument(
        "--html", type=output_file, metavar="FILE",
        help="write one self-contained page (needs the extra 'report'); open on it is what failed, with --all "
        "everything",
    )  # fmt: skip
    add_terminal_options(parser)


def run(options: argparse.Namespace) -> int:
    """Explain; the exit status says only whether that was possible, never the verdict."""
    name = options.subject
    terminal = terminal_for(color=options.color, width=options.width)
    as_json = options.format == "json"
    if name is None and is_terminal(sys.stdin):
        from nvattest.report.catalogue import render_index

        say(render_index(terminal), colour=terminal.color)
        return 0
    if name is not None and name != "-" and not os.path.exists(name):
        if options.html is not None:
            raise InputError("a page can be made of a saved appraisal only", code="explain-format")
        ignored(options, ["all", "device"], f"{name} is a word, and these are about the devices of an appraisal")
        _explain_word(name, terminal, as_json=as_json)
        return 0
    from nvattest.report.reading import read_appraisal
    from nvattest.report.subjects import MAXIMUM, recognise, refuse_evidence, render_subject, subject_to_json

    source = "stdin" if name in (None, "-") else name
    try:
        data = read_input(name or "-", MAXIMUM)
    except InputError as error:
        if name is None:
            error.hint = "give a saved result (nvattest -f json attest > result.json), or the word of a code or check"
        raise
    try:
        subject = recognise(data, source=source)
    except InputError as error:
        raise _no_result(error, data, source) from None
    if subject.kind == "evidence":
        raise refuse_evidence(source)
    if subject.kind != "appraisal":
        ignored(options, ["all", "device"], f"this is no appraisal but a {subject.kind}")
    if options.html is not None:
        if subject.kind != "appraisal":
            raise InputError(
                f"a page can be made of a saved appraisal only, and this is a {subject.kind}",
                code="explain-format",
                hint="nvattest -f json attest > appraisal.json",
            )
        import hashlib

        from nvattest.report.page import report_page

        page = report_page(
            read_appraisal(subject.appraisal), source=os.path.basename(source),
            sha256=hashlib.sha256(data).hexdigest(), everything=options.all, device=options.device,
        )  # fmt: skip
        write_file(options.html, page)
        say(f"{options.html}: {len(page.encode('utf-8'))} bytes, one file that needs nothing else")
    elif as_json:
        print_json("explain", subject_to_json(subject))
    elif subject.kind == "appraisal":
        from nvattest.report.text import story

        view = read_appraisal(subject.appraisal)
        say(story(view, terminal, everything=options.all, device=options.device), colour=terminal.color)
    else:
        say(render_subject(subject, terminal, source=source), colour=terminal.color)
    return 0


def _no_result(error: InputError, data: bytes, source: str) -> InputError:
    """The error, or what the file is where it is one that ``nvattest inspect`` knows."""
    from nvattest.report.subjects import KINDS, kind_of_file

    found = kind_of_file(data)
    if found is None:
        return error
    message = f"{source} is {KINDS[found].words}, and no result"
    return InputError(message, code="explain-format", hint=f"nvattest inspect {source} says what is in it")


def _explain_word(word: str, terminal: Terminal, *, as_json: bool) -> None:
    from nvattest._text import decimal
    from nvattest.report.catalogue import codes_of_status, find_entry, render_entry, render_status, similar

    entry, number = find_entry(word), decimal(word.strip(), 3)
    if entry is None and number is not None and (codes := codes_of_status(number)):
        if as_json:
            named = [{"code": int(code), "name": code.name, "message": code.message} for code in codes]
            print_json("explain", {"kind": "status", "key": str(number), "codes": named})
        else:
            say(render_status(number, terminal), colour=terminal.color)
        return
    if entry is None:
        near = similar(word)
        hint = f"did you mean {' or '.join(near)}?" if near else "nvattest explain without a word lists all of them"
        raise InputError(
            f"{word[:80]!r} is no file here, and no code, check or error", code="explain-unknown", hint=hint
        )
    if as_json:
        print_json("explain", entry.to_json())
    else:
        say(render_entry(entry, terminal), colour=terminal.color)
