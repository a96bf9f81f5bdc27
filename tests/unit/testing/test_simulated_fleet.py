"""A simulated fleet: every node is its own, and a verifier trusts each with one bundle."""

from __future__ import annotations

import json

import pytest

from nvattest.fleet import BatchSettings, Judge
from nvattest.testing import SimulatedFleet


def test_every_node_has_its_own_identity_and_is_trusted() -> None:
    fleet = SimulatedFleet(4)
    settings = BatchSettings(bundles=("fleet",), anchors=fleet.platform.anchors_pem, at=fleet.platform.time)
    judge = Judge(settings, contents=[fleet.bundle()])
    answers = [json.loads(judge.judge(fleet.line(index))) for index in range(4)]
    assert [answer["id"] for answer in answers] == [f"node-{index}" for index in range(4)]
    assert all(answer["trusted"] and answer["simulated"] for answer in answers)
    assert len({answer["devices"][0]["ueid"] for answer in answers}) == 4
    assert len({fleet.device(index).pdi for index in range(4)}) == 4
    assert len({fleet.nonce(index) for index in range(4)}) == 4


def test_the_same_seed_gives_the_same_nodes() -> None:
    assert SimulatedFleet(2).line(1) == SimulatedFleet(2).line(1)
    assert SimulatedFleet(2, seed=1).nonce(1) != SimulatedFleet(2).nonce(1)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_node_that_is_not_there_is_no_node(index: int) -> None:
    with pytest.raises(IndexError, match="2 nodes"):
        SimulatedFleet(2).device(index)
