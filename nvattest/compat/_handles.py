"""Evidence in the shapes that the old packages hand out, and back from them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nvattest.compat._errors import NoEvidenceError
from nvattest.evidence import Evidence
from nvattest.model import Architecture, DeviceKind, Nonce

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_ARCHITECTURE_NUMBERS = {Architecture.HOPPER: 9, Architecture.BLACKWELL: 10, Architecture.RUBIN: 13}
_MAXIMUM = 64 * 1024


class GpuHandle:
    """The evidence of one GPU with the getters of NVIDIA's ``NvmlHandler``.

    Versions and UUID are what the driver said, as there; what is verified comes from the signed report.
    ``get_attestation_cert_chain`` gives certificates of ``cryptography``, where NVIDIA's gave pyOpenSSL's.
    """

    __slots__ = ("evidence",)

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    def get_gpu_architecture(self) -> str:
        """``HOPPER``, ``BLACKWELL`` or ``RUBIN``."""
        return self.evidence.architecture.value

    def get_gpu_architecture_value(self) -> int | None:
        """NVML's number of the architecture: 9 or 10."""
        return _ARCHITECTURE_NUMBERS.get(self.evidence.architecture)

    def get_uuid(self) -> str:
        """The UUID that the driver gave, or an empty text."""
        return self.evidence.hints.get("uuid", "")

    def get_driver_version(self) -> str:
        """The driver's version, as the driver says."""
        return self.evidence.hints.get("driver_version", "")

    def get_vbios_version(self) -> str:
        """The VBIOS version as the driver says, in lower case."""
        return self.evidence.hints.get("vbios_version", "").lower()

    def get_attestation_report(self) -> bytes:
        """The bytes of the report."""
        return self.evidence.report

    def get_attestation_cert_chain(self) -> list[Certificate]:
        """The certificates, leaf first."""
        from cryptography import x509

        return x509.load_pem_x509_certificates(self.evidence.certificate_chain)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.evidence.architecture.value} {self.get_uuid() or 'without UUID'}>"


class SwitchHandle:
    """The evidence of one NVSwitch with the attributes of the old one."""

    __slots__ = ("evidence",)

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    @property
    def uuid(self) -> str:
        """The name that NSCQ gave, or an empty text."""
        return self.evidence.hints.get("uuid", "")

    @property
    def attestation_cert_chain(self) -> bytes:
        """The PEM chain, leaf first."""
        return self.evidence.certificate_chain

    @property
    def attestation_report(self) -> bytes:
        """The bytes of the report."""
        return self.evidence.report

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uuid or 'without UUID'}>"


def handles(evidence: Sequence[Evidence]) -> list[Any]:
    """The form for a LOCAL verifier."""
    return [GpuHandle(item) if item.kind is DeviceKind.GPU else SwitchHandle(item) for item in evidence]


def dictionaries(evidence: Sequence[Evidence]) -> list[dict[str, str]]:
    """The form for a REMOTE verifier: what NRAS reads; switches without ``arch``, as in the old SDK."""
    return [
        {
            "certificate": base64.b64encode(item.certificate_chain).decode("ascii"),
            "evidence": base64.b64encode(item.report).decode("ascii"),
            **({"arch": item.architecture.value} if item.kind is DeviceKind.GPU else {}),
        }
        for item in evidence
    ]


def evidence_of(items: object, kind: DeviceKind, nonce: Nonce) -> tuple[Evidence, ...]:
    """Evidence from a list of handles, of dictionaries or of ``nvattest.Evidence``.

    Raises:
        NoEvidenceError: no list, an empty one, an item of something else, or of the other kind of device.
    """
    if not isinstance(items, list | tuple):
        raise NoEvidenceError(
            f"evidence is a list, not {type(items).__name__}", hint="give what get_evidence() returned"
        )
    if not items:
        raise NoEvidenceError(
            "there is no evidence to verify", hint="the old SDK gave [] after a failure; get_evidence() raises it now"
        )
    found = tuple(_one(index, item, kind, nonce) for index, item in enumerate(items))
    for index, item in enumerate(found):
        if item.kind is not kind:
            raise NoEvidenceError(
                f"item {index} is the evidence of a {item.architecture.value}, which is no {kind.value}",
                code="device-kind",
                hint="GPUs and switches are two rounds, with clear_verifiers() between them",
            )
    return found


def _one(index: int, item: object, kind: DeviceKind, nonce: Nonce) -> Evidence:
    if isinstance(item, GpuHandle | SwitchHandle):
        return item.evidence
    if isinstance(item, Evidence):
        return item
    if isinstance(item, dict):
        name = item.get("arch", Architecture.LS10.value if kind is DeviceKind.NVSWITCH else "")
        try:
            architecture = Architecture(str(name).upper())
        except ValueError:
            raise NoEvidenceError(f"item {index}: 'arch' is {str(name)[:40]!r}", code="architecture") from None
        return Evidence(
            architecture=architecture,
            nonce=nonce.value,
            report=_decoded(index, item, "evidence"),
            certificate_chain=_decoded(index, item, "certificate"),
        )
    raise NoEvidenceError(f"item {index} is {type(item).__name__}, which is no evidence")


def _decoded(index: int, item: dict[Any, Any], key: str) -> bytes:
    text = item.get(key)
    if isinstance(text, str) and 0 < len(text) <= 2 * _MAXIMUM:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise NoEvidenceError(f"item {index}: {key!r} is missing or not base64", code="base64")
