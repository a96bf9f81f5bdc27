"""The Payload of a RIM: golden values (hashes) and floors of security versions (NVIDIA's Opaque Data RIM Attributes).

Golden value ``i`` describes SPDM measurement block ``i + 1``. Records with an index of 4096 and more describe an entry
of the opaque data, whose type is the index minus 4096. Every Resource must be well-formed, also one that is not active;
only active ones are returned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._registry import OPAQUE_RECORD_BASE
from nvattest.rim import xml
from nvattest.rim.xml import fault

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = ["GoldenValue", "MinSvn", "read_payload"]

MAX_RESOURCES: Final = 256
MAX_ALTERNATIVES: Final = 16
# Block indices are one byte and 0xFF is not a block (DSP0274, GET_MEASUREMENTS); golden indices are one less.
MAX_GOLDEN_INDEX: Final = 253
MAX_DATA_TYPE: Final = 0xFFFF
MAX_U64: Final = (1 << 64) - 1
HASH_SIZE: Final = 48

# ASCII only: \d would admit the digits of every script, int() would admit signs, spaces and underscores.
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HASH: Final = re.compile(r"[0-9a-f]{96}")
_HASH_NAMES: Final = tuple(f"{xml.SHA384}Hash{index}" for index in range(MAX_ALTERNATIVES))
_PLAIN: Final = frozenset(("type", "index", "active", "alternatives", "name", "size"))
_BOOLEAN: Final = {"True": True, "False": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenValue:
    """The value that one measurement should have.

    ``index`` counts from 0 and describes SPDM block ``index + 1``; ``values`` are alternatives of ``size`` bytes, any
    of which is right.
    """

    index: int
    name: str
    values: tuple[bytes, ...]
    size: int


class MinSvn(NamedTuple):
    """The lowest security version that one entry of the opaque data may have.

    ``data_type`` is the id of the entry (``index`` - 4096), ``minimum`` the floor, ``include_in_result`` whether the
    claims show the version found, under ``name``.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which has no use here
    data_type: int
    name: str
    minimum: int
    include_in_result: bool


def read_payload(payload: _Element) -> tuple[tuple[GoldenValue, ...], tuple[MinSvn, ...]]:
    """The active golden values and version floors of a Payload, each sorted by index.

    Raises:
        ParseError: ``rim-schema`` for another shape, ``rim-number`` for a number that is not plain decimal or out of
            range, ``rim-hash`` for hashes, ``rim-duplicate`` for an index (or the name of a floor) given twice,
            ``rim-limits`` for too many, ``rim-empty`` when no golden value is active.
    """
    if len(payload) > MAX_RESOURCES:
        raise fault(f"{len(payload)} Resources; at most {MAX_RESOURCES}", "rim-limits", at=payload)
    golden: list[GoldenValue] = []
    floors: list[MinSvn] = []
    seen: set[int] = set()
    floor_names: set[str] = set()
    for resource in payload:
        if resource.tag != xml.RESOURCE or len(resource) or resource.text is not None:
            code = "rim-signature-profile" if resource.tag == xml.SIGNATURE else "rim-schema"
            raise fault(f"{str(resource.tag)[:160]} in Payload; expected empty Resource elements", code, at=resource)
        attributes = {str(name): str(value) for name, value in resource.attrib.items()}
        missing = _PLAIN.difference(attributes)
        if missing:
            raise fault(f"a Resource without {', '.join(sorted(missing))}", "rim-schema", at=resource)
        index = _number(attributes["index"], "index", OPAQUE_RECORD_BASE + MAX_DATA_TYPE, resource)
        if index in seen:
            raise fault(f"index {index} is given twice", "rim-duplicate", at=resource)
        seen.add(index)
        active = _BOOLEAN.get(attributes["active"])
        if active is None:
            raise fault(
                f"index {index}: active is {attributes['active'][:40]!r}; expected 'True' or 'False'",
                "rim-schema",
                at=resource,
            )
        if attributes["type"] != "Measurement":
            raise fault(
                f"index {index}: type is {attributes['type'][:40]!r}; expected 'Measurement'", "rim-schema", at=resource
            )
        if _NAME.fullmatch(attributes["name"]) is None:
            raise fault(
                f"index {index}: the name {attributes['name'][:40]!r} has other than letters, digits, '.', '_', '-'",
                "rim-schema",
                at=resource,
            )
        if index >= OPAQUE_RECORD_BASE:
            floor = _floor(index, attributes, resource)
            if floor.name in floor_names:
                raise fault(f"the name {floor.name!r} is given twice", "rim-duplicate", at=resource)
            floor_names.add(floor.name)
            if active:
                floors.append(floor)
        else:
            value = _golden(index, attributes, resource)
            if active:
                golden.append(value)
    if not golden:
        raise fault("no golden value is active; such a document vouches for nothing", "rim-empty", at=payload)
    golden.sort(key=lambda value: value.index)
    floors.sort(key=lambda floor: floor.index)
    return tuple(golden), tuple(floors)


def _golden(index: int, attributes: Mapping[str, str], at: _Element) -> GoldenValue:
    if index > MAX_GOLDEN_INDEX:
        raise fault(
            f"index {index} is neither a measurement (0 to {MAX_GOLDEN_INDEX}) nor an opaque record "
            f"({OPAQUE_RECORD_BASE} and more)",
            "rim-number",
            at=at,
        )
    if attributes["size"] != "48":
        raise fault(f"index {index}: size is {attributes['size'][:40]!r}; expected '48'", "rim-number", at=at)
    count = _number(attributes["alternatives"], f"index {index}: alternatives", MAX_ALTERNATIVES, at)
    hashes = _hashes(index, count, attributes, at)
    if not hashes:
        raise fault(f"index {index} has no Hash0", "rim-hash", at=at)
    if len(attributes) != len(_PLAIN) + len(hashes):
        raise _stray(index, attributes, set(_PLAIN).union(_HASH_NAMES[:count]), at)
    return GoldenValue(index=index, name=attributes["name"], values=hashes, size=HASH_SIZE)


def _floor(index: int, attributes: Mapping[str, str], at: _Element) -> MinSvn:
    where = f"index {index}: "
    if _number(attributes["size"], where + "size", 0xFFFF, at) == 0:
        raise fault(where + "size is 0", "rim-number", at=at)
    count = _number(attributes["alternatives"], where + "alternatives", MAX_ALTERNATIVES, at)
    text = attributes.get(xml.MIN_SVN)
    if text is None:
        raise fault(where + "an opaque record without minSvn", "rim-schema", at=at)
    minimum = _number(text, where + "minSvn", MAX_U64, at)
    include = _BOOLEAN.get(attributes.get(xml.INCLUDE_IN_RESULT, "False"))
    if include is None:
        raise fault(where + "includeInResult is neither 'True' nor 'False'", "rim-schema", at=at)
    # A floor may carry hashes for readers that know only hashes; they must be well-formed and do not count.
    hashes = _hashes(index, count, attributes, at) if _HASH_NAMES[0] in attributes else ()
    allowed = set(_PLAIN).union((xml.MIN_SVN, xml.INCLUDE_IN_RESULT), _HASH_NAMES[: len(hashes)])
    if not allowed.issuperset(attributes):
        raise _stray(index, attributes, allowed, at)
    return MinSvn(
        index=index,
        data_type=index - OPAQUE_RECORD_BASE,
        name=attributes["name"],
        minimum=minimum,
        include_in_result=include,
    )


def _hashes(index: int, count: int, attributes: Mapping[str, str], at: _Element) -> tuple[bytes, ...]:
    values = []
    for name in _HASH_NAMES[:count]:
        text = attributes.get(name)
        if text is None or _HASH.fullmatch(text) is None:
            found = "absent" if text is None else repr(text[:100])
            raise fault(
                f"index {index}: {name.removeprefix(xml.SHA384)} of {count} is {found}; "
                "expected 96 lower-case hexadecimal digits",
                "rim-hash",
                at=at,
            )
        values.append(bytes.fromhex(text))
    return tuple(values)


def _stray(index: int, attributes: Mapping[str, str], allowed: set[str], at: _Element) -> Exception:
    stray = sorted(set(attributes).difference(allowed))
    code = "rim-hash" if any(name.startswith(xml.SHA384) for name in stray) else "rim-schema"
    return fault(f"index {index}: unexpected {', '.join(name[:120] for name in stray[:4])}", code, at=at)


def _number(text: str, name: str, maximum: int, at: _Element) -> int:
    if _NUMBER.fullmatch(text) is not None:
        value = int(text)
        if value <= maximum:
            return value
    raise fault(f"{name} is {text[:40]!r}; expected a plain decimal number up to {maximum}", "rim-number", at=at)
