"""What a file is that somebody wants explained: an appraisal, a token, claims, a bundle, evidence, or an error."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Final

from nvattest._documents import kind_of, load_json
from nvattest.errors import InputError, ParseError
from nvattest.report.reading import is_appraisal
from nvattest.report.values import JsonObject

MAXIMUM: Final = 64 * 1024 * 1024
_MAXIMUM_PART: Final = 1024 * 1024
_MAXIMUM_TOKENS: Final = 512
_JWT: Final = re.compile(r"[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
# The header of a JWT is an object. Other text with two dots, such as the id of a RIM, is none.
_HEADER: Final = re.compile(r"e[w-z0-9_-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One JWT, taken apart and not verified. ``name`` is its place in a detached EAT ("" for the overall one)."""

    name: str
    header: JsonObject
    claims: JsonObject
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was recognised. Exactly the members that belong to ``kind`` are set.

    ``kind`` is ``appraisal``, ``token``, ``claims``, ``bundle``, ``result`` or ``error``. ``result`` is
    also set for claims out of one: what the program that wrote them said beside them, as of a simulation.
    """

    kind: str
    appraisal: JsonObject | None = None
    tokens: tuple[Token, ...] = ()
    claims: tuple[tuple[str, JsonObject], ...] = ()
    data: bytes = b""
    result: JsonObject | None = None
    error: JsonObject | None = None


def recognise(data: bytes, *, source: str) -> Subject:
    """Say what ``data`` is.

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
        return Subject(kind="token", tokens=(_token("", single),))
    document = load_json(data, source=source, maximum=MAXIMUM, file=True)
    if isinstance(document, dict):
        return _object(document, data, source)
    tokens = _tokens(document)
    if tokens:
        return Subject(kind="token", tokens=tokens)
    if isinstance(document, list):
        if document and all(isinstance(entry, dict) and "evidence" in entry for entry in document):
            raise _evidence(source)
        if document and all(isinstance(entry, dict) and _looks_like_claims(entry) for entry in document):
            named = [
                (f"device {position}", entry) for position, entry in enumerate(document) if isinstance(entry, dict)
            ]
            return Subject(kind="claims", claims=tuple(named))
    raise _unknown(
        f"{source}: {kind_of(document)} that is no result", "see nvattest explain --help for what can be explained"
    )


def _object(document: dict[str, object], data: bytes, source: str) -> Subject:
    if is_appraisal(document):
        return Subject(kind="appraisal", appraisal=document)
    inner = document.get("appraisal")
    if is_appraisal(inner) and isinstance(inner, dict):
        return Subject(kind="appraisal", appraisal=inner)
    if document.get("format") == "nvattest-bundle":
        return Subject(kind="bundle", data=data)
    for member in ("detached_eat", "token", "ear"):
        tokens = _tokens(document.get(member))
        if tokens:
            return Subject(kind="token", tokens=tokens)
    tokens = _tokens(document)
    if tokens:
        return Subject(kind="token", tokens=tokens)
    if any(name in document for name in ("evidences", "evidence_list", "device_evidence_list")):
        raise _evidence(source)
    claims = document.get("claims")
    result = (
        {name: value for name, value in document.items() if name != "claims"} if "result_code" in document else None
    )
    if isinstance(claims, dict | list) and claims:
        members = claims.items() if isinstance(claims, dict) else ((f"device {i}", c) for i, c in enumerate(claims))
        named = tuple((str(name)[:80], value) for name, value in members if isinstance(value, dict))
        if named:
            return Subject(kind="claims", claims=named[:_MAXIMUM_TOKENS], result=result)
        named = (("claims", claims if isinstance(claims, dict) else {}),)
        return Subject(kind="claims", claims=named, result=result)
    if result is not None and not isinstance(document.get("error"), dict):
        return Subject(kind="result", result=result)
    if result is not None:
        return Subject(kind="error", error=document)
    if _looks_like_claims(document):
        return Subject(kind="claims", claims=(("claims", document),))
    if _holds_evidence(document):
        raise _evidence(source)
    kind = document.get("format")
    said = f" of the format {str(kind)[:60]!r}" if isinstance(kind, str) else ""
    raise _unknown(
        f"{source} is JSON{said}, and no result", "give the output of nvattest -f json attest, a token or a bundle"
    )


def _holds_evidence(document: dict[str, object]) -> bool:
    """Whether ``attest`` would read evidence in it: a CMW collection, or a member of a service's answer."""
    from nvattest.evidence import read_evidence

    try:
        return bool(read_evidence(document))
    except ParseError:
        return False


def _looks_like_claims(document: dict[str, object]) -> bool:
    return any(
        name.startswith(("x-nvidia-", "x-nv-", "eat_", "ear.")) or name in ("measres", "submods") for name in document
    )


def _tokens(value: object) -> tuple[Token, ...]:
    """The JWTs of a detached EAT, ``[["JWT", overall], {"GPU-0": token}]``, of an object of them, or a lone one."""
    found: list[Token] = []

    def walk(name: str, part: object, depth: int) -> None:
        if len(found) >= _MAXIMUM_TOKENS or depth > 4:
            return
        if isinstance(part, str):
            if _HEADER.match(part) and _JWT.fullmatch(part):
                found.append(_token(name, part))
        elif isinstance(part, list):
            for entry in part:
                walk(name, entry, depth + 1)
        elif isinstance(part, dict):
            for key, entry in part.items():
                walk(str(key)[:80], entry, depth + 1)

    walk("", value, 0)
    return tuple(found)


def _token(name: str, text: str) -> Token:
    header, claims, _ = text.split(".")
    try:
        return Token(name=name, header=_part(header), claims=_part(claims))
    except (ParseError, binascii.Error, ValueError) as error:
        return Token(name=name, header={}, claims={}, fault=f"it cannot be read: {error}"[:200])


def _part(text: str) -> JsonObject:
    if len(text) > _MAXIMUM_PART:
        raise ValueError(f"{len(text)} characters, at most {_MAXIMUM_PART} are read")
    document = load_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), source="token", maximum=_MAXIMUM_PART)
    if not isinstance(document, dict):
        raise ValueError(f"{kind_of(document)} where an object belongs")  # noqa: TRY004 - a value of the token
    return document


def compact(value: object) -> str:
    """A JSON value in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _evidence(source: str) -> InputError:
    return _unknown(
        f"{source} is evidence, which says nothing before it is verified",
        "verify it first: nvattest -f json attest --gpu-evidence-file FILE --nonce HEX > "
        "appraisal.json, and explain that",
    )


def _unknown(message: str, hint: str) -> InputError:
    return InputError(message, code="explain-format", hint=hint)
