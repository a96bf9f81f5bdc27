"""``nvattest collect-evidence --format coco`` on recorded evidence of simulated devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvattest.cli import main
from nvattest.errors import CollectionError, ResultCode
from nvattest.evidence import cpu_report_data, device_report_data, load_evidence
from nvattest.model import DeviceKind
from nvattest.testing import Platform

RUNTIME = {"nonce": "from KBS", "tee-pubkey": {"kty": "EC", "x": "1"}}


@pytest.fixture
def recorded(tmp_path: Path) -> list[str]:
    digest = device_report_data("from KBS", RUNTIME["tee-pubkey"])  # type: ignore[arg-type]
    (tmp_path / "gpu.json").write_text(Platform.build("hopper-1").evidence_json(DeviceKind.GPU, digest[:32]))
    (tmp_path / "runtime.json").write_text(json.dumps(RUNTIME))
    return ["collect-evidence", "--gpu-evidence-source", "file", "--gpu-evidence-file", str(tmp_path / "gpu.json")]


def test_runtime_data_gives_the_attesters_json_and_the_reports_data(
    recorded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "additional"
    more = ["--runtime-data", str(tmp_path / "runtime.json"), "--additional-evidence", str(out)]
    assert main([*recorded, "--format", "coco", *more]) == 0
    printed = capsys.readouterr()
    assert list(json.loads(printed.out)) == ["device_evidence_list"]
    assert len(load_evidence(printed.out)) == 1
    text = out.read_bytes().decode()
    assert text == '{"nvidia":' + printed.out.rstrip("\n") + "}"
    assert cpu_report_data("from KBS", RUNTIME["tee-pubkey"], text).hex() in printed.err  # type: ignore[arg-type]
    assert out.stat().st_mode & 0o777 == 0o600


def test_report_data_is_cut_to_the_nonce(recorded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    digest = device_report_data("from KBS", RUNTIME["tee-pubkey"])  # type: ignore[arg-type]
    assert main(["-f", "coco", *recorded, "--report-data", digest.hex()]) == 0
    assert "device_evidence_list" in capsys.readouterr().out
    assert main(["-f", "coco", *recorded, "--report-data", "0x" + "11" * 48]) == 504 % 256
    assert capsys.readouterr().out == "", "evidence that answers something else is not handed on"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--format", "coco"], 106),
        (["--format", "coco", "--report-data", "xyz"], 105),
        (["--format", "coco", "--report-data", "11" * 65], 105),
        (["--format", "coco", "--report-data", "1"], 105),
        (["--format", "coco", "--report-data", "11", "--nonce", "11" * 32], 105),
        (["--report-data", "11"], 105),
        (["--format", "json", "--additional-evidence", "x"], 105),
        (["--format", "cocoa"], 105),
    ],
)
def test_wrong_arguments_have_their_status(recorded: list[str], arguments: list[str], status: int) -> None:
    assert main([*recorded, *arguments]) == status


def test_the_format_belongs_to_this_command_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "--format", "coco"]) == 105
    assert main(["version", "--format", "coco"]) == 105


@pytest.mark.parametrize(
    ("code", "status"), [("no-switch", 0), ("nscq-missing", 0), ("nscq-answer", 89), ("driver-timeout", 89)]
)
def test_a_guest_without_switches_has_evidence_and_a_switch_that_fails_has_none(
    recorded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, code: str,
    status: int,
) -> None:  # fmt: skip
    import nvattest.devices.collect

    def no_switch(*_: object, **__: object) -> None:
        raise CollectionError("NSCQ says no", code=code, result_code=ResultCode.NSCQ_ERROR)

    monkeypatch.setattr(nvattest.devices.collect, "collect_switches", no_switch)
    arguments = ["--device", "all", "--format", "coco", "--runtime-data", str(tmp_path / "runtime.json")]
    assert main([*recorded, *arguments]) == status
    printed = capsys.readouterr()
    assert "NSCQ says no" in printed.err
    if status == 0:
        assert [item.kind for item in load_evidence(printed.out)] == [DeviceKind.GPU]
