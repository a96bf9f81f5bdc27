"""Which devices become ready: those that were attested, all that there are, and no others."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from nvattest.testing import Platform
from nvattest.testing.driver_answers import Fault
from nvattest.testing.world import World

from .hook_world import NewWorld

SET_READY = "nvmlSystemSetConfComputeGpusReadyState"
REPORT = "nvmlDeviceGetConfComputeGpuAttestationReport"


def another_gpu() -> Platform:
    """A genuine device with other firmware than NVIDIA's golden values."""
    return Platform.build("hopper-1", seed=77, lies=["gpu0:measurement=9"], clock=datetime.now(timezone.utc))


def when_set_ready(work: Callable[[], Any]) -> Callable[[str, bytes], None]:
    """Do this once, before the driver carries out the call that sets the GPUs ready."""
    done: list[bool] = []

    def before(name: str, data: bytes) -> None:
        if name == SET_READY and data == struct.pack("<I", 1) and not done:
            done.append(True)
            work()

    return before


# --- a swap -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("prestart",), ("--stage", "init"), ("--stage", "watch", "--once")])
def test_a_gpu_that_is_swapped_before_the_ready_call_is_not_left_ready(world: NewWorld, words: tuple[str, ...]) -> None:
    guest = world()
    guest.configure(on_failure="block")
    guest.server.before = when_set_ready(lambda: guest.swap(another_gpu()))
    ended = guest.run(*words)
    assert guest.server.ready_history == (0, 1, 0)
    assert guest.ready == 0
    assert ended.status == 10
    assert not guest.token.exists()
    assert (guest.state["verdict"], guest.state["cause"]) == ("not-trusted", "devices-changed")
    assert "GPUs not ready" in ended.stderr


def test_a_driver_that_is_loaded_again_before_the_ready_call_counts_as_a_swap(world: NewWorld) -> None:
    guest = world()
    guest.server.before = when_set_ready(guest.load_driver)
    guest.run()
    assert guest.ready == 0
    assert guest.state["cause"] == "devices-changed"


CC_ADMIN = """
import sys, warnings
warnings.simplefilter("ignore")
from nvattest.compat.verifier import cc_admin
nonce = "ab" * 32
params = {"verbose": False, "test_no_gpu": False, "driver_rim": None, "vbios_rim": None, "user_mode": False,
          "rim_service_url": None, "allow_hold_cert": None, "ocsp_url": None, "ocsp_nonce_disabled": False,
          "service_key": None}
try:
    print(cc_admin.attest(params, nonce, cc_admin.collect_gpu_evidence(nonce))[0])
except Exception as error:
    print(getattr(error, "code", repr(error)))
"""


@pytest.mark.parametrize(("swapped", "said", "ready"), [(False, "True", 1), (True, "devices-changed", 0)])
def test_the_old_verifier_does_not_leave_a_swapped_gpu_ready_either(swapped: bool, said: str, ready: int) -> None:
    with World(Platform.build("hopper-1", clock=datetime.now(timezone.utc))) as simulated:
        if swapped:
            simulated.driver.before = when_set_ready(lambda: simulated.driver.swap(another_gpu()))
        done = subprocess.run(
            [sys.executable, "-c", CC_ADMIN], env=simulated.environment(), capture_output=True, text=True, timeout=60
        )
        assert done.stdout.splitlines()[-1:] == [said], done.stderr
        assert simulated.driver.ready_history[-1] == ready
        assert simulated.driver.state.ready == ready


# --- the number -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [None, 1, 2])
def test_a_gpu_on_the_bus_that_was_not_attested_is_a_refusal_that_names_it(
    world: NewWorld, expected: int | None
) -> None:
    guest = world()
    guest.plug("0000:77:00.0", "0x030200")
    if expected is not None:
        guest.configure(expected_gpus=expected)
    guest.run()
    assert guest.ready == 0
    assert 1 not in guest.server.ready_history
    state = guest.state
    assert state["cause"] == "not-trusted"
    if expected == 1:
        assert state["reason"]["code"] == "device-count"
        assert "2 on the PCI bus (0000:01:00.0, 0000:77:00.0), 1 attested" in state["reason"]["message"]


def test_a_policy_that_expects_fewer_does_not_switch_the_comparison_off_either(world: NewWorld) -> None:
    guest = world()
    guest.plug("0000:77:00.0", "0x030200")
    guest.configure(policy="/etc/nvattest/policy.toml")
    guest.file("etc/nvattest/policy.toml").write_text("expected_gpus = 1\n")
    guest.run()
    assert guest.ready == 0
    assert guest.state["reason"]["code"] == "device-count"


def test_a_switch_on_the_bus_that_was_not_attested_is_refused(world: NewWorld) -> None:
    guest = world()
    guest.plug("0000:41:00.0", "0x068000")
    guest.run()
    assert guest.ready == 0
    assert "NVSwitches: 1 on the PCI bus (0000:41:00.0), 0 attested" in guest.state["reason"]["message"]


def test_a_bus_that_cannot_be_read_agrees_with_nothing(world: NewWorld) -> None:
    guest = world()
    os.rename(guest.file("sys/bus/pci/devices"), guest.file("tmp/devices"))
    guest.run()
    assert guest.ready == 0
    assert guest.state["reason"]["code"] == "device-count"
    assert "sysfs is not there" in guest.state["reason"]["message"]


def test_a_count_that_agrees_is_accepted(world: NewWorld) -> None:
    guest = world()
    guest.configure(expected_gpus=1, expected_switches=0)
    guest.run()
    assert guest.ready == 1


# --- the watch --------------------------------------------------------------------------------------------------------


def test_the_watch_attests_once_in_an_interval(world: NewWorld) -> None:
    guest = world()
    # It looks at the devices as often as it can: every look would be an attestation if it did not know its own record.
    guest.around("entry", "identify", before="if calls == 20: os.kill(os.getpid(), signal.SIGTERM)")
    guest.before_main("from nvattest.guest import entry\nentry.LOOK_SECONDS = 0.01\n")
    ended = guest.end(guest.start("--stage", "watch"), seconds=60)
    assert ended.status == 0
    assert len(guest.server.calls("nvmlDeviceGetConfComputeGpuAttestationReport")) == 1


def test_the_watch_attests_at_once_when_a_gpu_is_swapped(world: NewWorld) -> None:
    guest = world()
    process = guest.start("--stage", "watch")
    until = time.monotonic() + 30
    while guest.ready == 0 and time.monotonic() < until:
        time.sleep(0.01)
    guest.swap(another_gpu())
    while guest.ready == 1 and time.monotonic() < until:
        time.sleep(0.01)
    process.terminate()
    guest.end(process, seconds=30)
    assert guest.ready == 0
    assert not guest.token.exists()


@pytest.mark.parametrize("call", [REPORT, "nvmlSystemGetDriverVersion"])
def test_a_gpu_that_is_swapped_while_the_watch_attests_again_does_not_stay_ready_for_the_round(
    world: NewWorld, call: str
) -> None:
    guest = world()
    guest.configure(watch={"interval": 1.0})
    answer = threading.Event()
    held: list[str] = []

    def hold(name: str, _: bytes) -> None:
        # A host that makes the second round last: the GPUs are ready by the first.
        if name == call and guest.ready and not held:
            held.append(name)
            answer.wait(60)

    guest.server.before = hold
    process = guest.start("--stage", "watch")
    until = time.monotonic() + 30
    while not held and time.monotonic() < until:
        time.sleep(0.01)
    guest.swap(another_gpu())
    while guest.ready == 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert (guest.ready, answer.is_set()) == (0, False)
    answer.set()
    while guest.token.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not guest.token.exists()
    process.terminate()
    guest.end(process, seconds=30)
    assert guest.ready == 0


@pytest.mark.parametrize("call", ["nscq:attestation_report", "nscq:certificate"])
def test_one_switch_of_four_that_gives_no_evidence_fails_the_node(world: NewWorld, call: str) -> None:
    guest = world("hopper-8-ppcie")
    guest.server.faults[f"{call}@2"] = Fault(return_code=249)
    ended = guest.run()
    assert (guest.ready, guest.state["verdict"]) == (0, "not-trusted")
    assert "GPUs not ready" in ended.stderr
    assert call.removeprefix("nscq:") in guest.state["reason"]["message"]
