"""The site of the documents is built without a network, and a warning is an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_extra_of_the_site_brings_what_the_documented_modules_import() -> None:
    # pytest is no dependency of the library, and nvattest.testing documents its fixture.
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"pytest>' in next(line for line in text.splitlines() if line.startswith("docs = "))


def test_the_site_is_built_whole(tmp_path: Path) -> None:
    for name in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(name, reason="the extra docs is not installed: make docs builds the site")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/docs/build.py"), str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    html = tmp_path / "html"
    assert "Verify NVIDIA confidential GPUs" in (html / "index.html").read_text(encoding="utf-8")
    assert "nvattest.verify" in (html / "api/nvattest.html").read_text(encoding="utf-8")
    assert "measurements" in (html / "searchindex.js").read_text(encoding="utf-8")
    for page in html.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        # Nothing of a page is loaded from elsewhere.
        assert 'src="http' not in text, page
        assert 'rel="stylesheet" href="http' not in text, page
