"""The whole verifier against the whole simulation: honest platforms are trusted, every lie is seen by the check it names."""

from __future__ import annotations

import json

import pytest

import nvattest
from nvattest.model import Nonce
from nvattest.testing import DEFAULT_NONCE, Platform, parse_fault

from .spellings import EXAMPLES, platform_for

BAD = (nvattest.Outcome.FAIL, nvattest.Outcome.ABSENT)
# Seen only live (a nonce of ours, what a driver says beside the report), or where the caller expects a count.
ELSEWHERE = {"leaf-chip", "ocsp-nonce", "hint-driver", "hint-firmware", "missing"}
SEEN = [
    text
    for (name, _), text in EXAMPLES.items()
    if parse_fault(text).check and (name not in ELSEWHERE or text == "driver-rim:missing")
]


def appraise(name: str, lies: tuple[str, ...] = (), driver: str | None = None) -> nvattest.Appraisal:
    node = Platform.build(name, lies=lies, driver_version=driver)
    return nvattest.verify(
        nvattest.load_evidence(json.dumps(node.evidence(DEFAULT_NONCE))),
        collateral=nvattest.load_bundle(json.dumps(node.bundle())),
        nonce=Nonce(DEFAULT_NONCE),
        at=node.time,
        anchors=node.trust_anchors(),
    )


def failed(appraisal: nvattest.Appraisal) -> set[str]:
    """The checks that did not pass; that a switch's report names no firmware id is no failure."""
    found = {check.id for check in appraisal.checks if check.outcome in BAD}
    for device in appraisal.devices:
        optional = {"fwid"} if device.kind is nvattest.DeviceKind.NVSWITCH else set()
        found |= {check.id for check in device.checks if check.outcome in BAD} - optional
    return found


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("hopper-1", None),
        ("hopper-1", "580.00.01"),
        ("hopper-1", "620.00.01"),
        ("hopper-8-ppcie", None),
        ("hopper-8-ppcie", "620.00.01"),
        ("hopper-2-spt", None),
        ("blackwell-1", None),
        ("blackwell-1", "590.00.01"),
        ("blackwell-8-mpt", None),
    ],
)
def test_an_honest_platform_is_trusted(name: str, driver: str | None) -> None:
    appraisal = appraise(name, driver=driver)
    assert failed(appraisal) == set()
    assert appraisal.trusted


@pytest.mark.parametrize("spelling", SEEN)
def test_a_lie_is_refused_by_the_check_that_has_to_see_it(spelling: str) -> None:
    appraisal = appraise(platform_for(spelling), (spelling,))
    assert parse_fault(spelling).check in failed(appraisal)
    assert not appraisal.trusted


@pytest.mark.parametrize("trick", ["dtd", "entity", "comment", "instruction", "key-value", "second-signature",
                                   "reference", "transform", "digest", "truncated"])  # fmt: skip
def test_every_break_of_the_rim_profile_is_refused_as_a_format(trick: str) -> None:
    assert "driver-rim-format" in failed(appraise("hopper-1", (f"driver-rim:xml={trick}",)))


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("lie", ["chain-signature", "critical", "algorithm", "expired"])
def test_a_lie_is_seen_at_every_position_of_the_device_chain(lie: str, position: int) -> None:
    found = failed(appraise("hopper-1", (f"gpu0:{lie}={position}",)))
    assert {"chain-path", "chain-validity"} & found


def test_a_leaf_of_another_chip_than_its_brom_establishes_no_architecture() -> None:
    appraisal = appraise("hopper-1", ("gpu0:leaf-chip=GB100",))
    outcomes = {check.id: check.outcome for check in appraisal.devices[0].checks}
    assert outcomes["architecture"] is not nvattest.Outcome.PASS
    assert not appraisal.trusted


def test_an_engine_that_claims_to_be_on_has_to_match() -> None:
    assert failed(appraise("hopper-1", ("gpu0:nvdec0=on",))) >= {"measurements"}


def test_simulated_evidence_is_refused_by_the_default_anchors() -> None:
    node = Platform.build("hopper-1")
    appraisal = nvattest.verify(
        nvattest.load_evidence(json.dumps(node.evidence(DEFAULT_NONCE))),
        collateral=nvattest.load_bundle(json.dumps(node.bundle())),
        nonce=Nonce(DEFAULT_NONCE),
        at=node.time,
    )
    assert {"chain-path", "driver-rim-chain", "vbios-rim-chain"} <= failed(appraisal)
    assert not appraisal.trusted


def test_the_anchors_say_that_they_are_simulated() -> None:
    assert Platform.build("hopper-1").trust_anchors().simulated
