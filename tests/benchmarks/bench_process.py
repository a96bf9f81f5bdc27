"""What whole processes cost in CPU time, beside a process that only does what none of them can do without.

pytest -s -m benchmark tests/benchmarks/bench_process.py

The processes of a table take turns. Each figure is the best of its turns, user and system time: a busy machine only ever
makes a run slower. The simulated driver and the services run in the process of the benchmark and count for nothing.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from measure import heading, ms, run, table

from nvattest.cli import main
from nvattest.evidence import Evidence, load_evidence
from nvattest.pki.certificate import parse_pem_chain
from nvattest.spdm.report import parse_report
from nvattest.testing import Platform
from nvattest.testing.world import World

pytestmark = pytest.mark.benchmark

PROGRAM = os.path.join(os.path.dirname(sys.executable), "nvattest")
INTERPRETER = [sys.executable, "-c", ""]
TURNS = 15
AT = "device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"
LIBRARIES = "cryptography.x509, lxml.etree"
MORE_LIBRARIES = f"{LIBRARIES}, jwt, requests"
# NVIDIA's C++ tool 1.2.2 for eight GPUs with nothing cached, 335 ms of CPU, on a machine where these imports take 140.
PEER_EIGHT = 335 / 140
FLOOR = """
import {libraries}, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
spki, signature, message = (bytes.fromhex(word) for word in sys.argv[1:])
for _ in range({count}):
    serialization.load_der_public_key(spki).verify(signature, message, ec.ECDSA(hashes.SHA384()))
"""


def floor(item: Evidence, libraries: str, count: int) -> list[str]:
    """A process that imports the libraries and verifies the report's signature so many times."""
    report, leaf = parse_report(item.report, item.kind), parse_pem_chain(item.certificate_chain)[0]
    r, s = (int.from_bytes(half, "big") for half in (report.signature[:48], report.signature[48:]))
    words = [part.hex() for part in (leaf.spki_der, encode_dss_signature(r, s), report.signed)]
    return [sys.executable, "-c", textwrap.dedent(FLOOR).format(libraries=libraries, count=count), *words]


def ratios(
    title: str,
    unit: str,
    rows: Mapping[str, tuple[list[str], str]],
    *,
    environment: Mapping[str, str] | None = None,
    turns: int = TURNS,
) -> None:
    """Print a table: each row's command against the row ``unit``, with its target."""
    best: dict[str, tuple[float, float]] = {}
    # An installation has byte code.
    environment = {**(environment or os.environ), "PYTHONDONTWRITEBYTECODE": ""}
    for turn in range(turns + 1):
        for name, (command, _) in rows.items():
            cost, _ = run(command, environment=environment)
            if turn:  # The first one writes byte code and fills the cache.
                cpu, rss = best.get(name, (cost.cpu, cost.rss))
                best[name] = min(cpu, cost.cpu), max(rss, cost.rss)
    heading(f"{title} (CPU, best of {turns})")
    table(
        ("", "CPU", "peak", f"against {unit}", "target"),
        [
            (name, ms(cpu), f"{rss:.0f} MB", f"{cpu / best[unit][0]:.2f}", rows[name][1])
            for name, (cpu, rss) in best.items()
        ],
    )


def test_vector_v1_with_a_bundle(real_data: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.json"
    create = ["bundle", "create", "--rim-dir", str(real_data / "rim"), "--ocsp-dir", str(real_data / "ocsp")]
    assert main([*create, "--output", str(bundle)]) == 0
    path = real_data / "evidence/hopper-550.90.07-nvtrust.json"
    [item] = load_evidence(path.read_bytes())
    attest = [
        "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", str(path), "--nonce", (item.nonce or b"").hex(),
        "--bundle", str(bundle), "--at", AT,
    ]  # fmt: skip
    ratios(
        "The whole process on vector V1 with a bundle",
        "the floor",
        {
            "the floor": (floor(item, LIBRARIES, 13), ""),
            "attest, text": ([PROGRAM, *attest], "1.5"),
            "attest, JSON": ([PROGRAM, "-f", "json", *attest], ""),
        },
    )


def test_the_live_path(tmp_path: Path) -> None:
    for name, text, target in (("hopper-1", "one GPU", ("1.4", "1.0")), ("hopper-8-spt", "eight GPUs", ("", ""))):
        platform = Platform.build(name, clock=datetime.now(timezone.utc))
        item = platform.evidence(bytes(32))[0]
        attest = [PROGRAM, "-f", "json", "attest"]
        with World(platform) as world:
            ratios(
                f"The live path, JSON: {text}, simulated driver, services on loopback",
                "the floor",
                {
                    "the floor": (floor(item, MORE_LIBRARIES, 25), ""),
                    "nothing cached": ([*attest, "--no-cache"], target[0]),
                    "the cache filled": ([*attest, "--cache-dir", str(tmp_path / name)], target[1]),
                },
                environment=world.environment(),
            )
            if text == "eight GPUs":
                ratios(
                    f"{text} with nothing cached, beside NVIDIA's C++ tool, which took {PEER_EIGHT:.2f} of this unit",
                    "the imports",
                    {
                        "the imports": ([sys.executable, "-c", f"import {MORE_LIBRARIES}"], ""),
                        "nothing cached": ([*attest, "--no-cache"], f"{PEER_EIGHT:.2f}"),
                    },
                    environment=world.environment(),
                )


def test_light_commands() -> None:
    ratios(
        "Commands that verify nothing",
        "the interpreter",
        {
            "the interpreter": (INTERPRETER, ""),
            "version": ([PROGRAM, "version"], "2.5"),
            "--help": ([PROGRAM, "--help"], ""),
            "attest --help": ([PROGRAM, "attest", "--help"], ""),
            "completion bash": ([PROGRAM, "completion", "bash"], ""),
            "explain a code": ([PROGRAM, "explain", "device-count"], ""),
            "hook --help": ([os.path.join(os.path.dirname(PROGRAM), "nvattest-hook"), "--help"], ""),
        },
    )
