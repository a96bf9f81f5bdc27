"""Relying parties on Windows and macOS: everything that verifies works where Linux' names are missing.

The names that other systems lack are taken away from the standard library before nvattest is imported, in this process
and in the workers of a batch. What needs Linux says so.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

import nvattest
from nvattest.cli import main
from nvattest.errors import CollectionError
from nvattest.testing import DEFAULT_NONCE, Platform

# What of these modules Windows has not; macOS lacks O_PATH and most of the last line.
REMOVE = """
import ctypes, json, multiprocessing, multiprocessing.spawn, multiprocessing.popen_spawn_posix, os, random, shutil
import signal, socket, ssl, subprocess, sys, tempfile, threading, time, uuid, concurrent.futures.process
import multiprocessing.resource_tracker, multiprocessing.synchronize, multiprocessing.queues
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog"):
    sys.modules[name] = None
for name in (
    "O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NOCTTY", "O_PATH", "O_TMPFILE", "O_SYNC",
    "geteuid", "getuid", "getegid", "getgid", "getgroups", "getpgid", "setsid", "killpg", "fork", "forkpty",
    "fchmod", "fchown", "chown", "lchown", "chroot", "mkfifo", "mknod", "uname", "getloadavg",
    "sched_getaffinity", "memfd_create", "pidfd_open", "posix_fadvise", "sendfile", "pread", "pwrite", "statvfs", "fstatvfs", "ttyname",
):
    if hasattr(os, name):
        delattr(os, name)
# SIGKILL and pthread_sigmask stay: the standard library's own process pool needs them here.
for name in ("SIGHUP", "SIGPIPE", "SIGALRM", "SIGCHLD", "SIGXFSZ", "SIGUSR1", "SIGUSR2", "setitimer", "alarm"):
    delattr(signal, name)
for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "CLOCK_REALTIME", "clock_gettime"):
    if hasattr(time, name):
        delattr(time, name)
if hasattr(socket, "AF_UNIX"):
    del socket.AF_UNIX
for found in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
    found.clear()
given = os.open
def no_dir_fd(path, flags, mode=0o777, *, dir_fd=None):
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return given(path, flags, mode)
os.open = no_dir_fd
"""

RUN = """
import contextlib, io, json, sys
import nvattest
from nvattest.cli import main
answers = []
for words in json.load(sys.stdin):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        status = main(words)
    for stream in streams:
        stream.flush()
    answers.append([status, *(stream.buffer.getvalue().decode() for stream in streams)])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    platform = Platform.build("hopper-1")
    platform.write(str(folder))
    key = nvattest.SigningKey.generate()
    token = nvattest.issue_token(platform.appraise(), key)
    (folder / "token.json").write_text(json.dumps(token))
    (folder / "jwks.json").write_text(json.dumps(key.public.jwks()))
    line = {"id": 1, "nonce": DEFAULT_NONCE.hex(), "evidence": json.loads(platform.evidence_json(None, DEFAULT_NONCE))}
    (folder / "nodes.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "policy.toml").write_text("expected_gpus = 1\n")
    (folder / "policy.rego").write_text("package policy\nimport rego.v1\ndefault nv_match := false\nnv_match if true\n")
    (folder / "without").mkdir()
    (folder / "without" / "sitecustomize.py").write_text(REMOVE)
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, tuple[int, str, str]]:
    """Status, stdout and stderr of each command, all run in one process that lacks Linux' names."""
    at, nonce, roots = "2026-11-01T00:00:00Z", DEFAULT_NONCE.hex(), ["--trust-anchors", "anchors.pem"]
    judged = [*roots, "--at", at]
    recorded = ["--gpu-evidence-file", "gpu-evidence.json", "--nonce", nonce, *judged]
    commands = {
        "attest": ["-f", "json", "attest", *recorded, "--bundle", "bundle.json", "--token-out", "made.json",
                   "--jwks-out", "made-jwks.json", "--policy", "policy.toml"],
        "attest --offline": ["attest", *recorded, "--offline"],
        "attest --simulate": ["attest", "--simulate", "hopper-1"],
        "verify-token": ["verify-token", "--token-file", "token.json", "--jwks", "jwks.json", "--nonce", nonce,
                         "--accept-simulated"],
        "explain": ["explain", "token.json"],
        "bundle create": ["bundle", "create", "--rim-dir", "rims", "--ocsp-dir", "ocsp", "--keep-going", "--output", "new.json",
                          *judged, "--gpu-evidence-file", "gpu-evidence.json"],
        "bundle inspect": ["bundle", "inspect", "bundle.json", *judged, "--gpu-evidence-file", "gpu-evidence.json"],
        "bundle merge": ["bundle", "merge", "bundle.json", "--output", "merged/", *judged, "--gpu-evidence-file", "gpu-evidence.json"],
        "bundle merge again": ["bundle", "merge", "merged", "bundle.json", "--output", "merged", *judged],
        "bundle inspect of a folder": ["bundle", "inspect", "merged", *judged, "--gpu-evidence-file", "gpu-evidence.json"],
        "verify-batch with a folder": ["verify-batch", "--input", "nodes.jsonl", "--output", "more.jsonl.gz", "--bundle", "merged",
                                       "--workers", "1", "--fail-on-untrusted", *judged],
        "verify-batch": ["verify-batch", "--input", "nodes.jsonl", "--output", "answers.jsonl", "--bundle", "bundle.json",
                         "--workers", "1", *judged],
        "policy check": ["policy", "check", "policy.toml"],
        "policy check rego": ["policy", "check", "policy.rego"],
        "doctor": ["doctor"],
        "completion": ["completion", "bash"],
        "simulate --list": ["simulate", "--list"],
        "preflight": ["preflight", "--gpu-evidence-file", "gpu-evidence.json", *judged, "--offline"],
        "cache": ["attest", *recorded, "--offline", "--cache-dir", "cache"],
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NVAT", "NV_"))}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(list(commands.values())), capture_output=True, text=True, timeout=120, cwd=folder,
        env={**environment, "PYTHONPATH": str(folder / "without")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(commands, map(tuple, json.loads(done.stdout)), strict=True))


GOOD = [
    "attest", "attest --simulate", "verify-token", "explain", "bundle create", "bundle inspect", "bundle merge",
    "bundle merge again", "bundle inspect of a folder", "verify-batch", "verify-batch with a folder",
    "policy check", "completion", "simulate --list",
]  # fmt: skip


@pytest.mark.parametrize("command", GOOD)
def test_what_verifies_works_without_linux(answers: dict[str, tuple[int, str, str]], command: str) -> None:
    status, out, err = answers[command]
    assert (status, err if status else "") == (0, ""), out + err


def test_files_are_written_whole_and_nothing_is_left_beside_them(
    answers: dict[str, tuple[int, str, str]], folder: Path
) -> None:
    assert answers["attest"][0] == 0
    key = nvattest.PublicKey.from_jwk(json.loads((folder / "made-jwks.json").read_text())["keys"][0])
    verified = nvattest.verify_token(
        (folder / "made.json").read_text(), issuer="NVATTEST-LOCAL-VERIFIER", nonce=nvattest.Nonce(DEFAULT_NONCE),
        at=datetime.now(timezone.utc), key=key, accept_simulated=True,
    )  # fmt: skip
    assert verified.trusted
    assert json.loads((folder / "answers.jsonl").read_text())["trusted"] is True
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_without_the_network_and_a_bundle_it_is_not_trusted_and_says_why(
    answers: dict[str, tuple[int, str, str]],
) -> None:
    status, out, err = answers["attest --offline"]
    assert status != 0
    assert "NOT TRUSTED" in out
    # There is no cache here by default, and that is no reason to warn each time.
    assert err == ""


def test_a_cache_that_is_asked_for_is_refused_by_name(answers: dict[str, tuple[int, str, str]]) -> None:
    status, out, err = answers["cache"]
    assert status != 0
    assert "this system cannot keep a folder" in out + err


def test_a_rego_policy_is_checked_in_its_own_process(answers: dict[str, tuple[int, str, str]]) -> None:
    pytest.importorskip("regopy")
    status, out, err = answers["policy check rego"]
    assert status == 0, out + err


@pytest.mark.parametrize("command", ["doctor", "preflight"])
def test_what_looks_at_a_machine_ends_with_an_answer(answers: dict[str, tuple[int, str, str]], command: str) -> None:
    _, out, err = answers[command]
    assert "Traceback" not in out + err
    assert out


@pytest.mark.parametrize(("form", "chosen", "expected"), [
    ("json", "", "utf-8"), ("json", "cp1252", "cp1252"), ("text", "", "cp1252"),
])  # fmt: skip
def test_json_that_goes_into_a_file_is_utf_8_unless_an_encoding_is_chosen(
    monkeypatch: pytest.MonkeyPatch, form: str, chosen: str, expected: str
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setenv("PYTHONIOENCODING", chosen)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr("nvattest.cli._version", lambda _: print("Gr\u00fcn\u2026") or 0)
    assert main(["-f", form, "version"]) == 0
    assert stream.buffer.getvalue() == "Gr\u00fcn\u2026\n".encode(expected)  # type: ignore[attr-defined]


# --- what needs Linux -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["win32", "darwin"])
@pytest.mark.parametrize(
    "words",
    [["attest"], ["collect-evidence", "--nonce", DEFAULT_NONCE.hex()], ["preflight"], ["gate", "--", "true"], ["hook", "status"],
     ["hook", "check"], ["simulate", "--", "true"]],
    ids=" ".join,
)  # fmt: skip
def test_what_needs_linux_says_so(
    words: list[str], system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert main(words) != 0
    said = capsys.readouterr()
    assert "needs Linux" in said.out + said.err


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_the_library_and_the_hook_say_so_too(
    system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nvattest.guest import main as hook

    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(CollectionError) as caught:
        nvattest.attest()
    assert caught.value.code == "linux-only"
    assert hook(["prestart"]) == 4
    assert f"Linux guest; this is {system}" in capsys.readouterr().err
