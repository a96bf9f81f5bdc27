"""Genuine parts in the wrong place: each part below verifies on its own, and the whole is refused by the check named.

Two nodes, A and B, are genuine under one set of anchors, each with its own collateral. The attacker has all that they
ever said, may ask them anything, and mixes.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from nvattest.appraisal.check import Outcome
from nvattest.appraisal.inputs import Collateral, EvidencePolicy, OcspAnswer, RimAnswer, Source, TopologyRule
from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.verifier import Verifier
from nvattest.evidence import Evidence
from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime
from nvattest.pki.anchors import TrustAnchors, trust_anchors_from_pem
from nvattest.pki.certificate import parse_certificate
from nvattest.pki.ocsp import build_ocsp_request, parse_ocsp_response
from nvattest.rim.document import parse_rim
from nvattest.testing import DEFAULT_NONCE, Platform
from nvattest.testing.certificates import KeyRing, issue, pem

OTHER_NONCE = bytes(range(32))
BAD = (Outcome.FAIL, Outcome.ABSENT, Outcome.SKIPPED)


@functools.cache
def node(name: str = "hopper-8-ppcie", seed: int = 0, *lies: str, driver: str | None = None) -> Platform:
    return Platform.build(name, seed=seed, lies=lies, driver_version=driver)


def evidence_of(platform: Platform, nonce: bytes = DEFAULT_NONCE) -> list[Evidence]:
    return list(platform.evidence(nonce))


def collateral_of(platform: Platform) -> Collateral:
    return platform.collateral()


@dataclass
class Case:
    """What a verifier is handed. It starts as node A, honest in everything."""

    evidence: list[Evidence] = field(default_factory=lambda: evidence_of(node()))
    collateral: Collateral = field(
        default_factory=lambda: collateral_of(node()).merged(collateral_of(node("hopper-8-ppcie", 1)))
    )
    anchors: TrustAnchors = field(
        default_factory=lambda: trust_anchors_from_pem(node().anchors_pem + node("hopper-8-ppcie", 1).anchors_pem)
    )
    nonce: Nonce = Nonce(DEFAULT_NONCE)  # noqa: RUF009 - it is frozen
    at: VerificationTime = field(default_factory=lambda: node().time)
    policy: EvidencePolicy = field(default_factory=EvidencePolicy)

    def appraise(self) -> Appraisal:
        return Verifier(anchors=self.anchors, policy=self.policy).appraise(
            self.evidence, nonce=self.nonce, collateral=self.collateral, at=self.at
        )

    def change(self, index: int, **changes: Any) -> Case:
        self.evidence[index] = replace(self.evidence[index], **changes)
        return self

    def with_rim(self, role: str, content: bytes | None) -> Case:
        name = next(key for key in node().rims() if role in key)
        self.collateral = replace(
            self.collateral,
            rims={**self.collateral.rims, name: RimAnswer(id=name, content=content or b"", source=Source.BUNDLE)},
        )
        return self


B = functools.partial(node, "hopper-8-ppcie", 1)
GPU, SWITCH = 0, 8  # where the GPUs and the switches begin in the evidence of a node


def alone(platform: Platform, **changes: Any) -> Case:
    """A node that stands for itself, with its own anchors."""
    case = Case(
        evidence=evidence_of(platform),
        collateral=collateral_of(platform),
        anchors=platform.trust_anchors(),
        at=platform.time,
    )
    return replace(case, **changes)


# --- reports and chains -----------------------------------------------------------------------------------------------


def chain_of_another(victim: int, other: int) -> Case:
    case = Case()
    return case.change(victim, certificate_chain=case.evidence[other].certificate_chain)


def reports_exchanged() -> Case:
    case = Case()
    first, second = case.evidence[0].report, case.evidence[1].report
    return case.change(0, report=second).change(1, report=first)


def signature_of_another() -> Case:
    case = Case()
    mine, other = case.evidence[0].report, case.evidence[1].report
    return case.change(0, report=mine[:-96] + other[-96:])


def signature_of_another_nonce() -> Case:
    """The nonce is put into an old report: what is compared is right, what is signed is not."""
    case = Case()
    old = node().gpus[0].report(OTHER_NONCE)
    return case.change(0, report=old[:4] + DEFAULT_NONCE + old[36:])


def leaf_on_another_brom() -> Case:
    ders = [c.der for c in node().gpus[0].certificates]
    ders[1] = node().gpus[1].certificates[1].der
    return Case().change(0, certificate_chain=pem(ders))


def leaf_under_another_node() -> Case:
    mine, other = node().gpus[0].certificates, B().gpus[0].certificates
    return Case().change(0, certificate_chain=pem(c.der for c in (*mine[:2], *other[2:])))


def leaf_issued_by_a_leaf() -> Case:
    """The key of a genuine device certifies a key of the attacker, who then signs what he likes."""
    device = node().gpus[0]
    leaf = device.certificates[0]
    rogue = KeyRing(99).key("rogue")
    made = issue(replace(leaf.template, serial=77, key=rogue), leaf.template)
    report = device.report(DEFAULT_NONCE)
    signed = report[:-96]
    case = Case()
    chain = pem([made.der, *(c.der for c in device.certificates)])
    return case.change(0, report=signed + rogue.sign_raw(signed), certificate_chain=chain)


def roots(platform: Platform | None = None) -> tuple[bytes, bytes]:
    """The PEM of the device root and of the RIM root."""
    end = b"-----END CERTIFICATE-----\n"
    device, rim = ((platform or node("hopper-1")).anchors_pem.split(end))[:2]
    return device + end, rim + end


def rim_chain_as_device_chain(*, own_roots: bool) -> Case:
    """With custom anchors of one file, each root serves both purposes; NVIDIA's do not, nor need custom ones."""
    document = next(iter(node().rims().values()))
    case = Case().change(0, certificate_chain=pem(c.der for c in parse_rim(document).certificates))
    if not own_roots:
        return case
    device, rim = roots(node())
    return replace(case, anchors=trust_anchors_from_pem(device, rim=rim))


# --- devices ----------------------------------------------------------------------------------------------------------


def labelled(index: int, architecture: Architecture) -> Case:
    return Case().change(index, architecture=architecture)


def put_in(index: int, item: Evidence) -> Case:
    case = Case()
    case.evidence[index] = item
    return case


def in_addition(*items: Evidence) -> Case:
    case = Case()
    case.evidence += items
    return case


def without(*indices: int) -> Case:
    case = Case()
    case.evidence = [item for index, item in enumerate(case.evidence) if index not in indices]
    return case


def gpus_of_one_and_switches_of_another() -> Case:
    case = Case()
    case.evidence = evidence_of(node())[:SWITCH] + evidence_of(B())[SWITCH:]
    return case


def half_and_half() -> Case:
    case = Case()
    case.evidence = evidence_of(node())[:4] + evidence_of(B())[4:SWITCH] + evidence_of(node())[SWITCH:]
    return case


def asked_again(index: int) -> Evidence:
    """The same device once more, over the same nonce: another report, as good as the first."""
    item = evidence_of(node())[index]
    return replace(item, report=node().gpus[index].report(DEFAULT_NONCE))


def answered_for_somebody_else(*indices: int, declare: bool = False) -> Case:
    case = Case()
    for index in indices:
        report = (node().gpus + node().switches)[index].report(OTHER_NONCE)
        case.change(index, report=report, nonce=OTHER_NONCE if declare else DEFAULT_NONCE)
    return case


def declared_nonce_only() -> Case:
    """Recorded evidence with the nonce of today written beside it."""
    case = Case(evidence=evidence_of(node(), OTHER_NONCE))
    case.evidence = [replace(item, nonce=DEFAULT_NONCE) for item in case.evidence]
    return case


# --- reference manifests ----------------------------------------------------------------------------------------------


def rim_of(platform: Platform, role: str) -> bytes:
    return next(content for name, content in platform.rims().items() if role in name)


def switched_rims() -> Case:
    return Case().with_rim("DRIVER", rim_of(node(), "GPU_VBIOS")).with_rim("GPU_VBIOS", rim_of(node(), "DRIVER"))


def old_rim_for_a_new_driver() -> Case:
    return Case().with_rim("DRIVER", rim_of(node("hopper-1", 0, driver="580.00.01"), "DRIVER"))


def rim_of_another_product() -> Case:
    return Case().with_rim("DRIVER", rim_of(node("blackwell-1", driver="590.00.12"), "DRIVER"))


def rim_of_a_switch() -> Case:
    return Case().with_rim("GPU_VBIOS", rim_of(node(), "SWITCH"))


def gpu_rim_for_a_switch() -> Case:
    return Case().with_rim("SWITCH", rim_of(node(), "GPU_VBIOS"))


def rim_of_an_unknown_root() -> Case:
    case = alone(node("hopper-1"))
    case.collateral = replace(case.collateral, rims=collateral_of(node("hopper-1", 5)).rims)
    return case


def anchors_exchanged() -> Case:
    """The roots of devices and of RIMs, each taken for the other."""
    device, rim = roots()
    assert alone(node("hopper-1"), anchors=trust_anchors_from_pem(device, rim=rim)).appraise().trusted
    return alone(node("hopper-1"), anchors=trust_anchors_from_pem(rim, rim=device))


# --- revocation -------------------------------------------------------------------------------------------------------


def answers(keep: Callable[[str], bool], platform: Platform | None = None) -> Case:
    platform = platform or node()
    chosen = [content for name, content in platform.ocsp_answers().items() if keep(name)]
    assert 0 < len(chosen) < len(platform.ocsp_answers())
    case = Case()
    case.collateral = replace(
        case.collateral, ocsp=tuple(OcspAnswer(content=content, source=Source.BUNDLE) for content in chosen)
    )
    return case


def answers_of_the_other_node() -> Case:
    case = Case()
    case.collateral = replace(case.collateral, ocsp=collateral_of(B()).ocsp)
    return case


def live_answers(nonce_of: Callable[[int], bytes], source: Source = Source.LIVE) -> Case:
    """Answers over the network: each request has a nonce, and the answer another one."""
    platform = node("hopper-1")
    case = alone(platform)
    made = []
    chains = [[parse_certificate(c.der) for c in platform.gpus[0].certificates]]
    chains += [list(parse_rim(content).certificates) for content in platform.rims().values()]
    for number, chain in enumerate(chains):
        for index in range(1 if number == 0 else 0, len(chain) - 1):
            request = build_ocsp_request(chain[index], chain[index + 1], nonce=bytes(32))
            made.append(OcspAnswer(content=platform.ocsp(request), source=source, nonce=nonce_of(index)))
    case.collateral = replace(case.collateral, ocsp=tuple(made))
    return case


CASES: dict[str, tuple[str, Callable[[], Case]]] = {
    # One device's report with another's chain.
    "a GPU's report with the chain of its neighbour": ("report-signature", lambda: chain_of_another(0, 1)),
    "a GPU's report with the chain of a switch": ("architecture", lambda: chain_of_another(0, SWITCH)),
    "a switch's report with the chain of a GPU": ("architecture", lambda: chain_of_another(SWITCH, 0)),
    "a GPU's report with the chain of the other node": (
        "report-signature",
        lambda: Case().change(0, certificate_chain=B().gpus[0].chain_pem),
    ),
    "two reports exchanged": ("report-signature", reports_exchanged),
    "the signature of the neighbour's report": ("report-signature", signature_of_another),
    "the nonce written into an old report": ("report-signature", signature_of_another_nonce),
    "a leaf on the boot ROM of another GPU": ("chain-path", leaf_on_another_brom),
    "a leaf under the authorities of another root": ("chain-path", leaf_under_another_node),
    "a leaf that a genuine leaf issued": ("chain-path", leaf_issued_by_a_leaf),
    "the chain of a RIM's signer": ("chain-path", lambda: rim_chain_as_device_chain(own_roots=True)),
    "the chain of a RIM's signer under one root for all": (
        "architecture",
        lambda: rim_chain_as_device_chain(own_roots=False),
    ),
    # One kind of device as another.
    "a switch called a GPU": ("report-format", lambda: labelled(SWITCH, Architecture.HOPPER)),
    "a GPU called a switch": ("report-format", lambda: labelled(0, Architecture.LS10)),
    "a Hopper called a Blackwell": ("architecture", lambda: labelled(0, Architecture.BLACKWELL)),
    "a Blackwell called a Hopper": (
        "architecture",
        lambda: put_in(0, replace(evidence_of(node("blackwell-1"))[0], architecture=Architecture.HOPPER)),
    ),
    # Devices of another node, too many, too few, twice.
    "a GPU of the other node": ("topology", lambda: put_in(3, evidence_of(B())[3])),
    "a switch of the other node": ("topology", lambda: put_in(SWITCH + 1, evidence_of(B())[SWITCH + 1])),
    "GPUs of one node, switches of the other": ("topology", gpus_of_one_and_switches_of_another),
    "half of the GPUs of the other node": ("topology", half_and_half),
    "a ninth GPU": ("topology", lambda: in_addition(evidence_of(B())[0])),
    "a fifth switch": ("topology", lambda: in_addition(evidence_of(B())[SWITCH])),
    "both nodes as one": ("topology", lambda: in_addition(*evidence_of(B()))),
    "a GPU left out": ("topology", lambda: without(5)),
    "a switch left out": ("topology", lambda: without(SWITCH)),
    "a GPU that stands for itself in a PPCIE node": (
        "one-mode",
        lambda: put_in(0, evidence_of(node("hopper-1"))[0]),
    ),
    "one GPU in the place of another": ("devices-distinct", lambda: put_in(3, evidence_of(node())[2])),
    "one GPU asked twice": ("devices-distinct", lambda: put_in(3, asked_again(2))),
    "one GPU in addition": ("devices-distinct", lambda: in_addition(evidence_of(node())[0])),
    "one switch in the place of another": ("devices-distinct", lambda: put_in(SWITCH, evidence_of(node())[SWITCH + 1])),
    "seven GPUs where eight are expected": (
        "devices-present",
        lambda: replace(without(7), policy=EvidencePolicy(expected_gpus=8)),
    ),
    "no switches where four are expected": (
        "devices-present",
        lambda: replace(without(8, 9, 10, 11), policy=EvidencePolicy(expected_switches=4)),
    ),
    "no switches where the topology is demanded": (
        "topology",
        lambda: replace(without(8, 9, 10, 11), policy=EvidencePolicy(topology=TopologyRule.REQUIRED)),
    ),
    "no GPUs where the topology is demanded": (
        "topology",
        lambda: replace(without(*range(8)), policy=EvidencePolicy(topology=TopologyRule.REQUIRED)),
    ),
    "nothing at all": ("devices-present", lambda: without(*range(12))),
    # Recordings.
    "a recording of the whole node": ("nonce", lambda: Case(evidence=evidence_of(node(), OTHER_NONCE))),
    "a recording with the nonce of today beside it": ("nonce", declared_nonce_only),
    "a recording of one GPU": ("one-nonce", lambda: answered_for_somebody_else(4)),
    "a recording of one GPU that says so": ("nonce", lambda: answered_for_somebody_else(4, declare=True)),
    "a recording of one switch": ("one-nonce", lambda: answered_for_somebody_else(9)),
    "today's evidence with another nonce beside it": ("nonce", lambda: Case().change(0, nonce=OTHER_NONCE)),
    "evidence for the other verifier": ("nonce", lambda: Case(nonce=Nonce(OTHER_NONCE))),
    # Validly signed RIMs of something else.
    "driver and VBIOS RIM exchanged": ("driver-rim-binding", switched_rims),
    "the RIM of another driver": ("driver-rim-binding", old_rim_for_a_new_driver),
    "the RIM of another product": ("driver-rim-binding", rim_of_another_product),
    "the RIM of a switch for a GPU": ("vbios-rim-binding", rim_of_a_switch),
    "the RIM of a GPU for a switch": ("bios-rim-binding", gpu_rim_for_a_switch),
    "the RIMs of a root that is not an anchor": ("driver-rim-chain", rim_of_an_unknown_root),
    "the device root for RIMs and the RIM root for devices": ("chain-path", anchors_exchanged),
    "the RIM root for devices and the device root for RIMs": ("driver-rim-chain", anchors_exchanged),
    # Revocation answers of something else.
    "answers about the other node only": ("chain-revocation", answers_of_the_other_node),
    "answers about the RIMs only": ("chain-revocation", lambda: answers(lambda name: "RIM" in name or "Reference" in name)),
    "no answer about one boot ROM": ("chain-revocation", lambda: answers(lambda name: not name.startswith("00-"))),
    "answers of yesterday": (
        "chain-revocation",
        lambda: Case(at=VerificationTime.at(node().clock + timedelta(days=2))),
    ),
    "answers of tomorrow": ("chain-revocation", lambda: Case(at=VerificationTime.at(node().clock - timedelta(days=2)))),
    "live answers to other requests": ("chain-revocation", lambda: live_answers(lambda _: OTHER_NONCE)),
}  # fmt: skip


def refusing(appraisal: Appraisal) -> set[str]:
    return {check.id for _, check in appraisal.failures}


@pytest.mark.parametrize("name", CASES)
def test_genuine_parts_in_the_wrong_place_are_refused_by_the_check_that_has_to_see_it(name: str) -> None:
    check, make = CASES[name]
    appraisal = make().appraise()
    assert not appraisal.trusted
    assert appraisal.result_code != 0
    assert check in refusing(appraisal), sorted(refusing(appraisal))


def test_what_the_cases_start_from_is_trusted() -> None:
    assert Case().appraise().trusted
    assert replace(Case(), evidence=evidence_of(B())).appraise().trusted
    assert live_answers(lambda _: bytes(32)).appraise().trusted
    # The other node's copy of a RIM is another document under the same id, and as good.
    assert Case().with_rim("DRIVER", rim_of(B(), "DRIVER")).appraise().trusted


def test_the_failure_names_the_device_that_was_put_in_and_no_other() -> None:
    appraisal = chain_of_another(2, 3).appraise()
    assert {label for label, check in appraisal.failures if check.id == "report-signature"} == {"GPU-2"}
    assert [device.label for device in appraisal.devices if not device.trusted] == ["GPU-2"]


@pytest.mark.parametrize("position", range(12))
def test_a_device_of_the_other_node_is_seen_at_every_place(position: int) -> None:
    appraisal = put_in(position, evidence_of(B())[position]).appraise()
    assert all(device.trusted for device in appraisal.devices), "it is genuine: only the whole can tell"
    assert "topology" in refusing(appraisal)


def test_an_order_of_devices_means_nothing() -> None:
    case = Case()
    case.evidence.reverse()
    assert case.appraise().trusted


def test_a_verifier_that_saw_the_good_one_is_not_softer_on_the_bad_one() -> None:
    """All cases of one set of anchors through one verifier, before and after the honest node, in both orders."""
    verifier = Verifier(anchors=Case().anchors)
    honest = Case()
    for name, (check, make) in [*CASES.items(), *reversed(CASES.items())]:
        case = make()
        if case.anchors != honest.anchors or case.policy != honest.policy:
            continue
        seen = verifier.appraise(case.evidence, nonce=case.nonce, collateral=case.collateral, at=case.at)
        assert not seen.trusted, name
        assert check in refusing(seen), name
        assert verifier.appraise(
            honest.evidence, nonce=honest.nonce, collateral=honest.collateral, at=honest.at
        ).trusted, name


def test_what_no_check_can_see_is_written_down_here() -> None:
    """GPUs that are not linked by protected PCIe say nothing of each other: two nodes can pass for one.

    The nonce is the only tie between them; a relying party that has to know the guest needs evidence of the guest
    (TDX, SEV-SNP) that carries the same nonce, and ``expected_gpus``.
    """
    a, b = node("hopper-2-spt"), node("hopper-2-spt", 1)
    mixed = Case(
        evidence=[evidence_of(a)[0], evidence_of(b)[1]],
        collateral=collateral_of(a).merged(collateral_of(b)),
        anchors=trust_anchors_from_pem(a.anchors_pem + b.anchors_pem),
    )
    assert mixed.appraise().trusted
    # And PPCIE evidence without its switches says that the topology was not looked at, in so many words.
    gpus = without(8, 9, 10, 11).appraise()
    topology = next(check for check in gpus.checks if check.id == "topology")
    assert gpus.trusted
    assert topology.outcome is Outcome.SKIPPED
    assert topology.tolerated_by == "topology"


def test_the_answers_that_are_mixed_are_genuine() -> None:
    assert all(parse_ocsp_response(answer.content).successful for answer in answers_of_the_other_node().collateral.ocsp)
    assert base64.b64encode(DEFAULT_NONCE) != base64.b64encode(OTHER_NONCE)
    assert {item.kind for item in Case().evidence} == set(DeviceKind)
