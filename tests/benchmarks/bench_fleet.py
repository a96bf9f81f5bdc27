"""What GPUs cost a verifier that is kept, and how many a machine judges per second, with both signature backends.

pytest -s -m benchmark tests/benchmarks/bench_fleet.py
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import pytest

from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.evidence import Evidence
from nvattest.fleet import BatchSettings, Judge, verify_batch
from nvattest.model import Nonce
from nvattest.pki.certificate import parse_pem_chain
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.spdm.report import parse_report
from nvattest.testing import SimulatedFleet

pytestmark = pytest.mark.benchmark
NODES = 1500
ALONE = 300
# By then all workers are at work.
STARTED = 300
DEVICES = 60
VERIFIERS = 8
BACKENDS = ("cryptography", "aws-lc")


@pytest.fixture(scope="module")
def fleet() -> SimulatedFleet:
    return SimulatedFleet(NODES)


def evidence(fleet: SimulatedFleet, index: int, nonce: bytes) -> tuple[Evidence, ...]:
    return (fleet.device(index).evidence(nonce),)


def one_signature(item: Evidence, backend: str) -> Callable[[], None]:
    """One verification of the report's signature that remembers nothing, loading the key included."""
    report, spki = parse_report(item.report, item.kind), parse_pem_chain(item.certificate_chain)[0].spki_der
    signature, signed = report.signature, report.signed

    def verify() -> None:
        assert EcdsaVerifier(backend=backend, remember=0).verify_raw(spki, signature, signed)

    return verify


def test_gpus_in_a_running_process(fleet: SimulatedFleet) -> None:
    """Each figure is the median over devices of the best of several verifiers that meet them in turn.

    A busy machine only ever makes a run slower; the signature that is the unit is timed beside each device.
    """
    collateral = fleet.collateral()
    nonces = [os.urandom(32), os.urandom(32)]
    rounds = [[evidence(fleet, index, nonce) for index in range(DEVICES)] for nonce in nonces]
    print("\nA GPU in a running process, with revocation (CPU time; one P-384 as the unit)")
    for backend in BACKENDS:
        unit = one_signature(rounds[0][0][0], backend)
        # never seen, seen with a new report, one signature
        best = [[math.inf] * DEVICES for _ in range(3)]
        counts = [0, 0]
        for _ in range(VERIFIERS):
            verifier = Verifier(anchors=fleet.platform.trust_anchors(), backend=backend)
            for index in range(DEVICES):
                for which in (0, 1):
                    before, start = memory_of(verifier).ecdsa.verifications, process_time()
                    result = verifier.appraise(
                        rounds[which][index], nonce=Nonce(nonces[which]), collateral=collateral, at=fleet.platform.time
                    )
                    best[which][index] = min(best[which][index], process_time() - start)
                    counts[which] = memory_of(verifier).ecdsa.verifications - before
                    assert result.trusted
                start = process_time()
                unit()
                best[2][index] = min(best[2][index], process_time() - start)
        # The first device also brings RIMs and anchors.
        *costs, one = (statistics.median(found[1:]) for found in best)
        print(f"  {backend:14} one P-384 verification    {one * 1e3:6.3f} ms")
        for name, cost, count, floor, target in (
            ("never seen", costs[0], counts[0], 4, 1.45),
            ("seen, new report", costs[1], counts[1], 1, 2.0),
        ):
            print(
                f"  {backend:14} {name:25} {cost * 1e3:6.3f} ms = {cost / one / floor:5.2f} x {floor} (target {target}) "
                f"= {cost / one / count:5.2f} x {count} computed; besides them {(cost - count * one) * 1e3:6.3f} ms"
            )


def test_nodes_per_second(fleet: SimulatedFleet, tmp_path: Path) -> None:
    lines = [fleet.line(index) for index in range(NODES)]
    (tmp_path / "bundle.json").write_bytes(fleet.bundle())
    bundles = (str(tmp_path / "bundle.json"),)
    rates: list[tuple[float, float]] = []
    print(f"\nverify-batch, {NODES} never-seen nodes of one GPU, a judge alone {ALONE}")
    settings_of = {
        backend: BatchSettings(
            bundles=bundles, anchors=fleet.platform.anchors_pem, at=fleet.platform.time, backend=backend
        )
        for backend in BACKENDS
    }
    alone = dict.fromkeys(BACKENDS, 0.0)
    for _ in range(3):  # the best of three turns
        for backend in BACKENDS:
            judge = Judge(settings_of[backend])
            judge.judge(lines[0])
            start = process_time()
            answers = [judge.judge(line) for line in lines[1:ALONE]]
            alone[backend] = max(alone[backend], len(answers) / (process_time() - start))
            assert all('"trusted":true' in answer for answer in answers)
    for backend in BACKENDS:
        settings = settings_of[backend]
        begun = 0.0
        # Every node once: one that comes back would be a seen GPU with a report that is remembered.
        for number, answer in enumerate(verify_batch(lines, settings)):
            if number == STARTED:
                begun = perf_counter()
            assert '"trusted":true' in answer
        together = (len(lines) - 1 - STARTED) / (perf_counter() - begun)
        rates.append((alone[backend], together))
        print(
            f"  {backend:14} one core {alone[backend]:6.0f} /s of CPU time   {os.cpu_count()} cores {together:6.0f} /s of wall time"
        )
    print(
        f"  ratio          one core {rates[1][0] / rates[0][0]:6.2f}                  cores {rates[1][1] / rates[0][1]:6.2f}"
    )
