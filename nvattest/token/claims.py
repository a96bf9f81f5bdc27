"""What a token says: the appraisal of each device in NVIDIA's words, by version; and how the token was made.

Claims of devices. 3.0 and 4.0 have the keys that NVIDIA's verifier and its remote service write (NVAT 1.2.2 and 2.0.0).
4.0 adds the records of opaque data and the attester claims, and keeps the 3.0 names that consumers still read
(``…-rim-schema-validated``, ``x-nvidia-attestation-warning``). Switches have 3.0 beside the GPUs' 3.0 and 4.0.

2.0 is the default of NVIDIA's Python SDK: flat, with one boolean for each chain (path, validity and revocation
together), without the firmware id and the version matches. A step that was not reached is ``false``, ``fail`` or an
empty text, never null; ``secboot``, ``dbgstat`` and the warning are left out where they say nothing.

Of the token itself: issuer, times and ids (RFC 7519, 4.1), and the member ``nvattest``, made and read here. At the end
the detached EAT, which says all of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from nvattest._documents import JsonObject
from nvattest._package import __version__
from nvattest._registry import CPU_MAKERS
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.appraisal.measurements import Cell
from nvattest.appraisal.results import Appraisal, ChainAppraisal, DeviceAppraisal, policy_to_json
from nvattest.errors import InputError
from nvattest.model import DeviceKind, VerificationTime, format_time, parse_time
from nvattest.pki.ocsp import NonceOutcome, RevocationStatus
from nvattest.rim.ids import ROLES, RimRole
from nvattest.spdm.opaque import GpuFields, SwitchFields
from nvattest.token.binding import appraised_digest
from nvattest.token.jose import Jws, PublicKey, SigningKey, instant, refuse

# Not NVIDIA's "NVAT-LOCAL-VERIFIER": tokens of that issuer are unsigned by default and must not be confused with ours.
DEFAULT_ISSUER: Final = "NVATTEST-LOCAL-VERIFIER"
DEFAULT_LIFETIME: Final = timedelta(hours=1)
MAXIMUM_LIFETIME: Final = timedelta(days=7)
SUBJECT: Final = "NVIDIA-PLATFORM-ATTESTATION"
OVERALL: Final = "x-nvidia-overall-att-result"
# NVIDIA's service writes the first, NVIDIA's local tools the second.
DIGEST_LABELS: Final = ("SHA-256", "SHA256")
MEMBER: Final = "nvattest"
FORMAT_VERSION: Final = 1
OVERRIDE: Final = "policy_overrides_appraisal"
# The weakening of a token whose issuer judged validity and revocation at another time than that of issue.
ANOTHER_TIME: Final = "judged-at-another-time"
# That of a token about a guest whose quote was judged by other roots than the makers'.
GUEST_ANCHORS: Final = "guest-anchors"
_OF_GUESTS: Final = ("any guest", "tdx.", "snp.", GUEST_ANCHORS)
_SAME_TIME: Final = timedelta(hours=1)
_ISSUER = re.compile(r"[!-~]{1,256}")
_ID = re.compile(r"[!-~]{16,128}")
GPU_VERSIONS = ("2.0", "3.0", "4.0")
DEFAULT_GPU_VERSION = "4.0"

# NVIDIA's claim knows good, revoked, unknown and undefined; our finer outcomes are one of these.
_OCSP_WORDS = {
    RevocationStatus.GOOD: "good",
    RevocationStatus.REVOKED: "revoked",
    RevocationStatus.ON_HOLD: "revoked",
    RevocationStatus.UNKNOWN: "unknown",
}


def claims_of(appraisal: Appraisal, *, version: str = DEFAULT_GPU_VERSION) -> list[JsonObject]:
    """The claims of all devices in order, as NVIDIA's ``claims`` array and the input of Rego policies have them.

    ``version`` is the GPUs'; switches have 2.0, and 3.0 beside the GPUs' 3.0 and 4.0.

    Raises:
        InputError: a version that does not exist.
    """
    if version not in GPU_VERSIONS:
        raise InputError(
            f"there are no claims of version {version!r}",
            code="claims-version",
            hint=f"one of {', '.join(GPU_VERSIONS)}",
        )
    write = _claims_2 if version == "2.0" else partial(_claims_3, version=version)
    return [write(device, appraisal) for device in appraisal.devices]


def _claims_3(device: DeviceAppraisal, appraisal: Appraisal, *, version: str) -> JsonObject:
    """Claims 3.0 and 4.0."""
    fields = device.report.fields if device.report is not None else None
    prefix, fwid = _prefix(device), device.check("fwid")
    claims = {
        **_common(device, appraisal),
        **_of_both(device),
        f"{prefix}-attestation-report-cert-chain": _chain_object(device.chain),
        f"{prefix}-attestation-report-cert-chain-fwid-match": fwid is not None and fwid.acceptable,
    }
    for role in ROLES[device.kind]:
        rim, stem = device.rims.get(role), f"{prefix}-{role.value}-rim"
        claims[f"{stem}-cert-chain"] = _chain_object(rim.chain if rim is not None else None)
        claims[f"{stem}-version-match"] = claims[f"{stem}-measurements-available"]
    if device.kind is DeviceKind.NVSWITCH:
        claims["x-nvidia-version"] = "3.0"
        if isinstance(fields, SwitchFields) and fields.pdi is not None:
            claims["x-nvidia-switch-pdi"] = fields.pdi
        if isinstance(fields, SwitchFields) and fields.gpu_pdis:
            claims["x-nvidia-switch-gpu-pdis"] = list(fields.gpu_pdis)
        return claims
    claims |= {"oemid": _oemid(device), "x-nvidia-gpu-claims-version": version}
    if isinstance(fields, GpuFields) and fields.switch_pdis:
        claims["x-nvidia-gpu-switch-pdis"] = list(fields.switch_pdis)
    if version == "4.0":
        claims["x-nvidia-mismatch-opaque-data-records"] = _opaque_mismatches(device)
        cells = device.svn.cells if device.svn is not None else ()
        claims["x-nvidia-attester-claims"] = {
            record.name: runtime for record, runtime in cells if record.include_in_result and runtime is not None
        }
    return claims


def _claims_2(device: DeviceAppraisal, appraisal: Appraisal) -> JsonObject:
    """Claims 2.0."""
    prefix, common = _prefix(device), _common(device, appraisal)
    claims: JsonObject = {"measres": common["measres"], **_of_both(device)}
    chains = {f"{prefix}-attestation-report-cert-chain": ("chain-path", "chain-validity", "chain-revocation")}
    for role in ROLES[device.kind]:
        stem = f"{role.value}-rim"
        chains[f"{prefix}-{stem}-cert"] = (f"{stem}-chain", f"{stem}-validity", f"{stem}-revocation")
    for name, checks in chains.items():
        found = [device.check(check) for check in checks]
        claims[f"{name}-validated"] = all(check is not None and check.acceptable for check in found)
    if device.kind is DeviceKind.GPU:
        claims["oemid"] = _oemid(device) or ""
    optional = ("secboot", "dbgstat", "x-nvidia-attestation-warning")
    claims |= {name: common[name] for name in ("eat_nonce", "hwmodel", "ueid")}
    return claims | {name: common[name] for name in optional if common[name] is not None}


def _prefix(device: DeviceAppraisal) -> str:
    return "x-nvidia-gpu" if device.kind is DeviceKind.GPU else "x-nvidia-switch"


def _of_both(device: DeviceAppraisal) -> JsonObject:
    """What all versions say alike: the versions that the report names, and the checks of the report and the RIMs."""
    prefix = _prefix(device)
    fields = device.report.fields if device.report is not None else None
    checks = {
        "arch-check": "architecture",
        "attestation-report-parsed": "report-format",
        "attestation-report-nonce-match": "nonce",
        "attestation-report-signature-verified": "report-signature",
    }
    versions = {"bios": fields.bios_version if isinstance(fields, SwitchFields) else ""}
    if device.kind is DeviceKind.GPU:
        gpu = fields if isinstance(fields, GpuFields) else None
        versions = {"driver": gpu.driver_version if gpu else "", "vbios": gpu.vbios_version if gpu else ""}
        checks["vbios-index-no-conflict"] = "rim-conflict"
    for role in ROLES[device.kind]:
        stem = f"{role.value}-rim"
        checks |= {
            f"{stem}-fetched": f"{stem}-available",
            f"{stem}-schema-validated": f"{stem}-format",
            f"{stem}-signature-verified": f"{stem}-signature",
            f"{stem}-measurements-available": f"{stem}-binding",
        }
    return {f"{prefix}-{name}-version": version for name, version in versions.items()} | {
        f"{prefix}-{name}": device.passed(check) for name, check in checks.items()
    }


def _common(device: DeviceAppraisal, appraisal: Appraisal) -> JsonObject:
    matched = device.passed("measurements") and device.passed("rim-conflict")
    # A minimum SVN that is missed spoils the result, but not the debug and boot claims (NVAT 2.0.0).
    success = matched and device.passed("minimum-svn")
    answered = device.report.request.nonce.hex() if device.report is not None else ""
    mismatches = device.comparison.mismatches if device.comparison is not None else ()
    tolerated = {check.tolerated_by for check in device.checks if check.tolerated_by.startswith(("allow_", "accept_"))}
    return {
        "eat_nonce": appraisal.nonce.hex() if appraisal.nonce is not None else answered,
        "measres": "success" if success else "fail",
        "secboot": True if matched else None,
        "dbgstat": "disabled" if matched and device.passed("debug") else None,
        "hwmodel": device.identity.hwmodel if device.identity is not None else "",
        "ueid": device.identity.ueid if device.identity is not None else "",
        "x-nvidia-device-type": device.kind.value,
        "x-nvidia-mismatch-measurement-records": [_record(cell) for cell in mismatches] or None,
        "x-nvidia-attestation-warning": f"accepted by policy: {', '.join(sorted(tolerated))}" if tolerated else None,
    }


def _chain_object(chain: ChainAppraisal | None) -> JsonObject | None:
    """NVIDIA's chain object, or None for a chain that was never reached.

    The revocation status is that of the highest certificate that is not good, as NVIDIA aggregates it.
    """
    if chain is None:
        return None
    validated = chain.validated
    if not validated.path_ok:
        status = "invalid"
    elif not validated.in_validity:
        status = "expired" if any(f.rule == "expired" for f in validated.validity_findings) else "invalid"
    else:
        status = "valid"
    revocations = [item.revocation for item in chain.revocations]
    worst = next((item for item in revocations if item.status is not RevocationStatus.GOOD), None)
    if not revocations:
        word = "undefined"
    elif worst is None:
        word = "good"
    else:
        word = _OCSP_WORDS.get(worst.status, "undefined")
    return {
        "x-nvidia-cert-expiration-date": format_time(validated.earliest_not_after),
        "x-nvidia-cert-status": status,
        "x-nvidia-cert-ocsp-status": word,
        "x-nvidia-cert-revocation-reason": worst.reason if worst is not None and word == "revoked" else None,
        "x-nvidia-cert-ocsp-nonce-matches": bool(revocations)
        and all(item.nonce is NonceOutcome.MATCH for item in revocations),
        "x-nvidia-cert-ocsp-response-valid": bool(revocations)
        and all(item.signature_valid and item.in_window for item in revocations),
    }


def _record(cell: Cell) -> JsonObject:
    golden = cell.golden
    return {
        "index": cell.index,
        "goldenSize": golden.size if golden is not None else 0,
        "goldenValue": golden.values[0].hex() if golden is not None else "",
        "runtimeSize": len(cell.runtime) if cell.runtime is not None else 0,
        "runtimeValue": cell.runtime.hex() if cell.runtime is not None else "NA",
        "measurementSource": "Driver" if cell.role is RimRole.DRIVER else "Firmware",
    }


def _opaque_mismatches(device: DeviceAppraisal) -> list[JsonObject] | None:
    if device.svn is None:
        return None
    found = []
    for floor, runtime in device.svn.mismatches:
        record: JsonObject = {
            "id": floor.data_type, "name": floor.name, "goldenType": "MIN_SVN", "goldenValue": floor.minimum
        }  # fmt: skip
        if runtime is not None:
            record |= {"runtimeType": "MIN_SVN", "runtimeValue": runtime}
        found.append(record)
    return found or None


def _oemid(device: DeviceAppraisal) -> str | None:
    """The manufacturer that the driver's RIM names, or None where that RIM is not verified."""
    driver = device.rims.get(RimRole.DRIVER)
    verified = device.passed("driver-rim-signature") and device.passed("driver-rim-chain")
    return driver.document.manufacturer_id if verified and driver is not None and driver.document is not None else None


# --- how a token of ours was made -------------------------------------------------------------------------------------


def registered_claims(
    *, issuer: str, now: datetime, lifetime: timedelta, new_id: Callable[[], str]
) -> Callable[[], JsonObject]:
    """A maker of ``iss``, ``iat``, ``nbf``, ``exp`` and a new ``jti``, for each token of one bundle.

    An issuer is 1 to 256 printable ASCII characters, a lifetime at most a week, and each id another one (``token-id``).
    """
    if not _ISSUER.fullmatch(issuer):
        raise InputError(
            f"not an issuer: {issuer[:80]!r}",
            code="issuer",
            hint="give 1 to 256 printable ASCII characters without spaces",
        )
    if now.utcoffset() is None:
        raise InputError("the time of issue has no time zone", code="time-zone")
    seconds = int(lifetime.total_seconds())
    if not 0 < seconds <= MAXIMUM_LIFETIME.total_seconds():
        raise InputError(f"a token lives 1 second to 7 days, not {lifetime}", code="lifetime")
    issued = int(now.timestamp())
    used: set[str] = set()

    def claims() -> JsonObject:
        jti = new_id()
        if jti in used or not _ID.fullmatch(jti):
            raise InputError("the source of token ids gave an id twice or a poor one", code="token-id")
        used.add(jti)
        return {"iss": issuer, "iat": issued, "nbf": issued, "exp": issued + seconds, "jti": jti}

    return claims


def claims_by_device(
    appraisal: Appraisal, claims: Sequence[JsonObject]
) -> tuple[tuple[DeviceAppraisal, JsonObject], ...]:
    """Each device with its claims object, of which there are as many (``claims``) and one at least (``no-devices``)."""
    if not appraisal.devices:
        raise InputError("an appraisal without devices makes no token", code="no-devices")
    if len(claims) != len(appraisal.devices):
        raise InputError(f"{len(claims)} claims objects for {len(appraisal.devices)} devices", code="claims")
    return tuple(zip(appraisal.devices, claims, strict=True))


def policy_digest(policy: EvidencePolicy) -> str:
    """SHA-256 (hex) of the evidence policy as JSON: all fields, sorted, without white space."""
    return json_digest(policy_to_json(policy))


def json_digest(value: JsonObject) -> str:
    """SHA-256 (hex) of a JSON object: members sorted, without white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def verdict(appraisal: Appraisal, relying_party: Mapping[str, object] | None) -> bool:
    """The overall result: the appraisal is trusted, and a relying party's policy that was applied matched.

    A policy that overrides can make a run good, never a token: it does not change what the devices showed.
    """
    return appraisal.trusted and (relying_party is None or relying_party.get("matched") is True)


def judged_at_another_time(at: VerificationTime, reference: datetime) -> bool:
    """Whether an instant of judgement lies more than an hour from ``reference``, the token's ``iat``.

    A chain that has expired, or that was revoked, since that instant was still good at it.
    """
    return any(abs(judged - reference) > _SAME_TIME for judged in (at.device, at.rim))


def weakenings(appraisal: Appraisal, *, issued: datetime, relying_party: Mapping[str, object] | None) -> list[str]:
    """What a token that is issued now has to say it accepts: the policy's weakenings, an override, another time."""
    names = list(appraisal.weakened)
    if relying_party is not None and relying_party.get("overrides_appraisal") is True:
        names.append(OVERRIDE)
    guest = appraisal.guest
    if guest is not None and guest.anchors != CPU_MAKERS:
        names.append(GUEST_ANCHORS)
    instants = (appraisal.at, *([VerificationTime.at(guest.at)] if guest is not None else []))
    if any(judged_at_another_time(at, issued) for at in instants):
        names.append(ANOTHER_TIME)
    return names


def provenance(
    appraisal: Appraisal, *, issued: datetime, relying_party: Mapping[str, object] | None = None
) -> JsonObject:
    """The member ``nvattest``: policy, anchors, clock and evidence digest; whether it was weakened or simulated.

    ``issued`` is the token's ``iat``. ``relying_party`` says which relying party's policy was applied, and its result;
    with ``overrides_appraisal: true`` in it, the token counts as weakened.
    """
    digest, number = appraised_digest(appraisal).hex(), len(appraisal.devices)
    made: JsonObject = {
        "format": FORMAT_VERSION,
        "version": __version__,
        "trusted": verdict(appraisal, relying_party),
        "policy": {
            "sha256": policy_digest(appraisal.policy),
            "weakened": weakenings(appraisal, issued=issued, relying_party=relying_party),
        },
        "anchors": appraisal.anchors,
        "simulated": appraisal.simulated,
        "at": {"device": format_time(appraisal.at.device), "rim": format_time(appraisal.at.rim)},
        "evidence": {"algorithm": "SHA-384", "digest": digest, "devices": number},
    }
    if appraisal.guest is not None:
        guest = appraisal.guest
        made["guest"] = {"trusted": guest.trusted, "anchors": guest.anchors, "strength": guest.strength.value}
    if relying_party is not None:
        made["relying_party_policy"] = dict(relying_party)
    return made


class Provenance(NamedTuple):
    """The member ``nvattest`` of a verified token; empty for tokens of others.

    ``weakened`` has all names, also the one of another time where the token itself omits it.
    """

    simulated: bool = False
    anchors: str | None = None
    weakened: tuple[str, ...] = ()
    evidence_digest: bytes | None = None
    trusted: bool | None = None
    at: VerificationTime | None = None

    @property
    def lenient(self) -> bool:
        """Whether a policy let checks pass that the claims of a device show as failed: what is said of the instant and
        of the guest changes no such claim.
        """
        return any(name != ANOTHER_TIME and not name.startswith(_OF_GUESTS) for name in self.weakened)


def read_provenance(token: Jws, key: PublicKey) -> Provenance:
    """The member ``nvattest`` of a token that ``key`` has verified, in our form (``malformed``); it names the key."""
    member = token.payload.get(MEMBER)
    if member is None:
        return Provenance()
    try:
        made = _read(member, token.payload.get("iat"))
        confirmed = PublicKey.from_jwk(token.payload["cnf"]["jwk"])  # type: ignore[index]
    except (KeyError, TypeError, AttributeError, ValueError, InputError):
        raise refuse(f"{token.what}: the member {MEMBER!r} or cnf is not as nvattest writes it", "malformed") from None
    if confirmed != key:
        raise refuse(f"{token.what} confirms the key {confirmed.thumbprint}, but {key.thumbprint} signed it", "cnf")
    return made


def _read(member: object, issued: object) -> Provenance:
    match member:
        case {
            "simulated": bool() as simulated,
            "trusted": bool() as trusted,
            "anchors": str() as anchors,
            "policy": {"weakened": [*weakened]},
            "evidence": {"digest": str() as digits},
            "at": {"device": str() as device, "rim": str() as rim},
            **rest,
        } if isinstance(issued, int) and all(isinstance(name, str) for name in weakened):
            at = VerificationTime(device=parse_time(device), rim=parse_time(rim))
        case _:
            raise TypeError
    if ANOTHER_TIME not in weakened and judged_at_another_time(at, instant(issued)):
        weakened = [*weakened, ANOTHER_TIME]
    guest: Any = rest.get("guest")
    policy: Any = rest.get("relying_party_policy")
    if guest is not None and guest["anchors"] != CPU_MAKERS and GUEST_ANCHORS not in weakened:
        weakened = [*weakened, GUEST_ANCHORS]
    digest = bytes.fromhex(digits)
    if len(digest) != 48:
        raise ValueError
    if policy is not None:
        if policy["overrides_appraisal"] is True and OVERRIDE not in weakened:
            raise ValueError
        if policy["matched"] is not True and trusted:
            raise ValueError
    return Provenance(
        simulated=simulated, anchors=anchors, weakened=tuple(weakened), evidence_digest=digest, trusted=trusted, at=at
    )


# --- the detached EAT -------------------------------------------------------------------------------------------------
#
# ``[["JWT", overall], {"GPU-0": jwt, "SWITCH-0": jwt}]``, in NVIDIA's shape: it follows what NVIDIA's remote service
# issues rather than RFC 9711, 5. The detached parts are JWTs, the digest is the lower-case hexadecimal SHA-256 of the
# compact JWT, ``eat_nonce`` is hexadecimal. Beside NVIDIA's claims the overall token has ``cnf`` (RFC 7800, 3.2) with
# the key that signed it and the member ``nvattest`` (``provenance``).


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
    """Sign an appraisal, good or bad; ``json.dumps`` of the result is the token.

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
        relying_party: the relying party's policy that was applied, and its result, for ``provenance``.

    Raises:
        InputError: no device, claims of more or fewer devices, or an argument that cannot be used.
    """
    devices = claims_by_device(appraisal, claims)
    registered = registered_claims(issuer=issuer, now=now, lifetime=lifetime, new_id=new_id)
    detached = {device.label: key.sign(said | registered()) for device, said in devices}
    overall: JsonObject = {
        **registered(),
        "sub": SUBJECT,
        "x-nvidia-ver": claims_version,
        OVERALL: verdict(appraisal, relying_party),
        "submods": {
            label: ["DIGEST", [DIGEST_LABELS[0], hashlib.sha256(token.encode("ascii")).hexdigest()]]
            for label, token in detached.items()
        },
        "cnf": {"jwk": key.public.jwk()},
        MEMBER: provenance(appraisal, issued=now, relying_party=relying_party),
    }
    # Without a nonce of the caller's there is none to echo: one read from the recording would prove nothing.
    if appraisal.nonce is not None:
        overall["eat_nonce"] = appraisal.nonce.hex()
    return [["JWT", key.sign(overall)], detached]
