"""What ``compare_peers.py`` measures with: processes with their CPU time and peak memory, and tables."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A process inherits the peak memory of the one that starts it, so a small one stands in between.
_LAUNCHER = """
import os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
wall = time.perf_counter() - start
status = os.waitstatus_to_exitcode(status)
print("\\n%.6f %.6f %.3f %d" % (wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, status))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one process: seconds of wall and CPU time (user and system), and peak memory in MB."""

    wall: float
    cpu: float
    rss: float


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    statuses: tuple[int, ...] = (0,),
) -> tuple[Cost, str]:
    """Run a program; its cost and what it wrote to stdout.

    Raises:
        RuntimeError: it ended with another status than expected.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command],
        env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=True,
    )  # fmt: skip
    output, _, last = done.stdout.rstrip("\n").rpartition("\n")
    wall, cpu, rss, status = (float(word) for word in last.split())
    returncode = int(status)
    if returncode not in statuses:
        raise RuntimeError(f"{command[0]} ended with {returncode}:\n{output[-3000:]}")
    return Cost(wall=wall, cpu=cpu, rss=rss), output


def median_cost(costs: Sequence[Cost]) -> Cost:
    """The median of each column; the peak of memory."""
    return Cost(
        wall=statistics.median(cost.wall for cost in costs),
        cpu=statistics.median(cost.cpu for cost in costs),
        rss=max(cost.rss for cost in costs),
    )


def heading(title: str) -> None:
    """A title with date, machine and versions: a number without them says nothing."""
    import cryptography

    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(
        f"\n### {title}\n\n{datetime.now(timezone.utc):%Y-%m-%d}, {model}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, cryptography {cryptography.__version__}\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    cells = [list(head), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in cells]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print("\n".join(lines), flush=True)


def ms(seconds: float) -> str:
    """Seconds as milliseconds with a sensible number of digits."""
    value = seconds * 1000
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
