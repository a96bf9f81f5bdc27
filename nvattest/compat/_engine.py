"""The work behind both fronts: collect, verify here or at NRAS, and put the result into NVIDIA's token shapes."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from nvattest.compat._errors import CompatValueError, InvalidNonceError
from nvattest.compat._settings import Settings
from nvattest.compat._warnings import FOREIGN_ANCHORS, HELD, migrated
from nvattest.errors import CollectionError, InputError, ResultCode
from nvattest.evidence import Evidence
from nvattest.model import DeviceKind, Nonce, VerificationTime

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.results import Appraisal, DeviceAppraisal
    from nvattest.token.keys import SigningKey

CLAIMS_VERSIONS = ("2.0", "3.0")
LOCAL_ISSUERS = {DeviceKind.GPU: "LOCAL_GPU_VERIFIER", DeviceKind.NVSWITCH: "LOCAL_SWITCH_VERIFIER"}

# Revocation outcomes that the old SDK took for good: it looked at no window, no responder and no certificate id.
_LOOSE = frozenset({"STALE", "NOT_YET_VALID", "BAD_RESPONDER", "WRONG_CERTIFICATE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResult:
    """The outcome of a verification on this machine; ``token`` is the detached EAT as a list."""

    appraisal: Appraisal
    token: list[Any]
    held: tuple[str, ...]
    """The trusted devices that have, or whose RIMs have, a certificate on hold."""

    @property
    def trusted(self) -> bool:
        """The verdict for all devices together."""
        return self.appraisal.trusted


def read_nonce(text: object) -> Nonce:
    """The nonce of the old interfaces: 64 hexadecimal digits as a text.

    Raises:
        InvalidNonceError: anything else.
    """
    if not isinstance(text, str) or len(text) != 64:
        shown = f"a text of {len(text)} characters" if isinstance(text, str) else type(text).__name__
        raise InvalidNonceError(f"the nonce is {shown}", hint="give 64 hexadecimal digits")
    try:
        return Nonce.from_hex(text)
    except InputError as error:
        raise InvalidNonceError(error.message, hint=error.hint) from None


def new_nonce() -> str:
    """32 random bytes as hexadecimal digits."""
    return os.urandom(32).hex()


def check_claims_version(version: object) -> str:
    """A claims version of the old SDK.

    Raises:
        CompatValueError: another one.
    """
    if version not in CLAIMS_VERSIONS:
        raise CompatValueError(
            f"there are no claims of version {version!r} in the SDK",
            code="claims-version",
            hint=f"one of {', '.join(CLAIMS_VERSIONS)}; nvattest itself has 4.0 too",
        )
    return str(version)


def collect(kind: DeviceKind, nonce: Nonce, *, ppcie_mode: bool, no_gpu_mode: bool) -> tuple[Evidence, ...]:
    """Evidence from this machine's devices, or of a simulated one.

    Raises:
        CollectionError: the driver gave none, or the machine is in PPCIE mode and ``ppcie_mode`` refuses such.
    """
    if no_gpu_mode:
        return _simulated(kind, nonce)
    from nvattest.devices.collect import collect_gpus, collect_switches

    if ppcie_mode:
        _refuse_ppcie(kind)
    return collect_gpus(nonce) if kind is DeviceKind.GPU else collect_switches(nonce)


def _refuse_ppcie(kind: DeviceKind) -> None:
    from nvattest.devices.nvml import NvmlLibrary
    from nvattest.devices.state import read_state

    try:
        with NvmlLibrary.open() as library:
            ppcie = read_state(library).protected_pcie
    except CollectionError:
        # Without NVML the collection itself says what is missing; switches can be asked without it.
        if kind is DeviceKind.GPU:
            raise
        return
    if ppcie:
        raise CollectionError(
            "this machine is in protected PCIe mode, and ppcie_mode=True refuses such machines",
            code="ppcie-mode",
            result_code=ResultCode.GPU_MODE_NOT_SUPPORTED,
            hint='get_evidence(options={"ppcie_mode": False}); the name is the old SDK\'s',
        )


def _simulated(kind: DeviceKind, nonce: Nonce) -> tuple[Evidence, ...]:
    from nvattest.evidence import load_evidence
    from nvattest.testing.platform import Platform

    migrated(
        "no_gpu_mode gives evidence of a simulated device: it is signed for the nonce and proves nothing, so that the "
        "default trust anchors refuse it. The old sample had a fixed nonce. See 'nvattest simulate' for a whole world."
    )
    name = "hopper-1" if kind is DeviceKind.GPU else "hopper-8-ppcie"
    platform = Platform.build(name, clock=datetime.now(timezone.utc))
    return load_evidence(json.dumps(platform.evidence(nonce.value, kind)))


def verify_locally(
    evidence: Sequence[Evidence],
    *,
    nonce: Nonce,
    claims_version: str,
    settings: Settings,
    key: SigningKey,
    known: Collateral | None = None,
    at: VerificationTime | None = None,
    offline: bool = False,
) -> LocalResult:
    """Verify on this machine and sign what came of it, good or bad.

    ``known`` is collateral at hand; with ``offline`` nothing else is asked for. ``at`` is the clock; where it is None,
    that of this machine, read again after the collateral is there.

    Raises:
        InputError: settings that cannot be used.
    """
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.verifier import Verifier
    from nvattest.session import now
    from nvattest.token.claims import claims_of
    from nvattest.token.eat import sign_detached_eat

    anchors = settings.trust_anchors()
    if settings.anchors is None and not anchors.is_default:
        migrated(FOREIGN_ANCHORS)
    verifier = Verifier(anchors=anchors, policy=settings.evidence_policy())
    collateral = known if known is not None else Collateral()
    if not offline:
        from nvattest.collateral.gather import gather

        collateral = gather(
            evidence, settings.gather_options(), anchors=anchors, at=at or now(), known=collateral, verifier=verifier
        )
    appraisal = verifier.appraise(evidence, nonce=nonce, collateral=collateral, at=at or now())
    _explain_differences(appraisal)
    held = _held(appraisal)
    if held:
        why = "NV_ALLOW_HOLD_CERT in the environment" if settings.hold_by_environment else "allow_hold_cert"
        migrated(HELD.format(devices=", ".join(held), why=why))
    token = sign_detached_eat(
        appraisal,
        claims=claims_of(appraisal, version=claims_version),
        claims_version=claims_version,
        key=key,
        now=datetime.now(timezone.utc),
        new_id=lambda: str(uuid.uuid4()),
        issuer=LOCAL_ISSUERS[evidence[0].kind],
    )
    return LocalResult(appraisal=appraisal, token=token, held=held)


def _held(appraisal: Appraisal) -> tuple[str, ...]:
    # Not by the option that a check names: of several reasons it has one.
    return tuple(device.label for device in appraisal.devices if device.trusted and "ON_HOLD" in _statuses(device))


def _statuses(device: DeviceAppraisal) -> set[str]:
    chains = [device.chain, *(rim.chain for rim in device.rims.values())]
    return {item.revocation.status.name for chain in chains if chain is not None for item in chain.revocations}


def _explain_differences(appraisal: Appraisal) -> None:
    """Say so where the old SDK would have said yes."""
    if appraisal.trusted:
        return
    devices = appraisal.devices
    if devices[-1].trusted and any(not device.trusted for device in devices):
        bad = ", ".join(device.label for device in devices if not device.trusted)
        migrated(
            f"{bad} failed and the result is False. The old SDK kept one result object for all GPUs of an "
            "architecture, so that a good GPU after a bad one could make it True."
        )
    for device in devices:
        statuses = _statuses(device) & _LOOSE
        if statuses:
            migrated(
                f"{device.label}: a revocation answer does not count ({', '.join(sorted(statuses)).lower()}). The old "
                "SDK checked neither the validity window of an answer, nor its responder, nor which certificate it "
                "is about."
            )
            return
