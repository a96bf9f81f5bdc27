"""Appraisals of simulated nodes as JSON values, made once each."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from copy import deepcopy

import pytest

from nvattest.appraisal.results import appraisal_to_json
from nvattest.appraisal.verifier import Verifier
from nvattest.model import Nonce
from nvattest.testing import Platform

NONCE = Nonce(bytes(range(32)))


@functools.cache
def _appraise(platform: str, lies: tuple[str, ...]) -> str:
    node = Platform.build(platform, lies=lies)
    appraisal = Verifier(anchors=node.trust_anchors()).appraise(
        node.evidence(NONCE.value),
        nonce=NONCE,
        collateral=node.collateral(),
        at=node.time,
    )
    return json.dumps(appraisal_to_json(appraisal))


@pytest.fixture
def appraise() -> Callable[..., dict[str, object]]:
    """``appraise("hopper-1", "gpu0:measurement=9")`` gives a fresh copy of the appraisal's JSON."""
    return lambda platform="hopper-1", *lies: deepcopy(json.loads(_appraise(platform, lies)))
