"""A check is a value: what was asked, how it came out, what was expected and found. A verdict follows from checks.

The table fixes for each check its step in the story (1 to 25 in ``verifier.py``, 26 to 38 in ``nvattest.tee.guest``),
its title, and the result code and place that NVIDIA's tools give it. ``rank`` is the place
at which NVIDIA's verifier meets a failure (NVAT 1.2.2, local GPU and switch order). Ours goes on and reports all
failures; the rank chooses the one result code that a shell sees.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import ClassVar, Final, NamedTuple, NoReturn, Protocol

from nvattest._text import clean
from nvattest.errors import ResultCode
from nvattest.model import DeviceKind, NoTruthValue, Word, counted


class CheckSpec(NamedTuple):
    """What is fixed about a check."""

    id: str
    step: int
    title: str
    rank: int
    gpu: ResultCode
    switch: ResultCode


def _spec(
    name: str, step: int, title: str, rank: int,
    gpu: ResultCode = ResultCode.OVERALL_RESULT_FALSE, switch: ResultCode | None = None,
) -> CheckSpec:  # fmt: skip
    return CheckSpec(name, step, title, rank, gpu, gpu if switch is None else switch)


_C = ResultCode

_DEVICE = (
    _spec("report-format", 1, "the report reads as SPDM", 30, _C.GPU_EVIDENCE_INVALID, _C.EVIDENCE_MALFORMED),
    _spec("report-trailing-bytes", 1, "nothing follows the report's signature", 31, _C.GPU_EVIDENCE_INVALID,
          _C.EVIDENCE_MALFORMED),
    _spec("chain-format", 2, "the certificate chain can be read", 10, _C.EVIDENCE_MALFORMED),
    _spec("chain-path", 3, "the chain leads to the pinned device root", 60, _C.CERT_CHAIN_VERIFICATION_FAILURE),
    _spec("chain-validity", 4, "all device certificates are in their validity period", 61),
    _spec("report-signature", 5, "the report is signed by the device's leaf key", 20, _C.GPU_INVALID_SIGNATURE,
          _C.SWITCH_INVALID_SIGNATURE),
    _spec("nonce", 6, "the report answers our nonce", 40, _C.GPU_EVIDENCE_NONCE_MISMATCH, _C.SWITCH_NONCE_MISMATCH),
    _spec("architecture", 7, "chain, report and evidence name one architecture", 66,
          _C.GPU_ARCHITECTURE_NOT_SUPPORTED, _C.SWITCH_ARCHITECTURE_NOT_SUPPORTED),
    _spec("fwid", 8, "the firmware id of the report is the certified one", 50, _C.GPU_FWID_MISMATCH,
          _C.SWITCH_FWID_MISMATCH),
    _spec("debug", 9, "the device is not in a debug state", 51),
    _spec("chain-revocation", 10, "no device certificate is revoked", 65),
    _spec("mode", 17, "the device runs in a known and allowed mode", 70, _C.SPDM_FIELD_NOT_FOUND),
    _spec("versions", 18, "the versions are allowed by the policy", 900),
    _spec("hints", 19, "what the driver said beside the report agrees with it", 901),
    _spec("reference-values", 11, "reference values are published for this device", 99, _C.RIM_NOT_FOUND),
    _spec("rim-conflict", 14, "no golden value is claimed by both RIMs", 300, _C.RIM_MEASUREMENT_CONFLICT),
    _spec("measurements", 15, "the measurements match the golden values", 310),
    _spec("minimum-svn", 16, "security version numbers are high enough", 311),
)  # fmt: skip


def _rim_specs(role: str, word: str, base: int, version: ResultCode) -> tuple[CheckSpec, ...]:
    schema, signature, path = _C.RIM_INVALID_SCHEMA, _C.RIM_INVALID_SIGNATURE, _C.CERT_CHAIN_VERIFICATION_FAILURE
    return (
        _spec(f"{role}-rim-available", 11, f"the {word} RIM is there", base, _C.RIM_NOT_FOUND),
        _spec(f"{role}-rim-format", 11, f"the {word} RIM follows the profile", base + 1, schema),
        _spec(f"{role}-rim-signature", 12, f"the {word} RIM is signed by its leaf key", base + 4, signature),
        _spec(f"{role}-rim-chain", 12, f"the {word} RIM's chain leads to the pinned RIM root", base + 3, path),
        _spec(f"{role}-rim-validity", 12, f"the {word} RIM's signers are in their validity period", base + 3),
        _spec(f"{role}-rim-revocation", 12, f"no signer of the {word} RIM is revoked", base + 3),
        _spec(f"{role}-rim-binding", 13, f"the {word} RIM describes this device", base + 2, version),
    )


_RIM_SPECS = {
    "driver": _rim_specs("driver", "driver", 100, _C.GPU_DRIVER_RIM_VERSION_MISMATCH),
    "vbios": _rim_specs("vbios", "VBIOS", 200, _C.GPU_VBIOS_RIM_VERSION_MISMATCH),
    "bios": _rim_specs("bios", "BIOS", 200, _C.SWITCH_VBIOS_RIM_VERSION_MISMATCH),
}

_PLATFORM = (
    _spec("devices-trusted", 20, "every device is trusted", 1000),
    _spec("devices-present", 21, "there is at least one device, and as many as expected", 1001),
    _spec("devices-distinct", 22, "no device appears twice", 1002),
    _spec("one-nonce", 23, "all devices answered one nonce", 1003),
    _spec("one-mode", 24, "all GPUs run in one mode", 1004),
    _spec("topology", 25, "GPUs and switches are protected, and name each other and no others", 1005),
)

_GUEST = (
    _spec("quote-format", 26, "the CPU's quote can be read, and the policy accepts its kind", 1100,
          _C.EVIDENCE_MALFORMED),
    _spec("quote-collateral", 27, "the maker's collateral is there, belongs to the quote and is current", 1101),
    _spec("quote-chain", 28, "the CPU's certificate chain leads to its maker's root", 1102,
          _C.CERT_CHAIN_VERIFICATION_FAILURE),
    _spec("quote-revocation", 29, "no certificate of the CPU is revoked", 1103),
    _spec("quote-signature", 30, "the quote is signed by the CPU's certified key", 1104, _C.EVIDENCE_INVALID_SIGNATURE),
    _spec("quote-tcb", 31, "the CPU's firmware is at a level that the policy accepts", 1105),
    _spec("quote-chip", 32, "chip, generation and firmware are those of the certificate", 1106),
    _spec("guest-state", 33, "the guest is closed to its host", 1107),
    _spec("guest-measurements", 34, "the guest's measurements are among those of the policy", 1108),
    _spec("guest-binding", 35, "the quote's report data is what the recipe demands", 1109, _C.EVIDENCE_NONCE_MISMATCH),
    _spec("guest-key", 36, "the key that speaks for the guest is the expected one", 1110),
    _spec("guest-nonce", 37, "the devices answered the nonce that the recipe demands", 1111, _C.NONCE_MISMATCH),
    _spec("guest-devices", 38, "the devices that the quote covers are trusted", 1112),
)  # fmt: skip

CHECKS: dict[str, CheckSpec] = {
    spec.id: spec
    for spec in (*_DEVICE, *(spec for specs in _RIM_SPECS.values() for spec in specs), *_PLATFORM, *_GUEST)
}


def rim_checks(role: str) -> tuple[str, ...]:
    """The ids of the checks of one RIM, in order; ``role`` is ``driver``, ``vbios`` or ``bios``."""
    return tuple(spec.id for spec in _RIM_SPECS[role])


# What must be there, whatever its outcome, before a verdict can be "trusted". That reference values are published is
# checked only where they are not.
_ALWAYS = tuple(spec.id for spec in _DEVICE if spec.id != "reference-values")
REQUIRED: dict[DeviceKind, tuple[str, ...]] = {
    DeviceKind.GPU: (*_ALWAYS, *rim_checks("driver"), *rim_checks("vbios")),
    DeviceKind.NVSWITCH: (*_ALWAYS, *rim_checks("bios")),
}
REQUIRED_PLATFORM: tuple[str, ...] = tuple(spec.id for spec in _PLATFORM)
REQUIRED_GUEST: tuple[str, ...] = tuple(spec.id for spec in _GUEST)
# What a verified quote is: its collateral belongs to it, and chain, revocation and signature are good.
VERIFIED: Final = ("quote-collateral", "quote-chain", "quote-revocation", "quote-signature")
# The kernel's names of the providers of quotes.
MAKERS: Final = {"tdx_guest": "Intel TDX", "sev_guest": "AMD SEV-SNP"}


class Outcome(Word):
    """How a check came out. Only PASS speaks for trust; ABSENT and SKIPPED count only where the policy names them."""

    PASS = "pass"  # noqa: S105 - a word of the output, not a secret
    FAIL = "fail"
    ABSENT = "absent"
    SKIPPED = "skipped"

    def __bool__(self) -> NoReturn:
        raise TypeError("Outcome is neither true nor false: compare it with Outcome.PASS")


def acceptable(outcome: Outcome, tolerated_by: str) -> bool:
    """Whether a check with this outcome allows trust: it passed, or a named policy option lets it stand; never FAIL."""
    return outcome is Outcome.PASS or (outcome is not Outcome.FAIL and tolerated_by != "")


class Check(NamedTuple):
    """One check of one device or of the platform.

    ``id`` names it in the table. ``detail`` says what was seen in one sentence, ``hint`` what to do next.
    ``tolerated_by`` is the policy option that lets an ABSENT or SKIPPED outcome stand; empty when none does.
    ``code`` is the result code that this check stands for while it did not pass.
    """

    # A tuple, not a dataclass: a device has some thirty of these, and they would cost as much as all parsing.

    id: str
    outcome: Outcome
    detail: str
    expected: str = ""
    found: str = ""
    hint: str = ""
    tolerated_by: str = ""
    code: ResultCode = ResultCode.OK

    def __bool__(self) -> NoReturn:
        raise TypeError("Check is neither true nor false: ask .acceptable or .outcome")

    @property
    def spec(self) -> CheckSpec:
        """The table's entry: step number, title, place in NVIDIA's order."""
        return CHECKS[self.id]

    @property
    def acceptable(self) -> bool:
        """Whether this check allows trust: it passed, or a named policy option lets it stand. FAIL never does."""
        return acceptable(self.outcome, self.tolerated_by)

    @property
    def rank(self) -> int:
        """When NVIDIA's order of checks would meet this one; a claim that makes the overall result false comes last."""
        return _LAST if self.code is ResultCode.OVERALL_RESULT_FALSE else self.spec.rank


_LAST = 10_000


def passed(name: str, detail: str, *, expected: str = "", found: str = "") -> Check:
    return Check(name, Outcome.PASS, clean(detail), expected and clean(expected), found and clean(found))


def not_passed(
    outcome: Outcome,
    name: str,
    detail: str,
    *,
    expected: str = "",
    found: str = "",
    hint: str = "",
    tolerated_by: str = "",
    code: ResultCode | None = None,
) -> Check:
    """A check with another outcome. Its code is ``code``, or what the table has for it on a GPU."""
    code = CHECKS[name].gpu if code is None else code
    return Check(name, outcome, clean(detail), clean(expected), clean(found), clean(hint), tolerated_by, code)


failed = partial(not_passed, Outcome.FAIL)
absent = partial(not_passed, Outcome.ABSENT)
skipped = partial(not_passed, Outcome.SKIPPED)


def not_made(name: str, why: str) -> Check:
    """A check that could not be made because an earlier one left nothing to look at."""
    return skipped(name, f"not checked: {why}")


def of_switch(check: Check) -> Check:
    """The check with the switch's code, where the table has another one for it than a GPU's."""
    return check._replace(code=check.spec.switch) if check.code is check.spec.gpu else check


def unacceptable(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks that prevent trust, in their order."""
    # The outcome first: nearly all checks pass, and only the others have to be asked.
    return tuple([check for check in checks if check.outcome is not Outcome.PASS and not check.acceptable])


class AnyCheck(Protocol):
    """A check as the verdict sees it: one just made, or one read from a saved appraisal."""

    @property
    def id(self) -> str: ...

    @property
    def acceptable(self) -> bool: ...


def decide(checks: Collection[AnyCheck], required: Collection[str], *, devices: Collection[bool] | None = None) -> bool:
    """Whether a device or a platform is trusted: the one rule, for live and for saved appraisals.

    Every required check is there, and every check is acceptable. Of a platform ``devices`` are the verdicts of its
    devices: there is at least one, and each is trusted.
    """
    if not checks or not {check.id for check in checks}.issuperset(required):
        return False
    if devices is not None and not (devices and all(devices)):
        return False
    return all(check.acceptable for check in checks)


def result_code(checks: tuple[Check, ...]) -> ResultCode:
    """The code of the failure that NVIDIA's order of checks meets first, or OK.

    A check that was only skipped gives its code where nothing else failed, so that no failure is ever reported as OK.
    """
    bad = unacceptable(checks)
    if not bad:
        return ResultCode.OK
    failed = [check for check in bad if check.outcome is not Outcome.SKIPPED] or bad
    code = min(failed, key=lambda check: check.rank).code
    return code if code is not ResultCode.OK else ResultCode.OVERALL_RESULT_FALSE


class Judged(NoTruthValue):
    """What the checks of one device or of one guest come to."""

    __slots__ = ()
    _ask: ClassVar[str] = ".trusted"

    checks: tuple[Check, ...]

    @property
    def _required(self) -> Collection[str]:
        raise NotImplementedError

    @property
    def trusted(self) -> bool:
        """Whether it may be believed: every required check is there and acceptable."""
        return decide(self.checks, self._required)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that prevent trust, in the order of the story."""
        return unacceptable(self.checks)

    @property
    def result_code(self) -> ResultCode:
        """OK, or the code of the first failure in NVIDIA's order of checks."""
        code = result_code(self.checks)
        return ResultCode.OVERALL_RESULT_FALSE if code is ResultCode.OK and not self.trusted else code

    def check(self, id: str) -> Check | None:  # noqa: A002
        """The check of this name."""
        return next((check for check in self.checks if check.id == id), None)

    def passed(self, id: str) -> bool:  # noqa: A002
        """Whether the check of this name is there and passed."""
        return any(check.id == id and check.outcome is Outcome.PASS for check in self.checks)


def verdict(trusted: bool, failures: Sequence[object]) -> str:
    """The verdict in words."""
    return "trusted" if trusted else f"not trusted, {counted(len(failures), 'failure')}"


# The verdict on a guest in words, for live and for saved appraisals.


def unproven(kind: str) -> str:
    """The sentence for a guest whose quote was not verified."""
    return f"Nothing is proven about the guest: its quote ({_maker(kind)}) was not verified."


def refused(kind: str, measurement: str, level: str, failures: Sequence[str]) -> str:
    """The sentence for a guest whose quote was verified, and that is not trusted because of these checks."""
    return f"{measured(kind, measurement, level)} is not trusted together with its devices: {', '.join(failures)}."


def measured(kind: str, measurement: str, level: str) -> str:
    """The guest of a verified quote, as the subject of a sentence."""
    return f"The guest measured {measurement[:16]}… ({_maker(kind)}, {level})"


def _maker(kind: str) -> str:
    return MAKERS.get(kind, "an unknown CPU")
