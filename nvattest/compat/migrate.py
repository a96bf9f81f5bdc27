"""``nvattest migrate check``: find the uses of NVIDIA's Python SDK in a file or a project, file by file."""

from __future__ import annotations

import os
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nvattest.compat._migrate_source import Finding, check_source
from nvattest.compat._migrate_table import Verdict

__all__ = ["Finding", "Report", "Verdict", "check_path", "check_source"]

_MAXIMUM_FILE: Final = 4 * 1024 * 1024
_SKIPPED_FOLDERS: Final = frozenset({"node_modules", "__pycache__", "site-packages"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All findings of a project in the order of files and lines; ``problems`` are files that could not be read."""

    files: int
    findings: tuple[Finding, ...]
    problems: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Nothing needs a decision, and every file could be read."""
        return not self.problems and all(finding.verdict is not Verdict.DECISION for finding in self.findings)

    def to_json(self) -> dict[str, object]:
        """The report as an object for ``json.dumps``."""
        return {
            "files": self.files,
            "ready": self.ready,
            "findings": [
                {"file": f.file, "line": f.line, "use": f.use, "verdict": f.verdict.value, "message": f.message}
                for f in self.findings
            ],
            "problems": list(self.problems),
        }


def check_path(path: str) -> Report:
    """Check one file, or every ``*.py`` below a folder; hidden folders and installed packages are left out."""
    findings: list[Finding] = []
    problems: list[str] = []
    count = 0
    for name in _files(path):
        count += 1
        try:
            if not os.path.isfile(name):
                # A pipe would wait for ever, and a device has no end.
                problems.append(f"{name}: not a regular file, not read")
                continue
            if os.path.getsize(name) > _MAXIMUM_FILE:
                problems.append(f"{name}: larger than {_MAXIMUM_FILE} bytes, not read")
                continue
            with tokenize.open(name) as file:
                source = file.read()
            findings += check_source(source, name)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            problems.append(f"{name}: cannot be read as Python: {error}")
    return Report(files=count, findings=tuple(findings), problems=tuple(problems))


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(
            sub
            for sub in folders
            if not sub.startswith(".")
            and sub not in _SKIPPED_FOLDERS
            and not os.path.exists(os.path.join(folder, sub, "pyvenv.cfg"))
        )
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py"))
