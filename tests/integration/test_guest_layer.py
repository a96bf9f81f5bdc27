"""The guest layer: what is in it, that it is the same twice, and that it needs glibc and the driver's library alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvattest.guest.extension import BLOCK, check_extension, parse_verity_params
from nvattest.testing.driver import DriverLibraries
from nvattest.testing.driver_answers import Fault
from nvattest.testing.services import Services, wall_clock

from .guest_layer import (
    BUILD,
    HOME,
    HOOK,
    ROOT,
    ChrootGuest,
    NewGuest,
    build_layer,
    build_module,
    elf_files,
    shared_layer,
)

MOST_BYTES = 40_000_000
IMPORT_ALL = """
import sys
home = sys.argv[1]
before = set(sys.modules)
sys.path[:] = [home]
import importlib, json, os, warnings
warnings.simplefilter("ignore")
failed = {}
for folder, _, names in os.walk(home):
    for name in names:
        if not name.endswith((".pyc", ".so")):
            continue
        parts = os.path.relpath(folder, home).split("/") + [name.partition(".")[0]]
        module = ".".join(part for part in parts if part not in (".", "__init__"))
        try:
            importlib.import_module(module)
        except Exception as error:
            failed[module] = repr(error)
# Some are there before the first line of any program: encodings, and since Python 3.13 linecache.
specs = [getattr(module, "__spec__", None) for name, module in list(sys.modules.items()) if name.partition(".")[0] not in before]
outside = [spec.name for spec in specs if spec and spec.has_location and not spec.origin.startswith(home)]
print(json.dumps([failed, outside]))
"""


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_layer(tmp_path_factory)


@pytest.fixture
def guest(layer: Path, libraries: DriverLibraries, tmp_path: Path) -> Iterator[NewGuest]:
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    made: list[ChrootGuest] = []

    def make(platform: str = "hopper-1", **options: Any) -> ChrootGuest:
        made.append(ChrootGuest(tmp_path / f"guest-{len(made)}", libraries, layer, platform, **options))
        return made[-1]

    yield make
    for item in made:
        item.close()


def manifest_of(layer: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((layer / "root" / HOME / "manifest.json").read_text())
    return document


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_the_hook_is_what_an_agent_runs(layer: Path) -> None:
    hook = layer / "root" / HOOK.lstrip("/")
    assert stat.S_ISREG(hook.lstat().st_mode)
    assert hook.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in hook.parent.iterdir()] == ["nvattest-hook"]
    assert hook.read_bytes()[:4] == b"\x7fELF"


def test_the_layer_touches_its_own_folders_only_and_has_no_other_program(layer: Path) -> None:
    root = layer / "root"
    files = [path for path in root.rglob("*") if not path.is_dir() and not path.is_symlink()]
    # The one link gives the program its name on the path of a shell and of systemd.
    links = {str(path.relative_to(root)): path.resolve() for path in root.rglob("*") if path.is_symlink()}
    assert links == {"usr/bin/nvattest-hook": root / HOOK.lstrip("/")}
    assert manifest_of(layer)["links"] == {"/usr/bin/nvattest-hook": "../share/oci/hooks/prestart/nvattest-hook"}
    places = {"/".join(path.relative_to(root).parts[:3]) for path in files}
    assert places == {
        "etc/nvattest/hook.toml", "usr/lib/nvattest", "usr/lib/systemd", "usr/share/man", "usr/share/nvattest",
        "usr/share/oci",
    }  # fmt: skip
    for path in files:
        assert path.is_file()
        executable = bool(path.stat().st_mode & 0o111)
        is_library = ".so" in path.name
        assert executable == (is_library or path.name == "nvattest-hook"), path
        assert path.read_bytes()[:2] != b"#!", path
        # No source and no interpreter of its own: byte code and libraries.
        assert path.suffix != ".py"
        assert path.name not in ("python", "python3", "sh", "busybox")


def test_the_manifest_names_every_file_with_its_digest(layer: Path) -> None:
    root = layer / "root"
    manifest = manifest_of(layer)
    found = {
        f"/{path.relative_to(root)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != "manifest.json"
    }
    assert {item["path"]: item["sha256"] for item in manifest["files"]} == found
    [beside] = layer.glob("*.manifest.json")
    assert beside.read_text() == (root / HOME / "manifest.json").read_text()
    assert {"cryptography", "lxml", "nvidia-ml-py", "requests"} <= set(manifest["packages"])
    assert not {"pytest", "xmlschema", "regopy", "awscrt", "Jinja2"} & set(manifest["packages"])


def test_the_layer_is_smaller_than_the_number_to_beat(layer: Path) -> None:
    manifest = manifest_of(layer)
    [tar] = layer.glob("*.tar.zst")
    print(f"\nunpacked {manifest['unpacked_bytes'] / 1e6:.1f} MB, tar.zst {tar.stat().st_size / 1e6:.1f} MB (level 1)")
    assert manifest["unpacked_bytes"] < MOST_BYTES


def test_libraries_are_stripped_and_name_no_folder_of_the_machine_that_built_them(layer: Path) -> None:
    for path in elf_files(layer / "root"):
        text = subprocess.run(["readelf", "-dSW", str(path)], capture_output=True, text=True, check=True).stdout
        assert ".debug_" not in text, path
        assert ".symtab" not in text, path
        searched = re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", text)
        # The old kind of the two also holds for what libraries ask for.
        expected = ["$ORIGIN/../../../../lib/nvattest:/usr/lib/nvattest"] if path.name == "nvattest-hook" else []
        assert searched == expected, path
        assert "RUNPATH" not in text


def test_every_module_of_the_layer_can_be_imported_from_the_layer_alone(layer: Path) -> None:
    home = layer / "root" / HOME / "modules"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(home)], capture_output=True, text=True, env={}, timeout=60
    )
    assert done.returncode == 0, done.stderr[-1500:]
    failed, outside = json.loads(done.stdout)
    assert failed == {}
    assert outside == []


# --- the same twice ---------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_two_builds_are_the_same_byte_for_byte(layer: Path, tmp_path: Path) -> None:
    again = build_layer(tmp_path / "again")
    names = sorted(path.name for path in layer.iterdir() if path.is_file())
    assert names == sorted(path.name for path in again.iterdir())
    assert (any(name.endswith(".squashfs") for name in names)) == (shutil.which("mksquashfs") is not None)
    assert (any(name.endswith(".extension.img") for name in names)) == (shutil.which("mkfs.erofs") is not None)
    for name in names:
        assert (layer / name).read_bytes() == (again / name).read_bytes(), name


def test_the_tree_of_a_layer_is_packed_into_the_same_bytes_again(layer: Path, tmp_path: Path) -> None:
    """Copied to another place, at another time, with other modes: what the quick suite has of two builds."""
    packing = build_module("layer_pack")
    tree = shutil.copytree(layer / "root", tmp_path / "tree", symlinks=True, copy_function=shutil.copyfile)
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o777 if ".so" in path.name or path.name == "nvattest-hook" else 0o666)
    epoch = manifest_of(layer)["source_date_epoch"]
    packing.settle(str(tree), epoch)
    (tmp_path / "again").mkdir()
    name = str(tmp_path / "again" / next(layer.glob("*.tar.zst")).name.removesuffix(".tar.zst"))
    packing.write_tar(str(tree), f"{name}.tar.zst", epoch, 1)
    assert packing.write_squashfs(str(tree), f"{name}.squashfs", epoch, 1) == (shutil.which("mksquashfs") is not None)
    fields = build_module("extension").extension_of(str(tree), f"{name}.extension.img")
    assert (fields is None) == (shutil.which("mkfs.erofs") is None)
    if fields is not None:
        [verity] = layer.glob("*.extension.verity")
        assert verity.read_text() == f"{fields}\n"
    made = sorted((tmp_path / "again").iterdir())
    assert {path.name.partition(".tar.")[0] for path in layer.glob("*.tar.zst")} == {os.path.basename(name)}
    assert len(made) == 1 + (layer / f"{os.path.basename(name)}.squashfs").exists() + (fields is not None)
    for path in made:
        assert path.read_bytes() == (layer / path.name).read_bytes(), path.name


def test_byte_code_and_launcher_are_the_same_from_another_process(layer: Path, tmp_path: Path) -> None:
    again = """
import os, sys
home, launcher = sys.argv[1:]
import nvattest
from layer_modules import compile_module, find_modules
from layer_native import build_launcher, library_of_interpreter
source = os.path.dirname(os.path.dirname(os.path.abspath(nvattest.__file__)))
build_launcher(os.path.join(home, "launcher.c"), launcher, library_of_interpreter())
modules = find_modules(["nvattest.model", "nvattest.errors"], [source], network=False)
for module in modules.values():
    if module.name.startswith("nvattest"):
        print(module.target, compile_module(module).hex())
"""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONNODEBUGRANGES": "1", "PYTHONPATH": str(BUILD.parent)}
    command = [sys.executable, "-c", again, str(BUILD.parent), str(tmp_path / "launcher")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "launcher").read_bytes() == (layer / "root" / HOOK.lstrip("/")).read_bytes()
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {"nvattest/__init__.pyc", "nvattest/model.pyc", "nvattest/errors.pyc"} <= {target for target, _ in lines}
    for target, code in lines:
        assert (layer / "root" / HOME / "modules" / target).read_bytes().hex() == code, target


def test_the_extension_image_has_the_tree_of_the_layer_and_the_root_hash_beside_it(layer: Path, tmp_path: Path) -> None:
    if shutil.which("mkfs.erofs") is None:
        pytest.skip("mkfs.erofs is not here (Debian: erofs-utils)")
    [image], [verity] = layer.glob("*.extension.img"), layer.glob("*.extension.verity")
    params = parse_verity_params(verity.read_text())
    check_extension(str(image), params)
    data = image.read_bytes()[1 << 20 : (1 << 20) + params.data_blocks * BLOCK]
    # EROFS, as NVRC mounts it.
    assert data[1024:1028] == b"\xe2\xe1\xf5\xe0"
    (tmp_path / "p1").write_bytes(data)
    extracted = tmp_path / "tree"
    done = subprocess.run(
        ["fsck.erofs", f"--extract={extracted}", "--no-preserve", str(tmp_path / "p1")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert tree_of(extracted) == tree_of(layer / "root")


def tree_of(root: Path) -> dict[str, object]:
    """Every path with its content, or where a link leads."""
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in root.rglob("*")
    }


def test_any_folder_becomes_an_extension_image_and_the_same_one_twice(tmp_path: Path) -> None:
    if shutil.which("mkfs.erofs") is None:
        pytest.skip("mkfs.erofs is not here (Debian: erofs-utils)")
    (tmp_path / "coco/etc").mkdir(parents=True)
    (tmp_path / "coco/etc/x").write_text("x" * 100_000)
    (tmp_path / "coco/link").symlink_to("etc/x")
    program = ROOT / "examples/guest-layer/extension.py"
    said = []
    for name in ("a.img", "b.img"):
        os.utime(tmp_path / "coco/etc/x", (len(said), len(said)))
        done = subprocess.run(
            [sys.executable, str(program), str(tmp_path / "coco"), str(tmp_path / name)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        check_extension(str(tmp_path / name), parse_verity_params(done.stdout))
        said.append((done.stdout, (tmp_path / name).read_bytes()))
    assert said[0] == said[1]


@pytest.mark.exhaustive
def test_a_layer_without_network_has_no_http_and_no_tls_and_attests_from_its_bundle(
    layer: Path, libraries: DriverLibraries, tmp_path: Path
) -> None:
    from nvattest.testing import Platform

    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps(Platform.build("hopper-1").bundle()))
    policy = tmp_path / "policy.toml"
    policy.write_text("# strict\n")
    options = ["--no-network", "--no-squashfs", "--bundle", str(bundle), "--add", f"{policy}:/etc/nvattest/policy.toml"]
    built = build_layer(tmp_path / "built", *options)
    [path] = built.glob("*.manifest.json")
    manifest = json.loads(path.read_text())
    files = {item["path"]: item["sha256"] for item in manifest["files"]}
    assert files["/etc/nvattest/bundle.json"] == hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert "/etc/nvattest/policy.toml" in files
    assert not [name for name in files if re.search(r"libssl|libcrypto|/_?ssl\.|requests/|urllib3/|cacert", name)]
    assert manifest["unpacked_bytes"] < manifest_of(layer)["unpacked_bytes"] - 5_000_000
    print(f"\nwithout network: {manifest['unpacked_bytes'] / 1e6:.1f} MB unpacked")
    if os.geteuid() == 0:
        world = ChrootGuest(tmp_path / "guest", libraries, built)
        try:
            assert world.shipped_config.endswith(b"\nnetwork = false\n")
            world.write_bundle()
            world.run()
            assert_ready(world)
        finally:
            world.close()


def test_the_build_adds_to_a_table_that_is_there_and_names_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import argparse

    from nvattest.guest.config import parse_config

    monkeypatch.syspath_prepend(str(ROOT / "examples/guest-layer"))
    import build

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795000000")
    path = tmp_path / "hook.toml"

    def made(text: str) -> Any:
        path.write_text(text)
        options = argparse.Namespace(config=str(path), no_network=True, bundle=None, add=[])
        return parse_config(build._configuration(options))

    config = made("[collateral] # ours\nbundle = '/b.json'\n[clock]\nwait_hook = 0.5")
    assert (config.collateral_network, config.collateral_bundle) == (False, "/b.json")
    assert (config.clock_not_before, config.clock_wait_hook) == ("2026-11-18T11:06:40Z", 0.5)
    assert made("[clock]\nnot_before = '2026-12-01T00:00:00Z'").clock_not_before == "2026-12-01T00:00:00Z"
    assert made("").clock_not_before == "2026-11-18T11:06:40Z"
    # No earlier time than that of the program itself is named.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "315532800")
    assert made("").clock_not_before is None


def test_the_glibc_that_a_layer_needs_is_that_of_its_libraries(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples/guest-layer"))
    from layer_native import LayerError, needed_glibc

    files = [str(path) for path in elf_files(layer / "root")]
    needed = manifest_of(layer)["glibc"]
    assert needed_glibc(files) == needed_glibc(files, most=needed) == needed
    assert needed_glibc(files, most="2.100") == needed
    with pytest.raises(
        LayerError, match=rf"needs glibc {re.escape(needed)}, above --max-glibc 2\.2: .*\.so.* needs 2\."
    ):
        needed_glibc(files, most="2.2")
    for text in ("two", "2", "2.35.1", ""):
        with pytest.raises(LayerError, match="is no version"):
            needed_glibc(files, most=text)


@pytest.mark.exhaustive
def test_a_layer_that_needs_a_newer_glibc_than_the_guest_has_is_not_built(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples/guest-layer/build.py"), "--max-glibc", "2.2"]
    done = subprocess.run([*command, "--output", str(tmp_path / "dist")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "above --max-glibc 2.2" in done.stderr
    assert not (tmp_path / "dist").exists()


@pytest.mark.exhaustive
def test_what_the_hook_would_refuse_in_the_guest_is_refused_by_the_build(tmp_path: Path) -> None:
    config = tmp_path / "hook.toml"
    config.write_text("expected_gpu = 1\n")
    command = [
        sys.executable,
        str(Path(__file__).parents[2] / "examples/guest-layer/build.py"),
        "--config",
        str(config),
    ]
    done = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "unknown key 'expected_gpu'" in done.stderr


# --- glibc and the driver, nothing else -------------------------------------------------------------------------------


def assert_ready(guest: ChrootGuest) -> None:
    assert guest.state["reason"] is None
    assert guest.server.ready_history[-2:] == (0, 1)
    assert guest.ready == 1
    token = json.loads(guest.token.read_text())
    assert token[0][0] == "JWT"


def test_nothing_but_the_layer_and_glibc_attests_a_gpu(guest: NewGuest) -> None:
    world = guest()
    assert world.glibc <= {
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libm.so.6",
        "libdl.so.2",
        "libpthread.so.0",
        "librt.so.1",
    }
    assert not [path for path in world.root.rglob("*") if path.name in ("sh", "bash", "python3", "busybox")]
    ended = world.run()
    assert (ended.status, ended.stdout) == (0, "")
    assert ended.stderr.startswith("nvattest-hook: attestation successful, GPUs set ready; SIMULATED")
    assert_ready(world)
    seconds = min(world.run().seconds for _ in range(3))
    assert world.summaries[-1]["reused"] is True
    print(
        f"\nlayer, one GPU, bundle: {ended.seconds:.3f} s; a verdict used again: {1000 * seconds:.0f} ms (6 ms of agent)"
    )


def test_the_layer_attests_with_no_newer_glibc_than_its_manifest_asks_for(guest: NewGuest, layer: Path) -> None:
    # examples/guest-layer/README.md has the three lines that fetch one.
    folder = os.environ.get("NVATTEST_TEST_GLIBC", "")
    if not folder:
        pytest.skip("NVATTEST_TEST_GLIBC names no folder with the unpacked libc6 of another release")
    world = guest(glibc=Path(folder))
    found = re.search(
        rb"GNU C Library .*version (\d+\.\d+)", (world.root / "lib/x86_64-linux-gnu/libc.so.6").read_bytes()
    )
    assert found is not None
    assert found[1].decode() == manifest_of(layer)["glibc"]
    world.run()
    assert_ready(world)
    assert world.run("check").status == 0
    print(f"\nlayer with glibc {found[1].decode()}: attested")


def test_the_argv_of_older_agents_means_the_same(guest: NewGuest) -> None:
    world = guest()
    assert world.run(argv=[HOOK, "nvattest-hook", "prestart"]).status == 0
    assert_ready(world)


def test_an_hgx_node_with_its_switches_is_attested_by_the_layer(guest: NewGuest) -> None:
    world = guest("hopper-8-ppcie")
    ended = world.run()
    assert_ready(world)
    assert (world.state["gpus"], world.state["switches"]) == (8, 4)
    print(f"\nlayer, HGX node, bundle: {ended.seconds:.2f} s")


def test_collateral_comes_over_tls_where_there_is_no_bundle(guest: NewGuest) -> None:
    world = guest(bundle=False)
    with Services(world.platform, tls=True, now=wall_clock) as services:
        world.file("etc/nvattest/ca.pem").write_bytes(services.ca_pem)
        world.configure(
            collateral={
                "network": True, "rim_url": services.rim_url, "ocsp_url": services.ocsp_url, "ca_file": "/etc/nvattest/ca.pem",
            }
        )  # fmt: skip
        world.run()
        assert services.log, world.state
    assert_ready(world)


# The tests of the hook have the marked ones in every run; here they would only show the same modules again.
@pytest.mark.parametrize(
    "lie",
    [
        "gpu0:measurement=9",
        pytest.param("gpu0:signature", marks=pytest.mark.exhaustive),
        pytest.param("gpu0:revoked=1", marks=pytest.mark.exhaustive),
        "driver-rim:xml=dtd",
        "driver-rim:xml=key-value",
    ],
)
def test_a_bad_device_is_not_set_ready_by_the_layer(guest: NewGuest, lie: str) -> None:
    world = guest(lies=[lie])
    world.configure(on_failure="block")
    assert world.run().status == 1
    assert world.ready == 0
    assert 1 not in world.server.ready_history
    assert not world.token.exists()
    assert world.state["verdict"] == "not-trusted"


def test_a_driver_that_hangs_is_given_up_by_the_layer(guest: NewGuest) -> None:
    world = guest()
    world.configure(budget={"hook": 1.5}, on_failure="block")
    world.server.faults["nvmlDeviceGetConfComputeGpuAttestationReport"] = Fault(hang=True)
    ended = world.run()
    assert (ended.status, world.state["cause"]) == (6, "deadline")
    assert world.ready == 0


def test_a_guest_without_the_driver_library_is_told_so(guest: NewGuest) -> None:
    world = guest()
    shutil.rmtree(world.root / "usr/lib/x86_64-linux-gnu")
    world.configure(on_failure="block")
    ended = world.run()
    assert ended.status == 4
    assert "libnvidia-ml.so.1 could not be loaded" in ended.stderr


def test_the_driver_library_is_found_in_an_extension_image(guest: NewGuest) -> None:
    world = guest()
    place = world.root / "run/kata-extensions/gpu/usr/lib/x86_64-linux-gnu"
    place.parent.mkdir(parents=True)
    (world.root / "usr/lib/x86_64-linux-gnu").rename(place)
    world.run()
    assert_ready(world)


def test_the_layer_can_be_mounted_anywhere(guest: NewGuest) -> None:
    world = guest()
    place = world.root / "run/kata-extensions/nvattest"
    place.mkdir(parents=True)
    (world.root / "usr/share").rename(world.root / "tmp/share")
    (place / "usr").mkdir()
    (world.root / "tmp/share").rename(place / "usr/share")
    (place / "usr/lib").mkdir()
    (world.root / HOME).rename(place / "usr/lib/nvattest")
    # The loader and the launcher both ask /proc where the program is.
    (world.root / "proc").rename(world.root / "tmp/proc")
    done = subprocess.run(
        [str(place / HOOK.lstrip("/")), "--version"], env={}, capture_output=True, text=True, cwd="/", timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("nvattest-hook ")


def mounted(world: ChrootGuest, name: str) -> Path:
    """Move all of the layer into an extension image; the guest itself has nothing of it. Where it is mounted."""
    mount = world.root / "run/kata-extensions" / name
    (mount / "usr/lib").mkdir(parents=True)
    (mount / "etc").mkdir()
    for path in ("usr/share", HOME, "etc/nvattest"):
        (world.root / path).rename(mount / path)
    (world.root / "etc/nvattest").mkdir()
    (mount / "etc/nvattest/anchors.pem").rename(world.root / "etc/nvattest/anchors.pem")
    world.program = f"/run/kata-extensions/{name}{HOOK}"
    world.hook = mount / HOOK.lstrip("/")
    # The loader and the launcher both ask /proc where the program is; here they ask a folder.
    (world.root / "proc/self").mkdir()
    (world.root / "proc/self/exe").symlink_to(world.program)
    return mount


def test_an_extension_image_is_attested_by_its_own_configuration_and_bundle(guest: NewGuest) -> None:
    world = guest()
    mounted(world, "coco")
    # As examples/init/components.toml has it.
    manifest = (ROOT / "examples/init/components.toml").read_text()
    [words] = re.findall(r"(?m)^args = (.*)$", manifest)
    words = words.replace("${extension_root}", "/run/kata-extensions/coco")
    assert world.run(*json.loads(words), "--once").status == 0
    assert_ready(world)
    assert world.state["config"] == "/run/kata-extensions/coco/etc/nvattest/hook.toml"
    assert "/run/kata-extensions/coco/etc/nvattest/bundle.json" in world.state["inputs"]
    assert world.state["findings"] == []


def test_a_hook_in_an_extension_image_finds_the_image_s_configuration_without_being_given_it(guest: NewGuest) -> None:
    world = guest()
    mounted(world, "nvattest")
    # guest_hook_path = "/run/kata-extensions/nvattest/usr/share/oci/hooks"; an agent gives a hook no --config.
    assert world.run().status == 0
    assert_ready(world)
    assert world.state["config"] == "/run/kata-extensions/nvattest/etc/nvattest/hook.toml"
    assert world.state["findings"] == []
    # So do the commands of the same program, so that they speak of the same verdict.
    status = json.loads(world.run("status", "-f", "json").stdout)
    assert (status["verdict"], status["current"]) == ("trusted", True)
    world.forget()
    assert world.run("gate", "--", world.program, "--version").stdout.startswith("nvattest-hook ")
    assert_ready(world)


def test_the_environment_and_the_current_folder_do_not_reach_the_interpreter(layer: Path, tmp_path: Path) -> None:
    (tmp_path / "nvattest").mkdir()
    (tmp_path / "nvattest/__init__.py").write_text("raise SystemExit('a stranger')\n")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('a stranger')\n")
    environment = {
        "PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "sitecustomize.py"),
        "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error", "PYTHONUSERBASE": str(tmp_path), "LC_ALL": "xx_YY.nowhere",
    }  # fmt: skip
    hook = layer / "root" / HOOK.lstrip("/")
    done = subprocess.run(
        [str(hook), "--version"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_file_outside_the_layer_glibc_and_the_driver_is_opened(guest: NewGuest) -> None:
    opened = traced(guest(), "trace=open,openat,openat2,execve")
    allowed = (
        "/usr/lib/nvattest/", "/etc/nvattest/", "/run/nvattest", "/var/log/nvattest/", "/dev/kmsg", "/proc/", "/sys/",
        "/lib/x86_64-linux-gnu/", "/lib64/", "/usr/lib/x86_64-linux-gnu/libnvidia-", "/usr/lib/x86_64-linux-gnu/nvattest-sim",
        "/etc/ld.so.cache",
    )  # fmt: skip
    inside = opened[next(i for i, line in enumerate(opened) if re.match(r'\d+ +chroot\("', line)) + 1 :]
    strangers = set()
    for line in inside:
        found = re.search(r'"(/[^"]*)"', line)
        if (
            found
            and " = -1 " not in line
            and not found[1].startswith(allowed)
            and found[1] not in (HOOK, "/tmp", "/run", "/")
        ):
            strangers.add(found[1])
    assert strangers == set()


def test_the_token_is_in_its_place_before_ready_is_set(guest: NewGuest) -> None:
    world = guest()
    lines = traced(world, "trace=rename,renameat,renameat2,fsync,sendto,sendmsg,write,writev,unlink,unlinkat")
    ready = [i for i, line in enumerate(lines) if "nvmlSystemSetConfComputeGpusReadyState" in line]
    token = [i for i, line in enumerate(lines) if re.search(r'rename\w*\(.*"(?:/run/nvattest/)?token\.json"', line)]
    assert len(ready) == 2, "one call that takes ready away, one that gives it"
    assert len(token) == 1
    assert ready[0] < token[0] < ready[1]
    # Whole on the disk, too: the data before the name, the folder after it.
    assert any("fsync(" in line for line in lines[ready[0] : token[0]])
    assert any("fsync(" in line for line in lines[token[0] : ready[1]])


def traced(world: ChrootGuest, what: str) -> list[str]:
    """One successful run under strace, as lines in the order of their ends."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not here")
    record = world.root.parent / f"{world.root.name}.trace"
    world.around = [strace, "-f", "-s", "256", "-e", what + ",chroot", "-o", str(record)]
    ended = world.run()
    if "Operation not permitted" in ended.stderr and "ptrace" in ended.stderr:
        pytest.skip("strace may not trace here")
    assert_ready(world)
    return record.read_text().splitlines()
