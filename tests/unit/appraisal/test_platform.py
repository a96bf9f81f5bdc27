"""What only all devices together allow: who is there, who twice, one nonce, one mode, and who is linked to whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nvattest.appraisal.check import Outcome
from nvattest.appraisal.inputs import Collateral, EvidencePolicy, TopologyRule
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


@pytest.mark.parametrize("place", [0, 5, 11])
def test_a_report_that_cannot_be_read_leaves_it_open_whether_all_answered_one_nonce(node, place: int) -> None:
    devices = list(node("hopper-8-ppcie").evidence)
    devices[place] = replace(devices[place], report=b"junk")
    assert outcome(node("hopper-8-ppcie").appraise(evidence=devices), "one-nonce") is Outcome.SKIPPED


def test_gpus_in_different_modes_are_refused(node) -> None:
    assert failing(node("hopper-8-ppcie", "platform:one-gpu-other-mode").appraise()) == {"one-mode", "topology"}
    mixed = node("blackwell-8-mpt", "gpu2:feature=spt").appraise()
    assert failing(mixed) == {"one-mode"}


@pytest.mark.parametrize("lie", ["gpu2:topology=foreign", "gpu2:topology=missing", "gpu2:topology=extra",
                                 "switch1:topology=foreign", "switch1:topology=missing", "switch1:topology=extra",
                                 "gpu0:topology=foreign", "gpu7:topology=foreign", "switch0:topology=foreign",
                                 "switch3:topology=foreign", "gpu0:pdi=00112233445566ff", "switch0:pdi=00112233445566ff"])  # fmt: skip
def test_a_wrong_neighbour_is_refused(node, lie: str) -> None:
    appraisal = node("hopper-8-ppcie", lie).appraise()
    assert outcome(appraisal, "topology") is Outcome.FAIL
    assert int(appraisal.result_code) == 12


def test_a_switch_whose_report_cannot_be_read_hides_no_problem_of_the_next_one(node) -> None:
    def detail(*lies: str) -> str:
        world = node("hopper-8-ppcie", *lies)
        devices = [replace(item, report=b"junk") if place == 8 else item for place, item in enumerate(world.evidence)]
        return next(check.detail for check in world.appraise(evidence=devices).checks if check.id == "topology")

    assert detail() == "SWITCH-0: its report could not be read"
    assert detail("switch3:topology=foreign").startswith("SWITCH-0: its report could not be read (and ")


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


REQUIRED = EvidencePolicy(topology=TopologyRule.REQUIRED)
# Lies of a node whose devices name each other as ever, and what is said of the first.
UNPROTECTED = {
    "gpu*:feature=spt": "GPU-0: its report says mode spt",
    "gpu*:feature=mpt": "GPU-0: its report says mode mpt",
    "gpu*:feature=7": "GPU-0: its report says mode unknown (7)",
    "gpu5:feature=spt": "GPU-5: its report says mode spt",
    "gpu*:field=21,55": "GPU-0: its protected PCIe status is 0x55",
    "gpu7:field=21,00": "GPU-7: its protected PCIe status is 0x00",
    "gpu0:field-missing=21": "GPU-0: its protected PCIe status is missing",
    "switch*:field=25,0000": "SWITCH-0: its lock status is 0",
    "switch3:field=25,0000": "SWITCH-3: its lock status is 0",
    "switch1:field=25,0200": "SWITCH-1: its lock status is 2",
    "switch2:field-missing=25": "SWITCH-2: its lock status is missing",
}


@pytest.mark.parametrize("policy", [EvidencePolicy(), REQUIRED], ids=["when-present", "required"])
@pytest.mark.parametrize("lie", UNPROTECTED)
def test_a_node_with_switches_is_refused_unless_every_gpu_is_protected_and_every_switch_locked(
    node, lie: str, policy: EvidencePolicy
) -> None:
    appraisal = node("hopper-8-ppcie", lie).appraise(policy)
    assert failing(appraisal) - {"one-mode"} == {"topology"}
    assert next(check.detail for check in appraisal.checks if check.id == "topology").startswith(UNPROTECTED[lie])


def test_gpus_that_say_their_mode_in_field_21_alone_are_protected_too(node) -> None:
    # Drivers before the mode flag, as on the eight H200 of the real data.
    appraisal = node("hopper-8-ppcie", driver="550.90.07").appraise(REQUIRED)
    assert failing(appraisal) == set()
    unprotected = node("hopper-8-ppcie", "gpu2:field=21,55", driver="550.90.07").appraise()
    assert failing(unprotected) == {"one-mode", "topology"}


def test_unlocked_switches_are_refused_without_their_gpus_too(node) -> None:
    world = node("hopper-8-ppcie", "switch2:field=25,0000")
    some = tuple(item for item in world.evidence if item.kind is DeviceKind.NVSWITCH)
    assert failing(world.appraise(evidence=some)) == {"topology"}


@pytest.mark.parametrize("name", ["hopper-2-spt", "blackwell-8-mpt"])
def test_gpus_in_another_mode_are_refused_where_the_topology_is_required_and_by_themselves_are_not(
    node, name: str
) -> None:
    assert failing(node(name).appraise(REQUIRED)) == {"topology"}
    assert node(name).appraise().trusted


def test_every_problem_of_the_topology_is_counted(node) -> None:
    appraisal = node("hopper-8-ppcie", "switch*:field=25,0000", "gpu0:topology").appraise()
    detail = next(check.detail for check in appraisal.checks if check.id == "topology")
    assert detail.endswith("(and 5 more)")


# What the driver says beside the report, and whether it agrees with a protected GPU or a locked switch.
SAID = {
    ("multi_gpu_mode", "protected-pcie"): True,
    ("multi_gpu_mode", "none"): False,
    ("multi_gpu_mode", "nvlink-encryption"): False,
    ("multi_gpu_mode", "7"): False,
    ("pcie_mode", "3"): True,
    ("pcie_mode", "-1"): True,
    ("pcie_mode", "0"): False,
    ("pcie_mode", "1"): False,
    ("pcie_mode", "2"): False,
    ("pcie_mode", "locked"): False,
}


@pytest.mark.parametrize(("hint", "value"), SAID)
def test_what_the_driver_says_of_protection_agrees_with_the_signed_report(node, hint: str, value: str) -> None:
    world = node("hopper-8-ppcie")
    place = 8 if hint == "pcie_mode" else 0
    evidence = list(world.live())
    assert evidence[place].hints[hint] in ("protected-pcie", "3")
    evidence[place] = replace(evidence[place], hints={**evidence[place].hints, hint: value})
    appraisal = world.appraise(evidence=tuple(evidence))
    assert appraisal.trusted is SAID[hint, value]
    check = appraisal.devices[place].check("hints")
    assert (check.outcome is Outcome.PASS) is SAID[hint, value]
    if not appraisal.trusted:
        assert f"the driver said {hint} {value}" in check.detail


def test_a_driver_that_says_protected_of_a_gpu_that_is_not_is_refused(node) -> None:
    world = node("hopper-1")
    [item] = world.live()
    assert item.hints["multi_gpu_mode"] == "none"
    said = replace(item, hints={**item.hints, "multi_gpu_mode": "protected-pcie"})
    assert not world.appraise(evidence=(said,)).devices[0].passed("hints")
    silent = replace(item, hints={key: value for key, value in item.hints.items() if key != "multi_gpu_mode"})
    assert world.appraise(evidence=(silent,)).trusted


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
    from nvattest.appraisal.check import REQUIRED, REQUIRED_PLATFORM

    for change in ({}, {"report": b"junk"}, {"certificate_chain": b"junk"}, {"report": b"", "certificate_chain": b""}):
        appraisal = node("hopper-8-ppcie").appraise(
            collateral=Collateral(), evidence=tuple(replace(item, **change) for item in node("hopper-8-ppcie").evidence)
        )
        assert {check.id for check in appraisal.checks} == set(REQUIRED_PLATFORM)
        for device in appraisal.devices:
            names = [check.id for check in device.checks]
            assert sorted(names) == sorted(REQUIRED[device.kind])
