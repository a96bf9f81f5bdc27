"""What a verifier remembers saves work and changes no answer: everything that a result depends on is part of its key."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from nvattest.appraisal.inputs import Collateral, EvidencePolicy, RevocationMode, RimAnswer
from nvattest.appraisal.memory import BoundedMap, Memory, ReadEvidence
from nvattest.appraisal.results import Appraisal, appraisal_to_json
from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.errors import ParseError
from nvattest.evidence import Evidence
from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.rim.document import parse_rim
from nvattest.spdm.report import Report
from nvattest.testing import DEFAULT_NONCE, Platform

OTHER_NONCE = bytes(range(32))


class Scene:
    """A verifier that trusted the platform, and a second one that meets every question for the first time."""

    def __init__(self, platform: Platform, collateral: Collateral) -> None:
        self.platform, self.collateral = platform, collateral
        self.evidence = self.collect(DEFAULT_NONCE)
        self.warm = Verifier(anchors=platform.trust_anchors())
        assert all(device.trusted for device in self.ask(self.warm).devices)

    def collect(self, nonce: bytes) -> tuple[Evidence, ...]:
        """Two GPUs and a switch."""
        items = self.platform.evidence(nonce)
        return (*items[:2], items[-1])

    def ask(
        self,
        verifier: Verifier,
        *,
        evidence: tuple[Evidence, ...] | None = None,
        nonce: bytes = DEFAULT_NONCE,
        collateral: Collateral | None = None,
        at: VerificationTime | None = None,
    ) -> Appraisal:
        return verifier.appraise(
            self.evidence if evidence is None else evidence,
            nonce=Nonce(nonce),
            collateral=self.collateral if collateral is None else collateral,
            at=self.platform.time if at is None else at,
        )

    def same(self, policy: EvidencePolicy | None = None, **question: object) -> Appraisal:
        """Both verifiers are asked; they must say the same, check by check and word by word."""
        cold = Verifier(anchors=self.warm.anchors, policy=policy)
        if policy is not None:
            self.warm.policy = policy
        expected = self.ask(cold, **question)  # type: ignore[arg-type]
        for _ in range(2):
            found = self.ask(self.warm, **question)  # type: ignore[arg-type]
            assert [device.checks for device in found.devices] == [device.checks for device in expected.devices]
            assert found.checks == expected.checks
            assert found == expected
        return expected


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform.build("hopper-8-ppcie")


@pytest.fixture(scope="module")
def collateral(platform: Platform) -> Collateral:
    return platform.collateral()


@pytest.fixture
def scene(platform: Platform, collateral: Collateral) -> Scene:
    return Scene(platform, collateral)


def failed(appraisal: Appraisal) -> set[str]:
    return {check.id for device in appraisal.devices for check in device.failures}


def test_a_device_that_comes_back_costs_one_signature(scene: Scene) -> None:
    again = scene.collect(OTHER_NONCE)[:1]
    before = memory_of(scene.warm).ecdsa.verifications
    assert scene.ask(scene.warm, evidence=again, nonce=OTHER_NONCE).devices[0].trusted
    assert memory_of(scene.warm).ecdsa.verifications - before == 1


def test_what_was_said_once_is_said_again(scene: Scene) -> None:
    assert not failed(scene.same())
    assert not failed(scene.same(evidence=scene.collect(OTHER_NONCE), nonce=OTHER_NONCE))


def test_another_nonce_is_seen(scene: Scene) -> None:
    assert "nonce" in failed(scene.same(nonce=OTHER_NONCE))
    assert "nonce" in failed(scene.same(evidence=scene.collect(OTHER_NONCE)))


@pytest.mark.parametrize("days", [-3650, 3650])
def test_another_clock_is_seen(scene: Scene, days: int) -> None:
    clock = scene.platform.clock + timedelta(days=days)
    for at in (
        VerificationTime(device=clock, rim=scene.platform.clock),
        VerificationTime(device=scene.platform.clock, rim=clock),
    ):
        assert failed(scene.same(at=at))
    assert not failed(scene.same())


def test_other_anchors_are_seen(scene: Scene) -> None:
    scene.warm.anchors = Platform.build("hopper-1", seed=1).trust_anchors()
    assert {"chain-path", "driver-rim-chain"} <= failed(scene.same())


@pytest.mark.parametrize(
    ("policy", "check"),
    [
        (EvidencePolicy(revocation=RevocationMode.FRESH), "chain-revocation"),
        (EvidencePolicy(allowed_architectures=(Architecture.BLACKWELL,)), "architecture"),
        (EvidencePolicy(fwid_optional_for=()), "fwid"),
        (EvidencePolicy(allowed_modes=("spt",)), "mode"),
        (EvidencePolicy(minimum_driver_version="9999.1"), "versions"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_policy_is_seen(scene: Scene, policy: EvidencePolicy, check: str) -> None:
    assert check in failed(scene.same(policy))
    assert not failed(scene.same(EvidencePolicy()))


def test_other_collateral_is_seen(scene: Scene) -> None:
    assert "chain-revocation" in failed(scene.same(collateral=replace(scene.collateral, ocsp=())))
    assert "driver-rim-available" in failed(scene.same(collateral=replace(scene.collateral, rims={})))
    assert not failed(scene.same())


def test_a_rim_that_is_replaced_in_the_callers_own_mapping_is_seen(scene: Scene) -> None:
    rims: dict[str, RimAnswer] = dict(scene.collateral.rims)
    collateral = replace(scene.collateral, rims=rims)
    assert not failed(scene.ask(scene.warm, collateral=collateral))
    driver = next(name for name in rims if "DRIVER" in name)
    rims[driver] = replace(rims[driver], content=rims[driver].content.replace(b"0", b"1"))
    assert {"driver-rim-signature", "driver-rim-format"} & failed(scene.ask(scene.warm, collateral=collateral))


def test_golden_values_of_another_issue_of_a_rim_are_seen() -> None:
    """Well signed, under the same id, and put in the place of the first in the mapping that the caller gave."""
    honest = Platform.build("hopper-1")
    first = honest.collateral()
    driver = next(answer for name, answer in first.rims.items() if "DRIVER" in name)
    later = Platform.build("hopper-1", lies=[f"driver-rim:golden={parse_rim(driver.content).golden[0].index}"])
    second = later.collateral()
    rims: dict[str, RimAnswer] = dict(first.rims)
    collateral, verifier = replace(first, rims=rims), Verifier(anchors=honest.trust_anchors())
    evidence = honest.evidence(DEFAULT_NONCE)
    found = []
    for given in (first, second, first):
        rims.update(given.rims)
        found.append(verifier.appraise(evidence, nonce=Nonce(DEFAULT_NONCE), collateral=collateral, at=honest.time))
    assert [failed(appraisal) for appraisal in found] == [set(), {"measurements"}, set()]


def test_another_chain_under_a_known_report_and_another_report_over_a_known_chain_are_seen(scene: Scene) -> None:
    first, second = scene.evidence[:2]
    swapped = replace(first, certificate_chain=second.certificate_chain)
    assert "report-signature" in failed(scene.same(evidence=(swapped,)))
    swapped = replace(first, report=second.report)
    assert "report-signature" in failed(scene.same(evidence=(swapped,)))


def test_a_known_gpu_under_another_name_is_seen(scene: Scene) -> None:
    renamed = replace(scene.evidence[0], architecture=Architecture.BLACKWELL)
    assert "architecture" in failed(scene.same(evidence=(renamed,)))


@pytest.mark.parametrize("place", ["record", "opaque"])
def test_a_bit_in_a_known_part_of_a_report_is_seen(scene: Scene, place: str) -> None:
    known = scene.evidence[0]
    report = scene.warm.read([known])[0].report
    assert isinstance(report, Report)
    part = report.response.record if place == "record" else report.response.opaque
    at = known.report.index(part) + len(part) - 1
    changed = bytearray(known.report)
    changed[at] ^= 1
    appraisal = scene.same(evidence=(replace(known, report=bytes(changed)),))
    assert {"report-signature", "report-format"} & failed(appraisal)


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        ("gpu0:fwid", "fwid"),
        ("gpu0:svn=0", "minimum-svn"),
        ("gpu0:measurement=3", "measurements"),
        ("gpu0:field=35,474831303000", "architecture"),
    ],
)
def test_a_known_gpu_that_says_another_thing_is_seen(lie: str, check: str) -> None:
    """It signs what it says: only the step that looks at that can notice, and it must not have been remembered."""
    honest, liar = (Platform.build("blackwell-8-mpt", lies=lies) for lies in ([], [lie]))
    collateral = honest.collateral()
    warm = Verifier(anchors=honest.trust_anchors())
    given = [platform.evidence(DEFAULT_NONCE)[:1] for platform in (honest, liar, honest)]
    assert given[0][0].certificate_chain == given[1][0].certificate_chain
    answers = [warm.appraise(item, nonce=Nonce(DEFAULT_NONCE), collateral=collateral, at=honest.time) for item in given]
    assert failed(answers[0]) == failed(answers[2]) == set()
    assert check in failed(answers[1])
    assert "report-signature" not in failed(answers[1])


def test_known_bytes_read_as_a_gpu_do_not_read_as_a_switch(scene: Scene) -> None:
    gpu = next(item for item in scene.evidence if item.kind is DeviceKind.GPU)
    [read] = scene.warm.read([replace(gpu, architecture=Architecture.LS10)])
    assert isinstance(read.report, ParseError)


def test_the_memory_is_bounded_and_keeps_nothing_that_raised() -> None:
    memory: BoundedMap[int] = BoundedMap(3)
    for key in range(3):
        memory.put(key, key + 10)
    assert memory.get(0) == 10
    memory.put(3, 13)
    assert [memory.get(key) for key in range(4)] == [10, None, 12, 13]
    assert len(memory) == 3

    def fail() -> int:
        raise ParseError("no", source="test", code="test")

    with pytest.raises(ParseError):
        memory.recall("bad", fail)
    assert memory.recall("bad", lambda: 7) == memory.recall("bad", fail) == 7


def test_a_driver_that_says_devtools_later_is_heard_by_a_warm_verifier(
    platform: Platform, collateral: Collateral
) -> None:
    scene = Scene(platform, collateral)
    items = tuple(replace(item, hints={**item.hints, "dev_tools": "on"}) for item in scene.evidence)
    found = scene.same(evidence=items)
    assert [[check.id for check in device.checks if not check.acceptable] for device in found.devices] == [
        ["debug"]
    ] * 3
    allowed = scene.same(EvidencePolicy(allow_debug=True), evidence=items)
    assert all(device.trusted for device in allowed.devices)
    assert "allow_debug" in allowed.weakened


def test_a_known_chain_is_validated_once_and_its_validity_judged_at_each_instant(scene: Scene, monkeypatch) -> None:
    """The clock of the appraisal is later than that of the gathering before it, within one run."""
    from nvattest.appraisal import memory
    from nvattest.rim import verify

    for module in (memory, verify):
        monkeypatch.setattr(module, "validate_chain", lambda *_, **__: pytest.fail("validated again"))
    for seconds in (1, 2):
        at = VerificationTime.at(scene.platform.clock + timedelta(seconds=seconds))
        assert not failed(scene.ask(scene.warm, at=at))
    early = VerificationTime.at(scene.platform.clock - timedelta(days=36500))
    assert {"chain-validity", "driver-rim-validity"} <= failed(scene.ask(scene.warm, at=early))


def test_the_report_of_another_device_cannot_be_put_beside_evidence(scene: Scene) -> None:
    first, second = scene.warm.read(scene.evidence[:2])
    with pytest.raises(TypeError):
        ReadEvidence(first.evidence, second.report, first.certificates, object())
    with pytest.raises((TypeError, ValueError), match="seal"):
        replace(first, report=second.report)


def test_answers_are_those_of_the_collateral_that_was_asked_about_though_another_thread_asks_about_another() -> None:
    """A gathering that was given up may still run while its verifier appraises."""
    mine = Platform.build("hopper-1").collateral()
    others = Collateral()

    class Interrupted(Memory):
        interrupted = False

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "_indexed" and value is not None and not self.interrupted:
                self.interrupted = True
                self.answers(others)

    found, _ = Interrupted(EcdsaVerifier()).answers(mine)
    assert found == Memory(EcdsaVerifier()).answers(mine)[0] != {}


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that change places after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], object], *, threads: int = 6) -> list[object]:
    """What these threads made of their numbers, begun at the same moment; their first error is raised."""
    start = threading.Barrier(threads)

    def begin(number: int) -> object:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


@dataclass(frozen=True)
class Key:
    """Its comparison is Python, so that another thread may run inside of a look-up."""

    number: int

    def __hash__(self) -> int:
        return self.number % 3


@pytest.mark.usefixtures("restless")
def test_threads_that_share_a_map_get_the_values_of_their_keys() -> None:
    shared: BoundedMap[int] = BoundedMap(5)

    def work(thread: int) -> bool:
        numbers = [(thread + 7 * step) % 11 for step in range(1500)]
        return all(
            shared.recall(Key(number), lambda number=number: 1000 + number) == 1000 + number for number in numbers
        )

    assert together(work) == [True] * 6
    assert len(shared) <= 5


@pytest.mark.usefixtures("restless")
def test_threads_that_share_a_verifier_get_what_each_would_get_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Hardly anything is kept, so that the threads drop what others have just looked for.
    monkeypatch.setattr("nvattest.appraisal.memory._DEVICES", 2)
    platforms = [Platform.build("hopper-1"), Platform.build("hopper-1", lies=("gpu0:measurement=9",))]
    platforms += [Platform.build("blackwell-1"), Platform.build("hopper-1", lies=("gpu0:signature",))]
    collateral = [platform.collateral() for platform in platforms]
    nonces = [bytes([number]) * 32 for number in range(3)]
    cases = [(index, nonce) for nonce in nonces for index in range(len(platforms))]
    evidence = {(index, nonce): platforms[index].evidence(nonce) for index, nonce in cases}

    def ask(verifier: Verifier, index: int, nonce: bytes) -> object:
        return appraisal_to_json(
            verifier.appraise(
                evidence[index, nonce], nonce=nonce, collateral=collateral[index], at=platforms[index].time
            )
        )

    anchors = platforms[0].trust_anchors()
    alone = {case: ask(Verifier(anchors=anchors), *case) for case in cases}
    assert len({str(answer) for answer in alone.values()}) == len(cases)
    shared = Verifier(anchors=anchors)

    def work(thread: int) -> bool:
        mine = cases[thread:] + cases[:thread]
        return all(ask(shared, *case) == alone[case] for case in mine)

    assert together(work) == [True] * 6
