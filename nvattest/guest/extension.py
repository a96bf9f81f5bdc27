"""A guest extension image: the disk with its dm-verity hash tree, and the manifest of what an agent starts from it.

    sector 0          MBR: two partitions, a disk id from the root hash
    1 MiB             partition 1: the file system (EROFS), padded to whole blocks
    next whole MiB    partition 2: the hash tree without a superblock, the topmost level first

The tree is what ``veritysetup format --no-superblock --hash sha256`` writes: version 1, the salt before each block.
Everything follows from the file system's bytes, so equal file systems make equal images. No root and no loop device.

The manifest, ``etc/kata-extensions/components.toml``, is read of the extension ``coco`` alone, by agents of 4.x. The
agent starts its processes before it serves anything; most mistakes end the agent, which as process 1 ends the guest,
and the others start nothing and leave no message. This reader follows the agent's rules, so that both kinds are found
before a guest is started.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, BinaryIO, Final, NamedTuple

from nvattest.errors import InputError
from nvattest.guest.config import Paths
from nvattest.guest.record import read_as

# --- the image --------------------------------------------------------------------------------------------------------

BLOCK: Final = 4096
_DIGEST: Final = 32
_SECTOR: Final = 512
_MEBIBYTE: Final = 1024 * 1024
_LINUX: Final = 0x83
_MAXIMUM_BLOCKS: Final = 4 * 1024 * 1024 * 1024 // BLOCK
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
        return ",".join(f"{name}={value}" for name, value in zip(self._fields, self, strict=True))


def parse_verity_params(text: str) -> VerityParams:
    """Read the five fields, as NVRC does: each once, none missing, none that it does not know.

    Raises InputError: anything else (``verity-params``).
    """
    found: dict[str, str] = {}
    names = VerityParams._fields
    for item in text.strip().split(","):
        name, equals, value = item.partition("=")
        if name not in names or not equals or name in found:
            raise _bad_params(f"{item[:60]!r} is no field, or is there twice; there are {', '.join(names)}")
        found[name] = value
    missing = [name for name in names if name not in found]
    if missing:
        raise _bad_params(f"{', '.join(missing)} is missing")
    numbers = [found[name] for name in names[2:]]
    if not all(number.isascii() and number.isdecimal() and len(number) < 16 for number in numbers):
        raise _bad_params("block sizes and data_blocks are decimal numbers")
    if not _HEX.fullmatch(found["root_hash"]) or len(found["root_hash"]) != 2 * _DIGEST:
        raise _bad_params(f"root_hash is no SHA-256 in hexadecimal: {found['root_hash'][:80]!r}")
    if found["salt"] not in ("", "-") and not _HEX.fullmatch(found["salt"]):
        raise _bad_params(f"salt is not hexadecimal: {found['salt'][:80]!r}")
    params = VerityParams(found["root_hash"].lower(), found["salt"].lower(), *(int(number) for number in numbers))
    if params.data_block_size != BLOCK or params.hash_block_size != BLOCK or params.data_blocks < 2:
        raise _bad_params(f"there are at least two blocks, and blocks have {BLOCK} bytes")
    return params


def write_extension(file_system: str, target: str) -> VerityParams:
    """Write the image of a file system and return what goes into the runtime's configuration.

    Raises InputError: the file system is empty or too large (``extension-image``), or a file cannot be read or written.
    """
    try:
        with open(file_system, "rb") as source:
            blocks = -(-os.fstat(source.fileno()).st_size // BLOCK)
            # One block has no tree; no file system is that small.
            if not 1 < blocks <= _MAXIMUM_BLOCKS:
                raise _bad_image(file_system, f"a file system has 2 to {_MAXIMUM_BLOCKS} blocks, not {blocks}")
            # From the content alone: another content has another salt, and the same content the same image.
            content = sha256()
            for block in _blocks(source, blocks):
                content.update(block)
            salt = content.digest()
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
        raise _bad_image(error.filename or target, error.strerror or str(error)) from None
    return params


def check_extension(path: str, params: VerityParams) -> None:
    """Compute the hash tree of the image and compare it with the one on it and with the root hash.

    Raises InputError: the image is not what the parameters say (``extension-image``), or cannot be read.
    """
    try:
        with open(path, "rb") as disk:
            data, hashes = _partitions(disk, path)
            if params.data_blocks * BLOCK > data[1]:
                raise _bad_image(
                    path, f"its first partition has {data[1]} bytes, fewer than {params.data_blocks} blocks"
                )
            salt = b"" if params.salt == "-" else bytes.fromhex(params.salt)
            disk.seek(data[0])
            root, tree = _tree(_blocks(disk, params.data_blocks), salt)
            if len(tree) > hashes[1]:
                raise _bad_image(
                    path, f"its second partition has {hashes[1]} bytes, fewer than the {len(tree)} of the tree"
                )
            disk.seek(hashes[0])
            on_disk = disk.read(len(tree))
    except OSError as error:
        hint = (
            "run this where the image lies at the path that nodes have it at: its content is compared with its fields"
        )
        raise _bad_image(path, error.strerror or str(error), hint) from None
    if root.hex() != params.root_hash:
        raise _bad_image(path, f"its content has the root hash {root.hex()}, not {params.root_hash}")
    if on_disk != tree:
        raise _bad_image(path, "the hash tree on it is not that of its content")


def _tree(blocks: Iterable[bytes], salt: bytes) -> tuple[bytes, bytes]:
    """The root hash and the tree, level by level from the top."""
    hasher = sha256(salt)

    def digest(block: bytes) -> bytes:
        copy = hasher.copy()
        copy.update(block)
        return copy.digest()

    tree = b""
    while True:
        level = b"".join(map(digest, blocks))
        level = level.ljust(-(-len(level) // BLOCK) * BLOCK, b"\0")
        tree = level + tree
        if len(level) <= BLOCK:
            return digest(level), tree
        blocks = [level[at : at + BLOCK] for at in range(0, len(level), BLOCK)]


def _blocks(source: BinaryIO, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield source.read(BLOCK).ljust(BLOCK, b"\0")


def _boot_record(root: bytes, *partitions: tuple[int, int]) -> bytes:
    entries = b"".join(
        struct.pack("<B3sB3sII", 0, _NO_CHS, _LINUX, _NO_CHS, start // _SECTOR, size // _SECTOR)
        for start, size in partitions
    )
    return b"\0" * 440 + root[:4] + b"\0\0" + entries.ljust(64, b"\0") + b"\x55\xaa"


def _partitions(disk: BinaryIO, path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    record = disk.read(_SECTOR)
    if len(record) != _SECTOR or record[510:] != b"\x55\xaa":
        raise _bad_image(path, "it has no partition table: NVRC needs a file system on partition 1 and its hashes on 2")
    found = []
    for index in range(2):
        kind, start, size = record[450 + 16 * index], *struct.unpack_from("<II", record, 454 + 16 * index)
        if not kind or not size:
            raise _bad_image(path, f"it has no partition {index + 1}: NVRC stops the guest where one is missing")
        found.append((start * _SECTOR, size * _SECTOR))
    return found[0], found[1]


def _bad_params(message: str) -> InputError:
    return InputError(f"verity parameters: {message}", code="verity-params")


def _bad_image(path: str, message: str, hint: str = "") -> InputError:
    return InputError(f"{path}: {message}", code="extension-image", hint=hint)


# --- the manifest -----------------------------------------------------------------------------------------------------

MANIFEST: Final = "etc/kata-extensions/components.toml"
"""Below the mount point of the extension."""
PROGRAM: Final = "usr/share/oci/hooks/prestart/nvattest-hook"
VARIABLES: Final = (
    "aa_attestation_uri", "aa_attestation_socket", "aa_config_path", "cdh_config_path", "cdh_socket",
    "ocicrypt_config_path", "rest_api_features", "launch_process_timeout", "initdata_toml_path", "extension_root",
    "attester_variant",
)  # fmt: skip
"""What the agent puts into texts of the manifest, as ``${name}``."""

# It exists only while a verdict is good.
_TOKEN: Final = f"{Paths.RUN}/{Paths.TOKEN}"
_MAXIMUM: Final = 256 * 1024
_VARIABLE: Final = re.compile(r"\$\{([^}]*)(\}?)")
_HEADER: Final = re.compile(r"(?m)^[ \t]*\[\[[ \t]*process[ \t]*\]\][ \t]*(?:#.*)?$")


class Variant(NamedTuple):
    """One flavour of a process; what it has is added to, or takes the place of, the process's own."""

    path: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}  # noqa: RUF012 - a default of a tuple that nothing changes


class Addition(NamedTuple):
    """Arguments that a process gets where the variable ``when`` has a value."""

    when: str
    args: tuple[str, ...]


class Process(NamedTuple):
    """One ``[[process]]`` as it is written. ``unknown`` are keys that the agent ignores."""

    id: str
    level: int = 0
    path: str | None = None
    select: str | None = None
    variants: dict[str, Variant] = {}  # noqa: RUF012 - as above
    args: tuple[str, ...] = ()
    optional_args: tuple[Addition, ...] = ()
    config: str | None = None
    env: dict[str, str] = {}  # noqa: RUF012 - as above
    wait_socket: str | None = None
    timeout_secs: str | None = None
    unknown: tuple[str, ...] = ()


class Manifest(NamedTuple):
    """A manifest that the agent accepts."""

    paths: dict[str, str]
    processes: tuple[Process, ...]


class Launch(NamedTuple):
    """A process as the agent starts it: paths are absolute, variables have their values."""

    id: str
    path: str
    args: tuple[str, ...]
    config: str | None
    env: Mapping[str, str]
    wait_socket: str | None
    timeout_secs: int


def read_manifest(data: bytes, *, source: str = MANIFEST) -> Manifest:
    """Read a manifest as the agent does.

    Raises InputError: what the agent refuses (``extension-manifest``). The guest would be powered off.
    """
    from nvattest._documents import load_toml

    document = load_toml(data, source=source, maximum=_MAXIMUM)
    version, entries = document.get("schema_version"), document.get("process", [])
    if type(version) is not int or version != 1:
        raise _bad_manifest(source, f"schema_version is not the number 1 at the top level, found {version!r}")
    try:
        paths = read_as(dict[str, str], document.get("paths", {}), "paths")
        return Manifest(paths, tuple([_process(item) for item in read_as(list, entries, "process")]))
    except TypeError as error:
        raise _bad_manifest(source, str(error)) from None


def _process(entry: Any) -> Process:
    table = read_as(dict, entry, "process")
    unknown = sorted(set(table) - set(Process._fields[:-1]))
    process: Process = read_as(Process, {**table, "unknown": unknown}, f"process {table.get('id')!r}"[:120])
    if not 0 <= process.level < 2**32:
        raise TypeError(f"process {process.id!r}: level is no number from 0 on, found {process.level}")
    return process


def launch_plan(manifest: Manifest, variables: Mapping[str, str], *, most: int, root: str) -> tuple[Launch, ...]:
    """What the agent starts, in its order: processes of level 1 to ``most``, with paths below ``root``.

    Raises InputError: a variable or variant that there is not, no path, a path that leaves the image, a timeout that is
    no number (``extension-manifest``). The guest would be powered off.
    """
    if "ocicrypt-config" not in manifest.paths:
        raise _bad_manifest("[paths]", "there is no ocicrypt-config, which the agent asks the extension coco for")
    return tuple(_launch(item, variables, root) for item in manifest.processes if 1 <= item.level <= most)


def _launch(process: Process, variables: Mapping[str, str], root: str) -> Launch:
    where = f"process {process.id!r}"

    def filled(text: str) -> str:
        def value(found: re.Match[str]) -> str:
            if not found[2] or found[1] not in variables:
                known = ", ".join(sorted(variables))
                raise _bad_manifest(where, f"there is no variable ${{{found[1][:60]}}}; there are {known}")
            return variables[found[1]]

        return _VARIABLE.sub(value, text)

    variant = Variant()
    if process.variants:
        chosen = filled(process.select or "") or "default"
        if chosen not in process.variants:
            raise _bad_manifest(
                where, f"there is no variant {chosen!r}; there are {', '.join(sorted(process.variants))}"
            )
        variant = process.variants[chosen]
    path = variant.path or process.path
    if path is None:
        raise _bad_manifest(where, "it has neither a path nor a variant with one")
    path = filled(path).strip()
    if not path or ".." in path.split("/"):
        raise _bad_manifest(where, f"{path!r} is no path below the image")
    words = [*process.args, *(word for when, group in process.optional_args if variables.get(when) for word in group)]
    timeout = filled(process.timeout_secs or "")
    if timeout and not (timeout.isascii() and timeout.isdecimal()):
        raise _bad_manifest(where, f"timeout_secs is no number, found {timeout!r}")
    return Launch(
        id=process.id,
        path=f"{root}/{path.lstrip('/')}",
        args=tuple(filled(word) for word in [*words, *variant.args]),
        config=filled(process.config or "") or None,
        env={key: filled(value) for key, value in (process.env | variant.env).items()},
        wait_socket=filled(process.wait_socket or "") or None,
        timeout_secs=int(timeout or 0),
    )


def our_entry(*, gate: bool, seconds: int = 120) -> str:
    """The ``[[process]]`` that starts the watch: before the agent serves (``gate``), or beside it."""
    lines = [
        "[[process]]",
        'id = "nvattest"',
        "level = 1",
        f'path = "{PROGRAM}"',
        'args = ["--stage", "watch", "--config", "${extension_root}/etc/nvattest/hook.toml"]',
    ]
    if gate:
        lines += [f'wait_socket = "{_TOKEN}"', f'timeout_secs = "{seconds}"']
    return "\n".join(lines) + "\n"


def our_process(processes: Iterable[Process]) -> Process | None:
    """The first process that runs our program."""
    return next((item for item in processes if (item.path or "").strip().endswith("/nvattest-hook")), None)


def add_process(text: str, entry: str, *, before: str = "attestation-agent") -> str:
    """The manifest with one more process in front of another, comments and all else as they are.

    Raises InputError: the manifest is refused, already starts our program, or has no such process.
    """
    manifest = read_manifest(text.encode())
    names = [item.id for item in manifest.processes]
    if our_process(manifest.processes) is not None:
        raise _unchanged("it starts nvattest-hook already", "take that entry out first, or keep the file as it is")
    if before not in names:
        raise _unchanged(
            f"there is no process {before!r}; there are {', '.join(names) or 'none'}",
            "give the manifest of the release's own extension coco",
        )
    [*_, added] = read_manifest(f"schema_version = 1\n{entry}".encode()).processes
    index = names.index(before)
    wanted = (*manifest.processes[:index], added, *manifest.processes[index:])
    for header in _HEADER.finditer(text):
        at = _above_comments(text, header.start())
        merged = f"{text[:at]}{entry}\n{text[at:]}"
        try:
            if read_manifest(merged.encode()) == Manifest(manifest.paths, wanted):
                return merged
        except InputError:
            # This header is inside a text of several lines.
            continue
    raise _unchanged(
        f"the entry of {before!r} is not written as a table [[process]]",
        "add the entry of examples/init/components.toml by hand",
    )


def _above_comments(text: str, at: int) -> int:
    """The start of the comment right above, or ``at``."""
    lines = text[:at].splitlines(keepends=True)
    while lines and lines[-1].lstrip().startswith("#"):
        at -= len(lines.pop())
    return at


def _unchanged(message: str, hint: str) -> InputError:
    return InputError(f"{MANIFEST}: {message}", code="extension-manifest", hint=hint)


def _bad_manifest(where: str, message: str) -> InputError:
    return InputError(
        f"{where}: {message}",
        code="extension-manifest",
        hint="the agent ends on this, and with it the guest; nvattest hook manifest writes our entry into coco's",
    )
