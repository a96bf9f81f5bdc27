"""The appraisal of a guest: its CPU's quote judged beside its devices. ``nvattest.tee.guest`` makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from nvattest._documents import JsonObject
from nvattest.appraisal.check import REQUIRED_GUEST, Check, Outcome, decide, result_code, unacceptable
from nvattest.errors import ResultCode
from nvattest.model import NoTruthValue, counted

if TYPE_CHECKING:
    from nvattest.appraisal.cpu_policy import CpuPolicy

# What a verified quote is: its collateral belongs to it, and chain, revocation and signature are good.
VERIFIED: Final = ("quote-collateral", "quote-chain", "quote-revocation", "quote-signature")
# The kernel's names of the providers of quotes.
MAKERS: Final = {"tdx_guest": "Intel TDX", "sev_guest": "AMD SEV-SNP"}


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
class GuestAppraisal(NoTruthValue):
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

    _ask: ClassVar[str] = ".trusted"

    def __repr__(self) -> str:
        verdict = "trusted" if self.trusted else f"not trusted, {counted(len(self.failures), 'failure')}"
        return f"<GuestAppraisal {self.kind or 'of an unreadable quote'}, {self.strength.value}: {verdict}>"

    @property
    def trusted(self) -> bool:
        """Whether this guest may be believed, with what it says of its devices."""
        return decide(self.checks, REQUIRED_GUEST)

    @property
    def quote_verified(self) -> bool:
        """Whether the quote's signature is good, under a chain to the maker's root of which nothing is revoked."""
        return self.facts is not None

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that stand in the way of trust, in the order of the story."""
        return unacceptable(self.checks)

    @property
    def result_code(self) -> ResultCode:
        """OK, or the code of the first check that failed."""
        code = result_code(self.checks)
        return ResultCode.OVERALL_RESULT_FALSE if code is ResultCode.OK and not self.trusted else code

    @property
    def weakened(self) -> tuple[str, ...]:
        """The names of the demands on this kind of quote that ask less than the strict policy does."""
        demands = self.policy.tdx if self.kind == "tdx_guest" else self.policy.snp
        return demands.weakenings if demands is not None else ()

    def check(self, id: str) -> Check | None:  # noqa: A002
        """The check of this name."""
        return next((check for check in self.checks if check.id == id), None)

    def passed(self, id: str) -> bool:  # noqa: A002
        """Whether the check of this name is there and passed."""
        return any(check.id == id and check.outcome is Outcome.PASS for check in self.checks)

    @property
    def sentence(self) -> str:
        """The result in words. It claims nothing about attachment."""
        if self.facts is None:
            return unproven(self.kind)
        measurement, level = self.facts.measurement.hex(), self.facts.level
        if not self.trusted:
            return refused(self.kind, measurement, level, [check.id for check in self.failures])
        guest = _guest(self.kind, measurement, level)
        one = self.devices == 1
        devices = "this device" if one else f"these {counted(self.devices, 'device')}"
        verdict = "it is trusted" if one else "all are trusted"
        if self.strength is Strength.KEY_AND_EVIDENCE:
            key = f"holds key {self.key}, " if self.key is not None else ""
            return f"{guest} {key}asked {devices} with your challenge, and {verdict}."
        if self.strength is Strength.NONCE_ONLY:
            tie = f"names the nonce that {devices} answered, and {verdict}. It covers no evidence"
            return f"{guest} {tie}: devices of another machine could have answered."
        return f"{guest} has the report data that you expect. What ties {devices} to it is yours to know; {verdict}."


def unproven(kind: str) -> str:
    """The sentence for a guest whose quote was not verified."""
    return f"Nothing is proven about the guest: its quote ({_maker(kind)}) was not verified."


def refused(kind: str, measurement: str, level: str, failures: Sequence[str]) -> str:
    """The sentence for a guest whose quote was verified, and that is not trusted because of these checks."""
    return f"{_guest(kind, measurement, level)} is not trusted together with its devices: {', '.join(failures)}."


def _guest(kind: str, measurement: str, level: str) -> str:
    return f"The guest measured {measurement[:16]}… ({_maker(kind)}, {level})"


def _maker(kind: str) -> str:
    return MAKERS.get(kind, "an unknown CPU")
