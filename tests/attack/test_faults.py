"""The machine fails, not the evidence: disks, permissions, descriptors, clocks, threads, forks and SIGKILL.

After each: no trust, no half-written file, nothing left lying about, and the next run works. What fails on the wire, in
the driver and in the hook has tests of its own (``integration/test_collateral_services.py``, ``test_simulate.py``,
``test_hook_agent.py``); a cache that was cut, ``integration/test_collateral_cache.py``.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.bundle import load_bundle
from nvattest.errors import InputError, ParseError, TokenError
from nvattest.evidence import load_evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.pki.anchors import trust_anchors_from_pem
from nvattest.testing import DEFAULT_NONCE, Platform
from nvattest.testing.services import Services

from ..unit.token import minting  # noqa: TID252 - one writer of tokens for all folders

NODE = Platform.build("hopper-1")
EVIDENCE = NODE.evidence_json(None, DEFAULT_NONCE)
BUNDLE = json.dumps(NODE.bundle())
OLD = "the token of yesterday\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Evidence, bundle and roots in one folder; ``out`` is another, with the token of an earlier run."""
    (tmp_path / "evidence.json").write_text(EVIDENCE)
    (tmp_path / "bundle.json").write_text(BUNDLE)
    (tmp_path / "roots.pem").write_bytes(NODE.anchors_pem)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "token.json").write_text(OLD)
    return tmp_path


def arguments(files: Path, *more: str) -> list[str]:
    return [
        "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", str(files / "evidence.json"),
        "--nonce", DEFAULT_NONCE.hex(), "--bundle", str(files / "bundle.json"), "--at", str(NODE.time),
        "--trust-anchors", str(files / "roots.pem"), "--token-out", str(files / "out" / "token.json"), *more,
    ]  # fmt: skip


def attest(
    files: Path, *more: str, before: Callable[[], None] | None = None, code: str = "", stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own. ``code`` runs first in it, ``before`` between fork and exec.

    It writes no byte code: a limit on file sizes would cut that, and every later program of these tests would read it.
    """
    script = f"import sys\n{code}\nfrom nvattest.cli import main\nsys.exit(main({arguments(files, *more)!r}))"
    return subprocess.run(
        [sys.executable, "-B", "-c", script],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        preexec_fn=before,
    )


def token(files: Path) -> str:
    return (files / "out" / "token.json").read_text()


def whole(text: str) -> bool:
    """Whether this is a token of today, all of it."""
    from nvattest.token.jose import read_jws

    try:
        document = json.loads(text)
        return len(read_jws(document[0][1], what="token").payload) > 0
    except (ValueError, TokenError):
        return False


def nothing_else(files: Path) -> None:
    assert [path.name for path in (files / "out").iterdir()] == ["token.json"]


def works_again(files: Path) -> None:
    done = attest(files)
    assert done.returncode == 0, done.stderr
    assert "Result: TRUSTED" in done.stdout
    assert whole(token(files))
    nothing_else(files)


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 100, 4096])
def test_a_file_that_may_not_grow_leaves_the_old_token(files: Path, limit: int) -> None:
    done = attest(files, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    if limit < 4096:
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert "TRUSTED (simulated), code 0" not in done.stdout
        assert token(files) == OLD
        nothing_else(files)
    works_again(files)


@pytest.fixture
def tiny_disk(files: Path) -> Iterator[Path]:
    """``out`` is a disk of 16 KiB that is full but for the old token."""
    out = files / "out"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", out], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs root and a mount namespace to make a full disk")
    try:
        (out / "token.json").write_text(OLD)
        with (out / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(1024)):
                    pass
            except OSError:
                pass
        yield files
    finally:
        subprocess.run(["umount", out], check=True)


def test_a_full_disk_leaves_the_old_token(tiny_disk: Path) -> None:
    done = attest(tiny_disk)
    assert done.returncode == 4, done.stdout
    assert "No space left" in done.stdout + done.stderr
    assert token(tiny_disk) == OLD
    assert sorted(path.name for path in (tiny_disk / "out").iterdir()) == ["ballast", "token.json"]
    (tiny_disk / "out" / "ballast").unlink()
    works_again(tiny_disk)


@pytest.mark.parametrize("format", ["text", "json"])
def test_an_output_that_takes_nothing_is_no_success(files: Path, format: str) -> None:  # noqa: A002
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        done = attest(files, "--format", format, stdout=descriptor)
    finally:
        os.close(descriptor)
    assert done.returncode != 0


def without_privileges() -> None:
    """Root obeys permissions from here on: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH do not survive the exec."""
    if os.geteuid() == 0:
        prctl = ctypes.CDLL(None).prctl
        for capability in (1, 2):
            prctl(24, capability, 0, 0, 0)


def test_a_folder_that_is_read_only_leaves_the_old_token(files: Path) -> None:
    (files / "out").chmod(0o555)
    done = attest(files, before=without_privileges)
    assert done.returncode == 4
    assert "Permission denied" in done.stdout + done.stderr
    assert token(files) == OLD
    (files / "out").chmod(0o755)
    works_again(files)


@pytest.mark.parametrize("name", ["evidence.json", "bundle.json", "roots.pem"])
def test_an_input_that_may_not_be_read_is_named_and_nothing_is_trusted(files: Path, name: str) -> None:
    (files / name).chmod(0)
    done = attest(files, before=without_privileges)
    assert done.returncode != 0
    assert name in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert token(files) == OLD
    (files / name).chmod(0o600)
    works_again(files)


def test_a_cache_that_may_not_be_written_costs_only_the_cache(files: Path) -> None:
    """Live, with a cache that fills up or is closed on the way: judged the same, and nothing half is kept."""
    cache = files / "cache"
    with Services(NODE) as services:
        live = ["--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url, "--cache-dir", str(cache)]
        command = arguments(files, *live)
        at = command.index("--bundle")
        del command[at : at + 2]

        def run(before: Callable[[], None] | None) -> int:
            script = f"import sys; from nvattest.cli import main; sys.exit(main({command!r}))"
            process = [sys.executable, "-B", "-c", script]
            return subprocess.run(process, capture_output=True, timeout=60, preexec_fn=before).returncode

        small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))  # noqa: E731
        status = run(small)  # enough for a revocation answer, not for a RIM nor, perhaps, the token
        assert status in (0, 4)
        for path in cache.rglob("*"):
            assert path.name == "lock" or path.is_dir() or json.loads(path.read_text())["format"] == "nvattest-cache"
        assert not list(cache.rglob("*.new"))
        (cache / "rims").chmod(0o500)
        assert run(without_privileges) == 0
        assert not list((cache / "rims").iterdir())
        (cache / "rims").chmod(0o700)
        assert run(None) == 0
        assert len(list((cache / "rims").iterdir())) == 2


# --- files cut at any byte --------------------------------------------------------------------------------------------


def prefixes(text: bytes, count: int) -> Iterator[bytes]:
    """``count`` cuts spread over the text, and all of those near its ends."""
    last = len(text.rstrip())
    places = {*range(min(20, last)), *range(max(0, last - 20), last), *range(0, last, max(1, last // count))}
    return (text[:place] for place in sorted(places))


SOME = [150, pytest.param(10**9, marks=pytest.mark.exhaustive)]


@pytest.mark.parametrize("count", SOME)
def test_evidence_and_bundles_cut_at_any_byte_are_parse_errors(count: int) -> None:
    for text, load in ((EVIDENCE, load_evidence), (BUNDLE, load_bundle)):
        for cut in prefixes(text.encode(), count):
            with pytest.raises(ParseError):
                load(cut)


@pytest.mark.parametrize("count", SOME)
def test_tokens_cut_at_any_byte_are_refused(count: int) -> None:
    for text in (json.dumps(minting.eat()), minting.ear()):
        for cut in prefixes(text.encode(), count):
            with pytest.raises(TokenError):
                minting.check(cut)


@pytest.mark.parametrize("count", SOME)
def test_anchors_cut_at_any_byte_are_refused_or_trust_less(count: int) -> None:
    evidence, collateral = load_evidence(EVIDENCE), load_bundle(BUNDLE)
    for cut in prefixes(NODE.anchors_pem, count):
        try:
            anchors = trust_anchors_from_pem(cut)
        except InputError:
            continue
        appraisal = Verifier(anchors=anchors).appraise(
            evidence, nonce=Nonce(DEFAULT_NONCE), collateral=collateral, at=NODE.time
        )
        # Cut after the last base64 line but one byte of the end line, both roots may still be there.
        assert appraisal.trusted is (len(anchors.device) == 2)
        assert not appraisal.trusted


def test_a_report_and_a_chain_cut_at_any_byte_are_not_trusted() -> None:
    verifier = Verifier(anchors=NODE.trust_anchors())
    (item,) = load_evidence(EVIDENCE)
    from dataclasses import replace

    collateral = load_bundle(BUNDLE)
    for name in ("report", "certificate_chain"):
        for cut in prefixes(getattr(item, name), 300):
            appraisal = verifier.appraise(
                [replace(item, **{name: cut})], nonce=Nonce(DEFAULT_NONCE), collateral=collateral, at=NODE.time
            )
            assert not appraisal.trusted
            assert appraisal.failures


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_is_believed_each_time_anew() -> None:
    """One verifier, its memory warm, and a clock that jumps over the ends of everything and back."""
    verifier = Verifier(anchors=NODE.trust_anchors())
    evidence, collateral = load_evidence(EVIDENCE), load_bundle(BUNDLE)
    utc = timezone.utc
    moments = {
        NODE.clock: True,
        datetime.min.replace(tzinfo=utc): False,
        datetime(1970, 1, 1, tzinfo=utc): False,
        datetime(2000, 1, 1, tzinfo=utc): False,
        NODE.clock - timedelta(days=1): False,
        NODE.clock + timedelta(minutes=1): True,
        NODE.clock + timedelta(days=2): False,
        NODE.clock + timedelta(days=4000): False,
        datetime(2038, 1, 19, 3, 14, 8, tzinfo=utc): False,
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=utc): False,
        datetime.max.replace(tzinfo=utc): False,
    }
    for moment, good in [*moments.items(), *reversed(moments.items())]:
        for device, rim in ((moment, moment), (moment, NODE.clock), (NODE.clock, moment)):
            appraisal = verifier.appraise(
                evidence,
                nonce=Nonce(DEFAULT_NONCE),
                collateral=collateral,
                at=VerificationTime(device=device, rim=rim),
            )
            assert appraisal.trusted is good, (device, rim)


@pytest.mark.parametrize("zone", [-23, -12, 0, 14, 23])
def test_an_instant_is_the_same_in_every_zone(zone: int) -> None:
    moment = NODE.clock.astimezone(timezone(timedelta(hours=zone)))
    appraisal = Verifier(anchors=NODE.trust_anchors()).appraise(
        load_evidence(EVIDENCE),
        nonce=Nonce(DEFAULT_NONCE),
        collateral=load_bundle(BUNDLE),
        at=VerificationTime.at(moment),
    )
    assert appraisal.trusted


# --- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [3, 4, 5, 6, 7, 8, 12])
def test_without_descriptors_a_token_is_whole_or_not_there(files: Path, limit: int) -> None:
    done = attest(files, code=f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))")
    if done.returncode == 0:
        assert "Result: TRUSTED" in done.stdout
        assert whole(token(files))
    else:
        assert "Result: TRUSTED" not in done.stdout
        assert token(files) == OLD
    nothing_else(files)
    works_again(files)


def test_without_descriptors_for_the_network_what_is_missing_is_named(files: Path) -> None:
    code = """
import os, resource
from nvattest.cli import main
import nvattest.collateral.gather, nvattest.collateral.http, nvattest.appraisal.verifier, lxml.etree, requests
import nvattest.token.claims
held = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
while len(held) < 56:
    held.append(os.open("/dev/null", os.O_RDONLY))
"""
    with Services(NODE) as services:
        command = arguments(files, "--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url, "--no-cache")
        at = command.index("--bundle")
        del command[at : at + 2]
        script = f"{code}\nimport sys; sys.exit(main({[*command, '--timeout', '5']!r}))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        assert whole(token(files))
    else:
        assert "Result: TRUSTED" not in done.stdout
    nothing_else(files)
    works_again(files)


# --- threads and forks ------------------------------------------------------------------------------------------------


def cases() -> list[tuple[str, bool]]:
    """Evidence as JSON, and whether it is to be trusted."""
    lies = ("gpu0:measurement=9", "gpu0:signature", "gpu0:fwid", "gpu0:chain-signature=1", "gpu0:other-nonce")
    bad = [(Platform.build("hopper-1", lies=[lie]).evidence_json(None, DEFAULT_NONCE), False) for lie in lies]
    return [(EVIDENCE, True), *bad]


def test_one_verifier_in_many_threads_never_mixes_its_answers() -> None:
    """It is meant for one thread; one that is shared by mistake must still be right."""
    verifier = Verifier(anchors=NODE.trust_anchors())
    collateral = load_bundle(BUNDLE)
    chosen = [(load_evidence(text), good) for text, good in cases()]
    wrong: list[object] = []
    barrier = threading.Barrier(8)

    def work(first: int) -> None:
        barrier.wait()
        for turn in range(30):
            evidence, good = chosen[(first + turn) % len(chosen)]
            try:
                appraisal = verifier.appraise(evidence, nonce=Nonce(DEFAULT_NONCE), collateral=collateral, at=NODE.time)
            except Exception as error:  # noqa: BLE001 - any error of a thread is a finding
                wrong.append(error)
                return
            if appraisal.trusted is not good:
                wrong.append((first, turn, good))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []


FORKED = """
import json, os, sys, threading, warnings
warnings.simplefilter("ignore")
from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.bundle import load_bundle
from nvattest.evidence import load_evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.pki.anchors import trust_anchors_from_pem
given = json.load(sys.stdin)
verifier = Verifier(anchors=trust_anchors_from_pem(given["roots"].encode()), backend=given["backend"])
collateral = load_bundle(given["bundle"])
nonce, at = Nonce.from_hex(given["nonce"]), VerificationTime.parse(given["at"])
def right():
    return all(
        verifier.appraise(load_evidence(text), nonce=nonce, collateral=collateral, at=at).trusted is good
        for text, good in given["cases"]
    )
assert right()
stop = threading.Event()
def spin():
    while not stop.is_set():
        right()
threads = [threading.Thread(target=spin) for _ in range(3)]
for thread in threads: thread.start()
children = []
for _ in range(6):
    child = os.fork()
    if child == 0:
        os._exit(0 if right() else 1)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
stop.set()
for thread in threads: thread.join()
assert right()
print(statuses)
"""


@pytest.mark.parametrize("backend", ["cryptography", "aws-lc"])
def test_forked_from_a_process_with_threads_children_judge_the_same(backend: str) -> None:
    if backend == "aws-lc":
        pytest.importorskip("awscrt")
    given = {
        "roots": NODE.anchors_pem.decode(), "bundle": BUNDLE, "nonce": DEFAULT_NONCE.hex(), "at": str(NODE.time),
        "cases": cases(), "backend": backend,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", FORKED], input=json.dumps(given), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"{[0] * 6}\n", done.stderr


# --- SIGKILL ----------------------------------------------------------------------------------------------------------

# The process kills itself at this call of the way to disk: what a SIGKILL or a power cut at that moment leaves.
MOMENTS = ("os.fdopen", "os.fsync", "os.replace", "os.replace+")


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_each_step_of_writing_the_token_is_the_old_one_or_the_new_one(files: Path, moment: str) -> None:
    module, _, name = moment.rstrip("+").partition(".")
    code = f"""
import os, signal
genuine = {module}.{name}
def killed(*arguments, **options):
    if {moment.endswith("+")}:
        genuine(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
{module}.{name} = killed
"""
    done = attest(files, code=code)
    assert done.returncode == -signal.SIGKILL
    assert "Result: TRUSTED" not in done.stdout
    assert whole(token(files)) if moment.endswith("+") else token(files) == OLD
    left = [path for path in (files / "out").iterdir() if path.name != "token.json"]
    # A file that was begun has a name of its own, which nobody reads, and only its owner may.
    assert all(path.name.startswith(".nvattest-") and path.stat().st_mode & 0o077 == 0 for path in left)
    for path in left:
        path.unlink()
    works_again(files)


def test_killed_at_any_time_the_token_is_the_old_one_or_the_new_one(files: Path) -> None:
    """The same without knowing the code: SIGKILL from outside, at twelve moments of a run."""
    script = f"import sys; from nvattest.cli import main; sys.exit(main({arguments(files)!r}))"
    for twelfth in range(12):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            try:
                run.wait(0.03 * twelfth)
            except subprocess.TimeoutExpired:
                run.kill()
        text = token(files)
        assert text == OLD or whole(text)
        assert whole(text) or run.returncode != 0
    for path in (files / "out").glob(".nvattest-*"):
        path.unlink()
    works_again(files)
