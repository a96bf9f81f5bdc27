"""What the page on the library shows runs as it is written there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nvattest.appraisal.results import Appraisal

ROOT = Path(__file__).resolve().parents[2]
NONCE = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
AT = "device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"


def blocks() -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```", (ROOT / "examples/library.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_every_python_block_compiles() -> None:
    for number, block in enumerate(blocks()):
        compile(block, f"library.md, block {number}", "exec")


def test_the_library_example_verifies_a_real_gpu(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nvattest.cli import main

    [example] = [block for block in blocks() if 'Path("bundle.json")' in block]
    # Ten lines besides what belongs to the reader's own output.
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    (tmp_path / "evidence.json").write_bytes((real_data / "evidence/hopper-550.90.07-nvtrust.json").read_bytes())
    (tmp_path / "nonce.txt").write_text(NONCE + "\n")
    (tmp_path / "at.txt").write_text(AT + "\n")
    create = ["bundle", "create", "--rim-dir", str(real_data / "rim"), "--ocsp-dir", str(real_data / "ocsp")]
    assert main([*create, "--output", str(tmp_path / "bundle.json")]) == 0
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    names: dict[str, object] = {}
    exec(compile(example, "library.md", "exec"), names)  # noqa: S102 - the page is ours
    appraisal = names["appraisal"]
    assert isinstance(appraisal, Appraisal)
    assert appraisal.trusted
    assert capsys.readouterr().out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"evidence.json", "nonce.txt", "at.txt", "bundle.json"}
