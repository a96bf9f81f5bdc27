"""The hook as the Kata agent calls it: success, every kind of failure, and what is left on disk after each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvattest.collateral.bundle import serial_of, write_folder
from nvattest.testing.driver_answers import Fault

from .hook_world import HookWorld, NewWorld


def assert_not_ready(guest: HookWorld, cause: str, *, code: str | None = None) -> dict[str, Any]:
    state = guest.state
    assert guest.ready == 0
    assert not guest.token.exists()
    assert not guest.file("run/nvattest/jwks.json").exists()
    assert state["verdict"] == "not-trusted"
    assert state["cause"] == cause, state["reason"]
    assert state["reason"]["message"]
    if code is not None:
        assert state["reason"]["code"] == code
    assert guest.summaries[-1]["cause"] == cause
    found = "there is no GPU" if cause == "no-gpu" else "GPUs not ready"
    assert guest.kernel_log[-1].startswith(f"<3>nvattest-hook: attestation failed, {found}")
    return state


def verified_token(guest: HookWorld) -> dict[str, Any]:
    """The overall claims, verified with the published key alone."""
    import jwt

    [[kind, overall], detached] = json.loads(guest.token.read_text())
    assert kind == "JWT"
    keys = jwt.PyJWKSet.from_dict(json.loads(guest.file("run/nvattest/jwks.json").read_text()))
    claims: dict[str, Any] = jwt.decode(overall, keys.keys[0].key, algorithms=["ES384"])
    assert set(claims["submods"]) == set(detached)
    return claims


def header_of(guest: HookWorld) -> dict[str, Any]:
    import jwt

    [[_, overall], _] = json.loads(guest.token.read_text())
    header: dict[str, Any] = jwt.get_unverified_header(overall)
    return header


# --- success ----------------------------------------------------------------------------------------------------------


def test_a_good_gpu_is_set_ready_after_its_token_is_on_disk(world: NewWorld) -> None:
    guest = world()
    ended = guest.run()
    assert ended.status == 0
    assert ended.stdout == ""
    assert ended.stderr.startswith("nvattest-hook: attestation successful, GPUs set ready; SIMULATED")
    assert guest.server.ready_history == (0, 1)
    claims = verified_token(guest)
    assert claims["x-nvidia-overall-att-result"] is True
    assert claims["nvattest"]["simulated"] is True
    appraisal = json.loads(guest.file("run/nvattest/appraisal.json").read_text())
    assert appraisal["trusted"] is True
    state = guest.state
    assert (state["verdict"], state["ready"], state["ready_on_entry"]) == ("trusted", True, False)
    assert guest.token.stat().st_mode & 0o777 == 0o600
    assert guest.kernel_log[-1].startswith("<5>")


def test_the_argv_of_older_agents_means_the_same(world: NewWorld) -> None:
    guest = world()
    assert guest.run(argv=[str(guest.hook), "nvattest-hook", "prestart"]).status == 0
    assert guest.ready == 1
    assert guest.state["stage"] == "hook"


@pytest.mark.parametrize(
    "stdin",
    [b"", b"not json", b"[1]", b"\xff\xfe", b'{"id": 7, "annotations": "x"}', b"[" * 100_000, b" " * (2 << 20)],
    ids=["empty", "text", "array", "bytes", "types", "deep", "huge"],
)
def test_whatever_comes_on_stdin_only_matters_to_the_log(world: NewWorld, stdin: bytes) -> None:
    guest = world()
    assert guest.run(stdin=stdin).status == 0
    assert guest.ready == 1
    assert (guest.state["stdin"] == "") == (stdin == b"" or b"annotations" in stdin)


def test_the_state_is_read_whole_with_members_that_nobody_knows(world: NewWorld) -> None:
    guest = world()
    assert guest.run(stdin=guest.oci_state("abc\n123", more={"x": ["y"] * 10_000})).status == 0
    assert guest.state["container"] == "abc\\x0a123"
    assert guest.state["container_kind"] == "pod_container"


def test_an_hgx_node_in_protected_pcie_is_set_ready_with_its_switches(world: NewWorld) -> None:
    guest = world("hopper-8-ppcie")
    ended = guest.run()
    assert guest.state["reason"] is None
    assert guest.ready == 1
    assert (guest.state["gpus"], guest.state["switches"]) == (8, 4)
    assert len(verified_token(guest)["submods"]) == 12
    appraisal = json.loads(guest.file("run/nvattest/appraisal.json").read_text())
    assert appraisal["policy"]["topology"] == "required"
    assert (appraisal["policy"]["expected_gpus"], appraisal["policy"]["expected_switches"]) == (8, 4)
    print(f"\nHGX node from start to verdict, bundle: {ended.seconds:.2f} s")


def test_reports_in_protected_pcie_bring_the_switches_whatever_the_driver_says(world: NewWorld) -> None:
    guest = world("hopper-8-ppcie")
    guest.server.change(multi_gpu_mode=0, cc_feature=1)
    guest.run()
    policy = json.loads(guest.file("run/nvattest/appraisal.json").read_text())["policy"]
    assert (guest.ready, guest.state["switches"]) == (0, 4)
    assert (policy["topology"], policy["expected_gpus"], policy["expected_switches"]) == ("required", 8, 4)


def test_the_log_tells_the_steps_in_the_words_and_order_of_nvidias_verifier(world: NewWorld) -> None:
    guest = world()
    guest.run()
    told = [line.strip() for line in guest.log]
    expected = [
        "Number of GPUs available : 1",
        "-----------------------------------",
        "Fetching GPU 0 information from GPU driver.",
        "VERIFYING GPU : 0",
        f"Driver version fetched : {guest.platform.driver_version}",
        f"VBIOS version fetched : {guest.platform.gpus[0].vbios_version.lower()}",
        "Validating GPU certificate chains.",
        "GPU attestation report certificate chain validation successful.",
        "The certificate chain revocation status verification successful.",
        "Authenticating attestation report",
        "The nonce in the SPDM GET MEASUREMENT request message is matching with the generated nonce.",
        f"Driver version fetched from the attestation report : {guest.platform.driver_version}",
        f"VBIOS version fetched from the attestation report : {guest.platform.gpus[0].vbios_version.lower()}",
        "Attestation report signature verification successful.",
        "Attestation report verification successful.",
        "Authenticating the RIMs.",
        "Authenticating Driver RIM",
        "Schema validation passed.",
        "driver RIM certificate chain verification successful.",
        "The certificate chain revocation status verification successful.",
        "driver RIM signature verification successful.",
        "Driver RIM verification successful",
        "Authenticating VBIOS RIM.",
        "RIM Schema validation passed.",
        "vbios RIM certificate chain verification successful.",
        "The certificate chain revocation status verification successful.",
        "vbios RIM signature verification successful.",
        "VBIOS RIM verification successful",
        "Comparing measurements (runtime vs golden)",
        "The runtime measurements are matching with the golden measurements.",
        "GPU is in the expected state.",
        "GPU 0 verified successfully.",
        "attestation result: True",
    ]
    start = told.index(expected[0])
    assert [line for line in told[start:] if not line.startswith(("SIMULATED", "{", "Confidential"))] == expected
    assert told[-2] == "Confidential Compute GPUs Ready state: ready"


# --- failure ----------------------------------------------------------------------------------------------------------

LIES = {
    "gpu0:measurement=9": "measurements",
    "gpu0:signature": "report-signature",
    "gpu0:chain-signature=1": "chain-path",
    "gpu0:revoked=1": "chain-revocation",
    "gpu0:other-nonce": "nonce",
    "driver-rim:missing": "driver-rim-available",
    "vbios-rim:signature": "vbios-rim-signature",
    "driver-rim:wrong-version": "driver-rim-binding",
}


@pytest.mark.parametrize("lie", list(LIES))
def test_a_device_that_lies_stays_not_ready_and_the_reason_is_on_disk(world: NewWorld, lie: str) -> None:
    guest = world(lies=[lie])
    ended = guest.run()
    assert ended.status == 0  # on_failure = "start": the container starts, CUDA does not
    assert_not_ready(guest, "not-trusted")
    assert 1 not in guest.server.ready_history
    appraisal = json.loads(guest.file("run/nvattest/appraisal.json").read_text())
    failed = [check["id"] for device in appraisal["devices"] for check in device["checks"] if not check["acceptable"]]
    assert LIES[lie] in failed
    assert any("FAILED" in line for line in guest.log)


@pytest.mark.parametrize("lie", ["gpu5:measurement=9", "switch2:signature", "gpu1:duplicate=gpu0", "switch0:topology"])
def test_one_bad_device_fails_the_whole_node(world: NewWorld, lie: str) -> None:
    guest = world("hopper-8-ppcie", lies=[lie])
    guest.run()
    assert_not_ready(guest, "not-trusted")


DRIVER_FAULTS: dict[str, tuple[dict[str, Fault], str, str]] = {
    "report error": (
        {"nvmlDeviceGetConfComputeGpuAttestationReport": Fault(return_code=999)}, "collection", "nvml-unknown",
    ),
    "GPU lost": ({"nvmlDeviceGetConfComputeGpuCertificate": Fault(return_code=15)}, "collection", "gpu-lost"),
    "report hangs": ({"nvmlDeviceGetConfComputeGpuAttestationReport": Fault(hang=True)}, "deadline", "driver-timeout"),
    "init hangs": ({"nvmlInit": Fault(hang=True)}, "deadline", "driver-timeout"),
    "oversized": ({"nvmlDeviceGetConfComputeGpuAttestationReport": Fault(size=70_000)}, "collection", "driver-size"),
    "one GPU fewer": ({"nvmlDeviceGetCount": Fault(size=0)}, "collection", "no-gpu"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DRIVER_FAULTS))
def test_a_driver_that_fails_leaves_not_ready_within_the_budget(world: NewWorld, name: str) -> None:
    faults, cause, code = DRIVER_FAULTS[name]
    guest = world()
    # A short budget only where it is what ends the run: a busy machine must not end the others.
    guest.configure(budget={"hook": 3.0 if cause == "deadline" else 8.5}, on_failure="block")
    guest.server.faults.update(faults)
    ended = guest.run()
    state = guest.state
    assert state["reason"]["code"] == code or code == "no-gpu", state["reason"]
    assert guest.ready == 0
    assert 1 not in guest.server.ready_history
    assert state["cause"] in (cause, "no-gpu"), state["reason"]
    assert ended.status == state["exit_status"] != 0
    assert ended.seconds < (6 if cause == "deadline" else 9)


# What a hang means at each call that the hook makes: the run fails in time, or the call only serves people.
ASKED = [
    "nvmlInit", "nvmlSystemGetDriverVersion", "nvmlSystemGetConfComputeState", "nvmlSystemGetConfComputeSettings",
    "nvmlSystemGetNVMLVersion", "nvmlSystemGetConfComputeGpusReadyState", "nvmlSystemSetConfComputeGpusReadyState",
    "nvmlSystemGetConfComputeCapabilities", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetArchitecture", "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetBoardPartNumber", "nvmlDeviceGetConfComputeGpuCertificate",
    "nvmlDeviceGetConfComputeGpuAttestationReport",
]  # fmt: skip
NEEDS_NO_ANSWER = ["nvmlDeviceGetPersistenceMode", "nvmlDeviceSetPersistenceMode", "nvmlShutdown"]


# Each takes seconds, so that the suite has the first call, the longest and the last; make exhaustive has all.
FIRST_LONGEST_LAST = (
    "nvmlInit",
    "nvmlDeviceGetConfComputeGpuAttestationReport",
    "nvmlSystemSetConfComputeGpusReadyState",
)
HANGS = [pytest.param(call, marks=() if call in FIRST_LONGEST_LAST else pytest.mark.exhaustive) for call in ASKED]


@pytest.mark.parametrize("call", [*HANGS, *NEEDS_NO_ANSWER])
def test_a_hang_in_any_call_ends_within_the_budget(world: NewWorld, call: str) -> None:
    guest = world()
    # A short budget only where it is what ends the run: a busy machine must not end the others.
    guest.configure(budget={"hook": 8 if call in NEEDS_NO_ANSWER else 3}, on_failure="block")
    guest.server.faults[call] = Fault(hang=True)
    ended = guest.run()
    assert ended.seconds < (10 if call in NEEDS_NO_ANSWER else 8)
    if call in NEEDS_NO_ANSWER:
        assert guest.ready == 1
        assert ended.status == 0
        return
    assert guest.ready == 0
    assert ended.status == 6
    assert 1 not in guest.server.ready_history
    assert not guest.token.exists()
    assert (guest.state["cause"], guest.state["reason"]["code"]) == ("deadline", "driver-timeout")
    assert "did not return within" in guest.state["reason"]["message"]


def test_the_calls_that_may_hang_are_those_that_the_hook_makes(world: NewWorld) -> None:
    guest = world()
    guest.run()
    assert {call.name for call in guest.server.calls()} <= {*ASKED, *NEEDS_NO_ANSWER}


def test_persistence_mode_is_seen_to_before_anything_can_fail(world: NewWorld) -> None:
    guest = world()
    guest.configure(clock={"not_before": "2100-01-01T00:00:00Z", "wait_hook": 0})
    guest.run()
    assert_not_ready(guest, "clock")
    # Our end is the end of the driver's first client; a GPU that comes down with it does not come back.
    assert guest.server.calls("nvmlDeviceGetPersistenceMode")


def test_a_driver_that_refuses_ready_ends_not_ready_without_a_token(world: NewWorld) -> None:
    guest = world()
    guest.server.faults["nvmlSystemSetConfComputeGpusReadyState"] = Fault(return_code=999)
    guest.run()
    assert guest.ready == 0
    assert not guest.token.exists()
    assert guest.state["verdict"] == "not-trusted"


@pytest.mark.parametrize(("change", "code"), [({"cc_feature": 0}, "cc-off"), ({"dev_tools": 1}, "devtools-on")])
def test_cc_off_and_devtools_are_refused_by_name(world: NewWorld, change: dict[str, int], code: str) -> None:
    guest = world()
    guest.server.change(**change)
    guest.run()
    # With CC off this driver cannot set a ready state at all, so it is the reason that differs.
    assert guest.ready == 0
    assert guest.state["reason"]["code"] == code
    assert not guest.token.exists()


def test_a_blocking_configuration_makes_the_status_say_what_happened(world: NewWorld) -> None:
    guest = world(lies=["gpu0:measurement=9"])
    guest.configure(on_failure="block")
    assert guest.run().status == 1
    assert_not_ready(guest, "not-trusted")


def test_init_says_what_happened_whatever_hooks_are_told(world: NewWorld) -> None:
    guest = world(lies=["gpu0:measurement=9"])
    assert guest.run("--stage", "init").status == 1


def test_without_collateral_every_missing_piece_is_named(world: NewWorld) -> None:
    guest = world(bundle=False)
    guest.run()
    state = assert_not_ready(guest, "not-trusted")
    assert "RIM" in state["reason"]["message"]


def bundle_folder(guest: HookWorld) -> Path:
    """The guest's bundle as a fleet has it: a folder of shards."""
    folder, whole = guest.file("etc/nvattest/fleet"), guest.platform.collateral()
    answers = {answer: serial_of(answer.content) or 0 for answer in whole.ocsp}
    write_folder(str(folder), whole, answers, lambda answer: answer.content)
    guest.configure(collateral={"bundle": "/etc/nvattest/fleet", "network": False})
    guest.file("etc/nvattest/bundle.json").unlink(missing_ok=True)
    return folder


def test_a_fleet_s_folder_is_a_bundle_and_a_new_one_ends_the_verdict(world: NewWorld) -> None:
    guest = world()
    folder = bundle_folder(guest)
    guest.run()
    first = guest.state
    assert (first["verdict"], first["findings"], guest.ready) == ("trusted", [], 1)
    assert any(path.endswith("/fleet/manifest.json") for path in first["inputs"])
    assert guest.finding("bundle")[0] == "ok"
    guest.run()
    assert guest.state["run"] == first["run"]
    (folder / "manifest.json").write_text(f" {(folder / 'manifest.json').read_text()}")
    guest.run()
    assert guest.state["run"] != first["run"]


def linked(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def damaged(folder: Path) -> None:
    next(folder.glob("ocsp-*.json")).write_text("{}")


def writable(folder: Path) -> None:
    (folder / "manifest.json").chmod(0o666)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: folder.chmod(0o777), "others may write"),
        (writable, "others may write"),
        (linked, "symbolic link"),
        (damaged, "digest"),
    ],
    ids=["written by others", "a manifest written by others", "a link", "damaged"],
)
def test_a_folder_that_cannot_be_used_is_a_finding_and_no_excuse(
    world: NewWorld, change: Callable[[Path], None], said: str
) -> None:
    guest = world()
    change(bundle_folder(guest))
    guest.run()
    state = guest.state
    assert (state["verdict"], guest.ready) == ("not-trusted", 0)
    [finding] = state["findings"]
    assert (finding["code"], said in finding["message"]) == ("bundle", True)
    assert guest.finding("bundle")[0] == "error"


def test_a_bundle_on_a_disk_that_hangs_ends_the_run_within_the_budget(world: NewWorld) -> None:
    guest = world()
    guest.configure(budget={"hook": 3.0})
    guest.before_main(
        "import time\nfrom nvattest.collateral import bundle\nbundle.read_bounded = lambda *_: time.sleep(60)\n"
    )
    guest.run()
    state = assert_not_ready(guest, "deadline", code="deadline")
    assert "reading the bundle" in state["reason"]["message"]


def test_a_damaged_bundle_is_a_finding_and_no_excuse(world: NewWorld) -> None:
    guest = world()
    guest.file("etc/nvattest/bundle.json").write_text('{"format": "nvattest-bundle"')
    guest.run()
    state = assert_not_ready(guest, "not-trusted")
    assert [item["code"] for item in state["findings"]] == ["bundle"]


def test_default_anchors_refuse_simulated_devices(world: NewWorld) -> None:
    guest = world()
    del guest.settings["trust_anchors"]
    guest.configure()
    guest.run()
    state = assert_not_ready(guest, "not-trusted")
    assert state["anchors"] == "NVIDIA"
    assert state["simulated"] is False


@pytest.mark.parametrize(
    "text",
    ["unknown = 1", 'expected_gpus = "1"', "[budget]\nhook = 60", "[tables]\nx = 1", "= =", 'on_failure = "ignore"'],
)
def test_a_configuration_that_cannot_be_read_takes_ready_away_and_blocks(world: NewWorld, text: str) -> None:
    guest = world()
    path = guest.file("etc/nvattest/hook.toml")
    library = guest.settings["driver"]["nvml"]
    path.write_text(text + f'\n[driver]\nnvml = "{library}"\n')
    guest.server.change(ready=1)
    ended = guest.run()
    assert ended.status == 3
    if text != "= =":  # a file that is not TOML cannot name the library either
        assert_not_ready(guest, "configuration", code="hook-config")
    assert not guest.token.exists()


def test_the_policy_of_the_image_decides(world: NewWorld) -> None:
    guest = world()
    policy = guest.file("etc/nvattest/policy.toml")
    guest.configure(policy="/etc/nvattest/policy.toml")
    policy.write_text('minimum_driver_version = "999.0"\n')
    guest.run()
    state = assert_not_ready(guest, "not-trusted")
    assert "older than the policy" in state["reason"]["message"]
    policy.write_text('minimum_driver_version = "1.0"\nexpected_gpus = 1\n')
    guest.run()
    assert guest.ready == 1


@pytest.mark.parametrize("text", ['minimum_driver_versoin = "1"', "expected_gpus = 3", None])
def test_a_policy_that_cannot_be_used_is_no_policy_to_go_without(world: NewWorld, text: str | None) -> None:
    guest = world()
    guest.configure(policy="/etc/nvattest/policy.toml", expected_gpus=1)
    if text is not None:
        guest.file("etc/nvattest/policy.toml").write_text(text)
    guest.run()
    assert_not_ready(guest, "configuration")


def test_a_clock_before_the_image_was_made_is_refused(world: NewWorld) -> None:
    guest = world()
    guest.configure(clock={"not_before": "2100-01-01T00:00:00Z", "wait_hook": 0.1})
    guest.run()
    state = assert_not_ready(guest, "clock", code="clock")
    assert "behind" in state["reason"]["message"]


# --- gating -----------------------------------------------------------------------------------------------------------


def test_ready_on_entry_is_reported_taken_away_and_then_earned(world: NewWorld) -> None:
    guest = world()
    guest.server.change(ready=1)
    ended = guest.run()
    assert "finding: ready-on-entry" in ended.stderr
    assert guest.server.ready_history == (0, 1)
    assert guest.state["ready_on_entry"] is True
    assert [item["code"] for item in guest.state["findings"]] == ["ready-on-entry"]


def test_ready_on_entry_does_not_help_a_bad_gpu(world: NewWorld) -> None:
    guest = world(lies=["gpu0:signature"])
    guest.server.change(ready=1)
    guest.run()
    state = assert_not_ready(guest, "not-trusted")
    assert [item["code"] for item in state["findings"]] == ["ready-on-entry"]


def empty_guest(world: NewWorld) -> HookWorld:
    guest = world()
    for device in guest.file("sys/bus/pci/devices").iterdir():
        os.rename(device, guest.file("tmp") / device.name)
    guest.server.faults["nvmlInit"] = Fault(return_code=9)
    return guest


def test_no_gpu_is_no_success(world: NewWorld) -> None:
    guest = empty_guest(world)
    guest.configure(on_failure="block")
    assert guest.run().status == 5
    assert_not_ready(guest, "no-gpu", code="no-gpu")


def test_no_gpu_is_as_wanted_where_the_configuration_says_so(world: NewWorld) -> None:
    guest = empty_guest(world)
    guest.configure(allow_no_gpu=True, on_failure="block")
    assert guest.run().status == 0
    assert guest.state["verdict"] == "no-gpu"
    assert guest.server.ready_history == ()
    assert not guest.token.exists()
    assert guest.run().status == 0
    assert guest.summaries[-1]["reused"] is True


def test_gpus_that_went_leave_no_ready_state_to_those_that_come(world: NewWorld) -> None:
    guest = world()
    guest.run()
    assert guest.ready == 1
    for device in guest.file("sys/bus/pci/devices").iterdir():
        os.rename(device, guest.file("tmp") / device.name)
    guest.configure(allow_no_gpu=True)
    assert guest.run().status == 0
    assert guest.state["verdict"] == "no-gpu"
    assert guest.ready == 0
    assert not guest.token.exists()


@pytest.mark.parametrize("setting", [{"expected_gpus": 2}, {"expected_switches": 1}])
def test_another_number_of_devices_than_expected_fails(world: NewWorld, setting: dict[str, int]) -> None:
    guest = world()
    guest.configure(**setting)
    guest.run()
    assert guest.ready == 0
    assert guest.state["verdict"] == "not-trusted"


def test_a_gpu_on_the_bus_that_the_driver_does_not_show_fails(world: NewWorld) -> None:
    guest = world()
    guest.plug("0000:77:00.0", "0x030200")
    guest.run()
    state = assert_not_ready(guest, "not-trusted")
    assert "expects 2" in state["reason"]["message"]


def test_an_hgx_node_without_one_of_its_switches_fails(world: NewWorld) -> None:
    guest = world("hopper-8-ppcie")
    guest.server.faults["nscq:uuid"] = Fault(size=3)
    guest.run()
    assert_not_ready(guest, "not-trusted")


# --- ends that nobody planned -----------------------------------------------------------------------------------------


def wait_until(there: Callable[[], object]) -> None:
    """Wait for what must come; how long a loaded machine may need for it is no part of the test."""
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until, "what the test waits for did not come"
        time.sleep(0.002)


def wait_for_call(guest: HookWorld, name: str) -> None:
    wait_until(lambda: guest.server.calls(name))


def test_sigterm_in_the_middle_leaves_not_ready_with_its_reason(world: NewWorld) -> None:
    guest = world()
    guest.server.change(ready=1)
    guest.server.faults["nvmlDeviceGetConfComputeGpuAttestationReport"] = Fault(hang=True)
    process = guest.start()
    wait_for_call(guest, "nvmlDeviceGetConfComputeGpuCertificate")
    process.send_signal(signal.SIGTERM)
    ended = guest.end(process)
    assert ended.status == 0
    assert_not_ready(guest, "terminated")


STEPS = {
    "1 driver": "nvmlInit",
    "1 state": "nvmlSystemGetConfComputeState",
    "2 not ready": "nvmlSystemSetConfComputeGpusReadyState",
    "4 persistence": "nvmlDeviceGetPersistenceMode",
    "5 evidence": "nvmlDeviceGetConfComputeGpuAttestationReport",
}


@pytest.mark.parametrize("step", list(STEPS))
def test_sigterm_while_the_driver_is_asked_leaves_not_ready(world: NewWorld, step: str) -> None:
    guest = world()
    guest.server.faults[STEPS[step]] = Fault(delay=0.6)
    process = guest.start()
    until = time.monotonic() + 10
    # The record says that a run began before the driver is asked for the first time.
    while not guest.file("run/nvattest/state.json").exists() and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(0.25)
    process.send_signal(signal.SIGTERM)
    guest.end(process)
    assert_not_ready(guest, "terminated")
    assert 1 not in guest.server.ready_history


# Each name is looked up by _story, in this order, at the step whose number it has.
STORY = [
    "(1) inputs.open_driver", "(4) inputs.keep_initialised", "(4) inputs.load_demands", "(4) inputs.wait_for_clock",
    "(5) inputs.collect_all", "(6) inputs.load_known", "(6) inputs.gather_collateral", "(7) inputs.give_up_after",
    "(7) attest.write_appraisal", "(7) attest.TrustedPlatform", "(9) attest.publish", "(10) attest.write_log",
]  # fmt: skip


@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("step", STORY)
def test_sigterm_at_every_step_ends_not_ready_or_with_the_verdict_on_disk(
    world: NewWorld, step: str, when: str
) -> None:
    guest = world()
    guest.server.change(ready=1)
    module, _, name = step.split()[1].partition(".")
    guest.around(module, name, **{when: "os.kill(os.getpid(), signal.SIGTERM)"})
    guest.run()
    if name == "write_log":
        assert (guest.ready, guest.state["verdict"]) == (1, "trusted")
        verified_token(guest)
    else:
        assert_not_ready(guest, "terminated")
        assert 1 not in guest.server.ready_history


@pytest.mark.parametrize("moments", [10, pytest.param(40, marks=pytest.mark.exhaustive)])
def test_killed_at_any_moment_it_is_never_ready_without_a_whole_token_and_the_next_run_recovers(
    world: NewWorld, moments: int
) -> None:
    guest = world()
    whole = guest.run().seconds
    finished = 0
    for number in range(moments):
        guest.forget()
        process = guest.start()
        time.sleep(whole * (0.35 + 0.7 * number / (moments - 1)))
        process.kill()
        process.communicate()
        if guest.ready:
            assert verified_token(guest)["x-nvidia-overall-att-result"] is True
            finished += 1
        if number % 5 == 4:
            assert guest.run().status == 0
            assert guest.ready == 1
            assert guest.state["findings"] == []
            verified_token(guest)
    print(f"\n{moments} kills over {whole:.2f} s: {finished} of them after ready")


def test_the_token_is_in_its_place_before_the_driver_is_told(world: NewWorld, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace")
    guest = world()
    trace = tmp_path / "trace"
    calls = "trace=rename,renameat,renameat2,fsync,sendto,write"
    done = subprocess.run(
        [strace, "-f", "-qq", "-e", calls, "-s", "200", "-o", trace, str(guest.hook), "prestart"],
        env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    if not trace.exists() or "ptrace" in done.stderr.decode():
        pytest.skip("strace may not trace here")
    lines = trace.read_text().splitlines()
    setters = [n for n, line in enumerate(lines) if "nvmlSystemSetConfComputeGpusReadyState" in line]
    token = [n for n, line in enumerate(lines) if "rename" in line and '"token.json"' in line]
    synced = [n for n, line in enumerate(lines) if "fsync(" in line]
    assert guest.server.ready_history == (0, 1)
    assert len(setters) == 2
    assert len(token) == 1
    # not ready, token synced, token in its place, its folder synced, ready
    assert setters[0] < token[0] < setters[1]
    assert any(setters[0] < n < token[0] for n in synced)
    assert any(token[0] < n < setters[1] for n in synced)


@pytest.fixture
def small_run(world: NewWorld) -> Iterator[Callable[[str], HookWorld]]:
    """A guest whose /run is a memory file system with these mount options."""
    mounted: list[Path] = []

    def mount(options: str) -> HookWorld:
        guest = world()
        place = guest.root / "run"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"mounting needs more rights: {done.stderr.decode().strip()}")
        mounted.append(place)
        return guest

    yield mount
    for place in mounted:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("pages", range(2, 34, 5))
def test_wherever_a_disk_becomes_full_ready_is_never_without_a_whole_token(
    small_run: Callable[[str], HookWorld], pages: int
) -> None:
    guest = small_run(f"size={pages * 4096}")
    guest.configure(on_failure="block")
    guest.server.change(ready=1)
    ended = guest.run()
    if ended.status == 0:
        assert guest.ready == 1
        verified_token(guest)
        return
    assert ended.status == 8
    assert guest.ready == 0
    assert not guest.token.exists()
    assert "No space left on device" in ended.stderr


def test_a_run_folder_that_cannot_be_written_to_leaves_nothing_ready(
    small_run: Callable[[str], HookWorld],
) -> None:
    guest = small_run("ro")
    guest.configure(on_failure="block")
    guest.server.change(ready=1)
    ended = guest.run()
    assert ended.status == 8
    assert "GPUs not ready; " in ended.stderr
    assert "Read-only file system" in ended.stderr
    assert guest.ready == 0


def test_a_record_that_cannot_be_replaced_takes_ready_away(world: NewWorld) -> None:
    guest = world()
    guest.configure(on_failure="block")
    guest.server.change(ready=1)
    # A folder in the place of the record: it can be neither read nor replaced.
    (guest.root / "run/nvattest/state.json/x").mkdir(parents=True)
    ended = guest.run()
    assert ended.status == 8
    assert guest.ready == 0
    assert guest.server.ready_history == (0,)


# --- several containers -----------------------------------------------------------------------------------------------


def test_eight_containers_at_once_are_one_attestation_and_eight_verdicts(world: NewWorld) -> None:
    guest = world()
    processes = [guest.start(stdin=guest.oci_state(f"c{index}")) for index in range(8)]
    ends = [guest.end(process) for process in processes]
    assert [ended.status for ended in ends] == [0] * 8
    assert len(guest.server.calls("nvmlDeviceGetConfComputeGpuAttestationReport")) == 1
    assert guest.server.ready_history == (0, 1)
    assert len(guest.summaries) == 8
    assert sum(not item["reused"] for item in guest.summaries) == 1
    assert {item["run"] for item in guest.summaries} == {guest.state["run"]}


def test_containers_that_waited_for_a_failure_share_it_and_a_later_one_tries_again(world: NewWorld) -> None:
    guest = world()
    guest.configure(on_failure="block")
    guest.server.faults["nvmlDeviceGetConfComputeGpuAttestationReport"] = Fault(return_code=999, delay=0.5)
    ends = [guest.end(process) for process in [guest.start() for _ in range(3)]]
    assert {ended.status for ended in ends} == {4}
    asked = len(guest.server.calls("nvmlDeviceGetConfComputeGpuAttestationReport"))
    assert asked == 1
    guest.server.faults.clear()
    assert guest.run().status == 0
    assert guest.ready == 1


def test_a_verdict_that_stands_is_used_without_asking_the_driver(world: NewWorld) -> None:
    guest = world()
    first = guest.run()
    calls = len(guest.server.calls())
    seconds = min(guest.run().seconds for _ in range(3))
    assert len(guest.server.calls()) == calls
    assert guest.summaries[-1]["reused"] is True
    print(f"\none GPU, bundle, start to verdict: {first.seconds:.3f} s; a verdict used again: {1000 * seconds:.0f} ms")


def test_a_verdict_that_is_used_again_does_not_claim_what_was_not_asked(world: NewWorld) -> None:
    guest = world()
    guest.run()
    guest.server.change(ready=0)
    ended = guest.run()
    assert ended.stderr.rstrip().endswith("used again; whether they still are was not asked")
    assert guest.summaries[-1]["ready"] is None
    assert guest.ready == 0


def test_init_asks_whether_gpus_are_still_ready_before_it_uses_a_verdict_again(world: NewWorld) -> None:
    guest = world()
    guest.run()
    first = guest.state["run"]
    assert guest.run("--stage", "init").status == 0
    assert guest.state["run"] == first
    assert guest.summaries[-1]["ready"] is True
    # A reset or another program took it away: our status must not say that the workload may start on them.
    guest.server.change(ready=0)
    assert guest.run("--stage", "init").status == 0
    assert guest.state["run"] != first
    assert guest.ready == 1


def test_a_configuration_that_changes_while_a_run_waits_is_the_one_that_decides(world: NewWorld) -> None:
    import fcntl

    guest = world()
    guest.file("run/nvattest").mkdir()
    with guest.file("run/nvattest/lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = guest.start()
        time.sleep(0.4)
        guest.configure(expected_gpus=3)
    guest.end(process)
    assert_not_ready(guest, "not-trusted")
    assert "expects 3" in guest.state["reason"]["message"]


def test_a_configuration_that_changes_during_an_attestation_is_no_part_of_its_verdict(world: NewWorld) -> None:
    guest = world()
    guest.server.faults["nvmlDeviceGetConfComputeGpuCertificate"] = Fault(delay=0.5)
    process = guest.start()
    wait_for_call(guest, "nvmlDeviceGetUUID")
    guest.configure(expected_gpus=3)
    guest.end(process)
    assert_not_ready(guest, "devices-changed", code="devices-changed")


def change_boot(guest: HookWorld) -> None:
    guest.boot("9d0d5c8a-0000-4f5c-9a39-3c4d0a1f7b11")


def change_anchors(guest: HookWorld) -> None:
    path = guest.file("etc/nvattest/anchors.pem")
    path.write_bytes(path.read_bytes() + b"\n")


def change_bundle(guest: HookWorld) -> None:
    path = guest.file("etc/nvattest/bundle.json")
    path.write_bytes(path.read_bytes() + b"\n")


def change_configuration(guest: HookWorld) -> None:
    guest.configure(on_failure="block")


def spoil_token(guest: HookWorld) -> None:
    guest.token.write_bytes(guest.token.read_bytes()[:-10])


def remove_token(guest: HookWorld) -> None:
    guest.token.unlink()


def age(guest: HookWorld) -> None:
    state = guest.state
    state["valid_until_boottime"] = state["finished_boottime"]
    guest.file("run/nvattest/state.json").write_text(json.dumps(state))


def spoil_state(guest: HookWorld) -> None:
    guest.file("run/nvattest/state.json").write_text('{"format": "nvattest-hook-state"')


def other_program(guest: HookWorld) -> None:
    guest.file("run/nvattest/state.json").write_text(json.dumps({**guest.state, "program": "0.0"}))


@pytest.mark.parametrize(
    "change",
    [
        change_boot,
        HookWorld.load_driver,
        change_anchors,
        change_bundle,
        change_configuration,
        spoil_token,
        remove_token,
        age,
        spoil_state,
        other_program,
    ],
)
def test_what_a_verdict_belongs_to_changes_and_all_is_attested_again(
    world: NewWorld, change: Callable[[HookWorld], None]
) -> None:
    guest = world()
    guest.run()
    before = guest.state["run"]
    change(guest)
    assert guest.run().status == 0
    assert guest.state["run"] != before
    assert guest.server.ready_history == (0, 1, 0, 1)
    verified_token(guest)


def test_a_new_gpu_makes_it_attest_all_again_and_fails_all_if_it_is_not_there_for_the_driver(world: NewWorld) -> None:
    guest = world()
    guest.run()
    guest.plug("0000:55:00.0", "0x030200")
    guest.run()
    assert_not_ready(guest, "not-trusted")
    assert guest.server.ready_history == (0, 1, 0)


def test_a_run_that_cannot_get_the_lock_says_so_and_touches_nothing(world: NewWorld) -> None:
    import fcntl

    guest = world()
    guest.configure(budget={"hook": 0.5}, on_failure="block")
    guest.file("run/nvattest").mkdir()
    with guest.file("run/nvattest/lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = guest.run()
    assert ended.status == 11
    assert "another attestation did not end" in ended.stderr
    # Nobody asked, so nothing is said of it.
    assert "not ready" not in ended.stderr
    assert guest.server.calls() == ()


# --- the service ------------------------------------------------------------------------------------------------------


def test_the_watch_attests_again_without_taking_ready_away(world: NewWorld) -> None:
    guest = world()
    assert guest.run("--stage", "watch", "--once").status == 0
    first = guest.token.read_bytes()
    assert guest.run("--stage", "watch", "--once").status == 0
    assert guest.server.ready_history == (0, 1, 1)
    assert guest.token.read_bytes() != first
    assert guest.state["findings"] == []


# Where the watch ends itself: the module and the name that its story looks up there, and before or after which call;
# and whether the new token is on disk by then.
MOMENTS = {
    "5 before the evidence": ("inputs", "collect_all", "before", False),
    "7 after the appraisal": ("attest", "write_appraisal", "after", False),
    "9 before the key set": ("attest", "publish", "before", False),
    "9 between key set and token": ("ready", "TrustedFolder.write", "before token.json", False),
    "9 after the token": ("ready", "TrustedFolder.write", "after token.json", True),
    "10 before the driver is asked": ("attest", "ReadyGate.open", "before", True),
    "10 after the driver answered": ("attest", "ReadyGate.open", "after", True),
    "10 after the verdict is recorded": ("attest", "write_log", "before", True),
}


def kill_at(guest: HookWorld, module: str, name: str, when: str) -> str:
    """Let the hook end itself with SIGKILL before or after this call, in a call with an argument like this one."""
    moment, _, ending = when.partition(" ")
    named = f"{ending!r} in arguments" if ending else "True"
    return guest.around(module, name, **{moment: f"if {named}: os.kill(os.getpid(), signal.SIGKILL)"})


# Three runs each: the suite has the moments around the token, make exhaustive all.
KILLED = [pytest.param(moment, marks=() if "9" in moment else pytest.mark.exhaustive) for moment in MOMENTS]


@pytest.mark.parametrize("moment", KILLED)
def test_a_watch_that_is_killed_leaves_a_token_that_its_key_set_verifies_and_the_next_round_its_ready_state(
    world: NewWorld, moment: str
) -> None:
    guest = world()
    guest.run()
    first = guest.token.read_bytes()
    module, name, when, replaced = MOMENTS[moment]
    hook = kill_at(guest, module, name, when)
    assert guest.run("--stage", "watch", "--once").status == -signal.SIGKILL
    assert (guest.ready, guest.token.read_bytes() != first) == (1, replaced)
    kids = {key["kid"] for key in json.loads(guest.file("run/nvattest/jwks.json").read_text())["keys"]}
    assert header_of(guest)["kid"] in kids
    guest.hook.write_text(hook)
    assert guest.run("--stage", "watch", "--once").status == 0
    assert guest.ready == 1
    assert guest.state["findings"] == []
    # The workload kept its GPUs all the time.
    assert 0 not in guest.server.ready_history[1:]
    verified_token(guest)


def test_the_watch_takes_ready_and_token_away_on_a_failure(world: NewWorld) -> None:
    guest = world()
    guest.run()
    guest.server.faults["nvmlDeviceGetConfComputeGpuAttestationReport"] = Fault(return_code=15)
    assert guest.run("--stage", "watch", "--once").status == 4
    assert_not_ready(guest, "collection", code="gpu-lost")
    guest.server.faults.clear()
    assert guest.run("--stage", "watch", "--once").status == 0
    assert guest.ready == 1


def test_a_driver_that_hangs_in_a_later_round_costs_the_token_and_is_told(world: NewWorld) -> None:
    guest = world()
    guest.run()
    guest.configure(budget={"watch": 1})
    guest.server.faults["nvmlInit"] = Fault(hang=True)
    ended = guest.run("--stage", "watch", "--once")
    assert ended.status == 6
    assert not guest.token.exists()
    assert guest.state["ready"] is None
    assert "the driver could not be asked: the GPUs may be ready" in ended.stderr


def test_the_watch_goes_round_until_it_is_asked_to_end(world: NewWorld) -> None:
    guest = world()
    guest.configure(watch={"interval": 1})
    # The signal comes between two rounds, in the third wait, however quick or slow this machine is.
    guest.around("entry", "_wait", before="if calls == 3: os.kill(os.getpid(), signal.SIGTERM)")
    assert guest.end(guest.start("--stage", "watch"), seconds=60).status == 0
    assert guest.server.ready_history == (0, 1, 1, 1)
    assert guest.ready == 1
    assert guest.state["verdict"] == "trusted"


# --- logs -------------------------------------------------------------------------------------------------------------


def test_the_log_is_rotated_by_size(world: NewWorld) -> None:
    guest = world()
    guest.configure(log={"max_bytes": 4096, "keep": 2}, reuse={"max_age": 0})
    for _ in range(4):
        guest.run()
    folder = guest.file("var/log/nvattest")
    assert sorted(path.name for path in folder.iterdir()) == ["hook.log", "hook.log.1", "hook.log.2"]


def test_a_log_that_cannot_be_written_decides_nothing_and_is_told(world: NewWorld) -> None:
    guest = world()
    guest.file("var/log/nvattest").write_text("a file where the folder should be")
    guest.file("dev/kmsg").unlink()
    ended = guest.run()
    assert ended.status == 0
    assert "(log: " in ended.stderr
    assert guest.ready == 1


def test_without_a_place_for_the_verdict_nothing_is_ready(world: NewWorld) -> None:
    guest = world()
    guest.configure(on_failure="block")
    guest.server.change(ready=1)
    guest.file("run/nvattest").write_text("a file where the folder should be")
    ended = guest.run()
    assert ended.status == 8
    assert guest.ready == 0


def test_closed_descriptors_do_not_put_messages_into_files(world: NewWorld) -> None:
    guest = world()
    pid = os.fork()
    if pid == 0:
        for number in (0, 1, 2):
            os.close(number)
        os.execve(guest.hook, ["nvattest-hook", "prestart"], {})  # noqa: S606 - as the agent does it
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert guest.ready == 1
    verified_token(guest)


def test_arguments_that_name_no_stage_are_refused(world: NewWorld) -> None:
    guest = world()
    for words in (["nvattest-hook"], ["nvattest-hook", "poststart"], ["nvattest-hook", "--stage", "later"]):
        ended = guest.run(argv=words)
        assert ended.status == 2
        assert "usage:" in ended.stderr
    assert guest.server.calls() == ()
