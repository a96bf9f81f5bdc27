"""What a verified token is, and which kind of token a text or an object is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from nvattest._documents import JsonObject, kind_of, load_json
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.model import VerificationTime, parse_time
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.token.jws import MAXIMUM_TOKEN, Jws, read_jws, refuse
from nvattest.token.keys import PublicKey
from nvattest.token.provenance import ANOTHER_TIME, MEMBER, OVERRIDE, judged_at_another_time
from nvattest.token.refusals import Refusal, result_code
from nvattest.token.rules import instant

MAXIMUM_DEVICES: Final = 64
# The base URL of NVIDIA's remote service is the issuer of its tokens.
NVIDIA_ISSUER: Final = "https://nras.attestation.nvidia.com"
_SDK_MEMBER: Final = re.compile(r"(LOCAL|REMOTE)_(GPU|SWITCH)_CLAIMS")


class TokenKind(Enum):
    """Kinds of tokens. NRAS is the detached EAT of NVIDIA's remote service; its shape is that of ours."""

    DETACHED_EAT = "detached-eat"
    EAR = "ear"
    NRAS = "nras"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What the member ``nvattest`` says; empty for tokens of others.

    ``weakened`` has all names, also the one of another time where the token itself keeps silent about it.
    """

    simulated: bool = False
    anchors: str | None = None
    weakened: tuple[str, ...] = ()
    evidence_digest: bytes | None = None
    trusted: bool | None = None
    at: VerificationTime | None = None

    @property
    def lenient(self) -> bool:
        """Whether a policy let pass what claims still show. Another time changes no claim."""
        return any(name != ANOTHER_TIME for name in self.weakened)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A token that passed every rule.

    ``overall`` is the issuer's verdict: for an EAR, that every submodule is affirming. ``labels`` and ``claims`` go
    together, one per device, in the order of the token; ``payload`` is the overall token's, or the EAR's. ``key`` is
    the key that signed. ``anchors``, ``weakened``, ``simulated`` and ``evidence_digest`` (48 bytes) are what nvattest
    says of its own tokens; None, empty and false in tokens of others. ``statuses`` are an EAR's by submodule.
    ``at`` is when nvattest judged; where that lies more than an hour from ``issued``, ``judged-at-another-time`` is
    among ``weakened``. None in tokens of others, which do not say it. ``key_source`` says how the key was got,
    ``key_url`` where its key set was fetched; None where it was not. ``issuer`` is empty for an EAR that names none.
    ``refusals`` are the reasons that NVIDIA's issuers give for devices that they refuse, and ``result_code`` what
    NVIDIA's tools make of the result. ``wrapper`` names the member of a Python SDK's token in which this one stood;
    nothing around it was verified, or proves anything.
    """

    kind: TokenKind
    overall: bool
    issuer: str
    issued: datetime
    expires: datetime
    labels: tuple[str, ...]
    claims: tuple[JsonObject, ...]
    payload: JsonObject
    key: PublicKey
    simulated: bool
    anchors: str | None
    weakened: tuple[str, ...]
    evidence_digest: bytes | None
    statuses: Mapping[str, str]
    key_source: str
    key_url: str | None
    refusals: tuple[Refusal, ...] = ()
    wrapper: str | None = None
    at: VerificationTime | None = None

    @property
    def of_nvidia(self) -> bool:
        """Whether NVIDIA's own service issued it: under its name, by a key that was fetched there.

        Anybody can write a key set for a token under that name. Whether one that the caller gave is NVIDIA's is the
        caller's word, which ``foreign`` takes.
        """
        return self.issuer == NVIDIA_ISSUER and (self.key_url or "").startswith(f"{NVIDIA_ISSUER}/")

    @property
    def foreign(self) -> bool:
        """Whether neither NVIDIA's own service vouches for the result, nor nvattest by NVIDIA's anchors.

        A token under the service's name by a key that the caller gave counts as the service's.
        What a remote service says of its own anchors counts for nothing here: it is the service that is believed.
        """
        if self.anchors not in (None, NVIDIA_ANCHORS.label):
            return True
        given = self.issuer == NVIDIA_ISSUER and self.key_url is None
        return not (self.of_nvidia or given) and (self.anchors is None or self.kind is TokenKind.NRAS)

    @property
    def result_code(self) -> ResultCode:
        """The result as NVIDIA's number: 0, 12, or that of the first reason for a refusal."""
        return result_code(self.overall, self.refusals)


def read_document(token: object) -> tuple[str | list[object], TokenKind]:
    """A compact JWT as text, or the array of a detached EAT; nothing in it is believed.

    Raises:
        TokenError: ``too-large``, ``duplicate-key``, ``json-serialization``, ``malformed``.
    """
    if isinstance(token, bytes):
        if len(token) > MAXIMUM_TOKEN:
            raise _too_large(len(token))
        try:
            token = token.decode("utf-8")
        except UnicodeDecodeError:
            raise refuse("the token is not UTF-8", "malformed") from None
    if isinstance(token, str):
        if len(token) > MAXIMUM_TOKEN:
            raise _too_large(len(token))
        text = token.strip(" \t\r\n")
        if text[:1] not in ("[", "{"):
            return text, TokenKind.EAR
        try:
            token = load_json(text, source="token", maximum=MAXIMUM_TOKEN)
        except ParseError as error:
            raise refuse(error.message, error.code if error.code == "duplicate-key" else "malformed") from None
    if isinstance(token, dict):
        if "signatures" in token or "payload" in token:
            raise refuse(
                "the token is in the JSON serialization of RFC 7515, which may carry several signatures",
                "json-serialization",
                hint="give the compact form",
            )
        raise refuse(
            "the token is an object, expected an array or a compact JWT",
            "malformed",
            hint="give the member 'detached_eat' of nvattest's output",
        )
    if not isinstance(token, list):
        raise refuse(f"the token is {kind_of(token)}, expected an array or a compact JWT", "malformed")
    return token, TokenKind.DETACHED_EAT


def unwrapped(document: str | list[object]) -> tuple[str | list[object], str | None]:
    """The detached EAT inside of what ``get_token()`` of NVIDIA's Python SDK returns, and the member that holds it.

    The SDK writes ``[["JWT", wrapper], {"REMOTE_GPU_CLAIMS": detached EAT}]``. The wrapper is signed with HS256 under a
    secret that everyone knows, so it proves nothing and is not looked at. Any other document comes back as it is.

    Raises:
        TokenError: several tokens are inside, or none that can be verified (``wrapper``).
    """
    parts = document[1] if isinstance(document, list) and len(document) == 2 else None
    if not isinstance(parts, dict) or not parts or not all(_SDK_MEMBER.fullmatch(name) for name in parts):
        return document, None
    remote = [name for name in parts if name.startswith("REMOTE_")]
    if len(remote) != 1:
        raise refuse(
            f"this is a token of NVIDIA's Python SDK with the members {', '.join(parts)}; its wrapper proves nothing, "
            f"and {'several tokens' if remote else 'no token of the remote service'} can be verified in it",
            "wrapper",
            hint="hand over one of them, such as the value of REMOTE_GPU_CLAIMS, alone"
            if remote
            else "local results of the SDK are signed with a secret that everyone knows; attest again with nvattest",
        )
    inner = parts[remote[0]]
    if not isinstance(inner, list):
        raise refuse(f"{remote[0]} is {kind_of(inner)}, expected a detached EAT", "malformed")
    return inner, remote[0]


def unverified(token: object) -> Jws:
    """The overall token or the EAR as it reads. Nothing vouches for it before a signature is verified.

    Raises:
        TokenError: the token cannot be read.
    """
    document, kind = read_document(token)
    document, _ = unwrapped(document)
    compact: object = document
    if kind is TokenKind.DETACHED_EAT:
        first = document[0] if isinstance(document, list) and document else None
        compact = first[1] if isinstance(first, list) and len(first) == 2 else None
    if not isinstance(compact, str):
        raise refuse("the token holds no compact JWT", "malformed")
    return read_jws(compact, what="the token")


def unverified_kid(token: object) -> str:
    """The ``kid`` of the overall token or EAR, unverified.

    Raises:
        TokenError: the token cannot be read, or its header has no ``kid`` (``kid-missing``).
    """
    kid = unverified(token).kid
    if kid is None:
        raise refuse("the token's header has no kid", "kid-missing")
    return kid


def read_provenance(token: Jws, key: PublicKey) -> Provenance:
    """The member ``nvattest`` of a token whose signature was verified with ``key``.

    Raises:
        TokenError: it is there and not as we write it (``malformed``), or ``cnf`` names another key (``cnf``).
    """
    member = token.payload.get(MEMBER)
    if member is None:
        return Provenance()
    try:
        made = _provenance(member, token.payload.get("iat"))
        confirmed = PublicKey.from_jwk(token.payload["cnf"]["jwk"])  # type: ignore[index]
    except (KeyError, TypeError, AttributeError, ValueError, InputError):
        raise refuse(f"{token.what}: the member {MEMBER!r} or cnf is not as nvattest writes it", "malformed") from None
    if confirmed != key:
        raise refuse(f"{token.what} confirms the key {confirmed.thumbprint}, but {key.thumbprint} signed it", "cnf")
    return made


def _provenance(member: object, issued: object) -> Provenance:
    if not isinstance(member, dict) or not isinstance(issued, int):
        raise TypeError
    at = VerificationTime(device=parse_time(member["at"]["device"]), rim=parse_time(member["at"]["rim"]))
    simulated, trusted, anchors = member["simulated"], member["trusted"], member["anchors"]
    weakened = member["policy"]["weakened"]
    if type(simulated) is not bool or type(trusted) is not bool or not isinstance(anchors, str):
        raise TypeError
    if not isinstance(weakened, list) or not all(isinstance(name, str) for name in weakened):
        raise TypeError
    if ANOTHER_TIME not in weakened and judged_at_another_time(at, instant(issued)):
        weakened = [*weakened, ANOTHER_TIME]
    digest = bytes.fromhex(member["evidence"]["digest"])
    if len(digest) != 48:
        raise ValueError
    policy = member.get("relying_party_policy")
    if policy is not None:
        if policy["overrides_appraisal"] is True and OVERRIDE not in weakened:
            raise ValueError
        if policy["matched"] is not True and trusted:
            raise ValueError
    return Provenance(
        simulated=simulated, anchors=anchors, weakened=tuple(weakened), evidence_digest=digest, trusted=trusted, at=at
    )


def _too_large(size: int) -> Exception:
    return refuse(f"the token has {size} bytes, at most {MAXIMUM_TOKEN} are read", "too-large")
