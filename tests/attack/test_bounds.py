"""What the worst inputs cost: at most 250 ms of processor time for each 64 KB, and at most 64 MB of memory.

Each document is read in a forked process of its own, which measures itself. Texts that have to be in memory whole
(evidence of many devices, bundles) get four times their size in addition. The times are loose enough for a busy machine:
they are processor time, and what is quadratic misses them by far.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nvattest.collateral.bundle import load_bundle
from nvattest.errors import NvattestError
from nvattest.evidence import load_evidence
from nvattest.guest.config import parse_config
from nvattest.model import DeviceKind, Nonce
from nvattest.pki.certificate import parse_certificate, parse_pem_chain
from nvattest.pki.dice import parse_tcb_info
from nvattest.pki.ocsp import parse_ocsp_response
from nvattest.policy.evidence_policy import load_evidence_policy
from nvattest.policy.relying_party import is_relying_party_policy, load_json_policy, load_policy
from nvattest.rim.document import parse_rim
from nvattest.session import verify_token
from nvattest.spdm.opaque import parse_opaque
from nvattest.spdm.report import parse_report
from nvattest.testing import DEFAULT_CLOCK, DEFAULT_NONCE, Platform
from nvattest.token.jose import parse_jwks

from ..unit.token import minting  # noqa: TID252 - the key of the tests

KIB, MIB = 1 << 10, 1 << 20
# What refuses a Rego policy that was read to its end.
OUTSIDE = b"\nopa.runtime"
SECONDS_PER_64K, MEMORY = 0.25, 64 * MIB
NODE = Platform.build("hopper-8-ppcie")
REPORT = NODE.gpus[0].report(DEFAULT_NONCE)
RIM = next(iter(NODE.rims().values()))


def token(data: bytes) -> object:
    jwks = minting.KEY.public.jwks()
    return verify_token(data, jwks=jwks, issuer=None, nonce=Nonce(DEFAULT_NONCE), at=DEFAULT_CLOCK)


def filled(part: bytes, size: int, begin: bytes = b"", end: bytes = b"") -> bytes:
    return begin + part * ((size - len(begin) - len(end)) // len(part)) + end


def der(depth: int) -> bytes:
    """SEQUENCEs in SEQUENCEs with lengths that are right."""
    data = b""
    for _ in range(depth):
        size = len(data)
        octets = b"" if size < 128 else size.to_bytes((size.bit_length() + 7) // 8, "big")
        data = b"\x30" + (bytes((size,)) if size < 128 else bytes((0x80 | len(octets),)) + octets) + data
    return data


def json_texts(size: int) -> dict[str, bytes]:
    """Texts that cost a JSON reader most: many small values, depth, one long value, keys that collide or repeat."""
    return {
        "objects": filled(b"{},", size, b"[", b"{}]"),
        "arrays": filled(b"[],", size, b"[", b"[]]"),
        "numbers": filled(b"1,", size, b"[", b"1]"),
        "floats": filled(b"1e9,", size, b"[", b"1]"),
        "texts": b"[" + b",".join(b'"%x"' % n for n in range(size // 9)) + b"]",
        "keys": b"{" + b",".join(b'"%x":0' % n for n in range(size // 11)) + b"}",
        "depth": b"[" * (size // 2) + b"]" * (size // 2),
        "depth of objects": filled(b'{"a":', size),
        "a long number": b"[" + b"9" * (size - 2) + b"]",
        "a long text": b'["' + b"a" * (size - 4) + b'"]',
        "escapes": filled(b"\\u00e9", size, b'["', b'"]'),
        "white space": b"[" + b" " * (size - 2) + b"]",
        "a text without end": b'["' + b"a" * (size - 2),
        "backslashes": b'["' + b"\\" * (size - 3),
    }


DOCUMENTS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    # SPDM: the most blocks and entries, and lengths that point everywhere.
    "report of zeros": (lambda data: parse_report(data, DeviceKind.GPU), REPORT[:42] + bytes(64 * KIB - 42)),
    "report with 64 KiB of opaque data": (
        lambda data: parse_report(data, DeviceKind.GPU),
        REPORT[: 37 + 5] + bytes.fromhex("370000") + REPORT[45 : 45 + 55] + bytes(32) + b"\xff\xff" + bytes(65000),
    ),
    "opaque data of empty entries": (
        parse_opaque,
        b"".join(n.to_bytes(2, "little") + b"\0\0" for n in range(16383)),
    ),
    "opaque data of one entry": (parse_opaque, b"\x01\0\xfb\xff" + bytes(65531)),
    # DER.
    "deep DER as a certificate": (parse_certificate, der(4000)),
    "deep DER as an answer": (parse_ocsp_response, der(16000)),
    "deep DER as DICE information": (parse_tcb_info, der(16000)),
    "a certificate of junk": (parse_certificate, b"\x30\x82\x3f\xf0" + b"\x30\x00" * 8184),
    "an answer of small elements": (parse_ocsp_response, b"\x30\x83\x00\xff\xf0" + b"\x05\x00" * 32760),
    "DICE information of many FWIDs": (parse_tcb_info, b"\x30\x82\xff\x00\xa6\x82\xfe\xfc" + b"\x30\x02\x06\x00" * 16319),
    # PEM.
    "PEM of markers": (parse_pem_chain, filled(b"-----BEGIN CERTIFICATE-----\n", 64 * KIB)),
    "PEM of dashes": (parse_pem_chain, b"-" * (64 * KIB)),
    "PEM of line ends": (parse_pem_chain, b"\n" * (64 * KIB)),
    "PEM without an end": (parse_pem_chain, b"-----BEGIN CERTIFICATE-----\n" + b"A" * (64 * KIB - 40)),
    "PEM of spaces": (parse_pem_chain, b"-----BEGIN CERTIFICATE-----" + b" \t" * (32 * KIB - 20)),
    "PEM of one certificate many times": (
        parse_pem_chain,
        (NODE.gpus[0].chain_pem * 30)[: 64 * KIB - 10],
    ),
    # XML: what unit/rim/test_attacks.py has not.
    "RIM of attributes": (parse_rim, RIM.replace(b"<ns0:Payload", filled(b'<a b="', MIB - len(RIM) - 40) + b"<ns0:Payload")),
    "RIM of end tags": (parse_rim, filled(b"</a>", MIB)),
    "RIM of white space": (parse_rim, RIM.replace(b"<ns0:Payload>", b"<ns0:Payload>" + b" " * (MIB - len(RIM) - 1))),
    "RIM of line ends": (parse_rim, RIM.replace(b"<ns0:Payload>", b"<ns0:Payload>" + b"\r\n" * ((MIB - len(RIM)) // 2))),
    "RIM of one value": (parse_rim, RIM.replace(b'active="True"', b'active="' + b"A" * (MIB - len(RIM) - 9) + b'"', 1)),
    "RIM of one signature value": (
        parse_rim,
        RIM.replace(b"<ds:SignatureValue>", b"<ds:SignatureValue>" + b"A" * (MIB - len(RIM)), 1),
    ),
    # TOML.
    "TOML of dots": (lambda data: load_evidence_policy(data, source="x"), b"a" + b".a" * (32 * KIB - 8) + b" = 1"),
    "TOML of tables": (
        lambda data: load_evidence_policy(data, source="x"),
        b"".join(b"[t%d]\n" % n for n in range(8000))[: 64 * KIB],
    ),
    "TOML of deep tables": (
        lambda data: load_evidence_policy(data, source="x"),
        b"".join(b"[%s]\n" % b".".join([b"a"] * n) for n in range(1, 200))[: 64 * KIB],
    ),
    "TOML of brackets": (lambda data: load_evidence_policy(data, source="x"), b"a = " + b"[" * (64 * KIB - 4)),
    "TOML of braces": (lambda data: load_evidence_policy(data, source="x"), b"a = " + b"{a=" * (21 * KIB)),
    "TOML of keys": (
        lambda data: load_evidence_policy(data, source="x"),
        b"".join(b"k%d=1\n" % n for n in range(8000))[: 64 * KIB].rpartition(b"\n")[0],
    ),
    "TOML of digits": (lambda data: load_evidence_policy(data, source="x"), b"a = " + b"1" * (64 * KIB - 4)),
    "TOML of quotes": (lambda data: load_evidence_policy(data, source="x"), b'a = """' + b'\\"' * (32 * KIB - 8)),
    "a hook configuration of dots": (parse_config, b"a" + b".a" * (16 * KIB) + b" = 1"),
    # Rego, before the engine sees it.
    **{
        f"Rego of {name}": (lambda data: load_policy(data, name="x.rego"), filled(part, 256 * KIB, b"package policy\n" + begin, OUTSIDE))
        for name, begin, part in (
            ("backslashes and quotes", b"x := ", b'"\\'),
            ("escaped quotes", b'x := "', b'\\"'),
            ("quotes", b"", b'"'),
            ("quotes on lines", b"", b'"\n'),
            ("backticks", b"", b'`"'),
            ("comments", b"", b'#"'),
            ("names of modules", b"", b"http "),
            ("points", b"", b"http . "),
            ("brackets", b"", b"[]"),
        )
    },
    "Rego of spaces": (lambda data: load_policy(data, name="x"), filled(b" ", 256 * KIB, end=b"package policy" + OUTSIDE)),
    "a policy of comments": (lambda data: is_relying_party_policy(data, name="x"), filled(b"#\n", 256 * KIB)),
    "a policy of one comment": (lambda data: is_relying_party_policy(data, name="x"), filled(b"# ", 256 * KIB)),
    "a policy of spaces": (lambda data: is_relying_party_policy(data, name="x"), filled(b" \n", 256 * KIB)),
    # Tokens.
    "a token of dots": (token, b"." * MIB),
    "a token of one part": (token, b"e30." + b"A" * (MIB - 8) + b".AA"),
    "a token of brackets": (token, b"[" * MIB),
    "a token of many submodules": (token, json.dumps([["JWT", "e30.e30.AA"], {str(n): "e30.e30.AA" for n in range(40_000)}]).encode()),
    **{f"JWKS: {name}": (parse_jwks, text) for name, text in json_texts(MIB).items()},
    **{
        f"JSON policy: {name}": (lambda data: load_json_policy(data, name="x"), text)
        for name, text in json_texts(256 * KIB).items()
    },
    **{
        f"JSON evidence policy: {name}": (lambda data: load_evidence_policy(data, source="x"), text)
        for name, text in json_texts(64 * KIB).items()
    },
    **{f"evidence: {name}": (load_evidence, text) for name, text in json_texts(4 * MIB).items()},
    # Evidence is looked for inside other documents, and inside texts of theirs that can hold it.
    "evidence in many texts": (load_evidence, filled(b'"[\\"evidence\\",1]",', 1536 * KIB, b'{"log":[', b"1]}")),
    "evidence in one long text": (load_evidence, filled(b"[],", 256 * KIB, b'{"a":"[\\"evidence\\",', b'[]]"}')),
    "evidence below a long name": (load_evidence, b'{"%s":[%s]}' % (b"k" * (3 * MIB), b",".join([b'{"a":[]}'] * 30000))),
    **{f"bundle: {name}": (load_bundle, text) for name, text in json_texts(4 * MIB).items()},
}  # fmt: skip

# The sizes that are just allowed; a sample of them is in the quick suite.
BIG = {
    **{f"evidence of 16 MiB: {name}": (load_evidence, 16 * MIB, name) for name in json_texts(64)},
    **{f"bundle of 64 MiB: {name}": (load_bundle, 64 * MIB, name) for name in json_texts(64)},
}


def cost(read: Callable[[bytes], object], data: bytes) -> tuple[float, int, str]:
    """Seconds of processor time, bytes of memory beyond what there was, and what came of it, measured in a child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            # Past this the child dies, and with it the test.
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            Path("/proc/self/clear_refs").write_text("5")
            before = _peak()
            started = time.process_time()
            try:
                read(data)
                outcome = "read"
            except NvattestError as error:
                outcome = error.code
            took = time.process_time() - started
            os.write(writing, json.dumps([took, _peak() - before, outcome]).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        answer = file.read()
    assert os.waitpid(child, 0)[1] == 0, "it died, or something else than a documented error was raised"
    took, memory, outcome = json.loads(answer)
    return took, memory, outcome


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def judge(read: Callable[[bytes], object], data: bytes) -> str:
    """Check what reading costs, and return what came of it."""
    # The first read of a process also imports; that is not the document's cost.
    with contextlib.suppress(NvattestError):
        read(data[:64])
    blocks = max(1.0, len(data) / (64 * KIB))
    # A busy machine makes a turn dearer, never cheaper: the best of three is what the document costs.
    for _ in range(3):
        took, memory, outcome = cost(read, data)
        if took <= SECONDS_PER_64K * blocks:
            break
    assert took <= SECONDS_PER_64K * blocks, f"{took:.3f} s, {outcome}"
    allowed = MEMORY + (4 * len(data) if len(data) > 2 * MIB else 0)
    assert memory <= allowed, f"{memory / MIB:.0f} MiB, {outcome}"
    return outcome


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_worst_documents_cost_little_and_are_refused(name: str) -> None:
    outcome = judge(*DOCUMENTS[name])
    # These are big and right: only their cost is of interest.
    right = (
        "PEM of one certificate many times",
        "opaque data of",
        "RIM of white space",
        "RIM of line ends",
        "a policy of",
    )
    assert (outcome == "read") <= name.startswith(right), outcome


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", BIG)
def test_the_largest_documents_cost_little(name: str) -> None:
    read, size, kind = BIG[name]
    assert judge(read, json_texts(size)[kind]) != "read"


# --- what the bounds must not hit -------------------------------------------------------------------------------------


def test_the_largest_documents_of_use_are_read() -> None:
    item = {"sha256": hashlib.sha256(b"x").hexdigest(), "content": "eA=="}
    bundle = {
        "format": "nvattest-bundle",
        "version": 1,
        "rims": [{"id": f"NV_{number}", **item} for number in range(1024)],
        "ocsp": [item] * 8192,
    }
    assert len(load_bundle(json.dumps(bundle)).ocsp) == 8192
    hints = {f"hint{number}": "a,b,[c],{d}" for number in range(40)}
    device = {"arch": "HOPPER", "evidence": "eA==", "certificate": "eA==", **hints}
    assert len(load_evidence(json.dumps([device] * 64))) == 64


def test_the_largest_lists_of_a_policy_are_read_on_one_line_each() -> None:
    versions = [f"96.00.{number:02X}.00.01" for number in range(64)]
    drivers = [f"550.90.{number}.1" for number in range(64)]
    text = f"denied_vbios_versions = {json.dumps(versions)}\ndenied_driver_versions = {json.dumps(drivers)}\n"
    policy = load_evidence_policy(text.encode(), source="x")
    assert policy.denied_vbios_versions == tuple(versions)
    assert len(policy.denied_driver_versions) == 64
