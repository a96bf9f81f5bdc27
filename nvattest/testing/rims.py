"""The reference manifests of the simulation: SWID XML in the form and the XMLDSig profile of NVIDIA's.

Each element is written twice from the same data: as it is in the file, and in canonical form (C14N 1.1), over which the
digest runs. No XML library takes part, so that the canonical form here is an independent opinion (ISO/IEC 19770-2, TCG
RIM IM, XMLDSig).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nvattest._registry import OPAQUE_RECORD_BASE, RIM_MANUFACTURER_ID, GpuField
from nvattest.testing.certificates import Certificate, Key
from nvattest.testing.lies import Told
from nvattest.testing.silicon import Silicon, golden_value

_REISSUED_INDEX = 9
_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"
_TCG = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
_OPAQUE = "https://docs.nvidia.com/attestation/specs/latest/opaque-data.html"
_DSIG = "http://www.w3.org/2000/09/xmldsig#"
_C14N = "http://www.w3.org/2006/12/xml-c14n11"
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_RESOURCES = 64
_VENDOR = "NVIDIA Corporation"

_URIS = {"ns1": _TCG, "ns2": _SHA384, "ns3": _OPAQUE}

Attributes = list[tuple[str, str]]
# A part of the document as it is in the file, and its canonical form.
Both = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RimOrder:
    """Which RIM is wanted: for what silicon, in which role, under which id, for which version."""

    silicon: Silicon
    role: str
    id: str
    version: str
    minimum_svn: int | None
    told: Told


def issue_rim(order: RimOrder, chain: Sequence[Certificate], key: Key) -> bytes:
    """The signed XML of one RIM, with the lies told about it; ``chain`` and ``key`` are its signer's."""
    told, content = order.told, _content(order)
    damage = b"\x00" if "signature" in told else b""
    xml = write_rim(content, [_lines(item.der) for item in chain], lambda data: key.sign_raw(data + damage))
    for index in told.indexed("tampered"):
        # One lie of rim* is about several RIMs, and an index is in one of them. Zeros stand in many places.
        xml = xml.replace(max(content.golden[index]).hex().encode(), b"f" * 96) if index in content.golden else xml
    return xml


def _content(order: RimOrder) -> RimContent:
    silicon, role, told = order.silicon, order.role, order.told
    indices = () if "no-values" in told else silicon.golden[role]
    golden = {index: silicon.values_of(role, order.id, index) for index in indices}
    for index, given in told.indexed("golden").items():
        golden[index] = [bytes.fromhex(given) or golden_value("lie", order.id, index)]
    usual = _REISSUED_INDEX if _REISSUED_INDEX in silicon.golden[role] else silicon.golden[role][0]
    if (argument := told.get("reissued", str(usual))) is not None:
        golden[int(argument)] = silicon.values_of(role, order.id, int(argument), "reissued")
    for argument in told.all("conflict"):
        golden[int(argument)] = [golden_value("conflict", order.id, int(argument))]
    minimum = told.get("min-svn")
    svn = order.minimum_svn if minimum is None else int(minimum)
    tag = f"{order.id} {sorted(golden.items())} {svn}{' renewed' if 'renewed' in told else ''}"
    return RimContent(
        version=told.get("wrong-version", "0.0.0") or order.version,
        product=told.get("wrong-product", "GX999") or silicon.chip,
        edition=told.get("wrong-edition", "NIC") or ("SWITCH" if role == "bios" else "GPU"),
        manufacturer_id=told.get("wrong-manufacturer", "9999") or RIM_MANUFACTURER_ID,
        tag_id=hashlib.sha384(tag.encode()).hexdigest(),
        golden=golden,
        minimum_svn=svn,
        tricks=frozenset(told.all("xml")),
    )


def _lines(der: bytes) -> str:
    """Base64 in lines of 64, with the final line break that some readers of RIMs rely on."""
    text = base64.b64encode(der).decode()
    return "".join(text[i : i + 64] + "\n" for i in range(0, len(text), 64))


# --- the document -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RimContent:
    """What a RIM says. ``golden`` maps an active index to its alternatives; all other indices are inactive zeros.

    ``minimum_svn`` is an opaque record: the smallest security version number of the FSP that passes. ``tricks`` break
    the profile.
    """

    version: str
    product: str
    edition: str
    tag_id: str
    golden: Mapping[int, Sequence[bytes]]
    manufacturer_id: str
    minimum_svn: int | None
    tricks: frozenset[str]


def write_rim(content: RimContent, chain_pem_bodies: Sequence[str], sign: Callable[[bytes], bytes]) -> bytes:
    """A signed RIM.

    ``chain_pem_bodies`` are the base64 texts of its certificates, leaf first, each ending in a line break; ``sign``
    gives 96 bytes r and s over the canonical SignedInfo.
    """
    plain, canonical = _document(content)
    digest = base64.b64encode(hashlib.sha384(canonical.encode()).digest()).decode()
    signature = _signature(content, digest, chain_pem_bodies, sign)
    twice = signature if "second-signature" in content.tricks else ""
    text = f"{plain}{signature}{twice}</SoftwareIdentity>\n"
    if "dtd" in content.tricks:
        text = "<!DOCTYPE SoftwareIdentity>\n" + text
    if "entity" in content.tricks:
        text = '<!DOCTYPE SoftwareIdentity [<!ENTITY vendor "NVIDIA">]>\n' + text
    return (text[: len(text) // 2] if "truncated" in content.tricks else text).encode()


def _document(content: RimContent) -> Both:
    """The document up to the signature, and the canonical one without the signature."""
    inner, outer = ("\n        ",) * 2, ("\n    ",) * 2
    namespaces = [("xmlns", _SWID), ("xmlns:ns0", _SWID), ("xmlns:ns2", _SHA384)]
    if content.minimum_svn is not None:
        namespaces.append(("xmlns:ns3", _OPAQUE))
    software = [
        ("corpus", "false"), ("name", content.product), ("patch", "false"), ("supplemental", "false"),
        ("tagId", content.tag_id), ("version", "1.0"), ("tagVersion", "0"),
    ]  # fmt: skip
    meta = [
        ("colloquialVersion", content.version), ("edition", content.edition), ("product", content.product),
        ("revision", "r1"), ("PayloadType", "direct"), ("ns1:BindingSpec", "RIMIM"),
        ("ns1:BindingSpecVersion", "1.01"), ("ns1:PlatformManufacturerId", content.manufacturer_id),
        ("ns1:PlatformManufacturerStr", _VENDOR), ("ns1:PlatformModel", content.product),
        ("ns1:FirmwareManufacturer", _VENDOR), ("ns1:FirmwareManufacturerId", content.manufacturer_id),
    ]  # fmt: skip
    parts = [_start("SoftwareIdentity", namespaces, software), outer]
    parts += [_empty("ns0:Entity", [], [("name", _VENDOR), ("role", "softwareCreator tagCreator")]), outer]
    parts += [_empty("ns0:Meta", [("xmlns:ns1", _TCG)], meta), outer]
    parts += [_start("ns0:Payload", [("xmlns:SHA384", _SHA384)], []), inner]
    if "comment" in content.tricks:  # canonical XML drops comments: the signature stays good
        parts.append(("<!-- simulated -->", ""))
    if "instruction" in content.tricks:
        parts.append(("<?simulated yes?>",) * 2)
    for resource in _resources(content):
        parts += [resource, inner]
    parts[-1:] = [outer, ("</ns0:Payload>\n",) * 2, ("", "</SoftwareIdentity>")]
    plain, canonical = map("".join, zip(*parts, strict=True))
    return plain, canonical


def _resources(content: RimContent) -> Iterator[Both]:
    for index in range(_RESOURCES):
        hashes = [value.hex() for value in content.golden.get(index, ())]
        yield _resource(
            f"Measurement_{index}",
            index,
            "48",
            "True" if hashes else "False",
            len(hashes) or 1,
            *((f"ns2:Hash{number}", value) for number, value in enumerate(hashes or ["0" * 96])),
        )
    if content.minimum_svn is not None:
        minimum = (("ns3:minSvn", str(content.minimum_svn)), ("ns3:includeInResult", "True"))
        yield _resource("FSP_UCODE_MIN_SVN", OPAQUE_RECORD_BASE + GpuField.FSP_UCODE_SVN, "2", "True", 0, *minimum)


def _resource(name: str, index: int, size: str, active: str, alternatives: int, *values: tuple[str, str]) -> Both:
    attributes = [("type", "Measurement"), ("index", str(index)), ("active", active)]
    attributes += [("alternatives", str(alternatives)), *values, ("name", name), ("size", size)]
    return _empty("ns0:Resource", [], attributes)


def _start(name: str, namespaces: Attributes, attributes: Attributes) -> Both:
    """A start tag with its own declarations of namespaces; the attributes are in the order of the document."""

    def render(items: Attributes) -> str:
        return "".join(f' {key}="{_escape(value)}"' for key, value in items)

    def order(item: tuple[str, str]) -> tuple[str, str]:
        prefix, colon, local = item[0].partition(":")
        return (_URIS[prefix], local) if colon else ("", prefix)

    plain, canonical = namespaces + attributes, sorted(namespaces) + sorted(attributes, key=order)
    return f"<{name}{render(plain)}>", f"<{name}{render(canonical)}>"


def _empty(name: str, namespaces: Attributes, attributes: Attributes) -> Both:
    """An element without content: the canonical form has an end tag."""
    plain, canonical = _start(name, namespaces, attributes)
    return f"{plain[:-1]}/>", f"{canonical}</{name}>"


def _signature(content: RimContent, digest: str, bodies: Sequence[str], sign: Callable[[bytes], bytes]) -> str:
    tricks = content.tricks
    reference = "#nothing" if "reference" in tricks else ""
    second = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315" if "transform" in tricks else _C14N
    method = "http://www.w3.org/2001/04/xmlenc#sha256" if "digest" in tricks else f"{_MORE}sha384"

    def algorithm(name: str, uri: str) -> str:
        return f'<ds:{name} Algorithm="{uri}"></ds:{name}>'

    inner = (
        f"{algorithm('CanonicalizationMethod', _C14N)}{algorithm('SignatureMethod', _MORE + 'ecdsa-sha384')}"
        f'<ds:Reference URI="{reference}"><ds:Transforms>{algorithm("Transform", _DSIG + "enveloped-signature")}'
        f"{algorithm('Transform', second)}</ds:Transforms>{algorithm('DigestMethod', method)}"
        f"<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
    )
    # The canonical form of a subset repeats the namespaces in scope at its apex (C14N 1.1, 2.3 and 4.6).
    scope = f'<ds:SignedInfo xmlns="{_SWID}" xmlns:ds="{_DSIG}" xmlns:ns0="{_SWID}" xmlns:ns2="{_SHA384}">'
    if content.minimum_svn is not None:
        scope = f'{scope[:-1]} xmlns:ns3="{_OPAQUE}">'
    value = base64.b64encode(sign((scope + inner).encode())).decode()
    plain = "<ds:SignedInfo>" + inner.replace("></ds:CanonicalizationMethod>", "/>")
    for element in ("SignatureMethod", "Transform", "DigestMethod"):
        plain = plain.replace(f"></ds:{element}>", "/>")
    key_value = "<ds:KeyValue><ds:ECKeyValue/></ds:KeyValue>" if "key-value" in tricks else ""
    certificates = "".join(f"<ds:X509Certificate>{body}</ds:X509Certificate>" for body in bodies)
    return (
        f'<ds:Signature xmlns:ds="{_DSIG}">{plain}<ds:SignatureValue>{value}</ds:SignatureValue>'
        f"<ds:KeyInfo>{key_value}<ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
