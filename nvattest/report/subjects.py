"""Which kind of file is this, and what does it say? Tokens, claims, bundles, results and errors as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._documents import JsonObject, file_text, kind_of, load_json
from nvattest._text import clean, hex_bytes
from nvattest.errors import InputError, NvattestError, ParseError, TokenError
from nvattest.model import SIMULATED, DeviceKind, format_time
from nvattest.report.catalogue import diagnose, entry_lines, failures, find_entry
from nvattest.report.reading import AppraisalView, flag, is_appraisal, item, number, read_appraisal, read_guest, text
from nvattest.report.terminal import Terminal

if TYPE_CHECKING:
    from nvattest.collateral.inspection import Inspection
    from nvattest.spdm.report import Report

_TIMES: Final = ("iat", "nbf", "exp")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_VOUCHERS: Final = ("token", "guest", "verified_by")
_MAXIMUM_CLAIMS: Final = 200
MAXIMUM: Final = 64 * 1024 * 1024
_MAXIMUM_TOKENS: Final = 512
_JWT: Final = re.compile(r"[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
# The header of a JWT is an object. Other text with two dots, such as the id of a RIM, is none.
_HEADER: Final = re.compile(r"e[w-z0-9_-]")


class UnverifiedToken(NamedTuple):
    """One JWT, taken apart and not verified. ``name`` is its place in a detached EAT ("" for the overall one)."""

    name: str
    header: JsonObject
    claims: JsonObject
    fault: str = ""


class Subject(NamedTuple):
    """What was recognised; only the members that belong to ``kind`` are set.

    ``kind`` is ``appraisal``, ``token``, ``claims``, ``bundle``, ``result``, ``error`` or ``evidence``. Beside claims
    ``document`` is the result that held them: what the program that wrote them said, such as that they are simulated.
    ``notices`` say what of claims their reader had to let pass.
    """

    kind: str
    document: JsonObject | None = None
    tokens: tuple[UnverifiedToken, ...] = ()
    claims: tuple[tuple[str, JsonObject], ...] = ()
    data: bytes = b""
    notices: tuple[str, ...] = ()


def recognise(data: bytes, *, source: str) -> Subject:
    """Recognise what ``data`` is.

    Raises:
        ParseError: no JSON and no token.
        InputError: JSON that cannot be explained, with a hint what to do with it (``explain-format``).
    """
    if len(data) > MAXIMUM:
        raise InputError(f"{source}: {len(data)} bytes, at most {MAXIMUM} are read", code="too-large")
    stripped = data.strip()
    if not stripped:
        raise _unknown(f"{source} is empty", "give a saved appraisal: nvattest -f json attest > appraisal.json")
    single = stripped.decode("ascii", "replace")
    if _JWT.fullmatch(single):
        return Subject("token", tokens=(_token("", single),))
    repeated: list[str] = []
    try:
        subject = _subject(load_json(data, source=source, maximum=MAXIMUM, file=True, repeated=repeated), data, source)
        if repeated and subject.kind != "claims":
            # NVIDIA's tools write a claim twice. What is signed or ours has each member once, and this raises.
            load_json(data, source=source, maximum=MAXIMUM, file=True)
    except ParseError as error:
        error.hint = error.hint or "results are saved with -f json: nvattest -f json attest > result.json"
        raise
    notices = [f"The member {key[:80]!r} is there twice in one object, with the same value." for key in repeated]
    return subject._replace(notices=tuple(notices[:_MAXIMUM_TOKENS]))


def _subject(document: object, data: bytes, source: str) -> Subject:
    if isinstance(document, dict):
        return _object(document, data, source)
    if tokens := _tokens(document):
        return Subject("token", tokens=tokens)
    if isinstance(document, list) and document:
        entries = [entry for entry in document if isinstance(entry, dict)]
        if len(entries) == len(document) and all("evidence" in entry for entry in entries):
            return Subject("evidence", data=data)
        if len(entries) == len(document) and all(_looks_like_claims(entry) for entry in entries):
            return Subject("claims", claims=_by_place(entries))
    raise _unknown(
        f"{source}: {kind_of(document)} that is no result", "see nvattest explain --help for what can be explained"
    )


def _by_place(entries: Sequence[object]) -> tuple[tuple[str, JsonObject], ...]:
    return tuple((f"device {place}", entry) for place, entry in enumerate(entries) if isinstance(entry, dict))


def _object(document: JsonObject, data: bytes, source: str) -> Subject:
    for appraisal in (document, document.get("appraisal")):
        if isinstance(appraisal, dict) and is_appraisal(appraisal):
            return Subject("appraisal", appraisal)
    if document.get("format") == "nvattest-bundle":
        return Subject("bundle", data=data)
    for part in (*(document.get(member) for member in ("detached_eat", "token", "ear")), document):
        if tokens := _tokens(part):
            return Subject("token", tokens=tokens)
    if any(name in document for name in ("evidences", "evidence_list", "device_evidence_list")):
        return Subject("evidence", data=data)
    rest = {name: value for name, value in document.items() if name != "claims"}
    result = rest if "result_code" in document else None
    claims = document.get("claims")
    if isinstance(claims, dict | list) and claims:
        named = _by_place(claims) if isinstance(claims, list) else _by_name(claims)
        named = named or (("claims", claims if isinstance(claims, dict) else {}),)
        return Subject("claims", result, claims=named[:_MAXIMUM_TOKENS])
    if result is not None:
        failed = isinstance(document.get("error"), dict)
        return Subject("error", document) if failed else Subject("result", result)
    if _looks_like_claims(document):
        return Subject("claims", claims=(("claims", document),))
    by_name = _by_name(document)
    if document and len(by_name) == len(document) and all(_looks_like_claims(entry) for _, entry in by_name):
        return Subject("claims", claims=by_name[:_MAXIMUM_TOKENS])
    if _holds_evidence(document):
        return Subject("evidence", data=data)
    kind = document.get("format")
    said = f" of the format {kind[:60]!r}" if isinstance(kind, str) else ""
    raise _unknown(
        f"{source} is JSON{said}, and no result", "give the output of nvattest -f json attest, a token or a bundle"
    )


def _by_name(members: JsonObject) -> tuple[tuple[str, JsonObject], ...]:
    return tuple((name[:80], value) for name, value in members.items() if isinstance(value, dict))


def _holds_evidence(document: JsonObject) -> bool:
    """Whether ``attest`` would read evidence in it: a CMW collection, or a member of a service's answer."""
    from nvattest.evidence import read_evidence

    try:
        return bool(read_evidence(document))
    except ParseError:
        return False


def _looks_like_claims(document: JsonObject) -> bool:
    return any(
        name.startswith(("x-nvidia-", "x-nv-", "eat_", "ear.")) or name in ("measres", "submods") for name in document
    )


def _tokens(value: object) -> tuple[UnverifiedToken, ...]:
    """The JWTs of a detached EAT, ``[["JWT", overall], {"GPU-0": token}]``, of an object of them, or a lone one."""
    return tuple(islice(_walk("", value), _MAXIMUM_TOKENS))


def _walk(name: str, part: object, depth: int = 0) -> Iterator[UnverifiedToken]:
    if isinstance(part, str) and _HEADER.match(part) and _JWT.fullmatch(part):
        yield _token(name, part)
    elif isinstance(part, list | dict) and depth < 4:
        members = part.items() if isinstance(part, dict) else ((name, entry) for entry in part)
        for key, entry in members:
            yield from _walk(str(key)[:80], entry, depth + 1)


def _token(name: str, text: str) -> UnverifiedToken:
    # Loaded here: most of what is explained is no token.
    from nvattest.token.jose import jwt_part

    header, claims, _ = text.split(".")
    try:
        return UnverifiedToken(name=name, header=jwt_part(header, "header"), claims=jwt_part(claims, "payload"))
    except TokenError as error:
        return UnverifiedToken(name=name, header={}, claims={}, fault=f"it cannot be read: {error}"[:200])


def refuse_evidence(source: str) -> InputError:
    """The error for evidence where a result is to be explained."""
    return _unknown(
        f"{source} is evidence, which says nothing before it is verified",
        "verify it first: nvattest -f json attest --gpu-evidence-file FILE --nonce HEX > "
        "appraisal.json, and explain that",
    )


def _unknown(message: str, hint: str) -> InputError:
    return InputError(message, code="explain-format", hint=hint)


# --- kinds of files ---------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What a file of this kind is called, and where it is used."""

    words: str
    use: str


KINDS: Final[Mapping[str, Kind]] = {
    "appraisal": Kind("an appraisal", "nvattest explain FILE"),
    "token": Kind("a token", "nvattest verify-token FILE --nonce HEX"),
    "claims": Kind("claims", "nvattest policy check POLICY --claims FILE"),
    "bundle": Kind("a bundle", "nvattest attest --bundle FILE"),
    "result": Kind("the output of a command", "nvattest explain FILE"),
    "error": Kind("the error of a command", "nvattest explain FILE"),
    "evidence": Kind("evidence", "nvattest attest --gpu-evidence-file FILE, of switches --nvswitch-evidence-file FILE"),
    "report": Kind("a report without its certificates", "the report and its chain, in JSON, are evidence"),
    "nodes": Kind("lines of nodes", "nvattest verify-batch --input FILE"),
    "answers": Kind("answers of verify-batch", "nvattest verify-batch --resume --output FILE"),
    "summary": Kind("the sums of verify-batch", "nvattest verify-batch --summary FILE"),
    "bundle-folder": Kind("the manifest of a bundle", "nvattest attest --bundle FOLDER, with the manifest in it"),
    "quote": Kind("a quote of the CPU", "nvattest verify-token --tee-quote FILE"),
    "cpu-collateral": Kind("collateral of CPU quotes", "nvattest verify-token --tee-collateral FILE"),
    "cpu-policy": Kind("a CPU policy", "nvattest verify-token --cpu-policy FILE"),
    "rim": Kind("a RIM", "nvattest attest --rim-dir FOLDER, with the RIM in it"),
    "ocsp": Kind("an OCSP answer", "nvattest bundle create --ocsp-dir FOLDER, with the answer in it as *.der"),
    "certificates": Kind("certificates", "nvattest attest --trust-anchors FILE, of roots"),
    "private-key": Kind("a private key", "nvattest attest --signing-key FILE"),
    "public-key": Kind("a public key", "nvattest verify-token --key FILE"),
    "jwks": Kind("a key set", "nvattest verify-token --jwks FILE"),
    "evidence-policy": Kind("an evidence policy", "nvattest attest --policy FILE"),
    "policy": Kind("a relying party's policy", "nvattest attest --relying-party-policy FILE"),
    "record": Kind("the state of the hook", "nvattest hook status"),
    "doctor": Kind("findings of nvattest doctor", "nvattest doctor"),
}
_FORMATS: Final = {
    "nvattest-hook-state": "record",
    "nvattest-doctor": "doctor",
    "nvattest-batch-summary": "summary",
    "nvattest-bundle-folder": "bundle-folder",
    "nvattest-tee-quote": "quote",
    "nvattest-evidence-policy": "evidence-policy",
    "nvattest-cpu-policy": "cpu-policy",
}
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_LOOKED_AT: Final = 64 * 1024


def kind_of_file(data: bytes) -> str | None:
    """The word in ``KINDS`` for the content of a file; None where it is none of them. Nothing in it is verified."""
    text = file_text(data)
    start = (text.encode() if isinstance(text, str) else text).lstrip()
    if data[:1] == b"\x30" and not start.startswith(b"0 "):
        return _kind_of_der(data)
    if report_of(data) is not None:
        return "report"
    if _is_quote(data):
        return "quote"
    if start.startswith(b"<"):
        return "rim" if b"SoftwareIdentity" in start[:_LOOKED_AT] else None
    label = _PEM.search(start[:_LOOKED_AT])
    # Tools write text before PEM. Behind other bytes it is a part of them, as in a quote that is cut off.
    if label is not None and not start.startswith((b"{", b"[")) and b"\0" not in start[: label.start()]:
        words = label[1].decode("ascii")
        of = {"CERTIFICATE": "certificates", "PUBLIC KEY": "public-key", "X509 CRL": "cpu-collateral"}
        if words == "CERTIFICATE" and _is_amd(data):
            return "cpu-collateral"
        return "private-key" if words.endswith("PRIVATE KEY") else of.get(words)
    return _kind_of_lines(start) or _kind_of_json(data, start) or _kind_of_policy(start)


def _reads(parse: Callable[[bytes], object], data: bytes) -> bool:
    try:
        parse(data)
    except NvattestError:
        return False
    return True


def _kind_of_der(data: bytes) -> str | None:
    from nvattest.pki.certificate import parse_certificate
    from nvattest.pki.ocsp import parse_ocsp_response
    from nvattest.tee.collateral import parse_snp_collateral

    readers: dict[str, Callable[[bytes], object]]
    readers = {"ocsp": parse_ocsp_response, "certificates": parse_certificate, "cpu-collateral": parse_snp_collateral}
    return next((kind for kind, parse in readers.items() if _reads(parse, data)), None)


def _kind_of_json(data: bytes, start: bytes) -> str | None:
    if start.startswith(b"{"):
        try:
            document = load_json(data, source="file", maximum=MAXIMUM, file=True)
        except ParseError:
            document = None
        if isinstance(document, dict):
            marks = {
                "policy": "authorization-rules" in document,
                "jwks": isinstance(document.get("keys"), list),
                "cpu-collateral": "tcb_info" in document and "qe_identity" in document,
                "certificates": isinstance(document.get("x5c"), list),
                "rim": isinstance(document.get("rim"), str) and "id" in document,
            }
            marked = next((kind for kind, there in marks.items() if there), None)
            if named := _FORMATS.get(str(document.get("format")), marked):
                return named
    try:
        return recognise(data, source="file").kind
    except NvattestError:
        return None


def _kind_of_lines(start: bytes) -> str | None:
    """The input or the output of ``verify-batch``, as its first line says."""
    first = start.split(b"\n", 1)[0]
    if b'"id"' not in first:
        return None
    try:
        line = load_json(first, source="line", maximum=MAXIMUM)
    except ParseError:
        return None
    if not isinstance(line, dict) or "id" not in line:
        return None
    if line.get("format") == "nvattest-batch" or {"trusted", "result_code", "devices"} <= line.keys():
        return "answers"
    return "nodes" if {"nonce", "evidence"} <= line.keys() else None


def report_of(data: bytes) -> Report | None:
    """The report that a file holds as bytes or as hexadecimal digits, without any certificate."""
    from nvattest.spdm.report import MAXIMUM_SIZE, parse_report

    if len(data) > 3 * MAXIMUM_SIZE:
        return None
    raw = hex_bytes(data.strip().decode("ascii", "replace")) or data
    for kind in DeviceKind:
        with suppress(ParseError):
            return parse_report(raw, kind)
    return None


def _is_quote(data: bytes) -> bool:
    from nvattest.tee.quote import parse_quote

    try:
        parse_quote(data)
    except ParseError as error:
        # Azure's report is known for what it is, and its reader says why it is not supported.
        return error.code == "quote-hcl"
    return True


def _is_amd(data: bytes) -> bool:
    """Whether PEM holds a revocation list among its certificates, or a VCEK or VLEK, which no other reader takes."""
    from nvattest.tee.collateral import parse_snp_collateral

    try:
        held = parse_snp_collateral(data)
        return bool(held.crls) or bool(held.endorsement_keys())
    except ParseError:
        return False


def _kind_of_policy(start: bytes) -> str | None:
    from nvattest.policy.cpu_policy import is_cpu_policy, load_cpu_policy
    from nvattest.policy.evidence_policy import FIELDS, load_evidence_policy
    from nvattest.policy.relying_party import is_relying_party_policy

    if is_relying_party_policy(start, name=""):
        return "policy"
    if is_cpu_policy(start):
        return "cpu-policy" if _reads(partial(load_cpu_policy, source="file"), start) else None
    # A text without any key is the strict policy, and says nothing of what the file is.
    named = any(name.encode() in start for name in FIELDS)
    return "evidence-policy" if named and _reads(partial(load_evidence_policy, source="file"), start) else None


# --- shown ------------------------------------------------------------------------------------------------------------


def render_subject(subject: Subject, terminal: Terminal, *, source: str) -> str:
    """A token, claims, a bundle, a result or an error as text; ``text`` renders appraisals.

    Raises:
        ParseError: the bundle is none after all.
    """
    document = subject.document or {}
    if subject.kind == "token":
        lines = _tokens_shown(subject.tokens, terminal)
    elif subject.kind == "claims":
        lines = _banner("These are claims without a token around them.", terminal)
        for notice in subject.notices:
            lines += terminal.wrap(clean(notice), first="  ")
        lines += [*_result(document, terminal), *_guest(document, terminal)] if document else []
        for name, claims in subject.claims:
            lines += ["", terminal.paint(f"  {clean(name)}", "bold"), *_claims(claims, terminal)]
    elif subject.kind == "bundle":
        lines = _bundle(subject.data, source, terminal)
    elif subject.kind == "result":
        lines = [*_banner("This is what a program said of its result.", terminal), *_result(document, terminal)]
    else:
        lines = _error(document, terminal)
    return terminal.finish(lines)


def subject_to_json(subject: Subject) -> dict[str, object]:
    """A subject for programs: of an appraisal what failed, why it may have, and what to do.

    Raises:
        ParseError: the bundle is none after all.
    """
    kind = {"kind": subject.kind}
    if subject.kind == "appraisal":
        return {**kind, **_appraisal_to_json(read_appraisal(subject.document))}
    if subject.kind == "token":
        return {**kind, "tokens": [token._asdict() for token in subject.tokens], "verified": False}
    if subject.kind == "bundle":
        return {**kind, "bundle": _inspect(subject.data, "").facts}
    if subject.kind == "error":
        return {**kind, "error": subject.document}
    more = {"result": subject.document, "notices": list(subject.notices)}
    said = {name: value for name, value in more.items() if value}
    return {**kind, "claims": dict(subject.claims), "verified": False, **said}


def _appraisal_to_json(view: AppraisalView) -> dict[str, object]:
    found = [
        {
            "check": check.id,
            "step": check.step,
            "devices": list(failure.devices),
            "detail": check.detail,
            "expected": check.expected,
            "found": check.found,
            **diagnose(check, view)._asdict(),
        }
        # What people see as one failure is one entry per check here.
        for failure in failures(view)
        for check in failure.checks
    ]
    shown = {name: getattr(view, name) for name in ("trusted", "result_code", "simulated", "notices")}
    return {**shown, "failures": found}


def _guest(result: JsonObject, terminal: Terminal) -> list[str]:
    """The guest that verify-token judged beside the token, with what to do where it is refused."""
    if not isinstance(result.get("guest"), dict):
        return []
    from nvattest.report.text import guest_story

    guest = read_guest(item(result, "guest"))
    lines = ["", *guest_story(guest, terminal)]
    for check in guest.checks.failures:
        if check.hint:
            lines += ["", *terminal.wrap(f"{check.id}: {check.hint}", first="  next: ")]
            lines += terminal.points([f"$ nvattest explain {check.id}"], indent="        ")
    return lines


def _banner(what: str, terminal: Terminal) -> list[str]:
    sign = terminal.sign("▲", "!")
    return terminal.wrap(f"NOT VERIFIED. {what} Anyone can write such a file.", first=f"{sign} ", style="warn bold")


def _tokens_shown(tokens: tuple[UnverifiedToken, ...], terminal: Terminal) -> list[str]:
    count = "One token" if len(tokens) == 1 else f"{len(tokens)} tokens"
    lines = _banner("This is what the token says; its signature, times and nonce are not checked here.", terminal)
    lines += ["  Check it with nvattest verify-token.", "", f"{count}:"]
    for token in tokens:
        lines += ["", *_token_shown(token, terminal)]
    return lines


def _token_shown(token: UnverifiedToken, terminal: Terminal) -> list[str]:
    name = clean(token.name) or "overall token"
    lines = terminal.heading(name)
    if token.fault:
        return [*lines, *terminal.wrap(clean(token.fault), first="  ", style="bad")]
    algorithm, issuer = text(token.header, "alg", "none"), text(token.claims, "iss", "not named")
    signed = f"signed with {algorithm}, key {text(token.header, 'kid', 'not named')}, by {issuer}"
    lines += terminal.wrap(signed, first="  ")
    if algorithm.lower() == "none":
        lines += [terminal.paint("  It has no signature at all: it is evidence of nothing.", "bad")]
    elif algorithm.upper().startswith("HS"):
        warning = (
            "The key is a shared secret, so that every verifier could have written the token: NVIDIA's old Python SDK "
            "signs so. It is no evidence to others."
        )
        lines += terminal.wrap(warning, first="  ", style="bad")
    times = [f"{key} {_instant(token.claims, key)}" for key in _TIMES if number(token.claims.get(key)) is not None]
    lines += terminal.wrap(", ".join(times) or "no times: neither issued, valid from nor expiring", first="  ")
    if number(token.claims.get("exp")) is None:
        lines += [terminal.paint("  It never expires: a verifier must refuse it.", "bad")]
    rest = {key: value for key, value in token.claims.items() if key not in (*_TIMES, "iss", "submods")}
    lines += ["", *_claims(rest, terminal)]
    for key, value in list(item(token.claims, "submods").items())[:64]:
        lines += ["", terminal.paint(f"  submodule {clean(str(key), 80)}", "bold")]
        plain = terminal.wrap(clean(_one_line(value)), first="    ")
        lines += _claims(value, terminal) if isinstance(value, dict) else plain
    return lines


def _instant(claims: JsonObject, key: str) -> str:
    seconds = number(claims.get(key)) or 0
    try:
        return format_time(_EPOCH + timedelta(seconds=seconds))
    except OverflowError:
        return f"out of range ({seconds})"


def _claims(claims: JsonObject, terminal: Terminal) -> list[str]:
    lines = []
    shown = sorted(list(claims.items())[:_MAXIMUM_CLAIMS])
    for key, value in shown:
        name = clean(str(key), 100)
        if isinstance(value, dict) and value:
            lines.append(f"    {name}")
            for inner, deep in list(value.items())[:32]:
                lines += _claim(clean(str(inner), 100), deep, terminal, indent=6)
        else:
            lines += _claim(name, value, terminal, indent=4)
    left = len(claims) - len(shown)
    return [*lines, f"    and {left} more claims"] if left else lines


def _claim(name: str, value: object, terminal: Terminal, *, indent: int) -> list[str]:
    said, style = clean(_one_line(value), 600), ""
    if value is False or said in ("fail", "contraindicated", "revoked", "expired", "invalid"):
        style = "bad"
    elif value is None or said in ("warning", "undefined", "unknown"):
        style = "warn"
    return terminal.wrap(f"{name}  {said}", first=" " * indent, rest=" " * (indent + 4), style=style)


def _one_line(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _result(result: JsonObject, terminal: Terminal) -> list[str]:
    """The result of ``verify-token``, a batch, a service or another command; that it is simulated comes first."""
    code, message = number(result.get("result_code")), text(result, "result_message")
    said = f"result code {code}: {message}" if message else f"result code {code}"
    lines = ["", *terminal.wrap(said, first="  ")]
    if any(flag(part.get("simulated")) for part in (result, *(item(result, name) for name in _VOUCHERS))):
        lines.append(terminal.paint(f"  {SIMULATED}", "warn", "bold"))
    apart = ["result_code", "result_message"]
    if isinstance(result.get("guest"), dict):
        apart += ["guest", "binding"]
    rest = {name: value for name, value in result.items() if name not in apart}
    return [*lines, *_claims(rest, terminal)]


def _inspect(data: bytes, source: str) -> Inspection:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import load_bundle
    from nvattest.collateral.inspection import inspect_bundle
    from nvattest.session import now

    return inspect_bundle(load_bundle(data, origin=source), Verifier(), now())


def _bundle(data: bytes, source: str, terminal: Terminal) -> list[str]:
    from nvattest.collateral.inspection import render_inspection

    lines = [terminal.paint("bundle", "bold") + "  RIMs and revocation answers in one file", terminal.rule()]
    for line in render_inspection(_inspect(data, source).facts).split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        lines += terminal.wrap(clean(line.strip()), first=indent, rest=indent + "    ")
    note = (
        "It is verified here under NVIDIA's roots as of now. Each use verifies every signature again, so that a bundle "
        "needs no trust of its own; it must only be complete and fresh."
    )
    return [*lines, "", *terminal.wrap(note, style="dim")]


def _error(document: JsonObject, terminal: Terminal) -> list[str]:
    code, problem = number(document.get("result_code")), item(document, "error")
    lines = [
        terminal.paint("Nothing was judged", "bad", "bold"),
        *terminal.wrap(f"result code {code}: {text(document, 'result_message', '?')}", first="  "),
    ]
    for member, first in (("message", "  "), ("hint", "  next: ")):
        lines += terminal.wrap(text(problem, member), first=first) if text(problem, member) else []
    word = text(problem, "code")
    entry = (find_entry(word) if word else None) or find_entry(str(code))
    return [*lines, *(["", *entry_lines(entry, terminal)] if entry is not None else [])]
