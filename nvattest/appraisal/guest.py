"""The guest: what a relying party demands of it, and its appraisal by its CPU's quote (made by ``nvattest.tee.guest``).

Each class of the CPU policy is the one declaration of its fields: name, type, default, meaning and bounds. Files, their
schema and the explanation of a policy are derived from them in ``nvattest.policy.cpu_policy``. A list means "one of";
an empty list demands nothing of that field. The defaults are strict.
"""

# ruff: noqa: RUF009 - demand gives a dataclasses.field

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from datetime import date, datetime
from enum import Enum
from typing import Any, Final, NamedTuple

from nvattest._documents import JsonObject
from nvattest.appraisal.check import REQUIRED_GUEST, Check, Judged, measured, refused, unproven, verdict
from nvattest.appraisal.inputs import demand, fits
from nvattest.errors import PolicyError
from nvattest.model import counted

ANY: Final = "any"
# The weakening of a policy that demands no measurement.
ANY_GUEST: Final = "any guest"
UP_TO_DATE: Final = "UpToDate"
# Intel's words for a platform's TCB level; "Revoked" never reaches a policy.
TCB_STATUSES: Final = (
    UP_TO_DATE, "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate",
    "OutOfDateConfigurationNeeded", "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded",
)  # fmt: skip
# Intel's evaluation data number in use since 2026-01. A file of an older issue may still be current.
MINIMUM_EVALUATION: Final = 18
GENERATIONS: Final = ("milan", "genoa", "siena", "turin")
ADVISORY: Final = "INTEL-SA-[0-9]{5}"
CSP_ID: Final = "[ -~]{1,128}"
ABI: Final = "[0-9]{1,3}\\.[0-9]{1,3}"
_MEASUREMENT: Final = 48
_BYTE: Final = 255
_ANY_MEANING: Final = '"any" counts every guest, whatever it runs. Weakening: any guest.'


def _hex(meaning: str, size: int = _MEASUREMENT) -> tuple[str, ...]:
    return demand((), meaning, size=size)


def _svn(meaning: str) -> int:
    return demand(0, meaning, maximum=_BYTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxDemands:
    """What is demanded of an Intel TDX guest.

    Raises:
        PolicyError: a value that a field cannot have (code ``policy-value``), or no measurement is demanded and
            ``measurements`` does not say ``any`` (``policy-measurements``).
    """

    measurements: str | None = demand(None, _ANY_MEANING, words=(ANY,))
    mrtd: tuple[str, ...] = _hex("MRTD: the measurement of the guest's firmware.")
    rtmr0: tuple[str, ...] = _hex("RTMR 0: the firmware's configuration.")
    rtmr1: tuple[str, ...] = _hex("RTMR 1: the boot loader and the kernel.")
    rtmr2: tuple[str, ...] = _hex("RTMR 2: the kernel's command line and the initrd.")
    rtmr3: tuple[str, ...] = _hex("RTMR 3: what the guest's software extends.")
    mr_config_id: tuple[str, ...] = _hex("MRCONFIGID, which the host sets at creation.")
    mr_seam: tuple[str, ...] = _hex("MRSEAM: the measurement of Intel's TDX module.")
    tcb_status: tuple[str, ...] = demand((UP_TO_DATE,), "Intel's TCB levels that count.", words=TCB_STATUSES)
    advisories_allowed: tuple[str, ...] = demand((), "Intel's advisories that may be open.", pattern=ADVISORY)
    minimum_tcb_evaluation: int = demand(
        MINIMUM_EVALUATION,
        "The lowest TCB evaluation data number; it bounds which of Intel's issues an attester may choose.",
        maximum=2**31 - 1,
    )
    minimum_tcb_date: date | None = demand(None, "The earliest date of the platform's TCB level.")

    def __post_init__(self) -> None:
        _check(self)
        if self.measurements != ANY and not (self.mrtd or (self.rtmr1 and self.rtmr2)):
            raise _no_measurement("tdx", "mrtd, or rtmr1 and rtmr2")

    @property
    def weakenings(self) -> tuple[str, ...]:
        return (
            *([ANY_GUEST] if self.measurements == ANY else []),
            *(["tdx.tcb_status"] if set(self.tcb_status) - {UP_TO_DATE} else []),
            *(["tdx.advisories_allowed"] if self.advisories_allowed else []),
            *(["tdx.minimum_tcb_evaluation"] if self.minimum_tcb_evaluation < MINIMUM_EVALUATION else []),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbFloor:
    """The lowest security version numbers of one AMD generation that count, each compared by itself."""

    fmc: int = _svn("FMC, the first firmware of Turin's secure processor; 0 for earlier generations.")
    boot_loader: int = _svn("The secure processor's boot loader.")
    tee: int = _svn("The secure processor's operating system.")
    snp: int = _svn("The SNP firmware.")
    microcode: int = _svn("The microcode.")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpDemands:
    """What is demanded of an AMD SEV-SNP guest.

    Raises:
        PolicyError: as ``TdxDemands``.
    """

    measurements: str | None = demand(None, _ANY_MEANING, words=(ANY,))
    measurement: tuple[str, ...] = _hex("MEASUREMENT: the guest's memory at launch.")
    host_data: tuple[str, ...] = _hex("HOST_DATA, which the host sets at launch.", 32)
    family_id: tuple[str, ...] = _hex("FAMILY_ID of the guest's identity block.", 16)
    image_id: tuple[str, ...] = _hex("IMAGE_ID of the guest's identity block.", 16)
    id_key_digest: tuple[str, ...] = _hex("SHA-384 of the key that signed the identity block.")
    author_key_digest: tuple[str, ...] = _hex("SHA-384 of the key that signed that key.")
    chip_id: tuple[str, ...] = _hex("Chips that count.", 64)
    maximum_vmpl: int = demand(0, "The highest privilege level (the least privileged) that may have asked.", maximum=3)
    endorsement: tuple[str, ...] = demand(("vcek",), "Kinds of endorsement keys that count.", words=("vcek", "vlek"))
    csp_id: tuple[str, ...] = demand((), "Cloud providers whose VLEK counts.", pattern=CSP_ID)
    minimum_guest_svn: int = demand(0, "The lowest security version number of the guest.", maximum=2**32 - 1)
    minimum_abi: str | None = demand(None, "The lowest firmware ABI that the guest demands.", pattern=ABI)
    smt: str = demand("allowed", "Whether the guest may run with SMT.", words=("allowed", "forbidden"))
    migration: bool = demand(False, "Weakening: guests with a migration agent count.")
    crl: str = demand("required", "Whether AMD's revocation list must be there.", words=("required", "if-present"))
    minimum_tcb: Mapping[str, TcbFloor] = field(
        default_factory=dict,
        metadata={"meaning": "Floors of the reported TCB by generation; one without is refused. Weakening: all zeros."},
    )

    def __post_init__(self) -> None:
        _check(self)
        if self.measurements != ANY and not self.measurement:
            raise _no_measurement("snp", "measurement")
        if unknown := self.minimum_tcb.keys() - set(GENERATIONS):
            raise _value(f"minimum_tcb names {', '.join(sorted(unknown))!r:.80}", f"one of {', '.join(GENERATIONS)}")
        if "vlek" in self.endorsement and not self.csp_id:
            raise _value("endorsement allows vlek, and csp_id names no cloud provider", 'write csp_id = ["CN=…"]')

    @property
    def weakenings(self) -> tuple[str, ...]:
        return (
            *([ANY_GUEST] if self.measurements == ANY else []),
            *(["snp.maximum_vmpl"] if self.maximum_vmpl else []),
            *(["snp.migration"] if self.migration else []),
            *(["snp.crl"] if self.crl != "required" else []),
            *(["snp.minimum_tcb"] if TcbFloor() in self.minimum_tcb.values() else []),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPolicy:
    """What is demanded of a guest, by the maker of its CPU; a kind of quote without demands is refused.

    Raises:
        PolicyError: it accepts no kind of quote (code ``policy-value``).
    """

    tdx: TdxDemands | None = None
    snp: SnpDemands | None = None

    def __post_init__(self) -> None:
        if self.tdx is None and self.snp is None:
            raise _value("it demands nothing of any kind of quote", "write a table [tdx] or [snp]")

    @property
    def weakenings(self) -> tuple[str, ...]:
        """The names of the demands that ask less than the defaults do, each once."""
        both = [name for part in (self.tdx, self.snp) if part is not None for name in part.weakenings]
        return tuple(dict.fromkeys(both))


def _value(message: str, hint: str = "", code: str = "policy-value") -> PolicyError:
    return PolicyError(f"a CPU policy: {message}", code=code, hint=hint)


def _no_measurement(table: str, names: str) -> PolicyError:
    message = f"[{table}] demands no measurement, so that any guest would count"
    return _value(message, f'name {names}; or write measurements = "any" to accept any guest', "policy-measurements")


def _check(demands: object) -> None:
    for item in fields(demands):  # type: ignore[arg-type]
        value = getattr(demands, item.name)
        if not _fits(value, item):
            raise _value(f"{item.name} is {value!r:.80}, expected {item.type}")
        if value == () and "words" in item.metadata:
            hint = f"name some of {', '.join(item.metadata['words'])}, or leave it out"
            raise _value(f"{item.name} is empty, so that no guest would count", hint)


def _fits(value: object, item: Field[Any]) -> bool:
    if item.name == "minimum_tcb":
        return isinstance(value, Mapping) and all(type(floor) is TcbFloor for floor in value.values())
    if not fits(value, str(item.type)):
        return False
    if isinstance(value, int):
        return bool(value <= item.metadata.get("maximum", value))
    if isinstance(value, str):
        return _spelled(value, item.metadata)
    return not isinstance(value, tuple) or all(_spelled(text, item.metadata) for text in value)


def _spelled(text: str, bounds: Mapping[str, Any]) -> bool:
    if "words" in bounds:
        return text in bounds["words"]
    pattern = bounds["pattern"] if "pattern" in bounds else f"[0-9a-f]{{{2 * bounds['size']}}}"
    return re.fullmatch(pattern, text) is not None


# --- the appraisal ----------------------------------------------------------------------------------------------------


class Strength(Enum):
    """What ties the devices to the guest: what the quote's report data covers. None of them proves attachment.

    KEY_AND_EVIDENCE: a key and this very evidence. NONCE_ONLY: the nonce that the devices answered, which a device of
    another machine can answer, too. NOTHING: nothing that the verifier can recompute.
    """

    KEY_AND_EVIDENCE = "key and evidence"
    NONCE_ONLY = "nonce only"
    NOTHING = "nothing"


class DeviceSide(NamedTuple):
    """What is known of the devices when the guest is judged, from their appraisal or from a verified token.

    ``nonce`` is the one that all of them answered, ``digest`` that of their evidence (recipe 2 of
    ``nvattest.token.binding``), ``key`` the thumbprint of the key that signed the token. ``identities`` are their
    certified identities (``ueid``), and ``reports`` the SHA-256 of their reports where evidence was appraised.
    """

    trusted: bool
    number: int
    nonce: bytes | None
    digest: bytes | None
    key: bytes | None
    identities: tuple[str, ...]
    reports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFacts:
    """What a quote says whose signature was verified.

    ``measurement`` is MRTD or MEASUREMENT, ``registers`` are RTMR 0 to 3 (TDX only). ``level`` says the firmware's
    level in words; ``tcb``, ``endorsement`` and ``collateral`` hold the particulars as JSON values.
    """

    measurement: bytes
    registers: tuple[bytes, ...]
    report_data: bytes
    level: str
    tcb: JsonObject
    endorsement: JsonObject
    collateral: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestAppraisal(Judged):
    """All checks of a guest. ``trusted`` is true only if every check of the table is there and acceptable.

    ``kind`` is the kernel's name of the quote's provider, empty where the quote could not be read. ``recipe`` names how
    the report data was computed, and ``strength`` what that ties together. ``key`` is the thumbprint of the key that
    the report data covers, where there is one.
    """

    kind: str
    checks: tuple[Check, ...]
    facts: GuestFacts | None
    recipe: str
    strength: Strength
    key: str | None
    devices: int
    policy: CpuPolicy
    at: datetime
    anchors: str
    simulated: bool

    def __repr__(self) -> str:
        judged = f"{self.strength.value}: {verdict(self.trusted, self.failures)}"
        return f"<GuestAppraisal {self.kind or 'of an unreadable quote'}, {judged}>"

    @property
    def _required(self) -> tuple[str, ...]:
        return REQUIRED_GUEST

    @property
    def quote_verified(self) -> bool:
        """Whether the quote's signature is good, under a chain to the maker's root of which nothing is revoked."""
        return self.facts is not None

    @property
    def weakened(self) -> tuple[str, ...]:
        """The names of the demands on this kind of quote that ask less than the strict policy does."""
        demands = self.policy.tdx if self.kind == "tdx_guest" else self.policy.snp
        return demands.weakenings if demands is not None else ()

    @property
    def sentence(self) -> str:
        """The result in words. It claims nothing about attachment."""
        if self.facts is None:
            return unproven(self.kind)
        measurement, level = self.facts.measurement.hex(), self.facts.level
        if not self.trusted:
            return refused(self.kind, measurement, level, [check.id for check in self.failures])
        guest = measured(self.kind, measurement, level)
        one = self.devices == 1
        devices = "this device" if one else f"these {counted(self.devices, 'device')}"
        trusted = "it is trusted" if one else "all are trusted"
        if self.strength is Strength.KEY_AND_EVIDENCE:
            key = f"holds key {self.key}, " if self.key is not None else ""
            return f"{guest} {key}asked {devices} with your challenge, and {trusted}."
        if self.strength is Strength.NONCE_ONLY:
            tie = f"names the nonce that {devices} answered, and {trusted}. It covers no evidence"
            return f"{guest} {tie}: devices of another machine could have answered."
        return f"{guest} has the report data that you expect. What ties {devices} to it is yours to know; {trusted}."
