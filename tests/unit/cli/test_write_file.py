"""An output that the caller named: what is no regular file stays what it is, and a regular file is never half written."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvattest.cli.output import write_file
from nvattest.errors import InputError


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- regular files ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    write_file(str(tmp_path / "open"), "text")
    write_file(str(tmp_path / "secret"), b"bytes", mode=0o600)
    assert (mode(tmp_path / "open"), mode(tmp_path / "secret")) == (0o640, 0o600)
    assert sorted(os.listdir(tmp_path)) == ["open", "secret"]


@pytest.mark.usefixtures("umask")
def test_an_older_file_keeps_its_permissions_unless_the_new_content_is_secret(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for before in (0o644, 0o600, 0o604):
        file.write_text("old")
        file.chmod(before)
        write_file(str(file), "new")
        assert (file.read_text(), mode(file)) == ("new", before)
    file.chmod(0o666)
    write_file(str(file), "token", mode=0o600)
    assert (file.read_text(), mode(file)) == ("token", 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.usefixtures("umask")
def test_permissions_and_owner_of_another_users_file_are_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o666)
    os.chown(file, 12345, 12345)
    write_file(str(file), "new")
    assert (file.stat().st_uid, mode(file)) == (0, 0o640)
    os.chown(file, 0, 12345)
    write_file(str(file), "new")
    assert (file.stat().st_gid, mode(file)) == (12345, 0o640)


def test_a_reader_finds_the_old_content_or_all_of_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with file.open() as reader:
        write_file(str(file), "new")
        assert reader.read() == "old"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="file: No space left on device"):
        write_file(str(file), "other")
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "way").symlink_to("there")
    (tmp_path / "link").symlink_to("way/file")
    for text in ("one", "two"):
        write_file(str(tmp_path / "link"), text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_text() == text
    assert os.listdir(tmp_path / "there") == ["file"]
    (tmp_path / "ring").symlink_to("ring")
    with pytest.raises(InputError, match="Too many levels"):
        write_file(str(tmp_path / "ring"), "text")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give links away")
def test_a_link_of_another_user_in_a_folder_for_all_is_not_followed(tmp_path: Path) -> None:
    from nvattest.cli.output import open_stream

    shared, mine = tmp_path / "shared", tmp_path / "mine"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "link").symlink_to(mine)
    write_file(str(shared / "link"), "text")
    os.chown(shared / "link", 12345, 12345, follow_symlinks=False)
    for write in (lambda path: write_file(path, "other"), open_stream):
        with pytest.raises(InputError, match="a link of user 12345 in a folder that all may write into"):
            write(str(shared / "link"))
    assert mine.read_text() == "text"
    # In a folder of one user the link is as good as the folder.
    shared.chmod(0o755)
    write_file(str(shared / "link"), "other")
    assert mine.read_text() == "other"


@pytest.mark.parametrize(
    ("name", "why"), [("", "Is a directory"), ("none/file", "No such file"), ("file/x", "Not a directory")]
)
def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(InputError, match=f"{name}: {why}"):
        write_file(f"{tmp_path}/{name}", "text")
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_without_a_folder_is_in_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_file("file", "text")
    assert (tmp_path / "file").read_text() == "text"


# --- what is no regular file ------------------------------------------------------------------------------------------


def test_a_pipe_with_a_name_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    write_file(str(pipe), "text")
    reader.join(30)
    assert found == ["text"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    node = tmp_path / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        node.read_bytes()
    except OSError:
        pytest.skip("no device can be made and opened here")
    write_file(str(node), "token", mode=0o600)
    assert (node.stat().st_rdev, mode(node)) == (os.makedev(1, 3), 0o666 & ~_umask())
    (tmp_path / "link").symlink_to("null")
    write_file(str(tmp_path / "link"), "token")
    assert sorted(os.listdir(tmp_path)) == ["link", "null"]


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_a_terminal_is_written_to() -> None:
    ours, theirs = os.openpty()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, ours)
        stack.callback(os.close, theirs)
        write_file(os.ttyname(theirs), "text")
        assert os.read(ours, 10) == b"text"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("name", ["stdout", "fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("append", [False, True])
def test_a_descriptor_is_written_from_where_it_stands(tmp_path: Path, name: str, append: bool) -> None:
    # The caller sent stdout into a file: what stood and stands in it is not lost.
    name = str(_links(tmp_path) / name)
    out = tmp_path / "out"
    out.write_text("before\n")
    program = (
        "from nvattest.cli.output import write_file\nprint('first')\n"
        f"write_file({name!r}, 'second\\n', mode=0o600)\nprint('third')"
    )
    with out.open("a" if append else "r+") as stdout:
        stdout.seek(0, os.SEEK_END)
        subprocess.run([sys.executable, "-c", program], stdout=stdout, timeout=60, check=True)
    assert out.read_text() == "before\nfirst\nsecond\nthird\n"
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert piped.stdout == "first\nsecond\nthird\n"


def _links(folder: Path) -> Path:
    """The links of ``/dev``, which a writer with this fault, run by root, would replace for the whole machine."""
    (folder / "stdout").symlink_to("/proc/self/fd/1")
    (folder / "fd").symlink_to("/proc/self/fd")
    (folder / "link").symlink_to("stdout")
    return folder


def test_a_descriptor_that_is_not_open_is_an_error() -> None:
    if not os.path.isdir("/dev/fd"):
        pytest.skip("needs /dev/fd")
    with pytest.raises(InputError, match="/dev/fd/999: Bad file descriptor"):
        write_file("/dev/fd/999", "text")


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_outputs_of_attest_can_be_stdout_a_pipe_and_a_link(tmp_path: Path) -> None:
    (tmp_path / "token").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")

    def attest(*outputs: str) -> str:
        command = [sys.executable, "-m", "nvattest", "attest", "--simulate", "hopper-1", *outputs]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE, text=True) as reader:
        attest("--token-out", str(tmp_path / "token"), "--jwks-out", str(tmp_path / "pipe"))
        assert '"keys"' in reader.communicate(timeout=30)[0]
    assert (tmp_path / "token").is_symlink()
    assert mode(tmp_path / "real") == 0o600
    shown = attest("--jwks-out", str(_links(tmp_path) / "stdout"))
    assert '"keys"' in shown
    assert "Result: TRUSTED" in shown


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_batch_goes_into_a_descriptor_and_is_resumed_from_files_only(tmp_path: Path) -> None:
    from nvattest.cli.output import open_stream
    from nvattest.fleet import Resumed, open_output

    out = tmp_path / "out"
    out.write_text("before\n")
    with out.open("a") as file, open_output(f"/dev/fd/{file.fileno()}", None, open_stream) as stream:
        stream.write(b"answer\n")
    assert out.read_text() == "before\nanswer\n"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        Resumed(str(tmp_path / "pipe"), "settings")


def test_a_compressed_batch_is_resumed_behind_its_link_and_for_the_same_readers(tmp_path: Path) -> None:
    from nvattest.cli.output import open_stream
    from nvattest.fleet import Resumed, open_output

    there, link = tmp_path / "there.gz", tmp_path / "out.gz"
    link.symlink_to("there.gz")
    answers = [b'{"id":1}\n', b'{"id":2}\n']
    there.write_bytes(gzip.compress(b"".join(answers)))
    there.chmod(0o604)
    before = Resumed(str(link), "settings")
    before.end = len(answers[0])
    with open_output(str(link), before, open_stream) as stream:
        stream.write(b'{"id":3}\n')
    assert (link.is_symlink(), mode(there)) == (True, 0o604)
    assert gzip.decompress(there.read_bytes()) == b'{"id":1}\n{"id":3}\n'


def test_a_compressed_batch_that_cannot_be_resumed_stays_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvattest.cli.output import open_stream
    from nvattest.fleet import Resumed, open_output

    out = tmp_path / "out.gz"
    packed = gzip.compress(b'{"id":1}\n')
    out.write_bytes(packed)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        open_output(str(out), Resumed(str(out), "settings"), open_stream)
    assert os.listdir(tmp_path) == ["out.gz"]
    assert out.read_bytes() == packed
