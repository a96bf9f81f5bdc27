"""``nvattest attest`` on files that anybody could hand in: a clear message, a code, little time and memory, no trace."""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nvattest.cli import main

NONCE = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
AT = "device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"
DRIVER = "NV_GPU_DRIVER_GH100_550.90.07"


@pytest.fixture(scope="module")
def genuine(real_data: Path) -> dict[str, str]:
    [item] = json.loads((real_data / "evidence/hopper-550.90.07-nvtrust.json").read_bytes())
    return item


@pytest.fixture(scope="module")
def bundle(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle.json"
    create = ["bundle", "create", "--rim-dir", str(real_data / "rim"), "--ocsp-dir", str(real_data / "ocsp")]
    assert main([*create, "--output", str(path)]) == 0
    return path


def arguments(evidence: Path | str, bundle: Path | str) -> list[str]:
    return [
        "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", str(evidence),
        "--nonce", NONCE, "--bundle", str(bundle), "--at", AT,
    ]  # fmt: skip


@pytest.fixture
def attest(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Attest these bytes as evidence (or with these as bundle) in both formats: the code and what went wrong."""

    def call(evidence: bytes | Path, collateral: bytes | Path | None = None) -> tuple[int, dict]:
        paths = []
        for name, given in (("evidence.json", evidence), ("collateral.json", collateral or bundle)):
            path = tmp_path / name if isinstance(given, bytes) else given
            if isinstance(given, bytes):
                path.write_bytes(given)
            paths.append(path)
        before = {path.name: path.lstat().st_mtime_ns for path in tmp_path.iterdir()}
        capsys.readouterr()
        start = time.process_time()
        status = main(["-f", "json", *arguments(*paths)])
        spent = time.process_time() - start
        result = json.loads(capsys.readouterr().out)
        text_status = main(arguments(*paths))
        text = capsys.readouterr().out
        # Nothing is written, both formats agree, and it takes well under a second (twice that, on a busy machine).
        assert {path.name: path.lstat().st_mtime_ns for path in tmp_path.iterdir()} == before
        assert status == text_status == result["result_code"] % 256
        assert status != 0
        assert "NOT TRUSTED" in text
        assert spent < 2
        return result["result_code"], result

    return call


def first_failure(result: dict) -> dict:
    [device] = result["appraisal"]["devices"]
    return next(check for check in device["checks"] if check["outcome"] == "fail")


# --- files that are no evidence ----------------------------------------------------------------------------------------

NO_EVIDENCE: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 16, "json"),
    "no JSON": (b"hello", 16, "json"),
    "half of it": (b'[{"arch": "HOPPER"', 16, "json"),
    "binary": (bytes(range(256)) * 10, 16, "json"),
    "an empty list": (b"[]", 16, "no-devices"),
    "an empty envelope": (b'{"evidences": []}', 16, "no-devices"),
    "an object": (b"{}", 16, "evidence-form"),
    "a number": (b"5", 16, "evidence-form"),
    "null": (b"null", 16, "evidence-form"),
    "items that are no objects": (b"[1]", 16, "evidence-item"),
    "items without members": (b"[{}]", 16, "evidence-item"),
    "deep nesting": (b"[" * 100_000, 16, "json"),
    "a key twice": (b'[{"arch": "HOPPER", "arch": "HOPPER"}]', 16, "duplicate-key"),
    "a huge number": (b"[" + b"9" * 5_000_000 + b"]", 16, "json"),
    "a million devices": (b"[" + b"{}," * 1_000_000 + b"{}]", 16, "too-large"),
    "sixty-five devices": (b"[" + b"{}," * 64 + b"{}]", 16, "too-many-devices"),
}


@pytest.mark.parametrize("name", NO_EVIDENCE)
def test_what_is_no_evidence_is_refused_with_its_reason(attest, name: str) -> None:
    data, code, word = NO_EVIDENCE[name]
    found, result = attest(data)
    assert (found, result["error"]["code"]) == (code, word)
    assert result["claims"] == {}
    # The members that programs read are always there.
    assert (result["detached_eat"], result["appraisal"]) == ({}, None)
    assert len(result["error"]["message"]) < 300


ITEMS: dict[str, tuple[Callable[[dict], None], int, str]] = {
    "not base64": (lambda item: item.update(evidence="!!!!"), 16, "base64"),
    "base64 for URLs": (lambda item: item.update(evidence=item["evidence"].replace("+", "-").replace("/", "_")), 16, "base64"),
    "base64 with line breaks": (lambda item: item.update(evidence=item["evidence"][:76] + "\n" + item["evidence"][76:]), 16, "base64"),
    "base64 without padding": (lambda item: item.update(certificate=base64.b64encode(b"x").decode().rstrip("=")), 16, "base64"),
    "empty evidence": (lambda item: item.update(evidence=""), 16, "base64"),
    "evidence of 100 kB": (lambda item: item.update(evidence=base64.b64encode(bytes(100_000)).decode()), 16, "too-large"),
    "a chain of 100 kB": (lambda item: item.update(certificate=base64.b64encode(bytes(100_000)).decode()), 16, "too-large"),
    "a nonce that is too short": (lambda item: item.update(nonce="00"), 16, "nonce-hex"),
    "a nonce that is a number": (lambda item: item.update(nonce=5), 16, "evidence-item"),
    "an unknown architecture": (lambda item: item.update(arch="AMPERE"), 502, "architecture"),
    "an older switch": (lambda item: item.update(arch="LR10"), 602, "architecture"),
    "a switch among GPUs": (lambda item: item.update(arch="LS10"), 4, "device-kind"),
}  # fmt: skip


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_that_is_wrong_is_refused_with_its_place(attest, genuine: dict[str, str], name: str) -> None:
    change, code, word = ITEMS[name]
    item = dict(genuine)
    change(item)
    found, result = attest(json.dumps([item]).encode())
    assert (found, result["error"]["code"]) == (code, word)
    assert "item 0" in result["error"]["message"]


# --- evidence that is malformed inside ---------------------------------------------------------------------------------


def with_chain(genuine: dict[str, str], change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    pem = base64.b64decode(genuine["certificate"])
    mark = b"-----END CERTIFICATE-----"
    certificates = [part.strip() + b"\n" + mark + b"\n" for part in pem.split(mark) if part.strip()]
    chain = b"".join(change(certificates))
    return json.dumps([dict(genuine, certificate=base64.b64encode(chain).decode())]).encode()


# In NVIDIA's order the key of the first certificate comes first (508), then the path (802); a chip without a name after
# them, so that 502 never hides what is wrong with a chain.
CHAINS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str, int]] = {
    "one certificate": (lambda c: c[:1], "chain-path", 802),
    "the root alone": (lambda c: c[4:], "chain-path", 508),
    "without its root": (lambda c: c[:4], "chain-path", 802),
    "without its leaf": (lambda c: c[1:], "chain-path", 508),
    "in reverse": (lambda c: c[::-1], "chain-path", 508),
    "with a certificate twice": (lambda c: [*c[:2], *c[1:]], "chain-path", 802),
    "with something behind the root": (lambda c: [*c, c[0]], "chain-path", 802),
    "forty certificates": (lambda c: c * 8, "chain-format", 16),
    "a key in between": (lambda c: [c[0].replace(b"CERTIFICATE", b"PRIVATE KEY"), *c[1:]], "chain-format", 16),
    "text before it": (lambda c: [b"subject=x\n", *c], "chain-format", 16),
    "cut in the middle": (lambda c: [b"".join(c)[:2000]], "chain-format", 16),
    "no PEM at all": (lambda c: [b"hello"], "chain-format", 16),
    "PEM that is no certificate": (
        lambda c: [b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"],
        "chain-format",
        16,
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_that_is_not_the_devices_chain_is_refused(attest, genuine: dict[str, str], name: str) -> None:
    change, check, code = CHAINS[name]
    found, result = attest(with_chain(genuine, change))
    assert (first_failure(result)["id"], found) == (check, code)


def cut(genuine: dict[str, str], length: int) -> bytes:
    report = base64.b64decode(genuine["evidence"])[:length]
    return json.dumps([dict(genuine, evidence=base64.b64encode(report).decode())]).encode()


@pytest.mark.parametrize("length", [1, 36, 37, 38, 41, 45, 100, 3000, 4000, 4020, 4021, 4022, 4116])
def test_a_report_cut_short_is_refused_as_such(attest, genuine: dict[str, str], length: int) -> None:
    code, result = attest(cut(genuine, length))
    assert code == 503
    failure = first_failure(result)
    assert failure["id"] == "report-format"
    assert "byte " in failure["detail"]


@pytest.mark.exhaustive
def test_a_report_cut_at_every_length_is_refused_as_such(genuine: dict[str, str]) -> None:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.verifier import Verifier
    from nvattest.evidence import load_evidence
    from nvattest.model import Nonce, VerificationTime

    verifier, at = Verifier(), VerificationTime.parse(AT)
    for length in range(1, len(base64.b64decode(genuine["evidence"]))):
        evidence = load_evidence(cut(genuine, length))
        appraisal = verifier.appraise(evidence, nonce=Nonce.from_hex(NONCE), collateral=Collateral(), at=at)
        check = appraisal.devices[0].check("report-format")
        assert check is not None
        assert (int(appraisal.result_code), check.outcome.value) == (503, "fail"), length


def test_a_report_with_a_long_tail_is_refused(attest, genuine: dict[str, str]) -> None:
    report = base64.b64decode(genuine["evidence"]) + bytes(9)
    code, result = attest(json.dumps([dict(genuine, evidence=base64.b64encode(report).decode())]).encode())
    assert (code, first_failure(result)["id"]) == (503, "report-trailing-bytes")


# --- RIMs and bundles --------------------------------------------------------------------------------------------------


def with_rim(bundle: Path, change: Callable[[bytes], bytes]) -> bytes:
    import hashlib

    document = json.loads(bundle.read_bytes())
    for rim in document["rims"]:
        if rim["id"] == DRIVER:
            content = change(base64.b64decode(rim["content"]))
            rim["content"] = base64.b64encode(content).decode()
            rim["sha256"] = hashlib.sha256(content).hexdigest()
    return json.dumps(document).encode()


def before_the_root(markup: bytes) -> Callable[[bytes], bytes]:
    return lambda content: markup + content[content.index(b"<", content.index(b"?>") if b"?>" in content else 0) :]


def laughs(content: bytes) -> bytes:
    lines = ['<!ENTITY l0 "ha">'] + [f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12)]
    dtd = f"<!DOCTYPE x [{''.join(lines)}]>".encode()
    return before_the_root(dtd)(content).replace(b"550.90.07", b"&l11;", 1)


def resources(content: bytes) -> bytes:
    match = re.search(rb"<(\w+:)?Resource\b", content)
    assert match is not None
    return content[: match.start()] + (match.group() + b"/>") * 10_000 + content[match.start() :]


RIMS: dict[str, Callable[[bytes], bytes]] = {
    "a DTD": before_the_root(b"<!DOCTYPE x>"),
    "an external entity": before_the_root(b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'),
    "a billion laughs": laughs,
    "ten thousand Resources": resources,
    "deep nesting": lambda c: b"<a>" * 30_000 + b"</a>" * 30_000,
    "a comment": before_the_root(b"<!-- x -->"),
    "a processing instruction": before_the_root(b"<?x y?>"),
    "cut in the middle": lambda c: c[: len(c) // 2],
    "no XML": lambda _: b"hello",
    "another document": lambda _: b"<a/>",
    "UTF-16": lambda c: c.decode().encode("utf-16"),
    "a megabyte of nothing": lambda _: b"<a>" + b" " * 1_000_000 + b"</a>",
    "a megabyte of attributes": lambda _: b"<a " + b" ".join(b'a%d="x"' % n for n in range(70_000)) + b"/>",
    "no signature": lambda c: c[: c.rindex(b"<", 0, c.rindex(b"Signature>") - 1000)] + b"</SoftwareIdentity>",
}


@pytest.mark.parametrize("name", RIMS)
def test_a_rim_that_is_no_such_document_is_refused_with_code_106(
    attest, real_data: Path, bundle: Path, name: str
) -> None:
    evidence = real_data / "evidence/hopper-550.90.07-nvtrust.json"
    code, result = attest(evidence, with_rim(bundle, RIMS[name]))
    assert (code, first_failure(result)["id"]) == (106, "driver-rim-format")


def test_nothing_of_an_external_entity_is_read(attest, real_data: Path, bundle: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("SECRET-CONTENT")
    dtd = f'<!DOCTYPE x [<!ENTITY f SYSTEM "{secret.as_uri()}">]>'.encode()
    content = with_rim(bundle, lambda c: before_the_root(dtd)(c).replace(b"550.90.07", b"&f;", 1))
    _, result = attest(real_data / "evidence/hopper-550.90.07-nvtrust.json", content)
    assert "SECRET-CONTENT" not in json.dumps(result)


BUNDLES: dict[str, Callable[[dict], object]] = {
    "a wrong digest": lambda b: b["rims"][0].update(sha256="00" * 32),
    "an id twice": lambda b: b["rims"].append(b["rims"][0]),
    "another version": lambda b: b.update(version=2),
    "another format": lambda b: b.update(format="zip"),
    "a path as id": lambda b: b["rims"][0].update(id="../../etc/passwd"),
    "content that is not base64": lambda b: b["ocsp"][0].update(content="?"),
    "a list of answers that is none": lambda b: b.update(ocsp={}),
    "nine thousand answers": lambda b: b.update(ocsp=b["ocsp"][:1] * 9000),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_that_is_damaged_is_a_bad_argument(attest, real_data: Path, bundle: Path, name: str) -> None:
    document = json.loads(bundle.read_bytes())
    BUNDLES[name](document)
    code, result = attest(real_data / "evidence/hopper-550.90.07-nvtrust.json", json.dumps(document).encode())
    assert (code, result["error"]["code"]) == (4, "bundle")


def test_a_bundle_that_is_no_json_is_a_bad_argument(attest, real_data: Path) -> None:
    evidence = real_data / "evidence/hopper-550.90.07-nvtrust.json"
    for data, word in ((b"{", "json"), (b"\xff", "json"), (b"[]", "bundle"), (b"[" * 100_000, "json")):
        code, result = attest(evidence, data)
        assert (code, result["error"]["code"]) == (4, word)


# --- files that are no plain files, and processes ----------------------------------------------------------------------


def test_a_fifo_is_refused_and_does_not_hang(attest, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code, result = attest(fifo)
    assert code == 4
    assert "not a regular file" in result["error"]["message"]


def test_a_device_file_is_refused(attest) -> None:
    for path in ("/dev/zero", "/dev/null"):
        code, result = attest(Path(path))
        assert (code, "not a regular file" in result["error"]["message"]) == (4, True)


def test_a_file_that_may_not_be_read_is_refused(attest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "closed.json"
    path.write_bytes(b"[]")
    path.chmod(0)
    if os.geteuid() == 0:
        # Root reads everything: what the system would say to others.
        genuine_open = os.open

        def refusing(name, *more, **options):
            if name == str(path):
                raise PermissionError(13, "Permission denied", name)
            return genuine_open(name, *more, **options)

        monkeypatch.setattr(os, "open", refusing)
    code, result = attest(path)
    assert (code, "Permission denied" in result["error"]["message"]) == (4, True)


def process(argv: list[str], **more) -> tuple[subprocess.CompletedProcess[bytes], float, int]:
    """Run the installed program: what came out, the seconds of processor time, and the peak memory in kB."""
    code = (
        "import resource, subprocess, sys;"
        "r = subprocess.run(sys.argv[1:]).returncode;"
        "u = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(r, u.ru_utime + u.ru_stime, u.ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, "-m", "nvattest", *argv],
        stdout=more.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, timeout=60, **more,
    )  # fmt: skip
    status, seconds, kilobytes = done.stderr.split()[-3:]
    done.returncode = int(status)
    return done, float(seconds), int(kilobytes)


@pytest.mark.parametrize("place", ["evidence", "bundle"])
def test_a_file_of_4_gib_costs_neither_time_nor_memory(
    real_data: Path, bundle: Path, tmp_path: Path, place: str
) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(4 << 30)
    evidence = real_data / "evidence/hopper-550.90.07-nvtrust.json"
    argv = arguments(huge, bundle) if place == "evidence" else arguments(evidence, huge)
    done, seconds, kilobytes = process(argv)
    assert done.returncode == 4
    assert b"is larger than" in done.stdout
    assert seconds < 2
    # A bundle may have 64 MiB, which are read before its size is known to be too much.
    assert kilobytes < (64 << 10) + (0 if place == "evidence" else (64 << 10))


def test_the_genuine_vector_takes_less_than_64_mb(real_data: Path, bundle: Path) -> None:
    done, _, kilobytes = process(arguments(real_data / "evidence/hopper-550.90.07-nvtrust.json", bundle))
    assert done.returncode == 0
    assert kilobytes < 64 << 10


def test_a_billion_laughs_cost_no_memory(real_data: Path, bundle: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(with_rim(bundle, laughs))
    done, seconds, kilobytes = process(arguments(real_data / "evidence/hopper-550.90.07-nvtrust.json", bad))
    assert done.returncode == 106
    assert seconds < 2
    assert kilobytes < 64 << 10


def test_a_limit_on_memory_is_enough_for_the_genuine_vector(real_data: Path, bundle: Path) -> None:
    limit = 512 << 20

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    argv = arguments(real_data / "evidence/hopper-550.90.07-nvtrust.json", bundle)
    done, _, _ = process(argv, preexec_fn=bound)
    assert done.returncode == 0


def test_a_full_disk_behind_stdout_is_said_on_stderr_and_is_no_success(real_data: Path, bundle: Path) -> None:
    argv = arguments(real_data / "evidence/hopper-550.90.07-nvtrust.json", bundle)
    for form in ("text", "json"):
        with open("/dev/full", "wb") as full:
            done, _, _ = process(["-f", form, *argv], stdout=full)
        assert done.returncode == 1
        assert b"could not be written" in done.stderr
        assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_success_and_no_traceback(real_data: Path, bundle: Path) -> None:
    argv = arguments(real_data / "evidence/hopper-550.90.07-nvtrust.json", bundle)
    reading, writing = os.pipe()
    os.close(reading)
    done, _, _ = process(["-f", "json", *argv], stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_a_closed_stdout_leaves_the_verdict_in_the_status(real_data: Path, bundle: Path, tmp_path: Path) -> None:
    for nonce, expected in ((NONCE, 0), ("00" * 32, 504 % 256)):
        argv = arguments(real_data / "evidence/hopper-550.90.07-nvtrust.json", bundle)
        argv[argv.index(NONCE)] = nonce
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "nvattest", *argv],
            stderr=subprocess.PIPE, timeout=60,
        )  # fmt: skip
        assert done.returncode == expected
        assert b"Traceback" not in done.stderr


def test_file_names_that_are_not_utf_8_are_read_and_shown_escaped(
    real_data: Path, bundle: Path, tmp_path: Path
) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.json"
    Path(os.fsdecode(odd)).write_bytes(bundle.read_bytes())
    argv = arguments(real_data / "evidence/hopper-550.90.07-nvtrust.json", os.fsdecode(odd))
    for form in ("text", "json"):
        for encoding in ("utf-8:strict", "ascii:strict"):
            done, _, _ = process(["-f", form, *argv], env=os.environ | {"PYTHONIOENCODING": encoding})
            assert done.returncode == 0
            assert b"caf\\udce9.json" in done.stdout
            if form == "json":
                assert json.loads(done.stdout)["result_code"] == 0
