"""What the judgement of a guest costs beside the signatures that nobody can save, as ratios within one run.

pytest -s -m benchmark tests/benchmarks/bench_guest.py

AMD: three RSA-4096 signatures (ASK, VCEK, revocation list) and the report's, P-384. Intel: one call of the library that
verifies TDX quotes, which is several P-256 signatures and its parsers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nvattest.appraisal.guest import CpuPolicy, DeviceSide, SnpDemands, TcbFloor, TdxDemands
from nvattest.model import parse_time
from nvattest.pki.anchors import CPU_ANCHORS
from nvattest.pki.certificate import parse_certificate
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.tee import tdx
from nvattest.tee.collateral import (
    SnpCollateral,
    TdxCollateral,
    parse_collateral,
    read_crl,
    read_endorsement_key,
    signed_by_amd,
)
from nvattest.tee.guest import Guest
from nvattest.tee.quote import SnpReport, parse_quote
from nvattest.tee.recipes import ExpectedReportData

from .bench_core import best

pytestmark = pytest.mark.benchmark

DEVICES = DeviceSide(trusted=True, number=1, nonce=bytes(32), digest=None, key=None, identities=("1",))


def test_an_snp_report_beside_its_signatures(real_data: Path) -> None:
    folder = real_data / "tee/snp"
    quote, at = (folder / "s3-genoa-v3.report.bin").read_bytes(), parse_time("2026-09-01T00:00:00Z")
    collateral = SnpCollateral()
    for name in ("s3-genoa-v3.vcek.der", "chain-genoa-vcek.pem", "crl-genoa.der"):
        read = parse_collateral((folder / name).read_bytes())
        assert isinstance(read, SnpCollateral)
        collateral += read
    report = parse_quote(quote).body
    assert isinstance(report, SnpReport)
    guest = Guest(
        quote=quote, collateral=collateral, recipe=ExpectedReportData(report_data=report.report_data),
        policy=CpuPolicy(snp=SnpDemands(measurements="any", minimum_tcb={"genoa": TcbFloor()})),
    )  # fmt: skip
    root = CPU_ANCHORS.amd["genoa"].spki_der
    key, crl = (
        read_endorsement_key(collateral.certificates[0]),
        read_crl(collateral.crls[0]),
    )
    issuer = parse_certificate(collateral.certificates[1])
    assert key is not None
    raw = report.signature[:48][::-1] + report.signature[72:120][::-1]

    def signatures() -> None:
        assert signed_by_amd(root, issuer.signature, issuer.tbs)
        assert signed_by_amd(issuer.spki_der, key.signature, key.tbs)
        assert signed_by_amd(root, crl.signature, crl.tbs)
        assert EcdsaVerifier(remember=0).verify_raw(key.spki_der, raw, report.signed)

    def whole() -> None:
        assert guest.appraise(DEVICES, at).trusted

    spent, floor = best(whole, signatures)
    print("\nA guest's SNP report, files read (row s3)")
    print(f"  {'13 checks':62} {spent:8.3f} ms = {spent / floor:5.2f} x its 4 signatures")


def test_a_tdx_quote_beside_its_library(real_data: Path) -> None:
    pytest.importorskip("dcap_qvl")
    folder, at = real_data / "tee/tdx", parse_time("2025-06-20T00:00:00Z")
    quote = parse_quote((folder / "t1-v4-uptodate.quote.bin").read_bytes())
    collateral = parse_collateral((folder / "t1-v4-uptodate.collateral.json").read_bytes())
    assert isinstance(collateral, TdxCollateral)
    guest = Guest(
        quote=quote.data, collateral=collateral, recipe=ExpectedReportData(report_data=quote.report_data),
        policy=CpuPolicy(tdx=TdxDemands(measurements="any", minimum_tcb_evaluation=17)),
    )  # fmt: skip

    def whole() -> None:
        assert guest.appraise(DEVICES, at).trusted

    spent, floor = best(whole, lambda: tdx._verify(quote.data, collateral, CPU_ANCHORS, at))
    print("\nA guest's TDX quote, files read (row t1)")
    print(f"  {'13 checks':62} {spent:8.3f} ms = {spent / floor:5.2f} x the library's call")
