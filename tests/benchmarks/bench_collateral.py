"""Requests, waves and wall time of a verification over the network, with 100 ms before every answer.

pytest -s tests/benchmarks/bench_collateral.py
"""

from __future__ import annotations

import time

import pytest

from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.cache import DiskCache
from nvattest.collateral.gather import GatherOptions, gather
from nvattest.collateral.http import HttpSettings
from nvattest.model import Nonce
from nvattest.testing import Platform
from nvattest.testing.services import Services

pytestmark = pytest.mark.benchmark
NONCE = bytes(range(32))
DELAY = 0.1
# Per device: a device chain and its RIMs, three answers each, and one request for each RIM.
PEERS = {"hopper-1": 11, "hopper-8-ppcie": 8 * 11 + 4 * 7, "blackwell-8-mpt": 8 * 11}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_time_to_verify_over_the_network(name, tls, tmp_path) -> None:
    platform = Platform.build(name)
    platform.rims()
    evidence = platform.evidence(NONCE)
    with Services(platform, delay=DELAY, tls=tls) as services:
        http = HttpSettings()
        if tls:
            (tmp_path / "ca.pem").write_bytes(services.ca_pem)
            http = HttpSettings(tls_ca_cert=str(tmp_path / "ca.pem"))
        for run in ("cold", "warm"):
            services.forget()
            start = time.perf_counter()
            verifier = Verifier(anchors=platform.trust_anchors())
            options = GatherOptions(
                rim_url=services.rim_url,
                ocsp_url=services.ocsp_url,
                http=http,
                cache=DiskCache(str(tmp_path / "cache"), now=lambda: platform.clock),
            )
            found = gather(evidence, options, at=platform.time, verifier=verifier)
            gathered = time.perf_counter()
            appraisal = verifier.appraise(evidence, nonce=Nonce(NONCE), collateral=found, at=platform.time)
            end = time.perf_counter()
            assert appraisal.trusted
            # Figures that no load changes; the times are for people.
            assert services.waves <= (0 if run == "warm" else 3 if "8" in name else 2)
            assert len({(item.service, item.key) for item in services.log}) == len(services.log)
            count, serial = len(services.log), len(services.log) * DELAY
            print(
                f"\n{name:16} {'https' if tls else 'http':5} {run}: {count:3} requests in {services.waves} waves, "
                f"{end - start:6.3f} s (gathering {gathered - start:6.3f} s); these one after another {serial:5.1f} s, "
                f"as peers ask {PEERS[name]:3} requests, {PEERS[name] * DELAY:5.1f} s"
            )
