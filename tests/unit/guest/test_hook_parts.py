"""The small parts of the hook: the way to ready, arguments, stdin, files, budget, clock."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest

import nvattest
from nvattest._system import TrustedFolder
from nvattest.devices.state import TrustedPlatform
from nvattest.errors import CollectionError, InputError
from nvattest.guest import entry
from nvattest.guest.arguments import (
    MAXIMUM,
    Arguments,
    Stage,
    TerminatedError,
    Termination,
    UsageError,
    parse_arguments,
    read_state,
)
from nvattest.guest.config import EARLIEST, Paths, Settings, parse_config
from nvattest.guest.inputs import Budget, give_up_after, wait_for_clock
from nvattest.guest.ready import PublishedPlatform, ReadyGate, Token, publish, take_away
from nvattest.guest.record import (
    EXIT,
    Journal,
    Reason,
    Record,
    Remark,
    boottime,
    digest_file,
    finished_since,
    headline,
    identify,
    read_record,
    record_to_json,
    reusable,
    shown_status,
    write_record,
)
from nvattest.model import parse_time

PACKAGE = Path(nvattest.__file__).resolve().parent


# --- the way to ready -------------------------------------------------------------------------------------------------


def good_appraisal() -> object:
    from nvattest import Nonce, Verifier
    from nvattest.testing import Platform

    platform = Platform.build("hopper-1")
    nonce = Nonce(bytes(range(32)))
    verifier = Verifier(anchors=platform.trust_anchors())
    return verifier.appraise(
        platform.evidence(nonce.value),
        nonce=nonce,
        collateral=platform.collateral(),
        at=platform.time,
    )


def test_only_a_token_on_disk_makes_a_published_platform(tmp_path: Path) -> None:
    appraisal = good_appraisal()
    trusted = TrustedPlatform(appraisal)  # type: ignore[arg-type]
    folder = TrustedFolder(str(tmp_path))
    token = tmp_path / "token.json"
    with pytest.raises(OSError):
        PublishedPlatform(trusted, folder=folder, token=b"whole")
    token.write_bytes(b"whole")
    PublishedPlatform(trusted, folder=folder, token=b"whole")
    for content in (b"whol", b"whole and more", b""):
        token.write_bytes(content)
        with pytest.raises((InputError, OSError)):
            PublishedPlatform(trusted, folder=folder, token=b"whole")
    with pytest.raises(InputError):
        PublishedPlatform(trusted, folder=folder, token=b"")
    with pytest.raises(TypeError):
        PublishedPlatform(appraisal, folder=folder, token=b"")  # type: ignore[arg-type]


def test_the_gate_opens_for_a_published_platform_and_for_nothing_else() -> None:
    class Subclass(PublishedPlatform):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

    gate = ReadyGate(object())  # type: ignore[arg-type]
    for thing in (True, object(), Subclass()):
        with pytest.raises(TypeError):
            gate.open(thing)  # type: ignore[arg-type]
    assert gate.closed is None


def test_a_set_ready_that_was_given_up_is_never_called_not_ready_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import nvattest.guest.ready as module

    def give_up(*arguments: object, **named: object) -> None:
        raise CollectionError("did not return", code="driver-timeout")

    monkeypatch.setattr(module, "set_ready", give_up)
    monkeypatch.setattr(module, "set_not_ready", lambda *arguments, **named: None)
    gate = ReadyGate(object())  # type: ignore[arg-type]
    gate.close(seconds=1.0)
    assert (gate.closed, gate.ready) == (True, False)
    published = object.__new__(PublishedPlatform)
    published.platform = None  # type: ignore[misc,assignment]
    with pytest.raises(CollectionError):
        gate.open(published, seconds=1.0)
    # The call may still be done, after any that we make now.
    with pytest.raises(CollectionError, match="may still be done"):
        gate.close(seconds=1.0)
    assert (gate.closed, gate.ready) == (None, None)


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["prestart"], Arguments(Stage.HOOK)),
        (["nvattest-hook", "prestart"], Arguments(Stage.HOOK)),
        (["--root", "/x", "prestart"], Arguments(Stage.HOOK, root="/x")),
        (["--stage", "init"], Arguments(Stage.INIT)),
        (["--stage", "watch", "--once"], Arguments(Stage.WATCH, once=True)),
        (["--config", "/x/hook.toml", "--stage", "init"], Arguments(Stage.INIT, config="/x/hook.toml")),
        (["--config", "/x/hook.toml", "nvattest-hook", "prestart"], Arguments(Stage.HOOK, config="/x/hook.toml")),
        (["status"], Arguments("status")),
        (["--root", "/x", "status", "-f", "json"], Arguments("status", root="/x", format="json")),
        (["check", "--hook-path", "/x/hooks"], Arguments("check", hook_path="/x/hooks")),
        (["gate", "--", "serve", "--config", "y"], Arguments(Stage.GATE, command=("serve", "--config", "y"))),
        # A hook whose file has the name of a command is a hook.
        (["status", "prestart"], Arguments(Stage.HOOK)),
        (
            ["gate", "--config", "/x/hook.toml", "--", "prestart"],
            Arguments(Stage.GATE, config="/x/hook.toml", command=("prestart",)),
        ),
    ],
)
def test_arguments_name_the_stage(argv: list[str], expected: Arguments) -> None:
    assert parse_arguments(argv) == expected


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["poststart"],
        ["prestart", "poststop"],
        ["a", "b", "prestart"],
        ["--stage"],
        ["--stage", "x"],
        ["--stage", "init", "prestart"],
        ["--ready"],
        ["--root"],
        ["prestart", "--config"],
        ["--config", "hook.toml", "prestart"],
        ["--config", "", "prestart"],
        ["gate"],
        ["gate", "--"],
        ["gate", "serve"],
        ["status", "more"],
        ["status", "--format", "xml"],
        ["check", "--", "x"],
        ["--stage", "init", "status"],
    ],
)
def test_other_arguments_are_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_arguments(argv)


def test_no_failure_is_shown_as_success_but_to_hooks_that_are_told_to_start() -> None:
    for cause, status in EXIT.items():
        assert (status == 0) == (cause == "ok")
        for stage in (Stage.INIT, Stage.WATCH, Stage.GATE):
            assert shown_status(cause, stage=stage, on_failure="start") == status
        assert shown_status(cause, stage=Stage.HOOK, on_failure="block") == status
        assert shown_status(cause, stage=Stage.HOOK, on_failure="start") == 0
    assert shown_status("never heard of", stage=Stage.HOOK, on_failure="block") == 70


# --- stdin ------------------------------------------------------------------------------------------------------------


def test_stdin_is_read_to_its_end_also_beyond_what_is_used() -> None:
    reader, writer = os.pipe()
    written: list[int] = []

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            written.append(file.write(b" " * (MAXIMUM + 70_000)))

    thread = threading.Thread(target=write)
    thread.start()
    container = read_state(reader)
    thread.join()
    os.close(reader)
    assert written == [MAXIMUM + 70_000]
    assert "more than" in container.note


def test_a_stdin_that_never_ends_is_given_up() -> None:
    reader, writer = os.pipe()
    assert "did not end" in read_state(reader, seconds=0.05).note
    os.close(reader)
    os.close(writer)


# --- files ------------------------------------------------------------------------------------------------------------


STATE = "run/nvattest/state.json"


def guest_of(tmp_path: Path) -> tuple[Paths, TrustedFolder]:
    """A guest that has booted, and its run folder."""
    paths = Paths(str(tmp_path))
    os.makedirs(os.path.dirname(paths.boot_id))
    Path(paths.boot_id).write_text("boot\n")
    return paths, TrustedFolder(paths.run, make=True)


def record_of(paths: Paths, **changes: object) -> Record:
    """A good record of this guest that serves for ever."""
    identity = identify(paths, Settings(paths=paths).inputs)
    record = Record(
        verdict="trusted", cause="ok", **identity._asdict(),
        finished_boottime=0.0, valid_until_boottime=1e12,
        token_sha256=sha256(b"token").hexdigest(),
    )  # fmt: skip
    return record._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"format": 1}', b"[" * 90_000, b"x" * 300_000])
def test_a_record_that_is_none_of_ours_is_no_record(tmp_path: Path, content: bytes) -> None:
    _, folder = guest_of(tmp_path)
    (tmp_path / STATE).write_bytes(content)
    assert read_record(folder) is None


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    paths, folder = guest_of(tmp_path)
    record = record_of(
        paths, verdict="not-trusted", cause="clock", reason=Reason("clock", "late", "wait"), weakened=("a", "b"),
        findings=(Remark("x", "y"),), milliseconds={"end": 2.5}, gpus=1, ready=False, driver={"version": "1"},
    )  # fmt: skip
    write_record(folder, record)
    assert read_record(folder) == record


@pytest.mark.parametrize("member", [name for name in Record._fields if name != "log"])
@pytest.mark.parametrize(
    "value",
    [[1], {"a": 1}, 1.5, True, "text", None, 10**400],
    ids=["list", "dict", "float", "bool", "str", "null", "huge"],
)
def test_a_member_of_another_type_makes_it_no_record(tmp_path: Path, member: str, value: object) -> None:
    paths, folder = guest_of(tmp_path)
    write_record(folder, record_of(paths))
    whole = json.loads((tmp_path / STATE).read_text())
    (tmp_path / STATE).write_text(json.dumps({**whole, member: value}))
    found = read_record(folder)
    # Where it is one, the member is of its type.
    assert found is None or record_to_json(found)[member] in (value, tuple(value) if value == [1] else value)
    without = {key: item for key, item in whole.items() if key != member}
    (tmp_path / STATE).write_text(json.dumps(without))
    assert read_record(folder) is None


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "not-trusted", "cause": "clock"},
        {"verdict": "unfinished", "cause": "terminated"},
        # A verdict and a cause, which is the exit status, that contradict each other.
        {"verdict": "not-trusted"},
        {"cause": "not-trusted"},
        {"verdict": "good"},
        {"finished_boottime": 1e12},
        {"finished_boottime": "0"},
        {"valid_until_boottime": None},
        {"valid_until_boottime": 0},
        {"boot_id": ""},
        {"devices": ""},
        {"inputs": {}},
        {"config": None},
        {"config": "/etc/nvattest/other.toml"},
        {"token_sha256": None},
        {"token_sha256": "0" * 64},
        {"program": "0.0"},
    ],
)
def test_a_record_counts_only_as_it_was_made(tmp_path: Path, change: dict[str, object]) -> None:
    paths, folder = guest_of(tmp_path)
    Path(folder.at("token.json")).write_bytes(b"token")
    identity = identify(paths, Settings(paths=paths).inputs)
    write_record(folder, record_of(paths))
    assert reusable(read_record(folder), identity, folder, seconds=1e12)
    # The configuration says for how long, and not the record.
    assert not reusable(read_record(folder), identity, folder, seconds=0.0)
    write_record(folder, record_of(paths, **change))
    assert not reusable(read_record(folder), identity, folder, seconds=1e12)


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({}, True),
        ({"cause": "terminated"}, False),
        ({"verdict": "unfinished"}, False),
        ({"finished_boottime": 0.5}, False),
        ({"boot_id": "other"}, False),
    ],
)
def test_whoever_waited_shares_a_failure_but_not_that_somebody_was_ended(
    tmp_path: Path, change: dict[str, object], shared: bool
) -> None:
    paths, folder = guest_of(tmp_path)
    failed = {"verdict": "not-trusted", "cause": "not-trusted", "finished_boottime": 2.0}
    write_record(folder, record_of(paths, **{**failed, **change}))
    assert finished_since(read_record(folder), identify(paths, Settings(paths=paths).inputs), 1.0, folder) is shared


def test_a_gpu_that_is_bound_again_is_another_one(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    for name, text in (("vendor", "0x10de"), ("device", "0x2331"), ("class", "0x030200")):
        (device / name).write_text(text)
    (device / "driver").symlink_to("../../drivers/nvidia")
    before = identify(paths, [])
    assert identify(paths, []) == before
    (device / "driver").rename(device / "was")  # kept, so that its inode is not given out again
    unbound = identify(paths, [])
    (device / "driver").symlink_to("../../drivers/nvidia")
    assert len({before.devices, unbound.devices, identify(paths, []).devices}) == 3


def test_a_file_is_known_by_all_of_it(tmp_path: Path) -> None:
    small, large, other = (tmp_path / name for name in ("small", "large", "other"))
    small.write_bytes(b"x" * 1024 * 1024)
    assert digest_file(str(small)) == sha256(small.read_bytes()).hexdigest()
    large.write_bytes(b"x" * 3_000_000 + b"a")
    other.write_bytes(b"x" * 3_000_000 + b"b")
    before = digest_file(str(large))
    assert digest_file(str(large)) == before
    os.link(large, tmp_path / "kept")  # so that its inode is not given out again
    other.replace(large)
    assert None not in (before, digest_file(str(large)))
    assert before != digest_file(str(large))


def test_without_a_boot_id_nothing_is_recognised(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    folder = TrustedFolder(paths.run, make=True)
    identity = identify(paths, Settings(paths=paths).inputs)
    assert identity.boot_id == ""
    write_record(folder, record_of(paths, verdict="no-gpu"))
    assert not reusable(read_record(folder), identity, folder, seconds=1e12)


def test_a_log_line_cannot_be_forged(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    journal = Journal(Settings(paths))
    journal.lines(["one\nnvattest-hook: attestation successful\x1b[2J"])
    text = Path(paths.at(paths.LOG)).read_text()
    assert text == "one\\x0anvattest-hook: attestation successful\\x1b[2J\n"


# --- time -------------------------------------------------------------------------------------------------------------


def test_the_budget_keeps_a_part_for_verification() -> None:
    budget = Budget(8.0, started=time.monotonic())
    assert 6.3 < budget.for_phase() < 6.41
    assert 7.9 < budget.remaining() <= 8.0
    late = Budget(8.0, started=time.monotonic() - 9)
    assert (late.remaining(), late.for_phase()) == (0.0, 0.0)
    # A wait before a phase began takes nothing from it but time.
    assert 1.0 < Budget(8.0, started=time.monotonic() - 6.5).for_phase() < 1.21
    # Of a long budget two seconds are enough for the rest.
    assert Budget(120.0, started=time.monotonic()).for_phase() > 117.9
    with pytest.raises(CollectionError) as caught:
        late.require("the attestation")
    assert caught.value.code == "deadline"


def test_the_largest_budget_of_a_hook_and_its_closing_fit_into_the_agents_ten_seconds() -> None:
    largest = max(step / 10 for step in range(120) if accepts_budget(step / 10))
    now = time.monotonic()
    # The verdict at the very end, and a driver that hangs in every call: setting ready, and taking it away.
    last = Budget(largest, started=now - largest, closing=Settings(Paths()).closing(Stage.HOOK))
    assert last.remaining() == 0.0
    end = largest + last.for_closing()
    # What is left is for the start of the program and for the record and the log.
    assert end <= 9.5
    # However late it is, it is tried.
    assert Budget(largest, started=now - 60).for_closing() > 0.0
    with pytest.raises(CollectionError):
        Budget(1.0, started=now - 0.9).require("setting ready", 0.2)


def accepts_budget(seconds: float) -> bool:
    try:
        return parse_config(f"[budget]\nhook = {seconds}".encode()).budget_hook == seconds
    except InputError:
        return False


class HangingLibrary:
    """Notes how long each call would be waited for, and gives each up."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def run(self, subject: str, work: object, *, timeout: float, here: bool = False) -> None:
        self.waits.append(timeout)
        raise CollectionError("did not return", code="driver-timeout")


def test_no_wait_of_the_gate_is_longer_than_what_it_is_given() -> None:
    library = HangingLibrary()
    gate = ReadyGate(library)  # type: ignore[arg-type]
    published = object.__new__(PublishedPlatform)
    published.platform = TrustedPlatform(good_appraisal())  # type: ignore[misc,arg-type]
    for given in (0.3, 60.0):
        with pytest.raises(CollectionError):
            gate.open(published, seconds=given)
        with pytest.raises(CollectionError):
            gate.close(seconds=given)
    # All of it, too: what a driver may take is for the budget to say.
    assert library.waits == [0.3, 0.3, 60.0, 60.0]


def test_work_that_hangs_is_given_up_and_an_exception_comes_through() -> None:
    ended = threading.Event()
    with pytest.raises(CollectionError) as caught:
        give_up_after(0.02, "work", ended.wait)
    ended.set()
    assert caught.value.code == "deadline"
    with pytest.raises(ZeroDivisionError):
        give_up_after(5, "work", lambda: 1 // 0)
    assert give_up_after(5, "work", lambda: 7) == 7


def test_the_clock_is_waited_for_and_then_refused() -> None:
    # An image can name a later instant than the program's own, never an earlier one.
    earliest = wait_for_clock("2020-01-01T00:00:00Z", 0.0)
    assert earliest.device == earliest.rim >= parse_time(EARLIEST)
    with pytest.raises(InputError) as caught:
        wait_for_clock("2100-01-01T00:00:00Z", 0.0)
    assert caught.value.code == "clock"


# --- start-up ---------------------------------------------------------------------------------------------------------


def test_a_verdict_that_stands_is_used_without_importing_anything_heavy(tmp_path: Path) -> None:
    paths, folder = guest_of(tmp_path)
    Path(folder.at("token.json")).write_bytes(b"token")
    write_record(folder, record_of(paths, finished_boottime=boottime()))
    arguments = ["--root", str(tmp_path), "prestart"]
    code = f"import sys; from nvattest.guest import main; print(main({arguments!r}), *sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    status, *modules = done.stdout.split()
    assert status == "0", done.stderr
    heavy = {"dataclasses", "inspect", "argparse", "tomllib", "cryptography", "lxml", "jwt", "requests", "pynvml",
             "ctypes", "ssl", "logging", "subprocess", "signal", "threading", "tempfile", "shutil"}  # fmt: skip
    assert heavy & set(modules) == set()


# --- signals ----------------------------------------------------------------------------------------------------------


def test_a_signal_is_noted_raises_once_and_is_noted_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Termination() as termination:
        # Modules are being imported: nothing is interrupted, nothing is forgotten.
        os.kill(os.getpid(), signal.SIGTERM)
        assert termination.asked
        with pytest.raises(TerminatedError):
            termination.arm()
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Termination() as termination:
            termination.arm()
            with pytest.raises(TerminatedError):
                os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
    with Termination() as termination:
        termination.arm()
        termination.over()
        os.kill(os.getpid(), signal.SIGTERM)
        assert termination.asked


def test_nothing_is_waited_for_once_a_signal_came() -> None:
    with Termination() as termination:
        assert termination.wait(lambda: 7) == 7
        os.kill(os.getpid(), signal.SIGTERM)  # noted: the waiting is over
        assert termination.asked
        assert termination.wait(lambda: 7) is None

    def interrupted() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 7

    with Termination() as termination:
        assert termination.wait(interrupted) is None
        assert termination.wait(lambda: 7) is None


def test_another_thread_than_the_main_one_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with Termination() as termination:
            termination.arm()
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


# --- output that nobody reads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("words", "status"), [(["--help"], 8), (["--version"], 8), (["--stage", "later"], 2)])
def test_a_reader_that_went_away_ends_it_quietly_and_not_with_success(
    words: list[str], status: int, unbuffered: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    own, other = (writer, subprocess.PIPE) if status == 8 else (subprocess.PIPE, writer)
    done = subprocess.run(
        [sys.executable, "-c", "from nvattest.guest import main; main()", *words],
        stdin=subprocess.DEVNULL, stdout=own, stderr=other, timeout=30, env={"PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == status
    assert (done.stderr if status == 8 else done.stdout) == b""


# --- the words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trusted", True), "attestation successful, GPUs set ready"),
        (("no-gpu", None), "no GPU in this guest, as configured"),
        (("not-trusted", False), "attestation failed, GPUs not ready"),
        (("not-trusted", True), "attestation failed, the GPUs are ready"),
        (("not-trusted", None), "attestation failed, the driver could not be asked: the GPUs may be ready"),
        (("not-trusted", None, "no-gpu"), "attestation failed, there is no GPU"),
        (("not-trusted", True, "no-gpu"), "attestation failed, the GPUs are ready"),
        (("not-trusted", None, "lock"), "attestation failed, the ready state is left to another attestation"),
        (("unfinished", None), "attestation did not end, the driver could not be asked: the GPUs may be ready"),
    ],
)
def test_the_headline_says_what_the_driver_answered_last(arguments: tuple[str, bool | None, str], words: str) -> None:
    assert headline(*arguments) == words


def test_a_library_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    assert take_away(str(tmp_path / "none.so"), seconds=1.0) is None


@pytest.mark.parametrize(
    "kept", [b"", b"x", b"[]", b'{"keys": 5}', b'{"keys": ["x"]}', b'{"keys": ' + b"[" * 30000 + b"]" * 30000 + b"}"]
)
def test_a_key_set_that_cannot_be_read_does_not_keep_the_next_token_off_the_disk(tmp_path: Path, kept: bytes) -> None:
    with TrustedFolder(str(tmp_path / "run"), make=True) as folder:
        folder.write(Paths.JWKS, kept)
        publish(TrustedPlatform(good_appraisal()), Token(b"token", {"kid": "new"}), folder, keep_old_key=True)  # type: ignore[arg-type]
        assert json.loads(folder.read(Paths.JWKS, 65536)) == {"keys": [{"kid": "new"}]}
        assert folder.read(Paths.TOKEN, 100) == b"token"


def test_no_fault_of_the_metrics_ends_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(entry, "_attest", lambda *_, **__: ("ok", None))
    monkeypatch.setattr("nvattest.guest.status.hook_status", fault)
    target = str(tmp_path / "nvattest.prom")
    assert entry.watch(Paths(str(tmp_path)), once=True, metrics=target, termination=Termination()) == 0
    assert "the metrics could not be written" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "function"), [("status", "status.hook_status"), ("check", "check.check_guest")])
def test_a_fault_of_a_command_that_only_reads_leaves_the_ready_state(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    function: str,
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    taken: list[object] = []
    monkeypatch.setattr("nvattest.guest.ready.take_away", lambda *_, **__: taken.append(1))
    monkeypatch.setattr(f"nvattest.guest.{function}", fault)
    arguments = ["--root", str(tmp_path), command]
    assert entry.run(arguments, started=time.monotonic(), termination=Termination()) == EXIT["internal"]
    assert not taken
    assert f"{command} failed: RuntimeError('a fault of ours')" in capsys.readouterr().err
    monkeypatch.setattr(entry, "run_stage", fault)
    arguments = ["--root", str(tmp_path), "--stage", "init"]
    assert entry.run(arguments, started=time.monotonic(), termination=Termination()) == EXIT["internal"]
    assert taken


class Full(io.StringIO):
    """A stream whose disk is full."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_command_that_cannot_be_run_leaves_the_verdict_also_where_stderr_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "run_stage", lambda *_, **__: 0)
    taken: list[object] = []
    monkeypatch.setattr("nvattest.guest.ready.take_away", lambda *_, **__: taken.append(1))
    arguments = ["--root", str(tmp_path), "gate", "--", str(tmp_path / "none")]
    monkeypatch.setattr(sys, "stderr", Full())
    assert entry.run(arguments, started=time.monotonic(), termination=Termination()) == entry.NOT_FOUND
    assert not taken
