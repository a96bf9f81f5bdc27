"""The hook without a bundle: cache and network, slow networks, dead networks; and the commands beside the hook."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from typing import Any

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.cli import hook
from nvattest.testing.services import Services, wall_clock

from .hook_world import HookWorld, NewWorld


def use(guest: HookWorld, services: Services, **more: Any) -> None:
    guest.configure(collateral={"network": True, "rim_url": services.rim_url, "ocsp_url": services.ocsp_url, **more})


def test_an_hgx_node_is_verified_over_a_slow_network_within_the_budget(world: NewWorld) -> None:
    guest = world("hopper-8-ppcie", bundle=False)
    with Services(guest.platform, delay=0.1, now=wall_clock) as services:
        use(guest, services)
        ended = guest.run()
    assert guest.state["reason"] is None
    assert guest.ready == 1
    assert ended.seconds < 8
    print(f"\nHGX node, 100 ms per answer, nothing cached: {ended.seconds:.2f} s, {len(services.log)} requests")


def test_what_the_network_gave_is_not_asked_for_again(world: NewWorld) -> None:
    guest = world(bundle=False)
    with Services(guest.platform, now=wall_clock) as services:
        use(guest, services, cache="/run/nvattest-cache")
        guest.run()
        assert guest.ready == 1
        asked = len(services.log)
        guest.forget()
        guest.run()
        assert len(services.log) == asked
    assert guest.ready == 1


def test_a_whole_bundle_leaves_nothing_to_ask(world: NewWorld) -> None:
    guest = world()
    with Services(guest.platform, now=wall_clock) as services:
        use(guest, services)
        guest.run()
        assert services.log == []
    assert guest.ready == 1


def test_a_network_that_does_not_answer_ends_within_the_budget(world: NewWorld) -> None:
    guest = world(bundle=False)
    guest.configure(budget={"hook": 1.5}, on_failure="block")
    with Services(guest.platform, faults=("slow=30",), now=wall_clock) as services:
        use(guest, services)
        ended = guest.run()
    assert ended.seconds < 4
    assert ended.status in (1, 6)
    assert guest.ready == 0
    assert guest.state["reason"]["message"]
    assert not guest.token.exists()


@pytest.mark.parametrize("ahead", [-5, 299])
def test_a_responder_whose_clock_is_a_little_off_is_believed(world: NewWorld, ahead: int) -> None:
    guest = world(bundle=False)
    with Services(guest.platform, now=lambda: wall_clock() + timedelta(seconds=ahead)) as services:
        use(guest, services)
        guest.run()
    assert guest.state["reason"] is None
    assert guest.ready == 1


def test_a_responder_whose_clock_is_too_far_off_leaves_the_gpu_not_ready_and_the_record_names_the_clock(
    world: NewWorld,
) -> None:
    guest = world(bundle=False)
    guest.configure(on_failure="block")
    # The guest's clock is an hour behind as likely as the responder's is an hour ahead.
    with Services(guest.platform, now=lambda: wall_clock() + timedelta(hours=1)) as services:
        use(guest, services)
        ended = guest.run()
    assert guest.ready == 0
    assert not guest.token.exists()
    said = json.dumps(guest.state) + ended.stderr + ended.stdout
    assert "the responder's clock says" in said
    assert "check this machine's clock" in said


# --- the record -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lies", [[], ["gpu0:signature"]])
def test_the_record_follows_its_schema(world: NewWorld, lies: list[str]) -> None:
    guest = world(lies=lies)
    guest.run()
    jsonschema.Draft202012Validator(json.loads(schema_bytes("hook-state-1.json"))).validate(guest.state)


def test_nothing_that_the_host_can_read_has_the_token_in_it(world: NewWorld) -> None:
    guest = world()
    guest.run()
    [[_, overall], detached] = json.loads(guest.token.read_text())
    told = "\n".join(guest.log + guest.kernel_log) + guest.file("run/nvattest/state.json").read_text()
    for token in (overall, *detached.values()):
        assert token not in told
        assert token.split(".")[2] not in told


# --- nvattest hook ----------------------------------------------------------------------------------------------------


def options_of(add_arguments: Any, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--format", default="text")
    return parser.parse_args(words)


def call(guest: HookWorld, *words: str) -> tuple[int, str]:
    """In a process of its own, for NVML is one per process."""
    code = "import sys\nfrom nvattest.cli import main\nsys.exit(main(['hook', *sys.argv[1:]]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--root", str(guest.root)], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_status_uses_the_words_of_nvidia_smi(world: NewWorld) -> None:
    guest = world()
    status, text = call(guest, "status")
    assert status == 1
    assert "Confidential Compute GPUs Ready state: not-ready" in text
    assert "Last verdict: none" in text
    guest.run()
    status, text = call(guest, "status")
    assert status == 0
    lines = text.splitlines()
    assert lines[:3] == [
        "Confidential Compute GPUs Ready state: ready",
        "CC status: ON",
        "DevTools Mode: OFF",
    ]
    assert lines[3].startswith("Last verdict: trusted SIMULATED")
    status, text = call(guest, "status", "--format", "json")
    facts = json.loads(text)
    assert (facts["verdict"], facts["ready"], facts["cc_on"], facts["current"]) == ("trusted", True, True, True)


def test_status_warns_of_ready_gpus_without_a_verdict(world: NewWorld) -> None:
    guest = world(lies=["gpu0:signature"])
    guest.run()
    guest.server.change(ready=1)
    status, text = call(guest, "status")
    assert status == 1
    assert "WARNING: the GPUs are ready without a verdict that stands" in text
    assert "Reason: not-trusted" in text


def checks(guest: HookWorld, *words: str) -> dict[str, str]:
    _, text = call(guest, "check", "--format", "json", *words)
    return {item["id"]: item["severity"] for item in json.loads(text)["checks"]}


def test_check_finds_nothing_wrong_with_a_guest_that_works(world: NewWorld) -> None:
    guest = world()
    guest.run()
    status, text = call(guest, "check")
    assert status == 0, text
    assert "ERROR" not in text


@pytest.mark.parametrize("lies", [["driver-rim:signature"], ["vbios-rim:other-root"], []])
def test_check_finds_a_bundle_that_does_not_verify(world: NewWorld, lies: list[str]) -> None:
    guest = world(lies=lies)
    if not lies:
        del guest.settings["trust_anchors"]
        guest.configure()
    [finding] = [
        item for item in json.loads(call(guest, "check", "--format", "json")[1])["checks"] if item["id"] == "bundle"
    ]
    assert finding["severity"] == "error"
    assert "NOT VERIFIED" in finding["message"]


def test_check_finds_each_silent_failure(world: NewWorld) -> None:
    guest = world()
    assert checks(guest)["ran"] == "error"
    assert checks(guest, "--hook-path", "/opt/kata/hooks")["hook-path"] == "error"
    guest.run()
    guest.hook.chmod(0o644)
    found = checks(guest)
    assert (found["hook-mode"], found["hook-missing"]) == ("error", "error")
    guest.hook.rename(guest.hook.parent / "real")
    guest.hook.symlink_to("real")
    assert checks(guest)["hook-symlink"] == "error"
    (guest.root / "proc/cmdline").write_text("quiet nvrc.smi.srs=1 x=y\n")
    assert checks(guest)["ready-by-others"] == "error"
    (guest.root / "proc/cmdline").write_text("quiet\n")
    (guest.root / "run/kata-containers/abc").mkdir(parents=True)
    (guest.root / "run/kata-containers/abc/config.json").write_text('{"hooks": {"createContainer": [{"path": "/x"}]}}')
    assert checks(guest)["hook-dropped"] == "warning"
    os.rename(guest.root / "usr/lib/simulated", guest.root / "usr/lib/gone")
    assert checks(guest)["library"] == "error"
    guest.file("etc/nvattest/hook.toml").write_text("what = 1")
    assert checks(guest)["configuration"] == "error"


def test_check_sees_ready_gpus_that_nobody_attested(world: NewWorld) -> None:
    guest = world()
    guest.server.change(ready=1)
    assert checks(guest)["ready-by-others"] == "error"
    guest.server.change(ready=0, cc_feature=0)
    assert checks(guest)["devices"] == "error"


# --- nvattest gate ----------------------------------------------------------------------------------------------------

GATE = (
    "import sys, argparse\nfrom nvattest.cli.hook import add_arguments_gate, run_gate\n"
    "p = argparse.ArgumentParser(); add_arguments_gate(p)\nsys.exit(run_gate(p.parse_args(sys.argv[1:])))"
)


def through_the_gate(guest: HookWorld, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", GATE, "--root", str(guest.root), "--", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_gate_runs_the_command_on_attested_devices_only(world: NewWorld) -> None:
    guest = world()
    done = through_the_gate(guest, "echo", "--through")
    assert (done.returncode, done.stdout) == (0, "--through\n")
    assert guest.ready == 1
    bad = world(lies=["gpu0:signature"])
    done = through_the_gate(bad, "echo", "through")
    assert (done.returncode, done.stdout) == (1, "")
    assert bad.ready == 0


def test_the_gate_says_like_a_shell_what_cannot_be_run(world: NewWorld) -> None:
    guest = world()
    assert through_the_gate(guest, "/no/such/program").returncode == 127
    assert through_the_gate(guest, str(guest.root)).returncode == 126


def test_the_program_of_the_layer_has_the_commands_of_nvattest(world: NewWorld) -> None:
    guest = world()
    # The hook's file stands for the layer's program: it runs nvattest.guest and nothing of the command line.
    before = guest.run("check", "-f", "json")
    assert (before.status, json.loads(before.stdout)["good"]) == (1, False)
    assert guest.run("status").status == 1
    through = guest.run("gate", "--", "echo", "through")
    assert (through.status, through.stdout) == (0, "through\n")
    assert guest.run("status").stdout.splitlines()[0] == "Confidential Compute GPUs Ready state: ready"
    facts = json.loads(guest.run("status", "--format", "json").stdout)
    assert (facts["verdict"], facts["stage"]) == ("trusted", "gate")
    assert json.loads(call(guest, "status", "--format", "json")[1])["verdict"] == "trusted"
    assert guest.run("check").status == 0
    bad = world(lies=["gpu0:signature"])
    refused = bad.run("gate", "--", "echo", "through")
    assert (refused.status, refused.stdout) == (1, "")


def test_the_gate_needs_a_command() -> None:
    from nvattest.cli.arguments import ArgumentError

    with pytest.raises(ArgumentError):
        hook.run_gate(options_of(hook.add_arguments_gate))
    assert options_of(hook.add_arguments, "status").action == "status"


# --- a network that comes late ----------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


# Several rounds, so some five seconds each: the suite has the stage of a boot.
@pytest.mark.parametrize(
    "words", [("--stage", "init"), pytest.param(("--stage", "watch", "--once"), marks=pytest.mark.exhaustive)]
)
def test_a_network_that_comes_late_is_waited_for_at_boot(world: NewWorld, words: tuple[str, ...]) -> None:
    guest = world(bundle=False)
    with Services(guest.platform, faults=("drop*18",)) as services:
        use(guest, services)
        ended = guest.end(guest.start(*words), seconds=90)
    assert ended.status == 0, ended.stderr
    assert guest.ready == 1
    assert len(guest.server.calls("nvmlDeviceGetConfComputeGpuAttestationReport")) == 1
    assert [item["code"] for item in guest.state["findings"]] == ["network"]


@pytest.mark.parametrize("words", [("--stage", "init"), ("--stage", "watch", "--once")])
def test_a_network_that_does_not_come_ends_with_the_budget_and_says_what_is_missing(
    world: NewWorld, words: tuple[str, ...]
) -> None:
    guest = world(bundle=False)
    url = f"http://127.0.0.1:{closed_port()}"
    guest.configure(collateral={"network": True, "rim_url": url, "ocsp_url": url}, budget={"init": 3.0, "watch": 3.0})
    ended = guest.end(guest.start(*words), seconds=60)
    assert ended.status in (1, 6)
    assert guest.ready == 0
    assert guest.state["milliseconds"]["end"] > 1500
    assert "RIM" in guest.state["reason"]["message"]


def test_a_service_that_fails_is_asked_once_by_each_later_round_and_less_and_less_often(world: NewWorld) -> None:
    guest = world(bundle=False)
    guest.configure(budget={"init": 6.0})
    with Services(guest.platform, faults=("status=500",)) as services:
        use(guest, services)
        ended = guest.end(guest.start("--stage", "init"), seconds=60)
        asked = len(services.log)
    assert (ended.status, guest.ready) == (1, 0)
    # A first round of some eight for each of two hosts; then rounds after 0.5, 1 and 2 seconds.
    assert 2 * 7 <= asked <= 2 * (8 + 3)


def test_what_a_service_does_not_have_is_not_asked_for_again(world: NewWorld) -> None:
    guest = world(bundle=False)
    with Services(guest.platform, faults=("status=404",)) as services:
        use(guest, services)
        ended = guest.end(guest.start("--stage", "init"), seconds=60)
        asked = [item.key for item in services.log]
    assert (ended.status, guest.ready) == (1, 0)
    assert len(asked) == len(set(asked))
    assert guest.state["findings"] == []


def test_a_hook_does_not_wait_for_the_network(world: NewWorld) -> None:
    guest = world(bundle=False)
    url = f"http://127.0.0.1:{closed_port()}"
    guest.configure(collateral={"network": True, "rim_url": url, "ocsp_url": url})
    guest.run()
    assert guest.state["cause"] == "not-trusted"
    assert guest.state["findings"] == []
