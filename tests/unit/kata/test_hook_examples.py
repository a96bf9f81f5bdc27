"""The example files say what the programs that read them understand (facts: kata-containers 4.1)."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nvattest.kata.arguments import Stage, parse_arguments
from nvattest.kata.paths import Paths

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"
# Where the guest layer puts the program; its build and the agent's scan agree on it.
HOOK = "usr/share/oci/hooks/prestart/nvattest-hook"


def toml(name: str) -> dict[str, Any]:
    return tomllib.loads((EXAMPLES / name).read_text())


def test_the_extension_manifest_is_one_that_the_agent_starts_something_of() -> None:
    manifest = toml("init/components.toml")
    assert manifest["schema_version"] == 1
    for process in manifest["process"]:
        # The agent passes over level 0 and over those above its own, which is 3 at most.
        assert 1 <= process["level"] <= 3
        assert process["path"] == HOOK  # relative to the mount point
        arguments = parse_arguments(process["args"])
        assert arguments.stage == Stage.WATCH
        # The image's own, where it is mounted: the layer is unpacked at its root.
        assert arguments.config == "/run/kata-extensions/coco" + Paths.CONFIG
        # Types that its parser refuses otherwise: a table, and a number written as a text.
        assert isinstance(process.get("env", {}), dict)
        assert isinstance(process.get("timeout_secs", ""), str)


def test_the_kata_configuration_has_each_key_in_its_table() -> None:
    fragment = toml("kata/configuration-fragment.toml")
    assert fragment["hypervisor"]["qemu"]["guest_hook_path"] == "/" + HOOK.partition("/prestart")[0]
    assert "nvrc.smi.srs" not in fragment["hypervisor"]["qemu"]["kernel_params"]
    assert fragment["runtime"] == {"create_container_timeout": 1200}
    assert set(fragment) == {"hypervisor", "runtime"}


def test_the_policy_rule_keeps_the_conditions_that_are_not_about_the_hook() -> None:
    text = (EXAMPLES / "kata/genpolicy-guest-hook.rego").read_text()
    for condition in (
        "input.guest_hook_path == nvattest_hook_path",
        "count(input.kernel_modules) == 0",
        "input.sandbox_pidns == false",
        "allow_sandbox_storages(input.storages)",
    ):
        assert condition in text
    assert 'nvattest_hook_path := "/usr/share/oci/hooks"' in text


@pytest.mark.parametrize(("name", "stage"), [("init", Stage.INIT), ("watch", Stage.WATCH)])
def test_the_units_call_a_stage_that_there_is(name: str, stage: str) -> None:
    text = (EXAMPLES / f"systemd/nvattest-{name}.service").read_text()
    [command] = re.findall(r"(?m)^ExecStart=(.*)$", text)
    program, *arguments = shlex.split(command)
    # A bare name: systemd looks in /usr/local/bin, where pip installs, and in /usr/bin, where the layer has its link.
    assert program == "nvattest-hook"
    assert parse_arguments(arguments).stage == stage


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here (Debian: systemd)")
@pytest.mark.parametrize("path", sorted((EXAMPLES / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_with_the_units(path: Path, tmp_path: Path) -> None:
    # Its programs need not be installed here.
    for unit in path.parent.glob("*.service"):
        text = re.sub(r"(?m)^(Exec\w+=)\S+", r"\1/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", str(tmp_path / path.name)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if path.name in line or str(tmp_path) in line]
    assert said == []


def test_the_step_of_init_calls_the_program_where_the_layer_has_it() -> None:
    text = (EXAMPLES / "init/init-step.sh").read_text()
    assert f"hook=/{HOOK}\n" in text
    assert '"$hook" --stage init' in text


def test_no_example_shares_the_run_folder_through_a_volume() -> None:
    for path in EXAMPLES.rglob("*.yaml"):
        text = "\n".join(line.partition("#")[0] for line in path.read_text().splitlines())
        assert Paths.RUN not in text, path
