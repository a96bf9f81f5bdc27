"""The device PKI of the simulation: root, identity CA, provisioner, BROM and leaf, as NVIDIA's five certificates.

The common names are those of the real chains, since a verifier reads the chip from them; the organization says that it
is a simulation. The BROM's serial number carries the PDI; the leaf carries the FWID of its architecture (TCG DICE).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from cryptography import x509

from nvattest._registry import OID_DICE_FWID_HOPPER, OID_DICE_TCB_INFO, OID_DMTF_DEVICE_INFO, OID_SHA384
from nvattest.testing import _der
from nvattest.testing.certificates import (
    FOREVER,
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
    other,
    ski,
    tcb_flags,
)
from nvattest.testing.keys import KeyRing, SigningKey
from nvattest.testing.lies import Told

__all__ = ["CHIPS", "ChipPki", "DevicePki"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipPki:
    """How the chain of one chip is named and dated."""

    chip: str
    engine: str
    identity: str
    provisioner: str
    serial_prefix: int
    issued: datetime
    provisioner_issued: datetime
    identity_issued: datetime
    brom_ocsp_url: bool = False
    legacy_fwid: bool = True


def _day(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=timezone.utc)


def _later(chip: str, ica: str, identity: str) -> ChipPki:
    """How the chains of Blackwell and later are named: the authorities may name the family or a member of it."""
    return ChipPki(
        chip=chip,
        engine="GSP",
        identity=f"NVIDIA {identity} Identity",
        provisioner=f"NVIDIA {ica} Provisioner ICA 00000",
        serial_prefix=0x41,
        issued=_day(2023, 6, 20),
        provisioner_issued=_day(2023, 6, 20),
        identity_issued=_day(2023, 1, 1),
        brom_ocsp_url=True,
        legacy_fwid=False,
    )


# By the name of the die in the certificates.
CHIPS: dict[str, ChipPki] = {
    "GH100": ChipPki(
        chip="GH100",
        engine="GSP",
        identity="NVIDIA GH100 Identity",
        provisioner="NVIDIA GH100 Provisioner ICA 1",
        serial_prefix=0x41,
        issued=_day(2020, 10, 17),
        provisioner_issued=_day(2022, 3, 1),
        identity_issued=_day(2022, 1, 12),
    ),
    "GB100": _later("GB100", "GB100", "GB100"),
    "GB110": _later("GB110", "GB110", "GB100"),
    "GB20X": _later("GB20X", "GB202", "GB20X"),
    "GR100": _later("GR100", "GR100", "GR1XX"),
    "LS_10": ChipPki(
        chip="LS_10",
        engine="FSP",
        identity="NVIDIA GH100 Identity",  # the switches hang below the Hopper identity CA
        provisioner="NVIDIA LS_10 Provisioner ICA 1",
        serial_prefix=0x50,
        issued=_day(2020, 10, 17),
        provisioner_issued=_day(2022, 3, 1),
        identity_issued=_day(2022, 1, 12),
    ),
}
_ROOT_NAME = name(("CN", "NVIDIA Device Identity CA"), ("O", SIMULATION))


class DevicePki:
    """Issues device chains. Upper certificates are made once."""

    def __init__(self, keys: KeyRing, clock: datetime) -> None:
        self._keys = keys
        self._clock = clock
        self._cache: dict[Link, Certificate] = {}
        key = keys.key("device root")
        template = Template(
            subject=_ROOT_NAME,
            serial=keys.serial("device root", 16),
            not_before=_day(2021, 11, 5),
            not_after=FOREVER,
            extensions=(basic_constraints(ca=True), key_usage("keyCertSign,cRLSign"), ski(key), aki(key)),
        )
        self._root = Link(template=template, key=key)

    @property
    def root(self) -> Certificate:
        """The trust anchor of devices."""
        return issue_chain((self._root,), Told(()), self._clock, self._keys, self._cache)[0]

    def chain(self, die: str, *, label: str, pdi: bytes, fwid: bytes, told: Told) -> tuple[Certificate, ...]:
        """The five certificates of one device, leaf first. ``label`` names its keys; the lies of ``told`` are applied.

        ``die`` is one of ``CHIPS``; ``pdi`` has 8 bytes, ``fwid`` 48.
        """
        pki = CHIPS[die]
        identity = self._upper(pki.identity, pki)
        provisioner = self._provisioner(pki, identity.key)
        brom_key, leaf_key = self._keys.key(f"{label} brom"), self._keys.key(f"{label} leaf")
        brom = self._brom(pki, brom_key, provisioner.key, pdi, told)
        leaf = self._leaf(pki, leaf_key, brom_key, fwid, label, told)
        links = (leaf, brom, provisioner, identity, self._root)
        return issue_chain(links, told, self._clock, self._keys, self._cache)

    def _upper(self, common_name: str, pki: ChipPki) -> Link:
        key = self._keys.key(common_name)
        template = Template(
            subject=name(("CN", common_name), ("O", SIMULATION)),
            serial=self._keys.serial(common_name, 16),
            not_before=pki.identity_issued,
            not_after=FOREVER,
            extensions=(
                basic_constraints(ca=True),
                key_usage("keyCertSign,cRLSign"),
                crl_url("l1-root.crl"),
                ocsp_url(),
                ski(key),
                aki(self._root.key),
            ),
        )
        return Link(template=template, key=key)

    def _provisioner(self, pki: ChipPki, issuer_key: SigningKey) -> Link:
        key = self._keys.key(pki.provisioner)
        family = pki.identity.split()[1].lower()
        template = Template(
            subject=name(("CN", pki.provisioner), ("O", SIMULATION), ("C", "US")),
            serial=self._keys.serial(pki.provisioner, 16),
            not_before=pki.provisioner_issued,
            not_after=FOREVER,
            extensions=(
                basic_constraints(ca=True),
                key_usage("keyCertSign,cRLSign"),
                crl_url(f"l2-{family}.crl"),
                ocsp_url(),
                ski(key),
                aki(issuer_key),
            ),
        )
        return Link(template=template, key=key)

    def _brom(self, pki: ChipPki, key: SigningKey, issuer_key: SigningKey, pdi: bytes, told: Told) -> Link:
        chip = told.get("chip") or pki.chip
        serial = bytes((pki.serial_prefix,)) + (bytes.fromhex(told.get("pdi") or "") or pdi)
        url = (ocsp_url(),) if pki.brom_ocsp_url else ()
        template = Template(
            subject=_device_name(serial, f"{chip} A01 {pki.engine} BROM"),
            serial=int.from_bytes(serial, "big"),
            not_before=pki.issued,
            not_after=FOREVER,
            extensions=(basic_constraints(ca=True), key_usage("keyCertSign"), *url, ski(key), aki(issuer_key)),
        )
        return Link(template=template, key=key)

    def _leaf(self, pki: ChipPki, key: SigningKey, brom_key: SigningKey, fwid: bytes, label: str, told: Told) -> Link:
        chip = told.get("leaf-chip") or told.get("chip") or pki.chip
        # The serial is the key id with its two highest bits set to 01: positive, and always twenty bytes.
        serial = bytes((key.key_id[0] & 0x3F | 0x40,)) + key.key_id[1:]
        info = self._keys.bytes(f"{label} device info", 5).hex().upper()
        template = Template(
            subject=_device_name(serial, f"{chip} A01 {pki.engine} FMC LF"),
            serial=int.from_bytes(serial, "big"),
            not_before=pki.issued,
            not_after=FOREVER,
            extensions=(
                key_usage("digitalSignature"),
                ski(key),
                aki(brom_key),
                _device_info(f"NVIDIA:{chip}:48B02D{info}"),
                _fwid_extension(pki, chip, brom_key, fwid, flag=told.get("debug", "debug")),
            ),
        )
        if (content := told.get("fwid-extension")) is not None:
            oid = template.extensions[-1].oid
            lie = other(oid.dotted_string, bytes.fromhex(content))
            template = template.having(lie) if content else template.lacking(oid)
        return Link(template=template, key=key)


def _device_name(serial: bytes, common_name: str) -> x509.Name:
    return name(("serialNumber", serial.hex().upper()), ("C", "US"), ("O", SIMULATION), ("CN", common_name))


def _device_info(text: str) -> Extension:
    """SubjectAltName with DMTF's otherName vendor:product:serial (DSP0274, device certificates)."""
    info = x509.OtherName(x509.ObjectIdentifier(OID_DMTF_DEVICE_INFO), _der.utf8(text))
    value = x509.SubjectAlternativeName([info])
    return x509.Extension(value.oid, False, value)


def _fwid_extension(pki: ChipPki, chip: str, brom_key: SigningKey, fwid: bytes, *, flag: str | None) -> Extension:
    digest = _der.oid(OID_SHA384) + _der.octet_string(fwid)
    if pki.legacy_fwid:
        # The older composite device id: version, the device key, the firmware digest.
        content = _der.sequence(_der.integer(1), brom_key.spki, _der.sequence(digest))
        return other(OID_DICE_FWID_HOPPER, content)
    nothing = _der.sequence(_der.oid(OID_SHA384), _der.octet_string(bytes(48)))
    content = _der.sequence(
        _der.implicit(0, b"NVIDIA"),
        _der.implicit(1, f"{chip} A01 {pki.engine}".encode()),
        _der.implicit(2, b"01"),
        _der.implicit(3, b"\x01"),
        _der.implicit(4, b"\x00"),
        _der.implicit(5, b"\x00"),
        _der.explicit(6, _der.sequence(digest) + nothing),
        _der.implicit(7, tcb_flags(flag)),
        _der.implicit(8, b"\xc0"),
        _der.implicit(9, b"\x00"),
    )
    return other(OID_DICE_TCB_INFO, content)
