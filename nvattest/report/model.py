"""A saved appraisal as objects for renderers; ``reading`` makes them."""

from __future__ import annotations

from dataclasses import dataclass

from nvattest._text import clean
from nvattest.errors import InputError
from nvattest.model import DeviceKind
from nvattest.report.values import common_name, listed


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckView:
    """One check as the file tells it. ``device`` is the label of the device, ``PLATFORM`` for the whole."""

    device: str
    id: str
    step: int | None
    title: str
    outcome: str
    acceptable: bool
    detail: str
    expected: str
    found: str
    hint: str
    tolerated_by: str
    code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationView:
    """One revocation answer."""

    status: str
    reason: str
    source: str
    nonce: str
    this_update: str
    next_update: str
    responder: str
    detail: str

    @property
    def good(self) -> bool:
        """The answer is good; what the policy makes of another status stands in the check."""
        return self.status == "good"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateView:
    """One certificate."""

    subject: str
    serial: str
    sha256: str
    not_before: str
    not_after: str
    revocation: RevocationView | None

    @property
    def name(self) -> str:
        """Its common name."""
        return common_name(self.subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainView:
    """One chain, leaf first. ``findings`` are (position, rule, message)."""

    anchor: str
    path_ok: bool
    in_validity: bool
    findings: tuple[tuple[int | None, str, str], ...]
    certificates: tuple[CertificateView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RimView:
    """One RIM."""

    role: str
    id: str
    source: str
    origin: str
    sha256: str
    version: str
    product: str
    edition: str
    chain: ChainView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """One measurement: golden index, state, the RIM that covers it, its alternatives and the runtime value (hex)."""

    index: int
    state: str
    source: str
    name: str
    golden: tuple[str, ...]
    runtime: str

    @property
    def bad(self) -> bool:
        """It differs, or is missing."""
        return self.state in ("mismatched", "missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class SvnView:
    """One minimum security version number."""

    name: str
    minimum: int | None
    runtime: int | None
    satisfied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One device."""

    label: str
    kind: str
    architecture: str
    claimed_trusted: bool
    trusted: bool
    origin: str
    report_sha256: str
    chain_sha256: str
    ueid: str
    hwmodel: str
    pdi: str
    chip: str
    driver_version: str
    firmware_version: str
    mode: str
    board: str
    opaque: str
    neighbours: tuple[str, ...]
    chain: ChainView | None
    rims: tuple[RimView, ...]
    cells: tuple[CellView, ...] | None
    svn: tuple[SvnView, ...]
    checks: tuple[CheckView, ...]

    @property
    def is_switch(self) -> bool:
        """A switch, not a GPU."""
        return self.kind == DeviceKind.NVSWITCH.value

    @property
    def failures(self) -> tuple[CheckView, ...]:
        """The checks that stand in the way of trust."""
        return tuple(check for check in self.checks if not check.acceptable)

    @property
    def bad_cells(self) -> tuple[CellView, ...]:
        """Measurements that differ or are missing."""
        return tuple(cell for cell in self.cells or () if cell.bad)

    def rim(self, role: str) -> RimView | None:
        """The RIM of a role."""
        return next((rim for rim in self.rims if rim.role == role), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisalView:
    """A saved appraisal. ``trusted`` is what its checks say; ``notices`` are what a reader must know of the file."""

    trusted: bool
    result_code: int | None
    result_message: str
    nonce: str
    device_time: str
    rim_time: str
    anchors: str
    simulated: bool
    weakened: tuple[str, ...]
    policy: tuple[tuple[str, str], ...]
    checks: tuple[CheckView, ...]
    devices: tuple[DeviceView, ...]
    notices: tuple[str, ...]

    @property
    def failures(self) -> tuple[CheckView, ...]:
        """All checks that stand in the way of trust; causes before what follows from them."""
        own = [check for device in self.devices for check in device.failures]
        whole = [check for check in self.checks if not check.acceptable]
        return tuple(sorted([*own, *whole], key=lambda check: check.outcome == "skipped"))

    @property
    def causes(self) -> tuple[CheckView, ...]:
        """The failures that are not mere consequences of another one."""
        found = tuple(check for check in self.failures if check.outcome != "skipped" and check.id != "devices-trusted")
        return found or self.failures

    @property
    def clock(self) -> str:
        """The time or times that validity was judged at."""
        if self.device_time == self.rim_time or not self.rim_time:
            return self.device_time or "not recorded"
        return f"{self.device_time} (device), {self.rim_time} (RIMs)"

    def device(self, label: str) -> DeviceView | None:
        """The device of this label, whatever its case."""
        return next((device for device in self.devices if device.label.upper() == label.upper()), None)

    def demand(self, label: str) -> DeviceView:
        """The device of this label, which the user named.

        Raises:
            InputError: there is none; the message names those that are there.
        """
        found = self.device(label)
        if found is None:
            labels = listed([device.label for device in self.devices], maximum=16) or "none"
            raise InputError(f"there is no device {clean(label, 80)!r} in this appraisal; there are {labels}")
        return found
