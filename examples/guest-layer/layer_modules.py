"""The modules that the hook can ever import, and their byte code without docstrings.

The imports of ``nvattest.guest`` are followed through the source of everything they reach, late imports included. What
compiled modules import is not visible in any source: those names are listed here, and the test that imports every
module of a layer finds a list that fell behind.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import _bootstrap_external
from typing import Final

__all__ = ["Module", "compile_module", "find_modules"]

# Distributions may reach into everything that happens to be installed, so only these are ever taken.
PACKAGES: Final = frozenset(
    {"nvattest", "cryptography", "_cffi_backend", "lxml", "jwt", "pynvml"}
    | (set() if sys.version_info >= (3, 11) else {"typing_extensions", "tomli"})
)
NETWORK_PACKAGES: Final = frozenset({"requests", "urllib3", "certifi", "idna"})

# What compiled modules import, and codecs, which are found by name.
HIDDEN: Final = {
    "": (
        "encodings", "encodings.aliases", "encodings.ascii", "encodings.latin_1", "encodings.utf_8",
        "codecs", "io", "abc", "os", "stat", "posixpath", "genericpath", "_collections_abc", "importlib._bootstrap",
        "importlib._bootstrap_external", "zipimport",
    ),
    "_datetime": ("_strptime",),
    "time": ("_strptime",),
    "ssl": ("encodings.idna",),
    "socket": ("encodings.idna",),
    "lxml.etree": ("lxml._elementpath", "copy", "gzip", "inspect", "io", "re", "os.path", "weakref"),
    "lxml._elementpath": ("re",),
    "cryptography.hazmat.bindings._rust": (
        "_cffi_backend", "base64", "datetime", "email.parser", "ipaddress", "os", "warnings",
        "cryptography.exceptions", "cryptography.utils", "cryptography.x509",
        "cryptography.hazmat._oid", "cryptography.hazmat.primitives._asymmetric",
        "cryptography.hazmat.primitives._serialization", "cryptography.hazmat.primitives.hashes",
        "cryptography.hazmat.primitives.asymmetric.ec", "cryptography.hazmat.primitives.asymmetric.padding",
        "cryptography.hazmat.primitives.asymmetric.rsa", "cryptography.hazmat.primitives.asymmetric.utils",
        "cryptography.hazmat.primitives.ciphers.algorithms", "cryptography.hazmat.primitives.ciphers.modes",
        "cryptography.hazmat.primitives.serialization",
        "cryptography.x509.certificate_transparency", "cryptography.x509.general_name",
    ),
}  # fmt: skip

# Modules with another content. PyJWT's client fetches keys over the network, which the hook never does; importing PyJWT
# imports it, and with it TLS and HTTP.
REPLACED: Final = {
    "jwt.jwks_client": (
        "class PyJWKClient:\n"
        "    def __init__(self, *arguments, **named):\n"
        "        raise RuntimeError('the guest layer has no PyJWKClient')\n"
    ),
}

# Left out, with everything below: an import of them is either guarded or in code that the hook does not run.
LEFT_OUT = frozenset(
    {
        # the rooms of nvattest that the hook does not use
        "nvattest.cli", "nvattest.compat", "nvattest.report", "nvattest.testing", "nvattest.collateral.nras",
        "nvattest.collateral.cpu",
        "xmlschema", "regopy", "awscrt", "jinja2",
        # tools for developers
        "__main__", "argparse", "doctest", "pdb", "pydoc", "pydoc_data", "unittest", "test", "tkinter", "turtle",
        "idlelib", "curses", "readline", "rlcompleter", "code", "codeop", "bdb", "cmd", "getpass", "optparse",
        "webbrowser", "cProfile", "profile", "pstats", "trace", "tracemalloc", "getopt", "site", "_sitebuiltins",
        "this", "antigravity",
        # other systems
        "nt", "ntpath", "nturl2path", "msvcrt", "winreg", "_winapi", "_overlapped", "_scproxy", "_osx_support",
        "vms_lib", "java", "org", "pwd", "grp", "_aix_support", "ctypes.wintypes", "ctypes.macholib", "ctypes._aix",
        "_bootsubprocess", "encodings.mbcs",
        # hashes come in two copies; without OpenSSL's copy the first line of a run does not load 5 MB
        "_hashlib",
        # what only servers, event loops and other formats need
        "asyncio", "concurrent.futures.process", "multiprocessing", "xmlrpc", "http.server", "socketserver",
        "logging.config", "logging.handlers", "sqlite3", "dbm", "shelve", "ftplib", "smtplib", "distutils",
        "ensurepip", "venv", "statistics", "_statistics", "fractions", "decimal", "_decimal", "_pydecimal",
        "_pydatetime", "_py_abc", "bz2", "lzma", "_bz2", "_lzma", "tarfile", "zipapp", "pickletools",
        "importlib.resources.simple", "email.policy", "email.headerregistry", "email._header_value_parser",
        "email.contentmanager", "lxml.html", "lxml.objectify", "lxml.isoschematron", "lxml.sax", "lxml.builder",
        "lxml.cssselect", "lxml.ElementInclude", "lxml.doctestcompare", "lxml.pyclasslookup", "lxml.usedoctest",
        "cryptography.hazmat.backends.openssl.decode_asn1", "cryptography.fernet",
        "cryptography.hazmat.primitives.serialization.pkcs7", "cryptography.hazmat.primitives.serialization.pkcs12",
        "cryptography.hazmat.primitives.twofactor", "urllib3.contrib.emscripten", "urllib3.contrib.pyopenssl",
        "urllib3.contrib.socks", "urllib3.http2.connection", "requests.packages.chardet",
    }
)  # fmt: skip
if sys.version_info < (3, 11):
    # Python 3.10 has it in no other place; later ones have it frozen in the interpreter.
    LEFT_OUT -= {"ntpath"}
NETWORK: Final = NETWORK_PACKAGES | {"ssl", "_ssl", "nvattest.collateral._requests"}


@dataclass(frozen=True, kw_only=True)
class Module:
    """A module by its full name; ``path`` is a ``.py`` or a shared object."""

    name: str
    path: str
    is_package: bool

    @property
    def is_native(self) -> bool:
        return not self.path.endswith(".py")

    @property
    def target(self) -> str:
        """Its place below the folder of all modules."""
        parts = self.name.split(".")
        if self.is_native:
            suffix = next(end for end in _bootstrap_external.EXTENSION_SUFFIXES if self.path.endswith(end))
            return "/".join(parts) + suffix
        return "/".join([*parts, "__init__.pyc"]) if self.is_package else "/".join(parts) + ".pyc"


def find_modules(roots: Iterable[str], folders: Iterable[str], *, network: bool) -> dict[str, Module]:
    """Every module that ``roots`` can reach, by name; ``folders`` are searched in this order."""
    finder = _Finder(tuple(folders), network=network)
    waiting = [*roots, *HIDDEN[""]]
    while waiting:
        name = waiting.pop()
        for parent in _parents(name):
            if parent in finder.seen:
                continue
            module = finder.find(parent)
            if module is None:
                break
            waiting += HIDDEN.get(parent, ())
            if not module.is_native:
                waiting += _imports(module)
    return dict(sorted(finder.found.items()))


class _Finder:
    def __init__(self, folders: tuple[str, ...], *, network: bool) -> None:
        standard = sysconfig.get_path("stdlib")
        self._standard = (standard, os.path.join(standard, "lib-dynload"))
        self._folders = folders
        self._packages = PACKAGES | NETWORK_PACKAGES if network else PACKAGES
        self._left_out = LEFT_OUT if network else LEFT_OUT | NETWORK
        self.seen: set[str] = set()
        self.found: dict[str, Module] = {}

    def find(self, name: str) -> Module | None:
        self.seen.add(name)
        if any(parent in self._left_out for parent in _parents(name)):
            return None
        top, _, _ = name.partition(".")
        if top in sys.builtin_module_names:
            return None
        if top == name:
            places = self._folders if top in self._packages else self._standard
        else:
            parent = self.found.get(name.rpartition(".")[0])
            if parent is None or not parent.is_package:
                return None
            places = (os.path.dirname(parent.path),)
        module = _locate(name, places)
        if module is not None:
            self.found[name] = module
        return module


def _locate(name: str, places: Iterable[str]) -> Module | None:
    last = name.rpartition(".")[2]
    for place in places:
        package = os.path.join(place, last, "__init__.py")
        if os.path.isfile(package):
            return Module(name=name, path=package, is_package=True)
        for suffix in (*_bootstrap_external.EXTENSION_SUFFIXES, ".py"):
            path = os.path.join(place, last + suffix)
            if os.path.isfile(path):
                return Module(name=name, path=path, is_package=False)
    return None


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _imports(module: Module) -> Iterator[str]:
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    for node in _run_time_nodes(_parse(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            yield base
            # A name may be a module of its own; where it is not, nothing is found.
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and _is_never(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _is_never(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return text in {"TYPE_CHECKING", "typing.TYPE_CHECKING"} or text.startswith("__name__ == ")


def _source(module: Module) -> bytes:
    if module.name in REPLACED:
        return REPLACED[module.name].encode()
    with open(module.path, "rb") as file:
        return file.read()


def _parse(module: Module) -> ast.Module:
    return ast.parse(_source(module), module.path)


def compile_module(module: Module) -> bytes:
    """The module as a ``.pyc`` that is never compared with a source, without docstrings. Assertions stay.

    Deterministic for one interpreter and PYTHONHASHSEED=0: names no folder of this machine, no time.
    """
    tree = _parse(module)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            # An empty one in its place: no body becomes empty, and code that works on __doc__ still finds a text.
            node.body[0].value = ast.copy_location(ast.Constant(""), node.body[0])  # type: ignore[attr-defined]
    code = compile(tree, module.target[:-1], "exec", dont_inherit=True, optimize=0)
    digest = importlib.util.source_hash(_source(module))
    return bytes(_bootstrap_external._code_to_hash_pyc(code, digest, checked=False))  # type: ignore[attr-defined]  # noqa: SLF001
