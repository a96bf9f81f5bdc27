"""Quotes and reports that real CPUs signed, and pairs of CPU and GPU of one machine: see tee/INDEX.md.

Every row goes through the library and through the command line. The command line judges a quote beside a token: the
rows that have no devices of their own borrow a token of simulated ones, which says nothing of the quote.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nvattest import Nonce, VerifiedToken, verify_token
from nvattest.appraisal.check import Outcome
from nvattest.appraisal.guest import (
    GENERATIONS,
    CpuPolicy,
    DeviceSide,
    GuestAppraisal,
    SnpDemands,
    Strength,
    TcbFloor,
    TdxDemands,
)
from nvattest.cli import main
from nvattest.errors import ParseError
from nvattest.model import parse_time
from nvattest.pki.certificate import parse_certificate, parse_pem_chain
from nvattest.tee.collateral import (
    CpuCollateral,
    SnpCollateral,
    TdxCollateral,
    parse_collateral,
    parse_tdx_collateral,
    read_endorsement_key,
)
from nvattest.tee.guest import Guest
from nvattest.tee.quote import parse_quote
from nvattest.tee.recipes import AddressNonce, Chutes, ExpectedReportData, Near, Recipe, TinfoilV3
from nvattest.tee.tdx import platform_of

SERVICE = "https://nras.attestation.nvidia.com"
SEPTEMBER = "2026-09-01T00:00:00Z"
ADVISORIES = ("INTEL-SA-01036", "INTEL-SA-01079", "INTEL-SA-01099", "INTEL-SA-01103", "INTEL-SA-01111")
AWS = "CN=cc-us-east-2.amazonaws.com"

TDX_ANY: dict[str, Any] = {"measurements": "any", "minimum_tcb_evaluation": 17}
SNP_ANY: dict[str, Any] = {
    "measurements": "any",
    "maximum_vmpl": 1,
    "endorsement": ("vcek", "vlek"),
    "csp_id": (AWS,),
    "minimum_tcb": {name: TcbFloor() for name in GENERATIONS},
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A quote, its collateral, the instant, what the policy changes, and the checks that fail (none: it is trusted)."""

    quote: str
    collateral: tuple[str, ...]
    at: str
    policy: Mapping[str, Any] = field(default_factory=dict)
    refused_by: tuple[str, ...] = ()
    says: str = ""

    @property
    def tdx(self) -> bool:
        return self.quote.startswith("tdx")


def tdx(name: str, at: str, *, collateral: str = "", **more: Any) -> Row:
    return Row(quote=f"tdx/{name}.quote.bin", collateral=(f"tdx/{collateral or name}.collateral.json",), at=at, **more)


def snp(name: str, leaf: str, chain: str, *, crl: str = "", at: str = SEPTEMBER, **more: Any) -> Row:
    files = (f"snp/{leaf}.der", f"snp/chain-{chain}.pem", *([f"snp/crl-{crl}.der"] if crl else []))
    return Row(quote=f"snp/{name}.report.bin", collateral=files, at=at, **more)


ROWS = {
    "t1": tdx("t1-v4-uptodate", "2025-06-20T00:00:00Z", says="UpToDate"),
    "t1, after its collateral": tdx(
        "t1-v4-uptodate", "2025-08-01T00:00:00Z", refused_by=("quote-collateral",), says="tcb_info is not current"
    ),
    "t2": tdx("t2-v5-td15ex-uptodate", "2026-10-15T00:00:00Z", says="evaluation 20"),
    "t4": tdx("t4-v4-outofdate", "2026-04-24T02:06:30Z", refused_by=("quote-tcb",), says=", ".join(ADVISORIES)),
    "t4, the status alone allowed": tdx(
        "t4-v4-outofdate", "2026-04-24T02:06:30Z", policy={"tcb_status": ("UpToDate", "OutOfDate")},
        refused_by=("quote-tcb",), says="advisories are open",
    ),
    "t4, its advisories alone allowed": tdx(
        "t4-v4-outofdate", "2026-04-24T02:06:30Z", policy={"advisories_allowed": ADVISORIES}, refused_by=("quote-tcb",)
    ),
    "t4, both allowed": tdx(
        "t4-v4-outofdate", "2026-04-24T02:06:30Z", says="OutOfDate",
        policy={"tcb_status": ("UpToDate", "OutOfDate"), "advisories_allowed": ADVISORIES},
    ),
    "t1 under t4's collateral, after its window": tdx(
        "t1-v4-uptodate", "2026-06-01T00:00:00Z", collateral="t4-v4-outofdate", refused_by=("quote-collateral",)
    ),
    "t1 under the default policy": tdx(
        "t1-v4-uptodate", "2025-06-20T00:00:00Z", policy={"minimum_tcb_evaluation": 18}, refused_by=("quote-tcb",)
    ),
    "n1": tdx("n1-v4-debug", "2026-03-20T00:00:00Z", refused_by=("guest-state",), says="debug"),
    "s0": snp("s0-milan-v2-tcb-differs", "s0-milan-v2-tcb-differs.vcek", "milan-vcek", crl="milan"),
    "s1": snp("s1-milan-v2", "s1-milan-v2.vcek", "milan-vcek", crl="milan"),
    "s2": snp(
        "s2-milan-v3-vlek", "s2-milan-v3-vlek.vlek", "milan-vlek", at="2025-06-01T00:00:00Z",
        policy={"crl": "if-present"}, says="microcode 217",
    ),
    "s2, without the list that the policy demands": snp(
        "s2-milan-v3-vlek", "s2-milan-v3-vlek.vlek", "milan-vlek", at="2025-06-01T00:00:00Z",
        refused_by=("quote-revocation",),
    ),
    "s2, after its VLEK": snp(
        "s2-milan-v3-vlek", "s2-milan-v3-vlek.vlek", "milan-vlek", crl="milan", refused_by=("quote-chain",),
        says="VLEK is expired",
    ),
    "s2, of a provider that the policy does not name": snp(
        "s2-milan-v3-vlek", "s2-milan-v3-vlek.vlek", "milan-vlek", at="2025-06-01T00:00:00Z",
        policy={"crl": "if-present", "csp_id": ("CN=another",)}, refused_by=("quote-chain",),
    ),
    "s2, from VMPL 1 where 0 is demanded": snp(
        "s2-milan-v3-vlek", "s2-milan-v3-vlek.vlek", "milan-vlek", at="2025-06-01T00:00:00Z",
        policy={"crl": "if-present", "maximum_vmpl": 0}, refused_by=("guest-state",),
    ),
    "s3": snp("s3-genoa-v3", "s3-genoa-v3.vcek", "genoa-vcek", crl="genoa", says="microcode 84"),
    "s3, before its VCEK": snp(
        "s3-genoa-v3", "s3-genoa-v3.vcek", "genoa-vcek", at="2026-06-28T03:09:08Z", policy={"crl": "if-present"},
        refused_by=("quote-chain",), says="not yet valid",
    ),
    "s3, from its VCEK's first second": snp(
        "s3-genoa-v3", "s3-genoa-v3.vcek", "genoa-vcek", at="2026-06-28T03:09:09Z", policy={"crl": "if-present"}
    ),
    "s3, below the floor": snp(
        "s3-genoa-v3", "s3-genoa-v3.vcek", "genoa-vcek", crl="genoa", refused_by=("quote-tcb",),
        policy={"minimum_tcb": {"genoa": TcbFloor(boot_loader=10, snp=24, microcode=84)}},
    ),
    "s3, without a floor for it": snp(
        "s3-genoa-v3", "s3-genoa-v3.vcek", "genoa-vcek", crl="genoa", refused_by=("quote-tcb",),
        policy={"minimum_tcb": {"siena": TcbFloor()}}, says="no floor for genoa",
    ),
    "n1-milan": snp(
        "n1-milan-v2-debug", "n1-milan-v2-debug.vcek", "milan-vcek", crl="milan", refused_by=("guest-state",)
    ),
    "n2, legacy": snp(
        "s1-milan-v2", "n2-vcek-not-amd-legacy", "milan-vcek", crl="milan",
        refused_by=("quote-chain", "quote-signature", "quote-chip"), says="the VCEK is not signed by SEV-Milan",
    ),
    "n2, new": snp(
        "s1-milan-v2", "n2-vcek-not-amd-new", "milan-vcek", crl="milan",
        refused_by=("quote-chain", "quote-signature", "quote-chip"),
    ),
    "s1 with another chip's VCEK": snp(
        "s1-milan-v2", "n1-milan-v2-debug.vcek", "milan-vcek", crl="milan",
        refused_by=("quote-signature", "quote-chip"), says="another firmware level; the VCEK is of another chip",
    ),
    "s3 under Milan's chain": snp(
        "s3-genoa-v3", "s3-genoa-v3.vcek", "milan-vcek", crl="milan", refused_by=("quote-collateral",),
        says="no certificate of SEV-Genoa",
    ),
    "s1 under the VLEK's chain": snp(
        "s1-milan-v2", "s1-milan-v2.vcek", "milan-vlek", crl="milan", refused_by=("quote-collateral",)
    ),
    "s3 with Milan's list": snp(
        "s3-genoa-v3", "s3-genoa-v3.vcek", "genoa-vcek", crl="milan", refused_by=("quote-revocation",)
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def tee(real_data: Path) -> Path:
    folder = real_data / "tee"
    if not folder.is_dir():
        pytest.skip(f"real quotes are not here: {folder}")
    return folder


@pytest.fixture(autouse=True)
def the_extra_is_there() -> None:
    pytest.importorskip("dcap_qvl")


def collateral_of(tee: Path, files: tuple[str, ...]) -> CpuCollateral:
    read = [parse_collateral((tee / name).read_bytes()) for name in files]
    amd = [item for item in read if isinstance(item, SnpCollateral)]
    return sum(amd, SnpCollateral()) if amd else read[0]


def policy_of(row: Row) -> CpuPolicy:
    if row.tdx:
        return CpuPolicy(tdx=TdxDemands(**TDX_ANY | dict(row.policy)))
    return CpuPolicy(snp=SnpDemands(**SNP_ANY | dict(row.policy)))


def judged(tee: Path, row: Row, quote: bytes | None = None) -> GuestAppraisal:
    data = (tee / row.quote).read_bytes() if quote is None else quote
    expected = parse_quote((tee / row.quote).read_bytes()).report_data
    devices = DeviceSide(trusted=True, number=1, nonce=bytes(32), digest=None, key=None, identities=("1",))
    guest = Guest(
        quote=data,
        policy=policy_of(row),
        recipe=ExpectedReportData(report_data=expected),
        collateral=collateral_of(tee, row.collateral),
    )
    return guest.appraise(devices, parse_time(row.at))


def refusing(appraisal: GuestAppraisal) -> set[str]:
    return {check.id for check in appraisal.failures if check.outcome is not Outcome.SKIPPED}


def everything(appraisal: GuestAppraisal) -> str:
    words = [(check.detail, check.expected, check.found) for check in appraisal.checks]
    return "\n".join(" ".join(line) for line in words)


@pytest.mark.parametrize("name", ROWS)
def test_each_row_by_the_library(tee: Path, name: str) -> None:
    row = ROWS[name]
    appraisal = judged(tee, row)
    assert refusing(appraisal) == set(row.refused_by)
    assert appraisal.trusted == (not row.refused_by)
    assert row.says in everything(appraisal)
    # Nothing in a quote is a fact before its signature is.
    signed = not {"quote-collateral", "quote-chain", "quote-revocation", "quote-signature"} & set(row.refused_by)
    assert (appraisal.facts is not None) == (signed and name != "n1")


def written(row: Row, folder: Path) -> Path:
    table = "tdx" if row.tdx else "snp"
    values = (TDX_ANY if row.tdx else SNP_ANY) | dict(row.policy)
    floors = values.pop("minimum_tcb", {})
    document: dict[str, Any] = {table: {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}}
    if floors:
        names = ("boot_loader", "snp", "microcode")
        document[table]["minimum_tcb"] = {name: {key: getattr(f, key) for key in names} for name, f in floors.items()}
    path = folder / "cpu.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="session")
def borrowed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A token of simulated devices, and its nonce."""
    folder = tmp_path_factory.mktemp("borrowed")
    files = ["--token-out", f"{folder}/token.json", "--jwks-out", f"{folder}/jwks.json", "--nonce", "ab" * 32]
    assert main(["attest", "--simulate", "hopper-1", *files]) == 0
    return folder, "ab" * 32


@pytest.mark.parametrize("name", ROWS)
def test_each_row_by_the_command_line(
    tee: Path, name: str, borrowed: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ROWS[name]
    folder, nonce = borrowed
    status = main(
        [
            "verify-token", "--token-file", f"{folder}/token.json", "--jwks", f"{folder}/jwks.json", "--nonce", nonce,
            "--accept-simulated", "--at", f"quote={row.at}", "--tee-quote", f"{tee / row.quote}",
            "--cpu-policy", f"{written(row, tmp_path)}",
            "--expected-report-data", parse_quote((tee / row.quote).read_bytes()).report_data.hex(),
            *(part for item in row.collateral for part in ("--tee-collateral", f"{tee / item}")), "--format", "json",
        ]
    )  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert status == (3 if row.refused_by else 0)
    assert said["guest"]["trusted"] is (not row.refused_by)
    failed = {item["id"] for item in said["guest"]["checks"] if not item["acceptable"] and item["outcome"] != "skipped"}
    assert failed == set(row.refused_by)


def test_a_verified_report_with_another_chip_s_certificate_first_still_finds_its_own(tee: Path) -> None:
    row = ROWS["s1"]
    both = (ROWS["s1 with another chip's VCEK"].collateral[0], *row.collateral)
    assert judged(tee, Row(quote=row.quote, collateral=both, at=row.at)).trusted


def test_a_turin_vcek_is_read_and_its_chain_is_good(tee: Path) -> None:
    key = read_endorsement_key((tee / "snp/turin-vcek-only.der").read_bytes())
    assert key is not None
    assert (key.product, len(key.hwid), key.tcb.fmc, key.tcb.microcode) == ("Turin", 8, 0, 9)
    # There is no report to it: under Milan's report everything but the chain is wrong.
    row = snp("s1-milan-v2", "turin-vcek-only", "turin-vcek", policy={"crl": "if-present"})
    appraisal = judged(tee, row)
    assert appraisal.passed("quote-chain")
    assert refusing(appraisal) == {"quote-signature", "quote-chip"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["s0-milan-v2-tcb-differs.vcek", "s2-milan-v3-vlek.vlek", "turin-vcek-only"])
def test_the_serial_number_0_of_endorsement_keys_raises_no_warning(tee: Path, name: str) -> None:
    assert read_endorsement_key((tee / f"snp/{name}.der").read_bytes()) is not None


@pytest.mark.parametrize(
    ("name", "fmspc"),
    [("t1-v4-uptodate", "B0C06F000000"), ("t2-v5-td15ex-uptodate", "B0C06F000000"), ("n1-v4-debug", "50806F000000")],
)
def test_the_platform_of_a_quote_is_that_of_intel_s_library(tee: Path, name: str, fmspc: str) -> None:
    import dcap_qvl

    quote = (tee / f"tdx/{name}.quote.bin").read_bytes()
    theirs = dcap_qvl.parse_quote(quote)
    assert platform_of(parse_quote(quote)) == (fmspc, "platform") == (theirs.fmspc(), theirs.ca())


def test_a_quote_in_a_larger_buffer_counts_without_its_padding(tee: Path) -> None:
    row = ROWS["t1"]
    quote = (tee / row.quote).read_bytes()
    assert judged(tee, row, quote.ljust(8000, b"\0")).trusted
    assert refusing(judged(tee, row, quote.ljust(8000, b"\0") + b"\1")) == {"quote-format"}


def test_collateral_that_was_serialised_anew_is_refused_by_its_signature(tee: Path) -> None:
    row = ROWS["t1"]
    document = json.loads((tee / row.collateral[0]).read_text())
    document["tcb_info"] = json.dumps(json.loads(document["tcb_info"]), indent=1)
    changed = parse_tdx_collateral(json.dumps(document).encode())
    guest = Guest(
        quote=(tee / row.quote).read_bytes(), policy=policy_of(row), collateral=changed,
        recipe=ExpectedReportData(report_data=bytes(64)),
    )  # fmt: skip
    devices = DeviceSide(trusted=True, number=1, nonce=bytes(32), digest=None, key=None, identities=("1",))
    appraisal = guest.appraise(devices, parse_time(row.at))
    check = appraisal.check("quote-signature")
    assert check is not None
    assert check.outcome is Outcome.FAIL
    assert "byte by byte" in check.hint


def flips(name: str, size: int) -> Iterator[int]:
    """The bytes of header and body of a TDX quote, or of the signed part of a report and the numbers R and S."""
    if name.startswith("t"):
        yield from range(48 + 584)
    else:
        yield from (*range(0x2A0 + 48), *range(0x2A0 + 72, 0x2A0 + 120), size - 1)


@pytest.mark.parametrize("name", ["t1", "s1", "s3"])
@pytest.mark.parametrize("step", [37, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_any_flipped_byte_of_what_is_signed_is_refused(tee: Path, name: str, step: int) -> None:
    row = ROWS[name]
    quote = (tee / row.quote).read_bytes()
    for place in list(flips(name, len(quote)))[::step]:
        changed = bytearray(quote)
        changed[place] ^= 1 << place % 8
        appraisal = judged(tee, row, bytes(changed))
        assert not appraisal.trusted, place
        assert appraisal.facts is None, place
        assert refusing(appraisal), place


@pytest.mark.parametrize("name", ["t1", "s1"])
@pytest.mark.parametrize("step", [211, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_every_truncation_of_a_quote_is_refused_and_explained(tee: Path, name: str, step: int) -> None:
    row = ROWS[name]
    quote = (tee / row.quote).read_bytes()
    size = len(parse_quote(quote).data)
    for length in range(0, size, step):
        appraisal = judged(tee, row, quote[:length])
        assert refusing(appraisal) == {"quote-format"}, length
        assert appraisal.failures[0].detail


@pytest.mark.parametrize(
    "name",
    ["snp/s1-milan-v2.vcek.der", "snp/s2-milan-v3-vlek.vlek.der", "snp/crl-milan.der", "snp/chain-milan-vcek.pem"],
)
@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_a_changed_certificate_or_list_of_amd_s_never_makes_a_report_trusted(tee: Path, name: str, step: int) -> None:
    row = ROWS["s2" if "s2" in name else "s1"]
    data = (tee / name).read_bytes()
    others = tuple(item for item in row.collateral if item != name)
    for place in range(0, len(data), step):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        try:
            read = parse_collateral(bytes(changed))
        except ParseError:
            continue
        assert isinstance(read, SnpCollateral)
        rest = collateral_of(tee, others)
        assert isinstance(rest, SnpCollateral)
        guest = Guest(
            quote=(tee / row.quote).read_bytes(), policy=policy_of(row), collateral=read + rest,
            recipe=ExpectedReportData(report_data=parse_quote((tee / row.quote).read_bytes()).report_data),
        )  # fmt: skip
        devices = DeviceSide(trusted=True, number=1, nonce=bytes(32), digest=None, key=None, identities=("1",))
        appraisal = guest.appraise(devices, parse_time(row.at))
        # Text around PEM blocks, and the ARK beside the pinned one, are signed by nobody.
        same = read.certificates == parse_collateral(data).certificates[: len(read.certificates)]  # type: ignore[union-attr]
        ark = name.endswith(".pem") and read.certificates[:1] == parse_collateral(data).certificates[:1]  # type: ignore[union-attr]
        if not (same and read.crls == parse_collateral(data).crls) and not ark:  # type: ignore[union-attr]
            assert not appraisal.trusted, place


def meaning(collateral: TdxCollateral) -> list[object]:
    """What a document says, however its bytes are spelled: nothing signs the case of hexadecimal digits.

    The chain beside the PCK revocation list is left out: the list is verified with the authority of the PCK itself.
    """
    said: list[object] = []
    for name, text in collateral.members.items():
        if name == "pck_crl_issuer_chain":
            continue
        if name.endswith("_chain"):
            said.append([item.der for item in parse_pem_chain(text.encode())])
        else:
            said.append(text if name in ("tcb_info", "qe_identity") else bytes.fromhex(text))
    return said


@pytest.mark.parametrize("step", [397, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_a_changed_document_of_intel_s_never_makes_a_quote_trusted(tee: Path, step: int) -> None:
    row = ROWS["t1"]
    data = (tee / row.collateral[0]).read_bytes()
    quote = (tee / row.quote).read_bytes()
    before = meaning(parse_tdx_collateral(data))
    devices = DeviceSide(trusted=True, number=1, nonce=bytes(32), digest=None, key=None, identities=("1",))
    recipe = ExpectedReportData(report_data=parse_quote(quote).report_data)
    for place in range(0, len(data), step):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 7
        try:
            read = parse_tdx_collateral(bytes(changed))
            same = meaning(read) == before
        except ParseError:
            continue
        appraisal = Guest(quote=quote, policy=policy_of(row), collateral=read, recipe=recipe).appraise(
            devices, parse_time(row.at)
        )
        assert same or not appraisal.trusted, place
        assert appraisal.trusted or refusing(appraisal), place


@pytest.mark.parametrize(
    "name", ["tdx/t1-v4-uptodate.collateral.json", "snp/s1-milan-v2.vcek.der", "snp/crl-milan.der"]
)
@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_every_truncation_of_collateral_is_refused(tee: Path, name: str, step: int) -> None:
    data = (tee / name).read_bytes().rstrip()
    for size in range(0, len(data), step):
        with pytest.raises(ParseError):
            parse_collateral(data[:size])


# --- pairs ------------------------------------------------------------------------------------------------------------

PAIRS = ("p1-tinfoil-1gpu", "p2-address-nonce-1gpu", "p3-near-8gpu", "p4-chutes-8gpu")


@dataclass(frozen=True)
class Pair:
    """What was captured of one machine in one minute."""

    folder: Path
    name: str

    def data(self, what: str) -> bytes:
        return (self.folder / f"{self.name}.{what}").read_bytes()

    @property
    def said(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.data("binding.json"))
        return document

    @property
    def nonce(self) -> Nonce:
        return Nonce.from_hex(self.said["client_nonce"])

    @property
    def at(self) -> datetime:
        return parse_time(self.said["captured_at"])

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.name](self)

    def guest(self, **change: Any) -> Guest:
        values: dict[str, Any] = {
            "quote": self.data("quote.bin"), "policy": CpuPolicy(tdx=TdxDemands(measurements="any")),
            "recipe": self.recipe, "collateral": parse_collateral(self.data("collateral.json")),
        }  # fmt: skip
        return Guest(**values | change)

    def verified(self, guest: Guest) -> VerifiedToken:
        return verify_token(
            self.data("nras.json"),
            issuer=SERVICE,
            nonce=self.nonce,
            at=self.at,
            jwks=self.data("jwks.json"),
            guest=guest,
        )


def digits(pair: Pair, name: str) -> bytes:
    return bytes.fromhex(pair.said[name].removeprefix("0x"))


RECIPES: dict[str, Callable[[Pair], Recipe]] = {
    "p1-tinfoil-1gpu": lambda pair: TinfoilV3(
        nonce=digits(pair, "nonce"), tls_key_fp=digits(pair, "tls_key_fp"), hpke_key=digits(pair, "hpke_key"),
        gpu=pair.data("gpu-as-hashed.json"),
    ),
    "p2-address-nonce-1gpu": lambda pair: AddressNonce(
        nonce=pair.nonce.value, signing_address=digits(pair, "signing_address")
    ),
    "p3-near-8gpu": lambda pair: Near(
        nonce=pair.nonce.value, signing_address=digits(pair, "signing_address"),
        tls_cert_fingerprint=digits(pair, "tls_cert_fingerprint"),
    ),
    "p4-chutes-8gpu": lambda pair: Chutes(
        nonce=pair.nonce.value, e2e_pubkey=pair.said["e2e_pubkey"],
        tls_spki=parse_certificate(base64.b64decode(pair.said["tls_certificate"])).spki_der,
    ),
}  # fmt: skip


@pytest.fixture
def pairs(tee: Path) -> dict[str, Pair]:
    return {name[:2]: Pair(tee / "pairs", name) for name in PAIRS}


@pytest.mark.parametrize(
    ("name", "strength", "devices", "says"),
    [
        ("p1", Strength.KEY_AND_EVIDENCE, 1, "holds key TLS dd34cd14"),
        ("p2", Strength.NONCE_ONLY, 1, "devices of another machine could have answered"),
        ("p3", Strength.NONCE_ONLY, 8, "devices of another machine could have answered"),
    ],
)
def test_a_pair_is_one_good_verdict_with_its_strength(
    pairs: dict[str, Pair], name: str, strength: Strength, devices: int, says: str
) -> None:
    verified = pairs[name].verified(pairs[name].guest())
    guest = verified.guest
    assert guest is not None
    assert verified.trusted
    assert (guest.trusted, guest.quote_verified, guest.strength, guest.devices) == (True, True, strength, devices)
    assert says in guest.sentence
    assert "UpToDate on 2026-" in guest.sentence
    assert verified.result_code == 0
    assert guest.weakened == ("any guest",)
    assert not verified.simulated


def test_the_fourth_pair_is_refused_for_its_nonce_and_its_devices(pairs: dict[str, Pair]) -> None:
    verified = pairs["p4"].verified(pairs["p4"].guest())
    assert verified.guest is not None
    assert not verified.trusted
    assert verified.guest.passed("guest-binding")
    assert refusing(verified.guest) == {"guest-nonce", "guest-devices"}
    nonce = verified.guest.check("guest-nonce")
    assert nonce is not None
    assert (nonce.expected, nonce.found) == (verified.guest.facts.report_data[:32].hex(), pairs["p4"].nonce.hex())  # type: ignore[union-attr]


def test_an_nras_token_whose_devices_are_not_those_of_the_covered_evidence_is_refused(pairs: dict[str, Pair]) -> None:
    # p1's quote covers p1's evidence; p2's service vouches for p2's device. Crossed, nothing fits.
    crossed = pairs["p2"].verified(pairs["p1"].guest())
    assert crossed.guest is not None
    assert not crossed.trusted
    assert {"guest-nonce", "guest-devices"} <= refusing(crossed.guest)


@pytest.mark.parametrize(
    ("token", "quote", "change", "refused_by"),
    [
        # p1's quote with p2's evidence.
        ("p1", "p1", "evidence", {"guest-binding", "guest-devices"}),
        # p3's quote with p2's nonce.
        ("p2", "p3", "nothing", {"guest-nonce"}),
        # p2's quote in the place of p1's.
        ("p1", "p1", "quote", {"guest-binding"}),
    ],
)
def test_crossings_are_refused(
    pairs: dict[str, Pair], token: str, quote: str, change: str, refused_by: set[str]
) -> None:
    changed: dict[str, Any] = {}
    if change == "evidence":
        recipe = pairs["p1"].recipe
        assert isinstance(recipe, TinfoilV3)
        changed["recipe"] = TinfoilV3(
            nonce=recipe.nonce, tls_key_fp=recipe.tls_key_fp, hpke_key=recipe.hpke_key, gpu=pairs["p2"].data("gpu.json")
        )
    elif change == "quote":
        changed["quote"] = pairs["p2"].data("quote.bin")
        changed["collateral"] = parse_collateral(pairs["p1"].data("collateral.json"))
    at = pairs[quote].at
    verified = pairs[token].verified(pairs[quote].guest(at=at, **changed))
    assert verified.guest is not None
    assert not verified.trusted
    assert refusing(verified.guest) == refused_by


def test_the_caller_s_own_recipe_is_as_strong_as_what_the_verifier_sees_of_it(pairs: dict[str, Pair]) -> None:
    for name, strength in (("p1", Strength.NOTHING), ("p2", Strength.NONCE_ONLY), ("p3", Strength.NONCE_ONLY)):
        expected = parse_quote(pairs[name].data("quote.bin")).report_data
        verified = pairs[name].verified(pairs[name].guest(recipe=ExpectedReportData(report_data=expected)))
        assert verified.guest is not None
        assert (verified.trusted, verified.guest.strength) == (True, strength)


OPTIONS: dict[str, Callable[[Pair], list[str]]] = {
    "p1": lambda pair: [
        "tinfoil-v3", *(f"{name}={pair.said[name]}" for name in ("nonce", "tls_key_fp", "hpke_key")),
        f"gpu=@{pair.folder / pair.name}.gpu-as-hashed.json",
    ],
    "p2": lambda pair: ["address-nonce", f"nonce={pair.nonce}", f"signing_address={pair.said['signing_address']}"],
    "p3": lambda pair: [
        "near", f"nonce={pair.nonce}",
        *(f"{name}={pair.said[name]}" for name in ("signing_address", "tls_cert_fingerprint")),
    ],
    "p4": lambda pair: [
        "chutes", f"nonce={pair.nonce}", f"e2e_pubkey={pair.said['e2e_pubkey']}",
        f"tls_spki={parse_certificate(base64.b64decode(pair.said['tls_certificate'])).spki_der.hex()}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_a_pair_by_the_command_line(
    pairs: dict[str, Pair], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = pairs[name]
    (tmp_path / "cpu.toml").write_text('[tdx]\nmeasurements = "any"\n')
    recipe, *inputs = OPTIONS[name](pair)
    stem = f"{pair.folder / pair.name}"
    status = main(
        [
            "verify-token", "--token-file", f"{stem}.nras.json", "--jwks", f"{stem}.jwks.json", "--issuer", SERVICE,
            "--nonce", f"{pair.nonce}", "--at", pair.said["captured_at"], "--tee-quote", f"{stem}.quote.bin",
            "--tee-collateral", f"{stem}.collateral.json", "--cpu-policy", f"{tmp_path}/cpu.toml",
            "--tee-recipe", recipe, *(part for value in inputs for part in ("--tee-input", value)),
        ]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert status == (3 if name == "p4" else 0)
    assert ("Result: TRUSTED, code 0" in said) == (name != "p4")
    assert "weakened: any guest" in said
    if name == "p1":
        assert "the quote ties to it: key and evidence (recipe tinfoil-v3)" in said


@pytest.mark.parametrize(
    ("token", "quote", "status", "says"),
    [
        ("p1", "p1", 0, "carries the expected report data"),
        ("p2", "p2", 0, "carries the expected report data"),
        ("p2", "p3", 1, "another nonce than the recipe demands"),
        ("p2", "p1", 1, "another nonce than the recipe demands"),
    ],
)
def test_a_quote_that_is_not_judged_binds_no_devices_that_answered_another_nonce(
    pairs: dict[str, Pair], token: str, quote: str, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without a CPU policy the recipe alone is compared: its nonce has to be the token's.
    ours, theirs = (f"{pairs[name].folder / pairs[name].name}" for name in (token, quote))
    recipe, *inputs = OPTIONS[quote](pairs[quote])
    arguments = [
        "verify-token", "--token-file", f"{ours}.nras.json", "--jwks", f"{ours}.jwks.json", "--issuer", SERVICE,
        "--nonce", f"{pairs[token].nonce}", "--at", pairs[token].said["captured_at"],
        "--tee-quote", f"{theirs}.quote.bin", "--tee-recipe", recipe,
    ]  # fmt: skip
    assert main([*arguments, *(part for value in inputs for part in ("--tee-input", value))]) == status
    said = capsys.readouterr()
    assert says in said.out + said.err


def test_the_evidence_itself_beside_a_quote_is_refused_for_its_own_missing_manifests(pairs: dict[str, Pair]) -> None:
    # RIMs for this driver are not at hand, so the devices are not trusted; the quote covers this very evidence.
    from nvattest import Collateral, load_evidence, verify

    pair = pairs["p1"]
    appraisal = verify(
        load_evidence(pair.data("gpu.json")), collateral=Collateral(), nonce=pair.nonce, at=pair.at,
        guest=pair.guest(),
    )  # fmt: skip
    assert appraisal.guest is not None
    assert not appraisal.trusted
    assert refusing(appraisal.guest) == {"guest-devices"}
    assert appraisal.guest.passed("guest-binding")
