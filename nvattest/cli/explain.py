"""``nvattest explain``: what was checked, what failed, what it means and what to do, from a file or a single word."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from nvattest.cli.output import say
from nvattest.cli.terminal import add_terminal_options, is_terminal, terminal_for
from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.report.detect import Subject

_MAXIMUM = 64 * 1024 * 1024


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
        "--html", metavar="FILE", help="write one self-contained page (needs the extra 'report'); open on it is "
        "what failed, with --all everything",
    )  # fmt: skip
    add_terminal_options(parser)


def run(options: argparse.Namespace) -> int:
    """Explain; the exit status says only whether that was possible, never the verdict."""
    name = options.subject
    terminal = terminal_for(color=options.color, width=options.width)
    if name is None and is_terminal(sys.stdin):
        from nvattest.report.catalogue import render_index

        say(render_index(terminal), colour=terminal.color)
        return 0
    if name is not None and name != "-" and not os.path.exists(name):
        _explain_word(name, options)
        return 0
    source = "stdin" if name in (None, "-") else name
    from nvattest.report.detect import recognise

    data = _read(name)
    subject = recognise(data, source=source)
    if options.html is not None:
        _page(subject, data, source, options)
    elif options.format == "json":
        print(_as_json(subject))
    elif subject.kind == "appraisal":
        from nvattest.report import explain_appraisal_json

        say(
            explain_appraisal_json(
                subject.appraisal, width=terminal.width, color=terminal.color, unicode=terminal.unicode,
                everything=options.all, device=options.device,
            ),
            colour=terminal.color,
        )  # fmt: skip
    else:
        from nvattest.report.render_other import render_subject

        say(render_subject(subject, terminal, source=source), colour=terminal.color)
    return 0


def _read(name: str | None) -> bytes:
    if name is None or name == "-":
        data = sys.stdin.buffer.read(_MAXIMUM + 1)
        if len(data) > _MAXIMUM:
            raise InputError(f"stdin: more than {_MAXIMUM} bytes", code="too-large")
        return data
    from nvattest.collateral.folders import read_bounded

    return read_bounded(name, _MAXIMUM)


def _explain_word(word: str, options: argparse.Namespace) -> None:
    from nvattest.report.catalogue import find_entry, render_entry, similar

    entry = find_entry(word)
    if entry is None:
        near = similar(word)
        hint = f"did you mean {' or '.join(near)}?" if near else "nvattest explain without a word lists all of them"
        raise InputError(
            f"{word[:80]!r} is no file here, and no code, check or error", code="explain-unknown", hint=hint
        )
    if options.html is not None:
        raise InputError("a page can be made of a saved appraisal only", code="explain-format")
    if options.format == "json":
        from nvattest._documents import dump_json

        print(dump_json(entry.to_json()))
    else:
        terminal = terminal_for(color=options.color, width=options.width)
        say(render_entry(entry, terminal), colour=terminal.color)


def _page(subject: Subject, data: bytes, source: str, options: argparse.Namespace) -> None:
    if subject.kind != "appraisal":
        raise InputError(
            f"a page can be made of a saved appraisal only, and this is a {subject.kind}",
            code="explain-format",
            hint="nvattest -f json attest > appraisal.json",
        )
    import hashlib

    from nvattest.cli.output import write_file
    from nvattest.report.html import report_page

    page = report_page(
        subject.appraisal, source=os.path.basename(source), sha256=hashlib.sha256(data).hexdigest(),
        everything=options.all, device=options.device,
    )  # fmt: skip
    write_file(options.html, page)
    say(f"{options.html}: {len(page.encode('utf-8'))} bytes, one file that needs nothing else")


def _as_json(subject: Subject) -> str:
    """For programs: what failed, why it may have, and what to do. Only an appraisal has failures."""
    from nvattest._documents import dump_json
    from nvattest.report.diagnosis import diagnose, failures
    from nvattest.report.reading import read_appraisal

    result: dict[str, object] = {"kind": subject.kind}
    if subject.kind == "appraisal":
        view = read_appraisal(subject.appraisal)
        found = []
        # What people see as one failure stays one entry per check here.
        for failure in failures(view):
            for check in failure.checks:
                diagnosis = diagnose(check, view)
                found.append(
                    {
                        "check": check.id,
                        "step": check.step,
                        "devices": list(failure.devices),
                        "detail": check.detail,
                        "expected": check.expected,
                        "found": check.found,
                        "facts": list(diagnosis.facts),
                        "causes": list(diagnosis.causes),
                        "actions": list(diagnosis.actions),
                    }
                )
        result |= {
            "trusted": view.trusted,
            "result_code": view.result_code,
            "simulated": view.simulated,
            "notices": list(view.notices),
            "failures": found,
        }
    elif subject.tokens:
        result["tokens"] = [
            {"name": token.name, "header": token.header, "claims": token.claims, "fault": token.fault}
            for token in subject.tokens
        ]
        result["verified"] = False
    elif subject.claims or subject.kind == "result":
        result |= {"claims": dict(subject.claims), "verified": False}
        if subject.result is not None:
            result["result"] = subject.result
    elif subject.kind == "bundle":
        from nvattest.appraisal.verifier import Verifier
        from nvattest.collateral.bundle import load_bundle
        from nvattest.collateral.inspection import inspect_bundle
        from nvattest.session import now

        result["bundle"] = inspect_bundle(load_bundle(subject.data), Verifier(), now()).facts
    else:
        result["error"] = subject.error
    return dump_json(result)
