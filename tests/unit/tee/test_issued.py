"""Collateral judged without a quote: real documents hold, and whatever is changed in them does not."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from nvattest.errors import ParseError
from nvattest.pki.anchors import CPU_ANCHORS
from nvattest.tee.collateral import (
    TDX_MEMBERS,
    Issued,
    SnpCollateral,
    Window,
    judge,
    parse_collateral,
    parse_snp_collateral,
    snp_collateral,
    tdx_collateral,
)

AUTUMN = datetime(2026, 9, 1, tzinfo=timezone.utc)


@pytest.fixture
def tee(real_data: Path) -> Path:
    return real_data / "tee"


def test_every_real_document_of_intels_is_issued(tee: Path) -> None:
    documents = sorted(tee.glob("*/*.collateral.json"))
    assert len(documents) == 8
    for path in documents:
        issued = judge(parse_collateral(path.read_bytes()), CPU_ANCHORS)
        assert issued.problem == "", path
        assert issued.until is not None
        assert issued.current(issued.until) == ""
        assert "is good from" in issued.current(issued.until + timedelta(seconds=1))


@pytest.mark.parametrize("member", TDX_MEMBERS)
def test_intels_document_is_not_issued_once_a_member_is_changed(tee: Path, member: str) -> None:
    document = json.loads((tee / "tdx/t1-v4-uptodate.collateral.json").read_bytes())
    text = document[member]
    # Across the whole member; a digit for a digit, so that most of the changes can still be read.
    for place in range(0, len(text), max(1, len(text) // 40)):
        other = {"0": "1", "a": "b", "A": "B"}.get(text[place], "0")
        changed = {**document, member: text[:place] + other + text[place + 1 :]}
        try:
            issued = judge(tdx_collateral(changed), CPU_ANCHORS)
        except ParseError:
            continue
        # Chains have a line of PEM around the certificates, which says nothing.
        same = member.endswith("_chain") and "".join(changed[member].split()) == "".join(text.split())
        assert bool(issued.problem) != same, (place, text[place])


def test_a_text_with_the_signature_of_another_issue_is_not_issued(tee: Path) -> None:
    older, newer = (
        json.loads((tee / f"tdx/{name}.collateral.json").read_bytes())
        for name in ("t1-v4-uptodate", "t2-v5-td15ex-uptodate")
    )
    mixed = {**newer, "tcb_info": older["tcb_info"]}
    assert judge(tdx_collateral(mixed), CPU_ANCHORS).problem.startswith("tcb_info is not signed by")
    # Whole parts of two issues are both Intel's.
    whole = {**mixed, "tcb_info_signature": older["tcb_info_signature"]}
    assert judge(tdx_collateral(whole), CPU_ANCHORS).problem == ""


@pytest.mark.parametrize(
    ("key", "chain", "crl", "problem"),
    [
        ("s1-milan-v2.vcek.der", "chain-milan-vcek.pem", "crl-milan.der", ""),
        ("s3-genoa-v3.vcek.der", "chain-genoa-vcek.pem", "crl-genoa.der", ""),
        ("s2-milan-v3-vlek.vlek.der", "chain-milan-vlek.pem", "crl-milan.der", ""),
        ("turin-vcek-only.der", "chain-turin-vcek.pem", "", ""),
        ("s1-milan-v2.vcek.der", "chain-milan-vlek.pem", "crl-milan.der", "no certificate of the issuer of the VCEK"),
        ("s1-milan-v2.vcek.der", "chain-milan-vcek.pem", "crl-genoa.der", "of no root that issued a certificate here"),
        ("n2-vcek-not-amd-legacy.der", "chain-milan-vcek.pem", "crl-milan.der", "is not signed by SEV-Milan"),
        ("", "chain-milan-vcek.pem", "crl-milan.der", "there is no VCEK and no VLEK"),
    ],
)
def test_amds_certificates_and_lists_are_issued_together(tee: Path, key, chain, crl, problem) -> None:
    parts = [(tee / "snp" / name).read_bytes() for name in (key, crl) if name]
    collateral = snp_collateral(parts) + parse_snp_collateral((tee / "snp" / chain).read_bytes())
    issued = judge(collateral, CPU_ANCHORS)
    assert problem in issued.problem
    assert bool(issued.problem) == bool(problem)


def test_amds_list_is_not_issued_once_a_bit_is_changed(tee: Path) -> None:
    crl = (tee / "snp/crl-milan.der").read_bytes()
    key = snp_collateral([(tee / "snp/s1-milan-v2.vcek.der").read_bytes()])
    chain = parse_snp_collateral((tee / "snp/chain-milan-vcek.pem").read_bytes())
    for place in range(0, len(crl), 7):
        changed = bytearray(crl)
        changed[place] ^= 1
        issued = judge(key + chain + SnpCollateral(crls=(bytes(changed),)), CPU_ANCHORS)
        assert issued.problem, place


def test_a_part_that_names_no_end_is_never_current() -> None:
    window = Window("a list", AUTUMN, None)
    assert not window.holds(AUTUMN)
    assert not window.holds(AUTUMN + timedelta(days=1))
    assert str(window) == "2026-09-01T00:00:00Z to no end"
    issued = Issued(about="", windows=(Window("one", AUTUMN, AUTUMN), window), problem="")
    assert issued.current(AUTUMN) == "a list names no end"
    assert issued.until == AUTUMN
