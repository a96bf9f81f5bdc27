"""What becomes of an appraisal with a relying party's policy: it adds, and overrides only what may be overridden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nvattest.appraisal.results import Appraisal
from nvattest.errors import ResultCode
from nvattest.policy.relying_party import PolicyDecision, combine

YES = PolicyDecision(matched=True)
NO = PolicyDecision(matched=False, reasons=("because",))
Appraise = Callable[..., Appraisal]


def test_a_good_appraisal_needs_the_policy_too(appraise: Appraise) -> None:
    good = appraise("hopper-1")
    assert combine(good, YES) == (True, ResultCode.OK)
    assert combine(good, NO) == (False, ResultCode.RP_POLICY_MISMATCH)
    assert combine(good, YES, overrides=True) == (True, ResultCode.OK)
    assert combine(good, NO, overrides=True) == (False, ResultCode.RP_POLICY_MISMATCH)


@pytest.mark.parametrize("matched", [1, "true", ["nv_match"], None])
def test_nothing_but_true_is_a_match(matched: Any, appraise: Appraise) -> None:
    assert combine(appraise("hopper-1"), PolicyDecision(matched=matched)) == (False, ResultCode.RP_POLICY_MISMATCH)


@pytest.mark.parametrize("lie", ["gpu0:measurement=7", "driver-rim:revoked=1", "driver-rim:expired=0", "gpu0:debug"])
def test_a_bad_appraisal_stays_bad_unless_the_policy_may_override(lie: str, appraise: Appraise) -> None:
    bad = appraise("hopper-1", lie)
    assert bad.result_code is ResultCode.OVERALL_RESULT_FALSE
    assert combine(bad, YES) == (False, ResultCode.OVERALL_RESULT_FALSE)
    assert combine(bad, NO) == (False, ResultCode.OVERALL_RESULT_FALSE)
    assert combine(bad, YES, overrides=True) == (True, ResultCode.OK)
    assert combine(bad, NO, overrides=True) == (False, ResultCode.RP_POLICY_MISMATCH)


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ("gpu0:signature", ResultCode.GPU_INVALID_SIGNATURE),
        ("gpu0:other-nonce", ResultCode.GPU_EVIDENCE_NONCE_MISMATCH),
        ("gpu0:fwid", ResultCode.GPU_FWID_MISMATCH),
        ("gpu0:chain-signature=1", ResultCode.CERT_CHAIN_VERIFICATION_FAILURE),
        ("gpu0:truncate=100", ResultCode.GPU_EVIDENCE_INVALID),
        ("driver-rim:signature", ResultCode.RIM_INVALID_SIGNATURE),
        ("driver-rim:missing", ResultCode.RIM_NOT_FOUND),
        ("driver-rim:wrong-version", ResultCode.GPU_DRIVER_RIM_VERSION_MISMATCH),
    ],
)
def test_no_policy_overrides_a_hard_error(lie: str, code: ResultCode, appraise: Appraise) -> None:
    bad = appraise("hopper-1", lie)
    trusted, found = combine(bad, YES, overrides=True)
    assert not trusted
    assert found is code
    assert combine(bad, YES) == (False, bad.result_code)


def test_a_hard_error_of_a_later_device_is_not_hidden_by_a_soft_one_of_the_first(appraise: Appraise) -> None:
    bad = appraise("hopper-8-ppcie", "gpu0:measurement=7", "gpu5:signature")
    assert bad.result_code is ResultCode.OVERALL_RESULT_FALSE
    assert combine(bad, YES, overrides=True) == (False, ResultCode.GPU_INVALID_SIGNATURE)


def test_no_policy_overrides_a_device_that_is_shown_twice(appraise: Appraise) -> None:
    bad = appraise("hopper-8-ppcie", "gpu1:duplicate=gpu0")
    assert not combine(bad, YES, overrides=True)[0]


def test_no_devices_and_missing_checks_cannot_be_overridden(appraise: Appraise) -> None:
    good = appraise("hopper-1")
    empty = replace(good, devices=())
    fewer = replace(good, devices=(replace(good.devices[0], checks=good.devices[0].checks[1:]),))
    for appraisal in (empty, fewer, replace(good, checks=())):
        for overrides in (False, True):
            trusted, code = combine(appraisal, YES, overrides=overrides)
            assert not trusted
            assert code is not ResultCode.OK
