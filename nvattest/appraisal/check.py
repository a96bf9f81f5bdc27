"""A check is a value: what was asked, how it came out, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import NamedTuple, Protocol

from nvattest._text import clean
from nvattest.appraisal.catalogue import CHECKS, CheckSpec
from nvattest.errors import ResultCode
from nvattest.model import DeviceKind


class Outcome(Enum):
    """How a check came out. Only PASS speaks for trust; ABSENT and SKIPPED count only where the policy names them."""

    # Members are singletons; Enum's own hash would ask Python code for each look-up.
    __hash__ = object.__hash__

    PASS = "pass"  # noqa: S105 - a word of the output, not a secret
    FAIL = "fail"
    ABSENT = "absent"
    SKIPPED = "skipped"


def acceptable(outcome: Outcome, tolerated_by: str) -> bool:
    """Whether a check with this outcome allows trust: it passed, or a named policy option lets it stand; never FAIL."""
    return outcome is Outcome.PASS or (outcome is not Outcome.FAIL and tolerated_by != "")


class Check(NamedTuple):
    """One check of one device or of the platform.

    ``id`` names it in the catalogue. ``detail`` says what was seen in one sentence, ``hint`` what to do next.
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

    @property
    def spec(self) -> CheckSpec:
        """The catalogue's entry: step number, title, place in NVIDIA's order."""
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


class CheckList:
    """Collects the checks of one story; used by the appraisal functions only."""

    __slots__ = ("_kind", "checks")

    def __init__(self, kind: DeviceKind) -> None:
        self._kind = kind
        self.checks: list[Check] = []

    def ok(self, id: str, detail: str, *, expected: str = "", found: str = "") -> None:  # noqa: A002
        """Record a check that passed."""
        self.checks.append(
            Check(
                id=id, outcome=Outcome.PASS, detail=clean(detail), expected=clean(expected), found=clean(found)
            )
        )  # fmt: skip

    def add(
        self,
        id: str,  # noqa: A002
        outcome: Outcome,
        detail: str,
        *,
        expected: str = "",
        found: str = "",
        hint: str = "",
        tolerated_by: str = "",
        code: ResultCode | None = None,
    ) -> None:
        """Record a check with any outcome. Without ``code`` the catalogue's code for this kind of device is used."""
        if code is None:
            code = CHECKS[id].code(self._kind)
        self.checks.append(
            Check(
                id=id,
                outcome=outcome,
                detail=clean(detail),
                expected=clean(expected),
                found=clean(found),
                hint=clean(hint),
                tolerated_by=tolerated_by,
                code=code if outcome is not Outcome.PASS else ResultCode.OK,
            )
        )

    def fail(
        self,
        id: str,  # noqa: A002
        detail: str,
        *,
        expected: str = "",
        found: str = "",
        hint: str = "",
        code: ResultCode | None = None,
    ) -> None:
        """Record a check that failed."""
        self.add(id, Outcome.FAIL, detail, expected=expected, found=found, hint=hint, code=code)

    def skip(self, ids: tuple[str, ...], why: str) -> None:
        """Record checks that could not be made because an earlier one left nothing to look at."""
        for id in ids:  # noqa: A001
            self.add(id, Outcome.SKIPPED, f"not checked: {why}")


def unacceptable(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks that stand in the way of trust, in their order."""
    # The outcome first: nearly all checks pass, and only the others have to be asked.
    return tuple([check for check in checks if check.outcome is not Outcome.PASS and not check.acceptable])


class Judged(Protocol):
    """A check as the verdict sees it: one just made, or one read from a saved appraisal."""

    @property
    def id(self) -> str:
        """Its name in the catalogue."""

    @property
    def acceptable(self) -> bool:
        """Whether it allows trust."""


def decide(checks: Collection[Judged], required: Collection[str], *, devices: Collection[bool] | None = None) -> bool:
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
