"""Each demand and each weakening of the evidence policy: what it lets stand, what it must not, and that it is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from nvattest.appraisal.check import Outcome
from nvattest.appraisal.inputs import Collateral, EvidencePolicy, TopologyRule
from nvattest.appraisal.measurements import signed_versions, version_problems
from nvattest.appraisal.results import Appraisal
from nvattest.errors import NotTrustedError, PolicyError, ResultCode
from nvattest.model import Architecture


def unacceptable(appraisal: Appraisal) -> set[str]:
    return {check.id for label, check in appraisal.failures if label != "PLATFORM"}


def tolerated(appraisal: Appraisal) -> set[tuple[str, str]]:
    return {(check.id, check.tolerated_by) for check in appraisal.devices[0].checks if check.tolerated_by}


@pytest.mark.parametrize("name", ["hopper-1", "hopper-8-ppcie", "blackwell-1", "blackwell-8-mpt"])
def test_an_honest_node_is_trusted_under_the_default_policy(node, name: str) -> None:
    appraisal = node(name).appraise()
    assert appraisal.trusted
    assert appraisal.result_code is ResultCode.OK
    assert appraisal.weakened == ()
    assert appraisal.simulated
    assert appraisal.require() is appraisal


def test_the_default_policy_has_no_weakening() -> None:
    assert EvidencePolicy().weakenings == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("accept_unchecked_revocation", "no"),
        ("accept_unverified_nonce", 1),
        ("allow_debug", None),
        ("revocation", "fresh"),
        ("topology", "required"),
        ("expected_gpus", True),
        ("expected_switches", -1),
        ("max_trailing_bytes", 4.0),
        ("minimum_driver_version", 550),
        ("allowed_modes", "spt"),
        ("denied_driver_versions", ["550.90.07"]),
        ("allowed_architectures", ("HOPPER",)),
        ("fwid_optional_for", None),
    ],
)
def test_a_value_of_another_type_is_refused_and_cannot_weaken_unseen(field: str, value: object) -> None:
    with pytest.raises(PolicyError, match=field) as caught:
        EvidencePolicy(**{field: value})
    assert caught.value.code == "policy-value"


# weakening: (lies, how the appraisal is made, the checks that it lets stand)
WEAKENINGS: dict[str, tuple[tuple[str, ...], dict, set[str]]] = {
    "accept_unverified_nonce": ((), {"nonce": None}, {"nonce"}),
    "accept_unchecked_revocation": (
        (),
        {"no answers": True},
        {"chain-revocation", "driver-rim-revocation", "vbios-rim-revocation"},
    ),
    "accept_stale_ocsp": (("gpu0:stale=1",), {}, {"chain-revocation"}),
    "accept_expired_rim_certificates": (("driver-rim:expired=0",), {}, {"driver-rim-validity"}),
    "allow_certificate_hold_for_rims": (("driver-rim:hold=0",), {}, {"driver-rim-revocation"}),
    "allow_certificate_hold_for_devices": (("gpu0:hold=1",), {}, {"chain-revocation"}),
    "allow_debug": (("gpu0:debug",), {"name": "blackwell-1"}, {"debug"}),
}


def run(node, policy: EvidencePolicy, lies: tuple[str, ...], how: dict) -> Appraisal:
    world = node(how.get("name", "hopper-1"), *lies)
    more = {"nonce": None} if "nonce" in how else {}
    if "no answers" in how:
        more["collateral"] = replace(world.collateral, ocsp=())
    return world.appraise(policy, **more)


@pytest.mark.parametrize("option", WEAKENINGS)
def test_a_weakening_lets_exactly_its_own_checks_stand_and_is_told(node, option: str) -> None:
    lies, how, checks = WEAKENINGS[option]
    strict = run(node, EvidencePolicy(), lies, how)
    assert not strict.trusted
    assert unacceptable(strict) == checks
    assert strict.result_code is not ResultCode.OK
    weak = run(node, EvidencePolicy(**{option: True}), lies, how)
    assert weak.trusted
    assert weak.weakened == (option,)
    assert tolerated(weak) == {(check, option) for check in checks}
    assert all(check.outcome is not Outcome.PASS for check in weak.devices[0].checks if check.tolerated_by)


@pytest.mark.parametrize("option", WEAKENINGS)
def test_all_other_weakenings_together_do_not_help(node, option: str) -> None:
    lies, how, checks = WEAKENINGS[option]
    others = {name: True for name in (*WEAKENINGS, "accept_live_ocsp_without_nonce") if name != option}
    appraisal = run(node, EvidencePolicy(**others), lies, how)
    assert not appraisal.trusted
    assert unacceptable(appraisal) == checks


EVERYTHING = EvidencePolicy(
    **dict.fromkeys((*WEAKENINGS, "accept_live_ocsp_without_nonce"), True),  # type: ignore[arg-type]
    fwid_optional_for=tuple(Architecture),
)


@pytest.mark.parametrize(
    "lie",
    [
        "gpu0:measurement=9", "gpu0:measurement-missing=9", "gpu0:fwid", "gpu0:signature", "gpu0:wrong-key",
        "gpu0:other-nonce", "gpu0:chain-signature=1", "gpu0:not-a-ca=2", "gpu0:expired=2", "gpu0:not-yet-valid=1",
        "gpu0:revoked=1", "gpu0:unknown=2", "gpu0:wrong-responder=1", "gpu0:ocsp-signature=3", "gpu0:future=1",
        "gpu0:chip=GB100", "gpu0:other-root", "driver-rim:tampered=21", "driver-rim:wrong-version",
        "vbios-rim:wrong-product", "driver-rim:revoked=0", "driver-rim:not-yet-valid=0", "vbios-rim:conflict=21",
        "driver-rim:missing", "rim*:other-root", "driver-rim:xml=dtd",
    ],
)  # fmt: skip
def test_a_lie_is_refused_even_with_every_weakening_on(node, lie: str) -> None:
    appraisal = node("hopper-1", lie).appraise(EVERYTHING)
    assert not appraisal.trusted
    assert appraisal.result_code is not ResultCode.OK
    with pytest.raises(NotTrustedError) as caught:
        appraisal.require()
    assert caught.value.result_code is appraisal.result_code
    assert "GPU-0" in str(caught.value)


def test_a_wrong_nonce_is_no_missing_nonce(node) -> None:
    appraisal = node().appraise(EvidencePolicy(accept_unverified_nonce=True), nonce=bytes(32))
    assert unacceptable(appraisal) == {"nonce"}
    assert appraisal.result_code is ResultCode.GPU_EVIDENCE_NONCE_MISMATCH


def test_one_tolerated_answer_does_not_carry_another_that_is_not(node) -> None:
    policy = EvidencePolicy(allow_certificate_hold_for_devices=True)
    appraisal = node("hopper-1", "gpu0:hold=1", "gpu0:unknown=2").appraise(policy)
    assert unacceptable(appraisal) == {"chain-revocation"}
    worse = node("hopper-1", "gpu0:hold=1", "gpu0:revoked=2").appraise(policy)
    check = worse.devices[0].check("chain-revocation")
    assert check is not None
    assert (check.outcome, check.tolerated_by) == (Outcome.FAIL, "")
    assert "keyCompromise" in check.detail


def test_a_hold_for_rims_is_no_hold_for_devices(node) -> None:
    device, rim = node("hopper-1", "gpu0:hold=1"), node("hopper-1", "driver-rim:hold=0")
    assert not device.appraise(EvidencePolicy(allow_certificate_hold_for_rims=True)).trusted
    assert not rim.appraise(EvidencePolicy(allow_certificate_hold_for_devices=True)).trusted


def test_expired_rim_signers_are_tolerated_only_if_nothing_is_not_yet_valid(node) -> None:
    policy = EvidencePolicy(accept_expired_rim_certificates=True)
    appraisal = node("hopper-1", "driver-rim:expired=0", "driver-rim:not-yet-valid=1").appraise(policy)
    assert not appraisal.trusted
    assert "driver-rim-validity" in unacceptable(appraisal)


def test_a_report_without_a_firmware_id_counts_where_the_certificate_names_it_and_says_so(node) -> None:
    appraisal = node("hopper-1", "gpu0:field-missing=20").appraise()
    assert appraisal.trusted
    fwid = appraisal.devices[0].check("fwid")
    assert (fwid.outcome, fwid.tolerated_by, fwid.found) == (Outcome.PASS, "", "")
    assert "named by the certificate alone" in fwid.detail
    assert fwid.detail.startswith(fwid.expected[:16])


@pytest.mark.parametrize("reported", ["gpu0:field-missing=20", "gpu0:fwid"])
@pytest.mark.parametrize("lie", ["gpu0:fwid-extension", "gpu0:fwid-extension=0500"])
def test_without_a_certified_firmware_id_nothing_counts(node, reported: str, lie: str) -> None:
    # A DICE extension that cannot be read may have stated a debug flag as well.
    unread = {"debug"} if "=" in lie else set()
    assert unacceptable(node("hopper-1", reported, lie).appraise()) == {"fwid"} | unread


@pytest.mark.parametrize("policy", [{"require_fwid_in_report": True}, {"fwid_optional_for": (Architecture.LS10,)}])
def test_a_policy_can_demand_the_firmware_id_in_the_report(node, policy: dict[str, object]) -> None:
    demanding = EvidencePolicy(**policy)
    assert node("hopper-1").appraise(demanding).trusted
    assert node("hopper-8-ppcie").appraise(demanding).trusted
    refused = node("hopper-1", "gpu0:field-missing=20").appraise(demanding)
    assert unacceptable(refused) == {"fwid"}
    assert refused.devices[0].check("fwid").outcome is Outcome.ABSENT
    assert demanding.weakenings == ()


def test_a_wrong_firmware_id_counts_for_nobody(node) -> None:
    refused = node("hopper-1", "gpu0:fwid").appraise(EvidencePolicy(fwid_optional_for=tuple(Architecture)))
    assert refused.result_code is ResultCode.GPU_FWID_MISMATCH


# --- demands -----------------------------------------------------------------------------------------------------------


def test_trailing_bytes_are_tolerated_up_to_the_limit(node) -> None:
    world = node("hopper-1", "gpu0:trailing=00112233")
    assert world.appraise().trusted
    assert unacceptable(world.appraise(EvidencePolicy(max_trailing_bytes=3))) == {"report-trailing-bytes"}
    assert world.appraise(EvidencePolicy(max_trailing_bytes=4)).trusted


def test_only_allowed_architectures_are_trusted(node) -> None:
    assert node().appraise(EvidencePolicy(allowed_architectures=(Architecture.HOPPER,))).trusted
    refused = node().appraise(EvidencePolicy(allowed_architectures=(Architecture.BLACKWELL,)))
    assert "architecture" in unacceptable(refused)


def test_only_allowed_modes_are_trusted(node) -> None:
    world = node("blackwell-8-mpt")
    assert world.appraise(EvidencePolicy(allowed_modes=("mpt",))).trusted
    refused = world.appraise(EvidencePolicy(allowed_modes=("spt", "ppcie")))
    assert unacceptable(refused) == {"mode"}
    assert refused.result_code is ResultCode.OVERALL_RESULT_FALSE


def test_a_report_older_than_the_mode_flag_counts_as_single_passthrough(node) -> None:
    assert node().appraise(EvidencePolicy(allowed_modes=("spt",))).trusted
    assert unacceptable(node().appraise(EvidencePolicy(allowed_modes=("ppcie",)))) == {"mode"}


def test_a_single_gpu_that_states_its_mode_is_in_single_passthrough(node) -> None:
    world = node("hopper-1", driver="590.00.12")
    assert world.appraise(EvidencePolicy(allowed_modes=("spt",))).trusted
    assert unacceptable(world.appraise(EvidencePolicy(allowed_modes=("mpt", "ppcie")))) == {"mode"}


def test_an_unknown_mode_is_shown_and_refused_only_where_modes_are_demanded(node) -> None:
    world = node("blackwell-8-mpt", "gpu*:feature=7")
    appraisal = world.appraise()
    assert appraisal.trusted
    assert appraisal.devices[0].check("mode").found == "unknown (7)"
    refused = world.appraise(EvidencePolicy(allowed_modes=("spt", "mpt", "ppcie")))
    assert unacceptable(refused) == {"mode"}
    assert refused.result_code is ResultCode.OVERALL_RESULT_FALSE


def test_two_different_unknown_modes_are_not_one(node) -> None:
    appraisal = node("blackwell-2", "gpu0:feature=7", "gpu1:feature=8").appraise()
    assert [(label, check.id) for label, check in appraisal.failures] == [("PLATFORM", "one-mode")]
    assert appraisal.failures[0][1].found == "unknown (7), unknown (8)"


def test_an_unknown_nvdec0_status_is_refused_under_any_policy(node) -> None:
    assert "mode" in unacceptable(node("hopper-1", "gpu0:nvdec0=77").appraise(EVERYTHING))


@pytest.mark.parametrize(("gpus", "switches", "trusted"), [(8, 4, True), (8, None, True), (None, 4, True),
                                                          (7, 4, False), (8, 0, False), (9, None, False)])  # fmt: skip
def test_expected_counts_are_exact(node, gpus: int | None, switches: int | None, trusted: bool) -> None:
    policy = EvidencePolicy(expected_gpus=gpus, expected_switches=switches)
    assert node("hopper-8-ppcie").appraise(policy).trusted is trusted


def test_an_expectation_of_no_device_does_not_make_nothing_trusted(node) -> None:
    policy = EvidencePolicy(expected_gpus=0, expected_switches=0)
    appraisal = node().appraise(policy, evidence=())
    assert not appraisal.trusted
    assert appraisal.result_code is ResultCode.OVERALL_RESULT_FALSE
    with pytest.raises(NotTrustedError):
        appraisal.require()


def test_the_words_of_a_refusal_are_its_causes_and_not_what_follows_from_them(node) -> None:
    # The guest's kernel log has one line for them: 17 checks that were not made would push the cause out of it.
    with pytest.raises(NotTrustedError) as caught:
        node("rubin-1").appraise().require()
    assert caught.value.message.count("no reference values are published") == 1
    assert "not checked" not in caught.value.message
    assert caught.value.message.endswith("; 17 more checks could not be made")


def test_a_required_topology_refuses_single_gpus(node) -> None:
    appraisal = node().appraise(EvidencePolicy(topology=TopologyRule.REQUIRED))
    assert [check.id for _, check in appraisal.failures] == ["topology"]


# --- debug states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["debug", "notSecure", "recovery"])
@pytest.mark.parametrize(
    "lie", ["gpu0:debug={}", "gpu0:multi-tcb-info=0,{}", "gpu0:multi-tcb-info=1,{}", "gpu0:multi-tcb-info=3,{}",
             "gpu0:multi-tcb-info=2,{}"]
)  # fmt: skip
def test_each_debug_flag_of_any_certificate_is_refused(node, lie: str, flag: str) -> None:
    appraisal = node("blackwell-1", lie.format(flag)).appraise()
    assert unacceptable(appraisal) == {"debug"}
    assert appraisal.devices[0].check("debug").found.endswith(f"says {flag}")


def test_a_flag_of_an_upper_certificate_counts_for_a_hopper_too(node) -> None:
    appraisal = node("hopper-1", "gpu0:multi-tcb-info=2,recovery").appraise()
    assert unacceptable(appraisal) == {"debug"}
    assert appraisal.devices[0].check("debug").found.startswith("certificate 2 (NVIDIA GH100 Provisioner")
    assert node("hopper-1", "gpu0:multi-tcb-info=2,recovery").appraise(EvidencePolicy(allow_debug=True)).trusted


# --- versions ----------------------------------------------------------------------------------------------------------


def test_versions_are_compared_as_numbers_and_vbios_in_hexadecimal(node) -> None:
    report = node().appraise().devices[0].report
    assert report is not None
    driver, vbios = signed_versions(report).values()
    assert version_problems(report, EvidencePolicy(minimum_driver_version=driver, minimum_vbios_version=vbios)) == []
    for older in ("9.1", "100.999.999"):
        assert version_problems(report, EvidencePolicy(minimum_driver_version=older)) == []
    for newer in ("5500", driver + ".1"):
        assert len(version_problems(report, EvidencePolicy(minimum_driver_version=newer))) == 1
    assert len(version_problems(report, EvidencePolicy(minimum_vbios_version="FF.00"))) == 1


@pytest.mark.parametrize(
    ("signed", "denied", "minimum"),
    [
        ("550.00.07", ("550.0.7",), None),
        ("550.0.7", ("550.00.07",), None),
        ("550.00.07", ("1.1", "550.00.07.0"), None),
        ("550.00.07.00", ("550.0.7",), None),
        ("550.00.07", (), "550.0.8"),
        ("550.00.07", (), "550.00.07.1"),
        ("550.9", (), "550.10"),
        ("550.00.07-beta", ("1.1",), None),
        ("550_00", (), "1.1"),
        ("550.", (), "1.1"),
        ("55000000000", ("1.1",), None),
    ],
)
def test_a_driver_that_is_denied_or_too_old_is_refused_however_its_version_is_written(
    node, signed: str, denied: tuple[str, ...], minimum: str | None
) -> None:
    world = node("hopper-1", f"gpu0:driver-version={signed}")
    policy = EvidencePolicy(denied_driver_versions=denied, minimum_driver_version=minimum)
    check = world.appraise(policy).devices[0].check("versions")
    assert (check.outcome, check.found) == (Outcome.FAIL, signed)


@pytest.mark.parametrize(
    "policy",
    [
        EvidencePolicy(minimum_driver_version="550.0.7"),
        EvidencePolicy(minimum_driver_version="550.00.07.00"),
        EvidencePolicy(minimum_driver_version="550"),
        EvidencePolicy(denied_driver_versions=("550", "550.0.70", "550.7", "55.00.007")),
    ],
)
def test_a_driver_that_is_neither_is_accepted_however_its_version_is_written(node, policy: EvidencePolicy) -> None:
    world = node("hopper-1", "gpu0:driver-version=550.00.07")
    assert world.appraise(policy).devices[0].passed("versions")


@pytest.mark.parametrize(
    ("field", "denies"),
    [("96.00.f0.00.01", True), ("96.0.F0.0.1.0", True), ("96.00.F0.00.10", False), ("96.00.0F.00.01", False)],
)
def test_a_vbios_is_compared_in_hexadecimal(node, field: str, denies: bool) -> None:
    world = node("hopper-1", "gpu0:firmware-version=96.00.F0.00.01")
    check = world.appraise(EvidencePolicy(denied_vbios_versions=(field,))).devices[0].check("versions")
    assert (check.outcome is Outcome.FAIL) is denies
    assert world.appraise(EvidencePolicy(minimum_vbios_version="96.00.F0.0.1")).devices[0].passed("versions")


def test_what_the_driver_says_is_compared_as_a_version_too(node) -> None:
    world = node("hopper-1", "gpu0:driver-version=550.0.7", "gpu0:hint-driver=550.00.07")
    assert world.appraise(evidence=world.live()).devices[0].passed("hints")
    world = node("hopper-1", "gpu0:hint-driver=1.2")
    check = world.appraise(evidence=world.live()).devices[0].check("hints")
    assert (check.outcome, check.found) == (Outcome.FAIL, "1.2")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("minimum_driver_version", "550.x"),
        ("minimum_driver_version", ""),
        ("minimum_vbios_version", "96.00.G0"),
        ("denied_driver_versions", ("550.90.07", "latest")),
        ("denied_driver_versions", ("5A0.1",)),
        ("denied_vbios_versions", ("96..1",)),
    ],
)
def test_a_policy_with_a_version_that_is_none_would_match_nothing_and_is_refused(field: str, value: object) -> None:
    with pytest.raises(PolicyError, match="not a version") as caught:
        EvidencePolicy(**{field: value})
    assert caught.value.code == "policy-value"


def test_switches_have_no_driver_version_to_demand(node) -> None:
    policy = EvidencePolicy(minimum_driver_version="1.0", minimum_vbios_version="01.00")
    assert node("hopper-8-ppcie").appraise(policy).trusted


# --- time --------------------------------------------------------------------------------------------------------------


def test_a_day_later_the_answers_of_a_bundle_are_stale(node) -> None:
    appraisal = node().appraise(later=timedelta(days=2))
    assert unacceptable(appraisal) == {"chain-revocation", "driver-rim-revocation", "vbios-rim-revocation"}


def test_without_collateral_everything_that_needs_it_is_missing_and_the_rest_passes(node) -> None:
    appraisal = node().appraise(collateral=Collateral())
    assert appraisal.result_code is ResultCode.RIM_NOT_FOUND
    assert {check.spec.step for check in appraisal.devices[0].failures} == {10, 11, 12, 13, 14, 15, 16}
