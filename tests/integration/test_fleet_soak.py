"""The fleet workflow of examples/fleet.md at its size: 10,000 different GPUs, both long steps killed and resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from nvattest._waiting import WORKERS
from nvattest.model import format_time
from nvattest.testing import SimulatedFleet
from nvattest.testing.services import Services

NODES = int(os.environ.get("NVATTEST_SOAK_NODES", "10000"))
# Every hundredth node is asked with another nonce than its evidence answers, and must not be trusted.
ODD = 100


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "nvattest", *words]


def kill_at(words: list[str], path: Path, size: int) -> float:
    """Start a command and kill it with its children when a file of its own is so large; returns the seconds."""
    start = time.perf_counter()
    with subprocess.Popen(words, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        while not path.exists() or path.stat().st_size < size:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    return time.perf_counter() - start


def finish(words: list[str], said: Path) -> tuple[float, int]:
    """Run a command to its end, its stderr into a file; returns the seconds, and the megabytes of its largest process."""
    start, peak = time.perf_counter(), 0
    with said.open("w") as file, subprocess.Popen(words, stderr=file) as process:
        # Not ru_maxrss: that of a child begins with its parent's.
        while process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            with suppress(OSError):
                for pid in [str(process.pid), *children.read_text().split()]:
                    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                    peak = max(peak, int(found[1]) if found else 0)
            time.sleep(0.05)
    assert process.returncode == 0, said.read_text()
    return time.perf_counter() - start, peak // 1024


@pytest.mark.soak
def test_ten_thousand_gpus_go_through_the_fleet_workflow_and_nothing_is_lost(tmp_path: Path) -> None:
    start = time.perf_counter()
    fleet = SimulatedFleet(NODES)
    nodes, roots, bundle, answers = (tmp_path / name for name in ("nodes.jsonl", "roots.pem", "bundle", "out.jsonl"))
    roots.write_bytes(fleet.platform.anchors_pem)
    with nodes.open("wb") as file:
        for index in range(NODES):
            line = fleet.line(index)
            if index % ODD == ODD - 1:
                line = line.replace(fleet.nonce(index).hex().encode(), bytes(32).hex().encode())
            file.write(line + b"\n")
    figures: dict[str, object] = {"nodes": NODES, "making_s": round(time.perf_counter() - start, 1)}
    said = tmp_path / "stderr"
    common = ["--trust-anchors", str(roots), "--at", format_time(fleet.platform.clock)]
    with Services(fleet.platform) as services:
        urls = ["--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url]
        fetch = command("bundle", "fetch", "--input", str(nodes), "--output", str(bundle), *urls, *common)
        # An answer takes some 3 kB of the journal.
        first = kill_at(fetch, bundle / "journal.jsonl", NODES * 1500)
        kept = (bundle / "journal.jsonl").read_bytes().count(b"\n") - 1
        assert 0 < kept < NODES
        rest, megabytes = finish(fetch, said)
        asked = Counter(item.key for item in services.log)
        # What was under way when it was killed is asked for again, and nothing else.
        assert sum(asked.values()) - len(asked) <= WORKERS
        assert len(asked) >= NODES
        figures |= {
            "fetch_s": round(first + rest, 1), "fetch_nodes_per_s": round(NODES / (first + rest)), "fetch_mb": megabytes,
            "requests": sum(asked.values()), "asked_twice": sum(asked.values()) - len(asked),
        }  # fmt: skip
        services.forget()
        refreshed, _ = finish(command("bundle", "refresh", str(bundle), "--input", str(nodes), *urls, *common), said)
        assert services.log == []
        figures["refresh_s"] = round(refreshed, 1)
    files = [file for file in bundle.iterdir() if file.is_file()]
    figures |= {"bundle_mb": round(sum(file.stat().st_size for file in files) / 1e6, 1), "bundle_files": len(files)}
    summary = tmp_path / "sums.json"
    judge = command(
        "verify-batch", "--input", str(nodes), "--output", str(answers), "--bundle", str(bundle), "--workers", "2",
        "--summary", str(summary), *common,
    )  # fmt: skip
    first = kill_at(judge, answers, NODES * 300)
    before = answers.read_bytes().count(b"\n")
    assert 0 < before < NODES
    rest, megabytes = finish([*judge, "--resume"], said)
    found = [json.loads(line) for line in answers.read_bytes().splitlines()]
    expected = [(f"node-{index}", index % ODD != ODD - 1) for index in range(NODES)]
    assert [(answer["id"], answer["trusted"]) for answer in found] == expected
    assert len({answer["devices"][0]["ueid"] for answer in found}) == NODES
    assert said.read_text().startswith(
        f"{NODES} lines: {NODES - NODES // ODD} trusted, {NODES // ODD} not trusted, 0 bad lines"
    )
    assert json.loads(summary.read_text())["failures"] == {"nonce": NODES // ODD}
    figures |= {
        "verify_s": round(first + rest, 1),
        "verify_nodes_per_s": round(NODES / (first + rest)),
        "verify_mb": megabytes,
    }
    print(json.dumps(figures))
