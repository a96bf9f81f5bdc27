"""The fields of an evidence policy in a file: what each may hold, as a check and as JSON Schema."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nvattest._documents import JsonObject, kind_of
from nvattest.appraisal.policy import RevocationMode, TopologyRule
from nvattest.model import Architecture
from nvattest.spdm.report import FeatureMode

# Says what is wrong; the caller adds the key and its place.
Complain = Callable[[str, str], Exception]


def suggestion(word: str, known: tuple[str, ...]) -> str:
    """``did you mean …?``, or what there is."""
    near = difflib.get_close_matches(word[:80].lower(), [item.lower() for item in known], n=1, cutoff=0.6)
    if near:
        return f"did you mean {next(item for item in known if item.lower() == near[0])!r}?"
    return f"one of {', '.join(known)}"


def type_name(value: object) -> str:
    """What a value of a file is, in words; TOML has dates too."""
    return "a date or a time" if type(value).__module__ == "datetime" else kind_of(value)


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: object, complain: Complain) -> object:
        """The value, checked."""
        if type(value) is not bool:
            raise complain(f"is {type_name(value)}, expected true or false", "")
        return value

    def schema(self) -> JsonObject:
        """As JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number from 0; ``optional`` also takes null, for any."""

    maximum: int
    optional: bool = False

    def read(self, value: object, complain: Complain) -> object:
        """The value, checked."""
        if value is None and self.optional:
            return None
        if type(value) is not int:
            raise complain(f"is {type_name(value)}, expected a whole number", "")
        if not 0 <= value <= self.maximum:
            raise complain(f"is {value}, expected 0 to {self.maximum}", "")
        return value

    def schema(self) -> JsonObject:
        """As JSON Schema."""
        kind: object = ["integer", "null"] if self.optional else "integer"
        return {"type": kind, "minimum": 0, "maximum": self.maximum}


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a list; ``values`` are what the words stand for."""

    words: tuple[str, ...]
    values: tuple[object, ...]

    def read(self, value: object, complain: Complain) -> object:
        """The value, checked."""
        if not isinstance(value, str):
            raise complain(f"is {type_name(value)}, expected a text", f"one of {', '.join(self.words)}")
        if value not in self.words:
            raise complain(f"is {value[:80]!r}, which is not known", suggestion(value, self.words))
        return self.values[self.words.index(value)]

    def schema(self) -> JsonObject:
        """As JSON Schema."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Version:
    """A dotted version; decimal for drivers, hexadecimal for VBIOS. ``optional`` also takes null, for none."""

    hexadecimal: bool
    optional: bool = False

    @property
    def pattern(self) -> str:
        """Of at most eight parts of at most eight digits."""
        digit = "[0-9A-Fa-f]" if self.hexadecimal else "[0-9]"
        return rf"^{digit}{{1,8}}(\.{digit}{{1,8}}){{0,7}}$"

    def read(self, value: object, complain: Complain) -> object:
        """The value, checked."""
        if value is None and self.optional:
            return None
        example = "96.00.9F.00.01" if self.hexadecimal else "570.86.15"
        if not isinstance(value, str):
            raise complain(f"is {type_name(value)}, expected a version as a text", f'write it as "{example}"')
        if not re.fullmatch(self.pattern[1:-1], value):
            raise complain(f"is {value[:80]!r}, which is not a version", f'write it as "{example}"')
        return value

    def schema(self) -> JsonObject:
        """As JSON Schema."""
        kind: object = ["string", "null"] if self.optional else "string"
        return {"type": kind, "pattern": self.pattern}


@dataclass(frozen=True, slots=True)
class Several:
    """An array of different items of one kind."""

    item: Word | Version
    maximum: int = 256

    def read(self, value: object, complain: Complain) -> object:
        """The values, checked, as a tuple."""
        if not isinstance(value, list):
            raise complain(f"is {type_name(value)}, expected an array", "")
        if len(value) > self.maximum:
            raise complain(f"has {len(value)} items, at most {self.maximum} are read", "")
        items: list[object] = []
        for position, raw in enumerate(value):
            item = self.item.read(raw, lambda message, hint, at=position: complain(f"[{at}] {message}", hint))  # type: ignore[misc]
            if item in items:
                raise complain(f"[{position}] is {raw!r} once more", "")
            items.append(item)
        return tuple(items)

    def schema(self) -> JsonObject:
        """As JSON Schema."""
        return {"type": "array", "maxItems": self.maximum, "uniqueItems": True, "items": self.item.schema()}


Kind = Flag | Count | Word | Version | Several

_ARCHITECTURE: Final = Word(tuple(item.value for item in Architecture), tuple(Architecture))
_MODES: Final = tuple(item.value for item in FeatureMode if item is not FeatureMode.UNKNOWN)
_MAXIMUM_DEVICES: Final = 64

# The name, what it may hold, and what it means. The order is that of EvidencePolicy.
FIELDS: Final[dict[str, tuple[Kind, str]]] = {
    "revocation": (
        Word(tuple(item.value for item in RevocationMode), tuple(RevocationMode)),
        "The least fresh revocation answer that counts.",
    ),
    "allowed_architectures": (Several(_ARCHITECTURE), "Architectures that are accepted; empty for all."),
    "allowed_modes": (Several(Word(_MODES, _MODES)), "Modes that are accepted; empty for all."),
    "minimum_driver_version": (Version(hexadecimal=False, optional=True), "The oldest driver that is accepted."),
    "minimum_vbios_version": (Version(hexadecimal=True, optional=True), "The oldest VBIOS that is accepted."),
    "denied_driver_versions": (Several(Version(hexadecimal=False)), "Drivers that are refused."),
    "denied_vbios_versions": (Several(Version(hexadecimal=True)), "VBIOS versions that are refused."),
    "expected_gpus": (Count(_MAXIMUM_DEVICES, optional=True), "The exact number of GPUs."),
    "expected_switches": (Count(_MAXIMUM_DEVICES, optional=True), "The exact number of NVSwitches."),
    "topology": (
        Word(tuple(item.value for item in TopologyRule), tuple(TopologyRule)),
        "When the PPCIE topology has to close.",
    ),
    "max_trailing_bytes": (Count(4096), "Bytes tolerated after a report's signature."),
    "require_fwid_in_report": (Flag(), "The report of a GPU must name its firmware id, as drivers from R550 on do."),
    "fwid_optional_for": (Several(_ARCHITECTURE), "Architectures whose reports need not name a firmware id."),
    "accept_unverified_nonce": (Flag(), "Weakening: evidence without a nonce of ours counts."),
    "accept_unchecked_revocation": (Flag(), "Weakening: certificates without a revocation answer count."),
    "accept_live_ocsp_without_nonce": (Flag(), "Weakening: a network answer without our nonce counts."),
    "accept_stale_ocsp": (Flag(), "Weakening: a good revocation answer past its signed end counts."),
    "accept_expired_rim_certificates": (Flag(), "Weakening: reference manifests of expired signers count."),
    "allow_certificate_hold_for_rims": (Flag(), "Weakening: RIM signers revoked with certificateHold count."),
    "allow_certificate_hold_for_devices": (Flag(), "Weakening: device certificates on certificateHold count."),
    "allow_debug": (Flag(), "Weakening: devices in a debug state count."),
}
