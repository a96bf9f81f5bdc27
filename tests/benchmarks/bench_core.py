"""What the core costs beside the signatures that nobody can save, as ratios within one run.

pytest -s -m benchmark tests/benchmarks/bench_core.py

Each figure is the best of many runs, and the runs of what is compared take turns, so that a busy machine disturbs both
alike. "P-384" is one verification of a raw signature with the library, key loading included.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nvattest.appraisal.inputs import Collateral, EvidencePolicy, OcspAnswer, RimAnswer, Source
from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.evidence import Evidence, load_evidence
from nvattest.model import Nonce, VerificationTime
from nvattest.pki.certificate import parse_pem_chain
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.spdm.report import parse_report
from nvattest.testing import Platform

pytestmark = pytest.mark.benchmark

AT = "device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"
NONCE = bytes(range(32))


def best(*runs: Callable[[], object], rounds: int = 60) -> list[float]:
    """The best time of each, in milliseconds; they take turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, found in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            found.append((time.perf_counter() - start) * 1e3)
    return [min(found) for found in times]


def row(name: str, spent: float, floor: float, count: int, target: str) -> None:
    print(f"  {name:62} {spent:8.3f} ms = {spent / floor:5.2f} x {count:2} P-384  {target}")


def raw_signatures(evidence: Evidence) -> Callable[[int], None]:
    """One verification that remembers nothing: the report's."""
    report, leaf = parse_report(evidence.report, evidence.kind), parse_pem_chain(evidence.certificate_chain)[0]
    spki, signature, signed = leaf.spki_der, report.signature, report.signed

    def verify(count: int) -> None:
        verifier = EcdsaVerifier(remember=0)
        for _ in range(count):
            assert verifier.verify_raw(spki, signature, signed)

    return verify


def v1(real_data: Path) -> tuple[tuple[Evidence, ...], Collateral]:
    ids = ("NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001")
    return load_evidence((real_data / "evidence/hopper-550.90.07-nvtrust.json").read_bytes()), Collateral(
        rims={
            name: RimAnswer(id=name, content=(real_data / f"rim/{name}.xml").read_bytes(), source=Source.BUNDLE)
            for name in ids
        },
        ocsp=tuple(
            OcspAnswer(content=path.read_bytes(), source=Source.BUNDLE) for path in (real_data / "ocsp").iterdir()
        ),
    )


def test_one_gpu_in_a_running_process() -> None:
    """A simulated node: GPU 0 warms the verifier, then each of the other seven is new to it."""
    platform = Platform.build("hopper-8-ppcie")
    evidence = platform.evidence(NONCE)[:8]
    collateral = platform.collateral()
    for word, policy, given in (
        ("without revocation", EvidencePolicy(accept_unchecked_revocation=True), replace(collateral, ocsp=())),
        ("with revocation", EvidencePolicy(), collateral),
    ):
        # The best of many verifiers for each GPU, in CPU time, with the unit timed beside it; then the median of GPUs.
        never, again, floors = ([math.inf] * len(evidence) for _ in range(3))
        counts: set[int] = set()
        raw = raw_signatures(evidence[0])
        for _ in range(20):
            verifier = Verifier(anchors=platform.trust_anchors(), policy=policy)

            def appraise(item: Evidence, verifier: Verifier = verifier, given: Collateral = given) -> None:
                appraisal = verifier.appraise((item,), nonce=Nonce(NONCE), collateral=given, at=platform.time)
                assert appraisal.devices[0].trusted

            appraise(evidence[0])
            for index, item in enumerate(evidence[1:], start=1):
                before = memory_of(verifier).ecdsa.verifications
                for table, run, what in ((never, appraise, item), (again, appraise, item), (floors, raw, 3)):
                    start = time.process_time()
                    run(what)  # type: ignore[operator]
                    table[index] = min(table[index], (time.process_time() - start) * 1e3)
                counts.add(memory_of(verifier).ecdsa.verifications - before)
        cost, seen, floor = (statistics.median(table[1:]) for table in (never, again, floors))
        print(f"\nOne GPU in a running process, RIMs and anchors verified before, {word} ({counts} signatures)")
        row("never seen", cost, floor, 3, "targets 1.5 and 1.25")
        if counts != {3}:
            row("never seen, against all its signatures", cost, floor / 3 * max(counts), max(counts), "")
        row("the same evidence again", seen, floor / 3, 1, "")


def test_the_first_gpu_with_nothing_remembered(real_data: Path) -> None:
    evidence, collateral = v1(real_data)
    raw = raw_signatures(evidence[0])
    at = VerificationTime.parse(AT)
    nonce = Nonce(evidence[0].nonce or b"")
    none = replace(collateral, ocsp=())
    weak = EvidencePolicy(accept_unchecked_revocation=True)

    def first(policy: EvidencePolicy, given: Collateral) -> int:
        verifier = Verifier(policy=policy)
        assert verifier.appraise(evidence, nonce=nonce, collateral=given, at=at).trusted
        return memory_of(verifier).ecdsa.verifications

    counts = first(weak, none), first(EvidencePolicy(), collateral)
    bare, full, floor = best(
        lambda: first(weak, none), lambda: first(EvidencePolicy(), collateral), lambda: raw(13), rounds=40
    )
    print("\nThe first GPU, nothing remembered, modules loaded (vector V1)")
    row(f"without revocation ({counts[0]} signatures)", bare, floor, 13, "target 2.0")
    row(f"with 7 answers of 7 responders ({counts[1]} signatures)", full, floor, 13, "")
    row("the same, against all its signatures", full, floor / 13 * counts[1], counts[1], "")


def test_steps_of_one_gpu(real_data: Path) -> None:
    from nvattest.appraisal.results import appraisal_to_json
    from nvattest.pki.ocsp import parse_ocsp_response
    from nvattest.rim.document import parse_rim
    from nvattest.rim.verify import verify_rim
    from nvattest.token.claims import claims_of

    evidence, collateral = v1(real_data)
    item, at = evidence[0], VerificationTime.parse(AT)
    verifier = Verifier()
    appraisal = verifier.appraise(evidence, nonce=Nonce(item.nonce or b""), collateral=collateral, at=at)
    assert appraisal.trusted
    rim = next(iter(collateral.rims.values())).content
    document = parse_rim(rim)
    anchors = verifier.anchors.rim
    steps: dict[str, Callable[[], object]] = {
        "read the evidence JSON": lambda: load_evidence(
            (real_data / "evidence/hopper-550.90.07-nvtrust.json").read_bytes()
        ),
        "parse the report": lambda: parse_report(item.report, item.kind),
        "parse the chain of five": lambda: parse_pem_chain(item.certificate_chain),
        "parse one RIM": lambda: parse_rim(rim),
        "verify one RIM, signatures remembered": lambda: verify_rim(
            document, anchors=anchors, at=at.rim, verifier=memory_of(verifier).ecdsa
        ),
        "parse seven answers": lambda: [parse_ocsp_response(answer.content) for answer in collateral.ocsp],
        "the whole appraisal, everything remembered": lambda: verifier.appraise(
            evidence, nonce=Nonce(item.nonce or b""), collateral=collateral, at=at
        ),
        "claims 4.0": lambda: claims_of(appraisal),
        "the appraisal as JSON values": lambda: appraisal_to_json(appraisal),
    }
    raw = raw_signatures(item)
    *spent, floor = best(*steps.values(), lambda: raw(1))
    print(f"\nSteps (one P-384 takes {floor:.3f} ms)")
    for name, value in zip(steps, spent, strict=True):
        row(name, value, floor, 1, "")
