"""Grammar-aware mutation: bytes, DER, XML and JSON are taken apart, changed in one to four places, and put together.

``for_all`` runs a property on few examples in the quick suite and on many with the marker ``fuzz``; the examples of both
are derived from the name of the property, so that a failure comes again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUICK, LONG = 40, 4000


def sizes(quick: int = QUICK, long: int = LONG) -> pytest.MarkDecorator:
    """Run with ``quick`` examples, and under the marker ``fuzz`` with ``long``."""
    return pytest.mark.parametrize("examples", [quick, pytest.param(long, marks=pytest.mark.fuzz)])


def pick(draw: st.DrawFn, items: Sequence[Any]) -> Any:
    """One of the items. They may be large: hypothesis sees only their number."""
    return items[draw(st.integers(0, len(items) - 1))]


class _Seeds(tuple[Any, ...]):
    """Seeds that are not spelled out: hypothesis makes the text of every strategy that fails."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} seeds>"


def bytes_changed(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """One of the seeds with bytes turned over, put in, taken out, doubled, swapped, or taken from another seed."""
    return _bytes_changed(_Seeds(seeds))


def der_changed(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """One of the seeds with elements taken out, doubled, swapped, retagged, filled anew; all lengths right again."""
    return _der_changed(_Seeds(seeds))


def json_changed(seeds: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """One of the seeds with members taken out, renamed, replaced, doubled, swapped or moved."""
    return _json_changed(_Seeds(seeds))


def for_all(strategy: st.SearchStrategy[Any], examples: int, check: Callable[[Any], None]) -> None:
    """Check ``examples`` values of the strategy, the same ones each time."""

    @settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def holds(value: Any) -> None:
        check(value)

    holds()


# --- bytes ------------------------------------------------------------------------------------------------------------

INTERESTING = (b"", b"\0", b"\xff", b"\x80", b"\x7f", b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f")


@st.composite
def _bytes_changed(draw: st.DrawFn, seeds: _Seeds) -> bytes:
    data = bytearray(pick(draw, seeds))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        size = draw(st.sampled_from((1, 1, 2, 4, 8, 48, 96, 512)))
        kind = draw(st.sampled_from(("flip", "set", "insert", "delete", "double", "splice", "cut", "swap")))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            new = draw(st.sampled_from(INTERESTING) | st.binary(max_size=8))
            data[at : at + len(new)] = new
        elif kind == "insert":
            data[at:at] = draw(st.sampled_from(INTERESTING) | st.binary(max_size=16))
        elif kind == "delete":
            del data[at : at + size]
        elif kind == "double":
            data[at:at] = data[at : at + size]
        elif kind == "splice":
            other = pick(draw, seeds)
            data[at : at + size] = other[at : at + size]
        elif kind == "cut":
            del data[at:]
        else:
            to = draw(st.integers(0, len(data) - 1))
            data[at : at + size], data[to : to + size] = data[to : to + size], data[at : at + size]
    return bytes(data)


# --- DER --------------------------------------------------------------------------------------------------------------


def tlv(tag: int, content: bytes) -> bytes:
    """One element, its length in the shortest form."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


Node = list[Any]  # [tag, content]: bytes, or a list of nodes


def der_tree(data: bytes) -> list[Node]:
    """Elements one after the other; what is inside of constructed ones is taken apart too."""
    nodes: list[Node] = []
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            octets = size & 0x7F
            size = int.from_bytes(data[at : at + octets], "big")
            at += octets
        content = data[at : at + size]
        nodes.append([tag, der_tree(content) if tag & 0x20 else content])
        at += size
    return nodes


def der_bytes(nodes: list[Node]) -> bytes:
    return b"".join(tlv(tag, der_bytes(inside) if isinstance(inside, list) else inside) for tag, inside in nodes)


def _lists(nodes: list[Node]) -> list[list[Node]]:
    """Every list of elements in the tree."""
    found = [nodes] if nodes else []
    for _, inside in nodes:
        if isinstance(inside, list):
            found += _lists(inside)
    return found


@st.composite
def _der_changed(draw: st.DrawFn, seeds: _Seeds) -> bytes:
    trees = [der_tree(seed) for seed in seeds]
    tree = copy.deepcopy(pick(draw, trees))
    for _ in range(draw(st.integers(1, 3))):
        places = _lists(tree)
        if not places:
            break
        nodes = pick(draw, places)
        at = draw(st.integers(0, len(nodes) - 1))
        kind = draw(st.sampled_from(("delete", "double", "swap", "tag", "fill", "graft", "empty", "wrap", "flip")))
        if kind == "delete":
            del nodes[at]
        elif kind == "double":
            nodes.insert(at, copy.deepcopy(nodes[at]))
        elif kind == "swap":
            to = draw(st.integers(0, len(nodes) - 1))
            nodes[at], nodes[to] = nodes[to], nodes[at]
        elif kind == "tag":
            nodes[at][0] = draw(st.sampled_from((1, 2, 3, 4, 5, 6, 12, 19, 23, 24, 48, 49, 0x80, 0xA0, 0xA3, 0x1F)))
        elif kind == "fill":
            nodes[at][1] = draw(st.sampled_from(INTERESTING) | st.binary(max_size=64))
        elif kind == "graft":
            other = pick(draw, _lists(pick(draw, trees)))
            nodes[at] = copy.deepcopy(pick(draw, other))
        elif kind == "empty":
            nodes[at][1] = []
        elif kind == "wrap":
            nodes[at] = [0x30, [nodes[at]]]
        elif isinstance(nodes[at][1], bytes) and nodes[at][1]:
            content = bytearray(nodes[at][1])
            content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
            nodes[at][1] = bytes(content)
    return der_bytes(tree)


# --- JSON -------------------------------------------------------------------------------------------------------------

_SCALARS = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**63,
    10**30,
    1.5,
    "",
    "x",
    "00",
    "\0",
    "\ud800",
    "é",
    "../x",
    "a" * 300,
    [],
    {},
    [[]],
)
# Some of them can be changed; each example gets its own.
SCALARS = st.integers(0, len(_SCALARS) - 1).map(lambda number: copy.deepcopy(_SCALARS[number]))


def _containers(value: Any) -> list[Any]:
    found = []
    if isinstance(value, (dict, list)) and value:
        found.append(value)
        for item in value.values() if isinstance(value, dict) else value:
            found += _containers(item)
    return found


@st.composite
def _json_changed(draw: st.DrawFn, seeds: _Seeds) -> Any:
    value = copy.deepcopy(pick(draw, seeds))
    for _ in range(draw(st.integers(1, 3))):
        places = _containers(value)
        if not places:
            return draw(SCALARS)
        place = pick(draw, places)
        key = pick(draw, list(place) if isinstance(place, dict) else range(len(place)))
        kind = draw(st.sampled_from(("delete", "scalar", "rename", "text", "move", "swap", "double", "wrap")))
        if kind == "delete":
            del place[key]
        elif kind == "scalar":
            place[key] = draw(SCALARS)
        elif kind == "rename" and isinstance(place, dict):
            place[draw(st.sampled_from(("", "x", str(key).upper(), f"{key} ", "__proto__", "version")))] = place.pop(
                key
            )
        elif kind == "text" and isinstance(place[key], str) and place[key]:
            text = place[key]
            at = draw(st.integers(0, len(text) - 1))
            place[key] = (
                text[:at] + draw(st.sampled_from(("", "A", "0", " ", "\n", "=", "-", "\u0660"))) + text[at + 1 :]
            )
        elif kind == "move":
            other = pick(draw, places)
            if other is not place[key]:
                place[key] = copy.deepcopy(pick(draw, list(_items(other))))
        elif kind == "swap":
            to = pick(draw, list(place) if isinstance(place, dict) else range(len(place)))
            place[key], place[to] = place[to], place[key]
        elif kind == "double" and isinstance(place, list):
            place.insert(key, copy.deepcopy(place[key]))
        else:
            place[key] = [place[key]]
    return value


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def as_json(value: Any) -> bytes:
    """JSON text; lone surrogates stay escaped."""
    return json.dumps(value).encode()
