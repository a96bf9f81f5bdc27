"""The command line. Each command is a module that is imported only when it runs; start-up is part of the product."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nvattest`` with these arguments (``sys.argv`` by default) and return its exit status."""
    from nvattest.cli.dispatch import run

    return run(list(sys.argv[1:] if argv is None else argv))
