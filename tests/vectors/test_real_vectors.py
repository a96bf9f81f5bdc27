"""What NVIDIA's hardware and services really signed, through the library and the command line: see INDEX.md."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.appraisal.check import Outcome
from nvattest.appraisal.inputs import Collateral, EvidencePolicy, OcspAnswer, RimAnswer, Source, TopologyRule
from nvattest.appraisal.results import Appraisal, DeviceAppraisal, appraisal_to_json
from nvattest.appraisal.verifier import Verifier
from nvattest.cli import main
from nvattest.errors import ResultCode
from nvattest.evidence import Evidence, load_evidence
from nvattest.model import Architecture, Nonce, VerificationTime
from nvattest.spdm.report import Report
from nvattest.token.claims import claims_of

NONCE = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
V1_AT = "device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"
YEAR_LATER = "device=2026-08-21T07:00:00Z,rim=2026-10-24T12:00:00Z"
V3_AT = "2026-11-01T00:00:00Z"
DRIVER, VBIOS = "NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"
SWITCH = "NV_SWITCH_BIOS_5612_0002_890_9610550001"
STANDS_IN = "the signed window stands in for the nonce"


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    document = json.loads(schema_bytes("appraisal-1.json"))
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture(scope="module")
def bundle(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of everything, as ``nvattest bundle create`` writes it."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.json"
    create = ["bundle", "create", "--rim-dir", str(real_data / "rim"), "--ocsp-dir", str(real_data / "ocsp")]
    assert main([*create, "--output", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def rims_only(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "rims.json"
    assert main(["bundle", "create", "--rim-dir", str(real_data / "rim"), "--output", str(path)]) == 0
    return path


def rim(path: Path, rim_id: str | None = None) -> dict[str, RimAnswer]:
    """A RIM file offered under an id, its own by default."""
    name = path.stem if rim_id is None else rim_id
    return {name: RimAnswer(id=name, content=path.read_bytes(), source=Source.BUNDLE)}


@pytest.fixture(scope="module")
def everything(real_data: Path) -> Collateral:
    rims = {name: answer for path in (real_data / "rim").iterdir() for name, answer in rim(path).items()}
    return Collateral(
        rims=rims,
        ocsp=tuple(
            OcspAnswer(content=path.read_bytes(), source=Source.BUNDLE) for path in (real_data / "ocsp").iterdir()
        ),
    )


def evidence_of(real_data: Path, name: str) -> tuple[Evidence, ...]:
    return load_evidence((real_data / "evidence" / f"{name}.json").read_bytes())


def appraise(
    verifier: Verifier,
    evidence: tuple[Evidence, ...],
    collateral: Collateral,
    at: str = V1_AT,
    nonce: str | None = None,
) -> Appraisal:
    value = bytes.fromhex(nonce) if nonce is not None else evidence[0].nonce
    assert value is not None
    return verifier.appraise(evidence, nonce=Nonce(value), collateral=collateral, at=VerificationTime.parse(at))


def bad(device: DeviceAppraisal) -> dict[str, Outcome]:
    """Everything that did not pass, skipped followers left out."""
    return {check.id: check.outcome for check in device.checks if check.outcome in (Outcome.FAIL, Outcome.ABSENT)}


# --- V1 through the command line ---------------------------------------------------------------------------------------


class Run:
    """The command of issue 2, with parts of it replaced."""

    def __init__(self, real_data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.options = {
            "--device": "gpu",
            "--gpu-evidence-source": "file",
            "--gpu-evidence-file": str(real_data / "evidence/hopper-550.90.07-nvtrust.json"),
            "--nonce": NONCE,
            "--bundle": str(bundle),
            "--at": V1_AT,
        }

    def __call__(self, *first: str, **changes: str | None) -> tuple[int, str]:
        options = self.options | {"--" + key.replace("_", "-"): value for key, value in changes.items()}
        argv = [word for key, value in options.items() if value is not None for word in (key, value)]
        self.capsys.readouterr()
        status = main([*first, "attest", *argv])
        return status, self.capsys.readouterr().out

    def json(self, **changes: str | None) -> tuple[int, dict]:
        status, text = self("-f", "json", **changes)
        return status, json.loads(text)


@pytest.fixture
def attest(real_data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(real_data, bundle, capsys)


def failed(result: dict) -> dict[str, dict]:
    """The unacceptable checks of the first device that were not merely skipped."""
    return {
        check["id"]: check
        for check in result["appraisal"]["devices"][0]["checks"]
        if not check["acceptable"] and check["outcome"] != "skipped"
    }


def test_v1_is_trusted_with_code_0_and_every_check_passes(attest: Run, schema: jsonschema.Draft202012Validator) -> None:
    status, result = attest.json()
    assert status == 0
    assert (result["result_code"], result["result_message"]) == (0, "Ok")
    assert {"result_code", "result_message", "claims", "detached_eat", "appraisal"} <= result.keys()
    appraisal = result["appraisal"]
    schema.validate(appraisal)
    assert appraisal["trusted"] is True
    assert (appraisal["anchors"], appraisal["simulated"], appraisal["weakened"]) == ("NVIDIA", False, [])
    assert appraisal["at"] == {"device": "2025-08-21T07:00:00Z", "rim": "2025-10-24T12:00:00Z"}
    [device] = appraisal["devices"]
    assert {check["outcome"] for check in (*device["checks"], *appraisal["checks"])} == {"pass"}
    # 11 of the device, 7 for each of two RIMs, 6 of values, mode, versions and hints; 6 of the platform.
    assert (len(device["checks"]), len(appraisal["checks"])) == (31, 6)
    assert sorted({check["step"] for check in (*device["checks"], *appraisal["checks"])}) == list(range(1, 26))


def test_v1_matches_33_golden_values_21_of_the_driver_and_12_of_the_vbios(attest: Run) -> None:
    _, result = attest.json()
    cells = [cell for cell in result["appraisal"]["devices"][0]["measurements"] if cell["golden"]]
    assert len(cells) == 33
    assert [sum(cell["source"] == role for cell in cells) for role in ("driver", "vbios")] == [21, 12]
    assert {cell["state"] for cell in cells} == {"matched"}


def test_v1_has_the_revocation_of_all_seven_certificates_checked(attest: Run) -> None:
    _, result = attest.json()
    device = result["appraisal"]["devices"][0]
    answered = {}
    for chain in (device["chain"], *(rim["chain"] for rim in device["rims"])):
        for certificate in chain["certificates"]:
            if "revocation" in certificate:
                answered[certificate["sha256"]] = certificate["revocation"]
    assert len(answered) == 7
    assert {item["status"] for item in answered.values()} == {"good"}
    assert {(item["source"], item["nonce"]) for item in answered.values()} == {("bundle", "not-sent")}
    # A leaf of a device is not served by NVIDIA's responder, a root is nobody's to revoke.
    with_answer = ["revocation" in certificate for certificate in device["chain"]["certificates"]]
    assert with_answer == [False, True, True, True, False]


def test_every_output_of_v1_says_that_the_signed_window_stands_in_for_the_nonce(attest: Run) -> None:
    status, text = attest()
    assert status == 0
    assert text.count(STANDS_IN) == 3
    _, result = attest.json()
    details = [check["detail"] for check in result["appraisal"]["devices"][0]["checks"] if "revo" in check["id"]]
    assert [STANDS_IN in detail for detail in details] == [True] * 3
    # In NVIDIA's words: the answers are valid, and none carries our nonce.
    chains = [value for key, value in result["claims"][0].items() if key.endswith("cert-chain")]
    assert [chain["x-nvidia-cert-ocsp-nonce-matches"] for chain in chains] == [False] * 3
    assert [chain["x-nvidia-cert-ocsp-response-valid"] for chain in chains] == [True] * 3


def test_the_text_of_v1_shows_each_check_and_ends_with_the_verdict(attest: Run) -> None:
    _, text = attest()
    assert len(re.findall(r"^  ok    ", text, re.MULTILINE)) == 37
    assert "judged at 2025-08-21T07:00:00Z (device), 2025-10-24T12:00:00Z (RIMs)" in text
    assert "trust anchors: NVIDIA\n" in text
    assert text.rstrip().endswith("Result: TRUSTED, code 0 (Ok)")


def test_v1_a_year_later_is_refused_because_answers_and_signers_have_expired(attest: Run) -> None:
    status, result = attest.json(at=YEAR_LATER)
    assert (status, result["result_code"]) == (12, 12)
    assert failed(result).keys() == {
        "chain-revocation",
        "driver-rim-validity",
        "driver-rim-revocation",
        "vbios-rim-validity",
        "vbios-rim-revocation",
    }
    revocation = failed(result)["chain-revocation"]
    assert "expired at 2025-09-21T23:59:59Z, checked at 2026-08-21T07:00:00Z" in revocation["detail"]
    assert "newer answers" in revocation["hint"]
    validity = failed(result)["driver-rim-validity"]
    assert "has expired" in validity["detail"]
    assert "2026-06-01T02:08:29Z" in validity["expected"] + validity["found"]
    # The claims are there, as NVIDIA's are for code 12, and say the same.
    chain = result["claims"][0]["x-nvidia-gpu-driver-rim-cert-chain"]
    assert chain["x-nvidia-cert-status"] == "expired"


def test_v1_two_days_later_is_refused_because_the_answers_are_stale(attest: Run) -> None:
    status, result = attest.json(at="device=2025-08-23T07:00:00Z,rim=2025-10-26T12:00:00Z")
    assert status == 12
    assert failed(result).keys() == {"chain-revocation", "driver-rim-revocation", "vbios-rim-revocation"}
    assert "the answer ended at 2025-08-22T06:47:0" in failed(result)["chain-revocation"]["detail"]


def test_v1_an_hour_too_early_is_refused_because_the_answers_are_of_the_future(attest: Run) -> None:
    status, result = attest.json(at="device=2025-08-21T06:00:00Z,rim=2025-10-24T12:00:00Z")
    assert status == 12
    assert failed(result).keys() == {"chain-revocation"}
    assert "the responder's clock said 2025-08-21T06:47:0" in failed(result)["chain-revocation"]["detail"]


def test_v1_without_revocation_answers_is_refused_with_code_12(attest: Run, rims_only: Path) -> None:
    status, result = attest.json(bundle=str(rims_only))
    assert (status, result["result_code"]) == (12, 12)
    assert {(name, check["outcome"]) for name, check in failed(result).items()} == {
        ("chain-revocation", "absent"),
        ("driver-rim-revocation", "absent"),
        ("vbios-rim-revocation", "absent"),
    }
    assert failed(result)["chain-revocation"]["found"] == "0 of 3 good"


def test_v1_with_another_nonce_is_refused_with_code_504(attest: Run) -> None:
    status, result = attest.json(nonce="00" * 32)
    assert (status, result["result_code"]) == (504 % 256, 504)
    assert result["result_message"] == "GPU Evidence Nonce Mismatch"
    assert failed(result).keys() == {"nonce"}
    assert (failed(result)["nonce"]["expected"], failed(result)["nonce"]["found"]) == ("00" * 32, NONCE)
    assert result["claims"] == {}


def test_v1_without_a_nonce_is_refused_with_code_504_as_a_possible_recording(attest: Run) -> None:
    status, result = attest.json(nonce=None)
    assert (status, result["result_code"]) == (504 % 256, 504)
    assert failed(result).keys() == {"nonce"}
    assert failed(result)["nonce"]["outcome"] == "absent"
    assert result["appraisal"]["nonce"] is None


def test_v1_is_judged_alike_with_the_bundle_in_a_folder(
    attest: Run, bundle: Path, real_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    assert main(["bundle", "merge", str(bundle), "--output", f"{folder}/"]) == 0
    assert main(["bundle", "inspect", str(folder)]) == 0
    (_, whole), (status, parts) = attest.json(), attest.json(bundle=str(folder))
    assert status == 0
    [one], [other] = whole["appraisal"]["devices"], parts["appraisal"]["devices"]
    assert [(c["id"], c["outcome"]) for c in one["checks"]] == [(c["id"], c["outcome"]) for c in other["checks"]]
    assert (one["chain"], one["measurements"]) == (other["chain"], other["measurements"])
    # Without the shard of one of its certificates it is refused.
    for shard in folder.glob("ocsp-*"):
        shard.unlink()
    assert attest(bundle=str(folder))[0] != 0


def test_v1_with_its_rims_from_a_folder_needs_revocation_answers_all_the_same(
    attest: Run, real_data: Path, tmp_path: Path
) -> None:
    status, result = attest.json(
        bundle=None, rim_store="dir", rim_dir=str(real_data / "rim"), offline=None, cache_dir=str(tmp_path / "cache"),
        ocsp_url="http://127.0.0.1:9", timeout="2",
    )  # fmt: skip
    assert status != 0
    assert result["appraisal"]["trusted"] is False
    assert failed(result).keys() == {"chain-revocation", "driver-rim-revocation", "vbios-rim-revocation"}


# --- V3, the switch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ls10-single", "ls10-attsdk"])
def test_v3_passes_on_everything_but_revocation_and_says_so(
    real_data: Path, verifier: Verifier, everything: Collateral, schema: jsonschema.Draft202012Validator, name: str
) -> None:
    evidence = evidence_of(real_data, name)
    appraisal = appraise(verifier, evidence, replace(everything, ocsp=()), V3_AT)
    assert appraisal.result_code is ResultCode.OVERALL_RESULT_FALSE
    [device] = appraisal.devices
    unacceptable = {check.id: check for check in device.failures}
    assert unacceptable.keys() == {"chain-revocation", "bios-rim-revocation"}
    assert {check.outcome for check in unacceptable.values()} == {Outcome.ABSENT}
    assert device.comparison is not None
    assert device.comparison.covered == 31
    assert device.comparison.mismatches == ()
    fwid = device.check("fwid")
    assert fwid is not None
    assert fwid.outcome is Outcome.PASS
    assert "named by the certificate alone" in fwid.detail
    schema.validate(appraisal_to_json(appraisal))


def test_v3_is_trusted_only_where_the_policy_names_unchecked_revocation(
    real_data: Path, everything: Collateral
) -> None:
    policy = EvidencePolicy(accept_unchecked_revocation=True)
    evidence = evidence_of(real_data, "ls10-single")
    appraisal = appraise(Verifier(policy=policy), evidence, replace(everything, ocsp=()), V3_AT)
    assert appraisal.trusted
    assert appraisal.weakened == ("accept_unchecked_revocation",)
    for check in ("chain-revocation", "bios-rim-revocation"):
        found = appraisal.devices[0].check(check)
        assert found is not None
        assert found.tolerated_by == "accept_unchecked_revocation"
    strict = EvidencePolicy(accept_unchecked_revocation=True, fwid_optional_for=())
    refused = appraise(Verifier(policy=strict), evidence, replace(everything, ocsp=()), V3_AT)
    assert [check.id for check in refused.devices[0].failures] == ["fwid"]


def test_four_copies_of_one_switch_are_refused_as_a_duplicate(
    real_data: Path, everything: Collateral, schema: jsonschema.Draft202012Validator
) -> None:
    verifier = Verifier(policy=EvidencePolicy(accept_unchecked_revocation=True))
    appraisal = appraise(verifier, evidence_of(real_data, "ls10-multi4"), replace(everything, ocsp=()), V3_AT)
    assert [device.trusted for device in appraisal.devices] == [True] * 4
    assert not appraisal.trusted
    assert appraisal.result_code is ResultCode.OVERALL_RESULT_FALSE
    assert [(label, check.id) for label, check in appraisal.failures] == [("PLATFORM", "devices-distinct")]
    schema.validate(appraisal_to_json(appraisal))


# --- the other evidence ------------------------------------------------------------------------------------------------

WITHOUT_RIMS = {
    "hopper-580.159.03-attsdk": 1,
    "blackwell-575.32-attsdk": 1,
    "hopper-590.12-single": 1,
    "hopper-590.12-multi4": 4,
    "hgx8-gpu-590.12": 8,
    "hgx4-switch": 4,
    "hopper-550.90.07-nvtrust": 1,
    "gb100-590.48.01-mpt8": 8,
    "h100nvl-550.144.03": 1,
    "nul-chain-h200": 1,
    "nras-body-h100": 1,
    "nras-body-h200x8": 8,
}


@pytest.mark.parametrize("name", WITHOUT_RIMS)
def test_without_collateral_only_collateral_is_missing(
    real_data: Path, verifier: Verifier, schema: jsonschema.Draft202012Validator, name: str
) -> None:
    appraisal = appraise(verifier, evidence_of(real_data, name), Collateral(), V3_AT)
    assert len(appraisal.devices) == WITHOUT_RIMS[name]
    assert appraisal.result_code is ResultCode.RIM_NOT_FOUND
    for device in appraisal.devices:
        tolerable = {"chain-revocation", "driver-rim-available", "vbios-rim-available", "bios-rim-available"}
        assert bad(device).keys() <= tolerable
        assert Outcome.FAIL not in bad(device).values()
        for check in ("chain-path", "chain-validity", "report-signature", "nonce", "architecture", "debug"):
            assert device.passed(check)
        fwid = device.check("fwid")
        assert fwid is not None
        assert fwid.outcome is Outcome.PASS
        assert ("named by the certificate alone" in fwid.detail) is (device.kind.value == "nvswitch")
    assert [check.id for check in appraisal.checks if check.outcome is Outcome.FAIL] == ["devices-trusted"]
    schema.validate(appraisal_to_json(appraisal))


@pytest.mark.parametrize(
    ("name", "mode", "allowed"),
    [
        ("gb100-590.48.01-mpt8", "mpt", ("mpt",)),
        ("hopper-580.159.03-attsdk", "spt", ("spt",)),
        ("hgx8-gpu-590.12", "ppcie", ("ppcie",)),
    ],
)
def test_each_real_gpu_is_in_the_mode_that_it_was_captured_in(
    real_data: Path, name: str, mode: str, allowed: tuple[str, ...]
) -> None:
    others = tuple({"spt", "mpt", "ppcie"} - set(allowed))
    for modes, outcome in ((allowed, Outcome.PASS), (others, Outcome.FAIL)):
        verifier = Verifier(policy=EvidencePolicy(allowed_modes=modes))
        appraisal = appraise(verifier, evidence_of(real_data, name), Collateral(), V3_AT)
        assert {check.id: check.outcome for check in appraisal.checks}["one-mode"] is Outcome.PASS
        for device in appraisal.devices:
            check = device.check("mode")
            assert check is not None
            assert check.outcome is outcome
            assert mode in (check.detail, check.found)


@pytest.mark.parametrize(("modes", "refused"), [('["mpt"]', False), ('["spt", "ppcie"]', True)])
def test_a_real_multi_gpu_node_is_in_the_mode_mpt_on_the_command_line(
    real_data: Path, attest: Run, tmp_path: Path, modes: str, *, refused: bool
) -> None:
    evidence = evidence_of(real_data, "gb100-590.48.01-mpt8")
    assert evidence[0].nonce is not None
    policy = tmp_path / "policy.toml"
    policy.write_text(f"allowed_modes = {modes}\n")
    status, result = attest.json(
        gpu_evidence_file=str(real_data / "evidence/gb100-590.48.01-mpt8.json"), nonce=evidence[0].nonce.hex(),
        at=V3_AT, policy=str(policy),
    )  # fmt: skip
    assert status == int(ResultCode.RIM_NOT_FOUND)
    devices = result["appraisal"]["devices"]
    assert [device["report"]["mode"] for device in devices] == ["mpt"] * 8
    for device in devices:
        assert {check["id"]: check["acceptable"] for check in device["checks"]}["mode"] is not refused


def test_the_driver_values_of_an_h100_nvl_match(real_data: Path, verifier: Verifier) -> None:
    driver = "NV_GPU_DRIVER_GH100_550.144.03"
    rims = Collateral(rims=rim(real_data / "rim" / f"{driver}.xml"))
    appraisal = appraise(verifier, evidence_of(real_data, "h100nvl-550.144.03"), rims, V1_AT)
    [device] = appraisal.devices
    assert {name for name in bad(device) if "revocation" not in name} == {"vbios-rim-available"}
    assert device.comparison is not None
    assert (device.comparison.covered, device.comparison.mismatches) == (21, ())
    assert appraisal.result_code is ResultCode.RIM_NOT_FOUND


def test_a_real_rubin_is_genuine_and_is_refused_for_want_of_reference_values(
    real_data: Path, verifier: Verifier, everything: Collateral, schema: jsonschema.Draft202012Validator
) -> None:
    evidence = evidence_of(real_data, "rubin-620.54")
    appraisal = appraise(verifier, evidence, everything, V3_AT)
    [device] = appraisal.devices
    for check in (
        "report-format", "report-trailing-bytes", "chain-format", "chain-path", "chain-validity", "report-signature",
        "nonce", "architecture", "fwid", "debug", "mode", "versions", "hints",
    ):  # fmt: skip
        assert device.passed(check), check
    found = device.check("architecture")
    assert found is not None
    assert found.detail == "RUBIN (GR100)"
    assert bad(device) == {"chain-revocation": Outcome.ABSENT, "reference-values": Outcome.ABSENT}
    missing = device.check("reference-values")
    assert missing is not None
    assert missing.detail == "no reference values are published for this device (RUBIN)"
    assert appraisal.result_code is ResultCode.RIM_NOT_FOUND
    schema.validate(appraisal_to_json(appraisal))
    [claims] = claims_of(appraisal)
    assert claims["measres"] != "success"


def test_the_manifest_of_a_real_rubin_is_kept_as_a_block_of_another_kind(real_data: Path, verifier: Verifier) -> None:
    [item] = evidence_of(real_data, "rubin-620.54")
    report = verifier.read([item])[0].report
    assert isinstance(report, Report)
    assert list(report.measurements) == [*range(1, 65), 0xFD]
    manifest = report.measurements[0xFD]
    assert (manifest.value_type, len(manifest.value), manifest.value[:3].hex()) == (0x8A, 1263, "d9023a")
    assert (report.opaque.layout.value, report.opaque.version) == ("versioned", (2, 0, 0))


def test_no_policy_and_no_collateral_make_a_real_rubin_trusted(real_data: Path, everything: Collateral) -> None:
    weak = {name: True for name in EvidencePolicy.__dataclass_fields__ if name.startswith(("accept_", "allow_"))}
    lenient = Verifier(policy=EvidencePolicy(**weak, allowed_architectures=(Architecture.RUBIN,)))
    evidence = evidence_of(real_data, "rubin-620.54")
    # The manifests of other devices under every name that a Rubin could ask for.
    names = ("GR100_081D_9900230000", "NV_GPU_DRIVER_GR100_620.54", "NV_GPU_CC_DRIVER_GR100_620.54",
             "NV_GPU_VBIOS_G550_0200_887_9900230000")  # fmt: skip
    content = next(iter(everything.rims.values())).content
    forged = {name: RimAnswer(id=name, content=content, source=Source.BUNDLE) for name in names}
    for collateral in (everything, Collateral(), replace(everything, rims=everything.rims | forged)):
        appraisal = appraise(lenient, evidence, collateral, V3_AT)
        assert not appraisal.trusted
        assert "reference-values" in {check.id for _, check in appraisal.failures}
    relabelled = tuple(replace(item, architecture=Architecture.BLACKWELL) for item in evidence)
    refused = appraise(lenient, relabelled, everything, V3_AT)
    assert refused.result_code is ResultCode.GPU_ARCHITECTURE_NOT_SUPPORTED
    assert not refused.trusted


def test_the_command_line_says_why_a_rubin_is_not_trusted(
    real_data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [item] = evidence_of(real_data, "rubin-620.54")
    assert item.nonce is not None
    capsys.readouterr()
    status = main([
        "attest", "--gpu-evidence-source", "file",
        "--gpu-evidence-file", str(real_data / "evidence/rubin-620.54.json"),
        "--nonce", item.nonce.hex(), "--bundle", str(bundle), "--at", V3_AT,
    ])  # fmt: skip
    out = capsys.readouterr().out
    assert status == int(ResultCode.RIM_NOT_FOUND)
    assert "no reference values are published for this device" in out


def test_a_report_with_the_chain_of_another_gpu_is_refused_by_signature_and_firmware_id(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    appraisal = appraise(verifier, evidence_of(real_data, "hopper-560.00-invalidsig-attsdk"), everything)
    assert appraisal.result_code is ResultCode.GPU_INVALID_SIGNATURE
    device = appraisal.devices[0]
    assert not device.passed("report-signature")
    assert not device.passed("fwid")
    assert device.passed("chain-path")


def test_a_gpu_in_ppcie_mode_is_known_as_one_though_its_report_has_no_mode_flag(
    real_data: Path, everything: Collateral
) -> None:
    evidence = evidence_of(real_data, "hopper-560.00-invalidsig-attsdk")
    appraisal = appraise(Verifier(policy=EvidencePolicy(allowed_modes=("spt",))), evidence, everything)
    mode = appraisal.devices[0].check("mode")
    assert mode is not None
    assert (mode.outcome, mode.found) == (Outcome.FAIL, "ppcie")
    topology = next(check for check in appraisal.checks if check.id == "topology")
    assert (topology.outcome, topology.tolerated_by) == (Outcome.SKIPPED, "topology")
    assert "the evidence has no switches" in topology.detail


def test_the_older_issue_of_a_vbios_rim_differs_exactly_at_index_9(
    real_data: Path, verifier: Verifier, schema: jsonschema.Draft202012Validator
) -> None:
    content = rim(
        real_data / "rim-other/1010_0205_862_9600740020_PROD.swidtag.xml", "NV_GPU_VBIOS_1010_0205_862_9600740020"
    )
    evidence = evidence_of(real_data, "hopper-580.159.03-attsdk")
    appraisal = appraise(verifier, evidence, Collateral(rims=content), "2025-01-15T00:00:00Z")
    device = appraisal.devices[0]
    for check in ("available", "format", "signature", "chain", "validity", "binding"):
        assert device.passed(f"vbios-rim-{check}"), check
    measurements = device.check("measurements")
    assert measurements is not None
    assert measurements.outcome is Outcome.FAIL
    assert "index 9 (vbios)" in measurements.detail
    assert device.comparison is not None
    assert [cell.index for cell in device.comparison.mismatches] == [9]
    [claims] = claims_of(appraisal, version="3.0")
    records = claims["x-nvidia-mismatch-measurement-records"]
    assert isinstance(records, list)
    assert [(record["index"], record["measurementSource"], record["goldenSize"]) for record in records] == [
        (9, "Firmware", 48)
    ]
    schema.validate(appraisal_to_json(appraisal))


def test_the_signer_of_that_older_issue_has_expired_by_now(real_data: Path, verifier: Verifier) -> None:
    content = rim(
        real_data / "rim-other/1010_0205_862_9600740020_PROD.swidtag.xml", "NV_GPU_VBIOS_1010_0205_862_9600740020"
    )
    appraisal = appraise(verifier, evidence_of(real_data, "hopper-580.159.03-attsdk"), Collateral(rims=content), V3_AT)
    validity = appraisal.devices[0].check("vbios-rim-validity")
    assert validity is not None
    assert validity.outcome is Outcome.FAIL
    assert appraisal.devices[0].passed("vbios-rim-signature")


# --- one HGX node ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(real_data: Path) -> tuple[tuple[Evidence, ...], tuple[Evidence, ...]]:
    return evidence_of(real_data, "hgx8-gpu-590.12"), evidence_of(real_data, "hgx4-switch")


def platform_check(verifier: Verifier, devices: tuple[Evidence, ...], check: str) -> tuple[Outcome, str]:
    appraisal = appraise(verifier, devices, Collateral(), V3_AT)
    found = next(item for item in appraisal.checks if item.id == check)
    assert not appraisal.trusted
    return found.outcome, found.detail


def test_the_topology_of_a_real_hgx_node_closes_with_device_all(
    real_data: Path, rims_only: Path, capsys: pytest.CaptureFixture[str], schema: jsonschema.Draft202012Validator
) -> None:
    status = main(
        [
            "attest", "-f", "json", "--device", "all", "--gpu-evidence-source", "file",
            "--gpu-evidence-file", str(real_data / "evidence/hgx8-gpu-590.12.json"),
            "--nvswitch-evidence-source", "file",
            "--nvswitch-evidence-file", str(real_data / "evidence/hgx4-switch.json"),
            "--bundle", str(rims_only), "--at", V3_AT,
        ]
    )  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    schema.validate(result["appraisal"])
    # Its RIMs are not at hand and no nonce was given; the nonce is what NVIDIA's order meets first.
    assert (status, result["result_code"]) == (504 % 256, 504)
    outcomes = {check["id"]: (check["outcome"], check["detail"]) for check in result["appraisal"]["checks"]}
    assert outcomes["topology"] == (
        "pass",
        "8 GPUs and 4 switches name each other, the GPUs in protected PCIe mode and the switches locked",
    )
    assert [outcomes[name][0] for name in ("devices-distinct", "one-nonce", "one-mode")] == ["pass"] * 3
    labels = [device["label"] for device in result["appraisal"]["devices"]]
    assert labels == [f"GPU-{index}" for index in range(8)] + [f"SWITCH-{index}" for index in range(4)]


@pytest.mark.parametrize("dropped", [0, 7, 8, 11])
def test_the_topology_fails_when_a_device_is_left_out(
    node: tuple[tuple[Evidence, ...], tuple[Evidence, ...]], verifier: Verifier, dropped: int
) -> None:
    devices = node[0] + node[1]
    outcome, detail = platform_check(verifier, devices[:dropped] + devices[dropped + 1 :], "topology")
    assert outcome is Outcome.FAIL
    assert "that are not here" in detail


def test_the_topology_fails_when_a_gpu_of_another_node_is_put_in(
    node: tuple[tuple[Evidence, ...], tuple[Evidence, ...]], real_data: Path, verifier: Verifier
) -> None:
    foreign = evidence_of(real_data, "hopper-550.90.07-nvtrust")
    outcome, _ = platform_check(verifier, foreign + node[0][1:] + node[1], "topology")
    assert outcome is Outcome.FAIL


def test_the_topology_fails_when_a_switch_of_another_node_is_put_in(
    node: tuple[tuple[Evidence, ...], tuple[Evidence, ...]], real_data: Path, verifier: Verifier
) -> None:
    foreign = evidence_of(real_data, "ls10-single")
    outcome, _ = platform_check(verifier, node[0] + node[1][:3] + foreign, "topology")
    assert outcome is Outcome.FAIL


@pytest.mark.parametrize(("place", "copied"), [(0, 1), (11, 8)])
def test_a_device_given_twice_in_the_place_of_another_is_refused(
    node: tuple[tuple[Evidence, ...], tuple[Evidence, ...]], verifier: Verifier, place: int, copied: int
) -> None:
    devices = list(node[0] + node[1])
    devices[place] = devices[copied]
    assert platform_check(verifier, tuple(devices), "devices-distinct")[0] is Outcome.FAIL
    assert platform_check(verifier, tuple(devices), "topology")[0] is Outcome.FAIL


def test_gpus_in_ppcie_mode_without_their_switches_are_refused_where_the_topology_is_required(
    node: tuple[tuple[Evidence, ...], tuple[Evidence, ...]], verifier: Verifier
) -> None:
    assert platform_check(verifier, node[0], "topology")[0] is Outcome.SKIPPED
    required = Verifier(policy=EvidencePolicy(topology=TopologyRule.REQUIRED))
    assert platform_check(required, node[0], "topology")[0] is Outcome.FAIL
    assert platform_check(required, node[1], "topology")[0] is Outcome.FAIL
    assert platform_check(required, node[0] + node[1], "topology")[0] is Outcome.PASS


def test_evidence_of_two_collections_is_refused_for_its_two_nonces(
    node: tuple[tuple[Evidence, ...], tuple[Evidence, ...]], real_data: Path, verifier: Verifier
) -> None:
    assert platform_check(verifier, node[0], "one-nonce")[0] is Outcome.PASS
    # The same GPU as the first of the node, which so still closes the topology, from an earlier collection.
    earlier = evidence_of(real_data, "hopper-590.12-single") + node[0][1:] + node[1]
    assert platform_check(verifier, earlier, "topology")[0] is Outcome.PASS
    outcome, detail = platform_check(verifier, earlier, "one-nonce")
    assert (outcome, detail) == (Outcome.FAIL, "the devices answered 2 different nonces")


# --- RIMs that must not be believed ------------------------------------------------------------------------------------


def test_a_rim_with_an_altered_signature_value_is_refused_with_code_105(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    offered = rim(real_data / "rim-bad/incorrect_signature_driver_rim.xml", DRIVER)
    appraisal = appraise(
        verifier,
        evidence_of(real_data, "hopper-550.90.07-nvtrust"),
        replace(everything, rims=everything.rims | offered),
    )
    assert appraisal.result_code is ResultCode.RIM_INVALID_SIGNATURE
    device = appraisal.devices[0]
    assert [check.id for check in device.failures if check.outcome is Outcome.FAIL] == ["driver-rim-signature"]
    signature = device.check("driver-rim-signature")
    assert signature is not None
    assert "SignedInfo" in signature.detail or "signature" in signature.detail
    # Nothing was read from it: the golden values of the driver are not there at all.
    assert device.comparison is not None
    assert device.comparison.covered == 12


def test_a_rim_relabelled_as_another_version_is_refused_by_its_digest(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    offered = rim(real_data / "rim-bad/NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml", DRIVER)
    appraisal = appraise(
        verifier,
        evidence_of(real_data, "hopper-550.90.07-nvtrust"),
        replace(everything, rims=everything.rims | offered),
    )
    assert appraisal.result_code is ResultCode.RIM_INVALID_SIGNATURE
    signature = appraisal.devices[0].check("driver-rim-signature")
    assert signature is not None
    assert signature.outcome is Outcome.FAIL
    assert "the content was altered: its SHA-384 is" in signature.detail


def test_a_switch_rim_with_altered_golden_values_is_refused_by_its_digest(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    offered = rim(real_data / f"rim-bad/{SWITCH}_invalid_signature.xml", SWITCH)
    appraisal = appraise(
        verifier, evidence_of(real_data, "ls10-single"), replace(everything, rims=everything.rims | offered), V3_AT
    )
    assert appraisal.result_code is ResultCode.RIM_INVALID_SIGNATURE
    signature = appraisal.devices[0].check("bios-rim-signature")
    assert signature is not None
    assert signature.outcome is Outcome.FAIL
    assert "the content was altered: its SHA-384 is" in signature.detail
    assert appraisal.devices[0].comparison is None


# --- parts of one device with parts of another -------------------------------------------------------------------------


def test_a_genuine_rim_of_another_driver_version_is_refused_with_code_505(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    offered = rim(real_data / "rim/NV_GPU_DRIVER_GH100_550.144.03.xml", DRIVER)
    appraisal = appraise(
        verifier,
        evidence_of(real_data, "hopper-550.90.07-nvtrust"),
        replace(everything, rims=everything.rims | offered),
    )
    assert appraisal.result_code is ResultCode.GPU_DRIVER_RIM_VERSION_MISMATCH
    binding = appraisal.devices[0].check("driver-rim-binding")
    assert binding is not None
    assert (binding.expected, binding.found) == ("550.90.07", "550.144.03")


def test_a_genuine_vbios_rim_of_another_board_version_is_refused_with_code_506(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    offered = rim(real_data / "rim-other/g520_0200_885_9600740001_PROD.swidtag.xml", VBIOS)
    appraisal = appraise(
        verifier,
        evidence_of(real_data, "hopper-550.90.07-nvtrust"),
        replace(everything, rims=everything.rims | offered),
    )
    assert appraisal.result_code is ResultCode.GPU_VBIOS_RIM_VERSION_MISMATCH


def test_a_vbios_rim_in_the_place_of_the_driver_rim_and_a_switch_rim_in_that_of_the_vbios_are_refused(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    evidence = evidence_of(real_data, "hopper-550.90.07-nvtrust")
    swapped = rim(real_data / f"rim/{VBIOS}.xml", DRIVER) | rim(real_data / f"rim/{DRIVER}.xml", VBIOS)
    appraisal = appraise(verifier, evidence, replace(everything, rims=swapped))
    assert not appraisal.devices[0].passed("driver-rim-binding")
    assert not appraisal.devices[0].passed("vbios-rim-binding")
    switch = everything.rims | rim(real_data / f"rim/{SWITCH}.xml", VBIOS)
    appraisal = appraise(verifier, evidence, replace(everything, rims=switch), V1_AT)
    binding = appraisal.devices[0].check("vbios-rim-binding")
    assert binding is not None
    assert "SWITCH" in binding.detail
    assert "LS10" in binding.detail


def test_the_report_of_one_gpu_with_the_chain_of_another_is_refused(
    node: tuple[tuple[Evidence, ...], tuple[Evidence, ...]], verifier: Verifier
) -> None:
    first, second = node[0][:2]
    mixed = replace(first, certificate_chain=second.certificate_chain)
    appraisal = appraise(verifier, (mixed,), Collateral(), V3_AT)
    assert appraisal.result_code is ResultCode.GPU_INVALID_SIGNATURE
    # Both run the same certified firmware: only the signature tells them apart.
    assert appraisal.devices[0].passed("fwid")


def test_switch_evidence_declared_as_a_gpu_is_refused(real_data: Path, verifier: Verifier) -> None:
    switch = evidence_of(real_data, "ls10-single")[0]
    appraisal = appraise(verifier, (replace(switch, architecture=Architecture.HOPPER),), Collateral(), V3_AT)
    assert not appraisal.trusted
    assert appraisal.result_code in (ResultCode.SPDM_FIELD_NOT_FOUND, ResultCode.GPU_ARCHITECTURE_NOT_SUPPORTED,
                                     ResultCode.GPU_EVIDENCE_INVALID)  # fmt: skip
    assert not appraisal.devices[0].passed("architecture")


def test_gpu_evidence_declared_as_a_switch_or_as_another_architecture_is_refused(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    gpu = evidence_of(real_data, "hopper-550.90.07-nvtrust")[0]
    for architecture in (Architecture.LS10, Architecture.BLACKWELL):
        appraisal = appraise(verifier, (replace(gpu, architecture=architecture),), everything)
        assert not appraisal.trusted
        assert not appraisal.devices[0].passed("architecture")
        assert appraisal.result_code is not ResultCode.OK


def test_evidence_that_declares_another_nonce_than_it_contains_is_refused(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    gpu = evidence_of(real_data, "hopper-550.90.07-nvtrust")[0]
    appraisal = appraise(verifier, (replace(gpu, nonce=bytes(32)),), everything, nonce=NONCE)
    assert appraisal.result_code is ResultCode.GPU_EVIDENCE_NONCE_MISMATCH
    assert [check.id for check in appraisal.devices[0].failures] == ["nonce"]


def test_a_driver_that_says_other_versions_than_it_signs_is_refused(
    real_data: Path, verifier: Verifier, everything: Collateral
) -> None:
    gpu = evidence_of(real_data, "hopper-550.90.07-nvtrust")[0]
    told = replace(gpu, hints={"driver_version": "550.90.07", "vbios_version": "96.00.9f.00.01"})
    assert appraise(verifier, (told,), everything).trusted
    lied = replace(gpu, hints={"driver_version": "550.90.08"})
    appraisal = appraise(verifier, (lied,), everything)
    assert [check.id for check in appraisal.devices[0].failures] == ["hints"]
