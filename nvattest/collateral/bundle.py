"""A bundle: RIMs, revocation answers and CPU collateral in one JSON file, for verification without a network.

A bundle (``schemas/bundle-1.json``) needs no signature of its own: all that is in it is signed by NVIDIA or by the
maker of a CPU, and is verified on each use like something from the network. Its digests only distinguish a damaged file
from a refused one.

For fleets a bundle is a folder: each GPU has a revocation answer of its own, and one file holds 8192 of them.
``manifest.json`` names the other files with their digests (``schemas/bundle-folder-1.json``). Each of them is a bundle
file: one with the RIMs, and shards with the answers. The serial number that an answer is about decides its shard, so
that a platform costs the few shards of its certificates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from nvattest._documents import JsonObject, kind_of, load_json
from nvattest._system import TrustedFolder, read_bounded, replace_file
from nvattest.appraisal.inputs import Collateral, CpuAnswer, OcspAnswer, RimAnswer, Source
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.rim.ids import is_rim_id

if TYPE_CHECKING:
    from nvattest.appraisal.memory import Memory, ReadEvidence
    from nvattest.pki.certificate import Certificate

FORMAT: Final = "nvattest-bundle"
VERSION: Final = 1
MAXIMUM_BUNDLE: Final = 64 * 1024 * 1024
MAXIMUM_RIMS: Final = 1024
MAXIMUM_ANSWERS: Final = 8192
MAXIMUM_RIM: Final = 1024 * 1024
MAXIMUM_ANSWER: Final = 64 * 1024
# Files of CPU collateral, one for each kind of platform or chip.
MAXIMUM_CPUS: Final = 1024
MAXIMUM_CPU: Final = 1024 * 1024


def load_bundle(data: bytes | str | Mapping[str, object], *, origin: str = "") -> Collateral:
    """Read a bundle from its text or its JSON object. ``origin`` is its name for people.

    Raises:
        ParseError: not such a document, an unknown version, a digest that does not match its content.
    """
    document: object = data
    if isinstance(data, bytes | str):
        document = load_json(data, source="bundle", maximum=MAXIMUM_BUNDLE, file=True)
    if not isinstance(document, dict):
        raise _error(f"expected an object, found {kind_of(document)}")
    if document.get("format") != FORMAT:
        raise _error(f"'format' is not {FORMAT!r}", hint="make a bundle with nvattest bundle create or bundle fetch")
    _check_version(document)
    rims: dict[str, RimAnswer] = {}
    for where, item in _items(document, "rims", MAXIMUM_RIMS):
        name = _text(item, where, "id")
        if not is_rim_id(name):
            raise _error(f"{where}: not a RIM id: {name[:80]!r}")
        if name in rims:
            raise _error(f"{where}: {name} appears twice", hint="a bundle holds one document per RIM id")
        content = _content(item, where, MAXIMUM_RIM)
        rims[name] = RimAnswer(id=name, content=content, source=Source.BUNDLE, origin=origin)
    answers = tuple(
        OcspAnswer(content=_content(item, where, MAXIMUM_ANSWER), source=Source.BUNDLE, origin=origin)
        for where, item in _items(document, "ocsp", MAXIMUM_ANSWERS)
    )
    # Older bundles have none; an older program passes over it.
    cpu = tuple(
        CpuAnswer(content=_content(item, where, MAXIMUM_CPU), source=Source.BUNDLE, origin=origin)
        for where, item in _items(document, "cpu", MAXIMUM_CPUS)
    )
    return Collateral(rims=rims, ocsp=answers, cpu=cpu)


def is_bundle(data: bytes) -> bool:
    """Whether this is the text of a bundle, of whatever version, and not of another file."""
    with suppress(ParseError):
        document = load_json(data, source="bundle", maximum=MAXIMUM_BUNDLE, file=True)
        return isinstance(document, dict) and document.get("format") == FORMAT
    return False


def dump_bundle(collateral: Collateral) -> JsonObject:
    """What ``collateral`` holds as a bundle, in a fixed order, so that equal content gives equal bytes."""
    answers = sorted({answer.content for answer in collateral.ocsp})
    cpu = sorted({answer.content for answer in collateral.cpu})
    return {
        "format": FORMAT,
        "version": VERSION,
        "rims": [{"id": name, **encoded(collateral.rims[name].content)} for name in sorted(collateral.rims)],
        "ocsp": [encoded(content) for content in answers],
        **({"cpu": [encoded(content) for content in cpu]} if cpu else {}),
    }


def merge_bundles(
    parts: Iterable[Collateral], *, conflict: Callable[[RimAnswer, InputError], None] | None = None
) -> Collateral:
    """All that several bundles hold.

    ``conflict`` is called with each RIM whose id an earlier bundle has with another document; NVIDIA re-issues some, so
    one must be chosen. By default it is an InputError.
    """
    rims: dict[str, RimAnswer] = {}
    answers: dict[bytes, OcspAnswer] = {}
    cpu: dict[bytes, CpuAnswer] = {}
    for part in parts:
        for rim in part.rims.values():
            try:
                add_rim(rims, rim)
            except InputError as error:
                if conflict is None:
                    raise
                conflict(rim, error)
        for answer in part.ocsp:
            answers.setdefault(answer.content, answer)
        for item in part.cpu:
            cpu.setdefault(item.content, item)
    return Collateral(rims=rims, ocsp=tuple(answers.values()), cpu=tuple(cpu.values()))


def add_rim(rims: dict[str, RimAnswer], rim: RimAnswer) -> None:
    """Add a RIM; the same document may come twice. InputError where ``rims`` has another document under its id."""
    known = rims.setdefault(rim.id, rim)
    if known.content != rim.content:
        one, two = (
            f"{hashlib.sha256(item.content).hexdigest()[:12]} in {item.origin or 'a bundle'}" for item in (known, rim)
        )
        raise InputError(
            f"two different documents for {rim.id}: {one} and {two}", code="bundle-conflict",
            hint="NVIDIA re-issues some RIMs under their id; leave out the older one",
        )  # fmt: skip


def encoded(content: bytes) -> JsonObject:
    """Bytes in JSON with their digest, as bundle and cache have them."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "content": base64.b64encode(content).decode("ascii")}


def decoded(text: str, digest: str, maximum: int) -> bytes:
    """The bytes of a text in base64.

    ValueError for another encoding, no bytes or more than ``maximum``, or bytes of another SHA-256.
    """
    content = base64.b64decode(text, validate=True)
    if not 0 < len(content) <= maximum:
        raise ValueError(f"{len(content)} bytes; 1 to {maximum} are read")
    actual = hashlib.sha256(content).hexdigest()
    if digest.lower() != actual:
        raise ValueError(f"the content has SHA-256 {actual}, and not {digest[:64]!r} as the digest beside it says")
    return content


def _check_version(document: JsonObject, where: str = "", hint: str = "") -> None:
    version = document.get("version")
    if version != VERSION or isinstance(version, bool):
        raise _error(f"{where}version {version!r}; this program reads version {VERSION}", hint=hint)


def _items(document: JsonObject, key: str, maximum: int) -> Iterator[tuple[str, object]]:
    """The items of an array, each with its name for people."""
    value = document.get(key, [])
    if not isinstance(value, list):
        raise _error(f"{key!r} must be an array, found {kind_of(value)}")
    if len(value) > maximum:
        raise _error(f"{key!r} has {len(value)} items, at most {maximum} are read")
    return ((f"{key}[{index}]", item) for index, item in enumerate(value))


def _text(item: object, where: str, key: str) -> str:
    if not isinstance(item, dict):
        raise _error(f"{where}: expected an object, found {kind_of(item)}")
    value = item.get(key)
    if not isinstance(value, str):
        raise _error(f"{where}: {key!r} must be a text, found {kind_of(value)}")
    return value


def _content(item: object, where: str, maximum: int) -> bytes:
    try:
        return decoded(_text(item, where, "content"), _text(item, where, "sha256"), maximum)
    except binascii.Error:
        raise _error(f"{where}: 'content' is not base64") from None
    except ValueError as error:
        raise _error(f"{where}: {error}", hint="the file is damaged") from None


def _error(message: str, *, hint: str = "") -> ParseError:
    return ParseError(message, source="bundle", code="bundle", hint=hint, result_code=ResultCode.BAD_ARGUMENT)


def _unreadable(error: OSError) -> InputError:
    return InputError(f"{error.filename}: {error.strerror or error}", code="bundle")


_ANEW: Final = "fetch it anew (nvattest bundle fetch), or copy it whole"
FOLDER_FORMAT: Final = "nvattest-bundle-folder"
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
K = TypeVar("K")


class _File(NamedTuple):
    name: str
    sha256: str


class Bundle:
    """An open bundle. Of a folder the RIMs and the CPU collateral are read now, a shard when an answer is wanted.

    ``shared`` is what is read now: all of a file. ``content`` is that of the file or of the manifest, where it was read
    before: two processes that share it see one bundle. With ``trusted`` a folder and its files have to be such that no
    other user may change them; it is opened once, and no link in it is followed.

    Raises:
        InputError: there is no file or no manifest, it cannot be read, or the RIMs do not have the digest in it. The
            methods raise it for a shard that is missing, damaged, or not that of the manifest.
    """

    def __init__(self, path: str, content: bytes | None = None, *, trusted: bool = False) -> None:
        self.path = path
        self.in_folder = os.path.isdir(path)
        try:
            self._folder = TrustedFolder(path) if self.in_folder and trusted else None
        except OSError as error:
            raise _unreadable(error) from None
        if content is None:
            content = self._get(MANIFEST, _MAXIMUM_MANIFEST) if self.in_folder else read_bounded(path, MAXIMUM_BUNDLE)
        self.content = content
        self._files: list[_File] = []
        self._shards: tuple[_File | None, ...] = (None,)
        self._kept: OrderedDict[int, tuple[int, Shard]] = OrderedDict()
        self._left = _KEPT_BYTES
        if self.in_folder:
            rims, self._shards = _manifest(self.content, path)
            self._files = [rims, *(shard for shard in self._shards if shard is not None)]
            self.shared = replace(self._read(rims), ocsp=())
        else:
            self.shared = load_bundle(self.content, origin=path)

    def answers(self, serials: Iterable[int]) -> tuple[OcspAnswer, ...]:
        """The answers about certificates with these serial numbers."""
        return tuple(
            answer
            for serial in dict.fromkeys(serials)
            for answer in self._shard(_shard_of(serial, len(self._shards))).get(serial, ())
        )

    def parts(self) -> Iterator[Collateral]:
        """All of it, one shard in memory at a time; the RIMs and the CPU collateral come first."""
        yield self.shared
        yield from map(self._read, self._files[1:])

    def check(self) -> None:
        """Check that each file is there and has its digest."""
        for file in self._files:
            self._bytes(file)

    @property
    def names(self) -> frozenset[str]:
        return frozenset({MANIFEST, *(file.name for file in self._files)})

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

    def _get(self, name: str, maximum: int) -> bytes:
        if self._folder is None:
            return read_bounded(os.path.join(self.path, name), maximum)
        try:
            return self._folder.read(name, maximum)
        except OSError as error:
            raise _unreadable(error) from None

    def _bytes(self, file: _File) -> bytes:
        data = self._get(file.name, MAXIMUM_BUNDLE)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise _error(f"{self.path}: {file.name} does not have its digest in the manifest", hint=_ANEW)
        return data


class Bundles:
    """Several bundles, files and folders, as the collateral of platforms.

    ``contents`` are those of another process that has opened them: files, and manifests of folders. ``trusted`` is as
    for ``Bundle``.

    Raises:
        InputError: one cannot be used, or two have different documents for one RIM id (``bundle-conflict``). The
            methods raise it as those of ``Bundle``.
    """

    def __init__(self, paths: Sequence[str], contents: Sequence[bytes] = (), *, trusted: bool = False) -> None:
        given: Sequence[bytes | None] = contents or [None] * len(paths)
        bundles = [Bundle(path, content, trusted=trusted) for path, content in zip(paths, given, strict=True)]
        self.contents = tuple(bundle.content for bundle in bundles)
        self._folders = [bundle for bundle in bundles if bundle.in_folder]
        rims: dict[str, RimAnswer] = {}
        for bundle in bundles:
            for rim in bundle.shared.rims.values():
                add_rim(rims, rim)
        files = tuple(answer for bundle in bundles for answer in bundle.shared.ocsp)
        self._whole = Collateral(rims=rims, ocsp=files)
        # With a folder among them a platform gets the few answers that it needs, also from the files.
        self._files = by_serial(files) if self._folders else {}

    def collateral(self, devices: Sequence[ReadEvidence], rim_ids: Iterable[str], memory: Memory) -> Collateral:
        """What these devices need, which ``memory`` has read, and their RIMs; of bundle files alone, all in them."""
        if not self._folders:
            return self._whole
        rims = self._whole.rims
        certificates: list[Certificate] = []
        for device in devices:
            certificates += () if isinstance(device.certificates, ParseError) else device.certificates
        for rim_id in rim_ids:
            # One that cannot be read fails its check.
            with suppress(ParseError):
                certificates += memory.parse_rim(rims[rim_id].content).certificates if rim_id in rims else ()
        serials = dict.fromkeys(certificate.serial for certificate in certificates)
        found = [answer for serial in serials for answer in self._files.get(serial, ())]
        for folder in self._folders:
            found += folder.answers(serials)
        return Collateral(rims=rims, ocsp=tuple(found))

    def check(self) -> None:
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
    # Late: the parser of a command that names bundles needs none of what reads certificates.
    from nvattest.pki.ocsp import parse_ocsp_response

    with suppress(ParseError):
        return parse_ocsp_response(answer).serial
    return None


def _shard_of(serial: int, shards: int) -> int:
    digest = hashlib.sha256(f"{serial:x}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % shards


def write_folder(
    path: str, shared: Collateral, serials: Mapping[K, int], answer: Callable[[K], bytes | None]
) -> Bundle:
    """Write a folder bundle: the RIMs and the CPU collateral of ``shared`` in one file, and shards of answers.

    ``serials`` has a key for each answer and the serial number that it is about. ``answer`` gives the answer of a key;
    those of one shard are in memory at a time.

    The manifest is replaced last: a reader finds the old bundle or the new one. The files of the bundle before stay
    until the next is written, so that a process that has opened it can go on.

    Raises:
        InputError: it cannot be written.
    """
    before: frozenset[str] = frozenset()
    with suppress(InputError):
        before = Bundle(path).names
    shards: list[list[K]] = [[] for _ in range(min(MAXIMUM_SHARDS, max(1, -(-len(serials) // _ANSWERS_IN_SHARD))))]
    for key, serial in serials.items():
        shards[_shard_of(serial, len(shards))].append(key)
    try:
        os.makedirs(path, exist_ok=True)
        manifest: JsonObject = {"format": FOLDER_FORMAT, "version": VERSION}
        manifest["rims"] = _write(path, "rims", replace(shared, ocsp=()))
        files: list[JsonObject | None] = []
        for number, keys in enumerate(shards):
            found = tuple(
                OcspAnswer(content=content, source=Source.BUNDLE)
                for key in keys
                if (content := answer(key)) is not None
            )
            files.append(_write(path, f"ocsp-{number:04}", Collateral(ocsp=found)) if found else None)
        manifest["shards"] = files
        content = json.dumps(manifest, indent=1).encode() + b"\n"
        # Opened as a reader will open it, before it takes the place of the old one.
        written = Bundle(path, content)
        replace_file(path, MANIFEST, content, mode=0o666)
        for name in os.listdir(path):
            if _OURS.fullmatch(name) and name not in before | written.names:
                os.unlink(os.path.join(path, name))
    except OSError as error:
        raise InputError(f"{error.filename or path}: {error.strerror or error}", code="file") from None
    return written


def _write(path: str, name: str, content: Collateral) -> JsonObject:
    """Write one file under a name that its digest is part of; one that is there whole stays."""
    data = json.dumps(dump_bundle(content)).encode()
    digest = hashlib.sha256(data).hexdigest()
    name = f"{name}-{digest[:16]}.json"
    with suppress(InputError):
        if read_bounded(os.path.join(path, name), MAXIMUM_BUNDLE) == data:
            return {"file": name, "sha256": digest}
    replace_file(path, name, data, mode=0o666)
    return {"file": name, "sha256": digest}


def _manifest(data: bytes, path: str) -> tuple[_File, tuple[_File | None, ...]]:
    document = load_json(data, source=os.path.join(path, MANIFEST), maximum=_MAXIMUM_MANIFEST, file=True)
    if not isinstance(document, dict) or document.get("format") != FOLDER_FORMAT:
        raise _error(f"{path}: 'format' in {MANIFEST} is not {FOLDER_FORMAT!r}", hint=_ANEW)
    _check_version(document, f"{path}: ", _ANEW)
    shards = document.get("shards")
    if not isinstance(shards, list) or not 0 < len(shards) <= MAXIMUM_SHARDS:
        raise _error(f"{path}: 'shards' must be an array of 1 to {MAXIMUM_SHARDS} files", hint=_ANEW)
    rims = _file(document.get("rims"), f"{path}: rims")
    return rims, tuple(None if item is None else _file(item, f"{path}: shards[{i}]") for i, item in enumerate(shards))


def _file(value: object, where: str) -> _File:
    name, digest = (value.get("file"), value.get("sha256")) if isinstance(value, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(digest, str) or not _OURS.fullmatch(name):
        raise _error(f"{where}: expected an object with 'file' and 'sha256'", hint=_ANEW)
    return _File(name, digest)
