"""Real evidence in the forms in which collectors and services hand it on, through the library and the command line."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.appraisal.check import Outcome
from nvattest.appraisal.inputs import Collateral, RimAnswer, Source
from nvattest.appraisal.results import DeviceAppraisal
from nvattest.appraisal.verifier import Verifier
from nvattest.cli import main
from nvattest.collateral.folders import rims_by_id
from nvattest.errors import ParseError, ResultCode
from nvattest.evidence import load_evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.rim.ids import RimRole

V1 = "hopper-550.90.07-nvtrust"
V1_NONCE = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
V1_AT = "device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"
V1_VBIOS = "NV_GPU_VBIOS_1010_0200_882_96009F0001"
TODAY = "2026-11-01T00:00:00Z"
# What is missing without RIMs and revocation answers, and nothing else.
COLLATERAL = {"chain-revocation", "driver-rim-available", "vbios-rim-available"}

Attest = Callable[..., tuple[int, dict, str]]


@pytest.fixture(scope="module")
def bundle(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle.json"
    create = ["bundle", "create", "--rim-dir", str(real_data / "rim"), "--ocsp-dir", str(real_data / "ocsp")]
    assert main([*create, "--output", str(path)]) == 0
    return path


@pytest.fixture
def attest(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Attest:
    """The command on a file: its status, its JSON, and its text."""

    def call(evidence: Path | bytes, nonce: str, at: str) -> tuple[int, dict, str]:
        path = evidence
        if isinstance(evidence, bytes):
            path = tmp_path / "evidence.json"
            path.write_bytes(evidence)
        argv = [
            "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", str(path), "--nonce", nonce,
            "--bundle", str(bundle), "--at", at,
        ]  # fmt: skip
        capsys.readouterr()
        status = main(["-f", "json", *argv])
        result = json.loads(capsys.readouterr().out)
        assert main([*argv, "--verbose"]) == status
        return status, result, capsys.readouterr().out

    return call


def failed(device: dict) -> set[str]:
    return {check["id"] for check in device["checks"] if not check["acceptable"] and check["outcome"] != "skipped"}


def unacceptable(device: DeviceAppraisal) -> set[str]:
    return {check.id for check in device.failures if check.outcome is not Outcome.SKIPPED}


# --- captures from the field -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "devices", "origin"),
    [
        ("nras-body-h100", 1, "file, arch given twice and alike"),
        ("nras-body-h200x8", 8, "file, arch given twice and alike"),
        ("nul-chain-h200", 1, "file, 5 NUL bytes after the chain dropped"),
    ],
)
def test_a_capture_is_good_in_all_but_its_collateral_and_says_how_it_was_read(
    real_data: Path, attest: Attest, name: str, devices: int, origin: str
) -> None:
    path = real_data / "evidence" / f"{name}.json"
    evidence = load_evidence(path.read_bytes())
    nonce = evidence[0].nonce
    assert nonce is not None
    assert [item.origin for item in evidence] == [origin] * devices
    appraisal = Verifier().appraise(
        evidence, nonce=Nonce(nonce), collateral=Collateral(), at=VerificationTime.parse(TODAY)
    )
    for device in appraisal.devices:
        assert unacceptable(device) == COLLATERAL
        for check in ("chain-format", "chain-path", "report-signature", "nonce", "fwid", "architecture"):
            assert device.passed(check), check
    status, result, text = attest(path, nonce.hex(), TODAY)
    assert (status, result["result_code"]) == (int(ResultCode.RIM_NOT_FOUND), int(ResultCode.RIM_NOT_FOUND))
    assert [failed(device) for device in result["appraisal"]["devices"]] == [COLLATERAL] * devices
    assert text.count(f"evidence from: {origin}") == devices


@pytest.mark.parametrize("name", ["nras-body-h100", "nras-body-h200x8"])
@pytest.mark.parametrize(("key", "other"), [("arch", "BLACKWELL"), ("nonce", "00" * 32)])
def test_a_request_body_that_contradicts_itself_is_refused_with_both_values(
    real_data: Path, attest: Attest, name: str, key: str, other: str
) -> None:
    body = json.loads((real_data / "evidence" / f"{name}.json").read_bytes())
    body["evidence_list"][-1][key] = other
    with pytest.raises(ParseError) as caught:
        load_evidence(json.dumps(body))
    for said in (key, other, body[key], f"item {len(body['evidence_list']) - 1}"):
        assert said in str(caught.value)
    status, result, _ = attest(json.dumps(body).encode(), V1_NONCE, TODAY)
    assert (status, result["error"]["code"]) == (int(ResultCode.EVIDENCE_MALFORMED), "evidence-item")


def test_all_21_driver_values_of_an_h100_nvl_match(real_data: Path, attest: Attest) -> None:
    path = real_data / "evidence" / "h100nvl-550.144.03.json"
    [evidence] = load_evidence(path.read_bytes())
    assert evidence.nonce is not None
    _, result, _ = attest(path, evidence.nonce.hex(), TODAY)
    [device] = result["appraisal"]["devices"]
    # Neither are the answers about its chain here, nor the RIM of its VBIOS.
    assert failed(device) == {"chain-revocation", "driver-rim-revocation", "vbios-rim-available"}
    cells = [cell for cell in device["measurements"] if cell["golden"]]
    assert [(cell["source"], cell["state"]) for cell in cells] == [("driver", "matched")] * 21
    at = VerificationTime.parse(TODAY)
    collateral = rims_by_id(str(real_data / "rim"), ["NV_GPU_DRIVER_GH100_550.144.03"])
    appraisal = Verifier().appraise((evidence,), nonce=Nonce(evidence.nonce), collateral=collateral, at=at)
    comparison = appraisal.devices[0].comparison
    assert comparison is not None
    assert (comparison.covered, comparison.mismatches) == (21, ())


def test_the_second_issue_of_a_vbios_rim_is_verified_and_bound_as_the_first(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (real_data / "rim-other" / f"{V1_VBIOS}.reissued.xml").read_bytes()
    answer = RimAnswer(id=V1_VBIOS, content=content, source=Source.BUNDLE)
    appraisal = Verifier().appraise(
        load_evidence((real_data / "evidence" / f"{V1}.json").read_bytes()),
        nonce=Nonce.from_hex(V1_NONCE),
        collateral=Collateral(rims={V1_VBIOS: answer}),
        at=VerificationTime.parse("device=2025-08-21T07:00:00Z,rim=2027-12-31T00:00:00Z"),
    )
    [device] = appraisal.devices
    for check in ("available", "format", "signature", "chain", "validity", "binding"):
        assert device.passed(f"vbios-rim-{check}"), check
    assert device.comparison is not None
    cells = [cell for cell in device.comparison.cells if cell.golden is not None]
    assert [(cell.role, cell.state.value) for cell in cells] == [(RimRole.VBIOS, "matched")] * 12
    # The same through the command line, under the name that the file has.
    (tmp_path / f"{V1_VBIOS}.reissued.xml").write_bytes(content)
    argv = [
        "-f", "json", "attest", "--gpu-evidence-source", "file", "--offline", "--no-cache",
        "--gpu-evidence-file", str(real_data / "evidence" / f"{V1}.json"), "--nonce", V1_NONCE,
        "--rim-store", "dir", "--rim-dir", str(tmp_path), "--at", str(appraisal.at),
    ]  # fmt: skip
    assert main(argv) == ResultCode.OCSP_SERVER_ERROR.exit_status
    [device_json] = json.loads(capsys.readouterr().out)["appraisal"]["devices"]
    assert failed(device_json) == {"chain-revocation", "driver-rim-available", "vbios-rim-revocation"}


# --- V1 in other clothes -----------------------------------------------------------------------------------------------


def as_hexadecimal(item: dict) -> object:
    return [{**item, "evidence": base64.b64decode(item["evidence"]).hex()}]


def with_nul_bytes(item: dict) -> object:
    return [{**item, "certificate": base64.b64encode(base64.b64decode(item["certificate"]) + bytes(7)).decode()}]


def as_request_body(item: dict) -> dict:
    return {"nonce": item["nonce"], "arch": "HOPPER", "evidence_list": [item]}


def as_additional_evidence(item: dict) -> object:
    from nvattest.evidence import additional_evidence

    return json.loads(additional_evidence(load_evidence(json.dumps([item]))))


def as_collection(item: dict) -> object:
    def record(media: str, text: str) -> list[str]:
        return [media, text.translate(str.maketrans("+/", "-_", "="))]

    return {
        "__cmwc_t": "tag:nvidia.com,2026:verifier-input/profiles/base/pre-1.0.0",
        "gpu_0": {
            "__cmwc_t": "tag:nvidia.com,2026:evidence-item/v1",
            "evidence": record("application/vnd.nvidia.spdm-measurement-transcript", item["evidence"]),
            "certificate": record("application/vnd.nvidia.pem-cert-chain", item["certificate"]),
        },
    }


@pytest.mark.parametrize(
    ("make", "origin"),
    [
        (as_hexadecimal, "file"),
        (with_nul_bytes, "file, 7 NUL bytes after the chain dropped"),
        (as_request_body, "file, arch and nonce given twice and alike"),
        (as_additional_evidence, "file, member 'nvidia.device_evidence_list'"),
        (as_collection, "file, CMW item 'gpu_0'"),
        (
            lambda item: {"intel_quote": "00", "nvidia_payload": json.dumps(as_request_body(item))},
            "file, member 'nvidia_payload.evidence_list', arch and nonce given twice and alike",
        ),
        (lambda item: {"gpu": {"evidences": [item]}, "cpu": {}}, "file, member 'gpu.evidences'"),
        (lambda item: {"tdx_quote": "00", "gpu_evidence": [item]}, "file, member 'gpu_evidence'"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_v1_is_trusted_in_every_form_and_encoding(
    real_data: Path, attest: Attest, make: Callable[[dict], object], origin: str, encoding: str
) -> None:
    [item] = json.loads((real_data / "evidence" / f"{V1}.json").read_bytes())
    status, result, text = attest(json.dumps(make(item)).encode(encoding), V1_NONCE, V1_AT)
    assert (status, result["appraisal"]["trusted"]) == (0, True)
    assert result["appraisal"]["devices"][0]["origin"] == origin
    assert (f"evidence from: {origin}" in text) is (origin != "file")


def test_what_powershell_writes_is_read_and_utf_16_without_a_mark_is_not(real_data: Path, attest: Attest) -> None:
    text = (real_data / "evidence" / f"{V1}.json").read_text()
    assert attest(b"\xff\xfe" + text.encode("utf-16-le"), V1_NONCE, V1_AT)[0] == 0
    assert attest(b"\xfe\xff" + text.encode("utf-16-be"), V1_NONCE, V1_AT)[0] == 0
    status, result, _ = attest(text.encode("utf-16-le"), V1_NONCE, V1_AT)
    assert (status, result["error"]["code"]) == (int(ResultCode.EVIDENCE_MALFORMED), "json")


def test_a_rubin_capture_says_the_same_as_list_and_as_cmw_collection(real_data: Path, attest: Attest) -> None:
    paths = [real_data / "evidence" / f"rubin-620.54{suffix}" for suffix in (".json", ".cmw.json")]
    [listed], [wrapped] = (load_evidence(path.read_bytes()) for path in paths)
    assert wrapped.origin == "file, CMW item 'gpu_0'"
    for name in ("architecture", "nonce", "report", "certificate_chain", "hints"):
        assert getattr(wrapped, name) == getattr(listed, name), name
    assert listed.nonce is not None
    results = [attest(path, listed.nonce.hex(), TODAY) for path in paths]
    assert results[0][0] == results[1][0] != 0
    checks = [result["appraisal"]["devices"][0]["checks"] for _, result, _ in results]
    assert checks[0] == checks[1]
    assert "no reference values are published" in results[1][2]


def test_a_batch_and_the_commands_without_an_appraisal_say_how_they_read_it(
    real_data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [item] = json.loads((real_data / "evidence" / f"{V1}.json").read_bytes())
    document = {"quote": "00", "nvidia_payload": json.dumps([item])}
    origin = "file, member 'nvidia_payload'"
    lines, answers, path = (tmp_path / name for name in ("lines", "answers", "evidence.json"))
    lines.write_text(json.dumps({"nonce": V1_NONCE, "evidence": document}) + "\n")
    batch = ["verify-batch", "--input", str(lines), "--output", str(answers), "--bundle", str(bundle), "--at", V1_AT]
    assert main(batch) == 0
    answer = json.loads(answers.read_text())
    assert (answer["trusted"], answer["devices"][0]["origin"]) == (True, origin)
    jsonschema.Draft202012Validator(
        json.loads(schema_bytes("batch-1.json"))["$defs"]["device"]
        | {"$defs": json.loads(schema_bytes("batch-1.json"))["$defs"]}
    ).validate(answer["devices"][0])
    path.write_text(json.dumps(document))
    capsys.readouterr()
    main(["bundle", "inspect", str(bundle), "--gpu-evidence-file", str(path), "--at", V1_AT])
    assert f"evidence from: {origin}" in capsys.readouterr().err


def test_a_simulated_driver_that_counts_nul_bytes_is_read_as_a_real_one_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["attest", "--simulate", "hopper-8-ppcie", "--fault", "gpu*:chain-nuls", "--fault", "switch1:chain-nuls=1"]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert text.count("evidence from: simulated, 5 NUL bytes after the chain dropped") == 8
    assert text.count("evidence from: simulated, 1 NUL byte after the chain dropped") == 1


@pytest.mark.parametrize("name", ["rubin-620.54.json", "rubin-620.54.cmw.json", "nras-body-h100.json"])
@pytest.mark.parametrize("inside", [False, True])
def test_explain_knows_evidence_in_every_form_and_says_to_verify_it(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, inside: bool
) -> None:
    document = json.loads((real_data / "evidence" / name).read_bytes())
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"quote": "00", "gpu": document} if inside else document))
    assert main(["explain", str(path)]) == 4
    assert "is evidence, which says nothing before it is verified" in capsys.readouterr().err
