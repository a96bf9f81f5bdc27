"""Which kind of file is this? For ``nvattest inspect``, and to name a file that an option does not want."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from nvattest._documents import file_text, load_json
from nvattest.errors import NvattestError, ParseError
from nvattest.report.subjects import MAXIMUM, recognise


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
    "rim": Kind("a RIM", "nvattest attest --rim-dir FOLDER, with the RIM in it"),
    "ocsp": Kind("an OCSP answer", "nvattest bundle create --ocsp-dir FOLDER, with the answer in it as *.der"),
    "certificates": Kind("certificates", "roots are for --trust-anchors FILE"),
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
    "nvattest-evidence-policy": "evidence-policy",
}
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_LOOKED_AT: Final = 64 * 1024


def kind_of_file(data: bytes) -> str | None:
    """The word in ``KINDS`` for the content of a file; None where it is none of them. Nothing in it is verified."""
    text = file_text(data)
    start = (text.encode() if isinstance(text, str) else text).lstrip()
    if data[:1] == b"\x30" and not start.startswith(b"0 "):
        return _kind_of_der(data)
    if start.startswith(b"<"):
        return "rim" if b"SoftwareIdentity" in start[:_LOOKED_AT] else None
    if (label := _PEM.search(start[:_LOOKED_AT])) is not None and not start.startswith((b"{", b"[")):
        words = label[1].decode("ascii")
        of = {"CERTIFICATE": "certificates", "PUBLIC KEY": "public-key"}
        return "private-key" if words.endswith("PRIVATE KEY") else of.get(words)
    return _kind_of_json(data, start) or _kind_of_policy(start)


def _kind_of_der(data: bytes) -> str | None:
    from nvattest.pki.certificate import parse_certificate
    from nvattest.pki.ocsp import parse_ocsp_response

    try:
        parse_ocsp_response(data)
        return "ocsp"
    except ParseError:
        pass
    try:
        parse_certificate(data)
        return "certificates"
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
            if isinstance(document.get("rim"), str) and "id" in document:
                return "rim"
    try:
        return recognise(data, source="file").kind
    except NvattestError:
        return None


def _kind_of_policy(start: bytes) -> str | None:
    from nvattest.policy.evidence_policy import FIELDS, load_evidence_policy
    from nvattest.policy.relying_party import is_relying_party_policy

    if is_relying_party_policy(start, name=""):
        return "policy"
    # A text without any key is the strict policy, and says nothing of what the file is.
    if not any(name.encode() in start for name in FIELDS):
        return None
    try:
        load_evidence_policy(start, source="file")
    except NvattestError:
        return None
    return "evidence-policy"
