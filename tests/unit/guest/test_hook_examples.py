"""The example files say what the programs that read them understand (facts: kata-containers 4.1)."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nvattest.guest.arguments import Stage, parse_arguments
from nvattest.guest.config import Paths, Settings
from nvattest.guest.extension import our_entry
from nvattest.guest.kata import lint_files

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


def test_the_entry_of_the_manifest_is_the_one_that_is_generated() -> None:
    text = (EXAMPLES / "init/components.toml").read_text()
    plain = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(("#", "\n")))
    # Insertable as it is: no schema_version, which coco's manifest has at its top.
    assert plain == our_entry(gate=False)
    gate = re.sub(r"(?m)^#(wait_socket|timeout_secs)", r"\1", text)
    plain = "".join(line for line in gate.splitlines(keepends=True) if not line.startswith(("#", "\n")))
    assert plain == our_entry(gate=True)


def test_the_drop_in_has_every_parameter_of_the_release_but_the_one_that_sets_ready(tmp_path: Path) -> None:
    base = tmp_path / "configuration.toml"
    base.write_text(
        '[hypervisor.qemu]\nimage = "/x"\nguest_hook_path = ""\n'
        # kata-containers 3.23 and 3.29 to 4.1, KERNELPARAMS_CONFIDENTIAL_NV
        'kernel_params = "cgroup_no_v1=all pci=realloc pci=nocrs pci=assign-busses nvrc.smi.srs=1"\n'
    )
    found = lint_files([str(base), str(EXAMPLES / "kata/drop-in.toml")])
    assert [item.severity for item in found if item.file == str(base)] == ["ok"] * 3
    assert set(toml("kata/drop-in.toml")) == {"hypervisor"}


def test_configuration_and_policy_name_the_same_hook(tmp_path: Path) -> None:
    base = tmp_path / "configuration.toml"
    base.write_text('[hypervisor.qemu]\nimage = "/x"\n')
    found = lint_files(
        [str(base), str(EXAMPLES / "kata/drop-in.toml"), str(EXAMPLES / "kata/genpolicy-guest-hook.rego")]
    )
    assert [item.message for item in found if item.severity != "ok"] == []
    assert len([item for item in found if item.id in ("policy", "hook-path")]) == 2


SHIPPED_AROUND = "default CreateSandboxRequest := false\nallow_sandbox_storages(storages) if { count(storages) == 0 }\n"


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({}, True),
        ({"guest_hook_path": ""}, False),
        ({"guest_hook_path": "/usr/share/oci/other"}, False),
        ({"kernel_modules": ["x"]}, False),
        ({"sandbox_pidns": True}, False),
        ({"storages": [{"mount_point": "/usr/share/oci/hooks"}]}, False),
    ],
)
def test_the_policy_allows_our_hook_path_and_nothing_else(change: dict[str, Any], allowed: bool) -> None:
    regopy = pytest.importorskip("regopy")
    rule = (EXAMPLES / "kata/genpolicy-guest-hook.rego").read_text().replace("import future.keywords.if\n", "")
    request = {"guest_hook_path": "/usr/share/oci/hooks", "kernel_modules": [], "sandbox_pidns": False, "storages": []}
    engine = regopy.Interpreter()
    engine.add_module("policy", rule.replace("package agent_policy\n", f"package agent_policy\n{SHIPPED_AROUND}", 1))
    engine.set_input(request | change)
    answer = str(engine.query("data.agent_policy.CreateSandboxRequest"))
    assert answer == ('{"expressions":[true]}' if allowed else answer)
    assert ("true" in answer) == allowed


KUBERNETES = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_what_kubernetes_gets_is_a_working_set(path: Path) -> None:
    pytest.importorskip("yaml")
    found = lint_files([str(path)])
    assert found
    assert [item.message for item in found if item.severity != "ok"] == []


def test_pods_name_a_class_that_the_values_make() -> None:
    yaml = pytest.importorskip("yaml")
    values = yaml.safe_load((EXAMPLES / "kubernetes/kata-deploy-values.yaml").read_text())
    runtimes = values["customRuntimes"]["runtimes"]
    classes = {name: yaml.safe_load(item["runtimeClass"]) for name, item in runtimes.items()}
    assert {name: item["metadata"]["name"] for name, item in classes.items()} == {name: name for name in classes}
    drop_in = toml("kata/drop-in.toml")
    for item in runtimes.values():
        assert tomllib.loads(item["dropIn"]) == drop_in
    pods = [yaml.safe_load(path.read_text()) for path in KUBERNETES if path.name.startswith("pod")]
    assert len(pods) >= 3
    assert {item["spec"]["runtimeClassName"] for item in pods} <= set(classes)


CHARTS = os.environ.get("NVATTEST_TEST_CHARTS", "")


@pytest.mark.skipif(
    not CHARTS, reason="NVATTEST_TEST_CHARTS names no folder with the charts kata-deploy and gpu-operator"
)
def test_the_charts_render_our_values_to_classes_that_lint_accepts(tmp_path: Path) -> None:
    chart = pytest.importorskip("helm_python.chart")
    yaml = pytest.importorskip("yaml")
    rendered = {}
    for name, values in (("kata-deploy", "kata-deploy-values.yaml"), ("gpu-operator", "gpu-operator-values.yaml")):
        given = yaml.safe_load((EXAMPLES / "kubernetes" / values).read_text())
        texts = chart.Chart.load(f"{CHARTS}/{name}").render(given, name="test", namespace="kube-system").values()
        rendered[name] = [item for text in texts for item in yaml.safe_load_all(text) if item]
    classes = [item for item in rendered["kata-deploy"] if item["kind"] == "RuntimeClass"]
    assert {"kata-nvattest-snp", "kata-nvattest-tdx"} <= {item["metadata"]["name"] for item in classes}
    for item in classes:
        assert item["overhead"]["podFixed"]["memory"] == "10240Mi"
        assert item["scheduling"]["nodeSelector"]["kata-deploy.katacontainers.io/default"] == "true"
        path = tmp_path / "class.json"
        path.write_text(json.dumps(item))
        assert [found.message for found in lint_files([str(path)]) if found.severity != "ok"] == []
    assert [item for item in rendered["kata-deploy"] if item["kind"] == "NodeFeatureRule"]
    [policy] = [item for item in rendered["gpu-operator"] if item["kind"] == "ClusterPolicy"]
    assert policy["spec"]["sandboxWorkloads"] == {"enabled": True, "defaultWorkload": "vm-passthrough", "mode": "kata"}
    assert policy["spec"]["ccManager"]["defaultMode"] == "on"


@pytest.mark.parametrize(("name", "stage"), [("init", Stage.INIT), ("watch", Stage.WATCH)])
def test_the_units_call_a_stage_that_there_is(name: str, stage: str) -> None:
    text = (EXAMPLES / f"systemd/nvattest-{name}.service").read_text()
    [command] = re.findall(r"(?m)^ExecStart=(.*)$", text)
    program, *arguments = shlex.split(command)
    # A bare name: systemd looks in /usr/local/bin, where pip installs, and in /usr/bin, where the layer has its link.
    assert program == "nvattest-hook"
    assert parse_arguments(arguments).stage == stage


def unit(name: str) -> dict[str, str]:
    """The settings of a unit; none stands twice."""
    lines = (EXAMPLES / f"systemd/{name}.service").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    settings = {key: value for key, _, value in pairs}
    assert len(settings) == len(pairs)
    return settings


def test_the_units_come_after_the_network_and_try_again() -> None:
    for name in ("nvattest-init", "nvattest-watch"):
        settings = unit(name)
        for key in ("After", "Wants"):
            assert "network-online.target" in settings[key].split()
        # Without Wants= the order alone would start nothing; with Requires= one failure would be the end.
        assert "Requires" not in settings
        assert settings["Restart"] == "on-failure"
    assert "nvattest-init.service" in unit("nvattest-watch")["Wants"].split()
    # The budget and what taking the ready state away may take beyond it.
    settings = Settings(Paths())
    limit = settings.budget(Stage.INIT) + settings.closing(Stage.INIT)
    for name in ("nvattest-init", "inference"):
        assert int(unit(name)["TimeoutStartSec"]) > limit


def test_a_workload_asks_for_a_verdict_each_time_it_starts() -> None:
    settings = unit("inference")
    assert not {"Requires", "BindsTo"} & set(settings)
    program, *arguments = shlex.split(settings["ExecStartPre"])
    assert program == "+nvattest-hook"
    assert parse_arguments(arguments).stage == Stage.INIT
    assert settings["Restart"] == "on-failure"


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


def test_no_example_shares_the_run_folder_through_a_volume() -> None:
    for path in EXAMPLES.rglob("*.yaml"):
        text = "\n".join(line.partition("#")[0] for line in path.read_text().splitlines())
        assert Paths.RUN not in text, path


# --- a step before the agent ------------------------------------------------------------------------------------------

STAND_IN = '#!/bin/sh\necho "$0 $*"\nexit ${STATUS:-0}\n'


def step_world(folder: Path, status: int) -> dict[str, str]:
    """A hook that ends with this status, and an agent that says how it was called."""
    for name in ("hook", "agent"):
        (folder / name).write_text(STAND_IN.replace("${STATUS:-0}", str(status if name == "hook" else 42)))
        (folder / name).chmod(0o755)
    script = (EXAMPLES / "init/init-step.sh").read_text()
    assert f"hook=/{HOOK}\n" in script
    (folder / "step").write_text(script.replace(f"hook=/{HOOK}\n", f"hook={folder}/hook\n"))
    (folder / "step").chmod(0o755)
    return {"PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(("status", "require"), [(0, "no"), (0, "yes"), (1, "no"), (1, "yes")])
def test_the_step_of_init_attests_and_then_becomes_the_agent_that_it_is_given(
    tmp_path: Path, status: int, require: str
) -> None:
    environment = step_world(tmp_path, status) | {"NVATTEST_REQUIRE": require}
    done = subprocess.run(
        [tmp_path / "step", tmp_path / "agent", "--x", "a b"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
    )
    said = done.stdout.splitlines()
    assert said[0] == f"{tmp_path}/hook --stage init"
    started = status == 0 or require == "no"
    assert said[1:] == ([f"{tmp_path}/agent --x a b"] if started else [])
    assert done.returncode == (42 if started else status)
    assert ("ended with 1" in done.stderr) == (status == 1)


def test_the_step_of_init_never_calls_itself(tmp_path: Path) -> None:
    environment = step_world(tmp_path, 0)
    (tmp_path / "link").symlink_to("step")
    for arguments in ([], [str(tmp_path / "step")], [str(tmp_path / "link")], [str(tmp_path / "nothing")]):
        done = subprocess.run(
            [tmp_path / "step", *arguments], env=environment, capture_output=True, text=True, timeout=20
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "name the real agent" in done.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.sh")), ids=lambda path: path.name)
def test_shells_read_the_scripts(path: Path) -> None:
    for shell in ("sh", "bash", "dash"):
        if shutil.which(shell):
            subprocess.run([shell, "-n", str(path)], check=True, timeout=20)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
@pytest.mark.parametrize(("status", "require"), [(0, False), (0, True), (1, False), (1, True)])
def test_the_native_step_attests_and_then_becomes_the_agent(tmp_path: Path, status: int, require: bool) -> None:
    step_world(tmp_path, status)
    (tmp_path / "agent").write_text('#!/bin/sh\necho "$0 $*: $MARK"\nexit 42\n')
    options = [f'-DAGENT="{tmp_path}/agent"', f'-DHOOK="{tmp_path}/hook"', *(["-DREQUIRE"] if require else [])]
    source = str(EXAMPLES / "init/agent-step.c")
    command = [
        "cc",
        "-Os",
        "-s",
        "-static",
        "-Wall",
        "-Wextra",
        "-Werror",
        *options,
        "-o",
        str(tmp_path / "step"),
        source,
    ]
    subprocess.run(command, check=True, timeout=60)
    done = subprocess.run(
        ["kata-agent", "--x"],
        executable=tmp_path / "step",
        env={"MARK": "kept"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    started = status == 0 or not require
    # The agent keeps its environment; the hook has none.
    assert done.stdout.splitlines() == [
        f"{tmp_path}/hook --stage init",
        *([f"{tmp_path}/agent --x: kept"] if started else []),
    ]
    assert done.returncode == (42 if started else 1)
    # In its own place it would exec itself for ever.
    (tmp_path / "agent").unlink()
    (tmp_path / "step").rename(tmp_path / "agent")
    done = subprocess.run([tmp_path / "agent"], env={}, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
