"""kata-agent in its generations, as far as a hook meets it: a pod is a pause container, then its containers.

Facts: ``nvattest.guest.check``. Who kills, obeys or drops what is decided by a generation's members and nothing else. The
reaper always wins here, as it does on a guest with several processors, so that no test can lean on an exit status.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvattest.guest.check import AGENT_SECONDS, Generation

from .hook_world import KEY, HookWorld

PAUSE, CONTAINER = "pod_sandbox", "pod_container"
# What CDI gives a container with a GPU: hooks of its own, so that newer agents drop those of the guest.
CDI_HOOKS = {"createContainer": [{"path": "/usr/bin/nvidia-cdi-hook"}]}


@dataclass(frozen=True)
class Container:
    """What the host asks for: a pause container has no hooks, one with a GPU has CDI's."""

    id: str
    kind: str = CONTAINER
    hooks: Mapping[str, Any] = field(default_factory=dict)


POD = (Container("pause", PAUSE), Container("cuda", hooks=CDI_HOOKS))


@dataclass
class Created:
    """What became of one container. ``hooks`` are the processes of the guest hooks that ran for it."""

    container: Container
    aborted: bool = False
    hooks: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stderr: str = ""


class AbortedError(Exception):
    """The agent refuses to create the container."""


class Agent:
    """One sandbox. ``seconds`` is its patience with a hook; 0 gives a hook up at once."""

    def __init__(
        self, generation: Generation, guest: HookWorld, *, environment: Mapping[str, str] | None = None,
        seconds: float = AGENT_SECONDS, folder: str = "usr/share/oci/hooks",
    ) -> None:  # fmt: skip
        self.generation = generation
        self.guest = guest
        self.seconds = seconds
        self.environment = dict(environment or {}) if generation.keeps_environment else {}
        # Once, when the sandbox is made; a folder that is missing says nothing.
        self.hooks = scan(guest.root / folder / "prestart")

    def create_pod(self, containers: Iterable[Container] = POD) -> list[Created]:
        """Create containers until one is refused."""
        made = []
        for container in containers:
            made.append(self.create(container))
            if made[-1].aborted:
                break
        return made

    def create(self, container: Container) -> Created:
        created = Created(container)
        self._write_spec(container)
        if container.hooks and not self.generation.appends:
            return created
        for hook in self.hooks:
            try:
                self._execute(hook, container, created)
            except AbortedError:
                created.aborted = True
                break
        return created

    def _write_spec(self, container: Container) -> None:
        folder = self.guest.root / "run/kata-containers" / container.id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"ociVersion": "1.2.0", "hooks": container.hooks}))

    def _execute(self, hook: Path, container: Container, created: Created) -> None:
        generation = self.generation
        argv0 = str(hook) if generation.obeys_status else hook.name
        process = subprocess.Popen(
            [argv0, "prestart"], executable=str(hook), env=self.environment, cwd=self.guest.root / "tmp",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        created.hooks.append(process)
        assert process.stdin is not None
        # It fits into the pipe, so writing it waits for nobody.
        process.stdin.write(HookWorld.oci_state(container.id, annotations={KEY: container.kind}))
        process.stdin.close()
        process.stdin = None
        try:
            _, err = process.communicate(timeout=self.seconds)
        except subprocess.TimeoutExpired:
            if generation.kills:
                process.kill()
                process.communicate()
                self._log(hook, "timed out")
            elif generation.obeys_status:
                raise AbortedError from None
            return
        created.stderr = err.decode()
        if generation.obeys_status and process.returncode:
            raise AbortedError
        # The reaper has the status: the agent does not know whether the hook did its work.
        self._log(hook, f'no exit code for hook Hook {{ path: "{hook}" }}: Undetermined')

    def _log(self, hook: Path, error: str) -> None:
        if self.generation.logs_failures:
            with (self.guest.root / "dev/kmsg").open("a") as log:
                log.write(f"kata-agent: hook failed: {hook}: {error}\n")


def scan(folder: Path) -> list[Path]:
    """Regular files with any right to execute, no links, in the folder's order."""
    if not folder.is_dir():
        return []
    found = []
    for entry in os.scandir(folder):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISREG(mode) and mode & 0o111:
            found.append(Path(entry.path))
    return found
