"""``verifier.cc_admin`` over simulated GPUs, with services on loopback."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jwt
import pytest

import nvattest
from nvattest.compat import MigrationWarning
from nvattest.compat.verifier import cc_admin
from nvattest.errors import CollectionError, NvattestError
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.testing import Platform
from nvattest.testing.services import Services, wall_clock

from .clients import NONCE, evidence_of, key

# The tests of a simulated machine need other anchors than NVIDIA's; one test is about the warning.
pytestmark = pytest.mark.filterwarnings("ignore:NVATTEST_TRUST_ANCHORS names")


@pytest.fixture(scope="module")
def live() -> Any:
    platform = Platform.build("hopper-1", clock=datetime.now(timezone.utc))
    with Services(platform, now=wall_clock) as services:
        yield platform, services


@pytest.fixture
def params(live: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    platform, services = live
    (tmp_path / "roots.pem").write_bytes(platform.anchors_pem)
    monkeypatch.setenv("NVATTEST_TRUST_ANCHORS", str(tmp_path / "roots.pem"))
    return {
        "verbose": False, "test_no_gpu": False, "driver_rim": None, "vbios_rim": None, "user_mode": True,
        "rim_service_url": services.rim_url + "/v1/rim/", "allow_hold_cert": False, "ocsp_url": services.ocsp_url,
        "ocsp_nonce_disabled": False, "service_key": None, "signing_key": key(),
    }  # fmt: skip


@pytest.mark.parametrize("version", [None, "2.0", "3.0"])
def test_attest_gives_a_verdict_and_a_detached_eat(live: Any, params: dict[str, Any], version: str | None) -> None:
    if version:
        params["claims_version"] = version
    verdict, token = cc_admin.attest(params, NONCE, evidence_of(live[0]))
    assert verdict is True
    (word, overall), devices = token
    said = jwt.decode(overall, key().public.native(), algorithms=["ES384"])
    assert (word, list(devices), said["x-nvidia-ver"]) == ("JWT", ["GPU-0"], version or "2.0")


def test_rim_files_are_used(live: Any, params: dict[str, Any], tmp_path: Path) -> None:
    platform, services = live
    for rim_id, content in platform.rims().items():
        (tmp_path / rim_id).write_bytes(content)
        params["driver_rim" if "DRIVER" in rim_id else "vbios_rim"] = str(tmp_path / rim_id)
    services.forget()
    assert cc_admin.attest(params, NONCE, evidence_of(platform))[0] is True
    assert services.requests("rim") == []
    params["driver_rim"], params["vbios_rim"] = params["vbios_rim"], params["driver_rim"]
    assert cc_admin.attest(params, NONCE, evidence_of(platform))[0] is False


def test_the_old_constant_secret_is_announced(live: Any, params: dict[str, Any]) -> None:
    del params["signing_key"]
    with pytest.warns(MigrationWarning, match="'secret'"):
        cc_admin.attest(params, NONCE, evidence_of(live[0]))


def test_progress_is_printed_when_asked(live: Any, params: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    params["verbose"] = True
    cc_admin.attest(params, NONCE, evidence_of(live[0]))
    assert capsys.readouterr().out.rstrip().endswith("GPU Attestation is Successful.")


def test_a_wrong_nonce_is_refused_before_anything_else() -> None:
    for wrong in ("", "0x" + "0" * 62, None):
        with pytest.raises(cc_admin.InvalidNonceError):
            cc_admin.attest({}, wrong, [])  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            cc_admin.collect_gpu_evidence(wrong)  # type: ignore[arg-type]


def test_a_missing_parameter_is_a_key_error(params: dict[str, Any]) -> None:
    del params["ocsp_url"]
    for kind in (KeyError, NvattestError):
        with pytest.raises(kind, match="ocsp_url"):
            cc_admin.attest(params, NONCE, [1])


def test_no_evidence_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(cc_admin.NoEvidenceError):
        cc_admin.attest(params, NONCE, [])


def test_evidence_in_all_three_forms(live: Any) -> None:
    with pytest.warns(MigrationWarning):
        (handle,) = cc_admin.collect_gpu_evidence_local(NONCE, no_gpu_mode=True)
    with pytest.warns(MigrationWarning):
        (item,) = cc_admin.collect_gpu_evidence_remote(NONCE, no_gpu_mode=True)
    assert sorted(item) == ["arch", "certificate", "evidence"]
    assert base64.b64decode(item["evidence"])[4:36].hex() == NONCE == handle.get_attestation_report()[4:36].hex()
    assert handle.get_gpu_architecture_value() == 9


class FakeLibrary:
    """Stands for NVML where only the ready state is of interest."""

    def __enter__(self) -> FakeLibrary:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("present", "lies", "dev_tools", "expected"),
    [
        ("same", [], False, "ready"),
        ("more", [], False, "not ready"),
        ("others", [], False, "not ready"),
        ("none", [], False, "not ready"),
        ("same", ["gpu0:measurement=9"], False, "not ready"),
        ("same", ["gpu0:measurement=9"], True, "not ready"),
    ],
)
def test_ready_is_set_only_for_all_gpus_of_this_machine_and_never_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, present: str, lies: list[str], dev_tools: bool, expected: str
) -> None:
    import nvattest.devices.collect
    import nvattest.devices.nvml
    import nvattest.devices.state

    platform = Platform.build("hopper-1", lies=lies)
    others = evidence_of(Platform.build("hopper-8-ppcie"))
    items = evidence_of(platform)
    machine = {"same": items, "more": [*items, others[0]], "others": others[1:2]}

    def collect(*_: Any, **__: Any) -> list[Any]:
        if present == "none":
            raise CollectionError("the driver does not answer", code="driver-timeout")
        return machine[present]

    states: list[str] = []
    state = type("S", (), {"dev_tools": dev_tools})
    monkeypatch.setattr(nvattest.devices.collect, "collect_gpus", collect)
    monkeypatch.setattr(nvattest.devices.nvml.NvmlLibrary, "open", lambda *_, **__: FakeLibrary())
    monkeypatch.setattr(nvattest.devices.state, "read_state", lambda *_, **__: state)
    monkeypatch.setattr(nvattest.devices.state, "set_ready", lambda _, proof: states.append("ready"))
    monkeypatch.setattr(nvattest.devices.state, "set_not_ready", lambda _: states.append("not ready"))
    appraisal = appraised(platform)
    if present != "same" or dev_tools:
        # Warnings may be errors: the state is seen to first.
        with pytest.warns(MigrationWarning, match="stay not ready"):
            cc_admin._set_ready(appraisal, items)
    else:
        cc_admin._set_ready(appraisal, items)
    assert states == [expected]


def test_real_gpus_are_not_made_ready_under_anchors_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # A file of NVIDIA's root for devices and somebody's own for RIMs would call any firmware good.
    import nvattest.devices.collect
    import nvattest.devices.nvml
    import nvattest.devices.state

    platform = Platform.build("hopper-1")
    simulated = appraised(platform)
    [device] = simulated.devices
    assert device.chain is not None
    assert simulated.anchors != "NVIDIA"
    real = device.chain._replace(validated=replace(device.chain.validated, anchor=NVIDIA_ANCHORS.device[0]))
    states: list[str] = []
    items = evidence_of(platform)
    monkeypatch.setattr(nvattest.devices.collect, "collect_gpus", lambda *_, **__: items)
    monkeypatch.setattr(nvattest.devices.nvml.NvmlLibrary, "open", lambda *_, **__: FakeLibrary())
    monkeypatch.setattr(nvattest.devices.state, "set_ready", lambda _, proof: states.append("ready"))
    monkeypatch.setattr(nvattest.devices.state, "set_not_ready", lambda _: states.append("not ready"))
    for chain in (real, None):
        of_real_gpus = replace(simulated, devices=(replace(device, chain=chain),))
        assert of_real_gpus.trusted
        with pytest.warns(MigrationWarning, match="stay not ready: they were judged under the trust anchors 'custom'"):
            cc_admin._set_ready(of_real_gpus, items)
    cc_admin._set_ready(replace(simulated, devices=(replace(device, chain=real),), anchors="NVIDIA"), items)
    cc_admin._set_ready(simulated, items)
    assert states == ["not ready", "not ready", "ready", "ready"]


def test_other_anchors_from_the_environment_are_announced(live: Any, params: dict[str, Any]) -> None:
    with pytest.warns(MigrationWarning, match="NVATTEST_TRUST_ANCHORS names other trust anchors"):
        cc_admin.attest(params, NONCE, evidence_of(live[0]))


def appraised(platform: Platform) -> nvattest.Appraisal:
    nonce = nvattest.Nonce.from_hex(NONCE)
    return nvattest.verify(
        platform.evidence(nonce.value),
        collateral=platform.collateral(),
        nonce=nonce,
        at=platform.time,
        anchors=platform.trust_anchors(),
    )


def test_a_machine_in_protected_pcie_is_refused_by_the_old_default(monkeypatch: pytest.MonkeyPatch) -> None:
    import nvattest.devices.nvml
    import nvattest.devices.state

    monkeypatch.setattr(nvattest.devices.nvml.NvmlLibrary, "open", lambda *_, **__: FakeLibrary())
    monkeypatch.setattr(nvattest.devices.state, "read_state", lambda *_, **__: type("S", (), {"protected_pcie": True}))
    with pytest.raises(CollectionError, match="ppcie_mode"):
        cc_admin.collect_gpu_evidence(NONCE)


def test_an_explicit_no_to_held_certificates_goes_before_the_variable(
    live: Any, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NV_ALLOW_HOLD_CERT", "true")
    assert said_weakenings(cc_admin.attest(params, NONCE, evidence_of(live[0]))) == []
    params["allow_hold_cert"] = None
    assert said_weakenings(cc_admin.attest(params, NONCE, evidence_of(live[0]))) != []


@pytest.mark.parametrize(
    ("option", "by_environment", "expected"),
    [(None, True, "not ready"), (True, False, "ready"), (True, True, "ready"), (None, False, "not ready")],
)
def test_gpus_with_a_certificate_on_hold_are_made_ready_by_an_option_and_never_by_the_environment(
    tmp_path: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch, option: Any, by_environment: bool,
    expected: str,
) -> None:  # fmt: skip
    import nvattest.devices.collect
    import nvattest.devices.nvml
    import nvattest.devices.state

    platform = Platform.build("hopper-1", clock=datetime.now(timezone.utc), lies=["gpu0:hold=1"])
    items = evidence_of(platform)
    states: list[str] = []
    monkeypatch.setattr(nvattest.devices.collect, "collect_gpus", lambda *_, **__: items)
    monkeypatch.setattr(nvattest.devices.nvml.NvmlLibrary, "open", lambda *_, **__: FakeLibrary())
    monkeypatch.setattr(nvattest.devices.state, "read_state", lambda *_, **__: type("S", (), {"dev_tools": False}))
    monkeypatch.setattr(nvattest.devices.state, "set_ready", lambda _, proof: states.append("ready"))
    monkeypatch.setattr(nvattest.devices.state, "set_not_ready", lambda _: states.append("not ready"))
    monkeypatch.setenv("NV_ALLOW_HOLD_CERT", "true" if by_environment else "")
    (tmp_path / "roots.pem").write_bytes(platform.anchors_pem)
    with Services(platform, now=wall_clock) as services, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        params.update(
            rim_service_url=services.rim_url, ocsp_url=services.ocsp_url, allow_hold_cert=option, user_mode=False
        )
        trusted, _ = cc_admin.attest(params, NONCE, items)
    said = " ".join(f"{item.message}" for item in caught)
    assert states == [expected]
    assert trusted is bool(option or by_environment)
    assert ("GPU-0: a certificate is on hold" in said) is trusted
    assert ("The environment cannot make GPUs ready" in said) is (trusted and not option)


def said_weakenings(result: tuple[bool, list[Any]]) -> Any:
    said = jwt.decode(result[1][0][1], key().public.native(), algorithms=["ES384"])
    return said["nvattest"]["policy"]["weakened"]


def test_answers_without_a_nonce_are_announced(live: Any, params: dict[str, Any]) -> None:
    params["ocsp_nonce_disabled"] = True
    with pytest.warns(MigrationWarning, match="window"):
        cc_admin.attest(params, NONCE, evidence_of(live[0]))


IMPORT_NAMES = Path(__file__).resolve().parents[3] / "examples" / "import-names"


@pytest.mark.parametrize("module", ["nvattest.compat.verifier.cc_admin", "verifier.cc_admin"])
def test_the_command_succeeds_only_where_gpus_are_trusted(module: str) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHONPATH": str(IMPORT_NAMES)}, check=False,
        )  # fmt: skip

    wrong = run("--nonce", "zz")
    assert (wrong.returncode, wrong.stdout) == (1, "GPU Attestation failed.\n")
    assert "64 hexadecimal digits" in wrong.stderr
    assert "Warning" not in wrong.stderr
    assert run("--no-such").returncode == 2
    assert run("--claims_version", "1.0").returncode == 2


def test_the_command_says_yes_for_a_good_machine(
    live: Any, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    platform = live[0]
    monkeypatch.setattr(cc_admin, "collect_gpu_evidence", lambda nonce, *_: evidence_of(platform, nonce=nonce))
    urls = ["--rim_service_url", params["rim_service_url"], "--ocsp_url", params["ocsp_url"]]
    monkeypatch.setattr(sys, "argv", ["cc_admin", "--user_mode", "--nonce", NONCE, *urls])
    with pytest.warns(MigrationWarning):
        assert cc_admin.main() == 0
    assert capsys.readouterr().out.endswith("GPU Attestation is Successful.\n")
    monkeypatch.setenv("NVATTEST_TRUST_ANCHORS", "")
    with pytest.warns(MigrationWarning):
        assert cc_admin.main() == 1
    assert capsys.readouterr().out.endswith("GPU Attestation failed.\n")


def test_the_text_of_an_error_cannot_steer_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise CollectionError("the driver says \x1b[2J\nGPU Attestation is Successful.", code="nvml-error", hint="\x07")

    monkeypatch.setattr(cc_admin, "collect_gpu_evidence", fail)
    assert cc_admin._main([]) == 1
    out, err = capsys.readouterr()
    assert out == "GPU Attestation failed.\n"
    assert not {"\x1b", "\x07"} & set(err)
    assert "GPU Attestation is Successful." not in err.splitlines()


def test_a_reader_that_has_gone_keeps_no_gpu_ready_after_a_failure(
    params: dict[str, Any], live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    states: list[bool] = []
    monkeypatch.setattr("builtins.print", gone)
    monkeypatch.setattr(cc_admin, "_set_ready", lambda appraisal, *_, **__: states.append(appraisal.trusted))
    params.update(verbose=True, user_mode=False)
    with pytest.raises(BrokenPipeError):
        cc_admin.attest(params, NONCE, evidence_of(Platform.build("hopper-1", lies=["gpu0:measurement=9"])))
    assert states == [False]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("where", ["| true", "> /dev/full"])
def test_a_stdout_that_takes_nothing_ends_the_command_with_a_word_and_1(where: str, unbuffered: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m nvattest.compat.verifier.cc_admin {where}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_verification_that_breaks_off_leaves_no_gpu_ready(
    params: dict[str, Any], live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nvattest.devices.nvml
    import nvattest.devices.state

    states: list[str] = []
    monkeypatch.setattr(nvattest.devices.nvml.NvmlLibrary, "open", lambda *_, **__: FakeLibrary())
    monkeypatch.setattr(nvattest.devices.state, "set_not_ready", lambda _: states.append("not ready"))
    params.update(rim_service_url="no address", user_mode=False)
    with pytest.raises(NvattestError):
        cc_admin.attest(params, NONCE, evidence_of(live[0]))
    assert states == ["not ready"]
    # A driver that does not answer hides no reason.
    monkeypatch.setattr(nvattest.devices.nvml.NvmlLibrary, "open", missing_driver)
    with pytest.raises(NvattestError, match="no address"):
        cc_admin.attest(params, NONCE, evidence_of(live[0]))
    params["user_mode"] = True
    with pytest.raises(NvattestError, match="no address"):
        cc_admin.attest(params, NONCE, evidence_of(live[0]))
    assert states == ["not ready"]


def missing_driver(*_: Any, **__: Any) -> Any:
    raise CollectionError("there is no NVML here", code="nvml-missing")
