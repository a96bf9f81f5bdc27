"""Names of RIMs, and whether a genuine RIM is about this device."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvattest.errors import InputError, ResultCode
from nvattest.evidence import load_evidence
from nvattest.model import Architecture, DeviceKind
from nvattest.pki.anchors import trust_anchors_from_pem
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.document import parse_rim
from nvattest.rim.ids import (
    RimRole,
    gpu_driver_rim_id,
    gpu_vbios_rim_id,
    is_rim_id,
    rim_ids,
    switch_bios_rim_id,
)
from nvattest.rim.verify import VerifiedRim, bind_rim, verify_rim
from nvattest.spdm.report import parse_report

from .minting import CLOCK, Rim, mint, signer


def verified(rim: Rim, family: str = "GH100") -> VerifiedRim:
    outcome = verify_rim(
        parse_rim(mint(rim, family=family)),
        anchors=trust_anchors_from_pem(signer(family).root_pem).rim,
        at=CLOCK,
        verifier=EcdsaVerifier(),
    )
    assert outcome.verified is not None, outcome.detail
    return outcome.verified


def rules(
    rim: Rim,
    *,
    family: str = "GH100",
    role: RimRole = RimRole.DRIVER,
    version: str = "550.90.07",
    chip: str = "GH100",
    kind: DeviceKind = DeviceKind.GPU,
) -> list[str]:
    found = bind_rim(verified(rim, family), role=role, version=version, chip=chip, kind=kind)
    return [finding.rule for finding in found]


def test_ids_follow_nvidias_templates() -> None:
    assert gpu_driver_rim_id(Architecture.HOPPER, "550.90.07") == "NV_GPU_DRIVER_GH100_550.90.07"
    assert gpu_driver_rim_id(Architecture.HOPPER, "550.90.07", "GH100") == "NV_GPU_DRIVER_GH100_550.90.07"
    assert gpu_driver_rim_id(Architecture.BLACKWELL, "575.32") == "NV_GPU_CC_DRIVER_GB100_575.32"
    assert gpu_driver_rim_id(Architecture.BLACKWELL, "610.1", "GB202") == "NV_GPU_CC_DRIVER_GB202_610.1"
    assert gpu_vbios_rim_id("G520", "0200", "885", "96.00.a5.00.01") == "NV_GPU_VBIOS_G520_0200_885_9600A50001"
    assert switch_bios_rim_id("96.10.55.00.01") == "NV_SWITCH_BIOS_5612_0002_890_9610550001"


@pytest.mark.parametrize(
    "text", ["", ".", "..", ".x", "a/b", "a\\b", "a b", "a%2e", "a\n", "ü", "a" * 129, "a:b", "a?b"]
)
def test_an_unsafe_name_is_no_rim_id(text: str) -> None:
    assert not is_rim_id(text)


def test_a_rubin_has_no_ids_and_the_error_says_that_none_are_published(real_data: Path) -> None:
    [item] = load_evidence((real_data / "evidence" / "rubin-620.54.json").read_bytes())
    report = parse_report(item.report, item.kind)
    for ask in (lambda: rim_ids(report, Architecture.RUBIN), lambda: gpu_driver_rim_id(Architecture.RUBIN, "620.54")):
        with pytest.raises(InputError, match="no reference values are published") as caught:
            ask()
        assert (caught.value.code, caught.value.result_code) == ("no-reference-values", ResultCode.RIM_NOT_FOUND)


def test_an_id_is_never_made_of_unsafe_parts() -> None:
    for make in (
        lambda: gpu_driver_rim_id(Architecture.HOPPER, "../../etc"),
        lambda: gpu_driver_rim_id(Architecture.BLACKWELL, "1", "GB100/.."),
        lambda: gpu_vbios_rim_id("a b", "1", "2", "3"),
        lambda: switch_bios_rim_id("96\n"),
        lambda: gpu_driver_rim_id(Architecture.LS10, "1"),
        lambda: gpu_driver_rim_id(Architecture.HOPPER, "1" * 200),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert caught.value.code == "rim-id"


@pytest.mark.parametrize(
    ("file", "architecture", "expected"),
    [
        (
            "hopper-550.90.07-nvtrust",
            Architecture.HOPPER,
            {RimRole.DRIVER: "NV_GPU_DRIVER_GH100_550.90.07", RimRole.VBIOS: "NV_GPU_VBIOS_1010_0200_882_96009F0001"},
        ),
        (
            "hopper-580.159.03-attsdk",
            Architecture.HOPPER,
            {RimRole.DRIVER: "NV_GPU_DRIVER_GH100_580.159.03", RimRole.VBIOS: "NV_GPU_VBIOS_1010_0205_862_9600740020"},
        ),
        (
            "blackwell-575.32-attsdk",
            Architecture.BLACKWELL,
            {RimRole.DRIVER: "NV_GPU_CC_DRIVER_GB100_575.32", RimRole.VBIOS: "NV_GPU_VBIOS_G525_0220_886_970088000F"},
        ),
        ("ls10-attsdk", Architecture.LS10, {RimRole.BIOS: "NV_SWITCH_BIOS_5612_0002_890_9610550001"}),
    ],
)
def test_the_ids_of_real_reports(
    real_data: Path, file: str, architecture: Architecture, expected: dict[RimRole, str]
) -> None:

    text = (real_data / "evidence" / f"{file}.report.hex").read_text()
    report = parse_report(bytes.fromhex(text.strip()), architecture.kind)
    assert rim_ids(report, architecture) == expected
    other = Architecture.HOPPER if architecture is Architecture.LS10 else Architecture.LS10
    with pytest.raises(InputError):
        rim_ids(report, other)


def test_a_rim_of_this_device_binds() -> None:
    assert rules(Rim()) == []
    switch = Rim(product="LS10", edition="SWITCH", version="96.10.55.00.01")
    assert (
        rules(
            switch,
            family="LS10",
            role=RimRole.BIOS,
            version="96.10.55.00.01",
            chip="LS_10",
            kind=DeviceKind.NVSWITCH,
        )
        == []
    )


@pytest.mark.parametrize(
    ("rim", "expected"),
    [
        (Rim(version="550.90.08"), ["version"]),
        (Rim(version="550.90.070"), ["version"]),
        (Rim(product="GB100"), ["product", "name"]),
        (Rim(name="GB100"), ["name"]),
        (Rim(edition="SWITCH"), ["edition"]),
        (Rim(edition="gpu"), ["edition"]),
        (Rim(manufacturer="5704"), ["manufacturer"]),
        (Rim(manufacturer="05703"), ["manufacturer"]),
    ],
)
def test_a_rim_of_something_else_does_not_bind(rim: Rim, expected: list[str]) -> None:
    assert rules(rim) == expected


def test_the_signer_of_another_family_does_not_bind() -> None:
    assert rules(Rim(), family="GB100") == ["signer"]
    assert rules(Rim(), family="LS10") == ["signer"]


def test_the_signer_of_the_same_family_binds() -> None:
    assert rules(Rim(product="GB202"), family="GB100", chip="GB202") == []
    assert rules(Rim(product="GB100"), family="GB100-CC", chip="GB100") == []


@pytest.mark.parametrize("family", ["GB20X", "GB202", "GB20X-CC", "Any"])
@pytest.mark.parametrize("chip", ["GB20X", "GB202"])
@pytest.mark.parametrize(("product", "name"), [("GB202", "GB202"), ("GB20X", "GB20X"), ("GB202", "GB20X")])
def test_a_rim_of_the_die_family_or_its_member_binds(family: str, chip: str, product: str, name: str) -> None:
    assert rules(Rim(product=product, name=name), family=family, chip=chip) == []


@pytest.mark.parametrize(
    ("chip", "rim", "expected"),
    [
        ("GB20X", Rim(product="GB100"), ["product", "name"]),
        ("GB20X", Rim(product="GB212"), ["product", "name"]),
        ("GB202", Rim(product="GB203"), ["product", "name"]),
        ("GB20X", Rim(product="GB202", name="GB203"), ["name"]),
        ("GB20X", Rim(product="GB20X", name="GB100"), ["name"]),
        ("GB202", Rim(product="GB20X", name="GB203"), ["name"]),
        ("GB100", Rim(product="GB20X"), ["product", "name"]),
    ],
)
def test_a_die_family_binds_no_rim_of_another_one_and_no_sibling(chip: str, rim: Rim, expected: list[str]) -> None:
    assert rules(rim, family="GB100", chip=chip) == expected


def test_the_signer_of_a_foreign_die_family_does_not_bind() -> None:
    assert rules(Rim(product="GB202"), family="GR1XX", chip="GB20X") == ["signer"]


def test_a_signer_that_names_no_chip_binds() -> None:
    assert rules(Rim(), family="Any") == []


def test_a_role_of_another_kind_of_device_does_not_bind() -> None:
    assert "role" in rules(Rim(), role=RimRole.BIOS)
    assert "role" in rules(Rim(edition="SWITCH"), kind=DeviceKind.NVSWITCH)


def test_the_result_code_of_a_version_names_its_role() -> None:
    rim = verified(Rim())
    codes = {
        role: bind_rim(rim, role=role, version="1", chip="GH100", kind=kind)[-1 if role is not RimRole.BIOS else 1]
        for role, kind in (
            (RimRole.DRIVER, DeviceKind.GPU),
            (RimRole.VBIOS, DeviceKind.GPU),
            (RimRole.BIOS, DeviceKind.GPU),
        )
    }
    assert codes[RimRole.DRIVER].result_code is ResultCode.GPU_DRIVER_RIM_VERSION_MISMATCH
    assert codes[RimRole.VBIOS].result_code is ResultCode.GPU_VBIOS_RIM_VERSION_MISMATCH
    assert codes[RimRole.BIOS].result_code is ResultCode.SWITCH_VBIOS_RIM_VERSION_MISMATCH


def test_an_unknown_chip_or_version_binds_nothing() -> None:
    assert "version" in rules(Rim(), version="")
    assert "product" in rules(Rim(), chip="")
