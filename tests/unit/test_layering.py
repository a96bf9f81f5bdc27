"""The rules that hold for every module, read from its source: order of the rooms, no circle, no IO in the core, words,
and that text for people and the words of errors go through their one home.

A module imports from lower levels and from its own room, and no imports form a circle, whether at the top of a module,
inside a function or for the type checker. Levels 7.x order the wiring and the faces of the program among themselves. A
new room needs a level in ``LEVELS``. Only the simulation may say the words in ``WORDS``.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

import nvattest
from nvattest.report.catalogue import entries, find_entry

PACKAGE = Path(nvattest.__file__).resolve().parent
Node = TypeVar("Node", bound=ast.AST)

# The facade is the package's own __init__: what people import. Nothing below it may ask it for anything.
FACADE = "nvattest"

LEVELS: Mapping[str, float] = {
    "_package": 0,
    "_registry": 0,
    "_documents": 0,
    "_text": 0,
    "errors": 0,
    "model": 0,
    "spdm": 1,
    "pki": 2,
    # A CMW collection names no architecture; its certificates do.
    "evidence": 2.1,
    "rim": 3,
    "appraisal": 4,
    "policy": 5,
    "token": 5,
    # What the rooms at the border, and the hook's fast path, have of the disk and of the kernel in common.
    "_system": 6,
    "_waiting": 6,
    # Fetchers of CPU collateral read quotes with it; what verifies in it is pure.
    "tee": 6.05,
    "devices": 6.1,
    "collateral": 6.1,
    "session": 7.0,
    FACADE: 7.1,
    "testing": 7.1,
    "report": 7.1,
    "fleet": 7.1,
    "compat": 7.2,
    "guest": 7.2,
    "cli": 7.3,
    "__main__": 7.4,
}

# Level 0 is one room: its files are the words that everyone shares.
SHARED_LEVEL = 0

IO_LEVEL = 6

# These modules may do IO: one reads the schemas that ship in the package, the other runs Rego in a child process.
IO_EXEMPT = frozenset({"nvattest._package", "nvattest.policy.isolation"})

# These modules of rooms that may do IO do none: they parse and verify.
PURE = frozenset(f"nvattest.tee.{name}" for name in ("collateral", "guest", "quote", "recipes", "snp", "tdx"))

FORBIDDEN_IMPORTS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "socket",
            "socketserver",
            "ssl",
            "http",
            "urllib.request",
            "urllib3",
            "requests",
            "httpx",
            "ftplib",
            "smtplib",
        ),
        "the network",
    ),
    **dict.fromkeys(
        ("os", "posix", "io", "pathlib", "tempfile", "shutil", "glob", "fileinput", "mmap", "fcntl", "sqlite3", "dbm"),
        "files and the environment",
    ),
    **dict.fromkeys(("importlib.resources", "pkgutil", "linecache", "zoneinfo"), "files"),
    **dict.fromkeys(("time", "sched"), "the clock"),
    **dict.fromkeys(("random", "secrets"), "randomness"),
    **dict.fromkeys(("threading", "_thread", "multiprocessing", "concurrent", "asyncio", "queue"), "threads"),
    **dict.fromkeys(("subprocess", "pty", "signal", "select", "selectors", "atexit", "platform"), "the process"),
    **dict.fromkeys(("ctypes", "cffi", "pynvml"), "drivers"),
}

FORBIDDEN_NAMES: Mapping[str, str] = {
    "datetime.datetime.now": "the clock",
    "datetime.datetime.utcnow": "the clock",
    "datetime.datetime.today": "the clock",
    "datetime.date.today": "the clock",
    "uuid.uuid1": "the clock",
    "uuid.uuid4": "randomness",
    "sys.stdin": "files",
    "sys.stdout": "files",
    "sys.stderr": "files",
    "sys.argv": "the process",
    "sys.exit": "the process",
    "logging.basicConfig": "the process",
    "importlib.import_module": "an import that this test cannot read",
}

FORBIDDEN_BUILTINS: Mapping[str, str] = {
    "open": "files",
    "print": "files",
    "input": "files",
    "breakpoint": "the process",
    "eval": "code that this test cannot read",
    "exec": "code that this test cannot read",
    "__import__": "an import that this test cannot read",
}


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree of a text, made once for all rules."""
    return ast.parse(source)


@cache
def walk(tree: ast.Module) -> tuple[ast.AST, ...]:
    """All nodes of a tree, collected once for all rules."""
    return tuple(ast.walk(tree))


def room_of(module: str) -> str:
    """``nvattest.spdm.report`` is in the room ``spdm``; ``nvattest`` itself is the facade."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else FACADE


def imported_modules(node: ast.Import | ast.ImportFrom, module: str, *, is_package: bool) -> list[str]:
    """The dotted names that one import statement may load, with ``from package import name`` kept as one name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        package = parts if is_package else parts[:-1]
        package = package[: len(package) - (node.level - 1)]
        base = ".".join([*package, base] if base else package)
    return [f"{base}.{alias.name}" for alias in node.names]


def bound_names(tree: ast.Module) -> set[str]:
    """Names that the module itself gives a meaning somewhere, so that they are not the builtins."""
    names: set[str] = set()
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


def import_aliases(tree: ast.Module) -> dict[str, str]:
    """What a name means that an import bound: ``dt`` is ``datetime.datetime``."""
    aliases: dict[str, str] = {}
    for node in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                aliases[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return aliases


def dotted(node: ast.expr, aliases: Mapping[str, str]) -> str | None:
    """``dt.now`` as ``datetime.datetime.now``, or None where the expression is not a plain dotted name."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id)
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, aliases)
        return base and f"{base}.{node.attr}"
    return None


def forbidden_prefix(name: str) -> str | None:
    """The forbidden module that importing ``name`` loads, if any."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        prefix = ".".join(parts[:end])
        if prefix in FORBIDDEN_IMPORTS:
            return prefix
    return None


def upward_imports(module: str, tree: ast.Module, where: str, *, is_package: bool) -> Iterator[str]:
    """Imports that point upwards or sideways, wherever in the file and for whatever purpose they stand."""
    room = room_of(module)
    level = LEVELS[room]
    for node in walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for name in imported_modules(node, module, is_package=is_package):
            if name.partition(".")[0] != "nvattest":
                continue
            target = room_of(name)
            if target not in LEVELS:
                if isinstance(node, ast.ImportFrom) and name.count(".") == 1:
                    target = FACADE  # ``from nvattest import Appraisal``: a name of the facade
                else:
                    yield f"{where}:{node.lineno}: imports {name}, whose room {target!r} has no level: give it a level"
                    continue
            if target == room:
                continue
            target_level = LEVELS[target]
            if target_level < level or (target_level == level == SHARED_LEVEL):
                continue
            direction = "upwards" if target_level > level else "sideways"
            yield (
                f"{where}:{node.lineno}: {module} (level {level:g}) imports {name} (level {target_level:g}): that points "
                f"{direction}; import from lower levels or pass the value as an argument"
            )


def io_uses(module: str, tree: ast.Module, where: str, *, is_package: bool) -> Iterator[str]:
    """What touches the world in a module that must not."""
    rule = f"{module} is below level {IO_LEVEL} and must not touch"
    aliases = import_aliases(tree)
    shadowed = bound_names(tree)
    for node in walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported_modules(node, module, is_package=is_package):
                found = forbidden_prefix(name)
                if found:
                    yield f"{where}:{node.lineno}: imports {found}; {rule} {FORBIDDEN_IMPORTS[found]}"
                elif name in FORBIDDEN_NAMES:
                    yield f"{where}:{node.lineno}: imports {name}; {rule} {FORBIDDEN_NAMES[name]}"
        elif isinstance(node, ast.Attribute):
            name_or_none = dotted(node, aliases)
            if name_or_none is not None and name_or_none in FORBIDDEN_NAMES:
                yield f"{where}:{node.lineno}: uses {name_or_none}; {rule} {FORBIDDEN_NAMES[name_or_none]}"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id in FORBIDDEN_BUILTINS and node.id not in shadowed:
                yield f"{where}:{node.lineno}: uses {node.id}(); {rule} {FORBIDDEN_BUILTINS[node.id]}"
        elif isinstance(node, ast.Global):
            yield (
                f"{where}:{node.lineno}: changes the module's {', '.join(node.names)}; a module below level {IO_LEVEL} "
                "has no state: pass an object along"
            )


def violations(module: str, source: str, *, where: str = "fake.py", is_package: bool = False) -> list[str]:
    """Every breach of the two rules in one module, in words, with file and line."""
    room = room_of(module)
    if room not in LEVELS:
        return [
            f"{where}:1: {module} is in the room {room!r}, which has no level: give it a level in {__name__}.LEVELS"
        ]
    tree = parsed(source)
    found = list(upward_imports(module, tree, where, is_package=is_package))
    if module in PURE or (LEVELS[room] < IO_LEVEL and module not in IO_EXEMPT):
        found += io_uses(module, tree, where, is_package=is_package)
    return found


def modules() -> list[tuple[str, Path]]:
    """Every module of the installed package, by its dotted name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


MODULES = modules()


def tree_of(path: Path) -> ast.Module:
    return parsed(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_a_module_imports_downwards_and_touches_the_world_only_from_level_6(module: str, path: Path) -> None:
    found = violations(
        module,
        path.read_text(encoding="utf-8"),
        where=str(path.relative_to(PACKAGE.parent)),
        is_package=path.name == "__init__.py",
    )
    assert not found, "\n" + "\n".join(found)


def test_every_level_is_that_of_a_room_and_every_room_has_one() -> None:
    assert {room_of(module) for module, _ in MODULES} == set(LEVELS)


def test_the_unit_tests_lie_in_folders_named_as_the_rooms() -> None:
    folders = {path.name for path in Path(__file__).parent.iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert folders <= set(LEVELS)
    assert folders == {room for room in LEVELS if (PACKAGE / room).is_dir()}


def circles(sources: Mapping[str, tuple[str, bool]]) -> list[list[str]]:
    """The sets of modules that import each other. ``sources`` maps a module to its text and whether it is a package."""
    edges: dict[str, set[str]] = {}
    for module, (source, is_package) in sources.items():
        names = {
            name
            for node in walk(parsed(source))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in imported_modules(node, module, is_package=is_package)
        }
        # ``from package import name``: the name is a module, or something in the package's own __init__.
        edges[module] = {name if name in sources else name.rpartition(".")[0] for name in names} & set(sources)
        edges[module].discard(module)
    reached = {module: set(targets) for module, targets in edges.items()}
    for between in edges:
        for module in edges:
            if between in reached[module]:
                reached[module] |= reached[between]
    groups = {tuple(sorted({module} | {other for other in found if module in reached[other]}))
              for module, found in reached.items() if module in found}  # fmt: skip
    return [list(group) for group in sorted(groups)]


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = {module: (path.read_text(encoding="utf-8"), path.name == "__init__.py") for module, path in MODULES}
    assert circles(sources) == []


def test_a_circle_is_found_wherever_its_imports_are() -> None:
    sources = {
        "nvattest.a": ("from nvattest import b", False),
        "nvattest.b": ("def late():\n    import nvattest.c.d", False),
        "nvattest.c": ("", True),
        "nvattest.c.d": ("if TYPE_CHECKING:\n    from ..a import A\nfrom nvattest import e", False),
        "nvattest.e": ("import os", False),
    }
    assert circles(sources) == [["nvattest.a", "nvattest.b", "nvattest.c.d"]]


# Subjects without a name, and verbs for code that speaks. In the simulation a fault is a lie that a device is told.
WORDS = r"nobody|somebody|everybody|anybody|strangers?"
SPOKEN = r"|told|tells?"


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_prose_names_who_acts(module: str, path: Path) -> None:
    words = re.compile(rf"\b({WORDS}{'' if room_of(module) == 'testing' else SPOKEN})\b", re.IGNORECASE)
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [f"{path}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if words.search(line)]
    assert not found, f"{module} says words that design.md replaces:\n" + "\n".join(found)


def nodes(kind: type[Node], *rooms: str) -> Iterator[tuple[str, Node]]:
    """The nodes of one kind in some rooms, or in all but the simulation, each with its module."""
    for module, path in MODULES:
        if (room := room_of(module)) in rooms or (not rooms and room != "testing"):
            for node in walk(tree_of(path)):
                if isinstance(node, kind):
                    yield module.removeprefix("nvattest."), node


def test_no_module_raises_an_error_without_a_class_of_its_own() -> None:
    raised = {
        f"{module}:{node.lineno}: {node.exc.func.id}"
        for module, node in nodes(ast.Raise)
        if isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    assert not {where for where in raised if where.endswith((" NvattestError", " Exception", " BaseException"))}


# Where a line is printed that did not pass through a function that cleans: text for a program, or one that does it.
PRINTERS = {"cli.output", "cli.manual", "cli.collect", "cli.simulate", "guest.record"}
CLEANERS = ("dump_json(", "_as_json(", "block(", "joined(", "clean(")
# What joins lines of its own: texts of ours for a shell, a manual or a help, and files for programs.
JOINERS = {"cli.manual", "cli", "cli.simulate", "cli.doctor", "cli.output", "guest.extension", "guest.kata"}


def test_every_command_prints_through_the_function_that_cleans() -> None:
    printing = {
        module
        for module, node in nodes(ast.Call, "cli", "guest")
        if ast.unparse(node.func) == "print"
        and not ast.unparse(node.args[0] if node.args else node).startswith(CLEANERS)
    }
    assert printing == PRINTERS


def test_lines_for_people_are_joined_by_the_function_that_keeps_each_of_them_one() -> None:
    rooms = ("cli", "guest", "collateral", "rim", "policy", "token", "appraisal", "compat")
    joining = {module for module, node in nodes(ast.Call, *rooms) if ast.unparse(node.func) == "'\\n'.join"}
    assert joining <= JOINERS


def test_every_word_of_an_error_leads_to_an_entry_of_the_catalogue() -> None:
    given = [(module, item.value) for module, node in nodes(ast.Call) for item in node.keywords if item.arg == "code"]
    # Functions that make the errors of a room or a module: what has hyphens among their arguments is the word.
    given += [
        (module, item)
        for module, node in nodes(ast.Call)
        if ast.unparse(node.func).rpartition(".")[2] in ("refuse", "_refuse", "fail", "_error")
        for item in node.args
        if isinstance(item, ast.Constant) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", str(item.value))
    ]
    words = {item.value: module for module, item in given if isinstance(item, ast.Constant) and item.value}
    missing = {word: module for word, module in words.items() if find_entry(str(word)) is None}
    assert not missing, f"add them to 'covers' of their family in nvattest/report/catalogue.toml: {missing}"


def test_every_word_of_the_catalogue_is_one_that_the_package_says() -> None:
    # Any text of the package counts, for some words come out of tables; what is written nowhere is raised nowhere.
    said = {node.value for _, node in nodes(ast.Constant, *LEVELS)}
    words = {word for entry in entries() if entry.kind == "error" for word in (entry.key, *entry.covers)}
    # The words for missing claims are put together: missing- and the claim.
    assert not {word for word in words if word not in said and word.removeprefix("missing-") not in said}


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("nvattest.nowhere", "", "give it a level"),
        ("nvattest.nowhere.deep", "x = 1", "give it a level"),
        (
            "nvattest.spdm.report",
            "from nvattest.appraisal.check import Check",
            "fake.py:1: nvattest.spdm.report (level 1)",
        ),
        ("nvattest.spdm.report", "import nvattest.appraisal.check", "upwards"),
        ("nvattest.spdm.report", "from nvattest import rim", "upwards"),
        ("nvattest.spdm.report", "from nvattest import verify", "upwards"),
        ("nvattest.spdm.report", "import nvattest", "upwards"),
        ("nvattest.spdm.report", "from ..pki import chain", "upwards"),
        ("nvattest.spdm.report", "from .. import pki", "upwards"),
        ("nvattest.spdm.report", "from nvattest.unheard import x", "has no level"),
        ("nvattest.spdm.report", "def f():\n    from nvattest.rim import x", "fake.py:2"),
        (
            "nvattest.spdm.report",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nvattest.pki.chain import ValidatedChain",
            "fake.py:3",
        ),
        ("nvattest.token.claims", "from nvattest.policy import x", "sideways"),
        ("nvattest.session", "from nvattest.cli import main", "upwards"),
        ("nvattest.guest.hook", "from nvattest.cli import main", "upwards"),
        ("nvattest", "from nvattest.testing import Platform", "sideways"),
        ("nvattest.pki.ocsp", "import os", "imports os"),
        ("nvattest.pki.ocsp", "import os.path as p", "imports os"),
        ("nvattest.pki.ocsp", "from os import environ", "imports os"),
        ("nvattest.pki.ocsp", "import urllib.request", "the network"),
        ("nvattest.pki.ocsp", "from urllib import request", "the network"),
        ("nvattest.pki.ocsp", "from http.client import HTTPConnection", "the network"),
        ("nvattest.pki.ocsp", "def f():\n    import requests", "fake.py:2"),
        ("nvattest.pki.ocsp", "import time", "the clock"),
        ("nvattest.pki.ocsp", "import secrets", "randomness"),
        ("nvattest.pki.ocsp", "import threading", "threads"),
        ("nvattest.rim.document", "import pynvml", "drivers"),
        ("nvattest.rim.document", "from pathlib import Path", "files"),
        ("nvattest.rim.document", "from io import BytesIO", "files"),
        (
            "nvattest.pki.chain",
            "from datetime import datetime\nx = datetime.now()",
            "fake.py:2: uses datetime.datetime.now",
        ),
        ("nvattest.pki.chain", "import datetime as d\nx = d.datetime.utcnow()", "the clock"),
        ("nvattest.pki.chain", "from datetime import datetime as dt\nfactory = dt.now", "the clock"),
        ("nvattest.pki.chain", "from uuid import uuid4", "randomness"),
        ("nvattest.pki.chain", "import sys\nsys.stderr.write('x')", "files"),
        ("nvattest.pki.chain", "from importlib import import_module", "cannot read"),
        ("nvattest.pki.chain", "x = open('f')", "uses open()"),
        ("nvattest.pki.chain", "def f():\n    print('x')", "fake.py:2: uses print()"),
        ("nvattest.pki.chain", "x = __import__('os')", "cannot read"),
        ("nvattest.pki.chain", "seen = 0\ndef f():\n    global seen\n    seen = 1", "no state"),
        ("nvattest.model", "import os", "imports os"),
        ("nvattest.policy.rego", "import subprocess", "the process"),
        ("nvattest.errors", "from nvattest.spdm import report", "upwards"),
        ("nvattest.tee.tdx", "from nvattest.collateral import http", "upwards"),
        ("nvattest.tee.snp", "import os", "imports os"),
        ("nvattest.tee.guest", "from datetime import datetime\nx = datetime.now()", "the clock"),
    ],
)
def test_the_reader_of_imports_sees_a_breach(module: str, source: str, said: str) -> None:
    found = violations(module, source)
    assert found
    assert said in "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nvattest.spdm.report", "from nvattest.spdm.opaque import parse_opaque"),
        ("nvattest.spdm.report", "from . import opaque\nfrom .opaque import parse_opaque"),
        ("nvattest.spdm.report", "from nvattest.errors import ParseError\nfrom nvattest import _documents"),
        ("nvattest._documents", "from nvattest.errors import ParseError"),
        ("nvattest._package", "import os\nx = open('f')"),
        ("nvattest.policy.isolation", "import os, subprocess, time"),
        ("nvattest.pki.chain", "from datetime import datetime, timezone\ndef f(at: datetime): return at.astimezone()"),
        ("nvattest.pki.chain", "from urllib.parse import urlsplit"),
        ("nvattest.pki.chain", "def f(open): return open(1)"),
        ("nvattest.pki.chain", "class A:\n    def now(self): return self.now()"),
        ("nvattest.devices.nvml", "import os, pynvml, threading, time\nfrom nvattest.rim import ids"),
        ("nvattest.cli.attest", "from nvattest import Appraisal\nfrom nvattest.guest import hook\nprint('x')"),
        ("nvattest", "from nvattest.session import Session\nfrom importlib import import_module"),
    ],
)
def test_the_reader_of_imports_lets_the_permitted_pass(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_a_relative_import_of_a_package_starts_at_itself() -> None:
    assert violations("nvattest.spdm", "from .report import parse_report", is_package=True) == []
    assert violations("nvattest.spdm", "from ..pki import chain", is_package=True)


PROBE = """
import json, logging, os, sys, threading, warnings
before = (list(logging.root.handlers), logging.root.level, dict(os.environ), threading.active_count(),
          list(warnings.filters), sys.excepthook)
import nvattest
after = (list(logging.root.handlers), logging.root.level, dict(os.environ), threading.active_count(),
         list(warnings.filters), sys.excepthook)
print(json.dumps({"modules": sorted(sys.modules), "untouched": before == after, "files": os.listdir(".")}))
"""

SET_READY = "nvmlSystemSetConfComputeGpusReadyState"

HEAVY = (
    "lxml",
    "requests",
    "urllib3",
    "jwt",
    "pynvml",
    "xmlschema",
    "regopy",
    "awscrt",
    "dcap_qvl",
    "jinja2",
    "rich",
    "pytest",
)


def test_importing_nvattest_loads_nothing_heavy_and_leaves_no_trace(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    seen = json.loads(result.stdout)
    assert [name for name in HEAVY if name in seen["modules"]] == []
    assert seen["untouched"], "importing nvattest changed logging, the environment, threads, warnings or the excepthook"
    assert seen["files"] == []
    assert list(tmp_path.iterdir()) == []


def rooms_of_constant(text: str) -> set[str]:
    """The rooms with a module that has this text as a constant."""
    return {
        room_of(module)
        for module, path in MODULES
        for node in walk(tree_of(path))
        if isinstance(node, ast.Constant) and node.value == text
    }


@pytest.mark.parametrize(
    ("text", "rooms"),
    [
        # Other trust anchors come from the environment where SECURITY.md says so; the simulation sets it for a command.
        ("NVATTEST_TRUST_ANCHORS", {"cli", "compat", "testing"}),
        # The driver's function that makes GPUs ready; the simulation answers it.
        (SET_READY, {"devices", "testing"}),
    ],
)
def test_what_weakens_or_releases_is_named_in_these_rooms_only(text: str, rooms: set[str]) -> None:
    assert rooms_of_constant(text) == rooms


def test_one_function_calls_the_driver_s_switch_of_the_ready_state() -> None:
    functions = [
        node.name
        for module, path in MODULES
        if room_of(module) != "testing"
        for node in walk(tree_of(path))
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(item, ast.Constant) and item.value == SET_READY for item in ast.walk(node))
    ]
    assert functions == ["_switch"]


def test_the_gpus_are_set_ready_from_two_rooms_and_each_gives_a_trusted_platform() -> None:
    # The hook's gate, and the old SDK's cc_admin, which people call in the place of the hook.
    calls = sorted(
        (room_of(module), ast.unparse(node.args[1]))
        for module, path in MODULES
        for node in walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "set_ready"
    )
    assert calls == [("compat", "TrustedPlatform(appraisal)"), ("guest", "published.platform")]


def test_the_top_of_the_checkout_has_what_the_design_names_and_no_more() -> None:
    root = PACKAGE.parent
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no checkout")
    assert {name.partition("/")[0] for name in listed.stdout.splitlines()} == {
        *("nvattest", "schemas", "tests", "examples", ".ci", ".gitignore", "pyproject.toml", "Makefile"),
        *("README.md", "LIMITATIONS.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"),
    }
