"""``nvattest inspect``: any file that nvattest reads or writes is recognised; where another kind is wanted it is named."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.cli import main
from nvattest.evidence import dump_evidence
from nvattest.report.subjects import KINDS, kind_of_file
from nvattest.tee.collateral import SnpCollateral, TdxCollateral
from nvattest.testing import Platform
from nvattest.testing.cpu import SimulatedGuest
from nvattest.token.claims import claims_of
from nvattest.token.jose import SigningKey

SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_bytes("inspection-1.json")))
NONCE = "11" * 32
POLICIES = Path(__file__).parents[3] / "examples" / "policies"


def collateral_text(guest: SimulatedGuest) -> bytes:
    collateral = guest.collateral()
    assert isinstance(collateral, TdxCollateral)
    return collateral.text.encode()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind."""
    from cryptography.hazmat.primitives import serialization

    folder = tmp_path_factory.mktemp("files")
    platform = Platform.build("hopper-1")
    from nvattest.model import Nonce

    nonce = Nonce.from_hex(NONCE)
    key = SigningKey.generate()
    pem = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public.native().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    collateral = platform.collateral()
    evidence = platform.evidence(nonce)
    appraisal = platform.appraise(nonce)
    rim = next(iter(collateral.rims.values()))
    (folder / "key").write_bytes(pem)
    token, saved = folder / "token", folder / "appraisal"
    for words, path in (
        (["--signing-key", str(folder / "key"), "--token-out", str(token)], token),
        (["-f", "json"], saved),
    ):
        with saved.open("w") as out, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            assert main(["attest", "--simulate", "hopper-1", "--nonce", NONCE, *words]) == 0, path
    contents: dict[str, bytes] = {
        "appraisal": saved.read_bytes(),
        "token": token.read_bytes(),
        "claims": json.dumps(claims_of(appraisal)).encode(),
        "bundle": json.dumps(platform.bundle()).encode(),
        "result": b'{"result_code": 12, "result_message": "no"}',
        "error": b'{"result_code": 4, "error": {"code": "file", "message": "m", "hint": ""}}',
        "evidence": json.dumps(dump_evidence(evidence)).encode(),
        "rim": rim.content,
        "ocsp": collateral.ocsp[0].content,
        "certificates": b"subject=a text of openssl\n" + evidence[0].certificate_chain,
        "private-key": pem,
        "public-key": public,
        "jwks": json.dumps(key.public.jwks()).encode(),
        "evidence-policy": (POLICIES / "evidence.toml").read_bytes(),
        "policy": (POLICIES / "gpu-4.0.json").read_bytes(),
        "cpu-collateral": collateral_text(SimulatedGuest("tdx")),
        "cpu-policy": (POLICIES / "cpu.toml").read_bytes(),
        "record": b'{"format": "nvattest-hook-state", "version": 1, "verdict": "trusted"}',
        "doctor": b'{"format": "nvattest-doctor", "version": 1, "items": []}',
        "report": evidence[0].report.hex().encode() + b"\n",
        "quote": SimulatedGuest("tdx").quote(bytes(64)),
        "nodes": b'{"id": 1, "nonce": "00", "evidence": []}\n{"id": 2}\n',
        "answers": b'{"id": 1, "trusted": true, "result_code": 0, "devices": []}\n',
        "summary": b'{"format": "nvattest-batch-summary", "version": 1, "lines": 0}',
        "bundle-folder": b'{"format": "nvattest-bundle-folder", "version": 1, "files": {}}',
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_certificates_with_an_endorsement_key_of_amd_are_collateral_and_roots_are_not(tmp_path: Path) -> None:
    SimulatedGuest("snp-genoa").write(tmp_path)
    assert kind_of_file((tmp_path / "cpu-collateral.pem").read_bytes()) == "cpu-collateral"
    assert kind_of_file((tmp_path / "cpu-root.pem").read_bytes()) == "certificates"
    assert main(["inspect", str(tmp_path / "cpu-collateral.pem")]) == 0


def test_a_report_of_azure_s_paravisor_is_known_and_said_to_be_unsupported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hcl").write_bytes(b"HCLA".ljust(2600, b"\0"))
    assert main(["inspect", str(tmp_path / "hcl")]) == 16
    assert "not supported: its MEASUREMENT is the paravisor's" in capsys.readouterr().err


def test_a_quote_that_is_cut_off_is_no_file_of_certificates() -> None:
    quote = SimulatedGuest("tdx").quote(bytes(64))
    assert b"BEGIN CERTIFICATE" in quote
    assert kind_of_file(quote[:-1]) is None


def test_there_is_a_file_of_each_kind(files: dict[str, Path]) -> None:
    assert files.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_file_is_recognised_shown_and_has_its_use(
    kind: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = files[kind]
    assert kind_of_file(path.read_bytes()) == kind
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: {KINDS[kind].words}\n")
    assert out.rstrip().split("\n")[-1].startswith("use: ")
    assert main(["-f", "json", "inspect", str(path)]) == 0
    said = json.loads(capsys.readouterr().out)
    SCHEMA.validate(said)
    assert said["kind"] == kind


def test_a_report_is_recognised_as_bytes_too(files: dict[str, Path]) -> None:
    assert kind_of_file(bytes.fromhex(files["report"].read_text())) == "report"


def test_a_compressed_file_is_one_of_its_content(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    packed = files["nodes"].with_suffix(".gz")
    packed.write_bytes(gzip.compress(files["nodes"].read_bytes()))
    assert main(["inspect", str(packed)]) == 0
    assert "lines of nodes" in capsys.readouterr().out
    packed.write_bytes(packed.read_bytes()[:20])
    assert main(["inspect", str(packed)]) == 4
    assert "not a whole gzip file" in capsys.readouterr().err


def test_the_folder_of_a_bundle_is_shown_and_another_folder_is_refused(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tmp_path)]) == 4
    assert "manifest.json" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_bytes(files["bundle-folder"].read_bytes())
    assert main(["inspect", str(tmp_path)]) == 0
    assert "the manifest of a bundle" in capsys.readouterr().out


def test_every_real_report_and_quote_is_recognised(real_data: Path) -> None:
    for path in sorted(real_data.glob("evidence/*.report.hex")):
        assert kind_of_file(path.read_bytes()) == "report", path
    for path in (*real_data.glob("tee/*/*.quote.bin"), *real_data.glob("tee/*/*.report.bin")):
        assert kind_of_file(path.read_bytes()) == "quote", path


@pytest.mark.parametrize("pattern", ["*collateral.json", "crl-*.der", "*.vcek.der"])
def test_real_collateral_of_cpus_is_recognised(pattern: str, real_data: Path) -> None:
    paths = sorted((real_data / "tee").rglob(pattern))
    assert {kind_of_file(path.read_bytes()) for path in paths} == {"cpu-collateral"}


def test_a_real_endorsement_key_in_pem_is_named_with_its_chip_and_verified_with_its_chain(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    der = (real_data / "tee" / "snp" / "s1-milan-v2.vcek.der").read_bytes()
    text = base64.encodebytes(der).decode()
    key = f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n".encode()
    path = tmp_path / "key.pem"
    path.write_bytes(key)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "VCEK of chip d49554ec717f4e5b… (Milan-B0)" in out
    assert "NOT VERIFIED: there is no certificate of the issuer of the VCEK" in out
    path.write_bytes(key + (real_data / "tee" / "snp" / "chain-milan-vcek.pem").read_bytes())
    main(["-f", "json", "inspect", str(path)])
    assert json.loads(capsys.readouterr().out)["content"]["issued_by_maker"] is True


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("claims/attsdk-hopper-claims-v3-decoded.json", "GPU-0"),
        ("claims/attsdk-switch-decoded.json", "SWITCH-0"),
        ("claims/nvtrust/gpu-overall_claims_remote.json", "x-nvidia-overall-att-result"),
        ("tokens/nras-gpu-x5c-chain.json", "NVIDIA Attestation Service GPU Intermediate 004"),
        ("tee/snp/crl-milan.der", "0 revoked of CN=ARK-Milan"),
    ],
)
def test_real_claims_chains_and_lists_are_shown(
    name: str, words: str, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(real_data / name)]) == 0
    assert words in capsys.readouterr().out


def test_claims_that_nvidia_s_tools_wrote_with_a_member_twice_are_read_and_say_so(
    real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(real_data / "claims" / "nvtrust" / "gpu-overall_claims_local.json")
    said = "The member 'exp' is there twice in one object, with the same value."
    assert main(["inspect", path]) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert main(["-f", "json", "inspect", path]) == 0
    written = json.loads(capsys.readouterr().out)
    SCHEMA.validate(written)
    assert written["content"]["notices"] == [said]
    assert written["content"]["claims"]["claims"]["exp"] == 4880995383


CLAIMS = '{"measres": "success", "x-nvidia-gpu-driver-version": "1", %s}'


@pytest.mark.parametrize("pair", ["1, 1", '"a", "a"', "true, true", "null, null"])
def test_a_claim_twice_with_one_value_is_read(pair: str) -> None:
    first, second = pair.split(", ")
    assert kind_of_file((CLAIMS % f'"exp": {first}, "exp": {second}').encode()) == "claims"


@pytest.mark.parametrize("pair", ["1, 2", "1, true", "1, 1.0", '"a", "b"', "[], []", "{}, {}", "[1], [true]"])
def test_a_claim_twice_with_different_or_nested_values_is_refused(pair: str) -> None:
    first, second = pair.split(", ")
    assert kind_of_file((CLAIMS % f'"exp": {first}, "exp": {second}').encode()) is None


@pytest.mark.parametrize("kind", ["appraisal", "bundle", "evidence", "jwks", "token"])
def test_what_is_signed_or_read_again_has_each_member_once(kind: str, files: dict[str, Path]) -> None:
    text = files[kind].read_text().strip()
    assert kind_of_file(text.encode()) == kind
    at = text.index("{") + 1
    assert kind_of_file(f'{text[:at]}"a": 1, "a": 1, {text[at:]}'.encode()) is None


def test_json_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "claims.json"
    path.write_text('{"exp": 1, "eat_nonce": "00", "exp": 2}')
    assert main(["inspect", str(path)]) == 4
    assert "reads or writes; as JSON: the key 'exp' appears twice in one object" in capsys.readouterr().err


def test_a_list_of_revoked_certificates_is_shown_with_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collateral = SimulatedGuest("snp-milan").collateral()
    assert isinstance(collateral, SnpCollateral)
    path = tmp_path / "list.der"
    path.write_bytes(collateral.crls[0])
    assert main(["inspect", str(path)]) == 0
    assert "revocation list 0 until" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["default.rego", "gpu-2.0.json"])
def test_policies_in_every_language_are_recognised(name: str) -> None:
    assert kind_of_file((POLICIES / name).read_bytes()) == "policy"


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"{}", b"[]", b"\x30\x03abc", b"<html/>", b"-----BEGIN X-----", b"a: b", b"\xff\xfe\x00", b"0 1"],
)
def test_what_is_none_of_them_is_refused(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kind_of_file(content) is None
    path = tmp_path / "file"
    path.write_bytes(content)
    assert main(["inspect", str(path)]) == 4
    assert "FILE: " in capsys.readouterr().err or not content


def test_evidence_names_versions_and_certificates_and_says_that_it_is_not_verified(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["inspect", str(files["evidence"])])
    out = capsys.readouterr().out
    for words in ("NOT VERIFIED", "driver version", NONCE, "NVIDIA Device Identity CA"):
        assert words in out


def test_a_real_rim_is_verified_and_a_simulated_one_is_not(
    files: dict[str, Path], real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = real_data / "rim" / "NV_GPU_DRIVER_GH100_550.90.07.xml"
    main(["-f", "json", "inspect", "--at", "2025-08-21T07:00:00Z", str(real)])
    content = json.loads(capsys.readouterr().out)["content"]
    assert (content["verified"], content["id"]) == (True, "NV_GPU_DRIVER_GH100_550.90.07")
    main(["-f", "json", "inspect", str(files["rim"])])
    assert json.loads(capsys.readouterr().out)["content"]["verified"] is False
    main(["-f", "json", "inspect", str(real_data / "ocsp" / "device-brom.der")])
    assert json.loads(capsys.readouterr().out)["content"]["status"] == "good"


DEMANDED = [
    "verify-token", "TOKEN", "--nonce", NONCE, "--jwks", "JWKS", "--accept-simulated",
    "--expected-report-data", "00" * 64,
]  # fmt: skip
# Of each option: the command line, where FILE is the file, and the kind that belongs there.
OPTIONS = {
    "--gpu-evidence-file": (["attest", "--offline", "--gpu-evidence-file", "FILE"], "evidence"),
    "--nvswitch-evidence-file": (
        ["attest", "--offline", "-d", "nvswitch", "--nvswitch-evidence-file", "FILE"], "evidence",
    ),
    "--bundle": (["attest", "--gpu-evidence-file", "EVIDENCE", "--bundle", "FILE"], "bundle"),
    "--policy": (["attest", "--gpu-evidence-file", "EVIDENCE", "--offline", "--policy", "FILE"], "evidence-policy"),
    "--relying-party-policy": (
        ["attest", "--gpu-evidence-file", "EVIDENCE", "--offline", "--relying-party-policy", "FILE"], "policy",
    ),
    "--trust-anchors": (
        ["attest", "--gpu-evidence-file", "EVIDENCE", "--offline", "--trust-anchors", "FILE"], "certificates",
    ),
    "--signing-key": (
        ["attest", "--gpu-evidence-file", "EVIDENCE", "--offline", "--signing-key", "FILE"], "private-key",
    ),
    "FILE": (["verify-token", "FILE", "--nonce", NONCE], "token"),
    "--key": (["verify-token", "TOKEN", "--nonce", NONCE, "--key", "FILE"], "public-key"),
    "--jwks": (["verify-token", "TOKEN", "--nonce", NONCE, "--jwks", "FILE"], "jwks"),
    "--tee-quote": ([*DEMANDED, "--tee-quote", "FILE"], "quote"),
    "--tee-collateral": (
        [*DEMANDED, "--tee-quote", "QUOTE", "--cpu-policy", "CPU", "--tee-collateral", "FILE"], "cpu-collateral",
    ),
    "--cpu-policy": ([*DEMANDED, "--tee-quote", "QUOTE", "--cpu-policy", "FILE"], "cpu-policy"),
    "--x5c-anchors": (["verify-token", "TOKEN", "--nonce", NONCE, "--x5c-anchors", "FILE"], "certificates"),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_a_file_of_another_kind_is_named_with_its_option_and_its_use(
    option: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    argv, wanted = OPTIONS[option]
    for other in ("token", "bundle", "evidence", "public-key", "private-key"):
        if other == wanted or (option, other) == ("--tee-collateral", "bundle"):
            continue
        words = {"FILE": str(files[other]), "EVIDENCE": str(files["evidence"]), "TOKEN": str(files["token"])}
        words |= {"QUOTE": str(files["quote"]), "CPU": str(files["cpu-policy"]), "JWKS": str(files["jwks"])}
        assert main([words.get(word, word) for word in argv]) != 0
        said = capsys.readouterr()
        text = said.out + said.err
        assert f"{option}: {files[other]} is {KINDS[other].words}, expected {KINDS[wanted].words}" in text, other
        assert "it is for: nvattest " in text


def test_a_file_that_is_of_no_kind_is_named_with_its_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken"
    path.write_text('[{"arch": "HOPPER"')
    assert main(["attest", "--offline", "--gpu-evidence-file", str(path)]) != 0
    assert f"--gpu-evidence-file {path}: " in capsys.readouterr().out


# --- standard input and pipes -----------------------------------------------------------------------------------------


class Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    @staticmethod
    def isatty() -> bool:
        return False


@pytest.mark.parametrize(
    ("argv", "kind"),
    [
        (["inspect", "-"], "evidence"),
        (["inspect"], "evidence"),
        (["bundle", "inspect", "-"], "bundle"),
        (["policy", "check", "-"], "evidence-policy"),
        (["explain", "-"], "appraisal"),
        (["attest", "--offline", "--no-cache", "--gpu-evidence-file", "-"], "evidence"),
        (["verify-token", "-", "--nonce", NONCE], "token"),
    ],
)
def test_a_dash_is_standard_input(
    argv: list[str],
    kind: str,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    statuses = []
    for words in (argv, [str(files[kind]) if word == "-" else word for word in argv]):
        monkeypatch.setattr(sys, "stdin", Stdin(files[kind].read_bytes()))
        statuses.append(main(words))
        out = capsys.readouterr().out
        assert "is empty" not in out
    assert statuses[0] == statuses[1]


def test_standard_input_is_read_once(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(files["evidence"].read_bytes()))
    assert main(["attest", "--gpu-evidence-file", "-", "--bundle", "-"]) == 4
    assert "--bundle: standard input is empty" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_read_to_its_end(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(files["bundle"].read_bytes()))
    writer.start()
    assert main(["inspect", str(pipe)]) == 0
    writer.join()
    assert capsys.readouterr().out.startswith(f"{pipe}: a bundle")


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="there is no /dev/fd here")
def test_process_substitution_is_read(files: dict[str, Path]) -> None:
    code = "import sys; from nvattest.cli import main; sys.exit(main(sys.argv[1:]))"
    with files["evidence"].open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", code, "inspect", "/dev/fd/0"], stdin=file, capture_output=True, timeout=60
        )
    assert done.returncode == 0
    assert done.stdout.startswith(b"/dev/fd/0: evidence")


def test_a_token_is_named_once(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    token = str(files["token"])
    assert main(["verify-token", token, "--token-file", token, "--nonce", NONCE]) == 105
    assert "--token-file" in capsys.readouterr().err
