"""OpenSSL's command as a second opinion on OCSP: as a responder that leaves nextUpdate out, and as a judge of clocks."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nvattest.pki.certificate import Certificate
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.pki.ocsp import NonceOutcome, Revocation, RevocationStatus, build_ocsp_request, check_revocation

from ..unit.pki import minting  # noqa: TID252 - one mint for both folders

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command here")
NONCE = bytes(range(32))
CHAIN = minting.chain()
BROM, ISSUER = CHAIN[1], CHAIN[2]
GOOD = RevocationStatus.GOOD


def openssl(*arguments: str) -> str:
    done = subprocess.run(
        ["openssl", "ocsp", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout + done.stderr


def pem(path: Path, certificate: Certificate) -> str:
    path.write_bytes(x509.load_der_x509_certificate(certificate.der).public_bytes(serialization.Encoding.PEM))
    return str(path)


def judge(response: bytes, nonce: bytes | None, at: datetime) -> Revocation:
    return check_revocation(response, certificate=BROM, issuer=ISSUER, at=at, nonce=nonce, verifier=EcdsaVerifier())


def answer_of_openssl(folder: Path, nonce: bytes | None, *more: str) -> bytes:
    """What OpenSSL's responder says about the certificate; the issuer itself signs."""
    (folder / "index.txt").write_text(f"V\t491231235959Z\t\t{BROM.serial:X}\tunknown\t/CN=x\n")
    (folder / "issuer.key").write_bytes(
        minting.key("Provisioner").private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "request.der").write_bytes(build_ocsp_request(BROM, ISSUER, nonce=nonce))
    issuer = pem(folder / "issuer.pem", ISSUER)
    openssl(
        "-index", str(folder / "index.txt"), "-CA", issuer, "-rsigner", issuer, "-rkey", str(folder / "issuer.key"),
        "-rmd", "sha384", "-reqin", str(folder / "request.der"), "-respout", str(folder / "answer.der"), *more,
    )  # fmt: skip
    return (folder / "answer.der").read_bytes()


def test_an_answer_of_openssl_without_next_update_counts_with_our_nonce_and_only_then(tmp_path: Path) -> None:
    ours = judge(answer_of_openssl(tmp_path, NONCE), NONCE, datetime.now(timezone.utc))
    assert (ours.status, ours.nonce, ours.next_update) == (GOOD, NonceOutcome.MATCH, None)
    without = judge(answer_of_openssl(tmp_path, None), NONCE, datetime.now(timezone.utc))
    assert (without.status, without.nonce) == (RevocationStatus.STALE, NonceOutcome.ABSENT)
    with_an_end = judge(answer_of_openssl(tmp_path, None, "-ndays", "1"), NONCE, datetime.now(timezone.utc))
    assert with_an_end.status is GOOD


@pytest.mark.parametrize(("ahead", "tolerated"), [(-3600, True), (290, True), (900, False)])
def test_openssl_tolerates_the_same_clocks(tmp_path: Path, ahead: int, *, tolerated: bool) -> None:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    made = now + timedelta(seconds=ahead)
    der = minting.answer(
        BROM, ISSUER, responder=ISSUER, signer=minting.key("Provisioner"), this_update=made.replace(tzinfo=None),
        next_update=(made + timedelta(days=1)).replace(tzinfo=None),
    )  # fmt: skip
    (tmp_path / "answer.der").write_bytes(der)
    said = openssl(
        "-respin", str(tmp_path / "answer.der"), "-noverify", "-issuer", pem(tmp_path / "issuer.pem", ISSUER),
        "-sha384", "-cert", pem(tmp_path / "brom.pem", BROM),
    )  # fmt: skip
    assert "good\n\tThis Update" in said
    assert ("Status times invalid" not in said) is tolerated
    assert (judge(der, None, now).status is GOOD) is tolerated
