"""Folders that the program believes: whose they may be, how they are reached, and what may lie in them."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvattest._system import Lock, TrustedFolder

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
STRANGER = 12345


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[TrustedFolder]:
    with TrustedFolder(str(tmp_path / "own"), make=True) as made:
        yield made


def refused(path: Path, why: str, **named: bool) -> None:
    with pytest.raises(PermissionError, match=why):
        TrustedFolder(str(path), **named)  # type: ignore[arg-type]


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_and_those_above_it_are_made_with_the_mode(tmp_path: Path) -> None:
    with TrustedFolder(str(tmp_path / "a/b/c"), make=True, mode=0o755) as made:
        assert made.path == str(tmp_path / "a/b/c")
        assert stat.S_IMODE((tmp_path / "a/b/c").stat().st_mode) == 0o755
        with TrustedFolder("d", make=True, inside=made) as below:
            assert below.path == str(tmp_path / "a/b/c/d")
    with pytest.raises(FileNotFoundError):
        TrustedFolder(str(tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
def test_a_folder_into_which_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    refused(tmp_path / "open", f"others may write into it \\(mode {mode:04o}\\)")


@as_root
def test_a_folder_of_another_user_is_refused_though_only_that_one_may_write(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    os.chown(tmp_path / "theirs", STRANGER, STRANGER)
    refused(tmp_path / "theirs", f"belongs to user {STRANGER}; expected root")


def test_an_access_list_that_lets_another_user_write_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.mkdir(mode=0o755)
    # Version 2; owner rwx, user 12345 rwx, group r-x, mask rwx, others r-x (linux/posix_acl_xattr.h).
    none = 0xFFFFFFFF
    entries = [(1, 7, none), (2, 7, STRANGER), (4, 5, none), (16, 7, none), (32, 5, none)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", value)
    except OSError as error:
        pytest.skip(f"no access lists here: {error.strerror}")
    refused(path, "others may write")


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("real")
    refused(tmp_path / "link", "symbolic link", make=True)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        TrustedFolder(str(tmp_path / "file"), make=True)
    with pytest.raises(NotADirectoryError):
        TrustedFolder(str(tmp_path / "file/below"), make=True)
    refused(Path("/"), "root folder")


# --- the way to it ----------------------------------------------------------------------------------------------------


def test_a_parent_in_which_everybody_may_rename_is_refused_unless_it_is_sticky(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    (parent / "own").mkdir(parents=True)
    parent.chmod(0o777)
    refused(parent / "own", f"all users may write into it .*{parent}")
    refused(parent / "new", "all users may write", make=True)
    assert not (parent / "new").exists()
    parent.chmod(0o1777)
    TrustedFolder(str(parent / "own")).close()
    # Ubuntu's /var/log is such a folder.
    parent.chmod(0o775)
    TrustedFolder(str(parent / "own")).close()


@as_root
def test_a_parent_of_another_user_is_refused(tmp_path: Path) -> None:
    parent = tmp_path / "theirs"
    (parent / "own").mkdir(parents=True)
    os.chown(parent, STRANGER, STRANGER)
    refused(parent / "own", f"belongs to user {STRANGER}")


def test_links_on_the_way_are_followed_where_only_the_caller_could_make_them(tmp_path: Path) -> None:
    (tmp_path / "real/own").mkdir(parents=True, mode=0o755)
    (tmp_path / "relative").symlink_to("x/../real")
    (tmp_path / "x").mkdir()
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    for name in ("relative", "absolute"):
        with TrustedFolder(str(tmp_path / name / "own")) as found:
            found.write("file", b"x")
    assert (tmp_path / "real/own/file").read_bytes() == b"x"
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links"):
        TrustedFolder(str(tmp_path / "round/own"))


@as_root
def test_a_link_on_the_way_that_another_user_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real/own").mkdir(parents=True, mode=0o755)
    tmp_path.chmod(0o1777)
    os.symlink("real", tmp_path / "link")
    os.chown(tmp_path / "link", STRANGER, STRANGER, follow_symlinks=False)
    refused(tmp_path / "link/own", f"belongs to user {STRANGER}")


def test_where_the_path_leads_later_does_not_matter(tmp_path: Path) -> None:
    with TrustedFolder(str(tmp_path / "own"), make=True) as opened:
        (tmp_path / "own").rename(tmp_path / "moved")
        (tmp_path / "own").mkdir()
        opened.write("file", b"x")
    assert (tmp_path / "moved/file").exists()
    assert not (tmp_path / "own/file").exists()


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_open_folder_has_one_owner(folder: TrustedFolder, again: Callable[[TrustedFolder], object]) -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        again(folder)


def test_a_file_is_whole_or_as_it_was(folder: TrustedFolder) -> None:
    folder.write("x", b"one", mode=0o600)
    path = Path(folder.at("x"))
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"one", 0o600)
    folder.write("x", b"two", mode=0o644)
    assert folder.read("x", 3) == b"two"
    with pytest.raises(OSError, match="larger than 2 bytes"):
        folder.read("x", 2)
    Path(folder.at("full")).mkdir()  # a folder of this name: the last step fails
    with pytest.raises(OSError, match="full"):
        folder.write("full", b"two")
    assert sorted(folder.names()) == ["full", "x"]


def test_what_a_killed_writer_left_is_gone_with_the_next_write(folder: TrustedFolder) -> None:
    Path(folder.at(".x.new")).write_bytes(b"half")
    folder.write("x", b"whole")
    assert folder.names() == ["x"]
    Path(folder.at(".x.new")).write_bytes(b"half")
    folder.remove("x")
    assert folder.names() == []


def test_a_pipe_or_a_link_in_the_place_of_a_file_is_neither_waited_for_nor_followed(folder: TrustedFolder) -> None:
    os.mkfifo(folder.at("pipe"))
    Path(folder.path).parent.joinpath("else").write_bytes(b"else")
    os.symlink("../else", folder.at("link"))
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=name):
            folder.read(name, 100)
        with pytest.raises(OSError, match=name):
            folder.append(name, b"x")
        with pytest.raises(OSError, match=name):
            Lock(folder, name)
        # Written, it is replaced and not written through.
        folder.write(name, b"mine")
        assert folder.read(name, 100) == b"mine"
    assert Path(folder.path).parent.joinpath("else").read_bytes() == b"else"


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_a_file_into_which_others_may_write_is_not_believed(folder: TrustedFolder, mode: int) -> None:
    Path(folder.at("x")).touch()
    Path(folder.at("x")).chmod(mode)
    with pytest.raises(PermissionError, match="others may write"):
        folder.read("x", 100)


@as_root
def test_a_file_of_another_user_is_not_believed(folder: TrustedFolder) -> None:
    Path(folder.at("x")).write_bytes(b"x")
    os.chown(folder.at("x"), STRANGER, STRANGER)
    for use in (lambda: folder.read("x", 100), lambda: folder.append("x", b"y"), lambda: Lock(folder, "x")):
        with pytest.raises(PermissionError, match="belongs to user"):
            use()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_a_name_leads_nowhere_else(folder: TrustedFolder, name: str) -> None:
    for use in (folder.facts, folder.remove, lambda name: folder.read(name, 1), lambda name: folder.write(name, b"")):
        with pytest.raises(ValueError, match="not the name of a file"):
            use(name)
    with pytest.raises(ValueError, match="not the name of a file"):
        TrustedFolder(name, inside=folder)


def test_a_lock_excludes_and_ends_with_its_holder(folder: TrustedFolder) -> None:
    one, two = Lock(folder), Lock(folder)
    assert one.take(time.monotonic())
    assert not two.take(time.monotonic() + 0.03)
    one.close()
    assert two.take(time.monotonic())
    two.close()
