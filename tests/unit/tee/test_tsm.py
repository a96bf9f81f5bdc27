"""Quotes through a directory that behaves like configfs-tsm: its order, its races, its errors."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fake_kernel import ROOT, Entry, FakeKernel, failure

from nvattest.errors import CollectionError, InputError, ParseError
from nvattest.tee import tsm
from nvattest.tee.quote import dump_quote, read_quote_file
from nvattest.tee.tsm import TeeQuote, take_quote

DATA = bytes(range(64))
Boot = Callable[..., FakeKernel]


class Clock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def take(**settings: Any) -> TeeQuote:
    clock = Clock()
    return take_quote(DATA, root=ROOT, sleep=clock.sleep, clock=clock, **settings)


def refused(**settings: Any) -> CollectionError:
    with pytest.raises(CollectionError) as caught:
        take(**settings)
    return caught.value


def test_a_quote_carries_our_data_and_the_directory_is_gone(boot: Boot) -> None:
    kernel = boot(auxiliary=b"certificates")
    assert take() == TeeQuote(
        provider="tdx_guest", quote=b"QUOTE" + DATA, auxiliary=b"certificates", report_data=DATA, generation=1
    )
    assert kernel.entries == {}
    assert len(kernel.removed) == 1
    assert kernel.handles == {}


@pytest.mark.parametrize("auxiliary", [b"", errno.ENOENT, errno.ENXIO, errno.EOPNOTSUPP])
def test_a_provider_without_auxiliary_data_is_fine(auxiliary: bytes | int, boot: Boot) -> None:
    boot(auxiliary=auxiliary)
    assert take().auxiliary is None


def test_another_program_that_writes_into_our_directory_is_seen_and_the_request_repeated(boot: Boot) -> None:
    def intrude(entry: Entry) -> None:
        if kernel.made < 3:
            entry.report_data = b"\0" * 64
            entry.generation += 1

    kernel = boot(on_outblob=intrude)
    assert take().quote == b"QUOTE" + DATA
    assert (kernel.made, len(kernel.removed), kernel.entries) == (3, 3, {})


def test_a_race_that_does_not_end_is_an_error(boot: Boot) -> None:
    def intrude(entry: Entry) -> None:
        entry.generation += 1

    kernel = boot(on_outblob=intrude)
    assert refused().code == "tsm-race"
    assert (kernel.made, kernel.entries) == (3, {})


def test_a_write_that_the_kernel_dropped_at_close_is_never_a_quote(boot: Boot) -> None:
    def forget(entry: Entry) -> None:
        # As if nothing had been written: the generation stays, and an old answer comes.
        entry.generation = 0

    kernel = boot(on_outblob=forget)
    assert refused().code == "tsm-race"
    assert kernel.entries == {}


def test_a_short_write_is_never_continued(boot: Boot) -> None:
    kernel = boot(short_write=True)
    assert refused().code == "tsm-race"
    assert kernel.entries == {}


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, errno.EAGAIN])
def test_a_busy_quoting_service_is_asked_again(number: int, boot: Boot) -> None:
    def busy(entry: Entry) -> None:
        if entry.outblob_reads < 5:
            raise failure(number)

    boot(on_outblob=busy)
    assert take().quote == b"QUOTE" + DATA


def test_a_service_that_stays_busy_is_given_up_at_the_deadline(boot: Boot) -> None:
    def busy(entry: Entry) -> None:
        raise failure(errno.EBUSY)

    kernel = boot(on_outblob=busy)
    error = refused(seconds=2.0)
    assert error.code == "tsm-timeout"
    assert "quoting service" in error.hint
    assert kernel.entries == {}


def test_a_kernel_that_does_not_return_does_not_hold_us(boot: Boot) -> None:
    release = threading.Event()
    gone = threading.Event()

    def hang(entry: Entry) -> None:
        release.wait(20)

    kernel = boot(on_outblob=hang, on_rmdir=lambda path: gone.set())
    assert refused(seconds=0.05).code == "tsm-timeout"
    # The thread that was left behind still removes the directory.
    release.set()
    assert gone.wait(20)
    assert kernel.made == 1


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENXIO, "tsm-no-provider"),
        (errno.ENOENT, "tsm-missing"),
        (errno.ENOTDIR, "tsm-missing"),
        (errno.EACCES, "tsm-permission"),
        (errno.EPERM, "tsm-permission"),
        (errno.ENOSPC, "tsm-error"),
    ],
)
def test_a_directory_that_cannot_be_made_says_why(number: int, code: str, boot: Boot) -> None:
    def refuse(count: int) -> None:
        raise failure(number)

    kernel = boot(on_mkdir=refuse)
    error = refused()
    assert error.code == code
    assert ROOT in str(error)
    assert kernel.removed == []


def test_a_guest_without_a_provider_is_told_so(boot: Boot) -> None:
    boot(provider=None)
    error = refused()
    assert error.code == "tsm-no-provider"
    assert "tdx_guest or sev_guest" in error.hint


def test_a_name_that_is_taken_is_left_alone(boot: Boot) -> None:
    kernel = boot()
    taken = f"{ROOT}/nvattest-1234-{(1).to_bytes(8, 'big').hex()}"
    kernel.entries[taken] = Entry()
    assert take().generation == 1
    assert list(kernel.entries) == [taken]


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EINVAL, "tsm-report-data"), (errno.ENXIO, "tsm-no-provider"), (errno.EIO, "tsm-error")]
)
def test_an_error_while_the_quote_is_made_says_why_and_leaves_nothing(number: int, code: str, boot: Boot) -> None:
    def refuse(entry: Entry) -> None:
        raise failure(number)

    kernel = boot(on_outblob=refuse)
    assert refused().code == code
    assert (kernel.entries, kernel.handles) == ({}, {})


@pytest.mark.parametrize("attribute", ["generation", "inblob", "outblob", "provider", "auxblob"])
def test_an_error_at_any_attribute_leaves_nothing(attribute: str, boot: Boot) -> None:
    def refuse(path: str) -> None:
        if path.endswith(attribute):
            raise failure(errno.EIO, path)

    kernel = boot(on_open=refuse)
    assert refused().code == "tsm-error"
    assert (kernel.entries, kernel.handles) == ({}, {})


def test_an_empty_quote_and_an_endless_one_are_refused(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    boot(quote=lambda data: b"")
    assert refused().code == "tsm-empty"
    monkeypatch.setattr(tsm, "MAXIMUM_QUOTE", 100_000)
    kernel = boot(quote=lambda data: bytes(100_001))
    assert refused().code == "tsm-size"
    assert (kernel.entries, kernel.handles) == ({}, {})


def test_a_directory_that_cannot_be_removed_does_not_spoil_the_quote(boot: Boot) -> None:
    def refuse(path: str) -> None:
        raise failure(errno.EBUSY, path)

    boot(on_rmdir=refuse)
    assert take().generation == 1


@pytest.mark.parametrize("data", [b"", bytes(63), bytes(65), bytearray(64), "x" * 64])
def test_report_data_has_64_bytes(data: Any, boot: Boot) -> None:
    boot()
    with pytest.raises(InputError):
        take_quote(data, root=ROOT)


def test_without_configfs_the_error_says_what_to_mount(tmp_path: object) -> None:
    with pytest.raises(CollectionError) as caught:
        take_quote(DATA, root=f"{tmp_path}/nothing")
    assert caught.value.code == "tsm-missing"


# --- the file beside the token -------------------------------------------------------------------------------------


def test_a_quote_is_read_from_its_file_and_raw(boot: Boot) -> None:
    boot(auxiliary=b"aux")
    quote = take()
    text = json.dumps(dump_quote(quote)).encode()
    assert read_quote_file(text).quote == quote.quote
    assert read_quote_file(b"\x04\x00" + bytes(700)).quote == b"\x04\x00" + bytes(700)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"{",
        b'{"format": "nvattest-tee-quote", "version": 2, "outblob": ""}',
        b'{"format": "nvattest-tee-quote", "version": 1}',
        b'{"format": "nvattest-bundle", "version": 1, "outblob": "AAAA"}',
        b'{"format": "nvattest-tee-quote", "version": 1, "outblob": "*"}',
        b'{"format": "nvattest-tee-quote", "version": 1, "outblob": "\xc3\xa9"}',
    ],
)
def test_a_file_that_is_no_quote_is_refused(text: bytes) -> None:
    with pytest.raises(ParseError):
        read_quote_file(text)
