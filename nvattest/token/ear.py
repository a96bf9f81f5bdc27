"""The EAR: the same result as an EAT Attestation Result (draft-ietf-rats-ear) with AR4SI vectors, as one signed JWT.

Labels. Drafts before 2026 and all deployed readers (Veraison's Go package, the Rust crate in Trustee) spell them with a
dot and dashes: ``ear.status``, ``ear.trustworthiness-vector``, ``ear.appraisal-policy-id``, ``ear.verifier-id``. Draft
-04 and NVIDIA's experimental EAR spell them with underscores. We write the deployed ones, under the profile that names
them, and read both (``verify``). Submodules hold deployed labels and nothing else, because older readers stumble over
unknown members there; everything of ours is in the member ``nvattest`` at the top, which they pass over.

Submodules are called as in Trustee: ``gpu0``, ``switch0``; ``platform0`` carries what only all devices together show,
so that a reader who demands that every submodule be affirming demands the platform too. NVIDIA's claims of a device are
its ``ear.veraison.annotated-evidence`` under ``nvidia``, again as in Trustee. ``eat_nonce`` is base64url.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from nvattest._documents import JsonObject
from nvattest._text import base64url
from nvattest._version import __version__
from nvattest.appraisal.results import Appraisal, DeviceAppraisal
from nvattest.token.common import DEFAULT_ISSUER, DEFAULT_LIFETIME, Imprint, claims_by_device
from nvattest.token.keys import SigningKey
from nvattest.token.provenance import MEMBER, policy_digest, provenance, verdict, weakenings
from nvattest.token.trust_vector import device_vector, platform_vector, worst_tier

PROFILE: Final = "tag:github.com,2023:veraison/ear"
DEVELOPER: Final = "The nvattest developers"
PLATFORM: Final = "platform0"


def ear_label(device: DeviceAppraisal) -> str:
    """The name of a device's submodule: ``gpu0``, ``switch3``."""
    return f"{device.kind.label.lower()}{device.index}"


def sign_ear(
    appraisal: Appraisal,
    *,
    claims: Sequence[JsonObject],
    key: SigningKey,
    now: datetime,
    new_id: Callable[[], str],
    issuer: str = DEFAULT_ISSUER,
    lifetime: timedelta = DEFAULT_LIFETIME,
    relying_party: Mapping[str, object] | None = None,
) -> str:
    """Sign what an appraisal says as an EAR; the result is a compact JWT. Arguments as in ``sign_detached_eat``.

    Raises:
        InputError: no device, claims of more or fewer devices, or an argument that cannot be used.
    """
    devices = claims_by_device(appraisal, claims)
    imprint = Imprint.make(issuer=issuer, now=now, lifetime=lifetime, new_id=new_id)
    policy_id = f"urn:nvattest:evidence-policy:sha256:{policy_digest(appraisal.policy)}"
    submods = {
        ear_label(device): _submodule(
            device_vector(device, simulated=appraisal.simulated),
            policy_id,
            {"nvidia": said},
        )
        for device, said in devices
    }
    submods[PLATFORM] = _submodule(
        platform_vector(
            appraisal,
            trusted=verdict(appraisal, relying_party),
            weakened=bool(weakenings(appraisal, issued=now, relying_party=relying_party)),
        ),
        policy_id,
        None,
    )
    payload: JsonObject = {
        **imprint.claims(),
        "eat_profile": PROFILE,
        "ear.verifier-id": {"developer": DEVELOPER, "build": f"nvattest {__version__}"},
        "submods": submods,
        "cnf": {"jwk": key.public.jwk()},
        MEMBER: provenance(appraisal, issued=now, relying_party=relying_party),
    }
    if appraisal.nonce is not None:
        payload["eat_nonce"] = base64url(appraisal.nonce.value)
    return key.sign(payload)


def _submodule(vector: dict[str, int], policy_id: str, evidence: JsonObject | None) -> JsonObject:
    made: JsonObject = {
        "ear.status": worst_tier(vector).word,
        "ear.trustworthiness-vector": vector,
        "ear.appraisal-policy-id": policy_id,
    }
    if evidence is not None:
        made["ear.veraison.annotated-evidence"] = evidence
    return made
