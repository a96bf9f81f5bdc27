"""A forged verdict in a certificate's name, a file's name, the kernel's command line or a record: no output obeys it."""

from __future__ import annotations

import base64
import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nvattest.cli import main
from nvattest.guest.config import Paths, Settings
from nvattest.guest.record import Journal
from nvattest.guest.status import render_status, status_metrics
from nvattest.pki.certificate import parse_pem_chain
from nvattest.testing import Platform

NONCE = bytes(32)
FORGED = "Result: TRUSTED, code 0 (Ok)"
EVIL = f"GH100 \x1b[2K\r\n{FORGED}\n\x9b1A\u202egnp\u200bx"
CONTROLS = set("\x1b\r\x9b\u202e\u200b\x07")


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: ec.EllipticCurvePrivateKey,
    attribute: x509.ObjectIdentifier = x509.NameOID.COMMON_NAME,
) -> bytes:
    subject = x509.Name([x509.NameAttribute(attribute, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(77)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=timezone.utc))
        .not_valid_after(datetime(2090, 1, 1, tzinfo=timezone.utc))
        .sign(issuer, hashes.SHA384())
        .public_bytes(serialization.Encoding.PEM)
    )


@pytest.fixture(scope="module")
def chain() -> bytes:
    root, leaf = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    return certificate(EVIL, leaf, root) + certificate(EVIL, root, root)


@pytest.fixture
def arguments(chain: bytes, tmp_path: Path) -> list[str]:
    platform = Platform.build("hopper-1")
    evidence = json.loads(platform.evidence_json(None, NONCE))
    evidence[0]["certificate"] = base64.b64encode(chain).decode()
    files = {name: str(tmp_path / name) for name in ("evidence", "anchors", "bundle")}
    Path(files["evidence"]).write_text(json.dumps(evidence))
    Path(files["anchors"]).write_bytes(platform.anchors_pem)
    Path(files["bundle"]).write_text(json.dumps(platform.bundle()))
    return [
        "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", files["evidence"], "--nonce", NONCE.hex(),
        "--trust-anchors", files["anchors"], "--bundle", files["bundle"], "--at", "2026-11-01T00:00:00Z",
    ]  # fmt: skip


def harmless(text: str) -> bool:
    return not CONTROLS & set(text) and not any(line.startswith(FORGED) for line in text.splitlines())


def test_a_name_is_clean_where_it_is_parsed(chain: bytes) -> None:
    leaf = parse_pem_chain(chain)[0]
    for text in (leaf.common_name, leaf.label, leaf.subject, leaf.issuer, repr(leaf)):
        assert text is not None
        assert text.isprintable()
    assert leaf.common_name == f"GH100 \\x1b[2K\\x0d\\x0a{FORGED}\\x0a\\x9b1A\\u202egnp\\u200bx"


def test_a_very_long_name_is_cut() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    leaf = parse_pem_chain(certificate("x" * 5000, key, key, x509.NameOID.SERIAL_NUMBER))[0]
    assert leaf.subject_serial == "x" * 256 + " [4744 more characters]"
    assert len(leaf.subject) < 2100


@pytest.mark.parametrize("options", [(), ("--verbose",), ("--explain",), ("-f", "json")])
def test_a_forged_verdict_in_a_certificate_stays_a_name(
    arguments: list[str], options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *options]) != 0
    out, err = capsys.readouterr()
    assert harmless(out)
    assert harmless(err)
    assert "GH100 \\" in out


def test_file_names_and_the_command_line_of_the_kernel_cannot_steer_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cmdline").write_bytes(
        f"quiet nvrc.smi.srs=1{EVIL.split(maxsplit=1)[0]}\x1b]0;owned\x07\n".encode()
    )
    hooks = tmp_path / "usr/share/oci/hooks/prestart"
    hooks.mkdir(parents=True)
    os.symlink("/x", hooks / EVIL.replace("/", ""))
    os.symlink("/x", os.fsencode(hooks) + b"/evil\xff\x1b[31m")
    assert main(["hook", "check", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert harmless(out)
    assert "evil\\udcff\\x1b[31m" in out
    assert "nvrc.smi.srs=1" in out
    assert main(["-f", "json", "hook", "check", "--root", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert harmless(text)
    assert "nvrc.smi.srs" in json.dumps(json.loads(text))


def test_a_path_that_is_a_wrong_argument_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["verify-token", "--key", EVIL], ["policy", "check", EVIL], ["attest", "--policy", EVIL], [EVIL]):
        assert main(command) != 0
        out, err = capsys.readouterr()
        assert harmless(out)
        assert "TRUSTED" in err
        assert not CONTROLS & set(err)


def test_texts_of_a_record_cannot_steer_a_terminal_or_forge_a_line() -> None:
    status: dict[str, object] = {
        "verdict": f"\x1b[32mtrusted\n{FORGED}", "current": False, "this_boot": True, "same_config": False,
        "same_devices": True, "age_s": 1.0, "config": EVIL, "time": EVIL, "stage": EVIL,
        "reason": {"code": "x\x1b[2J", "message": f"\x1b]0;owned\x07\n{FORGED}", "hint": EVIL},
        "findings": [{"code": EVIL, "message": EVIL}], "simulated": None, "weakened": [EVIL], "gpus": 1, "switches": 0,
        "ready": None, "cc_on": None, "dev_tools": None, "protected_pcie": None, "driver_fault": EVIL,
        "configuration_fault": EVIL, "record_fault": EVIL, "collateral_expires": EVIL, "phases_s": {EVIL: 1.0},
        "tee": {"provider": EVIL, "challenge": EVIL},
    }  # fmt: skip
    assert harmless(render_status(status))
    assert harmless(status_metrics(status))


def test_a_verdict_in_the_kernels_log_and_on_stderr_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = Paths(str(tmp_path))
    Path(paths.kmsg).parent.mkdir(parents=True, exist_ok=True)
    Path(paths.kmsg).touch()
    journal = Journal(Settings(paths))
    journal.verdict(EVIL, good=False)
    journal.lines([f"\t{EVIL}"])
    err = capsys.readouterr().err
    for text in (err, Path(paths.kmsg).read_text(), Path(paths.at(paths.LOG)).read_text()):
        assert harmless(text)
        assert text.count("\n") == 1
