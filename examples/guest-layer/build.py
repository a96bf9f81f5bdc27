"""Build the guest layer: ``nvattest-hook`` for an image that has glibc and NVIDIA's driver and nothing else.

    python examples/guest-layer/build.py --output dist

The layer is made of the interpreter and the packages that run this script, so the environment decides the versions. The
README beside this file says what is in it and how it goes into an image.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from datetime import datetime, timezone
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from extension import extension_of  # noqa: E402
from layer_modules import NETWORK_PACKAGES, PACKAGES, Module, compile_module, find_modules  # noqa: E402
from layer_native import (  # noqa: E402
    LayerError,
    build_launcher,
    forget_places,
    libraries_of,
    library_of_interpreter,
    needed_glibc,
    strip,
)
from layer_pack import manifest_of, settle, write_squashfs, write_tar  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(HERE))
HOOK = "usr/share/oci/hooks/prestart/nvattest-hook"
# Shells and units call the program by its name; an agent ignores links, so the file itself is in its folder.
NAME = "usr/bin/nvattest-hook"
HOME = "usr/lib/nvattest"
CONFIG = "etc/nvattest/hook.toml"
BUNDLE = "etc/nvattest/bundle.json"
# The schemas of what the hook reads and writes.
SCHEMAS = ("appraisal", "bundle", "evidence-policy", "hook-config", "hook-state", "jwks", "token-eat")
OLDEST = 315532800  # 1980: an archive without a better time


def main(argv: list[str] | None = None) -> int:
    options = _arguments(argv)
    # The order of constant sets in byte code follows the hash seed; columns are a third of it and for tracebacks only.
    wanted = {"PYTHONHASHSEED": "0", "PYTHONNODEBUGRANGES": "1"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        words = [sys.executable, os.path.abspath(__file__), *(sys.argv[1:] if argv is None else argv)]
        os.execve(sys.executable, words, {**os.environ, **wanted})  # noqa: S606 - ourselves
    try:
        with tempfile.TemporaryDirectory(prefix="nvattest-layer-") as folder:
            facts = _assemble(folder, options)
            _deliver(folder, options, facts)
    except LayerError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the guest layer of nvattest-hook.")
    parser.add_argument("--output", default="dist", help="folder for the results (default: dist)")
    parser.add_argument(
        "--config", default=os.path.join(ROOT, "examples", "kata", "hook.toml"), help="becomes /etc/nvattest/hook.toml"
    )
    parser.add_argument("--bundle", help="collateral from 'nvattest bundle'; becomes /etc/nvattest/bundle.json")
    parser.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="FILE:/PATH",
        help="one more file, such as a policy; may be repeated",
    )
    parser.add_argument(
        "--no-network",
        action="store_true",
        help="leave HTTP and TLS out: collateral comes from the bundle or a cache only",
    )
    parser.add_argument(
        "--level", type=int, default=19, choices=range(1, 20), metavar="1-19", help="zstd level (default: 19)"
    )
    parser.add_argument(
        "--max-glibc",
        metavar="VERSION",
        help="the guest's glibc, such as 2.35: fail where the result needs a newer one",
    )
    parser.add_argument("--no-squashfs", action="store_true", help="no squashfs")
    parser.add_argument("--no-extension", action="store_true", help="no guest extension image")
    parser.add_argument("--keep", metavar="DIR", help="leave the unpacked layer here as well")
    return parser.parse_args(argv)


def _assemble(root: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fill ``root`` with the layer; what the manifest says of it."""
    import nvattest
    from nvattest._package import __version__

    network = not options.no_network
    source = os.path.dirname(os.path.dirname(os.path.abspath(nvattest.__file__)))
    folders = [source, sysconfig.get_path("platlib"), sysconfig.get_path("purelib")]
    modules = find_modules(["nvattest.guest"], folders, network=network)
    library = library_of_interpreter()

    native = _place_modules(root, modules)
    libraries = {
        sysconfig.get_config_var("INSTSONAME"): library,
        **libraries_of([*(module.path for module in native), library]),
    }
    placed = [os.path.join(root, HOME, "modules", module.target) for module in native]
    for name, path in sorted(libraries.items()):
        placed.append(_copy(path, root, f"{HOME}/{name}", mode=0o755))
    for path in placed:
        strip(path)
        forget_places(path)
    hook = _place(root, HOOK)
    build_launcher(os.path.join(HERE, "launcher.c"), hook, library)
    os.symlink(os.path.relpath(HOOK, os.path.dirname(NAME)), _place(root, NAME))

    if "certifi" in modules:
        authorities = os.path.join(os.path.dirname(modules["certifi"].path), "cacert.pem")
        _copy(authorities, root, f"{HOME}/modules/certifi/cacert.pem")
    with open(_place(root, CONFIG), "wb") as file:
        file.write(_configuration(options))
    _share(root)
    if options.bundle:
        _copy(options.bundle, root, BUNDLE)
    for item in options.add:
        path, _, target = item.partition(":/")
        _copy(path, root, target)
    glibc = needed_glibc([*placed, hook], most=options.max_glibc)
    packages = _packages(modules)
    _licences(root, packages, libraries)
    return {
        "program": __version__,
        "hook": f"/{HOOK}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "glibc": glibc,
        "network": network,
        "source_date_epoch": _epoch(),
        "packages": packages,
        "libraries": sorted(libraries),
    }


def _place_modules(root: str, modules: dict[str, Module]) -> list[Module]:
    native = []
    for module in modules.values():
        target = f"{HOME}/modules/{module.target}"
        if module.is_native:
            _copy(module.path, root, target, mode=0o755)
            native.append(module)
        else:
            with open(_place(root, target), "wb") as file:
                file.write(compile_module(module))
    return native


def _share(root: str) -> None:
    """What people and packagers look for beside a program, at the places of the wheel below ``/usr``."""
    from nvattest.cli.manual import pages

    with open(_place(root, "usr/share/man/man1/nvattest-hook.1"), "w", encoding="utf-8") as file:
        file.write(pages()["nvattest-hook.1"])
    for name in ("nvattest-init.service", "nvattest-watch.service"):
        _copy(os.path.join(ROOT, "examples", "systemd", name), root, f"usr/lib/systemd/system/{name}")
    _copy(os.path.join(ROOT, "examples/policies/evidence.toml"), root, "usr/share/nvattest/policies/evidence.toml")
    for name in SCHEMAS:
        _copy(os.path.join(ROOT, "schemas", f"{name}-1.json"), root, f"usr/share/nvattest/schemas/{name}-1.json")


def _place(root: str, target: str) -> str:
    path = os.path.join(root, target)
    if os.path.lexists(path):
        raise LayerError(f"/{target} is there twice")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def _copy(path: str, root: str, target: str, *, mode: int = 0o644) -> str:
    place = _place(root, target)
    shutil.copyfile(path, place)
    os.chmod(place, mode)
    return place


def _configuration(options: argparse.Namespace) -> bytes:
    """The configuration. What the hook would refuse in the guest, in any of the files, is refused here."""
    from nvattest.collateral.bundle import load_bundle
    from nvattest.errors import NvattestError
    from nvattest.guest.config import EARLIEST, parse_config

    try:
        with open(options.config, "rb") as file:
            text = file.read()
        # A clock before the sources of this program were written is wrong.
        built = datetime.fromtimestamp(_epoch(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        if parse_config(text).clock_not_before is None and built > EARLIEST:
            text = _with(text, "clock", f'not_before = "{built}"', "Set by the build: the time of its sources.")
        if options.no_network and parse_config(text).collateral_network:
            text = _with(text, "collateral", "network = false", "Set by the build: it left HTTP and TLS out.")
        parse_config(text)
        if options.bundle:
            with open(options.bundle, "rb") as file:
                load_bundle(file.read())
    except (NvattestError, OSError) as error:
        raise LayerError(str(error)) from None
    for item in options.add:
        path, colon, target = item.partition(":/")
        if not colon or not os.path.isfile(path) or ".." in target.split("/"):
            raise LayerError(f"--add {item}: expected FILE:/PATH with a file that is there")
    return text


def _with(text: bytes, table: str, line: str, why: str) -> bytes:
    """The configuration with one more line in a table, which may be there already: TOML has each table once."""
    added = f"# {why}\n{line}\n".encode()
    header = re.search(rb"(?m)^[ \t]*\[[ \t]*" + table.encode() + rb"[ \t]*\][ \t]*(#.*)?$", text)
    if header is None:
        return text.rstrip(b"\n") + f"\n\n[{table}]\n".encode() + added
    return text[: header.end()] + b"\n" + added + text[header.end() :].removeprefix(b"\n")


def _packages(modules: dict[str, Module]) -> dict[str, str]:
    """The distributions that modules came from, with their versions."""
    tops = {name.partition(".")[0] for name in modules} & (PACKAGES | NETWORK_PACKAGES) - {"nvattest"}
    # Not packages_distributions: in Python 3.10 it knows only what has a top_level.txt.
    return {
        distribution.metadata["Name"]: distribution.version
        for distribution in sorted(importlib.metadata.distributions(), key=lambda item: item.metadata["Name"])
        if tops & {file.parts[0].partition(".")[0] for file in distribution.files or ()}
    }


def _licences(root: str, packages: dict[str, str], libraries: dict[str, str]) -> None:
    """Copy the licence of each part."""
    home = f"{HOME}/licenses"
    _copy(os.path.join(ROOT, "LICENSE"), root, f"{home}/nvattest/LICENSE")
    standard = os.path.join(sysconfig.get_path("stdlib"), "LICENSE.txt")
    if os.path.isfile(standard):
        _copy(standard, root, f"{home}/python/LICENSE.txt")
    for name in packages:
        for file in importlib.metadata.files(name) or ():
            words = file.name.upper()
            if file.parts[0].endswith(".dist-info") and words.startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE")):
                path = str(file.locate())
                target = f"{home}/{name}/{file.name}"
                if os.path.isfile(path) and not os.path.exists(os.path.join(root, target)):
                    _copy(path, root, target)
    for path in libraries.values():
        text = _debian_copyright(path)
        if text is not None:
            target = f"{home}/{os.path.basename(os.path.dirname(text))}/copyright"
            if not os.path.exists(os.path.join(root, target)):
                _copy(text, root, target)


def _debian_copyright(path: str) -> str | None:
    if shutil.which("dpkg") is None:
        return None
    # Debian knows files by the path from before /lib became a link to /usr/lib.
    for name in (path, path.removeprefix("/usr")):
        done = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True, check=False)
        package = done.stdout.partition(":")[0]
        text = f"/usr/share/doc/{package}/copyright"
        if done.returncode == 0 and os.path.isfile(text):
            return os.path.realpath(text)
    return None


def _epoch() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        command = ["git", "-C", ROOT, "log", "-1", "--format=%ct"]
        try:
            text = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:
            text = ""
    if text and not text.isdecimal():
        raise LayerError(f"SOURCE_DATE_EPOCH={text!r} is not a number of seconds")
    return int(text or OLDEST)


def _deliver(root: str, options: argparse.Namespace, facts: dict[str, Any]) -> None:
    epoch = facts["source_date_epoch"]
    settle(root, epoch)
    manifest = manifest_of(root, facts)
    with open(_place(root, f"{HOME}/manifest.json"), "wb") as file:
        file.write(manifest)
    settle(root, epoch)
    os.makedirs(options.output, exist_ok=True)
    name = os.path.join(options.output, f"nvattest-guest-layer-{facts['program']}-{facts['machine']}")
    if options.no_network:
        name += "-no-network"
    results = [f"{name}.tar.zst", f"{name}.manifest.json"]
    write_tar(root, results[0], epoch, options.level)
    with open(results[1], "wb") as file:
        file.write(manifest)
    if options.no_squashfs:
        pass
    elif write_squashfs(root, f"{name}.squashfs", epoch, options.level):
        results.append(f"{name}.squashfs")
    else:
        print("no squashfs: mksquashfs is missing (Debian: squashfs-tools)", file=sys.stderr)
    if not options.no_extension:
        results += _extension(root, name)
    if options.keep:
        shutil.copytree(root, options.keep)
    sizes = [os.lstat(os.path.join(folder, file)).st_size for folder, _, files in os.walk(root) for file in files]
    print(f"unpacked: {sum(sizes) / 1e6:.1f} MB in {len(sizes)} files; needs glibc {facts['glibc']} or newer")
    for path in results:
        with open(path, "rb") as image:
            data = image.read()
        print(f"{hashlib.sha256(data).hexdigest()}  {path}  {len(data) / 1e6:.1f} MB")


def _extension(root: str, name: str) -> list[str]:
    """The guest extension image, with the five fields of the runtime's configuration beside it."""
    fields = extension_of(root, f"{name}.extension.img")
    if fields is None:
        print("no extension image: mkfs.erofs is missing (Debian: erofs-utils)", file=sys.stderr)
        return []
    with open(f"{name}.extension.verity", "w", encoding="ascii") as file:
        file.write(f"{fields}\n")
    return [f"{name}.extension.img", f"{name}.extension.verity"]


if __name__ == "__main__":
    sys.exit(main())
