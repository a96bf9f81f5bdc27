"""Packing: the same folder gives the same bytes, whoever packs it, where and when."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

from layer_native import LayerError

__all__ = ["manifest_of", "settle", "write_erofs", "write_squashfs", "write_tar"]

# The id of every file system made here; dm-verity covers the content.
_UUID: Final = "6e766174-7465-7374-8000-65786d616765"


def _walk(root: str) -> Iterator[str]:
    """Paths of folders and files below ``root``, sorted, each folder before what is in it."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        if folder != root:
            yield os.path.relpath(folder, root)
        yield from (os.path.relpath(os.path.join(folder, name), root) for name in sorted(names))


def settle(root: str, epoch: int) -> None:
    """Give every file, folder and link one time, and files and folders one of two modes."""
    for path in [*_walk(root), "."]:
        full = os.path.join(root, path)
        mode = os.lstat(full).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            raise LayerError(f"{path} is neither a file nor a folder nor a link")
        if not stat.S_ISLNK(mode):
            os.chmod(full, 0o755 if stat.S_ISDIR(mode) or mode & 0o111 else 0o644)
        os.utime(full, (epoch, epoch), follow_symlinks=False)


def manifest_of(root: str, facts: Mapping[str, Any]) -> bytes:
    """The manifest: ``facts``, every file with its SHA-256 and every link with its target. It cannot name itself."""
    files = []
    links = {}
    for path in sorted(_walk(root)):
        full = os.path.join(root, path)
        if os.path.islink(full):
            links["/" + path] = os.readlink(full)
        elif os.path.isfile(full):
            with open(full, "rb") as file:
                data = file.read()
            mode = f"{stat.S_IMODE(os.stat(full).st_mode):04o}"
            files.append(
                {"path": "/" + path, "mode": mode, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            )
    document = {"format": "nvattest-guest-layer", "version": 1, **facts, "files": files, "links": links}
    document["unpacked_bytes"] = sum(item["size"] for item in files)
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def write_tar(root: str, target: str, epoch: int, level: int) -> None:
    """Write a tar, compressed with zstd: sorted, owned by root, every time ``epoch``."""
    if shutil.which("zstd") is None:
        raise LayerError("zstd is missing; on Debian it is in the package zstd")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in _walk(root):
            full = os.path.join(root, path)
            info = tarfile.TarInfo(path)
            info.mtime, info.uid, info.gid, info.uname, info.gname = epoch, 0, 0, "root", "root"
            info.mode = stat.S_IMODE(os.lstat(full).st_mode)
            if os.path.islink(full):
                info.type, info.linkname = tarfile.SYMTYPE, os.readlink(full)
                tar.addfile(info)
                continue
            if os.path.isdir(full):
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
                continue
            info.size = os.path.getsize(full)
            with open(full, "rb") as file:
                tar.addfile(info, file)
    command = ["zstd", f"-{level}", "--single-thread", "--quiet", "--force", "-o", target]
    subprocess.run(command, input=buffer.getvalue(), check=True)


def write_squashfs(root: str, target: str, epoch: int, level: int) -> bool:
    """Write a squashfs where mksquashfs is there; whether it was."""
    if os.path.exists(target):
        os.unlink(target)
    return _make(
        "mksquashfs", root, target, "-quiet", "-no-progress", "-noappend", "-all-root", "-no-xattrs", "-reproducible",
        "-comp", "zstd", "-Xcompression-level", str(level), "-b", "256K",
        "-mkfs-time", str(epoch), "-all-time", str(epoch), "-processors", "1",
    )  # fmt: skip


def write_erofs(root: str, target: str) -> bool:
    """Write an EROFS as NVIDIA's extension images have it where mkfs.erofs is there; whether it was."""
    return _make(
        "mkfs.erofs", "-T0", f"-U{_UUID}", "--all-root", "-x-1", "-zlz4hc", "-Enoinline_data", "--quiet", target, root,
    )  # fmt: skip


def _make(program: str, *arguments: str) -> bool:
    """Run a program that makes a file system; False where it is missing.

    Raises:
        LayerError: it failed.
    """
    if shutil.which(program) is None:
        return False
    # The variable would compete with the times among the arguments.
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise LayerError(f"{program}: {(done.stderr or done.stdout).strip()[-600:]}")
    return True
