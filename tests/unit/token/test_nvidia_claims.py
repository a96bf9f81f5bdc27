"""Claims 3.0 and 4.0: NVIDIA's keys and no others, and the values that NVIDIA's own services gave for real devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvattest.appraisal.inputs import Collateral, EvidencePolicy, OcspAnswer, RimAnswer, Source
from nvattest.appraisal.verifier import Verifier
from nvattest.errors import InputError
from nvattest.evidence import load_evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.testing import Platform
from nvattest.token.claims import claims_of

NONCE = bytes(range(32))

# NVAT 1.2.2, section 7.1 of its description; what it calls "absent when there are none" is left out here.
COMMON = {"eat_nonce", "measres", "secboot", "dbgstat", "hwmodel", "ueid", "x-nvidia-device-type",
          "x-nvidia-mismatch-measurement-records"}  # fmt: skip
REPORT = {"arch-check", "attestation-report-cert-chain", "attestation-report-cert-chain-fwid-match",
          "attestation-report-parsed", "attestation-report-nonce-match", "attestation-report-signature-verified"}  # fmt: skip
RIM = {"fetched", "cert-chain", "signature-verified", "version-match", "measurements-available"}
GPU_3 = (
    COMMON
    | {"oemid", "x-nvidia-gpu-claims-version", "x-nvidia-gpu-vbios-index-no-conflict"}
    | {f"x-nvidia-gpu-{name}" for name in REPORT | {"driver-version", "vbios-version"}}
    | {f"x-nvidia-gpu-{role}-rim-{name}" for role in ("driver", "vbios") for name in RIM}
)
# NRAS and the Python SDK say these besides in 3.0; the C++ library does not. Consumers read them, so they are here.
GPU_3_OF_NRAS = {
    "x-nvidia-gpu-driver-rim-schema-validated",
    "x-nvidia-gpu-vbios-rim-schema-validated",
    "x-nvidia-attestation-warning",
}
GPU_4 = GPU_3 | {"x-nvidia-mismatch-opaque-data-records", "x-nvidia-attester-claims"}
SWITCH_3 = (
    COMMON
    | {"x-nvidia-version", "x-nvidia-switch-bios-version"}
    | {f"x-nvidia-switch-{name}" for name in REPORT}
    | {f"x-nvidia-switch-bios-rim-{name}" for name in RIM}
)
SWITCH_3_OF_NRAS = {"x-nvidia-switch-bios-rim-schema-validated", "x-nvidia-attestation-warning"}
CHAIN = {
    "x-nvidia-cert-expiration-date",
    "x-nvidia-cert-status",
    "x-nvidia-cert-ocsp-status",
    "x-nvidia-cert-revocation-reason",
    "x-nvidia-cert-ocsp-nonce-matches",
    "x-nvidia-cert-ocsp-response-valid",
}


def appraise(name: str, *lies: str, policy: EvidencePolicy | None = None, nonce: bytes = NONCE):
    platform = Platform.build(name, lies=lies)
    return Verifier(anchors=platform.trust_anchors(), policy=policy).appraise(
        platform.evidence(NONCE),
        nonce=Nonce(nonce),
        collateral=platform.collateral(),
        at=platform.time,
    )


@pytest.fixture(scope="module")
def hopper():
    return appraise("hopper-8-ppcie")


@pytest.fixture(scope="module")
def blackwell():
    return appraise("blackwell-8-mpt", "vbios-rim:min-svn=1")


@pytest.fixture(scope="module")
def v1(real_data: Path):
    at = VerificationTime.parse("device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z")
    evidence = load_evidence((real_data / "evidence/hopper-550.90.07-nvtrust.json").read_bytes())
    return Verifier().appraise(evidence, nonce=Nonce(evidence[0].nonce), collateral=collateral(real_data), at=at)


def collateral(real_data: Path) -> Collateral:
    return Collateral(
        rims={
            path.stem: RimAnswer(id=path.stem, content=path.read_bytes(), source=Source.BUNDLE)
            for path in (real_data / "rim").iterdir()
        },
        ocsp=tuple(
            OcspAnswer(content=path.read_bytes(), source=Source.BUNDLE) for path in (real_data / "ocsp").iterdir()
        ),
    )


# --- keys --------------------------------------------------------------------------------------------------------------


def test_gpu_claims_3_have_nvidias_keys_and_those_of_its_service(hopper, v1) -> None:
    for appraisal, more in ((hopper, {"x-nvidia-gpu-switch-pdis"}), (v1, set())):
        assert claims_of(appraisal, version="3.0")[0].keys() == GPU_3 | GPU_3_OF_NRAS | more


def test_gpu_claims_4_have_nvidias_keys_and_the_older_names(hopper, v1) -> None:
    for appraisal, more in ((hopper, {"x-nvidia-gpu-switch-pdis"}), (v1, set())):
        claims = claims_of(appraisal, version="4.0")[0]
        assert claims.keys() == GPU_4 | GPU_3_OF_NRAS | more
        assert claims["x-nvidia-gpu-claims-version"] == "4.0"


def test_4_0_is_the_default_and_unknown_versions_are_refused(hopper) -> None:
    assert claims_of(hopper) == claims_of(hopper, version="4.0")
    with pytest.raises(InputError):
        claims_of(hopper, version="5.0")


def test_switch_claims_have_nvidias_keys_under_every_gpu_version(hopper) -> None:
    pdis = {"x-nvidia-switch-pdi", "x-nvidia-switch-gpu-pdis"}
    for version in ("3.0", "4.0"):
        for claims in claims_of(hopper, version=version)[8:]:
            assert claims.keys() == SWITCH_3 | SWITCH_3_OF_NRAS | pdis
            assert claims["x-nvidia-version"] == "3.0"
            assert claims["x-nvidia-device-type"] == "nvswitch"


def test_chain_objects_have_nvidias_six_keys(hopper) -> None:
    for claims in claims_of(hopper):
        for name, value in claims.items():
            if name.endswith("cert-chain"):
                assert value.keys() == CHAIN


# --- values ------------------------------------------------------------------------------------------------------------


def test_claims_of_a_trusted_gpu_say_success(hopper) -> None:
    claims = claims_of(hopper)[0]
    assert (claims["measres"], claims["secboot"], claims["dbgstat"]) == ("success", True, "disabled")
    assert claims["eat_nonce"] == NONCE.hex()
    assert claims["x-nvidia-mismatch-measurement-records"] is None
    assert claims["x-nvidia-attestation-warning"] is None
    assert len(claims["x-nvidia-gpu-switch-pdis"]) == 4
    assert all(value is True for name, value in claims.items() if name.endswith(("-match", "-verified", "-fetched")))


def test_a_mismatch_has_nvidias_record_and_spoils_the_three_results(hopper) -> None:
    claims = claims_of(appraise("hopper-1", "gpu0:measurement=9", "gpu0:measurement-missing=21"))[0]
    assert (claims["measres"], claims["secboot"], claims["dbgstat"]) == ("fail", None, None)
    missing, differs = claims["x-nvidia-mismatch-measurement-records"]
    keys = ["index", "goldenSize", "goldenValue", "runtimeSize", "runtimeValue", "measurementSource"]
    assert list(missing) == keys
    assert (missing["index"], missing["runtimeSize"], missing["runtimeValue"]) == (21, 0, "NA")
    assert (missing["measurementSource"], differs["measurementSource"]) == ("Driver", "Firmware")
    assert (differs["index"], differs["goldenSize"], differs["runtimeSize"]) == (9, 48, 48)
    assert differs["goldenValue"] != differs["runtimeValue"]
    assert len(differs["goldenValue"]) == len(differs["runtimeValue"]) == 96


def test_a_switch_record_is_always_of_the_firmware() -> None:
    claims = claims_of(appraise("hopper-8-ppcie", "switch0:measurement=3"))[8]
    [record] = claims["x-nvidia-mismatch-measurement-records"]
    assert record["measurementSource"] == "Firmware"


def test_a_missed_minimum_svn_fails_the_result_and_not_the_boot_claims(blackwell) -> None:
    good = claims_of(blackwell)[0]
    assert good["x-nvidia-mismatch-opaque-data-records"] is None
    assert good["x-nvidia-attester-claims"]
    bad = claims_of(appraise("blackwell-8-mpt", "vbios-rim:min-svn=9", "gpu0:svn=2"))[0]
    assert (bad["measres"], bad["secboot"], bad["dbgstat"]) == ("fail", True, "disabled")
    [record] = bad["x-nvidia-mismatch-opaque-data-records"]
    assert (record["id"], record["goldenType"], record["goldenValue"], record["runtimeValue"]) == (37, "MIN_SVN", 9, 2)


def test_a_debug_device_is_not_said_to_have_debug_disabled() -> None:
    claims = claims_of(appraise("blackwell-1", "gpu0:debug", policy=EvidencePolicy(allow_debug=True)))[0]
    assert claims["dbgstat"] is None
    assert claims["measres"] == "success"
    assert claims["x-nvidia-attestation-warning"] == "accepted by policy: allow_debug"


CHAIN_WORDS = {
    "gpu0:revoked=1": ("valid", "revoked", "keyCompromise"),
    "gpu0:hold=1": ("valid", "revoked", "certificateHold"),
    "gpu0:unknown=1": ("valid", "unknown", None),
    "gpu0:stale=1": ("valid", "undefined", None),
    "gpu0:ocsp-garbage=1": ("valid", "undefined", None),
    "gpu0:expired=1": ("expired", "good", None),
    "gpu0:chain-signature=1": ("invalid", "undefined", None),
}


@pytest.mark.parametrize("lie", CHAIN_WORDS)
def test_a_chain_is_said_to_be_what_it_is(lie: str) -> None:
    chain = claims_of(appraise("hopper-1", lie))[0]["x-nvidia-gpu-attestation-report-cert-chain"]
    assert (
        chain["x-nvidia-cert-status"],
        chain["x-nvidia-cert-ocsp-status"],
        chain["x-nvidia-cert-revocation-reason"],
    ) == CHAIN_WORDS[lie]


@pytest.mark.parametrize(
    ("lie", "claim"),
    [
        ("gpu0:signature", "attestation-report-signature-verified"),
        ("gpu0:other-nonce", "attestation-report-nonce-match"),
        ("gpu0:fwid", "attestation-report-cert-chain-fwid-match"),
        ("gpu0:truncate=10", "attestation-report-parsed"),
        ("gpu0:chip=GB100", "arch-check"),
        ("driver-rim:missing", "driver-rim-fetched"),
        ("driver-rim:tampered=21", "driver-rim-signature-verified"),
        ("driver-rim:wrong-version", "driver-rim-version-match"),
        ("vbios-rim:wrong-version", "vbios-rim-measurements-available"),
        ("vbios-rim:xml=dtd", "vbios-rim-schema-validated"),
        ("vbios-rim:conflict=21", "vbios-index-no-conflict"),
    ],
)
def test_what_failed_is_false_and_the_result_is_no_success(lie: str, claim: str) -> None:
    claims = claims_of(appraise("hopper-1", lie))[0]
    assert claims[f"x-nvidia-gpu-{claim}"] is False


def test_claims_of_evidence_that_cannot_be_read_exist_and_claim_nothing() -> None:
    claims = claims_of(appraise("hopper-1", "gpu0:chain-format", "gpu0:truncate=4000"))[0]
    assert (claims["measres"], claims["ueid"], claims["hwmodel"]) == ("fail", "", "")
    assert claims["x-nvidia-gpu-attestation-report-cert-chain"] is None
    assert not any(value is True for value in claims.values())


# --- NVIDIA's own claims about the same devices ------------------------------------------------------------------------

# What a token says of itself, and what the service says in claims 3.0 that has another place or form here.
OF_THE_TOKEN = {"iss", "exp", "iat", "nbf", "jti"}


def test_claims_of_v1_equal_those_that_nvidias_service_gave_for_the_same_device(real_data: Path, v1) -> None:
    theirs = json.loads((real_data / "claims/attsdk-hopper-claims-v3-decoded.json").read_bytes())["GPU-0"]
    ours = claims_of(v1, version="3.0")[0]
    # Older NRAS did not write these three: the kind of device, the version, and the list that is null without mismatch.
    assert ours.keys() - theirs.keys() == {
        "x-nvidia-device-type",
        "x-nvidia-gpu-claims-version",
        "x-nvidia-mismatch-measurement-records",
    }
    assert theirs.keys() - ours.keys() == OF_THE_TOKEN
    for name in theirs.keys() - OF_THE_TOKEN:
        said, found = theirs[name], ours[name]
        if name.endswith("cert-chain"):
            # Older NRAS writes four of the six; the other two are read as true where they are absent.
            assert {key: found[key] for key in said} == said, name
        else:
            assert found == said, name


def test_claims_of_the_switch_equal_those_that_nvidias_service_gave_for_the_same_device(real_data: Path) -> None:
    theirs = json.loads((real_data / "claims/attsdk-switch-decoded.json").read_bytes())["SWITCH-0"]
    evidence = load_evidence((real_data / "evidence/ls10-attsdk.json").read_bytes())
    appraisal = Verifier().appraise(
        evidence,
        nonce=Nonce(evidence[0].nonce),
        collateral=collateral(real_data),
        at=VerificationTime.parse("device=2025-08-21T07:00:00Z,rim=2026-11-01T00:00:00Z"),
    )
    [ours] = claims_of(appraisal)
    # Newer: the PDIs and the version; "oemid", always null there, is none of the keys of NVIDIA's C++ library.
    assert ours.keys() - theirs.keys() >= {"x-nvidia-switch-pdi", "x-nvidia-version", "x-nvidia-device-type"}
    assert theirs.keys() - ours.keys() == OF_THE_TOKEN | {"oemid"}
    for name in theirs.keys() - OF_THE_TOKEN - {"oemid"}:
        said, found = theirs[name], ours[name]
        if name.endswith("attestation-report-cert-chain"):
            # The answers for its upper certificates are at hand, that for its own BROM certificate is not.
            assert (found["x-nvidia-cert-status"], found["x-nvidia-cert-ocsp-status"]) == ("valid", "undefined")
            assert found["x-nvidia-cert-expiration-date"] == said["x-nvidia-cert-expiration-date"]
        elif name.endswith("rim-cert-chain"):
            # NVIDIA re-issued the RIM since then, with a signer of 2026 to 2028 instead of 2024 to 2026.
            assert found["x-nvidia-cert-status"] == "valid"
            assert said["x-nvidia-cert-expiration-date"].startswith("2026-05-20")
        else:
            assert found == said, name


def test_claims_of_nvidias_own_library_have_the_keys_of_ours(real_data: Path, hopper) -> None:
    theirs = json.loads((real_data / "claims/dstack-h100-claims-v3.json").read_bytes())["claims"][0]
    ours = claims_of(hopper, version="3.0")[0]
    assert theirs.keys() <= ours.keys()
    assert ours.keys() - theirs.keys() == GPU_3_OF_NRAS | {"x-nvidia-gpu-switch-pdis"}
    for name, value in theirs.items():
        assert type(ours[name]) is type(value), name
        if isinstance(value, dict):
            assert ours[name].keys() == value.keys()


@pytest.mark.parametrize("version", ["2.0", "3.0", "4.0"])
@pytest.mark.parametrize(
    "lie", ["signature", "wrong-key", "tampered=30", "other-root", "chain-signature=0", "xml=truncated", "missing"]
)
def test_a_rim_that_is_not_verified_names_no_manufacturer(version: str, lie: str) -> None:
    silent = "" if version == "2.0" else None
    [refused] = claims_of(
        appraise("hopper-1", f"driver-rim:{lie}", "driver-rim:wrong-manufacturer=9999"), version=version
    )
    assert refused["oemid"] == silent
    [believed] = claims_of(appraise("hopper-1"), version=version)
    assert believed["oemid"] == "5703"
