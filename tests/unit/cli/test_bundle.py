"""``nvattest bundle create`` and ``inspect``: what is in, what is refused, and that nothing is half written."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from nvattest.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def call(*argv: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_a_bundle_holds_every_file_under_its_id_and_equal_content_gives_equal_bytes(
    run, real_data: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / "a.json", tmp_path / "b.json"]
    for output in outputs:
        argv = (
            "bundle",
            "create",
            "--rim-dir",
            real_data / "rim",
            "--ocsp-dir",
            real_data / "ocsp",
            "--output",
            output,
        )
        assert run(*argv)[0] == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    document = json.loads(outputs[0].read_bytes())
    files = {path.stem: path.read_bytes() for path in (real_data / "rim").iterdir()}
    assert {rim["id"]: base64.b64decode(rim["content"]) for rim in document["rims"]} == files
    answers = {base64.b64decode(answer["content"]) for answer in document["ocsp"]}
    assert answers == {path.read_bytes() for path in (real_data / "ocsp").iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_a_bundle_can_be_made_of_rims_alone_and_of_answers_alone(run, real_data: Path, tmp_path: Path) -> None:
    for option, folder, counts in (("--rim-dir", "rim", (4, 0)), ("--ocsp-dir", "ocsp", (0, 7))):
        output = tmp_path / f"{folder}.json"
        assert run("bundle", "create", option, real_data / folder, "--output", output)[0] == 0
        document = json.loads(output.read_bytes())
        assert (len(document["rims"]), len(document["ocsp"])) == counts


def test_inspect_says_what_is_in_it_and_what_ends_first(run, real_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.json"
    run("bundle", "create", "--rim-dir", real_data / "rim", "--ocsp-dir", real_data / "ocsp", "--output", output)
    status, text, _ = run("bundle", "inspect", output)
    assert status == 0
    assert "4 RIMs, 7 revocation answers" in text
    assert "NV_GPU_DRIVER_GH100_550.90.07: GH100 GPU 550.90.07, 21 golden values" in text
    assert text.rstrip().endswith("2025-08-22T06:47:07Z")
    status, text, _ = run("-f", "json", "bundle", "inspect", output)
    assert status == 0
    assert len(json.loads(text)["rims"]) == 4


def test_inspect_lists_a_file_that_cannot_be_read_with_its_fault(run, tmp_path: Path) -> None:
    (tmp_path / "rims").mkdir()
    (tmp_path / "rims/NV_X.xml").write_text("<!DOCTYPE x><x/>")
    output = tmp_path / "b.json"
    status, text, _ = run("bundle", "create", "--rim-dir", tmp_path / "rims", "--output", output)
    assert status == 0
    assert "NV_X" in text
    assert "RIM" in text


def test_a_file_name_that_is_no_rim_id_is_refused_and_nothing_is_written(run, tmp_path: Path) -> None:
    (tmp_path / "rims").mkdir()
    (tmp_path / "rims/a b.xml").write_text("<x/>")
    status, out, err = run("bundle", "create", "--rim-dir", tmp_path / "rims", "--output", tmp_path / "b.json")
    assert (status, out) == (4, "")
    assert "not a RIM id" in err
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("kind", ["fifo", "huge", "folder"])
def test_what_is_no_plain_small_file_is_refused_and_nothing_is_written(run, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "rims"
    folder.mkdir()
    path = folder / "NV_X.xml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(4 << 30)
    status, out, err = run("bundle", "create", "--rim-dir", folder, "--output", tmp_path / "b.json")
    assert (status, out) == (4, "")
    assert str(path) in err
    assert [item.name for item in tmp_path.iterdir()] == ["rims"]


def test_a_place_that_cannot_be_written_is_said_and_leaves_nothing(run, real_data: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "no/such/b.json", tmp_path):
        status, _, err = run("bundle", "create", "--ocsp-dir", real_data / "ocsp", "--output", output)
        assert status == 4
        assert str(output) in err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_replaced_whole_or_kept(run, real_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.json"
    output.write_text("old")
    assert run("bundle", "create", "--rim-dir", tmp_path / "none", "--output", output)[0] == 105
    assert output.read_text() == "old"
    assert run("bundle", "create", "--ocsp-dir", real_data / "ocsp", "--output", output)[0] == 0
    assert json.loads(output.read_bytes())["format"] == "nvattest-bundle"


def test_inspect_of_no_bundle_is_a_bad_argument(run, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    for data in (b"", b"[]", b"{}", b'{"format": "nvattest-bundle", "version": 9}'):
        path.write_bytes(data)
        status, out, err = run("bundle", "inspect", path)
        assert (status, out) == (4, "")
        assert err.startswith("Error 004: Bad Argument: bundle")
