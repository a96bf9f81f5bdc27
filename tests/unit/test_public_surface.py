"""``nvattest/__init__.py`` is the public surface: ``__all__`` is sorted, complete and true."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nvattest

INIT = Path(nvattest.__file__).resolve()
PACKAGE = INIT.parent


def public(name: str) -> bool:
    return not name.startswith("_") or name == "__version__"


def names_written_in_the_facade() -> set[str]:
    """Public names that ``__init__.py`` binds at its top level, also the imports for type checkers only."""
    found: set[str] = set()
    ahead: list[ast.stmt] = list(ast.parse(INIT.read_text(encoding="utf-8")).body)
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "nvattest":
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.If):
            ahead += [*node.body, *node.orelse]
    return {name for name in found if public(name)}


def test_all_is_there_sorted_and_without_repeats() -> None:
    assert nvattest.__all__
    assert list(nvattest.__all__) == sorted(set(nvattest.__all__))


def test_all_is_what_the_facade_exports() -> None:
    assert set(nvattest.__all__) == names_written_in_the_facade()


@pytest.mark.parametrize("name", getattr(nvattest, "__all__", ()))
def test_every_exported_name_resolves_and_stays_the_same_object(name: str) -> None:
    assert getattr(nvattest, name) is getattr(nvattest, name)
    assert not isinstance(getattr(nvattest, name), ModuleType)


@pytest.mark.parametrize("name", getattr(nvattest, "__all__", ()))
def test_every_exported_function_and_class_says_what_it_is_for(name: str) -> None:
    value = getattr(nvattest, name)
    if callable(value):
        assert (value.__doc__ or "").strip(), f"nvattest.{name} has no docstring"


@pytest.mark.parametrize("module", ["nv_attestation_sdk.attestation", "verifier.cc_admin"])
def test_every_class_and_function_of_the_fronts_says_what_it_is_for(module: str) -> None:
    front = importlib.import_module(f"nvattest.compat.{module}")
    named = {name: getattr(front, name) for name in front.__all__}
    assert [name for name, value in named.items() if callable(value) and not (value.__doc__ or "").strip()] == []


def test_dir_shows_every_exported_name() -> None:
    assert set(nvattest.__all__) <= set(dir(nvattest))


def test_nothing_public_is_left_out_of_all() -> None:
    # In a process of its own: other tests import rooms, which then appear as attributes.
    code = (
        "import types, nvattest\n"
        "for name in nvattest.__all__: getattr(nvattest, name)\n"
        "print(*(n for n in vars(nvattest) if not n.startswith('_') and n not in nvattest.__all__\n"
        "        and n not in ('annotations', 'TYPE_CHECKING') and not isinstance(getattr(nvattest, n), types.ModuleType)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stdout + result.stderr


def test_star_import_gives_what_all_says() -> None:
    namespace: dict[str, object] = {}
    exec("from nvattest import *", namespace)  # noqa: S102 - the statement under test
    assert set(nvattest.__all__) == set(namespace) - {"__builtins__"}


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    name = "no_such_name"
    with pytest.raises(AttributeError, match=name):
        getattr(nvattest, name)
    assert not hasattr(nvattest, name)


def test_the_version_is_the_one_of_the_installed_package() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", nvattest.__version__)
    assert importlib.metadata.version("nvattest") == nvattest.__version__


def test_the_type_marker_ships() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_schemas_ship() -> None:
    schemas = [folder for folder in (PACKAGE / "schemas", PACKAGE.parent / "schemas") if folder.is_dir()]
    assert schemas
    assert any(schemas[0].iterdir())
