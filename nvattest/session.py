"""The wiring that a program would write: collect, fetch collateral, verify, and all three in one call.

Only this module reads the clock for a verification, and only where the caller names no instant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from nvattest.appraisal.inputs import Collateral, EvidencePolicy
from nvattest.appraisal.memory import ReadEvidence
from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.verifier import Verifier
from nvattest.errors import InputError
from nvattest.evidence import Evidence, load_evidence
from nvattest.model import DeviceKind, Nonce, VerificationTime, require_type
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors

if TYPE_CHECKING:
    from nvattest.appraisal.guest import DeviceSide
    from nvattest.collateral.cpu import CpuOptions
    from nvattest.collateral.gather import GatherOptions
    from nvattest.pki.anchors import CpuAnchors
    from nvattest.tee.collateral import CpuCollateral
    from nvattest.tee.guest import Guest
    from nvattest.token.jose import PublicKey, SigningKey
    from nvattest.token.verified import TokenKind, VerifiedToken

# Evidence as ``collect`` and ``load_evidence`` give it, as the text of a file, or as the JSON in it.
AnyEvidence: TypeAlias = (
    "Sequence[Evidence | ReadEvidence] | Evidence | bytes | str | Sequence[object] | Mapping[str, object]"
)
AnyCollateral: TypeAlias = "Collateral | bytes | str | Mapping[str, object]"
AnyNonce: TypeAlias = "Nonce | bytes | str"
AnyTime: TypeAlias = "VerificationTime | datetime"


def collect(
    nonce: AnyNonce,
    *,
    kinds: Iterable[DeviceKind] = (DeviceKind.GPU,),
    timeout: float = 30.0,
    allow_devtools: bool = False,
) -> tuple[Evidence, ...]:
    """Ask the devices of this machine for evidence over ``nonce``: all of each kind, or an error.

    Args:
        nonce: 32 bytes (or 64 hexadecimal digits), fresh: the relying party's, or ``os.urandom(32)``.
        kinds: GPUs by default; ``tuple(DeviceKind)`` is a whole platform with its switches.
        timeout: seconds for all driver calls of one kind.
        allow_devtools: also ask GPUs in DevTools mode. The default policy does not trust them.

    Raises:
        InputError: no such nonce, or a kind that is no ``DeviceKind``.
        CollectionError: the driver gave no evidence.
    """
    from nvattest._system import require_linux

    require_type(allow_devtools, bool, "allow_devtools")
    require_type(kinds, Iterable, "kinds")
    value, kinds = Nonce.of(nonce), tuple(kinds)
    if not all(isinstance(kind, DeviceKind) for kind in kinds):
        # The word for a switch would be taken for a GPU.
        raise InputError("kinds are members of DeviceKind", code="device-kind")
    require_linux("asking a device for evidence")
    from nvattest.devices.collect import collect_gpus, collect_switches

    found: list[Evidence] = []
    for kind in kinds:
        if kind is DeviceKind.NVSWITCH:
            found += collect_switches(value, timeout=timeout)
        else:
            found += collect_gpus(value, timeout=timeout, allow_devtools=allow_devtools)
    return tuple(found)


def fetch_collateral(
    evidence: AnyEvidence,
    *,
    options: GatherOptions | None = None,
    known: AnyCollateral | None = None,
    at: AnyTime | None = None,
    policy: EvidencePolicy | None = None,
    anchors: TrustAnchors | None = None,
    verifier: Verifier | None = None,
) -> Collateral:
    """Get the RIMs and revocation answers that this evidence needs: from ``known``, the cache, then the network.

    What cannot be had raises nothing: the appraisal says why it is missing.

    Args:
        evidence: as in ``verify``.
        options: services, limits and cache; by default NVIDIA's services, no cache, and the policy's revocation mode.
        known: collateral at hand, which is not asked for while it is good.
        at: the instant at which ``known`` and the cache are judged; now by default. Give ``verify`` a later one or
            none: live answers are stamped while this runs.
        policy: says how fresh revocation has to be.
        anchors: only certificates below them cause requests.
        verifier: one that is given to ``verify``, too, reads and validates everything once.

    Raises:
        ParseError: evidence or collateral that is text and cannot be read.
        InputError: options that cannot be used.
    """
    from nvattest.collateral.gather import GatherOptions, gather

    verifier = _verifier(verifier, anchors, policy)
    options = options if options is not None else GatherOptions(revocation=verifier.policy.revocation)
    require_type(options, GatherOptions, "options")
    return gather(
        _devices(evidence),
        options,
        at=now() if at is None else VerificationTime.of(at),
        known=None if known is None else _collateral(known),
        verifier=verifier,
    )


def fetch_cpu_collateral(
    quote: bytes,
    *,
    options: CpuOptions | None = None,
    anchors: CpuAnchors | None = None,
    at: datetime | None = None,
) -> CpuCollateral:
    """What the maker of the CPU signs about the guest in this quote's file, for ``Guest(collateral=…)``.

    From what the quote brings along, the cache of ``options``, and Intel's or AMD's service.

    Args:
        quote: the file of ``--bind-tee``, or a raw quote.
        options: where to ask and how; nothing is cached by default.
        anchors: the makers' pinned roots by default.
        at: the instant at which it has to be current, by default this machine's clock.

    Raises:
        ParseError: the quote cannot be read.
        CollateralError: it cannot be had, or what came is not the maker's or not current.
    """
    from nvattest.collateral.cpu import CpuOptions, fetch_cpu, wanted_of
    from nvattest.pki.anchors import CPU_ANCHORS
    from nvattest.tee.collateral import parse_collateral

    require_type(quote, bytes, "quote")
    answer = fetch_cpu(
        wanted_of(quote),
        options if options is not None else CpuOptions(),
        at=at if at is not None else now().device,
        anchors=anchors if anchors is not None else CPU_ANCHORS,
    )
    return parse_collateral(answer.content)


def parse_collateral(data: bytes, *, quote: bytes | None = None) -> CpuCollateral:
    """The collateral of a CPU in a file, for ``Guest(collateral=…)``. Nothing is verified.

    Args:
        data: Intel's JSON document, AMD's certificates and lists (PEM or DER), or a bundle that has such.
        quote: the file of the quote: of a bundle, what belongs to it is taken.

    Raises:
        ParseError: neither of them, or the quote of a bundle cannot be read.
        InputError: a bundle without a quote, or with nothing for it (code ``collateral-format``).
    """
    from nvattest.collateral.bundle import is_bundle, load_bundle
    from nvattest.tee import collateral

    if not is_bundle(data):
        return collateral.parse_collateral(data)
    from nvattest.collateral.cpu import choose

    if quote is None:
        detail, hint = "of a bundle, the quote says what belongs to it", "give the quote, too"
    elif (chosen := choose(load_bundle(data).cpu, quote)) is not None:
        return chosen
    else:
        detail, hint = "a bundle without collateral for the CPU of this quote", "nvattest bundle fetch --tee-quote"
    raise InputError(detail, code="collateral-format", hint=hint)


def verify(
    evidence: AnyEvidence,
    *,
    collateral: AnyCollateral,
    nonce: AnyNonce | None,
    at: AnyTime | None = None,
    policy: EvidencePolicy | None = None,
    anchors: TrustAnchors | None = None,
    verifier: Verifier | None = None,
    guest: Guest | None = None,
) -> Appraisal:
    """Verify evidence with collateral at hand, without a network or a driver.

    Bad evidence raises nothing: the appraisal says what failed. ``appraisal.require()`` raises unless it is trusted.

    Args:
        evidence: of all devices of one platform: ``Evidence``, the text of an evidence file, or its JSON.
        collateral: RIMs and revocation answers: ``Collateral``, the text of a bundle, or its JSON.
        nonce: the 32 bytes (or 64 hexadecimal digits) that the caller sent; None is not trusted under the default
            policy.
        at: the clock; now by default.
        policy: what is demanded; strict by default.
        anchors: the trust anchors; NVIDIA's pinned roots by default.
        verifier: one to keep for many verifications, in the place of ``policy`` and ``anchors``.
        guest: the guest's CPU quote and what is demanded of it: then the platform is trusted only together with it.

    Raises:
        ParseError: evidence or collateral that is text or JSON and cannot be read.
        InputError: no such nonce, an instant without a time zone, or no library for the guest's quote.
    """
    _require_guest(guest)
    appraisal = _verifier(verifier, anchors, policy).appraise(
        _devices(evidence),
        nonce=nonce,
        collateral=_collateral(collateral),
        at=now() if at is None else at,
    )
    if guest is None:
        return appraisal
    judged = guest.appraise(_device_side(appraisal), appraisal.at.device)
    return replace(appraisal, guest=judged, simulated=appraisal.simulated or judged.simulated)


def attest(
    evidence: AnyEvidence | None = None,
    *,
    nonce: AnyNonce | None = None,
    kinds: Iterable[DeviceKind] = (DeviceKind.GPU,),
    options: GatherOptions | None = None,
    known: AnyCollateral | None = None,
    at: AnyTime | None = None,
    policy: EvidencePolicy | None = None,
    anchors: TrustAnchors | None = None,
    verifier: Verifier | None = None,
) -> Appraisal:
    """Collect, fetch collateral and verify: ``collect``, ``fetch_collateral`` and ``verify`` in one call.

    Args:
        evidence: evidence at hand; without it the devices of this machine are asked.
        nonce: the nonce that the evidence was asked for; for devices that are asked now, a new random one by default.
        kinds: which devices are asked.
        options: how collateral is fetched.
        known: collateral at hand.
        at: the clock; now by default, read again when the collateral is there.
        policy: what is demanded; strict by default.
        anchors: the trust anchors; NVIDIA's pinned roots by default.
        verifier: one to keep for many verifications, in the place of ``policy`` and ``anchors``.

    Raises:
        CollectionError: the driver gave no evidence.
        ParseError, InputError: an argument that cannot be used.
    """
    verifier = _verifier(verifier, anchors, policy)
    if evidence is None:
        nonce = Nonce(os.urandom(32)) if nonce is None else Nonce.of(nonce)
        evidence = collect(nonce, kinds=kinds)
    devices = verifier.read(_devices(evidence))
    collateral = fetch_collateral(devices, options=options, known=known, at=at, verifier=verifier)
    # The clock is read last: what the network has just answered is not from the future.
    return verify(devices, collateral=collateral, nonce=nonce, at=at, verifier=verifier)


def verify_token(
    token: object,
    *,
    issuer: str | None,
    nonce: AnyNonce | None,
    at: AnyTime | None = None,
    jwks: bytes | str | Mapping[str, object] | None = None,
    jwks_url: str | None = None,
    key: bytes | str | PublicKey | None = None,
    x5c_roots: bytes | str | None = None,
    leeway: timedelta = timedelta(seconds=60),
    expected_devices: int | None = None,
    expected_gpus: int | None = None,
    expected_switches: int | None = None,
    kind: TokenKind | None = None,
    accept_simulated: bool = False,
    refuse_weakened: bool = False,
    guest: Guest | None = None,
) -> VerifiedToken:
    """Verify a token. A returned one may be believed, also where its result is bad: call its ``require()``.

    Args:
        token: text or bytes, a compact JWT (EAR) or the JSON of a detached EAT, or that JSON as an object. What
            ``get_token()`` of NVIDIA's Python SDK returns for its remote verifier is taken apart.
        issuer: the whole ``iss``. None compares it with nothing, and takes an EAR without one: then the key alone
            identifies the issuer.
        nonce: the nonce that was asked for, 32 bytes or 64 hexadecimal digits; compared in every token. None only
            with a guest whose recipe is a challenge of yours: the nonce then follows from it and the token's key.
        at: the clock; now by default.
        jwks: keys of the issuer by ``kid``, as JSON or as its object.
        jwks_url: where you fetched them, if you did; the result names it. Nothing is fetched here.
        key: the one key of the issuer, PEM of a public key or a certificate. Stands alone.
        x5c_roots: PEM of the anchors for certificate chains: of the JWKS's entries or, without a JWKS, of the token.
        leeway: how far the clocks may differ, at most 10 minutes.
        expected_devices: how many GPUs and switches together the token has to be about.
        expected_gpus: how many GPUs.
        expected_switches: how many NVSwitches.
        kind: the kind that the token has to be; None takes any.
        accept_simulated: also accept tokens about simulated devices, which prove nothing.
        refuse_weakened: refuse a token that says that its policy was weakened or that its anchors were not NVIDIA's,
            and one that says neither unless NVIDIA's own service issued it, by a key fetched there or given by you;
            otherwise look at ``weakened`` and ``foreign`` yourself. Of a guest, a weakened CPU policy is refused.
        guest: the guest's CPU quote and what is demanded of it; the result is in ``guest``. A bad quote raises nothing,
            and the token is then not ``trusted``.

    Raises:
        TokenError: the token must not be believed; ``code`` says which rule it broke.
        InputError: an argument cannot be used.
    """
    from nvattest.token.jose import Keyring
    from nvattest.token.verified import Expected, Rules
    from nvattest.token.verify import nonce_of_token, read_document, verify_token

    _require_guest(guest)
    if nonce is None:
        from nvattest.tee.recipes import Challenge

        if guest is None or not isinstance(guest.recipe, Challenge):
            raise InputError("a token is verified against the nonce that was asked for", code="nonce-type")
        nonce = nonce_of_token(read_document(token)[0], guest.recipe.challenge)[0]
    at = datetime.now(timezone.utc) if at is None else VerificationTime.of(at).device
    return verify_token(
        token,
        rules=Rules(issuer=issuer, nonce=Nonce.of(nonce), at=at, leeway=leeway),
        keys=Keyring.make(jwks=jwks, key=key, x5c_roots=x5c_roots, url=jwks_url),
        expected=Expected(expected_devices, expected_gpus, expected_switches),
        kind=kind,
        accept_simulated=accept_simulated,
        refuse_weakened=refuse_weakened,
        guest=guest,
    )


def issue_token(
    appraisal: Appraisal,
    key: SigningKey,
    *,
    ear: bool = False,
    claims_version: str = "4.0",
    issuer: str | None = None,
    lifetime: timedelta = timedelta(hours=1),
    relying_party: Mapping[str, object] | None = None,
    now: datetime | None = None,
) -> list[object] | str:
    """Sign an appraisal, good or bad: a detached EAT as a JSON value, or an EAR as a compact JWT.

    Args:
        appraisal: of one device or more.
        key: the private key, such as ``SigningKey.generate()``; relying parties get ``key.public``.
        ear: make an EAR (EAT attestation result) and not a detached EAT.
        claims_version: of the device claims: 2.0, 3.0 or 4.0.
        issuer: ``iss``; ``NVATTEST-LOCAL-VERIFIER`` by default.
        lifetime: from ``iat`` to ``exp``, at most a week.
        relying_party: the relying party's policy that was applied, and its result.
        now: the time of issue, by default this machine's clock, whatever clock the evidence is judged by.

    Raises:
        InputError: no device, or an argument that cannot be used.
    """
    from nvattest.token.claims import DEFAULT_ISSUER, claims_of
    from nvattest.token.jose import SigningKey

    require_type(appraisal, Appraisal, "appraisal")
    require_type(key, SigningKey, "key")
    require_type(ear, bool, "ear")
    claims, issuer = claims_of(appraisal, version=claims_version), issuer or DEFAULT_ISSUER
    sign: Callable[..., list[object] | str]
    if ear:
        from nvattest.token.ear import sign_ear

        sign = sign_ear
    else:
        from nvattest.token.claims import sign_detached_eat

        sign = partial(sign_detached_eat, claims_version=claims_version)
    return sign(
        appraisal,
        claims=claims,
        key=key,
        now=now if now is not None else datetime.now(timezone.utc),
        new_id=_new_id,
        issuer=issuer,
        lifetime=lifetime,
        relying_party=relying_party,
    )


def now() -> VerificationTime:
    """This machine's clock, for everything; read it after evidence and collateral are there.

    Whole seconds, as in certificates and answers: within one of them a verifier recognises what it has judged.
    """
    return VerificationTime.at(datetime.now(timezone.utc).replace(microsecond=0))


def _device_side(appraisal: Appraisal) -> DeviceSide:
    """What the judgement of a guest has to know of its devices."""
    from nvattest.appraisal.guest import DeviceSide
    from nvattest.token.binding import appraised_digest

    devices = appraisal.devices
    return DeviceSide(
        trusted=appraisal.trusted,
        number=len(devices),
        nonce=appraisal.nonce.value if appraisal.nonce is not None else None,
        digest=appraised_digest(appraisal) if devices else None,
        key=None,
        identities=tuple(device.identity.ueid for device in devices if device.identity is not None),
        reports=tuple(device.report_sha256 for device in devices),
    )


def _verifier(verifier: Verifier | None, anchors: TrustAnchors | None, policy: EvidencePolicy | None) -> Verifier:
    if verifier is None:
        return Verifier(anchors=NVIDIA_ANCHORS if anchors is None else anchors, policy=policy)
    require_type(verifier, Verifier, "verifier")
    if anchors is not None or policy is not None:
        raise TypeError("a verifier has its own anchors and policy: give them to it, or leave it out")
    return verifier


def _require_guest(guest: object) -> None:
    if guest is not None:
        from nvattest.tee.guest import Guest

        require_type(guest, Guest, "guest")


def _devices(evidence: AnyEvidence) -> Sequence[Evidence | ReadEvidence]:
    if isinstance(evidence, Evidence):
        return (evidence,)
    if isinstance(evidence, Sequence) and not isinstance(evidence, bytes | str):
        devices = [item for item in evidence if isinstance(item, Evidence | ReadEvidence)]
        if len(devices) == len(evidence):
            return devices
    return load_evidence(evidence)


def _collateral(collateral: AnyCollateral) -> Collateral:
    if isinstance(collateral, Collateral):
        return collateral
    from nvattest.collateral.bundle import load_bundle

    return load_bundle(collateral)


def _new_id() -> str:
    """A random UUID (RFC 9562, version 4). The module ``uuid`` would load ``platform`` and its patterns for it."""
    value = bytearray(os.urandom(16))
    value[6], value[8] = value[6] & 0x0F | 0x40, value[8] & 0x3F | 0x80
    parts = (value[:4], value[4:6], value[6:8], value[8:10], value[10:])
    return "-".join(part.hex() for part in parts)
