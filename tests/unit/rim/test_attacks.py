"""Documents made to harm or to deceive: each is refused quickly, with a code of its own."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable

import pytest

from nvattest.errors import ParseError, ResultCode
from nvattest.pki.anchors import trust_anchors_from_pem
from nvattest.pki.chain import ChainProfile, validate_chain
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.document import parse_rim
from nvattest.rim.verify import RimVerification, verify_rim

from . import minting
from .minting import C14N, CLOCK, DS, MARK, MORE, OPAQUE, SHA384, SWID, Resource, Rim, mint, signer

KIBI = 1024
BILLION = (
    b'<!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "&%c;&%c;&%c;&%c;">' % (98 + i, *([97 + i] * 4)) for i in range(20))
    + b"]>"
)


def verify(data: bytes, root_pem: bytes | None = None) -> RimVerification:
    anchors = trust_anchors_from_pem(root_pem or signer("GH100").root_pem)
    return verify_rim(parse_rim(data), anchors=anchors.rim, at=CLOCK, verifier=EcdsaVerifier())


def swap(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode(), 1)

    return change


def between(start: str, end: str, new: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        changed, count = re.subn(
            (re.escape(start) + ".*?" + re.escape(end)).encode(), lambda _: new.encode(), data, count=1, flags=re.DOTALL
        )
        assert count == 1
        return changed

    return change


def signature_of(data: bytes) -> bytes:
    match = re.search(rb"<ds:Signature .*</ds:Signature>", data, re.DOTALL)
    assert match
    return match.group()


def wrap(data: bytes) -> bytes:
    """A signed tag put inside of another, as in signature wrapping."""
    return data.replace(b"<ns0:Payload>", b"<ns0:Payload>" + data, 1)


def resources(count: int) -> bytes:
    return mint().replace(b"</ns0:Payload>", b"<ns0:Resource/>" * count + b"</ns0:Payload>")


ATTACKS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    # hostile XML
    "empty": ("rim-size", lambda _: b""),
    "one byte too many": ("rim-size", lambda data: data + b"\n" * ((1 << 20) + 1 - len(data))),
    "billion laughs": ("rim-dtd", lambda data: BILLION + data.replace(b"r1", b"&z;")),
    "bare DTD": ("rim-dtd", lambda data: b"<!DOCTYPE SoftwareIdentity>" + data),
    "lower-case doctype": ("rim-dtd", lambda data: b"<!doctype SoftwareIdentity>" + data),
    "DTD with a default attribute": (
        "rim-dtd",
        lambda data: b'<!DOCTYPE s [<!ATTLIST s active CDATA "True">]>' + data,
    ),
    "external DTD": ("rim-dtd", lambda data: b'<!DOCTYPE s SYSTEM "http://127.0.0.1:9/x.dtd">' + data),
    "external entity": ("rim-dtd", lambda data: b'<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + data),
    "undeclared entity": ("rim-entity", swap("r1", "&x;")),
    "character reference": ("rim-entity", swap("r1", "r&#49;")),
    "comment inside a digit": ("rim-comment", swap("<ds:DigestValue>", "<ds:DigestValue>AA<!-- -->")),
    "comment between elements": ("rim-comment", swap("<ns0:Payload>", "<!--x--><ns0:Payload>")),
    "comment after the root": ("rim-comment", lambda data: data + b"<!-- x -->"),
    "CDATA": ("rim-cdata", swap("<ds:DigestValue>", "<ds:DigestValue><![CDATA[]]>")),
    "processing instruction": ("rim-processing-instruction", swap("<ns0:Payload>", "<?x y?><ns0:Payload>")),
    "style sheet": ("rim-processing-instruction", lambda data: b'<?xml-stylesheet href="x"?>' + data),
    "a declaration that is not first": ("rim-processing-instruction", lambda data: b'\n<?xml version="1.0"?>' + data),
    "10,000 Resources": ("rim-limits", lambda _: resources(10_000)),
    "257 Resources": ("rim-limits", lambda _: resources(253)),
    "deep nesting": ("rim-limits", lambda _: b"<a>" * 300_000),
    "nesting beyond the parser": ("rim-xml", lambda _: b"<a>" * 300 + b"</a>" * 300),
    "nesting within the parser": ("rim-schema", lambda _: b"<a>" * 200 + b"</a>" * 200),
    "60,000 attributes": ("rim-limits", lambda _: b"<a " + b" ".join(b'a%d=""' % i for i in range(60_000)) + b"/>"),
    "10,000 namespaces": (
        "rim-limits",
        lambda _: b"<a " + b" ".join(b'xmlns:a%d="u"' % i for i in range(8_000)) + b"/>",
    ),
    "1 MiB of junk": ("rim-encoding", lambda _: hashlib.shake_256(b"junk").digest(KIBI * KIBI)),
    "1 MiB of text": ("rim-xml", lambda _: b"A" * (KIBI * KIBI)),
    "1 MiB in one attribute": ("rim-xml", lambda _: b'<a b="' + b"x" * (KIBI * KIBI - 10)),
    "1 MiB name": ("rim-xml", lambda _: b"<" + b"a" * (KIBI * KIBI - 10)),
    "1 MiB of end marks": ("rim-xml", lambda _: b">" * (KIBI * KIBI)),
    "truncated": ("rim-xml", lambda data: data[:-9]),
    "two roots": ("rim-xml", lambda data: data + data),
    "junk after the root": ("rim-xml", lambda data: data + b"x"),
    # encodings
    "UTF-16 with a mark": ("rim-encoding", lambda data: data.decode().encode("utf-16")),
    "UTF-16 without a mark": ("rim-encoding", lambda data: data.decode().encode("utf-16-le")),
    "UTF-32": ("rim-encoding", lambda data: data.decode().encode("utf-32-be")),
    "UTF-8 with a mark": ("rim-encoding", lambda data: b"\xef\xbb\xbf" + data),
    "declared Latin-1": ("rim-encoding", lambda data: b'<?xml version="1.0" encoding="ISO-8859-1"?>' + data),
    "declared UTF-7": ("rim-encoding", lambda data: b'<?xml version="1.0" encoding="UTF-7"?>' + data),
    "XML 1.1": ("rim-encoding", lambda data: b'<?xml version="1.1"?>' + data),
    "overlong UTF-8": ("rim-encoding", lambda data: data.replace(b"r1", b"r\xc0\xb1")),
    "a surrogate": ("rim-encoding", lambda data: data.replace(b"r1", b"r\xed\xa0\x80")),
    "a control character": ("rim-xml", lambda data: data.replace(b"r1", b"r\x01")),
    # namespaces and attributes
    "xml:base": ("rim-xml-attribute", swap("<SoftwareIdentity ", '<SoftwareIdentity xml:base="http://x/" ')),
    "xml:lang": ("rim-xml-attribute", swap("<ns0:Payload", '<ns0:Payload xml:lang="en"')),
    "xml:id": ("rim-xml-attribute", swap("<ds:SignedInfo", '<ds:SignedInfo\nxml:id="a"')),
    "elements in another namespace": ("rim-schema", swap(f'xmlns:ns0="{SWID}"', 'xmlns:ns0="http://x/"')),
    "elements without a namespace": ("rim-schema", swap(f'xmlns="{SWID}"', 'xmlns:q="http://x/"')),
    "hashes in another namespace": ("rim-hash", swap(f'xmlns:ns2="{SHA384}"', 'xmlns:ns2="http://x/"')),
    "hashes without a namespace": ("rim-hash", swap("ns2:Hash0", "Hash0")),
    "a Signature in another namespace": ("rim-signature-profile", swap(f'xmlns:ds="{DS}"', 'xmlns:ds="http://x/"')),
    "a prefix bound again": ("rim-hash", swap('size="48"', f'size="48" xmlns:ns2="{SWID}"')),
    "one attribute under two prefixes": (
        "rim-xml",
        swap("ns2:Hash0=", f'xmlns:SHA384="{SHA384}" SHA384:Hash0="{"00" * 48}" ns2:Hash0='),
    ),
    "one attribute twice": ("rim-xml", swap('size="48"', 'size="48" size="48"')),
    "a relative namespace": ("rim-namespace", swap("<ns0:Payload>", '<ns0:Payload xmlns:rel="rel">')),
    "a QName with two colons": ("rim-xml", swap("<ns0:Payload>", "<ns0:ns0:Payload>")),
    # structure
    "another root": ("rim-schema", lambda _: b"<SoftwareIdentity/>"),
    "a Signature as root": ("rim-schema", signature_of),
    "nested SoftwareIdentity": ("rim-schema", wrap),
    "a second Payload": ("rim-schema", swap("<ns0:Payload>", "<ns0:Payload/><ns0:Payload>")),
    "a second Meta": ("rim-schema", swap("<ns0:Meta ", '<ns0:Meta colloquialVersion="1"/><ns0:Meta ')),
    "a Resource outside of Payload": ("rim-schema", swap("<ns0:Payload>", "<ns0:Resource/><ns0:Payload>")),
    "a Resource in a Resource": ("rim-schema", swap("</ns0:Resource>", "<ns0:Resource/></ns0:Resource>")),
    "text in a Resource": ("rim-schema", swap("</ns0:Resource>", "x</ns0:Resource>")),
    "text in Payload": ("rim-schema", swap("</ns0:Payload>", "x</ns0:Payload>")),
    "text at the end": ("rim-schema", swap("</SoftwareIdentity>", "x</SoftwareIdentity>")),
    "an unknown attribute on the root": ("rim-schema", swap("<SoftwareIdentity ", '<SoftwareIdentity Id="a" ')),
    "an unknown attribute on Meta": ("rim-schema", swap("<ns0:Meta ", '<ns0:Meta golden="1" ')),
    "an attribute on Payload": ("rim-schema", swap("<ns0:Payload>", '<ns0:Payload Id="a">')),
    "a patch tag": ("rim-schema", swap('patch="false"', 'patch="true"')),
    "no version": ("rim-schema", swap('colloquialVersion="550.90.07"', "")),
    "a path as version": ("rim-schema", swap('colloquialVersion="550.90.07"', 'colloquialVersion="../x"')),
    "no manufacturer": ("rim-schema", swap('ns1:FirmwareManufacturerId="5703"', "")),
    # golden values
    "active in lower case": ("rim-schema", swap('active="True"', 'active="true"')),
    "active 1": ("rim-schema", swap('active="True"', 'active="1"')),
    "an index twice": ("rim-duplicate", swap('index="1"', 'index="0"')),
    "an index with a leading zero": ("rim-number", swap('index="1"', 'index="01"')),
    "an index with a plus": ("rim-number", swap('index="1"', 'index="+1"')),
    "an index with a blank": ("rim-number", swap('index="1"', 'index=" 1"')),
    "an index in Arabic digits": ("rim-number", swap('index="1"', 'index="١"')),
    "an index with an underscore": ("rim-number", swap('index="1"', 'index="1_0"')),
    "an index in hexadecimal": ("rim-number", swap('index="1"', 'index="0x1"')),
    "a negative index": ("rim-number", swap('index="1"', 'index="-1"')),
    "an index of 254": ("rim-number", swap('index="1"', 'index="254"')),
    "an index of 4095": ("rim-number", swap('index="1"', 'index="4095"')),
    "an index past the opaque types": ("rim-number", swap('index="1"', 'index="69632"')),
    "an index of 100,000 digits": ("rim-number", swap('index="1"', f'index="{"1" * 100_000}"')),
    "no alternatives": ("rim-schema", swap('alternatives="1"', "")),
    "alternatives 0": ("rim-hash", swap('alternatives="1"', 'alternatives="0"')),
    "alternatives 17": ("rim-number", swap('alternatives="1"', 'alternatives="17"')),
    "fewer hashes than alternatives": ("rim-hash", swap('alternatives="1"', 'alternatives="2"')),
    "a hash beyond alternatives": ("rim-hash", swap("ns2:Hash0=", f'ns2:Hash1="{"00" * 48}" ns2:Hash0=')),
    "a hash far beyond alternatives": ("rim-hash", swap("ns2:Hash0=", f'ns2:Hash16="{"00" * 48}" ns2:Hash0=')),
    "Hash00": ("rim-hash", swap("ns2:Hash0=", "ns2:Hash00=")),
    "a hash in upper case": ("rim-hash", swap("11" * 48, "AB" * 48)),
    "a hash too short": ("rim-hash", swap("11" * 48, "11" * 47)),
    "a hash too long": ("rim-hash", swap("11" * 48, "11" * 49)),
    "a hash with a line end": ("rim-hash", swap("11" * 48, "11" * 48 + "\n")),
    "size 32": ("rim-number", swap('size="48"', 'size="32"')),
    "a name with markup": ("rim-schema", swap('name="Measurement_1"', 'name="a>b"')),
    "a floor on a measurement": (
        "rim-schema",
        swap("ns2:Hash0=", f'ns9:minSvn="1" xmlns:ns9="{OPAQUE}" ns2:Hash0='),
    ),
    "nothing active": ("rim-empty", lambda data: data.replace(b'active="True"', b'active="False"')),
    # signatures
    "no Signature": ("rim-signature-profile", lambda data: data.replace(signature_of(data), b"")),
    "a second Signature": (
        "rim-signature-profile",
        lambda data: data.replace(b"</SoftwareIdentity>", signature_of(data) + b"</SoftwareIdentity>"),
    ),
    "a Signature in Payload": (
        "rim-signature-profile",
        lambda data: data.replace(b"</ns0:Payload>", signature_of(data) + b"</ns0:Payload>"),
    ),
    "a Signature first": (
        "rim-signature-profile",
        lambda data: data.replace(signature_of(data), b"").replace(b"<ns0:Entity", signature_of(data) + b"<ns0:Entity"),
    ),
    "a Signature with an Id": ("rim-signature-profile", swap("<ds:Signature ", '<ds:Signature Id="a" ')),
    "an Object": ("rim-signature-profile", swap("</ds:Signature>", "<ds:Object></ds:Object></ds:Signature>")),
    "text in the Signature": ("rim-signature-profile", swap("<ds:KeyInfo>", "x<ds:KeyInfo>")),
    "two SignedInfo": ("rim-signature-profile", swap("<ds:SignatureValue>", "<ds:SignedInfo/><ds:SignatureValue>")),
    "two References": ("rim-reference", swap("</ds:SignedInfo>", '<ds:Reference URI=""/></ds:SignedInfo>')),
    "a Reference to an Id": ("rim-reference", swap('URI=""', 'URI="#a"')),
    "a Reference to an address": ("rim-reference", swap('URI=""', 'URI="http://127.0.0.1/"')),
    "a Reference without URI": ("rim-reference", swap(' URI=""', "")),
    "a Reference with a Type": ("rim-reference", swap('URI=""', 'URI="" Type="x"')),
    "no Transforms": ("rim-reference", between("<ds:Transforms>", "</ds:Transforms>", "")),
    "one Transform": ("rim-transform", swap(f'<ds:Transform Algorithm="{C14N}"></ds:Transform>', "")),
    "three Transforms": ("rim-transform", swap("</ds:Transforms>", "<ds:Transform/></ds:Transforms>")),
    "XPath": (
        "rim-transform",
        swap(
            f'<ds:Transform Algorithm="{C14N}">',
            '<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116">',
        ),
    ),
    "XSLT": (
        "rim-transform",
        swap(f"{DS}enveloped-signature", "http://www.w3.org/TR/1999/REC-xslt-19991116"),
    ),
    "transforms in the other order": (
        "rim-transform",
        between(
            "<ds:Transforms>",
            "</ds:Transforms>",
            f'<ds:Transforms><ds:Transform Algorithm="{C14N}"/>'
            f'<ds:Transform Algorithm="{DS}enveloped-signature"/></ds:Transforms>',
        ),
    ),
    "a Transform with content": (
        "rim-transform",
        swap(f'<ds:Transform Algorithm="{C14N}">', f'<ds:Transform Algorithm="{C14N}"><ds:XPath>1</ds:XPath>'),
    ),
    "HMAC": ("rim-signature-algorithm", swap(f"{MORE}ecdsa-sha384", f"{MORE}hmac-sha384")),
    "RSA": ("rim-signature-algorithm", swap(f"{MORE}ecdsa-sha384", f"{MORE}rsa-sha384")),
    "ECDSA with SHA-256": ("rim-signature-algorithm", swap(f"{MORE}ecdsa-sha384", f"{MORE}ecdsa-sha256")),
    "no signature algorithm": ("rim-signature-algorithm", swap(f' Algorithm="{MORE}ecdsa-sha384"', "")),
    "exclusive C14N": (
        "rim-canonicalization",
        swap(f'Method Algorithm="{C14N}"', 'Method Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"'),
    ),
    "C14N 1.0": (
        "rim-canonicalization",
        swap(f'Method Algorithm="{C14N}"', 'Method Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"'),
    ),
    "C14N with comments": (
        "rim-canonicalization",
        swap(f'Method Algorithm="{C14N}"', f'Method Algorithm="{C14N}#WithComments"'),
    ),
    "a SHA-256 digest": ("rim-digest-algorithm", swap(f"{MORE}sha384", "http://www.w3.org/2001/04/xmlenc#sha256")),
    "a SHA-1 digest": ("rim-digest-algorithm", swap(f"{MORE}sha384", f"{DS}sha1")),
    "KeyValue instead of X509Data": (
        "rim-key-info",
        between("<ds:X509Data>", "</ds:X509Data>", "<ds:KeyValue></ds:KeyValue>"),
    ),
    "KeyValue beside X509Data": ("rim-key-info", swap("<ds:X509Data>", "<ds:KeyValue/><ds:X509Data>")),
    "KeyName": ("rim-key-info", swap("<ds:X509Data>", "<ds:KeyName>root</ds:KeyName><ds:X509Data>")),
    "RetrievalMethod": ("rim-key-info", swap("<ds:X509Data>", '<ds:RetrievalMethod URI="#a"/><ds:X509Data>')),
    "X509SubjectName": ("rim-key-info", swap("<ds:X509Data>", "<ds:X509Data><ds:X509SubjectName/>")),
    "two X509Data": ("rim-key-info", swap("<ds:X509Data>", "<ds:X509Data/><ds:X509Data>")),
    "no certificate": ("rim-key-info", between("<ds:X509Data>", "</ds:X509Data>", "<ds:X509Data></ds:X509Data>")),
    "nine certificates": (
        "rim-key-info",
        swap("<ds:X509Data>", "<ds:X509Data>" + "<ds:X509Certificate>AAAA</ds:X509Certificate>" * 5),
    ),
    "a certificate that is none": (
        "rim-certificate",
        between("<ds:X509Certificate>", "</ds:X509Certificate>", "<ds:X509Certificate>AAAA</ds:X509Certificate>"),
    ),
    "an empty certificate": (
        "rim-base64",
        between("<ds:X509Certificate>", "</ds:X509Certificate>", "<ds:X509Certificate/>"),
    ),
    "a certificate of 17 KiB": (
        "rim-base64",
        between(
            "<ds:X509Certificate>",
            "</ds:X509Certificate>",
            f"<ds:X509Certificate>{base64.b64encode(bytes(17 * KIBI)).decode()}</ds:X509Certificate>",
        ),
    ),
    "a SignatureValue in DER": (
        "rim-base64",
        between(
            "<ds:SignatureValue>",
            "</ds:SignatureValue>",
            f"<ds:SignatureValue>{base64.b64encode(b'0' * 104).decode()}</ds:SignatureValue>",
        ),
    ),
    "a DigestValue of 32 bytes": (
        "rim-base64",
        between(
            "<ds:DigestValue>",
            "</ds:DigestValue>",
            f"<ds:DigestValue>{base64.b64encode(bytes(32)).decode()}</ds:DigestValue>",
        ),
    ),
    "base64 with other letters": ("rim-base64", swap("<ds:SignatureValue>", "<ds:SignatureValue>*")),
    "base64 with letters outside of ASCII": ("rim-base64", swap("<ds:SignatureValue>", "<ds:SignatureValue>é")),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_document_is_refused_quickly_with_its_own_code(name: str) -> None:
    code, change = ATTACKS[name]
    good = mint()
    assert parse_rim(good).digest_ok
    data = change(good)
    started = time.process_time()
    with pytest.raises(ParseError) as caught:
        parse_rim(data)
    spent = time.process_time() - started
    assert caught.value.code == code, str(caught.value)
    assert caught.value.result_code is ResultCode.RIM_INVALID_SCHEMA
    assert caught.value.source == "RIM"
    assert caught.value.hint
    assert spent < 0.1, f"{spent * 1000:.0f} ms"


def test_the_offset_of_a_construct_is_told() -> None:
    data = swap("<ns0:Payload>", "<!--x--><ns0:Payload>")(mint())
    with pytest.raises(ParseError) as caught:
        parse_rim(data)
    assert caught.value.offset == data.index(b"<!--")


def test_the_offset_of_a_syntax_error_is_told() -> None:
    data = swap('size="48"', 'size="48" size="48"')(mint())
    with pytest.raises(ParseError) as caught:
        parse_rim(data)
    offset = caught.value.offset
    assert offset is not None
    # The parser notices at the end of the tag.
    assert data.index(b'size="48" size="48"') < offset < data.index(b"</ns0:Resource>")


def test_a_minted_document_verifies() -> None:
    outcome = verify(mint())
    assert outcome.signature_valid
    assert outcome.verified is not None, outcome.detail


def test_a_declaration_of_utf_8_is_fine() -> None:
    for declaration in (b'<?xml version="1.0" encoding="UTF-8"?>\n', b"<?xml version='1.0' standalone='yes' ?>"):
        assert verify(declaration + mint()).verified is not None


def test_line_ends_of_another_system_do_not_matter() -> None:
    assert verify(mint().replace(b"\n", b"\r\n")).verified is not None


def test_text_after_the_signature_is_signed_content() -> None:
    # A remover that drops the text after the Signature would find a wrong digest, one that ignores it would miss this.
    data = mint()
    assert verify(data).document.digest_ok
    assert not verify(data.replace(b"</ds:Signature>\n", b"</ds:Signature> \n")).document.digest_ok
    assert not verify(data.replace(b"</ds:Signature>\n", b"</ds:Signature>")).document.digest_ok


def test_the_key_of_another_certificate_does_not_count() -> None:
    # Signed by the L3 authority's key: the chain is good, the signature is good under a key of the document, and still.
    good = signer("GH100")
    forged = minting.Signer.__new__(minting.Signer)
    forged.keys, forged.chain, forged.root_pem = good.keys[1:], good.chain, good.root_pem
    outcome = verify(forged.sign(Rim().canonical()))
    assert outcome.chain.path_ok
    assert outcome.document.digest_ok
    assert not outcome.signature_valid
    assert outcome.verified is None


def test_a_leaf_put_before_the_chain_does_not_count() -> None:
    other = minting.Signer("GH100")
    forged = minting.Signer.__new__(minting.Signer)
    forged.keys, forged.chain = other.keys, [other.chain[0], *signer("GH100").chain]
    outcome = verify(forged.sign(Rim().canonical()))
    assert outcome.signature_valid
    assert not outcome.chain.path_ok
    assert outcome.verified is None


@pytest.mark.parametrize("purpose", ["2.23.133.5.4.100.8", "1.3.6.1.4.1.412.274.3"])
def test_a_leaf_that_is_certified_for_devices_signs_no_rim_though_one_root_serves_both(purpose: str) -> None:
    device = minting.Signer("GH100", [purpose])
    outcome = verify(device.sign(Rim().canonical()), device.root_pem)
    assert outcome.signature_valid
    assert [(finding.rule, finding.position) for finding in outcome.chain.path_findings] == [("key-usage", 0)]
    assert outcome.verified is None
    anchors = trust_anchors_from_pem(device.root_pem).device
    certificates = outcome.document.certificates
    as_device = validate_chain(certificates, anchors, profile=ChainProfile.DEVICE, at=CLOCK, verifier=EcdsaVerifier())
    assert as_device.path_ok


@pytest.mark.parametrize(
    ("before", "after"), [("", "\n"), ("", "\r\n  "), ("", ""), ("\n", ""), ("\n  ", "\t\n"), ("\n", "\n")]
)
def test_white_space_before_and_after_the_signature_is_signed_content(before: str, after: str) -> None:
    canonical = Rim().canonical().replace(f"\n{MARK}\n", f"{before}{MARK}{after.replace(chr(13), '')}")
    data = signer("GH100").sign(canonical)
    plain = data.replace(b"</ds:Signature>" + after.replace("\r", "").encode(), b"</ds:Signature>" + after.encode())
    outcome = verify(plain)
    assert outcome.verified is not None, outcome.detail
    for changed in (
        plain.replace(b"</ds:Signature>", b"</ds:Signature> "),
        plain.replace(b"<ds:Signature ", b" <ds:Signature "),
    ):
        altered = verify(changed)
        assert not altered.document.digest_ok
        assert altered.verified is None


def test_a_self_signed_chain_does_not_count() -> None:
    outcome = verify(minting.Signer("GH100").sign(Rim().canonical()))
    assert outcome.signature_valid
    assert not outcome.chain.path_ok
    assert outcome.verified is None
    assert "chain:" in outcome.detail


def test_a_prefix_renamed_breaks_the_signature() -> None:
    # The same names by URI, other bytes: readable, and not what was signed.
    outcome = verify(mint().replace(b"ns2:", b"nsX:").replace(b"xmlns:ns2=", b"xmlns:nsX="))
    assert outcome.document.golden
    assert not outcome.document.digest_ok
    assert outcome.verified is None


def test_minimum_security_versions_are_read() -> None:
    floors = [
        Resource(4096 + 37, name="FSP_UCODE_MIN_SVN", min_svn=5, include=True),
        Resource(4096, name="ZERO", min_svn=(1 << 64) - 1),
        Resource(4096 + 40, name="OFF", min_svn=7, active=False),
    ]
    verified = verify(mint(Rim(resources=[*floors, Resource(0), Resource(7, (b"a" * 48, b"b" * 48))]))).verified
    assert verified is not None
    assert [(f.data_type, f.name, f.minimum, f.include_in_result) for f in verified.document.min_svn] == [
        (0, "ZERO", (1 << 64) - 1, False),
        (37, "FSP_UCODE_MIN_SVN", 5, True),
    ]
    assert sorted(verified.golden) == [0, 7]
    assert verified.golden[7].values == (b"a" * 48, b"b" * 48)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('ns3:minSvn="5"', "", "rim-schema"),
        ('ns3:minSvn="5"', f'ns2:Hash0="{"00" * 48}"', "rim-schema"),
        ('ns3:minSvn="5"', 'ns3:minSvn="05"', "rim-number"),
        ('ns3:minSvn="5"', 'ns3:minSvn="-5"', "rim-number"),
        ('ns3:minSvn="5"', 'ns3:minSvn="5.0"', "rim-number"),
        ('ns3:minSvn="5"', 'ns3:minSvn=""', "rim-number"),
        ('ns3:minSvn="5"', 'ns3:minSvn="18446744073709551616"', "rim-number"),
        ('ns3:minSvn="5"', 'minSvn="5"', "rim-schema"),
        ('ns3:minSvn="5"', 'ns3:minSvn="5" ns3:maxSvn="9"', "rim-schema"),
        ('ns3:minSvn="5"', f'ns3:minSvn="5" ns2:Hash1="{"00" * 48}"', "rim-hash"),
        ('ns3:includeInResult="True"', 'ns3:includeInResult="true"', "rim-schema"),
        ('size="2"', 'size="0"', "rim-number"),
        ('name="FSP"', 'name=""', "rim-schema"),
        ('index="4133"', 'index="63"', "rim-number"),
    ],
)
def test_a_malformed_floor_is_refused(old: str, new: str, code: str) -> None:
    good = mint(Rim(resources=[Resource(0), Resource(4133, name="FSP", min_svn=5, include=True)]))
    with pytest.raises(ParseError) as caught:
        parse_rim(swap(old, new)(good))
    assert caught.value.code == code, str(caught.value)


def test_two_floors_of_one_name_are_refused() -> None:
    floors = [Resource(4100, name="A", min_svn=1), Resource(4101, name="A", min_svn=2)]
    with pytest.raises(ParseError) as caught:
        parse_rim(mint(Rim(resources=[Resource(0), *floors])))
    assert caught.value.code == "rim-duplicate"


def test_a_floor_may_carry_a_hash_for_older_readers() -> None:
    good = mint(Rim(resources=[Resource(0), Resource(4133, name="FSP", min_svn=5)]))
    document = parse_rim(swap('ns3:minSvn="5"', f'ns2:Hash0="{"00" * 48}" ns3:minSvn="5"')(good))
    assert [floor.minimum for floor in document.min_svn] == [5]
    assert [value.index for value in document.golden] == [0]


def test_256_resources_are_the_most() -> None:
    most = [Resource(index) for index in range(250)] + [
        Resource(4096 + index, name=f"N{index}", min_svn=1) for index in range(6)
    ]
    assert len(parse_rim(mint(Rim(resources=most))).golden) == 250


def test_the_marker_of_the_writer_is_not_in_documents() -> None:
    assert MARK.encode() not in mint()
