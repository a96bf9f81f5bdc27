"""``nvattest explain``: what was checked, what failed, what it means and what to do, from a file or a single word.

``nvattest inspect FILE`` says of each file that nvattest reads or writes which kind it is, what is in it, and where it
is used.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nvattest._text import joined
from nvattest.cli.arguments import add_terminal_options, ignored, input_path, output_file, read, read_input, suggested
from nvattest.cli.output import is_terminal, print_json, say, terminal_for, write_file
from nvattest.errors import InputError, ParseError
from nvattest.model import format_time

if TYPE_CHECKING:
    from nvattest._documents import JsonObject
    from nvattest.cli.sources import Judgement
    from nvattest.model import VerificationTime
    from nvattest.pki.anchors import TrustAnchors
    from nvattest.report.subjects import Subject
    from nvattest.report.terminal import Terminal
    from nvattest.spdm.report import Report


_PAGE: Final = "a page can be made of a saved appraisal only"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject", nargs="?", type=suggested(_topics), metavar="FILE|CODE|CHECK",
        help="a saved result (attest -f json), a token, a bundle, '-' for stdin; or a result code, the name of a check "
        "or of an error. Nothing: all names",
    )  # fmt: skip
    parser.add_argument(
        "--all",
        action="store_true",
        help="the whole story of every device, not only of those that failed",
    )
    parser.add_argument("--device", metavar="LABEL", help="only this device, as GPU-3")
    parser.add_argument(
        "--html", type=output_file, metavar="FILE",
        help="write one self-contained page (needs the extra 'report'); open on it is what failed, with --all "
        "everything",
    )  # fmt: skip
    add_terminal_options(parser)


def _topics() -> list[str]:
    from nvattest.report.catalogue import entries

    return [entry.key for entry in entries()]


def run(options: argparse.Namespace) -> int:
    """Explain; the exit status says only whether that was possible, never the verdict."""
    name = options.subject
    terminal = terminal_for(color=options.color, width=options.width)
    as_json = options.format == "json"
    if name is None and is_terminal(sys.stdin):
        from nvattest.report.catalogue import render_index

        say(render_index(terminal), colour=terminal.color)
        return 0
    if name is not None and name != "-" and not os.path.exists(name):
        if options.html is not None:
            raise InputError(_PAGE, code="explain-format")
        ignored(options, ["all", "device"], f"{name} is a word, and these are about the devices of an appraisal")
        _explain_word(name, terminal, as_json=as_json)
        return 0
    from nvattest.report.subjects import MAXIMUM, recognise, refuse_evidence, subject_to_json

    source = "stdin" if name in (None, "-") else name
    try:
        data = read_input(name or "-", MAXIMUM)
    except InputError as error:
        if name is None:
            error.hint = "give a saved result (nvattest -f json attest > result.json), or the word of a code or check"
        raise
    try:
        subject = recognise(data, source=source)
    except InputError as error:
        raise _no_result(error, data, source) from None
    if subject.kind == "evidence":
        raise refuse_evidence(source)
    if subject.kind != "appraisal":
        ignored(options, ["all", "device"], f"this is no appraisal but a {subject.kind}")
    if options.html is not None:
        if subject.kind != "appraisal":
            raise InputError(
                f"{_PAGE}, and this is a {subject.kind}",
                code="explain-format",
                hint="nvattest -f json attest > appraisal.json",
            )
        from nvattest.report.page import report_page
        from nvattest.report.reading import read_appraisal

        page = report_page(
            read_appraisal(subject.document), source=os.path.basename(source),
            sha256=_sha256(data), everything=options.all, device=options.device,
        )  # fmt: skip
        write_file(options.html, page)
        say(f"{options.html}: {len(page.encode('utf-8'))} bytes, one file that needs nothing else")
    elif as_json:
        print_json("explain", subject_to_json(subject))
    else:
        text = _text_of(subject, terminal, source, everything=options.all, device=options.device)
        say(text, colour=terminal.color)
    return 0


def _no_result(error: InputError, data: bytes, source: str) -> InputError:
    """The error, or what the file is where it is one that ``nvattest inspect`` knows."""
    from nvattest.report.subjects import KINDS, kind_of_file

    found = kind_of_file(data)
    if found is None:
        return error
    message = f"{source} is {KINDS[found].words}, and no result"
    return InputError(message, code="explain-format", hint=f"nvattest inspect {source} says what is in it")


def _text_of(subject: Subject, terminal: Terminal, source: str, **shown: Any) -> str:
    from nvattest.report.reading import read_appraisal
    from nvattest.report.subjects import render_subject
    from nvattest.report.text import story

    if subject.kind == "appraisal":
        return story(read_appraisal(subject.document), terminal, **shown)
    return render_subject(subject, terminal, source=source)


def _explain_word(word: str, terminal: Terminal, *, as_json: bool) -> None:
    from nvattest._text import decimal
    from nvattest.report.catalogue import codes_of_status, find_entry, render_entry, render_status, similar

    entry, number = find_entry(word), decimal(word.strip(), 3)
    facts: JsonObject
    if entry is not None:
        facts, text = entry.to_json(), render_entry(entry, terminal)
    elif number is not None and (codes := codes_of_status(number)):
        named = [{"code": int(code), "name": code.name, "message": code.message} for code in codes]
        facts, text = {"kind": "status", "key": str(number), "codes": named}, render_status(number, terminal)
    else:
        near = similar(word)
        hint = f"did you mean {' or '.join(near)}?" if near else "nvattest explain without a word lists all of them"
        raise InputError(
            f"{word[:80]!r} is no file here, and no code, check or error", code="explain-unknown", hint=hint
        )
    if as_json:
        print_json("explain", facts)
    else:
        say(text, colour=terminal.color)


# --- inspect ----------------------------------------------------------------------------------------------------------


def add_arguments_inspect(parser: argparse.ArgumentParser) -> None:
    """The file, and what it is verified with where it can be verified alone."""
    from nvattest.cli import sources

    parser.add_argument(
        "file", nargs="?", default="-", type=input_path, metavar="FILE",
        help="evidence, bundle (a folder too), RIM, OCSP answer, token, certificates, key, policy, appraisal, lines of "
        "verify-batch, CPU quote or its collateral, or output of a command; also .gz; - or nothing is standard input",
    )  # fmt: skip
    sources.add_judgement_options(parser)
    add_terminal_options(parser)


def run_inspect(options: argparse.Namespace) -> int:
    """Say what the file is; 0 where it is known, whether good or bad.

    Raises:
        InputError: it is none of the files that nvattest reads or writes (``explain-format``), or cannot be read.
    """
    from nvattest.cli.sources import Judgement
    from nvattest.collateral.bundle import MANIFEST
    from nvattest.report.subjects import KINDS, MAXIMUM, kind_of_file, recognise, subject_to_json

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
    content: object
    if (reader := _READERS.get(kind)) is None:
        # What nvattest explain says of it.
        subject = recognise(data, source=name)
        content, text = subject_to_json(subject), _text_of(subject, terminal, name)
    else:
        content, lines = reader(data, os.path.basename(name), read(Judgement, options))
        text = joined(lines)
    if options.format == "json":
        print_json("inspection", {"kind": kind, "sha256": _sha256(data), "content": content})
    else:
        say(f"{name}: {words}", text, f"use: {use.replace('FILE', name)}", colour=terminal.color)
    return 0


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


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


class _Shown(NamedTuple):
    """What is in a file, as JSON and as lines."""

    content: object
    lines: list[str]


def _shown(head: str, facts: JsonObject, *, leave: tuple[str, ...] = ()) -> _Shown:
    return _Shown(facts, [f"  {head}", *_members(facts, leave=leave)])


def _members(facts: Mapping[str, object], *, leave: tuple[str, ...] = ()) -> list[str]:
    """Each member as a line: name and value, lists joined, nothing for what is not there."""
    lines = []
    for name, value in facts.items():
        if name in leave or value in (None, "", [], ()):
            continue
        shown = "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        lines.append(f"    {name.replace('_', ' '):<15} {shown[:400]}")
    return lines


def _judged(judgement: Judgement) -> tuple[TrustAnchors, VerificationTime]:
    from nvattest.cli.sources import trust_anchors
    from nvattest.session import now

    return trust_anchors(judgement.trust_anchors), judgement.at or now()


def _bundle(data: bytes, name: str, judgement: Judgement) -> _Shown:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import load_bundle
    from nvattest.collateral.inspection import inspect_bundle, render_inspection

    anchors, at = _judged(judgement)
    facts = inspect_bundle(load_bundle(data, origin=name), Verifier(anchors=anchors), at).facts
    return _Shown(facts, [f"  {line}" for line in render_inspection(facts).split("\n")])


def _evidence(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
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
            "report_sha256": _sha256(item.report),
        }
        try:
            facts |= _said(parse_report(item.report, item.kind))
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
        lines += [f"  {item.kind.label} {item.architecture.value}", *_members(facts, leave=("kind", "architecture"))]
    return _Shown({"devices": devices}, lines)


def _said(report: Report) -> JsonObject:
    """The nonce and the versions of a report."""
    versions = {name: value for name, value in sorted(report.fields._asdict().items()) if name.endswith("_version")}
    return {"nonce": report.request.nonce.hex(), **versions}


def _report(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
    from nvattest.report.subjects import report_of

    report = report_of(data)
    assert report is not None  # noqa: S101 - the kind of this file says so
    facts = {"device": report.kind.value, "report_sha256": _sha256(report.raw), **_said(report)}
    return _shown("NOT VERIFIED: without its certificates nothing vouches for it", facts)


def _quote(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
    from nvattest.tee.quote import parse_quote, read_quote_file

    quote = parse_quote(read_quote_file(data).quote)
    facts: JsonObject = {
        "provider": quote.kind.value,
        "version": quote.version,
        "report_data": quote.report_data.hex(),
        "measurement": quote.measurement.hex(),
        "registers": [register.hex() for register in quote.registers],
        "debug": quote.debug,
    }
    return _shown("NOT VERIFIED: what the quote says", facts)


def _batch_lines(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
    facts: JsonObject = {"lines": sum(1 for line in data.split(b"\n") if line.strip())}
    return _Shown(facts, _members(facts))


def _rim(data: bytes, name: str, judgement: Judgement) -> _Shown:
    from nvattest.collateral.gather import read_rim_answer
    from nvattest.pki.ecdsa import EcdsaVerifier
    from nvattest.rim.document import parse_rim
    from nvattest.rim.ids import rim_id_of
    from nvattest.rim.verify import verify_rim
    from nvattest.rim.xml import explained

    rim_id: str | None = None
    if data.lstrip()[:1] == b"{":
        rim_id, data = read_rim_answer(data, name, file=True)
    anchors, at = _judged(judgement)
    try:
        document = parse_rim(data)
    except ParseError as error:
        return _Shown({"error": str(error)}, [f"  NOT READABLE: {explained(error, data)}"])
    found = verify_rim(document, anchors=anchors.rim, at=at.rim, verifier=EcdsaVerifier())
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
    return _shown(f"{state}; revocation is not looked at here", facts)


def _ocsp(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
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
    return _shown("NOT VERIFIED: the certificate that it is about is not in it", facts)


def _certificates(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
    import re

    from nvattest._documents import load_json
    from nvattest.pki.anchors import NVIDIA_ANCHORS
    from nvattest.pki.certificate import parse_certificate, parse_pem_chain
    from nvattest.token.jose import parse_x5c

    if data.lstrip()[:1] == b"{":
        document = load_json(data, source="x5c", maximum=len(data), file=True)
        chain = parse_x5c(document["x5c"] if isinstance(document, dict) else None, what="the file")
    elif data[:1] == b"\x30":
        chain = (parse_certificate(data),)
    else:
        # The PEM blocks alone: tools write other text between them.
        blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", data, re.DOTALL)
        chain = parse_pem_chain(b"\n".join(blocks))
    found = [
        {
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
        for item in chain
    ]
    pinned = [a.name for a in (*NVIDIA_ANCHORS.device, *NVIDIA_ANCHORS.rim) if any(a.matches(item) for item in chain)]
    lines = [f"  holds NVIDIA's pinned root {name}" for name in pinned] or ["  NVIDIA's pinned roots are not in it"]
    for facts in found:
        lines += [f"  {facts['subject']}", *_members(facts, leave=("subject",))]
    return _Shown({"certificates": found, "pinned": pinned}, lines)


def _private_key(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
    from nvattest.token.jose import SigningKey

    facts: JsonObject = {"thumbprint": SigningKey.from_pem(data).public.thumbprint}
    return _shown("keep it secret: its holder signs in your name", facts)


def _public_key(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
    from nvattest.token.jose import PublicKey

    facts: JsonObject = {"thumbprint": PublicKey.from_pem(data).thumbprint}
    return _Shown(facts, _members(facts))


def _jwks(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
    from nvattest.token.jose import parse_jwks

    keys = [
        {"kid": kid, **{n: str(e[n]) for n in ("kty", "crv", "alg", "use") if n in e}}
        for kid, e in parse_jwks(data).items()
    ]
    return _Shown({"keys": keys}, [line for key in keys for line in _members(key)])


def _policy(data: bytes, name: str, _judgement: Judgement) -> _Shown:
    from nvattest.policy.relying_party import load_policy

    policy = load_policy(data, name=name)
    return _demands(policy.explain(), language=policy.language.value)


def _evidence_policy(data: bytes, name: str, _judgement: Judgement) -> _Shown:
    from nvattest.policy.evidence_policy import explain_evidence_policy, load_evidence_policy

    policy = load_evidence_policy(data, source=name)
    return _demands(explain_evidence_policy(policy), weakened=list(policy.weakenings))


def _cpu_policy(data: bytes, name: str, _judgement: Judgement) -> _Shown:
    from nvattest.policy.cpu_policy import explain_cpu_policy, load_cpu_policy

    return _demands(explain_cpu_policy(load_cpu_policy(data, source=name)))


def _demands(demands: Iterable[str], **more: object) -> _Shown:
    lines = list(demands)
    return _Shown({"demands": lines, **more}, [f"  {line}" for line in lines])


def _cpu_collateral(data: bytes, _name: str, _judgement: Judgement) -> _Shown:
    from nvattest.pki.anchors import CPU_ANCHORS
    from nvattest.pki.certificate import Name
    from nvattest.tee.collateral import TdxCollateral, judge, parse_collateral, read_crl

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
    return _shown(f"{state}; it is judged together with a quote", facts, leave=("detail",))


def _document(data: bytes, name: str, _judgement: Judgement) -> _Shown:
    from nvattest._documents import load_json
    from nvattest.report.subjects import MAXIMUM

    document = load_json(data, source=name, maximum=MAXIMUM, file=True)
    return _Shown(document, _members(document) if isinstance(document, dict) else [])


_READERS: Final[Mapping[str, Callable[[bytes, str, Judgement], _Shown]]] = {
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
