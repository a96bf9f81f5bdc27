"""Each lie of a simulated guest is seen by the check that has to see it, and no guest that lies is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from nvattest.appraisal.check import Outcome
from nvattest.appraisal.guest import DeviceSide, GuestAppraisal
from nvattest.pki.anchors import CPU_ANCHORS, CpuAnchors
from nvattest.policy.cpu_policy import load_cpu_policy
from nvattest.tee.guest import Guest
from nvattest.tee.recipes import Challenge
from nvattest.testing import GUEST_LIES, GUESTS, SimulatedGuest
from nvattest.token.binding import derive_device_nonce, report_data

CHALLENGE, THUMBPRINT, DIGEST = b"challenge of a test" * 2, bytes(range(32)), bytes(range(48))
DEVICES = DeviceSide(
    trusted=True,
    number=1,
    nonce=derive_device_nonce(CHALLENGE, THUMBPRINT).value,
    digest=DIGEST,
    key=THUMBPRINT,
    identities=("1",),
)
KINDS = [*GUESTS, "snp-genoa-vlek", "snp-siena-vlek", "snp-turin-vlek"]
ONE_OF_EACH = ("tdx", "snp-genoa", "snp-turin-vlek")
# An argument for each lie that needs one, and the check where it depends on the argument or on the maker.
ARGUMENTS = {
    "register": "=1", "chain-signature": "=0", "expired": "=1", "not-yet-valid": "=0", "revoked": "=1", "vmpl": "=1",
    "policy": "=010133", "tamper": "=100", "truncate": "=10", "trailing": "=00ff", "evaluation": "=3",
    "tcb-status": "=ConfigurationNeeded",
}  # fmt: skip
CHECKS = {"policy": "guest-state", "tamper": "quote-signature"}
# Only another layout.
VARIANTS = {"version"}


def judge(kind: str, *lies: str, anchors: CpuAnchors | None = None) -> GuestAppraisal:
    guest = SimulatedGuest(kind, lies=lies)
    return Guest(
        quote=guest.quote(report_data(CHALLENGE, THUMBPRINT, DIGEST)),
        policy=load_cpu_policy(guest.cpu_policy(), source="policy"),
        recipe=Challenge(challenge=CHALLENGE),
        collateral=guest.collateral(),
        anchors=anchors or guest.anchors(),
    ).appraise(DEVICES, guest.clock)


def failures(appraisal: GuestAppraisal) -> list[str]:
    return [check.id for check in appraisal.checks if not check.acceptable]


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_guest_is_trusted_under_its_own_root_alone(kind: str) -> None:
    if kind.startswith("tdx"):
        pytest.importorskip("dcap_qvl", reason="dcap-qvl (extra tdx) is not here")
    appraisal = judge(kind)
    assert failures(appraisal) == []
    assert appraisal.trusted
    assert appraisal.simulated
    foreign = judge(kind, anchors=CPU_ANCHORS)
    assert not foreign.trusted
    assert failures(foreign)[0] in ("quote-chain", "quote-collateral")


def cases() -> list[Any]:
    found = []
    for kind in ONE_OF_EACH:
        for spec in GUEST_LIES:
            chipless = spec.name == "wrong-chip" and kind.endswith("vlek")
            if spec.name in VARIANTS or spec.only not in ("", kind.split("-")[0]) or chipless:
                continue
            check = spec.check or CHECKS.get(spec.name, "")
            lie = f"guest:{spec.name}{ARGUMENTS.get(spec.name, '')}"
            found.append(pytest.param(kind, lie, check, id=f"{kind} {spec.name}"))
    return found


@pytest.mark.parametrize(("kind", "lie", "check"), cases())
def test_a_lie_of_a_guest_is_refused_by_the_check_that_has_to_see_it(kind: str, lie: str, check: str) -> None:
    if kind.startswith("tdx"):
        pytest.importorskip("dcap_qvl", reason="dcap-qvl (extra tdx) is not here")
    appraisal = judge(kind, lie)
    assert not appraisal.trusted
    assert check in failures(appraisal) if check else failures(appraisal)
    for failed in appraisal.checks:
        if failed.outcome in (Outcome.FAIL, Outcome.ABSENT):
            assert failed.hint, f"{failed.id} says no next step: {failed.detail}"
            assert bool(failed.expected) == bool(failed.found), f"{failed.id} says only one of expected and found"


@pytest.mark.parametrize(("kind", "version"), [("snp-milan", 3), ("snp-genoa", 5), ("snp-turin", 4)])
def test_every_version_of_a_report_is_read(kind: str, version: int) -> None:
    assert judge(kind, f"guest:version={version}").trusted
