"""NVIDIA's own RIMs: what is genuine verifies, what was altered does not, each for its own reason."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from nvattest.errors import ParseError
from nvattest.model import DeviceKind
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.document import parse_rim
from nvattest.rim.ids import RimRole
from nvattest.rim.verify import RimVerification, VerifiedRim, bind_rim, verify_rim

AUTUMN_2025 = datetime(2025, 10, 24, 12, tzinfo=timezone.utc)
AUTUMN_2026 = datetime(2026, 11, 1, tzinfo=timezone.utc)
GOOD = [
    # file, active golden values, chip, version, within validity in autumn 2025, in autumn 2026
    ("rim/NV_GPU_DRIVER_GH100_550.144.03.xml", 21, "GH100", "550.144.03", True, True),
    ("rim/NV_GPU_DRIVER_GH100_550.90.07.xml", 21, "GH100", "550.90.07", True, False),
    ("rim/NV_GPU_VBIOS_1010_0200_882_96009F0001.xml", 12, "GH100", "96.00.9F.00.01", True, False),
    ("rim/NV_SWITCH_BIOS_5612_0002_890_9610550001.xml", 31, "LS_10", "96.10.55.00.01", False, True),
    ("rim-other/1010_0205_862_9600740020_PROD.swidtag.xml", 12, "GH100", "96.00.74.00.20", False, False),
    ("rim-other/g520_0200_885_9600740001_PROD.swidtag.xml", 12, "GH100", "96.00.74.00.01", False, False),
]
DRIVER = "rim/NV_GPU_DRIVER_GH100_550.90.07.xml"


def verify(data: bytes, at: datetime = AUTUMN_2025, verifier: EcdsaVerifier | None = None) -> RimVerification:
    return verify_rim(parse_rim(data), anchors=NVIDIA_ANCHORS.rim, at=at, verifier=verifier or EcdsaVerifier())


@pytest.mark.parametrize(("file", "count", "chip", "version", "in_2025", "in_2026"), GOOD)
def test_a_genuine_rim_verifies_to_the_pinned_root(
    real_data: Path, file: str, count: int, chip: str, version: str, in_2025: bool, in_2026: bool
) -> None:
    data = (real_data / file).read_bytes()
    early, late = verify(data, AUTUMN_2025), verify(data, AUTUMN_2026)
    assert early.signature_valid
    assert early.document.digest_ok
    assert early.chain.path_ok, early.chain.path_findings
    assert (early.chain.in_validity, late.chain.in_validity) == (in_2025, in_2026)
    assert early.verified is not None
    assert early.verified.document.version == version
    assert early.verified.document.manufacturer_id == "5703"
    assert len(early.verified.golden) == count
    assert early.verified.document.min_svn == ()


@pytest.mark.parametrize(("file", "count", "chip", "version", "in_2025", "in_2026"), GOOD)
def test_a_genuine_rim_binds_to_its_device(
    real_data: Path, file: str, count: int, chip: str, version: str, in_2025: bool, in_2026: bool
) -> None:
    verified = verify((real_data / file).read_bytes()).verified
    assert verified is not None
    switch = chip == "LS_10"
    role = RimRole.BIOS if switch else RimRole.DRIVER if "DRIVER" in file else RimRole.VBIOS
    kind = DeviceKind.NVSWITCH if switch else DeviceKind.GPU
    assert bind_rim(verified, role=role, version=version, chip=chip, kind=kind) == ()


def test_golden_value_35_of_the_driver_has_four_alternatives(real_data: Path) -> None:
    verified = verify((real_data / DRIVER).read_bytes()).verified
    assert verified is not None
    value = verified.golden[35]
    assert len(value.values) == 4
    assert all(len(alternative) == value.size == 48 for alternative in value.values)
    assert list(verified.golden) == sorted(verified.golden)


@pytest.mark.parametrize(
    ("file", "signature", "digest"),
    [
        ("incorrect_signature_driver_rim.xml", False, True),
        ("NV_SWITCH_BIOS_5612_0002_890_9610550001_invalid_signature.xml", True, False),
        ("NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml", True, False),
    ],
)
def test_an_altered_rim_is_refused_for_its_own_reason(
    real_data: Path, file: str, signature: bool, digest: bool
) -> None:
    outcome = verify((real_data / "rim-bad" / file).read_bytes())
    assert outcome.document.digest_ok is digest
    assert ("SignedInfo does not verify" in outcome.detail) is not signature
    assert ("content was altered" in outcome.detail) is not digest
    assert outcome.chain.path_ok
    assert not outcome.signature_valid
    assert outcome.verified is None


def refused(data: bytes, verifier: EcdsaVerifier) -> bool:
    try:
        return verify(data, verifier=verifier).verified is None
    except ParseError:
        return True


def flips(data: bytes, positions: range) -> list[int]:
    verifier = EcdsaVerifier()
    accepted = []
    for position in positions:
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        if not refused(bytes(changed), verifier):
            accepted.append(position)
    return accepted


def test_sampled_single_bit_flips_are_refused(real_data: Path) -> None:
    data = (real_data / DRIVER).read_bytes()
    # 1009 is prime, so the samples fall on all eight bits and on every kind of content.
    assert flips(data, range(0, len(data) * 8, 1009)) == []


@pytest.mark.exhaustive
def test_every_single_bit_flip_is_refused(real_data: Path) -> None:
    data = (real_data / DRIVER).read_bytes()
    accepted = flips(data, range(len(data) * 8))
    # White space inside base64 is no content: a line break may become another blank, nothing else.
    for position in accepted:
        assert data[position // 8] in b" \t\r\n", position


def test_every_truncation_of_the_signature_is_refused(real_data: Path) -> None:
    data = (real_data / DRIVER).read_bytes()
    verifier = EcdsaVerifier()
    assert all(refused(data[:length], verifier) for length in range(0, len(data) - 1, 211))


def test_another_root_is_not_enough(real_data: Path) -> None:
    outcome = verify_rim(
        parse_rim((real_data / DRIVER).read_bytes()),
        anchors=NVIDIA_ANCHORS.device,
        at=AUTUMN_2025,
        verifier=EcdsaVerifier(),
    )
    assert outcome.signature_valid
    assert not outcome.chain.path_ok
    assert outcome.verified is None


def test_only_verify_rim_makes_a_verified_rim(real_data: Path) -> None:
    outcome = verify((real_data / DRIVER).read_bytes())
    assert outcome.verified is not None
    with pytest.raises(TypeError):
        VerifiedRim(outcome.document, outcome.chain, seal=object())
    with pytest.raises(AttributeError):
        outcome.verified.document = outcome.document
    with pytest.raises(TypeError):
        outcome.verified.golden[0] = outcome.verified.golden[35]  # type: ignore[index]


def test_the_upper_certificates_of_two_rims_are_verified_once(real_data: Path) -> None:
    verifier = EcdsaVerifier()
    verify((real_data / DRIVER).read_bytes(), verifier=verifier)
    before = verifier.verifications
    verify((real_data / GOOD[2][0]).read_bytes(), verifier=verifier)
    # Its own signer's certificate and its own signature.
    assert verifier.verifications - before == 2
