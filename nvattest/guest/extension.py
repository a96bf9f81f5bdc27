"""A guest extension image: a disk with a file system, its dm-verity hash tree, and the five fields that Kata measures.

    sector 0          MBR: two partitions, a disk id from the root hash
    1 MiB             partition 1: the file system (EROFS), padded to whole blocks
    next whole MiB    partition 2: the hash tree without a superblock, the topmost level first

The tree is what ``veritysetup format --no-superblock --hash sha256`` writes: version 1, the salt before each block.
Everything follows from the file system's bytes, so equal file systems make equal images. No root and no loop device.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import BinaryIO, Final, NamedTuple

from nvattest.errors import InputError

__all__ = ["BLOCK", "VerityParams", "check_extension", "parse_verity_params", "write_extension"]

BLOCK: Final = 4096
_DIGEST: Final = 32
_SECTOR: Final = 512
_MEBIBYTE: Final = 1024 * 1024
_LINUX: Final = 0x83
_MAXIMUM_BLOCKS: Final = 4 * 1024 * 1024 * 1024 // BLOCK
_FIELDS: Final = ("root_hash", "salt", "data_blocks", "data_block_size", "hash_block_size")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")
# The CHS fields of an entry, which nothing reads any more, say "use the sector numbers".
_NO_CHS: Final = b"\xfe\xff\xff"


class VerityParams(NamedTuple):
    """What the kernel needs to open the image; a ``str`` of it is the value of ``verity_params``."""

    root_hash: str
    salt: str
    data_blocks: int
    data_block_size: int = BLOCK
    hash_block_size: int = BLOCK

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in zip(_FIELDS, self, strict=True))


def parse_verity_params(text: str) -> VerityParams:
    """Read the five fields, as NVRC does: each once, none missing, none that it does not know.

    Raises:
        InputError: anything else (``verity-params``).
    """
    found: dict[str, str] = {}
    for item in text.strip().split(","):
        name, equals, value = item.partition("=")
        if name not in _FIELDS or not equals or name in found:
            raise _bad(f"{item[:60]!r} is no field, or is there twice; there are {', '.join(_FIELDS)}")
        found[name] = value
    missing = [name for name in _FIELDS if name not in found]
    if missing:
        raise _bad(f"{', '.join(missing)} is missing")
    numbers = [found[name] for name in _FIELDS[2:]]
    if not all(number.isascii() and number.isdecimal() and len(number) < 16 for number in numbers):
        raise _bad("block sizes and data_blocks are decimal numbers")
    if not _HEX.fullmatch(found["root_hash"]) or len(found["root_hash"]) != 2 * _DIGEST:
        raise _bad(f"root_hash is no SHA-256 in hexadecimal: {found['root_hash'][:80]!r}")
    if found["salt"] not in ("", "-") and not _HEX.fullmatch(found["salt"]):
        raise _bad(f"salt is not hexadecimal: {found['salt'][:80]!r}")
    params = VerityParams(found["root_hash"].lower(), found["salt"].lower(), *(int(number) for number in numbers))
    if params.data_block_size != BLOCK or params.hash_block_size != BLOCK or params.data_blocks < 2:
        raise _bad(f"there are at least two blocks, and blocks have {BLOCK} bytes")
    return params


def write_extension(file_system: str, target: str) -> VerityParams:
    """Write the image of a file system and return what goes into the runtime's configuration.

    Raises:
        InputError: the file system is empty or too large (``extension-image``), or a file cannot be read or written.
    """
    try:
        with open(file_system, "rb") as source:
            blocks = -(-os.fstat(source.fileno()).st_size // BLOCK)
            # One block has no tree; no file system is that small.
            if not 1 < blocks <= _MAXIMUM_BLOCKS:
                raise _wrong(file_system, f"a file system has 2 to {_MAXIMUM_BLOCKS} blocks, not {blocks}")
            # From the content alone: another content has another salt, and the same content the same image.
            salt = _digest_of(source, blocks)
            source.seek(0)
            root, tree = _tree(_blocks(source, blocks), salt)
        params = VerityParams(root.hex(), salt.hex(), blocks)
        start = _MEBIBYTE
        hashes = start + -(-blocks * BLOCK // _MEBIBYTE) * _MEBIBYTE
        with open(file_system, "rb") as source, open(target, "wb") as disk:
            disk.write(_boot_record(root, (start, blocks * BLOCK), (hashes, len(tree))))
            disk.seek(start)
            disk.writelines(_blocks(source, blocks))
            disk.seek(hashes)
            disk.write(tree)
            disk.truncate(-(-(hashes + len(tree)) // _MEBIBYTE) * _MEBIBYTE)
    except OSError as error:
        raise _wrong(error.filename or target, error.strerror or str(error)) from None
    return params


def check_extension(path: str, params: VerityParams) -> None:
    """Compute the hash tree of the image and compare it with the one on it and with the root hash.

    Raises:
        InputError: the image is not what the parameters say (``extension-image``), or cannot be read.
    """
    try:
        with open(path, "rb") as disk:
            data, hashes = _partitions(disk, path)
            if params.data_blocks * BLOCK > data[1]:
                raise _wrong(path, f"its first partition has {data[1]} bytes, fewer than {params.data_blocks} blocks")
            salt = b"" if params.salt == "-" else bytes.fromhex(params.salt)
            disk.seek(data[0])
            root, tree = _tree(_blocks(disk, params.data_blocks), salt)
            if len(tree) > hashes[1]:
                raise _wrong(
                    path, f"its second partition has {hashes[1]} bytes, fewer than the {len(tree)} of the tree"
                )
            disk.seek(hashes[0])
            on_disk = disk.read(len(tree))
    except OSError as error:
        hint = (
            "run this where the image lies at the path that nodes have it at: its content is compared with its fields"
        )
        raise _wrong(path, error.strerror or str(error), hint) from None
    if root.hex() != params.root_hash:
        raise _wrong(path, f"its content has the root hash {root.hex()}, not {params.root_hash}")
    if on_disk != tree:
        raise _wrong(path, "the hash tree on it is not that of its content")


def _tree(blocks: Iterator[bytes], salt: bytes) -> tuple[bytes, bytes]:
    """The root hash and the tree, level by level from the top."""
    hasher = sha256(salt)

    def digest(block: bytes) -> bytes:
        copy = hasher.copy()
        copy.update(block)
        return copy.digest()

    levels = [_level(blocks, digest)]
    while len(levels[0]) > BLOCK:
        levels.insert(0, _level(_chunks(levels[0]), digest))
    return digest(levels[0]), b"".join(levels)


def _level(blocks: Iterable[bytes], digest: Callable[[bytes], bytes]) -> bytes:
    level = b"".join(digest(block) for block in blocks)
    return level.ljust(-(-len(level) // BLOCK) * BLOCK, b"\0")


def _chunks(level: bytes) -> Iterator[bytes]:
    for at in range(0, len(level), BLOCK):
        yield level[at : at + BLOCK]


def _blocks(source: BinaryIO, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield source.read(BLOCK).ljust(BLOCK, b"\0")


def _digest_of(source: BinaryIO, count: int) -> bytes:
    digest = sha256()
    for block in _blocks(source, count):
        digest.update(block)
    return digest.digest()


def _boot_record(root: bytes, *partitions: tuple[int, int]) -> bytes:
    entries = b"".join(
        struct.pack("<B3sB3sII", 0, _NO_CHS, _LINUX, _NO_CHS, start // _SECTOR, size // _SECTOR)
        for start, size in partitions
    )
    return b"\0" * 440 + root[:4] + b"\0\0" + entries.ljust(64, b"\0") + b"\x55\xaa"


def _partitions(disk: BinaryIO, path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    record = disk.read(_SECTOR)
    if len(record) != _SECTOR or record[510:] != b"\x55\xaa":
        raise _wrong(path, "it has no partition table: NVRC needs a file system on partition 1 and its hashes on 2")
    found = []
    for index in range(2):
        kind, start, size = record[450 + 16 * index], *struct.unpack_from("<II", record, 454 + 16 * index)
        if not kind or not size:
            raise _wrong(path, f"it has no partition {index + 1}: NVRC stops the guest where one is missing")
        found.append((start * _SECTOR, size * _SECTOR))
    return found[0], found[1]


def _bad(message: str) -> InputError:
    return InputError(f"verity parameters: {message}", code="verity-params")


def _wrong(path: str, message: str, hint: str = "") -> InputError:
    return InputError(f"{path}: {message}", code="extension-image", hint=hint)
