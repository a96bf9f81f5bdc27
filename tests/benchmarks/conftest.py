"""``make bench`` runs every ``bench_*.py`` here; the tables go to stdout, and nothing is asserted about time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# For what they share, ``measure.py``.
sys.path.insert(0, str(Path(__file__).parent))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Benchmarks are not called test_*.py, so that nobody takes them for tests."""
    if file_path.suffix == ".py" and file_path.name.startswith("bench_"):
        # A file named on the command line is collected by pytest itself.
        if parent.session.isinitpath(file_path):
            return None
        module: pytest.Module = pytest.Module.from_parent(parent, path=file_path)
        return module
    return None
