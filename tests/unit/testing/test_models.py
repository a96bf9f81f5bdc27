"""Each simulated device says what the real one says, is trusted where that one is, and refused with a fault."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

import nvattest
from nvattest.appraisal.results import appraisal_to_json
from nvattest.errors import InputError, ResultCode
from nvattest.model import DeviceKind
from nvattest.report.catalogue import disagreements
from nvattest.report.page import topology
from nvattest.report.reading import read_appraisal
from nvattest.rim.document import parse_rim
from nvattest.spdm.report import Report, parse_report
from nvattest.testing import DEFAULT_NONCE, PLATFORMS, Platform
from nvattest.testing.silicon import BRANCHES, MODELS
from nvattest.token.claims import claims_of

from .spellings import appraise

NO_PDI = "00" * 8


def bad(appraisal: nvattest.Appraisal) -> set[str]:
    """The checks that failed or found nothing, without those that follow from them."""
    return {check.id for _, check in appraisal.failures if check.outcome is not nvattest.Outcome.SKIPPED}


def report_of(name: str, driver: str | None = None) -> Report:
    return parse_report(Platform.build(name, driver_version=driver).gpus[0].report(DEFAULT_NONCE), DeviceKind.GPU)


@pytest.mark.parametrize("name", PLATFORMS)
def test_every_named_platform_is_trusted_but_a_rubin(name: str) -> None:
    appraisal = appraise(name)
    assert bad(appraisal) == ({"reference-values", "devices-trusted"} if name == "rubin-1" else set())
    assert appraisal.trusted is (name != "rubin-1")


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("model", ["hopper", "blackwell"])
def test_every_driver_branch_is_trusted(model: str, branch: str) -> None:
    assert appraise(f"{model}-1-r{branch}").trusted


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_an_id_of_its_own_for_each_manifest(model: str) -> None:
    others = [name for name in MODELS if name != model]
    boards = {(item.name, item.project, item.project_sku, item.chip_sku) for item in map(MODELS.__getitem__, others)}
    board = MODELS[model]
    assert (board.name, board.project, board.project_sku, board.chip_sku) not in boards
    assert MODELS[model].firmware not in {MODELS[name].firmware for name in others}


@pytest.mark.parametrize(
    "name",
    ["hopper-1-r600", "h100nvl-8-ppcie", "rtxpro6000-2-mpt", "rubin-8-ppcie", "h900-1", "h800-4-ppcie", "-1", ""],
)
def test_a_platform_that_no_one_can_buy_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        Platform.build(name)
    assert caught.value.code == "platform"


def test_a_driver_that_knows_no_protected_pcie_makes_no_node_with_switches() -> None:
    for arguments in ({"name": "hopper-8-ppcie-r535"}, {"name": "h800-8-ppcie", "driver_version": "545.1"}):
        with pytest.raises(InputError) as caught:
            Platform.build(**arguments)
        assert caught.value.code == "driver-version"


@pytest.mark.parametrize(
    ("name", "capture"),
    [
        ("hopper-1-r550", "hopper-550.90.07-nvtrust"),
        ("hopper-1-r580", "hopper-580.159.03-attsdk"),
        ("hopper-8-ppcie", "hgx8-gpu-590.12"),
        ("h200-8-ppcie", "nul-chain-h200"),
        ("h100nvl-1", "h100nvl-550.144.03"),
        ("blackwell-1", "blackwell-575.32-attsdk"),
        ("blackwell-8-mpt-r590", "gb100-590.48.01-mpt8"),
        ("rubin-1", "rubin-620.54"),
    ],
)
def test_a_report_has_the_shape_of_the_real_one(real_data: Path, name: str, capture: str) -> None:
    [item, *_] = json.loads((real_data / "evidence" / f"{capture}.json").read_text())
    real = parse_report(base64.b64decode(item["evidence"]), DeviceKind.GPU)
    ours = report_of(name)

    def shape(report: Report) -> list[tuple[int, int | None, int]]:
        # The length of the driver's text is that of its version.
        return [
            (entry.id, entry.value_type, len(entry.data) if entry.id != 3 else 0) for entry in report.opaque.entries
        ]

    def blocks(report: Report) -> list[tuple[int, int]]:
        return [(block.index, block.value_type) for block in report.response.blocks]

    assert (ours.opaque.layout, ours.opaque.version) == (real.opaque.layout, real.opaque.version)
    assert shape(ours) == shape(real)
    assert blocks(ours) == blocks(real)
    assert ours.opaque.get(36) == (b"\0\0" if name == "rubin-1" else real.opaque.get(36))


@pytest.mark.parametrize("driver", ["535.86.05", "545.00.08"])
def test_drivers_before_r550_say_neither_firmware_id_nor_mode_and_are_trusted(driver: str) -> None:
    ids = {entry.id for entry in report_of("hopper-1", driver).opaque.entries}
    assert ids.isdisjoint({20, 21, 34, 36})
    appraisal = appraise("hopper-1", driver=driver)
    assert appraisal.trusted
    fwid = appraisal.devices[0].check("fwid")
    assert fwid is not None
    assert "named by the certificate alone" in fwid.detail


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        ("gpu0:fwid", "fwid"),
        ("gpu0:fwid-extension", "fwid"),
        ("gpu0:measurement=9", "measurements"),
        ("gpu0:signature", "report-signature"),
        ("driver-rim:wrong-version", "driver-rim-binding"),
    ],
)
def test_an_old_driver_excuses_no_fault(lie: str, check: str) -> None:
    assert check in bad(appraise("hopper-1", lie, driver="535.86.05"))


def test_a_node_of_h800_is_trusted_and_its_claims_keep_the_disabled_links() -> None:
    appraisal = appraise("h800-8-ppcie")
    assert appraisal.trusted
    entry = appraisal.devices[0].report.opaque.get(22)  # type: ignore[union-attr]
    assert entry is not None
    assert [entry[i : i + 8] for i in range(0, 144, 8)].count(bytes(8)) == 10
    for claims in claims_of(appraisal)[:8]:
        assert NO_PDI in claims["x-nvidia-gpu-switch-pdis"]
        assert len(claims["x-nvidia-gpu-switch-pdis"]) == 5


@pytest.mark.parametrize(
    "lie",
    [
        "gpu2:topology=foreign",
        "gpu2:topology=missing",
        "gpu2:topology=extra",
        "switch1:topology=foreign",
        "switch1:topology=missing",
        "gpu0:pdi=0000000000000000",
        "switch0:pdi=0000000000000000",
        "gpu0:field=22,00000000000000000000000000000000",
        "switch0:missing",
    ],
)
def test_a_disabled_link_excuses_no_wrong_neighbour(lie: str) -> None:
    assert "topology" in bad(appraise("h800-8-ppcie", lie))


def test_a_place_without_a_gpu_in_a_switch_names_no_device_either() -> None:
    honest = Platform.build("hopper-8-ppcie")
    reported = parse_report(honest.switches[0].report(DEFAULT_NONCE), DeviceKind.NVSWITCH).opaque.get(26)
    assert reported is not None
    seven = reported.replace(bytes.fromhex(honest.gpus[7].pdi), bytes(8))
    assert bad(appraise("hopper-8-ppcie", "gpu7:missing")) == {"topology"}
    # The ports of one switch will do: they are not compared.
    place = f"switch*:field=26,{seven.hex()}"
    assert appraise("hopper-8-ppcie", "gpu7:missing", place).trusted
    # Nor does it name a device whose certificate has no PDI but zeros.
    assert bad(appraise("hopper-8-ppcie", f"gpu7:pdi={NO_PDI}", place)) == {"topology"}


def test_the_explanation_of_an_h800_node_names_no_device_that_is_not_here() -> None:
    view = read_appraisal(appraisal_to_json(appraise("h800-8-ppcie")))
    assert disagreements(view) == ()
    picture = topology(view)
    assert picture is not None
    assert (picture.good, {node.style for node in picture.nodes}) == (32, {"good"})


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        ("gpu0:chip=GB100", "architecture"),
        ("gpu0:chip=GB21X", "architecture"),
        ("gpu0:chip=GB203", "architecture"),
        ("gpu0:leaf-chip=GB21X", "architecture"),
        ("gpu0:field=35,474232303300", "driver-rim-available"),
        ("gpu0:field=35,474231303000", "architecture"),
        ("driver-rim:wrong-product=GB203", "driver-rim-binding"),
        ("vbios-rim:wrong-product=GB100", "vbios-rim-binding"),
        ("gpu0:measurement=30", "measurements"),
        ("gpu0:debug", "debug"),
    ],
)
def test_an_rtx_pro_6000_is_refused_with_a_fault(lie: str, check: str) -> None:
    appraisal = appraise("rtxpro6000-1", lie)
    assert check in bad(appraisal)
    assert not appraisal.trusted


def test_an_rtx_pro_6000_whose_certificates_name_the_member_is_the_same_device() -> None:
    assert appraise("rtxpro6000-1", "gpu0:chip=GB202").trusted
    found = appraise("rtxpro6000-1").devices[0]
    assert found.identity is not None
    assert (found.identity.chip, found.identity.hwmodel) == ("GB20X", "GB20X A01 GSP BROM")
    assert {rim.id.split("_")[4] for rim in found.rims.values() if "DRIVER" in rim.id} == {"GB202"}


@pytest.mark.parametrize("lie", ["gpu3:feature=spt", "gpu3:feature=7", "platform:one-gpu-other-mode", "gpu0:svn=1"])
def test_a_multi_gpu_node_is_refused_with_a_fault(lie: str) -> None:
    assert not appraise("blackwell-8-mpt", lie).trusted


def test_a_manifest_that_is_issued_again_by_another_signer_is_as_good() -> None:
    first, again = Platform.build("hopper-1"), Platform.build("hopper-1", lies=["vbios-rim:renewed"])
    [vbios] = [name for name in first.rim_ids if "VBIOS" in name]
    one, two = (parse_rim(node.rim(vbios) or b"") for node in (first, again))
    assert one.golden == two.golden
    assert one.certificates[0] != two.certificates[0]
    assert appraise("hopper-1", "vbios-rim:renewed").trusted


def test_a_manifest_may_have_an_alternative_of_zeros_and_a_measurement_that_was_never_made_matches_only_that() -> None:
    node = Platform.build("hopper-1")
    [vbios] = [name for name in node.rim_ids if "VBIOS" in name]
    golden = {value.index: value.values for value in parse_rim(node.rim(vbios) or b"").golden}
    assert (len(golden[12]), golden[12].count(bytes(48))) == (4, 1)
    zeros = "00" * 48
    assert appraise("hopper-1", f"gpu0:measurement=12,{zeros}").trusted
    assert bad(appraise("hopper-1", f"gpu0:measurement=9,{zeros}")) >= {"measurements"}


@pytest.mark.parametrize("index", [9, 12])
def test_a_manifest_that_is_issued_again_with_other_values_differs_exactly_there(index: int) -> None:
    appraisal = appraise("hopper-1", f"vbios-rim:reissued={index}")
    comparison = appraisal.devices[0].comparison
    assert comparison is not None
    assert [cell.index for cell in comparison.mismatches] == [index]


@pytest.mark.parametrize(
    "lie",
    ["gpu0:unlocked", "driver-rim:missing", "platform:pcie-mode=1"],
)
def test_a_fault_of_something_that_a_rubin_does_not_have_is_refused(lie: str) -> None:
    with pytest.raises(InputError) as caught:
        Platform.build("rubin-1", lies=[lie])
    assert caught.value.code == "fault-target"


def test_what_a_driver_says_of_switches_is_heard_live() -> None:
    node = Platform.build("hopper-8-ppcie", lies=["platform:pcie-mode=1", "switch2:unlocked"])
    assert node.driver_state.pcie_mode == 1
    locks = [parse_report(item.report(DEFAULT_NONCE), DeviceKind.NVSWITCH).fields.lock_status for item in node.switches]  # type: ignore[union-attr]
    assert locks == [1, 1, 0, 1]


def test_a_rubin_with_a_fault_says_both() -> None:
    appraisal = appraise("rubin-1", "gpu0:fwid")
    assert bad(appraisal) == {"fwid", "reference-values", "devices-trusted"}
    assert appraisal.result_code is ResultCode.GPU_FWID_MISMATCH
