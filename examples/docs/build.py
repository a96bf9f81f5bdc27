"""Build the site of the documents: README, pages, files, man pages and the API reference.

    python examples/docs/build.py FOLDER

gathers the pages in FOLDER/source, where every link between them becomes one of the site, and lets Sphinx write
FOLDER/html. A link that leads nowhere, a warning of Sphinx and a name that cannot be documented are errors. It needs
the extra ``docs`` and no network.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

# The pages by chapter, in the order of the site; each chapter is one of its menu.
CHAPTERS = {
    "Start": {
        "Quick start": "examples/quick-start.md",
        "At a shell": "examples/operator.md",
        "Relying party": "examples/relying-party.md",
        "In a program": "examples/library.md",
        "In a Kata guest": "examples/kata/README.md",
        "Without a GPU": "examples/simulation.md",
        "Many machines": "examples/fleet.md",
        "From NVIDIA's tools": "examples/migrate.md",
    },
    "Tasks": {
        "One verdict for guest and GPUs": "examples/one-verdict.md",
        "Tokens in a web service": "examples/web-service/README.md",
        "Without a network": "examples/air-gapped.md",
        "The guest layer": "examples/guest-layer/README.md",
        "A container": "examples/container/README.md",
        "A fleet on Ray": "examples/fleet/README.md",
        "The old import names": "examples/import-names/README.md",
    },
    "What it proves": {
        "Limitations": "LIMITATIONS.md",
        "Threat model": "examples/threat-model.md",
        "Architecture": "examples/architecture.md",
    },
    "Work on it": {
        "Change nvattest": "examples/contributing.md",
        "The tests": "tests/README.md",
        "Security policy": "SECURITY.md",
        "Changelog": "CHANGELOG.md",
    },
    "Reference": {
        "Codes, checks, policy": "examples/CATALOGUE.md",
        "Man pages": "man/index.md",
        "API": "api/index.md",
        "Examples": "examples/README.md",
        "Files of the examples": "files/index.md",
    },
}
# Those that are made here.
MADE = frozenset({"man/index.md", "api/index.md", "files/index.md"})
# Folders whose files are shown on a page of their own.
FILES = ("examples", "examples/*", "schemas")
LANGUAGES = {
    ".c": "c", ".json": "json", ".py": "python", ".sh": "bash", ".toml": "toml", ".xml": "xml", ".xsd": "xml",
    ".txt": "console", ".yaml": "yaml",
}  # fmt: skip
# The public modules: what is documented of each is its ``__all__``.
MODULES = (
    "nvattest",
    "nvattest.testing",
    "nvattest.compat.nv_attestation_sdk.attestation",
    "nvattest.compat.verifier.cc_admin",
)
GROUPS = {
    "session": "Verify", "evidence": "Evidence", "collateral": "Collateral", "appraisal": "Appraisals and policies",
    "token": "Tokens", "tee": "The CPU's quote", "pki": "Trust anchors", "model": "Shared words", "errors": "Errors",
}  # fmt: skip

LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.DOTALL | re.MULTILINE)


class LinkError(Exception):
    """A link of a document leads nowhere."""


def pages() -> list[str]:
    """Every document of the site, as a path from the root."""
    listed = [page for chapter in CHAPTERS.values() for page in chapter.values()]
    return ["README.md", *(page for page in listed if page not in MADE)]


def folders() -> list[str]:
    """Every folder whose files are shown."""
    found = (path for pattern in FILES for path in sorted(ROOT.glob(pattern)) if path.is_dir())
    return [path.relative_to(ROOT).as_posix() for path in found if path != HERE and any(shown(path))]


def shown(folder: Path) -> Iterator[Path]:
    """The files of a folder that are no documents, its own folders included below ``examples/*``."""
    every = folder.rglob("*") if folder.parent != ROOT else folder.glob("*")
    for path in sorted(every):
        if path.is_file() and path.suffix not in (".md", ".pyc", ".svg"):
            yield path


@cache
def anchors() -> frozenset[str]:
    """The folders and files that a link can lead to."""
    files = {
        f"{folder}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder in folders()
        for path in shown(ROOT / folder)
    }
    return frozenset(files | set(folders()))


def place(page: str) -> str:
    """Where a document is in the site: the README is its front."""
    return "index.md" if page == "README.md" else page


def label(path: str) -> str:
    """The name by which a file on a page of files is referred to."""
    return "file-" + re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-")


def target(page: str, path: str, fragment: str) -> str:
    """What a link of a document becomes.

    Raises:
        LinkError: there is no such document, file or folder.
    """
    if not path:
        return fragment
    found = os.path.normpath(f"{PurePosixPath(page).parent}/{path}")
    for document in (found, f"{found}/README.md"):
        if document in pages():
            return os.path.relpath(place(document), str(PurePosixPath(place(page)).parent)) + fragment
    if found.endswith(".svg") and (ROOT / found).is_file():
        return os.path.relpath(found, str(PurePosixPath(place(page)).parent))
    if found in anchors():
        return f"#{label(found)}"
    raise LinkError(f"{page}: {path}{fragment} leads nowhere")


def rewritten(page: str, text: str) -> str:
    """A document with the links of the site. What is inside code stays as it is."""
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [_links(page, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _links(page, text[end:])])


def _links(page: str, text: str) -> str:
    return LINK.sub(lambda link: target(page, link[1], link[2] or ""), text)


def fenced(text: str, language: str) -> str:
    """Text as a block of code, whatever is in it."""
    marks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{marks}{language}\n{text.rstrip()}\n{marks}\n"


def files_page(folder: str) -> str:
    """The page of a folder: each file with its text."""
    parts = [f"({label(folder)})=\n# `{folder}/`\n"]
    for path in shown(ROOT / folder):
        name = path.relative_to(ROOT / folder).as_posix()
        text = path.read_text(encoding="utf-8")
        parts.append(
            f"({label(f'{folder}/{name}')})=\n## `{name}`\n\n{fenced(text, LANGUAGES.get(path.suffix, 'text'))}"
        )
    return "\n".join(parts)


# --- man pages --------------------------------------------------------------------------------------------------------


def man_page(roff: str) -> str:
    """One of our man pages as Markdown: the requests that ``nvattest.cli.manual`` writes and no others."""
    lines: list[str] = []
    term = literal = False
    for line in roff.splitlines():
        request, _, rest = line.partition(" ")
        if literal and line != ".fi":
            lines.append(_unescaped(line))
        elif request == ".TH":
            lines += [f"# {rest.split()[0].lower().replace(chr(92), '')}", ""]
        elif request == ".SH":
            lines += ["", f"## {_unescaped(rest).strip(chr(34)).capitalize()}", ""]
        elif request == ".SS":
            lines += ["", f"### {_unescaped(rest)}", ""]
        elif request == ".TP":
            term = True
        elif request == ".PP":
            lines += [""]
        elif request in (".nf", ".fi"):
            literal = request == ".nf"
            lines += ["```text" if literal else "```"]
        elif request in (".B", ".BR"):
            # Bold and then roman, such as a page and its section.
            words = _unescaped(rest).split(" ") if request == ".BR" else [_unescaped(rest)]
            lines += ["", f"`{''.join(words)}`", ": "] if term else [f"`{''.join(words)}`"]
            term = False
        elif line.startswith("."):
            raise ValueError(f"a request that is not known here: {line}")
        elif term:
            lines += ["", _styled(line), ": "]
            term = False
        elif lines and lines[-1] == ": ":
            lines[-1] += _styled(line)
        else:
            lines.append(_styled(line))
    return "\n".join(lines) + "\n"


def _unescaped(text: str) -> str:
    return re.sub(r"\\f[BIRP]", "", text).replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")


def _styled(text: str) -> str:
    text = re.sub(r"\\f[BI](.*?)\\f[RP]", lambda word: f"`{_unescaped(word[1])}`", text)
    # Outside of code the signs of Markdown are themselves.
    return "`".join(part if index % 2 else re.sub(r"([*_<>\[\]])", r"\\\1", part)
                    for index, part in enumerate(_unescaped(text).split("`")))  # fmt: skip


# --- the API reference ------------------------------------------------------------------------------------------------


def api_page(module: str, documented: set[object]) -> str:
    """Everything that a public module exports, by the room it comes from, but for what another page has."""
    public = import_module(module)
    groups: dict[str, list[str]] = {}
    for name in public.__all__:
        value = getattr(public, name)
        defined = inspect.isclass(value) or inspect.isroutine(value)
        if name.startswith("__") or (defined and value in documented):
            continue
        documented |= {value} if defined else set()
        home = value.__module__ if defined else type(value).__module__
        groups.setdefault(home.split(".")[1] if module == "nvattest" else "", []).append(name)
    parts = [module, "=" * len(module), "", f".. py:module:: {module}", "", with_code(inspect.getdoc(public) or ""), ""]
    order = list(GROUPS)
    for room in sorted(groups, key=lambda room: (room != "", order.index(room) if room in order else len(order))):
        if room:
            title = GROUPS.get(room, room)
            parts += [title, "-" * len(title), ""]
        # What is a value comes last: its name says most of it.
        for name in sorted(groups[room], key=lambda name: not callable(getattr(public, name))):
            parts += [*_directive(f"{module}.{name}", getattr(public, name)), ""]
    if module == "nvattest":
        parts += _several_forms()
    return "\n".join(parts) + "\n"


def _several_forms() -> list[str]:
    """The types that stand in signatures for values of several kinds."""
    session = import_module("nvattest.session")
    kinds = {name: value for name, value in vars(session).items() if re.fullmatch(r"Any[A-Z]\w+", name)}
    lines = ["Arguments of several kinds", "-" * 26, ""]
    for name, value in kinds.items():
        lines += [f"``{name}``", f"    {' '.join(str(value).split())}", ""]
    return lines


def with_code(text: str) -> str:
    """A docstring whose indented passages are code for Sphinx too."""
    return re.sub(r"(?m)^(?=\S)(.*[.:])\n\n(?=    \S)", r"\1\n\n.. code-block:: python\n\n", text)


def _directive(name: str, value: object) -> list[str]:
    if inspect.isclass(value):
        errors = ["   :show-inheritance:"] if issubclass(value, Exception) else []
        return [f".. autoclass:: {name}", "   :members:", *errors]
    if inspect.isroutine(value):
        return [f".. autofunction:: {name}"]
    return [f".. py:data:: {name}", f"   :type: {type(value).__name__}"]


# --- all together -----------------------------------------------------------------------------------------------------


def gather(source: Path) -> None:
    """Write the source of the site.

    Raises:
        LinkError: a document links to nothing.
    """
    from nvattest.cli.manual import pages as man_pages

    def write(path: str, text: str) -> None:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text, encoding="utf-8")

    for page in pages():
        write(place(page), rewritten(page, (ROOT / page).read_text(encoding="utf-8")))
    for picture in ROOT.glob("examples/*.svg"):
        shutil.copy(picture, source / "examples")
    for folder in folders():
        write(f"files/{label(folder)}.md", files_page(folder))
    manual = man_pages()
    for name, roff in manual.items():
        write(f"man/{name.removesuffix('.1')}.md", man_page(roff))
    documented: set[object] = set()
    for module in MODULES:
        write(f"api/{module}.rst", api_page(module, documented))
    write("man/index.md", _contents("Man pages", [name.removesuffix(".1") for name in manual], depth=1))
    write("api/index.md", _contents("API reference", list(MODULES), depth=2))
    write("files/index.md", _contents("Files of the examples", [label(folder) for folder in folders()], depth=2))
    menu = "".join(_tree(name, chapter) for name, chapter in CHAPTERS.items())
    with open(source / "index.md", "a", encoding="utf-8") as index:
        index.write(menu)


def _tree(caption: str, entries: dict[str, str]) -> str:
    lines = [f"{title} <{page}>" for title, page in entries.items()]
    return "\n".join(["", "```{toctree}", f":caption: {caption}", ":hidden:", "", *lines, "```", ""])


def _contents(title: str, entries: list[str], *, depth: int) -> str:
    return "\n".join([f"# {title}", "", "```{toctree}", f":maxdepth: {depth}", "", *entries, "```", ""])


def main(folder: Path) -> int:
    source, html = folder / "source", folder / "html"
    for path in (source, html):
        shutil.rmtree(path, ignore_errors=True)
    gather(source)
    sphinx = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--jobs", "auto"]
    folders_of_sphinx = ["--conf-dir", str(HERE), "--doctree-dir", str(folder / "doctrees"), str(source), str(html)]
    done = subprocess.run([*sphinx, *folders_of_sphinx], check=False)
    if done.returncode == 0:
        print(html / "index.html")
    return done.returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
