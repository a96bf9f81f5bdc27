"""Every command and every program text of the README and of the pages behind it runs, in a simulated world.

How a shell block is read:

- ``# in the guest`` as its first line: the commands need a guest with the hook. Their options are checked, nothing is run.
- ``make`` is not run from within a test: its targets must exist. ``python examples/…`` and everything else is run.
- ``exit status N`` in a comment is demanded; without it the status must be 0.

A block with a file name in its first line (``# policy.toml``) is that file. A ``text`` block is a command after ``$`` and what it
prints; ``...`` stands for lines that are left out.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nvattest
from nvattest.errors import TokenError
from nvattest.testing import Platform

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
# Pages for a machine with GPUs; those for any machine are tried in integration/test_examples.py.
PAGES = (README, *(ROOT / "examples" / name for name in ("operator.md", "library.md", "simulation.md")))
PROGRAMS = Path(sys.executable).parent
IN_THE_GUEST = "# in the guest\n"

# All devices here are simulated; the commands that take the word of others refuse them unless an option accepts them.
PRELUDE = """
nvattest() {
    case "$1" in
        attest | verify-token) command nvattest "$@" --accept-simulated ;;
        verify-batch) command nvattest "$@" --trust-anchors "$NVATTEST_TRUST_ANCHORS" --workers 1 ;;
        *) command nvattest "$@" ;;
    esac
}
# The lines of a fleet: a node that is well, and one that answered another nonce.
nvattest collect-evidence --nonce "$(printf '11%.0s' {1..32})" > node.json
for node in a-11 b-22; do
    printf '{"id": "%s", "nonce": "%s", "evidence": %s}\\n' "${node%-*}" "$(printf "${node#*-}%.0s" {1..32})" "$(tr -d '\\n' < node.json)"
done > nodes.jsonl
"""


def blocks(language: str) -> list[str]:
    return [
        block
        for page in PAGES
        for block in re.findall(
            rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
    ]


def shell_lines() -> list[str]:
    return [line for block in blocks("sh") if not block.startswith(IN_THE_GUEST) for line in block.splitlines()]


def prepare(folder: Path) -> None:
    """What a reader has: the examples, and the pages' own files."""
    (folder / "examples").symlink_to(ROOT / "examples")
    for block in blocks("toml"):
        name, _, text = block.partition("\n")
        (folder / name.removeprefix("# ")).write_text(text, encoding="utf-8")


def once(lines: list[str]) -> list[str]:
    """Lines without those whose command is among the earlier ones: the pages repeat what a reader needs first."""
    first: dict[str, str] = {}
    for line in lines:
        first.setdefault(line.partition("    # ")[0].strip(), line)
    return list(first.values())


def demanded(line: str) -> str:
    """A line whose comment names an exit status, as a command that succeeds on exactly that one."""
    command, _, comment = line.partition("    # ")
    status = re.search(r"exit status (\d+)", comment)
    return f"status=0; {command} || status=$?; [ $status = {status[1]} ]" if status else line


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NVAT", "NV_"))}
    environment |= {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    return subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def played(folder: Path) -> Path:
    """The folder after all shell blocks were run, one after the other in one shell."""
    bash = shutil.which("bash")
    if bash is None or not (PROGRAMS / "nvattest").exists():
        pytest.skip("there is no bash, or nvattest is not installed beside this Python")
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("there is no C compiler for the simulated driver library")
    pytest.importorskip("jinja2", reason="the extra report is not installed")
    pytest.importorskip("regopy", reason="the extra rego is not installed")
    prepare(folder)
    script = folder / "readme.sh"
    commands = [demanded(line) for line in once(shell_lines()) if not line.startswith("make ")]
    script.write_text("\n".join((PRELUDE, *commands, "")), encoding="utf-8")
    # -x: the last line of stderr that begins with + is the command that failed.
    done = run(["nvattest", "simulate", "--", bash, "-e", "-x", "-o", "pipefail", str(script)], folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def test_every_command_runs_in_a_simulated_world(tmp_path: Path) -> None:
    folder = played(tmp_path)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["appraisal"]["simulated"] is True
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(answer["id"], answer["trusted"]) for answer in answers] == [("a", True), ("b", False)]


@pytest.mark.parametrize("block", blocks("text"))
def test_what_is_shown_is_what_is_printed(block: str, tmp_path: Path) -> None:
    command, *shown = block.splitlines()
    program, *arguments = shlex.split(command.removeprefix("$ "))
    assert program == "nvattest"
    done = run([sys.executable, "-m", program, *arguments], tmp_path)
    assert done.returncode == (12 if "--fault" in arguments else 0), done.stderr
    printed = "\n" + done.stdout
    for passage in "\n".join(shown).split("\n...\n"):
        found = printed.find("\n" + passage + "\n")
        assert found >= 0, f"not printed, or not in this order:\n{passage}"
        printed = printed[found + len(passage) + 1 :]


def test_a_good_and_a_failed_verdict_are_shown() -> None:
    assert ["TRUSTED (simulated)" in block for block in blocks("text")] == [True, False]
    assert ["NOT TRUSTED" in block for block in blocks("text")] == [False, True]


def test_what_make_is_asked_for_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    words = re.findall(r"^make ([^#\n]+)", "\n".join(blocks("sh")), re.MULTILINE)
    named = {word for line in words for word in line.split()}
    assert {"demo", "test"} <= named
    assert named - targets == set()


def test_commands_for_the_guest_have_arguments_that_exist() -> None:
    from nvattest.guest.arguments import parse_arguments

    lines = [line for block in blocks("sh") if block.startswith(IN_THE_GUEST) for line in block.splitlines()[1:]]
    named = []
    for line in lines:
        program, *rest = shlex.split(line, comments=True)
        # What the guest layer has: there is no nvattest in it.
        assert program == "nvattest-hook"
        named.append(parse_arguments(rest).stage)
    assert named == ["status", "check", "gate"]


def test_commands_in_the_text_exist() -> None:
    from nvattest.cli import COMMANDS

    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    text = re.sub(r"^```.*?^```$", "", pages, flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`nvattest ([a-z][a-z-]+)", text))
    assert named <= set(COMMANDS)
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target


def test_the_library_example_verifies_a_simulated_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = [block for block in blocks("python") if 'Path("bundle.json")' in block]
    platform = Platform.build("hopper-1")
    nonce = bytes(range(32))
    files = {
        "evidence.json": platform.evidence_json(None, nonce),
        "bundle.json": json.dumps(platform.bundle()),
        "nonce.txt": nonce.hex(),
        "at.txt": str(platform.time),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    monkeypatch.chdir(tmp_path)
    code = compile(example, "library.md", "exec")
    with pytest.raises(nvattest.NotTrustedError):
        exec(code, {})  # noqa: S102 - the page is ours; the default anchors refuse what is simulated
    trusting = functools.partial(nvattest.verify, anchors=platform.trust_anchors())
    monkeypatch.setattr(nvattest, "verify", trusting, raising=False)
    exec(code, {})  # noqa: S102


def test_the_relying_party_s_example_refuses_a_simulated_token_until_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = [block for block in blocks("python") if "verify_token" in block]
    nonce = bytes(range(32)).hex()
    [line] = [line for line in shell_lines() if "--token-out" in line]
    words = shlex.split(line.replace("$NONCE", nonce))[1:]
    assert run([sys.executable, "-m", "nvattest", *words, "--simulate"], tmp_path).returncode == 0
    (tmp_path / "nonce.txt").write_text(nonce + "\n", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    code = compile(example, "library.md", "exec")
    with pytest.raises(TokenError) as refused:
        exec(code, {})  # noqa: S102
    assert refused.value.code == "simulated"
    monkeypatch.setattr(nvattest, "verify_token", functools.partial(nvattest.verify_token, accept_simulated=True))
    exec(code, {})  # noqa: S102
    assert capsys.readouterr().out == "trusted 12 devices\n"


def test_the_examples_of_a_test_are_collected_by_pytest_and_pass(tmp_path: Path) -> None:
    for number, example in enumerate(block for block in blocks("python") if "def test_" in block):
        (tmp_path / f"test_my_gate_{number}.py").write_text(example, encoding="utf-8")
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."], tmp_path)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_names_to_migrate_to_can_be_imported() -> None:
    [example] = [block for block in blocks("python") if "nvattest.compat" in block]
    exec(compile(example, "library.md", "exec"), {})  # noqa: S102
