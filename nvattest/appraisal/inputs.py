"""What an appraisal is made from besides evidence: the evidence policy, and collateral as bytes with a source.

The evidence policy is the appraisal policy for evidence of RFC 9334: what the verifier demands of a device. What a
relying party demands of the result is in ``nvattest.policy``. ``EvidencePolicy`` is the one declaration of its fields:
name, type, default, meaning and bounds. Files, their schema and the explanation of a policy are derived from it in
``nvattest.policy.evidence_policy``.
"""

# ruff: noqa: RUF009 - demand gives a dataclasses.field

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from enum import Enum
from typing import Final, NamedTuple, TypeVar

from nvattest._text import version_key
from nvattest.errors import PolicyError, ResultCode
from nvattest.model import Architecture, Word, counted
from nvattest.spdm.report import FeatureMode

MAX_TRAILING_BYTES: Final = 8
DRIVER_VERSION: Final = 10
VBIOS_VERSION: Final = 16
"""The base of the numbers in a version."""
VERSION_EXAMPLES: Final = {DRIVER_VERSION: "570.86.15", VBIOS_VERSION: "96.00.9F.00.01"}
_MAXIMUM_DEVICES: Final = 64
_MODES: Final = tuple(mode.value for mode in FeatureMode if mode is not FeatureMode.UNKNOWN)

T = TypeVar("T")


class RevocationMode(Word):
    """The least fresh revocation answer that is accepted. Each mode accepts what the ones before it accept.

    FRESH: an answer given now, with our nonce in it. WITHIN_WINDOW: also one from the cache, inside its signed window.
    BUNDLE: also one from a bundle or file that the caller named, inside its signed window. An answer over the network
    must carry our nonce in every mode.
    """

    FRESH = "fresh"
    WITHIN_WINDOW = "within-window"
    BUNDLE = "bundle"


class TopologyRule(Enum):
    """WHEN_PRESENT: checked as soon as evidence of GPUs in PPCIE mode and of switches is given. REQUIRED: always."""

    WHEN_PRESENT = "when-present"
    REQUIRED = "required"


def demand(default: T, meaning: str, **bounds: object) -> T:
    """A field; the bounds are ``maximum`` of a number, ``base`` of versions and ``words`` of a list, for files.

    A CPU policy has also ``size`` of hexadecimal texts and ``pattern`` of other ones.
    """
    return field(default=default, metadata={"meaning": meaning, **bounds})


def _weakening(meaning: str) -> bool:
    return demand(False, f"Weakening: {meaning}", weakening=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidencePolicy:
    """What the verifier demands. The defaults are the strict ones; the metadata of each field say its meaning.

    Versions are compared as numbers. Fields that begin with ``accept_`` or ``allow_`` are weakenings: all are off, and
    each that is on stands in the appraisal and in the token.

    Raises:
        PolicyError: a field has another type, or a version is none (code ``policy-value``).
    """

    revocation: RevocationMode = demand(RevocationMode.BUNDLE, "The least fresh revocation answer that counts.")
    allowed_architectures: tuple[Architecture, ...] = demand((), "Architectures that are accepted; empty for all.")
    allowed_modes: tuple[str, ...] = demand((), "Modes that are accepted; empty for all.", words=_MODES)
    minimum_driver_version: str | None = demand(None, "The oldest driver that is accepted.", base=DRIVER_VERSION)
    minimum_vbios_version: str | None = demand(None, "The oldest VBIOS that is accepted.", base=VBIOS_VERSION)
    denied_driver_versions: tuple[str, ...] = demand((), "Drivers that are refused.", base=DRIVER_VERSION)
    denied_vbios_versions: tuple[str, ...] = demand((), "VBIOS versions that are refused.", base=VBIOS_VERSION)
    expected_gpus: int | None = demand(None, "The exact number of GPUs; null for any.", maximum=_MAXIMUM_DEVICES)
    expected_switches: int | None = demand(
        None, "The exact number of NVSwitches; null for any.", maximum=_MAXIMUM_DEVICES
    )
    # Where the topology must close, and wherever evidence of a switch is given, all GPUs must be in protected PCIe mode
    # and all switches locked.
    topology: TopologyRule = demand(TopologyRule.WHEN_PRESENT, "When the PPCIE topology has to close.")
    # Nothing reads these bytes; real captures have one.
    max_trailing_bytes: int = demand(MAX_TRAILING_BYTES, "Bytes tolerated after a report's signature.", maximum=4096)
    require_fwid_in_report: bool = demand(
        False, "The report of a GPU must name its firmware id, as drivers from R550 on do."
    )
    # LS10 reports never name one.
    fwid_optional_for: tuple[Architecture, ...] = demand(
        tuple(Architecture), "Architectures whose reports need not name a firmware id."
    )
    # Without our nonce the evidence may be a recording.
    accept_unverified_nonce: bool = _weakening("evidence without a nonce of ours counts.")
    accept_unchecked_revocation: bool = _weakening("certificates without a revocation answer count.")
    # Caching proxies give such answers.
    accept_live_ocsp_without_nonce: bool = _weakening("a network answer without our nonce counts inside its window.")
    accept_stale_ocsp: bool = _weakening("a good revocation answer past its signed end counts.")
    accept_expired_rim_certificates: bool = _weakening("reference manifests of expired signers count.")
    # Both only where the answer that says certificateHold is current.
    allow_certificate_hold_for_rims: bool = _weakening("RIM signers revoked with certificateHold count.")
    allow_certificate_hold_for_devices: bool = _weakening("device certificates on certificateHold count.")
    # A certificate that says debug or not secure, or a driver that says that DevTools mode is on.
    allow_debug: bool = _weakening("devices in a debug state count.")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            # "no" or 1 would weaken and not stand among the weakenings; "required" would demand nothing.
            if not fits(value, str(item.type)):
                message = f"{item.name} of an evidence policy is {value!r:.80}, expected {item.type}"
                raise PolicyError(message, code="policy-value")
            if "base" not in item.metadata or value is None:
                continue
            base: int = item.metadata["base"]
            # A text that is no version would match nothing: a list with it would deny nothing.
            for version in (value,) if isinstance(value, str) else value:
                if version_key(version, base=base) is None:
                    message = f"an evidence policy names {version!r:.80}, which is not a version"
                    hint = f'write it as "{VERSION_EXAMPLES[base]}"'
                    raise PolicyError(message, code="policy-value", hint=hint)

    def __repr__(self) -> str:
        said = [f"{item.name}={getattr(self, item.name)!r}" for item in fields(self)
                if getattr(self, item.name) != item.default]  # fmt: skip
        return f"EvidencePolicy({', '.join(said)})"

    @property
    def weakenings(self) -> tuple[str, ...]:
        """The names of the weakenings that are on, and of demands that ask less than the defaults do."""
        names = [item.name for item in fields(self) if "weakening" in item.metadata and getattr(self, item.name)]
        if self.max_trailing_bytes > MAX_TRAILING_BYTES:
            names.append("max_trailing_bytes")
        return tuple(names)


_KINDS: Final = {kind.__name__: kind for kind in (bool, int, str, date, Architecture, RevocationMode, TopologyRule)}


def fits(value: object, declared: str) -> bool:
    """Whether a value has the type that a field is declared with, such as ``str | None``; no number is negative."""
    if declared.startswith("tuple["):
        kind = _KINDS[declared[len("tuple[") : -len(", ...]")]]
        return type(value) is tuple and all(type(item) is kind for item in value)
    kind = _KINDS[declared.removesuffix(" | None")]
    if value is None:
        return declared.endswith(" | None")
    return type(value) is kind and (type(value) is not int or value >= 0)


# --- collateral -------------------------------------------------------------------------------------------------------


class Source(Word):
    """Where a piece of collateral came from. It decides how fresh a revocation answer can be said to be.

    A FILE is one that the caller named, or one in a folder that the caller named; it counts as a BUNDLE does.
    """

    LIVE = "live"
    CACHE = "cache"
    BUNDLE = "bundle"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class RimAnswer:
    """The bytes of one RIM. ``origin`` is a URL or a file name, for people."""

    id: str
    content: bytes = field(repr=False)
    source: Source
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspAnswer:
    """The DER bytes of one OCSP response, and the nonce of the request that it answers (None: no request of ours)."""

    content: bytes = field(repr=False)
    source: Source
    nonce: bytes | None = None
    origin: str = ""


class CpuAnswer(NamedTuple):
    """The bytes of one file of a CPU maker's collateral (``nvattest.tee.collateral.parse_collateral``)."""

    content: bytes
    source: Source
    origin: str = ""


class Unavailable(NamedTuple):
    """Why a piece of collateral could not be had: NVIDIA's code for it, what happened, and what to do.

    ``passing`` is that of ``CollateralError``. ``asked`` is False where the caller wanted no service to be asked.
    """

    code: ResultCode
    message: str
    hint: str = ""
    passing: bool = False
    asked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """Everything that was gathered for a verification; nothing in it is believed before its signature is checked.

    ``rims`` is keyed by RIM id. ``unavailable`` is keyed by ``rim:<id>`` and by ``ocsp:<SHA-256 of the certificate>``.
    ``cpu`` is for the quotes of guests; devices need none of it.
    """

    rims: Mapping[str, RimAnswer] = field(default_factory=dict)
    ocsp: tuple[OcspAnswer, ...] = ()
    unavailable: Mapping[str, Unavailable] = field(default_factory=dict)
    cpu: tuple[CpuAnswer, ...] = ()

    def __post_init__(self) -> None:
        # A verifier keeps what it read from the answers of this object: a list must not change under it.
        object.__setattr__(self, "ocsp", tuple(self.ocsp))

    def __repr__(self) -> str:
        return (
            f"<Collateral: {counted(len(self.rims), 'RIM')}, {counted(len(self.ocsp), 'revocation answer')}, "
            f"{len(self.unavailable)} unavailable>"
        )

    def merged(self, other: Collateral) -> Collateral:
        """Both together; where both have a RIM of one id, this one's is kept."""
        return Collateral(
            rims={**other.rims, **self.rims},
            ocsp=self.ocsp + other.ocsp,
            unavailable={**other.unavailable, **self.unavailable},
            cpu=self.cpu + other.cpu,
        )
