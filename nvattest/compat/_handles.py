"""Evidence in the shapes that the old packages hand out, and back from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nvattest.compat import NoEvidenceError
from nvattest.errors import ParseError
from nvattest.evidence import Evidence, EvidenceForm, dump_evidence, read_evidence
from nvattest.model import Architecture, DeviceKind, Nonce

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_ARCHITECTURE_NUMBERS = {Architecture.HOPPER: 9, Architecture.BLACKWELL: 10, Architecture.RUBIN: 13}


@dataclass(frozen=True, repr=False)
class _Handle:
    evidence: Evidence

    def __repr__(self) -> str:
        uuid = self.evidence.hints.get("uuid") or "without UUID"
        return f"<{type(self).__name__} {self.evidence.architecture.value} {uuid}>"


class GpuHandle(_Handle):
    """The evidence of one GPU with the getters of NVIDIA's ``NvmlHandler``.

    Versions and UUID are the driver's words, or empty; the verification takes them from the signed report.
    """

    def get_gpu_architecture(self) -> str:
        """``HOPPER``, ``BLACKWELL`` or ``RUBIN``."""
        return self.evidence.architecture.value

    def get_gpu_architecture_value(self) -> int | None:
        """NVML's number of the architecture, such as 9 for Hopper."""
        return _ARCHITECTURE_NUMBERS.get(self.evidence.architecture)

    def get_uuid(self) -> str:
        return self.evidence.hints.get("uuid", "")

    def get_driver_version(self) -> str:
        return self.evidence.hints.get("driver_version", "")

    def get_vbios_version(self) -> str:
        return self.evidence.hints.get("vbios_version", "").lower()

    def get_attestation_report(self) -> bytes:
        return self.evidence.report

    def get_attestation_cert_chain(self) -> list[Certificate]:
        """The certificates, leaf first: those of ``cryptography``, where NVIDIA's are pyOpenSSL's."""
        from cryptography import x509

        return x509.load_pem_x509_certificates(self.evidence.certificate_chain)


class SwitchHandle(_Handle):
    """The evidence of one NVSwitch with the attributes of the old one."""

    @property
    def uuid(self) -> str:
        """The name that NSCQ gave, or an empty text."""
        return self.evidence.hints.get("uuid", "")

    @property
    def attestation_cert_chain(self) -> bytes:
        return self.evidence.certificate_chain

    @property
    def attestation_report(self) -> bytes:
        return self.evidence.report


def handles(evidence: Sequence[Evidence]) -> list[Any]:
    """The form for a LOCAL verifier."""
    return [GpuHandle(item) if item.kind is DeviceKind.GPU else SwitchHandle(item) for item in evidence]


def dictionaries(evidence: Sequence[Evidence]) -> list[dict[str, str]]:
    """The form for a REMOTE verifier: what NRAS reads; switches without ``arch``, as in the old SDK."""
    array: Any = dump_evidence(evidence, form=EvidenceForm.ARRAY)
    names = {DeviceKind.GPU: ("certificate", "evidence", "arch"), DeviceKind.NVSWITCH: ("certificate", "evidence")}
    return [{name: made[name] for name in names[item.kind]} for item, made in zip(evidence, array, strict=True)]


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
    if isinstance(item, _Handle):
        return item.evidence
    if isinstance(item, Evidence):
        return item
    if not isinstance(item, dict):
        raise NoEvidenceError(f"item {index} is {type(item).__name__}, which is no evidence")
    architecture = item.get("arch", Architecture.LS10.value if kind is DeviceKind.NVSWITCH else "")
    members = {name: item[name] for name in ("evidence", "certificate") if name in item}
    try:
        return read_evidence([{"arch": str(architecture).upper(), "nonce": nonce.hex(), **members}])[0]
    except ParseError as error:
        message = error.message.replace("item 0", f"item {index}", 1)
        raise NoEvidenceError(message, code=error.code, hint=error.hint) from None
