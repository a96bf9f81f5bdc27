"""Collateral of CPU quotes from the makers' services: real signed data, served on loopback."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.appraisal.guest import CpuPolicy, DeviceSide, SnpDemands, TcbFloor
from nvattest.appraisal.inputs import Collateral, CpuAnswer, Source
from nvattest.collateral.bundle import dump_bundle, load_bundle, merge_bundles
from nvattest.collateral.cache import DiskCache
from nvattest.collateral.cpu import Chip, CpuOptions, choose, fetch_cpu, issued_cpu, renew_cpu, wanted_of
from nvattest.collateral.http import HttpClient, Service
from nvattest.errors import CollateralError, ParseError, ResultCode
from nvattest.tee.collateral import SnpCollateral, TdxCollateral, parse_collateral, parse_snp_collateral, snp_collateral
from nvattest.tee.guest import Guest
from nvattest.tee.quote import parse_quote
from nvattest.tee.recipes import ExpectedReportData
from nvattest.testing.cpu import SimulatedGuest

Answer = tuple[int, dict[str, str], bytes]
SUMMER = datetime(2025, 6, 20, tzinfo=timezone.utc)
AUTUMN = datetime(2026, 9, 1, tzinfo=timezone.utc)


class Maker:
    """A server of answers by path; ``log`` has the paths that were asked, ``first`` answers that come once before."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.first: dict[str, list[Answer]] = {}
        self.log: list[str] = []
        maker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                maker.log.append(self.path)
                waiting = maker.first.get(self.path, [])
                status, headers, body = waiting.pop(0) if waiting else maker.answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def serving(answers: dict[str, Answer]) -> Iterator[Maker]:
    maker = Maker(answers)
    thread = threading.Thread(target=maker.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield maker
    finally:
        maker.server.shutdown()
        maker.server.server_close()
        thread.join()


TCB = "/tdx/certification/v4/tcb?fmspc=B0C06F000000"
QE = "/tdx/certification/v4/qe/identity"
PCK_CRL = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"
ROOT_CRL = "/sgx/certification/v4/rootcacrl"


def pccs(document: dict[str, str]) -> dict[str, Answer]:
    """The answers of a PCCS that hands on this collateral, as Intel's service words them."""

    def text(member: str, name: str) -> bytes:
        return f'{{"{member}":{document[name]},"signature":"{document[name + "_signature"]}"}}'.encode()

    def chain(name: str) -> str:
        return quote(document[f"{name}_issuer_chain"], safe="")

    return {
        TCB: (200, {"TCB-Info-Issuer-Chain": chain("tcb_info")}, text("tcbInfo", "tcb_info")),
        QE: (200, {"SGX-Enclave-Identity-Issuer-Chain": chain("qe_identity")}, text("enclaveIdentity", "qe_identity")),
        PCK_CRL: (200, {"SGX-PCK-CRL-Issuer-Chain": chain("pck_crl")}, bytes.fromhex(document["pck_crl"])),
        ROOT_CRL: (200, {}, document["root_ca_crl"].encode()),
    }


@pytest.fixture
def tee(real_data: Path) -> Path:
    return real_data / "tee"


@pytest.fixture
def t1(tee: Path) -> tuple[bytes, dict[str, str]]:
    return (tee / "tdx/t1-v4-uptodate.quote.bin").read_bytes(), json.loads(
        (tee / "tdx/t1-v4-uptodate.collateral.json").read_bytes()
    )


def test_intels_texts_come_out_of_the_answers_byte_by_byte_and_verify(t1) -> None:
    raw, document = t1
    answers = pccs(document)
    # White space and order of the outer object are the service's; an inner text that looks like the other one is not.
    status, headers, _ = answers[TCB]
    body = f' {{ "signature" : "{document["tcb_info_signature"]}" ,\n"x":{{"tcbInfo":[]}},"tcbInfo" : {document["tcb_info"]}\n}}'
    answers[TCB] = (status, headers, body.encode())
    with serving(answers) as maker:
        # As PCCS are configured elsewhere.
        options = CpuOptions(pcs_url=f"{maker.url}/sgx/certification/v4/")
        answer = fetch_cpu(wanted_of(raw), options, at=SUMMER)
    assert sorted(maker.log) == sorted([TCB, QE, PCK_CRL, ROOT_CRL])
    assert (answer.source, answer.origin) == (Source.LIVE, maker.url)
    found = parse_collateral(answer.content)
    assert isinstance(found, TdxCollateral)
    assert found.members == document
    issued = issued_cpu(answer)
    assert (issued.problem, issued.about) == ("", "Intel TDX, platform type B0C06F000000, platform CA, evaluation 17")
    assert choose([answer], raw) == found


@pytest.mark.parametrize("form", ["pem", "hex"])
def test_revocation_lists_come_in_the_forms_of_each_pccs(t1, form: str) -> None:
    raw, document = t1
    answers = pccs(document)
    der = bytes.fromhex(document["pck_crl"])
    pem = b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(der) + b"-----END X509 CRL-----\n"
    answers[PCK_CRL] = (200, answers[PCK_CRL][1], pem if form == "pem" else der.hex().upper().encode() + b"\n")
    with serving(answers) as maker:
        answer = fetch_cpu(wanted_of(raw), CpuOptions(pcs_url=maker.url), at=SUMMER)
    assert parse_collateral(answer.content).members == document


def changed(**parts: str) -> Callable[[dict[str, str], dict[str, Answer]], None]:
    def change(document: dict[str, str], answers: dict[str, Answer]) -> None:
        document.update(parts)
        answers.update(pccs(document))

    return change


def reserialised(document: dict[str, str], answers: dict[str, Answer]) -> None:
    changed(tcb_info=json.dumps(json.loads(document["tcb_info"])))(document, answers)


def without_chain(_: dict[str, str], answers: dict[str, Answer]) -> None:
    answers[TCB] = (200, {}, answers[TCB][2])


def endless_chain(_: dict[str, str], answers: dict[str, Answer]) -> None:
    answers[TCB] = (200, {"TCB-Info-Issuer-Chain": "x" * 33_000}, answers[TCB][2])


def other_chain(document: dict[str, str], answers: dict[str, Answer]) -> None:
    changed(pck_crl_issuer_chain=document["tcb_info_issuer_chain"])(document, answers)


def redirected(_: dict[str, str], answers: dict[str, Answer]) -> None:
    answers[TCB] = (302, {"Location": QE}, b"")


def large(_: dict[str, str], answers: dict[str, Answer]) -> None:
    answers[TCB] = (200, answers[TCB][1], b" " * (512 * 1024 + 1))


def a_page(_: dict[str, str], answers: dict[str, Answer]) -> None:
    answers[ROOT_CRL] = (200, {}, b"<html>sign in</html>")


def swapped(document: dict[str, str], answers: dict[str, Answer]) -> None:
    changed(root_ca_crl=document["pck_crl"])(document, answers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (reserialised, "tcb_info is not signed by .*Intel signs its text byte by byte"),
        (without_chain, "there is no header TCB-Info-Issuer-Chain"),
        (endless_chain, "TCB-Info-Issuer-Chain has 33000 characters"),
        (other_chain, "it is about B0C06F000000 processor, asked was B0C06F000000 platform"),
        (redirected, "which is not followed"),
        (large, "at most 524288 are read"),
        (a_page, "no revocation list; it begins with b'<html>"),
        (swapped, "the revocation list of the root is not signed"),
        (changed(pck_crl_issuer_chain="x"), "only CERTIFICATE blocks of PEM"),
        (changed(tcb_info="[]"), "'tcbInfo' and 'signature' are not an object and a text"),
        (changed(tcb_info_signature="zz"), "tcb_info_signature is not hexadecimal"),
    ],
)
def test_what_intel_did_not_issue_is_neither_given_nor_kept(t1, tmp_path: Path, change, message: str) -> None:
    raw, document = t1
    answers = pccs(document)
    change(document, answers)
    cache = DiskCache(str(tmp_path))
    with serving(answers) as maker, pytest.raises(CollateralError, match=message) as caught:
        fetch_cpu(wanted_of(raw), CpuOptions(pcs_url=maker.url, cache=cache), at=SUMMER)
    assert caught.value.message.startswith("Intel's certification service: ")
    assert "service-key" not in caught.value.hint
    assert cache.cpu("tdx-B0C06F000000-platform", aged=False) is None


def test_collateral_that_is_not_current_or_of_another_platform_is_refused(t1, tee: Path) -> None:
    raw, document = t1
    other = (tee / "pairs/p1-tinfoil-1gpu.quote.bin").read_bytes()
    with serving(pccs(document)) as maker:
        options = CpuOptions(pcs_url=maker.url)
        with pytest.raises(CollateralError, match=r"is good from 2025-06-19T.* to 2025-07-19T") as caught:
            fetch_cpu(wanted_of(raw), options, at=SUMMER + timedelta(days=60))
        assert caught.value.code == "answer"
        maker.answers[TCB.replace("B0C0", "90C0")] = maker.answers[TCB]
        with pytest.raises(CollateralError, match="it is about B0C06F000000 platform, asked was 90C06F000000 platform"):
            fetch_cpu(wanted_of(other), options, at=SUMMER)


def test_intels_collateral_is_cached_by_platform_for_a_day_and_offline_for_as_long_as_it_is_good(t1, tmp_path) -> None:
    raw, document = t1
    clock = [SUMMER]
    cache = DiskCache(str(tmp_path), now=lambda: clock[0])
    with serving(pccs(document)) as maker:
        options = CpuOptions(pcs_url=maker.url, cache=cache)
        first = fetch_cpu(wanted_of(raw), options, at=SUMMER)
        again = fetch_cpu(wanted_of(raw), options, at=SUMMER)
        assert (len(maker.log), again.source, again.content) == (4, Source.CACHE, first.content)
        clock[0] += timedelta(hours=25)
        offline = CpuOptions(pcs_url=maker.url, cache=cache, offline=True)
        assert fetch_cpu(wanted_of(raw), offline, at=clock[0]).content == first.content
        assert fetch_cpu(wanted_of(raw), options, at=clock[0]).source is Source.LIVE
        assert len(maker.log) == 8
        with pytest.raises(CollateralError, match="--offline asks no service"):
            fetch_cpu(wanted_of(raw), offline, at=SUMMER + timedelta(days=60))


def test_by_default_the_makers_own_hosts_are_asked(t1, tee: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(_: HttpClient, service: Service, url: str, _deadline: object) -> None:
        asked.append(url)
        raise service.error("stopped", code="connection")

    monkeypatch.setattr(HttpClient, "exchange", ask)
    for raw in (t1[0], snp(tee, "s3-genoa-v3.report.bin")):
        with pytest.raises(CollateralError, match="stopped"):
            fetch_cpu(wanted_of(raw), CpuOptions(), at=SUMMER)
    intel, amd = "https://api.trustedservices.intel.com", "https://kdsintf.amd.com"
    root = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
    genoa = vcek_path(snp(tee, "s3-genoa-v3.report.bin"), "Genoa")
    assert sorted(asked) == sorted([intel + TCB, intel + QE, intel + PCK_CRL, root, amd + genoa])


def test_a_service_that_does_not_answer_is_waited_for_no_longer_than_is_allowed(t1) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = CpuOptions(pcs_url=f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.3)
        with pytest.raises(CollateralError, match=r"0\.3 s") as caught:
            fetch_cpu(wanted_of(t1[0]), options, at=SUMMER)
    assert caught.value.result_code == ResultCode.RIM_CONNECTION_ERROR


# --- AMD --------------------------------------------------------------------------------------------------------------


def snp(tee: Path, name: str) -> bytes:
    return (tee / "snp" / name).read_bytes()


def vcek_path(report: bytes, product: str) -> str:
    body = parse_quote(report).body
    bl, tee_, *_, fw, ucode = body.reported_tcb
    return f"/vcek/v1/{product}/{body.chip_id.hex()}?blSPL={bl:02}&teeSPL={tee_:02}&snpSPL={fw:02}&ucodeSPL={ucode:02}"


def kds(tee: Path, report: str, vcek: str, product: str) -> dict[str, Answer]:
    place = f"/vcek/v1/{product}"
    return {
        vcek_path(snp(tee, report), product): (200, {}, snp(tee, vcek)),
        f"{place}/cert_chain": (200, {}, snp(tee, f"chain-{product.lower()}-vcek.pem")),
        f"{place}/crl": (200, {}, snp(tee, f"crl-{product.lower()}.der")),
    }


def quote_file(report: bytes, *entries: tuple[str, bytes]) -> bytes:
    """A quote file with these certificates in its auxiliary blob."""
    offset, table, contents = 24 * (len(entries) + 1), b"", b""
    for guid, content in entries:
        table += bytes.fromhex(guid.replace("-", ""))
        table += (offset + len(contents)).to_bytes(4, "little") + len(content).to_bytes(4, "little")
        contents += content
    blob = table + bytes(24) + contents if entries else b""
    members = {"outblob": base64.b64encode(report).decode(), "auxblob": base64.b64encode(blob).decode()}
    return json.dumps({"format": "nvattest-tee-quote", "version": 1, **members}).encode()


VCEK, VLEK, ASK = (
    "63da758d-e664-4564-adc5-f4b93be8accd", "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782",
)  # fmt: skip


@pytest.mark.parametrize(
    ("report", "vcek", "product"),
    [
        ("s0-milan-v2-tcb-differs.report.bin", "s0-milan-v2-tcb-differs.vcek.der", "Milan"),
        ("s3-genoa-v3.report.bin", "s3-genoa-v3.vcek.der", "Genoa"),
    ],
)
def test_amds_certificates_are_asked_for_by_chip_and_reported_level(tee: Path, tmp_path, report, vcek, product) -> None:
    raw = snp(tee, report)
    answers = kds(tee, report, vcek, product)
    cache = DiskCache(str(tmp_path), now=lambda: AUTUMN)
    with serving(answers) as maker:
        options = CpuOptions(kds_url=maker.url, cache=cache)
        answer = fetch_cpu(wanted_of(raw), options, at=AUTUMN)
        assert sorted(maker.log) == sorted(answers)
        assert fetch_cpu(wanted_of(raw), options, at=AUTUMN).source is Source.CACHE
        assert len(maker.log) == 3
    found = choose([answer], raw)
    assert isinstance(found, SnpCollateral)
    assert snp(tee, vcek) in found.certificates
    assert found.crls == (snp(tee, f"crl-{product.lower()}.der"),)
    assert issued_cpu(answer).problem == ""


def test_a_report_without_cpuid_is_looked_for_in_both_generations(tee: Path) -> None:
    report = "s1-milan-v2.report.bin"
    answers = kds(tee, report, "s1-milan-v2.vcek.der", "Milan")
    del answers[vcek_path(snp(tee, report), "Milan")]
    with serving(answers) as maker:
        with pytest.raises(CollateralError, match="HTTP status 404") as caught:
            fetch_cpu(wanted_of(snp(tee, report)), CpuOptions(kds_url=maker.url), at=AUTUMN)
        assert [path.split("/")[3] for path in maker.log] == ["Milan", "Genoa"]
    assert caught.value.code == "not-found"


def test_a_service_that_asks_to_wait_is_asked_again_after_that_time(tee: Path) -> None:
    report = "s1-milan-v2.report.bin"
    answers = kds(tee, report, "s1-milan-v2.vcek.der", "Milan")
    path = vcek_path(snp(tee, report), "Milan")
    with serving(answers) as maker:
        maker.first[path] = [(429, {"Retry-After": "0"}, b"")]
        assert fetch_cpu(wanted_of(snp(tee, report)), CpuOptions(kds_url=maker.url), at=AUTUMN).source is Source.LIVE
        assert maker.log.count(path) == 2
        maker.first[path] = [(429, {"Retry-After": "3600"}, b"")]
        with pytest.raises(CollateralError, match="the service asks to wait 3600 s") as caught:
            fetch_cpu(wanted_of(snp(tee, report)), CpuOptions(kds_url=maker.url), at=AUTUMN)
        assert maker.log.count(path) == 3
    assert (caught.value.code, caught.value.result_code) == ("rate-limited", ResultCode.RATE_LIMITED)
    assert caught.value.hint == "wait, or keep a cache or bundle"


def test_certificates_beside_the_quote_come_first_and_only_the_list_is_asked_for(tee: Path) -> None:
    ask = parse_snp_collateral(snp(tee, "chain-milan-vcek.pem")).certificates[0]
    vcek = snp(tee, "s1-milan-v2.vcek.der")
    file = quote_file(snp(tee, "s1-milan-v2.report.bin"), (VCEK, vcek), (ASK, ask))
    with serving(kds(tee, "s1-milan-v2.report.bin", "s1-milan-v2.vcek.der", "Milan")) as maker:
        answer = fetch_cpu(wanted_of(file), CpuOptions(kds_url=f"{maker.url}/vcek/v1/"), at=AUTUMN)
        assert maker.log == ["/vcek/v1/Milan/crl"]
    assert issued_cpu(answer).problem == ""


def test_a_certificate_of_another_chip_beside_the_quote_is_passed_over(tee: Path) -> None:
    file = quote_file(snp(tee, "s1-milan-v2.report.bin"), (VCEK, snp(tee, "n1-milan-v2-debug.vcek.der")))
    answers = kds(tee, "s1-milan-v2.report.bin", "s1-milan-v2.vcek.der", "Milan")
    with serving(answers) as maker:
        answer = fetch_cpu(wanted_of(file), CpuOptions(kds_url=maker.url), at=AUTUMN)
        assert sorted(maker.log) == sorted(answers)
    assert snp(tee, "s1-milan-v2.vcek.der") in parse_snp_collateral(answer.content).certificates


def test_a_service_that_gives_the_certificate_of_another_chip_is_refused(tee: Path, tmp_path: Path) -> None:
    report = "s1-milan-v2.report.bin"
    answers = kds(tee, report, "n1-milan-v2-debug.vcek.der", "Milan")
    cache = DiskCache(str(tmp_path))
    with serving(answers) as maker, pytest.raises(CollateralError, match="of another chip or firmware level"):
        fetch_cpu(wanted_of(snp(tee, report)), CpuOptions(kds_url=maker.url, cache=cache), at=AUTUMN)
    assert list((tmp_path / "cpu").iterdir()) == []


def test_a_vlek_comes_with_the_quote_or_not_at_all(tee: Path) -> None:
    report, vlek = snp(tee, "s2-milan-v3-vlek.report.bin"), snp(tee, "s2-milan-v3-vlek.vlek.der")
    at = datetime(2025, 6, 1, tzinfo=timezone.utc)
    with serving({}) as maker:
        with pytest.raises(CollateralError, match="VLEK, which AMD gives to the provider alone"):
            fetch_cpu(wanted_of(report), CpuOptions(kds_url=maker.url), at=at)
        assert maker.log == []
        maker.answers["/vlek/v1/Milan/cert_chain"] = (200, {}, snp(tee, "chain-milan-vlek.pem"))
        maker.answers["/vlek/v1/Milan/crl"] = (200, {}, snp(tee, "crl-milan.der"))
        # The list at hand is of 2026, when this VLEK has expired.
        with pytest.raises(CollateralError, match=r"VLEK is good from .* to 2025-12-10"):
            fetch_cpu(wanted_of(quote_file(report, (VLEK, vlek))), CpuOptions(kds_url=maker.url), at=AUTUMN)
        assert maker.log == ["/vlek/v1/Milan/crl", "/vlek/v1/Milan/cert_chain"]


# --- renewal, and bundles ---------------------------------------------------------------------------------------------


def test_only_collateral_that_ends_soon_is_asked_for_again_and_without_the_quote(t1, tee: Path) -> None:
    raw, document = t1
    with serving(pccs(document) | kds(tee, "s1-milan-v2.report.bin", "s1-milan-v2.vcek.der", "Milan")) as maker:
        options = CpuOptions(pcs_url=maker.url, kds_url=maker.url)
        intel = fetch_cpu(wanted_of(raw), options, at=SUMMER)
        amd = fetch_cpu(wanted_of(snp(tee, "s1-milan-v2.report.bin")), options, at=AUTUMN)
        maker.log.clear()
        soon = timedelta(hours=12)
        assert renew_cpu(intel, options, at=SUMMER, within=soon) is intel
        assert renew_cpu(amd, options, at=AUTUMN, within=soon) is amd
        assert maker.log == []
        late = datetime(2025, 7, 19, 9, tzinfo=timezone.utc)
        assert parse_collateral(renew_cpu(intel, options, at=late, within=soon).content).members == document
        assert sorted(maker.log) == sorted([TCB, QE, PCK_CRL, ROOT_CRL])
        maker.log.clear()
        late = datetime(2026, 10, 3, 23, tzinfo=timezone.utc)
        assert renew_cpu(amd, options, at=late, within=soon).content == amd.content
        assert maker.log == ["/vcek/v1/Milan/crl"]


def test_a_bundle_holds_cpu_collateral_byte_by_byte_and_one_without_it_is_as_before(t1) -> None:
    _, document = t1
    content = json.dumps(document, indent=3).encode()
    collateral = Collateral(cpu=(CpuAnswer(content, Source.FILE), CpuAnswer(content, Source.FILE)))
    written = dump_bundle(collateral)
    jsonschema.validate(written, json.loads(schema_bytes("bundle-1.json")))
    read = load_bundle(json.dumps(written).encode(), origin="b.json")
    assert read.cpu == (CpuAnswer(content, Source.BUNDLE, "b.json"),)
    assert merge_bundles([read, read]).cpu == read.cpu
    assert "cpu" not in dump_bundle(Collateral())
    written["cpu"][0]["sha256"] = "0" * 64
    with pytest.raises(ParseError, match=r"cpu\[0\]"):
        load_bundle(written)


def test_of_several_documents_the_newest_of_the_quotes_platform_is_chosen(tee: Path) -> None:
    raw = (tee / "tdx/t1-v4-uptodate.quote.bin").read_bytes()
    names = ("tdx/t1-v4-uptodate", "tdx/t2-v5-td15ex-uptodate", "tdx/t4-v4-outofdate", "pairs/p1-tinfoil-1gpu")
    answers = [CpuAnswer((tee / f"{name}.collateral.json").read_bytes(), Source.BUNDLE) for name in names]
    found = choose(answers, raw)
    assert isinstance(found, TdxCollateral)
    assert (found.fmspc, found.evaluation) == ("B0C06F000000", 20)
    assert choose(answers[3:], raw) is None
    assert choose(answers, snp(tee, "s1-milan-v2.report.bin")) is None


def test_a_report_whose_chip_id_is_masked_takes_the_certificate_that_the_host_put_beside_it() -> None:
    cpu = SimulatedGuest("snp-genoa")
    whole = cpu.collateral()
    assert isinstance(whole, SnpCollateral)
    report = bytearray(cpu.quote(bytes(64)))
    report[0x1A0:0x1E0] = bytes(64)
    masked = bytes(report)
    chip = wanted_of(masked)
    assert isinstance(chip, Chip)
    answer = fetch_cpu(chip._replace(held=whole), CpuOptions(offline=True), at=cpu.clock, anchors=cpu.anchors())
    found = choose([answer], masked)
    assert isinstance(found, SnpCollateral)
    assert whole.certificates[0] in found.certificates
    assert found.crls == whole.crls


def test_a_damaged_certificate_beside_the_quote_does_not_hide_the_callers(tee: Path) -> None:
    report = snp(tee, "s3-genoa-v3.report.bin")
    chain = parse_snp_collateral(snp(tee, "chain-genoa-vcek.pem"))
    damaged = chain.certificates[0][:-1] + bytes([chain.certificates[0][-1] ^ 1])
    given = [snp(tee, "s3-genoa-v3.vcek.der"), snp(tee, "crl-genoa.der")]
    guest = Guest(
        quote=quote_file(report, (ASK, damaged)),
        policy=CpuPolicy(snp=SnpDemands(measurements="any", minimum_tcb={"genoa": TcbFloor()})),
        recipe=ExpectedReportData(report_data=parse_quote(report).report_data),
        collateral=snp_collateral(given) + chain,
    )
    devices = DeviceSide(trusted=True, number=1, nonce=bytes(32), digest=None, key=None, identities=("1",))
    appraisal = guest.appraise(devices, AUTUMN)
    assert [check.id for check in appraisal.checks if not check.acceptable] == []
