"""Simulated Intel platforms: TDX quotes of versions 4 and 5, and the collateral and services of Intel's PKI.

The chain is root, platform CA and PCK certificate (P-256, SGX extensions); a TCB signer below the root signs TCB info
and QE identity as texts. A quote is header, trust domain's report and signature by an attestation key that the quoting
enclave certifies: its report, signed by the PCK, has the digest of that key. Names are Intel's, and the organization
says that it is a simulation. Everything follows from the seed, the clock and the lies.

Sources: Intel TDX DCAP Quoting Library API, appendix A.3 and A.4; Intel SGX PCK Certificate and CRL Profile; Intel's
Provisioning Certification Service, version 4.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from urllib.parse import quote as percent_encoded

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nvattest.model import format_time
from nvattest.tee.collateral import TdxCollateral, tdx_collateral
from nvattest.testing.certificates import (
    SIMULATION,
    Authorities,
    Extension,
    KeyId,
    KeyRing,
    SigningKey,
    Template,
    basic_constraints,
    crl_url,
    enumerated,
    integer,
    key_usage,
    name,
    octet_string,
    oid,
    other,
    pem,
    revocation_list,
    sequence,
    tlv,
    window,
)
from nvattest.testing.lies import Told

# Content type, headers and body of a service's answer.
Served = tuple[str, dict[str, str], bytes]

_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
# Quote version, kind of body (0: version 4 names none) and its size: TDX 1.0, 1.5, and 1.5 with service fields.
BODIES = {"tdx": (4, 0, 584), "tdx-v5": (5, 3, 648), "tdx-v5-ex": (5, 4, 885)}
# No platform of Intel's has this type.
FMSPC = bytes.fromhex("5eed00c0ffee")
_OTHER_FMSPC = bytes.fromhex("5eed00000001")
_CPU_SVN = bytes.fromhex("03031919040700050000000000000000")
_OLD_CPU_SVN = bytes.fromhex("02021919040700050000000000000000")
_PCE_SVN = 13
# Security version of the TDX module, its major version, and SEAM loader.
_TEE_SVN = bytes.fromhex("06010300000000000000000000000000")
_EVALUATION = 20
_QE_ATTRIBUTES = bytes.fromhex("1500000000000000e700000000000000")
_XFAM = bytes.fromhex("e702060000000000")
_DEBUG, _SEPT_VE_DISABLE, _MIGRATABLE = 1 << 0, 1 << 28, 1 << 29
_SGX = "1.2.840.113741.1.13.1"
_DAY = timedelta(days=1)
_ADVISORIES = ["INTEL-SA-00999"]
_QE_REPORT_DATA, _PCK_CHAIN = 6, 5
_ROOT, _CA, _PCK, _TCB = (
    "Intel SGX Root CA", "Intel SGX PCK Platform CA", "Intel SGX PCK Certificate", "Intel SGX TCB Signing",
)  # fmt: skip


class IntelGuest:
    """A trust domain with its platform. ``body`` is a key of ``BODIES``."""

    provider = "tdx_guest"
    auxiliary: bytes | None = None

    def __init__(self, body: str, keys: KeyRing, clock: datetime, told: Told) -> None:
        self._body, self._keys, self._clock, self._told = body, keys, clock, told
        self.measurement = measured(keys, "MRTD", told.get("measurement"))
        changed = told.indexed("register")
        self.registers = tuple(measured(keys, f"RTMR {index}", changed.get(index)) for index in range(4))
        self._authorities = authorities = Authorities(keys, clock)
        signing, issuing = key_usage("digitalSignature"), key_usage("keyCertSign,cRLSign")
        root = self._certificate(_ROOT, _ROOT, issuing, basic_constraints(ca=True, path_length=1))
        begin, end = (datetime(*day, tzinfo=timezone.utc) for day in ((2018, 5, 21), (2049, 12, 31)))
        root = replace(root, not_before=begin, not_after=end)
        authority = self._certificate(_CA, _ROOT, issuing, basic_constraints(ca=True, path_length=0))
        pck = self._certificate(_PCK, _CA, signing, basic_constraints(ca=False), self._sgx_extension())
        signer = self._certificate(_TCB, _ROOT, signing, basic_constraints(ca=False))
        self._chain = authorities.chain((pck, authority, root), told)
        # Where a chain under another root is shown, the honest root stays the one to trust.
        self._tcb_chain = authorities.chain((signer, root))
        self.root = self._tcb_chain[1].der
        self._window = window(told, clock, days=30)

    @property
    def demands(self) -> dict[str, object]:
        """The table of a CPU policy that counts this guest alone, had it no lies."""
        registers = {f"rtmr{index}": [measured(self._keys, f"RTMR {index}", None).hex()] for index in range(4)}
        return {"mrtd": [measured(self._keys, "MRTD", None).hex()], **registers}

    def quote(self, report_data: bytes) -> bytes:
        """The quote over 64 bytes of report data."""
        version, kind, size = BODIES[self._body]
        signed = struct.pack("<HHIHH", version, 2, 0x81, 0, 0) + _VENDOR + self._keys.bytes("quote user data", 20)
        if kind:
            signed += struct.pack("<HI", kind, size)
        signed += self._report(report_data).ljust(size, b"\0")
        key = self._key("attestation key")
        signer = self._key("uncertified") if "wrong-key" in self._told else key
        signature = signer.sign_raw(signed) + key.point[1:]
        certification = self._quoting_enclave(key)
        signature += struct.pack("<HI", _QE_REPORT_DATA, len(certification)) + certification
        return signed + struct.pack("<I", len(signature)) + signature

    @property
    def signature_at(self) -> int:
        """Where the signature begins: 64 bytes."""
        version, _, size = BODIES[self._body]
        return (48 if version == 4 else 54) + size + 4

    def _report(self, report_data: bytes) -> bytes:
        """The fields of TDX 1.0; TDX 1.5 repeats the module's version, and all that follows is zero."""
        told = self._told
        attributes = (0 if "sept-ve" in told else _SEPT_VE_DISABLE) | (_DEBUG if "debug" in told else 0)
        attributes |= _MIGRATABLE if "migratable" in told else 0
        fields = (
            _TEE_SVN,
            self._keys.bytes("MRSEAM", 48),
            b"\x01".ljust(48, b"\0") if "module-signer" in told else bytes(48),
            bytes(8),
            struct.pack("<Q", attributes),
            _XFAM,
            self.measurement,
            bytes(3 * 48),  # MRCONFIGID, MROWNER, MROWNERCONFIG
            *self.registers,
            report_data,
        )
        return b"".join(fields) + (_TEE_SVN if self._body != "tdx" else b"")

    def _quoting_enclave(self, key: SigningKey) -> bytes:
        authentication = bytes(range(32))
        digest = hashlib.sha256(key.point[1:] + authentication).digest()
        report = b"".join(
            (
                _CPU_SVN,
                bytes(32),
                _QE_ATTRIBUTES,
                self._keys.bytes("MRENCLAVE", 32),
                bytes(32),
                self._keys.bytes("another MRSIGNER" if "qe-signer" in self._told else "MRSIGNER", 32),
                bytes(96),
                struct.pack("<HH", 2, 8),
                bytes(60),
                digest.ljust(64, b"\0"),
            )
        )
        # As in genuine quotes, a NUL ends the text.
        chain = pem(certificate.der for certificate in self._chain) + b"\0"
        return (
            report + self._key(_PCK).sign_raw(report)
            + struct.pack("<H", len(authentication)) + authentication
            + struct.pack("<HI", _PCK_CHAIN, len(chain)) + chain
        )  # fmt: skip

    def _certificate(self, common_name: str, issuer: str, *extensions: Extension) -> Template:
        return self._authorities.template(
            common_name,
            _name(common_name),
            (self._clock - 365 * _DAY, self._clock + 6 * 365 * _DAY),
            KeyId.ISSUER,
            crl_url("IntelSGXRootCA.der"),
            KeyId.SUBJECT,
            *extensions,
            key=self._key(common_name),
            issuer=self._key(issuer),
            serial=self._keys.serial(common_name, 20),
        )

    def _key(self, label: str) -> SigningKey:
        return self._keys.key(label, p256=True)

    def _sgx_extension(self) -> Extension:
        svn = _OLD_CPU_SVN if "out-of-date" in self._told else _CPU_SVN
        tcb = [_item(f"2.{number}", integer(value)) for number, value in enumerate(svn, 1)]
        tcb += [_item("2.17", integer(_PCE_SVN)), _item("2.18", octet_string(svn))]
        flags = [_item(f"7.{number}", tlv(0x01, b"\xff")) for number in (1, 2, 3)]
        content = sequence(
            _item("1", octet_string(self._keys.bytes("PPID", 16))),
            _item("2", sequence(*tcb)),
            _item("3", octet_string(bytes(2))),
            _item("4", octet_string(FMSPC)),
            _item("5", enumerated(1)),
            _item("6", octet_string(self._keys.bytes("platform instance", 16))),
            _item("7", sequence(*flags)),
        )
        return other(_SGX, content)

    def collateral(self) -> TdxCollateral:
        """What Intel's service gives for this platform, as the JSON document of its quote verification library."""
        tcb_chain = pem(certificate.der for certificate in self._tcb_chain).decode()
        tcb_info, identity = self._tcb_info(), self._qe_identity()
        signature = self._sign(tcb_info)
        if "tcb-info-tampered" in self._told:
            tcb_info = tcb_info.replace(f'"tcbEvaluationDataNumber":{_EVALUATION}', '"tcbEvaluationDataNumber":99', 1)
        return tdx_collateral(
            {
                "pck_crl_issuer_chain": pem(certificate.der for certificate in self._chain[1:]).decode(),
                "root_ca_crl": self._crl(_ROOT, 1).hex(),
                "pck_crl": self._crl(_CA, 0).hex(),
                "tcb_info_issuer_chain": tcb_chain,
                "tcb_info": tcb_info,
                "tcb_info_signature": signature,
                "qe_identity_issuer_chain": tcb_chain,
                "qe_identity": identity,
                "qe_identity_signature": self._sign(identity),
            }
        )

    def serve(self, path: str, query: Mapping[str, str]) -> Served | None:
        """The answer of Intel's service, or of a caching one, to a GET; None where it has nothing there."""
        members = self.collateral().members

        def chain(header: str, member: str) -> dict[str, str]:
            return {header: percent_encoded(members[member], safe="")}

        def signed(word: str, member: str) -> bytes:
            # Intel's envelope: the signed text is a part of it, byte by byte.
            return f'{{"{word}":{members[member]},"signature":"{members[member + "_signature"]}"}}'.encode()

        if path == "/tdx/certification/v4/tcb" and query.get("fmspc", "").lower() == FMSPC.hex():
            headers = chain("TCB-Info-Issuer-Chain", "tcb_info_issuer_chain")
            return "application/json", headers, signed("tcbInfo", "tcb_info")
        if path == "/tdx/certification/v4/qe/identity":
            headers = chain("SGX-Enclave-Identity-Issuer-Chain", "qe_identity_issuer_chain")
            return (
                "application/json",
                headers,
                signed("enclaveIdentity", "qe_identity"),
            )
        if path == "/sgx/certification/v4/pckcrl" and query.get("ca") == "platform":
            headers = chain("SGX-PCK-CRL-Issuer-Chain", "pck_crl_issuer_chain")
            crl = bytes.fromhex(members["pck_crl"])
            if query.get("encoding") == "der":
                return "application/pkix-crl", headers, crl
            return "application/x-pem-file", headers, x509.load_der_x509_crl(crl).public_bytes(Encoding.PEM)
        if path == "/IntelSGXRootCA.der":
            return "application/pkix-crl", {}, bytes.fromhex(members["root_ca_crl"])
        if path == "/sgx/certification/v4/rootcacrl":  # of a PCCS, which has the list as a text
            return "text/plain", {}, members["root_ca_crl"].encode()
        return None

    def _sign(self, text: str) -> str:
        return self._key(_TCB).sign_raw(text.encode()).hex()

    def _crl(self, issuer: str, subject: int) -> bytes:
        """The list of an issuer, which may name the certificate at this position of the chain."""
        revoked = [self._chain[subject].template.serial] if subject in self._told.indexed("revoked") else []
        rogue = self._key("uncertified")
        return revocation_list(
            _name(issuer), self._key(issuer), self._told, self._clock, days=30, revoked=revoked, rogue=rogue
        )

    def _dates(self) -> dict[str, object]:
        begin, end = self._window
        return {"issueDate": format_time(begin), "nextUpdate": format_time(end)}

    def _number(self) -> int:
        return int(self._told.get("evaluation") or _EVALUATION)

    def _tcb_info(self) -> str:
        told = self._told
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        status = told.get("tcb-status") or "UpToDate"
        levels = [
            _level(_CPU_SVN, status, "2025-05-14", _ADVISORIES if status != "UpToDate" else []),
            _level(_OLD_CPU_SVN, "OutOfDate", "2024-03-13", _ADVISORIES),
        ]
        module_levels = [{"tcb": {"isvsvn": 5}, "tcbDate": "2025-05-14T00:00:00Z", "tcbStatus": "UpToDate"}]
        return _compact(
            {
                "id": "TDX",
                "version": 3,
                **self._dates(),
                "fmspc": (_OTHER_FMSPC if "other-platform" in told else FMSPC).hex().upper(),
                "pceId": "0000",
                "tcbType": 0,
                "tcbEvaluationDataNumber": self._number(),
                "tdxModule": module,
                "tdxModuleIdentities": [{"id": "TDX_01", **module, "tcbLevels": module_levels}],
                "tcbLevels": levels,
            }
        )

    def _qe_identity(self) -> str:
        return _compact(
            {
                "id": "TD_QE",
                "version": 2,
                **self._dates(),
                "tcbEvaluationDataNumber": self._number(),
                "miscselect": "00000000",
                "miscselectMask": "FFFFFFFF",
                "attributes": "11000000000000000000000000000000",
                "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
                "mrsigner": self._keys.bytes("MRSIGNER", 32).hex().upper(),
                "isvprodid": 2,
                "tcbLevels": [{"tcb": {"isvsvn": 4}, "tcbDate": "2025-05-14T00:00:00Z", "tcbStatus": "UpToDate"}],
            }
        )


def _name(common_name: str) -> x509.Name:
    return name(("CN", common_name), ("O", SIMULATION), ("L", "Santa Clara"), ("ST", "CA"), ("C", "US"))


def _item(part: str, value: bytes) -> bytes:
    return sequence(oid(f"{_SGX}.{part}"), value)


def measured(keys: KeyRing, what: str, lie: str | None) -> bytes:
    """A measurement of 48 bytes; a lie without a value of its own has others."""
    if lie is None:
        return keys.bytes(what, 48)
    return bytes.fromhex(lie).ljust(48, b"\0")[:48] if lie else keys.bytes(f"another {what}", 48)


def _level(svn: bytes, status: str, date: str, advisories: list[str]) -> dict[str, object]:
    level: dict[str, object] = {
        "tcb": {
            "sgxtcbcomponents": [{"svn": value} for value in svn],
            "pcesvn": _PCE_SVN,
            "tdxtcbcomponents": [{"svn": value} for value in (5, 0, *_TEE_SVN[2:])],
        },
        "tcbDate": f"{date}T00:00:00Z",
        "tcbStatus": status,
    }
    return level | ({"advisoryIDs": advisories} if advisories else {})


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
