"""The whole live path in a simulated world: real NVML binding, our driver library, services on loopback, the program."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests

from nvattest.cli import main
from nvattest.testing import Platform
from nvattest.testing.driver import DriverLibraries, build_driver_libraries
from nvattest.testing.world import World, library_cache

PROGRAM = [sys.executable, "-m", "nvattest"]


def simulate(
    *arguments: str, env: dict[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, "simulate", *arguments], capture_output=True, text=True, timeout=timeout, env=env or dict(os.environ)
    )


@pytest.fixture(autouse=True)
def caches_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    # The compiled driver is shared by all tests of a run; the collateral cache lies beside it.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp().parent / "cache"))


@pytest.mark.parametrize(
    ("platform", "devices"),
    [
        ("hopper-1", 1),
        ("hopper-1-r535", 1),
        ("hopper-8-ppcie", 12),
        ("h800-8-ppcie", 12),
        ("blackwell-1", 1),
        ("blackwell-8-mpt", 8),
        ("rtxpro6000-1", 1),
    ],
)
def test_attest_in_a_simulated_world_is_trusted_and_says_that_it_is_simulated(platform: str, devices: int) -> None:
    kinds = "all" if platform.endswith("ppcie") else "gpu"
    command = [*PROGRAM, "-f", "json", "attest", "--device", kinds, "--no-cache"]
    done = simulate("--platform", platform, "--", *command)
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert result["result_code"] == 0
    assert len(result["claims"]) == devices
    assert result["appraisal"]["simulated"] is True
    nonces = {
        certificate["revocation"]["nonce"]
        for device in result["appraisal"]["devices"]
        for certificate in device["chain"]["certificates"]
        if "revocation" in certificate
    }
    assert nonces == {"match"}, "live answers carry our nonce"


def test_a_simulated_rubin_is_collected_live_and_never_trusted() -> None:
    done = simulate("--platform", "rubin-1", "--", *PROGRAM, "-f", "json", "attest", "--no-cache")
    result = json.loads(done.stdout)
    assert (done.returncode, result["result_code"]) == (104, 104)
    [device] = result["appraisal"]["devices"]
    assert device["architecture"] == "RUBIN"
    outcomes = {check["id"]: check["outcome"] for check in device["checks"]}
    assert (outcomes["reference-values"], outcomes["fwid"], outcomes["chain-revocation"]) == ("absent", "pass", "pass")


@pytest.mark.parametrize(("engine", "state"), [("on", "matched"), ("off", "exempt")])
def test_the_nvdec0_engine_is_switched_on_the_command_line(engine: str, state: str) -> None:
    command = [*PROGRAM, "-f", "json", "attest", "--no-cache"]
    done = simulate("--platform", "hopper-1", "--nvdec0", engine, "--", *command)
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    [device] = result["appraisal"]["devices"]
    assert {cell["index"]: cell["state"] for cell in device["measurements"]}[35] == state


def test_what_collect_prints_is_what_attest_reads(tmp_path: Path) -> None:
    nonce = "5a" * 32
    script = tmp_path / "both.sh"
    program = " ".join(PROGRAM)
    script.write_text(
        f"set -e\n{program} collect-evidence --nonce {nonce} > {tmp_path}/evidence.json\n"
        f"{program} attest --no-cache --gpu-evidence-source file --gpu-evidence-file {tmp_path}/evidence.json "
        f"--nonce {nonce}\n"
    )
    done = simulate("--platform", "hopper-1", "--", "sh", str(script))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Result: TRUSTED (simulated), code 0 (Ok)" in done.stdout


def test_simulated_evidence_against_the_default_anchors_is_refused_at_the_chain() -> None:
    command = ["env", "-u", "NVATTEST_TRUST_ANCHORS", *PROGRAM, "-f", "json", "attest", "--no-cache"]
    done = simulate("--platform", "hopper-1", "--", *command)
    result = json.loads(done.stdout)
    assert result["result_code"] == 802
    failed = [check["id"] for check in result["appraisal"]["devices"][0]["checks"] if not check["acceptable"]]
    assert failed[0] == "chain-path"
    assert result["appraisal"]["anchors"] == "NVIDIA"


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("nvmlDeviceGetConfComputeGpuAttestationReport=999", 501, "nvmlDeviceGetConfComputeGpuAttestationReport"),
        ("nvmlDeviceGetConfComputeGpuCertificate=3", 501, "nvmlDeviceGetConfComputeGpuCertificate"),
        ("nvmlDeviceGetConfComputeGpuAttestationReport=15", 501, "GPU"),
        ("nvmlDeviceGetConfComputeGpuAttestationReport=size:999999", 501, "999999"),
        ("nvmlInit=9", 500, "driver"),
        ("nvmlDeviceGetConfComputeGpuAttestationReport=hang", 501, "did not return"),
    ],
)
def test_a_failing_driver_call_is_named_and_nothing_is_trusted(fault: str, code: int, words: str) -> None:
    command = [*PROGRAM, "-f", "json", "attest", "--no-cache", "--driver-timeout", "1"]
    done = simulate("--platform", "hopper-1", "--driver-fault", fault, "--", *command)
    result = json.loads(done.stdout)
    assert result["result_code"] == code
    assert words in result["error"]["message"]
    assert done.returncode == code % 256


def test_a_machine_with_confidential_computing_off_is_told_so() -> None:
    done = simulate("--platform", "hopper-1", "--fault", "platform:cc-off", "--", *PROGRAM, "attest", "--no-cache")
    assert done.returncode == 509 % 256
    assert "code 509" in done.stdout


def test_devtools_mode_is_seen_and_refused() -> None:
    done = simulate("--platform", "hopper-1", "--fault", "platform:debug", "--", *PROGRAM, "attest", "--no-cache")
    assert done.returncode == 509 % 256
    assert "DevTools" in done.stdout
    assert "--allow-devtools" in done.stdout


def test_devtools_mode_is_collected_where_it_is_allowed_and_trusted_only_by_a_policy_that_says_so(
    tmp_path: Path,
) -> None:
    policy = tmp_path / "debug.toml"
    policy.write_text('format = "nvattest-evidence-policy"\nversion = 1\nallow_debug = true\n')
    program = shlex.join([*PROGRAM, "attest", "--allow-devtools", "-f", "json"])
    saved = shlex.join([*PROGRAM, "collect-evidence", "--allow-devtools", "--nonce", "ab" * 32])
    read = shlex.join([*PROGRAM, "attest", "-f", "json", "--nonce", "ab" * 32, "--gpu-evidence-source", "file"])
    script = (
        f"cd {tmp_path}\n{program} > plain.json; echo $? > status\n{saved} > gpu.json\n"
        f"{read} --gpu-evidence-file gpu.json > saved.json\nset -e\n{program} --policy debug.toml > allowed.json\n"
    )
    done = simulate("--platform", "hopper-1", "--fault", "platform:debug", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "status").read_text() == "12\n"
    for name in ("plain.json", "saved.json"):
        (device,) = json.loads((tmp_path / name).read_text())["appraisal"]["devices"]
        assert [check["id"] for check in device["checks"] if check["outcome"] != "pass"] == ["debug"]
    allowed = json.loads((tmp_path / "allowed.json").read_text())["appraisal"]
    assert allowed["weakened"] == ["allow_debug"]


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A user's cache folder; simulate keeps the compiled driver there, so that this one is copied from the others'."""
    home = tmp_path / "user-cache"
    shared = Path(os.environ["XDG_CACHE_HOME"]) / "nvattest" / "simulated-driver"
    if shared.is_dir():
        shutil.copytree(shared, home / "nvattest" / "simulated-driver", ignore=shutil.ignore_patterns("worlds"))
    return home


def test_a_good_run_hides_no_fault_of_the_next_world_and_leaves_nothing_with_the_user(user: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(user)}
    attest = ("--", *PROGRAM, "-f", "json", "attest", "--timeout", "3")
    good = simulate("--platform", "hopper-1", *attest, env=env)
    assert good.returncode == 0, good.stderr
    found = {}
    for fault in ("driver-rim:missing", "gpu0:revoked=1", "rim:html", "ocsp:drop"):
        option = "--service-fault" if fault.startswith(("rim:", "ocsp:")) else "--fault"
        found[fault] = json.loads(simulate("--platform", "hopper-1", option, fault, *attest, env=env).stdout)
    assert {fault: result["result_code"] for fault, result in found.items()} == {
        "driver-rim:missing": 104, "gpu0:revoked=1": 12, "rim:html": 102, "ocsp:drop": 202,
    }  # fmt: skip
    assert [entry.name for entry in (user / "nvattest").iterdir()] == ["simulated-driver"]
    assert list((user / "nvattest" / "simulated-driver" / "worlds").iterdir()) == []


def test_a_relative_cache_folder_of_the_environment_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the XDG specification has it; a world would leave a folder wherever it is started."""
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert library_cache() == str(tmp_path / ".cache" / "nvattest" / "simulated-driver")


def test_within_one_world_what_was_fetched_is_kept(user: Path) -> None:
    program = " ".join(PROGRAM)
    script = f"{program} attest >/dev/null && {program} attest --offline"
    done = simulate("--platform", "hopper-1", "--", "sh", "-c", script, env={**os.environ, "XDG_CACHE_HOME": str(user)})
    assert "Result: TRUSTED (simulated)" in done.stdout, done.stdout + done.stderr


def test_the_cache_of_a_killed_world_goes_with_the_next_world_and_that_of_a_living_one_stays(
    tmp_path: Path, libraries: DriverLibraries
) -> None:
    worlds = Path(libraries.folder).parent / "worlds"
    cache = str(Path(libraries.folder).parent)
    platform = Platform.build("hopper-1", clock=datetime.now(timezone.utc))
    with World(platform, cache=cache) as living:
        own = Path(living.variables()["NVATTEST_CACHE_DIR"])
        killed = worlds / "world-killed"
        (killed / "rims").mkdir(parents=True)
        with World(platform, cache=cache) as next_one:
            assert not killed.exists()
            assert own.is_dir()
            assert Path(next_one.variables()["NVATTEST_CACHE_DIR"]) != own
    assert not own.exists()


@pytest.mark.parametrize("spelling", ["NO_PROXY", "no_proxy"])
def test_a_proxy_of_the_user_does_not_stand_between_a_world_and_its_services(
    libraries: DriverLibraries, spelling: str
) -> None:
    platform = Platform.build("hopper-1", clock=datetime.now(timezone.utc))
    with World(platform, cache=str(Path(libraries.folder).parent)) as world:
        environment = world.environment({"http_proxy": "http://192.0.2.1:3128", spelling: "intranet"})
    assert environment["NO_PROXY"] == environment["no_proxy"] == "127.0.0.1,localhost,intranet"


FOREIGN = {
    "REQUESTS_CA_BUNDLE": "/missing",
    "CURL_CA_BUNDLE": "/missing",
    "NV_ALLOW_HOLD_CERT": "true",
    "NV_ATTESTATION_SERVICE_KEY": "of the user",
    "NVAT_TLS_CA_CERT": "/missing",
    "NVAT_FORMAT": "json",
    "NVATTEST_COMPAT_VERBOSE": "0",
}


def test_settings_keys_and_tls_roots_of_the_user_do_not_reach_a_world() -> None:
    code = f"import os; print(sorted(set(os.environ) & set({sorted(FOREIGN)})))"
    both = f"{shlex.join([sys.executable, '-c', code])} && {shlex.join([*PROGRAM, 'attest'])}"
    done = simulate("--platform", "hopper-1", "--", "sh", "-c", both, env=os.environ | FOREIGN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("[]\n")
    assert "Result: TRUSTED (simulated), code 0 (Ok)" in done.stdout


def test_a_setting_on_the_command_line_of_simulate_reaches_its_program() -> None:
    command = ["env", "NVAT_FORMAT=json", *PROGRAM, "attest"]
    done = simulate("--platform", "hopper-1", "--", *command, env=os.environ | FOREIGN | {"NVAT_FORMAT": "text"})
    assert json.loads(done.stdout)["result_code"] == 0


def test_the_lines_for_another_shell_unset_what_the_user_has_set() -> None:
    with subprocess.Popen(
        [*PROGRAM, "simulate", "--platform", "hopper-1"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | FOREIGN | {"NV_CUDA_LIB_VERSION": "12.9.1-1"},  # as CUDA's container images have it
    ) as up:
        assert up.stdout is not None
        lines = [up.stdout.readline().split() for _ in range(len(FOREIGN))]
        up.terminate()  # a shell in the background has SIGINT ignored
    assert lines == [["unset", name] for name in sorted(FOREIGN)]


def test_a_remote_verification_in_a_world_says_that_it_is_simulated_in_text_json_and_token(tmp_path: Path) -> None:
    program = f"{' '.join(PROGRAM)} attest --verifier remote"
    script = tmp_path / "all.sh"
    script.write_text(
        f"cd {tmp_path}\n{program} > refused.txt; echo $? > status\nset -e\n{program} --accept-simulated > text\n"
        f"{program} --accept-simulated --token-out token -f json > json\nenv > environment\n"
    )
    done = simulate("--platform", "hopper-1", "--", "sh", str(script))
    assert done.returncode == 0, done.stderr
    service = dict(
        line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line
    )["NVAT_NRAS_BASE_URL"]  # fmt: skip
    assert (tmp_path / "status").read_text() == f"{701 % 256}\n"
    assert "the token is about simulated devices" in (tmp_path / "refused.txt").read_text()
    text = (tmp_path / "text").read_text()
    assert (
        f"verified by a remote service that is not NVIDIA's: {service}   *** SIMULATED: this proves nothing ***" in text
    )
    assert f"\nkey: key set fetched from {service}/.well-known/jwks.json without TLS\n" in text
    assert text.endswith("Result: TRUSTED (simulated), code 0 (Ok)\n")
    result = json.loads((tmp_path / "json").read_text())
    vouched = result["verified_by"]
    assert (vouched["issuer"], vouched["nvidia"], vouched["simulated"]) == (service, False, True)
    assert json.loads((tmp_path / "token").read_text()) == result["detached_eat"]
    payload = result["detached_eat"][0][1].split(".")[1]
    overall = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert overall["nvattest"]["simulated"] is True


def test_programs_on_nvidias_python_packages_find_every_service_in_the_world(libraries: DriverLibraries) -> None:
    platform = Platform.build("hopper-1", clock=datetime.now(timezone.utc))
    with World(platform, cache=str(Path(libraries.folder).parent), delay={"rim": 0.01}, service_key="k") as world:
        variables = world.variables()
        services = world.services
        assert variables["NV_RIM_URL"] == f"{services.rim_url}/v1/rim/"
        assert variables["NV_OCSP_URL"] == services.ocsp_url
        for name, kind in (("NV_NRAS_GPU_URL", "gpu"), ("NV_NRAS_NVSWITCH_URL", "switch")):
            assert variables[name] == f"{services.nras_url}/v3/attest/{kind}"
            assert requests.post(variables[name], data=b"{}", timeout=30).status_code == 401
        assert services.delay_of("rim") == 0.01
    assert not {value for value in variables.values() if "nvidia.com" in value}


@pytest.mark.parametrize("kind", ["tdx", "snp-genoa"])
def test_in_a_world_with_a_guest_the_service_of_its_maker_is_asked_and_a_verdict_follows(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "tdx":
        pytest.importorskip("dcap_qvl", reason="dcap-qvl (extra tdx) is not here")
    token = ["--challenge", "c0ffee" * 8, "--token-out", f"{tmp_path}/token", "--jwks-out", f"{tmp_path}/jwks"]
    quote, root = f"{tmp_path}/quote", f"{tmp_path}/guest/cpu-root.pem"
    guest = ["attest", "--simulate", "hopper-1", "--simulate-guest", kind, "--bind-tee", quote]
    assert main([*guest, *token]) == 0
    fetch = ["bundle", "fetch", "--tee-quote", quote, "--cpu-anchors", root, "--output", f"{tmp_path}/bundle"]
    world = ["--platform", "hopper-1", "--guest", kind, "--guest-files", f"{tmp_path}/guest"]
    done = simulate(*world, "--", *PROGRAM, *fetch)
    assert done.returncode == 0, done.stderr
    demands = ["--cpu-policy", f"{tmp_path}/guest/cpu-policy.json", "--tee-collateral", f"{tmp_path}/bundle"]
    said = ["--token-file", f"{tmp_path}/token", "--jwks", f"{tmp_path}/jwks", "--challenge", "c0ffee" * 8]
    roots = ["--cpu-anchors", root, "--accept-simulated"]
    assert main(["verify-token", *said, "--tee-quote", quote, *demands, *roots]) == 0
    capsys.readouterr()
    # Without a guest no maker's service knows anything, and the real ones are not asked.
    done = simulate("--platform", "hopper-1", "--", *PROGRAM, *fetch)
    assert done.returncode == 104
    assert "http://127.0.0.1" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--fault", "guest:debug"], "needs --guest"),
        (["--guest-files", "x"], "needs --guest"),
        (["--guest", "other"], "no such guest"),
        (["--guest", "tdx", "--guest-files", "/proc/none"], "--guest-files"),
    ],
)
def test_what_no_guest_has_is_an_error(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *options, "--", "true"]) not in (0, None)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("latency", ["ocsp", "ocsp=-1", "ocsp=x", "mail=1", "rim=99999"])
def test_a_latency_that_is_none_is_an_argument_error(latency: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--latency", latency, "--", "true"]) == 105
    assert "SERVICE=SECONDS" in capsys.readouterr().err


def test_refusing_weakened_answers_is_no_promise_about_a_local_verification(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "--simulate", "hopper-1", "--refuse-weakened"]) == 105
    assert "--refuse-weakened" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        ("--offline",), ("--bundle", __file__), ("--trust-anchors", __file__), ("--token-format", "ear"),
        ("--signing-key", __file__), ("--issuer", "me"), ("--jwks-out", "jwks.json"), ("--token-lifetime", "5"),
        ("--challenge", "11" * 32),
    ],
)  # fmt: skip
def test_what_only_the_local_verifier_can_do_is_an_argument_error_beside_the_remote_one(
    option: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attest", "--verifier", "remote", *option]) == 105
    assert f"{option[0]}: cannot go with --verifier remote" in capsys.readouterr().err


def test_a_fault_without_a_simulation_is_an_argument_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "--fault", "gpu0:measurement=9"]) == 105
    assert "--fault: gpu0:measurement=9 needs --simulate" in capsys.readouterr().err


@pytest.mark.parametrize(
    "other",
    [
        ("--gpu-evidence-source", "file", "--gpu-evidence-file", __file__), ("--nvswitch-evidence-source", "file"),
        ("--bundle", __file__), ("--rim-store", "dir"), ("--rim-url", "http://127.0.0.1"), ("--ocsp-url", "aia"),
        ("--trust-anchors", __file__), ("--verifier", "remote"), ("--nras-url", "http://127.0.0.1"),
        ("--device", "nvswitch"),
    ],
)  # fmt: skip
def test_a_simulation_takes_no_devices_collateral_or_verifier_of_another_origin(
    other: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attest", "--simulate", "hopper-1", *other]) == 105
    said = capsys.readouterr()
    assert other[0] in said.err
    assert said.out == ""


def test_the_exit_status_is_the_commands() -> None:
    assert simulate("--platform", "hopper-1", "--", "sh", "-c", "exit 7").returncode == 7


def test_a_command_that_is_not_there_is_an_error() -> None:
    done = simulate("--platform", "hopper-1", "--", "/no/such/program")
    assert done.returncode == 4
    assert "/no/such/program" in done.stderr


def test_a_killed_simulation_leaves_no_child_and_no_socket(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > {marker}; exec sleep 600"]
    with subprocess.Popen([*PROGRAM, "simulate", "--platform", "hopper-1", "--", *command]) as process:
        deadline = time.monotonic() + 30
        while not marker.exists() or not marker.read_text().strip():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child = int(marker.read_text())
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the child outlived the simulation"
        time.sleep(0.02)
    assert f"nvattest-sim-{process.pid}" not in Path("/proc/net/unix").read_text()


def test_without_a_compiler_the_message_says_so_and_the_demo_still_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = simulate("--platform", "hopper-1", "--", *PROGRAM, "attest", env=bare)
    assert done.returncode != 0
    assert "compiler" in done.stderr
    assert main(["attest", "--simulate", "hopper-1"]) == 0
    assert "Result: TRUSTED (simulated)" in capsys.readouterr().out


def test_a_lie_told_by_simulate_is_seen_by_attest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "--simulate", "--fault", "gpu3:measurement=9"]) == 12
    out = capsys.readouterr().out
    assert "1 of 33 golden values differ: index 9 (vbios)" in out
    assert "GPU-3  NOT TRUSTED" in out
    assert main(["attest", "--simulate", "--fault", "gpu3:measurement=9", "--verbose"]) == 12
    assert "1 of 12 devices failed: GPU-3" in capsys.readouterr().out


def test_a_lie_that_only_a_live_responder_tells_is_heard_live_and_refused_elsewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault = ("--fault", "gpu0:ocsp-nonce=1")
    command = [*PROGRAM, "-f", "json", "attest", "--no-cache"]
    result = json.loads(simulate("--platform", "hopper-1", *fault, "--", *command).stdout)
    failed = [check["id"] for check in result["appraisal"]["devices"][0]["checks"] if not check["acceptable"]]
    assert failed == ["chain-revocation"]
    assert result["result_code"] != 0
    assert main(["attest", "--simulate", "hopper-1", *fault]) == 4
    assert "nvattest simulate --platform hopper-1 --fault gpu0:ocsp-nonce=1" in capsys.readouterr().out


@pytest.mark.parametrize(("fault", "word"), [("platform:cc-off", "code 509"), ("platform:debug", "DevTools"),
                                             ("gpu2:hint-driver=1.2", "the driver said")])  # fmt: skip
def test_attest_simulate_hears_the_lies_of_the_driver(
    fault: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attest", "--simulate", "--fault", fault]) not in (0, 1)
    assert word in capsys.readouterr().out


def test_a_terminated_simulation_ends_a_command_that_does_not_want_to_end(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    stubborn = (
        "import os, signal, time, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"open({str(tmp_path / 'new')!r}, 'w').write(str(os.getpid()));"
        f"os.rename({str(tmp_path / 'new')!r}, {str(marker)!r}); time.sleep(600)"
    )
    with subprocess.Popen([*PROGRAM, "simulate", "--platform", "hopper-1", "--", sys.executable, "-c", stubborn]) as it:
        deadline = time.monotonic() + 30
        while not marker.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        it.send_signal(signal.SIGTERM)
        it.send_signal(signal.SIGTERM)  # the second says that there is no time to wait for the first
        assert it.wait(20) == 128 + signal.SIGKILL
    assert not Path(f"/proc/{marker.read_text()}").exists()


def test_ctrl_c_at_a_terminal_is_the_commands_and_not_the_simulations() -> None:
    program = (
        "import signal, sys, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "try:\n    print('waiting', flush=True); time.sleep(600)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(7 if signal.sigtimedwait([signal.SIGTERM], 1.5) is None else 8)\n"
    )
    command = [*PROGRAM, "simulate", "--platform", "hopper-1", "--", sys.executable, "-c", program]
    terminal, side = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        # As at a shell: whoever runs the tests may ignore it (nohup, a job in the background), and a child inherits that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command,
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - two system calls, between fork and exec
    ) as process:
        os.close(side)
        said = b""
        while b"waiting" not in said:
            said += os.read(terminal, 1024)
        os.write(terminal, b"\x03")
        try:
            assert process.wait(20) == 7
        finally:
            process.kill()
    os.close(terminal)


def test_the_list_names_every_platform_and_fault(capsys: pytest.CaptureFixture[str]) -> None:
    from nvattest.testing import GUEST_LIES, GUESTS, LIES, PLATFORMS
    from nvattest.testing.services import ServiceFaultKind

    assert main(["simulate", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PLATFORMS)
    assert all(name in out for name in GUESTS)
    assert all(spec.name in out and spec.meaning in out for spec in (*LIES, *GUEST_LIES))
    assert " nvmlDeviceGetConfComputeGpuCertificate," in out
    # Every fault of a service with its value and its meaning: the words alone do not say what the value is.
    assert all(f"  {kind.value}" in out and kind.meaning in out for kind in ServiceFaultKind)
    assert "  rate-limited[=SECONDS] " in out
    assert main(["simulate", "--service-fault", "slow", "--", "true"]) == 4
    assert "write slow=SECONDS" in capsys.readouterr().err


def test_the_hook_runs_in_a_simulated_guest_without_a_configuration_of_the_user(tmp_path: Path) -> None:
    command = [*PROGRAM, "simulate", "--platform", "hopper-1", "--hook"]
    root = tmp_path / "guest"
    done = subprocess.run([*command, "--root", str(root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Confidential Compute GPUs Ready state: ready")
    assert json.loads((root / "run/nvattest/state.json").read_text())["verdict"] == "trusted"
    again = subprocess.run([*command, "--root", str(root)], capture_output=True, text=True)
    assert (again.returncode, "is not empty" in again.stderr) == (4, True)
    lied = subprocess.run([*command, "--fault", "gpu0:measurement=9"], capture_output=True, text=True)
    assert lied.returncode == 1
    assert "not-ready" in lied.stdout.splitlines()[0]
    checked = subprocess.run([*command, "--", "check", "-f", "json"], capture_output=True, text=True)
    assert [item["id"] for item in json.loads(checked.stdout)["checks"] if item["severity"] == "error"] == ["ran"]


def test_a_folder_for_a_guest_without_a_guest_is_an_argument_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--root", "/tmp/x"]) == 105
    assert "--hook" in capsys.readouterr().err


def test_no_code_of_a_folder_that_others_can_write_into_runs(tmp_path: Path) -> None:
    """Root in another user's home: the folder is there before, with a library of that user's in it."""
    base, temporary = tmp_path / "xdg", tmp_path / "tmp"
    temporary.mkdir()
    made = build_driver_libraries(base / "nvattest/simulated-driver")
    for library in (made.nvml, made.nscq):
        Path(library).write_bytes(b"theirs")
    (base / "nvattest/simulated-driver").chmod(0o777)
    done = simulate(
        "--platform", "hopper-1", "--", *PROGRAM, "attest",
        env={**os.environ, "XDG_CACHE_HOME": str(base), "TMPDIR": str(temporary)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(made.nvml).read_bytes() == b"theirs"
    # It was built for this world alone, and is gone with it.
    assert list(temporary.iterdir()) == []
