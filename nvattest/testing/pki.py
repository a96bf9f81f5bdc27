"""NVIDIA's PKI in the simulation: the chains of devices and of RIMs, and the OCSP responders that answer about them.

A device has five certificates (root, identity CA, provisioner, BROM, leaf), a RIM has four (root, reference value CA,
L3 CA, L4 signer). The common names are those of the real ones, since a verifier reads the chip from them; the
organization says that it is a simulation. The BROM's serial number carries the PDI; the leaf carries the FWID of its
architecture (TCG DICE). Signers of RIMs live two years around the platform's clock.

Each issuing CA has one delegated responder, as NVIDIA runs them (RFC 6960). It answers about every certificate of a
known issuer: unknown serials are good below the device root and unknown below the RIM root. It has no clock: the
instant of an answer is an argument. As NVIDIA's responders do, it stamps a live answer with the instant of the request
(thisUpdate = producedAt); recorded answers are a little older. ``cryptography``'s builder of answers reads the clock
and draws the nonces of its signatures, so that answers are written here, byte by byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from nvattest._registry import OID_DICE_FWID_HOPPER, OID_DICE_TCB_INFO, OID_DMTF_DEVICE_INFO, OID_SHA384
from nvattest.testing.certificates import (
    FOREVER,
    NULL,
    SIMULATION,
    Authorities,
    Certificate,
    Extension,
    Key,
    KeyId,
    KeyRing,
    Template,
    basic_constraints,
    bit_string,
    crl_url,
    enumerated,
    explicit,
    extension,
    generalized_time,
    implicit,
    integer,
    issue,
    key_usage,
    name,
    ocsp_url,
    octet_string,
    oid,
    other,
    positive,
    sequence,
    tcb_flags,
    tlv,
)
from nvattest.testing.lies import OCSP_LIES, Told

_HOUR, _DAY, _YEAR = timedelta(hours=1), timedelta(days=1), timedelta(days=365)


def _day(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chip:
    """How the device chain of a chip is named, and from when its identity CA, provisioner and devices are."""

    chip: str
    identity: str
    provisioner: str
    engine: str = "GSP"
    serial_prefix: int = 0x41
    # Blackwell and later: a DICE TCB info in the leaf, the responder's address in the BROM.
    later: bool = False
    issued: tuple[datetime, datetime, datetime] = (_day(2022, 1, 12), _day(2022, 3, 1), _day(2020, 10, 17))


def _later(chip: str, ica: str, identity: str) -> _Chip:
    """The authorities of Blackwell and later may name the family or a member of it."""
    return _Chip(
        chip=chip,
        identity=f"NVIDIA {identity} Identity",
        provisioner=f"NVIDIA {ica} Provisioner ICA 00000",
        later=True,
        issued=(_day(2023, 1, 1), _day(2023, 6, 20), _day(2023, 6, 20)),
    )


# By the name of the die in the certificates.
_CHIPS = {
    "GH100": _Chip(chip="GH100", identity="NVIDIA GH100 Identity", provisioner="NVIDIA GH100 Provisioner ICA 1"),
    "GB100": _later("GB100", "GB100", "GB100"),
    "GB110": _later("GB110", "GB110", "GB100"),
    "GB20X": _later("GB20X", "GB202", "GB20X"),
    "GR100": _later("GR100", "GR100", "GR1XX"),
    "LS_10": _Chip(
        chip="LS_10",
        identity="NVIDIA GH100 Identity",  # the switches hang below the Hopper identity CA
        provisioner="NVIDIA LS_10 Provisioner ICA 1",
        engine="FSP",
        serial_prefix=0x50,
    ),
}
# Names of the CA, the L3 CA and the L4 signer below the RIM root, by the chip of the RIM.
_BLACKWELL_SIGNERS = ("NVIDIA Reference Value GB100 CA", "NVIDIA Reference Value L3 GB100-CC 001", "RIM L4 Signer")
_SIGNERS = {
    "GH100": ("NVIDIA Reference Value GH100 CA", "NVIDIA Reference Value L3 GH100 002", "HCC RIM L4 Signer"),
    "GB100": _BLACKWELL_SIGNERS,
    "GB110": _BLACKWELL_SIGNERS,
    "GB202": ("NVIDIA Reference Value GB20X CA", "NVIDIA Reference Value L3 GB20X-CC 001", "RIM L4 Signer"),
    "LS10": ("NVIDIA Reference Value LS10 CA", "NVIDIA Reference Value L3 LS10 001", "NVIDIA Reference Value L4 LS10"),
}
_CA_USAGE = "keyCertSign,cRLSign"
_RIM_ROOT_VALIDITY = (
    datetime(2023, 3, 16, 15, 37, 34, tzinfo=timezone.utc),
    datetime(2053, 3, 8, 15, 37, 34, tzinfo=timezone.utc),
)


class Pki(Authorities):
    """Issues the chains of devices and RIMs."""

    def __init__(self, keys: KeyRing, clock: datetime) -> None:
        super().__init__(keys, clock)
        usage = (basic_constraints(ca=True), key_usage(_CA_USAGE))
        subject = name(("CN", "NVIDIA Device Identity CA"), ("O", SIMULATION))
        self._device_root = self.template("device root", subject, (_day(2021, 11, 5), FOREVER), *usage, *KeyId)
        subject = name(("C", "US"), ("O", SIMULATION), ("CN", "NVIDIA CoRIM signing Root CA"))
        self._rim_root = self.template("RIM root", subject, _RIM_ROOT_VALIDITY, *KeyId, *usage)

    def roots(self) -> tuple[bytes, bytes]:
        """The trust anchors of devices and of RIMs (DER)."""
        return self.chain([self._device_root])[0].der, self.chain([self._rim_root])[0].der

    def _authority(
        self,
        common_name: str,
        issuer: Template,
        validity: tuple[datetime, datetime],
        *,
        crl: str | None,
        path_length: int | None = None,
        of_rims: bool = False,
        country: bool = True,
    ) -> Template:
        return self.template(
            common_name,
            name(("CN", common_name), ("O", SIMULATION), *([("C", "US")] if country else [])),
            validity,
            basic_constraints(ca=True, path_length=path_length),
            key_usage(_CA_USAGE),
            *([crl_url(crl)] if crl else []),
            ocsp_url(),
            *KeyId,
            issuer=issuer.key,
            # Serial numbers of the authorities of RIMs have the highest bit set: 17 bytes of DER.
            serial=self.keys.serial(common_name) | of_rims << 127,
            generalized=of_rims,
        )

    def device_chain(self, die: str, *, label: str, pdi: bytes, fwid: bytes, told: Told) -> tuple[Certificate, ...]:
        """The five certificates of one device, leaf first. ``label`` names its keys; the lies of ``told`` are applied.

        ``die`` is what certificates call the chip; ``pdi`` has 8 bytes, ``fwid`` 48.
        """
        pki = _CHIPS[die]
        first, second, third = pki.issued
        family = pki.identity.split()[1].lower()
        identity = self._authority(pki.identity, self._device_root, (first, FOREVER), crl="l1-root.crl", country=False)
        provisioner = self._authority(pki.provisioner, identity, (second, FOREVER), crl=f"l2-{family}.crl")
        chip = told.get("chip") or pki.chip
        number = bytes((pki.serial_prefix,)) + (bytes.fromhex(told.get("pdi") or "") or pdi)
        brom = self.template(
            f"{label} brom",
            _device_name(number, f"{chip} A01 {pki.engine} BROM"),
            (third, FOREVER),
            basic_constraints(ca=True),
            key_usage("keyCertSign"),
            *([ocsp_url()] if pki.later else []),
            *KeyId,
            issuer=provisioner.key,
            serial=int.from_bytes(number, "big"),
        )
        chip = told.get("leaf-chip") or chip
        serial = positive(self.keys.key(f"{label} leaf").key_id)
        info = self.keys.bytes(f"{label} device info", 5).hex().upper()
        firmware = [_fwid_extension(pki, chip, brom.key, fwid, flag=told.get("debug", "debug"))]
        if (content := told.get("fwid-extension")) is not None:
            firmware = [other(firmware[0].oid.dotted_string, bytes.fromhex(content))] if content else []
        leaf = self.template(
            f"{label} leaf",
            _device_name(serial.to_bytes(20, "big"), f"{chip} A01 {pki.engine} FMC LF"),
            (third, FOREVER),
            key_usage("digitalSignature"),
            *KeyId,
            _device_info(f"NVIDIA:{chip}:48B02D{info}"),
            *firmware,
            issuer=brom.key,
            serial=serial,
        )
        return self.chain((leaf, brom, provisioner, identity, self._device_root), told)

    def rim_chain(self, chip: str, role: str, told: Told) -> tuple[Certificate, ...]:
        """The four certificates behind the RIMs of a chip and role, leaf first, with the lies of ``told``."""
        ca_name, l3_name, leaf_name = _SIGNERS[chip]
        begin = self.clock - 3 * _YEAR
        ca = self._authority(ca_name, self._rim_root, (begin, self.clock + 7 * _YEAR), crl="l1-corim", of_rims=True)
        l3 = self._authority(l3_name, ca, (begin, self.clock + 2 * _YEAR), crl=None, path_length=0, of_rims=True)
        label = f"{leaf_name} {chip} {role}{' reissued' if 'reissued' in told or 'renewed' in told else ''}"
        leaf = self.template(
            label,
            name(("C", "US"), ("ST", "CA"), ("L", "Santa Clara"), ("O", SIMULATION), ("CN", leaf_name)),
            (self.clock - _YEAR, self.clock + _YEAR),
            *KeyId,
            basic_constraints(ca=False),
            key_usage("digitalSignature"),
            ocsp_url(),
            issuer=l3.key,
            serial=self.keys.serial(label, 20),
        )
        return self.chain((leaf, l3, ca, self._rim_root), told)


def _device_name(serial: bytes, common_name: str) -> x509.Name:
    return name(("serialNumber", serial.hex().upper()), ("C", "US"), ("O", SIMULATION), ("CN", common_name))


def _device_info(text: str) -> Extension:
    """SubjectAltName with DMTF's otherName vendor:product:serial (DSP0274, device certificates)."""
    info = x509.OtherName(x509.ObjectIdentifier(OID_DMTF_DEVICE_INFO), tlv(0x0C, text.encode()))
    return extension(x509.SubjectAlternativeName([info]))


def _fwid_extension(pki: _Chip, chip: str, brom_key: Key, fwid: bytes, *, flag: str | None) -> Extension:
    digest, nothing = (sequence(oid(OID_SHA384), octet_string(value)) for value in (fwid, bytes(48)))
    if not pki.later:
        # The older composite device id: version, the device key, the firmware digest.
        spki = brom_key.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return other(OID_DICE_FWID_HOPPER, sequence(integer(1), spki, digest))
    vendor, model, version = b"NVIDIA", f"{chip} A01 {pki.engine}".encode(), b"01"
    fields = [implicit(number, item) for number, item in enumerate((vendor, model, version, b"\x01", b"\0", b"\0"))]
    fields += [explicit(6, digest, nothing), implicit(7, tcb_flags(flag)), implicit(8, b"\xc0"), implicit(9, b"\0")]
    return other(OID_DICE_TCB_INFO, sequence(*fields))


# --- revocation answers -----------------------------------------------------------------------------------------------

_RECORDED_BEFORE = timedelta(minutes=15)
_OID_BASIC = "1.3.6.1.5.5.7.48.1.1"
_OID_NONCE = "1.3.6.1.5.5.7.48.1.2"
_OCSP_NO_CHECK = x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.5")
_HASHES = {
    "sha1": "1.3.14.3.2.26",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
_MALFORMED, _INTERNAL, _UNAUTHORIZED = 1, 2, 6
_STATUSES = {"malformedrequest": 1, "internalerror": 2, "trylater": 3, "sigrequired": 5, "unauthorized": 6}
# By their number (RFC 5280, 5.3.1), of which 7 is unused.
_REASONS = (
    *("unspecified", "keycompromise", "cacompromise", "affiliationchanged", "superseded", "cessationofoperation"),
    *("certificatehold", "", "removefromcrl", "privilegewithdrawn", "aacompromise"),
)
_RESPONDER_LIES = ("wrong-responder", "responder-purpose", "responder-expired", "ocsp-by-issuer")

# The lies about one certificate: name → what follows the position.
Lies = Mapping[str, str]


class OcspIssuer(Authorities):
    """Answers OCSP requests about the certificates of one simulation."""

    def __init__(self, keys: KeyRing, clock: datetime) -> None:
        super().__init__(keys, clock)
        # By name and key: an issuer, whether it issues for devices, and whether it is a root.
        self._issuers: dict[tuple[bytes, bytes], tuple[Template, bool, bool]] = {}
        self._lies: dict[tuple[bytes, int], Lies] = {}
        self._responders: dict[tuple[bytes, str], Certificate] = {}

    def register(self, chain: tuple[Certificate, ...], position: int, told: Told, *, of_device: bool) -> None:
        """Make a certificate and its issuer known. One that lies stays so when an honest owner follows."""
        certificate = chain[position]
        issuer = certificate.issuer
        place = (issuer.subject.public_bytes(), issuer.key.point)
        self._issuers.setdefault(place, (issuer, of_device, position == len(chain) - 2))
        given = {name: told.indexed(name) for name in OCSP_LIES}
        lies = {name: found[position] for name, found in given.items() if position in found}
        key = (issuer.key.point, certificate.template.serial)
        if lies or key not in self._lies:
            self._lies[key] = lies

    def answer(self, request: bytes, at: datetime | None = None) -> bytes:
        """The DER response to a DER request that comes at ``at`` (the platform's clock by default).

        Never raises: what cannot be read is answered ``malformedRequest``.
        """
        try:
            query = ocsp.load_der_ocsp_request(request)
            nonces = [item.value for item in query.extensions if isinstance(item.value, x509.OCSPNonce)]
            known = query.hash_algorithm.name in _HASHES
        except (ValueError, NotImplementedError, TypeError, x509.DuplicateExtension):
            return _failure(_MALFORMED)
        if not known:
            return _failure(_MALFORMED)
        return self._answer(query, at or self.clock, nonce=octet_string(nonces[0].nonce) if nonces else None)

    def about(self, certificate: Certificate, at: datetime | None = None) -> bytes:
        """The response about one certificate, without a nonce, as caches and bundles keep it: made before ``at``."""
        issuer = certificate.issuer
        digests = [_digest("sha384", part) for part in (issuer.subject.public_bytes(), issuer.key.point)]
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            digests[0], digests[1], certificate.template.serial, hashes.SHA384()
        )
        return self._answer(builder.build(), at or self.clock, age=_RECORDED_BEFORE)

    def _answer(
        self, query: ocsp.OCSPRequest, at: datetime, *, nonce: bytes | None = None, age: timedelta = timedelta(0)
    ) -> bytes:
        found = self._find(query)
        if found is None:
            return _failure(_UNAUTHORIZED)
        issuer, of_device, root = found
        lies = self._lies.get((issuer.key.point, query.serial_number), {} if of_device else {"unknown": ""})
        if "ocsp-garbage" in lies:
            return b"\x30\x03\x0a\x01"
        if "ocsp-status" in lies:
            return _failure(_STATUSES.get(lies["ocsp-status"].lower(), _INTERNAL))
        shift = -age
        if "stale" in lies:
            shift = -(_DAY + _HOUR)
        elif "future" in lies:
            shift = _HOUR
        produced = at.replace(microsecond=0) + shift
        manner = next((name for name in _RESPONDER_LIES if name in lies), "delegated")
        signer, embedded = issuer.key, b""
        if manner != "ocsp-by-issuer":
            slot = (issuer.key.point, manner)
            if slot not in self._responders:
                self._responders[slot] = self._responder(issuer, manner, of_device=of_device, root=root)
            signer = self._responders[slot].template.key
            embedded = explicit(0, sequence(self._responders[slot].der))
        if "ocsp-nonce" in lies:
            nonce = nonce and octet_string(self.keys.bytes("another OCSP nonce", 32))
        echo = nonce is not None and "ocsp-no-nonce" not in lies
        extensions = sequence(sequence(oid(_OID_NONCE), octet_string(nonce or b"")))
        data = sequence(
            explicit(2, octet_string(signer.key_id)),
            generalized_time(produced),
            sequence(_single(query, lies, produced)),
            explicit(1, extensions) if echo else b"",
        )
        signature = signer.sign(data + b"\0" if "ocsp-signature" in lies else data)
        basic = sequence(data, sequence(oid("1.2.840.10045.4.3.3")), bit_string(signature), embedded)
        return sequence(enumerated(0), explicit(0, sequence(oid(_OID_BASIC), octet_string(basic))))

    def _find(self, query: ocsp.OCSPRequest) -> tuple[Template, bool, bool] | None:
        wanted = (query.issuer_name_hash, query.issuer_key_hash)
        for parts, issuer in self._issuers.items():
            if tuple(_digest(query.hash_algorithm.name, part) for part in parts) == wanted:
                return issuer
        return None

    def _responder(self, issuer: Template, manner: str, *, of_device: bool, root: bool) -> Certificate:
        common_name = issuer.common_name
        if manner == "wrong-responder":
            another = name(("CN", "Another CA"), ("O", SIMULATION))
            issuer = replace(issuer, subject=another, key=self.keys.key("another CA"))
        # NVIDIA's device side lists nocheck among the purposes, where its RIM side has the extension.
        purposes = [ExtendedKeyUsageOID.OCSP_SIGNING, *([_OCSP_NO_CHECK] if of_device else [])]
        if manner == "responder-purpose":
            purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        # The responder below the root of devices has no basicConstraints, and nothing critical.
        plain = of_device and root
        template = self.template(
            f"OCSP responder {manner} {'device' if of_device else 'rim'} {common_name}",
            name(("CN", f"NVIDIA OCSP Responder {common_name}"[:64]), ("O", SIMULATION), ("C", "US")),
            (self.clock - 360 * _DAY, self.clock + (-1 if manner == "responder-expired" else 60) * _DAY),
            *([] if plain else [basic_constraints(ca=False, critical=False)]),
            key_usage("digitalSignature", critical=not plain),
            extension(x509.ExtendedKeyUsage(purposes), critical=not plain),
            *([] if of_device else [extension(x509.OCSPNoCheck())]),
            *KeyId,
            issuer=issuer.key,
            generalized=not of_device,
        )
        return issue(template, issuer)


def _single(query: ocsp.OCSPRequest, lies: Lies, produced: datetime) -> bytes:
    cert_id = sequence(
        sequence(oid(_HASHES[query.hash_algorithm.name]), NULL),
        octet_string(query.issuer_name_hash),
        octet_string(query.issuer_key_hash),
        integer(query.serial_number + ("ocsp-serial" in lies)),
    )
    if "hold" in lies or "revoked" in lies:
        reason = "certificatehold" if "hold" in lies else lies["revoked"].lower() or "keycompromise"
        number = _REASONS.index(reason) if reason in _REASONS else 0
        status = explicit(1, generalized_time(produced - 7 * _DAY), explicit(0, enumerated(number)))
    else:
        status = implicit(2 if "unknown" in lies else 0, b"")
    end = b"" if "no-next-update" in lies else explicit(0, generalized_time(produced + _DAY))
    return sequence(cert_id, status, generalized_time(produced), end)


def _failure(status: int) -> bytes:
    return sequence(enumerated(status))


def _digest(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()
