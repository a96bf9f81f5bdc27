"""The EAR: the same result as an EAT Attestation Result (draft-ietf-rats-ear) with AR4SI vectors, as one signed JWT.

Labels. Drafts before 2026 and all deployed readers (Veraison's Go package, the Rust crate in Trustee) spell them with a
dot and dashes: ``ear.status``, ``ear.trustworthiness-vector``, ``ear.appraisal-policy-id``, ``ear.verifier-id``. Draft
-04 and NVIDIA's experimental EAR spell them with underscores. We write the deployed ones, under the profile that names
them, and read both (``verify``). Submodules hold deployed labels and nothing else, because older readers stumble over
unknown members there; everything of ours is in the member ``nvattest`` at the top, which they pass over.

Submodules are called as in Trustee: ``gpu0``, ``switch0``; ``platform0`` carries the checks of all devices together, so
that a reader who demands that every submodule be affirming demands the platform too. ``cpu0`` is there where the quote
of the guest's CPU was judged, with what the quote says as its annotated evidence. NVIDIA's claims of a device are its
``ear.veraison.annotated-evidence`` under ``nvidia``, again as in Trustee. ``eat_nonce`` is base64url.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final

from nvattest._documents import JsonObject
from nvattest._package import __version__
from nvattest._text import base64url
from nvattest.appraisal.check import Check, Outcome
from nvattest.appraisal.guest import ANY_GUEST, GuestAppraisal
from nvattest.appraisal.results import Appraisal, DeviceAppraisal, cpu_policy_to_json, guest_to_json
from nvattest.token.claims import (
    DEFAULT_ISSUER,
    DEFAULT_LIFETIME,
    MEMBER,
    claims_by_device,
    json_digest,
    policy_digest,
    provenance,
    registered_claims,
    verdict,
    weakenings,
)
from nvattest.token.jose import SigningKey

PROFILE: Final = "tag:github.com,2023:veraison/ear"
DEVELOPER: Final = "The nvattest developers"
PLATFORM: Final = "platform0"
GUEST: Final = "cpu0"


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
    """Sign an appraisal as an EAR; the result is a compact JWT. Arguments as in ``sign_detached_eat``.

    Raises:
        InputError: no device, claims of more or fewer devices, or an argument that cannot be used.
    """
    devices = claims_by_device(appraisal, claims)
    registered = registered_claims(issuer=issuer, now=now, lifetime=lifetime, new_id=new_id)
    policy_id = f"urn:nvattest:evidence-policy:sha256:{policy_digest(appraisal.policy)}"
    submods = {
        f"{device.kind.label.lower()}{device.index}": _submodule(
            device_vector(device, simulated=appraisal.simulated), policy_id
        )
        | {"ear.veraison.annotated-evidence": {"nvidia": said}}
        for device, said in devices
    }
    submods[PLATFORM] = _submodule(
        platform_vector(
            appraisal,
            trusted=verdict(appraisal, relying_party),
            weakened=bool(weakenings(appraisal, issued=now, relying_party=relying_party)),
        ),
        policy_id,
    )
    if appraisal.guest is not None:
        submods[GUEST] = _guest_submodule(appraisal.guest)
    payload: JsonObject = {
        **registered(),
        "eat_profile": PROFILE,
        "ear.verifier-id": {"developer": DEVELOPER, "build": f"nvattest {__version__}"},
        "submods": submods,
        "cnf": {"jwk": key.public.jwk()},
        MEMBER: provenance(appraisal, issued=now, relying_party=relying_party),
    }
    if appraisal.nonce is not None:
        payload["eat_nonce"] = base64url(appraisal.nonce.value)
    return key.sign(payload)


def _submodule(vector: dict[str, int], policy_id: str) -> JsonObject:
    return {
        "ear.status": worst_tier(vector).word,
        "ear.trustworthiness-vector": vector,
        "ear.appraisal-policy-id": policy_id,
    }


def _guest_submodule(guest: GuestAppraisal) -> JsonObject:
    said = guest_to_json(guest)
    evidence = {name: said[name] for name in _SAID if said[name] is not None}
    policy_id = f"urn:nvattest:cpu-policy:sha256:{json_digest(cpu_policy_to_json(guest.policy))}"
    return _submodule(guest_vector(guest), policy_id) | {
        "ear.veraison.annotated-evidence": {guest.kind or "unknown": evidence}
    }


# --- the trustworthiness vector ---------------------------------------------------------------------------------------


# The claims of AR4SI (draft-ietf-rats-ar4si, 2.3), of which nothing is said of four: the report has no word of memory
# encryption (runtime-opaque). A report whose signature fails is 99 in every claim, as the draft has it.
_GOOD = {"instance-identity": 2, "hardware": 2, "executables": 3, "configuration": 2}
VECTOR_CLAIMS: Final = (*_GOOD, "file-system", "runtime-opaque", "storage-opaque", "sourced-data")
CRYPTO_FAILED: Final = 99
# Executables are 3, not 2: the measurements cover what was loaded up to the report. A warning is a check that passes
# only because of a named weakening of the policy. AR4SI has none for identities: there the configuration has it.
_WARNING = {"hardware": 32, "executables": 33, "configuration": 32}
# Of a check that prevents trust.
_BAD = {"instance-identity": 96, "hardware": 97, "executables": 96, "configuration": 96}
_UNRECOGNISED_INSTANCE = 97

# The checks of each claim; those of reference manifests are executables, and all others configuration.
_CHECKS = {
    "instance-identity": (
        *("chain-format", "chain-path", "chain-validity", "chain-revocation", "report-signature", "nonce", "fwid"),
        *("hints", "quote-collateral", "quote-chain", "quote-revocation", "quote-signature", "quote-chip"),
        *("guest-binding", "guest-key", "guest-nonce"),
    ),
    "hardware": ("architecture", "report-format", "report-trailing-bytes", "quote-format", "quote-tcb"),
    "executables": ("reference-values", "rim-conflict", "measurements", "minimum-svn", "guest-measurements"),
}
_UNKNOWN_PATH = frozenset({"chain-format", "chain-path", "quote-chain"})
# What a verified quote says, in its submodule.
_SAID = ("measurement", "registers", "report_data", "tcb", "recipe", "strength", "key", "at", "anchors", "weakened")


class Tier(IntEnum):
    """The trustworthiness tiers, from best to worst; NONE says that nothing is claimed."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96

    @property
    def word(self) -> str:
        """The tier as ``ear.status`` spells it."""
        return self.name.lower()


STATUSES = {tier.word: tier for tier in Tier}


def tier_of(value: int) -> Tier:
    """The tier of one claim of the vector, -128 to 127 (AR4SI, 2.2)."""
    if -1 <= value <= 1:
        return Tier.NONE
    if 2 <= value <= 31 or -32 <= value <= -2:
        return Tier.AFFIRMING
    if 32 <= value <= 95 or -96 <= value <= -33:
        return Tier.WARNING
    return Tier.CONTRAINDICATED


def worst_tier(vector: dict[str, int]) -> Tier:
    """The worst tier of a vector: its status."""
    return max((tier_of(value) for value in vector.values()), default=Tier.NONE)


def device_vector(device: DeviceAppraisal, *, simulated: bool) -> dict[str, int]:
    """The vector of one device. A simulated one is at most a warning, in words that every reader of EARs has."""
    signature = device.check("report-signature")
    forged = signature is not None and not signature.acceptable and signature.outcome is not Outcome.SKIPPED
    return _vector(device, forged=forged, warned=["hardware"] if simulated else [])


def guest_vector(guest: GuestAppraisal) -> dict[str, int]:
    """The vector of the guest. A weakening of the CPU policy is a warning, whether or not it was needed."""
    signature = guest.check("quote-signature")
    warned = ["hardware"] if guest.simulated else []
    for name in guest.weakened:
        if name == ANY_GUEST:
            warned.append("executables")
        else:
            warned.append("hardware" if name.startswith("tdx.") else "configuration")
    forged = signature is not None and signature.outcome is Outcome.FAIL
    return _vector(guest, forged=forged, warned=warned)


def platform_vector(appraisal: Appraisal, *, trusted: bool, weakened: bool) -> dict[str, int]:
    """The vector of the platform, from the checks of all devices together. The verdict and the mark are the token's."""
    values = [_GOOD["configuration"], *(_value("configuration", check) for check in appraisal.checks)]
    if weakened or appraisal.simulated:
        values.append(_WARNING["configuration"])
    if not trusted:
        values.append(_BAD["configuration"])
    return {"configuration": max(values)}


def _vector(judged: DeviceAppraisal | GuestAppraisal, *, forged: bool, warned: Iterable[str]) -> dict[str, int]:
    if forged:
        return dict.fromkeys(VECTOR_CLAIMS, CRYPTO_FAILED)
    vector = dict(_GOOD)
    for check in judged.checks:
        name = _claim_of(check)
        if _weakened(check) and name not in _WARNING:
            name = "configuration"
        vector[name] = max(vector[name], _value(name, check))
    for name in warned:
        vector[name] = max(vector[name], _WARNING[name])
    # A missing check lowers no claim, and the verdict is still no.
    if not judged.trusted and worst_tier(vector) is not Tier.CONTRAINDICATED:
        vector["configuration"] = _BAD["configuration"]
    return vector


def _value(name: str, check: Check) -> int:
    if not check.acceptable:
        return _UNRECOGNISED_INSTANCE if check.id in _UNKNOWN_PATH else _BAD[name]
    return _WARNING[name] if _weakened(check) else _GOOD[name]


def _weakened(check: Check) -> bool:
    # Only a weakening makes a warning; an allowance of the strict policy (a topology of one kind alone) does not.
    return check.acceptable and check.tolerated_by.startswith(("accept_", "allow_"))


def _claim_of(check: Check) -> str:
    if "-rim-" in check.id:
        return "executables"
    return next((name for name, checks in _CHECKS.items() if check.id in checks), "configuration")
