"""The detached EAT bundle in NVIDIA's shape, signed: ``[["JWT", overall], {"GPU-0": jwt, "SWITCH-0": jwt}]``.

It follows what NVIDIA's remote service issues rather than RFC 9711, 5: the detached parts are JWTs, the digest is the
lower-case hexadecimal SHA-256 of the compact JWT, ``eat_nonce`` is hexadecimal. Beside NVIDIA's claims the overall
token has ``cnf`` (RFC 7800, 3.2) with the key that signed it and the member ``nvattest`` (``provenance``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from nvattest._documents import JsonObject
from nvattest.appraisal.results import Appraisal
from nvattest.token.common import DEFAULT_ISSUER, DEFAULT_LIFETIME, Imprint, claims_by_device
from nvattest.token.keys import SigningKey
from nvattest.token.provenance import MEMBER, provenance, verdict

SUBJECT: Final = "NVIDIA-PLATFORM-ATTESTATION"
DIGEST_LABEL: Final = "SHA-256"


def sign_detached_eat(
    appraisal: Appraisal,
    *,
    claims: Sequence[JsonObject],
    claims_version: str,
    key: SigningKey,
    now: datetime,
    new_id: Callable[[], str],
    issuer: str = DEFAULT_ISSUER,
    lifetime: timedelta = DEFAULT_LIFETIME,
    relying_party: Mapping[str, object] | None = None,
) -> list[object]:
    """Sign what an appraisal says, good or bad; ``json.dumps`` of the result is the token.

    Args:
        appraisal: of 1 or more devices. ``x-nvidia-overall-att-result`` is its ``trusted``, and false where a relying
            party's policy was applied and did not match.
        claims: the claims objects of its devices in order, as ``nvattest.claims_of`` gives them.
        claims_version: their version, ``"3.0"`` or ``"4.0"``, for ``x-nvidia-ver``.
        key: the private key.
        now: the time of issue, with its zone.
        new_id: gives a new random text of 16 or more characters at each call, for ``jti``.
        issuer: ``iss``.
        lifetime: from ``iat`` to ``exp``, at most a week.
        relying_party: what ``provenance`` shall say of a relying party's policy.

    Raises:
        InputError: no device, claims of more or fewer devices, or an argument that cannot be used.
    """
    devices = claims_by_device(appraisal, claims)
    imprint = Imprint.make(issuer=issuer, now=now, lifetime=lifetime, new_id=new_id)
    detached = {device.label: key.sign(said | imprint.claims()) for device, said in devices}
    overall: JsonObject = {
        **imprint.claims(),
        "sub": SUBJECT,
        "x-nvidia-ver": claims_version,
        "x-nvidia-overall-att-result": verdict(appraisal, relying_party),
        "submods": {
            label: ["DIGEST", [DIGEST_LABEL, hashlib.sha256(token.encode("ascii")).hexdigest()]]
            for label, token in detached.items()
        },
        "cnf": {"jwk": key.public.jwk()},
        MEMBER: provenance(appraisal, issued=now, relying_party=relying_party),
    }
    # Without a nonce of the caller's there is none to echo: one read from the recording would prove nothing.
    if appraisal.nonce is not None:
        overall["eat_nonce"] = appraisal.nonce.hex()
    return [["JWT", key.sign(overall)], detached]
