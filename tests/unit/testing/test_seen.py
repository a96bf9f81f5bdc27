"""The whole verifier against the whole simulation: honest platforms are trusted, every lie is seen by the check it names."""

from __future__ import annotations

import pytest

import nvattest
from nvattest.errors import CollectionError
from nvattest.model import Nonce
from nvattest.testing import DEFAULT_NONCE, Platform, Scope, parse_fault

from .spellings import EXAMPLES, appraise, platform_for

BAD = (nvattest.Outcome.FAIL, nvattest.Outcome.ABSENT)
# These have tests of their own: below, and for a live nonce in test_simulate.py.
ELSEWHERE = {"leaf-chip", "ocsp-nonce", "hint-driver", "hint-firmware", "missing", "pcie-mode"}
# Lies whose check depends on what they say, so that their entry names none.
DEPENDS = [
    ("gpu0:field=3,353500", "driver-rim-available"),
    ("gpu0:field=6", "vbios-rim-available"),
    ("gpu0:field=20", "fwid"),
    ("gpu0:field-missing=3", "report-format"),
    ("gpu0:field-missing=11", "report-format"),
    ("gpu0:firmware-version=96.00.00.00.02", "vbios-rim-available"),
    ("gpu0:nvdec0=77", "mode"),
    ("gpu0:feature=7", "one-mode"),
    ("gpu0:feature=mpt", "one-mode"),
    ("gpu0:tamper=0", "report-format"),
    ("gpu0:tamper=10", "report-signature"),
    ("gpu0:tamper=3700", "report-signature"),
    ("switch0:field=6", "report-format"),
    ("switch0:field=22", "topology"),
    ("switch0:firmware-version=96.10.00.00.02", "bios-rim-available"),
    ("switch0:topology", "topology"),
    ("gpu0:missing", "topology"),
    ("switch3:missing", "topology"),
]
# No reason to distrust: a kept answer has no nonce, the issuer may answer itself, an engine may be off, and a driver
# returns the size of its buffer.
HARMLESS = {"ocsp-no-nonce", "ocsp-by-issuer", "nvdec0", "chain-nuls", "renewed"}
SEEN = [
    text
    for (name, _), text in EXAMPLES.items()
    if parse_fault(text).check and (name not in ELSEWHERE or text == "driver-rim:missing")
]


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
    appraisal = appraise(platform_for(spelling), spelling)
    assert parse_fault(spelling).check in failed(appraisal)
    assert not appraisal.trusted


@pytest.mark.parametrize(("spelling", "check"), DEPENDS)
def test_a_lie_that_may_touch_anything_is_refused_where_it_does(spelling: str, check: str) -> None:
    appraisal = appraise("hopper-8-ppcie", spelling)
    assert check in failed(appraisal)
    assert not appraisal.trusted


@pytest.mark.parametrize("lie", ["gpu0:hint-driver=1.2", "gpu0:hint-firmware=1.2", "platform:pcie-mode=1"])
def test_what_a_driver_says_beside_the_report_is_compared(lie: str) -> None:
    node = Platform.build("hopper-8-ppcie" if "pcie" in lie else "hopper-1", lies=(lie,))
    appraisal = node.appraise()
    assert "hints" in failed(appraisal)
    assert not appraisal.trusted


@pytest.mark.parametrize(("lie", "code"), [("platform:cc-off", "cc-off"), ("platform:debug", "devtools-on")])
def test_a_machine_in_the_wrong_mode_gives_no_evidence(lie: str, code: str) -> None:
    with pytest.raises(CollectionError) as caught:
        Platform.build("hopper-1", lies=(lie,)).collect(DEFAULT_NONCE)
    assert (caught.value.code, caught.value.result_code) == (code, 509)


def test_no_lie_is_without_a_test_that_it_is_refused() -> None:
    told = {(name, scope) for (name, scope), text in EXAMPLES.items() if text in SEEN}
    told |= {(text.partition(":")[2].partition("=")[0], Scope.DEVICE) for text, _ in DEPENDS}
    rest = {name for name, scope in EXAMPLES if (name, scope) not in told}
    assert rest == ELSEWHERE - {"missing"} | HARMLESS - {"nvdec0"} | {"cc-off", "debug"}


@pytest.mark.parametrize("trick", ["dtd", "entity", "comment", "instruction", "key-value", "second-signature",
                                   "reference", "transform", "digest", "truncated"])  # fmt: skip
def test_every_break_of_the_rim_profile_is_refused_as_a_format(trick: str) -> None:
    assert "driver-rim-format" in failed(appraise("hopper-1", f"driver-rim:xml={trick}"))


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("lie", ["chain-signature", "critical", "algorithm", "expired"])
def test_a_lie_is_seen_at_every_position_of_the_device_chain(lie: str, position: int) -> None:
    found = failed(appraise("hopper-1", f"gpu0:{lie}={position}"))
    assert {"chain-path", "chain-validity"} & found


def test_a_leaf_of_another_chip_than_its_brom_establishes_no_architecture() -> None:
    appraisal = appraise("hopper-1", "gpu0:leaf-chip=GB100")
    outcomes = {check.id: check.outcome for check in appraisal.devices[0].checks}
    assert outcomes["architecture"] is not nvattest.Outcome.PASS
    assert not appraisal.trusted


def test_an_engine_that_claims_to_be_on_has_to_match() -> None:
    assert failed(appraise("hopper-1", "gpu0:nvdec0=on")) >= {"measurements"}


def test_simulated_evidence_is_refused_by_the_default_anchors() -> None:
    node = Platform.build("hopper-1")
    appraisal = nvattest.verify(
        node.evidence(DEFAULT_NONCE),
        collateral=node.collateral(),
        nonce=Nonce(DEFAULT_NONCE),
        at=node.time,
    )
    assert {"chain-path", "driver-rim-chain", "vbios-rim-chain"} <= failed(appraisal)
    assert not appraisal.trusted


def test_the_anchors_say_that_they_are_simulated() -> None:
    assert Platform.build("hopper-1").trust_anchors().simulated
