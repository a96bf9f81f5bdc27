"""``nvattest --help``: one screen of 24 lines and 80 columns, the three most used commands first."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

MOST_USED = ("attest", "explain", "doctor")

_EXAMPLES = {
    "attest": ("verify this machine's GPUs, or evidence in a file", "nvattest attest --device all"),
    "explain": ("say what a result, token, code or check means", "nvattest explain result.json"),
    "doctor": ("say what this machine is and what is wrong with it", "nvattest doctor --online"),
}


def overview(commands: Mapping[str, tuple[str, str]]) -> str:
    """The help of the whole program, from the table of its commands."""
    lines = [
        "usage: nvattest [-f text|json] [-l LEVEL] COMMAND [options]",
        "",
        "Verify NVIDIA confidential GPUs and NVSwitches.",
        "",
    ]
    for name in MOST_USED:
        if name in commands:
            text, example = _EXAMPLES[name]
            lines += [f"  {name:<10}{text}", f"  {'':<10}  $ {example}"]
    others = [name for name in commands if name not in MOST_USED]
    lines += ["", *textwrap.wrap("also: " + ", ".join(others), 78, initial_indent="  ", subsequent_indent="        ")]
    lines += [
        "",
        "  $ nvattest attest --simulate         a whole node without a GPU, to try it",
        "  $ nvattest COMMAND --help             the options of one command",
        "",
        "  -f, --format text|json   -l, --log-level trace|debug|info|warn|error|off",
        "  Exit status: NVIDIA's result code modulo 256; 0 is trusted, 12 is not trusted.",
    ]
    return "\n".join(lines)
