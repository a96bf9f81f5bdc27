"""The page on the code is true: its rooms are those of the package, and its walks are what runs, in this order."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import nvattest
from nvattest.cli import main
from nvattest.evidence import dump_evidence
from nvattest.testing import Platform
from nvattest.testing.services import Services

from . import walking

PAGE = Path(__file__).resolve().parents[2] / "examples/architecture.md"
NONCE = bytes(range(32))


def rows(heading: str) -> list[tuple[str, str]]:
    """The cells of the first two columns of the first table after this text."""
    table = PAGE.read_text(encoding="utf-8").partition(heading)[2].strip().partition("\n\n")[0]
    return [
        (first.strip(), second.strip()) for first, second in re.findall(r"^\| (.*?) \| (.*?) \|$", table, re.MULTILINE)
    ][2:]


def walks() -> dict[str, list[str]]:
    """The steps of each walk, by the first words of its heading."""
    found = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n### ")[1:]:
        name, _, text = part.partition("\n")
        found[name.partition(",")[0]] = re.findall(r"^\d+\. `([\w.]+:[\w.]+)` ", text, re.MULTILINE)
    return found


WALKS = walks()
REPORT, ANSWER, HOOK, TOKEN = WALKS.values()


def first_missing(steps: list[str], called: list[str]) -> str | None:
    """The first step that was not called after the one before it."""
    rest = iter(called)
    return next((step for step in steps if step not in rest), None)


def test_the_page_has_the_four_walks() -> None:
    assert {name: len(steps) > 9 for name, steps in WALKS.items()} == dict.fromkeys(
        ("A report", "A revocation answer", "A run of the hook", "A token"), True
    )


@pytest.mark.parametrize("step", sorted({step for steps in WALKS.values() for step in steps}))
def test_each_step_of_a_walk_can_be_imported(step: str) -> None:
    assert callable(walking.resolve(step))


def test_the_rooms_of_the_table_are_those_of_the_package() -> None:
    named = [name for cell, _ in rows("(architecture.svg)") for name in re.findall(r"`(\w+)`", cell)]
    package = Path(nvattest.__file__).parent
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(named) == sorted(rooms - {"__init__"} | {"nvattest"})


def test_ten_concerns_and_more_are_found_by_the_name_of_a_room() -> None:
    found = [room.strip("`") for _, room in rows("(`fleet` and `_system` are one file each):")]
    package = Path(nvattest.__file__).parent
    assert len({room for room in found if (package / room).is_dir()}) >= 10
    assert all((package / room).is_dir() or (package / f"{room}.py").is_file() for room in found)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Platform, Path]:
    """A simulated GPU, and its evidence, bundle and roots as files."""
    folder, platform = tmp_path_factory.mktemp("walks"), Platform.build("hopper-1")
    (folder / "evidence.json").write_text(json.dumps(dump_evidence(platform.evidence(NONCE))))
    (folder / "bundle.json").write_text(json.dumps(platform.bundle()))
    (folder / "roots.pem").write_bytes(platform.anchors_pem)
    return platform, folder


def attest(platform: Platform, folder: Path, *more: str) -> list[str]:
    return [
        "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", str(folder / "evidence.json"),
        "--trust-anchors", str(folder / "roots.pem"), "--at", str(platform.time), "--nonce", NONCE.hex(), *more,
    ]  # fmt: skip


def test_a_report_goes_this_way(files: tuple[Platform, Path]) -> None:
    with walking.calls(REPORT) as called:
        assert main(attest(*files, "--bundle", str(files[1] / "bundle.json"))) == 0
    assert first_missing(REPORT, called) is None


def test_a_revocation_answer_goes_this_way(files: tuple[Platform, Path]) -> None:
    with Services(files[0]) as services, walking.calls(ANSWER) as called:
        urls = ["--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url]
        assert main(attest(*files, "--no-cache", *urls)) == 0
    assert first_missing(ANSWER, called) is None


def test_a_token_goes_this_way(files: tuple[Platform, Path]) -> None:
    folder = files[1]
    token, keys = str(folder / "token.json"), str(folder / "jwks.json")
    with walking.calls(TOKEN) as called:
        made = attest(*files, "--bundle", str(folder / "bundle.json"), "--token-out", token, "--jwks-out", keys)
        assert main(made) == 0
        verify = ["verify-token", "--token-file", token, "--jwks", keys, "--nonce", NONCE.hex(), "--accept-simulated"]
        assert main(verify) == 0
    assert first_missing(TOKEN, called) is None


def test_a_run_of_the_hook_goes_this_way(world, tmp_path: Path) -> None:
    guest, noted = world("hopper-1"), tmp_path / "noted"
    begin = (
        f"import sys\nsys.path.append({str(Path(walking.__file__).parent)!r})\nimport walking\n"
        f"walking.into({str(noted)!r}, {HOOK!r})\n"
    )
    guest.hook.write_text(guest.hook.read_text().replace("import sys\n", begin, 1))
    guest.run()
    assert guest.ready == 1
    assert first_missing(HOOK, noted.read_text().splitlines()) is None


def test_a_walk_in_another_order_is_noticed() -> None:
    assert first_missing(["a", "b", "a"], ["a", "x", "b", "b", "a"]) is None
    assert first_missing(["b", "a"], ["a", "b"]) == "a"
    assert first_missing(["a", "gone"], ["a"]) == "gone"
