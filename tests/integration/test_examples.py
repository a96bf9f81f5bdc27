"""Every command in the documents of ``examples/`` runs, document by document, in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DOCUMENTS = (
    "quick-start.md", "relying-party.md", "air-gapped.md", "fleet.md", "migrate.md", "one-verdict.md",
    "web-service/README.md",
)  # fmt: skip


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "EXAMPLES": str(EXAMPLES),
        "HOME": str(folder),
    }
    return subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_commands_of_a_document_run(name: str, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None or not (Path(sys.executable).parent / "nvattest").exists():
        pytest.skip("there is no bash, or nvattest is not installed beside this Python")
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert blocks
    # One shell for all blocks: later ones use variables and files of earlier ones.
    result = run([bash, "-e", "-o", "pipefail", "-c", "\n".join(blocks)], tmp_path)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr
    # What the document shows of the output, line by line; three dots stand for the rest.
    for block in re.findall(r"^```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            assert line.removesuffix("...").rstrip() in result.stdout, line


def test_the_library_example_runs_and_tells_a_bad_node_from_a_good_one(tmp_path: Path) -> None:
    for name, fault, status in (("good", [], 0), ("bad", ["gpu0:measurement=9"], 12)):
        made = run([sys.executable, str(EXAMPLES / "simulated_files.py"), name, "hopper-1", *fault], tmp_path)
        assert made.returncode == 0, made.stderr
        result = run([sys.executable, str(EXAMPLES / "library.py"), name], tmp_path)
        assert result.returncode == status, result.stderr


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_and_options_in_the_text_exist(name: str) -> None:
    from nvattest.cli import COMMANDS, command_parser

    text = re.sub(r"^```.*?^```$", "", (EXAMPLES / name).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`(?:nvattest )?([a-z][a-z-]+ [^`]*)`", text.replace("\n", " ")):
        command, *words = span.split()
        if command not in COMMANDS or command == "bundle":  # whose options are those of its own commands
            continue
        known = command_parser(command).format_help()
        for option in (word for word in words if word.startswith("--")):
            assert option in known, span
