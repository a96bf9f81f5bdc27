"""What GPUs cost a verifier that is kept, and how many a machine judges per second, with both signature backends.

pytest -s -m benchmark tests/benchmarks/bench_fleet.py
"""

from __future__ import annotations

import base64
import json
import os
import statistics
from time import perf_counter, process_time

import pytest

from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.bundle import load_bundle
from nvattest.evidence import Evidence, read_evidence
from nvattest.fleet import BatchSettings, Judge, verify_batch
from nvattest.model import Nonce
from nvattest.pki.certificate import parse_pem_chain
from nvattest.pki.ecdsa import EcdsaVerifier
from nvattest.spdm.report import parse_report
from nvattest.testing import SimulatedFleet

pytestmark = pytest.mark.benchmark
NODES = 300
BACKENDS = ("cryptography", "aws-lc")


@pytest.fixture(scope="module")
def fleet() -> SimulatedFleet:
    return SimulatedFleet(NODES)


def evidence(fleet: SimulatedFleet, index: int, nonce: bytes) -> tuple[Evidence, ...]:
    device = fleet.device(index)
    return read_evidence(
        [
            {
                "arch": device.arch,
                "evidence": base64.b64encode(device.report(nonce)).decode(),
                "certificate": base64.b64encode(device.chain_pem).decode(),
            }
        ]
    )


def one_signature(item: Evidence, backend: str) -> float:
    report, spki = parse_report(item.report, item.kind), parse_pem_chain(item.certificate_chain)[0].spki_der
    verifier, times = EcdsaVerifier(backend=backend, remember=0), []
    for _ in range(200):
        start = process_time()
        assert verifier.verify_raw(spki, report.signature, report.signed)
        times.append(process_time() - start)
    return statistics.median(times)


def test_gpus_in_a_running_process(fleet: SimulatedFleet) -> None:
    collateral = load_bundle(fleet.bundle(), origin="bundle")
    nonces = [os.urandom(32), os.urandom(32)]
    rounds = [[evidence(fleet, index, nonce) for index in range(NODES)] for nonce in nonces]
    print("\nA GPU in a running process, with revocation (median CPU time; one P-384 as the unit)")
    for backend in BACKENDS:
        one = one_signature(rounds[0][0][0], backend)
        verifier = Verifier(anchors=fleet.platform.trust_anchors(), backend=backend)
        times: tuple[list[float], list[float]] = ([], [])
        counts = [0, 0]
        for index in range(NODES):
            for which in (0, 1):
                before, start = verifier.ecdsa.verifications, process_time()
                result = verifier.appraise(
                    rounds[which][index], nonce=Nonce(nonces[which]), collateral=collateral, at=fleet.platform.time
                )
                if index:
                    times[which].append(process_time() - start)
                    counts[which] = verifier.ecdsa.verifications - before
                assert result.trusted
        print(f"  {backend:14} one P-384 verification    {one * 1e3:6.3f} ms")
        for which, name in enumerate(("never seen", "seen, new report")):
            cost, count = statistics.median(times[which]), counts[which]
            floor = 3 if which == 0 else 1
            print(
                f"  {backend:14} {name:25} {cost * 1e3:6.3f} ms = {cost / one / floor:5.2f} x {floor} "
                f"= {cost / one / count:5.2f} x {count} computed; besides them {(cost - count * one) * 1e3:6.3f} ms"
            )


def test_nodes_per_second(fleet: SimulatedFleet) -> None:
    lines = [fleet.line(index) for index in range(NODES)]
    bundle = fleet.bundle()
    rates: list[tuple[float, float]] = []
    print(f"\nverify-batch, {NODES} never-seen nodes of one GPU")
    for backend in BACKENDS:
        settings = BatchSettings(
            bundle=bundle, anchors=fleet.platform.anchors_pem, at=fleet.platform.time, backend=backend
        )
        judge = Judge(settings)
        judge.judge(lines[0])
        start = process_time()
        for line in lines[1:]:
            assert json.loads(judge.judge(line))["trusted"]
        alone = (NODES - 1) / (process_time() - start)
        begun = 0.0
        for number, answer in enumerate(verify_batch(lines * 8, settings)):
            if number == NODES:  # by then the workers have started
                begun = perf_counter()
            assert '"trusted":true' in answer
        together = (7 * NODES - 1) / (perf_counter() - begun)
        rates.append((alone, together))
        print(
            f"  {backend:14} one core {alone:6.0f} /s of CPU time   {os.cpu_count()} cores {together:6.0f} /s of wall time"
        )
    print(
        f"  ratio          one core {rates[1][0] / rates[0][0]:6.2f}                  cores {rates[1][1] / rates[0][1]:6.2f}"
    )
