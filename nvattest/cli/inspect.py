"""``nvattest inspect FILE``: what kind of file it is, what is in it, and where it is used."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nvattest._documents import JsonObject
from nvattest._text import joined
from nvattest.cli import sources
from nvattest.cli.arguments import add_terminal_options, input_path, read, read_input
from nvattest.cli.output import print_json, say, terminal_for
from nvattest.cli.sources import Judgement
from nvattest.errors import InputError, ParseError
from nvattest.model import format_time

if TYPE_CHECKING:
    from nvattest.pki.certificate import Certificate
    from nvattest.report.terminal import Terminal
    from nvattest.spdm.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and what it is verified with where it can be verified alone."""
    parser.add_argument(
        "file", nargs="?", default="-", type=input_path, metavar="FILE",
        help="evidence, bundle (a folder too), RIM, OCSP answer, token, certificates, key, policy, appraisal, lines of "
        "verify-batch, CPU quote or its collateral, or output of a command; also .gz; - or nothing is standard input",
    )  # fmt: skip
    sources.add_judgement_options(parser)
    add_terminal_options(parser)


def run(options: argparse.Namespace) -> int:
    """Say what the file is; 0 where it is known, whether good or bad.

    Raises:
        InputError: it is none of the files that nvattest reads or writes (``explain-format``), or cannot be read.
    """
    from nvattest.collateral.bundle import MANIFEST
    from nvattest.report.subjects import KINDS, MAXIMUM, kind_of_file

    name = "standard input" if options.file == "-" else options.file
    # What a folder that is a bundle holds stands in its manifest.
    path = os.path.join(options.file, MANIFEST) if os.path.isdir(options.file) else options.file
    data = _unpacked(read_input(path, MAXIMUM), name, MAXIMUM)
    kind = kind_of_file(data)
    if kind is None:
        raise InputError(
            f"FILE: {name} is no file that nvattest reads or writes{_fault(data)}",
            code="explain-format",
            hint=f"known are {', '.join(item.words for item in KINDS.values())}",
        )
    words, use = KINDS[kind]
    terminal = terminal_for(color=options.color, width=options.width)
    facts: JsonObject = {"kind": kind, "sha256": hashlib.sha256(data).hexdigest()}
    if (reader := _READERS.get(kind)) is None:
        facts["content"], text = _result(data, name, terminal)
    else:
        facts["content"], lines = reader(data, os.path.basename(name), read(Judgement, options))
        text = joined(lines)
    if options.format == "json":
        print_json("inspection", facts)
        return 0
    say(f"{name}: {words}", text, f"use: {use.replace('FILE', name)}", colour=terminal.color)
    return 0


def _fault(data: bytes) -> str:
    """Why a file that begins as JSON cannot be read as such."""
    from nvattest._documents import load_json
    from nvattest.report.subjects import MAXIMUM

    if data.lstrip()[:1] in (b"{", b"["):
        try:
            load_json(data, source="as JSON", maximum=MAXIMUM, file=True)
        except ParseError as error:
            return f"; {error}"
    return ""


def _unpacked(data: bytes, name: str, maximum: int) -> bytes:
    """The content of a file that gzip may have compressed, as verify-batch reads and writes it."""
    if data[:2] != b"\x1f\x8b":
        return data
    import gzip
    import io
    import zlib

    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            content = packed.read(maximum + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"FILE: {name}: not a whole gzip file: {error}", code="file") from None
    if len(content) > maximum:
        raise InputError(f"FILE: {name} unpacks to more than {maximum} bytes", code="file")
    return content


def _result(data: bytes, name: str, terminal: Terminal) -> tuple[object, str]:
    """What ``nvattest explain`` says of it."""
    from nvattest.report.reading import read_appraisal
    from nvattest.report.subjects import recognise, render_subject, subject_to_json
    from nvattest.report.text import story

    subject = recognise(data, source=name)
    if subject.kind == "appraisal":
        return subject_to_json(subject), story(read_appraisal(subject.appraisal), terminal)
    return subject_to_json(subject), render_subject(subject, terminal, source=name)


def _bundle(data: bytes, name: str, judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import load_bundle
    from nvattest.collateral.inspection import inspect_bundle, render_inspection
    from nvattest.session import now

    verifier = Verifier(anchors=sources.trust_anchors(judgement.trust_anchors))
    facts = inspect_bundle(load_bundle(data, origin=name), verifier, judgement.at or now()).facts
    return facts, [f"  {line}" for line in render_inspection(facts).split("\n")]


def _evidence(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.evidence import load_evidence
    from nvattest.pki.certificate import parse_pem_chain
    from nvattest.pki.dice import pdi_of_chain
    from nvattest.spdm.report import parse_report

    devices: list[JsonObject] = []
    lines = ["  NOT VERIFIED: what the evidence says of itself"]
    for item in load_evidence(data):
        facts: JsonObject = {
            "kind": item.kind.value,
            "architecture": item.architecture.value,
            "report_sha256": hashlib.sha256(item.report).hexdigest(),
        }
        try:
            report = parse_report(item.report, item.kind)
            facts["nonce"] = report.request.nonce.hex()
            facts |= _versions(report)
        except ParseError as error:
            facts["report_error"] = str(error)
        try:
            chain = parse_pem_chain(item.certificate_chain)
            facts |= {"certificates": [certificate.label for certificate in chain], "pdi": pdi_of_chain(chain)}
        except ParseError as error:
            facts["chain_error"] = str(error)
        if " " in item.origin:
            facts["origin"] = item.origin
        devices.append(facts)
        lines.append(f"  {item.kind.label} {item.architecture.value}")
        lines += _members(facts, leave=("kind", "architecture"))
    return {"devices": devices}, lines


def _report(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.report.subjects import report_of

    report = report_of(data)
    if report is None:
        raise InputError("FILE: no report", code="explain-format")
    facts: JsonObject = {
        "device": report.kind.value,
        "report_sha256": hashlib.sha256(report.raw).hexdigest(),
        "nonce": report.request.nonce.hex(),
        **_versions(report),
    }
    return facts, ["  NOT VERIFIED: without its certificates nothing vouches for it", *_members(facts)]


def _versions(report: Report) -> JsonObject:
    return {name: value for name, value in sorted(report.fields._asdict().items()) if name.endswith("_version")}


def _quote(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.tee.quote import parse_quote, read_quote

    quote = parse_quote(read_quote(data))
    facts: JsonObject = {
        "provider": quote.kind.value,
        "version": quote.version,
        "report_data": quote.report_data.hex(),
        "measurement": quote.measurement.hex(),
        "registers": [register.hex() for register in quote.registers],
        "debug": quote.debug,
    }
    return facts, ["  NOT VERIFIED: what the quote says", *_members(facts)]


def _batch_lines(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    facts: JsonObject = {"lines": sum(1 for line in data.split(b"\n") if line.strip())}
    return facts, _members(facts)


def _rim(data: bytes, name: str, judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.collateral.gather import read_rim_answer
    from nvattest.pki.ecdsa import EcdsaVerifier
    from nvattest.rim.document import parse_rim
    from nvattest.rim.ids import rim_id_of
    from nvattest.rim.verify import verify_rim
    from nvattest.rim.xml import explained
    from nvattest.session import now

    rim_id: str | None = None
    if data.lstrip()[:1] == b"{":
        rim_id, data = read_rim_answer(data, name, file=True)
    anchors = sources.trust_anchors(judgement.trust_anchors)
    try:
        document = parse_rim(data)
    except ParseError as error:
        return {"error": str(error)}, [f"  NOT READABLE: {explained(error, data)}"]
    found = verify_rim(document, anchors=anchors.rim, at=(judgement.at or now()).rim, verifier=EcdsaVerifier())
    facts: JsonObject = {
        "id": rim_id or rim_id_of(document, name),
        "product": document.product,
        "edition": document.edition,
        "version": document.version,
        "golden_values": len(document.golden),
        "minimum_svn": len(document.min_svn),
        "signer": document.certificates[0].subject if document.certificates else None,
        "verified": found.verified is not None,
        "in_validity": found.chain.in_validity,
        "detail": found.detail,
        "anchors": anchors.label,
    }
    state = "signature and chain are good" if found.verified is not None else "NOT VERIFIED"
    return facts, [f"  {state}; revocation is not looked at here", *_members(facts)]


def _ocsp(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.pki.ocsp import parse_ocsp_response

    response = parse_ocsp_response(data)
    times = ("produced_at", "this_update", "next_update", "revoked_at")
    facts: JsonObject = {
        "responder_status": response.responder_status,
        "serial": f"{response.serial:x}" if response.serial is not None else None,
        "status": response.status.value if response.status is not None else None,
        "reason": response.reason,
        **{name: format_time(value) if (value := getattr(response, name)) is not None else None for name in times},
        "nonce": response.nonce.hex() if response.nonce is not None else None,
        "certificates": [certificate.label for certificate in response.certificates],
    }
    return facts, ["  NOT VERIFIED: the certificate that it is about is not in it", *_members(facts)]


def _certificates(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest._documents import load_json
    from nvattest.pki.anchors import NVIDIA_ANCHORS
    from nvattest.pki.certificate import parse_certificate, parse_pem_chain
    from nvattest.token.keyring import parse_x5c

    if data.lstrip()[:1] == b"{":
        document = load_json(data, source="x5c", maximum=len(data), file=True)
        chain = parse_x5c(document["x5c"] if isinstance(document, dict) else None, what="the file")
    else:
        chain = (parse_certificate(data),) if data[:1] == b"\x30" else parse_pem_chain(_blocks(data))
    found = [_certificate(item) for item in chain]
    pinned = [a.name for a in (*NVIDIA_ANCHORS.device, *NVIDIA_ANCHORS.rim) if any(a.matches(item) for item in chain)]
    lines = [f"  holds NVIDIA's pinned root {name}" for name in pinned] or ["  NVIDIA's pinned roots are not in it"]
    for facts in found:
        lines += [f"  {facts['subject']}", *_members(facts, leave=("subject",))]
    return {"certificates": found, "pinned": pinned}, lines


def _blocks(data: bytes) -> bytes:
    """The PEM blocks alone: tools write other text between them."""
    import re

    return b"\n".join(re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", data, re.DOTALL))


def _certificate(item: Certificate) -> JsonObject:
    return {
        "subject": item.subject,
        "issuer": item.issuer,
        "serial": f"{item.serial:x}",
        "not_before": format_time(item.not_before),
        "not_after": format_time(item.not_after),
        "sha256": item.sha256.hex(),
        "ca": item.is_ca is True,
        "self_issued": item.subject_der == item.issuer_der,
        "p384": item.is_p384,
    }


def _private_key(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.token.keys import SigningKey

    facts: JsonObject = {"thumbprint": SigningKey.from_pem(data).public.thumbprint}
    return facts, ["  keep it secret: its holder signs in your name", *_members(facts)]


def _public_key(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.token.keys import PublicKey

    facts: JsonObject = {"thumbprint": PublicKey.from_pem(data).thumbprint}
    return facts, _members(facts)


def _jwks(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.token.keyring import parse_jwks

    keys = [
        {"kid": kid, **{n: str(e[n]) for n in ("kty", "crv", "alg", "use") if n in e}}
        for kid, e in parse_jwks(data).items()
    ]
    return {"keys": keys}, [line for key in keys for line in _members(key)]


def _policy(data: bytes, name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.policy.relying_party import load_policy

    policy = load_policy(data, name=name)
    demands = policy.explain()
    facts = {"language": policy.language.value, "demands": list(demands)}
    return facts, [f"  {line}" for line in demands]


def _evidence_policy(data: bytes, name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.policy.evidence_policy import explain_evidence_policy, load_evidence_policy

    policy = load_evidence_policy(data, source=name)
    demands = explain_evidence_policy(policy)
    return {"demands": list(demands), "weakened": list(policy.weakenings)}, [f"  {line}" for line in demands]


def _cpu_collateral(data: bytes, _name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.pki.anchors import CPU_ANCHORS
    from nvattest.pki.certificate import Name
    from nvattest.tee.collateral import TdxCollateral, parse_collateral
    from nvattest.tee.issued import judge
    from nvattest.tee.snp import read_crl

    collateral = parse_collateral(data)
    issued = judge(collateral, CPU_ANCHORS)
    facts: JsonObject = {"maker": "AMD", "about": issued.about}
    if isinstance(collateral, TdxCollateral):
        facts |= {"maker": "Intel", "fmspc": collateral.fmspc, "tcb_evaluation": collateral.evaluation}
    else:
        lists = [read_crl(der) for der in collateral.crls]
        facts["revocation_lists"] = [f"{len(crl.serials)} revoked of {Name(crl.issuer_der).rfc4514()}" for crl in lists]
    facts |= {
        f"{item.name.replace(' ', '_')}_until": format_time(item.until) if item.until is not None else None
        for item in issued.windows
    }
    facts |= {"issued_by_maker": not issued.problem, "detail": issued.problem}
    state = f"NOT VERIFIED: {issued.problem}" if issued.problem else "all of it is signed below the maker's root"
    return facts, [f"  {state}; it is judged together with a quote", *_members(facts, leave=("detail",))]


def _cpu_policy(data: bytes, name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest.policy.cpu_policy import explain_cpu_policy, load_cpu_policy

    demands = explain_cpu_policy(load_cpu_policy(data, source=name))
    return {"demands": list(demands)}, [f"  {line}" for line in demands]


def _document(data: bytes, name: str, _judgement: Judgement) -> tuple[object, list[str]]:
    from nvattest._documents import load_json
    from nvattest.report.subjects import MAXIMUM

    document = load_json(data, source=name, maximum=MAXIMUM, file=True)
    return document, _members(document) if isinstance(document, dict) else []


_READERS: Mapping[str, Callable[[bytes, str, Judgement], tuple[object, list[str]]]] = {
    "bundle": _bundle,
    "evidence": _evidence,
    "rim": _rim,
    "ocsp": _ocsp,
    "certificates": _certificates,
    "private-key": _private_key,
    "public-key": _public_key,
    "jwks": _jwks,
    "policy": _policy,
    "evidence-policy": _evidence_policy,
    "cpu-collateral": _cpu_collateral,
    "cpu-policy": _cpu_policy,
    "record": _document,
    "doctor": _document,
    "report": _report,
    "quote": _quote,
    "nodes": _batch_lines,
    "answers": _batch_lines,
    "summary": _document,
    "bundle-folder": _document,
}


def _members(facts: Mapping[str, object], *, leave: tuple[str, ...] = ()) -> list[str]:
    """Each member as a line: name and value, lists joined, nothing for what is not there."""
    lines = []
    for name, value in facts.items():
        if name in leave or value in (None, "", [], ()):
            continue
        shown = "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        lines.append(f"    {name.replace('_', ' '):<15} {shown[:400]}")
    return lines
