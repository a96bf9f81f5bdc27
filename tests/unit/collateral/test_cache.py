"""The cache on disk: what it keeps, for how long, and what it makes of files that are not its own."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from nvattest.collateral import cache as module
from nvattest.collateral.cache import DiskCache, default_cache_folder
from nvattest.errors import InputError

NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)
KEY = "ab" * 32


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path, clock) -> DiskCache:
    return DiskCache(str(tmp_path / "cache"), now=clock)


def files(cache: DiskCache) -> list[Path]:
    return sorted(path for path in Path(cache.folder).rglob("*.json"))


def test_what_is_stored_is_found(cache) -> None:
    assert cache.rims("NV_A") == ()
    assert cache.store_rim("NV_A", b"<a/>")
    assert cache.store_answers({KEY: b"der"})
    assert cache.rims("NV_A") == (b"<a/>",)
    assert cache.answer(KEY) == b"der"


def test_a_rim_is_kept_for_a_day_and_no_longer(cache, clock) -> None:
    cache.store_rim("NV_A", b"<a/>")
    clock.now += timedelta(hours=24) - timedelta(seconds=1)
    assert cache.rims("NV_A")
    clock.now += timedelta(seconds=1)
    assert cache.rims("NV_A") == ()


def test_a_caller_may_let_rims_count_for_another_time(tmp_path, clock) -> None:
    cache = DiskCache(str(tmp_path / "cache"), rim_age=timedelta(hours=1), now=clock)
    cache.store_rim("NV_A", b"<a/>")
    clock.now += timedelta(minutes=59)
    assert cache.rims("NV_A")
    clock.now += timedelta(minutes=1)
    assert cache.rims("NV_A") == ()


def test_what_was_stored_in_the_future_does_not_count(cache, clock) -> None:
    cache.store_rim("NV_A", b"<a/>")
    cache.store_answers({KEY: b"der"})
    clock.now -= timedelta(hours=1)
    assert cache.rims("NV_A") == ()
    assert cache.answer(KEY) is None


def test_a_new_issue_replaces_the_old_one(cache) -> None:
    cache.store_rim("NV_A", b"<old/>")
    cache.store_rim("NV_A", b"<new/>")
    assert cache.rims("NV_A") == (b"<new/>",)
    assert len(files(cache)) == 1


def test_an_id_that_begins_like_another_is_another(cache) -> None:
    cache.store_rim("NV_A", b"<a/>")
    cache.store_rim("NV_A_2", b"<b/>")
    assert cache.rims("NV_A") == (b"<a/>",)
    assert len(files(cache)) == 2


@pytest.mark.parametrize("rim_id", ["../escape", "a/b", "", ".hidden", "a\x00b", "x" * 200])
def test_what_is_no_rim_id_is_neither_kept_nor_looked_for(cache, rim_id) -> None:
    assert not cache.store_rim(rim_id, b"<a/>")
    assert cache.rims(rim_id) == ()
    assert files(cache) == []


def test_a_file_cut_at_any_byte_is_no_entry(cache) -> None:
    cache.store_rim("NV_A", b"<a/>")
    cache.store_answers({KEY: b"der"})
    for path in files(cache):
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            assert cache.rims("NV_A") == () or path.parent.name == "ocsp"
            assert cache.answer(KEY) is None or path.parent.name == "rims"
        path.write_bytes(whole)
    assert cache.rims("NV_A")
    assert cache.answer(KEY)


def test_a_file_with_any_byte_changed_gives_the_stored_content_or_nothing(cache) -> None:
    cache.store_rim("NV_A", b"<a/>")
    (path,) = files(cache)
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        assert cache.rims("NV_A") in ((), (b"<a/>",))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"format":"nvattest-cache"}']
)
def test_foreign_files_are_passed_over_and_replaced(cache, content) -> None:
    cache.store_rim("NV_A", b"<a/>")
    cache.store_answers({KEY: b"der"})
    for path in files(cache):
        path.write_bytes(content)
    assert cache.rims("NV_A") == ()
    assert cache.answer(KEY) is None
    assert cache.store_rim("NV_A", b"<a/>")
    assert cache.store_answers({KEY: b"der"})
    assert cache.rims("NV_A") == (b"<a/>",)
    assert cache.answer(KEY) == b"der"


def test_an_entry_under_the_name_of_another_is_passed_over(cache) -> None:
    cache.store_answers({KEY: b"der"})
    (path,) = files(cache)
    path.rename(path.with_name("cd" * 32 + ".json"))
    assert cache.answer("cd" * 32) is None


def test_a_pipe_in_place_of_a_file_does_not_hang(cache) -> None:
    os.mkfifo(Path(cache.folder) / "ocsp" / f"{KEY}.json")
    assert cache.answer(KEY) is None


def test_folder_and_files_are_ours_alone(cache) -> None:
    cache.store_rim("NV_A", b"<a/>")
    assert Path(cache.folder).stat().st_mode & 0o777 == 0o700
    assert files(cache)[0].stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_can_write_into_is_refused(tmp_path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(InputError, match="others may write"):
        DiskCache(str(folder))


def test_a_folder_that_a_link_leads_to_and_one_that_can_be_renamed_are_refused(tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(InputError, match="symbolic link"):
        DiskCache(str(tmp_path / "link"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(InputError, match="all users may write into it"):
        DiskCache(str(tmp_path / "open/cache"))


def test_an_entry_that_others_may_write_is_passed_over(cache) -> None:
    cache.store_rim("NV_A", b"<a/>")
    files(cache)[0].chmod(0o666)
    assert cache.rims("NV_A") == ()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError):
        DiskCache(str(tmp_path / "cache"))


def test_a_full_disk_keeps_nothing_and_breaks_nothing(cache, monkeypatch) -> None:
    def full(*args: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    cache.store_rim("NV_A", b"<a/>")
    monkeypatch.setattr(module.os, "replace", full)
    assert not cache.store_rim("NV_A", b"<b/>")
    assert not cache.store_answers({KEY: b"der"})
    monkeypatch.undo()
    assert cache.rims("NV_A") == (b"<a/>",)
    assert not list(Path(cache.folder).rglob("*.new"))


def test_a_lock_that_is_never_released_does_not_stop_us(cache, monkeypatch) -> None:
    import fcntl

    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    monkeypatch.setattr(module.time, "monotonic", lambda: sum(pauses))
    with (Path(cache.folder) / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not cache.store_rim("NV_A", b"<a/>")
        waited = len(pauses)
        assert 0 < sum(pauses) <= module._LOCK_PATIENCE + 2 * pauses[0]
        # A verification has a deadline and stores many things: it waits once.
        assert not cache.store_rim("NV_B", b"<b/>")
        assert not cache.store_answers({KEY: b"der"})
        assert len(pauses) == waited
    assert cache.store_rim("NV_A", b"<a/>")


def test_the_folder_stays_small(cache, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_FILES", 3)
    for number in range(6):
        cache.store_rim(f"NV_{number}", b"<a/>")
        os.utime(files(cache)[-1], (number, number))
    assert len(files(cache)) <= 3
    assert cache.rims("NV_5")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/nvattest"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/nvattest"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/nvattest"),
    ],
)
def test_the_default_folder_follows_the_xdg_rules(monkeypatch, variables, folder) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_cache_folder() == folder
