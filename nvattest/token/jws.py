"""Read one compact JWT strictly (RFC 7515, 7519, 8725).

Refused whatever the signature: any algorithm but ES384, critical extensions, keys that the token brings along, another
type, members that appear twice, base64url that is not canonical.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Final, NamedTuple

from nvattest._documents import JsonObject, kind_of, load_json
from nvattest._text import base64_bytes
from nvattest.errors import ParseError, ResultCode, TokenError

ALGORITHM: Final = "ES384"
MAXIMUM_TOKEN: Final = 1024 * 1024
_MAXIMUM_HEADER = 32 * 1024
_SIGNATURE_SIZE = 96
# The last second of the year 9999, the last year of a datetime.
_LAST_SECOND = 253_402_300_799
_TYPES = frozenset({"jwt", "eat+jwt", "ear+jwt", "application/eat+jwt"})
# The key comes from the caller. A header that brings or points to one, or changes what is signed, is an attack.
_FORBIDDEN_HEADERS = ("jwk", "jku", "x5u", "b64", "enc", "zip")


class Jws(NamedTuple):
    """One compact JWT, read and not yet verified. ``what`` names it in messages."""

    what: str
    compact: str
    header: JsonObject
    payload: JsonObject

    @property
    def kid(self) -> str | None:
        value = self.header.get("kid")
        return value if isinstance(value, str) else None


def refuse(
    message: str, code: str, *, hint: str = "", result_code: ResultCode = ResultCode.NRAS_TOKEN_INVALID
) -> TokenError:
    """The error for a token that breaks the rule ``code``."""
    return TokenError(message, code=code, hint=hint, result_code=result_code)


def read_jws(compact: str, *, what: str) -> Jws:
    """Read one compact JWT, or raise a TokenError; its signature is not verified."""
    if len(compact) > MAXIMUM_TOKEN:
        raise refuse(f"{what} has {len(compact)} characters, at most {MAXIMUM_TOKEN} are read", "too-large")
    if compact[:1] == "{":
        raise refuse(
            f"{what} is in the JSON serialization of RFC 7515, which may carry several signatures",
            "json-serialization",
            hint="give the compact form: header.payload.signature",
        )
    parts = compact.split(".")
    if len(parts) != 3:
        raise refuse(f"{what} has {len(parts)} parts, expected header.payload.signature", "malformed")
    header = jwt_part(parts[0], f"{what}: header", _MAXIMUM_HEADER)
    _check_header(header, what)
    payload = jwt_part(parts[1], f"{what}: payload")
    signature = _decode(parts[2], f"{what}: signature")
    if len(signature) != _SIGNATURE_SIZE:
        raise refuse(f"{what}: a signature of {len(signature)} bytes, ES384 has {_SIGNATURE_SIZE}", "signature")
    return Jws(what=what, compact=compact, header=header, payload=payload)


def text_member(token: Jws, name: str, code: str) -> str:
    """A member of the payload that has to be a text that is not empty; any other is refused with this code."""
    value = token.payload.get(name)
    if not isinstance(value, str) or not value:
        raise refuse(f"{token.what} has no {name!r}, which is required", code)
    return value


def seconds(token: Jws, name: str) -> int:
    """A NumericDate of the payload, whole seconds (``missing-`` and its name, ``malformed``)."""
    value = token.payload.get(name)
    if value is None:
        raise refuse(f"{token.what} has no {name!r}, which is required", f"missing-{name}")
    if type(value) is not int or not 0 <= value <= _LAST_SECOND:
        raise refuse(f"{token.what}: {name!r} is not a number of seconds", "malformed")
    return value


def instant(value: int) -> datetime:
    """Seconds of the epoch, already bounded, as an aware datetime."""
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=value)


def _check_header(header: JsonObject, what: str) -> None:
    algorithm = header.get("alg")
    if isinstance(algorithm, str) and algorithm.lower() == "none":
        raise refuse(
            f"{what} is not signed (alg none)",
            "alg-none",
            hint="anyone can write such a token; NVIDIA's tools make them unless they are given a key",
        )
    if algorithm != ALGORITHM:
        raise refuse(f"{what}: alg is {algorithm!r}, only {ALGORITHM} is accepted", "alg-not-allowed")
    if "crit" in header:
        raise refuse(f"{what} demands critical extensions, and none is known here", "crit")
    for name in _FORBIDDEN_HEADERS:
        if name in header:
            raise refuse(f"{what}: the header brings {name!r}; keys come from the verifier's side only", "header-key")
    if "typ" in header:
        kind = header["typ"]
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise refuse(f"{what}: typ is {kind!r}, which is no attestation token", "typ")
    if "kid" in header and (not isinstance(header["kid"], str) or not 0 < len(header["kid"]) <= 512):
        raise refuse(f"{what}: kid is not a text of 1 to 512 characters", "malformed")


def _decode(text: str, what: str) -> bytes:
    try:
        return base64_bytes(text, url=True)
    except ValueError:
        raise refuse(f"{what} is not canonical base64url", "malformed") from None


def jwt_part(text: str, what: str, maximum: int = MAXIMUM_TOKEN) -> JsonObject:
    """The header or the payload of a compact JWT: canonical base64url of a JSON object. Nothing vouches for it."""
    data = _decode(text, what)
    try:
        value = load_json(data, source=what, maximum=maximum)
    except ParseError as error:
        code = error.code if error.code in ("duplicate-key", "too-large") else "malformed"
        raise refuse(error.message, code) from None
    if not isinstance(value, dict):
        raise refuse(f"{what} is {kind_of(value)}, expected an object", "malformed")
    # An escaped lone surrogate reads as JSON and cannot be written again.
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise refuse(f"{what} holds a lone surrogate or is nested too deeply", "malformed") from None
    return value
