"""What people meet when they print a result or ask it for its truth."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache

import pytest

import nvattest
from nvattest import Nonce
from nvattest.policy.relying_party import PolicyDecision
from nvattest.tee.quote import BindingCheck, check_binding
from nvattest.testing import DEFAULT_NONCE, Platform
from nvattest.testing.cpu import SimulatedGuest

KEY = nvattest.SigningKey.generate()


def token_of(appraisal: nvattest.Appraisal) -> nvattest.VerifiedToken:
    return nvattest.verify_token(
        nvattest.issue_token(appraisal, KEY),
        issuer="NVATTEST-LOCAL-VERIFIER",
        nonce=Nonce(DEFAULT_NONCE),
        at=datetime.now(timezone.utc),
        key=KEY.public,
        accept_simulated=True,
    )


@cache
def appraisal_of(*lies: str) -> nvattest.Appraisal:
    return Platform.build("hopper-1", lies=lies).appraise()


def binding_of(data: bytes) -> BindingCheck:
    """What the quote over ``data`` gives where zeros are expected."""
    return check_binding(SimulatedGuest("tdx").take_quote(data.ljust(64, b"\0")).quote, bytes(64))


LIE = "gpu0:measurement=9"
RESULTS: list[tuple[Callable[[], object], str]] = [
    (appraisal_of, ".trusted, or call .require()"),
    (lambda: appraisal_of(LIE), ".trusted, or call .require()"),
    (lambda: token_of(appraisal_of()), ".trusted, or call .require()"),
    (lambda: token_of(appraisal_of(LIE)), ".trusted, or call .require()"),
    (lambda: appraisal_of(LIE).devices[0], ".trusted"),
    (lambda: PolicyDecision(matched=False), ".matched"),
    (lambda: binding_of(b"\x01"), ".ok"),
]


@pytest.mark.parametrize(("make", "ask"), RESULTS)
def test_a_result_that_may_be_a_refusal_has_no_truth_value(make: Callable[[], object], ask: str) -> None:
    result = make()
    for question in (bool, lambda value: not value, lambda value: value or 1, lambda value: [1 for _ in "a" if value]):
        with pytest.raises(TypeError) as caught:
            question(result)
        assert str(caught.value) == f"{type(result).__name__} is neither true nor false: ask {ask}"


def test_a_token_that_says_no_is_refused_by_require_and_one_that_says_yes_is_returned() -> None:
    good, bad = token_of(appraisal_of()), token_of(appraisal_of(LIE))
    assert good.trusted
    assert good.require() is good
    assert not bad.trusted
    with pytest.raises(nvattest.NotTrustedError) as caught:
        bad.require()
    assert caught.value.result_code is bad.result_code


def test_values_print_as_one_line_that_fits_a_terminal_twice() -> None:
    platform = Platform.build("hopper-8-ppcie", lies=("gpu3:measurement=9",))
    appraisal, collateral = platform.appraise(), platform.collateral()
    device = appraisal.devices[3]
    evidence = platform.evidence(DEFAULT_NONCE)
    verifier = nvattest.Verifier(policy=nvattest.EvidencePolicy(expected_gpus=8))
    values: list[object] = [
        appraisal, device, collateral, evidence[0], platform, platform.devices[0], device.report, device.checks[0].spec,
        *verifier.read(evidence[:1]), verifier, verifier.policy, nvattest.NVIDIA_ANCHORS, KEY, KEY.public,
        token_of(appraisal), Nonce(DEFAULT_NONCE), platform.time, nvattest.Unavailable(code=nvattest.ResultCode.OK, message=""),
        *collateral.rims.values(), *collateral.ocsp,
    ]  # fmt: skip
    for value in values:
        shown = repr(value)
        assert "\n" not in shown
        assert len(shown) <= 200, shown
    assert repr(appraisal) == "<Appraisal 12 devices at 2026-11-01T00:00:00Z: not trusted, 2 failures, simulated>"
    assert repr(device) == "<DeviceAppraisal GPU-3 HOPPER: not trusted, 1 failure>"
    assert repr(nvattest.EvidencePolicy()) == "EvidencePolicy()"
    assert repr(verifier.policy) == "EvidencePolicy(expected_gpus=8)"


def test_what_foreign_text_says_stays_in_its_line() -> None:
    item = nvattest.Evidence(
        architecture=nvattest.Architecture.HOPPER, nonce=None, report=b"", certificate_chain=b"", origin="a\x1b[2J\nb"
    )
    assert repr(item) == r"<Evidence HOPPER from 'a\x1b[2J\nb': report of 0 bytes, chain of 0>"


def test_no_private_key_and_no_service_key_is_printed() -> None:
    settings = nvattest.HttpSettings(service_key="s3cret-key")
    assert "s3cret" not in repr(settings) + repr(nvattest.GatherOptions(http=settings))
    assert repr(KEY) == "SigningKey()"
