"""A bundle: RIMs, revocation answers and CPU collateral in one JSON file, for verification without a network.

A bundle (``schemas/bundle-1.json``) needs no signature of its own: all that is in it is signed by NVIDIA or by the
maker of a CPU, and is verified on each use like something from the network. Its digests only distinguish a damaged file
from a refused one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from nvattest._documents import JsonObject, kind_of, load_json
from nvattest.appraisal.inputs import Collateral, CpuAnswer, OcspAnswer, RimAnswer, Source
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.rim.ids import is_rim_id

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
    if document.get("version") != VERSION or isinstance(document.get("version"), bool):
        raise _error(f"version {document.get('version')!r}; this program reads version {VERSION}")
    rims: dict[str, RimAnswer] = {}
    for index, item in enumerate(_list(document, "rims", MAXIMUM_RIMS)):
        name = _member(item, f"rims[{index}]", "id")
        if not is_rim_id(name):
            raise _error(f"rims[{index}]: not a RIM id: {name[:80]!r}")
        if name in rims:
            raise _error(f"rims[{index}]: {name} appears twice", hint="a bundle holds one document per RIM id")
        content = _content(item, f"rims[{index}]", MAXIMUM_RIM)
        rims[name] = RimAnswer(id=name, content=content, source=Source.BUNDLE, origin=origin)
    answers = tuple(
        OcspAnswer(content=_content(item, f"ocsp[{index}]", MAXIMUM_ANSWER), source=Source.BUNDLE, origin=origin)
        for index, item in enumerate(_list(document, "ocsp", MAXIMUM_ANSWERS))
    )
    # Older bundles have none; an older program passes over it.
    cpu = tuple(
        CpuAnswer(content=_content(item, f"cpu[{index}]", MAXIMUM_CPU), source=Source.BUNDLE, origin=origin)
        for index, item in enumerate(_list(document, "cpu", MAXIMUM_CPUS))
    )
    return Collateral(rims=rims, ocsp=answers, cpu=cpu)


def is_bundle(data: bytes) -> bool:
    """Whether this is the text of a bundle, of whatever version, and not of another file."""
    try:
        document = load_json(data, source="bundle", maximum=MAXIMUM_BUNDLE, file=True)
    except ParseError:
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


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


def _refuse(_: RimAnswer, error: InputError) -> None:
    raise error


def merge_bundles(
    parts: Iterable[Collateral], *, conflict: Callable[[RimAnswer, InputError], None] = _refuse
) -> Collateral:
    """All that several bundles hold.

    ``conflict`` is called with each RIM whose id an earlier bundle has with another document; NVIDIA re-issues some, so
    one must be chosen.

    Raises:
        InputError: by default, where there is such a RIM.
    """
    rims: dict[str, RimAnswer] = {}
    answers: dict[bytes, OcspAnswer] = {}
    cpu: dict[bytes, CpuAnswer] = {}
    for part in parts:
        for rim in part.rims.values():
            try:
                add_rim(rims, rim)
            except InputError as error:
                conflict(rim, error)
        for answer in part.ocsp:
            answers.setdefault(answer.content, answer)
        for item in part.cpu:
            cpu.setdefault(item.content, item)
    return Collateral(rims=rims, ocsp=tuple(answers.values()), cpu=tuple(cpu.values()))


def add_rim(rims: dict[str, RimAnswer], rim: RimAnswer) -> None:
    """Add a RIM; the same document may come twice.

    Raises:
        InputError: ``rims`` has another document under its id.
    """
    known = rims.setdefault(rim.id, rim)
    if known.content != rim.content:
        raise InputError(
            f"two different documents for {rim.id}: {_where(known)} and {_where(rim)}",
            code="bundle-conflict",
            hint="NVIDIA re-issues some RIMs under their id; leave out the older one",
        )


def _where(rim: RimAnswer) -> str:
    return f"{hashlib.sha256(rim.content).hexdigest()[:12]} in {rim.origin or 'a bundle'}"


def encoded(content: bytes) -> JsonObject:
    """Bytes in JSON with their digest, as bundle and cache have them."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "content": base64.b64encode(content).decode("ascii")}


def decoded(text: str, digest: str, maximum: int) -> bytes:
    """The bytes of a text in base64.

    Raises:
        ValueError: another encoding, no bytes or more than ``maximum``, or bytes of another SHA-256.
    """
    content = base64.b64decode(text, validate=True)
    if not 0 < len(content) <= maximum:
        raise ValueError(f"{len(content)} bytes; 1 to {maximum} are read")
    actual = hashlib.sha256(content).hexdigest()
    if digest.lower() != actual:
        raise ValueError(f"the content has SHA-256 {actual}, and not {digest[:64]!r} as the digest beside it says")
    return content


def _list(document: JsonObject, key: str, maximum: int) -> list[object]:
    value = document.get(key, [])
    if not isinstance(value, list):
        raise _error(f"{key!r} must be an array, found {kind_of(value)}")
    if len(value) > maximum:
        raise _error(f"{key!r} has {len(value)} items, at most {maximum} are read")
    return value


def _member(item: object, where: str, key: str) -> str:
    if not isinstance(item, dict):
        raise _error(f"{where}: expected an object, found {kind_of(item)}")
    value = item.get(key)
    if not isinstance(value, str):
        raise _error(f"{where}: {key!r} must be a text, found {kind_of(value)}")
    return value


def _content(item: object, where: str, maximum: int) -> bytes:
    try:
        return decoded(_member(item, where, "content"), _member(item, where, "sha256"), maximum)
    except binascii.Error:
        raise _error(f"{where}: 'content' is not base64") from None
    except ValueError as error:
        raise _error(f"{where}: {error}", hint="the file is damaged") from None


def _error(message: str, *, hint: str = "") -> ParseError:
    return ParseError(message, source="bundle", code="bundle", hint=hint, result_code=ResultCode.BAD_ARGUMENT)
