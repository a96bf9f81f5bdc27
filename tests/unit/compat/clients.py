"""Clients over simulated devices: evidence, collateral, anchors and clock are given, nothing is asked of anybody."""

from __future__ import annotations

import json
from typing import Any

from nvattest.compat.nv_attestation_sdk.attestation import Attestation, Devices, Environment
from nvattest.model import DeviceKind
from nvattest.testing import Platform

NONCE = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"


def policy(version: str = "3.0", *, overall: dict[str, Any] | None = None, **detached: Any) -> str:
    return json.dumps(
        {
            "version": version,
            "authorization-rules": {
                "type": "JWT",
                "overall-claims": overall or {"x-nvidia-overall-att-result": True},
                "detached-claims": detached or {"measres": "success"},
            },
        }
    )


def client_of(platform: Platform, **settings: Any) -> Attestation:
    """A client that knows everything about this platform."""
    settings.setdefault("token_key", key())
    client = Attestation(
        "node",
        anchors=platform.trust_anchors(),
        collateral=platform.collateral(),
        at=platform.time,
        verbose=settings.pop("verbose", False),
        **settings,
    )
    client.set_nonce(NONCE)
    client.add_verifier(Devices.GPU, Environment.LOCAL, "", "")
    return client


def evidence_of(platform: Platform, kind: DeviceKind = DeviceKind.GPU, nonce: str = NONCE) -> list[Any]:
    return list(platform.evidence(bytes.fromhex(nonce), kind))


def key(number: int = 7) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    from nvattest.token.jose import SigningKey

    return SigningKey(ec.derive_private_key(number, ec.SECP384R1()))
