"""Bundles as folders: what is found, what is read for it, what is refused, and several bundles as one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest._system import HAS_FOLDERS
from nvattest.appraisal.inputs import Collateral
from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.collateral import bundle
from nvattest.collateral.bundle import (
    Bundle,
    Bundles,
    by_serial,
    dump_bundle,
    load_bundle,
    serial_of,
    write_folder,
)
from nvattest.collateral.gather import rim_ids_of
from nvattest.errors import InputError, ParseError
from nvattest.model import Nonce
from nvattest.testing import SimulatedFleet

NODES = 80


@pytest.fixture(scope="module")
def fleet() -> SimulatedFleet:
    return SimulatedFleet(NODES)


@pytest.fixture(scope="module")
def made(fleet: SimulatedFleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    fleet.write_bundle(str(folder))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def shard_of(serial: int) -> int:
    """The place of a serial number among the three shards of this fleet."""
    return int.from_bytes(hashlib.sha256(f"{serial:x}".encode()).digest()[:8], "big") % 3


def change(folder: Path, **members: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def test_every_answer_is_found_by_its_serial_number_and_equal_content_gives_equal_files(
    fleet: SimulatedFleet, made: Path, tmp_path: Path
) -> None:
    whole = fleet.collateral()
    opened = Bundle(str(made))
    opened.check()
    assert len(list(made.glob("ocsp-*"))) == 3
    assert {name: rim.content for name, rim in opened.shared.rims.items()} == {
        n: r.content for n, r in whole.rims.items()
    }
    for serial, answers in by_serial(whole.ocsp).items():
        assert [item.content for item in opened.answers([serial])] == [item.content for item in answers]
    assert opened.answers([1, 2, 3]) == ()
    parts = list(opened.parts())
    assert {item.content for part in parts for item in part.ocsp} == {item.content for item in whole.ocsp}
    fleet.write_bundle(str(tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == opened.names == {file.name for file in made.iterdir()}
    jsonschema.Draft202012Validator(json.loads(schema_bytes("bundle-folder-1.json"))).validate(
        json.loads((made / "manifest.json").read_text())
    )
    for file in made.glob("*-*.json"):
        load_bundle(file.read_bytes())


def test_a_platform_costs_the_shards_of_its_certificates(fleet: SimulatedFleet, folder: Path) -> None:
    verifier = Verifier(anchors=fleet.platform.trust_anchors())
    devices = verifier.read(fleet.evidence(7))
    bundles = Bundles([str(folder)])
    found = bundles.collateral(devices, rim_ids_of(devices), memory_of(verifier))
    assert len(found.ocsp) < 10
    nonce = Nonce(fleet.nonce(7))
    assert verifier.appraise(devices, nonce=nonce, collateral=found, at=fleet.platform.time).trusted
    # Shards are read when something in them is wanted, and not before.
    opened = Bundle(str(folder))
    serials = {shard_of(s): s for s in by_serial(fleet.collateral().ocsp)}
    for file in folder.glob("ocsp-0000-*.json"):
        file.unlink()
    assert opened.answers([serials[1]])
    with pytest.raises(InputError, match="ocsp-0000"):
        opened.answers([serials[0]])
    with pytest.raises(InputError, match="ocsp-0000"):
        opened.check()


def test_few_shards_stay_in_memory(fleet: SimulatedFleet, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = bundle.read_bounded
    monkeypatch.setattr(bundle, "read_bounded", lambda path, most: read.append(path) or real(path, most))
    monkeypatch.setattr(bundle, "_KEPT_BYTES", 1)
    one = Bundle(str(made))
    serials = {shard_of(s): s for s in by_serial(fleet.collateral().ocsp)}
    read.clear()
    for number in (0, 0, 1, 0):
        assert one.answers([serials[number]])
    assert len(read) == 3
    monkeypatch.setattr(bundle, "_KEPT_BYTES", 2**20)
    roomy = Bundle(str(made))
    read.clear()
    for number in (0, 1, 0, 1):
        assert roomy.answers([serials[number]])
    assert len(read) == 2


def test_a_damaged_shard_is_refused_where_it_is_read(fleet: SimulatedFleet, folder: Path) -> None:
    serials = {shard_of(s): s for s in by_serial(fleet.collateral().ocsp)}
    (damaged,) = folder.glob("ocsp-0001-*.json")
    damaged.write_bytes(damaged.read_bytes() + b" ")
    opened = Bundle(str(folder))
    assert opened.answers([serials[0]])
    for look in (lambda: opened.answers([serials[1]]), opened.check, lambda: list(opened.parts())):
        with pytest.raises(ParseError, match="does not have its digest"):
            look()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"format": "nvattest-bundle"}, "'format'"),
        ({"version": 2}, "version 2"),
        ({"version": True}, "version True"),
        ({"shards": []}, "'shards' must be"),
        ({"shards": {}}, "'shards' must be"),
        ({"shards": [None] * 4097}, "'shards' must be"),
        ({"shards": ["ocsp-0000"]}, "shards\\[0\\]"),
        ({"shards": [{"file": "../ocsp-0000-0123456789abcdef.json", "sha256": "0" * 64}]}, "shards\\[0\\]"),
        ({"rims": None}, "rims"),
        ({"rims": {"file": "/etc/passwd", "sha256": "0" * 64}}, "rims"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(folder: Path, members: dict[str, object], message: str) -> None:
    change(folder, **members)
    with pytest.raises(InputError, match=message):
        Bundle(str(folder))


def linked_file(file: Path) -> None:
    file.rename(file.with_suffix(".elsewhere"))
    file.symlink_to(file.with_suffix(".elsewhere"))


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.skipif(not HAS_FOLDERS, reason="this system has no trusted folders")
@pytest.mark.parametrize("pattern", ["manifest.json", "rims-*.json", "ocsp-*.json"])
@pytest.mark.parametrize("change", [lambda file: file.chmod(0o646), linked_file, fifo], ids=["written", "link", "fifo"])
def test_no_file_of_a_trusted_folder_is_one_that_others_could_change(
    folder: Path, pattern: str, change: Callable[[Path], None]
) -> None:
    change(next(folder.glob(pattern)))
    with pytest.raises(InputError) as caught:
        Bundle(str(folder), trusted=True).check()
    assert caught.value.code == "bundle"


@pytest.mark.skipif(not HAS_FOLDERS, reason="this system has no trusted folders")
def test_a_trusted_folder_is_opened_once_and_what_takes_its_place_is_not_read(
    fleet: SimulatedFleet, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    serials = sorted(by_serial(fleet.collateral().ocsp))
    opened = Bundle(str(folder), trusted=True)
    folder.rename(tmp_path_factory.mktemp("moved") / "away")
    folder.mkdir()
    assert len(opened.answers(serials)) == len(serials)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json"):
        Bundles([str(tmp_path)])


def test_a_file_of_the_folder_that_is_damaged_is_written_again(fleet: SimulatedFleet, folder: Path) -> None:
    for damaged in folder.glob("*-*.json"):
        damaged.write_bytes(damaged.read_bytes()[:-3])
    fleet.write_bundle(str(folder))
    Bundle(str(folder)).check()


def test_a_bundle_that_no_reader_would_take_does_not_replace_the_old_one(
    fleet: SimulatedFleet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "manifest.json").read_bytes()
    monkeypatch.setattr("nvattest.collateral.bundle.MAXIMUM_RIMS", 1)
    with pytest.raises(InputError, match="'rims' has 2 items"):
        SimulatedFleet(NODES + 1, seed=1).write_bundle(str(folder))
    assert (folder / "manifest.json").read_bytes() == before


def test_who_has_opened_a_bundle_can_read_it_while_the_next_is_written(fleet: SimulatedFleet, folder: Path) -> None:
    opened = Bundle(str(folder))
    whole = fleet.collateral()
    first = {file.name for file in folder.iterdir()}
    serials = sorted(by_serial(whole.ocsp))

    def rewrite(keep: int) -> None:
        kept = {item.content: serial_of(item.content) or 0 for item in whole.ocsp}
        write_folder(str(folder), whole, {k: v for k, v in kept.items() if v in serials[:keep]}, bytes)

    rewrite(20)
    assert all(opened.answers([serial]) for serial in serials)
    assert first < {file.name for file in folder.iterdir()}
    rewrite(25)
    assert not {file.name for file in folder.glob("ocsp-*")} & first
    assert len(list(folder.glob("ocsp-*"))) == 2


def test_files_and_folders_are_one_bundle(fleet: SimulatedFleet, folder: Path, tmp_path: Path) -> None:
    whole = fleet.collateral()
    rims, answers = tmp_path / "rims.json", tmp_path / "answers.json"
    rims.write_text(json.dumps(dump_bundle(Collateral(rims=whole.rims))))
    answers.write_text(json.dumps(dump_bundle(Collateral(ocsp=whole.ocsp))))
    write_folder(str(folder), Collateral(), {item.content: serial_of(item.content) for item in whole.ocsp}, bytes)
    verifier = Verifier(anchors=fleet.platform.trust_anchors())
    devices, nonce = verifier.read(fleet.evidence(3)), Nonce(fleet.nonce(3))
    for paths, trusted in (
        ([str(rims), str(folder)], True),
        ([str(folder), str(rims), str(answers)], True),
        ([str(rims), str(answers)], True),
        ([str(folder)], False),
        ([str(rims)], False),
    ):
        found = Bundles(paths).collateral(devices, rim_ids_of(devices), memory_of(verifier))
        result = verifier.appraise(devices, nonce=nonce, collateral=found, at=fleet.platform.time)
        assert result.trusted is trusted, paths


def test_two_documents_for_one_rim_id_are_refused(fleet: SimulatedFleet, made: Path, tmp_path: Path) -> None:
    whole = fleet.collateral()
    name, rim = next(iter(whole.rims.items()))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(dump_bundle(Collateral(rims={name: replace(rim, content=b"<other/>")}))))
    with pytest.raises(InputError, match="two different documents"):
        Bundles([str(made), str(other)])
