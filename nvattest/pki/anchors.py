"""Trust anchors: the roots of NVIDIA, Intel and AMD, pinned as facts, and roots that a caller brings instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nvattest._registry import CPU_MAKERS
from nvattest.errors import InputError
from nvattest.model import counted
from nvattest.pki.certificate import Certificate, parse_certificate, parse_pem_chain
from nvattest.pki.ecdsa import P384_SPKI_PREFIX, EcdsaVerifier

# Roots made by nvattest.testing carry this organisation; results under them are marked as simulated.
SIMULATION_ORGANIZATION: Final = "nvattest simulation"
_MAX_ROOTS = 8
_PINNED_LABEL: Final = "NVIDIA"
_PINNED_DEVICE: Final = bytes.fromhex("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48")
_PINNED_RIM: Final = bytes.fromhex("12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1")


class TrustAnchor(NamedTuple):
    """One root: its subject (RFC 4514), its whole public key and the SHA-256 of its certificate."""

    name: str
    subject: str
    serial: int
    spki_der: bytes
    certificate_sha256: bytes

    def matches(self, certificate: Certificate) -> bool:
        """Whether this certificate is the anchor itself: same bytes, and so the same key and subject."""
        return (
            certificate.sha256 == self.certificate_sha256
            and certificate.spki_der == self.spki_der
            and certificate.subject == self.subject
        )

    @property
    def simulated(self) -> bool:
        """Whether this is a root of simulated devices."""
        return f"O={SIMULATION_ORGANIZATION}" in self.subject.split(",")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchors:
    """The roots for device chains and for RIM chains, and what to call them in results.

    Raises:
        InputError: other roots than NVIDIA's pinned ones under the label ``NVIDIA`` (code ``anchor``).
    """

    device: tuple[TrustAnchor, ...]
    rim: tuple[TrustAnchor, ...]
    label: str

    def __post_init__(self) -> None:
        # Results under other roots must say so, and the label is where they say it.
        pinned = [{anchor.certificate_sha256 for anchor in roots} for roots in (self.device, self.rim)]
        if self.label == _PINNED_LABEL and pinned != [{_PINNED_DEVICE}, {_PINNED_RIM}]:
            hint = "give these anchors another label"
            raise InputError(f"only NVIDIA's pinned roots may be called {_PINNED_LABEL!r}", code="anchor", hint=hint)

    def __repr__(self) -> str:
        return f"<TrustAnchors {self.label[:80]!r}: {counted(len(self.device) + len(self.rim), 'root')}>"

    @property
    def is_default(self) -> bool:
        """Whether exactly NVIDIA's pinned roots are used."""
        return (self.device, self.rim) == (NVIDIA_ANCHORS.device, NVIDIA_ANCHORS.rim)

    @property
    def simulated(self) -> bool:
        """Whether any root belongs to simulated devices: then no result says anything about real ones."""
        return any(anchor.simulated for anchor in (*self.device, *self.rim))


NVIDIA_ANCHORS: Final = TrustAnchors(
    device=(
        TrustAnchor(
            name="NVIDIA Device Identity CA",
            subject="O=NVIDIA,CN=NVIDIA Device Identity CA",
            serial=0x2D3670B1CA100411C1FEC0E82A065B54,
            spki_der=P384_SPKI_PREFIX
            + bytes.fromhex(
                "0e4c14a33bf8a5626658db4129607e4cbf4519c4412716f4d0d917c4978005bdeabeaefd57bc66082d718a4f8b6052e1"
                "516ee8a7c422b84de857071bb58fd395bea0cfa1c63ee7c80d6bd63901d91cbbd187d3857dc16b5cceaf238ff8c27dbd"
            ),
            certificate_sha256=_PINNED_DEVICE,
        ),
    ),
    rim=(
        TrustAnchor(
            name="NVIDIA CoRIM signing Root CA",
            subject="CN=NVIDIA CoRIM signing Root CA,O=NVIDIA,C=US",
            serial=0x45DAE3A00E5037BDDF875375ECB5E270,
            spki_der=P384_SPKI_PREFIX
            + bytes.fromhex(
                "b840b28bdbcd33e230da57d4cf2065747030682d4717b4c2829d7641c1325139b74da831c2be3c779e7e2b6548956608"
                "0e4ecd94021075c57f15fedeb862c8f906ae8fddc7b12238597dbdf0fa56e78453833f6d0be43af3871a47f057584799"
            ),
            certificate_sha256=_PINNED_RIM,
        ),
    ),
    label=_PINNED_LABEL,
)


def trust_anchors_from_pem(pem: bytes, *, rim: bytes | None = None, label: str = "custom") -> TrustAnchors:
    """Anchors from a PEM text of one or more self-signed roots, which serve devices and RIMs alike.

    ``rim`` has the roots for RIMs where they are others.

    Raises:
        InputError: unreadable PEM (ParseError), or a certificate that is no self-signed P-384 root (code ``anchor``).
    """
    roots = _roots(pem)
    return TrustAnchors(device=roots, rim=roots if rim is None else _roots(rim), label=label)


def _roots(pem: bytes) -> tuple[TrustAnchor, ...]:
    certificates = parse_pem_chain(pem, maximum=_MAX_ROOTS)
    verifier = EcdsaVerifier(remember=0)
    for certificate in certificates:
        if fault := _why_no_root(certificate, verifier):
            message = f"{certificate.label} cannot be a trust anchor: {fault}"
            raise InputError(message, code="anchor", hint="give self-signed root certificates with P-384 keys")
    return tuple(map(_anchor, certificates))


def _anchor(certificate: Certificate) -> TrustAnchor:
    it = certificate
    return TrustAnchor(it.label, it.subject, it.serial, it.spki_der, it.sha256)


def _why_no_root(certificate: Certificate, verifier: EcdsaVerifier) -> str:
    if certificate.subject_der != certificate.issuer_der:
        return f"its issuer is {certificate.issuer}"
    if not certificate.is_p384 or not certificate.is_ecdsa_sha384:
        return "it is not P-384 with ECDSA and SHA-384"
    if certificate.is_ca is not True or certificate.key_cert_sign is not True:
        return "it is not marked as a CA that signs certificates"
    if not verifier.verify_der(certificate.spki_der, certificate.signature, certificate.tbs):
        return "its own key did not sign it"
    return ""


# --- the makers of CPUs -----------------------------------------------------------------------------------------------

# SubjectPublicKeyInfo of an uncompressed point on P-256, and of RSA with 4096 bits (RFC 5480, 2; RFC 3279, 2.3.1).
_P256: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_RSA_4096: Final = bytes.fromhex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100")
_EXPONENT_65537: Final = bytes.fromhex("0203010001")
# SHA-256 of the roots' certificates.
_INTEL: Final = bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3")
_MILAN: Final = bytes.fromhex("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd")
_GENOA: Final = bytes.fromhex("4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1")
_TURIN: Final = bytes.fromhex("1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a")
_PINNED_CPU: Final = {_INTEL, _MILAN, _GENOA, _TURIN}


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuAnchors:
    """The roots that endorse CPUs, and what to call them in results.

    ``amd`` has the roots of ``milan``, ``genoa`` and ``turin``. ``intel_der`` is the certificate of another root than
    Intel's, for the library that verifies TDX quotes; empty for Intel's.

    Raises:
        InputError: other roots than the pinned ones under the makers' label (code ``anchor``).
    """

    intel: TrustAnchor
    amd: Mapping[str, TrustAnchor]
    label: str
    intel_der: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        # Results under other roots must say so, and the label is where they say it.
        if self.label == CPU_MAKERS and self.simulated:
            raise InputError(f"only the makers' pinned roots may be called {CPU_MAKERS!r}", code="anchor")

    def __repr__(self) -> str:
        return f"<CpuAnchors {self.label}>"

    @property
    def simulated(self) -> bool:
        """Whether any root is not the maker's own: only simulated CPUs have such, and no result is about real ones."""
        return (
            bool(self.intel_der)
            or {anchor.certificate_sha256 for anchor in (self.intel, *self.amd.values())} != _PINNED_CPU
        )


def cpu_anchors_from_der(*, intel: bytes | None = None, amd: Mapping[str, bytes], label: str = "custom") -> CpuAnchors:
    """Anchors from certificates of roots: one in the place of Intel's, and AMD's by name (``milan``, ``genoa``...).

    A root that is not given is the maker's own.

    Raises:
        InputError: a certificate that cannot be read, an unknown name, or the makers' own label (code ``anchor``).
    """
    if unknown := amd.keys() - CPU_ANCHORS.amd.keys():
        raise InputError(f"AMD has no root called {', '.join(sorted(unknown))!r:.80}", code="anchor")
    return CpuAnchors(
        intel=_anchor(parse_certificate(intel)) if intel is not None else CPU_ANCHORS.intel,
        intel_der=intel or b"",
        amd={**CPU_ANCHORS.amd, **{name: _anchor(parse_certificate(der)) for name, der in amd.items()}},
        label=label,
    )


def cpu_anchors_from_pem(pem: bytes, *, label: str = "custom") -> CpuAnchors:
    """Anchors from one PEM text: self-signed roots that are called ARK-Milan, ARK-Genoa or ARK-Turin stand for AMD's,
    one with a P-256 key for Intel's.

    Raises:
        InputError: unreadable PEM (ParseError), or a certificate that is no such root (code ``anchor``).
    """
    intel: bytes | None = None
    amd: dict[str, bytes] = {}
    for certificate in parse_pem_chain(pem, maximum=_MAX_ROOTS):
        name = certificate.label.lower().removeprefix("ark-")
        if certificate.subject_der != certificate.issuer_der:
            raise InputError(f"{certificate.label} is no root: its issuer is {certificate.issuer}", code="anchor")
        if name in CPU_ANCHORS.amd:
            amd[name] = certificate.der
        elif certificate.spki_der.startswith(_P256):
            intel = certificate.der
        else:
            raise InputError(
                f"{certificate.label} stands for no maker's root", code="anchor",
                hint="give a root called ARK-Milan, ARK-Genoa or ARK-Turin, or one with a P-256 key",
            )  # fmt: skip
    return cpu_anchors_from_der(intel=intel, amd=amd, label=label)


def _ark(product: str, serial: int, sha256: bytes, modulus: str) -> TrustAnchor:
    subject = f"CN=ARK-{product},O=Advanced Micro Devices,ST=CA,L=Santa Clara,C=US,OU=Engineering"
    spki_der = _RSA_4096 + bytes.fromhex(modulus) + _EXPONENT_65537
    return TrustAnchor(f"ARK-{product}", subject, serial, spki_der, sha256)


CPU_ANCHORS: Final = CpuAnchors(
    intel=TrustAnchor(
        name="Intel SGX Root CA",
        subject="C=US,ST=CA,L=Santa Clara,O=Intel Corporation,CN=Intel SGX Root CA",
        serial=0x22650CD65A9D3489F383B49552BF501B392706AC,
        spki_der=_P256
        + bytes.fromhex(
            "0ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f5"
            "67918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394"
        ),
        certificate_sha256=_INTEL,
    ),
    amd={
        "milan": _ark("Milan", 0x10000, _MILAN,
            "d0b779d9124e75e88996a2b625db15983ec592dba8b56c17d5f3605b8d5763d5f3d471214949a12f3f42bbd0c7465be02523716d"
            "e618b2725fbf28f1d4c7d4d15e6d90a894d447ac345b5ad644c0d2cccd8ac75873d8acaa4ee65d3e7e29f1916df73857ff734487"
            "04f2394737ad52d63bbc5fddfee9dc4352b1b64b3c6a278061ab2626503aee3d72525f8bd4734d4fee3f7c329a8e4bde6b391746"
            "1de239d8d6b3e66d81f8efaf8ec0b4eb4777ee363d2c57ae38fe0c7ab8bcaa07e2d92e642aa83f685e9a3edb80650551eeedca15"
            "85cfe7d5e6260b5ca20d398262344ff3a2b4b86ecd5be965c2e9874a1d87fd483d7ab1dfe3278c3f7b03b7d7a6a19dff2f0ac57e"
            "e392c4c4cc03a06ca01e6a6de59bedf228871360c96c44c5cf72335b22f9ac072903fffc529e2bacb870648279443445b1d5471b"
            "410aecfa054392e54f86c9f321136062f338f18fbb2c6889627ae613cc5cadec5e901c6bbdad95f53250aa7377439de4b79be242"
            "2dfe8027e69300b4174b62ac865b2e45cfacfc3367433d78dc6123249bda7a497e09eacf9e48d2edf7c21e2bd1935079319fc34d"
            "cc054b72bb319eb0691cc3e968a8c6aad6a478b6319b3d8c42be90aaefe3a0a420a830d8addae2e8f4cd7c7c7cf5d2538c4fc9d6"
            "014bd1645ced7970a6fbb3c77583e5990c14c372ef7a727f20b5e840f1df6e41f40b23df865d635a124565ab"),
        "genoa": _ark("Genoa", 0x20000, _GENOA,
            "dc277de52fee14eb9122c916f6fcfd543045ebd343405efda1184bfcbd8f5501a12b761d7c4060a45fc98b058506c4ff7d70e1cc"
            "0d35a772e4713ffb2dd8dc45f2978c797ed10abf338759921e900e851e2b33412c37012830c65a8defdf9372af16c0d439e46305"
            "0a5390009383fde2d2972e9f34a31b7ce1a8721e82e673f2eab06b29fa8ab5073e0f3ec60bc131b888c29569a4fdd3fa19e08f28"
            "89b4abbbddaf26196a58edbb77f47173789433284d7864e83af831fe2528e201a91bad4d0e990452f233b8a71a331f08753a5683"
            "60c5e92c05d0881531f7e7bed26603af01c09356a351383cb25d68f7c189f709a6e045c0d55020f404557dda3fcf47252a7c61b6"
            "3d972492e8f95512a4c106d6909a2e004c698c47e9f62bf7be240854d868fb8c8a4984e91d1fd7e2ad00e79a50364857c9fc2734"
            "9863735bd466221c8e527345a1c966911865dff01053962cf50b1a9f58d3fc48b24fea42a669c0fb2f5e76f84309b386f05da8c4"
            "7191753064ca5ba782b917246622c06ad1f246a2aafecd37c42138132a62371bae412bd1ff1030a925212e6bb8e7ea94b302070f"
            "092c1dcb923a5682d0fb3a9c64cd2b2884de3b5289bce9163a969ef683c7971cfd6a62b9ef873686d52ef4bf0e8e91b69a0bd123"
            "887fee1e0009406c689fbbb443bc60a1111603f7bb25c050c0b83cd07abfb1b46ea9eb31cfbc01592636e787"),
        "turin": _ark("Turin", 0x30000, _TURIN,
            "c1a02b881ec422e55ce19075c03dd87c3c4bfbd7b24bbfa2ce6d098f75bbef63483425a5f018f7c3f243d998e66d1c56748abfe1"
            "df626ab08aa2b5e5a09501d6345d831a9c713c7568ea22838fb6c355e1555253ecae39ef04f964b3498106b1a9af44b64c2377af"
            "bdb0e86508313d978de443447606291525afeecb254e4b0124e70e6d5ca3ae1bd8efaba42d00c25ab16dfcc25a910da2841ad67d"
            "554806a27dbb66e2f8b1326e0bf6b3cfdfe2401c3c9048a5cce97de4089391e6398d21010d66c0aa7664e6a94cee4212286db492"
            "0426d789a134a0c8da9da8b9afb3b801bb8b9d9ea68445d867d4d13624ff27febc2341dad9de721150b8fd9ef1b2e4f7965da8f8"
            "bdfd45b0e095e3b5d100e2ed896299524943d05405cab7a2d5aae8ed25c339f492abdaed1743be4ac3170ca75e604978417c89ef"
            "3c0c2e018e1d130c06a93f28220e1eb0f1f012c98286161e0c8c4f1bd4787f1f4ed2aea9f066fe1d7953892e3b3fd60d78ea6274"
            "e50acc397f4b53afca10ed48bf0b25cdb84004c5c9da3f883fca51dbc54d1943d1cae400c9192e8590f212c319ce816495ec75de"
            "d97f67b8516ded23fd6887fdaddb73addf3ca14dcbf98036c006ed0b8d57bdf2e4674b5e523302bffe526df5ee41a8abe0001912"
            "a0005ff81e1516d3d5117d3282b61a15a23d8b9001af19d5066cd7a516f6d622353653427ce1943c8855a561"),
    },
    label=CPU_MAKERS,
)  # fmt: skip
