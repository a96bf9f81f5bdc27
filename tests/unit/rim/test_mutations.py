"""Random edits of a good document: nothing but ParseError ever escapes, and no edit of signed bytes is believed."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from nvattest.errors import ParseError
from nvattest.pki.anchors import trust_anchors_from_pem
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.document import parse_rim
from nvattest.rim.verify import verify_rim
from nvattest.rim.xml import explain_schema_error, read_xml

from .minting import CLOCK, Resource, Rim, mint, signer

RIM = Rim(resources=[Resource(0, (b"a" * 48, b"b" * 48)), Resource(4133, name="FSP", min_svn=5, include=True)])
SNIPPETS = [
    b"<",
    b">",
    b"/>",
    b"&lt;",
    b"<!--",
    b"]]>",
    b'"',
    b"=",
    b" xmlns:q='u'",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
    b"0" * 99,
]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    start=st.floats(0, 1),
    length=st.integers(0, 200),
    insert=st.one_of(st.binary(max_size=8), st.sampled_from(SNIPPETS), st.just(None)),
    target=st.floats(0, 1),
)
def test_an_edited_document_is_refused_or_not_believed(
    start: float, length: int, insert: bytes | None, target: float
) -> None:
    good = mint(RIM)
    at = int(start * len(good))
    # Without bytes to insert, a part is moved elsewhere: that finds doubled and misplaced elements.
    if insert is None:
        part, rest = good[at : at + length], good[:at] + good[at + length :]
        to = int(target * len(rest))
        data = rest[:to] + part + rest[to:]
    else:
        data = good[:at] + insert + good[at + length :]
    try:
        document = parse_rim(data)
    except ParseError:
        return
    outcome = verify_rim(
        document, anchors=trust_anchors_from_pem(signer("GH100").root_pem).rim, at=CLOCK, verifier=EcdsaVerifier()
    )
    if outcome.verified is not None:
        original = parse_rim(good)
        assert document.golden == original.golden
        assert document.min_svn == original.min_svn
        assert document.digest_found == original.digest_found


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))))
def test_arbitrary_bytes_are_refused_with_a_parse_error(data: bytes) -> None:
    for reader in (parse_rim, read_xml):
        try:
            reader(data)
        except ParseError:
            continue
        assert reader is read_xml
    with contextlib.suppress(ParseError):
        assert isinstance(explain_schema_error(data), str)
