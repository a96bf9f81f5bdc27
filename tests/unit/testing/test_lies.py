"""Every lie can be told by its spelling, changes what a verifier sees, and names the check that has to see it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from nvattest.errors import InputError
from nvattest.model import DeviceKind
from nvattest.testing import GUEST_LIES, LIES, Lie, Platform, parse_fault

from .shapes import blocks_of, legacy_fields, opaque_of, pem_ders, versioned_fields
from .spellings import EXAMPLES, platform_for

NONCE = bytes(range(32))


def requests_for(node: Platform) -> list[bytes]:
    """Requests with a nonce about the BROM of the first GPU and about the L3 signer of RIMs."""
    chain = pem_ders(node.gpus[0].chain_pem)
    text = re.findall(rb"<ds:X509Certificate>([^<]*)<", next(iter(node.rims().values())))
    pairs = [(chain[1], chain[2]), (base64.b64decode(text[1]), base64.b64decode(text[2]))]
    out = []
    for pair in pairs:
        subject, issuer = (x509.load_der_x509_certificate(der) for der in pair)
        request = ocsp.OCSPRequestBuilder().add_certificate(subject, issuer, hashes.SHA384())
        nonced = request.add_extension(x509.OCSPNonce(b"n" * 32), critical=False).build()
        out.append(nonced.public_bytes(Encoding.DER))
    return out


def fingerprint(node: Platform, requests: list[bytes]) -> list[object]:
    """Everything that a verifier can see of a node."""
    hints = [(d.driver_version, d.vbios_version, d.uuid) for d in node.devices]
    answers = [node.ocsp(request) for request in requests]
    return [
        node.evidence_json(None, NONCE),
        hints,
        node.rims(),
        list(node.ocsp_answers().values()),
        answers,
        node.driver_state,
    ]


@pytest.fixture(scope="module")
def honest() -> dict[str, tuple[list[bytes], list[object]]]:
    out = {}
    for name in ("hopper-1", "hopper-8-ppcie", "blackwell-2"):
        node = Platform.build(name)
        requests = requests_for(node)
        out[name] = (requests, fingerprint(node, requests))
    return out


@pytest.mark.parametrize("spelling", EXAMPLES.values())
def test_every_lie_changes_what_a_verifier_sees(
    honest: dict[str, tuple[list[bytes], list[object]]], spelling: str
) -> None:
    name = platform_for(spelling)
    requests, expected = honest[name]
    assert fingerprint(Platform.build(name, lies=[spelling]), requests) != expected
    assert str(parse_fault(spelling)) == spelling


def test_a_lie_says_whether_its_argument_may_be_left_out() -> None:
    assert {spec.name for spec in LIES if spec.optional} >= {"fwid", "debug", "topology", "signature"}
    assert all(spec.accepts(None) for spec in (*LIES, *GUEST_LIES) if spec.optional)
    assert not any(spec.accepts(None) for spec in (*LIES, *GUEST_LIES) if spec.argument and not spec.optional)


def test_every_check_that_a_lie_names_is_in_the_catalogue() -> None:
    catalogue = pytest.importorskip("nvattest.appraisal.check")
    named = {parse_fault(text).check for text in EXAMPLES.values()} - {""}
    assert named <= set(catalogue.CHECKS)
    assert {parse_fault("vbios-rim:expired=0").check, parse_fault("rim*:missing").check} <= set(catalogue.CHECKS)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "fault"),
        ("gpu0", "fault"),
        ("gpu:fwid", "fault-target"),
        ("cpu0:fwid", "fault-target"),
        ("gpu0:nonsense", "fault-name"),
        ("driver-rim:fwid", "fault-name"),
        ("platform:fwid", "fault-name"),
        ("gpu0:measurement", "fault-argument"),
        ("gpu0:measurement=x", "fault-argument"),
        ("gpu0:measurement=1,zz", "fault-argument"),
        ("gpu0:missing=1", "fault-argument"),
        ("gpu0:revoked=9", "fault-argument"),
        ("gpu0:chain-of=cpu1", "fault-argument"),
    ],
)
def test_a_spelling_that_means_nothing_is_refused_with_a_hint(text: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_fault(text)
    assert caught.value.code == code
    assert caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_a_lie_or_an_input_error(text: str) -> None:
    try:
        lie = parse_fault(text)
    except InputError:
        return
    assert parse_fault(str(lie)) == lie


@pytest.mark.parametrize(
    "lie",
    [
        "gpu1:fwid",
        "switch0:missing",
        "bios-rim:missing",
        "gpu0:revoked=0",
        "gpu0:revoked=4",
        "driver-rim:hold=3",
        "gpu0:duplicate=gpu9",
        "gpu0:chain-of=switch0",
        "gpu0:feature=nothing",
        "gpu0:feature=7",  # a report of this driver has no entry that could show it
        "gpu0:feature=mpt",
        "gpu0:nvdec0=zz",
        "gpu0:firmware-version=x",
    ],
)
def test_a_lie_that_this_platform_cannot_tell_is_refused(lie: str) -> None:
    with pytest.raises(InputError):
        Platform.build("hopper-1", lies=[lie])


@pytest.mark.parametrize(
    "name", ["", "hopper", "hopper-0", "hopper-17", "ampere-1", "blackwell-8-ppcie", "hopper-4-ppcie"]
)
def test_a_platform_that_cannot_be_built_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        Platform.build(name)
    assert caught.value.code == "platform"


def test_a_measurement_lie_is_signed_and_differs_at_its_index_alone() -> None:
    honest = dict(blocks_of(Platform.build().gpus[0].report(NONCE)))
    lying = dict(blocks_of(Platform.build(lies=["gpu0:measurement=9"]).gpus[0].report(NONCE)))
    assert {index for index in honest if honest[index] != lying[index]} == {10}
    given_value = dict(blocks_of(Platform.build(lies=[Lie("gpu0", "measurement", "9,abcd")]).gpus[0].report(NONCE)))
    assert given_value[10] == b"\xab\xcd"


def test_field_lies_replace_drop_repeat_and_add() -> None:
    def fields(lie: str) -> list[tuple[int, bytes]]:
        return legacy_fields(opaque_of(Platform.build(lies=[lie]).gpus[0].report(NONCE)))

    assert dict(fields("gpu0:field=17,41424344"))[17] == b"ABCD"
    assert 20 not in dict(fields("gpu0:field-missing=20"))
    assert [kind for kind, _ in fields("gpu0:field-duplicate=20")].count(20) == 2
    assert dict(fields("gpu0:field=200,01"))[200] == b"\x01"
    assert dict(fields("gpu0:driver-version=1.2"))[3] == b"1.2\x00"
    assert dict(fields("gpu0:opaque-version=3"))[34] == b"\x03\x00"


def test_the_security_version_is_what_it_is_told() -> None:
    report = Platform.build("blackwell-8-mpt", lies=["gpu3:svn=1"]).gpus[3].report(NONCE)
    assert [data for kind, _, data in versioned_fields(opaque_of(report)) if kind == 37] == [b"\x01\x00"]


def test_what_happens_on_the_way_happens_after_signing() -> None:
    honest = Platform.build().gpus[0].report(NONCE)
    for lie, expected in [
        ("gpu0:truncate=5", honest[:-5]),
        ("gpu0:trailing=0102", honest + b"\x01\x02"),
        ("gpu0:signature=1", honest[:-95] + bytes((honest[-95] ^ 1,)) + honest[-94:]),
        ("gpu0:signature-zero", honest[:-96] + bytes(96)),
        ("gpu0:tamper=50", honest[:50] + bytes((honest[50] ^ 1,)) + honest[51:]),
    ]:
        assert Platform.build(lies=[lie]).gpus[0].report(NONCE) == expected


def test_duplicates_chains_of_others_and_missing_devices() -> None:
    name = "hopper-8-ppcie"
    honest = Platform.build(name).evidence(NONCE)
    twice = Platform.build(name, lies=["gpu1:duplicate=gpu0"]).evidence(NONCE)
    assert twice[1] == twice[0] == honest[0]
    crossed = Platform.build(name, lies=["gpu1:chain-of=gpu0"]).evidence(NONCE)
    assert (crossed[1].report, crossed[1].certificate_chain) == (honest[1].report, honest[0].certificate_chain)
    assert Platform.build(name, lies=["gpu3:missing", "switch*:missing"]).evidence(NONCE) == honest[:3] + honest[4:8]


@pytest.mark.parametrize("position", range(4))
def test_a_lie_about_one_certificate_leaves_the_others_as_they_are(position: int) -> None:
    honest = pem_ders(Platform.build().gpus[0].chain_pem)
    names = ("expired", "not-yet-valid", "key-usage", "critical", "algorithm", "chain-signature")
    for name in (*names, "not-a-ca") if position else names:
        lying = pem_ders(Platform.build(lies=[f"gpu0:{name}={position}"]).gpus[0].chain_pem)
        assert [at for at in range(5) if honest[at] != lying[at]] == [position]
        loaded = [x509.load_der_x509_certificate(der) for der in lying]
        if name not in ("chain-signature", "algorithm"):
            loaded[position].verify_directly_issued_by(loaded[position + 1])


@pytest.mark.parametrize(
    "lie",
    [
        "gpu0:expired=5",
        "gpu0:not-a-ca=0",
        "gpu0:chain-swapped=4",
        "gpu0:revoked=0",
        "driver-rim:expired=4",
        "driver-rim:revoked=3",
        "driver-rim:tampered=63",
        "rim*:tampered=64",
        "gpu0:measurement=64",
        "gpu0:measurement-missing=64",
        "gpu0:measurement-duplicate=64",
        "gpu0:field=200",
        "gpu0:field-missing=200",
        "gpu0:field-duplicate=200",
        "gpu0:chain-of=gpu0",
        "gpu0:duplicate=gpu0",
    ],
)
def test_a_lie_that_would_change_nothing_is_refused(lie: str) -> None:
    with pytest.raises(InputError) as caught:
        Platform.build(lies=[lie])
    assert caught.value.code == "fault-argument"
    assert caught.value.hint


def test_another_root_has_the_right_name_and_the_wrong_key() -> None:
    node = Platform.build(lies=["gpu0:other-root"])
    chain = [x509.load_der_x509_certificate(der) for der in pem_ders(node.gpus[0].chain_pem)]
    anchor = x509.load_der_x509_certificate(pem_ders(node.anchors_pem)[0])
    assert chain[-1].subject == anchor.subject
    assert chain[-1].public_key() != anchor.public_key()
    for child, parent in zip(chain, [*chain[1:], chain[-1]], strict=True):
        child.verify_directly_issued_by(parent)


def answer_for(lie: str) -> ocsp.OCSPResponse:
    node = Platform.build(lies=[lie])
    return ocsp.load_der_ocsp_response(next(der for name, der in node.ocsp_answers().items() if "BROM" in name))


def test_revocation_lies_say_what_they_are_told() -> None:
    at = Platform.build().at
    assert answer_for("gpu0:revoked=1").revocation_reason is x509.ReasonFlags.key_compromise
    assert answer_for("gpu0:revoked=1,superseded").revocation_reason is x509.ReasonFlags.superseded
    assert answer_for("gpu0:hold=1").revocation_reason is x509.ReasonFlags.certificate_hold
    assert answer_for("gpu0:unknown=1").certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    assert answer_for("gpu0:stale=1").next_update_utc == at - timedelta(hours=1)
    assert answer_for("gpu0:future=1").this_update_utc == at + timedelta(hours=1)
    assert answer_for("gpu0:no-next-update=1").next_update_utc is None
    assert answer_for("gpu0:ocsp-status=1,tryLater").response_status is ocsp.OCSPResponseStatus.TRY_LATER
    assert answer_for("gpu0:ocsp-by-issuer=1").certificates == []
    serial = x509.load_der_x509_certificate(pem_ders(Platform.build().gpus[0].chain_pem)[1]).serial_number
    assert answer_for("gpu0:ocsp-serial=1").serial_number == serial + 1
    expired = answer_for("gpu0:responder-expired=1").certificates[0]
    assert expired.not_valid_after_utc < at
    issuer = x509.load_der_x509_certificate(pem_ders(Platform.build().gpus[0].chain_pem)[2])
    assert answer_for("gpu0:wrong-responder=1").certificates[0].issuer != issuer.subject
    purposes = answer_for("gpu0:responder-purpose=1").certificates[0].extensions
    usage = purposes.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert x509.ExtendedKeyUsageOID.OCSP_SIGNING not in usage


def test_a_revoked_certificate_stays_revoked_when_another_device_shares_it() -> None:
    node = Platform.build("hopper-8-ppcie", lies=["gpu3:revoked=2"])
    answer = next(der for name, der in node.ocsp_answers().items() if "GH100-Provisioner" in name)
    assert ocsp.load_der_ocsp_response(answer).certificate_status is ocsp.OCSPCertStatus.REVOKED


def test_the_driver_tells_the_state_of_the_machine() -> None:
    assert Platform.build("hopper-1").driver_state.cc_feature == 1
    assert Platform.build("hopper-8-ppcie").driver_state.multi_gpu_mode == 1
    assert Platform.build("hopper-1", lies=["platform:debug"]).driver_state.dev_tools == 1
    assert Platform.build("hopper-1", lies=["platform:cc-off"]).driver_state.cc_feature == 0


def test_a_platform_is_written_to_files_that_fit_together(tmp_path: Path) -> None:
    node = Platform.build("hopper-8-ppcie")
    paths = node.write(str(tmp_path), NONCE)
    assert all(Path(path).is_file() for path in paths)
    assert (tmp_path / "gpu-evidence.json").read_text() == node.evidence_json(DeviceKind.GPU, NONCE)
    bundle = json.loads((tmp_path / "bundle.json").read_text())
    assert (bundle["format"], bundle["version"]) == ("nvattest-bundle", 1)
    for item in bundle["rims"]:
        assert (tmp_path / "rims" / f"{item['id']}.xml").read_bytes() == base64.b64decode(item["content"])
    assert len(bundle["ocsp"]) == len(list((tmp_path / "ocsp").iterdir())) == 22
    assert (tmp_path / "anchors.pem").read_bytes() == node.anchors_pem


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, nvattest.testing; nvattest.testing.__dir__();"
        "heavy = {'cryptography', 'lxml', 'requests', 'jwt', 'pynvml'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize("lie", [f"gpu0:chip={'G' * 65}", f"gpu0:leaf-chip={'G' * 100}", f"gpu0:pdi={'41' * 20}"])
def test_a_lie_that_no_certificate_can_tell_is_refused(lie: str) -> None:
    with pytest.raises(InputError) as caught:
        Platform.build("hopper-1", lies=[lie])
    assert caught.value.code == "fault-argument"
