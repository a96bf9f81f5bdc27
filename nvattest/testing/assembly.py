"""Puts a node together from its plan: keys, certificates, devices that name each other, and the RIMs for them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from nvattest._registry import PDI_SIZE
from nvattest.errors import InputError
from nvattest.model import Architecture, DeviceKind
from nvattest.testing.certificates import Certificate
from nvattest.testing.device import Body, SimulatedDevice, chain_text, gpu_body, switch_body
from nvattest.testing.device_pki import DevicePki
from nvattest.testing.keys import KeyRing
from nvattest.testing.lies import OCSP_LIES, Lie, Told, must_find
from nvattest.testing.ocsp_issuer import OcspIssuer, Side, Verdict
from nvattest.testing.rims import RimIssuer, RimOrder
from nvattest.testing.silicon import (
    BRANCHES,
    LINKS,
    MODELS,
    SILICON,
    Silicon,
    default_driver,
    generation,
    golden_value,
    rim_id,
)

__all__ = ["Node", "Plan", "Shape", "assemble"]

_SWITCHES = 4
_PPCIE_GPUS = 8
_MAX_GPUS = 16
_MINIMUM_SVN = 3
# Chain positions that a responder answers about: not the leaf of a device, and never a root.
_DEVICE_POSITIONS, _RIM_POSITIONS = (1, 2, 3), (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a platform's name says: ``mode`` is ``spt``, ``mpt`` or ``ppcie``; ``driver`` is its default version."""

    model: str
    gpus: int
    mode: str
    driver: str

    @property
    def silicon(self) -> Silicon:
        """What its GPUs are."""
        return MODELS[self.model]

    @classmethod
    def parse(cls, name: str) -> Shape:
        """Read ``hopper-1``, ``blackwell-8-mpt``, ``h800-8-ppcie``, ``hopper-1-r535`` and the like.

        Raises:
            InputError: not a platform that can be built.
        """
        match = re.fullmatch(r"([a-z0-9]+)-(\d{1,2})(?:-(spt|mpt|ppcie))?(?:-r(\d{3}))?", name)
        if match is not None and match[1] in MODELS:
            model, count, branch = match[1], int(match[2]), match[4]
            modes = MODELS[model].modes
            # One GPU is in single pass-through, as are several Hoppers without switches.
            several = count > 1 and modes == ("spt", "mpt") and model != "h100nvl"
            mode = match[3] or ("mpt" if several else "spt")
            fits = mode in modes and (count == _PPCIE_GPUS if mode == "ppcie" else 1 <= count <= _MAX_GPUS)
            if fits and (branch is None or branch in BRANCHES):
                driver = default_driver(model, mode if count > 1 else "spt") if branch is None else BRANCHES[branch]
                return cls(model=model, gpus=count, mode=mode, driver=driver)
        raise InputError(
            f"no such platform: {name[:60]!r}",
            code="platform",
            hint=f"write MODEL-COUNT[-(spt|mpt)][-rBRANCH] with 1 to {_MAX_GPUS} GPUs, or MODEL-8-ppcie for "
            f"Hoppers; models {', '.join(MODELS)}; driver branches {', '.join(BRANCHES)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a node depends on."""

    shape: Shape
    seed: int
    clock: datetime
    driver: str
    nvdec0: bool
    lies: tuple[Lie, ...]

    @property
    def switches(self) -> int:
        """How many switches the shape has."""
        return _SWITCHES if self.shape.mode == "ppcie" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The parts of a platform. ``certificates`` are those that OCSP knows, by DER; ``orders`` the RIMs, by id."""

    gpus: tuple[SimulatedDevice, ...]
    switches: tuple[SimulatedDevice, ...]
    device_pki: DevicePki
    rim_issuer: RimIssuer
    ocsp: OcspIssuer
    certificates: dict[bytes, Certificate]
    orders: dict[str, RimOrder]

    def certify(self, silicon: Silicon, label: str, pdi: bytes) -> tuple[Certificate, ...]:
        """The chain of one more device, about which the responder then answers."""
        chain = self.device_pki.chain(silicon.die, label=label, pdi=pdi, fwid=_fwid(silicon), told=Told(()))
        for position in _DEVICE_POSITIONS:
            self.ocsp.register(chain[position], Side.DEVICE, Verdict())
        return chain


def assemble(plan: Plan) -> Node:
    """Build all parts.

    Raises:
        InputError: a lie about something that this platform does not have, or one that would change nothing; a driver
            that does not know the mode of this platform.
    """
    _check_lies(plan)
    if plan.shape.mode == "ppcie" and not generation(plan.shape.silicon.architecture, plan.driver).ppcie_status:
        raise InputError(
            f"a driver {plan.driver[:40]} knows no protected PCIe", code="driver-version", hint="give one from R550 on"
        )
    keys = KeyRing(plan.seed)
    maker = _Maker(plan, keys)
    gpus, switches = maker.devices()
    rim_issuer = RimIssuer(keys, plan.clock)
    ocsp = OcspIssuer(keys, plan.clock)
    certificates: dict[bytes, Certificate] = {}

    def register(chain: Sequence[Certificate], positions: Sequence[int], side: Side, told: Told) -> None:
        for position in positions:
            ocsp.register(chain[position], side, Verdict.from_told(told, position))
            certificates.setdefault(chain[position].der, chain[position])

    orders = _orders(plan)
    _check_tampered(plan, orders)
    for device in gpus + switches:
        register(device.certificates, _DEVICE_POSITIONS, Side.DEVICE, device.told)
    for order in orders.values():
        told = Told.by_rim(plan.lies, order.role)
        register(rim_issuer.chain(order.silicon.board.chip, order.role, told), _RIM_POSITIONS, Side.RIM, told)
    return Node(
        gpus=_mixed_up(gpus, gpus + switches),
        switches=_mixed_up(switches, gpus + switches),
        device_pki=maker.pki,
        rim_issuer=rim_issuer,
        ocsp=ocsp,
        certificates=certificates,
        orders=orders,
    )


class _Maker:
    """Makes the devices of a plan."""

    def __init__(self, plan: Plan, keys: KeyRing) -> None:
        self._plan = plan
        self._keys = keys
        self.pki = DevicePki(keys, plan.clock)
        self._gpu_pdis = [keys.bytes(f"pdi gpu {index}", 8) for index in range(plan.shape.gpus)]
        self._switch_pdis = [keys.bytes(f"pdi switch {index}", 8) for index in range(plan.switches)]

    def devices(self) -> tuple[tuple[SimulatedDevice, ...], tuple[SimulatedDevice, ...]]:
        gpus = tuple(self._gpu(index) for index in range(len(self._gpu_pdis)))
        return gpus, tuple(self._switch(index) for index in range(len(self._switch_pdis)))

    def _gpu(self, index: int) -> SimulatedDevice:
        plan, pdis = self._plan, self._switch_pdis
        silicon = plan.shape.silicon
        told = Told.by_device(plan.lies, DeviceKind.GPU, index)
        odd = "one-gpu-other-mode" in Told.by_platform(plan.lies) and index == plan.shape.gpus - 1
        body = gpu_body(
            silicon,
            told,
            driver=plan.driver,
            firmware=silicon.firmware,
            fwid=_fwid(silicon),
            nvdec0=plan.nvdec0,
            feature=("spt" if plan.shape.mode == "mpt" else "mpt") if odd else plan.shape.mode,
            switch_pdis=[
                pdis[_switch_of(index, link)] if link < silicon.links else bytes(PDI_SIZE) for link in range(LINKS)
            ]
            if pdis
            else [],
        )
        return self._device(silicon, told, index, self._gpu_pdis[index], body)

    def _switch(self, index: int) -> SimulatedDevice:
        silicon = SILICON[Architecture.LS10]
        told = Told.by_device(self._plan.lies, DeviceKind.NVSWITCH, index)
        # Which GPU is behind each port; FF is a port without a link.
        links = range(self._plan.shape.silicon.links)
        wired = (gpu for gpu in range(len(self._gpu_pdis)) for link in links if _switch_of(gpu, link) == index)
        body = switch_body(
            silicon,
            told,
            firmware=silicon.firmware,
            pdi=self._switch_pdis[index],
            gpu_pdis=self._gpu_pdis,
            ports=bytes(wired).ljust(64, b"\xff"),
            position=index,
        )
        return self._device(silicon, told, index, self._switch_pdis[index], body)

    def _device(self, silicon: Silicon, told: Told, index: int, pdi: bytes, body: Body) -> SimulatedDevice:
        kind = silicon.architecture.kind
        gpu = kind is DeviceKind.GPU
        label = f"{kind.value} {index}"
        chain = self.pki.chain(silicon.die, label=label, pdi=pdi, fwid=_fwid(silicon), told=told)
        number = uuid.UUID(bytes=self._keys.bytes(f"uuid {label}", 16), version=4)
        return SimulatedDevice(
            kind=kind,
            index=index,
            uuid=f"GPU-{number}" if gpu else f"SWX-{number}".upper(),
            name=silicon.board.name,
            family=silicon.architecture,
            architecture=silicon.nvml_architecture,
            driver_version=told.get("hint-driver") or self._plan.driver,
            vbios_version=told.get("hint-firmware") or silicon.firmware,
            pdi=pdi.hex().upper(),
            board_id=silicon.board.board_id,
            board_part_number=f"692-2{silicon.board.project}-{silicon.board.project_sku}-001",
            chain_pem=chain_text(chain, kind, told),
            certificates=chain,
            told=told,
            body=body,
            key=self._keys.key("uncertified") if "wrong-key" in told else chain[0].key,
            salt=self._keys.bytes(f"responder {label}", 32),
        )


def _mixed_up(
    devices: tuple[SimulatedDevice, ...], all_devices: tuple[SimulatedDevice, ...]
) -> tuple[SimulatedDevice, ...]:
    """The devices after the lies that concern two of them, and those that are missing."""
    by_name = {f"{'gpu' if item.kind is DeviceKind.GPU else 'switch'}{item.index}": item for item in all_devices}
    out = []
    for device in devices:
        made = device
        if (name := device.told.get("duplicate")) is not None:
            other = _named(by_name, name)
            if other.kind is not device.kind:
                raise InputError(f"{name} is no {device.kind.value}", code="fault-argument")
            made = replace(other, index=device.index, uuid=device.uuid)
        if (name := device.told.get("chain-of")) is not None:
            other = _named(by_name, name)
            made = replace(made, chain_pem=other.chain_pem, certificates=other.certificates)
        if "missing" not in device.told:
            out.append(made)
    return tuple(out)


def _named(by_name: dict[str, SimulatedDevice], name: str) -> SimulatedDevice:
    if name not in by_name:
        raise InputError(f"this platform has no {name}", code="fault-target", hint=f"it has {', '.join(by_name)}")
    return by_name[name]


def _orders(plan: Plan) -> dict[str, RimOrder]:
    """The RIMs of all firmware in the node, by id."""
    orders = {}
    for silicon in [plan.shape.silicon] + ([SILICON[Architecture.LS10]] if plan.switches else []):
        for role in silicon.roles:
            name = rim_id(silicon, role, driver=plan.driver, firmware=silicon.firmware)
            asks = role == "vbios" and generation(silicon.architecture, plan.driver).versioned
            orders[name] = RimOrder(
                silicon=silicon,
                role=role,
                id=name,
                version=plan.driver if role == "driver" else silicon.firmware,
                minimum_svn=_MINIMUM_SVN if asks else None,
            )
    return orders


def _check_lies(plan: Plan) -> None:
    """Refuse lies about what this platform does not have, and lies that would change nothing."""
    counts = {"gpu": plan.shape.gpus, "switch": plan.switches}
    for lie in plan.lies:
        match = re.fullmatch(r"(gpu|switch)(\d+|\*)", lie.target)
        if match is not None:
            number = 0 if match[2] == "*" else int(match[2])
            here = number < counts[match[1]]
        elif lie.target.endswith("-rim") or lie.target == "rim*":
            here = plan.switches > 0 if lie.target == "bios-rim" else bool(plan.shape.silicon.roles)
        else:
            here = lie.name != "pcie-mode" or plan.switches > 0
        if not here:
            raise InputError(
                f"this platform has no {lie.target}, which should tell {str(lie)!r}",
                code="fault-target",
                hint=f"it has {counts['gpu']} GPUs and {counts['switch']} switches",
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


def _check_tampered(plan: Plan, orders: dict[str, RimOrder]) -> None:
    for lie in plan.lies:
        if lie.name == "tampered" and lie.argument is not None:
            told = [order for order in orders.values() if lie.target in (f"{order.role}-rim", "rim*")]
            present = {index for order in told for index in order.silicon.golden[order.role]}
            must_find(lie.name, (int(lie.argument),), present, "golden value")


def _switch_of(gpu: int, link: int) -> int:
    """The switch at the other end of a link: every GPU reaches every switch."""
    return (gpu + link) % _SWITCHES


def _fwid(silicon: Silicon) -> bytes:
    """The digest of the firmware that the leaf certifies: 48 bytes."""
    return golden_value("fwid", silicon.die, 0)
