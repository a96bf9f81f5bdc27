"""What both makers' steps share: the checks of a quote that a verification gives, and how the rest is skipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from nvattest.appraisal.check import Check, failed, not_made, passed
from nvattest.appraisal.guest import GuestFacts

# Steps 27 to 34 of the story, in order.
STEPS: Final = (
    "quote-collateral",
    "quote-chain",
    "quote-revocation",
    "quote-signature",
    "quote-tcb",
    "quote-chip",
    "guest-state",
    "guest-measurements",
)


class Endorsed(NamedTuple):
    """The checks of steps 27 to 34, and what the quote says; ``facts`` is None while its signature is not verified."""

    checks: tuple[Check, ...]
    facts: GuestFacts | None


def story(checks: Iterable[Check], facts: GuestFacts | None, why: str) -> Endorsed:
    """The checks in the order of the story; those that were not made are skipped because of ``why``."""
    made = {check.id: check for check in checks}
    return Endorsed(tuple(made[name] if name in made else not_made(name, why) for name in STEPS), facts)


def check_lists(demands: object, values: Sequence[tuple[str, str]], *, weakened: bool) -> Check:
    """Step 34: each value, as hexadecimal digits, is one of those that the policy names; an empty list demands nothing.

    ``values`` are pairs of a policy's field and what the quote says.
    """
    demanded = [(name, value, getattr(demands, name)) for name, value in values if getattr(demands, name)]
    wrong = [(name, value, allowed) for name, value, allowed in demanded if value not in allowed]
    if wrong:
        name, value, allowed = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return failed(
            "guest-measurements", f"{name} is none of the policy's{more}",
            expected=" or ".join(allowed[:4]) + (" or …" if len(allowed) > 4 else ""), found=value,
            hint="this is another guest, or another build of it: compare with what you built",
        )  # fmt: skip
    names = ", ".join(name for name, _, _ in demanded)
    if weakened:
        return passed("guest-measurements", f"weakened: any guest counts{', with ' * bool(names)}{names}")
    return passed("guest-measurements", names)
