"""Appraisals of simulated nodes, keys from labels, and a second writer of JWTs that can write what ours never would."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.verifier import Verifier
from nvattest.model import Nonce, VerificationTime
from nvattest.testing.platform import Platform
from nvattest.token.claims import DEFAULT_ISSUER, claims_of, sign_detached_eat
from nvattest.token.ear import sign_ear
from nvattest.token.jose import Keyring, SigningKey
from nvattest.token.verified import Expected, Rules, VerifiedToken
from nvattest.token.verify import verify_token

NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=timezone.utc)
NONCE = Nonce(bytes(range(32)))


def private(label: str, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    number = int.from_bytes(hashlib.sha512(label.encode()).digest()[:30], "big") + 1
    return ec.derive_private_key(number, curve or ec.SECP384R1())


KEY = SigningKey(private("the verifier"))
OTHER = SigningKey(private("somebody else"))


@functools.cache
def appraisal(name: str = "hopper-1", lies: tuple[str, ...] = (), policy: EvidencePolicy | None = None) -> Appraisal:
    platform = Platform.build(name, lies=lies)
    return Verifier(anchors=platform.trust_anchors(), policy=policy).appraise(
        platform.evidence(NONCE.value),
        nonce=NONCE,
        collateral=platform.collateral(),
        at=VerificationTime.at(NOW),
    )


def ids() -> Callable[[], str]:
    counter = itertools.count()
    return lambda: f"00000000-0000-4000-8000-{next(counter):012d}"


def eat(of: Appraisal | None = None, **changes: Any) -> Any:
    of = appraisal() if of is None else of
    version = changes.pop("claims_version", "4.0")
    arguments: dict[str, Any] = {"key": KEY, "now": NOW, "new_id": ids(), "claims": claims_of(of, version=version)}
    return sign_detached_eat(of, **{**arguments, "claims_version": version, **changes})


def ear(of: Appraisal | None = None, **changes: Any) -> str:
    of = appraisal() if of is None else of
    arguments: dict[str, Any] = {"key": KEY, "now": NOW, "new_id": ids(), "claims": claims_of(of), **changes}
    return sign_ear(of, **arguments)


def check(token: object, **changes: Any) -> VerifiedToken:
    """Verify as a relying party that trusts KEY and knows that the devices are simulated."""
    arguments: dict[str, Any] = {
        "issuer": DEFAULT_ISSUER,
        "nonce": NONCE,
        "at": NOW + timedelta(minutes=5),
        "jwks": KEY.public.jwks(),
        "accept_simulated": True,
        **changes,
    }
    rules = {name: arguments.pop(name) for name in ("issuer", "nonce", "at", "leeway") if name in arguments}
    keys = {name: arguments.pop(name) for name in ("jwks", "key", "x5c_roots") if name in arguments}
    expected = [arguments.pop(f"expected_{name}", None) for name in ("devices", "gpus", "switches")]
    keyring = Keyring.make(**keys, url=arguments.pop("jwks_url", None))
    return verify_token(token, rules=Rules(**rules), keys=keyring, expected=Expected(*expected), **arguments)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(token: str, index: int) -> Any:
    text = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def raw_jws(header: bytes, payload: bytes, key: SigningKey = KEY) -> str:
    """A JWT over exactly these bytes, signed with ECDSA and SHA-384 without any JWT library."""
    signed = f"{b64(header)}.{b64(payload)}"
    r, s = decode_dss_signature(key.private.sign(signed.encode(), ec.ECDSA(hashes.SHA384())))
    return f"{signed}.{b64(r.to_bytes(48, 'big') + s.to_bytes(48, 'big'))}"


def jws(payload: Any, key: SigningKey = KEY, **header: Any) -> str:
    members = {"alg": "ES384", "kid": key.public.thumbprint, "typ": "JWT", **header}
    return raw_jws(
        json.dumps({k: v for k, v in members.items() if v is not None}).encode(), json.dumps(payload).encode(), key
    )


def digest(token: str) -> Any:
    return ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]]


def forged_eat(
    *,
    overall: Callable[[dict[str, Any]], None] = lambda _payload: None,
    device: Callable[[str, dict[str, Any]], None] = lambda _label, _payload: None,
    of: Appraisal | None = None,
    key: SigningKey = KEY,
    header: dict[str, Any] | None = None,
    device_header: dict[str, Any] | None = None,
) -> Any:
    """A bundle with changed payloads that is signed again, its digests right again: a dishonest issuer's."""
    (_, top), parts = eat(of)
    made = {}
    for label, token in parts.items():
        payload = part(token, 1)
        device(label, payload)
        made[label] = jws(payload, key, **(device_header or {}))
    payload = part(top, 1)
    payload["submods"] = {label: digest(token) for label, token in made.items()}
    payload["cnf"] = {"jwk": key.public.jwk()}
    overall(payload)
    return [["JWT", jws(payload, key, **(header or {}))], made]


def forged_ear(change: Callable[[dict[str, Any]], None], of: Appraisal | None = None) -> str:
    payload = part(ear(of), 1)
    change(payload)
    return jws(payload)
