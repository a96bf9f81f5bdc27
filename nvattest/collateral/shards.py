"""A bundle as a folder, for fleets: each GPU has a revocation answer of its own, and one file holds 8192 of them.

``manifest.json`` names the other files with their digests (``schemas/bundle-folder-1.json``). Each of them is a bundle
file: one with the RIMs, and shards with the answers. The serial number that an answer is about decides its shard, so
that a platform costs the few shards of its certificates. Like a bundle file the folder needs no signature.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from nvattest._documents import JsonObject, load_json
from nvattest._folder import read_bounded, replace_file
from nvattest.appraisal.inputs import Collateral, CpuAnswer, OcspAnswer, RimAnswer
from nvattest.appraisal.memory import Memory, ReadEvidence
from nvattest.collateral.bundle import MAXIMUM_BUNDLE, add_rim, dump_bundle, load_bundle
from nvattest.collateral.gather import rim_ids_of
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.pki.ocsp import parse_ocsp_response

FORMAT: Final = "nvattest-bundle-folder"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"
MAXIMUM_SHARDS: Final = 4096
# Some 2 kB each: a shard is read and checked in about a millisecond.
_ANSWERS_IN_SHARD: Final = 32
_MAXIMUM_MANIFEST: Final = 2 * 1024 * 1024
# The names of files in a manifest: no path leads out of the folder.
_OURS: Final = re.compile(r"(rims|ocsp-[0-9]{4})-[0-9a-f]{16}\.json")
# Content of shards that stays in memory. Those of the certificates that all devices share are always among them.
_KEPT_BYTES: Final = 32 * 1024 * 1024

Shard = Mapping[int, Sequence[OcspAnswer]]


class _File(NamedTuple):
    name: str
    sha256: str


class BundleFolder:
    """An open folder bundle. Its RIMs are read now, its shards when an answer in them is wanted.

    ``content`` is its manifest, where that was read before: two processes that share it see one bundle.

    Raises:
        InputError: there is no manifest, it cannot be read, or the RIMs do not have the digest in it.
    """

    def __init__(self, path: str, content: bytes | None = None, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self.path = path
        self.content = read_bounded(os.path.join(path, MANIFEST), _MAXIMUM_MANIFEST) if content is None else content
        self._rims_file, self._shards = _manifest(self.content, path)
        self._kept: OrderedDict[int, tuple[int, Shard]] = OrderedDict()
        self._left = kept_bytes
        whole = self._read(self._rims_file)
        self.rims: Mapping[str, RimAnswer] = whole.rims
        self.cpu: tuple[CpuAnswer, ...] = whole.cpu

    def answers(self, serials: Iterable[int]) -> tuple[OcspAnswer, ...]:
        """The answers about certificates with these serial numbers.

        Raises:
            InputError: a shard is missing, damaged, or not that of the manifest.
        """
        return tuple(
            answer
            for serial in dict.fromkeys(serials)
            for answer in self._shard(shard_of(serial, len(self._shards))).get(serial, ())
        )

    def parts(self) -> Iterator[Collateral]:
        """All of it, one shard in memory at a time; the RIMs and the CPU collateral come first.

        Raises:
            InputError: as ``answers``.
        """
        yield Collateral(rims=self.rims, cpu=self.cpu)
        for file in self._shards:
            if file is not None:
                yield self._read(file)

    def check(self) -> None:
        """Check that each file is there and has its digest.

        Raises:
            InputError: one is not, or has another.
        """
        for file in self._shards:
            if file is not None:
                self._bytes(file)

    @property
    def files(self) -> frozenset[str]:
        """The names of the files of this bundle in its folder."""
        return frozenset({MANIFEST, *(file.name for file in (self._rims_file, *self._shards) if file is not None)})

    @property
    def shards(self) -> int:
        """How many places for shards it has."""
        return len(self._shards)

    def _shard(self, number: int) -> Shard:
        known = self._kept.pop(number, None)
        if known is None:
            file = self._shards[number]
            answers = self._read(file).ocsp if file is not None else ()
            known = (sum(len(answer.content) for answer in answers), by_serial(answers))
            self._left -= known[0]
        self._kept[number] = known
        while self._left < 0 and len(self._kept) > 1:
            self._left += self._kept.popitem(last=False)[1][0]
        return known[1]

    def _read(self, file: _File) -> Collateral:
        return load_bundle(self._bytes(file), origin=os.path.join(self.path, file.name))

    def _bytes(self, file: _File) -> bytes:
        data = read_bounded(os.path.join(self.path, file.name), MAXIMUM_BUNDLE)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise _error(f"{self.path}: {file.name} does not have its digest in the manifest")
        return data


class BundleFile:
    """An open bundle file, in memory; ``content`` is that of the file, where it was read before.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, path: str, content: bytes | None = None) -> None:
        self.content = read_bounded(path, MAXIMUM_BUNDLE) if content is None else content
        self.whole = load_bundle(self.content, origin=path)

    @property
    def rims(self) -> Mapping[str, RimAnswer]:
        """Its RIMs by id."""
        return self.whole.rims

    @property
    def cpu(self) -> tuple[CpuAnswer, ...]:
        """Its CPU collateral."""
        return self.whole.cpu

    def parts(self) -> Iterator[Collateral]:
        """All of it."""
        yield self.whole


def open_bundle(path: str, content: bytes | None = None) -> BundleFile | BundleFolder:
    """Open a bundle, a file or a folder; ``content`` as there.

    Raises:
        InputError: it cannot be read.
    """
    return BundleFolder(path, content) if os.path.isdir(path) else BundleFile(path, content)


class Bundles:
    """Several bundles, files and folders, as the collateral of platforms.

    ``contents`` are those of another process that has opened them: files, and manifests of folders.

    Raises:
        InputError: one cannot be used, or two have different documents for one RIM id (``bundle-conflict``).
    """

    def __init__(self, paths: Sequence[str], contents: Sequence[bytes] = ()) -> None:
        self._rims: dict[str, RimAnswer] = {}
        self._folders: list[BundleFolder] = []
        files: list[OcspAnswer] = []
        read: list[bytes] = []
        for number, path in enumerate(paths):
            bundle = open_bundle(path, contents[number] if contents else None)
            read.append(bundle.content)
            for rim in bundle.rims.values():
                add_rim(self._rims, rim)
            if isinstance(bundle, BundleFolder):
                self._folders.append(bundle)
            else:
                files += bundle.whole.ocsp
        self.contents = tuple(read)
        self._whole = Collateral(rims=self._rims, ocsp=tuple(files))
        # With a folder among them a platform gets the few answers that it needs, also from the files.
        self._files: Shard = by_serial(files) if self._folders else {}

    def collateral(self, devices: Sequence[ReadEvidence], memory: Memory) -> Collateral:
        """What these devices need, which ``memory`` has read; of bundle files alone, all that is in them.

        Raises:
            InputError: a shard is missing, damaged, or not that of the manifest.
        """
        if not self._folders:
            return self._whole
        serials = [
            certificate.serial
            for device in devices
            if not isinstance(device.certificates, ParseError)
            for certificate in device.certificates
        ]
        for rim_id in rim_ids_of(devices):
            # One that cannot be read fails its check.
            with suppress(ParseError):
                if (rim := self._rims.get(rim_id)) is not None:
                    serials += [certificate.serial for certificate in memory.parse_rim(rim.content).certificates]
        found = [answer for serial in dict.fromkeys(serials) for answer in self._files.get(serial, ())]
        for folder in self._folders:
            found += folder.answers(serials)
        return Collateral(rims=self._rims, ocsp=tuple(found))

    def check(self) -> None:
        """Check all files of the folders.

        Raises:
            InputError: as ``BundleFolder.check``.
        """
        for folder in self._folders:
            folder.check()


def by_serial(answers: Iterable[OcspAnswer]) -> Shard:
    """Answers by the serial number that they are about; one that cannot be read is about none."""
    found: dict[int, list[OcspAnswer]] = {}
    for answer in answers:
        if (serial := serial_of(answer.content)) is not None:
            found.setdefault(serial, []).append(answer)
    return found


def serial_of(answer: bytes) -> int | None:
    """The serial number that an OCSP response is about; None where it is about none or cannot be read."""
    try:
        return parse_ocsp_response(answer).serial
    except ParseError:
        return None


def shard_of(serial: int, shards: int) -> int:
    """The place of a serial number among so many shards."""
    digest = hashlib.sha256(f"{serial:x}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % shards


def shard_count(answers: int) -> int:
    """How many shards a folder with so many answers has."""
    return min(MAXIMUM_SHARDS, max(1, -(-answers // _ANSWERS_IN_SHARD)))


def write_folder(
    path: str,
    rims: Mapping[str, RimAnswer],
    shards: int,
    answers: Callable[[int], Iterable[OcspAnswer]],
    *,
    cpu: tuple[CpuAnswer, ...] = (),
) -> BundleFolder:
    """Write a folder bundle; ``answers`` gives those of one shard (``shard_of``), and is asked for one at a time.

    CPU collateral goes into the file of the RIMs.

    The manifest is replaced last: a reader finds the old bundle or the new one. The files of the bundle before stay
    until the next is written, so that a process that has opened it can go on.

    Raises:
        InputError: it cannot be written.
    """
    before: frozenset[str] = frozenset()
    with suppress(InputError):
        before = BundleFolder(path).files
    try:
        os.makedirs(path, exist_ok=True)
        files: list[JsonObject | None] = []
        manifest: JsonObject = {"format": FORMAT, "version": VERSION}
        manifest["rims"] = _write(path, "rims", Collateral(rims=rims, cpu=cpu))
        for number in range(shards):
            found = tuple(answers(number))
            name = f"ocsp-{number:04}"
            files.append(_write(path, name, Collateral(ocsp=found)) if found else None)
        manifest["shards"] = files
        content = json.dumps(manifest, indent=1).encode() + b"\n"
        # Opened as a reader will open it, before it takes the place of the old one.
        written = BundleFolder(path, content)
        _replace(path, MANIFEST, content)
        for name in os.listdir(path):
            if _OURS.fullmatch(name) and name not in before | written.files:
                os.unlink(os.path.join(path, name))
    except OSError as error:
        raise InputError(f"{error.filename or path}: {error.strerror or error}", code="file") from None
    return written


def _write(path: str, name: str, content: Collateral) -> JsonObject:
    """Write one file under a name that its digest is part of; one that is there whole stays."""
    data = json.dumps(dump_bundle(content)).encode()
    digest = hashlib.sha256(data).hexdigest()
    name = f"{name}-{digest[:16]}.json"
    entry: JsonObject = {"file": name, "sha256": digest}
    with suppress(InputError):
        if read_bounded(os.path.join(path, name), MAXIMUM_BUNDLE) == data:
            return entry
    _replace(path, name, data)
    return entry


def _replace(path: str, name: str, data: bytes) -> None:
    new = f".{name}.new"
    # What a writer that was killed left behind.
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(path, new))
    replace_file(path, name, data, new=new, mode=0o666)


def _manifest(data: bytes, path: str) -> tuple[_File, tuple[_File | None, ...]]:
    document = load_json(data, source=os.path.join(path, MANIFEST), maximum=_MAXIMUM_MANIFEST, file=True)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _error(f"{path}: 'format' in {MANIFEST} is not {FORMAT!r}")
    if document.get("version") != VERSION or isinstance(document.get("version"), bool):
        raise _error(f"{path}: version {document.get('version')!r}; this program reads version {VERSION}")
    shards = document.get("shards")
    if not isinstance(shards, list) or not 0 < len(shards) <= MAXIMUM_SHARDS:
        raise _error(f"{path}: 'shards' must be an array of 1 to {MAXIMUM_SHARDS} files")
    rims = _file(document.get("rims"), f"{path}: rims")
    return rims, tuple(None if item is None else _file(item, f"{path}: shards[{i}]") for i, item in enumerate(shards))


def _file(value: object, where: str) -> _File:
    name, digest = (value.get("file"), value.get("sha256")) if isinstance(value, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(digest, str) or not _OURS.fullmatch(name):
        raise _error(f"{where}: expected an object with 'file' and 'sha256'")
    return _File(name, digest)


def _error(message: str, *, hint: str = "fetch it anew (nvattest bundle fetch), or copy it whole") -> ParseError:
    return ParseError(message, source="bundle", code="bundle", hint=hint, result_code=ResultCode.BAD_ARGUMENT)
