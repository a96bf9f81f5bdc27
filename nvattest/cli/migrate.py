"""``nvattest migrate check PATH``: what of a project's Python changes with ``nvattest.compat``. Nothing is executed."""

from __future__ import annotations

import argparse
import os

from nvattest._text import joined
from nvattest.cli.arguments import VALIDATION, ArgumentError
from nvattest.cli.output import print_json, say
from nvattest.compat.migrate import Report, Verdict, check_path
from nvattest.errors import ResultCode

_TITLES = {
    Verdict.DECISION: "needs a decision",
    Verdict.CHANGED: "works, and means something else",
    Verdict.SAME: "works unchanged (after the import is changed)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action, ``check``, and where to look."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="list the uses of the old SDK, with file and line")
    check.add_argument("path", metavar="PATH", help="a Python file, or a folder of them")


def run(options: argparse.Namespace) -> int:
    """Print the findings; 0 if nothing needs a decision and every file could be read, 1 otherwise.

    Raises:
        ArgumentError: there is nothing at the path.
    """
    if not os.path.exists(options.path):
        raise ArgumentError(f"PATH: there is no {options.path}", VALIDATION)
    report = check_path(options.path)
    if options.format == "json":
        print_json("migration", report.to_json())
    else:
        say(_text(report))
    return 0 if report.ready else int(ResultCode.UNKNOWN)


def _text(report: Report) -> str:
    lines: list[str] = []
    for verdict, title in _TITLES.items():
        found = [finding for finding in report.findings if finding.verdict is verdict]
        if not found:
            continue
        lines += [f"{title}: {len(found)}", ""]
        for finding in found:
            lines.append(f"  {finding.file}:{finding.line}: {finding.use}")
            if finding.message:
                lines.append(f"      {finding.message}")
        lines.append("")
    lines += [f"  {problem}" for problem in report.problems]
    if not report.findings:
        lines.append(f"No use of NVIDIA's Python SDK in {report.files} files.")
    else:
        counts = {verdict: sum(f.verdict is verdict for f in report.findings) for verdict in _TITLES}
        lines.append(
            f"{report.files} files: {counts[Verdict.SAME]} uses unchanged, {counts[Verdict.CHANGED]} changed, "
            f"{counts[Verdict.DECISION]} to decide."
        )
    return joined(lines)
