"""Claims of simulated nodes, good and bad; each node is built once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest

from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.verifier import Verifier
from nvattest.model import Nonce
from nvattest.testing.platform import Platform
from nvattest.token.claims import claims_of

NONCE = Nonce(bytes(range(32)))
Claims = list[dict[str, object]]


@cache
def appraise_node(name: str, *lies: str) -> Appraisal:
    platform = Platform.build(name, lies=list(lies))
    return Verifier(anchors=platform.trust_anchors()).appraise(
        platform.evidence(NONCE.value),
        nonce=NONCE,
        collateral=platform.collateral(),
        at=platform.time,
    )


def node_claims(name: str, *lies: str, cached: bool = False, version: str = "4.0") -> Claims:
    """The claims of a node whose revocation answers carried our nonce, or (``cached``) came from a bundle."""
    claims = copy.deepcopy(claims_of(appraise_node(name, *lies), version=version))
    for device in claims:
        for value in device.values():
            if isinstance(value, dict) and "x-nvidia-cert-ocsp-nonce-matches" in value:
                assert value["x-nvidia-cert-ocsp-nonce-matches"] is False
                value["x-nvidia-cert-ocsp-nonce-matches"] = not cached
    return claims


@pytest.fixture(scope="session")
def appraise() -> Callable[..., Appraisal]:
    return appraise_node


@pytest.fixture(scope="session")
def node() -> Callable[..., Claims]:
    return node_claims
