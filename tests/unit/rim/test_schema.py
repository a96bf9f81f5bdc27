"""The published XSD, two schema engines and our own reader are held to each other; signxml judges signatures beside us."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from nvattest._package import schema_path
from nvattest.errors import ParseError
from nvattest.pki.anchors import trust_anchors_from_pem
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.document import parse_rim
from nvattest.rim.verify import verify_rim
from nvattest.rim.xml import PROFILE, explain_schema_error, explained, read_xml

from .minting import CLOCK, Resource, Rim, mint, signer
from .test_attacks import ATTACKS, swap

# What only the reader can say: XSD 1.0 has no words for it.
BEYOND_XSD = {
    "a relative namespace",
    "fewer hashes than alternatives",
    "alternatives 0",
    "a hash beyond alternatives",
    "size 32",
    "a floor on a measurement",
    "nothing active",
    "transforms in the other order",
    "a certificate that is none",
    "a Signature as root",
}
# The gate and the parser refuse these before a schema could be asked.
GATE = {
    "rim-size",
    "rim-encoding",
    "rim-dtd",
    "rim-comment",
    "rim-cdata",
    "rim-processing-instruction",
    "rim-entity",
    "rim-xml-attribute",
    "rim-xml",
}
PARSEABLE = sorted(name for name, (code, _) in ATTACKS.items() if code not in GATE)

RICH = Rim(
    resources=[
        Resource(0, (b"a" * 48, b"b" * 48)),
        Resource(1, active=False),
        Resource(253, tuple(bytes([value]) * 48 for value in range(16))),
        Resource(4133, name="FSP", min_svn=5, include=True),
        Resource(4096 + 65535, name="LAST", min_svn=(1 << 64) - 1),
    ]
)
ORDINARY_CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: data,
    "index 99999": swap('index="1"', 'index="99999"'),
    "index 69632": swap('index="69631"', 'index="69632"'),
    "index 254": swap('index="253"', 'index="254"'),
    "index 4095": swap('index="4133"', 'index="4095"'),
    "index 00": swap('index="0"', 'index="00"'),
    "alternatives +2": swap('alternatives="2"', 'alternatives="+2"'),
    "alternatives 17": swap('alternatives="16"', 'alternatives="17"'),
    "minSvn too large": swap('minSvn="18446744073709551615"', 'minSvn="18446744073709551616"'),
    "minSvn 05": swap('minSvn="5"', 'minSvn="05"'),
    "minSvn empty": swap('minSvn="5"', 'minSvn=""'),
    "minSvn blank": swap('minSvn="5"', 'minSvn=" 5"'),
    "include 1": swap('includeInResult="True"', 'includeInResult="1"'),
    "size 65535": swap('size="2"', 'size="65535"'),
    "size 65536": swap('size="2"', 'size="65536"'),
    "edition other": swap('edition="GPU"', 'edition="OTHER"'),
    "edition blank": swap('edition="GPU"', 'edition="GPU "'),
    "edition empty": swap('edition="GPU"', 'edition=""'),
    "manufacturer letters": swap('FirmwareManufacturerId="5703"', 'FirmwareManufacturerId="x"'),
    "manufacturer Arabic": swap('FirmwareManufacturerId="5703"', 'FirmwareManufacturerId="٥"'),
    "another TCG attribute": swap('ns1:PlatformModel="', 'ns1:PlatformVersion="1" ns1:PlatformModel="'),
    "another binding": swap('BindingSpec="RIMIM"', 'BindingSpec="OTHER"'),
    "payload type": swap('PayloadType="direct"', 'PayloadType="indirect"'),
    "supplemental": swap('supplemental="false"', 'supplemental="0"'),
    "no supplemental": swap('supplemental="false"', ""),
    "version scheme": swap('supplemental="false"', 'supplemental="false" versionScheme="alphanumeric"'),
    "tag id blank": swap('tagId="', 'tagId="a b'),
    "regid": swap('role="', 'regid="nvidia.com" role="'),
    "entity id": swap('role="', 'ID="nvidia.com" role="'),
    "no role": swap('role="softwareCreator tagCreator"', ""),
    "blank in Resource": swap("</ns0:Resource>", " </ns0:Resource>"),
    "digest with line ends": swap("<ds:DigestValue>", "<ds:DigestValue>\n"),
    "digest empty": lambda data: data.replace(
        data[data.index(b"<ds:DigestValue>") : data.index(b"</ds:DigestValue>")], b"<ds:DigestValue>"
    ),
    "blanks in SignedInfo": swap("<ds:Reference", "\n  <ds:Reference"),
}


@functools.cache
def engines() -> tuple[Any, Any]:
    import xmlschema

    path = schema_path(PROFILE)
    return etree.XMLSchema(etree.parse(path)), xmlschema.XMLSchema(path, allow="local")


def opinions(data: bytes) -> tuple[bool, bool, bool]:
    """What the reader, libxml2's schema engine and xmlschema say of a document that passes the gate."""
    try:
        parse_rim(data)
        ours = True
    except ParseError:
        ours = False
    libxml2, xmlschema = engines()
    return ours, bool(libxml2.validate(read_xml(data))), bool(xmlschema.is_valid(read_xml(data)))


def test_every_real_rim_follows_the_published_profile(real_rims: dict[str, Path]) -> None:
    for name, path in real_rims.items():
        data = path.read_bytes()
        assert opinions(data) == (True, True, True), name
        assert explain_schema_error(data) == ""


@pytest.mark.parametrize("name", ORDINARY_CHANGES)
def test_reader_and_both_schema_engines_agree(name: str) -> None:
    ours, libxml2, xmlschema = opinions(ORDINARY_CHANGES[name](mint(RICH)))
    assert libxml2 == xmlschema
    assert ours == libxml2


@pytest.mark.parametrize("name", PARSEABLE)
def test_hostile_documents_are_judged_alike(name: str) -> None:
    data = ATTACKS[name][1](mint())
    if ATTACKS[name][0] == "rim-limits":
        with pytest.raises(ParseError):
            parse_rim(data)
        return
    ours, libxml2, xmlschema = opinions(data)
    assert not ours
    assert libxml2 == xmlschema
    assert libxml2 is (name in BEYOND_XSD)


@pytest.mark.parametrize(
    "name", [name for name in PARSEABLE if name not in BEYOND_XSD or name == "a Signature as root"]
)
def test_the_explanation_is_empty_only_for_documents_that_follow_the_schema(name: str) -> None:
    try:
        why = explain_schema_error(ATTACKS[name][1](mint()))
    except ParseError as refusal:
        why = str(refusal)
    assert why


def test_the_explanation_says_where_and_why() -> None:
    text = explain_schema_error(swap('active="True"', 'active="true"')(mint()))
    assert "Resource[1]" in text
    assert "line 5" in text
    assert "'true'" in text


def test_the_explanation_of_hostile_bytes_comes_from_the_gate() -> None:
    for data in (b"<!DOCTYPE x>" + mint(), b""):
        with pytest.raises(ParseError) as caught:
            parse_rim(data)
        assert explained(caught.value, data) == str(caught.value)


def test_the_explanation_names_the_first_place_alone() -> None:
    data = mint(Rim(resources=[Resource(index) for index in range(200)])).replace(b"True", b"x")
    text = explain_schema_error(data)
    assert len(text.splitlines()) == 1
    assert "Resource[1]" in text


def signxml_says(data: bytes, root_pem: bytes) -> bool:
    import signxml
    from signxml.verifier import SignatureConfiguration

    anchors = trust_anchors_from_pem(root_pem)
    leaf = parse_rim(data).certificates[0]
    config = SignatureConfiguration(
        require_x509=True,
        signature_methods=frozenset([signxml.SignatureMethod.ECDSA_SHA384]),
        digest_algorithms=frozenset([signxml.DigestAlgorithm.SHA384]),
    )
    assert anchors.rim
    from cryptography import x509

    try:
        signxml.XMLVerifier().verify(data, x509_cert=x509.load_der_x509_certificate(leaf.der), expect_config=config)
    except signxml.exceptions.InvalidInput:
        return False
    except signxml.exceptions.InvalidSignature:
        return False
    return True


@pytest.mark.parametrize(
    ("change", "good"),
    [
        (lambda data: data, True),
        (swap("11" * 48, "12" * 48), False),
        (swap('name="Measurement_1"', 'name="Measurement_2"'), False),
        (swap("</ds:Signature>\n", "</ds:Signature>"), False),
        (swap("<ds:Reference", "\n<ds:Reference"), False),
        (swap("<ds:KeyInfo>", "\n<ds:KeyInfo>"), True),
    ],
)
def test_signxml_and_we_judge_signatures_alike(change: Callable[[bytes], bytes], good: bool) -> None:
    data = change(mint())
    pem = signer("GH100").root_pem
    ours = verify_rim(
        parse_rim(data), anchors=trust_anchors_from_pem(pem).rim, at=CLOCK, verifier=EcdsaVerifier()
    ).signature_valid
    assert ours is good
    assert signxml_says(data, pem) is good


@pytest.mark.benchmark
def test_cost_of_reading_and_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    import timeit

    data = mint(Rim(resources=[Resource(index) for index in range(64)]))
    root = read_xml(data)
    libxml2, xmlschema = engines()
    path = schema_path(PROFILE)
    rows = {
        "parse_rim": lambda: parse_rim(data),
        "lxml: compile the schema": lambda: etree.XMLSchema(etree.parse(path)),
        "lxml: validate": lambda: libxml2.validate(root),
        "xmlschema: validate": lambda: xmlschema.is_valid(root),
    }
    with capsys.disabled():
        for name, work in rows.items():
            print(f"\n{name}: {timeit.timeit(work, number=20) / 20 * 1e3:.2f} ms", end="")


XSI = ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


@pytest.mark.parametrize("attribute", ['xsi:type="x:y"', 'xsi:nil="true"', 'xsi:schemaLocation="a file:///etc/passwd"'])
def test_a_document_that_instructs_the_schema_library_is_refused_and_explained_as_any_other(attribute: str) -> None:
    data = swap("<ns0:Payload>", f"<ns0:Payload{XSI} {attribute}>")(mint(Rim()))
    with pytest.raises(ParseError) as caught:
        parse_rim(data)
    assert caught.value.code == "rim-schema"
    assert explained(caught.value, data).startswith(str(caught.value))
