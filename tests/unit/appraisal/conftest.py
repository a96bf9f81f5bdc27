"""Simulated nodes and their collateral, appraised under policies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from nvattest.appraisal.inputs import Collateral, EvidencePolicy
from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.verifier import Verifier
from nvattest.evidence import Evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.testing import Platform

NONCE = bytes(range(32))


@dataclass(frozen=True)
class Node:
    """A simulated node with its evidence and its collateral."""

    platform: Platform
    evidence: tuple[Evidence, ...]
    collateral: Collateral

    def appraise(
        self,
        policy: EvidencePolicy | None = None,
        *,
        evidence: Iterable[Evidence] | None = None,
        collateral: Collateral | None = None,
        nonce: bytes | None = NONCE,
        later: timedelta = timedelta(0),
    ) -> Appraisal:
        return Verifier(anchors=self.platform.trust_anchors(), policy=policy).appraise(
            self.evidence if evidence is None else tuple(evidence),
            nonce=None if nonce is None else Nonce(nonce),
            collateral=self.collateral if collateral is None else collateral,
            at=VerificationTime.at(self.platform.clock + later),
        )

    def live(self) -> tuple[Evidence, ...]:
        """The evidence with what the driver says beside it."""
        return self.platform.collect(NONCE)

    def without(self, *rims: str) -> Collateral:
        """The collateral without the RIMs whose ids contain one of these words."""
        kept = {name: rim for name, rim in self.collateral.rims.items() if not any(word in name for word in rims)}
        return replace(self.collateral, rims=kept)


@functools.lru_cache(maxsize=64)
def _build(name: str, lies: tuple[str, ...], driver: str | None) -> Node:
    platform = Platform.build(name, lies=lies, driver_version=driver)
    return Node(
        platform=platform,
        evidence=platform.evidence(NONCE),
        collateral=platform.collateral(),
    )


@pytest.fixture(scope="session")
def node() -> Callable[..., Node]:
    """``node("hopper-1", "gpu0:fwid")``; the same arguments give the same node."""

    def make(name: str = "hopper-1", *lies: str, driver: str | None = None) -> Node:
        return _build(name, lies, driver)

    return make
