"""``nvattest migrate check``: find the uses of NVIDIA's Python SDK in a program and say what becomes of each.

It reads syntax trees and runs nothing. It follows imports, names bound to the modules, to the class and to its
instances, and, since programs hand clients around, methods whose names only the SDK has. It does not follow ``getattr``
on a client and modules that are named in a text: these it lists for a person to decide. ``migrate.toml`` has the
verdicts.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from nvattest._documents import load_toml

_DATA: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "migrate.toml")
_MAXIMUM_FILE: Final = 4 * 1024 * 1024
_SKIPPED_FOLDERS: Final = frozenset({"node_modules", "__pycache__", "site-packages"})

_ROOTS: Final = ("nv_attestation_sdk", "verifier", "nv_ppcie_verifier", "ppcie")
_OURS: Final = "nvattest.compat."
# Module names that can be nothing else, as import_module and "python -m" take them.
_NAMED: Final = re.compile(r"nv_attestation_sdk(\.\w+)*|verifier\.cc_admin|ppcie\.verifier\.\w+")
# What a star import of these modules brings.
_STAR_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "nv_attestation_sdk": ("attestation",),
    "nv_attestation_sdk.attestation": ("Attestation", "Devices", "Environment", "VerifierFields"),
    "verifier": ("cc_admin",),
    "verifier.cc_admin": (
        *("collect_gpu_evidence", "collect_gpu_evidence_local", "collect_gpu_evidence_remote", "attest"),
    ),
}
# Names that only the SDK has, whatever they are called on.
_DISTINCT_METHODS: Final = frozenset(
    {"add_verifier", "validate_token", "set_claims_version", "set_ocsp_nonce_disabled", "get_verifiers"}
)
# The words of the two enumerations, and whether a verifier can have them.
_WORDS: Final = (
    {"GPU": True, "SWITCH": True, "CPU": False, "OS": False, "DPU": False},
    {"LOCAL": True, "REMOTE": True, "TEST": False, "AZURE": False, "GCP": False},
)


class Verdict(Enum):
    """SAME: works unchanged. CHANGED: works and means something else. DECISION: a person has to decide."""

    SAME = "same"
    CHANGED = "changed"
    DECISION = "decision"


class Entry(NamedTuple):
    """A verdict and why."""

    verdict: Verdict
    message: str = ""


class Finding(NamedTuple):
    """One use: where, what, and what becomes of it."""

    file: str
    line: int
    use: str
    verdict: Verdict
    message: str = ""


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
            "findings": [{**found._asdict(), "verdict": found.verdict.value} for found in self.findings],
            "problems": list(self.problems),
        }


def check_path(path: str) -> Report:
    """Check one file, or every ``*.py`` below a folder; hidden folders and installed packages are left out."""
    findings: list[Finding] = []
    problems: list[str] = []
    names = list(_files(path))
    for name in names:
        try:
            if not os.path.isfile(name):
                # A pipe would wait for ever, and a device has no end.
                problems.append(f"{name}: not a regular file, not read")
            elif os.path.getsize(name) > _MAXIMUM_FILE:
                problems.append(f"{name}: larger than {_MAXIMUM_FILE} bytes, not read")
            else:
                with tokenize.open(name) as file:
                    findings += check_source(file.read(), name)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            problems.append(f"{name}: cannot be read as Python: {error}")
    return Report(files=len(names), findings=tuple(findings), problems=tuple(problems))


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
def _table(section: str) -> Mapping[str, Entry]:
    """One kind of use in ``migrate.toml``, by name."""
    with open(_DATA, "rb") as file:
        document: Any = load_toml(file.read(), source=_DATA, maximum=_MAXIMUM_FILE)
    return {
        name: Entry(Verdict(verdict), message)
        for verdict, entries in document[section].items()
        for name, message in entries.items()
    }


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
        self._bind()
        for node in self._nodes:
            if isinstance(node, ast.Call):
                self._call(node)
            elif isinstance(node, ast.ExceptHandler) and node.type is not None:
                for kind in node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]:
                    meaning = self._meaning(kind)
                    if ".exceptions." in meaning:
                        self._add(kind, f"except {meaning.rpartition('.')[2]}", "exception")
            elif isinstance(node, ast.Compare):
                self._comparison(node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in _table("text"):
                self._add(node, f'"{node.value}"', _table("text")[node.value])
        return self._found

    def _add(self, node: ast.AST, use: str, entry: Entry | str) -> None:
        verdict, message = _table("use")[entry] if isinstance(entry, str) else entry
        line = getattr(node, "lineno", 0)
        self._found.append(Finding(self._name, line, use, verdict, message))

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        module = f"{node.module}." if isinstance(node, ast.ImportFrom) and not node.level else ""
        if isinstance(node, ast.ImportFrom) and not module:
            return
        for alias in node.names:
            full = module + alias.name
            old = full.removeprefix(_OURS)
            if old.partition(".")[0] not in _ROOTS:
                continue
            if alias.name == "*":
                package = old.removesuffix(".*")
                self._names |= {word: f"{package}.{word}" for word in _STAR_NAMES.get(package, ())}
            elif module or alias.asname:
                self._names[alias.asname or alias.name] = old
            else:
                # "import a.b" binds a.
                first = full.partition(".")[0]
                self._names[first] = first
            entry = _module(old)
            if entry.verdict is not Verdict.DECISION:
                ours = full.startswith(_OURS)
                message = "already nvattest.compat" if ours else f"change it to: {_rewritten(module, alias)}"
                entry = Entry(Verdict.SAME, message)
            self._add(node, f"import {full}", entry)

    def _bind(self) -> None:
        """Names for instances: ``client = Attestation()``, ``self.client = …``; no ``with``, no annotations alone."""
        for node in self._nodes:
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                targets, value = [node.target], node.value
            else:
                continue
            called = isinstance(value, ast.Call)
            meaning = self._meaning(value.func if isinstance(value, ast.Call) else value)
            words = [word for word in map(_dotted, targets) if word]
            if called and meaning.endswith(".Attestation"):
                self._clients.update(words)
            elif meaning and not called:
                self._names |= dict.fromkeys(words, meaning)

    def _meaning(self, node: ast.expr) -> str:
        """``attestation.Attestation`` as ``nv_attestation_sdk.attestation.Attestation``; empty for other names."""
        parts = _dotted(node).split(".")
        for end in range(len(parts), 0, -1):
            known = self._names.get(".".join(parts[:end]))
            if known is not None:
                return ".".join([known, *parts[end:]]).removeprefix(_OURS)
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
        if entry is None or not (on_class or func.attr in _DISTINCT_METHODS or self._is_client(func.value)):
            return
        if func.attr == "add_verifier":
            entry = _pair(node)
        elif on_class and self._clients and entry.verdict is Verdict.SAME:
            entry = _table("use")["on the class"]
        self._add(node, f"{func.attr}()", entry)

    def _parameters(self, given: ast.Dict) -> None:
        for key, value in zip(given.keys, given.values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(value, ast.Constant):
                continue
            if key.value == "user_mode" and not value.value:
                self._add(value, '"user_mode": False', "user_mode")
            elif key.value == "driver_rim" and value.value:
                self._add(value, '"driver_rim"', "driver_rim")

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
    supported = [known.get(word) for word, known in zip(words, _WORDS, strict=False)]
    wrong = " and ".join(word for word, good in zip(words, supported, strict=True) if good is False)
    if wrong:
        verdict, message = _table("use")["wrong pair"]
        return Entry(verdict, f"{wrong} {message}")
    return _table("method")["add_verifier"] if supported == [True, True] else _table("use")["unknown pair"]


def _module(name: str) -> Entry:
    """What becomes of a module or of a name in it: the entry of the longest part that the table has."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        entry = _table("module").get(".".join(parts[:end]))
        # A package that works says nothing of the modules that are not in the table.
        if entry is not None and (end > 1 or len(parts) == 1 or entry.verdict is Verdict.DECISION):
            return entry
    verdict, message = _table("use")["no module"]
    return Entry(verdict, f"{name} {message}")


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
