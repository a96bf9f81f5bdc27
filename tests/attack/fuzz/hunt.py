"""Coverage-guided fuzzing of every parser and of the whole verification, with seeds from the simulated platform.

    python tests/attack/fuzz/hunt.py TARGET [-runs=N] [-max_total_time=S] [libFuzzer options] [CORPUS FOLDER]
    python tests/attack/fuzz/hunt.py --list

The rule for every input: the documented error or an answer, nothing else; an answer is "trusted" only for evidence whose
signed bytes are untouched; and no input takes more than 250 ms per 64 KB. libFuzzer keeps what it finds in a folder that
it is given; none is kept in the tree, since the seeds are made anew from the simulation. ``campaign.py`` runs them all.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["nvattest"], enable_loader_override=False):
    from nvattest._registry import OID_DICE_TCB_INFO
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import load_bundle
    from nvattest.errors import InputError, NvattestError, ParseError, TokenError
    from nvattest.evidence import Evidence, load_evidence
    from nvattest.guest.config import parse_config
    from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime
    from nvattest.pki.certificate import Certificate, parse_certificate, parse_pem_chain
    from nvattest.pki.chain import ChainProfile, validate_chain
    from nvattest.pki.dice import chip_of_chain, parse_tcb_info, pdi_of_chain, read_fwid
    from nvattest.pki.ecdsa import EcdsaVerifier
    from nvattest.pki.ocsp import RevocationStatus, check_revocation, parse_ocsp_response
    from nvattest.policy.cpu_policy import load_cpu_policy
    from nvattest.policy.evidence_policy import load_evidence_policy
    from nvattest.policy.relying_party import load_json_policy
    from nvattest.rim.document import parse_rim
    from nvattest.rim.ids import rim_ids
    from nvattest.rim.verify import verify_rim
    from nvattest.session import verify_token
    from nvattest.spdm.opaque import parse_opaque
    from nvattest.spdm.report import feature_mode, parse_report
    from nvattest.tee.collateral import SnpCollateral, TdxCollateral, parse_collateral, read_auxiliary
    from nvattest.tee.guest import Guest
    from nvattest.tee.recipes import ExpectedReportData
    from nvattest.token.claims import claims_of, sign_detached_eat
    from nvattest.token.ear import sign_ear
    from nvattest.token.jose import SigningKey, parse_jwks

import contextlib
import itertools

from cryptography.hazmat.primitives.asymmetric import ec

from nvattest.appraisal.guest import CpuPolicy, DeviceSide, SnpDemands, TcbFloor, TdxDemands
from nvattest.testing import DEFAULT_NONCE, Platform
from nvattest.testing.cpu import SimulatedGuest

SECONDS_PER_64K = 0.25
Target = Callable[[bytes], object]

_hopper = Platform.build("hopper-1")
_blackwell = Platform.build("blackwell-8-mpt")
_ppcie = Platform.build("hopper-8-ppcie")
_nonce = Nonce(DEFAULT_NONCE)
_collateral = _hopper.collateral()
_verifier = Verifier(anchors=_hopper.trust_anchors())
_ecdsa = EcdsaVerifier()
_honest = _hopper.gpus[0].report(DEFAULT_NONCE)
_chain = _hopper.gpus[0].chain_pem
_certificates = parse_pem_chain(_chain)


# --- one format each --------------------------------------------------------------------------------------------------


def _report(kind: DeviceKind) -> Target:
    def run(data: bytes) -> object:
        report = parse_report(data, kind)
        assert report.raw == data
        assert data == report.signed + report.signature + report.trailing, "a byte that nobody accounts for"
        assert len(report.signature) == 96, "half a signature"
        assert len(report.measurements) == len(report.response.blocks), "a block twice"
        with contextlib.suppress(ParseError):
            rim_ids(report, Architecture.HOPPER if kind is DeviceKind.GPU else Architecture.LS10)
        return feature_mode(report) if kind is DeviceKind.GPU else report

    return run


def _everything_about(certificate: Certificate) -> None:
    """What is read from a certificate only when it is wanted."""
    for value in (
        certificate.subject, certificate.issuer, certificate.common_name, certificate.subject_serial, certificate.label,
        certificate.signature_algorithm_oid, certificate.ocsp_signing, certificate.key_bits,
        certificate.ocsp_urls, certificate.device_info, repr(certificate),
    ):  # fmt: skip
        assert value is None or value == value  # noqa: PLR0124 - reading it is the test
    for architecture in Architecture:
        with contextlib.suppress(ParseError):
            read_fwid(certificate, architecture)


def _certificate(data: bytes) -> object:
    certificate = parse_certificate(data)
    assert certificate.der == data
    _everything_about(certificate)
    return certificate


def _pem(data: bytes) -> object:
    certificates = parse_pem_chain(data)
    chip_of_chain(certificates), pdi_of_chain(certificates)
    for certificate in certificates:
        _everything_about(certificate)
    return validate_chain(
        certificates, _verifier.anchors.device, profile=ChainProfile.DEVICE, at=_hopper.clock, verifier=_ecdsa
    )


# --- signed things: good only if what was signed is untouched ---------------------------------------------------------


def _ocsp_seeds() -> list[bytes]:
    revoked = Platform.build("hopper-1", lies=["gpu0:revoked=1", "gpu0:hold=2", "gpu0:ocsp-status=3,tryLater"])
    return [*_hopper.ocsp_answers().values(), *revoked.ocsp_answers().values()]


_genuine_tbs = {parse_ocsp_response(answer).tbs for answer in _hopper.ocsp_answers().values()}


def _ocsp(data: bytes) -> object:
    response = parse_ocsp_response(data)
    for certificate, issuer in itertools.pairwise(_certificates):
        judged = check_revocation(
            response, certificate=certificate, issuer=issuer, at=_hopper.clock, nonce=None, verifier=_ecdsa
        )
        assert judged.status is not RevocationStatus.GOOD or response.tbs in _genuine_tbs, "an altered answer is good"
    return response


# One seed, one set of keys: the RIMs of both nodes are signed under one root.
_genuine_rims = {xml: parse_rim(xml) for node in (_hopper, _blackwell) for xml in node.rims().values()}


def _rim(data: bytes) -> object:
    document = parse_rim(data)
    verified = verify_rim(document, anchors=_verifier.anchors.rim, at=_hopper.clock, verifier=_ecdsa).verified
    if verified is not None:
        own = verified.document
        said = (own.version, own.product, own.edition, verified.golden, own.min_svn)
        made = [(g.version, g.product, g.edition, {v.index: v for v in g.golden}, g.min_svn)
                for g in _genuine_rims.values()]  # fmt: skip
        assert any(
            said[:3] == genuine[:3] and dict(said[3]) == genuine[3] and said[4] == genuine[4] for genuine in made
        ), "an altered RIM is verified"
    return document


_key = SigningKey(ec.derive_private_key(0x5EED, ec.SECP384R1()))
_jwks = _key.public.jwks()


def _tokens() -> list[bytes]:
    appraisal = _verifier.appraise(
        _hopper.evidence(DEFAULT_NONCE), nonce=_nonce, collateral=_collateral,
        at=_hopper.time,
    )  # fmt: skip
    assert appraisal.trusted
    ids = iter(range(1000))
    arguments: dict[str, Any] = {"claims": claims_of(appraisal), "key": _key, "now": _hopper.clock}
    arguments["new_id"] = lambda: f"00000000-0000-4000-8000-{next(ids):012d}"
    eat = sign_detached_eat(appraisal, claims_version="4.0", **arguments)
    return [json.dumps(eat).encode(), sign_ear(appraisal, **arguments).encode(), b"e30.e30.AA"]


_signed_tokens = _tokens()


def _payloads(data: bytes) -> set[str]:
    """The signed parts, header and payload, of the compact tokens in this text."""
    text = data.decode().strip()
    if not text.startswith("["):
        return {text.rpartition(".")[0]}
    overall, devices = json.loads(text)
    return {token.rpartition(".")[0] for token in (overall[1], *devices.values())}


def _token(data: bytes) -> object:
    token = verify_token(
        data, jwks=_jwks, issuer=None, nonce=_nonce, at=_hopper.clock + timedelta(minutes=1), accept_simulated=True
    )
    assert _payloads(data) in [_payloads(genuine) for genuine in _signed_tokens[:2]], "an altered token is believed"
    return token


def _jwks_target(data: bytes) -> object:
    keys = parse_jwks(data)
    try:
        verify_token(
            _signed_tokens[1], jwks=keys and data, issuer=None, nonce=_nonce, at=_hopper.clock, accept_simulated=True
        )
    except TokenError:
        return keys
    assert _jwks["keys"][0]["x"].encode() in data, "a token is believed with another key"  # type: ignore[index]
    return keys


# --- the whole verification -------------------------------------------------------------------------------------------


def _judge(report: bytes, chain: bytes) -> bool:
    evidence = Evidence(architecture=Architecture.HOPPER, nonce=None, report=report, certificate_chain=chain)
    return _verifier.appraise([evidence], nonce=_nonce, collateral=_collateral, at=_hopper.time).trusted


def _whole(data: bytes) -> object:
    """The report is the input; the chain and the collateral are honest."""
    trusted = _judge(data, _chain)
    assert not trusted or data.startswith(_honest), "an altered report is trusted"
    return trusted


def _whole_chain(data: bytes) -> object:
    trusted = _judge(_honest, data)
    if trusted:
        assert [c.der for c in parse_pem_chain(data)] == [c.der for c in _certificates], "another chain is trusted"
    return trusted


def _whole_evidence(data: bytes) -> object:
    evidence = load_evidence(data)
    appraisal = _verifier.appraise(evidence, nonce=_nonce, collateral=_collateral, at=_hopper.time)
    assert not appraisal.trusted or evidence[0].report.startswith(_honest), "altered evidence is trusted"
    assert appraisal.trusted or appraisal.failures, "not trusted without a reason"
    return appraisal.result_code


def _whole_bundle(data: bytes) -> object:
    collateral = load_bundle(data)
    evidence = Evidence(architecture=Architecture.HOPPER, nonce=None, report=_honest, certificate_chain=_chain)
    appraisal = _verifier.appraise([evidence], nonce=_nonce, collateral=collateral, at=_hopper.time)
    if appraisal.trusted:
        for rim in appraisal.devices[0].rims.values():
            assert rim.document in _genuine_rims.values(), "another RIM is trusted"
    return appraisal.result_code


# --- seeds ------------------------------------------------------------------------------------------------------------


def _seeds_of_reports(devices: Iterable[object]) -> list[bytes]:
    """Whole reports, and each with its last bytes cut off, which libFuzzer rarely does by itself."""
    reports: list[bytes] = [device.report(DEFAULT_NONCE) for device in devices]  # type: ignore[attr-defined]
    return [report[: len(report) - cut] for report in reports for cut in (0, 1, 96, 97)]


def _opaques() -> list[bytes]:
    reports = [device.report(DEFAULT_NONCE) for device in (_hopper.gpus[0], _blackwell.gpus[0], _ppcie.gpus[0])]
    return [parse_report(report, DeviceKind.GPU).response.opaque for report in reports]


def _evidence_seeds() -> list[bytes]:
    array = json.loads(_hopper.evidence_json(None, DEFAULT_NONCE))
    forms = [array, {"evidences": array}, {"device_evidence_list": [{**array[0], "uuid": "GPU-1"}]}]
    item = {"evidence": "QQ==", "certificate": "QQ=="}
    forms.append({"nonce": "00" * 32, "arch": "HOPPER", "evidence_list": [item, item]})
    forms.append([{"arch": "LS10", **item}])
    return [json.dumps(form).encode() for form in forms]


def _tcb_infos() -> list[bytes]:
    leaf = parse_certificate(_blackwell.gpus[0].certificates[0].der)
    return [leaf.extension(OID_DICE_TCB_INFO) or b"", bytes.fromhex("3000"), bytes.fromhex("3006800130810131")]


_EVIDENCE_POLICIES = [
    b'minimum_driver_version = "550.1"\nallowed_modes = ["spt", "ppcie"]\naccept_stale_ocsp = true\n',
    b'{"revocation": "fresh", "expected_gpus": 8, "denied_vbios_versions": ["96.00.9F.00.01"], "version": 1}',
]
_JSON_POLICIES = [
    b'{"version":"4.0","authorization-rules":{"type":"JWT","overall-claims":{"a":1},"detached-claims":{"b":true}}}',
    (
        b'{"version":"3.0","authorization-rules":{"type":"JWT","overall-claims":{"a":{"b":[1,"x",null]}},'
        b'"detached-claims":{"b":{"c":{"d":1.5}}}}}'
    ),
]
_HOOK_CONFIGS = [b'[attest]\nmode = "local"\n', b'{"version": 1}', b""]

# --- the guest --------------------------------------------------------------------------------------------------------

_CPUS = {kind: SimulatedGuest(kind) for kind in ("tdx", "snp-genoa", "snp-turin")}
_QUOTES = {kind: cpu.quote(bytes(64)) for kind, cpu in _CPUS.items()}
_FLOORS = {"genoa": TcbFloor(), "turin": TcbFloor()}
_CPU_POLICY = CpuPolicy(tdx=TdxDemands(measurements="any"), snp=SnpDemands(measurements="any", minimum_tcb=_FLOORS))
_DEVICES = DeviceSide(trusted=True, number=1, nonce=bytes(32), digest=None, key=None, identities=("1",))


def _quote(kind: str) -> Target:
    cpu = _CPUS[kind]

    def run(data: bytes) -> object:
        guest = Guest(
            quote=data, policy=_CPU_POLICY, recipe=ExpectedReportData(report_data=bytes(64)),
            collateral=cpu.collateral(), anchors=cpu.anchors(),
        )  # fmt: skip
        appraisal = guest.appraise(_DEVICES, cpu.clock)
        honest = data.rstrip(b"\0") == _QUOTES[kind].rstrip(b"\0")
        assert honest or not appraisal.trusted or kind == "tdx", "a report that no chip has signed is trusted"
        assert appraisal.sentence
        return appraisal

    return run


def _collateral_file(data: bytes) -> object:
    read = parse_collateral(data)
    kind = "tdx" if isinstance(read, TdxCollateral) else "snp-genoa"
    cpu = _CPUS[kind]
    guest = Guest(
        quote=_QUOTES[kind], policy=_CPU_POLICY, recipe=ExpectedReportData(report_data=bytes(64)), collateral=read,
        anchors=cpu.anchors(),
    )  # fmt: skip
    return guest.appraise(_DEVICES, cpu.clock).sentence


def _collateral_seeds() -> list[bytes]:
    intel, amd = _CPUS["tdx"].collateral(), _CPUS["snp-genoa"].collateral()
    assert isinstance(intel, TdxCollateral)
    assert isinstance(amd, SnpCollateral)
    return [intel.text.encode(), *amd.certificates, *amd.crls]


_CPU_POLICIES = [
    b'[tdx]\nmrtd = ["' + b"0" * 96 + b'"]\ntcb_status = ["UpToDate"]\nminimum_tcb_date = 2025-05-14\n',
    b'[snp]\nmeasurements = "any"\nminimum_abi = "1.51"\n[snp.minimum_tcb.genoa]\nsnp = 23\n',
    b'{"kinds": ["tdx"], "tdx": {"measurements": "any", "advisories_allowed": ["INTEL-SA-01036"]}}',
]

TARGETS: dict[str, tuple[Target, tuple[type[NvattestError], ...], Callable[[], list[bytes]]]] = {
    "spdm-gpu": (
        _report(DeviceKind.GPU),
        (ParseError,),
        lambda: _seeds_of_reports([*_hopper.gpus, _blackwell.gpus[0], _ppcie.gpus[0]]),
    ),
    "spdm-switch": (_report(DeviceKind.NVSWITCH), (ParseError,), lambda: _seeds_of_reports(_ppcie.switches[:1])),
    "opaque": (parse_opaque, (ParseError,), _opaques),
    "evidence": (load_evidence, (ParseError,), _evidence_seeds),
    "pem": (_pem, (ParseError,), lambda: [_chain, _blackwell.gpus[0].chain_pem, _ppcie.switches[0].chain_pem]),
    "certificate": (
        _certificate,
        (ParseError,),
        lambda: [c.der for d in (_hopper.gpus[0], _blackwell.gpus[0], _ppcie.switches[0]) for c in d.certificates],
    ),
    "dice": (
        parse_tcb_info,
        (ParseError,),
        _tcb_infos,
    ),
    "ocsp": (_ocsp, (ParseError,), _ocsp_seeds),
    "rim": (_rim, (ParseError,), lambda: [*_hopper.rims().values(), *_blackwell.rims().values()]),
    "bundle": (
        load_bundle,
        (ParseError,),
        lambda: [json.dumps(_hopper.bundle()).encode(), b'{"format": "nvattest-bundle", "version": 1}'],
    ),
    "policy": (lambda data: load_evidence_policy(data, source="fuzz"), (NvattestError,), lambda: _EVIDENCE_POLICIES),
    "json-policy": (lambda data: load_json_policy(data, name="fuzz"), (NvattestError,), lambda: _JSON_POLICIES),
    "hook-config": (parse_config, (InputError,), lambda: _HOOK_CONFIGS),
    "token": (_token, (TokenError,), lambda: _signed_tokens),
    "jwks": (_jwks_target, (ParseError,), lambda: [json.dumps(_jwks).encode()]),
    "cpu-policy": (lambda data: load_cpu_policy(data, source="fuzz"), (NvattestError,), lambda: _CPU_POLICIES),
    "cpu-collateral": (_collateral_file, (ParseError,), _collateral_seeds),
    "certificate-table": (
        read_auxiliary,
        (ParseError,),
        lambda: [_CPUS[kind].auxiliary or b"" for kind in ("snp-genoa", "snp-turin")],
    ),
    "quote-tdx": (_quote("tdx"), (), lambda: [_QUOTES["tdx"]]),
    "quote-snp": (_quote("snp-genoa"), (), lambda: [_QUOTES["snp-genoa"]]),
    "verification": (_whole, (), lambda: [_honest]),
    "verification-chain": (_whole_chain, (), lambda: [_chain]),
    "verification-evidence": (
        _whole_evidence,
        (ParseError,),
        lambda: [_hopper.evidence_json(None, DEFAULT_NONCE).encode()],
    ),
    "verification-bundle": (_whole_bundle, (ParseError,), lambda: [json.dumps(_hopper.bundle()).encode()]),
}
_ = (VerificationTime,)


def hunt(name: str) -> None:
    """Fuzz one target until libFuzzer's limits end it."""
    target, documented, seeds = TARGETS[name]

    def one(data: bytes) -> None:
        start = time.perf_counter()
        with contextlib.suppress(documented):
            target(data)
        took = time.perf_counter() - start
        limit = SECONDS_PER_64K * max(1.0, len(data) / 65536)
        # A loaded machine may interrupt one run; only an input that is slow each time is slow.
        for _ in range(3):
            if took <= limit:
                return
            start = time.process_time()
            with contextlib.suppress(documented):
                target(data)
            took = time.process_time() - start
        raise AssertionError(f"{took:.3f} s for {len(data)} bytes")

    with tempfile.TemporaryDirectory(prefix="nvattest-fuzz-") as folder:
        given = seeds()
        for number, seed in enumerate(given):
            Path(folder, f"seed-{number}").write_bytes(seed)
        longest = max(65536, 2 * max(map(len, given)))
        options = [f"-max_len={longest}", "-rss_limit_mb=2048", "-print_final_stats=1"]
        arguments = sys.argv[2:]
        # libFuzzer writes what it finds into the first folder that it is given.
        flags = [item for item in arguments if item.startswith("-")]
        folders = [item for item in arguments if not item.startswith("-")]
        for path in folders:
            os.makedirs(path, exist_ok=True)
        atheris.Setup([sys.argv[0], *options, *flags, *folders, folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        print("targets:", *TARGETS)
        sys.exit(0 if "--list" in sys.argv else 2)
    hunt(sys.argv[1])
