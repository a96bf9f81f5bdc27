"""The pages: every link leads somewhere, every picture is the one of this code, and each is in the site's menu."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / f"examples/docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD, PICTURE = load("build"), load("picture")


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return BUILD.FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))


def anchors(page: str) -> set[str]:
    """The fragments of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", BUILD.pages())
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for link in BUILD.LINK.finditer(prose(page)):
        path, fragment = link[1], (link[2] or "").removeprefix("#")
        BUILD.target(page, path, fragment)
        found = (ROOT / page).parent / path if path else ROOT / page
        if fragment:
            found = found / "README.md" if found.is_dir() else found
            assert fragment in anchors(found.resolve().relative_to(ROOT).as_posix()), link[0]


def test_a_link_that_leads_nowhere_is_an_error() -> None:
    with pytest.raises(BUILD.LinkError, match=r"README.md: examples/none.md leads nowhere"):
        BUILD.rewritten("README.md", "[x](examples/none.md)")
    assert BUILD.rewritten("README.md", "```\n[x](examples/none.md)\n```") == "```\n[x](examples/none.md)\n```"
    assert BUILD.rewritten("examples/quick-start.md", "[x](../README.md#install)") == "[x](../index.md#install)"
    assert BUILD.rewritten("README.md", "[x](examples/policies)") == "[x](#file-examples-policies)"


def test_every_document_is_in_the_site_once() -> None:
    documents = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.md", "examples/*.md", "examples/*/*.md", "tests/README.md")
        for path in ROOT.glob(pattern)
    }
    assert sorted(BUILD.pages()) == sorted(documents)


def test_the_picture_is_that_of_the_imports() -> None:
    assert PICTURE.PICTURE.read_text(encoding="utf-8") == PICTURE.svg(), "run make catalogue"


def test_each_room_of_the_picture_is_above_what_it_imports() -> None:
    rows = {box: row for box, (_, _, _, row) in PICTURE.BOXES.items()}
    assert [(box, other) for box, other in PICTURE.arrows() if rows[box] > rows[other]] == []


@pytest.mark.parametrize("page", ["examples/contributing.md", "examples/architecture.md"])
def test_every_module_that_a_page_names_is_there(page: str) -> None:
    found = [*ROOT.glob("nvattest/**/*.*"), *ROOT.glob("tests/**/*.py")]
    files = [path.relative_to(ROOT).as_posix() for path in found]
    for name in re.findall(r"`([\w/]+\.(?:py|toml))`", prose(page)):
        assert any(f"/{file}".endswith(f"/{name}") for file in [*files, "pyproject.toml"]), name


def test_the_manual_is_read_whole() -> None:
    from nvattest.cli.manual import pages

    for name, roff in pages().items():
        page = BUILD.man_page(roff)
        assert page.startswith(f"# {name.removesuffix('.1')}\n"), name
        assert "\\f" not in page
    assert "## See also\n\n`nvattest(1)`\n" in BUILD.man_page(pages()["nvattest-inspect.1"])
    assert "\n`nvattest-gate(1)`\n: run a command" in BUILD.man_page(pages()["nvattest.1"])
    with pytest.raises(ValueError, match="not known"):
        BUILD.man_page(".XX")


def test_the_table_of_exit_statuses_is_that_of_the_commands() -> None:
    from nvattest.cli import ANY_STATUS, COMMANDS, STATUSES

    table = "| Command | Exit status |\n| --- | --- |\n"
    for name, statuses in {**{f"`{name}`": STATUSES[name] for name in COMMANDS}, "any of them": ANY_STATUS}.items():
        cells = "; ".join(f"`{status}` {meaning}" if status else meaning for status, meaning in statuses)
        table += f"| {name} | {cells} |\n"
    assert table in (ROOT / "examples/operator.md").read_text(encoding="utf-8")


READERS = ("Operator", "Relying party", "Platform engineer", "Developer without hardware", "Fleet owner", "Migrant")


@pytest.mark.parametrize("reader", READERS)
def test_the_front_page_has_for_each_reader_a_few_lines_and_a_link(reader: str) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {reader}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line]
    assert 0 < len(lines) <= 15
    assert "](examples/" in section


def test_no_text_asks_for_an_installation_from_an_index_that_does_not_have_us() -> None:
    texts = [
        ROOT / "README.md",
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("nvattest/**/*.py"),
        *ROOT.glob("nvattest/**/*.toml"),
    ]
    for path in texts:
        for words in re.findall(r"pip install((?: [\w.,'/\[\]*-]+)+)", path.read_text(encoding="utf-8")):
            names = [word.strip("'") for word in words.split()]
            assert not [name for name in names if re.fullmatch(r"nvattest(\[.*)?", name)], path
