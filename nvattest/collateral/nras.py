"""Remote verification by NVIDIA's attestation service (NRAS v4): evidence goes there, signed claims come back.

This module sends and receives; ``nvattest.token.verify`` verifies the answer. The key set is fetched beside the
evidence, kept for 15 minutes, and fetched again once when a token names a key that is not in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from nvattest._documents import JsonObject, load_json
from nvattest._registry import NRAS_URL
from nvattest._waiting import Deadline, Late, run_all
from nvattest.collateral.http import HttpClient, HttpSettings, Service, check_seconds, check_url
from nvattest.errors import InputError, ResultCode, TokenError
from nvattest.evidence import Evidence, EvidenceForm, dump_evidence
from nvattest.model import Architecture, DeviceKind, Nonce

if TYPE_CHECKING:
    from nvattest.token.verified import VerifiedToken

JWKS_PATH: Final = "/.well-known/jwks.json"
JWKS_AGE: Final = 900.0
NRAS: Final = Service(
    name="NRAS",
    option="--nras-url",
    maximum=4 * 1024 * 1024,
    sends="application/json",
    failed=ResultCode.NRAS_ATTESTATION_ERROR,
    forbidden=ResultCode.NRAS_FORBIDDEN,
)
_KEY_SET: Final = replace(NRAS, maximum=1024 * 1024)
_PATHS: Final = {DeviceKind.GPU: "/v4/attest/gpu", DeviceKind.NVSWITCH: "/v4/attest/switch"}
DEFAULT_CLAIMS: Final = "4.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAnswer:
    """The answer about the devices of one architecture: the detached EAT as it came, and what its verification gave."""

    architecture: Architecture
    devices: int
    token: object
    verified: VerifiedToken


class NrasClient:
    """A client of one NRAS. Keep it: it remembers the key set.

    Args:
        base_url: of the service, which is also the issuer of its tokens.
        http: keys, roots, limits of a single exchange.
        timeout: seconds for one ``attest``, retries included.
        x5c_roots: PEM of the roots to which the keys' certificates must lead; None: TLS vouches for the chain, which
            only has to hold together.
        clock: the monotonic clock, for the age of the key set.
        claims_version: of the claims to ask for, by default 4.0; of switches the service has none above 3.0.

    Raises:
        InputError: a URL or a time limit that cannot be used, or plain http to another machine: nothing would vouch for
            the key set.
    """

    def __init__(
        self,
        base_url: str = NRAS_URL,
        *,
        http: HttpSettings | None = None,
        timeout: float = 60.0,
        x5c_roots: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
        claims_version: str | None = None,
    ) -> None:
        self.base_url = service_url(base_url)
        self._client = HttpClient(http)
        self._timeout = check_seconds(timeout)
        self._x5c_roots = x5c_roots
        self._clock = clock
        self._claims_version = claims_version
        self._keys: JsonObject | None = None
        self._fetched = 0.0

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> NrasClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def attest(
        self,
        evidence: Sequence[Evidence],
        *,
        nonce: Nonce,
        at: datetime | None = None,
        accept_simulated: bool = False,
        refuse_weakened: bool = False,
    ) -> tuple[RemoteAnswer, ...]:
        """Have all devices verified, those of each architecture in one request, and verify the answers.

        ``at`` is the instant at which the tokens are judged; where it is None, that at which they have come. Whether
        the devices are trusted is in ``verified.overall`` of each answer, and who says so in its ``issuer``,
        ``key_source`` and ``of_nvidia``. ``accept_simulated`` and ``refuse_weakened`` are those of ``verify_token``.

        Raises:
            InputError: no evidence, or evidence that says it is for another nonce.
            CollateralError: 700 not reached or failed, 702 forbidden, 15 too many requests.
            TokenError: an answer that does not verify (701, 19 for another nonce).
        """
        from nvattest.token.jose import Keyring
        from nvattest.token.verified import Expected, Rules, TokenKind
        from nvattest.token.verify import verify_token

        groups = _groups(evidence, nonce)
        deadline = Deadline(self._timeout)
        jobs = [partial(self._ask, group, nonce, deadline) for group in groups.values()]
        if self._clock() - self._fetched > JWKS_AGE:
            self._keys = None
        results = run_all(jobs if self._keys is not None else [*jobs, partial(self._fetch_keys, deadline)], deadline)
        if any(isinstance(result, Late) for result in results):
            # Without its connection the late thread ends. The next request opens connections anew.
            self._client.close()
        bodies = []
        for result in results:
            if not isinstance(result, bytes):
                raise NRAS.failure(self.base_url, result, deadline)
            bodies.append(result)
        keys = self._keys or self._read_keys(bodies.pop())
        tokens = [self._parse(body, "NRAS answer", NRAS.maximum) for body in bodies]
        named = frozenset().union(*map(key_ids, tokens))
        if not named <= _kids(keys):
            keys = self._read_keys(self._fetch_keys(deadline))
        if at is None:
            at = datetime.now(timezone.utc)
        if self._x5c_roots is None:
            check_own_chains(keys, named, at)
        rules = Rules(issuer=self.base_url, nonce=nonce, at=at)
        ring = Keyring.make(jwks=keys, x5c_roots=self._x5c_roots, url=self.base_url + JWKS_PATH)
        answers = []
        for (architecture, group), token in zip(groups.items(), tokens, strict=True):
            verified = verify_token(
                token,
                kind=TokenKind.NRAS,
                rules=rules,
                keys=ring,
                expected=Expected(len(group)),
                accept_simulated=accept_simulated,
                refuse_weakened=refuse_weakened,
            )
            _check_kind(verified.labels, group[0].kind)
            answers.append(RemoteAnswer(architecture=architecture, devices=len(group), token=token, verified=verified))
        return tuple(answers)

    def keys(self) -> JsonObject:
        """The service's key set (JWKS), fetched now, for tokens of an earlier request; errors as ``attest``."""
        return self._read_keys(self._fetch_keys(Deadline(self._timeout)))

    def _ask(self, group: list[Evidence], nonce: Nonce, deadline: Deadline) -> bytes:
        body = request_body(group, nonce, self._claims_version)
        url = self.base_url + _PATHS[group[0].kind]
        return self._client.exchange(NRAS, url, deadline, body).content

    def _fetch_keys(self, deadline: Deadline) -> bytes:
        return self._client.fetch(_KEY_SET, self.base_url + JWKS_PATH, deadline)

    def _parse(self, body: bytes, source: str, maximum: int) -> object:
        with NRAS.reading(self.base_url, body):
            return load_json(body, source=source, maximum=maximum)

    def _read_keys(self, body: bytes) -> JsonObject:
        document = self._parse(body, "JWKS", _KEY_SET.maximum)
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(keys, list) or not keys:
            raise NRAS.unusable(self.base_url, "the key set has no 'keys'")
        self._keys, self._fetched = document, self._clock()
        return document


def _kids(jwks: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(key["kid"] for key in jwks["keys"] if isinstance(key, dict) and isinstance(key.get("kid"), str))


def service_url(url: str) -> str:
    """The base URL of an NRAS as its tokens name it, without a final slash.

    InputError where it is not a URL, or plain http to another machine.
    """
    parts = check_url(url, "--nras-url")
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise InputError("--nras-url: NRAS is asked over https only", code="url", hint="give an https URL")
    return url.rstrip("/")


def request_body(evidence: Sequence[Evidence], nonce: Nonce, claims_version: str | None = None) -> bytes:
    """The body of a request for devices of one architecture."""
    body = dump_evidence([replace(item, nonce=nonce.value) for item in evidence], form=EvidenceForm.NRAS)
    if not isinstance(body, dict):
        raise InputError("evidence for NRAS must be an object", code="nras-body")
    version = claims_version or DEFAULT_CLAIMS
    if version == "4.0" and evidence[0].kind is DeviceKind.NVSWITCH:
        version = "3.0"
    return json.dumps({**body, "nonce": nonce.hex(), "claims_version": version}).encode()


def key_ids(token: object) -> frozenset[str]:
    """The ``kid`` of every JWT in a detached EAT, unverified: only to know whether the key set may be too old."""
    from nvattest.token.jose import jwt_part

    found: set[str] = set()
    waiting = [token]
    for _ in range(256):
        if not waiting:
            break
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item[:128]
        elif isinstance(item, dict):
            waiting += list(item.values())[:128]
        elif isinstance(item, str) and item.count(".") == 2:
            with suppress(TokenError):
                if isinstance(kid := jwt_part(item.partition(".")[0], "the header").get("kid"), str):
                    found.add(kid)
    return frozenset(found)


def check_own_chains(jwks: object, kids: frozenset[str], at: datetime) -> None:
    """Refuse a key whose ``x5c`` does not hold together; without roots of the caller it ends in its own last one."""
    from nvattest.token.jose import parse_x5c, validate_x5c

    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list):
        return
    for entry in keys:
        if isinstance(entry, dict) and entry.get("kid") in kids and "x5c" in entry:
            what = f"JWKS key {str(entry['kid'])[:80]!r}"
            chain = parse_x5c(entry["x5c"], what=what)
            validate_x5c(chain, chain[-1:], at=at, what=what)


def _check_kind(labels: Sequence[str], kind: DeviceKind) -> None:
    """Refuse an answer about switches to a question about GPUs, and the other way round."""
    wrong = [label for label in labels if label.startswith("GPU-") is not (kind is DeviceKind.GPU)]
    if wrong:
        raise TokenError(
            f"NRAS was asked about devices of kind {kind.value}, the answer is about {', '.join(wrong)[:200]}",
            code="device-kind", result_code=ResultCode.NRAS_TOKEN_INVALID,
            hint="the answer to another question; do not believe it",
        )  # fmt: skip


def _groups(evidence: Sequence[Evidence], nonce: Nonce) -> dict[Architecture, list[Evidence]]:
    if not evidence:
        raise InputError("there is no evidence to send", code="no-evidence")
    groups: dict[Architecture, list[Evidence]] = {}
    for item in evidence:
        if item.nonce is not None and item.nonce != nonce.value:
            raise InputError(
                f"evidence for the nonce {item.nonce.hex()}, the nonce asked for is {nonce.hex()}", code="nonce",
                result_code=ResultCode.NONCE_MISMATCH, hint="give the nonce with which the evidence was collected",
            )  # fmt: skip
        groups.setdefault(item.architecture, []).append(item)
    return groups


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
