"""Which kind of file is this? For ``nvattest inspect``, and to name a file that an option does not want."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._documents import file_text, load_json
from nvattest._text import hex_bytes
from nvattest.errors import NvattestError, ParseError
from nvattest.model import DeviceKind
from nvattest.report.subjects import MAXIMUM, recognise

if TYPE_CHECKING:
    from nvattest.spdm.report import Report


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


def _kind_of_der(data: bytes) -> str | None:
    from nvattest.pki.certificate import parse_certificate
    from nvattest.pki.ocsp import parse_ocsp_response
    from nvattest.tee.collateral import parse_snp_collateral

    try:
        parse_ocsp_response(data)
        return "ocsp"
    except ParseError:
        pass
    try:
        parse_certificate(data)
        return "certificates"
    except ParseError:
        pass
    try:
        parse_snp_collateral(data)
        return "cpu-collateral"
    except ParseError:
        return None


def _kind_of_json(data: bytes, start: bytes) -> str | None:
    if start.startswith(b"{"):
        try:
            document = load_json(data, source="file", maximum=MAXIMUM, file=True)
        except ParseError:
            return None
        if isinstance(document, dict):
            if (named := _FORMATS.get(str(document.get("format")))) is not None:
                return named
            if "authorization-rules" in document:
                return "policy"
            if isinstance(document.get("keys"), list):
                return "jwks"
            if "tcb_info" in document and "qe_identity" in document:
                return "cpu-collateral"
            if isinstance(document.get("x5c"), list):
                return "certificates"
            if isinstance(document.get("rim"), str) and "id" in document:
                return "rim"
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
    from nvattest.tee.issued import endorsement_keys

    try:
        held = parse_snp_collateral(data)
        return bool(held.crls) or bool(endorsement_keys(held))
    except ParseError:
        return False


def _kind_of_policy(start: bytes) -> str | None:
    from nvattest.policy.cpu_policy import is_cpu_policy, load_cpu_policy
    from nvattest.policy.evidence_policy import FIELDS, load_evidence_policy
    from nvattest.policy.relying_party import is_relying_party_policy

    if is_relying_party_policy(start, name=""):
        return "policy"
    if is_cpu_policy(start):
        try:
            load_cpu_policy(start, source="file")
            return "cpu-policy"
        except NvattestError:
            return None
    # A text without any key is the strict policy, and says nothing of what the file is.
    if not any(name.encode() in start for name in FIELDS):
        return None
    try:
        load_evidence_policy(start, source="file")
    except NvattestError:
        return None
    return "evidence-policy"
