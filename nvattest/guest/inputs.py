"""What one attestation takes in: time, the driver, evidence, and what the evidence is judged with.

The clock comes from the host. It may be late for a moment, and it is never before this program was made.

What verifies is imported inside the functions that come after the GPUs were set not ready: on a slow machine that
import takes longer than all before it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from nvattest._system import PciDevices, read_bounded
from nvattest._waiting import Deadline, Late, Work
from nvattest.devices.collect import collect_gpus, collect_switches
from nvattest.devices.nvml import NvmlCalls, NvmlLibrary
from nvattest.devices.state import SystemState, read_state, require_evidence_mode
from nvattest.errors import CollectionError, InputError, NotTrustedError, NvattestError
from nvattest.guest.config import EARLIEST, HookConfig, Settings
from nvattest.model import DeviceKind, Nonce, VerificationTime, format_time, parse_time
from nvattest.spdm.report import FeatureMode, Report, feature_mode

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral, EvidencePolicy
    from nvattest.appraisal.memory import ReadEvidence
    from nvattest.appraisal.verifier import Verifier
    from nvattest.pki.anchors import TrustAnchors

T = TypeVar("T")

# Between two looks at the clock or the driver.
_POLL: Final = 0.05
_CALL_LEAST: Final = 0.05
_CLOSING_LEAST: Final = 0.2


def wait_for_clock(not_before: str | None, seconds: float) -> VerificationTime:
    """The time now, once the clock shows an instant that can be.

    Raises InputError: it does not within this time (``clock``).
    """
    earliest = max(parse_time(EARLIEST), parse_time(not_before or EARLIEST))
    deadline = Deadline(seconds)
    while True:
        now = datetime.now(timezone.utc)
        if now >= earliest:
            return VerificationTime.at(now)
        if deadline.passed:
            behind = (earliest - now).total_seconds()
            raise InputError(
                f"the guest's clock shows {format_time(now)}, at least {behind:.0f} s behind: this program's image was "
                f"made at or after {format_time(earliest)}",
                code="clock",
                hint="let the guest set its clock first (order after time-sync.target), or look at the host's clock",
            )
        time.sleep(_POLL)


class Budget(Deadline):
    """``seconds`` from ``started`` (``time.monotonic``): the verdict has to be there by then.

    A phase may take what is left when it begins, less a fifth (two seconds at most) for those after it. After a failure
    ``closing`` seconds more may go into taking the ready state away (``Settings.closing``).
    """

    __slots__ = ("_closing",)

    def __init__(self, seconds: float, *, started: float, closing: float = 0.0) -> None:
        super().__init__(seconds, since=started)
        self._closing = closing

    def spent(self) -> float:
        """Seconds since the start."""
        return self.seconds - (self.at - time.monotonic())

    def for_phase(self) -> float:
        """Seconds that a phase which begins now may take."""
        left = self.remaining()
        return left - min(0.2 * left, 2.0)

    def for_call(self) -> float:
        """Those of a phase that is one call of the driver, which is tried however late it is."""
        return max(_CALL_LEAST, self.for_phase())

    def for_closing(self) -> float:
        """Seconds that are left for taking the ready state away, which is tried however late it is."""
        return max(_CLOSING_LEAST, self.at + self._closing - time.monotonic())

    def require(self, what: str, seconds: float = 0.0) -> None:
        """Go on only while there is more time than this. Raises CollectionError: there is not (``deadline``)."""
        if self.remaining() <= seconds:
            raise _late(what, self.seconds)


def give_up_after(seconds: float, what: str, work: Callable[[], T]) -> T:
    """The result of ``work``, or its exception, within this time.

    Raises CollectionError: it did not end in time (``deadline``).
    """
    try:
        return Work(what, work).result(Deadline(seconds))
    except Late:
        raise _late(what, seconds) from None


def _late(what: str, seconds: float) -> CollectionError:
    return CollectionError(
        f"{what} did not end within {seconds:.3g} s",
        code="deadline",
        hint="give more time under [budget], or put the collateral into a bundle; --stage init has no limit of 10 s",
    )


# --- the driver and its devices ---------------------------------------------------------------------------------------

# The devices of a machine in protected PCIe mode.
_PPCIE_GPUS: Final = 8
_PPCIE_SWITCHES: Final = 4


class Driver(NamedTuple):
    """The open library, and the system's state when it was opened."""

    library: NvmlLibrary
    state: SystemState


def open_driver(settings: Settings, pci: PciDevices | None, *, patience: float, budget: Budget) -> Driver:
    """Open NVML and read the state, again and again while devices are still coming up.

    Raises CollectionError: there is no library, no driver, or no GPU, and there will be none soon.
    """
    patient = Deadline(min(patience, budget.for_phase()))
    wanted = max(settings.config.expected_gpus or 0, len(pci.gpus) if pci is not None else 0)
    library: NvmlLibrary | None = None
    while True:
        late = patient.passed
        try:
            library = library or NvmlLibrary.open(settings.nvml, timeout=budget.for_call())
            state = read_state(library, timeout=budget.for_call())
        except CollectionError as error:
            # It ends by itself while a machine comes up.
            if error.code != "driver-not-loaded" or late:
                raise
        else:
            if late or state.gpu_count >= (wanted or 1):
                return Driver(library=library, state=state)
        time.sleep(_POLL)


def keep_initialised(driver: Driver, wanted: str, *, seconds: float) -> str:
    """Turn persistence mode on: without it a confidential GPU may go down for good when its last client ends.

    Returns a finding for the record, or "" where all is well. It never decides anything.
    """

    def work(calls: NvmlCalls) -> str:
        for index in range(driver.state.gpu_count):
            handle = calls.ask("nvmlDeviceGetHandleByIndex", index)
            if int(calls.ask("nvmlDeviceGetPersistenceMode", handle)) == 1:
                continue
            if wanted != "enable":
                return f"GPU-{index}: persistence mode is off"
            calls.ask("nvmlDeviceSetPersistenceMode", handle, 1)
        return ""

    if wanted == "ignore":
        return ""
    try:
        return driver.library.run("persistence mode", work, timeout=seconds)
    except NvattestError as error:
        return f"persistence mode: {error.message}"[:300]


def collect_all(
    driver: Driver, settings: Settings, nonce: Nonce, *, switches: bool, verifier: Verifier, budget: Budget
) -> tuple[ReadEvidence, ...]:
    """Evidence of all GPUs, and of the switches where they are asked for or a GPU's report says that it has some.

    ``verifier`` reads it, once for all that comes after. Raises CollectionError: confidential computing is off or in
    DevTools mode, a device gave no evidence, or time was over.
    """
    require_evidence_mode(driver.state)
    gpus = verifier.read(collect_gpus(nonce, timeout=budget.for_call(), library=driver.library))
    if not (switches or says_protected(gpus)):
        return gpus
    library = settings.place(settings.config.driver_nscq)
    return gpus + verifier.read(collect_switches(nonce, timeout=budget.for_call(), library_path=library))


def require_all_attested(
    config: HookConfig, pci: PciDevices | None, known: int, devices: tuple[ReadEvidence, ...]
) -> None:
    """Check that bus, driver, configuration and evidence are about the same number of devices.

    The ready state is one switch for all GPUs: one that the bus shows and that was not attested, as in a container that
    is given one of two, would be made ready with the others. ``known`` is the number of GPUs that the driver knows.
    Raises NotTrustedError: they are not, or the bus cannot be read (``device-count``).
    """
    if pci is None:
        raise _count("sysfs is not there: whether devices beside the attested ones are on the PCI bus is not known")
    for kind, word, addresses, others in (
        (DeviceKind.GPU, "GPUs", pci.gpus, {"known to the driver": known, "expected": config.expected_gpus}),
        (DeviceKind.NVSWITCH, "NVSwitches", pci.switches, {"expected": config.expected_switches}),
    ):
        attested = sum(device.evidence.kind is kind for device in devices)
        numbers = {"attested": attested, **{name: value for name, value in others.items() if value is not None}}
        if set(numbers.values()) != {len(addresses)}:
            said = ", ".join(f"{number} {name}" for name, number in numbers.items())
            where = f" ({', '.join(addresses)})" if addresses else ""
            raise _count(f"{word}: {len(addresses)} on the PCI bus{where}, {said}; the ready state is one for all")


def _count(message: str) -> NotTrustedError:
    return NotTrustedError(
        message[:2000],
        code="device-count",
        hint="pass all devices of the guest through to where the hook runs, or only those that are to be attested",
    )


def says_protected(devices: tuple[ReadEvidence, ...]) -> bool:
    """Whether a report says that its GPU is in protected PCIe mode, whatever the driver says."""
    for report in [device.report for device in devices if device.evidence.kind is DeviceKind.GPU]:
        # The appraisal says what is wrong with a report that has no such field.
        with suppress(InputError):
            if isinstance(report, Report) and feature_mode(report) is FeatureMode.PPCIE:
                return True
    return False


# --- anchors, policy and collateral -----------------------------------------------------------------------------------

_SMALL: Final = 256 * 1024
_CONNECT_SECONDS: Final = 2.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


def load_demands(settings: Settings) -> tuple[TrustAnchors, EvidencePolicy]:
    """The trust anchors and the evidence policy that the configuration names; NVIDIA's and the strict one without.

    Raises NvattestError: a file cannot be read, or is no such file.
    """
    from nvattest.appraisal.inputs import EvidencePolicy
    from nvattest.pki.anchors import NVIDIA_ANCHORS, trust_anchors_from_pem

    anchors, policy = NVIDIA_ANCHORS, EvidencePolicy()
    if (path := settings.place(settings.config.trust_anchors)) is not None:
        anchors = trust_anchors_from_pem(read_bounded(path, _SMALL))
    if (path := settings.place(settings.config.policy)) is not None:
        from nvattest.policy.evidence_policy import load_evidence_policy

        policy = load_evidence_policy(read_bounded(path, _SMALL), source=settings.config.policy or path)
    return anchors, policy


def with_expectations(
    policy: EvidencePolicy, config: HookConfig, pci: PciDevices | None, *, protected_pcie: bool
) -> EvidencePolicy:
    """The policy with the numbers of devices, and with a topology that has to close in protected PCIe mode.

    Where policy and configuration say no number, it is that of the mode, or what the machine itself shows. Raises
    InputError: policy and configuration expect different numbers (``hook-config``).
    """
    from nvattest.appraisal.inputs import TopologyRule

    numbers: dict[str, Any] = {}
    shown = len(pci.gpus) if pci is not None else 0
    for name, usual in (
        ("expected_gpus", _PPCIE_GPUS if protected_pcie else shown or None),
        ("expected_switches", _PPCIE_SWITCHES if protected_pcie else 0),
    ):
        said, wanted = getattr(policy, name), getattr(config, name)
        if said is not None and wanted is not None and said != wanted:
            raise InputError(
                f"the configuration has {name} = {wanted}, the policy has {said}",
                code="hook-config",
                hint="say it in one place only",
            )
        numbers[name] = next((number for number in (said, wanted) if number is not None), usual)
    return replace(policy, topology=TopologyRule.REQUIRED if protected_pcie else policy.topology, **numbers)


def load_known(
    devices: Sequence[ReadEvidence],
    settings: Settings,
    verifier: Verifier,
    budget: Budget,
    find: Callable[[str, str], None],
) -> Collateral:
    """What the bundle has. One that cannot be used is a finding: cache and network may still have everything.

    Raises CollectionError: its disk gave nothing in time (``deadline``).
    """
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.verifier import memory_of
    from nvattest.collateral.bundle import Bundles
    from nvattest.collateral.gather import rim_ids_of

    def load() -> Collateral:
        bundles = Bundles([settings.bundle], trusted=True)
        return bundles.collateral(devices, rim_ids_of(devices), memory_of(verifier))

    try:
        return give_up_after(budget.for_phase(), "reading the bundle", load)
    except InputError as error:
        if settings.config.collateral_bundle is not None or os.path.lexists(settings.bundle):
            find("bundle", f"the bundle cannot be used: {error.message}")
        return Collateral()


def gather_collateral(
    devices: Sequence[ReadEvidence],
    known: Collateral,
    settings: Settings,
    *,
    verifier: Verifier,
    at: VerificationTime,
    budget: Budget,
    find: Callable[[str, str], None],
    patient: bool = False,
) -> Collateral:
    """What these devices need beyond ``known``, from the cache and the network, as far as the time goes.

    ``patient`` asks again, while there is time, for what a network that comes up late may still give: in longer and
    longer intervals, and each host that still fails only once. What could not be had is in the result with its reason,
    and fails its check later.
    """
    from nvattest._registry import OCSP_URL, RIM_URL
    from nvattest.appraisal.inputs import Collateral
    from nvattest.collateral.cache import DiskCache
    from nvattest.collateral.gather import GatherOptions, gather
    from nvattest.collateral.http import RETRIES, HttpSettings

    config = settings.config
    rim_url, ocsp_url = config.collateral_rim_url or RIM_URL, config.collateral_ocsp_url or OCSP_URL
    key_file = settings.place(config.collateral_service_key_file)
    key = "" if key_file is None else read_bounded(key_file, 4096).decode("ascii", "replace").strip()
    cache = None
    folder = settings.place(config.collateral_cache)
    if folder is not None:
        try:
            cache = DiskCache(folder)
        except InputError as error:
            find("cache", error.message)
    found, started, pause, first, retries = known, time.monotonic(), _FIRST_PAUSE, "", RETRIES
    while True:
        seconds = budget.for_phase()
        if seconds <= 0.0:
            find("deadline", "no time was left for the cache and the network")
            return found
        options = GatherOptions(
            rim_url=rim_url,
            ocsp_url=ocsp_url,
            http=HttpSettings(
                service_key=key,
                key_hosts=(rim_url, ocsp_url),
                tls_ca_cert=settings.place(config.collateral_ca_file),
                connect_timeout=min(_CONNECT_SECONDS, seconds),
                read_timeout=seconds,
                retries=retries,
            ),
            timeout=seconds,
            revocation=verifier.policy.revocation,
            cache=cache,
            offline=not config.collateral_network,
        )
        # gather's own deadline bounds its exchanges; this one also bounds what no deadline reaches, such as a resolver.
        found = give_up_after(
            seconds + 0.2, "collateral", partial(gather, devices, options, at=at, known=known, verifier=verifier)
        )
        late = [item for item in found.unavailable.values() if item.passing]
        if not (patient and late and config.collateral_network) or budget.for_phase() <= pause:
            break
        first = first or late[0].message
        time.sleep(pause)
        pause, retries = min(2 * pause, _LONGEST_PAUSE), 0
        # A network that comes up may set the clock; answers that came are not asked for again.
        at = VerificationTime.at(max(at.device, datetime.now(timezone.utc)))
        known = Collateral(rims=found.rims, ocsp=found.ocsp)
    if first and not late:
        waited = time.monotonic() - started
        find("network", f"RIMs or revocation answers came only after {waited:.0f} s; at first: {first}")
    return found
