"""Find the uses of the old SDK in one source text and say what becomes of each. Reads syntax trees, runs nothing.

It follows imports, names bound to the modules, to the class and to its instances, and, since programs hand clients
around, methods whose names only the SDK has. ``getattr`` on a client and modules that are named in a text it leaves to
the reader, and it says nothing of what it does not see.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nvattest.compat._migrate_table import (
    DISTINCT_METHODS,
    ENVIRONMENT_WORDS,
    FUNCTIONS,
    METHODS,
    MODULES,
    NAMED_IN_A_TEXT,
    ON_THE_CLASS,
    STAR_NAMES,
    SUPPORTED_DEVICES,
    SUPPORTED_ENVIRONMENTS,
    UNKNOWN_METHOD,
    Entry,
    Verdict,
)

_ROOTS: Final = ("nv_attestation_sdk", "verifier", "nv_ppcie_verifier", "ppcie")
_OURS: Final = "nvattest.compat."
# Module names that can be nothing else, as import_module and "python -m" take them.
_NAMED: Final = re.compile(r"nv_attestation_sdk(\.\w+)*|verifier\.cc_admin|ppcie\.verifier\.\w+")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One use: where, what, and what becomes of it."""

    file: str
    line: int
    use: str
    verdict: Verdict
    message: str = ""


def check_source(source: str, name: str) -> list[Finding]:
    """The findings in one text.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it is no Python, or too deep for the parser.
    """
    with warnings.catch_warnings():
        # Of "\\d" and the like: that is between the program and its linter.
        warnings.simplefilter("ignore")
        tree = ast.parse(source, filename=name)
    return sorted(set(_Check(tree, name).run()), key=lambda finding: (finding.line, finding.use))


class _Check:
    def __init__(self, tree: ast.Module, name: str) -> None:
        self._tree = tree
        self._name = name
        # What a dotted name of this text stands for in the old packages.
        self._names: dict[str, str] = {}
        self._clients: set[str] = set()
        self._made = 0
        self._used = False

    def run(self) -> Iterator[Finding]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from self._import(node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAMED.fullmatch(node.value):
                yield self._finding(node, f'"{node.value}"', NAMED_IN_A_TEXT)
        if not self._used:
            return
        self._bind()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call):
                yield from self._call(node)
            elif isinstance(node, ast.ExceptHandler):
                yield from self._handler(node)
            elif isinstance(node, ast.Compare):
                yield from self._comparison(node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ENVIRONMENT_WORDS:
                yield self._finding(node, f'"{node.value}"', ENVIRONMENT_WORDS[node.value])

    def _import(self, node: ast.Import | ast.ImportFrom) -> Iterator[Finding]:
        whole = ""
        if isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                return
            whole = node.module
            modules = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            modules = [
                (alias.name, alias.asname or alias.name.partition(".")[0])
                if alias.asname
                else (alias.name.partition(".")[0], alias.name.partition(".")[0])
                for alias in node.names
            ]
        for position, (target, local) in enumerate(modules):
            full = target if whole else [alias.name for alias in node.names][position]
            old = full.removeprefix(_OURS)
            if old.partition(".")[0] not in _ROOTS:
                continue
            self._used = True
            if local == "*":
                whole_module = whole.removeprefix(_OURS)
                self._names |= {word: f"{whole_module}.{word}" for word in STAR_NAMES.get(whole_module, ())}
            else:
                self._names[local] = target.removeprefix(_OURS)
            ours = full.startswith(_OURS)
            entry = _module(old)
            if entry.verdict is not Verdict.DECISION:
                new = "already nvattest.compat" if ours else f"change it to: {_rewritten(node, position)}"
                entry = Entry(Verdict.SAME, new)
            yield self._finding(node, f"import {full}", entry)

    def _bind(self) -> None:
        """Names for instances: ``client = Attestation()``, ``self.client = …``, ``with`` and annotations aside."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                targets, value = [node.target], node.value
            else:
                continue
            meaning = self._meaning(value.func) if isinstance(value, ast.Call) else self._meaning(value)
            for target in targets:
                word = _dotted(target)
                if word is None or meaning is None:
                    continue
                if isinstance(value, ast.Call) and meaning.endswith(".Attestation"):
                    self._clients.add(word)
                elif not isinstance(value, ast.Call):
                    self._names[word] = meaning

    def _meaning(self, node: ast.expr) -> str | None:
        """``attestation.Attestation`` as ``nv_attestation_sdk.attestation.Attestation``."""
        word = _dotted(node)
        if word is None:
            return None
        parts = word.split(".")
        for end in range(len(parts), 0, -1):
            known = self._names.get(".".join(parts[:end]))
            if known is not None:
                return ".".join([known, *parts[end:]])
        return None

    def _call(self, node: ast.Call) -> Iterator[Finding]:
        meaning = self._meaning(node.func)
        if meaning is not None and meaning.endswith(".Attestation"):
            self._made += 1
            second = self._made > 1
            yield self._finding(
                node,
                "Attestation()",
                Entry(
                    Verdict.CHANGED if second else Verdict.SAME,
                    "each instance has its own state now; in the old SDK all were one, so that this one would have had "
                    "the nonce, verifiers and tokens of the first"
                    if second
                    else "",
                ),
            )
        elif meaning is not None and meaning in FUNCTIONS:
            yield self._finding(node, f"{meaning.rpartition('.')[2]}()", FUNCTIONS[meaning])
            yield from self._parameters(node, meaning)
        elif isinstance(node.func, ast.Attribute):
            yield from self._method(node, node.func, meaning)
        elif (
            isinstance(node.func, ast.Name)
            and node.func.id == "getattr"
            and node.args
            and self._is_client(node.args[0])
        ):
            yield self._finding(node, "getattr()", UNKNOWN_METHOD)

    def _is_client(self, node: ast.expr) -> bool:
        return _dotted(node) in self._clients or (self._meaning(node) or "").endswith(".Attestation")

    def _method(self, node: ast.Call, func: ast.Attribute, meaning: str | None) -> Iterator[Finding]:
        name = func.attr
        on_class = meaning is not None and ".Attestation." in meaning
        receiver = _dotted(func.value)
        made_here = isinstance(func.value, ast.Call) and (self._meaning(func.value.func) or "").endswith(".Attestation")
        known = on_class or made_here or receiver in self._clients
        if name not in METHODS or not (known or name in DISTINCT_METHODS):
            return
        if name == "add_verifier":
            yield self._finding(node, "add_verifier()", self._pair(node))
            return
        entry = METHODS[name]
        if on_class and self._clients and entry.verdict is Verdict.SAME:
            entry = ON_THE_CLASS
        yield self._finding(node, f"{name}()", entry)

    def _pair(self, node: ast.Call) -> Entry:
        given = {word.arg: word.value for word in node.keywords if word.arg}
        arguments = [
            *node.args,
            *([given["dev"]] if "dev" in given else []),
            *([given["env"]] if "env" in given else []),
        ]
        words = [(_dotted(argument) or "").rpartition(".")[2] for argument in arguments[:2]]
        device, environment = [*words, "", ""][:2]
        wrong = [
            word
            for word, supported, every in (
                (device, SUPPORTED_DEVICES, ("CPU", "GPU", "SWITCH", "OS", "DPU")),
                (environment, SUPPORTED_ENVIRONMENTS, ("TEST", "LOCAL", "AZURE", "GCP", "REMOTE")),
            )
            if word in every and word not in supported
        ]
        if wrong:
            return Entry(
                Verdict.DECISION,
                f"{' and '.join(wrong)} cannot be verified: UnsupportedVerifierError. The old SDK took it and verified "
                "nothing",
            )
        if device in SUPPORTED_DEVICES and environment in SUPPORTED_ENVIRONMENTS:
            return METHODS["add_verifier"]
        return Entry(Verdict.CHANGED, "other pairs than GPU and SWITCH with LOCAL and REMOTE are refused here")

    def _parameters(self, node: ast.Call, meaning: str) -> Iterator[Finding]:
        if not meaning.endswith("cc_admin.attest") or not node.args or not isinstance(node.args[0], ast.Dict):
            return
        for key, value in zip(node.args[0].keys, node.args[0].values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(value, ast.Constant):
                continue
            if key.value == "user_mode" and not value.value:
                yield self._finding(
                    value,
                    '"user_mode": False',
                    Entry(
                        Verdict.CHANGED,
                        "ready is set only if all GPUs of the machine are among the evidence and trusted; a failure in "
                        "DevTools mode no longer sets it",
                    ),
                )
            elif key.value == "driver_rim" and value.value:
                yield self._finding(
                    value, '"driver_rim"', Entry(Verdict.CHANGED, "the file is used now; the old verifier ignored it")
                )

    def _handler(self, node: ast.ExceptHandler) -> Iterator[Finding]:
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else []
        for kind in kinds:
            meaning = self._meaning(kind)
            if meaning is not None and ".exceptions." in meaning:
                yield self._finding(
                    kind,
                    f"except {meaning.rpartition('.')[2]}",
                    Entry(Verdict.DECISION, "catch nvattest.NvattestError, or one of its kinds, instead"),
                )

    def _comparison(self, node: ast.Compare) -> Iterator[Finding]:
        sides = [node.left, *node.comparators]
        asked = any(
            isinstance(side, ast.Call) and isinstance(side.func, ast.Attribute) and side.func.attr == "get_evidence"
            for side in sides
        )
        empty = any(isinstance(side, ast.List | ast.Tuple) and not side.elts for side in sides)
        if asked and empty:
            yield self._finding(
                node,
                "get_evidence() == []",
                Entry(
                    Verdict.DECISION, "a failure is raised now (nvattest.CollectionError) and is never an empty list"
                ),
            )

    def _finding(self, node: ast.AST, use: str, entry: Entry) -> Finding:
        return Finding(
            file=self._name, line=getattr(node, "lineno", 0), use=use, verdict=entry.verdict, message=entry.message
        )


def _module(name: str) -> Entry:
    """What becomes of a module or of a name in it: the entry of the longest part that the table has."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        entry = MODULES.get(".".join(parts[:end]))
        if entry is not None and (end > 1 or len(parts) == 1 or entry.verdict is Verdict.DECISION):
            return entry
    return Entry(Verdict.DECISION, f"{name} is not offered by nvattest.compat")


def _rewritten(node: ast.Import | ast.ImportFrom, position: int) -> str:
    """The import as it has to be written, binding the same name."""
    alias = node.names[position]
    renamed = f" as {alias.asname}" if alias.asname else ""
    if isinstance(node, ast.ImportFrom):
        return f"from {_OURS}{node.module} import {alias.name}{renamed}"
    if alias.asname:
        return f"import {_OURS}{alias.name}{renamed}"
    return f"from {_OURS[:-1]} import {alias.name.partition('.')[0]}"


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return base and f"{base}.{node.attr}"
    return None
