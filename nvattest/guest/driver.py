"""Opening the driver, with patience for devices that are still coming up, and asking all devices for evidence."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvattest._system import PciDevices
from nvattest._waiting import Deadline
from nvattest.devices.collect import collect_gpus, collect_switches
from nvattest.devices.nvml import NvmlCalls, NvmlLibrary
from nvattest.devices.state import SystemState, read_state, require_evidence_mode
from nvattest.errors import CollectionError, InputError, NotTrustedError, NvattestError, ParseError
from nvattest.guest.clock import Budget
from nvattest.guest.config import HookConfig, Settings
from nvattest.model import DeviceKind, Nonce
from nvattest.spdm.report import FeatureMode, Report, feature_mode

if TYPE_CHECKING:
    from nvattest.appraisal.memory import ReadEvidence
    from nvattest.appraisal.verifier import Verifier

_POLL: Final = 0.1
# Errors that end by themselves while a machine comes up.
_PASSING: Final = frozenset({"driver-not-loaded"})
_PPCIE_GPUS: Final = 8
_PPCIE_SWITCHES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The open library, and the system's state when it was opened."""

    library: NvmlLibrary
    state: SystemState


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How many devices there have to be, and whether their topology has to close; None: not known."""

    gpus: int | None
    switches: int | None
    protected_pcie: bool


def open_driver(settings: Settings, pci: PciDevices | None, *, patience: float, budget: Budget) -> Driver:
    """Open NVML and read the state, again and again while devices are still coming up.

    Raises:
        CollectionError: there is no library, no driver, or no GPU, and there will be none soon.
    """
    patient = Deadline(min(patience, budget.for_phase()))
    wanted = max(settings.config.expected_gpus or 0, len(pci.gpus) if pci is not None else 0)
    library: NvmlLibrary | None = None
    while True:
        late = patient.passed
        try:
            if library is None:
                library = NvmlLibrary.open(settings.nvml, timeout=budget.for_call())
            state = read_state(library, timeout=budget.for_call())
        except CollectionError as error:
            if error.code not in _PASSING or late:
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
        return driver.library.run("persistence mode", work, timeout=max(0.05, seconds))
    except NvattestError as error:
        return f"persistence mode: {error.message}"[:300]


def expected_devices(config: HookConfig, pci: PciDevices | None, *, protected_pcie: bool) -> Expected:
    """What the configuration demands; where it says nothing, what the machine itself shows."""
    protected = protected_pcie or bool(config.expected_switches)
    gpus = config.expected_gpus
    if gpus is None and protected:
        gpus = _PPCIE_GPUS
    elif gpus is None and pci is not None and pci.gpus:
        gpus = len(pci.gpus)
    switches = config.expected_switches
    if switches is None:
        switches = _PPCIE_SWITCHES if protected else 0
    return Expected(gpus=gpus, switches=switches, protected_pcie=protected)


def collect_all(
    driver: Driver, settings: Settings, nonce: Nonce, *, switches: bool, verifier: Verifier, budget: Budget
) -> tuple[ReadEvidence, ...]:
    """Evidence of all GPUs, and of the switches where they are asked for or a GPU's report says that it has some.

    ``verifier`` reads it, once for all that comes after.

    Raises:
        CollectionError: confidential computing is off or in DevTools mode, a device gave no evidence, or time was over.
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

    Raises:
        NotTrustedError: they are not, or the bus cannot be read (``device-count``).
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
    return any(_is_protected(device.report) for device in devices if device.evidence.kind is DeviceKind.GPU)


def _is_protected(report: Report | ParseError) -> bool:
    try:
        return isinstance(report, Report) and feature_mode(report) is FeatureMode.PPCIE
    except InputError:
        # The appraisal says what is wrong with it.
        return False
