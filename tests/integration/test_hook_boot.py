"""``hook check`` in a guest as NVRC and a Kata agent of 4.x make it: what was booted, mounted, started, and by whom."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from nvattest.guest.extension import VerityParams, add_process, our_entry

from .hook_world import HookWorld, NewWorld

VERITY = str(VerityParams("ab" * 32, "cd" * 32, 100))
EXTENSIONS = "run/kata-extensions"
PARAMETERS = "cgroup_no_v1=all pci=realloc pci=nocrs pci=assign-busses"
COCO = """\
schema_version = 1
[paths]
"ocicrypt-config" = "etc/ocicrypt_config.json"
[[process]]
id = "attestation-agent"
level = 1
path = "usr/local/bin/attestation-agent"
"""


def nvidia_guest(guest: HookWorld, *, parameters: str = PARAMETERS, manifest: str = COCO) -> None:
    """Three extensions, mounted as NVRC mounts them; the hook lies in one of its own."""
    names = ("coco", "gpu", "nvattest")
    mounts = []
    for name in names:
        (guest.root / EXTENSIONS / name).mkdir(parents=True)
        mounts.append(f"/dev/mapper/extension-{name} /{EXTENSIONS}/{name} erofs ro,nosuid,nodev,relatime 0 0\n")
    (guest.root / "proc/mounts").write_text("".join(mounts))
    words = " ".join(f'kata.extension.{name}.verity_params="{VERITY}"' for name in names)
    (guest.root / "proc/cmdline").write_text(f"quiet {parameters} {words}\n")
    coco = guest.root / EXTENSIONS / "coco"
    for path in ("etc/kata-extensions", "usr/local/bin", "etc/nvattest"):
        (coco / path).mkdir(parents=True)
    (coco / "etc/kata-extensions/components.toml").write_text(manifest)
    shutil.copy2(guest.hook, coco / "usr/local/bin/attestation-agent")
    if "nvattest-hook" in manifest:
        (coco / "usr/share/oci/hooks/prestart").mkdir(parents=True)
        shutil.copy2(guest.hook, coco / "usr/share/oci/hooks/prestart/nvattest-hook")


def found(guest: HookWorld, *words: str) -> dict[str, list[tuple[str, str]]]:
    """Severities and messages of each kind of finding."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for item in guest.checked(*words):
        kinds.setdefault(item["id"], []).append((item["severity"], item["message"]))
    return kinds


def severities(guest: HookWorld, kind: str) -> list[str]:
    return [severity for severity, _ in found(guest).get(kind, [])]


def test_nothing_is_wrong_with_a_guest_that_was_booted_as_it_should_be(world: NewWorld) -> None:
    guest = world()
    nvidia_guest(guest)
    guest.run()
    ended = guest.run("check")
    assert (ended.status, "ERROR" in ended.stdout, "WARNING" in ended.stdout) == (0, False, False), ended.stdout
    assert len(found(guest)["extension"]) == 3


def test_a_guest_without_extensions_is_not_asked_for_nvrc_s_parameters(world: NewWorld) -> None:
    kinds = found(world())
    assert not {"kernel-params", "extension", "topology", "manifest", "agent"} & set(kinds)


@pytest.mark.parametrize(
    ("parameters", "kind", "severity"),
    [
        ("agent.log=info", "kernel-params", "warning"),
        (f"{PARAMETERS} nvrc.smi.srs=1", "ready-by-others", "error"),
        (f"{PARAMETERS} nvrc.smi.srs=1 nvrc.smi.srs=0", "ready-by-others", "ok"),
        (f"{PARAMETERS} nvrc.smi.srs=0 nvrc.smi.srs=enabled", "ready-by-others", "error"),
        (f'{PARAMETERS} kata.extension.other.verity_params="{VERITY}"', "extension", "error"),
        (f"{PARAMETERS} kata.extension.nvattest.verity_params=root_hash=00", "extension", "error"),
    ],
)
def test_the_kernel_s_command_line_is_read_as_nvrc_reads_it(
    world: NewWorld, parameters: str, kind: str, severity: str
) -> None:
    guest = world()
    nvidia_guest(guest, parameters=parameters)
    if "nvattest.verity_params=root_hash" in parameters:
        text = (guest.root / "proc/cmdline").read_text()
        (guest.root / "proc/cmdline").write_text(text.replace(f'kata.extension.nvattest.verity_params="{VERITY}"', ""))
    assert severity in severities(guest, kind)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "tmpfs /run/kata-extensions/nvattest tmpfs ro 0 0\n",
        "/dev/mapper/extension-gpu /run/kata-extensions/nvattest erofs ro 0 0\n",
        "/dev/mapper/extension-nvattest /run/kata-extensions/nvattest erofs rw 0 0\n",
    ],
    ids=["no mount", "a memory file system", "another image", "writable"],
)
def test_an_extension_that_dm_verity_does_not_cover_is_an_error(world: NewWorld, line: str) -> None:
    guest = world()
    nvidia_guest(guest)
    path = guest.root / "proc/mounts"
    kept = [text for text in path.read_text().splitlines(keepends=True) if "/nvattest " not in text]
    path.write_text("".join(kept) + line)
    assert sorted(severities(guest, "extension")) == ["error", "ok", "ok"]


def test_a_hook_is_found_in_an_extension_and_its_configuration_is_compared(world: NewWorld) -> None:
    guest = world()
    nvidia_guest(guest)
    home = guest.root / EXTENSIONS / "nvattest/usr/share/oci/hooks/prestart"
    home.mkdir(parents=True)
    shutil.move(guest.hook, home / "nvattest-hook")
    guest.hook.parent.rmdir()
    guest.hook = home / "nvattest-hook"
    [(severity, message)] = found(guest)["hook-file"]
    assert (severity, message) == ("ok", f"/{EXTENSIONS}/nvattest/usr/share/oci/hooks/prestart/nvattest-hook is a hook")
    own = guest.root / EXTENSIONS / "nvattest/etc/nvattest/hook.toml"
    own.parent.mkdir(parents=True)
    shutil.copy2(guest.root / "etc/nvattest/hook.toml", own)
    # Here the program is Python's, which lies in no image: as nvattest of a virtual environment in the guest would.
    [(severity, message)] = found(guest)["hook-configuration"]
    assert (severity, f"reads /{EXTENSIONS}/nvattest/etc/nvattest/hook.toml" in message) == ("warning", True)
    assert "hook-configuration" not in found(guest, "--config", f"/{EXTENSIONS}/nvattest/etc/nvattest/hook.toml")
    # A path that is named is the only one looked at.
    assert found(guest, "--hook-path", "/usr/share/oci/hooks")["hook-path"][0][0] == "error"


def test_a_script_whose_interpreter_is_not_there_is_no_hook(world: NewWorld) -> None:
    guest = world()
    text = guest.hook.read_text()
    (guest.hook.parent / "other").write_text("#!/bin/no-shell -e\n")
    (guest.hook.parent / "other").chmod(0o755)
    [(severity, message)] = found(guest)["hook-interpreter"]
    assert (severity, "/bin/no-shell" in message) == ("error", True)
    assert guest.hook.read_text() == text


@pytest.mark.parametrize(
    ("manifest", "parameters", "severity", "words"),
    [
        (add_process(COCO, our_entry(gate=False)), PARAMETERS, "ok", "the ready state is the gate"),
        (add_process(COCO, our_entry(gate=True)), PARAMETERS, "error", "no bundle"),
        (COCO.replace("schema_version = 1\n", ""), PARAMETERS, "error", "schema_version"),
        (COCO.replace('attestation-agent"\n', 'x"\n'), PARAMETERS, "error", "starts none of the processes"),
        (
            add_process(COCO, our_entry(gate=False)), f"{PARAMETERS} agent.guest_components_procs=none", "error",
            "does not start nvattest-hook",
        ),
        ("", PARAMETERS, "error", "schema_version"),
    ],
)  # fmt: skip
def test_the_manifest_of_coco_is_judged_by_the_agent_s_rules(
    world: NewWorld, manifest: str, parameters: str, severity: str, words: str
) -> None:
    guest = world()
    nvidia_guest(guest, manifest=manifest, parameters=parameters)
    assert any(item[0] == severity and words in item[1] for item in found(guest)["manifest"]), found(guest)["manifest"]


@pytest.mark.parametrize(("platform", "extra", "good"), [("hopper-8-ppcie", 0, True), ("hopper-8-ppcie", 1, False)])
def test_sets_of_devices_that_nvrc_does_not_start_are_named(
    world: NewWorld, platform: str, extra: int, good: bool
) -> None:
    guest = world(platform)
    nvidia_guest(guest)
    for index in range(extra):
        guest.plug(f"0000:{index + 0x61:02x}:00.0", "0x068000")
    assert severities(guest, "topology") == ([] if good else ["error"])


def test_devices_that_the_configuration_does_not_expect_are_an_error(world: NewWorld) -> None:
    guest = world()
    guest.configure(expected_gpus=2)
    [(severity, message)] = found(guest)["devices"]
    assert (severity, "expected_gpus is 2" in message) == ("error", True)


# --- the agent --------------------------------------------------------------------------------------------------------


def place_agent(guest: HookWorld, folder: Path, said: str) -> None:
    """A native program, for a script would not be asked."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here")
    (folder / "agent.c").write_text(f"#include <stdio.h>\nint main(void) {{ puts({json.dumps(said)}); return 0; }}\n")
    (guest.root / "usr/bin").mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["cc", "-o", str(guest.root / "usr/bin/kata-agent"), str(folder / "agent.c")], check=True, timeout=60
    )


@pytest.mark.parametrize(
    ("said", "severity", "words"),
    [
        ("kata-agent version 4.1.0 (api version: 0.0.1)", "ok", "the pause run counts"),
        ("kata-agent version 4.7.0", "ok", "later than those"),
        ("kata-agent version 3.5.0", "ok", "only the ready state is a gate"),
        ("kata-agent version 3.0.2", "ok", "on_failure is block"),
        ("something else", "warning", "does not say its version"),
    ],
)
def test_the_agent_s_version_says_what_a_hook_can_promise(
    world: NewWorld, tmp_path_factory: pytest.TempPathFactory, said: str, severity: str, words: str
) -> None:
    guest = world()
    place_agent(guest, tmp_path_factory.mktemp("agent"), said)
    [(found_severity, message)] = found(guest)["agent"]
    assert (found_severity, words in message) == (severity, True), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\nexec /bin/other\n", "no shell"),
        ('#!/bin/sh\n"$hook" --stage init\nexec /usr/bin/kata-agent\n', "itself, for ever"),
    ],
)
def test_a_script_in_the_agent_s_place_is_an_error_and_is_not_run(world: NewWorld, text: str, words: str) -> None:
    guest = world()
    (guest.root / "usr/bin").mkdir(parents=True, exist_ok=True)
    agent = guest.root / "usr/bin/kata-agent"
    agent.write_text(text)
    agent.chmod(0o755)
    [(severity, message)] = found(guest)["agent"]
    assert (severity, words in message) == ("error", True)
