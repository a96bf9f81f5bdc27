"""The watch as a process of an extension's manifest: with a ``wait_socket`` no pod exists before a verdict stands.

The agent here follows the rules of ``nvattest.guest.extension``, which are the real one's: processes in their order, each
waited for until its file appears; one that does not come in time ends the agent, and as process 1 the guest.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvattest.guest.extension import VARIABLES, add_process, launch_plan, our_entry, read_manifest

from .hook_world import HookWorld, NewWorld

MOUNT = "/run/kata-extensions/coco"
COCO = """\
schema_version = 1
[paths]
"ocicrypt-config" = "etc/ocicrypt_config.json"

[[process]]
id = "attestation-agent"
level = 1
path = "usr/local/bin/attestation-agent"
wait_socket = "/run/attestation-agent.sock"
timeout_secs = "60"
"""
# What the attestation agent would find when it is started.
AGENT = """\
#!/bin/sh
if [ -e {run}/nvattest/token.json ]; then echo verdict; else echo none; fi > {run}/seen
: > {run}/attestation-agent.sock
"""


class EndedError(Exception):
    """The agent ended, and the guest with it."""


class ManifestAgent:
    """An agent of 4.x up to the point where it serves."""

    def __init__(self, guest: HookWorld, manifest: str, *, most: int = 3) -> None:
        self.guest = guest
        self.root = Path(f"{guest.root}{MOUNT}")
        self.most = most
        self.started: list[subprocess.Popen[bytes]] = []
        self.names: list[str] = []
        for path in ("usr/share/oci/hooks/prestart", "etc/kata-extensions", "etc/nvattest", "usr/local/bin"):
            (self.root / path).mkdir(parents=True)
        (self.root / "etc/kata-extensions/components.toml").write_text(manifest)
        shutil.copy2(guest.hook, self.root / "usr/share/oci/hooks/prestart/nvattest-hook")
        for name in ("hook.toml", "bundle.json"):
            shutil.copy2(guest.root / "etc/nvattest" / name, self.root / "etc/nvattest")
        agent = self.root / "usr/local/bin/attestation-agent"
        agent.write_text(AGENT.format(run=guest.root / "run"))
        agent.chmod(0o755)

    def serve(self) -> None:
        """Start what the manifest says; afterwards pods can be created."""
        manifest = read_manifest((self.root / "etc/kata-extensions/components.toml").read_bytes())
        variables = dict.fromkeys(VARIABLES, "") | {"extension_root": MOUNT}
        for item in launch_plan(manifest, variables, most=self.most, root=str(self.root)):
            waited = Path(f"{self.guest.root}{item.wait_socket}") if item.wait_socket else None
            if waited is not None:
                waited.unlink(missing_ok=True)
            self.started.append(
                subprocess.Popen(
                    [item.path, *item.args], env=dict(item.env), stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
                )
            )
            self.names.append(item.id)
            until = time.monotonic() + item.timeout_secs
            while waited is not None and not waited.exists():
                if time.monotonic() > until:
                    raise EndedError(item.id)
                time.sleep(0.05)

    def end(self) -> None:
        for process in self.started:
            process.terminate()
        for process in self.started:
            process.wait(timeout=30)

    @property
    def seen(self) -> str:
        return (self.guest.root / "run/seen").read_text().strip()


NewAgent = Callable[..., ManifestAgent]


@pytest.fixture
def agent(world: NewWorld) -> Iterator[NewAgent]:
    made: list[ManifestAgent] = []

    def make(manifest: str, *, most: int = 3, lies: tuple[str, ...] = ()) -> ManifestAgent:
        made.append(ManifestAgent(world(lies=lies), manifest, most=most))
        return made[-1]

    yield make
    for item in made:
        item.end()


def test_the_gate_lets_the_agent_serve_once_a_verdict_stands(agent: NewAgent) -> None:
    made = agent(add_process(COCO, our_entry(gate=True)))
    made.serve()
    assert made.names == ["nvattest", "attestation-agent"]
    assert made.seen == "verdict"
    # The token comes before the ready state, and the record after both.
    until = time.monotonic() + 30
    while made.guest.state["verdict"] == "unfinished" and time.monotonic() < until:
        time.sleep(0.02)
    assert made.guest.state["verdict"] == "trusted"
    assert made.guest.state["config"] == f"{made.guest.root}{MOUNT}/etc/nvattest/hook.toml"


def test_behind_the_gate_nothing_is_started_and_no_pod_exists_without_a_verdict(agent: NewAgent) -> None:
    made = agent(add_process(COCO, our_entry(gate=True, seconds=3)), lies=("gpu0:measurement=9",))
    with pytest.raises(EndedError, match="nvattest"):
        made.serve()
    assert made.names == ["nvattest"]
    assert not (made.guest.root / "run/seen").exists()
    assert made.guest.ready == 0


@pytest.mark.parametrize("lies", [(), ("gpu0:measurement=9",)])
def test_without_the_gate_the_agent_serves_and_the_ready_state_decides(agent: NewAgent, lies: tuple[str, ...]) -> None:
    made = agent(add_process(COCO, our_entry(gate=False)), lies=lies)
    made.serve()
    assert made.names == ["nvattest", "attestation-agent"]
    # The first round of the watch ends with its line in the kernel log.
    until = time.monotonic() + 30
    while not made.guest.kernel_log and time.monotonic() < until:
        time.sleep(0.05)
    assert made.guest.ready == (0 if lies else 1)


def test_a_host_that_starts_no_components_gets_no_ready_gpus(agent: NewAgent) -> None:
    # agent.guest_components_procs=none
    made = agent(add_process(COCO, our_entry(gate=True)), most=0)
    made.serve()
    assert made.names == []
    assert made.guest.ready == 0


def test_a_hook_that_runs_behind_the_gate_uses_its_verdict(agent: NewAgent) -> None:
    made = agent(add_process(COCO, our_entry(gate=True)))
    made.serve()
    guest = made.guest
    until = time.monotonic() + 30
    while guest.ready != 1 and time.monotonic() < until:
        time.sleep(0.05)
    ended = guest.run("--config", f"{MOUNT}/etc/nvattest/hook.toml", "prestart")
    assert (ended.status, guest.summaries[-1]["reused"]) == (0, True)
