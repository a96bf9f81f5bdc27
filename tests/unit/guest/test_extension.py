"""The extension image: the same bytes as veritysetup's, the same image twice, and every change of it refused."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from nvattest.errors import InputError
from nvattest.guest.extension import BLOCK, VerityParams, check_extension, parse_verity_params, write_extension

# Both sides of one and of two levels of hashes, and sizes that fill no block.
SIZES = [BLOCK + 1, 128 * BLOCK - 1, 128 * BLOCK, 128 * BLOCK + 1, 300 * BLOCK + 17]


def made(folder: Path, size: int) -> tuple[Path, VerityParams]:
    (folder / "data").write_bytes(hashlib.shake_256(str(size).encode()).digest(size))
    image = folder / "extension.img"
    return image, write_extension(str(folder / "data"), str(image))


def partitions(image: Path) -> tuple[bytes, bytes]:
    data = image.read_bytes()
    places = [struct.unpack_from("<II", data, 454 + 16 * index) for index in range(2)]
    first, second = (data[512 * start : 512 * (start + size)] for start, size in places)
    return first, second


@pytest.mark.parametrize("size", SIZES)
def test_the_image_holds_the_data_and_is_the_same_twice(tmp_path: Path, size: int) -> None:
    image, params = made(tmp_path, size)
    check_extension(str(image), params)
    first, _ = partitions(image)
    assert first == (tmp_path / "data").read_bytes().ljust(params.data_blocks * BLOCK, b"\0")
    before = image.read_bytes()
    assert made(tmp_path, size) == (image, params)
    assert image.read_bytes() == before
    assert len(before) % (1024 * 1024) == 0


@pytest.mark.skipif(shutil.which("veritysetup") is None, reason="veritysetup is not here (Debian: cryptsetup-bin)")
@pytest.mark.parametrize("size", SIZES)
def test_veritysetup_makes_the_same_tree_and_verifies_ours(tmp_path: Path, size: int) -> None:
    image, params = made(tmp_path, size)
    for name, content in zip(("p1", "p2"), partitions(image), strict=True):
        (tmp_path / name).write_bytes(content)
    common = ["--no-superblock", "--hash", "sha256", "--data-block-size", "4096", "--hash-block-size", "4096"]
    common += ["--data-blocks", str(params.data_blocks), "--salt", params.salt]
    places = [str(tmp_path / "p1"), str(tmp_path / "p2")]
    subprocess.run(["veritysetup", "verify", *common, *places, params.root_hash], check=True, timeout=60)
    theirs = ["veritysetup", "format", *common, places[0], str(tmp_path / "theirs")]
    said = subprocess.run(theirs, check=True, capture_output=True, text=True, timeout=60).stdout
    assert params.root_hash in said
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "p2").read_bytes()


@pytest.mark.skipif(shutil.which("sfdisk") is None, reason="sfdisk is not here (Debian: fdisk)")
def test_sfdisk_reads_the_partition_table(tmp_path: Path) -> None:
    image, params = made(tmp_path, SIZES[-1])
    said = subprocess.run(["sfdisk", "--dump", str(image)], check=True, capture_output=True, text=True).stdout
    assert "label: dos" in said
    assert f"start=        2048, size=        {params.data_blocks * 8}, type=83" in said
    assert said.count("type=83") == 2


def test_every_changed_byte_of_data_and_tree_is_refused(tmp_path: Path) -> None:
    image, params = made(tmp_path, SIZES[-1])
    good = image.read_bytes()
    (start, size), (tree, tree_size) = (struct.unpack_from("<II", good, 454 + 16 * index) for index in range(2))
    places = [512 * start, 512 * (start + size) - 1, 512 * tree, 512 * (tree + tree_size) - 1, 512 * tree + 3 * BLOCK]
    for place in places:
        changed = bytearray(good)
        changed[place] ^= 1
        image.write_bytes(changed)
        with pytest.raises(InputError) as refused:
            check_extension(str(image), params)
        assert refused.value.code == "extension-image"
    image.write_bytes(good)
    for other in (params._replace(root_hash="0" * 64), params._replace(salt="00"), params._replace(data_blocks=3)):
        with pytest.raises(InputError):
            check_extension(str(image), other)


@pytest.mark.parametrize(
    "change", ["", "short", "no signature", "one partition", "data outside"],
)  # fmt: skip
def test_what_is_no_image_is_refused_with_the_reason(tmp_path: Path, change: str) -> None:
    image, params = made(tmp_path, SIZES[0])
    data = bytearray(image.read_bytes())
    if change == "short":
        data = data[:100]
    elif change == "no signature":
        data[511] = 0
    elif change == "one partition":
        data[466:482] = bytes(16)
    elif change == "data outside":
        struct.pack_into("<I", data, 458, 1)
    else:
        data = bytearray()
    image.write_bytes(data)
    with pytest.raises(InputError, match=str(image)):
        check_extension(str(image), params)


def test_a_file_system_without_a_second_block_is_refused(tmp_path: Path) -> None:
    for size in (0, 1, BLOCK):
        with pytest.raises(InputError, match="2 to"):
            made(tmp_path, size)
    with pytest.raises(InputError, match="nowhere"):
        write_extension(str(tmp_path / "nowhere"), str(tmp_path / "x"))


def test_the_five_fields_are_read_as_they_are_written(tmp_path: Path) -> None:
    _, params = made(tmp_path, SIZES[0])
    text = str(params)
    assert [item.partition("=")[0] for item in text.split(",")] == [
        "root_hash", "salt", "data_blocks", "data_block_size", "hash_block_size",
    ]  # fmt: skip
    assert parse_verity_params(text + "\n") == params


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",hash_block_size=4096", "", "hash_block_size is missing"),
        ("salt=", "sal=", "'sal="),
        ("data_blocks=2", "data_blocks=2,data_blocks=2", "twice"),
        ("data_blocks=2", "data_blocks=0", "two blocks"),
        ("data_blocks=2", "data_blocks=-2", "decimal"),
        ("data_blocks=2", "data_blocks=" + "9" * 40, "decimal"),
        ("data_block_size=4096", "data_block_size=512", "4096 bytes"),
        ("root_hash=", "root_hash=zz", "no SHA-256"),
        ("salt=", "salt=z", "not hexadecimal"),
    ],
)
def test_fields_that_nvrc_would_stop_at_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    _, params = made(tmp_path, SIZES[0])
    text = str(params)
    assert old in text
    with pytest.raises(InputError, match=words) as refused:
        parse_verity_params(text.replace(old, new))
    assert refused.value.code == "verity-params"
