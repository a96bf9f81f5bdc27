"""The RIM issuer of the simulation: root, reference value CA, L3 CA and L4 signer, and the manifests they sign.

The chain is shaped as NVIDIA's four certificates; signers live two years around the platform's clock.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from nvattest._registry import RIM_MANUFACTURER_ID
from nvattest.testing.certificates import (
    SIMULATION,
    Certificate,
    Extension,
    Link,
    Template,
    aki,
    basic_constraints,
    crl_url,
    issue_chain,
    key_usage,
    name,
    ocsp_url,
    ski,
)
from nvattest.testing.keys import KeyRing, SigningKey
from nvattest.testing.lies import Told
from nvattest.testing.rim_xml import RimContent, tag_id, write_rim
from nvattest.testing.silicon import Silicon, golden_value

__all__ = ["RimIssuer", "RimOrder"]

_YEAR = timedelta(days=365)
_ROOT_NAME = name(("C", "US"), ("O", SIMULATION), ("CN", "NVIDIA CoRIM signing Root CA"))
# Names of the CA, the L3 CA and the L4 signer below the RIM root.
_NAMES = {
    "GH100": ("NVIDIA Reference Value GH100 CA", "NVIDIA Reference Value L3 GH100 002", "HCC RIM L4 Signer"),
    "GB100": ("NVIDIA Reference Value GB100 CA", "NVIDIA Reference Value L3 GB100-CC 001", "RIM L4 Signer"),
    "GB110": ("NVIDIA Reference Value GB100 CA", "NVIDIA Reference Value L3 GB100-CC 001", "RIM L4 Signer"),
    "GB202": ("NVIDIA Reference Value GB20X CA", "NVIDIA Reference Value L3 GB20X-CC 001", "RIM L4 Signer"),
    "LS10": (
        "NVIDIA Reference Value LS10 CA",
        "NVIDIA Reference Value L3 LS10 001",
        "NVIDIA Reference Value L4 LS10",
    ),
}
_REISSUED_INDEX = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class RimOrder:
    """Which RIM is wanted: for what silicon, in which role, under which id, for which version."""

    silicon: Silicon
    role: str
    id: str
    version: str
    minimum_svn: int | None = None


class RimIssuer:
    """Issues signed RIMs and keeps their certificates."""

    def __init__(self, keys: KeyRing, clock: datetime) -> None:
        self._keys = keys
        self._clock = clock
        self._cache: dict[Link, Certificate] = {}
        key = keys.key("RIM root")
        self._root = Link(
            template=Template(
                subject=_ROOT_NAME,
                serial=keys.serial("RIM root", 16),
                not_before=datetime(2023, 3, 16, 15, 37, 34, tzinfo=timezone.utc),
                not_after=datetime(2053, 3, 8, 15, 37, 34, tzinfo=timezone.utc),
                extensions=(ski(key), aki(key), basic_constraints(ca=True), key_usage("keyCertSign,cRLSign")),
            ),
            key=key,
        )

    @property
    def root(self) -> Certificate:
        """The trust anchor of RIMs."""
        return issue_chain((self._root,), Told(()), self._clock, self._keys, self._cache)[0]

    def chain(self, chip: str, role: str, told: Told) -> tuple[Certificate, ...]:
        """The four certificates behind the RIMs of a chip and role, leaf first, with the lies of ``told``."""
        ca_name, l3_name, leaf_name = _NAMES[chip]
        ca_key, l3_key = self._keys.key(ca_name), self._keys.key(l3_name)
        leaf_label = f"{leaf_name} {chip} {role}{' reissued' if 'reissued' in told or 'renewed' in told else ''}"
        leaf_key = self._keys.key(leaf_label)
        links = (
            self._leaf(leaf_name, leaf_label, leaf_key, l3_key),
            self._authority(l3_name, l3_key, ca_key, path_length=0),
            self._authority(ca_name, ca_key, self._root.key, path_length=None),
            self._root,
        )
        return issue_chain(links, told, self._clock, self._keys, self._cache)

    def rim(self, order: RimOrder, told: Told) -> bytes:
        """The signed XML of one RIM, with the lies of ``told``."""
        content = _content(order, told)
        chain = self.chain(order.silicon.board.chip, order.role, told)
        key = self._keys.key("uncertified") if "wrong-key" in told else chain[0].key
        damage = b"\x00" if "signature" in told else b""
        xml = write_rim(content, [_lines(item.der) for item in chain], lambda data: key.sign_raw(data + damage))
        for index in told.indexed("tampered"):
            # One lie of rim* is about several RIMs, and an index is in one of them. Zeros stand in many places.
            xml = xml.replace(max(content.golden[index]).hex().encode(), b"f" * 96) if index in content.golden else xml
        return xml

    def _leaf(self, common_name: str, label: str, key: SigningKey, issuer_key: SigningKey) -> Link:
        place = (("C", "US"), ("ST", "CA"), ("L", "Santa Clara"))
        template = Template(
            subject=name(*place, ("O", SIMULATION), ("CN", common_name)),
            serial=self._keys.serial(label, 20),
            not_before=self._clock - _YEAR,
            not_after=self._clock + _YEAR,
            extensions=(
                ski(key),
                aki(issuer_key),
                basic_constraints(ca=False),
                key_usage("digitalSignature"),
                ocsp_url(),
            ),
        )
        return Link(template=template, key=key)

    def _authority(self, common_name: str, key: SigningKey, issuer_key: SigningKey, *, path_length: int | None) -> Link:
        top = path_length is None
        extensions: tuple[Extension, ...] = (
            basic_constraints(ca=True, path_length=path_length),
            key_usage("keyCertSign,cRLSign"),
            *((crl_url("l1-corim"),) if top else ()),
            ocsp_url(),
            ski(key),
            aki(issuer_key),
        )
        template = Template(
            subject=name(("CN", common_name), ("O", SIMULATION), ("C", "US")),
            # The real ones have the highest bit set: 17 bytes of DER.
            serial=self._keys.serial(common_name, 16) | 1 << 127,
            not_before=self._clock - 3 * _YEAR,
            not_after=self._clock + (7 if top else 2) * _YEAR,
            extensions=extensions,
            generalized=True,
        )
        return Link(template=template, key=key)


def _content(order: RimOrder, told: Told) -> RimContent:
    silicon, role = order.silicon, order.role
    golden: dict[int, list[bytes]] = {}
    if "no-values" not in told:
        for index in silicon.golden[role]:
            golden[index] = silicon.values_of(role, order.id, index)
    for index, given in told.indexed("golden").items():
        golden[index] = [bytes.fromhex(given) or golden_value("lie", order.id, index)]
    usual = _REISSUED_INDEX if _REISSUED_INDEX in silicon.golden[role] else silicon.golden[role][0]
    if (argument := told.get("reissued", str(usual))) is not None:
        golden[int(argument)] = silicon.values_of(role, order.id, int(argument), "reissued")
    for argument in told.all("conflict"):
        golden[int(argument)] = [golden_value("conflict", order.id, int(argument))]
    minimum = told.get("min-svn")
    svn = order.minimum_svn if minimum is None else int(minimum)
    chip = silicon.board.chip
    return RimContent(
        version=told.get("wrong-version", "0.0.0") or order.version,
        product=told.get("wrong-product", "GX999") or chip,
        edition=told.get("wrong-edition", "NIC") or ("SWITCH" if role == "bios" else "GPU"),
        manufacturer_id=told.get("wrong-manufacturer", "9999") or RIM_MANUFACTURER_ID,
        tag_id=tag_id(f"{order.id} {sorted(golden.items())} {svn}{' renewed' if 'renewed' in told else ''}"),
        golden=golden,
        minimum_svn=svn,
        tricks=frozenset(told.all("xml")),
    )


def _lines(der: bytes) -> str:
    """Base64 in lines of 64, with the final line break that some readers of RIMs rely on."""
    text = base64.b64encode(der).decode()
    return "".join(text[i : i + 64] + "\n" for i in range(0, len(text), 64))
