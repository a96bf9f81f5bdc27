"""A campaign: every target of ``hunt.py`` in turn, as many rounds as there is time for, and a table of the executions.

    python tests/attack/fuzz/campaign.py [--seconds 30] [--rounds 1] [--corpus FOLDER] [--only TARGET]... [--results FILE]

``--corpus`` keeps what libFuzzer found, so that the next campaign goes on from there. ``--results`` adds the counts to
those of earlier campaigns of the same commit. The exit status is the number of targets with a finding; what was found
lies in ``CORPUS/findings`` and is printed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HUNT = Path(__file__).with_name("hunt.py")
# The whole verification is slower than a parser by its signatures; these get more of the time.
WEIGHTS = {"verification": 2.0, "verification-chain": 2.0, "rim": 2.0}


def targets() -> list[str]:
    """The names of all targets."""
    listed = subprocess.run([sys.executable, str(HUNT), "--list"], capture_output=True, text=True, check=True)
    return listed.stdout.partition(":")[2].split()


def run(target: str, seconds: float, corpus: Path) -> tuple[int, float, str]:
    """Fuzz one target: executions, executions per second, and the finding as text, empty if there was none."""
    findings = corpus / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, str(HUNT), target, f"-max_total_time={int(seconds)}", f"-artifact_prefix={findings}/{target}-",
        str(corpus / target),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    count = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    rate = re.search(r"stat::average_exec_per_sec:\s*(\d+)", done.stderr)
    text = ""
    if done.returncode:
        at = max(done.stderr.find("Uncaught Python exception"), 0)
        text = done.stderr[at:][-6000:] if at == 0 else done.stderr[at : at + 6000]
    return int(count[1]) if count else 0, float(rate[1]) if rate else 0.0, text


def commit() -> str:
    """The commit of the tree, with a plus if it was changed."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=9"], cwd=HUNT.parent, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description="fuzz every target in turn")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    counts: dict[str, int] = {}
    if options.results is not None and options.results.exists():
        counts = json.loads(options.results.read_text())
    found: dict[str, str] = {}
    names = options.only or targets()
    with tempfile.TemporaryDirectory(prefix="nvattest-campaign-") as temporary:
        corpus = options.corpus or Path(temporary)
        for _ in range(options.rounds):
            for target in names:
                done, rate, finding = run(target, options.seconds * WEIGHTS.get(target, 1.0), corpus)
                counts[target] = counts.get(target, 0) + done
                print(f"{target:24} {done:>12,} executions {rate:>10,.0f}/s  {'FOUND' if finding else ''}", flush=True)
                if finding:
                    found[target] = finding
                    print(finding, flush=True)
                if options.results is not None:
                    options.results.write_text(json.dumps(counts, indent=1) + "\n")
        print(f"\ncommit {commit()}\n\n| Target | Executions |\n| --- | ---: |")
        for target, count in counts.items():
            print(f"| `{target}` | {count:,} |")
        print(f"| all | {sum(counts.values()):,} |")
    return len(found)


if __name__ == "__main__":
    sys.exit(main())
