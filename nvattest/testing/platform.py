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
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from nvattest._registry import PDI_SIZE
from nvattest._text import with_suggestion
from nvattest.errors import InputError
from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime, counted, format_time
from nvattest.testing.certificates import HONEST, Certificate, KeyRing, pem
from nvattest.testing.device import Body, SimulatedDevice, chain_text, gpu_body, switch_body
from nvattest.testing.lies import OCSP_LIES, Lie, Told, must_find, parse_fault
from nvattest.testing.pki import OcspIssuer, Pki
from nvattest.testing.rims import RimOrder, issue_rim
from nvattest.testing.silicon import (
    BRANCHES,
    LINKS,
    LS10,
    MODELS,
    PLATFORMS,
    Silicon,
    default_driver,
    generation,
    rim_id,
)

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral, EvidencePolicy
    from nvattest.appraisal.results import Appraisal
    from nvattest.evidence import Evidence
    from nvattest.pki.anchors import TrustAnchors
    from nvattest.testing.driver_answers import DriverState
    from nvattest.token.jose import SigningKey

DEFAULT_CLOCK = datetime(2026, 11, 1, tzinfo=timezone.utc)
DEFAULT_NONCE = hashlib.sha256(b"nvattest simulation").digest()
_SWITCHES = 4
_PPCIE_GPUS = 8
_MAX_GPUS = 16
_MINIMUM_SVN = 3
# Chain positions that a responder answers about: not the leaf of a device, and never a root.
_DEVICE_POSITIONS, _RIM_POSITIONS = (1, 2, 3), (0, 1, 2)


def _parse(name: str) -> tuple[Silicon, int, str, str]:
    """Read ``hopper-1``, ``blackwell-8-mpt``, ``h800-8-ppcie``, ``hopper-1-r535`` and the like.

    Returns what the GPUs are, how many, their mode (``spt``, ``mpt`` or ``ppcie``) and the driver's default version.

    Raises:
        InputError: not a platform that can be built.
    """
    match = re.fullmatch(r"([a-z0-9]+)-(\d{1,2})(?:-(spt|mpt|ppcie))?(?:-r(\d{3}))?", name)
    if match is not None and match[1] in MODELS:
        model, count, branch = match[1], int(match[2]), match[4]
        silicon = MODELS[model]
        # One GPU is in single pass-through, as are several Hoppers without switches.
        several = count > 1 and silicon.modes == ("spt", "mpt") and model != "h100nvl"
        mode = match[3] or ("mpt" if several else "spt")
        fits = mode in silicon.modes and (count == _PPCIE_GPUS if mode == "ppcie" else 1 <= count <= _MAX_GPUS)
        if fits and (branch is None or branch in BRANCHES):
            driver = BRANCHES[branch] if branch else default_driver(model, mode if count > 1 else "spt")
            return silicon, count, mode, driver
    rule = (
        f"write MODEL-COUNT[-(spt|mpt)][-rBRANCH] with 1 to {_MAX_GPUS} GPUs, or MODEL-8-ppcie for Hoppers; "
        f"models {', '.join(MODELS)}; driver branches {', '.join(BRANCHES)}"
    )
    raise InputError(f"no such platform: {name[:60]!r}", code="platform", hint=with_suggestion(name, PLATFORMS, rule))


def instant(clock: datetime | None, owner: str) -> datetime:
    """The clock of a simulation, in UTC and whole seconds; ``DEFAULT_CLOCK`` where none is given.

    Raises:
        InputError: it has no time zone.
    """
    moment = DEFAULT_CLOCK if clock is None else clock
    if moment.tzinfo is None:
        raise InputError(f"the clock of a {owner} has no time zone", code="time-zone")
    return moment.astimezone(timezone.utc).replace(microsecond=0)


def write_files(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> list[str]:
    """Write files by their name below a folder; returns their paths."""
    paths = [os.path.join(folder, name) for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(content)
    return paths


class Platform:
    """One simulated node. Make it with :meth:`build`; it does not change afterwards.

    ``name``, ``seed``, ``clock``, ``driver_version`` and ``lies`` are those of :meth:`build`; ``mode`` is how the GPUs
    are used (``spt``, ``mpt`` or ``ppcie``); ``gpus`` are those on the bus, ``switches`` those on the fabric. Methods
    raise InputError for a nonce that does not have 32 bytes.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        clock: datetime | None,
        driver_version: str | None,
        nvdec0: bool | None,
        lies: Iterable[Lie | str],
    ) -> None:
        self.name, self.seed = name, seed
        silicon, count, self.mode, usual_driver = _parse(name)
        self._silicon = silicon
        self.clock = clock = instant(clock, "platform")
        self.driver_version = driver = driver_version or usual_driver
        usual = count > 1 or silicon.architecture is not Architecture.HOPPER
        self._nvdec0 = usual if nvdec0 is None else nvdec0
        self.lies = tuple(lie if isinstance(lie, Lie) else parse_fault(lie) for lie in lies)
        counts = {DeviceKind.GPU: count, DeviceKind.NVSWITCH: _SWITCHES if self.mode == "ppcie" else 0}
        _check_lies(self.lies, counts, silicon)
        layout = generation(silicon.architecture, driver)
        if self.mode == "ppcie" and not layout.ppcie_status:
            raise InputError(
                f"a driver {driver[:40]} knows no protected PCIe", code="driver-version", hint="give one from R550 on"
            )
        self._keys = keys = KeyRing(seed)
        self._pki, self._ocsp = Pki(keys, clock), OcspIssuer(keys, clock)
        # Those that OCSP knows, by DER.
        self._certificates: dict[bytes, Certificate] = {}
        self._rims: dict[str, bytes] = {}
        self._pdis = {
            kind: [keys.bytes(f"pdi {kind.label.lower()} {index}", PDI_SIZE) for index in range(number)]
            for kind, number in counts.items()
        }
        switches = counts[DeviceKind.NVSWITCH]
        devices = (*map(self._gpu, range(count)), *map(self._switch, range(switches)))
        # The RIMs of all firmware in the node, by id.
        self._orders: dict[str, RimOrder] = {}
        for kind in [silicon] + ([LS10] if switches else []):
            for role in kind.roles:
                order = RimOrder(
                    silicon=kind,
                    role=role,
                    id=rim_id(kind, role, driver=driver, firmware=kind.firmware),
                    version=driver if role == "driver" else kind.firmware,
                    minimum_svn=_MINIMUM_SVN if role == "vbios" and layout.versioned else None,
                    told=Told.by(self.lies, f"{role}-rim", "rim*"),
                )
                self._orders[order.id] = order
        self._check_tampered()
        for device in devices:
            self._register(device.certificates, device.told, of_device=True)
        for order in self._orders.values():
            self._register(self._rim_chain(order), order.told, of_device=False)
        devices = tuple(_mixed_up(devices))
        self.gpus = tuple(item for item in devices if item.kind is DeviceKind.GPU)
        self.switches = devices[len(self.gpus) :]

    def __repr__(self) -> str:
        lies = f", lies: {', '.join(map(str, self.lies))}" if self.lies else ""
        return f"<Platform {self.name}: {counted(len(self.devices), 'device')}{lies}>"

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
        return cls(name, seed=seed, clock=clock, driver_version=driver_version, nvdec0=nvdec0, lies=lies)

    @property
    def at(self) -> datetime:
        """The clock, as the instant of a verification."""
        return self.clock

    @property
    def time(self) -> VerificationTime:
        """The same, as a verification wants it."""
        return VerificationTime.at(self.clock)

    @property
    def devices(self) -> tuple[SimulatedDevice, ...]:
        """GPUs, then switches."""
        return self.gpus + self.switches

    @property
    def driver_state(self) -> DriverState:
        """What the driver says about this machine: for the simulated driver library."""
        from nvattest.testing.driver_answers import DriverState

        told = Told.by(self.lies, "platform")
        state = DriverState.cc_off() if "cc-off" in told else DriverState.of(self)
        return replace(
            state,
            dev_tools=1 if "debug" in told else 0,
            pcie_mode=int(told.get("pcie-mode") or state.pcie_mode),
        )

    def evidence(self, nonce: Nonce | bytes | str, kind: DeviceKind | None = None) -> tuple[Evidence, ...]:
        """The evidence of one kind of device, or GPUs, then switches: signed now, without what the driver says."""
        return tuple(device.evidence(_bytes(nonce)) for device in self.devices if kind in (None, device.kind))

    def collect(self, nonce: Nonce | bytes | str) -> tuple[Evidence, ...]:
        """What live collection gives here: signed now, with what the driver says beside each report.

        Unlike :meth:`evidence` it carries the lies of the driver: other versions, CC off, DevTools.

        Raises:
            CollectionError: the driver says that CC or DevTools forbid it, as ``devices.collect_gpus`` raises it.
        """
        from nvattest.devices.state import require_evidence_mode

        state = self.driver_state
        said = state.system(driver_version=self.driver_version, gpu_count=len(self.gpus))
        require_evidence_mode(said)
        hints = {DeviceKind.GPU: said.hints, DeviceKind.NVSWITCH: {"pcie_mode": str(state.pcie_mode)}}
        return tuple(device.evidence(_bytes(nonce), device.hints | hints[device.kind]) for device in self.devices)

    def evidence_json(self, kind: DeviceKind | None, nonce: Nonce | bytes | str) -> str:
        """NVIDIA's evidence array as one line of JSON, signed now, with all bytes that each driver buffer holds."""
        devices = [device for device in self.devices if kind in (None, device.kind)]
        return json.dumps([device.evidence_record(_bytes(nonce)) for device in devices]) + "\n"

    def appraise(
        self, nonce: Nonce | bytes | str = DEFAULT_NONCE, *, policy: EvidencePolicy | None = None
    ) -> Appraisal:
        """:meth:`collect`, and verify with the collateral, clock and trust anchors of this platform."""
        from nvattest.session import verify

        return verify(
            self.collect(nonce),
            collateral=self.collateral(),
            nonce=nonce,
            at=self.time,
            policy=policy,
            anchors=self.trust_anchors(),
        )

    @property
    def token_key(self) -> SigningKey:
        """The key that signs :meth:`token`; it follows from the seed and protects nothing."""
        from nvattest.token.jose import SigningKey

        return SigningKey(self._keys.key("token").private)

    def token(
        self, nonce: Nonce | bytes | str = DEFAULT_NONCE, *, ear: bool = False, policy: EvidencePolicy | None = None
    ) -> list[object] | str:
        """What a verifier issues for :meth:`appraise`, at the clock of this platform: a detached EAT, or an EAR.

        A relying party verifies it with ``key=platform.token_key.public, at=platform.clock, accept_simulated=True``.
        """
        from nvattest.session import issue_token

        return issue_token(self.appraise(nonce, policy=policy), self.token_key, ear=ear, now=self.clock)

    @property
    def rim_ids(self) -> tuple[str, ...]:
        """The ids of all RIMs that the RIM service has."""
        return tuple(id_ for id_, order in self._orders.items() if "missing" not in order.told)

    def rim(self, rim_id: str) -> bytes | None:
        """The XML of a RIM, or None where the service does not have it."""
        order = self._orders.get(rim_id)
        if order is None or "missing" in order.told:
            return None
        if rim_id not in self._rims:
            chain = self._rim_chain(order)
            key = self._keys.key("uncertified") if "wrong-key" in order.told else chain[0].template.key
            self._rims[rim_id] = issue_rim(order, chain, key)
        return self._rims[rim_id]

    def rims(self) -> dict[str, bytes]:
        """All RIMs by id."""
        return {rim_id: xml for rim_id in self.rim_ids if (xml := self.rim(rim_id)) is not None}

    def ocsp(self, request_der: bytes, at: datetime | None = None) -> bytes:
        """The DER answer to a DER request; ``at`` is now for the responder (the platform's clock by default)."""
        return self._ocsp.answer(request_der, at)

    def ocsp_answers(self) -> dict[str, bytes]:
        """One answer without a nonce for each certificate that verifiers ask about, by a name for people."""
        answers = {}
        for number, item in enumerate(self._certificates.values()):
            words = re.sub("[^A-Za-z0-9]+", "-", item.template.common_name)
            answers[f"{number:02}-{words}"] = self._ocsp.about(item)
        return answers

    def certify(self, label: str, pdi: bytes) -> tuple[Certificate, ...]:
        """The honest chain of one more GPU of this platform's kind, leaf first; the OCSP responder knows it.

        ``label`` names its keys, ``pdi`` has 8 bytes. For fleets: the GPU itself is in no machine.
        """
        silicon = self._silicon
        chain = self._pki.device_chain(silicon.die, label=label, pdi=pdi, fwid=silicon.fwid, told=HONEST)
        for position in _DEVICE_POSITIONS:
            self._ocsp.register(chain, position, HONEST, of_device=True)
        return chain

    def ocsp_about(self, certificate: Certificate) -> bytes:
        """The answer about one certificate, without a nonce, as caches and bundles keep it."""
        return self._ocsp.about(certificate)

    @property
    def anchors_pem(self) -> bytes:
        """The simulated device root and RIM root, as PEM."""
        return pem(self.roots_der())

    def roots_der(self) -> tuple[bytes, bytes]:
        """The device root and the RIM root, each as DER."""
        return self._pki.roots()

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

    def write(self, folder: str, nonce: Nonce | bytes | str = DEFAULT_NONCE) -> list[str]:
        """Write evidence, ``rims/<id>.xml``, ``ocsp/<name>.der``, ``anchors.pem``, ``bundle.json`` and ``nonce.hex``.

        Returns the paths written. Files of the same name are overwritten.

        Raises:
            OSError: the folder cannot be made or written.
        """
        files = {"gpu-evidence.json": self.evidence_json(DeviceKind.GPU, nonce).encode()}
        if self.switches:
            files["switch-evidence.json"] = self.evidence_json(DeviceKind.NVSWITCH, nonce).encode()
        files |= {os.path.join("rims", f"{name}.xml"): xml for name, xml in self.rims().items()}
        files |= {os.path.join("ocsp", f"{name}.der"): der for name, der in self.ocsp_answers().items()}
        files["anchors.pem"] = self.anchors_pem
        files["bundle.json"] = (json.dumps(self.bundle(), indent=1) + "\n").encode()
        files["nonce.hex"] = _bytes(nonce).hex().encode() + b"\n"
        return write_files(folder, files)

    def _rim_chain(self, order: RimOrder) -> tuple[Certificate, ...]:
        return self._pki.rim_chain(order.silicon.chip, order.role, order.told)

    def _gpu(self, index: int) -> SimulatedDevice:
        silicon, pdis = self._silicon, self._pdis[DeviceKind.NVSWITCH]
        told = Told.by(self.lies, f"gpu{index}", "gpu*")
        feature = self.mode
        if "one-gpu-other-mode" in Told.by(self.lies, "platform") and index == len(self._pdis[DeviceKind.GPU]) - 1:
            feature = "spt" if feature == "mpt" else "mpt"
        links = range(LINKS if pdis else 0)
        body = gpu_body(
            silicon,
            told,
            driver=self.driver_version,
            nvdec0=self._nvdec0,
            feature=feature,
            switch_pdis=[pdis[_switch_of(index, link)] if link < silicon.links else bytes(PDI_SIZE) for link in links],
        )
        return self._device(silicon, told, index, body)

    def _switch(self, index: int) -> SimulatedDevice:
        silicon, gpu_pdis = LS10, self._pdis[DeviceKind.GPU]
        told = Told.by(self.lies, f"switch{index}", "switch*")
        # Which GPU is behind each port; FF is a port without a link.
        links = range(self._silicon.links)
        wired = (gpu for gpu in range(len(gpu_pdis)) for link in links if _switch_of(gpu, link) == index)
        body = switch_body(
            silicon,
            told,
            pdi=self._pdis[DeviceKind.NVSWITCH][index],
            gpu_pdis=gpu_pdis,
            ports=bytes(wired).ljust(64, b"\xff"),
            position=index,
        )
        return self._device(silicon, told, index, body)

    def _device(self, silicon: Silicon, told: Told, index: int, body: Body) -> SimulatedDevice:
        kind = silicon.architecture.kind
        label, pdi = f"{kind.value} {index}", self._pdis[kind][index]
        chain = self._pki.device_chain(silicon.die, label=label, pdi=pdi, fwid=silicon.fwid, told=told)
        number = uuid.UUID(bytes=self._keys.bytes(f"uuid {label}", 16), version=4)
        return SimulatedDevice(
            kind=kind,
            index=index,
            uuid=f"GPU-{number}" if kind is DeviceKind.GPU else f"SWX-{number}".upper(),
            name=silicon.name,
            family=silicon.architecture,
            architecture=silicon.nvml_architecture,
            driver_version=told.get("hint-driver") or self.driver_version,
            vbios_version=told.get("hint-firmware") or silicon.firmware,
            pdi=pdi.hex().upper(),
            board_id=silicon.board_id,
            board_part_number=f"692-2{silicon.project}-{silicon.project_sku}-001",
            chain_pem=chain_text(chain, kind, told),
            certificates=chain,
            told=told,
            body=body,
            key=self._keys.key("uncertified") if "wrong-key" in told else chain[0].template.key,
            salt=self._keys.bytes(f"responder {label}", 32),
        )

    def _register(self, chain: tuple[Certificate, ...], told: Told, *, of_device: bool) -> None:
        for position in _DEVICE_POSITIONS if of_device else _RIM_POSITIONS:
            self._ocsp.register(chain, position, told, of_device=of_device)
            self._certificates.setdefault(chain[position].der, chain[position])

    def _check_tampered(self) -> None:
        for lie in self.lies:
            if lie.name == "tampered" and lie.argument is not None:
                told = [order for order in self._orders.values() if lie.target in (f"{order.role}-rim", "rim*")]
                present = {index for order in told for index in order.silicon.golden[order.role]}
                must_find(lie.name, (int(lie.argument),), present, "golden value")


def _bytes(nonce: Nonce | bytes | str) -> bytes:
    return Nonce.of(nonce).value


def _mixed_up(devices: tuple[SimulatedDevice, ...]) -> Iterator[SimulatedDevice]:
    """The devices after the lies that concern two of them, without those that are missing."""
    by_name = {f"{item.kind.label.lower()}{item.index}": item for item in devices}

    def named(name: str) -> SimulatedDevice:
        if name not in by_name:
            raise InputError(f"this platform has no {name}", code="fault-target", hint=f"it has {', '.join(by_name)}")
        return by_name[name]

    for device in devices:
        made = device
        if (name := device.told.get("duplicate")) is not None:
            other = named(name)
            if other.kind is not device.kind:
                raise InputError(f"{name} is no {device.kind.value}", code="fault-argument")
            made = replace(other, index=device.index, uuid=device.uuid)
        if (name := device.told.get("chain-of")) is not None:
            other = named(name)
            made = replace(made, chain_pem=other.chain_pem, certificates=other.certificates)
        if "missing" not in device.told:
            yield made


def _check_lies(lies: Iterable[Lie], counts: Mapping[DeviceKind, int], silicon: Silicon) -> None:
    """Refuse lies about what this platform does not have, and lies that would change nothing."""
    numbers = {kind.label.lower(): number for kind, number in counts.items()}
    for lie in lies:
        match = re.fullmatch(r"(gpu|switch)(\d+|\*)", lie.target)
        if match is not None:
            number = 0 if match[2] == "*" else int(match[2])
            here = number < numbers[match[1]]
        elif lie.target.endswith("-rim") or lie.target == "rim*":
            here = numbers["switch"] > 0 if lie.target == "bios-rim" else bool(silicon.roles)
        else:
            here = lie.target == "platform" and (lie.name != "pcie-mode" or numbers["switch"] > 0)
        if not here:
            raise InputError(
                f"this platform has no {lie.target}, which should tell {str(lie)!r}",
                code="fault-target",
                hint=f"it has {numbers['gpu']} GPUs and {numbers['switch']} switches",
            )
        if lie.name == "unlocked" and match is not None and match[1] == "gpu":
            raise InputError(f"{str(lie)!r}: a GPU has no lock", code="fault-target", hint="write switch0:unlocked")
        if lie.name in ("chain-of", "duplicate") and lie.argument == lie.target:
            raise InputError(f"{str(lie)!r} would change nothing", code="fault-argument", hint="name another device")
        if lie.position is not None:
            _check_position(lie, lie.position, of_device=match is not None)


def _check_position(lie: Lie, position: int, *, of_device: bool) -> None:
    asked: Sequence[int] = _DEVICE_POSITIONS if of_device else _RIM_POSITIONS
    if lie.name in OCSP_LIES:
        positions = asked
        why = "no verifier asks about the revocation of"
    else:
        # A leaf is no CA by nature, and no certificate above the root can change places with it.
        root = asked[-1] + 1
        positions = range(1 if lie.name == "not-a-ca" else 0, root if lie.name == "chain-swapped" else root + 1)
        why = "nothing would change at"
    if position not in positions:
        raise InputError(
            f"{why} that certificate: {str(lie)!r}",
            code="fault-argument",
            hint=f"{lie.name} is for the positions {positions[0]} to {positions[-1]} of {lie.target}",
        )


def _switch_of(gpu: int, link: int) -> int:
    """The switch at the other end of a link: every GPU reaches every switch."""
    return (gpu + link) % _SWITCHES


class SimulatedFleet:
    """Many nodes for the price of their own signatures: one GPU each, all below the roots of one ``hopper-1``.

        fleet = SimulatedFleet(10_000)
        lines = [fleet.line(index) for index in range(10_000)]   # for nvattest verify-batch
        bundle = fleet.bundle()

    Each node has keys, certificates, a boot ROM revocation answer and a report of its own, so that a verifier has never
    seen it. A node costs two or three milliseconds and is made when it is asked for; the same seed gives the same
    nodes. ``clock`` is that of :meth:`Platform.build`.
    """

    def __init__(self, size: int, *, seed: int = 0, clock: datetime | None = None) -> None:
        self.size = size
        self.platform = Platform.build("hopper-1", seed=seed, clock=clock)
        self._keys = KeyRing(seed)
        self._chains: dict[int, tuple[Certificate, ...]] = {}

    def nonce(self, index: int) -> bytes:
        """The nonce that node ``index`` is asked with (32 bytes)."""
        return self._keys.bytes(f"fleet nonce {index}", 32)

    def device(self, index: int) -> SimulatedDevice:
        """The GPU of node ``index``.

        Raises:
            IndexError: there is no such node.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"the fleet has {self.size} nodes; there is no node {index}")
        chain = self._chain(index)
        return replace(
            self.platform.gpus[0],
            chain_pem=chain_text(chain, self.platform.gpus[0].kind, HONEST),
            certificates=chain,
            key=chain[0].template.key,
            pdi=self._pdi(index).hex().upper(),
            salt=self._keys.bytes(f"fleet responder {index}", 32),
        )

    def evidence(self, index: int) -> tuple[Evidence, ...]:
        """The evidence of node ``index``, signed now over its nonce."""
        return (self.device(index).evidence(self.nonce(index)),)

    def line(self, index: int) -> bytes:
        """The line of node ``index`` for ``nvattest verify-batch``, without a line break; its id is ``node-INDEX``."""
        nonce = self.nonce(index)
        evidence = [self.device(index).evidence_record(nonce)]
        document = {"id": f"node-{index}", "nonce": nonce.hex(), "evidence": evidence}
        return json.dumps(document, separators=(",", ":")).encode()

    def collateral(self) -> Collateral:
        """The RIMs and the revocation answers of all nodes."""
        chains = (self._chain(index) for index in range(self.size))
        shared = self.platform.collateral()
        own = (replace(shared.ocsp[0], content=self.platform.ocsp_about(chain[1])) for chain in chains)
        return replace(shared, ocsp=(*shared.ocsp, *own))

    def bundle(self) -> bytes:
        """The same as the content of a bundle file, which holds the answers about some 8000 nodes."""
        from nvattest.collateral.bundle import dump_bundle

        return json.dumps(dump_bundle(self.collateral())).encode()

    def write_bundle(self, folder: str) -> None:
        """The same as a bundle in a folder, for any number of nodes."""
        from nvattest.collateral.bundle import by_serial, write_folder

        collateral = self.collateral()
        about = {answer: serial for serial, answers in by_serial(collateral.ocsp).items() for answer in answers}
        write_folder(folder, collateral, about, lambda answer: answer.content)

    def _pdi(self, index: int) -> bytes:
        return self._keys.bytes(f"fleet pdi {index}", 8)

    def _chain(self, index: int) -> tuple[Certificate, ...]:
        if index not in self._chains:
            self._chains[index] = self.platform.certify(f"fleet gpu {index}", self._pdi(index))
        return self._chains[index]
