"""Simulated AMD chips: SEV-SNP reports of Milan, Genoa, Siena and Turin, their certificates and their service.

The chain is ARK (self-signed, RSA 4096), ASK or ASVK, and the endorsement key (P-384): the VCEK of a chip at a firmware
level, or the VLEK of a cloud provider. Names are AMD's, and the organization says that it is a simulation. Everything
follows from the seed, the clock and the lies, and the RSA keys from their names.

Sources: AMD 56860 (firmware ABI), 57230 (certificates and key distribution service), 56421 (table of certificates).
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nvattest.tee.collateral import SnpCollateral
from nvattest.testing.certificates import (
    SIMULATION,
    Authorities,
    Certificate,
    Extension,
    Key,
    KeyId,
    KeyRing,
    SigningKey,
    Template,
    basic_constraints,
    crl_url,
    integer,
    key_usage,
    name,
    other,
    pem,
    resigned,
    revocation_list,
    tlv,
)
from nvattest.testing.cpu_intel import Served, measured
from nvattest.testing.lies import Told

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_AMD = "1.3.6.1.4.1.3704.1"
_DAY = timedelta(days=1)
_SIZE, _SIGNED = 0x4A0, 0x2A0
# Guest policy: ABI 1.51, SMT allowed, the bit that is always one.
_POLICY = 51 | 1 << 8 | 1 << 16 | 1 << 17
_MIGRATION, _DEBUG = 1 << 18, 1 << 19
_HOST_ASKED = 0xFFFFFFFF
_MASKED, _VLEK, _UNSIGNED = 1 << 1, 1 << 2, 7 << 2
_CSP = "CN=simulation.nvattest.invalid"
# Of the certificate table: VCEK, VLEK, ASK or ASVK, ARK.
_GUIDS = {
    "vcek": bytes.fromhex("63da758de6644564adc5f4b93be8accd"),
    "vlek": bytes.fromhex("a8074bc2a25a483eaae639c045a0b8a1"),
    "ask": bytes.fromhex("4ab7b379bbac4fe4a02f05aef327c782"),
    "ark": bytes.fromhex("c0b406a4a803495297433fb6014cd0ae"),
}


class Generation(NamedTuple):
    """What differs between the CPUs. ``tcb`` is FMC, boot loader, TEE, SNP and microcode; only Turin has an FMC."""

    root: str
    product: str
    serial: int
    report: int
    cpuid: tuple[int, int, int]
    tcb: tuple[int, int, int, int, int]

    @property
    def turin(self) -> bool:
        """Whether the layouts are Turin's."""
        return self.root == "Turin"

    def packed(self, tcb: tuple[int, ...]) -> bytes:
        """A TCB version as its eight bytes."""
        fmc, boot_loader, tee, snp, microcode = tcb
        if self.turin:
            return bytes((fmc, boot_loader, tee, snp, 0, 0, 0, microcode))
        return bytes((boot_loader, tee, 0, 0, 0, 0, snp, microcode))


GENERATIONS = {
    "milan": Generation("Milan", "Milan-B0", 0x10000, 2, (0x19, 0x01, 1), (0, 4, 0, 24, 219)),
    "genoa": Generation("Genoa", "Genoa", 0x20000, 3, (0x19, 0x11, 1), (0, 10, 0, 23, 84)),
    "siena": Generation("Genoa", "Genoa", 0x20000, 3, (0x19, 0xA0, 2), (0, 10, 0, 23, 27)),
    "turin": Generation("Turin", "Turin", 0x30000, 5, (0x1A, 0x02, 1), (1, 2, 1, 4, 75)),
}


class AmdGuest:
    """An SNP guest with its chip. ``kind`` is the endorsement key: ``vcek`` or ``vlek``."""

    provider = "sev_guest"
    registers: tuple[bytes, ...] = ()

    def __init__(self, generation: str, kind: str, keys: KeyRing, clock: datetime, told: Told) -> None:
        self._name, self._generation, self._kind = generation, GENERATIONS[generation], kind
        self._keys, self._clock, self._told = keys, clock, told
        self.measurement = measured(keys, "MEASUREMENT", told.get("measurement"))
        root = self._generation.root
        self._names = {"ark": f"ARK-{root}", "ask": f"SEV-{root}" if kind == "vcek" else f"SEV-VLEK-{root}"}
        self._chip = keys.bytes("chip", 8 if self._generation.turin else 64)
        fmc, boot_loader, tee, snp, microcode = self._generation.tcb
        old = "old-firmware" in told
        self._tcb = (fmc, boot_loader, tee, snp - old, microcode - old)
        self._authorities = Authorities(keys, clock)
        self.root = self._authorities.chain([self._authority("ark")])[0].der
        self._endorsement, self._ask, self._shown_root = (item.der for item in self._chain(self._tcb))

    @property
    def demands(self) -> dict[str, object]:
        """The table of a CPU policy that counts this guest alone, had it no lies."""
        floor = dict(zip(("fmc", "boot_loader", "tee", "snp", "microcode"), GENERATIONS[self._name].tcb, strict=True))
        if not self._generation.turin:
            del floor["fmc"]
        endorsement = {"endorsement": ["vlek"], "csp_id": [_CSP]} if self._kind == "vlek" else {}
        measurement = measured(self._keys, "MEASUREMENT", None).hex()
        return {
            "measurement": [measurement], "host_data": [bytes(32).hex()], **endorsement,
            "minimum_tcb": {self._name: floor},
        }  # fmt: skip

    def quote(self, report_data: bytes) -> bytes:
        """The report over 64 bytes of report data."""
        told, generation = self._told, self._generation
        # Before version 3 a report names no CPU.
        usual = max(generation.report, 3) if "wrong-generation" in told else generation.report
        version = int(told.get("version") or usual)
        fmc, boot_loader, tee, snp, microcode = self._tcb
        reported = generation.packed(self._tcb)
        # The machine runs newer microcode than it reports, as some do: the certificate belongs to what is reported.
        current = generation.packed((fmc, boot_loader, tee, snp, microcode + 1))
        policy = int(told.get("policy") or f"{_POLICY:x}", 16)
        policy |= (_DEBUG if "debug" in told else 0) | (_MIGRATION if "migratable" in told else 0)
        family, model, stepping = (0x19, 0x60, 1) if "wrong-generation" in told else generation.cpuid
        key_info = _VLEK if self._kind == "vlek" else 0
        if "unsigned" in told:
            key_info = _UNSIGNED
        report = bytearray(_SIZE)
        for offset, content in (
            (0x000, struct.pack("<IIQ", version, 0, policy)),
            (0x030, struct.pack("<II", _HOST_ASKED if "host-asked" in told else int(told.get("vmpl") or 0), 1)),
            (0x038, current),
            (0x040, struct.pack("<QI", 0x25, key_info | (_MASKED if "masked" in told else 0))),
            (0x050, report_data),
            (0x090, self.measurement),
            (0x0C0, measured(self._keys, "host data", told.get("host-data"))[:32] if "host-data" in told else b""),
            (0x140, self._keys.bytes("report id", 32)),
            (0x160, b"\xff" * 32),
            (0x180, reported),
            (0x188, bytes((family, model, stepping)) if version >= 3 else b""),
            (0x1A0, self._chip if self._kind == "vcek" else b""),
            (0x1E0, reported + bytes((41, 55, 1, 0, 41, 55, 1, 0)) + reported),
        ):
            report[offset : offset + len(content)] = content
        key = self._keys.key("uncertified") if "wrong-key" in told else self._key(self._tcb)
        raw = key.sign_raw(bytes(report[:_SIGNED]))
        for offset, number in ((_SIGNED, raw[:48]), (_SIGNED + 72, raw[48:])):
            report[offset : offset + 48] = number[::-1]
        return bytes(report)

    @property
    def signature_at(self) -> int:
        """Where the signature begins: R, 48 bytes that are used."""
        return _SIGNED

    def _key(self, tcb: tuple[int, ...]) -> SigningKey:
        """A VCEK depends on the firmware's level; a VLEK belongs to the provider."""
        return self._keys.key("vlek" if self._kind == "vlek" else f"vcek {tcb}")

    def _chain(self, tcb: tuple[int, ...]) -> tuple[Certificate, ...]:
        """The chain for this level of firmware: endorsement certificate, ASK, ARK."""
        templates = (self._endorsement_at(tcb), self._authority("ask"), self._authority("ark"))
        return self._authorities.chain(templates, self._told, rogue=rsa_key(_ROGUE))

    def _authority(self, which: str) -> Template:
        """The certificate of ARK or ASK."""
        root = which == "ark"
        begin, end = (datetime(year, 10, 22, tzinfo=timezone.utc) for year in (2020, 2055))
        return self._authorities.template(
            self._names[which],
            _name(self._names[which]),
            (begin, end),
            *KeyId,
            basic_constraints(ca=True, path_length=None if root else 0),
            key_usage("keyCertSign,cRLSign" if root else "keyCertSign"),
            crl_url("crl"),
            key=rsa_key(self._names[which]),
            issuer=rsa_key(self._names["ark"]),
            serial=self._generation.serial + (0 if root else 0x101 if self._kind == "vlek" else 2),
        )

    def _endorsement_at(self, tcb: tuple[int, ...]) -> Template:
        """The VCEK or VLEK for this level of firmware."""
        told, generation, vlek = self._told, self._generation, self._kind == "vlek"
        fmc, boot_loader, tee, snp, microcode = tcb
        parts = {"3.1": boot_loader, "3.2": tee, "3.3": snp + ("wrong-tcb" in told), "3.8": microcode}
        if generation.turin:
            parts["3.9"] = fmc
        chip = self._keys.bytes("another chip", len(self._chip)) if "wrong-chip" in told else self._chip
        return self._authorities.template(
            "",
            _name("SEV-VLEK" if vlek else "SEV-VCEK"),
            (self._clock - 300 * _DAY, self._clock + (65 if vlek else 2200) * _DAY),
            _own("1", integer(1 if generation.turin else 0)),
            _own("2", tlv(0x16, generation.product.encode())),
            *(_own(part, integer(value)) for part, value in parts.items()),
            _own("5", tlv(0x16, _CSP.encode())) if vlek else _own("4", chip),
            key=self._key(tcb),
            serial=0,
        )

    def collateral(self) -> SnpCollateral:
        """What AMD's service gives for this chip: endorsement certificate, ASK and ARK, and the revocation list."""
        crls = () if "no-crl" in self._told else (self._crl,)
        return SnpCollateral(certificates=(self._endorsement, self._ask, self._shown_root), crls=crls)

    @property
    def auxiliary(self) -> bytes:
        """The table of certificates that a host puts beside the report (AMD 56421)."""
        items = ((self._kind, self._endorsement), ("ask", self._ask), ("ark", self._shown_root))
        offset, table, contents = 24 * (len(items) + 1), b"", b""
        for label, der in items:
            table += _GUIDS[label] + struct.pack("<II", offset + len(contents), len(der))
            contents += der
        return table + bytes(24) + contents

    def serve(self, path: str, query: Mapping[str, str]) -> Served | None:
        """The answer of AMD's key distribution service to a GET; None where it has nothing there."""
        match = re.fullmatch(r"/(vcek|vlek)/v1/([A-Za-z]+)/(cert_chain|crl|[0-9a-fA-F]+)", path)
        if match is None or match[2] != self._generation.root or match[1] != self._kind:
            return None
        if match[3] == "cert_chain":
            return "application/x-pem-file", {}, pem((self._ask, self._shown_root))
        if match[3] == "crl":
            return "application/pkix-crl", {}, self._crl
        parts = ("fmcSPL", "blSPL", "teeSPL", "snpSPL", "ucodeSPL")
        numbers = [query.get(part, "0" if part == "fmcSPL" and not self._generation.turin else "") for part in parts]
        known = self._kind == "vcek" and match[3].lower() == self._chip.hex()
        if not known or not all(re.fullmatch("[0-9]{1,3}", number) for number in numbers):
            return None
        return "application/octet-stream", {}, self._chain(tuple(map(int, numbers)))[0].der

    @functools.cached_property
    def _crl(self) -> bytes:
        """The list of the ARK. It names ASKs, and no endorsement key: all of these have one serial number."""
        ark = self._names["ark"]
        revoked = [self._authority("ask").serial] if "revoked" in self._told else []
        return revocation_list(
            _name(ark), rsa_key(ark), self._told, self._clock, days=46, revoked=revoked, rogue=rsa_key(_ROGUE)
        )


_ROGUE = "SEV-VLEK-Turin"


def _name(common_name: str) -> x509.Name:
    place = (("OU", "Engineering"), ("C", "US"), ("L", "Santa Clara"), ("ST", "CA"))
    return name(*place, ("O", SIMULATION), ("CN", common_name))


def _own(part: str, value: bytes) -> Extension:
    return other(f"{_AMD}.{part}", value)


# --- AMD's RSA keys ---------------------------------------------------------------------------------------------------

# RSA keys of 4096 bits belong to a name and to no seed: drawing one takes seconds. Each prime is the first after the
# digest of its name that is this far away.
_RSA = {
    "ARK-Milan": (1080, 1974),
    "SEV-Milan": (548, 474),
    "SEV-VLEK-Milan": (188, 48),
    "ARK-Genoa": (788, 48),
    "SEV-Genoa": (246, 1112),
    "SEV-VLEK-Genoa": (488, 1048),
    "ARK-Turin": (1258, 376),
    "SEV-Turin": (4146, 3682),
    "SEV-VLEK-Turin": (74, 400),
}
_EXPONENT = 65537


class RsaKey(Key):
    """The key of one of AMD's simulated authorities."""

    def __init__(self, label: str) -> None:
        def prime(which: str, distance: int) -> int:
            text = f"nvattest simulation\0rsa\0{label} {which}"
            return (int.from_bytes(hashlib.shake_256(text.encode()).digest(256), "big") | 3 << 2046 | 1) + distance

        p, q = (prime(which, distance) for which, distance in zip("pq", _RSA[label], strict=True))
        d = pow(_EXPONENT, -1, (p - 1) * (q - 1))
        self.numbers = rsa.RSAPrivateNumbers(
            p=p, q=q, d=d, dmp1=d % (p - 1), dmq1=d % (q - 1), iqmp=pow(q, -1, p),
            public_numbers=rsa.RSAPublicNumbers(e=_EXPONENT, n=p * q),
        )  # fmt: skip
        # Checking the primes again takes half a second.
        self._private = self.numbers.private_key(unsafe_skip_rsa_key_validation=True)
        self.public = self._private.public_key()
        self.point = self.public.public_bytes(Encoding.DER, PublicFormat.PKCS1)

    def signed(self, builder: Any, *, sha256: bool = False) -> Any:
        del sha256  # no lie of a guest
        made = builder.sign(self._private, hashes.SHA384(), rsa_padding=_PSS)
        der = made.public_bytes(Encoding.DER)
        if isinstance(made, x509.Certificate):
            tbs = made.tbs_certificate_bytes
            return x509.load_der_x509_certificate(resigned(der, tbs, tbs, self.sign(tbs)))
        tbs = made.tbs_certlist_bytes
        return x509.load_der_x509_crl(resigned(der, tbs, tbs, self.sign(tbs)))

    def sign(self, message: bytes, *, sha256: bool = False) -> bytes:
        """RSASSA-PSS with SHA-384 (RFC 8017, 8.1.1 and 9.1.1).

        The salt follows from the message, as the nonces of ECDSA do here: the library draws one, and a root would be
        another certificate in each process.
        """
        del sha256  # no lie of a guest
        return _sign_pss(self, message)

    def sign_raw(self, message: bytes) -> bytes:
        return self.sign(message)


@functools.cache
def rsa_key(label: str) -> RsaKey:
    """The key of this name: making it takes milliseconds."""
    return RsaKey(label)


@functools.lru_cache(maxsize=256)
def _sign_pss(key: RsaKey, message: bytes) -> bytes:
    digest = hashlib.sha384(message).digest()
    salt = hashlib.sha384(b"salt" + digest).digest()
    last = hashlib.sha384(bytes(8) + digest + salt).digest()
    size = 512 - len(last) - 1
    mask = b"".join(hashlib.sha384(last + number.to_bytes(4, "big")).digest() for number in range(size // 48 + 1))
    block = bytearray(x ^ y for x, y in zip((b"\x01" + salt).rjust(size, b"\0"), mask, strict=False))
    block[0] &= 0x7F
    numbers = key.numbers
    value = int.from_bytes(bytes(block) + last + b"\xbc", "big")
    modulo_p, modulo_q = pow(value, numbers.dmp1, numbers.p), pow(value, numbers.dmq1, numbers.q)
    signed = modulo_q + (modulo_p - modulo_q) * numbers.iqmp % numbers.p * numbers.q
    return signed.to_bytes(512, "big")
