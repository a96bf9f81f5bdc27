"""What a simulated platform hands out: our own types for programs, JSON for files."""

from __future__ import annotations

import json

import pytest

import nvattest
from nvattest.errors import CollectionError, InputError
from nvattest.testing import DEFAULT_NONCE, Platform, SimulatedFleet


def test_a_platform_is_appraised_as_its_devices_are_collected() -> None:
    platform = Platform.build("hopper-8-ppcie")
    nonce = nvattest.Nonce(bytes(range(32)))
    appraisal = platform.appraise(nonce)
    assert appraisal.trusted
    assert appraisal.simulated
    assert (appraisal.nonce, appraisal.at) == (nonce, platform.time)
    assert [device.kind for device in appraisal.devices] == [item.kind for item in platform.devices]
    assert platform.appraise(nonce.value) == appraisal


def test_an_appraisal_sees_the_lies_of_devices_rims_and_driver() -> None:
    lies = ("gpu0:measurement=9", "driver-rim:signature", "gpu0:hint-driver=1.2")
    appraisal = Platform.build("hopper-1", lies=lies).appraise()
    assert {"hints", "driver-rim-signature"} <= {check.id for _, check in appraisal.failures}
    assert not appraisal.trusted
    with pytest.raises(CollectionError):
        Platform.build("hopper-1", lies=["platform:cc-off"]).appraise()


def test_an_appraisal_follows_the_policy_that_is_given() -> None:
    platform = Platform.build("hopper-1")
    assert platform.appraise(policy=nvattest.EvidencePolicy(expected_gpus=1)).trusted
    assert not platform.appraise(policy=nvattest.EvidencePolicy(expected_gpus=2)).trusted


@pytest.mark.parametrize("name", ["hopper-8-ppcie", "blackwell-1"])
@pytest.mark.parametrize("kind", [None, *nvattest.DeviceKind])
def test_evidence_is_what_its_json_says(name: str, kind: nvattest.DeviceKind | None) -> None:
    platform = Platform.build(name)
    evidence, text = platform.evidence(DEFAULT_NONCE, kind), platform.evidence_json(kind, DEFAULT_NONCE)
    assert len(evidence) == len(json.loads(text)) == sum(kind in (None, item.kind) for item in platform.devices)
    if not evidence:
        return
    for given, read in zip(evidence, nvattest.load_evidence(text), strict=True):
        assert (given.architecture, given.nonce, given.report, given.certificate_chain) == (
            (read.architecture, read.nonce, read.report, read.certificate_chain)
        )


@pytest.mark.parametrize("source", [Platform.build("hopper-1", lies=["driver-rim:missing"]), SimulatedFleet(3)])
def test_collateral_is_what_a_bundle_of_it_says(source: Platform | SimulatedFleet) -> None:
    bundle = source.bundle()
    read = nvattest.load_bundle(bundle if isinstance(bundle, bytes) else json.dumps(bundle))
    given = source.collateral()
    assert {name: rim.content for name, rim in given.rims.items()} == {
        name: rim.content for name, rim in read.rims.items()
    }
    assert {answer.content for answer in given.ocsp} == {answer.content for answer in read.ocsp}


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_nonce_has_32_bytes(size: int) -> None:
    platform = Platform.build("hopper-1")
    for ask in (platform.evidence, platform.collect, platform.appraise):
        with pytest.raises(InputError) as caught:
            ask(bytes(size))
        assert caught.value.code == "nonce-size"
