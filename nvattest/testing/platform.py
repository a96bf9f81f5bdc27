"""A simulated node: its devices, the RIMs and revocation answers that go with them, and the test roots they lead to.

    platform = Platform.build("hopper-8-ppcie", lies=["gpu3:measurement=9"])
    appraisal = platform.appraise(nonce)

Everything comes from the seed, the clock and the lies: the same arguments give the same bytes. Nothing here passes for
real: all certificates say that they are a simulation, and the default trust anchors exclude them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from nvattest.errors import InputError
from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime, format_time
from nvattest.testing.assembly import Plan, Shape, assemble
from nvattest.testing.certificates import Certificate, pem
from nvattest.testing.device import SimulatedDevice
from nvattest.testing.lies import Lie, Told, parse_fault
from nvattest.testing.rims import RimOrder

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.policy import EvidencePolicy
    from nvattest.appraisal.results import Appraisal
    from nvattest.evidence import Evidence
    from nvattest.pki.anchors import TrustAnchors
    from nvattest.testing.native.state import DriverState

__all__ = ["DEFAULT_CLOCK", "DEFAULT_NONCE", "PLATFORMS", "Platform"]

DEFAULT_CLOCK = datetime(2026, 11, 1, tzinfo=timezone.utc)
DEFAULT_NONCE = hashlib.sha256(b"nvattest simulation").digest()
PLATFORMS: Mapping[str, str] = {
    "hopper-1": "one Hopper GPU (H100), NVDEC0 off, opaque data as before R570",
    "hopper-1-r535": "the same with a driver of R535: no firmware id and no mode in the report; also r545 to r575",
    "hopper-1-r590": "the same with a driver of R590, which states the mode (spt); also r580, r620",
    "hopper-8-ppcie": "eight Hopper GPUs and four LS10 switches in protected PCIe, the topology closed",
    "h100nvl-1": "one H100 NVL",
    "h200-8-ppcie": "eight H200 and four switches, a driver of R570",
    "h800-8-ppcie": "eight H800 and four switches; ten of eighteen NVLinks of each GPU are disabled (PDI 0)",
    "h20-8-ppcie": "eight H20 and four switches",
    "blackwell-1": "one Blackwell GPU (B200), legacy opaque data",
    "blackwell-8-mpt": "eight Blackwell GPUs in multi-GPU passthrough, versioned opaque data, a minimum SVN",
    "b300-8-mpt": "eight B300 (GB110) in multi-GPU passthrough",
    "rtxpro6000-1": "one RTX PRO 6000: certificates of the die family GB20X, a report of GB202; up to 16",
    "rubin-1": "one Rubin GPU (GR100), for which no reference values are published: never trusted",
}


class Platform:
    """One simulated node. Make it with :meth:`build`; it does not change afterwards."""

    def __init__(self, plan: Plan, *, name: str) -> None:
        self.name = name
        self._plan = plan
        self._node = assemble(plan)
        self._rims: dict[str, bytes] = {}

    @classmethod
    def build(
        cls,
        name: str = "hopper-1",
        *,
        seed: int = 0,
        clock: datetime | None = None,
        driver_version: str | None = None,
        nvdec0: bool | None = None,
        lies: Iterable[Lie | str] = (),
    ) -> Platform:
        """Build a node.

        Args:
            name: one of ``PLATFORMS``, or ``MODEL-COUNT[-(spt|mpt|ppcie)][-rBRANCH]``.
            seed: everything random comes from it.
            clock: the instant around which everything is valid (``DEFAULT_CLOCK``); it has a time zone.
            driver_version: chooses the layout of the opaque data too: versioned from 620 on.
            nvdec0: whether the NVDEC0 engine is on; off on a single Hopper alone, where it exercises the exemption.
            lies: faults, as :class:`Lie` or as text such as ``gpu0:measurement=9``.

        Raises:
            InputError: no such platform, no such device, or an argument that cannot be used.
        """
        shape = Shape.parse(name)
        moment = DEFAULT_CLOCK if clock is None else clock
        if moment.tzinfo is None:
            raise InputError("the clock of a platform has no time zone", code="time-zone")
        plan = Plan(
            shape=shape,
            seed=seed,
            clock=moment.astimezone(timezone.utc).replace(microsecond=0),
            driver=driver_version or shape.driver,
            nvdec0=nvdec0
            if nvdec0 is not None
            else shape.gpus > 1 or shape.silicon.architecture is not Architecture.HOPPER,
            lies=tuple(lie if isinstance(lie, Lie) else parse_fault(lie) for lie in lies),
        )
        return cls(plan, name=name)

    @property
    def seed(self) -> int:
        """The seed that it was built from."""
        return self._plan.seed

    @property
    def clock(self) -> datetime:
        """The instant around which everything is valid."""
        return self._plan.clock

    @property
    def lies(self) -> tuple[Lie, ...]:
        """What it was told to lie about."""
        return self._plan.lies

    @property
    def at(self) -> datetime:
        """The instant at which everything honest here is valid: the clock for a verification."""
        return self.clock

    @property
    def time(self) -> VerificationTime:
        """The same, as a verification wants it."""
        return VerificationTime.at(self.clock)

    @property
    def gpus(self) -> tuple[SimulatedDevice, ...]:
        """The GPUs on the bus."""
        return self._node.gpus

    @property
    def switches(self) -> tuple[SimulatedDevice, ...]:
        """The NVSwitches on the fabric."""
        return self._node.switches

    @property
    def devices(self) -> tuple[SimulatedDevice, ...]:
        """GPUs, then switches."""
        return self._node.gpus + self._node.switches

    @property
    def driver_version(self) -> str:
        """The version of the installed driver."""
        return self._plan.driver

    @property
    def mode(self) -> str:
        """How the GPUs are used: ``spt``, ``mpt`` or ``ppcie``."""
        return self._plan.shape.mode

    @property
    def driver_state(self) -> DriverState:
        """What the driver says about this machine: for the simulated driver library."""
        from nvattest.testing.native.state import DriverState

        told = Told.by_platform(self.lies)
        state = DriverState.cc_off() if "cc-off" in told else DriverState.of(self)
        return replace(
            state,
            dev_tools=1 if "debug" in told else 0,
            pcie_mode=int(told.get("pcie-mode") or state.pcie_mode),
        )

    # --- evidence -------------------------------------------------------------------------------------------------

    def evidence(self, nonce: Nonce | bytes, kind: DeviceKind | None = None) -> tuple[Evidence, ...]:
        """The evidence of one kind of device, or of GPUs and then switches: signed now, without a word of the driver.

        Raises:
            InputError: the nonce does not have exactly 32 bytes.
        """
        return tuple(device.evidence(_bytes(nonce)) for device in self.devices if kind in (None, device.kind))

    def collect(self, nonce: Nonce | bytes) -> tuple[Evidence, ...]:
        """What live collection gives here: signed now, with what the driver says beside each report.

        Unlike :meth:`evidence` it carries the lies of the driver: other versions, CC off, DevTools.

        Raises:
            InputError: the nonce does not have exactly 32 bytes.
            CollectionError: the driver says that CC or DevTools forbid it, as ``devices.collect_gpus`` raises it.
        """
        from nvattest.devices.state import require_evidence_mode

        state = self.driver_state
        said = state.system(driver_version=self.driver_version, gpu_count=len(self.gpus))
        require_evidence_mode(said)
        hints = {DeviceKind.GPU: said.hints, DeviceKind.NVSWITCH: {"pcie_mode": str(state.pcie_mode)}}
        return tuple(device.evidence(_bytes(nonce), device.hints | hints[device.kind]) for device in self.devices)

    def evidence_json(self, kind: DeviceKind | None, nonce: Nonce | bytes) -> str:
        """NVIDIA's evidence array as one line of JSON, signed now, with all bytes that each driver buffer holds."""
        devices = [device for device in self.devices if kind in (None, device.kind)]
        return json.dumps([device.evidence_record(_bytes(nonce)) for device in devices]) + "\n"

    def appraise(self, nonce: Nonce | bytes = DEFAULT_NONCE, *, policy: EvidencePolicy | None = None) -> Appraisal:
        """Collect, and verify with the collateral, clock and trust anchors of this platform.

        Raises:
            InputError, CollectionError: as :meth:`collect`.
        """
        from nvattest.session import verify

        nonce = _bytes(nonce)
        return verify(
            self.collect(nonce),
            collateral=self.collateral(),
            nonce=Nonce(nonce),
            at=self.time,
            policy=policy,
            anchors=self.trust_anchors(),
        )

    # --- collateral -----------------------------------------------------------------------------------------------

    @property
    def rim_ids(self) -> tuple[str, ...]:
        """The ids of all RIMs that the RIM service has."""
        return tuple(id_ for id_, order in self._node.orders.items() if "missing" not in self._rim_lies(order))

    def rim(self, rim_id: str) -> bytes | None:
        """The XML of a RIM, or None where the service does not have it."""
        order = self._node.orders.get(rim_id)
        if order is None or "missing" in self._rim_lies(order):
            return None
        if rim_id not in self._rims:
            self._rims[rim_id] = self._node.rim_issuer.rim(order, self._rim_lies(order))
        return self._rims[rim_id]

    def rims(self) -> dict[str, bytes]:
        """All RIMs by id."""
        return {rim_id: xml for rim_id in self.rim_ids if (xml := self.rim(rim_id)) is not None}

    def ocsp(self, request_der: bytes, at: datetime | None = None) -> bytes:
        """The DER answer to a DER request; ``at`` is now for the responder (the platform's clock by default)."""
        return self._node.ocsp.answer(request_der, at)

    def ocsp_answers(self) -> dict[str, bytes]:
        """One answer without a nonce for each certificate that verifiers ask about, by a name for people."""
        return {
            f"{number:02}-{re.sub('[^A-Za-z0-9]+', '-', certificate.common_name)}": self._node.ocsp.about(certificate)
            for number, certificate in enumerate(self._node.certificates.values())
        }

    def certify(self, label: str, pdi: bytes) -> tuple[Certificate, ...]:
        """The honest chain of one more GPU of this platform's kind, leaf first; the OCSP responder knows it.

        ``label`` names its keys, ``pdi`` has 8 bytes. For fleets: the GPU itself is in no machine.
        """
        return self._node.certify(self._plan.shape.silicon, label, pdi)

    def ocsp_about(self, certificate: Certificate) -> bytes:
        """The answer about one certificate, without a nonce, as caches and bundles keep it."""
        return self._node.ocsp.about(certificate)

    @property
    def anchors_pem(self) -> bytes:
        """The simulated device root and RIM root, as PEM."""
        return pem(self.roots_der())

    def roots_der(self) -> tuple[bytes, bytes]:
        """The device root and the RIM root, each as DER."""
        return self._node.device_pki.root.der, self._node.rim_issuer.root.der

    def trust_anchors(self) -> TrustAnchors:
        """The simulated roots as trust anchors; they say so."""
        from nvattest.pki.anchors import trust_anchors_from_pem

        return trust_anchors_from_pem(self.anchors_pem)

    def collateral(self) -> Collateral:
        """Every RIM, and revocation answers without a nonce, as a bundle gives them."""
        from nvattest.appraisal.inputs import Collateral, OcspAnswer, RimAnswer, Source

        rims = {
            rim_id: RimAnswer(id=rim_id, content=xml, source=Source.BUNDLE, origin="simulated")
            for rim_id, xml in self.rims().items()
        }
        answers = self.ocsp_answers().values()
        ocsp = tuple(OcspAnswer(content=der, source=Source.BUNDLE, origin="simulated") for der in answers)
        return Collateral(rims=rims, ocsp=ocsp)

    def bundle(self) -> dict[str, object]:
        """The same as the JSON object of a bundle file."""
        from nvattest.collateral.bundle import dump_bundle

        return {**dump_bundle(self.collateral()), "created": format_time(self.clock)}

    def write(self, folder: str, nonce: bytes = DEFAULT_NONCE) -> list[str]:
        """Write evidence, ``rims/<id>.xml``, ``ocsp/<name>.der``, ``anchors.pem``, ``bundle.json`` and ``nonce.hex``.

        Returns the paths written. Files of the same name are overwritten.

        Raises:
            OSError: the folder cannot be made or written.
            InputError: the nonce does not have exactly 32 bytes.
        """
        files = {"gpu-evidence.json": self.evidence_json(DeviceKind.GPU, nonce).encode()}
        if self.switches:
            files["switch-evidence.json"] = self.evidence_json(DeviceKind.NVSWITCH, nonce).encode()
        files |= {os.path.join("rims", f"{name}.xml"): xml for name, xml in self.rims().items()}
        files |= {os.path.join("ocsp", f"{name}.der"): der for name, der in self.ocsp_answers().items()}
        files["anchors.pem"] = self.anchors_pem
        files["bundle.json"] = (json.dumps(self.bundle(), indent=1) + "\n").encode()
        files["nonce.hex"] = nonce.hex().encode() + b"\n"
        for name, content in files.items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as out:
                out.write(content)
        return [os.path.join(folder, name) for name in files]

    def _rim_lies(self, order: RimOrder) -> Told:
        return Told.by_rim(self.lies, order.role)


def _bytes(nonce: Nonce | bytes) -> bytes:
    return nonce.value if isinstance(nonce, Nonce) else nonce
