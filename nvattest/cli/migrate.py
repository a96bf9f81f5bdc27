"""``nvattest migrate check PATH``: the uses of NVIDIA's Python SDK in a program, and what becomes of each.

It reads syntax trees and runs nothing. It follows imports, names bound to the modules, to the class and to its
instances, and, since programs hand clients around, methods whose names only the SDK has. It does not follow ``getattr``
on a client and modules that are named in a text: these it lists for a person to decide. ``migrate.toml`` has the
verdicts.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import re
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from nvattest._documents import load_toml
from nvattest._text import joined
from nvattest.cli.arguments import ArgumentError
from nvattest.cli.output import print_json, say
from nvattest.errors import ResultCode

_DATA: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "migrate.toml")
_MAXIMUM_FILE: Final = 4 * 1024 * 1024
_SKIPPED_FOLDERS: Final = frozenset({"node_modules", "__pycache__", "site-packages"})

_ROOTS: Final = ("nv_attestation_sdk", "verifier", "nv_ppcie_verifier", "ppcie")
_OURS: Final = "nvattest.compat."
# Module names that can be nothing else, as import_module and "python -m" take them.
_NAMED: Final = re.compile(r"nv_attestation_sdk(\.\w+)*|verifier\.cc_admin|ppcie\.verifier\.\w+")
# The verdicts of ``migrate.toml`` as people read them, the gravest first.
_TITLES: Final = {
    "decision": "needs a decision",
    "changed": "works, and means something else",
    "same": "works unchanged (after the import is changed)",
}


class Entry(NamedTuple):
    """What becomes of a use, ``same``, ``changed`` or ``decision`` (of a person), and why."""

    verdict: str
    message: str = ""


class Finding(NamedTuple):
    """One use: where, what, and what becomes of it."""

    file: str
    line: int
    use: str
    verdict: str
    message: str = ""


class Report(NamedTuple):
    """All findings of a project in the order of files and lines; ``problems`` are files that could not be read."""

    files: int
    findings: list[Finding]
    problems: list[str]

    @property
    def ready(self) -> bool:
        """Nothing needs a decision, and every file could be read."""
        return not self.problems and all(finding.verdict != "decision" for finding in self.findings)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="list the uses of the old SDK, with file and line")
    check.add_argument("path", metavar="PATH", help="a Python file, or a folder of them")


def run(options: argparse.Namespace) -> int:
    """Print the findings; 0 if nothing needs a decision and every file could be read, 1 otherwise."""
    if not os.path.exists(options.path):
        raise ArgumentError(f"PATH: there is no {options.path}")
    report = check_path(options.path)
    if options.format == "json":
        findings = [found._asdict() for found in report.findings]
        print_json("migration", {**report._asdict(), "ready": report.ready, "findings": findings})
    else:
        say(_text(report))
    return 0 if report.ready else int(ResultCode.UNKNOWN)


def _text(report: Report) -> str:
    lines: list[str] = []
    sorted_out = {verdict: [item for item in report.findings if item.verdict == verdict] for verdict in _TITLES}
    for verdict, findings in sorted_out.items():
        if not findings:
            continue
        lines += [f"{_TITLES[verdict]}: {len(findings)}", ""]
        for finding in findings:
            lines.append(f"  {finding.file}:{finding.line}: {finding.use}")
            lines += [f"      {finding.message}"] if finding.message else []
        lines.append("")
    lines += [f"  {problem}" for problem in report.problems]
    decide, changed, same = map(len, sorted_out.values())
    lines.append(
        f"{report.files} files: {same} uses unchanged, {changed} changed, {decide} to decide."
        if report.findings
        else f"No use of NVIDIA's Python SDK in {report.files} files."
    )
    return joined(lines)


def check_path(path: str) -> Report:
    """Check one file, or every ``*.py`` below a folder; hidden folders and installed packages are left out."""
    names = list(_files(path))
    report = Report(len(names), [], [])
    for name in names:
        try:
            if not os.path.isfile(name):
                # A pipe would wait for ever, and a device has no end.
                report.problems.append(f"{name}: not a regular file, not read")
            elif os.path.getsize(name) > _MAXIMUM_FILE:
                report.problems.append(f"{name}: larger than {_MAXIMUM_FILE} bytes, not read")
            else:
                with tokenize.open(name) as file:
                    report.findings.extend(check_source(file.read(), name))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            report.problems.append(f"{name}: cannot be read as Python: {error}")
    return report


def check_source(source: str, name: str) -> list[Finding]:
    """The findings in one text.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it is no Python, or too deep for the parser.
    """
    with warnings.catch_warnings():
        # Of "\\d" and the like: that is between the program and its linter.
        warnings.simplefilter("ignore")
        tree = ast.parse(source, filename=name)
    found = _Reader(tree, name).read()
    return sorted(set(found), key=lambda finding: (finding.line, finding.use))


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


@functools.cache
def _data() -> Any:
    with open(_DATA, "rb") as file:
        return load_toml(file.read(), source=_DATA, maximum=_MAXIMUM_FILE)


@functools.cache
def _table(section: str) -> Mapping[str, Entry]:
    """One kind of use in ``migrate.toml``, by name."""
    uses = ((verdict, entry) for verdict, entries in _data()[section].items() for entry in entries.items())
    return {name: Entry(verdict, message) for verdict, (name, message) in uses}


class _Reader:
    def __init__(self, tree: ast.Module, name: str) -> None:
        self._nodes = list(ast.walk(tree))
        self._name = name
        self._found: list[Finding] = []
        # A dotted name of this text, and the name in the old packages that it is bound to.
        self._names: dict[str, str] = {}
        self._clients: set[str] = set()
        self._instances = 0

    def read(self) -> list[Finding]:
        for node in self._nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAMED.fullmatch(node.value):
                self._add(node, f'"{node.value}"', "module in a text")
        if not any(finding.use.startswith("import ") for finding in self._found):
            return self._found
        for node in self._nodes:
            self._bind(node)
        for node in self._nodes:
            match node:
                case ast.Call():
                    self._call(node)
                case ast.ExceptHandler(type=ast.expr() as caught):
                    for kind in caught.elts if isinstance(caught, ast.Tuple) else [caught]:
                        meaning = self._meaning(kind)
                        if ".exceptions." in meaning:
                            self._add(kind, f"except {meaning.rpartition('.')[2]}", "exception")
                case ast.Compare():
                    self._comparison(node)
                case ast.Constant(value=str() as text) if text in _table("text"):
                    self._add(node, f'"{text}"', _table("text")[text])
        return self._found

    def _add(self, node: ast.AST, use: str, entry: Entry | str) -> None:
        verdict, message = _table("use")[entry] if isinstance(entry, str) else entry
        self._found.append(Finding(self._name, getattr(node, "lineno", 0), use, verdict, message))

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        module = ""
        if isinstance(node, ast.ImportFrom):
            if node.level:
                return
            module = f"{node.module}."
        for alias in node.names:
            full = module + alias.name
            old = full.removeprefix(_OURS)
            if old.partition(".")[0] not in _ROOTS:
                continue
            if alias.name == "*":
                package = old.removesuffix(".*")
                self._names |= {word: f"{package}.{word}" for word in _data()["star"].get(package, ())}
            elif module or alias.asname:
                self._names[alias.asname or alias.name] = old
            else:
                # "import a.b" binds a.
                first = full.partition(".")[0]
                self._names[first] = first
            entry = _module(old)
            if entry.verdict != "decision":
                ours = full.startswith(_OURS)
                message = "already nvattest.compat" if ours else f"change it to: {_rewritten(module, alias)}"
                entry = Entry("same", message)
            self._add(node, f"import {full}", entry)

    def _bind(self, node: ast.AST) -> None:
        """Names for instances: ``client = Attestation()``, ``self.client = …``; no ``with``, no annotations alone."""
        match node:
            case ast.Assign(targets=targets, value=value):
                pass
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                targets = [target]
            case _:
                return
        called = isinstance(value, ast.Call)
        meaning = self._meaning(value.func if isinstance(value, ast.Call) else value)
        words = [word for word in map(_dotted, targets) if word]
        if called and meaning.endswith(".Attestation"):
            self._clients.update(words)
        elif meaning and not called:
            self._names |= dict.fromkeys(words, meaning)

    def _meaning(self, node: ast.expr) -> str:
        """``attestation.Attestation`` as ``nv_attestation_sdk.attestation.Attestation``; empty for other names."""
        name = _dotted(node)
        for head in _heads(name):
            if head in self._names:
                return (self._names[head] + name.removeprefix(head)).removeprefix(_OURS)
        return ""

    def _call(self, node: ast.Call) -> None:
        func, meaning = node.func, self._meaning(node.func)
        if meaning.endswith(".Attestation"):
            self._instances += 1
            self._add(node, "Attestation()", "first instance" if self._instances == 1 else "next instance")
        elif meaning in _table("function"):
            self._add(node, f"{meaning.rpartition('.')[2]}()", _table("function")[meaning])
            if meaning.endswith("cc_admin.attest") and node.args and isinstance(node.args[0], ast.Dict):
                self._parameters(node.args[0])
        elif isinstance(func, ast.Attribute):
            self._method(node, func, meaning)
        elif isinstance(func, ast.Name) and func.id == "getattr" and node.args and self._is_client(node.args[0]):
            self._add(node, "getattr()", "method by text")

    def _is_client(self, node: ast.expr) -> bool:
        made = node.func if isinstance(node, ast.Call) else node
        return _dotted(node) in self._clients or self._meaning(made).endswith(".Attestation")

    def _method(self, node: ast.Call, func: ast.Attribute, meaning: str) -> None:
        entry = _table("method").get(func.attr)
        on_class = ".Attestation." in meaning
        if entry is None or not (
            on_class or func.attr in _data()["distinct"]["methods"] or self._is_client(func.value)
        ):
            return
        if func.attr == "add_verifier":
            entry = _pair(node)
        elif on_class and self._clients and entry.verdict == "same":
            entry = _table("use")["on the class"]
        self._add(node, f"{func.attr}()", entry)

    def _parameters(self, given: ast.Dict) -> None:
        for pair in zip(given.keys, given.values, strict=True):
            match pair:
                case ast.Constant(value="user_mode"), ast.Constant(value=value) if not value:
                    self._add(pair[1], '"user_mode": False', "user_mode")
                case ast.Constant(value="driver_rim"), ast.Constant(value=value) if value:
                    self._add(pair[1], '"driver_rim"', "driver_rim")

    def _comparison(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        called = [side.func for side in sides if isinstance(side, ast.Call)]
        asked = any(isinstance(func, ast.Attribute) and func.attr == "get_evidence" for func in called)
        if asked and any(isinstance(side, ast.List | ast.Tuple) and not side.elts for side in sides):
            self._add(node, "get_evidence() == []", "empty evidence")


def _pair(node: ast.Call) -> Entry:
    """What becomes of a call of ``add_verifier``, by its device and environment."""
    named = {word.arg: word.value for word in node.keywords}
    given = [*node.args, *(named[name] for name in ("dev", "env") if name in named)]
    words = [_dotted(argument).rpartition(".")[2] for argument in given[:2]]
    verifier = _data()["verifier"]
    wrong = " and ".join(word for word in words if word in verifier["refused"])
    if wrong:
        verdict, message = _table("use")["wrong pair"]
        return Entry(verdict, f"{wrong} {message}")
    supported = [
        word in known for word, known in zip(words, (verifier["devices"], verifier["environments"]), strict=False)
    ]
    return _table("method")["add_verifier"] if supported == [True, True] else _table("use")["unknown pair"]


def _module(name: str) -> Entry:
    """What becomes of a module or of a name in it: the entry of the longest part that the table has."""
    for head in _heads(name):
        entry = _table("module").get(head)
        # A package that works says nothing of the modules that are not in the table.
        if entry is not None and ("." in head or head == name or entry.verdict == "decision"):
            return entry
    verdict, message = _table("use")["no module"]
    return Entry(verdict, f"{name} {message}")


def _heads(name: str) -> list[str]:
    """``a.b.c``, ``a.b`` and ``a`` of ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _rewritten(module: str, alias: ast.alias) -> str:
    """The import as it has to be written, binding the same name."""
    renamed = f" as {alias.asname}" if alias.asname else ""
    if module:
        return f"from {_OURS}{module[:-1]} import {alias.name}{renamed}"
    if alias.asname:
        return f"import {_OURS}{alias.name}{renamed}"
    return f"from {_OURS[:-1]} import {alias.name.partition('.')[0]}"


def _dotted(node: ast.expr) -> str:
    """``a.b`` of an expression that is a plain dotted name; empty for others."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return base and f"{base}.{node.attr}"
    return ""
