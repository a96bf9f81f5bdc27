"""The one place where trust is decided: what is missing, failed, skipped or tolerated, and which code a shell sees."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nvattest.appraisal.check import (
    CHECKS,
    REQUIRED,
    REQUIRED_GUEST,
    REQUIRED_PLATFORM,
    Check,
    Outcome,
    decide,
    failed,
    not_made,
    not_passed,
    of_switch,
    result_code,
)
from nvattest.appraisal.check import passed as check_passed
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.errors import ResultCode
from nvattest.model import Architecture, DeviceKind


def passed(*ids: str) -> tuple[Check, ...]:
    return tuple(Check(id=id_, outcome=Outcome.PASS, detail="") for id_ in ids)


def listed(kind: DeviceKind, *outcomes: tuple[str, Outcome, str]) -> tuple[Check, ...]:
    checks = (not_passed(outcome, id_, "", tolerated_by=by) for id_, outcome, by in outcomes)
    return tuple(map(of_switch, checks) if kind is DeviceKind.NVSWITCH else checks)


ALL = [*REQUIRED.values(), REQUIRED_PLATFORM]


@pytest.mark.parametrize("required", ALL, ids=["gpu", "nvswitch", "platform"])
def test_all_required_checks_passed_is_trusted(required: tuple[str, ...]) -> None:
    assert decide(passed(*required), required) is True


@pytest.mark.parametrize("required", ALL, ids=["gpu", "nvswitch", "platform"])
def test_a_missing_required_check_is_not_trusted(required: tuple[str, ...]) -> None:
    for left_out in required:
        rest = passed(*(name for name in required if name != left_out))
        assert decide(rest, required) is False, left_out


def test_no_check_at_all_is_not_trusted_even_where_none_is_required() -> None:
    assert decide((), ()) is False


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.ABSENT, Outcome.SKIPPED])
def test_any_required_check_that_did_not_pass_is_not_trusted(outcome: Outcome) -> None:
    required = REQUIRED[DeviceKind.GPU]
    for name in required:
        others = passed(*(other for other in required if other != name))
        checks = (*others, *listed(DeviceKind.GPU, (name, outcome, "")))
        assert decide(checks, required) is False, name
        assert result_code(checks) is not ResultCode.OK


def test_an_extra_failed_check_beside_the_required_ones_is_not_trusted() -> None:
    required = ("nonce",)
    checks = (*passed("nonce"), *listed(DeviceKind.GPU, ("fwid", Outcome.FAIL, "")))
    assert decide(checks, required) is False


def test_a_check_that_passed_once_and_failed_once_is_not_trusted() -> None:
    checks = (*passed("nonce"), *listed(DeviceKind.GPU, ("nonce", Outcome.FAIL, "")))
    assert decide(checks, ("nonce",)) is False


def test_a_platform_is_trusted_only_with_devices_that_are_all_trusted() -> None:
    checks = passed(*REQUIRED_PLATFORM)
    assert decide(checks, REQUIRED_PLATFORM, devices=(True, True)) is True
    for devices in ((), (False,), (True, False)):
        assert decide(checks, REQUIRED_PLATFORM, devices=devices) is False, devices


def test_fail_is_never_tolerated_whatever_a_policy_names() -> None:
    check = Check(id="nonce", outcome=Outcome.FAIL, detail="", tolerated_by="accept_unverified_nonce")
    assert check.acceptable is False
    assert decide((check,), ("nonce",)) is False


@pytest.mark.parametrize("outcome", [Outcome.ABSENT, Outcome.SKIPPED])
def test_absent_and_skipped_stand_only_where_a_policy_option_is_named(outcome: Outcome) -> None:
    named = Check(id="nonce", outcome=outcome, detail="", tolerated_by="accept_unverified_nonce")
    assert named.acceptable is True
    assert Check(id="nonce", outcome=outcome, detail="").acceptable is False


def test_a_check_that_was_not_made_has_no_tolerance() -> None:
    assert [not_made(name, "there is nothing").acceptable for name in ("nonce", "fwid")] == [False, False]


def test_a_passed_check_has_code_0_and_a_failed_one_never() -> None:
    for name in CHECKS:
        assert check_passed(name, "").code is of_switch(check_passed(name, "")).code is ResultCode.OK
        assert failed(name, "").code is not ResultCode.OK
        assert of_switch(failed(name, "")).code is CHECKS[name].switch is not ResultCode.OK


# --- the code ----------------------------------------------------------------------------------------------------------


def test_the_code_is_that_of_the_failure_which_nvidias_order_meets_first() -> None:
    # NVAT, local GPU: signature, parse, nonce, firmware id, chain, its model, driver RIM, VBIOS RIM, conflict, then the claims.
    order = [
        ("report-signature", 508), ("report-format", 503), ("nonce", 504), ("fwid", 507), ("chain-path", 802),
        ("architecture", 502), ("driver-rim-available", 104), ("driver-rim-format", 106), ("driver-rim-binding", 505),
        ("driver-rim-chain", 802), ("driver-rim-signature", 105), ("vbios-rim-available", 104),
        ("vbios-rim-binding", 506), ("vbios-rim-signature", 105), ("rim-conflict", 108), ("measurements", 12),
    ]  # fmt: skip
    for start in range(len(order)):
        failures = listed(DeviceKind.GPU, *((name, Outcome.FAIL, "") for name, _ in reversed(order[start:])))
        assert int(result_code(failures)) == order[start][1], order[start][0]


def test_a_claim_that_spoils_the_result_comes_after_every_error() -> None:
    # Validity, revocation and measurements make NVIDIA's overall result false; they never hide an error's own code.
    for soft in ("chain-validity", "chain-revocation", "driver-rim-validity", "measurements", "minimum-svn", "debug"):
        checks = listed(DeviceKind.GPU, (soft, Outcome.FAIL, ""), ("rim-conflict", Outcome.FAIL, ""))
        assert result_code(checks) is ResultCode.RIM_MEASUREMENT_CONFLICT
        assert result_code(checks[:1]) is ResultCode.OVERALL_RESULT_FALSE


def test_switches_have_their_own_codes() -> None:
    codes = {name: int(CHECKS[name].switch) for name in ("nonce", "fwid", "report-signature",
                                                                             "architecture", "bios-rim-binding")}  # fmt: skip
    assert codes == {"nonce": 603, "fwid": 605, "report-signature": 606, "architecture": 602, "bios-rim-binding": 604}


def test_a_skipped_check_gives_its_code_only_where_nothing_failed() -> None:
    skipped = listed(DeviceKind.GPU, ("driver-rim-format", Outcome.SKIPPED, ""))
    assert result_code(skipped) is ResultCode.RIM_INVALID_SCHEMA
    both = (*skipped, *listed(DeviceKind.GPU, ("measurements", Outcome.FAIL, "")))
    assert result_code(both) is ResultCode.OVERALL_RESULT_FALSE


def test_what_is_not_acceptable_is_never_code_0() -> None:
    odd = Check(id="hints", outcome=Outcome.FAIL, detail="", code=ResultCode.OK)
    assert result_code((odd,)) is ResultCode.OVERALL_RESULT_FALSE


def test_tolerated_checks_do_not_decide_the_code() -> None:
    checks = listed(DeviceKind.GPU, ("nonce", Outcome.ABSENT, "accept_unverified_nonce"))
    assert result_code(checks) is ResultCode.OK


# --- the catalogue -----------------------------------------------------------------------------------------------------


def test_every_required_check_is_in_the_catalogue_and_every_step_is_required() -> None:
    for required in ALL:
        assert set(required) <= CHECKS.keys()
        assert len(set(required)) == len(required)
    assert {CHECKS[name].step for name in REQUIRED[DeviceKind.GPU]} == set(range(1, 20))
    assert {CHECKS[name].step for name in REQUIRED[DeviceKind.NVSWITCH]} == set(range(1, 20))
    assert {CHECKS[name].step for name in REQUIRED_PLATFORM} == set(range(20, 26))
    assert [CHECKS[name].step for name in REQUIRED_GUEST] == list(range(26, 39))
    # This one is only there for a device that it refuses.
    assert set(CHECKS) == set().union(*ALL, REQUIRED_GUEST) | {"reference-values"}


@pytest.mark.parametrize(
    ("change", "policy", "found"),
    [
        ({"report": b"no report"}, EvidencePolicy(), {"report-format", "report-trailing-bytes", "report-signature"}),
        ({"certificate_chain": b"no chain"}, EvidencePolicy(), {"report-signature", "architecture", "fwid"}),
        ({"nonce": bytes(32)}, EvidencePolicy(), {"nonce"}),
        ({"trailing": bytes(9)}, EvidencePolicy(), {"report-trailing-bytes"}),
        ({"flip": -1}, EvidencePolicy(), {"report-signature"}),
        ({}, EvidencePolicy(fwid_optional_for=()), {"fwid"}),
        ({}, EvidencePolicy(allowed_architectures=(Architecture.HOPPER,)), {"architecture"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_switch_fails_with_the_codes_of_switches(node, change: dict, policy: EvidencePolicy, found: set[str]) -> None:
    switch = node("hopper-8-ppcie").evidence[-1]
    report = switch.report
    parts = {
        "trailing": lambda extra: {"report": report + extra},
        "flip": lambda position: {"report": report[:position] + bytes([report[position] ^ 1])},
    }
    for name, value in change.items():
        switch = replace(switch, **(parts[name](value) if name in parts else {name: value}))
    [device] = node("hopper-8-ppcie").appraise(policy, evidence=[switch]).devices
    codes = {check.id: check.code for check in device.failures if check.spec.gpu is not check.spec.switch}
    assert found <= codes.keys()
    assert codes == {name: CHECKS[name].switch for name in codes}
