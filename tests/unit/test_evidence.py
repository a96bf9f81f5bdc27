from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import nvattest
from nvattest._documents import canonical_json
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.evidence import (
    Evidence,
    EvidenceForm,
    additional_evidence,
    attester_json,
    cpu_report_data,
    device_nonce,
    device_report_data,
    dump_evidence,
    load_evidence,
)
from nvattest.model import Architecture, DeviceKind
from nvattest.testing import Platform

NONCE = bytes(range(32))
SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "schemas" / "evidence-1.json").read_text())
REAL = (
    "blackwell-575.32-attsdk", "hgx4-switch", "hgx8-gpu-590.12", "hopper-550.90.07-nvtrust",
    "hopper-560.00-invalidsig-attsdk", "hopper-580.159.03-attsdk", "hopper-590.12-multi4", "hopper-590.12-single",
    "ls10-attsdk", "ls10-multi4", "ls10-single",
)  # fmt: skip


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def item(**changes: Any) -> dict[str, Any]:
    members = {
        "arch": "HOPPER",
        "nonce": NONCE.hex(),
        "evidence": b64(b"report"),
        "certificate": b64(b"chain"),
    } | changes
    return {key: value for key, value in members.items() if value is not ...}


def load(document: object) -> tuple[Evidence, ...]:
    return load_evidence(json.dumps(document))


def refused(document: object) -> ParseError:
    with pytest.raises(ParseError) as caught:
        load(document)
    return caught.value


def in_schema(document: object) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(document))


EVIDENCE = Evidence(architecture=Architecture.HOPPER, nonce=NONCE, report=b"report", certificate_chain=b"chain")


@pytest.mark.parametrize("name", REAL)
def test_real_evidence_is_read_and_written_back_as_it_was(real_data: Path, name: str) -> None:
    data = (real_data / "evidence" / f"{name}.json").read_bytes()
    items = load_evidence(data)
    document = json.loads(data)
    assert dump_evidence(items) == document
    assert in_schema(document)
    for evidence, source in zip(items, document, strict=True):
        assert evidence.nonce == bytes.fromhex(source["nonce"])
        assert evidence.report[4:36] == evidence.nonce
        assert evidence.certificate_chain.startswith(b"-----BEGIN CERTIFICATE-----")
        assert evidence.kind is (DeviceKind.NVSWITCH if source["arch"] == "LS10" else DeviceKind.GPU)


def test_text_beside_the_report_becomes_hints(real_data: Path) -> None:
    items = load_evidence((real_data / "evidence" / "hgx8-gpu-590.12.json").read_bytes())
    assert items[0].hints == {"driver_version": "590.12", "vbios_version": "96.00.A5.00.01", "version": "1.0"}
    assert load([item(uuid="unknown", number=3, deep=[1], long="x" * 300, bell="\a", **{"\ud800": "y"})])[0].hints == {}


@pytest.mark.parametrize("form", EvidenceForm)
def test_every_form_reads_back(form: EvidenceForm) -> None:
    items = (EVIDENCE, dataclasses.replace(EVIDENCE, report=b"another"))
    document = dump_evidence(items, form=form)
    assert in_schema(document)
    expected = (
        items if form is not EvidenceForm.COCO else tuple(dataclasses.replace(each, nonce=None) for each in items)
    )
    assert load(document) == expected
    assert load_evidence(json.dumps(document).encode()) == expected


def test_forms_look_as_their_readers_expect() -> None:
    payload = {"evidence": b64(b"report"), "certificate": b64(b"chain")}
    plain = {"arch": "HOPPER", "nonce": NONCE.hex(), **payload}
    hinted = dataclasses.replace(EVIDENCE, hints={"uuid": "GPU-1"})
    assert dump_evidence([EVIDENCE]) == [plain]
    assert dump_evidence([EVIDENCE], form=EvidenceForm.ENVELOPE) == {"evidences": [plain]}
    assert dump_evidence([EVIDENCE], form=EvidenceForm.NRAS) == {
        "nonce": NONCE.hex(),
        "arch": "HOPPER",
        "evidence_list": [payload],
    }
    assert dump_evidence([EVIDENCE, hinted], form=EvidenceForm.COCO) == {
        "device_evidence_list": [
            {"arch": "HOPPER", "uuid": "unknown", **payload},
            {"arch": "HOPPER", "uuid": "GPU-1", **payload},
        ]
    }
    assert load(dump_evidence([hinted])) == (hinted,)


def test_the_nras_form_needs_one_architecture_and_one_nonce() -> None:
    switch = dataclasses.replace(EVIDENCE, architecture=Architecture.LS10)
    other = dataclasses.replace(EVIDENCE, nonce=bytes(32))
    for items in ([], [EVIDENCE, switch], [EVIDENCE, other], [dataclasses.replace(EVIDENCE, nonce=None)]):
        with pytest.raises(InputError) as caught:
            dump_evidence(items, form=EvidenceForm.NRAS)
        assert caught.value.code == "evidence-form"


def test_gpu_names_are_read_in_any_case_and_switch_names_as_they_are() -> None:
    assert load([item(arch="hopper"), item(arch="Blackwell")])[1].architecture is Architecture.BLACKWELL
    assert load([item(arch="LS10")])[0].architecture is Architecture.LS10
    for name, result in (("ls10", 502), ("LR10", 602), ("SV10", 602), ("AMPERE", 502), ("", 502), ("HOPPER ", 502)):
        error = refused([item(), item(arch=name)])
        assert (error.code, error.result_code.value) == ("architecture", result)
        assert "item 1: 'arch'" in str(error)


def test_a_nonce_may_be_missing_or_have_a_prefix() -> None:
    assert load([item(nonce=...)])[0].nonce is None
    assert load([item(nonce="0x" + NONCE.hex().upper())])[0].nonce == NONCE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"nonce": "00"}, "nonce-hex"),
        ({"nonce": "zz" * 32}, "nonce-hex"),
        ({"nonce": " " + "0" * 63}, "nonce-hex"),
        ({"nonce": "\u0661" * 64}, "nonce-hex"),
        ({"nonce": "0x0x" + "0" * 62}, "nonce-hex"),
        ({"nonce": None}, "evidence-item"),
        ({"arch": ...}, "evidence-item"),
        ({"arch": 9}, "evidence-item"),
        ({"evidence": ...}, "evidence-item"),
        ({"evidence": ["x"]}, "evidence-item"),
        ({"certificate": ...}, "evidence-item"),
        ({"certificate": {}}, "evidence-item"),
        ({"evidence": ""}, "base64"),
        ({"evidence": "AAA"}, "base64"),
        ({"evidence": "AAAA\n"}, "base64"),
        ({"evidence": "AA AA"}, "base64"),
        ({"evidence": "AB=="}, "base64"),
        ({"evidence": "AAAA="}, "base64"),
        ({"evidence": "AA==AA=="}, "base64"),
        ({"evidence": "-_-_"}, "base64"),
        ({"evidence": "\u00e4AAA"}, "base64"),
        ({"evidence": "\ud800AAA"}, "base64"),
        ({"certificate": "===="}, "base64"),
        ({"evidence": b64(bytes(65537))}, "too-large"),
        ({"evidence": b64(bytes(65540))}, "too-large"),
        ({"certificate": b64(bytes(65537))}, "too-large"),
    ],
)
def test_a_wrong_member_is_refused_by_item_and_key(change: dict[str, Any], code: str) -> None:
    error = refused([item(), item(**change)])
    assert error.code == code
    assert f"item 1: {next(iter(change))!r}" in str(error)


def test_the_largest_report_and_chain_are_read() -> None:
    large = load([item(evidence=b64(bytes(65536)), certificate=b64(b"x" * 65536))])[0]
    assert (len(large.report), len(large.certificate_chain)) == (65536, 65536)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ([], "no-devices"),
        ({"evidences": []}, "no-devices"),
        ({"device_evidence_list": []}, "no-devices"),
        ({"evidence_list": [], "arch": "HOPPER"}, "no-devices"),
        ({"evidences": None}, "evidence-form"),
        ({"evidences": {"0": item()}}, "evidence-form"),
        ({"evidences": [item()], "evidence_list": [item()]}, "evidence-form"),
        ({}, "evidence-form"),
        ({"": [item(evidence=...)]}, "evidence-form"),
        (item(), "evidence-form"),
        (None, "evidence-form"),
        ("[]", "evidence-form"),
        (3, "evidence-form"),
        ([None], "evidence-item"),
        ([[item()]], "evidence-item"),
        ([item(), "x"], "evidence-item"),
        ({"evidence_list": [item(arch=...)]}, "evidence-item"),
        ([item()] * 65, "too-many-devices"),
    ],
)
def test_another_form_is_refused(document: object, code: str) -> None:
    assert refused(document).code == code
    assert not in_schema(document)


@pytest.mark.parametrize(
    ("beside", "inside"),
    [
        ({"arch": "HOPPER", "nonce": NONCE.hex()}, {"arch": "hopper", "nonce": "0x" + NONCE.hex().upper()}),
        ({"arch": "HOPPER", "nonce": NONCE.hex()}, {"nonce": ...}),
        ({"arch": "HOPPER"}, {}),
        ({"nonce": NONCE.hex()}, {"nonce": ...}),
        ({}, {}),
    ],
)
def test_what_stands_beside_the_list_and_in_its_items_may_be_said_twice(
    beside: dict[str, Any], inside: dict[str, Any]
) -> None:
    document = {**beside, "evidence_list": [item(**inside), item(**inside)]}
    assert in_schema(document)
    items = load(document)
    assert [(each.architecture, each.nonce) for each in items] == [(Architecture.HOPPER, NONCE)] * 2
    twice = [key for key in ("arch", "nonce") if key in beside and inside.get(key) is not ...]
    assert items[0].origin == ("file, " + " and ".join(twice) + " given twice and alike" if twice else "file")


@pytest.mark.parametrize(
    ("key", "beside", "inside"),
    [("arch", "HOPPER", "BLACKWELL"), ("arch", "BLACKWELL", "HOPPER"), ("nonce", NONCE.hex(), "00" * 32)],
)
def test_an_item_that_says_something_else_than_the_list_is_refused_with_both_values(
    key: str, beside: str, inside: str
) -> None:
    error = refused({"arch": "HOPPER", key: beside, "evidence_list": [item(), item(**{key: inside})]})
    if key == "arch" and beside == "BLACKWELL":
        assert "item 0" in str(error)
    else:
        assert "item 1" in str(error)
    assert error.code == "evidence-item"
    assert repr(key) in str(error)
    assert repr(beside) in str(error)
    assert repr(inside) in str(error)


REPORT = bytes.fromhex("11e001ff") + bytes(range(200))


@pytest.mark.parametrize("digits", [REPORT.hex(), REPORT.hex().upper()])
def test_a_report_may_be_hexadecimal(digits: str) -> None:
    assert in_schema([item(evidence=digits)])
    assert load([item(evidence=digits)])[0].report == REPORT
    assert load([item(evidence=b64(REPORT))])[0].report == REPORT


@pytest.mark.parametrize("text", ["11e0" + "zz", "11e0 1", "11e001f", "11e0" + "00" * 65535, "0x11e001ff"])
def test_a_report_that_is_neither_hexadecimal_nor_base64_is_refused(text: str) -> None:
    assert refused([item(evidence=text)]).code in ("base64", "too-large")


def test_no_base64_of_a_report_begins_as_its_hexadecimal_form() -> None:
    assert b64(bytes.fromhex("11e0ff"))[:4].lower() != "11e0"


@pytest.mark.parametrize(("count", "said"), [(1, "1 NUL byte "), (5, "5 NUL bytes ")])
def test_nul_bytes_after_a_chain_are_dropped_and_told(count: int, said: str) -> None:
    for evidence in (
        load([item(certificate=b64(b"chain" + bytes(count)))])[0],
        dataclasses.replace(EVIDENCE, certificate_chain=b"chain" + bytes(count)),
    ):
        assert evidence.certificate_chain == b"chain"
        assert said + "after the chain dropped" in evidence.origin
        assert dataclasses.replace(evidence) == evidence


def test_nul_bytes_inside_a_chain_stay() -> None:
    assert load([item(certificate=b64(b"ch\0ain\0"))])[0].certificate_chain == b"ch\0ain"
    assert load([item()])[0].origin == "file"


def test_nul_bytes_after_a_hint_are_dropped_and_those_inside_make_it_none() -> None:
    assert load([item(driver_version="550.90.07\0\0", uuid="GPU\0-1")])[0].hints == {"driver_version": "550.90.07"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_with_a_byte_order_mark_is_read(encoding: str) -> None:
    assert load_evidence(json.dumps([item(name="ä")], ensure_ascii=False).encode(encoding)) == load([item()])


NRAS = {"nonce": NONCE.hex(), "arch": "HOPPER", "evidence_list": [item(arch=..., nonce=...)]}


@pytest.mark.parametrize(
    ("document", "member"),
    [
        ({"nvidia_payload": json.dumps(NRAS), "intel_quote": "00"}, "nvidia_payload.evidence_list"),
        ({"gpu": {"evidences": [item()]}, "cpu": {"quote": "x"}}, "gpu.evidences"),
        ({"gpu_evidence": [item()], "quote": '"evidence'}, "gpu_evidence"),
        ({"gpu_evidence": json.dumps([item()])}, "gpu_evidence"),
        ({"gpu_evidence": item()}, "gpu_evidence"),
        ({"gpu_evidence": json.dumps(item()), "evidence": "quote"}, "gpu_evidence"),
        ({"nvidia": {"device_evidence_list": [item()]}}, "nvidia.device_evidence_list"),
        ({"attestations": [{"quote": "x"}, {"gpu": json.dumps({"evidences": [item()]})}]},
         "attestations[1].gpu.evidences"),
    ],
)  # fmt: skip
def test_evidence_inside_another_document_is_found_and_its_member_named(document: object, member: str) -> None:
    items = load(document)
    assert [each.architecture for each in items] == [Architecture.HOPPER]
    assert items[0].origin == f"file, member {member!r}"


@pytest.mark.parametrize(
    ("document", "members"),
    [
        ({"gpu": {"evidences": [item()]}, "gpu_evidence": [item()]}, ["'gpu.evidences'", "'gpu_evidence'"]),
        ({"nodes": [{"evidences": [item()]}, {"evidences": [item()]}]}, ["'nodes[0].evidences'", "'nodes[1].evidences'"]),
        ({"intel_quote": "x", "signing_address": "y"}, ["'intel_quote'", "'signing_address'"]),
        ({"text": '{"evidence": 1', "n": None}, ["'text'", "'n'"]),
        ({f"m{i}": i for i in range(99)}, ["'m0'", "and 87 more"]),
        ({}, ["of none"]),
    ],
)  # fmt: skip
def test_without_exactly_one_such_member_the_refusal_names_what_is_there(document: object, members: list[str]) -> None:
    error = refused(document)
    assert error.code == "evidence-form"
    for name in members:
        assert name in str(error)
    assert len(str(error)) < 2000


def test_names_of_members_cannot_steer_a_terminal() -> None:
    error = refused({"\x1b[2J": 1, "a\nb": 2})
    assert str(error).isprintable()
    assert load({"\x1b[2J": [item()]})[0].origin.isprintable()


def test_evidence_that_is_buried_too_deeply_is_not_looked_for() -> None:
    document: object = [item()]
    for _ in range(12):
        document = {"inner": document}
    assert refused(document).code == "evidence-form"


# --- CMW --------------------------------------------------------------------------------------------------------------


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def wrap(media: str, data: bytes) -> list[str]:
    return [media, b64url(data)]


def cmw(chain: bytes, **changes: Any) -> dict[str, Any]:
    members = {
        "__cmwc_t": "tag:nvidia.com,2026:evidence-item/v1",
        "evidence": wrap("application/vnd.nvidia.spdm-measurement-transcript", REPORT),
        "certificate": wrap("application/vnd.nvidia.pem-cert-chain", chain),
        "nonce": wrap("application/octet-stream", NONCE),
    } | changes
    return {key: value for key, value in members.items() if value is not ...}


def collection(*items: object, **members: Any) -> dict[str, Any]:
    kind = "tag:nvidia.com,2026:verifier-input/profiles/base/pre-1.0.0"
    return {"__cmwc_t": kind, **members} | {f"gpu_{index}": each for index, each in enumerate(items)}


@pytest.fixture(scope="module")
def chain() -> bytes:
    from nvattest.testing.platform import Platform

    return Platform.build("hopper-1").devices[0].chain_pem


def test_a_cmw_collection_is_read_with_the_architecture_of_its_certificates(chain: bytes) -> None:
    hints = wrap("application/json", b'{"fwversion": "96.00.9F.00.01", "deep": []}')
    settings = wrap("application/json", b"{}")
    document = collection(
        cmw(chain, hints=hints), cmw(chain + bytes(3), nonce=...), nonce=wrap("application/octet-stream", NONCE),
        **{"appraisal-settings": settings},
    )  # fmt: skip
    assert in_schema(document)
    first, second = load(document)
    assert (first.architecture, first.nonce, first.report) == (Architecture.HOPPER, NONCE, REPORT)
    assert (first.certificate_chain, first.hints) == (chain, {"fwversion": "96.00.9F.00.01"})
    assert first.origin == "file, CMW item 'gpu_0'"
    assert (second.certificate_chain, second.nonce) == (chain, NONCE)
    assert "CMW item 'gpu_1', 3 NUL bytes" in second.origin
    assert load(collection(cmw(chain, nonce=...)))[0].nonce is None


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"evidence": ...}, "evidence-item", "'evidence'"),
        ({"evidence": b64(REPORT)}, "evidence-item", "'evidence'"),
        ({"evidence": []}, "evidence-item", "'evidence'"),
        ({"evidence": ["application/vnd.nvidia.spdm-measurement-transcript"]}, "evidence-item", "'evidence'"),
        ({"evidence": [*wrap("application/vnd.nvidia.spdm-measurement-transcript", REPORT), "x"]}, "evidence-item", "'evidence'"),
        ({"evidence": ["application/vnd.nvidia.spdm-measurement-transcript", 1]}, "evidence-item", "'evidence'"),
        ({"evidence": ["application/eat+cwt", b64url(REPORT)]}, "evidence-item", "application/eat+cwt"),
        ({"evidence": wrap("application/vnd.nvidia.spdm-measurement-transcript", b"") }, "base64", "'evidence'"),
        ({"evidence": ["application/vnd.nvidia.spdm-measurement-transcript", "EeAB_w=="]}, "base64", "'evidence'"),
        ({"evidence": ["application/vnd.nvidia.spdm-measurement-transcript", "EeAB/w"]}, "base64", "'evidence'"),
        ({"evidence": wrap("application/vnd.nvidia.spdm-measurement-transcript", bytes(65537))}, "too-large", "65536"),
        ({"certificate": ...}, "evidence-item", "'certificate'"),
        ({"certificate": wrap("application/vnd.nvidia.pem-cert-chain", b"no PEM")}, "evidence-item", "'certificate'"),
        ({"nonce": wrap("application/octet-stream", bytes(31))}, "nonce-hex", "31 bytes"),
        ({"nonce": wrap("application/octet-stream", bytes(32))}, "evidence-item", "00" * 32),
        ({"hints": wrap("application/json", b"{")}, "json", "'hints'"),
        ({"__cmwc_t": "tag:example.org,2026:item"}, "evidence-item", "not an evidence item"),
    ],
)  # fmt: skip
def test_a_wrong_record_of_a_collection_is_refused_by_item_and_key(
    chain: bytes, change: dict[str, Any], code: str, said: str
) -> None:
    nonce = wrap("application/octet-stream", NONCE)
    error = refused(collection(cmw(chain), cmw(chain, **change), nonce=nonce))
    assert (error.code, "'gpu_1'" in str(error)) == (code, True)
    assert said in str(error)


def test_another_or_an_empty_collection_is_refused(chain: bytes) -> None:
    assert refused(collection()).code == "no-devices"
    assert refused({"__cmwc_t": "tag:example.org,2026:x", "gpu_0": cmw(chain)}).code == "evidence-form"
    assert refused({"__cmwc_t": 1, "gpu_0": cmw(chain)}).code == "evidence-form"
    assert refused(collection(*[cmw(chain)] * 65)).code == "too-many-devices"
    assert refused(collection(cmw(chain), stray="x")).code == "evidence-item"


def test_64_devices_are_read() -> None:
    assert len(load([item()] * 64)) == 64


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"", 0),
        (b"[", 1),
        (b"[] x", 3),
        ('["ä", x]'.encode(), 7),
        (b"\xef\xbb\xbf[x]", 4),
        (b"\xff\xfe[\0x\0", 4),
        (b"\xfe\xff\0[\0", 4),
        (b"\xef\xbb\xbf\xef\xbb\xbf[]", 3),
        (b"\xff\xfe\0\0[\0\0\0]\0\0\0", 2),
        (b"\xff[]", 0),
        (b"[\xc3", 1),
        (b"[NaN]", None),
        (b"[-Infinity]", None),
        (b'"\x00"', 1),
        ('["\ud800", x]', 8),
    ],
)
def test_what_is_not_json_is_refused_at_its_byte(data: bytes | str, offset: int | None) -> None:
    with pytest.raises(ParseError) as caught:
        load_evidence(data)
    assert (caught.value.code, caught.value.offset) == ("json", offset)
    assert caught.value.result_code is ResultCode.EVIDENCE_MALFORMED


@pytest.mark.parametrize(
    "data",
    ["[" * 200_000, '{"a":' * 200_000, '[{"a":' * 100_000 + "1" + "}]" * 100_000],
    ids=["array", "object", "both"],
)
def test_a_nesting_bomb_is_refused(data: str) -> None:
    with pytest.raises(ParseError) as caught:
        load_evidence(data)
    assert caught.value.code == "too-large"


def test_what_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(ParseError, match="nested too deeply") as caught:
        load_evidence("[" * 50_000)
    assert caught.value.code == "json"


@pytest.mark.parametrize("number", ["9" * 1_000_000, "1e" + "9" * 1_000_000])
def test_a_number_of_a_million_digits_is_refused_and_not_computed(number: str) -> None:
    with pytest.raises(ParseError) as caught:
        load_evidence(json.dumps([item()])[:-2] + f', "n": {number}}}]')
    assert caught.value.code == "json"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text", ['[{"arch": "LS10", "arch": "LS10"}]', '{"evidences": [], "x": {"a": 1, "\\u0061": 2}}']
)
def test_a_repeated_key_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="appears twice") as caught:
        load_evidence(text)
    assert caught.value.code == "duplicate-key"


def test_more_than_16_mib_are_not_read() -> None:
    with pytest.raises(ParseError) as caught:
        load_evidence(b" " * (16 * 1024 * 1024 + 1))
    assert caught.value.code == "too-large"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_reading_evidence_loads_nothing_heavy() -> None:
    code = (
        "import sys, nvattest.evidence, nvattest.spdm.report\n"
        "heavy = {'cryptography', 'lxml', 'requests', 'jwt', 'asyncio', 'socket', 'logging', 'urllib.request'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=Path(nvattest.__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr


# --- evidence of Confidential Containers: the digests of the RCAR handshake --------------------------------------------

TEE_KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "x", "y": "y"}


def test_the_nonce_is_cut_or_padded_as_guest_components_does() -> None:
    assert device_nonce(bytes(range(64))).value == bytes(range(32))
    assert device_nonce(b"\x01\x02").value == b"\x01\x02" + bytes(30)
    for wrong in (b"", bytes(65)):
        with pytest.raises(InputError):
            device_nonce(wrong)


def test_the_cpu_quote_covers_the_exact_text_of_the_device_evidence() -> None:
    platform = Platform.build("hopper-1")
    data = device_report_data("kbs-nonce", TEE_KEY)
    assert (
        data
        == hashlib.sha384(
            b'{"nonce":"kbs-nonce","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"x","y":"y"}}'
        ).digest()
    )
    evidence = platform.evidence(device_nonce(data).value)
    text = additional_evidence(evidence)
    assert text == '{"nvidia":' + attester_json(evidence) + "}"
    (listed,) = json.loads(text)["nvidia"]["device_evidence_list"]
    assert (listed["arch"], listed["uuid"]) == ("HOPPER", "unknown")
    quoted = cpu_report_data("kbs-nonce", TEE_KEY, text)
    expected = (
        b'{"additional-evidence":' + json.dumps(text).encode() + b',"nonce":"kbs-nonce","tee-pubkey":'
        + canonical_json(TEE_KEY) + b"}"
    )  # fmt: skip
    assert quoted == hashlib.sha384(expected).digest()
    assert cpu_report_data("kbs-nonce", TEE_KEY, text + " ") != quoted


def test_without_a_device_the_additional_evidence_is_empty() -> None:
    assert additional_evidence(()) == ""
