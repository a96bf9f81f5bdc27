"""What only all devices together allow: who is there, who twice, one nonce, one mode, and who is linked to whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nvattest.appraisal.check import Outcome
from nvattest.appraisal.inputs import Collateral
from nvattest.appraisal.policy import EvidencePolicy, TopologyRule
from nvattest.appraisal.results import Appraisal
from nvattest.model import DeviceKind


def failing(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if not check.acceptable} - {"devices-trusted"}


def outcome(appraisal: Appraisal, name: str) -> Outcome:
    return next(check.outcome for check in appraisal.checks if check.id == name)


def test_an_honest_ppcie_node_closes(node) -> None:
    appraisal = node("hopper-8-ppcie").appraise()
    assert [check.outcome for check in appraisal.checks] == [Outcome.PASS] * 6
    assert [device.label for device in appraisal.devices] == [f"GPU-{n}" for n in range(8)] + [
        f"SWITCH-{n}" for n in range(4)
    ]


def test_one_untrusted_device_spoils_the_platform_and_gives_its_code(node) -> None:
    appraisal = node("hopper-8-ppcie", "gpu3:signature").appraise()
    assert not appraisal.trusted
    assert [device.trusted for device in appraisal.devices].count(False) == 1
    assert int(appraisal.result_code) == 508
    assert outcome(appraisal, "devices-trusted") is Outcome.FAIL


def test_the_code_is_that_of_the_first_device_that_failed(node) -> None:
    assert int(node("hopper-8-ppcie", "gpu2:fwid", "gpu5:signature").appraise().result_code) == 507
    assert int(node("hopper-8-ppcie", "switch1:signature").appraise().result_code) == 606


def test_a_device_in_the_place_of_another_is_seen_by_its_certified_identity(node) -> None:
    appraisal = node("hopper-8-ppcie", "gpu1:duplicate=gpu0").appraise()
    assert {"devices-distinct", "topology"} <= failing(appraisal)


def test_two_leaf_certificates_of_one_chip_are_one_device(node) -> None:
    # Another seed: other keys and serial numbers, and the same PDI in the certificate of the chip.
    world = node("hopper-8-ppcie")
    pdi = world.appraise().devices[0].identity.pdi
    forged = node("hopper-8-ppcie", f"gpu1:pdi={pdi}")
    appraisal = forged.appraise()
    assert len({device.identity.ueid for device in appraisal.devices}) == 12
    assert "devices-distinct" in failing(appraisal)


def test_no_evidence_proves_nothing(node) -> None:
    appraisal = node().appraise(evidence=())
    assert appraisal.devices == ()
    assert not appraisal.trusted
    assert {"devices-present", "devices-distinct", "one-nonce"} <= failing(appraisal)


def test_two_nonces_are_refused_even_where_none_is_compared(node) -> None:
    first, second = node("hopper-1"), node("hopper-1", "gpu0:other-nonce")
    appraisal = first.appraise(
        EvidencePolicy(accept_unverified_nonce=True), nonce=None, evidence=(*first.evidence, *second.evidence)
    )
    assert "one-nonce" in failing(appraisal)


def test_gpus_in_different_modes_are_refused(node) -> None:
    assert failing(node("hopper-8-ppcie", "platform:one-gpu-other-mode").appraise()) == {"one-mode"}
    mixed = node("blackwell-8-mpt", "gpu2:feature=spt").appraise()
    assert failing(mixed) == {"one-mode"}


@pytest.mark.parametrize("lie", ["gpu2:topology=foreign", "gpu2:topology=missing", "gpu2:topology=extra",
                                 "switch1:topology=foreign", "switch1:topology=missing", "switch1:topology=extra",
                                 "gpu0:pdi=00112233445566ff", "switch0:pdi=00112233445566ff"])  # fmt: skip
def test_a_wrong_neighbour_is_refused(node, lie: str) -> None:
    appraisal = node("hopper-8-ppcie", lie).appraise()
    assert outcome(appraisal, "topology") is Outcome.FAIL
    assert int(appraisal.result_code) == 12


@pytest.mark.parametrize("dropped", range(12))
def test_leaving_out_any_device_opens_the_topology(node, dropped: int) -> None:
    world = node("hopper-8-ppcie")
    rest = world.evidence[:dropped] + world.evidence[dropped + 1 :]
    assert failing(world.appraise(evidence=rest)) == {"topology"}


def test_one_kind_alone_is_not_judged_by_default_and_refused_where_required(node) -> None:
    world = node("hopper-8-ppcie")
    for kind in DeviceKind:
        some = tuple(item for item in world.evidence if item.kind is kind)
        default = world.appraise(evidence=some)
        assert outcome(default, "topology") is Outcome.SKIPPED
        assert default.trusted
        required = world.appraise(EvidencePolicy(topology=TopologyRule.REQUIRED), evidence=some)
        assert failing(required) == {"topology"}


def test_the_order_of_the_devices_does_not_matter(node) -> None:
    world = node("hopper-8-ppcie")
    assert world.appraise(evidence=tuple(reversed(world.evidence))).trusted


def test_broken_evidence_of_one_device_never_raises_and_never_helps(node) -> None:
    world = node("hopper-8-ppcie")
    for change in ({"report": b"\x00"}, {"certificate_chain": b"x"}, {"report": b""}, {"certificate_chain": b""}):
        devices = (replace(world.evidence[0], **change), *world.evidence[1:])
        appraisal = world.appraise(evidence=devices)
        assert not appraisal.trusted
        assert not appraisal.devices[0].trusted
        assert int(appraisal.result_code) != 0


def test_an_appraisal_without_collateral_still_has_every_required_check(node) -> None:
    from nvattest.appraisal.catalogue import REQUIRED, REQUIRED_PLATFORM

    for change in ({}, {"report": b"junk"}, {"certificate_chain": b"junk"}, {"report": b"", "certificate_chain": b""}):
        appraisal = node("hopper-8-ppcie").appraise(
            collateral=Collateral(), evidence=tuple(replace(item, **change) for item in node("hopper-8-ppcie").evidence)
        )
        assert {check.id for check in appraisal.checks} == set(REQUIRED_PLATFORM)
        for device in appraisal.devices:
            names = [check.id for check in device.checks]
            assert sorted(names) == sorted(REQUIRED[device.kind])
