"""One bit is flipped, everywhere, one at a time: vector V1 is then refused.

The quick suite flips a seeded sample; ``make exhaustive`` flips all of them (some 450,000) and prints what refused them.
None is accepted: there is no bit in reports, certificates, answers and RIMs, white space included, that says nothing.
"""

from __future__ import annotations

import base64
import multiprocessing
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nvattest.appraisal.inputs import Collateral, OcspAnswer, RimAnswer, Source
from nvattest.appraisal.verifier import Verifier
from nvattest.evidence import Evidence, load_evidence
from nvattest.model import Nonce, VerificationTime

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "real-data"
DRIVER, VBIOS = "NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"
ANSWERS = (
    "device-brom",
    "device-identity",
    "device-provisioner",
    "driver-rim-leaf",
    "rim-gh100-ca",
    "rim-l3-signer-ca",
    "vbios-rim-leaf",
)
TARGETS = (
    "report",
    f"rim:{DRIVER}",
    f"rim:{VBIOS}",
    *(f"certificate:{position}" for position in range(5)),
    *(f"ocsp:{name}" for name in ANSWERS),
)
AT = VerificationTime.parse("device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z")
SAMPLE = 30


@dataclass
class World:
    """Vector V1 and a verifier that is kept, so that only what changed costs anything."""

    evidence: Evidence
    collateral: Collateral
    verifier: Verifier
    chain: list[bytes]

    @classmethod
    def load(cls) -> World:
        evidence = load_evidence((REAL_DATA / "evidence/hopper-550.90.07-nvtrust.json").read_bytes())[0]
        blocks = re.findall(rb"-----BEGIN CERTIFICATE-----(.*?)-----END", evidence.certificate_chain, re.DOTALL)
        return cls(
            evidence=evidence,
            collateral=Collateral(
                rims={
                    name: RimAnswer(id=name, content=(REAL_DATA / f"rim/{name}.xml").read_bytes(), source=Source.BUNDLE)
                    for name in (DRIVER, VBIOS)
                },
                ocsp=tuple(
                    OcspAnswer(content=(REAL_DATA / f"ocsp/{name}.der").read_bytes(), source=Source.BUNDLE)
                    for name in ANSWERS
                ),
            ),
            verifier=Verifier(),
            chain=[base64.b64decode(block) for block in blocks],
        )

    def content(self, target: str) -> bytes:
        kind, _, name = target.partition(":")
        if kind == "report":
            return self.evidence.report
        if kind == "rim":
            return self.collateral.rims[name].content
        if kind == "certificate":
            return self.chain[int(name)]
        return self.collateral.ocsp[ANSWERS.index(name)].content

    def refused_by(self, target: str, content: bytes) -> str:
        """The first check that refuses V1 with this content in the place of the genuine one; empty when trusted."""
        kind, _, name = target.partition(":")
        evidence, collateral = self.evidence, self.collateral
        if kind == "report":
            evidence = replace(evidence, report=content)
        elif kind == "rim":
            changed = replace(collateral.rims[name], content=content)
            collateral = replace(collateral, rims={**collateral.rims, name: changed})
        elif kind == "certificate":
            chain = [*self.chain]
            chain[int(name)] = content
            evidence = replace(evidence, certificate_chain=b"".join(map(_pem, chain)))
        else:
            place = ANSWERS.index(name)
            answers = list(collateral.ocsp)
            answers[place] = replace(answers[place], content=content)
            collateral = replace(collateral, ocsp=tuple(answers))
        appraisal = self.verifier.appraise(
            (evidence,), nonce=Nonce(self.evidence.nonce or b""), collateral=collateral, at=AT
        )
        if appraisal.trusted:
            assert appraisal.result_code == 0
            return ""
        assert appraisal.result_code != 0
        return appraisal.failures[0][1].id


def _pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


_world: World | None = None


def _flip_range(job: tuple[str, list[int]]) -> tuple[Counter[str], list[int]]:
    """Flip these bits of a target, each alone; what refused them, and the bits that were accepted."""
    global _world  # noqa: PLW0603 - one per process
    if _world is None:
        _world = World.load()
    target, bits = job
    content = _world.content(target)
    reasons: Counter[str] = Counter()
    accepted = []
    for bit in bits:
        changed = bytearray(content)
        changed[bit >> 3] ^= 1 << (bit & 7)
        reason = _world.refused_by(target, bytes(changed))
        if reason:
            reasons[reason] += 1
        else:
            accepted.append(bit)
    return reasons, accepted


def _flip_all(target: str, bits: list[int]) -> tuple[Counter[str], list[int]]:
    jobs = [(target, bits[start : start + 500]) for start in range(0, len(bits), 500)]
    # xdist already spreads the targets over the cores.
    processes = 1 if "PYTEST_XDIST_WORKER" in os.environ else min(os.cpu_count() or 1, 8)
    reasons: Counter[str] = Counter()
    accepted: list[int] = []

    def results() -> Iterator[tuple[Counter[str], list[int]]]:
        if processes == 1 or len(jobs) == 1:
            yield from map(_flip_range, jobs)
        else:
            with multiprocessing.get_context("fork").Pool(processes) as pool:
                yield from pool.imap_unordered(_flip_range, jobs)

    for some, more in results():
        reasons.update(some)
        accepted += more
    return reasons, sorted(accepted)


@pytest.fixture(scope="module")
def world(real_data: Path) -> World:
    return World.load()


def test_the_vector_itself_is_trusted(world: World) -> None:
    assert [world.refused_by(target, world.content(target)) for target in TARGETS] == [""] * len(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_a_sampled_flipped_bit_is_refused(world: World, target: str) -> None:
    content = world.content(target)
    bits = random.Random(f"flip {target}").sample(range(len(content) * 8), SAMPLE)  # noqa: S311 - a seed, not a secret
    _, accepted = _flip_all(target, bits)
    assert accepted == []


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("target", TARGETS)
def test_every_flipped_bit_is_refused(world: World, target: str) -> None:
    content = world.content(target)
    start = time.perf_counter()
    reasons, accepted = _flip_all(target, list(range(len(content) * 8)))
    spent = time.perf_counter() - start
    print(f"\n{target}: {len(content) * 8} flips in {spent:.0f} s, {len(accepted)} accepted")
    print("  refused by " + ", ".join(f"{name} {count}" for name, count in reasons.most_common()))
    if accepted:
        print("  accepted: " + ", ".join(f"byte {bit >> 3} bit {bit & 7}" for bit in accepted[:40]))
    assert accepted == []
    assert sum(reasons.values()) + len(accepted) == len(content) * 8
