"""The evidence policy: what the verifier demands of a device. Strict by default; every weakening has a name.

This is the appraisal policy for evidence of RFC 9334. What a relying party demands of the result is another matter, and
lives in ``nvattest.policy``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum

from nvattest._text import version_key
from nvattest.errors import PolicyError
from nvattest.model import Architecture

MAX_TRAILING_BYTES = 8


class RevocationMode(Enum):
    """The least fresh revocation answer that is accepted. Each mode accepts what the ones before it accept.

    FRESH: an answer given now, with our nonce in it. WITHIN_WINDOW: also one from the cache, inside its signed window.
    BUNDLE: also one from a bundle or file that the caller named, inside its signed window. An answer over the network
    must carry our nonce in every mode.
    """

    # Members are singletons; Enum's own hash would ask Python code for each look-up.
    __hash__ = object.__hash__

    FRESH = "fresh"
    WITHIN_WINDOW = "within-window"
    BUNDLE = "bundle"


class TopologyRule(Enum):
    """WHEN_PRESENT: checked as soon as evidence of GPUs in PPCIE mode and of switches is given. REQUIRED: always."""

    WHEN_PRESENT = "when-present"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidencePolicy:
    """What the verifier demands. The defaults are the strict ones.

    Demands:
        revocation: the least fresh revocation answer that counts.
        allowed_architectures, allowed_modes: empty means any that the program knows.
        minimum_driver_version, minimum_vbios_version: dotted versions; VBIOS parts are hexadecimal.
        denied_driver_versions, denied_vbios_versions: versions that are refused, compared as numbers as minimums are.
        expected_gpus, expected_switches: exact counts, None for any.
        topology: when the PPCIE topology must close. Where it must, and wherever evidence of a switch is given, all
            GPUs must be in protected PCIe mode and all switches locked.
        max_trailing_bytes: bytes tolerated after a report's signature. Nothing reads them; real captures have one.
        require_fwid_in_report: the report of a GPU must name its firmware id, and not only the leaf certificate that is
            issued for it. Drivers before R550 leave it out.
        fwid_optional_for: architectures whose reports need not name a firmware id (LS10 reports never do).

    Weakenings, all off; each that is on stands in the appraisal and in the token:
        accept_unverified_nonce: evidence without a nonce of ours counts; it may be a recording.
        accept_unchecked_revocation: certificates without a revocation answer count.
        accept_live_ocsp_without_nonce: a network answer without our nonce counts inside its window (caching proxies).
        accept_stale_ocsp: a good answer past its signed end counts.
        accept_expired_rim_certificates: RIMs whose signers have expired count.
        allow_certificate_hold_for_rims, allow_certificate_hold_for_devices: revoked with reason certificateHold counts,
            where the answer is current.
        allow_debug: a device whose certificate says debug or not secure counts, and one of which the driver says that
            DevTools mode is on.

    Raises:
        PolicyError: a field has another type, or a version is none (code ``policy-value``).
    """

    revocation: RevocationMode = RevocationMode.BUNDLE
    allowed_architectures: tuple[Architecture, ...] = ()
    allowed_modes: tuple[str, ...] = ()
    minimum_driver_version: str | None = None
    minimum_vbios_version: str | None = None
    denied_driver_versions: tuple[str, ...] = ()
    denied_vbios_versions: tuple[str, ...] = ()
    expected_gpus: int | None = None
    expected_switches: int | None = None
    topology: TopologyRule = TopologyRule.WHEN_PRESENT
    max_trailing_bytes: int = MAX_TRAILING_BYTES
    require_fwid_in_report: bool = False
    fwid_optional_for: tuple[Architecture, ...] = tuple(Architecture)
    accept_unverified_nonce: bool = False
    accept_unchecked_revocation: bool = False
    accept_live_ocsp_without_nonce: bool = False
    accept_stale_ocsp: bool = False
    accept_expired_rim_certificates: bool = False
    allow_certificate_hold_for_rims: bool = False
    allow_certificate_hold_for_devices: bool = False
    allow_debug: bool = False

    def __post_init__(self) -> None:
        # "no" or 1 would weaken and not stand among the weakenings; "required" would demand nothing.
        for field in fields(self):
            value = getattr(self, field.name)
            if not _TYPES[str(field.type)](value):
                raise PolicyError(
                    f"{field.name} of an evidence policy is {value!r:.80}, expected {field.type}", code="policy-value"
                )
        # A text that is no version would match nothing: a list with it would deny nothing.
        for base, versions in (
            (10, (self.minimum_driver_version, *self.denied_driver_versions)),
            (16, (self.minimum_vbios_version, *self.denied_vbios_versions)),
        ):
            for version in versions:
                if version is not None and version_key(version, base=base) is None:
                    raise PolicyError(
                        f"an evidence policy names {version!r:.80}, which is not a version",
                        code="policy-value",
                        hint=f'write it as "{"570.86.15" if base == 10 else "96.00.9F.00.01"}"',
                    )

    @property
    def weakenings(self) -> tuple[str, ...]:
        """The names of the weakenings that are on, and of demands that ask less than the defaults do."""
        names = [
            field.name
            for field in fields(self)
            if field.name.startswith(("accept_", "allow_")) and getattr(self, field.name) is True
        ]
        if self.max_trailing_bytes > MAX_TRAILING_BYTES:
            names.append("max_trailing_bytes")
        return tuple(names)


def _count(value: object) -> bool:
    return type(value) is int and value >= 0


def _all(kind: type) -> Callable[[object], bool]:
    return lambda value: type(value) is tuple and all(type(item) is kind for item in value)


# Whether a value has the type that a field is declared with.
_TYPES: dict[str, Callable[[object], bool]] = {
    "bool": lambda value: type(value) is bool,
    "int": _count,
    "int | None": lambda value: value is None or _count(value),
    "str | None": lambda value: value is None or type(value) is str,
    "tuple[str, ...]": _all(str),
    "tuple[Architecture, ...]": _all(Architecture),
    "RevocationMode": lambda value: type(value) is RevocationMode,
    "TopologyRule": lambda value: type(value) is TopologyRule,
}
