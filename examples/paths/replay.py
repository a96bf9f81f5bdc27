"""Play the paths of six users against the installed program, and compare what it prints.

    python examples/paths/replay.py [--record] [PATH.txt ...]

A path is a transcript of one shell: a command after ``$``, its further lines after ``>``, what it prints on both
streams, and ``[status N]`` where it fails. ``...`` stands for lines that are left out, ``<time>``, ``<hex>`` and the
like for what is different each time. ``--record`` writes the outputs anew that are no longer right; look at the
difference.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent
SECONDS = 120

# What is different each time, by the word that stands for it. The first that fits counts.
PLACEHOLDERS = {
    "<key>": r"(?<![\w-])[\w-]{43}(?![\w-])",
    "<time>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
    "<seconds>": r"\b\d+(?:\.\d+)? ?(?:s|ms)\b",
    "127.0.0.1:<port>": r"127\.0\.0\.1:\d+",
    "<hex>": r"\b[0-9a-f]{16,}\b…?",
    "<version>": r"(?<=nvattest )\d+\.\d+\.\d+(?:\.\w+)?|(?<=nvattest-hook )\d+\.\d+\.\d+(?:\.\w+)?",
}


class Step(NamedTuple):
    """One command and what is expected of it."""

    command: str
    output: list[str]


def read(path: Path) -> tuple[list[str], list[Step]]:
    """The lines before the first command, and the steps."""
    head: list[str] = []
    steps: list[Step] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:], []))
        elif (line == ">" or line.startswith("> ")) and steps and not steps[-1].output:
            steps[-1] = Step(f"{steps[-1].command}\n{line[2:]}", [])
        else:
            (steps[-1].output if steps else head).append(line)
    # The empty line before the next command belongs to the page, not to the program.
    return head, [Step(step.command, _trimmed(step.output)) for step in steps]


def _trimmed(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


def play(steps: list[Step], folder: Path) -> list[list[str]]:
    """Run all commands in one shell, one after the other; the lines that each of them prints."""
    mark = "--- end of step ---"
    end = ["} 2>&1", 'status=$?; [ $status = 0 ] || echo "[status $status]"', f"echo '{mark}'"]
    script = "\n".join(line for step in steps for line in (f"{{ {step.command}", *end))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NVAT", "NV_"))}
    environment = kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "EXAMPLES": str(EXAMPLES),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "80",
    }
    bash = shutil.which("bash") or "bash"
    done = subprocess.run(
        [bash, "-c", script], cwd=folder, env=environment, stdout=subprocess.PIPE, timeout=SECONDS, check=False
    )
    text = done.stdout.decode("utf-8").replace(str(folder), "<folder>").replace(str(EXAMPLES), "$EXAMPLES")
    return [_trimmed(part.strip("\n").splitlines()) for part in text.split(mark)[:-1]]


def settled(lines: list[str]) -> list[str]:
    """Lines with the placeholders in the place of what is different each time."""
    text = "\n".join(lines)
    for word, pattern in PLACEHOLDERS.items():
        text = re.sub(pattern, word, text)
    return text.splitlines()


def fits(expected: list[str], printed: list[str]) -> bool:
    """Whether the lines are the expected ones; ``...`` takes any lines, none included."""
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in expected)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


def replay(path: Path, *, record: bool = False) -> list[str]:
    """What is not as the transcript says; empty where all of it is. With ``record`` it is as it says afterwards."""
    head, steps = read(path)
    with tempfile.TemporaryDirectory() as folder:
        outputs = play(steps, Path(folder))
    wrong, lines = [], head
    for step, output in zip(steps, map(settled, outputs), strict=True):
        good = fits(step.output, output)
        if not good:
            wrong.append("\n".join([f"{path.name}: $ {step.command}", *output]))
        typed = "\n".join(f"> {more}".rstrip() for more in step.command.split("\n"))
        lines += ["$" + typed[1:], *(step.output if good else output), ""]
    if record:
        path.write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")
        return []
    return wrong


def main(arguments: list[str]) -> int:
    record = "--record" in arguments
    paths = [Path(argument) for argument in arguments if argument != "--record"] or sorted(HERE.glob("*.txt"))
    wrong = [text for path in paths for text in replay(path, record=record)]
    print("\n\n".join(wrong) or f"{len(paths)} paths are as they say")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
