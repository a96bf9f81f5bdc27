"""The fleet example on a local Ray cluster of two workers: 10,000 nodes, one answer each, a killed worker included.

Ray is no dependency of ours, not even for development: without it in this environment, name the interpreter of one that
has it and nvattest in NVATTEST_RAY_PYTHON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fleet"


@pytest.mark.soak
def test_ten_thousand_nodes_have_one_answer_each_though_a_worker_is_killed(tmp_path: Path) -> None:
    python = os.environ.get("NVATTEST_RAY_PYTHON")
    if not python:
        if importlib.util.find_spec("ray") is None:
            pytest.skip("ray is not installed, and NVATTEST_RAY_PYTHON names no interpreter that has it")
        python = sys.executable
    nodes = 10_000
    done = subprocess.run(
        [python, str(EXAMPLE / "soak.py"), "--nodes", str(nodes), "--grave", str(tmp_path / "grave")],
        cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, stdout=subprocess.PIPE, text=True, timeout=900,
    )  # fmt: skip
    result = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0
    assert result["answers"] == nodes
    assert result["trusted"] == nodes - nodes // 100
    assert result["each_once_in_order_and_right"]
    assert result["a_worker_was_killed"]
