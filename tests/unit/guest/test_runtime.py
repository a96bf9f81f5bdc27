"""The runtime's configuration as the shim reads it, and the drop-in that is written for a node."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nvattest.errors import NvattestError
from nvattest.guest.extension import VerityParams, write_extension
from nvattest.guest.kata import Extension, drop_in, lint_files, read_runtime

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOOKS = "/usr/share/oci/hooks"
INSIDE = "/run/kata-extensions/nvattest" + HOOKS
VERITY = str(VerityParams("ab" * 32, "cd" * 32, 100))
KEPT = "cgroup_no_v1=all pci=realloc pci=nocrs pci=assign-busses"
# The members of runtime-rs's configuration for confidential NVIDIA guests that matter here.
RUST = f"""\
[hypervisor.qemu]
path = "/opt/kata/bin/qemu"
image = "/opt/kata/share/kata-containers-nvidia.img"
kernel_params = "{KEPT} nvrc.smi.srs=1"
guest_hook_path = ""
[agent.kata]
create_container_timeout = 1200
reconnect_timeout_ms = 1200000
[runtime]
name = "virt_container"
hypervisor_name = "qemu"
[[hypervisor.qemu.guest_extension_images]]
name = "gpu"
path = "/opt/kata/share/gpu.img"
verity_params = "{VERITY}"
[[hypervisor.qemu.guest_extension_images]]
name = "coco"
path = "/opt/kata/share/coco.img"
verity_params = "{VERITY}"
"""
GO = f"""\
[hypervisor.qemu]
image = "/opt/kata/share/kata-containers-nvidia-gpu-confidential.img"
kernel_params = "{KEPT} nvrc.smi.srs=1"
guest_hook_path = ""
[agent.kata]
dial_timeout = 1200
[runtime]
create_container_timeout = 1200
"""


def node(folder: Path, text: str = RUST, **drop_ins: str) -> str:
    base = folder / "configuration.toml"
    base.write_text(text)
    (folder / "config.d").mkdir()
    for name, content in drop_ins.items():
        (folder / f"config.d/{name.replace('_', '-')}.toml").write_text(content)
    return str(base)


def found(*files: str) -> dict[str, str]:
    """The worst severity of each kind of finding."""
    worst: dict[str, str] = {}
    for item in lint_files(files):
        if ["ok", "warning", "error"].index(item.severity) >= ["ok", "warning", "error"].index(
            worst.get(item.id, "ok")
        ):
            worst[item.id] = item.severity
    return worst


def messages(*files: str) -> str:
    return "\n".join(item.message for item in lint_files(files) if item.severity != "ok")


def test_tables_are_merged_and_every_other_value_is_replaced_in_the_order_of_the_names(tmp_path: Path) -> None:
    runtime = read_runtime(
        node(
            tmp_path,
            a50_x='[hypervisor.qemu]\nkernel_params = "later=1"\nguest_extension_images = [{ name = "gpu" }]',
            a30_x='[hypervisor.qemu]\nkernel_params = "first=1"\nguest_hook_path = "/x"\n[agent.kata]\nnew = 1',
        )
    )
    assert runtime.effective.kernel_params == "later=1"
    assert runtime.effective.guest_hook_path == "/x"
    assert [item.name for item in runtime.effective.images] == ["gpu"]
    assert [item.name for item in runtime.files[0][1].images] == ["gpu", "coco"]
    agent = {"create_container_timeout": 1200, "reconnect_timeout_ms": 1200000, "new": 1}
    assert runtime.agent == agent
    assert runtime.lost_parameters == KEPT.split()


def test_the_drop_in_keeps_gpu_and_coco_and_every_parameter_but_the_one_that_sets_ready(tmp_path: Path) -> None:
    base = node(tmp_path)
    extension = Extension("nvattest", "/opt/nvattest/x.img", VERITY)
    text = drop_in(read_runtime(base), hook_path=INSIDE, extension=extension)
    table = tomllib.loads(text)["hypervisor"]["qemu"]
    assert [(item["name"], item["path"]) for item in table["guest_extension_images"]] == [
        ("gpu", "/opt/kata/share/gpu.img"), ("coco", "/opt/kata/share/coco.img"), ("nvattest", "/opt/nvattest/x.img"),
    ]  # fmt: skip
    assert {item["verity_params"] for item in table["guest_extension_images"]} == {VERITY}
    assert table["kernel_params"] == KEPT
    assert table["guest_hook_path"] == INSIDE
    # As the shim then sees it, and the same once more where it lies in config.d already.
    (tmp_path / "config.d/60-nvattest.toml").write_text(text)
    again = read_runtime(base)
    assert [item.name for item in again.effective.images] == ["gpu", "coco", "nvattest"]
    assert drop_in(again, hook_path=INSIDE, extension=extension) == text
    assert found(base) == {
        "ready-by-others": "ok", "kernel-params": "ok", "hook-path": "ok",
        # The images of the release are on a node and not here.
        "extensions": "warning",
    }  # fmt: skip


def test_the_parameters_of_a_proxy_stay_and_paths_may_have_any_character(tmp_path: Path) -> None:
    proxy = f'[hypervisor.qemu]\nkernel_params = "{KEPT} nvrc.smi.srs=1 agent.https_proxy=http://p:1"'
    base = node(tmp_path, **{"30_kernel_params": proxy})
    extension = Extension("x", '/opt/"ä\\\U0001f600.img', VERITY)
    table = tomllib.loads(drop_in(read_runtime(base), hook_path=HOOKS, extension=extension))["hypervisor"]["qemu"]
    assert table["kernel_params"] == f"{KEPT} agent.https_proxy=http://p:1"
    assert table["guest_extension_images"][-1]["path"] == extension.path


def test_the_go_runtime_gets_a_drop_in_without_extensions(tmp_path: Path) -> None:
    base = node(tmp_path, GO)
    runtime = read_runtime(base)
    assert not runtime.is_rust
    text = drop_in(runtime, hook_path=HOOKS)
    assert tomllib.loads(text) == {"hypervisor": {"qemu": {"guest_hook_path": HOOKS, "kernel_params": KEPT}}}
    with pytest.raises(NvattestError, match="all in one"):
        drop_in(runtime, hook_path=INSIDE, extension=Extension("nvattest", "/x", VERITY))
    (tmp_path / "config.d/60-nvattest.toml").write_text(text)
    assert set(found(base).values()) == {"ok"}


@pytest.mark.parametrize("name", ["", "nvattest-too-long", "a b", "a/b", "ä"])
def test_a_name_that_is_no_serial_of_a_disk_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(NvattestError, match="1 to 10"):
        drop_in(read_runtime(node(tmp_path)), hook_path=HOOKS, extension=Extension(name, "/x", VERITY))


USUAL = f'[hypervisor.qemu]\nkernel_params = "{KEPT}"\nguest_hook_path = "/x"\n'
WRONG = {
    "the parameter that sets ready": (RUST, "", {"ready-by-others"}, "nothing attested"),
    "the last one of several wins": (
        RUST, f'[hypervisor.qemu]\nguest_hook_path = "/x"\nkernel_params = "{KEPT} nvrc.smi.srs=0 nvrc.smi.srs=enabled"',
        {"ready-by-others"}, "srs=enabled",
    ),
    "our fragment of 1.0.0": (
        RUST, '[hypervisor.qemu]\nguest_hook_path = "/x"\nkernel_params = "agent.log=info"', {"kernel-params"}, "pci=nocrs",
    ),
    "no hook path": (GO, f'[hypervisor.qemu]\nkernel_params = "{KEPT}"', {"hook-path"}, "looks for no hook"),
    "the path of the hook itself": (
        GO, f'[hypervisor.qemu]\nkernel_params = "{KEPT}"\nguest_hook_path = "/x/prestart"', {"hook-path"}, "above prestart",
    ),
    "an extension that is not there": (
        RUST, f'[hypervisor.qemu]\nkernel_params = "{KEPT}"\nguest_hook_path = "{INSIDE}"', {"hook-path"}, "does not have",
    ),
    "an array without coco": (
        RUST, USUAL + f'[[hypervisor.qemu.guest_extension_images]]\nname = "gpu"\npath = "/x"\nverity_params = "{VERITY}"',
        {"extensions"}, "coco of the base is lost",
    ),
    "four fields": (
        RUST.replace(",hash_block_size=4096", ""),
        USUAL, {"extensions"}, "hash_block_size is missing",
    ),
    "a key of the Go runtime": (
        RUST.replace("reconnect_timeout_ms", "dial_timeout"),
        USUAL, {"runtime-keys"}, "refuses the whole",
    ),
    "a shell for the host": (
        RUST.replace("create_container_timeout = 1200", "debug_console_enabled = true"),
        USUAL, {"debug"}, "shell",
    ),
    "extensions for the Go runtime": (
        GO, USUAL + "guest_extension_images = []", {"extensions"}, "knows no guest_extension_images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_lint_finds_what_keeps_the_hook_from_gating(tmp_path: Path, name: str) -> None:
    text, over, errors, words = WRONG[name]
    base = node(tmp_path, text, z60=over)
    worst = found(base)
    assert errors <= {kind for kind, severity in worst.items() if severity == "error"}
    assert words in messages(base)


def test_a_timeout_in_the_table_of_the_other_runtime_is_said_to_be_unread(tmp_path: Path) -> None:
    over = f'[runtime]\ncreate_container_timeout = 600\n[hypervisor.qemu]\nguest_hook_path = "/x"\nkernel_params = "{KEPT}"'
    assert found(node(tmp_path, z60=over))["runtime-keys"] == "warning"


def test_an_image_that_is_there_is_compared_with_its_root_hash(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 9000)
    image = str(tmp_path / "x.img")
    params = write_extension(str(tmp_path / "data"), image)
    base = node(tmp_path)
    for verity, severity in ((str(params), "ok"), (str(params._replace(root_hash="0" * 64)), "error")):
        text = drop_in(read_runtime(base), hook_path=INSIDE, extension=Extension("nvattest", image, verity))
        (tmp_path / "config.d/60.toml").write_text(text)
        [ours] = [item for item in lint_files([base]) if "extension nvattest" in item.message]
        assert ours.severity == severity


def test_a_drop_in_from_elsewhere_is_judged_on_its_base_and_never_alone(tmp_path: Path) -> None:
    base = node(tmp_path)
    other = tmp_path / "60-x.toml"
    other.write_text(f'[hypervisor.qemu]\nguest_hook_path = "{HOOKS}"\nkernel_params = "{KEPT}"')
    assert found(str(other)) == {"kata-config": "error"}
    assert found(base, str(other))["hook-path"] == "ok"


def test_files_that_the_shim_would_not_read_are_refused(tmp_path: Path) -> None:
    base = node(tmp_path)
    (tmp_path / "config.d/60.toml").symlink_to(base)
    assert "symbolic link" in messages(base)
    (tmp_path / "config.d/60.toml").unlink()
    (tmp_path / "config.d/60.toml").write_text("[hypervisor")
    assert found(base) == {"file": "error"}
    Path(base).write_text("image = 1\n[hypervisor.a]\nimage = 1\n[hypervisor.b]\n")
    (tmp_path / "config.d/60.toml").unlink()
    assert "one table below" in messages(base)


@pytest.mark.parametrize(
    "value",
    ["kernel_params = 5", 'kernel_params = ["a=b"]', "guest_hook_path = true", "guest_extension_images = 7",
     "guest_extension_images = [5]", 'guest_extension_images = [{name = "gpu", path = [], verity_params = ""}]'],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_and_not_lost_from_a_drop_in(tmp_path: Path, value: str) -> None:
    base = node(tmp_path, f"[hypervisor.qemu]\n{value}\n[runtime]\n[agent.kata]\n")
    with pytest.raises(NvattestError, match=value.partition(" ")[0]) as refused:
        read_runtime(base)
    assert refused.value.code == "kata-config"
    assert "error" in found(base).values()
