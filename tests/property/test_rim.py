"""RIMs: trees taken apart and put together in another way are refused, or say what was signed."""

# ruff: noqa: PT017 - what is refused and what is read are two ends of one property

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st
from lxml import etree

from nvattest.errors import ParseError, ResultCode
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.document import RimDocument, parse_rim
from nvattest.rim.verify import verify_rim
from nvattest.testing import Platform

from .tools import bytes_changed, for_all, pick, sizes

NODE = Platform.build("blackwell-8-mpt")
RIMS = tuple(NODE.rims().values())
ANCHORS = NODE.trust_anchors()
VERIFIER = EcdsaVerifier()
VALUES = st.sampled_from(
    ("", "0", "1", "True", "false", "48", "GB100", "\u0661", "00" * 48, "x" * 500, "../x", " 1", "5703")
)
NAMES = st.sampled_from(
    ("Id", "ID", "id", "active", "index", "URI", "Algorithm", "{http://www.w3.org/XML/1998/namespace}id")
)
TAGS = ("SoftwareIdentity", "Payload", "Resource", "Meta", "Entity", "Signature", "Object", "SignedInfo", "Reference")


def said(document: RimDocument) -> tuple[Any, ...]:
    return (
        document.version, document.product, document.edition, document.manufacturer_id, document.golden,
        document.min_svn, document.certificates,
    )  # fmt: skip


GENUINE = [said(parse_rim(rim)) for rim in RIMS]


def believed(data: bytes) -> RimDocument | None:
    """The document, if it reads and verifies."""
    try:
        document = parse_rim(data)
    except ParseError as error:
        assert error.result_code is ResultCode.RIM_INVALID_SCHEMA
        assert error.code.startswith("rim-")
        return None
    outcome = verify_rim(document, anchors=ANCHORS.rim, at=NODE.clock, verifier=VERIFIER)
    return document if outcome.verified is not None else None


@st.composite
def trees_changed(draw: st.DrawFn) -> bytes:
    """A signed tag with elements moved, doubled, taken out, wrapped, renamed, or grafted from another signed tag."""
    roots = [etree.fromstring(rim) for rim in RIMS]
    root = pick(draw, roots)
    other = pick(draw, roots)
    for _ in range(draw(st.integers(1, 3))):
        elements = list(root.iter())
        element = pick(draw, elements[:8] + elements[-24:] + elements[8:20])
        parent = element.getparent()
        kind = draw(
            st.sampled_from(
                (
                    "drop",
                    "double",
                    "move",
                    "graft",
                    "wrap",
                    "value",
                    "attribute",
                    "unset",
                    "text",
                    "tail",
                    "rename",
                    "nest",
                )
            )
        )
        if kind == "drop" and parent is not None:
            parent.remove(element)
        elif kind == "double" and parent is not None:
            element.addnext(copy.deepcopy(element))
        elif kind == "move":
            target = pick(draw, elements)
            if element is not root and target is not element and element not in target.iterancestors():
                target.insert(draw(st.integers(0, len(target))), element)
        elif kind == "graft":
            foreign = copy.deepcopy(pick(draw, list(other.iter())[-24:]))
            element.insert(draw(st.integers(0, len(element))), foreign)
        elif kind == "wrap" and parent is not None:
            shell = etree.SubElement(parent, pick(draw, elements).tag)
            shell.append(element)
        elif kind == "value" and element.attrib:
            name = draw(st.sampled_from(sorted(map(str, element.attrib))))
            element.set(name, draw(VALUES))
        elif kind == "attribute":
            element.set(draw(NAMES), draw(VALUES))
        elif kind == "unset" and element.attrib:
            del element.attrib[draw(st.sampled_from(sorted(map(str, element.attrib))))]
        elif kind == "text":
            element.text = draw(st.sampled_from(("", " ", "\n", "x", "AAAA", None)))
        elif kind == "tail" and parent is not None:
            element.tail = draw(st.sampled_from(("", " ", "\n", "x", None)))
        elif kind == "rename":
            space = etree.QName(element).namespace
            element.tag = f"{{{space}}}{draw(st.sampled_from(TAGS))}"
        elif kind == "nest":
            # Wrapping: the whole of a signed tag as a child of something that is not signed.
            element.append(copy.deepcopy(other))
    return etree.tostring(root)


@sizes(250, 30_000)
def test_a_tree_put_together_in_another_way_is_refused_or_says_what_was_signed(examples: int) -> None:
    def check(data: bytes) -> None:
        document = believed(data)
        assert document is None or said(document) in GENUINE

    for_all(trees_changed(), examples, check)


@sizes(250, 30_000)
def test_bytes_of_two_signed_tags_in_one_are_refused_or_say_what_was_signed(examples: int) -> None:
    def check(data: bytes) -> None:
        document = believed(data)
        assert document is None or said(document) in GENUINE

    for_all(bytes_changed(RIMS), examples, check)


def test_the_genuine_tags_are_believed() -> None:
    assert all(believed(rim) is not None for rim in RIMS)
